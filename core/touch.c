/* SPDX-License-Identifier: MIT */
/* touch.c - frames that have no memory yet, before a chunk of a file is read into them.
 *
 *   touch_fetch --> TOUCHING --worker--> its read begins, or it was read on the way
 *
 * (1) Memory is cleared when it is given, and where a hypervisor has to find it first a
 *     frame takes 5 to 12 ms (seen): in the pager every fault and every read would
 *     wait for that, one after the other.
 * (2) Memory that a disk writes to first is found for a third of that (seen: virtio). So
 *     where touching is slow, the file is read through the page cache, and what the
 *     cache then gives back becomes the frame. Where that does not help it is not done.
 * (3) A read that fails here is nothing: it is made again the other way.
 * (4) With a heap none is: no worker may wait for a file while chunks that need none wait for
 *     the workers.
 * Owns the jobs and, of frames.c, the rooms. Lock: none; pager thread, but where workers are named.
 */
#include "core/touch.h"
#include "core/anon.h"
#include "core/core_int.h"
#include "core/work.h"

#include <fcntl.h>
#include <sys/mman.h>

#define JOBS	64		/* more than pager.c lets be in flight */
#define SLOW_NS	1500000		/* clearing 2 MiB takes 0.1 to 0.4 ms */
#define SPARE	32		/* frames: what the cache reads ahead has to have room, too */
#define TRIES	128		/* until it shows: memory given back before comes first */

static struct job {
	struct work work;
	bool used;
	uint32_t c;
	char *frame;
	int fd;
	off_t off;
	uint32_t len;		/* to be read through the page cache; 0: not so */
	ssize_t res;
} job[JOBS];
static uint32_t jobs;
static _Atomic uint32_t rooms_used;	/* a bit each */
static bool roomed;			/* there may be memory in them */

/* Workers: of the last touches, which were slow: of new memory, and of what the
 * page cache gave back. A bit each, the last the lowest. */
static _Atomic uint32_t slow_new, slow_back;
static uint32_t tries;

uint32_t touch_inflight(void)
{
	return jobs;
}

/* Worker. A page at a time: MADV_POPULATE_WRITE would hold the lock of the whole address
 * space meanwhile. */
static void touch(char *frame, _Atomic uint32_t *seen)
{
	uint64_t t = now_ns();
	bool is_slow;

	for (size_t i = 0; i < CHUNK; i += PAGE)
		((volatile char *)frame)[i] = 0;
	is_slow = now_ns() - t > SLOW_NS;
	stat_add(ST_HOST_SLOW_FRAMES, is_slow);
	atomic_store_explicit(seen, atomic_load_explicit(seen, memory_order_relaxed) << 1 |
			      is_slow, memory_order_relaxed);
}

/* Worker. NULL: all are in use. */
static char *room_take(void)
{
	for (uint32_t i = 0; i < FRAME_ROOMS; i++)
		if (!(atomic_fetch_or(&rooms_used, 1u << i) & 1u << i))
			return frames_rooms() + (size_t)i * CHUNK;
	return NULL;
}

static void room_put(const char *room)
{
	atomic_fetch_and(&rooms_used, ~(1u << (size_t)(room - frames_rooms()) / CHUNK));
}

/* Worker. The bytes come through a room: copied straight into the frame they would
 * be there before the cache gives anything back. */
static void read_and_touch(struct job *j, char *room)
{
	j->res = off_sys_pread(j->fd, room, j->len, j->off);
	off_sys_fadvise(j->fd, j->off, j->len, POSIX_FADV_DONTNEED);
	touch(j->frame, &slow_back);
	if (j->res == (ssize_t)j->len)
		memcpy(j->frame, room, j->len);
}

static void run(struct work *w)
{
	struct job *j = (struct job *)w;
	char *room = j->len ? room_take() : NULL;

	if (!room) {
		touch(j->frame, &slow_new);
		return;
	}
	read_and_touch(j, room);
	room_put(room);
}

static void read_done(const struct job *j)
{
	file_look(j->c);
	stat_add(ST_IO_READS, 1);
	stat_add(ST_IO_BUFFERED, j->len);
	stat_add(ST_HOST_CACHE_FRAMES, 1);
	file_read_done(j->c, (int)j->res);
}

static void over(struct work *w)
{
	struct job *j = (struct job *)w;
	uint32_t c = j->c;

	j->used = false;
	jobs--;
	if (!jobs && roomed)
		off_sys_madvise(frames_rooms(), FRAME_ROOMS * CHUNK, MADV_DONTNEED);
	roomed &= jobs > 0;
	if (pg.chunk[c].flags & CH_GONE) {
		file_read_done(c, -ECANCELED);
	} else if (j->len && j->res == (ssize_t)j->len) {
		read_done(j);
	} else if (fetch_read(c, j->frame)) {
		chunk_landed(c);
		chunk_unread(c);
	}
}

static struct job *free_job(void)
{
	for (struct job *j = job; j < job + JOBS; j++)
		if (!j->used)
			return j;
	return NULL;
}

/* Memory that another frame gave back a moment ago is had at once: a worker would take
 * longer to wake up. */
static bool grows(void)
{
	return work_threads() && (pager_frames_left() || torture());
}

/* Most of the last n were slow. */
static bool mostly(_Atomic uint32_t *seen, uint32_t n)
{
	uint32_t last = atomic_load_explicit(seen, memory_order_relaxed) & ((1ull << n) - 1);

	return (uint32_t)__builtin_popcount(last) > n / 2;
}

/* Is a frame had sooner by way of the page cache? */
static bool pays(void)
{
	if (anon_live())
		return false;
	if (torture())
		return !torture_random(3);
	return pager_frames_left() > SPARE && mostly(&slow_new, 8) &&
	       (tries++ < TRIES || !mostly(&slow_back, 32));
}

int touch_fetch(uint32_t c)
{
	const struct origin *o = chunk_region(c)->origin;
	char *frame = frames_at(pg.chunk[c].slot - 1);
	struct job *j = grows() ? free_job() : NULL;

	if (!j)
		return fetch_read(c, frame);
	*j = (struct job){ .work = { .run = run, .over = over }, .used = true, .c = c,
			   .frame = frame, .fd = o->fd, .off = (off_t)chunk_off(c) };
	if (o->fd_direct >= 0 && chunk_bytes_in_file(c) == CHUNK && pays())
		j->len = CHUNK;
	roomed |= j->len;
	jobs++;
	work_put(&j->work, pg.chunk[c].t_fault ? WORK_WAITED : WORK_IN);
	return 0;
}

void touch_fork_child(void)
{
	memset(job, 0, sizeof(job));
	jobs = 0;
	roomed = false;
	atomic_store(&rooms_used, 0);
}
