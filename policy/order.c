/* SPDX-License-Identifier: MIT */
/* order.c - the order of use, and where in it the program is.
 *
 *     seq:  ... evicted behind | tail ... from ... lead | fetched ahead ...
 *                                <---- guard zone ---->
 *
 * lead: position of the most advanced fault. tail: start of the guard zone:
 * the span that holds lead and a little more, because several threads walk
 * one tensor from several starting rows. from: the least position in the
 * zone that a thread was seen at; needs are looked for from there on.
 *
 * (O1) lead moves forward over faults the order explains; a fault it does
 *      not explain (a jump) moves it only when the next one agrees.
 * (O2) A fault a little behind lead is a trailing thread: lead stays, and
 *      the zone is widened for this pass and the next.
 * (O3) What tail passes without a use having been seen was fetched in vain.
 * (O4) Work on the whole order is shared: up to one chunk in POL_SHARED leaves a gap
 *      when it goes, and joins at the end when it comes back; heaps of a
 *      hundred thousand chunks change one by one.
 * Lock: none, the caller serialises.
 */
#include "policy/policy_int.h"

#define GUARD_MAX 16u		/* chunks, where no span is known */
#define GUARD_MORE 2u		/* chunks before the span */
#define TOLERANCE 16u		/* chunks a use may be ahead of its turn */
#define LOOP_LEAST 8u		/* chunks of a loop within the order */
#define CALM_SOME 16u		/* milestones in a row that allow larger batches */
#define CALM_MUCH 64u

static const struct pol_chunk *at(const struct pol *p, uint32_t pos)
{
	return &p->chunk[p->seq[pos]];
}

/* Marks where spans begin, and gives every chunk its place. */
static void place(struct pol *p)
{
	uint32_t start = 0, order = 0;

	pol_map_zero(p, p->n_seq);
	for (uint32_t i = 0; i < p->n_seq; i++) {
		struct pol_chunk *c = &p->chunk[p->seq[i]];

		p->start[i] = start;
		if (p->seq[i] == pol_gap(p))
			continue;
		if (c->order != order)
			p->start[i] = start = i;
		order = c->order;
		pol_leave(p, p->seq[i]);
		c->pos = i;
		c->flags &= ~(F_NEW | F_DORMANT);
		if (i >= p->n_pos)
			c->flags = (c->flags & ~F_AHEAD) | F_DORMANT;
		pol_enter(p, p->seq[i]);
	}
}

/* After the order changed: begin again at the chunk that lead was on. */
static void restart_at(struct pol *p, uint32_t id)
{
	p->started = p->n_pos && id != POL_NIL;
	p->lead = p->started ? p->chunk[id].pos : 0;
	p->tail = p->from = p->lead;
	p->cand = POL_NIL;
	memset(p->stream, 0xff, sizeof(p->stream));
	pol_quota(p);
}

static uint64_t key_of(const struct pol *p, uint32_t pos)
{
	const struct pol_chunk *c = at(p, pos);

	if (p->learned && !(c->flags & F_NEW))
		return pos;
	return (uint64_t)p->learned << 63 | (uint64_t)c->order << 31 |
	       (p->seq[pos] & INT32_MAX);
}

static bool few(const struct pol *p, uint32_t n)
{
	return (uint64_t)n * POL_SHARED <= p->n_seq;
}

bool pol_order_may_gap(const struct pol *p, uint32_t n)
{
	return !p->dirty && p->n_pos == p->n_seq && few(p, p->gaps + n);
}

void pol_order_gap(struct pol *p, uint32_t pos)
{
	for (int m = 0; m < B_N; m++)
		pol_map_put(p, m, pos, false);
	p->seq[pos] = pol_gap(p);
	p->gaps++;
}

/* Chunks from position k on are new. Does one of them belong before what is
 * there already? last: the chunk before them. */
static bool out_of_order(const struct pol *p, uint32_t k, uint32_t last)
{
	for (uint32_t i = k; i < p->n_seq; last = i++)
		if (key_of(p, i) <= key_of(p, last))
			return true;
	return false;
}

/* New chunks that come after the rest, and a few that do not (O4), just get
 * their places: a heap grows by one chunk at a time. False: they have to be
 * sorted in. */
static bool append(struct pol *p)
{
	uint32_t k = p->n_seq, last;

	while (k && at(p, k - 1)->flags & F_NEW)
		k--;
	for (last = k; last && p->seq[last - 1] == pol_gap(p);)
		last--;
	if (p->rebuild || !last--)
		return false;
	if (out_of_order(p, k, last)) {
		if (at(p, k)->flags & F_SPAN || !few(p, p->late + p->n_seq - k))
			return false;
		p->late += p->n_seq - k;
	}
	for (uint32_t i = k; i < p->n_seq; last = i++) {
		p->start[i] = at(p, i)->order == at(p, last)->order ? p->start[last] : i;
		pol_leave(p, p->seq[i]);
		p->chunk[p->seq[i]].flags &= ~F_NEW;
		pol_enter(p, p->seq[i]);
	}
	p->cand = POL_NIL;
	pol_quota(p);
	return true;
}

/* The chunk that lead is on, or POL_NIL. */
static uint32_t at_lead(const struct pol *p)
{
	return p->started && at(p, p->lead)->flags & F_KNOWN ? p->seq[p->lead] : POL_NIL;
}

static void squeeze(struct pol *p)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < p->n_seq; i++)
		if (p->chunk[p->seq[i]].flags & F_KNOWN)
			p->seq[n++] = p->seq[i];
	pol_map_zero(p, p->n_seq);
	p->n_pos = p->n_seq = n;
	p->gaps = 0;
}

void pol_order_flush(struct pol *p)
{
	uint32_t lead;

	if (!p->dirty)
		return;
	p->dirty = false;
	if (append(p))
		return;
	p->rebuild = false;
	lead = at_lead(p);
	squeeze(p);
	for (uint32_t i = 0; i < p->n_pos; i++)
		p->key[p->seq[i]] = key_of(p, i);
	pol_learn_sort(p);
	p->late = 0;
	place(p);
	restart_at(p, lead);
}

void pol_order_compact(struct pol *p)
{
	uint32_t lead = at_lead(p);

	squeeze(p);
	if (p->dirty) {
		p->started = false;
		p->rebuild = true;
		return;
	}
	place(p);
	restart_at(p, lead);
}

void pol_order_widen(struct pol *p, uint32_t id)
{
	if (p->c.passes < (uint64_t)p->narrow_pass + 3)
		p->turns_least = p->turns_least * 2 + 1;
	pol_order_wake(p, id);
}

void pol_order_wake(struct pol *p, uint32_t id)
{
	p->n_pos = p->n_seq;
	place(p);
	restart_at(p, id);
}

void pol_order_replace(struct pol *p, uint32_t id)
{
	p->learned = true;
	p->late = 0;
	place(p);
	restart_at(p, id);
}

uint32_t pol_order_guard(const struct pol *p)
{
	uint32_t most = p->frames / 4, guard = p->frames / 24;

	if (most > p->n_pos / 4)
		most = p->n_pos / 4;
	if (guard > GUARD_MAX)
		guard = GUARD_MAX;
	if (p->started && at(p, p->lead)->flags & F_SPAN)
		guard = p->lead - p->start[p->lead] + GUARD_MORE;
	if (guard < p->lag_seen)
		guard = p->lag_seen;
	if (guard < p->lag_prev)
		guard = p->lag_prev;
	if (guard > most)
		guard = most;
	return guard ? guard : 1;
}

/* (O3) One less reason to fetch it ahead next time. */
static void missed(struct pol *p, uint32_t id)
{
	struct pol_chunk *c = &p->chunk[id];

	if (!(c->flags & F_PREF) || c->state != POL_READY)
		return;
	c->flags |= F_WASTE;
	c->streak = 0;
	pol_learn_guess(p, false);
	if (c->conf && pol_learn_calm(p))
		c->conf--;
}

/* Positions pos..pos+n-1 are no longer ahead; behind: they are done with. */
static void pass_over(struct pol *p, uint32_t pos, uint32_t n, bool behind)
{
	uint32_t hit, done;

	while ((hit = pol_map_next(p, B_AHEAD, pos, n)) != POL_NIL) {
		pol_leave(p, p->seq[hit]);
		p->chunk[p->seq[hit]].flags &= ~F_AHEAD;
		if (behind)
			missed(p, p->seq[hit]);
		pol_enter(p, p->seq[hit]);
		done = pol_dist(p, pos, hit) + 1;
		pos = pol_fwd(p, hit, 1);
		n -= done;
	}
}

/* READY and passed over by lead already, now left behind by tail too. */
static void leave_behind(struct pol *p, uint32_t pos, uint32_t n)
{
	pass_over(p, pos, n, true);
	for (; n--; pos = pol_fwd(p, pos, 1)) {
		uint32_t id = p->seq[pos];

		if (p->chunk[id].state != POL_READY ||
		    p->chunk[id].flags & (F_DEMAND | F_WASTE))
			continue;
		pol_leave(p, id);
		missed(p, id);
		pol_enter(p, id);
	}
}

/* lead went forward by d; the zone behind it was `zone` long. A zone that
 * grew leaves tail where it is. */
static void move_tail(struct pol *p, uint32_t zone, uint32_t d)
{
	uint32_t guard = pol_order_guard(p);

	if (p->n_pos < 2 || zone + d <= guard)
		return;
	d = zone + d - guard;
	d = d < p->n_pos ? d : p->n_pos;
	leave_behind(p, p->tail, d);
	pol_pick_holes(p, p->tail, d);
	p->tail = pol_back(p, p->lead, guard);
}

static void move_lead(struct pol *p, uint32_t pos)
{
	uint32_t d = pol_dist(p, p->lead, pos);
	uint32_t zone = pol_dist(p, p->tail, p->lead);
	bool wrapped = pos < p->lead;

	pass_over(p, p->lead, d + 1, false);
	p->travel += d;
	p->lead = pos;
	move_tail(p, zone, d);
	if (wrapped)
		pol_learn_wrap(p);
}

static void reverse(uint32_t *a, uint32_t n)
{
	for (uint32_t i = 0, t; i < n / 2; i++) {
		t = a[i];
		a[i] = a[n - 1 - i];
		a[n - 1 - i] = t;
	}
}

/* The program went back from position end to first: a loop of its own, of
 * one model of several. What is PLAIN at its ends may belong to it unseen.
 * True if it is the loop in force now. */
static bool narrow(struct pol *p, uint32_t first, uint32_t end, uint32_t id)
{
	uint32_t n = end - first + 1, more = n / 8, i;

	if (p->n_pos < p->n_seq || n < LOOP_LEAST || n > p->n_seq / 8 * 7 ||
	    !pol_learn_calm(p) || p->turns++ < p->turns_least)
		return false;
	p->turns = 0;
	p->narrow_pass = (uint32_t)p->c.passes;
	for (i = more; i && first && at(p, first - 1)->state == POL_PLAIN; i--)
		first--;
	for (i = more; i && end + 1 < p->n_seq &&
	     at(p, end + 1)->state == POL_PLAIN; i--)
		end++;
	reverse(p->seq, first);
	reverse(p->seq + first, p->n_seq - first);
	reverse(p->seq, p->n_seq);
	p->n_pos = end - first + 1;
	place(p);
	restart_at(p, id);
	return true;
}

/* A jump that was confirmed: what lay ahead of the old place is not. */
static void jump_to(struct pol *p, uint32_t was, uint32_t pos)
{
	uint32_t id = p->seq[pos];
	bool back = pos < p->lead;

	if (back && narrow(p, was < pos ? was : pos, p->lead, id)) {
		pol_learn_wrap(p);
		return;
	}
	pass_over(p, 0, p->n_pos, false);
	p->lead = pos;
	p->tail = p->n_pos > 1 ? pol_back(p, pos, pol_order_guard(p)) : 0;
	if (back)
		pol_learn_wrap(p);
}

/* True when pos is where the next seen uses after `where` are expected:
 * few chunks between would have been seen, or it is in this span or the
 * next one. */
static bool explains(const struct pol *p, uint32_t where, uint32_t pos)
{
	uint32_t tol = p->window > TOLERANCE ? p->window : TOLERANCE;
	uint32_t d = pol_dist(p, where, pos), lack;

	if (d <= 1)
		return true;
	if (tol > p->n_pos / 8)
		tol = p->n_pos / 8;
	if (tol > p->map_n[B_LACK] / 6 + 1)
		tol = p->map_n[B_LACK] / 6 + 1;
	lack = pol_map_count(p, B_LACK, pol_fwd(p, where, 1), d - 1, tol + 1);
	if (lack <= tol)
		return true;
	if (!(at(p, pos)->flags & F_SPAN))
		return false;
	if (p->start[pos] == p->start[where])
		return pos > where;
	return p->start[pol_back(p, p->start[pos], 1)] == p->start[where];
}

/* (O2) */
static bool trails(struct pol *p, uint32_t pos)
{
	uint32_t zone = pol_dist(p, p->tail, p->lead), most;
	uint32_t back = pol_dist(p, pos, p->lead);

	most = 2 * zone + TOLERANCE;
	if (most > p->n_pos / 8)
		most = p->n_pos / 8;
	if (most < zone)
		most = zone;
	if (back > most)
		return false;
	if (back > p->lag_seen)
		p->lag_seen = back;
	return true;
}

static struct pol_stream *stream_of(struct pol *p, uint32_t id)
{
	struct pol_stream *s, *old = &p->stream[0];

	for (s = p->stream; s < p->stream + POL_STREAMS; s++) {
		if (s->pos != POL_NIL && s->id == id)
			return s;
		if (s->pos == POL_NIL)
			s->when = 0;
		if (s->when < old->when)
			old = s;
	}
	old->id = id;
	return old;
}

/* Where to look for needs from: the last thread still in the zone. */
static void set_from(struct pol *p)
{
	uint32_t zone = pol_dist(p, p->tail, p->lead), least = zone, d;

	for (uint32_t i = 0; i < POL_STREAMS; i++) {
		if (p->stream[i].pos == POL_NIL)
			continue;
		d = pol_dist(p, p->tail, p->stream[i].pos);
		if (d < least)
			least = d;
	}
	p->from = pol_fwd(p, p->tail, least);
}

/* Follows one fault. True if the order did not explain it. (O1) */
static bool follow(struct pol *p, uint32_t pos)
{
	uint32_t was = p->cand;

	p->cand = POL_NIL;
	if (pos == p->lead || trails(p, pos))
		return false;
	if (explains(p, p->lead, pos)) {
		move_lead(p, pos);
		return false;
	}
	if (was != POL_NIL && pol_dist(p, was, pos) < p->n_pos / 2 &&
	    explains(p, was, pos)) {
		jump_to(p, was, pos);
		return false;
	}
	p->cand = pos;
	return true;
}

/* How many READY chunks may go in unseen. Fetches follow uses seen: the fewer
 * there are, the more of them are left as milestones, and each of the last few is one
 * where reads come only just in time. None at all after a late fault let twenty
 * wait for one another while the disk had nothing to do: 0.40 s for 0.36. */
static uint32_t batch_size(const struct pol *p)
{
	uint32_t n = p->map_n[B_READY], leave;

	leave = p->calm < CALM_SOME ? n - n / 4 :
		p->calm < CALM_MUCH ? n / 2 : n / 4;
	if (!leave)
		leave = 1;
	return n > leave ? n - leave : 0;
}

void pol_order_fault(struct pol *p, uint32_t id, uint32_t stream)
{
	struct pol_chunk *c = &p->chunk[id];
	struct pol_stream *s;
	bool jump = false;

	if (!p->started)
		restart_at(p, id);
	else if (c->conf >= TRUST_NEW)
		jump = follow(p, c->pos);
	s = stream_of(p, stream);
	s->pos = c->pos;
	s->when = p->clock + 1;
	set_from(p);
	p->batch = jump ? 0 : batch_size(p);
	pol_learn_fault(p, id, jump);
}
