/* SPDX-License-Identifier: MIT */
/* plan_test.h - random numbers and comparing, for the tests of the plans: after cmocka.h. */
#ifndef PLAN_TEST_H
#define PLAN_TEST_H

#include <stdint.h>

static uint64_t seed;

/* 0 to 1 */
static double any(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (double)(seed >> 11) / (double)(1ull << 53);
}

static void close_to(double a, double b)
{
	double d = a > b ? a - b : b - a, most = a > b ? a : b;

	if (!(d <= 1e-7 * most + 1e-12))
		fail_msg("%.12g is not %.12g", a, b);
}

#endif
