/* SPDX-License-Identifier: MIT */
/* spill.c - the spill file store: room, leases, the write rate.
 *
 *     file:  unused --first need--> own --fork, in the child--> inherited
 *            inherited --last slot freed--> unused
 *
 * (1) The own file alone gives room and is written; an inherited one is only
 *     read, whatever happens in the parent.
 * (2) A page that was live at a fork is not given out again before nobody
 *     else holds a lock on the file. The lock the child gets is taken on a
 *     description of its own before the fork, so that there is no moment
 *     without one; locks are dropped by closing, never by unlocking, for a
 *     description may be shared by several children.
 * (3) The file never holds more than OFFLOAD_SPILL_MAX, free pages in it
 *     included, and is never grown into the last 5% of the file system.
 * (4) Growing, shrinking and punching wait for direct I/O in flight: they are
 *     done in steps.
 * Owns the files and their tables; lock: none, see spill.h.
 */
#include "core/seal.h"
#include "core/spill_int.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <unistd.h>

#define STEP		32U	/* blocks reserved ahead: 64 MiB */
#define GIVE_BACK	512U	/* blocks given back in one call: 1 GiB */
#define PUNCH_LEAST	4U	/* blocks in a row that are worth it */
#define SECOND		1000000000ull

struct spill_file {
	bool used, inherited;
	bool can_direct;
	bool no_reserve, no_punch;	/* the file system has no such call */
	int fd, direct;
	int guard;			/* holds the lease during a fork */
	dev_t dev;
	ino_t ino;
	const char *folder;
	struct spill_map map;
};

static struct spill_file file[SPILL_FILES];
static int own = -1;			/* index */
static enum { CLOSED, OPEN, OFF } state;
static uint32_t forks;			/* under way */
static uint64_t live_pages;		/* in all files */
static bool refused;			/* by the file system, at refused_at */
static uint64_t refused_at;
static bool said_cap, said_full;

/* ---- files ----------------------------------------------------------------- */

static struct spill_file *file_of(uint64_t ref)
{
	uint64_t i = ref >> 48;

	return i < SPILL_FILES && file[i].used ? &file[i] : NULL;
}

static uint64_t ref_of(const struct spill_file *f, uint32_t page)
{
	return (uint64_t)(f - file) << 48 | page;
}

static void tell(void)
{
	stat_set(ST_HOST_SPILLED, live_pages * PAGE);
}

static void close_all(struct spill_file *f)
{
	int *fd[] = { &f->fd, &f->direct, &f->guard };

	for (int i = 0; i < 3; i++) {
		if (*fd[i] >= 0)
			off_sys_close(*fd[i]);
		*fd[i] = -1;
	}
}

/* An inherited file is of no use without slots; the own one stays. */
static void drop_empty(struct spill_file *f)
{
	if (!f->used || !f->inherited || f->map.live_pages || f->guard >= 0)
		return;
	close_all(f);
	seal_key_drop((uint32_t)(f - file));
	spill_map_free(&f->map);
	*f = (struct spill_file){ 0 };
}

/* Without a key nothing may be written there. */
static int make_key(int i, const struct spill_fd *made)
{
	int err = off_opt.encrypt ? seal_key_new((uint32_t)i) : 0;

	if (!err)
		return 0;
	off_log("OFFLOAD_ENCRYPT=1: no key can be made (%s), so nothing is written to a spill file; unset it where the disk may see what is in memory",
		strerrordesc_np(-err));
	off_sys_close(made->fd);
	if (made->direct >= 0)
		off_sys_close(made->direct);
	return err;
}

static int open_own(void)
{
	struct spill_fd made;
	int i = 0, err;

	while (i < SPILL_FILES && file[i].used)
		i++;
	if (i == SPILL_FILES) {
		off_log("spilling is off: %d forks deep, each with slots of its own", SPILL_FILES);
		return -ENFILE;
	}
	err = spill_file_open(&made);
	if (!err)
		err = make_key(i, &made);
	if (err)
		return err;
	file[i] = (struct spill_file){
		.used = true, .fd = made.fd, .direct = made.direct, .guard = -1,
		.can_direct = made.direct >= 0,
		.dev = made.dev, .ino = made.ino, .folder = made.folder,
		/* Reserving there would take the memory at once. */
		.no_reserve = made.memory,
	};
	own = i;
	refused = false;
	return 0;
}

int spill_open(void)
{
	int err = 0;

	if (state == OFF)
		return -ENODEV;
	if (state == CLOSED && own < 0)
		err = open_own();
	state = err ? OFF : OPEN;
	stat_set(ST_BUDGET_SPILL, off_opt.spill_max);
	return err;
}

int spill_fds(uint64_t ref, int *direct, int *buffered)
{
	const struct spill_file *f = file_of(ref);

	if (!f || f->fd < 0)
		return -EBADF;
	*direct = f->direct;
	*buffered = f->fd;
	return 0;
}

const char *spill_folder(uint64_t ref)
{
	const struct spill_file *f = file_of(ref);

	return f ? f->folder : "a folder that is gone";
}

uint64_t spill_bytes(void)
{
	return live_pages * PAGE;
}

/* ---- room -------------------------------------------------------------------- */

static uint32_t limit_blocks(void)
{
	uint64_t n = off_opt.spill_max / CHUNK;

	return off_opt.spill_max && n < MAP_BLOCKS ? (uint32_t)n : MAP_BLOCKS;
}

static int reach_cap(void)
{
	char size[32];

	if (!said_cap)
		off_log("the spill file has reached OFFLOAD_SPILL_MAX (%s): what does not fit stays in memory; raise it, or unset it",
			options_size_text(off_opt.spill_max, size, sizeof(size)));
	said_cap = true;
	return -ENOSPC;
}

static int refuse(const struct spill_file *f, const char *why)
{
	refused = true;
	refused_at = now_ns();
	if (!said_full)
		off_log("the spill file in %s cannot grow: %s; what does not fit stays in memory: make room there, or set OFFLOAD_SPILL to another folder",
			f->folder, why);
	said_full = true;
	return -ENOSPC;
}

static int reserve(struct spill_file *f, uint32_t first, uint32_t n)
{
	int err = 0;

	while (!f->no_reserve &&
	       off_sys_fallocate(f->fd, 0, (off_t)(first * CHUNK), (off_t)(n * CHUNK))) {
		if (errno == EINTR)
			continue;
		err = -errno;
		break;
	}
	/* Only these mean that the room is not there; others, that it cannot be
	 * reserved ahead. */
	if (!err || err == -ENOSPC || err == -EDQUOT || err == -EFBIG)
		return err;
	f->no_reserve = true;
	return 0;
}

static int refuse_for(const struct spill_file *f, int err)
{
	return refuse(f, err == -EDQUOT ? "the disk quota is used up" :
		      err == -EFBIG ? "it may be no larger (ulimit -f)" :
		      "no space is left");
}

static int refuse_low(const struct spill_file *f, uint64_t total_mib)
{
	char why[96];

	snprintf(why, sizeof(why), "less than 5%% of the %llu MiB there would stay free",
		 (unsigned long long)total_mib);
	return refuse(f, why);
}

/* At least one more block, a step of them where there is room. */
static int back_more(struct spill_file *f)
{
	uint32_t first, n = spill_map_bare(&f->map, STEP, limit_blocks(), &first);
	uint64_t total, room;
	int err;

	if (!n)
		return reach_cap();
	if (refused && now_ns() - refused_at < SECOND)
		return -ENOSPC;
	room = spill_file_room(f->fd, &total);
	if (!room)
		return refuse_low(f, total);
	n = n < room ? n : (uint32_t)room;
	if (spill_map_grow(&f->map, first + n))
		return -ENOMEM;
	err = reserve(f, first, n);
	if (err && n > 1)
		err = reserve(f, first, n = 1);
	if (err)
		return refuse_for(f, err);
	refused = false;
	spill_map_back(&f->map, first, n);
	return 0;
}

/* Rather another block than one 2 MiB slot across two of them. */
static int take(struct spill_file *f, uint32_t pages, uint32_t *page)
{
	bool whole = pages == BLOCK_PAGES;
	int err = 0;

	*page = spill_map_take(&f->map, pages, whole);
	if (*page == NO_PAGE) {
		err = back_more(f);
		*page = spill_map_take(&f->map, pages, whole && !err);
	}
	return *page == NO_PAGE ? err : 0;
}

int spill_alloc(uint32_t bytes, uint64_t *ref)
{
	uint32_t page;
	int err;

	if (!bytes || bytes % PAGE || bytes > CHUNK)
		return -EINVAL;
	if (state != OPEN)
		return -ENODEV;
	if (forks)
		return -EAGAIN;
	if (own < 0 && open_own()) {
		state = OFF;
		return -ENODEV;
	}
	err = take(&file[own], bytes / PAGE, &page);
	if (err)
		return err;
	live_pages += bytes / PAGE;
	tell();
	*ref = ref_of(&file[own], page);
	return 0;
}

void spill_free(uint64_t ref, uint32_t bytes)
{
	struct spill_file *f = file_of(ref);

	off_assert(f && bytes && bytes % PAGE == 0 && bytes <= CHUNK);
	spill_map_put(&f->map, (uint32_t)(spill_offset(ref) / PAGE), bytes / PAGE);
	live_pages -= bytes / PAGE;
	tell();
	drop_empty(f);
}

/* ---- giving room back -------------------------------------------------------- */

/* The end of the file; a step of it is kept as long as anything is stored.
 * Returns how many blocks may still be given back in this call. */
static uint32_t cut_tail(struct spill_file *f)
{
	struct spill_map *m = &f->map;
	uint32_t end = spill_map_end(m), top = spill_map_top(m);
	uint32_t keep = end ? end + STEP : 0;

	if (top <= keep)
		return GIVE_BACK;
	if (top - keep > GIVE_BACK)
		keep = top - GIVE_BACK;
	if (off_sys_ftruncate(f->fd, (off_t)(keep * CHUNK)))
		return 0;
	for (uint32_t b = keep; b < top; b++)	/* some are bare already */
		if (m->backed[b])
			spill_map_unback(m, b, 1);
	return GIVE_BACK - (top - keep);
}

static int punch(struct spill_file *f, uint32_t first, uint32_t n)
{
	while (off_sys_fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 (off_t)(first * CHUNK), (off_t)(n * CHUNK)))
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* Free runs in the middle, from the top down, when they are more than a step
 * and an eighth of the file. True when there may be more to punch. */
static bool punch_holes(struct spill_file *f, uint32_t left)
{
	struct spill_map *m = &f->map;
	uint32_t below = spill_map_end(m), n, first;
	uint32_t keep = STEP + spill_map_backed(m) / 8;
	uint32_t spare = spill_map_spares(m, below);

	while (!f->no_punch && left >= PUNCH_LEAST && spare > keep &&
	       (n = spill_map_spare(m, below, PUNCH_LEAST, left, &first))) {
		if (punch(f, first, n)) {
			f->no_punch = true;
			break;
		}
		spill_map_unback(m, first, n);
		below = first;
		spare -= n;
		left -= n;
	}
	return left < PUNCH_LEAST;
}

static void give_back(struct spill_file *f)
{
	uint32_t left;

	if (!f->map.idle)
		return;
	left = cut_tail(f);
	f->map.idle = punch_holes(f, left);
}

/* ---- leases ------------------------------------------------------------------ */

/* True unless it is certain that no other description holds a lock. */
static bool in_use_elsewhere(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return off_sys_fcntl(fd, F_OFD_GETLK, (long)&lock) || lock.l_type != F_UNLCK;
}

static int take_lease(int fd)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };

	return off_sys_fcntl(fd, F_OFD_SETLK, (long)&lock) ? -errno : 0;
}

void spill_poll(void)
{
	struct spill_file *f = own < 0 ? NULL : &file[own];

	if (!f)
		return;
	if (f->map.leased && !in_use_elsewhere(f->fd))
		spill_map_release(&f->map);
	give_back(f);
}

static int guard(struct spill_file *f)
{
	int err;

	if (f->guard >= 0)		/* of a fork that is under way */
		return 0;
	f->guard = spill_file_reopen(f->fd, O_RDONLY);
	if (f->guard < 0) {
		err = f->guard;
		f->guard = -1;
		return err;
	}
	err = take_lease(f->guard);
	if (err) {
		off_sys_close(f->guard);
		f->guard = -1;
	}
	return err;
}

int spill_fork_begin(void)
{
	int err = 0;

	forks++;
	for (int i = 0; i < SPILL_FILES && !err; i++)
		if (file[i].used && file[i].map.live_pages)
			err = file[i].fd < 0 ? -EBADF : guard(&file[i]);
	if (err) {
		spill_fork_end();
		return err;
	}
	if (own >= 0)
		spill_map_hold(&file[own].map);
	return 0;
}

int spill_export(int fds[], int max)
{
	int n = 0;

	for (int i = 0; i < SPILL_FILES; i++) {
		if (!file[i].used || file[i].guard < 0)
			continue;
		if (n < max)
			fds[n] = file[i].guard;
		n++;
	}
	return n;
}

int spill_carry(pid_t tid, const int fds[], int n, int out[])
{
	int err, first = 0;
	char link[64];

	for (int i = 0; i < n; i++) {
		snprintf(link, sizeof(link), "/proc/self/task/%d/fd/%d", (int)tid, fds[i]);
		out[i] = off_sys_open(link, O_RDONLY | O_CLOEXEC | O_NOCTTY, 0);
		err = out[i] < 0 ? -errno : take_lease(out[i]);
		if (!err)
			continue;
		if (out[i] >= 0)
			off_sys_close(out[i]);
		out[i] = -1;
		first = first ? first : err;
	}
	return first;
}

void spill_fork_end(void)
{
	off_assert(forks);
	if (--forks)
		return;
	for (int i = 0; i < SPILL_FILES; i++) {
		if (!file[i].used || file[i].guard < 0)
			continue;
		off_sys_close(file[i].guard);
		file[i].guard = -1;
		drop_empty(&file[i]);
	}
}

/* ---- in the child ---------------------------------------------------------------- */

static struct spill_file *lost_file(const struct stat *st)
{
	for (int i = 0; i < SPILL_FILES; i++)
		if (file[i].used && file[i].fd < 0 && file[i].dev == st->st_dev &&
		    file[i].ino == st->st_ino)
			return &file[i];
	return NULL;
}

/* The lock is there already, unless the descriptor came in another way. */
static void adopt(int fd)
{
	struct spill_file *f = NULL;
	struct stat st;
	int direct;

	if (!off_sys_fstat(fd, &st))
		f = lost_file(&st);
	if (!f || take_lease(fd)) {
		off_sys_close(fd);
		return;
	}
	f->fd = fd;
	direct = f->can_direct ? spill_file_reopen(fd, O_RDONLY | O_DIRECT) : -1;
	f->direct = direct < 0 ? -1 : direct;
}

void spill_import(const int fds[], int n)
{
	for (int i = 0; i < SPILL_FILES; i++) {
		struct spill_file *f = &file[i];

		if (!f->used)
			continue;
		/* Numbers of the parent's table: not ours to close. */
		f->fd = f->direct = f->guard = -1;
		f->inherited = true;
		spill_map_freeze(&f->map);
	}
	own = -1;
	forks = 0;
	for (int i = 0; i < n; i++)
		if (fds[i] >= 0)
			adopt(fds[i]);
	for (int i = 0; i < SPILL_FILES; i++)
		drop_empty(&file[i]);
	stat_set(ST_BUDGET_SPILL, state == CLOSED ? 0 : off_opt.spill_max);
	tell();
}

void spill_forget(void)
{
	for (int i = 0; i < SPILL_FILES; i++) {
		seal_key_drop((uint32_t)i);
		if (file[i].used)
			spill_map_free(&file[i].map);
	}
	memset(file, 0, sizeof(file));
	own = -1;
	forks = 0;
	live_pages = 0;
	state = CLOSED;
	refused = false;
	tell();
}

/* ---- the write rate ---------------------------------------------------------------- */

static struct {
	bool on;
	int64_t bytes;		/* that may be written at once; below 0: a debt */
	uint64_t since;		/* bytes is right as of then */
} bucket;

void spill_written(uint64_t bytes)
{
	stat_add(ST_IO_WRITTEN, bytes);
	if (bucket.on)
		bucket.bytes -= (int64_t)bytes;
}

/* Time moves on by what the added bytes are worth, so that many short steps
 * add up to as much as one long one. */
static void refill(uint64_t rate, uint64_t now)
{
	unsigned __int128 add = (unsigned __int128)(now - bucket.since) * rate / SECOND;

	if ((int64_t)rate - bucket.bytes <= (__int128)add) {
		bucket.bytes = (int64_t)rate;
		bucket.since = now;
		return;
	}
	bucket.bytes += (int64_t)add;
	bucket.since += (uint64_t)(add * SECOND / rate);
}

uint64_t spill_wait_ns(uint64_t now)
{
	uint64_t rate = off_opt.spill_rate;

	if (!rate)
		return 0;
	if (!bucket.on) {
		bucket.on = true;
		bucket.bytes = (int64_t)rate;
		bucket.since = now;
	}
	if (now > bucket.since)
		refill(rate, now);
	if (bucket.bytes > 0)
		return 0;
	return (uint64_t)(((unsigned __int128)(1 - bucket.bytes) * SECOND + rate - 1) / rate);
}
