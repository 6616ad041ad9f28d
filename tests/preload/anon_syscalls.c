/* SPDX-License-Identifier: MIT */
/* anon_syscalls.c - the kernel reads and writes evicted blocks for a program.
 *
 * Owns scratch files and its blocks; lock: none. (1) Whatever takes a pointer
 * takes one into a block, to read from or to write to, and no EFAULT comes
 * back. (2) What the kernel wrote stays, evictions after. (3) Locks, signal
 * stacks and thread stacks may lie in a block.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
#include "anon.h"

#include <sys/sendfile.h>
#include <sys/socket.h>
#include <ucontext.h>

#define SIZE	(48 * MIB)

static struct block b;			/* page aligned */
static unsigned char back[MIB] __attribute__((aligned(4096)));

static int scratch(int flags)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/trap.anon.%d", trap_dir(),
		 (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0600);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static void full(ssize_t got, size_t want, const char *what)
{
	if (got != (ssize_t)want)
		fail("%s: %zd of %zu bytes, %s", what, got, want,
		     strerror(errno));
}

/* Spoils a part, so that it shows when it does not come back. */
static void clear_part(size_t at, size_t n)
{
	memset(b.p + at, 0xee, n);
	block_verify(anon_ballast(), "ballast");
}

static void to_and_from_file(void)
{
	int fd = scratch(0);
	size_t at, n = 3 * MIB;

	check(fd >= 0);
	anon_push_out();
	for (at = 0; at < SIZE; at += n)
		full(write(fd, b.p + at, n), n, "write");
	for (at = 0; at < SIZE; at += n) {
		full(pread(fd, back, MIB, at), MIB, "pread");
		anon_verify(back, b.id, b.gen, at, MIB, "written");
	}
	anon_push_out();
	check(!lseek(fd, 0, SEEK_SET));
	memset(b.p, 0xee, SIZE / 3);
	full(read(fd, b.p, SIZE / 2), SIZE / 2, "read");
	block_verify(&b, "read");
	for (at = 5; at + n < SIZE; at += 3 * n) {
		clear_part(at, n - 3);
		full(pread(fd, b.p + at, n - 3, at), n - 3, "pread, odd");
	}
	block_verify(&b, "pread at odd places");
	close(fd);
}

static size_t bytes_of(const struct iovec *iov, int n)
{
	size_t total = 0;

	while (n--)
		total += iov[n].iov_len;
	return total;
}

/* Pieces far apart, in an order of their own. */
static void vectors(void)
{
	struct iovec iov[24];
	int fd = scratch(0);

	check(fd >= 0);
	for (int i = 0; i < 24; i++)
		iov[i] = (struct iovec){ b.p + (23 - i) * 2 * MIB + i * 8,
					 (i * 37 % 24) * PAGE * 8 + 11 };
	anon_push_out();
	full(writev(fd, iov, 24), bytes_of(iov, 24), "writev");
	for (int i = 0; i < 24; i++)
		memset(iov[i].iov_base, 0xdd, iov[i].iov_len);
	anon_push_out();
	full(preadv(fd, iov, 12, 0), bytes_of(iov, 12), "preadv");
	full(preadv(fd, iov + 12, 12, bytes_of(iov, 12)),
	     bytes_of(iov + 12, 12), "preadv");
	block_verify(&b, "preadv");
	memset(iov[5].iov_base, 0xdd, iov[5].iov_len);
	check(lseek(fd, 0, SEEK_SET) == 0);
	full(readv(fd, iov, 24), bytes_of(iov, 24), "readv");
	block_verify(&b, "readv");
	close(fd);
}

static void direct(void)
{
	int fd = scratch(O_DIRECT);
	size_t n = 5 * MIB + PAGE;

	if (fd < 0)
		return;		/* not on this file system */
	anon_push_out();
	for (size_t at = 0; at + n <= SIZE; at += 2 * n) {
		ssize_t got = pwrite(fd, b.p + at, n, 0);

		if (got < 0 && errno == EINVAL)
			break;
		full(got, n, "O_DIRECT write");
		clear_part(at + PAGE, n - PAGE);
		full(pread(fd, b.p + at, n, 0), n, "O_DIRECT read");
	}
	block_verify(&b, "O_DIRECT");
	close(fd);
}

static void *sender(void *arg)
{
	size_t n = SIZE / 2;

	for (size_t at = 0; at < n;) {
		ssize_t got = write(*(int *)arg, b.p + at, n - at);

		check(got > 0);
		at += got;
	}
	return NULL;
}

/* From the lower half of the block to the upper, through the kernel. */
static void through(int from, int to, const char *what)
{
	size_t n = SIZE / 2;
	pthread_t th;

	memset(b.p + n, 0xcc, n);
	anon_push_out();
	check(!pthread_create(&th, NULL, sender, &to));
	for (size_t at = n; at < SIZE;) {
		ssize_t got = read(from, b.p + at, SIZE - at);

		check(got > 0);
		at += got;
	}
	check(!pthread_join(th, NULL));
	anon_verify(b.p + n, b.id, b.gen, 0, n, what);
	anon_push_out();
	anon_verify(b.p + n, b.id, b.gen, 0, n, what);
	anon_put(b.p + n, b.id, b.gen, n, n);
}

static void pipes_and_sockets(void)
{
	int p[2];

	check(!pipe(p));
	through(p[0], p[1], "pipe");
	close(p[0]);
	close(p[1]);
	check(!socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	through(p[0], p[1], "socket");
	close(p[0]);
	close(p[1]);
}

/* Pages lie in a pipe while the block is turned over behind them. */
static void held_by_pipe(void)
{
	size_t n = 16 * KIB, at = 9 * MIB;
	struct iovec iov = { b.p + at, n };
	int p[2];

	check(!pipe(p));
	anon_push_out();
	full(vmsplice(p[1], &iov, 1, 0), n, "vmsplice");
	anon_push_out();
	block_verify(&b, "beside a full pipe");
	full(read(p[0], back, n), n, "read");
	anon_verify(back, b.id, b.gen, at, n, "vmspliced before eviction");
	close(p[0]);
	close(p[1]);
}

/* A file written from a block and sent on; the block is read back from it. */
static void sent_file(void)
{
	int in = scratch(0), out = scratch(0);
	off_t from = 0;
	size_t n = 8 * MIB;

	check(in >= 0 && out >= 0);
	anon_push_out();
	full(pwrite(in, b.p + MIB, n, 0), n, "pwrite");
	while ((size_t)from < n)
		check(sendfile(out, in, &from, n - from) > 0);
	clear_part(MIB, n);
	full(pread(out, b.p + MIB, n, 0), n, "pread");
	block_verify(&b, "sent by sendfile");
	close(in);
	close(out);
}

static void by_vm_calls(void)
{
	struct iovec mine = { back, MIB }, its = { b.p, MIB };

	anon_push_out();
	for (size_t at = 0; at < SIZE; at += 4 * MIB) {
		ssize_t n;

		its.iov_base = b.p + at;
		n = process_vm_readv(getpid(), &mine, 1, &its, 1, 0);
		if (n < 0 && (errno == EPERM || errno == ENOSYS))
			return;
		full(n, MIB, "process_vm_readv");
		anon_verify(back, b.id, b.gen, at, MIB, "process_vm_readv");
		memset(its.iov_base, 0xbb, MIB);
		if (at % (8 * MIB))
			anon_push_out();
		n = process_vm_writev(getpid(), &mine, 1, &its, 1, 0);
		full(n, MIB, "process_vm_writev");
	}
	block_verify(&b, "process_vm_writev");
}

/* A debugger's way. The kernel may refuse it where pages are missing. */
static void by_proc_mem(void)
{
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);

	check(fd >= 0);
	for (size_t at = 0; at < SIZE; at += 2 * MIB) {
		ssize_t n = pread(fd, back, PAGE, (off_t)(uintptr_t)b.p + at);

		if (n > 0)
			anon_verify(back, b.id, b.gen, at, n, "/proc/self/mem");
		else
			check(errno == EIO || errno == EFAULT);
	}
	close(fd);
}

/* ---- what the kernel and libc keep in a block --------------------------------- */

struct corner {
	pthread_mutex_t lock;
	pthread_cond_t turn;
	int whose, rounds;
};

static struct corner *corner;

/* The ballast belongs to nobody: both may read it. */
static void *in_turns(void *arg)
{
	int me = (int)(uintptr_t)arg;

	for (int i = 0; i < 6; i++) {
		pthread_mutex_lock(&corner->lock);
		while (corner->whose != me)
			pthread_cond_wait(&corner->turn, &corner->lock);
		block_verify(anon_ballast(), "beside a lock");
		corner->whose = !me;
		corner->rounds++;
		pthread_cond_signal(&corner->turn);
		pthread_mutex_unlock(&corner->lock);
	}
	return NULL;
}

static void locks(void)
{
	pthread_condattr_t ca;
	pthread_mutexattr_t ma;
	pthread_t th[2];
	unsigned char *p = calloc(1, 5 * MIB);

	check(p);
	corner = (void *)(p + 3 * MIB - 64);
	check(!pthread_mutexattr_init(&ma) && !pthread_condattr_init(&ca));
	/* Shared ones are keyed by page, not by address. */
	check(!pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED));
	check(!pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED));
	for (int shared = 0; shared < 2; shared++) {
		memset(corner, 0, sizeof(*corner));
		check(!pthread_mutex_init(&corner->lock, shared ? &ma : NULL));
		check(!pthread_cond_init(&corner->turn, shared ? &ca : NULL));
		for (uintptr_t i = 0; i < 2; i++)
			check(!pthread_create(&th[i], NULL, in_turns,
					      (void *)i));
		for (int i = 0; i < 2; i++)
			check(!pthread_join(th[i], NULL));
		check(corner->rounds == 12);
	}
	free(p);
}

static volatile sig_atomic_t handled;
static unsigned char *alt;
#define ALT_SIZE (256 * KIB)

static void on_alt_stack(int sig)
{
	unsigned char here[8 * KIB];

	if (here < alt || here >= alt + ALT_SIZE)
		fail("the handler is not on its stack");
	anon_put(here, 7, handled + 1, 0, sizeof(here));
	anon_verify(here, 7, handled + 1, 0, sizeof(here), "signal stack");
	handled++;
}

static void signal_stack(void)
{
	struct sigaction sa = { .sa_handler = on_alt_stack,
				.sa_flags = SA_ONSTACK };
	stack_t ss = { .ss_size = ALT_SIZE }, none = { .ss_flags = SS_DISABLE };

	alt = calloc(1, ALT_SIZE);
	check(alt);
	ss.ss_sp = alt;
	check(!sigaltstack(&ss, NULL) && !sigaction(SIGUSR1, &sa, NULL));
	for (int i = 0; i < 6; i++) {
		anon_push_out();
		check(!raise(SIGUSR1));
	}
	check(handled == 6);
	check(!sigaltstack(&none, NULL));
	free(alt);
}

static ucontext_t caller, routine;

static void coroutine(void)
{
	unsigned char here[64 * KIB];

	for (uint16_t i = 1; i <= 6; i++) {
		anon_put(here, 8, i, 0, sizeof(here));
		check(!swapcontext(&routine, &caller));
		anon_verify(here, 8, i, 0, sizeof(here), "coroutine's stack");
	}
}

static void coroutine_stack(void)
{
	size_t n = 512 * KIB;
	void *stack = malloc(n);

	check(stack && !getcontext(&routine));
	routine.uc_stack.ss_sp = stack;
	routine.uc_stack.ss_size = n;
	routine.uc_link = &caller;
	makecontext(&routine, coroutine, 0);
	for (int i = 0; i < 7; i++) {
		check(!swapcontext(&caller, &routine));
		anon_push_out();
	}
	free(stack);
}

int main(void)
{
	b = block_map(1, SIZE);
	to_and_from_file();
	vectors();
	direct();
	pipes_and_sockets();
	held_by_pipe();
	sent_file();
	by_vm_calls();
	by_proc_mem();
	locks();
	signal_stack();
	coroutine_stack();
	block_verify(&b, "in the end");
	return 0;
}
