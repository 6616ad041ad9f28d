/* SPDX-License-Identifier: MIT */
/* test_waits.c - waits of several threads are counted once where they overlap: against
 * a line of ticks on which each is drawn.
 *
 * Owns nothing. Lock: none.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/waits.h"

#define TICKS	4000U
#define THREADS	5U

static void by_hand(void **state)
{
	struct waits w = { .n = 0 };

	(void)state;
	assert_int_equal(waits_add(&w, 10, 20), 10);
	assert_int_equal(waits_add(&w, 30, 40), 10);
	assert_int_equal(waits_add(&w, 35, 40), 0);
	assert_int_equal(waits_add(&w, 36, 50), 10);
	assert_int_equal(waits_add(&w, 5, 60), 55 - 10 - 20);
	assert_int_equal(waits_add(&w, 60, 60), 0);
}

/* Each thread waits, and does not, at random; its wait is told when it ends. */
static void drawn(unsigned int seed)
{
	static unsigned char line[TICKS];
	uint64_t since[THREADS] = { 0 }, sum = 0, should = 0;
	struct waits w = { .n = 0 };

	srand(seed);
	memset(line, 0, sizeof(line));
	for (uint64_t t = 1; t < TICKS; t++) {
		for (unsigned int i = 0; i < THREADS; i++) {
			if (rand() % 8)
				continue;
			if (since[i]) {
				memset(line + since[i], 1, t - since[i]);
				sum += waits_add(&w, since[i], t);
			}
			since[i] = since[i] ? 0 : t;
		}
	}
	for (unsigned int t = 0; t < TICKS; t++)
		should += line[t];
	assert_int_equal(sum, should);
}

static void at_random(void **state)
{
	(void)state;
	for (unsigned int seed = 1; seed <= 50; seed++)
		drawn(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_hand),
		cmocka_unit_test(at_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
