/* SPDX-License-Identifier: MIT */
/* hash_avx2.c - the hash again, by AVX2: half the time where the bytes are in a
 * cache. Called by hash.c only, where the processor has it.
 *
 * Owns nothing. Lock: none; any thread.
 */
#if defined(__x86_64__)
#include "core/core_int.h"

#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define XXH_VECTOR 2		/* XXH_AVX2 */
#define XXH_INLINE_ALL
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

uint64_t chunk_hash_avx2(const void *p, size_t len)
{
	return XXH3_64bits(p, len);
}

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
