/* SPDX-License-Identifier: MIT */
/* trap.h - what every trap program shares: test files and exact checks.
 *
 * Owns the test file of one program: a GGUF with one I8 tensor whose bytes
 * are words made from their file offset and a seed, so that any range can be
 * checked alone and no page can stand in for another.
 *
 * (1) A program passes (exit 0) with and without the library: all it may
 *     rely on is what the kernel promises.
 * (2) Every byte that is claimed right is compared. Zeros never match.
 * (3) A failure says what, where, expected and found, and exits 1; a thing
 *     the machine lacks exits 77.
 * Environment, set by run.sh: TRAP_MODE (plain, move, copy, hints, off, or
 * torture), TRAP_CACHE (directory of files kept between programs), TMPDIR.
 * Lock: none; programs are told where helpers are not thread safe.
 */
#ifndef TRAP_H
#define TRAP_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KIB		1024UL
#define MIB		(1024UL * KIB)
#define TRAP_SIZE	(64 * MIB)	/* twice the usual OFFLOAD_RAM */
#define TRAP_DATA	128UL		/* the header fits below; data start */
#define PAGE		4096UL

#define T_FMT(f, a)	__attribute__((format(printf, f, a)))

struct trap {
	char path[PATH_MAX];
	size_t size;
	uint32_t seed;
	unsigned char *map;	/* of the whole file, or NULL */
};

/* ---- ending --------------------------------------------------------------- */

T_FMT(2, 0)
static inline _Noreturn void trap_die(int code, const char *fmt, va_list ap)
{
	char buf[1024];
	int n = snprintf(buf, sizeof(buf), "%s[%d]: ",
			 program_invocation_short_name, (int)getpid());

	n += vsnprintf(buf + n, sizeof(buf) - n - 1, fmt, ap);
	if (n > (int)sizeof(buf) - 2)
		n = sizeof(buf) - 2;
	buf[n++] = '\n';
	if (write(2, buf, n) != n)
		code = 1;
	_exit(code);	/* a fork child must not run the parent's exit */
}

T_FMT(1, 2)
static inline _Noreturn void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	trap_die(1, fmt, ap);
}

T_FMT(1, 2)
static inline _Noreturn void skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	trap_die(77, fmt, ap);
}

/* For conditions that say it all; errno is shown. */
#define check(cond) \
	((cond) ? (void)0 : fail("line %d: not (%s), errno %s", __LINE__, \
				 #cond, strerrorname_np(errno)))

/* ---- what is asked of this run -------------------------------------------- */

static inline bool trap_mode_is(const char *mode)
{
	const char *m = getenv("TRAP_MODE");

	return m && !strcmp(m, mode);
}

/* The library pages file regions itself, by force: its own rules (mlock
 * beyond the budget, a changed file) are asserted, not only tolerated. */
static inline bool trap_paged(void)
{
	return trap_mode_is("move") || trap_mode_is("copy");
}

/* ---- contents ------------------------------------------------------------- */

/* Seeds with this bit: words that are four bf16 numbers, and pack well. */
#define TRAP_SOFT 0x8000u

static inline uint64_t trap_word(uint64_t off, uint32_t seed)
{
	uint64_t x = off + ((uint64_t)seed << 48) + 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	if (seed & TRAP_SOFT)
		return (x & 0x80ff80ff80ff80ffull) | 0x3f003f003f003f00ull;
	return (x ^ (x >> 31)) | 1;	/* never 0 */
}

static inline size_t trap_put(unsigned char *buf, size_t at, const void *p,
			      size_t n)
{
	memcpy(buf + at, p, n);
	return at + n;
}

/* GGUF v3: one tensor "blk.0.w" of type I8 (24), from TRAP_DATA to the end
 * of a file that is `promised` bytes long. */
static inline void trap_header(unsigned char *buf, size_t promised)
{
	const uint32_t version = 3, dims = 1, type = 24;
	const uint64_t tensors = 1, keys = 0, name_len = 7, off = 0;
	const uint64_t bytes = promised - TRAP_DATA;
	size_t at = 0;

	memset(buf, 0, TRAP_DATA);
	at = trap_put(buf, at, "GGUF", 4);
	at = trap_put(buf, at, &version, 4);
	at = trap_put(buf, at, &tensors, 8);
	at = trap_put(buf, at, &keys, 8);
	at = trap_put(buf, at, &name_len, 8);
	at = trap_put(buf, at, "blk.0.w", 7);
	at = trap_put(buf, at, &dims, 4);
	at = trap_put(buf, at, &bytes, 8);
	at = trap_put(buf, at, &type, 4);
	trap_put(buf, at, &off, 8);
}

/* The bytes [off, off+len) of a file of that size and seed; zeros past its
 * end, as the last page of a mapping has them. off: a multiple of 8. */
static inline void trap_expect(unsigned char *buf, uint64_t off, size_t len,
			       size_t size, uint32_t seed)
{
	unsigned char head[TRAP_DATA];
	uint64_t w;

	for (size_t i = 0; i < len; i += 8) {
		w = trap_word(off + i, seed);
		memcpy(buf + i, &w, len - i < 8 ? len - i : 8);
	}
	if (off < TRAP_DATA) {
		trap_header(head, size);
		memcpy(buf, head + off,
		       len < TRAP_DATA - off ? len : TRAP_DATA - off);
	}
	if (off + len > size)
		memset(buf + (size > off ? size - off : 0), 0,
		       off + len - (size > off ? size : off));
}

static inline void trap_differ(const unsigned char *p,
			       const unsigned char *want, size_t n,
			       uint64_t off, const char *what)
{
	size_t i = 0, zeros = 0;

	while (i < n && p[i] == want[i])
		i++;
	for (size_t k = i; k < n; k++)
		zeros += !p[k];
	fail("%s: wrong byte at file offset %#llx (%p): %02x, not %02x; "
	     "%zu of the next %zu bytes are zero",
	     what, (unsigned long long)(off + i), (const void *)(p + i), p[i],
	     want[i], zeros, n - i);
}

/* Compares p with the file's bytes [off, off+len). Any thread. */
static inline void verify_at(const struct trap *t, const void *mem,
			     uint64_t off, size_t len, const char *what)
{
	const unsigned char *p = mem;
	unsigned char want[PAGE];

	while (len) {
		size_t skew = off % 8;
		size_t n = len < PAGE - skew ? len : PAGE - skew;

		trap_expect(want, off - skew, n + skew, t->size, t->seed);
		if (memcmp(p, want + skew, n))
			trap_differ(p, want + skew, n, off, what);
		p += n;
		off += n;
		len -= n;
	}
}

/* The same for a range of the whole file's mapping. */
static inline void verify(const struct trap *t, uint64_t off, size_t len,
			  const char *what)
{
	verify_at(t, t->map + off, off, len, what);
}

static inline void verify_all(const struct trap *t, const char *what)
{
	verify(t, 0, t->size, what);
}

/* Walks the whole mapping often enough that twice the budget cannot stay. */
static inline void verify_passes(const struct trap *t, int n, const char *what)
{
	for (int i = 0; i < n; i++)
		verify_all(t, what);
}

/* ---- files ---------------------------------------------------------------- */

static inline void trap_write_all(int fd, const void *buf, size_t n,
				  off_t off)
{
	check(pwrite(fd, buf, n, off) == (ssize_t)n);
}

/* Writes the file anew; its header promises `promised` bytes. */
static inline void trap_write(struct trap *t, size_t promised)
{
	static unsigned char buf[MIB];
	int fd = open(t->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		fail("%s: %s", t->path, strerror(errno));
	for (size_t off = 0; off < t->size; off += MIB) {
		size_t n = t->size - off < MIB ? t->size - off : MIB;

		trap_expect(buf, off, n, promised, t->seed);
		trap_write_all(fd, buf, n, off);
	}
	close(fd);
}

/* Dirty pages would refuse to be dropped from the page cache. */
static inline void trap_flush(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	check(fd >= 0);
	fsync(fd);
	close(fd);
}

static inline const char *trap_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && *dir ? dir : "/tmp";
}

/* A file of its own, which the program may change; trap_done removes it. */
static inline void trap_private(struct trap *t, const char *dir, size_t size,
				uint32_t seed)
{
	*t = (struct trap){ .size = size, .seed = seed };
	snprintf(t->path, sizeof(t->path), "%s/trap.%s.%d.%u.gguf", dir,
		 program_invocation_short_name, (int)getpid(), seed);
	trap_write(t, size);
}

/* A file nobody changes: kept in TRAP_CACHE, made by whoever comes first. */
static inline void trap_shared(struct trap *t, size_t size, uint32_t seed)
{
	const char *dir = getenv("TRAP_CACHE");
	char final[PATH_MAX];
	struct stat st;

	if (!dir || !*dir) {
		trap_private(t, trap_dir(), size, seed);
		return;
	}
	snprintf(final, sizeof(final), "%s/trap-%zu-%u.gguf", dir, size, seed);
	if (stat(final, &st) || (size_t)st.st_size != size) {
		trap_private(t, dir, size, seed);
		trap_flush(t->path);
		check(!rename(t->path, final));
	}
	*t = (struct trap){ .size = size, .seed = seed };
	memcpy(t->path, final, sizeof(final));
}

static inline int trap_open(const struct trap *t)
{
	int fd = open(t->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail("%s: %s", t->path, strerror(errno));
	return fd;
}

/* Maps len bytes from off; the descriptor is closed, as engines do. */
static inline unsigned char *trap_map_at(const struct trap *t, size_t len,
					 off_t off, int prot, int flags)
{
	int fd = trap_open(t);
	void *p = mmap(NULL, len, prot, flags, fd, off);

	if (p == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	close(fd);
	return p;
}

static inline void trap_map(struct trap *t, int prot, int flags)
{
	t->map = trap_map_at(t, t->size, 0, prot, flags);
}

/* The usual beginning: the shared file, mapped as engines map it. */
static inline void trap_start(struct trap *t)
{
	trap_shared(t, TRAP_SIZE, 1);
	trap_map(t, PROT_READ, MAP_SHARED);
}

/* A victim: reads a file it has mapped beyond where it has then been cut. */
static inline _Noreturn void trap_shorten(struct trap *t, const char *path, size_t keep)
{
	snprintf(t->path, sizeof(t->path), "%s", path);
	trap_map(t, PROT_READ, MAP_SHARED);
	verify_passes(t, 3, "before");
	check(!truncate(t->path, (off_t)keep));
	for (int i = 0; i < 10; i++)
		verify(t, keep, t->size - keep, "beyond the new end");
	fail("%zu MiB that are nowhere were read ten times over", (t->size - keep) / MIB);
}

static inline void trap_unmap(struct trap *t)
{
	if (t->map)
		check(!munmap(t->map, t->size));
	t->map = NULL;
}

/* The usual end; a private file goes. */
static inline int trap_done(struct trap *t)
{
	const char *cache = getenv("TRAP_CACHE");

	trap_unmap(t);
	if (!cache || !*cache || strncmp(t->path, cache, strlen(cache)))
		unlink(t->path);
	return 0;
}

/* ---- processes ------------------------------------------------------------ */

/* Waits; the child must have exited with 0. */
static inline void trap_wait(pid_t pid, const char *what)
{
	int st = 0;

	check(pid > 0);
	while (waitpid(pid, &st, 0) != pid)
		check(errno == EINTR);
	if (WIFSIGNALED(st))
		fail("%s: killed by signal %d", what, WTERMSIG(st));
	if (WEXITSTATUS(st))
		fail("%s: exit status %d", what, WEXITSTATUS(st));
}

/* What a child made by trap_run left behind. */
struct trap_child { int status; char err[4096]; };

/* What a statistics file of a child is called, so that the program's own
 * stays: run.sh reads that one. */
static inline void trap_child_env(void)
{
	const char *path = getenv("OFFLOAD_STATS");
	char buf[PATH_MAX];

	if (!path || !strchr(path, '/'))
		return;
	snprintf(buf, sizeof(buf), "%s.child", path);
	setenv("OFFLOAD_STATS", buf, 1);
}

/* Runs this program again with the arguments, waits, keeps its stderr. */
static inline void trap_run(struct trap_child *c, const char *arg1,
			    const char *arg2)
{
	extern char **environ;
	char *argv[] = { program_invocation_name, (char *)arg1, (char *)arg2,
			 NULL };
	posix_spawn_file_actions_t fa;
	size_t n = 0;
	char own[PATH_MAX] = "";
	ssize_t got;
	int p[2];
	pid_t pid;

	if (getenv("OFFLOAD_STATS"))
		snprintf(own, sizeof(own), "%s", getenv("OFFLOAD_STATS"));
	trap_child_env();
	check(!pipe2(p, O_CLOEXEC));
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, p[1], 2);
	check(!posix_spawn(&pid, "/proc/self/exe", &fa, NULL, argv, environ));
	posix_spawn_file_actions_destroy(&fa);
	close(p[1]);
	while ((got = read(p[0], c->err + n, sizeof(c->err) - 1 - n)) > 0)
		n += got;
	c->err[n] = 0;
	close(p[0]);
	check(waitpid(pid, &c->status, 0) == pid);
	if (*own)
		setenv("OFFLOAD_STATS", own, 1);
}

/* ---- probing addresses; one thread at a time ------------------------------ */

static sigjmp_buf trap_jump;
static volatile sig_atomic_t trap_armed;

static inline void trap_caught(int sig)
{
	if (trap_armed)
		siglongjmp(trap_jump, sig);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* Reads (or writes) one byte: 0, SIGSEGV or SIGBUS. */
static inline int trap_probe(volatile unsigned char *p, bool write)
{
	struct sigaction sa = { .sa_handler = trap_caught }, segv, bus;
	int sig;

	sigaction(SIGSEGV, &sa, &segv);
	sigaction(SIGBUS, &sa, &bus);
	sig = sigsetjmp(trap_jump, 1);
	if (!sig) {
		trap_armed = 1;
		if (write)
			*p = 0x5a;
		else
			(void)*p;
	}
	trap_armed = 0;
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	return sig;
}

/* [p, p+len) must really be unmapped: nothing can be read there, and the
 * kernel gives the place to whoever asks for it. */
static inline void trap_is_hole(unsigned char *p, size_t len, const char *what)
{
	void *q;

	if (trap_probe(p, false) != SIGSEGV ||
	    trap_probe(p + len - 1, false) != SIGSEGV)
		fail("%s: still readable after munmap", what);
	q = mmap(p, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		 MAP_FIXED_NOREPLACE, -1, 0);
	if (q != p)
		fail("%s: the place is not free: %s", what, strerror(errno));
	check(!munmap(p, len));
}

/* ---- what the kernel says of this process --------------------------------- */

/* Entries of a /proc directory, without . and .. and the one that reads. */
static inline int trap_count(const char *dir)
{
	char buf[4096];
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
	long got;

	check(fd >= 0);
	while ((got = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0)
		for (long at = 0; at < got;) {
			unsigned short reclen;

			memcpy(&reclen, buf + at + 16, 2);
			n += buf[at + 19] != '.';
			at += reclen;
		}
	close(fd);
	return n;
}

static inline int trap_fds(void)
{
	return trap_count("/proc/self/fd") - 1;
}

/* A value of /proc/self/status, in its unit (kB). */
static inline long trap_status(const char *key)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "re");
	long v = -1;

	check(f != NULL);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) &&
		    line[strlen(key)] == ':')
			v = strtol(line + strlen(key) + 1, NULL, 10);
	fclose(f);
	return v;
}

static inline int trap_vmas(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	int n = 0, c;

	check(f != NULL);
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

/* A small generator, so that random walks are the same in every run. */
static inline uint32_t trap_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

/* Checks `n` pages of the mapping picked at random. Each may cost the read of
 * a whole chunk: tens, not thousands. */
static inline void verify_random(const struct trap *t, int n, uint32_t seed,
				 const char *what)
{
	while (n--) {
		size_t page = trap_random(&seed) % (t->size / PAGE);

		verify(t, page * PAGE, PAGE, what);
	}
}

#endif
