/* SPDX-License-Identifier: MIT */
/* region.c - the table of regions: who owns which addresses.
 *
 *   FREE --region_new--> WATCHED --convert--> HELD --> LIVE --> DYING
 *     ^                                                  \--> UNDOING --^|
 *     +------- pager, when no read is in flight and users is 0 ---------+
 *
 * (1) A region never grows or moves; pieces are cut out of it by the
 *     program's munmap or MAP_FIXED, and what is cut is never touched again.
 * (2) A thread that lets go of the lock while it works on a region raises
 *     `users` first: the pager frees no entry that somebody looks at.
 * (3) `bounds` encloses every region, so that a call on memory that is not
 *     ours costs two loads.
 * Lock: region_lock, rank 1, for everything but region_any. Leaf: nothing is
 * called with it held that waits.
 */
#include "core/anon.h"
#include "core/core_int.h"

#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct region table[MAX_REGIONS];
static _Atomic int table_used;		/* highest index in use + 1; the pager looks unlocked */
static _Atomic uintptr_t bound_lo = UINTPTR_MAX, bound_hi;

static _Atomic uint32_t lock_word;	/* 0 free, 1 held, 2 contended */
static sigset_t lock_mask;		/* of the holder */

void region_lock(void)
{
	sigset_t all, old;
	uint32_t free_word = 0;

	if (!library_thread()) {	/* ours have them blocked already */
		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, &old);
	}
	if (!atomic_compare_exchange_strong(&lock_word, &free_word, 1)) {
		while (atomic_exchange(&lock_word, 2))
			syscall(SYS_futex, &lock_word, FUTEX_WAIT_PRIVATE, 2,
				NULL, NULL, 0);
	}
	if (!library_thread())
		lock_mask = old;
}

void region_unlock(void)
{
	sigset_t old;

	if (!library_thread())
		old = lock_mask;
	if (atomic_exchange(&lock_word, 0) == 2)
		syscall(SYS_futex, &lock_word, FUTEX_WAKE_PRIVATE, 1, NULL,
			NULL, 0);
	if (!library_thread())
		pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* The child of a fork whose parent held the lock in core_fork_prepare. */
void region_lock_reset(void)
{
	atomic_store(&lock_word, 1);
	region_unlock();
}

void region_put(struct region *r)
{
	region_lock();
	r->users--;
	region_unlock();
}

bool region_any(const void *addr, size_t len)
{
	uintptr_t a = (uintptr_t)addr;

	return a < atomic_load_explicit(&bound_hi, memory_order_acquire) &&
	       a + len > atomic_load_explicit(&bound_lo, memory_order_acquire);
}

static void bounds_update(void)
{
	uintptr_t lo = UINTPTR_MAX, hi = 0;

	for (int i = 0; i < table_used; i++) {
		const struct region *r = &table[i];

		if (r->state == REGION_FREE || r->state == REGION_DYING)
			continue;
		lo = r->base < lo ? r->base : lo;
		hi = r->end > hi ? r->end : hi;
	}
	fork_left_bounds(&lo, &hi);
	atomic_store(&bound_lo, lo);
	atomic_store(&bound_hi, hi);
}

struct region *region_new(uintptr_t base, size_t len)
{
	struct region *r = NULL;

	off_assert(!(base % PAGE) && !(len % PAGE) && len);
	for (int i = 0; i < MAX_REGIONS && !r; i++)
		if (table[i].state == REGION_FREE)
			r = &table[i];
	if (!r)
		return NULL;
	memset(r, 0, sizeof(*r));
	r->base = base;
	r->end = base + len;
	r->n_ext = 1;
	r->ext[0] = (struct extent){ base, base + len };
	r->state = REGION_WATCHED;
	if (r - table >= table_used)
		table_used = (int)(r - table) + 1;
	bounds_update();
	return r;
}

void region_free(struct region *r)
{
	r->state = REGION_FREE;
	while (table_used && table[table_used - 1].state == REGION_FREE)
		table_used--;
	bounds_update();
}

struct region *region_nth(int i)
{
	return i < table_used ? &table[i] : NULL;
}

static bool holds(const struct region *r, uintptr_t addr)
{
	for (int i = 0; i < r->n_ext; i++)
		if (addr >= r->ext[i].lo && addr < r->ext[i].hi)
			return true;
	return false;
}

struct region *region_at(uintptr_t addr)
{
	for (int i = 0; i < table_used; i++) {
		struct region *r = &table[i];

		if (r->state != REGION_FREE && r->state != REGION_DYING &&
		    addr >= r->base && addr < r->end && holds(r, addr))
			return r;
	}
	return NULL;
}

int region_cut(struct region *r, uintptr_t lo, uintptr_t hi)
{
	struct extent keep[MAX_EXTENTS + 1];
	int n = 0;

	for (int i = 0; i < r->n_ext; i++) {
		struct extent e = r->ext[i];

		if (e.hi <= lo || e.lo >= hi) {
			keep[n++] = e;
			continue;
		}
		if (e.lo < lo)
			keep[n++] = (struct extent){ e.lo, lo };
		if (e.hi > hi)
			keep[n++] = (struct extent){ hi, e.hi };
	}
	if (n > MAX_EXTENTS)
		return -ENOSPC;
	memcpy(r->ext, keep, (size_t)n * sizeof(keep[0]));
	r->n_ext = n;
	return 0;
}

int region_pieces(const struct region *r, uintptr_t lo, uintptr_t hi,
		  struct extent *out)
{
	int n = 0;

	for (int i = 0; i < r->n_ext; i++) {
		uintptr_t a = r->ext[i].lo > lo ? r->ext[i].lo : lo;
		uintptr_t b = r->ext[i].hi < hi ? r->ext[i].hi : hi;

		if (a < b)
			out[n++] = (struct extent){ a, b };
	}
	return n;
}

bool region_covers(const struct region *r, uintptr_t lo, uintptr_t hi)
{
	for (int i = 0; i < r->n_ext; i++)
		if (lo >= r->ext[i].lo && hi <= r->ext[i].hi)
			return true;
	return false;
}

uint64_t region_size(const struct region *r)
{
	uint64_t sum = 0;

	for (int k = 0; k < r->n_ext; k++)
		sum += r->ext[k].hi - r->ext[k].lo;
	return r->anon ? heap_used() : sum;
}

uint64_t region_bytes(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < table_used; i++) {
		const struct region *r = &table[i];

		if (r->state == REGION_FREE || r->state == REGION_DYING)
			continue;
		sum += region_size(r);
	}
	return sum;
}

void region_forget_all(void)
{
	memset(table, 0, sizeof(table[0]) * (size_t)table_used);
	table_used = 0;
	bounds_update();
}
