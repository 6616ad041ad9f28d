/* SPDX-License-Identifier: MIT */
/* hash.c - the hash of chunks and images: XXH3, 64 bits.
 *
 * (1) The same number whichever instructions made it.
 * Owns nothing. Lock: none; any thread.
 */
#include "core/core_int.h"
#include "core/cpu.h"

#define XXH_INLINE_ALL
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#if defined(__x86_64__)
uint64_t chunk_hash(const void *p, size_t len)
{
	return cpu_simd() >= CPU_AVX2 ? chunk_hash_avx2(p, len) : XXH3_64bits(p, len);
}
#else
uint64_t chunk_hash(const void *p, size_t len)
{
	return XXH3_64bits(p, len);
}
#endif
