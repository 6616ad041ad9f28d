/* SPDX-License-Identifier: MIT */
/* anon_origin.c - heap chunks whose bytes can be had from the files they were
 * read from, so that weights are never written.
 *
 *   bounce buffer: free --> its parts are being read --> compared, or copied
 *
 * (1) A hint is believed when the bytes of the file, read for the purpose,
 *     are those of the frame, all of them; what no hint covers must be zeros.
 * (2) File and memory are seldom aligned alike: parts are read with their
 *     surroundings into a bounce buffer, so that O_DIRECT works.
 * (3) There is a buffer for every read that may be under way: none waits.
 *     Where there can be no buffers at all, who reads waits.
 * (4) The pieces that were compared are kept with the chunk: later hints do
 *     not change where it comes from.
 * Lock: none; pager thread.
 */
#include "core/anon.h"
#include "core/anon_int.h"
#include "core/core_int.h"
#include "core/learned.h"

#include <sys/mman.h>

#define PARTS	8
#define FETCHES	16U		/* the rest are for comparisons */
#define BUFFERS	(FETCHES + SAVE_FRAMES)
#define ROOM	(CHUNK + PARTS * 2 * PAGE)
#define STRIDE	(2 * CHUNK)

struct source {
	int n;
	struct learned_piece piece[PARTS];
};

struct bounce {
	char *buf;
	bool busy, failed;
	bool later;		/* a read could not be submitted now */
	int pending;
	size_t skip[PARTS];	/* in buf, where a piece's bytes begin */
};

static struct bounce bounce[BUFFERS];
static char *room;			/* of all of them */

/* Huge pages: a read into small ones is 512 pieces. */
static bool make_room(void)
{
	size_t len = BUFFERS * STRIDE;
	char *p = room ? NULL : reserve_own(len + CHUNK);

	if (room || !p)
		return room != NULL;
	room = (char *)chunk_down((uintptr_t)p + CHUNK - 1);
	off_sys_madvise(room, len, MADV_DONTDUMP);
	for (uint32_t i = 0; i < BUFFERS; i++) {
		bounce[i].buf = room + i * STRIDE;
		off_sys_madvise(bounce[i].buf, CHUNK, MADV_HUGEPAGE);
		off_sys_madvise(bounce[i].buf + CHUNK, CHUNK, MADV_NOHUGEPAGE);
	}
	/* A fetch holds one until a worker is done with it: see io_room in pager.c. */
	off_assert(2 * pg.depth <= FETCHES);
	return true;
}

static struct bounce *get(void)
{
	for (uint32_t i = 0; i < BUFFERS && make_room(); i++) {
		struct bounce *b = &bounce[i];

		if (b->busy)
			continue;
		b->busy = true;
		b->failed = b->later = false;
		b->pending = 0;
		return b;
	}
	return NULL;
}

/* Starts the read of piece i into b from `at` on; returns how far it reaches. */
static size_t read_part(struct bounce *b, const struct learned_piece *p, int i,
			size_t at, uint32_t tag)
{
	struct origin *o = p->origin;
	size_t len = p->hi - p->lo;
	bool direct = o->fd_direct >= 0 && !(pg.chunk[tag & ~IO_TAG_VERIFY].flags & CH_RETRY);
	uint64_t from = p->off & ~(PAGE - 1), to = (p->off + len + PAGE - 1) & ~(PAGE - 1);
	struct io_job job = { .kind = IO_READ, .buf = b->buf + at, .off = from,
		.fd = direct ? o->fd_direct : o->fd,
		.len = (uint32_t)(to - from), .chunk = tag };

	b->skip[i] = at + (size_t)(p->off - from);
	if (origin_check(o, p->off + len))
		b->failed = true;
	else if (pg.io->submit(&job))
		b->failed = b->later = true;
	else
		b->pending++;
	return at + (size_t)(to - from);
}

static int begin(struct bounce **out, const struct source *s, uint32_t tag)
{
	struct bounce *b = get();
	size_t at = 0;

	if (!b)
		return room ? -EAGAIN : -ENOMEM;
	for (int i = 0; i < s->n; i++)
		at = read_part(b, &s->piece[i], i, at, tag);
	if (!b->pending) {
		b->busy = false;
		return b->later ? -EAGAIN : -EIO;
	}
	*out = b;
	return 0;
}

/* Enough is covered to be worth a comparison. */
static bool worth(const struct source *s)
{
	size_t sum = 0;

	for (int i = 0; i < s->n; i++)
		sum += s->piece[i].hi - s->piece[i].lo;
	return sum >= CHUNK / 2;
}

/* False: one of the files is not to be relied on any more. See hold.c (3). */
static bool rely(const struct source *s)
{
	bool ok = true;

	for (int i = 0; i < s->n; i++)
		atomic_fetch_add(&s->piece[i].origin->users, 1);
	for (int i = 0; i < s->n; i++)
		ok &= !atomic_load(&s->piece[i].origin->let_go);
	return ok;
}

int origin_compare(uint32_t c, struct source **source, struct bounce **out)
{
	uintptr_t a = chunk_addr(c);
	struct source *s = mem_alloc(sizeof(*s));
	int err = -ENOMEM;

	if (s)
		s->n = learned_pieces(a, a + CHUNK, s->piece, PARTS);
	if (s && (s->n <= 0 || !worth(s))) {
		err = -ENOENT;
		s->n = 0;
	} else if (s) {
		err = rely(s) ? begin(out, s, c | IO_TAG_VERIFY) : -ENOENT;
	}
	if (err)
		origin_forget(s);
	else
		*source = s;
	return err;
}

int origin_fetch(uint32_t c, const struct source *s, struct bounce **out)
{
	return begin(out, s, c | IO_TAG_VERIFY);
}

/* -ESTALE: it is not what it was. */
static int read_whole(const struct learned_piece *p, char *to)
{
	size_t len = p->hi - p->lo;
	int err = origin_check(p->origin, p->off + len);
	ssize_t n = err ? err : off_sys_pread_all(p->origin->fd, to, len, (off_t)p->off);

	return n < 0 ? (int)n : n == (ssize_t)len ? 0 : -ESTALE;
}

int origin_read(uint32_t c, const struct source *s, char *frame)
{
	static bool said;
	int err = 0;

	if (!said)
		off_log("no memory for the buffers files are read to: what the heap has from files is read back one by one, slowly");
	said = true;
	memset(frame, 0, CHUNK);
	for (int i = 0; i < s->n && !err; i++)
		err = read_whole(&s->piece[i], frame + (s->piece[i].lo - chunk_addr(c)));
	if (err) {
		stat_add(ST_IO_ERRORS, 1);
		return err == -ESTALE || ++pg.chunk[c].tries >= MAX_TRIES ? -EIO : -EAGAIN;
	}
	stat_add(ST_IO_READS, 1);
	stat_add(ST_IO_BUFFERED, CHUNK);
	pager_count_read(CHUNK);
	return 0;
}

bool origin_part_done(struct bounce *b, int res)
{
	b->failed |= res <= 0;
	return !--b->pending;
}

/* The first ones are used again at once; comparisons are few, and once. */
void origin_put(struct bounce *b)
{
	b->busy = false;
	if (b >= bounce + FETCHES)
		off_sys_madvise(b->buf, STRIDE, MADV_DONTNEED);
}

static bool zeros(const char *p, size_t len)
{
	return !len || (!*p && !memcmp(p, p + 1, len - 1));
}

bool origin_equal(uintptr_t a, const struct source *s, const struct bounce *b,
		  const char *frame)
{
	uintptr_t at = a;

	if (b->failed)
		return false;
	for (int i = 0; i < s->n; i++) {
		const struct learned_piece *p = &s->piece[i];

		if (!zeros(frame + (at - a), p->lo - at) ||
		    memcmp(frame + (p->lo - a), b->buf + b->skip[i], p->hi - p->lo))
			return false;
		at = p->hi;
	}
	return zeros(frame + (at - a), a + CHUNK - at);
}

bool origin_fill(uintptr_t a, const struct source *s, const struct bounce *b, char *frame,
		 uint64_t *hash)
{
	struct hash_part part[2 * PARTS + 1];
	uintptr_t at = a;
	int n = 0;

	for (int i = 0; i < s->n; i++) {
		const struct learned_piece *p = &s->piece[i];

		part[n++] = (struct hash_part){ NULL, p->lo - at };
		part[n++] = (struct hash_part){ b->buf + b->skip[i], p->hi - p->lo };
		at = p->hi;
	}
	part[n++] = (struct hash_part){ NULL, a + CHUNK - at };
	*hash = chunk_gather(frame, part, n);
	return !b->failed;
}

uint32_t anon_extra_frames(void)
{
	return SAVE_FRAMES + (learned_any() ? FETCHES : 0);
}

void origin_forget(struct source *s)
{
	for (int i = 0; s && i < s->n; i++)
		atomic_fetch_sub(&s->piece[i].origin->users, 1);
	mem_free(s);
}

struct origin *origin_nth(const struct source *s, int i)
{
	return i < s->n ? s->piece[i].origin : NULL;
}

void origin_reset(void)
{
	memset(bounce, 0, sizeof(bounce));
	room = NULL;		/* not inherited */
}
