/* SPDX-License-Identifier: MIT */
/* test_heap.c - who owns which addresses of the heap: places, zeros, sizes.
 *
 * Owns what heap_test.h does. Lock: none, one thread.
 */
#include "heap_test.h"

/* ---- the range ------------------------------------------------------------------------ */

static size_t mapped_bytes(void)
{
	char buf[64] = "";
	FILE *f = fopen("/proc/self/statm", "r");

	CHECK(f && fgets(buf, sizeof(buf), f));
	fclose(f);
	return strtoul(buf, NULL, 10) * PAGE;
}

static void limit_left(size_t bytes)
{
	struct rlimit rl = { mapped_bytes() + bytes, RLIM_INFINITY };

	CHECK(!setrlimit(RLIMIT_AS, &rl));
}

static void case_half_of_limit(void)
{
	limit_left(6ul << 30);
	CHECK(core_heap_alloc(MIB, 16, false));
	CHECK(core_heap_size > 2ul << 30 && core_heap_size <= 3ul << 30);
	CHECK(mmap(NULL, 2ul << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
	      MAP_FAILED);
}

static void case_no_room(void)
{
	size_t before;

	limit_left(1ul << 30);
	before = mapped_bytes();
	core_heap_min = 4096;
	CHECK(!core_heap_alloc(MIB, 16, false));
	CHECK(core_heap_min == SIZE_MAX && !core_heap_size);
	CHECK(mapped_bytes() < before + 64 * MIB);	/* nothing stays reserved */
	CHECK(!core_heap_alloc(MIB, 16, false));
}

/* While the heap is made, base and size are seen in any combination. */
static void case_half_made(void)
{
	uintptr_t base = core_heap_base;

	CHECK(!core_heap_has((void *)4096) && !core_heap_has((void *)(base - 1)));
	CHECK(!core_heap_touches((void *)4096, 1ul << 46));
	CHECK(core_heap_alloc(MIB, 16, false));
	core_heap_base = base;
	CHECK(!core_heap_has((void *)4096) && !core_heap_has((void *)(1ul << 40)));
}

static void case_sizes_of_range(void)
{
	struct block b = block(MIB, 16, false, 1);
	size_t ram = (size_t)sysconf(_SC_PHYS_PAGES) * PAGE;

	CHECK(!(core_heap_base % CHUNK));
	CHECK(core_heap_size <= 1ul << 40);
	CHECK(core_heap_size >= 1ul << 30);
	CHECK(core_heap_size <= 8 * ram + (1ul << 30));
	CHECK(core_heap_touches((char *)core_heap_base - 1, 2));
	CHECK(!(core_heap_touches((char *)core_heap_base - 1, 1)));
	CHECK(!(core_heap_has((void *)(core_heap_base + core_heap_size))));
	core_heap_free(b.p);
	CHECK(!heap_used());
}

/* ---- places --------------------------------------------------------------------------- */

static void case_alignment(void)
{
	struct block b[24];

	for (size_t i = 0; i < 12; i++)		/* 16 B to 32 KiB, 4 MiB to ... */
		b[i] = block(12345, 16ul << i, i & 1, i << 32);
	for (size_t i = 12; i < 24; i++)
		b[i] = block(3 * MIB + i, 4096ul << (i - 12), i & 1, i << 32);
	for (size_t i = 0; i < 24; i++) {
		intact(&b[i], b[i].len);
		CHECK(core_heap_usable(b[i].p) == page_up(b[i].len));
		core_heap_free(b[i].p);
	}
	b[0] = block(8 * MIB, 16, false, 1);
	CHECK(!((uintptr_t)b[0].p % CHUNK));
	core_heap_free(b[0].p);
	CHECK(!heap_used());
}

/* Smaller ones lie side by side. */
static void case_dense(void)
{
	struct block a = block(4 * MIB + 1, 16, false, 1), b = block(4 * MIB + 1, 16, false, 2);

	CHECK(b.p == a.p + 4 * MIB + PAGE);
	core_heap_free(a.p);
	core_heap_free(b.p);
	CHECK(!heap_used());
}

static void case_impossible(void)
{
	struct block b = block(MIB, 16, false, 7);
	void *out = NULL;
	size_t huge[] = { SIZE_MAX, SIZE_MAX - 100, SIZE_MAX - 4095, SIZE_MAX / 2,
			  core_heap_size + PAGE, 0 };

	errno = 77;
	for (size_t i = 0; i < 6; i++) {
		if (huge[i])
			CHECK(!core_heap_alloc(huge[i], 16, true));
		CHECK(!core_heap_resize(b.p, huge[i]));
		CHECK(core_heap_remap(&out, b.p, MIB, huge[i], MREMAP_MAYMOVE) < 0);
		intact(&b, b.len);
		CHECK(core_heap_usable(b.p) == MIB);
	}
	CHECK(!core_heap_alloc(MIB, 1ul << 45, false));
	CHECK(core_heap_unmap(b.p, SIZE_MAX, false) == CORE_PASS);
	CHECK(core_heap_unmap(b.p, SIZE_MAX / 2, false) == CORE_PASS);
	CHECK(core_heap_unmap(b.p, 0, false) == CORE_PASS);
	CHECK(core_heap_unmap(b.p + 1, PAGE, false) == CORE_PASS);
	ours = true;
	CHECK(!core_heap_alloc(MIB, 16, false));
	ours = false;
	CHECK(errno == 77);
	intact(&b, b.len);
	core_heap_free(b.p);
}

/* The lowest place that fits, and what is free and touches is one place. */
static void case_coalescing(void)
{
	struct block b[8];
	uintptr_t top;

	for (size_t i = 0; i < 8; i++)
		b[i] = block(MIB, 16, false, i << 32);
	core_heap_free(b[1].p);
	core_heap_free(b[3].p);
	core_heap_free(b[2].p);
	top = atomic_load(&grown);
	CHECK(core_heap_alloc(3 * MIB, 16, false) == b[1].p);
	core_heap_free(b[1].p);
	core_heap_free(b[5].p);
	CHECK(core_heap_alloc(MIB / 2, 16, false) == b[1].p);
	CHECK(core_heap_alloc(2 * MIB, 16, false) == b[1].p + MIB / 2);
	core_heap_free(b[1].p);
	core_heap_free(b[1].p + MIB / 2);
	for (size_t i = 0; i < 8; i++)
		if (i < 1 || (i > 3 && i != 5)) {
			intact(&b[i], b[i].len);
			core_heap_free(b[i].p);
		}
	CHECK(!heap_used());
	b[0].p = core_heap_alloc(top - core_heap_base, 16, false);
	CHECK(b[0].p == (void *)core_heap_base);
	CHECK(atomic_load(&grown) == top);
	core_heap_free(b[0].p);
}

/* ---- zeros ----------------------------------------------------------------------------- */

static void zeros_after_use(void)
{
	size_t sizes[] = { PAGE, 100 * KIB, 129 * KIB, MIB, 3 * MIB + PAGE, 9 * MIB };

	for (size_t i = 0; i < 6; i++) {
		struct block b = block(sizes[i], 16, false, 99);
		unsigned char *p;

		core_heap_free(b.p);
		b = block(sizes[i], 16, true, 98);	/* looks for zeros */
		core_heap_free(b.p);
		p = map(sizes[i]);
		zeros(p, 0, sizes[i]);
		CHECK(!core_heap_unmap(p, sizes[i], false));
	}
}

static void case_zeros(void)
{
	zeros_after_use();
	atomic_store(&is_live, true);
	zeros_after_use();
	atomic_store(&is_live, false);
	atomic_store(&is_torture, true);
	zeros_after_use();
	atomic_store(&is_torture, false);
}

/* Freed memory is kept, up to a cap; none of it while the heap is paged. */
static void case_cap(void)
{
	struct block b[10];
	size_t before;

	for (size_t i = 0; i < 10; i++)
		b[i] = block(16 * MIB, 16, false, i);
	before = atomic_load(&cleared_bytes);
	for (size_t i = 0; i < 4; i++)
		core_heap_free(b[i].p);
	CHECK(atomic_load(&cleared_bytes) == before);
	core_heap_free(b[4].p);
	CHECK(atomic_load(&cleared_bytes) >= before + 16 * MIB);
	atomic_store(&is_live, true);
	core_heap_free(b[5].p);		/* and all that was kept */
	CHECK(atomic_load(&cleared_bytes) == before + 6 * 16 * MIB);
	atomic_store(&is_live, false);
	atomic_store(&is_torture, true);
	core_heap_free(b[6].p);
	CHECK(atomic_load(&cleared_bytes) == before + 7 * 16 * MIB);
	atomic_store(&is_torture, false);
	for (size_t i = 7; i < 10; i++)
		core_heap_free(b[i].p);
	CHECK(!heap_used());
}

/* ---- sizes that change -------------------------------------------------------------------- */

static void case_resize(void)
{
	struct block a = block(4 * MIB, 16, false, 1), next, b;
	size_t was = heap_used(), asked;
	void *p;

	/* At the top, and into what is free behind it. */
	CHECK(core_heap_resize(a.p, 40 * MIB) == a.p);
	intact(&a, a.len);
	a.len = 40 * MIB;
	stamp(&a, 0, 2);
	CHECK(heap_used() == was + 36 * MIB);
	CHECK(core_heap_resize(a.p, 3 * MIB + 1) == a.p);
	CHECK(core_heap_usable(a.p) == 3 * MIB + PAGE);
	a.len = 3 * MIB;
	next = block(2 * MIB, 16, false, 3);
	CHECK(next.p == a.p + 3 * MIB + PAGE);
	asked = atomic_load(&admitted);
	CHECK(core_heap_resize(next.p, 50 * MIB) == next.p);
	CHECK(atomic_load(&admitted) > asked);
	intact(&next, next.len);
	/* Something is in the way. */
	b = a;
	p = core_heap_resize(a.p, 5 * MIB);
	CHECK(p);
	CHECK(p != a.p);
	b.p = p;
	intact(&b, b.len);
	CHECK(core_heap_usable(p) == 5 * MIB);
	/* The old place is free. */
	CHECK(core_heap_alloc(3 * MIB + PAGE, 16, false) == a.p);
	core_heap_free(a.p);
	core_heap_free(p);
	core_heap_free(next.p);
	CHECK(!heap_used());
}

static void case_remap(void)
{
	struct block b = { .p = map(4 * MIB), .len = 4 * MIB, .mapped = true }, in_way;
	void *out = NULL, *elsewhere;

	zeros(b.p, 0, b.len);
	stamp(&b, 0, 5);
	CHECK(!core_heap_remap(&out, b.p, b.len, 6 * MIB, 0));
	CHECK(out == b.p);
	intact(&b, b.len);
	zeros(b.p, 4 * MIB, 6 * MIB);
	CHECK(!core_heap_remap(&out, b.p, 6 * MIB, 2 * MIB + 5, 0));
	b.len = 2 * MIB + 5;
	in_way = block(PAGE, 16, false, 6);
	CHECK(core_heap_remap(&out, b.p, b.len, 7 * MIB, 0) == -ENOMEM);
	intact(&b, b.len);
	CHECK(!core_heap_remap(&out, b.p, b.len, 7 * MIB, MREMAP_MAYMOVE));
	CHECK(out != b.p);
	b.p = out;
	intact(&b, b.len);
	zeros(b.p, page_up(b.len), 7 * MIB);
	b.len = 7 * MIB;
	stamp(&b, 0, 8);
	/* Out of the heap, onto something. */
	elsewhere = mmap(NULL, 8 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(elsewhere != MAP_FAILED);
	out = elsewhere;
	CHECK(!core_heap_remap(&out, b.p, b.len, 8 * MIB, MREMAP_MAYMOVE | MREMAP_FIXED));
	CHECK(out == elsewhere);
	b.p = out;
	intact(&b, b.len);
	zeros(b.p, 7 * MIB, 8 * MIB);
	CHECK(!munmap(out, 8 * MIB));
	core_heap_free(in_way.p);
	CHECK(!heap_used());
}

/* What is asked is wrong: nothing has happened, in either place. */
static void case_remap_refused(void)
{
	struct block b = { .p = map(4 * MIB), .len = 4 * MIB }, c = block(2 * MIB, 16, false, 1);
	size_t lost = atomic_load(&lost_bytes);
	void *out = b.p + MIB;
	const int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;

	stamp(&b, 0, 5);
	CHECK(core_heap_remap(&out, b.p, 2 * MIB, 2 * MIB, fixed) == -EINVAL);
	out = b.p - MIB;
	CHECK(core_heap_remap(&out, b.p, 2 * MIB, 2 * MIB, fixed) == -EINVAL);
	out = c.p;
	CHECK(core_heap_remap(&out, b.p, MIB, MIB, MREMAP_FIXED) == -EINVAL);
	CHECK(core_heap_remap(&out, b.p, MIB, 0, fixed) == -EINVAL);
	CHECK(core_heap_remap(&out, b.p + 8, MIB, MIB, fixed) == -EINVAL);
	CHECK(core_heap_remap(&out, b.p, MIB, MIB, fixed | 1024) == -EINVAL);
	CHECK(core_heap_remap(&out, b.p, 0, MIB, MREMAP_MAYMOVE) == -EINVAL);
	out = c.p + 7;
	CHECK(core_heap_remap(&out, b.p, MIB, MIB, fixed) == -EINVAL);
	/* Beyond its end is another's. */
	CHECK(core_heap_remap(&out, b.p, 5 * MIB, 9 * MIB, MREMAP_MAYMOVE) == -EFAULT);
	CHECK(atomic_load(&lost_bytes) == lost);
	atomic_store(&is_live, true);
	CHECK(core_heap_remap(&out, b.p, MIB, MIB, MREMAP_MAYMOVE | MREMAP_DONTUNMAP) == -EINVAL);
	atomic_store(&is_live, false);
	CHECK(core_heap_remap(&out, b.p, MIB, MIB, MREMAP_MAYMOVE | MREMAP_DONTUNMAP) == CORE_PASS);
	intact(&b, b.len);
	intact(&c, c.len);
	CHECK(!core_heap_unmap(b.p, b.len, false));
	core_heap_free(c.p);
	CHECK(!heap_used());
}

/* ---- mappings ------------------------------------------------------------------------------ */

static void case_map_flags(void)
{
	const int rw = PROT_READ | PROT_WRITE, anon = MAP_PRIVATE | MAP_ANONYMOUS;
	const int no[] = { MAP_STACK, MAP_GROWSDOWN, MAP_HUGETLB, MAP_NORESERVE, MAP_LOCKED,
			   MAP_32BIT, MAP_FIXED, MAP_FIXED_NOREPLACE };
	unsigned char vec[MIB / PAGE], *p;
	void *out = NULL;

	for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
		CHECK(core_heap_map(&out, MIB, rw, anon | no[i]) == CORE_PASS);
	CHECK(core_heap_map(&out, MIB, rw, MAP_SHARED | MAP_ANONYMOUS) == CORE_PASS);
	CHECK(core_heap_map(&out, MIB, PROT_READ, anon) == CORE_PASS);
	CHECK(core_heap_map(&out, MIB, PROT_NONE, anon) == CORE_PASS);
	CHECK(core_heap_map(&out, MIB, rw | PROT_EXEC, anon) == CORE_PASS);
	CHECK(core_heap_map(&out, 0, rw, anon) == CORE_PASS);
	atomic_store(&locked_future, true);
	CHECK(core_heap_map(&out, MIB, rw, anon) == CORE_PASS);
	atomic_store(&locked_future, false);
	CHECK(!out);
	CHECK(!core_heap_map(&out, MIB, rw, anon | MAP_POPULATE));
	p = out;
	CHECK(!mincore(p, MIB, vec));
	for (size_t i = 0; i < MIB / PAGE; i++)
		CHECK(vec[i] & 1);
	CHECK(!core_heap_unmap(p, MIB, false));
	CHECK(!heap_used());
}

static void case_unmap_parts(void)
{
	struct block b = { .p = map(6 * MIB), .len = 6 * MIB }, c, d;
	void *p;

	stamp(&b, 0, 11);
	CHECK(!core_heap_unmap(b.p + 2 * MIB, MIB, false));	/* middle */
	CHECK(!core_heap_unmap(b.p, PAGE, false));			/* head */
	CHECK(!core_heap_unmap(b.p + 6 * MIB - PAGE, PAGE, false));/* tail */
	CHECK(heap_used() == 5 * MIB - 2 * PAGE);
	c = block(MIB, 16, true, 12);
	CHECK(c.p == b.p + 2 * MIB);
	for (size_t i = PAGE; i < 6 * MIB - PAGE; i += PAGE)
		if (i < 2 * MIB || i >= 3 * MIB)
			CHECK(*(uint64_t *)(b.p + i) == 11 + i);
	core_heap_free(c.p);
	/* Several blocks and holes at once. */
	p = map(MIB);
	d = block(MIB, 16, false, 13);
	CHECK(p == b.p + 2 * MIB);
	CHECK(!core_heap_unmap(b.p, 6 * MIB - PAGE, false));
	intact(&d, d.len);
	core_heap_free(d.p);
	CHECK(!heap_used());
}

/* free of what the next allocator keeps in a mapping is not ours. */
/* What the program protected is as new when it is handed out again. */
static void case_protected(void)
{
	for (int prot = PROT_NONE; prot <= PROT_READ; prot++) {
		unsigned char *p = map(3 * MIB), *q;

		CHECK(!mprotect(p + MIB, MIB, prot));
		heap_protect(p + MIB, MIB, prot);
		CHECK(bar.lo == (uintptr_t)p + MIB && bar.hi == bar.lo + MIB && bar_on);
		CHECK(!core_heap_unmap(p, 3 * MIB, false));
		CHECK(bar.lo == (uintptr_t)p && bar.hi == bar.lo + 3 * MIB && !bar_on);
		q = core_heap_alloc(3 * MIB, 16, true);
		CHECK(q == p);
		memset(q, 1, 3 * MIB);
		CHECK(core_heap_free(q));
	}
}

static void case_mapped_is_not_malloced(void)
{
	unsigned char *p = map(2 * MIB);
	struct block b = block(MIB, 16, false, 3);

	*p = 1;
	CHECK(!core_heap_free(p));
	CHECK(!(core_heap_free(p + 48)));
	CHECK(!core_heap_usable(p));
	CHECK(!core_heap_usable(p + 16));
	CHECK(!core_heap_resize(p, 4 * MIB));
	CHECK(!core_heap_usable(b.p + PAGE));
	CHECK(*p == 1);
	CHECK(!core_heap_unmap(p, 2 * MIB, false));
	CHECK(core_heap_free(b.p));
	CHECK(!heap_used());
}

static void child_free_twice(void)
{
	struct block b = block(MIB, 16, false, 1);

	CHECK(core_heap_free(b.p));
	core_heap_free(b.p);
}

static void child_free_inside(void)
{
	struct block b = block(MIB, 16, false, 1);

	core_heap_free(b.p + PAGE);
}

static void case_bad_free(void)
{
	void (*const f[])(void) = { child_free_twice, child_free_inside };

	for (int i = 0; i < 2; i++) {
		int status;
		pid_t pid = fork();

		if (!pid) {
			signal(SIGABRT, SIG_DFL);
			close(2);
			f[i]();
			_exit(0);
		}
		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(case_half_made),
		/* Sanitizers need more address space than any limit. */
		CASE_UNSANITIZED(case_half_of_limit),
		CASE_UNSANITIZED(case_no_room),
		CASE(case_sizes_of_range),
		CASE(case_alignment),
		CASE(case_dense),
		CASE(case_impossible),
		CASE(case_coalescing),
		CASE(case_zeros),
		CASE(case_cap),
		CASE(case_resize),
		CASE(case_remap),
		CASE(case_remap_refused),
		CASE(case_map_flags),
		CASE(case_unmap_parts),
		CASE(case_protected),
		CASE(case_mapped_is_not_malloced),
		CASE(case_bad_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
