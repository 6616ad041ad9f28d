/* SPDX-License-Identifier: MIT */
/* linked.c - a program linked with the driver, and objects that are loaded later.
 *
 * Owns nothing; lock: none. (1) Calls, addresses taken and addresses in tables are the
 * hooks' from main on, whether bound at start or at first use. (2) RTLD_DEFAULT and
 * RTLD_NEXT find them. (3) A plugin linked with the driver is bound when it is looked
 * into; one whose folder is known to its loader only (RUNPATH) is still found.
 * (4) What a program defines itself under the driver's name stays its own.
 */
#include "interpose/cuda_abi.h"
#include "tests/cuda/look.h"
#include "tests/cuda/stub.h"

/* Read, not known to the compiler: the loader writes it. */
static CUresult (*const volatile table[])(CUdeviceptr *, size_t) = { cuMemAlloc_v2 };

static void direct(void)
{
	CUdeviceptr p = 0;
	void *host = NULL;

	check(is_hook((void *)table[0]) == want_hooks(), "a table: %s",
	      file_of((void *)table[0]));
	stub_last.symbol = "";
	check(table[0](&p, 1) == CUDA_SUCCESS && is_hook(stub_last.caller) == want_hooks(),
	      "a call by a table comes from %s", file_of(stub_last.caller));
	for (int i = 0; i < 2; i++) {
		stub_last.symbol = "";
		check(cuMemAlloc_v2(&p, 4096) == CUDA_SUCCESS &&
		      !strcmp(stub_last.symbol, "cuMemAlloc_v2"), "a call");
		check(is_hook(stub_last.caller) == want_hooks(), "call %d comes from %s", i,
		      file_of(stub_last.caller));
		/* Nothing but called: bound at its first use. */
		check(cuMemAllocHost_v2(&host, 4096) == CUDA_SUCCESS &&
		      !strcmp(stub_last.symbol, "cuMemAllocHost_v2") &&
		      is_hook(stub_last.caller) == want_hooks(), "late call %d comes from %s",
		      i, file_of(stub_last.caller));
	}
}

static void by_name(void)
{
	check(is_hook(dlsym(RTLD_DEFAULT, "cuMemFree_v2")) == want_hooks(), "RTLD_DEFAULT");
	check(is_hook(dlsym(RTLD_NEXT, "cuMemFree_v2")) == want_hooks(), "RTLD_NEXT");
	check(is_hook(dlvsym(RTLD_DEFAULT, "cuMemFree_v2", "ANY")) == want_hooks() ||
	      !dlvsym(RTLD_DEFAULT, "cuMemFree_v2", "ANY"), "dlvsym");
	check(!dlsym(RTLD_NEXT, "main"), "what is before");
}

static void plugin(const char *path)
{
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	const char *(*run)(void), *why;

	check(handle, "%s", dlerror());
	run = (__typeof__(run))dlsym(handle, "run");
	check(run, "%s", dlerror());
	why = run();
	check(!why, "the plugin: %s", why);
}

int main(int argc, char **argv)
{
	check(argc == 2, "usage: linked PLUGIN");
	direct();
	by_name();
	plugin(argv[1]);
	return 0;
}
