/* SPDX-License-Identifier: MIT */
/* mode_move.c - chunks go in and out by changing places with frames: by
 * UFFDIO_MOVE in mode move, by what older kernels have in mode copy.
 *
 *   slot: [frame]          region: missing      READY
 *       --exchange.c-->
 *   slot: empty, owned     region: [frame]      PLAIN
 *
 * (1) No copy, no zeroing; a whole chunk stays one huge page. A chunk that is
 *     mapped in part (ends of a mapping, holes) moves piece by piece and its
 *     frame is split by that.
 * (2) Only writable memory changes places, so a read-only mapping is
 *     writable underneath and write-protected through userfaultfd after each
 *     move in; a write to it gets the SIGSEGV it would have got. What was
 *     written to a private one is found by its hash after the move out, when
 *     nobody can write any more: the protection does not move along.
 * (3) An error in the middle is undone before it is reported.
 * Lock: none; pager thread.
 */
#include "core/core_int.h"
#include "core/packed.h"
#include "core/touch.h"

#include <sched.h>
#include <sys/mman.h>

#define BUSY_TRIES 64

enum way { IN, IN_QUIETLY, OUT };	/* quietly: who waits is not woken */

/* All of it, or -errno with *done bytes moved. An event that waits to be
 * read (-EAGAIN) and a pin that outlives its read (-EBUSY) are over soon. */
static int move_all(uint32_t c, uintptr_t at, size_t len, enum way way, size_t *done)
{
	int busy = 0, again = 0, err = 0;

	*done = 0;
	while (*done < len) {
		size_t step;

		err = way == OUT ? exchange_out(c, at + *done, len - *done, &step) :
			exchange_in(c, at + *done, len - *done, way == IN, &step);
		*done += step;
		if (step)
			continue;	/* an error comes again */
		if (err == -EAGAIN && pager_again(&again))
			continue;
		if (err != -EBUSY || busy++ >= BUSY_TRIES)
			return err ? err : -EIO;
		sched_yield();
	}
	return 0;
}

static int fetch(uint32_t c)
{
	bool used;
	int err = chunk_take_frame(c, &used);

	if (err)
		return err;
	err = used ? fetch_read(c, frames_at(pg.chunk[c].slot - 1)) : touch_fetch(c);
	if (err)
		chunk_drop_frame(c);
	return err;
}

static int install(uint32_t c)
{
	struct extent piece[MAX_EXTENTS];
	int n = chunk_pieces(c, piece);
	bool guard = !chunk_region(c)->writable && !(pg.chunk[c].flags & CH_LOCKED);

	for (int i = 0; i < n; i++) {
		size_t len = piece[i].hi - piece[i].lo, done;
		/* A writer that waits may go on once it is protected only. */
		int err = move_all(c, piece[i].lo, len, guard ? IN_QUIETLY : IN, &done);

		if (err == -EBUSY)	/* pinned for good, it seems */
			err = exchange_copy(c, piece[i].lo + done, len - done, guard);
		if (!err && guard) {
			err = uffd_protect(piece[i].lo, len, true);
			uffd_wake(piece[i].lo, len);
		}
		if (err)
			return err;
	}
	return 0;
}

/* Region -> slot, all pieces or none. */
static int take_out(uint32_t c)
{
	struct extent piece[MAX_EXTENTS];
	int i, n = chunk_pieces(c, piece), err = 0;
	size_t done = 0, back;

	for (i = 0; i < n && !err; i++)
		err = move_all(c, piece[i].lo, piece[i].hi - piece[i].lo, OUT, &done);
	if (!err)
		return 0;
	/* piece i-1 failed after `done` bytes; those before it went whole */
	for (int k = 0; k < i; k++) {
		size_t len = k == i - 1 ? done : piece[k].hi - piece[k].lo;

		if (len && move_all(c, piece[k].lo, len, IN, &back))
			off_fatal("a chunk could not be put back at %#lx (R1)",
				  (unsigned long)piece[k].lo);
	}
	return err;
}

/* After the move out: were its bytes changed by the program? */
static bool written(uint32_t c)
{
	const struct chunk *ch = &pg.chunk[c];

	return chunk_region(c)->writable && !chunk_region(c)->anon && !pg.discarding &&
	       (!(ch->flags & CH_HASHED) ||
		chunk_hash(frames_at(ch->slot - 1), chunk_bytes_in_file(c)) != ch->hash);
}

static int soften(uint32_t c)
{
	int err = take_out(c);

	if (err)
		return err;
	if (!written(c))
		return 0;
	err = install(c);
	if (err)
		off_fatal("a written chunk could not be put back at %#lx (R1)",
			  (unsigned long)chunk_addr(c));
	return -EUCLEAN;
}

static int evict(uint32_t c, enum pol_state from)
{
	struct extent piece[MAX_EXTENTS];
	int err = from == POL_PLAIN ? soften(c) : 0;
	bool whole;

	if (err)
		return err;
	whole = chunk_pieces(c, piece) == 1 && piece[0].hi - piece[0].lo == CHUNK;
	if (whole && packed_keep(c))
		return 0;
	frames_put(pg.chunk[c].slot - 1, !whole);
	pg.chunk[c].slot = 0;
	return 0;
}

const struct mode_ops mode_move = {
	.name = "move", .anon = true,
	.fetch = fetch, .install = install, .soften = soften, .evict = evict,
}, mode_copy = {
	.name = "copy", .anon = true,
	.fetch = fetch, .install = install, .soften = soften, .evict = evict,
};
