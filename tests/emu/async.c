/* SPDX-License-Identifier: MIT */
/* async.c - stream-ordered memory and its pools (E9).
 *
 *   allocated, not live --its allocation runs--> live --its free runs--> gone
 *
 * Owns pools. (1) Memory counts from the call that allocates it until the free has run: a
 * call for which there is none left waits for queued frees. (2) A free by another stream
 * is fine where that is ordered behind every use: what can still reach it breaks E1.
 * Lock: the emulator's.
 */
#include "tests/emu/emu.h"

static struct pool *pool_new(int device, const CUmemPoolProps *props)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p)
		abort();
	p->device = device;
	p->props = *props;
	p->max = props->maxSize;
	p->opt[0] = p->opt[1] = p->opt[2] = 1;
	p->handle = obj_new(K_POOL, p);
	return p;
}

struct pool *pool_default(int device)
{
	struct device *d = &emu.dev[device];

	if (!d->default_pool) {
		CUmemPoolProps props = {
			.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
			.location = { CU_MEM_LOCATION_TYPE_DEVICE, device },
		};

		d->default_pool = pool_new(device, &props);
		d->pool = d->default_pool;
	}
	return d->default_pool;
}

static struct pool *pool_of(CUmemoryPool h)
{
	return obj_get(K_POOL, (uintptr_t)h);
}

static bool freeing_somewhere(void)
{
	for (const struct stream *s = stream_first(); s; s = s->next)
		for (const struct op *op = s->head; op; op = op->next)
			if (op->w.kind == W_FREE || op->w.kind == W_GRAPH)
				return true;
	return false;
}

static void wait_for_free(void)
{
	for (struct stream *s = stream_first(); s; s = s->next)
		for (struct op *op = s->head; op; op = op->next)
			if (op->w.kind == W_FREE || op->w.kind == W_GRAPH) {
				op_wait(op);
				return;
			}
}

CUresult async_alloc(struct pool *p, uint64_t size, struct ctx *c, struct range **out)
{
	struct range *r;
	CUresult err;

	if (!size)
		return CUDA_ERROR_INVALID_VALUE;
	if (size > emu.opt.vram)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r = vm_reserve(round_up(size, EMU_PAGE), EMU_PAGE, 0, R_ASYNC);
	if (!r)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r->asked = size;
	r->ctx = c;
	r->pool = p;
	while ((err = vm_back(r, p->device)) && freeing_somewhere())
		wait_for_free();
	if (!err && p->max && p->used + r->size > p->max) {
		vm_unback(r);
		err = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (err) {
		vm_forget(r);
		return err;
	}
	p->used += r->size;
	if (p->used > p->used_high)
		p->used_high = p->used;
	*out = r;
	return CUDA_SUCCESS;
}

void async_live(struct range *r)
{
	vm_show(r);
}

void async_end(struct range *r)
{
	r->freeing = false;
	if (r->graphs) {
		vm_hide(r);
		return;
	}
	r->pool->used -= r->size;
	vm_unback(r);
	vm_forget(r);
}

void async_graph(struct work *w)
{
	w->u.memory.range = vm_find(w->u.memory.addr);
	if (w->u.memory.range)
		w->u.memory.range->graphs++;
}

/* What was never freed is the program's, and goes when it frees it. */
void async_graph_end(struct range *r)
{
	if (--r->graphs)
		return;
	if (!r->ctx)
		vm_forget(r);
	else if (!r->live)
		async_end(r);
}

bool async_orphan(struct range *r)
{
	r->pool->used -= r->size;
	vm_unback(r);
	if (!r->graphs) {
		vm_forget(r);
		return false;
	}
	r->ctx = NULL;	/* graphs outlive their context: its address stays taken */
	r->freeing = true;
	return true;
}

/* ---- allocating --------------------------------------------------------------- */

static CUresult alloc(CUdeviceptr *out, size_t size, struct pool *p, CUstream h)
{
	struct work w = { .kind = W_ALLOC };
	CUresult r;
	struct stream *s = stream_get(h, &r);
	struct range *range;

	if (!s || !out || !p)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	r = async_alloc(p, size, s->ctx, &range);
	if (r)
		return r;
	*out = range->addr;
	w.u.memory.addr = range->addr;
	w.u.memory.as.poolProps = p->props;
	w.u.memory.as.bytesize = size;
	w.u.memory.as.dptr = range->addr;
	return stream_submit(s, &w);
}

CUresult i_cuMemAllocAsync(CUdeviceptr *out, size_t size, CUstream h)
{
	const struct ctx *c = ctx_current();

	if (!c)
		return CUDA_ERROR_INVALID_CONTEXT;
	pool_default(c->device);
	return alloc(out, size, emu.dev[c->device].pool, h);
}

CUresult i_cuMemAllocFromPoolAsync(CUdeviceptr *out, size_t size, CUmemoryPool pool, CUstream h)
{
	return alloc(out, size, pool_of(pool), h);
}

CUresult i_cuMemFreeAsync(CUdeviceptr ptr, CUstream h)
{
	struct work w = { .kind = W_FREE };
	CUresult r;
	struct stream *s = stream_get(h, &r);
	struct range *range = vm_find(ptr);

	if (!s)
		return r;
	if (range && range->kind == R_ALLOC && range->addr == ptr && !s->capture)
		return CUDA_ERROR_INVALID_VALUE;	/* strict: allocated by cuMemAlloc */
	if (!range || range->kind != R_ASYNC || range->addr != ptr || range->freeing)
		return CUDA_ERROR_INVALID_VALUE;
	if (!s->capture)
		range->freeing = true;
	w.u.memory.addr = ptr;
	return stream_submit(s, &w);
}

/* ---- pools -------------------------------------------------------------------- */

CUresult i_cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *props)
{
	if (!out || !props || props->allocType != CU_MEM_ALLOCATION_TYPE_PINNED)
		return CUDA_ERROR_INVALID_VALUE;
	if (props->location.type != CU_MEM_LOCATION_TYPE_DEVICE || props->handleTypes)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (!device_ok(props->location.id))
		return CUDA_ERROR_INVALID_DEVICE;
	*out = (CUmemoryPool)pool_new(props->location.id, props)->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuMemPoolDestroy(CUmemoryPool h)
{
	const struct pool *p = pool_of(h);
	struct device *d;

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	d = &emu.dev[p->device];
	if (p == d->default_pool)
		return CUDA_ERROR_INVALID_VALUE;
	if (p == d->pool)
		d->pool = d->default_pool;
	obj_end(p->handle);	/* its memory lives on */
	return CUDA_SUCCESS;
}

CUresult i_cuMemPoolTrimTo(CUmemoryPool h, size_t keep)
{
	return pool_of(h) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static int *option(struct pool *p, CUmemPool_attribute a)
{
	switch (a) {
	case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES: return &p->opt[0];
	case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC: return &p->opt[1];
	case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES: return &p->opt[2];
	default: return NULL;
	}
}

CUresult i_cuMemPoolSetAttribute(CUmemoryPool h, CUmemPool_attribute a, void *value)
{
	struct pool *p = pool_of(h);

	if (!p || !value)
		return CUDA_ERROR_INVALID_VALUE;
	if (option(p, a))
		*option(p, a) = *(int *)value;
	else if (a == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
		p->threshold = *(cuuint64_t *)value;
	else if ((a == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH || a == CU_MEMPOOL_ATTR_USED_MEM_HIGH) &&
		 !*(cuuint64_t *)value)
		p->used_high = p->used;
	else
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

CUresult i_cuMemPoolGetAttribute(CUmemoryPool h, CUmemPool_attribute a, void *value)
{
	struct pool *p = pool_of(h);

	if (!p || !value)
		return CUDA_ERROR_INVALID_VALUE;
	if (option(p, a)) {
		*(int *)value = *option(p, a);
		return CUDA_SUCCESS;
	}
	switch (a) {
	case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: *(cuuint64_t *)value = p->threshold; break;
	case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
	case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: *(cuuint64_t *)value = p->used; break;
	case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
	case CU_MEMPOOL_ATTR_USED_MEM_HIGH: *(cuuint64_t *)value = p->used_high; break;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

CUresult i_cuMemPoolSetAccess(CUmemoryPool h, const CUmemAccessDesc *desc, size_t n)
{
	if (!pool_of(h) || !desc || !n)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n; i++)
		if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
		    !device_ok(desc[i].location.id))
			return CUDA_ERROR_INVALID_DEVICE;
	return CUDA_SUCCESS;
}

CUresult i_cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool h, CUmemLocation *where)
{
	const struct pool *p = pool_of(h);

	if (!p || !flags || !where || where->type != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = where->id == p->device ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE :
					  CU_MEM_ACCESS_FLAGS_PROT_NONE;
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceGetDefaultMemPool(CUmemoryPool *out, CUdevice device)
{
	if (!out || !device_ok(device))
		return out ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE;
	*out = (CUmemoryPool)pool_default(device)->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceGetMemPool(CUmemoryPool *out, CUdevice device)
{
	if (!out || !device_ok(device))
		return out ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE;
	pool_default(device);
	*out = (CUmemoryPool)emu.dev[device].pool->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceSetMemPool(CUdevice device, CUmemoryPool h)
{
	struct pool *p = pool_of(h);

	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	if (!p || p->device != device)
		return CUDA_ERROR_INVALID_VALUE;
	pool_default(device);
	emu.dev[device].pool = p;
	return CUDA_SUCCESS;
}
