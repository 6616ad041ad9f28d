/* SPDX-License-Identifier: MIT */
/* fork.c - children read the parent's region while the parent goes on.
 *
 * Owns nothing; lock: none. A child's memory is its own: nothing the parent
 * evicts later may show in it, and the parent must outlive its children's
 * ends, in any order.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static struct trap t;

/* The child waits until the parent has turned its frames over. */
static pid_t late_child(int *go)
{
	int p[2];
	pid_t pid;
	char c;

	check(!pipe(p));
	pid = fork();
	if (!pid) {
		close(p[1]);
		check(read(p[0], &c, 1) == 0);
		verify_passes(&t, 2, "child after the parent evicted");
		_exit(0);
	}
	close(p[0]);
	*go = p[1];
	return pid;
}

static pid_t nested(int depth)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	verify_random(&t, 60, depth, "child, at once");
	if (depth)
		trap_wait(nested(depth - 1), "grandchild");
	verify_all(&t, "child");
	_exit(0);
}

static void *churn(void *stop)
{
	while (!atomic_load((_Atomic int *)stop))
		verify_all(&t, "thread beside fork");
	return NULL;
}

static void fork_while_others_fault(void)
{
	static _Atomic int stop;
	pthread_t th;
	int quick;

	check(!pthread_create(&th, NULL, churn, &stop));
	for (int i = 0; i < 8; i++) {
		pid_t pid = fork();

		if (!pid) {
			verify_random(&t, 40, i, "child of a busy parent");
			_exit(0);
		}
		quick = i & 1;
		if (quick)
			verify_random(&t, 15, i, "busy parent");
		trap_wait(pid, "child of a busy parent");
	}
	atomic_store(&stop, 1);
	check(!pthread_join(th, NULL));
}

int main(void)
{
	int go;
	pid_t late, pid;

	trap_start(&t);
	verify_passes(&t, 2, "before any fork");
	late = late_child(&go);
	pid = nested(2);
	verify_passes(&t, 2, "parent beside children");
	trap_wait(pid, "child");
	close(go);
	verify_passes(&t, 1, "parent beside the late child");
	trap_wait(late, "late child");
	fork_while_others_fault();
	verify_passes(&t, 3, "parent after all");
	return trap_done(&t);
}
