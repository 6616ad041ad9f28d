/* SPDX-License-Identifier: MIT */
/* anon_unmap.c - anonymous mappings cut, mapped over, and moved by mremap.
 *
 * Owns its mappings; lock: none. (1) What is cut out is gone, and the place
 * is free to be mapped again. (2) What stays has its bytes, through
 * evictions. (3) What grows is zeros; nothing old shines through.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* later-needs: regions evictions */
#include "anon.h"

/* The library keeps what is unmapped of its heap mapped, as zeros, until it is
 * handed out again: there a stray access is not caught. */
#define no_more(...) do { if (!trap_paged() && !trap_mode_is("torture")) trap_is_hole(__VA_ARGS__); } while (0)

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static struct trap file;
static uint16_t next_id = 1;

static struct block fresh(size_t len)
{
	return block_map(next_id++, len);
}

/* The block without the hole [lo, hi). */
static void verify_but(const struct block *b, size_t lo, size_t hi,
		       const char *what)
{
	for (int i = 0; i < 2; i++) {
		block_verify_at(b, 0, lo, what);
		block_verify_at(b, hi, b->len - hi, what);
		if (!i)
			anon_push_out();
	}
}

static void cut(const struct block *b, size_t lo, size_t hi, const char *what)
{
	check(!munmap(b->p + lo, hi - lo));
	no_more(b->p + lo, hi - lo, what);
	verify_but(b, lo, hi, what);
}

static void cuts(void)
{
	struct block b = fresh(16 * MIB);

	cut(&b, 0, 5 * PAGE, "head");
	b.p += 5 * PAGE;	/* the words' offsets do not start at 0 */
	anon_verify(b.p, b.id, 1, 5 * PAGE, b.len - 5 * PAGE, "without head");
	check(!munmap(b.p, b.len - 5 * PAGE));
	b = fresh(16 * MIB);
	cut(&b, 13 * MIB - PAGE, 16 * MIB, "tail");
	b.len = 13 * MIB - PAGE;
	cut(&b, 4 * MIB + PAGE, 9 * MIB, "middle");
	check(!munmap(b.p + 4 * MIB, MIB));	/* overlaps the hole */
	verify_but(&b, 4 * MIB, 9 * MIB, "middle and a page");
	cut(&b, 4 * MIB - PAGE, 9 * MIB + PAGE, "middle, wider");
	check(!munmap(b.p, b.len));		/* holes and all */
	no_more(b.p, b.len, "the rest");
}

/* One page in sixteen goes, then the rest in one call. */
static void many_holes(void)
{
	struct block b = fresh(4 * MIB);

	for (size_t at = 0; at < b.len; at += 16 * PAGE)
		check(!munmap(b.p + at, PAGE));
	anon_push_out();
	for (size_t at = 0; at < b.len; at += 16 * PAGE)
		block_verify_at(&b, at + PAGE, 15 * PAGE, "between holes");
	check(trap_probe(b.p, false) == SIGSEGV);
	check(trap_probe(b.p + 32 * PAGE, false) == SIGSEGV);
	check(!munmap(b.p, b.len));
	check(munmap(b.p + 1, PAGE) == -1 && errno == EINVAL);
	check(munmap(b.p, 0) == -1 && errno == EINVAL);
}

/* The hole is mapped again: zeros, and it can be written. */
static void into_a_hole(void)
{
	struct block b = fresh(12 * MIB);
	size_t at = 3 * MIB, n = 5 * MIB;
	void *p;

	check(!munmap(b.p + at, n));
	p = mmap(b.p + at, n, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		 MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	check(p == b.p + at);
	anon_is_zero(p, n, "mapped into a hole");
	verify_but(&b, at, at + n, "about what was mapped into a hole");
	anon_put(p, b.id, 1, at, n);
	anon_push_out();
	block_verify(&b, "whole again");
	check(!munmap(b.p, b.len));
}

static void *map_over(const struct block *b, size_t at, size_t n, int prot,
		      int flags, int fd)
{
	void *p = mmap(b->p + at, n, prot, flags | MAP_FIXED, fd, 0);

	if (p != b->p + at)
		fail("mmap MAP_FIXED: %s", strerror(errno));
	return p;
}

static void mapped_over(void)
{
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS;
	struct block b = fresh(14 * MIB);
	size_t at = MIB + PAGE, n = 6 * MIB;
	unsigned char *p;
	int fd;

	anon_push_out();
	p = map_over(&b, at, n, PROT_READ | PROT_WRITE, anon, -1);
	anon_is_zero(p, n, "mapped over");
	verify_but(&b, at, at + n, "about what was mapped over");
	anon_is_zero(p, n, "mapped over, again");
	anon_put(p, b.id, 1, at, n);
	map_over(&b, at, n, PROT_NONE, anon | MAP_NORESERVE, -1);
	check(trap_probe(p, false) == SIGSEGV);
	verify_but(&b, at, at + n, "about a reservation");
	fd = trap_open(&file);
	map_over(&b, at, n, PROT_READ, MAP_SHARED, fd);
	close(fd);
	for (int i = 0; i < 2; i++) {
		verify_at(&file, p, 0, n, "a file in a block");
		verify_but(&b, at, at + n, "about a file in a block");
	}
	map_over(&b, at, n, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1);
	anon_is_zero(p, n, "shared memory in a block");
	check(!munmap(b.p, b.len));
}

static void *move(struct block *b, size_t len, int flags, void *to)
{
	void *p = mremap(b->p, b->len, len, flags, to);

	if (p == MAP_FAILED)
		fail("mremap %zu to %zu, flags %d: %s", b->len, len, flags,
		     strerror(errno));
	return p;
}

/* Grown, moved or not: old bytes, then zeros, then all is written. */
static void grow(struct block *b, size_t len, const char *what)
{
	size_t old = b->len;

	b->p = move(b, len, MREMAP_MAYMOVE, NULL);
	block_verify(b, what);
	anon_is_zero(b->p + old, len - old, what);
	b->len = len;
	anon_put(b->p + old, b->id, b->gen, old, len - old);
}

static void remap_sizes(void)
{
	struct block b = fresh(5 * MIB), other = fresh(3 * MIB);

	grow(&b, 5 * MIB + PAGE, "grown by a page");
	anon_push_out();
	grow(&b, 22 * MIB, "grown while evicted");
	anon_push_out();
	check(move(&b, 9 * MIB - PAGE, 0, NULL) == b.p);
	no_more(b.p + 9 * MIB - PAGE, 13 * MIB + PAGE, "shrunk");
	b.len = 9 * MIB - PAGE;
	block_verify(&b, "shrunk");
	grow(&b, 12 * MIB, "grown after it was shrunk");
	/* In place or not at all. */
	if (mremap(b.p, b.len, b.len + MIB, 0) == b.p) {
		anon_is_zero(b.p + b.len, MIB, "grown in place");
		check(mremap(b.p, b.len + MIB, b.len, 0) == b.p);
	} else {
		check(errno == ENOMEM);
	}
	anon_push_out();
	block_verify(&b, "after all that");
	block_verify(&other, "beside all that");
	check(!munmap(b.p, b.len) && !munmap(other.p, other.len));
}

/* Onto a place that is in use, at another distance from a chunk's edge. */
static void remap_fixed(void)
{
	struct block b = fresh(9 * MIB), used = fresh(20 * MIB);
	unsigned char *old = b.p, *to = used.p + 3 * MIB + PAGE;

	anon_push_out();
	check(move(&b, b.len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	b.p = to;
	block_verify(&b, "moved onto another");
	verify_but(&used, 3 * MIB + PAGE, 12 * MIB + PAGE, "moved into");
	no_more(old, b.len, "the old place");
	anon_push_out();
	block_verify(&b, "moved onto another, again");
	check(!munmap(used.p, used.len));
}

/* A part moves out; the kernel splits the mapping. */
static void remap_part(void)
{
	struct block b = fresh(15 * MIB);
	size_t at = 4 * MIB - PAGE, n = 5 * MIB;
	unsigned char *p = mremap(b.p + at, n, n + 2 * MIB, MREMAP_MAYMOVE);

	check(p != MAP_FAILED && p != b.p + at);
	for (int i = 0; i < 2; i++) {
		anon_verify(p, b.id, 1, at, n, "the part that moved");
		anon_is_zero(p + n, 2 * MIB, "and grew");
		verify_but(&b, at, at + n, "what the part left");
	}
	no_more(b.p + at, n, "where the part was");
	check(!munmap(p, n + 2 * MIB) && !munmap(b.p, b.len));
}

/* The old place stays mapped, and is zeros. Since 5.7. */
static void remap_dontunmap(void)
{
	struct block b = fresh(7 * MIB);
	unsigned char *old = b.p;
	void *p;

	anon_push_out();
	p = mremap(b.p, b.len, b.len, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (p == MAP_FAILED) {
		check(errno == EINVAL);
		block_verify(&b, "DONTUNMAP refused");
		check(!munmap(b.p, b.len));
		return;
	}
	check(p != old);
	b.p = p;
	for (int i = 0; i < 2; i++) {
		block_verify(&b, "DONTUNMAP, moved");
		anon_is_zero(old, b.len, "DONTUNMAP, what is left");
		anon_push_out();
	}
	anon_put(old, b.id, 2, 0, b.len);
	block_verify(&b, "DONTUNMAP, the old place written");
	anon_verify(old, b.id, 2, 0, b.len, "DONTUNMAP, the old place");
	check(!munmap(b.p, b.len) && !munmap(old, b.len));
}

static void remap_refused(void)
{
	struct block b = fresh(6 * MIB);

	errno = 0;
	check(mremap(b.p + 1, PAGE, PAGE, 0) == MAP_FAILED && errno == EINVAL);
	check(mremap(b.p, PAGE, 0, 0) == MAP_FAILED && errno == EINVAL);
	check(mremap(b.p, 0, PAGE, MREMAP_MAYMOVE) == MAP_FAILED);
	check(mremap(b.p, 2 * MIB, 2 * MIB, MREMAP_MAYMOVE | MREMAP_FIXED,
		     b.p + MIB) == MAP_FAILED && errno == EINVAL);
	check(mremap(b.p, b.len, b.len, 1024) == MAP_FAILED);
	block_verify(&b, "after what was refused");
	check(!munmap(b.p, b.len));
}

static void *churn(void *arg)
{
	struct block *b = anon_ballast();

	while (!atomic_load((_Atomic int *)arg))
		block_verify(b, "thread beside unmap");
	return NULL;
}

/* The same place is mapped, written, cut and unmapped while others fault. */
static void while_others_fault(void)
{
	static _Atomic int stop;
	pthread_t th;

	check(!pthread_create(&th, NULL, churn, &stop));
	for (int i = 0; i < 12; i++) {
		struct block b = fresh(7 * MIB + i * PAGE);

		check(!munmap(b.p + 2 * MIB, 3 * MIB));
		block_verify_at(&b, 0, 2 * MIB, "beside a reader");
		block_verify_at(&b, 5 * MIB, b.len - 5 * MIB,
				"beside a reader");
		check(!munmap(b.p, b.len));
	}
	atomic_store(&stop, 1);
	check(!pthread_join(th, NULL));
}

int main(void)
{
	trap_shared(&file, TRAP_SIZE, 1);
	cuts();
	many_holes();
	into_a_hole();
	mapped_over();
	remap_sizes();
	remap_fixed();
	remap_part();
	remap_dontunmap();
	remap_refused();
	while_others_fault();
	anon_push_out();
	return trap_done(&file);
}
