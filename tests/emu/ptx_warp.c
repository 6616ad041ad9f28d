/* SPDX-License-Identifier: MIT */
/* ptx_warp.c - what lanes do together: collectives, barriers, atomics.
 *
 *   path RUN --collective, others are missing--> WAIT --they came, or exited--> RUN
 *   path RUN --bar--> BARRIER --all came--> RUN, behind it
 *
 * Owns nothing. (1) A collective is done by lanes at one instruction with one
 * mask, when all lanes of the mask that have not exited are there. A lane outside
 * its own mask is a fault. (2) What the rules leave undefined is poison. (3) bar
 * is for whole warps: those of its lanes that have not exited come together.
 * (4) Lanes act in order of their numbers. Lock: none; memory by atomic
 * operations, for other launches may use it.
 */
#include "tests/emu/ptx_int.h"
#include "tests/emu/ptx_math.h"

#define POISON32	0x7f7f7f7fu

/* ---- who takes part ------------------------------------------------------------ */

void ptx_path_add(struct ptx_warp *w, const struct ptx_op *pc, uint32_t mask,
		  enum path_state state)
{
	w->path[w->npaths++] = (struct ptx_path){ .pc = pc, .mask = mask, .depth = w->depth,
						  .state = state, .last = w->tick };
}

/* The lanes that a lane waits for. */
static uint32_t members(const struct ptx_warp *w, const struct ptx_op *o, uint32_t m,
			unsigned lane)
{
	if (o->fn == ptx_op_bar)
		return o->n ? w->alive : m;
	return o->r[5] ? REG_AT(w, uint32_t, o->r[5])[lane] : m;
}

/* Of the lanes in m the first's group, with its mask. */
static uint32_t group_of(const struct ptx_warp *w, const struct ptx_op *o, uint32_t all,
			 uint32_t left, uint32_t *mask)
{
	uint32_t group = 0;

	*mask = members(w, o, all, (unsigned)__builtin_ctz(left));
	for (uint32_t l = left; l; l &= l - 1)
		if (members(w, o, all, (unsigned)__builtin_ctz(l)) == *mask)
			group |= l & -l;
	return group;
}

bool ptx_ready(const struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint32_t mask, group;

	for (uint32_t left = m; left; left &= ~group) {
		group = group_of(w, o, m, left, &mask);
		if (!(mask & w->alive & ~group))
			return true;
	}
	return false;
}

/* Lanes that wait at the same instruction join. */
static uint32_t absorb(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	for (uint32_t i = 0; i < w->npaths; i++) {
		struct ptx_path *p = &w->path[i];

		if (p->state != PATH_WAIT || p->pc != o || p->depth != w->depth)
			continue;
		m |= p->mask;
		ptx_mask_set(w, w->mask | p->mask);
		*p = w->path[--w->npaths];
		i--;
	}
	return m;
}

/* `act` for each group that is whole; the other lanes wait. */
static int together(struct ptx_warp *w, const struct ptx_op *o, uint32_t m,
		    int (*act)(struct ptx_warp *w, const struct ptx_op *o, uint32_t m))
{
	uint32_t wait = 0, mask, group;
	int r = GO_ON;

	if (w->npaths)
		m = absorb(w, o, m);
	for (uint32_t left = m; left; left &= ~group) {
		group = group_of(w, o, m, left, &mask);
		if (group & ~mask)
			return ptx_fail(w, o, -EFAULT, (unsigned)__builtin_ctz(group & ~mask),
					"a thread is not in its own mask %08x", mask);
		if (mask & w->alive & ~group)
			wait |= group;
		else if ((r = act(w, o, group)) == LEAVE_FAULT)
			return r;
	}
	if (!wait)
		return r;
	ptx_path_add(w, o, wait, PATH_WAIT);
	ptx_mask_set(w, w->mask & ~wait);
	return LEAVE_SCHED;
}

/* ---- collectives ------------------------------------------------------------------ */

static int shfl(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint32_t *d = REG_AT(w, uint32_t, o->r[0]), from[LANES], ok = 0;
	const uint32_t *a = REG_AT(w, uint32_t, o->r[2]);
	const uint32_t *b = REG_AT(w, uint32_t, o->r[3]), *c = REG_AT(w, uint32_t, o->r[4]);

	memcpy(from, a, sizeof(from));
	for (uint32_t left = m; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);
		uint32_t seg = c[i] >> 8 & 31, by = b[i] & 31;
		uint32_t most = (i & seg) | (c[i] & 31 & ~seg), j;
		bool in;

		switch (o->kind) {
		case SHFL_UP:
			j = i - by;
			in = (int32_t)j >= (int32_t)most;
			break;
		case SHFL_DOWN:
			j = i + by;
			in = j <= most;
			break;
		case SHFL_BFLY:
			j = i ^ by;
			in = j <= most;
			break;
		default:
			j = (i & seg) | (by & ~seg);
			in = j <= most;
			break;
		}
		if (!in)
			j = i;
		d[i] = m >> j & 1 ? from[j] : POISON32;
		ok |= (uint32_t)in << i;
	}
	if (o->r[1])
		pred_set(w, o->r[1], ok, m);
	return GO_ON;
}

int ptx_op_shfl(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	return together(w, o, m, shfl);
}

static int vote(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint32_t p = *pred_at(w, o->r[1]) & m, r;

	if (o->kind == VOTE_BALLOT) {
		uint32_t *d = REG_AT(w, uint32_t, o->r[0]);

		for (uint32_t left = m; left; left &= left - 1)
			d[__builtin_ctz(left)] = p;
		return GO_ON;
	}
	r = o->kind == VOTE_ALL ? p == m : o->kind == VOTE_ANY ? p != 0 : p == m || !p;
	pred_set(w, o->r[0], r ? FULL : 0, m);
	return GO_ON;
}

int ptx_op_vote(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	return together(w, o, m, vote);
}

static uint64_t value_at(struct ptx_warp *w, uint32_t place, unsigned size, unsigned i)
{
	return size == 8 ? REG_AT(w, uint64_t, place)[i] :
		size == 4 ? REG_AT(w, uint32_t, place)[i] : REG_AT(w, uint16_t, place)[i];
}

static int match(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint32_t *d = REG_AT(w, uint32_t, o->r[0]), r[LANES];
	bool all = true;

	for (uint32_t left = m; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);

		r[i] = 0;
		for (uint32_t k = m; k; k &= k - 1)
			if (value_at(w, o->r[2], o->size, (unsigned)__builtin_ctz(k)) ==
			    value_at(w, o->r[2], o->size, i))
				r[i] |= k & -k;
		all &= r[i] == m;
	}
	for (uint32_t left = m; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);

		d[i] = !o->kind ? r[i] : all ? m : 0;
	}
	if (o->r[1])
		pred_set(w, o->r[1], all ? FULL : 0, m);
	return GO_ON;
}

int ptx_op_match(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	return together(w, o, m, match);
}

static int redux(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint32_t *d = REG_AT(w, uint32_t, o->r[0]), r = 0;
	const uint32_t *a = REG_AT(w, uint32_t, o->r[1]), flip = o->n ? 0x80000000 : 0;
	bool first = true;

	for (uint32_t left = m; left; left &= left - 1, first = false) {
		uint32_t v = a[__builtin_ctz(left)];

		if (first)
			r = v;
		else if (o->kind == ATOM_ADD)
			r += v;
		else if (o->kind == ATOM_AND)
			r &= v;
		else if (o->kind == ATOM_OR)
			r |= v;
		else if (o->kind == ATOM_XOR)
			r ^= v;
		else if (((v ^ flip) < (r ^ flip)) == (o->kind == ATOM_MIN))
			r = v;
	}
	for (uint32_t left = m; left; left &= left - 1)
		d[__builtin_ctz(left)] = r;
	return GO_ON;
}

int ptx_op_redux(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	return together(w, o, m, redux);
}

static int nothing(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	return GO_ON;
}

int ptx_op_warpsync(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	return together(w, o, m, nothing);
}

int ptx_op_activemask(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint32_t *d = REG_AT(w, uint32_t, o->r[0]);

	for (uint32_t left = m; left; left &= left - 1)
		d[__builtin_ctz(left)] = m;
	return GO_ON;
}

/* ---- barriers ------------------------------------------------------------------------ */

static int arrive(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	unsigned lane = (unsigned)__builtin_ctz(m);
	uint32_t id = REG_AT(w, uint32_t, o->r[1])[lane], n = (uint32_t)__builtin_popcount(m);
	uint32_t p = o->r[3] ? *pred_at(w, o->r[3]) & m : 0;
	struct ptx_barrier *bar;

	if (id >= BARRIERS)
		return ptx_fail(w, o, -EFAULT, lane, "there is no barrier %u", id);
	bar = &w->b->bar[id];
	if (!bar->arrived)
		bar->all = true;
	bar->arrived += n;
	bar->weight += o->n ? LANES : n;
	if (o->r[2])
		bar->expected = REG_AT(w, uint32_t, o->r[2])[lane];
	if (o->r[2] && (!bar->expected || (o->n && bar->expected % LANES)))
		return ptx_fail(w, o, -EFAULT, lane, "a barrier of %u threads", bar->expected);
	bar->popc += (uint32_t)__builtin_popcount(p);
	bar->all &= p == m;
	bar->any |= p != 0;
	if (o->kind == BAR_ARRIVE)
		return GO_ON;
	ptx_path_add(w, o, m, PATH_BARRIER);
	w->path[w->npaths - 1].barrier = id;
	ptx_mask_set(w, w->mask & ~m);
	return LEAVE_SCHED;
}

int ptx_op_bar(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	return together(w, o, m, arrive);
}

static void go_on(struct ptx_warp *w, struct ptx_path *p, const struct ptx_barrier *bar)
{
	const struct ptx_op *o = p->pc;

	if (o->kind == BAR_POPC)
		for (uint32_t left = p->mask; left; left &= left - 1)
			REG_AT(w, uint32_t, o->r[0])[__builtin_ctz(left)] = bar->popc;
	else if (o->kind == BAR_AND || o->kind == BAR_OR)
		pred_set(w, o->r[0], (o->kind == BAR_AND ? bar->all : bar->any) ? FULL : 0,
			 p->mask);
	p->pc++;
	p->state = PATH_RUN;
}

bool ptx_barriers_release(struct ptx_block *b)
{
	bool any = false;

	for (uint32_t id = 0; id < BARRIERS; id++) {
		struct ptx_barrier *bar = &b->bar[id];

		if (!bar->arrived ||
		    (bar->expected ? bar->weight < bar->expected : bar->arrived < b->alive))
			continue;
		for (uint32_t i = 0; i < b->nwarps; i++) {
			struct ptx_warp *w = &b->warps[i];

			for (uint32_t k = 0; k < w->npaths; k++)
				if (w->path[k].state == PATH_BARRIER && w->path[k].barrier == id)
					go_on(w, &w->path[k], bar);
		}
		*bar = (struct ptx_barrier){ 0 };
		any = true;
	}
	return any;
}

/* ---- atomics --------------------------------------------------------------------------- */

static uint64_t combine(enum atom op, enum ptx_type t, uint64_t old, uint64_t b, uint64_t c)
{
	bool s = type_signed(t);
	int64_t x = s && t == T_S32 ? (int32_t)old : (int64_t)old;
	int64_t y = s && t == T_S32 ? (int32_t)b : (int64_t)b;

	switch (op) {
	case ATOM_MIN: return s ? (x < y ? old : b) : old < b ? old : b;
	case ATOM_MAX: return s ? (x > y ? old : b) : old > b ? old : b;
	case ATOM_AND: return old & b;
	case ATOM_OR: return old | b;
	case ATOM_XOR: return old ^ b;
	case ATOM_EXCH: return b;
	case ATOM_CAS: return old == b ? c : old;
	case ATOM_INC: return old >= b ? 0 : old + 1;
	case ATOM_DEC: return !old || old > b ? b : old - 1;
	default: break;
	}
	switch (t) {
	case T_F32:
		return bits_f32(canon_f32(f32_bits((uint32_t)old) + f32_bits((uint32_t)b)));
	case T_F64: return bits_f64(canon_f64(f64_bits(old) + f64_bits(b)));
	case T_F16: return f16_of(f16_to((uint16_t)old) + f16_to((uint16_t)b));
	case T_BF16: return bf16_of(bf16_to((uint16_t)old) + bf16_to((uint16_t)b));
	case T_F16X2:
		return (uint32_t)f16_of(f16_to((uint16_t)(old >> 16)) +
					f16_to((uint16_t)(b >> 16))) << 16 |
			f16_of(f16_to((uint16_t)old) + f16_to((uint16_t)b));
	case T_BF16X2:
		return (uint32_t)bf16_of(bf16_to((uint16_t)(old >> 16)) +
					 bf16_to((uint16_t)(b >> 16))) << 16 |
			bf16_of(bf16_to((uint16_t)old) + bf16_to((uint16_t)b));
	default: return old + b;
	}
}

#define ATOMIC(T) \
	static uint64_t atomic_##T(T *at, const struct ptx_op *o, uint64_t b, uint64_t c) \
	{ \
		T old = __atomic_load_n(at, __ATOMIC_RELAXED), new; \
		do { \
			new = (T)combine((enum atom)o->n, (enum ptx_type)o->rnd, old, b, c); \
		} while (!__atomic_compare_exchange_n(at, &old, new, false, __ATOMIC_SEQ_CST, \
						      __ATOMIC_RELAXED)); \
		return old; \
	}
ATOMIC(uint16_t)
ATOMIC(uint32_t)
ATOMIC(uint64_t)

int ptx_op_atom(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	for (uint32_t left = m; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);
		uint64_t addr = value_at(w, o->r[5], o->kind, i) + (uint64_t)o->imm, old;
		uint64_t b = value_at(w, o->r[1], o->size, i);
		uint64_t c = o->r[2] ? value_at(w, o->r[2], o->size, i) : 0;
		void *at = ptx_reach(w, o, o->kind == 4 ? (uint32_t)addr : addr, i, o->size, true);

		if (!at)
			return LEAVE_FAULT;
		old = o->size == 8 ? atomic_uint64_t(at, o, b, c) :
			o->size == 4 ? atomic_uint32_t(at, o, b, c) : atomic_uint16_t(at, o, b, c);
		if (o->r[0])
			memcpy(w->r + o->r[0] + i * o->size, &old, o->size);
	}
	return GO_ON;
}

/* r5: to, in shared memory; r1: from; r2: bytes that are there, the rest zeros. */
int ptx_op_cpasync(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	struct ptx_op to = *o, from = *o;

	to.space = SP_SHARED;
	from.space = SP_GLOBAL;
	for (uint32_t left = m; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left), n = o->size;
		uint64_t d = value_at(w, o->r[5], o->kind, i) + (uint64_t)(int64_t)(int32_t)o->imm;
		uint64_t s = value_at(w, o->r[1], 8, i) + (uint64_t)(o->imm >> 32);
		uint8_t *at = ptx_reach(w, &to, d, i, o->size, true), buf[16] = { 0 }, *src;

		if (o->r[2] && value_at(w, o->r[2], 4, i) < n)
			n = (unsigned)value_at(w, o->r[2], 4, i);
		src = at && n ? ptx_reach(w, &from, s, i, o->size, false) : at;
		if (!at || !src)
			return LEAVE_FAULT;
		if (n)
			memcpy(buf, src, n);
		memcpy(at, buf, o->size);
	}
	return GO_ON;
}

/* ---- predicates, addresses ----------------------------------------------------------------- */

int ptx_op_predlogic(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint32_t a = *pred_at(w, o->r[1]), b = o->r[2] ? *pred_at(w, o->r[2]) : 0;

	switch (o->kind) {
	case LOGIC_AND: a &= b; break;
	case LOGIC_OR: a |= b; break;
	case LOGIC_XOR: a ^= b; break;
	case LOGIC_NOT: a = ~a; break;
	default: break;
	}
	pred_set(w, o->r[0], a, m);
	return GO_ON;
}

/* setp.lt.and p|q, a, b, c: p = t and c, q = not t and c. */
int ptx_op_setpx(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint32_t t = *pred_at(w, o->r[2]), p = t, q = ~t;

	if (o->r[3]) {
		uint32_t c = *pred_at(w, o->r[3]);

		p = o->kind == LOGIC_AND ? t & c : o->kind == LOGIC_OR ? t | c : t ^ c;
		q = o->kind == LOGIC_AND ? ~t & c : o->kind == LOGIC_OR ? ~t | c : ~t ^ c;
	}
	pred_set(w, o->r[0], p, m);
	if (o->r[1])
		pred_set(w, o->r[1], q, m);
	return GO_ON;
}

int ptx_op_cvta(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint64_t *d = REG_AT(w, uint64_t, o->r[0]);
	const uint64_t *a = REG_AT(w, uint64_t, o->r[1]), base = WINDOW_BASE(o->kind);

	for (unsigned i = 0; i < LANES; i++)
		if (m >> i & 1)
			d[i] = o->n ? a[i] - base : a[i] + base;
	return GO_ON;
}

int ptx_op_isspacep(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	const uint64_t *a = REG_AT(w, uint64_t, o->r[1]);
	uint32_t r = 0;

	for (unsigned i = 0; i < LANES; i++) {
		unsigned win = WINDOW(a[i]);

		win = win >= WIN_SHARED && win <= WIN_PARAM ? win : 0;
		r |= (uint32_t)(win == o->kind) << i;
	}
	pred_set(w, o->r[0], r, m);
	return GO_ON;
}

int ptx_op_clock(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	uint64_t v = w->count >> o->imm;

	for (unsigned i = 0; i < LANES; i++)
		if (m >> i & 1)
			memcpy(w->r + o->r[0] + i * o->size, &v, o->size);
	return GO_ON;
}

/* imm: 1 subtracts, 2 takes the carry in, 4 gives it out; the size above. */
int ptx_op_carry(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	unsigned size = (unsigned)(o->imm >> 8);
	uint32_t out = 0;

	for (uint32_t left = m; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);
		uint64_t a = value_at(w, o->r[1], size, i), b = value_at(w, o->r[2], size, i);
		uint64_t in = o->imm & 2 ? w->carry >> i & 1 : 0, v, r;
		unsigned __int128 sum;

		sum = o->imm & 1 ? (unsigned __int128)a - b - in : (unsigned __int128)a + b + in;
		v = (uint64_t)sum;
		r = size == 8 ? (uint64_t)(sum >> 64) & 1 : v >> 32 & 1;
		out |= (uint32_t)r << i;
		memcpy(w->r + o->r[0] + i * size, &v, size);
	}
	if (o->imm & 4)
		w->carry = (w->carry & ~m) | out;
	return GO_ON;
}
