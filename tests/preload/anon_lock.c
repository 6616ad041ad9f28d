/* SPDX-License-Identifier: MIT */
/* anon_lock.c - mlock, mlockall, mincore and msync on blocks that are paged.
 *
 * Owns its blocks; lock: none. (1) A lock within the budget works, is real, and
 * the bytes are right beside evictions of the rest. (2) More than the budget fails
 * as the kernel fails, and the program goes on. (3) What was protected, before the
 * heap was paged or after, and what was mapped over a block, stays right when all
 * is unlocked, and in a child. (4) mincore's answers are 0 or 1; msync does nothing.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K OFFLOAD_WINDOW=8M */
/* needs: regions evictions */
/* variants: plain move copy hints */
#include "anon.h"

#define SIZE	(40 * MIB)
#define PART	(4 * MIB)

static struct block b, early;

static bool kernel_error(void)
{
	return errno == ENOMEM || errno == EAGAIN || errno == EPERM;
}

static bool may_refuse(void)
{
	return trap_mode_is("torture") && kernel_error();
}

static void settle(const char *what)
{
	anon_push_out_fast();
	block_verify(&b, what);
}

static long locked(void)
{
	return trap_status("VmLck") * (long)KIB;
}

static void a_part(size_t at, size_t len, const char *what)
{
	long before = locked();

	anon_push_out_fast();
	if (mlock(b.p + at, len)) {
		if (!may_refuse())
			fail("%s: mlock: %s", what, strerror(errno));
		return;
	}
	if (locked() < before + (long)len)
		fail("%s: %ld bytes locked before, %ld now", what, before, locked());
	settle(what);
	anon_put(b.p + at, b.id, b.gen, at, len);
	check(madvise(b.p + at, PAGE, MADV_DONTNEED) == -1 && errno == EINVAL);
	settle(what);
	check(!munlock(b.p + at, len));
	settle(what);
}

static void parts(void)
{
	a_part(3 * MIB, PART, "locked part");
	a_part(9 * MIB + PAGE, PART - 3 * PAGE, "locked odd part");
	if (mlock2(b.p + 20 * MIB, PART, MLOCK_ONFAULT))
		check(errno == EINVAL || errno == ENOSYS || may_refuse());
	settle("locked on fault");
	check(!munlock(b.p, b.len));
	check(mlock2(b.p, PAGE, 99) == -1 && errno == EINVAL);
}

static void beyond(void)
{
	if (mlock(b.p, b.len))
		check(kernel_error());
	else if (trap_paged())
		fail("mlock of more than the budget was granted");
	settle("more than the budget asked for");
	check(!munlock(b.p, b.len));
	settle("after that");
}

static void everything(void)
{
	struct block late;

	if (mlockall(MCL_CURRENT))
		check(kernel_error());
	settle("mlockall");
	check(!munlockall());
	if (mlockall(MCL_FUTURE | MCL_ONFAULT))
		return;
	late = block_map(2, 3 * MIB);
	settle("mlockall, MCL_FUTURE");
	block_verify(&late, "mapped under MCL_FUTURE");
	check(!munlockall());
	settle("unlocked");
	block_verify(&late, "unlocked");
	check(!munmap(late.p, late.len));
}

/* Protected pages are kept in place; unlocking all must not move them. */
static void protected_and_unlocked(void)
{
	size_t at = 6 * MIB + PAGE;

	anon_push_out_fast();
	check(!mprotect(b.p + at, PART, PROT_READ));
	check(!mprotect(b.p + 15 * MIB, PART, PROT_NONE));
	for (int i = 0; i < 3; i++) {
		check(!munlock(b.p, b.len) || errno == ENOMEM);
		check(!munlockall());
		anon_push_out_fast();
		block_verify_at(&b, 0, 15 * MIB, "protected and unlocked");
		block_verify_at(&b, 19 * MIB, b.len - 19 * MIB, "and beside it");
		check(trap_probe(b.p + at, true) == SIGSEGV);
		check(trap_probe(b.p + 15 * MIB, false) == SIGSEGV);
	}
	check(!mprotect(b.p, b.len, PROT_READ | PROT_WRITE));
	settle("protected, unlocked and back");
	block_fill(&b, b.gen + 1);
	settle("and written");
}

/* Protected while all was the kernel's still. */
static void early_barred(bool undo)
{
	for (int i = 0; i < 2; i++) {
		anon_push_out_fast();
		block_verify_at(&early, 0, MIB, "protected early");
		block_verify_at(&early, 5 * MIB, 7 * MIB, "protected early");
		check(trap_probe(early.p + 2 * MIB, false) == SIGSEGV);
		check(trap_probe(early.p + 8 * MIB, true) == SIGSEGV);
	}
	if (!undo)
		return;
	check(!mprotect(early.p, early.len, PROT_READ | PROT_WRITE));
	block_verify(&early, "protected early, and back");
	block_fill(&early, early.gen + 1);
	anon_push_out_fast();
	block_verify(&early, "and written");
}

static void early_in_a_child(void)
{
	pid_t pid = fork();

	if (!pid) {
		early_barred(true);
		_exit(0);
	}
	early_barred(false);
	trap_wait(pid, "child with protected memory");
	early_barred(true);
}

/* A whole chunk of the program's own inside a block. */
static void mapped_over_and_unlocked(void)
{
	unsigned char *p = b.p + 8 * MIB;

	check(mmap(p, 6 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		   MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	anon_put(p, 9, 1, 0, 6 * MIB);
	for (int i = 0; i < 3; i++) {
		check(!munlockall());
		anon_push_out_fast();
		anon_verify(p, 9, 1, 0, 6 * MIB, "mapped over and unlocked");
		block_verify_at(&b, 0, 8 * MIB, "below what was mapped over");
		block_verify_at(&b, 14 * MIB, b.len - 14 * MIB, "above it");
	}
	anon_put(p, b.id, b.gen, 8 * MIB, 6 * MIB);
	settle("what was mapped over, written");
}

static void looked_at(void)
{
	static unsigned char vec[SIZE / PAGE + 1];

	for (int i = 0; i < 2; i++) {
		memset(vec, 0xee, sizeof(vec));
		check(!mincore(b.p, b.len, vec));
		for (size_t k = 0; k < SIZE / PAGE; k++)
			if (vec[k] & 0xfe)
				fail("page %zu: mincore says %#x", k, vec[k]);
		check(vec[SIZE / PAGE] == 0xee);
		check(!msync(b.p, b.len, MS_SYNC) && !msync(b.p, b.len, MS_ASYNC));
		settle("mincore and msync");
	}
	check(mincore(b.p + 1, PAGE, vec) == -1 && errno == EINVAL);
	check(msync(b.p + 1, PAGE, MS_SYNC) == -1 && errno == EINVAL);
}

int main(void)
{
	struct rlimit rl;

	check(!getrlimit(RLIMIT_MEMLOCK, &rl));
	if (geteuid() && rl.rlim_cur < 2 * PART)
		skip("no more than %lu bytes may be locked here",
		     (unsigned long)rl.rlim_cur);
	early = block_map(3, 12 * MIB);
	check(!mprotect(early.p + MIB, 4 * MIB, PROT_NONE));
	check(!mprotect(early.p + 7 * MIB, 3 * MIB, PROT_READ));
	b = block_map(1, SIZE);
	settle("before");
	early_in_a_child();
	parts();
	beyond();
	everything();
	protected_and_unlocked();
	mapped_over_and_unlocked();
	looked_at();
	return 0;
}
