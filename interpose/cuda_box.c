/* SPDX-License-Identifier: MIT */
/* cuda_box.c - copies across homes of different kinds, in pieces.
 *
 * (1) No driver says what a copy does whose range is partly in the device and partly in
 *     host memory: none is made. What lies in one kind goes in one call, as it came.
 * (2) A block is halved by layers, then by rows; a row is cut where kinds change.
 * (3) A copy of a capture is made again and again: its places stay as they are.
 * Lock: none; inside the gate, so kinds do not change meanwhile.
 */
#include "interpose/cuda_int.h"

static void stay(uint64_t at)
{
	struct device_region r;

	if (cuda_placed(at, &r))
		vmm_fix(r.placed);
}

uint64_t cuda_piece(uint64_t to, uint64_t from, uint64_t n)
{
	uint64_t a = vmm_run(to, n), b = vmm_run(from, n);

	if (vmm_captures()) {
		stay(to);
		stay(from);
	}
	return a < b ? a : b;
}

static uint64_t start(const struct cuda_side *s, const struct cuda_box *b)
{
	return s->at ? s->at + (b->z * s->height + b->y) * s->pitch + b->x : 0;
}

static bool even(const struct cuda_side *s, const struct cuda_box *b)
{
	uint64_t bytes = ((b->layers - 1) * s->height + b->rows - 1) * s->pitch + b->width;

	return !s->at || vmm_run(start(s, b), bytes) >= bytes;
}

static CUresult rows(struct cuda_box b, CUresult (*copy)(const struct cuda_box *, void *),
		     void *arg)
{
	uint64_t end = b.x + b.width;
	CUresult r = CUDA_SUCCESS;

	while (r == CUDA_SUCCESS && b.x < end) {
		b.width = cuda_piece(start(&b.to, &b), start(&b.from, &b), end - b.x);
		r = copy(&b, arg);
		b.x += b.width;
	}
	return r;
}

static CUresult parts(struct cuda_box b, CUresult (*copy)(const struct cuda_box *, void *),
		      void *arg)
{
	struct cuda_box second = b;
	CUresult r;

	if (even(&b.to, &b) && even(&b.from, &b))
		return copy(&b, arg);
	if (b.layers > 1) {
		b.layers /= 2;
		second.z += b.layers;
		second.layers -= b.layers;
	} else if (b.rows > 1) {
		b.rows /= 2;
		second.y += b.rows;
		second.rows -= b.rows;
	} else {
		return rows(b, copy, arg);
	}
	r = parts(b, copy, arg);
	return r == CUDA_SUCCESS ? parts(second, copy, arg) : r;
}

bool cuda_whole(const struct cuda_box *box)
{
	if (!box->width || !box->rows || !box->layers)
		return true;
	if (vmm_captures()) {
		stay(box->to.at);
		stay(box->from.at);
	}
	return even(&box->to, box) && even(&box->from, box);
}

CUresult cuda_parts(const struct cuda_box *box,
		    CUresult (*copy)(const struct cuda_box *part, void *arg), void *arg)
{
	if (!box->width || !box->rows || !box->layers)
		return copy(box, arg);
	return parts(*box, copy, arg);
}
