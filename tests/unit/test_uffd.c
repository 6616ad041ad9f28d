/* SPDX-License-Identifier: MIT */
/* test_uffd.c - pages that move while they are written for the first time: none
 * may be left behind (see uffd.c). */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/core_int.h"

#define ROUNDS	5000
#define LEN	(8 * PAGE)

static uintptr_t here, away;	/* LEN each */
static _Atomic int asked, written;	/* the round, -1: no more */

static uint64_t word(int round, size_t at)
{
	return (uint64_t)round << 32 | at | 1;
}

static void *writer(void *arg)
{
	int round = 0;

	while (round >= 0) {
		while (atomic_load(&asked) == round)
			sched_yield();
		round = atomic_load(&asked);
		for (size_t at = 0; at < LEN && round > 0; at += PAGE)
			*(volatile uint64_t *)(here + at) = word(round, at);
		atomic_store(&written, round);
	}
	return arg;
}

/* Less than a sleep can be. */
static void wait_a_little(void)
{
	uint64_t until = now_ns() + (uint64_t)random() % 8000;

	while (now_ns() < until)
		;
}

static int move_all(uintptr_t dst, uintptr_t src, bool wake)
{
	size_t done = 0, step;
	int err = 0;

	while (done < LEN && (!err || err == -EAGAIN)) {
		err = uffd_move(dst + done, src + done, LEN - done, wake, &step);
		done += step;
	}
	return done < LEN ? err : 0;
}

/* Away and back in the middle of the writing. */
static void one_round(int round)
{
	unsigned char there[LEN / PAGE];
	size_t done;

	assert_int_equal(uffd_zero(here, LEN, &done), 0);
	atomic_store(&asked, round);
	wait_a_little();
	assert_int_equal(move_all(away, here, false), 0);
	assert_int_equal(move_all(here, away, true), 0);
	uffd_wake(here, LEN);
	assert_int_equal(mincore((void *)here, LEN, there), 0);
	for (size_t i = 0; i < LEN / PAGE; i++)
		assert_true(there[i] & 1);
	while (atomic_load(&written) != round)
		sched_yield();
	for (size_t at = 0; at < LEN; at += PAGE)
		assert_int_equal(*(volatile uint64_t *)(here + at), word(round, at));
	assert_int_equal(madvise((void *)here, LEN, MADV_DONTNEED), 0);
}

static void test_written_while_it_moves(void **state)
{
	pthread_t th;
	char *p;

	(void)state;
	if (uffd_open(MODE_MOVE) != MODE_MOVE)
		skip();
	p = reserve_range(4 * CHUNK);
	here = chunk_down((uintptr_t)p + CHUNK - 1);
	away = here + CHUNK;
	assert_int_equal(uffd_register((void *)here, LEN, true, true), 0);
	assert_int_equal(uffd_register((void *)away, LEN, false, true), 0);
	assert_int_equal(pthread_create(&th, NULL, writer, NULL), 0);
	for (int r = 1; r <= ROUNDS; r++)
		one_round(r);
	atomic_store(&asked, -1);
	assert_int_equal(pthread_join(th, NULL), 0);
	munmap(p, 4 * CHUNK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_written_while_it_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
