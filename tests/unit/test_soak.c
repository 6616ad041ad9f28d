/* SPDX-License-Identifier: MIT */
/* test_soak.c - core/ and policy/ linked directly and soaked: threads allocate,
 * write, look, clear, resize, free, read and map a file, and fork, at three times
 * the budget, until the chunks have been evicted TURNS times each.
 *
 *     SOAK_TURNS=N     so often (a few, if not said)
 *     SOAK_SEED=N      what the threads do; said at the end
 *
 * No libc call is replaced: what interpose/ would do is done here. So the library's
 * own threads and tables can be watched by a sanitizer, which preloading forbids.
 *
 * (1) A word tells item, generation and place; it is never zero. A part has one
 *     generation: what was written last, FILE, or ZERO where zeros are owed.
 * (2) The program's own accesses are not watched: pages are taken and brought under
 *     them by system calls, which a sanitizer does not know to be an order.
 * (3) A case ends when the library has counted its evictions; if it counts none for
 *     STALLED seconds the case has failed, whatever its words were.
 * (4) An item belongs to one thread. Every case is a process of its own.
 * Owns a scratch folder, gone at the end. Lock: none.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/core.h"
#include "core/core_int.h"
#include "core/pool.h"
#include "core/spill.h"
#include "core/stats.h"
#include "sanitized.h"

#define KIB		1024ul
#define MIB		(1024 * KIB)
#define PART		(64 * KIB)
#define FILE_PARTS	128		/* 8 MiB */
#define THREADS		3
#define ITEMS		10		/* of a thread: about 16 MiB; the budget for all is 16 */
#define TURNS		4
#define STALLED		60
#define QUIET		__attribute__((no_sanitize("thread"), noinline))
#define CHECK(x)	((x) ? (void)0 : broken(#x, __LINE__))

enum { ZERO = 0, CHILD = 0x8000, FILE_GEN = 0xffff };
enum kind { NONE, HEAP, SHARED, PRIVATE };

struct item {
	uint64_t *p;
	size_t n;			/* parts */
	enum kind kind;
	uint64_t id;
	uint16_t gen[FILE_PARTS];
};

struct actor {
	uint64_t rng, ids;
	uint16_t gen;
	struct item item[ITEMS];
};

static struct actor actors[THREADS];
static _Atomic bool enough;
static _Atomic int ready;		/* threads that have all their items */
static char dir[64], file_path[96];
static uint64_t seed;

/* ---- words --------------------------------------------------------------------- */

static _Noreturn void say_and_end(const char *text, int n)
{
	if (write(2, text, (size_t)n) < 0)
		_exit(2);
	abort();
}

static _Noreturn void broken(const char *what, int line)
{
	char buf[200];

	say_and_end(buf, snprintf(buf, sizeof(buf), "line %d, seed %llu: not (%s)\n", line,
				  (unsigned long long)seed, what));
}

static _Noreturn void wrong(const struct item *x, size_t part, size_t i, const char *what)
{
	char buf[300];

	say_and_end(buf, snprintf(buf, sizeof(buf),
		"seed %llu: %s: item %llu (%d) part %zu generation %#x: word %zu is %016llx\n",
		(unsigned long long)seed, what, (unsigned long long)x->id, x->kind, part,
		x->gen[part], i, (unsigned long long)x->p[part * PART / 8 + i]));
}

/* Every other item's packs as bf16 does, the others hardly. */
QUIET static uint64_t word(uint64_t id, uint64_t gen, uint64_t i)
{
	uint64_t x = (id << 44) + (gen << 28) + i + 1;

	if (gen == ZERO)
		return 0;
	if (gen == FILE_GEN)
		x = i + 1, id = 0;
	x *= 0x9e3779b97f4a7c15ull;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 32;
	return id % 2 ? x | 1 : (x & 0x80ff80ff80ff80ffull) | 0x3f003f003f003f00ull;
}

QUIET static void put(struct item *x, size_t part, uint16_t gen)
{
	uint64_t at = part * PART / 8;

	for (uint64_t i = at; i < at + PART / 8; i++)
		x->p[i] = word(x->id, gen, i);
	x->gen[part] = gen;
}

QUIET static void look(const struct item *x, size_t part, size_t n, const char *what)
{
	for (; n--; part++) {
		uint64_t at = part * PART / 8;

		for (uint64_t i = at; i < at + PART / 8; i++)
			if (x->p[i] != word(x->id, x->gen[part], i))
				wrong(x, part, i - at, what);
	}
}

static void look_all(const struct item *x, const char *what)
{
	look(x, 0, x->n, what);
}

/* ---- the program's side, as interpose/ does it ------------------------------------ */

static void set_gen(struct item *x, size_t part, size_t n, uint16_t gen)
{
	for (; n--; part++)
		x->gen[part] = gen;
}

static void fill(struct actor *a, struct item *x, size_t part, size_t n)
{
	a->gen = (uint16_t)((a->gen & CHILD) | ((a->gen + 1) % (CHILD - 1)));
	for (; n--; part++)
		put(x, part, a->gen ? a->gen : (a->gen = 1));
}

static void take(struct item *x, bool zero)
{
	x->p = core_heap_alloc(x->n * PART, 64, zero);
	CHECK(x->p);
	set_gen(x, 0, x->n, ZERO);
}

/* By system calls alone: libc's would tell the sanitizer of the memory (2), and of
 * descriptors: it takes the library's, of another table, for the same. */
static int open_file(void)
{
	return (int)syscall(SYS_openat, AT_FDCWD, file_path, O_RDONLY | O_CLOEXEC);
}

static void close_file(int fd)
{
	syscall(SYS_close, fd);
}

static void map_file(struct item *x)
{
	int prot = x->kind == SHARED ? PROT_READ : PROT_READ | PROT_WRITE;
	int flags = x->kind == SHARED ? MAP_SHARED : MAP_PRIVATE;
	int fd = open_file();
	void *p = NULL;

	CHECK(fd >= 0);
	if (core_map_file(&p, NULL, FILE_PARTS * PART, prot, flags, fd, 0) == CORE_PASS)
		p = mmap(NULL, FILE_PARTS * PART, prot, flags, fd, 0);
	CHECK(p != MAP_FAILED);
	close_file(fd);
	x->p = p;
	x->n = FILE_PARTS;
	set_gen(x, 0, x->n, FILE_GEN);
}

static void give_back(struct item *x)
{
	if (x->kind == HEAP) {
		CHECK(core_heap_free(x->p));
	} else if (x->kind != NONE) {
		CHECK(core_unmap(x->p, x->n * PART) >= 0);
		CHECK(!munmap(x->p, x->n * PART));
	}
	x->kind = NONE;
}

static void discard(struct item *x, size_t part, size_t n)
{
	void *p = (char *)x->p + part * PART;
	int err = core_advise(p, n * PART, MADV_DONTNEED);

	CHECK(err == 0 || (err == CORE_PASS && !madvise(p, n * PART, MADV_DONTNEED)));
	set_gen(x, part, n, x->kind == HEAP ? ZERO : FILE_GEN);
}

static void read_part(struct item *x, size_t part)
{
	int fd = open_file();
	char *to = (char *)x->p + part * PART;

	CHECK(fd >= 0);
	CHECK(syscall(SYS_pread64, fd, to, PART, part * PART) == (long)PART);
	core_read_done(fd, to, PART, (int64_t)(part * PART));
	close_file(fd);
	x->gen[part] = FILE_GEN;
}

/* ---- what a thread does -------------------------------------------------------------- */

static uint64_t below(struct actor *a, uint64_t n)
{
	a->rng ^= a->rng << 13;
	a->rng ^= a->rng >> 7;
	a->rng ^= a->rng << 17;
	return a->rng % n;
}

/* The first item of a thread is always the file: half of its memory. */
static void make(struct actor *a, struct item *x)
{
	x->id = ++a->ids * THREADS + (uint64_t)(a - actors);
	if (x == &a->item[0]) {
		x->kind = below(a, 2) ? SHARED : PRIVATE;
		map_file(x);
		return;
	}
	x->kind = HEAP;
	x->n = 1 + below(a, 28);
	take(x, true);
	fill(a, x, 0, 1 + below(a, x->n));
}

static void resize(struct actor *a, struct item *x)
{
	size_t n = 1 + below(a, 28), kept = n < x->n ? n : x->n;
	void *p = core_heap_resize(x->p, n * PART);

	if (!p)
		return;
	x->p = p;
	x->n = n;
	look(x, 0, kept, "after it was resized");
	fill(a, x, kept, n - kept);
}

static void read_some(struct actor *a, struct item *x, size_t part, size_t n)
{
	for (; n--; part++)
		read_part(x, part);
}

static void act(struct actor *a)
{
	struct item *x = &a->item[below(a, ITEMS)];
	size_t part, n;

	if (x->kind == NONE)
		make(a, x);
	part = below(a, x->n);
	n = 1 + below(a, x->n - part);
	switch (below(a, 10)) {
	case 0:
		look_all(x, "in the end");
		give_back(x);
		break;
	case 1:
		if (x->kind == HEAP)
			resize(a, x);
		break;
	case 2:
		discard(x, part, n);
		look(x, part, n, "cleared");
		break;
	case 3:
		if (x->kind == HEAP)
			read_some(a, x, part, n);
		break;
	case 4: case 5: case 6:
		if (x->kind != SHARED)
			fill(a, x, part, n);
		break;
	default:
		look(x, part, n, "looked at");
	}
}

static _Noreturn void be_child(struct actor *a)
{
	alarm(120);
	a->gen |= CHILD;
	for (int i = 0; i < 8; i++)
		act(a);
	for (int i = 0; i < ITEMS; i++)
		if (a->item[i].kind != NONE)
			look_all(&a->item[i], "in a child");
	_exit(0);
}

static void have_child(struct actor *a)
{
	int status = -1;
	pid_t pid = fork();		/* core_init's handlers run */

	CHECK(pid >= 0);
	if (!pid)
		be_child(a);
	act(a);
	CHECK(waitpid(pid, &status, 0) == pid && !status);
}

static void *soak(void *arg)
{
	struct actor *a = arg;

	for (int i = 0; i < ITEMS; i++)
		make(a, &a->item[i]);
	atomic_fetch_add(&ready, 1);
	while (!atomic_load(&enough)) {
		act(a);
		/* TSan allows no threads in the child of a program with threads. */
		if (!TSAN && !below(a, 60))
			have_child(a);
	}
	for (int i = 0; i < ITEMS; i++) {
		if (a->item[i].kind != NONE)
			look_all(&a->item[i], "when all is over");
		give_back(&a->item[i]);
	}
	return NULL;
}

/* ---- a case ---------------------------------------------------------------------------- */

static uint64_t stat_now(enum off_stat i)
{
	return stat_get(stats_now(), i);
}

static void nap(void)
{
	struct timespec t = { 0, 5000000 };

	nanosleep(&t, NULL);
}

static uint64_t number(const char *name, uint64_t other)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 10) : other;
}

/* (3) Returns the chunks of the working set: of the most memory there ever was. */
static uint64_t wait_for(uint64_t turns)
{
	uint64_t chunks = 0, was = 0, at = now_ns(), n;

	for (;; nap()) {
		uint64_t now = stat_now(ST_HOST_MANAGED) / CHUNK;

		chunks = now > chunks ? now : chunks;
		n = stat_now(ST_HOST_EVICTIONS);
		if (atomic_load(&ready) == THREADS && chunks && n >= turns * chunks)
			return chunks;
		if (n != was)
			at = now_ns();
		was = n;
		if (now_ns() - at > STALLED * 1000000000ull) {
			fprintf(stderr, "%llu evictions, %llu chunks: they stay\n",
				(unsigned long long)n, (unsigned long long)chunks);
			abort();
		}
	}
}

/* What is freed is given back by library threads, soon. A chunk that several blocks
 * had parts of is given back as a whole, so one more block has all of the heap. */
static void settle(void)
{
	void *all = core_heap_alloc(256 * MIB, CHUNK, false);

	CHECK(all && core_heap_free(all));
	for (int i = 0; i < 2000 && (pool_raw_bytes() || spill_bytes()); i++)
		nap();
	CHECK(!pool_raw_bytes());
	CHECK(!spill_bytes());
}

/* The modes' turns in full, of others of their ways a quarter. What is packed takes
 * frames: of 16 MiB four would be left, and three threads whose library is slowed down
 * by a sanitizer take each other's for minutes. */
struct way { const char *name; enum mode mode; uint64_t part; const char *env[5]; };

static const struct way ways[] = {
	{ "move", MODE_MOVE, 1, { "OFFLOAD_RAM=16M", "OFFLOAD_PAGER=move" } },
	{ "copy", MODE_COPY, 1, { "OFFLOAD_RAM=16M", "OFFLOAD_PAGER=copy" } },
	{ "move, pread, encrypted", MODE_MOVE, 4,
	  { "OFFLOAD_RAM=16M", "OFFLOAD_PAGER=move", "OFFLOAD_IO=pread", "OFFLOAD_ENCRYPT=1" } },
	{ "copy, all packed", MODE_COPY, 4,
	  { "OFFLOAD_RAM=24M", "OFFLOAD_PAGER=copy", "OFFLOAD_DISK=20M" } },
};

static void run(const struct way *w)
{
	uint64_t turns = number("SOAK_TURNS", TURNS * w->part) / w->part, chunks, evicted;
	pthread_t t[THREADS];

	for (int i = 0; i < THREADS; i++) {
		actors[i].rng = (seed * THREADS + (uint64_t)i + 1) * 0x9e3779b97f4a7c15ull;
		CHECK(!pthread_create(&t[i], NULL, soak, &actors[i]));
	}
	chunks = wait_for(turns);
	atomic_store(&enough, true);
	for (int i = 0; i < THREADS; i++)
		CHECK(!pthread_join(t[i], NULL));
	settle();
	evicted = stat_now(ST_HOST_EVICTIONS);
	printf("# soak, %s, seed %llu: %llu chunks, %s, evicted %llu times: %llu turns; "
	       "%llu MiB were read, %llu MiB spilled\n", w->name, (unsigned long long)seed,
	       (unsigned long long)chunks, w->env[0], (unsigned long long)evicted,
	       (unsigned long long)(evicted / chunks),
	       (unsigned long long)(stat_now(ST_IO_READ) >> 20),
	       (unsigned long long)(stat_now(ST_IO_WRITTEN) >> 20));
	fflush(stdout);
}

static void in_process(const struct way *w)
{
	char spill[96], root[96];
	char *env[12] = { "OFFLOAD_HOST_MIN=64K", "OFFLOAD_FILES=*", spill, root };

	snprintf(spill, sizeof(spill), "OFFLOAD_SPILL=%s/spill", dir);
	snprintf(root, sizeof(root), "OFFLOAD_SYSROOT=%s/root", dir);
	for (int i = 0; w->env[i]; i++)
		env[4 + i] = (char *)w->env[i];
	CHECK(!core_init(env));
	run(w);
	core_leave();
	exit(0);		/* so that the sanitizer has its say */
}

/* Exit status of a process that runs f. */
static int in_child(void (*f)(const struct way *w), const struct way *w)
{
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		f(w);
	assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void try_mode(const struct way *w)
{
	_exit(uffd_open(w->mode) == w->mode ? 0 : 77);
}

static void soak_case(void **state)
{
	if (in_child(try_mode, *state))	/* this kernel, or our rights, know it not */
		skip();
	assert_int_equal(in_child(in_process, *state), 0);
}

/* ---- the folder: a table of sharers of our own, others have their budgets ---------------- */

static const char *const folders[] = { "spill", "root", "root/dev", "root/dev/shm" };

static int set_up(void **state)
{
	struct item x = { .n = FILE_PARTS };
	char path[128];
	int fd;

	strcpy(dir, "/var/tmp/offload-soak-XXXXXX");
	assert_non_null(mkdtemp(dir));
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, folders[i]);
		assert_false(mkdir(path, 0700));
	}
	snprintf(path, sizeof(path), "%s/root/proc", dir);
	assert_false(symlink("/proc", path));
	snprintf(path, sizeof(path), "%s/root/sys", dir);
	assert_false(symlink("/sys", path));
	snprintf(file_path, sizeof(file_path), "%s/file", dir);
	fd = open(file_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	x.p = malloc(FILE_PARTS * PART);
	for (size_t i = 0; i < FILE_PARTS; i++)
		put(&x, i, FILE_GEN);
	assert_int_equal(write(fd, x.p, FILE_PARTS * PART), FILE_PARTS * PART);
	assert_false(fsync(fd) || close(fd));
	free(x.p);
	return 0;
}

/* The spill folder is left empty: rmdir takes nothing else. */
static int tear_down(void **state)
{
	char cmd[300];

	snprintf(cmd, sizeof(cmd), "cd %s && rm -rf file root && rmdir spill && cd / && rmdir %s",
		 dir, dir);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		{ "move", soak_case, NULL, NULL, (void *)&ways[0] },
		{ "copy", soak_case, NULL, NULL, (void *)&ways[1] },
		{ "sealed", soak_case, NULL, NULL, (void *)&ways[2] },
		{ "packed", soak_case, NULL, NULL, (void *)&ways[3] },
	};

	seed = number("SOAK_SEED", (uint64_t)time(NULL));
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
