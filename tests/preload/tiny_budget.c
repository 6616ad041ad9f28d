/* SPDX-License-Identifier: MIT */
/* tiny_budget.c - a budget of one byte: slow, but right, and it is said.
 *
 * Owns nothing; lock: none.
 */
/* env: OFFLOAD_RAM=1 */
/* needs: regions evictions */
/* message: OFFLOAD_RAM|budget */
#include "trap.h"

static struct trap t;

static void *walk(void *arg)
{
	verify_random(&t, 40, (uint32_t)(uintptr_t)arg, "thread");
	return NULL;
}

int main(void)
{
	pthread_t th[6];

	trap_shared(&t, 24 * MIB, 14);
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 2, "one byte of budget");
	for (uintptr_t i = 0; i < 6; i++)	/* more threads than chunks fit */
		check(!pthread_create(&th[i], NULL, walk, (void *)i));
	for (int i = 0; i < 6; i++)
		check(!pthread_join(th[i], NULL));
	return trap_done(&t);
}
