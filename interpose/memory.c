/* SPDX-License-Identifier: MIT */
/* memory.c - the mmap family.
 *
 * (1) A call on memory that is not ours goes straight to the kernel: two
 *     loads and a compare away.
 * (2) Raw system calls, as glibc's own wrappers make: nothing is looked up,
 *     so they work before the loader is done and inside signal handlers.
 * (3) What the next allocator maps for small blocks is left alone: its blocks
 *     are told from ours by their address (heap.c).
 */
#include "interpose/interpose.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static void *map(void *addr, size_t len, int prot, int flags, int fd, off_t off,
		 const void *caller)
{
	void *at;

	if (flags & MAP_FIXED && core_heap_touches(addr, len) &&
	    core_heap_unmap(addr, len, true) < 0) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	if (flags & MAP_ANONYMOUS && len >= core_heap_min && !addr &&
	    !next_allocators(caller) && core_heap_map(&at, len, prot, flags) == 0)
		return at;
	if (flags & MAP_FIXED && core_overlaps(addr, len) &&
	    core_unmap(addr, len) < 0) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	if (fd >= 0 && !(flags & MAP_ANONYMOUS) && !(off % 4096) &&
	    core_map_file(&at, addr, len, prot, flags, fd, off) == 0)
		return at;
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return map(addr, len, prot, flags, fd, off, __builtin_return_address(0));
}

EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t off)
{
	return map(addr, len, prot, flags, fd, off, __builtin_return_address(0));
}

EXPORT int munmap(void *addr, size_t len)
{
	if (core_heap_touches(addr, len)) {
		int err = core_heap_unmap(addr, len, false);

		if (err != CORE_PASS)
			return libc_result(err);
	}
	if (core_overlaps(addr, len) && !((uintptr_t)addr % 4096) &&
	    core_unmap(addr, len) < 0)
		return libc_result(-ENOMEM);
	return (int)syscall(SYS_munmap, addr, len);
}

EXPORT void *mremap(void *addr, size_t len, size_t new_len, int flags, ...)
{
	void *to = NULL;
	int err = CORE_PASS;

	if (flags & MREMAP_FIXED) {
		va_list ap;

		va_start(ap, flags);
		to = va_arg(ap, void *);
		va_end(ap);
	}
	if (core_heap_has(addr)) {
		err = core_heap_remap(&to, addr, len, new_len, flags);
		if (!err)
			return to;
	} else if (flags & MREMAP_FIXED) {
		if (core_heap_touches(to, new_len) && !((uintptr_t)to % 4096))
			err = core_heap_unmap(to, new_len, true);
		if (err == CORE_PASS && core_overlaps(to, new_len))
			err = core_unmap(to, new_len);
	}
	if (err == CORE_PASS && core_overlaps(addr, len))
		err = core_remap(addr, len, new_len, flags);
	if (err < 0) {
		errno = -err;
		return MAP_FAILED;
	}
	return (void *)syscall(SYS_mremap, addr, len, new_len, flags, to);
}

EXPORT int mprotect(void *addr, size_t len, int prot)
{
	bool ours = core_overlaps(addr, len) || core_heap_touches(addr, len);
	int err = ours ? core_protect(addr, len, prot) : CORE_PASS;

	return err == CORE_PASS ? (int)syscall(SYS_mprotect, addr, len, prot) :
		libc_result(err);
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
	bool paged = core_overlaps(addr, len);
	int err = paged ? core_advise(addr, len, advice) : CORE_PASS;

	if (err != CORE_PASS)
		return libc_result(err);
	err = (int)syscall(SYS_madvise, addr, len, advice);
	/* The heap became paged meanwhile: some was out of the kernel's reach. */
	if (!err && !paged && advice == MADV_DONTNEED && core_heap_touches(addr, len) &&
	    core_overlaps(addr, len))
		core_advise(addr, len, advice);
	return err;
}

/* Returns an error number and leaves errno alone; DONTNEED does nothing
 * there, for POSIX's must not lose data. */
EXPORT int posix_madvise(void *addr, size_t len, int advice)
{
	int saved = errno, err;

	if (advice == POSIX_MADV_DONTNEED)
		return 0;
	err = madvise(addr, len, advice) ? errno : 0;
	errno = saved;
	return err;
}

/* After core_lock said to go on: what the kernel refuses is not locked. */
static int really_lock(const void *addr, size_t len, int r)
{
	int saved = errno;

	if (r && core_overlaps(addr, len))
		core_unlocked(addr, len);
	errno = saved;
	return r;
}

EXPORT int mlock(const void *addr, size_t len)
{
	int err = core_overlaps(addr, len) ? core_lock(addr, len) : CORE_PASS;

	if (err != CORE_PASS)
		return libc_result(err);
	return really_lock(addr, len, (int)syscall(SYS_mlock, addr, len));
}

EXPORT int mlock2(const void *addr, size_t len, unsigned int flags)
{
	int err = CORE_PASS;

	if (!(flags & ~(unsigned int)MLOCK_ONFAULT) && core_overlaps(addr, len))
		err = core_lock(addr, len);
	if (err != CORE_PASS)
		return libc_result(err);
	return really_lock(addr, len, (int)syscall(SYS_mlock2, addr, len, flags));
}

EXPORT int munlock(const void *addr, size_t len)
{
	int r = (int)syscall(SYS_munlock, addr, len);

	if (!r && core_overlaps(addr, len))
		core_unlocked(addr, len);
	return r;
}

EXPORT int mlockall(int flags)
{
	int err = core_lock_all(flags), more = 0, r;

	if (err != CORE_PASS)
		return libc_result(err);
	/* The library's reservations are larger than memory: nothing may be
	 * brought in before they are exempt. */
	if (flags & MCL_CURRENT && core_reserves())
		more = MCL_ONFAULT;
	r = (int)syscall(SYS_mlockall, flags | more);
	if (!r)
		core_locked_all();
	return r;
}

EXPORT int munlockall(void)
{
	int r = (int)syscall(SYS_munlockall);

	if (!r)
		core_unlocked_all();
	return r;
}

/* The pages of a region are recycled while a pipe still holds them; a copy in
 * the pipe reads the same. Flags only steer waiting and moving. */
EXPORT ssize_t vmsplice(int fd, const struct iovec *iov, size_t n, unsigned int flags)
{
	for (size_t i = 0; i < n; i++)
		if (core_overlaps(iov[i].iov_base, iov[i].iov_len))
			return writev(fd, iov, (int)n);
	return syscall(SYS_vmsplice, fd, iov, n, flags);
}

EXPORT int mincore(void *addr, size_t len, unsigned char *vec)
{
	int err = core_overlaps(addr, len) ? core_mincore(addr, len, vec) : CORE_PASS;

	return err == CORE_PASS ? (int)syscall(SYS_mincore, addr, len, vec) :
		libc_result(err);
}
