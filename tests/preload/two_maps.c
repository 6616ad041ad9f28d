/* SPDX-License-Identifier: MIT */
/* two_maps.c - one file mapped twice, and a second file beside it.
 *
 * Owns nothing; lock: none. Three regions share one budget; each has its own
 * bytes, and the end of one does not touch the others.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static struct trap a, b, c;

static void *walk(void *arg)
{
	verify_passes(arg, 3, arg == &a ? "first mapping" : arg == &b ?
		      "second mapping" : "second file");
	return NULL;
}

int main(void)
{
	pthread_t th[3];

	trap_start(&a);
	b = a;
	trap_map(&b, PROT_READ, MAP_PRIVATE);
	trap_shared(&c, TRAP_SIZE, 2);
	trap_map(&c, PROT_READ, MAP_SHARED);
	check(a.map != b.map);
	for (int i = 0; i < 2; i++) {
		verify_all(&a, "first mapping, alone");
		verify_all(&b, "second mapping, alone");
		verify_all(&c, "second file, alone");
	}
	check(!pthread_create(&th[0], NULL, walk, &a));
	check(!pthread_create(&th[1], NULL, walk, &b));
	check(!pthread_create(&th[2], NULL, walk, &c));
	for (int i = 0; i < 3; i++)
		check(!pthread_join(th[i], NULL));
	trap_unmap(&a);
	verify_passes(&b, 2, "the first is gone");
	trap_unmap(&b);
	verify_passes(&c, 2, "both are gone");
	trap_done(&c);
	return trap_done(&a);
}
