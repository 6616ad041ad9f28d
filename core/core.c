/* SPDX-License-Identifier: MIT */
/* core.c - where the program's calls come in (core.h).
 *
 * (1) Every function looks at the region table under region_lock, decides,
 *     lets go of it, and only then asks a library thread and waits (R7).
 * (2) What cannot be served exactly makes the region plain again, and the
 *     real call is made (R9).
 * (3) Less than 1 KiB of stack where nothing of ours is concerned.
 */
#include "core/anon.h"
#include "core/core_int.h"
#include "core/outfile.h"
#include "core/sites.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static bool off;			/* pass everything through */
static bool strange;			/* a program, or options, to keep out of */
static _Atomic bool lock_future;	/* mlockall(MCL_FUTURE) is in force */
static _Atomic int populating;		/* threads bringing a new mapping in */
static _Atomic bool reported;
static bool forked;
static pid_t owner;			/* the process these statistics are of */

/* ---- start and end --------------------------------------------------------------- */

static AT_START bool this_program(void)
{
	char exe[1024];
	ssize_t n;

	if (!off_opt.programs)
		return true;
	n = off_sys_readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	exe[n > 0 ? n : 0] = 0;
	return options_glob(off_opt.programs, exe);
}

AT_START int core_init(char **envp)
{
	static char *nothing[] = { NULL };
	/* With more rights than who started it: what he asks for is not heeded. */
	bool secure = getauxval(AT_SECURE);
	int err = options_read(secure ? nothing : envp);

	owner = (pid_t)syscall(SYS_getpid);
	/* As early as can be: prepare handlers run last to first, and nobody
	 * else's may run while ours holds the region table still. */
	pthread_atfork(core_fork_prepare, core_fork_parent, core_fork_child);
	strange = err || secure || !this_program();
	off = strange || off_opt.pager == OPT_PAGER_OFF;
	core_heap_min = off || off_opt.pager == OPT_PAGER_HINTS ? SIZE_MAX : host_min();
	return err;
}

bool core_forked(void)
{
	return forked;
}

AT_START bool core_on(void)
{
	return owner && !strange;
}

bool core_strict(void)
{
	return off_opt.strict != 0;
}

AT_START void core_exit(void)
{
	int err;

	/* A vfork child shares our memory and is not who is to report. */
	if (!(off_opt.stats || off_opt.trace) || owner != (pid_t)syscall(SYS_getpid) ||
	    atomic_exchange(&reported, true))
		return;
	device_tape_flush(true);
	if (!off_opt.stats)
		return;
	sites_settle();
	largest_publish();
	err = stats_report();
	if (err)
		off_log("OFFLOAD_STATS=%s: %s; give a file that can be written",
			off_opt.stats, outfile_error(err));
}

AT_START void core_leave(void)
{
	if (owner == (pid_t)syscall(SYS_getpid))
		keeper_leave();
}

void core_new_owner(void)
{
	owner = (pid_t)syscall(SYS_getpid);
	forked = true;
	atomic_store(&reported, false);
}

AT_START uint64_t host_min(void)
{
	return torture() && off_opt.host_min > (64 << 10) ? 64 << 10 : off_opt.host_min;
}

bool core_overlaps(const void *addr, size_t len)
{
	return region_any(addr, len);
}

/* ---- mmap ------------------------------------------------------------------------ */

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
	if (err <= 0 && flags & MAP_POPULATE) {
		atomic_fetch_add(&populating, 1);
		off_sys_madvise(at, len, MADV_POPULATE_READ);
		atomic_fetch_sub(&populating, 1);
	}
	*out = at;
	errno = saved;
	return 0;
}

/* ---- regions in use ------------------------------------------------------------------ */

static void nap(void)
{
	struct timespec t = { 0, 100000 };

	nanosleep(&t, NULL);
}

/* The next region (index from *i) that [lo, hi) touches, with its users
 * raised: region_put when done. Waits for one that is becoming plain. */
static struct region *use_next(int *i, uintptr_t lo, uintptr_t hi)
{
	struct extent piece[MAX_EXTENTS];
	struct region *r;

	region_lock();
	while ((r = region_nth(*i))) {
		if (r->state == REGION_FREE || r->state == REGION_DYING ||
		    !region_pieces(r, lo, hi, piece)) {
			++*i;
		} else if (r->state == REGION_UNDOING) {
			region_unlock();
			nap();
			region_lock();
		} else {
			++*i;
			r->users++;
			break;
		}
	}
	region_unlock();
	return r;
}

/* The region that holds all of [addr, addr+len), its users raised, or NULL;
 * *part: regions hold some of it. */
static struct region *use_whole(const void *addr, size_t len, bool *part)
{
	uintptr_t lo = (uintptr_t)addr, hi = page_up(lo + len);
	struct region *r;
	int i = 0;

	r = use_next(&i, lo, hi);
	*part = r;
	if (r && !region_covers(r, lo, hi)) {
		region_put(r);
		r = NULL;
	}
	return r;
}

/* Plain mappings again, all that the range touches. 0, or -ENOMEM: one of
 * them holds written private pages. */
static int undo_all(const void *addr, size_t len)
{
	uintptr_t lo = (uintptr_t)addr, hi = page_up(lo + len);
	struct region *r;
	int i = 0, err = 0;

	while (!err && (r = use_next(&i, lo, hi))) {
		bool watched;

		region_lock();
		watched = r->state == REGION_WATCHED;
		r->refused |= watched;
		region_unlock();
		if (!watched)
			err = convert_undo(r);
		region_put(r);
	}
	return err;
}

/* ---- munmap, MAP_FIXED ------------------------------------------------------------- */

/* Cuts [lo, hi) out of r, which is in use. 0, -ENOSPC: too many holes. */
static int unmap_one(struct region *r, uintptr_t lo, uintptr_t hi)
{
	struct extent piece[MAX_EXTENTS];
	bool live;
	int n, err;

	region_lock();
	n = region_pieces(r, lo, hi, piece);
	live = r->state != REGION_WATCHED;
	err = region_cut(r, lo, hi);
	region_unlock();
	if (err)
		return err;
	if (live || !r->n_ext)
		cmd_call(&(struct cmd){ .op = CMD_FORGET, .r = r, .lo = lo, .hi = hi });
	/* Right bytes until the real call, and after it if that fails. */
	for (int i = 0; live && r->shadow && i < n; i++)
		convert_from_shadow(r, piece[i].lo, piece[i].hi);
	return 0;
}

int core_unmap(const void *addr, size_t len)
{
	uintptr_t lo = page_down((uintptr_t)addr), hi = page_up((uintptr_t)addr + len);
	int i = 0, saved = errno, err = 0;
	struct region *r;

	fork_left_end(lo, hi, false);
	while (!err && (r = use_next(&i, lo, hi))) {
		if (r->anon) {		/* heap.c knows what is mapped of it */
			region_put(r);
			continue;
		}
		err = unmap_one(r, lo, hi);
		if (err == -ENOSPC) {
			region_lock();
			r->refused |= r->state == REGION_WATCHED;
			err = r->state == REGION_WATCHED ? 0 : err;
			r->n_ext = err ? r->n_ext : 0;	/* watched no more */
			region_unlock();
			if (err)
				err = convert_undo(r);
			else
				cmd_call(&(struct cmd){ .op = CMD_FORGET, .r = r });
		}
		region_put(r);
	}
	errno = saved;
	return err ? err : CORE_PASS;
}

/* ---- the rest ------------------------------------------------------------------------ */

static int protect_live(struct region *r, const void *addr, size_t len, int prot)
{
	bool whole = (uintptr_t)addr == r->base && page_up(len) == r->end - r->base;

	if (prot & PROT_EXEC || !(prot & PROT_READ))
		return undo_all(addr, len) ? -ENOMEM : CORE_PASS;
	if (!r->writable)
		return prot & PROT_WRITE && undo_all(addr, len) ? -ENOMEM :
			prot & PROT_WRITE ? CORE_PASS : 0;
	if (whole)
		r->prot = prot;
	return 0;	/* it stays writable underneath */
}

/* Pages that may not be written cannot be moved: what loses that right comes
 * in, and stays. */
static int protect_heap(struct region *r, const void *addr, size_t len, int prot)
{
	uintptr_t lo = (uintptr_t)addr, hi = page_up(lo + len);

	if ((prot & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE))
		return CORE_PASS;
	/* Not by looking: it may be unreadable now. */
	for (uintptr_t a = lo; a < hi; a = chunk_down(a) + CHUNK)
		off_sys_madvise((void *)a, PAGE, MADV_POPULATE_READ);
	cmd_call(&(struct cmd){ .op = CMD_PIN, .r = r, .lo = lo, .hi = hi });
	return CORE_PASS;
}

int core_protect(const void *addr, size_t len, int prot)
{
	bool part;
	struct region *r;
	int saved = errno, err;

	if ((uintptr_t)addr % PAGE)
		return CORE_PASS;	/* EINVAL */
	if (core_heap_touches(addr, len))
		heap_protect(addr, len, prot);
	r = use_whole(addr, len, &part);
	if (r && r->anon)
		err = protect_heap(r, addr, len, prot);
	else if (r && prot & PROT_WRITE && !(r->flags & MAP_PRIVATE))
		err = -EACCES;		/* through a read-only descriptor */
	else if (r && r->state == REGION_WATCHED && prot == PROT_READ)
		err = CORE_PASS;
	else if (r && r->state == REGION_LIVE && pg.ops->anon)
		err = protect_live(r, addr, len, prot);
	else if (r || part)
		err = undo_all(addr, len) ? -ENOMEM : CORE_PASS;
	else
		err = CORE_PASS;
	if (r)
		region_put(r);
	errno = saved;
	return err;
}

/* What the kernel would do on a mapping of a file: 0 or -errno. */
static int advise_live(struct region *r, const void *addr, size_t len, int advice)
{
	uintptr_t lo = (uintptr_t)addr;

	switch (advice) {
	case MADV_DONTNEED:
		if (!r->writable)
			return 0;	/* the same bytes come back */
		return cmd_call(&(struct cmd){ .op = CMD_DISCARD, .r = r,
				.lo = lo, .hi = page_up(lo + len) });
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
		return 0;
	}
	return -EINVAL;		/* not for file mappings, or unknown */
}

static int advise_heap(const struct region *r, const void *addr, size_t len, int advice)
{
	uintptr_t lo = (uintptr_t)addr;

	switch (advice) {
	case MADV_DONTNEED:
		/* Locked pages refuse. Else the pager does it: pages that go
		 * while it copies them would make it wait for itself. */
		if (r->locked_bytes && off_sys_madvise((void *)addr, len, advice))
			return -errno;
		__attribute__((fallthrough));
	case MADV_FREE:
		anon_clear(lo, page_up(lo + len));
		return 0;
	case MADV_NORMAL:
	case MADV_RANDOM:
	case MADV_SEQUENTIAL:
	case MADV_WILLNEED:
	case MADV_DONTFORK:
	case MADV_DOFORK:
	case MADV_MERGEABLE:
	case MADV_UNMERGEABLE:
	case MADV_HUGEPAGE:
	case MADV_NOHUGEPAGE:
	case MADV_COLD:
	case MADV_PAGEOUT:
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
	case MADV_COLLAPSE:
		return 0;
	case MADV_DONTDUMP:
	case MADV_DODUMP:
		return CORE_PASS;
	}
	return -EINVAL;
}

/* Advice to read what will not stay: not passed on in hints mode. */
static bool reads_ahead(int advice)
{
	return advice == MADV_WILLNEED || advice == MADV_RANDOM ||
	       advice == MADV_SEQUENTIAL || advice == MADV_POPULATE_READ;
}

int core_advise(const void *addr, size_t len, int advice)
{
	bool part;
	struct region *r = use_whole(addr, len, &part);
	int saved = errno, err = CORE_PASS;

	if (!r && part && undo_all(addr, len))
		err = -ENOMEM;
	if (!r && advice == MADV_DONTNEED && !((uintptr_t)addr % PAGE) &&
	    fork_left_end((uintptr_t)addr, page_up((uintptr_t)addr + len), true))
		err = -ENOMEM;
	if (r && (uintptr_t)addr % PAGE)
		err = -EINVAL;
	else if (r && r->anon)
		err = advise_heap(r, addr, len, advice);
	else if (r && r->state == REGION_LIVE && pg.ops->anon)
		err = advise_live(r, addr, len, advice);
	else if (r && r->state == REGION_LIVE && reads_ahead(advice))
		err = 0;
	if (r)
		region_put(r);
	errno = saved;
	return err;
}

/* Bytes locked in all regions, and in how many of them. region_lock held. */
static uint64_t locked_sum(void)
{
	uint64_t sum = 0;

	for (int i = 0; region_nth(i); i++)
		if (region_nth(i)->state >= REGION_HELD &&
		    region_nth(i)->state != REGION_DYING)
			sum += region_nth(i)->locked_bytes;
	return sum;
}

int core_lock(const void *addr, size_t len)
{
	uintptr_t lo = page_down((uintptr_t)addr), hi = page_up((uintptr_t)addr + len);
	uint64_t room = keeper_budget();
	int i = 0, saved = errno, err = 0;
	struct region *r;

	while (!err && (r = use_next(&i, lo, hi))) {
		bool paged = false;

		region_lock();
		if (r->state == REGION_WATCHED) {
			r->locked = true;
		} else if (pg.ops->anon) {
			paged = true;
			if (locked_sum() + (hi - lo) + off_opt.window + 4 * CHUNK > room)
				err = -ENOMEM;
			else
				r->locked_bytes += hi - lo;
		}
		region_unlock();
		if (paged && !err)	/* HELD: it is answered once it is LIVE */
			err = cmd_call(&(struct cmd){ .op = CMD_PIN, .r = r, .lo = lo, .hi = hi });
		region_put(r);
	}
	errno = saved;
	return err ? err : CORE_PASS;
}

void core_unlocked(const void *addr, size_t len)
{
	uintptr_t lo = page_down((uintptr_t)addr), hi = page_up((uintptr_t)addr + len);
	int i = 0, saved = errno;
	struct region *r;

	while ((r = use_next(&i, lo, hi))) {
		bool paged;

		region_lock();
		paged = r->state != REGION_WATCHED;
		r->locked = false;
		r->locked_bytes -= r->locked_bytes < hi - lo ? r->locked_bytes : hi - lo;
		region_unlock();
		if (paged && pg.ops->anon)
			cmd_call(&(struct cmd){ .op = CMD_UNPIN, .r = r, .lo = lo, .hi = hi });
		region_put(r);
	}
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
		else if (r->state == REGION_HELD || r->state == REGION_LIVE)
			live += r->end - r->base;
	}
	region_unlock();
	if (flags & MCL_CURRENT && live)
		return -ENOMEM;	/* all of them never fit, or they were not regions */
	atomic_store(&lock_future, (flags & MCL_FUTURE) != 0);
	return CORE_PASS;
}

bool core_reserves(void)
{
	return keeper_running();
}

void core_locked_all(void)
{
	int saved = errno;

	if (keeper_running()) {
		frames_unlock();
		pager_unlock();
	}
	errno = saved;
}

void core_unlocked_all(void)
{
	atomic_store(&lock_future, false);
	core_unlocked(NULL, (size_t)1 << 47);
}

/* Child of a fork: locks are not inherited. */
void core_unlock_reset(void)
{
	atomic_store(&lock_future, false);
}

bool core_populating(void)
{
	return atomic_load(&populating) > 0;
}

bool lock_future_set(void)
{
	return atomic_load(&lock_future);
}

int core_mincore(const void *addr, size_t len, unsigned char *vec)
{
	bool part, ours;
	struct region *r;

	if ((uintptr_t)addr % PAGE)
		return CORE_PASS;
	r = use_whole(addr, len, &part);
	ours = r && r->state == REGION_LIVE && pg.ops->anon;
	if (r)
		region_put(r);
	if (!ours)
		return CORE_PASS;
	memset(vec, 1, page_up(len) / PAGE);
	return 0;
}

int core_remap(const void *addr, size_t len, size_t new_len, int flags)
{
	bool part;
	struct region *r = use_whole(addr, len, &part);
	int saved = errno, err = CORE_PASS;
	bool shrink = r && !(flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) &&
		page_up(new_len) <= page_up(len);

	if (r)
		region_put(r);
	if (!r && !shrink)
		fork_left_end((uintptr_t)addr, page_up((uintptr_t)addr + len), false);
	if (shrink) {		/* where it is */
		if (page_up(new_len) < page_up(len))
			err = core_unmap((char *)addr + page_up(new_len),
					 page_up(len) - page_up(new_len));
	} else if (part) {
		err = undo_all(addr, len) ? -ENOMEM : CORE_PASS;
		if (err == CORE_PASS)	/* watched: the mapping goes elsewhere */
			err = core_unmap(addr, len);
	}
	errno = saved;
	return err;
}

void *core_memory(size_t bytes)
{
	return mem_zalloc(bytes);
}

void core_memory_free(void *p)
{
	mem_free(p);
}
