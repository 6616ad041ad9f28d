/* SPDX-License-Identifier: MIT */
/* vmm_reach.c - what a call can touch has homes before it is made (OFFLOAD_DEVICE_DEEP=1).
 *
 *   call --inside the gate: all has homes--> made
 *        --else: the gate closed, others spilled, this brought home--> inside, made
 *
 * (1) A copy touches its bytes. A kernel touches the regions its arguments point into or
 *     to the end of, as a whole, and what addresses in those and in variables of modules
 *     lead to (vmm_points.c); one whose arguments are not known, anything.
 * (2) Nothing is guessed: what cannot have homes all at once fails, with a line that says
 *     so. What was spilled for it meanwhile is where it was put, and right.
 * (3) Who brought something home enters the gate before he gives up the turn: nobody can
 *     spill it again before the call is made.
 * (4) Every use of a region is counted, so that what is used furthest from now goes out
 *     (vmm_spill.c); and what came next the last time comes home with what is asked for, as
 *     long as only what is needed later goes out for it: each time costs a drain.
 * Lock: none, and the turn.
 */
#include "core/vmm_int.h"

#include <time.h>

#define TRIES	100		/* 10 ms each: for captures, and calls that take long */
#define SEEN	512u		/* regions that one call reaches; beyond, it reaches all */

_Atomic bool vmm_deep;

static _Atomic uint64_t uses;
static _Atomic uint32_t last_used;	/* number of a region */
static uint64_t wants;			/* calls served; in the turn */

/* ---- regions of a call (1) ---------------------------------------------------------------- */

struct seen {
	uint32_t n;
	bool all;
	struct { uint64_t base, len; uint32_t placed; } of[SEEN];
};

static void see(uint64_t value, void *arg)
{
	struct seen *s = arg;
	struct device_region d;

	if (!device_find(value, &d) && !device_find(value - 1, &d))
		return;
	for (uint32_t i = 0; i < s->n; i++)
		if (s->of[i].base == d.base)
			return;
	if (s->n == SEEN) {
		s->all = true;
		return;
	}
	s->of[s->n].base = d.base;
	s->of[s->n].len = d.len;
	s->of[s->n++].placed = d.placed;
}

/* Both that an address is in and that it ends. */
static void see_both(uint64_t value, struct seen *s)
{
	see(value, s);
	see(value - 1, s);
}

/* Whole regions: those of ranges without a length. */
static void see_all(const struct vmm_reach *w, struct seen *s)
{
	s->n = 0;
	s->all = w->all;
	for (uint32_t i = 0; i < w->n; i++)
		if (!w->range[i].len)
			see_both(w->range[i].at, s);
	if (w->kernel || w->all)
		vmm_points_global(see, s);
	for (uint32_t i = 0; i < s->n && !s->all; i++)
		vmm_points_in(s->of[i].base, s->of[i].len, see, s);
}

/* Extents of [at, at + len) that the region has. False: none. */
static bool extents(const struct vmm_region *r, uint64_t at, uint64_t len, uint32_t *lo,
		    uint32_t *hi)
{
	uint64_t off = at - r->base, end = off + len;

	if (!r->n || off >= r->size)
		return false;
	end = end > r->size ? r->size : end;
	*lo = (uint32_t)(off / r->extent);
	*hi = (uint32_t)((end + r->extent - 1) / r->extent);
	return true;
}

/* ---- has it homes? (inside the gate) --------------------------------------------------------- */

static bool spilled(const struct vmm_region *r)
{
	return r && __atomic_load_n(&r->n_spilled, __ATOMIC_RELAXED);
}

static bool range_home(const struct vmm_range *g)
{
	uint64_t at = g->at, end = g->at + g->len;

	while (at < end) {
		const struct vmm_region *r = vmm_of(at);
		uint32_t lo, hi;

		if (!r || !extents(r, at, end - at, &lo, &hi))
			return true;
		for (uint32_t i = lo; spilled(r) && i < hi; i++)
			if (r->ext[i].spilled)
				return false;
		at = r->base + r->size;
	}
	return true;
}

static bool all_home(void)
{
	for (uint32_t i = 1; i < VMM_REGIONS; i++)
		if (spilled(vmm_nth(i)))
			return false;
	return true;
}

static bool home(const struct vmm_reach *w, const struct seen *s)
{
	if (s->all)
		return all_home();
	for (uint32_t i = 0; i < w->n; i++)
		if (w->range[i].len && !range_home(&w->range[i]))
			return false;
	for (uint32_t i = 0; i < s->n; i++)
		if (s->of[i].placed && spilled(vmm_nth(s->of[i].placed)))
			return false;
	return true;
}

bool vmm_reached(const struct vmm_reach *w)
{
	struct seen s;

	see_all(w, &s);
	return home(w, &s);
}

/* (4) */
static void use(uint32_t number)
{
	struct vmm_region *r = vmm_nth(number), *before;
	uint64_t now = atomic_fetch_add(&uses, 1) + 1, was;
	uint32_t last;

	if (!r || !r->piece)
		return;
	last = atomic_exchange(&last_used, number);
	before = last != number ? vmm_nth(last) : NULL;
	if (before)
		__atomic_store_n(&before->after, number, __ATOMIC_RELAXED);
	was = __atomic_exchange_n(&r->used_at, now, __ATOMIC_RELAXED);
	if (was)
		__atomic_store_n(&r->every, now - was, __ATOMIC_RELAXED);
}

/* ---- bringing it home (in the turn, the gate closed) --------------------------------------------- */

/* Homes for [lo, hi) of the region, in spite of all but what the call wants. 0 or -errno. */
static int bring(struct vmm_region *r, uint32_t lo, uint32_t hi, uint64_t want)
{
	int err = 0;

	for (uint32_t i = lo; i < hi && !err; i++) {
		while (r->ext[i].spilled && (err = vmm_spill_in(r, i)) == -ENOMEM) {
			err = vmm_spill_one(r->dev, want, 0);
			if (err)
				break;
		}
	}
	return err;
}

static void mark(struct vmm_region *r, uint32_t lo, uint32_t hi, uint64_t want)
{
	if (r->want != want) {
		r->want = want;
		r->want_lo = lo;
		r->want_hi = hi;
		return;
	}
	r->want_lo = lo < r->want_lo ? lo : r->want_lo;
	r->want_hi = hi > r->want_hi ? hi : r->want_hi;
}

static void mark_all(const struct vmm_reach *w, const struct seen *s, uint64_t want)
{
	uint32_t lo, hi;

	for (uint32_t i = 1; s->all && i < VMM_REGIONS; i++) {
		struct vmm_region *r = vmm_nth(i);

		if (r && r->n)
			mark(r, 0, r->n, want);
	}
	for (uint32_t i = 0; i < s->n; i++) {
		struct vmm_region *r = s->of[i].placed ? vmm_nth(s->of[i].placed) : NULL;

		if (r && r->n)
			mark(r, 0, r->n, want);
	}
	for (uint32_t i = 0; i < w->n; i++) {
		const struct vmm_range *g = &w->range[i];

		for (uint64_t at = g->at; at < g->at + g->len;) {
			struct vmm_region *r = vmm_of(at);

			if (!r || !extents(r, at, g->at + g->len - at, &lo, &hi))
				break;
			mark(r, lo, hi, want);
			at = r->base + r->size;
		}
	}
}

static struct vmm_region *first_marked(uint64_t want)
{
	for (uint32_t i = 1; i < VMM_REGIONS; i++) {
		struct vmm_region *r = vmm_nth(i);

		if (r && r->want == want && spilled(r))
			return r;
	}
	return NULL;
}

static int bring_marked(uint64_t want)
{
	int err = 0;

	for (uint32_t i = 1; i < VMM_REGIONS && !err; i++) {
		struct vmm_region *r = vmm_nth(i);

		if (r && r->want == want)
			err = bring(r, r->want_lo, r->want_hi, want);
	}
	return err;
}

/* (4) Homes for what came after `r`, an eighth of the budget at most. A whole turn of the
 * tape is not looked through: what is home is passed over a few times. */
static void bring_next(const struct vmm_region *r, uint64_t want)
{
	uint64_t room = vmm_stat(r->dev, SD_BUDGET) / 8;
	int dev = r->dev;

	for (uint32_t k = 0; k < 64; k++) {
		struct vmm_region *next = vmm_nth(__atomic_load_n(&r->after, __ATOMIC_RELAXED));
		uint64_t every;

		if (!next || next == r || next->dev != dev || !next->piece)
			return;
		r = next;
		every = __atomic_load_n(&next->every, __ATOMIC_RELAXED);
		if (!every || next->want == want)
			continue;
		if (next->size > room)
			return;
		mark(next, 0, next->n, want);
		for (uint32_t i = 0; i < next->n; i++) {
			while (next->ext[i].spilled && vmm_spill_in(next, i))
				if (vmm_spill_one(dev, want, next->used_at + every + 1))
					return;
		}
		room -= next->size;
	}
}

/* What comes after that is read meanwhile. */
static void read_ahead(const struct vmm_region *r)
{
	uint32_t n = 0;

	for (uint32_t k = 0; k < 64 && n < VMM_AHEAD; k++) {
		struct vmm_region *next = vmm_nth(__atomic_load_n(&r->after, __ATOMIC_RELAXED));

		if (!next || next == r || next->dev != r->dev || !next->piece)
			return;
		r = next;
		for (uint32_t i = 0; spilled(r) && i < r->n && n < VMM_AHEAD; i++)
			if (r->ext[i].spilled)
				n += vmm_spill_ahead(next, i, VMM_AHEAD - n);
	}
}

static int refuse(int dev, int err, const struct vmm_reach *w)
{
	static _Atomic bool said[3];

	if (err == -EBUSY) {
		if (!atomic_exchange(&said[0], true))
			off_log("a call needs device memory that is in the spill file while a stream captures, or a call does not return: it fails");
	} else if (err == -ENOMEM) {
		if (!atomic_exchange(&said[1], true))
			off_log("device %d: a call can touch more memory at once than the device and the host hold%s: it fails; raise OFFLOAD_VRAM or OFFLOAD_RAM",
				dev, w->all ? " (which of it is not known)" : "");
	} else if (!atomic_exchange(&said[2], true)) {
		off_log("device %d: memory that a call needs cannot be brought from the spill file, or other memory not written to it: %s: the call fails", dev,
			strerrordesc_np(-err));
	}
	return err;
}

/* In the turn. */
static int serve(const struct vmm_reach *w)
{
	struct vmm_region *r;
	struct seen s;
	uint64_t want = ++wants;
	int err, dev;

	see_all(w, &s);
	mark_all(w, &s, want);
	r = first_marked(want);
	if (!r)
		return 0;
	dev = r->dev;
	err = vmm_gate_close(dev, r->ctx);
	if (err)
		return err == -EBUSY ? err : refuse(dev, err, w);
	device_stat(dev, SD_DRAINS, 1);
	err = bring_marked(want);
	if (!err && !w->all)
		bring_next(r, want);
	vmm_gate_open();
	if (!err && !w->all)
		read_ahead(r);
	return err ? refuse(dev, err, w) : 0;
}

int vmm_enter_reach(const struct vmm_reach *w, bool *in)
{
	int err = 0, saved = errno;
	struct seen s;
	bool ok;

	*in = vmm_enter();
	if (!*in)
		return 0;
	see_all(w, &s);
	for (uint32_t i = 0; i < s.n; i++)
		if (s.of[i].placed)
			use(s.of[i].placed);
	ok = home(w, &s);
	if (ok)
		return 0;
	vmm_leave(true);
	*in = false;
	for (int i = 0; i < TRIES; i++) {
		vmm_take_turn();
		err = serve(w);
		if (!err) {		/* (3) */
			vmm_gate_in();
			*in = true;
		}
		vmm_give_turn();
		if (err != -EBUSY)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	errno = saved;
	return err == -EBUSY ? refuse(0, err, w) : err;
}

uint64_t vmm_in_extent(uint64_t addr, uint64_t len)
{
	const struct vmm_region *r;
	uint64_t left;
	bool in = vmm_enter();

	r = vmm_of(addr);
	left = r && r->n && addr - r->base < r->size ?
	       r->extent - (addr - r->base) % r->extent : len;
	vmm_leave(in);
	return left < len ? left : len;
}

void vmm_reach_missed(void)
{
	static _Atomic bool said;
	uint64_t out = 0;

	for (int dev = 0; dev < DEVICES; dev++)
		out += vmm_stat(dev, SD_SPILLED);
	if (out && !atomic_exchange(&said, true))
		off_log("a kernel touched memory it may not, while %llu bytes of device memory are in the spill file: if it reached them by an address that no argument showed, run it without OFFLOAD_DEVICE_DEEP",
			(unsigned long long)out);
}

void vmm_reach_child(void)
{
	atomic_store(&vmm_deep, false);
	atomic_store(&last_used, 0);
}
