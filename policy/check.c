/* SPDX-License-Identifier: MIT */
/* check.c - the live policy's invariants, as a predicate (tests only).
 *
 * (C1) Counts by state, class and map are what the chunks add up to.
 * (C2) A chunk is on the list its state asks for, and lists are sound.
 * (C3) seq and pos are inverse to each other, but for gaps.
 * Lock: none, reads only.
 */
#include "policy/policy_int.h"

static bool list_sound(const struct pol *p, uint32_t l)
{
	uint32_t id = p->list[l].head, prev = POL_NIL, n = 0;

	for (; id != POL_NIL; prev = id, id = p->chunk[id].next, n++)
		if (p->chunk[id].list != l || p->chunk[id].prev != prev ||
		    !(p->chunk[id].flags & F_KNOWN) || n > p->n_known)
			return false;
	return p->list[l].tail == prev && p->list[l].n == n;
}

static bool list_right(const struct pol *p, const struct pol_chunk *c)
{
	bool wait = c->flags & F_DEMAND, loop = pol_loopish(p, c);

	switch (c->list) {
	case L_FETCH:
		return wait && c->state == POL_ABSENT;
	case L_INST:
		return wait && c->state == POL_READY;
	case L_ACTIVE:
		return !wait && !loop && c->state == POL_PLAIN;
	case L_SOFT:
		return !wait && !loop && c->state == POL_READY;
	case L_COOL:
		return !wait && c->flags & F_COOL;
	}
	return !wait || c->state == POL_INFLIGHT;
}

static bool maps_right(const struct pol *p, const struct pol_chunk *c)
{
	bool loop = pol_loopish(p, c);

	if (pol_map_get(p, B_AHEAD, c->pos) != (loop && c->flags & F_AHEAD))
		return false;
	if (pol_map_get(p, B_VICTIM, c->pos) &&
	    (!loop || !pol_framed(c) || c->flags & (F_PINNED | F_DEMAND)))
		return false;
	if (pol_map_get(p, B_ABSENT, c->pos) &&
	    (!loop || c->state != POL_ABSENT))
		return false;
	if (pol_map_get(p, B_WASTE, c->pos) && c->state != POL_READY)
		return false;
	return !pol_map_get(p, B_READY, c->pos) || c->state == POL_READY;
}

static bool counts_right(const struct pol *p)
{
	uint32_t count[4] = { 0 }, known = 0, loop = 0, used = 0;

	for (uint32_t id = 0; id < p->conf.max_chunks; id++) {
		const struct pol_chunk *c = &p->chunk[id];

		if (!(c->flags & F_KNOWN))
			continue;
		known++;
		count[c->state]++;
		loop += pol_loopish(p, c);
		used += pol_loopish(p, c) && pol_framed(c);
		if (!list_right(p, c))
			return false;
	}
	return known == p->n_known && loop == p->n_loop &&
	       used == p->used_loop && !memcmp(count, p->count, sizeof(count));
}

static bool order_right(const struct pol *p)
{
	uint32_t gaps = 0;

	if (p->dirty)
		return true;
	for (uint32_t i = 0; i < p->n_seq; i++) {
		const struct pol_chunk *c = &p->chunk[p->seq[i]];

		if (p->seq[i] == pol_gap(p)) {
			gaps++;
			for (uint32_t m = 0; m < B_N; m++)
				if (pol_map_get(p, m, i))
					return false;
			continue;
		}
		if (c->pos != i || !(c->flags & F_KNOWN) || !maps_right(p, c))
			return false;
	}
	if (gaps != p->gaps || gaps * POL_SHARED > p->n_seq)
		return false;
	for (uint32_t m = 0; m < B_N; m++)
		if (p->n_pos && pol_map_count(p, m, 0, p->n_pos, POL_NIL) !=
		    p->map_n[m])
			return false;
	return !p->n_pos || (p->lead < p->n_pos && p->tail < p->n_pos &&
			     p->from < p->n_pos);
}

bool pol_check(const struct pol *p)
{
	for (uint32_t l = L_FETCH; l < L_N; l++)
		if (!list_sound(p, l))
			return false;
	return counts_right(p) && order_right(p);
}
