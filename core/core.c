/* SPDX-License-Identifier: MIT */
/* core.c - where the program's calls come in (core.h).
 *
 * (1) Every function looks at the region table under region_lock, decides,
 *     lets go of it, and only then asks a library thread and waits (R7).
 * (2) What cannot be served exactly makes the region plain again, and the
 *     real call is made (R9).
 * (3) Less than 1 KiB of stack where nothing of ours is concerned.
 */
#include "core/core_int.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static bool off;			/* pass everything through */
static _Atomic bool lock_future;	/* mlockall(MCL_FUTURE) is in force */
static _Atomic bool reported;
static pid_t owner;			/* the process these statistics are of */

/* ---- start and end --------------------------------------------------------------- */

static bool this_program(void)
{
	char exe[1024];
	ssize_t n;

	if (!off_opt.programs)
		return true;
	n = off_sys_readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	exe[n > 0 ? n : 0] = 0;
	return options_glob(off_opt.programs, exe);
}

int core_init(char **envp)
{
	int err = options_read(envp);

	owner = (pid_t)syscall(SYS_getpid);
	off = err || off_opt.pager == OPT_PAGER_OFF || !this_program();
	return err;
}

bool core_strict(void)
{
	return off_opt.strict != 0;
}

void core_exit(void)
{
	int err;

	/* A vfork child shares our memory and is not who is to report. */
	if (!off_opt.stats || owner != (pid_t)syscall(SYS_getpid) ||
	    atomic_exchange(&reported, true))
		return;
	err = stats_report();
	if (err)
		off_log("OFFLOAD_STATS=%s: %s; give a file that can be written",
			off_opt.stats, strerrordesc_np(-err));
}

void core_new_owner(void)
{
	owner = (pid_t)syscall(SYS_getpid);
	atomic_store(&reported, false);
}

uint64_t host_min(void)
{
	return torture() && off_opt.host_min > (64 << 10) ? 64 << 10 : off_opt.host_min;
}

bool core_overlaps(const void *addr, size_t len)
{
	return region_any(addr, len);
}

/* ---- mmap ------------------------------------------------------------------------ */

/* The real mapping, at an address congruent to the file offset modulo CHUNK,
 * so that chunks of the file can be huge pages in memory. */
static void *map_congruent(size_t len, int prot, int flags, int fd, off_t off_)
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

static struct region *enter_region(void *at, size_t len, int prot, int flags, off_t off_)
{
	struct region *r;

	region_lock();
	r = region_new((uintptr_t)at, len);
	if (r) {
		r->file_off = (uint64_t)off_;
		r->prot = prot;
		r->flags = flags;
		r->writable = (prot & PROT_WRITE) != 0;
	}
	region_unlock();
	return r;
}

static void leave_region(struct region *r)
{
	region_lock();
	region_free(r);
	region_unlock();
}

static bool candidate(size_t len, int prot, int flags, int fd)
{
	if (off || len < host_min() || fd < 0 || prot & PROT_EXEC || !(prot & PROT_READ))
		return false;
	if (flags & (MAP_ANONYMOUS | MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN |
		     MAP_HUGETLB | MAP_LOCKED | MAP_32BIT))
		return false;
	if (!(flags & MAP_PRIVATE) && prot & PROT_WRITE)
		return false;	/* shared and writable: the file's own */
	return !atomic_load(&lock_future) && !library_thread();
}

int core_map_file(void **out, void *hint, size_t len, int prot, int flags,
		  int fd, off_t off_)
{
	struct cmd c = { .op = CMD_MAP, .fd = fd };
	uint64_t size;
	size_t span;
	int saved = errno, err;
	void *at;

	if (!candidate(len, prot, flags, fd) || hint || !origin_wanted(fd, &size) ||
	    (uint64_t)off_ >= size || keeper_start()) {
		errno = saved;
		return CORE_PASS;
	}
	at = map_congruent(len, prot, flags & ~(MAP_POPULATE | MAP_NONBLOCK), fd, off_);
	if (at == MAP_FAILED) {
		errno = saved;
		return CORE_PASS;
	}
	/* Whole pages past the end of the file stay SIGBUS, as they were. */
	span = page_up(len) < page_up(size - (uint64_t)off_) ? page_up(len) :
		page_up(size - (uint64_t)off_);
	c.r = enter_region(at, span, prot, flags, off_);
	c.tid = (pid_t)syscall(SYS_gettid);
	err = c.r ? cmd_call(&c) : -ENOSPC;
	if (err < 0 && c.r)
		leave_region(c.r);
	if (err <= 0 && flags & MAP_POPULATE)
		off_sys_madvise(at, len, MADV_POPULATE_READ);
	*out = at;
	errno = saved;
	return 0;
}

/* ---- munmap, MAP_FIXED ------------------------------------------------------------- */

/* The next live region (index from *i) that [lo, hi) touches. region_lock held. */
static struct region *next_in(int *i, uintptr_t lo, uintptr_t hi)
{
	struct extent piece[MAX_EXTENTS];

	while (region_nth(*i)) {
		struct region *r = region_nth((*i)++);

		if (r->state != REGION_FREE && r->state != REGION_DYING &&
		    region_pieces(r, lo, hi, piece))
			return r;
	}
	return NULL;
}

/* Cuts; returns what is left to do without the lock. */
static int cut_one(struct region *r, uintptr_t lo, uintptr_t hi, bool *live)
{
	int err = region_cut(r, lo, hi);

	*live = r->state != REGION_WATCHED;
	if (!err && !*live && !r->n_ext)
		r->state = REGION_DYING;	/* the keeper may be looking at it */
	return err;
}

void core_unmap(const void *addr, size_t len)
{
	uintptr_t lo = page_down((uintptr_t)addr), hi = page_up((uintptr_t)addr + len);
	int i = 0, saved = errno;
	bool live = false;
	struct region *r;

	for (;;) {
		int err = 0;

		region_lock();
		r = next_in(&i, lo, hi);
		if (r)
			err = cut_one(r, lo, hi, &live);
		region_unlock();
		if (!r)
			break;
		if (err == -ENOSPC)
			convert_undo(r);
		else if (live || r->state == REGION_DYING)
			cmd_call(&(struct cmd){ .op = CMD_FORGET, .r = r, .lo = lo, .hi = hi });
	}
	errno = saved;
}

/* ---- the rest ------------------------------------------------------------------------ */

/* The live region that holds all of [addr, addr+len), or NULL: then regions
 * it touches in part are in *part. */
static struct region *whole_in(const void *addr, size_t len, bool *part)
{
	uintptr_t lo = (uintptr_t)addr, hi = page_up(lo + len);
	struct region *r;
	int i = 0;

	region_lock();
	r = region_at(lo);
	if (r && !region_covers(r, lo, hi))
		r = NULL;
	*part = !r && next_in(&i, lo, hi);
	region_unlock();
	return r;
}

static void undo_all(const void *addr, size_t len)
{
	uintptr_t lo = (uintptr_t)addr, hi = page_up(lo + len);
	struct region *r;
	int i = 0;

	do {
		region_lock();
		r = next_in(&i, lo, hi);
		region_unlock();
		if (r && r->state == REGION_WATCHED)
			r->refused = true;
		else if (r)
			convert_undo(r);
	} while (r);
}

int core_protect(const void *addr, size_t len, int prot)
{
	bool part;
	struct region *r = whole_in(addr, len, &part);
	int saved = errno;

	if ((uintptr_t)addr % PAGE)
		return CORE_PASS;	/* EINVAL */
	if (r && !(prot & PROT_EXEC) && prot & PROT_READ) {
		if (prot & PROT_WRITE && !(r->flags & MAP_PRIVATE))
			return -EACCES;	/* through a read-only descriptor */
		if (r->state == REGION_WATCHED && !(prot & PROT_WRITE))
			return CORE_PASS;
		if (r->state == REGION_LIVE && prot == r->prot)
			return 0;
		if (r->state == REGION_LIVE && pg.mode == MODE_MOVE && r->writable) {
			r->prot = prot;	/* writable underneath all the same */
			return 0;
		}
	}
	undo_all(addr, len);
	errno = saved;
	return CORE_PASS;
}

static int advise_dontneed(struct region *r, const void *addr, size_t len)
{
	uintptr_t lo = (uintptr_t)addr;

	if (!r->writable)
		return 0;	/* the same bytes come back */
	return cmd_call(&(struct cmd){ .op = CMD_DISCARD, .r = r, .lo = lo,
				       .hi = page_up(lo + len) });
}

int core_advise(const void *addr, size_t len, int advice)
{
	bool part;
	struct region *r = whole_in(addr, len, &part);
	int saved = errno, err = 0;

	if (!r && !part)
		return CORE_PASS;
	if ((uintptr_t)addr % PAGE)
		return -EINVAL;
	if (r ? r->state != REGION_LIVE || !pg.ops->anon : !pg.ops || !pg.ops->anon) {
		/* A real mapping. Hints: no reading of what will not stay. */
		return r && r->state == REGION_LIVE &&
		       (advice == MADV_WILLNEED || advice == MADV_RANDOM ||
			advice == MADV_SEQUENTIAL || advice == MADV_POPULATE_READ) ?
			0 : CORE_PASS;
	}
	if (!r)
		undo_all(addr, len);
	if (!r)
		return CORE_PASS;
	switch (advice) {
	case MADV_DONTNEED:
		err = advise_dontneed(r, addr, len);
		break;
	case MADV_NORMAL:	/* advice: taken note of, which is all it asks */
	case MADV_RANDOM:
	case MADV_SEQUENTIAL:
	case MADV_WILLNEED:
	case MADV_DONTFORK:
	case MADV_DOFORK:
	case MADV_MERGEABLE:
	case MADV_UNMERGEABLE:
	case MADV_HUGEPAGE:
	case MADV_NOHUGEPAGE:
	case MADV_DONTDUMP:
	case MADV_DODUMP:
	case MADV_COLD:
	case MADV_PAGEOUT:
	case MADV_POPULATE_READ:
	case MADV_COLLAPSE:
		break;
	default:		/* not for file mappings, or unknown */
		err = -EINVAL;
		break;
	}
	errno = saved;
	return err;
}

static uint64_t locked_bytes;		/* region_lock */

int core_lock(const void *addr, size_t len)
{
	uintptr_t lo = page_down((uintptr_t)addr), hi = page_up((uintptr_t)addr + len);
	int i = 0, saved = errno, err = 0;
	struct region *r;
	uint64_t room = keeper_budget();

	do {
		region_lock();
		r = next_in(&i, lo, hi);
		if (r && r->state == REGION_WATCHED) {
			r->locked = true;
		} else if (r && pg.ops->anon) {
			if (locked_bytes + (hi - lo) + off_opt.window + 4 * CHUNK > room)
				err = -ENOMEM;
			else
				locked_bytes += hi - lo;
		}
		region_unlock();
		if (r && !err && r->state == REGION_LIVE && pg.ops->anon)
			err = cmd_call(&(struct cmd){ .op = CMD_PIN, .r = r, .lo = lo, .hi = hi });
	} while (r && !err);
	errno = saved;
	return err ? err : CORE_PASS;
}

void core_unlocked(const void *addr, size_t len)
{
	uintptr_t lo = page_down((uintptr_t)addr), hi = page_up((uintptr_t)addr + len);
	int i = 0, saved = errno;
	struct region *r;

	do {
		region_lock();
		r = next_in(&i, lo, hi);
		if (r && r->state == REGION_LIVE)
			locked_bytes -= locked_bytes < hi - lo ? locked_bytes : hi - lo;
		region_unlock();
		if (r && r->state == REGION_LIVE)
			cmd_call(&(struct cmd){ .op = CMD_UNPIN, .r = r, .lo = lo, .hi = hi });
		else if (r)
			r->locked = false;
	} while (r);
	errno = saved;
}

int core_lock_all(int flags)
{
	uint64_t live = 0;

	region_lock();
	for (int i = 0; region_nth(i); i++) {
		struct region *r = region_nth(i);

		if (r->state == REGION_WATCHED)
			r->locked |= (flags & MCL_CURRENT) != 0;
		else if (r->state != REGION_FREE)
			live += r->end - r->base;
	}
	region_unlock();
	if (flags & MCL_CURRENT && live)
		return -ENOMEM;	/* all of them never fit, or they were not regions */
	atomic_store(&lock_future, (flags & MCL_FUTURE) != 0);
	return CORE_PASS;
}

int core_mincore(const void *addr, size_t len, unsigned char *vec)
{
	bool part;
	struct region *r = whole_in(addr, len, &part);

	if ((!r && !part) || (uintptr_t)addr % PAGE)
		return CORE_PASS;
	if (!r || r->state != REGION_LIVE || !pg.ops->anon)
		return CORE_PASS;
	memset(vec, 1, page_up(len) / PAGE);
	return 0;
}

int core_remap(const void *addr, size_t len, size_t new_len, int flags)
{
	bool part;
	struct region *r = whole_in(addr, len, &part);
	int saved = errno;

	if (!r && !part)
		return CORE_PASS;
	if (r && !(flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) &&
	    page_up(new_len) <= page_up(len)) {
		if (page_up(new_len) < page_up(len))
			core_unmap((char *)addr + page_up(new_len),
				   page_up(len) - page_up(new_len));
		return CORE_PASS;	/* shrinks where it is */
	}
	if (r && r->state == REGION_LIVE && r->writable && pg.ops->anon)
		return -ENOMEM;		/* its written pages cannot follow */
	undo_all(addr, len);
	core_unmap(addr, len);		/* watched: the mapping goes elsewhere */
	errno = saved;
	return CORE_PASS;
}
