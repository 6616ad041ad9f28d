/* SPDX-License-Identifier: MIT */
/* watch.c - library threads that must not end, and whether they did.
 *
 * A thread of ours ends only if the kernel ends it: a filter of system calls that
 * the program laid over all of its threads (SECCOMP_RET_KILL_THREAD). Who waits for it
 * would wait for ever; it is told instead (R4). Owns the table. Lock: none.
 */
#include "core/core_int.h"

#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 32		/* keeper, pager, readers, workers: 14 */

static struct { _Atomic int tid; const char *name; } thread[THREADS];
static _Atomic int threads;

void watch_this(const char *name)
{
	int i = atomic_fetch_add(&threads, 1);

	if (i >= THREADS)
		return;
	thread[i].name = name;
	atomic_store(&thread[i].tid, (int)syscall(SYS_gettid));
}

void watch_no_more(void)
{
	int me = (int)syscall(SYS_gettid);

	for (int i = 0; i < THREADS; i++)
		if (atomic_load(&thread[i].tid) == me)
			atomic_store(&thread[i].tid, 0);
}

void watch_reset(void)
{
	for (int i = 0; i < THREADS; i++)
		atomic_store(&thread[i].tid, 0);
	atomic_store(&threads, 0);
}

/* Any other error is a filter's, and says nothing. */
void watch_look(void)
{
	pid_t pid = (pid_t)syscall(SYS_getpid);

	for (int i = 0; i < THREADS; i++) {
		int tid = atomic_load(&thread[i].tid);

		if (tid && syscall(SYS_tgkill, pid, tid, 0) && errno == ESRCH)
			off_fatal("the library's thread %s was ended, by a filter of system calls (seccomp) that kills threads, likely: what it served cannot be had any more, and the program is stopped rather than left to wait; let the filter end the process or return an error, or run with OFFLOAD_PAGER=off",
				  thread[i].name);
	}
}
