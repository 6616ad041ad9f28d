/* SPDX-License-Identifier: MIT */
/* anon_huge.c - a heap that goes out and comes in again and again keeps its huge
 * pages: in small ones each way costs hundreds of times as much, for good.
 *
 * Owns its block; lock: none. Each round the kernel splits a page (part of it is said
 * to be cold): where small ones lay or come, huge ones must be again after a while.
 * Only mode move has pages to keep; 77 where the kernel gives no huge ones, or keeps empty page tables (before 6.14).
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
/* variants: plain move */
#include "anon.h"

#include <sys/syscall.h>
#include <sys/utsname.h>

#define SIZE	(96 * MIB)
#define ROUNDS	12

static bool frees_page_tables(void)
{
	struct utsname u;
	int major = 0, minor = 0;

	check(!uname(&u) && sscanf(u.release, "%d.%d", &major, &minor) == 2);
	return major > 6 || (major == 6 && minor >= 14);
}

static bool gives_huge(void)
{
	unsigned char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned char *at = (unsigned char *)(((uintptr_t)p + CHUNK - 1) & ~(CHUNK - 1));
	bool huge;

	check(p != MAP_FAILED);
	madvise(p, SIZE, MADV_HUGEPAGE);
	*at = 1;
	huge = anon_smaps("AnonHugePages", SIZE) >= CHUNK / 1024;
	munmap(p, SIZE);
	return huge;
}

static void split(unsigned char *p, size_t chunk)
{
	unsigned char *at = p + chunk * CHUNK;

	for (size_t i = 0; i < CHUNK; i += CHUNK / 8)
		(void)*(volatile unsigned char *)(at + i);
	syscall(SYS_madvise, ((uintptr_t)at + CHUNK / 2) & ~(PAGE - 1), PAGE, MADV_COLD);
}

int main(void)
{
	unsigned char *p;

	if (!trap_paged())
		return 0;
	if (!frees_page_tables() || !gives_huge())
		return 77;
	p = malloc(SIZE);
	check(p);
	for (uint16_t gen = 1; gen <= ROUNDS; gen++) {
		anon_put(p, 1, gen, 0, SIZE);
		split(p, gen % (SIZE / CHUNK));
		for (int i = 0; i < 2; i++)
			anon_verify(p, 1, gen, 0, SIZE, "round");
	}
	if (anon_smaps("AnonHugePages", SIZE) < anon_smaps("Anonymous", SIZE) / 2)
		fail("%zu of %zu KiB are huge pages", anon_smaps("AnonHugePages", SIZE), anon_smaps("Anonymous", SIZE));
	free(p);
	return 0;
}
