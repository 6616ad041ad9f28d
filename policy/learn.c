/* SPDX-License-Identifier: MIT */
/* learn.c - passes, the order learned from faults, and the fallback.
 *
 * An epoch is one pass as far as it can be told: it ends when the order
 * wraps around, or, while the order explains little, when chunks already
 * seen in it come again.
 *
 * (N1) An epoch with more than 1 fault in 16 out of order gives a new
 *      order: by the first fault of each chunk in it; a chunk that was not
 *      seen keeps its place behind its predecessor.
 * (N2) An epoch with more than half out of order is bad. After the first a
 *      survey softens every PLAIN chunk once, so that the next epoch sees
 *      them all. After two the fallback treats every chunk as skewed
 *      (second chance) until an epoch is predicted well again.
 * Lock: none, the caller serialises.
 */
#include "policy/policy_int.h"

#define EPOCH_LEAST 8u		/* faults that can tell anything */
#define SURVEY_REST 8u		/* epochs between two surveys */

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
	uint32_t stamp = 0;

	for (uint32_t i = 0; i < p->n_pos; i++) {
		uint32_t id = p->seq[i];
		struct pol_chunk *c = &p->chunk[id];

		if (c->stamp > p->e_start) {
			stamp = c->stamp - p->e_start;
			pol_leave(p, id);
			if (c->conf < POL_CONF_START)
				c->conf = POL_CONF_START;
			pol_enter(p, id);
		}
		p->key[id] = (uint64_t)stamp << 32 | i;
	}
	pol_learn_sort(p);
	pol_order_replace(p, now);
}

static void set_fallback(struct pol *p, bool on)
{
	if (p->fallback == on)
		return;
	for (uint32_t i = 0; i < p->n_pos; i++)
		pol_leave(p, p->seq[i]);
	p->fallback = on;
	for (uint32_t i = 0; i < p->n_pos; i++)
		pol_enter(p, p->seq[i]);
}

/* (N2) */
static void judge(struct pol *p)
{
	if (p->e_jumps * 2 <= p->e_faults) {
		p->bad = 0;
		set_fallback(p, false);
		return;
	}
	p->bad++;
	if (p->bad == 1 && !p->survey_rest && p->e_unique < p->n_pos) {
		p->survey = p->n_pos;
		p->survey_rest = SURVEY_REST;
	}
	if (p->bad >= 3)
		set_fallback(p, true);
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
	p->c.passes++;
	p->lag_prev = p->lag_seen;
	p->lag_seen = 0;
	if (p->survey_rest)
		p->survey_rest--;
	warm_up(p);
	if (p->e_faults >= EPOCH_LEAST) {
		judge(p);
		if (p->e_jumps * 16 > p->e_faults)
			sort_by_stamps(p, now);
	}
	p->e_start = p->clock;
	p->e_faults = p->e_jumps = p->e_again = p->e_unique = 0;
	pol_quota(p);
}

void pol_learn_wrap(struct pol *p)
{
	/* while little is explained, a wrap of lead means nothing */
	if (p->e_jumps * 2 <= p->e_faults)
		end_epoch(p, p->seq[p->lead]);
}

void pol_learn_fault(struct pol *p, uint32_t id, bool jump)
{
	struct pol_chunk *c = &p->chunk[id];
	uint32_t enough;

	p->e_faults++;
	p->e_jumps += jump;
	if (c->stamp > p->e_start) {
		p->e_again++;
	} else {
		c->stamp = ++p->clock;
		p->e_unique++;
	}
	enough = p->e_unique / 8;
	if (enough < EPOCH_LEAST)
		enough = EPOCH_LEAST;
	if (p->e_again >= enough && p->e_jumps * 4 > p->e_faults)
		end_epoch(p, id);
}
