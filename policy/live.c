/* SPDX-License-Identifier: MIT */
/* live.c - the live policy: its memory, its chunks, what it is told.
 *
 * Two classes of chunks, told apart by pol_loopish:
 *
 *   loop class    has a place in the order of use, and is trusted to be used
 *                 once a pass: prefetched along the order, evicted behind it
 *   skew class    the rest: fetched on demand (experts as a set), replaced
 *                 by second chance, seen through SOFTEN
 *
 * States and transitions are policy.h's; all pass through pol_moved.
 *
 * (L1) A chunk is on at most one list, the one home_list names.
 * (L2) The maps and counts say what the chunks say: every change lies
 *      between pol_leave and pol_enter. pol_check proves it in tests.
 * (L3) A demanded chunk stays F_DEMAND until it is PLAIN: never lost.
 * (L4) Decisions change no chunk's state: only what pol_moved reports counts.
 * Lock: none, the caller serialises.
 */
#include "policy/policy_int.h"

#define HEAT_MAX 7u
#define THRASH 256u		/* demands, less THRASH_BACK per rescue */
#define THRASH_BACK 16u
#define SKEW_MORE 2u	/* frames beside those of skewed chunks now: for the next */

static size_t align64(size_t n)
{
	return (n + 63) & ~(size_t)63;
}

static uint32_t stacks_max(uint32_t max_chunks)
{
	return max_chunks < POL_STACKS_MAX ? max_chunks : POL_STACKS_MAX;
}

static size_t map_bytes(uint32_t max_chunks)
{
	return align64(((size_t)max_chunks + 63) / 64 * 8);
}

size_t pol_size(uint32_t max_chunks)
{
	size_t n = max_chunks;

	return align64(sizeof(struct pol)) +
	       align64((n + 1) * sizeof(struct pol_chunk)) +
	       align64((n + 1) * sizeof(uint64_t)) +
	       2 * align64(n * sizeof(uint32_t)) +
	       B_N * map_bytes(max_chunks) +
	       align64(stacks_max(max_chunks) * sizeof(struct pol_stack));
}

static void *carve(uint8_t **at, size_t bytes)
{
	void *here = *at;

	*at += align64(bytes);
	return here;
}

struct pol *pol_init(void *zeroed, const struct pol_conf *conf)
{
	uint8_t *at = zeroed;
	struct pol *p = carve(&at, sizeof(*p));
	size_t n = conf->max_chunks;

	p->conf = *conf;
	p->frames = conf->frames;
	p->rng = conf->seed;
	p->chunk = carve(&at, (n + 1) * sizeof(*p->chunk));	/* and pol_gap's */
	p->chunk[n].pos = POL_NIL;
	p->key = carve(&at, (n + 1) * sizeof(*p->key));
	p->seq = carve(&at, n * sizeof(*p->seq));
	p->start = carve(&at, n * sizeof(*p->start));
	for (int m = 0; m < B_N; m++)
		p->map[m] = carve(&at, map_bytes(conf->max_chunks));
	p->stacks = carve(&at, stacks_max(conf->max_chunks) *
			       sizeof(*p->stacks));
	for (int l = 0; l < L_N; l++)
		p->list[l].head = p->list[l].tail = POL_NIL;
	p->asked = p->cand = POL_NIL;
	p->trust = TRUST_NEW;
	p->c.frames = p->frames;
	pol_quota(p);
	return p;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* Frames of the loop class: all of it where it fits beside a small share
 * for the rest, because each frame of it is a hit per pass. Of that share no more
 * than is in use: it grows with each fault, and what is idle leaves it (pick.c). */
static uint32_t loop_frames(struct pol *p)
{
	uint32_t least = min_u32(max_u32(p->frames / 16, 8), p->frames / 4);

	least = min_u32(least, pol_used_skew(p) + SKEW_MORE);
	least = min_u32(least, p->n_known - p->n_loop);
	if ((uint64_t)p->n_loop + least <= p->frames)
		p->skew_quota = p->frames - p->n_loop;
	else
		p->skew_quota = least;
	return p->frames - p->skew_quota;
}

/* Holes are spread over what is neither guarded nor fetched ahead, so that
 * holes + frames ahead come out right (see pick.c). */
void pol_quota(struct pol *p)
{
	uint32_t have = loop_frames(p), guard;
	uint64_t holes, room;

	p->window = p->hold = min_u32(p->conf.window, p->frames / 4);
	p->rho = 0;
	if (p->n_loop <= have)
		return;
	guard = pol_order_guard(p);
	p->hold = min_u32(p->hold, (p->n_loop - have) / 4 + 2);
	holes = p->n_loop - have + p->hold;
	room = p->n_loop > guard ? p->n_loop - guard : 1;
	p->rho = (uint64_t)1 << 32;
	if (holes < room)
		p->rho = (holes << 32) / room;
	if (!p->hold)	/* no frame to spare: rather too few holes */
		p->rho -= p->rho / 16;
}

static void account(struct pol *p, const struct pol_chunk *c, uint32_t one)
{
	p->count[c->state] += one;
	p->n_known += one;
	if (!pol_loopish(p, c))
		return;
	p->n_loop += one;
	if (pol_framed(c))
		p->used_loop += one;
}

void pol_leave(struct pol *p, uint32_t id)
{
	account(p, &p->chunk[id], -1u);
}

static enum pol_list home_list(const struct pol *p, const struct pol_chunk *c)
{
	if (c->flags & F_DEMAND) {
		if (c->state == POL_ABSENT)
			return L_FETCH;
		if (c->state == POL_READY)
			return L_INST;
		return L_NONE;
	}
	if (c->flags & F_COOL)
		return L_COOL;
	if (c->flags & F_PINNED || pol_loopish(p, c))
		return L_NONE;
	if (c->state == POL_PLAIN)
		return L_ACTIVE;
	return c->state == POL_READY ? L_SOFT : L_NONE;
}

static void put_maps(struct pol *p, const struct pol_chunk *c)
{
	bool loop = pol_loopish(p, c), ready = c->state == POL_READY;
	bool ahead = c->flags & F_AHEAD, waste = c->flags & F_WASTE;
	bool free = loop && !(c->flags & (F_DEMAND | F_COOL));
	bool movable = free && !(c->flags & (F_PINNED | F_RECENT));
	bool victim = movable && (c->state == POL_PLAIN || (ready && !ahead));

	pol_map_put(p, B_ABSENT, c->pos, free && c->state == POL_ABSENT);
	pol_map_put(p, B_LACK, c->pos, c->conf >= TRUST_NEW &&
		    !(c->flags & F_DORMANT) && c->state != POL_PLAIN);
	pol_map_put(p, B_READY, c->pos, movable && ready && ahead);
	pol_map_put(p, B_VICTIM, c->pos, victim);
	pol_map_put(p, B_HOLE, c->pos, victim && c->flags & F_HOLE);
	pol_map_put(p, B_AHEAD, c->pos, loop && ahead);
	pol_map_put(p, B_WASTE, c->pos, movable && ready && waste);
}

/* Next in turn at once: what was fetched in vain, and, while second chance
 * saves nothing (more is used in turn than there are frames), what was not
 * used twice lately: so that some of it stays until it is used again. */
static bool goes_first(const struct pol *p, const struct pol_chunk *c,
		       enum pol_list l)
{
	if (l == L_SOFT)
		return c->flags & F_WASTE;
	if (!(c->flags & F_SKEW) && p->fall_age <= p->good_least + 4)
		return false;	/* a loop must show itself whole, see learn.c */
	return l == L_ACTIVE && c->heat < 2 && p->thrash >= THRASH;
}

void pol_enter(struct pol *p, uint32_t id)
{
	struct pol_chunk *c = &p->chunk[id];
	enum pol_list l = home_list(p, c);

	account(p, c, 1);
	if (c->list != l) {
		pol_list_del(p, id);
		if (l != L_NONE)
			pol_list_add(p, l, id, goes_first(p, c, l));
		c->softened = (uint32_t)p->c.passes;
	}
	if (c->pos != POL_NIL && !(c->flags & F_NEW))
		put_maps(p, c);
}

/* Finds what chunk bytes at..at+len hold: the earliest loop span wins, for
 * one loop byte makes it a loop chunk. */
static void look_up(struct pol_chunk *c, uint64_t at, uint64_t len,
		    const struct pol_span *s, size_t n_spans, uint32_t base,
		    uint32_t *stack_of)
{
	uint32_t best = POL_NIL;

	for (size_t i = 0; i < n_spans && s[i].off < at + len; i++) {
		if (s[i].off + s[i].len <= at)
			continue;
		if (s[i].pattern == POL_LOOP && s[i].order <= best)
			best = s[i].order;
		if (s[i].pattern == POL_SKEW && s[i].slab)
			*stack_of = (uint32_t)i;
	}
	c->flags |= best == POL_NIL ? F_SKEW : F_SPAN;
	c->order = best == POL_NIL ? 0 : best + base;
}

static void add_one(struct pol *p, uint32_t id)
{
	struct pol_chunk *c = &p->chunk[id];

	c->conf = POL_CONF_START;
	c->pos = POL_NIL;
	c->flags |= F_KNOWN;
	if (!(c->flags & F_SKEW)) {
		if (p->n_seq == p->conf.max_chunks)
			pol_order_compact(p);	/* there are gaps */
		c->flags |= F_NEW;
		c->pos = p->n_seq;
		p->rebuild |= p->n_pos < p->n_seq;
		p->seq[p->n_seq++] = id;
		p->n_pos = p->n_seq;
		p->dirty = true;
	}
	pol_enter(p, id);
}

void pol_add(struct pol *p, uint32_t first, uint32_t n, uint32_t chunk_bytes,
	     uint64_t file_off, const struct pol_span *spans, size_t n_spans,
	     uint32_t order_base)
{
	uint32_t stack_of, stack_was = POL_NIL, stack = 0;
	uint64_t at = file_off;
	size_t skip = 0;

	pol_remove(p, first, n);
	p->serial++;
	for (uint32_t i = 0; i < n; i++, at += chunk_bytes) {
		struct pol_chunk *c = &p->chunk[first + i];

		*c = (struct pol_chunk){ .lived = c->lived };
		stack_of = POL_NIL;
		c->order = order_base;
		while (skip < n_spans && spans[skip].off + spans[skip].len <= at)
			skip++;
		if (n_spans)
			look_up(c, at, chunk_bytes, spans + skip,
				n_spans - skip, order_base, &stack_of);
		if (c->flags & F_SKEW && stack_of != POL_NIL) {
			stack_of += (uint32_t)skip;
			if (stack_of != stack_was)
				stack = pol_stack_add(p, &spans[stack_of],
						      first, n, chunk_bytes,
						      file_off);
			stack_was = stack_of;
			c->stack = stack;
		}
		add_one(p, first + i);
	}
	pol_quota(p);
}

void pol_remove(struct pol *p, uint32_t first, uint32_t n)
{
	uint32_t ordered = 0;
	bool gaps;

	for (uint32_t id = first; id < first + n; id++)
		ordered += (p->chunk[id].flags & (F_KNOWN | F_SKEW)) == F_KNOWN;
	gaps = pol_order_may_gap(p, ordered);
	for (uint32_t id = first; id < first + n; id++) {
		struct pol_chunk *c = &p->chunk[id];

		if (!(c->flags & F_KNOWN))
			continue;
		pol_leave(p, id);
		pol_list_del(p, id);
		if (gaps && !(c->flags & F_SKEW))
			pol_order_gap(p, c->pos);
		c->flags = 0;
		c->stack = 0;
		c->state = POL_ABSENT;
	}
	if (ordered && !gaps)
		pol_order_compact(p);
	else if (p->n_pos < p->n_seq)
		pol_order_wake(p, p->seq[p->lead]);
	pol_quota(p);
}

static void flag_recent(struct pol *p, uint32_t id, bool on)
{
	pol_leave(p, id);
	if (on)
		p->chunk[id].flags |= F_RECENT;
	else
		p->chunk[id].flags &= (uint16_t)~F_RECENT;
	pol_enter(p, id);
}

/* Frames that chunks of late faults may keep. An instruction that copies waits
 * for two chunks and would else never have both; where frames are few, several
 * threads that copy need most of them. */
static uint32_t recent_most(const struct pol *p)
{
	uint32_t n = min_u32(p->frames / 4, max_u32(p->frames / 16, 4));

	if (p->frames < POL_RECENT)
		n = p->frames > 3 ? p->frames - 2 : p->frames - !!p->frames;
	return min_u32(n, POL_RECENT);
}

static void forget_recent(struct pol *p, uint32_t i)
{
	uint32_t old = p->recent[i];

	p->recent[i] = 0;
	if (old && p->chunk[old - 1].flags & F_KNOWN)
		flag_recent(p, old - 1, false);
}

void pol_set_frames(struct pol *p, uint32_t frames)
{
	p->frames = frames;
	for (uint32_t i = recent_most(p); i < POL_RECENT; i++)
		forget_recent(p, i);
	pol_quota(p);
}

static void count_fault(struct pol *p, const struct pol_chunk *c)
{
	if (c->list == L_SOFT)
		p->thrash = p->thrash > THRASH_BACK ? p->thrash - THRASH_BACK : 0;
	else if (c->state == POL_ABSENT && !pol_loopish(p, c) &&
		 p->thrash < 2 * THRASH && pol_used(p) >= p->frames)
		p->thrash++;
	p->c.faults++;
	p->c.milestones += c->state == POL_READY;
	p->c.demand += c->state == POL_ABSENT || c->state == POL_INFLIGHT;
	p->c.late += c->state == POL_INFLIGHT;
}

/* What a seen use says of a chunk. One that is not trusted wins trust by
 * uses in three passes running: experts come in shorter runs. */
static void judge_use(struct pol *p, struct pol_chunk *c)
{
	uint32_t pass = (uint32_t)p->c.passes + 1;

	if (c->heat < HEAT_MAX)
		c->heat++;
	if (c->list == L_SOFT)
		c->rounds = c->heat - 1;
	if (c->state == POL_READY && c->flags & F_PREF && c->conf >= TRUST_NEW)
		c->conf = POL_CONF_MAX;
	if (c->pass != pass) {
		c->streak = c->pass + 1 == pass ? c->streak + 1 : 1;
		if (c->streak >= 3) {
			c->streak = 3;
			if (c->conf < TRUST_NEW)
				c->conf = TRUST_NEW;
		}
	}
	c->pass = pass;
}

/* Whoever faulted needs time to use what it waited for: the chunks of the
 * last faults are nobody's victims, a quarter of the frames at most. Without
 * this, threads far apart take each other's chunk away before it is used. */
static void note_recent(struct pol *p, uint32_t id)
{
	uint32_t n = recent_most(p);

	if (p->chunk[id].flags & F_RECENT || !n)
		return;
	p->recent_at = (p->recent_at + 1) % n;
	forget_recent(p, p->recent_at);
	p->recent[p->recent_at] = id + 1;
	flag_recent(p, id, true);
}

void pol_fault(struct pol *p, uint32_t chunk, uint32_t stream)
{
	struct pol_chunk *c = &p->chunk[chunk];

	if (chunk >= p->conf.max_chunks || !(c->flags & F_KNOWN))
		return;
	pol_order_flush(p);
	count_fault(p, c);
	p->mischief = 2;
	p->idle_due = true;
	if (c->flags & F_DORMANT)
		pol_order_widen(p, chunk);
	if (c->flags & F_PREF && c->state == POL_READY)
		pol_learn_guess(p, true);
	if (c->flags & F_WASTE && p->miss)
		p->miss--;		/* it was only late */
	if (c->state == POL_ABSENT && c->stack)
		pol_stack_wish(p, chunk);
	pol_leave(p, chunk);
	judge_use(p, c);
	if (c->pos != POL_NIL)
		p->calm = c->state == POL_READY ? p->calm + 1 : 0;
	p->repeat = c->flags & F_DEMAND;
	c->flags &= ~(F_PREF | F_AHEAD | F_WASTE | F_COOL);
	if (c->state != POL_PLAIN)
		c->flags |= F_DEMAND;
	pol_enter(p, chunk);
	note_recent(p, chunk);
	if (c->pos != POL_NIL)
		pol_order_fault(p, chunk, stream);
	pol_quota(p);
}

/* An action that did not happen. The chunk is left alone till the pass
 * ends; one that is waited for goes to the back of its queue instead. */
static void failed(struct pol *p, uint32_t id)
{
	struct pol_chunk *c = &p->chunk[id];

	if (c->flags & F_DEMAND)
		pol_list_del(p, id);
	else
		c->flags |= F_COOL;
	c->flags &= ~F_AHEAD;
}

static void arrived(struct pol *p, struct pol_chunk *c)
{
	uint32_t guard;

	if (c->pos == POL_NIL || c->flags & (F_AHEAD | F_DEMAND))
		return;
	guard = pol_dist(p, p->tail, p->lead);
	if (c->flags & F_PREF && pol_dist(p, p->tail, c->pos) > guard)
		c->flags |= F_WASTE;
}

/* Flags and totals of a change of state; the state is still the old one. */
static void transit(struct pol *p, struct pol_chunk *c, enum pol_state to)
{
	c->flags &= ~F_COOL;
	if (to == POL_INFLIGHT && !(c->flags & F_DEMAND)) {
		p->c.prefetches++;
		c->flags |= F_PREF;
		if (pol_loopish(p, c))
			c->flags |= F_AHEAD;
	}
	if (to == POL_READY && c->state == POL_INFLIGHT)
		arrived(p, c);
	if (to == POL_PLAIN)
		c->flags &= ~(F_DEMAND | F_WASTE | F_PREF);
	if (to == POL_PLAIN && c->state == POL_ABSENT)
		c->flags |= F_BORN;
	if (to == POL_ABSENT) {
		c->flags &= ~F_BORN;
		p->c.evictions += c->state != POL_INFLIGHT;
		c->heat = 0;
		p->c.wasted += !!(c->flags & F_PREF);
		c->flags &= ~(F_PREF | F_AHEAD | F_WASTE);
	}
}

void pol_moved(struct pol *p, uint32_t chunk, enum pol_state st)
{
	struct pol_chunk *c = &p->chunk[chunk];

	if (chunk >= p->conf.max_chunks || !(c->flags & F_KNOWN))
		return;
	pol_order_flush(p);
	pol_leave(p, chunk);
	if (st != c->state)
		transit(p, c, st);
	else if (chunk == p->asked)
		failed(p, chunk);
	c->state = st;
	p->asked = POL_NIL;
	pol_enter(p, chunk);
}

void pol_born(struct pol *p, uint32_t chunk)
{
	struct pol_chunk *c = &p->chunk[chunk];

	if (chunk >= p->conf.max_chunks || !(c->flags & F_KNOWN) || c->lived)
		return;
	c->lived = true;
	c->flags |= F_BORN;
}

void pol_pin(struct pol *p, uint32_t chunk, int pinned)
{
	struct pol_chunk *c = &p->chunk[chunk];

	if (chunk >= p->conf.max_chunks || !(c->flags & F_KNOWN))
		return;
	pol_leave(p, chunk);
	c->flags &= ~F_PINNED;
	if (pinned)
		c->flags |= F_PINNED;
	pol_enter(p, chunk);
}

enum pol_state pol_state_of(const struct pol *p, uint32_t chunk)
{
	return p->chunk[chunk].state;
}

int pol_stays(const struct pol *p, uint32_t chunk)
{
	const struct pol_chunk *c = &p->chunk[chunk];

	return c->state == POL_PLAIN && !(c->flags & F_HOLE);
}

void pol_counts(const struct pol *p, struct pol_counts *out)
{
	uint64_t want = (uint64_t)p->n_loop + p->skew_quota;

	*out = p->c;
	out->frames = p->frames;
	out->used = pol_used(p);
	out->skew = p->skew_quota;
	out->hold = p->hold;
	out->known = p->n_known;
	out->fallback = p->trust == TRUST_NONE;
	out->period = p->n_loop;
	out->bound = want > p->frames ? (uint32_t)(want - p->frames) : 0;
}
