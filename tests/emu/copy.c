/* SPDX-License-Identifier: MIT */
/* copy.c - copies and memsets of all shapes, made into work (E7).
 *
 * Owns nothing. (1) What is not mapped at the call is refused there; what is taken away
 * later is an illegal access when it runs. (2) A call without "Async" waits, but for
 * device to device and for memsets of device memory, which no host waits for: the real
 * driver does not promise it. Lock: the emulator's.
 */
#include "tests/emu/emu.h"

/* ---- one side ----------------------------------------------------------------- */

static bool pinned(uint64_t addr)
{
	struct host_range h;

	return host_find(addr, &h);
}

static uint64_t bytes_of(const struct copy *c, const struct side *s)
{
	uint64_t rows = (c->layers - 1) * s->height + c->rows;

	return (rows - 1) * s->pitch + c->width;
}

static CUresult check_side(const struct copy *c, struct side *s)
{
	struct host_range h;

	s->host = !vm_is_device(s->addr);
	if (!s->addr || s->pitch < c->width || (c->layers > 1 && s->height < c->rows))
		return CUDA_ERROR_INVALID_VALUE;
	if (!s->host)
		return vm_mapped(s->addr, bytes_of(c, s)) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	if (host_find(s->addr, &h) && bytes_of(c, s) > h.addr + h.size - s->addr)
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

/* EMU_SPAN=0: a driver that takes no range in both kinds of memory. Nodes of graphs are
 * not looked at. */
static bool spans(const struct copy *c, const struct side *s)
{
	return !emu.opt.span && !s->host && vmm_both(s->addr, bytes_of(c, s));
}

static bool pageable(const struct side *s)
{
	return s->host && !pinned(s->addr);
}

/* The bytes as they are now: the caller may change them when the call is back. */
static void *stage(const struct copy *c)
{
	char *at = malloc(c->width * c->rows * c->layers);

	if (!at)
		abort();
	for (uint64_t l = 0; l < c->layers; l++)
		for (uint64_t r = 0; r < c->rows; r++)
			memcpy(at + (l * c->rows + r) * c->width,
			       (const char *)(uintptr_t)c->src.addr +
				       (l * c->src.height + r) * c->src.pitch, c->width);
	return at;
}

static CUresult submit(struct stream *s, const struct copy *in, const CUDA_MEMCPY3D *as, bool async)
{
	struct work w = { .kind = W_COPY };
	struct copy *c = &w.u.copy.c;
	CUresult r;
	struct op *op;

	*c = *in;
	if (!c->width || !c->rows || !c->layers)
		return CUDA_SUCCESS;
	r = check_side(c, &c->src);
	r = r ? r : check_side(c, &c->dst);
	if (r)
		return r;
	if (spans(c, &c->src) || spans(c, &c->dst))
		return CUDA_ERROR_INVALID_VALUE;
	if (s->capture && !async)
		return capture_refuse(s);
	if (as)
		w.u.copy.as = *as;
	if (!s->capture && pageable(&c->src))
		w.u.copy.staged = stage(c);
	if (!s->capture && (pageable(&c->dst) || (!async && (c->src.host || c->dst.host)))) {
		r = stream_submit_op(s, &w, &op);
		if (r || !op)
			return r;
		op_wait(op);
		op_put(op);
		return s->ctx->sticky;
	}
	return stream_submit(s, &w);
}

static CUDA_MEMCPY3D said(const struct copy *c)
{
	bool from_host = !vm_is_device(c->src.addr), to_host = !vm_is_device(c->dst.addr);
	CUDA_MEMCPY3D a = {
		.srcMemoryType = from_host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE,
		.dstMemoryType = to_host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE,
		.srcPitch = c->src.pitch, .srcHeight = c->src.height,
		.dstPitch = c->dst.pitch, .dstHeight = c->dst.height,
		.WidthInBytes = c->width, .Height = c->rows, .Depth = c->layers,
	};

	if (from_host)
		a.srcHost = (const void *)(uintptr_t)c->src.addr;
	else
		a.srcDevice = c->src.addr;
	if (to_host)
		a.dstHost = (void *)(uintptr_t)c->dst.addr;
	else
		a.dstDevice = c->dst.addr;
	return a;
}

/* ---- linear ------------------------------------------------------------------- */

#define ANY	0u
#define TO_DEV	1u	/* the target is device memory, or the like */
#define FROM_DEV 2u

static CUresult linear(uint64_t dst, uint64_t src, size_t n, CUstream h, unsigned sides, bool async)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);
	struct copy c = {
		.src = { .addr = src, .pitch = n, .height = 1 },
		.dst = { .addr = dst, .pitch = n, .height = 1 },
		.width = n, .rows = 1, .layers = 1,
	};
	CUDA_MEMCPY3D as;

	if (!s)
		return r;
	if (n && ((sides & TO_DEV && !vm_is_device(dst) && !pinned(dst)) ||
		  (sides & FROM_DEV && !vm_is_device(src) && !pinned(src))))
		return CUDA_ERROR_INVALID_VALUE;
	as = said(&c);
	return submit(s, &c, &as, async);
}

CUresult i_cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t n)
{
	return linear(dst, src, n, NULL, ANY, false);
}

CUresult i_cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream s)
{
	return linear(dst, src, n, s, ANY, true);
}

CUresult i_cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t n)
{
	return linear(dst, (uintptr_t)src, n, NULL, TO_DEV, false);
}

CUresult i_cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t n, CUstream s)
{
	return linear(dst, (uintptr_t)src, n, s, TO_DEV, true);
}

CUresult i_cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t n)
{
	return linear((uintptr_t)dst, src, n, NULL, FROM_DEV, false);
}

CUresult i_cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t n, CUstream s)
{
	return linear((uintptr_t)dst, src, n, s, FROM_DEV, true);
}

CUresult i_cuMemcpyDtoD_v2(CUdeviceptr dst, CUdeviceptr src, size_t n)
{
	return linear(dst, src, n, NULL, TO_DEV | FROM_DEV, false);
}

CUresult i_cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream s)
{
	return linear(dst, src, n, s, TO_DEV | FROM_DEV, true);
}

CUresult i_cuMemcpyPeer(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from, size_t n)
{
	if (!obj_get(K_CTX, (uintptr_t)to) || !obj_get(K_CTX, (uintptr_t)from))
		return CUDA_ERROR_INVALID_CONTEXT;
	return linear(dst, src, n, NULL, TO_DEV | FROM_DEV, false);
}

CUresult i_cuMemcpyPeerAsync(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from,
			     size_t n, CUstream s)
{
	if (!obj_get(K_CTX, (uintptr_t)to) || !obj_get(K_CTX, (uintptr_t)from))
		return CUDA_ERROR_INVALID_CONTEXT;
	return linear(dst, src, n, s, TO_DEV | FROM_DEV, true);
}

/* ---- rows and layers ---------------------------------------------------------- */

static bool start_of(CUmemorytype type, const void *host, CUdeviceptr device, uint64_t *out)
{
	switch (type) {
	case CU_MEMORYTYPE_HOST: *out = (uintptr_t)host; return !vm_is_device(*out);
	case CU_MEMORYTYPE_DEVICE: *out = device; return vm_is_device(device) || pinned(device);
	case CU_MEMORYTYPE_UNIFIED: *out = device; return true;
	default: return false;	/* arrays */
	}
}

bool copy_shape(const CUDA_MEMCPY3D *p, struct copy *c)
{
	uint64_t src, dst;

	if (p->srcLOD || p->dstLOD || !start_of(p->srcMemoryType, p->srcHost, p->srcDevice, &src) ||
	    !start_of(p->dstMemoryType, p->dstHost, p->dstDevice, &dst))
		return false;
	*c = (struct copy){ .width = p->WidthInBytes, .rows = p->Height, .layers = p->Depth };
	c->src.pitch = p->srcPitch ? p->srcPitch : p->WidthInBytes + p->srcXInBytes;
	c->dst.pitch = p->dstPitch ? p->dstPitch : p->WidthInBytes + p->dstXInBytes;
	c->src.height = p->srcHeight ? p->srcHeight : p->Height + p->srcY;
	c->dst.height = p->dstHeight ? p->dstHeight : p->Height + p->dstY;
	c->src.addr = src + (p->srcZ * c->src.height + p->srcY) * c->src.pitch + p->srcXInBytes;
	c->dst.addr = dst + (p->dstZ * c->dst.height + p->dstY) * c->dst.pitch + p->dstXInBytes;
	return true;
}

/* For nodes of graphs: CUDA_SUCCESS, and the work. */
CUresult copy_work(const CUDA_MEMCPY3D *p, struct work *w)
{
	CUresult r;

	memset(w, 0, sizeof(*w));
	w->kind = W_COPY;
	if (!p || !copy_shape(p, &w->u.copy.c))
		return CUDA_ERROR_INVALID_VALUE;
	w->u.copy.as = *p;
	r = check_side(&w->u.copy.c, &w->u.copy.c.src);
	return r ? r : check_side(&w->u.copy.c, &w->u.copy.c.dst);
}

static CUresult shaped(const CUDA_MEMCPY3D *p, CUstream h, bool async)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);
	struct copy c;

	if (!s)
		return r;
	if (!copy_shape(p, &c))
		return CUDA_ERROR_INVALID_VALUE;
	return submit(s, &c, p, async);
}

CUresult i_cuMemcpy3D_v2(const CUDA_MEMCPY3D *p)
{
	return p ? shaped(p, NULL, false) : CUDA_ERROR_INVALID_VALUE;
}

CUresult i_cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *p, CUstream s)
{
	return p ? shaped(p, s, true) : CUDA_ERROR_INVALID_VALUE;
}

static CUDA_MEMCPY3D of_peer(const CUDA_MEMCPY3D_PEER *p)
{
	return (CUDA_MEMCPY3D){
		.srcXInBytes = p->srcXInBytes, .srcY = p->srcY, .srcZ = p->srcZ,
		.srcLOD = p->srcLOD, .srcMemoryType = p->srcMemoryType, .srcHost = p->srcHost,
		.srcDevice = p->srcDevice, .srcPitch = p->srcPitch, .srcHeight = p->srcHeight,
		.dstXInBytes = p->dstXInBytes, .dstY = p->dstY, .dstZ = p->dstZ,
		.dstLOD = p->dstLOD, .dstMemoryType = p->dstMemoryType, .dstHost = p->dstHost,
		.dstDevice = p->dstDevice, .dstPitch = p->dstPitch, .dstHeight = p->dstHeight,
		.WidthInBytes = p->WidthInBytes, .Height = p->Height, .Depth = p->Depth,
	};
}

CUresult i_cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *p)
{
	CUDA_MEMCPY3D q;

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	q = of_peer(p);
	return shaped(&q, NULL, false);
}

CUresult i_cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *p, CUstream s)
{
	CUDA_MEMCPY3D q;

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	q = of_peer(p);
	return shaped(&q, s, true);
}

static CUDA_MEMCPY3D of_2d(const CUDA_MEMCPY2D *p)
{
	return (CUDA_MEMCPY3D){
		.srcXInBytes = p->srcXInBytes, .srcY = p->srcY, .srcMemoryType = p->srcMemoryType,
		.srcHost = p->srcHost, .srcDevice = p->srcDevice, .srcPitch = p->srcPitch,
		.dstXInBytes = p->dstXInBytes, .dstY = p->dstY, .dstMemoryType = p->dstMemoryType,
		.dstHost = p->dstHost, .dstDevice = p->dstDevice, .dstPitch = p->dstPitch,
		.WidthInBytes = p->WidthInBytes, .Height = p->Height, .Depth = 1,
	};
}

static CUresult flat(const CUDA_MEMCPY2D *p, CUstream s, bool async)
{
	CUDA_MEMCPY3D q;

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	q = of_2d(p);
	return shaped(&q, s, async);
}

CUresult i_cuMemcpy2D_v2(const CUDA_MEMCPY2D *p)
{
	return flat(p, NULL, false);
}

CUresult i_cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *p)
{
	return flat(p, NULL, false);
}

CUresult i_cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *p, CUstream s)
{
	return flat(p, s, true);
}

/* ---- batches ------------------------------------------------------------------ */

CUresult i_cuMemcpyBatchAsync_v2(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
				 CUmemcpyAttributes *attrs, size_t *indices, size_t n, CUstream h)
{
	if (!dsts || !srcs || !sizes || !count || !attrs || !indices || !n || n > count ||
	    indices[0])
		return CUDA_ERROR_INVALID_VALUE;
	if (!h && !emu_ptds)
		return CUDA_ERROR_INVALID_VALUE;	/* not on the legacy stream */
	for (size_t i = 0; i < count; i++) {
		CUresult r = linear(dsts[i], srcs[i], sizes[i], h, ANY, true);

		if (r)
			return r;
	}
	return CUDA_SUCCESS;
}

CUresult i_cuMemcpyBatchAsync(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
			      CUmemcpyAttributes *attrs, size_t *indices, size_t n, size_t *failed,
			      CUstream h)
{
	if (failed)
		*failed = SIZE_MAX;
	return i_cuMemcpyBatchAsync_v2(dsts, srcs, sizes, count, attrs, indices, n, h);
}

static bool operand(const CUmemcpy3DOperand *o, const CUextent3D *e, struct side *s)
{
	if (o->type != CU_MEMCPY_OPERAND_TYPE_POINTER)
		return false;
	s->addr = o->op.ptr.ptr;
	s->pitch = o->op.ptr.rowLength ? o->op.ptr.rowLength : e->width;
	s->height = o->op.ptr.layerHeight ? o->op.ptr.layerHeight : e->height;
	return true;
}

CUresult i_cuMemcpy3DBatchAsync_v2(size_t n, CUDA_MEMCPY3D_BATCH_OP *ops, unsigned long long flags,
				   CUstream h)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);

	if (!s || !ops || !n || flags || s->legacy)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n && !r; i++) {
		const CUextent3D *e = &ops[i].extent;
		struct copy c = { .width = e->width, .rows = e->height, .layers = e->depth };
		CUDA_MEMCPY3D as;

		if (!operand(&ops[i].src, e, &c.src) || !operand(&ops[i].dst, e, &c.dst))
			return CUDA_ERROR_INVALID_VALUE;
		as = said(&c);
		r = submit(s, &c, &as, true);
	}
	return r;
}

CUresult i_cuMemcpy3DBatchAsync(size_t n, CUDA_MEMCPY3D_BATCH_OP *ops, size_t *failed,
				unsigned long long flags, CUstream h)
{
	if (failed)
		*failed = SIZE_MAX;
	return i_cuMemcpy3DBatchAsync_v2(n, ops, flags, h);
}

/* ---- memsets ------------------------------------------------------------------ */

CUresult set_work(const CUDA_MEMSET_NODE_PARAMS_v2 *p, struct work *w)
{
	const uint64_t es = p->elementSize;

	memset(w, 0, sizeof(*w));
	w->kind = W_SET;
	w->u.set = *p;
	if ((es != 1 && es != 2 && es != 4) || p->dst % es ||
	    (p->height > 1 && (p->pitch % es || p->pitch < p->width * es)))
		return CUDA_ERROR_INVALID_VALUE;
	if (!p->width || !p->height)
		return CUDA_SUCCESS;
	if (!vm_is_device(p->dst))
		return pinned(p->dst) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	return vm_mapped(p->dst, (p->height - 1) * p->pitch + p->width * es) ?
		       CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult set(uint64_t dst, size_t pitch, unsigned value, unsigned es, size_t width,
		    size_t height, CUstream h, bool async)
{
	CUDA_MEMSET_NODE_PARAMS_v2 p = {
		.dst = dst, .pitch = pitch, .value = value, .elementSize = es,
		.width = width, .height = height,
	};
	struct work w;
	CUresult r;
	struct stream *s = stream_get(h, &r);

	if (!s)
		return r;
	r = set_work(&p, &w);
	if (r)
		return r;
	if (s->capture && !async)
		return capture_refuse(s);
	if (!width || !height)
		return CUDA_SUCCESS;
	if (!emu.opt.span && vmm_both(dst, (height - 1) * pitch + width * es))
		return CUDA_ERROR_INVALID_VALUE;
	r = stream_submit(s, &w);
	return r || async || vm_is_device(dst) ? r : stream_wait(s);
}

#define SET(name, type, es)                                                                   \
	CUresult i_cuMemset##name##_v2(CUdeviceptr dst, type v, size_t n)                     \
	{                                                                                     \
		return set(dst, n * (es), v, es, n, 1, NULL, false);                          \
	}                                                                                     \
	CUresult i_cuMemset##name##Async(CUdeviceptr dst, type v, size_t n, CUstream s)       \
	{                                                                                     \
		return set(dst, n * (es), v, es, n, 1, s, true);                              \
	}
SET(D8, unsigned char, 1)
SET(D16, unsigned short, 2)
SET(D32, unsigned int, 4)

#define SET2(name, type, es)                                                                  \
	CUresult i_cuMemset##name##_v2(CUdeviceptr dst, size_t pitch, type v, size_t width,   \
				       size_t height)                                         \
	{                                                                                     \
		return set(dst, pitch, v, es, width, height, NULL, false);                    \
	}                                                                                     \
	CUresult i_cuMemset##name##Async(CUdeviceptr dst, size_t pitch, type v, size_t width, \
					 size_t height, CUstream s)                           \
	{                                                                                     \
		return set(dst, pitch, v, es, width, height, s, true);                        \
	}
SET2(D2D8, unsigned char, 1)
SET2(D2D16, unsigned short, 2)
SET2(D2D32, unsigned int, 4)
