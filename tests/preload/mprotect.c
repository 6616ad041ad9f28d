/* SPDX-License-Identifier: MIT */
/* mprotect.c - protection changes on read-only mappings of both kinds.
 *
 * Owns the private copy it writes to; lock: none.
 * (1) A shared mapping through a read-only descriptor never becomes writable.
 * (2) A private one does; what is written stays, the file does not change.
 * (3) PROT_NONE stops access, and lifting it brings the same bytes back.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static void shared_stays_read_only(struct trap *t)
{
	errno = 0;
	check(mprotect(t->map, t->size, PROT_READ | PROT_WRITE) == -1);
	check(errno == EACCES);
	check(mprotect(t->map + 1, PAGE, PROT_READ) == -1 && errno == EINVAL);
	check(trap_probe(t->map + 3 * MIB, true) == SIGSEGV);
	verify_passes(t, 2, "after a refused mprotect");
}

static void none_and_back(struct trap *t)
{
	unsigned char *p = t->map + 7 * MIB;

	check(!mprotect(p, 4 * MIB, PROT_NONE));
	check(trap_probe(p, false) == SIGSEGV);
	check(trap_probe(p + 4 * MIB - 1, false) == SIGSEGV);
	for (int i = 0; i < 2; i++) {
		verify(t, 0, 7 * MIB, "before PROT_NONE");
		verify(t, 11 * MIB, t->size - 11 * MIB, "after PROT_NONE");
	}
	check(trap_probe(p + 2 * MIB, false) == SIGSEGV);
	check(!mprotect(p, 4 * MIB, PROT_READ));
	verify_passes(t, 2, "PROT_NONE lifted");
	check(trap_probe(p, true) == SIGSEGV);
	check(!mprotect(t->map, t->size, PROT_READ | PROT_EXEC) ||
	      errno == EACCES || errno == EPERM);
	verify_all(t, "PROT_EXEC");
}

/* One word of own in every 64th page. */
static uint64_t own_word(size_t off)
{
	return off * 11 + 3;
}

static void write_words(struct trap *t)
{
	for (size_t off = 32; off < t->size; off += 64 * PAGE) {
		uint64_t w = own_word(off);

		memcpy(t->map + TRAP_DATA + off, &w, 8);
	}
}

static void verify_written(const struct trap *t, const char *what)
{
	for (size_t off = 0; off < t->size; off += 64 * PAGE) {
		size_t at = off + 32 + TRAP_DATA;
		uint64_t w;

		verify(t, off, 32 + TRAP_DATA, what);
		memcpy(&w, t->map + at, 8);
		if (w != own_word(off + 32))
			fail("%s: word written at %#zx is lost", what, at);
		verify(t, at + 8, off + 64 * PAGE - at - 8, what);
	}
}

static void private_becomes_writable(struct trap *t)
{
	trap_unmap(t);
	trap_map(t, PROT_READ, MAP_PRIVATE);
	verify_passes(t, 2, "private, read-only");
	check(trap_probe(t->map + MIB, true) == SIGSEGV);
	check(!mprotect(t->map, t->size, PROT_READ | PROT_WRITE));
	verify_passes(t, 2, "private, writable, untouched");
	write_words(t);
	for (int i = 0; i < 3; i++)
		verify_written(t, "private, written");
	check(!mprotect(t->map, t->size, PROT_READ));
	check(trap_probe(t->map + 5 * MIB, true) == SIGSEGV);
	for (int i = 0; i < 2; i++)
		verify_written(t, "private, read-only again");
	trap_unmap(t);
	trap_map(t, PROT_READ, MAP_SHARED);
	verify_all(t, "the file after private writes");
}

int main(void)
{
	struct trap t;

	trap_private(&t, trap_dir(), TRAP_SIZE, 3);
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 2, "before");
	shared_stays_read_only(&t);
	none_and_back(&t);
	private_becomes_writable(&t);
	return trap_done(&t);
}
