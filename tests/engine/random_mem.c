/* SPDX-License-Identifier: MIT */
/* random_mem.c - memory of every family comes, moves and goes.
 *
 *   alloc: had, and filled with first bytes (by a copy or a memset; by the host)
 *   move:  VMM only: unmapped where it is, mapped elsewhere, contents kept
 *   free:  given back by the call that its family wants
 *
 * Owns what a buffer's fields name; lock: none, an operation's own thread's.
 * (1) Whatever the granularity is, the model's bytes are the plan's: the rest of a
 *     mapping is not looked at.
 */
#include "tests/engine/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static CUmemAllocationProp prop_of(int dev)
{
	return (CUmemAllocationProp){
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, dev },
	};
}

CUdeviceptr mem_at(const struct buf *b, size_t off, int how)
{
	CUdeviceptr base = b->alias && how & 0x80 ? b->alias : b->addr;

	return base + off / b->width * (b->family == FAM_PITCH ? b->pitch : b->width) +
	       off % b->width;
}

/* ---- mappings of our own --------------------------------------------------------- */

static CUdeviceptr map(const struct buf *b)
{
	CUmemAccessDesc access = { prop_of(b->dev).location,
				   CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	size_t all = b->granule * (size_t)b->granules;
	CUdeviceptr at;

	ck(cuMemAddressReserve(&at, all, 0, 0, 0));
	for (int i = 0; i < b->granules; i++)
		ck(cuMemMap(at + (size_t)i * b->granule, b->granule, 0, b->handle[i], 0));
	ck(cuMemSetAccess(at, all, &access, 1));
	return at;
}

static void unmap(const struct buf *b, CUdeviceptr at)
{
	for (int i = 0; i < b->granules; i++)
		ck(cuMemUnmap(at + (size_t)i * b->granule, b->granule));
	ck(cuMemAddressFree(at, b->granule * (size_t)b->granules));
}

/* As many granules as the bytes need, in GRANULES_MAX handles at most. */
static void create(struct buf *b, int how)
{
	CUmemAllocationProp prop = prop_of(b->dev);
	size_t g, n;

	ck(cuMemGetAllocationGranularity(&g, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
	n = (b->bytes + g - 1) / g;
	b->granule = (n + GRANULES_MAX - 1) / GRANULES_MAX * g;
	b->granules = (int)((n * g + b->granule - 1) / b->granule);
	for (int i = 0; i < b->granules; i++)
		ck(cuMemCreate(&b->handle[i], b->granule, &prop, 0));
	b->addr = map(b);
	b->alias = how & 2 ? map(b) : 0;
}

static void destroy(struct buf *b)
{
	unmap(b, b->addr);
	if (b->alias)
		unmap(b, b->alias);
	for (int i = 0; i < b->granules; i++)
		ck(cuMemRelease(b->handle[i]));
}

void mem_move(struct world *w, const struct op *o)
{
	struct buf *b = &w->buf[o->d.buf];

	if (o->how & 1) {		/* gone first, its handles keep the bytes */
		unmap(b, b->addr);
		b->addr = map(b);
	} else {
		CUdeviceptr old = b->addr;

		b->addr = map(b);
		unmap(b, old);
	}
}

/* ---- alloc ----------------------------------------------------------------------- */

static void register_host(struct buf *b)
{
	size_t n = (b->bytes + 4095) & ~(size_t)4095;

	b->host = aligned_alloc(4096, n);
	if (!b->host)
		abort();
	ck(cuMemHostRegister_v2(b->host, n, CU_MEMHOSTREGISTER_PORTABLE |
				CU_MEMHOSTREGISTER_DEVICEMAP));
	ck(cuMemHostGetDevicePointer_v2(&b->addr, b->host, 0));
}

static void get(struct world *w, struct buf *b, int how, CUstream s)
{
	switch (b->family) {
	case FAM_ALLOC:
		ck(cuMemAlloc_v2(&b->addr, b->bytes));
		break;
	case FAM_PITCH:
		ck(cuMemAllocPitch_v2(&b->addr, &b->pitch, b->width,
				      b->bytes / b->width, 4));
		break;
	case FAM_ASYNC:
		ck(cuMemAllocAsync(&b->addr, b->bytes, s));
		break;
	case FAM_POOL:
		ck(cuMemAllocFromPoolAsync(&b->addr, b->bytes, w->pool[b->dev], s));
		break;
	case FAM_MANAGED:
		ck(cuMemAllocManaged(&b->addr, b->bytes, CU_MEM_ATTACH_GLOBAL));
		b->host = (void *)(uintptr_t)b->addr;
		break;
	case FAM_VMM:
		create(b, how);
		break;
	case FAM_PINNED:
		if (how & 4)
			ck(cuMemAllocHost_v2(&b->host, b->bytes));
		else
			ck(cuMemHostAlloc(&b->host, b->bytes, CU_MEMHOSTALLOC_PORTABLE |
					  CU_MEMHOSTALLOC_DEVICEMAP));
		ck(cuMemHostGetDevicePointer_v2(&b->addr, b->host, 0));
		break;
	case FAM_REGISTERED:
		register_host(b);
		break;
	default:
		b->host = malloc(b->bytes);
		if (!b->host)
			abort();
	}
}

/* Of one of the three families that op_is_sync knows. */
static void upload(const struct buf *b, uint32_t a)
{
	size_t part = b->bytes / 3 + 1;
	uint8_t *from = malloc(b->bytes);

	if (!from)
		abort();
	for (size_t i = 0; i < b->bytes; i++)
		from[i] = first_byte(a, i);
	for (size_t at = 0; at < b->bytes; at += part)
		ck(cuMemcpyHtoD_v2(b->addr + at, from + at,
				   b->bytes - at < part ? b->bytes - at : part));
	free(from);
}

/* A pattern of words, or one byte; width is a multiple of 4. */
static void fill(struct world *w, const struct op *o, const struct buf *b, CUstream s)
{
	uint8_t *h = b->host;

	if (b->family >= FAM_HOST) {
		for (size_t i = 0; i < b->bytes; i++)
			h[i] = first_byte(o->a, i);
	} else if (op_is_sync(o)) {
		upload(b, o->a);
	} else if (b->family == FAM_PITCH) {
		ck(cuMemsetD2D8Async(b->addr, b->pitch, first_byte(o->a, 0), b->width,
				     b->bytes / b->width, s));
	} else {
		ck(cuMemsetD8Async(b->addr, first_byte(o->a, 0), b->bytes, s));
	}
}

void mem_alloc(struct world *w, struct op *o, CUstream s)
{
	struct buf *b = &w->buf[o->d.buf];

	get(w, b, o->how, s);
	fill(w, o, b, s);
	o->has_event = b->family < FAM_HOST;
}

/* ---- free ------------------------------------------------------------------------ */

int free_is_async(const struct buf *b, const struct op *o)
{
	return (b->family == FAM_ASYNC || b->family == FAM_POOL) && o->how & 6;
}

void mem_free(struct world *w, const struct op *o, CUstream s)
{
	struct buf *b = &w->buf[o->d.buf];

	switch (b->family) {
	case FAM_ASYNC: case FAM_POOL:
		if (free_is_async(b, o))
			ck(cuMemFreeAsync(b->addr, s));
		else
			ck(cuMemFree_v2(b->addr));
		break;
	case FAM_VMM:
		destroy(b);
		break;
	case FAM_PINNED:
		ck(cuMemFreeHost(b->host));
		break;
	case FAM_REGISTERED:
		ck(cuMemHostUnregister(b->host));
		free(b->host);
		break;
	case FAM_PAGEABLE:
		free(b->host);
		break;
	default:
		ck(cuMemFree_v2(b->addr));
	}
}
