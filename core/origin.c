/* SPDX-License-Identifier: MIT */
/* origin.c - the files regions come from.
 *
 * (1) A file is opened anew from the program's descriptor, read-only, in the
 *     library's own descriptor table: its flags and offset stay untouched.
 * (2) Its bytes are trusted as long as size and times stand still; after
 *     that every chunk is compared with the hash of what was read first.
 * (3) Direct I/O is tried by a real read; where it fails, buffered reads
 *     followed by POSIX_FADV_DONTNEED take its place.
 * Lock: none. An origin is opened and dropped by the keeper; the pager reads
 * it and alone sets `moved`.
 */
#include "core/core_int.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SYS_CACHESTAT 451

static int64_t stamp_ns(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What the descriptor points at ("" if unknown), and its last component. */
static const char *fd_name(const char *link, char *path, size_t cap)
{
	ssize_t n = off_sys_readlink(link, path, cap - 1);
	const char *slash;

	path[n > 0 ? n : 0] = 0;
	slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

bool origin_readable(int fd, uint64_t *size)
{
	struct stat st;
	int fl = fcntl(fd, F_GETFL);

	if (fl < 0 || (fl & O_ACCMODE) != O_RDONLY || (fl & O_PATH) ||
	    fstat(fd, &st) || !S_ISREG(st.st_mode))
		return false;
	*size = (uint64_t)st.st_size;
	return true;
}

bool origin_tensor(int fd, uint64_t *size)
{
	unsigned char head[512];
	char link[64], path[512];
	const char *name;
	ssize_t n;

	if (!origin_readable(fd, size))
		return false;
	snprintf(link, sizeof(link), "/proc/thread-self/fd/%d", fd);
	name = fd_name(link, path, sizeof(path));
	if (options_glob(off_opt.files, path))
		return true;
	n = off_sys_pread(fd, head, sizeof(head), 0);
	if (n < 0 && errno == EINVAL)	/* opened O_DIRECT: ask by name only */
		return fnmatch("*.gguf", name, 0) == 0 ||
		       fnmatch("*.safetensors", name, 0) == 0;
	return n > 0 &&
	       pol_container_of(head, (size_t)n, name) != POL_FILE_UNKNOWN;
}

bool origin_wanted(int fd, uint64_t *size)
{
	return torture() ? origin_readable(fd, size) : origin_tensor(fd, size);
}

/* An O_DIRECT descriptor that really reads, or -1. */
static int open_direct(const char *path, void *probe)
{
	int fd;

	if (off_opt.direct == OPT_DIRECT_OFF)
		return -1;
	fd = off_sys_open(path, O_RDONLY | O_CLOEXEC | O_DIRECT, 0);
	if (fd < 0)
		return -1;
	if (off_sys_pread(fd, probe, PAGE, 0) < 0) {
		off_sys_close(fd);
		return -1;
	}
	return fd;
}

int origin_open(struct origin **out, pid_t tid, int fd)
{
	static char probe[PAGE] __attribute__((aligned(4096)));
	struct origin *o = mem_zalloc(sizeof(*o));
	char link[64], path[512];
	struct stat st;

	if (!o)
		return -ENOMEM;
	snprintf(link, sizeof(link), "/proc/self/task/%d/fd/%d", (int)tid, fd);
	o->fd = off_sys_open(link, O_RDONLY | O_CLOEXEC | O_NOCTTY, 0);
	if (o->fd < 0 || fstat(o->fd, &st)) {
		int err = -errno;

		if (o->fd >= 0)
			off_sys_close(o->fd);
		mem_free(o);
		return err;
	}
	o->ino = st.st_ino;
	o->size = (uint64_t)st.st_size;
	o->mtime_ns = stamp_ns(st.st_mtim);
	snprintf(o->name, sizeof(o->name), "%.255s", fd_name(link, path, sizeof(path)));
	o->fd_direct = open_direct(link, probe);
	*out = o;
	return 0;
}

void origin_close(struct origin *o)
{
	if (!o)
		return;
	off_sys_close(o->fd);
	if (o->fd_direct >= 0)
		off_sys_close(o->fd_direct);
	mem_free(o);
}

static bool is_same(const struct origin *o, const struct stat *st)
{
	return stamp_ns(st->st_mtim) == o->mtime_ns && (uint64_t)st->st_size == o->size;
}

bool origin_unchanged(const struct origin *o)
{
	struct stat st;

	return !fstat(o->fd, &st) && is_same(o, &st);
}

int origin_check(struct origin *o, uint64_t need)
{
	struct stat st;

	if (atomic_load(&o->kept))
		return o->size < need ? -ESTALE : 0;
	if (fstat(o->fd, &st))
		return -errno;
	if (o->moved)
		return (uint64_t)st.st_size < need ? -ESTALE : 0;
	if (!is_same(o, &st)) {
		o->moved = true;
		off_log("%s was written to while mapped: its bytes are compared from now on",
			o->name);
	}
	return (uint64_t)st.st_size < need ? -ESTALE : 0;
}

int64_t origin_cached(struct origin *o, uint64_t off, uint64_t len,
		      uint64_t *evicted)
{
	struct { uint64_t off, len; } range = { off, len };
	struct {
		uint64_t cache, dirty, writeback, evicted, recently;
	} cs = { 0 };

	if (syscall(SYS_CACHESTAT, o->fd, &range, &cs, 0))
		return -ENOSYS;
	if (evicted)
		*evicted = cs.recently * PAGE;
	return (int64_t)(cs.cache * PAGE);
}

/* ---- mapping one ------------------------------------------------------------- */

void *map_congruent(size_t len, int prot, int flags, int fd, off_t off_)
{
	size_t room = page_up(len) + CHUNK, head;
	char *p = off_sys_mmap(NULL, room, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	void *at;

	if (p == MAP_FAILED)
		return MAP_FAILED;
	head = ((uint64_t)off_ - (uintptr_t)p) & (CHUNK - 1);
	at = off_sys_mmap(p + head, len, prot, flags | MAP_FIXED, fd, off_);
	if (at == MAP_FAILED) {
		off_sys_munmap(p, room);
		return MAP_FAILED;
	}
	if (head)
		off_sys_munmap(p, head);
	off_sys_munmap(p + head + page_up(len), CHUNK - head);
	return at;
}
