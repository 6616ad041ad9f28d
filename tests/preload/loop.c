/* SPDX-License-Identifier: MIT */
/* loop.c - a mapping twice the budget, read over and over in order.
 *
 * Owns nothing; lock: none. The main thing, alone: if this fails, look here
 * first.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions reads */
#include "trap.h"

int main(void)
{
	struct trap t;

	trap_start(&t);
	verify_passes(&t, 6, "loop");
	return trap_done(&t);
}
