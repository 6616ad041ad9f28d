/* SPDX-License-Identifier: MIT */
/* vmm_store.c - the file that spilled homes of device memory lie in, and its threads.
 *
 * (1) The host's spill file is the pager's alone and may not be there at all: this one is
 *     made as that is, kept apart, and counts against the same OFFLOAD_SPILL_MAX.
 * (2) The first thread leaves the program's descriptor table, makes the file, and starts
 *     the others, which share its table (R4).
 * (3) A job that fails is told, not tried again: whoever wanted it has the bytes still,
 *     or asks once more later.
 * (4) What is written is the disk's before anything relies on it only as far as the page
 *     cache is: it is of no use to anybody after the process, so nothing is synced.
 * Owns the file, its map and the queue. Lock: `lock`, leaf; the map is in the turn.
 */
#include "core/vmm_store.h"
#include "core/core_int.h"
#include "core/spill_int.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

#define THREADS		4
#define STACK		(256u << 10)
#define STEP		16u		/* blocks reserved ahead where there is room */
#define KEY		(SEAL_KEYS - 1)	/* the last: spill.c takes them from the first */

enum { CLOSED, STARTING, OPEN, OFF };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER, over = PTHREAD_COND_INITIALIZER;
static struct store_job *todo, **todo_end = &todo;
static int state, why;			/* under lock */
static struct spill_fd file;
static struct spill_map map;
static bool no_reserve, said;
static uint64_t used;			/* bytes in slots */
static uint64_t next_write;		/* OFFLOAD_SPILL_RATE: not before, under lock */

/* ---- threads ------------------------------------------------------------------------ */

static int leave_table(void)
{
	if (unshare(CLONE_FILES))
		return -errno;
	if (off_sys_close_range(0, ~0U, 0))
		for (int fd = 0; fd < 4096; fd++)
			off_sys_close(fd);
	for (int i = 0; i < 3; i++)
		off_sys_open("/dev/null", O_RDWR | O_CLOEXEC, 0);
	return 0;
}

/* Room for blocks of the file. Only these errors mean that there is none; others, that it
 * cannot be taken ahead. */
static int back(uint32_t first, uint32_t n)
{
	uint64_t total;

	if (spill_file_room(file.fd, &total) < n)
		return -ENOSPC;
	while (!no_reserve && off_sys_fallocate(file.fd, 0, (off_t)(first * CHUNK),
						(off_t)(n * CHUNK))) {
		if (errno == EINTR)
			continue;
		if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
			return -errno;
		no_reserve = true;
	}
	return 0;
}

static int transfer(const struct store_job *j)
{
	uint64_t off = (uint64_t)j->page * PAGE;
	int fd = file.direct >= 0 ? file.direct : file.fd;
	uint32_t at = 0;

	while (at < j->len) {
		char *buf = (char *)j->buf + at;
		ssize_t n = j->kind == STORE_WRITE ?
			    off_sys_pwrite(fd, buf, j->len - at, (off_t)(off + at)) :
			    off_sys_pread(fd, buf, j->len - at, (off_t)(off + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : j->kind == STORE_WRITE ? -ENOSPC : -EIO;
		at += (uint32_t)n;
		if (at % PAGE)
			fd = file.fd;
	}
	stat_add(j->kind == STORE_WRITE ? ST_IO_WRITTEN : ST_IO_READ, j->len);
	return 0;
}

/* OFFLOAD_SPILL_RATE: on average, each write after what the last ones were worth. */
static void keep_rate(uint32_t len)
{
	uint64_t now = now_ns(), at, wait;
	struct timespec t;

	pthread_mutex_lock(&lock);
	at = next_write > now ? next_write : now;
	next_write = at + len * 1000000000ull / off_opt.spill_rate;
	pthread_mutex_unlock(&lock);
	wait = at - now;
	t = (struct timespec){ (time_t)(wait / 1000000000), (long)(wait % 1000000000) };
	if (wait)
		nanosleep(&t, NULL);
}

static void run(struct store_job *j)
{
	int res;

	if (j->kind == STORE_WRITE && off_opt.spill_rate)
		keep_rate(j->len);
	res = j->kind == STORE_GROW ? back(j->page, j->len) : transfer(j);
	if (res)
		stat_add(ST_IO_ERRORS, 1);
	pthread_mutex_lock(&lock);
	j->res = res;
	j->done = true;
	pthread_cond_broadcast(&over);
	pthread_mutex_unlock(&lock);
}

static _Noreturn void serve(void)
{
	for (;;) {
		struct store_job *j;

		pthread_mutex_lock(&lock);
		while (!todo)
			pthread_cond_wait(&more, &lock);
		j = todo;
		todo = j->next;
		if (!todo)
			todo_end = &todo;
		pthread_mutex_unlock(&lock);
		run(j);
	}
}

static void *helper_main(void *unused)
{
	library_thread_enter("offload-store");
	watch_this("offload-store");
	serve();
	return NULL;
}

/* (2) */
static void *first_main(void *unused)
{
	int err;

	library_thread_enter("offload-store");
	watch_this("offload-store");
	err = leave_table();
	err = err ? err : spill_file_open(&file);
	for (int i = 1; !err && i < THREADS; i++)
		if (library_thread_start(helper_main, NULL, STACK))
			break;
	if (err)
		watch_no_more();
	pthread_mutex_lock(&lock);
	state = err ? OFF : OPEN;
	why = err;
	pthread_cond_broadcast(&over);
	pthread_mutex_unlock(&lock);
	if (!err)
		serve();
	return NULL;
}

/* Lock held, given up meanwhile: until something is over. A thread that a filter of system
 * calls ended would never say so. */
static void wait_over(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 5;
	if (pthread_cond_timedwait(&over, &lock, &until)) {
		pthread_mutex_unlock(&lock);
		watch_look();
		pthread_mutex_lock(&lock);
	}
}

static int key(void)
{
	int err = off_opt.encrypt ? seal_init() : 0;

	if (!err && off_opt.encrypt)
		err = seal_key_new(KEY);
	if (err)
		off_log("OFFLOAD_ENCRYPT=1: no key can be made (%s): no device memory is written to a file",
			strerrordesc_np(-err));
	return err;
}

int store_open(void)
{
	int err;

	pthread_mutex_lock(&lock);
	if (state == CLOSED) {
		state = STARTING;
		pthread_mutex_unlock(&lock);
		err = key();
		err = err ? err : library_thread_start(first_main, NULL, STACK);
		pthread_mutex_lock(&lock);
		if (err) {
			state = OFF;
			why = err;
		}
	}
	while (state == STARTING)
		wait_over();
	err = state == OFF ? why : 0;
	pthread_mutex_unlock(&lock);
	no_reserve |= file.memory;
	return err;
}

void store_post(struct store_job *j)
{
	j->next = NULL;
	j->done = false;
	pthread_mutex_lock(&lock);
	*todo_end = j;
	todo_end = &j->next;
	pthread_cond_signal(&more);
	pthread_mutex_unlock(&lock);
}

bool store_done(const struct store_job *j)
{
	bool done;

	pthread_mutex_lock(&lock);
	done = j->done;
	pthread_mutex_unlock(&lock);
	return done;
}

int store_wait(struct store_job *j)
{
	pthread_mutex_lock(&lock);
	while (!j->done)
		wait_over();
	pthread_mutex_unlock(&lock);
	return j->res;
}

/* ---- room ---------------------------------------------------------------------------- */

/* Blocks the file may have: (1). */
static uint32_t limit(void)
{
	uint64_t others = stat_get(stats_now(), ST_HOST_SPILLED), n;

	if (!off_opt.spill_max)
		return MAP_BLOCKS;
	n = off_opt.spill_max > others ? (off_opt.spill_max - others) / CHUNK : 0;
	return n < MAP_BLOCKS ? (uint32_t)n : MAP_BLOCKS;
}

static int refuse(const char *what)
{
	if (!said)
		off_log("device memory cannot be spilled to %s any further: %s; what does not fit is refused",
			file.folder, what);
	said = true;
	return -ENOSPC;
}

/* At least so many blocks more. The descriptors are the threads': a number of theirs is
 * another file here. */
static int grow(uint32_t least)
{
	uint32_t most = limit(), there = spill_map_backed(&map), first, n;
	int err;

	if (there > most || least > most - there)
		return refuse("OFFLOAD_SPILL_MAX is reached");
	while (least) {
		struct store_job j = { .kind = STORE_GROW };

		n = spill_map_bare(&map, least > STEP ? least : STEP, MAP_BLOCKS, &first);
		n = n < most - there ? n : most - there;
		if (!n)
			return refuse("its tables are full");
		j.page = first;
		do {
			j.len = n;
			store_post(&j);
			err = store_wait(&j);
		} while (err && n > least && (n = least));
		if (err)
			return refuse("no space is left (5% of the disk stay free)");
		if (spill_map_grow(&map, first + n))
			return refuse(strerrordesc_np(ENOMEM));
		spill_map_back(&map, first, n);
		there += n;
		least = least > n ? least - n : 0;
	}
	return 0;
}

int store_reserve(uint64_t bytes)
{
	uint64_t there = (uint64_t)spill_map_backed(&map) * CHUNK;

	if (there >= used + bytes)
		return 0;
	return grow((uint32_t)((used + bytes - there + CHUNK - 1) / CHUNK));
}

int store_take(uint32_t bytes, uint32_t *page)
{
	uint32_t pages = bytes / PAGE;
	bool whole = pages == BLOCK_PAGES;
	int err = 0;

	off_assert(bytes && bytes % PAGE == 0 && bytes <= STORE_PIECE);
	*page = spill_map_take(&map, pages, whole);
	if (*page == NO_PAGE) {
		err = grow(1);
		*page = spill_map_take(&map, pages, whole && !err);
	}
	if (*page == NO_PAGE)
		return err ? err : -ENOSPC;
	used += bytes;
	return 0;
}

void store_give(uint32_t page, uint32_t bytes)
{
	spill_map_put(&map, page, bytes / PAGE);
	used -= bytes;
}

/* ---- encryption ------------------------------------------------------------------------ */

void store_seal(struct seal *s, void *buf, uint32_t len)
{
	if (!off_opt.encrypt)
		return;
	s->number = seal_number(KEY);
	seal_make(KEY, s, buf, buf, len);
	stat_add(ST_IO_SEALED, len);
}

int store_unseal(const struct seal *s, void *buf, uint32_t len)
{
	return off_opt.encrypt ? seal_open(KEY, s, buf, len) : 0;
}

/* ---- forks ------------------------------------------------------------------------------ */

/* What is mapped for the map stays: there is no heap of ours to give it to here. */
void store_child(void)
{
	pthread_mutex_init(&lock, NULL);
	pthread_cond_init(&more, NULL);
	pthread_cond_init(&over, NULL);
	todo = NULL;
	todo_end = &todo;
	state = CLOSED;
	memset(&map, 0, sizeof(map));
	used = 0;
	said = no_reserve = false;
	next_write = 0;
	seal_key_drop(KEY);
}
