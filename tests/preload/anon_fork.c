/* SPDX-License-Identifier: MIT */
/* anon_fork.c - children and parents, each with a copy of its own.
 *
 * Owns its blocks; lock: none. (1) A child finds what was at the fork, however
 * late it looks and whatever the parent wrote and evicted since. (2) What a
 * child writes, frees and allocates is its own. (3) Either side outlives the
 * other's end, in any order. (4) Fork from a thread, _Fork, clone, vfork, the
 * raw call, a daemon's two forks.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
#include "anon.h"

#include <sched.h>

#define BLOCKS	3
#define STEP	(29 * PAGE)

static struct block b[BLOCKS];

static void verify_blocks(const char *what)
{
	for (int i = 0; i < BLOCKS; i++)
		block_verify(&b[i], what);
}

static void verify_some(uint32_t seed, const char *what)
{
	for (int i = 0; i < BLOCKS; i++)
		block_verify_random(&b[i], 12, seed + i, what);
}

static void rewrite(uint16_t gen)
{
	for (int i = 0; i < BLOCKS; i++)
		block_fill(&b[i], gen);
}

/* One page in many, so that shared and own pages mix in every chunk. */
static void write_sparse(uint16_t gen)
{
	for (int i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at + PAGE <= b[i].len; at += STEP)
			anon_put(b[i].p + at, b[i].id, gen, at, PAGE);
}

static void verify_sparse(uint16_t gen, const char *what)
{
	for (int i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at + PAGE <= b[i].len; at += PAGE)
			anon_verify(b[i].p + at, b[i].id,
				    at % STEP ? b[i].gen : gen, at, PAGE, what);
}

/* ---- a child that waits until it is told to look --------------------------- */

struct waiter { pid_t pid; int go; };

static struct waiter fork_waiter(void (*then)(void))
{
	struct waiter w;
	int p[2];
	char c;

	check(!pipe2(p, O_CLOEXEC));
	w.pid = fork();
	if (!w.pid) {
		close(p[1]);
		check(read(p[0], &c, 1) == 0);
		then();
		_exit(0);
	}
	close(p[0]);
	w.go = p[1];
	return w;
}

static void let_go(struct waiter *w, const char *what)
{
	close(w->go);
	trap_wait(w->pid, what);
}

static void see_old(void)
{
	verify_blocks("late child, once");
	verify_blocks("late child, twice");
}

/* The parent overwrites all of it while the child has not looked yet. */
static void parent_writes(void)
{
	struct waiter w = fork_waiter(see_old);

	rewrite(2);
	verify_blocks("parent wrote after fork");
	let_go(&w, "late child of a parent that wrote");
	verify_blocks("parent, its child gone");
	w = fork_waiter(see_old);
	write_sparse(3);
	verify_sparse(3, "parent wrote some pages after fork");
	let_go(&w, "late child of a parent that wrote some");
	verify_sparse(3, "parent, its second child gone");
	rewrite(4);
}

/* ---- a child that writes --------------------------------------------------- */

static void child_writes(void)
{
	pid_t pid = fork();

	if (!pid) {
		verify_some(1, "child, at once");
		write_sparse(70);
		verify_sparse(70, "child wrote some");
		rewrite(71);
		verify_blocks("child wrote all");
		_exit(0);
	}
	verify_blocks("parent beside a child that writes");
	trap_wait(pid, "child that writes");
	verify_blocks("parent, after a child wrote");
}

static void child_allocates(void)
{
	pid_t pid = fork();

	if (!pid) {
		struct block mine;

		free(b[2].p);
		mine = block_new(50, b[2].len);
		b[0].p = realloc(b[0].p, b[0].len + 5 * MIB);
		check(b[0].p);
		block_verify(&b[0], "child reallocated");
		block_verify(&mine, "child's own");
		check(!munmap(b[1].p + 3 * PAGE, 9 * MIB));
		check(!madvise(b[1].p + 11 * MIB, CHUNK, MADV_DONTNEED));
		anon_is_zero(b[1].p + 11 * MIB, CHUNK, "child's DONTNEED");
		block_verify_at(&b[1], 13 * MIB, 12 * MIB, "child unmapped");
		exit(0);	/* with all that runs at exit */
	}
	verify_blocks("parent of a child that allocates");
	trap_wait(pid, "child that allocates");
	verify_blocks("parent, after a child freed");
}

/* seen: the generation its parent wrote some pages with. */
static void descend(int depth, uint16_t seen)
{
	pid_t pid = fork();

	if (!pid) {
		verify_sparse(seen, "descendant, at once");
		write_sparse(80 + depth);
		if (depth)
			descend(depth - 1, 80 + depth);
		verify_sparse(80 + depth, "descendant, its child gone");
		_exit(0);
	}
	if (depth == 2)
		verify_blocks("parent of descendants");
	trap_wait(pid, "descendant");
}

/* ---- ends ------------------------------------------------------------------ */

/* The middle process ends at once; the last one is nobody's. */
static void daemon_like(void)
{
	int done[2];
	pid_t pid;
	char c = 0;

	check(!pipe(done));
	pid = fork();
	if (!pid) {
		if (fork())
			_exit(0);
		setsid();
		verify_blocks("daemon");
		write_sparse(90);
		verify_sparse(90, "daemon wrote");
		check(write(done[1], "y", 1) == 1);
		_exit(0);
	}
	close(done[1]);
	trap_wait(pid, "the middle process");
	verify_blocks("parent of a daemon");
	if (read(done[0], &c, 1) != 1 || c != 'y')
		fail("the daemon failed");
	close(done[0]);
}

/* Children end, by exit or by a kill, while the parent turns over. */
static void ends_beside_evictions(void)
{
	pid_t pid[6];
	int st;

	for (int i = 0; i < 6; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			verify_some(i, "child about to end");
			if (i & 1)
				for (;;)
					pause();
			_exit(0);
		}
		verify_blocks("parent beside children that end");
		if (i & 1)
			check(!kill(pid[i], SIGKILL));
	}
	for (int i = 0; i < 6; i++) {
		check(waitpid(pid[i], &st, 0) == pid[i]);
		check(i & 1 ? WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL :
		      WIFEXITED(st) && !WEXITSTATUS(st));
	}
	rewrite(5);
	verify_blocks("parent, all children ended");
}

/* ---- other ways to fork ------------------------------------------------------ */

static void by_low_fork(void)
{
	pid_t pid = _Fork();

	if (!pid) {
		verify_blocks("_Fork child");
		write_sparse(60);
		verify_sparse(60, "_Fork child wrote");
		_exit(0);
	}
	verify_blocks("parent beside a _Fork child");
	trap_wait(pid, "_Fork child");
}

static int in_clone(void *arg)
{
	verify_blocks("clone child");
	write_sparse(61);
	verify_sparse(61, "clone child wrote");
	_exit(0);
}

static void by_clone(void)
{
	static char stack[256 * KIB] __attribute__((aligned(16)));
	pid_t pid = clone(in_clone, stack + sizeof(stack), SIGCHLD, NULL);

	check(pid > 0);
	verify_blocks("parent beside a clone child");
	trap_wait(pid, "clone child");
}

/* A child the library does not hear of: it ends, or runs another program, and
 * touches no block. A child that does gets right bytes or SIGSEGV. */
static void by_raw_call(int what)
{
	static char *argv[] = { (char *)"anon_fork", (char *)"exec", NULL };
	extern char **environ;
	int st;
	pid_t pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (!pid) {
		if (what == 0)
			syscall(SYS_exit_group, 0);
		if (what == 1) {
			syscall(SYS_execve, "/proc/self/exe", argv, environ);
			syscall(SYS_exit_group, 3);
		}
		verify_some(what, "raw clone child");
		syscall(SYS_exit_group, 0);
	}
	check(pid > 0);
	verify_blocks("parent beside a raw clone child");
	check(waitpid(pid, &st, 0) == pid);
	if (what == 2 && WIFSIGNALED(st) && WTERMSIG(st) == SIGSEGV)
		return;
	if (!WIFEXITED(st) || WEXITSTATUS(st))
		fail("raw clone child %d: status %#x", what, st);
}

static void by_vfork(void)
{
	static char *argv[] = { (char *)"anon_fork", (char *)"exec", NULL };
	extern char **environ;
	pid_t pid = vfork();

	if (!pid) {
		execve("/proc/self/exe", argv, environ);
		_exit(3);
	}
	verify_blocks("parent beside a vfork child");
	trap_wait(pid, "vfork child");
	check(!posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ));
	verify_blocks("parent beside a spawned child");
	trap_wait(pid, "spawned child");
}

/* ---- beside threads ---------------------------------------------------------- */

static _Atomic int stop;

static void *churn(void *arg)
{
	while (!atomic_load(&stop))
		block_verify((struct block *)arg, "thread beside fork");
	return NULL;
}

static void *writer(void *arg)
{
	struct block own = block_new(40, 4 * MIB);

	for (uint16_t gen = 2; !atomic_load(&stop); gen++) {
		block_verify(&own, "writer beside fork");
		block_fill(&own, gen);
	}
	block_free(&own);
	return NULL;
}

static void *forker(void *arg)
{
	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();

		if (!pid) {
			struct block own = block_new(41, 3 * MIB);

			verify_some(i, "child of a thread");
			block_verify(&b[2], "child of a thread");
			block_verify(&own, "own of a thread's child");
			_exit(0);
		}
		verify_some(i, "thread that forks");
		trap_wait(pid, "child of a thread");
	}
	return NULL;
}

static void from_threads(void)
{
	void *(*const what[])(void *) = { churn, writer, forker, forker };
	pthread_t th[4];

	for (int i = 0; i < 4; i++)
		check(!pthread_create(&th[i], NULL, what[i], &b[0]));
	check(!pthread_join(th[2], NULL));
	check(!pthread_join(th[3], NULL));
	atomic_store(&stop, 1);
	check(!pthread_join(th[0], NULL));
	check(!pthread_join(th[1], NULL));
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return 0;	/* what a child executed */
	trap_child_env();
	b[0] = block_new(1, 40 * MIB);
	b[1] = block_map(2, 25 * MIB);
	b[2] = block_new(3, 7 * MIB + 4000);
	verify_blocks("before any fork");
	parent_writes();
	child_writes();
	child_allocates();
	descend(2, b[0].gen);
	daemon_like();
	ends_beside_evictions();
	by_low_fork();
	by_clone();
	for (int i = 0; i < 3; i++)
		by_raw_call(i);
	by_vfork();
	from_threads();
	verify_blocks("in the end");
	return 0;
}
