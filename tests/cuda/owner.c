/* SPDX-License-Identifier: MIT */
/* owner.c - a program with a dlsym of its own, a plain function, as those have who look
 * into the driver's look-ups: what others look up comes from it, as if it had asked.
 *
 * Owns nothing; lock: none.
 */
#include "interpose/cuda_abi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static int asked;

__attribute__((visibility("default"))) void *dlsym(void *handle, const char *name)
{
	void *(*real)(void *, const char *) =
		(__typeof__(real))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
	void *at;

	if (!real)
		real = (__typeof__(real))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
	at = real(handle, name);
	asked += at != NULL;	/* after it: not a jump, which would leave the caller's address */
	return at;
}

int main(int argc, char **argv)
{
	void *lib = dlopen(argv[1], RTLD_NOW), *p = malloc(100);
	CUresult (*init)(unsigned int) = lib ?
		(__typeof__(init))dlsym(lib, "cuInit") : NULL;

	free(p);
	if (!p || !init || init(0) != CUDA_SUCCESS || asked < 1) {
		fprintf(stderr, "no driver in %s\n", argv[1]);
		return 1;
	}
	return 0;
}
