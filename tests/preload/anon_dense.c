/* SPDX-License-Identifier: MIT */
/* anon_dense.c - blocks that are used to the full come as huge pages once they are a
 * quarter of the budget, before anything is paged; of sparse ones only what is touched.
 *
 * Owns its blocks; runs itself as the sparse program. Lock: none. Where the kernel gives
 * huge pages to all, or to none, that is not asked: 77.
 */
/* env: OFFLOAD_RAM=96M */
/* needs: regions evictions */
/* variants: plain move copy */
#include "anon.h"

#define BLOCK	(12 * MIB)
#define EARLY	5u	/* fit the budget */
#define BLOCKS	12u

static unsigned char *p[BLOCKS];

static bool by_advice(void)
{
	char text[128] = "";
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");

	if (!f)
		return false;
	check(fgets(text, sizeof(text), f));
	fclose(f);
	return strstr(text, "[madvise]");
}

static void get(unsigned int i)
{
	p[i] = malloc(BLOCK);
	check(p[i]);
}

static int sparse(void)
{
	for (unsigned int i = 0; i < EARLY; i++) {
		get(i);
		for (size_t at = 0; at < BLOCK; at += CHUNK)
			p[i][at] = 1;
	}
	return anon_smaps("AnonHugePages", BLOCK) ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct trap_child c;

	if (argc > 1)
		return sparse();
	if (!trap_paged())
		return 0;
	if (!by_advice())
		return 77;
	trap_run(&c, "sparse", "");
	if (c.status)
		fail("sparse blocks are huge pages: %s", c.err);
	for (unsigned int i = 0; i < BLOCKS; i++) {
		get(i);
		anon_put(p[i], (uint16_t)(i + 1), 1, 0, BLOCK);
		if (i + 1 == EARLY && anon_smaps("AnonHugePages", BLOCK) < BLOCK / 1024)
			fail("of %zu MiB %zu KiB are huge pages", EARLY * BLOCK / MIB,
			     anon_smaps("AnonHugePages", BLOCK));
	}
	for (int round = 0; round < 2; round++)
		for (unsigned int i = 0; i < BLOCKS; i++)
			anon_verify(p[i], (uint16_t)(i + 1), 1, 0, BLOCK, "late");
	return 0;
}
