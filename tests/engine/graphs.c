/* SPDX-License-Identifier: MIT */
/* graphs.c - what a program may do with a graph whose kernels read weights.
 *
 *     graphs [--seed N] [--bytes N] [--contexts N]
 *
 * Kernels read each of eight buffers again and again, then graphs of them are made, launched,
 * changed, updated, captured, run side by side; buffers are filled anew and freed meanwhile.
 * All that in each of so many contexts, one after the other, all memory freed before it ends;
 * where there are several what was only read is written, too, and work of yet another waits.
 * Prints a hash after each: what the library may not change.
 * Status: 0; 1 something is wrong, as a graph that is not what the program made; 77 there is no
 * device.
 * (1) What it prints depends on its options alone.
 * Owns all of it; lock: none.
 */
#include "tests/engine/driver.h"
#include "tests/engine/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MANY	8
#define THREADS	64

static uint64_t seed = 1, bytes = 16384, contexts = 1;

static const struct option_row rows[] = {
	{ "seed", &seed, NULL, 0, UINT64_MAX, "of what is in memory" },
	{ "bytes", &bytes, NULL, 4096, 1 << 30, "of a buffer" },
	{ "contexts", &contexts, NULL, 1, 100, "one after the other" },
	{ NULL, NULL, NULL, 0, 0, NULL }
};

#define SUMS	3

static CUdeviceptr buffer[MANY], sum[SUMS];
static CUfunction fold;
static CUstream stream[SUMS];
static int words;

static unsigned int draw(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned int)(seed >> 32);
}

static void fill(CUdeviceptr at)
{
	unsigned int *w = malloc(bytes);

	if (!w)
		exit(1);
	for (uint64_t k = 0; k < bytes / 4; k++)
		w[k] = draw();
	ck(cuMemcpyHtoD_v2(at, w, bytes));
	free(w);
}

static void start(void)
{
	unsigned int zero[THREADS] = { 0 };
	CUmodule module;

	module = first_device("skew.ptx");
	ck(cuModuleGetFunction(&fold, module, "fold"));
	words = (int)(bytes / 4);
	for (int i = 0; i < MANY; i++) {
		ck(cuMemAlloc_v2(&buffer[i], bytes));
		fill(buffer[i]);
	}
	for (int i = 0; i < SUMS; i++) {
		ck(cuMemAlloc_v2(&sum[i], sizeof(zero)));
		ck(cuMemcpyHtoD_v2(sum[i], zero, sizeof(zero)));
		ck(cuStreamCreate(&stream[i], CU_STREAM_NON_BLOCKING));
	}
}

static void say(const char *what)
{
	unsigned int out[SUMS][THREADS];
	uint64_t h = 0;

	ck(cuCtxSynchronize());
	for (int i = 0; i < SUMS; i++)
		ck(cuMemcpyDtoH_v2(out[i], sum[i], sizeof(out[i])));
	for (int i = 0; i < SUMS * THREADS; i++)
		h = (h ^ out[i / THREADS][i % THREADS]) * 0x9e3779b97f4a7c15u;
	printf("%s %016llx\n", what, (unsigned long long)h);
}

/* Often enough that it can be seen what they do. */
static void by_launches(void)
{
	for (int k = 0; k < 12; k++) {
		for (int i = 0; i < MANY; i++)
			for (int s = 0; s < SUMS; s++) {
				void *args[] = { &sum[s], &buffer[i], &words };

				ck(cuLaunchKernel(fold, 1, 1, 1, THREADS, 1, 1, 0, stream[s], args, NULL));
			}
		ck(cuCtxSynchronize());
	}
	say("launches");
}

struct made {
	CUgraph graph;
	CUgraphExec exec;
	CUgraphNode node[SUMS * MANY];
	CUdeviceptr from[SUMS * MANY], to[SUMS * MANY];
	int n;
};

static CUDA_KERNEL_NODE_PARAMS_v1 kernel(void **args)
{
	return (CUDA_KERNEL_NODE_PARAMS_v1){
		.func = fold, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1,
		.blockDimX = THREADS, .blockDimY = 1, .blockDimZ = 1, .kernelParams = args,
	};
}

static void add(struct made *g, CUdeviceptr *to, CUdeviceptr *from, CUgraphNode after)
{
	void *args[] = { to, from, &words };
	CUDA_KERNEL_NODE_PARAMS_v1 p = kernel(args);

	g->to[g->n] = *to;
	g->from[g->n] = *from;
	ck(cuGraphAddKernelNode(&g->node[g->n++], g->graph, after ? &after : NULL, after != NULL, &p));
}

/* All buffers in a row, into `many` sums side by side, the first of that number. */
static void make(struct made *g, int first, int many)
{
	memset(g, 0, sizeof(*g));
	ck(cuGraphCreate(&g->graph, 0));
	for (int s = first; s < first + many; s++)
		for (int i = 0; i < MANY; i++)
			add(g, &sum[s], &buffer[i], i ? g->node[g->n - 1] : NULL);
	ck(cuGraphInstantiateWithFlags(&g->exec, g->graph, 0));
}

/* The program's graph is as it was made. */
static void check(const struct made *g)
{
	CUDA_KERNEL_NODE_PARAMS_v1 p;
	CUgraphNode node[64];
	size_t n = 64, edges = 0;

	ck(cuGraphGetNodes(g->graph, node, &n));
	ck(cuGraphGetEdges(g->graph, NULL, NULL, &edges));
	if (n != (size_t)g->n || edges != n - n / MANY)
		exit(1);
	for (int i = 0; i < g->n; i++) {
		ck(cuGraphKernelNodeGetParams(g->node[i], &p));
		if (node[i] != g->node[i] || *(CUdeviceptr *)p.kernelParams[0] != g->to[i] ||
		    *(CUdeviceptr *)p.kernelParams[1] != g->from[i]) {
			fprintf(stderr, "graphs: node %d is another\n", i);
			exit(1);
		}
	}
}

static void launch(const struct made *g, int times, const char *what)
{
	for (int i = 0; i < times; i++)
		ck(cuGraphLaunch(g->exec, stream[0]));
	say(what);
}

static void set(const struct made *g, int node, CUdeviceptr from, int n)
{
	CUdeviceptr to = g->to[node];
	void *args[] = { &to, &from, &n };
	CUDA_KERNEL_NODE_PARAMS_v1 p = kernel(args);

	ck(cuGraphExecKernelNodeSetParams(g->exec, g->node[node], &p));
}

static void changed(const struct made *g)
{
	set(g, 3, buffer[3], words / 2);
	launch(g, 2, "fewer words");
	set(g, 3, buffer[7], words);
	launch(g, 2, "another buffer");
	set(g, 3, buffer[3] + 256, words - 64);
	launch(g, 2, "another place");
	set(g, 3, buffer[3], words);
	launch(g, 2, "as before");
	if (drv.cuGraphNodeSetEnabled) {
		ck(cuGraphNodeSetEnabled(g->exec, g->node[2], 0));
		launch(g, 1, "one less");
		ck(cuGraphNodeSetEnabled(g->exec, g->node[2], 1));
		launch(g, 1, "one more");
	}
	check(g);
}

static void updated(const struct made *g)
{
	CUgraphExecUpdateResult why;
	CUgraphNode bad;

	for (int k = 0; k < 5; k++) {	/* the last as the first */
		CUgraph other;

		ck(cuStreamBeginCapture_v2(stream[0], CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
		for (int i = 0; i < MANY; i++) {
			void *args[] = { &sum[0], &buffer[i ^ (k & 1)], &words };

			ck(cuLaunchKernel(fold, 1, 1, 1, THREADS, 1, 1, 0, stream[0], args, NULL));
		}
		ck(cuStreamEndCapture(stream[0], &other));
		ck(cuGraphExecUpdate(g->exec, other, &bad, &why));
		ck(cuGraphDestroy(other));
		launch(g, 2, "updated");
	}
}

static void side_by_side(const struct made *g)
{
	struct made other, both;

	make(&other, 1, 1);
	for (int i = 0; i < 6; i++) {
		ck(cuGraphLaunch(g->exec, stream[0]));
		ck(cuGraphLaunch(other.exec, stream[1]));
	}
	say("side by side");
	ck(cuGraphLaunch(other.exec, stream[1]));
	ck(cuGraphExecDestroy(other.exec));
	ck(cuGraphDestroy(other.graph));
	say("destroyed");
	make(&both, 0, SUMS);
	launch(&both, 4, "branches");
	check(&both);
	ck(cuGraphExecDestroy(both.exec));
	ck(cuGraphDestroy(both.graph));
}

/* Part of another graph, beside which it runs with another sum. */
static void captured(void)
{
	struct made g;
	CUgraph whole;
	CUgraphExec exec;
	CUdeviceptr other;

	make(&g, 1, 1);
	ck(cuGraphLaunch(g.exec, stream[1]));
	ck(cuStreamBeginCapture_v2(stream[1], CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	ck(cuGraphLaunch(g.exec, stream[1]));
	ck(cuStreamEndCapture(stream[1], &whole));
	ck(cuGraphInstantiateWithFlags(&exec, whole, 0));
	for (int i = 0; i < g.n; i++) {
		g.to[i] = sum[2];
		set(&g, i, g.from[i], words);
	}
	for (int i = 0; i < 4; i++) {
		ck(cuGraphLaunch(exec, stream[1]));
		ck(cuGraphLaunch(g.exec, stream[2]));
	}
	say("captured");
	ck(cuGraphExecDestroy(g.exec));
	ck(cuGraphDestroy(g.graph));
	ck(cuMemAlloc_v2(&other, bytes));	/* what is nobody's by now is given back */
	ck(cuMemFree_v2(other));
	ck(cuGraphLaunch(exec, stream[1]));
	say("what it was of is gone");
	ck(cuGraphExecDestroy(exec));
	ck(cuGraphDestroy(whole));
}

/* What was only read gets written: by a kernel of the graph that is changed, or another one's by
 * an update, or by a copy, before others of it read that. */
static void written(void)
{
	CUDA_MEMCPY3D c = {
		.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = buffer[6],
		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = buffer[7],
		.srcPitch = bytes, .dstPitch = bytes, .srcHeight = 1, .dstHeight = 1,
		.WidthInBytes = bytes, .Height = 1, .Depth = 1,
	};
	CUgraphExecUpdateResult why;
	CUgraphNode bad, copy;
	CUcontext ctx;
	CUgraph other;
	struct made g;

	make(&g, 0, 1);
	launch(&g, 2, "to be written");
	g.to[0] = buffer[2];
	set(&g, 0, g.from[0], words);
	launch(&g, 3, "written by a kernel");
	ck(cuStreamBeginCapture_v2(stream[0], CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	for (int i = 0; i < MANY; i++) {
		void *args[] = { i == 1 ? &buffer[3] : &sum[0], &buffer[i], &words };

		ck(cuLaunchKernel(fold, 1, 1, 1, THREADS, 1, 1, 0, stream[0], args, NULL));
	}
	ck(cuStreamEndCapture(stream[0], &other));
	ck(cuGraphExecUpdate(g.exec, other, &bad, &why));
	ck(cuGraphDestroy(other));
	launch(&g, 3, "written by an update's");
	ck(cuCtxGetCurrent(&ctx));
	ck(cuGraphCreate(&other, 0));
	ck(cuGraphAddMemcpyNode(&copy, other, NULL, 0, &c, ctx));
	ck(cuGraphExecDestroy(g.exec));
	ck(cuGraphInstantiateWithFlags(&g.exec, other, 0));
	launch(&g, 1, "copied");
	ck(cuGraphExecDestroy(g.exec));
	ck(cuGraphDestroy(other));
	ck(cuGraphDestroy(g.graph));
	make(&g, 0, SUMS);
	launch(&g, 2, "read again");
	ck(cuGraphExecDestroy(g.exec));
	ck(cuGraphDestroy(g.graph));
}

/* ---- waits ----------------------------------------------------------------------------- */

static int may_end;

static void waits(void *arg)
{
	while (!__atomic_load_n(&may_end, __ATOMIC_ACQUIRE))
		usleep(100);
}

/* Work of another context waits for this thread, which waits for its own alone. */
static void other_context(void)
{
	CUcontext ctx, own;
	CUdevice device;
	CUstream s;

	ck(cuDeviceGet(&device, 0));
	ck(cuCtxGetCurrent(&own));
	ck(cuCtxCreate_v2(&ctx, 0, device));
	ck(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	may_end = 0;
	ck(cuLaunchHostFunc(s, waits, NULL));
	ck(cuCtxSetCurrent(own));
	by_launches();
	__atomic_store_n(&may_end, 1, __ATOMIC_RELEASE);
	ck(cuCtxDestroy_v2(ctx));
	ck(cuCtxSetCurrent(own));
}

static void all(void)
{
	struct made g;

	start();
	by_launches();
	if (contexts > 1) {
		written();
		other_context();	/* OFFLOAD_TORTURE waits for all of them at any time */
	}
	make(&g, 0, 1);
	launch(&g, 3, "made");
	check(&g);
	changed(&g);
	side_by_side(&g);
	updated(&g);
	fill(buffer[4]);
	launch(&g, 2, "filled anew");
	captured();
	set(&g, 5, buffer[6], words);
	ck(cuMemFree_v2(buffer[5]));
	launch(&g, 2, "one freed");
	if (drv.cuGraphNodeSetEnabled) {
		ck(cuGraphNodeSetEnabled(g.exec, g.node[1], 0));
		ck(cuMemFree_v2(buffer[1]));
		launch(&g, 2, "another freed, its node disabled");
	}
	ck(cuGraphExecDestroy(g.exec));
	ck(cuGraphDestroy(g.graph));
	buffer[5] = buffer[6];
	buffer[1] = buffer[2];
	by_launches();
	make(&g, 0, 1);
	launch(&g, 2, "made again");
	ck(cuGraphExecDestroy(g.exec));
	ck(cuGraphDestroy(g.graph));

}

/* A graph is left over, and no memory. */
static void finish(void)
{
	CUdevice device;
	struct made g;

	make(&g, 0, 1);
	launch(&g, 1, "the last");
	for (int i = 0; i < MANY; i++)
		if (i != 1 && i != 5)
			ck(cuMemFree_v2(buffer[i]));
	for (int i = 0; i < SUMS; i++)
		ck(cuMemFree_v2(sum[i]));
	ck(cuDeviceGet(&device, 0));
	ck(cuDevicePrimaryCtxRelease_v2(device));
}

int main(int argc, char **argv)
{
	options_read(argc, argv, rows, "graphs [OPTION VALUE...]");
	driver_open(API_DLSYM);
	for (uint64_t i = 0; i < contexts; i++) {
		all();
		finish();
	}
	return 0;
}
