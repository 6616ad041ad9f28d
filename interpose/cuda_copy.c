/* SPDX-License-Identifier: MIT */
/* cuda_copy.c - copies between host and devices, and memory that is set.
 *
 * (1) Counted when the driver took them, at the device whose memory it is; that they
 *     are done later changes no count.
 * (2) Where a call does not say which side an address is on, the region table does;
 *     an address it does not know is the host's.
 * (3) Whole blocks are counted by their bytes, not by what lies between their rows.
 * Lock: none.
 */
#include "interpose/cuda_int.h"

/* One end of a copy. */
struct end { uint64_t addr; int dev; bool host, array; };

static struct end host_end(void)
{
	return (struct end){ .dev = -1, .host = true };
}

static bool on_host(const struct device_region *r)
{
	return r->kind == DEVICE_PINNED || r->kind == DEVICE_REGISTERED;
}

static struct end device_end(CUdeviceptr at)
{
	struct device_region r;
	bool known = device_find(at, &r);

	return (struct end){ .addr = at, .dev = known ? r.dev : cuda_device() };
}

/* By the table: (2). */
static struct end any_end(CUdeviceptr at)
{
	struct device_region r;

	if (!device_find(at, &r) || on_host(&r))
		return host_end();
	return (struct end){ .addr = at, .dev = r.dev };
}

static struct end typed_end(CUmemorytype type, CUdeviceptr at)
{
	switch (type) {
	case CU_MEMORYTYPE_DEVICE:
		return device_end(at);
	case CU_MEMORYTYPE_ARRAY:
		return (struct end){ .dev = cuda_device(), .array = true };
	case CU_MEMORYTYPE_UNIFIED:
		return any_end(at);
	default:
		return host_end();
	}
}

static void count(struct end to, struct end from, uint64_t bytes)
{
	const char *what = from.host ? "h2d" : to.host ? "d2h" : "d2d";

	if (to.host && from.host)
		return;
	if (from.host)
		device_count_copy(to.dev, bytes, 0);
	else if (to.host)
		device_count_copy(from.dev, 0, bytes);
	if (!to.host && !to.array)
		device_mark(to.addr, from.host ? DEVICE_FILLED : DEVICE_WRITTEN);
	if (device_tape_on())
		device_tape_copy(to.host ? from.dev : to.dev, what,
				 to.host ? from.addr : to.addr, bytes);
}

static CUresult to_device(CUresult r, CUdeviceptr to, uint64_t bytes)
{
	if (r == CUDA_SUCCESS && device_begun())
		count(device_end(to), host_end(), bytes);
	return r;
}

static CUresult to_host(CUresult r, CUdeviceptr from, uint64_t bytes)
{
	if (r == CUDA_SUCCESS && device_begun())
		count(host_end(), device_end(from), bytes);
	return r;
}

static CUresult on_device(CUresult r, CUdeviceptr to, CUdeviceptr from, uint64_t bytes)
{
	if (r == CUDA_SUCCESS && device_begun())
		count(device_end(to), device_end(from), bytes);
	return r;
}

static CUresult anywhere(CUresult r, CUdeviceptr to, CUdeviceptr from, uint64_t bytes)
{
	if (r == CUDA_SUCCESS && device_begun())
		count(any_end(to), any_end(from), bytes);
	return r;
}

static CUresult set(CUresult r, CUdeviceptr to, uint64_t bytes)
{
	if (r != CUDA_SUCCESS || !device_begun())
		return r;
	device_mark(to, DEVICE_WRITTEN);
	if (device_tape_on())
		device_tape_copy(device_end(to).dev, "set", to, bytes);
	return r;
}

/* ---- runs of bytes ------------------------------------------------------------------ */

#define SIG_htod (CUdeviceptr to, const void *from, size_t n)
#define ARG_htod to, from, n
static CUresult on_htod(__typeof__(&cuMemcpyHtoD_v2) real, CUdeviceptr to, const void *from,
			size_t n)
{
	return to_device(real(to, from, n), to, n);
}

#define SIG_htod_async (CUdeviceptr to, const void *from, size_t n, CUstream s)
#define ARG_htod_async to, from, n, s
static CUresult on_htod_async(__typeof__(&cuMemcpyHtoDAsync_v2) real, CUdeviceptr to,
			      const void *from, size_t n, CUstream s)
{
	return to_device(real(to, from, n, s), to, n);
}

#define SIG_dtoh (void *to, CUdeviceptr from, size_t n)
#define ARG_dtoh to, from, n
static CUresult on_dtoh(__typeof__(&cuMemcpyDtoH_v2) real, void *to, CUdeviceptr from, size_t n)
{
	return to_host(real(to, from, n), from, n);
}

#define SIG_dtoh_async (void *to, CUdeviceptr from, size_t n, CUstream s)
#define ARG_dtoh_async to, from, n, s
static CUresult on_dtoh_async(__typeof__(&cuMemcpyDtoHAsync_v2) real, void *to,
			      CUdeviceptr from, size_t n, CUstream s)
{
	return to_host(real(to, from, n, s), from, n);
}

#define SIG_dtod (CUdeviceptr to, CUdeviceptr from, size_t n)
#define ARG_dtod to, from, n
static CUresult on_dtod(__typeof__(&cuMemcpyDtoD_v2) real, CUdeviceptr to, CUdeviceptr from,
			size_t n)
{
	return on_device(real(to, from, n), to, from, n);
}

#define SIG_dtod_async (CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s)
#define ARG_dtod_async to, from, n, s
static CUresult on_dtod_async(__typeof__(&cuMemcpyDtoDAsync_v2) real, CUdeviceptr to,
			      CUdeviceptr from, size_t n, CUstream s)
{
	return on_device(real(to, from, n, s), to, from, n);
}

#define SIG_copy SIG_dtod
#define ARG_copy ARG_dtod
static CUresult on_copy(__typeof__(&cuMemcpy) real, CUdeviceptr to, CUdeviceptr from, size_t n)
{
	return anywhere(real(to, from, n), to, from, n);
}

#define SIG_copy_async SIG_dtod_async
#define ARG_copy_async ARG_dtod_async
static CUresult on_copy_async(__typeof__(&cuMemcpyAsync) real, CUdeviceptr to, CUdeviceptr from,
			      size_t n, CUstream s)
{
	return anywhere(real(to, from, n, s), to, from, n);
}

#define SIG_peer (CUdeviceptr to, CUcontext to_ctx, CUdeviceptr from, CUcontext from_ctx, size_t n)
#define ARG_peer to, to_ctx, from, from_ctx, n
static CUresult on_peer(__typeof__(&cuMemcpyPeer) real, CUdeviceptr to, CUcontext to_ctx,
			CUdeviceptr from, CUcontext from_ctx, size_t n)
{
	return on_device(real(to, to_ctx, from, from_ctx, n), to, from, n);
}

#define SIG_peer_async (CUdeviceptr to, CUcontext to_ctx, CUdeviceptr from, \
			CUcontext from_ctx, size_t n, CUstream s)
#define ARG_peer_async to, to_ctx, from, from_ctx, n, s
static CUresult on_peer_async(__typeof__(&cuMemcpyPeerAsync) real, CUdeviceptr to,
			      CUcontext to_ctx, CUdeviceptr from, CUcontext from_ctx, size_t n,
			      CUstream s)
{
	return on_device(real(to, to_ctx, from, from_ctx, n, s), to, from, n);
}

/* ---- blocks ------------------------------------------------------------------------- */

/* Of a structure: a unified address stands where a device's does. */
#define BLOCK(c, depth) \
	count(typed_end((c)->dstMemoryType, (c)->dstDevice + (c)->dstXInBytes + \
			(c)->dstY * (c)->dstPitch), \
	      typed_end((c)->srcMemoryType, (c)->srcDevice + (c)->srcXInBytes + \
			(c)->srcY * (c)->srcPitch), \
	      (uint64_t)(c)->WidthInBytes * (c)->Height * (depth))

static CUresult block2d(CUresult r, const CUDA_MEMCPY2D *c)
{
	if (r == CUDA_SUCCESS && c && device_begun())
		BLOCK(c, 1);
	return r;
}

static CUresult block3d(CUresult r, const CUDA_MEMCPY3D *c)
{
	if (r == CUDA_SUCCESS && c && device_begun())
		BLOCK(c, c->Depth);
	return r;
}

static CUresult block_peer(CUresult r, const CUDA_MEMCPY3D_PEER *c)
{
	if (r == CUDA_SUCCESS && c && device_begun())
		BLOCK(c, c->Depth);
	return r;
}

#define SIG_copy2d (const CUDA_MEMCPY2D *c)
#define ARG_copy2d c
static CUresult on_copy2d(__typeof__(&cuMemcpy2D_v2) real, const CUDA_MEMCPY2D *c)
{
	return block2d(real(c), c);
}

#define SIG_copy2d_async (const CUDA_MEMCPY2D *c, CUstream s)
#define ARG_copy2d_async c, s
static CUresult on_copy2d_async(__typeof__(&cuMemcpy2DAsync_v2) real, const CUDA_MEMCPY2D *c,
				CUstream s)
{
	return block2d(real(c, s), c);
}

#define SIG_copy3d (const CUDA_MEMCPY3D *c)
#define ARG_copy3d c
static CUresult on_copy3d(__typeof__(&cuMemcpy3D_v2) real, const CUDA_MEMCPY3D *c)
{
	return block3d(real(c), c);
}

#define SIG_copy3d_async (const CUDA_MEMCPY3D *c, CUstream s)
#define ARG_copy3d_async c, s
static CUresult on_copy3d_async(__typeof__(&cuMemcpy3DAsync_v2) real, const CUDA_MEMCPY3D *c,
				CUstream s)
{
	return block3d(real(c, s), c);
}

#define SIG_peer3d (const CUDA_MEMCPY3D_PEER *c)
#define ARG_peer3d c
static CUresult on_peer3d(__typeof__(&cuMemcpy3DPeer) real, const CUDA_MEMCPY3D_PEER *c)
{
	return block_peer(real(c), c);
}

#define SIG_peer3d_async (const CUDA_MEMCPY3D_PEER *c, CUstream s)
#define ARG_peer3d_async c, s
static CUresult on_peer3d_async(__typeof__(&cuMemcpy3DPeerAsync) real,
				const CUDA_MEMCPY3D_PEER *c, CUstream s)
{
	return block_peer(real(c, s), c);
}

/* ---- batches ------------------------------------------------------------------------ */

/* Before version 13 a call could stop in the middle; what it did is not told apart. */
static CUresult batched(CUresult r, const CUdeviceptr *to, const CUdeviceptr *from,
			const size_t *n, size_t many)
{
	for (size_t i = 0; r == CUDA_SUCCESS && device_begun() && i < many; i++)
		count(any_end(to[i]), any_end(from[i]), n[i]);
	return r;
}

#define SIG_batch (CUdeviceptr *to, CUdeviceptr *from, size_t *n, size_t many, \
		   CUmemcpyAttributes *attrs, size_t *which, size_t n_attrs, size_t *failed, \
		   CUstream s)
#define ARG_batch to, from, n, many, attrs, which, n_attrs, failed, s
static CUresult on_batch(__typeof__(&cuMemcpyBatchAsync) real, CUdeviceptr *to,
			 CUdeviceptr *from, size_t *n, size_t many, CUmemcpyAttributes *attrs,
			 size_t *which, size_t n_attrs, size_t *failed, CUstream s)
{
	return batched(real(ARG_batch), to, from, n, many);
}

#define SIG_batch2 (CUdeviceptr *to, CUdeviceptr *from, size_t *n, size_t many, \
		    CUmemcpyAttributes *attrs, size_t *which, size_t n_attrs, CUstream s)
#define ARG_batch2 to, from, n, many, attrs, which, n_attrs, s
static CUresult on_batch2(__typeof__(&cuMemcpyBatchAsync_v2) real, CUdeviceptr *to,
			  CUdeviceptr *from, size_t *n, size_t many, CUmemcpyAttributes *attrs,
			  size_t *which, size_t n_attrs, CUstream s)
{
	return batched(real(ARG_batch2), to, from, n, many);
}

static struct end operand(const CUmemcpy3DOperand *o)
{
	if (o->type == CU_MEMCPY_OPERAND_TYPE_POINTER)
		return any_end(o->op.ptr.ptr);
	return (struct end){ .dev = cuda_device(), .array = true };
}

/* An extent counts elements where an array is part of it: one byte each is the least. */
static CUresult batched3d(CUresult r, const CUDA_MEMCPY3D_BATCH_OP *op, size_t many)
{
	for (size_t i = 0; r == CUDA_SUCCESS && device_begun() && i < many; i++)
		count(operand(&op[i].dst), operand(&op[i].src), (uint64_t)op[i].extent.width *
		      op[i].extent.height * op[i].extent.depth);
	return r;
}

#define SIG_batch3d (size_t many, CUDA_MEMCPY3D_BATCH_OP *op, size_t *failed, \
		     unsigned long long flags, CUstream s)
#define ARG_batch3d many, op, failed, flags, s
static CUresult on_batch3d(__typeof__(&cuMemcpy3DBatchAsync) real, size_t many,
			   CUDA_MEMCPY3D_BATCH_OP *op, size_t *failed, unsigned long long flags,
			   CUstream s)
{
	return batched3d(real(many, op, failed, flags, s), op, many);
}

#define SIG_batch3d2 (size_t many, CUDA_MEMCPY3D_BATCH_OP *op, unsigned long long flags, \
		      CUstream s)
#define ARG_batch3d2 many, op, flags, s
static CUresult on_batch3d2(__typeof__(&cuMemcpy3DBatchAsync_v2) real, size_t many,
			    CUDA_MEMCPY3D_BATCH_OP *op, unsigned long long flags, CUstream s)
{
	return batched3d(real(many, op, flags, s), op, many);
}

/* ---- memory that is set ---------------------------------------------------------------- */

#define SETTER(bits, type) \
	static CUresult on_set##bits(__typeof__(&cuMemsetD##bits##_v2) real, CUdeviceptr to, \
				     type v, size_t n) \
	{ \
		return set(real(to, v, n), to, (uint64_t)n * (bits / 8)); \
	} \
	static CUresult on_set##bits##_async(__typeof__(&cuMemsetD##bits##Async) real, \
					     CUdeviceptr to, type v, size_t n, CUstream s) \
	{ \
		return set(real(to, v, n, s), to, (uint64_t)n * (bits / 8)); \
	} \
	static CUresult on_set2d##bits(__typeof__(&cuMemsetD2D##bits##_v2) real, CUdeviceptr to, \
				       size_t pitch, type v, size_t w, size_t h) \
	{ \
		return set(real(to, pitch, v, w, h), to, (uint64_t)w * h * (bits / 8)); \
	} \
	static CUresult on_set2d##bits##_async(__typeof__(&cuMemsetD2D##bits##Async) real, \
					       CUdeviceptr to, size_t pitch, type v, size_t w, \
					       size_t h, CUstream s) \
	{ \
		return set(real(to, pitch, v, w, h, s), to, (uint64_t)w * h * (bits / 8)); \
	}
SETTER(8, unsigned char)
SETTER(16, unsigned short)
SETTER(32, unsigned int)

#define SIG_set8 (CUdeviceptr to, unsigned char v, size_t n)
#define SIG_set16 (CUdeviceptr to, unsigned short v, size_t n)
#define SIG_set32 (CUdeviceptr to, unsigned int v, size_t n)
#define ARG_set8 to, v, n
#define ARG_set16 ARG_set8
#define ARG_set32 ARG_set8
#define SIG_set8_async (CUdeviceptr to, unsigned char v, size_t n, CUstream s)
#define SIG_set16_async (CUdeviceptr to, unsigned short v, size_t n, CUstream s)
#define SIG_set32_async (CUdeviceptr to, unsigned int v, size_t n, CUstream s)
#define ARG_set8_async to, v, n, s
#define ARG_set16_async ARG_set8_async
#define ARG_set32_async ARG_set8_async
#define SIG_set2d8 (CUdeviceptr to, size_t pitch, unsigned char v, size_t w, size_t h)
#define SIG_set2d16 (CUdeviceptr to, size_t pitch, unsigned short v, size_t w, size_t h)
#define SIG_set2d32 (CUdeviceptr to, size_t pitch, unsigned int v, size_t w, size_t h)
#define ARG_set2d8 to, pitch, v, w, h
#define ARG_set2d16 ARG_set2d8
#define ARG_set2d32 ARG_set2d8
#define SIG_set2d8_async (CUdeviceptr to, size_t pitch, unsigned char v, size_t w, size_t h, \
			  CUstream s)
#define SIG_set2d16_async (CUdeviceptr to, size_t pitch, unsigned short v, size_t w, size_t h, \
			   CUstream s)
#define SIG_set2d32_async (CUdeviceptr to, size_t pitch, unsigned int v, size_t w, size_t h, \
			   CUstream s)
#define ARG_set2d8_async to, pitch, v, w, h, s
#define ARG_set2d16_async ARG_set2d8_async
#define ARG_set2d32_async ARG_set2d8_async

#define CU_COPY HOOK
#include "interpose/cuda_hook.def"
