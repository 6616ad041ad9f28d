/* SPDX-License-Identifier: MIT */
/* anon_pager.c - the heap's chunks, as the pager sees them.
 *
 *   EMPTY --fault--> zeros in place: PLAIN --taken out--> judged:
 *     nothing but zeros         -> EMPTY
 *     as the copy it has stored -> ABSENT, the frame is free
 *     else                      -> saving: ABSENT to the policy, frame kept
 *   saving: QUEUED --> WRITING --done--> stored, the frame is free
 *
 * (1) EMPTY chunks are unknown to the policy: nothing is read ahead for them,
 *     and no frame is theirs.
 * (2) Zeros are the kernel's zero page, so that a sparse heap stays sparse;
 *     a missing page of a PLAIN chunk is always owed zeros.
 * (3) Whether a chunk was written is judged by its hash, out of the
 *     program's reach, in both modes.
 * (4) The frame is let go only when the copy is complete (R2). Who faults
 *     meanwhile gets the frame back.
 * (5) A copy in a place shared with a forked process is never overwritten:
 *     spill.c gives a new place.
 * Lock: none; pager thread.
 */
#include "core/anon.h"
#include "core/anon_int.h"
#include "core/core_int.h"
#include "core/spill.h"

#include <sys/mman.h>
#include <unistd.h>

#define WRITES_MAX	4
#define ANON_ORDER	(1U << 24)	/* after every span of a file */

enum store { STORE_NONE, STORE_ZERO, STORE_SPILL, STORE_ORIGIN };
enum saving { SAVE_NO, SAVE_QUEUED, SAVE_WRITING, SAVE_COMPARING };
enum child { CHILD_EMPTY, CHILD_IN_PLACE, CHILD_STORED };	/* at a fork */

struct anon_chunk {
	uint64_t ref;		/* its slot in the spill file */
	uint64_t hash;		/* of the stored copy */
	uint8_t store;		/* enum store; NONE: the bytes are in memory only */
	uint8_t saving;		/* enum saving */
	uint8_t child;		/* enum child */
	bool has_ref;
	bool wanted;		/* WRITING: somebody waits for the frame */
	bool gone;		/* cleared while I/O was under way */
	bool compared;		/* with its origin, if it had one */
	struct source *source;	/* STORE_ORIGIN, or being compared */
	struct bounce *bounce;	/* reads of it under way */
	bool rewritten;		/* its stored copy was out of date once */
	bool skew;		/* the policy was told so */
};

static struct anon_chunk *table;	/* by chunk - first */
static uint32_t first;
static uint32_t queue[SAVE_FRAMES];	/* QUEUED, oldest first */
static uint32_t queued, writing, comparing;
static bool said_write, said_full;

static struct anon_chunk *at(uint32_t c)
{
	return &table[c - first];
}

static char *frame_of(uint32_t c)
{
	return frames_at(pg.chunk[c].slot - 1);
}

/* ---- empty, and known ----------------------------------------------------------- */

static void make_empty(uint32_t c)
{
	struct chunk *ch = &pg.chunk[c];
	struct anon_chunk *a = at(c);
	bool gone = a->gone;

	if (a->has_ref)
		spill_free(a->ref, CHUNK);
	if (!a->bounce)
		origin_forget(a->source);
	*a = (struct anon_chunk){ .gone = gone, .bounce = a->bounce,
		.source = a->bounce ? a->source : NULL, .saving = a->bounce ? a->saving : 0 };
	*ch = (struct chunk){ .region = ch->region, .slot = gone ? ch->slot : 0,
			      .flags = CH_FORGOTTEN };
}

static void make_known(uint32_t c)
{
	pg.chunk[c].flags = 0;
	at(c)->store = STORE_ZERO;
	pol_add(pg.pol, c, 1, CHUNK, (uint64_t)(c - first) * CHUNK, NULL, 0, ANON_ORDER);
}

/* Weights are written once. What is written again and again (activations, the
 * end of a KV cache) is used at many points of a pass: it has no place in the
 * order, and there it would look like a jump. ABSENT when called. */
static void tell_skew(uint32_t c)
{
	struct pol_span s = { .len = CHUNK, .layer = UINT32_MAX, .expert = UINT32_MAX,
			      .pattern = POL_SKEW };

	pol_add(pg.pol, c, 1, CHUNK, 0, &s, 1, 0);
	at(c)->skew = true;
}

static void init(struct region *r, uint32_t from, uint32_t to)
{
	int index = 0;

	while (region_nth(index) != r)
		index++;
	for (uint32_t c = from; c < to; c++) {
		pg.chunk[c] = (struct chunk){ .region = (uint16_t)index,
					      .flags = CH_FORGOTTEN };
		*at(c) = (struct anon_chunk){ 0 };
	}
}

int anon_add(struct region *r, bool adopt)
{
	first = r->first;
	queued = writing = comparing = 0;
	if (!table)
		table = reserve_range((MAX_CHUNKS - first) * sizeof(*table));
	if (!table || pages_open())
		return -ENOMEM;
	if (!adopt)
		init(r, r->first, r->first + r->n);
	return 0;
}

int anon_grown(struct region *r, uintptr_t lo, uintptr_t hi)
{
	uint32_t from = first + (uint32_t)((lo - r->base) / CHUNK);
	uint32_t to = first + (uint32_t)((hi - r->base) / CHUNK);

	int err = anon_register(lo, hi);

	if (err)
		return err;
	init(r, from, to);
	if (to > r->first + r->n)
		r->n = to - r->first;
	return 0;
}

/* Its bytes are where the program looks, and nowhere else or also stored. */
static void make_plain(uint32_t c, enum store store)
{
	make_known(c);
	at(c)->store = store;
	if (pg.mode == MODE_MOVE)
		pg.chunk[c].slot = frames_get_bare() + 1;
	chunk_moved(c, POL_PLAIN);
}

static void go_on(struct region *r)
{
	r->state = REGION_LIVE;
	uffd_wake(r->base, (size_t)r->n * CHUNK);	/* who faulted while HELD */
	stat_add(ST_HOST_CONVERTED, 1);
}

int anon_go(struct region *r)
{
	uint64_t map[CHUNK / PAGE / 64];

	for (uint32_t c = r->first; c < r->first + r->n; c++)
		if (!anon_lost(c - r->first) && pages_there(c, map))
			make_plain(c, STORE_NONE);
	go_on(r);
	return 0;
}

/* ---- forks ----------------------------------------------------------------------- */

static int carried[KEEP_FDS];
static int n_carried, n_spills;
static struct origin *taken[KEEP_FDS - SPILL_FILES];	/* files, for the child */
static int n_taken;

static int take_origins(const struct source *s)
{
	struct origin *o;

	for (int i = 0; (o = origin_nth(s, i)); i++) {
		int k = 0;

		while (k < n_taken && taken[k] != o)
			k++;
		if (k == KEEP_FDS - SPILL_FILES)
			return -EMFILE;
		if (k == n_taken)
			taken[n_taken++] = o;
	}
	return 0;
}

/* What the child will find. All bytes are in place or stored: nothing is in
 * flight, and what only a frame holds is put in place. */
static int settle(uint32_t c)
{
	struct anon_chunk *a = at(c);
	enum pol_state st = pol_state_of(pg.pol, c);
	int err = 0;

	if (pg.chunk[c].flags & CH_FORGOTTEN || a->store == STORE_ZERO) {
		a->child = CHILD_EMPTY;
		return 0;
	}
	/* One that was in place until a moment ago may have been written since. */
	if (st == POL_READY && pg.chunk[c].slot &&
	    (a->store == STORE_NONE || chunk_hash(frame_of(c), CHUNK) != a->hash)) {
		err = anon_install(c);
		chunk_moved(c, err ? POL_READY : POL_PLAIN);
		st = POL_PLAIN;
	}
	a->child = st == POL_PLAIN ? CHILD_IN_PLACE : CHILD_STORED;
	return err || a->store != STORE_ORIGIN ? err : take_origins(a->source);
}

bool anon_idle(void)
{
	return !pg.inflight && !anon_save_more();
}

int anon_settle(const struct region *r, int **fds)
{
	int err = 0;

	n_carried = n_spills = n_taken = 0;
	for (uint32_t c = r->first; c < r->first + r->n && !err; c++)
		err = settle(c);
	if (!err && spill_bytes())
		err = spill_fork_begin();
	if (!err && spill_bytes())
		n_spills = spill_export(carried, SPILL_FILES);
	n_carried = n_spills;
	for (int i = 0; i < n_taken; i++)
		carried[n_carried++] = taken[i]->fd;
	*fds = carried;
	return err ? err : n_carried;
}

void anon_resume(void)
{
	if (n_spills)
		spill_fork_end();
	n_spills = 0;
}

void anon_take_fds(const int *fds, int n)
{
	spill_import(fds, n_spills < n ? n_spills : n);
	for (int i = 0; i < n_taken; i++) {
		taken[i]->fd = n_spills + i < n ? fds[n_spills + i] : -1;
		taken[i]->fd_direct = -1;
	}
	n_spills = n_taken = 0;
}

int anon_adopted(struct region *r)
{
	for (uint32_t c = r->first; c < r->first + r->n; c++) {
		struct anon_chunk was = *at(c);

		init(r, c, c + 1);
		if (was.child == CHILD_EMPTY || anon_lost(c - r->first))
			continue;
		if (was.child == CHILD_IN_PLACE)
			make_plain(c, was.store);
		else
			make_known(c);
		*at(c) = (struct anon_chunk){ .ref = was.ref, .hash = was.hash,
			.store = was.store, .has_ref = was.has_ref,
			.source = was.source, .compared = was.compared };
	}
	go_on(r);
	return 0;
}

void anon_child_reset(void)
{
	pages_reset();
	queued = writing = comparing = 0;
	origin_reset();
}

/* ---- faults -------------------------------------------------------------------- */

bool anon_fault(uint32_t c, uintptr_t addr)
{
	struct chunk *ch = &pg.chunk[c];

	if (at(c)->gone)
		return true;	/* woken when its I/O is over */
	if (ch->flags & CH_FORGOTTEN) {
		make_known(c);
		stat_add(ST_FAULTS_ZERO, 1);
		return false;
	}
	if (pol_state_of(pg.pol, c) == POL_ABSENT && at(c)->rewritten && !at(c)->skew)
		tell_skew(c);
	if (pol_state_of(pg.pol, c) != POL_PLAIN)
		return false;
	zero_from(c, page_down(addr));
	uffd_wake(page_down(addr), PAGE);	/* it may have been there */
	return true;
}

/* ---- in -------------------------------------------------------------------------- */

static _Noreturn void lost(uint32_t c, const char *why)
{
	off_fatal("anonymous memory at %#lx: 2 MiB cannot be read back: %s; the program is stopped rather than shown wrong bytes",
		  (unsigned long)chunk_addr(c), why);
}

static int read_slot(uint32_t c)
{
	struct anon_chunk *a = at(c);
	struct chunk *ch = &pg.chunk[c];
	uint32_t slot = frames_get();
	struct io_job job = { .kind = IO_READ, .off = spill_offset(a->ref),
			      .len = CHUNK, .chunk = c };
	int direct, buffered, err = spill_fds(a->ref, &direct, &buffered);

	if (slot == NO_SLOT)
		return -ENOMEM;
	ch->slot = slot + 1;
	job.buf = frames_at(slot);
	job.fd = direct >= 0 && !(ch->flags & CH_RETRY) ? direct : buffered;
	if (!err)
		err = pg.io->submit(&job);
	if (err)
		chunk_drop_frame(c);
	else
		stat_add(ST_IO_READS, 1);
	return err;
}

static void unqueue(uint32_t c)
{
	uint32_t i = 0;

	while (queue[i] != c)
		i++;
	queued--;
	memmove(queue + i, queue + i + 1, (queued - i) * sizeof(queue[0]));
	at(c)->saving = SAVE_NO;
}

static int read_origin(uint32_t c)
{
	struct anon_chunk *a = at(c);
	uint32_t slot = frames_get();
	int err;

	if (slot == NO_SLOT)
		return -ENOMEM;
	pg.chunk[c].slot = slot + 1;
	err = origin_fetch(c, a->source, &a->bounce);
	if (err == -EIO)
		lost(c, "the file it was read from was changed or cannot be read");
	if (err)
		chunk_drop_frame(c);
	else
		stat_add(ST_IO_READS, 1);
	return err;
}

int anon_fetch(uint32_t c)
{
	struct anon_chunk *a = at(c);

	if (a->saving == SAVE_QUEUED) {
		unqueue(c);
		return 1;
	}
	if (a->saving) {
		a->wanted = true;
		return 0;
	}
	if (a->store == STORE_ZERO) {
		uint32_t slot = pg.mode == MODE_MOVE ? frames_get_bare() : NO_SLOT;

		if (pg.mode == MODE_MOVE && slot == NO_SLOT)
			return -ENOMEM;
		pg.chunk[c].slot = slot + 1;	/* NO_SLOT + 1 is none */
		return 1;
	}
	if (a->store == STORE_ORIGIN)
		return read_origin(c);
	off_assert(a->store == STORE_SPILL);
	return read_slot(c);
}

/* Page by page: the program made several mappings of this chunk (mprotect of
 * a part), or some of it is there. */
static int install_pages(uint32_t c)
{
	uintptr_t to = chunk_addr(c);
	char *frame = frame_of(c);
	size_t step;

	for (size_t i = 0; i < CHUNK; i += PAGE) {
		int again = 0, err;

		do
			err = uffd_copy(to + i, (uintptr_t)frame + i, PAGE, false, &step);
		while (err == -EAGAIN && pager_again(&again));
		if (err && err != -EEXIST)
			return err;
	}
	if (pg.mode == MODE_COPY)
		chunk_drop_frame(c);
	else
		off_sys_madvise(frame, CHUNK, MADV_DONTNEED);
	return 0;
}

int anon_install(uint32_t c)
{
	struct anon_chunk *a = at(c);
	int err;

	if (a->store != STORE_ZERO) {
		err = pg.ops->install(c);
		return err ? install_pages(c) : 0;
	}
	err = zero_from(c, chunk_addr(c));
	uffd_wake(chunk_addr(c), CHUNK);
	if (!err)
		a->store = STORE_NONE;
	return err;
}

/* The caller took it off the reads in flight. */
void anon_read_done(uint32_t c, int res)
{
	struct chunk *ch = &pg.chunk[c];

	if (at(c)->gone) {
		chunk_drop_frame(c);
		at(c)->gone = false;
		uffd_wake(chunk_addr(c), CHUNK);
		return;
	}
	if (res < (int)CHUNK) {
		stat_add(ST_IO_ERRORS, 1);
		if (++ch->tries >= 4)
			lost(c, res < 0 ? strerrordesc_np(-res) : "short read");
		ch->flags |= CH_RETRY;
		chunk_drop_frame(c);
		chunk_moved(c, POL_ABSENT);
		if (ch->t_fault)
			pol_fault(pg.pol, c, ch->stream);
		return;
	}
	if (chunk_hash(frame_of(c), CHUNK) != at(c)->hash)
		lost(c, "its checksum is another");
	ch->tries = 0;
	ch->flags &= (uint16_t)~CH_RETRY;
	stat_add(ST_IO_READ, CHUNK);
	chunk_moved(c, POL_READY);
}

/* ---- out ------------------------------------------------------------------------- */

static int take_out(uint32_t c)
{
	uint32_t slot;
	int err;

	if (pg.mode == MODE_MOVE) {
		err = pg.ops->soften(c);
		if (err != -EBUSY || unshare_pages(c))
			return err;
		err = pg.ops->soften(c);	/* still: pinned by somebody's I/O */
		stat_add(ST_HOST_EVICT_COPIED, !err);
		return err;
	}
	slot = frames_get();
	if (slot == NO_SLOT)
		return -ENOMEM;
	pg.chunk[c].slot = slot + 1;
	err = copy_out(c, frame_of(c));
	if (err)
		chunk_drop_frame(c);
	return err;
}

int anon_soften(uint32_t c)
{
	return pg.mode == MODE_MOVE ? take_out(c) : -ENOTSUP;
}

/* Queues it. -errno: there is no room for it in the spill file. */
static int save(uint32_t c)
{
	struct anon_chunk *a = at(c);
	int err = spill_open();

	/* Never over the old copy: a forked process may still read that. */
	if (a->has_ref)
		spill_free(a->ref, CHUNK);
	a->has_ref = false;
	if (!err)
		err = spill_alloc(CHUNK, &a->ref);
	if (err)
		return err;
	a->has_ref = true;
	a->store = STORE_NONE;
	a->saving = SAVE_QUEUED;
	queue[queued++] = c;
	anon_save_more();
	return 0;
}

/* In the frame, out of reach. 0: dropped or on its way; else still there. */
static int judge(uint32_t c)
{
	struct chunk *ch = &pg.chunk[c];
	struct anon_chunk *a = at(c);
	char *frame = frame_of(c);
	uint64_t h;

	if (a->store == STORE_ZERO || all_zeros(frame)) {
		frames_put(ch->slot - 1, a->store == STORE_ZERO);
		ch->slot = 0;
		chunk_moved(c, POL_ABSENT);
		pol_remove(pg.pol, c, 1);
		make_empty(c);
		return 0;
	}
	h = chunk_hash(frame, CHUNK);
	if (a->store != STORE_NONE && h == a->hash) {
		chunk_drop_frame(c);
		return 0;
	}
	a->hash = h;
	a->rewritten |= a->store != STORE_NONE;
	a->store = STORE_NONE;
	origin_forget(a->source);
	a->source = NULL;
	if (!a->compared && !origin_compare(c, &a->source, &a->bounce)) {
		a->compared = true;
		a->saving = SAVE_COMPARING;
		comparing++;
		return 0;
	}
	return save(c);
}

int anon_evict(uint32_t c, bool from_plain)
{
	int err = from_plain ? take_out(c) : 0;

	if (err)
		return err;
	if (!pg.chunk[c].slot) {	/* zeros, never installed (copy mode) */
		off_assert(at(c)->store == STORE_ZERO);
		chunk_moved(c, POL_ABSENT);
		pol_remove(pg.pol, c, 1);
		make_empty(c);
		return 0;
	}
	err = judge(c);
	if (!err)
		return 0;
	if (!said_full)
		off_log("memory beyond the budget cannot be written to the spill file (%s) and stays: make room, or name another disk with OFFLOAD_SPILL",
			strerrordesc_np(-err));
	said_full = true;
	if (from_plain && anon_install(c))
		off_fatal("a chunk could not be put back at %#lx (R1)",
			  (unsigned long)chunk_addr(c));
	return err;
}

/* ---- writing ----------------------------------------------------------------------- */

bool anon_room(void)
{
	return queued + writing + comparing < SAVE_FRAMES;
}

uint32_t anon_save_more(void)
{
	while (queued && writing < WRITES_MAX && !spill_wait_ns(now_ns())) {
		uint32_t c = queue[0];
		struct io_job job = { .kind = IO_WRITE, .buf = frame_of(c),
			.off = spill_offset(at(c)->ref), .len = CHUNK,
			.chunk = c | IO_TAG_WRITE };
		int direct, buffered;

		if (spill_fds(at(c)->ref, &direct, &buffered))
			break;
		job.fd = direct >= 0 ? direct : buffered;
		if (pg.io->submit(&job))
			break;
		unqueue(c);
		at(c)->saving = SAVE_WRITING;
		writing++;
		spill_written(CHUNK);
	}
	return queued + writing + comparing;
}

static void write_failed(uint32_t c, int res)
{
	struct chunk *ch = &pg.chunk[c];

	stat_add(ST_IO_ERRORS, 1);
	if (!said_write)
		off_log("a write to the spill file failed (%s): what it held stays in memory; see the disk of OFFLOAD_SPILL",
			res < 0 ? strerrordesc_np(-res) : "short write");
	said_write = true;
	chunk_moved(c, POL_READY);
	ch->flags |= CH_BUSY;
	pol_pin(pg.pol, c, 1);
	pager_busy();
}

static void write_done(uint32_t c, int res)
{
	struct anon_chunk *a = at(c);
	bool ok = res == (int)CHUNK;

	writing--;
	a->saving = SAVE_NO;
	if (a->gone) {
		chunk_drop_frame(c);
		a->gone = false;
		if (a->has_ref)
			spill_free(a->ref, CHUNK);
		*a = (struct anon_chunk){ 0 };
		uffd_wake(chunk_addr(c), CHUNK);
		return;
	}
	a->store = ok ? STORE_SPILL : STORE_NONE;
	if (a->wanted)
		pg.inflight--;
	if (!ok)
		write_failed(c, res);
	else if (a->wanted)
		chunk_moved(c, POL_READY);
	else
		chunk_drop_frame(c);
	a->wanted = false;
}

/* The comparison is over: absent with an origin, or to be written. */
static void compare_done(uint32_t c, bool equal)
{
	struct anon_chunk *a = at(c);

	comparing--;
	a->saving = SAVE_NO;
	if (equal) {
		a->store = STORE_ORIGIN;
		if (!a->wanted)
			chunk_drop_frame(c);
	} else {
		origin_forget(a->source);
		a->source = NULL;
	}
	if (a->wanted) {
		pg.inflight--;
		chunk_moved(c, POL_READY);
	} else if (!equal && save(c)) {
		write_failed(c, -ENOSPC);
	}
	a->wanted = false;
}

static void fetch_done(uint32_t c, bool right)
{
	pg.inflight--;
	if (!right || chunk_hash(frame_of(c), CHUNK) != at(c)->hash)
		lost(c, "the file it was read from was changed or cannot be read");
	stat_add(ST_IO_READ, CHUNK);
	chunk_moved(c, POL_READY);
}

/* Cleared meanwhile. */
static void gone_done(uint32_t c)
{
	struct anon_chunk *a = at(c);

	if (a->saving == SAVE_COMPARING)
		comparing--;
	else
		pg.inflight--;
	chunk_drop_frame(c);
	origin_forget(a->source);
	*a = (struct anon_chunk){ 0 };
	uffd_wake(chunk_addr(c), CHUNK);
}

static void origin_done(uint32_t c, int res)
{
	struct anon_chunk *a = at(c);
	struct bounce *b = a->bounce;
	bool right;

	if (res > 0 && a->saving != SAVE_COMPARING)
		pager_count_read((uint64_t)res);
	if (!origin_part_done(b, res))
		return;
	a->bounce = NULL;
	right = !a->gone && (a->saving == SAVE_COMPARING ?
			     origin_equal(c, a->source, b, frame_of(c)) :
			     origin_fill(c, a->source, b, frame_of(c)));
	origin_put(b);
	if (a->gone)
		gone_done(c);
	else if (a->saving == SAVE_COMPARING)
		compare_done(c, right);
	else
		fetch_done(c, right);
}

void anon_io_done(uint32_t tag, int res)
{
	if (tag & IO_TAG_WRITE)
		write_done(tag & ~IO_TAG_WRITE, res);
	else
		origin_done(tag & ~IO_TAG_VERIFY, res);
}

/* ---- cleared ----------------------------------------------------------------------- */

static void drop(uint32_t c)
{
	struct chunk *ch = &pg.chunk[c];
	struct anon_chunk *a = at(c);
	enum pol_state st = pol_state_of(pg.pol, c);

	if (ch->flags & CH_FORGOTTEN)
		return;
	if (a->saving == SAVE_QUEUED)
		unqueue(c);
	if (st == POL_PLAIN) {
		off_sys_madvise((void *)chunk_addr(c), CHUNK, MADV_DONTNEED);
		pg.plain--;
	}
	a->gone = a->saving >= SAVE_WRITING || st == POL_INFLIGHT;
	if (a->wanted)
		pg.inflight--;
	a->wanted = false;
	if (!a->gone && ch->slot)
		frames_put(ch->slot - 1, st == POL_PLAIN);
	if (a->saving == SAVE_WRITING) {	/* its place is free when it is over */
		*ch = (struct chunk){ .region = ch->region, .slot = ch->slot,
				      .flags = CH_FORGOTTEN };
		return;
	}
	make_empty(c);
}

/* Part of a chunk. False: it is not in place. */
static bool drop_part(uint32_t c, uintptr_t lo, uintptr_t hi)
{
	if (pg.chunk[c].flags & CH_FORGOTTEN)
		return true;
	return pol_state_of(pg.pol, c) == POL_PLAIN &&
	       !off_sys_madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

int anon_cleared(struct region *r, uintptr_t lo, uintptr_t hi)
{
	uintptr_t inner_lo = chunk_down(lo + CHUNK - 1), inner_hi = chunk_down(hi);
	uint32_t from = first + (uint32_t)((inner_lo - r->base) / CHUNK);
	int left = 0;

	if (lo < inner_lo) {
		uintptr_t end = hi < inner_lo ? hi : inner_lo;

		left |= drop_part(from - 1, lo, end) ? 0 : 1;
	}
	if (inner_lo < inner_hi) {
		uint32_t n = (uint32_t)((inner_hi - inner_lo) / CHUNK);

		for (uint32_t c = from; c < from + n; c++)
			drop(c);
		pol_remove(pg.pol, from, n);
	}
	if (inner_hi < hi && inner_hi >= inner_lo) {
		uint32_t c = first + (uint32_t)((inner_hi - r->base) / CHUNK);

		left |= drop_part(c, inner_hi, hi) ? 0 : 2;
	}
	return left;
}
