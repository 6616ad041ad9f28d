/* SPDX-License-Identifier: MIT */
/* plan_device.c - which bytes of a device's regions live in its memory, and how the
 * rest comes over the link: staged ahead of its use, or read where it lies.
 *
 * A byte at the host costs two things in a pass, the link's time and the time for
 * which launches wait:
 *
 *     staged      visits / up                      nothing, if it is ahead
 *     in place    visits * reads / up              the same, and
 *                 and written / down               the same
 *
 * The pass is the longer of the link's time and of what launches take and wait. Both
 * are weighed by `weight` and 1 - `weight`: each span takes its cheaper way, and the
 * memory goes to the bytes that are dearest then. Of some weights the one with the
 * shortest pass is taken.
 *
 * (1) Spans that cost the same share the memory evenly: what is away is spread over
 *     the pass, so that the link has work all along.
 * (2) A span takes one way, not both. Where all spans but few are alike and read in
 *     part (reads < 1), a mix may be shorter, by what they differ in at most.
 * (3) Slots are taken from what homes may use, and only if something is staged.
 * Lock: none, pure functions of their arguments.
 */
#include "policy/policy_int.h"

#define NUMBER_MAX	1e30
#define WEIGHTS		16		/* steps from 0 to 1 */
#define SLOTS_LEAST	2u		/* one is read while one is filled */
#define SLOTS_SHARE	4		/* of the memory: no more for slots */
#define ALIKE		1e-9		/* (1) */

static bool number(double v)
{
	return v >= 0 && v < NUMBER_MAX;	/* false for a NaN */
}

static bool valid(const struct pol_dev_in *in, const struct pol_dev_span *s, uint32_t n)
{
	bool ok = number(in->vram) && number(in->host) && number(in->extent) &&
		  in->extent > 0 && number(in->up) && in->up > 0 &&
		  number(in->down) && in->down > 0 && number(in->latency) &&
		  number(in->launch_s);

	for (uint32_t i = 0; ok && i < n; i++)
		ok = number(s[i].bytes) && number(s[i].visits) &&
		     number(s[i].reads) && number(s[i].written);
	return ok;
}

static double all_bytes(const struct pol_dev_span *s, uint32_t n)
{
	double all = 0;

	for (uint32_t i = 0; i < n; i++)
		all += s[i].bytes;
	return all;
}

/* ---- one weight ------------------------------------------------------------------ */

static double wait_in_place(const struct pol_dev_in *in, const struct pol_dev_span *s)
{
	return s->visits * s->reads / in->up + s->written / in->down;
}

/* Sets the cheaper way, and what a byte costs by it. */
static void weigh(const struct pol_dev_in *in, struct pol_dev_span *s, double weight,
		  bool slots)
{
	double staged = weight * s->visits / in->up;

	s->cost = wait_in_place(in, s);	/* link and launches take the same */
	s->way = POL_DEV_IN_PLACE;
	if (!slots || !s->view || s->written > 0 || staged > s->cost)
		return;
	s->way = POL_DEV_STAGED;
	s->cost = staged;
}

static bool dearer(const struct pol_dev_span *s, uint32_t a, uint32_t b)
{
	return s[a].cost > s[b].cost || (s[a].cost >= s[b].cost && a < b);
}

static void sift(struct pol_dev_span *s, uint32_t i, uint32_t n)
{
	uint32_t top = s[i].rank, c;

	while ((c = 2 * i + 1) < n) {
		if (c + 1 < n && dearer(s, s[c].rank, s[c + 1].rank))
			c++;
		if (!dearer(s, top, s[c].rank))
			break;
		s[i].rank = s[c].rank;
		i = c;
	}
	s[i].rank = top;
}

/* s[k].rank: the k-th dearest. */
static void sort(struct pol_dev_span *s, uint32_t n)
{
	uint32_t t;

	for (uint32_t i = 0; i < n; i++)
		s[i].rank = i;
	for (uint32_t i = n / 2; i-- > 0;)
		sift(s, i, n);
	for (uint32_t i = n; i-- > 1;) {
		t = s[0].rank;
		s[0].rank = s[i].rank;
		s[i].rank = t;
		sift(s, 0, i);
	}
}

/* (1) */
static void fill(struct pol_dev_span *s, uint32_t n, double room)
{
	double bytes, share;
	uint32_t end;

	for (uint32_t k = 0; k < n; k = end) {
		double least = s[s[k].rank].cost * (1 - ALIKE);

		bytes = 0;
		for (end = k; end < n && s[s[end].rank].cost >= least; end++)
			bytes += s[s[end].rank].bytes;
		share = bytes <= room ? 1 : room / bytes;
		for (uint32_t i = k; i < end; i++)
			s[s[i].rank].home = share * s[s[i].rank].bytes;
		room = bytes <= room ? room - bytes : 0;
	}
}

void pol_dev_times(const struct pol_dev_in *in, const struct pol_dev_span *s, uint32_t n,
		   struct pol_dev_plan *out)
{
	double t[3];

	out->up_s = out->down_s = out->wait_s = out->staged = out->in_place = 0;
	for (uint32_t i = 0; i < n; i++) {
		double away = s[i].bytes - s[i].home;

		if (s[i].way == POL_DEV_STAGED) {
			out->staged += away;
			out->up_s += away * s[i].visits / in->up;
			continue;
		}
		out->in_place += away;
		out->up_s += away * s[i].visits * s[i].reads / in->up;
		out->down_s += away * s[i].written / in->down;
		out->wait_s += away * wait_in_place(in, &s[i]);
	}
	t[0] = out->up_s;
	t[1] = out->down_s;
	t[2] = in->launch_s + out->wait_s;
	out->seconds = t[0] > t[1] ? t[0] : t[1];
	out->seconds = out->seconds > t[2] ? out->seconds : t[2];
	/* what launches wait for in place is the link's time once more: no second part */
	t[0] = out->staged > 0 ? t[0] : 0;
	t[1] = out->staged > 0 ? t[1] : 0;
	out->likely = pol_likely(t, 3, 1);
}

/* Where all is placed by one weight. */
static void place(const struct pol_dev_in *in, struct pol_dev_span *s, uint32_t n,
		  double weight, uint32_t slots, struct pol_dev_plan *out)
{
	double room = in->vram - slots * in->extent;

	for (uint32_t i = 0; i < n; i++)
		weigh(in, &s[i], weight, slots);
	sort(s, n);
	fill(s, n, room > 0 ? room : 0);
	pol_dev_times(in, s, n, out);
	out->slots = slots;
	if (slots && !(out->staged > 0))	/* (3) */
		place(in, s, n, weight, 0, out);
}

static void best_weight(const struct pol_dev_in *in, struct pol_dev_span *s, uint32_t n,
			uint32_t slots, struct pol_dev_plan *out)
{
	struct pol_dev_plan p;
	double best = 1, weight;

	place(in, s, n, best, slots, out);
	for (int i = 0; i < WEIGHTS; i++) {
		weight = i / (double)WEIGHTS;
		place(in, s, n, weight, slots, &p);
		if (p.seconds < out->seconds * (1 - ALIKE)) {
			best = weight;
			*out = p;
		}
	}
	place(in, s, n, best, slots, out);
}

/* ---- slots ------------------------------------------------------------------------- */

/* As many as there may be; 0: too few to stage by. */
static uint32_t slots_most(const struct pol_dev_in *in, double all)
{
	double spare = in->vram + in->host - all, most = in->vram / SLOTS_SHARE;

	most = (spare < most ? spare : most) / in->extent;
	if (most < SLOTS_LEAST)
		return 0;
	return most < POL_LEAD_MOST ? (uint32_t)most : POL_LEAD_MOST;
}

/* The one that is read, and those that are filled meanwhile. */
static uint32_t slots_for(const struct pol_dev_in *in, const struct pol_dev_span *s,
			  uint32_t n, const struct pol_dev_plan *p)
{
	double extents = 0;

	for (uint32_t i = 0; i < n; i++)
		if (s[i].way == POL_DEV_STAGED)
			extents += (s[i].bytes - s[i].home) * s[i].visits / in->extent;
	if (!(extents > 0))
		return SLOTS_LEAST;
	return 1 + pol_lead(in->latency, in->extent, in->up, p->seconds / extents);
}

int pol_dev_plan(const struct pol_dev_in *in, struct pol_dev_span *span, uint32_t n,
		 struct pol_dev_plan *out)
{
	uint32_t most, slots;
	double all;

	if (!valid(in, span, n))
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	all = all_bytes(span, n);
	if (all > in->vram + in->host)
		return -ENOSPC;
	most = all <= in->vram ? 0 : slots_most(in, all);
	best_weight(in, span, n, most < SLOTS_LEAST ? 0 : SLOTS_LEAST, out);
	if (!out->slots)
		return 0;
	slots = slots_for(in, span, n, out);
	best_weight(in, span, n, slots < most ? slots : most, out);
	return 0;
}
