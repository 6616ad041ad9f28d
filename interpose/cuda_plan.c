/* SPDX-License-Identifier: MIT */
/* cuda_plan.c - reads graphs: nodes, dependencies, kernels.
 *
 * (1) Only what the driver tells: a graph with anything that cannot be read (programmatic
 *     dependencies) is left as it is.
 * Lock: none; the program may not change a graph beside.
 */
#include "interpose/cuda_plan.h"

#define NODES	16384u
#define EDGES	65536u

void cuda_plan_end(struct cuda_plan *p)
{
	vmm_zfree(p->node);
	memset(p, 0, sizeof(*p));
}

/* One block: nodes, types, first (n + 1), order, before. */
static bool make_room(struct cuda_plan *p, size_t n, size_t m)
{
	char *at = vmm_zalloc(n * (sizeof(*p->node) + sizeof(*p->type)) +
			      (2 * n + 2 + m) * sizeof(uint32_t));

	if (!at)
		return false;
	p->n = (uint32_t)n;
	p->m = (uint32_t)m;
	p->node = (CUgraphNode *)at;
	p->type = (CUgraphNodeType *)(p->node + n);
	p->first = (uint32_t *)(p->type + n);
	p->order = p->first + n + 1;
	p->before = p->order + n + 1;
	return true;
}

/* Where handles are, by number. */
struct finder { uint32_t mask, *slot; const CUgraphNode *node; };

static uint32_t hash(const struct finder *f, CUgraphNode node)
{
	return (uint32_t)((uintptr_t)node * 0x9e3779b97f4a7c15ull >> 32) & f->mask;
}

static uint32_t number(const struct finder *f, CUgraphNode node)
{
	uint32_t i = hash(f, node);

	while (f->slot[i] && f->node[f->slot[i] - 1] != node)
		i = (i + 1) & f->mask;
	return f->slot[i] - 1;	/* UINT32_MAX: none */
}

static bool finder(struct finder *f, const struct cuda_plan *p)
{
	f->mask = 1;
	while (f->mask < 2 * p->n)
		f->mask = f->mask * 2;
	f->slot = vmm_zalloc(f->mask * sizeof(*f->slot));
	f->mask--;
	f->node = p->node;
	for (uint32_t i = 0; f->slot && i < p->n; i++) {
		uint32_t at = hash(f, p->node[i]);

		while (f->slot[at])
			at = (at + 1) & f->mask;
		f->slot[at] = i + 1;
	}
	return f->slot;
}

/* Lists by what `key` says of each dependency. */
static void lists(uint32_t n, uint32_t m, const uint32_t *key, const uint32_t *value,
		  uint32_t *first, uint32_t *out)
{
	memset(first, 0, (n + 1) * sizeof(*first));
	for (uint32_t i = 0; i < m; i++)
		first[key[i]]++;
	for (uint32_t i = 0, sum = 0; i <= n; i++) {
		sum += i < n ? first[i] : 0;
		first[i] = sum;
	}
	for (uint32_t i = m; i-- > 0;)
		out[--first[key[i]]] = value[i];
}

/* False: there is a circle. */
static bool put_in_order(struct cuda_plan *p, const uint32_t *after_first, const uint32_t *after)
{
	uint32_t *left = vmm_zalloc((p->n + 1) * sizeof(*left)), head = 0, tail = 0;

	if (!left)
		return false;
	for (uint32_t i = 0; i < p->n; i++) {
		left[i] = p->first[i + 1] - p->first[i];
		if (!left[i])
			p->order[tail++] = i;
	}
	while (head < tail) {
		uint32_t i = p->order[head++];

		for (uint32_t k = after_first[i]; k < after_first[i + 1]; k++)
			if (!--left[after[k]])
				p->order[tail++] = after[k];
	}
	vmm_zfree(left);
	return tail == p->n;
}

static bool edges(struct cuda_plan *p, CUgraph g)
{
	size_t m = p->m;
	CUgraphNode *from = vmm_zalloc((2 * m + 1) * sizeof(*from)), *to = from + m;
	uint32_t *a = vmm_zalloc((3 * m + p->n + 1) * sizeof(*a)), *b = a + m, *after = b + m;
	struct finder f = { 0 };
	bool ok = from && a && finder(&f, p) &&
		  (!m || DRIVER(cuGraphGetEdges)(g, from, to, &m) == CUDA_SUCCESS) && m == p->m;

	for (uint32_t i = 0; ok && i < m; i++) {
		a[i] = number(&f, from[i]);
		b[i] = number(&f, to[i]);
		ok = a[i] != UINT32_MAX && b[i] != UINT32_MAX;
	}
	if (ok) {
		lists(p->n, p->m, b, a, p->first, p->before);
		lists(p->n, p->m, a, b, after + m, after);
		ok = put_in_order(p, after + m, after);
	}
	vmm_zfree(from);
	vmm_zfree(a);
	vmm_zfree(f.slot);
	return ok;
}

bool cuda_plan_read(struct cuda_plan *p, CUgraph g, bool order)
{
	size_t n = 0, m = 0, got;

	memset(p, 0, sizeof(*p));
	if (!DRIVER(cuGraphGetNodes) || !DRIVER(cuGraphGetEdges) || !DRIVER(cuGraphNodeGetType) ||
	    DRIVER(cuGraphGetNodes)(g, NULL, &n) != CUDA_SUCCESS || !n || n > NODES ||
	    (order && DRIVER(cuGraphGetEdges)(g, NULL, NULL, &m) != CUDA_SUCCESS) || m > EDGES ||
	    !make_room(p, n, m))
		return false;
	got = n;
	if (DRIVER(cuGraphGetNodes)(g, p->node, &got) != CUDA_SUCCESS || got != n)
		goto bad;
	for (uint32_t i = 0; i < n; i++)
		if (DRIVER(cuGraphNodeGetType)(p->node[i], &p->type[i]) != CUDA_SUCCESS)
			goto bad;
	if (!order || edges(p, g))
		return true;
bad:
	cuda_plan_end(p);
	return false;
}

/* ---- kernels ------------------------------------------------------------------------- */

bool cuda_kernel_read(CUgraphNode node, struct cuda_kernel *k)
{
	CUDA_KERNEL_NODE_PARAMS_v1 old;
	CUfunction f;

	memset(k, 0, sizeof(*k));
	k->v2 = DRIVER(cuGraphKernelNodeGetParams_v2) && REAL(cuGraphKernelNodeSetParams_v2) &&
		REAL(cuGraphExecKernelNodeSetParams_v2) &&
		DRIVER(cuGraphKernelNodeGetParams_v2)(node, &k->p) == CUDA_SUCCESS;
	if (!k->v2) {
		if (!DRIVER(cuGraphKernelNodeGetParams) ||
		    DRIVER(cuGraphKernelNodeGetParams)(node, &old) != CUDA_SUCCESS)
			return false;
		memcpy(&k->p, &old, sizeof(old));
	}
	f = k->p.func ? k->p.func : (CUfunction)k->p.kern;
	k->fn = f ? device_fn((uintptr_t)f) : NULL;
	return true;
}

CUresult cuda_kernel_set(CUgraphNode node, const struct cuda_kernel *k)
{
	CUDA_KERNEL_NODE_PARAMS_v1 old;

	if (k->v2)
		return REAL(cuGraphKernelNodeSetParams_v2)(node, &k->p);
	memcpy(&old, &k->p, sizeof(old));
	return REAL(cuGraphKernelNodeSetParams)(node, &old);
}

CUresult cuda_kernel_exec_set(CUgraphExec exec, CUgraphNode node, const struct cuda_kernel *k)
{
	CUDA_KERNEL_NODE_PARAMS_v1 old;

	if (k->v2)
		return REAL(cuGraphExecKernelNodeSetParams_v2)(exec, node, &k->p);
	memcpy(&old, &k->p, sizeof(old));
	return REAL(cuGraphExecKernelNodeSetParams)(exec, node, &old);
}
