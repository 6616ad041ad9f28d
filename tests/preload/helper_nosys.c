/* SPDX-License-Identifier: MIT */
/* helper_nosys.c - runs a command on a kernel that refuses some calls.
 *
 *     helper_nosys [userfaultfd] [io_uring] [move] -- COMMAND [ARG...]
 *
 * Owns nothing; lock: none. A seccomp filter answers EPERM, as container
 * runtimes do: for userfaultfd both ways in (the call, and the ioctl on
 * /dev/userfaultfd), for io_uring its three calls, for move the one ioctl
 * that kernels before 6.8 do not have (those say EINVAL). Not a trap program.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(err) \
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (err))
#define ALLOW	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define UNLESS(value, skip) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)(value), 0, skip)

/* _IO and _IOWR numbers that older kernel headers lack. */
#define NEW_IOCTL	0xaa00u		/* USERFAULTFD_IOC_NEW */
#define MOVE_IOCTL	0xc028aa05u	/* UFFDIO_MOVE */

static struct sock_filter filter[64];
static unsigned short used;

static void add(const struct sock_filter *f, size_t n)
{
	memcpy(filter + used, f, n * sizeof(*f));
	used += n;
}

static void refuse_call(long nr)
{
	const struct sock_filter f[] = {
		LOAD(nr), UNLESS(nr, 1), ANSWER(EPERM),
	};

	add(f, sizeof(f) / sizeof(*f));
}

static void refuse_ioctl(unsigned int req, int err)
{
	const struct sock_filter f[] = {
		LOAD(nr), UNLESS(SYS_ioctl, 3),
		LOAD(args[1]), UNLESS(req, 1), ANSWER(err),
	};

	add(f, sizeof(f) / sizeof(*f));
}

static void refuse(const char *what)
{
	if (!strcmp(what, "userfaultfd")) {
		refuse_call(SYS_userfaultfd);
		refuse_ioctl(NEW_IOCTL, EPERM);
	} else if (!strcmp(what, "io_uring")) {
		refuse_call(SYS_io_uring_setup);
		refuse_call(SYS_io_uring_enter);
		refuse_call(SYS_io_uring_register);
	} else if (!strcmp(what, "move")) {
		refuse_ioctl(MOVE_IOCTL, EINVAL);
	} else {
		fprintf(stderr, "helper_nosys: what is \"%s\"?\n", what);
		exit(99);
	}
}

int main(int argc, char **argv)
{
	const struct sock_filter allow = ALLOW;
	struct sock_fprog prog = { .filter = filter };
	int i;

	for (i = 1; i < argc && strcmp(argv[i], "--"); i++)
		refuse(argv[i]);
	if (i + 1 >= argc)
		return 99;
	add(&allow, 1);
	prog.len = used;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog)) {
		perror("helper_nosys: seccomp");
		return 77;
	}
	execvp(argv[i + 1], argv + i + 1);
	perror(argv[i + 1]);
	return 99;
}
