/* SPDX-License-Identifier: MIT */
/* close_fds.c - the program closes, and dups over, every descriptor there is.
 *
 * Owns nothing; lock: none. Shells, daemons and interpreters do this. The
 * region must go on, for its descriptors live where the program's calls
 * cannot reach (R4); zeros here are the worst failure of all.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static struct trap t;

static void close_loop(void)
{
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
}

static void dup_storm(void)
{
	int fd = open("/dev/null", O_RDWR);

	check(fd >= 0);
	for (int to = 3; to < 300; to++)
		if (to != fd)
			check(dup2(fd, to) == to);
	verify_all(&t, "dup2 over everything");
	close_range(3, 299, 0);
}

static void *churn(void *stop)
{
	while (!atomic_load((_Atomic int *)stop))
		verify_all(&t, "thread beside close");
	return NULL;
}

static void storm_beside_reader(void)
{
	static _Atomic int stop;
	pthread_t th;

	check(!pthread_create(&th, NULL, churn, &stop));
	for (int i = 0; i < 50; i++) {
		dup_storm();
		close_loop();
		if (close_range(3, ~0u, 0))
			check(errno == ENOSYS);
	}
	atomic_store(&stop, 1);
	check(!pthread_join(th, NULL));
}

static void in_a_child(void)
{
	pid_t pid = fork();

	if (!pid) {
		close_loop();
		verify_all(&t, "child that closed all");
		_exit(0);
	}
	verify_all(&t, "parent beside it");
	trap_wait(pid, "child that closed all");
}

int main(void)
{
	trap_start(&t);
	verify_passes(&t, 2, "before");
	close_loop();
	verify_passes(&t, 2, "close loop");
	check(!close_range(3, ~0u, 0) || errno == ENOSYS);
	verify_passes(&t, 2, "close_range");
	closefrom(3);
	verify_passes(&t, 2, "closefrom");
	storm_beside_reader();
	in_a_child();
	check(!close_range(3, ~0u, CLOSE_RANGE_UNSHARE) || errno == ENOSYS ||
	      errno == EINVAL);
	verify_passes(&t, 2, "own descriptor table");
	trap_unmap(&t);
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 2, "mapped again");
	return trap_done(&t);
}
