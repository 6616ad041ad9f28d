/* SPDX-License-Identifier: MIT */
/* cuda_mem.c - allocation, and what is told of memory.
 *
 * (1) A call is made first and recorded after, if it succeeded. Only what ends is
 *     taken out before: another thread may be given the same addresses at once.
 * (2) A driver function that is missing, an error, no context: nothing is recorded,
 *     and the program gets what the driver gave.
 * (3) Which device a region is on is asked when it is made.
 * Lock: none; core has its own.
 */
#include "interpose/cuda_int.h"

/* ---- recording ----------------------------------------------------------------------- */

/* Where more than one device is, a pool's memory may be of another than the current one. */
static int device_of_pool(CUdeviceptr at, int current)
{
	static int devices;
	int n = __atomic_load_n(&devices, __ATOMIC_RELAXED), dev;

	if (!n && DRIVER(cuDeviceGetCount) && DRIVER(cuDeviceGetCount)(&n) == CUDA_SUCCESS)
		__atomic_store_n(&devices, n, __ATOMIC_RELAXED);
	if (n < 2 || !REAL(cuPointerGetAttribute) || REAL(cuPointerGetAttribute)(&dev,
			CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at) != CUDA_SUCCESS)
		return current;
	cuda_known(dev);
	return dev;
}

static bool record(enum device_kind kind, uint64_t base, uint64_t len, uint64_t handle,
		   uint32_t placed)
{
	struct device_region r = { .base = base, .len = len, .handle = handle,
				   .placed = placed, .kind = (uint8_t)kind };
	CUcontext ctx = NULL;
	int dev;

	if (!base || !len || !device_begin())
		return false;
	dev = cuda_meet();
	if (kind == DEVICE_STREAM)
		dev = device_of_pool(base, dev);
	if (dev >= 0 && kind != DEVICE_MAPPED && DRIVER(cuCtxGetCurrent))
		DRIVER(cuCtxGetCurrent)(&ctx);
	r.dev = (uint8_t)(dev >= 0 ? dev : 0);
	r.owner = (uintptr_t)ctx;
	return device_add(&r);
}

static CUresult recorded(CUresult r, enum device_kind kind, const CUdeviceptr *base, size_t len)
{
	if (r == CUDA_SUCCESS && base)
		record(kind, *base, len, 0, 0);
	return r;
}

/* Ours; recorded, or given back. */
static CUresult placed(CUresult r, CUdeviceptr *base, size_t len, uint32_t number)
{
	if (r != CUDA_SUCCESS || record(DEVICE_PLAIN, *base, len, 0, number))
		return r;
	cuda_unplace(number);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

/* The driver's own memory comes out of the budget, too: what is placed makes room. */
#define WITH_ROOM(len, call) ({ \
	CUresult w_; \
	cuda_room(len, false); \
	w_ = (call); \
	if (w_ == CUDA_ERROR_OUT_OF_MEMORY && cuda_room(len, true)) \
		w_ = (call); \
	w_; })

/* The call that ends what begins at base, around taking it out. */
#define ENDING(base, call) ({ \
	struct device_region was_; \
	bool known_ = device_drop(base, &was_); \
	CUresult r_ = (call); \
	if (r_ != CUDA_SUCCESS && known_) \
		device_put_back(&was_); \
	r_; })

/* ---- what is told ----------------------------------------------------------------------- */

#define SIG_mem_info (size_t *free, size_t *total)
#define ARG_mem_info free, total
static CUresult on_mem_info(__typeof__(&cuMemGetInfo_v2) real, size_t *free, size_t *total)
{
	CUresult r = real(free, total);
	size_t both[2];
	uint64_t f, t;

	/* Either may be left out: one cannot be told without the other. */
	if (r != CUDA_SUCCESS || !device_tells() || real(&both[0], &both[1]) != CUDA_SUCCESS)
		return r;
	f = both[0];
	t = both[1];
	device_told(cuda_ask_device(), &f, &t);
	if (free)
		*free = f;
	if (total)
		*total = t;
	return r;
}

#define SIG_total_mem (size_t *bytes, CUdevice dev)
#define ARG_total_mem bytes, dev
static CUresult on_total_mem(__typeof__(&cuDeviceTotalMem_v2) real, size_t *bytes, CUdevice dev)
{
	CUresult r = real(bytes, dev);
	uint64_t free = 0, total;

	if (r == CUDA_SUCCESS && bytes) {
		total = *bytes;
		device_told(dev, &free, &total);
		*bytes = total;
	}
	return r;
}

/* ---- memory of the device ---------------------------------------------------------------- */

#define SIG_alloc (CUdeviceptr *base, size_t len)
#define ARG_alloc base, len
static CUresult on_alloc(__typeof__(&cuMemAlloc_v2) real, CUdeviceptr *base, size_t len)
{
	uint32_t number;
	CUresult r;

	if (cuda_place(base, len, false, &number, &r))
		return placed(r, base, len, number);
	r = WITH_ROOM(len, real(base, len));
	if (r == CUDA_ERROR_OUT_OF_MEMORY && cuda_place(base, len, true, &number, &r))
		return placed(r, base, len, number);
	return recorded(r, DEVICE_PLAIN, base, len);
}

#define SIG_alloc_pitch (CUdeviceptr *base, size_t *pitch, size_t width, size_t height, \
			 unsigned int element)
#define ARG_alloc_pitch base, pitch, width, height, element
static CUresult on_alloc_pitch(__typeof__(&cuMemAllocPitch_v2) real, CUdeviceptr *base,
			       size_t *pitch, size_t width, size_t height, unsigned int element)
{
	CUdeviceptr row;
	uint32_t number;
	CUresult r;

	/* How long rows are is the driver's to say: it is asked for one. */
	if (base && pitch && height > 1 && cuda_would_place(width * height) &&
	    real(&row, pitch, width, 1, element) == CUDA_SUCCESS) {
		REAL(cuMemFree_v2)(row);
		if (cuda_place(base, *pitch * height, false, &number, &r))
			return placed(r, base, *pitch * height, number);
	}
	r = WITH_ROOM(width * height, real(base, pitch, width, height, element));
	return recorded(r, DEVICE_PLAIN, base, r == CUDA_SUCCESS && pitch ? *pitch * height : 0);
}

#define SIG_alloc_managed (CUdeviceptr *base, size_t len, unsigned int flags)
#define ARG_alloc_managed base, len, flags
static CUresult on_alloc_managed(__typeof__(&cuMemAllocManaged) real, CUdeviceptr *base,
				 size_t len, unsigned int flags)
{
	return recorded(real(base, len, flags), DEVICE_UNIFIED, base, len);
}

#define SIG_free (CUdeviceptr base)
#define ARG_free base
static CUresult on_free(__typeof__(&cuMemFree_v2) real, CUdeviceptr base)
{
	struct device_region was;
	CUresult r;

	if (cuda_deep() && device_find(base, &was) && was.base == base)
		vmm_points_moved(0, base, was.len, true);
	if (!cuda_placed(base, &was))
		return ENDING(base, real(base));
	if (!device_drop(base, &was))
		return CUDA_ERROR_INVALID_VALUE;
	r = cuda_unplace(was.placed);
	if (r != CUDA_SUCCESS)
		device_put_back(&was);
	return r;
}

/* What a capture allocates is there while its graph is launched: the driver's, not counted. */
static CUresult stream_memory(CUresult r, const CUdeviceptr *base, size_t len, CUstream s)
{
	if (!cuda_captured(s))
		return recorded(r, DEVICE_STREAM, base, len);
	vmm_doubt(0);		/* a kernel could keep pointers there unseen */
	return r;
}

#define SIG_alloc_async (CUdeviceptr *base, size_t len, CUstream s)
#define ARG_alloc_async base, len, s
static CUresult on_alloc_async(__typeof__(&cuMemAllocAsync) real, CUdeviceptr *base, size_t len,
			       CUstream s)
{
	return stream_memory(WITH_ROOM(len, real(base, len, s)), base, len, s);
}

#define SIG_alloc_pool (CUdeviceptr *base, size_t len, CUmemoryPool pool, CUstream s)
#define ARG_alloc_pool base, len, pool, s
static CUresult on_alloc_pool(__typeof__(&cuMemAllocFromPoolAsync) real, CUdeviceptr *base,
			      size_t len, CUmemoryPool pool, CUstream s)
{
	return stream_memory(WITH_ROOM(len, real(base, len, pool, s)), base, len, s);
}

#define SIG_free_async (CUdeviceptr base, CUstream s)
#define ARG_free_async base, s
static CUresult on_free_async(__typeof__(&cuMemFreeAsync) real, CUdeviceptr base, CUstream s)
{
	/* A capture's is done when its graph is launched. */
	return cuda_captured(s) ? real(base, s) : ENDING(base, real(base, s));
}

/* Variables of modules: regions until the module goes. */
static CUresult variable(CUresult r, const CUdeviceptr *base, const size_t *len, const void *of)
{
	if (r == CUDA_SUCCESS && base && len)
		record(DEVICE_GLOBAL, *base, *len, (uintptr_t)of, 0);
	return r;
}

#define SIG_get_global (CUdeviceptr *base, size_t *len, CUmodule m, const char *name)
#define ARG_get_global base, len, m, name
static CUresult on_get_global(__typeof__(&cuModuleGetGlobal_v2) real, CUdeviceptr *base,
			      size_t *len, CUmodule m, const char *name)
{
	return variable(real(base, len, m, name), base, len, m);
}

#define SIG_library_global (CUdeviceptr *base, size_t *len, CUlibrary l, const char *name)
#define ARG_library_global base, len, l, name
static CUresult on_library_global(__typeof__(&cuLibraryGetGlobal) real, CUdeviceptr *base,
				  size_t *len, CUlibrary l, const char *name)
{
	return variable(real(base, len, l, name), base, len, l);
}

/* ---- memory of the host -------------------------------------------------------------------- */

static CUresult pinned(CUresult r, enum device_kind kind, const void *base, size_t len)
{
	if (r == CUDA_SUCCESS)
		record(kind, (uintptr_t)base, len, 0, 0);
	return r;
}

#define SIG_alloc_host (void **base, size_t len)
#define ARG_alloc_host base, len
static CUresult on_alloc_host(__typeof__(&cuMemAllocHost_v2) real, void **base, size_t len)
{
	CUresult r = real(base, len);

	return base ? pinned(r, DEVICE_PINNED, *base, len) : r;
}

#define SIG_host_alloc (void **base, size_t len, unsigned int flags)
#define ARG_host_alloc base, len, flags
static CUresult on_host_alloc(__typeof__(&cuMemHostAlloc) real, void **base, size_t len,
			      unsigned int flags)
{
	CUresult r = real(base, len, flags);

	return base ? pinned(r, DEVICE_PINNED, *base, len) : r;
}

#define SIG_free_host (void *base)
#define ARG_free_host base
static CUresult on_free_host(__typeof__(&cuMemFreeHost) real, void *base)
{
	return ENDING((uintptr_t)base, real(base));
}

#define SIG_host_register (void *base, size_t len, unsigned int flags)
#define ARG_host_register base, len, flags
static CUresult on_host_register(__typeof__(&cuMemHostRegister_v2) real, void *base, size_t len,
				 unsigned int flags)
{
	bool paged = core_overlaps(base, len);
	CUresult r;

	/* Pages of ours would be replaced under the device. */
	if (paged && core_lock(base, len) < 0)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r = pinned(real(base, len, flags), DEVICE_REGISTERED, base, len);
	if (r != CUDA_SUCCESS && paged)
		core_unlocked(base, len);
	return r;
}

/* Its context ended, and so did that. */
void cuda_unregistered(const struct device_region *r)
{
	if (core_overlaps((void *)r->base, r->len))
		core_unlocked((void *)r->base, r->len);
}

#define SIG_host_unregister (void *base)
#define ARG_host_unregister base
static CUresult on_host_unregister(__typeof__(&cuMemHostUnregister) real, void *base)
{
	struct device_region was;
	bool known = device_drop((uintptr_t)base, &was);
	CUresult r = real(base);

	if (r != CUDA_SUCCESS && known)
		device_put_back(&was);
	else if (known && core_overlaps(base, was.len))
		core_unlocked(base, was.len);
	return r;
}

/* ---- the program's own mappings -------------------------------------------------------------- */

#define SIG_create (CUmemGenericAllocationHandle *handle, size_t len, \
		    const CUmemAllocationProp *prop, unsigned long long flags)
#define ARG_create handle, len, prop, flags
static CUresult on_create(__typeof__(&cuMemCreate) real, CUmemGenericAllocationHandle *handle,
			  size_t len, const CUmemAllocationProp *prop, unsigned long long flags)
{
	CUresult r = WITH_ROOM(len, real(handle, len, prop, flags));

	/* An unknown location's id is no device. */
	if (r == CUDA_SUCCESS && handle && prop &&
	    prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE && device_begin()) {
		cuda_known(prop->location.id);
		device_handle_new(*handle, len, prop->location.id);
	}
	return r;
}

#define SIG_release (CUmemGenericAllocationHandle handle)
#define ARG_release handle
static CUresult on_release(__typeof__(&cuMemRelease) real, CUmemGenericAllocationHandle handle)
{
	CUresult r = real(handle);

	if (r == CUDA_SUCCESS)
		device_handle_release(handle);
	return r;
}

#define SIG_retain (CUmemGenericAllocationHandle *handle, void *at)
#define ARG_retain handle, at
static CUresult on_retain(__typeof__(&cuMemRetainAllocationHandle) real,
			  CUmemGenericAllocationHandle *handle, void *at)
{
	struct device_region known;
	CUresult r;

	if (cuda_placed((CUdeviceptr)(uintptr_t)at, &known))
		return CUDA_ERROR_INVALID_VALUE;	/* the driver's own have none */
	r = real(handle, at);
	if (r == CUDA_SUCCESS && handle)
		device_handle_retain(*handle);
	return r;
}

#define SIG_import (CUmemGenericAllocationHandle *handle, void *from, \
		    CUmemAllocationHandleType type)
#define ARG_import handle, from, type
static CUresult on_import(__typeof__(&cuMemImportFromShareableHandle) real,
			  CUmemGenericAllocationHandle *handle, void *from,
			  CUmemAllocationHandleType type)
{
	CUresult r = real(handle, from, type);

	if (r == CUDA_SUCCESS && handle)	/* one of our own, perhaps */
		device_handle_retain(*handle);
	return r;
}

#define SIG_export (void *to, CUmemGenericAllocationHandle handle, \
		    CUmemAllocationHandleType type, unsigned long long flags)
#define ARG_export to, handle, type, flags
static CUresult on_export(__typeof__(&cuMemExportToShareableHandle) real, void *to,
			  CUmemGenericAllocationHandle handle, CUmemAllocationHandleType type,
			  unsigned long long flags)
{
	return real(to, handle, type, flags);
}

#define SIG_map (CUdeviceptr base, size_t len, size_t off, \
		 CUmemGenericAllocationHandle handle, unsigned long long flags)
#define ARG_map base, len, off, handle, flags
static CUresult on_map(__typeof__(&cuMemMap) real, CUdeviceptr base, size_t len, size_t off,
		       CUmemGenericAllocationHandle handle, unsigned long long flags)
{
	CUresult r = real(base, len, off, handle, flags);

	if (r == CUDA_SUCCESS)
		record(DEVICE_MAPPED, base, len, handle, 0);
	return r;
}

#define SIG_unmap (CUdeviceptr base, size_t len)
#define ARG_unmap base, len
static CUresult on_unmap(__typeof__(&cuMemUnmap) real, CUdeviceptr base, size_t len)
{
	struct device_region known;
	CUresult r;

	if (cuda_placed(base, &known))
		return CUDA_ERROR_INVALID_VALUE;	/* not mapped by the program */
	r = real(base, len);
	/* Addresses are the program's own: nobody else maps there meanwhile. */
	if (r == CUDA_SUCCESS)
		device_drop_range(base, len);
	return r;
}

/* ---- shared with others ------------------------------------------------------------------------ */

/* Its length: what the driver says. */
static uint64_t length_of(CUdeviceptr at)
{
	CUdeviceptr base = 0;
	size_t len = 0;

	if (REAL(cuMemGetAddressRange_v2))
		REAL(cuMemGetAddressRange_v2)(&base, &len, at);
	return base == at ? len : base + len - at;
}

#define SIG_ipc_open (CUdeviceptr *base, CUipcMemHandle handle, unsigned int flags)
#define ARG_ipc_open base, handle, flags
static CUresult on_ipc_open(__typeof__(&cuIpcOpenMemHandle_v2) real, CUdeviceptr *base,
			    CUipcMemHandle handle, unsigned int flags)
{
	CUresult r = real(base, handle, flags);

	return recorded(r, DEVICE_FOREIGN, base,
			r == CUDA_SUCCESS && base ? length_of(*base) : 0);
}

#define SIG_ipc_close (CUdeviceptr base)
#define ARG_ipc_close base
static CUresult on_ipc_close(__typeof__(&cuIpcCloseMemHandle) real, CUdeviceptr base)
{
	return ENDING(base, real(base));
}

#define SIG_pool_import (CUdeviceptr *base, CUmemoryPool pool, CUmemPoolPtrExportData *from)
#define ARG_pool_import base, pool, from
static CUresult on_pool_import(__typeof__(&cuMemPoolImportPointer) real, CUdeviceptr *base,
			       CUmemoryPool pool, CUmemPoolPtrExportData *from)
{
	CUresult r = real(base, pool, from);

	return recorded(r, DEVICE_FOREIGN, base,
			r == CUDA_SUCCESS && base ? length_of(*base) : 0);
}

static CUresult marked(CUresult r, uint64_t addr, unsigned int marks)
{
	if (r == CUDA_SUCCESS)
		device_mark(addr, marks);
	return r;
}

#define SIG_ipc_get (CUipcMemHandle *handle, CUdeviceptr base)
#define ARG_ipc_get handle, base
static CUresult on_ipc_get(__typeof__(&cuIpcGetMemHandle) real, CUipcMemHandle *handle,
			   CUdeviceptr base)
{
	struct device_region known;
	static _Atomic bool said;
	CUresult r = marked(real(handle, base), base, DEVICE_SHOWN);

	if (r != CUDA_SUCCESS && cuda_placed(base, &known) && !atomic_exchange(&said, true))
		device_say("an allocation of %llu bytes cannot be shared with other processes "
				"(OFFLOAD_DEVICE_MIN above that keeps such ones the driver's)",
				(unsigned long long)known.len);
	return r;
}

#define SIG_pool_export (CUmemPoolPtrExportData *to, CUdeviceptr base)
#define ARG_pool_export to, base
static CUresult on_pool_export(__typeof__(&cuMemPoolExportPointer) real,
			       CUmemPoolPtrExportData *to, CUdeviceptr base)
{
	return marked(real(to, base), base, DEVICE_SHOWN);
}

#define SIG_range_handle (void *handle, CUdeviceptr base, size_t len, \
			  CUmemRangeHandleType type, unsigned long long flags)
#define ARG_range_handle handle, base, len, type, flags
static CUresult on_range_handle(__typeof__(&cuMemGetHandleForAddressRange) real, void *handle,
				CUdeviceptr base, size_t len, CUmemRangeHandleType type,
				unsigned long long flags)
{
	struct device_region known;

	if (cuda_placed(base, &known) && cuda_keep(base) != CUDA_SUCCESS)
		return CUDA_ERROR_OUT_OF_MEMORY;
	return marked(real(handle, base, len, type, flags), base, DEVICE_SHOWN);
}

/* ---- questions about addresses ------------------------------------------------------------------ */

#define SIG_address_range (CUdeviceptr *base, size_t *len, CUdeviceptr at)
#define ARG_address_range base, len, at
static CUresult on_address_range(__typeof__(&cuMemGetAddressRange_v2) real, CUdeviceptr *base,
				 size_t *len, CUdeviceptr at)
{
	struct device_region r;

	if (!cuda_placed(at, &r))
		return real(base, len, at);
	if (base)
		*base = r.base;
	if (len)
		*len = r.len;
	return CUDA_SUCCESS;
}

#define SIG_pointer (void *out, CUpointer_attribute what, CUdeviceptr at)
#define ARG_pointer out, what, at
static CUresult on_pointer(__typeof__(&cuPointerGetAttribute) real, void *out,
			   CUpointer_attribute what, CUdeviceptr at)
{
	CUresult answer = CUDA_ERROR_NOT_FOUND;
	struct device_region r;

	if (out && cuda_placed(at, &r))
		answer = cuda_placed_attribute(out, what, at, &r);
	return answer == CUDA_ERROR_NOT_FOUND ? real(out, what, at) : answer;
}

#define SIG_pointers (unsigned int n, CUpointer_attribute *what, void **out, CUdeviceptr at)
#define ARG_pointers n, what, out, at
static CUresult on_pointers(__typeof__(&cuPointerGetAttributes) real, unsigned int n,
			    CUpointer_attribute *what, void **out, CUdeviceptr at)
{
	CUresult r = real(n, what, out, at);
	struct device_region known;

	/* What it says of our mappings is put right. */
	if (r == CUDA_SUCCESS && cuda_placed(at, &known))
		for (unsigned int i = 0; i < n; i++)
			if (what[i] != CU_POINTER_ATTRIBUTE_HOST_POINTER)
				cuda_placed_attribute(out[i], what[i], at, &known);
	return r;
}

/* ---- tensor maps: an address that no argument shows ------------------------------------------------ */

/* What can be spilled would have to be brought home by who does not know of it. */
static CUresult encoded(CUresult r, uint64_t at)
{
	if (r == CUDA_SUCCESS && cuda_deep())
		r = cuda_keep(at);
	return marked(r, at, DEVICE_ENCODED);
}

#define SIG_tensor_tiled (CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, \
			  void *base, const cuuint64_t *dim, const cuuint64_t *stride, \
			  const cuuint32_t *box, const cuuint32_t *step, \
			  CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, \
			  CUtensorMapL2promotion l2, CUtensorMapFloatOOBfill fill)
#define ARG_tensor_tiled map, type, rank, base, dim, stride, box, step, interleave, swizzle, l2, \
			 fill
static CUresult on_tensor_tiled(__typeof__(&cuTensorMapEncodeTiled) real, CUtensorMap *map,
				CUtensorMapDataType type, cuuint32_t rank, void *base,
				const cuuint64_t *dim, const cuuint64_t *stride,
				const cuuint32_t *box, const cuuint32_t *step,
				CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
				CUtensorMapL2promotion l2, CUtensorMapFloatOOBfill fill)
{
	return encoded(real(ARG_tensor_tiled), (uintptr_t)base);
}

#define SIG_tensor_im2col (CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, \
			   void *base, const cuuint64_t *dim, const cuuint64_t *stride, \
			   const int *lower, const int *upper, cuuint32_t channels, \
			   cuuint32_t pixels, const cuuint32_t *step, \
			   CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, \
			   CUtensorMapL2promotion l2, CUtensorMapFloatOOBfill fill)
#define ARG_tensor_im2col map, type, rank, base, dim, stride, lower, upper, channels, pixels, \
			  step, interleave, swizzle, l2, fill
static CUresult on_tensor_im2col(__typeof__(&cuTensorMapEncodeIm2col) real, CUtensorMap *map,
				 CUtensorMapDataType type, cuuint32_t rank, void *base,
				 const cuuint64_t *dim, const cuuint64_t *stride,
				 const int *lower, const int *upper, cuuint32_t channels,
				 cuuint32_t pixels, const cuuint32_t *step,
				 CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
				 CUtensorMapL2promotion l2, CUtensorMapFloatOOBfill fill)
{
	return encoded(real(ARG_tensor_im2col), (uintptr_t)base);
}

#define SIG_tensor_wide (CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, \
			 void *base, const cuuint64_t *dim, const cuuint64_t *stride, \
			 int lower, int upper, cuuint32_t channels, cuuint32_t pixels, \
			 const cuuint32_t *step, CUtensorMapInterleave interleave, \
			 CUtensorMapIm2ColWideMode mode, CUtensorMapSwizzle swizzle, \
			 CUtensorMapL2promotion l2, CUtensorMapFloatOOBfill fill)
#define ARG_tensor_wide map, type, rank, base, dim, stride, lower, upper, channels, pixels, step, \
			interleave, mode, swizzle, l2, fill
static CUresult on_tensor_wide(__typeof__(&cuTensorMapEncodeIm2colWide) real, CUtensorMap *map,
			       CUtensorMapDataType type, cuuint32_t rank, void *base,
			       const cuuint64_t *dim, const cuuint64_t *stride, int lower,
			       int upper, cuuint32_t channels, cuuint32_t pixels,
			       const cuuint32_t *step, CUtensorMapInterleave interleave,
			       CUtensorMapIm2ColWideMode mode, CUtensorMapSwizzle swizzle,
			       CUtensorMapL2promotion l2, CUtensorMapFloatOOBfill fill)
{
	return encoded(real(ARG_tensor_wide), (uintptr_t)base);
}

#define SIG_tensor_replace (CUtensorMap *map, void *base)
#define ARG_tensor_replace map, base
static CUresult on_tensor_replace(__typeof__(&cuTensorMapReplaceAddress) real, CUtensorMap *map,
				  void *base)
{
	return encoded(real(map, base), (uintptr_t)base);
}

#define CU_MEM HOOK
#include "interpose/cuda_hook.def"
