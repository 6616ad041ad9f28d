/* SPDX-License-Identifier: MIT */
/* vmm_move.c - homes move: rarely, with the gate closed and nothing queued (R3).
 *
 *   new home made -> bytes copied, through addresses of ours -> old one unmapped, new one
 *   mapped in its place -> old handle kept for later
 *
 * (1) The old home is unmapped only once the copy is whole (R2). If the new one cannot be
 *     mapped then, the old one is put back; if that fails too, the bytes would have no
 *     address: the process ends (R4).
 * (2) What somebody knows more of than its address (an export, a graph's copy) stays.
 * Lock: the turn.
 */
#include "core/vmm_int.h"

static uint32_t cursor;		/* where the last victim was looked for */

/* ---- one extent -------------------------------------------------------------------- */

static int window(struct vmm_device *d)
{
	return d->window ? 0 : vmm_ops->reserve(&d->window, d->extent);
}

static int show(uint64_t at, uint64_t len, uint64_t handle, uint32_t devices)
{
	int err = vmm_ops->map(at, len, handle);

	if (err)
		return err;
	err = vmm_ops->access(at, len, devices);
	if (err)
		vmm_ops->unmap(at, len);
	return err;
}

static int copy_to(const struct vmm_region *r, uint32_t i, uint64_t handle)
{
	struct vmm_device *d = &vmm_dev[r->dev];
	uint64_t len = vmm_bytes(r, i);
	int err = window(d), gone;

	err = err ? err : show(d->window, len, handle, d->peers);
	if (err)
		return err;
	err = vmm_ops->copy(r->ctx, d->window, vmm_at(r, i), len);
	gone = vmm_ops->unmap(d->window, len);
	if (gone)
		d->window = 0;	/* lost to us; nothing else is */
	return err ? err : gone;
}

/* (1) */
static int replace(struct vmm_region *r, uint32_t i, uint64_t handle)
{
	uint32_t peers = vmm_dev[r->dev].peers;
	uint64_t at = vmm_at(r, i), len = vmm_bytes(r, i);
	int err = vmm_ops->unmap(at, len), back;

	if (err)
		return err;
	err = show(at, len, handle, peers);
	if (!err)
		return 0;
	back = show(at, len, r->ext[i].handle, peers);
	if (back)
		off_fatal("device %d: memory at %#llx, %llu bytes: the driver took it and "
			  "does not map it again (%s): its bytes have no address", r->dev,
			  (unsigned long long)at, (unsigned long long)len,
			  strerrorname_np(-back));
	return err;
}

int vmm_move(struct vmm_region *r, uint32_t i)
{
	bool host = !r->ext[i].host;
	uint64_t len = vmm_bytes(r, i), handle, old = r->ext[i].handle;
	int err;

	if (r->managed)
		return vmm_managed_move(r, i);
	if (r->ext[i].spilled)
		return -EINVAL;
	vmm_views_end(r);	/* they map its homes, too */
	err = vmm_handle_get(r->dev, host, len, &handle);
	if (err)
		return err;
	err = copy_to(r, i, handle);
	err = err ? err : replace(r, i, handle);
	if (err) {
		vmm_handle_put(r->dev, host, len, handle);
		return err;
	}
	r->ext[i] = (struct vmm_extent){ .handle = handle, .host = host };
	device_stat(r->dev, SD_MOVED, (int64_t)len);
	if (vmm_graphs_moved(r, i, handle))
		vmm_handle_put(r->dev, !host, len, old);
	return 0;
}

/* ---- which ones -------------------------------------------------------------------- */

/* The extent that costs least at the host, by what was seen of its uses. Of those that
 * cost the same: from the region after the last one on, in turn, the last extent first:
 * what is read from the start has longest to wait for it. */
static bool victim(int dev, struct vmm_region **r, uint32_t *i)
{
	double least = -1;
	uint32_t from = cursor;

	for (uint32_t k = 0; k < VMM_REGIONS; k++) {
		struct vmm_region *v = vmm_nth((from + k) % VMM_REGIONS);

		for (uint32_t e = vmm_movable(v, dev) ? v->n : 0; e-- > 0;) {
			double cost = v->ext[e].host ? 0 : vmm_cost(v, e);

			if (v->ext[e].host || v->ext[e].spilled || (least >= 0 && cost >= least))
				continue;
			cursor = (from + k) % VMM_REGIONS;
			*r = v;
			*i = e;
			least = cost;
			if (!(cost > 0))
				return true;
		}
	}
	return least >= 0;
}

/* The driver refuses what it took before, or there is no more: no further ones now. */
static void gave_up(int dev, int err)
{
	static _Atomic bool said;

	if (err != -ENOMEM && !atomic_exchange(&said, true))
		off_log("device %d: memory in use cannot be moved to the host: %s", dev,
			strerrordesc_np(-err));
}

/* One home goes to the spill file: how much of it was the device's, and 1; 0: none can. */
static uint64_t spill(int dev)
{
	uint64_t was = less(vmm_stat(dev, SD_RESIDENT), vmm_spare(dev, false)), now;

	if (!vmm_deep_on(dev) || vmm_spill_one(dev, 0, 0))
		return 0;
	now = less(vmm_stat(dev, SD_RESIDENT), vmm_spare(dev, false));
	return less(was, now) + 1;
}

uint64_t vmm_evict(int dev, uintptr_t ctx, uint64_t bytes)
{
	struct vmm_region *r;
	uint64_t done = 0;
	uint32_t i;
	int err;

	if (!victim(dev, &r, &i) || vmm_gate_close(dev, ctx))
		return 0;
	device_stat(dev, SD_DRAINS, 1);
	while (done < bytes && victim(dev, &r, &i)) {
		if (vmm_host_left(dev) < vmm_bytes(r, i)) {
			uint64_t gone = spill(dev);

			if (!gone)
				break;
			done += gone - 1;
			continue;
		}
		err = vmm_move(r, i);
		if (err) {
			gave_up(dev, err);
			break;
		}
		done += vmm_bytes(r, i);
	}
	vmm_graphs_reap();
	vmm_gate_open();
	vmm_handle_flush(dev);
	return done;
}

/* ---- torture ------------------------------------------------------------------------ */

void vmm_shuffle(int dev)
{
	bool closed = false;

	for (uint32_t k = 0; k < VMM_REGIONS; k++) {
		struct vmm_region *r = vmm_nth(k);

		for (uint32_t i = 0; vmm_movable(r, dev) && i < r->n; i++) {
			if (torture_random(8) || r->ext[i].spilled)
				continue;
			if (!closed && vmm_gate_close(dev, r->ctx))
				return;
			closed = true;
			if (vmm_deep_on(dev) && vmm_spillable(r) && torture_random(2))
				vmm_spill_out(r, i);
			else if (r->ext[i].host ? vmm_room(dev, r->ctx, vmm_dev[dev].keep) > vmm_bytes(r, i) :
			    vmm_host_left(dev) > vmm_bytes(r, i))
				vmm_move(r, i);
		}
	}
	if (closed) {
		device_stat(dev, SD_DRAINS, 1);
		vmm_gate_open();
	}
}
