/* SPDX-License-Identifier: MIT */
/* hostmem.c - host memory that devices reach: pinned, registered, managed (E7).
 *
 * Owns the list of such ranges. (1) Memory that is freed waits for the work of its
 * context, as the real driver is seen to; memory that is unregistered while work can
 * reach it breaks E1. Lock: the list's own, leaf, read-held for each access of a kernel;
 * changes hold the emulator's as well.
 */
#include "tests/emu/emu.h"

static pthread_rwlock_t list_lock = PTHREAD_RWLOCK_INITIALIZER;
static struct host_range *list;		/* in order of addresses */
static unsigned n, room;
static uint64_t ids;

static unsigned place(uint64_t addr)
{
	unsigned from = 0, to = n;

	while (from < to) {
		unsigned mid = (from + to) / 2;

		if (list[mid].addr + list[mid].size <= addr)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

bool host_find(uint64_t addr, struct host_range *out)
{
	unsigned i;
	bool found;

	pthread_rwlock_rdlock(&list_lock);
	i = place(addr);
	found = i < n && list[i].addr <= addr;
	if (found)
		*out = list[i];
	pthread_rwlock_unlock(&list_lock);
	return found;
}

bool host_next(unsigned *at, struct host_range *out)
{
	if (*at >= n)
		return false;
	*out = list[(*at)++];
	return true;
}

CUresult host_add(const struct host_range *r)
{
	unsigned i = place(r->addr);

	if (i < n && list[i].addr < r->addr + r->size)
		return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
	pthread_rwlock_wrlock(&list_lock);
	if (n == room) {
		room = room ? 2 * room : 64;
		list = realloc(list, room * sizeof(*list));
		if (!list)
			abort();
	}
	memmove(list + i + 1, list + i, (n - i) * sizeof(*list));
	list[i] = *r;
	list[i].id = ++ids | 1ull << 40;
	n++;
	pthread_rwlock_unlock(&list_lock);
	return CUDA_SUCCESS;
}

bool host_remove(uint64_t addr, enum host_kind kind, struct host_range *out)
{
	unsigned i = place(addr);

	if (i == n || list[i].addr != addr || list[i].kind != kind)
		return false;
	pthread_rwlock_wrlock(&list_lock);
	*out = list[i];
	memmove(list + i, list + i + 1, (n - i - 1) * sizeof(*list));
	n--;
	pthread_rwlock_unlock(&list_lock);
	return true;
}

/* ---- the driver's functions --------------------------------------------------------- */

CUresult i_cuMemHostAlloc(void **out, size_t size, unsigned int flags)
{
	struct host_range r = { .size = round_up(size, EMU_PAGE), .kind = H_ALLOC, .flags = flags };
	void *at;

	if (!out || !size || flags & ~7u)
		return CUDA_ERROR_INVALID_VALUE;
	r.ctx = ctx_current();
	if (!r.ctx)
		return CUDA_ERROR_INVALID_CONTEXT;
	at = emu_map(r.size);
	if (!at)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r.addr = (uintptr_t)at;
	*out = at;
	return host_add(&r);
}

CUresult i_cuMemAllocHost_v2(void **out, size_t size)
{
	return i_cuMemHostAlloc(out, size, 0);
}

CUresult i_cuMemFreeHost(void *at)
{
	struct host_range r;

	if (!at)
		return CUDA_SUCCESS;
	if (!host_find((uintptr_t)at, &r) || r.addr != (uintptr_t)at || r.kind != H_ALLOC)
		return CUDA_ERROR_INVALID_VALUE;
	ctx_wait(r.ctx);
	if (host_remove(r.addr, H_ALLOC, &r))
		emu_unmap(at, r.size);
	return CUDA_SUCCESS;
}

CUresult i_cuMemHostRegister_v2(void *at, size_t size, unsigned int flags)
{
	struct host_range r = {
		.addr = (uintptr_t)at, .size = size, .kind = H_REGISTERED, .flags = flags,
		.ctx = ctx_current(),
	};

	if (!at || !size || flags & ~15u || vm_is_device(r.addr))
		return CUDA_ERROR_INVALID_VALUE;
	return r.ctx ? host_add(&r) : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult i_cuMemHostUnregister(void *at)
{
	const struct op *op;
	struct host_range r;

	if (!host_find((uintptr_t)at, &r) || r.addr != (uintptr_t)at || r.kind != H_REGISTERED)
		return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
	op = op_reaching(r.addr, r.size, NULL);
	if (op) {
		ctx_fault(op->w.ctx, CUDA_ERROR_ILLEGAL_ADDRESS,
			  "E1: %p is unregistered while %s that is queued can reach it", at,
			  work_name(&op->w));
		return CUDA_ERROR_ILLEGAL_ADDRESS;
	}
	host_remove(r.addr, H_REGISTERED, &r);
	return CUDA_SUCCESS;
}

CUresult i_cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *at, unsigned int flags)
{
	struct host_range r;

	if (!out || flags || !host_find((uintptr_t)at, &r) || r.kind == H_MANAGED)
		return CUDA_ERROR_INVALID_VALUE;
	*out = (uintptr_t)at;
	return CUDA_SUCCESS;
}

CUresult i_cuMemHostGetFlags(unsigned int *flags, void *at)
{
	struct host_range r;

	if (!flags || !host_find((uintptr_t)at, &r) || r.kind != H_ALLOC)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = r.flags | CU_MEMHOSTALLOC_DEVICEMAP;
	return CUDA_SUCCESS;
}
