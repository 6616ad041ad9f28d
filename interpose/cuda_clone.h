/* SPDX-License-Identifier: MIT */
/* cuda_clone.h - executable graphs that we know more of than the program: cuda_clone.c, for
 * cuda_graph.c. Calls for one executable graph are the program's, which makes one at a
 * time; else any thread. */
#ifndef OFFLOAD_CUDA_CLONE_H
#define OFFLOAD_CUDA_CLONE_H

#include "interpose/cuda_launch.h"

struct cuda_exec;

/* Before the graph is instantiated: *use is the graph to instantiate, g itself or a copy of it
 * with more nodes. stages: it may be a copy. NULL: nothing is to be remembered, *use is g. */
struct cuda_exec *cuda_exec_begin(CUgraph g, bool stages, CUgraph *use);
/* It was. False: *use cannot be what runs; exec is destroyed, e is gone, g is to be
 * instantiated. NULL: true. */
bool cuda_exec_made(struct cuda_exec *e, CUgraph g, CUgraphExec exec);
/* It was refused, or never tried. NULL: nothing. */
void cuda_exec_drop(struct cuda_exec *e);

/* Before it is destroyed: it is nobody's any more; what this gives is for cuda_exec_drop, after
 * it. */
struct cuda_exec *cuda_exec_forget(CUgraphExec exec);

/* What a node of the program's graph is called in the executable one. */
CUgraphNode cuda_exec_node(CUgraphExec exec, CUgraphNode node);

/* Inside the gate, before a launch. Captured: it becomes part of another graph, which
 * may run beside it. CUDA_SUCCESS, or the driver's: it cannot be launched. */
CUresult cuda_exec_launching(CUgraphExec exec, bool captured);
/* It was launched: its uses are counted. */
void cuda_exec_launched(CUgraphExec exec);

/* A kernel node is to have these parameters (v2: of that form; else its fields of v1). */
CUresult cuda_exec_set(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2 *p,
		       bool v2);

/* Before an update by g: what to update by instead, g itself if it is none of ours. */
struct cuda_update { struct cuda_exec *e; CUgraph g, use; };
void cuda_update_begin(struct cuda_update *u, CUgraphExec exec, CUgraph g);
/* r: what the driver said; *bad, if not NULL: the node it named becomes the program's.
 * Returns what to say. */
CUresult cuda_update_end(struct cuda_update *u, CUresult r, CUgraphNode *bad);

#endif
