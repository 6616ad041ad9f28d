/* SPDX-License-Identifier: MIT */
/* packed.c - chunks of files that are kept packed, so that they need not be
 * read.
 *
 *   out: PLAIN or READY --taken out--> PACKING --worker--> ABSENT, in the pool
 *   in:  ABSENT, in the pool --> UNPACKING --worker--> READY, in the pool still
 *
 * (1) What is packed stays so while the chunk is in place: it does not change,
 *     and packing costs several times what unpacking does. Room is made by
 *     dropping it of chunks that are in place to stay.
 * (2) To the policy it is ABSENT from the moment it is taken out; who wants it
 *     before it is packed gets the frame back.
 * (3) A damaged image is no loss: the chunk is read from its file (R1).
 * Owns the table, by chunk. Lock: none; pager thread.
 */
#include "core/packed.h"
#include "core/core_int.h"
#include "core/lossy.h"
#include "core/packer.h"
#include "core/placement.h"
#include "core/pool.h"
#include "core/work.h"

#define JOBS	128		/* twice IO_DEPTH and the packer's rooms, and more */
#define LOOKS	256		/* chunks looked at in one packed_shed */

enum { IDLE, PACKING, UNPACKING };

struct entry {
	uint32_t slot;		/* + 1; 0: none */
	uint8_t busy;
	bool wanted, gone;
	bool never;		/* it does not pay */
};

struct job {
	struct work work;
	bool used;
	uint32_t c;
	char *frame, *image;
	ssize_t n;
	struct packer_of of;
};

static struct entry *entry;
static struct job job[JOBS];
static uint32_t unpacking, cursor, top;	/* top: above all that were packed */
static uint32_t returning;		/* wanted while they are being packed */

bool packed_open(void)
{
	if (!entry)
		entry = reserve_range((MAX_CHUNKS - HEAP_CHUNKS) * sizeof(*entry));
	return entry != NULL;
}

uint32_t packed_inflight(void)
{
	return unpacking + returning;
}

bool packed_has(uint32_t c)
{
	return entry && entry[c].slot;
}

static void drop(struct entry *e)
{
	uint32_t slot = e->slot;

	e->slot = 0;	/* first: a child of a fork frees what it finds here */
	if (slot)
		pool_free(slot - 1);
}

static struct job *new_job(uint32_t c)
{
	struct job *j = job;

	while (j->used)
		if (++j == job + JOBS)
			return NULL;
	*j = (struct job){ .used = true, .c = c, .of.hash = pg.chunk[c].hash,
			   .frame = frames_at(pg.chunk[c].slot - 1) };
	return j;
}

static enum pol_dtype type_of(uint32_t c)
{
	const struct region *r = chunk_region(c);
	uint64_t lo = chunk_off(c), hi = lo + CHUNK;

	for (size_t i = 0; i < r->n_spans; i++)
		if (r->spans[i].off < hi && lo < r->spans[i].off + r->spans[i].len)
			return (enum pol_dtype)r->spans[i].dtype;
	return POL_DT_OTHER;
}

/* ---- out ------------------------------------------------------------------------- */

static void run_pack(struct work *w)
{
	struct job *j = (struct job *)w;

	j->n = packer_pack(j->image, j->frame, &j->of);
}

static void packed_over(struct work *w)
{
	struct job *j = (struct job *)w;
	struct entry *e = &entry[j->c];
	uint32_t slot;

	j->used = false;
	chunk_region(j->c)->inflight--;
	e->busy = IDLE;
	if (!e->gone && j->n > 0 && !pool_put(j->image, (uint32_t)j->n, CHUNK, &slot))
		e->slot = slot + 1;
	e->never = j->n < 0;
	packer_give(j->image);
	if (e->wanted) {
		returning--;
		chunk_landed(j->c);
		chunk_moved(j->c, POL_READY);
	} else {
		chunk_drop_frame(j->c);
	}
	e->wanted = false;
	if (e->gone) {
		*e = (struct entry){ 0 };
		pg.chunk[j->c].flags = CH_FORGOTTEN;
	}
}

bool packed_keep(uint32_t c)
{
	struct entry *e = &entry[c];
	struct job *j;
	char *image;

	if (!entry || e->slot || e->never || !(pg.chunk[c].flags & CH_HASHED) ||
	    pg.chunk[c].flags & CH_ROUNDED ||
	    chunk_region(c)->writable || chunk_bytes_in_file(c) < CHUNK ||
	    !placement_room())
		return false;
	image = packer_room(false);
	if (!image)
		return false;
	j = new_job(c);
	if (!j) {
		packer_give(image);
		return false;
	}
	j->work.run = run_pack;
	j->work.over = packed_over;
	j->image = image;
	j->of.hint = type_of(c);
	j->of.n_pieces = lossy_pieces(chunk_region(c), chunk_off(c), j->of.piece);
	chunk_region(c)->inflight++;	/* the job's own, beside a fetch's */
	e->busy = PACKING;
	top = top > c ? top : c + 1;
	work_put(&j->work, WORK_OUT);
	return true;
}

/* ---- in -------------------------------------------------------------------------- */

static void run_unpack(struct work *w)
{
	struct job *j = (struct job *)w;

	j->n = packer_unpack(j->frame, j->image, (size_t)j->n);
}

static void unpacked_over(struct work *w)
{
	struct job *j = (struct job *)w;
	uint32_t c = j->c;
	struct chunk *ch = &pg.chunk[c];
	struct entry *e = &entry[c];
	bool gone = e->gone;

	j->used = false;
	unpacking--;
	chunk_landed(c);
	e->busy = IDLE;
	if (gone || j->n)
		drop(e);
	if (gone) {
		*e = (struct entry){ 0 };
		ch->flags = CH_FORGOTTEN;
		chunk_drop_frame(c);
		return;
	}
	if (!j->n) {
		if (packer_rounded(j->image))
			ch->flags |= CH_ROUNDED;
		chunk_moved(c, POL_READY);
		return;
	}
	off_verbose(1, "a packed chunk is damaged; it is read from its file again");
	stat_add(ST_IO_ERRORS, 1);
	chunk_unread(c);
}

int packed_fetch(uint32_t c)
{
	struct entry *e = &entry[c];
	uint32_t n;
	bool used;
	struct job *j;

	if (!entry)
		return -ENOENT;
	if (e->busy == PACKING) {
		e->wanted = true;
		returning++;
		return 0;
	}
	if (!e->slot || placement_probe())
		return -ENOENT;
	if (chunk_take_frame(c, &used))
		return -ENOMEM;
	j = new_job(c);
	if (!j) {
		chunk_drop_frame(c);
		return -ENOMEM;
	}
	j->work.run = run_unpack;
	j->work.over = unpacked_over;
	j->image = (char *)pool_at(e->slot - 1, &n);
	j->n = n;
	e->busy = UNPACKING;
	unpacking++;
	work_put(&j->work, pg.chunk[c].t_fault ? WORK_WAITED : WORK_IN);
	return 0;
}

/* ---- gone ------------------------------------------------------------------------- */

bool packed_forget(uint32_t c)
{
	struct entry *e = entry ? &entry[c] : NULL;

	if (!e)
		return false;
	if (!e->busy) {
		drop(e);
		*e = (struct entry){ 0 };
		return false;
	}
	e->gone = true;
	if (e->wanted) {	/* it was INFLIGHT */
		returning--;
		chunk_landed(c);
	}
	e->wanted = false;
	return true;
}

void packed_shed(bool any)
{
	for (uint32_t i = 0; i < LOOKS && i < top; i++) {
		struct entry *e;

		cursor = cursor + 1 < top ? cursor + 1 : 0;
		e = &entry[cursor];
		if (e->slot && !e->busy && (any || pol_stays(pg.pol, cursor)))
			drop(e);
	}
}

void packed_fork_child(bool inherited)
{
	for (uint32_t c = 0; c < top; c++) {
		if (inherited)
			drop(&entry[c]);
		entry[c] = (struct entry){ 0 };
	}
	memset(job, 0, sizeof(job));
	unpacking = returning = cursor = top = 0;
}
