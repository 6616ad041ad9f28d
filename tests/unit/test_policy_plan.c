/* SPDX-License-Identifier: MIT */
/* test_policy_plan.c - the placement is the best there is, and says what it takes.
 *
 * Best: no point of a grid over all placements that fit is shorter, by a
 * reckoning of its own (pass_of), over many random machines and models.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "policy/policy_int.h"
#include "tests/unit/plan_test.h"

#define GB 1e9

static double between(double lo, double hi)
{
	return lo + any() * (hi - lo);
}

/* A 10 GB bf16 loop in 6 GB on two cores, 2.5 GB/s of disk, little to compute. */
static struct pol_plan_in plain_case(void)
{
	return (struct pol_plan_in){
		.ram = 6 * GB, .disk = 2.5 * GB, .cores = 2, .compute = 0.3,
		.overlap = 1, .n = 1,
		.class = { { 10 * GB, 1, 1.42, 13 * GB, 0 } },
	};
}

static struct pol_plan solve(const struct pol_plan_in *in)
{
	struct pol_plan p;

	assert_int_equal(pol_plan(in, &p), 0);
	assert_true(p.seconds >= 0 && p.seconds < 1e60);	/* not a NaN */
	for (uint32_t i = 0; i < in->n; i++) {
		double sum = 0;

		for (int t = 0; t < POL_TIERS; t++) {
			assert_true(p.share[i][t] >= 0 && p.share[i][t] <= 1);
			sum += p.share[i][t];
		}
		close_to(sum, 1);
	}
	return p;
}

static double packed(const struct pol_plan_in *in)
{
	return solve(in).share[0][POL_TIER_PACKED];
}

/* ---- against a grid ------------------------------------------------------------ */

struct point { double share[POL_TIERS]; };	/* of one class */

/* Seconds of one pass, straight from the definition; < 0: does not fit. */
static double pass_of(const struct pol_plan_in *in, const struct point *at)
{
	double ram = 0, vram = 0, all = 0, disk = 0, link = 0;
	/* a device computes beside the processors */
	double cpu = in->link > 0 ? 0 : in->compute, there = in->compute - cpu;
	double most, over;

	for (uint32_t i = 0; i < in->n; i++) {
		const struct pol_class *c = &in->class[i];
		const double *s = at[i].share;
		double used = c->bytes * c->uses, packed_rate = in->link;

		all += c->bytes;
		vram += s[POL_TIER_DEVICE] * c->bytes;
		ram += s[POL_TIER_PLAIN] * c->bytes;
		disk += s[POL_TIER_ABSENT] * used / in->disk;
		if (s[POL_TIER_PACKED] > 0) {
			if (c->ratio <= 1 || c->unpack <= 0)
				return -1;
			ram += s[POL_TIER_PACKED] * c->bytes / c->ratio;
			if (in->link > 0 && c->unpack_device > 0) {
				double b = in->link * c->ratio, d = c->unpack_device;

				packed_rate = in->overlap > 0.5 ?
					(b < d ? b : d) : b / (1 + b / d);
			} else {
				cpu += s[POL_TIER_PACKED] * used /
				       (c->unpack * in->cores);
			}
			if (in->link > 0)
				link += s[POL_TIER_PACKED] * used / packed_rate;
		}
		if (in->link > 0)
			link += (s[POL_TIER_PLAIN] + s[POL_TIER_ABSENT]) * used /
				in->link;
		if (s[POL_TIER_DEVICE] > 0 && in->link <= 0)
			return -1;
	}
	if (vram > in->vram || (all <= in->ram ? ram > in->ram :
				ram > (in->ram > in->window ? in->ram - in->window : 0)))
		return -1;
	most = disk > link ? disk : link;
	most = most > cpu ? most : cpu;
	most = most > there ? most : there;
	over = disk + link + cpu + there;
	return in->overlap * most + (1 - in->overlap) * over;
}

#define POINTS_MAX 2000

/* All ways to divide a class in so many steps. */
static uint32_t make_points(uint32_t steps, bool device, struct point *out)
{
	uint32_t n = 0;

	for (uint32_t p = 0; p <= steps; p++)
		for (uint32_t k = 0; p + k <= steps; k++)
			for (uint32_t d = 0; p + k + d <= steps; d++) {
				if (d && !device)
					break;
				assert_true(n < POINTS_MAX);
				out[n].share[POL_TIER_PLAIN] = p / (double)steps;
				out[n].share[POL_TIER_PACKED] = k / (double)steps;
				out[n].share[POL_TIER_DEVICE] = d / (double)steps;
				out[n++].share[POL_TIER_ABSENT] =
					(steps - p - k - d) / (double)steps;
			}
	return n;
}

/* The shortest pass of all points of the grid. */
static double best_of(const struct pol_plan_in *in, const struct point *pt,
		      uint32_t n)
{
	double best = 1e30, t;
	struct point at[2];

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < (in->n > 1 ? n : 1); j++) {
			at[0] = pt[i];
			at[1] = pt[j];
			t = pass_of(in, at);
			if (t >= 0 && t < best)
				best = t;
		}
	return best;
}

static struct pol_class any_class(bool device)
{
	struct pol_class c = {
		.bytes = between(0.1, 20) * GB,
		.uses = any() < 0.3 ? between(0, 0.3) : 1,
		.ratio = any() < 0.2 ? 1 : between(1.05, 3),
		.unpack = any() < 0.1 ? 0 : between(0.5, 25) * GB,
	};

	if (device && any() < 0.5)
		c.unpack_device = between(1, 200) * GB;
	return c;
}

static struct pol_plan_in any_case(uint32_t n, bool device)
{
	struct pol_plan_in in = { .n = n };

	for (uint32_t i = 0; i < n; i++)
		in.class[i] = any_class(device);
	in.ram = any() < 0.1 ? 0 : between(0, 25) * GB;
	in.window = any() < 0.5 ? 0 : 0.04 * GB;
	in.disk = between(0.2, 12) * GB;
	in.cores = 1 + (double)(int)(any() * 16);
	in.compute = any() < 0.2 ? 0 : between(0, 4);
	in.overlap = any() < 0.7 ? 1 : 0;
	if (device) {
		in.link = between(2, 50) * GB;
		in.vram = between(0, 16) * GB;
	}
	return in;
}

static void compare(const struct pol_plan_in *in, const struct point *pt,
		    uint32_t n_points)
{
	struct pol_plan p = solve(in);
	struct point at[2];
	double best = best_of(in, pt, n_points), said;
	struct pol_plan_in roomy = *in;

	for (uint32_t i = 0; i < in->n; i++)
		memcpy(at[i].share, p.share[i], sizeof(at[i].share));
	roomy.ram *= 1 + 1e-9;
	roomy.vram *= 1 + 1e-9;
	said = pass_of(&roomy, at);
	if (said < 0)
		fail_msg("the plan does not fit");
	close_to(said, p.seconds);
	if (p.seconds > best * (1 + 1e-7))
		fail_msg("%.9g s, the grid has %.9g", p.seconds, best);
}

static void nothing_is_shorter(void **state)
{
	static struct point pt[POINTS_MAX];
	uint32_t n;

	seed = 7;
	n = make_points(60, false, pt);
	for (int i = 0; i < 1500; i++) {
		struct pol_plan_in in = any_case(1, false);

		compare(&in, pt, n);
	}
	n = make_points(16, false, pt);
	for (int i = 0; i < 500; i++) {
		struct pol_plan_in in = any_case(2, false);

		compare(&in, pt, n);
	}
}

static void nothing_is_shorter_with_a_device(void **state)
{
	static struct point pt[POINTS_MAX];
	uint32_t n;

	seed = 8;
	n = make_points(18, true, pt);
	for (int i = 0; i < 500; i++) {
		struct pol_plan_in in = any_case(1, true);

		compare(&in, pt, n);
	}
	n = make_points(8, true, pt);
	for (int i = 0; i < 200; i++) {
		struct pol_plan_in in = any_case(2, true);

		compare(&in, pt, n);
	}
}

/* A full table: each pair of classes is two halves of the same, which must
 * change nothing. */
static void many_classes_are_as_few(void **state)
{
	seed = 9;
	for (int i = 0; i < 300; i++) {
		struct pol_plan_in in = any_case(POL_CLASSES / 2, i & 1), two = in;

		two.n = POL_CLASSES;
		for (uint32_t c = 0; c < in.n; c++) {
			two.class[c].bytes = in.class[c].bytes * 0.25;
			two.class[in.n + c] = in.class[c];
			two.class[in.n + c].bytes = in.class[c].bytes * 0.75;
		}
		close_to(solve(&in).seconds, solve(&two).seconds);
	}
}

/* ---- known answers --------------------------------------------------------------- */

/* Packed k of 10 GB, the rest of 6 GB plain: absent a = 10 - p - k with
 * p + k/1.42 = 6, so a = 4 - k (1 - 1/1.42). Disk a / 2.5 = 0.3 + k / 26. */
static void balance_by_hand(void **state)
{
	struct pol_plan_in in = plain_case();
	double gain = 1 - 1 / 1.42;
	double k = (4 / 2.5 - 0.3) / (1 / 26. + gain / 2.5);
	struct pol_plan p = solve(&in);

	assert_true(k < 10 && 6 - k / 1.42 > 0);
	close_to(p.share[0][POL_TIER_PACKED], k / 10);
	close_to(p.share[0][POL_TIER_PLAIN], (6 - k / 1.42) / 10);
	close_to(p.disk_s, p.compute_s + p.decode_s);
	close_to(p.seconds, 0.3 + k / 26);
	assert_int_equal(p.bound, POL_BOUND_BALANCE);
	close_to(p.ram, 6 * GB);
}

static void bounds_have_names(void **state)
{
	struct pol_plan_in in = plain_case();
	struct pol_plan p;

	in.class[0].ratio = 1;
	assert_int_equal(solve(&in).bound, POL_BOUND_DISK);
	close_to(solve(&in).seconds, 4 / 2.5);
	in.compute = 5;
	assert_int_equal(solve(&in).bound, POL_BOUND_COMPUTE);
	close_to(solve(&in).seconds, 5);
	in = plain_case();
	p = solve(&in);
	in.disk *= 2;			/* the same placement, another disk */
	pol_plan_times(&in, &p);
	assert_int_equal(p.bound, POL_BOUND_DECODE);
	in = plain_case();
	in.link = 1 * GB;
	in.vram = 3 * GB;
	assert_int_equal(solve(&in).bound, POL_BOUND_LINK);
	close_to(solve(&in).seconds, 7);
	close_to(solve(&in).vram, 3 * GB);
}

/* Where time is not to be won, memory is still used, and nothing is packed. */
static void hidden_reads_are_spared(void **state)
{
	struct pol_plan_in in = plain_case();
	struct pol_plan p;

	in.compute = 20;
	p = solve(&in);
	close_to(p.share[0][POL_TIER_PLAIN], 0.6);
	assert_true(p.share[0][POL_TIER_PACKED] == 0);
	close_to(p.seconds, 20);
	in.class[0].uses = 0;
	close_to(solve(&in).share[0][POL_TIER_PLAIN], 0.6);
}

static void used_most_stays(void **state)
{
	struct pol_plan_in in = plain_case();
	struct pol_plan p;

	in.n = 3;
	in.class[0] = (struct pol_class){ .bytes = 4 * GB, .uses = 0.01 };
	in.class[1] = (struct pol_class){ .bytes = 4 * GB, .uses = 0.25 };
	in.class[2] = (struct pol_class){ .bytes = 4 * GB, .uses = 1 };
	p = solve(&in);
	close_to(p.share[2][POL_TIER_PLAIN], 1);
	close_to(p.share[1][POL_TIER_PLAIN], 0.5);
	close_to(p.share[0][POL_TIER_PLAIN], 0);
}

static void window_is_needed_while_something_moves(void **state)
{
	struct pol_plan_in in = plain_case();

	in.class[0].ratio = 1;
	in.window = 0.5 * GB;
	close_to(solve(&in).disk_s, 4.5 / 2.5);
	in.ram = in.class[0].bytes;
	close_to(solve(&in).disk_s, 0);
	in.ram = 0.1 * GB;		/* less than the window */
	close_to(solve(&in).disk_s, 10 / 2.5);
}

/* One after another, packing pays when it saves more reading than it takes
 * unpacking: decode > B R/(R - 1), over all cores. */
static void serial_break_even(void **state)
{
	struct pol_plan_in in = plain_case();
	double even = in.disk * 1.42 / 0.42 / in.cores;

	in.overlap = 0;
	in.class[0].unpack = even * 0.99;
	assert_true(packed(&in) == 0);
	in.class[0].unpack = even * 1.01;
	assert_true(packed(&in) > 0.5);
}

static void decoder_with_no_time_packs_nothing(void **state)
{
	struct pol_plan_in in = plain_case();

	in.compute = 4 / 2.5;		/* as long as the reading */
	close_to(packed(&in), 0);
	in.compute = 4 / 2.5 - 0.1;
	assert_true(packed(&in) > 0.05);
	in.class[0].unpack = 0.1 * GB;	/* a crawl, but beside the disk */
	assert_true(packed(&in) < 0.01);
	in.class[0].unpack = 0;
	assert_true(packed(&in) == 0);
}

/* ---- directions -------------------------------------------------------------------- */

static void disk_decides_what_is_packed(void **state)
{
	struct pol_plan_in in = plain_case();
	double was = 1, now;

	for (double gbs = 0.1; gbs < 20; gbs *= 1.3) {
		in.disk = gbs * GB;
		now = packed(&in);
		assert_true(now <= was + 1e-9);
		was = now;
	}
	assert_true(was == 0);		/* 13.3 GB/s: reading hides in computing */
	in.disk = 0.1 * GB;
	assert_true(packed(&in) > 0.85);	/* as much as fits: 0.852 */
}

static void more_is_never_slower(void **state)
{
	static const double step[] = { 1.02, 1.5, 4 };

	seed = 10;
	for (int i = 0; i < 3000; i++) {
		struct pol_plan_in in = any_case(1 + i % 5, i % 3 == 0);
		double t = solve(&in).seconds * (1 + 1e-7) + 1e-12;
		struct pol_plan_in more[5] = { in, in, in, in, in };

		more[0].ram *= step[i % 3];
		more[1].disk *= step[i % 3];
		more[2].cores *= step[i % 3];
		more[3].vram *= step[i % 3];
		more[4].link *= step[i % 3];
		for (int k = 0; k < 5; k++)
			if (solve(&more[k]).seconds > t)
				fail_msg("case %d: more of %d is slower", i, k);
	}
}

/* ---- degenerate ---------------------------------------------------------------------- */

static void nothing_and_everything(void **state)
{
	struct pol_plan_in in = plain_case();
	struct pol_plan p;

	in.ram = 0;
	p = solve(&in);
	close_to(p.share[0][POL_TIER_ABSENT], 1);
	close_to(p.seconds, 4);
	in.ram = 10 * GB;
	p = solve(&in);
	close_to(p.share[0][POL_TIER_PLAIN], 1);
	close_to(p.seconds, 0.3);
	in.n = 0;
	close_to(solve(&in).seconds, 0.3);
	in.compute = 0;
	close_to(solve(&in).seconds, 0);
	assert_int_equal(solve(&in).bound, POL_BOUND_COMPUTE);
	in.n = 2;
	memset(in.class, 0, sizeof(in.class));
	close_to(solve(&in).seconds, 0);
	in.class[1].bytes = 1;		/* one byte, never used */
	close_to(solve(&in).seconds, 0);
}

static void far_apart_numbers(void **state)
{
	static const double far[] = { 1e-6, 1, 1e3, 1e9, 1e15, 1e18 };
	double pick[6];

	seed = 11;
	for (int i = 0; i < 5000; i++) {
		struct pol_plan_in in = plain_case();

		for (int k = 0; k < 6; k++)
			pick[k] = far[(int)(any() * 6)];
		in.n = 2;
		in.ram = pick[0];
		in.disk = pick[1];
		in.class[0].bytes = pick[2];
		in.class[0].unpack = pick[3];
		in.class[1] = (struct pol_class){ pick[4], pick[5] * 1e-9, 2,
						  GB, 0 };
		struct pol_plan p = solve(&in);

		assert_true(p.ram <= in.ram * (1 + 1e-6) +
				    1e-9 * in.class[0].bytes + 1e-9 * in.class[1].bytes);
	}
}

static void bad_numbers_are_refused(void **state)
{
	double nan = __builtin_nan(""), bad[] = { -1, nan, __builtin_inf() };
	struct pol_plan_in good = plain_case(), in;
	struct pol_plan p;

	for (int i = 0; i < 3; i++) {
		double *field[] = { &in.ram, &in.vram, &in.window, &in.disk,
				    &in.link, &in.cores, &in.compute,
				    &in.overlap, &in.class[0].bytes,
				    &in.class[0].uses, &in.class[0].ratio,
				    &in.class[0].unpack,
				    &in.class[0].unpack_device };

		for (size_t f = 0; f < sizeof(field) / sizeof(field[0]); f++) {
			in = good;
			*field[f] = bad[i];
			assert_int_equal(pol_plan(&in, &p), -EINVAL);
		}
	}
	in = good;
	in.disk = 0;
	assert_int_equal(pol_plan(&in, &p), -EINVAL);
	in = good;
	in.cores = 0;
	assert_int_equal(pol_plan(&in, &p), -EINVAL);
	in = good;
	in.n = POL_CLASSES + 1;
	assert_int_equal(pol_plan(&in, &p), -EINVAL);
}

/* ---- when to solve again ---------------------------------------------------------------- */

static void a_tenth_is_a_move(void **state)
{
	struct pol_plan_in was = plain_case(), now;
	double *field[] = { &now.ram, &now.disk, &now.cores, &now.compute,
			    &now.class[0].bytes, &now.class[0].uses,
			    &now.class[0].ratio, &now.class[0].unpack };

	now = was;
	assert_false(pol_plan_stale(&was, &now));
	for (size_t f = 0; f < sizeof(field) / sizeof(field[0]); f++) {
		static const struct { double by; bool stale; } c[] = {
			{ 1.09, false }, { 0.91, false }, { 1.1, true },
			{ 0.9, true }, { 3, true }, { 0, true },
		};

		for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
			now = was;
			*field[f] *= c[i].by;
			assert_int_equal(pol_plan_stale(&was, &now), c[i].stale);
		}
	}
	now = was;
	now.link = 1;			/* from none to some */
	assert_true(pol_plan_stale(&was, &now));
	now = was;
	now.n = 2;
	assert_true(pol_plan_stale(&was, &now));
}

static void small_gains_move_nothing(void **state)
{
	struct pol_plan_in was = plain_case(), now = was;
	struct pol_plan have = solve(&was), next, at_new;

	assert_false(pol_plan_adopt(&was, &have, &have));
	now.disk = was.disk * 1.15;	/* stale, but what is there is good */
	assert_true(pol_plan_stale(&was, &now));
	next = solve(&now);
	at_new = have;
	pol_plan_times(&now, &at_new);
	assert_true(next.seconds < at_new.seconds);
	assert_true(next.seconds > at_new.seconds * 0.8);
	assert_false(pol_plan_adopt(&now, &have, &next));
	now.disk = was.disk * 3;
	next = solve(&now);
	assert_true(pol_plan_adopt(&now, &have, &next));
}

/* Packed it all fits; by reading some of it a pass is shorter, by more and more. */
static void the_disk_is_left_alone(void **state)
{
	struct pol_plan_in in = plain_case(), quiet;
	struct pol_plan p, q;
	int left = 0, used = 0;

	in.ram = 7.5 * GB;
	for (in.disk = 0.5 * GB; in.disk < 20 * GB; in.disk *= 1.1) {
		quiet = in;
		quiet.quiet = 0.15;
		p = solve(&in);
		q = solve(&quiet);
		assert_true(q.seconds <= p.seconds * 1.15);
		if (q.share[0][POL_TIER_ABSENT] > 1e-3) {
			close_to(q.seconds, p.seconds);
			used++;
			continue;
		}
		left++;
		assert_true(p.share[0][POL_TIER_ABSENT] > 1e-3);
		assert_true(pol_plan_adopt(&quiet, &p, &q));
		assert_false(pol_plan_adopt(&quiet, &q, &p));
	}
	assert_true(left > 2);
	assert_true(used > 2);
	in.ram = 6 * GB;	/* there it does not fit */
	in.quiet = 10;
	assert_true(solve(&in).disk_s > 0);
}

static void less_memory_is_obeyed(void **state)
{
	struct pol_plan_in was = plain_case(), now = was;
	struct pol_plan have = solve(&was), next;

	now.ram *= 0.99;
	next = solve(&now);
	assert_true(next.seconds > have.seconds);
	assert_true(pol_plan_adopt(&now, &have, &next));
	now = was;
	now.ram *= 1.01;
	next = solve(&now);
	assert_false(pol_plan_adopt(&now, &have, &next));
}

/* ---- the small formulas ------------------------------------------------------------------ */

static void overlap_of_two(void **state)
{
	close_to(pol_overlapped(3, 1, 1), 3);
	close_to(pol_overlapped(1, 3, 0), 4);
	close_to(pol_overlapped(1, 3, 0.5), 3.5);
	/* 7 GB/s of disk, zstd at 1.2 GB/s and 1.28: worse than raw on one
	 * core, and six cores win by what was packed. */
	close_to(1 / pol_overlapped(1 / (7 * 1.28), 1 / 1.2, 0),
		 7 * 1.28 / (1 + 7 * 1.28 / 1.2));
	assert_true(1 / pol_overlapped(1 / (7 * 1.28), 1 / 1.2, 0) < 1.07);
	assert_true(1 / pol_overlapped(1 / (7 * 1.28), 1 / (1.2 * 5), 1) < 7);
	assert_true(1 / pol_overlapped(1 / (7 * 1.28), 1 / (1.2 * 6), 1) > 7);
	close_to(1 / pol_overlapped(1 / (7 * 1.28), 1 / (1.2 * 8), 1), 8.96);
}

/* Far apart: the longest. Alike: some more, whatever their unit. */
static void likely_is_between_longest_and_sum(void **state)
{
	static const double apart[] = { 1, 0.1 }, alike[] = { 1, 1 };
	double t[4], x, most, sum;

	close_to(pol_likely(alike, 2, 1), 1.189207115);
	close_to(pol_likely(alike, 2, 0), 2);
	assert_true(pol_likely(apart, 2, 1) < 1.0001);
	close_to(pol_likely(t, 0, 1), 0);
	seed = 12;
	for (int i = 0; i < 1000; i++) {
		most = sum = 0;
		for (int k = 0; k < 4; k++) {
			t[k] = any() < 0.2 ? 0 : between(0, 1) * (i % 2 ? 1e-9 : 1e9);
			most = t[k] > most ? t[k] : most;
			sum += t[k];
		}
		x = pol_likely(t, 4, 1);
		assert_true(x >= most && x <= most * 1.4143 && x <= sum * (1 + 1e-12));
	}
}

/* A device computes beside the processors that read and unpack. */
static void device_computes_beside(void **state)
{
	struct pol_plan_in in = plain_case();
	struct pol_plan p;

	in.link = 10 * GB;
	in.vram = 3 * GB;
	in.ram = 8 * GB;
	in.compute = 5;
	p = solve(&in);
	close_to(p.seconds, 5);
	assert_int_equal(p.bound, POL_BOUND_COMPUTE);
	in.compute = 0.1;
	in.class[0].unpack = 0.5 * GB;
	in.ram = 4 * GB;		/* 3 GB of 10 are read, or some of it packed */
	in.disk = 1 * GB;
	p = solve(&in);
	close_to(p.disk_s, p.decode_s);
	assert_true(p.decode_s > 0.5);
}

static void lead_in_chunks(void **state)
{
	/* 1 ms until 2 MB are there at 1 GB/s: 3 ms of chunks of 0.5 ms */
	assert_int_equal(pol_lead(1e-3, 2e6, 1e9, 0.5e-3), 6);
	assert_int_equal(pol_lead(1.1e-3, 2e6, 1e9, 0.5e-3), 7);
	assert_int_equal(pol_lead(0, 2e6, 1e9, 1), 3);
	assert_int_equal(pol_lead(0, 2e6, 1e9, 2e-3), 3);
	assert_int_equal(pol_lead(0, 2e6, 1e9, 0), POL_LEAD_MOST);
	assert_int_equal(pol_lead(0, 2e6, 0, 1), POL_LEAD_MOST);
	assert_int_equal(pol_lead(1e9, 2e6, 1e9, 1e-9), POL_LEAD_MOST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_shorter),
		cmocka_unit_test(nothing_is_shorter_with_a_device),
		cmocka_unit_test(many_classes_are_as_few),
		cmocka_unit_test(balance_by_hand),
		cmocka_unit_test(bounds_have_names),
		cmocka_unit_test(hidden_reads_are_spared),
		cmocka_unit_test(used_most_stays),
		cmocka_unit_test(window_is_needed_while_something_moves),
		cmocka_unit_test(serial_break_even),
		cmocka_unit_test(decoder_with_no_time_packs_nothing),
		cmocka_unit_test(disk_decides_what_is_packed),
		cmocka_unit_test(more_is_never_slower),
		cmocka_unit_test(nothing_and_everything),
		cmocka_unit_test(far_apart_numbers),
		cmocka_unit_test(bad_numbers_are_refused),
		cmocka_unit_test(a_tenth_is_a_move),
		cmocka_unit_test(small_gains_move_nothing),
		cmocka_unit_test(the_disk_is_left_alone),
		cmocka_unit_test(less_memory_is_obeyed),
		cmocka_unit_test(overlap_of_two),
		cmocka_unit_test(likely_is_between_longest_and_sum),
		cmocka_unit_test(device_computes_beside),
		cmocka_unit_test(lead_in_chunks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
