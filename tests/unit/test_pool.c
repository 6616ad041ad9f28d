/* SPDX-License-Identifier: MIT */
/* test_pool.c - the packed pool (core/pool.h).
 *
 * Owns what pool_test.h does. (1) What is put is got back, or refused, and
 * never wrong. (2) The limit holds, to the page, and a refusal changes nothing.
 * (3) What pool_bytes says is what the kernel has given, and it is given back.
 * Lock: none.
 */
#include "pool_test.h"

/* ---- put, get, free ------------------------------------------------------------- */

static void not_open(void)
{
	uint32_t slot;

	fill(in, 4096, TEXT, 1);
	CHECK(put(4096, CODEC_LZ4, &slot) == -ENODEV);
	CHECK(pool_bytes() == 0 && pool_raw_bytes() == 0 && pool_packed_bytes() == 0);
	pool_fork_open();
	pool_fork_close();
	pool_fork_child(true);
	pool_fork_child(false);
	pool_unlock();
	CHECK(!pool_open(64 * MIB) && !pool_open(64 * MIB));
	CHECK(put(4096, CODEC_LZ4, &slot) == -ENOSPC);
	CHECK(pool_compact(1000) == 0);
	pool_limit(MIB);
	CHECK(!put(4096, CODEC_LZ4, &slot));
}

static void round_trips(void)
{
	static const uint32_t lens[] = { 1, 63, 64, 65, 4096, 5000, 14336, 16384,
					 100001, CODEC_MAX };

	open_pool(16 * MIB);
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
		for (enum kind k = ZEROS; k < KINDS; k++) {
			uint32_t slot = must_put(k, lens[i], i, CODEC_RAW), n;

			CHECK(pool_raw_bytes() == lens[i]);
			CHECK(pool_at(slot, &n) && n == lens[i] + sizeof(struct codec_head));
			CHECK((uintptr_t)pool_at(slot, &n) % 64 == 0);
			CHECK(pool_packed_bytes() == n && pool_bytes() >= n);
			CHECK(holds(slot, k, lens[i], i));
			CHECK(pool_get(slot, out, lens[i]) == 0);
			pool_free(slot);
			CHECK(!pool_bytes() && !pool_raw_bytes() && !pool_packed_bytes());
		}
}

static void numbers_reused(void)
{
	bool seen[10] = { false };

	open_pool(16 * MIB);
	for (uint32_t i = 0; i < 10; i++)
		CHECK(must_put(TEXT, 1000, i, CODEC_LZ4) == i);
	for (uint32_t i = 0; i < 10; i += 2)
		pool_free(i);
	for (uint32_t i = 0; i < 5; i++) {
		uint32_t slot = must_put(TEXT, 1000, 100 + i, CODEC_LZ4);

		CHECK(slot < 10 && slot % 2 == 0 && !seen[slot]);
		seen[slot] = true;
	}
	for (uint32_t i = 1; i < 10; i += 2)
		CHECK(holds(i, TEXT, 1000, i));
}

/* Random puts and frees, against what is remembered of them. */
enum { MOST = 400 };
static struct { uint32_t slot, len; enum kind kind; uint64_t seed; } model[MOST];

static void put_some(int i, uint64_t seed)
{
	static const uint32_t spans[] = { 300, 20000, 100000, CODEC_MAX };

	model[i].kind = (enum kind)below(KINDS);
	model[i].len = 1 + below(spans[below(seed % 50 ? 3 : 4)]);
	model[i].seed = seed;
	model[i].slot = must_put(model[i].kind, model[i].len, seed, CODEC_RAW);
}

static void churn(void)
{
	uint64_t rolls;

	open_pool(1024 * MIB);
	memset(model, 0xff, sizeof(model));
	test_seed = 5;
	for (uint64_t step = 1; step < 6000; step++) {
		uint64_t raw = 0;
		int i;

		rolls = test_seed;
		i = (int)below(MOST);
		if (model[i].slot == POOL_NONE) {
			put_some(i, step);
		} else {
			CHECK(holds(model[i].slot, model[i].kind, model[i].len, model[i].seed));
			pool_free(model[i].slot);
			model[i].slot = POOL_NONE;
		}
		if (step % 64 == 0)
			pool_compact(below(MOST));
		for (i = 0; i < MOST; i++)
			raw += model[i].slot == POOL_NONE ? 0 : model[i].len;
		CHECK(pool_raw_bytes() == raw && pool_bytes() >= pool_packed_bytes());
		test_seed = rolls * 6364136223846793005ull + 1442695040888963407ull;
	}
	for (int i = 0; i < MOST; i++)
		if (model[i].slot != POOL_NONE)
			CHECK(holds(model[i].slot, model[i].kind, model[i].len, model[i].seed));
}

/* ---- slots gone bad ------------------------------------------------------------------ */

static void bad_slot(uint8_t id, enum kind kind, uint32_t len)
{
	uint32_t slot = must_put(kind, len, 2, id), n;
	uint8_t *p = (uint8_t *)(uintptr_t)pool_at(slot, &n);

	for (uint32_t i = 0; i < sizeof(struct codec_head); i++)
		for (int bit = 0; bit < 8; bit++) {
			p[i] ^= (uint8_t)(1 << bit);
			CHECK(pool_get(slot, out, len) == -EBADMSG);
			p[i] ^= (uint8_t)(1 << bit);
		}
	for (int t = 0; t < 1000; t++) {
		uint32_t i = sizeof(struct codec_head) +
			below(n - (uint32_t)sizeof(struct codec_head));
		uint8_t was = p[i];

		p[i] ^= (uint8_t)(1 + below(255));
		CHECK(pool_get(slot, out, len) == -EBADMSG || !memcmp(in, out, len));
		p[i] = was;
	}
	CHECK(pool_get(slot, out, len - 1) == -EBADMSG);
	CHECK(pool_get(slot, out, len + 1) == -EBADMSG);
	CHECK(holds(slot, kind, len, 2));
	pool_free(slot);
}

static void bad_slots(void)
{
	open_pool(16 * MIB);
	bad_slot(CODEC_RAW, NOISE, 3000);
	bad_slot(CODEC_LZ4, TEXT, 50000);
	bad_slot(CODEC_ZSTD, TEXT, 50000);
	bad_slot(CODEC_BF16, FLOATS, 50000);
}

/* ---- the limit ----------------------------------------------------------------------- */

/* Puts slots of so many raw bytes until it is refused. How many. */
static uint32_t put_until_full(uint32_t len, uint64_t limit)
{
	uint32_t n = 0;
	int err;

	do {
		fill(in, len, NOISE, n);
		err = put(len, CODEC_RAW, &slots[n]);
		CHECK(pool_bytes() <= limit);
		n += !err;
	} while (!err);
	CHECK(err == -ENOSPC);
	return n;
}

static void limit_of(uint32_t len, uint64_t limit)
{
	uint32_t n, other = 77;
	uint64_t bytes;

	pool_limit(limit);
	n = put_until_full(len, limit);
	/* All of it was used, but for what size classes and one slot need. */
	CHECK(pool_packed_bytes() > limit - limit / 5 - 2 * len);
	bytes = pool_bytes();
	for (int i = 0; i < 300; i++) {
		CHECK(put(len, CODEC_RAW, &other) == -ENOSPC);
		CHECK(other == 77 && pool_bytes() == bytes);
	}
	for (uint32_t i = 0; i < n; i++)
		CHECK(holds(slots[i], NOISE, len, i));
	pool_free(slots[n / 2]);
	slots[n / 2] = must_put(NOISE, len, n / 2, CODEC_RAW);
	pool_limit(limit / 2);
	pool_free(slots[0]);
	fill(in, len, NOISE, 0);
	CHECK(put(len, CODEC_RAW, &other) == -ENOSPC);
	for (uint32_t i = 1; i < n; i++) {
		CHECK(holds(slots[i], NOISE, len, i));
		pool_free(slots[i]);
	}
	CHECK(pool_bytes() == 0);
}

static void limits(void)
{
	open_pool(0);
	limit_of(CODEC_MAX, 32 * MIB);
	limit_of(1400000, 32 * MIB);
	limit_of(20000, 8 * MIB);
	limit_of(700, 4 * MIB);
	limit_of(100, MIB);
}

/* 2 MiB and a page, to the page. */
static void exact_limit(void)
{
	uint32_t slot;

	open_pool(2 * MIB + 4095);
	fill(in, CODEC_MAX, NOISE, 1);
	CHECK(put(CODEC_MAX, CODEC_RAW, &slot) == -ENOSPC);
	pool_limit(2 * MIB + 4096);
	CHECK(!put(CODEC_MAX, CODEC_RAW, &slot));
	CHECK(pool_bytes() == 2 * MIB + 4096);
}

/* Address space runs out first. */
static void no_addresses(void)
{
	uint32_t n = 0;

	CHECK(!pool_open(16 * MIB));
	pool_limit(UINT64_MAX);
	n = put_until_full(CODEC_MAX, UINT64_MAX);
	CHECK(n >= 3 && n <= 8);
	for (uint32_t i = 0; i < n; i++)
		CHECK(holds(slots[i], NOISE, CODEC_MAX, i));
}

/* Being refused costs none. */
static void refused_often(void)
{
	uint32_t slot;

	CHECK(!pool_open(64 * MIB));
	pool_limit(MIB);
	put_until_full(700, MIB);
	for (int i = 0; i < 2000; i++)
		CHECK(put(700, CODEC_RAW, &slot) == -ENOSPC);
	pool_limit(64 * MIB);
	for (uint64_t i = 0; i < 24; i++)
		must_put(NOISE, CODEC_MAX - 64, i, CODEC_RAW);
}

/* ---- memory ------------------------------------------------------------------------- */

static uint64_t process_resident(void)
{
	uint64_t size = 0, rss = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	CHECK(f && fscanf(f, "%lu %lu", &size, &rss) == 2);
	fclose(f);
	return rss * PAGE;
}

static void counted(void)
{
	const void *any;
	uint32_t n;
	int live = 0;

	open_pool(512 * MIB);
	memset(model, 0xff, sizeof(model));
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < MOST; i++) {
			if (model[i].slot == POOL_NONE)
				put_some(i, (uint64_t)(round * MOST + i));
			live = i;
		}
		any = pool_at(model[live].slot, &n);
		CHECK(resident(any, "dddcnh") <= pool_bytes());
		/* What small slots share was given and not all touched yet. */
		CHECK(resident(any, "") + 384 * 1024 >= pool_bytes());
		for (int i = 0; i < MOST; i++)
			if (below(3)) {
				pool_free(model[i].slot);
				model[i].slot = POOL_NONE;
			}
		CHECK(resident(any, "") <= pool_bytes());
		CHECK(resident(any, "") + 384 * 1024 >= pool_bytes());
	}
}

static void given_back(void)
{
	uint64_t before, full;
	uint32_t n;

	open_pool(64 * MIB);
	pool_free(must_put(NOISE, CODEC_MAX, 1, CODEC_RAW));
	memset(out, 1, CODEC_MAX);
	before = process_resident();
	n = put_until_full(CODEC_MAX, 64 * MIB);
	full = process_resident();
	/* AddressSanitizer has a byte for eight, and some kernels give it a page
	 * where it only looks. */
	CHECK(full > before + 60 * MIB && full < before + (ASAN ? 80 : 70) * MIB);
	for (uint32_t i = 0; i < n; i++)
		pool_free(slots[i]);
	CHECK(process_resident() < before + (ASAN ? 12 : 2) * MIB && pool_bytes() == 0);
}

static void no_allocation(void)
{
	uint32_t slot;
	uint64_t before;

	open_pool(16 * MIB);
	slot = must_put(TEXT, CODEC_MAX, 1, CODEC_ZSTD);
	before = ever_allocated();
	for (int i = 0; i < 20; i++)
		CHECK(holds(slot, TEXT, CODEC_MAX, 1));
	CHECK(ever_allocated() == before);
}

/* ---- compaction ---------------------------------------------------------------------- */

enum { SMALL = 20000 };

static void small_slots(void)
{
	open_pool(512 * MIB);
	for (uint32_t i = 0; i < SMALL; i++)
		slots[i] = must_put(NOISE, 500 + i % 1500, i, CODEC_RAW);
}

static void free_all_but(uint32_t keep, uint32_t of)
{
	for (uint32_t i = 0; i < SMALL; i += of)
		if (i % keep)
			pool_free(slots[i]);
}

/* Until it finds nothing any more. */
static uint64_t compact_all(void)
{
	uint64_t moved = 0;

	for (int i = 0; i < 100; i++)
		moved += pool_compact(1000);
	CHECK(pool_compact(SMALL) == 0);
	return moved;
}

/* Most of them freed: what is left fits into few pages. */
static void compacted(void)
{
	static const void *was[SMALL];
	uint64_t scattered, rest;
	uint32_t n;

	small_slots();
	free_all_but(11, 1);
	for (uint32_t i = 0; i < SMALL; i += 11)
		was[i] = pool_at(slots[i], &n);
	scattered = pool_bytes();
	CHECK(scattered > 3 * pool_packed_bytes());
	CHECK(pool_compact(0) == 0);
	CHECK(pool_compact(50) <= 50 && pool_bytes() <= scattered);
	CHECK(compact_all() > 100);
	rest = pool_packed_bytes();
	CHECK(pool_bytes() <= rest + rest / 4 + 256 * 1024);
	for (uint32_t i = 0; i < SMALL; i += 11) {
		CHECK(pool_at(slots[i], &n) <= was[i]);
		CHECK(holds(slots[i], NOISE, 500 + i % 1500, i));
	}
	for (uint32_t i = 0; i < SMALL; i += 11)
		pool_free(slots[i]);
	CHECK(pool_bytes() == 0);
}

/* It found nothing, and looks again when more was freed. */
static void compacted_again(void)
{
	uint32_t whole[8];
	uint64_t rest;

	small_slots();
	for (int i = 0; i < 8; i++)
		whole[i] = must_put(NOISE, CODEC_MAX, 1, CODEC_RAW);
	CHECK(compact_all() == 0);
	for (uint32_t i = 0; i < 3; i++)
		pool_free(slots[500 * i + 1]);	/* not worth it */
	CHECK(compact_all() == 0);
	for (uint32_t i = 0; i < 3; i++)
		slots[500 * i + 1] = must_put(NOISE, 500, i, CODEC_RAW);
	for (int i = 0; i < 8; i++)
		pool_free(whole[i]);
	free_all_but(2, 1);
	compact_all();
	free_all_but(20, 2);
	CHECK(compact_all() > 100);
	rest = pool_packed_bytes();
	CHECK(pool_bytes() <= rest + rest / 4 + 256 * 1024);
}

/* One slot of each size, as wasteful as it gets: that is too little to move for. */
static void one_of_each(void)
{
	open_pool(512 * MIB);
	for (uint32_t size = 80; size < 14336; size += size / 16 + 1)
		must_put(NOISE, size - (uint32_t)sizeof(struct codec_head), size, CODEC_RAW);
	CHECK(pool_bytes() <= pool_packed_bytes() * 5 / 4 + 256 * 1024);
}

/* Above the limit too, which is when it is wanted most; and never more memory
 * on the way. */
static void compacted_when_full(void)
{
	uint64_t bytes;

	small_slots();
	free_all_but(7, 1);
	pool_limit(MIB);
	bytes = pool_bytes();
	for (int i = 0; i < SMALL; i++) {
		pool_compact(10);
		CHECK(pool_bytes() <= bytes);
		bytes = pool_bytes();
	}
	CHECK(bytes <= pool_packed_bytes() * 5 / 4 + 256 * 1024);
}

/* Large slots have pages of their own: freeing leaves nothing to move. */
static void large_need_none(void)
{
	uint64_t held = 0;

	open_pool(512 * MIB);
	for (uint32_t i = 0; i < 100; i++)
		slots[i] = must_put(NOISE, 16400 + below(1000000), i, CODEC_RAW);
	for (uint32_t i = 0; i < 100; i += 2)
		pool_free(slots[i]);
	for (uint32_t i = 1; i < 100; i += 2) {
		uint32_t n;

		pool_at(slots[i], &n);
		held += page_up(n);
	}
	CHECK(pool_bytes() == held);
	CHECK(pool_compact(1000) == 0);
}

CASE(not_open)
CASE(round_trips)
CASE(numbers_reused)
CASE(churn)
CASE(bad_slots)
CASE(limits)
CASE(exact_limit)
CASE(no_addresses)
CASE(refused_often)
CASE_NO_TSAN(counted)
CASE_NO_TSAN(given_back)
CASE(no_allocation)
CASE(compacted)
CASE(compacted_again)
CASE(one_of_each)
CASE(compacted_when_full)
CASE(large_need_none)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_open),
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_numbers_reused),
		cmocka_unit_test(test_churn),
		cmocka_unit_test(test_bad_slots),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_exact_limit),
		cmocka_unit_test(test_no_addresses),
		cmocka_unit_test(test_refused_often),
		cmocka_unit_test(test_counted),
		cmocka_unit_test(test_given_back),
		cmocka_unit_test(test_no_allocation),
		cmocka_unit_test(test_compacted),
		cmocka_unit_test(test_compacted_again),
		cmocka_unit_test(test_one_of_each),
		cmocka_unit_test(test_compacted_when_full),
		cmocka_unit_test(test_large_need_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
