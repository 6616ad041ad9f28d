/* SPDX-License-Identifier: MIT */
/* shm_file.c - the model lies in /dev/shm: a file system without O_DIRECT.
 *
 * Owns a file in /dev/shm; lock: none. Nothing is gained there, but nothing
 * may go wrong either, in either way of reading.
 */
/* env: OFFLOAD_RAM=32M */
#include "trap.h"

int main(void)
{
	struct trap t;

	if (access("/dev/shm", W_OK))
		skip("/dev/shm is not writable");
	trap_private(&t, "/dev/shm", TRAP_SIZE, 15);
	trap_map(&t, PROT_READ, MAP_SHARED);
	unlink(t.path);		/* so that a failure leaves nothing */
	verify_passes(&t, 5, "file in memory");
	return trap_done(&t);
}
