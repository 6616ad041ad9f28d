/* SPDX-License-Identifier: MIT */
/* test_mem.c - the library's own heap and raw system calls (core/mem.h, sys.h).
 *
 * Owns nothing. (1) The first allocation may come from any thread.
 * (2) The program's settings and break are not the heap's. (3) A fork while
 * other threads allocate leaves a child whose heap works. Lock: none.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/mem.h"
#include "core/sys.h"
#include "sanitized.h"

static void fill(unsigned char *p, size_t n, unsigned int seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (unsigned char)(seed + i * 7);
}

static int same(const unsigned char *p, size_t n, unsigned int seed)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != (unsigned char)(seed + i * 7))
			return 0;
	return 1;
}

/* Allocates, fills, moves and frees; returns NULL when all bytes held. */
static void *churn(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;
	unsigned char *p[64] = { 0 };
	size_t n[64] = { 0 };

	for (unsigned int i = 0; i < 4000; i++) {
		unsigned int k = (seed * 31 + i * 17) % 64;

		if (p[k] && !same(p[k], n[k], k))
			return p[k];
		mem_free(p[k]);
		n[k] = 1 + (seed + i * 2654435761u) % 20000;
		p[k] = mem_alloc(n[k]);
		if (!p[k] || (uintptr_t)p[k] % (n[k] < 16 ? 8 : 16))
			return (void *)1;
		fill(p[k], n[k], k);
	}
	for (unsigned int k = 0; k < 64; k++)
		mem_free(p[k]);
	return NULL;
}

/* Runs first, so that the heap sets itself up inside one of these threads. */
static void test_first_use_in_threads(void **state)
{
	pthread_t t[8];
	void *bad;

	for (uintptr_t i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, (void *)i), 0);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(pthread_join(t[i], &bad), 0);
		assert_null(bad);
	}
}

static void test_sizes(void **state)
{
	unsigned char *p = mem_zalloc(3 << 20), *q;

	assert_non_null(p);
	for (size_t i = 0; i < 3 << 20; i++)
		assert_int_equal(p[i], 0);
	fill(p, 1000, 5);
	q = mem_realloc(p, 64 << 20);
	assert_non_null(q);
	assert_true(same(q, 1000, 5));
	q = mem_realloc(q, 0);
	assert_non_null(q);
	mem_free(q);
	mem_free(NULL);
	p = mem_alloc(0);
	assert_non_null(p);
	mem_free(p);
	assert_null(mem_alloc((size_t)1 << 62));
	assert_int_equal(mem_init(), 0);
}

static void test_break_stays(void **state)
{
	void *before = sbrk(0);

	for (int i = 0; i < 64; i++)
		mem_free(mem_alloc((size_t)i << 16));
	assert_ptr_equal(sbrk(0), before);
}

static _Atomic int stop;

static void *churn_till_stop(void *arg)
{
	while (!atomic_load(&stop))
		if (churn(arg))
			return (void *)1;
	return NULL;
}

/* The child allocates; a lock left held would hang it, and alarm ends that. */
static int child_allocates(void)
{
	int status = 0;
	pid_t pid;

	mem_fork_prepare();
	pid = fork();
	if (!pid) {
		mem_fork_child();
		alarm(20);
		_exit(churn((void *)3) != NULL);
	}
	mem_fork_parent();
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_fork(void **state)
{
	pthread_t t[2];
	void *bad;

	if (TSAN)	/* its deadlock detector counts at most 64 held locks */
		skip();
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn_till_stop,
						(void *)i), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(child_allocates(), 0);
	atomic_store(&stop, 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(t[i], &bad), 0);
		assert_null(bad);
	}
}

static void test_sys_mappings(void **state)
{
	long page = sysconf(_SC_PAGESIZE);
	unsigned char vec = 0, *p, *q;

	p = off_sys_mmap(NULL, 4 * page, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	fill(p, 4 * page, 9);
	assert_int_equal(off_sys_mincore(p, page, &vec), 0);
	assert_int_equal(vec & 1, 1);
	q = off_sys_mremap(p, 4 * page, 64 * page, MREMAP_MAYMOVE);
	assert_ptr_not_equal(q, MAP_FAILED);
	assert_true(same(q, 4 * page, 9));
	assert_int_equal(off_sys_madvise(q, page, MADV_DONTNEED), 0);
	assert_int_equal(q[0], 0);
	assert_int_equal(off_sys_mprotect(q, page, PROT_NONE), 0);
	assert_int_equal(off_sys_munmap(q, 64 * page), 0);
	assert_int_equal(off_sys_madvise(q + 1, page, MADV_DONTNEED), -1);
	assert_int_equal(errno, EINVAL);
	p = off_sys_mmap(NULL, 0, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_equal(p, MAP_FAILED);
	assert_int_equal(errno, EINVAL);
}

static void test_sys_files(void **state)
{
	unsigned char buf[100] = { 0 };
	struct pollfd pfd = { .events = POLLIN };
	struct stat st;
	int fd = off_sys_memfd_create("test_mem", 0);

	assert_true(fd >= 0);
	fill(buf, sizeof(buf), 1);
	assert_int_equal(off_sys_write(fd, buf, 50), 50);
	assert_int_equal(off_sys_pwrite(fd, buf + 50, 50, 50), 50);
	assert_int_equal(off_sys_fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 100);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(off_sys_pread(fd, buf, 100, 0), 100);
	assert_true(same(buf, 100, 1));
	assert_int_equal(off_sys_pread(fd, buf, 5, 95), 5);
	assert_int_equal(buf[0], (unsigned char)(1 + 95 * 7));
	assert_int_equal(off_sys_ftruncate(fd, 7), 0);
	assert_int_equal(off_sys_pread(fd, buf, 100, 0), 7);
	pfd.fd = fd;
	assert_int_equal(off_sys_poll(&pfd, 1, 0), 1);
	assert_int_equal(off_sys_fadvise(fd, 0, 0, 99), EINVAL);
	assert_int_equal(off_sys_close(fd), 0);
	assert_int_equal(off_sys_close(fd), -1);
	assert_int_equal(errno, EBADF);
}

static void test_sys_open(void **state)
{
	char path[] = "/tmp/test_mem.XXXXXX";
	struct stat st;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(off_sys_open(path, O_RDONLY), -1);
	assert_int_equal(errno, ENOENT);
	fd = off_sys_open(path, O_RDWR | O_CREAT | O_EXCL, 0640);
	assert_true(fd >= 0);
	assert_int_equal(off_sys_fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 0640, st.st_mode & 0777);
	assert_int_equal(off_sys_fcntl(fd, F_GETFD, 0), 0);
	assert_int_equal(off_sys_close(fd), 0);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_use_in_threads),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_break_stays),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_sys_mappings),
		cmocka_unit_test(test_sys_files),
		cmocka_unit_test(test_sys_open),
	};

	/* Settings of the program's allocator: were they read, the bundled
	 * one would say so on stderr and abort. */
	setenv("MALLOC_CONF", "abort_conf:true,nonsense:1", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
