/* SPDX-License-Identifier: MIT */
/* launch.c - kernels, launched or put into a graph.
 *
 * Owns the names of the kernels; lock: none.
 * (1) A pass is written once: whether it runs, is captured or becomes nodes is
 *     decided here, and the edges between nodes are those that streams would make.
 */
#include "tests/engine/engine.h"

#include <string.h>

const char *const kernel_name[KERNELS] = {
	[K_NORM] = "rmsnorm", [K_ROPE] = "rope", [K_KEEP] = "keep",
	[K_ATTENTION] = "attention", [K_SWIGLU] = "swiglu",
	[K_CHOOSE] = "choose",
#define FOR_TYPE(T, name)					\
	[K_EMBED + T] = "embed_" name,				\
	[K_MATVEC + T] = "matvec_" name,			\
	[K_MATMUL + T] = "matmul_" name,			\
	[K_MATVEC_REF + T] = "matvec_ref_" name,		\
	[K_MATMUL_REF + T] = "matmul_ref_" name,
	FOR_TYPE(W_F32, "f32") FOR_TYPE(W_F16, "f16")
	FOR_TYPE(W_BF16, "bf16") FOR_TYPE(W_Q8_0, "q8_0")
};

void arg_put(struct args *a, const void *p, size_t size, size_t align)
{
	a->len = (a->len + align - 1) & ~(align - 1);
	if (a->len + size > sizeof(a->bytes) || a->n == 16)
		die("too many arguments");
	a->at[a->n++] = a->bytes + a->len;
	memcpy(a->bytes + a->len, p, size);
	a->len += size;
}

void arg_ptr(struct args *a, CUdeviceptr p)
{
	arg_put(a, &p, sizeof(p), sizeof(p));
}

void arg_int(struct args *a, int v)
{
	arg_put(a, &v, sizeof(v), sizeof(v));
}

void arg_float(struct args *a, float v)
{
	arg_put(a, &v, sizeof(v), sizeof(v));
}

static void add_node(struct gpu *g, struct lane *l,
		     const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	CUgraphNode node;

	ck(cuGraphAddKernelNode(&node, g->building, l->last, l->n_last, p));
	l->last[0] = node;
	l->n_last = 1;
}

static void launch_ex(const CUDA_KERNEL_NODE_PARAMS_v1 *p, CUstream s)
{
	CUlaunchConfig c = {
		.gridDimX = p->gridDimX, .gridDimY = p->gridDimY, .gridDimZ = 1,
		.blockDimX = p->blockDimX, .blockDimY = 1, .blockDimZ = 1,
		.sharedMemBytes = p->sharedMemBytes, .hStream = s,
	};

	if (!drv.cuLaunchKernelEx)
		die("the driver has no cuLaunchKernelEx");
	ck(cuLaunchKernelEx(&c, p->func, p->kernelParams, NULL));
}

void launch(struct gpu *g, int lane, int k, unsigned int gx, unsigned int gy,
	    unsigned int block, unsigned int shared, struct args *a)
{
	struct lane *l = &g->lane[lane];
	CUDA_KERNEL_NODE_PARAMS_v1 p = {
		.func = g->f[k], .gridDimX = gx, .gridDimY = gy, .gridDimZ = 1,
		.blockDimX = block, .blockDimY = 1, .blockDimZ = 1,
		.sharedMemBytes = shared, .kernelParams = a->at,
	};
	void *packed[] = {
		CU_LAUNCH_PARAM_BUFFER_POINTER, a->bytes,
		CU_LAUNCH_PARAM_BUFFER_SIZE, &a->len, CU_LAUNCH_PARAM_END,
	};

	if (g->building)
		add_node(g, l, &p);
	else if (g->c->launch == LAUNCH_EX)
		launch_ex(&p, l->stream);
	else if (g->c->launch == LAUNCH_EXTRA)
		ck(cuLaunchKernel(p.func, gx, gy, 1, block, 1, 1, shared,
				  l->stream, NULL, packed));
	else
		ck(cuLaunchKernel(p.func, gx, gy, 1, block, 1, 1, shared,
				  l->stream, p.kernelParams, NULL));
}

void lane_fork(struct gpu *g, int lane)
{
	struct lane *from = &g->lane[0], *to = &g->lane[lane];

	if (lane == 0)
		return;
	if (g->building) {
		memcpy(to->last, from->last, sizeof(to->last));
		to->n_last = from->n_last;
		return;
	}
	ck(cuEventRecord(g->fork, from->stream));
	ck(cuStreamWaitEvent(to->stream, g->fork, 0));
}

void lane_join(struct gpu *g, int lane)
{
	struct lane *to = &g->lane[0], *from = &g->lane[lane];

	if (lane == 0)
		return;
	if (g->building) {
		to->last[to->n_last++] = from->last[0];
		return;
	}
	ck(cuEventRecord(g->join[lane], from->stream));
	if (!g->broken)
		ck(cuStreamWaitEvent(to->stream, g->join[lane], 0));
}
