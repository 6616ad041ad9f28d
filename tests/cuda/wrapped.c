/* SPDX-License-Identifier: MIT */
/* wrapped.c - linked with the driver, run with lib_wrap.c preloaded.
 *
 * Owns nothing; lock: none. The wrapper's function is called, whichever way it is found
 * without a handle; a handle of the driver gives the driver's.
 */
#include "interpose/cuda_abi.h"
#include "tests/cuda/look.h"

int main(int argc, char **argv)
{
	void *handle = dlopen("libcuda.so.1", RTLD_NOW);
	CUresult (*f)(CUdeviceptr *, size_t);
	CUdeviceptr p;

	check(cuMemAlloc_v2(&p, 1) == 1000, "a call passes by the wrapper");
	f = (__typeof__(f))dlsym(RTLD_DEFAULT, "cuMemAlloc_v2");
	check(f && f(&p, 1) == 1000, "RTLD_DEFAULT passes by the wrapper");
	f = (__typeof__(f))dlsym(handle, "cuMemAlloc_v2");
	check(f && is_hook((void *)f) == want_hooks() && f(&p, 1) == CUDA_SUCCESS,
	      "the driver's own: %s", file_of((void *)f));
	return 0;
}
