/* SPDX-License-Identifier: MIT */
/* deleted.c - the file is renamed, replaced, deleted while it is mapped.
 *
 * Owns private copies; lock: none. The mapping is of the file, not the name.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

int main(void)
{
	struct trap t, other;
	char moved[PATH_MAX + 8];

	trap_private(&t, trap_dir(), TRAP_SIZE, 10);
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 2, "before");
	snprintf(moved, sizeof(moved), "%s.moved", t.path);
	check(!rename(t.path, moved));
	verify_passes(&t, 2, "renamed");
	trap_private(&other, trap_dir(), TRAP_SIZE, 11);
	check(!rename(other.path, moved));
	verify_passes(&t, 2, "replaced by another under its new name");
	check(!unlink(moved));
	verify_passes(&t, 3, "deleted");
	return trap_done(&t);
}
