/* SPDX-License-Identifier: MIT */
/* work.c - one piece of work: running it, and what it can reach (E1, E3, E4).
 *
 * Owns nothing. (1) Each row of a copy is looked up as it is copied, so that what was
 * taken away meanwhile is an illegal access, not a crash. (2) What a kernel can reach is
 * judged when it is asked, not when it was launched: tables may have changed.
 * Lock: work_run runs without the emulator's, and takes it to say what went wrong.
 */
#include "tests/emu/emu.h"

#include <stdio.h>
#include <unistd.h>

#define TABLE_BYTES	65536u	/* larger ranges are data, not tables of pointers */
#define TABLE_DEPTH	3

const char *work_name(const struct work *w)
{
	switch (w->kind) {
	case W_KERNEL: return w->u.kernel.fn->name;
	case W_COPY: return "a copy";
	case W_SET: return "a memset";
	case W_HOST:
	case W_CALLBACK: return "a host function";
	case W_ALLOC: return "an allocation";
	case W_FREE: return "a free";
	case W_GRAPH:
	case W_CHILD: return "a graph";
	case W_VALUE:
	case W_AWAIT: return "a memory operation";
	case W_PREFETCH: return "a prefetch";
	default: return "an event";
	}
}

/* ---- what it owns ------------------------------------------------------------- */

void work_drop(struct work *w)
{
	switch (w->kind) {
	case W_KERNEL: free(w->u.kernel.params); break;
	case W_COPY: free(w->u.copy.staged); break;
	case W_GRAPH: image_put(w->u.image); break;
	case W_CHILD: graph_end(w->u.child); break;
	case W_ALLOC:
		if (w->u.memory.range)
			async_graph_end(w->u.memory.range);
		break;
	case W_RECORD:
	case W_WAIT:
		if (w->u.event)
			event_put(w->u.event);
		break;
	default: break;
	}
	w->kind = W_EMPTY;
}

static void *copy_of(const void *at, size_t bytes)
{
	void *to = at && bytes ? malloc(bytes) : NULL;

	if (to)
		memcpy(to, at, bytes);
	return to;
}

void work_dup(struct work *to, const struct work *from)
{
	const struct copy *c = &from->u.copy.c;

	*to = *from;
	switch (from->kind) {
	case W_KERNEL:
		to->u.kernel.params = copy_of(from->u.kernel.params, from->u.kernel.bytes);
		to->u.kernel.touched = NULL;
		break;
	case W_COPY:
		to->u.copy.staged = copy_of(from->u.copy.staged, c->width * c->rows * c->layers);
		break;
	case W_GRAPH: to->u.image = image_dup(from->u.image); break;
	case W_CHILD:
		to->u.child = graph_clone(from->u.child);
		to->u.child->owned = true;
		break;
	case W_ALLOC:
		if (from->u.memory.range)
			from->u.memory.range->graphs++;
		break;
	case W_RECORD:
	case W_WAIT:
		if (from->u.event)
			from->u.event->refs++;
		break;
	default: break;
	}
}

/* ---- running ------------------------------------------------------------------ */

static void illegal(struct work *w, uint64_t addr, uint64_t size, int write)
{
	const struct range *r;

	pthread_mutex_lock(&emu.lock);
	r = vm_find(addr);
	ctx_fault(w->ctx, CUDA_ERROR_ILLEGAL_ADDRESS, "E3: %s %s %llu bytes at %#llx: %s",
		  work_name(w), write ? "writes" : "reads", (unsigned long long)size,
		  (unsigned long long)addr,
		  !r			    ? "nothing is there" :
		  r->kind == R_ASYNC && !r->live ? "not yet, or no longer, allocated (E9)" :
					      "not mapped, or no access");
	pthread_mutex_unlock(&emu.lock);
}

static uint64_t row_of(const struct side *s, uint64_t layer, uint64_t row)
{
	return s->addr + (layer * s->height + row) * s->pitch;
}

/* Device memory for anyone who may touch it: the driver finds a way. */
static char *touch(struct work *w, uint64_t addr, uint64_t size, int write)
{
	char *at = vm_at(-1, addr, size, write);

	if (!at)
		illegal(w, addr, size, write);
	return at;
}

static bool copy_row(struct work *w, uint64_t layer, uint64_t row)
{
	const struct copy *c = &w->u.copy.c;
	const char *staged = w->u.copy.staged;
	char *to = touch(w, row_of(&c->dst, layer, row), c->width, 1);
	const char *from = staged ? staged + (layer * c->rows + row) * c->width :
				    touch(w, row_of(&c->src, layer, row), c->width, 0);

	if (!to || !from)
		return false;
	memmove(to, from, c->width);
	return true;
}

static void run_copy(struct work *w)
{
	const struct copy *c = &w->u.copy.c;
	struct device *d = &emu.dev[w->ctx->device];
	uint64_t bytes = c->width * c->rows * c->layers;

	for (uint64_t l = 0; l < c->layers; l++)
		for (uint64_t r = 0; r < c->rows; r++)
			if (!copy_row(w, l, r))
				return;
	if (c->src.host && !c->dst.host)
		__atomic_fetch_add(&d->h2d, bytes, __ATOMIC_RELAXED);
	else if (c->dst.host && !c->src.host)
		__atomic_fetch_add(&d->d2h, bytes, __ATOMIC_RELAXED);
}

static void run_set(struct work *w)
{
	const CUDA_MEMSET_NODE_PARAMS_v2 *s = &w->u.set;

	for (size_t row = 0; row < s->height; row++) {
		size_t bytes = s->width * s->elementSize;
		char *at = touch(w, s->dst + row * s->pitch, bytes, 1);

		if (!at)
			return;
		if (s->elementSize == 1) {
			memset(at, (int)s->value, bytes);
			continue;
		}
		for (size_t i = 0; i < s->width; i++)
			memcpy(at + i * s->elementSize, &s->value, s->elementSize);
	}
}

static void run_host(struct work *w)
{
	emu_host_function(true);
	if (w->kind == W_HOST)
		w->u.host.fn(w->u.host.data);
	else
		w->u.host.callback(w->u.host.stream, w->ctx->sticky, w->u.host.data);
	emu_host_function(false);
}

static void run_value(struct work *w)
{
	void *at = touch(w, w->u.value.addr, w->u.value.bytes, 1);

	if (at && w->u.value.bytes == 4)
		__atomic_store_n((uint32_t *)at, (uint32_t)w->u.value.value, __ATOMIC_RELEASE);
	else if (at)
		__atomic_store_n((uint64_t *)at, w->u.value.value, __ATOMIC_RELEASE);
}

static bool holds(uint64_t now, uint64_t want, unsigned flags, unsigned bytes)
{
	switch (flags & 3) {
	case 0: return bytes == 4 ? (int32_t)(now - want) >= 0 : (int64_t)(now - want) >= 0;
	case 1: return now == want;
	case 2: return (now & want) != 0;
	default: return bytes == 4 ? (uint32_t)~(now | want) != 0 : ~(now | want) != 0;
	}
}

static void run_await(struct work *w)
{
	for (;;) {
		const void *at = touch(w, w->u.value.addr, w->u.value.bytes, 0);
		uint64_t now;

		if (!at || w->ctx->sticky)
			return;
		now = w->u.value.bytes == 4 ? __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE) :
					      __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
		if (holds(now, w->u.value.value, w->u.value.flags, w->u.value.bytes))
			return;
		usleep(50);
	}
}

/* The end of memory in stream order: nobody else may be at it (E1). */
static void run_free(struct work *w, uint64_t seq)
{
	struct range *r;
	const struct op *op;

	pthread_mutex_lock(&emu.lock);
	r = vm_find(w->u.memory.addr);
	op = r ? op_racing(r->addr, r->size, seq) : NULL;
	if (op)
		ctx_fault(w->ctx, CUDA_ERROR_ILLEGAL_ADDRESS,
			  "E1: %#llx is freed in stream order while %s can reach it",
			  (unsigned long long)w->u.memory.addr, work_name(&op->w));
	else if (r && r->kind == R_ASYNC)
		async_end(r);
	pthread_mutex_unlock(&emu.lock);
}

static void run_alloc(struct work *w)
{
	struct range *r;

	pthread_mutex_lock(&emu.lock);
	r = vm_find(w->u.memory.addr);
	if (r && r->kind == R_ASYNC)
		async_live(r);
	pthread_mutex_unlock(&emu.lock);
}

void work_run(struct work *w, uint64_t seq)
{
	switch (w->kind) {
	case W_KERNEL: function_run(w); break;
	case W_COPY: run_copy(w); break;
	case W_SET: run_set(w); break;
	case W_HOST:
	case W_CALLBACK: run_host(w); break;
	case W_ALLOC: run_alloc(w); break;
	case W_FREE: run_free(w, seq); break;
	case W_GRAPH: image_run(w->u.image, seq); break;
	case W_VALUE: run_value(w); break;
	case W_AWAIT: run_await(w); break;
	case W_PREFETCH: managed_prefetch(w); break;
	default: break;
	}
}

/* ---- reach -------------------------------------------------------------------- */

static bool overlap(uint64_t a, uint64_t an, uint64_t b, uint64_t bn)
{
	return an && bn && a < b + bn && b < a + an;
}

static bool side_reaches(const struct copy *c, const struct side *s, uint64_t addr, uint64_t size)
{
	uint64_t rows = (c->layers - 1) * s->height + c->rows;

	if (!c->width || !c->rows || !c->layers)
		return false;
	return overlap(s->addr, (rows - 1) * s->pitch + c->width, addr, size);
}

static bool copy_reaches(const struct work *w, uint64_t addr, uint64_t size)
{
	const struct copy *c = &w->u.copy.c;

	return side_reaches(c, &c->dst, addr, size) ||
	       (!w->u.copy.staged && side_reaches(c, &c->src, addr, size));
}

struct target {
	uint64_t addr, size;
	const struct range *r;
	struct host_range host;
	bool in_host;
};

static bool words_reach(const char *at, size_t bytes, const struct target *t, int depth);

/* A word that may be a pointer. */
static bool word_reaches(uint64_t v, const struct target *t, int depth)
{
	const struct range *r;
	uint64_t base, size;
	const char *table;

	if (t->in_host && v - t->host.addr < t->host.size)
		return true;
	if (!vm_is_device(v))
		return false;
	r = vm_find(v);
	if (!r)
		return false;
	if (r == t->r)
		return true;
	if (!depth)
		return false;
	if (!vmm_range(v, &base, &size)) {
		base = r->addr;
		size = r->size;
	}
	if (size > TABLE_BYTES)
		return false;
	table = vm_at(-1, base, size, 0);
	return table && words_reach(table, size, t, depth - 1);
}

static bool words_reach(const char *at, size_t bytes, const struct target *t, int depth)
{
	for (size_t i = 0; i + 8 <= bytes; i += 8) {
		uint64_t v;

		memcpy(&v, at + i, 8);
		if (v && word_reaches(v, t, depth))
			return true;
	}
	return false;
}

static bool kernel_reaches(const struct work *w, uint64_t addr, uint64_t size)
{
	const struct module *m = w->u.kernel.fn->module;
	struct target t = { .addr = addr, .size = size, .r = vm_find(addr) };

	if (emu.opt.reach_any)
		return true;
	if (function_touched(w, addr, size))
		return true;
	if (!vm_is_device(addr))
		t.in_host = host_find(addr, &t.host);
	if (words_reach((const char *)w->u.kernel.params, w->u.kernel.bytes, &t, TABLE_DEPTH))
		return true;
	for (unsigned i = 0; i < m->nglobals; i++)
		if (word_reaches(m->globals[i]->addr, &t, TABLE_DEPTH))
			return true;
	return false;
}

bool work_reaches(const struct work *w, uint64_t addr, uint64_t size)
{
	const CUDA_MEMSET_NODE_PARAMS_v2 *s = &w->u.set;

	switch (w->kind) {
	case W_KERNEL: return kernel_reaches(w, addr, size);
	case W_COPY: return copy_reaches(w, addr, size);
	case W_SET:
		return s->height && overlap(s->dst, (s->height - 1) * s->pitch +
						    s->width * s->elementSize, addr, size);
	case W_GRAPH: return image_reaches(w->u.image, addr, size);
	case W_VALUE:
	case W_AWAIT: return overlap(w->u.value.addr, w->u.value.bytes, addr, size);
	default: return false;
	}
}
