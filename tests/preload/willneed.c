/* SPDX-License-Identifier: MIT */
/* willneed.c - the program asks for everything at once; half of it fits.
 *
 * Owns nothing; lock: none. MAP_POPULATE, WILLNEED and POPULATE_READ of more
 * than the budget return, and change no byte.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

int main(void)
{
	struct trap t;

	trap_shared(&t, TRAP_SIZE, 1);
	trap_map(&t, PROT_READ, MAP_SHARED | MAP_POPULATE);
	verify_all(&t, "MAP_POPULATE");
	for (int i = 0; i < 4; i++) {
		check(!madvise(t.map, t.size, MADV_WILLNEED));
		verify_all(&t, "WILLNEED of all");
		check(!posix_madvise(t.map, t.size, POSIX_MADV_WILLNEED));
		verify_random(&t, 40, i, "posix WILLNEED of all");
		if (madvise(t.map, t.size, MADV_POPULATE_READ))
			check(errno == EINVAL || errno == ENOMEM);
		verify_all(&t, "POPULATE_READ of all");
	}
	return trap_done(&t);
}
