/* SPDX-License-Identifier: MIT */
/* pick.c - what to do next.
 *
 * Holes. A dense pass is a loop, so the furthest next use lies just behind
 * the guard zone. Evicting whatever is there would put the holes in one run:
 * the disk idle while the program walks what is kept, the program idle while
 * it walks the run. So which chunks are holes is said as tail passes them,
 * by error diffusion: each adds rho, and each time the sum reaches one that
 * chunk is a hole. With n chunks, F frames, a zone of g and w held ahead,
 * rho = (n - F + w) / (n - g) keeps just F frames in use, and a pass reads
 * n - F + w and a little. The victim is the hole nearest behind tail.
 *
 * Holes stay where they are: one remains a hole a little before its turn, and
 * a kept chunk becomes one a little after it (HOLE_SLACK). Then the same few
 * frames are read into, again and again, and a disk fills memory that was
 * filled a moment ago faster (seen at depth 8: 2.97 GB/s into 8 frames, 2.36
 * into 32, 1.3 to 1.9 into 320). What was never fetched has no copy: it would have to be
 * written first, so it waits longer still (BORN_MOST).
 *
 * While a program fills its memory, each chunk for the first time, its victims are
 * holes from the start, spread over what there is: were they what it filled last, the
 * first passes would move most of the holes, and each move stores another chunk.
 *
 * (P1) Demand comes first, then room, then installs, then prefetch.
 * (P2) A prefetch takes only a frame whose chunk is needed later than the
 *      one fetched (aggressive prefetching, Cao et al. 1995).
 * (P3) A batch of installs leaves the last READY ones as milestones.
 * (P4) A demand is served even when nothing can be evicted: over budget.
 * Lock: none, the caller serialises.
 */
#include "policy/policy_int.h"

#define ONE ((int64_t)1 << 32)
#define HOLE_SLACK (2 * ONE)
#define BORN_MOST 4u	/* more of it for what has no copy, where frames are many */
#define SKEW_IDLE 8u	/* passes */
#define SKEW_LEAST 4u	/* skewed chunks of late faults that always stay */

/* How a victim may be chosen. */
enum need {
	NEED_AHEAD,	/* a guess wants the frame: (P2) */
	NEED_SET,	/* an expert's other chunks want it */
	NEED_SKEW,	/* a skewed chunk is waited for */
	NEED_LOOP,	/* a chunk of the loop is waited for, or over budget */
	NEED_FILL,	/* one that never had a frame */
};

static struct pol_action act(struct pol *p, enum pol_act a, uint32_t id)
{
	struct pol_action r = { a, id, a == POL_FETCH &&
				p->chunk[id].flags & F_DEMAND };

	p->asked = id;
	return r;
}

uint32_t pol_random(struct pol *p)
{
	p->rng ^= p->rng << 13;
	p->rng ^= p->rng >> 17;
	p->rng ^= p->rng << 5;
	return p->rng;
}

static uint32_t zone(const struct pol *p)
{
	return pol_dist(p, p->tail, p->lead) + 1;
}

/* Positions that are neither in the zone nor guarded otherwise. */
static uint32_t outside(const struct pol *p)
{
	return p->n_pos - zone(p);
}

static void set_hole(struct pol *p, uint32_t id, bool on)
{
	if (on == !!(p->chunk[id].flags & F_HOLE))
		return;
	pol_leave(p, id);
	p->chunk[id].flags ^= F_HOLE;
	pol_enter(p, id);
}

static int64_t born_more(const struct pol *p)
{
	return p->frames / 64 < BORN_MOST ? p->frames / 64 : BORN_MOST;
}

void pol_pick_holes(struct pol *p, uint32_t pos, uint32_t n)
{
	for (; n--; pos = pol_fwd(p, pos, 1)) {
		uint32_t id = p->seq[pos];
		const struct pol_chunk *c = &p->chunk[id];
		bool was = c->flags & F_HOLE, is;
		int64_t slack = HOLE_SLACK + (c->flags & F_BORN ? born_more(p) * ONE : 0);

		if (!pol_loopish(p, c) || c->flags & F_PINNED || !pol_framed(c))
			continue;
		p->acc += (int64_t)p->rho;
		is = p->acc >= ONE + (was ? -HOLE_SLACK : slack);
		if (is)
			p->acc -= ONE;
		set_hole(p, id, is);
	}
}

/* The hole nearest behind tail whose next use is at least `later` positions
 * from it, or POL_NIL. */
static uint32_t nearest_hole(struct pol *p, uint32_t later)
{
	uint32_t room = outside(p);

	if (later > zone(p))
		room = p->n_pos > later ? p->n_pos - later : 0;
	return room ? pol_map_prev(p, B_HOLE, pol_back(p, p->tail, 1), room) :
	       POL_NIL;
}

/* The victim at pos, or one a little further behind that has a copy already. */
static uint32_t cheap_near(struct pol *p, uint32_t pos, uint32_t room)
{
	uint32_t at = pos;

	for (int i = 0; i < 4 * born_more(p) && at != POL_NIL; i++) {
		uint32_t gone = pol_dist(p, at, pol_back(p, p->tail, 1)) + 1;

		if (!(p->chunk[p->seq[at]].flags & F_BORN))
			return at;
		at = gone < room ? pol_map_prev(p, B_VICTIM, pol_back(p, at, 1), room - gone) :
		     POL_NIL;
	}
	return pos;
}

/* The furthest next use: nearest behind the zone. The diffusion owes for
 * it, so that density stays right. */
static uint32_t furthest(struct pol *p, uint32_t later)
{
	uint32_t room = outside(p), pos;

	if (later > zone(p))
		room = p->n_pos > later ? p->n_pos - later : 0;
	if (!room)
		return POL_NIL;
	pos = cheap_near(p, pol_map_prev(p, B_VICTIM, pol_back(p, p->tail, 1), room), room);
	if (pos != POL_NIL && p->acc > -4 * ONE)
		p->acc -= ONE;
	return pos;
}

/* Nothing but what is ahead or in the zone is left. */
static uint32_t last_resort(struct pol *p)
{
	uint32_t pos = POL_NIL;

	if (outside(p))
		pos = pol_map_prev(p, B_READY, pol_back(p, p->tail, 1),
				   outside(p));
	if (pos == POL_NIL)
		pos = pol_map_next(p, B_VICTIM, p->tail, zone(p));
	if (pos == POL_NIL)
		pos = pol_map_next(p, B_READY, p->tail, zone(p));
	return pos;
}

/* A hole anywhere behind tail. Multiples of the golden ratio, modulo one, are spread
 * evenly however many there are (Knuth, The Art of Computer Programming 3, 6.4,
 * theorem S). */
static uint32_t spread(struct pol *p)
{
	uint32_t room = outside(p), back, pos;

	if (!room)
		return POL_NIL;
	p->spread += 2654435769u;
	back = (uint32_t)((uint64_t)p->spread * room >> 32);
	pos = pol_map_prev(p, B_VICTIM, pol_back(p, p->tail, 1 + back), room - back);
	if (pos == POL_NIL)
		pos = pol_map_prev(p, B_VICTIM, pol_back(p, p->tail, 1), room);
	if (pos != POL_NIL)
		set_hole(p, p->seq[pos], true);
	return pos;
}

static uint32_t loop_victim(struct pol *p, enum need need, uint32_t later)
{
	uint32_t pos;

	if (!p->n_pos)
		return POL_NIL;
	pos = need == NEED_FILL ? spread(p) : nearest_hole(p, later);
	/* Enough is held ahead: no new hole for more, the tail will bring one. */
	if (pos == POL_NIL &&
	    (need != NEED_AHEAD || p->map_n[B_AHEAD] < p->hold / 2))
		pos = furthest(p, later);
	if (pos == POL_NIL && need >= NEED_SKEW)
		pos = last_resort(p);
	return pos == POL_NIL ? POL_NIL : p->seq[pos];
}

/* The first of a list that was not faulted on just now, or POL_NIL. */
static uint32_t oldest(const struct pol *p, enum pol_list l)
{
	uint32_t id = p->list[l].head;

	while (id != POL_NIL && p->chunk[id].flags & F_RECENT)
		id = p->chunk[id].next;
	return id;
}

/* Second chance, seen through faults: a chunk that was softened and not
 * used since. */
static uint32_t skew_victim(const struct pol *p)
{
	uint32_t id = oldest(p, L_SOFT);

	if (id == POL_NIL)
		id = oldest(p, L_ACTIVE);
	if (id == POL_NIL && p->list[L_ACTIVE].n > SKEW_LEAST)
		id = p->list[L_ACTIVE].head;
	return id;
}

/* Whose frame to give up; later: see sweep (0: any). POL_NIL: nobody's. */
static uint32_t victim(struct pol *p, enum need need, uint32_t later)
{
	uint32_t skew = pol_used_skew(p), id;

	if (need == NEED_SKEW || need == NEED_SET)
		skew++;
	if (p->map_n[B_WASTE])
		return p->seq[pol_map_next(p, B_WASTE, 0, p->n_pos)];
	if (skew > p->skew_quota) {
		id = skew_victim(p);
		if (id != POL_NIL)
			return id;
	}
	id = loop_victim(p, need, later);
	if (id == POL_NIL && need != NEED_AHEAD)
		id = skew_victim(p);
	return id;
}

static bool full(const struct pol *p)
{
	return pol_used(p) >= p->frames;
}

static struct pol_action none(void)
{
	struct pol_action a = { POL_NONE, 0, 0 };

	return a;
}

/* Over budget: it shrank, or a demand was served beyond it. */
static struct pol_action give_back(struct pol *p)
{
	uint32_t id;

	if (pol_used(p) <= p->frames)
		return none();
	id = victim(p, NEED_LOOP, 0);
	return id == POL_NIL ? none() : act(p, POL_EVICT, id);
}

static enum need need_of(const struct pol *p, const struct pol_chunk *c)
{
	return !pol_loopish(p, c) ? NEED_SKEW : c->flags & F_BORN ? NEED_FILL : NEED_LOOP;
}

static struct pol_action demand(struct pol *p, uint32_t io_room)
{
	uint32_t id = p->list[L_FETCH].head, v;

	if (id == POL_NIL)
		return none();
	if (full(p)) {
		v = victim(p, need_of(p, &p->chunk[id]), 0);
		if (v != POL_NIL)
			return act(p, POL_EVICT, v);
		if (p->count[POL_INFLIGHT])
			return none();	/* one of them will do */
	}
	return io_room ? act(p, POL_FETCH, id) : none();	/* (P4) */
}

/* Torture: takes something away that nobody waits for. */
static struct pol_action mischief(struct pol *p)
{
	const struct pol_chunk *c;
	uint32_t id;

	if (!p->rng || !p->mischief || !p->n_pos || pol_random(p) & 3)
		return none();
	p->mischief--;
	id = p->seq[pol_random(p) % p->n_pos];
	c = &p->chunk[id];
	if (!(c->flags & F_KNOWN) || c->flags & (F_PINNED | F_DEMAND))
		return none();
	if (c->state == POL_PLAIN)
		return act(p, pol_random(p) & 1 ? POL_SOFTEN : POL_EVICT, id);
	return c->state == POL_READY ? act(p, POL_EVICT, id) : none();
}

/* (P3) */
static struct pol_action batch(struct pol *p)
{
	uint32_t pos = pol_fwd(p, p->from, 1), n = p->n_pos / 2, hit;

	if (p->rng && p->batch && pol_random(p) & 1)
		p->batch = 0;
	while (p->batch) {
		hit = pol_map_next(p, B_READY, pos, n);
		if (hit == POL_NIL)
			break;
		p->batch--;
		if (p->chunk[p->seq[hit]].conf == POL_CONF_MAX)
			return act(p, POL_INSTALL, p->seq[hit]);
		n -= pol_dist(p, pos, hit) + 1;
		pos = pol_fwd(p, hit, 1);
	}
	p->batch = 0;
	return none();
}

/* The next skewed chunk to be softened. Second chances grow with the uses
 * seen: a chunk rescued often is spared for as many rounds. */
static uint32_t next_soft(struct pol *p)
{
	uint32_t id;

	for (uint32_t n = p->list[L_ACTIVE].n; n; n--) {
		id = p->list[L_ACTIVE].head;
		if (!p->chunk[id].rounds)
			break;
		p->chunk[id].rounds--;
		pol_list_del(p, id);
		pol_list_add(p, L_ACTIVE, id, false);
	}
	return oldest(p, L_ACTIVE);
}

/* Keeps half of the skewed frames softened, so that uses are seen. */
static struct pol_action soften(struct pol *p)
{
	uint32_t skew = p->list[L_ACTIVE].n + p->list[L_SOFT].n, id;

	if (pol_used(p) + p->window < p->frames)
		return none();
	if (skew < p->skew_quota / 2 || p->list[L_SOFT].n >= skew / 2)
		return none();
	id = next_soft(p);
	return id == POL_NIL ? none() : act(p, POL_SOFTEN, id);
}

/* learn.c wants to see every chunk's next use. */
static struct pol_action survey(struct pol *p)
{
	uint32_t pos;

	while (p->survey > 0 && p->survey <= p->n_pos) {
		pos = pol_map_next(p, B_VICTIM, p->n_pos - p->survey,
				   p->survey);
		if (pos == POL_NIL)
			break;
		p->survey = p->n_pos - pos - 1;
		if (p->chunk[p->seq[pos]].state == POL_PLAIN)
			return act(p, POL_SOFTEN, p->seq[pos]);
	}
	p->survey = 0;
	return none();
}

/* A skewed chunk that nobody used for so many passes has its frame give the loop as
 * many hits, read ahead, for one miss that is waited for. One for each fault: they may
 * have to be written. */
static struct pol_action idle(struct pol *p)
{
	uint32_t id = p->idle_due ? oldest(p, L_SOFT) : POL_NIL;

	p->idle_due = false;
	if (id == POL_NIL || p->n_loop + pol_used_skew(p) <= p->frames ||
	    (uint32_t)p->c.passes - p->chunk[id].softened <= SKEW_IDLE)
		return none();
	return act(p, POL_EVICT, id);
}

static struct pol_action expert(struct pol *p)
{
	uint32_t id = pol_stack_next(p), v;

	if (id == POL_NIL)
		return none();
	if (!full(p)) {
		pol_stack_granted(p);
		return act(p, POL_FETCH, id);
	}
	v = victim(p, NEED_SET, 0);
	if (v != POL_NIL)
		return act(p, POL_EVICT, v);
	p->n_wishes = 0;
	return none();
}

static struct pol_action ahead(struct pol *p)
{
	uint32_t pos, id, most;

	/* while frames are free, holding more costs nothing */
	most = pol_used(p) + p->window < p->frames ? p->window : p->hold;
	if (p->map_n[B_AHEAD] >= most || !p->started || !p->n_pos)
		return none();
	pos = pol_map_next(p, B_ABSENT, pol_fwd(p, p->from, p->n_pos > 1),
			   p->n_pos - 1);
	if (pos == POL_NIL)
		return none();
	if (!full(p))
		return act(p, POL_FETCH, p->seq[pos]);
	id = victim(p, NEED_AHEAD, pol_dist(p, p->tail, pos) + 1);
	return id == POL_NIL ? none() : act(p, POL_EVICT, id);
}

int pol_waiting(const struct pol *p)
{
	return p->list[L_INST].n != 0;
}

struct pol_action pol_next(struct pol *p, uint32_t io_room)
{
	struct pol_action a = none();

	pol_order_flush(p);
	if (p->list[L_INST].n)
		return act(p, POL_INSTALL, p->list[L_INST].head);
	a = give_back(p);
	if (!a.act)
		a = demand(p, io_room);
	if (!a.act)
		a = mischief(p);
	if (!a.act)
		a = batch(p);
	if (!a.act)
		a = survey(p);
	if (!a.act)
		a = soften(p);
	if (!a.act)
		a = idle(p);
	if (!a.act && io_room)
		a = expert(p);
	if (!a.act && io_room)
		a = ahead(p);
	return a;
}
