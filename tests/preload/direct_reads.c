/* SPDX-License-Identifier: MIT */
/* direct_reads.c - O_DIRECT reads while a thread pushes everything out, all the time.
 *
 * The disk writes to the pages themselves, wherever they were when it was asked.
 * Owns a file of words, a block it is read to, a private mapping of the tensors.
 * (1) Every call of the read family, to the block and to the mapping: what was read
 *     is there at once, and later. (2) The first reads begin before the heap is paged.
 * (3) Positions, counts and refusals are the kernel's.
 * Lock: none; the ballast is only read.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
#include "anon.h"

#include <sys/uio.h>

#define SIZE	(24 * MIB)
#define ROUNDS	3

ssize_t __read_chk(int fd, void *buf, size_t len, size_t room);
ssize_t __pread_chk(int fd, void *buf, size_t len, off_t off, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t len, off64_t off, size_t room);

static struct trap t;
static struct block b;
static unsigned char *map;
static int fd;
static volatile bool over;

static void write_file(void)
{
	unsigned char *part = aligned_alloc(4096, 256 * KIB);
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/trap.direct.%d", trap_dir(), (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_DIRECT, 0600);
	if (fd < 0)
		skip("no O_DIRECT on this file system");
	unlink(path);
	for (size_t at = 0; at < SIZE; at += 256 * KIB) {
		anon_put(part, b.id, b.gen, at, 256 * KIB);
		check(pwrite(fd, part, 256 * KIB, (off_t)at) == 256 * KIB);
	}
	free(part);
}

/* ---- the calls -------------------------------------------------------------------- */

#define WAYS 10

/* Past a stream's buffer fread reads into the place itself. */
static ssize_t by_stream(unsigned char *p, size_t n, off_t at)
{
	static char buf[4096] __attribute__((aligned(4096)));
	static FILE *f;

	if (!f) {
		f = fdopen(dup(fd), "r");
		check(f && !setvbuf(f, buf, _IOFBF, sizeof(buf)));
	}
	check(!fseeko(f, at, SEEK_SET));
	return (ssize_t)fread(p, 1, n, f);
}

/* The file's [at, at + n) to p, by one of them. */
static ssize_t read_by(int way, unsigned char *p, size_t n, off_t at)
{
	struct iovec iov[3] = { { p, n / 4 }, { p + n / 4, n / 4 }, { p + n / 2, n / 2 } };
	bool here = way == 0 || way == 1 || way == 4 || way == 7;
	ssize_t got = -1;

	if (here)
		check(lseek(fd, at, SEEK_SET) == at);
	switch (way) {
	case 0: got = read(fd, p, n); break;
	case 1: got = __read_chk(fd, p, n, n); break;
	case 2: got = pread(fd, p, n, at); break;
	case 3: got = __pread_chk(fd, p, n, at, n); break;
	case 4: got = readv(fd, iov, 3); break;
	case 5: got = preadv(fd, iov, 3, at); break;
	case 6: got = preadv2(fd, iov, 3, at, 0); break;
	case 7: got = preadv2(fd, iov, 3, -1, 0); break;
	case 8: got = __pread64_chk(fd, p, n, at, n); break;
	case 9: got = by_stream(p, n, at); break;
	}
	if (here)
		check(lseek(fd, 0, SEEK_CUR) == at + (off_t)n);
	return got;
}

static void read_to(int way, unsigned char *p, size_t n, size_t at, const char *what)
{
	ssize_t got;

	memset(p, 0xee, n);
	got = read_by(way, p, n, (off_t)at);
	if (got != (ssize_t)n)
		fail("%s, way %d: %zd of %zu bytes: %s", what, way, got, n, strerror(errno));
	anon_verify(p, b.id, b.gen, at, n, what);
}

/* ---- what goes on beside ------------------------------------------------------------ */

static void *push_out(void *none)
{
	while (!over)
		anon_push_out_fast();
	return none;
}

/* (2) */
static void *read_early(void *none)
{
	for (int i = 0; i < 3; i++)
		for (size_t at = 0; at < SIZE; at += MIB)
			read_to(2, b.p + at, MIB, at, "while the heap becomes paged");
	return none;
}

static void *run_through(void *none)
{
	while (!over)
		for (size_t at = 0; at < t.size; at += PAGE)
			verify(&t, at, 8, "beside");
	return none;
}

/* Into a block that is not paged and a mapping that is, by one call. */
static void mixed(void)
{
	pthread_t th;

	check(!pthread_create(&th, NULL, run_through, NULL));
	for (size_t at = 0; at < SIZE; at += MIB) {
		struct iovec iov[2] = { { b.p + at, MIB / 2 }, { map + 2 * at + MIB / 2, MIB / 2 } };

		memset(iov[1].iov_base, 0xee, MIB / 2);
		check(preadv(fd, iov, 2, (off_t)at) == MIB);
		anon_verify(iov[0].iov_base, b.id, b.gen, at, MIB / 2, "mixed, block");
		anon_verify(iov[1].iov_base, b.id, b.gen, at + MIB / 2, MIB / 2, "mixed, mapping");
	}
	over = true;
	check(!pthread_join(th, NULL));
	over = false;
}

/* ---- the program -------------------------------------------------------------------- */

static void all_ways(int round)
{
	int way = round;

	for (size_t at = 0; at < SIZE; at += MIB, way++) {
		read_to(way % WAYS, b.p + at, MIB, at, "into a block");
		read_to(way % WAYS, map + 2 * at, MIB, at, "into a private mapping");
		verify_at(&t, map + 2 * at + MIB, 2 * at + MIB, MIB, "beside it");
	}
	for (size_t at = 0; at < SIZE; at += 32 * KIB)
		read_to(WAYS - 1, b.p + at, 32 * KIB, at, "small, by a stream");
	/* In pieces, should it be long; at the end of the file. */
	read_to(2, b.p + 4 * MIB, 17 * MIB, 4 * MIB, "long, into a block");
	check(pread(fd, b.p + SIZE - MIB, MIB, SIZE - 8 * KIB) == 8 * KIB);
	read_to(3, b.p + SIZE - MIB, MIB, SIZE - MIB, "after a short one");
	block_verify(&b, "block, later");
	for (size_t at = 0; at < SIZE; at += MIB)
		anon_verify(map + 2 * at, b.id, b.gen, at, MIB, "private mapping, later");
}

static void refusals(void)
{
	struct iovec iov = { b.p, 4 * KIB };

	errno = 0;
	check(pread(fd, b.p, 4 * KIB, -1) == -1 && errno == EINVAL);
	check(preadv(fd, &iov, 1, -1) == -1 && errno == EINVAL);
	check(preadv2(fd, &iov, 1, 0, 1 << 30) == -1 && errno == EOPNOTSUPP);
	check(!pread(fd, b.p, 4 * KIB, SIZE));
	check(!readv(fd, &iov, 0));
	block_verify(&b, "after refusals");
}

int main(void)
{
	pthread_t early, pusher;

	trap_start(&t);
	b = (struct block){ .p = anon_map(SIZE), .len = SIZE, .id = 1, .gen = 1 };
	write_file();
	map = trap_map_at(&t, t.size, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	mixed();
	check(!pthread_create(&early, NULL, read_early, NULL));
	anon_push_out_fast();
	check(!pthread_create(&pusher, NULL, push_out, NULL));
	check(!pthread_join(early, NULL));
	for (int i = 0; i < ROUNDS; i++)
		all_ways(i);
	refusals();
	over = true;
	check(!pthread_join(pusher, NULL));
	verify_all(&t, "in the end");
	trap_done(&t);
	return 0;
}
