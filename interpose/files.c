/* SPDX-License-Identifier: MIT */
/* files.c - the read family: what comes from a file into the heap is noted.
 *
 * (1) A buffer that is not in the heap costs a compare and a tail call of the
 *     next definition, which keeps cancellation and checks as they are.
 * (2) Results and errno are the real call's.
 * (3) Long reads of what is relied on are made in pieces; together they are one.
 * Lock: none.
 */
#include "interpose/interpose.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The fortified forms have no prototypes anywhere. */
ssize_t __read_chk(int fd, void *buf, size_t len, size_t room);
ssize_t __pread_chk(int fd, void *buf, size_t len, off_t off, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t len, off64_t off, size_t room);
size_t __fread_chk(void *buf, size_t room, size_t size, size_t n, FILE *f);
size_t __fread_unlocked_chk(void *buf, size_t room, size_t size, size_t n, FILE *f);

#undef fread_unlocked	/* a macro, where it is optimised */

/* The next definition, looked up at the first call. */
#define NEXT(name) ({ \
	static __typeof__(&name) next; \
	if (__builtin_expect(!next, 0)) \
		next = (__typeof__(&name))real_symbol(#name); \
	next; })

/* After a read at the descriptor's own offset. */
static ssize_t was_read(int fd, const void *buf, ssize_t got)
{
	int saved = errno;

	if (got > 0)
		core_read_done(fd, buf, (size_t)got, lseek(fd, 0, SEEK_CUR) - got);
	errno = saved;
	return got;
}

static ssize_t was_read_at(int fd, const void *buf, ssize_t got, off64_t off)
{
	if (got > 0)
		core_read_done(fd, buf, (size_t)got, off);
	return got;
}

static ssize_t was_scattered(int fd, const struct iovec *iov, ssize_t got, off64_t off)
{
	for (size_t left = got > 0 ? (size_t)got : 0; left; iov++) {
		size_t len = iov->iov_len < left ? iov->iov_len : left;

		if (core_heap_has(iov->iov_base))
			core_read_done(fd, iov->iov_base, len, off);
		off += (off64_t)len;
		left -= len;
	}
	return got;
}

/* By way of memory that stays; off below 0: where the descriptor is. */
static ssize_t read_elsewhere(int fd, void *buf, size_t len, off64_t off)
{
	char *p = (char *)syscall(SYS_mmap, NULL, len, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ssize_t got;
	int err;

	if (p == MAP_FAILED)
		return -1;
	got = off < 0 ? syscall(SYS_read, fd, p, len) :
		syscall(SYS_pread64, fd, p, len, off);
	err = errno;
	if (got > 0)
		memcpy(buf, p, (size_t)got);
	syscall(SYS_munmap, p, len);
	errno = err;
	return got;
}

/* ---- long reads: (3) -------------------------------------------------------------- */

#define LONG	(8ul << 20)
#define MOST	0x7ffff000ul	/* a call reads no more, read(2) */

static bool is_long(int fd, size_t len)
{
	return __builtin_expect(len > LONG, 0) && core_read_long(fd);
}

/* off below 0: where the descriptor is. */
static ssize_t read_pieces(int fd, char *buf, size_t len, off64_t off)
{
	size_t all = 0;
	ssize_t got = 0;

	if (len > MOST)
		len = MOST;
	while (all < len) {
		size_t n = len - all < LONG ? len - all : LONG;

		if (off < 0)
			got = was_read(fd, buf + all, NEXT(read)(fd, buf + all, n));
		else
			got = was_read_at(fd, buf + all,
					  NEXT(pread64)(fd, buf + all, n, off + (off64_t)all),
					  off + (off64_t)all);
		if (got <= 0)
			break;
		all += (size_t)got;
	}
	return all ? (ssize_t)all : got;
}

EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	if (!core_heap_has(buf))
		return NEXT(read)(fd, buf, len);
	if (core_read_unsafe(fd))
		return was_read(fd, buf, read_elsewhere(fd, buf, len, -1));
	if (is_long(fd, len))
		return read_pieces(fd, buf, len, -1);
	return was_read(fd, buf, NEXT(read)(fd, buf, len));
}

EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
	if (!core_heap_has(buf))
		return NEXT(__read_chk)(fd, buf, len, room);
	if (len <= room && is_long(fd, len))
		return read_pieces(fd, buf, len, -1);
	return was_read(fd, buf, NEXT(__read_chk)(fd, buf, len, room));
}

EXPORT ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
	if (!core_heap_has(buf))
		return NEXT(pread)(fd, buf, len, off);
	if (core_read_unsafe(fd))
		return was_read_at(fd, buf, read_elsewhere(fd, buf, len, off), off);
	if (off >= 0 && is_long(fd, len))
		return read_pieces(fd, buf, len, off);
	return was_read_at(fd, buf, NEXT(pread)(fd, buf, len, off), off);
}

EXPORT ssize_t pread64(int fd, void *buf, size_t len, off64_t off)
{
	if (!core_heap_has(buf))
		return NEXT(pread64)(fd, buf, len, off);
	if (core_read_unsafe(fd))
		return was_read_at(fd, buf, read_elsewhere(fd, buf, len, off), off);
	if (off >= 0 && is_long(fd, len))
		return read_pieces(fd, buf, len, off);
	return was_read_at(fd, buf, NEXT(pread64)(fd, buf, len, off), off);
}

EXPORT ssize_t __pread_chk(int fd, void *buf, size_t len, off_t off, size_t room)
{
	if (off >= 0 && len <= room && core_heap_has(buf) && is_long(fd, len))
		return read_pieces(fd, buf, len, off);
	return was_read_at(fd, buf, NEXT(__pread_chk)(fd, buf, len, off, room),
			   core_heap_has(buf) ? off : -1);
}

EXPORT ssize_t __pread64_chk(int fd, void *buf, size_t len, off64_t off, size_t room)
{
	if (off >= 0 && len <= room && core_heap_has(buf) && is_long(fd, len))
		return read_pieces(fd, buf, len, off);
	return was_read_at(fd, buf, NEXT(__pread64_chk)(fd, buf, len, off, room),
			   core_heap_has(buf) ? off : -1);
}

EXPORT ssize_t readv(int fd, const struct iovec *iov, int n)
{
	ssize_t got = NEXT(readv)(fd, iov, n);
	int saved = errno;

	if (core_heap_size && got > 0)
		was_scattered(fd, iov, got, lseek(fd, 0, SEEK_CUR) - got);
	errno = saved;
	return got;
}

EXPORT ssize_t preadv(int fd, const struct iovec *iov, int n, off_t off)
{
	return was_scattered(fd, iov, NEXT(preadv)(fd, iov, n, off), off);
}

EXPORT ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t off)
{
	return was_scattered(fd, iov, NEXT(preadv64)(fd, iov, n, off), off);
}

/* ---- stdio: its own reads are invisible ---------------------------------------- */

/* Where in its file the stream is, or -1. */
static off64_t place(FILE *f)
{
	int saved = errno;
	off64_t at = ftello64(f);

	errno = saved;
	return at;
}

static size_t was_fread(FILE *f, const void *buf, size_t got, size_t size, off64_t at)
{
	if (got)
		core_read_done(fileno(f), buf, got * size, at);
	return got;
}

/* Nobody else's call comes in between: a stream's lock may be taken again. */
static size_t fread_pieces(FILE *f, char *buf, size_t len)
{
	size_t all = 0, n, got;

	flockfile(f);
	do {
		off64_t at = place(f);

		n = len - all < LONG ? len - all : LONG;
		got = was_fread(f, buf + all, NEXT(fread)(buf + all, 1, n, f), 1, at);
		all += got;
	} while (got == n && all < len);
	funlockfile(f);
	return all;
}

static bool is_long_fread(FILE *f, size_t size, size_t n, size_t room)
{
	size_t len;

	return !__builtin_mul_overflow(size, n, &len) && len <= room && is_long(fileno(f), len);
}

EXPORT size_t fread(void *buf, size_t size, size_t n, FILE *f)
{
	off64_t at;

	if (!core_heap_has(buf))
		return NEXT(fread)(buf, size, n, f);
	if (is_long_fread(f, size, n, SIZE_MAX))
		return fread_pieces(f, buf, size * n) / size;
	at = place(f);
	return was_fread(f, buf, NEXT(fread)(buf, size, n, f), size, at);
}

EXPORT size_t fread_unlocked(void *buf, size_t size, size_t n, FILE *f)
{
	off64_t at;

	if (!core_heap_has(buf))
		return NEXT(fread_unlocked)(buf, size, n, f);
	if (is_long_fread(f, size, n, SIZE_MAX))
		return fread_pieces(f, buf, size * n) / size;
	at = place(f);
	return was_fread(f, buf, NEXT(fread_unlocked)(buf, size, n, f), size, at);
}

EXPORT size_t __fread_chk(void *buf, size_t room, size_t size, size_t n, FILE *f)
{
	off64_t at;

	if (!core_heap_has(buf))
		return NEXT(__fread_chk)(buf, room, size, n, f);
	if (is_long_fread(f, size, n, room))
		return fread_pieces(f, buf, size * n) / size;
	at = place(f);
	return was_fread(f, buf, NEXT(__fread_chk)(buf, room, size, n, f), size, at);
}

EXPORT size_t __fread_unlocked_chk(void *buf, size_t room, size_t size, size_t n, FILE *f)
{
	off64_t at;

	if (!core_heap_has(buf))
		return NEXT(__fread_unlocked_chk)(buf, room, size, n, f);
	if (is_long_fread(f, size, n, room))
		return fread_pieces(f, buf, size * n) / size;
	at = place(f);
	return was_fread(f, buf, NEXT(__fread_unlocked_chk)(buf, room, size, n, f), size, at);
}
