/* SPDX-License-Identifier: MIT */
/* vmm_graph.c - slots and views of executable graphs.
 *
 *   new --stage: slots, a view for each address--> LIVE --end--> DYING --nothing queued--> gone
 *
 * (1) A graph is launched again and again with the addresses it was made with: its views
 *     stay where they are while homes move, unlike those of launches. With the gate closed
 *     an extent that moved is mapped anew in each view.
 * (2) A view whose extent cannot be mapped, or is a slot and moved (drivers may resolve
 *     a graph's copies when it is made), whose region ends, is filled anew or is in
 *     doubt, is stale: its graph's kernels are given the region's own addresses before the
 *     next launch. A kernel was shown to only read what was there then.
 * (3) Slots are of what is kept free of the budget, a part of it for all graphs, and are
 *     one graph's: two may run side by side. A graph takes half of what others left.
 * (4) Nobody may write through a view (vmm_views.c).
 * Locks: the turn; what launches look at is under vmm_stage_lock.
 */
#include "core/vmm_graph.h"
#include "core/vmm_show.h"

#define GRAPH_VIEWS	1024u
#define GRAPH_SLOTS	(VMM_GRAPH_BANKS * VMM_GRAPH_COPIES)

struct graph_view {
	struct vmm_region *region;	/* NULL: it ended */
	uint64_t at, start, size, extent;
	uint32_t bank, epoch, n_slots;
	uint32_t slot[VMM_GRAPH_COPIES];	/* extents that are slots, in order */
	bool broken;			/* (2) */
};

struct vmm_graph {
	struct vmm_graph *next;
	int dev;
	uintptr_t ctx;
	bool tried, dying;
	uint32_t per;			/* slots of a bank; 0: none */
	uint64_t at, extent;		/* of the slots */
	uint64_t handle[GRAPH_SLOTS];
	uint64_t spare, spare_len;	/* behind the slots: see vmm_graph_node.idle */
	uint32_t n_views;
	struct graph_view *view;
};

static struct vmm_graph *graphs;
static uint32_t slots_used[DEVICES];

bool vmm_stages_ahead(void)
{
	return off_opt.stage == OPT_STAGE_AHEAD;
}

void *vmm_zalloc(size_t bytes)
{
	return mem_zalloc(bytes);
}

void vmm_zfree(void *at)
{
	mem_free(at);
}

/* ---- slots ------------------------------------------------------------------------- */

/* (3) */
static uint32_t slots_left(int dev)
{
	uint32_t all = (uint32_t)(vmm_dev[dev].keep * KEPT_GRAPHS / KEPT_ALL / vmm_dev[dev].extent);

	all = all < VMM_GRAPH_BANKS ? VMM_GRAPH_BANKS : all;
	return all > slots_used[dev] ? all - slots_used[dev] : 0;
}

static uint64_t spare_at(const struct vmm_graph *g)
{
	return g->at + VMM_GRAPH_BANKS * g->per * g->extent;
}

static void slots_end(struct vmm_graph *g, uint32_t n)
{
	if (g->spare_len && !vmm_ops->unmap(spare_at(g), g->spare_len))
		vmm_handle_put(g->dev, false, g->spare_len, g->spare);
	while (n-- > 0)
		if (!vmm_ops->unmap(g->at + n * g->extent, g->extent))
			vmm_handle_put(g->dev, false, g->extent, g->handle[n]);
	vmm_ops->unreserve(g->at, VMM_GRAPH_BANKS * g->per * g->extent + vmm_dev[g->dev].gran);
	slots_used[g->dev] -= VMM_GRAPH_BANKS * g->per;
	g->per = 0;
	g->spare_len = 0;
}

/* The granule behind the slots. */
static bool spare_make(struct vmm_graph *g)
{
	uint64_t len = vmm_dev[g->dev].gran;

	if (vmm_handle_get(g->dev, false, len, &g->spare))
		return false;
	if (vmm_ops->map(spare_at(g), len, g->spare)) {
		vmm_handle_put(g->dev, false, len, g->spare);
		return false;
	}
	g->spare_len = len;
	return true;
}

static void slots_make(struct vmm_graph *g)
{
	uint64_t gran = vmm_dev[g->dev].gran;
	uint64_t room = less(vmm_room(g->dev, g->ctx, 0), gran) / vmm_dev[g->dev].extent;
	uint32_t n = slots_left(g->dev) / 2, i = 0;

	g->tried = true;
	g->extent = vmm_dev[g->dev].extent;
	n = n > GRAPH_SLOTS ? GRAPH_SLOTS : n < VMM_GRAPH_BANKS ? slots_left(g->dev) : n;
	n = n > room ? (uint32_t)room : n;
	g->per = n / VMM_GRAPH_BANKS;
	n = g->per * VMM_GRAPH_BANKS;
	g->at = 0;
	if (!n || vmm_ops->reserve(&g->at, n * g->extent + gran)) {
		g->per = 0;
		return;
	}
	slots_used[g->dev] += n;
	for (; i < n; i++) {
		if (vmm_handle_get(g->dev, false, g->extent, &g->handle[i]))
			break;
		if (vmm_ops->map(g->at + i * g->extent, g->extent, g->handle[i])) {
			vmm_handle_put(g->dev, false, g->extent, g->handle[i]);
			break;
		}
	}
	if (i < n || !spare_make(g) || vmm_ops->access(g->at, n * g->extent + gran, 1u << g->dev))
		slots_end(g, i);
}

/* ---- views (in the turn) --------------------------------------------------------------- */

/* The extent's slot in the view, or -1. */
static int slot_of(const struct graph_view *v, uint32_t i)
{
	for (uint32_t k = 0; k < v->n_slots; k++)
		if (v->slot[k] == i)
			return (int)k;
	return -1;
}

static bool put_up(const struct vmm_graph *g, struct graph_view *v)
{
	const struct vmm_region *r = v->region;
	uint32_t i = 0;
	int err = vmm_ops->reserve(&v->at, r->size);

	if (err)
		return false;
	for (; i < r->n && !err; i++) {
		int s = slot_of(v, i);

		err = vmm_ops->map(v->at + i * r->extent, vmm_bytes(r, i),
				   s < 0 ? r->ext[i].handle : g->handle[v->bank * g->per + (uint32_t)s]);
	}
	if (!err)
		err = vmm_ops->read_only(v->at, r->size, vmm_dev[r->dev].peers);
	else
		i--;
	if (err)
		vmm_take_down(r, v->at, i);
	return !err;
}

/* The extents to be slots: those at the host of the window that was hashed. */
static void choose(const struct vmm_graph *g, struct graph_view *v)
{
	const struct vmm_region *r = v->region;
	uint32_t first, n = vmm_window(r, v->start, &first);

	for (uint32_t i = first; i < first + n && v->n_slots < g->per; i++)
		if (vmm_slotted(r, i))
			v->slot[v->n_slots++] = i;
}

static struct graph_view *view_of(struct vmm_graph *g, struct vmm_region *r, uint64_t start,
				  uint32_t bank)
{
	struct graph_view *v;

	for (uint32_t i = 0; i < g->n_views; i++) {
		v = &g->view[i];
		if (v->region == r && v->start == start && v->bank == bank && !v->broken &&
		    v->epoch == r->shown->epoch)
			return v;
	}
	if (g->n_views == GRAPH_VIEWS)
		return NULL;
	v = &g->view[g->n_views];
	*v = (struct graph_view){ .region = r, .start = start, .bank = bank, .size = r->size,
				  .extent = r->extent, .epoch = r->shown->epoch };
	choose(g, v);
	if (!v->n_slots || !put_up(g, v))
		return NULL;
	vmm_stage_lock();
	g->n_views++;
	vmm_stage_unlock();
	return v;
}

static void view_end(struct graph_view *v)
{
	if (v->region)
		vmm_take_down(v->region, v->at, v->region->n);
	v->region = NULL;
}

/* ---- which region of a kernel ------------------------------------------------------------ */

/* (lock held) Every word of it was shown to be only read through. */
static bool shown(const struct vmm_launch *l, struct vmm_region *r, uint64_t *start)
{
	const struct vmm_shown *s = r->shown;

	*start = UINT64_MAX;
	if (!s || s->doubt || s->refused || !r->apart || r->ctx != l->ctx || !vmm_only_filled(r))
		return false;
	for (uint32_t i = 0; i < l->n; i++) {
		const struct vmm_key *k;

		if (l->arg[i].value == r->base + r->len)
			return false;
		if (l->arg[i].value - r->base >= r->len)
			continue;
		k = vmm_key(r, l->fn, l->arg[i].word, l->arg[i].value);
		if (!k || k->state != VMM_SHOWN)
			return false;
		*start = l->arg[i].value < *start ? l->arg[i].value : *start;
	}
	return *start != UINT64_MAX;
}

static uint64_t host_bytes(const struct vmm_region *r, uint64_t start)
{
	uint32_t first, n = vmm_window(r, start, &first);
	uint64_t bytes = 0;

	for (uint32_t i = first; i < first + n; i++)
		bytes += vmm_slotted(r, i) ? vmm_bytes(r, i) : 0;
	return bytes;
}

/* The one that has most at the host. */
static struct vmm_region *pick(const struct vmm_launch *l, uint64_t *start)
{
	struct vmm_region *best = NULL;
	uint64_t most = 0, at;

	vmm_stage_lock();
	for (uint32_t i = 0; i < l->n; i++) {
		struct vmm_region *r = vmm_of(l->arg[i].value);

		if (!r || r == best || !r->n || r->managed || !shown(l, r, &at) ||
		    host_bytes(r, at) <= most)
			continue;
		most = host_bytes(r, at);
		best = r;
		*start = at;
	}
	vmm_stage_unlock();
	return best;
}

/* ---- for graphs -------------------------------------------------------------------------- */

struct vmm_graph *vmm_graph_new(int dev, uintptr_t ctx)
{
	struct vmm_graph *g;

	if (!atomic_load_explicit(&vmm_stages, memory_order_relaxed) || vmm_captures() ||
	    (unsigned int)dev >= DEVICES || vmm_dev[dev].mode != VMM_MIXED)
		return NULL;
	g = mem_zalloc(sizeof(*g));
	if (g)
		g->view = mem_zalloc(GRAPH_VIEWS * sizeof(*g->view));
	if (!g || !g->view) {
		mem_free(g);
		return NULL;
	}
	g->dev = dev;
	g->ctx = ctx;
	vmm_take_turn();
	g->next = graphs;
	graphs = g;
	vmm_give_turn();
	return g;
}

static bool stage(struct vmm_graph *g, uint32_t bank, struct vmm_launch *l,
		  struct vmm_graph_node *out)
{
	uint64_t start = 0;
	struct vmm_region *r = pick(l, &start);
	struct graph_view *v;

	if (!r || r->dev != g->dev)
		return false;
	if (!g->tried)
		slots_make(g);
	v = g->per ? view_of(g, r, start, bank) : NULL;
	if (!v)
		return false;
	out->view = (uint32_t)(v - g->view);
	out->base = r->base;
	out->len = r->len;
	out->idle = spare_at(g);
	out->n = v->n_slots;
	for (uint32_t k = 0; k < v->n_slots; k++)
		out->copy[k] = (struct vmm_copy){ g->at + (bank * g->per + k) * g->extent,
						  vmm_at(r, v->slot[k]), vmm_bytes(r, v->slot[k]) };
	for (uint32_t i = 0; i < l->n; i++)
		if (l->arg[i].value - r->base < r->len)
			l->arg[i].other = l->arg[i].value - r->base + v->at;
	l->changed = true;
	return true;
}

bool vmm_graph_stage(struct vmm_graph *g, uint32_t bank, struct vmm_launch *l,
		     struct vmm_graph_node *out)
{
	int saved = errno;
	bool ok = false;

	l->changed = false;
	for (uint32_t i = 0; i < l->n && i < VMM_WORDS; i++)
		l->arg[i].other = l->arg[i].value;
	if (l->n > VMM_WORDS)
		return false;
	vmm_take_turn();
	ok = !vmm_captures() && stage(g, bank, l, out);
	vmm_give_turn();
	errno = saved;
	return ok;
}

bool vmm_graph_stale(const struct vmm_graph *g, uint32_t view)
{
	const struct graph_view *v = &g->view[view];
	bool is;

	vmm_stage_lock();
	is = !v->region || v->broken || v->region->shown->doubt ||
	     v->epoch != v->region->shown->epoch;
	vmm_stage_unlock();
	return is;
}

void vmm_graph_count(const struct vmm_graph *g, uint64_t bytes, uint32_t copies)
{
	device_stat(g->dev, SD_STAGED, (int64_t)bytes);
	device_stat(g->dev, SD_GRAPH_COPIES, copies);
}

void vmm_graph_end(struct vmm_graph *g)
{
	if (g)
		__atomic_store_n(&g->dying, true, __ATOMIC_RELEASE);
}

/* ---- homes that move, regions and contexts that end (in the turn, the gate closed) -------- */

/* (1) */
static bool remap(struct graph_view *v, const struct vmm_region *r, uint32_t i, uint64_t handle)
{
	uint64_t at = v->at + i * r->extent, len = vmm_bytes(r, i);
	int err;

	if (slot_of(v, i) >= 0) {	/* its copy may know more of the old place than its address */
		v->broken = true;
		return true;
	}
	if (vmm_ops->unmap(at, len)) {	/* the old bytes, still: right until it is filled */
		v->broken = true;
		return false;
	}
	err = vmm_ops->map(at, len, handle);
	if (!err && vmm_ops->read_only(at, len, vmm_dev[r->dev].peers)) {
		vmm_ops->unmap(at, len);
		err = -EIO;
	}
	v->broken |= err != 0;
	return true;
}

bool vmm_graphs_moved(const struct vmm_region *r, uint32_t i, uint64_t handle)
{
	bool gone = true;

	for (struct vmm_graph *g = graphs; g; g = g->next)
		for (uint32_t k = 0; k < g->n_views; k++)
			if (g->view[k].region == r)
				gone &= remap(&g->view[k], r, i, handle);
	return gone;
}

void vmm_graphs_epoch(const struct vmm_region *r, uint32_t was)
{
	for (struct vmm_graph *g = graphs; g; g = g->next)
		for (uint32_t k = 0; k < g->n_views; k++)
			if (g->view[k].region == r && g->view[k].epoch == was)
				g->view[k].epoch = r->shown->epoch;
}

void vmm_graphs_region_end(const struct vmm_region *r)
{
	for (struct vmm_graph *g = graphs; g; g = g->next)
		for (uint32_t k = 0; k < g->n_views; k++)
			if (g->view[k].region == r)
				view_end(&g->view[k]);
}

static void free_graph(struct vmm_graph *g)
{
	for (uint32_t k = 0; k < g->n_views; k++)
		view_end(&g->view[k]);
	if (g->per)
		slots_end(g, VMM_GRAPH_BANKS * g->per);
	mem_free(g->view);
	mem_free(g);
}

bool vmm_graphs_dying(void)
{
	for (const struct vmm_graph *g = graphs; g; g = g->next)
		if (__atomic_load_n(&g->dying, __ATOMIC_ACQUIRE))
			return true;
	return false;
}

void vmm_graphs_reap(void)
{
	for (struct vmm_graph **at = &graphs, *g; (g = *at);) {
		if (!__atomic_load_n(&g->dying, __ATOMIC_ACQUIRE)) {
			at = &g->next;
			continue;
		}
		*at = g->next;
		free_graph(g);
	}
}

/* Its regions ended already. Those that are not dying are the program's to end. */
void vmm_graphs_owner_end(uintptr_t ctx)
{
	for (struct vmm_graph *g = graphs; g; g = g->next)
		if (g->ctx == ctx && g->per)
			slots_end(g, VMM_GRAPH_BANKS * g->per);
}

/* What there is is the parent's. */
void vmm_graphs_child(void)
{
	graphs = NULL;
	memset(slots_used, 0, sizeof(slots_used));
}
