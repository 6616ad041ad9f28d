/* SPDX-License-Identifier: MIT */
/* offctl_disk.c - O_DIRECT and the speed of a disk, for doctor and plan.
 *
 * Owns a temporary file without a name while it runs, and eight threads that
 * read it: 2 MiB each, O_DIRECT, which keeps the drive's queue as full as
 * the library would. More threads may spin meanwhile, as an engine's do: a
 * disk of a virtual machine is served by the same processors.
 * Lock: none; `next` and `read` are atomic.
 */
#include "offctl.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK	(2u << 20)
#define THREADS	DISK_DEPTH
#define SPINNERS_MAX 256
#define TEMP_BLOCKS 128			/* 256 MiB */
#define RUN_NS	500000000ull

struct speed {
	int fd;
	uint64_t blocks, end_ns;
	uint64_t next;			/* atomic: the block to read next */
	uint64_t read;			/* atomic: bytes */
	int err;			/* any thread's */
};

static void *read_blocks(void *arg)
{
	void *buf = aligned_alloc(BLOCK, BLOCK);
	struct speed *s = arg;
	uint64_t i;
	ssize_t n = buf ? 1 : -1;

	if (buf) {	/* one segment, as the library's frames, not 512 */
		madvise(buf, BLOCK, MADV_HUGEPAGE);
		memset(buf, 0, BLOCK);
	}
	while (n > 0 && clock_ns(CLOCK_MONOTONIC) < s->end_ns) {
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

static void *spin(void *arg)
{
	const struct speed *s = arg;

	while (clock_ns(CLOCK_MONOTONIC) < s->end_ns)
		;
	return NULL;
}

static int start(pthread_t *t, int n, void *(*run)(void *), struct speed *s)
{
	int i = 0;

	while (i < n && !pthread_create(&t[i], NULL, run, s))
		i++;
	return i;
}

static void wait_for(const pthread_t *t, int n)
{
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
}

/* GB/s (10^9) from block `first` on while so many threads spin; < 0: failed. */
static double measure(int fd, uint64_t bytes, uint64_t first, int spinners)
{
	uint64_t begin = clock_ns(CLOCK_MONOTONIC);
	struct speed s = { .fd = fd, .blocks = bytes / BLOCK, .next = first,
			   .end_ns = begin + RUN_NS };
	pthread_t reader[THREADS], spinner[SPINNERS_MAX];
	int n, n_spin;

	if (!s.blocks)
		return -1;
	n_spin = start(spinner, spinners, spin, &s);
	n = start(reader, THREADS, read_blocks, &s);
	wait_for(reader, n);
	begin = clock_ns(CLOCK_MONOTONIC) - begin;
	wait_for(spinner, n_spin);
	return !s.read || s.err ? -1 : (double)s.read / (double)begin;
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
		tell_speed(measure(fd, (uint64_t)st.st_size, 0, 0), file,
			   false);
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
		tell_speed(measure(fd, (uint64_t)TEMP_BLOCKS * BLOCK, 0, 0),
			   dir, true);
	close(fd);
}

void probe_disk(const char *dir, const char *file)
{
	if (file)
		probe_file(file);
	else
		probe_dir(dir);
}

static double larger(double a, double b)
{
	return a > b ? a : b;
}

/* Half a second each, twice, and the larger: others use the disk too. Each begins in
 * a quarter of the file of its own: a host may keep what it read. */
int disk_rates(const char *file, int cores, double *idle, double *busy)
{
	int fd = open(file, O_RDONLY | O_DIRECT | O_CLOEXEC), err = 0;
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		err = -errno;
	else if (st.st_size < BLOCK)
		err = -ENODATA;
	if (!err) {
		uint64_t size = (uint64_t)st.st_size;
		int spin = cores < SPINNERS_MAX ? cores : SPINNERS_MAX;

		*idle = *busy = -1;
		for (int i = 0; i < 2; i++) {
			uint64_t at = size / BLOCK / 4 * (uint64_t)i;

			*idle = larger(*idle, measure(fd, size, at, 0) * 1e9);
			*busy = larger(*busy, measure(fd, size, size / BLOCK / 2 + at, spin) * 1e9);
		}
		err = *idle < 0 || *busy < 0 ? -EIO : 0;
	}
	close(fd);
	return err;
}
