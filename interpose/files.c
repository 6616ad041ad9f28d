/* SPDX-License-Identifier: MIT */
/* files.c - the read family: what comes from a file into the heap is noted.
 *
 * (1) A buffer that is in no memory of ours costs compares and a tail call of the
 *     next definition, which keeps cancellation and checks as they are.
 * (2) Results and errno are the real call's.
 * (3) Long reads of what is relied on are made in pieces; together they are one.
 * (4) Reads by DMA where held pages cannot be seen are made elsewhere, and copied.
 * Lock: none.
 */
#include "interpose/interpose.h"

#include <limits.h>
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

/* After a read; off -1: at the descriptor's own offset, where it has moved on. */
static ssize_t was_scattered(int fd, const struct iovec *iov, ssize_t got, off64_t off)
{
	int saved = errno;

	if (got > 0 && off < 0 && core_heap_size)
		off = lseek(fd, 0, SEEK_CUR) - got;
	for (size_t left = got > 0 ? (size_t)got : 0; left; iov++) {
		size_t len = iov->iov_len < left ? iov->iov_len : left;

		if (core_heap_has(iov->iov_base))
			core_read_done(fd, iov->iov_base, len, off);
		off += (off64_t)len;
		left -= len;
	}
	errno = saved;
	return got;
}

/* ---- reads by DMA: (4) -------------------------------------------------------------- */

#define LONG	(8ul << 20)
#define MOST	0x7ffff000ul	/* a call reads no more, read(2) */
#define SMALL	(64ul << 10)	/* too little to be looked at while nothing is paged */

/* The next byte to fill of a buffer in pieces. */
struct cursor { const struct iovec *iov; size_t at; };

static void scatter(struct cursor *to, const char *from, size_t len)
{
	while (len) {
		size_t room = to->iov->iov_len - to->at;
		size_t n = room < len ? room : len;

		memcpy((char *)to->iov->iov_base + to->at, from, n);
		from += n;
		len -= n;
		to->at += n;
		if (to->at == to->iov->iov_len)
			*to = (struct cursor){ to->iov + 1, 0 };
	}
}

static size_t bytes_of(const struct iovec *iov, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n && sum < MOST; i++)
		sum += iov[i].iov_len < MOST ? iov[i].iov_len : MOST;
	return sum < MOST ? sum : MOST;
}

static void *take_room(size_t bytes)
{
	void *p = (void *)syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void give_room(void *p, size_t bytes)
{
	int saved = errno;

	syscall(SYS_munmap, p, bytes);
	errno = saved;
}

/* By the call of old, where it serves: others may be forbidden. */
static ssize_t read_raw(int fd, void *p, size_t len, off64_t off, int flags)
{
	struct iovec iov = { p, len };

	if (flags)
		return syscall(SYS_preadv2, fd, &iov, 1, off, 0L, flags);
	return off < 0 ? syscall(SYS_read, fd, p, len) : syscall(SYS_pread64, fd, p, len, off);
}

/* By way of memory that stays; off -1: where the descriptor is. */
static ssize_t read_elsewhere(int fd, const struct iovec *iov, int n, off64_t off, int flags)
{
	size_t len = bytes_of(iov, n), most = len < LONG ? len : LONG, all = 0, want;
	char *p = take_room(most);
	struct cursor to = { iov, 0 };
	ssize_t got;

	if (!p)
		return -1;
	do {
		want = len - all < LONG ? len - all : LONG;
		got = read_raw(fd, p, want, off < 0 ? -1 : off + (off64_t)all, flags);
		if (got > 0) {
			scatter(&to, p, (size_t)got);
			all += (size_t)got;
		}
	} while (got == (ssize_t)want && all < len);
	give_room(p, most);
	return all ? (ssize_t)all : got;
}

/* How all of it is read, at once. The list is looked at only where it must be: it may be
 * an address that the kernel refuses. */
static enum core_read begin(int fd, const struct iovec *iov, int n)
{
	enum core_read how = CORE_READ_PLAIN;

	if (!core_direct_matters || (!core_heap_size && !core_paged()) ||
	    n > IOV_MAX || !core_read_direct(fd))
		return how;
	for (int i = 0; i < n && how != CORE_READ_ELSEWHERE; i++) {
		enum core_read one = core_read_begin(iov[i].iov_base, iov[i].iov_len);

		if (one == CORE_READ_PLAIN)
			continue;
		core_read_end(how);	/* one count is enough */
		how = one;
	}
	if (how == CORE_READ_COUNTED && bytes_of(iov, n) > LONG) {
		core_read_end(how);	/* too long to be waited for */
		how = CORE_READ_ELSEWHERE;
	}
	return how;
}

/* ---- into one place ------------------------------------------------------------------ */

/* Reads into it are of interest. */
ADDRESS_ONLY static bool heeded(const void *buf, size_t len)
{
	return core_heap_has(buf) ||
	       (__builtin_expect(core_direct_matters, 0) && core_overlaps(buf, len));
}

/* off -1: where the descriptor is. */
static ssize_t read_one(int fd, void *buf, size_t len, off64_t off)
{
	struct iovec iov = { buf, len };
	enum core_read how = len < SMALL && !core_paged() ? CORE_READ_PLAIN :
			     begin(fd, &iov, 1);
	ssize_t got;

	if (how == CORE_READ_ELSEWHERE)
		got = read_elsewhere(fd, &iov, 1, off, 0);
	else if (off < 0)
		got = NEXT(read)(fd, buf, len);
	else
		got = NEXT(pread64)(fd, buf, len, off);
	core_read_end(how);
	return was_scattered(fd, &iov, got, off);
}

static bool is_direct(int fd)
{
	return core_direct_matters && core_read_direct(fd);
}

/* (3) */
static bool is_relied_on(int fd, const void *buf, size_t len)
{
	return len > LONG && core_heap_has(buf) && core_read_long(fd);
}

static ssize_t read_heeded(int fd, char *buf, size_t len, off64_t off)
{
	size_t all = 0, n;
	ssize_t got;

	if (len <= LONG || (!is_direct(fd) && !is_relied_on(fd, buf, len)))
		return read_one(fd, buf, len, off);
	if (len > MOST)
		len = MOST;
	do {
		n = len - all < LONG ? len - all : LONG;
		got = read_one(fd, buf + all, n, off < 0 ? -1 : off + (off64_t)all);
		if (got > 0)
			all += (size_t)got;
	} while (got == (ssize_t)n && all < len);
	return all ? (ssize_t)all : got;
}

EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	if (!heeded(buf, len))
		return NEXT(read)(fd, buf, len);
	return read_heeded(fd, buf, len, -1);
}

EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
	if (len > room || !heeded(buf, len))
		return NEXT(__read_chk)(fd, buf, len, room);
	return read_heeded(fd, buf, len, -1);
}

EXPORT ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
	if (off < 0 || !heeded(buf, len))
		return NEXT(pread)(fd, buf, len, off);
	return read_heeded(fd, buf, len, off);
}

EXPORT ssize_t pread64(int fd, void *buf, size_t len, off64_t off)
{
	if (off < 0 || !heeded(buf, len))
		return NEXT(pread64)(fd, buf, len, off);
	return read_heeded(fd, buf, len, off);
}

EXPORT ssize_t __pread_chk(int fd, void *buf, size_t len, off_t off, size_t room)
{
	if (off < 0 || len > room || !heeded(buf, len))
		return NEXT(__pread_chk)(fd, buf, len, off, room);
	return read_heeded(fd, buf, len, off);
}

EXPORT ssize_t __pread64_chk(int fd, void *buf, size_t len, off64_t off, size_t room)
{
	if (off < 0 || len > room || !heeded(buf, len))
		return NEXT(__pread64_chk)(fd, buf, len, off, room);
	return read_heeded(fd, buf, len, off);
}

/* ---- into many ------------------------------------------------------------------------ */

/* The call, or its stand-in; off -1: where the descriptor is. */
#define SCATTERED(fd, iov, n, off, flags, call) ({ \
	enum core_read how_ = begin(fd, iov, n); \
	ssize_t got_ = how_ == CORE_READ_ELSEWHERE ? \
		read_elsewhere(fd, iov, n, off, flags) : call; \
	core_read_end(how_); \
	was_scattered(fd, iov, got_, off); })

EXPORT ssize_t readv(int fd, const struct iovec *iov, int n)
{
	return SCATTERED(fd, iov, n, -1, 0, NEXT(readv)(fd, iov, n));
}

EXPORT ssize_t preadv(int fd, const struct iovec *iov, int n, off_t off)
{
	if (off < 0)
		return NEXT(preadv)(fd, iov, n, off);
	return SCATTERED(fd, iov, n, off, 0, NEXT(preadv)(fd, iov, n, off));
}

EXPORT ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t off)
{
	if (off < 0)
		return NEXT(preadv64)(fd, iov, n, off);
	return SCATTERED(fd, iov, n, off, 0, NEXT(preadv64)(fd, iov, n, off));
}

EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	if (off < -1)
		return NEXT(preadv2)(fd, iov, n, off, flags);
	return SCATTERED(fd, iov, n, off, flags, NEXT(preadv2)(fd, iov, n, off, flags));
}

EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off64_t off, int flags)
{
	if (off < -1)
		return NEXT(preadv64v2)(fd, iov, n, off, flags);
	return SCATTERED(fd, iov, n, off, flags, NEXT(preadv64v2)(fd, iov, n, off, flags));
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

static size_t fread_elsewhere(char *buf, size_t len, FILE *f)
{
	char *p = take_room(len);
	size_t got;

	if (!p)		/* as a full disk: nothing was read */
		return 0;
	got = NEXT(fread)(p, 1, len, f);
	memcpy(buf, p, got);
	give_room(p, len);
	return got;
}

static size_t fread_one(char *buf, size_t len, FILE *f)
{
	struct iovec iov = { buf, len };
	off64_t at = place(f);
	enum core_read how = begin(fileno(f), &iov, 1);
	size_t got = how == CORE_READ_ELSEWHERE ? fread_elsewhere(buf, len, f) :
		     NEXT(fread)(buf, 1, len, f);

	core_read_end(how);
	if (got && core_heap_has(buf))
		core_read_done(fileno(f), buf, got, at);
	return got;
}

/* Nobody else's call comes in between: a stream's lock may be taken again. */
static size_t fread_pieces(FILE *f, char *buf, size_t len)
{
	size_t all = 0, n, got;

	flockfile(f);
	do {
		n = len - all < LONG ? len - all : LONG;
		got = fread_one(buf + all, n, f);
		all += got;
	} while (got == n && all < len);
	funlockfile(f);
	return all;
}

/* In pieces: it is long, or held pages could not be seen. */
static bool in_pieces(FILE *f, const void *buf, size_t size, size_t n, size_t room)
{
	size_t len;

	return !__builtin_mul_overflow(size, n, &len) && len <= room &&
	       (len >= SMALL || core_paged()) &&
	       (is_direct(fileno(f)) || is_relied_on(fileno(f), buf, len));
}

/* What all forms of fread do; next: the next definition's call. */
#define READ_STREAM(buf, size, n, f, room, next) ({ \
	size_t got_; \
	if (!heeded(buf, (size) * (n))) { \
		got_ = next; \
	} else if (in_pieces(f, buf, size, n, room)) { \
		got_ = fread_pieces(f, buf, (size) * (n)) / (size); \
	} else { \
		off64_t at_ = place(f); \
		got_ = next; \
		if (got_ && core_heap_has(buf)) \
			core_read_done(fileno(f), buf, got_ * (size), at_); \
	} \
	got_; })

EXPORT size_t fread(void *buf, size_t size, size_t n, FILE *f)
{
	return READ_STREAM(buf, size, n, f, SIZE_MAX, NEXT(fread)(buf, size, n, f));
}

EXPORT size_t fread_unlocked(void *buf, size_t size, size_t n, FILE *f)
{
	return READ_STREAM(buf, size, n, f, SIZE_MAX, NEXT(fread_unlocked)(buf, size, n, f));
}

EXPORT size_t __fread_chk(void *buf, size_t room, size_t size, size_t n, FILE *f)
{
	return READ_STREAM(buf, size, n, f, room, NEXT(__fread_chk)(buf, room, size, n, f));
}

EXPORT size_t __fread_unlocked_chk(void *buf, size_t room, size_t size, size_t n, FILE *f)
{
	return READ_STREAM(buf, size, n, f, room,
			   NEXT(__fread_unlocked_chk)(buf, room, size, n, f));
}
