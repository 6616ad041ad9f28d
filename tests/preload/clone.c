/* SPDX-License-Identifier: MIT */
/* clone.c - processes made below fork: by clone(), and by the raw call.
 *
 * Owns nothing; lock: none.
 * (1) A child of clone() without CLONE_VM reads right bytes.
 * (2) A child of the raw system call reads right bytes or dies of SIGSEGV;
 *     zeros or anything else are the failure this program exists for.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

#include <sched.h>

static struct trap t;

static int by_clone(void *arg)
{
	verify_random(&t, 60, 7, "clone child, at once");
	verify_all(&t, "clone child");
	_exit(0);
}

static void use_clone(int flags)
{
	size_t n = 256 * KIB;
	char *stack = mmap(NULL, n, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	pid_t pid;

	check(stack != MAP_FAILED);
	pid = clone(by_clone, stack + n, flags | SIGCHLD, NULL);
	check(pid > 0);
	verify_all(&t, "parent beside a clone child");
	trap_wait(pid, "clone child");
	munmap(stack, n);
}

static void use_syscall(int i)
{
	int st;
	pid_t pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (!pid) {
		verify_random(&t, 40, i, "raw clone child, at once");
		verify_all(&t, "raw clone child");
		_exit(0);
	}
	check(pid > 0);
	verify_all(&t, "parent beside a raw clone child");
	check(waitpid(pid, &st, 0) == pid);
	if (WIFSIGNALED(st) && WTERMSIG(st) == SIGSEGV)
		return;
	if (!WIFEXITED(st) || WEXITSTATUS(st))
		fail("raw clone child: status %#x", st);
}

int main(void)
{
	trap_start(&t);
	verify_passes(&t, 2, "before");
	use_clone(0);
	use_clone(CLONE_FILES | CLONE_FS);
	for (int i = 0; i < 3; i++)
		use_syscall(i);
	verify_passes(&t, 3, "parent after");
	return trap_done(&t);
}
