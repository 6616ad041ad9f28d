/* SPDX-License-Identifier: MIT */
/* packed_heap.c - memory that is paged, and packed, while chunks of a file are
 * being packed.
 *
 * Owns its blocks and a file; lock: none. Threads walk the file before, while and
 * after the heap becomes larger than the budget: whoever packs does both then.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_DISK=1M */
/* needs: regions evictions */
#include "anon.h"

#define LEN	(40 * MIB)
#define WALKERS	2

static struct trap t;
static _Atomic int stop;

static void *walk(void *unused)
{
	while (!atomic_load(&stop))
		verify_all(&t, "file beside a heap");
	return NULL;
}

static void put(unsigned char *p, uint32_t seed)
{
	for (size_t at = 0; at < LEN; at += 8) {
		uint64_t w = trap_word(at, seed);

		memcpy(p + at, &w, 8);
	}
}

static void right(const unsigned char *p, uint32_t seed, const char *what)
{
	for (size_t at = 0; at < LEN; at += 8) {
		uint64_t w = trap_word(at, seed);

		if (memcmp(p + at, &w, 8))
			fail("%s: wrong word at %#zx", what, at);
	}
}

int main(void)
{
	pthread_t walker[WALKERS];
	unsigned char *soft;

	trap_shared(&t, TRAP_SIZE, TRAP_SOFT | 1);
	trap_map(&t, PROT_READ, MAP_SHARED);
	for (int i = 0; i < WALKERS; i++)
		check(!pthread_create(&walker[i], NULL, walk, NULL));
	soft = anon_map(LEN);
	for (uint32_t gen = 1; gen < 5; gen++) {
		put(soft, TRAP_SOFT | gen);
		right(soft, TRAP_SOFT | gen, "a first look");
		right(soft, TRAP_SOFT | gen, "a second");
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < WALKERS; i++)
		check(!pthread_join(walker[i], NULL));
	right(soft, TRAP_SOFT | 4, "alone");
	t.map = NULL;		/* it stays, for the statistics */
	return trap_done(&t);
}
