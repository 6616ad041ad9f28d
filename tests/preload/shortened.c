/* SPDX-License-Identifier: MIT */
/* shortened.c - the file is truncated under the mapping.
 *
 * Owns a private copy; the program runs itself as the victim. Lock: none.
 * The kernel answers with SIGBUS. The library may still hold old bytes, and
 * stops the process when it needs one that is gone: SIGBUS too, or a message
 * naming the file. Zeros never, and going on for ever neither.
 */
/* env: OFFLOAD_RAM=32M */
#include "trap.h"

#define KEPT	(16 * MIB)

static _Noreturn void victim(const char *path)
{
	struct trap t = { .size = TRAP_SIZE, .seed = 9 };

	trap_shorten(&t, path, KEPT);
}

int main(int argc, char **argv)
{
	struct trap_child c;
	struct trap t;

	if (argc > 2)
		victim(argv[2]);
	trap_private(&t, trap_dir(), TRAP_SIZE, 9);
	trap_run(&c, "victim", t.path);
	trap_done(&t);
	if (WIFSIGNALED(c.status) && WTERMSIG(c.status) == SIGBUS)
		return 0;
	if (c.status && strstr(c.err, strrchr(t.path, '/') + 1) &&
	    strstr(c.err, "offload") && !strstr(c.err, "wrong byte at"))
		return 0;
	fail("status %#x; it said: %s", c.status, c.err);
}
