/* SPDX-License-Identifier: MIT */
/* anon_first.c - the first block of a program alone is larger than the budget: it is paged
 * before it is populated, not some time after that (a cgroup would have killed by then).
 *
 * Owns the block. Lock: none.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
/* variants: plain move copy */
#include "anon.h"

#define LEN	(192 * MIB)

int main(void)
{
	unsigned char *p = mmap(NULL, LEN, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	check(p != MAP_FAILED);
	if (trap_paged() && (size_t)trap_status("VmRSS") * 1024 > 3 * BUDGET)
		fail("%ld KiB are in memory", trap_status("VmRSS"));
	anon_put(p, 1, 1, 0, LEN);
	for (int round = 0; round < 2; round++)
		anon_verify(p, 1, 1, 0, LEN, "the first block");
	return 0;
}
