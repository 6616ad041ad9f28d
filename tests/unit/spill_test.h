/* SPDX-License-Identifier: MIT */
/* spill_test.h - what the tests of the spill file share.
 *
 * Owns a scratch folder on a disk, the messages that were said, a clock that
 * stands still, and what file systems claim to be. (1) Every case runs in a
 * process of its own: it begins with a store that was never opened, and
 * what it mounts is gone with it. Lock: none.
 */
#ifndef OFFLOAD_SPILL_TEST_H
#define OFFLOAD_SPILL_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/spill_int.h"

#define SKIPPED 77

/* For the case's processes, which cmocka does not know. */
#define CHECK(x) \
	do { \
		if (!(x)) { \
			fprintf(stderr, "%s:%d: not (%s); said: %s\n", \
				__FILE__, __LINE__, #x, said); \
			_exit(1); \
		} \
	} while (0)

static char said[2048];
static int messages;
static uint64_t clock_ns = 5000000000ull;
static char dir[64];

/* 0: the truth. */
static uint32_t fake_type, fake_then;
static int fake_for;			/* calls, then the other; below 0: all */
static uint64_t fake_blocks, fake_avail;	/* of 4096 */
static int asked_room;

void off_log(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(said, sizeof(said), fmt, ap);
	va_end(ap);
	messages++;
}

void off_verbose(int level, const char *fmt, ...)
{
}

_Noreturn void off_fatal(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	_exit(3);
}

uint64_t now_ns(void)
{
	return clock_ns;
}

int fstatfs(int fd, struct statfs *fs)
{
	int err = (int)syscall(SYS_fstatfs, (long)fd, fs);

	asked_room++;
	if (err)
		return err;
	if (fake_type) {
		fs->f_type = (__typeof__(fs->f_type))(fake_for ? fake_type : fake_then);
		fake_for -= fake_for > 0;
	}
	if (fake_blocks) {
		fs->f_bsize = fs->f_frsize = 4096;
		fs->f_blocks = fake_blocks;
		fs->f_bavail = fs->f_bfree = fake_avail;
	}
	return 0;
}

static inline bool heard(const char *what)
{
	return strstr(said, what) != NULL;
}

static inline int make_dir(void **state)
{
	strcpy(dir, "/var/tmp/offload-test-XXXXXX");
	if (mkdtemp(dir))
		return 0;
	strcpy(dir, "/tmp/offload-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static inline int remove_dir(void **state)
{
	return rmdir(dir);	/* fails if a file was left in it */
}

/* Runs fn in a process of its own, spilling to the scratch folder. */
static inline void isolated(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		off_opt = off_opt_default;
		off_opt.spill = dir;
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
		skip();
	assert_int_equal(status, 0);
}

static inline uint64_t must_alloc(uint32_t bytes)
{
	uint64_t ref = SPILL_NONE;
	int err = spill_alloc(bytes, &ref);

	if (err)
		fprintf(stderr, "spill_alloc: %s\n", strerror(-err));
	CHECK(!err && ref != SPILL_NONE);
	return ref;
}

static inline int buffered_of(uint64_t ref)
{
	int direct, buffered;

	CHECK(spill_fds(ref, &direct, &buffered) == 0);
	return buffered;
}

static inline int direct_of(uint64_t ref)
{
	int direct, buffered;

	CHECK(spill_fds(ref, &direct, &buffered) == 0);
	return direct;
}

static inline void fill(unsigned char *p, uint32_t n, uint64_t seed)
{
	for (uint32_t i = 0; i < n; i += 8) {
		uint64_t v = (seed + i) * 0x9e3779b97f4a7c15ull;

		memcpy(p + i, &v, 8);
	}
}

static unsigned char there[2u << 20] __attribute__((aligned(4096)));
static unsigned char wanted[2u << 20] __attribute__((aligned(4096)));

/* Through the direct descriptor where there is one. */
static inline void store(uint64_t ref, uint32_t bytes, uint64_t seed)
{
	int fd = direct_of(ref) >= 0 ? direct_of(ref) : buffered_of(ref);

	fill(there, bytes, seed);
	CHECK(pwrite(fd, there, bytes, (off_t)spill_offset(ref)) == (ssize_t)bytes);
}

static inline bool reads(int fd, uint64_t ref, uint32_t bytes)
{
	memset(there, 0, bytes);
	CHECK(pread(fd, there, bytes, (off_t)spill_offset(ref)) == (ssize_t)bytes);
	return !memcmp(there, wanted, bytes);
}

/* Both descriptors read what was stored. */
static inline bool holds(uint64_t ref, uint32_t bytes, uint64_t seed)
{
	fill(wanted, bytes, seed);
	return reads(buffered_of(ref), ref, bytes) &&
	       (direct_of(ref) < 0 || reads(direct_of(ref), ref, bytes));
}

static inline uint64_t file_size(uint64_t ref)
{
	struct stat st;

	CHECK(!fstat(buffered_of(ref), &st));
	return (uint64_t)st.st_size;
}

static inline uint64_t disk_bytes(uint64_t ref)
{
	struct stat st;

	CHECK(!fstat(buffered_of(ref), &st));
	return (uint64_t)st.st_blocks * 512;
}

static inline uint32_t random_below(uint32_t n)
{
	static uint64_t x = 88172645463325252ull;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x >> 32) % n;
}

#endif
