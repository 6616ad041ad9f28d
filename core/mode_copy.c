/* SPDX-License-Identifier: MIT */
/* mode_copy.c - chunks go in by UFFDIO_COPY and out by MADV_DONTNEED
 * (kernels before 6.8: Debian 12, WSL2, RHEL 9).
 *
 * (1) A frame only stages a read; it is free again once copied.
 * (2) The range keeps the program's protection. Private writable ones come in
 *     write-protected, and before one is dropped it is protected again: a
 *     write then waits for this thread, so what is hashed is what is dropped.
 * (3) READY after PLAIN would need a copy back: soften is not offered.
 * Lock: none; pager thread.
 */
#include "core/core_int.h"

#include <sys/mman.h>

static int fetch(uint32_t c)
{
	return mode_move.fetch(c);	/* into a frame: the same */
}

static int copy_all(uintptr_t dst, uintptr_t src, size_t len, bool wp)
{
	size_t done = 0, step;
	int again = 0;

	while (done < len) {
		int err = uffd_copy(dst + done, src + done, len - done, wp, &step);

		done += step;
		if (err == -EAGAIN && pager_again(&again))
			continue;
		if (err == -EEXIST && !step)
			done += PAGE;	/* there already: left by a failed DONTNEED */
		else if (err && err != -EEXIST)
			return err;
	}
	return 0;
}

static int install(uint32_t c)
{
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);
	uintptr_t frame = (uintptr_t)frames_at(pg.chunk[c].slot - 1);

	const struct region *r = chunk_region(c);
	bool wp = r->writable && !r->anon;	/* there hashes tell what was written */

	for (int i = 0; i < n; i++) {
		int err = copy_all(piece[i].lo, frame + (piece[i].lo - chunk_addr(c)),
				   piece[i].hi - piece[i].lo, wp);

		if (err)
			return err;
	}
	chunk_drop_frame(c);
	return 0;
}

static int soften(uint32_t c)
{
	return -ENOTSUP;
}

/* All its pages are there, so that looking at them cannot fault. */
static bool all_present(uint32_t c)
{
	unsigned char vec[CHUNK / PAGE];
	uintptr_t a = chunk_addr(c);
	size_t pages = page_up(chunk_bytes_in_file(c)) / PAGE;

	if (off_sys_mincore((void *)a, pages * PAGE, vec))
		return false;
	for (size_t i = 0; i < pages; i++)
		if (!(vec[i] & 1))
			return false;
	return true;
}

static int protect_pieces(const struct extent *piece, int n, bool on)
{
	int err = 0;

	for (int i = 0; i < n; i++) {
		int e = uffd_protect(piece[i].lo, piece[i].hi - piece[i].lo, on);

		err = err ? err : e;
	}
	return err;
}

/* 0: clean, protected. -EUCLEAN: written. -EBUSY: cannot tell. */
static int judge(uint32_t c, const struct extent *piece, int n)
{
	size_t len = page_up(chunk_bytes_in_file(c));
	int err;

	if (n != 1 || piece[0].lo != chunk_addr(c) || piece[0].hi - piece[0].lo < len)
		return -EUCLEAN;	/* in part ours: kept */
	err = protect_pieces(piece, n, true);
	if (!err && !all_present(c))
		err = -EBUSY;
	if (!err && chunk_hash((void *)chunk_addr(c), chunk_bytes_in_file(c)) !=
		    pg.chunk[c].hash)
		err = -EUCLEAN;
	if (err)
		protect_pieces(piece, n, false);
	return err;
}

static int evict(uint32_t c, enum pol_state from)
{
	struct extent piece[MAX_EXTENTS];
	int err = 0, n = chunk_pieces(c, piece);

	if (from == POL_READY) {
		chunk_drop_frame(c);
		return 0;
	}
	if (chunk_region(c)->writable)
		err = judge(c, piece, n);
	for (int i = 0; i < n && !err; i++)
		if (off_sys_madvise((void *)piece[i].lo, piece[i].hi - piece[i].lo,
				    MADV_DONTNEED))
			err = -errno;
	return err;
}

const struct mode_ops mode_copy = {
	.mode = MODE_COPY, .name = "copy", .anon = true,
	.fetch = fetch, .install = install, .soften = soften, .evict = evict,
};
