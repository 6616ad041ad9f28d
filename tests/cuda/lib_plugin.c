/* SPDX-License-Identifier: MIT */
/* lib_plugin.c - loaded by a program, linked with the driver, with a library of its own
 * in a folder that only its RUNPATH names.
 *
 * Owns nothing; lock: none. What it looks up by RTLD_DEFAULT and RTLD_NEXT is found as
 * seen from here, not from where the look-up passes through.
 */
#include "interpose/cuda_abi.h"
#include "tests/cuda/look.h"
#include "tests/cuda/stub.h"

const char *run(void);
int whose(void);

/* lib_inner.c has one too, and this one comes first. */
int whose(void)
{
	return 1;
}

static const char *look(void)
{
	void *inner = dlopen("libinner.so", RTLD_NOW | RTLD_LOCAL);
	int (*f)(void), (*hidden)(void);

	if (!inner)
		return dlerror();
	f = (int (*)(void))dlsym(RTLD_DEFAULT, "whose");
	if (!f || f() != 1)
		return "RTLD_DEFAULT is not seen from here";
	f = (int (*)(void))dlsym(RTLD_NEXT, "linked_inner");
	if (!f || f() != 3)
		return "RTLD_NEXT is not seen from here";
	hidden = (int (*)(void))dlsym(inner, "whose");
	return hidden && hidden() == 2 ? NULL : "a handle gives something else";
}

const char *run(void)
{
	CUdeviceptr p = 0;
	const char *why = look();

	if (why)
		return why;
	if (cuMemAlloc_v2(&p, 64) != CUDA_SUCCESS || is_hook(stub_last.caller) != want_hooks())
		return "its calls are not bound";
	/* Not in the program's scope where that is not linked with the driver. */
	if (is_hook(dlsym(RTLD_DEFAULT, "cuMemAlloc_v2")) != want_hooks())
		return "RTLD_DEFAULT does not give the driver";
	if (is_hook(dlsym(RTLD_NEXT, "cuMemAlloc_v2")) != want_hooks())
		return "RTLD_NEXT does not give the driver";
	return NULL;
}
