/* SPDX-License-Identifier: MIT */
/* offsets.c - mappings that begin inside the file, of any length, any kind.
 *
 * Owns nothing; lock: none. Offsets off the 2 MiB grid, lengths off the page,
 * address hints, and neighbours of one file side by side.
 */
/* env: OFFLOAD_RAM=16M */
/* needs: regions evictions */
#include "trap.h"

static struct trap t;

static void one(off_t off, size_t len, int flags)
{
	unsigned char *p = trap_map_at(&t, len, off, PROT_READ, flags);

	for (int i = 0; i < 3; i++)
		verify_at(&t, p, off, len, "mapping with an offset");
	check(!munmap(p, len));
}

static void hinted(void)
{
	unsigned char *hint = mmap(NULL, 40 * MIB, PROT_NONE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *p;
	int fd = trap_open(&t);

	check(hint != MAP_FAILED && !munmap(hint, 40 * MIB));
	hint += 5 * PAGE;
	p = mmap(hint, 24 * MIB, PROT_READ, MAP_SHARED, fd, 0);
	check(p != MAP_FAILED);
	for (int i = 0; i < 2; i++)
		verify_at(&t, p, 0, 24 * MIB, "mapping with a hint");
	check(!munmap(p, 24 * MIB));
	p = mmap(hint, 24 * MIB, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE,
		 fd, 8 * MIB);
	check(p == hint);
	for (int i = 0; i < 2; i++)
		verify_at(&t, p, 8 * MIB, 24 * MIB, "mapping at a fixed place");
	check(mmap(hint, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
		   0) == MAP_FAILED && errno == EEXIST);
	check(!munmap(p, 24 * MIB));
	close(fd);
}

/* As a loader maps shard after shard of tensors. */
static void neighbours(void)
{
	enum { N = 12 };
	unsigned char *p[N];
	size_t len = 5 * MIB + 3 * PAGE;

	for (int i = 0; i < N; i++)
		p[i] = trap_map_at(&t, len, i * 5 * MIB + i * PAGE, PROT_READ,
				   i & 1 ? MAP_PRIVATE : MAP_SHARED);
	for (int pass = 0; pass < 4; pass++)
		for (int i = 0; i < N; i++)
			verify_at(&t, p[i], i * 5 * MIB + i * PAGE,
				  len > t.size - i * 5 * MIB - i * PAGE ?
				  t.size - i * 5 * MIB - i * PAGE : len,
				  "one of many mappings");
	for (int i = 0; i < N; i++)
		check(!munmap(p[i], len));
}

static void refused(void)
{
	int fd = trap_open(&t);

	errno = 0;
	check(mmap(NULL, 8 * MIB, PROT_READ, MAP_SHARED, fd, 100) ==
	      MAP_FAILED && errno == EINVAL);
	check(mmap(NULL, 0, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED &&
	      errno == EINVAL);
	check(mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ==
	      MAP_FAILED && errno == EACCES);
	check(mmap(NULL, 8 * MIB, PROT_READ, MAP_SHARED, -1, 0) == MAP_FAILED &&
	      errno == EBADF);
	close(fd);
}

int main(void)
{
	trap_shared(&t, TRAP_SIZE, 1);
	one(2 * MIB, 40 * MIB, MAP_SHARED);
	one(3 * PAGE, 40 * MIB + 123, MAP_SHARED);
	one(7 * MIB + PAGE, 40 * MIB - 1, MAP_PRIVATE);
	one(60 * MIB, 4 * MIB, MAP_SHARED);
	hinted();
	neighbours();
	refused();
	return trap_done(&t);
}
