/* SPDX-License-Identifier: MIT */
/* random_run.c - runs a segment: threads issue operations, the device does them.
 *
 *   planned --its thread's turn, all it depends on issued--> issued, an event behind it
 *
 * Owns the threads while a segment runs; lock: `lock`, for `issued` alone.
 * (1) Of two operations that touch a byte, one writing, the later is issued after the
 *     earlier, and its stream, or its thread, waits for the earlier's event.
 * (2) What the host itself does, and a copy of pageable memory, waits by the host;
 *     cuMemFree may be left to wait by itself.
 */
#include "tests/engine/random.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;

struct worker {
	struct world *w;
	int number;
	pthread_t thread;
};

/* ---- what depends on what -------------------------------------------------------- */

static int meet(const struct access *a, const struct access *b)
{
	return a->buf == b->buf && (a->write || b->write) &&
	       a->off < b->off + b->len && b->off < a->off + a->len;
}

/* It is told its operands by addresses in device memory, among which are those of
 * other buffers. */
static int is_indirect(const struct op *o)
{
	for (int i = 0; i < o->n_sub; i++)
		if (is_indirect(&o->sub[i]))
			return 1;
	return o->kind == OP_KERNEL && o->mode >= MODE_TABLE;
}

static int takes_away(const struct op *o)
{
	return o->kind == OP_FREE || o->kind == OP_MOVE;
}

/* What an address in a table leads to is not taken away while the table is in use. */
static int depends(const struct op *later, const struct op *earlier)
{
	if ((takes_away(later) && is_indirect(earlier)) ||
	    (takes_away(earlier) && is_indirect(later)))
		return 1;
	for (int i = 0; i < later->n_acc; i++)
		for (int k = 0; k < earlier->n_acc; k++)
			if (meet(&later->acc[i], &earlier->acc[k]))
				return 1;
	return 0;
}

static void find_deps(struct world *w)
{
	for (int i = 0; i < w->n_op; i++)
		for (int k = 0; k < i; k++)
			if (depends(&w->op[i], &w->op[k]))
				w->op[i].dep[w->op[i].n_dep++] = k;
}

/* ---- streams --------------------------------------------------------------------- */

/* Which queue it is on: equal keys are done in the order of issue. */
static int queue_of(const struct world *w, const struct op *o)
{
	int n = (int)w->c->streams, s = op_is_sync(o) ? n : o->stream;

	return o->dev * (n + 1 + THREADS_MAX) + s + (s > n ? o->thread : 0);
}

static CUstream stream_of(const struct world *w, const struct op *o)
{
	int n = (int)w->c->streams, s = op_is_sync(o) ? n : o->stream;

	if (s < n)
		return w->stream[o->dev][s];
	if (s > n)
		return CU_STREAM_PER_THREAD;
	return o->how & 0x40 ? CU_STREAM_LEGACY : NULL;
}

static int is_pageable(const struct world *w, const struct side *e)
{
	return w->buf[e->buf].family == FAM_PAGEABLE;
}

static int host_waits(const struct world *w, const struct op *o)
{
	const struct buf *b = &w->buf[o->d.buf];

	switch (o->kind) {
	case OP_MOVE: case OP_TOUCH:
		return 1;
	case OP_FREE:
		return !free_is_async(b, o) && (b->family != FAM_ALLOC || o->how & 1);
	case OP_COPY: case OP_COPY2D: case OP_COPY3D:
		return is_pageable(w, &o->d) || is_pageable(w, &o->s);
	default:
		return 0;
	}
}

/* cuMemFree waits by itself, a query for nothing. */
static int nobody_waits(const struct world *w, const struct op *o)
{
	return o->kind == OP_QUERY ||
	       (o->kind == OP_FREE && !free_is_async(&w->buf[o->d.buf], o) &&
		!host_waits(w, o));
}

static void wait_issued(struct world *w, const struct op *o)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < o->n_dep; i++)
		while (!w->op[o->dep[i]].issued)
			pthread_cond_wait(&moved, &lock);
	pthread_mutex_unlock(&lock);
}

static void wait_done(struct world *w, const struct op *o, CUstream s)
{
	for (int i = 0; i < o->n_dep && !w->drop_waits; i++) {
		const struct op *d = &w->op[o->dep[i]];

		if (!d->has_event)
			continue;
		if (host_waits(w, o))
			ck(cuEventSynchronize(d->event));
		else if (queue_of(w, d) != queue_of(w, o))
			ck(cuStreamWaitEvent(s, d->event, 0));
	}
}

/* ---- operations ------------------------------------------------------------------ */

struct job {
	uint8_t *p;
	size_t n;
	uint32_t a;
};

static void touch(const struct job *j)
{
	for (size_t i = 0; i < j->n; i++)
		j->p[i] = (uint8_t)(j->p[i] * 5 + j->a);
}

static void touch_later(void *arg)
{
	touch(arg);
	free(arg);
}

static struct job job_of(const struct world *w, const struct op *o)
{
	return (struct job){ (uint8_t *)w->buf[o->d.buf].host + o->d.off, o->w, o->a };
}

static void do_host(struct world *w, const struct op *o, CUstream s)
{
	struct job now = job_of(w, o), *later;

	if (o->kind == OP_TOUCH) {
		touch(&now);
		return;
	}
	later = malloc(sizeof(*later));
	if (!later)
		abort();
	*later = now;
	ck(cuLaunchHostFunc(s, touch_later, later));
}

static void bad_answer(const char *what)
{
	fprintf(stderr, "random: %s is wrong\n", what);
	exit(1);
}

/* What a driver may be asked at any time. */
static void do_query(struct world *w, const struct op *o, CUstream s)
{
	const struct buf *b = &w->buf[o->d.buf];
	CUdeviceptr at = mem_at(b, b->bytes - 1, 0), base;
	unsigned int type = 0;
	size_t n, all;
	CUresult err;

	ck(cuMemGetInfo_v2(&n, &all));
	if (n > all)
		bad_answer("free memory");
	ck(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at));
	if (type != CU_MEMORYTYPE_DEVICE)
		bad_answer("the type of memory");
	err = drv.cuStreamQuery(s);
	if (err && err != CUDA_ERROR_NOT_READY)
		bad_answer("a stream's state");
	if (b->family != FAM_ALLOC)
		return;
	ck(cuMemGetAddressRange_v2(&base, &n, at));
	if (base != b->addr || n < b->bytes)
		bad_answer("an address range");
}

static void perform(struct world *w, struct op *o, CUstream s)
{
	switch (o->kind) {
	case OP_ALLOC: mem_alloc(w, o, s); break;
	case OP_FREE: mem_free(w, o, s); break;
	case OP_MOVE: mem_move(w, o); break;
	case OP_COPY: do_copy(w, o, s); break;
	case OP_COPY2D: do_copy2d(w, o, s); break;
	case OP_COPY3D: do_copy3d(w, o, s); break;
	case OP_SET: do_set(w, o, s); break;
	case OP_SET2D: do_set2d(w, o, s); break;
	case OP_KERNEL: do_kernel(w, o, (int)(o - w->op), s); break;
	case OP_HOSTFN: case OP_TOUCH: do_host(w, o, s); break;
	case OP_GRAPH: do_graph(w, o, s); break;
	case OP_RELAUNCH: do_relaunch(w, o, s); break;
	default: do_query(w, o, s); break;
	}
}

/* Nothing on a stream is left behind by these. */
static int leaves_nothing(const struct op *o)
{
	return o->kind == OP_FREE || o->kind == OP_MOVE || o->kind == OP_TOUCH ||
	       o->kind == OP_QUERY;
}

static void issue(struct world *w, struct op *o)
{
	CUstream s = stream_of(w, o);

	wait_issued(w, o);
	ck(cuCtxSetCurrent(w->ctx[o->dev]));
	if (!nobody_waits(w, o))
		wait_done(w, o, s);
	o->has_event = !leaves_nothing(o);
	if (w->drop_op && o->kind == OP_COPY)
		w->drop_op = 0;
	else
		perform(w, o, s);
	if (o->has_event) {
		ck(cuEventCreate(&o->event, CU_EVENT_DISABLE_TIMING));
		ck(cuEventRecord(o->event, s));
	}
	pthread_mutex_lock(&lock);
	o->issued = 1;
	pthread_cond_broadcast(&moved);
	pthread_mutex_unlock(&lock);
}

static void *work(void *arg)
{
	struct worker *k = arg;

	for (int i = 0; i < k->w->n_op; i++)
		if (k->w->op[i].thread == k->number)
			issue(k->w, &k->w->op[i]);
	return NULL;
}

static void clean_up(struct world *w)
{
	for (int i = 0; i < w->devices; i++) {
		ck(cuCtxSetCurrent(w->ctx[i]));
		ck(cuCtxSynchronize());
	}
	for (int i = 0; i < w->n_op; i++) {
		if (w->op[i].has_event)
			ck(cuEventDestroy_v2(w->op[i].event));
		free(w->op[i].sub);
	}
}

void run_segment(struct world *w)
{
	struct worker k[THREADS_MAX];
	int n = (int)w->c->threads;

	find_deps(w);
	for (int i = 0; i < n; i++) {
		k[i].w = w;
		k[i].number = i;
		if (pthread_create(&k[i].thread, NULL, work, &k[i]))
			abort();
	}
	for (int i = 0; i < n; i++)
		pthread_join(k[i].thread, NULL);
	clean_up(w);
}
