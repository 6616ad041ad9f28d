/* SPDX-License-Identifier: MIT */
/* offctl_memory.c - how fast this machine reads its memory.
 *
 * Owns a thread for each processor and what it reads: more than fits a cache.
 * Decoding reads every weight once a token, so this is what bounds it.
 * Lock: none; `rate` is atomic.
 */
#include "offctl.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#define BLOCK_BYTES	(32u << 20)
#define ALL_BYTES	(1ull << 30)
#define RUN_NS		200000000ull
#define THREADS_MAX	256

struct reading {
	size_t bytes;			/* of each thread */
	uint64_t rate;			/* atomic: bytes/s, all together */
};

static uint64_t sum(const uint64_t *p, size_t n)
{
	uint64_t a = 0, b = 0, c = 0, d = 0;

	for (size_t i = 0; i + 4 <= n; i += 4) {
		a += p[i];
		b += p[i + 1];
		c += p[i + 2];
		d += p[i + 3];
	}
	return a + b + c + d;
}

/* By the thread's own time: whoever else runs now does not count. */
static uint64_t rate_of(const uint64_t *p, size_t bytes)
{
	uint64_t stop = clock_ns(CLOCK_MONOTONIC) + RUN_NS, done = 0;
	uint64_t begin = clock_ns(CLOCK_THREAD_CPUTIME_ID), busy;
	volatile uint64_t sink;

	do {
		sink = sum(p, bytes / sizeof(*p));
		done += bytes;
	} while (clock_ns(CLOCK_MONOTONIC) < stop);
	(void)sink;
	busy = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin;
	return busy ? (uint64_t)((double)done * 1e9 / (double)busy) : 0;
}

static void *read_memory(void *arg)
{
	struct reading *r = arg;
	void *p = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, r->bytes, MADV_HUGEPAGE);
	memset(p, 1, r->bytes);		/* faults are not timed */
	__atomic_fetch_add(&r->rate, rate_of(p, r->bytes), __ATOMIC_RELAXED);
	munmap(p, r->bytes);
	return NULL;
}

int cores_here(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);

	return n > 0 ? n : 1;
}

double memory_rate(int cores)
{
	int n = 0, most = cores < THREADS_MAX ? cores : THREADS_MAX;
	struct reading r = { .bytes = BLOCK_BYTES };
	pthread_t t[THREADS_MAX];

	if (ALL_BYTES / (unsigned int)most < r.bytes)
		r.bytes = ALL_BYTES / (unsigned int)most;
	while (n < most && !pthread_create(&t[n], NULL, read_memory, &r))
		n++;
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	return (double)r.rate;
}
