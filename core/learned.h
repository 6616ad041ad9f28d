/* SPDX-License-Identifier: MIT */
/* learned.h - which bytes of the heap were read from which file. Internal to
 * core/.
 *
 * Hints, no more: whoever uses one compares the bytes first. Reads by io_uring,
 * aio and through mappings are not seen.
 */
#ifndef OFFLOAD_LEARNED_H
#define OFFLOAD_LEARNED_H

#include <stdbool.h>
#include <stdint.h>

struct origin;

struct learned_piece {
	uintptr_t lo, hi;	/* addresses */
	struct origin *origin;	/* never closed */
	uint64_t off;		/* of lo, in the file */
};

/* The pieces of [lo, hi), in order; neighbours of one file and one delta with
 * at most a page between them count as one, the gap included. Pager; takes the
 * lock. Returns how many, or -E2BIG: more than max. */
int learned_pieces(uintptr_t lo, uintptr_t hi, struct learned_piece *out, int max);
/* Any thread: [lo, hi) was freed or cleared. */
void learned_forget(uintptr_t lo, uintptr_t hi);
void learned_fork_lock(void);
void learned_fork_unlock(void);
/* Child of a fork: the files' descriptors are the parent's. */
void learned_fork_child(void);
/* Pager: some memory is known to come from a file. */
bool learned_any(void);

#endif
