/* SPDX-License-Identifier: MIT */
/* random_kernel.c - kernels, and graphs of kernels, copies and memsets.
 *
 *   none --do_graph: captured or built, launched--> kept --do_relaunch--> kept
 *   kept --graph_drop, when nothing runs--> none
 *
 * Owns the graphs' handles; lock: none, an operation's own thread's (two that name
 * one graph write the same bytes: they are ordered).
 * (1) A capture is its thread's alone, on streams of its own that the legacy stream
 *     does not wait for: what other threads do cannot spoil it.
 */
#include "tests/engine/random.h"

#include <stdlib.h>
#include <string.h>

const char *const body_name[BODIES] = { "fill", "muladd", "mix", "turn", "count" };
const char *const mode_name[MODES] = { "direct", "struct", "table", "block",
					      "hidden" };

/* Arguments of one launch; p points into it. */
struct args {
	CUdeviceptr dst, s0, s1, table;
	struct operands o;
	struct indices x;
	int number;
	void *p[5];
};

static unsigned int words(size_t off)
{
	return (unsigned int)(off / 4);
}

static void fill_args(struct world *w, const struct op *o, int number, struct args *a)
{
	a->dst = mem_at(&w->buf[o->d.buf], o->d.off, o->how);
	a->s0 = mem_at(&w->buf[o->s.buf], o->s.off, o->how);
	a->s1 = mem_at(&w->buf[o->s1.buf], o->s1.off, o->how);
	a->o = (struct operands){
		(unsigned int *)(uintptr_t)a->dst,
		(const unsigned int *)(uintptr_t)a->s0,
		(const unsigned int *)(uintptr_t)a->s1, (int)(o->w / 4), o->a,
	};
	a->x = (struct indices){
		o->d.buf, o->s.buf, o->s1.buf,
		words(a->dst - mem_at(&w->buf[o->d.buf], 0, o->how)),
		words(a->s0 - mem_at(&w->buf[o->s.buf], 0, o->how)),
		words(a->s1 - mem_at(&w->buf[o->s1.buf], 0, o->how)),
		(int)(o->w / 4), o->a,
	};
	a->number = number;
	a->table = o->mode == MODE_TABLE ? w->table[o->dev]
		 : (o->mode == MODE_BLOCK ? w->blocks[o->dev] : w->hidden[o->dev]) +
		   (size_t)number * sizeof(struct operands);
}

static CUDA_KERNEL_NODE_PARAMS_v1 params(struct world *w, const struct op *o, int number,
					 struct args *a)
{
	void *const lists[MODES][5] = {
		[MODE_DIRECT] = { &a->dst, &a->s0, &a->s1, &a->o.n, &a->o.a },
		[MODE_STRUCT] = { &a->o },
		[MODE_TABLE] = { &a->table, &a->x },
		[MODE_BLOCK] = { &a->table },
		[MODE_HIDDEN] = { &a->number },
	};

	fill_args(w, o, number, a);
	for (int i = 0; i < 5; i++)
		a->p[i] = lists[o->mode][i];
	return (CUDA_KERNEL_NODE_PARAMS_v1){
		.func = w->kernel[o->dev][o->body][o->mode],
		.gridDimX = (unsigned int)((o->w / 4 + RBLOCK - 1) / RBLOCK),
		.gridDimY = 1, .gridDimZ = 1,
		.blockDimX = RBLOCK, .blockDimY = 1, .blockDimZ = 1,
		.kernelParams = a->p,
	};
}

static void launch_ex(const CUDA_KERNEL_NODE_PARAMS_v1 *p, CUstream s)
{
	CUlaunchConfig c = {
		.gridDimX = p->gridDimX, .gridDimY = 1, .gridDimZ = 1,
		.blockDimX = RBLOCK, .blockDimY = 1, .blockDimZ = 1, .hStream = s,
	};

	ck(cuLaunchKernelEx(&c, p->func, p->kernelParams, NULL));
}

/* Arguments in one buffer, as the ABI lays them out: no gaps in any of the modes. */
static void launch_packed(const struct op *o, const CUDA_KERNEL_NODE_PARAMS_v1 *p,
			  const struct args *a, CUstream s)
{
	static const size_t size[MODES][5] = {
		[MODE_DIRECT] = { 8, 8, 8, 4, 4 },
		[MODE_STRUCT] = { sizeof(struct operands) },
		[MODE_TABLE] = { 8, sizeof(struct indices) },
		[MODE_BLOCK] = { 8 },
		[MODE_HIDDEN] = { 4 },
	};
	char bytes[64];
	size_t n = 0;
	void *extra[] = {
		CU_LAUNCH_PARAM_BUFFER_POINTER, bytes,
		CU_LAUNCH_PARAM_BUFFER_SIZE, &n, CU_LAUNCH_PARAM_END,
	};

	for (int i = 0; i < 5; i++) {
		if (size[o->mode][i])
			memcpy(bytes + n, a->p[i], size[o->mode][i]);
		n += size[o->mode][i];
	}
	ck(cuLaunchKernel(p->func, p->gridDimX, 1, 1, RBLOCK, 1, 1, 0, s, NULL, extra));
}

void do_kernel(struct world *w, const struct op *o, int number, CUstream s)
{
	struct args a;
	CUDA_KERNEL_NODE_PARAMS_v1 p = params(w, o, number, &a);

	if (o->mode == MODE_BLOCK || o->mode == MODE_HIDDEN) {
		w->staged[number] = a.o;
		ck(cuMemcpyHtoDAsync_v2(a.table, &w->staged[number], sizeof(a.o), s));
	}
	switch (o->how >> 1 & 3) {
	case 0:
		if (drv.cuLaunchKernelEx) {
			launch_ex(&p, s);
			break;
		}
		/* fall through */
	case 1: case 2:
		ck(cuLaunchKernel(p.func, p.gridDimX, 1, 1, RBLOCK, 1, 1, 0, s,
				  p.kernelParams, NULL));
		break;
	default:
		launch_packed(o, &p, &a, s);
	}
}

/* ---- captured -------------------------------------------------------------------- */

static void do_sub(struct world *w, const struct op *o, CUstream s)
{
	if (o->kind == OP_KERNEL)
		do_kernel(w, o, 0, s);
	else if (o->kind == OP_COPY)
		do_copy(w, o, s);
	else
		do_set(w, o, s);
}

static CUgraph capture(struct world *w, const struct op *o)
{
	CUstream s[2];
	CUevent e[2];
	CUgraph g;

	for (int i = 0; i < 2; i++) {
		ck(cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
		ck(cuEventCreate(&e[i], CU_EVENT_DISABLE_TIMING));
	}
	ck(cuStreamBeginCapture_v2(s[0], CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	for (int i = 0; i < o->n_sub; i++) {
		int two = i + 1 < o->n_sub && o->sub[i + 1].beside;

		if (two) {
			ck(cuEventRecord(e[0], s[0]));
			ck(cuStreamWaitEvent(s[1], e[0], 0));
		}
		do_sub(w, &o->sub[i], s[0]);
		if (!two)
			continue;
		do_sub(w, &o->sub[++i], s[1]);
		ck(cuEventRecord(e[1], s[1]));
		ck(cuStreamWaitEvent(s[0], e[1], 0));
	}
	ck(cuStreamEndCapture(s[0], &g));
	for (int i = 0; i < 2; i++) {
		ck(cuStreamDestroy_v2(s[i]));
		ck(cuEventDestroy_v2(e[i]));
	}
	return g;
}

/* ---- built ----------------------------------------------------------------------- */

static void end_of_copy(const struct buf *b, size_t off, int how, CUmemorytype *type,
			void **host, CUdeviceptr *device)
{
	if (b->family >= FAM_HOST) {
		*type = CU_MEMORYTYPE_HOST;
		*host = (char *)b->host + off;
	} else {
		*type = CU_MEMORYTYPE_DEVICE;
		*device = mem_at(b, off, how);
	}
}

static void add_copy(struct world *w, CUgraph g, CUgraphNode *n, const CUgraphNode *dep,
		     size_t n_dep, const struct op *o)
{
	CUDA_MEMCPY3D c = { .WidthInBytes = o->w, .Height = 1, .Depth = 1 };
	void *from = NULL;

	end_of_copy(&w->buf[o->d.buf], o->d.off, o->how, &c.dstMemoryType, &c.dstHost,
		    &c.dstDevice);
	end_of_copy(&w->buf[o->s.buf], o->s.off, o->how, &c.srcMemoryType, &from,
		    &c.srcDevice);
	c.srcHost = from;
	c.dstPitch = c.srcPitch = o->w;
	c.dstHeight = c.srcHeight = 1;
	ck(cuGraphAddMemcpyNode(n, g, dep, n_dep, &c, w->ctx[o->dev]));
}

static void add_set(struct world *w, CUgraph g, CUgraphNode *n, const CUgraphNode *dep,
		    size_t n_dep, const struct op *o)
{
	CUDA_MEMSET_NODE_PARAMS_v1 p = {
		.dst = mem_at(&w->buf[o->d.buf], o->d.off, o->how),
		.value = o->elem == 4 ? o->a : o->a & (o->elem == 2 ? 0xffff : 0xff),
		.elementSize = (unsigned int)o->elem,
		.width = o->w / (size_t)o->elem, .height = 1,
	};

	ck(cuGraphAddMemsetNode(n, g, dep, n_dep, &p, w->ctx[o->dev]));
}

static void add_node(struct world *w, CUgraph g, CUgraphNode *n, const CUgraphNode *dep,
		     size_t n_dep, const struct op *o)
{
	CUDA_KERNEL_NODE_PARAMS_v1 p;
	struct args a;

	if (o->kind == OP_COPY) {
		add_copy(w, g, n, dep, n_dep, o);
	} else if (o->kind == OP_SET) {
		add_set(w, g, n, dep, n_dep, o);
	} else {
		p = params(w, o, 0, &a);
		ck(cuGraphAddKernelNode(n, g, dep, n_dep, &p));
	}
}

static CUgraph build(struct world *w, const struct op *o, CUgraphNode *node)
{
	CUgraph g;
	int n_dep = 0;

	ck(cuGraphCreate(&g, 0));
	for (int i = 0; i < o->n_sub; i++) {
		int two = i + 1 < o->n_sub && o->sub[i + 1].beside;
		const CUgraphNode *dep = node + i - n_dep;

		add_node(w, g, &node[i], dep, (size_t)n_dep, &o->sub[i]);
		if (two) {
			add_node(w, g, &node[i + 1], dep, (size_t)n_dep, &o->sub[i + 1]);
			i++;
		}
		n_dep = 1 + two;
	}
	return g;
}

/* ---- outside --------------------------------------------------------------------- */

void do_graph(struct world *w, struct op *o, CUstream s)
{
	struct graph *g = &w->graph[o->graph];
	CUgraphNode bad = NULL;
	char log[128] = "";

	g->graph = g->built ? build(w, o, g->node) : capture(w, o);
	ck(cuGraphInstantiate_v2(&g->exec, g->graph, &bad, log, sizeof(log)));
	for (int i = 0; i < o->launches; i++)
		ck(cuGraphLaunch(g->exec, s));
}

static void set_node(struct world *w, const struct op *o, const struct graph *g)
{
	CUDA_KERNEL_NODE_PARAMS_v1 p;
	struct args a;

	p = params(w, &o->sub[o->body], 0, &a);
	ck(cuGraphExecKernelNodeSetParams(g->exec, g->node[o->body], &p));
}

static void update(struct world *w, const struct op *o, const struct graph *g)
{
	CUgraph again = capture(w, o);
	CUgraphExecUpdateResult result;
	CUgraphNode bad;

	ck(cuGraphExecUpdate(g->exec, again, &bad, &result));
	ck(cuGraphDestroy(again));
}

void do_relaunch(struct world *w, struct op *o, CUstream s)
{
	struct graph *g = &w->graph[o->graph];

	if (o->body >= 0 && g->built)
		set_node(w, o, g);
	else if (o->body >= 0)
		update(w, o, g);
	ck(cuGraphLaunch(g->exec, s));
}

void graph_drop(struct graph *g)
{
	if (!g->exec)
		return;
	ck(cuGraphExecDestroy(g->exec));
	ck(cuGraphDestroy(g->graph));
	g->exec = NULL;
}
