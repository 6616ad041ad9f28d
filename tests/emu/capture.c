/* SPDX-License-Identifier: MIT */
/* capture.c - streams whose work becomes a graph (E10).
 *
 *   begin --> active --end by the stream it began in--> a graph
 *                    --something forbidden--> invalid --end--> an error
 *
 * Owns captures; they stay for good, since events point at them. (1) A stream's tips are
 * the nodes that its next one comes after. (2) Another stream takes part from when it
 * waits for an event of the capture until the capture ends, and must have been joined by
 * then: all its tips come before the first stream's. Lock: the emulator's.
 */
#include "tests/emu/emu.h"

struct capture {
	struct graph *g;
	struct stream *origin;		/* NULL: ended */
	CUstreamCaptureMode mode;
	pthread_t thread;
	uint64_t id;
	bool dead;			/* invalid */
	bool given;			/* the graph is the program's */
	struct capture *next;
};

static struct capture *captures;
static uint64_t ids;
static __thread CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

/* ---- tips ------------------------------------------------------------------------------ */

static void set_tips(struct stream *s, struct node **tips, unsigned n)
{
	struct node **copy = calloc(n + 1, sizeof(struct node *));

	if (!copy)
		abort();
	if (n)
		memcpy(copy, tips, n * sizeof(struct node *));
	free(s->tips);
	s->tips = copy;
	s->ntips = n;
}

static void add_tip(struct stream *s, struct node *n)
{
	for (unsigned i = 0; i < s->ntips; i++)
		if (s->tips[i] == n)
			return;
	s->tips = realloc(s->tips, (s->ntips + 1) * sizeof(struct node *));
	if (!s->tips)
		abort();
	s->tips[s->ntips++] = n;
}

static void leave(struct stream *s)
{
	free(s->tips);
	s->tips = NULL;
	s->ntips = 0;
	s->capture = NULL;
}

/* ---- what the rest asks ----------------------------------------------------------------- */

CUresult capture_add(struct stream *s, struct work *w)
{
	struct node *n;

	if (s->capture->dead) {
		work_drop(w);
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	}
	if (w->kind == W_GRAPH) {
		struct image *im = w->u.image;

		w->kind = W_CHILD;
		w->u.child = graph_of_image(im);
		w->u.child->owned = true;
		image_put(im);
	}
	if (w->kind == W_ALLOC && vm_find(w->u.memory.addr))
		vm_find(w->u.memory.addr)->graph = true;
	n = graph_add(s->capture->g, s->tips, s->ntips, w);
	set_tips(s, &n, 1);
	return CUDA_SUCCESS;
}

CUresult capture_record(struct stream *s, struct event *e)
{
	if (s->capture->dead)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	e->capture = s->capture;
	free(e->cap);
	e->cap = calloc(s->ntips + 1, sizeof(struct node *));
	if (!e->cap)
		abort();
	if (s->ntips)
		memcpy(e->cap, s->tips, s->ntips * sizeof(struct node *));
	e->ncap = s->ntips;
	return CUDA_SUCCESS;
}

CUresult capture_wait(struct stream *s, struct event *e)
{
	struct capture *c = e->capture;

	if (!c->origin)
		return CUDA_ERROR_INVALID_VALUE;	/* that capture is over */
	if (c->dead)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	if (s->legacy) {
		c->dead = true;
		return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
	}
	if (s->capture && s->capture != c) {
		c->dead = s->capture->dead = true;
		return CUDA_ERROR_STREAM_CAPTURE_MERGE;
	}
	if (!s->capture) {
		s->capture = c;
		set_tips(s, e->cap, e->ncap);
		return CUDA_SUCCESS;
	}
	for (unsigned i = 0; i < e->ncap; i++)
		add_tip(s, e->cap[i]);
	return CUDA_SUCCESS;
}

CUresult capture_refuse(struct stream *s)
{
	s->capture->dead = true;
	return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult capture_implicit(struct ctx *c)
{
	CUresult r = CUDA_SUCCESS;

	for (struct stream *s = stream_first(); s; s = s->next)
		if (s->ctx == c && s->capture && !(s->flags & CU_STREAM_NON_BLOCKING)) {
			s->capture->dead = true;
			r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
		}
	return r;
}

CUresult capture_unsafe(void)
{
	CUresult r = CUDA_SUCCESS;

	if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_SUCCESS;
	for (struct capture *c = captures; c; c = c->next) {
		bool mine = c->origin && pthread_equal(c->thread, pthread_self());

		if (!c->origin || c->mode == CU_STREAM_CAPTURE_MODE_RELAXED)
			continue;
		if (mine || (c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
			     thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL)) {
			c->dead = true;
			r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
		}
	}
	return r;
}

static void finish(struct capture *c)
{
	for (struct stream *s = stream_first(); s; s = s->next)
		if (s->capture == c)
			leave(s);
	c->origin = NULL;
}

void capture_stream_end(struct stream *s)
{
	struct capture *c = s->capture;

	if (!c)
		return;
	c->dead = true;
	if (c->origin != s) {
		leave(s);
		return;
	}
	finish(c);
	if (!c->given)
		graph_end(c->g);
}

/* ---- beginning and ending ------------------------------------------------------------------ */

static CUresult begin(CUstream h, CUstreamCaptureMode mode, struct graph *g)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);
	struct capture *c;

	if (!s || mode > CU_STREAM_CAPTURE_MODE_RELAXED)
		return s ? CUDA_ERROR_INVALID_VALUE : r;
	if (s->legacy)
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (s->capture)
		return CUDA_ERROR_ILLEGAL_STATE;
	c = calloc(1, sizeof(*c));
	if (!c)
		abort();
	c->given = g != NULL;
	c->g = g ? g : graph_new();
	c->origin = s;
	c->mode = mode;
	c->thread = pthread_self();
	c->id = ++ids;
	c->next = captures;
	captures = c;
	s->capture = c;
	set_tips(s, NULL, 0);
	return CUDA_SUCCESS;
}

CUresult i_cuStreamBeginCapture_v2(CUstream h, CUstreamCaptureMode mode)
{
	return begin(h, mode, NULL);
}

CUresult i_cuStreamBeginCapture(CUstream h)
{
	return begin(h, CU_STREAM_CAPTURE_MODE_GLOBAL, NULL);
}

CUresult i_cuStreamBeginCaptureToGraph(CUstream h, CUgraph hg, const CUgraphNode *deps,
				       const CUgraphEdgeData *data, size_t n,
				       CUstreamCaptureMode mode)
{
	struct graph *g = graph_of(hg);
	CUresult r;

	if (!g || (n && !deps))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n; i++)
		if (!node_of(deps[i]) || node_of(deps[i])->graph != g)
			return CUDA_ERROR_INVALID_VALUE;
	r = begin(h, mode, g);
	for (size_t i = 0; i < n && !r; i++)
		add_tip(stream_get(h, &r), node_of(deps[i]));
	return r;
}

static void mark(struct node *n)
{
	if (n->mark)
		return;
	n->mark = true;
	for (unsigned i = 0; i < n->ndeps; i++)
		mark(n->deps[i]);
}

static bool joined(const struct capture *c)
{
	bool all = true;

	for (unsigned i = 0; i < c->g->n; i++)
		c->g->nodes[i]->mark = false;
	for (unsigned i = 0; i < c->origin->ntips; i++)
		mark(c->origin->tips[i]);
	for (const struct stream *s = stream_first(); s; s = s->next)
		for (unsigned i = 0; s->capture == c && i < s->ntips; i++)
			all &= s->tips[i]->mark;
	return all;
}

CUresult i_cuStreamEndCapture(CUstream h, CUgraph *out)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);
	struct capture *c;

	if (!s || !out)
		return s ? CUDA_ERROR_INVALID_VALUE : r;
	*out = NULL;
	c = s->capture;
	if (!c)
		return CUDA_ERROR_ILLEGAL_STATE;
	if (c->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !pthread_equal(c->thread, pthread_self()))
		return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
	if (c->origin != s) {
		c->dead = true;
		return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
	}
	if (c->dead)
		r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	else if (!joined(c))
		r = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
	finish(c);
	if (r && !c->given)
		graph_end(c->g);
	if (!r)
		*out = (CUgraph)c->g->handle;
	return r;
}

/* ---- asking ------------------------------------------------------------------------------------- */

static CUstreamCaptureStatus status_of(const struct stream *s)
{
	if (!s->capture)
		return CU_STREAM_CAPTURE_STATUS_NONE;
	return s->capture->dead ? CU_STREAM_CAPTURE_STATUS_INVALIDATED :
				  CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

static CUresult ask(CUstream h, struct stream **s)
{
	CUresult r;

	*s = stream_get(h, &r);
	if (*s && (*s)->legacy)
		r = capture_implicit((*s)->ctx);
	return r;
}

CUresult i_cuStreamIsCapturing(CUstream h, CUstreamCaptureStatus *out)
{
	struct stream *s;
	CUresult r = ask(h, &s);

	if (r || !out)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	*out = status_of(s);
	return CUDA_SUCCESS;
}

CUresult i_cuStreamGetCaptureInfo_v3(CUstream h, CUstreamCaptureStatus *status, cuuint64_t *id,
				     CUgraph *graph, const CUgraphNode **deps,
				     const CUgraphEdgeData **edges, size_t *n)
{
	static __thread CUgraphNode list[256];
	struct stream *s;
	CUresult r = ask(h, &s);
	unsigned count;

	if (r || !status)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	*status = status_of(s);
	if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
		return CUDA_SUCCESS;
	count = s->ntips < 256 ? s->ntips : 256;
	for (unsigned i = 0; i < count; i++)
		list[i] = (CUgraphNode)s->tips[i]->handle;
	if (id)
		*id = s->capture->id;
	if (graph)
		*graph = (CUgraph)s->capture->g->handle;
	if (deps)
		*deps = list;
	if (edges)
		*edges = NULL;
	if (n)
		*n = count;
	return CUDA_SUCCESS;
}

CUresult i_cuStreamGetCaptureInfo_v2(CUstream h, CUstreamCaptureStatus *status, cuuint64_t *id,
				     CUgraph *graph, const CUgraphNode **deps, size_t *n)
{
	return i_cuStreamGetCaptureInfo_v3(h, status, id, graph, deps, NULL, n);
}

CUresult i_cuStreamGetCaptureInfo(CUstream h, CUstreamCaptureStatus *status, cuuint64_t *id)
{
	return i_cuStreamGetCaptureInfo_v3(h, status, id, NULL, NULL, NULL, NULL);
}

CUresult i_cuStreamUpdateCaptureDependencies_v2(CUstream h, CUgraphNode *deps,
						const CUgraphEdgeData *data, size_t n,
						unsigned int flags)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);

	if (!s || (n && !deps) || flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES)
		return s ? CUDA_ERROR_INVALID_VALUE : r;
	if (!s->capture)
		return CUDA_ERROR_ILLEGAL_STATE;
	if (s->capture->dead)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	for (size_t i = 0; i < n; i++)
		if (!node_of(deps[i]) || node_of(deps[i])->graph != s->capture->g)
			return CUDA_ERROR_INVALID_VALUE;
	if (flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES)
		set_tips(s, NULL, 0);
	for (size_t i = 0; i < n; i++)
		add_tip(s, node_of(deps[i]));
	return CUDA_SUCCESS;
}

CUresult i_cuStreamUpdateCaptureDependencies(CUstream h, CUgraphNode *deps, size_t n,
					     unsigned int flags)
{
	return i_cuStreamUpdateCaptureDependencies_v2(h, deps, NULL, n, flags);
}

CUresult i_cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
	CUstreamCaptureMode old = thread_mode;

	if (!mode || *mode > CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_ERROR_INVALID_VALUE;
	thread_mode = *mode;
	*mode = old;
	return CUDA_SUCCESS;
}
