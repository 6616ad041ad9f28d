/* SPDX-License-Identifier: MIT */
/* syscalls.c - the kernel reads and writes evicted pages for the program.
 *
 * Owns a scratch file and a private copy; lock: none. write, writev, pwrite,
 * O_DIRECT, send, pipes, vmsplice, process_vm_readv, futex-free: whatever
 * takes a pointer takes one into a region, and no EFAULT comes back.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

#include <sys/socket.h>

static struct trap t;
static unsigned char back[MIB];

static int scratch(int flags)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/trap.scratch.%d", trap_dir(),
		 (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0600);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static void to_file(void)
{
	struct iovec iov[2];
	int fd = scratch(0);

	check(fd >= 0);
	for (size_t off = 0; off < t.size; off += MIB) {
		size_t half = MIB / 2;

		check(write(fd, t.map + off, half) == (ssize_t)half);
		iov[0] = (struct iovec){ t.map + off + half, 1000 };
		iov[1] = (struct iovec){ t.map + off + half + 1000,
					 half - 1000 };
		check(writev(fd, iov, 2) == (ssize_t)half);
		check(pread(fd, back, MIB, off) == (ssize_t)MIB);
		verify_at(&t, back, off, MIB, "write and writev");
	}
	for (size_t off = 0; off < t.size; off += 3 * MIB) {
		check(pwrite(fd, t.map + off, MIB, 5) == (ssize_t)MIB);
		check(pread(fd, back, MIB, 5) == (ssize_t)MIB);
		verify_at(&t, back, off, MIB, "pwrite");
	}
	close(fd);
}

static void to_file_direct(void)
{
	int fd = scratch(O_DIRECT), rd;

	if (fd < 0)
		return;		/* not on this file system */
	rd = dup(fd);
	for (size_t off = 0; off < t.size; off += MIB) {
		ssize_t n = pwrite(fd, t.map + off, MIB, 0);

		if (n != (ssize_t)MIB)
			fail("O_DIRECT write at %#zx: %zd, %s", off, n,
			     strerror(errno));
		check(!fcntl(rd, F_SETFL, 0));
		check(pread(rd, back, MIB, 0) == (ssize_t)MIB);
		check(!fcntl(rd, F_SETFL, O_DIRECT));
		verify_at(&t, back, off, MIB, "O_DIRECT write");
	}
	close(rd);
	close(fd);
}

static void to_socket(void)
{
	int s[2];

	check(!socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	for (size_t off = 0; off < t.size; off += 2 * MIB + PAGE) {
		size_t n = 32 * KIB;

		check(send(s[0], t.map + off, n, 0) == (ssize_t)n);
		check(recv(s[1], back, n, MSG_WAITALL) == (ssize_t)n);
		verify_at(&t, back, off, n, "send");
	}
	close(s[0]);
	close(s[1]);
}

static void to_pipe(void)
{
	size_t n = 16 * KIB;
	int p[2];

	check(!pipe(p));
	for (size_t off = 0; off < t.size; off += MIB + PAGE) {
		struct iovec iov = { t.map + off, n };

		check(write(p[1], t.map + off, n) == (ssize_t)n);
		check(read(p[0], back, n) == (ssize_t)n);
		verify_at(&t, back, off, n, "pipe");
		check(vmsplice(p[1], &iov, 1, 0) == (ssize_t)n);
		check(read(p[0], back, n) == (ssize_t)n);
		verify_at(&t, back, off, n, "vmsplice");
	}
	close(p[0]);
	close(p[1]);
}

/* Pages lie in the pipe while the region is turned over behind them. */
static void held_by_pipe(void)
{
	size_t n = 16 * KIB;
	struct iovec iov = { t.map + 9 * MIB, n };
	int p[2];

	check(!pipe(p));
	check(vmsplice(p[1], &iov, 1, 0) == (ssize_t)n);
	verify_passes(&t, 2, "beside a full pipe");
	check(read(p[0], back, n) == (ssize_t)n);
	verify_at(&t, back, 9 * MIB, n, "vmspliced before eviction");
	close(p[0]);
	close(p[1]);
}

static void by_vm_readv(void)
{
	for (size_t off = 0; off < t.size; off += MIB) {
		struct iovec to = { back, MIB }, from = { t.map + off, MIB };
		ssize_t n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);

		if (n < 0 && (errno == EPERM || errno == ENOSYS))
			return;
		check(n == (ssize_t)MIB);
		verify_at(&t, back, off, MIB, "process_vm_readv");
	}
}

/* The kernel writes into a private writable region. */
static void from_file(void)
{
	struct trap u;
	int fd = trap_open(&t);
	ssize_t n;

	trap_private(&u, trap_dir(), TRAP_SIZE, 5);
	trap_map(&u, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	verify_all(&u, "private");
	for (size_t off = 0; off < u.size; off += 4 * MIB) {
		n = pread(fd, u.map + off, MIB, off);
		check(n == (ssize_t)MIB);
	}
	for (int i = 0; i < 2; i++)
		for (size_t off = 0; off < u.size; off += 4 * MIB) {
			verify(&u, off + MIB, 3 * MIB, "beside read(2)");
			verify_at(&t, u.map + off, off, MIB,
				  "read(2) into the region");
		}
	close(fd);
	trap_unmap(&u);
	trap_map(&u, PROT_READ, MAP_SHARED);
	verify_all(&u, "its file");
	trap_done(&u);
}

int main(void)
{
	trap_start(&t);
	verify_passes(&t, 2, "before");
	to_file();
	to_file_direct();
	to_socket();
	to_pipe();
	held_by_pipe();
	by_vm_readv();
	from_file();
	verify_all(&t, "after");
	return trap_done(&t);
}
