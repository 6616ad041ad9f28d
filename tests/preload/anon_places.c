/* SPDX-License-Identifier: MIT */
/* anon_places.c - anonymous memory is moved, cut, and mapped over, by name.
 *
 * Owns its blocks; lock: none. (1) mremap in place, moving, shrinking, FIXED,
 * DONTUNMAP: the bytes follow, the old place is what mremap(2) says. (2) munmap
 * of a head, a middle, a tail, and over several mappings at once; what stays is
 * right. (3) MAP_FIXED over a part: what was put there is there. All of it with
 * evictions before and after. In a paged heap a hole may stay mapped, and is
 * zeros then: that is asked for there, and a fault everywhere else.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
/* variants: plain move copy hints */
#include "anon.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static struct block near;		/* nobody touches it; it stays right */

/* Nothing of what was in [p, p+len) is there any more. */
static void is_gone(unsigned char *p, size_t len, const char *what)
{
	static const size_t at[] = { 0, PAGE, CHUNK, 3 * MIB + 5 };

	for (int i = 0; i < 4; i++) {
		unsigned char *q = p + at[i] % len;
		int sig = trap_probe(q, false);

		if (sig == SIGSEGV)
			continue;
		if (sig || !(trap_paged() || trap_mode_is("torture")))
			fail("%s: signal %d where a fault is due", what, sig);
		anon_is_zero((void *)((uintptr_t)q & ~(PAGE - 1)), PAGE, what);
	}
}

static void settle(const struct block *b, const char *what)
{
	block_verify(b, what);
	anon_push_out_fast();
	block_verify(b, what);
	block_verify_random(&near, 8, 1, what);
}

static void remap(struct block *b, size_t len, int flags, void *to,
		  const char *what)
{
	unsigned char *p = mremap(b->p, b->len, len, flags, to);

	if (p == MAP_FAILED)
		fail("mremap, %s: %s", what, strerror(errno));
	b->p = p;
	b->len = len;
}

static void shrink(void)
{
	struct block b = block_map(1, 17 * MIB);
	unsigned char *p = b.p;

	anon_push_out_fast();
	remap(&b, 9 * MIB + PAGE, 0, NULL, "shrinking");
	check(b.p == p);
	is_gone(p + b.len, 17 * MIB - b.len, "cut off by mremap");
	settle(&b, "shrunk by mremap");
	check(!munmap(b.p, b.len));
}

/* Where it cannot grow in place it must fail, or move if it may. */
static void grow(bool may_move)
{
	struct block b = block_map(2, 6 * MIB + PAGE), wall = block_map(3, MIB);
	size_t old = b.len, len = 21 * MIB;
	unsigned char *p;

	anon_push_out_fast();
	p = mremap(b.p, old, len, may_move ? MREMAP_MAYMOVE : 0);
	if (p == MAP_FAILED) {
		check(!may_move && errno == ENOMEM);
		len = old;
		p = b.p;
	}
	check(may_move || p == b.p);
	b.p = p;
	anon_verify(p, b.id, b.gen, 0, old, "grown by mremap");
	anon_is_zero(p + old, len - old, "what mremap added");
	b.len = len;
	block_fill(&b, 2);
	settle(&b, "grown and written");
	block_verify(&wall, "beside what grew");
	check(!munmap(b.p, b.len) && !munmap(wall.p, wall.len));
}

static void move_fixed(void)
{
	struct block b = block_map(4, 10 * MIB), under = block_map(5, 14 * MIB);
	unsigned char *old = b.p;
	void *far = mmap(NULL, b.len + MIB, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(far != MAP_FAILED);
	anon_push_out_fast();
	remap(&b, b.len, MREMAP_MAYMOVE | MREMAP_FIXED, (char *)far + PAGE,
	      "FIXED, to a reservation");
	is_gone(old, b.len, "moved away from");
	settle(&b, "moved to a reservation");
	remap(&b, b.len, MREMAP_MAYMOVE | MREMAP_FIXED, under.p + 2 * MIB + PAGE,
	      "FIXED, over a block");
	settle(&b, "moved over a block");
	block_verify_at(&under, 0, 2 * MIB + PAGE, "below what was moved over");
	block_verify_at(&under, 12 * MIB + PAGE, 2 * MIB - PAGE,
			"above what was moved over");
	check(!munmap(under.p, under.len));
	check(!munmap(far, b.len + MIB));
}

static void move_a_part(void)
{
	struct block b = block_map(6, 15 * MIB);
	unsigned char *to = anon_map(4 * MIB);

	anon_push_out_fast();
	if (mremap(b.p + 5 * MIB, 4 * MIB, 4 * MIB,
		   MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		fail("mremap of a part: %s", strerror(errno));
	for (int i = 0; i < 2; i++) {
		anon_verify(to, b.id, b.gen, 5 * MIB, 4 * MIB, "part");
		block_verify_at(&b, 0, 5 * MIB, "before the part");
		block_verify_at(&b, 9 * MIB, 6 * MIB, "after the part");
		anon_push_out_fast();
	}
	is_gone(b.p + 5 * MIB, 4 * MIB, "the part's old place");
	check(!munmap(b.p, b.len) && !munmap(to, 4 * MIB));
}

/* The old place stays mapped and is zeros; refused where it cannot be. */
static void dont_unmap(void)
{
	struct block b = block_map(7, 8 * MIB);
	unsigned char *old = b.p, *p;

	anon_push_out_fast();
	p = mremap(b.p, b.len, b.len, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
	if (p == MAP_FAILED) {
		check(errno == EINVAL || errno == ENOMEM);
		settle(&b, "DONTUNMAP refused");
	} else {
		b.p = p;
		anon_is_zero(old, b.len, "left by DONTUNMAP");
		settle(&b, "moved by DONTUNMAP");
		anon_put(old, 8, 1, 0, b.len);
		settle(&b, "beside the old place, written");
		anon_verify(old, 8, 1, 0, b.len, "the old place, written");
		check(!munmap(old, b.len));
	}
	check(!munmap(b.p, b.len));
}

static void refused(void)
{
	struct block b = block_map(9, 3 * MIB);

	errno = 0;
	check(mremap(b.p + 1, PAGE, PAGE, 0) == MAP_FAILED && errno == EINVAL);
	check(mremap(b.p, PAGE, 0, 0) == MAP_FAILED && errno == EINVAL);
	check(mremap(b.p, PAGE, PAGE, MREMAP_FIXED, near.p) == MAP_FAILED);
	check(errno == EINVAL);
	check(mremap(b.p, b.len, b.len, MREMAP_MAYMOVE | MREMAP_FIXED,
		     b.p + PAGE) == MAP_FAILED && errno == EINVAL);
	settle(&b, "after what mremap refused");
	check(munmap(b.p + 1, PAGE) == -1 && errno == EINVAL);
	check(!munmap(b.p, b.len));
}

/* ---- munmap ---------------------------------------------------------------- */

static void cut_one(struct block *b, size_t at, size_t len, const char *what)
{
	anon_push_out_fast();
	check(!munmap(b->p + at, len));
	is_gone(b->p + at, len, what);
}

static void cut(void)
{
	struct block b = block_map(10, 20 * MIB);

	cut_one(&b, 0, 3 * PAGE, "munmap of a head");
	cut_one(&b, 7 * MIB + PAGE, 3 * MIB, "munmap of a middle");
	cut_one(&b, 19 * MIB - PAGE, MIB + PAGE, "munmap of a tail");
	for (int i = 0; i < 2; i++) {
		block_verify_at(&b, 3 * PAGE, 7 * MIB - 2 * PAGE, "before a cut");
		block_verify_at(&b, 10 * MIB + PAGE, 9 * MIB - 2 * PAGE,
				"between cuts");
		anon_push_out_fast();
	}
	check(!munmap(b.p, b.len));	/* holes and all */
}

/* One call over the ends of two, a third between them, and what is no block. */
static void cut_several(void)
{
	unsigned char *p = mmap(NULL, 40 * MIB, PROT_NONE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct block b[3];

	for (int i = 0; i < 3; i++) {
		b[i] = block_map(11 + i, 8 * MIB);
		remap(&b[i], 8 * MIB, MREMAP_MAYMOVE | MREMAP_FIXED,
		      p + i * 13 * MIB, "side by side");
	}
	anon_push_out_fast();
	check(!munmap(p + 5 * MIB, 24 * MIB));
	trap_is_hole(p + 5 * MIB, 24 * MIB, "munmap over three");
	anon_push_out_fast();
	block_verify_at(&b[0], 0, 5 * MIB, "before a cut over three");
	block_verify_at(&b[2], 3 * MIB, 5 * MIB, "after a cut over three");
	check(!munmap(p, 40 * MIB));
}

/* The same over neighbours that are the heap's. */
static void cut_neighbours(void)
{
	struct block b[3];
	unsigned char *lo, *hi;

	for (int i = 0; i < 3; i++)
		b[i] = block_map(21 + i, 4 * MIB);
	for (int i = 0; i < 2; i++)
		if (b[i].p + 4 * MIB != b[i + 1].p &&
		    b[i + 1].p + 4 * MIB != b[i].p)
			goto out;	/* not neighbours here */
	lo = b[0].p < b[2].p ? b[0].p : b[2].p;
	hi = b[0].p < b[2].p ? b[2].p : b[0].p;
	anon_push_out_fast();
	check(!munmap(lo + 3 * MIB, 6 * MIB));
	is_gone(lo + 3 * MIB, 6 * MIB, "munmap over neighbours");
	anon_push_out_fast();
	block_verify_at(b[0].p == lo ? &b[0] : &b[2], 0, 3 * MIB, "the first");
	block_verify_at(b[0].p == lo ? &b[2] : &b[0], MIB, 3 * MIB, "the last");
	check(!munmap(lo, 3 * MIB) && !munmap(hi + MIB, 3 * MIB));
	return;
out:
	for (int i = 0; i < 3; i++)
		check(!munmap(b[i].p, b[i].len));
}

/* ---- MAP_FIXED --------------------------------------------------------------- */

static void *over(unsigned char *at, size_t len, int prot, int fd, off_t off)
{
	void *p = mmap(at, len, prot, MAP_PRIVATE | MAP_FIXED |
		       (fd < 0 ? MAP_ANONYMOUS : 0), fd, off);

	if (p != at)
		fail("MAP_FIXED over a block: %s", strerror(errno));
	return p;
}

static void map_over(void)
{
	struct block b = block_map(30, 22 * MIB);
	struct trap t;
	int fd;

	trap_shared(&t, 16 * MIB, 2);
	fd = trap_open(&t);
	anon_push_out_fast();
	over(b.p + 3 * MIB + PAGE, 2 * MIB, PROT_READ | PROT_WRITE, -1, 0);
	anon_is_zero(b.p + 3 * MIB + PAGE, 2 * MIB, "mapped over");
	anon_put(b.p + 3 * MIB + PAGE, 31, 1, 0, 2 * MIB);
	over(b.p + 9 * MIB, 4 * MIB, PROT_READ, fd, 6 * MIB);
	over(b.p + 17 * MIB, 2 * MIB, PROT_NONE, -1, 0);
	for (int i = 0; i < 3; i++) {
		block_verify_at(&b, 0, 3 * MIB + PAGE, "below");
		anon_verify(b.p + 3 * MIB + PAGE, 31, 1, 0, 2 * MIB, "inside");
		block_verify_at(&b, 5 * MIB + PAGE, 4 * MIB - PAGE, "between");
		verify_at(&t, b.p + 9 * MIB, 6 * MIB, 4 * MIB, "file inside");
		block_verify_at(&b, 13 * MIB, 4 * MIB, "after the file");
		check(trap_probe(b.p + 17 * MIB + PAGE, false) == SIGSEGV);
		block_verify_at(&b, 19 * MIB, 3 * MIB, "above");
		anon_push_out_fast();
	}
	check(!munmap(b.p, b.len));
	/* Addresses that were mapped over stay reserved in a heap. */
	check(trap_probe(b.p + 9 * MIB, false) == SIGSEGV);
	close(fd);
	trap_done(&t);
}

int main(void)
{
	near = block_map(99, 8 * MIB);
	settle(&near, "before");
	shrink();
	grow(false);
	grow(true);
	move_fixed();
	move_a_part();
	dont_unmap();
	refused();
	cut();
	cut_several();
	cut_neighbours();
	map_over();
	block_verify(&near, "in the end");
	return 0;
}
