/* SPDX-License-Identifier: MIT */
/* cuda_replay.c - graphs whose memory does not have homes all at once.
 *
 *   instantiated --a copy of the graph is kept--> launched --all has homes--> by the driver
 *                                                    `--else: node by node, in its stream
 *
 * (1) A graph's kernels are looked at when it is launched: their arguments are the copy's.
 * (2) Node by node in one stream is an order that the graph allows, and each node's memory
 *     has homes when it is queued. It is slower, and right.
 * (3) What is not followed (a node of another kind, nodes switched off, a node's parameters
 *     changed in another way) is launched by the driver alone, with homes for everything,
 *     or fails.
 * Owns the copies. Lock: `lock`, leaf, for the list; a copy is its graph's, which the
 * program may not change while it is launched.
 */
#include "interpose/cuda_int.h"

#include <pthread.h>

struct kept {
	struct kept *next;
	CUgraphExec exec;
	CUgraph copy;
	CUgraphNode *node;	/* in an order that its edges allow */
	size_t n;
	bool unknown;		/* (3) */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept *list;

/* Without OFFLOAD_DEVICE_DEEP, and in a child of a fork, where the lock may be held: none. */
static struct kept *find(CUgraphExec exec)
{
	struct kept *k;

	if (!cuda_deep())
		return NULL;
	pthread_mutex_lock(&lock);
	for (k = list; k && k->exec != exec; k = k->next)
		;
	pthread_mutex_unlock(&lock);
	return k;
}

/* ---- the copy ------------------------------------------------------------------------- */

static bool able(void)
{
	return DRIVER(cuGraphClone) && DRIVER(cuGraphDestroy) && DRIVER(cuGraphGetNodes) &&
	       DRIVER(cuGraphGetEdges) && DRIVER(cuGraphNodeGetType) &&
	       DRIVER(cuGraphKernelNodeGetParams) && DRIVER(cuGraphMemcpyNodeGetParams) &&
	       DRIVER(cuGraphMemsetNodeGetParams) && DRIVER(cuGraphNodeFindInClone) &&
	       REAL(cuGraphKernelNodeSetParams) && REAL(cuLaunchKernel) &&
	       REAL(cuMemcpy3DAsync_v2) && REAL(cuMemsetD2D8Async) &&
	       REAL(cuMemsetD2D16Async) && REAL(cuMemsetD2D32Async);
}

static size_t place(CUgraphNode *const node, size_t n, CUgraphNode one)
{
	size_t i = 0;

	while (i < n && node[i] != one)
		i++;
	return i;
}

/* Those that wait for none that is left, first. False: they cannot be put in order. */
static bool put_in_order(CUgraphNode *node, size_t n, CUgraphNode *from, CUgraphNode *to, size_t edges)
{
	for (size_t done = 0; done < n; done++) {
		size_t i = done, e;

		for (; i < n; i++) {
			for (e = 0; e < edges; e++)
				if (to[e] == node[i] && place(node, done, from[e]) == done)
					break;
			if (e == edges)
				break;
		}
		if (i == n)
			return false;
		CUgraphNode next = node[i];

		memmove(&node[done + 1], &node[done], (i - done) * sizeof(*node));
		node[done] = next;
	}
	return true;
}

static bool read_nodes(struct kept *k)
{
	CUgraphNode *edge = NULL;
	size_t edges = 0;
	bool ok;

	if (DRIVER(cuGraphGetNodes)(k->copy, NULL, &k->n) != CUDA_SUCCESS ||
	    DRIVER(cuGraphGetEdges)(k->copy, NULL, NULL, &edges) != CUDA_SUCCESS)
		return false;
	k->node = core_memory((k->n + 1) * sizeof(*k->node));
	edge = core_memory((2 * edges + 1) * sizeof(*edge));
	ok = k->node && edge &&
	     DRIVER(cuGraphGetNodes)(k->copy, k->node, &k->n) == CUDA_SUCCESS &&
	     (!edges || DRIVER(cuGraphGetEdges)(k->copy, edge, edge + edges, &edges) == CUDA_SUCCESS) &&
	     put_in_order(k->node, k->n, edge, edge + edges, edges);
	core_memory_free(edge);
	return ok;
}

/* What the node has of it; nothing where the driver does not know it. */
static CUkernelNodeAttrValue attribute(CUgraphNode node, CUkernelNodeAttrID id)
{
	CUkernelNodeAttrValue v;

	memset(&v, 0, sizeof(v));
	if (DRIVER(cuGraphKernelNodeGetAttribute) &&
	    DRIVER(cuGraphKernelNodeGetAttribute)(node, id, &v) != CUDA_SUCCESS)
		memset(&v, 0, sizeof(v));
	return v;
}

/* A launch would have to say nothing of it beside its parameters. */
static bool plain_kernel(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	CUkernelNodeAttrValue v;

	if (DRIVER(cuGraphKernelNodeGetParams)(node, p) != CUDA_SUCCESS || !p->func)
		return false;
	v = attribute(node, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
	return (uint64_t)v.clusterDim.x * v.clusterDim.y * v.clusterDim.z <= 1 &&
	       !attribute(node, CU_LAUNCH_ATTRIBUTE_COOPERATIVE).cooperative;
}

static bool followed(CUgraphNode node)
{
	CUDA_KERNEL_NODE_PARAMS_v1 p;
	CUgraphNodeType type;

	if (DRIVER(cuGraphNodeGetType)(node, &type) != CUDA_SUCCESS)
		return false;
	if (type == CU_GRAPH_NODE_TYPE_KERNEL)
		return plain_kernel(node, &p);
	return type == CU_GRAPH_NODE_TYPE_MEMCPY || type == CU_GRAPH_NODE_TYPE_MEMSET ||
	       type == CU_GRAPH_NODE_TYPE_EMPTY;
}

static void drop_copy(struct kept *k)
{
	if (k->copy)
		DRIVER(cuGraphDestroy)(k->copy);
	core_memory_free(k->node);
	k->copy = NULL;
	k->node = NULL;
	k->n = 0;
}

static bool make_copy(struct kept *k, CUgraph g)
{
	bool ok = able() && DRIVER(cuGraphClone)(&k->copy, g) == CUDA_SUCCESS && read_nodes(k);

	for (size_t i = 0; ok && i < k->n; i++)
		ok = followed(k->node[i]);
	return ok;
}

void cuda_graph_kept(CUgraphExec exec, CUgraph g)
{
	struct kept *k = find(exec);

	if (!cuda_deep())
		return;
	if (!k) {
		k = core_memory(sizeof(*k));
		if (!k)
			return;
		k->exec = exec;
		pthread_mutex_lock(&lock);
		k->next = list;
		list = k;
		pthread_mutex_unlock(&lock);
	}
	drop_copy(k);
	if (!make_copy(k, g))
		k->unknown = true;
}

void cuda_graph_kernel(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	struct kept *k = find(exec);
	CUgraphNode mine;

	if (!k || k->unknown)
		return;
	if (DRIVER(cuGraphNodeFindInClone)(&mine, node, k->copy) != CUDA_SUCCESS ||
	    REAL(cuGraphKernelNodeSetParams)(mine, p) != CUDA_SUCCESS)
		k->unknown = true;
}

void cuda_graph_unknown(CUgraphExec exec)
{
	struct kept *k = find(exec);

	if (k)
		k->unknown = true;
}

void cuda_graph_gone(CUgraphExec exec)
{
	struct kept **at, *k = NULL;

	if (!cuda_deep())	/* as find */
		return;
	pthread_mutex_lock(&lock);
	for (at = &list; *at && (*at)->exec != exec; at = &(*at)->next)
		;
	if (*at) {
		k = *at;
		*at = k->next;
	}
	pthread_mutex_unlock(&lock);
	if (k)
		drop_copy(k);
	core_memory_free(k);
}

/* ---- launching --------------------------------------------------------------------------- */

union params {
	CUDA_KERNEL_NODE_PARAMS_v1 kernel;
	CUDA_MEMCPY3D copy;
	CUDA_MEMSET_NODE_PARAMS_v1 set;
};

/* From at on, what rows of so many bytes, a pitch apart, lie in. */
static void add_rows(struct vmm_reach *w, uint64_t at, uint64_t pitch, uint64_t rows, uint64_t bytes)
{
	if (at && rows && bytes)
		vmm_reach_add(w, at, (rows - 1) * pitch + bytes);
}

static void copy_reach(const CUDA_MEMCPY3D *c, struct vmm_reach *w)
{
#define SIDE(side) do { \
	uint64_t pitch_ = c->side##Pitch ? c->side##Pitch : c->side##XInBytes + c->WidthInBytes; \
	uint64_t high_ = c->side##Height ? c->side##Height : c->side##Y + c->Height; \
	uint64_t last_ = c->Depth ? (c->side##Z + c->Depth - 1) * high_ + c->side##Y + c->Height : 0; \
	if (c->side##MemoryType == CU_MEMORYTYPE_DEVICE || \
	    c->side##MemoryType == CU_MEMORYTYPE_UNIFIED) \
		add_rows(w, c->side##Device, pitch_, last_, c->side##XInBytes + c->WidthInBytes); \
	} while (0)
	SIDE(src);
	SIDE(dst);
#undef SIDE
}

/* What a node does; and what it touches: places of copies and sets have homes and stay where
 * the node was added as one (cuda_graph.c, 2), but not as one of any kind. */
static CUresult read_node(CUgraphNode node, CUgraphNodeType *type, union params *p,
			  struct vmm_reach *w)
{
	CUresult r = DRIVER(cuGraphNodeGetType)(node, type);

	vmm_reach_none(w);
	if (r != CUDA_SUCCESS)
		return r;
	switch (*type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		r = DRIVER(cuGraphKernelNodeGetParams)(node, &p->kernel);
		if (r == CUDA_SUCCESS)
			cuda_kernel_reach(p->kernel.func, p->kernel.kernelParams, p->kernel.extra, w);
		return r;
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		r = DRIVER(cuGraphMemcpyNodeGetParams)(node, &p->copy);
		if (r == CUDA_SUCCESS)
			copy_reach(&p->copy, w);
		return r;
	case CU_GRAPH_NODE_TYPE_MEMSET:
		r = DRIVER(cuGraphMemsetNodeGetParams)(node, &p->set);
		if (r == CUDA_SUCCESS)
			add_rows(w, p->set.dst, p->set.pitch, p->set.height,
				 (uint64_t)p->set.width * p->set.elementSize);
		return r;
	default:
		return CUDA_SUCCESS;
	}
}

/* As the program would: in pieces, where homes are of several kinds. */
static CUresult set_rows(const CUDA_MEMSET_NODE_PARAMS_v1 *m, CUstream s)
{
	size_t pitch = m->height > 1 ? m->pitch : (size_t)m->width * m->elementSize;

	switch (m->elementSize) {
	case 1:
		return hook_cuMemsetD2D8Async(m->dst, pitch, (unsigned char)m->value, m->width,
					      m->height, s);
	case 2:
		return hook_cuMemsetD2D16Async(m->dst, pitch, (unsigned short)m->value, m->width,
					       m->height, s);
	default:
		return hook_cuMemsetD2D32Async(m->dst, pitch, m->value, m->width, m->height, s);
	}
}

static CUresult do_kernel(const CUDA_KERNEL_NODE_PARAMS_v1 *k, const struct vmm_reach *w,
			  CUstream s)
{
	bool in;
	CUresult r = cuda_enter(w, &in);

	if (r == CUDA_SUCCESS)
		r = REAL(cuLaunchKernel)(k->func, k->gridDimX, k->gridDimY, k->gridDimZ,
					 k->blockDimX, k->blockDimY, k->blockDimZ,
					 k->sharedMemBytes, s, k->kernelParams, k->extra);
	vmm_leave(in);
	return r;
}

static CUresult do_node(CUgraphNode node, CUstream s)
{
	CUgraphNodeType type;
	struct vmm_reach w;
	union params p;
	CUresult r = read_node(node, &type, &p, &w);

	if (r != CUDA_SUCCESS)
		return r;
	switch (type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		return do_kernel(&p.kernel, &w, s);
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		return hook_cuMemcpy3DAsync_v2(&p.copy, s);
	case CU_GRAPH_NODE_TYPE_MEMSET:
		return set_rows(&p.set, s);
	default:
		return CUDA_SUCCESS;
	}
}

static CUresult replay(const struct kept *k, CUstream s)
{
	CUresult r = CUDA_SUCCESS;

	for (size_t i = 0; i < k->n && r == CUDA_SUCCESS; i++)
		r = do_node(k->node[i], s);
	return r;
}

/* Inside the gate. */
static bool all_home(const struct kept *k)
{
	CUgraphNodeType type;
	struct vmm_reach w;
	union params p;

	for (size_t i = 0; i < k->n; i++)
		if (read_node(k->node[i], &type, &p, &w) != CUDA_SUCCESS || !vmm_reached(&w))
			return false;
	return true;
}

CUresult cuda_graph_launch(__typeof__(&cuGraphLaunch) real, CUgraphExec exec, CUstream s)
{
	const struct kept *k = find(exec);
	bool in, home;
	CUresult r;

	if (!k || k->unknown)
		return ENTERED(cuda_enter_any(&in_), real(exec, s));
	in = vmm_enter();
	home = all_home(k);
	r = home ? real(exec, s) : CUDA_SUCCESS;
	vmm_leave(in);
	if (home)
		return r;
	return replay(k, !s && real == REAL(cuGraphLaunch_ptsz) ? CU_STREAM_PER_THREAD : s);
}
