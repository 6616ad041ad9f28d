/* SPDX-License-Identifier: MIT */
/* anon_fits.c - memory that fits is not paged, whatever comes and goes.
 *
 * Owns its blocks; lock: none. No budget is named: what counts is what the
 * machine and the group have left.
 */
/* env: OFFLOAD_HOST_MIN=1M */
/* needs: none */
#include "anon.h"

#define BLOCKS 10

int main(void)
{
	struct block b[BLOCKS];

	trap_child_env();
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < BLOCKS; i++)
			b[i] = block_new((uint16_t)(i + 1), 30 * MIB + (size_t)i * 4096);
		for (int i = 0; i < BLOCKS; i++)
			block_verify(&b[i], "memory that fits");
		for (int i = 0; i < BLOCKS; i++)
			block_free(&b[i]);
	}
	return 0;
}
