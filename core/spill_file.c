/* SPDX-License-Identifier: MIT */
/* spill_file.c - finds a folder for a spill file and makes the file.
 *
 * (1) Never in memory unasked: tmpfs, ramfs, or an overlay whose upper folder
 *     is on one. Spilling there would take what it is to free.
 * (2) The file has no name from the start, or for an instant a random one
 *     that nobody could have made before us; its owner alone may open it.
 * (3) A descriptor is believed after a real write and read, O_DIRECT too.
 * Owns the last cause told. Lock: none; pager and keeper.
 */
#include "core/spill_int.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define IN_MEMORY	(-ENOTSUP)	/* a cause no call of ours gives */
#define NAME_TRIES	8

/* ---- causes ------------------------------------------------------------------ */

static const char *cause(int err)
{
	switch (-err) {
	case ENOENT:
		return "does not exist";
	case ENOTDIR:
		return "is not a directory";
	case EACCES:
	case EPERM:
		return "is not writable";
	case EROFS:
		return "is on a read-only file system";
	case ENOSPC:
	case EDQUOT:
		return "is full (5% of the file system is left free)";
	case EFBIG:
		return "may hold no larger file (ulimit -f)";
	case -IN_MEMORY:
		return "is in memory (tmpfs)";
	}
	return strerrordesc_np(-err);
}

/* Once for the same folder and error, until another one comes. */
static void say(const char *where, int err, const char *rest)
{
	static const char *_Atomic last_where;
	static _Atomic int last_err;

	if (last_where == where && last_err == err)
		return;
	last_where = where;
	last_err = err;
	off_log("no spill file: %s %s%s; set OFFLOAD_SPILL to a writable folder on a disk with room",
		where, cause(err), rest);
}

/* ---- the file system ----------------------------------------------------------- */

/* No file system on a disk that an overlay can lie on is without FIEMAP, and
 * none in memory has it: an overlay passes the question on to its upper
 * folder, which often cannot be named from here. */
static bool has_no_extents(int fd)
{
	struct fiemap ask = { .fm_length = FIEMAP_MAX_OFFSET };

	return off_sys_ioctl(fd, FS_IOC_FIEMAP, &ask) && errno == EOPNOTSUPP;
}

static bool in_memory(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return false;
	switch ((uint32_t)fs.f_type) {
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
		return true;
	case OVERLAYFS_SUPER_MAGIC:
		return has_no_extents(fd);
	}
	return false;
}

uint64_t spill_file_room(int fd, uint64_t *total_mib)
{
	uint64_t unit, keep;
	struct statfs fs;

	*total_mib = 0;
	if (fstatfs(fd, &fs) || !fs.f_blocks)
		return UINT32_MAX;	/* it does not tell */
	unit = (uint64_t)(fs.f_frsize ? fs.f_frsize : fs.f_bsize);
	keep = fs.f_blocks / 20;
	*total_mib = fs.f_blocks * unit >> 20;
	return fs.f_bavail > keep ? (fs.f_bavail - keep) * unit / CHUNK : 0;
}

int spill_file_reopen(int fd, int flags)
{
	char link[64];
	int got;

	/* Not /proc/self: that is the program's table. */
	snprintf(link, sizeof(link), "/proc/thread-self/fd/%d", fd);
	got = off_sys_open(link, flags | O_CLOEXEC | O_NOCTTY, 0);
	return got < 0 ? -errno : got;
}

/* ---- making it ----------------------------------------------------------------- */

static int make_named(const char *folder)
{
	char path[4096 + 64];
	uint64_t random;
	int fd = -1;

	for (int i = 0; i < NAME_TRIES && fd < 0; i++) {
		if (syscall(SYS_getrandom, &random, sizeof(random), 0) != sizeof(random))
			return -errno;
		if (snprintf(path, sizeof(path), "%s/.offload-%016llx", folder,
			     (unsigned long long)random) >= (int)sizeof(path))
			return -ENAMETOOLONG;
		fd = off_sys_open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW |
				  O_CLOEXEC, 0600);
		if (fd < 0 && errno != EEXIST)
			return -errno;
	}
	if (fd < 0)
		return -EEXIST;
	if (unlink(path))
		off_log("the spill file %s could not be unlinked (%s): remove it when the program has ended",
			path, strerrordesc_np(errno));
	return fd;
}

static int make_file(const char *folder)
{
	int fd = off_sys_open(folder, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	/* What a kernel or file system without O_TMPFILE answers. */
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL ||
		       errno == ENOSYS))
		return make_named(folder);
	return fd < 0 ? -errno : fd;
}

/* One block there and back. 0, or -errno. */
static int prove(int fd)
{
	uint64_t block[PAGE / 8] __attribute__((aligned(4096)));
	ssize_t n;

	for (size_t i = 0; i < PAGE / 8; i++)
		block[i] = 0x9e3779b97f4a7c15ull * (i + 1);
	n = off_sys_pwrite(fd, block, PAGE, 0);
	if (n != (ssize_t)PAGE)
		return n < 0 ? -errno : -ENOSPC;
	memset(block, 0, PAGE);
	n = off_sys_pread(fd, block, PAGE, 0);
	if (n != (ssize_t)PAGE)
		return n < 0 ? -errno : -EIO;
	for (size_t i = 0; i < PAGE / 8; i++)
		if (block[i] != 0x9e3779b97f4a7c15ull * (i + 1))
			return -EIO;
	return 0;
}

static int direct_of(int fd)
{
	int direct;

	if (off_opt.direct == OPT_DIRECT_OFF)
		return -1;
	direct = spill_file_reopen(fd, O_RDWR | O_DIRECT);
	if (direct >= 0 && prove(direct)) {
		off_sys_close(direct);
		direct = -1;
	}
	return direct < 0 ? -1 : direct;
}

/* Fills *out for the new file out->fd. On an error nothing is left open. */
static int check(struct spill_fd *out, bool asked)
{
	uint64_t total;
	struct stat st;
	int err = 0;

	out->direct = -1;
	out->memory = in_memory(out->fd);
	if (out->memory && !asked)
		err = IN_MEMORY;
	else if (!spill_file_room(out->fd, &total))
		err = -ENOSPC;
	/* A strange umask must not keep us from opening it again. */
	else if (fchmod(out->fd, 0600) || off_sys_fstat(out->fd, &st))
		err = -errno;
	else
		err = prove(out->fd);
	if (err) {
		off_sys_close(out->fd);
		return err;
	}
	out->direct = direct_of(out->fd);
	out->dev = st.st_dev;
	out->ino = st.st_ino;
	off_sys_ftruncate(out->fd, 0);
	return 0;
}

static int open_in(struct spill_fd *out, const char *folder, bool asked)
{
	out->folder = folder;
	out->fd = make_file(folder);
	return out->fd < 0 ? out->fd : check(out, asked);
}

/* Each folder's own cause, in one line. */
static int open_default(struct spill_fd *out)
{
	static const char *const folder[] = { "/var/tmp", "/tmp" };
	char rest[128];
	int first, second;

	first = open_in(out, folder[0], false);
	if (!first)
		return 0;
	second = open_in(out, folder[1], false);
	if (!second)
		return 0;
	snprintf(rest, sizeof(rest), ", %s %s", folder[1], cause(second));
	say(folder[0], first, rest);
	return second;
}

int spill_file_open(struct spill_fd *out)
{
	static _Atomic bool warned;
	int err;

	if (!off_opt.spill)
		return open_default(out);
	err = open_in(out, off_opt.spill, true);
	if (err) {
		say(off_opt.spill, err, "");
	} else if (out->memory && !warned) {
		off_log("OFFLOAD_SPILL=%s is in memory (tmpfs): what is spilled there frees nothing; name a folder on a disk",
			off_opt.spill);
		warned = true;
	}
	return err;
}
