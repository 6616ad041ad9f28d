/* SPDX-License-Identifier: MIT */
/* random.h - a random program on the CUDA driver API, and a model of its memory.
 *
 *   plan.c: from the seed, operations, one after the other; model.c does each to the
 *   model at once; run.c does them on the device, in several threads and streams;
 *   mem.c: allocations; random.c: options, compares the memory with the model.
 *
 *  1. Operations are done as if one after the other: of two that touch a byte, one
 *     writing, the later waits for the earlier (event, or by the host). What does
 *     not touch the same bytes is not ordered.
 *  2. A segment is planned whole, then run. Between segments everything is done,
 *     and all memory is compared.
 *  3. The plan depends on the seed and the options, not on addresses, pitches,
 *     granularities or time.
 *  4. What the driver refuses ends the program, with the call and its error: none of
 *     these functions returns one.
 *
 * Lock: `issued` of an operation is under run.c's lock; the rest is the planner's,
 * and while a segment runs read-only, but for what an operation's own thread fills.
 */
#ifndef ENGINE_RANDOM_H
#define ENGINE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#include "tests/engine/driver.h"
#include "tests/engine/random_body.h"

#define DEVICES_MAX	2
#define STREAMS_MAX	8
#define THREADS_MAX	8
#define BUFS_MAX	400
#define GRAPHS_MAX	40
#define OPS_MAX		64	/* of a segment */
#define SUBS_MAX	6	/* operations of a graph */
#define GRANULES_MAX	4	/* handles of a mapping of our own */

enum family {
	FAM_ALLOC, FAM_PITCH, FAM_ASYNC, FAM_POOL, FAM_MANAGED, FAM_VMM,
	FAM_PINNED, FAM_REGISTERED, FAM_PAGEABLE, FAMILIES
};

#define FAM_HOST	FAM_PINNED	/* from here on */

struct buf {
	enum family family;
	int alive, dev;
	int born, died;		/* segments; later ones have it in their tables */
	int moved;		/* the segment in which it last moved */
	size_t bytes;		/* the model's */
	size_t width;		/* of a row; bytes, but for FAM_PITCH */
	uint8_t *model;
	/* Filled when it is allocated: */
	CUdeviceptr addr;	/* 0: pageable */
	CUdeviceptr alias;	/* a second mapping, or 0 */
	void *host;
	size_t pitch, granule;
	int granules;
	CUmemGenericAllocationHandle handle[GRANULES_MAX];
};

enum kind {
	OP_ALLOC, OP_FREE, OP_MOVE, OP_COPY, OP_COPY2D, OP_COPY3D, OP_SET, OP_SET2D,
	OP_KERNEL, OP_HOSTFN, OP_TOUCH, OP_GRAPH, OP_RELAUNCH, OP_QUERY, KINDS
};

struct access {
	int buf, write;
	size_t off, len;
};

/* One side of a copy: from OFF, rows of PITCH, slices of HEIGHT rows. */
struct side {
	int buf;
	size_t off, x, y, z, pitch, height;
};

struct op {
	enum kind kind;
	int thread, dev;
	int stream;		/* of dev; see stream_of */
	int how;		/* random bits: which of the calls that do the same */
	int body, mode;
	int beside;		/* in a graph: independent of the one before */
	int launches, graph;
	uint32_t a;
	int elem;		/* bytes of a memset's value */
	struct side d, s, s1;
	size_t w, h, depth;	/* w: of 1D operations, the bytes */
	struct op *sub;
	int n_sub;
	struct access acc[3 * SUBS_MAX];
	int n_acc;
	/* Running: */
	int dep[OPS_MAX], n_dep;
	int issued, has_event;
	CUevent event;
};

struct graph {
	int dev, alive;
	int died;		/* segment */
	struct op sub[SUBS_MAX];
	int n_sub, built;
	CUgraph graph;
	CUgraphExec exec;
	CUgraphNode node[SUBS_MAX];
};

struct conf {
	uint64_t seed, count, ops, budget, threads, streams, devices, api, modes, largest, log;
};

struct world {
	const struct conf *c;
	uint64_t rng;
	int devices, segment;
	CUcontext ctx[DEVICES_MAX];
	CUmodule module[DEVICES_MAX][2];	/* the second: for MODE_HIDDEN */
	CUfunction kernel[DEVICES_MAX][BODIES][MODES];
	CUstream stream[DEVICES_MAX][STREAMS_MAX];
	CUmemoryPool pool[DEVICES_MAX];
	CUdeviceptr table[DEVICES_MAX];		/* addresses by number of buffer */
	CUdeviceptr blocks[DEVICES_MAX];	/* struct operands by number of op */
	CUdeviceptr hidden[DEVICES_MAX];	/* the same, the module's variable */
	struct operands *staged;		/* pinned, what either gets */
	struct buf buf[BUFS_MAX];
	int n_buf;
	size_t live;				/* bytes of the model's */
	struct graph graph[GRAPHS_MAX];
	int n_graph;
	struct op *op;				/* OPS_MAX of them */
	int n_op;
	int drop_waits, drop_op;		/* TEST_BREAK */
	uint64_t hash;
};

/* ---- random_plan.c ------------------------------------------------------------- */

/* Plans a segment of N operations, OPS_MAX at most; the model is as after them. Main
 * thread, nothing running. */
void plan_segment(struct world *w, int n);

/* The same, of frees alone: of everything, or of OPS_MAX buffers. */
void plan_end(struct world *w);

/* The generator's; main thread. */
uint64_t random_next(struct world *w);

/* From 0 to n - 1; n at least 1. */
uint64_t random_below(struct world *w, uint64_t n);

/* ---- random_model.c ------------------------------------------------------------ */

/* What a new buffer holds at byte I. */
uint8_t first_byte(uint32_t a, size_t i);

/* The operation, done to the model at once. Main thread, nothing running. */
void model_do(struct world *w, const struct op *o);

/* ---- random_mem.c -------------------------------------------------------------- */

/* Each in the thread that issues O, on stream S where the family knows streams; what O
 * depends on is waited for already. */
void mem_alloc(struct world *w, struct op *o, CUstream s);
void mem_free(struct world *w, const struct op *o, CUstream s);
void mem_move(struct world *w, const struct op *o);

/* True: it goes in the order of a stream. */
int free_is_async(const struct buf *b, const struct op *o);

/* Of the model's byte OFF; HOW chooses between two mappings. */
CUdeviceptr mem_at(const struct buf *b, size_t off, int how);

/* ---- random_copy.c ------------------------------------------------------------- */

/* Each in the thread that issues O; on S, unless op_is_sync. */
void do_copy(struct world *w, const struct op *o, CUstream s);
void do_copy2d(struct world *w, const struct op *o, CUstream s);
void do_copy3d(struct world *w, const struct op *o, CUstream s);
void do_set(struct world *w, const struct op *o, CUstream s);
void do_set2d(struct world *w, const struct op *o, CUstream s);

/* True: the call takes no stream, and goes to the legacy one. */
int op_is_sync(const struct op *o);

/* ---- random_run.c -------------------------------------------------------------- */

/* Runs the segment; returns when all of it is done. */
void run_segment(struct world *w);

/* ---- random_kernel.c ----------------------------------------------------------- */

extern const char *const body_name[BODIES], *const mode_name[MODES];

/* Each in the thread that issues O, on S. NUMBER of the op: its place among the
 * structs in device memory. */
void do_kernel(struct world *w, const struct op *o, int number, CUstream s);
void do_graph(struct world *w, struct op *o, CUstream s);
void do_relaunch(struct world *w, struct op *o, CUstream s);
/* Main thread, nothing running. */
void graph_drop(struct graph *g);

#endif
