/* SPDX-License-Identifier: MIT */
/* file_edges.c - mappings of tensor files that are not read-only walks: shared and
 * written, written beside by pwrite, private and protected, cut several at once.
 *
 * Owns private copies; lock: none. (1) What is mapped shared and writable, or
 * through a descriptor that can write, is coherent with the file at every moment,
 * as LMDB and SQLite need it. (2) A protection that was asked for holds. (3) One
 * munmap may take the ends of several regions and what lies between. (4) Advice
 * that is not for files fails and changes nothing; what was not to be in a child
 * is right there or SIGSEGV.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
/* variants: plain move copy hints */
#include "trap.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define STEP	(53 * PAGE)

static struct trap t;		/* shared with other programs: never written */

static unsigned char *map_rw(const struct trap *u, int prot, int *fd)
{
	void *p;

	*fd = open(u->path, O_RDWR | O_CLOEXEC);
	check(*fd >= 0);
	p = mmap(NULL, u->size, prot, MAP_SHARED, *fd, 0);
	if (p == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	return p;
}

static void put_words(unsigned char *p, uint64_t off, uint32_t seed)
{
	for (size_t i = 0; i < PAGE; i += 8) {
		uint64_t w = trap_word(off + i, seed);

		memcpy(p + i, &w, 8);
	}
}

/* Pages at STEP were written with `seed`, the others are the file's own. */
static void verify_steps(const struct trap *u, const unsigned char *p,
			 uint32_t seed, const char *what)
{
	struct trap wrote = *u;

	wrote.seed = seed;
	for (size_t at = 0; at < u->size; at += PAGE)
		verify_at(at && !(at % STEP) ? &wrote : u, p + at, at, PAGE, what);
}

/* ---- shared ------------------------------------------------------------------- */

static void shared_and_written(struct trap *u)
{
	static unsigned char buf[PAGE];
	struct trap wrote = *u;
	int fd;
	unsigned char *p = map_rw(u, PROT_READ | PROT_WRITE, &fd);

	wrote.seed = 77;
	verify_at(u, p, 0, u->size, "shared, before");
	for (size_t at = STEP; at < u->size; at += STEP) {
		put_words(p + at, at, 77);
		check(pread(fd, buf, PAGE, at) == (ssize_t)PAGE);
		verify_at(&wrote, buf, at, PAGE, "the file of a shared mapping");
	}
	check(!msync(p, u->size, MS_SYNC));
	for (int i = 0; i < 2; i++)
		verify_steps(u, p, 77, "shared and written");
	check(!munmap(p, u->size));
	close(fd);
	trap_map(u, PROT_READ, MAP_SHARED);	/* and a region, of what it is now */
	for (int i = 0; i < 2; i++)
		verify_steps(u, u->map, 77, "mapped anew");
	trap_unmap(u);
}

/* A page is read, written through the descriptor, read again: at once. */
static void written_beside(struct trap *u)
{
	static unsigned char buf[PAGE];
	struct trap wrote = *u;
	int fd;
	unsigned char *p = map_rw(u, PROT_READ, &fd);

	for (uint32_t seed = 78; seed < 81; seed++) {
		wrote.seed = seed;
		for (size_t at = STEP; at < u->size; at += STEP) {
			put_words(buf, at, seed);
			check(*(volatile unsigned char *)(p + at) || true);
			trap_write_all(fd, buf, PAGE, at);
			verify_at(&wrote, p + at, at, PAGE, "pwrite, through a map");
		}
		verify_steps(u, p, seed, "written beside the mapping");
	}
	check(trap_probe(p, true) == SIGSEGV);
	check(!munmap(p, u->size));
	close(fd);
}

/* ---- private and protected --------------------------------------------------------- */

static volatile sig_atomic_t faults;
static unsigned char *guarded;
static size_t guarded_len;

static void allow(int sig, siginfo_t *si, void *uc)
{
	unsigned char *at = (void *)((uintptr_t)si->si_addr & ~(PAGE - 1));

	if (at < guarded || at >= guarded + guarded_len)
		fail("SIGSEGV at %p", si->si_addr);
	faults++;
	if (mprotect(at, PAGE, PROT_READ | PROT_WRITE))
		fail("mprotect in a handler: %s", strerror(errno));
}

/* A private writable mapping stays writable underneath where it is paged: a
 * protection is not told of there, or is ENOMEM (TRAP_BARRIER=1 asks all the same). */
static bool may_leave_writable(void)
{
	return !getenv("TRAP_BARRIER") && (trap_paged() || trap_mode_is("torture"));
}

/* A write barrier over part of it, or all: each first write is told of. */
static void barrier(unsigned char *p, size_t at, size_t len, const char *what)
{
	struct sigaction sa = { .sa_sigaction = allow, .sa_flags = SA_SIGINFO };
	int wrote = 0;

	guarded = p + at;
	guarded_len = len;
	faults = 0;
	check(!sigaction(SIGSEGV, &sa, NULL));
	check(!mprotect(guarded, len, PROT_READ));
	for (size_t off = 0; off < len; off += STEP, wrote++)
		put_words(guarded + off, at + off, t.seed);
	if (faults != wrote && !may_leave_writable())
		fail("%s: %d writes, %d were told of", what, wrote, (int)faults);
	verify_at(&t, p + at, at, len, what);
	signal(SIGSEGV, SIG_DFL);
	check(!mprotect(guarded, len, PROT_READ | PROT_WRITE));
}

static void none_and_back(unsigned char *p)
{
	unsigned char *q = p + 20 * MIB;

	if (mprotect(q, 2 * MIB, PROT_NONE)) {
		check(errno == ENOMEM && may_leave_writable());
	} else {
		check(trap_probe(q, false) == SIGSEGV);
		check(trap_probe(q + 2 * MIB - 1, false) == SIGSEGV);
		verify_at(&t, q + 2 * MIB, 22 * MIB, t.size - 22 * MIB, "after NONE");
		check(!mprotect(q, 2 * MIB, PROT_READ | PROT_WRITE));
	}
	verify_at(&t, p, 0, t.size, "private, barred and back");
}

static void private_and_barred(void)
{
	unsigned char *p = trap_map_at(&t, t.size, 0, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE);

	verify_at(&t, p, 0, t.size, "private");
	none_and_back(p);
	barrier(p, 7 * MIB + PAGE, 4 * MIB, "a barrier over a part");
	verify_at(&t, p, 0, t.size, "private, barred in part");
	check(!munmap(p, t.size));
}

/* ---- several at once ------------------------------------------------------------------ */

static bool is_free(unsigned char *lo, const unsigned char *hi)
{
	unsigned char vec;

	for (; lo < hi; lo += PAGE)
		if (!mincore(lo, PAGE, &vec) || errno != ENOMEM)
			return false;
	return true;
}

#define PIECES	8
#define LEN	(9 * MIB)

static int by_address(const void *a, const void *b)
{
	unsigned char *const *p = a, *const *q = b;

	return (*p > *q) - (*p < *q);
}

/* The upper half of one and the lower half of its neighbour, and the gap. */
static void cut_several(void)
{
	unsigned char *p[PIECES];
	int n = 0;

	for (int i = 0; i < PIECES; i++)
		p[i] = trap_map_at(&t, LEN, 0, PROT_READ, i & 1 ? MAP_PRIVATE :
				   MAP_SHARED);
	qsort(p, PIECES, sizeof(*p), by_address);
	for (int i = 0; i < PIECES; i++)
		verify_at(&t, p[i], 0, LEN, "one of several");
	for (int i = 0; i + 2 < PIECES; i++) {
		if (!p[i] || !is_free(p[i] + LEN, p[i + 1]))
			continue;
		n++;
		check(!munmap(p[i] + 5 * MIB, p[i + 1] + 4 * MIB - p[i] - 5 * MIB));
		trap_is_hole(p[i] + 5 * MIB, p[i + 1] + 4 * MIB - p[i] - 5 * MIB,
			     "over two regions");
		for (int k = 0; k < 2; k++) {
			verify_at(&t, p[i], 0, 5 * MIB, "before the cut");
			verify_at(&t, p[i + 1] + 4 * MIB, 4 * MIB, LEN - 4 * MIB,
				  "after the cut");
			verify_at(&t, p[PIECES - 1], 0, LEN, "beside the cut");
		}
		check(!munmap(p[i], 5 * MIB));
		check(!munmap(p[i + 1] + 4 * MIB, LEN - 4 * MIB));
		p[i] = p[i + 1] = NULL;
	}
	for (int i = 0; i < PIECES; i++)
		check(!p[i] || !munmap(p[i], LEN));
	if (!n && !trap_mode_is("torture"))
		fail("no two mappings had nothing between them");
}

/* ---- refused, or not in the child --------------------------------------------------------- */

static void not_for_files(void)
{
	static const int advice[] = { MADV_REMOVE, MADV_FREE, MADV_WIPEONFORK };
	unsigned char *to;

	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 2, "before");
	for (int i = 0; i < 3; i++) {
		errno = 0;
		check(madvise(t.map + MIB, 9 * MIB, advice[i]) == -1);
		check(errno == EINVAL || errno == EACCES);
		verify(&t, 0, 12 * MIB, "after advice that was refused");
	}
	to = mremap(t.map, t.size, t.size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
	if (to == MAP_FAILED)
		check(errno == EINVAL || errno == ENOMEM);
	else
		for (int i = 0; i < 2; i++)
			verify_at(&t, to, 0, t.size, "moved by DONTUNMAP");
	for (int i = 0; i < 2; i++)
		verify_all(&t, "left by DONTUNMAP");
	check(to == MAP_FAILED || !munmap(to, t.size));
	trap_unmap(&t);
}

static void not_in_the_child(void)
{
	pid_t pid;

	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 2, "before");
	check(!madvise(t.map, 16 * MIB, MADV_DONTFORK));
	pid = fork();
	if (!pid) {
		for (size_t at = 0; at < 16 * MIB; at += 2 * MIB)
			if (!trap_probe(t.map + at, false))
				verify(&t, at, PAGE, "DONTFORK, child");
		verify(&t, 16 * MIB, t.size - 16 * MIB, "child");
		_exit(0);
	}
	verify_all(&t, "parent");
	trap_wait(pid, "child");
	check(!madvise(t.map, 16 * MIB, MADV_DOFORK));
	pid = fork();
	if (!pid) {
		verify_all(&t, "DOFORK, child");
		_exit(0);
	}
	trap_wait(pid, "child");
	trap_unmap(&t);
}

int main(void)
{
	struct trap u;

	trap_shared(&t, TRAP_SIZE, 1);
	trap_private(&u, trap_dir(), TRAP_SIZE, 31);
	shared_and_written(&u);
	written_beside(&u);
	trap_done(&u);
	private_and_barred();
	cut_several();
	not_for_files();
	not_in_the_child();
	return trap_done(&t);
}
