/* SPDX-License-Identifier: MIT */
/* vmm_views.c - a region at other addresses, a few of its extents in memory of the device.
 *
 *   region   | home | home | home | home | home | home |
 *   view     | home | slot | home | slot | home | home |     slots of one bank
 *
 * (1) A view is the whole region: whatever is read beyond what was guessed is read where
 *     it is (R3). Views are not remapped: what their slots hold changes, in the order of
 *     streams, and a launch is given a view's addresses only while they hold what they
 *     stand for.
 * (2) Nobody may write through a view: it would be lost. Devices have it read only, so
 *     that one who does is stopped.
 * (3) Before homes of a region move, or it ends, its views end (the gate is closed).
 * Lock: the turn; what launches see of it is under vmm_stage_lock.
 */
#include "core/vmm_stage.h"

struct vmm_stager vmm_stager[DEVICES];

/* ---- banks ---------------------------------------------------------------------- */

static bool events(struct vmm_stager *s, uintptr_t ctx)
{
	if (vmm_ops->stream(ctx, &s->stream) || vmm_ops->event(ctx, &s->before))
		return false;
	for (uint32_t b = 0; b < s->n_banks; b++) {
		if (vmm_ops->event(ctx, &s->bank[b].ready))
			return false;
		for (uint32_t i = 0; i < USES; i++)
			if (vmm_ops->event(ctx, &s->bank[b].use[i].event))
				return false;
	}
	return true;
}

static bool slots(struct vmm_stager *s, int dev)
{
	struct vmm_device *d = &vmm_dev[dev];
	uint32_t all = s->n_banks * s->per, i;
	uint64_t at = 0;

	if (vmm_ops->reserve(&at, all * d->extent))
		return false;
	for (i = 0; i < all; i++) {
		if (vmm_handle_get(dev, false, d->extent, &s->handle[i]))
			break;
		if (vmm_ops->map(at + i * d->extent, d->extent, s->handle[i])) {
			vmm_handle_put(dev, false, d->extent, s->handle[i]);
			break;
		}
	}
	if (i == all && !vmm_ops->access(at, all * d->extent, 1u << dev)) {
		for (uint32_t b = 0; b < s->n_banks; b++)
			s->bank[b].at = at + b * s->per * d->extent;
		return true;
	}
	while (i-- > 0)
		if (!vmm_ops->unmap(at + i * d->extent, d->extent))
			vmm_handle_put(dev, false, d->extent, s->handle[i]);
	vmm_ops->unreserve(at, all * d->extent);
	return false;
}

/* Some drivers map a handle as a whole or not at all. */
static bool takes_part(const struct vmm_stager *s, int dev)
{
	uint64_t len = vmm_dev[dev].gran, at = 0;
	bool ok;

	if (vmm_dev[dev].extent == len)
		return true;
	if (vmm_ops->reserve(&at, len))
		return false;
	ok = !vmm_ops->map(at, len, s->handle[0]) && !vmm_ops->access(at, len, 1u << dev) &&
	     !vmm_ops->unmap(at, len);
	vmm_ops->unreserve(at, len);
	return ok;
}

/* A part of what is kept free of the budget. */
bool vmm_stager_open(int dev, uintptr_t ctx)
{
	struct vmm_stager *s = &vmm_stager[dev];
	uint64_t n = vmm_dev[dev].keep * KEPT_SLOTS / KEPT_ALL / vmm_dev[dev].extent;

	if (s->tried)
		return s->open && s->ctx == ctx;
	s->tried = true;
	n = n < 2 ? 2 : n > 64 ? 64 : n;
	s->n_banks = n >= 8 ? BANKS : 2;
	s->per = (uint32_t)n / s->n_banks;
	s->ctx = ctx;
	s->open = events(s, ctx) && slots(s, dev);
	s->part = s->open && takes_part(s, dev);
	if (!s->open)
		off_verbose(1, "device %d: nothing is staged: there is no room", dev);
	return s->open;
}

/* ---- views -------------------------------------------------------------------------- */

/* Up to the next address that kernels were given, in that one's extent too, and to as
 * many host homes as a bank has slots. */
uint32_t vmm_window(const struct vmm_region *r, uint64_t start, uint32_t *first)
{
	uint64_t end = r->base + r->len;
	const struct vmm_shown *s = r->shown;
	uint32_t n = 0, hosts = 0, i = (uint32_t)((start - r->base) / r->extent);

	for (uint32_t k = 0; s && k < s->n_starts; k++)
		if (s->start[k] > start) {
			end = s->start[k];
			break;
		}
	*first = i;
	for (; i < r->n && vmm_at(r, i) < end; i++, n++) {
		hosts += r->ext[i].host;
		if (hosts > vmm_stager[r->dev].per)
			break;
	}
	return n;
}

void vmm_take_down(const struct vmm_region *r, uint64_t at, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		vmm_ops->unmap(at + i * r->extent, vmm_bytes(r, i));
	vmm_ops->unreserve(at, r->size);
}

/* v NULL: homes alone. */
static int put_up(struct vmm_region *r, const struct vmm_view *v, uint64_t *at)
{
	const struct vmm_stager *s = &vmm_stager[r->dev];
	uint32_t i, slot = 0, devices = vmm_dev[r->dev].peers;
	int err;

	*at = 0;
	err = vmm_ops->reserve(at, r->size);

	if (err)
		return err;
	for (i = 0; i < r->n && !err; i++) {
		uint64_t handle = r->ext[i].handle;

		if (v && i - v->first < v->n && slot < s->per && vmm_slotted(r, i))
			handle = s->handle[v->bank * s->per + slot++];
		err = vmm_ops->map(*at + i * r->extent, vmm_bytes(r, i), handle);
	}
	if (err) {
		vmm_take_down(r, *at, i - 1);
		return err;
	}
	err = v ? vmm_ops->read_only(*at, r->size, devices) :
	      vmm_ops->access(*at, r->size, devices);
	if (err)
		vmm_take_down(r, *at, r->n);
	return err;
}

struct vmm_view *vmm_view_make(struct vmm_region *r, uint64_t start)
{
	struct vmm_shown *s = r->shown;
	struct vmm_stager *g = &vmm_stager[r->dev];
	struct vmm_view *v;

	if (s->refused || s->n_views == VIEWS || !vmm_stager_open(r->dev, r->ctx))
		return NULL;
	v = mem_zalloc(sizeof(*v));
	if (!v)
		return NULL;
	*v = (struct vmm_view){ .start = start, .region = r, .epoch = s->epoch,
				.bank = g->next++ % g->n_banks };
	v->n = vmm_window(r, start, &v->first);
	if (put_up(r, v, &v->at)) {
		s->refused = true;
		mem_free(v);
		return NULL;
	}
	vmm_stage_lock();
	s->view[s->n_views++] = v;
	vmm_stage_unlock();
	return v;
}

bool vmm_probe_make(struct vmm_region *r)
{
	uint64_t at;

	if (r->shown->probe)
		return true;
	if (r->shown->refused || put_up(r, NULL, &at)) {
		r->shown->refused = true;
		return false;
	}
	r->shown->probe = at;
	return true;
}

static void forget(struct vmm_stager *g, const struct vmm_view *v)
{
	for (uint32_t b = 0; b < g->n_banks; b++)
		if (g->bank[b].holds == v)
			g->bank[b].holds = NULL;
	if (g->last == v)
		g->last = NULL;
}

void vmm_views_end(struct vmm_region *r)
{
	struct vmm_shown *s = r->shown;

	if (!s)
		return;
	vmm_stage_lock();
	for (int d = 0; d < DEVICES; d++)
		for (uint32_t i = 0; i < s->n_views; i++)
			forget(&vmm_stager[d], s->view[i]);
	s->epoch++;
	vmm_graphs_epoch(r, s->epoch - 1);
	vmm_stage_unlock();
	for (uint32_t i = 0; i < s->n_views; i++) {
		vmm_take_down(r, s->view[i]->at, r->n);
		mem_free(s->view[i]);
	}
	s->n_views = 0;
	if (s->probe)
		vmm_take_down(r, s->probe, r->n);
	s->probe = 0;
}

void vmm_views_free(struct vmm_region *r)
{
	vmm_views_end(r);
	vmm_graphs_region_end(r);
	mem_free(r->shown);
	r->shown = NULL;
}

/* The context is gone, and all its regions: no view is left. */
void vmm_stager_end(uintptr_t ctx)
{
	for (int dev = 0; dev < DEVICES; dev++) {
		struct vmm_stager *s = &vmm_stager[dev];
		uint64_t len = vmm_dev[dev].extent;

		if (!s->tried || s->ctx != ctx)
			continue;
		for (uint32_t i = 0; s->open && i < s->n_banks * s->per; i++)
			if (!vmm_ops->unmap(s->bank[0].at + i * len, len))
				vmm_handle_put(dev, false, len, s->handle[i]);
		if (s->open)
			vmm_ops->unreserve(s->bank[0].at, s->n_banks * s->per * len);
		memset(s, 0, sizeof(*s));
	}
}

void vmm_views_child(void)
{
	memset(vmm_stager, 0, sizeof(vmm_stager));
	vmm_graphs_child();
}
