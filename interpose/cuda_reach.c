/* SPDX-License-Identifier: MIT */
/* cuda_reach.c - what calls can touch, for core/vmm_reach.c (OFFLOAD_DEVICE_DEEP=1).
 *
 * (1) While nothing can be spilled all of this is the gate alone.
 * (2) What a stream captures touches nothing yet: a copy of it has homes and keeps them
 *     (cuda_box.c), a kernel of it is looked at when its graph is launched (cuda_replay.c).
 * Lock: none.
 */
#include "interpose/cuda_int.h"

static CUresult gate(bool *in)
{
	*in = vmm_enter();
	return CUDA_SUCCESS;
}

CUresult cuda_enter_bytes(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len, bool *in)
{
	struct vmm_reach w;

	if (!cuda_deep())	/* (1) */
		return gate(in);
	vmm_reach_none(&w);
	if (a_len)
		vmm_reach_add(&w, a, a_len);
	if (b_len)
		vmm_reach_add(&w, b, b_len);
	return cuda_enter(&w, in);
}

CUresult cuda_enter_any(bool *in)
{
	struct vmm_reach w;

	if (!cuda_deep())
		return gate(in);
	vmm_reach_none(&w);
	w.all = true;
	return cuda_enter(&w, in);
}

CUresult cuda_enter_kernel(CUfunction f, void *const *params, void *const *extra, bool captured,
			   bool *in)
{
	struct vmm_reach w;

	if (!cuda_deep() || captured || !f)
		return gate(in);
	cuda_kernel_reach(f, params, extra, &w);
	return cuda_enter(&w, in);
}

CUresult cuda_enter_piece(uint64_t to, uint64_t from, size_t *n, bool *in)
{
	uint64_t a = vmm_in_extent(to, *n), b = vmm_in_extent(from, *n);
	CUresult r;

	*n = a < b ? a : b;
	r = cuda_enter_bytes(to, *n, from, *n, in);
	if (r == CUDA_SUCCESS && *in)
		*n = cuda_piece(to, from, *n);
	return r;
}

static uint64_t side_bytes(const struct cuda_side *s, const struct cuda_box *b)
{
	if (!s->at || !b->width || !b->rows || !b->layers)
		return 0;
	return ((b->layers - 1) * s->height + b->rows - 1) * s->pitch + b->width;
}

CUresult cuda_enter_box(const struct cuda_box *b, bool *in)
{
	return cuda_enter_bytes(b->to.at, side_bytes(&b->to, b), b->from.at,
				side_bytes(&b->from, b), in);
}

/* What is known nowhere is the host's, or a device's by a way that is not hooked. */
static bool readable(uint64_t at)
{
	struct device_region d;
	CUmemorytype type = CU_MEMORYTYPE_HOST;

	return !at || device_find(at, &d) || !REAL(cuPointerGetAttribute) ||
	       REAL(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at) !=
	       CUDA_SUCCESS || type == CU_MEMORYTYPE_HOST;
}

void cuda_points(uint64_t to, uint64_t from, bool host, uint64_t bytes, bool now)
{
	if (host && readable(from))
		vmm_points(to, (const void *)(uintptr_t)from, bytes, now);
	else
		vmm_points_moved(to, from, bytes, now);
}

void cuda_box_points(const struct cuda_box *b, const void *host, uint64_t pitch, uint64_t height,
		     bool now)
{
	for (uint64_t z = 0; host && b->to.at && z < b->layers; z++)
		for (uint64_t y = 0; y < b->rows; y++)
			vmm_points(b->to.at + (z * b->to.height + y) * b->to.pitch,
				   (const char *)host + (z * height + y) * pitch, b->width, now);
}

CUresult cuda_keep(CUdeviceptr at)
{
	struct vmm_reach w = { .n = 0 };
	struct device_region d;
	CUresult r = CUDA_SUCCESS;
	bool in = false;

	if (!cuda_placed(at, &d))
		return r;
	if (cuda_deep()) {
		vmm_reach_add(&w, d.base, d.len);
		r = cuda_enter(&w, &in);
	}
	if (r == CUDA_SUCCESS)
		vmm_fix(d.placed);
	vmm_leave(in);
	return r;
}
