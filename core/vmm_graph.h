/* SPDX-License-Identifier: MIT */
/* vmm_graph.h - what executable graphs read at the host, brought to the device by copies of
 * their own: part of core.h.
 *
 * A graph has slots in the device, in two banks or a few more, and views (vmm_views.c) of
 * regions with those slots in them. Which nodes copy what when is the caller's.
 */
#ifndef OFFLOAD_VMM_GRAPH_H
#define OFFLOAD_VMM_GRAPH_H

#include "core/vmm.h"

#include <stddef.h>

#define VMM_GRAPH_BANKS		2u
#define VMM_GRAPH_COPIES	8u	/* of a kernel */

/* OFFLOAD_STAGE=ahead: copies need not be behind all that their kernels are behind. */
bool vmm_stages_ahead(void);

struct vmm_graph;
struct vmm_copy { uint64_t to, from, len; };

/* What one kernel of a graph gets. */
struct vmm_graph_node {
	uint32_t view;			/* a number of the graph's */
	uint64_t base, len;		/* of the region */
	uint64_t idle;			/* 128 bytes that nobody reads, for copies that bring nothing */
	uint32_t n;			/* copies */
	struct vmm_copy copy[VMM_GRAPH_COPIES];
};

/* No slots yet. NULL: nothing is staged here, or there is no memory. Not while something
 * captures. Takes the turn. */
struct vmm_graph *vmm_graph_new(int dev, uintptr_t ctx);
/* A kernel with these words, which reads what is in the bank after the copies of *out are
 * done: l->arg[].other, l->changed. At most one region of it, and only what was shown to be
 * only read. False: it is to read in place. Takes the turn. */
bool vmm_graph_stage(struct vmm_graph *g, uint32_t bank, struct vmm_launch *l,
		     struct vmm_graph_node *out);
/* What the view shows may be written by now, or is no more: who has it is to be given the
 * region's own addresses before the next launch. Inside the gate. */
bool vmm_graph_stale(const struct vmm_graph *g, uint32_t view);
/* Nobody launches it any more; what is queued may still run. NULL: nothing. */
void vmm_graph_end(struct vmm_graph *g);
/* Bytes that its copies bring, at a launch; copies that were put into graphs. */
void vmm_graph_count(const struct vmm_graph *g, uint64_t bytes, uint32_t copies);

/* The library's own memory, zeroed, for who has none. NULL: none. */
void *vmm_zalloc(size_t bytes);
void vmm_zfree(void *at);

#endif
