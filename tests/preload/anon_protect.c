/* SPDX-License-Identifier: MIT */
/* anon_protect.c - mprotect on anonymous memory, with handlers that repair.
 *
 * Owns its blocks; lock: none, one thread takes the signals.
 * (1) An access that is barred raises SIGSEGV (SEGV_ACCERR, the address), once
 *     for each access that was barred and never else: collectors count on it.
 * (2) Bytes are kept through PROT_NONE and back, evictions between.
 * (3) A system call on barred memory fails with EFAULT.
 * (4) Address space reserved with PROT_NONE and made usable in parts.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
#include "anon.h"

static struct block b;
/* Of the handler: how often it opened each page, and all of them. */
static volatile unsigned char dirty[64 * MIB / PAGE];
static volatile sig_atomic_t faults, to_prot;

static void repair(int sig, siginfo_t *si, void *uc)
{
	unsigned char *at = (void *)((uintptr_t)si->si_addr & ~(PAGE - 1));

	if (at < b.p || at >= b.p + b.len)
		fail("SIGSEGV at %p, outside of the block", si->si_addr);
	if (si->si_code != SEGV_ACCERR)
		fail("SIGSEGV at %p has code %d", si->si_addr, si->si_code);
	if (dirty[(at - b.p) / PAGE]++)
		fail("page %#zx faulted twice", (size_t)(at - b.p));
	faults++;
	if (mprotect(at, PAGE, to_prot))
		fail("mprotect in the handler: %s", strerror(errno));
}

static void arm(int prot, int then)
{
	struct sigaction sa = { .sa_sigaction = repair,
				.sa_flags = SA_SIGINFO };

	check(!sigaction(SIGSEGV, &sa, NULL));
	memset((void *)dirty, 0, sizeof(dirty));
	faults = 0;
	to_prot = then;
	check(!mprotect(b.p, b.len, prot));
}

static void disarm(void)
{
	signal(SIGSEGV, SIG_DFL);
	check(!mprotect(b.p, b.len, PROT_READ | PROT_WRITE));
}

/* A write barrier: the set of pages written must come out exactly. */
static void write_barrier(void)
{
	int wrote = 0;

	anon_push_out();
	arm(PROT_READ, PROT_READ | PROT_WRITE);
	block_verify(&b, "read-only");
	check(!faults);
	for (size_t at = 0; at < b.len; at += 53 * PAGE, wrote++) {
		anon_put(b.p + at, b.id, b.gen + 1, at, PAGE);
		anon_put(b.p + at, b.id, b.gen, at, PAGE);
	}
	check(faults == wrote);
	anon_push_out();
	for (size_t i = 0; i < b.len / PAGE; i++)
		if (dirty[i] != !(i % 53))
			fail("page %zu: %d faults", i, dirty[i]);
	block_verify(&b, "behind a write barrier");
	check(faults == wrote);
	disarm();
	block_verify(&b, "the barrier lifted");
}

/* A read barrier, as of a collector that moves things. */
static void read_barrier(void)
{
	int reads = 0;

	anon_push_out();
	arm(PROT_NONE, PROT_READ);
	for (size_t at = 0; at < b.len; at += 41 * PAGE, reads++)
		block_verify_at(&b, at, PAGE, "behind a read barrier");
	check(faults == reads);
	anon_push_out();
	for (size_t at = 0; at < b.len; at += 41 * PAGE)
		block_verify_at(&b, at, PAGE, "opened pages");
	check(faults == reads);
	disarm();
	block_verify(&b, "the read barrier lifted");
}

static void barred(size_t at, size_t len, bool readable)
{
	int want = readable ? 0 : SIGSEGV;

	check(trap_probe(b.p + at, false) == want);
	check(trap_probe(b.p + at + len - 1, false) == want);
	check(trap_probe(b.p + at, true) == SIGSEGV);
	check(trap_probe(b.p + at + len - 1, true) == SIGSEGV);
}

static void part(size_t at, size_t len, int prot, const char *what)
{
	anon_push_out();
	check(!mprotect(b.p + at, len, prot));
	barred(at, len, prot == PROT_READ);
	block_verify_at(&b, 0, at, what);
	block_verify_at(&b, at + len, b.len - at - len, what);
	anon_push_out();
	barred(at, len, prot == PROT_READ);
	if (prot == PROT_READ)
		block_verify_at(&b, at, len, what);
	check(!mprotect(b.p + at, len, PROT_READ | PROT_WRITE));
	block_verify(&b, what);
	anon_put(b.p + at, b.id, b.gen + 1, at, len);
	anon_verify(b.p + at, b.id, b.gen + 1, at, len, what);
	anon_put(b.p + at, b.id, b.gen, at, len);
}

static void parts(void)
{
	part(0, PAGE, PROT_NONE, "a page to none");
	part(7 * MIB - PAGE, 5 * MIB, PROT_NONE, "a middle to none");
	part(4 * MIB, 8 * MIB, PROT_READ, "chunks read-only");
	part(b.len - 3 * PAGE, 3 * PAGE, PROT_READ, "the end read-only");
}

static void by_syscall(void)
{
	size_t n = 16 * KIB;
	int p[2];

	check(!pipe(p));
	check(!mprotect(b.p, MIB, PROT_NONE));
	errno = 0;
	check(write(p[1], b.p, n) == -1 && errno == EFAULT);
	check(!mprotect(b.p, MIB, PROT_READ));
	check(write(p[1], b.p, n) == (ssize_t)n);
	errno = 0;
	check(read(p[0], b.p + 8 * PAGE, n) == -1 && errno == EFAULT);
	check(!mprotect(b.p, MIB, PROT_READ | PROT_WRITE));
	block_verify(&b, "after EFAULT");
	close(p[0]);
	close(p[1]);
}

/* Zeros owed beside what has another protection: to a chunk nobody touched, and
 * to pages given back. */
static void zeros_beside(int prot)
{
	size_t half = CHUNK / 2, n = 6 * CHUNK;
	unsigned char *p = anon_map(n);

	for (size_t at = half / 2; at + CHUNK <= n; at += CHUNK)
		check(!mprotect(p + at, half, prot));
	for (size_t at = 0; at + CHUNK <= n; at += CHUNK) {
		check(!p[at]);
		p[at] = 7;
		check(!madvise(p + at, half / 2, MADV_DONTNEED));
		anon_is_zero(p + at, half / 2, "given back beside protected pages");
	}
	check(!munmap(p, n));
}

/* Who gets the place of what was protected, and is gone, may use it. */
static void gone_protected(int prot)
{
	size_t n = 5 * MIB;
	unsigned char *p = anon_map(n), *q;

	anon_put(p, 12, 1, 0, n);
	check(!mprotect(p + MIB, 3 * MIB, prot));
	check(!munmap(p, n));
	q = malloc(n);
	check(q);
	anon_put(q, 12, 2, 0, n);
	anon_push_out();
	anon_verify(q, 12, 2, 0, n, "in the place of protected memory");
	free(q);
}

/* malloc'd memory too is protected by debuggers and key stores. */
static void malloc_protected(void)
{
	unsigned char *p = memalign(PAGE, 3 * MIB);

	check(p);
	anon_put(p, 9, 1, 0, 3 * MIB);
	check(!mprotect(p, MIB, PROT_NONE));
	check(trap_probe(p, false) == SIGSEGV);
	anon_push_out();
	check(trap_probe(p + MIB - 1, false) == SIGSEGV);
	anon_verify(p + MIB, 9, 1, MIB, 2 * MIB, "beside a protected part");
	check(!mprotect(p, MIB, PROT_READ | PROT_WRITE));
	anon_verify(p, 9, 1, 0, 3 * MIB, "malloc'd, protected and back");
	free(p);
}

/* How heaps with a reserve work: commit, decommit, commit. */
static void reserved(void)
{
	size_t size = 1024 * MIB, n = 24 * MIB, at = 3 * MIB + PAGE;
	unsigned char *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE |
				MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	check(p != MAP_FAILED);
	check(trap_probe(p, false) == SIGSEGV);
	check(!mprotect(p + at, n, PROT_READ | PROT_WRITE));
	anon_is_zero(p + at, n, "committed");
	anon_put(p + at, 10, 1, 0, n);
	anon_push_out();
	anon_verify(p + at, 10, 1, 0, n, "committed and written");
	check(trap_probe(p + at + n, true) == SIGSEGV);
	check(!mprotect(p + at + n, n, PROT_READ | PROT_WRITE));
	anon_is_zero(p + at + n, n, "committed beside it");
	check(!madvise(p + at, n, MADV_DONTNEED));
	check(!mprotect(p + at, n, PROT_NONE));
	check(trap_probe(p + at, false) == SIGSEGV);
	check(!mprotect(p + at, n, PROT_READ | PROT_WRITE));
	anon_is_zero(p + at, 2 * n, "decommitted and committed");
	check(!munmap(p, size));
}

/* Read-only from the start, then writable. */
static void born_read_only(void)
{
	size_t n = 20 * MIB;
	unsigned char *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE |
				MAP_ANONYMOUS, -1, 0);

	check(p != MAP_FAILED);
	anon_is_zero(p, n, "born read-only");
	check(trap_probe(p + MIB, true) == SIGSEGV);
	check(!mprotect(p, n, PROT_READ | PROT_WRITE));
	anon_put(p, 11, 1, 0, n);
	check(!mprotect(p, n, PROT_READ));
	anon_push_out();
	anon_verify(p, 11, 1, 0, n, "read-only again");
	check(trap_probe(p + n - 1, true) == SIGSEGV);
	check(!munmap(p, n));
}

int main(void)
{
	b = block_map(1, 44 * MIB);
	anon_push_out();
	write_barrier();
	read_barrier();
	parts();
	by_syscall();
	zeros_beside(PROT_READ);
	zeros_beside(PROT_NONE);
	gone_protected(PROT_READ);
	gone_protected(PROT_NONE);
	malloc_protected();
	reserved();
	born_read_only();
	block_verify(&b, "in the end");
	return 0;
}
