/* SPDX-License-Identifier: MIT */
/* anon_loop.c - malloc'd blocks, three times the budget, read over and over.
 *
 * Owns its blocks; lock: none. The main thing of anonymous memory, alone: if
 * this fails, look here first. Written once, read in order, read at random,
 * rewritten in part: what was written last is what is found.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
#include "anon.h"

#define BLOCKS	7
#define STEP	3	/* one page in so many is rewritten */

static const size_t lengths[BLOCKS] = {
	64 * MIB, 3 * MIB, 700 * KIB, 20 * MIB + 4321, 100 * KIB,
	6 * MIB - 13, 2 * MIB + 8,
};
static struct block b[BLOCKS];

static void make(void)
{
	for (int i = 0; i < BLOCKS; i++)
		b[i] = block_new(i + 1, lengths[i]);
}

static void in_order(int passes)
{
	for (int n = 0; n < passes; n++)
		for (int i = 0; i < BLOCKS; i++)
			block_verify(&b[i], "in order");
}

static void at_random(void)
{
	uint32_t seed = 5;

	for (int n = 0; n < 40; n++) {
		int i = trap_random(&seed) % BLOCKS;

		block_verify_random(&b[i], 8, n, "at random");
	}
}

static void backwards(void)
{
	for (int i = BLOCKS; i--;)
		for (size_t at = b[i].len / MIB * MIB; at; at -= MIB)
			block_verify_at(&b[i], at - MIB, MIB, "backwards");
}

/* Every STEP-th page gets a generation of its own. */
static void rewrite_part(uint16_t gen)
{
	for (int i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at + PAGE <= b[i].len; at += STEP * PAGE)
			anon_put(b[i].p + at, b[i].id, gen, at, PAGE);
}

static uint16_t gen_at(const struct block *c, size_t at, uint16_t gen)
{
	bool mine = !(at % (STEP * PAGE)) && at + PAGE <= c->len;

	return mine ? gen : c->gen;
}

static void verify_part(uint16_t gen)
{
	for (int i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at < b[i].len; at += PAGE) {
			size_t n = b[i].len - at;

			anon_verify(b[i].p + at, b[i].id,
				    gen_at(&b[i], at, gen), at,
				    n < PAGE ? n : PAGE, "rewritten in part");
		}
}

int main(void)
{
	make();
	in_order(5);
	at_random();
	backwards();
	rewrite_part(2);
	verify_part(2);
	verify_part(2);
	rewrite_part(3);
	verify_part(3);
	block_fill(&b[0], 4);
	block_fill(&b[3], 4);
	block_verify(&b[0], "rewritten");
	block_verify(&b[3], "rewritten");
	for (int i = 0; i < BLOCKS; i++)
		block_free(&b[i]);
	return 0;
}
