/* SPDX-License-Identifier: MIT */
/* vmm.c - regions of device memory that the library places.
 *
 *   asked for --placed--> LIVE --freed--> gone
 *                           `--freed while it may not be waited for--> DEAD --> gone
 *
 * (1) Nothing is placed until there is a reason: OFFLOAD_VRAM, or a driver that has none
 *     left. What fits costs what it did.
 * (2) A request is granted only if budget, host memory and (OFFLOAD_DEVICE_DEEP) the spill
 *     file together hold all of it: never a surprise while the program computes. Else it
 *     fails as the driver fails.
 * (3) Homes of a region that does not fit are spread over it: what is read in a row then
 *     comes from both sides at once.
 * (4) Where the driver gives no host memory for a region, or none beside its own, a
 *     region is of one kind as a whole: the driver's, or pinned (WHOLE).
 * (5) Freeing waits for all work of the process, as the driver's does for the device's:
 *     programs rely on it.
 * (6) Arguments of kernels are read as addresses, and are also sizes, strides, floats. So
 *     regions lie where no such number points: two of 32 bits side by side would have to
 *     be one above 2^31 and one between 23357 and 28671.
 * Locks: `lock`, leaf, guards the turn; the table is read inside the gate.
 */
#include "core/vmm_int.h"
#include "core/vmm_store.h"

#include <pthread.h>
#include <stdio.h>

const struct vmm_ops *vmm_ops;
struct vmm_device vmm_dev[DEVICES];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t given = PTHREAD_COND_INITIALIZER;
static bool taken;
static struct vmm_region *table[VMM_REGIONS];	/* [0] stays NULL */
static struct vmm_region *dead[VMM_REGIONS];
static uint32_t n_dead;
static uint64_t serials;

bool vmm_try_turn(void)
{
	bool got;

	pthread_mutex_lock(&lock);
	got = !taken;
	taken = true;
	pthread_mutex_unlock(&lock);
	return got;
}

void vmm_take_turn(void)
{
	pthread_mutex_lock(&lock);
	while (taken)
		pthread_cond_wait(&given, &lock);
	taken = true;
	pthread_mutex_unlock(&lock);
}

void vmm_give_turn(void)
{
	pthread_mutex_lock(&lock);
	taken = false;
	pthread_cond_signal(&given);
	pthread_mutex_unlock(&lock);
}

struct vmm_region *vmm_nth(uint32_t number)
{
	return number < VMM_REGIONS ? __atomic_load_n(&table[number], __ATOMIC_ACQUIRE) : NULL;
}

struct vmm_region *vmm_of(uint64_t addr)
{
	struct device_region d;

	return device_find(addr, &d) && d.placed ? vmm_nth(d.placed) : NULL;
}

bool vmm_torture;

bool vmm_begin(const struct vmm_ops *ops)
{
	if (off_opt.device == OPT_DEVICE_OFF || !core_on())
		return false;
	vmm_torture = torture();
	if (!vmm_ops)
		__atomic_store_n(&vmm_ops, ops, __ATOMIC_RELEASE);
	return true;
}

/* ---- devices ------------------------------------------------------------------------- */

/* Extents: as large as can be, but 32 in the budget, and whole granules. */
static uint64_t extent_for(uint64_t budget, uint64_t gran)
{
	uint64_t e = VMM_EXTENT > gran ? VMM_EXTENT : gran;

	while (e > gran && e > budget / 32)
		e /= 2;
	return e;
}

static int granularity(struct vmm_device *d, int dev)
{
	uint64_t host = 0;
	int err = vmm_ops->granularity(dev, false, &d->gran);

	if (err || !d->gran || d->gran & (d->gran - 1))
		return err ? err : -ENOTSUP;
	if (!vmm_ops->granularity(dev, true, &host) && host > d->gran)
		d->gran = host;
	return 0;
}

/* Both kinds side by side, once. */
static int try_both(struct vmm_device *d, const uint64_t handle[2])
{
	uint64_t at = 0;
	int err = vmm_ops->reserve(&at, 2 * d->gran), n = 0;

	if (err)
		return err;
	while (n < 2 && !(err = vmm_ops->map(at + (uint64_t)n * d->gran, d->gran, handle[n])))
		n++;
	if (!err)
		err = vmm_ops->access(at, 2 * d->gran, d->peers);
	while (n-- > 0)
		vmm_ops->unmap(at + (uint64_t)n * d->gran, d->gran);
	vmm_ops->unreserve(at, 2 * d->gran);
	return err;
}

/* -ENOMEM of the device says nothing of what it allows. */
static void find_mode(struct vmm_device *d, int dev)
{
	uint64_t handle[2];
	int err = vmm_ops->create(dev, true, d->gran, &handle[1]);

	if (!err) {
		err = vmm_ops->create(dev, false, d->gran, &handle[0]);
		if (!err) {
			err = try_both(d, handle);
			vmm_ops->release(handle[0]);
		} else if (err == -ENOMEM) {
			err = 0;
		}
		vmm_ops->release(handle[1]);
	}
	d->mode = err ? VMM_WHOLE : VMM_MIXED;
	if (err)
		off_verbose(1, "device %d: no host memory beside its own (%s): an allocation is "
			    "placed as a whole", dev, strerrordesc_np(-err));
}

/* In the turn. False: this driver has nothing of the kind. */
static bool know(int dev)
{
	struct vmm_device *d = &vmm_dev[dev];
	uint64_t budget = vmm_stat(dev, SD_BUDGET), keep;

	if (d->mode != VMM_UNKNOWN)
		return true;
	if (!budget || granularity(d, dev))
		return false;
	d->peers |= 1u << dev;
	d->extent = torture() ? d->gran : extent_for(budget, d->gran);
	/* Where launches are staged most of it is for that: KEPT_SLOTS, KEPT_GRAPHS. */
	keep = off_opt.stage == OPT_STAGE_OFF ? 2 : KEPT_ALL;
	d->keep = keep * d->extent;
	if (d->keep < budget * keep / 64)
		d->keep = budget * keep / 64;
	d->least = off_opt.device_min ? off_opt.device_min :
		   torture() ? d->gran / 16 : d->extent;
	if (off_opt.device == OPT_DEVICE_UVM && vmm_managed_able(dev))
		d->mode = VMM_MANAGED;
	else
		find_mode(d, dev);
	return true;
}

bool vmm_wants(int dev, uintptr_t ctx, uint64_t len, bool refused)
{
	struct vmm_device *d;
	bool known;

	if ((unsigned int)dev >= DEVICES || !vmm_ops || !ctx)
		return false;
	d = &vmm_dev[dev];
	if (refused)
		d->pressed = true;
	else if (!off_opt.vram && !d->pressed && !torture())
		return false;
	if ((d->mode != VMM_UNKNOWN && len < d->least && !refused) || vmm_captures())
		return false;
	vmm_take_turn();
	known = know(dev);
	vmm_give_turn();
	return known && (refused || len >= d->least);
}

/* ---- placing --------------------------------------------------------------------------- */

static void unmap_upto(struct vmm_region *r, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (!r->ext[i].spilled && !vmm_ops->unmap(vmm_at(r, i), vmm_bytes(r, i)))
			vmm_handle_put(r->dev, r->ext[i].host, vmm_bytes(r, i), r->ext[i].handle);
}

/* A handle of the kind, or of the other if there is no more of it and it may be: what can be
 * spilled is not in the device beyond its budget. */
static int home(struct vmm_region *r, uint32_t i, bool host)
{
	uint64_t len = vmm_bytes(r, i), room = vmm_host_left(r->dev);
	int err = -ENOMEM;

	if (!host || (room < len && !r->piece))
		err = vmm_handle_get(r->dev, false, len, &r->ext[i].handle);
	r->ext[i].host = err == -ENOMEM && room >= len;
	if (r->ext[i].host)
		err = vmm_handle_get(r->dev, true, len, &r->ext[i].handle);
	return err;
}

/* Spread evenly (3). */
bool vmm_in_device(uint32_t i, uint32_t n, uint32_t many)
{
	if (torture() && many < n)
		return torture_random(n) < many;
	return (uint64_t)(i + 1) * many / n != (uint64_t)i * many / n;
}

/* Those that have homes; in one call where all do. */
static int allow_all(const struct vmm_region *r, uint32_t devices)
{
	int err = 0;

	if (!r->n_spilled)
		return vmm_ops->access(r->base, r->size, devices);
	for (uint32_t i = 0; i < r->n && !err; i++)
		if (!r->ext[i].spilled)
			err = vmm_ops->access(vmm_at(r, i), vmm_bytes(r, i), devices);
	return err;
}

static int map_all(struct vmm_region *r, uint32_t many)
{
	int err = 0;
	uint32_t i;

	for (i = 0; i < r->n; i++) {
		err = home(r, i, !vmm_in_device(i, r->n, many));
		if (err == -ENOMEM && r->piece) {
			err = vmm_spill_fresh(r, i);
			if (!err)
				continue;
		}
		if (err)
			break;
		err = vmm_ops->map(vmm_at(r, i), vmm_bytes(r, i), r->ext[i].handle);
		if (err) {
			vmm_handle_put(r->dev, r->ext[i].host, vmm_bytes(r, i), r->ext[i].handle);
			break;
		}
	}
	if (!err)
		err = allow_all(r, vmm_dev[r->dev].peers);
	if (err)
		unmap_upto(r, i);
	return err;
}

/* How many extents the device is to hold; -ENOMEM: (2). What is kept free of the budget
 * is used before a request fails. */
static int admit(struct vmm_region *r, uint32_t *many)
{
	uint64_t none;
	const struct vmm_device *d = &vmm_dev[r->dev];
	uint64_t host = vmm_host_left(r->dev), room = vmm_room(r->dev, r->ctx, d->keep);

	if (torture() && torture_random(4))
		room = torture_random((uint32_t)(room / d->gran + 1)) * d->gran;
	if (room < r->size && r->size - room > host)
		room = vmm_room(r->dev, r->ctx, 0);
	*many = room >= r->size ? r->n : (uint32_t)(room / r->extent);
	none = less(r->size, *many * r->extent + host);
	if (vmm_deep_on(r->dev))	/* what there is no home for is the file's */
		return vmm_spill_begin(r, none) && none ? -ENOMEM : 0;
	return none ? -ENOMEM : 0;
}

/* (6) From here on, each from the middle of 4 GB: some drivers take no hint within what
 * they gave already (seen: H200, driver 580). */
#define APART		0x5b3d80000000ull
#define APART_END	0x700000000000ull
#define HALF		(1ull << 31)

static uint64_t apart = APART;

static int reserve_apart(struct vmm_region *r)
{
	uint64_t at = apart;
	int err;

	if (at >= APART_END || r->size > APART_END - at)
		at = APART;
	apart = ((at + r->size + HALF - 1) & ~(2 * HALF - 1)) + HALF;
	r->base = at;
	err = vmm_ops->reserve(&r->base, r->size);
	r->apart = !err && r->base == at;
	return err;
}

static int place_extents(struct vmm_region *r)
{
	uint32_t many;
	int err = admit(r, &many);

	if (err)
		return err;
	if (vmm_dev[r->dev].mode == VMM_MANAGED)
		return vmm_managed_place(r, many);
	err = reserve_apart(r);
	if (err)
		return err;
	err = map_all(r, many);
	if (err) {
		vmm_spill_end(r);
		vmm_ops->unreserve(r->base, r->size);
	}
	return err;
}

/* (4) */
static int place_whole(struct vmm_region *r)
{
	int err;

	if (vmm_room(r->dev, r->ctx, vmm_dev[r->dev].keep) >= r->size)
		return -EAGAIN;
	if (vmm_host_left(r->dev) < r->size)
		return vmm_room(r->dev, r->ctx, 0) >= r->size ? -EAGAIN : -ENOMEM;
	r->n = 0;
	err = vmm_ops->pin(r->ctx, r->size, &r->base);
	if (!err)
		vmm_count(r->dev, true, (int64_t)r->size);
	return err;
}

static struct vmm_region *new_region(int dev, uintptr_t ctx, uint64_t len)
{
	const struct vmm_device *d = &vmm_dev[dev];
	uint64_t size = (len + d->gran - 1) & ~(d->gran - 1), n = (size + d->extent - 1) / d->extent;
	struct vmm_region *r;

	if (size < len || n > UINT32_MAX / 2)
		return NULL;
	r = mem_zalloc(sizeof(*r) + n * sizeof(r->ext[0]));
	if (!r)
		return NULL;
	r->len = len;
	r->size = size;
	r->extent = d->extent;
	r->ctx = ctx;
	r->dev = dev;
	r->n = (uint32_t)n;
	return r;
}

/* False: the table is full. */
static bool publish(struct vmm_region *r)
{
	for (uint32_t i = 1; i < VMM_REGIONS; i++)
		if (!table[i]) {
			r->number = i;
			r->serial = ++serials;
			__atomic_store_n(&table[i], r, __ATOMIC_RELEASE);
			return true;
		}
	return false;
}

static int unplace(struct vmm_region *r)
{
	int err;

	vmm_views_free(r);
	if (!r->n) {
		err = vmm_ops->unpin(r->ctx, r->base);
		if (!err)
			vmm_count(r->dev, true, -(int64_t)r->size);
		return err;
	}
	if (r->managed) {
		vmm_managed_end(r);
		return 0;
	}
	unmap_upto(r, r->n);
	vmm_spill_end(r);
	vmm_ops->unreserve(r->base, r->size);
	return 0;
}

static int place(struct vmm_region *r)
{
	struct vmm_device *d = &vmm_dev[r->dev];
	uint32_t n = r->n;
	int err = vmm_moves(r->dev) ? place_extents(r) : place_whole(r);

	if (d->mode == VMM_MIXED && (err == -EINVAL || err == -ENOTSUP)) {
		vmm_spill_end(r);
		d->mode = VMM_WHOLE;
		r->n = n;
		err = place_whole(r);
	}
	return err;
}

/* Those that could not be waited for when they were freed. In the turn. */
static void bury(void)
{
	if (!n_dead || vmm_gate_close(dead[0]->dev, dead[0]->ctx))
		return;
	while (n_dead) {
		unplace(dead[--n_dead]);
		mem_free(dead[n_dead]);
	}
	vmm_gate_open();
}

int vmm_alloc(int dev, uintptr_t ctx, uint64_t len, uint64_t *at, uint32_t *number)
{
	struct vmm_region *r;
	int err = -EAGAIN, saved = errno;

	vmm_take_turn();
	vmm_requested();
	bury();
	r = know(dev) ? new_region(dev, ctx, len) : NULL;
	atomic_store(&vmm_on, r != NULL || atomic_load(&vmm_on));
	if (r)
		err = place(r);
	if (r && !err && !publish(r)) {
		unplace(r);
		err = -EAGAIN;
	}
	if (!err) {
		*at = r->base;
		*number = r->number;
		if (off_opt.stage != OPT_STAGE_OFF && vmm_dev[dev].mode == VMM_MIXED &&
		    !vmm_deep_on(dev))	/* views are of homes */
			atomic_store(&vmm_stages, true);
	} else if (r) {
		vmm_spill_end(r);
		mem_free(r);
	}
	if (torture() && !torture_random(4))
		vmm_shuffle(dev);
	vmm_give_turn();
	errno = saved;
	return err;
}

/* ---- giving back -------------------------------------------------------------------------- */

/* In the turn, the gate closed. */
static int end(struct vmm_region *r)
{
	int err;

	__atomic_store_n(&table[r->number], NULL, __ATOMIC_RELEASE);
	err = unplace(r);
	if (err && !r->n) {
		table[r->number] = r;
		return err;
	}
	mem_free(r);
	return 0;
}

/* Pinned by a context that is gone: so is it. */
static void forget(struct vmm_region *r)
{
	__atomic_store_n(&table[r->number], NULL, __ATOMIC_RELEASE);
	vmm_count(r->dev, true, -(int64_t)r->size);
	mem_free(r);
}

int vmm_free(uint32_t number)
{
	struct vmm_region *r;
	int err, dev, saved = errno;

	vmm_take_turn();
	vmm_requested();
	r = vmm_nth(number);
	dev = r ? r->dev : 0;
	err = r ? vmm_gate_close(dev, r->ctx) : -ENOENT;
	if (!err) {
		vmm_graphs_reap();
		err = end(r);
		vmm_gate_open();
	} else if (err == -EBUSY && n_dead < VMM_REGIONS) {
		table[number] = NULL;
		dead[n_dead++] = r;
		err = 0;
	}
	if (torture() && r && !torture_random(4))
		vmm_shuffle(dev);
	vmm_give_turn();
	errno = saved;
	return err;
}

void vmm_drop_owner(uintptr_t ctx)
{
	bool closed = false, held = false;
	int saved = errno;

	if (!atomic_load(&vmm_on))
		return;
	vmm_take_turn();
	for (uint32_t i = 1; i < VMM_REGIONS; i++) {
		if (!table[i] || table[i]->ctx != ctx)
			continue;
		if (!closed)
			held = !vmm_gate_close(table[i]->dev, 0);
		closed = true;
		table[i]->ctx = 0;
		if (table[i]->n)
			end(table[i]);
		else
			forget(table[i]);
	}
	vmm_stager_end(ctx);	/* its regions may have been freed before */
	vmm_graphs_owner_end(ctx);
	if (held) {
		vmm_graphs_reap();
		vmm_gate_open();
	}
	vmm_give_turn();
	errno = saved;
}

void vmm_fix(uint32_t number)
{
	struct vmm_region *r = vmm_nth(number);

	if (r)
		__atomic_store_n(&r->fixed, true, __ATOMIC_RELAXED);
}

uint64_t vmm_serial(uint32_t number)
{
	const struct vmm_region *r = vmm_nth(number);

	return r ? r->serial : 0;
}

/* ---- room for others ------------------------------------------------------------------------ */

bool vmm_make_room(int dev, uintptr_t ctx, uint64_t len, bool again)
{
	uint64_t used, budget, need, done = 0;
	bool some = false;
	int saved = errno;

	if (!atomic_load(&vmm_on) || (unsigned int)dev >= DEVICES || vmm_captures() ||
	    !vmm_moves(dev))
		return false;
	used = vmm_stat(dev, SD_RESIDENT);
	budget = vmm_stat(dev, SD_BUDGET);
	if (!again && (!off_opt.vram || used + len <= budget))
		return false;
	vmm_take_turn();
	bury();
	some = vmm_handle_flush(dev);
	used = vmm_stat(dev, SD_RESIDENT);
	need = again ? len : used + len > budget ? used + len - budget : 0;
	if (need)
		done = vmm_evict(dev, ctx, need + vmm_dev[dev].keep);
	vmm_give_turn();
	errno = saved;
	return some || done;
}

void vmm_tortured(int dev)
{
	int saved = errno;

	/* Rarely enough that something is shown between. */
	uint32_t often = off_opt.stage == OPT_STAGE_OFF ? 4 : 200;

	if ((unsigned int)dev >= DEVICES || torture_random(often) || vmm_captures())
		return;
	vmm_take_turn();
	vmm_shuffle(dev);
	vmm_give_turn();
	errno = saved;
}

/* ---- what is asked of it -------------------------------------------------------------------- */

uint64_t vmm_run(uint64_t addr, uint64_t len)
{
	const struct vmm_region *r = vmm_of(addr);
	uint64_t end;
	uint32_t i;

	if (!r || !r->n || addr - r->base >= r->size)
		return len;
	i = (uint32_t)((addr - r->base) / r->extent);
	while (i + 1 < r->n && r->ext[i + 1].host == r->ext[i].host &&
	       r->ext[i + 1].spilled == r->ext[i].spilled)
		i++;
	if (i + 1 >= r->n)
		return len;
	end = vmm_at(r, i) + vmm_bytes(r, i) - addr;
	return end < len ? end : len;
}

void vmm_peer(int dev, int of)
{
	uint32_t bit = 1u << dev;

	if ((unsigned int)dev >= DEVICES || (unsigned int)of >= DEVICES || !vmm_ops)
		return;
	vmm_take_turn();
	if (!(vmm_dev[of].peers & bit)) {
		vmm_dev[of].peers |= bit | 1u << of;
		for (uint32_t i = 1; i < VMM_REGIONS; i++)
			if (table[i] && table[i]->dev == of && table[i]->n && !table[i]->managed)
				allow_all(table[i], vmm_dev[of].peers);
	}
	vmm_give_turn();
}

/* ---- forks ---------------------------------------------------------------------- */

void vmm_lock(void)
{
	pthread_mutex_lock(&lock);
	vmm_pool_lock();
}

void vmm_unlock(void)
{
	vmm_pool_unlock();
	pthread_mutex_unlock(&lock);
}

/* No context works here: what was placed is the parent's. */
void vmm_child(void)
{
	vmm_pool_child();
	store_child();
	vmm_points_child();
	vmm_reach_child();
	vmm_spill_child();
	if (vmm_ops) {
		vmm_views_child();
		vmm_show_child();
		vmm_gate_child();
		vmm_use_child();
		memset(vmm_dev, 0, sizeof(vmm_dev));
		memset(table, 0, sizeof(table));
	}
	n_dead = 0;
	taken = false;
	pthread_cond_init(&given, NULL);
	pthread_mutex_unlock(&lock);
}
