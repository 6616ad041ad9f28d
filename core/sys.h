/* SPDX-License-Identifier: MIT */
/* sys.h - system calls made raw, for the library itself (R8).
 *
 * Same arguments, results and errno as the libc function of the same name
 * without the prefix. Unlike those: never interposed, not a cancellation
 * point, no lock, no allocation. Any thread, fault path and forked children
 * included. core/rename.syms sends the bundled archives here; core/ code
 * that maps memory or does I/O calls these by name.
 */
#ifndef OFFLOAD_SYS_H
#define OFFLOAD_SYS_H

#include <poll.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

/* ---- mappings: lengths in bytes, errno as mmap(2) and friends ------------- */
void *off_sys_mmap(void *addr, size_t len, int prot, int flags, int fd,
		   off_t off);
int off_sys_munmap(void *addr, size_t len);
void *off_sys_mremap(void *old, size_t old_len, size_t len, int flags, ...);
int off_sys_mprotect(void *addr, size_t len, int prot);
int off_sys_madvise(void *addr, size_t len, int advice);
int off_sys_mlock(const void *addr, size_t len);
int off_sys_munlock(const void *addr, size_t len);
int off_sys_mincore(void *addr, size_t len, unsigned char *vec);

/* ---- descriptors ----------------------------------------------------------- */
int off_sys_open(const char *path, int flags, ...);
int off_sys_openat(int dir, const char *path, int flags, ...);
int off_sys_creat(const char *path, mode_t mode);
int off_sys_close(int fd);
int off_sys_close_range(unsigned int first, unsigned int last, int flags);
int off_sys_fcntl(int fd, int cmd, long arg);
int off_sys_ioctl(int fd, unsigned long req, ...);
int off_sys_flock(int fd, int op);
int off_sys_memfd_create(const char *name, unsigned int flags);
int off_sys_poll(struct pollfd *fds, nfds_t n, int timeout_ms);

/* ---- file contents: one attempt, so short counts and EINTR are the caller's */
ssize_t off_sys_read(int fd, void *buf, size_t n);
ssize_t off_sys_pread(int fd, void *buf, size_t n, off_t off);
/* As often as it takes. Bytes, fewer than len only where the file ends, or its disk is full
 * and says so by writing nothing; -errno. */
ssize_t off_sys_pread_all(int fd, void *buf, size_t len, off_t off);
ssize_t off_sys_pwrite_all(int fd, const void *buf, size_t len, off_t off);
ssize_t off_sys_write(int fd, const void *buf, size_t n);
ssize_t off_sys_pwrite(int fd, const void *buf, size_t n, off_t off);
int off_sys_ftruncate(int fd, off_t len);
int off_sys_fallocate(int fd, int mode, off_t off, off_t len);
int off_sys_fstat(int fd, struct stat *st);
ssize_t off_sys_readlink(const char *path, char *buf, size_t n);
ssize_t off_sys_readahead(int fd, off_t off, size_t n);
/* Unlike the others returns an error number, as posix_fadvise(3) does. */
int off_sys_fadvise(int fd, off_t off, off_t len, int advice);

#endif
