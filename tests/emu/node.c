/* SPDX-License-Identifier: MIT */
/* node.c - nodes by type: from parameters to work, and back.
 *
 * Owns nothing. (1) All ways to add a node go through cuGraphAddNode's parameters, and so
 * do all ways to change one. (2) The pointers to a kernel's parameters that are given out
 * belong to the node, and are good until it is changed (as the real driver has it).
 * (3) Memory of an allocation node is there from the adding on; it is live from when the
 * node runs to when its free does (E9). Lock: the emulator's.
 */
#include "tests/emu/emu.h"

CUgraphNodeType node_type(const struct work *w)
{
	switch (w->kind) {
	case W_KERNEL: return CU_GRAPH_NODE_TYPE_KERNEL;
	case W_COPY: return CU_GRAPH_NODE_TYPE_MEMCPY;
	case W_SET: return CU_GRAPH_NODE_TYPE_MEMSET;
	case W_HOST: return CU_GRAPH_NODE_TYPE_HOST;
	case W_GRAPH:
	case W_CHILD: return CU_GRAPH_NODE_TYPE_GRAPH;
	case W_RECORD: return CU_GRAPH_NODE_TYPE_EVENT_RECORD;
	case W_WAIT: return CU_GRAPH_NODE_TYPE_WAIT_EVENT;
	case W_ALLOC: return CU_GRAPH_NODE_TYPE_MEM_ALLOC;
	case W_FREE: return CU_GRAPH_NODE_TYPE_MEM_FREE;
	case W_VALUE:
	case W_AWAIT: return CU_GRAPH_NODE_TYPE_BATCH_MEM_OP;
	default: return CU_GRAPH_NODE_TYPE_EMPTY;
	}
}

/* ---- parameters to work ------------------------------------------------------- */

static CUresult event_work(CUevent h, enum work_kind kind, struct work *w)
{
	struct event *e = obj_get(K_EVENT, (uintptr_t)h);

	if (!e)
		return CUDA_ERROR_INVALID_HANDLE;
	memset(w, 0, sizeof(*w));
	w->kind = kind;
	w->u.event = e;
	e->refs++;
	return CUDA_SUCCESS;
}

static CUresult child_work(CUgraph h, struct work *w)
{
	const struct graph *g = graph_of(h);

	if (!g)
		return CUDA_ERROR_INVALID_VALUE;
	memset(w, 0, sizeof(*w));
	w->kind = W_CHILD;
	w->u.child = graph_clone(g);
	w->u.child->owned = true;
	return CUDA_SUCCESS;
}

static CUresult alloc_work(CUDA_MEM_ALLOC_NODE_PARAMS_v2 *p, struct work *w)
{
	struct range *range;
	CUresult r;

	if (p->poolProps.allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
	    p->poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
	    !device_ok(p->poolProps.location.id))
		return CUDA_ERROR_INVALID_VALUE;
	r = async_alloc(pool_default(p->poolProps.location.id), p->bytesize, ctx_current(), &range);
	if (r)
		return r;
	p->dptr = range->addr;
	memset(w, 0, sizeof(*w));
	w->kind = W_ALLOC;
	w->u.memory.addr = range->addr;
	async_graph(w);
	memcpy(&w->u.memory.as, p, sizeof(w->u.memory.as));
	return CUDA_SUCCESS;
}

static CUresult free_work(CUdeviceptr ptr, struct work *w)
{
	const struct range *r = vm_find(ptr);

	if (!r || r->kind != R_ASYNC || r->addr != ptr)
		return CUDA_ERROR_INVALID_VALUE;
	memset(w, 0, sizeof(*w));
	w->kind = W_FREE;
	w->u.memory.addr = ptr;
	return CUDA_SUCCESS;
}

static CUresult kernel_work(const CUDA_KERNEL_NODE_PARAMS_v3 *p, struct work *w)
{
	CUDA_KERNEL_NODE_PARAMS_v2 q;
	struct ctx *c = p->ctx ? obj_get(K_CTX, (uintptr_t)p->ctx) : ctx_current();

	memcpy(&q, p, sizeof(q));
	return c ? function_work(&q, false, c, w) : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult host_work(const CUDA_HOST_NODE_PARAMS_v2 *p, struct work *w)
{
	if (!p->fn)
		return CUDA_ERROR_INVALID_VALUE;
	memset(w, 0, sizeof(*w));
	w->kind = W_HOST;
	w->u.host.fn = p->fn;
	w->u.host.data = p->userData;
	return CUDA_SUCCESS;
}

static CUresult make(CUgraphNodeParams *p, struct work *w)
{
	CUresult r;

	switch (p->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL: return kernel_work(&p->kernel, w);
	case CU_GRAPH_NODE_TYPE_MEMCPY: return copy_work(&p->memcpy.copyParams, w);
	case CU_GRAPH_NODE_TYPE_MEMSET: return set_work(&p->memset, w);
	case CU_GRAPH_NODE_TYPE_HOST: return host_work(&p->host, w);
	case CU_GRAPH_NODE_TYPE_GRAPH: return child_work(p->graph.graph, w);
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD: return event_work(p->eventRecord.event, W_RECORD, w);
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT: return event_work(p->eventWait.event, W_WAIT, w);
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC: return alloc_work(&p->alloc, w);
	case CU_GRAPH_NODE_TYPE_MEM_FREE: return free_work(p->free.dptr, w);
	case CU_GRAPH_NODE_TYPE_EMPTY: memset(w, 0, sizeof(*w)); r = CUDA_SUCCESS; break;
	default: r = CUDA_ERROR_NOT_SUPPORTED;
	}
	return r;
}

bool node_given(CUgraphNodeParams *p, CUgraphNodeType type, void *to, const void *from,
		size_t len)
{
	*p = (CUgraphNodeParams){ .type = type };
	if (from)
		memcpy(to, from, len);
	return from;
}

CUresult node_work(const CUgraphNodeParams *p, struct work *w)
{
	CUresult r;

	if (!ctx_current())
		return CUDA_ERROR_INVALID_CONTEXT;
	r = make((CUgraphNodeParams *)p, w);
	if (!r && !w->ctx)
		w->ctx = ctx_current();
	return r;
}

/* ---- adding ------------------------------------------------------------------- */

static CUresult add(CUgraphNode *out, CUgraph h, const CUgraphNode *deps, size_t n,
		    CUgraphNodeParams *p)
{
	struct graph *g = graph_of(h);
	struct work w;
	struct node *node;
	CUresult r;

	if (!out || !g || (n && !deps) || !p)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n; i++)
		if (!node_of(deps[i]) || node_of(deps[i])->graph != g)
			return CUDA_ERROR_INVALID_VALUE;
	r = node_work(p, &w);
	if (r)
		return r;
	node = graph_add(g, NULL, 0, &w);
	for (size_t i = 0; i < n; i++)
		node_depend(node, node_of(deps[i]));
	*out = (CUgraphNode)node->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphAddNode_v2(CUgraphNode *out, CUgraph g, const CUgraphNode *deps,
			     const CUgraphEdgeData *data, size_t n, CUgraphNodeParams *p)
{
	return add(out, g, deps, n, p);
}

CUresult i_cuGraphAddNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n,
			  CUgraphNodeParams *p)
{
	return add(out, g, deps, n, p);
}

CUresult i_cuGraphAddKernelNode_v2(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n,
				   const CUDA_KERNEL_NODE_PARAMS_v2 *k)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_KERNEL, &p.kernel, k, sizeof(*k)))
		return CUDA_ERROR_INVALID_VALUE;
	return add(out, g, deps, n, &p);
}

CUresult i_cuGraphAddKernelNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n,
				const CUDA_KERNEL_NODE_PARAMS_v1 *k)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_KERNEL, &p.kernel, k, sizeof(*k)))
		return CUDA_ERROR_INVALID_VALUE;
	return add(out, g, deps, n, &p);
}

CUresult i_cuGraphAddMemcpyNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n,
				const CUDA_MEMCPY3D *c, CUcontext ctx)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_MEMCPY, &p.memcpy.copyParams, c, sizeof(*c)))
		return CUDA_ERROR_INVALID_VALUE;
	return add(out, g, deps, n, &p);
}

CUresult i_cuGraphAddMemsetNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n,
				const CUDA_MEMSET_NODE_PARAMS_v1 *m, CUcontext ctx)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_MEMSET, &p.memset, m, sizeof(*m)))
		return CUDA_ERROR_INVALID_VALUE;
	return add(out, g, deps, n, &p);
}

CUresult i_cuGraphAddHostNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n,
			      const CUDA_HOST_NODE_PARAMS_v1 *h)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_HOST, &p.host, h, sizeof(*h)))
		return CUDA_ERROR_INVALID_VALUE;
	return add(out, g, deps, n, &p);
}

CUresult i_cuGraphAddChildGraphNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n,
				    CUgraph child)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_GRAPH };

	p.graph.graph = child;
	return add(out, g, deps, n, &p);
}

CUresult i_cuGraphAddEmptyNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_EMPTY };

	return add(out, g, deps, n, &p);
}

CUresult i_cuGraphAddEventRecordNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps,
				     size_t n, CUevent e)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_EVENT_RECORD };

	p.eventRecord.event = e;
	return add(out, g, deps, n, &p);
}

CUresult i_cuGraphAddEventWaitNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n,
				   CUevent e)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_WAIT_EVENT };

	p.eventWait.event = e;
	return add(out, g, deps, n, &p);
}

CUresult i_cuGraphAddMemAllocNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n,
				  CUDA_MEM_ALLOC_NODE_PARAMS_v1 *a)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEM_ALLOC };
	CUresult r;

	if (!a)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&p.alloc, a, sizeof(*a));
	r = add(out, g, deps, n, &p);
	a->dptr = p.alloc.dptr;
	return r;
}

CUresult i_cuGraphAddMemFreeNode(CUgraphNode *out, CUgraph g, const CUgraphNode *deps, size_t n,
				 CUdeviceptr ptr)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEM_FREE };

	p.free.dptr = ptr;
	return add(out, g, deps, n, &p);
}

/* ---- asking ------------------------------------------------------------------- */

static struct node *of_kind(CUgraphNode h, enum work_kind kind)
{
	struct node *n = node_of(h);

	return n && n->w.kind == kind ? n : NULL;
}

CUresult i_cuGraphNodeGetType(CUgraphNode h, CUgraphNodeType *type)
{
	const struct node *n = node_of(h);

	if (!n || !type)
		return CUDA_ERROR_INVALID_VALUE;
	*type = node_type(&n->w);
	return CUDA_SUCCESS;
}

void node_params(struct node *n, CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
	const struct work *w = &n->w;
	unsigned count = 0;
	size_t offset;

	while (function_param(w->u.kernel.fn, count, &offset, NULL) == CUDA_SUCCESS)
		count++;
	free(n->ptrs);
	n->ptrs = calloc(count + 1, sizeof(void *));
	if (!n->ptrs)
		abort();
	for (unsigned i = 0; i < count; i++) {
		function_param(w->u.kernel.fn, i, &offset, NULL);
		n->ptrs[i] = w->u.kernel.params + offset;
	}
	memset(p, 0, sizeof(*p));
	memcpy(&p->gridDimX, w->u.kernel.grid, sizeof(w->u.kernel.grid));
	memcpy(&p->blockDimX, w->u.kernel.block, sizeof(w->u.kernel.block));
	p->sharedMemBytes = w->u.kernel.shared;
	p->kernelParams = count ? n->ptrs : NULL;
	p->kern = w->u.kernel.kern ? (CUkernel)w->u.kernel.kern->handle : NULL;
	p->func = p->kern ? NULL : (CUfunction)w->u.kernel.fn->handle;
	p->ctx = (CUcontext)w->ctx->handle;
}

CUresult i_cuGraphKernelNodeGetParams_v2(CUgraphNode h, CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
	struct node *n = of_kind(h, W_KERNEL);

	if (!n || !p)
		return CUDA_ERROR_INVALID_VALUE;
	node_params(n, p);
	return CUDA_SUCCESS;
}

CUresult i_cuGraphKernelNodeGetParams(CUgraphNode h, CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	CUDA_KERNEL_NODE_PARAMS_v2 q;
	CUresult r = i_cuGraphKernelNodeGetParams_v2(h, &q);

	if (r || !p)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	memcpy(p, &q, sizeof(*p));
	p->func = (CUfunction)node_of(h)->w.u.kernel.fn->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphMemcpyNodeGetParams(CUgraphNode h, CUDA_MEMCPY3D *p)
{
	const struct node *n = of_kind(h, W_COPY);

	if (!n || !p)
		return CUDA_ERROR_INVALID_VALUE;
	*p = n->w.u.copy.as;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphMemsetNodeGetParams(CUgraphNode h, CUDA_MEMSET_NODE_PARAMS_v1 *p)
{
	const struct node *n = of_kind(h, W_SET);

	if (!n || !p)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(p, &n->w.u.set, sizeof(*p));
	return CUDA_SUCCESS;
}

CUresult i_cuGraphHostNodeGetParams(CUgraphNode h, CUDA_HOST_NODE_PARAMS_v1 *p)
{
	const struct node *n = of_kind(h, W_HOST);

	if (!n || !p)
		return CUDA_ERROR_INVALID_VALUE;
	p->fn = n->w.u.host.fn;
	p->userData = n->w.u.host.data;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphChildGraphNodeGetGraph(CUgraphNode h, CUgraph *out)
{
	const struct node *n = of_kind(h, W_CHILD);

	if (!n || !out)
		return CUDA_ERROR_INVALID_VALUE;
	*out = (CUgraph)n->w.u.child->handle;
	return CUDA_SUCCESS;
}

static CUresult event_of_node(CUgraphNode h, enum work_kind kind, CUevent *out)
{
	const struct node *n = of_kind(h, kind);

	if (!n || !out)
		return CUDA_ERROR_INVALID_VALUE;
	*out = (CUevent)n->w.u.event->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphEventRecordNodeGetEvent(CUgraphNode h, CUevent *out)
{
	return event_of_node(h, W_RECORD, out);
}

CUresult i_cuGraphEventWaitNodeGetEvent(CUgraphNode h, CUevent *out)
{
	return event_of_node(h, W_WAIT, out);
}

CUresult i_cuGraphMemAllocNodeGetParams(CUgraphNode h, CUDA_MEM_ALLOC_NODE_PARAMS_v1 *p)
{
	const struct node *n = of_kind(h, W_ALLOC);

	if (!n || !p)
		return CUDA_ERROR_INVALID_VALUE;
	*p = n->w.u.memory.as;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphMemFreeNodeGetParams(CUgraphNode h, CUdeviceptr *out)
{
	const struct node *n = of_kind(h, W_FREE);

	if (!n || !out)
		return CUDA_ERROR_INVALID_VALUE;
	*out = n->w.u.memory.addr;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphKernelNodeGetAttribute(CUgraphNode h, CUkernelNodeAttrID id,
					 CUkernelNodeAttrValue *value)
{
	const struct node *n = of_kind(h, W_KERNEL);

	if (!n || !value)
		return CUDA_ERROR_INVALID_VALUE;
	memset(value, 0, sizeof(*value));
	if (id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
		value->cooperative = n->w.u.kernel.cooperative;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphKernelNodeSetAttribute(CUgraphNode h, CUkernelNodeAttrID id,
					 const CUkernelNodeAttrValue *value)
{
	struct node *n = of_kind(h, W_KERNEL);

	if (!n || !value)
		return CUDA_ERROR_INVALID_VALUE;
	if (id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
		n->w.u.kernel.cooperative = value->cooperative;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphKernelNodeCopyAttributes(CUgraphNode to, CUgraphNode from)
{
	struct node *a = of_kind(to, W_KERNEL);
	const struct node *b = of_kind(from, W_KERNEL);

	if (!a || !b)
		return CUDA_ERROR_INVALID_VALUE;
	a->w.u.kernel.cooperative = b->w.u.kernel.cooperative;
	return CUDA_SUCCESS;
}

/* ---- changing ----------------------------------------------------------------- */

static CUresult change(CUgraphNode h, const CUgraphNodeParams *p)
{
	struct node *n = node_of(h);
	struct work w;
	CUresult r;

	if (!n || node_type(&n->w) != p->type)
		return CUDA_ERROR_INVALID_VALUE;
	r = node_work(p, &w);
	if (r)
		return r;
	work_drop(&n->w);
	n->w = w;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphNodeSetParams(CUgraphNode h, CUgraphNodeParams *p)
{
	return p ? change(h, p) : CUDA_ERROR_INVALID_VALUE;
}

CUresult i_cuGraphKernelNodeSetParams_v2(CUgraphNode h, const CUDA_KERNEL_NODE_PARAMS_v2 *k)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_KERNEL, &p.kernel, k, sizeof(*k)))
		return CUDA_ERROR_INVALID_VALUE;
	return change(h, &p);
}

CUresult i_cuGraphKernelNodeSetParams(CUgraphNode h, const CUDA_KERNEL_NODE_PARAMS_v1 *k)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_KERNEL, &p.kernel, k, sizeof(*k)))
		return CUDA_ERROR_INVALID_VALUE;
	return change(h, &p);
}

CUresult i_cuGraphMemcpyNodeSetParams(CUgraphNode h, const CUDA_MEMCPY3D *c)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_MEMCPY, &p.memcpy.copyParams, c, sizeof(*c)))
		return CUDA_ERROR_INVALID_VALUE;
	return change(h, &p);
}

CUresult i_cuGraphMemsetNodeSetParams(CUgraphNode h, const CUDA_MEMSET_NODE_PARAMS_v1 *m)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_MEMSET, &p.memset, m, sizeof(*m)))
		return CUDA_ERROR_INVALID_VALUE;
	return change(h, &p);
}

CUresult i_cuGraphHostNodeSetParams(CUgraphNode h, const CUDA_HOST_NODE_PARAMS_v1 *q)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_HOST, &p.host, q, sizeof(*q)))
		return CUDA_ERROR_INVALID_VALUE;
	return change(h, &p);
}

CUresult i_cuGraphEventRecordNodeSetEvent(CUgraphNode h, CUevent e)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_EVENT_RECORD };

	p.eventRecord.event = e;
	return change(h, &p);
}

CUresult i_cuGraphEventWaitNodeSetEvent(CUgraphNode h, CUevent e)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_WAIT_EVENT };

	p.eventWait.event = e;
	return change(h, &p);
}
