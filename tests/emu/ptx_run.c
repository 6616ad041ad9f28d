/* SPDX-License-Identifier: MIT */
/* ptx_run.c - launches: blocks one after another, their warps and paths in turn.
 *
 *   path: lanes at one instruction. RUN <--> WAIT, BARRIER (ptx_warp.c); gone when
 *   its lanes exit or join another.
 *
 * Owns a launch's registers, shared and local memory, and its cache of pages.
 *
 * (1) Of a warp's paths that can run the one deepest in calls goes, of these the
 *     one that is least far in the code: so lanes that parted meet again where
 *     the code does. At each label the path looks whether it met one.
 * (2) A path that has passed many labels gives way, and the next warp has its
 *     turn too: what waits for another thread by looking at memory goes on.
 * (3) If no path of the block can run, its threads wait for each other: the
 *     launch ends with -EDEADLK.
 * Lock: none.
 */
#include "tests/emu/ptx_int.h"

#include <fenv.h>
#include <stdarg.h>

#define QUANTUM		4096		/* labels */
#define MAX_SHARED	(227u << 10)

static uint64_t total;

uint64_t ptx_instructions(void)
{
	return __atomic_load_n(&total, __ATOMIC_RELAXED);
}

/* ---- faults -------------------------------------------------------------------- */

int ptx_fail(struct ptx_warp *w, const struct ptx_op *o, int err, unsigned lane,
	     const char *fmt, ...)
{
	struct ptx_block *b = w->b;
	struct ptx_fault *f = b->fault;
	uint32_t t = w->number * LANES + lane;
	char what[64];
	va_list ap;

	b->err = err;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	snprintf(f->why, sizeof(f->why),
		 "%s: %.*s, line %u, thread %u,%u,%u of block %u,%u,%u", what,
		 o->name_len > 40 ? 40 : o->name_len, o->name, o->line, t % b->block[0],
		 t / b->block[0] % b->block[1], t / b->block[0] / b->block[1], b->at[0], b->at[1],
		 b->at[2]);
	return LEAVE_FAULT;
}

static uint8_t *bad_access(struct ptx_warp *w, const struct ptx_op *o, uint64_t addr,
			   unsigned lane, unsigned len, bool write, const char *what)
{
	struct ptx_fault *f = w->b->fault;

	f->addr = addr;
	f->size = len;
	f->write = write;
	ptx_fail(w, o, -EFAULT, lane, "%s", what);
	return NULL;
}

/* ---- memory ----------------------------------------------------------------------- */

uint8_t *ptx_page(struct ptx_block *b, uint64_t page, bool write)
{
	struct ptx_tlb *t = &b->tlb[page % TLB];

	if (t->page == page && (!write || t->write))
		return t->host;
	t->page = page;
	t->write = write;
	t->host = b->mem->at(b->mem->ctx, page * PTX_PAGE, PTX_PAGE, write);
	return t->host;
}

uint8_t *ptx_range(struct ptx_block *b, uint64_t from, size_t len, bool write)
{
	return b->mem->at(b->mem->ctx, from, len, write);
}

static uint8_t *within(uint8_t *host, uint64_t off, uint64_t size, unsigned len)
{
	return off <= size && size - off >= len ? host + off : NULL;
}

uint8_t *ptx_reach(struct ptx_warp *w, const struct ptx_op *o, uint64_t addr, unsigned lane,
		   unsigned len, bool write)
{
	struct ptx_block *b = w->b;
	enum ptx_space space = o->space;
	uint64_t off = addr - SPACE_START;
	uint8_t *at = NULL;

	if (addr & (len - 1))
		return bad_access(w, o, addr, lane, len, write, "misaligned address");
	if (space == SP_GENERIC && WINDOW(addr) >= WIN_SHARED && WINDOW(addr) <= WIN_PARAM) {
		space = WINDOW(addr) == WIN_SHARED ? SP_SHARED :
			WINDOW(addr) == WIN_LOCAL ? SP_LOCAL : SP_PARAM;
		off -= WINDOW_BASE(WINDOW(addr));
	}
	switch (space) {
	case SP_SHARED:
		at = within(b->shared, off, b->shared_bytes, len);
		break;
	case SP_LOCAL:
		at = within(w->local + (size_t)lane * b->lane_local, off, b->lane_local, len);
		break;
	case SP_PARAM:
		if (!write)
			at = within(b->params, off, b->param_bytes, len);
		break;
	default:
		at = ptx_page(b, addr / PTX_PAGE, write);
		at = at ? at + addr % PTX_PAGE : ptx_range(b, addr, len, write);
		break;
	}
	return at ? at : bad_access(w, o, addr, lane, len, write, "illegal address");
}

/* ---- control flow --------------------------------------------------------------------- */

void ptx_mask_set(struct ptx_warp *w, uint32_t mask)
{
	w->mask = mask;
	w->lanes = (uint32_t)__builtin_popcount(mask);
}

int ptx_op_join(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	if (--w->budget < 0) {
		w->pc = o;
		w->yield = true;
		return LEAVE_SCHED;
	}
	if (!w->npaths || w->fair)
		return GO_ON;
	for (uint32_t i = 0; i < w->npaths; i++) {
		const struct ptx_path *p = &w->path[i];

		if (p->state != PATH_RUN || p->depth < w->depth ||
		    (p->depth == w->depth && p->pc > o))
			continue;
		w->pc = o;
		return LEAVE_SCHED;
	}
	return GO_ON;
}

int ptx_op_bra(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	const struct ptx_op *to = o + o->imm;

	if (m == w->mask) {
		w->pc = to;
		return GO_ON;
	}
	if (to > o) {
		ptx_path_add(w, to, m, PATH_RUN);
		ptx_mask_set(w, w->mask & ~m);
	} else {
		ptx_path_add(w, w->pc, w->mask & ~m, PATH_RUN);
		ptx_mask_set(w, m);
		w->pc = to;
	}
	return GO_ON;
}

int ptx_op_exit(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	w->alive &= ~m;
	w->b->alive -= (uint32_t)__builtin_popcount(m);
	ptx_mask_set(w, w->mask & ~m);
	return w->mask ? GO_ON : LEAVE_SCHED;
}

int ptx_op_call(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	for (uint32_t left = m; left; left &= left - 1)
		w->back[w->depth][__builtin_ctz(left)] = o + 1;
	if (m != w->mask)
		ptx_path_add(w, o + 1, w->mask & ~m, PATH_RUN);
	ptx_mask_set(w, m);
	w->depth++;
	w->pc = w->b->k->m->code + o->callee->code;
	return GO_ON;
}

/* Each to where it came from. */
int ptx_op_ret(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint32_t depth = w->depth - 1, group;

	if (m != w->mask)
		ptx_path_add(w, o + 1, w->mask & ~m, PATH_RUN);
	w->depth = depth;
	for (uint32_t left = m; left; left &= ~group) {
		const struct ptx_op *to = w->back[depth][__builtin_ctz(left)];

		group = 0;
		for (uint32_t l = left; l; l &= l - 1)
			if (w->back[depth][__builtin_ctz(l)] == to)
				group |= l & -l;
		ptx_path_add(w, to, group, PATH_RUN);
	}
	ptx_mask_set(w, 0);
	return LEAVE_SCHED;
}

/* imm bytes from the local address in r1 to that in r0. */
int ptx_op_copy(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint64_t to = *REG_AT(w, uint64_t, o->r[0]) - SPACE_START;
	uint64_t from = *REG_AT(w, uint64_t, o->r[1]) - SPACE_START;
	uint64_t size = w->b->lane_local, n = (uint64_t)o->imm;

	if (n > size || to > size - n || from > size - n)
		return ptx_fail(w, o, -EFAULT, 0, "an argument does not fit");
	for (uint32_t left = m; left; left &= left - 1) {
		uint8_t *at = w->local + (size_t)__builtin_ctz(left) * size;

		memmove(at + to, at + from, n);
	}
	return GO_ON;
}

int ptx_op_trap(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	return ptx_fail(w, o, -EFAULT, (unsigned)__builtin_ctz(m), "trap");
}

/* ---- which path goes ------------------------------------------------------------------------ */

/* Paths at one place become one. */
static void merge(struct ptx_warp *w)
{
	for (uint32_t i = 0; i < w->npaths; i++) {
		for (uint32_t k = i + 1; k < w->npaths; k++) {
			struct ptx_path *a = &w->path[i], *b = &w->path[k];

			if (a->state != PATH_RUN || b->state != PATH_RUN || a->pc != b->pc ||
			    a->depth != b->depth)
				continue;
			a->mask |= b->mask;
			*b = w->path[--w->npaths];
			k--;
		}
	}
}

static bool before(const struct ptx_warp *w, const struct ptx_path *a, const struct ptx_path *b)
{
	if (w->fair)
		return a->last < b->last;
	return a->depth != b->depth ? a->depth > b->depth : a->pc < b->pc;
}

/* Takes the path that goes next; false: none can. */
static bool next_path(struct ptx_warp *w)
{
	struct ptx_path *best = NULL;
	uint32_t running = 0;

	merge(w);
	for (uint32_t i = 0; i < w->npaths; i++) {
		struct ptx_path *p = &w->path[i];

		if (p->state != PATH_RUN)
			continue;
		running++;
		if (!best || before(w, p, best))
			best = p;
	}
	for (uint32_t i = 0; !best && i < w->npaths; i++) {
		struct ptx_path *p = &w->path[i];

		if (p->state == PATH_WAIT && ptx_ready(w, p->pc, p->mask))
			best = p;
	}
	if (!best)
		return false;
	w->fair = running > 1 && w->fair;
	w->pc = best->pc;
	w->depth = best->depth;
	ptx_mask_set(w, best->mask);
	*best = w->path[--w->npaths];
	w->tick++;
	return true;
}

static int execute(struct ptx_warp *w)
{
	int r;

	do {
		const struct ptx_op *o = w->pc;
		uint32_t m = w->mask;

		w->count += w->lanes;
		w->pc = o + 1;
		if (o->guard) {
			m &= *pred_at(w, o->guard) ^ o->guard_not;
			if (!m) {
				r = GO_ON;
				continue;
			}
		}
		r = o->fn(w, o, m);
	} while (r == GO_ON);
	return r;
}

/* Until nothing of it can run, or it has had its turn. True: it did something. */
static bool run_warp(struct ptx_warp *w)
{
	bool any = false;

	w->yield = false;
	w->budget = QUANTUM;
	while (!w->yield && next_path(w)) {
		any = true;
		if (execute(w) == LEAVE_FAULT)
			return true;
		if (w->mask)
			ptx_path_add(w, w->pc, w->mask, PATH_RUN);
		if (w->yield && w->npaths > 1)
			w->fair = true;
	}
	return any;
}

static int deadlock(struct ptx_block *b)
{
	for (uint32_t i = 0; i < b->nwarps; i++) {
		struct ptx_warp *w = &b->warps[i];

		if (!w->npaths)
			continue;
		ptx_fail(w, w->path[0].pc, -EDEADLK, (unsigned)__builtin_ctz(w->path[0].mask),
			 "%u threads wait for each other", b->alive);
		break;
	}
	return -EDEADLK;
}

/* ---- a block ---------------------------------------------------------------------------------- */

static uint64_t fill_value(const struct ptx_block *b, const struct ptx_slot *s, uint32_t warp,
			   uint32_t lane)
{
	uint32_t t = warp * LANES + lane, bit = 1u << lane;

	switch ((enum fill)s->fill) {
	case FILL_TID:
		return s->value == 0 ? t % b->block[0] :
			s->value == 1 ? t / b->block[0] % b->block[1] :
			t / b->block[0] / b->block[1];
	case FILL_NTID: return b->block[s->value];
	case FILL_CTAID: return b->at[s->value];
	case FILL_NCTAID: return b->grid[s->value];
	case FILL_LANE: return lane;
	case FILL_WARP: return warp;
	case FILL_NWARP: return b->nwarps;
	case FILL_LANEMASK: {
		const uint32_t masks[] = { bit, bit - 1, bit | (bit - 1), ~(bit | (bit - 1)),
					   ~(bit - 1) };

		return masks[s->value];
	}
	case FILL_DYN_SHARED: return b->dyn_bytes;
	case FILL_ALL_SHARED: return b->shared_bytes;
	default: return s->value;
	}
}

static uint64_t var_address(const struct ptx_block *b, const struct ptx_slot *s)
{
	const struct ptx_func *k = b->k;
	const struct ptx_var *v = &k->m->vars[s->var];

	switch (v->space) {
	case SP_SHARED:
		for (uint32_t i = 0; i < k->nshared; i++)
			if (k->shared[i] == s->var)
				return SPACE_START + k->shared_at[i] + s->value;
		return s->value;
	case SP_LOCAL: return SPACE_START + v->func->local_base + v->addr + s->value;
	case SP_PARAM: return SPACE_START + v->addr + s->value;
	default: return v->addr + s->value;
	}
}

static void fill_slot(struct ptx_block *b, const struct ptx_func *f, const struct ptx_slot *s,
		      struct ptx_warp *w)
{
	uint8_t *at = w->r + f->regs_base + s->place;
	bool same = s->fill == FILL_VAR;
	uint64_t v = same ? var_address(b, s) : 0;

	if (!s->size) {
		*(uint32_t *)(void *)at = s->value ? FULL : 0;
		return;
	}
	for (uint32_t i = 0; i < LANES; i++) {
		if (!same)
			v = fill_value(b, s, w->number, i);
		memcpy(at + i * s->size, &v, s->size);
	}
}

/* All that is filled in, or what changes from block to block. */
static void fill(struct ptx_block *b, bool all)
{
	for (uint32_t n = 0; n < b->k->nreach; n++) {
		const struct ptx_func *f = b->k->reach[n];

		for (uint32_t i = 1; i < f->nslots; i++) {
			const struct ptx_slot *s = &f->slots[i];

			if (s->fill == FILL_NONE || (!all && s->fill != FILL_CTAID))
				continue;
			for (uint32_t k = 0; k < b->nwarps; k++)
				fill_slot(b, f, s, &b->warps[k]);
		}
	}
}

static void start_warp(struct ptx_block *b, struct ptx_warp *w)
{
	uint32_t left = b->threads - w->number * LANES;

	for (uint32_t n = 0; n < b->k->nreach; n++)
		memset(w->r + b->k->reach[n]->regs_base, POISON, b->k->reach[n]->poison_bytes);
	if (w->local)
		memset(w->local, POISON, (size_t)b->lane_local * LANES);
	w->alive = left >= LANES ? FULL : (1u << left) - 1;
	w->npaths = w->depth = w->carry = 0;
	w->fair = false;
	ptx_path_add(w, b->k->m->code + b->k->code, w->alive, PATH_RUN);
}

static int run_block(struct ptx_block *b)
{
	b->alive = b->threads;
	memset(b->shared, POISON, b->shared_bytes);
	memset(b->bar, 0, sizeof(b->bar));
	for (uint32_t i = 0; i < b->nwarps; i++)
		start_warp(b, &b->warps[i]);
	while (b->alive) {
		bool any = false;

		for (uint32_t i = 0; i < b->nwarps && !b->err; i++)
			any |= run_warp(&b->warps[i]);
		if (b->err)
			return b->err;
		any |= ptx_barriers_release(b);
		if (!any && b->alive)
			return deadlock(b);
	}
	return 0;
}

/* ---- a launch ------------------------------------------------------------------------------------ */

static int check(struct ptx_block *b, size_t dyn_shared)
{
	static const unsigned most_block[3] = { 1024, 1024, 64 };
	static const unsigned most_grid[3] = { 0x7fffffff, 65535, 65535 };
	uint64_t threads = 1;

	for (int i = 0; i < 3; i++) {
		if (!b->grid[i] || b->grid[i] > most_grid[i] || !b->block[i] ||
		    b->block[i] > most_block[i])
			return -EINVAL;
		threads *= b->block[i];
	}
	if (threads > b->k->max_threads || dyn_shared > MAX_SHARED ||
	    b->k->static_shared + dyn_shared > MAX_SHARED)
		return -EINVAL;
	b->threads = (uint32_t)threads;
	b->nwarps = (b->threads + LANES - 1) / LANES;
	b->dyn_bytes = (uint32_t)dyn_shared;
	b->shared_bytes = b->k->static_shared;
	if (dyn_shared)
		b->shared_bytes = ((b->shared_bytes + b->k->dyn_align - 1) &
				   ~(b->k->dyn_align - 1)) + (uint32_t)dyn_shared;
	return 0;
}

static void *aligned(size_t bytes)
{
	return aligned_alloc(64, (bytes + 63) & ~(size_t)63);
}

static void close_block(struct ptx_block *b)
{
	uint64_t n = 0;

	for (uint32_t i = 0; b->warps && i < b->nwarps; i++) {
		n += b->warps[i].count;
		free(b->warps[i].r);
		free(b->warps[i].local);
		free(b->warps[i].back);
	}
	__atomic_fetch_add(&total, n, __ATOMIC_RELAXED);
	free(b->warps);
	free(b->shared);
	free(b->params);
}

static int open_block(struct ptx_block *b, const void *params)
{
	b->warps = calloc(b->nwarps, sizeof(*b->warps));
	b->shared = aligned(b->shared_bytes + 64);
	b->params = aligned(b->param_bytes + 64);
	if (!b->warps || !b->shared || !b->params)
		return -ENOMEM;
	if (b->param_bytes)
		memcpy(b->params, params, b->param_bytes);
	b->lane_local = b->k->lane_local;
	for (uint32_t i = 0; i < b->nwarps; i++) {
		struct ptx_warp *w = &b->warps[i];

		w->b = b;
		w->number = i;
		w->r = aligned(b->k->file_bytes);
		if (b->lane_local)
			w->local = aligned((size_t)b->lane_local * LANES);
		if (b->k->ncalls)
			w->back = calloc(MAX_DEPTH, sizeof(*w->back));
		if (!w->r || (b->lane_local && !w->local) || (b->k->ncalls && !w->back))
			return -ENOMEM;
	}
	for (int i = 0; i < TLB; i++)
		b->tlb[i].page = UINT64_MAX;
	return 0;
}

static int run_blocks(struct ptx_block *b)
{
	int err = 0;

	fill(b, true);
	for (b->at[2] = 0; b->at[2] < b->grid[2]; b->at[2]++) {
		for (b->at[1] = 0; b->at[1] < b->grid[1]; b->at[1]++) {
			for (b->at[0] = 0; b->at[0] < b->grid[0]; b->at[0]++) {
				fill(b, false);
				err = run_block(b);
				if (err)
					return err;
			}
		}
	}
	return 0;
}

int ptx_run(const struct ptx_kernel *k, const unsigned grid[3], const unsigned block[3],
	    size_t dyn_shared, const void *params, const struct ptx_mem *mem,
	    struct ptx_fault *fault)
{
	struct ptx_fault mine;
	struct ptx_block *b;
	fenv_t env;
	int err;

	fault = fault ? fault : &mine;
	*fault = (struct ptx_fault){ 0 };
	snprintf(fault->kernel, sizeof(fault->kernel), "%s", k->f->cname);
	if (k->f->why[0]) {
		snprintf(fault->why, sizeof(fault->why), "not supported: %.140s", k->f->why);
		return -ENOSYS;
	}
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->k = k->f;
	b->mem = mem;
	b->fault = fault;
	b->param_bytes = (uint32_t)k->f->param_bytes;
	memcpy(b->grid, grid, sizeof(b->grid));
	memcpy(b->block, block, sizeof(b->block));
	err = check(b, dyn_shared);
	if (err)
		snprintf(fault->why, sizeof(fault->why), "no such grid, block or shared memory");
	if (!err)
		err = open_block(b, params);
	if (!err) {
		fegetenv(&env);
		fesetenv(FE_DFL_ENV);
		err = run_blocks(b);
		fesetenv(&env);
	}
	close_block(b);
	free(b);
	return err;
}
