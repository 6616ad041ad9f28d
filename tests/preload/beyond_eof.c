/* SPDX-License-Identifier: MIT */
/* beyond_eof.c - a mapping longer than its file, which ends inside a page.
 *
 * Owns nothing; lock: none. The rest of the last page is zeros, the pages
 * beyond are SIGBUS for the program and EFAULT for the kernel: with the
 * library as without.
 */
/* env: OFFLOAD_RAM=32M */
#include "trap.h"

#define SIZE	(TRAP_SIZE - 5 * MIB - 1000)

int main(void)
{
	size_t end = (SIZE + PAGE - 1) & ~(PAGE - 1), len = TRAP_SIZE;
	struct trap t;
	int p[2];

	trap_shared(&t, SIZE, 13);
	t.map = trap_map_at(&t, len, 0, PROT_READ, MAP_SHARED);
	for (int i = 0; i < 3; i++) {
		verify(&t, 0, end, "to the end of the last page");
		check(trap_probe(t.map + end, false) == SIGBUS);
		check(trap_probe(t.map + len - 1, false) == SIGBUS);
		check(!trap_probe(t.map + end - 1, false));
	}
	check(!pipe(p));
	errno = 0;
	check(write(p[1], t.map + end, PAGE) == -1 && errno == EFAULT);
	check(write(p[1], t.map + end - PAGE, PAGE) == (ssize_t)PAGE);
	check(!munmap(t.map, len));
	t.map = trap_map_at(&t, SIZE, 0, PROT_READ, MAP_PRIVATE);
	for (int i = 0; i < 2; i++)
		verify(&t, 0, end, "private, exact length");
	check(!munmap(t.map, SIZE));
	t.map = NULL;
	return trap_done(&t);
}
