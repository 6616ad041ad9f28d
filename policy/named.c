/* SPDX-License-Identifier: MIT */
/* named.c - textbook policies by name, to compare the live one with.
 *
 * All fetch on demand and evict when full. Each but CLOCK is a priority:
 * the cached chunk of least (prio, last use) goes, kept in a binary heap.
 *
 *     lru     last use                       mru     last use, negated
 *     lfu     uses since it came in          belady  next use, negated
 *     wa-lru  H = L + uses x cost / size, L = H of the last victim
 *             (GreedyDual-Size-Frequency; cost and size are equal here)
 *     heat    an average of uses, fading by 0.9 every `frames` uses
 *
 * Lock: none.
 */
#include "policy/policy_int.h"

const char *const pol_names[] = {
	"live", "lru", "clock", "lfu", "wa-lru", "heat", "mru", "belady", NULL,
};

enum { LIVE, LRU, CLOCK, LFU, WA_LRU, HEAT, MRU, BELADY };

#define HEAT_STEP ((uint64_t)1 << 16)	/* heat of one use at first */
#define HEAT_FULL ((uint64_t)1 << 40)

struct cache {
	const struct pol_use *tape;
	size_t n;
	uint32_t chunks, frames, used;
	int kind;
	uint64_t *prio;		/* by chunk */
	uint64_t *last;		/* by chunk: time of last use */
	uint32_t *next_use;	/* by tape position; belady */
	uint32_t *heap;		/* cached chunks, or the clock's ring */
	uint32_t *slot;		/* by chunk: place in heap; POL_NIL: out */
	uint64_t floor;		/* wa-lru: L */
	uint64_t step;		/* heat of one use now */
	uint32_t hand;
	struct pol_result *out;
};

static bool before(const struct cache *c, uint32_t a, uint32_t b)
{
	if (c->prio[a] != c->prio[b])
		return c->prio[a] < c->prio[b];
	return c->last[a] < c->last[b];
}

static void put(struct cache *c, uint32_t i, uint32_t id)
{
	c->heap[i] = id;
	c->slot[id] = i;
}

static void sift_up(struct cache *c, uint32_t i)
{
	uint32_t id = c->heap[i], up;

	for (; i; i = up) {
		up = (i - 1) / 2;
		if (!before(c, id, c->heap[up]))
			break;
		put(c, i, c->heap[up]);
	}
	put(c, i, id);
}

static void sift_down(struct cache *c, uint32_t i)
{
	uint32_t id = c->heap[i], k;

	for (; (k = 2 * i + 1) < c->used; i = k) {
		if (k + 1 < c->used && before(c, c->heap[k + 1], c->heap[k]))
			k++;
		if (!before(c, c->heap[k], id))
			break;
		put(c, i, c->heap[k]);
	}
	put(c, i, id);
}

static void heap_evict(struct cache *c)
{
	uint32_t id = c->heap[0];

	c->floor = c->prio[id];
	c->slot[id] = POL_NIL;
	if (--c->used) {
		put(c, 0, c->heap[c->used]);
		sift_down(c, 0);
	}
}

/* Heat fades for all alike: so let what is added grow instead. */
static void fade(struct cache *c)
{
	c->step += c->step / 9;
	if (c->step < HEAT_FULL)
		return;
	c->step >>= 24;
	for (uint32_t i = 0; i < c->chunks; i++)
		c->prio[i] >>= 24;
}

static uint64_t prio_of(struct cache *c, size_t i, bool hit)
{
	uint32_t id = c->tape[i].chunk;

	switch (c->kind) {
	case LFU:
		return hit ? c->prio[id] + 1 : 1;
	case WA_LRU:
		return hit ? c->prio[id] + 1 : c->floor + 1;
	case HEAT:
		return c->prio[id] + c->step;
	case MRU:
		return UINT64_MAX - i;
	case BELADY:
		return UINT64_MAX - c->next_use[i];
	}
	return i;
}

static void heap_use(struct cache *c, size_t i)
{
	uint32_t id = c->tape[i].chunk;
	bool hit = c->slot[id] != POL_NIL;

	if (c->kind == HEAT && i % c->frames == c->frames - 1)
		fade(c);
	c->out->hits += hit;
	if (!hit && c->used == c->frames) {
		heap_evict(c);
		c->out->evicted++;
	}
	c->prio[id] = prio_of(c, i, hit);
	c->last[id] = i;
	if (!hit) {
		put(c, c->used++, id);
		sift_up(c, c->slot[id]);
		return;
	}
	sift_up(c, c->slot[id]);
	sift_down(c, c->slot[id]);
}

/* prio is the reference bit. */
static void clock_use(struct cache *c, size_t i)
{
	uint32_t id = c->tape[i].chunk, at;

	if (c->slot[id] != POL_NIL) {
		c->out->hits++;
		c->prio[id] = 1;
		return;
	}
	at = c->used;
	if (c->used == c->frames) {
		for (; c->prio[c->heap[c->hand]]; c->hand++, c->hand %= c->used)
			c->prio[c->heap[c->hand]] = 0;
		at = c->hand;
		c->hand = (c->hand + 1) % c->frames;
		c->slot[c->heap[at]] = POL_NIL;
		c->out->evicted++;
	} else {
		c->used++;
	}
	put(c, at, id);
	c->prio[id] = 0;
}

static void look_ahead(struct cache *c)
{
	memset(c->slot, 0xff, (size_t)c->chunks * sizeof(*c->slot));
	for (size_t i = c->n; i-- > 0;) {
		c->next_use[i] = c->slot[c->tape[i].chunk];
		c->slot[c->tape[i].chunk] = (uint32_t)i;
	}
}

static void run(struct cache *c)
{
	if (c->kind == BELADY)
		look_ahead(c);
	memset(c->slot, 0xff, (size_t)c->chunks * sizeof(*c->slot));
	memset(c->prio, 0, (size_t)c->chunks * sizeof(*c->prio));
	memset(c->last, 0, (size_t)c->chunks * sizeof(*c->last));
	memset(c->out, 0, sizeof(*c->out));
	for (size_t i = 0; i < c->n; i++)
		if (c->kind == CLOCK)
			clock_use(c, i);
		else
			heap_use(c, i);
	c->out->uses = c->n;
	c->out->fetched = c->n - c->out->hits;
}

static size_t cache_size(size_t uses, uint32_t chunks)
{
	return (size_t)chunks * (2 * sizeof(uint64_t) + 2 * sizeof(uint32_t)) +
	       uses * sizeof(uint32_t) + 64;
}

size_t pol_simulate_size(size_t uses, uint32_t chunks)
{
	size_t a = cache_size(uses, chunks), b = pol_sim_size(chunks);

	return 64 + (a > b ? a : b);
}

static int kind_of(const char *name)
{
	for (int i = 0; pol_names[i]; i++)
		if (!strcmp(pol_names[i], name))
			return i;
	return -ENOENT;
}

static int check_tape(const struct pol_use *tape, size_t n, uint32_t chunks)
{
	if (n >= UINT32_MAX)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if (tape[i].chunk >= chunks)
			return -EINVAL;
	return 0;
}

static void carve(struct cache *c, void *scratch)
{
	c->prio = scratch;
	c->last = c->prio + c->chunks;
	c->heap = (uint32_t *)(c->last + c->chunks);
	c->slot = c->heap + c->chunks;
	c->next_use = c->slot + c->chunks;
}

int pol_simulate(const char *name, const struct pol_use *tape, size_t n,
		 uint32_t chunks, uint32_t frames, uint32_t window,
		 const struct pol_span *spans, size_t n_spans,
		 uint32_t chunk_bytes, void *scratch, struct pol_result *out)
{
	struct pol_sim s = {
		.tape = tape, .n = n, .chunks = chunks, .frames = frames,
		.window = window, .spans = spans, .n_spans = n_spans,
		.chunk_bytes = chunk_bytes,
	};
	struct cache c = {
		.tape = tape, .n = n, .chunks = chunks, .frames = frames,
		.kind = kind_of(name), .step = HEAT_STEP, .out = out,
	};

	if (c.kind < 0)
		return c.kind;
	if (!frames || !chunks || check_tape(tape, n, chunks))
		return -EINVAL;
	/* pol_init wants its memory aligned */
	scratch = (uint8_t *)scratch + (-(uintptr_t)scratch & 63);
	if (c.kind == LIVE) {
		pol_sim_live(&s, scratch, out);
		return 0;
	}
	if (c.frames > chunks)
		c.frames = chunks;
	carve(&c, scratch);
	run(&c);
	return 0;
}
