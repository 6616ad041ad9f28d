/* SPDX-License-Identifier: MIT */
/* process.c - the library's constructor, forks that run no atfork handlers,
 * and the ways out.
 *
 * fork, daemon and forkpty of glibc run the handlers core/ registers with
 * pthread_atfork; _Fork and clone do not. A raw system call reaches nobody:
 * its child finds no region at all (MADV_DONTFORK).
 */
#include "interpose/cuda_int.h"
#include "interpose/interpose.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

extern char **environ;

AT_START void *real_symbol(const char *name)
{
	return dlsym_next(name);
}

__attribute__((constructor)) static AT_START void begin(void)
{
	heap_begin();
	if (core_init(environ) && core_strict())
		syscall(SYS_exit_group, 2);
	cuda_begin();
}

__attribute__((destructor)) static AT_START void end(void)
{
	core_leave();
	core_exit();
}

EXPORT pid_t _Fork(void)
{
	static pid_t (*real)(void);
	pid_t pid;

	if (!real)
		real = real_symbol("_Fork");
	core_fork_prepare();
	pid = real();
	if (pid)
		core_fork_parent();
	else
		core_fork_child();
	return pid;
}

struct child { int (*fn)(void *); void *arg; };

/* On the child's own stack; the struct is its copy of the parent's. */
static int in_child(void *arg)
{
	struct child c = *(struct child *)arg;

	core_fork_child();
	return c.fn(c.arg);
}

EXPORT int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	static int (*real)(int (*)(void *), void *, int, void *, ...);
	struct child c = { fn, arg };
	pid_t *parent_tid, *child_tid;
	void *tls;
	va_list ap;
	int pid;

	va_start(ap, arg);
	parent_tid = va_arg(ap, pid_t *);
	tls = va_arg(ap, void *);
	child_tid = va_arg(ap, pid_t *);
	va_end(ap);
	if (!real)
		real = real_symbol("clone");
	if (flags & CLONE_VM)
		return real(fn, stack, flags, arg, parent_tid, tls, child_tid);
	core_fork_prepare();
	pid = real(in_child, stack, flags, &c, parent_tid, tls, child_tid);
	core_fork_parent();
	return pid;
}

EXPORT _Noreturn void _exit(int status)
{
	core_exit();
	for (;;)
		syscall(SYS_exit_group, status);
}

EXPORT _Noreturn void _Exit(int status)
{
	_exit(status);
}
