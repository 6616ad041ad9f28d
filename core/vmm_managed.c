/* SPDX-License-Identifier: MIT */
/* vmm_managed.c - OFFLOAD_DEVICE=uvm: regions of managed memory, which the driver moves.
 *
 * (1) Their extents have homes as others have, by the same rules; that is told to the
 *     driver as the place it prefers for them. What is at home on the host is mapped for
 *     the device there, so that no touch brings it over.
 * (2) What prefers the device is no more than the budget: the driver has no reason to move
 *     anything by itself. Its own choice would be what is needed next (its list is in the
 *     order of faults).
 * (3) There is no memory of handles here: where bytes are counted is where they should be.
 * Lock: the turn.
 */
#include "core/vmm_int.h"

bool vmm_managed_able(int dev)
{
	return vmm_ops->managed && !vmm_ops->can_manage(dev);
}

static void count(const struct vmm_region *r, uint32_t i, int sign)
{
	vmm_count(r->dev, r->ext[i].host, sign * (int64_t)vmm_bytes(r, i));
}

int vmm_managed_place(struct vmm_region *r, uint32_t many)
{
	int err = vmm_ops->managed(r->ctx, r->size, &r->base);

	if (err)
		return err;
	r->managed = true;
	for (uint32_t i = 0; i < r->n; i++) {
		r->ext[i].host = !vmm_in_device(i, r->n, many);
		count(r, i, 1);
	}
	for (uint32_t i = 0; i < r->n && !err; i++)
		err = vmm_ops->prefer(r->ctx, vmm_at(r, i), vmm_bytes(r, i), r->dev,
				      r->ext[i].host, false);
	if (err)
		vmm_managed_end(r);
	return err;
}

/* Its context may be gone, and it with that. */
void vmm_managed_end(struct vmm_region *r)
{
	if (r->ctx)
		vmm_ops->unmanaged(r->ctx, r->base);
	for (uint32_t i = 0; i < r->n; i++)
		count(r, i, -1);
}

int vmm_managed_move(struct vmm_region *r, uint32_t i)
{
	int err = vmm_ops->prefer(r->ctx, vmm_at(r, i), vmm_bytes(r, i), r->dev,
				  !r->ext[i].host, true);

	if (err)
		return err;
	count(r, i, -1);
	r->ext[i].host = !r->ext[i].host;
	count(r, i, 1);
	device_stat(r->dev, SD_MOVED, (int64_t)vmm_bytes(r, i));
	return 0;
}
