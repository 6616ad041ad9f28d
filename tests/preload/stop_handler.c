/* SPDX-License-Identifier: MIT */
/* stop_handler.c - the library stops a process that has a handler for SIGABRT.
 *
 * Owns a private copy of its file; the program runs itself as the victim. Lock: none.
 * The handler would run on the thread that all bytes come from, and this one, like
 * many that report a crash, looks at memory: it would wait for ever. It must not run.
 */
/* env: OFFLOAD_RAM=32M */
#include "trap.h"

#define KEPT	(16 * MIB)

static struct trap t = { .size = TRAP_SIZE, .seed = 9 };

static void report(int sig)
{
	(void)!write(2, "handler ran\n", 12);
	for (size_t at = KEPT; at < t.size; at += PAGE)
		(void)*(volatile unsigned char *)(t.map + at);
	_exit(3);
}

static _Noreturn void victim(const char *path)
{
	check(signal(SIGABRT, report) != SIG_ERR);
	alarm(20);
	trap_shorten(&t, path, KEPT);
}

int main(int argc, char **argv)
{
	struct trap_child c;

	if (argc > 2)
		victim(argv[2]);
	trap_private(&t, trap_dir(), TRAP_SIZE, 9);
	trap_run(&c, "victim", t.path);
	trap_done(&t);
	if (strstr(c.err, "handler ran"))
		fail("status %#x; it said: %s", c.status, c.err);
	if (WIFSIGNALED(c.status) && WTERMSIG(c.status) == SIGBUS && !trap_paged())
		return 0;
	if (WIFSIGNALED(c.status) && WTERMSIG(c.status) == SIGABRT &&
	    strstr(c.err, "cannot be produced: "))
		return 0;
	fail("status %#x; it said: %s", c.status, c.err);
}
