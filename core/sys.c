/* SPDX-License-Identifier: MIT */
/* sys.c - system calls made raw. Owns nothing, holds no lock, keeps no state.
 *
 * (1) Nothing here may call a libc function that the library interposes or
 *     that can take a lock: only syscall(2)'s own wrapper, which does neither.
 * (2) 64-bit kernels only: offsets travel in one register.
 */
#include "core/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8 && sizeof(off_t) == 8, "rule 2");

/* ---- mappings -------------------------------------------------------------- */

void *off_sys_mmap(void *addr, size_t len, int prot, int flags, int fd,
		   off_t off)
{
	return (void *)syscall(SYS_mmap, addr, len, (long)prot, (long)flags,
			       (long)fd, off);
}

int off_sys_munmap(void *addr, size_t len)
{
	return (int)syscall(SYS_munmap, addr, len);
}

/* The fifth argument is there only with these flags, as in mremap(2). */
void *off_sys_mremap(void *old, size_t old_len, size_t len, int flags, ...)
{
	void *to = NULL;
	va_list ap;

	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
		va_start(ap, flags);
		to = va_arg(ap, void *);
		va_end(ap);
	}
	return (void *)syscall(SYS_mremap, old, old_len, len, (long)flags, to);
}

int off_sys_mprotect(void *addr, size_t len, int prot)
{
	return (int)syscall(SYS_mprotect, addr, len, (long)prot);
}

int off_sys_madvise(void *addr, size_t len, int advice)
{
	return (int)syscall(SYS_madvise, addr, len, (long)advice);
}

int off_sys_mlock(const void *addr, size_t len)
{
	return (int)syscall(SYS_mlock, addr, len);
}

int off_sys_munlock(const void *addr, size_t len)
{
	return (int)syscall(SYS_munlock, addr, len);
}

int off_sys_mincore(void *addr, size_t len, unsigned char *vec)
{
	return (int)syscall(SYS_mincore, addr, len, vec);
}

/* ---- descriptors ----------------------------------------------------------- */

static int wants_mode(int flags)
{
	return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

int off_sys_open(const char *path, int flags, ...)
{
	unsigned int mode = 0;
	va_list ap;

	if (wants_mode(flags)) {
		va_start(ap, flags);
		mode = va_arg(ap, unsigned int);
		va_end(ap);
	}
	return off_sys_openat(AT_FDCWD, path, flags, mode);
}

int off_sys_openat(int dir, const char *path, int flags, ...)
{
	unsigned int mode = 0;
	va_list ap;

	if (wants_mode(flags)) {
		va_start(ap, flags);
		mode = va_arg(ap, unsigned int);
		va_end(ap);
	}
	return (int)syscall(SYS_openat, (long)dir, path, (long)flags,
			    (long)mode);
}

int off_sys_creat(const char *path, mode_t mode)
{
	return off_sys_open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int off_sys_close(int fd)
{
	return (int)syscall(SYS_close, (long)fd);
}

int off_sys_close_range(unsigned int first, unsigned int last, int flags)
{
	return (int)syscall(SYS_close_range, (long)first, (long)last,
			    (long)flags);
}

int off_sys_fcntl(int fd, int cmd, long arg)
{
	return (int)syscall(SYS_fcntl, (long)fd, (long)cmd, arg);
}

int off_sys_ioctl(int fd, unsigned long req, ...)
{
	void *arg;
	va_list ap;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	return (int)syscall(SYS_ioctl, (long)fd, req, arg);
}

int off_sys_flock(int fd, int op)
{
	return (int)syscall(SYS_flock, (long)fd, (long)op);
}

int off_sys_memfd_create(const char *name, unsigned int flags)
{
	return (int)syscall(SYS_memfd_create, name, (long)flags);
}

/* ppoll, as arm64 has no poll; a NULL timeout waits for ever. */
int off_sys_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	struct timespec ts = {
		.tv_sec = timeout_ms / 1000,
		.tv_nsec = timeout_ms % 1000 * 1000000L,
	};

	return (int)syscall(SYS_ppoll, fds, n, timeout_ms < 0 ? NULL : &ts,
			    NULL, 0L);
}

/* ---- file contents --------------------------------------------------------- */

ssize_t off_sys_read(int fd, void *buf, size_t n)
{
	return syscall(SYS_read, (long)fd, buf, n);
}

ssize_t off_sys_pread(int fd, void *buf, size_t n, off_t off)
{
	return syscall(SYS_pread64, (long)fd, buf, n, off);
}

ssize_t off_sys_write(int fd, const void *buf, size_t n)
{
	return syscall(SYS_write, (long)fd, buf, n);
}

ssize_t off_sys_pwrite(int fd, const void *buf, size_t n, off_t off)
{
	return syscall(SYS_pwrite64, (long)fd, buf, n, off);
}

/* As often as it takes: bytes, fewer than len only where there are no more, or -errno. */
static ssize_t transfer_all(int fd, char *buf, size_t len, off_t off, bool out)
{
	size_t done = 0;

	while (done < len) {
		size_t left = len - done;
		off_t at = off + (off_t)done;
		ssize_t n = out ? off_sys_pwrite(fd, buf + done, left, at) :
			    off_sys_pread(fd, buf + done, left, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t off_sys_pread_all(int fd, void *buf, size_t len, off_t off)
{
	return transfer_all(fd, buf, len, off, false);
}

ssize_t off_sys_pwrite_all(int fd, const void *buf, size_t len, off_t off)
{
	return transfer_all(fd, (char *)(uintptr_t)buf, len, off, true);
}

int off_sys_ftruncate(int fd, off_t len)
{
	return (int)syscall(SYS_ftruncate, (long)fd, len);
}

int off_sys_fallocate(int fd, int mode, off_t off, off_t len)
{
	return (int)syscall(SYS_fallocate, (long)fd, (long)mode, off, len);
}

/* glibc's struct stat is the kernel's on 64-bit x86 and arm. */
int off_sys_fstat(int fd, struct stat *st)
{
	return (int)syscall(SYS_fstat, (long)fd, st);
}

ssize_t off_sys_readlink(const char *path, char *buf, size_t n)
{
	return syscall(SYS_readlinkat, (long)AT_FDCWD, path, buf, n);
}

ssize_t off_sys_readahead(int fd, off_t off, size_t n)
{
	return syscall(SYS_readahead, (long)fd, off, n);
}

int off_sys_fadvise(int fd, off_t off, off_t len, int advice)
{
	int saved = errno, err = 0;

	if (syscall(SYS_fadvise64, (long)fd, off, len, (long)advice))
		err = errno;
	errno = saved;
	return err;
}
