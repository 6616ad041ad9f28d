/* SPDX-License-Identifier: MIT */
/* more.c - functions in their older or newer forms, made of those that are elsewhere.
 *
 * Owns nothing. Lock: the emulator's.
 */
#include "tests/emu/emu.h"

/* ---- the same under an older symbol ------------------------------------------------- */

CUresult i_cuStreamDestroy(CUstream s)
{
	return i_cuStreamDestroy_v2(s);
}

CUresult i_cuEventDestroy(CUevent e)
{
	return i_cuEventDestroy_v2(e);
}

CUresult i_cuCtxDestroy(CUcontext c)
{
	return i_cuCtxDestroy_v2(c);
}

CUresult i_cuCtxPushCurrent(CUcontext c)
{
	return i_cuCtxPushCurrent_v2(c);
}

CUresult i_cuCtxPopCurrent(CUcontext *c)
{
	return i_cuCtxPopCurrent_v2(c);
}

CUresult i_cuMemHostRegister(void *at, size_t size, unsigned int flags)
{
	return i_cuMemHostRegister_v2(at, size, flags);
}

CUresult i_cuStreamWriteValue32(CUstream s, CUdeviceptr at, cuuint32_t v, unsigned int flags)
{
	return i_cuStreamWriteValue32_v2(s, at, v, flags);
}

CUresult i_cuStreamWriteValue64(CUstream s, CUdeviceptr at, cuuint64_t v, unsigned int flags)
{
	return i_cuStreamWriteValue64_v2(s, at, v, flags);
}

CUresult i_cuStreamWaitValue32(CUstream s, CUdeviceptr at, cuuint32_t v, unsigned int flags)
{
	return i_cuStreamWaitValue32_v2(s, at, v, flags);
}

CUresult i_cuStreamWaitValue64(CUstream s, CUdeviceptr at, cuuint64_t v, unsigned int flags)
{
	return i_cuStreamWaitValue64_v2(s, at, v, flags);
}

CUresult i_cuStreamGetCtx_v2(CUstream s, CUcontext *ctx, CUgreenCtx *green)
{
	if (green)
		*green = NULL;
	return i_cuStreamGetCtx(s, ctx);
}

/* ---- managed memory by the batch (13.0) ----------------------------------------------- */

static size_t which(const size_t *indices, size_t n, size_t i)
{
	size_t at = 0;

	while (at + 1 < n && indices[at + 1] <= i)
		at++;
	return at;
}

CUresult i_cuMemPrefetchBatchAsync(CUdeviceptr *ptrs, size_t *sizes, size_t count,
				   CUmemLocation *where, size_t *indices, size_t n,
				   unsigned long long flags, CUstream s)
{
	CUresult r = CUDA_SUCCESS;

	if (!ptrs || !sizes || !count || !where || !indices || !n || n > count || indices[0] ||
	    flags)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count && !r; i++)
		r = i_cuMemPrefetchAsync_v2(ptrs[i], sizes[i], where[which(indices, n, i)], 0, s);
	return r;
}

/* What is discarded may be lost: here it is, at once (E14). */
CUresult i_cuMemDiscardBatchAsync(CUdeviceptr *ptrs, size_t *sizes, size_t count,
				  unsigned long long flags, CUstream s)
{
	struct host_range h;
	CUresult r = CUDA_SUCCESS;

	if (!ptrs || !sizes || !count || flags)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count && !r; i++) {
		if (!host_find(ptrs[i], &h) || h.kind != H_MANAGED)
			return CUDA_ERROR_INVALID_VALUE;
		r = i_cuMemsetD8Async(ptrs[i], 0xa5, sizes[i], s);
	}
	return r;
}

CUresult i_cuMemDiscardAndPrefetchBatchAsync(CUdeviceptr *ptrs, size_t *sizes, size_t count,
					     CUmemLocation *where, size_t *indices, size_t n,
					     unsigned long long flags, CUstream s)
{
	CUresult r = i_cuMemDiscardBatchAsync(ptrs, sizes, count, flags, s);

	return r ? r : i_cuMemPrefetchBatchAsync(ptrs, sizes, count, where, indices, n, flags, s);
}

CUresult i_cuMemRangeGetAttributes(void **out, size_t *bytes, CUmem_range_attribute *a, size_t n,
				   CUdeviceptr ptr, size_t size)
{
	CUresult r = CUDA_SUCCESS;

	if (!out || !bytes || !a || !n)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n && !r; i++)
		r = i_cuMemRangeGetAttribute(out[i], bytes[i], a[i], ptr, size);
	return r;
}

/* ---- pools by location (13.0) ------------------------------------------------------------ */

static bool device_pool(const CUmemLocation *where, CUmemAllocationType type)
{
	return where && where->type == CU_MEM_LOCATION_TYPE_DEVICE &&
	       type == CU_MEM_ALLOCATION_TYPE_PINNED;
}

CUresult i_cuMemGetDefaultMemPool(CUmemoryPool *out, CUmemLocation *where, CUmemAllocationType type)
{
	return device_pool(where, type) ? i_cuDeviceGetDefaultMemPool(out, where->id) :
					  CUDA_ERROR_NOT_SUPPORTED;
}

CUresult i_cuMemGetMemPool(CUmemoryPool *out, CUmemLocation *where, CUmemAllocationType type)
{
	return device_pool(where, type) ? i_cuDeviceGetMemPool(out, where->id) :
					  CUDA_ERROR_NOT_SUPPORTED;
}

CUresult i_cuMemSetMemPool(CUmemLocation *where, CUmemAllocationType type, CUmemoryPool pool)
{
	return device_pool(where, type) ? i_cuDeviceSetMemPool(where->id, pool) :
					  CUDA_ERROR_NOT_SUPPORTED;
}

/* ---- without effect here -------------------------------------------------------------------- */

static CUresult needs_context(void)
{
	return ctx_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult i_cuCtxGetSharedMemConfig(CUsharedconfig *config)
{
	if (config)
		*config = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
	return config ? needs_context() : CUDA_ERROR_INVALID_VALUE;
}

CUresult i_cuCtxSetSharedMemConfig(CUsharedconfig config)
{
	return needs_context();
}

CUresult i_cuCtxResetPersistingL2Cache(void)
{
	return needs_context();
}

CUresult i_cuCtxSetFlags(unsigned int flags)
{
	if (!ctx_current())
		return CUDA_ERROR_INVALID_CONTEXT;
	ctx_current()->flags = flags;
	return CUDA_SUCCESS;
}

CUresult i_cuStreamCopyAttributes(CUstream to, CUstream from)
{
	CUresult r;
	struct stream *a = stream_get(to, &r), *b = a ? stream_get(from, &r) : NULL;

	if (!a || !b)
		return r;
	memcpy(a->attr, b->attr, sizeof(a->attr));
	return CUDA_SUCCESS;
}

CUresult i_cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target,
				      CUflushGPUDirectRDMAWritesScope scope)
{
	return needs_context();
}

CUresult i_cuKernelSetCacheConfig(CUkernel k, CUfunc_cache config, CUdevice device)
{
	return obj_get(K_KERNEL, (uintptr_t)k) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult i_cuOccupancyMaxPotentialBlockSize(int *grid, int *block, CUfunction f,
					    CUoccupancyB2DSize to_shared, size_t shared, int limit)
{
	CUresult r;

	if (!grid || !block || !function_get((uintptr_t)f, ctx_current(), &r))
		return CUDA_ERROR_INVALID_VALUE;
	*block = limit > 0 && limit < 1024 ? limit : 1024;
	*grid = 4 * (2048 / *block > 32 ? 32 : 2048 / *block);
	return CUDA_SUCCESS;
}

CUresult i_cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block, CUfunction f,
						     CUoccupancyB2DSize to_shared, size_t shared,
						     int limit, unsigned int flags)
{
	return i_cuOccupancyMaxPotentialBlockSize(grid, block, f, to_shared, shared, limit);
}

CUresult i_cuOccupancyAvailableDynamicSMemPerBlock(size_t *out, CUfunction f, int blocks, int block)
{
	CUresult r;

	if (!out || blocks <= 0 || !function_get((uintptr_t)f, ctx_current(), &r))
		return CUDA_ERROR_INVALID_VALUE;
	*out = 232448u / (unsigned)blocks;
	return CUDA_SUCCESS;
}
