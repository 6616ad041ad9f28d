/* SPDX-License-Identifier: MIT */
/* direct.c - reads that write to pages, not to addresses: by DMA, or by who serves
 * the file system.
 *
 * (1) Where nobody sees that a page is held, what such a read brings after the page was
 *     evicted is lost. So they are made elsewhere and copied.
 * (2) Mode copy never sees it (exchange.c, 4). The kernel's MOVE does where pages are
 *     pinned, as by file systems on disks of this machine; those of networks, and in user
 *     space, have long held them without that. Some do so without O_DIRECT.
 * (3) Until the heap is paged nothing is evicted there, and it is read into directly.
 *     It becomes paged when those reads are over: who begins says so before it looks
 *     whether that has been asked for, who asks looks after it has asked.
 * (4) Nobody waits longer than a second: a read that was cancelled is never over.
 * Owns core_direct_matters and the count of reads. Lock: none.
 */
#include "core/anon.h"
#include "core/core_int.h"
#include "core/hold.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#define NAP	1000000l		/* ns; a second of them */
#define NAPS	1000

/* statfs(2). Their plain reads may hold pages until they are answered. */
#define FUSE_MAGIC	0x65735546u
#define CIFS_MAGIC	0xff534d42u
#define SMB2_MAGIC	0xfe534d42u

/* Undecided it matters. */
bool core_direct_matters = true;

static _Atomic bool moves;		/* mode move is in force */
static _Atomic bool closing;		/* the heap is paged, or about to be */
static _Atomic int under_way;

bool direct_unseen(uint32_t magic, bool o_direct, bool move)
{
	switch (magic) {
	case FUSE_MAGIC:
	case V9FS_MAGIC:
	case CIFS_MAGIC:
	case SMB2_MAGIC:
		return true;
	}
	return o_direct && (!move || !hold_local(magic));
}

bool core_read_direct(int fd)
{
	int saved = errno, fl = fcntl(fd, F_GETFL);
	struct statfs fs;
	struct stat st;
	uint32_t magic = fstatfs(fd, &fs) ? 0 : (uint32_t)fs.f_type;
	/* Pipes copy, whatever O_DIRECT says there. */
	bool yes = fl >= 0 && direct_unseen(magic, fl & O_DIRECT, atomic_load(&moves)) &&
		   !fstat(fd, &st) && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));

	errno = saved;
	return yes;
}

bool core_paged(void)
{
	return anon_live() || region_any(NULL, SIZE_MAX);
}

/* In a paged mapping of a file that its program may write to. Those are paged before
 * the program has their address (keeper.c), so that no read began before. */
static bool in_file(const void *buf, size_t len)
{
	uintptr_t lo = (uintptr_t)buf;
	bool found = false;
	int saved = errno;

	if (!region_any(buf, len))
		return false;
	region_lock();
	for (int i = 0; region_nth(i) && !found; i++) {
		const struct region *r = region_nth(i);

		found = r->state >= REGION_HELD && r->writable && !r->anon &&
			lo < r->end && lo + len > r->base;
	}
	region_unlock();
	errno = saved;
	return found;
}

enum core_read core_read_begin(const void *buf, size_t len)
{
	if (!core_heap_touches(buf, len))
		return in_file(buf, len) ? CORE_READ_ELSEWHERE : CORE_READ_PLAIN;
	atomic_fetch_add(&under_way, 1);
	if (!atomic_load(&closing))
		return CORE_READ_COUNTED;
	atomic_fetch_sub(&under_way, 1);
	return CORE_READ_ELSEWHERE;
}

void core_read_end(enum core_read how)
{
	if (how == CORE_READ_COUNTED)
		atomic_fetch_sub(&under_way, 1);
}

void direct_mode(enum mode mode)
{
	atomic_store(&moves, mode == MODE_MOVE);
	__atomic_store_n(&core_direct_matters, mode == MODE_MOVE || mode == MODE_COPY,
			 __ATOMIC_RELAXED);
}

void direct_close(void)
{
	struct timespec nap = { 0, NAP };
	int i = 0;

	atomic_store(&closing, true);
	for (; i < NAPS && atomic_load(&under_way); i++)
		nanosleep(&nap, NULL);
	if (i == NAPS)
		off_log("a read into memory that has to be paged now has not ended for a second: should it go on, what it brings may be lost");
}

void direct_open(void)
{
	atomic_store(&closing, false);
}

void direct_reset(void)
{
	atomic_store(&under_way, 0);
	direct_mode(MODE_COPY);		/* undecided */
}
