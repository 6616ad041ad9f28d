/* SPDX-License-Identifier: MIT */
/* test_policy_homes.c - which extents are homed in the device (policy/homes.c), on programs
 * made here: what kernels read at the host in a pass, and what was moved for it.
 *
 * Owns the program of a test: extents, and how often each is used in a pass. Lock: none.
 * (1) Figures are golden: leaving all as it is reads more, an LRU moves more.
 * (2) Nothing but uses decides, wherever in a pass a look falls.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "policy/policy.h"

#define MANY	256
#define MIB	(1ull << 20)

static struct pol_home h[MANY];
static uint32_t n;
static uint64_t room, host_room, moved, read_at_host;
static uint64_t seed;

static uint32_t draw(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 33) % below);
}

/* n extents alike, the first `in` of them in the device, which then has `left` more. */
static void start(uint32_t extents, uint32_t in, uint64_t left)
{
	memset(h, 0, sizeof(h));
	n = extents;
	for (uint32_t i = 0; i < n; i++) {
		h[i].bytes = 32 * MIB;
		h[i].device = i < in;
	}
	room = left;
	host_room = 1ull << 40;
	moved = read_at_host = 0;
	seed = 1;
}

static uint32_t look(void)
{
	struct pol_homes_in in = { .room = room, .spare = room, .host = host_room };
	uint32_t order[MANY], out[MANY], k;

	if (pol_homes_passes(h, n) >= POL_HOME_LOOK)
		pol_homes_look(h, n);
	k = pol_homes(&in, h, n, order, out, MANY);
	for (uint32_t i = 0; i < k; i++) {
		struct pol_home *e = &h[out[i]];

		assert_false(e->stays);
		if (e->device) {
			assert_true(host_room >= e->bytes);
			host_room -= e->bytes;
			room += e->bytes;
		} else {
			assert_true(room >= e->bytes);	/* room comes before it is taken */
			room -= e->bytes;
			host_room += e->bytes;
		}
		e->device = !e->device;
		moved += e->bytes;
	}
	return k;
}

static void use(uint32_t i)
{
	h[i].uses++;
	read_at_host += h[i].device ? 0 : h[i].bytes * (h[i].written ? 2 : 1);
}

/* Bytes read at the host in each of the last of `passes`; a look after each so many uses. */
static uint64_t run(void (*pass)(uint32_t nth), uint32_t passes, uint32_t last)
{
	for (uint32_t i = 0; i < passes; i++) {
		if (i == passes - last)
			read_at_host = 0;
		pass(i);
		look();
	}
	return read_at_host / last;
}

/* ---- a dense loop ------------------------------------------------------------------- */

static void dense(uint32_t nth)
{
	for (uint32_t i = 0; i < n; i++) {
		use(i);
		if (i % 7 == nth % 7)	/* the middle of a pass */
			look();
	}
}

static void loops_stay(void **state)
{
	for (uint32_t in = 0; in <= 60; in += 12) {
		start(60, in, 0);
		assert_int_equal(run(dense, 400, 100), (60 - in) * 32 * MIB);
		assert_int_equal(moved, 0);
	}
}

/* What is free is used; no more than that. */
static void room_is_filled(void **state)
{
	start(60, 20, 10 * 32 * MIB + 5);
	assert_int_equal(run(dense, 100, 10), 30 * 32 * MIB);
	assert_int_equal(moved, 10 * 32 * MIB);
}

/* ---- skew ---------------------------------------------------------------------------- */

/* A tied embedding, used twice; a head of the cache used four times; the rest once. */
static void tied(uint32_t nth)
{
	use(n - 1);
	for (uint32_t i = 0; i < n - 2; i++)
		use(i);
	for (uint32_t i = 0; i < 4; i++)
		use(n - 2);
	use(n - 1);
}

static void hot_ones_come(void **state)
{
	start(40, 20, 0);
	assert_int_equal(run(tied, 60, 10), 20 * 32 * MIB);	/* not 24 */
	assert_true(h[n - 1].device && h[n - 2].device);
	assert_int_equal(moved, 4 * 32 * MIB);
	moved = 0;
	run(tied, 400, 100);
	assert_int_equal(moved, 0);
}

/* 64 experts, 8 of them in a pass: the upper half three times as often. Attention (8) is
 * used in each. */
static void experts(uint32_t nth)
{
	for (uint32_t i = 0; i < 8; i++)
		use(i);
	for (uint32_t i = 0; i < 8; i++)
		use(8 + (draw(4) ? 32 : 0) + draw(32));
}

static void experts_settle(void **state)
{
	uint64_t before, after;

	start(72, 40, 0);		/* attention and the seldom ones */
	before = run(experts, 8, 8);
	start(72, 40, 0);
	after = run(experts, 4000, 1000);
	/* 6 uses in a pass at the host, and 2 once the seldom ones are there. */
	assert_in_range(before / (32 * MIB), 5, 7);
	assert_in_range(after * 10 / (32 * MIB), 18, 24);
	assert_in_range(moved / (32 * MIB), 56, 90);	/* 64: one swap for each */
	for (uint32_t i = 0; i < 8; i++)
		assert_true(h[i].device);
	moved = 0;
	run(experts, 1000, 1);
	assert_in_range(moved / (32 * MIB), 0, 4);
}

/* All alike, at random: nothing to gain, and chance is not taken for a gain. */
static void fair(uint32_t nth)
{
	for (uint32_t i = 0; i < 8; i++)
		use(draw(64));
}

static void chance_moves_little(void **state)
{
	start(64, 32, 0);
	run(fair, 20000, 1);
	assert_in_range(moved / (32 * MIB), 0, 24);
}

static void half(uint32_t nth)
{
	for (uint32_t i = 0; i < 40; i++)
		for (uint32_t k = 0; k < (nth < 200 ? i < 10 : i >= 30) * 3u + 1; k++)
			use(i);
}

/* The program does something else from pass 200 on. */
static void follows(void **state)
{
	start(40, 20, 0);
	run(half, 200, 1);
	assert_int_equal(moved, 0);
	run(half, 200, 1);		/* numbers from 0 again: as before */
	assert_int_equal(moved, 0);
	run(half, 400, 1);
	for (uint32_t i = 30; i < 40; i++)
		assert_true(h[i].device);
	assert_int_equal(moved, 20 * 32 * MIB);
}

/* ---- what is written ------------------------------------------------------------------- */

static void written_first(void **state)
{
	start(40, 20, 0);
	for (uint32_t i = 36; i < 40; i++) {
		h[i].written = true;
		h[i].uses = 1;
	}
	assert_int_equal(look(), 8);	/* at once: no rates are known */
	for (uint32_t i = 36; i < 40; i++)
		assert_true(h[i].device);
	moved = 0;
	run(dense, 200, 1);
	assert_int_equal(moved, 0);
}

static void limits(void **state)
{
	start(40, 20, 0);
	host_room = 0;			/* nowhere to go to */
	run(tied, 60, 1);
	assert_int_equal(moved, 0);
	start(40, 20, 0);
	for (uint32_t i = 0; i < 20; i++)
		h[i].stays = true;
	run(tied, 60, 1);
	assert_int_equal(moved, 0);
	start(40, 20, 0);
	h[38].bytes = 64 * MIB;		/* two go for it */
	run(tied, 60, 1);
	assert_true(h[38].device && h[39].device);
	assert_int_equal(moved, 2 * 64 * MIB + 2 * 32 * MIB);
	start(40, 20, 0);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(pol_home_cost(&h[i]), 0);
	assert_int_equal(pol_homes_passes(h, n), 0);
	pol_homes_look(h, n);
	assert_int_equal(h[0].looks, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loops_stay), cmocka_unit_test(room_is_filled),
		cmocka_unit_test(hot_ones_come), cmocka_unit_test(experts_settle),
		cmocka_unit_test(chance_moves_little), cmocka_unit_test(follows),
		cmocka_unit_test(written_first), cmocka_unit_test(limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
