/* SPDX-License-Identifier: MIT */
/* truncated.c - a GGUF whose header promises twice what the file holds.
 *
 * Owns a private copy; lock: none. A broken download: the program may read
 * what is there, region or not, and gets SIGBUS beyond, as from the kernel.
 */
/* env: OFFLOAD_RAM=32M */
#include "trap.h"

int main(void)
{
	struct trap t = { .size = 48 * MIB, .seed = 12 };

	snprintf(t.path, sizeof(t.path), "%s/trap.truncated.%d.gguf",
		 trap_dir(), (int)getpid());
	trap_write(&t, 2 * t.size);
	trap_map(&t, PROT_READ, MAP_SHARED);
	for (int i = 0; i < 3; i++)
		verify(&t, TRAP_DATA, t.size - TRAP_DATA, "truncated model");
	trap_unmap(&t);
	t.map = trap_map_at(&t, 2 * t.size, 0, PROT_READ, MAP_SHARED);
	for (int i = 0; i < 3; i++)
		verify(&t, TRAP_DATA, t.size - TRAP_DATA, "promised length");
	check(trap_probe(t.map + t.size, false) == SIGBUS);
	check(trap_probe(t.map + 2 * t.size - 1, false) == SIGBUS);
	verify(&t, TRAP_DATA, t.size - TRAP_DATA, "after SIGBUS");
	check(!munmap(t.map, 2 * t.size));
	t.map = NULL;
	return trap_done(&t);
}
