/* SPDX-License-Identifier: MIT */
/* graph.c - a token's pass as a graph.
 *
 *   none --first token: captured or built, instantiated--> ready
 *   ready --device: launched; params, build: steps set, launched--> ready
 *   ready --update: captured anew, the old one updated, launched--> ready
 *
 * Owns the graph and what was instantiated of it; lock: none.
 */
#include "tests/engine/engine.h"

#include <stdlib.h>
#include <string.h>

static CUgraph captured(struct gpu *g, struct step at)
{
	CUgraph graph;

	ck(cuStreamBeginCapture_v2(g->lane[0].stream,
				   CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	pass(g, 1, at);
	ck(cuStreamEndCapture(g->lane[0].stream, &graph));
	return graph;
}

static CUgraph built(struct gpu *g, struct step at)
{
	CUgraph graph;

	ck(cuGraphCreate(&graph, 0));
	g->building = graph;
	for (int i = 0; i < LANES_MAX; i++)
		g->lane[i].n_last = 0;
	pass(g, 1, at);
	g->building = NULL;
	return graph;
}

/* Which kernel F is; KERNELS: none of ours. */
static int kernel_of(const struct gpu *g, CUfunction f)
{
	int k = 0;

	while (k < KERNELS && g->f[k] != f)
		k++;
	return k;
}

/* Keeps the nodes whose arguments hold the step. */
static void find_nodes(struct gpu *g)
{
	CUDA_KERNEL_NODE_PARAMS_v1 p;
	size_t n = 0, kept = 0;

	ck(cuGraphGetNodes(g->graph, NULL, &n));
	g->node = calloc(n, sizeof(*g->node));
	if (!g->node)
		die("out of memory");
	ck(cuGraphGetNodes(g->graph, g->node, &n));
	for (size_t i = 0; i < n; i++) {
		CUgraphNodeType type;

		ck(cuGraphNodeGetType(g->node[i], &type));
		if (type != CU_GRAPH_NODE_TYPE_KERNEL)
			continue;
		ck(cuGraphKernelNodeGetParams(g->node[i], &p));
		if (step_arg(kernel_of(g, p.func)) >= 0)
			g->node[kept++] = g->node[i];
	}
	g->n_nodes = kept;
	if (!kept)
		die("the graph has no node with a step");
}

/* Only a launch to come sees it: the node itself keeps what it had. */
static void set_steps(struct gpu *g, struct step *at)
{
	for (size_t i = 0; i < g->n_nodes; i++) {
		CUDA_KERNEL_NODE_PARAMS_v1 p;
		void *args[16];
		int n;

		ck(cuGraphKernelNodeGetParams(g->node[i], &p));
		n = step_arg(kernel_of(g, p.func));
		memcpy(args, p.kernelParams, (size_t)n * sizeof(args[0]));
		args[n] = at;
		p.kernelParams = args;
		ck(cuGraphExecKernelNodeSetParams(g->exec, g->node[i], &p));
	}
}

static void update(struct gpu *g, struct step at)
{
	CUgraph graph = captured(g, at);
	CUgraphExecUpdateResult result;
	CUgraphNode node;

	ck(cuGraphExecUpdate(g->exec, graph, &node, &result));
	if (result != CU_GRAPH_EXEC_UPDATE_SUCCESS)
		die("the graph was not updated: %d", (int)result);
	ck(cuGraphDestroy(graph));
}

static void make(struct gpu *g, struct step at)
{
	CUgraphNode node = NULL;
	char log[256] = "";

	g->graph = g->c->graph == GRAPH_BUILD ? built(g, at) : captured(g, at);
	ck(cuGraphInstantiate_v2(&g->exec, g->graph, &node, log, sizeof(log)));
	if (g->c->graph == GRAPH_PARAMS || g->c->graph == GRAPH_BUILD)
		find_nodes(g);
}

void graph_pass(struct gpu *g, struct step at)
{
	if (!g->exec)
		make(g, at);
	else if (g->n_nodes)
		set_steps(g, &at);
	else if (g->c->graph == GRAPH_UPDATE)
		update(g, at);
	ck(cuGraphLaunch(g->exec, g->lane[0].stream));
}

void graph_close(struct gpu *g)
{
	if (!g->exec)
		return;
	ck(cuGraphExecDestroy(g->exec));
	ck(cuGraphDestroy(g->graph));
	free(g->node);
}
