/* SPDX-License-Identifier: MIT */
/* plan.c - how much of each class is kept plain, packed, or not at all.
 *
 * The pass as a linear program. Everything absent is the start; for each class
 * three unknowns say which share of it is plain, packed or on the device, and
 * one, s, by how much the longest of disk, link and processors is less than
 * T0, their sum at the start (of a plan worth having it is not more):
 *
 *     plain + packed + device <= 1                        in each class
 *     sum(bytes plain + bytes packed / ratio) <= ram      sum(device) <= vram
 *     T0 - s >= each of disk, link, processors
 *     maximise overlap * s + (1 - overlap) * (what their sum gets less by)
 *
 * A device computes beside the processors, so with a link computing is a bound of
 * its own, and the processors only read and unpack.
 *
 * All rows are divided by what makes their numbers about 1: ram and vram by
 * all bytes, times by T0.
 *
 * (N1) Every row holds at the start, so no plan is worse than all absent.
 * (N2) No division by a number that may be 0: checks come first.
 * Lock: none, pure functions of their arguments.
 */
#include "policy/policy_int.h"

#define NUMBER_MAX	1e30
#define STALE		0.1		/* moved by that share: solve again */
#define ADOPT		0.2		/* shorter by that share: move bytes */
#define RATIO_LEAST	1.001
#define DECODE_MOST	1e6		/* x T0 to unpack a class: never */
/* Uses of what is never used: where room is left, it may as well be kept. */
#define USES_LEAST	1e-6
#define QUIET_SLOWER	1e3
#define LEAD_LEAST	3
#define ROOT_STEPS	64		/* of Newton's method: 4 do, near 1 */

static bool number(double v)
{
	return v >= 0 && v < NUMBER_MAX;	/* false for a NaN */
}

static bool valid(const struct pol_plan_in *in)
{
	bool ok = number(in->ram) && number(in->vram) && number(in->window) &&
		  number(in->disk) && in->disk > 0 && number(in->link) &&
		  number(in->cores) && in->cores > 0 && number(in->compute) &&
		  number(in->read_cpu) &&
		  in->overlap >= 0 && in->overlap <= 1 && number(in->quiet) &&
		  in->n <= POL_CLASSES;

	for (uint32_t i = 0; ok && i < in->n; i++) {
		const struct pol_class *c = &in->class[i];

		ok = number(c->bytes) && number(c->uses) && number(c->ratio) &&
		     number(c->unpack) && number(c->unpack_device);
	}
	return ok;
}

double pol_overlapped(double x, double y, double overlap)
{
	return x > y ? x + (1 - overlap) * y : y + (1 - overlap) * x;
}

uint32_t pol_lead(double latency, double bytes, double rate, double chunk_s)
{
	double lead = rate > 0 && chunk_s > 0 ?
		      (latency + bytes / rate) / chunk_s : POL_LEAD_MOST;
	uint32_t n;

	if (!(lead < POL_LEAD_MOST))
		return POL_LEAD_MOST;
	n = lead > LEAD_LEAST ? (uint32_t)lead : LEAD_LEAST;
	return n + (n < lead);
}

/* ---- what a whole class takes in one pass, in one tier -------------------- */

static bool packs(const struct pol_class *c)
{
	return c->ratio >= RATIO_LEAST && c->unpack > 0;
}

static double disk_time(const struct pol_plan_in *in, const struct pol_class *c)
{
	return c->bytes * c->uses / in->disk;
}

/* Of the processors. */
static double read_time(const struct pol_plan_in *in, const struct pol_class *c)
{
	return c->bytes * c->uses * in->read_cpu / in->cores;
}

/* It crosses the link packed, and the device unpacks it. */
static bool unpacked_there(const struct pol_plan_in *in,
			   const struct pol_class *c)
{
	return in->link > 0 && c->unpack_device > 0;
}

static double decode_time(const struct pol_plan_in *in,
			  const struct pol_class *c)
{
	if (!packs(c) || unpacked_there(in, c))
		return 0;
	return c->bytes * c->uses / (c->unpack * in->cores);
}

static double link_time(const struct pol_plan_in *in, const struct pol_class *c,
			enum pol_tier tier)
{
	double per_byte = in->link > 0 ? 1 / in->link : 0;

	if (tier == POL_TIER_DEVICE)
		return 0;
	if (tier == POL_TIER_PACKED && packs(c) && unpacked_there(in, c))
		per_byte = pol_overlapped(1 / (in->link * c->ratio),
					  1 / c->unpack_device, in->overlap);
	return c->bytes * c->uses * per_byte;
}

/* Of what computes: the processors, or a device beside them. */
static bool beside(const struct pol_plan_in *in)
{
	return in->link > 0;
}

static double max2(double a, double b)
{
	return a > b ? a : b;
}

static double max3(double a, double b, double c)
{
	return max2(a, max2(b, c));
}

/* Of 1 to 4. */
static double fourth_root(double v)
{
	double x = v > 1 ? v : 1, next;

	for (int i = 0; i < ROOT_STEPS; i++) {
		next = (3 * x + v / (x * x * x)) / 4;
		if (!(next < x))
			break;
		x = next;
	}
	return x;
}

double pol_likely(const double *times, int n, double overlap)
{
	double most = 0, sum = 0, fourths = 0, x;

	for (int i = 0; i < n; i++) {
		most = max2(most, times[i]);
		sum += times[i];
	}
	for (int i = 0; i < n && most > 0; i++) {
		x = times[i] / most;
		fourths += x * x * x * x;
	}
	return overlap * most * fourth_root(fourths) + (1 - overlap) * sum;
}

/* ---- times of a placement -------------------------------------------------- */

static enum pol_bound bound_of(const struct pol_plan_in *in,
			       const struct pol_plan *p)
{
	double moving = max2(p->disk_s, p->link_s);
	double cpu = p->decode_s + p->read_s + (beside(in) ? 0 : p->compute_s);
	double near = max2(moving, cpu) * 1e-6;

	if (beside(in) && p->compute_s >= max2(moving, cpu))
		return POL_BOUND_COMPUTE;
	if (p->decode_s > 0 && cpu >= moving - near && moving >= cpu - near)
		return POL_BOUND_BALANCE;
	if (moving <= cpu)
		return p->decode_s > 0 ? POL_BOUND_DECODE : POL_BOUND_COMPUTE;
	return p->disk_s >= p->link_s ? POL_BOUND_DISK : POL_BOUND_LINK;
}

void pol_plan_times(const struct pol_plan_in *in, struct pol_plan *p)
{
	double t[4], most;

	p->ram = p->vram = p->disk_s = p->link_s = p->decode_s = p->read_s = 0;
	p->compute_s = in->compute;
	for (uint32_t i = 0; i < in->n; i++) {
		const struct pol_class *c = &in->class[i];
		const double *share = p->share[i];

		p->vram += share[POL_TIER_DEVICE] * c->bytes;
		p->ram += share[POL_TIER_PLAIN] * c->bytes;
		if (share[POL_TIER_PACKED] > 0)	/* it packs, so ratio > 0 */
			p->ram += share[POL_TIER_PACKED] * c->bytes / c->ratio;
		p->disk_s += share[POL_TIER_ABSENT] * disk_time(in, c);
		p->read_s += share[POL_TIER_ABSENT] * read_time(in, c);
		p->decode_s += share[POL_TIER_PACKED] * decode_time(in, c);
		for (int k = 0; k < POL_TIERS; k++)
			p->link_s += share[k] *
				     link_time(in, c, (enum pol_tier)k);
	}
	t[0] = p->disk_s;
	t[1] = p->link_s;
	t[2] = (beside(in) ? 0 : p->compute_s) + p->decode_s + p->read_s;
	t[3] = beside(in) ? p->compute_s : 0;
	most = max2(max3(t[0], t[1], t[2]), t[3]);
	p->seconds = in->overlap * most +
		     (1 - in->overlap) * (t[0] + t[1] + t[2] + t[3]);
	p->likely = pol_likely(t, 4, in->overlap);
	p->bound = bound_of(in, p);
}

/* ---- the linear program ------------------------------------------------------ */

/* Columns of class i: */
enum { C_PLAIN, C_PACKED, C_DEVICE, C_N };
enum { R_RAM, R_VRAM, R_DISK, R_LINK, R_CPU, R_BESIDE, R_N };

static const enum pol_tier tier_of[C_N] = {
	POL_TIER_PLAIN, POL_TIER_PACKED, POL_TIER_DEVICE,
};

struct model {
	const struct pol_plan_in *in;
	double all;			/* bytes */
	double t0;			/* sum with all absent; 1 for 0 */
	double disk0, link0, cpu0, beside0;	/* of it */
	double *row[R_N];
};

static double all_bytes(const struct pol_plan_in *in)
{
	double all = 0;

	for (uint32_t i = 0; i < in->n; i++)
		all += in->class[i].bytes;
	return all;
}

static double room(const struct pol_plan_in *in, double all)
{
	if (all <= in->ram)
		return in->ram;
	return in->ram > in->window ? in->ram - in->window : 0;
}

static void measure(struct model *m, const struct pol_plan_in *in)
{
	m->in = in;
	m->all = all_bytes(in);
	m->cpu0 = beside(in) ? 0 : in->compute;
	m->beside0 = in->compute - m->cpu0;
	for (uint32_t i = 0; i < in->n; i++) {
		m->disk0 += disk_time(in, &in->class[i]);
		m->link0 += link_time(in, &in->class[i], POL_TIER_ABSENT);
		m->cpu0 += read_time(in, &in->class[i]);
	}
	m->t0 = m->disk0 + m->link0 + m->cpu0 + m->beside0;
	if (m->t0 <= 0)
		m->t0 = 1;
}

/* What share 1 of class i in a tier saves, beside absent, of disk and link. */
static void fill_column(const struct model *m, struct pol_lp *lp, uint32_t i,
			uint32_t kind)
{
	const struct pol_class *c = &m->in->class[i];
	uint32_t col = i * C_N + kind;
	double disk = disk_time(m->in, c) / m->t0;
	double link = (link_time(m->in, c, POL_TIER_ABSENT) -
		       link_time(m->in, c, tier_of[kind])) / m->t0;
	double cpu = ((kind == C_PACKED ? decode_time(m->in, c) : 0) -
		      read_time(m->in, c)) / m->t0;
	double idle = USES_LEAST * c->bytes / m->all;
	double size = c->bytes / m->all;

	lp->row[i][col] = 1;
	if (kind == C_DEVICE)
		m->row[R_VRAM][col] = size;
	else
		m->row[R_RAM][col] = kind == C_PACKED ? size / c->ratio : size;
	m->row[R_DISK][col] = -disk;
	m->row[R_LINK][col] = -link;
	m->row[R_CPU][col] = cpu;
	lp->goal[0][col] = (1 - m->in->overlap) * (disk + link - cpu);
	lp->goal[1][col] = disk + link - cpu + (kind == C_PACKED ? idle / 2 : idle);
}

static bool usable(const struct model *m, const struct pol_class *c,
		   uint32_t kind)
{
	if (!(c->bytes > 0))
		return false;
	if (kind == C_PACKED)
		return packs(c) && decode_time(m->in, c) < DECODE_MOST * m->t0;
	return kind != C_DEVICE || m->in->link > 0;
}

/* Rows of classes come first: row i is class i's. */
static void build(struct model *m, struct pol_lp *lp)
{
	const struct pol_plan_in *in = m->in;
	uint32_t s = in->n * C_N;
	double scale = m->all > 0 ? m->all : 1;

	pol_lp_init(lp, s + 1);
	for (uint32_t i = 0; i < in->n; i++)
		pol_lp_row(lp, 1);
	m->row[R_RAM] = pol_lp_row(lp, room(in, m->all) / scale);
	m->row[R_VRAM] = pol_lp_row(lp, in->vram / scale);
	m->row[R_DISK] = pol_lp_row(lp, (m->t0 - m->disk0) / m->t0);
	m->row[R_LINK] = pol_lp_row(lp, (m->t0 - m->link0) / m->t0);
	m->row[R_CPU] = pol_lp_row(lp, (m->t0 - m->cpu0) / m->t0);
	m->row[R_DISK][s] = m->row[R_LINK][s] = m->row[R_CPU][s] = 1;
	if (beside(in)) {
		m->row[R_BESIDE] = pol_lp_row(lp, (m->t0 - m->beside0) / m->t0);
		m->row[R_BESIDE][s] = 1;
	}
	lp->goal[0][s] = in->overlap;
	for (uint32_t i = 0; i < in->n; i++)
		for (uint32_t kind = 0; kind < C_N; kind++)
			if (usable(m, &in->class[i], kind))
				fill_column(m, lp, i, kind);
}

static void take_shares(const struct pol_plan_in *in, const double *x,
			struct pol_plan *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < in->n; i++) {
		double left = 1, v;

		for (uint32_t kind = 0; kind < C_N; kind++) {
			v = x[i * C_N + kind];
			v = v < left ? v : left;
			out->share[i][tier_of[kind]] = v;
			left -= v;
		}
		/* what rounding leaves is nobody's chunk */
		out->share[i][POL_TIER_ABSENT] = left > 1e-9 ? left : 0;
	}
}

static void shortest(const struct pol_plan_in *in, struct pol_plan *out)
{
	struct model m = { 0 };
	double x[POL_LP_COLS];
	struct pol_lp lp;

	measure(&m, in);
	build(&m, &lp);
	pol_lp_solve(&lp, x);
	take_shares(in, x, out);
	pol_plan_times(in, out);
}

/* More than next to nothing: however slow a disk is, it is given what it has the time for. */
static bool reads(const struct pol_plan_in *in, const struct pol_plan *p)
{
	return p->disk_s * in->disk > all_bytes(in) / QUIET_SLOWER;
}

/* The shortest of those that read nothing, if there is one: so slow a disk is left alone. */
static void prefer_quiet(const struct pol_plan_in *in, struct pol_plan *out)
{
	struct pol_plan_in slow = *in;
	struct pol_plan p;

	slow.disk /= QUIET_SLOWER;
	shortest(&slow, &p);
	pol_plan_times(in, &p);
	if (!reads(in, &p) && p.seconds <= out->seconds * (1 + in->quiet))
		*out = p;
}

int pol_plan(const struct pol_plan_in *in, struct pol_plan *out)
{
	if (!valid(in))
		return -EINVAL;
	shortest(in, out);
	if (in->quiet > 0 && reads(in, out))
		prefer_quiet(in, out);
	return 0;
}

/* ---- when to solve again, when to follow -------------------------------------- */

static bool moved(double was, double now)
{
	double by = now > was ? now - was : was - now;

	return by > 0 && by >= was * STALE * (1 - 1e-9);
}

static bool class_moved(const struct pol_class *was, const struct pol_class *now)
{
	return moved(was->bytes, now->bytes) || moved(was->uses, now->uses) ||
	       moved(was->ratio, now->ratio) || moved(was->unpack, now->unpack) ||
	       moved(was->unpack_device, now->unpack_device);
}

bool pol_plan_stale(const struct pol_plan_in *was, const struct pol_plan_in *now)
{
	bool yes = was->n != now->n || moved(was->ram, now->ram) ||
		   moved(was->vram, now->vram) ||
		   moved(was->window, now->window) ||
		   moved(was->disk, now->disk) || moved(was->link, now->link) ||
		   moved(was->cores, now->cores) ||
		   moved(was->read_cpu, now->read_cpu) ||
		   moved(was->compute, now->compute) ||
		   moved(was->overlap, now->overlap);

	for (uint32_t i = 0; !yes && i < now->n; i++)
		yes = class_moved(&was->class[i], &now->class[i]);
	return yes;
}

bool pol_plan_adopt(const struct pol_plan_in *now, const struct pol_plan *have,
		    const struct pol_plan *next)
{
	double slack = 1 + 1e-6;
	struct pol_plan p = *have;

	pol_plan_times(now, &p);
	return p.ram > room(now, all_bytes(now)) * slack ||
	       p.vram > now->vram * slack ||
	       (reads(now, &p) && !reads(now, next) &&
		next->seconds <= p.seconds * (1 + now->quiet)) ||
	       next->seconds <= p.seconds * (1 - ADOPT);
}
