/* SPDX-License-Identifier: MIT */
/* managed.c - managed memory: one address for the host and all devices.
 *
 * Owns where each block of it is. (1) The bytes are host memory, and never move; what
 * moves is where they are said to be: a block comes to the device that touches or
 * prefetches it, and goes when the device is full, the one that came first first.
 * (2) The host's own touches cannot be seen: a block stays where it was. (3) Beside
 * allocations managed memory takes what is left of the capacity, never more.
 * Lock: `lock`, leaf: kernels come here without the emulator's.
 */
#include "tests/emu/emu.h"

#define BLOCK	65536ull
#define NOWHERE	(-1)

struct managed {
	uint64_t addr, size;
	int8_t *at;			/* device of each block, or NOWHERE: the host */
	bool read_mostly;
	int preferred, last;		/* devices, CU_DEVICE_CPU or CU_DEVICE_INVALID */
	unsigned accessed_by;
	unsigned sweep;			/* the next to go */
	struct managed *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct managed *all;

CUresult i_cuMemAllocManaged(CUdeviceptr *out, size_t size, unsigned int flags)
{
	struct host_range r = { .size = round_up(size, EMU_PAGE), .kind = H_MANAGED };
	struct managed *m;
	void *at;
	unsigned blocks = (unsigned)((size + BLOCK - 1) / BLOCK);

	if (!out || !size || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
		return CUDA_ERROR_INVALID_VALUE;
	r.ctx = ctx_current();
	if (!r.ctx)
		return CUDA_ERROR_INVALID_CONTEXT;
	at = emu_map(r.size);
	m = calloc(1, sizeof(*m));
	if (!at || !m)
		return CUDA_ERROR_OUT_OF_MEMORY;
	m->addr = r.addr = (uintptr_t)at;
	m->size = r.size;
	m->preferred = m->last = CU_DEVICE_INVALID;
	m->at = malloc(blocks);
	if (!m->at)
		abort();
	memset(m->at, NOWHERE, blocks);
	r.managed = m;
	pthread_mutex_lock(&lock);
	m->next = all;
	all = m;
	pthread_mutex_unlock(&lock);
	*out = r.addr;
	return host_add(&r);
}

static unsigned blocks_of(const struct managed *m)
{
	return (unsigned)((m->size + BLOCK - 1) / BLOCK);
}

static void leave_block(struct managed *m, unsigned b)
{
	struct device *d = &emu.dev[m->at[b]];

	m->at[b] = NOWHERE;
	d->managed -= BLOCK;
	d->managed_out += BLOCK;
}

static bool make_room(int device, const struct managed *keep, unsigned from, unsigned to)
{
	for (struct managed *m = all; m; m = m->next) {
		unsigned n = blocks_of(m);

		for (unsigned i = 0; i < n; i++) {
			unsigned b = (m->sweep + i) % n;

			if (m->at[b] != device || (m == keep && b >= from && b <= to))
				continue;
			m->sweep = b + 1;
			leave_block(m, b);
			return true;
		}
	}
	return false;
}

static void bring(struct managed *m, int device, unsigned from, unsigned to)
{
	struct device *d = &emu.dev[device];

	for (unsigned b = from; b <= to; b++) {
		if (m->at[b] == device)
			continue;
		if (m->at[b] != NOWHERE)
			leave_block(m, b);
		while (d->used + d->managed + BLOCK > emu.opt.vram)
			if (!make_room(device, m, from, to))
				return;
		m->at[b] = (int8_t)device;
		d->managed += BLOCK;
		d->managed_in += BLOCK;
	}
}

void managed_touch(struct managed *m, int device, uint64_t off, uint64_t size)
{
	unsigned from = (unsigned)(off / BLOCK), to = (unsigned)((off + size - 1) / BLOCK);

	if (device < 0)
		return;
	pthread_mutex_lock(&lock);
	bring(m, device, from, to);
	pthread_mutex_unlock(&lock);
}

void managed_end(struct managed *m)
{
	struct managed **at = &all;

	pthread_mutex_lock(&lock);
	for (unsigned b = 0; b < blocks_of(m); b++)
		if (m->at[b] != NOWHERE)
			emu.dev[m->at[b]].managed -= BLOCK;
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	pthread_mutex_unlock(&lock);
	emu_unmap((void *)(uintptr_t)m->addr, m->size);
	free(m->at);
	free(m);
}

/* ---- advice and prefetch ----------------------------------------------------------------- */

static struct managed *range_of(uint64_t addr, uint64_t size)
{
	struct host_range h;

	if (!size || !host_find(addr, &h) || !h.managed || size > h.addr + h.size - addr)
		return NULL;
	return h.managed;
}

void managed_prefetch(struct work *w)
{
	struct managed *m = range_of(w->u.prefetch.addr, w->u.prefetch.size);
	unsigned from, to;

	if (!m)
		return;
	from = (unsigned)((w->u.prefetch.addr - m->addr) / BLOCK);
	to = (unsigned)((w->u.prefetch.addr + w->u.prefetch.size - 1 - m->addr) / BLOCK);
	pthread_mutex_lock(&lock);
	m->last = w->u.prefetch.device;
	if (w->u.prefetch.device >= 0)
		bring(m, w->u.prefetch.device, from, to);
	for (unsigned b = from; w->u.prefetch.device < 0 && b <= to; b++)
		if (m->at[b] != NOWHERE)
			leave_block(m, b);
	pthread_mutex_unlock(&lock);
}

/* A device, CU_DEVICE_CPU, or CU_DEVICE_INVALID: neither. */
static int device_of(const CUmemLocation *l)
{
	switch (l->type) {
	case CU_MEM_LOCATION_TYPE_DEVICE: return device_ok(l->id) ? l->id : CU_DEVICE_INVALID;
	case CU_MEM_LOCATION_TYPE_HOST:
	case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT: return CU_DEVICE_CPU;
	case CU_MEM_LOCATION_TYPE_HOST_NUMA: return l->id ? CU_DEVICE_INVALID : CU_DEVICE_CPU;
	default: return CU_DEVICE_INVALID;
	}
}

static CUresult prefetch(uint64_t addr, size_t size, int device, CUstream h)
{
	struct work w = { .kind = W_PREFETCH };
	CUresult r;
	struct stream *s = stream_get(h, &r);

	if (!s)
		return r;
	if (device != CU_DEVICE_CPU && !device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	if (!range_of(addr, size))
		return CUDA_ERROR_INVALID_VALUE;
	if (!emu.opt.concurrent)
		return CUDA_ERROR_INVALID_DEVICE;
	w.u.prefetch.addr = addr;
	w.u.prefetch.size = size;
	w.u.prefetch.device = device;
	return stream_submit(s, &w);
}

CUresult i_cuMemPrefetchAsync(CUdeviceptr addr, size_t size, CUdevice device, CUstream s)
{
	return prefetch(addr, size, device, s);
}

CUresult i_cuMemPrefetchAsync_v2(CUdeviceptr addr, size_t size, CUmemLocation where,
				 unsigned int flags, CUstream s)
{
	return flags ? CUDA_ERROR_INVALID_VALUE : prefetch(addr, size, device_of(&where), s);
}

static CUresult advise(uint64_t addr, size_t size, CUmem_advise advice, int device)
{
	struct managed *m = range_of(addr, size);

	if (!m)
		return CUDA_ERROR_INVALID_VALUE;
	switch (advice) {
	case CU_MEM_ADVISE_SET_READ_MOSTLY: m->read_mostly = true; return CUDA_SUCCESS;
	case CU_MEM_ADVISE_UNSET_READ_MOSTLY: m->read_mostly = false; return CUDA_SUCCESS;
	case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
		m->preferred = CU_DEVICE_INVALID;
		return CUDA_SUCCESS;
	default: break;
	}
	if (device != CU_DEVICE_CPU && !device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	if (advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION)
		m->preferred = device;
	else if (advice == CU_MEM_ADVISE_SET_ACCESSED_BY)
		m->accessed_by |= 1u << (device + 1);
	else if (advice == CU_MEM_ADVISE_UNSET_ACCESSED_BY)
		m->accessed_by &= ~(1u << (device + 1));
	else
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

CUresult i_cuMemAdvise(CUdeviceptr addr, size_t size, CUmem_advise advice, CUdevice device)
{
	return advise(addr, size, advice, device);
}

CUresult i_cuMemAdvise_v2(CUdeviceptr addr, size_t size, CUmem_advise advice, CUmemLocation where)
{
	return advise(addr, size, advice, device_of(&where));
}

CUresult i_cuMemRangeGetAttribute(void *out, size_t bytes, CUmem_range_attribute a,
				  CUdeviceptr addr, size_t size)
{
	const struct managed *m = range_of(addr, size);
	int *v = out;

	if (!m || !out || bytes < 4 || bytes % 4)
		return CUDA_ERROR_INVALID_VALUE;
	switch (a) {
	case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY: *v = m->read_mostly; return CUDA_SUCCESS;
	case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION: *v = m->preferred; return CUDA_SUCCESS;
	case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION: *v = m->last; return CUDA_SUCCESS;
	case CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY:
		for (size_t i = 0, d = 0; i < bytes / 4; i++) {
			while (d <= emu.opt.devices && !(m->accessed_by >> d & 1))
				d++;
			v[i] = d <= emu.opt.devices ? (int)d - 1 : CU_DEVICE_INVALID;
			d++;
		}
		return CUDA_SUCCESS;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult i_cuStreamAttachMemAsync(CUstream h, CUdeviceptr addr, size_t size, unsigned int flags)
{
	struct work w = { .kind = W_EMPTY };
	CUresult r;
	struct stream *s = stream_get(h, &r);

	if (!s || !range_of(addr, size ? size : 1))
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	return stream_submit(s, &w);
}
