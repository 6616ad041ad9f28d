/* SPDX-License-Identifier: MIT */
/* fork.c - what the child of a fork gets.
 *
 * (1) Regions and frames are MADV_DONTFORK, always: a child made behind our
 *     back gets SIGSEGV where a region was, never zeros (R4).
 * (2) A child we know of gets plain mappings of the files instead, from the
 *     shadow mappings it inherited. It has no pager and needs none; what it
 *     maps itself starts one of its own.
 * (4) The heap, once it is paged, is inherited with the pager held still and
 *     all of it in place or stored: the child starts a pager of its own, on
 *     the same slots, before it runs.
 * (3) Private writable regions are inherited for the moment of the fork, with
 *     the pager held still, so that written pages are there; what was not in
 *     place comes from the shadow. What was is memory without a file: where the
 *     child gives it up (MADV_DONTNEED) its bytes come from the shadow too, not zeros.
 * Lock: region_lock is held from prepare to parent or child; `left` is under it.
 */
#include "core/anon.h"
#include "core/core_int.h"
#include "core/learned.h"
#include "core/pool.h"
#include "core/sites.h"

#include <sys/mman.h>

/* In a child: memory without a file, and where the file's bytes are for it. */
struct left { uintptr_t lo, hi; char *shadow; int prot; };

static bool froze;		/* region_lock */
static struct left *left;
static _Atomic uint32_t n_left;
static uint32_t room_left;

static bool any_writable(void)
{
	bool found = false;

	region_lock();
	for (int i = 0; region_nth(i); i++)
		found |= region_nth(i)->writable && region_nth(i)->state >= REGION_HELD;
	region_unlock();
	return found;
}

static void inherit(int advice)
{
	for (int i = 0; region_nth(i); i++) {
		const struct region *r = region_nth(i);

		if (!r->writable || !r->shadow || r->state < REGION_HELD)
			continue;
		for (int k = 0; k < r->n_ext; k++)
			off_sys_madvise((void *)r->ext[k].lo,
					r->ext[k].hi - r->ext[k].lo, advice);
	}
}

void core_fork_prepare(void)
{
	bool freeze;
	int saved = errno;

	heap_fork_prepare();
	sites_fork_lock();
	anon_fork_lock();
	freeze = keeper_running() && any_writable();
	if (freeze)
		cmd_call(&(struct cmd){ .op = CMD_FREEZE });
	if (freeze)
		anon_fork_open();
	learned_fork_lock();	/* the pager takes it, until it is frozen and idle */
	region_lock();
	froze = freeze;
	if (froze)
		inherit(MADV_DOFORK);
	pool_fork_lock();
	device_fork_prepare();
	mem_fork_prepare();
	errno = saved;
}

void core_fork_parent(void)
{
	bool thaw = froze;
	int saved = errno;

	mem_fork_parent();
	device_fork_parent();
	pool_fork_unlock();
	if (thaw)
		inherit(MADV_DONTFORK);
	region_unlock();
	if (thaw) {
		anon_fork_close();
		cmd_call(&(struct cmd){ .op = CMD_THAW });
	}
	learned_fork_unlock();
	anon_fork_unlock();
	sites_fork_unlock();
	heap_fork_done();
	errno = saved;
}

/* [lo, hi) of r from its shadow. A failure leaves a hole: SIGSEGV, not zeros. */
static void from_shadow(const struct region *r, uintptr_t lo, uintptr_t hi)
{
	if (off_sys_mremap(r->shadow + (lo - r->base), hi - lo, hi - lo,
			   MREMAP_MAYMOVE | MREMAP_FIXED, (void *)lo) == MAP_FAILED)
		off_log("a forked process cannot have %llu KiB of a mapped file at %#lx (%s): it gets SIGSEGV there",
			(unsigned long long)(hi - lo) >> 10, (unsigned long)lo,
			strerrordesc_np(errno));
}

/* ---- left in a child ------------------------------------------------------------ */

static void left_add(uintptr_t lo, uintptr_t hi, char *shadow, int prot)
{
	struct left *last = n_left ? &left[n_left - 1] : NULL, *more;

	if (last && last->hi == lo && last->prot == prot && last->shadow + (last->hi - last->lo) == shadow) {
		last->hi = hi;
		return;
	}
	if (n_left == room_left) {
		more = mem_realloc(left, (room_left + 64) * sizeof(*left));
		if (!more)
			return;
		left = more;
		room_left += 64;
	}
	left[n_left++] = (struct left){ lo, hi, shadow, prot };
}

void fork_left_bounds(uintptr_t *lo, uintptr_t *hi)
{
	for (uint32_t i = 0; i < n_left; i++) {
		*lo = left[i].lo < *lo ? left[i].lo : *lo;
		*hi = left[i].hi > *hi ? left[i].hi : *hi;
	}
}

int fork_left_end(uintptr_t lo, uintptr_t hi, bool discard)
{
	uint32_t n;
	int err = 0;

	if (!n_left)
		return 0;
	region_lock();
	n = n_left;
	for (uint32_t i = 0; i < n; i++) {
		struct left l = left[i];
		uintptr_t a = l.lo > lo ? l.lo : lo, b = l.hi < hi ? l.hi : hi;

		if (a >= b)
			continue;
		if (discard && off_sys_mremap(l.shadow + (a - l.lo), b - a, b - a,
					      MREMAP_MAYMOVE | MREMAP_FIXED, (void *)a) == MAP_FAILED)
			err = -ENOMEM;
		else if (discard)
			off_sys_mprotect((void *)a, b - a, l.prot);
		if (err)
			break;
		left[i].hi = a;
		if (b < l.hi)
			left_add(b, l.hi, l.shadow + (b - l.lo), l.prot);
	}
	for (uint32_t i = 0; i < n_left;)
		if (left[i].lo >= left[i].hi)
			left[i] = left[--n_left];
		else
			i++;
	region_unlock();
	return err;
}

/* What was PLAIN was inherited, written or not; the rest is not there. */
static void restore_writable(const struct region *r)
{
	for (uint32_t c = r->first; c < r->first + r->n; c++) {
		uintptr_t a = chunk_down(r->base) + (uintptr_t)(c - r->first) * CHUNK;
		struct extent piece[MAX_EXTENTS];
		int n = region_pieces(r, a, a + CHUNK, piece);

		for (int i = 0; i < n; i++)
			if (r->state == REGION_HELD || pol_state_of(pg.pol, c) != POL_PLAIN)
				from_shadow(r, piece[i].lo, piece[i].hi);
			else
				left_add(piece[i].lo, piece[i].hi,
					 r->shadow + (piece[i].lo - r->base), r->prot);
	}
	/* Move mode keeps it writable underneath; here nothing needs that. */
	for (int k = 0; k < r->n_ext; k++)
		off_sys_mprotect((void *)r->ext[k].lo, r->ext[k].hi - r->ext[k].lo,
				 r->prot);
}

void core_fork_child(void)
{
	int saved = errno;

	mem_fork_child();
	pool_fork_unlock();
	for (int i = 0; region_nth(i); i++) {
		const struct region *r = region_nth(i);

		if (r->state < REGION_HELD || r->state == REGION_DYING || !r->shadow)
			continue;
		if (r->writable && froze)
			restore_writable(r);
		else
			for (int k = 0; k < r->n_ext; k++)
				from_shadow(r, r->ext[k].lo, r->ext[k].hi);
	}
	region_forget_all();
	froze = false;
	core_unlock_reset();
	cmd_reset();
	keeper_reset();
	watch_reset();
	pager_reset();
	stats_child();
	device_fork_child();
	core_new_owner();
	region_lock_reset();
	learned_fork_unlock();
	anon_fork_unlock();
	sites_fork_child();
	heap_fork_child();
	learned_fork_child();
	anon_fork_child();
	errno = saved;
}
