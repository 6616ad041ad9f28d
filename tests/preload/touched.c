/* SPDX-License-Identifier: MIT */
/* touched.c - the file's times move while it is mapped; its bytes do not.
 *
 * Owns a private copy; lock: none. touch, chmod, a backup or a rewrite of the
 * same bytes must not stop a running program, nor confuse it.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static void touch(const struct trap *t, time_t when)
{
	struct timespec ts[2] = { { when, 0 }, { when, 5 } };

	check(!utimensat(AT_FDCWD, t->path, ts, 0));
}

static void rewrite_same(const struct trap *t)
{
	static unsigned char buf[64 * KIB];
	int fd = open(t->path, O_RDWR | O_CLOEXEC);

	check(fd >= 0);
	for (size_t off = 0; off < t->size; off += 8 * MIB) {
		trap_expect(buf, off, sizeof(buf), t->size, t->seed);
		trap_write_all(fd, buf, sizeof(buf), off);
	}
	close(fd);
}

int main(void)
{
	struct trap t;

	trap_private(&t, trap_dir(), TRAP_SIZE, 6);
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 3, "before");
	touch(&t, 1000000000);
	verify_passes(&t, 3, "touched");
	touch(&t, 2000000000);
	check(!chmod(t.path, 0400));
	verify_passes(&t, 2, "touched again, mode changed");
	check(!chmod(t.path, 0600));
	rewrite_same(&t);
	verify_passes(&t, 3, "same bytes written again");
	return trap_done(&t);
}
