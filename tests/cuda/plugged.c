/* SPDX-License-Identifier: MIT */
/* plugged.c - a program that knows nothing of the driver, until a plugin brings it.
 *
 * Owns nothing; lock: none. (1) Before: no name of the driver's is to be found, by a
 * weak symbol, by look-up or by dlopen; dlerror says so in the same words. (2) After:
 * the plugin, which is linked with the driver, is bound to the hooks; the program's own
 * scope still knows nothing. Without a plugin what it prints is to be the same with
 * and without the library.
 */
#include "tests/cuda/look.h"

int cuInit(unsigned int) __attribute__((weak));

static void absent(void)
{
	void *h;

	check(!cuInit, "a weak symbol");
	check(!dlsym(RTLD_DEFAULT, "cuInit"), "RTLD_DEFAULT");
	puts(dlerror());
	check(!dlsym(RTLD_NEXT, "cuInit"), "RTLD_NEXT");
	puts(dlerror());
	check(!dlvsym(RTLD_DEFAULT, "cuInit", "V"), "dlvsym");
	puts(dlerror());
	h = dlopen("libcuda.so.1", RTLD_NOW);
	puts(h ? "libcuda.so.1 is there" : dlerror());
}

int main(int argc, char **argv)
{
	const char *(*run)(void), *why;
	void *handle;

	if (argc < 2) {
		absent();
		return 0;
	}
	check(!cuInit && !dlsym(RTLD_DEFAULT, "cuInit"), "before");
	handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	check(handle, "%s", dlerror());
	run = (__typeof__(run))dlsym(handle, "run");
	check(run, "%s", dlerror());
	why = run();
	check(!why, "the plugin: %s", why);
	check(!cuInit && !dlsym(RTLD_DEFAULT, "cuInit"), "after");
	return 0;
}
