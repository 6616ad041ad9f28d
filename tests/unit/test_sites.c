/* SPDX-License-Identifier: MIT */
/* test_sites.c - the table of allocation sites (core/sites.c).
 *
 * Owns nothing. (1) Every case runs in a process of its own: the table is never
 * emptied. (2) Whatever threads do at once, no byte is counted twice or lost.
 * Lock: none.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/sites.h"

#define CHECK(x) ((x) ? (void)0 : broken(#x, __LINE__))

static void broken(const char *what, int line)
{
	fprintf(stderr, "line %d: not (%s)\n", line, what);
	abort();
}

/* A chain of n addresses that begins with first. */
static uint32_t chain(uintptr_t first, int n, bool *fresh)
{
	void *frame[2 * SITE_FRAMES];

	for (int i = 0; i < n; i++)
		frame[i] = (void *)(first + (uintptr_t)i * 16);
	return sites_find(frame, n, fresh);
}

static uint32_t site(uintptr_t first)
{
	bool fresh;

	return chain(first, 4, &fresh);
}

/* A request that was met. */
static void take(uint32_t s, int64_t bytes)
{
	sites_asked(s, (uint64_t)bytes);
	sites_count(s, bytes, 1);
}

static struct stat_site list[STATS_SITES];

/* What the list has under this name, or zeros. */
static struct stat_site shown(const char *name)
{
	int n = sites_largest(list, 0, STATS_SITES);
	struct stat_site none = { 0 };

	for (int i = 0; i < n; i++)
		if (!strcmp(list[i].name, name))
			return list[i];
	return none;
}

/* ---- finding -------------------------------------------------------------------- */

static void case_same_chain(void)
{
	bool fresh = false;
	uint32_t a = chain(0x1000, 4, &fresh), b;

	CHECK(a >= SITE_FIRST && a < SITES && fresh);
	CHECK(chain(0x1000, 4, &fresh) == a && !fresh);
	b = chain(0x1000, 3, &fresh);
	CHECK(b != a && fresh);
	CHECK(chain(0x1010, 4, &fresh) != a && fresh);
	/* What is beyond the frames that are looked at tells none apart. */
	a = chain(0x5000, SITE_FRAMES, &fresh);
	CHECK(chain(0x5000, SITE_FRAMES + 7, &fresh) == a && !fresh);
	CHECK(chain(0, 1, &fresh) >= SITE_FIRST);
}

static void case_overflow(void)
{
	bool fresh;

	for (uintptr_t i = 0; i < SITES - SITE_FIRST; i++)
		take(chain(0x1000 * (i + 1), 4, &fresh), 1);
	for (uintptr_t i = 0; i < 100; i++) {
		CHECK(chain(0x7000000 + i, 4, &fresh) == SITE_OTHER && !fresh);
		take(SITE_OTHER, 10);
	}
	CHECK(chain(0x1000 * 77, 4, &fresh) >= SITE_FIRST && !fresh);
	CHECK(shown("other").bytes == 1000 && shown("other").blocks == 100);
	CHECK(shown("unnamed").bytes == SITES - SITE_FIRST);
}

/* ---- counting and names ------------------------------------------------------------ */

static void case_counts(void)
{
	uint32_t a = site(0x1000), b = site(0x2000);

	sites_name(a, "a.so f+0x1");
	sites_name(b, "a.so g+0x2");
	take(a, 100);
	take(a, 50);
	take(b, 70);
	sites_count(a, -100, -1);	/* freed */
	sites_count(b, 30, 0);		/* grew */
	sites_count(b, -10, 1);		/* a hole in it */
	CHECK(shown("a.so f+0x1").bytes == 50 && shown("a.so f+0x1").blocks == 1);
	CHECK(shown("a.so f+0x1").requests == 2 && shown("a.so f+0x1").asked == 150);
	CHECK(shown("a.so g+0x2").bytes == 90 && shown("a.so g+0x2").blocks == 2);
	CHECK(list[0].bytes == 90 && list[0].kind == STAT_HEAP);
	sites_count(b, -90, -2);
	CHECK(shown("a.so g+0x2").bytes == 0 && shown("a.so g+0x2").requests == 1);
	CHECK(!shown("early").requests && !shown("unnamed").requests);
}

static void case_names(void)
{
	void *const *frame = NULL;
	uint32_t a = site(0x1000), b = site(0x2000), c = site(0x3000), i;
	int n = 0, left = 0;

	for (i = 0; (i = sites_unnamed(i, &frame, &n)) < SITES; i++) {
		CHECK(n == 4 && frame[1] == (char *)frame[0] + 16);
		left++;
	}
	CHECK(left == 3);
	take(a, 1);
	take(b, 2);
	take(c, 4);
	CHECK(shown("unnamed").bytes == 7);
	sites_name(a, "one");
	sites_name(b, "two");
	sites_name(c, "one");	/* two ways to one place */
	CHECK(sites_unnamed(0, &frame, &n) == SITES);
	CHECK(shown("one").bytes == 5 && shown("one").blocks == 2);
	CHECK(shown("two").bytes == 2 && !shown("unnamed").requests);
	a = site(0x4000);
	take(a, 8);
	sites_name(a, "a name that is much longer than there is room for in the list, "
		   "so that only the first part of it is kept and shown");
	sites_largest(list, 0, STATS_SITES);
	CHECK(strlen(list[0].name) == SITE_NAME_MAX - 1);
}

static void case_allocators(void)
{
	CHECK(sites_allocator("libc.so.6", "__libc_start_main"));
	CHECK(sites_allocator("libstdc++.so.6", NULL));
	CHECK(sites_allocator("libjemalloc.so.2", "mallocx"));
	CHECK(sites_allocator("engine", "malloc"));
	CHECK(sites_allocator("engine", "_Znwm"));
	CHECK(sites_allocator("engine", "_ZnamSt11align_val_t"));
	CHECK(!sites_allocator("engine", NULL));
	CHECK(!sites_allocator("engine", "mallocate"));
	CHECK(!sites_allocator("libc10.so", "_ZN3c109alloc_cpuEm"));
	CHECK(!sites_allocator("libcrypto.so.3", "malloc_it"));
}

/* ---- the largest --------------------------------------------------------------------- */

static void case_largest(void)
{
	struct stat_site s = { .kind = STAT_FILE, .name = "file" };
	int n = 0;

	for (uint64_t i = 1; i <= 40; i++) {
		s.bytes = i * 7919 % 41;	/* 1 to 40, mixed */
		n = sites_insert(list, n, STATS_SITES, &s);
		CHECK(n == (int)(i < STATS_SITES ? i : STATS_SITES));
	}
	for (int i = 0; i < STATS_SITES; i++)
		CHECK(list[i].bytes == (uint64_t)(40 - i));
	take(SITE_EARLY, 39);	/* as many as another, and something was asked: before it */
	CHECK(sites_largest(list, n, STATS_SITES) == STATS_SITES);
	CHECK(list[1].kind == STAT_HEAP && list[2].kind == STAT_FILE && list[2].bytes == 39);
	CHECK(list[STATS_SITES - 1].bytes == 26);
}

/* ---- threads and forks ------------------------------------------------------------------- */

static void *ask_and_free(void *arg)
{
	for (int round = 0; round < 2000; round++)
		for (uintptr_t i = 0; i < 100; i++) {
			uint32_t s = site(0x1000 * (i + 1));

			take(s, 64);
			if (round)
				sites_count(s, -64, -1);
		}
	return arg;
}

static void case_threads(void)
{
	uint64_t bytes = 0, blocks = 0, requests = 0;
	void *const *frame;
	pthread_t t[4];
	char name[16];
	int n, sites = 0;

	for (int i = 0; i < 4; i++)
		CHECK(!pthread_create(&t[i], NULL, ask_and_free, NULL));
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	for (uint32_t i = 0; (i = sites_unnamed(i, &frame, &n)) < SITES; i++) {
		snprintf(name, sizeof(name), "s%d", sites++ % 10);
		sites_name(i, name);
	}
	CHECK(sites == 100);	/* no chain has two */
	CHECK(sites_largest(list, 0, STATS_SITES) == 10);
	for (int i = 0; i < 10; i++) {
		bytes += list[i].bytes;
		blocks += list[i].blocks;
		requests += list[i].requests;
	}
	CHECK(bytes == 4 * 100 * 64 && blocks == 400 && requests == 4 * 100 * 2000);
}

static void case_fork(void)
{
	uint32_t a = site(0x1000);
	int status = -1;
	pid_t pid;

	sites_name(a, "mine");
	take(a, 100);
	pid = fork();
	if (!pid) {
		CHECK(site(0x1000) == a && shown("mine").bytes == 100);
		take(a, 11);
		sites_count(a, -100, -1);
		CHECK(shown("mine").bytes == 11 && shown("mine").blocks == 1);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	CHECK(shown("mine").bytes == 100 && shown("mine").blocks == 1);
}

/* ---- running ------------------------------------------------------------------------------ */

static void run_case(void **state)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		alarm(120);
		((void (*)(void))*state)();
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

#define CASE(f) { #f, run_case, NULL, NULL, (void *)f }

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(case_same_chain), CASE(case_overflow), CASE(case_counts),
		CASE(case_names), CASE(case_allocators), CASE(case_largest),
		CASE(case_threads), CASE(case_fork),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
