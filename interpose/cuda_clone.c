/* SPDX-License-Identifier: MIT */
/* cuda_clone.c - graphs whose kernels read in the device what has its home at the host.
 *
 *   the program's graph    A ---------> B ---------> C
 *   what is instantiated   A -> copy -> B' -> copy -> C'      (safe)
 *                          A    copy -> B'--> C'              (ahead: a copy waits for the
 *                               copy -----'                    last reader of its bank only)
 *
 * (1) The program's graph is not touched: a copy of it is, with one node more for each
 *     extent that is brought, and the kernels' parameters are the views' addresses
 *     (core/vmm_graph.h). Its nodes are known by the program's by what cuGraphNodeFindInClone says.
 * (2) Order: nothing of the program's is put behind what it was not behind before. A bank
 *     is filled again only for a kernel that is behind its last reader by the program's own
 *     dependencies; a kernel with no such bank reads in place.
 * (3) Safe: a copy is behind all that its kernel is behind. Ahead: it is not, so a graph with
 *     host functions or waits for events, by which others may fill memory meanwhile, is safe.
 * (4) The copied graph's kernel nodes keep the parameters that the program gave last: what is
 *     staged can be undone at any time. It is, before a launch, where a view is stale, or the
 *     graph becomes part of another one, which may outlive it: its slots stay then.
 * (5) A copy that nobody needs copies four bytes where nobody reads: a graph's shape is fixed,
 *     and another graph may hold such copies beside a launch that reads the slots.
 * (6) Whatever fails, the program's own graph is instantiated: it reads in place.
 * Lock: `lock`, leaf, for the table; an executable graph is its caller's.
 */
#include "interpose/cuda_clone.h"
#include "interpose/cuda_plan.h"

#include <pthread.h>

#define BUCKETS	256u
#define STAGED	2048u	/* kernels of a graph */
#define NAMED	65536u	/* addresses of a graph */

enum { AFTER_NONE = -1, AFTER_SAME = -2 };

struct staged {
	uint32_t at;			/* number of the program's node */
	int32_t after;			/* its copies' dependency, by number; or as above */
	bool on, next;			/* the views' addresses; after an update */
	bool left_out;			/* a copy of it is disabled */
	uintptr_t fn;
	uint32_t n;
	struct { uint32_t word; uint64_t value, other; } arg[VMM_WORDS];
	struct vmm_graph_node g;
	CUgraphNode copy[VMM_GRAPH_COPIES];
};

struct cuda_exec {
	struct cuda_exec *next;
	CUgraphExec exec;
	CUcontext ctx;
	struct vmm_group *group;	/* what is counted at a launch; or NULL */
	CUgraph clone;			/* NULL: what follows is not there */
	struct vmm_graph *slots;
	bool shared;			/* other graphs have copies of its copies, for good */
	uint32_t n, n_staged;
	CUgraphNode *node, *cloned;	/* the program's, and what they are called in the clone */
	struct staged *staged;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cuda_exec *bucket[BUCKETS];
static _Atomic uint32_t known;

/* ---- the table --------------------------------------------------------------------- */

static struct cuda_exec **place(CUgraphExec exec)
{
	return &bucket[(uintptr_t)exec * 0x9e3779b97f4a7c15ull >> 40 & (BUCKETS - 1)];
}

static struct cuda_exec *find(CUgraphExec exec)
{
	struct cuda_exec *e;

	if (!atomic_load_explicit(&known, memory_order_relaxed))
		return NULL;
	pthread_mutex_lock(&lock);
	for (e = *place(exec); e && e->exec != exec; e = e->next)
		;
	pthread_mutex_unlock(&lock);
	return e;
}

static void put(struct cuda_exec *e)
{
	pthread_mutex_lock(&lock);
	e->next = *place(e->exec);
	*place(e->exec) = e;
	pthread_mutex_unlock(&lock);
	atomic_fetch_add(&known, 1);
}

struct cuda_exec *cuda_exec_forget(CUgraphExec exec)
{
	struct cuda_exec **at, *e;

	if (!atomic_load_explicit(&known, memory_order_relaxed))
		return NULL;
	pthread_mutex_lock(&lock);
	for (at = place(exec); (e = *at) && e->exec != exec; at = &e->next)
		;
	if (e)
		*at = e->next;
	pthread_mutex_unlock(&lock);
	if (e)
		atomic_fetch_sub(&known, 1);
	return e;
}

void cuda_exec_drop(struct cuda_exec *e)
{
	if (!e)
		return;
	vmm_group_end(e->group);
	if (!e->shared)
		vmm_graph_end(e->slots);
	if (e->clone)
		DRIVER(cuGraphDestroy)(e->clone);
	vmm_zfree(e->node);
	vmm_zfree(e->staged);
	vmm_zfree(e);
}

static uint32_t number(const struct cuda_exec *e, CUgraphNode node)
{
	uint32_t i = 0;

	while (i < e->n && e->node[i] != node)
		i++;
	return i;
}

CUgraphNode cuda_exec_node(CUgraphExec exec, CUgraphNode node)
{
	const struct cuda_exec *e = find(exec);
	uint32_t i = e && e->clone ? number(e, node) : 0;

	return e && e->clone && i < e->n ? e->cloned[i] : node;
}

/* ---- what its kernels name -------------------------------------------------------------- */

struct names { uint64_t *addr; uint32_t n, room; };

static void add_name(uint32_t nth, uint64_t value, void *arg)
{
	struct names *s = arg;
	struct device_region r;

	if (s->n < s->room && cuda_placed(value, &r))
		s->addr[s->n++] = value;
}

static struct vmm_group *group_of(const struct cuda_plan *p)
{
	struct names s = { .room = p->n * 8 < NAMED ? p->n * 8 : NAMED };
	struct vmm_group *g;
	struct cuda_kernel k;

	s.addr = vmm_zalloc(s.room * sizeof(*s.addr));
	for (uint32_t i = 0; s.addr && i < p->n; i++)
		if (p->type[i] == CU_GRAPH_NODE_TYPE_KERNEL && cuda_kernel_read(p->node[i], &k) &&
		    k.fn && !device_unread(k.fn, k.p.kernelParams, NULL))
			device_words(k.fn, k.p.kernelParams, NULL, 0, add_name, &s);
	g = s.addr ? vmm_group_new(s.addr, s.n) : NULL;
	vmm_zfree(s.addr);
	return g;
}

/* ---- one kernel -------------------------------------------------------------------------- */

/* Its words, and others where the views' are. False: these are not what was staged. */
static bool same(const struct staged *s, const struct cuda_kernel *k, struct cuda_staging *st)
{
	uint32_t n = 0;

	st->fn = k->fn;
	if (!k->fn || device_fn_life(k->fn) != s->fn ||
	    !cuda_read_words(&st->l, k->fn, k->p.kernelParams, k->p.extra) || st->l.n > VMM_WORDS)
		return false;
	for (uint32_t i = 0; i < st->l.n; i++) {
		uint64_t value = st->l.arg[i].value;

		st->l.arg[i].other = value;
		if (value - s->g.base > s->g.len)
			continue;
		if (n == s->n || s->arg[n].word != st->l.arg[i].word || s->arg[n].value != value)
			return false;
		st->l.arg[i].other = s->arg[n++].other;
	}
	return n == s->n;
}

static CUDA_MEMCPY3D line(uint64_t to, uint64_t from, uint64_t len)
{
	return (CUDA_MEMCPY3D){
		.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = from,
		.srcPitch = len, .srcHeight = 1,
		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = to,
		.dstPitch = len, .dstHeight = 1,
		.WidthInBytes = len, .Height = 1, .Depth = 1,
	};
}

/* (5) */
static CUDA_MEMCPY3D copy_of(const struct staged *s, uint32_t i, bool on)
{
	const struct vmm_copy *c = &s->g.copy[i];

	return on ? line(c->to, c->from, c->len) : line(s->g.idle, s->g.idle + 64, 4);
}

/* The nodes of g that p says: copies before the kernel, its parameters changed if `on`. */
static bool insert(const struct cuda_exec *e, struct staged *s, CUgraph g,
		   const struct cuda_plan *p, const CUgraphNode *cloned, bool on,
		   const struct cuda_kernel *k, struct cuda_staging *st, CUgraphNode *copy)
{
	uint32_t first = p->first[s->at], n = p->first[s->at + 1] - first;
	CUgraphNode *after = vmm_zalloc((n + 1) * sizeof(*after));
	struct cuda_kernel changed = *k;
	bool ok = after;

	for (uint32_t i = 0; ok && i < n; i++)
		after[i] = cloned[p->before[first + i]];
	if (ok && s->after != AFTER_SAME) {
		n = s->after != AFTER_NONE;
		after[0] = n ? cloned[s->after] : NULL;
	}
	for (uint32_t i = 0; ok && i < s->g.n; i++) {
		CUDA_MEMCPY3D c = copy_of(s, i, on);

		ok = REAL(cuGraphAddMemcpyNode)(&copy[i], g, n ? after : NULL, n, &c, e->ctx) ==
			     CUDA_SUCCESS &&
		     DRIVER(cuGraphAddDependencies)(g, &copy[i], &cloned[s->at], 1) == CUDA_SUCCESS;
	}
	vmm_zfree(after);
	if (!ok || !on)
		return ok;
	return cuda_patch(st, &changed.p.kernelParams, &changed.p.extra) &&
	       cuda_kernel_set(cloned[s->at], &changed) == CUDA_SUCCESS &&
	       (!DRIVER(cuGraphKernelNodeCopyAttributes) || DRIVER(cuGraphKernelNodeCopyAttributes)
			(cloned[s->at], p->node[s->at]) == CUDA_SUCCESS);
}

/* The copies bring something, or nothing. A driver may refuse where memory was mapped anew:
 * the node is left out then. */
static CUresult bring(const struct cuda_exec *e, struct staged *s, bool on)
{
	CUresult r = CUDA_SUCCESS;

	for (uint32_t i = 0; i < s->g.n && r == CUDA_SUCCESS; i++) {
		CUDA_MEMCPY3D c = copy_of(s, i, on);
		bool refused;

		r = REAL(cuGraphExecMemcpyNodeSetParams)(e->exec, s->copy[i], &c, e->ctx);
		refused = r != CUDA_SUCCESS;
		if (!REAL(cuGraphNodeSetEnabled) || (on ? refused || !s->left_out : !refused))
			continue;
		r = REAL(cuGraphNodeSetEnabled)(e->exec, s->copy[i], on);
		s->left_out |= !on;
	}
	if (on && r == CUDA_SUCCESS)
		s->left_out = false;
	return r;
}

/* (4) */
static CUresult undo(const struct cuda_exec *e, struct staged *s)
{
	struct cuda_kernel k;
	CUresult r;

	if (!cuda_kernel_read(e->cloned[s->at], &k))
		return CUDA_ERROR_INVALID_VALUE;
	r = cuda_kernel_exec_set(e->exec, e->cloned[s->at], &k);
	if (r != CUDA_SUCCESS)
		return r;
	s->on = false;
	return bring(e, s, false);
}

/* ---- a graph that is instantiated ---------------------------------------------------------- */

static bool able(void)
{
	return DRIVER(cuGraphClone) && DRIVER(cuGraphNodeFindInClone) && DRIVER(cuGraphDestroy) &&
	       DRIVER(cuGraphAddDependencies) && REAL(cuGraphAddMemcpyNode) &&
	       REAL(cuGraphExecMemcpyNodeSetParams) && REAL(cuGraphKernelNodeSetParams) &&
	       REAL(cuGraphExecKernelNodeSetParams) && REAL(cuGraphExecDestroy);
}

/* Kinds of nodes that all calls are hooked of. *ahead: (3). */
static bool kinds(const struct cuda_plan *p, bool *ahead)
{
	for (uint32_t i = 0; i < p->n; i++)
		switch (p->type[i]) {
		case CU_GRAPH_NODE_TYPE_KERNEL:
		case CU_GRAPH_NODE_TYPE_MEMCPY:
		case CU_GRAPH_NODE_TYPE_MEMSET:
		case CU_GRAPH_NODE_TYPE_EMPTY:
		case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
			break;
		case CU_GRAPH_NODE_TYPE_HOST:
		case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
			*ahead = false;
			break;
		default:
			return false;
		}
	return true;
}

static bool map(const struct cuda_plan *p, CUgraph clone, CUgraphNode *cloned)
{
	for (uint32_t i = 0; i < p->n; i++)
		if (DRIVER(cuGraphNodeFindInClone)(&cloned[i], p->node[i], clone) != CUDA_SUCCESS)
			return false;
	return true;
}

/* What is used of a bank: (2). seen: of each node, how many readers it is behind. */
struct banks {
	uint32_t readers[VMM_GRAPH_BANKS], (*seen)[VMM_GRAPH_BANKS];
	int32_t last[VMM_GRAPH_BANKS];		/* a node; AFTER_NONE */
	uint32_t turn, used[VMM_GRAPH_BANKS];	/* when */
};

static void look_behind(struct banks *b, const struct cuda_plan *p, uint32_t i)
{
	for (uint32_t k = p->first[i]; k < p->first[i + 1]; k++)
		for (uint32_t n = 0; n < VMM_GRAPH_BANKS; n++)
			if (b->seen[p->before[k]][n] > b->seen[i][n])
				b->seen[i][n] = b->seen[p->before[k]][n];
}

/* The bank that was used longest ago of those the node may use; VMM_GRAPH_BANKS: none. */
static uint32_t free_bank(const struct banks *b, uint32_t i)
{
	uint32_t best = VMM_GRAPH_BANKS;

	for (uint32_t n = 0; n < VMM_GRAPH_BANKS; n++)
		if (b->seen[i][n] == b->readers[n] &&
		    (best == VMM_GRAPH_BANKS || b->used[n] < b->used[best]))
			best = n;
	return best;
}

/* The node as a kernel that is staged, if it can be. -1: the clone is of no use now. */
static int stage_one(struct cuda_exec *e, const struct cuda_plan *p, struct banks *b, uint32_t at,
		     bool ahead)
{
	struct staged *s = &e->staged[e->n_staged];
	struct cuda_staging st;
	struct cuda_kernel k;
	uint32_t bank = free_bank(b, at);

	if (bank == VMM_GRAPH_BANKS || e->n_staged == STAGED || !cuda_kernel_read(p->node[at], &k) ||
	    !k.fn || (k.v2 && k.p.ctx && k.p.ctx != e->ctx))
		return 0;
	st.fn = k.fn;
	st.l.dev = cuda_device();
	st.l.ctx = (uintptr_t)e->ctx;
	if (!cuda_read_words(&st.l, k.fn, k.p.kernelParams, k.p.extra) ||
	    !vmm_graph_stage(e->slots, bank, &st.l, &s->g))
		return 0;
	*s = (struct staged){ .at = at, .after = ahead ? b->last[bank] : AFTER_SAME, .on = true,
			      .fn = device_fn_life(k.fn), .g = s->g };
	for (uint32_t i = 0; i < st.l.n; i++)
		if (st.l.arg[i].value - s->g.base < s->g.len) {
			s->arg[s->n].word = st.l.arg[i].word;
			s->arg[s->n].value = st.l.arg[i].value;
			s->arg[s->n++].other = st.l.arg[i].other;
		}
	if (!insert(e, s, e->clone, p, e->cloned, true, &k, &st, s->copy))
		return -1;
	e->n_staged++;
	b->seen[at][bank] = ++b->readers[bank];
	b->last[bank] = (int32_t)at;
	b->used[bank] = ++b->turn;
	return 1;
}

static bool stage_all(struct cuda_exec *e, const struct cuda_plan *p, bool ahead)
{
	struct banks b = { .turn = 0 };
	bool ok;

	b.seen = vmm_zalloc(p->n * sizeof(*b.seen));
	ok = b.seen;
	for (uint32_t n = 0; n < VMM_GRAPH_BANKS; n++)
		b.last[n] = AFTER_NONE;
	for (uint32_t i = 0; ok && i < p->n; i++) {
		uint32_t at = p->order[i];

		look_behind(&b, p, at);
		if (p->type[at] == CU_GRAPH_NODE_TYPE_KERNEL)
			ok = stage_one(e, p, &b, at, ahead) >= 0;
	}
	vmm_zfree(b.seen);
	return ok && e->n_staged;
}

static void unstage_all(struct cuda_exec *e)
{
	vmm_graph_end(e->slots);
	if (e->clone)
		DRIVER(cuGraphDestroy)(e->clone);
	vmm_zfree(e->node);
	vmm_zfree(e->staged);
	e->slots = NULL;
	e->clone = NULL;
	e->node = NULL;
	e->staged = NULL;
	e->n_staged = 0;
}

/* (1) */
static bool make_clone(struct cuda_exec *e, CUgraph g, const struct cuda_plan *p)
{
	bool ahead = vmm_stages_ahead();

	if (!able() || !kinds(p, &ahead) || !DRIVER(cuCtxGetCurrent) ||
	    DRIVER(cuCtxGetCurrent)(&e->ctx) != CUDA_SUCCESS || !e->ctx)
		return false;
	e->slots = vmm_graph_new(cuda_device(), (uintptr_t)e->ctx);
	e->node = vmm_zalloc(2 * p->n * sizeof(*e->node));
	e->staged = vmm_zalloc((p->n < STAGED ? p->n : STAGED) * sizeof(*e->staged) + 1);
	if (!e->slots || !e->node || !e->staged ||
	    DRIVER(cuGraphClone)(&e->clone, g) != CUDA_SUCCESS) {
		e->clone = NULL;
		unstage_all(e);
		return false;
	}
	e->n = p->n;
	e->cloned = e->node + p->n;
	memcpy(e->node, p->node, p->n * sizeof(*e->node));
	if (map(p, e->clone, e->cloned) && stage_all(e, p, ahead))
		return true;
	unstage_all(e);
	return false;
}

struct cuda_exec *cuda_exec_begin(CUgraph g, bool stages, CUgraph *use)
{
	bool counts = atomic_load_explicit(&vmm_counts, memory_order_relaxed);
	struct cuda_plan p;
	struct cuda_exec *e;

	*use = g;
	stages &= !cuda_deep() && atomic_load_explicit(&vmm_stages, memory_order_relaxed) && !vmm_captures();
	if ((!counts && !stages) || !g || !cuda_plan_read(&p, g, stages))
		return NULL;
	e = vmm_zalloc(sizeof(*e));
	if (e && counts)
		e->group = group_of(&p);
	if (e && stages && make_clone(e, g, &p))
		*use = e->clone;
	cuda_plan_end(&p);
	if (e && !e->group && !e->clone) {
		vmm_zfree(e);
		e = NULL;
	}
	return e;
}

bool cuda_exec_made(struct cuda_exec *e, CUgraph g, CUgraphExec exec)
{
	uint32_t copies = 0;
	struct cuda_kernel k;

	if (!e)
		return true;
	for (uint32_t i = 0; i < e->n_staged; i++) {	/* (4) */
		uint32_t at = e->staged[i].at;

		if (!cuda_kernel_read(e->node[at], &k) ||
		    cuda_kernel_set(e->cloned[at], &k) != CUDA_SUCCESS) {
			REAL(cuGraphExecDestroy)(exec);
			cuda_exec_drop(e);
			return false;
		}
		copies += e->staged[i].g.n;
	}
	e->exec = exec;
	if (copies)
		vmm_graph_count(e->slots, 0, copies);
	put(e);
	return true;
}

/* ---- launches ---------------------------------------------------------------------------- */

CUresult cuda_exec_launching(CUgraphExec exec, bool captured)
{
	struct cuda_exec *e = find(exec);
	CUresult r = CUDA_SUCCESS;
	uint64_t bytes = 0;

	if (e && captured)
		e->shared = true;
	for (uint32_t i = 0; e && i < e->n_staged && r == CUDA_SUCCESS; i++) {
		struct staged *s = &e->staged[i];

		if (s->on && (captured || vmm_graph_stale(e->slots, s->g.view)))
			r = undo(e, s);
		for (uint32_t c = 0; s->on && c < s->g.n; c++)
			bytes += s->g.copy[c].len;
	}
	if (bytes)
		vmm_graph_count(e->slots, bytes, 0);
	return r;
}

void cuda_exec_launched(CUgraphExec exec)
{
	const struct cuda_exec *e = find(exec);

	if (e)
		vmm_group_used(e->group);
}

/* ---- changes ----------------------------------------------------------------------------- */

static struct staged *staged_at(const struct cuda_exec *e, uint32_t at)
{
	for (uint32_t i = 0; i < e->n_staged; i++)
		if (e->staged[i].at == at)
			return &e->staged[i];
	return NULL;
}

static bool stale(const struct cuda_exec *e, const struct staged *s)
{
	bool in = vmm_enter(), is = vmm_graph_stale(e->slots, s->g.view);

	vmm_leave(in);
	return is;
}

/* A staged kernel's parameters are k now: with the views' addresses if they are the same. */
static CUresult set_staged(const struct cuda_exec *e, struct staged *s, const struct cuda_kernel *k)
{
	CUgraphNode node = e->cloned[s->at];
	struct cuda_kernel changed = *k;
	struct cuda_staging st;
	CUresult r;

	if (!stale(e, s) && same(s, k, &st) && cuda_kernel_set(node, k) == CUDA_SUCCESS &&
	    cuda_patch(&st, &changed.p.kernelParams, &changed.p.extra) &&
	    (s->on || bring(e, s, true) == CUDA_SUCCESS)) {
		r = cuda_kernel_exec_set(e->exec, node, &changed);
		s->on |= r == CUDA_SUCCESS;
		return r;
	}
	r = cuda_kernel_exec_set(e->exec, node, k);
	if (r != CUDA_SUCCESS || !s->on)
		return r;
	s->on = false;
	return bring(e, s, false);
}

CUresult cuda_exec_set(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2 *p,
		       bool v2)
{
	const struct cuda_exec *e = find(exec);
	struct cuda_kernel k = { .v2 = v2 };
	uint32_t at = e && e->clone ? number(e, node) : 0;
	struct staged *s = e && e->clone && at < e->n ? staged_at(e, at) : NULL;
	CUfunction f;

	if (v2)
		k.p = *p;
	else
		memcpy(&k.p, p, sizeof(CUDA_KERNEL_NODE_PARAMS_v1));
	if (!s)
		return cuda_kernel_exec_set(exec, e && e->clone && at < e->n ? e->cloned[at] : node, &k);
	f = k.p.func ? k.p.func : (CUfunction)k.p.kern;
	k.fn = f ? device_fn((uintptr_t)f) : NULL;
	return set_staged(e, s, &k);
}

/* g with the same nodes more; staged: what can be is. False: it is not the same shape, or
 * what is staged moved meanwhile. */
static bool alike(struct cuda_update *u, struct cuda_plan *p, CUgraphNode **cloned, bool staged)
{
	const struct cuda_exec *e = u->e;
	bool ok, unused = true;

	if (!cuda_plan_read(p, u->g, true))
		return false;
	*cloned = vmm_zalloc(p->n * sizeof(**cloned));
	ok = *cloned && p->n == e->n && kinds(p, &unused) &&
	     DRIVER(cuGraphClone)(&u->use, u->g) == CUDA_SUCCESS;
	if (!ok)
		u->use = u->g;
	ok = ok && map(p, u->use, *cloned);
	for (uint32_t i = 0; ok && i < e->n_staged; i++) {
		struct staged *s = &e->staged[i];
		CUgraphNode copy[VMM_GRAPH_COPIES];
		struct cuda_staging st;
		struct cuda_kernel k;

		ok = p->type[s->at] == CU_GRAPH_NODE_TYPE_KERNEL &&
		     cuda_kernel_read(p->node[s->at], &k);
		s->next = ok && staged && !stale(e, s) && same(s, &k, &st);
		ok = ok && insert(e, s, u->use, p, *cloned, s->next, &k, &st, copy);
	}
	return ok;
}

static bool try_alike(struct cuda_update *u, bool staged)
{
	struct cuda_plan p = { .n = 0 };
	CUgraphNode *cloned = NULL;
	bool ok = alike(u, &p, &cloned, staged);

	if (!ok && u->use != u->g) {
		DRIVER(cuGraphDestroy)(u->use);
		u->use = u->g;
	}
	vmm_zfree(cloned);
	cuda_plan_end(&p);
	return ok;
}

void cuda_update_begin(struct cuda_update *u, CUgraphExec exec, CUgraph g)
{
	*u = (struct cuda_update){ .e = find(exec), .g = g, .use = g };
	if (u->e && u->e->clone && g && !try_alike(u, true))
		try_alike(u, false);
}

/* The program's node of what the driver calls so; NULL: it has none. */
static CUgraphNode programs(const struct cuda_update *u, CUgraphNode node)
{
	struct cuda_plan p;
	CUgraphNode is = NULL, c;

	if (!node || !cuda_plan_read(&p, u->g, false))
		return NULL;
	for (uint32_t i = 0; i < p.n && !is; i++)
		if (DRIVER(cuGraphNodeFindInClone)(&c, p.node[i], u->use) == CUDA_SUCCESS && c == node)
			is = p.node[i];
	cuda_plan_end(&p);
	return is;
}

/* The executable graph is as `use` was: what is kept of it follows. */
static CUresult follow(struct cuda_update *u, const struct cuda_plan *p)
{
	CUresult r = CUDA_SUCCESS;
	struct cuda_kernel k;

	for (uint32_t i = 0; i < u->e->n_staged && r == CUDA_SUCCESS; i++) {
		struct staged *s = &u->e->staged[i];

		if (!cuda_kernel_read(p->node[s->at], &k))
			return CUDA_ERROR_INVALID_VALUE;
		s->on = s->next;
		if (cuda_kernel_set(u->e->cloned[s->at], &k) != CUDA_SUCCESS && s->on) {
			r = cuda_kernel_exec_set(u->e->exec, u->e->cloned[s->at], &k);
			s->on = false;
			r = r == CUDA_SUCCESS ? bring(u->e, s, false) : r;
		}
	}
	return r;
}

CUresult cuda_update_end(struct cuda_update *u, CUresult r, CUgraphNode *bad)
{
	struct cuda_plan p;
	bool read = u->e && r == CUDA_SUCCESS && cuda_plan_read(&p, u->g, false);

	if (bad && u->use != u->g && r == CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE)
		*bad = programs(u, *bad);
	if (read && u->use != u->g)
		r = follow(u, &p);
	if (read && atomic_load_explicit(&vmm_counts, memory_order_relaxed)) {
		vmm_group_end(u->e->group);
		u->e->group = group_of(&p);
	}
	if (read)
		cuda_plan_end(&p);
	if (u->use != u->g)
		DRIVER(cuGraphDestroy)(u->use);
	return r;
}
