/* SPDX-License-Identifier: MIT */
/* pool_arena.c - memory for the pool's slots: an arena of the bundled
 * allocator over address space of our own.
 *
 *   reserved --hook_alloc, once--> retained --hook_commit--> in use
 *                                     ^                         |
 *                                     +----- hook_decommit -----+
 *
 * (1) Memory is behind what is in use, and nothing else: what is freed goes
 *     back to the kernel before the free returns (decay 0), page by page, for
 *     huge pages would be kept whole.
 * (2) Counted where it is given and taken, by the hooks. A block of whole
 *     pages has more of them than it needs, up to a quarter (size classes are
 *     four to a power of two): those after its last byte are never touched,
 *     and not counted.
 * (3) The allocator gets all of the address space at once, by a first block as
 *     large as that. Else it would ask for pieces, which it does not merge.
 * (4) The allocator's own records of the arena lie in its ordinary memory: they
 *     must be there in every child (its fork handlers look at them).
 * (5) Not inherited by forks unless asked to be, not dumped.
 * Lock: the allocator's own; everything else belongs to the pager thread.
 */
#include "core/core_int.h"
#include "core/pool_int.h"

#include <jemalloc/jemalloc.h>
#include <stdio.h>

/* Blocks from here on are whole pages of their own. */
#define WHOLE_PAGES	(4 * PAGE)
#ifndef MADV_POPULATE_WRITE	/* newer than some headers */
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* jemalloc's API, renamed. */
int off_je_mallctl(const char *name, void *old, size_t *old_len, void *now,
		   size_t now_len);
void *off_je_mallocx(size_t size, int flags);
void off_je_dallocx(void *ptr, int flags);
size_t off_je_nallocx(size_t size, int flags);

static char *base;		/* NULL: never opened, or lost */
static uint64_t span;		/* reserved from there */
static unsigned int arena;
static bool lost;

static uint64_t in_use, tails;	/* committed; of that never touched (2) */
static uint64_t large;		/* what blocks of whole pages hold, less tails */
static uint64_t room;		/* what the allocation under way may commit */
static bool handed;		/* all of it: (3) was done */

/* ---- hooks ------------------------------------------------------------------ */

/* Committed is what it asks for when it wants no more than it needs. */
static void *hook_alloc(extent_hooks_t *hooks, void *at, size_t size,
			size_t alignment, bool *zero, bool *commit,
			unsigned int ind)
{
	if (at || handed || !*commit || size > span || alignment > PAGE)
		return NULL;
	handed = true;
	in_use += size;
	*zero = true;
	return base;
}

static bool hook_commit(extent_hooks_t *hooks, void *at, size_t size,
			size_t offset, size_t len, unsigned int ind)
{
	if (len > room)
		return true;
	in_use += len;
	return false;
}

static bool hook_decommit(extent_hooks_t *hooks, void *at, size_t size,
			  size_t offset, size_t len, unsigned int ind)
{
	if (off_sys_madvise((char *)at + offset, len, MADV_DONTNEED))
		return true;
	in_use -= len;
	return false;
}

static bool hook_split(extent_hooks_t *hooks, void *at, size_t size, size_t a,
		       size_t b, bool committed, unsigned int ind)
{
	return false;
}

static bool hook_merge(extent_hooks_t *hooks, void *a, size_t size_a, void *b,
		       size_t size_b, bool committed, unsigned int ind)
{
	return false;
}

/* The address space stays: no dalloc. */
static extent_hooks_t hooks = {
	.alloc = hook_alloc,
	.commit = hook_commit,
	.decommit = hook_decommit,
	.split = hook_split,
	.merge = hook_merge,
};

/* ---- the arena ----------------------------------------------------------------- */

static int set(const char *what, void *value, size_t len)
{
	char name[64];

	snprintf(name, sizeof(name), "arena.%u.%s", arena, what);
	return off_je_mallctl(name, NULL, NULL, value, len) ? -ENOMEM : 0;
}

/* It gets our hooks when it has its first records already (4). */
static int make_arena(void)
{
	size_t n = sizeof(arena);
	extent_hooks_t *ours = &hooks;
	ssize_t at_once = 0;
	int err = off_je_mallctl("arenas.create", &arena, &n, NULL, 0) ? -ENOMEM : 0;

	if (!err)
		err = set("extent_hooks", &ours, sizeof(ours));
	if (!err)
		err = set("dirty_decay_ms", &at_once, sizeof(at_once));
	if (!err)
		err = set("muzzy_decay_ms", &at_once, sizeof(at_once));
	return err;
}

/* (3). No byte of it is touched. */
static int hand_over(size_t n)
{
	int flags = MALLOCX_ARENA(arena) | MALLOCX_TCACHE_NONE | MALLOCX_ALIGN(PAGE);
	void *all = off_je_mallocx(n, flags);

	if (all)
		off_je_dallocx(all, flags);
	return all ? 0 : -ENOMEM;
}

static void advise(void)
{
	off_sys_madvise(base, span, MADV_NOHUGEPAGE);
	off_sys_madvise(base, span, MADV_DONTDUMP);
	off_sys_madvise(base, span, MADV_DONTFORK);
}

int pool_arena_open(uint64_t bytes)
{
	size_t n = off_je_nallocx(bytes > CHUNK ? bytes : CHUNK, MALLOCX_ALIGN(PAGE));
	int err;

	if (base || lost)
		return base ? 0 : -ENODEV;
	span = n + CHUNK;
	base = n ? reserve_range(span) : NULL;
	if (!base)
		return -ENOMEM;
	advise();
	err = make_arena();
	if (!err)
		err = hand_over(n);
	if (err) {
		off_sys_munmap(base, span);
		base = NULL;
	}
	return err;
}

static int flags_of(size_t n)
{
	size_t align = pool_arena_small(n) ? 64 : PAGE;

	return MALLOCX_ARENA(arena) | MALLOCX_TCACHE_NONE | MALLOCX_ALIGN(align);
}

bool pool_arena_small(size_t n)
{
	return off_je_nallocx(n, MALLOCX_ALIGN(64)) < WHOLE_PAGES;
}

uint64_t pool_arena_bytes(void)
{
	return in_use - tails;
}

uint64_t pool_arena_small_bytes(void)
{
	return in_use - tails - large;
}

static void *alloc_large(size_t n, uint32_t *tail)
{
	uint64_t before = in_use, pages = page_up(n), took;
	void *p;

	if (pages > room)
		return NULL;
	room = UINT64_MAX;	/* it is given more than it will touch (2) */
	p = off_je_mallocx(n, flags_of(n));
	if (!p)
		return NULL;
	took = in_use - before;
	*tail = took > pages ? (uint32_t)(took - pages) : 0;
	tails += *tail;
	large += pages;
	/* One call instead of a fault per page; where it fails, those do it. */
	off_sys_madvise(p, pages, MADV_POPULATE_WRITE);
	return p;
}

void *pool_arena_alloc(size_t n, uint64_t bytes, uint32_t *tail)
{
	void *p;

	*tail = 0;
	if (!base)
		return NULL;
	room = bytes;
	p = pool_arena_small(n) ? off_je_mallocx(n, flags_of(n)) : alloc_large(n, tail);
	room = 0;
	return p;
}

void pool_arena_free(void *p, size_t n, uint32_t tail)
{
	off_assert((char *)p >= base && (char *)p < base + span);
	off_je_dallocx(p, flags_of(n));
	tails -= tail;
	if (!pool_arena_small(n))
		large -= page_up(n);
}

/* ---- forks, mlockall --------------------------------------------------------------- */

void pool_arena_inherit(bool yes)
{
	if (base)
		off_sys_madvise(base, span, yes ? MADV_DOFORK : MADV_DONTFORK);
}

bool pool_arena_renew(void)
{
	void *p;

	if (!base)
		return !lost;
	p = off_sys_mmap(base, span, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			 MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (p == base) {
		advise();
		return true;
	}
	if (p != MAP_FAILED)
		off_sys_munmap(p, span);
	base = NULL;
	lost = true;
	in_use = tails = large = 0;
	return false;
}

void pool_arena_unlock(void)
{
	if (base)
		off_sys_munlock(base, span);
}
