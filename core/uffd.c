/* SPDX-License-Identifier: MIT */
/* uffd.c - userfaultfd: opening, probing, the ioctls, the events.
 *
 * Owns the userfaultfd of the process, and in mode copy a second one: who
 * moves a mapping of that waits for the pager, who moves one of the other, the
 * pager itself (exchange.c), does not. Their descriptors live in the library's
 * table only (R4): closing them would turn missing pages to zeros.
 *
 * Full mode is needed: in user-mode-only a system call on an evicted buffer
 * fails with EFAULT, and the program would see that; `hints` serves there.
 * MOVE may say EEXIST of a page that it has itself just moved, where the program
 * was writing to it for the first time (the zero page became one of its own; seen
 * on Linux 6.18, once in 70 moves that met such a write). Taken at its word, that
 * page would be missing, and zeros be shown in its place.
 * Lock: none; the ioctls are safe from any library thread, events are read
 * by the pager only.
 */
#include "core/core_int.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than Debian 12's headers. */
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
struct uffdio_move { __u64 dst, src, len, mode; __s64 move; };
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#define UFFDIO_MOVE_MODE_DONTWAKE ((__u64)1 << 0)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES ((__u64)1 << 1)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

static int the_fd = -1;
static int moving_fd = -1;	/* tells of mremap; in mode move the same */

int uffd_fds(int fd[2])
{
	fd[0] = the_fd;
	fd[1] = moving_fd;
	return moving_fd == the_fd ? 1 : 2;
}

static int fresh(void)
{
	int dev, fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		return fd;
	dev = off_sys_open("/dev/userfaultfd", O_RDWR | O_CLOEXEC, 0);
	if (dev < 0)
		return -1;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	off_sys_close(dev);
	return fd;
}

/* Opens with these features or returns -1. */
static int open_with(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = fresh();

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		off_sys_close(fd);
		fd = -1;
	}
	return fd;
}

static int register_with(int fd, void *p, size_t len, bool missing, bool wp)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)p, len },
		.mode = (missing ? UFFDIO_REGISTER_MODE_MISSING : 0) |
			(wp ? UFFDIO_REGISTER_MODE_WP : 0),
	};

	return ioctl(fd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

int uffd_register(void *p, size_t len, bool missing, bool wp)
{
	return register_with(the_fd, p, len, missing, wp);
}

void uffd_unregister(void *p, size_t len)
{
	struct uffdio_range range = { (uintptr_t)p, len };

	(void)!ioctl(the_fd, UFFDIO_UNREGISTER, &range);
}

int uffd_register_moving(void *p, size_t len, bool missing, bool wp)
{
	return register_with(moving_fd, p, len, missing, wp);
}

/* The kernel woke who waits at the one descriptor only. */
static void wake_others(uintptr_t p, size_t len)
{
	struct uffdio_range range = { p, len };

	if (len && moving_fd != the_fd)
		(void)!ioctl(moving_fd, UFFDIO_WAKE, &range);
}

/* True also where the kernel will not say. */
static bool there(uintptr_t page)
{
	unsigned char in = 1;

	return off_sys_mincore((void *)page, PAGE, &in) || in & 1;
}

int uffd_move(uintptr_t dst, uintptr_t src, size_t len, bool wake, size_t *done)
{
	struct uffdio_move mv = { .dst = dst, .src = src, .len = len,
		.mode = UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES |
			(wake ? 0 : UFFDIO_MOVE_MODE_DONTWAKE) };
	int err = ioctl(the_fd, UFFDIO_MOVE, &mv) ? -errno : 0;

	*done = mv.move > 0 ? (size_t)mv.move : 0;
	if (err != -EEXIST || there(src + *done) || !there(dst + *done))
		return err;
	if (wake)
		uffd_wake(dst + *done, PAGE);
	*done += PAGE;
	return *done < len ? -EAGAIN : 0;
}

int uffd_copy(uintptr_t dst, uintptr_t src, size_t len, bool wp, size_t *done)
{
	struct uffdio_copy cp = { .dst = dst, .src = src, .len = len,
		.mode = wp ? UFFDIO_COPY_MODE_WP : 0 };
	int err = ioctl(the_fd, UFFDIO_COPY, &cp) ? -errno : 0;

	*done = cp.copy > 0 ? (size_t)cp.copy : 0;
	wake_others(dst, *done);
	return err;
}

int uffd_zero(uintptr_t p, size_t len, size_t *done)
{
	struct uffdio_zeropage z = { .range = { p, len } };
	int err = ioctl(the_fd, UFFDIO_ZEROPAGE, &z) ? -errno : 0;

	*done = z.zeropage > 0 ? (size_t)z.zeropage : 0;
	wake_others(p, *done);
	return err;
}

int uffd_protect(uintptr_t p, size_t len, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { p, len },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	int again = 0;

	while (ioctl(the_fd, UFFDIO_WRITEPROTECT, &wp))
		if (errno != EAGAIN || !pager_again(&again))
			return -errno;
	if (!on)
		wake_others(p, len);
	return 0;
}

void uffd_wake(uintptr_t p, size_t len)
{
	struct uffdio_range range = { p, len };

	/* Fails only where the range is gone, and nobody waits there. */
	(void)!ioctl(the_fd, UFFDIO_WAKE, &range);
	wake_others(p, len);
}

bool uffd_try(bool (*there_and_back)(uintptr_t a, uintptr_t b))
{
	size_t len = 4 * CHUNK;
	char *p = reserve_range(len);
	uintptr_t a = chunk_down((uintptr_t)p + CHUNK - 1);
	bool ok = p && there_and_back(a, a + CHUNK);

	if (p)
		off_sys_munmap(p, len);
	return ok;
}

static bool try_move(uintptr_t a, uintptr_t b)
{
	size_t done;

	if (uffd_register((void *)a, CHUNK, false, true) ||
	    uffd_register((void *)b, CHUNK, true, false))
		return false;
	*(volatile char *)a = 7;
	return !uffd_move(b, a, PAGE, false, &done) && *(volatile char *)b == 7 &&
		!uffd_move(a, b, PAGE, false, &done) && *(volatile char *)a == 7;
}

#define FEATURES (UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_PAGEFAULT_FLAG_WP)

enum mode uffd_open(enum mode want)
{
	if (want == MODE_MOVE) {
		/* No EVENT_UNMAP: the probe's munmap would wait for a reader. */
		the_fd = moving_fd = open_with(FEATURES | UFFD_FEATURE_EVENT_REMAP |
					       UFFD_FEATURE_MOVE);
		if (the_fd >= 0 && uffd_try(try_move))
			return MODE_MOVE;
		if (the_fd >= 0)
			off_sys_close(the_fd);
	}
	the_fd = open_with(FEATURES);
	moving_fd = open_with(FEATURES | UFFD_FEATURE_EVENT_REMAP);
	return the_fd >= 0 && moving_fd >= 0 ? MODE_COPY : MODE_HINTS;
}

static struct uffd_event decode(const struct uffd_msg *m)
{
	struct uffd_event e = { .what = UFFD_OTHER };

	if (m->event != UFFD_EVENT_PAGEFAULT)
		return e;	/* EVENT_REMAP: read, so that its mremap goes on */
	e.what = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP ?
		UFFD_WRITE : UFFD_MISSING;
	e.addr = m->arg.pagefault.address;
	e.tid = m->arg.pagefault.feat.ptid;
	return e;
}

static int read_from(int fd, struct uffd_event *out, int max)
{
	struct uffd_msg msg[32];
	ssize_t n = off_sys_read(fd, msg, sizeof(msg[0]) * (size_t)max);

	if (n <= 0)
		return 0;
	for (int i = 0; i < (int)(n / (ssize_t)sizeof(msg[0])); i++)
		out[i] = decode(&msg[i]);
	return (int)(n / (ssize_t)sizeof(msg[0]));
}

int uffd_read(struct uffd_event *out, int max)
{
	int n;

	if (max > 32)
		max = 32;
	n = read_from(the_fd, out, max);
	if (moving_fd != the_fd && n < max)
		n += read_from(moving_fd, out + n, max - n);
	return n;
}
