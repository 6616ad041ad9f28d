/* SPDX-License-Identifier: MIT */
/* test_budget.c - limits read from recorded trees, and what follows from
 * them (core/budget.h). Run from the top of the source tree.
 *
 * Owns a temporary directory for share tables. Trees: tests/data/sysroot;
 * hybrid is a recording (Linux 6.18), the others have the kernel's format
 * with numbers chosen to tell the cases apart. Lock: none.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/budget.h"
#include "core/log.h"
#include "core/options.h"

#define M (1ull << 20)

void off_log(const char *fmt, ...)
{
	fail_msg("nothing here logs: %s", fmt);
}

static struct budget b;

static struct budget_now read_tree(const char *name)
{
	struct budget_now now;
	char root[256];

	snprintf(root, sizeof(root), "tests/data/sysroot/%s", name);
	assert_int_equal(access(root, R_OK), 0);
	off_opt.sysroot = root;
	assert_int_equal(budget_open(&b), 0);
	assert_int_equal(budget_read(&b, &now), 0);
	assert_int_equal(now.mem_total, 24684084ull << 10);
	assert_int_equal(now.mem_available, 24128140ull << 10);
	budget_close(&b);
	off_opt.sysroot = NULL;
	return now;
}

/* ---- trees --------------------------------------------------------------- */

/* 512 MiB in the process's own cgroup, 384 MiB in its parent. */
static void hybrid_tighter_parent(void **state)
{
	struct budget_now now = read_tree("hybrid");

	assert_int_equal(now.version, 1);
	assert_int_equal(now.depth, 1);
	assert_int_equal(now.limit, 384 * M);
	assert_int_equal(now.lowest_limit, 384 * M);
	assert_int_equal(now.usage, 177307648);
	assert_int_equal(now.anon, 67121152);
	assert_int_equal(now.cache, 109142016);
	assert_int_equal(now.droppable, 33554432);
	assert_int_equal(now.reclaimable, 109080576 + 16384 - 33554432 - 90112);
	assert_true(now.kernel > 0 && now.kernel < 4 * M);
	assert_int_equal(now.swappiness, 60);
	assert_int_equal(now.psi_some_us, 58761459);
	assert_int_equal(now.psi_full_us, 41873821);
	assert_int_equal(now.psi_full_avg10, 113);
	assert_int_equal(now.oom_kill, 0);
}

static void kept_back(void **state)
{
	struct budget_now now = { .limit = 6400 * M, .failcnt = 1000 };
	struct budget_pressure p = { 0 };
	uint64_t s = 1000000000;

	(void)state;
	assert_int_equal(budget_kept_back(&p, &now, s), 0);	/* before our time */
	assert_int_equal(budget_kept_back(&p, &now, 2 * s), 0);
	now.failcnt++;
	assert_int_equal(budget_kept_back(&p, &now, 3 * s), 32 * M);
	assert_int_equal(budget_kept_back(&p, &now, 3 * s + s / 2), 32 * M);
	assert_int_equal(budget_kept_back(&p, &now, 4 * s), 0);
	now.limit = 64 * M;
	now.failcnt++;
	assert_int_equal(budget_kept_back(&p, &now, 5 * s), M);
	now.limit = BUDGET_NONE;
	assert_int_equal(budget_kept_back(&p, &now, 5 * s), 0);
}

static void v1_container(void **state)
{
	struct budget_now now = read_tree("v1-container");

	assert_int_equal(now.version, 1);
	assert_int_equal(now.depth, 0);
	assert_int_equal(now.limit, 256 * M);
	assert_int_equal(now.usage, 177045504);
	assert_int_equal(now.kernel, 901120);
	assert_int_equal(now.failcnt, 7);
	assert_int_equal(now.oom_kill, 1);
}

static void v2_nested_tighter_parent(void **state)
{
	struct budget_now now = read_tree("v2-nested");

	assert_int_equal(now.version, 2);
	assert_int_equal(now.depth, 1);
	assert_int_equal(now.limit, 3072 * M);
	assert_int_equal(now.usage, 1924 * M);
	assert_int_equal(now.anon, 1500 * M);
	assert_int_equal(now.kernel, 40 * M);
	assert_int_equal(now.reclaimable, 284 * M);
	assert_int_equal(now.failcnt, 3 + 11);
	assert_int_equal(now.oom_kill, 0);
	assert_int_equal(now.psi_some_us, 7000);	/* of the cgroup */
	assert_int_equal(now.psi_full_us, 5000);
	assert_int_equal(now.psi_full_avg10, 25);
}

/* memory.high throttles before memory.max kills: it is the limit. */
static void v2_high_and_old_kernel(void **state)
{
	struct budget_now now = read_tree("v2-high");

	assert_int_equal(now.version, 2);
	assert_int_equal(now.limit, 1024 * M);
	assert_int_equal(now.usage, 600 * M);
	assert_int_equal(now.kernel, 40 * M);
	assert_int_equal(now.reclaimable, 90 * M);
	assert_int_equal(now.failcnt, 9);
}

static void v2_container(void **state)
{
	struct budget_now now = read_tree("v2-container");

	assert_int_equal(now.limit, 1024 * M);
	assert_int_equal(now.usage, 300 * M);
	now = read_tree("v2-outside");
	assert_int_equal(now.version, 2);
	assert_int_equal(now.limit, 512 * M);
}

static void no_limit(void **state)
{
	struct budget_now now = read_tree("nolimit");

	assert_int_equal(now.version, 2);
	assert_true(now.limit == BUDGET_NONE);
	assert_int_equal(now.usage, 900 * M);
	now = read_tree("meminfo-only");
	assert_int_equal(now.version, 0);
	assert_true(now.limit == BUDGET_NONE);
	assert_int_equal(now.swappiness, -1);
}

static void nothing_there(void **state)
{
	struct budget_now now;

	off_opt.sysroot = "tests/data/sysroot/nothing";
	assert_int_equal(budget_open(&b), -ENOENT);
	assert_int_equal(budget_read(&b, &now), -EIO);
	assert_int_equal(budget_target(&now, 5 * M, 0, 0), 0);
	budget_close(&b);
	off_opt.sysroot = NULL;
}

/* ---- this machine, whatever it is ---------------------------------------- */

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 512; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

static void real_machine(void **state)
{
	struct budget_now one, two;
	int before = count_fds();

	assert_int_equal(budget_open(&b), 0);
	assert_int_equal(budget_read(&b, &one), 0);
	assert_int_equal(budget_read(&b, &two), 0);
	assert_true(one.mem_total > 0 && one.mem_available <= one.mem_total);
	assert_int_equal(one.limit, two.limit);
	assert_true(two.failcnt >= one.failcnt);
	budget_close(&b);
	assert_int_equal(count_fds(), before);
}

/* ---- targets ------------------------------------------------------------- */

static struct budget_now made_up(uint64_t limit, uint64_t usage, uint64_t free)
{
	struct budget_now now = { .limit = limit, .usage = usage,
		.reclaimable = free, .mem_total = 100000 * M,
		.mem_available = 90000 * M };

	return now;
}

static void target_under_a_limit(void **state)
{
	struct budget_now now = made_up(1000 * M, 700 * M, 100 * M);

	assert_int_equal(budget_others(&now, 400 * M), 200 * M);
	assert_int_equal(budget_target(&now, 400 * M, 64 * M, 0), 736 * M);
	/* what the library holds does not change what it may hold */
	now = made_up(1000 * M, 300 * M, 100 * M);
	assert_int_equal(budget_target(&now, 0, 64 * M, 0), 736 * M);
	assert_int_equal(budget_target(&now, 0, 64 * M, 500 * M), 500 * M);
	assert_int_equal(budget_target(&now, 0, 64 * M, 800 * M), 736 * M);
}

static void target_is_never_negative(void **state)
{
	struct budget_now now = made_up(1000 * M, 990 * M, 0);

	assert_int_equal(budget_target(&now, 0, 64 * M, 0), 0);
	assert_int_equal(budget_target(&now, 0, UINT64_MAX, 0), 0);
	/* own bytes not yet charged: usage lags behind */
	now = made_up(1000 * M, 100 * M, 0);
	assert_int_equal(budget_target(&now, 300 * M, 64 * M, 0), 936 * M);
	assert_int_equal(budget_target(&now, UINT64_MAX, 64 * M, 0), 936 * M);
}

static void target_of_the_machine(void **state)
{
	struct budget_now now = made_up(BUDGET_NONE, 700 * M, 0);

	assert_int_equal(budget_target(&now, 0, 64 * M, 0), 85000 * M);
	assert_int_equal(budget_target(&now, 100 * M, 64 * M, 0), 85100 * M);
	assert_int_equal(budget_target(&now, 0, 6000 * M, 0), 84000 * M);
	now.limit = 95000 * M;		/* a limit above what is there */
	assert_int_equal(budget_target(&now, 0, 64 * M, 0), 85000 * M);
	now.mem_total = now.mem_available = 0;	/* unknown */
	assert_int_equal(budget_target(&now, 0, 64 * M, 0), 94236 * M);
}

static void divided(uint64_t total, const uint64_t *want, const uint64_t *get,
		    size_t n)
{
	uint64_t share[BUDGET_SHARERS], sum = 0;

	budget_divide(total, want, n, share);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(share[i], get[i]);
		sum += share[i];
	}
	assert_true(sum <= total);
}

static void water_filling(void **state)
{
	divided(100, (uint64_t[]){ 500 }, (uint64_t[]){ 100 }, 1);
	divided(100, (uint64_t[]){ 30 }, (uint64_t[]){ 30 }, 1);
	divided(100, (uint64_t[]){ 80, 80 }, (uint64_t[]){ 50, 50 }, 2);
	divided(100, (uint64_t[]){ 10, 500 }, (uint64_t[]){ 10, 90 }, 2);
	divided(100, (uint64_t[]){ 90, 10, 30 }, (uint64_t[]){ 60, 10, 30 }, 3);
	divided(120, (uint64_t[]){ 35, 20, 90, 500 },
		(uint64_t[]){ 33, 20, 33, 33 }, 4);
	divided(0, (uint64_t[]){ 5, 0 }, (uint64_t[]){ 0, 0 }, 2);
	divided(100, (uint64_t[]){ UINT64_MAX, UINT64_MAX },
		(uint64_t[]){ 50, 50 }, 2);
	budget_divide(5, NULL, 0, NULL);
}

/* ---- the share table ----------------------------------------------------- */

static char root[] = "/tmp/offshareXXXXXX";
static char shm[64];

static int make_root(void **state)
{
	char proc[64];

	strcpy(root + sizeof(root) - 7, "XXXXXX");
	if (!mkdtemp(root))
		return -1;
	snprintf(shm, sizeof(shm), "%s/dev", root);
	mkdir(shm, 0700);
	snprintf(shm, sizeof(shm), "%s/dev/shm", root);
	mkdir(shm, 0700);
	snprintf(proc, sizeof(proc), "%s/proc", root);
	off_opt.sysroot = root;
	return symlink("/proc", proc);
}

static int drop_root(void **state)
{
	char cmd[128];

	off_opt.sysroot = NULL;
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", root);
	return system(cmd);
}

static const struct budget under = { .share_key = 12345 };

static char *table_path(void)
{
	static char path[256];
	char cmd[128];
	FILE *f;

	snprintf(cmd, sizeof(cmd), "echo %s/offload-*", shm);
	f = popen(cmd, "r");
	assert_non_null(f);
	assert_non_null(fgets(path, sizeof(path), f));
	pclose(f);
	path[strcspn(path, "\n")] = 0;
	return path;
}

static uint64_t poll_share(struct budget_share *s, uint64_t wanted,
			   uint64_t held, unsigned int *sharers)
{
	struct budget_now now = made_up(1000 * M, 600 * M, 0);
	uint64_t share = 0;

	assert_int_equal(budget_share_poll(s, &now, 100 * M, wanted, held,
					   &share, sharers), 0);
	return share;
}

static void alone(void **state)
{
	struct budget_share s;
	unsigned int n;

	assert_int_equal(budget_share_join(&s, &under), 0);
	assert_int_equal(poll_share(&s, 5000 * M, 0, &n), 300 * M);
	assert_int_equal(n, 1);
	assert_int_equal(poll_share(&s, 5000 * M, 300 * M, &n), 600 * M);
	assert_int_equal(poll_share(&s, 200 * M, 300 * M, &n), 200 * M);
	assert_int_equal(access(table_path(), F_OK), 0);
	budget_share_leave(&s);
	assert_int_equal(access(table_path(), F_OK), -1);
	budget_share_leave(&s);		/* twice does nothing */
}

/* A child that joins, holds 200 MiB and waits to be killed. */
static pid_t other_process(int *pipe_end)
{
	struct budget_share s;
	unsigned int n;
	int ends[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (!pid) {
		close(ends[0]);
		if (budget_share_join(&s, &under))
			_exit(1);
		poll_share(&s, 5000 * M, 200 * M, &n);
		c = 'r';
		if (write(ends[1], &c, 1) == 1)
			pause();
		_exit(1);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &c, 1), 1);
	*pipe_end = ends[0];
	return pid;
}

/* limit 1000, reserve 100, usage 600 of which 200 + 300 are held by the two:
 * 800 to divide. After one was killed its held bytes are not added back. */
static void two_and_a_dead_one(void **state)
{
	struct budget_share s;
	unsigned int n;
	int end;
	pid_t pid;

	assert_int_equal(budget_share_join(&s, &under), 0);
	pid = other_process(&end);
	assert_int_equal(poll_share(&s, 5000 * M, 300 * M, &n), 400 * M);
	assert_int_equal(n, 2);
	assert_int_equal(poll_share(&s, 150 * M, 300 * M, &n), 150 * M);
	kill(pid, SIGKILL);
	close(end);
	/* dead but not yet waited for: a zombie holds nothing */
	assert_int_equal(waitid(P_PID, (id_t)pid, &(siginfo_t){ 0 },
				WEXITED | WNOWAIT), 0);
	assert_int_equal(poll_share(&s, 5000 * M, 300 * M, &n), 600 * M);
	assert_int_equal(n, 1);
	waitpid(pid, NULL, 0);
	budget_share_leave(&s);
}

/* An entry that is not refreshed: its process became another program. What
 * it held no longer counts as the library's. */
static void one_that_stopped_polling(void **state)
{
	uint64_t long_ago = 0;
	struct budget_share s;
	unsigned int n;
	int end, fd;
	pid_t pid;

	pid = other_process(&end);		/* takes the first entry */
	assert_int_equal(budget_share_join(&s, &under), 0);
	assert_int_equal(poll_share(&s, 5000 * M, 300 * M, &n), 400 * M);
	fd = open(table_path(), O_RDWR);
	assert_int_equal(pwrite(fd, &long_ago, 8, 8 + 32), 8);
	close(fd);
	assert_int_equal(poll_share(&s, 5000 * M, 300 * M, &n), 600 * M);
	assert_int_equal(n, 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(end);
	budget_share_leave(&s);
}

static void locked_by_somebody(void **state)
{
	struct budget_now now = made_up(1000 * M, 600 * M, 0);
	struct budget_share s;
	uint64_t share = 77;
	unsigned int n = 88;
	int fd;

	assert_int_equal(budget_share_join(&s, &under), 0);
	fd = open(table_path(), O_RDWR);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(budget_share_poll(&s, &now, 0, 1, 1, &share, &n),
			 -EAGAIN);
	assert_int_equal(share, 77);
	assert_int_equal(n, 88);
	close(fd);
	assert_int_equal(budget_share_poll(&s, &now, 0, 1, 1, &share, &n), 0);
	budget_share_leave(&s);
}

/* Somebody else left last and removed the file that we still have open. */
static void removed_under_us(void **state)
{
	struct budget_share s;
	unsigned int n;

	assert_int_equal(budget_share_join(&s, &under), 0);
	poll_share(&s, 5000 * M, 0, &n);
	assert_int_equal(unlink(table_path()), 0);
	assert_int_equal(poll_share(&s, 5000 * M, 0, &n), 300 * M);
	assert_int_equal(access(table_path(), F_OK), 0);
	budget_share_leave(&s);
}

static void garbage_in_the_table(void **state)
{
	struct budget_share s;
	unsigned int n;
	int fd;

	assert_int_equal(budget_share_join(&s, &under), 0);
	fd = open(table_path(), O_RDWR);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(write(fd, "\xff\xfe\x01", 3), 3);
	assert_int_equal(poll_share(&s, 5000 * M, 0, &n), 300 * M);
	/* a good head and impossible entries: all of them gone */
	for (int i = 8; i < 2000; i += 8)
		assert_int_equal(pwrite(fd, "\x7f\xff\xff\xff\xff\xff\xff\x7f",
					8, i), 8);
	assert_int_equal(poll_share(&s, 5000 * M, 0, &n), 300 * M);
	assert_int_equal(n, 1);
	close(fd);
	budget_share_leave(&s);
}

/* Another version's table: its entries mean nothing here. */
static void another_kind_of_table(void **state)
{
	struct budget_share s;
	unsigned int n;
	int end, fd;
	pid_t pid;

	assert_int_equal(budget_share_join(&s, &under), 0);
	pid = other_process(&end);
	fd = open(table_path(), O_RDWR);
	assert_int_equal(pwrite(fd, "loshare9", 8, 0), 8);
	close(fd);
	poll_share(&s, 5000 * M, 0, &n);
	assert_int_equal(n, 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(end);
	budget_share_leave(&s);
}

static void table_is_private(void **state)
{
	struct budget_share s;
	char *path, other[64];
	struct stat st;

	assert_int_equal(budget_share_join(&s, &under), 0);
	path = table_path();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_true(fcntl(s.fd, F_GETFD) & FD_CLOEXEC);
	budget_share_leave(&s);
	/* open to others, or a link: refused; there is no /tmp to fall back to */
	close(open(path, O_CREAT | O_RDWR, 0600));
	chmod(path, 0666);
	assert_true(budget_share_join(&s, &under) < 0);
	unlink(path);
	snprintf(other, sizeof(other), "%s/mine", root);
	close(open(other, O_CREAT | O_RDWR, 0600));
	assert_int_equal(symlink(other, path), 0);
	assert_true(budget_share_join(&s, &under) < 0);
	assert_true(s.fd < 0);
	unlink(path);
	assert_int_equal(link(other, path), 0);
	assert_true(budget_share_join(&s, &under) < 0);
	unlink(path);
}

static void falls_back_to_tmp(void **state)
{
	struct budget_share s;
	unsigned int n;
	char tmp[64];

	assert_int_equal(rmdir(shm), 0);
	assert_true(budget_share_join(&s, &under) < 0);
	snprintf(tmp, sizeof(tmp), "%s/tmp", root);
	mkdir(tmp, 0700);
	assert_int_equal(budget_share_join(&s, &under), 0);
	assert_int_equal(poll_share(&s, 5000 * M, 0, &n), 300 * M);
	budget_share_leave(&s);
	assert_int_equal(rmdir(tmp), 0);	/* it was removed again */
}

/* As long ago as no living process of it would let pass. */
static void grow_old(const char *path)
{
	const struct timespec old[2] = { { time(NULL) - 60, 0 }, { time(NULL) - 60, 0 } };
	uint64_t seen = 1;
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, &seen, 8, 8 + 32), 8);	/* the first entry's */
	assert_int_equal(futimens(fd, old), 0);
	close(fd);
}

/* Its last process was killed: whoever joins another table removes it; not one that
 * somebody is at, and nothing that is no table. */
static void deserted(void **state)
{
	const struct budget other = { .share_key = 999 };
	struct budget_share killed, s;
	char path[256], near[128];
	unsigned int n;

	assert_int_equal(budget_share_join(&killed, &other), 0);
	poll_share(&killed, 5000 * M, 0, &n);
	snprintf(path, sizeof(path), "%s", table_path());
	snprintf(near, sizeof(near), "%s/offload-nothing", shm);
	close(open(near, O_CREAT | O_RDWR, 0600));
	assert_int_equal(budget_share_join(&s, &under), 0);
	budget_share_leave(&s);
	assert_int_equal(access(path, F_OK), 0);
	grow_old(path);
	assert_int_equal(budget_share_join(&s, &under), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(unlink(near), 0);
	budget_share_leave(&s);
	poll_share(&killed, 5000 * M, 0, &n);	/* it was not dead: it goes on */
	budget_share_leave(&killed);
	assert_int_equal(rmdir(shm), 0);
}

#define SHARE(f) cmocka_unit_test_setup_teardown(f, make_root, drop_root)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hybrid_tighter_parent),
		cmocka_unit_test(kept_back),
		cmocka_unit_test(v1_container),
		cmocka_unit_test(v2_nested_tighter_parent),
		cmocka_unit_test(v2_high_and_old_kernel),
		cmocka_unit_test(v2_container),
		cmocka_unit_test(no_limit),
		cmocka_unit_test(nothing_there),
		cmocka_unit_test(real_machine),
		cmocka_unit_test(target_under_a_limit),
		cmocka_unit_test(target_is_never_negative),
		cmocka_unit_test(target_of_the_machine),
		cmocka_unit_test(water_filling),
		SHARE(alone), SHARE(two_and_a_dead_one),
		SHARE(one_that_stopped_polling),
		SHARE(locked_by_somebody), SHARE(removed_under_us),
		SHARE(garbage_in_the_table), SHARE(another_kind_of_table),
		SHARE(table_is_private),
		SHARE(falls_back_to_tmp),
		SHARE(deserted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
