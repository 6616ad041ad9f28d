/* SPDX-License-Identifier: MIT */
/* test_hash.c - bytes gathered and hashed in one go are those copied, and their
 * hash, whichever instructions make it.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/core_int.h"
#include "core/cpu.h"
#include "core/hash.h"

#define LEN ((size_t)300000)
#define PARTS 9

static uint64_t rnd = 88172645463325252ull;

static size_t below(size_t n)
{
	rnd ^= rnd << 13;
	rnd ^= rnd >> 7;
	rnd ^= rnd << 17;
	return (size_t)(rnd % n);
}

/* Cuts LEN into parts of any length, none among them, some of zeros. */
static void cut(struct hash_part part[PARTS], const char *from)
{
	size_t left = LEN;

	for (int i = 0; i < PARTS; i++) {
		size_t len = i == PARTS - 1 ? left : below(3) ? below(left + 1) : below(70);

		if (len > left)
			len = left;
		part[i] = (struct hash_part){ below(4) ? from + below(64) : NULL, len };
		left -= len;
	}
}

static void gathered_is_copied_and_hashed(void **state)
{
	char *from = malloc(LEN + 64), *to = malloc(LEN), *want = malloc(LEN);
	struct hash_part part[PARTS];

	for (size_t i = 0; i < LEN + 64; i++)
		from[i] = (char)below(256);
	for (int round = 0; round < 200; round++) {
		size_t at = 0;

		cut(part, from);
		for (int i = 0; i < PARTS; at += part[i++].len) {
			if (part[i].from)
				memcpy(want + at, part[i].from, part[i].len);
			else
				memset(want + at, 0, part[i].len);
		}
		memset(to, 0x55, LEN);
		assert_int_equal(chunk_gather(to, part, PARTS), chunk_hash(want, LEN));
		assert_memory_equal(to, want, LEN);
		memset(to, 0x55, LEN);
		assert_int_equal(gather(to, part, PARTS), XXH3_64bits(want, LEN));
		assert_memory_equal(to, want, LEN);
#if defined(__x86_64__)
		if (cpu_simd() >= CPU_AVX2)
			assert_int_equal(chunk_hash_avx2(want, LEN), XXH3_64bits(want, LEN));
#endif
	}
	free(from);
	free(to);
	free(want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gathered_is_copied_and_hashed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
