/* SPDX-License-Identifier: MIT */
/* vmm_gate.c - work is held back while homes move.
 *
 *   OPEN --close--> CLOSING --nobody inside--> CLOSED --open--> OPEN
 *
 * (1) Whoever queues work counts himself in before he looks whether the gate is closed,
 *     and out when the driver has taken it. Each thread counts in a line of its own.
 * (2) CLOSED means: nobody is inside and everything that was queued is done (R3). First
 *     everything is waited for with the gate open; if nobody was inside then and nobody
 *     came since, that is still so. Only a program that never stops queueing is drained
 *     while it is held: a host function of its own may wait for a thread of its own.
 * (3) Nobody waits for ever for one who stays inside: closing fails, and whoever wanted
 *     it does without.
 * (4) While a stream captures nothing is drained: that would end the capture.
 * Lock: none; who closes has the turn (vmm_int.h).
 */
#include "core/vmm_int.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LINES	64u
#define TRIES	3
#define PATIENCE_NS 500000000ull	/* for one who is inside */

struct line {
	_Alignas(64) _Atomic uint64_t in, out;
};

_Atomic bool vmm_on;

static struct line lines[LINES];
static _Atomic uint32_t closed;		/* a futex */
static _Atomic int closed_for;		/* a device */
static _Atomic int captures;
static _Atomic uint32_t next_line;
static _Thread_local uint32_t mine __attribute__((tls_model("initial-exec")));

static struct line *line(void)
{
	if (!mine)
		mine = atomic_fetch_add(&next_line, 1) % LINES + 1;
	return &lines[mine - 1];
}

static __attribute__((noinline)) void held_back(struct line *l)
{
	uint64_t since = now_ns();
	int saved = errno;

	do {
		atomic_fetch_add(&l->out, 1);
		syscall(SYS_futex, &closed, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
		atomic_fetch_add(&l->in, 1);
	} while (atomic_load(&closed));
	errno = saved;
	device_stat(atomic_load(&closed_for), SD_STALL, (int64_t)(now_ns() - since));
}

void vmm_gate_in(void)
{
	struct line *l = line();

	atomic_fetch_add(&l->in, 1);
	if (__builtin_expect(atomic_load(&closed), 0))
		held_back(l);
}

void vmm_gate_out(void)
{
	atomic_fetch_add(&line()->out, 1);
}

void vmm_capture(int n)
{
	if (atomic_fetch_add(&captures, n) + n < 0)
		atomic_fetch_add(&captures, -n);
}

bool vmm_captures(void)
{
	return atomic_load(&captures) > 0;
}

static uint64_t left(void)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < LINES; i++)
		n += atomic_load(&lines[i].out);
	return n;
}

static uint64_t came(void)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < LINES; i++)
		n += atomic_load(&lines[i].in);
	return n;
}

void vmm_gate_open(void)
{
	atomic_store(&closed, 0);
	syscall(SYS_futex, &closed, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static bool empty(void)
{
	uint64_t end = now_ns() + PATIENCE_NS;
	struct timespec t = { .tv_nsec = 20000 };

	/* out first: who comes between the two is still seen as inside. */
	for (unsigned int i = 0; ; i++) {
		uint64_t out = left();

		if (out == came())
			return true;
		if (i < 100)
			sched_yield();
		else
			nanosleep(&t, NULL);
		if (i % 64 == 63 && now_ns() > end)
			return false;
	}
}

int vmm_gate_close(int dev, uintptr_t ctx)
{
	int err = 0;

	atomic_store(&closed_for, dev);
	for (int i = 0; i <= TRIES; i++) {
		uint64_t before = left();

		if (vmm_captures())
			return -EBUSY;
		err = vmm_ops->drain(ctx);
		if (err)
			return err;
		atomic_store(&closed, 1);
		if (!empty() || vmm_captures()) {
			vmm_gate_open();
			return -EBUSY;
		}
		if (came() == before)
			return 0;
		if (i < TRIES)
			vmm_gate_open();
	}
	err = vmm_ops->drain(ctx);
	if (err)
		vmm_gate_open();
	return err;
}

/* Its other threads are not in the child. */
void vmm_gate_child(void)
{
	atomic_store(&vmm_on, false);
	atomic_store(&vmm_stages, false);
	atomic_store(&closed, 0);
	atomic_store(&captures, 0);
	for (uint32_t i = 0; i < LINES; i++)
		atomic_store(&lines[i].out, atomic_load(&lines[i].in));
}
