/* SPDX-License-Identifier: MIT */
/* jumps.c - whoever waits for a page leaves: by longjmp, by cancellation, by the
 * end of its thread, or the memory goes while it waits.
 *
 * Owns a file's memory and blocks; lock: none. (1) A thread that jumps out of a
 * handler which interrupted a fault finds right bytes ever after. (2) A thread
 * cancelled or ended in a fault leaves locks, stacks and memory usable: its stack
 * may lie in a block, and so may a robust lock that it has just taken. (3) Memory that
 * is unmapped or freed under a reader is SIGSEGV, old bytes or zeros; nothing else
 * changes, and nobody hangs. (4) A handler for SIGSEGV that lifts a protection is
 * asked once for each access that was barred. (5) Code that was written into a
 * block and evicted runs.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
/* variants: plain move copy hints */
#include "anon.h"

#include <sched.h>
#include <sys/time.h>

#define LEN	(24 * MIB)

static struct trap t;
static struct block b;

/* ---- longjmp out of a handler ---------------------------------------------------- */

static sigjmp_buf out;
static volatile sig_atomic_t jumps, armed;

static void jump(int sig)
{
	if (armed)
		siglongjmp(out, 1);
}

static void walk_both(uint32_t *seed)
{
	size_t at = trap_random(seed) % (t.size / CHUNK) * CHUNK;

	verify(&t, at, PAGE, "before a jump");
	block_verify_at(&b, at % LEN, PAGE, "before a jump");
	anon_put(b.p + at % LEN, b.id, b.gen, at % LEN, PAGE);
}

static void out_of_handlers(void)
{
	struct itimerval every = { { 0, 3000 }, { 0, 3000 } }, none = { 0 };
	struct sigaction sa = { .sa_handler = jump };
	static uint32_t seed = 1;

	check(!sigaction(SIGALRM, &sa, NULL));
	check(!setitimer(ITIMER_REAL, &every, NULL));
	if (sigsetjmp(out, 1))
		jumps++;
	armed = 1;
	while (jumps < 60)
		walk_both(&seed);
	armed = 0;
	check(!setitimer(ITIMER_REAL, &none, NULL));
	signal(SIGALRM, SIG_DFL);
	verify_all(&t, "after jumps");
	block_verify(&b, "after jumps");
}

/* ---- threads that end in a fault ---------------------------------------------------- */

static void *endless(void *arg)
{
	const struct block *x = anon_ballast();
	int old;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
	for (;;)
		for (size_t at = 0; at < x->len; at += PAGE)
			(void)*(volatile unsigned char *)(x->p + at);
	return NULL;
}

static void cancelled(void)
{
	pthread_t th;

	for (int i = 0; i < 10; i++) {
		check(!pthread_create(&th, NULL, endless, NULL));
		block_verify_random(&b, 8, i, "beside who is to be cancelled");
		check(!pthread_cancel(th) && !pthread_join(th, NULL));
	}
	block_verify(anon_ballast(), "read by threads that were cancelled");
}

static void *deep(void *arg)
{
	unsigned char here[96 * KIB];

	anon_put(here, 5, 1, 0, sizeof(here));
	anon_push_out_fast();
	anon_verify(here, 5, 1, 0, sizeof(here), "thread's stack in a block");
	return NULL;
}

/* The kernel clears a word on the stack when the thread has ended. */
static void stacks_in_blocks(void)
{
	size_t n = 512 * KIB;
	unsigned char *stack[6];
	pthread_attr_t a;
	pthread_t th[6];

	check(!pthread_attr_init(&a));
	for (int i = 0; i < 6; i++) {
		stack[i] = memalign(PAGE, n);
		check(stack[i] && !pthread_attr_setstack(&a, stack[i], n));
		check(!pthread_create(&th[i], &a, deep, NULL));
	}
	for (int i = 0; i < 6; i++)
		check(!pthread_join(th[i], NULL));
	for (int i = 0; i < 6; i++)
		free(stack[i]);
	check(!pthread_attr_destroy(&a));
}

static void *die_with(void *lock)
{
	check(!pthread_mutex_lock(lock));
	if (getenv("TRAP_ROBUST") || !(trap_paged() || trap_mode_is("torture")))
		anon_push_out_fast();
	return NULL;
}

/* The kernel marks the lock when its owner ends, but not where its page is away
 * by then (TRAP_ROBUST=1 shows who waits for ever). */
static void robust(void)
{
	unsigned char *p = calloc(1, 5 * MIB);
	pthread_mutex_t *lock = (void *)(p + 3 * MIB + 64);
	pthread_mutexattr_t ma;
	pthread_t th;

	check(p && !pthread_mutexattr_init(&ma));
	check(!pthread_mutexattr_setrobust(&ma, PTHREAD_MUTEX_ROBUST));
	check(!pthread_mutex_init(lock, &ma));
	for (int i = 0; i < 3; i++) {
		anon_push_out_fast();
		check(!pthread_create(&th, NULL, die_with, lock));
		check(!pthread_join(th, NULL));
		anon_push_out_fast();
		check(pthread_mutex_lock(lock) == EOWNERDEAD);
		check(!pthread_mutex_consistent(lock) && !pthread_mutex_unlock(lock));
	}
	free(p);
}

/* ---- memory that goes under a reader --------------------------------------------------- */

static _Atomic(unsigned char *) prey;
static _Atomic int stop, was_there, hunters;
static __thread sigjmp_buf back_to;
static __thread volatile sig_atomic_t hunting;

static void gone(int sig)
{
	if (!hunting)
		fail("SIGSEGV outside of what was unmapped");
	siglongjmp(back_to, 1);
}

/* A word of what is there now; false: nothing is. */
static bool read_prey(size_t at, uint64_t *w)
{
	unsigned char *p;

	if (!atomic_load(&prey)) {
		sched_yield();
		return false;
	}
	atomic_fetch_add(&hunters, 1);
	hunting = 1;
	p = sigsetjmp(back_to, 1) ? NULL : atomic_load(&prey);
	if (p)
		*w = *(volatile uint64_t *)(p + at);
	hunting = 0;
	atomic_fetch_sub(&hunters, 1);
	return p;
}

/* Old words, zeros, or what a later block has: whole words of ours. */
static void *block_hunter(void *arg)
{
	while (!atomic_load(&stop))
		for (size_t at = 0; at < 8 * MIB; at += 61 * PAGE) {
			uint64_t w;

			if (!read_prey(at, &w))
				break;
			if (w && w != anon_word(40, 1, at))
				fail("%016llx at %#zx of what goes",
				     (unsigned long long)w, at);
			atomic_fetch_add(&was_there, 1);
		}
	return NULL;
}

static void *file_hunter(void *arg)
{
	uint32_t seed = 7;

	while (!atomic_load(&stop)) {
		size_t at = trap_random(&seed) % (t.size / PAGE) * PAGE + 512;
		uint64_t w;

		if (!read_prey(at, &w))
			continue;
		if (w != trap_word(at, t.seed))
			fail("%016llx at %#zx of a file that goes",
			     (unsigned long long)w, at);
		atomic_fetch_add(&was_there, 1);
	}
	return NULL;
}

static void begin_hunt(pthread_t th[2], void *(*how)(void *))
{
	struct sigaction sa = { .sa_handler = gone, .sa_flags = SA_NODEFER };

	atomic_store(&stop, 0);
	atomic_store(&was_there, 0);
	check(!sigaction(SIGSEGV, &sa, NULL));
	for (int i = 0; i < 2; i++)
		check(!pthread_create(&th[i], NULL, how, NULL));
}

static void show(unsigned char *p, int enough)
{
	atomic_store(&prey, p);
	while (atomic_load(&was_there) < enough)
		sched_yield();
}

/* What is mapped next may lie at the same place: nobody may look there still. */
static void hide(void)
{
	atomic_store(&prey, NULL);
	while (atomic_load(&hunters) > 0)
		sched_yield();
}

static void end_hunt(pthread_t th[2])
{
	atomic_store(&stop, 1);
	for (int i = 0; i < 2; i++)
		check(!pthread_join(th[i], NULL));
	signal(SIGSEGV, SIG_DFL);
	block_verify(&b, "after what went");
}

static void goes_under_readers(bool heap)
{
	pthread_t th[2];

	begin_hunt(th, block_hunter);
	for (int i = 0; i < 8; i++) {
		struct block x = heap ? block_new(40, 8 * MIB) :
			block_map(40, 8 * MIB);

		anon_push_out_fast();
		show(x.p, 20 * (i + 1));
		if (heap)
			free(x.p);
		else
			check(!munmap(x.p, x.len));
		block_verify_random(&b, 6, i, "beside what went");
		hide();
	}
	end_hunt(th);
}

static void file_goes_under_readers(void)
{
	pthread_t th[2];

	begin_hunt(th, file_hunter);
	for (int i = 0; i < 6; i++) {
		unsigned char *p = trap_map_at(&t, t.size, 0, PROT_READ, MAP_SHARED);

		show(p, 15 * (i + 1));
		check(!munmap(p, t.size));
		hide();
	}
	end_hunt(th);
}

/* ---- a handler that lifts a protection from a file's memory ------------------------------ */

static volatile sig_atomic_t lifts;
static unsigned char *lifted;

static void lift(int sig, siginfo_t *si, void *uc)
{
	unsigned char *at = (void *)((uintptr_t)si->si_addr & ~(PAGE - 1));

	if (at < lifted || at >= lifted + t.size || si->si_code != SEGV_ACCERR)
		fail("SIGSEGV at %p, code %d", si->si_addr, si->si_code);
	lifts++;
	if (mprotect(at, 16 * PAGE, PROT_READ))
		fail("mprotect in a handler: %s", strerror(errno));
}

static void lifted_by_handler(void)
{
	struct sigaction sa = { .sa_sigaction = lift, .sa_flags = SA_SIGINFO };

	lifted = trap_map_at(&t, t.size, 0, PROT_READ, MAP_SHARED);
	verify_at(&t, lifted, 0, t.size, "before it is barred");
	check(!sigaction(SIGSEGV, &sa, NULL));
	check(!mprotect(lifted, t.size, PROT_NONE));
	for (size_t at = 0; at < t.size; at += 4 * MIB)
		verify_at(&t, lifted + at, at, 16 * PAGE, "lifted by a handler");
	check(lifts == TRAP_SIZE / (4 * MIB));
	check(!mprotect(lifted, t.size, PROT_READ));
	for (int i = 0; i < 2; i++)
		verify_at(&t, lifted, 0, t.size, "lifted");
	check(lifts == TRAP_SIZE / (4 * MIB));
	signal(SIGSEGV, SIG_DFL);
	check(!munmap(lifted, t.size));
}

/* ---- code in a block ------------------------------------------------------------------------ */

#ifdef __x86_64__
/* mov eax, n; ret */
static void put_code(unsigned char *p, uint32_t n)
{
	p[0] = 0xb8;
	memcpy(p + 1, &n, 4);
	p[5] = 0xc3;
}

static void run_code(const struct block *x, uint32_t more)
{
	for (size_t at = 0; at < x->len; at += 64 * KIB) {
		uint32_t (*f)(void);
		void *p = x->p + at;

		memcpy(&f, &p, sizeof(f));
		if (f() != at + more)
			fail("code at %#zx of a block", at);
	}
}

static void code(void)
{
	struct block x = block_map(50, 9 * MIB);

	for (uint32_t round = 1; round < 3; round++) {
		for (size_t at = 0; at < x.len; at += 64 * KIB)
			put_code(x.p + at, (uint32_t)at + round);
		anon_push_out_fast();
		if (mprotect(x.p, x.len, PROT_READ | PROT_EXEC)) {
			check(errno == EACCES || errno == EPERM);
			break;
		}
		run_code(&x, round);
		anon_push_out_fast();
		run_code(&x, round);
		check(!mprotect(x.p, x.len, PROT_READ | PROT_WRITE));
	}
	check(!munmap(x.p, x.len));
}
#else
static void code(void)
{
}
#endif

int main(void)
{
	trap_start(&t);
	b = block_map(1, LEN);
	verify_all(&t, "before");
	anon_push_out();
	out_of_handlers();
	cancelled();
	stacks_in_blocks();
	robust();
	goes_under_readers(false);
	goes_under_readers(true);
	file_goes_under_readers();
	lifted_by_handler();
	code();
	block_verify(&b, "in the end");
	verify_all(&t, "in the end");
	return trap_done(&t);
}
