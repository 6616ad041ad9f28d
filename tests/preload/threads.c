/* SPDX-License-Identifier: MIT */
/* threads.c - two threads walk in order, two jump about, all at once.
 *
 * Owns nothing; lock: none.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions reads */
#include "trap.h"

static struct trap t;

static void *walker(void *arg)
{
	verify_passes(&t, 4, "walker");
	return NULL;
}

static void *jumper(void *arg)
{
	verify_random(&t, 250, (uint32_t)(uintptr_t)arg, "jumper");
	return NULL;
}

int main(void)
{
	pthread_t th[4];

	trap_start(&t);
	for (uintptr_t i = 0; i < 4; i++)
		check(!pthread_create(&th[i], NULL, i & 1 ? walker : jumper,
				      (void *)i));
	for (int i = 0; i < 4; i++)
		check(!pthread_join(th[i], NULL));
	return trap_done(&t);
}
