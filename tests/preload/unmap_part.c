/* SPDX-License-Identifier: MIT */
/* unmap_part.c - munmap of a head, a tail, a middle and single pages.
 *
 * Owns nothing; lock: none. llama.cpp unmaps the head of its model once the
 * weights are on a device. What is cut out is really gone, what stays is
 * right, also when a chunk is cut through.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static struct trap t;
static struct { size_t lo, hi; } hole[80];
static int holes;

static void cut(size_t lo, size_t len)
{
	check(!munmap(t.map + lo, len));
	hole[holes].lo = lo;
	hole[holes++].hi = lo + len;
	trap_is_hole(t.map + lo, len, "munmap");
}

static size_t hole_end(size_t off)
{
	for (int i = 0; i < holes; i++)
		if (off >= hole[i].lo && off < hole[i].hi)
			return hole[i].hi;
	return 0;
}

static void verify_rest(const char *what)
{
	for (size_t off = 0; off < t.size;) {
		size_t end = hole_end(off);

		if (end) {
			off = end;
			continue;
		}
		verify(&t, off, PAGE, what);
		off += PAGE;
	}
}

static void cut_and_check(size_t lo, size_t len, const char *what)
{
	cut(lo, len);
	verify_rest(what);
}

static void *churn(void *stop)
{
	while (!atomic_load((_Atomic int *)stop))
		for (size_t off = 40 * MIB; off < t.size; off += 64 * KIB)
			verify(&t, off, PAGE, "thread beside munmap");
	return NULL;
}

static void cut_while_others_fault(void)
{
	static _Atomic int stop;
	pthread_t th;

	check(!pthread_create(&th, NULL, churn, &stop));
	for (size_t i = 0; i < 40; i++)
		cut(20 * MIB + i * 3 * PAGE, PAGE);
	verify_rest("page holes beside a reader");
	atomic_store(&stop, 1);
	check(!pthread_join(th, NULL));
}

int main(void)
{
	trap_start(&t);
	verify_passes(&t, 2, "whole");
	cut_and_check(0, 5 * PAGE, "head");
	cut_while_others_fault();
	cut_and_check(t.size - 3 * MIB - PAGE, 3 * MIB + PAGE, "tail");
	cut_and_check(10 * MIB, 4 * MIB, "middle, whole chunks");
	cut_and_check(16 * MIB + PAGE, 2 * MIB, "middle, across a chunk");
	cut_and_check(5 * PAGE, 3 * MIB, "head again");
	verify_rest("twice over");
	check(!munmap(t.map, t.size));	/* holes and all */
	trap_is_hole(t.map, t.size, "the rest");
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 3, "mapped again");
	return trap_done(&t);
}
