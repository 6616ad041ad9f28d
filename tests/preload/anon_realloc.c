/* SPDX-License-Identifier: MIT */
/* anon_realloc.c - blocks that grow, shrink, and cross every threshold.
 *
 * Owns its blocks; lock: none. (1) The bytes that were are kept, and nobody
 * else's change. (2) All that malloc_usable_size promises can be used.
 * (3) Alignments are kept as asked. (4) A request that cannot be met leaves
 * the block as it was.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
#include "anon.h"

#define NEIGHBOURS	4

static struct block near[NEIGHBOURS];

static void verify_neighbours(const char *what)
{
	for (int i = 0; i < NEIGHBOURS; i++)
		block_verify(&near[i], what);
}

/* The kept part is checked, all of the new block is written anew. */
static void resize(struct block *b, size_t len, const char *what)
{
	size_t kept = b->len < len ? b->len : len;
	unsigned char *p = realloc(b->p, len);

	if (!p)
		fail("%s: realloc to %zu: %s", what, len, strerror(errno));
	if ((uintptr_t)p % 16)
		fail("%s: realloc gave %p", what, (void *)p);
	anon_verify(p, b->id, b->gen, 0, kept, what);
	b->p = p;
	b->len = len;
	check(malloc_usable_size(p) >= len);
	block_fill(b, b->gen + 1);
}

static void grow_and_shrink(void)
{
	struct block b = block_new(1, 100);

	for (size_t n = 1000; n < 44 * MIB; n = n * 7 / 4 + 77)
		resize(&b, n, "growing");
	verify_neighbours("beside a block that grew");
	block_verify(&b, "grown");
	for (size_t n = b.len; n > 50; n = n * 3 / 5)
		resize(&b, n, "shrinking");
	verify_neighbours("beside a block that shrank");
	block_free(&b);
}

/* Back and forth over the least size that is the library's, and a chunk's. */
static void over_the_edges(void)
{
	static const size_t edges[] = { 64 * KIB, 128 * KIB, CHUNK, 2 * CHUNK };
	struct block b = block_new(2, 1);

	for (int e = 0; e < 4; e++)
		for (int i = -2; i <= 2; i++) {
			resize(&b, edges[e] + i * 8, "at an edge");
			resize(&b, 40, "from an edge to small");
			resize(&b, edges[e] + i, "from small to an edge");
			resize(&b, edges[e] + i * (long)PAGE, "about an edge");
		}
	block_free(&b);
}

/* Shrinks, then grows again: what was cut off is not asked for; evictions
 * between. */
static void while_evicted(void)
{
	struct block b = block_new(3, 30 * MIB);

	anon_push_out();
	resize(&b, 33 * MIB + 5, "growing while evicted");
	anon_push_out();
	resize(&b, 9 * MIB - 3, "shrinking while evicted");
	anon_push_out();
	resize(&b, 21 * MIB, "growing again");
	anon_push_out();
	block_verify(&b, "in the end");
	block_free(&b);
}

static void all_that_is_usable(void)
{
	static const size_t ask[] = { 65537, 300001, 5 * MIB + 1, 2 * MIB - 1 };
	struct block b[4];

	for (int i = 0; i < 4; i++) {
		b[i] = block_new(40 + i, ask[i]);
		b[i].len = malloc_usable_size(b[i].p);
		check(b[i].len >= ask[i]);
	}
	for (int i = 0; i < 4; i++)
		block_fill(&b[i], 2);
	anon_push_out();
	for (int i = 0; i < 4; i++) {
		block_verify(&b[i], "all that is usable");
		resize(&b[i], ask[i] * 2, "usable, grown");
		block_free(&b[i]);
	}
	check(malloc_usable_size(NULL) == 0);
}

static void *aligned(int how, size_t align, size_t len)
{
	void *p = NULL;

	switch (how) {
	case 0:
		p = memalign(align, len);
		break;
	case 1:
		check(!posix_memalign(&p, align, len));
		break;
	case 2:
		p = aligned_alloc(align, (len + align - 1) / align * align);
		break;
	}
	check(p && !((uintptr_t)p % align));
	return p;
}

static void alignments(void)
{
	static const size_t aligns[] = { 16, 64, 4096, 65536, 2 * MIB,
					 8 * MIB };

	for (int i = 0; i < 18; i++) {
		size_t align = aligns[i / 3], len = 3 * MIB + i * 8;
		struct block b = { .p = aligned(i % 3, align, len),
				   .len = len, .id = 50 + i };

		block_fill(&b, 1);
		resize(&b, len * 2, "aligned, grown");
		resize(&b, len / 2, "aligned, shrunk");
		block_free(&b);
	}
	check(!((uintptr_t)valloc(MIB) % PAGE));
	check(!((uintptr_t)pvalloc(MIB + 1) % PAGE));
	check(posix_memalign((void *[]){ NULL }, 3, MIB) == EINVAL);
}

/* The size is hidden from the compiler, which knows such requests. */
static void refused(void)
{
	volatile size_t huge = PTRDIFF_MAX, half = (size_t)1 << 63;
	struct block b = block_new(70, 5 * MIB);

	errno = 0;
	check(!realloc(b.p, huge) && errno == ENOMEM);
	errno = 0;
	check(!reallocarray(b.p, half, 4) && errno == ENOMEM);
	errno = 0;
	check(!malloc(huge) && errno == ENOMEM);
	block_verify(&b, "after what was refused");
	b.p = reallocarray(b.p, 7, MIB);
	check(b.p);
	block_verify(&b, "reallocarray");
	block_free(&b);
	free(NULL);
}

int main(void)
{
	for (int i = 0; i < NEIGHBOURS; i++)
		near[i] = block_new(100 + i, (5 + i) * MIB + i * 1000);
	grow_and_shrink();
	over_the_edges();
	while_evicted();
	all_that_is_usable();
	alignments();
	refused();
	verify_neighbours("in the end");
	return 0;
}
