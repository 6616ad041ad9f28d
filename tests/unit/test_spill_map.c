/* SPDX-License-Identifier: MIT */
/* test_spill_map.c - which pages of a spill file are taken (core/spill_map.c).
 *
 * Owns a shadow of the map: one byte a page. (1) What is taken was free,
 * backed and not leased; nothing is refused that fits. (2) Lowest first, whole
 * blocks for whole slots, one after the other in batches. Lock: none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/spill_int.h"

#define BLOCKS	64U
#define PAGES	(BLOCKS * BLOCK_PAGES)
#define BATCH	4096U

enum { BARE = 1, LIVE = 2, HELD = 4 };

static unsigned char shadow[PAGES];
static struct spill_map m;

static uint32_t random_below(uint32_t n)
{
	static uint64_t x = 88172645463325252ull;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x >> 32) % n;
}

static int fresh(void **state)
{
	m = (struct spill_map){ 0 };
	memset(shadow, BARE, sizeof(shadow));
	return 0;
}

static int done(void **state)
{
	spill_map_free(&m);
	return 0;
}

static void back(uint32_t first, uint32_t n)
{
	assert_int_equal(spill_map_grow(&m, first + n), 0);
	spill_map_back(&m, first, n);
	for (uint32_t p = first * BLOCK_PAGES; p < (first + n) * BLOCK_PAGES; p++)
		shadow[p] &= (unsigned char)~BARE;
}

static bool fits(uint32_t page, uint32_t pages)
{
	for (uint32_t p = page; p < page + pages; p++)
		if (p >= PAGES || shadow[p])
			return false;
	return true;
}

/* The lowest place, by looking at every one. */
static uint32_t lowest(uint32_t pages, bool aligned)
{
	uint32_t run = 0;

	for (uint32_t p = 0; p < PAGES; p++) {
		run = shadow[p] ? 0 : run + 1;
		if (run >= pages && (!aligned || (p + 1) % BLOCK_PAGES == 0))
			return p + 1 - pages;
	}
	return NO_PAGE;
}

static uint32_t take(uint32_t pages, bool aligned)
{
	uint32_t low = lowest(pages, aligned), cursor = m.cursor;
	uint32_t page = spill_map_take(&m, pages, aligned);

	if (page == NO_PAGE || low == NO_PAGE) {
		assert_int_equal(page, low);
		return NO_PAGE;
	}
	assert_true(fits(page, pages));
	assert_true(page == low || page == cursor);
	assert_true(!aligned || page % BLOCK_PAGES == 0);
	for (uint32_t p = page; p < page + pages; p++)
		shadow[p] |= LIVE;
	return page;
}

static void put(uint32_t page, uint32_t pages)
{
	spill_map_put(&m, page, pages);
	for (uint32_t p = page; p < page + pages; p++)
		shadow[p] &= (unsigned char)~LIVE;
}

static void hold(void)
{
	spill_map_hold(&m);
	for (uint32_t p = 0; p < PAGES; p++)
		if (shadow[p] & LIVE)
			shadow[p] |= HELD;
}

static void let_go(void)
{
	spill_map_release(&m);
	for (uint32_t p = 0; p < PAGES; p++)
		shadow[p] &= (unsigned char)~HELD;
}

static uint32_t free_from(uint32_t b, uint32_t end)
{
	uint32_t n = 0;

	while (b + n < end && fits((b + n) * BLOCK_PAGES, BLOCK_PAGES))
		n++;
	return n;
}

/* Makes bare what spill_map_spare finds, after looking at it. */
static void give_back(void)
{
	uint32_t end = spill_map_end(&m), first, n;

	assert_true(end <= spill_map_top(&m));
	for (uint32_t p = end * BLOCK_PAGES; p < PAGES; p++)
		assert_false(shadow[p] & (LIVE | HELD));
	n = spill_map_spare(&m, end, 2, 5, &first);
	if (!n)
		return;
	assert_true(n >= 2 && n <= 5 && free_from(first, end) >= n);
	spill_map_unback(&m, first, n);
	for (uint32_t p = first * BLOCK_PAGES; p < (first + n) * BLOCK_PAGES; p++)
		shadow[p] |= BARE;
}

static void back_some(void)
{
	uint32_t first, n = spill_map_bare(&m, 1 + random_below(4), BLOCKS, &first);

	for (uint32_t p = 0; p < first * BLOCK_PAGES; p++)
		assert_false(shadow[p] & BARE);
	if (n)
		back(first, n);
	else
		assert_int_equal(first, BLOCKS);
}

static uint32_t random_pages(void)
{
	return random_below(3) ? 1 + random_below(BLOCK_PAGES) : BLOCK_PAGES;
}

static void random_use(void **state)
{
	static struct { uint32_t page, pages; } slot[600];
	uint64_t live = 0;
	uint32_t n = 0, most = 0, full = 0;

	for (int i = 0; i < 8000; i++) {
		uint32_t what = random_below(64), k, pages = random_pages(), page;

		if (what == 0)
			hold();
		else if (what == 1 && m.leased)
			let_go();
		else if (what == 2)
			give_back();
		else if (what < 5)
			back_some();
		else if (n && what < (i / 1000 % 2 ? 40u : 26u)) {
			k = random_below(n);
			put(slot[k].page, slot[k].pages);
			live -= slot[k].pages;
			slot[k] = slot[--n];
		} else if (n < 600 &&
			   (page = take(pages, pages == BLOCK_PAGES && what % 2)) != NO_PAGE) {
			slot[n].page = page;
			slot[n++].pages = pages;
			live += pages;
		}
		most = n > most ? n : most;
		full += lowest(BLOCK_PAGES, true) == NO_PAGE;
		assert_int_equal(m.live_pages, live);
	}
	assert_true(most > 60 && full > 100 && full < 7900);
}

static void nothing_without_disk(void **state)
{
	assert_int_equal(spill_map_take(&m, 1, false), NO_PAGE);
	assert_int_equal(spill_map_grow(&m, 3), 0);
	assert_int_equal(spill_map_take(&m, 1, false), NO_PAGE);
	back(1, 1);
	assert_int_equal(take(1, false), BLOCK_PAGES);
	assert_int_equal(take(BLOCK_PAGES, true), NO_PAGE);
	assert_int_equal(take(BLOCK_PAGES - 1, false), BLOCK_PAGES + 1);
	assert_int_equal(take(1, false), NO_PAGE);
}

static void bare_blocks(void **state)
{
	uint32_t first;

	assert_int_equal(spill_map_bare(&m, 32, 1000, &first), 32);
	assert_int_equal(first, 0);
	back(0, 10);
	assert_int_equal(spill_map_bare(&m, 32, 12, &first), 2);
	assert_int_equal(first, 10);
	assert_int_equal(spill_map_bare(&m, 32, 10, &first), 0);
	spill_map_unback(&m, 4, 3);
	assert_int_equal(spill_map_bare(&m, 32, 1000, &first), 3);
	assert_int_equal(first, 4);
	spill_map_back(&m, 4, 3);
	assert_int_equal(spill_map_bare(&m, 1, 1000, &first), 1);
	assert_int_equal(first, 10);
	assert_int_equal(spill_map_backed(&m), 10);
}

/* Small slots leave no gap, even across blocks. */
static void packed_side_by_side(void **state)
{
	back(0, 4);
	for (uint32_t i = 0; i < 4 * BLOCK_PAGES / 300; i++)
		assert_int_equal(take(300, false), 300 * i);
	assert_int_equal(take(300, false), NO_PAGE);
}

static void goes_on_in_batches(void **state)
{
	uint32_t at[20];

	back(0, 40);
	for (uint32_t i = 0; i < 20; i++)
		at[i] = take(BLOCK_PAGES, true);
	put(at[3], BLOCK_PAGES);
	put(at[5], BLOCK_PAGES);
	/* 20 slots were two batches of 8 and four of a third. */
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(take(BLOCK_PAGES, true), (20 + i) * BLOCK_PAGES);
	assert_int_equal(take(BLOCK_PAGES, true), at[3]);
	assert_int_equal(take(BLOCK_PAGES, true), at[5]);
	assert_int_equal(take(BLOCK_PAGES, true), 24 * BLOCK_PAGES);
}

static void leased_pages_wait(void **state)
{
	back(0, 2);
	assert_int_equal(take(BLOCK_PAGES, true), 0);
	hold();
	put(0, BLOCK_PAGES);
	assert_int_equal(m.live_pages, 0);
	assert_int_equal(take(BLOCK_PAGES, true), BLOCK_PAGES);
	assert_int_equal(take(1, false), NO_PAGE);
	let_go();
	assert_int_equal(take(BLOCK_PAGES, true), 0);
}

static void put_twice_is_found(void **state)
{
	back(0, 1);
	take(3, false);
	put(0, 3);
	expect_assert_failure(put(0, 3));
}

/* Half of 100 000 slots freed at random: the lower half is filled first. */
static void many_slots(void **state)
{
	enum { N = 100000 };
	static uint32_t order[N];

	assert_int_equal(spill_map_grow(&m, N), 0);
	spill_map_back(&m, 0, N);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(spill_map_take(&m, BLOCK_PAGES, true), i * BLOCK_PAGES);
	assert_int_equal(spill_map_take(&m, 1, false), NO_PAGE);
	for (uint32_t i = 0; i < N; i++)
		order[i] = i;
	for (uint32_t i = N - 1; i; i--) {
		uint32_t k = random_below(i + 1), t = order[i];

		order[i] = order[k];
		order[k] = t;
	}
	for (uint32_t i = 0; i < N / 2; i++)
		spill_map_put(&m, order[i] * BLOCK_PAGES, BLOCK_PAGES);
	for (uint32_t i = 0, last = 0; i < N / 2; i++) {
		uint32_t page = spill_map_take(&m, BLOCK_PAGES, true);

		assert_true(page != NO_PAGE && (!i || page > last));
		last = page;
	}
	assert_int_equal(spill_map_take(&m, 1, false), NO_PAGE);
	assert_int_equal(m.live_pages, (uint64_t)N * BLOCK_PAGES);
}

/* off_assert's end, caught by expect_assert_failure. */
_Noreturn void off_fatal(const char *fmt, ...)
{
	mock_assert(0, fmt, __FILE__, __LINE__);
	abort();
}

void off_log(const char *fmt, ...)
{
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, fresh, done)
	const struct CMUnitTest tests[] = {
		CASE(nothing_without_disk), CASE(bare_blocks),
		CASE(packed_side_by_side), CASE(goes_on_in_batches),
		CASE(leased_pages_wait), CASE(put_twice_is_found),
		CASE(random_use), CASE(many_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
