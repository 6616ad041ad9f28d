/* SPDX-License-Identifier: MIT */
/* test_heap_sites.c - whose the heap's bytes and blocks are (core/heap.c with
 * core/sites.c), whatever becomes of a block.
 *
 * Owns what heap_test.h does; sites are the table's first three, and two more.
 * Lock: none, one thread.
 */
#include "heap_test.h"

static uint32_t site_a, site_b;

/* Two sites with names; those who ask are theirs from now on. */
static void begin(void)
{
	void *a = &site_a, *b = &site_b;
	bool fresh;

	site_a = sites_find(&a, 1, &fresh);
	site_b = sites_find(&b, 1, &fresh);
	sites_name(site_a, "a");
	sites_name(site_b, "b");
	asking = site_a;
}

/* The site with this name holds so much. */
static bool holds(const char *name, uint64_t bytes, uint64_t blocks)
{
	struct stat_site s[STATS_SITES];
	int n = sites_largest(s, 0, STATS_SITES);

	for (int i = 0; i < n; i++)
		if (!strcmp(s[i].name, name))
			return s[i].bytes == bytes && s[i].blocks == blocks;
	return !bytes && !blocks;
}

static void *by(uint32_t site, size_t len)
{
	asking = site;
	return block(len, 16, false, 1).p;
}

static void *map_by(uint32_t site, size_t len)
{
	asking = site;
	return map(len);
}

static void case_free(void)
{
	void *p, *q, *r;

	begin();
	p = by(site_a, MIB + 1);
	q = by(site_b, 3 * MIB);
	r = by(site_a, 10 * MIB);
	CHECK(holds("a", 11 * MIB + PAGE, 2) && holds("b", 3 * MIB, 1));
	core_heap_free(q);
	CHECK(holds("a", 11 * MIB + PAGE, 2) && holds("b", 0, 0));
	q = by(site_a, 3 * MIB);	/* the same place, another asker */
	CHECK(holds("a", 14 * MIB + PAGE, 3) && holds("b", 0, 0));
	core_heap_free(p);
	core_heap_free(q);
	CHECK(holds("a", 10 * MIB, 1));
	core_heap_free(r);
	CHECK(holds("a", 0, 0) && holds("early", 0, 0));
}

static void case_pieces(void)
{
	char *p, *q;

	begin();
	p = map_by(site_a, 6 * MIB);
	q = map_by(site_b, 4 * MIB);
	CHECK(q == p + 6 * MIB);
	CHECK(!core_heap_unmap(p + 2 * MIB, MIB, false));	/* a hole */
	CHECK(holds("a", 5 * MIB, 2));
	CHECK(!core_heap_unmap(p, MIB, false));			/* an end */
	CHECK(holds("a", 4 * MIB, 2) && holds("b", 4 * MIB, 1));
	CHECK(!core_heap_unmap(p + 5 * MIB, 2 * MIB, false));	/* of both */
	CHECK(holds("a", 3 * MIB, 2) && holds("b", 3 * MIB, 1));
	CHECK(!core_heap_unmap(p + MIB, MIB, false));		/* a whole piece */
	CHECK(holds("a", 2 * MIB, 1));
	CHECK(core_heap_unmap(q + 2 * MIB, MIB, true) == CORE_PASS);	/* lost */
	CHECK(holds("b", 2 * MIB, 2));
	CHECK(!core_heap_unmap(p, 10 * MIB, false));
	CHECK(holds("a", 0, 0) && holds("b", 0, 0) && !heap_used());
}

/* What grows where it is stays whose it was; what moves is who moved it. */
static void case_resize(void)
{
	void *p, *q, *r, *out = NULL;

	begin();
	p = by(site_a, MIB);
	asking = site_b;
	CHECK(core_heap_resize(p, 2 * MIB) == p);
	CHECK(holds("a", 2 * MIB, 1) && holds("b", 0, 0));
	CHECK(core_heap_resize(p, MIB) == p);
	CHECK(holds("a", MIB, 1));
	q = by(site_a, MIB);
	asking = site_b;
	r = core_heap_resize(p, 3 * MIB);
	CHECK(r && r != p);
	CHECK(holds("a", MIB, 1) && holds("b", 3 * MIB, 1));
	core_heap_free(r);
	core_heap_free(q);
	p = map_by(site_a, 2 * MIB);
	asking = site_b;
	CHECK(!core_heap_remap(&out, p, 2 * MIB, 5 * MIB, 0) && out == p);
	CHECK(holds("a", 5 * MIB, 1) && holds("b", 0, 0));
	CHECK(!core_heap_remap(&out, p, 5 * MIB, MIB, 0));
	CHECK(holds("a", MIB, 1));
	CHECK(!core_heap_unmap(p, MIB, false) && holds("a", 0, 0));
}

/* The last piece of a mapping with a hole grows, by itself. */
static void case_grow_part(void)
{
	void *out = NULL;
	char *p;

	begin();
	p = map_by(site_a, 4 * MIB);
	CHECK(!core_heap_unmap(p + MIB, MIB, false));
	CHECK(!core_heap_remap(&out, p + 2 * MIB, 2 * MIB, 3 * MIB, 0));
	CHECK(holds("a", 4 * MIB, 2));
	CHECK(!core_heap_unmap(p, 5 * MIB, false) && holds("a", 0, 0));
}

static void case_fork(void)
{
	int status = -1;
	void *p, *q;
	pid_t pid;

	begin();
	p = by(site_a, 2 * MIB);
	pid = fork();
	if (!pid) {
		q = by(site_b, MIB);
		CHECK(holds("a", 2 * MIB, 1) && holds("b", MIB, 1));
		core_heap_free(p);
		core_heap_free(q);
		CHECK(holds("a", 0, 0) && holds("b", 0, 0));
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	CHECK(holds("a", 2 * MIB, 1) && holds("b", 0, 0));
	core_heap_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(case_free), CASE(case_pieces), CASE(case_resize),
		CASE(case_grow_part), CASE(case_fork),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
