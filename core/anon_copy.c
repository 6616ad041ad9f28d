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

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

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


int unshare_pages(uint32_t c)
{
	uint64_t map[CHUNK / PAGE / 64];
	char *a = (char *)chunk_addr(c);
	int err = pages_there(c, map) < 0 ? -EIO : 0;

	for (uint32_t i = 0; !err && i < CHUNK / PAGE; i++)
		if (map[i / 64] >> (i % 64) & 1 &&
		    off_sys_madvise(a + i * PAGE, PAGE, MADV_POPULATE_WRITE))
			err = -errno;
	return err;
}

bool all_zeros(const char *frame)
{
	const uint64_t *w = (const uint64_t *)frame;

	for (size_t i = 0; i < CHUNK / 8; i += 8)
		if (w[i] | w[i + 1] | w[i + 2] | w[i + 3] |
		    w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7])
			return false;
	return true;
}

int zero_from(uint32_t c, uintptr_t addr)
{
	uintptr_t end = chunk_addr(c) + CHUNK, to = end;
	size_t step;
	int again = 0, err = 0;

	while (addr < end) {
		err = uffd_zero(addr, to - addr, &step);
		addr += step;
		if (err == -EAGAIN && (step || pager_again(&again)))
			continue;
		if (err == -ENOENT && to - addr > PAGE) {
			to = page_down(addr + (to - addr) / 2);
			continue;	/* the chunk is several mappings: mprotect */
		}
		if (err)
			break;
		to = end;
	}
	return err == -EEXIST ? 0 : err;
}
