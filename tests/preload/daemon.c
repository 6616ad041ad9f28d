/* SPDX-License-Identifier: MIT */
/* daemon.c - the double fork of a server: the parent that mapped is gone.
 *
 * Owns nothing; lock: none. The last process proves itself through a pipe,
 * for nobody waits for a daemon.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions */
#include "trap.h"

static struct trap t;

static _Noreturn void serve(int fd, pid_t gone)
{
	while (getppid() == gone)	/* until the parent is no more */
		usleep(1000);
	verify_passes(&t, 3, "daemon");
	trap_unmap(&t);
	trap_map(&t, PROT_READ, MAP_SHARED);	/* and a region of its own */
	verify_passes(&t, 3, "daemon, own mapping");
	check(write(fd, "k", 1) == 1);
	_exit(0);
}

static _Noreturn void middle(int fd)
{
	pid_t me = getpid();

	check(setsid() >= 0);
	trap_child_env();
	if (!fork())
		serve(fd, me);
	_exit(0);
}

static void by_hand(void)
{
	int p[2];
	pid_t pid;
	char c = 0;

	check(!pipe(p));
	pid = fork();
	if (!pid)
		middle(p[1]);
	close(p[1]);
	trap_wait(pid, "middle process");
	if (read(p[0], &c, 1) != 1 || c != 'k')
		fail("the daemon did not get through");
	close(p[0]);
}

static void by_libc(void)
{
	int p[2];
	pid_t pid;
	char c = 0;

	check(!pipe(p));
	pid = fork();
	if (!pid) {
		check(!daemon(1, 1));
		verify_passes(&t, 2, "daemon(3)");
		check(write(p[1], "k", 1) == 1);
		_exit(0);
	}
	close(p[1]);
	trap_wait(pid, "caller of daemon(3)");
	if (read(p[0], &c, 1) != 1 || c != 'k')
		fail("daemon(3) did not get through");
	close(p[0]);
}

int main(void)
{
	trap_start(&t);
	verify_passes(&t, 2, "before");
	by_hand();
	verify_all(&t, "between");
	by_libc();
	verify_passes(&t, 2, "after");
	return trap_done(&t);
}
