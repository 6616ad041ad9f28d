/* SPDX-License-Identifier: MIT */
/* test_policy_torture.c - the live policy under a pager that does anything.
 *
 * Random faults, reads that end late or fail, evictions refused, pins,
 * chunks unmapped and mapped again, budgets that jump; after every step
 * pol_check must hold, a demanded chunk must get its turn, and frames may
 * exceed the budget only by what is demanded or pinned.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "policy/policy_int.h"

#define CHUNKS 96u

static uint32_t seed;

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % n;
}

static struct pol *make(uint32_t max, uint32_t frames, uint32_t window,
			uint32_t mischief)
{
	struct pol_conf conf = { max, frames, window, mischief };
	size_t size = pol_size(max);
	void *mem = aligned_alloc(64, (size + 63) & ~(size_t)63);

	memset(mem, 0, size);
	return pol_init(mem, &conf);
}

/* Four tensors and two stacks of experts in one file, three chunks each. */
static void add_model(struct pol *p, uint32_t first, uint32_t n, bool spans)
{
	struct pol_span s[6] = { 0 };

	for (uint32_t i = 0; i < 6; i++) {
		s[i].off = i * n / 6 * 10 + 3;
		s[i].len = n / 6 * 10;
		s[i].order = 5 - i;
		s[i].expert = UINT32_MAX;
		if (i % 3 == 2) {
			s[i].pattern = POL_SKEW;
			s[i].slab = 25;
			s[i].expert = 0;
		}
	}
	pol_add(p, first, n, 10, 0, s, spans ? 6 : 0, first);
}

/* Does the action well, late, or not at all. */
static void perform(struct pol *p, struct pol_action a, bool honest)
{
	bool fails = !honest && !rnd(16);

	switch (a.act) {
	case POL_FETCH:
		assert_int_equal(pol_state_of(p, a.chunk), POL_ABSENT);
		pol_moved(p, a.chunk, fails ? POL_ABSENT : POL_INFLIGHT);
		if (!fails && (honest || rnd(2)))
			pol_moved(p, a.chunk, POL_READY);
		break;
	case POL_INSTALL:
		assert_int_equal(pol_state_of(p, a.chunk), POL_READY);
		pol_moved(p, a.chunk, fails ? POL_READY : POL_PLAIN);
		break;
	case POL_SOFTEN:
		assert_int_equal(pol_state_of(p, a.chunk), POL_PLAIN);
		pol_moved(p, a.chunk, fails ? POL_PLAIN : POL_READY);
		break;
	case POL_EVICT:
		assert_int_not_equal(pol_state_of(p, a.chunk), POL_ABSENT);
		assert_int_not_equal(pol_state_of(p, a.chunk), POL_INFLIGHT);
		assert_false(p->chunk[a.chunk].flags & F_PINNED);
		assert_false(p->chunk[a.chunk].flags & F_DEMAND);
		pol_moved(p, a.chunk, fails ? pol_state_of(p, a.chunk) :
					      POL_ABSENT);
		break;
	case POL_NONE:
		break;
	}
	assert_true(pol_check(p));
}

/* Runs actions till there are none. Returns false if they never end. */
static bool drain(struct pol *p, bool honest, uint32_t room)
{
	struct pol_action a;

	for (uint32_t i = 0; i < 40 * CHUNKS; i++) {
		a = pol_next(p, room);
		if (a.act == POL_NONE)
			return true;
		perform(p, a, honest);
	}
	return false;
}

static void land_all(struct pol *p)
{
	for (uint32_t id = 0; id < CHUNKS; id++)
		if (p->chunk[id].flags & F_KNOWN &&
		    pol_state_of(p, id) == POL_INFLIGHT)
			pol_moved(p, id, rnd(16) ? POL_READY : POL_ABSENT);
}

static void stir(struct pol *p, bool pins)
{
	uint32_t id = rnd(CHUNKS), n;

	switch (rnd(24)) {
	case 0:
		pol_set_frames(p, 1 + rnd(CHUNKS));
		break;
	case 1:
		n = rnd(CHUNKS - id) + 1;
		pol_remove(p, id, n);
		assert_true(pol_check(p));
		add_model(p, id, n, rnd(2));
		break;
	case 2:
	case 3:
		if (pins)
			pol_pin(p, id, rnd(3) == 0);
		break;
	case 4:
		if (pol_state_of(p, id) == POL_ABSENT)
			pol_moved(p, id, POL_PLAIN);
		break;
	case 5:
		land_all(p);
		break;
	}
	assert_true(pol_check(p));
}

/* Walks in order mostly, with jumps, and trailing threads. */
static uint32_t next_use(uint32_t *at, uint32_t kind)
{
	if (kind == 0 || !rnd(10))
		return rnd(CHUNKS);
	*at = (*at + 1) % (kind == 2 ? CHUNKS / 2 : CHUNKS);
	return *at;
}

static void one_life(uint32_t life)
{
	uint32_t at = 0, kind = life % 3, wait = 0, chunk;
	struct pol *p;

	seed = life * 2654435761u + 1;
	p = make(CHUNKS, 1 + rnd(CHUNKS), rnd(20), life & 4 ? seed : 0);
	add_model(p, 0, CHUNKS, life & 8);
	for (uint32_t i = 0; i < 400; i++) {
		stir(p, life & 16);
		chunk = next_use(&at, kind);
		if (pol_state_of(p, chunk) != POL_PLAIN || !rnd(30))
			pol_fault(p, chunk, rnd(3));
		assert_true(pol_check(p));
		assert_true(drain(p, false, rnd(4) ? 8 : 0));
		if (pol_state_of(p, chunk) == POL_PLAIN)
			continue;
		/* nothing fails any more: it must come in soon */
		for (wait = 0; wait < 64; wait++) {
			land_all(p);
			assert_true(drain(p, true, 8));
			if (!(p->chunk[chunk].flags & F_DEMAND))
				break;
		}
		assert_true(wait < 64);
	}
	free(p);
}

static void any_pager(void **state)
{
	for (uint32_t life = 1; life <= 400; life++)
		one_life(life);
}

/* An honest pager, no pins: never a frame too many. */
static void budget_is_kept(void **state)
{
	uint32_t at = 0, chunk;
	struct pol_counts c;
	struct pol *p;
	bool fault;

	for (uint32_t life = 1; life <= 60; life++) {
		seed = life * 40503u + 7;
		p = make(CHUNKS, 1 + rnd(CHUNKS), rnd(20), life & 1 ? life : 0);
		add_model(p, 0, CHUNKS, life & 2);
		for (uint32_t i = 0; i < 600; i++) {
			if (!rnd(50))
				pol_set_frames(p, 1 + rnd(CHUNKS));
			chunk = next_use(&at, life % 3);
			fault = pol_state_of(p, chunk) != POL_PLAIN;
			if (fault)
				pol_fault(p, chunk, 0);
			assert_true(drain(p, true, 8));
			pol_counts(p, &c);
			assert_true(c.used <= c.frames);
			/* it stays till it is used, but for mischief */
			if (fault && !(life & 1))
				assert_int_equal(pol_state_of(p, chunk),
						 POL_PLAIN);
		}
		free(p);
	}
}

/* All frames pinned: a demand is served beyond the budget (P4), and the
 * frame is given back once that is possible. */
static void pinned_frames_do_not_starve(void **state)
{
	struct pol *p = make(8, 4, 2, 0);
	struct pol_counts c;

	pol_add(p, 0, 8, 10, 0, NULL, 0, 0);
	for (uint32_t id = 0; id < 4; id++) {
		pol_fault(p, id, 0);
		assert_true(drain(p, true, 8));
		pol_pin(p, id, 1);
	}
	pol_fault(p, 6, 0);
	assert_true(drain(p, true, 8));
	assert_int_equal(pol_state_of(p, 6), POL_PLAIN);
	for (uint32_t id = 0; id < 4; id++)
		pol_pin(p, id, 0);
	assert_true(drain(p, true, 8));
	pol_counts(p, &c);
	assert_int_equal(c.used, 4);
	assert_int_equal(pol_state_of(p, 6), POL_PLAIN);
	free(p);
}

/* An instruction that copies needs two chunks at once: in the end it has them,
 * however few frames there are. */
static void copy_gets_on(struct pol *p, uint32_t from, uint32_t to)
{
	for (uint32_t faults = 0; faults < 8; faults++) {
		uint32_t id = pol_state_of(p, from) != POL_PLAIN ? from : to;

		if (pol_state_of(p, id) == POL_PLAIN)
			return;
		pol_fault(p, id, 0);
		assert_true(drain(p, true, 8));
	}
	fail_msg("%u frames, %u and %u", p->frames, from, to);
}

static void two_at_once(void **state)
{
	for (uint32_t frames = 3; frames <= 20; frames++)
		for (uint32_t life = 0; life < 6; life++) {
			struct pol *p = make(CHUNKS, frames, life, 0);
			uint32_t at = 0;

			seed = life * 40503u + frames;
			add_model(p, 0, CHUNKS, life & 1);
			for (uint32_t i = 0; i < 500; i++)
				copy_gets_on(p, next_use(&at, life % 3), rnd(CHUNKS));
			free(p);
		}
}

/* The same by two threads that take turns, each looking again after the other. */
static void two_threads_copy(struct pol *p, uint32_t *at, uint32_t kind)
{
	uint32_t from[2] = { next_use(at, kind), rnd(CHUNKS) };
	uint32_t to[2] = { rnd(CHUNKS), rnd(CHUNKS) };

	for (uint32_t turn = 0; turn < 32; turn++) {
		uint32_t a = from[turn % 2], b = to[turn % 2];

		if (pol_state_of(p, a) == POL_PLAIN && pol_state_of(p, b) == POL_PLAIN)
			return;
		pol_fault(p, pol_state_of(p, a) != POL_PLAIN ? a : b, turn % 2);
		assert_true(drain(p, true, 8));
	}
	fail_msg("%u frames", p->frames);
}

static void two_threads(void **state)
{
	for (uint32_t frames = 6; frames <= 20; frames++)
		for (uint32_t life = 0; life < 6; life++) {
			struct pol *p = make(CHUNKS, frames, life, 0);
			uint32_t at = 0;

			seed = life * 40503u + frames;
			add_model(p, 0, CHUNKS, life & 1);
			for (uint32_t i = 0; i < 300; i++)
				two_threads_copy(p, &at, life % 3);
			free(p);
		}
}

/* One chunk of many at a time: it goes, comes back, or loses its place in the
 * order, as a heap's do. */
static void change_one(struct pol *p, uint32_t id)
{
	struct pol_span skew = { .len = 10, .layer = UINT32_MAX,
				 .expert = UINT32_MAX, .pattern = POL_SKEW };
	uint32_t how = rnd(3);

	if (pol_state_of(p, id) == POL_PLAIN)
		pol_moved(p, id, POL_ABSENT);
	if (how == 0)
		pol_remove(p, id, 1);
	else
		pol_add(p, id, 1, 10, id * 10ull, &skew, how - 1, 7);
}

/* The whole order is worked on now and then only, and comes right. */
static void large_orders(void **state)
{
	enum { N = 4000 };
	struct pol *p = make(N, N / 3, 4, 0);
	uint32_t at = 0, whole = 0, gaps = 0;

	seed = 99;
	pol_add(p, 0, N, 10, 0, NULL, 0, 7);
	for (uint32_t i = 0; i < 3000; i++) {
		change_one(p, rnd(N));
		whole += p->gaps < gaps;
		gaps = p->gaps;
		at = rnd(40) ? (at + 1) % N : rnd(N);
		pol_fault(p, at, 0);
		assert_true(i % 20 || pol_check(p));
		assert_true(drain(p, true, 8));
	}
	assert_true(pol_check(p));
	assert_true(gaps && whole && whole < 400);
	pol_remove(p, 0, N);
	assert_true(pol_check(p));
	assert_int_equal(p->n_seq, 0);
	free(p);
}

/* Many wait at once: each is fetched once, in order, none is lost. */
static void demands_are_a_queue(void **state)
{
	struct pol *p = make(32, 16, 4, 0);
	struct pol_action a;

	pol_add(p, 0, 32, 10, 0, NULL, 0, 0);
	for (uint32_t i = 0; i < 10; i++) {
		pol_fault(p, 31 - i, i);
		pol_fault(p, 31 - i, i + 100);
	}
	assert_int_equal(pol_next(p, 0).act, POL_NONE);
	for (uint32_t i = 0; i < 10; i++) {
		a = pol_next(p, 1);
		assert_int_equal(a.act, POL_FETCH);
		assert_true(a.demand);
		assert_int_equal(a.chunk, 31 - i);
		pol_moved(p, a.chunk, POL_INFLIGHT);
	}
	pol_moved(p, 25, POL_READY);
	a = pol_next(p, 1);
	assert_int_equal(a.act, POL_INSTALL);
	assert_int_equal(a.chunk, 25);
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(demands_are_a_queue),
		cmocka_unit_test(pinned_frames_do_not_starve),
		cmocka_unit_test(two_at_once),
		cmocka_unit_test(two_threads),
		cmocka_unit_test(large_orders),
		cmocka_unit_test(budget_is_kept),
		cmocka_unit_test(any_pager),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
