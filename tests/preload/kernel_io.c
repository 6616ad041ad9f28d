/* SPDX-License-Identifier: MIT */
/* kernel_io.c - io_uring, aio, sockets, other processes, and whatever else takes
 * an address reach evicted buffers: of a mapped file, and of a block.
 *
 * Owns scratch files; the program runs itself as the other process. Lock: none.
 * (1) No EFAULT, no short count, no byte that was not there.
 * (2) What was read into a block stays, evictions after.
 * (3) Reads that go on by themselves (O_DIRECT by io_uring or aio, registered
 *     buffers) hold pages that mode copy cannot see held: not asked of it there.
 * (4) A tracer may be refused (EIO) where pages are away; it never sees zeros.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
/* variants: plain move copy hints */
#include "anon.h"

#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

#define SIZE	(40 * MIB)
#define PIECE	(256 * KIB)
#define STRIDE	(3 * MIB + PAGE)

static struct trap t;
static struct block b;			/* page aligned */
static unsigned char back[MIB] __attribute__((aligned(4096)));
static const char *missing;		/* what this machine does not have */

static int scratch(int flags)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/trap.io.%d", trap_dir(), (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0600);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static void full(long got, size_t want, const char *what)
{
	if (got != (long)want)
		fail("%s: %ld of %zu bytes, %s", what, got, want,
		     strerror(got < 0 ? got == -1 ? errno : (int)-got : 0));
}

/* Reads that hold pages by themselves; TRAP_PIN=1 asks for them in any mode. */
static bool may_pin(void)
{
	return getenv("TRAP_PIN") ||
	       (!trap_mode_is("copy") && !trap_mode_is("torture"));
}

/* ---- a ring, by its own calls: no library of its own that may be missing ------ */

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
};

static void *ring_map(const struct ring *r, size_t len, off_t what)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, what);

	check(p != MAP_FAILED);
	return p;
}

static bool ring_open(struct ring *r)
{
	struct io_uring_params p = { 0 };
	unsigned char *sq, *cq;

	r->fd = (int)syscall(SYS_io_uring_setup, 8, &p);
	if (r->fd < 0)
		return false;
	sq = ring_map(r, p.sq_off.array + p.sq_entries * 4, IORING_OFF_SQ_RING);
	cq = ring_map(r, p.cq_off.cqes + p.cq_entries * sizeof(*r->cqe),
		      IORING_OFF_CQ_RING);
	r->sqe = ring_map(r, p.sq_entries * sizeof(*r->sqe), IORING_OFF_SQES);
	r->sq_tail = (void *)(sq + p.sq_off.tail);
	r->sq_mask = (void *)(sq + p.sq_off.ring_mask);
	r->sq_array = (void *)(sq + p.sq_off.array);
	r->cq_head = (void *)(cq + p.cq_off.head);
	r->cq_tail = (void *)(cq + p.cq_off.tail);
	r->cq_mask = (void *)(cq + p.cq_off.ring_mask);
	r->cqe = (void *)(cq + p.cq_off.cqes);
	return true;
}

static void ring_submit(struct ring *r, int op, int fd, void *p, size_t n,
			off_t off)
{
	unsigned int tail = *r->sq_tail, i = tail & *r->sq_mask;

	r->sqe[i] = (struct io_uring_sqe){ .opcode = op, .fd = fd,
		.addr = (uintptr_t)p, .len = n, .off = off };
	r->sq_array[i] = i;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	check(syscall(SYS_io_uring_enter, r->fd, 1, 0, 0, NULL, 0) == 1);
}

static long ring_wait(struct ring *r)
{
	unsigned int head = *r->cq_head;
	long res;

	while (__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) == head)
		check(syscall(SYS_io_uring_enter, r->fd, 0, 1,
			      IORING_ENTER_GETEVENTS, NULL, 0) >= 0 ||
		      errno == EINTR);
	res = r->cqe[head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
	return res;
}

static void ring_do(struct ring *r, int op, int fd, void *p, size_t n,
		    off_t off, const char *what)
{
	ring_submit(r, op, fd, p, n, off);
	full(ring_wait(r), n, what);
}

static void ring_writes(struct ring *r, int fd)
{
	for (size_t at = 0; at + PIECE <= t.size; at += STRIDE) {
		ring_do(r, IORING_OP_WRITE, fd, t.map + at, PIECE, 0,
			"io_uring write of a file's memory");
		full(pread(fd, back, PIECE, 0), PIECE, "pread");
		verify_at(&t, back, at, PIECE, "io_uring write, file");
	}
	for (size_t at = 0; at + PIECE <= SIZE; at += STRIDE) {
		ring_do(r, IORING_OP_WRITE, fd, b.p + at, PIECE, 0,
			"io_uring write of a block");
		full(pread(fd, back, PIECE, 0), PIECE, "pread");
		anon_verify(back, b.id, b.gen, at, PIECE, "io_uring write, block");
	}
}

static void ring_reads(struct ring *r, int fd, bool meanwhile, const char *what)
{
	full(pwrite(fd, b.p, SIZE, 0), SIZE, "pwrite");
	anon_push_out_fast();
	for (size_t at = 0; at + PIECE <= SIZE; at += STRIDE) {
		memset(b.p + at, 0xee, PIECE);
		if (at / STRIDE % 2)
			anon_push_out_fast();
		ring_submit(r, IORING_OP_READ, fd, b.p + at, PIECE, at);
		if (meanwhile)
			anon_push_out_fast();
		full(ring_wait(r), PIECE, what);
	}
	anon_push_out_fast();
	block_verify(&b, what);
}

/* The pages are held from here on, wherever they are. */
static void ring_registered(struct ring *r, int fd)
{
	struct iovec iov = { b.p + 7 * MIB, MIB };

	full(pwrite(fd, b.p, SIZE, 0), SIZE, "pwrite");
	anon_push_out_fast();
	if (syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, &iov, 1)) {
		check(errno == ENOMEM || errno == EPERM);
		return;
	}
	block_verify_at(&b, 7 * MIB, MIB, "registered");
	for (int i = 0; i < 3; i++) {
		memset(iov.iov_base, 0xee, MIB);
		anon_push_out_fast();
		ring_do(r, IORING_OP_READ_FIXED, fd, iov.iov_base, MIB, 7 * MIB,
			"READ_FIXED");
		anon_push_out_fast();
		block_verify_at(&b, 6 * MIB, 3 * MIB, "READ_FIXED");
	}
	ring_do(r, IORING_OP_WRITE_FIXED, fd, iov.iov_base, MIB, 0, "WRITE_FIXED");
	full(pread(fd, back, MIB, 0), MIB, "pread");
	anon_verify(back, b.id, b.gen, 7 * MIB, MIB, "WRITE_FIXED");
	check(!syscall(SYS_io_uring_register, r->fd, IORING_UNREGISTER_BUFFERS,
		       NULL, 0));
}

static void by_ring(void)
{
	struct ring r;
	int fd = scratch(0), direct = scratch(O_DIRECT);

	check(fd >= 0);
	if (!ring_open(&r))
		missing = "io_uring";
	if (missing)
		return;
	anon_push_out_fast();
	ring_writes(&r, fd);
	ring_reads(&r, fd, true, "io_uring read");
	if (may_pin() && direct >= 0)
		ring_reads(&r, direct, true, "io_uring O_DIRECT read");
	if (may_pin())
		ring_registered(&r, fd);
	close(r.fd);
	close(fd);
	close(direct);
}

/* ---- aio ------------------------------------------------------------------------ */

static void aio_do(aio_context_t ctx, int op, int fd, void *p, size_t n, off_t off,
		   const char *what)
{
	struct iocb cb = { .aio_lio_opcode = op, .aio_fildes = fd,
			   .aio_buf = (uintptr_t)p, .aio_nbytes = n,
			   .aio_offset = off }, *list = &cb;
	struct io_event ev;

	if (syscall(SYS_io_submit, ctx, 1, &list) != 1)
		fail("%s: io_submit: %s", what, strerror(errno));
	anon_push_out_fast();
	while (syscall(SYS_io_getevents, ctx, 1, 1, &ev, NULL) != 1)
		check(errno == EINTR);
	full((long)ev.res, n, what);
}

static void by_aio(void)
{
	int fd = scratch(may_pin() ? O_DIRECT : 0);
	aio_context_t ctx = 0;

	if (fd < 0 || syscall(SYS_io_setup, 4, &ctx)) {
		missing = fd < 0 ? "O_DIRECT" : "aio";
		return;
	}
	full(pwrite(fd, b.p, SIZE, 0), SIZE, "pwrite");
	for (size_t at = 0; at + MIB <= SIZE; at += 5 * MIB) {
		memset(b.p + at, 0xee, MIB);
		aio_do(ctx, IOCB_CMD_PREAD, fd, b.p + at, MIB, at, "aio read");
	}
	block_verify(&b, "aio read");
	for (size_t at = 0; at + MIB <= t.size; at += 13 * MIB) {
		aio_do(ctx, IOCB_CMD_PWRITE, fd, t.map + at, MIB, 0, "aio write");
		full(pread(fd, back, MIB, 0), MIB, "pread");
		verify_at(&t, back, at, MIB, "aio write");
	}
	check(!syscall(SYS_io_destroy, ctx));
	close(fd);
}

/* ---- sockets ---------------------------------------------------------------------- */

static void receive(int s, size_t at, size_t n)
{
	struct iovec iov[2] = { { b.p + at, n / 2 - 8 },
				{ b.p + at + n / 2 - 8, n / 2 + 8 } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };

	memset(b.p + at, 0xee, n);
	anon_push_out_fast();
	if (at / (7 * MIB) % 2)
		full(recv(s, b.p + at, n, MSG_WAITALL), n, "recv");
	else
		full(recvmsg(s, &m, MSG_WAITALL), n, "recvmsg");
	block_verify_at(&b, at, n, "received");
}

static void by_socket(void)
{
	size_t n = 64 * KIB;
	int s[2];

	check(!socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	for (size_t at = 0; at + n <= SIZE; at += 7 * MIB) {
		struct iovec iov = { t.map + at, n };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

		full(sendmsg(s[0], &m, 0), n, "sendmsg");
		full(recv(s[1], back, n, MSG_WAITALL), n, "recv");
		verify_at(&t, back, at, n, "sent from a file's memory");
		full(send(s[0], b.p + at, n, 0), n, "send");
		receive(s[1], at, n);
	}
	close(s[0]);
	close(s[1]);
}

/* ---- a private mapping, read into by O_DIRECT ----------------------------------------- */

static void into_private(void)
{
	unsigned char *p = trap_map_at(&t, t.size, 0, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE);
	int fd = scratch(O_DIRECT);

	if (fd >= 0) {
		full(pwrite(fd, b.p, 8 * MIB, 0), 8 * MIB, "O_DIRECT write");
		for (int i = 0; i < 2; i++)
			for (size_t at = 0; at < t.size; at += 8 * MIB) {
				struct iovec iov = { p + at, MIB };

				if (!i)
					full(preadv(fd, &iov, 1, at / 8), MIB,
					     "O_DIRECT preadv");
				anon_verify(p + at, b.id, b.gen, at / 8, MIB,
					    "O_DIRECT into a private mapping");
				verify_at(&t, p + at + MIB, at + MIB, 7 * MIB,
					  "beside it");
			}
		close(fd);
	}
	check(!munmap(p, t.size));
}

/* ---- arguments of all sorts ------------------------------------------------------------ */

/* A place for an argument, evicted; its page is zeros before. */
static void *argument(size_t i)
{
	static unsigned char *p;

	if (!p)
		p = calloc(1, 24 * MIB);
	check(p);
	anon_push_out_fast();
	return p + i * 2 * MIB + PAGE - 24;	/* over the end of a page */
}

static void arguments(void)
{
	struct stat *st = argument(0), own;
	struct epoll_event *ev, in = { .events = EPOLLIN, .data.u64 = 0x1234567 };
	struct timespec *ts;
	struct pollfd *pf;
	char *path;
	int *n, p[2], ep = epoll_create1(EPOLL_CLOEXEC);

	check(!pipe(p) && write(p[1], "abc", 3) == 3 && !stat(t.path, &own));
	check(!syscall(SYS_newfstatat, AT_FDCWD, t.path, st, 0));
	check(st->st_ino == own.st_ino && (size_t)st->st_size == t.size);
	path = argument(1);
	strcpy(path, t.path);
	path = argument(1);
	check(!access(path, R_OK) && !strcmp(path, t.path));
	n = argument(2);
	check(!ioctl(p[0], FIONREAD, n) && *n == 3);
	ev = argument(3);
	check(!epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &in));
	check(epoll_wait(ep, ev, 4, -1) == 1 && ev->data.u64 == 0x1234567);
	ts = argument(4);
	check(!syscall(SYS_clock_gettime, CLOCK_REALTIME, ts) && ts->tv_sec > 1000000);
	pf = argument(5);
	*pf = (struct pollfd){ .fd = p[0], .events = POLLIN };
	pf = argument(5);
	check(poll(pf, 1, -1) == 1 && pf->revents == POLLIN);
	close(p[0]);
	close(p[1]);
	close(ep);
}

/* ---- another process ------------------------------------------------------------------- */

static struct { int pid; uintptr_t file, block; } other;

static void read_other(uintptr_t at, size_t n)
{
	struct iovec mine = { back, n }, its = { (void *)at, n };
	ssize_t got = process_vm_readv(other.pid, &mine, 1, &its, 1, 0);

	if (got < 0 && (errno == EPERM || errno == ENOSYS))
		skip("process_vm_readv is refused here");
	full(got, n, "process_vm_readv of another process");
}

static void peek(uintptr_t at, uint64_t want)
{
	uint64_t w;

	errno = 0;
	w = ptrace(PTRACE_PEEKDATA, other.pid, at, 0);
	if (errno ? errno != EIO && errno != EFAULT : w != want)
		fail("PTRACE_PEEKDATA at %#lx: %016llx, not %016llx (%s)", at,
		     (unsigned long long)w, (unsigned long long)want,
		     strerror(errno));
}

static int tracer(const char *who)
{
	int st;

	check(sscanf(who, "%d:%lx:%lx", &other.pid, &other.file, &other.block) == 3);
	t.size = TRAP_SIZE;
	t.seed = 1;
	for (size_t at = 0; at < SIZE; at += 4 * MIB) {
		read_other(other.file + at, MIB);
		verify_at(&t, back, at, MIB, "process_vm_readv, file");
		read_other(other.block + at, MIB);
		anon_verify(back, 1, 1, at, MIB, "process_vm_readv, block");
	}
	if (ptrace(PTRACE_ATTACH, other.pid, 0, 0))
		skip("ptrace is refused here");
	check(waitpid(other.pid, &st, __WALL) == other.pid && WIFSTOPPED(st));
	for (size_t at = MIB; at < SIZE; at += 2 * MIB) {
		peek(other.file + at, trap_word(at, 1));
		peek(other.block + at, anon_word(1, 1, at));
	}
	check(!ptrace(PTRACE_DETACH, other.pid, 0, 0));
	return 0;
}

static void by_another(void)
{
	struct trap_child c;
	char who[64];

	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	snprintf(who, sizeof(who), "%d:%lx:%lx", (int)getpid(),
		 (uintptr_t)t.map, (uintptr_t)b.p);
	anon_push_out_fast();
	trap_run(&c, "tracer", who);
	if (WIFEXITED(c.status) && WEXITSTATUS(c.status) == 77)
		missing = "process_vm_readv or ptrace";
	else if (c.status)
		fail("the other process: status %#x: %s", c.status, c.err);
}

int main(int argc, char **argv)
{
	if (argc > 2)
		return tracer(argv[2]);
	trap_start(&t);
	b = block_map(1, SIZE);
	verify_all(&t, "before");
	by_ring();
	by_aio();
	by_socket();
	into_private();
	arguments();
	by_another();
	block_verify(&b, "in the end");
	verify_all(&t, "in the end");
	trap_done(&t);
	if (missing)
		skip("not to be had here: %s", missing);
	return 0;
}
