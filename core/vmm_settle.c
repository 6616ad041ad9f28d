/* SPDX-License-Identifier: MIT */
/* vmm_settle.c - homes follow what their region is used for.
 *
 * A region is asked for before anybody knows what it is for, so the first to come have the
 * device. Once work runs it is seen:
 *
 *   filled by the host, written by no copy     weights: read once in a pass
 *   an argument of kernels, never so filled    activations, caches: written, read again
 *
 * (1) The second kind belongs in the device, whoever came first: its homes change places
 *     with the first kind's. What is free then, and stays so, is for the first kind.
 * (2) This is done where the program itself waits for all its work: it cannot be waiting
 *     for us there, and nothing is queued (vmm_gate.c makes sure of it).
 * (3) Looking costs as many steps as there are regions: rarer and rarer while nothing is
 *     found.
 * Lock: the turn.
 */
#include "core/vmm_int.h"

#define CALM	4u	/* looks without a request, before what is free is given away */
#define SELDOM	256u

static uint32_t wait_for, skipped;
static uint32_t requests, seen_requests, calm;

void vmm_requested(void)
{
	requests++;
	wait_for = 0;
}

static bool filled(const struct vmm_region *r)
{
	struct device_region d;

	return device_find(r->base, &d) && (d.marks & (DEVICE_FILLED | DEVICE_WRITTEN)) == DEVICE_FILLED;
}

static bool worked_on(const struct vmm_region *r)
{
	struct device_region d;

	return device_find(r->base, &d) && d.marks & DEVICE_USED && !(d.marks & DEVICE_FILLED);
}

/* The first extent at or after *at of a region of that kind, in such a home. */
static struct vmm_region *next(int dev, bool (*kind)(const struct vmm_region *), bool host,
			       uint32_t *at, uint32_t *i)
{
	for (; *at < VMM_REGIONS; *at += 1, *i = 0) {
		struct vmm_region *r = vmm_nth(*at);

		if (!vmm_movable(r, dev) || !kind(r))
			continue;
		for (; *i < r->n; *i += 1)
			if (r->ext[*i].host == host && !r->ext[*i].spilled)
				return r;
	}
	return NULL;
}

/* The gate is closed. How many bytes moved. */
static uint64_t settle(int dev)
{
	const struct vmm_device *d = &vmm_dev[dev];
	uint32_t a = 0, i = 0, b = 0, j = 0;
	struct vmm_region *r, *v;
	uint64_t done = 0;

	while ((r = next(dev, worked_on, true, &a, &i))) {
		uint64_t freed = 0;

		if (vmm_room(dev, r->ctx, d->keep) < vmm_bytes(r, i)) {
			v = next(dev, filled, false, &b, &j);
			if (!v || vmm_host_left(dev) < vmm_bytes(v, j) || vmm_move(v, j))
				break;
			freed = vmm_bytes(v, j);	/* kept for this */
			done += freed;
		}
		if ((freed < vmm_bytes(r, i) && vmm_room(dev, r->ctx, 0) < vmm_bytes(r, i)) ||
		    vmm_move(r, i))
			break;
		done += vmm_bytes(r, i);
	}
	a = i = 0;
	while (calm >= CALM && (r = next(dev, filled, true, &a, &i)) &&
	       vmm_room(dev, r->ctx, 2 * d->keep) >= vmm_bytes(r, i) && !vmm_move(r, i))
		done += vmm_bytes(r, i);
	return done;
}

/* Is there anything to do? */
static bool unsettled(int dev, uintptr_t *ctx)
{
	const struct vmm_device *d = &vmm_dev[dev];
	uint32_t a = 0, i = 0, b = 0, j = 0;
	const struct vmm_region *r = next(dev, worked_on, true, &a, &i);

	if (r && (vmm_room(dev, r->ctx, d->keep) >= vmm_bytes(r, i) ||
		  next(dev, filled, false, &b, &j))) {
		*ctx = r->ctx;
		return true;
	}
	a = i = 0;
	r = calm >= CALM ? next(dev, filled, true, &a, &i) : NULL;
	if (!r || vmm_room(dev, r->ctx, 2 * d->keep) < vmm_bytes(r, i))
		return false;
	*ctx = r->ctx;
	return true;
}

static void look(int dev)
{
	uintptr_t ctx;

	calm = requests == seen_requests ? calm + 1 : 0;
	seen_requests = requests;
	if (!unsettled(dev, &ctx) || vmm_gate_close(dev, ctx)) {
		wait_for = wait_for < SELDOM ? 2 * wait_for + 1 : SELDOM;
		return;
	}
	device_stat(dev, SD_DRAINS, 1);
	if (!settle(dev))	/* refused: not again soon */
		wait_for = SELDOM;
	vmm_gate_open();
}

void vmm_idle(int dev)
{
	int saved = errno;

	if (!atomic_load_explicit(&vmm_on, memory_order_relaxed) || vmm_captures() ||
	    (unsigned int)dev >= DEVICES || !vmm_moves(dev))
		return;
	vmm_take_turn();
	if (skipped++ >= wait_for && vmm_stat(dev, SD_HOST_HOME)) {
		skipped = 0;
		look(dev);
	}
	vmm_give_turn();
	errno = saved;
}
