/* SPDX-License-Identifier: MIT */
/* test_spill_fork.c - spilled slots across real forks (core/spill.h).
 *
 * Owns what spill_test.h does, and a socket between the two sides of each
 * fork, over which they take turns. (1) What was alive at the fork reads the
 * same in the child whatever the parent does. (2) The parent gets the room
 * back when nobody holds it, and not before. Lock: none.
 */
#include "spill_test.h"
#include "sanitized.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define N 12
#define SLOT (2u << 20)

static uint64_t slot[N];

/* ---- turns ---------------------------------------------------------------------------- */

static int turn[2];		/* the parent's end, the child's */

static void give(int fd)
{
	CHECK(write(fd, "x", 1) == 1);
}

static void await(int fd)
{
	char c;

	CHECK(read(fd, &c, 1) == 1);
}

static void ends(pid_t pid)
{
	int status;

	pid = waitpid(pid, &status, 0);
	CHECK(pid > 0 && status == 0);
}

/* ---- the two sides --------------------------------------------------------------------- */

static void fill_slots(void)
{
	CHECK(spill_open() == 0);
	for (uint32_t i = 0; i < N; i++) {
		slot[i] = must_alloc(SLOT);
		store(slot[i], SLOT, i);
	}
}

static bool all_there(void)
{
	for (uint32_t i = 0; i < N; i++)
		if (!holds(slot[i], SLOT, i))
			return false;
	return true;
}

static void free_slots(void)
{
	for (uint32_t i = 0; i < N; i++)
		spill_free(slot[i], SLOT);
}

static bool was_there(uint64_t ref)
{
	for (uint32_t i = 0; i < N; i++)
		if (slot[i] == ref)
			return true;
	return false;
}

/* Fills N other slots and gives them back; how many were where the old ones
 * had been. */
static uint32_t reused(void)
{
	uint32_t again = 0;
	uint64_t ref[N];

	for (uint32_t i = 0; i < N; i++) {
		ref[i] = must_alloc(SLOT);
		store(ref[i], SLOT, 1000 + i);
		again += was_there(ref[i]);
	}
	for (uint32_t i = 0; i < N; i++)
		spill_free(ref[i], SLOT);
	return again;
}

/* fork, as the pager and the forking thread do it. In the child, 0. */
static pid_t spill_fork(void)
{
	int fds[SPILL_FILES], n;
	pid_t pid;

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, turn));
	CHECK(spill_fork_begin() == 0);
	n = spill_export(fds, SPILL_FILES);
	CHECK(n >= 0 && n <= SPILL_FILES);
	pid = fork();
	CHECK(pid >= 0);
	if (pid) {
		close(turn[1]);
		spill_fork_end();
		return pid;
	}
	close(turn[0]);
	await(turn[1]);		/* a child may be slow */
	spill_import(fds, n);
	return 0;
}

/* ---- cases ------------------------------------------------------------------------------- */

static void child_reads_the_same(void)
{
	uint64_t mine;
	pid_t pid;

	fill_slots();
	pid = spill_fork();
	if (!pid) {
		CHECK(spill_bytes() == (uint64_t)N * SLOT && all_there());
		give(turn[1]);
		await(turn[1]);		/* the parent wrote meanwhile */
		CHECK(all_there());
		mine = must_alloc(SLOT);
		CHECK(mine >> 48 != slot[0] >> 48);
		store(mine, SLOT, 77);
		CHECK(holds(mine, SLOT, 77) && all_there());
		CHECK(messages == 0);
		_exit(0);
	}
	free_slots();
	spill_poll();		/* the child has not done anything yet */
	CHECK(reused() == 0);
	give(turn[0]);
	await(turn[0]);
	spill_poll();
	CHECK(reused() == 0);
	give(turn[0]);
	ends(pid);
	spill_poll();
	CHECK(reused() == N && messages == 0);
}

static void child_cannot_write(void)
{
	int direct, buffered;
	pid_t pid;

	fill_slots();
	pid = spill_fork();
	if (!pid) {
		CHECK(spill_fds(slot[0], &direct, &buffered) == 0);
		CHECK(pwrite(buffered, there, 4096, 0) < 0 && errno == EBADF);
		CHECK(direct < 0 || (pwrite(direct, there, 4096, 0) < 0 && errno == EBADF));
		_exit(0);
	}
	give(turn[0]);
	ends(pid);
}

/* What stays in use in the parent is its own again afterwards. */
static void parent_keeps_its_slots(void)
{
	pid_t pid;

	fill_slots();
	pid = spill_fork();
	if (!pid)
		_exit(0);
	give(turn[0]);
	ends(pid);
	CHECK(all_there());
	spill_poll();
	CHECK(all_there() && reused() == 0);
	free_slots();
	CHECK(reused() == N);
}

static void failed_fork(void)
{
	int fds[SPILL_FILES];

	fill_slots();
	CHECK(spill_fork_begin() == 0);
	CHECK(spill_export(fds, SPILL_FILES) == 1 && spill_export(NULL, 0) == 1);
	CHECK(fcntl(fds[0], F_GETFD) == FD_CLOEXEC);
	free_slots();
	spill_poll();
	CHECK(spill_alloc(SLOT, &(uint64_t){ 0 }) == -EAGAIN);
	spill_fork_end();
	CHECK(fcntl(fds[0], F_GETFD) < 0);
	CHECK(reused() == 0);
	spill_poll();
	CHECK(reused() == N);
}

static void nothing_stored(void)
{
	int fds[SPILL_FILES];

	CHECK(spill_fork_begin() == 0 && spill_export(fds, SPILL_FILES) == 0);
	spill_fork_end();
	CHECK(spill_open() == 0);
	spill_free(must_alloc(SLOT), SLOT);
	CHECK(spill_fork_begin() == 0 && spill_export(fds, SPILL_FILES) == 0);
	spill_fork_end();
	CHECK(spill_offset(must_alloc(SLOT)) == 0);
	spill_free(0, SLOT);
	spill_import(NULL, 0);		/* as a child would */
	CHECK(must_alloc(SLOT) == 0);	/* the first file again: that one is gone */
}

/* The last slot freed ends the lease, though the child lives on. */
static void child_frees_all(void)
{
	pid_t pid;

	fill_slots();
	pid = spill_fork();
	if (!pid) {
		free_slots();
		CHECK(spill_bytes() == 0);
		CHECK(spill_fds(slot[0], &messages, &messages) == -EBADF);
		give(turn[1]);
		await(turn[1]);
		_exit(0);
	}
	free_slots();
	give(turn[0]);
	await(turn[0]);
	spill_poll();
	CHECK(reused() == N);
	give(turn[0]);
	ends(pid);
}

static void exec_ends_it(void)
{
	char fd[16];
	pid_t pid;

	fill_slots();
	pid = spill_fork();
	if (!pid) {
		snprintf(fd, sizeof(fd), "%d", dup(turn[1]));
		execl("/bin/sh", "sh", "-c", "echo >&$0; read x <&$0", fd, NULL);
		_exit(9);
	}
	free_slots();
	spill_poll();
	CHECK(reused() == 0);
	give(turn[0]);
	await(turn[0]);
	spill_poll();
	CHECK(reused() == N);
	CHECK(write(turn[0], "\n", 1) == 1);
	ends(pid);
}

/* A grandchild holds what its parent held, and what that one had itself. */
static void grandchild(void)
{
	int outer, inner;
	uint64_t mine;
	pid_t pid;

	fill_slots();
	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid = spill_fork();
	if (pid) {
		free_slots();
		give(turn[0]);
		await(turn[0]);		/* by the grandchild: its parent is gone */
		spill_poll();
		CHECK(reused() == 0);
		ends(pid);
		give(turn[0]);
		ends(-1);
		spill_poll();
		CHECK(reused() == N);
		return;
	}
	outer = turn[1];
	mine = must_alloc(SLOT);
	store(mine, SLOT, 55);
	pid = spill_fork();
	if (pid) {
		spill_free(mine, SLOT);
		spill_poll();
		CHECK(must_alloc(SLOT) != mine);
		free_slots();		/* its own lease of the first file */
		give(turn[0]);
		_exit(0);
	}
	inner = turn[1];
	CHECK(read(inner, there, 1) == 0);	/* its parent has exited */
	CHECK(holds(mine, SLOT, 55) && all_there());
	give(outer);
	await(outer);
	CHECK(holds(mine, SLOT, 55) && all_there());
	free_slots();
	CHECK(holds(mine, SLOT, 55));
	_exit(0);
}

/* Two children: the room comes back after the last. */
static void two_children(void)
{
	pid_t a, b;
	int ta, tb;

	fill_slots();
	a = spill_fork();
	if (!a) {
		await(turn[1]);
		_exit(0);
	}
	ta = turn[0];
	b = spill_fork();
	if (!b) {
		await(turn[1]);
		CHECK(all_there());
		_exit(0);
	}
	tb = turn[0];
	free_slots();
	give(ta);
	give(ta);
	ends(a);
	spill_poll();
	CHECK(reused() == 0);
	give(tb);
	spill_poll();
	CHECK(reused() == 0);
	give(tb);
	ends(b);
	spill_poll();
	CHECK(reused() == N);
}

/* Forks of two threads overlap: the first to end takes nothing from the other. */
static void overlapping_forks(void)
{
	fill_slots();
	CHECK(spill_fork_begin() == 0 && spill_fork_begin() == 0);
	free_slots();
	spill_fork_end();
	CHECK(spill_export(NULL, 0) == 1);
	spill_poll();
	spill_fork_end();
	CHECK(reused() == 0);
	spill_poll();
	CHECK(reused() == N);
}

static void lost_descriptor(void)
{
	int direct, buffered, none = -1;
	uint64_t mine;
	pid_t pid;

	fill_slots();
	CHECK(spill_fork_begin() == 0);
	pid = fork();
	if (!pid) {
		spill_import(&none, 1);
		CHECK(spill_fds(slot[0], &direct, &buffered) == -EBADF);
		mine = must_alloc(SLOT);
		CHECK(mine >> 48 != slot[0] >> 48);
		CHECK(spill_fds(slot[0], &direct, &buffered) == -EBADF);
		/* A grandchild cannot have it either. */
		CHECK(spill_fork_begin() == -EBADF);
		free_slots();
		CHECK(spill_bytes() == SLOT && spill_fork_begin() == 0);
		_exit(0);
	}
	spill_fork_end();
	ends(pid);
}

static void stranger_is_closed(void)
{
	int direct, buffered, fd;
	pid_t pid;

	fill_slots();
	CHECK(spill_fork_begin() == 0);
	pid = fork();
	if (!pid) {
		fd = open("/dev/null", O_RDONLY);
		spill_import(&fd, 1);
		CHECK(fcntl(fd, F_GETFD) < 0);
		CHECK(spill_fds(slot[0], &direct, &buffered) == -EBADF);
		_exit(0);
	}
	spill_fork_end();
	ends(pid);
}

static void child_forgets(void)
{
	uint64_t ref;
	pid_t pid;

	fill_slots();
	pid = fork();
	if (!pid) {
		spill_forget();
		CHECK(spill_bytes() == 0 && spill_alloc(SLOT, &ref) == -ENODEV);
		CHECK(spill_open() == 0);
		store(must_alloc(SLOT), SLOT, 3);
		_exit(0);
	}
	ends(pid);
	CHECK(all_there());
}

/* ---- library threads, with descriptor tables of their own ---------------------------------- */

static int exported[SPILL_FILES], n_exported;
static pid_t pager_tid;
static int step[2], stepped[2];		/* pipes to and from the pager */

static void leave_table(void)
{
	CHECK(!unshare(CLONE_FILES));
	for (int fd = 64; fd < 256; fd++)
		close(fd);
}

static void *parent_pager(void *arg)
{
	leave_table();
	pager_tid = (pid_t)syscall(SYS_gettid);
	fill_slots();
	CHECK(spill_fork_begin() == 0);
	n_exported = spill_export(exported, SPILL_FILES);
	give(stepped[1]);
	await(step[0]);			/* forked */
	spill_fork_end();
	free_slots();
	spill_poll();
	CHECK(reused() == 0);
	give(stepped[1]);
	await(step[0]);			/* the child is gone */
	spill_poll();
	CHECK(reused() == N);
	return NULL;
}

static void *child_pager(void *arg)
{
	leave_table();
	spill_import(arg, n_exported);
	give(stepped[1]);
	await(step[0]);			/* nothing is left in the other table */
	CHECK(all_there());
	return NULL;
}

static void child_side(int carried[])
{
	pthread_t t;

	CHECK(!pipe(step) && !pipe(stepped));
	CHECK(!pthread_create(&t, NULL, child_pager, carried));
	await(stepped[0]);
	for (int i = 0; i < n_exported; i++)
		close(carried[i]);
	give(step[1]);
	CHECK(!pthread_join(t, NULL));
}

static void tables_of_their_own(void)
{
	int carried[SPILL_FILES], go[2];
	pthread_t t;
	pid_t pid;

	if (TSAN)	/* it allows no thread in a child of a fork */
		_exit(SKIPPED);
	CHECK(!pipe(step) && !pipe(stepped) && !pipe(go));
	CHECK(!pthread_create(&t, NULL, parent_pager, NULL));
	await(stepped[0]);
	CHECK(n_exported == 1);
	CHECK(spill_carry(pager_tid, exported, n_exported, carried) == 0);
	pid = fork();
	if (!pid) {
		await(go[0]);
		child_side(carried);
		_exit(0);
	}
	close(carried[0]);
	give(step[1]);
	await(stepped[0]);
	give(go[1]);
	ends(pid);
	give(step[1]);
	CHECK(!pthread_join(t, NULL));
	CHECK(spill_carry(pager_tid, exported, 1, carried) < 0 && carried[0] == -1);
}

#define CASE(f) static void test_##f(void **state) { isolated(f); }
#define CASES \
	CASE(child_reads_the_same) CASE(child_cannot_write) \
	CASE(parent_keeps_its_slots) CASE(failed_fork) CASE(nothing_stored) \
	CASE(child_frees_all) CASE(exec_ends_it) CASE(grandchild) \
	CASE(two_children) CASE(overlapping_forks) CASE(lost_descriptor) \
	CASE(stranger_is_closed) CASE(child_forgets) CASE(tables_of_their_own)
CASES
#undef CASE

int main(void)
{
#define CASE(f) cmocka_unit_test(test_##f),
	const struct CMUnitTest tests[] = { CASES };

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
