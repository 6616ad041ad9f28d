/* SPDX-License-Identifier: MIT */
/* hash.c - the hash of chunks and images: XXH3, 64 bits.
 *
 * (1) The same number whichever instructions made it.
 * Owns nothing. Lock: none; any thread.
 */
#include "core/cpu.h"
#include "core/hash.h"

#if defined(__x86_64__)
#define BEST(avx2, plain) (cpu_simd() >= CPU_AVX2 ? (avx2) : (plain))
#else
#define BEST(avx2, plain) (plain)
#endif

uint64_t chunk_hash(const void *p, size_t len)
{
	return BEST(chunk_hash_avx2(p, len), XXH3_64bits(p, len));
}

uint64_t chunk_gather(char *to, const struct hash_part *part, int n)
{
	return BEST(chunk_gather_avx2(to, part, n), gather(to, part, n));
}
