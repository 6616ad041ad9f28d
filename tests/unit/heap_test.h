/* SPDX-License-Identifier: MIT */
/* heap_test.h - what the tests of the heap share (core/heap.c).
 *
 * Owns stand-ins for what heap.c calls: they do the least that the contract
 * in anon.h says, and are strict about how they are called.
 *
 * (1) No hook but anon_grow is called with the heap's lock held.
 * (2) What is being cleared is nobody's: no block, no mapping over it.
 * (3) Every page of every block is stamped, first and last word, so that a
 *     block handed out twice, or bytes lost, show.
 * (4) Every case runs in a process of its own: it begins with no heap.
 * Lock: `busy_lock`, the table of what is being cleared.
 */
#ifndef OFFLOAD_HEAP_TEST_H
#define OFFLOAD_HEAP_TEST_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/anon.h"
#include "core/core_int.h"
#include "core/sites.h"
#include "sanitized.h"

#define KIB 1024ul
#define MIB (1024 * KIB)
#define CHECK(x) ((x) ? (void)0 : broken(#x, __LINE__))

/* In any thread and in forked children, where cmocka's own would not do. */
static void broken(const char *what, int line)
{
	char buf[200];
	int n = snprintf(buf, sizeof(buf), "line %d: not (%s)\n", line, what);

	if (write(2, buf, (size_t)n) < 0)
		_exit(2);
	abort();
}

/* ---- the hooks --------------------------------------------------------------------- */

struct range { uintptr_t lo, hi; };

static pthread_mutex_t busy_lock = PTHREAD_MUTEX_INITIALIZER;
static struct range busy[16];
static _Atomic bool is_live, is_torture, locked_future, refuse_growth;
static _Atomic size_t admitted, lost_bytes, cleared_bytes;
static _Atomic uintptr_t grown;
static _Thread_local bool ours;
/* Called in the middle of a clearing, if set. */
static void (*_Atomic while_clearing)(uintptr_t lo, uintptr_t hi);

static void lock_is_free(void)
{
	heap_fork_prepare();	/* would wait for ever */
	heap_fork_done();
}

static void busy_set(struct range from, struct range to)
{
	size_t i = 0;

	pthread_mutex_lock(&busy_lock);
	while (busy[i].lo != from.lo || busy[i].hi != from.hi)
		CHECK(++i < 16);
	busy[i] = to;
	pthread_mutex_unlock(&busy_lock);
}

static void not_busy(uintptr_t lo, uintptr_t hi)
{
	pthread_mutex_lock(&busy_lock);
	for (int i = 0; i < 16; i++)
		CHECK(hi <= busy[i].lo || busy[i].hi <= lo);
	pthread_mutex_unlock(&busy_lock);
}

static void in_heap(uintptr_t lo, uintptr_t hi)
{
	CHECK(!(lo % PAGE) && !(hi % PAGE) && lo < hi);
	CHECK(lo >= core_heap_base && hi <= atomic_load(&grown));
}

int anon_grow(uintptr_t lo, uintptr_t hi)
{
	if (atomic_load(&refuse_growth))
		return -ENOMEM;
	CHECK(!(lo % CHUNK) && !(hi % CHUNK) && lo < hi);
	CHECK(lo == (atomic_load(&grown) ? atomic_load(&grown) : core_heap_base));
	CHECK(hi <= core_heap_base + core_heap_size);
	CHECK(!mprotect((void *)lo, hi - lo, PROT_READ | PROT_WRITE));
	atomic_store(&grown, hi);
	return 0;
}

void anon_clear(uintptr_t lo, uintptr_t hi)
{
	void (*f)(uintptr_t, uintptr_t) = atomic_load(&while_clearing);

	in_heap(lo, hi);
	lock_is_free();
	not_busy(lo, hi);
	busy_set((struct range){ 0 }, (struct range){ lo, hi });
	if (f)
		f(lo, hi);
	CHECK(!madvise((void *)lo, hi - lo, MADV_DONTNEED));
	atomic_fetch_add(&cleared_bytes, hi - lo);
	busy_set((struct range){ lo, hi }, (struct range){ 0 });
}

void anon_admit(size_t bytes)
{
	CHECK(!(bytes % PAGE));
	lock_is_free();
	atomic_fetch_add(&admitted, bytes);
}

void anon_move(uintptr_t to, uintptr_t from, size_t len)
{
	in_heap(to, to + len);
	in_heap(from, from + len);
	lock_is_free();
	for (size_t i = 0; i < len; i += PAGE)
		CHECK(!*(char *)(to + i) && !*(char *)(to + i + PAGE - 1));
	memcpy((void *)to, (void *)from, len);
}

void anon_lose(uintptr_t lo, uintptr_t hi)
{
	in_heap(lo, hi);
	lock_is_free();
	not_busy(lo, hi);
	atomic_fetch_add(&lost_bytes, hi - lo);
}

static struct range bar;		/* the last that was protected, or freed after */
static bool bar_on;
void anon_bar(uintptr_t lo, uintptr_t hi, bool on)
{
	bar = (struct range){ lo, hi };
	bar_on = on;
}

static _Thread_local uint32_t asking;	/* the site of this thread's requests */
uint32_t sites_here(void)
{
	lock_is_free();
	return asking;
}

bool anon_live(void) { return atomic_load(&is_live); }
bool torture(void) { return atomic_load(&is_torture); }
bool library_thread(void) { return ours; }
bool lock_future_set(void) { return atomic_load(&locked_future); }
int core_unmap(const void *addr, size_t len) { return CORE_PASS; }

/* ---- blocks ------------------------------------------------------------------------- */

struct block { unsigned char *p; size_t len; uint64_t stamp; bool mapped; };

static inline void stamp(struct block *b, size_t from, uint64_t with)
{
	b->stamp = with;
	for (size_t i = from; i + PAGE <= page_up(b->len); i += PAGE) {
		*(uint64_t *)(b->p + i) = with + i;
		*(uint64_t *)(b->p + i + PAGE - 8) = ~(with + i);
	}
}

static inline void intact(const struct block *b, size_t len)
{
	for (size_t i = 0; i + PAGE <= page_up(len); i += PAGE) {
		CHECK(*(uint64_t *)(b->p + i) == b->stamp + i);
		CHECK(*(uint64_t *)(b->p + i + PAGE - 8) == ~(b->stamp + i));
	}
}

static inline void zeros(const unsigned char *p, size_t from, size_t len)
{
	for (size_t i = from; i + PAGE <= page_up(len); i += PAGE)
		CHECK(!*(uint64_t *)(p + i) && !*(uint64_t *)(p + i + PAGE - 8));
}

static inline void *map(size_t len)
{
	void *p = NULL;

	CHECK(!core_heap_map(&p, len, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS));
	return p;
}

static inline struct block block(size_t len, size_t align, bool zero, uint64_t with)
{
	struct block b = { .p = core_heap_alloc(len, align, zero), .len = len };

	CHECK(b.p && core_heap_has(b.p) && !((uintptr_t)b.p % align));
	not_busy((uintptr_t)b.p, (uintptr_t)b.p + page_up(len));
	if (zero)
		zeros(b.p, 0, len);
	stamp(&b, 0, with);
	return b;
}

/* A new process: the heap it begins with is its own to spoil. */
static inline void in_child(void (*f)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		alarm(240);
		f();
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static inline void run_case(void **state)
{
	in_child((void (*)(void))*state);
}

static inline void run_unsanitized(void **state)
{
	if (ASAN || TSAN)
		skip();
	run_case(state);
}

#define CASE(f) { #f, run_case, NULL, NULL, (void *)f }
#define CASE_UNSANITIZED(f) { #f, run_unsanitized, NULL, NULL, (void *)f }

#endif
