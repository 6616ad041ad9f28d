/* SPDX-License-Identifier: MIT */
/* sim.c - replaying a tape: the live policy, as a pager would run it.
 *
 * The live policy is told no more than a pager sees: a use of a PLAIN chunk
 * is not told at all. Fetches ahead take `delay` further uses; a demand
 * waits for its own.
 *
 * (M1) Before the next use the chunk used is PLAIN.
 * (M2) Never more frames than the budget, but for a demand nothing can be
 *      evicted for.
 * Lock: none.
 */
#include "policy/policy_int.h"

struct live {
	struct pol *p;
	const struct pol_sim *s;
	struct pol_result *out;
	uint64_t *due;		/* by chunk: use at which its fetch is done */
	uint32_t *queue;	/* chunks in flight, a ring */
	size_t head, tail;
	uint64_t now;
};

size_t pol_sim_size(uint32_t chunks)
{
	return pol_size(chunks) + 64 + (size_t)chunks * sizeof(uint64_t) +
	       ((size_t)chunks + 1) * sizeof(uint32_t);
}

static void land(struct live *l, uint32_t id)
{
	if (pol_state_of(l->p, id) == POL_INFLIGHT)
		pol_moved(l->p, id, POL_READY);
}

static void land_due(struct live *l, uint32_t wanted)
{
	size_t ring = (size_t)l->s->chunks + 1;
	uint32_t id;

	while (l->head != l->tail) {
		id = l->queue[l->head % ring];
		if (l->due[id] > l->now)
			break;
		l->head++;
		land(l, id);
	}
	land(l, wanted);
}

static void fetch(struct live *l, struct pol_action a)
{
	size_t ring = (size_t)l->s->chunks + 1;

	l->out->fetched++;
	pol_moved(l->p, a.chunk, POL_INFLIGHT);
	if (a.demand || !l->s->delay) {
		pol_moved(l->p, a.chunk, POL_READY);
		return;
	}
	l->due[a.chunk] = l->now + l->s->delay;
	if (l->tail - l->head < ring)
		l->queue[l->tail++ % ring] = a.chunk;
}

static void perform(struct live *l, struct pol_action a)
{
	switch (a.act) {
	case POL_FETCH:
		fetch(l, a);
		break;
	case POL_INSTALL:
		pol_moved(l->p, a.chunk, POL_PLAIN);
		break;
	case POL_SOFTEN:
		pol_moved(l->p, a.chunk, POL_READY);
		break;
	case POL_EVICT:
		l->out->evicted++;
		pol_moved(l->p, a.chunk, POL_ABSENT);
		break;
	case POL_NONE:
		break;
	}
}

static void use(struct live *l, const struct pol_use *u)
{
	enum pol_state st = pol_state_of(l->p, u->chunk);
	struct pol_action a;

	l->out->uses++;
	l->out->hits += st == POL_PLAIN || st == POL_READY;
	if (st != POL_PLAIN) {
		pol_fault(l->p, u->chunk, u->stream);
		land_due(l, u->chunk);
	}
	while ((a = pol_next(l->p, UINT32_MAX)).act != POL_NONE)
		perform(l, a);
	l->now++;
	land_due(l, u->chunk);
}

static void totals(struct live *l)
{
	struct pol_counts c;

	pol_counts(l->p, &c);
	l->out->demand = c.demand;
	l->out->milestones = c.milestones;
	l->out->wasted = c.wasted;
}

struct pol *pol_sim_live(const struct pol_sim *s, void *scratch,
			 struct pol_result *out)
{
	struct pol_conf conf = { s->chunks, s->frames, s->window, s->seed };
	size_t bytes = (pol_size(s->chunks) + 63) & ~(size_t)63;
	struct live l = { .s = s, .out = out };

	memset(scratch, 0, pol_sim_size(s->chunks));
	memset(out, 0, sizeof(*out));
	l.due = (uint64_t *)((uint8_t *)scratch + bytes);
	l.queue = (uint32_t *)(l.due + s->chunks);
	l.p = pol_init(scratch, &conf);
	pol_add(l.p, 0, s->chunks, s->chunk_bytes, 0, s->spans, s->n_spans, 0);
	for (size_t i = 0; i < s->n; i++) {
		if (s->frames_at)
			pol_set_frames(l.p, s->frames_at(i));
		use(&l, &s->tape[i]);
		if (s->step)
			s->step(l.p, i, s->arg);
	}
	totals(&l);
	return l.p;
}
