/* SPDX-License-Identifier: MIT */
/* exchange.c - how memory changes places between a region and the arena.
 *
 *   MOVE    UFFDIO_MOVE (Linux 6.8): any pages
 *   REMAP   mremap(MREMAP_DONTUNMAP) (5.7): whole chunks; the rest is copied
 *   COPY    in by UFFDIO_COPY; out by protecting, copying, MADV_DONTNEED
 *
 * In all three the place that was left is mapped and empty, and in the region
 * it is registered: who touches it waits.
 *
 * (1) REMAP costs a fifteenth of COPY and huge pages stay huge. What comes in
 *     brings its mapping along, which is registered anew at once: nothing is
 *     missing in it yet, so nobody can see that it was not.
 * (2) A mapping that tells of its remapping (uffd.c) would make this thread wait
 *     for itself: only chunks that came in by REMAP, and the heap's, leave so.
 * (3) Each such chunk may cost a mapping of its own: half of what the process may
 *     have is left to the program.
 * (4) MOVE refuses pages that somebody's I/O holds; the others do not, and what
 *     is written to such pages from outside is lost (direct.c sees to
 *     reads of files); what is read from them is right (frames.c).
 * (5) MOVE refuses pages that may not be written; the others would take their
 *     protection along, or read what cannot be read: such chunks stay (anon.c).
 * (6) Where mremap may fail after it has unmapped (strict overcommit) it is
 *     not used. Failing otherwise it changes nothing, and COPY serves.
 * Owns the list of chunks that came in by REMAP. Lock: none; pager thread.
 */
#include "core/anon.h"
#include "core/anon_int.h"
#include "core/core_int.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

static enum how how;
static uint64_t own[MAX_CHUNKS / 64];	/* came in by REMAP once */
static uint32_t maps, maps_most;	/* of those; and how many there may be */

/* ---- REMAP ------------------------------------------------------------------- */

static bool is_own(uint32_t c)
{
	return own[c / 64] >> (c % 64) & 1;
}

static void set_own(uint32_t c, bool on)
{
	if (is_own(c) == on)
		return;
	own[c / 64] ^= 1ull << (c % 64);
	maps = on ? maps + 1 : maps - 1;
}

static int remap(uintptr_t dst, uintptr_t src)
{
	unsigned char page;
	int err;

	if (off_sys_mremap((void *)src, CHUNK, CHUNK,
			   MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
			   (void *)dst) != MAP_FAILED)
		return 0;
	err = -errno;
	if (off_sys_mincore((void *)dst, PAGE, &page))
		off_fatal("memory at %#lx could not be put in place (mremap: %s)",
			  (unsigned long)dst, strerrordesc_np(-err));
	return err;
}

/* The way in: dst is in a region from now on. */
static int remap_in(uintptr_t dst, uintptr_t src)
{
	int err = remap(dst, src);

	if (err)
		return err;
	err = uffd_register((void *)dst, CHUNK, true, true);
	if (err)	/* it could never leave again, and would look as if it could */
		off_fatal("memory at %#lx cannot be watched (userfaultfd: %s)",
			  (unsigned long)dst, strerrordesc_np(-err));
	if (core_heap_has((void *)dst))		/* in core dumps, as it was */
		off_sys_madvise((void *)dst, CHUNK, MADV_DODUMP);
	return 0;
}

static bool may_remap(uint32_t c, size_t len, bool out)
{
	if (how != HOW_REMAP || len != CHUNK || (torture() && !torture_random(3)))
		return false;
	if (out && !is_own(c) && !chunk_region(c)->anon)
		return false;
	return is_own(c) || maps < maps_most;
}

static uint32_t read_number(const char *path)
{
	char text[32] = "";
	int fd = off_sys_open(path, O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return 0;
	(void)!off_sys_read(fd, text, sizeof(text) - 1);
	off_sys_close(fd);
	return (uint32_t)strtoul(text, NULL, 10);
}

/* The bytes are right, and what is left is registered still. */
static bool try_remap(uintptr_t a, uintptr_t b)
{
	size_t done;

	*(volatile char *)a = 7;
	return !uffd_register((void *)b, CHUNK, true, true) && !remap_in(b, a) &&
		*(volatile char *)b == 7 && !remap(a, b) && *(volatile char *)a == 7 &&
		!uffd_zero(b, PAGE, &done);	/* refused where it is not */
}

/* ---- COPY -------------------------------------------------------------------- */

/* Who waits is woken; guard: the pages are protected before that. */
static int copy_in(uintptr_t dst, uintptr_t src, size_t len, bool guard, size_t *done)
{
	int err = 0, again = 0;

	while (*done < len && !err) {
		size_t step;

		err = uffd_copy(dst + *done, src + *done, len - *done, guard, &step);
		*done += step;
		if (err == -EAGAIN && pager_again(&again))
			err = 0;
		if (err == -EEXIST && !step) {	/* left by a failed DONTNEED */
			*done += PAGE;
			err = 0;
		}
	}
	if (*done)
		off_sys_madvise((void *)src, *done, MADV_DONTNEED);
	return err;
}

/* Pages are protected, so that who writes waits for this thread. */
static int copy_out(uintptr_t dst, uintptr_t src, size_t len)
{
	static uint64_t there[CHUNK / PAGE];
	int err = uffd_protect(src, len, true);

	if (!err)
		err = pages_read(src, len, there);
	for (size_t i = 0; !err && i < len / PAGE; i++)
		if (there[i] >> 62)
			memcpy((char *)dst + i * PAGE, (char *)src + i * PAGE, PAGE);
	if (!err && off_sys_madvise((void *)src, len, MADV_DONTNEED))
		err = -errno;
	if (err)
		uffd_protect(src, len, false);
	else
		uffd_wake(src, len);
	return err;
}

/* ---- the way in and out -------------------------------------------------------- */

/* Where in its slot a region address of this chunk rests. */
static uintptr_t in_slot(uint32_t c, uintptr_t at)
{
	return (uintptr_t)frames_at(pg.chunk[c].slot - 1) + (at - chunk_addr(c));
}

int exchange_in(uint32_t c, uintptr_t at, size_t len, bool wake, size_t *done)
{
	uintptr_t slot = in_slot(c, at);
	int err = -ENOTSUP;

	*done = 0;
	if (how == HOW_MOVE)
		return uffd_move(at, slot, len, wake, done);
	if (may_remap(c, len, false))
		err = remap_in(at, slot);
	if (err)
		return copy_in(at, slot, len, !wake, done);
	set_own(c, true);
	*done = len;
	if (wake)
		uffd_wake(at, len);
	return 0;
}

int exchange_copy(uint32_t c, uintptr_t at, size_t len, bool guard)
{
	size_t done = 0;

	return copy_in(at, in_slot(c, at), len, guard, &done);
}

int exchange_out(uint32_t c, uintptr_t at, size_t len, size_t *done)
{
	uintptr_t slot = in_slot(c, at);
	int err = -ENOTSUP;

	*done = 0;
	if (chunk_region(c)->anon && anon_stays(at, how == HOW_MOVE))
		return -EINVAL;
	if (how == HOW_MOVE)
		return uffd_move(slot, at, len, true, done);
	if (may_remap(c, len, true)) {
		err = remap(slot, at);
		if (!err)
			set_own(c, true);
	}
	if (err)
		err = copy_out(slot, at, len);
	*done = err ? 0 : len;
	return err;
}

bool exchange_moves(void)
{
	return how == HOW_MOVE;
}

void exchange_fresh(uint32_t first, uint32_t n)
{
	for (uint32_t c = first; c < first + n; c++)
		set_own(c, false);
}

int exchange_open(bool moves)
{
	int err = pages_open();

	memset(own, 0, sizeof(own));
	maps = 0;
	maps_most = read_number("/proc/sys/vm/max_map_count") / 2;
	how = moves ? HOW_MOVE : HOW_COPY;
	if (!moves && read_number("/proc/sys/vm/overcommit_memory") != 2 &&
	    uffd_try(try_remap))
		how = HOW_REMAP;
	if (!moves)
		off_verbose(1, "pages change places by %s",
			    how == HOW_REMAP ? "mremap" : "copying");
	return moves ? 0 : err;
}
