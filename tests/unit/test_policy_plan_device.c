/* SPDX-License-Identifier: MIT */
/* test_policy_plan_device.c - homes, staging and reading in place: the shortest
 * pass, by a reckoning of its own over all corners, and answers known by hand.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "policy/policy_int.h"
#include "tests/unit/plan_test.h"

#define MB 1e6
#define GB 1e9

/* A card of 6 GB, a link of 20 GB/s, and a pass of 50 ms. */
static struct pol_dev_in card(void)
{
	return (struct pol_dev_in){
		.vram = 6 * GB, .host = 30 * GB, .extent = 32 * MB,
		.up = 20 * GB, .down = 15 * GB, .latency = 20e-6, .launch_s = 0.05,
	};
}

static struct pol_dev_span weights(double bytes)
{
	return (struct pol_dev_span){ .bytes = bytes, .visits = 1, .reads = 1, .view = true };
}

/* Solves, and holds the answer to what it promises. */
static struct pol_dev_plan solve(const struct pol_dev_in *in, struct pol_dev_span *s,
				 uint32_t n)
{
	double home = 0, away = 0, up = 0, down = 0, wait = 0, most, one;
	struct pol_dev_plan p;

	assert_int_equal(pol_dev_plan(in, s, n, &p), 0);
	for (uint32_t i = 0; i < n; i++) {
		double left = s[i].bytes - s[i].home;

		assert_true(s[i].home >= 0 && s[i].home <= s[i].bytes * (1 + 1e-12));
		home += s[i].home;
		away += left;
		if (s[i].way == POL_DEV_STAGED) {
			assert_true(s[i].view && !(s[i].written > 0) && p.slots >= 2);
			up += left * s[i].visits / in->up;
			continue;
		}
		one = left * s[i].visits * s[i].reads / in->up;
		up += one;
		down += left * s[i].written / in->down;
		wait += one + left * s[i].written / in->down;
	}
	assert_true(home + p.slots * in->extent <= in->vram * (1 + 1e-9));
	assert_true(away <= in->host * (1 + 1e-9) + 1);
	most = up > down ? up : down;
	close_to(p.seconds, most > in->launch_s + wait ? most : in->launch_s + wait);
	close_to(p.staged + p.in_place, away);
	assert_true(p.likely >= p.seconds * (1 - 1e-9));
	return p;
}

static void what_fits_is_left_alone(void **state)
{
	struct pol_dev_span s[2] = { weights(4 * GB), weights(2 * GB) };
	struct pol_dev_in in = card();
	struct pol_dev_plan p = solve(&in, s, 2);

	assert_int_equal(p.slots, 0);
	close_to(s[0].home + s[1].home, 6 * GB);
	close_to(p.seconds, 0.05);
	assert_int_equal(pol_dev_plan(&in, s, 0, &p), 0);
	close_to(p.seconds, 0.05);
}

/* Twice the card: all layers lose the same share, so that the link never rests. */
static void layers_share_evenly(void **state)
{
	struct pol_dev_in in = card();
	struct pol_dev_span s[12];
	struct pol_dev_plan p;

	for (int i = 0; i < 12; i++)
		s[i] = weights(i % 2 ? 0.5 * GB : 1.5 * GB);
	p = solve(&in, s, 12);
	for (int i = 0; i < 12; i++) {
		assert_int_equal(s[i].way, POL_DEV_STAGED);
		close_to(s[i].home / s[i].bytes, s[0].home / s[0].bytes);
	}
	close_to(p.staged, 6 * GB + p.slots * in.extent);
	close_to(p.seconds, p.staged / in.up);
	assert_int_equal(p.slots, 4);		/* the link is the bound: no more helps */
	in.latency = 0.1;			/* sixty copies must be under way */
	p = solve(&in, s, 12);
	assert_true(p.slots > 40 && p.slots * in.extent <= in.vram / 4);
}

static void what_is_used_most_is_homed(void **state)
{
	struct pol_dev_span s[3] = { weights(5 * GB), weights(5 * GB), weights(5 * GB) };
	struct pol_dev_in in = card();

	s[1].visits = 3;
	s[2].visits = 0.5;
	solve(&in, s, 3);
	close_to(s[1].home, s[1].bytes);
	assert_true(s[0].home > 0.5 * GB);
	close_to(s[2].home, 0);
}

static void what_is_written_is_never_staged(void **state)
{
	struct pol_dev_span s[2] = { weights(5 * GB), weights(5 * GB) };
	struct pol_dev_in in = card();

	s[0].written = 0.01;
	s[1].view = false;
	solve(&in, s, 2);
	assert_int_equal(s[0].way, POL_DEV_IN_PLACE);
	assert_int_equal(s[1].way, POL_DEV_IN_PLACE);
	s[1] = weights(5 * GB);
	s[0].written = 1;
	solve(&in, s, 2);
	close_to(s[0].home, s[0].bytes);	/* dearest: launches wait for it */
	assert_int_equal(s[1].way, POL_DEV_STAGED);
}

/* Few bytes of much are used: copying it whole would keep the link busier than
 * launches wait for it. And the other way round. */
static void parts_are_read_in_place(void **state)
{
	struct pol_dev_span s[1] = { weights(12 * GB) };
	struct pol_dev_in in = card();
	struct pol_dev_plan p;

	s[0].reads = 0.05;
	p = solve(&in, s, 1);
	assert_int_equal(s[0].way, POL_DEV_IN_PLACE);
	assert_int_equal(p.slots, 0);
	close_to(p.seconds, 0.05 + 6 * GB * 0.05 / in.up);
	s[0].reads = 4;
	p = solve(&in, s, 1);
	assert_int_equal(s[0].way, POL_DEV_STAGED);
	s[0].reads = 0.8;			/* and the device has long to compute */
	in.launch_s = 1;
	p = solve(&in, s, 1);
	assert_int_equal(s[0].way, POL_DEV_STAGED);
	close_to(p.seconds, 1);
}

static void host_memory_is_kept_to(void **state)
{
	struct pol_dev_span s[2] = { weights(5 * GB), weights(5 * GB) };
	struct pol_dev_in in = card();
	struct pol_dev_plan p;

	in.host = 4 * GB;			/* not a byte for slots */
	p = solve(&in, s, 2);
	assert_int_equal(p.slots, 0);
	in.host = 4.1 * GB;			/* three slots */
	p = solve(&in, s, 2);
	assert_int_equal(p.slots, 3);
	in.host = 3.99 * GB;
	assert_int_equal(pol_dev_plan(&in, s, 2, &p), -ENOSPC);
}

/* Three spans, each homed whole, or not, by either way: none of these is shorter. */
static double best_corner(const struct pol_dev_in *in, const struct pol_dev_span *s,
			  double room)
{
	double best = 1e30, used, up, down, wait, t;

	for (int k = 0; k < 27; k++) {
		int at[3] = { k % 3, k / 3 % 3, k / 9 };

		used = up = down = wait = 0;
		for (int i = 0; i < 3; i++) {
			double one = s[i].bytes * s[i].visits / in->up;
			double back = s[i].bytes * s[i].written / in->down;

			if (at[i] == 1 && (!s[i].view || s[i].written > 0))
				used = 1e30;
			if (at[i] == 0)
				used += s[i].bytes;
			up += at[i] == 1 ? one : at[i] == 2 ? one * s[i].reads : 0;
			down += at[i] == 2 ? back : 0;
			wait += at[i] == 2 ? one * s[i].reads + back : 0;
		}
		t = up > down ? up : down;
		t = t > in->launch_s + wait ? t : in->launch_s + wait;
		if (used <= room && t < best)
			best = t;
	}
	return best;
}

static void hardly_anything_is_shorter(void **state)
{
	double worst = 1, sum = 0, ratio;
	struct pol_dev_plan p;
	int n = 0;

	seed = 13;
	for (int i = 0; i < 4000; i++) {
		struct pol_dev_in in = card();
		struct pol_dev_span s[3];

		in.launch_s = any() * 0.6;
		for (int k = 0; k < 3; k++)
			s[k] = (struct pol_dev_span){
				.bytes = any() * 6 * GB, .visits = 1 + (int)(any() * 3),
				.reads = any() < 0.3 ? any() : 1 + any() * 3,
				.written = any() < 0.2 ? any() : 0, .view = any() < 0.8,
			};
		p = solve(&in, s, 3);
		ratio = p.seconds / best_corner(&in, s, in.vram - p.slots * in.extent);
		worst = ratio > worst ? ratio : worst;
		sum += ratio;
		n++;
	}
	if (worst > 1.5 || sum / n > 1.0)	/* most are shorter: shares may be parts */
		fail_msg("%.3f times the best corner at worst, %.3f on average", worst, sum / n);
}

static void bad_numbers_are_refused(void **state)
{
	double bad[] = { -1, __builtin_nan(""), __builtin_inf() };
	struct pol_dev_plan p;

	for (int i = 0; i < 3; i++) {
		struct pol_dev_in in = card();
		struct pol_dev_span s[1] = { weights(GB) };
		double *field[] = { &in.vram, &in.host, &in.extent, &in.up, &in.down,
				    &in.latency, &in.launch_s, &s[0].bytes,
				    &s[0].visits, &s[0].reads, &s[0].written };

		for (size_t f = 0; f < sizeof(field) / sizeof(field[0]); f++) {
			in = card();
			s[0] = weights(GB);
			*field[f] = bad[i];
			assert_int_equal(pol_dev_plan(&in, s, 1, &p), -EINVAL);
		}
		in = card();
		*(i == 0 ? &in.up : i == 1 ? &in.down : &in.extent) = 0;
		s[0] = weights(GB);
		assert_int_equal(pol_dev_plan(&in, s, 1, &p), -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_fits_is_left_alone),
		cmocka_unit_test(layers_share_evenly),
		cmocka_unit_test(what_is_used_most_is_homed),
		cmocka_unit_test(what_is_written_is_never_staged),
		cmocka_unit_test(parts_are_read_in_place),
		cmocka_unit_test(host_memory_is_kept_to),
		cmocka_unit_test(hardly_anything_is_shorter),
		cmocka_unit_test(bad_numbers_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
