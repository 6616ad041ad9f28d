/* SPDX-License-Identifier: MIT */
/* test_device.c - regions of device memory by address (core/device_map.c), functions and
 * their arguments (core/device_launch.c).
 *
 * Owns a plain list of regions to compare with; lock: none. (1) Any address, at any time,
 * is in the region that the list says, small or large, dense or far apart. (2) What
 * overlaps a new region is gone. (3) Readers beside a writer see nothing that never was.
 * (4) Arguments are read by their sizes, and no byte beyond. (5) A function that comes
 * again with other parameters is asked again.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "core/device_int.h"

#define BASE	0x7f0000000000ull
#define MIB	(1ull << 20)
#define N	4000

static struct device_region list[N];
static unsigned int seed = 11;

static uint64_t below(uint64_t n)
{
	return ((uint64_t)rand_r(&seed) << 20 ^ (uint64_t)rand_r(&seed)) % n;
}

static struct device_region region(uint64_t base, uint64_t len)
{
	return (struct device_region){ .base = base, .len = len, .kind = DEVICE_PLAIN };
}

static uint64_t stat_of(enum device_stat i)
{
	return off_stats_now->device[0].v[i];
}

static bool in_list(uint64_t addr, struct device_region *out)
{
	for (int i = 0; i < N; i++)
		if (addr - list[i].base < list[i].len) {
			*out = list[i];
			return true;
		}
	return false;
}

static void same(uint64_t addr)
{
	struct device_region want = { 0 }, got = { 0 };
	bool there = in_list(addr, &want);

	if (device_find(addr, &got) != there ||
	    (there && (got.base != want.base || got.len != want.len)))
		fail_msg("%llx: %llx+%llx, not %llx+%llx", (unsigned long long)addr,
			 (unsigned long long)got.base, (unsigned long long)got.len,
			 (unsigned long long)want.base, (unsigned long long)want.len);
}

static uint64_t some_length(void)
{
	switch (below(4)) {
	case 0:	return 512 * (1 + below(8));
	case 1:	return 1 + below(4096);
	case 2:	return 2 * MIB * (1 + below(20));
	default: return 1 + below(9 * MIB);
	}
}

static void forget_overlap(uint64_t base, uint64_t len)
{
	for (int i = 0; i < N; i++)
		if (list[i].len && list[i].base < base + len && base < list[i].base + list[i].len)
			list[i].len = 0;
}

/* In places of three kinds, so that granules are crowded, shared and far apart. */
static uint64_t some_base(void)
{
	switch (below(3)) {
	case 0:	return BASE + 512 * below(20000);
	case 1:	return BASE + (1ull << 32) + 2 * MIB * below(3000);
	default: return 4096 * (1 + below(1ull << 36));
	}
}

static void like_a_list(void **state)
{
	struct device_region r, was;
	uint64_t sum;

	for (int i = 0; i < 12000; i++) {
		int k = (int)below(N);

		if (list[k].len) {
			if (list[k].len > 1)
				assert_false(device_drop(list[k].base + 1, &was));
			assert_true(device_drop(list[k].base, &was));
			assert_true(was.len == list[k].len);
			list[k].len = 0;
			if (below(10) == 0) {
				device_put_back(&was);
				list[k].len = was.len;
			}
		} else {
			r = region(some_base(), some_length());
			forget_overlap(r.base, r.len);
			assert_true(device_add(&r));
			list[k] = r;
		}
		same(list[k].base);
		same(list[k].base - 1);
		same(list[k].base + list[k].len);
		same(list[k].base + (list[k].len ? list[k].len - 1 : 0));
		same(some_base());
	}
	sum = 0;
	for (int i = 0; i < N; i++)
		sum += list[i].len;
	assert_int_equal(stat_of(SD_MANAGED), sum);
	assert_int_equal(stat_of(SD_RESIDENT), sum);
	device_drop_range(0, UINT64_MAX);
	assert_int_equal(stat_of(SD_MANAGED), 0);
	assert_int_equal(stat_of(SD_REGIONS), 0);
	memset(list, 0, sizeof(list));
	for (int i = 0; i < 1000; i++)
		same(some_base());
}

static void odd_ones(void **state)
{
	struct device_region r = region(UINT64_MAX - 100, 50), was;

	assert_false(device_add(&r));
	r = region(BASE, 0);
	assert_false(device_add(&r));
	assert_false(device_find(0, &was));
	assert_false(device_find(UINT64_MAX, &was));
	assert_false(device_drop(BASE, &was));
	device_drop_owner(0, NULL);
	device_handle_release(77);
	r = region(BASE, 100);
	r.owner = 5;
	assert_true(device_add(&r));
	device_drop_owner(6, NULL);
	assert_true(device_find(BASE + 99, &was));
	device_drop_owner(5, NULL);
	assert_false(device_find(BASE + 99, &was));
}

/* ---- beside a writer ----------------------------------------------------------- */

static _Atomic bool stop;

static void *reader(void *arg)
{
	struct device_region r;
	unsigned long seen = 0;

	while (!stop) {
		for (uint64_t at = BASE; at < BASE + 4 * MIB; at += 777) {
			if (!device_find(at, &r))
				continue;
			/* Each length belongs to one base. */
			if (at - r.base >= r.len || r.len != 512 + r.base % 7919)
				return (void *)1;
			seen++;
		}
	}
	return seen ? NULL : (void *)2;
}

static void readers_beside(void **state)
{
	struct device_region was;
	pthread_t t[2];
	void *bad;

	stop = false;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader, NULL), 0);
	for (int i = 0; i < 40000; i++) {
		uint64_t base = BASE + 512 * below(8192);
		struct device_region r = region(base, 512 + base % 7919);

		if (!device_drop(base, &was))
			assert_true(device_add(&r));
	}
	stop = true;
	for (int i = 0; i < 2; i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	device_drop_range(BASE, 16 * MIB);
}

/* ---- handles ------------------------------------------------------------------------ */

static void handles(void **state)
{
	struct device_region r = region(BASE, 3 * MIB);

	device_handle_new(9, 3 * MIB, 0);
	assert_int_equal(stat_of(SD_MANAGED), 3 * MIB);
	r.kind = DEVICE_MAPPED;
	r.handle = 9;
	assert_true(device_add(&r));
	device_handle_retain(9);
	device_handle_release(9);
	device_handle_release(9);
	assert_int_equal(stat_of(SD_MANAGED), 3 * MIB);
	device_drop_range(BASE + MIB, 1);
	assert_int_equal(stat_of(SD_MANAGED), 0);
	for (uint64_t i = 1; i <= 5000; i++)	/* they may be anything */
		device_handle_new(i * 0x10000, 10, 0);
	for (uint64_t i = 1; i <= 5000; i += 2)
		device_handle_release(i * 0x10000);
	assert_int_equal(stat_of(SD_RESIDENT), 25000);
	for (uint64_t i = 2; i <= 5000; i += 2)
		device_handle_release(i * 0x10000);
	assert_int_equal(stat_of(SD_RESIDENT), 0);
}

/* ---- arguments ------------------------------------------------------------------------ */

static unsigned int marks_of(uint64_t at)
{
	struct device_region r = { 0 };

	return device_find(at, &r) ? r.marks : 0;
}

/* So many bytes, the last of them before a page that cannot be touched. */
static char *guarded(size_t len)
{
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	assert_int_equal(mprotect(p + 4096, 4096, PROT_NONE), 0);
	return p + 4096 - len;
}

static void arguments(void **state)
{
	const struct device_param p[] = { { 0, 4 }, { 8, 8 }, { 16, 28 }, { 44, 12 }, { 56, 8 } };
	char *packed = guarded(64), *part = guarded(28), *word = guarded(8);
	uint64_t at[4] = { BASE, BASE + MIB, BASE + 2 * MIB, BASE + 3 * MIB };
	void *args[5] = { guarded(4), word, part, guarded(12), NULL };
	const struct device_fn *f = device_fn_add(33, 0, p, 5, "f");

	for (int i = 0; i < 4; i++) {
		struct device_region r = region(at[i], 1000);

		assert_true(device_add(&r));
	}
	assert_ptr_equal(device_fn(33), f);
	memcpy(word, &(uint64_t){ at[0] + 999 }, 8);
	memcpy(part + 16, &(uint64_t){ at[1] }, 8);
	memcpy(part + 4, &(uint64_t){ at[2] }, 8);	/* not aligned */
	device_launch(0, 0, f, args, NULL, 0);
	assert_int_equal(marks_of(at[0]), DEVICE_USED);
	assert_int_equal(marks_of(at[1]), DEVICE_USED);
	assert_int_equal(marks_of(at[2]), 0);
	memcpy(packed + 56, &at[2], 8);
	device_launch(0, 0, f, NULL, packed, 63);	/* ends in the last one */
	assert_int_equal(marks_of(at[2]), 0);
	device_launch(0, 0, f, NULL, packed, 64);
	assert_int_equal(marks_of(at[2]), DEVICE_USED);
	assert_int_equal(stat_of(SD_UNREAD), 0);
	device_launch(0, 0, f, NULL, NULL, 0);
	assert_int_equal(stat_of(SD_UNREAD), 1);
	device_launch(0, 0, device_fn_add(34, 0, NULL, -1, NULL), args, NULL, 0);
	assert_int_equal(stat_of(SD_UNREAD), 2);
	device_fn_forget(0);
	assert_null(device_fn(33));
	assert_null(device_fn(34));
	for (uintptr_t i = 1; i < 3000; i++)
		assert_non_null(device_fn_add(i, 0, NULL, 0, NULL));
	for (uintptr_t i = 1; i < 3000; i++)
		assert_non_null(device_fn(i));
	assert_null(device_fn(3000));
	device_launch(0, 0, device_fn(33), NULL, NULL, 0);	/* no parameters now */
	assert_int_equal(stat_of(SD_UNREAD), 2);
	device_drop_range(0, UINT64_MAX);
}

/* A handle of one owner's ends with it, comes again as it was, or as another. */
static void owners(void **state)
{
	const struct device_param p = { 0, 8 };
	const struct device_fn *a = device_fn_add(5001, 1, &p, 1, "a");
	const struct device_fn *b = device_fn_add(5002, 2, &p, 1, "b");
	const struct device_fn *c = device_fn_add(5003, 0, &p, 1, NULL);
	uintptr_t life = device_fn_life(a);

	assert_int_not_equal(life, device_fn_life(b));
	device_fn_forget(1);
	assert_null(device_fn(5001));
	assert_ptr_equal(device_fn(5002), b);
	assert_null(device_fn(5003));
	assert_int_equal(device_fn_life(a), 0);
	for (int i = 0; i < 3; i++) {
		const struct device_fn *other = device_fn_add(5001, 1, &p, 1, "other");

		assert_ptr_not_equal(other, a);
		assert_ptr_equal(device_fn(5001), other);
		device_fn_forget(1);
		assert_ptr_equal(device_fn_add(5001, 1, &p, 1, "a"), a);	/* nothing is added */
		assert_ptr_equal(device_fn(5001), a);
		assert_int_not_equal(device_fn_life(a), life);
	}
	assert_ptr_equal(device_fn_add(5003, 0, &p, 1, NULL), c);
	device_fn_forget(0);
	assert_null(device_fn(5002));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(owners),
		cmocka_unit_test(like_a_list),
		cmocka_unit_test(odd_ones),
		cmocka_unit_test(readers_beside),
		cmocka_unit_test(handles),
		cmocka_unit_test(arguments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
