/* SPDX-License-Identifier: MIT */
/* vmm_spill.c - extents without a home: their bytes are in a file (OFFLOAD_DEVICE_DEEP=1).
 *
 *   home --bytes to the file, unmapped--> spilled --mapped, bytes from the file--> home
 *
 * (1) A spilled extent is not mapped: what reaches it in spite of all is stopped by the
 *     device, and never reads another byte (R3). Who may reach it brings it home before
 *     (vmm_reach.c).
 * (2) Its slot stays its own when it has come home. What goes out again is compared by
 *     hash with what the slot holds, and written only if it differs: weights are written
 *     once (R5).
 * (3) The home goes once its bytes are in the file (R2). While there is a home the slot is
 *     worth nothing, so it may be taken for another extent when the file is full.
 * (4) As many slots as extents without a home were had at cuMemAlloc, and one extent more:
 *     one can always go out before another comes in.
 * (5) Only what the host or copies have filled is spilled: what kernels alone write is
 *     caches and activations, needed again at once.
 * (6) What is used next is read while the device works (VMM_AHEAD), to memory of ours: a slot
 *     of what has no home does not change meanwhile.
 * (7) What packs is packed (vmm_pack.c): weights are written once, and read in every pass.
 *     Its slot is as long as it would be unpacked, or (4) would not hold.
 * Lock: the turn.
 */
#include "core/vmm_int.h"
#include "core/vmm_pack.h"
#include "core/vmm_store.h"

#define ROOMS	8u		/* pieces on their way at a time */

struct vmm_piece {
	uint32_t page;		/* STORE_NONE: no slot */
	uint32_t image;		/* bytes of what they were packed to; 0: they were not */
	bool kept;		/* the slot holds bytes of that hash */
	uint64_t hash;
	struct seal seal;
};

struct room {
	struct store_job job;
	struct vmm_piece *piece;
	uint64_t at;		/* in the device */
	uint32_t len;		/* there */
	bool busy;
};

static char *rooms;
static struct room room[ROOMS + VMM_AHEAD];	/* the last ones: `busy`, read or being read */

bool vmm_deep_on(int dev)
{
	return off_opt.device_deep && vmm_dev[dev].mode == VMM_MIXED;
}

bool vmm_spillable(const struct vmm_region *r)
{
	struct device_region d;

	return r->piece && !r->fixed && r->ctx && device_find(r->base, &d) &&
	       d.placed == r->number && d.marks & (DEVICE_FILLED | DEVICE_WRITTEN) &&
	       !(d.marks & (DEVICE_SHOWN | DEVICE_ENCODED));
}

/* ---- slots ----------------------------------------------------------------------------- */

static uint32_t per_extent(const struct vmm_region *r)
{
	return (uint32_t)((r->extent + STORE_PIECE - 1) / STORE_PIECE);
}

static struct vmm_piece *piece_of(const struct vmm_region *r, uint32_t i, uint32_t k)
{
	return &r->piece[(uint64_t)i * per_extent(r) + k];
}

/* Of the extent, what is the k-th piece's; 0: there is none. */
static uint32_t piece_bytes(const struct vmm_region *r, uint32_t i, uint32_t k)
{
	uint64_t left = less(vmm_bytes(r, i), (uint64_t)k * STORE_PIECE);

	return left < STORE_PIECE ? (uint32_t)left : STORE_PIECE;
}

/* Of the piece's len bytes, what is in its slot. */
static uint32_t stored(const struct vmm_piece *p, uint32_t len)
{
	return p->image ? (uint32_t)page_up(p->image) : len;
}

/* (6) NULL: it was not read ahead. */
static struct room *ahead_of(const struct vmm_piece *p)
{
	for (uint32_t k = ROOMS; k < ROOMS + VMM_AHEAD; k++)
		if (room[k].busy && room[k].piece == p)
			return &room[k];
	return NULL;
}

/* The slot holds its bytes, or does not any more. */
static void keep(int dev, struct vmm_piece *p, bool kept)
{
	int64_t packed = (int64_t)page_up(p->image);

	if (p->kept != kept)
		device_stat(dev, SD_PACKED, kept ? packed : -packed);
	p->kept = kept;
}

static int give_up(struct room *m)
{
	m->busy = false;
	return store_wait(&m->job);
}

static void give_slots(struct vmm_region *r, uint32_t i)
{
	for (uint32_t k = 0; piece_bytes(r, i, k); k++) {
		struct vmm_piece *p = piece_of(r, i, k);
		struct room *m = ahead_of(p);

		if (m)
			give_up(m);
		if (p->page != STORE_NONE)
			store_give(p->page, piece_bytes(r, i, k));
		p->page = STORE_NONE;
		keep(r->dev, p, false);
	}
}

/* (3) One extent with a home gives up its slots, for those of another. */
static bool take_back(const struct vmm_region *other, uint32_t its)
{
	for (uint32_t n = 1; n < VMM_REGIONS; n++) {
		struct vmm_region *r = vmm_nth(n);

		for (uint32_t i = 0; r && r->piece && i < r->n; i++)
			if (!r->ext[i].spilled && piece_of(r, i, 0)->page != STORE_NONE &&
			    (r != other || i != its)) {
				give_slots(r, i);
				return true;
			}
	}
	return false;
}

static int take_slots(struct vmm_region *r, uint32_t i)
{
	int err = store_open();

	for (uint32_t k = 0; !err && piece_bytes(r, i, k); k++) {
		struct vmm_piece *p = piece_of(r, i, k);

		if (p->page != STORE_NONE)
			continue;
		do
			err = store_take(piece_bytes(r, i, k), &p->page);
		while (err && take_back(r, i));
		if (err)
			p->page = STORE_NONE;
	}
	return err;
}

int vmm_spill_begin(struct vmm_region *r, uint64_t bytes)
{
	uint64_t n = (uint64_t)r->n * per_extent(r);
	int err = bytes ? store_open() : 0;

	if (!err && bytes)
		err = store_reserve(bytes + r->extent);		/* (4) */
	if (err)
		return err;
	if (!rooms)
		rooms = reserve_range((size_t)(ROOMS + VMM_AHEAD) * STORE_PIECE);
	err = rooms ? vmm_pack_open() : -ENOMEM;
	r->piece = !err ? mem_zalloc(n * sizeof(*r->piece)) : NULL;
	for (uint64_t k = 0; r->piece && k < n; k++)
		r->piece[k].page = STORE_NONE;
	atomic_store(&vmm_deep, true);
	return r->piece ? 0 : -ENOMEM;
}

static void count(struct vmm_region *r, uint32_t i, bool spilled)
{
	int64_t len = (int64_t)vmm_bytes(r, i);

	r->ext[i].spilled = spilled;
	__atomic_fetch_add(&r->n_spilled, spilled ? 1 : UINT32_MAX, __ATOMIC_RELAXED);
	device_stat(r->dev, SD_SPILLED, spilled ? len : -len);
}

int vmm_spill_fresh(struct vmm_region *r, uint32_t i)
{
	int err = take_slots(r, i);

	if (!err)
		count(r, i, true);
	return err;
}

void vmm_spill_end(struct vmm_region *r)
{
	if (!r->piece)
		return;
	for (uint32_t i = 0; i < r->n; i++) {
		if (r->ext[i].spilled)
			count(r, i, false);
		give_slots(r, i);
	}
	mem_free(r->piece);
	r->piece = NULL;
}

/* ---- out --------------------------------------------------------------------------------- */

static char *room_at(const struct room *m)
{
	return rooms + (size_t)(m - room) * STORE_PIECE;
}

/* What was written there is there. */
static int written(const struct vmm_region *r, struct room *m)
{
	int err;

	if (!m->busy)
		return 0;
	m->busy = false;
	err = store_wait(&m->job);
	keep(r->dev, m->piece, !err);
	return err;
}

/* Its bytes are in its slot, or are being written there (room busy). */
static int send_out(const struct vmm_region *r, uint32_t i, uint32_t k, struct room *m)
{
	struct vmm_piece *p = piece_of(r, i, k);
	uint32_t len = piece_bytes(r, i, k);
	uint64_t hash;
	int err = vmm_ops->fetch(r->ctx, 0, room_at(m), vmm_at(r, i) + (uint64_t)k * STORE_PIECE,
				 len);

	if (err)
		return err;
	hash = chunk_hash(room_at(m), len);
	if (p->kept && p->hash == hash)		/* (2) */
		return 0;
	keep(r->dev, p, false);
	p->hash = hash;
	p->image = vmm_pack(room_at(m), len, hash);
	len = stored(p, len);
	store_seal(&p->seal, room_at(m), len);
	m->piece = p;
	m->busy = true;
	m->job = (struct store_job){ .kind = STORE_WRITE, .page = p->page, .len = len,
				     .buf = room_at(m) };
	store_post(&m->job);
	device_stat(r->dev, SD_SPILL_OUT, len);
	return 0;
}

static int save(struct vmm_region *r, uint32_t i)
{
	int err = take_slots(r, i), late = 0;

	for (uint32_t k = 0; !err && piece_bytes(r, i, k); k++) {
		err = written(r, &room[k % ROOMS]);
		err = err ? err : send_out(r, i, k, &room[k % ROOMS]);
	}
	for (uint32_t k = 0; k < ROOMS; k++) {
		int one = written(r, &room[k]);

		late = late ? late : one;
	}
	return err ? err : late;
}

int vmm_spill_out(struct vmm_region *r, uint32_t i)
{
	uint64_t len = vmm_bytes(r, i);
	int err;

	if (!r->piece || r->ext[i].spilled)
		return -EINVAL;
	vmm_views_end(r);
	err = save(r, i);
	err = err ? err : vmm_ops->unmap(vmm_at(r, i), len);
	if (err)
		return err;
	vmm_handle_put(r->dev, r->ext[i].host, len, r->ext[i].handle);
	r->ext[i].handle = 0;
	r->ext[i].host = false;
	count(r, i, true);
	return 0;
}

/* ---- in ------------------------------------------------------------------------------------ */

/* The bytes of a piece of len, from what was read of its slot; NULL: they are not those. */
static const char *opened(const struct room *m, uint32_t len)
{
	const struct vmm_piece *p = m->piece;
	const char *bytes;

	if (store_unseal(&p->seal, room_at(m), m->job.len))
		return NULL;
	bytes = p->image ? vmm_unpack(room_at(m), p->image, len) : room_at(m);
	return bytes && chunk_hash(bytes, len) == p->hash ? bytes : NULL;
}

/* A piece that was asked for is in the device. */
static int arrived(const struct vmm_region *r, struct room *m)
{
	uint32_t len = m->len;
	const char *bytes = NULL;
	int err;

	if (!m->busy)
		return 0;
	m->busy = false;
	err = store_wait(&m->job);
	if (!err) {
		bytes = opened(m, len);
		err = bytes ? 0 : -EBADMSG;
	}
	if (err) {
		off_log("device %d: %u bytes of the allocation at %#llx cannot be read back from the spill file: %s",
			r->dev, len, (unsigned long long)r->base, strerrordesc_np(-err));
		return err;
	}
	device_stat(r->dev, SD_SPILL_IN, len);
	device_stat(r->dev, SD_SPILL_READ, m->job.len);
	return vmm_ops->fill(r->ctx, m->at, bytes, len);
}

static void ask_for(const struct vmm_region *r, uint32_t i, uint32_t k, struct room *m)
{
	uint32_t len = piece_bytes(r, i, k);

	*m = (struct room){ .piece = piece_of(r, i, k), .busy = true, .len = len,
			    .at = vmm_at(r, i) + (uint64_t)k * STORE_PIECE };
	m->job = (struct store_job){ .kind = STORE_READ, .page = m->piece->page,
				     .len = stored(m->piece, len), .buf = room_at(m) };
	store_post(&m->job);
}

/* A room that is free; else the one that was filled longest ago is of no use, it seems. */
static struct room *ahead_room(int dev)
{
	static uint32_t oldest;
	struct room *m;

	for (uint32_t k = ROOMS; k < ROOMS + VMM_AHEAD; k++)
		if (!room[k].busy)
			return &room[k];
	m = &room[ROOMS + oldest++ % VMM_AHEAD];
	give_up(m);
	device_stat(dev, SD_WASTED, 1);
	return m;
}

uint32_t vmm_spill_ahead(struct vmm_region *r, uint32_t i, uint32_t most)
{
	uint32_t n = 0;

	for (uint32_t k = 0; n < most && piece_bytes(r, i, k); k++) {
		const struct vmm_piece *p = piece_of(r, i, k);

		if (!p->kept)
			continue;
		n++;
		if (ahead_of(p))
			continue;
		ask_for(r, i, k, ahead_room(r->dev));
		device_stat(r->dev, SD_ISSUED, 1);
	}
	return n;
}

static int restore(struct vmm_region *r, uint32_t i)
{
	int err = 0, late = 0;

	for (uint32_t k = 0; !err && piece_bytes(r, i, k); k++) {
		struct vmm_piece *p = piece_of(r, i, k);
		struct room *m = &room[k % ROOMS], *ahead;

		err = arrived(r, m);
		if (err || !p->kept)		/* nobody has written there yet */
			continue;
		ahead = ahead_of(p);
		if (ahead && !store_done(&ahead->job))
			device_stat(r->dev, SD_LATE, 1);
		if (ahead && !store_wait(&ahead->job)) {
			err = arrived(r, ahead);
			continue;
		}
		if (ahead)			/* once more */
			ahead->busy = false;
		ask_for(r, i, k, m);
	}
	for (uint32_t k = 0; k < ROOMS; k++) {
		int one = arrived(r, &room[k]);

		late = late ? late : one;
	}
	return err ? err : late;
}

/* A handle where there is room: in the device, on the host, in what is kept of the device. */
static int new_home(struct vmm_region *r, uint32_t i)
{
	uint64_t len = vmm_bytes(r, i), keep = vmm_dev[r->dev].keep;
	struct vmm_extent *e = &r->ext[i];
	int err = -ENOMEM;

	for (int way = 0; way < 3 && err == -ENOMEM; way++) {
		uint64_t room_left = way == 1 ? vmm_host_left(r->dev) :
				     vmm_room(r->dev, r->ctx, way ? 0 : keep);

		if (room_left < len)
			continue;
		e->host = way == 1;
		err = vmm_handle_get(r->dev, e->host, len, &e->handle);
	}
	if (err)
		e->host = false;
	return err;
}

int vmm_spill_in(struct vmm_region *r, uint32_t i)
{
	uint64_t len = vmm_bytes(r, i), at = vmm_at(r, i);
	struct vmm_extent *e = &r->ext[i];
	int err = new_home(r, i);

	if (err)
		return err;
	err = vmm_ops->map(at, len, e->handle);
	if (!err) {
		err = vmm_ops->access(at, len, vmm_dev[r->dev].peers);
		err = err ? err : restore(r, i);
		if (err && vmm_ops->unmap(at, len))
			return err;	/* the driver keeps it; nobody knows what it holds */
	}
	if (err) {
		vmm_handle_put(r->dev, e->host, len, e->handle);
		e->handle = 0;
		e->host = false;
		return err;
	}
	count(r, i, false);
	return 0;
}

/* Nothing is on its way here. */
void vmm_spill_child(void)
{
	memset(room, 0, sizeof(room));
}

/* ---- which one -------------------------------------------------------------------------------- */

/* When it is used next, if that goes on as it did; never seen twice: not soon. */
static uint64_t next_use(const struct vmm_region *r)
{
	uint64_t every = __atomic_load_n(&r->every, __ATOMIC_RELAXED);

	return __atomic_load_n(&r->used_at, __ATOMIC_RELAXED) + (every ? every : 1ull << 40);
}

static bool wanted(const struct vmm_region *r, uint32_t i, uint64_t want)
{
	return r->want == want && i - r->want_lo < r->want_hi - r->want_lo;
}

int vmm_spill_one(int dev, uint64_t want, uint64_t before)
{
	struct vmm_region *best = NULL;
	uint32_t at = 0;
	uint64_t most = 0;

	for (uint32_t n = 1; n < VMM_REGIONS; n++) {
		struct vmm_region *r = vmm_nth(n);
		uint64_t next;

		if (!r || r->dev != dev || !r->piece)
			continue;
		next = next_use(r);
		if (next < most || next < before || !vmm_spillable(r))
			continue;
		for (uint32_t i = r->n; i-- > 0;)
			if (!r->ext[i].spilled && !wanted(r, i, want)) {
				best = r;
				at = i;
				most = next;
				break;
			}
	}
	return best ? vmm_spill_out(best, at) : -ENOMEM;
}
