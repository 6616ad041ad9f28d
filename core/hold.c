/* SPDX-License-Identifier: MIT */
/* hold.c - files that stay as they are while memory relies on them.
 *
 *   HELD --somebody wants to write--> COPYING --> COPIED
 *        \                                   \--> let go: no room
 *         \--nothing relies on it--> let go
 *
 * (1) The kernel makes who opens the file for writing, or truncates it, wait (a read
 *     lease, fcntl(2)), for 45 s unless the machine was told otherwise. Until then the
 *     bytes that may be needed are in a file of ours without a name, which takes the
 *     place of the program's under the same descriptors. Renaming and deleting are free.
 * (2) Both descriptors are held: while a read of the old file is under way, it is
 *     not let go.
 * (3) What is let go is believed no more: `let_go` is set before `users` is looked at,
 *     and the pager counts itself as a user before it looks at let_go.
 * (4) Copied in small steps: the keeper has other things to do.
 * The signal the kernel sends goes to the keeper, which takes none: it would end the
 * program. Owns the list of what is held, and one copy at a time. Lock: none; keeper.
 */
#include "core/hold.h"
#include "core/core_int.h"
#include "core/spill_int.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define HOLDS	64
#define PIECE	(4ul << 20)
#define STEP	(8 * PIECE)		/* some 30 ms */
#define XFS_MAGIC	0x58465342

static struct origin *held[HOLDS];
static struct {
	struct origin *of;		/* NULL: nothing is being copied */
	struct spill_fd to;
	uint64_t at;
	char *buf;
} copy;

bool hold_local(uint32_t magic)
{
	switch (magic) {
	case EXT4_SUPER_MAGIC:
	case XFS_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case TMPFS_MAGIC:
	case OVERLAYFS_SUPER_MAGIC:
		return true;
	}
	return false;
}

static bool local(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && hold_local((uint32_t)fs.f_type);
}

static bool lease(int fd, int type)
{
	struct f_owner_ex me = { F_OWNER_TID, (pid_t)syscall(SYS_gettid) };

	return !fcntl(fd, F_SETOWN_EX, &me) && !fcntl(fd, F_SETLEASE, type);
}

static struct origin **free_place(void)
{
	for (int i = 0; i < HOLDS; i++)
		if (!held[i])
			return &held[i];
	return NULL;
}

bool hold_take(struct origin *o)
{
	struct origin **place = free_place();

	if (!place || !local(o->fd) || !lease(o->fd, F_RDLCK))
		return false;
	if (o->fd_direct >= 0 && !lease(o->fd_direct, F_RDLCK)) {
		lease(o->fd, F_UNLCK);
		return false;
	}
	o->held = true;
	*place = o;
	return true;
}

/* The parent's own hold ends when it likes. One that is ending right now cannot be had
 * again: what is then written meanwhile is noticed when it is read. */
void hold_inherit(struct origin *o)
{
	struct origin **place = free_place();

	if (!atomic_load(&o->kept))
		o->held = o->held && hold_take(o);
	else if (place)
		*place = o;
}

/* ---- letting go ---------------------------------------------------------------------- */

static void close_both(struct origin *o)
{
	off_sys_close(o->fd);
	if (o->fd_direct >= 0)
		off_sys_close(o->fd_direct);
	o->fd = o->fd_direct = -1;
}

/* True: nobody relies on it, nor will. (3) */
static bool forgone(struct origin *o)
{
	atomic_store(&o->let_go, true);
	if (!atomic_load(&o->users))
		return true;
	atomic_store(&o->let_go, false);
	return false;
}

/* Who waits may write: what was read so far is compared with what is read then. */
static void give_up(struct origin *o, const char *why)
{
	off_log("%s is about to be changed and cannot be kept as it is (%s): if bytes are needed that are then gone, the program is stopped; set OFFLOAD_SPILL to a folder with room for it, or replace the file by rename",
		o->name, why);
	atomic_store(&o->let_go, true);
	lease(o->fd, F_UNLCK);
	if (o->fd_direct >= 0)
		lease(o->fd_direct, F_UNLCK);
	o->held = false;
}

/* ---- the copy --------------------------------------------------------------------------- */

static bool has_room(uint64_t size)
{
	uint64_t total, most = off_opt.spill_max;

	return spill_file_room(copy.to.fd, &total) >= size / CHUNK + 1 &&
	       (!most || stat_get(stats_now(), ST_HOST_SPILLED) + size <= most);
}

static void drop_copy(void)
{
	off_sys_close(copy.to.fd);
	if (copy.to.direct >= 0)
		off_sys_close(copy.to.direct);
	copy.of = NULL;
}

static bool begin_copy(struct origin *o)
{
	int err = spill_file_open(&copy.to);

	if (err) {
		give_up(o, strerrordesc_np(-err));
		return false;
	}
	copy.of = o;
	copy.at = 0;
	if (!copy.buf)
		copy.buf = reserve_range(PIECE);
	if (copy.buf && has_room(o->size)) {
		/* Where the file system shares blocks, that is all. */
		if (!off_sys_ioctl(copy.to.fd, FICLONE, (void *)(intptr_t)o->fd))
			copy.at = o->size;
		return true;
	}
	drop_copy();
	give_up(o, copy.buf ? strerrordesc_np(ENOSPC) : strerrordesc_np(ENOMEM));
	return false;
}

/* The rest of [at, at + len) after a read or write of `got`; 0: it ended short. */
static int copy_piece(size_t len)
{
	const struct origin *o = copy.of;
	bool whole = len % PAGE == 0;
	int from = whole && o->fd_direct >= 0 ? o->fd_direct : o->fd;
	int to = whole && copy.to.direct >= 0 ? copy.to.direct : copy.to.fd;
	ssize_t n = off_sys_pread(from, copy.buf, len, (off_t)copy.at);

	if (n != (ssize_t)len)
		return n < 0 ? -errno : -EIO;
	n = off_sys_pwrite(to, copy.buf, len, (off_t)copy.at);
	if (n != (ssize_t)len)
		return n < 0 ? -errno : -ENOSPC;
	stat_add(ST_IO_WRITTEN, len);
	copy.at += len;
	return 0;
}

/* What is left beyond the last page goes by itself, buffered. */
static size_t next_len(void)
{
	uint64_t left = copy.of->size - copy.at;

	if (left >= PIECE)
		return PIECE;
	return left >= PAGE ? left & ~(PAGE - 1) : left;
}

/* Readers find the copy where they found the file. The kernel lets who waits go on when
 * the last read of the old one is over. */
static void change_over(void)
{
	struct origin *o = copy.of;

	atomic_store(&o->kept, true);
	if (o->fd_direct >= 0)
		dup3(copy.to.direct >= 0 ? copy.to.direct : copy.to.fd, o->fd_direct, O_CLOEXEC);
	dup3(copy.to.fd, o->fd, O_CLOEXEC);
	off_verbose(1, "%s is being changed: its bytes as they were are kept in %s", o->name,
		    copy.to.folder);
	drop_copy();
}

static void copy_step(void)
{
	uint64_t until = copy.at + STEP;
	struct origin *o = copy.of;
	const char *why = NULL;
	int err = 0;

	while (!err && copy.at < o->size && copy.at < until)
		err = copy_piece(next_len());
	if (err)
		why = strerrordesc_np(-err);
	else if (copy.at < o->size)
		return;
	else if (!origin_unchanged(o))	/* the kernel makes them wait only so long */
		why = "it took too long";
	else
		change_over();
	if (why) {
		drop_copy();
		give_up(o, why);
	}
}

/* ---- now and then ------------------------------------------------------------------------ */

/* True: it is to be copied, now. */
static bool look(struct origin **place)
{
	struct origin *o = *place;

	if (!o->held) {
		*place = NULL;		/* given up */
		return false;
	}
	if (!atomic_load(&o->kept) && fcntl(o->fd, F_GETLEASE) == F_RDLCK)
		return false;
	if (forgone(o)) {
		close_both(o);
		*place = NULL;
		return false;
	}
	return !atomic_load(&o->kept);
}

bool hold_tick(void)
{
	for (int i = 0; i < HOLDS && !copy.of; i++)
		if (held[i] && look(&held[i]))
			begin_copy(held[i]);
	if (copy.of)
		copy_step();
	return copy.of != NULL;
}

void hold_reset(void)
{
	memset(held, 0, sizeof(held));
	copy.of = NULL;
	copy.buf = NULL;	/* not inherited */
}
