/* SPDX-License-Identifier: MIT */
/* mem.c - device allocations, and what pointers are said to be.
 *
 * Owns nothing beside its ranges (vm.c). (1) A free waits for the work of its device, as
 * the real driver is seen to, and programs rely on. (2) Nothing is packed together: an
 * overrun of a page is an illegal access (E3). Lock: the emulator's.
 */
#include "tests/emu/emu.h"

#define PITCH	512u

static CUresult alloc(CUdeviceptr *out, size_t size)
{
	struct ctx *c = ctx_current();
	struct range *r;
	CUresult err;

	if (!out || !size)
		return CUDA_ERROR_INVALID_VALUE;
	if (!c)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (size > emu.opt.vram)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r = vm_reserve(round_up(size, EMU_PAGE),
		       size >= emu.opt.granularity ? emu.opt.granularity : EMU_PAGE, 0, R_ALLOC);
	if (!r)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r->asked = size;
	r->ctx = c;
	err = vm_back(r, c->device);
	if (err) {
		vm_forget(r);
		return err;
	}
	vm_show(r);
	*out = r->addr;
	return CUDA_SUCCESS;
}

CUresult i_cuMemAlloc_v2(CUdeviceptr *out, size_t size)
{
	return alloc(out, size);
}

CUresult i_cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width, size_t height,
			      unsigned int element)
{
	CUresult r;

	if (!pitch || (element != 4 && element != 8 && element != 16))
		return CUDA_ERROR_INVALID_VALUE;
	r = alloc(out, round_up(width, PITCH) * height);
	if (!r)
		*pitch = round_up(width, PITCH);
	return r;
}

CUresult i_cuMemFree_v2(CUdeviceptr ptr)
{
	struct host_range h;
	struct range *r;
	const struct op *op;

	if (!ptr)
		return CUDA_SUCCESS;
	if (host_find(ptr, &h) && h.kind == H_MANAGED && h.addr == ptr) {
		ctx_wait(h.ctx);
		host_remove(ptr, H_MANAGED, &h);
		managed_end(h.managed);
		return CUDA_SUCCESS;
	}
	r = vm_find(ptr);
	if (!r || r->addr != ptr || (r->kind != R_ALLOC && r->kind != R_ASYNC) || r->freeing)
		return CUDA_ERROR_INVALID_VALUE;
	r->freeing = true;
	device_wait(r->device);
	while ((op = op_reaching(ptr, r->size, NULL)))
		op_wait((struct op *)op);
	if (r->kind == R_ASYNC) {
		async_end(r);
		return CUDA_SUCCESS;
	}
	vm_unback(r);
	vm_forget(r);
	return CUDA_SUCCESS;
}

CUresult i_cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
	const struct ctx *c = ctx_current();

	if (!c)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (free_bytes)
		*free_bytes = emu.opt.vram - emu.dev[c->device].used;
	if (total)
		*total = emu.opt.vram;
	return CUDA_SUCCESS;
}

/* ---- what a pointer is ------------------------------------------------------------------- */

struct place {
	uint64_t base, size, id;
	struct ctx *ctx;
	int device;
	CUmemorytype type;
	bool managed, vmm, host;
	unsigned flags;
	struct pool *pool;
};

static bool look(uint64_t ptr, struct place *p)
{
	const struct range *r;
	struct host_range h;
	CUmemLocation where;

	*p = (struct place){ .type = CU_MEMORYTYPE_DEVICE };
	if (host_find(ptr, &h)) {
		p->base = h.addr;
		p->size = h.size;
		p->id = h.id;
		p->ctx = h.ctx;
		p->device = h.ctx->device;
		p->managed = h.kind == H_MANAGED;
		p->type = p->managed ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
		p->host = true;
		p->flags = h.flags;
		return true;
	}
	r = vm_is_device(ptr) ? vm_find(ptr) : NULL;
	if (!r)
		return false;
	p->base = r->addr;
	p->size = r->asked;
	p->id = r->id;
	p->ctx = r->ctx;
	p->device = r->device;
	p->pool = r->pool;
	if (r->kind != R_RESERVED)
		return true;
	p->vmm = true;
	if (vmm_place(ptr, &where) < 0)
		return false;
	if (where.type == CU_MEM_LOCATION_TYPE_DEVICE)
		p->device = where.id;
	else
		p->type = CU_MEMORYTYPE_HOST;
	return vmm_range(ptr, &p->base, &p->size);
}

CUresult i_cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr ptr)
{
	struct place p;

	if (!look(ptr, &p) || (p.host && !p.managed))
		return CUDA_ERROR_INVALID_VALUE;
	if (base)
		*base = p.base;
	if (size)
		*size = p.size;
	return CUDA_SUCCESS;
}

static CUresult attribute(void *out, CUpointer_attribute a, uint64_t ptr, const struct place *p,
			  bool known)
{
	if (a == CU_POINTER_ATTRIBUTE_IS_MANAGED || a == CU_POINTER_ATTRIBUTE_MAPPED) {
		*(int *)out = known && (a == CU_POINTER_ATTRIBUTE_MAPPED || p->managed);
		return CUDA_SUCCESS;
	}
	if (!known)
		return CUDA_ERROR_INVALID_VALUE;
	switch (a) {
	case CU_POINTER_ATTRIBUTE_CONTEXT:
		if (!p->ctx)
			return CUDA_ERROR_INVALID_VALUE;
		*(CUcontext *)out = (CUcontext)p->ctx->handle;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
		*(unsigned *)out = p->type;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
		*(CUdeviceptr *)out = ptr;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
		if (!p->host)
			return CUDA_ERROR_INVALID_VALUE;
		*(void **)out = (void *)(uintptr_t)ptr;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
		*(int *)out = 0;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
		*(unsigned long long *)out = p->id;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
		*(int *)out = p->device;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
		*(int *)out = !p->vmm && !p->host && !p->pool;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
		*(CUdeviceptr *)out = p->base;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
		*(size_t *)out = p->size;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
		*(unsigned long long *)out = 0;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
		*(unsigned *)out = CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
		*(CUmemoryPool *)out = p->pool ? (CUmemoryPool)p->pool->handle : NULL;
		return CUDA_SUCCESS;
	default:
		return CUDA_ERROR_NOT_SUPPORTED;
	}
}

CUresult i_cuPointerGetAttribute(void *out, CUpointer_attribute a, CUdeviceptr ptr)
{
	struct place p;
	bool known = look(ptr, &p);

	return out ? attribute(out, a, ptr, &p, known) : CUDA_ERROR_INVALID_VALUE;
}

/* What an attribute that a pointer has not got reads as is zero. */
CUresult i_cuPointerGetAttributes(unsigned int n, CUpointer_attribute *a, void **out,
				  CUdeviceptr ptr)
{
	struct place p;
	bool known = look(ptr, &p);

	if (!a || !out)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < n; i++) {
		size_t bytes = a[i] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE ||
			       a[i] == CU_POINTER_ATTRIBUTE_SYNC_MEMOPS ||
			       a[i] == CU_POINTER_ATTRIBUTE_IS_MANAGED ||
			       a[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL ||
			       a[i] == CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE ||
			       a[i] == CU_POINTER_ATTRIBUTE_MAPPED ||
			       a[i] == CU_POINTER_ATTRIBUTE_ACCESS_FLAGS ? 4 : 8;

		if (attribute(out[i], a[i], ptr, &p, known) == CUDA_SUCCESS)
			continue;
		memset(out[i], 0, bytes);
		if (a[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
			*(int *)out[i] = CU_DEVICE_INVALID;
	}
	return CUDA_SUCCESS;
}

CUresult i_cuPointerSetAttribute(const void *value, CUpointer_attribute a, CUdeviceptr ptr)
{
	struct place p;

	if (!value || a != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || !look(ptr, &p) || p.host || p.vmm)
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

CUresult i_cuIpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr ptr)
{
	struct place p;

	if (!out || !look(ptr, &p) || p.vmm || p.host || p.pool)
		return CUDA_ERROR_INVALID_VALUE;
	memset(out, 0, sizeof(*out));
	memcpy(out->reserved, &p.id, sizeof(p.id));
	return CUDA_SUCCESS;
}
