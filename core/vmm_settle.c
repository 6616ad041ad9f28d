/* SPDX-License-Identifier: MIT */
/* vmm_settle.c - homes follow what their region is used for.
 *
 * A region is asked for before anybody knows what it is for, so the first to come have the
 * device. Once work runs it is seen, and the policy says which homes are to change places
 * (policy/homes.c): what is written and used belongs in the device, then what is used most.
 *
 * (1) This is done where the program itself waits for all its work: it cannot be waiting
 *     for us there, and nothing is queued (vmm_gate.c makes sure of it). So not where it has
 *     several contexts: what is queued in another may wait for what comes after this wait.
 * (2) Looking costs as many steps as there are extents: it waits for uses of some passes, and
 *     is rarer and rarer while nothing is found.
 * (3) What is free, and stays so while nobody asks for memory, is for what is only read.
 * Lock: the turn.
 */
#include "core/vmm_int.h"
#include "core/vmm_use.h"

#define CALM	4u	/* looks without a request, before what is free is given away */
#define SELDOM	256u

static uint32_t wait_for, skipped;
static uint32_t requests, seen_requests, calm;

void vmm_requested(void)
{
	requests++;
	wait_for = 0;
}

static uintptr_t owner(const struct vmm_place *at, uint32_t n)
{
	return n ? at[0].region->ctx : 0;
}

/* What the policy would move, to `moves`: room for n. */
static uint32_t decide(int dev, const struct pol_home *h, const struct vmm_place *at, uint32_t n,
		       uint32_t *moves)
{
	const struct vmm_device *d = &vmm_dev[dev];
	struct pol_homes_in in = { .room = vmm_room(dev, owner(at, n), d->keep),
				   .host = vmm_host_left(dev) };
	uint32_t *order = mem_alloc(n * sizeof(*order)), k;

	if (!order)
		return 0;
	if (calm >= CALM)
		in.spare = vmm_room(dev, owner(at, n), 2 * d->keep);
	k = pol_homes(&in, h, n, order, moves, n);
	mem_free(order);
	return k;
}

/* The gate is closed. How many bytes moved. */
static uint64_t settle(int dev, const struct vmm_place *at, const uint32_t *moves, uint32_t n)
{
	uint64_t done = 0;

	for (uint32_t k = 0; k < n; k++) {
		const struct vmm_place *p = &at[moves[k]];
		uint64_t len = vmm_bytes(p->region, p->extent);

		if (p->region->ext[p->extent].host ? vmm_room(dev, p->region->ctx, 0) < len :
		    vmm_host_left(dev) < len)
			break;
		if (vmm_move(p->region, p->extent))
			break;
		done += len;
	}
	return done;
}

static void look(int dev)
{
	struct vmm_place *at;
	uint32_t n = 0, many = 0, *moves;
	struct pol_home *h = vmm_look(dev, &at, &n);

	calm = requests == seen_requests ? calm + 1 : 0;
	seen_requests = requests;
	moves = h && n ? mem_alloc(n * sizeof(*moves)) : NULL;
	if (moves)
		many = decide(dev, h, at, n, moves);
	if (!many || vmm_gate_close(dev, owner(at, n))) {
		wait_for = wait_for < SELDOM ? 2 * wait_for + 1 : SELDOM;
	} else {
		device_stat(dev, SD_DRAINS, 1);
		if (!settle(dev, at, moves, many))	/* refused: not again soon */
			wait_for = SELDOM;
		vmm_gate_open();
	}
	mem_free(moves);
	mem_free(h);
}

void vmm_idle(int dev)
{
	int saved = errno;

	if (!atomic_load_explicit(&vmm_on, memory_order_relaxed) || vmm_captures() ||
	    (unsigned int)dev >= DEVICES || !vmm_moves(dev))
		return;
	vmm_take_turn();
	if (vmm_graphs_dying() && !vmm_gate_close(dev, 0)) {
		vmm_graphs_reap();
		vmm_gate_open();
	}
	if (skipped++ >= wait_for && vmm_stat(dev, SD_HOST_HOME)) {
		skipped = 0;
		look(dev);
	}
	vmm_give_turn();
	errno = saved;
}
