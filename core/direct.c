/* SPDX-License-Identifier: MIT */
/* direct.c - reads that write to pages, not to addresses (O_DIRECT).
 *
 * (1) In mode copy nobody sees that a page is held (exchange.c, 4): what such a read
 *     brings after the page was evicted is lost. They are made elsewhere and copied.
 * (2) Until the heap is paged nothing is evicted there, and it is read into directly.
 *     It becomes paged when those reads are over: who begins says so before it looks
 *     whether that has been asked for, who asks looks after it has asked.
 * (3) Nobody waits longer than a second: a read that was cancelled is never over.
 * Owns core_direct_matters and the count of reads. Lock: none.
 */
#include "core/anon.h"
#include "core/core_int.h"

#include <fcntl.h>
#include <time.h>

#define NAP	1000000l		/* ns; a second of them */
#define NAPS	1000

/* Undecided it matters: mode copy may come. */
bool core_direct_matters = true;

static _Atomic bool closing;		/* the heap is paged, or about to be */
static _Atomic int under_way;

bool core_read_direct(int fd)
{
	int saved = errno, fl = fcntl(fd, F_GETFL);

	errno = saved;
	return fl >= 0 && fl & O_DIRECT;
}

/* In a paged mapping of a file that its program may write to. Those are paged before
 * the program has their address (keeper.c), so that no read began before. */
static bool in_file(const void *buf, size_t len)
{
	uintptr_t lo = (uintptr_t)buf;
	bool found = false;

	if (!region_any(buf, len))
		return false;
	region_lock();
	for (int i = 0; region_nth(i) && !found; i++) {
		const struct region *r = region_nth(i);

		found = r->state >= REGION_HELD && r->writable && !r->anon &&
			lo < r->end && lo + len > r->base;
	}
	region_unlock();
	return found;
}

enum core_read core_read_begin(const void *buf, size_t len)
{
	if (!core_heap_touches(buf, len))
		return in_file(buf, len) ? CORE_READ_ELSEWHERE : CORE_READ_PLAIN;
	atomic_fetch_add(&under_way, 1);
	if (!atomic_load(&closing))
		return CORE_READ_COUNTED;
	atomic_fetch_sub(&under_way, 1);
	return CORE_READ_ELSEWHERE;
}

void core_read_end(enum core_read how)
{
	if (how == CORE_READ_COUNTED)
		atomic_fetch_sub(&under_way, 1);
}

void direct_mode(bool matters)
{
	__atomic_store_n(&core_direct_matters, matters, __ATOMIC_RELAXED);
}

void direct_close(void)
{
	struct timespec nap = { 0, NAP };

	atomic_store(&closing, true);
	if (!core_direct_matters)
		return;
	for (int i = 0; i < NAPS && atomic_load(&under_way); i++)
		nanosleep(&nap, NULL);
}

void direct_open(void)
{
	atomic_store(&closing, false);
}

void direct_reset(void)
{
	atomic_store(&under_way, 0);
}
