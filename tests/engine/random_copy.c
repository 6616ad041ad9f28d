/* SPDX-License-Identifier: MIT */
/* random_copy.c - copies and memsets, each by one of the calls that can do it.
 *
 * Owns nothing; lock: none, an operation's own thread's.
 * (1) Bit 0 of `how`: the call that takes no stream. Bits 1 and up: which of several.
 */
#include "tests/engine/random.h"

#include <stdlib.h>

int op_is_sync(const struct op *o)
{
	switch (o->kind) {
	case OP_COPY: case OP_COPY2D: case OP_COPY3D: case OP_SET: case OP_SET2D:
		return o->how & 1;
	case OP_ALLOC:
		return o->a & 1;
	default:
		return 0;
	}
}

/* ---- boxes ----------------------------------------------------------------------- */

enum place { AT_HOST, AT_DEVICE, AT_UNIFIED };

/* Pageable memory is the host's; what the device reaches may go by either name. */
static enum place place_of(const struct buf *b, int how)
{
	if (!b->addr)
		return AT_HOST;
	if (how & 4)
		return AT_UNIFIED;
	return b->family >= FAM_HOST ? AT_HOST : AT_DEVICE;
}

static CUmemorytype type_of(enum place p)
{
	return p == AT_HOST ? CU_MEMORYTYPE_HOST
	     : p == AT_DEVICE ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_UNIFIED;
}

static size_t pitch_of(const struct buf *b, const struct side *e)
{
	return b->family == FAM_PITCH ? b->pitch : e->pitch;
}

static CUDA_MEMCPY2D box2d(struct world *w, const struct op *o)
{
	const struct buf *d = &w->buf[o->d.buf], *s = &w->buf[o->s.buf];
	enum place dp = place_of(d, o->how), sp = place_of(s, o->how);

	return (CUDA_MEMCPY2D){
		.dstMemoryType = type_of(dp), .srcMemoryType = type_of(sp),
		.dstHost = dp == AT_HOST ? d->host : NULL,
		.srcHost = sp == AT_HOST ? s->host : NULL,
		.dstDevice = dp == AT_HOST ? 0 : mem_at(d, 0, o->how),
		.srcDevice = sp == AT_HOST ? 0 : mem_at(s, 0, o->how),
		.dstPitch = pitch_of(d, &o->d), .srcPitch = pitch_of(s, &o->s),
		.dstXInBytes = o->d.x, .dstY = o->d.y,
		.srcXInBytes = o->s.x, .srcY = o->s.y,
		.WidthInBytes = o->w, .Height = o->h,
	};
}

void do_copy2d(struct world *w, const struct op *o, CUstream s)
{
	CUDA_MEMCPY2D c = box2d(w, o);

	if (!(o->how & 1))
		ck(cuMemcpy2DAsync_v2(&c, s));
	else if (o->how & 2)
		ck(cuMemcpy2D_v2(&c));
	else
		ck(cuMemcpy2DUnaligned_v2(&c));
}

void do_copy3d(struct world *w, const struct op *o, CUstream s)
{
	CUDA_MEMCPY2D b = box2d(w, o);
	CUDA_MEMCPY3D c = {
		.dstMemoryType = b.dstMemoryType, .srcMemoryType = b.srcMemoryType,
		.dstHost = b.dstHost, .srcHost = b.srcHost,
		.dstDevice = b.dstDevice, .srcDevice = b.srcDevice,
		.dstPitch = b.dstPitch, .srcPitch = b.srcPitch,
		.dstHeight = o->d.height, .srcHeight = o->s.height,
		.dstXInBytes = o->d.x, .dstY = o->d.y, .dstZ = o->d.z,
		.srcXInBytes = o->s.x, .srcY = o->s.y, .srcZ = o->s.z,
		.WidthInBytes = o->w, .Height = o->h, .Depth = o->depth,
	};

	if (o->how & 1)
		ck(cuMemcpy3D_v2(&c));
	else
		ck(cuMemcpy3DAsync_v2(&c, s));
}

/* ---- 1D -------------------------------------------------------------------------- */

static void between_devices(struct world *w, const struct op *o, CUdeviceptr to,
			    CUdeviceptr from, CUstream s)
{
	CUcontext d = w->ctx[w->buf[o->d.buf].dev], c = w->ctx[w->buf[o->s.buf].dev];
	CUDA_MEMCPY3D_PEER p = {
		.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = from,
		.srcContext = c, .srcPitch = o->w, .srcHeight = 1,
		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = to,
		.dstContext = d, .dstPitch = o->w, .dstHeight = 1,
		.WidthInBytes = o->w, .Height = 1, .Depth = 1,
	};

	if (o->how & 2) {
		if (o->how & 1)
			ck(cuMemcpy3DPeer(&p));
		else
			ck(cuMemcpy3DPeerAsync(&p, s));
	} else if (o->how & 1) {
		ck(cuMemcpyPeer(to, d, from, c, o->w));
	} else {
		ck(cuMemcpyPeerAsync(to, d, from, c, o->w, s));
	}
}

/* Neither is device memory, and one may be pageable: by a box of one row. */
static void between_hosts(const struct op *o, void *to, const void *from, CUstream s)
{
	CUDA_MEMCPY2D c = {
		.dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = to, .dstPitch = o->w,
		.srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = from, .srcPitch = o->w,
		.WidthInBytes = o->w, .Height = 1,
	};

	if (o->how & 1)
		ck(cuMemcpy2D_v2(&c));
	else
		ck(cuMemcpy2DAsync_v2(&c, s));
}

static void by_address(const struct op *o, CUdeviceptr to, CUdeviceptr from, CUstream s)
{
	if (o->how & 1)
		ck(cuMemcpy(to, from, o->w));
	else
		ck(cuMemcpyAsync(to, from, o->w, s));
}

static void by_kind(const struct op *o, const struct buf *d, const struct buf *b,
		    CUdeviceptr to, CUdeviceptr from, CUstream s)
{
	char *hd = d->family >= FAM_HOST ? (char *)d->host + o->d.off : NULL;
	const char *hs = b->family >= FAM_HOST ? (const char *)b->host + o->s.off : NULL;

	if (hd && hs)
		between_hosts(o, hd, hs, s);
	else if (hd && o->how & 1)
		ck(cuMemcpyDtoH_v2(hd, from, o->w));
	else if (hd)
		ck(cuMemcpyDtoHAsync_v2(hd, from, o->w, s));
	else if (hs && o->how & 1)
		ck(cuMemcpyHtoD_v2(to, hs, o->w));
	else if (hs)
		ck(cuMemcpyHtoDAsync_v2(to, hs, o->w, s));
	else if (o->how & 1)
		ck(cuMemcpyDtoD_v2(to, from, o->w));
	else
		ck(cuMemcpyDtoDAsync_v2(to, from, o->w, s));
}

/* In two parts; the default streams may not. */
static int in_batch(const struct op *o, CUdeviceptr to, CUdeviceptr from, CUstream s)
{
	size_t half = o->w / 2, attr_at = 0, failed;
	CUdeviceptr d[2] = { to, to + half }, f[2] = { from, from + half };
	CUmemcpyAttributes attr = {
		.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM,
	};
	size_t n[2] = { half, o->w - half };

	if (!drv.cuMemcpyBatchAsync || !half || o->how & 1 || !s ||
	    s == CU_STREAM_LEGACY || s == CU_STREAM_PER_THREAD)
		return 0;
	ck(cuMemcpyBatchAsync(d, f, n, 2, &attr, &attr_at, 1, &failed, s));
	return 1;
}

void do_copy(struct world *w, const struct op *o, CUstream s)
{
	const struct buf *d = &w->buf[o->d.buf], *b = &w->buf[o->s.buf];
	CUdeviceptr to = d->addr ? mem_at(d, o->d.off, o->how) : 0;
	CUdeviceptr from = b->addr ? mem_at(b, o->s.off, o->how) : 0;

	if (d->family < FAM_HOST && b->family < FAM_HOST && d->dev != b->dev)
		between_devices(w, o, to, from, s);
	else if (o->graph != -2 && to && from && (o->how & 0x18) == 0x18 &&
		 in_batch(o, to, from, s))
		return;
	else if (to && from && o->how & 8)
		by_address(o, to, from, s);
	else
		by_kind(o, d, b, to, from, s);
}

/* ---- memsets --------------------------------------------------------------------- */

/* To the host or back: no byte changes. Not every device can. */
static void prefetch(const struct op *o, CUdeviceptr p, CUstream s)
{
	CUresult err;

	if (!drv.cuMemPrefetchAsync)
		return;
	err = drv.cuMemPrefetchAsync(p, o->w, o->how & 2 ? o->dev : CU_DEVICE_CPU, s);
	if (err != CUDA_ERROR_INVALID_DEVICE && err != CUDA_ERROR_NOT_SUPPORTED)
		driver_check(err, "cuMemPrefetchAsync", __FILE__, __LINE__);
}

void do_set(struct world *w, const struct op *o, CUstream s)
{
	const struct buf *b = &w->buf[o->d.buf];
	CUdeviceptr p = mem_at(b, o->d.off, o->how);
	int async = !(o->how & 1);

	if (o->elem == 1 && async)
		ck(cuMemsetD8Async(p, (unsigned char)o->a, o->w, s));
	else if (o->elem == 1)
		ck(cuMemsetD8_v2(p, (unsigned char)o->a, o->w));
	else if (o->elem == 2 && async)
		ck(cuMemsetD16Async(p, (unsigned short)o->a, o->w / 2, s));
	else if (o->elem == 2)
		ck(cuMemsetD16_v2(p, (unsigned short)o->a, o->w / 2));
	else if (async)
		ck(cuMemsetD32Async(p, o->a, o->w / 4, s));
	else
		ck(cuMemsetD32_v2(p, o->a, o->w / 4));
	if (async && o->graph != -2 && b->family == FAM_MANAGED)
		prefetch(o, p, s);
}

void do_set2d(struct world *w, const struct op *o, CUstream s)
{
	const struct buf *b = &w->buf[o->d.buf];
	CUdeviceptr p = mem_at(b, o->d.off, o->how);
	size_t pitch = pitch_of(b, &o->d);
	int async = !(o->how & 1);

	if (o->elem == 1 && async)
		ck(cuMemsetD2D8Async(p, pitch, (unsigned char)o->a, o->w, o->h, s));
	else if (o->elem == 1)
		ck(cuMemsetD2D8_v2(p, pitch, (unsigned char)o->a, o->w, o->h));
	else if (async)
		ck(cuMemsetD2D32Async(p, pitch, o->a, o->w / 4, o->h, s));
	else
		ck(cuMemsetD2D32_v2(p, pitch, o->a, o->w / 4, o->h));
}
