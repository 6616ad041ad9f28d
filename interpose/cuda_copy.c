/* SPDX-License-Identifier: MIT */
/* cuda_copy.c - copies between host and devices, and memory that is set.
 *
 * (1) Counted when the driver took them, at the device whose memory it is; that they
 *     are done later changes no count. What a stream captures is not counted.
 * (2) Where a call does not say which side an address is on, the region table does;
 *     an address it does not know is the host's.
 * (3) Whole blocks are counted by their bytes, not by what lies between their rows.
 * (4) Where homes of several kinds lie in a range, a call is made as several
 *     (cuda_box.c), each of the same sort, in the order of addresses.
 * Lock: none.
 */
#include "interpose/cuda_int.h"

/* One end of a copy. */
struct end { uint64_t addr; int dev; bool host, array; };

/* The stream of the thread's last copy; who takes none is on the legacy one. */
static _Thread_local CUstream copied_on __attribute__((tls_model("initial-exec")));

static struct end host_end(const void *at)
{
	return (struct end){ .addr = (uintptr_t)at, .dev = -1, .host = true };
}

static bool on_host(const struct device_region *r)
{
	return r->kind == DEVICE_PINNED || r->kind == DEVICE_REGISTERED;
}

static struct end array_end(void)
{
	return (struct end){ .dev = cuda_device(), .array = true };
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
		return host_end((const void *)(uintptr_t)at);
	return (struct end){ .addr = at, .dev = r.dev };
}

static struct end typed_end(CUmemorytype type, CUdeviceptr at)
{
	switch (type) {
	case CU_MEMORYTYPE_DEVICE:
		return device_end(at);
	case CU_MEMORYTYPE_ARRAY:
		return array_end();
	case CU_MEMORYTYPE_UNIFIED:
		return any_end(at);
	default:
		return host_end(NULL);
	}
}

static void count(struct end to, struct end from, uint64_t bytes)
{
	const char *what = from.host ? "h2d" : to.host ? "d2h" : "d2d";
	bool done;

	if (to.host && from.host)
		return;
	done = !cuda_captured(copied_on);
	if (done && from.host)
		device_count_copy(to.dev, bytes, 0);
	else if (done && to.host)
		device_count_copy(from.dev, 0, bytes);
	if (cuda_deep() && !to.host && !to.array && !from.array)
		cuda_points(to.addr, from.addr, from.host, bytes, done);
	if (!to.host && !to.array) {
		device_mark(to.addr, from.host ? DEVICE_FILLED : DEVICE_WRITTEN);
		vmm_wrote(to.addr, bytes, (uintptr_t)copied_on);
	}
	if (done && device_tape_on())
		device_tape_copy(to.host ? from.dev : to.dev, what,
				 to.host ? from.addr : to.addr, bytes);
}

/* Ends are looked up only where something is counted: that may ask the driver. */
#define COUNTED(r, to, from, bytes) ({ \
	CUresult c_ = (r); \
	if (c_ == CUDA_SUCCESS && device_begun()) \
		count(to, from, bytes); \
	c_; })

static CUresult to_device(CUresult r, CUdeviceptr to, const void *from, uint64_t bytes)
{
	return COUNTED(r, device_end(to), host_end(from), bytes);
}

static CUresult to_host(CUresult r, CUdeviceptr from, uint64_t bytes)
{
	return COUNTED(r, host_end(NULL), device_end(from), bytes);
}

static CUresult on_device(CUresult r, CUdeviceptr to, CUdeviceptr from, uint64_t bytes)
{
	return COUNTED(r, device_end(to), device_end(from), bytes);
}

static CUresult anywhere(CUresult r, CUdeviceptr to, CUdeviceptr from, uint64_t bytes)
{
	return COUNTED(r, any_end(to), any_end(from), bytes);
}

static CUresult set(CUresult r, CUdeviceptr to, uint64_t bytes)
{
	if (r != CUDA_SUCCESS || !device_begun())
		return r;
	device_mark(to, DEVICE_WRITTEN);
	vmm_wrote(to, bytes, (uintptr_t)copied_on);
	if (device_tape_on() && !cuda_captured(copied_on))
		device_tape_copy(device_end(to).dev, "set", to, bytes);
	return r;
}

/* A run of bytes by (4): `call` with to_, from_ and n_ instead, once at least. */
#define EACH(to, from, n, call) ({ \
	bool deep_ = cuda_deep(), in_ = !deep_ && vmm_enter(); \
	uint64_t to_ = (to), from_ = (from); \
	size_t left_ = (n), n_; \
	CUresult e_ = CUDA_SUCCESS; \
	do { \
		n_ = in_ ? cuda_piece(to_, from_, left_) : left_; \
		if (deep_) \
			e_ = cuda_enter_piece(to_, from_, &n_, &in_); \
		if (e_ == CUDA_SUCCESS) \
			e_ = (call); \
		if (deep_) { \
			vmm_leave(in_); \
			in_ = false; \
		} \
		to_ += n_; \
		from_ += n_; \
		left_ -= n_; \
	} while (e_ == CUDA_SUCCESS && left_); \
	vmm_leave(in_); \
	e_; })

/* ---- runs of bytes ------------------------------------------------------------------ */

#define SIG_htod (CUdeviceptr to, const void *from, size_t n)
#define ARG_htod to, from, n
static CUresult on_htod(__typeof__(&cuMemcpyHtoD_v2) real, CUdeviceptr to, const void *from,
			size_t n)
{
	copied_on = NULL;
	return to_device(EACH(to, (uintptr_t)from, n, real(to_, (const void *)from_, n_)), to, from,
			 n);
}

#define SIG_htod_async (CUdeviceptr to, const void *from, size_t n, CUstream s)
#define ARG_htod_async to, from, n, s
static CUresult on_htod_async(__typeof__(&cuMemcpyHtoDAsync_v2) real, CUdeviceptr to,
			      const void *from, size_t n, CUstream s)
{
	copied_on = s;
	return to_device(EACH(to, (uintptr_t)from, n, real(to_, (const void *)from_, n_, s)), to,
			 from, n);
}

#define SIG_dtoh (void *to, CUdeviceptr from, size_t n)
#define ARG_dtoh to, from, n
static CUresult on_dtoh(__typeof__(&cuMemcpyDtoH_v2) real, void *to, CUdeviceptr from, size_t n)
{
	copied_on = NULL;
	CUresult r = to_host(EACH((uintptr_t)to, from, n, real((void *)to_, from_, n_)), from, n);

	vmm_synced();
	return r;
}

#define SIG_dtoh_async (void *to, CUdeviceptr from, size_t n, CUstream s)
#define ARG_dtoh_async to, from, n, s
static CUresult on_dtoh_async(__typeof__(&cuMemcpyDtoHAsync_v2) real, void *to,
			      CUdeviceptr from, size_t n, CUstream s)
{
	copied_on = s;
	return to_host(EACH((uintptr_t)to, from, n, real((void *)to_, from_, n_, s)), from, n);
}

#define SIG_dtod (CUdeviceptr to, CUdeviceptr from, size_t n)
#define ARG_dtod to, from, n
static CUresult on_dtod(__typeof__(&cuMemcpyDtoD_v2) real, CUdeviceptr to, CUdeviceptr from,
			size_t n)
{
	copied_on = NULL;
	return on_device(EACH(to, from, n, real(to_, from_, n_)), to, from, n);
}

#define SIG_dtod_async (CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s)
#define ARG_dtod_async to, from, n, s
static CUresult on_dtod_async(__typeof__(&cuMemcpyDtoDAsync_v2) real, CUdeviceptr to,
			      CUdeviceptr from, size_t n, CUstream s)
{
	copied_on = s;
	return on_device(EACH(to, from, n, real(to_, from_, n_, s)), to, from, n);
}

#define SIG_copy SIG_dtod
#define ARG_copy ARG_dtod
static CUresult on_copy(__typeof__(&cuMemcpy) real, CUdeviceptr to, CUdeviceptr from, size_t n)
{
	copied_on = NULL;
	return anywhere(EACH(to, from, n, real(to_, from_, n_)), to, from, n);
}

#define SIG_copy_async SIG_dtod_async
#define ARG_copy_async ARG_dtod_async
static CUresult on_copy_async(__typeof__(&cuMemcpyAsync) real, CUdeviceptr to, CUdeviceptr from,
			      size_t n, CUstream s)
{
	copied_on = s;
	return anywhere(EACH(to, from, n, real(to_, from_, n_, s)), to, from, n);
}

#define SIG_peer (CUdeviceptr to, CUcontext to_ctx, CUdeviceptr from, CUcontext from_ctx, size_t n)
#define ARG_peer to, to_ctx, from, from_ctx, n
static CUresult on_peer(__typeof__(&cuMemcpyPeer) real, CUdeviceptr to, CUcontext to_ctx,
			CUdeviceptr from, CUcontext from_ctx, size_t n)
{
	copied_on = NULL;
	return on_device(EACH(to, from, n, real(to_, to_ctx, from_, from_ctx, n_)), to, from, n);
}

#define SIG_peer_async (CUdeviceptr to, CUcontext to_ctx, CUdeviceptr from, \
			CUcontext from_ctx, size_t n, CUstream s)
#define ARG_peer_async to, to_ctx, from, from_ctx, n, s
static CUresult on_peer_async(__typeof__(&cuMemcpyPeerAsync) real, CUdeviceptr to,
			      CUcontext to_ctx, CUdeviceptr from, CUcontext from_ctx, size_t n,
			      CUstream s)
{
	copied_on = s;
	return on_device(EACH(to, from, n, real(to_, to_ctx, from_, from_ctx, n_, s)), to, from, n);
}

/* ---- runs of bytes in arrays: the driver's own memory --------------------------------- */

#define SIG_dtoa (CUarray to, size_t at, CUdeviceptr from, size_t n)
#define ARG_dtoa to, at, from, n
static CUresult on_dtoa(__typeof__(&cuMemcpyDtoA_v2) real, CUarray to, size_t at,
			CUdeviceptr from, size_t n)
{
	copied_on = NULL;
	return COUNTED(EACH(at, from, n, real(to, to_, from_, n_)), array_end(), device_end(from), n);
}

#define SIG_atod (CUdeviceptr to, CUarray from, size_t at, size_t n)
#define ARG_atod to, from, at, n
static CUresult on_atod(__typeof__(&cuMemcpyAtoD_v2) real, CUdeviceptr to, CUarray from,
			size_t at, size_t n)
{
	copied_on = NULL;
	return COUNTED(EACH(to, at, n, real(to_, from, from_, n_)), device_end(to), array_end(), n);
}

#define SIG_htoa (CUarray to, size_t at, const void *from, size_t n)
#define ARG_htoa to, at, from, n
static CUresult on_htoa(__typeof__(&cuMemcpyHtoA_v2) real, CUarray to, size_t at,
			const void *from, size_t n)
{
	copied_on = NULL;
	return COUNTED(real(to, at, from, n), array_end(), host_end(NULL), n);
}

#define SIG_htoa_async (CUarray to, size_t at, const void *from, size_t n, CUstream s)
#define ARG_htoa_async to, at, from, n, s
static CUresult on_htoa_async(__typeof__(&cuMemcpyHtoAAsync_v2) real, CUarray to, size_t at,
			      const void *from, size_t n, CUstream s)
{
	copied_on = s;
	return COUNTED(real(to, at, from, n, s), array_end(), host_end(NULL), n);
}

#define SIG_atoh (void *to, CUarray from, size_t at, size_t n)
#define ARG_atoh to, from, at, n
static CUresult on_atoh(__typeof__(&cuMemcpyAtoH_v2) real, void *to, CUarray from, size_t at,
			size_t n)
{
	copied_on = NULL;
	return COUNTED(real(to, from, at, n), host_end(NULL), array_end(), n);
}

#define SIG_atoh_async (void *to, CUarray from, size_t at, size_t n, CUstream s)
#define ARG_atoh_async to, from, at, n, s
static CUresult on_atoh_async(__typeof__(&cuMemcpyAtoHAsync_v2) real, void *to, CUarray from,
			      size_t at, size_t n, CUstream s)
{
	copied_on = s;
	return COUNTED(real(to, from, at, n, s), host_end(NULL), array_end(), n);
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

/* What a structure does not say. */
#define PITCH(c, side) ((c)->side##Pitch ? (c)->side##Pitch : (c)->WidthInBytes + (c)->side##XInBytes)
#define OURS(c, side) ((c)->side##MemoryType == CU_MEMORYTYPE_DEVICE || \
		       (c)->side##MemoryType == CU_MEMORYTYPE_UNIFIED)
#define SIDE(c, side, z, rows) ((struct cuda_side){ \
	.at = OURS(c, side) ? (c)->side##Device + ((z) * (rows) + (c)->side##Y) * PITCH(c, side) + \
			      (c)->side##XInBytes : 0, \
	.pitch = PITCH(c, side), .height = (rows) })

/* A structure of the part: as the whole's, but for where and how much. */
#define PART(type, name, b) \
	type name = *(const type *)c; \
	name.srcPitch = PITCH(&name, src); \
	name.dstPitch = PITCH(&name, dst); \
	name.srcXInBytes += (b)->x; \
	name.dstXInBytes += (b)->x; \
	name.srcY += (b)->y; \
	name.dstY += (b)->y; \
	name.WidthInBytes = (b)->width; \
	name.Height = (b)->rows
#define LAYERS(c, side) ((c)->side##Height ? (c)->side##Height : (c)->Height + (c)->side##Y)
#define PART3(type, name, b) \
	PART(type, name, b); \
	name.srcHeight = LAYERS((const type *)c, src); \
	name.dstHeight = LAYERS((const type *)c, dst); \
	name.srcZ += (b)->z; \
	name.dstZ += (b)->z; \
	name.Depth = (b)->layers

struct block {
	const void *c;
	void *real;
	CUstream s;
	bool async;
};

static CUresult part2d(const struct cuda_box *b, void *arg)
{
	const struct block *k = arg;
	const void *c = k->c;
	PART(CUDA_MEMCPY2D, p, b);

	return k->async ? ((__typeof__(&cuMemcpy2DAsync_v2))k->real)(&p, k->s) :
	       ((__typeof__(&cuMemcpy2D_v2))k->real)(&p);
}

static CUresult part3d(const struct cuda_box *b, void *arg)
{
	const struct block *k = arg;
	const void *c = k->c;
	PART3(CUDA_MEMCPY3D, p, b);

	return k->async ? ((__typeof__(&cuMemcpy3DAsync_v2))k->real)(&p, k->s) :
	       ((__typeof__(&cuMemcpy3D_v2))k->real)(&p);
}

static CUresult part_peer(const struct cuda_box *b, void *arg)
{
	const struct block *k = arg;
	const void *c = k->c;
	PART3(CUDA_MEMCPY3D_PEER, p, b);

	return k->async ? ((__typeof__(&cuMemcpy3DPeerAsync))k->real)(&p, k->s) :
	       ((__typeof__(&cuMemcpy3DPeer))k->real)(&p);
}

/* What the driver must check for itself goes to it as it is. */
#define BLOCK_EACH(c, s, async, call, part, zs, zd, hs, hd, depth) ({ \
	struct block k_ = { c, (void *)real, s, async }; \
	struct cuda_box box_ = { .width = 0 }; \
	bool in_ = false; \
	CUresult b_; \
	if (c && atomic_load_explicit(&vmm_on, memory_order_relaxed)) \
		box_ = (struct cuda_box){ .to = SIDE(c, dst, zd, hd), .from = SIDE(c, src, zs, hs), \
					  .width = (c)->WidthInBytes, .rows = (c)->Height, \
					  .layers = (depth) }; \
	b_ = cuda_enter_box(&box_, &in_); \
	if (b_ != CUDA_SUCCESS) \
		; \
	else if (in_ && c) \
		b_ = cuda_whole(&box_) ? (call) : cuda_parts(&box_, part, &k_); \
	else \
		b_ = (call); \
	vmm_leave(in_); \
	if (b_ == CUDA_SUCCESS && cuda_deep() && c && (c)->srcMemoryType == CU_MEMORYTYPE_HOST) \
		cuda_box_points(&box_, (c)->srcHost ? (const char *)(c)->srcHost + ((zs) * (hs) + \
				(c)->srcY) * PITCH(c, src) + (c)->srcXInBytes : NULL, \
				PITCH(c, src), hs, !cuda_captured(copied_on)); \
	b_; })
#define EACH2D(c, s, async, call) \
	BLOCK_EACH(c, s, async, call, part2d, 0, 0, (c)->Height, (c)->Height, 1)
#define EACH3D(c, s, async, call, part) \
	BLOCK_EACH(c, s, async, call, part, (c)->srcZ, (c)->dstZ, LAYERS(c, src), LAYERS(c, dst), \
		   (c)->Depth)

#define SIG_copy2d (const CUDA_MEMCPY2D *c)
#define ARG_copy2d c
static CUresult on_copy2d(__typeof__(&cuMemcpy2D_v2) real, const CUDA_MEMCPY2D *c)
{
	copied_on = NULL;
	return block2d(EACH2D(c, NULL, false, real(c)), c);
}

#define SIG_copy2d_async (const CUDA_MEMCPY2D *c, CUstream s)
#define ARG_copy2d_async c, s
static CUresult on_copy2d_async(__typeof__(&cuMemcpy2DAsync_v2) real, const CUDA_MEMCPY2D *c,
				CUstream s)
{
	copied_on = s;
	return block2d(EACH2D(c, s, true, real(c, s)), c);
}

#define SIG_copy3d (const CUDA_MEMCPY3D *c)
#define ARG_copy3d c
static CUresult on_copy3d(__typeof__(&cuMemcpy3D_v2) real, const CUDA_MEMCPY3D *c)
{
	copied_on = NULL;
	return block3d(EACH3D(c, NULL, false, real(c), part3d), c);
}

#define SIG_copy3d_async (const CUDA_MEMCPY3D *c, CUstream s)
#define ARG_copy3d_async c, s
static CUresult on_copy3d_async(__typeof__(&cuMemcpy3DAsync_v2) real, const CUDA_MEMCPY3D *c,
				CUstream s)
{
	copied_on = s;
	return block3d(EACH3D(c, s, true, real(c, s), part3d), c);
}

#define SIG_peer3d (const CUDA_MEMCPY3D_PEER *c)
#define ARG_peer3d c
static CUresult on_peer3d(__typeof__(&cuMemcpy3DPeer) real, const CUDA_MEMCPY3D_PEER *c)
{
	copied_on = NULL;
	return block_peer(EACH3D(c, NULL, false, real(c), part_peer), c);
}

#define SIG_peer3d_async (const CUDA_MEMCPY3D_PEER *c, CUstream s)
#define ARG_peer3d_async c, s
static CUresult on_peer3d_async(__typeof__(&cuMemcpy3DPeerAsync) real,
				const CUDA_MEMCPY3D_PEER *c, CUstream s)
{
	copied_on = s;
	return block_peer(EACH3D(c, s, true, real(c, s), part_peer), c);
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

/* True: every copy of them is of one kind at both ends. Inside the gate. */
static bool batch_even(const CUdeviceptr *to, const CUdeviceptr *from, const size_t *n,
		       size_t many)
{
	if (cuda_deep())	/* each by itself has homes */
		return false;
	for (size_t i = 0; i < many; i++)
		if (cuda_piece(to[i], from[i], n[i]) < n[i])
			return false;
	return true;
}

static CUmemcpyAttributes *attributes(CUmemcpyAttributes *attrs, const size_t *which,
				      size_t n_attrs, size_t i)
{
	size_t k = n_attrs;

	while (k > 1 && which[k - 1] > i)
		k--;
	return k ? &attrs[k - 1] : attrs;
}

/* One copy of a batch after the other, in pieces: `call` makes a batch of one. */
#define BATCH_EACH(call) ({ \
	CUresult a_ = CUDA_SUCCESS; \
	size_t first_[1] = { 0 }, i_; \
	for (i_ = 0; i_ < many && a_ == CUDA_SUCCESS; i_++) { \
		CUmemcpyAttributes *at_ = attributes(attrs, which, n_attrs, i_); \
		a_ = EACH(to[i_], from[i_], n[i_], (call)); \
	} \
	a_; })

#define SIG_batch (CUdeviceptr *to, CUdeviceptr *from, size_t *n, size_t many, \
		   CUmemcpyAttributes *attrs, size_t *which, size_t n_attrs, size_t *failed, \
		   CUstream s)
#define ARG_batch to, from, n, many, attrs, which, n_attrs, failed, s
static CUresult on_batch(__typeof__(&cuMemcpyBatchAsync) real, CUdeviceptr *to,
			 CUdeviceptr *from, size_t *n, size_t many, CUmemcpyAttributes *attrs,
			 size_t *which, size_t n_attrs, size_t *failed, CUstream s)
{
	copied_on = s;
	bool in = vmm_enter(), even = !in || !to || !from || !n || !attrs || !which ||
				      batch_even(to, from, n, many);
	CUresult r = even ? real(ARG_batch) : CUDA_SUCCESS;

	vmm_leave(in);
	if (!even)
		r = BATCH_EACH(real((CUdeviceptr[]){ to_ }, (CUdeviceptr[]){ from_ }, &n_, 1, at_,
				    first_, 1, failed, s));
	return batched(r, to, from, n, many);
}

#define SIG_batch2 (CUdeviceptr *to, CUdeviceptr *from, size_t *n, size_t many, \
		    CUmemcpyAttributes *attrs, size_t *which, size_t n_attrs, CUstream s)
#define ARG_batch2 to, from, n, many, attrs, which, n_attrs, s
static CUresult on_batch2(__typeof__(&cuMemcpyBatchAsync_v2) real, CUdeviceptr *to,
			  CUdeviceptr *from, size_t *n, size_t many, CUmemcpyAttributes *attrs,
			  size_t *which, size_t n_attrs, CUstream s)
{
	copied_on = s;
	bool in = vmm_enter(), even = !in || !to || !from || !n || !attrs || !which ||
				      batch_even(to, from, n, many);
	CUresult r = even ? real(ARG_batch2) : CUDA_SUCCESS;

	vmm_leave(in);
	if (!even)
		r = BATCH_EACH(real((CUdeviceptr[]){ to_ }, (CUdeviceptr[]){ from_ }, &n_, 1, at_,
				    first_, 1, s));
	return batched(r, to, from, n, many);
}

static struct end operand(const CUmemcpy3DOperand *o)
{
	if (o->type == CU_MEMCPY_OPERAND_TYPE_POINTER)
		return any_end(o->op.ptr.ptr);
	return array_end();
}

/* An extent counts elements where an array is part of it: one byte each is the least. */
static CUresult batched3d(CUresult r, const CUDA_MEMCPY3D_BATCH_OP *op, size_t many)
{
	for (size_t i = 0; r == CUDA_SUCCESS && device_begun() && i < many; i++)
		count(operand(&op[i].dst), operand(&op[i].src), (uint64_t)op[i].extent.width *
		      op[i].extent.height * op[i].extent.depth);
	return r;
}

/* Without arrays an element is a byte. */
static bool op_box(const CUDA_MEMCPY3D_BATCH_OP *o, struct cuda_box *b)
{
	const CUmemcpy3DOperand *d = &o->dst, *s = &o->src;

	if (d->type != CU_MEMCPY_OPERAND_TYPE_POINTER || s->type != CU_MEMCPY_OPERAND_TYPE_POINTER)
		return false;
	*b = (struct cuda_box){ .width = o->extent.width, .rows = o->extent.height,
				.layers = o->extent.depth };
	b->to = (struct cuda_side){ d->op.ptr.ptr, d->op.ptr.rowLength ? d->op.ptr.rowLength :
		b->width, d->op.ptr.layerHeight ? d->op.ptr.layerHeight : b->rows };
	b->from = (struct cuda_side){ s->op.ptr.ptr, s->op.ptr.rowLength ? s->op.ptr.rowLength :
		b->width, s->op.ptr.layerHeight ? s->op.ptr.layerHeight : b->rows };
	return true;
}

static CUmemcpy3DOperand op_part(const CUmemcpy3DOperand *o, const struct cuda_side *s,
				 const struct cuda_box *b)
{
	CUmemcpy3DOperand p = *o;

	p.op.ptr.ptr += (b->z * s->height + b->y) * s->pitch + b->x;
	p.op.ptr.rowLength = s->pitch;
	p.op.ptr.layerHeight = s->height;
	return p;
}

struct batch3d {
	const CUDA_MEMCPY3D_BATCH_OP *op;
	void *real;
	size_t *failed;
	unsigned long long flags;
	CUstream s;
	bool old;
};

static CUresult part_op(const struct cuda_box *b, void *arg)
{
	const struct batch3d *k = arg;
	CUDA_MEMCPY3D_BATCH_OP p = *k->op;

	p.dst = op_part(&k->op->dst, &b->to, b);
	p.src = op_part(&k->op->src, &b->from, b);
	p.extent = (CUextent3D){ b->width, b->rows, b->layers };
	return k->old ? ((__typeof__(&cuMemcpy3DBatchAsync))k->real)(1, &p, k->failed, k->flags,
								      k->s) :
	       ((__typeof__(&cuMemcpy3DBatchAsync_v2))k->real)(1, &p, k->flags, k->s);
}

static bool ops_even(const CUDA_MEMCPY3D_BATCH_OP *op, size_t many)
{
	struct cuda_box b;

	for (size_t i = 0; op && i < many; i++)
		if (op_box(&op[i], &b) && !cuda_whole(&b))
			return false;
	return true;
}

static CUresult op_each(const CUDA_MEMCPY3D_BATCH_OP *op, size_t many, struct batch3d *k)
{
	CUresult r = CUDA_SUCCESS;
	struct cuda_box b;

	for (size_t i = 0; r == CUDA_SUCCESS && i < many; i++) {
		k->op = &op[i];
		if (op_box(&op[i], &b)) {
			bool in = false;

			if (cuda_deep())
				r = cuda_enter_box(&b, &in);
			if (r == CUDA_SUCCESS)
				r = cuda_parts(&b, part_op, k);
			vmm_leave(in);
		} else
			r = k->old ? ((__typeof__(&cuMemcpy3DBatchAsync))k->real)(1,
				     (CUDA_MEMCPY3D_BATCH_OP *)k->op, k->failed, k->flags, k->s) :
			    ((__typeof__(&cuMemcpy3DBatchAsync_v2))k->real)(1,
				     (CUDA_MEMCPY3D_BATCH_OP *)k->op, k->flags, k->s);
	}
	return r;
}

#define SIG_batch3d (size_t many, CUDA_MEMCPY3D_BATCH_OP *op, size_t *failed, \
		     unsigned long long flags, CUstream s)
#define ARG_batch3d many, op, failed, flags, s
static CUresult on_batch3d(__typeof__(&cuMemcpy3DBatchAsync) real, size_t many,
			   CUDA_MEMCPY3D_BATCH_OP *op, size_t *failed, unsigned long long flags,
			   CUstream s)
{
	copied_on = s;
	struct batch3d k = { NULL, (void *)real, failed, flags, s, true };
	bool deep = cuda_deep(), in = !deep && vmm_enter();
	CUresult r = !deep && (!in || ops_even(op, many)) ? real(many, op, failed, flags, s) :
		     op_each(op, many, &k);

	vmm_leave(in);
	return batched3d(r, op, many);
}

#define SIG_batch3d2 (size_t many, CUDA_MEMCPY3D_BATCH_OP *op, unsigned long long flags, \
		      CUstream s)
#define ARG_batch3d2 many, op, flags, s
static CUresult on_batch3d2(__typeof__(&cuMemcpy3DBatchAsync_v2) real, size_t many,
			    CUDA_MEMCPY3D_BATCH_OP *op, unsigned long long flags, CUstream s)
{
	copied_on = s;
	struct batch3d k = { NULL, (void *)real, NULL, flags, s, false };
	bool deep = cuda_deep(), in = !deep && vmm_enter();
	CUresult r = !deep && (!in || ops_even(op, many)) ? real(many, op, flags, s) :
		     op_each(op, many, &k);

	vmm_leave(in);
	return batched3d(r, op, many);
}

/* ---- memory that is set ---------------------------------------------------------------- */

/* Rows of a set by (4): as many at once as lie in one kind, or a row in pieces. `call`
 * with at_, w_ and h_ instead. */
#define EACH_ROW(to, pitch, w, h, size, call) ({ \
	uint64_t to_ = (to), at_, x_ = 0, row_ = (uint64_t)(w) * (size); \
	size_t w_, h_, left_ = (h); \
	bool in_; \
	CUresult e_ = cuda_enter_bytes(to, left_ ? (left_ - 1) * (pitch) + row_ : 0, 0, 0, &in_); \
	if (e_ == CUDA_SUCCESS) do { \
		h_ = x_ ? 1 : left_; \
		while (in_ && h_ > 1 && !rows_even(to_, pitch, row_, h_)) \
			h_ /= 2; \
		w_ = in_ && h_ == 1 ? cuda_piece(to_ + x_, 0, row_ - x_) / (size) : (w); \
		at_ = to_ + x_; \
		e_ = (call); \
		x_ += w_ * (size); \
		if (x_ >= row_) { \
			x_ = 0; \
			to_ += h_ * (pitch); \
			left_ -= h_; \
		} \
	} while (e_ == CUDA_SUCCESS && left_); \
	vmm_leave(in_); \
	e_; })

static bool rows_even(uint64_t to, uint64_t pitch, uint64_t row, uint64_t rows)
{
	uint64_t span = (rows - 1) * pitch + row;

	return cuda_piece(to, 0, span) >= span;
}

#define SETTER(bits, type) \
	static CUresult on_set##bits(__typeof__(&cuMemsetD##bits##_v2) real, CUdeviceptr to, \
				     type v, size_t n) \
	{ \
	copied_on = NULL; \
		return set(EACH(to, 0, n * (bits / 8), real(to_, v, n_ / (bits / 8))), to, \
			   (uint64_t)n * (bits / 8)); \
	} \
	static CUresult on_set##bits##_async(__typeof__(&cuMemsetD##bits##Async) real, \
					     CUdeviceptr to, type v, size_t n, CUstream s) \
	{ \
	copied_on = s; \
		return set(EACH(to, 0, n * (bits / 8), real(to_, v, n_ / (bits / 8), s)), to, \
			   (uint64_t)n * (bits / 8)); \
	} \
	static CUresult on_set2d##bits(__typeof__(&cuMemsetD2D##bits##_v2) real, CUdeviceptr to, \
				       size_t pitch, type v, size_t w, size_t h) \
	{ \
	copied_on = NULL; \
		return set(EACH_ROW(to, pitch, w, h, bits / 8, real(at_, pitch, v, w_, h_)), to, \
			   (uint64_t)w * h * (bits / 8)); \
	} \
	static CUresult on_set2d##bits##_async(__typeof__(&cuMemsetD2D##bits##Async) real, \
					       CUdeviceptr to, size_t pitch, type v, size_t w, \
					       size_t h, CUstream s) \
	{ \
	copied_on = s; \
		return set(EACH_ROW(to, pitch, w, h, bits / 8, real(at_, pitch, v, w_, h_, s)), to, \
			   (uint64_t)w * h * (bits / 8)); \
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
