/* SPDX-License-Identifier: MIT */
/* wrap.c - the seams: every function here stands, by the linker's --wrap, for one
 * of the library or of libc, and fails when nth.c wants it to.
 *
 * (1) What is not wanted to fail goes through unchanged.
 * (2) Only what core/ calls comes here: libc's own calls, and the test's, do not
 *     (the test calls libc by names that are not wrapped).
 * Owns the count. Lock: none, atomics.
 */
#include "fault.h"

#include "core/anon.h"
#include "core/anon_int.h"
#include "core/codec.h"
#include "core/core_int.h"
#include "core/header.h"
#include "core/packer.h"
#include "core/pool.h"
#include "core/seal.h"
#include "core/spill.h"
#include "core/work.h"

#include <liburing.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef UFFDIO_MOVE
#define UFFDIO_MOVE 0xc028aa05
#endif

struct fault *fault;

const struct site_row site_rows[F_N] = {
#define ROW(seam, name, how, err, once, always) \
	{ #name, #seam, how, err, once, always },
#define SYS ROW
#define CTL ROW
#define FN ROW
#define IO ROW
#define IN ROW
#include "sites.def"
#undef SYS
#undef CTL
#undef FN
#undef IO
#undef IN
};

/* This thread is the library's of that name. */
static bool is_thread(const char *which)
{
	static _Thread_local char name[16];

	if (strncmp(name, "offload-", 8))
		pthread_getname_np(pthread_self(), name, sizeof(name));
	return !strcmp(name, which);
}

bool fault_at(enum site s)
{
	uint32_t k;

	if (!fault || !atomic_load(&fault->armed))
		return false;
	k = atomic_fetch_add(&fault->calls[s], 1) + 1;
	if (fault->site != (int)s || (fault->always ? k < fault->n : k != fault->n))
		return false;
	atomic_fetch_add(&fault->hits, 1);
	return true;
}

static void stall(void)
{
	struct timespec t = { 0, 300000000 };

	nanosleep(&t, NULL);
}

/* ---- threads ------------------------------------------------------------------- */

long __real_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f);

static void end_thread(void)
{
	__real_syscall(SYS_exit, 0, 0, 0, 0, 0, 0);
}

static void as_pager(void)
{
	if (!is_thread("offload-pager"))
		return;
	if (fault_at(F_PAGER_STALLS))
		stall();
	if (fault_at(F_PAGER_DIES))
		end_thread();
}

static void as_keeper(void)
{
	if (is_thread("offload-keeper") && fault_at(F_KEEPER_DIES))
		end_thread();
}

void __real_run_judge(struct work *w);
void __wrap_run_judge(struct work *w);
void __wrap_run_judge(struct work *w)
{
	if (is_thread("offload-work")) {
		if (fault_at(F_WORKER_STALLS))
			stall();
		if (fault_at(F_WORKER_DIES))
			end_thread();
	}
	__real_run_judge(w);
}

/* ---- system calls ---------------------------------------------------------------- */

static const struct { long nr; enum site site; } sys_sites[] = {
#define SYS(seam, name, ...) { SYS_##seam, F_##name },
#define CTL(...)
#define FN(...)
#define IO(...)
#define IN(...)
#include "sites.def"
#undef SYS
#undef CTL
};

static const struct { unsigned long req; enum site site; } ctl_sites[] = {
#define SYS(...)
#define CTL(seam, name, ...) { seam, F_##name },
#include "sites.def"
#undef SYS
#undef CTL
#undef FN
#undef IO
#undef IN
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static long failed(const struct site_row *s, long nr, long a, long b, long c, long d,
		   long e, long f)
{
	if (s->how == SHORT)	/* pages, for O_DIRECT; none at all would be the end */
		return __real_syscall(nr, a, b, c > 8192 ? c / 2 & ~4095L : c > 4096 ? 4096 : c,
				      d, e, f);
	if (s->how == AFTER)
		__real_syscall(nr, a, b, c, d, e, f);
	errno = s->err;
	return -1;
}

long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	if (nr == SYS_ppoll)
		as_pager();
	if (nr == SYS_futex)
		as_keeper();
	for (size_t i = 0; i < COUNT(sys_sites); i++)
		if (sys_sites[i].nr == nr && fault_at(sys_sites[i].site))
			return failed(&site_rows[sys_sites[i].site], nr, a, b, c, d, e, f);
	return __real_syscall(nr, a, b, c, d, e, f);
}

int __real_ioctl(int fd, unsigned long req, void *arg);
int __wrap_ioctl(int fd, unsigned long req, void *arg);
int __wrap_ioctl(int fd, unsigned long req, void *arg)
{
	for (size_t i = 0; i < COUNT(ctl_sites); i++)
		if (ctl_sites[i].req == req && fault_at(ctl_sites[i].site)) {
			/* As the kernel leaves them: nothing was done. */
			if (req == UFFDIO_MOVE || req == UFFDIO_COPY)
				((__s64 *)arg)[4] = 0;
			errno = site_rows[ctl_sites[i].site].err;
			return -1;
		}
	return __real_ioctl(fd, req, arg);
}

int __real_off_sys_ioctl(int fd, unsigned long req, void *arg);
int __wrap_off_sys_ioctl(int fd, unsigned long req, void *arg);
int __wrap_off_sys_ioctl(int fd, unsigned long req, void *arg)
{
	return __wrap_ioctl(fd, req, arg);
}

/* ---- functions ------------------------------------------------------------------- */

#define PTR(type, fn, site, params, args) \
	type __real_##fn params; \
	type __wrap_##fn params; \
	type __wrap_##fn params \
	{ \
		return fault_at(F_##site) ? NULL : __real_##fn args; \
	}
/* -errno: as the library gives it. */
#define INT(fn, site, params, args) \
	int __real_##fn params; \
	int __wrap_##fn params; \
	int __wrap_##fn params \
	{ \
		return fault_at(F_##site) ? -site_rows[F_##site].err : __real_##fn args; \
	}
/* -1 and errno. */
#define LIBC(fn, site, params, args) \
	int __real_##fn params; \
	int __wrap_##fn params; \
	int __wrap_##fn params \
	{ \
		if (!fault_at(F_##site)) \
			return __real_##fn args; \
		errno = site_rows[F_##site].err; \
		return -1; \
	}

LIBC(unshare, UNSHARE, (int f), (f))
LIBC(eventfd, EVENTFD, (unsigned int v, int f), (v, f))
LIBC(fstatfs, FSTATFS, (int fd, struct statfs *s), (fd, s))
LIBC(fchmod, FCHMOD, (int fd, mode_t m), (fd, m))
PTR(void *, mem_alloc, MEM_ALLOC, (size_t n), (n))
PTR(void *, mem_zalloc, MEM_ZALLOC, (size_t n), (n))
PTR(void *, mem_realloc, MEM_REALLOC, (void *p, size_t n), (p, n))
PTR(void *, reserve_range, RESERVE, (size_t n), (n))
PTR(struct codec_work *, codec_work_new, CODEC_WORK, (void), ())
PTR(void *, off_je_mallocx, POOL_MEMORY, (size_t n, int f), (n, f))
PTR(char *, packer_room, PACKER_ROOM, (bool must), (must))
PTR(char *, seal_room, SEAL_ROOM, (uint32_t c), (c))
INT(io_uring_queue_init, RING, (unsigned int n, struct io_uring *r, unsigned int f),
    (n, r, f))
INT(io_uring_register_eventfd, RING_EVENT, (struct io_uring *r, int fd), (r, fd))
INT(io_uring_submit, RING_SUBMIT, (struct io_uring *r), (r))
INT(spill_open, SPILL_OPEN, (void), ())
INT(spill_alloc, SPILL_ALLOC, (uint32_t n, uint64_t *ref), (n, ref))
INT(spill_fds, SPILL_FDS, (uint64_t ref, int *d, int *b), (ref, d, b))
INT(spill_fork_begin, SPILL_FORK, (void), ())
INT(spill_carry, SPILL_CARRY, (pid_t t, const int f[], int n, int o[]), (t, f, n, o))
INT(pool_open, POOL_OPEN, (uint64_t n), (n))
INT(seal_key_new, SEAL_KEY, (uint32_t f), (f))
INT(codec_image_unpack, UNPACK, (struct codec_work *w, void *d, size_t l, const void *i,
				 size_t n), (w, d, l, i, n))
INT(exchange_open, EXCHANGE_OPEN, (bool m), (m))
INT(exchange_copy, EXCHANGE_COPY, (uint32_t c, uintptr_t a, size_t l, bool g), (c, a, l, g))
INT(pages_open, PAGES_OPEN, (void), ())
INT(pages_read, PAGES_READ, (uintptr_t a, size_t l, uint64_t *e), (a, l, e))
INT(origin_open, ORIGIN_OPEN, (struct origin **o, pid_t t, int fd), (o, t, fd))
INT(origin_check, ORIGIN_CHECK, (struct origin *o, uint64_t n), (o, n))
INT(convert_region, CONVERT, (struct region *r), (r))
INT(cmd_open, CMD_OPEN, (void), ())
INT(stats_start, STATS, (void), ())
INT(budget_open, BUDGET_OPEN, (struct budget *b), (b))
INT(budget_read, BUDGET_READ, (const struct budget *b, struct budget_now *n), (b, n))
INT(budget_share_join, SHARE_JOIN, (struct budget_share *s, const struct budget *b), (s, b))
INT(budget_share_poll, SHARE_POLL,
    (struct budget_share *s, const struct budget_now *n, uint64_t r, uint64_t w, uint64_t h,
     uint64_t *o, unsigned int *c), (s, n, r, w, h, o, c))

int __real_header_read(int fd, uint64_t n, struct header *h);
int __wrap_header_read(int fd, uint64_t n, struct header *h);
int __wrap_header_read(int fd, uint64_t n, struct header *h)
{
	memset(h, 0, sizeof(*h));
	return fault_at(F_HEADER) ? -EIO : __real_header_read(fd, n, h);
}

int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x)
{
	return fault_at(F_THREAD) ? EAGAIN : __real_pthread_create(t, a, f, x);
}

ssize_t __real_codec_image_pack(struct codec_work *w, const struct codec *k, void *d,
				size_t cap, const void *s, size_t n);
ssize_t __wrap_codec_image_pack(struct codec_work *w, const struct codec *k, void *d,
				size_t cap, const void *s, size_t n);
ssize_t __wrap_codec_image_pack(struct codec_work *w, const struct codec *k, void *d,
				size_t cap, const void *s, size_t n)
{
	return fault_at(F_PACK) ? -E2BIG : __real_codec_image_pack(w, k, d, cap, s, n);
}

#define EXCHANGE(fn, site) \
	int __real_##fn(uint32_t c, uintptr_t at, size_t len, EX_ARG size_t *done); \
	int __wrap_##fn(uint32_t c, uintptr_t at, size_t len, EX_ARG size_t *done); \
	int __wrap_##fn(uint32_t c, uintptr_t at, size_t len, EX_ARG size_t *done) \
	{ \
		*done = 0; \
		return fault_at(F_##site) ? -EBUSY : __real_##fn(c, at, len, EX_PASS done); \
	}
#define EX_ARG bool wake,
#define EX_PASS wake,
EXCHANGE(exchange_in, EXCHANGE_IN)
#undef EX_ARG
#undef EX_PASS
#define EX_ARG
#define EX_PASS
EXCHANGE(exchange_out, EXCHANGE_OUT)

uint32_t __real_frames_get(bool *used);
uint32_t __wrap_frames_get(bool *used);
uint32_t __wrap_frames_get(bool *used)
{
	return fault_at(F_FRAMES) ? NO_SLOT : __real_frames_get(used);
}

int __real_pool_put(const void *image, uint32_t n, uint32_t len, uint32_t *slot);
int __wrap_pool_put(const void *image, uint32_t n, uint32_t len, uint32_t *slot);
int __wrap_pool_put(const void *image, uint32_t n, uint32_t len, uint32_t *slot)
{
	int err = fault_at(F_POOL_PUT) ? -ENOSPC : __real_pool_put(image, n, len, slot);

	if (!err && fault_at(F_POOL_FLIP))
		((char *)pool_at(*slot, &n))[n / 2] ^= 1;
	return err;
}

/* ---- reads and writes ------------------------------------------------------------- */

#define JOBS 128

extern const struct io_ops __real_io_uring_ops, __real_io_pread_ops;
extern const struct io_ops __wrap_io_uring_ops, __wrap_io_pread_ops;

static const struct io_ops *engine;
static struct io_job jobs[JOBS];	/* under way; len 0: free */
static struct timespec stalled_until;

static int uring_open(uint32_t depth)
{
	memset(jobs, 0, sizeof(jobs));
	engine = &__real_io_uring_ops;
	return engine->open(depth);
}

static int pread_open(uint32_t depth)
{
	memset(jobs, 0, sizeof(jobs));
	engine = &__real_io_pread_ops;
	return engine->open(depth);
}

static int submit(const struct io_job *job)
{
	int i = 0, err;

	if (fault_at(F_SUBMIT))
		return -EAGAIN;
	err = engine->submit(job);
	while (!err && i < JOBS && jobs[i].len)
		i++;
	if (!err && i < JOBS)
		jobs[i] = *job;
	return err;
}

static struct io_job take_job(uint32_t tag)
{
	struct io_job job = { 0 };

	for (int i = 0; i < JOBS; i++)
		if (jobs[i].len && jobs[i].chunk == tag) {
			job = jobs[i];
			jobs[i].len = 0;
			break;
		}
	return job;
}

/* The second half of what was written is not on the disk. */
static void tear(const struct io_job *job)
{
	static char old[CHUNK / 2] __attribute__((aligned(4096)));

	(void)!pwrite(job->fd, old, sizeof(old), (off_t)job->off + CHUNK / 2);
}

static void flip_on_disk(const struct io_job *job)
{
	static char page[PAGE] __attribute__((aligned(4096)));

	(void)!pread(job->fd, page, PAGE, (off_t)job->off + 8 * PAGE);
	page[100] ^= 4;
	(void)!pwrite(job->fd, page, PAGE, (off_t)job->off + 8 * PAGE);
}

static int worse(enum site s, int res)
{
	return site_rows[s].how == SHORT ? res / 2 : -site_rows[s].err;
}

static int after_write(const struct io_job *job, int res)
{
	static const enum site fails[] = { F_SPILL_WRITE, F_SPILL_WRITE_FULL, F_SPILL_WRITE_SHORT };

	for (size_t i = 0; i < COUNT(fails); i++)
		if (fault_at(fails[i]))
			return worse(fails[i], res);
	if (fault_at(F_SPILL_WRITE_TORN))
		tear(job);
	if (fault_at(F_SPILL_WRITE_FLIP))
		flip_on_disk(job);
	return res;
}

static int after_read(const struct io_job *job, int res)
{
	static const enum site spill[] = { F_SPILL_READ, F_SPILL_READ_SHORT },
		file[] = { F_FILE_READ, F_FILE_READ_SHORT }, origin[] = { F_ORIGIN_READ };
	bool verify = job->chunk & IO_TAG_VERIFY;
	bool heap = (job->chunk & ~IO_TAG_VERIFY) >= MAX_CHUNKS - HEAP_CHUNKS;
	const enum site *list = verify ? origin : heap ? spill : file;
	size_t n = verify ? 1 : 2;

	for (size_t i = 0; i < n; i++)
		if (fault_at(list[i]))
			return worse(list[i], res);
	/* Of a file's bytes nobody knows better: the kernel would show them, too. */
	if (verify ? fault_at(F_ORIGIN_READ_FLIP) : heap && fault_at(F_SPILL_READ_FLIP))
		((char *)job->buf)[job->len / 2 + 40] ^= 16;
	return res;
}

static bool stalls(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (fault_at(F_DISK_STALLS)) {
		stalled_until = now;
		stalled_until.tv_nsec += 300000000;
	}
	return now.tv_sec < stalled_until.tv_sec ||
		(now.tv_sec == stalled_until.tv_sec && now.tv_nsec < stalled_until.tv_nsec);
}

static int reap(struct io_done *out, int max)
{
	int n = stalls() ? 0 : engine->reap(out, max);

	for (int i = 0; i < n; i++) {
		struct io_job job = take_job(out[i].chunk);

		if (job.kind == IO_WRITE)
			out[i].res = after_write(&job, out[i].res);
		else if (job.kind == IO_READ && job.len)
			out[i].res = after_read(&job, out[i].res);
	}
	return n;
}

static int event_fd(void)
{
	return engine->fd();
}

const struct io_ops __wrap_io_uring_ops = {
	"io_uring", uring_open, submit, reap, event_fd
}, __wrap_io_pread_ops = {
	"pread", pread_open, submit, reap, event_fd
};
