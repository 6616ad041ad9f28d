/* SPDX-License-Identifier: MIT */
/* test_fx512.c - core/fx_avx512.c on any CPU: compiled against a C form of its
 * intrinsics (shim/immintrin.h), and held against the portable code. What those
 * intrinsics do on a CPU that has them, test_fx.c looks at there.
 *
 * Owns nothing beside fx_test.h. Lock: none.
 */
#include <immintrin.h>
#ifndef OFFLOAD_SHIM_IMMINTRIN_H
#error "this is for the shim"
#endif

#define SIMD
#define fx_avx512 fx_shim512
#include "core/fx_avx512.c"

#include "fx_test.h"

static void test_compare(void **state)
{
	fx_compare(&fx_shim512, &fx_plain);
}

static void test_compare_long(void **state)
{
	fx_compare_long(&fx_shim512, &fx_plain);
}

static void test_compare_short(void **state)
{
	fx_compare_short(&fx_shim512, &fx_plain);
}

static void test_compare_flipped(void **state)
{
	fx_compare_flipped(&fx_shim512, &fx_plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_compare_short),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_compare_long),
		cmocka_unit_test(test_compare_flipped),
	};

	return cmocka_run_group_tests(tests, fx_set_up, fx_tear_down);
}
