/* SPDX-License-Identifier: MIT */
/* file_io.c - chunks of files, on their way in.
 *
 *   ABSENT --fetch_read--> INFLIGHT --file_read_done--> READY
 *
 * (1) O_DIRECT, but from the page cache what is whole in it, and buffered after a
 *     read that failed.
 * (2) What is read again must be what was read the first time, where the file's
 *     times have moved (R4).
 * Lock: none; pager thread.
 */
#include "core/anon.h"
#include "core/core_int.h"

#include <fcntl.h>


static bool cached(struct origin *o, uint32_t c)
{
	uint32_t len = chunk_bytes_in_file(c);

	return o->drop_cache && origin_cached(o, chunk_off(c), len, NULL) >= (int64_t)len;
}

void file_look(uint32_t c)
{
	if (origin_check(chunk_region(c)->origin, chunk_off(c) + chunk_bytes_in_file(c)))
		chunk_lost(c, "the file was shortened");
}

/* The modes' fetch, where a frame is read into. */
int fetch_read(uint32_t c, void *frame)
{
	struct chunk *ch = &pg.chunk[c];
	struct origin *o = chunk_region(c)->origin;
	uint32_t len = chunk_bytes_in_file(c);
	bool direct = o->fd_direct >= 0 && !(ch->flags & CH_RETRY) && !cached(o, c);
	struct io_job job = {
		.kind = IO_READ, .fd = direct ? o->fd_direct : o->fd,
		.buf = frame, .off = chunk_off(c), .chunk = c,
		.len = direct ? (uint32_t)page_up(len) : len,
	};
	int err;

	file_look(c);
	stat_add(ST_IO_READS, 1);
	if (!direct)
		stat_add(ST_IO_BUFFERED, len);
	err = pg.io->submit(&job);
	if (!err)		/* its pages are held from now on */
		frames_filled(ch->slot - 1);
	return err;
}

void chunk_landed(uint32_t c)
{
	pg.inflight--;
	chunk_region(c)->inflight--;
}

int chunk_take_frame(uint32_t c, bool *used)
{
	uint32_t slot = frames_get(used);

	if (slot == NO_SLOT)
		return -ENOMEM;
	pg.chunk[c].slot = slot + 1;
	return 0;
}

void chunk_drop_frame(uint32_t c)
{
	struct chunk *ch = &pg.chunk[c];

	if (ch->slot)
		frames_put(ch->slot - 1, false);
	ch->slot = 0;
}

/* The bytes are here: are they those the program was shown before? */
static void check_bytes(uint32_t c, const unsigned char *frame, uint32_t len)
{
	struct chunk *ch = &pg.chunk[c];
	struct region *r = chunk_region(c);
	bool want = !(ch->flags & CH_HASHED) || r->origin->moved;
	uint64_t h;

	if (!want)
		return;
	h = chunk_hash(frame, len);
	if (ch->flags & CH_HASHED && h != ch->hash)
		chunk_lost(c, "the file's content changed while it was mapped");
	ch->hash = h;
	ch->flags |= CH_HASHED;
}

void chunk_unread(uint32_t c)
{
	const struct chunk *ch = &pg.chunk[c];

	chunk_drop_frame(c);
	chunk_moved(c, POL_ABSENT);
	if (ch->t_fault)
		pol_fault(pg.pol, c, ch->stream);
}

static bool read_failed(uint32_t c, int res)
{
	struct chunk *ch = &pg.chunk[c];

	stat_add(ST_IO_ERRORS, 1);
	if (++ch->tries >= MAX_TRIES)
		chunk_lost(c, res < 0 ? strerrordesc_np(-res) : "short read");
	ch->flags |= CH_RETRY;
	return true;
}

void file_read_done(uint32_t c, int res)
{
	uint32_t len;
	struct chunk *ch = &pg.chunk[c];
	struct region *r = chunk_region(c);

	if (r->anon) {
		anon_read_done(c, res);
		return;
	}
	chunk_landed(c);
	if (ch->flags & CH_GONE) {
		ch->flags = CH_FORGOTTEN;
		chunk_drop_frame(c);
		return;
	}
	len = chunk_bytes_in_file(c);
	if (res < (int)len && read_failed(c, res)) {
		chunk_unread(c);
		return;
	}
	ch->tries = 0;
	ch->flags &= (uint16_t)~(CH_RETRY | CH_ROUNDED);
	stat_add(ST_IO_READ, len);
	pager_count_read(len);
	if (ch->slot) {
		char *frame = frames_at(ch->slot - 1);

		/* R4: past the end of the file its last page holds zeros. */
		memset(frame + len, 0, page_up(len) - len);
		check_bytes(c, (unsigned char *)frame, len);
	}
	if (r->origin->drop_cache && pg.ops->anon)	/* in hints the cache is the frame */
		off_sys_fadvise(r->origin->fd, (off_t)chunk_off(c), len, POSIX_FADV_DONTNEED);
	chunk_moved(c, POL_READY);
}
