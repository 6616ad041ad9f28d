/* SPDX-License-Identifier: MIT */
/* offctl_disk.c - O_DIRECT and the speed of a disk, for doctor.
 *
 * Owns a temporary file without a name while it runs, and eight threads that
 * read it: 2 MiB each, O_DIRECT, which keeps the drive's queue as full as
 * the library would.
 * Lock: none; `next` and `read` are atomic.
 */
#include "offctl.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK	(2u << 20)
#define THREADS	8
#define TEMP_BLOCKS 128			/* 256 MiB */
#define RUN_NS	500000000ull

struct speed {
	int fd;
	uint64_t blocks, end_ns;
	uint64_t next;			/* atomic: the block to read next */
	uint64_t read;			/* atomic: bytes */
	int err;			/* any thread's */
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *read_blocks(void *arg)
{
	void *buf = aligned_alloc(BLOCK, BLOCK);
	struct speed *s = arg;
	uint64_t i;
	ssize_t n = buf ? 1 : -1;

	while (n > 0 && now_ns() < s->end_ns) {
		i = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED);
		n = pread(s->fd, buf, BLOCK, (off_t)(i % s->blocks * BLOCK));
		if (n > 0)
			__atomic_fetch_add(&s->read, (uint64_t)n, __ATOMIC_RELAXED);
	}
	if (n < 0)
		__atomic_store_n(&s->err, errno, __ATOMIC_RELAXED);
	free(buf);
	return NULL;
}

/* GB/s (10^9), or below 0. */
static double measure(int fd, uint64_t bytes)
{
	uint64_t begin = now_ns();
	struct speed s = { .fd = fd, .blocks = bytes / BLOCK,
			   .end_ns = begin + RUN_NS };
	pthread_t t[THREADS];
	int n = 0;

	while (s.blocks && n < THREADS &&
	       !pthread_create(&t[n], NULL, read_blocks, &s))
		n++;
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	if (!s.read || s.err)
		return -1;
	return (double)s.read / (double)(now_ns() - begin);
}

/* ---- the temporary file -------------------------------------------------- */

static int open_temp(const char *dir, int flags)
{
	char name[4096];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd;
	snprintf(name, sizeof(name), "%s/.offctl-XXXXXX", dir);
	fd = mkostemp(name, O_CLOEXEC | flags);
	if (fd >= 0)
		unlink(name);
	return fd;
}

/* Not zeros: some drives and file systems store those for free. */
static int fill(int fd)
{
	uint64_t *buf = aligned_alloc(BLOCK, BLOCK), x = 88172645463325252ull;
	int err = buf ? 0 : -ENOMEM;

	for (uint64_t b = 0; b < TEMP_BLOCKS && !err; b++) {
		for (size_t i = 0; i < BLOCK / 8; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			buf[i] = x;
		}
		if (pwrite(fd, buf, BLOCK, (off_t)(b * BLOCK)) != BLOCK)
			err = -errno;
	}
	free(buf);
	return err ? err : fdatasync(fd) ? -errno : 0;
}

/* ---- findings ------------------------------------------------------------ */

static void tell_speed(double gbs, const char *of, bool fresh)
{
	if (gbs < 0)
		tell(FOUND_LESS, "disk", NULL, NULL, "could not be measured");
	else
		tell(FOUND_INFO, "disk", fresh ? "a virtual disk may answer a file "
		     "just written from its host's memory" : NULL,
		     fresh ? "for a model's own disk: offctl doctor --file MODEL" :
		     NULL, "reads %.2f GB/s (%s, O_DIRECT, 2 MiB, 8 at a time)",
		     gbs, of);
}

static void tell_direct(const char *path, int err)
{
	if (!err)
		tell(FOUND_OK, "O_DIRECT", NULL, NULL, "works on %s", path);
	else
		tell(FOUND_LESS, "O_DIRECT", "reads go through the page cache and "
		     "take memory from the program", "put models on ext4, xfs or "
		     "btrfs", "%s: %s", path, strerror(err));
}

static void probe_file(const char *file)
{
	int fd = open(file, O_RDONLY | O_DIRECT | O_CLOEXEC);
	struct stat st;

	tell_direct(file, fd < 0 ? errno : 0);
	if (fd < 0)
		return;
	if (fstat(fd, &st) || st.st_size < BLOCK)
		tell(FOUND_LESS, "disk", NULL, NULL, "%s is too short to measure "
		     "with", file);
	else
		tell_speed(measure(fd, (uint64_t)st.st_size), file, false);
	close(fd);
}

static void probe_dir(const char *dir)
{
	int fd = open_temp(dir, O_DIRECT), err = fd < 0 ? errno : 0;

	tell_direct(dir, err);
	if (err)
		return;
	err = fill(fd);
	if (err)
		tell(FOUND_LESS, "disk", NULL, "free some space, or give --file",
		     "a temporary file of 256 MiB could not be written in %s: %s",
		     dir, strerror(-err));
	else
		tell_speed(measure(fd, (uint64_t)TEMP_BLOCKS * BLOCK), dir, true);
	close(fd);
}

void probe_disk(const char *dir, const char *file)
{
	if (file)
		probe_file(file);
	else
		probe_dir(dir);
}
