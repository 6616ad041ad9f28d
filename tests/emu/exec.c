/* SPDX-License-Identifier: MIT */
/* exec.c - graphs made ready, changed and launched (E11).
 *
 * Owns images and executable graphs.
 * (1) An image is what a launch runs. It does not change while it is queued: whoever
 *     changes an executable graph then gets an image of its own.
 * (2) Nodes run one at a time, in an order drawn anew for each launch that keeps every
 *     dependency. Launches of one executable graph run one after another.
 * (3) Events that nodes record are recorded when the launch has ended, and those they
 *     wait for are waited for before it begins: both are allowed, and stricter.
 * Lock: the emulator's; images are run without it.
 */
#include "tests/emu/emu.h"

#include <unistd.h>

/* ---- images ------------------------------------------------------------------- */

static struct image *room_for(unsigned n)
{
	struct image *im = calloc(1, sizeof(*im));

	if (!im)
		abort();
	im->n = n;
	im->refs = 1;
	im->work = calloc(n + 1, sizeof(*im->work));
	im->deps = calloc(n + 1, sizeof(unsigned *));
	im->ndeps = calloc(n + 1, sizeof(unsigned));
	im->origin = calloc(n + 1, sizeof(uintptr_t));
	im->disabled = calloc(n + 1, sizeof(bool));
	if (!im->work || !im->deps || !im->ndeps || !im->origin || !im->disabled)
		abort();
	return im;
}

static bool acyclic(const struct image *im)
{
	bool *done = calloc(im->n + 1, sizeof(bool));
	unsigned left = im->n;
	bool moved = true;

	while (left && moved) {
		moved = false;
		for (unsigned i = 0; i < im->n; i++) {
			bool ready = !done[i];

			for (unsigned d = 0; d < im->ndeps[i]; d++)
				ready &= done[im->deps[i][d]];
			if (!ready)
				continue;
			done[i] = moved = true;
			left--;
		}
	}
	free(done);
	return !left;
}

/* A child becomes an image in its parent's, and its nodes are found by their own
 * handles; false: it has a cycle. */
static bool put_work(struct work *to, const struct work *from)
{
	if (from->kind != W_CHILD) {
		work_dup(to, from);
		return true;
	}
	*to = *from;
	to->u.image = image_new(from->u.child);
	to->kind = to->u.image ? W_GRAPH : W_EMPTY;
	return to->kind == W_GRAPH;
}

struct image *image_new(const struct graph *g)
{
	struct image *im = room_for(g->n);
	bool right = true;

	for (unsigned i = 0; i < g->n; i++) {
		const struct node *n = g->nodes[i];

		right &= put_work(&im->work[i], &n->w);
		im->origin[i] = n->handle;
		im->deps[i] = calloc(n->ndeps + 1, sizeof(unsigned));
		im->ndeps[i] = n->ndeps;
		for (unsigned d = 0; d < n->ndeps; d++)
			while (g->nodes[im->deps[i][d]] != n->deps[d])
				im->deps[i][d]++;
	}
	if (right && acyclic(im))
		return im;
	image_put(im);
	return NULL;
}

struct image *image_dup(const struct image *im)
{
	struct image *to = room_for(im->n);

	for (unsigned i = 0; i < im->n; i++) {
		work_dup(&to->work[i], &im->work[i]);
		to->origin[i] = im->origin[i];
		to->disabled[i] = im->disabled[i];
		to->ndeps[i] = im->ndeps[i];
		to->deps[i] = calloc(im->ndeps[i] + 1, sizeof(unsigned));
		if (!to->deps[i])
			abort();
		memcpy(to->deps[i], im->deps[i], im->ndeps[i] * sizeof(unsigned));
	}
	return to;
}

struct image *image_get(struct image *im)
{
	im->refs++;
	return im;
}

void image_put(struct image *im)
{
	if (--im->refs)
		return;
	for (unsigned i = 0; i < im->n; i++) {
		work_drop(&im->work[i]);
		free(im->deps[i]);
	}
	free(im->work);
	free(im->deps);
	free(im->ndeps);
	free(im->origin);
	free(im->disabled);
	free(im);
}

bool image_reaches(const struct image *im, uint64_t addr, uint64_t size)
{
	for (unsigned i = 0; i < im->n; i++)
		if (!im->disabled[i] && work_reaches(&im->work[i], addr, size))
			return true;
	return false;
}

static uint64_t draw(void)
{
	uint64_t r;

	pthread_mutex_lock(&emu.lock);
	r = emu_random();
	pthread_mutex_unlock(&emu.lock);
	return r;
}

void image_run(struct image *im, uint64_t seq)
{
	bool *done = calloc(im->n + 1, sizeof(bool));
	unsigned *ready = calloc(im->n + 1, sizeof(unsigned));

	for (unsigned left = im->n; left; left--) {
		unsigned n = 0, pick;
		bool dead = false;

		for (unsigned i = 0; i < im->n; i++) {
			bool can = !done[i];

			for (unsigned d = 0; d < im->ndeps[i]; d++)
				can &= done[im->deps[i][d]];
			if (can)
				ready[n++] = i;
		}
		pick = ready[draw() % n];
		dead = im->work[pick].ctx->sticky;
		if (!dead && !im->disabled[pick])
			work_run(&im->work[pick], seq);
		done[pick] = true;
	}
	free(done);
	free(ready);
}

/* ---- instantiating ------------------------------------------------------------ */

static struct exec *exec_of(CUgraphExec h)
{
	return obj_get(K_EXEC, (uintptr_t)h);
}

static CUresult instantiate(CUgraphExec *out, CUgraph h, cuuint64_t flags)
{
	const cuuint64_t known = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH |
				 CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
				 CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
	const struct graph *g = graph_of(h);
	struct image *im;
	struct exec *e;

	if (!out || !g || flags & ~known)
		return g && out ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
	im = image_new(g);
	if (!im)
		return CUDA_ERROR_INVALID_VALUE;
	e = calloc(1, sizeof(*e));
	if (!e)
		abort();
	e->im = im;
	e->flags = flags;
	e->handle = obj_new(K_EXEC, e);
	*out = (CUgraphExec)e->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph g, unsigned long long flags)
{
	return instantiate(out, g, flags);
}

CUresult i_cuGraphInstantiateWithParams(CUgraphExec *out, CUgraph g,
					CUDA_GRAPH_INSTANTIATE_PARAMS *p)
{
	CUresult r;

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	r = instantiate(out, g, p->flags);
	p->hErrNode_out = NULL;
	p->result_out = r ? CUDA_GRAPH_INSTANTIATE_ERROR : CUDA_GRAPH_INSTANTIATE_SUCCESS;
	return r;
}

CUresult i_cuGraphInstantiate_v2(CUgraphExec *out, CUgraph g, CUgraphNode *bad, char *log,
				 size_t size)
{
	if (bad)
		*bad = NULL;
	if (log && size)
		log[0] = 0;
	return instantiate(out, g, 0);
}

CUresult i_cuGraphInstantiate(CUgraphExec *out, CUgraph g, CUgraphNode *bad, char *log, size_t size)
{
	return i_cuGraphInstantiate_v2(out, g, bad, log, size);
}

CUresult i_cuGraphExecDestroy(CUgraphExec h)
{
	struct exec *e = exec_of(h);

	if (!e)
		return CUDA_ERROR_INVALID_VALUE;
	obj_end(e->handle);
	image_put(e->im);
	op_put(e->last);
	free(e);
	return CUDA_SUCCESS;
}

CUresult i_cuGraphExecGetFlags(CUgraphExec h, cuuint64_t *flags)
{
	const struct exec *e = exec_of(h);

	if (!e || !flags)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = e->flags;
	return CUDA_SUCCESS;
}

/* ---- launching ---------------------------------------------------------------- */

static void events(const struct image *im, struct op *op)
{
	for (unsigned i = 0; i < im->n; i++) {
		const struct work *w = &im->work[i];

		if (im->disabled[i])
			continue;
		if (w->kind == W_WAIT && w->u.event)
			op_depend(op, w->u.event->op);
		if (w->kind == W_GRAPH)
			events(w->u.image, op);
	}
	for (unsigned i = 0; i < im->n; i++) {
		struct event *e = im->work[i].u.event;

		if (im->disabled[i] || im->work[i].kind != W_RECORD || !e)
			continue;
		op_put(e->op);
		e->op = op_get(op);
		e->capture = NULL;
	}
}

CUresult i_cuGraphLaunch(CUgraphExec h, CUstream hs)
{
	struct work w = { .kind = W_GRAPH };
	struct exec *e = exec_of(h);
	CUresult r;
	struct stream *s = stream_get(hs, &r);
	struct op *op;

	if (!e || !s)
		return s ? CUDA_ERROR_INVALID_VALUE : r;
	w.u.image = image_get(e->im);
	r = stream_submit_op(s, &w, &op);
	if (r || !op)
		return r;
	op_depend(op, e->last);
	op_put(e->last);
	e->last = op;
	events(e->im, op);
	return CUDA_SUCCESS;
}

CUresult i_cuGraphUpload(CUgraphExec h, CUstream hs)
{
	CUresult r;

	if (!exec_of(h))
		return CUDA_ERROR_INVALID_VALUE;
	stream_get(hs, &r);
	return r;
}

/* ---- changing ----------------------------------------------------------------- */

/* Its image, which nobody else has. */
static struct image *own(struct exec *e)
{
	if (e->im->refs > 1) {
		struct image *im = image_dup(e->im);

		image_put(e->im);
		e->im = im;
	}
	return e->im;
}

static struct work *find(struct image *im, uintptr_t node, bool **disabled)
{
	for (unsigned i = 0; i < im->n; i++) {
		struct work *w = &im->work[i];

		if (im->origin[i] == node) {
			*disabled = &im->disabled[i];
			return w;
		}
		w = w->kind == W_GRAPH ? find(w->u.image, node, disabled) : NULL;
		if (w)
			return w;
	}
	return NULL;
}

static bool same_shape(const struct image *a, const struct image *b, unsigned *at);
static void keep_handles(struct image *to, const struct image *from);

static CUresult change(CUgraphExec h, CUgraphNode node, const CUgraphNodeParams *p)
{
	struct exec *e = exec_of(h);
	struct work *at, said, w;
	bool *disabled, right;
	unsigned unused;
	CUresult r;

	at = e && node ? find(own(e), (uintptr_t)node, &disabled) : NULL;
	if (!at || node_type(at) != p->type || p->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC)
		return CUDA_ERROR_INVALID_VALUE;
	r = node_work(p, &said);
	if (r)
		return r;
	right = put_work(&w, &said);
	work_drop(&said);
	if (!right || (w.kind == W_GRAPH && !same_shape(at->u.image, w.u.image, &unused))) {
		work_drop(&w);
		return CUDA_ERROR_INVALID_VALUE;
	}
	if (w.kind == W_GRAPH)
		keep_handles(w.u.image, at->u.image);
	work_drop(at);
	*at = w;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphExecNodeSetParams(CUgraphExec h, CUgraphNode n, CUgraphNodeParams *p)
{
	return p ? change(h, n, p) : CUDA_ERROR_INVALID_VALUE;
}

CUresult i_cuGraphExecKernelNodeSetParams_v2(CUgraphExec h, CUgraphNode n,
					     const CUDA_KERNEL_NODE_PARAMS_v2 *k)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_KERNEL, &p.kernel, k, sizeof(*k)))
		return CUDA_ERROR_INVALID_VALUE;
	return change(h, n, &p);
}

CUresult i_cuGraphExecKernelNodeSetParams(CUgraphExec h, CUgraphNode n,
					  const CUDA_KERNEL_NODE_PARAMS_v1 *k)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_KERNEL, &p.kernel, k, sizeof(*k)))
		return CUDA_ERROR_INVALID_VALUE;
	return change(h, n, &p);
}

CUresult i_cuGraphExecMemcpyNodeSetParams(CUgraphExec h, CUgraphNode n, const CUDA_MEMCPY3D *c,
					  CUcontext ctx)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_MEMCPY, &p.memcpy.copyParams, c, sizeof(*c)))
		return CUDA_ERROR_INVALID_VALUE;
	return change(h, n, &p);
}

CUresult i_cuGraphExecMemsetNodeSetParams(CUgraphExec h, CUgraphNode n,
					  const CUDA_MEMSET_NODE_PARAMS_v1 *m, CUcontext ctx)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_MEMSET, &p.memset, m, sizeof(*m)))
		return CUDA_ERROR_INVALID_VALUE;
	return change(h, n, &p);
}

CUresult i_cuGraphExecHostNodeSetParams(CUgraphExec h, CUgraphNode n,
					const CUDA_HOST_NODE_PARAMS_v1 *q)
{
	CUgraphNodeParams p;

	if (!node_given(&p, CU_GRAPH_NODE_TYPE_HOST, &p.host, q, sizeof(*q)))
		return CUDA_ERROR_INVALID_VALUE;
	return change(h, n, &p);
}

CUresult i_cuGraphExecChildGraphNodeSetParams(CUgraphExec h, CUgraphNode n, CUgraph child)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_GRAPH };

	p.graph.graph = child;
	return change(h, n, &p);
}

CUresult i_cuGraphExecEventRecordNodeSetEvent(CUgraphExec h, CUgraphNode n, CUevent e)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_EVENT_RECORD };

	p.eventRecord.event = e;
	return change(h, n, &p);
}

CUresult i_cuGraphExecEventWaitNodeSetEvent(CUgraphExec h, CUgraphNode n, CUevent e)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_WAIT_EVENT };

	p.eventWait.event = e;
	return change(h, n, &p);
}

CUresult i_cuGraphNodeSetEnabled(CUgraphExec h, CUgraphNode n, unsigned int on)
{
	struct exec *e = exec_of(h);
	bool *disabled;
	const struct work *w = e ? find(own(e), (uintptr_t)n, &disabled) : NULL;

	if (!w || (w->kind != W_KERNEL && w->kind != W_SET && w->kind != W_COPY))
		return CUDA_ERROR_INVALID_VALUE;
	*disabled = !on;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphNodeGetEnabled(CUgraphExec h, CUgraphNode n, unsigned int *on)
{
	struct exec *e = exec_of(h);
	bool *disabled;

	if (!e || !on || !find(e->im, (uintptr_t)n, &disabled))
		return CUDA_ERROR_INVALID_VALUE;
	*on = !*disabled;
	return CUDA_SUCCESS;
}

/* ---- updating a whole one ----------------------------------------------------- */

static bool same_shape(const struct image *a, const struct image *b, unsigned *at)
{
	*at = 0;
	if (a->n != b->n)
		return false;
	for (unsigned i = 0; i < a->n; i++) {
		unsigned inner;

		*at = i;
		if (a->ndeps[i] != b->ndeps[i] ||
		    memcmp(a->deps[i], b->deps[i], a->ndeps[i] * sizeof(unsigned)))
			return false;
		if (a->work[i].kind == W_GRAPH && b->work[i].kind == W_GRAPH &&
		    !same_shape(a->work[i].u.image, b->work[i].u.image, &inner))
			return false;
	}
	return true;
}

static bool same_types(const struct image *a, const struct image *b, unsigned *at)
{
	for (unsigned i = 0; i < a->n; i++) {
		*at = i;
		if (node_type(&a->work[i]) != node_type(&b->work[i]))
			return false;
	}
	return true;
}

static void keep_handles(struct image *to, const struct image *from)
{
	for (unsigned i = 0; i < to->n; i++) {
		to->origin[i] = from->origin[i];
		to->disabled[i] = from->disabled[i];
		if (to->work[i].kind == W_GRAPH && from->work[i].kind == W_GRAPH)
			keep_handles(to->work[i].u.image, from->work[i].u.image);
	}
}

CUresult i_cuGraphExecUpdate_v2(CUgraphExec h, CUgraph hg, CUgraphExecUpdateResultInfo *info)
{
	struct exec *e = exec_of(h);
	const struct graph *g = graph_of(hg);
	struct image *im;
	unsigned at = 0;

	if (!e || !g || !info)
		return CUDA_ERROR_INVALID_VALUE;
	memset(info, 0, sizeof(*info));
	im = image_new(g);
	if (!im || !same_shape(e->im, im, &at))
		info->result = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
	else if (!same_types(e->im, im, &at))
		info->result = CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
	if (info->result) {
		info->errorNode = at < g->n ? (CUgraphNode)g->nodes[at]->handle : NULL;
		if (im)
			image_put(im);
		return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
	}
	keep_handles(im, e->im);
	image_put(e->im);
	e->im = im;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphExecUpdate(CUgraphExec h, CUgraph g, CUgraphNode *bad,
			     CUgraphExecUpdateResult *result)
{
	CUgraphExecUpdateResultInfo info;
	CUresult r = i_cuGraphExecUpdate_v2(h, g, &info);

	if (r == CUDA_ERROR_INVALID_VALUE)
		return r;
	if (bad)
		*bad = info.errorNode;
	if (result)
		*result = info.result;
	return r;
}
