/* SPDX-License-Identifier: MIT */
/* cuda_vmm.c - the driver as core/vmm.h wants it, and requests that are placed there.
 *
 * (1) Everything is asked of the driver's own functions: nothing of it is recorded as the
 *     program's.
 * (2) A context is made current for a call and the program's put back, whatever the call
 *     says. One that is gone by now has nothing queued.
 * (3) An error of the driver's that ends a call of the program's is given to it as it was.
 * Lock: none; core/ asks from one thread at a time.
 */
#include "interpose/cuda_int.h"

static _Thread_local CUresult last __attribute__((tls_model("initial-exec")));

static int result(CUresult r)
{
	last = r;
	switch (r) {
	case CUDA_SUCCESS: return 0;
	case CUDA_ERROR_OUT_OF_MEMORY: return -ENOMEM;
	case CUDA_ERROR_INVALID_VALUE: return -EINVAL;
	case CUDA_ERROR_NOT_SUPPORTED: return -ENOTSUP;
	case CUDA_ERROR_DEINITIALIZED: return -ESHUTDOWN;
	case CUDA_ERROR_NOT_FOUND: return -ENOSYS;
	default: return -EIO;
	}
}

/* 1, 0: the current context was put aside; below 0: it is gone (2), or the driver is. */
static int enter(CUcontext ctx)
{
	if (!ctx)
		return 0;
	switch (REAL(cuCtxPushCurrent_v2)(ctx)) {
	case CUDA_SUCCESS: return 1;
	case CUDA_ERROR_DEINITIALIZED: return -ESHUTDOWN;
	default: return -ENOENT;
	}
}

static void leave(int entered)
{
	CUcontext was;

	if (entered > 0)
		REAL(cuCtxPopCurrent_v2)(&was);
}

static CUmemAllocationProp prop(int dev, bool host)
{
	CUmemAllocationProp p = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, dev },
	};
	int node = 0;

	if (!host)
		return p;
	p.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA;
	if (!DRIVER(cuDeviceGetAttribute) || DRIVER(cuDeviceGetAttribute)(&node,
			CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, dev) != CUDA_SUCCESS || node < 0)
		node = 0;
	p.location.id = node;
	return p;
}

/* ---- what core/ asks ------------------------------------------------------------- */

static int op_granularity(int dev, bool host, uint64_t *bytes)
{
	CUmemAllocationProp p = prop(dev, host);
	size_t g = 0;
	int err = result(DRIVER(cuMemGetAllocationGranularity)(&g, &p,
			 CU_MEM_ALLOC_GRANULARITY_MINIMUM));

	*bytes = g;
	return err;
}

static int op_reserve(uint64_t *at, uint64_t len)
{
	CUdeviceptr p = 0;
	int err = result(DRIVER(cuMemAddressReserve)(&p, len, 0, *at, 0));

	*at = p;
	return err;
}

static int op_unreserve(uint64_t at, uint64_t len)
{
	return result(DRIVER(cuMemAddressFree)(at, len));
}

static int op_create(int dev, bool host, uint64_t len, uint64_t *handle)
{
	CUmemAllocationProp p = prop(dev, host);
	CUmemGenericAllocationHandle h = 0;
	int err = result(REAL(cuMemCreate)(&h, len, &p, 0));

	*handle = h;
	return err;
}

static int op_release(uint64_t handle)
{
	return result(REAL(cuMemRelease)(handle));
}

static int op_map(uint64_t at, uint64_t len, uint64_t handle)
{
	return result(REAL(cuMemMap)(at, len, 0, handle, 0));
}

static int op_unmap(uint64_t at, uint64_t len)
{
	return result(REAL(cuMemUnmap)(at, len));
}

static int allow(uint64_t at, uint64_t len, uint32_t devices, CUmemAccess_flags flags)
{
	CUmemAccessDesc d[DEVICES];
	size_t n = 0;

	for (int i = 0; i < DEVICES; i++)
		if (devices >> i & 1)
			d[n++] = (CUmemAccessDesc){ { CU_MEM_LOCATION_TYPE_DEVICE, i },
						    flags };
	return result(DRIVER(cuMemSetAccess)(at, len, d, n));
}

static int op_access(uint64_t at, uint64_t len, uint32_t devices)
{
	return allow(at, len, devices, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
}

static int op_read_only(uint64_t at, uint64_t len, uint32_t devices)
{
	return allow(at, len, devices, CU_MEM_ACCESS_FLAGS_PROT_READ);
}

static int op_pin(uintptr_t ctx, uint64_t len, uint64_t *at)
{
	int in = enter((CUcontext)ctx), err;
	CUdeviceptr p = 0;
	void *host;

	if (in < 0)
		return in;
	err = result(REAL(cuMemHostAlloc)(&host, len, CU_MEMHOSTALLOC_PORTABLE |
					  CU_MEMHOSTALLOC_DEVICEMAP));
	if (!err) {
		err = result(DRIVER(cuMemHostGetDevicePointer_v2)(&p, host, 0));
		if (!err && p != (uintptr_t)host)	/* it could not be given back by it */
			err = -ENOTSUP;
		if (err)
			REAL(cuMemFreeHost)(host);
	}
	leave(in);
	*at = p;
	return err;
}

static int op_unpin(uintptr_t ctx, uint64_t at)
{
	int in = enter((CUcontext)ctx), err = result(REAL(cuMemFreeHost)((void *)at));

	leave(in);
	return err;
}

static int drain(CUcontext ctx)
{
	int in = enter(ctx), err;

	if (in < 0)
		return in == -ENOENT ? 0 : result(CUDA_ERROR_DEINITIALIZED);
	err = result(REAL(cuCtxSynchronize)());
	leave(in);
	return err;
}

/* The owner's error counts. Another context that failed runs nothing any more. */
static int op_drain(uintptr_t owner)
{
	int err = owner ? drain((CUcontext)owner) : 0;
	CUresult said = last;
	CUcontext ctx;

	for (uint32_t i = 0; !err && i < CUDA_CONTEXTS; i++)
		if (cuda_context(i, &ctx) && ctx != (CUcontext)owner)
			drain(ctx);
	last = said;
	return err;
}

static int op_copy(uintptr_t ctx, uint64_t to, uint64_t from, uint64_t len)
{
	int in = enter((CUcontext)ctx), err;

	if (in < 0)
		return in;
	err = result(REAL(cuMemcpyDtoD_v2)(to, from, len));
	err = err ? err : result(REAL(cuCtxSynchronize)());
	leave(in);
	return err;
}

/* ---- streams and events ------------------------------------------------------------ */

/* What is asked here must not end the capture of another thread. */
static CUstreamCaptureMode relax(CUstreamCaptureMode mode)
{
	if (DRIVER(cuThreadExchangeStreamCaptureMode))
		DRIVER(cuThreadExchangeStreamCaptureMode)(&mode);
	return mode;
}

static int op_stream(uintptr_t ctx, uintptr_t *stream)
{
	int in = enter((CUcontext)ctx), err;
	CUstream s = NULL;

	if (in < 0)
		return in;
	err = result(DRIVER(cuStreamCreate)(&s, CU_STREAM_NON_BLOCKING));
	leave(in);
	*stream = (uintptr_t)s;
	return err;
}

static int op_event(uintptr_t ctx, uintptr_t *event)
{
	int in = enter((CUcontext)ctx), err;
	CUevent e = NULL;

	if (in < 0)
		return in;
	err = result(DRIVER(cuEventCreate)(&e, CU_EVENT_DISABLE_TIMING));
	leave(in);
	*event = (uintptr_t)e;
	return err;
}

static int op_record(uintptr_t event, uintptr_t stream)
{
	return result(DRIVER(cuEventRecord)((CUevent)event, (CUstream)stream));
}

static int op_wait(uintptr_t stream, uintptr_t event)
{
	return result(DRIVER(cuStreamWaitEvent)((CUstream)stream, (CUevent)event, 0));
}

static int op_done(uintptr_t event)
{
	CUstreamCaptureMode was = relax(CU_STREAM_CAPTURE_MODE_RELAXED);
	CUresult r = DRIVER(cuEventQuery)((CUevent)event);

	relax(was);
	return r == CUDA_ERROR_NOT_READY ? -EAGAIN : result(r);
}

static int op_send(uintptr_t stream, uint64_t to, uint64_t from, uint64_t len)
{
	return result(REAL(cuMemcpyDtoDAsync_v2)(to, from, len, (CUstream)stream));
}

static int op_fetch(uintptr_t ctx, uintptr_t stream, void *to, uint64_t from, uint64_t len)
{
	int in = enter((CUcontext)ctx), err;

	if (in < 0)
		return in;
	err = result(REAL(cuMemcpyDtoHAsync_v2)(to, from, len, (CUstream)stream));
	err = err ? err : result(REAL(cuStreamSynchronize)((CUstream)stream));
	leave(in);
	return err;
}

static int op_fill(uintptr_t ctx, uint64_t to, const void *from, uint64_t len)
{
	int in = enter((CUcontext)ctx), err;

	if (in < 0)
		return in;
	err = result(REAL(cuMemcpyHtoD_v2)(to, from, len));
	err = err ? err : result(REAL(cuCtxSynchronize)());
	leave(in);
	return err;
}

static int op_free_bytes(uintptr_t ctx, uint64_t *bytes)
{
	int in = enter((CUcontext)ctx), err;
	size_t free = 0, total;

	if (in < 0)
		return in;
	err = result(REAL(cuMemGetInfo_v2)(&free, &total));
	leave(in);
	if (!err)
		*bytes = free;
	return err;
}

/* ---- managed memory ---------------------------------------------------------------- */

static int op_can_manage(int dev)
{
	int v = 0;

	if (!REAL(cuMemAllocManaged) || !DRIVER(cuMemAdvise) || !DRIVER(cuMemPrefetchAsync))
		return -ENOSYS;
	return DRIVER(cuDeviceGetAttribute)(&v, CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS,
					    dev) == CUDA_SUCCESS && v ? 0 : -ENOTSUP;
}

static int op_managed(uintptr_t ctx, uint64_t len, uint64_t *at)
{
	int in = enter((CUcontext)ctx), err;
	CUdeviceptr p = 0;

	if (in < 0)
		return in;
	err = result(REAL(cuMemAllocManaged)(&p, len, CU_MEM_ATTACH_GLOBAL));
	leave(in);
	*at = p;
	return err;
}

static int op_unmanaged(uintptr_t ctx, uint64_t at)
{
	int in = enter((CUcontext)ctx), err = result(REAL(cuMemFree_v2)(at));

	leave(in);
	return err;
}

static int op_prefer(uintptr_t ctx, uint64_t at, uint64_t len, int dev, bool host, bool now)
{
	int in = enter((CUcontext)ctx), err;

	if (in < 0)
		return in;
	err = result(DRIVER(cuMemAdvise)(at, len, CU_MEM_ADVISE_SET_PREFERRED_LOCATION,
					 host ? CU_DEVICE_CPU : dev));
	err = err ? err : result(DRIVER(cuMemAdvise)(at, len, CU_MEM_ADVISE_SET_ACCESSED_BY, dev));
	err = err ? err : result(DRIVER(cuMemPrefetchAsync)(at, len, host ? CU_DEVICE_CPU : dev,
							    NULL));
	if (!err && now)
		err = result(REAL(cuCtxSynchronize)());
	leave(in);
	return err;
}

static const struct vmm_ops ops = {
	.can_manage = op_can_manage, .managed = op_managed, .unmanaged = op_unmanaged,
	.prefer = op_prefer,
	.granularity = op_granularity, .reserve = op_reserve, .unreserve = op_unreserve,
	.create = op_create, .release = op_release, .map = op_map, .unmap = op_unmap,
	.access = op_access, .pin = op_pin, .unpin = op_unpin, .drain = op_drain,
	.stream = op_stream, .event = op_event, .record = op_record, .wait = op_wait,
	.done = op_done, .send = op_send, .fetch = op_fetch, .read_only = op_read_only,
	.copy = op_copy, .free_bytes = op_free_bytes, .fill = op_fill,
};

/* ---- requests ---------------------------------------------------------------------- */

/* All of it there: an old driver has none of this. */
static bool able(void)
{
	return REAL(cuMemCreate) && REAL(cuMemRelease) && REAL(cuMemMap) && REAL(cuMemUnmap) &&
	       REAL(cuCtxPushCurrent_v2) && REAL(cuCtxPopCurrent_v2) && REAL(cuMemGetInfo_v2) &&
	       REAL(cuMemHostAlloc) && REAL(cuMemFreeHost) && REAL(cuMemcpyDtoD_v2) &&
	       DRIVER(cuMemGetAllocationGranularity) && DRIVER(cuMemAddressReserve) &&
	       DRIVER(cuMemAddressFree) && DRIVER(cuMemSetAccess) && REAL(cuCtxSynchronize) &&
	       DRIVER(cuStreamCreate) && DRIVER(cuEventCreate) && DRIVER(cuEventRecord) &&
	       DRIVER(cuEventQuery) && DRIVER(cuStreamWaitEvent) && REAL(cuStreamSynchronize) &&
	       REAL(cuMemcpyDtoDAsync_v2) && REAL(cuMemFree_v2) && REAL(cuMemcpyDtoHAsync_v2) &&
	       REAL(cuMemcpyHtoD_v2) &&
	       DRIVER(cuMemHostGetDevicePointer_v2) && DRIVER(cuCtxGetCurrent);
}

static CUcontext context(void)
{
	CUcontext ctx = NULL;

	if (DRIVER(cuCtxGetCurrent))
		DRIVER(cuCtxGetCurrent)(&ctx);
	return ctx;
}

/* The device and context of a request that is ours. */
static bool ours(size_t len, bool refused, int *dev, CUcontext *ctx)
{
	if (!len || !device_begin() || !able() || !vmm_begin(&ops))
		return false;
	*dev = cuda_meet();
	*ctx = *dev >= 0 ? context() : NULL;
	return *ctx && vmm_wants(*dev, (uintptr_t)*ctx, len, refused);
}

bool cuda_would_place(size_t len)
{
	CUcontext ctx;
	int dev;

	return ours(len, false, &dev, &ctx);
}

bool cuda_place(CUdeviceptr *base, size_t len, bool refused, uint32_t *number, CUresult *r)
{
	CUcontext ctx;
	uint64_t at;
	int dev, err;

	*number = 0;
	if (!base || !ours(len, refused, &dev, &ctx))
		return false;
	err = vmm_alloc(dev, (uintptr_t)ctx, len, &at, number);
	if (err && err != -ENOMEM)
		return false;
	if (!err)
		*base = at;
	*r = err ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
	return true;
}

bool cuda_room(size_t len, bool again)
{
	CUcontext ctx;

	if (!atomic_load_explicit(&vmm_on, memory_order_relaxed))
		return false;
	ctx = context();
	return ctx && vmm_make_room(cuda_device(), (uintptr_t)ctx, len, again);
}

CUresult cuda_unplace(uint32_t number)
{
	switch (vmm_free(number)) {
	case 0: return CUDA_SUCCESS;
	case -ENOENT: return CUDA_ERROR_INVALID_VALUE;
	default: return last;
	}
}

/* What the driver said counts, if it is the end of the context. */
CUresult cuda_enter(const struct vmm_reach *w, bool *in)
{
	int err;

	last = CUDA_SUCCESS;
	err = vmm_enter_reach(w, in);
	if (!err)
		return CUDA_SUCCESS;
	return err == -EIO && last != CUDA_SUCCESS ? last : CUDA_ERROR_OUT_OF_MEMORY;
}

bool cuda_placed(CUdeviceptr at, struct device_region *r)
{
	return atomic_load_explicit(&vmm_on, memory_order_relaxed) && device_find(at, r) &&
	       r->placed;
}

/* ---- addresses: what the driver would say of an allocation of its own ------------------ */

CUresult cuda_placed_attribute(void *out, CUpointer_attribute what, CUdeviceptr at,
			       const struct device_region *r)
{
	switch (what) {
	case CU_POINTER_ATTRIBUTE_CONTEXT: *(CUcontext *)out = (CUcontext)r->owner; break;
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: *(unsigned int *)out = CU_MEMORYTYPE_DEVICE; break;
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *(CUdeviceptr *)out = at; break;
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS: *(int *)out = 0; break;
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
		/* The driver counts from below. */
		*(unsigned long long *)out = 1ull << 48 | vmm_serial(r->placed);
		break;
	case CU_POINTER_ATTRIBUTE_IS_MANAGED: *(int *)out = 0; break;
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)out = r->dev; break;
	/* Here it would see through us. */
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE: *(int *)out = 0; break;
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *(CUdeviceptr *)out = r->base; break;
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE: *(size_t *)out = r->len; break;
	case CU_POINTER_ATTRIBUTE_MAPPED: *(int *)out = 1; break;
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES: *(unsigned long long *)out = 0; break;
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
		*(unsigned int *)out = CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE;
		break;
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE: *(CUmemoryPool *)out = NULL; break;
	case CU_POINTER_ATTRIBUTE_HOST_POINTER: return CUDA_ERROR_INVALID_VALUE;
	default: return CUDA_ERROR_NOT_FOUND;	/* the driver's to say */
	}
	return CUDA_SUCCESS;
}
