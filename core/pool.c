/* SPDX-License-Identifier: MIT */
/* pool.c - slots of packed chunks, by number.
 *
 *   FREE --pool_put: it fits, copied--> HELD --pool_free--> FREE
 *
 * (1) Images are made elsewhere, then given memory of just their size: the
 *     limit is passed by nobody, not even for a moment.
 * (2) What is unpacked is checked against the hash of what was packed, whatever
 *     the slot says (R4).
 * (3) Slots move only in pool_compact, to lower addresses: the allocator hands
 *     out the lowest place it has, so the highest pages run empty.
 * Lock: `lock`, leaf: held while slots come and go, so that a fork finds them
 * whole whatever the pager is at; else the pager's.
 */
#include "core/pool.h"
#include "core/codec.h"
#include "core/core_int.h"
#include "core/pool_int.h"

#include <pthread.h>

#define SLOTS		HEAP_CHUNKS
/* About what one half-empty run of pages for each size class can come to: no
 * moving helps against that. */
#define WASTE_MIN	(256u << 10)

struct slot {
	char *at;		/* its image; NULL: FREE */
	uint32_t bytes;		/* of it; FREE: the next such slot's number */
	uint32_t raw;		/* bytes it unpacks to */
	uint32_t tail;		/* pool_arena_alloc's */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct slot *table;
static uint32_t fresh;		/* numbers never given out: from here */
static uint32_t next_free;	/* POOL_NONE: none */
static uint32_t cursor;		/* compaction: the next to look at */
static struct codec_work *work;
static uint64_t limit, raw, packed, packed_small;

int pool_open(uint64_t bytes)
{
	if (!table)
		table = reserve_range(SLOTS * sizeof(*table));
	if (!work)
		work = codec_work_new();
	if (!table || !work)
		return -ENOMEM;
	if (!fresh)
		next_free = POOL_NONE;
	return pool_arena_open(bytes);
}

void pool_limit(uint64_t bytes)
{
	limit = bytes;
}

uint64_t pool_bytes(void)
{
	return pool_arena_bytes();
}

uint64_t pool_raw_bytes(void)
{
	return raw;
}

uint64_t pool_packed_bytes(void)
{
	return packed;
}

static struct slot *held(uint32_t slot)
{
	off_assert(slot < fresh && table[slot].at);
	return &table[slot];
}

const void *pool_at(uint32_t slot, uint32_t *bytes)
{
	const struct slot *s = held(slot);

	*bytes = s->bytes;
	return s->at;
}

/* ---- in, out ----------------------------------------------------------------- */

static uint32_t new_number(void)
{
	uint32_t slot = next_free;

	if (slot == POOL_NONE)
		return fresh < SLOTS ? fresh++ : POOL_NONE;
	next_free = table[slot].bytes;
	return slot;
}

static void count(const struct slot *s, int sign)
{
	raw += (uint64_t)((int64_t)s->raw * sign);
	packed += (uint64_t)((int64_t)s->bytes * sign);
	if (pool_arena_small(s->bytes))
		packed_small += (uint64_t)((int64_t)s->bytes * sign);
}

static int put(const void *image, uint32_t n, uint32_t len, uint32_t *slot)
{
	struct slot s = { .bytes = n, .raw = len };

	if (!work)
		return -ENODEV;
	if (pool_arena_bytes() >= limit)
		return -ENOSPC;
	s.at = pool_arena_alloc(n, limit - pool_arena_bytes(), &s.tail);
	if (!s.at)
		return -ENOSPC;
	*slot = new_number();
	if (*slot == POOL_NONE) {
		pool_arena_free(s.at, n, s.tail);
		return -ENOSPC;
	}
	memcpy(s.at, image, n);
	table[*slot] = s;
	count(&s, 1);
	return 0;
}

int pool_put(const void *image, uint32_t n, uint32_t len, uint32_t *slot)
{
	int err;

	pthread_mutex_lock(&lock);
	err = put(image, n, len, slot);
	pthread_mutex_unlock(&lock);
	return err;
}

int pool_get(uint32_t slot, void *frame, uint32_t len)
{
	const struct slot *s = held(slot);

	return codec_image_unpack(work, frame, len, s->at, s->bytes);
}

void pool_free(uint32_t slot)
{
	struct slot *s = held(slot);

	pthread_mutex_lock(&lock);
	count(s, -1);
	pool_arena_free(s->at, s->bytes, s->tail);
	*s = (struct slot){ .bytes = next_free };
	next_free = slot;
	pthread_mutex_unlock(&lock);
}

/* ---- compaction ---------------------------------------------------------------- */

static bool much_wasted(void)
{
	uint64_t small = pool_arena_small_bytes();

	return small > packed_small + packed_small / 4 + WASTE_MIN;
}

/* To a lower address (3), if there is one. */
static bool move_down(struct slot *s)
{
	uint32_t tail;
	char *to;

	if (!s->at || !pool_arena_small(s->bytes))
		return false;
	to = pool_arena_alloc(s->bytes, 0, &tail);
	if (to && to < s->at) {
		memcpy(to, s->at, s->bytes);
		pool_arena_free(s->at, s->bytes, s->tail);
		s->at = to;
		return true;
	}
	if (to)
		pool_arena_free(to, s->bytes, tail);
	return false;
}

uint32_t pool_compact(uint32_t max)
{
	uint32_t moved = 0;

	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < max && i < fresh && much_wasted(); i++) {
		moved += move_down(&table[cursor]);
		cursor = (cursor + 1) % fresh;
	}
	pthread_mutex_unlock(&lock);
	return moved;
}

/* ---- forks, mlockall ------------------------------------------------------------- */

void pool_fork_lock(void)
{
	pthread_mutex_lock(&lock);
}

void pool_fork_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void pool_fork_open(void)
{
	pool_arena_inherit(true);
}

void pool_fork_close(void)
{
	pool_arena_inherit(false);
}

/* Freeing looks at no byte of what was not inherited. */
void pool_fork_child(bool inherited)
{
	if (inherited) {
		pool_arena_inherit(false);
		return;
	}
	if (pool_arena_renew())
		for (uint32_t i = 0; i < fresh; i++)
			if (table[i].at)
				pool_free(i);
	next_free = POOL_NONE;
	fresh = cursor = 0;
	limit = raw = packed = packed_small = 0;
}

void pool_unlock(void)
{
	pool_arena_unlock();
}
