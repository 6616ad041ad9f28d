/* SPDX-License-Identifier: MIT */
/* pages.c - which pages are there, how, and what is in them.
 *
 * Owns a descriptor of /proc/self/pagemap in the library's table. Lock: none;
 * pager thread, keeper before it has started that (and pages_huge).
 */
#include "core/anon_int.h"
#include "core/core_int.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Linux 6.7; newer than Debian 12's headers. */
#ifndef PAGEMAP_SCAN
#define PAGE_IS_HUGE (1 << 6)
#define PAGEMAP_SCAN _IOWR('f', 16, struct scan_arg)
#endif
struct scan_found { uint64_t start, end, categories; };
struct scan_arg {	/* struct pm_scan_arg */
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages,
		 category_inverted, category_mask, category_anyof_mask, return_mask;
};

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

int pages_read(uintptr_t at, size_t len, uint64_t *entry)
{
	size_t bytes = len / PAGE * sizeof(*entry);

	return off_sys_pread(pagemap, entry, bytes, (off_t)(at / PAGE * sizeof(*entry))) ==
		(ssize_t)bytes ? 0 : -EIO;
}

bool pages_huge(uintptr_t at)
{
	struct scan_found found;
	struct scan_arg arg = {
		.size = sizeof(arg), .start = at, .end = at + CHUNK,
		.vec = (uintptr_t)&found, .vec_len = 1, .max_pages = CHUNK / PAGE,
		.category_mask = PAGE_IS_HUGE, .return_mask = PAGE_IS_HUGE,
	};

	return !pages_open() && ioctl(pagemap, PAGEMAP_SCAN, &arg) == 1 &&
		found.start == at && found.end == at + CHUNK;
}

int pages_there(uint32_t c, uint64_t map[CHUNK / PAGE / 64])
{
	static uint64_t entry[CHUNK / PAGE];
	int n = 0;

	memset(map, 0, CHUNK / PAGE / 8);
	if (pages_read(chunk_addr(c), CHUNK, entry))
		return -EIO;
	for (uint32_t i = 0; i < CHUNK / PAGE; i++)
		if (entry[i] >> 62) {
			map[i / 64] |= 1ull << (i % 64);
			n++;
		}
	return n;
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
