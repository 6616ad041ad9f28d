/* SPDX-License-Identifier: MIT */
/* anon_pack_loop.c - memory that is walked in a loop, and all fits once it is packed:
 * where the plan packs, next to nothing is read after a few passes, though half of it
 * was in the spill file first.
 *
 * Owns its block; lock: none. The kernel counts what is read (/proc/self/io).
 */
/* env: OFFLOAD_RAM=320M OFFLOAD_DISK=1M */
/* needs: regions evictions packed */
/* variants: plain move copy */
#include "anon.h"

#define LEN	(384 * MIB)
#define PASSES	60
#define QUIET	4		/* passes in a row that read no more than LEN / 8 */

static size_t bytes_read(void)
{
	FILE *f = fopen("/proc/self/io", "r");
	char line[128];
	size_t n = 0;

	check(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "read_bytes: %zu", &n) == 1)
			break;
	fclose(f);
	return n;
}

static void pass(const unsigned char *p)
{
	for (size_t at = 0; at < LEN; at += 8) {
		uint64_t w = trap_word(at, TRAP_SOFT | 3);

		if (memcmp(p + at, &w, 8))
			fail("wrong word at %#zx", at);
	}
}

int main(void)
{
	unsigned char *p = anon_map(LEN);
	int passes = trap_mode_is("torture") ? 12 : PASSES;	/* there none is quiet */
	size_t before = 0, now, quiet = 0;

	for (size_t at = 0; at < LEN; at += 8) {
		uint64_t w = trap_word(at, TRAP_SOFT | 3);

		memcpy(p + at, &w, 8);
	}
	for (int i = 0; i < passes && quiet < QUIET; i++) {
		pass(p);
		now = bytes_read();
		quiet = now - before <= LEN / 8 ? quiet + 1 : 0;
		before = now;
	}
	if (quiet < QUIET && trap_paged())	/* torture evicts what is needed */
		fail("what fits when it is packed is read in every pass");
	return 0;
}
