/* SPDX-License-Identifier: MIT */
/* advise.c - madvise and posix_madvise with every advice that matters.
 *
 * Owns nothing; lock: none. (1) No advice changes bytes, but DONTNEED on
 * written private pages, which brings the file's back. (2) Results and errno
 * are those of the kernel for a file mapping.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static struct trap t;

/* Kernels before 5.4 and 5.14 do not know some; EINVAL is then right. */
static const struct { const char *name; int advice; bool must; } harmless[] = {
	{ "NORMAL", MADV_NORMAL, true },
	{ "RANDOM", MADV_RANDOM, true },
	{ "SEQUENTIAL", MADV_SEQUENTIAL, true },
	{ "WILLNEED", MADV_WILLNEED, true },
	{ "DONTNEED", MADV_DONTNEED, true },
	{ "COLD", MADV_COLD, false },
	{ "PAGEOUT", MADV_PAGEOUT, false },
	{ "POPULATE_READ", MADV_POPULATE_READ, false },
	{ "HUGEPAGE", MADV_HUGEPAGE, false },
	{ "NOHUGEPAGE", MADV_NOHUGEPAGE, false },
	{ "MERGEABLE", MADV_MERGEABLE, false },
	{ "UNMERGEABLE", MADV_UNMERGEABLE, false },
	{ "DONTDUMP", MADV_DONTDUMP, true },
	{ "DODUMP", MADV_DODUMP, true },
	{ "DONTFORK", MADV_DONTFORK, true },
	{ "DOFORK", MADV_DOFORK, true },
};

static void advise_one(const char *name, int advice, bool must, size_t at,
		       size_t len)
{
	if (madvise(t.map + at, len, advice) && (must || errno != EINVAL))
		fail("MADV_%s: %s", name, strerror(errno));
	verify(&t, at, len < 8 * MIB ? len : 8 * MIB, name);
}

static void all_harmless(void)
{
	for (size_t i = 0; i < sizeof(harmless) / sizeof(*harmless); i++) {
		advise_one(harmless[i].name, harmless[i].advice,
			   harmless[i].must, 0, t.size);
		advise_one(harmless[i].name, harmless[i].advice,
			   harmless[i].must, 9 * MIB + PAGE, 3 * MIB);
		verify_random(&t, 25, i, harmless[i].name);
	}
	verify_passes(&t, 2, "after all advice");
}

static void refused(void)
{
	errno = 0;
	check(madvise(t.map, t.size, MADV_FREE) == -1 && errno == EINVAL);
	check(madvise(t.map + 1, PAGE, MADV_DONTNEED) == -1);
	check(errno == EINVAL);
	check(madvise(t.map, t.size, 12345) == -1 && errno == EINVAL);
	check(!madvise(t.map, 0, MADV_DONTNEED));
	verify_all(&t, "after what was refused");
}

static void posix_advice(void)
{
	static const int advice[] = { POSIX_MADV_NORMAL, POSIX_MADV_RANDOM,
		POSIX_MADV_SEQUENTIAL, POSIX_MADV_WILLNEED,
		POSIX_MADV_DONTNEED };

	for (int i = 0; i < 5; i++) {
		check(posix_madvise(t.map, t.size, advice[i]) == 0);
		verify_random(&t, 30, i, "posix_madvise");
	}
	check(posix_madvise(t.map + 1, PAGE, POSIX_MADV_WILLNEED) == EINVAL);
	verify_all(&t, "after posix_madvise");
}

static void dontneed_on_written(void)
{
	unsigned char *p;

	trap_unmap(&t);
	trap_map(&t, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	p = t.map;
	verify_all(&t, "private");
	for (size_t off = 0; off < t.size; off += 16 * PAGE)
		memset(p + off, 0xa5, PAGE);
	for (size_t off = 0; off < t.size; off += 16 * PAGE)
		if (p[off] != 0xa5 || p[off + PAGE - 1] != 0xa5)
			fail("a written page was lost before DONTNEED");
	check(!madvise(p + 4 * MIB, 4 * MIB, MADV_DONTNEED));
	verify(&t, 4 * MIB, 4 * MIB, "DONTNEED on written pages");
	check(p[0] == 0xa5 && p[8 * MIB] == 0xa5);
	check(!madvise(p, t.size, MADV_DONTNEED));
	verify_passes(&t, 2, "DONTNEED on all of it");
}

static void *churn(void *stop)
{
	while (!atomic_load((_Atomic int *)stop))
		verify_all(&t, "thread beside madvise");
	return NULL;
}

static void while_others_read(void)
{
	static _Atomic int stop;
	pthread_t th;

	check(!pthread_create(&th, NULL, churn, &stop));
	for (uint32_t i = 0, s = 1; i < 200; i++) {
		size_t at = trap_random(&s) % (t.size / PAGE / 2) * PAGE;
		size_t n = 1 + trap_random(&s) % 1024;

		check(!madvise(t.map + at, n * PAGE, i & 1 ? MADV_DONTNEED :
			       MADV_WILLNEED));
	}
	atomic_store(&stop, 1);
	check(!pthread_join(th, NULL));
}

int main(void)
{
	trap_start(&t);
	verify_passes(&t, 2, "before");
	all_harmless();
	refused();
	posix_advice();
	while_others_read();
	dontneed_on_written();
	return trap_done(&t);
}
