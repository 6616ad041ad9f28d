/* SPDX-License-Identifier: MIT */
/* packed.c - chunks of a file that are kept packed rather than read again.
 *
 * Owns nothing; lock: none. (1) Read in turn and out of turn, so that chunks are
 * wanted while they are being packed. (2) A child, and a mapping that loses its
 * middle, while some are packed. (3) What was written to a private mapping and then
 * discarded is the file's again, not what was packed of it. (4) A second mapping takes over their numbers,
 * and nobody has the file open once the first is gone.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_DISK=1M */
/* needs: regions evictions packed */
#include "trap.h"

#include <glob.h>

/* Descriptors of the file in the tables of all threads. */
static int opened(const char *path)
{
	char link[PATH_MAX + 1];
	glob_t g;
	int n = 0;

	if (glob("/proc/self/task/*/fd/*", 0, NULL, &g))
		return 0;
	for (size_t i = 0; i < g.gl_pathc; i++) {
		ssize_t len = readlink(g.gl_pathv[i], link, sizeof(link) - 1);

		link[len > 0 ? len : 0] = 0;
		n += !strcmp(link, path);
	}
	globfree(&g);
	return n;
}

/* What is still being packed or read of it ends first. */
static void closed_soon(const struct trap *t)
{
	const struct timespec nap = { 0, 10000000 };
	char path[PATH_MAX];

	check(realpath(t->path, path));
	for (int i = 0; opened(path); i++) {
		if (i == 500)
			fail("the file is open %d times after the last munmap", opened(path));
		nanosleep(&nap, NULL);
	}
}

static void discarded(struct trap *t)
{
	trap_map(t, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	verify_passes(t, 2, "private");
	for (size_t at = 0; at < 16 * MIB; at += 2 * MIB) {
		memset(t->map + at, 0, 2 * MIB);	/* packs well */
		check(!madvise(t->map + at, 2 * MIB, MADV_DONTNEED));
		verify(t, at, 2 * MIB, "written, then discarded");
	}
	verify_passes(t, 2, "after that");
	trap_unmap(t);
}

static void in_child(struct trap *t)
{
	pid_t pid = fork();

	if (!pid) {
		verify_passes(t, 2, "child");
		_exit(0);
	}
	verify_random(t, 200, 5, "parent beside its child");
	trap_wait(pid, "child");
}

int main(void)
{
	struct trap t;

	trap_shared(&t, TRAP_SIZE, TRAP_SOFT | 1);
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 8, "in turn");
	verify_random(&t, 400, 7, "out of turn");
	in_child(&t);
	verify_passes(&t, 2, "after the child");
	check(!munmap(t.map + 24 * MIB, 16 * MIB + 64 * KIB));
	for (int i = 0; i < 4; i++) {
		verify(&t, 0, 24 * MIB, "before the hole");
		verify(&t, 40 * MIB + 64 * KIB, t.size - 40 * MIB - 64 * KIB, "behind it");
	}
	trap_unmap(&t);
	closed_soon(&t);
	discarded(&t);
	trap_map(&t, PROT_READ, MAP_PRIVATE);
	verify_passes(&t, 8, "mapped anew");
	t.map = NULL;		/* it stays, packed, for the statistics */
	return trap_done(&t);
}
