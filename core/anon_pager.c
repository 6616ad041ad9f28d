/* SPDX-License-Identifier: MIT */
/* anon_pager.c - the heap's chunks, as the pager sees them.
 *
 *   EMPTY --fault--> zeros in place: PLAIN --anon_io.c--> EMPTY, or ABSENT
 *
 * (1) EMPTY chunks are unknown to the policy: nothing is read ahead for them,
 *     and no frame is theirs.
 * (2) A missing page of a PLAIN chunk is always owed zeros: the kernel's zero page.
 *     A whole chunk of zeros is a frame: it is to be written, likely.
 * (3) A chunk that is cleared while it is busy is `gone`: who touches it waits
 *     until that is over, for its frame is not ours to give yet.
 * (4) Memory that came by small pages is given to the kernel when it is free
 *     (split): frames are recycled as huge pages only.
 * Owns the table. Lock: none; pager thread.
 */
#include "core/anon.h"
#include "core/anon_int.h"
#include "core/core_int.h"
#include "core/pool.h"
#include "core/spill.h"

#include <sys/mman.h>
#include <unistd.h>

#define SHED_LOOKS	256
#define COLLAPSE_TRIES	64	/* in vain: kernels before 6.1, or no huge pages */

#define ANON_ORDER	(1U << 24)	/* after every span of a file */

static struct anon_chunk *table;	/* by chunk - first */
static uint32_t first;

struct anon_chunk *anon_at(uint32_t c)
{
	return &table[c - first];
}

char *anon_frame(uint32_t c)
{
	return frames_at(pg.chunk[c].slot - 1);
}

void anon_put_frame(uint32_t c)
{
	struct chunk *ch = &pg.chunk[c];

	if (ch->slot)
		frames_put(ch->slot - 1, anon_at(c)->split);
	ch->slot = 0;
}

/* ---- empty, and known ----------------------------------------------------------- */

void anon_forget(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);

	if (a->has_ref)
		spill_free(a->ref, CHUNK);
	if (a->store == STORE_POOL)
		pool_free(a->slot);
	if (a->bounce)
		origin_put(a->bounce);
	origin_forget(a->source);
	*a = (struct anon_chunk){ 0 };
}

void anon_empty(uint32_t c)
{
	struct chunk *ch = &pg.chunk[c];

	anon_forget(c);
	*ch = (struct chunk){ .region = ch->region, .flags = CH_FORGOTTEN };
}

void anon_make_known(uint32_t c)
{
	pg.chunk[c].flags = 0;
	anon_at(c)->store = STORE_ZERO;
	pol_add(pg.pol, c, 1, CHUNK, (uint64_t)(c - first) * CHUNK, NULL, 0, ANON_ORDER);
}

bool anon_packed(uint32_t c)
{
	return anon_at(c)->store == STORE_POOL;
}

size_t anon_chunk_bytes(void)
{
	return table ? sizeof(*table) : 0;
}

void anon_tell_skew(uint32_t c)
{
	struct pol_span s = { .len = CHUNK, .layer = UINT32_MAX, .expert = UINT32_MAX,
			      .pattern = POL_SKEW };

	pol_add(pg.pol, c, 1, CHUNK, 0, &s, 1, 0);
	anon_at(c)->skew = true;
}

void anon_chunk_init(struct region *r, uint32_t from, uint32_t to)
{
	int index = 0;

	while (region_nth(index) != r)
		index++;
	for (uint32_t c = from; c < to; c++) {
		pg.chunk[c] = (struct chunk){ .region = (uint16_t)index,
					      .flags = CH_FORGOTTEN };
		*anon_at(c) = (struct anon_chunk){ 0 };
	}
}

int anon_add(struct region *r, bool adopt)
{
	if (!table)
		table = reserve_range((MAX_CHUNKS - r->first) * sizeof(*table));
	if (!table || pages_open())
		return -ENOMEM;
	first = r->first;
	anon_io_reset();
	if (!adopt)
		anon_chunk_init(r, r->first, r->first + r->n);
	return 0;
}

int anon_grown(struct region *r, uintptr_t lo, uintptr_t hi)
{
	uint32_t from = first + (uint32_t)((lo - r->base) / CHUNK);
	uint32_t to = first + (uint32_t)((hi - r->base) / CHUNK);
	int err = anon_register(lo, hi);

	if (err)
		return err;
	anon_chunk_init(r, from, to);
	region_lock();
	if (to > r->first + r->n)
		r->n = to - r->first;
	region_unlock();
	return 0;
}

void anon_make_plain(uint32_t c, enum store store)
{
	anon_make_known(c);
	anon_at(c)->store = store;
	anon_at(c)->split = true;	/* the kernel's pages */
	pg.chunk[c].slot = frames_get_bare() + 1;
	chunk_moved(c, POL_PLAIN);
}

void anon_go_on(struct region *r)
{
	region_lock();
	r->state = REGION_LIVE;
	region_unlock();
	pg.heap = r;
	uffd_wake(r->base, (size_t)r->n * CHUNK);	/* who faulted while HELD */
	stat_add(ST_HOST_CONVERTED, 1);
}

int anon_go(struct region *r)
{
	uint64_t map[CHUNK / PAGE / 64];

	for (uint32_t c = r->first; c < r->first + r->n; c++)
		if (!anon_lost(c - r->first) && pages_there(c, map))
			anon_make_plain(c, STORE_NONE);
	anon_go_on(r);
	return 0;
}

/* ---- faults -------------------------------------------------------------------- */

bool anon_fault(uint32_t c, uintptr_t addr)
{
	struct chunk *ch = &pg.chunk[c];
	struct anon_chunk *a = anon_at(c);

	if (a->gone)
		return true;	/* woken when that is over */
	if (ch->flags & CH_FORGOTTEN) {
		anon_make_known(c);
		pol_born(pg.pol, c);
		stat_add(ST_FAULTS_ZERO, 1);
		return false;
	}
	if (pol_state_of(pg.pol, c) == POL_ABSENT && a->rewritten && !a->skew)
		anon_tell_skew(c);
	if (pol_state_of(pg.pol, c) != POL_PLAIN)
		return false;
	zero_from(c, page_down(addr));
	uffd_wake(page_down(addr), PAGE);	/* it may have been there */
	return true;
}

/* ---- cleared ----------------------------------------------------------------------- */

static void drop(uint32_t c)
{
	struct chunk *ch = &pg.chunk[c];
	struct anon_chunk *a = anon_at(c);

	if (ch->flags & CH_FORGOTTEN)
		return;
	if (a->busy == BUSY_QUEUED)
		anon_unqueue(c);
	if (pol_state_of(pg.pol, c) == POL_PLAIN) {
		off_sys_madvise((void *)chunk_addr(c), CHUNK, MADV_DONTNEED);
		pg.plain--;
		a->split = true;	/* nothing of it comes back to its slot */
	}
	if (a->wanted)
		chunk_landed(c);
	a->wanted = false;
	if (a->busy) {
		a->gone = true;
		*ch = (struct chunk){ .region = ch->region, .slot = ch->slot,
				      .flags = CH_FORGOTTEN };
		return;
	}
	anon_put_frame(c);
	anon_empty(c);
	uffd_wake(chunk_addr(c), CHUNK);	/* who faulted on it looks again */
}

/* Part of a chunk. False: it is not in place. */
static bool drop_part(uint32_t c, uintptr_t lo, uintptr_t hi)
{
	if (pg.chunk[c].flags & CH_FORGOTTEN)
		return true;
	if (pol_state_of(pg.pol, c) != POL_PLAIN ||
	    off_sys_madvise((void *)lo, hi - lo, MADV_DONTNEED))
		return false;
	anon_at(c)->split = true;
	return true;
}

int anon_cleared(struct region *r, uintptr_t lo, uintptr_t hi)
{
	uintptr_t inner_lo = chunk_down(lo + CHUNK - 1), inner_hi = chunk_down(hi);
	uint32_t from = first + (uint32_t)((inner_lo - r->base) / CHUNK);
	int left = 0;

	if (r->state == REGION_HELD)	/* what is there is not known yet */
		return off_sys_madvise((void *)lo, hi - lo, MADV_DONTNEED) ? 4 : 0;
	if (lo < inner_lo) {
		uintptr_t end = hi < inner_lo ? hi : inner_lo;

		left |= drop_part(from - 1, lo, end) ? 0 : 1;
	}
	if (inner_lo < inner_hi) {
		uint32_t n = (uint32_t)((inner_hi - inner_lo) / CHUNK);

		for (uint32_t c = from; c < from + n; c++)
			drop(c);
		pol_remove(pg.pol, from, n);
	}
	if (inner_hi < hi && inner_hi >= inner_lo) {
		uint32_t c = first + (uint32_t)((inner_hi - r->base) / CHUNK);

		left |= drop_part(c, inner_hi, hi) ? 0 : 2;
	}
	return left;
}

/* ---- pages --------------------------------------------------------------------------- */

void anon_collapse(uint32_t c)
{
	static int in_vain;

	if (in_vain >= COLLAPSE_TRIES || torture())
		return;
	if (off_sys_madvise((void *)chunk_addr(c), CHUNK, MADV_COLLAPSE)) {
		in_vain += errno != EAGAIN;
		return;
	}
	in_vain = 0;
	anon_at(c)->split = false;
}

/* ---- the pool ------------------------------------------------------------------------ */

void anon_unpool(struct anon_chunk *a)
{
	pool_free(a->slot);
	a->store = a->source ? STORE_ORIGIN : a->has_ref ? STORE_SPILL : STORE_NONE;
}

/* Can its packed copy go? What stays in place does not need it; over: nor does what can be
 * had again otherwise. */
static bool sheds(uint32_t c, bool over)
{
	const struct anon_chunk *a = anon_at(c);

	return a->store == STORE_POOL && !a->busy &&
	       (pol_stays(pg.pol, c) || (over && (a->source || a->has_ref)));
}

bool anon_spare_copy(void)
{
	static uint32_t at;
	struct region *r = pg.heap;

	for (uint32_t i = 0; r && i < r->n; i++) {
		struct anon_chunk *a;

		at = at + 1 < r->n ? at + 1 : 0;
		a = anon_at(r->first + at);
		if (a->store != STORE_POOL || a->busy || !a->has_ref)
			continue;
		spill_free(a->ref, CHUNK);
		a->has_ref = false;
		return true;
	}
	return false;
}

void anon_shed(bool over)
{
	static uint32_t at;
	struct region *r = pg.heap;

	for (uint32_t i = 0; r && i < SHED_LOOKS && i < r->n; i++) {
		at = at + 1 < r->n ? at + 1 : 0;
		if (sheds(r->first + at, over))
			anon_unpool(anon_at(r->first + at));
	}
}
