/* SPDX-License-Identifier: MIT */
/* hints_cache.c - in mode hints the page cache keeps to the budget, too.
 *
 * Owns nothing; lock: none. (1) A file that was read whole before it is mapped is cached
 * whole: what the budget has no room for goes. (2) A use of a chunk's middle is seen:
 * the chunk is mapped whole.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions */
/* variants: plain hints */
#include "trap.h"

#define SIZE	(128 * MIB)
#define MOST	(80 * MIB)	/* the budget, what hints leaves to the kernel, and some more */
#define USED	(16 * MIB)
#define PART	(2 * MIB)
#define MIDDLE	(300 * PAGE)
#define PATIENCE 2000		/* times 10 ms */

static size_t cached(const struct trap *t, size_t at, size_t len)
{
	static unsigned char there[SIZE / PAGE];
	size_t n = 0;

	check(!mincore(t->map + at, len, there));
	for (size_t i = 0; i < len / PAGE; i++)
		n += there[i] & 1;
	return n * PAGE;
}

static void read_whole(const struct trap *t)
{
	static char buf[MIB];
	int fd = trap_open(t);

	for (size_t at = 0; at < SIZE; at += MIB)
		check(pread(fd, buf, MIB, (off_t)at) == MIB);
	close(fd);
}

/* Without cachestat (Linux 6.5), or where it does not tell of this file (overlayfs), the
 * library does not know either. */
static void is_told(const struct trap *t)
{
	struct { uint64_t off, len; } all = { 0, SIZE };
	struct { uint64_t cache, dirty, writeback, evicted, recently; } cs = { 0 };
	int fd = trap_open(t);

	if (syscall(451, fd, &all, &cs, 0) || cs.cache < SIZE / PAGE / 2)
		skip("the kernel does not tell what is cached of the file");
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	if (syscall(451, fd, &all, &cs, 0) || cs.cache > SIZE / PAGE / 2)
		skip("the file cannot be dropped from the cache");
	close(fd);
	read_whole(t);
}

static void nap(void)
{
	const struct timespec ms10 = { .tv_nsec = 10000000 };

	nanosleep(&ms10, NULL);
}

static void keeps_to_it(const struct trap *t)
{
	size_t n = SIZE;

	for (int i = 0; i < PATIENCE && n > MOST; i++) {
		for (size_t at = 0; at < USED; at += PART)
			verify(t, at, PAGE, "what is used");
		nap();
		n = cached(t, 0, SIZE);
	}
	if (n > MOST)
		fail("%zu MiB of the file are cached, with a budget of 32", n / MIB);
}

/* The page is in this process's table, not only cached. */
static bool mapped(const unsigned char *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	check(fd >= 0);
	check(pread(fd, &entry, 8, (off_t)((uintptr_t)p / PAGE * 8)) == 8);
	close(fd);
	return entry >> 63;
}

/* Where the file system caches 2 MiB as one, a fault maps them all: page by page. */
static void in_small_pages(const struct trap *t, off_t at)
{
	int fd = trap_open(t);
	char buf[PAGE];

	check(!posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM));
	check(!posix_fadvise(fd, at, PART, POSIX_FADV_DONTNEED));
	for (size_t i = 0; i < PART; i += PAGE)
		check(pread(fd, buf, PAGE, at + (off_t)i) == PAGE);
	close(fd);
}

static void is_seen(const struct trap *t)
{
	unsigned char *start = t->map + SIZE / 2;

	check(!madvise(start, PART, MADV_DONTNEED));
	in_small_pages(t, SIZE / 2);
	for (int i = 0; i < PATIENCE && !mapped(start); i++) {
		verify(t, SIZE / 2 + MIDDLE, PAGE, "the middle of a chunk");
		nap();
	}
	if (!mapped(start))
		fail("used in its middle, a chunk was not brought");
}

int main(void)
{
	struct trap t;

	trap_shared(&t, SIZE, 1);
	read_whole(&t);
	is_told(&t);
	trap_map(&t, PROT_READ, MAP_SHARED);
	if (trap_mode_is("hints")) {
		keeps_to_it(&t);
		is_seen(&t);
	}
	verify_all(&t, "at last");
	return trap_done(&t);
}
