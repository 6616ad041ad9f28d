/* SPDX-License-Identifier: MIT */
/* remap_many.c - map, use, unmap, a hundred times: nothing is left behind.
 *
 * Owns nothing; lock: none. Counted after a warm-up: memory, address space,
 * descriptors, mappings, threads.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

#define WARM	15
#define ROUNDS	100

struct use { long rss, vsize, threads; int fds, vmas; };

static struct use look(void)
{
	return (struct use){
		.rss = trap_status("VmRSS"), .vsize = trap_status("VmSize"),
		.threads = trap_count("/proc/self/task"),
		.fds = trap_fds(), .vmas = trap_vmas(),
	};
}

static void round_trip(struct trap *t, int i)
{
	trap_map(t, PROT_READ, i & 1 ? MAP_SHARED : MAP_PRIVATE);
	if (i % 10)
		verify_random(t, 12, i, "one of a hundred mappings");
	else
		verify_all(t, "every tenth of a hundred mappings");
	if (i % 3 == 0)
		check(!munmap(t->map + 8 * MIB, 3 * MIB + PAGE));
	trap_unmap(t);
}

int main(void)
{
	struct use before, after;
	struct trap t;

	trap_shared(&t, TRAP_SIZE, 1);
	for (int i = 0; i < WARM; i++)
		round_trip(&t, i);
	before = look();
	for (int i = 0; i < ROUNDS; i++)
		round_trip(&t, i);
	/* Regions are buried by the pager, soon but not at once. */
	after = look();
	for (int i = 0; i < 100 && after.vsize > before.vsize + 128 * 1024; i++) {
		usleep(50000);
		after = look();
	}
	if (after.fds != before.fds || after.threads != before.threads)
		fail("descriptors %d then %d, threads %ld then %ld", before.fds,
		     after.fds, before.threads, after.threads);
	if (after.vmas > before.vmas + 8)
		fail("%d mappings, then %d", before.vmas, after.vmas);
	if (after.vsize > before.vsize + 128 * 1024)
		fail("%ld kB of addresses, then %ld", before.vsize,
		     after.vsize);
	if (after.rss > before.rss + 12 * 1024)
		fail("%ld kB resident, then %ld", before.rss, after.rss);
	return trap_done(&t);
}
