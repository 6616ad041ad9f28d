/* SPDX-License-Identifier: MIT */
/* touch.c - frames that get their memory by way of the page cache.
 *
 * Owns nothing; lock: none. Torture takes that way for a frame in three, and lets
 * frames go, so that new ones are needed all the time. (1) The bytes are the file's, its end
 * and its odd start included. (2) A mapping that goes, whole or in part, while its
 * frames are being filled. (3) A child beside it.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_TORTURE=11 */
/* needs: regions cached */
/* variants: plain move copy move.pread */
#include "trap.h"

#define ODD	(TRAP_SIZE + 3 * MIB + 12345)	/* ends within a page of a chunk */

/* Faults all over, in threads that nobody waits for before the mapping goes. */
static void *wander(void *map)
{
	const volatile unsigned char *p = map;

	for (size_t at = 0; at < ODD / 2; at += 2 * MIB)
		(void)p[at];
	return NULL;
}

/* While the first half's frames are being filled the second half goes, then all. */
static void unmapped(struct trap *t)
{
	pthread_t th;

	for (int i = 0; i < 12; i++) {
		trap_map(t, PROT_READ, MAP_SHARED);
		check(!pthread_create(&th, NULL, wander, t->map));
		verify(t, t->size - MIB, MIB, "its end");
		check(!munmap(t->map + TRAP_SIZE / 2 + 4 * MIB, TRAP_SIZE / 4));
		verify(t, 0, 4 * MIB, "what is left");
		check(!pthread_join(th, NULL));
		trap_unmap(t);
	}
}

static void in_child(const struct trap *t)
{
	pid_t pid = fork();

	if (!pid) {
		verify_passes(t, 2, "child");
		_exit(0);
	}
	verify_all(t, "parent");
	trap_wait(pid, "child");
}

int main(void)
{
	struct trap t;

	trap_shared(&t, ODD, 1);
	unmapped(&t);
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 6, "whole");
	in_child(&t);
	verify_passes(&t, 2, "after the child");
	return trap_done(&t);
}
