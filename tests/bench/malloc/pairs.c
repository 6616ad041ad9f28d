/* SPDX-License-Identifier: MIT */
/* pairs.c - how long small requests of memory take.
 *
 *     pairs                       the names of its cases
 *     pairs CASE [LARGE [SHIFT]]  nanoseconds per pair, the best of a few rounds
 *
 * A case is, say, malloc-64-2t: malloc and free of 64 bytes, in two threads.
 * LARGE bytes are asked for first and kept, so that a library that looks after
 * large blocks has one.
 *
 * 1. Preloaded or not, the same program: what it links is libc's.
 * 2. A case with two threads runs the same loop in both at once; the figure is
 *    that of the slower.
 * 3. What a pair returns is written to, and hidden from the compiler: none is
 *    left out.
 * 4. Where a block lies in its cache line is chance, and worth more than what is
 *    to be seen. A block of SHIFT bytes is asked for first and never freed: runs
 *    that are compared get the same, others another.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS	5
#define PAIRS	40000
#define LIVE	1024		/* blocks of the mixed case */

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* The compiler must believe that p is read and written here. */
static void *seen(void *p)
{
	if (!p)
		abort();
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

static void loop_malloc(size_t size)
{
	for (int i = 0; i < PAIRS; i++) {
		char *p = seen(malloc(size));

		*p = 1;
		free(seen(p));
	}
}

static void loop_calloc(size_t size)
{
	for (int i = 0; i < PAIRS; i++)
		free(seen(calloc(1, size)));
}

/* malloc, twice its size, free: the time of all three. */
static void loop_realloc(size_t size)
{
	for (int i = 0; i < PAIRS; i++) {
		char *p = seen(malloc(size));

		*p = 1;
		free(seen(realloc(p, 2 * size)));
	}
}

static void loop_aligned(size_t size)
{
	for (int i = 0; i < PAIRS; i++)
		free(seen(aligned_alloc(64, size)));
}

/* Many live blocks of many sizes, up to `size`: one is replaced each time. */
static void loop_mixed(size_t size)
{
	void *live[LIVE] = { NULL };
	uint32_t r = 12345;

	for (int i = 0; i < PAIRS; i++) {
		size_t at;

		r = r * 1664525u + 1013904223u;
		at = r >> 22;
		free(live[at]);
		live[at] = seen(malloc(16 + (r >> 8) % (size - 15)));
	}
	for (int i = 0; i < LIVE; i++)
		free(live[i]);
}

static size_t shift;		/* rule 4; immutable */

struct work {
	void (*loop)(size_t);
	size_t size;
	atomic_int *away;	/* threads that have not come yet */
	double ns;
};

static void *worker(void *arg)
{
	struct work *w = arg;
	double start;

	if (shift)
		seen(malloc(shift));
	atomic_fetch_sub(w->away, 1);
	while (atomic_load(w->away))	/* no sleep: who wakes up comes late */
		;
	start = now_ns();
	w->loop(w->size);
	w->ns = (now_ns() - start) / PAIRS;
	return NULL;
}

static double once(void (*loop)(size_t), size_t size, int threads)
{
	atomic_int away = threads;
	struct work w[2];
	pthread_t th;
	double ns;

	for (int i = 0; i < threads; i++)
		w[i] = (struct work){ loop, size, &away, 0 };
	if (threads > 1 && pthread_create(&th, NULL, worker, &w[1]))
		abort();
	worker(&w[0]);
	ns = w[0].ns;
	if (threads > 1) {
		pthread_join(th, NULL);
		ns = w[1].ns > ns ? w[1].ns : ns;
	}
	return ns;
}

static const struct {
	const char *name;
	void (*loop)(size_t);
	size_t size;
} cases[] = {
	{ "malloc", loop_malloc, 16 },
	{ "malloc", loop_malloc, 64 },
	{ "malloc", loop_malloc, 256 },
	{ "malloc", loop_malloc, 1024 },
	{ "malloc", loop_malloc, 4096 },
	{ "mixed", loop_mixed, 4096 },
	{ "calloc", loop_calloc, 64 },
	{ "calloc", loop_calloc, 1024 },
	{ "realloc", loop_realloc, 64 },
	{ "realloc", loop_realloc, 1024 },
	{ "aligned", loop_aligned, 256 },
};
#define CASES (sizeof(cases) / sizeof(*cases))

static double measure(size_t i, int threads)
{
	double best = 1e18;

	for (int round = 0; round < ROUNDS; round++) {
		double ns = once(cases[i].loop, cases[i].size, threads);

		best = ns < best ? ns : best;
	}
	return best;
}

static void name_of(size_t i, int threads, char *out, size_t room)
{
	snprintf(out, room, "%s-%zu%s", cases[i].name, cases[i].size,
		 threads > 1 ? "-2t" : "");
}

int main(int argc, char **argv)
{
	size_t large = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
	char name[64];

	shift = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
	if (large)
		memset(seen(malloc(large)), 1, 4096);
	for (int threads = 1; threads <= 2; threads++) {
		for (size_t i = 0; i < CASES; i++) {
			name_of(i, threads, name, sizeof(name));
			if (argc == 1)
				puts(name);
			else if (!strcmp(name, argv[1]))
				return printf("%.3f\n", measure(i, threads)) < 0;
		}
	}
	return argc > 1 ? 2 : 0;
}
