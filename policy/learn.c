/* SPDX-License-Identifier: MIT */
/* learn.c - passes, the order learned from faults, and the fallback.
 *
 * An epoch is one pass as far as it can be told: it ends when the order
 * wraps around, or, while the order explains little, when chunks already
 * seen in it come again.
 *
 * (N1) An epoch with more than 1 fault in 16 out of order gives a new
 *      order: by the first fault of each chunk in it; a chunk that was not
 *      seen keeps its place behind its predecessor, but does not follow one
 *      that was found out of place. So does an epoch of the fallback in
 *      which nearly all chunks were seen.
 * (N2) An epoch with more than half out of order is bad. The first allows a
 *      survey, which softens every PLAIN chunk once, so that the next epoch
 *      sees them all. After three the fallback keeps every chunk by second
 *      chance. It ends when a pass of faults over nearly all chunks is seen:
 *      a loop, then, and its order is known now.
 * (N3) The same fallback when a quarter of the chunks fetched ahead go
 *      unused. Each further survey and return waits twice as long.
 * Lock: none, the caller serialises.
 */
#include "policy/policy_int.h"

#define EPOCH_LEAST 8u		/* faults that can tell anything */
#define REST_LEAST 8u		/* epochs between two fresh starts */
#define GUESSES_LEAST 16u	/* prefetches that can tell anything */

static void sift(const struct pol *p, uint32_t i, uint32_t n)
{
	uint32_t t = p->seq[i], c;

	while ((c = 2 * i + 1) < n) {
		if (c + 1 < n && p->key[p->seq[c + 1]] > p->key[p->seq[c]])
			c++;
		if (p->key[p->seq[c]] <= p->key[t])
			break;
		p->seq[i] = p->seq[c];
		i = c;
	}
	p->seq[i] = t;
}

void pol_learn_sort(struct pol *p)
{
	uint32_t i, t;

	for (i = p->n_pos / 2; i-- > 0;)
		sift(p, i, p->n_pos);
	for (i = p->n_pos; i-- > 1;) {
		t = p->seq[0];
		p->seq[0] = p->seq[i];
		p->seq[i] = t;
		sift(p, 0, i);
	}
}

/* (N1) */
static void sort_by_stamps(struct pol *p, uint32_t now)
{
	uint32_t stamp = 0, mine;

	for (uint32_t i = 0; i < p->n_pos; i++) {
		uint32_t id = p->seq[i];
		struct pol_chunk *c = &p->chunk[id];

		mine = stamp;
		if (c->stamp > p->e_start) {
			mine = c->stamp - p->e_start;
			pol_leave(p, id);
			if (c->conf < POL_CONF_START)
				c->conf = POL_CONF_START;
			pol_enter(p, id);
			if (!(c->flags & F_JUMP))
				stamp = mine;
		}
		p->key[id] = (uint64_t)mine << 32 | i;
	}
	pol_learn_sort(p);
	pol_order_replace(p, now);
}

static void set_trust(struct pol *p, uint32_t trust)
{
	p->hit = p->miss = 0;
	if (p->trust == trust)
		return;
	for (uint32_t i = 0; i < p->n_seq; i++)
		pol_leave(p, p->seq[i]);
	p->trust = trust;
	for (uint32_t i = 0; i < p->n_seq; i++)
		pol_enter(p, p->seq[i]);
}

/* Each return waits twice as long. */
static void give_up(struct pol *p)
{
	p->good_least = p->good_least ? p->good_least * 2 : 1;
	p->good = p->bad = 0;
	p->survey = 0;
	set_trust(p, TRUST_NONE);
}

/* A loop larger than the frames, kept by second chance: all of it faults. */
static bool all_seen(const struct pol *p)
{
	return p->e_unique >= p->n_pos - p->n_pos / 4;
}

bool pol_learn_calm(const struct pol *p)
{
	return p->e_jumps * 8 <= p->e_faults;
}

/* What is remembered, a quarter of a pass at most: one table of which a pass
 * reads a row or two is no reason to doubt the order of all the rest. */
static uint32_t guesses_most(const struct pol *p)
{
	return p->n_pos / 4 > 2 * GUESSES_LEAST ? p->n_pos / 4 : 2 * GUESSES_LEAST;
}

/* (N3) */
static void weigh_guesses(struct pol *p)
{
	uint32_t n = p->hit + p->miss;

	if (p->trust == TRUST_NEW && p->miss * 4 > n && n >= GUESSES_LEAST)
		give_up(p);
}

void pol_learn_guess(struct pol *p, bool used)
{
	p->hit += used;
	p->miss += !used;
	if (p->trust == TRUST_NEW && p->hit + p->miss >= guesses_most(p)) {
		p->hit /= 2;
		p->miss /= 2;
	}
}

/* (N2) */
static void judge(struct pol *p)
{
	if (p->trust == TRUST_NONE) {
		p->fall_age++;
		p->good = all_seen(p) ? p->good + 1 : 0;
		if (p->good >= p->good_least)
			set_trust(p, TRUST_NEW);
		if (p->trust == TRUST_NEW)
			p->fall_age = 0;
		return;
	}
	if (p->e_jumps * 2 <= p->e_faults) {
		p->bad = 0;
		return;
	}
	p->bad++;
	if (p->bad == 1 && !p->rest) {
		p->rest_next = p->rest_next ? p->rest_next * 2 : REST_LEAST;
		p->rest = p->rest_next;
		if (p->e_unique < p->n_pos)
			p->survey = p->n_pos;
	}
	if (p->bad >= 3)
		give_up(p);
}

/* Chunks whose actions failed are tried again. */
static void warm_up(struct pol *p)
{
	uint32_t id;

	while ((id = p->list[L_COOL].head) != POL_NIL) {
		pol_leave(p, id);
		p->chunk[id].flags &= ~F_COOL;
		pol_enter(p, id);
	}
}

static void end_epoch(struct pol *p, uint32_t now)
{
	bool learn;

	p->c.passes++;
	p->lag_prev = p->lag_seen;
	p->lag_seen = 0;
	if (p->rest)
		p->rest--;
	warm_up(p);
	if (p->e_faults >= EPOCH_LEAST) {
		learn = p->e_jumps * 16 > p->e_faults ||
			(p->trust == TRUST_NONE && all_seen(p));
		judge(p);
		if (learn)
			sort_by_stamps(p, now);
	}
	p->e_start = p->clock;
	p->e_faults = p->e_jumps = p->e_again = p->e_unique = 0;
	pol_quota(p);
}

void pol_learn_wrap(struct pol *p)
{
	/* while little is explained, a wrap of lead means nothing */
	if (p->trust == TRUST_NONE || p->travel < p->n_pos / 4 ||
	    p->e_jumps * 2 > p->e_faults)
		return;
	p->travel = 0;
	end_epoch(p, p->seq[p->lead]);
}

void pol_learn_fault(struct pol *p, uint32_t id, bool jump)
{
	struct pol_chunk *c = &p->chunk[id];
	uint32_t enough;

	p->e_faults++;
	p->e_jumps += jump;
	if (c->stamp > p->e_start) {
		p->e_again += !p->repeat;	/* one use, two threads */
	} else {
		c->stamp = ++p->clock;
		c->flags &= ~F_JUMP;
		if (jump)
			c->flags |= F_JUMP;
		p->e_unique++;
	}
	enough = p->e_unique / 8;
	if (enough < EPOCH_LEAST)
		enough = EPOCH_LEAST;
	if (p->e_again >= enough &&
	    (p->trust == TRUST_NONE || p->e_jumps * 4 > p->e_faults))
		end_epoch(p, id);
	else if (p->e_again > p->e_unique + EPOCH_LEAST)
		end_epoch(p, id);
	else
		weigh_guesses(p);
}
