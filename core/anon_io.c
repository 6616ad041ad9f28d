/* SPDX-License-Identifier: MIT */
/* anon_io.c - the heap's chunks on their way in and out.
 *
 *   out: PLAIN or READY --taken out--> JUDGING --worker-->
 *          nothing but zeros         -> EMPTY
 *          as the copy it has stored -> ABSENT, the frame is free
 *          not from a file           -> READY again, for a while: see judged
 *          perhaps from a file       -> COMPARING --worker--> ABSENT, or
 *          else                      -> PACKING --worker--> ABSENT, or
 *          it does not get smaller   -> QUEUED --> WRITING --> ABSENT
 *                      encrypted: QUEUED --> SEALING --worker--> WRITING
 *   in:  ABSENT --> READING --> CHECKING --worker--> READY
 *
 * (1) To the policy it is ABSENT from the moment it is taken out. Who faults
 *     before that is over gets the frame back (wanted).
 * (2) Whether a chunk was written is judged by its hash, out of the program's
 *     reach, in both modes.
 * (3) The frame is let go only when the copy is complete (R2).
 * (4) A copy in a place shared with a forked process is never overwritten:
 *     spill.c gives a new place.
 * (5) Frames are hashed, compared, packed and filled by workers; meanwhile the
 *     chunk is busy, and its frame and its slot are nobody else's.
 * (6) A packed chunk stays in the pool when it comes in: what is not written need
 *     not be packed again at each pass. Where the pool is full, those that will
 *     stay in place leave it (anon_shed). What can be read is packed, too, where the plan
 *     has room, and can be read still.
 * Lock: none; pager thread.
 */
#include "core/anon.h"
#include "core/anon_int.h"
#include "core/core_int.h"
#include "core/learned.h"
#include "core/packer.h"
#include "core/placement.h"
#include "core/pool.h"
#include "core/seal.h"
#include "core/spill.h"
#include "core/work.h"

#include <sys/mman.h>

#define WRITES_MAX	4
#define JOBS		64		/* more than can be under way */
#define SECONDS_MOST	64
#define LOOKS_MOST	8

static struct job job[JOBS];
static uint32_t queue[SAVE_FRAMES];	/* QUEUED, oldest first */
static uint32_t seconds;		/* chunks that had a second look */
static uint32_t queued, writing, out;	/* out: on their way, these included */
static uint32_t reading;		/* BUSY_READING */
static bool said_write, said_full;

static void work_over(struct work *w);

static struct job *make_job(uint32_t c, void (*run)(struct work *), uint64_t hash)
{
	const struct anon_chunk *a = anon_at(c);
	struct job *j = job;

	while (j->used)
		off_assert(++j < job + JOBS);
	*j = (struct job){ .work = { .run = run, .over = work_over }, .used = true,
		.c = c, .hash = hash,
		.addr = chunk_addr(c), .frame = anon_frame(c),
		.source = a->bounce ? a->source : NULL, .bounce = a->bounce,
		.sealed = off_opt.encrypt && a->store == STORE_SPILL,
		.file = spill_file_number(a->ref), .seal = a->seal };
	return j;
}

static void start_job(struct job *j, enum busy busy)
{
	anon_at(j->c)->busy = (uint8_t)busy;
	work_put(&j->work, busy != BUSY_CHECKING ? WORK_OUT :
		 pg.chunk[j->c].t_fault ? WORK_WAITED : WORK_IN);
}

static void start(uint32_t c, enum busy busy, void (*run)(struct work *), uint64_t hash)
{
	start_job(make_job(c, run, hash), busy);
}

/* ---- in -------------------------------------------------------------------------- */

/* R4: from where, why, and what to do. */
static _Noreturn void lost(uint32_t c, const char *from, const char *name,
			   const char *why, const char *remedy)
{
	off_fatal("the heap at %#lx..%#lx cannot be had back from %s%s: %s; the program is stopped rather than shown wrong bytes; %s",
		  (unsigned long)chunk_addr(c), (unsigned long)(chunk_addr(c) + CHUNK),
		  from, name, why, remedy);
}

static _Noreturn void lost_in_spill(uint32_t c, const char *why)
{
	lost(c, "the spill file in ", spill_folder(anon_at(c)->ref), why,
	     "see what the kernel says of that disk, or set OFFLOAD_SPILL to another");
}

static _Noreturn void lost_in_file(uint32_t c)
{
	lost(c, "the file it was read from, ", origin_nth(anon_at(c)->source, 0)->name,
	     "it was changed or cannot be read",
	     "replace files by rename, not in place, while programs use them");
}

/* err: of what was to begin its read; passed on. */
static int begun(uint32_t c, int err)
{
	if (err)
		return err;
	if (!anon_at(c)->bounce)	/* read to the frame: its pages are held from now on */
		frames_filled(pg.chunk[c].slot - 1);
	anon_at(c)->busy = BUSY_READING;
	reading++;
	stat_add(ST_IO_READS, 1);
	return 0;
}

static int read_slot(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);
	struct io_job io = { .kind = IO_READ, .off = spill_offset(a->ref),
			     .buf = anon_frame(c), .len = CHUNK, .chunk = c };
	int direct, buffered, err = spill_fds(a->ref, &direct, &buffered);

	if (err)
		lost_in_spill(c, "its descriptor did not come over a fork");
	io.fd = direct >= 0 && !(pg.chunk[c].flags & CH_RETRY) ? direct : buffered;
	return begun(c, pg.io->submit(&io));
}

static int read_origin(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);
	int err = begun(c, origin_fetch(c, a->source, &a->bounce));

	if (err == -ENOMEM) {
		err = origin_read(c, a->source, anon_frame(c));
		if (!err)
			start(c, BUSY_CHECKING, run_check, a->hash);
	}
	if (err == -EIO)
		lost_in_file(c);
	return err;
}

static int unpack(uint32_t c)
{
	struct job *j = make_job(c, run_unpack, 0);
	uint32_t n;

	j->image = (char *)pool_at(anon_at(c)->slot, &n);
	j->n = n;
	start_job(j, BUSY_CHECKING);
	return 0;
}

/* A whole frame of zeros is one page table entry, and need not be copied page by
 * page as it is written. */
static int fetch_zeros(uint32_t c)
{
	bool used;

	if (chunk_take_frame(c, &used))
		return -ENOMEM;
	anon_at(c)->split = false;
	start(c, BUSY_CHECKING, used ? run_clear : run_touch, 0);
	return 0;
}

static int fetch_stored(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);
	bool used;
	int err;

	if (chunk_take_frame(c, &used))
		return -ENOMEM;
	off_assert(a->store >= STORE_POOL);
	a->split = false;
	err = a->store == STORE_POOL ? unpack(c) :
	      a->store == STORE_ORIGIN ? read_origin(c) : read_slot(c);
	if (err)
		anon_put_frame(c);
	return err;
}

void anon_unqueue(uint32_t c)
{
	uint32_t i = 0;

	while (queue[i] != c)
		i++;
	queued--;
	memmove(queue + i, queue + i + 1, (queued - i) * sizeof(queue[0]));
	anon_at(c)->busy = BUSY_NO;
	out--;
}

int anon_fetch(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);

	if (a->busy == BUSY_QUEUED) {
		anon_unqueue(c);
		return 1;
	}
	if (a->busy) {
		a->wanted = true;
		return 0;
	}
	return a->store == STORE_ZERO ? fetch_zeros(c) : fetch_stored(c);
}

/* Page by page: the program made several mappings of this chunk (mprotect of
 * a part), or some of it is there. */
static int install_pages(uint32_t c)
{
	uintptr_t to = chunk_addr(c);
	char *frame = anon_frame(c);
	size_t step;

	for (size_t i = 0; i < CHUNK; i += PAGE) {
		int again = 0, err;

		do
			err = uffd_copy(to + i, (uintptr_t)frame + i, PAGE, false, &step);
		while (err == -EAGAIN && pager_again(&again));
		if (err && err != -EEXIST)
			return err;
	}
	uffd_wake(to, CHUNK);		/* who waits for what was there */
	off_sys_madvise(frame, CHUNK, MADV_DONTNEED);
	anon_at(c)->split = true;
	return 0;
}

int anon_install(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);
	int err = pg.ops->install(c);

	if (err)
		err = install_pages(c);
	if (!err && a->store == STORE_ZERO)
		a->store = STORE_NONE;
	return err;
}

/* Tried again, by a buffered read; why: the cause if it was the last time. */
static void read_failed(uint32_t c, const char *why)
{
	struct chunk *ch = &pg.chunk[c];

	stat_add(ST_IO_ERRORS, 1);
	if (++ch->tries >= MAX_TRIES && anon_at(c)->store == STORE_SPILL)
		lost_in_spill(c, why);
	if (ch->tries >= MAX_TRIES)
		lost_in_file(c);
	ch->flags |= CH_RETRY;
	chunk_landed(c);
	anon_put_frame(c);
	chunk_moved(c, POL_ABSENT);
	if (ch->t_fault)
		pol_fault(pg.pol, c, ch->stream);
}

/* What it was doing is over, and it was cleared meanwhile. */
static void gone_done(uint32_t c)
{
	if (anon_at(c)->busy >= BUSY_READING)
		chunk_landed(c);
	else
		out--;
	anon_put_frame(c);
	anon_forget(c);
	uffd_wake(chunk_addr(c), CHUNK);
}

void anon_read_done(uint32_t c, int res)
{
	struct anon_chunk *a = anon_at(c);

	reading--;
	if (a->gone) {
		gone_done(c);
		return;
	}
	a->busy = BUSY_NO;
	if (res < (int)CHUNK) {
		read_failed(c, res < 0 ? strerrordesc_np(-res) : "short read");
		return;
	}
	pager_count_read(CHUNK);
	start(c, BUSY_CHECKING, run_check, a->hash);
}

/* From a disk: a read may have failed, or been short or wrong, for once. From the
 * pool: the worker may have had no memory. True: it is right after all. */
static bool once_more(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);

	if (a->store == STORE_POOL && !pool_get(a->slot, anon_frame(c), CHUNK))
		return true;
	if (a->store == STORE_POOL && (a->source || a->has_ref))
		anon_unpool(a);
	else if (a->store == STORE_POOL)
		lost(c, "its packed copy in memory", "", "it is damaged (checksum)",
		     "test this machine's memory, or the program with OFFLOAD_PAGER=off for stray writes");
	read_failed(c, off_opt.encrypt ? "what was read is not what was written (encryption's tag)" :
		    "what was read is not what was written (checksum)");
	return false;
}

static void checked(uint32_t c, bool right)
{
	struct anon_chunk *a = anon_at(c);

	if (a->bounce)
		origin_put(a->bounce);
	a->bounce = NULL;
	a->busy = BUSY_NO;
	if (!right && !once_more(c))
		return;
	if (a->store >= STORE_SPILL)
		stat_add(ST_IO_READ, CHUNK);
	pg.chunk[c].tries = 0;
	pg.chunk[c].flags &= (uint16_t)~CH_RETRY;
	chunk_landed(c);
	chunk_moved(c, POL_READY);
}

/* ---- out ------------------------------------------------------------------------- */

int anon_soften(uint32_t c)
{
	int err;

	if (anon_at(c)->split)
		anon_collapse(c);
	err = pg.ops->soften(c);
	if (err == -EBUSY && !unshare_pages(c)) {
		anon_at(c)->split = true;
		err = pg.ops->soften(c);	/* still: pinned by somebody's I/O */
		stat_add(ST_HOST_EVICT_COPIED, !err);
	}
	/* It was split where it lay, unseen: used again, the frame would stay small
	 * pages for good. */
	if (!err && exchange_moves() && !anon_at(c)->split)
		anon_at(c)->split = !pages_huge((uintptr_t)anon_frame(c));
	/* The empty page table, where the kernel frees those (6.14): a huge page
	 * that moved to its place would be split. */
	if (!err && anon_at(c)->split)
		off_sys_madvise((void *)chunk_addr(c), CHUNK, MADV_DONTNEED);
	return err;
}

/* Who faulted on it meanwhile looks again. */
static void become_empty(uint32_t c)
{
	anon_put_frame(c);
	chunk_moved(c, POL_ABSENT);
	pol_remove(pg.pol, c, 1);
	anon_empty(c);
	uffd_wake(chunk_addr(c), CHUNK);
}

int anon_evict(uint32_t c, bool from_plain)
{
	int err = from_plain ? anon_soften(c) : 0;

	if (err)
		return err;
	if (anon_at(c)->store == STORE_ZERO) {	/* never put in place */
		become_empty(c);
		return 0;
	}
	out++;
	start(c, BUSY_JUDGING, run_judge, 0);
	return 0;
}

/* Its only copy is in the frame, and it was ABSENT to the policy. */
static void keep(uint32_t c)
{
	if (anon_at(c)->wanted)
		chunk_landed(c);
	anon_at(c)->wanted = false;
	chunk_moved(c, POL_READY);
}

/* It cannot be stored now: kept, and left alone for a while. */
static void keep_busy(uint32_t c)
{
	keep(c);
	pg.chunk[c].flags |= CH_BUSY;
	pol_pin(pg.pol, c, 1);
	pager_busy();
}

/* Queues it. -errno: there is no room for it in the spill file. */
static int save(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);
	int err = spill_open();

	/* Never over the old copy: a forked process may still read that. */
	if (a->has_ref)
		spill_free(a->ref, CHUNK);
	a->has_ref = false;
	if (!err)
		err = spill_alloc(CHUNK, &a->ref);
	if (err == -ENOSPC && anon_spare_copy())
		err = spill_alloc(CHUNK, &a->ref);
	if (err)
		return err;
	a->has_ref = true;
	a->busy = BUSY_QUEUED;
	queue[queued++] = c;
	out++;
	anon_save_more();
	return 0;
}

static void save_or_keep(uint32_t c)
{
	int err = save(c);

	if (!err)
		return;
	if (!said_full)
		off_log("memory beyond the budget cannot be written to the spill file (%s) and stays: make room, or name another disk with OFFLOAD_SPILL",
			strerrordesc_np(-err));
	said_full = true;
	keep_busy(c);
}

/* To the pool, if it gets smaller. False: there is no room. must: see packer.h. */
static bool pack(uint32_t c, bool room, bool must)
{
	char *image = room && !anon_at(c)->raw ? packer_room(must) : NULL;
	struct job *j;

	if (!image)
		return false;
	out++;
	j = make_job(c, run_pack, anon_at(c)->hash);
	j->image = image;
	start_job(j, BUSY_PACKING);
	return true;
}

/* Room beside the plan is for what would be written again and again; and for all while
 * there is no plan, or no more may be written now. */
static bool may_spare(const struct anon_chunk *a)
{
	return a->rewritten || a->skew || !placement_planned() || spill_wait_ns(now_ns());
}

/* Its bytes are nowhere else. */
static void store(uint32_t c)
{
	bool spare = may_spare(anon_at(c));

	if (pack(c, spare ? placement_spare() : placement_room(), true))
		return;
	if (!spare && (!save(c) || pack(c, placement_spare(), true)))
		return;		/* the spill file, if it has room */
	save_or_keep(c);
}

/* See may_spare. This was not written since it was packed: so it is written out once, and
 * need not be unpacked in every pass. */
static bool leaves_pool(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);

	if (a->store != STORE_POOL || a->source || a->has_ref || a->rewritten ||
	    !placement_over() || save(c))
		return false;
	pool_free(a->slot);
	a->store = STORE_NONE;	/* it is not written yet */
	return true;
}

/* They are stored already. */
static void let_go(uint32_t c)
{
	if (leaves_pool(c))
		return;
	if (anon_at(c)->store < STORE_SPILL || anon_at(c)->raw ||
	    !pack(c, placement_roomy(), false))
		anon_put_frame(c);
}

static void packed(uint32_t c, const struct job *j)
{
	struct anon_chunk *a = anon_at(c);

	out--;
	a->busy = BUSY_NO;
	a->raw = j->n < 0;
	if (a->wanted) {
		keep(c);
	} else if (j->n > 0 && !pool_put(j->image, (uint32_t)j->n, CHUNK, &a->slot)) {
		if (a->has_ref && a->store != STORE_SPILL)	/* out of date */
			spill_free(a->ref, CHUNK);
		a->has_ref &= a->store == STORE_SPILL;
		a->store = STORE_POOL;
		anon_put_frame(c);
	} else if (a->store >= STORE_SPILL) {
		anon_put_frame(c);
	} else {
		save_or_keep(c);
	}
}

/* It was written since it was stored. */
static void outdate(struct anon_chunk *a, uint64_t hash)
{
	if (a->store == STORE_POOL)
		pool_free(a->slot);
	a->raw = false;
	a->rewritten |= a->store != STORE_NONE;
	a->hash = hash;
	a->store = STORE_NONE;
	origin_forget(a->source);
	a->source = NULL;
}

static void judged(uint32_t c, const struct job *j)
{
	struct anon_chunk *a = anon_at(c);
	bool same = !j->zero && a->store != STORE_NONE && j->hash == a->hash;
	bool first = a->store == STORE_NONE && !a->has_ref && !a->compared;
	/* Locked meanwhile: its frame must not be given away either. */
	bool wanted = a->wanted || pg.chunk[c].flags & CH_LOCKED;

	out--;
	a->busy = BUSY_NO;
	if (!same && (wanted || !j->zero))
		outdate(a, j->hash);
	if (wanted) {
		keep(c);
	} else if (j->zero) {
		become_empty(c);
	} else if (same) {
		let_go(c);
	} else if (!a->compared && !origin_compare(c, &a->source, &a->bounce)) {
		a->compared = true;
		a->busy = BUSY_COMPARING;
		out++;
	} else if (first && learned_any() && a->looks < LOOKS_MOST &&
		   (a->looks || seconds < SECONDS_MOST)) {
		/* The rest was read from a file and this was not: state that
		 * is written over and over, likely. Looked at again before
		 * it costs a write. More than a little is no such state. */
		seconds += !a->looks++;
		if (!a->skew)
			anon_tell_skew(c);
		keep(c);
		if (pg.chunk[c].t_fault)	/* which the policy knows no more */
			pol_fault(pg.pol, c, pg.chunk[c].stream);
	} else {
		store(c);
	}
}

/* The comparison is over: absent with an origin, or to be written. */
static void compared(uint32_t c, bool equal)
{
	struct anon_chunk *a = anon_at(c);

	out--;
	origin_put(a->bounce);
	a->bounce = NULL;
	a->busy = BUSY_NO;
	if (equal) {
		a->store = STORE_ORIGIN;
	} else {
		origin_forget(a->source);
		a->source = NULL;
	}
	if (a->wanted)
		keep(c);
	else if (equal)
		let_go(c);
	else
		store(c);
}

/* ---- writing ----------------------------------------------------------------------- */

uint32_t anon_reading(void)
{
	return reading;
}

bool anon_room(void)
{
	return out < SAVE_FRAMES;
}

/* 0; -EAGAIN: not now; other -errno: it cannot be. */
static int write_out(uint32_t c, char *from)
{
	struct anon_chunk *a = anon_at(c);
	struct io_job io = { .kind = IO_WRITE, .buf = from, .off = spill_offset(a->ref),
		.len = CHUNK, .chunk = c | IO_TAG_WRITE };
	int direct, buffered, err = spill_fds(a->ref, &direct, &buffered);

	if (err)
		return err;
	io.fd = direct >= 0 ? direct : buffered;
	if (pg.io->submit(&io))
		return -EAGAIN;
	spill_written(CHUNK);
	return 0;
}

static void write_failed(uint32_t c, int res)
{
	stat_add(ST_IO_ERRORS, 1);
	if (!said_write)
		off_log("a write to the spill file failed (%s): what it held stays in memory; see the disk of OFFLOAD_SPILL",
			res < 0 ? strerrordesc_np(-res) : "short write");
	said_write = true;
	keep_busy(c);
}

static void write_done(uint32_t c, int res)
{
	struct anon_chunk *a = anon_at(c);

	writing--;
	seal_give(c);
	if (a->gone) {
		gone_done(c);
		return;
	}
	out--;
	a->busy = BUSY_NO;
	if (res != (int)CHUNK) {
		write_failed(c, res);
		return;
	}
	a->store = STORE_SPILL;
	if (a->wanted)
		keep(c);
	else
		anon_put_frame(c);
}

/* It waited, and is written from now on, or sealed. */
static void begin_write(uint32_t c, enum busy busy)
{
	anon_unqueue(c);
	anon_at(c)->busy = (uint8_t)busy;
	out++;
	writing++;
}

/* The first that waits. False: not now. */
static bool write_first(void)
{
	uint32_t c = queue[0];
	int err = write_out(c, anon_frame(c));

	if (err == -EAGAIN)
		return false;
	if (err) {
		anon_unqueue(c);
		write_failed(c, err);
	} else {
		begin_write(c, BUSY_WRITING);
	}
	return true;
}

static bool seal_first(void)
{
	uint32_t c = queue[0];
	char *to = seal_room(c);
	struct job *j;

	if (!to)
		return false;
	begin_write(c, BUSY_SEALING);
	j = make_job(c, run_seal, 0);
	j->image = to;
	j->seal.number = seal_number(j->file);
	start_job(j, BUSY_SEALING);
	return true;
}

/* Not written: somebody wants it, or it has to wait and is sealed anew. */
static void unsealed(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);

	seal_give(c);
	writing--;
	if (a->wanted) {
		out--;
		a->busy = BUSY_NO;
		keep(c);
		return;
	}
	a->busy = BUSY_QUEUED;
	queue[queued++] = c;
}

static void sealed(uint32_t c, const struct job *j)
{
	struct anon_chunk *a = anon_at(c);
	int err = a->wanted ? -EAGAIN : write_out(c, j->image);

	a->seal = j->seal;
	if (err == -EAGAIN) {
		unsealed(c);
	} else if (err) {
		write_done(c, err);
	} else {
		a->busy = BUSY_WRITING;
		stat_add(ST_IO_SEALED, CHUNK);
	}
}

uint32_t anon_save_more(void)
{
	bool (*begin)(void) = off_opt.encrypt ? seal_first : write_first;

	while (queued && writing < WRITES_MAX && !spill_wait_ns(now_ns()) && begin())
		;
	return out;
}

/* ---- completions ---------------------------------------------------------------------- */

static void origin_read_done(uint32_t c, int res)
{
	struct anon_chunk *a = anon_at(c);

	if (res > 0 && a->busy == BUSY_READING)
		pager_count_read((uint64_t)res);
	if (!origin_part_done(a->bounce, res))
		return;
	reading -= a->busy == BUSY_READING;
	if (a->gone)
		gone_done(c);
	else if (a->busy == BUSY_COMPARING)
		start(c, BUSY_COMPARING, run_compare, 0);
	else
		start(c, BUSY_CHECKING, run_check, a->hash);
}

void anon_io_done(uint32_t tag, int res)
{
	if (tag & IO_TAG_WRITE)
		write_done(tag & ~IO_TAG_WRITE, res);
	else
		origin_read_done(tag & ~IO_TAG_VERIFY, res);
}

static void work_over(struct work *w)
{
	const struct job copy = *(struct job *)w, *j = &copy;
	uint32_t c = j->c;

	((struct job *)w)->used = false;
	if (anon_at(c)->gone) {
		writing -= j->work.run == run_seal;
		seal_give(c);
		gone_done(c);
	} else if (j->work.run == run_judge)
		judged(c, j);
	else if (j->work.run == run_compare)
		compared(c, j->ok);
	else if (j->work.run == run_pack)
		packed(c, j);
	else if (j->work.run == run_seal)
		sealed(c, j);
	else
		checked(c, j->ok);
	if (j->work.run == run_pack)
		packer_give(j->image);
}

void anon_io_reset(void)
{
	memset(job, 0, sizeof(job));
	seal_rooms_reset();
	queued = writing = out = seconds = reading = 0;
}
