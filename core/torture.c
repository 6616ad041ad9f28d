/* SPDX-License-Identifier: MIT */
/* torture.c - OFFLOAD_TORTURE=seed: tiny thresholds, random everything.
 *
 * The same code paths at a thousand times the rate: conversions at random
 * moments, evictions for no reason, fills delayed. Repeats from its seed as
 * far as thread timing lets it. Lock: none (a lost update of the state only
 * changes the sequence).
 */
#include "core/core_int.h"

static _Atomic uint64_t rng;

AT_START bool torture(void)
{
	return off_opt.torture != 0;
}

/* xorshift64*, uniform enough below small numbers. 0 when below is 0. */
uint32_t torture_random(uint32_t below)
{
	uint64_t x = atomic_load(&rng);

	if (!x)
		x = off_opt.torture * 0x9e3779b97f4a7c15ull + 1;
	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	atomic_store(&rng, x);
	return below ? (uint32_t)((x * 0x2545f4914f6cdd1dull) >> 33) % below : 0;
}
