/* SPDX-License-Identifier: MIT */
/* diskbw.c - how fast the disk gives one file's chunks in random order.
 *
 *     diskbw FILE [BYTES [RATE]]
 *
 * Reads BYTES of FILE (all of it if not said) with O_DIRECT, in chunks of
 * 2 MiB, eight in flight, each chunk once, in an order shuffled by a fixed
 * seed; prints bytes per second. This is the bound a reader of the missing
 * chunks cannot pass, so it must be measured with nothing else running. With
 * RATE it reads them over and over, so many bytes per second, until SIGTERM, and
 * prints what it came to: for what reading costs a program that runs beside it.
 *
 * 1. Every thread has one read in flight: eight threads are depth eight.
 * 2. The next chunk is taken with one atomic step; no lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHUNK	(2u << 20)
#define DEPTH	8

static int fd;
static uint32_t *order;			/* chunk numbers, shuffled; immutable */
static size_t chunks;
static atomic_size_t next_chunk;
static atomic_ullong total;		/* bytes read */
static double rate;			/* bytes per second; 0: once, at full speed */
static double start;			/* seconds() */
static atomic_bool ended;

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "diskbw: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void shuffle(void)
{
	uint64_t r = 0x2545f4914f6cdd1du;

	order = calloc(chunks, sizeof(*order));
	if (!order)
		die("memory");
	for (size_t i = 0; i < chunks; i++) {
		size_t j;

		r ^= r << 13;
		r ^= r >> 7;
		r ^= r << 17;
		j = r % (i + 1);
		order[i] = order[j];
		order[j] = (uint32_t)i;
	}
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Until it is chunk i's turn. */
static void pace(size_t i)
{
	double early = start + (double)i * CHUNK / rate - seconds();

	if (early > 0)
		usleep((useconds_t)(early * 1e6));
}

static void *reader(void *arg)
{
	void *buf = aligned_alloc(CHUNK, CHUNK);
	size_t i;

	if (!buf)
		die("memory");
	/* As the frames that such reads go to: one segment, not 512. */
	madvise(buf, CHUNK, MADV_HUGEPAGE);
	memset(buf, 0, CHUNK);
	while ((i = atomic_fetch_add(&next_chunk, 1)) < chunks || rate > 0) {
		ssize_t n;

		if (rate > 0)
			pace(i);
		if (atomic_load(&ended))
			break;
		n = pread(fd, buf, CHUNK, (off_t)order[i % chunks] * CHUNK);
		if (n < 0)
			die("read");
		atomic_fetch_add(&total, (unsigned long long)n);
	}
	free(buf);
	return arg;
}

static void end(int sig)
{
	atomic_store(&ended, sig != 0);
}

int main(int argc, char **argv)
{
	pthread_t th[DEPTH];
	struct stat st;
	uint64_t bytes;

	if (argc < 2 || argc > 4) {
		fputs("usage: diskbw FILE [BYTES [RATE]]\n", stderr);
		return 2;
	}
	fd = open(argv[1], O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		die(argv[1]);
	chunks = ((uint64_t)st.st_size + CHUNK - 1) / CHUNK;
	bytes = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)st.st_size;
	shuffle();
	if (bytes / CHUNK < chunks)
		chunks = bytes / CHUNK ? bytes / CHUNK : 1;
	rate = argc > 3 ? atof(argv[3]) : 0;
	signal(SIGTERM, end);
	start = seconds();
	for (int i = 0; i < DEPTH; i++)
		if (pthread_create(&th[i], NULL, reader, NULL))
			die("thread");
	for (int i = 0; i < DEPTH; i++)
		pthread_join(th[i], NULL);
	printf("%.0f\n", (double)total / (seconds() - start));
	return 0;
}
