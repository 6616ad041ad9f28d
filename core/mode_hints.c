/* SPDX-License-Identifier: MIT */
/* mode_hints.c - the program keeps its real mapping; the kernel gets advice.
 *
 *   FETCH    into the page cache                   (READY: cached, unmapped)
 *   INSTALL  MADV_POPULATE_READ: into the mapping  (PLAIN)
 *   EVICT    MADV_DONTNEED and POSIX_FADV_DONTNEED
 *
 * (1) Nothing can go wrong: any page the program touches, the kernel brings.
 * (2) Uses are seen by looking: a page of a chunk that is not mapped by us and
 *     yet present in /proc/self/pagemap was touched by the program.
 * (3) Private writable mappings are left alone: DONTNEED would undo writes.
 * (4) No MADV_RANDOM: it makes populating ten times slower.
 * (5) Where the file system caches huge pages (ext4 from 6.16, xfs) a chunk is
 *     one: all this then costs a fiftieth. They are made by a fault in a mapping
 *     with MADV_HUGEPAGE only, so the file is read through a second mapping, of
 *     ours: in the program's, the use would not be seen any more.
 * (6) What the kernel caches of absent chunks (all that was read before the region
 *     was managed; readahead; tensors that end inside a chunk) is in nobody's budget:
 *     it is counted in rounds and dropped as soon as the budget has no room for it, or
 *     the kernel would have to find room, at each of the program's faults.
 * Lock: none; pager thread.
 */
#include "core/core_int.h"

#include <fcntl.h>
#include <sys/mman.h>

#define ABSENT_PER_LOOK 64	/* absent chunks looked at, in rotation */
#define CLOSE_PER_LOOK	16	/* of these, the first: at all of their pages (6) */

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

/* A page of the pieces [0, n) is present; first: it is enough to look at the first. */
static bool touched(uint32_t c, bool first)
{
	static uint64_t entry[CHUNK / PAGE];
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);

	for (int i = 0; i < n; i++) {
		size_t pages = first ? 1 : (piece[i].hi - piece[i].lo) / PAGE;

		if (pages_read(piece[i].lo, pages * PAGE, entry))
			continue;
		while (pages--)
			if (entry[pages] >> 63)
				return true;
		if (first)
			break;
	}
	return false;
}

/* An absent chunk, once per round of them all (6): a use that its first page does not
 * show, or what the kernel caches for nobody. */
static void look_closely(uint32_t c)
{
	struct origin *o = chunk_region(c)->origin;
	int64_t cached = origin_cached(o, chunk_off(c), chunk_bytes_in_file(c), NULL);
	struct pol_counts pc;

	if (cached == 0)
		return;
	if (touched(c, false)) {
		chunk_use(c);
		return;
	}
	if (cached < 0)
		return;		/* a kernel that cannot say */
	pol_counts(pg.pol, &pc);
	if ((uint64_t)pc.used * CHUNK + unseen >
	    (uint64_t)(pc.frames + HINTS_SLACK / 2) * CHUNK)
		off_sys_fadvise(o->fd, (off_t)chunk_off(c), chunk_bytes_in_file(c),
				POSIX_FADV_DONTNEED);
	else
		seeing += (uint64_t)cached;
}

/* Looks at chunks the program may be about to use: every one that is fetched
 * and not mapped, and some absent ones in turn (a jump out of the order). */
static void watch(void)
{
	static uint32_t turn;
	uint32_t absent = 0, close = 0;

	pages_open();
	for (int i = 0; region_nth(i); i++) {
		const struct region *r = region_nth(i);

		for (uint32_t k = 0; r->state == REGION_LIVE && k < r->n; k++) {
			uint32_t c = r->first + k;
			enum pol_state st = pol_state_of(pg.pol, c);

			if (st == POL_PLAIN)
				continue;
			if (st != POL_ABSENT) {
				if (touched(c, true))
					chunk_use(c);
				continue;
			}
			absent++;
			if (absent <= turn || absent > turn + ABSENT_PER_LOOK)
				continue;
			if (absent <= turn + CLOSE_PER_LOOK) {
				look_closely(c);
				close++;
			} else if (touched(c, true))
				chunk_use(c);
		}
	}
	if (close == CLOSE_PER_LOOK) {
		turn += CLOSE_PER_LOOK;
		return;
	}
	turn = 0;
	unseen = seeing;
	seeing = 0;
}

const struct mode_ops mode_hints = {
	.name = "hints",
	.fetch = fetch, .install = install, .soften = soften, .evict = evict,
	.watch = watch,
};
