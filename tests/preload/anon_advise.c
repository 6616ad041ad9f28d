/* SPDX-License-Identifier: MIT */
/* anon_advise.c - madvise on anonymous memory, every advice that matters.
 *
 * Owns its blocks; lock: none. (1) DONTNEED is zeros at once, on whole pages
 * of the range and nowhere else. (2) After FREE each page is old or zeros,
 * until it is written. (3) Nothing else changes a byte. (4) What is to happen
 * in a fork child (WIPEONFORK, DONTFORK) happens there.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
#include "anon.h"

#ifndef MADV_POPULATE_READ	/* newer than some headers */
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define SIZE	(36 * MIB)

/* Kernels before 5.4, 5.14 and 6.1 do not know some; EINVAL is then right. A
 * collapse fails for many reasons. */
static const struct { const char *name; int advice; bool must; } harmless[] = {
	{ "NORMAL", MADV_NORMAL, true },
	{ "RANDOM", MADV_RANDOM, true },
	{ "SEQUENTIAL", MADV_SEQUENTIAL, true },
	{ "WILLNEED", MADV_WILLNEED, true },
	{ "COLD", MADV_COLD, false },
	{ "PAGEOUT", MADV_PAGEOUT, false },
	{ "POPULATE_READ", MADV_POPULATE_READ, false },
	{ "POPULATE_WRITE", MADV_POPULATE_WRITE, false },
	{ "HUGEPAGE", MADV_HUGEPAGE, false },
	{ "NOHUGEPAGE", MADV_NOHUGEPAGE, false },
	{ "COLLAPSE", MADV_COLLAPSE, false },
	{ "MERGEABLE", MADV_MERGEABLE, false },
	{ "UNMERGEABLE", MADV_UNMERGEABLE, false },
	{ "DONTDUMP", MADV_DONTDUMP, true },
	{ "DODUMP", MADV_DODUMP, true },
};

static struct block b;

static void advise_one(int i, size_t at, size_t len)
{
	if (madvise(b.p + at, len, harmless[i].advice) &&
	    (harmless[i].must || (errno != EINVAL &&
				  harmless[i].advice != MADV_COLLAPSE)))
		fail("MADV_%s: %s", harmless[i].name, strerror(errno));
	block_verify_at(&b, at, len < 8 * MIB ? len : 8 * MIB,
			harmless[i].name);
}

static void all_harmless(void)
{
	for (size_t i = 0; i < sizeof(harmless) / sizeof(*harmless); i++) {
		anon_push_out();
		advise_one(i, 0, b.len);
		advise_one(i, 9 * MIB + PAGE, 3 * MIB);
		block_verify(&b, harmless[i].name);
	}
}

/* Of memory nobody wrote: zeros before and after. */
static void populate_zeros(void)
{
	unsigned char *p = anon_map(10 * MIB);

	madvise(p + PAGE, 3 * MIB, MADV_POPULATE_READ);
	madvise(p + 5 * MIB + PAGE, 3 * MIB, MADV_POPULATE_WRITE);
	anon_push_out();
	anon_is_zero(p, 10 * MIB, "populated");
	check(!munmap(p, 10 * MIB));
}

/* Zeros in [at, at+len), the block's words on both sides. */
static void zeros_between(size_t at, size_t len, const char *what)
{
	size_t lo = at > 3 * MIB ? at - 3 * MIB : 0, hi = at + len;

	anon_is_zero(b.p + at, len, what);
	block_verify_at(&b, lo, at - lo, what);
	block_verify_at(&b, hi, b.len - hi, what);
}

/* at and len of what is given away; len need not be whole pages. */
static void dontneed_at(size_t at, size_t len, const char *what)
{
	size_t whole = (len + PAGE - 1) / PAGE * PAGE;

	check(!madvise(b.p + at, len, MADV_DONTNEED));
	zeros_between(at, whole, what);
	anon_push_out();
	zeros_between(at, whole, what);
	anon_put(b.p + at, b.id, b.gen, at, whole);
	anon_push_out();
	block_verify(&b, "written after DONTNEED");
}

static void dontneed(void)
{
	dontneed_at(0, PAGE, "DONTNEED, first page");
	dontneed_at(6 * MIB + 5 * PAGE, PAGE + 1, "DONTNEED, a page and a byte");
	dontneed_at(4 * MIB - PAGE, 2 * PAGE, "DONTNEED, over an edge");
	dontneed_at(8 * MIB + PAGE, 9 * MIB, "DONTNEED, chunks and pieces");
	dontneed_at(20 * MIB, 6 * MIB, "DONTNEED, chunks maybe");
	dontneed_at(b.len - PAGE, PAGE, "DONTNEED, last page");
	check(!madvise(b.p, b.len, MADV_DONTNEED));
	anon_is_zero(b.p, b.len, "DONTNEED, all of it");
	block_fill(&b, b.gen + 1);
	block_verify(&b, "written after DONTNEED of all");
	if (!madvise(b.p + 3 * PAGE, 7 * PAGE, MADV_DONTNEED_LOCKED)) {
		zeros_between(3 * PAGE, 7 * PAGE, "DONTNEED_LOCKED");
		block_fill(&b, b.gen + 1);
	}
}

/* Whole pages keep what they had or are zeros; nothing in between. */
static void old_or_zeros(size_t at, size_t len)
{
	for (size_t off = at; off < at + len; off += PAGE)
		if (anon_zeros(b.p + off, PAGE) != PAGE)
			block_verify_at(&b, off, PAGE, "MADV_FREE");
}

static void free_pages(void)
{
	size_t at = 5 * MIB + PAGE, len = 11 * MIB;

	check(!madvise(b.p + at, len, MADV_FREE));
	/* What is written after FREE stays. */
	for (size_t off = at; off < at + len; off += 5 * PAGE)
		anon_put(b.p + off, b.id, b.gen, off, PAGE);
	for (int i = 0; i < 3; i++) {
		for (size_t off = at; off < at + len; off += 5 * PAGE)
			block_verify_at(&b, off, PAGE, "written after FREE");
		old_or_zeros(at, len);
		block_verify_at(&b, 0, at, "before FREE");
		block_verify_at(&b, at + len, b.len - at - len, "after FREE");
		anon_push_out();
	}
	block_fill(&b, b.gen + 1);
	anon_push_out();
	block_verify(&b, "rewritten after FREE");
}

static void refused(void)
{
	errno = 0;
	check(madvise(b.p + 1, PAGE, MADV_DONTNEED) == -1 && errno == EINVAL);
	check(madvise(b.p, b.len, 12345) == -1 && errno == EINVAL);
	check(madvise(b.p, PAGE, MADV_REMOVE) == -1 && errno == EINVAL);
	check(!madvise(b.p, 0, MADV_DONTNEED));
	/* POSIX's must not lose data. */
	check(!posix_madvise(b.p, b.len, POSIX_MADV_DONTNEED));
	block_verify(&b, "POSIX_MADV_DONTNEED");
	check(!posix_madvise(b.p, b.len, POSIX_MADV_WILLNEED));
	block_verify(&b, "after what was refused");
}

/* A range with a hole: the rest of it is done, and ENOMEM. */
static void over_a_hole(void)
{
	unsigned char *p;

	if (trap_paged() || trap_mode_is("torture"))
		return;		/* there a hole stays mapped until it is used again */
	p = anon_map(9 * MIB);
	anon_put(p, 77, 1, 0, 9 * MIB);
	check(!munmap(p + 3 * MIB, 2 * MIB));
	errno = 0;
	check(madvise(p + MIB, 7 * MIB, MADV_DONTNEED) == -1);
	check(errno == ENOMEM);
	anon_is_zero(p + MIB, 2 * MIB, "DONTNEED before a hole");
	anon_is_zero(p + 5 * MIB, 3 * MIB, "DONTNEED after a hole");
	anon_verify(p, 77, 1, 0, MIB, "DONTNEED over a hole");
	anon_verify(p + 8 * MIB, 77, 1, 8 * MIB, MIB, "DONTNEED over a hole");
	check(!munmap(p, 9 * MIB));
}

static void in_child(void (*what)(void))
{
	pid_t pid = fork();

	if (!pid) {
		what();
		_exit(0);
	}
	block_verify(&b, "parent of an advised child");
	trap_wait(pid, "advised child");
}

static void child_wiped(void)
{
	anon_is_zero(b.p + 7 * MIB, 4 * MIB, "WIPEONFORK, child");
	block_verify_at(&b, 0, 7 * MIB, "WIPEONFORK, child");
	block_verify_at(&b, 11 * MIB, b.len - 11 * MIB, "WIPEONFORK, child");
}

static void child_lacks(void)
{
	check(trap_probe(b.p + 7 * MIB, false) == SIGSEGV);
	check(trap_probe(b.p + 11 * MIB - 1, true) == SIGSEGV);
	block_verify_at(&b, 0, 7 * MIB, "DONTFORK, child");
	block_verify_at(&b, 11 * MIB, b.len - 11 * MIB, "DONTFORK, child");
}

static void child_whole(void)
{
	block_verify(&b, "child again");
}

static void for_children(void)
{
	if (trap_paged() || trap_mode_is("torture"))
		return;		/* refused on a paged heap */
	anon_push_out();
	check(!madvise(b.p + 7 * MIB, 4 * MIB, MADV_WIPEONFORK));
	in_child(child_wiped);
	check(!madvise(b.p + 7 * MIB, 4 * MIB, MADV_KEEPONFORK));
	in_child(child_whole);
	check(!madvise(b.p + 7 * MIB, 4 * MIB, MADV_DONTFORK));
	in_child(child_lacks);
	check(!madvise(b.p + 7 * MIB, 4 * MIB, MADV_DOFORK));
	in_child(child_whole);
}

static void *churn(void *stop)
{
	while (!atomic_load((_Atomic int *)stop)) {
		block_verify_at(&b, 0, 12 * MIB, "thread beside madvise");
		block_verify(anon_ballast(), "thread beside madvise");
	}
	return NULL;
}

/* DONTNEED and rewrites of the upper part while the lower is read. */
static void while_others_read(void)
{
	static _Atomic int stop;
	uint32_t s = 1;
	pthread_t th;

	check(!pthread_create(&th, NULL, churn, &stop));
	for (int i = 0; i < 60; i++) {
		size_t n = (1 + trap_random(&s) % 1024) * PAGE;
		size_t at = 12 * MIB + trap_random(&s) % 4096 * PAGE;

		check(!madvise(b.p + at, n, MADV_DONTNEED));
		anon_is_zero(b.p + at, n, "DONTNEED beside a reader");
		anon_put(b.p + at, b.id, b.gen, at, n);
	}
	atomic_store(&stop, 1);
	check(!pthread_join(th, NULL));
	block_verify(&b, "after DONTNEED beside a reader");
}

int main(void)
{
	b = block_map(1, SIZE);
	all_harmless();
	populate_zeros();
	dontneed();
	free_pages();
	refused();
	over_a_hole();
	for_children();
	while_others_read();
	block_verify(&b, "in the end");
	return 0;
}
