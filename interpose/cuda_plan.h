/* SPDX-License-Identifier: MIT */
/* cuda_plan.h - a graph as it stands: its nodes, what they depend on, and an order of them
 * that keeps that (cuda_plan.c). One thread's; no lock. */
#ifndef OFFLOAD_CUDA_PLAN_H
#define OFFLOAD_CUDA_PLAN_H

#include "interpose/cuda_launch.h"

struct cuda_plan {
	uint32_t n, m;			/* nodes, dependencies */
	CUgraphNode *node;
	CUgraphNodeType *type;
	uint32_t *first, *before;	/* node i is behind before[first[i]] to before[first[i + 1]] */
	uint32_t *order;
};

/* False: it is too large, or cannot be read; *p holds nothing then. order: it and what
 * depends on what are wanted. */
bool cuda_plan_read(struct cuda_plan *p, CUgraph g, bool order);
void cuda_plan_end(struct cuda_plan *p);

/* A kernel node's parameters, as the driver tells them: they hold until it is changed. */
struct cuda_kernel {
	CUDA_KERNEL_NODE_PARAMS_v2 p;
	bool v2;			/* kern and ctx are there, too */
	const struct device_fn *fn;	/* NULL: not known */
};
bool cuda_kernel_read(CUgraphNode node, struct cuda_kernel *k);
CUresult cuda_kernel_set(CUgraphNode node, const struct cuda_kernel *k);
CUresult cuda_kernel_exec_set(CUgraphExec exec, CUgraphNode node, const struct cuda_kernel *k);

#endif
