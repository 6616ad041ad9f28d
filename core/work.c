/* SPDX-License-Identifier: MIT */
/* work.c - a few threads that run what the pager gives them.
 *
 *   work_put --> todo --> run by a worker --> finished --> work_finish
 *
 * (1) The pager alone would be one of three that want two processors, and the
 *     engine's threads spin while they wait: what takes a tenth of a
 *     millisecond and more is done beside it.
 * (2) Reads may all be done at once: in the order they were asked for, then, the first is
 *     the first that is needed. But before all, what is waited for by then.
 * (3) Threads are started with the first heap that is paged, or the first file
 *     that may be worth packing: else its bytes need no looking at.
 * Owns the lists. Lock: `lock`, leaf, held for a few instructions.
 */
#include "core/work.h"
#include "core/core_int.h"

#include <pthread.h>
#include <sched.h>

#define WORKERS_MAX 4
#define STACK (256ul << 10)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct fifo { struct work *first, **end; } todo[WORK_CLASSES], finished;
static int threads;
static char *stacks;		/* WORKERS_MAX of them */

static void append(struct fifo *f, struct work *w)
{
	w->next = NULL;
	*(f->first ? f->end : &f->first) = w;
	f->end = &w->next;
}

static struct work *first_todo(void)
{
	struct work *w = NULL;

	for (int i = 0; i < WORK_CLASSES && !w; i++) {
		w = todo[i].first;
		if (w)
			todo[i].first = w->next;
	}
	return w;
}

static struct work *take(void)
{
	struct work *w;

	pthread_mutex_lock(&lock);
	while (!(w = first_todo()))
		pthread_cond_wait(&more, &lock);
	pthread_mutex_unlock(&lock);
	return w;
}

static void finish(struct work *w)
{
	bool first;

	pthread_mutex_lock(&lock);
	first = !finished.first;
	append(&finished, w);
	pthread_mutex_unlock(&lock);
	if (first)
		cmd_ring_pager();
}

static void *worker_main(void *unused)
{
	library_thread_enter("offload-work");
	watch_this("offload-work");
	for (;;) {
		struct work *w = take();

		w->run(w);
		finish(w);
	}
	return NULL;
}

uint32_t work_processors(void)
{
	cpu_set_t set;
	int n;

	CPU_ZERO(&set);
	n = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
	return n < 1 ? 1 : (uint32_t)n;
}

void work_reserve(void)
{
	if (!stacks)
		stacks = reserve_range(WORKERS_MAX * STACK);
}

/* One for each processor, a few at most. */
void work_open(void)
{
	uint32_t n = work_processors();
	pthread_attr_t attr;
	pthread_t t;

	n = threads || !stacks ? 0 : n > WORKERS_MAX ? WORKERS_MAX : n;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	while (n-- && !pthread_attr_setstack(&attr, stacks + n * STACK, STACK) &&
	       !pthread_create(&t, &attr, worker_main, NULL))
		threads++;
	pthread_attr_destroy(&attr);
}

bool work_threads(void)
{
	return threads > 0;
}

void work_put(struct work *w, enum work_class class)
{
	if (!threads) {
		w->run(w);
		finish(w);
		return;
	}
	pthread_mutex_lock(&lock);
	append(&todo[class], w);
	pthread_cond_signal(&more);
	pthread_mutex_unlock(&lock);
}

int work_finish(void)
{
	struct work *w, *next;
	int n = 0;

	pthread_mutex_lock(&lock);
	w = finished.first;
	finished.first = NULL;
	pthread_mutex_unlock(&lock);
	for (; w; w = next, n++) {
		next = w->next;		/* over may put it again */
		w->over(w);
	}
	return n;
}

void work_reset(void)
{
	pthread_mutex_init(&lock, NULL);
	pthread_cond_init(&more, NULL);
	threads = 0;
	memset(todo, 0, sizeof(todo));
	finished.first = NULL;
}
