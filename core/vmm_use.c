/* SPDX-License-Identifier: MIT */
/* vmm_use.c - how often which bytes of placed regions are used, for policy/homes.c.
 *
 *   launch --an address of its arguments--> a count --look--> uses of each extent
 *
 * (1) A launch adds one to the counts of its addresses: no lock, no call. Graphs are
 *     launched without their arguments: those are kept with the graph, as a group, and get
 *     its count when it ends.
 * (2) An address is a use of all bytes up to the next one that kernels were given, in what
 *     the host filled (tensors); of the whole region in all else: a cache is given at
 *     another place in each pass.
 * (3) It is a guess, as all of this is: it steers what is fast (R3). Counts may be lost
 *     where threads meet, or where there are too many addresses.
 * Locks: `lock`, leaf, for the list of groups; rates and looking are in the turn.
 */
#include "core/vmm_int.h"
#include "core/vmm_use.h"

#include <pthread.h>

#define NAMES	16384u	/* power of two */
#define PROBES	16u

struct name { _Atomic uint64_t addr; _Atomic uint32_t n; };

struct vmm_group {
	struct vmm_group *next, **back;
	_Atomic uint32_t launches;
	uint32_t n;
	uint64_t addr[];
};

/* What the policy knows of a region's extents. */
struct rates {
	uint64_t serial;
	uint32_t n;
	struct pol_home h[];
};

struct use { uint64_t addr, n; };

_Atomic bool vmm_counts;

static struct name names[NAMES];
static _Atomic uint32_t n_names, n_used;	/* there are; used since the last look */
static _Atomic uint64_t uses;			/* since then */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct vmm_group *groups;
static uint32_t n_grouped;			/* addresses of all groups */
static struct rates *rates[VMM_REGIONS];

/* ---- counting ---------------------------------------------------------------------- */

static struct name *name_of(uint64_t addr)
{
	uint32_t i = (uint32_t)(addr * 0x9e3779b97f4a7c15ull >> 40);

	for (uint32_t k = 0; k < PROBES; k++) {
		struct name *m = &names[(i + k) & (NAMES - 1)];
		uint64_t is = atomic_load_explicit(&m->addr, memory_order_relaxed);

		if (is == addr)
			return m;
		if (!is && atomic_compare_exchange_strong(&m->addr, &is, addr)) {
			atomic_fetch_add_explicit(&n_names, 1, memory_order_relaxed);
			return m;
		}
		if (is == addr)		/* another thread was first */
			return m;
	}
	return NULL;
}

/* Not in `uses`. False: there are too many addresses. */
static bool named(uint64_t addr, uint32_t n)
{
	struct name *m = name_of(addr);

	if (m && !atomic_fetch_add_explicit(&m->n, n, memory_order_relaxed))
		atomic_fetch_add_explicit(&n_used, 1, memory_order_relaxed);
	return m;
}

void vmm_used(uint64_t addr)
{
	if (named(addr, 1))
		atomic_fetch_add_explicit(&uses, 1, memory_order_relaxed);
}

struct vmm_group *vmm_group_new(const uint64_t *addr, uint32_t n)
{
	struct vmm_group *g = n ? mem_zalloc(sizeof(*g) + n * sizeof(*addr)) : NULL;

	if (!g)
		return NULL;
	g->n = n;
	memcpy(g->addr, addr, n * sizeof(*addr));
	pthread_mutex_lock(&lock);
	g->next = groups;
	g->back = &groups;
	if (groups)
		groups->back = &g->next;
	groups = g;
	n_grouped += n;
	pthread_mutex_unlock(&lock);
	return g;
}

void vmm_group_used(struct vmm_group *g)
{
	if (!g)
		return;
	if (!atomic_fetch_add_explicit(&g->launches, 1, memory_order_relaxed))
		atomic_fetch_add_explicit(&n_used, g->n, memory_order_relaxed);
	atomic_fetch_add_explicit(&uses, g->n, memory_order_relaxed);
}

/* Programs make a graph anew for each pass, or update it: what was launched is kept, by its
 * addresses. */
static void keep_counts(struct vmm_group *g)
{
	uint32_t times = atomic_exchange(&g->launches, 0), is = atomic_load(&n_used);

	if (!times)
		return;
	while (!atomic_compare_exchange_weak(&n_used, &is, is > g->n ? is - g->n : 0))
		;
	for (uint32_t i = 0; i < g->n; i++)
		named(g->addr[i], times);
}

void vmm_group_end(struct vmm_group *g)
{
	if (!g)
		return;
	pthread_mutex_lock(&lock);
	keep_counts(g);
	*g->back = g->next;
	if (g->next)
		g->next->back = g->back;
	n_grouped -= g->n;
	pthread_mutex_unlock(&lock);
	mem_free(g);
}

bool vmm_uses_tell(void)
{
	uint64_t n = atomic_load_explicit(&uses, memory_order_relaxed);

	return n && n >= (uint64_t)POL_HOME_LOOK * atomic_load_explicit(&n_used, memory_order_relaxed);
}

/* ---- looking (in the turn) ---------------------------------------------------------- */

static void sift(struct use *u, uint32_t i, uint32_t n)
{
	struct use top = u[i];
	uint32_t c;

	while ((c = 2 * i + 1) < n) {
		c += c + 1 < n && u[c + 1].addr > u[c].addr;
		if (u[c].addr <= top.addr)
			break;
		u[i] = u[c];
		i = c;
	}
	u[i] = top;
}

/* libc's may allocate (R8). */
static void sort(struct use *u, uint32_t n)
{
	for (uint32_t i = n / 2; i-- > 0;)
		sift(u, i, n);
	for (uint32_t i = n; i-- > 1;) {
		struct use t = u[0];

		u[0] = u[i];
		u[i] = t;
		sift(u, 0, i);
	}
}

static uint32_t unite(struct use *u, uint32_t n)
{
	uint32_t k = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (k && u[k - 1].addr == u[i].addr)
			u[k - 1].n += u[i].n;
		else
			u[k++] = u[i];
	}
	return k;
}

/* All addresses there are, in order, each once. take: counting begins anew. NULL: no memory. */
static struct use *collect(bool take, uint32_t *n)
{
	struct use *u;
	uint32_t k = 0;

	pthread_mutex_lock(&lock);
	u = mem_alloc((NAMES + n_grouped) * sizeof(*u));
	for (struct vmm_group *g = groups; u && g; g = g->next) {
		uint32_t times = take ? atomic_exchange(&g->launches, 0) : atomic_load(&g->launches);

		for (uint32_t i = 0; i < g->n; i++)
			u[k++] = (struct use){ g->addr[i], times };
	}
	pthread_mutex_unlock(&lock);
	if (!u)
		return NULL;
	for (uint32_t i = 0; i < NAMES; i++) {
		uint64_t addr = atomic_load_explicit(&names[i].addr, memory_order_relaxed);

		if (addr)
			u[k++] = (struct use){ addr, take ? atomic_exchange(&names[i].n, 0) :
					       atomic_load(&names[i].n) };
		if (addr && take && atomic_load(&n_names) > NAMES / 4 * 3)
			atomic_store(&names[i].addr, 0);	/* anew: most are of the past */
	}
	if (take && atomic_load(&n_names) > NAMES / 4 * 3)
		atomic_store(&n_names, 0);
	if (take) {
		atomic_store(&n_used, 0);
		atomic_store(&uses, 0);
	}
	sort(u, k);
	*n = unite(u, k);
	return u;
}

static struct rates *rates_of(const struct vmm_region *r, bool make)
{
	struct rates *k = rates[r->number];

	if (k && k->serial == r->serial)
		return k;
	if (!make)
		return NULL;
	mem_free(k);
	k = rates[r->number] = mem_zalloc(sizeof(*k) + r->n * sizeof(k->h[0]));
	if (k) {
		k->serial = r->serial;
		k->n = r->n;
	}
	return k;
}

double vmm_cost(const struct vmm_region *r, uint32_t i)
{
	const struct rates *k = rates_of(r, false);

	return k ? pol_home_cost(&k->h[i]) : 0;
}

/* [from, to) of the region was used so often. */
static void add(const struct vmm_region *r, struct pol_home *h, uint64_t from, uint64_t to,
		uint64_t n)
{
	for (uint32_t i = (uint32_t)((from - r->base) / r->extent); i < r->n && vmm_at(r, i) < to; i++) {
		uint64_t lo = vmm_at(r, i), hi = lo + vmm_bytes(r, i);

		lo = lo < from ? from : lo;
		hi = hi > to ? to : hi;
		h[i].uses += (double)n * (double)(hi - lo) / (double)vmm_bytes(r, i);
	}
}

/* (2) */
static void spread(const struct vmm_region *r, struct pol_home *h, const struct use *u, uint32_t n,
		   bool tensors)
{
	uint64_t most = 0, end = r->base + r->size;

	for (uint32_t k = 0; k < n; k++) {
		if (tensors)
			add(r, h, u[k].addr, k + 1 < n ? u[k + 1].addr : end, u[k].n);
		most = u[k].n > most ? u[k].n : most;
	}
	for (uint32_t i = 0; !tensors && i < r->n; i++)
		h[i].uses = (double)most;
}

static void look_at(const struct vmm_region *r, struct pol_home *h, const struct use *u, uint32_t n)
{
	struct device_region d;
	unsigned int marks = device_find(r->base, &d) ? d.marks : 0;
	bool filled = marks & DEVICE_FILLED;

	for (uint32_t i = 0; i < r->n; i++) {
		h[i].bytes = vmm_bytes(r, i);
		h[i].uses = 0;
		h[i].device = !r->ext[i].host;
		h[i].written = marks & DEVICE_USED && !filled;
		h[i].stays = r->fixed || r->ext[i].spilled;
	}
	spread(r, h, u, n, filled);
	for (uint32_t i = 0; i < r->n; i++)	/* used before uses were counted */
		if (h[i].written && !h[i].looks && !(h[i].uses > 0))
			h[i].uses = 1;
}

static uint32_t extents(int dev)
{
	uint32_t n = 0;

	for (uint32_t k = 1; k < VMM_REGIONS; k++) {
		const struct vmm_region *r = vmm_nth(k);

		n += r && r->dev == dev ? r->n : 0;
	}
	return n;
}

/* The uses among u that are in the region: the first, and how many. */
static uint32_t uses_in(const struct vmm_region *r, const struct use *u, uint32_t n,
			uint32_t *first)
{
	uint32_t lo = 0, hi = n, k = 0;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (u[mid].addr < r->base)
			lo = mid + 1;
		else
			hi = mid;
	}
	while (lo + k < n && u[lo + k].addr - r->base < r->size)
		k++;
	*first = lo;
	return k;
}

struct pol_home *vmm_look(int dev, struct vmm_place **at, uint32_t *n)
{
	uint32_t m = extents(dev), k = 0, n_uses;
	bool tell = vmm_uses_tell();
	struct use *u = collect(tell, &n_uses);
	struct pol_home *h = u ? mem_alloc((m + 1) * (sizeof(*h) + sizeof(**at))) : NULL;

	if (!h) {
		mem_free(u);
		return NULL;
	}
	*at = (struct vmm_place *)(h + m + 1);
	for (uint32_t i = 1; i < VMM_REGIONS; i++) {
		struct vmm_region *r = vmm_nth(i);
		struct rates *known = r && r->dev == dev && r->n ? rates_of(r, true) : NULL;
		uint32_t first, in;

		if (!known)
			continue;
		in = uses_in(r, u, n_uses, &first);
		look_at(r, known->h, u + first, in);
		memcpy(h + k, known->h, r->n * sizeof(*h));
		for (uint32_t e = 0; e < r->n; e++)
			(*at)[k++] = (struct vmm_place){ r, e };
	}
	mem_free(u);
	if (tell)
		pol_homes_look(h, k);
	for (uint32_t i = 0; tell && i < k; i++)
		rates[(*at)[i].region->number]->h[(*at)[i].extent] = h[i];
	*n = k;
	return h;
}

/* ---- forks ---------------------------------------------------------------------------- */

/* No region is left, and no graph. */
void vmm_use_child(void)
{
	atomic_store(&vmm_counts, false);
	groups = NULL;
	n_grouped = 0;
	pthread_mutex_init(&lock, NULL);
}
