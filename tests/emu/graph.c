/* SPDX-License-Identifier: MIT */
/* graph.c - graphs: nodes of work, and what depends on what.
 *
 * Owns graphs and nodes. (1) A node's work is its own copy of what the program said.
 * (2) Lists are given in the order of adding; NULL for the list asks for the number.
 * (3) Nodes are what node.c makes of parameters. Lock: the emulator's.
 */
#include "tests/emu/emu.h"

struct graph *graph_of(CUgraph h)
{
	return obj_get(K_GRAPH, (uintptr_t)h);
}

struct node *node_of(CUgraphNode h)
{
	return obj_get(K_NODE, (uintptr_t)h);
}

struct graph *graph_new(void)
{
	struct graph *g = calloc(1, sizeof(*g));

	if (!g)
		abort();
	g->handle = obj_new(K_GRAPH, g);
	return g;
}

bool node_depend(struct node *n, struct node *on)
{
	for (unsigned i = 0; i < n->ndeps; i++)
		if (n->deps[i] == on)
			return false;
	n->deps = realloc(n->deps, (n->ndeps + 1) * sizeof(struct node *));
	if (!n->deps)
		abort();
	n->deps[n->ndeps++] = on;
	return true;
}

static bool undepend(struct node *n, const struct node *on)
{
	for (unsigned i = 0; i < n->ndeps; i++) {
		if (n->deps[i] != on)
			continue;
		memmove(n->deps + i, n->deps + i + 1, (n->ndeps - i - 1) * sizeof(struct node *));
		n->ndeps--;
		return true;
	}
	return false;
}

struct node *graph_add(struct graph *g, struct node **deps, unsigned ndeps, struct work *w)
{
	struct node *n = calloc(1, sizeof(*n));

	g->nodes = realloc(g->nodes, (g->n + 1) * sizeof(struct node *));
	if (!n || !g->nodes)
		abort();
	n->graph = g;
	n->w = *w;
	n->handle = obj_new(K_NODE, n);
	for (unsigned i = 0; i < ndeps; i++)
		node_depend(n, deps[i]);
	g->nodes[g->n++] = n;
	return n;
}

static void node_end(struct node *n)
{
	work_drop(&n->w);
	obj_end(n->handle);
	free(n->deps);
	free(n->ptrs);
	free(n);
}

void graph_end(struct graph *g)
{
	for (unsigned i = 0; i < g->n; i++)
		node_end(g->nodes[i]);
	obj_end(g->handle);
	free(g->nodes);
	free(g);
}

static unsigned index_of(const struct graph *g, const struct node *n)
{
	unsigned i = 0;

	while (g->nodes[i] != n)
		i++;
	return i;
}

struct graph *graph_clone(const struct graph *g)
{
	struct graph *c = graph_new();

	for (unsigned i = 0; i < g->n; i++) {
		struct work w;

		work_dup(&w, &g->nodes[i]->w);
		graph_add(c, NULL, 0, &w)->origin = g->nodes[i]->handle;
	}
	for (unsigned i = 0; i < g->n; i++)
		for (unsigned d = 0; d < g->nodes[i]->ndeps; d++)
			node_depend(c->nodes[i], c->nodes[index_of(g, g->nodes[i]->deps[d])]);
	return c;
}

/* What a launch of it is captured as. */
struct graph *graph_of_image(const struct image *im)
{
	struct graph *g = graph_new();

	for (unsigned i = 0; i < im->n; i++) {
		struct work w;

		work_dup(&w, &im->work[i]);
		if (w.kind == W_GRAPH) {
			struct image *child = w.u.image;

			w.kind = W_CHILD;
			w.u.child = graph_of_image(child);
			image_put(child);
		}
		graph_add(g, NULL, 0, &w);
	}
	for (unsigned i = 0; i < im->n; i++)
		for (unsigned d = 0; d < im->ndeps[i]; d++)
			node_depend(g->nodes[i], g->nodes[im->deps[i][d]]);
	return g;
}

/* ---- the driver's functions ------------------------------------------------------------ */

CUresult i_cuGraphCreate(CUgraph *out, unsigned int flags)
{
	if (!out || flags)
		return CUDA_ERROR_INVALID_VALUE;
	*out = (CUgraph)graph_new()->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphDestroy(CUgraph h)
{
	struct graph *g = graph_of(h);

	if (!g || g->owned)
		return CUDA_ERROR_INVALID_VALUE;
	graph_end(g);
	return CUDA_SUCCESS;
}

CUresult i_cuGraphClone(CUgraph *out, CUgraph h)
{
	const struct graph *g = graph_of(h);

	if (!out || !g)
		return CUDA_ERROR_INVALID_VALUE;
	*out = (CUgraph)graph_clone(g)->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphNodeFindInClone(CUgraphNode *out, CUgraphNode h, CUgraph clone)
{
	const struct graph *g = graph_of(clone);

	for (unsigned i = 0; g && out && i < g->n; i++)
		if (g->nodes[i]->origin == (uintptr_t)h) {
			*out = (CUgraphNode)g->nodes[i]->handle;
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_INVALID_VALUE;
}

CUresult i_cuGraphDestroyNode(CUgraphNode h)
{
	struct node *n = node_of(h);
	struct graph *g;
	unsigned i;

	if (!n)
		return CUDA_ERROR_INVALID_VALUE;
	g = n->graph;
	i = index_of(g, n);
	memmove(g->nodes + i, g->nodes + i + 1, (g->n - i - 1) * sizeof(struct node *));
	g->n--;
	for (i = 0; i < g->n; i++)
		undepend(g->nodes[i], n);
	node_end(n);
	return CUDA_SUCCESS;
}

/* ---- lists ------------------------------------------------------------------------------- */

struct list {
	CUgraphNode *out;
	size_t room, n;
};

static void put(struct list *l, const struct node *n)
{
	if (l->out && l->n < l->room)
		l->out[l->n] = (CUgraphNode)n->handle;
	l->n++;
}

static CUresult done(struct list *l, size_t *count)
{
	for (size_t i = l->n; l->out && i < l->room; i++)
		l->out[i] = NULL;
	*count = l->out && l->room < l->n ? l->room : l->n;
	return CUDA_SUCCESS;
}

CUresult i_cuGraphGetNodes(CUgraph h, CUgraphNode *out, size_t *count)
{
	const struct graph *g = graph_of(h);
	struct list l = { out, count ? *count : 0, 0 };

	if (!g || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < g->n; i++)
		put(&l, g->nodes[i]);
	return done(&l, count);
}

CUresult i_cuGraphGetRootNodes(CUgraph h, CUgraphNode *out, size_t *count)
{
	const struct graph *g = graph_of(h);
	struct list l = { out, count ? *count : 0, 0 };

	if (!g || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < g->n; i++)
		if (!g->nodes[i]->ndeps)
			put(&l, g->nodes[i]);
	return done(&l, count);
}

CUresult i_cuGraphGetEdges_v2(CUgraph h, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *data,
			      size_t *count)
{
	const struct graph *g = graph_of(h);
	struct list a = { from, count ? *count : 0, 0 }, b = { to, count ? *count : 0, 0 };

	if (!g || !count || !from != !to)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < g->n; i++)
		for (unsigned d = 0; d < g->nodes[i]->ndeps; d++) {
			put(&a, g->nodes[i]->deps[d]);
			put(&b, g->nodes[i]);
		}
	if (data)
		memset(data, 0, (a.room < a.n ? a.room : a.n) * sizeof(*data));
	done(&a, count);
	return done(&b, count);
}

CUresult i_cuGraphGetEdges(CUgraph h, CUgraphNode *from, CUgraphNode *to, size_t *count)
{
	return i_cuGraphGetEdges_v2(h, from, to, NULL, count);
}

CUresult i_cuGraphNodeGetDependencies_v2(CUgraphNode h, CUgraphNode *out, CUgraphEdgeData *data,
					 size_t *count)
{
	const struct node *n = node_of(h);
	struct list l = { out, count ? *count : 0, 0 };

	if (!n || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < n->ndeps; i++)
		put(&l, n->deps[i]);
	if (data)
		memset(data, 0, (l.room < l.n ? l.room : l.n) * sizeof(*data));
	return done(&l, count);
}

CUresult i_cuGraphNodeGetDependencies(CUgraphNode h, CUgraphNode *out, size_t *count)
{
	return i_cuGraphNodeGetDependencies_v2(h, out, NULL, count);
}

CUresult i_cuGraphNodeGetDependentNodes_v2(CUgraphNode h, CUgraphNode *out, CUgraphEdgeData *data,
					   size_t *count)
{
	const struct node *n = node_of(h);
	struct list l = { out, count ? *count : 0, 0 };

	if (!n || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < n->graph->n; i++)
		for (unsigned d = 0; d < n->graph->nodes[i]->ndeps; d++)
			if (n->graph->nodes[i]->deps[d] == n)
				put(&l, n->graph->nodes[i]);
	if (data)
		memset(data, 0, (l.room < l.n ? l.room : l.n) * sizeof(*data));
	return done(&l, count);
}

CUresult i_cuGraphNodeGetDependentNodes(CUgraphNode h, CUgraphNode *out, size_t *count)
{
	return i_cuGraphNodeGetDependentNodes_v2(h, out, NULL, count);
}

/* ---- edges ---------------------------------------------------------------------------------- */

static CUresult edges(CUgraph h, const CUgraphNode *from, const CUgraphNode *to, size_t n, bool add)
{
	const struct graph *g = graph_of(h);

	if (!g || (n && (!from || !to)))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n; i++) {
		struct node *a = node_of(from[i]), *b = node_of(to[i]);

		if (!a || !b || a == b || a->graph != g || b->graph != g)
			return CUDA_ERROR_INVALID_VALUE;
		if (!(add ? node_depend(b, a) : undepend(b, a)))
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

CUresult i_cuGraphAddDependencies_v2(CUgraph h, const CUgraphNode *from, const CUgraphNode *to,
				     const CUgraphEdgeData *data, size_t n)
{
	return edges(h, from, to, n, true);
}

CUresult i_cuGraphAddDependencies(CUgraph h, const CUgraphNode *from, const CUgraphNode *to,
				  size_t n)
{
	return edges(h, from, to, n, true);
}

CUresult i_cuGraphRemoveDependencies_v2(CUgraph h, const CUgraphNode *from, const CUgraphNode *to,
					const CUgraphEdgeData *data, size_t n)
{
	return edges(h, from, to, n, false);
}

CUresult i_cuGraphRemoveDependencies(CUgraph h, const CUgraphNode *from, const CUgraphNode *to,
				     size_t n)
{
	return edges(h, from, to, n, false);
}
