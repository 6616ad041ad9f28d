/* SPDX-License-Identifier: MIT */
/* cuda_graph.c - graphs: made, instantiated, changed, launched.
 *
 * (1) A graph's kernels are launched past us: what their arguments reach is looked at when
 *     a node is made or changed.
 * (2) What a graph's own copies and sets name must stay where it is.
 * (3) Where launches are staged a graph is instantiated from a copy of it with more nodes
 *     (cuda_clone.c): every call that names a node of an executable graph is told the copy's.
 * Lock: none.
 */
#include "interpose/cuda_clone.h"

/* ---- graphs ------------------------------------------------------------------------------ */

#define SIG_graph_launch (CUgraphExec g, CUstream s)
#define ARG_graph_launch g, s
static CUresult staged_graph(__typeof__(&cuGraphLaunch) real, CUgraphExec g, CUstream s,
			     bool captured)
{
	CUresult r = cuda_exec_launching(g, captured);

	return r == CUDA_SUCCESS ? real(g, s) : r;
}

static CUresult on_graph_launch(__typeof__(&cuGraphLaunch) real, CUgraphExec g, CUstream s)
{
	bool captured = cuda_captured(s);
	CUresult r;

	if (cuda_deep() && !captured)
		r = cuda_graph_launch(real, g, s);
	else
		r = LAUNCH((gate_ = vmm_enter(), CUDA_SUCCESS), real(g, s),
			   staged_graph(real, g, s, captured));

	if (r == CUDA_SUCCESS && !captured)
		cuda_exec_launched(g);
	return cuda_launched(r, captured);
}

static void look_at_node(const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	if (p)
		cuda_node(p->func, p->kernelParams, p->extra);
}

#define SIG_node_add (CUgraphNode *node, CUgraph g, const CUgraphNode *after, size_t n, \
		      const CUDA_KERNEL_NODE_PARAMS_v1 *p)
#define ARG_node_add node, g, after, n, p
static CUresult on_node_add(__typeof__(&cuGraphAddKernelNode) real, CUgraphNode *node, CUgraph g,
			    const CUgraphNode *after, size_t n,
			    const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	look_at_node(p);
	return real(node, g, after, n, p);
}

/* From version 12 on a kernel may stand in the place of the function. */
static void look_at_node2(const CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
	if (!p)
		return;
	if (!p->func && p->kern)
		cuda_kernel_seen(p->kern);
	cuda_node(p->func ? p->func : (CUfunction)p->kern, p->kernelParams, p->extra);
}

#define SIG_node_add2 (CUgraphNode *node, CUgraph g, const CUgraphNode *after, size_t n, \
		       const CUDA_KERNEL_NODE_PARAMS_v2 *p)
#define ARG_node_add2 node, g, after, n, p
static CUresult on_node_add2(__typeof__(&cuGraphAddKernelNode_v2) real, CUgraphNode *node,
			     CUgraph g, const CUgraphNode *after, size_t n,
			     const CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
	look_at_node2(p);
	return real(node, g, after, n, p);
}

#define SIG_node_set (CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *p)
#define ARG_node_set node, p
static CUresult on_node_set(__typeof__(&cuGraphKernelNodeSetParams) real, CUgraphNode node,
			    const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	look_at_node(p);
	return real(node, p);
}

#define SIG_node_set2 (CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2 *p)
#define ARG_node_set2 node, p
static CUresult on_node_set2(__typeof__(&cuGraphKernelNodeSetParams_v2) real, CUgraphNode node,
			     const CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
	look_at_node2(p);
	return real(node, p);
}

#define SIG_exec_set (CUgraphExec g, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *p)
#define ARG_exec_set g, node, p
static CUresult on_exec_set(__typeof__(&cuGraphExecKernelNodeSetParams) real, CUgraphExec g,
			    CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	CUDA_KERNEL_NODE_PARAMS_v2 k = { .func = NULL };
	CUresult r;

	look_at_node(p);
	if (!p)
		return real(g, node, p);
	memcpy(&k, p, sizeof(*p));
	r = cuda_exec_set(g, node, &k, false);
	if (r == CUDA_SUCCESS)
		cuda_graph_kernel(g, node, p);
	return r;
}

#define SIG_exec_set2 (CUgraphExec g, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2 *p)
#define ARG_exec_set2 g, node, p
static CUresult on_exec_set2(__typeof__(&cuGraphExecKernelNodeSetParams_v2) real, CUgraphExec g,
			     CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
	look_at_node2(p);
	cuda_graph_unknown(g);
	return p ? cuda_exec_set(g, node, p, true) : real(g, node, p);
}

/* (2) */
static CUresult stays(CUdeviceptr at)
{
	struct device_region r;
	CUresult err;

	if (!cuda_placed(at, &r))
		return CUDA_SUCCESS;
	err = cuda_keep(at);
	vmm_doubt(at);
	return err;
}

static CUresult copy_stays(const CUDA_MEMCPY3D *c)
{
	CUresult r = c ? stays(c->dstDevice) : CUDA_SUCCESS;

	return c && r == CUDA_SUCCESS ? stays(c->srcDevice) : r;
}

#define SIG_node_copy (CUgraphNode *node, CUgraph g, const CUgraphNode *after, size_t n, \
		       const CUDA_MEMCPY3D *c, CUcontext ctx)
#define ARG_node_copy node, g, after, n, c, ctx
static CUresult on_node_copy(__typeof__(&cuGraphAddMemcpyNode) real, CUgraphNode *node, CUgraph g,
			     const CUgraphNode *after, size_t n, const CUDA_MEMCPY3D *c,
			     CUcontext ctx)
{
	CUresult r = copy_stays(c);

	return r == CUDA_SUCCESS ? real(node, g, after, n, c, ctx) : r;
}

#define SIG_node_memset (CUgraphNode *node, CUgraph g, const CUgraphNode *after, size_t n, \
			 const CUDA_MEMSET_NODE_PARAMS_v1 *m, CUcontext ctx)
#define ARG_node_memset node, g, after, n, m, ctx
static CUresult on_node_memset(__typeof__(&cuGraphAddMemsetNode) real, CUgraphNode *node,
			       CUgraph g, const CUgraphNode *after, size_t n,
			       const CUDA_MEMSET_NODE_PARAMS_v1 *m, CUcontext ctx)
{
	CUresult r = m ? stays(m->dst) : CUDA_SUCCESS;

	return r == CUDA_SUCCESS ? real(node, g, after, n, m, ctx) : r;
}

#define SIG_copy_set (CUgraphNode node, const CUDA_MEMCPY3D *c)
#define ARG_copy_set node, c
static CUresult on_copy_set(__typeof__(&cuGraphMemcpyNodeSetParams) real, CUgraphNode node,
			    const CUDA_MEMCPY3D *c)
{
	CUresult r = copy_stays(c);

	return r == CUDA_SUCCESS ? real(node, c) : r;
}

#define SIG_memset_set (CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS_v1 *m)
#define ARG_memset_set node, m
static CUresult on_memset_set(__typeof__(&cuGraphMemsetNodeSetParams) real, CUgraphNode node,
			      const CUDA_MEMSET_NODE_PARAMS_v1 *m)
{
	CUresult r = m ? stays(m->dst) : CUDA_SUCCESS;

	return r == CUDA_SUCCESS ? real(node, m) : r;
}

#define SIG_exec_copy (CUgraphExec exec, CUgraphNode node, const CUDA_MEMCPY3D *c, CUcontext ctx)
#define ARG_exec_copy exec, node, c, ctx
static CUresult on_exec_copy(__typeof__(&cuGraphExecMemcpyNodeSetParams) real, CUgraphExec exec,
			     CUgraphNode node, const CUDA_MEMCPY3D *c, CUcontext ctx)
{
	CUresult r = copy_stays(c);

	cuda_graph_unknown(exec);
	return r == CUDA_SUCCESS ? real(exec, cuda_exec_node(exec, node), c, ctx) : r;
}

#define SIG_exec_memset (CUgraphExec exec, CUgraphNode node, \
			 const CUDA_MEMSET_NODE_PARAMS_v1 *m, CUcontext ctx)
#define ARG_exec_memset exec, node, m, ctx
static CUresult on_exec_memset(__typeof__(&cuGraphExecMemsetNodeSetParams) real,
			       CUgraphExec exec, CUgraphNode node,
			       const CUDA_MEMSET_NODE_PARAMS_v1 *m, CUcontext ctx)
{
	CUresult r = m ? stays(m->dst) : CUDA_SUCCESS;

	cuda_graph_unknown(exec);
	return r == CUDA_SUCCESS ? real(exec, cuda_exec_node(exec, node), m, ctx) : r;
}

/* A kernel could keep pointers in such memory, where nobody looks for them. */
#define SIG_node_alloc (CUgraphNode *node, CUgraph g, const CUgraphNode *after, size_t n, \
			CUDA_MEM_ALLOC_NODE_PARAMS_v1 *p)
#define ARG_node_alloc node, g, after, n, p
static CUresult on_node_alloc(__typeof__(&cuGraphAddMemAllocNode) real, CUgraphNode *node,
			      CUgraph g, const CUgraphNode *after, size_t n,
			      CUDA_MEM_ALLOC_NODE_PARAMS_v1 *p)
{
	vmm_doubt(0);
	return real(node, g, after, n, p);
}

/* A node of any kind: it is not looked at. */
#define SIG_any_node (CUgraphNode *node, CUgraph g, const CUgraphNode *after, size_t n, \
		      CUgraphNodeParams *p)
#define ARG_any_node node, g, after, n, p
static CUresult on_any_node(__typeof__(&cuGraphAddNode) real, CUgraphNode *node, CUgraph g,
			    const CUgraphNode *after, size_t n, CUgraphNodeParams *p)
{
	vmm_doubt(0);
	return real(node, g, after, n, p);
}

#define SIG_any_node2 (CUgraphNode *node, CUgraph g, const CUgraphNode *after, \
		       const CUgraphEdgeData *edge, size_t n, CUgraphNodeParams *p)
#define ARG_any_node2 node, g, after, edge, n, p
static CUresult on_any_node2(__typeof__(&cuGraphAddNode_v2) real, CUgraphNode *node, CUgraph g,
			     const CUgraphNode *after, const CUgraphEdgeData *edge, size_t n,
			     CUgraphNodeParams *p)
{
	vmm_doubt(0);
	return real(node, g, after, edge, n, p);
}

#define SIG_any_set (CUgraphNode node, CUgraphNodeParams *p)
#define ARG_any_set node, p
static CUresult on_any_set(__typeof__(&cuGraphNodeSetParams) real, CUgraphNode node,
			   CUgraphNodeParams *p)
{
	vmm_doubt(0);
	return real(node, p);
}

#define SIG_any_exec_set (CUgraphExec exec, CUgraphNode node, CUgraphNodeParams *p)
#define ARG_any_exec_set exec, node, p
static CUresult on_any_exec_set(__typeof__(&cuGraphExecNodeSetParams) real, CUgraphExec exec,
				CUgraphNode node, CUgraphNodeParams *p)
{
	vmm_doubt(0);
	cuda_graph_unknown(exec);
	return real(exec, cuda_exec_node(exec, node), p);
}

/* The other calls that name a node of an executable graph: (3). */
#define SIG_exec_host (CUgraphExec exec, CUgraphNode node, const CUDA_HOST_NODE_PARAMS_v1 *p)
#define ARG_exec_host exec, node, p
static CUresult on_exec_host(__typeof__(&cuGraphExecHostNodeSetParams) real, CUgraphExec exec,
			     CUgraphNode node, const CUDA_HOST_NODE_PARAMS_v1 *p)
{
	return real(exec, cuda_exec_node(exec, node), p);
}

#define SIG_exec_event (CUgraphExec exec, CUgraphNode node, CUevent event)
#define ARG_exec_event exec, node, event
static CUresult on_exec_event(__typeof__(&cuGraphExecEventRecordNodeSetEvent) real,
			      CUgraphExec exec, CUgraphNode node, CUevent event)
{
	return real(exec, cuda_exec_node(exec, node), event);
}

#define SIG_exec_enable (CUgraphExec exec, CUgraphNode node, unsigned int on)
#define ARG_exec_enable exec, node, on
static CUresult on_exec_enable(__typeof__(&cuGraphNodeSetEnabled) real, CUgraphExec exec,
			       CUgraphNode node, unsigned int on)
{
	cuda_graph_unknown(exec);
	return real(exec, cuda_exec_node(exec, node), on);
}

#define SIG_exec_enabled (CUgraphExec exec, CUgraphNode node, unsigned int *on)
#define ARG_exec_enabled exec, node, on
static CUresult on_exec_enabled(__typeof__(&cuGraphNodeGetEnabled) real, CUgraphExec exec,
				CUgraphNode node, unsigned int *on)
{
	return real(exec, cuda_exec_node(exec, node), on);
}

/* ---- instantiated, updated, destroyed ---------------------------------------------------- */

/* Device-side launches need a graph as it is. */
#define PLAIN_FLAGS (CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | \
		     CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD | \
		     CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY)

/* What is known of it for OFFLOAD_DEVICE_DEEP, too. */
static CUresult kept(CUresult r, const CUgraphExec *exec, CUgraph g)
{
	if (r == CUDA_SUCCESS && exec)
		cuda_graph_kept(*exec, g);
	return r;
}

/* `call` with g_ for the graph: a copy first, if that is to be; then g itself. */
#define INSTANTIATED(exec, g, flags, call) ({ \
	CUgraph g_; \
	struct cuda_exec *x_ = cuda_exec_begin(g, !((flags) & ~(uint64_t)PLAIN_FLAGS), &g_); \
	CUresult i_ = (call); \
	bool same_ = g_ == (g); \
	if (i_ != CUDA_SUCCESS || !(exec)) \
		cuda_exec_drop(x_); \
	else if (!cuda_exec_made(x_, g, *(exec))) \
		i_ = CUDA_ERROR_UNKNOWN; \
	if (i_ != CUDA_SUCCESS && !same_) { \
		g_ = (g); \
		i_ = (call); \
	} \
	kept(i_, exec, g); })

#define SIG_instantiate (CUgraphExec *exec, CUgraph g, CUgraphNode *bad, char *log, size_t len)
#define ARG_instantiate exec, g, bad, log, len
static CUresult on_instantiate(__typeof__(&cuGraphInstantiate_v2) real, CUgraphExec *exec,
			       CUgraph g, CUgraphNode *bad, char *log, size_t len)
{
	return INSTANTIATED(exec, g, 0, real(exec, g_, bad, log, len));
}

#define SIG_instantiate_flags (CUgraphExec *exec, CUgraph g, unsigned long long flags)
#define ARG_instantiate_flags exec, g, flags
static CUresult on_instantiate_flags(__typeof__(&cuGraphInstantiateWithFlags) real,
				     CUgraphExec *exec, CUgraph g, unsigned long long flags)
{
	return INSTANTIATED(exec, g, flags, real(exec, g_, flags));
}

#define SIG_instantiate_params (CUgraphExec *exec, CUgraph g, CUDA_GRAPH_INSTANTIATE_PARAMS *p)
#define ARG_instantiate_params exec, g, p
static CUresult on_instantiate_params(__typeof__(&cuGraphInstantiateWithParams) real,
				      CUgraphExec *exec, CUgraph g,
				      CUDA_GRAPH_INSTANTIATE_PARAMS *p)
{
	return INSTANTIATED(exec, g, p ? p->flags : UINT64_MAX, real(exec, g_, p));
}

#define SIG_exec_update (CUgraphExec exec, CUgraph g, CUgraphNode *bad, \
			 CUgraphExecUpdateResult *why)
#define ARG_exec_update exec, g, bad, why
static CUresult on_exec_update(__typeof__(&cuGraphExecUpdate) real, CUgraphExec exec, CUgraph g,
			       CUgraphNode *bad, CUgraphExecUpdateResult *why)
{
	struct cuda_update u;

	cuda_update_begin(&u, exec, g);
	return kept(cuda_update_end(&u, real(exec, u.use, bad, why), bad), &exec, g);
}

#define SIG_exec_update2 (CUgraphExec exec, CUgraph g, CUgraphExecUpdateResultInfo *info)
#define ARG_exec_update2 exec, g, info
static CUresult on_exec_update2(__typeof__(&cuGraphExecUpdate_v2) real, CUgraphExec exec,
				CUgraph g, CUgraphExecUpdateResultInfo *info)
{
	struct cuda_update u;
	CUresult r;

	cuda_update_begin(&u, exec, g);
	r = real(exec, u.use, info);
	if (info && r != CUDA_SUCCESS && u.use != u.g)
		info->errorFromNode = NULL;
	return kept(cuda_update_end(&u, r, info ? &info->errorNode : NULL), &exec, g);
}

#define SIG_exec_destroy (CUgraphExec exec)
#define ARG_exec_destroy exec
static CUresult on_exec_destroy(__typeof__(&cuGraphExecDestroy) real, CUgraphExec exec)
{
	struct cuda_exec *e = cuda_exec_forget(exec);
	CUresult r;

	cuda_graph_gone(exec);
	r = real(exec);
	cuda_exec_drop(e);
	return r;
}

#define CU_GRAPH HOOK
#include "interpose/cuda_hook.def"
