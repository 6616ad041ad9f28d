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
 *     program's faults. What cannot be dropped is mapped by others, and theirs.
 * Lock: none; pager thread.
 */
#include "core/core_int.h"

#include <fcntl.h>
#include <sys/mman.h>

#define ABSENT_PER_LOOK 64u	/* absent chunks looked at, in turn */
#define CLOSE_PER_LOOK	16u	/* and at all of their pages (6), in a turn of their own */
#define CLOSE_NS	5000000ull	/* at most so often: 20 us each where they are cached */

static uint64_t unseen;		/* cached bytes of absent chunks, as of the last round */
static uint64_t seeing;		/* of this round */

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

	pg.chunk[c].flags &= (uint16_t)~(CH_CACHED | CH_OTHERS);
	stat_add(ST_IO_READS, 1);
	stat_add(ST_IO_BUFFERED, job.len);
	return pg.io->submit(&job);
}

static int install(uint32_t c)
{
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);

	for (int i = 0; i < n; i++)	/* fails only as advice does */
		off_sys_madvise((void *)piece[i].lo, piece[i].hi - piece[i].lo,
				MADV_POPULATE_READ);
	return 0;
}

static void unmap_pages(uint32_t c)
{
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);

	for (int i = 0; i < n; i++)
		off_sys_madvise((void *)piece[i].lo, piece[i].hi - piece[i].lo,
				MADV_DONTNEED);
}

static int soften(uint32_t c)
{
	unmap_pages(c);
	return 0;
}

static int evict(uint32_t c, enum pol_state from)
{
	unmap_pages(c);
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

/* At the ends of its pieces: what runs through a chunk runs through these. */
static bool touched(uint32_t c)
{
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);

	for (int i = 0; i < n; i++)
		if (present(piece[i].lo, 1) || present(piece[i].hi - PAGE, 1))
			return true;
	return false;
}

static bool touched_anywhere(uint32_t c)
{
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);

	for (int i = 0; i < n; i++)
		if (present(piece[i].lo, (piece[i].hi - piece[i].lo) / PAGE))
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

	if (touched_anywhere(c)) {
		chunk_use(c);
		return;
	}
	if (there <= 0) {
		*flags &= (uint16_t)~(CH_CACHED | CH_OTHERS);
		return;
	}
	if (*flags & CH_OTHERS)
		return;
	if (!(*flags & CH_CACHED) || !over()) {
		*flags |= CH_CACHED;
		seeing += (uint64_t)there;
		return;
	}
	uncache(c);
	*flags &= (uint16_t)~CH_CACHED;
	if (cached(c) > there / 2)
		*flags |= CH_OTHERS;
	unseen -= unseen < (uint64_t)there ? unseen : (uint64_t)there;
}

/* ---- looking ---------------------------------------------------------------------- */

/* Looks at chunks the program may be about to use: every one that is fetched
 * and not mapped, and some absent ones in turn (a jump out of the order). */
static void watch(void)
{
	static uint32_t quick, close;
	static uint64_t closely_at;
	uint64_t now = now_ns();
	bool closely = now - closely_at >= CLOSE_NS;
	uint32_t absent = 0;

	pages_open();
	for (int i = 0; region_nth(i); i++) {
		const struct region *r = region_nth(i);

		for (uint32_t k = 0; r->state == REGION_LIVE && k < r->n; k++) {
			uint32_t c = r->first + k, number;
			enum pol_state st = pol_state_of(pg.pol, c);

			if (st == POL_PLAIN)
				continue;
			number = st == POL_ABSENT ? absent++ : quick;
			if (st == POL_ABSENT && closely && number - close < CLOSE_PER_LOOK)
				look_closely(c);
			else if (number - quick < ABSENT_PER_LOOK && touched(c))
				chunk_use(c);
		}
	}
	quick = quick + ABSENT_PER_LOOK < absent ? quick + ABSENT_PER_LOOK : 0;
	if (!closely)
		return;
	closely_at = now;
	close += CLOSE_PER_LOOK;
	if (close < absent)
		return;
	close = 0;
	unseen = seeing;
	seeing = 0;
}

const struct mode_ops mode_hints = {
	.name = "hints",
	.fetch = fetch, .install = install, .soften = soften, .evict = evict,
	.watch = watch,
};
