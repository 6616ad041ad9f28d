/* SPDX-License-Identifier: MIT */
/* vmm_pool.c - memory of homes: handles recycled, and how many bytes there may be.
 *
 * (1) Making a handle is three quarters of what placing an extent costs: some are kept.
 *     They are memory all the same, counted as such, and given back before anybody is
 *     told that there is none: the program is told that they are free.
 * (2) Host memory of handles is charged to no cgroup: it is counted here, beside what the
 *     cgroup and the machine say.
 * Lock: `lock`, leaf, for what is known of host memory; the rest is in the turn.
 */
#include "core/vmm_int.h"
#include "core/vmm_use.h"

#include <pthread.h>

#define KEPT		64u
#define KEPT_EXTENTS	4u	/* of a device and kind */
#define STALE_NS	1000000000ull

struct kept { uint64_t handle, len; int dev; bool host; };

static struct kept kept[KEPT];
static uint32_t n_kept;
static _Atomic uint64_t spare[DEVICES][2];	/* bytes of them; host: [1] */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t host_used;		/* bytes of host handles and pinned regions */
static uint64_t host_room, read_at;	/* what was left then, in all */

/* ---- host memory -------------------------------------------------------------------- */

/* The machine's answer knows of our bytes, the cgroup's does not: (2). */
static uint64_t look(uint64_t used)
{
	struct budget b;
	struct budget_now now;
	uint64_t room, there;

	if (off_opt.ram)
		return less(off_opt.ram, used);
	if (budget_open(&b))
		return 0;
	if (budget_read(&b, &now)) {
		budget_close(&b);
		return 0;
	}
	budget_close(&b);
	there = now.mem_total;
	now.mem_total = 0;
	room = now.limit == BUDGET_NONE ? UINT64_MAX :
	       less(budget_target(&now, 0, off_opt.reserve, 0), used);
	now.mem_total = there;
	now.limit = BUDGET_NONE;
	there = there ? budget_target(&now, 0, off_opt.reserve, 0) : UINT64_MAX;
	return room < there ? room : there;
}

/* Reading takes descriptors and some 50 us: what was read is good for a while. */
uint64_t vmm_host_room(void)
{
	uint64_t now = now_ns(), used, room;
	int saved = errno;

	pthread_mutex_lock(&lock);
	used = host_used;
	room = host_room;
	if (read_at && now - read_at < STALE_NS && !off_opt.ram) {
		pthread_mutex_unlock(&lock);
		return room;
	}
	pthread_mutex_unlock(&lock);
	room = look(used);
	pthread_mutex_lock(&lock);
	host_room = room;
	read_at = now;
	pthread_mutex_unlock(&lock);
	errno = saved;
	return room;
}

static void host_count(int64_t bytes)
{
	pthread_mutex_lock(&lock);
	host_used += (uint64_t)bytes;
	host_room = bytes < 0 || host_room > (uint64_t)bytes ? host_room - (uint64_t)bytes : 0;
	pthread_mutex_unlock(&lock);
}

void vmm_count(int dev, bool host, int64_t bytes)
{
	device_stat(dev, host ? SD_HOST_HOME : SD_RESIDENT, bytes);
	if (!host)
		return;
	atomic_store_explicit(&vmm_counts, true, memory_order_relaxed);
	host_count(bytes);
	if (vmm_stat(dev, SD_HOST_HOME) > vmm_stat(dev, SD_HOST_PEAK))
		device_stat(dev, SD_HOST_PEAK, (int64_t)(vmm_stat(dev, SD_HOST_HOME) -
							 vmm_stat(dev, SD_HOST_PEAK)));
}

/* ---- handles ------------------------------------------------------------------------- */

static int create(int dev, bool host, uint64_t len, uint64_t *handle)
{
	int err = vmm_ops->create(dev, host, len, handle);

	if (!err)
		vmm_count(dev, host, (int64_t)len);
	return err;
}

static void release(const struct kept *k)
{
	if (!vmm_ops->release(k->handle))
		vmm_count(k->dev, k->host, -(int64_t)k->len);
}

static struct kept unkeep(uint32_t i)
{
	struct kept k = kept[i];

	kept[i] = kept[--n_kept];
	atomic_fetch_sub(&spare[k.dev][k.host], k.len);
	return k;
}

uint64_t vmm_spare(int dev, bool host)
{
	return atomic_load_explicit(&spare[dev][host], memory_order_relaxed);
}

bool vmm_handle_flush(int dev)
{
	struct kept k;
	bool some = false;

	for (uint32_t i = 0; i < n_kept;) {
		if (kept[i].dev != dev) {
			i++;
			continue;
		}
		k = unkeep(i);
		some |= !k.host;
		release(&k);
	}
	return some;
}

int vmm_handle_get(int dev, bool host, uint64_t len, uint64_t *handle)
{
	int err;

	for (uint32_t i = n_kept; i-- > 0;)
		if (kept[i].dev == dev && kept[i].host == host && kept[i].len == len) {
			*handle = unkeep(i).handle;
			return 0;
		}
	if (host && vmm_host_room() < len)
		vmm_handle_flush(dev);	/* of another size */
	err = create(dev, host, len, handle);
	if (err == -ENOMEM && vmm_handle_flush(dev))
		err = create(dev, host, len, handle);
	return err;
}

void vmm_handle_put(int dev, bool host, uint64_t len, uint64_t handle)
{
	struct kept k = { handle, len, dev, host };
	uint32_t alike = 0;

	for (uint32_t i = 0; i < n_kept; i++)
		alike += kept[i].dev == dev && kept[i].host == host;
	if (n_kept == KEPT || alike >= KEPT_EXTENTS || len != vmm_dev[dev].extent) {
		release(&k);
		return;
	}
	kept[n_kept++] = k;
	atomic_fetch_add(&spare[dev][host], len);
}

/* ---- the budget ------------------------------------------------------------------------- */

uint64_t vmm_host_left(int dev)
{
	return vmm_host_room() + vmm_spare(dev, true);
}

uint64_t vmm_room(int dev, uintptr_t ctx, uint64_t keep)
{
	uint64_t idle = vmm_spare(dev, false), card = UINT64_MAX, room;

	room = less(vmm_stat(dev, SD_BUDGET), less(vmm_stat(dev, SD_RESIDENT), idle) + keep);
	/* What others have only the driver knows; and it needs some for itself (modules,
	 * stacks of kernels), later. */
	if (!vmm_ops->free_bytes(ctx, &card))
		card = less(card + idle, vmm_dev[dev].keep);
	return room < card ? room : card;
}

/* ---- forks -------------------------------------------------------------------------------- */

void vmm_pool_lock(void)
{
	pthread_mutex_lock(&lock);
}

void vmm_pool_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void vmm_pool_child(void)
{
	n_kept = 0;
	memset(spare, 0, sizeof(spare));
	host_used = read_at = 0;
	pthread_mutex_unlock(&lock);
}
