/* SPDX-License-Identifier: MIT */
/* mlock.c - locking a part that fits the budget, and more than fits.
 *
 * Owns nothing; lock: none. (1) A lock within the budget works, and the bytes
 * are right under pressure from the rest. (2) Beyond the budget it fails as
 * the kernel fails (ENOMEM, EAGAIN, EPERM), and engines then go on.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_WINDOW=8M */
/* needs: regions evictions */
#include "trap.h"

static struct trap t;
static size_t part = 8 * MIB;

static bool kernel_error(void)
{
	return errno == ENOMEM || errno == EAGAIN || errno == EPERM;
}

/* Torture's budget may be smaller than the part. */
static bool torture_refused(void)
{
	return trap_mode_is("torture") && kernel_error();
}

static void limits(void)
{
	struct rlimit rl;

	check(!getrlimit(RLIMIT_MEMLOCK, &rl));
	if (geteuid() && rl.rlim_cur < 2 * part)
		part = rl.rlim_cur / 2 & ~(PAGE - 1);
	if (part < PAGE)
		skip("no memory may be locked here");
}

static void within_the_budget(void)
{
	if (mlock(t.map + 4 * MIB, part)) {
		if (torture_refused())
			return;
		fail("mlock of %zu bytes: %s", part, strerror(errno));
	}
	verify_passes(&t, 3, "a part locked");
	check(!munlock(t.map + 4 * MIB, part));
	verify_passes(&t, 2, "unlocked");
	if (mlock2(t.map + MIB + PAGE, part / 2, MLOCK_ONFAULT))
		check(errno == EINVAL || errno == ENOSYS || torture_refused());
	verify_passes(&t, 2, "locked on fault");
	check(!munlock(t.map, t.size));
	check(mlock2(t.map, PAGE, 99) == -1 && errno == EINVAL);
}

static void beyond_the_budget(void)
{
	int r = mlock(t.map, t.size);

	if (r)
		check(kernel_error());
	else if (trap_paged())
		fail("mlock of twice the budget was granted");
	verify_passes(&t, 2, "more than the budget asked for");
	check(!munlock(t.map, t.size));
	verify_all(&t, "after that");
}

static void everything(void)
{
	if (mlockall(MCL_CURRENT))
		check(kernel_error());
	verify_all(&t, "mlockall");
	check(!munlockall());
	if (mlockall(MCL_CURRENT | MCL_ONFAULT))
		check(kernel_error() || errno == EINVAL);
	verify_all(&t, "mlockall on fault");
	check(!munlockall());
}

/* A region made while MCL_FUTURE holds. */
static void future(void)
{
	if (mlockall(MCL_FUTURE | MCL_ONFAULT))
		return;
	trap_unmap(&t);
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 2, "mapped under MCL_FUTURE");
	check(!munlockall());
	verify_passes(&t, 2, "MCL_FUTURE over");
}

int main(void)
{
	trap_start(&t);
	limits();
	verify_passes(&t, 2, "before");
	within_the_budget();
	beyond_the_budget();
	everything();
	future();
	return trap_done(&t);
}
