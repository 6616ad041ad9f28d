/* SPDX-License-Identifier: MIT */
/* load.c - device, module, memory, and the weights on their way into it.
 *
 *   file mapping --memcpy--> two pinned buffers --async copies--> device
 *   file mapping --------- copies from pageable memory ---------> device
 *
 * Owns the list of allocations and the two pinned buffers while loading.
 * (1) A pinned buffer is filled again only when the copy out of it is done.
 * Lock: none.
 */
#include "tests/engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN	256u

/* What the weights lie in. */
static struct {
	CUdeviceptr base;
	size_t bytes, granule;
	CUmemGenericAllocationHandle *handle;
} whole;

static size_t padded(size_t n)
{
	return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

static size_t weight_bytes(const struct model *m)
{
	size_t n = 0;

	for (int i = 0; i < m->n; i++)
		n += padded(m->t[i].bytes);
	return n;
}

static CUdeviceptr device_alloc(size_t bytes)
{
	CUdeviceptr p;

	ck(cuMemAlloc_v2(&p, bytes));
	return p;
}

static CUdeviceptr floats(long n)
{
	return device_alloc((size_t)n * sizeof(float));
}

/* ---- where weights lie --------------------------------------------------------- */

static CUdeviceptr map_granules(struct gpu *g)
{
	CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, g->device },
	};
	CUmemAccessDesc access = { prop.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	size_t n;

	if (!drv.cuMemMap)
		die("the driver has no cuMemMap");
	ck(cuMemGetAllocationGranularity(&whole.granule, &prop,
					 CU_MEM_ALLOC_GRANULARITY_MINIMUM));
	n = (whole.bytes + whole.granule - 1) / whole.granule;
	whole.bytes = n * whole.granule;
	whole.handle = calloc(n, sizeof(*whole.handle));
	if (!whole.handle)
		die("out of memory");
	ck(cuMemAddressReserve(&whole.base, whole.bytes, 0, 0, 0));
	for (size_t i = 0; i < n; i++) {
		ck(cuMemCreate(&whole.handle[i], whole.granule, &prop, 0));
		ck(cuMemMap(whole.base + i * whole.granule, whole.granule, 0,
			    whole.handle[i], 0));
	}
	ck(cuMemSetAccess(whole.base, whole.bytes, &access, 1));
	return whole.base;
}

static void unmap_granules(void)
{
	for (size_t i = 0; i * whole.granule < whole.bytes; i++) {
		ck(cuMemUnmap(whole.base + i * whole.granule, whole.granule));
		ck(cuMemRelease(whole.handle[i]));
	}
	ck(cuMemAddressFree(whole.base, whole.bytes));
	free(whole.handle);
}

static CUdeviceptr place_one(struct gpu *g, size_t bytes)
{
	CUdeviceptr p = 0;

	switch (g->c->alloc) {
	case ALLOC_ASYNC:
		if (!drv.cuMemAllocAsync)
			die("the driver has no cuMemAllocAsync");
		ck(cuMemAllocAsync(&p, bytes, g->lane[0].stream));
		break;
	case ALLOC_MANAGED:
		ck(cuMemAllocManaged(&p, bytes, CU_MEM_ATTACH_GLOBAL));
		break;
	default:
		p = device_alloc(bytes);
	}
	return p;
}

static void place_weights(struct gpu *g)
{
	CUdeviceptr next = 0;

	whole.bytes = weight_bytes(g->m);
	g->weight = calloc((size_t)g->m->n, sizeof(*g->weight));
	if (!g->weight)
		die("out of memory");
	if (g->c->alloc == ALLOC_VMM)
		next = map_granules(g);
	else if (g->c->alloc == ALLOC_ONE)
		next = whole.base = device_alloc(whole.bytes);
	for (int i = 0; i < g->m->n; i++) {
		g->weight[i] = next ? next : place_one(g, g->m->t[i].bytes);
		if (next)
			next += padded(g->m->t[i].bytes);
	}
}

static void free_weights(struct gpu *g)
{
	if (g->c->alloc == ALLOC_VMM)
		unmap_granules();
	else if (g->c->alloc == ALLOC_ONE)
		ck(cuMemFree_v2(whole.base));
	else
		for (int i = 0; i < g->m->n; i++)
			if (g->c->alloc == ALLOC_ASYNC)
				ck(cuMemFreeAsync(g->weight[i], g->lane[0].stream));
			else
				ck(cuMemFree_v2(g->weight[i]));
}

/* ---- how they get there -------------------------------------------------------- */

struct pump {
	char *buf[2];
	CUevent done[2];
	int next;
};

static void pump_open(struct pump *p, size_t chunk)
{
	*p = (struct pump){ .next = 0 };
	for (int i = 0; i < 2; i++) {
		ck(cuMemHostAlloc((void **)&p->buf[i], chunk, 0));
		ck(cuEventCreate(&p->done[i], CU_EVENT_DISABLE_TIMING));
	}
}

static void pump_close(struct pump *p)
{
	for (int i = 0; i < 2; i++) {
		ck(cuEventDestroy_v2(p->done[i]));
		ck(cuMemFreeHost(p->buf[i]));
	}
}

static void pump_chunk(struct gpu *g, struct pump *p, CUdeviceptr to,
		       const char *from, size_t n)
{
	int i = p->next;

	p->next = !i;
	if (!g->broken)
		ck(cuEventSynchronize(p->done[i]));	/* (1) */
	memcpy(p->buf[i], from, n);
	ck(cuMemcpyHtoDAsync_v2(to, p->buf[i], n, g->lane[0].stream));
	ck(cuEventRecord(p->done[i], g->lane[0].stream));
}

static void send(struct gpu *g, struct pump *p, CUdeviceptr to,
		 const struct tensor *t)
{
	for (size_t at = 0; at < t->bytes; at += g->c->chunk) {
		const char *from = (const char *)t->data + at;
		size_t n = t->bytes - at < g->c->chunk ? t->bytes - at : g->c->chunk;

		if (g->c->load == LOAD_PINNED)
			pump_chunk(g, p, to + at, from, n);
		else if (g->c->load == LOAD_ASYNC)
			ck(cuMemcpyHtoDAsync_v2(to + at, from, n, g->lane[0].stream));
		else
			ck(cuMemcpyHtoD_v2(to + at, from, n));
	}
}

static void send_weights(struct gpu *g)
{
	struct pump p;

	if (g->c->load == LOAD_PINNED)
		pump_open(&p, g->c->chunk);
	if (g->c->alloc == ALLOC_ASYNC)		/* they are there only then */
		ck(cuStreamSynchronize(g->lane[0].stream));
	for (int i = 0; i < g->m->n; i++)
		send(g, &p, g->weight[i], &g->m->t[i]);
	ck(cuStreamSynchronize(g->lane[0].stream));
	if (g->c->load == LOAD_PINNED)
		pump_close(&p);
	g->table = device_alloc((size_t)g->m->n * sizeof(CUdeviceptr));
	ck(cuMemcpyHtoD_v2(g->table, g->weight, (size_t)g->m->n * sizeof(CUdeviceptr)));
}

/* ---- the rest ------------------------------------------------------------------ */

static void make_activations(struct gpu *g)
{
	const struct model *m = g->m;
	long n = (long)g->c->batch, q = (long)m->heads * m->head_dim;
	long kv = (long)m->kv_heads * m->head_dim;
	float *turns = model_turns(m, g->ctx_len);

	g->keys = floats(m->layers * kv * g->ctx_len);
	g->values = floats(m->layers * kv * g->ctx_len);
	g->turns = floats((long)g->ctx_len * m->head_dim);
	ck(cuMemcpyHtoD_v2(g->turns, turns,
			   (size_t)g->ctx_len * (size_t)m->head_dim * sizeof(float)));
	free(turns);
	g->x = floats(n * m->dim);
	g->y = floats(n * m->dim);
	g->q = floats(n * q);
	g->k = floats(n * kv);
	g->v = floats(n * kv);
	g->att = floats(n * q);
	g->gate = floats(n * m->ff);
	g->up = floats(n * m->ff);
	g->logits = floats(m->vocab);
	g->state = floats(n + 1);
	ck(cuMemHostAlloc((void **)&g->host_logits, (size_t)m->vocab * sizeof(float), 0));
	ck(cuMemAllocHost_v2((void **)&g->host_state, (size_t)(n + 1) * sizeof(int)));
}

static void load_kernels(struct gpu *g)
{
	g->module = module_beside("engine.ptx");
	for (int k = 0; k < KERNELS; k++)
		ck(cuModuleGetFunction(&g->f[k], g->module, kernel_name[k]));
}

static void make_lanes(struct gpu *g)
{
	for (int i = 0; i < LANES_MAX; i++) {
		ck(cuStreamCreate(&g->lane[i].stream, CU_STREAM_NON_BLOCKING));
		ck(cuEventCreate(&g->join[i], CU_EVENT_DISABLE_TIMING));
	}
	ck(cuEventCreate(&g->fork, CU_EVENT_DISABLE_TIMING));
}

void gpu_open(struct gpu *g, const struct model *m, const struct conf *c,
	      int ctx_len)
{
	const char *fault = getenv("TEST_BREAK");

	*g = (struct gpu){ .m = m, .c = c, .ctx_len = ctx_len };
	g->broken = fault && *fault;
	driver_open((enum driver_api)c->api);
	ck(cuDeviceGet(&g->device, 0));
	ck(cuDevicePrimaryCtxRetain(&g->ctx, g->device));
	ck(cuCtxSetCurrent(g->ctx));
	load_kernels(g);
	make_lanes(g);
	place_weights(g);
	send_weights(g);
	make_activations(g);
	ck(cuCtxSynchronize());
}

void gpu_close(struct gpu *g)
{
	const CUdeviceptr all[] = {
		g->table, g->keys, g->values, g->turns, g->x, g->y, g->q, g->k,
		g->v, g->att, g->gate, g->up, g->logits, g->state,
	};

	graph_close(g);
	free_weights(g);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		ck(cuMemFree_v2(all[i]));
	ck(cuMemFreeHost(g->host_logits));
	ck(cuMemFreeHost(g->host_state));
	ck(cuEventDestroy_v2(g->fork));
	for (int i = 0; i < LANES_MAX; i++) {
		ck(cuEventDestroy_v2(g->join[i]));
		ck(cuStreamDestroy_v2(g->lane[i].stream));
	}
	ck(cuModuleUnload(g->module));
	ck(cuDevicePrimaryCtxRelease_v2(g->device));
	free(g->weight);
}
