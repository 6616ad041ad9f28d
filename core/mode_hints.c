/* SPDX-License-Identifier: MIT */
/* mode_hints.c - the program keeps its real mapping; the kernel gets advice.
 *
 *   FETCH    into the page cache                   (READY: cached, unmapped)
 *   INSTALL  MADV_POPULATE_READ: into the mapping  (PLAIN)
 *   EVICT    MADV_DONTNEED and POSIX_FADV_DONTNEED
 *
 * (1) Nothing can go wrong: any page the program touches, the kernel brings.
 * (2) Uses are seen by looking: a page of a chunk that is not mapped by us and
 *     yet present in /proc/self/pagemap was touched by the program. Its ends are
 *     looked at often, all of it in (6).
 * (3) Private writable mappings are left alone: DONTNEED would undo writes.
 * (4) No MADV_RANDOM: it makes populating ten times slower.
 * (5) Where the file system caches huge pages (ext4 from 6.16, xfs) a chunk is
 *     one: all this then costs a fiftieth. They are made by a fault in a mapping
 *     with MADV_HUGEPAGE only, so the file is read through a second mapping, of
 *     ours: in the program's, the use would not be seen any more.
 * (6) What the kernel caches of absent chunks (all that was read before the region
 *     was managed; readahead; tensors that end inside a chunk) is in nobody's budget:
 *     it is counted in rounds, and dropped where the budget has no room for it and it
 *     was there a round ago, too: or the kernel would have to find room, at each of the
 *     program's faults. What cannot be dropped is mapped by others, and theirs, or
 *     being written: asked about again some rounds later.
 * Lock: none; pager thread.
 */
#include "core/core_int.h"

#include <fcntl.h>
#include <sys/mman.h>

#define ABSENT_PER_LOOK 64u	/* absent chunks looked at, in turn */
#define CLOSE_PER_LOOK	16u	/* and at all of their pages (6), in a turn of their own */
#define CLOSE_NS	5000000ull	/* at most so often: 20 us each where they are cached */
#define OTHERS_ROUNDS	16u

static uint64_t unseen;		/* cached bytes of absent chunks, as of the last round */
static uint64_t seeing;		/* of this round */
static uint32_t rounds;

/* Absent chunks are looked at in turn: some of them a time, from where it was left. */
struct turn { uint64_t from, last; uint32_t n; };
static struct turn quick, close;

static void less(uint64_t *sum, uint64_t bytes)
{
	*sum -= *sum < bytes ? *sum : bytes;
}

static uint64_t place_of(uint32_t c)
{
	return (uint64_t)pg.chunk[c].region << 32 | (c - chunk_region(c)->first);
}

/* What was counted of it is from now on counted there. */
static void in_frame(uint32_t c, uint64_t bytes)
{
	less(&unseen, bytes);
	if (place_of(c) < close.from)
		less(&seeing, bytes);
}

static int fetch(uint32_t c)
{
	const struct region *r = chunk_region(c);
	uintptr_t a = chunk_addr(c);
	struct io_job job = {
		.kind = IO_READAHEAD, .fd = r->origin->fd,
		.off = chunk_off(c), .len = chunk_bytes_in_file(c), .chunk = c,
	};

	if (r->huge && a >= r->base && a + job.len <= r->end) {
		job.kind = IO_POPULATE;
		job.buf = r->huge + (a - r->base);
	}

	if (pg.chunk[c].flags & CH_CACHED)
		in_frame(c, job.len);
	pg.chunk[c].flags &= (uint16_t)~(CH_CACHED | CH_OTHERS);
	stat_add(ST_IO_READS, 1);
	stat_add(ST_IO_BUFFERED, job.len);
	return pg.io->submit(&job);
}

/* It fails only as advice does. */
static void advise(uint32_t c, int advice)
{
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);

	for (int i = 0; i < n; i++)
		off_sys_madvise((void *)piece[i].lo, piece[i].hi - piece[i].lo, advice);
}

static int install(uint32_t c)
{
	advise(c, MADV_POPULATE_READ);
	return 0;
}

static int soften(uint32_t c)
{
	advise(c, MADV_DONTNEED);
	return 0;
}

static int evict(uint32_t c, enum pol_state from)
{
	advise(c, MADV_DONTNEED);
	off_sys_fadvise(chunk_region(c)->origin->fd, (off_t)chunk_off(c),
			chunk_bytes_in_file(c), POSIX_FADV_DONTNEED);
	return 0;
}

static bool present(uintptr_t at, size_t pages)
{
	static uint64_t entry[CHUNK / PAGE];

	if (pages_read(at, pages * PAGE, entry))
		return false;
	while (pages--)
		if (entry[pages] >> 63)
			return true;
	return false;
}

/* In all of its pieces, or at their ends: what runs through a chunk runs through these. */
static bool touched(uint32_t c, bool anywhere)
{
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);

	for (int i = 0; i < n; i++)
		if (anywhere ? present(piece[i].lo, (piece[i].hi - piece[i].lo) / PAGE) :
		    present(piece[i].lo, 1) || present(piece[i].hi - PAGE, 1))
			return true;
	return false;
}

/* ---- what the kernel caches for nobody (6) ------------------------------------- */

/* Of its pieces, in bytes; below 0: the kernel cannot say. */
static int64_t cached(uint32_t c)
{
	struct origin *o = chunk_region(c)->origin;
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);
	int64_t sum = 0;

	for (int i = 0; i < n; i++) {
		int64_t one = origin_cached(o, chunk_off(c) + (piece[i].lo - chunk_addr(c)),
					    piece[i].hi - piece[i].lo, NULL);

		if (one < 0)
			return one;
		sum += one;
	}
	return sum;
}

static void uncache(uint32_t c)
{
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);

	for (int i = 0; i < n; i++)
		off_sys_fadvise(chunk_region(c)->origin->fd,
				(off_t)(chunk_off(c) + (piece[i].lo - chunk_addr(c))),
				(off_t)(piece[i].hi - piece[i].lo), POSIX_FADV_DONTNEED);
}

static bool over(void)
{
	struct pol_counts pc;

	pol_counts(pg.pol, &pc);
	return (uint64_t)pc.used * CHUNK + unseen >
		(uint64_t)(pc.frames + HINTS_SLACK / 2) * CHUNK;
}

/* An absent chunk, once in a round of them all. */
static void look_closely(uint32_t c)
{
	uint16_t *flags = &pg.chunk[c].flags;
	int64_t there = cached(c);

	if (touched(c, true)) {
		chunk_use(c);
		return;
	}
	if (there <= 0) {
		*flags &= (uint16_t)~(CH_CACHED | CH_OTHERS);
		return;
	}
	if (*flags & CH_OTHERS) {
		if (rounds % OTHERS_ROUNDS || !over())
			return;
		uncache(c);
		if (cached(c) <= there / 2)
			*flags &= (uint16_t)~CH_OTHERS;
		return;
	}
	if (!(*flags & CH_CACHED) || !over()) {
		*flags |= CH_CACHED;
		seeing += (uint64_t)there;
		return;
	}
	uncache(c);
	*flags &= (uint16_t)~CH_CACHED;
	if (cached(c) > there / 2)
		*flags |= CH_OTHERS;
	less(&unseen, (uint64_t)there);
}

/* ---- looking ---------------------------------------------------------------------- */

static bool is_next(struct turn *t, uint64_t place, uint32_t most)
{
	if (place < t->from || t->n >= most)
		return false;
	t->last = place;
	t->n++;
	return true;
}

/* True: that was the last of a round. */
static bool end_turn(struct turn *t, uint32_t most)
{
	bool end = t->n < most;

	*t = (struct turn){ .from = end ? 0 : t->last + 1 };
	return end;
}

static void end_round(void)
{
	unseen = seeing;
	seeing = 0;
	rounds++;
}

/* Looks at chunks the program may be about to use: every one that is fetched
 * and not mapped, and some absent ones in turn (a jump out of the order). */
static void watch(void)
{
	static uint64_t closely_at;
	uint64_t now = now_ns();
	bool closely = now - closely_at >= CLOSE_NS;

	pages_open();
	for (int i = 0; region_nth(i); i++) {
		const struct region *r = region_nth(i);

		for (uint32_t k = 0; r->state == REGION_LIVE && k < r->n; k++) {
			uint32_t c = r->first + k;
			uint64_t place = place_of(c);
			enum pol_state st = pol_state_of(pg.pol, c);

			if (st == POL_ABSENT && closely && is_next(&close, place, CLOSE_PER_LOOK))
				look_closely(c);
			else if (st != POL_PLAIN &&
				 (st != POL_ABSENT || is_next(&quick, place, ABSENT_PER_LOOK)) &&
				 touched(c, false))
				chunk_use(c);
		}
	}
	end_turn(&quick, ABSENT_PER_LOOK);
	if (closely)
		closely_at = now;
	if (closely && end_turn(&close, CLOSE_PER_LOOK))
		end_round();
}

const struct mode_ops mode_hints = {
	.name = "hints",
	.fetch = fetch, .install = install, .soften = soften, .evict = evict,
	.watch = watch,
};
