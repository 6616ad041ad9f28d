/* SPDX-License-Identifier: MIT */
/* hash_avx2.c - the hash again, by AVX2: half the time where the bytes are in a
 * cache. Called by hash.c only, where the processor has it.
 *
 * Owns nothing. Lock: none; any thread.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define XXH_VECTOR 2		/* XXH_AVX2 */
#include "core/hash.h"

uint64_t chunk_hash_avx2(const void *p, size_t len)
{
	return XXH3_64bits(p, len);
}

uint64_t chunk_gather_avx2(char *to, const struct hash_part *part, int n)
{
	return gather(to, part, n);
}

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
