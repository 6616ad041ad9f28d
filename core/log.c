/* SPDX-License-Identifier: MIT */
/* log.c - messages. Owns nothing but the pid prefix.
 *
 * (1) Only standard error, only by write(2): no stdio, no malloc (R8).
 * (2) Library threads have a descriptor table of their own in which 2 is not
 *     the program's stderr; they borrow the program's for one write.
 * (3) The end is SIGABRT as the kernel does it: a handler of the program's would
 *     run on this thread, and wait for what only this thread could bring.
 * Lock: none; a line is one write.
 */
#include "core/core_int.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int borrow_stderr(void)
{
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int fd = -1;

	if (pidfd >= 0) {
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, 2, 0);
		off_sys_close(pidfd);
	}
	if (fd < 0)
		fd = off_sys_open("/proc/self/fd/2", O_WRONLY | O_CLOEXEC | O_NOCTTY, 0);
	return fd;
}

static void put_line(const char *line, size_t len)
{
	int fd = library_thread() ? borrow_stderr() : 2;

	if (fd < 0)
		return;
	if (off_sys_write(fd, line, len) < 0)
		return;		/* nobody to tell */
	if (fd != 2)
		off_sys_close(fd);
}

static void OFF_PRINTF(1, 0) vlog(const char *fmt, va_list ap)
{
	char line[512];
	int saved = errno;
	int n = snprintf(line, sizeof(line), "offload[%d]: ", (int)getpid());
	int m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	size_t len = (size_t)n + (m < 0 ? 0 : (size_t)m);

	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	put_line(line, len);
	errno = saved;
}

void off_log(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(fmt, ap);
	va_end(ap);
}

void off_verbose(int level, const char *fmt, ...)
{
	va_list ap;

	if (off_opt.verbose < (uint64_t)level)
		return;
	va_start(ap, fmt);
	vlog(fmt, ap);
	va_end(ap);
}

/* (3); as the kernel takes it, 64 bits. */
static _Noreturn void stop(void)
{
	struct { void (*handler)(int); unsigned long flags; void *restorer; uint64_t mask; }
		plain = { .handler = SIG_DFL };
	uint64_t abrt = 1ull << (SIGABRT - 1);

	syscall(SYS_rt_sigaction, SIGABRT, &plain, NULL, sizeof(uint64_t));
	syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &abrt, NULL, sizeof(uint64_t));
	syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), SIGABRT);
	for (;;)	/* a filter forbids it */
		syscall(SYS_exit_group, 128 + SIGABRT);
}

_Noreturn void off_fatal(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(fmt, ap);
	va_end(ap);
	stop();
}
