/* SPDX-License-Identifier: MIT */
/* anon_any_file.c - blocks that were read from files of no known kind, with nowhere to
 * spill to: they can only be dropped, and read again.
 *
 * Owns its files. Lock: none. (1) They are twice what the budget holds. (2) They are read
 * in one go, which goes on while what came first has to go. (3) Where the file
 * system does not let a file be held, nothing can be shown.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K OFFLOAD_SPILL=/nonexistent/folder */
/* needs: regions evictions reads */
/* variants: plain move copy */
#include "trap.h"

#define FILES	3
#define SIZE	(24 * MIB)

static struct trap t[FILES];
static unsigned char *p[FILES];

static void make(int i)
{
	int fd;

	trap_private(&t[i], trap_dir(), SIZE, 51 + i);
	fd = open(t[i].path, O_WRONLY);
	check(fd >= 0);
	trap_write_all(fd, "none", 4, 0);
	close(fd);
	fd = trap_open(&t[i]);
	if (fcntl(fd, F_SETLEASE, F_RDLCK))
		skip("files cannot be held on this file system");
	check(!fcntl(fd, F_SETLEASE, F_UNLCK));
	p[i] = malloc(2 * SIZE);
	check(p[i]);
	check(i ? read(fd, p[i], 2 * SIZE) == SIZE : pread(fd, p[i], SIZE, 0) == SIZE);
	check(lseek(fd, 0, SEEK_CUR) == (i ? (off_t)SIZE : 0));
	close(fd);
}

int main(void)
{
	for (int i = 0; i < FILES; i++)
		make(i);
	for (int pass = 0; pass < 3; pass++)
		for (int i = 0; i < FILES; i++)
			verify_at(&t[i], p[i] + TRAP_DATA, TRAP_DATA, SIZE - TRAP_DATA, "any file");
	for (int i = 0; i < FILES; i++)
		trap_done(&t[i]);
	return 0;
}
