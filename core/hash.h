/* SPDX-License-Identifier: MIT */
/* hash.h - hash.c's two builds of the same code: as the compiler has it, and AVX2.
 *
 * Owns nothing. Lock: none; any thread. Defines static functions: included by
 * hash.c and hash_avx2.c, which choose XXH_VECTOR before, and by their test.
 */
#ifndef CORE_HASH_H
#define CORE_HASH_H

#include "core/core_int.h"

#define XXH_INLINE_ALL
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#define HASH_STEP ((size_t)16 << 10)	/* still in the first cache when it is hashed */

static inline uint64_t gather(char *to, const struct hash_part *part, int n)
{
	XXH3_state_t state;

	XXH3_64bits_reset(&state);
	for (int i = 0; i < n; i++) {
		const char *from = part[i].from;

		for (size_t at = 0, len; at < part[i].len; at += len, to += len) {
			len = part[i].len - at < HASH_STEP ? part[i].len - at : HASH_STEP;
			if (from)
				memcpy(to, from + at, len);
			else
				memset(to, 0, len);
			XXH3_64bits_update(&state, to, len);
		}
	}
	return XXH3_64bits_digest(&state);
}

#endif
