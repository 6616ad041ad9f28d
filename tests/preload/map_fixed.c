/* SPDX-License-Identifier: MIT */
/* map_fixed.c - something else is mapped over a part of a region.
 *
 * Owns nothing; lock: none. (1) What was put there is there, and stays there
 * through evictions: anonymous memory, another file, another offset of the
 * same file. (2) What lies around it is right.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static struct trap t, u;

static void *over(size_t at, size_t len, int prot, int flags, int fd,
		  off_t off)
{
	void *p = mmap(t.map + at, len, prot, flags | MAP_FIXED, fd, off);

	check(p == t.map + at);
	return p;
}

static void check_around(const char *what)
{
	verify(&t, 0, 8 * MIB + PAGE, what);
	verify(&t, 12 * MIB + PAGE, 8 * MIB - PAGE, what);
	verify(&t, 24 * MIB, 8 * MIB, what);
	verify(&t, 36 * MIB, t.size - 36 * MIB, what);
}

static void check_inside(const unsigned char *anon)
{
	for (size_t i = 0; i < 4 * MIB; i += 8) {
		uint64_t w;

		memcpy(&w, anon + i, 8);
		if (w != i * 3 + 1)
			fail("own memory inside a region: %#zx holds %#llx", i,
			     (unsigned long long)w);
	}
	verify_at(&u, t.map + 20 * MIB, 6 * MIB, 4 * MIB, "other file inside");
	verify_at(&t, t.map + 32 * MIB, 2 * MIB, 4 * MIB, "same file, moved");
}

int main(void)
{
	unsigned char *anon;
	int fd, ufd;

	trap_start(&t);
	trap_shared(&u, 16 * MIB, 2);
	verify_passes(&t, 2, "before");
	fd = trap_open(&t);
	ufd = trap_open(&u);
	anon = over(8 * MIB + PAGE, 4 * MIB, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < 4 * MIB; i += 8) {
		uint64_t w = i * 3 + 1;

		if (!(i % PAGE) && anon[i])
			fail("fresh anonymous memory is not zero");
		memcpy(anon + i, &w, 8);
	}
	over(20 * MIB, 4 * MIB, PROT_READ, MAP_SHARED, ufd, 6 * MIB);
	over(32 * MIB, 4 * MIB, PROT_READ, MAP_PRIVATE, fd, 2 * MIB);
	close(fd);
	close(ufd);
	for (int i = 0; i < 4; i++) {
		check_around("around");
		check_inside(anon);
	}
	over(0, 2 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(trap_probe(t.map + PAGE, false) == SIGSEGV);
	verify(&t, 2 * MIB, 6 * MIB, "after a reservation");
	trap_done(&u);
	return trap_done(&t);
}
