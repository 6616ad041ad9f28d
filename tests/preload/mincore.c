/* SPDX-License-Identifier: MIT */
/* mincore.c - mincore and msync on a region answer sanely, change nothing.
 *
 * Owns nothing; lock: none. Residency is the kernel's or the library's
 * opinion; all that is sure: bits are 0 or 1, unmapped pages are ENOMEM.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static struct trap t;
static unsigned char vec[TRAP_SIZE / PAGE + 1];

static void look(size_t at, size_t len)
{
	size_t pages = (len + PAGE - 1) / PAGE;

	memset(vec, 0xee, sizeof(vec));
	if (mincore(t.map + at, len, vec))
		fail("mincore: %s", strerror(errno));
	for (size_t i = 0; i < pages; i++)
		if (vec[i] & 0xfe && vec[i] != 0xff)
			fail("page %zu: mincore says %#x", i, vec[i]);
	if (vec[pages] != 0xee)
		fail("mincore wrote beyond its vector");
}

int main(void)
{
	trap_start(&t);
	for (int i = 0; i < 3; i++) {
		verify_all(&t, "before mincore");
		look(0, t.size);
		look(5 * MIB + PAGE, 3 * MIB + 1);
		check(!msync(t.map, t.size, MS_SYNC));
		check(!msync(t.map, t.size, MS_ASYNC));
		check(!msync(t.map, t.size, MS_SYNC | MS_INVALIDATE) ||
		      errno == EBUSY);
		verify_all(&t, "after msync");
	}
	check(mincore(t.map + 1, PAGE, vec) == -1 && errno == EINVAL);
	check(msync(t.map + 1, PAGE, MS_SYNC) == -1 && errno == EINVAL);
	check(!munmap(t.map + 8 * MIB, PAGE));
	errno = 0;
	check(mincore(t.map, t.size, vec) == -1 && errno == ENOMEM);
	check(msync(t.map, t.size, MS_SYNC) == -1 && errno == ENOMEM);
	return trap_done(&t);
}
