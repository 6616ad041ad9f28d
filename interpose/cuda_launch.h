/* SPDX-License-Identifier: MIT */
/* cuda_launch.h - what launches (cuda_launch.c) and graphs (cuda_graph.c, cuda_clone.c) share.
 * Any thread; no lock. */
#ifndef OFFLOAD_CUDA_LAUNCH_H
#define OFFLOAD_CUDA_LAUNCH_H

#include "interpose/cuda_int.h"

/* The handle of a launch is a kernel of no context; *library: whose. */
bool cuda_is_kernel(const void *f, uintptr_t *library);
/* It is one from now on, of that library or one not known. */
void cuda_note_kernel(CUkernel k, CUlibrary l);

/* Before the call: a launch on the stream, or DEVICE_NODE, and what its arguments reach. */
void cuda_look_at_args(CUfunction f, uintptr_t stream, void *const *params, void *const *extra);
/* The same of a graph's kernel, which is launched again and again past us: what it may write
 * is never staged. */
void cuda_kept_by_graph(CUfunction f, void *const *params, void *const *extra);
/* The words of the arguments that are addresses of regions. False: nothing is known of
 * them. */
bool cuda_read_words(struct vmm_launch *l, const struct device_fn *fn, void *const *params,
		     void *const *extra);

/* Arguments of a launch, some of them others than the program's. */
struct cuda_staging {
	struct vmm_launch l;
	const struct device_fn *fn;
	struct device_patched to;
	size_t bytes;
	void *extra[5];
};
/* *params and *extra are g's, with l's other values. False: there are too many; nothing was
 * changed. They hold while g does. */
bool cuda_patch(struct cuda_staging *g, void ***params, void ***extra);
#endif
