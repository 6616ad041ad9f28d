/* SPDX-License-Identifier: MIT */
/* test_heap_storm.c - the heap when things happen at once: mappings over it,
 * forks and signals in the middle, many blocks, random threads.
 *
 * Owns what heap_test.h does. Lock: none of its own.
 */
#include "heap_test.h"

#include <sched.h>

/* ---- lost addresses ------------------------------------------------------------------------ */

static bool readable(const void *p)
{
	int fd[2];
	bool ok;

	CHECK(!pipe(fd));
	ok = write(fd[1], p, 1) == 1;
	close(fd[0]);
	close(fd[1]);
	return ok;
}

static void case_lost(void)
{
	struct block b = { .p = map(4 * MIB), .len = 4 * MIB };
	unsigned char *at = b.p + MIB, *q;
	void *out = NULL;

	stamp(&b, 0, 21);
	CHECK(core_heap_unmap(at, MIB, true) == CORE_PASS);
	q = mmap(at, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0);
	CHECK(q == at && atomic_load(&lost_bytes) >= MIB);
	zeros(q, 0, MIB);
	*q = 1;
	CHECK(!core_heap_free(q) && !core_heap_usable(q));
	CHECK(heap_used() == 3 * MIB);
	/* The program's own: moved, the place stays shut. */
	CHECK(!core_heap_remap(&out, at, MIB, 2 * MIB, MREMAP_MAYMOVE));
	CHECK(out != at && *(unsigned char *)out == 1 && !readable(at));
	CHECK(mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		   -1, 0) == MAP_FAILED);
	munmap(out, 2 * MIB);
	/* Unmapped: never handed out, to nobody. */
	q = mmap(at, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0);
	CHECK(q == at);
	CHECK(!core_heap_unmap(b.p, 4 * MIB, false) && !readable(at));
	CHECK(!heap_used());
	CHECK(mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		   -1, 0) == MAP_FAILED);
	for (int i = 0; i < 64; i++) {
		q = core_heap_alloc(MIB, 16, false);
		CHECK(q && (q + MIB <= at || q >= at + MIB));
	}
}

/* The program maps over what was never handed out. */
static void case_lost_above(void)
{
	struct block b = block(MIB, 16, false, 1), c;
	uintptr_t far_ = atomic_load(&grown) + 64 * MIB;

	CHECK(core_heap_unmap((void *)far_, MIB, true) == CORE_PASS);
	c = block(100 * MIB, 16, true, 2);
	CHECK((uintptr_t)c.p >= far_ + MIB || (uintptr_t)c.p + 100 * MIB <= far_);
	atomic_store(&refuse_growth, true);
	far_ = atomic_load(&grown) + 64 * MIB;
	CHECK(core_heap_unmap((void *)far_, MIB, true) == CORE_PASS);
	atomic_store(&refuse_growth, false);
	for (int i = 0; i < 8; i++) {
		unsigned char *p = core_heap_alloc(16 * MIB, 16, false);

		CHECK(!p || (uintptr_t)p + 16 * MIB <= far_);
	}
	intact(&b, b.len);
	intact(&c, c.len);
}

/* Who maps over a range that is being cleared waits for that: the clearing
 * must not hit the new mapping. */
static _Atomic bool over, hit;
static uintptr_t target_lo, target_hi;
static pthread_t mapper;

static void *map_over(void *arg)
{
	core_heap_unmap((void *)target_lo, target_hi - target_lo, true);
	atomic_store(&over, true);
	return NULL;
}

static void start_mapper(uintptr_t lo, uintptr_t hi)
{
	atomic_store(&while_clearing, NULL);
	target_lo = lo;
	target_hi = hi;
	CHECK(!pthread_create(&mapper, NULL, map_over, NULL));
	for (int i = 0; i < 5000; i++) {
		sched_yield();
		if (atomic_load(&over))
			atomic_store(&hit, true);
	}
}

static void case_clearing(void)
{
	struct block b = block(8 * MIB, 16, false, 1);

	atomic_store(&is_torture, true);
	atomic_store(&while_clearing, start_mapper);
	core_heap_free(b.p);
	CHECK(!pthread_join(mapper, NULL));
	CHECK(atomic_load(&over) && !atomic_load(&hit));
}

/* Nor is it handed out. */
static void alloc_meanwhile(uintptr_t lo, uintptr_t hi)
{
	atomic_store(&while_clearing, NULL);
	for (int i = 0; i < 32; i++) {
		uintptr_t p = (uintptr_t)core_heap_alloc(MIB, 16, false);

		CHECK(p && (p >= hi || p + MIB <= lo));
	}
}

static void case_clearing_alloc(void)
{
	struct block b = block(64 * MIB, 16, false, 1);

	atomic_store(&is_torture, true);
	atomic_store(&while_clearing, alloc_meanwhile);
	core_heap_free(b.p);
	CHECK(core_heap_alloc(60 * MIB, 16, false) == b.p);
}

/* A fork in the middle of a clearing: the child has the range again. */
static void fork_meanwhile(uintptr_t lo, uintptr_t hi)
{
	int status;
	pid_t pid;

	atomic_store(&while_clearing, NULL);
	heap_fork_prepare();
	pid = fork();
	if (!pid) {
		memset(busy, 0, sizeof(busy));
		heap_fork_child();
		alarm(30);
		CHECK((uintptr_t)core_heap_alloc(hi - lo, 16, true) == lo);
		zeros((void *)lo, 0, hi - lo);
		_exit(0);
	}
	heap_fork_done();
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && !status);
}

static void case_clearing_fork(void)
{
	struct block b = block(8 * MIB, 16, false, 1);

	atomic_store(&is_torture, true);
	atomic_store(&while_clearing, fork_meanwhile);
	core_heap_free(b.p);
	CHECK(core_heap_alloc(8 * MIB, 16, false) == b.p);
}

/* ---- signals --------------------------------------------------------------------------------- */

static _Atomic int handled;

static void handler(int sig)
{
	void *p = map(MIB);

	core_heap_unmap(p, MIB, false);
	atomic_fetch_add(&handled, 1);
}

static void *pester(void *arg)
{
	while (atomic_load(&handled) < 300) {
		pthread_kill(*(pthread_t *)arg, SIGUSR1);
		sched_yield();
	}
	return NULL;
}

/* A handler may map and unmap while its thread does. */
static void case_signals(void)
{
	struct sigaction sa = { .sa_handler = handler };
	pthread_t self = pthread_self(), t;

	CHECK(!sigaction(SIGUSR1, &sa, NULL));
	CHECK(!pthread_create(&t, NULL, pester, &self));
	while (atomic_load(&handled) < 300)
		core_heap_free(core_heap_alloc(MIB, 16, false));
	CHECK(!pthread_join(t, NULL));
}

/* ---- many, at random, in threads --------------------------------------------------------------- */

static void case_many_blocks(void)
{
	const size_t n = 20000, len = 3 * PAGE;
	unsigned char **p = calloc(n, sizeof(*p));
	uintptr_t top;

	for (size_t i = 0; i < n; i++) {
		p[i] = core_heap_alloc(len, 16, false);
		CHECK(p[i]);
		*(size_t *)p[i] = i;
	}
	top = atomic_load(&grown);
	for (size_t i = 0; i < n; i++) {
		CHECK(*(size_t *)p[i] == i);
		CHECK(core_heap_usable(p[i]) == len);
	}
	for (size_t i = 1; i < n; i += 2)
		core_heap_free(p[i]);
	CHECK(heap_used() == n / 2 * len);
	for (size_t i = 1; i < n; i += 2) {
		p[i] = core_heap_alloc(len, 16, false);
		*(size_t *)p[i] = i;
	}
	CHECK(atomic_load(&grown) == top);
	for (size_t i = 0; i < n; i++)
		CHECK(*(size_t *)p[i] == i);
	for (size_t i = 0; i < n; i++)
		core_heap_free(p[i * 7919 % n]);
	CHECK(!heap_used());
	/* All of it is one place again. */
	p[0] = core_heap_alloc(top - core_heap_base, 16, false);
	CHECK(p[0] == (void *)core_heap_base);
	core_heap_free(p[0]);
	free(p);
}

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static size_t random_size(uint64_t *s)
{
	static const size_t below[] = { 64 * KIB, 300 * KIB, 3 * MIB, 10 * MIB };

	return 1 + next_random(s) % below[next_random(s) % 4];
}

static void drop(struct block *b)
{
	if (!b->p)
		return;
	intact(b, b->len);
	if (b->mapped)
		CHECK(!core_heap_unmap(b->p, b->len, false));
	else
		CHECK(core_heap_free(b->p));
	b->p = NULL;
}

static void make(struct block *b, uint64_t *s)
{
	size_t len = random_size(s);

	if (next_random(s) % 3) {
		*b = block(len, 16ul << next_random(s) % 12, next_random(s) & 1,
			   next_random(s));
		return;
	}
	*b = (struct block){ .p = map(len), .len = len, .mapped = true };
	zeros(b->p, 0, len);
	stamp(b, 0, next_random(s));
}

static void change(struct block *b, uint64_t *s)
{
	size_t len = random_size(s), old = b->len;
	void *p = b->p;

	intact(b, old);
	if (b->mapped)
		CHECK(!core_heap_remap(&p, b->p, old, len, MREMAP_MAYMOVE));
	else
		CHECK((p = core_heap_resize(b->p, len)));
	b->p = p;
	intact(b, old < len ? old : len);
	if (b->mapped && page_up(old) < len)
		zeros(b->p, page_up(old), len);
	b->len = len;
	stamp(b, 0, next_random(s));
}

static void trim(struct block *b, uint64_t *s)
{
	size_t pages = page_up(b->len) / PAGE, cut = next_random(s) % pages * PAGE;

	if (!b->mapped || !cut)
		return;
	intact(b, b->len);
	CHECK(!core_heap_unmap(b->p, cut, false));
	b->p += cut;
	b->len = page_up(b->len) - cut;
	b->stamp += cut;
}

static int rounds = ASAN || TSAN ? 300 : 1200;

static void *storm(void *arg)
{
	uint64_t s = 0x9e3779b97f4a7c15ull * ((uintptr_t)arg + 1);
	struct block b[24] = { 0 };

	for (int i = 0; i < rounds; i++) {
		struct block *x = &b[next_random(&s) % 24];

		asking = (uint32_t)(next_random(&s) % SITE_FIRST);
		if (!x->p)
			make(x, &s);
		else if (next_random(&s) % 3 == 0)
			change(x, &s);
		else if (next_random(&s) % 3 == 0)
			trim(x, &s);
		else
			drop(x);
	}
	for (int i = 0; i < 24; i++)
		drop(&b[i]);
	return NULL;
}

static void storms(size_t threads)
{
	struct stat_site site[STATS_SITES];
	pthread_t t[4];

	for (uintptr_t i = 0; i < threads; i++)
		CHECK(!pthread_create(&t[i], NULL, storm, (void *)i));
	for (size_t i = 0; i < threads; i++)
		CHECK(!pthread_join(t[i], NULL));
	CHECK(!heap_used());
	CHECK(sites_largest(site, 0, STATS_SITES) == SITE_FIRST);
	for (int i = 0; i < SITE_FIRST; i++)
		CHECK(site[i].requests && !site[i].bytes && !site[i].blocks);
}

static void case_storm(void)
{
	storms(1);
	atomic_store(&is_live, true);
	storms(1);
	atomic_store(&is_live, false);
}

static void case_threads(void)
{
	rounds /= 3;
	storms(4);
	atomic_store(&is_torture, true);
	storms(4);
	atomic_store(&is_torture, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(case_lost),
		CASE(case_lost_above),
		CASE(case_clearing),
		CASE(case_clearing_alloc),
		/* They hold signals back, and know no fork in a thread. */
		CASE_UNSANITIZED(case_clearing_fork),
		CASE_UNSANITIZED(case_signals),
		CASE(case_many_blocks),
		CASE(case_storm),
		CASE(case_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
