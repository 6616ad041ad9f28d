/* SPDX-License-Identifier: MIT */
/* mremap.c - regions shrink, grow, move, and move onto each other.
 *
 * Owns nothing; lock: none. (1) A call either fails as mremap(2) may and
 * changes nothing, or does what it says. (2) Bytes are right after, at the
 * new place, through evictions; the old place is free.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static struct trap t;

static void shrink(void)
{
	size_t less = t.size - 6 * MIB - PAGE;

	check(mremap(t.map, t.size, less, 0) == t.map);
	trap_is_hole(t.map + less, t.size - less, "shrunk");
	for (int i = 0; i < 2; i++)
		verify(&t, 0, less, "shrunk");
	check(mremap(t.map, less, t.size, MREMAP_MAYMOVE) != MAP_FAILED ||
	      errno == ENOMEM || errno == EFAULT);
}

static void move_to_reserved(void)
{
	unsigned char *to = mmap(NULL, t.size + MIB, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *old = t.map;

	check(to != MAP_FAILED);
	to += PAGE;	/* not congruent to the file any more */
	verify_all(&t, "before the move");
	if (mremap(old, t.size, t.size, MREMAP_MAYMOVE | MREMAP_FIXED, to) !=
	    to)
		fail("mremap MREMAP_FIXED: %s", strerror(errno));
	t.map = to;
	verify_passes(&t, 3, "moved");
	trap_is_hole(old, t.size, "the old place");
}

/* The kernel splits the mapping; the two halves live on apart. */
static void move_a_part(void)
{
	unsigned char *to = mmap(NULL, 8 * MIB, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(to != MAP_FAILED);
	if (mremap(t.map + 10 * MIB, 8 * MIB, 8 * MIB,
		   MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		fail("mremap of a part: %s", strerror(errno));
	for (int i = 0; i < 3; i++) {
		verify_at(&t, to, 10 * MIB, 8 * MIB, "the part that moved");
		verify(&t, 0, 10 * MIB, "before the gap");
		verify(&t, 18 * MIB, t.size - 18 * MIB, "after the gap");
	}
	trap_is_hole(t.map + 10 * MIB, 8 * MIB, "the gap");
	check(!munmap(to, 8 * MIB));
}

static void grow(void)
{
	unsigned char *p = trap_map_at(&t, 16 * MIB, 0, PROT_READ, MAP_SHARED);
	unsigned char *q;

	for (int i = 0; i < 2; i++)
		verify_at(&t, p, 0, 16 * MIB, "before growing");
	q = mremap(p, 16 * MIB, 40 * MIB, MREMAP_MAYMOVE);
	if (q == MAP_FAILED)
		fail("mremap that grows: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		verify_at(&t, q, 0, 40 * MIB, "grown");
	check(!munmap(q, 40 * MIB));
}

static void refused(void)
{
	errno = 0;
	check(mremap(t.map + 1, PAGE, PAGE, 0) == MAP_FAILED);
	check(errno == EINVAL);
	check(mremap(t.map, PAGE, 0, 0) == MAP_FAILED && errno == EINVAL);
}

int main(void)
{
	trap_start(&t);
	verify_passes(&t, 3, "before");
	refused();
	verify_random(&t, 40, 1, "after what was refused");
	trap_unmap(&t);
	trap_map(&t, PROT_READ, MAP_SHARED);
	move_to_reserved();
	move_a_part();
	check(!munmap(t.map, t.size));
	t.map = NULL;
	grow();
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 2, "mapped again");
	shrink();
	t.map = NULL;	/* wherever the last call left it */
	return trap_done(&t);
}
