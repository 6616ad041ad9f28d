/* SPDX-License-Identifier: MIT */
/* signals.c - handlers that touch the region, and the program's own SIGSEGV.
 *
 * Owns the alternate stack; lock: none. (1) A handler may interrupt a fault
 * and fault itself. (2) The program's dispositions, masks and alternate stack
 * are its own. (3) The library's threads never run a handler.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

#include <sys/time.h>

static struct trap t;
static pthread_t mine[3];
static _Atomic int ticks, wrong_thread;
static unsigned char *barred;	/* a page of the program's, PROT_NONE */

static bool my_thread(void)
{
	for (int i = 0; i < 3; i++)
		if (pthread_equal(pthread_self(), mine[i]))
			return true;
	return false;
}

/* Only what is safe here: memory and arithmetic. */
static void tick(int sig)
{
	static uint32_t seed = 1;
	size_t off = trap_random(&seed) % (t.size / PAGE) * PAGE + 8;
	uint64_t w;

	if (!my_thread())
		atomic_store(&wrong_thread, 1);
	memcpy(&w, t.map + off + TRAP_DATA, 8);
	if (w != trap_word(off + TRAP_DATA, t.seed))
		fail("handler: wrong word at %#zx", off + TRAP_DATA);
	atomic_fetch_add(&ticks, 1);
}

static void storm(bool on)
{
	struct itimerval every = { { 0, on ? 7000 : 0 }, { 0, on ? 7000 : 0 } };

	check(!setitimer(ITIMER_REAL, &every, NULL));
}

static void *reader(void *arg)
{
	stack_t ss = { .ss_sp = malloc(256 * KIB), .ss_size = 256 * KIB }, now;

	check(ss.ss_sp && !sigaltstack(&ss, NULL));
	verify_passes(&t, 5, "reader in a storm of signals");
	check(!sigaltstack(NULL, &now));
	check(now.ss_sp == ss.ss_sp && now.ss_size == ss.ss_size);
	return NULL;
}

static void in_a_storm(void)
{
	struct sigaction sa = { .sa_handler = tick,
				.sa_flags = SA_RESTART | SA_ONSTACK };

	mine[0] = mine[1] = mine[2] = pthread_self();
	check(!sigaction(SIGALRM, &sa, NULL));
	check(!pthread_create(&mine[1], NULL, reader, NULL));
	check(!pthread_create(&mine[2], NULL, reader, NULL));
	storm(true);
	verify_passes(&t, 3, "main thread in a storm of signals");
	while (atomic_load(&ticks) < 30)
		verify_random(&t, 10, 1, "until enough signals came");
	check(!pthread_join(mine[1], NULL));
	check(!pthread_join(mine[2], NULL));
	storm(false);
	if (atomic_load(&wrong_thread))
		fail("a handler ran on a thread the program did not make");
}

static void own_segv(int sig, siginfo_t *si, void *uc)
{
	siglongjmp(trap_jump, si->si_addr == barred ? 7 : 8);
}

static void sigsegv_is_the_programs(void)
{
	struct sigaction sa = { .sa_sigaction = own_segv,
				.sa_flags = SA_SIGINFO }, now;
	sigset_t all, old;
	int r;

	barred = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	check(barred != MAP_FAILED);
	check(!sigaction(SIGSEGV, &sa, NULL));
	verify_passes(&t, 2, "with a handler for SIGSEGV");
	r = sigsetjmp(trap_jump, 1);
	if (!r)
		(void)*(volatile unsigned char *)barred;
	check(r == 7);
	check(!sigaction(SIGSEGV, NULL, &now));
	check(now.sa_sigaction == own_segv);
	check(signal(SIGBUS, SIG_DFL) == SIG_DFL);
	sigfillset(&all);
	check(!pthread_sigmask(SIG_SETMASK, &all, &old));
	verify_passes(&t, 2, "with every signal blocked");
	check(!pthread_sigmask(SIG_SETMASK, &old, NULL));
	signal(SIGSEGV, SIG_DFL);
}

int main(void)
{
	trap_start(&t);
	verify_passes(&t, 2, "before");
	in_a_storm();
	sigsegv_is_the_programs();
	return trap_done(&t);
}
