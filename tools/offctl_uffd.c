/* SPDX-License-Identifier: MIT */
/* offctl_uffd.c - finds out what userfaultfd does here, by doing it.
 *
 * Owns nothing after each probe. A feature bit is a promise; a moved page
 * that reads right is a fact, so MOVE is tried with 2 MiB.
 */
#include "offctl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNK (2u << 20)

/* Debian 12's headers are older than UFFDIO_MOVE (Linux 6.8). */
#ifndef UFFDIO_MOVE
#define UFFD_FEATURE_MOVE (1ull << 16)
struct uffdio_move {
	uint64_t dst, src, len, mode;
	int64_t move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static int open_device(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = dev < 0 ? -1 : ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);

	if (dev >= 0)
		close(dev);
	return fd;
}

static int open_uffd(struct uffd_found *out)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0) {
		out->err = errno;
		fd = open_device();
		out->by_device = fd >= 0;
	}
	if (fd >= 0) {
		out->mode = UFFD_FULL;
		return fd;
	}
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	out->mode = fd >= 0 ? UFFD_USER_ONLY : UFFD_REFUSED;
	return fd;
}

/* UFFDIO_API may be asked once per descriptor: the first one is told nothing
 * but what exists. */
static uint64_t ask_features(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffd_found ignored = { 0 };
	int fd = open_uffd(&ignored);

	if (fd < 0)
		return 0;
	if (ioctl(fd, UFFDIO_API, &api))
		api.features = 0;
	close(fd);
	return api.features;
}

static char *map_chunks(void)
{
	char *p = mmap(NULL, 3 * CHUNK, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static char *align(char *p)
{
	return (char *)(((uintptr_t)p + CHUNK - 1) & ~(uintptr_t)(CHUNK - 1));
}

static bool all_bytes(const char *p, char c)
{
	return p[0] == c && !memcmp(p, p + 1, CHUNK - 1);
}

static bool move_works(int fd, char *dst, char *src)
{
	struct uffdio_register reg = { .range = { (uintptr_t)dst, CHUNK },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_move mv = { .dst = (uintptr_t)dst,
				  .src = (uintptr_t)src, .len = CHUNK };

	madvise(src, CHUNK, MADV_HUGEPAGE);
	memset(src, 0x5a, CHUNK);
	if (ioctl(fd, UFFDIO_REGISTER, &reg) || ioctl(fd, UFFDIO_MOVE, &mv))
		return false;
	return mv.move == CHUNK && all_bytes(dst, 0x5a);
}

static bool try_move(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_MOVE };
	char *a = map_chunks(), *b = map_chunks();
	struct uffd_found ignored = { 0 };
	bool works = false;
	int fd = -1;

	if (a && b && features & UFFD_FEATURE_MOVE)
		fd = open_uffd(&ignored);
	if (fd >= 0 && !ioctl(fd, UFFDIO_API, &api))
		works = move_works(fd, align(a), align(b));
	if (fd >= 0)
		close(fd);
	if (a)
		munmap(a, 3 * CHUNK);
	if (b)
		munmap(b, 3 * CHUNK);
	return works;
}

void probe_uffd(struct uffd_found *out)
{
	int fd;

	memset(out, 0, sizeof(*out));
	fd = open_uffd(out);
	if (fd < 0)
		return;
	close(fd);
	out->features = ask_features();
	out->move = try_move(out->features);
	out->write_protect = out->features & UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	out->remap_event = out->features & UFFD_FEATURE_EVENT_REMAP;
}
