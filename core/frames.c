/* SPDX-License-Identifier: MIT */
/* frames.c - the arena: 2 MiB frames, and the slots they rest in.
 *
 *   cold (no memory) --touch--> warm, free --frames_get--> owned by a chunk
 *     ^                          |   ^                          |
 *     +------- frames_trim ------+   +-------- frames_put ------+
 *
 * A slot is a place in the arena. In move mode the memory behind it leaves
 * for the region while the chunk is PLAIN and comes back to the same slot;
 * the chunk owns the slot all along.
 *
 * (1) Recycled, never zeroed: whoever fills a frame writes every byte that
 *     will be seen (R4, and no other region's bytes leak).
 * (2) A split frame (moved in pieces) loses its huge page: its memory is
 *     given back and comes huge again.
 * (3) Not inherited by forks, not dumped.
 * (4) Where pinned pages do not refuse to change places (exchange.c), a frame is
 *     not recycled: somebody's write to a disk or a socket may still read it. It
 *     is given back, which leaves the pages to who holds them.
 * (5) What has no memory yet is not counted as held until it was filled: the budget is
 *     what others leave, and they would seem to leave that much more.
 * Lock: none; pager thread only (frames_bytes: any thread).
 */
#include "core/core_int.h"

#include <sys/mman.h>
#include <unistd.h>

static char *arena;			/* the slots, and behind them the rooms */
static uint32_t slots;			/* in the reservation */
static uint32_t fresh;			/* slots never handed out: from here */
static bool grew;			/* since it was last asked */
static uint32_t *warm, *cold;		/* stacks of free slots */
static uint32_t n_warm, n_cold;
static bool *bare;			/* by slot: (5) */
static _Atomic uint32_t n_bare;
static _Atomic uint32_t with_memory;	/* warm or owned */

int frames_open(size_t bytes)
{
	uint32_t n = (uint32_t)(bytes / CHUNK);
	size_t len = ((size_t)n + FRAME_ROOMS) * CHUNK;
	char *p = reserve_range(len + CHUNK);

	warm = reserve_range(n * sizeof(*warm));
	cold = reserve_range(n * sizeof(*cold));
	bare = reserve_range(n * sizeof(*bare));
	if (!p || !warm || !cold || !bare)
		return -ENOMEM;
	fresh = n_warm = n_cold = 0;
	atomic_store(&n_bare, 0);
	atomic_store(&with_memory, 0);
	arena = (char *)chunk_down((uintptr_t)p + CHUNK - 1);
	slots = n;
	off_sys_madvise(arena, len, MADV_HUGEPAGE);
	off_sys_madvise(arena, len, MADV_DONTDUMP);
	return off_sys_madvise(arena, len, MADV_DONTFORK) ? -errno : 0;
}

/* MOVE wants its destination registered, and the arena is one when a chunk
 * comes back. Write-protect mode: the kernel still serves its page faults. */
int frames_register(void)
{
	return !exchange_moves() ? 0 : uffd_register(arena, (size_t)slots * CHUNK, false, true);
}

/* A locked arena would be populated whole, and refuses MOVE. */
void frames_unlock(void)
{
	if (arena)
		off_sys_munlock(arena, ((size_t)slots + FRAME_ROOMS) * CHUNK);
}

void *frames_at(uint32_t slot)
{
	off_assert(slot < slots);
	return arena + (size_t)slot * CHUNK;
}

char *frames_rooms(void)
{
	return arena + (size_t)slots * CHUNK;
}

void frames_filled(uint32_t slot)
{
	if (bare[slot])
		atomic_fetch_sub(&n_bare, 1);
	bare[slot] = false;
}

static void chill(uint32_t slot)
{
	off_sys_madvise(frames_at(slot), CHUNK, MADV_DONTNEED);
	cold[n_cold++] = slot;
	atomic_fetch_sub(&with_memory, 1);
}

bool frames_grew(void)
{
	bool did = grew;

	grew = false;
	return did;
}

uint32_t frames_get_bare(void)
{
	uint32_t s;

	if (n_warm && !n_cold && fresh == slots)
		chill(warm[--n_warm]);
	if (n_cold) {
		s = cold[--n_cold];
	} else if (fresh < slots) {
		s = fresh++;
		grew = true;
	} else {
		return NO_SLOT;
	}
	atomic_fetch_add(&with_memory, 1);
	return s;
}

uint32_t frames_get(bool *used)
{
	uint32_t s;

	*used = n_warm;
	if (n_warm)
		return warm[--n_warm];
	s = frames_get_bare();
	if (s != NO_SLOT) {
		bare[s] = true;
		atomic_fetch_add(&n_bare, 1);
	}
	return s;
}

void frames_put(uint32_t slot, bool split)
{
	bool none = bare[slot];

	off_assert(n_warm + n_cold < slots);
	frames_filled(slot);
	if (split || none || !exchange_moves())		/* (2), (4) */
		chill(slot);
	else
		warm[n_warm++] = slot;
}

void frames_trim(uint32_t keep)
{
	while (n_warm && atomic_load(&with_memory) > keep)
		chill(warm[--n_warm]);
}

uint64_t frames_bytes(void)
{
	return (uint64_t)atomic_load(&with_memory) * CHUNK;
}

uint64_t frames_filled_bytes(void)
{
	return frames_bytes() - (uint64_t)atomic_load(&n_bare) * CHUNK;
}
