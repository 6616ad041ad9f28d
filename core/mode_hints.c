/* SPDX-License-Identifier: MIT */
/* mode_hints.c - the program keeps its real mapping; the kernel gets advice.
 *
 *   FETCH    into the page cache                   (READY: cached, unmapped)
 *   INSTALL  MADV_POPULATE_READ: into the mapping  (PLAIN)
 *   EVICT    MADV_DONTNEED and POSIX_FADV_DONTNEED
 *
 * (1) Nothing can go wrong: any page the program touches, the kernel brings.
 * (2) Uses are seen by looking: the first page of a chunk that is not mapped
 *     by us and yet present in /proc/self/pagemap was touched by the program.
 * (3) Private writable mappings are left alone: DONTNEED would undo writes.
 * (4) No MADV_RANDOM: it makes populating ten times slower.
 * (5) Where the file system caches huge pages (ext4 from 6.16, xfs) a chunk is
 *     one: all this then costs a fiftieth. They are made by a fault in a mapping
 *     with MADV_HUGEPAGE only, so the file is read through a second mapping, of
 *     ours: in the program's, the use would not be seen any more.
 * Lock: none; pager thread.
 */
#include "core/core_int.h"

#include <fcntl.h>
#include <sys/mman.h>

#define ABSENT_PER_LOOK 64	/* absent chunks looked at, in rotation */

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

static bool touched(uint32_t c)
{
	struct extent piece[MAX_EXTENTS];
	uint64_t entry;

	return chunk_pieces(c, piece) && !pages_read(piece[0].lo, PAGE, &entry) &&
		entry >> 63;
}

/* Looks at chunks the program may be about to use: every one that is fetched
 * and not mapped, and a few absent ones in turn (a jump out of the order). */
static void watch(void)
{
	static uint32_t turn;
	uint32_t absent = 0, seen = 0;

	pages_open();
	for (int i = 0; region_nth(i); i++) {
		const struct region *r = region_nth(i);

		for (uint32_t k = 0; r->state == REGION_LIVE && k < r->n; k++) {
			uint32_t c = r->first + k;
			enum pol_state st = pol_state_of(pg.pol, c);

			if (st == POL_PLAIN)
				continue;
			if (st == POL_ABSENT) {
				absent++;
				if (absent <= turn || absent > turn + ABSENT_PER_LOOK)
					continue;
				seen++;
			}
			if (touched(c))
				chunk_use(c);
		}
	}
	turn = seen < ABSENT_PER_LOOK ? 0 : turn + ABSENT_PER_LOOK;
}

const struct mode_ops mode_hints = {
	.name = "hints",
	.fetch = fetch, .install = install, .soften = soften, .evict = evict,
	.watch = watch,
};
