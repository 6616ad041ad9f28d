/* SPDX-License-Identifier: MIT */
/* anon_copy.c - which pages of the heap are there, and taking them by copying.
 *
 * Owns a descriptor of /proc/self/pagemap in the library's table. Lock: none;
 * pager thread.
 */
#include "core/anon_int.h"
#include "core/core_int.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static int pagemap = -1;

int pages_open(void)
{
	if (pagemap < 0)
		pagemap = off_sys_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
	return pagemap < 0 ? -errno : 0;
}

void pages_reset(void)
{
	pagemap = -1;		/* a number of the parent's library table */
}

int pages_there(uint32_t c, uint64_t map[CHUNK / PAGE / 64])
{
	static uint64_t entry[CHUNK / PAGE];
	int n = 0;

	memset(map, 0, CHUNK / PAGE / 8);
	if (off_sys_pread(pagemap, entry, sizeof(entry),
			  (off_t)(chunk_addr(c) / PAGE * 8)) != (ssize_t)sizeof(entry))
		return -EIO;
	for (uint32_t i = 0; i < CHUNK / PAGE; i++)
		if (entry[i] >> 62) {
			map[i / 64] |= 1ull << (i % 64);
			n++;
		}
	return n;
}

int copy_out(uint32_t c, char *to)
{
	uint64_t map[CHUNK / PAGE / 64];
	char *from = (char *)chunk_addr(c);
	int err = uffd_protect(chunk_addr(c), CHUNK, true);

	if (!err && pages_there(c, map) < 0)
		err = -EIO;
	for (uint32_t i = 0; !err && i < CHUNK / PAGE; i++) {
		if (map[i / 64] >> (i % 64) & 1)
			memcpy(to + i * PAGE, from + i * PAGE, PAGE);
		else
			memset(to + i * PAGE, 0, PAGE);
	}
	if (!err && off_sys_madvise(from, CHUNK, MADV_DONTNEED))
		err = -errno;
	if (err)
		uffd_protect(chunk_addr(c), CHUNK, false);
	else
		uffd_wake(chunk_addr(c), CHUNK);
	return err;
}

