/* SPDX-License-Identifier: MIT */
/* work.c - what a case does: a piece of work under a small budget, every word of
 * it looked at, and then what the library holds still.
 *
 * (1) Zeros never match a word.
 * (2) As a program does: what fails here as it may fail for a program (malloc,
 *     mmap, fork) is gone round, and is no loss.
 * Owns nothing that outlives the case's process. Lock: none.
 */
#include "fault.h"

#include "core/anon.h"
#include "core/core.h"
#include "core/core_int.h"
#include "core/pool.h"
#include "core/spill.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB		(1ul << 20)
#define CASE_SECONDS	30

/* ---- words ----------------------------------------------------------------------- */

enum kind { HARD, SOFT, TEXT };		/* hardly packs; packs as bf16 does; well */

static uint64_t word(enum kind kind, uint64_t id, uint64_t i)
{
	uint64_t x = (id << 40) + i + 1;

	if (kind == TEXT)
		return 0x6f6f206c6c6c6120ull + (x & 0xff) + (id << 40);
	x *= 0x9e3779b97f4a7c15ull;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 32;
	return kind == SOFT ? (x & 0x80ff80ff80ff80ffull) | 0x3f003f003f003f00ull : x | 1;
}

static _Noreturn void wrong(const char *what, uint64_t i, uint64_t got)
{
	fprintf(stderr, "LOST: %s: word %llu is %016llx\n", what, (unsigned long long)i,
		(unsigned long long)got);
	_exit(9);
}

static void fill(void *p, size_t len, enum kind kind, uint64_t id)
{
	uint64_t *w = p;

	for (size_t i = 0; i < len / 8; i++)
		w[i] = word(kind, id, i);
}

static void verify(const void *p, size_t len, enum kind kind, uint64_t id, const char *what)
{
	const uint64_t *w = p;

	for (size_t i = 0; i < len / 8; i++)
		if (w[i] != word(kind, id, i))
			wrong(what, i, w[i]);
}

static void verify_zeros(const void *p, size_t len, const char *what)
{
	const uint64_t *w = p;

	for (size_t i = 0; i < len / 8; i++)
		if (w[i])
			wrong(what, i, w[i]);
}

uint64_t file_word(uint64_t i)
{
	return word(SOFT, 77, i);
}

/* ---- the program's side, as interpose/ does it -------------------------------------- */

struct block {
	void *p;
	size_t len;
	bool ours;		/* the library's; else the next allocator's */
	enum kind kind;
	uint64_t id;
};

static struct block take(size_t len, enum kind kind, uint64_t id)
{
	struct block b = { core_heap_alloc(len, 64, false), len, true, kind, id };

	if (!b.p) {
		b.ours = false;
		b.p = malloc(len);
	}
	if (!b.p)
		_exit(8);
	return b;
}

static struct block filled(size_t len, enum kind kind, uint64_t id)
{
	struct block b = take(len, kind, id);

	fill(b.p, len, kind, id);
	return b;
}

static void check(const struct block *b, const char *what)
{
	verify(b->p, b->len, b->kind, b->id, what);
}

static void drop(struct block *b)
{
	if (b->ours)
		core_heap_free(b->p);
	else
		free(b->p);
}

/* mmap of the test's file. */
static char *map_file(int prot, int flags)
{
	int fd = open(file_path, O_RDONLY | O_CLOEXEC);
	void *p = NULL;

	if (fd < 0)
		_exit(8);
	if (core_map_file(&p, NULL, FILE_SIZE, prot, flags, fd, 0) == CORE_PASS)
		p = mmap(NULL, FILE_SIZE, prot, flags, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		_exit(8);
	return p;
}

static void unmap_file(char *p, size_t from, size_t len)
{
	if (core_unmap(p + from, len) >= 0)
		munmap(p + from, len);
}

static void read_file(struct block *b, off_t off)
{
	int fd = open(file_path, O_RDONLY | O_CLOEXEC);
	size_t done = 0;

	while (fd >= 0 && done < b->len) {
		ssize_t n = pread(fd, (char *)b->p + done, b->len - done, off + (off_t)done);

		if (n <= 0)
			_exit(8);
		core_read_done(fd, (char *)b->p + done, (size_t)n, off + (off_t)done);
		done += (size_t)n;
	}
	close(fd);
}

/* ---- work ------------------------------------------------------------------------ */

/* Anonymous memory: spilled, packed, read from a file, cleared, grown. */
static void work_heap(void)
{
	struct block b[9];
	int n = 0;
	void *p;

	for (; n < 3; n++)
		b[n] = filled(2 * MIB, HARD, (uint64_t)n + 1);
	for (; n < 6; n++)
		b[n] = filled(2 * MIB, n == 5 ? TEXT : SOFT, (uint64_t)n + 1);
	b[n] = take(6 * MIB, SOFT, 77);
	read_file(&b[n++], 0);
	b[n++] = filled(2 * MIB + 4096, HARD, 20);
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < n; i++)
			check(&b[i], "heap");
	for (int i = 0; i < n; i += 3) {	/* written again */
		b[i].id += 100;
		b[i].kind = HARD;
		fill(b[i].p, b[i].len, b[i].kind, b[i].id);
	}
	for (int i = 0; i < n; i++)
		check(&b[i], "written again");
	if (b[1].ours && core_advise(b[1].p, MIB + 8192, MADV_DONTNEED) == 0) {
		verify_zeros(b[1].p, MIB + 8192, "cleared");
		fill(b[1].p, b[1].len, b[1].kind, b[1].id);
	}
	p = b[7].ours ? core_heap_resize(b[7].p, 4 * MIB) : NULL;
	if (p) {
		b[7].p = p;
		check(&b[7], "grown");
	}
	for (int i = 0; i < n; i++)
		check(&b[i], "at the end");
	for (int i = 0; i < n; i++)
		drop(&b[i]);
}

/* A mapped file, read; the same with private writes; a part unmapped. */
static void work_file(void)
{
	char *a = map_file(PROT_READ, MAP_SHARED), *b;
	size_t whole = FILE_SIZE & ~7ul;

	for (int pass = 0; pass < 3; pass++)
		verify(a, whole, SOFT, 77, "file");
	b = map_file(PROT_READ | PROT_WRITE, MAP_PRIVATE);
	verify(b, whole, SOFT, 77, "private");
	fill(b + 2 * MIB, 3 * MIB, HARD, 5);
	verify(a, whole, SOFT, 77, "file beside a private one");
	verify(b + 2 * MIB, 3 * MIB, HARD, 5, "private, written");
	unmap_file(a, 1 * MIB, 4 * MIB);
	verify(a, 1 * MIB, SOFT, 77, "before the hole");
	for (size_t i = 5 * MIB / 8; i < FILE_SIZE / 8; i++)
		if (((uint64_t *)(void *)a)[i] != word(SOFT, 77, i))
			wrong("behind the hole", i, ((uint64_t *)(void *)a)[i]);
	unmap_file(a, 0, FILE_SIZE);
	verify(b, 2 * MIB, SOFT, 77, "private, once more");
	verify(b + 2 * MIB, 3 * MIB, HARD, 5, "private, written, once more");
	unmap_file(b, 0, FILE_SIZE);
}

static void in_child(struct block *b, int n, const char *map)
{
	for (int i = 0; i < n; i++)
		check(&b[i], "in the child");
	verify(map, FILE_SIZE & ~7ul, SOFT, 77, "the child's file");
	for (int i = 0; i < n; i += 2) {
		b[i].id += 200;
		fill(b[i].p, b[i].len, b[i].kind, b[i].id);
	}
	for (int i = 0; i < n; i++)
		check(&b[i], "written by the child");
	_exit(0);
}

/* Allowed to it: what is allowed to all, and R4's other end: SIGSEGV where it could
 * not have the memory, told beforehand. */
static _Noreturn void as_the_child(int status)
{
	if (WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	signal(WTERMSIG(status), SIG_DFL);
	raise(WTERMSIG(status));
	_exit(6);
}

/* Alarms are not inherited, and a child that hangs must end as well. */
static pid_t case_fork(void)
{
	pid_t pid = fork();

	if (!pid)
		alarm(CASE_SECONDS);
	return pid;
}

static void work_fork(void)
{
	struct block b[7];
	char *map = map_file(PROT_READ, MAP_PRIVATE);
	int n = 0, status;
	pid_t pid;

	for (; n < 6; n++)
		b[n] = filled(2 * MIB, n % 2 ? SOFT : HARD, (uint64_t)n + 1);
	b[n] = take(2 * MIB, SOFT, 77);
	read_file(&b[n++], 0);
	for (int i = 0; i < n; i++)
		check(&b[i], "before");
	verify(map, FILE_SIZE & ~7ul, SOFT, 77, "file before");
	pid = case_fork();	/* core_init's handlers run */
	if (!pid)
		in_child(b, n, map);
	b[1].id += 300;
	fill(b[1].p, b[1].len, b[1].kind, b[1].id);
	for (int i = 0; i < n; i++)
		check(&b[i], "beside the child");
	if (pid > 0 && waitpid(pid, &status, 0) == pid && status)
		as_the_child(status);
	for (int i = 0; i < n; i++)
		check(&b[i], "after it");
	verify(map, FILE_SIZE & ~7ul, SOFT, 77, "file after it");
	unmap_file(map, 0, FILE_SIZE);
	for (int i = 0; i < n; i++)
		drop(&b[i]);
}

/* A chunk that was read from a file, and no other that packs or is from a file: in
 * the pool, or to be read again, before and after a fork. */
static void work_origin(void)
{
	struct block ballast = filled(14 * MIB, HARD, 1), b;
	int status;
	pid_t pid;

	b = take(2 * MIB, SOFT, 77);
	read_file(&b, 0);
	for (int pass = 0; pass < 2; pass++) {
		check(&b, "read");
		check(&ballast, "not from a file");
	}
	pid = case_fork();
	for (int pass = 0; pass < 2; pass++) {
		check(&ballast, "not from a file");
		check(&b, pid ? "beside the child" : "in the child");
	}
	if (!pid)
		_exit(0);
	if (pid > 0 && waitpid(pid, &status, 0) == pid && status)
		as_the_child(status);
	check(&b, "at the end");
	drop(&ballast);
	drop(&b);
}

const struct work_row works[WORKS] = {
	{ "heap", work_heap, false }, { "file", work_file, true },
	{ "fork", work_fork, false }, { "origin", work_origin, true },
};

const struct variant variants[VARIANTS] = {
	{ "move", { "OFFLOAD_PAGER=move" } },
	{ "copy", { "OFFLOAD_PAGER=copy" } },
	{ "move.pread", { "OFFLOAD_PAGER=move", "OFFLOAD_IO=pread" } },
	{ "move.encrypt", { "OFFLOAD_PAGER=move", "OFFLOAD_ENCRYPT=1" } },
	{ "copy.buffered",	/* files are read, not packed */
	  { "OFFLOAD_PAGER=copy", "OFFLOAD_DIRECT=off", "OFFLOAD_DISK=100G" } },
	{ "hints", { "OFFLOAD_PAGER=hints" } },
	{ "copy.packed", { "OFFLOAD_PAGER=copy", "OFFLOAD_DISK=20M" } },
};

/* ---- in the case's process --------------------------------------------------------- */

/* Opened and closed by the keeper all the time; and two of the spill file, where
 * it came to that. */
static bool may_come_and_go(const char *link, uint32_t *spills)
{
	size_t n = strlen(link);

	if (strstr(link, "/spill/#"))
		return ++*spills <= 2;
	if (strstr(link, "memfd:said"))		/* stderr, from the first message on */
		return true;
	return n > 5 && !strcmp(link + n - 5, "/stat");
}

/* names: what they are, or NULL. */
static uint32_t count_fds(const char *path, char *names, size_t room)
{
	uint32_t spills = 0;
	DIR *d = opendir(path);
	struct dirent *e;
	uint32_t n = 0;

	while (d && (e = readdir(d))) {
		char link[256];
		ssize_t len = names ? readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1) : 0;

		link[len > 0 ? len : 0] = 0;
		if (names && may_come_and_go(link, &spills))
			continue;
		n++;
		if (len <= 0 || (size_t)len + 2 > room)
			continue;
		len = snprintf(names, room, "%s ", link);
		names += len;
		room -= (size_t)len;
	}
	if (d)
		closedir(d);
	return n;
}

/* Descriptors of the thread's table whose name begins so. */
static uint32_t library_fds_now(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	uint32_t n = 0;

	while (d && !n && (e = readdir(d))) {
		char path[300], name[32] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
		f = fopen(path, "r");
		if (f && fgets(name, sizeof(name), f) && !strncmp(name, "offload-pager", 13)) {
			snprintf(path, sizeof(path), "/proc/self/task/%s/fd", e->d_name);
			n = count_fds(path, fault->names, sizeof(fault->names));
		}
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return n;
}

/* The keeper opens and closes some all the time. */
static uint32_t library_fds(void)
{
	uint32_t least = UINT32_MAX;

	for (int i = 0; i < 5; i++) {
		uint32_t n = library_fds_now();

		least = n < least ? n : least;
	}
	return least;
}

int off_je_mallctl(const char *name, void *old, size_t *old_len, void *now, size_t now_len);

static uint64_t library_memory(void)
{
	uint64_t epoch = 1;
	size_t held = 0, n = sizeof(held);

	off_je_mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch));
	off_je_mallctl("stats.allocated", &held, &n, NULL, 0);
	return held;
}

/* What is freed is given back by library threads, soon. */
static void settle(void)
{
	struct timespec t = { 0, 5000000 };

	for (int i = 0; i < 600; i++) {
		fault->left[0] = 0;
		if (pool_raw_bytes())
			snprintf(fault->left, sizeof(fault->left), "%llu bytes are packed still",
				 (unsigned long long)pool_raw_bytes());
		if (spill_bytes())
			snprintf(fault->left, sizeof(fault->left), "%llu bytes are spilled still",
				 (unsigned long long)spill_bytes());
		if (pg.inflight || pg.saving || pg.dying)
			snprintf(fault->left, sizeof(fault->left), "%u in flight, %u saving, dying %d",
				 pg.inflight, pg.saving, pg.dying);
		if (!fault->left[0])
			return;
		nanosleep(&t, NULL);
	}
}

_Noreturn void run_case(const struct work_row *w, const struct variant *v)
{
	char spill[96], root[96], trace[96];
	char *env[12] = { "OFFLOAD_RAM=8M", "OFFLOAD_HOST_MIN=64K", "OFFLOAD_WINDOW=16M",
			  "OFFLOAD_FILES=*", spill, root, trace };
	uint32_t before = count_fds("/proc/self/fd", NULL, 0);
	int n = 7;

	snprintf(trace, sizeof(trace), "OFFLOAD_TRACE=%s/spill/%d", dir, (int)getpid());
	snprintf(spill, sizeof(spill), "OFFLOAD_SPILL=%s/spill", dir);
	snprintf(root, sizeof(root), "OFFLOAD_SYSROOT=%s/root", dir);
	for (int i = 0; v->env[i]; i++)
		env[n++] = (char *)v->env[i];
	alarm(CASE_SECONDS);
	atomic_store(&fault->armed, true);
	if (core_init(env))
		_exit(7);
	w->run();
	if (keeper_running()) {
		settle();
		atomic_store(&fault->armed, false);
		fault->mode = (int)pg.mode;
		fault->fds = library_fds();
		fault->memory = library_memory();
	}
	atomic_store(&fault->armed, false);
	fault->own_fds = count_fds("/proc/self/fd", NULL, 0) - before;
	core_leave();
	unlink(off_opt.trace);
	fault->ended = true;
	_exit(0);
}
