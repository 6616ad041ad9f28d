/* SPDX-License-Identifier: MIT */
/* vmm.c - handles of memory, and what is mapped where (E1, E2, E3).
 *
 * Owns handles and mappings. (1) A handle lives while the program holds it or a mapping
 * does; one handle may be mapped at several addresses. (2) Access is granted per mapping
 * and lost when it is unmapped. Lock: the emulator's.
 */
#include "tests/emu/emu.h"

struct handle {
	uintptr_t handle;	/* 0: released */
	uint64_t size, phys;
	CUmemAllocationProp prop;
	unsigned refs, maps;
};

struct mapping {
	uint64_t addr, size;
	struct handle *h;
	uint16_t bits;
	bool host;		/* the host has access, too */
};

static struct mapping *maps;	/* in order of addresses */
static unsigned n, room;

/* The first mapping that ends behind the address. */
static unsigned place(uint64_t addr)
{
	unsigned from = 0, to = n;

	while (from < to) {
		unsigned mid = (from + to) / 2;

		if (maps[mid].addr + maps[mid].size <= addr)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static bool granular(uint64_t x)
{
	return x % emu.opt.granularity == 0;
}

static bool on_device(const struct handle *h)
{
	return h->prop.location.type == CU_MEM_LOCATION_TYPE_DEVICE;
}

/* ---- reservations ------------------------------------------------------------- */

CUresult i_cuMemAddressReserve(CUdeviceptr *out, size_t size, size_t align, CUdeviceptr hint,
			       unsigned long long flags)
{
	struct range *r;

	if (!out || !size || !granular(size) || align & (align - 1) || flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (align < emu.opt.granularity)
		align = emu.opt.granularity;
	r = vm_reserve(size, align, hint, R_RESERVED);
	if (!r)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r->asked = size;
	*out = r->addr;
	return CUDA_SUCCESS;
}

CUresult i_cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
	struct range *r = vm_find(ptr);
	unsigned i = place(ptr);

	if (!r || r->kind != R_RESERVED || r->addr != ptr || r->size != size)
		return CUDA_ERROR_INVALID_VALUE;
	if (i < n && maps[i].addr < ptr + size)
		return CUDA_ERROR_INVALID_VALUE;
	vm_forget(r);
	return CUDA_SUCCESS;
}

/* ---- handles ------------------------------------------------------------------ */

static CUresult check_prop(const CUmemAllocationProp *p)
{
	if (!p || p->type != CU_MEM_ALLOCATION_TYPE_PINNED)
		return CUDA_ERROR_INVALID_VALUE;
	switch (p->location.type) {
	case CU_MEM_LOCATION_TYPE_DEVICE:
		return device_ok(p->location.id) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
	case CU_MEM_LOCATION_TYPE_HOST:
		if (emu.opt.driver < 13000)
			return CUDA_ERROR_INVALID_VALUE;
		return emu.opt.host_vmm ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
	case CU_MEM_LOCATION_TYPE_HOST_NUMA:
		if (p->location.id)
			return CUDA_ERROR_INVALID_VALUE;
		return emu.opt.host_vmm ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult i_cuMemGetAllocationGranularity(size_t *out, const CUmemAllocationProp *prop,
					 CUmemAllocationGranularity_flags option)
{
	CUresult r = check_prop(prop);

	if (!out || r)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	*out = emu.opt.granularity;
	return CUDA_SUCCESS;
}

CUresult i_cuMemCreate(CUmemGenericAllocationHandle *out, size_t size,
		       const CUmemAllocationProp *prop, unsigned long long flags)
{
	CUresult r = check_prop(prop);
	struct handle *h;

	if (!out || !size || !granular(size) || flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (r)
		return r;
	if (prop->requestedHandleTypes)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
	    !vm_take(prop->location.id, size))
		return CUDA_ERROR_OUT_OF_MEMORY;
	h = calloc(1, sizeof(*h));
	if (!h)
		abort();
	h->size = size;
	h->prop = *prop;
	h->refs = 1;
	h->phys = vm_phys_new(size);
	h->handle = obj_new(K_HANDLE, h);
	*out = h->handle;
	return CUDA_SUCCESS;
}

static void handle_put(struct handle *h)
{
	if (h->refs || h->maps)
		return;
	vm_phys_end(h->phys, h->size);
	if (on_device(h))
		vm_give(h->prop.location.id, h->size);
	free(h);
}

CUresult i_cuMemRelease(CUmemGenericAllocationHandle handle)
{
	struct handle *h = obj_get(K_HANDLE, (uintptr_t)handle);

	if (!h)
		return CUDA_ERROR_INVALID_VALUE;
	if (--h->refs)
		return CUDA_SUCCESS;
	obj_end(h->handle);
	h->handle = 0;
	handle_put(h);
	return CUDA_SUCCESS;
}

CUresult i_cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *out, void *addr)
{
	unsigned i = place((uintptr_t)addr);
	struct handle *h;

	if (!out || i == n || maps[i].addr > (uintptr_t)addr)
		return CUDA_ERROR_INVALID_VALUE;
	h = maps[i].h;
	if (!h->handle)
		h->handle = obj_new(K_HANDLE, h);
	h->refs++;
	*out = h->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
						  CUmemGenericAllocationHandle handle)
{
	const struct handle *h = obj_get(K_HANDLE, (uintptr_t)handle);

	if (!prop || !h)
		return CUDA_ERROR_INVALID_VALUE;
	*prop = h->prop;
	return CUDA_SUCCESS;
}

/* ---- mapping ------------------------------------------------------------------ */

/* EMU_MIX=0: a driver that refuses host and device memory in one reservation. */
static bool mixes(const struct range *r, const struct handle *h)
{
	for (unsigned i = place(r->addr); i < n && maps[i].addr < r->addr + r->size; i++)
		if (on_device(maps[i].h) != on_device(h))
			return true;
	return false;
}

CUresult i_cuMemMap(CUdeviceptr ptr, size_t size, size_t offset,
		    CUmemGenericAllocationHandle handle, unsigned long long flags)
{
	struct handle *h = obj_get(K_HANDLE, (uintptr_t)handle);
	const struct range *r = vm_find(ptr);
	unsigned i = place(ptr);

	if (!h || flags || !size || !granular(ptr) || !granular(size) || size > h->size)
		return CUDA_ERROR_INVALID_VALUE;
	if (offset || (size != h->size && !emu.opt.part))
		return CUDA_ERROR_NOT_SUPPORTED;	/* seen: driver 580 */
	if (!r || r->kind != R_RESERVED || size > r->addr + r->size - ptr)
		return CUDA_ERROR_INVALID_VALUE;
	if (i < n && maps[i].addr < ptr + size)
		return CUDA_ERROR_INVALID_VALUE;
	if (!emu.opt.mix && mixes(r, h))
		return CUDA_ERROR_INVALID_VALUE;
	if (vm_map(ptr, size, h->phys) < 0)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (n == room) {
		room = room ? 2 * room : 256;
		maps = realloc(maps, room * sizeof(*maps));
		if (!maps)
			abort();
	}
	memmove(maps + i + 1, maps + i, (n - i) * sizeof(*maps));
	maps[i] = (struct mapping){ .addr = ptr, .size = size, .h = h };
	n++;
	h->maps++;
	return CUDA_SUCCESS;
}

/* Mappings [*from, *to) are just this range, without holes. */
static bool whole(uint64_t ptr, uint64_t size, unsigned *from, unsigned *to)
{
	uint64_t at = ptr;
	unsigned i = place(ptr);

	*from = i;
	for (; i < n && at < ptr + size && maps[i].addr == at; i++)
		at += maps[i].size;
	*to = i;
	return size && at == ptr + size;
}

static CUresult reachable(const char *what, uint64_t ptr, uint64_t size)
{
	const struct op *op = op_reaching(ptr, size, NULL);

	if (!op)
		return CUDA_SUCCESS;
	ctx_fault(op->w.ctx, CUDA_ERROR_ILLEGAL_ADDRESS,
		  "E1: %s of %#llx+%#llx, which %s that is queued can reach", what,
		  (unsigned long long)ptr, (unsigned long long)size, work_name(&op->w));
	return CUDA_ERROR_ILLEGAL_ADDRESS;
}

CUresult i_cuMemUnmap(CUdeviceptr ptr, size_t size)
{
	unsigned from, to;
	CUresult r;

	if (!whole(ptr, size, &from, &to))
		return CUDA_ERROR_INVALID_VALUE;
	r = reachable("cuMemUnmap", ptr, size);
	if (r)
		return r;
	vm_unmap(ptr, size);
	for (unsigned i = from; i < to; i++) {
		if (maps[i].host)
			vm_host(maps[i].addr, maps[i].size, 0, false);
		maps[i].h->maps--;
		handle_put(maps[i].h);
	}
	memmove(maps + from, maps + to, (n - to) * sizeof(*maps));
	n -= to - from;
	return CUDA_SUCCESS;
}

/* ---- access ------------------------------------------------------------------- */

static CUresult check_access(const CUmemAccessDesc *d, unsigned from, unsigned to)
{
	if (d->flags != CU_MEM_ACCESS_FLAGS_PROT_NONE && d->flags != CU_MEM_ACCESS_FLAGS_PROT_READ &&
	    d->flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
		return CUDA_ERROR_INVALID_VALUE;
	switch (d->location.type) {
	case CU_MEM_LOCATION_TYPE_DEVICE:
		return device_ok(d->location.id) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
	case CU_MEM_LOCATION_TYPE_HOST:
	case CU_MEM_LOCATION_TYPE_HOST_NUMA:
		/* The host reaches host memory only. */
		for (unsigned i = from; i < to; i++)
			if (on_device(maps[i].h))
				return CUDA_ERROR_INVALID_VALUE;
		return CUDA_SUCCESS;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

static void grant(struct mapping *m, const CUmemAccessDesc *d)
{
	unsigned shift = 2 * (unsigned)d->location.id;

	if (d->location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
		m->bits &= (uint16_t)~(3u << shift);
		m->bits |= (uint16_t)((unsigned)d->flags << shift);
		vm_access(m->addr, m->size, m->bits);
		return;
	}
	m->host = d->flags != CU_MEM_ACCESS_FLAGS_PROT_NONE;
	vm_host(m->addr, m->size, m->h->phys, m->host);
}

static bool takes_away(const struct mapping *m, const CUmemAccessDesc *d)
{
	unsigned now = m->bits >> 2 * (unsigned)d->location.id & 3;

	return d->location.type == CU_MEM_LOCATION_TYPE_DEVICE && now & ~(unsigned)d->flags;
}

CUresult i_cuMemSetAccess(CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count)
{
	bool less = false;
	unsigned from, to;
	CUresult r;

	if (!desc || !count || !whole(ptr, size, &from, &to))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t d = 0; d < count; d++) {
		r = check_access(&desc[d], from, to);
		if (r)
			return r;
		for (unsigned i = from; i < to; i++)
			less |= takes_away(&maps[i], &desc[d]);
	}
	r = less ? reachable("cuMemSetAccess", ptr, size) : CUDA_SUCCESS;
	if (r)
		return r;
	for (size_t d = 0; d < count; d++)
		for (unsigned i = from; i < to; i++)
			grant(&maps[i], &desc[d]);
	return CUDA_SUCCESS;
}

CUresult i_cuMemGetAccess(unsigned long long *flags, const CUmemLocation *where, CUdeviceptr ptr)
{
	unsigned i = place(ptr);

	if (!flags || !where || i == n || maps[i].addr > ptr)
		return CUDA_ERROR_INVALID_VALUE;
	if (where->type != CU_MEM_LOCATION_TYPE_DEVICE)
		*flags = maps[i].host ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : 0;
	else if (!device_ok(where->id))
		return CUDA_ERROR_INVALID_DEVICE;
	else
		*flags = maps[i].bits >> 2 * (unsigned)where->id & 3;
	return CUDA_SUCCESS;
}

/* ---- for pointer attributes --------------------------------------------------- */

int vmm_place(uint64_t addr, CUmemLocation *where)
{
	unsigned i = place(addr);

	if (i == n || maps[i].addr > addr)
		return -1;
	*where = maps[i].h->prop.location;
	return 0;
}

bool vmm_range(uint64_t addr, uint64_t *base, uint64_t *size)
{
	unsigned i = place(addr);

	if (i == n || maps[i].addr > addr)
		return false;
	*base = maps[i].addr;
	*size = maps[i].size;
	return true;
}

bool vmm_both(uint64_t addr, uint64_t size)
{
	bool device = false, host = false;

	for (unsigned i = place(addr); i < n && maps[i].addr < addr + size; i++)
		*(on_device(maps[i].h) ? &device : &host) = true;
	return device && host;
}
