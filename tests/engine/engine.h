/* SPDX-License-Identifier: MIT */
/* engine.h - the program's parts: load.c, launch.c, pass.c, graph.c, engine.c.
 *
 * Everything is the main thread's; what the driver refuses ends the program, with the
 * call and its error, so that no function returns one. Device memory lives until the process ends, but
 * for what gpu_close gives back.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stddef.h>

#include "tests/engine/driver.h"
#include "tests/engine/model.h"

enum where_to_run { RUN_GPU, RUN_CPU, RUN_BOTH };
enum alloc_how { ALLOC_EACH, ALLOC_ONE, ALLOC_ASYNC, ALLOC_MANAGED, ALLOC_VMM };
enum load_how { LOAD_SYNC, LOAD_ASYNC, LOAD_PINNED };
enum ref_how { REF_DIRECT, REF_STRUCT, REF_TABLE };
enum launch_how { LAUNCH_PARAMS, LAUNCH_EXTRA, LAUNCH_EX };
enum wait_how { WAIT_STREAM, WAIT_CONTEXT };
enum graph_how {
	GRAPH_OFF,
	GRAPH_DEVICE,		/* captured once, the step in device memory */
	GRAPH_PARAMS,		/* captured once, arguments set before a launch */
	GRAPH_UPDATE,		/* captured for each token, the first one updated */
	GRAPH_BUILD		/* made of nodes, arguments set before a launch */
};

/* Options; all uint64_t, for the table's sake. */
struct conf {
	uint64_t run, api, alloc, load, chunk, ref, launch, graph, streams;
	uint64_t prompt, batch, gen, seed, tolerance, report, wait;
};

enum kernel {
	K_NORM, K_ROPE, K_KEEP, K_ATTENTION, K_SWIGLU, K_CHOOSE,
	K_EMBED,				/* a row for each type from here */
	K_MATVEC = K_EMBED + W_TYPES, K_MATMUL = K_MATVEC + W_TYPES,
	K_MATVEC_REF = K_MATMUL + W_TYPES, K_MATMUL_REF = K_MATVEC_REF + W_TYPES,
	KERNELS = K_MATMUL_REF + W_TYPES
};

/* Streams of a pass: what is independent runs beside the main one. */
#define LANES_MAX	3

struct lane {
	CUstream stream;
	CUgraphNode last[LANES_MAX + 1];	/* while a graph is built */
	size_t n_last;
};

/* Arguments of a launch, as the driver's ABI lays them out. */
struct args {
	_Alignas(16) char bytes[256];
	void *at[16];
	size_t n, len;
};

struct gpu {
	const struct model *m;
	const struct conf *c;
	CUdevice device;
	CUcontext ctx;
	CUmodule module;
	CUfunction f[KERNELS];
	struct lane lane[LANES_MAX];
	CUevent fork, join[LANES_MAX];
	int ctx_len;			/* positions there is room for */
	CUdeviceptr *weight;		/* of tensor i */
	CUdeviceptr table;		/* the same addresses, on the device */
	CUdeviceptr keys, values, turns;
	CUdeviceptr x, y, q, k, v, att, gate, up, logits;
	CUdeviceptr state;		/* position, token, token... */
	float *host_logits;		/* pinned */
	int *host_state;
	CUgraph building;		/* nodes go here; NULL: launches are real */
	CUgraphExec exec;
	CUgraph graph;
	CUgraphNode *node;		/* of graph, kernels whose step changes */
	size_t n_nodes;
	int broken;			/* a fault was asked for: drop waits */
};

/* ---- load.c -------------------------------------------------------------------- */

/* Device, context, module, memory, weights. */
void gpu_open(struct gpu *g, const struct model *m, const struct conf *c,
	      int ctx_len);

/* Gives all memory back. */
void gpu_close(struct gpu *g);

/* ---- launch.c ------------------------------------------------------------------ */

extern const char *const kernel_name[KERNELS];

/* Appends an argument; exits when there is no room. */
void arg_put(struct args *a, const void *p, size_t size, size_t align);
void arg_ptr(struct args *a, CUdeviceptr p);
void arg_int(struct args *a, int v);
void arg_float(struct args *a, float v);

/* Launches, or adds a node to the graph that is built. */
void launch(struct gpu *g, int lane, int k, unsigned int gx, unsigned int gy,
	    unsigned int block, unsigned int shared, struct args *a);

/* What comes on LANE follows what is on lane 0 now; and the reverse. */
void lane_fork(struct gpu *g, int lane);
void lane_join(struct gpu *g, int lane);

/* ---- pass.c -------------------------------------------------------------------- */

/* TOKENS columns through the model; logits of the last one. The step says where. */
void pass(struct gpu *g, int tokens, struct step at);

/* Of a kernel, the argument that is its struct step; -1: it has none. */
int step_arg(int k);

/* ---- graph.c ------------------------------------------------------------------- */

/* One token by the graph, made at the first call. */
void graph_pass(struct gpu *g, struct step at);
void graph_close(struct gpu *g);

#endif
