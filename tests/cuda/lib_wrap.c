/* SPDX-License-Identifier: MIT */
/* lib_wrap.c - another preloaded library that wraps one function of the driver, as
 * tools do: its own stays in charge, and the next is the hook.
 *
 * Owns nothing; lock: none.
 */
#include "interpose/cuda_abi.h"
#include "tests/cuda/look.h"

CUresult cuCtxSynchronize(void)
{
	return CUDA_SUCCESS;
}

/* A hooked one. */
CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t n)
{
	CUresult (*next)(CUdeviceptr *, size_t) =
		(__typeof__(next))dlsym(RTLD_NEXT, "cuMemAlloc_v2");

	if (!next || is_hook((void *)next) != want_hooks())
		return CUDA_ERROR_UNKNOWN;
	*p = 77;
	return next(p, n) ? CUDA_ERROR_UNKNOWN : (CUresult)1000;
}
