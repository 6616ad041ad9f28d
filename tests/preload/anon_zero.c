/* SPDX-License-Identifier: MIT */
/* anon_zero.c - what was never written is zero, whatever was there before.
 *
 * Owns its blocks; lock: none. (1) calloc and anonymous mmap give zeros, also
 * where freed blocks with other contents lay. (2) A sparse block keeps its few
 * pages and its zeros through evictions. (3) Zeros that were read and not
 * written can be written later.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
#include "anon.h"

#define SIZE	(96 * MIB)
#define SPARSE	(192 * MIB)

/* Writes one page in each chunk, at another place in each. */
static size_t page_of(size_t chunk)
{
	return chunk + chunk / CHUNK * 7 % (CHUNK / PAGE) * PAGE;
}

static void write_sparse(unsigned char *p, size_t len, uint16_t id,
			 uint16_t gen)
{
	for (size_t at = 0; at + CHUNK <= len; at += CHUNK)
		anon_put(p + page_of(at), id, gen, page_of(at), PAGE);
}

static void verify_sparse(unsigned char *p, size_t len, uint16_t id,
			  uint16_t gen, const char *what)
{
	for (size_t at = 0; at + CHUNK <= len; at += CHUNK) {
		size_t mine = page_of(at), end = mine + PAGE;

		anon_is_zero(p + at, mine - at, what);
		anon_verify(p + mine, id, gen, mine, PAGE, what);
		anon_is_zero(p + end, at + CHUNK - end, what);
	}
}

static void calloc_is_zero(void)
{
	volatile size_t half = (size_t)1 << 40;	/* the compiler would know */
	unsigned char *p = calloc(SIZE / 16, 16);

	check(p);
	for (int i = 0; i < 2; i++)
		anon_is_zero(p, SIZE, "calloc");
	write_sparse(p, SIZE, 1, 1);
	for (int i = 0; i < 2; i++)
		verify_sparse(p, SIZE, 1, 1, "calloc, sparse");
	write_sparse(p, SIZE, 1, 2);
	verify_sparse(p, SIZE, 1, 2, "calloc, sparse again");
	free(p);
	errno = 0;
	check(!calloc(half, half) && errno == ENOMEM);
}

/* Few pages of a large block: the rest is never touched but by the end. */
static void mmap_is_zero(void)
{
	unsigned char *p = anon_map(SPARSE);

	write_sparse(p, SPARSE, 2, 1);
	anon_push_out();
	verify_sparse(p, SPARSE, 2, 1, "mmap, sparse");
	anon_push_out();
	verify_sparse(p, SPARSE, 2, 1, "mmap, sparse, again");
	check(!munmap(p, SPARSE));
	p = anon_map(SPARSE);
	anon_is_zero(p, SPARSE, "mapped again");
	check(!munmap(p, SPARSE));
}

/* Old bytes must not shine through, whole chunks or parts of them. */
static void after_free(void)
{
	static const size_t lengths[] = { 40 * MIB, 3 * MIB + 100, 900 * KIB,
					  12 * MIB };
	struct block b[4];

	for (uint16_t gen = 1; gen <= 3; gen++) {
		for (int i = 0; i < 4; i++) {
			b[i] = block_new(10 + i, lengths[i]);
			block_verify(&b[i], "before free");
		}
		for (int i = 0; i < 4; i++)
			block_free(&b[i]);
		for (int i = 0; i < 4; i++) {
			/* Another cut, so that blocks straddle old ones. */
			size_t n = lengths[(i + gen) % 4] + gen * 5 * PAGE;

			b[i].p = calloc(1, n);
			check(b[i].p);
			anon_is_zero(b[i].p, n, "calloc after free");
			b[i].len = n;
			block_fill(&b[i], 20 + gen);
		}
		for (int i = 0; i < 4; i++) {
			block_verify(&b[i], "calloc'd and written");
			block_free(&b[i]);
		}
	}
}

static void read_then_written(void)
{
	struct block b = { .p = anon_map(SIZE), .len = SIZE, .id = 30 };

	for (size_t at = 0; at < SIZE; at += PAGE)
		check(!b.p[at]);
	anon_push_out();
	block_fill(&b, 1);
	block_verify(&b, "zeros that were read, then written");
	block_verify(&b, "the same, again");
	check(!munmap(b.p, b.len));
}

/* A chunk of which all that was written is zeros, and one wiped to zeros. */
static void written_zeros(void)
{
	struct block b = block_map(31, 40 * MIB);

	memset(b.p + 4 * MIB, 0, 9 * MIB + PAGE);
	for (int i = 0; i < 2; i++) {
		anon_push_out();
		block_verify_at(&b, 0, 4 * MIB, "before wiped");
		anon_is_zero(b.p + 4 * MIB, 9 * MIB + PAGE, "wiped");
		block_verify_at(&b, 13 * MIB + PAGE, 27 * MIB - PAGE,
				"after wiped");
	}
	check(!munmap(b.p, b.len));
}

int main(void)
{
	calloc_is_zero();
	mmap_is_zero();
	after_free();
	read_then_written();
	written_zeros();
	return 0;
}
