/* SPDX-License-Identifier: MIT */
/* random_plan.c - what the random program does, from its seed.
 *
 * Owns the state of the generator; lock: none, the main thread's.
 * (1) Every operation is done to the model as soon as it is planned: the next one is
 *     chosen knowing what is alive.
 * (2) Operands of one operation are different buffers, so that no operation depends on
 *     the order of its own parts.
 * (3) A graph is kept only while its buffers stay where they are.
 */
#include "tests/engine/random.h"

#include <stdlib.h>
#include <string.h>

#define TRIES		12
#define WORDS_MAX	4096u	/* of a kernel */
#define COPY_MAX	(96u << 10)
#define FEW_BUFS	10

uint64_t random_next(struct world *w)
{
	uint64_t z = w->rng += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t random_below(struct world *w, uint64_t n)
{
	return random_next(w) % n;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* ---- operands -------------------------------------------------------------------- */

enum want { WANT_ANY, WANT_KERNEL, WANT_DEVICE, WANT_HOST, WANT_PINNED, WANT_LINEAR };

static int suits(const struct buf *b, enum want want, int dev)
{
	int pinned = b->family == FAM_PINNED || b->family == FAM_REGISTERED;
	int device = b->family < FAM_HOST && b->dev == dev;

	switch (want) {
	case WANT_KERNEL: return device || pinned;
	case WANT_DEVICE: return device;
	case WANT_HOST: return b->family >= FAM_HOST;
	case WANT_PINNED: return pinned;
	case WANT_LINEAR: return b->family != FAM_PITCH && (device || pinned);
	default: return device || b->family >= FAM_HOST;
	}
}

/* A living buffer that suits, but not NOT; -1: none was found. */
static int pick(struct world *w, enum want want, int dev, int not)
{
	for (int i = 0; w->n_buf && i < 4 * TRIES; i++) {
		int n = (int)random_below(w, (uint64_t)w->n_buf);

		if (n != not && w->buf[n].alive && suits(&w->buf[n], want, dev))
			return n;
	}
	return -1;
}

/* Where LEN bytes lie in one row; LEN must fit. */
static size_t place(struct world *w, const struct buf *b, size_t len, size_t align)
{
	size_t x = random_below(w, b->width - len + 1) / align * align;

	return random_below(w, b->bytes / b->width) * b->width + x;
}

static void touches(struct op *o, int buf, size_t off, size_t len, int write)
{
	o->acc[o->n_acc++] = (struct access){ buf, write, off, len };
}

static void touches_all(const struct world *w, struct op *o, int buf)
{
	touches(o, buf, 0, w->buf[buf].bytes, 1);
}

/* ---- memory comes and goes ------------------------------------------------------- */

static size_t some_bytes(struct world *w)
{
	size_t most;

	switch (random_below(w, 5)) {
	case 0: case 1: most = 8 << 10; break;
	case 2: case 3: most = 128 << 10; break;
	default: most = w->c->budget / 6 + 1024; break;
	}
	return 256 + random_below(w, least(most, (w->c->largest ? w->c->largest :
					    w->c->budget / 4) + 1024)) / 4 * 4;
}

/* A number that no operation of this segment has named; -1: there is none. */
static int new_number(struct world *w)
{
	if (w->n_buf < BUFS_MAX)
		return w->n_buf;
	for (int i = 0; i < BUFS_MAX; i++)
		if (!w->buf[i].alive && w->buf[i].died < w->segment)
			return i;
	return -1;
}

static int plan_alloc(struct world *w, struct op *o)
{
	int number = new_number(w);
	struct buf *b = &w->buf[number];

	if (number < 0)
		return 0;
	*b = (struct buf){ .alive = 1, .dev = o->dev, .born = w->segment, .moved = -1 };
	b->family = (enum family)random_below(w, FAMILIES);
	if (random_below(w, 3) == 0)
		b->family = FAM_ALLOC;
	b->bytes = some_bytes(w);
	b->width = b->bytes;
	if (b->family == FAM_PITCH) {
		size_t rows = 1 + random_below(w, 40);

		b->width = (b->bytes / rows + 64) / 4 * 4;
		b->bytes = b->width * rows;
	}
	if (w->live + b->bytes > w->c->budget) {
		b->alive = 0;
		return 0;
	}
	w->n_buf += number == w->n_buf;
	b->model = malloc(b->bytes);
	if (!b->model)
		abort();
	w->live += b->bytes;
	o->a = (uint32_t)random_next(w);
	if (b->family == FAM_PITCH || b->family == FAM_ASYNC || b->family == FAM_POOL)
		o->a &= ~1u;		/* by a memset: one byte */
	o->d.buf = number;
	touches_all(w, o, o->d.buf);
	return 1;
}

static int names(const struct graph *g, int buf)
{
	for (int k = 0; k < g->n_sub; k++)
		for (int a = 0; a < g->sub[k].n_acc; a++)
			if (g->sub[k].acc[a].buf == buf)
				return 1;
	return 0;
}

static void forget_graphs(struct world *w, int buf)
{
	for (int i = 0; i < w->n_graph; i++)
		if (w->graph[i].alive && names(&w->graph[i], buf)) {
			w->graph[i].alive = 0;
			w->graph[i].died = w->segment;
		}
}

static int plan_free_one(struct world *w, struct op *o, int buf)
{
	struct buf *b = &w->buf[buf];

	o->d.buf = buf;
	o->dev = b->dev;
	touches_all(w, o, buf);
	forget_graphs(w, buf);
	w->live -= b->bytes;
	b->alive = 0;
	b->died = w->segment;
	return 1;
}

static int plan_free(struct world *w, struct op *o)
{
	int buf = pick(w, WANT_ANY, o->dev, -1);

	return buf >= 0 && plan_free_one(w, o, buf);
}

static int plan_move(struct world *w, struct op *o)
{
	int buf = pick(w, WANT_DEVICE, o->dev, -1);

	if (buf < 0 || w->buf[buf].family != FAM_VMM)
		return 0;
	o->d.buf = buf;
	w->buf[buf].moved = w->segment;
	touches_all(w, o, buf);
	forget_graphs(w, buf);
	return 1;
}

/* ---- copies and memsets ---------------------------------------------------------- */

/* Two that a copy may join. */
static int pick_two(struct world *w, struct op *o, enum want want)
{
	o->d.buf = pick(w, want, o->dev, -1);
	if (o->d.buf < 0)
		return 0;
	o->s.buf = pick(w, want, o->dev, o->d.buf);
	return o->s.buf >= 0;
}

static int plan_copy(struct world *w, struct op *o)
{
	const struct buf *d, *s;

	if (!pick_two(w, o, o->graph == -2 ? WANT_KERNEL : WANT_ANY))
		return 0;
	if (w->devices > 1 && o->graph != -2 && random_below(w, 3) == 0) {
		int other = pick(w, WANT_DEVICE, !o->dev, -1);

		if (other >= 0 && w->buf[other].family == FAM_ALLOC &&
		    w->buf[o->d.buf].family == FAM_ALLOC)
			o->s.buf = other;
	}
	d = &w->buf[o->d.buf];
	s = &w->buf[o->s.buf];
	o->w = 1 + random_below(w, least(least(d->width, s->width), COPY_MAX));
	o->d.off = place(w, d, o->w, 1);
	o->s.off = place(w, s, o->w, 1);
	touches(o, o->d.buf, o->d.off, o->w, 1);
	touches(o, o->s.buf, o->s.off, o->w, 0);
	return 1;
}

/* A box of w x h x depth, in a buffer seen as rows and slices. */
static void place_box(struct world *w, struct op *o, struct side *e, int write)
{
	const struct buf *b = &w->buf[e->buf];
	size_t rows, most = b->bytes / (o->h * o->depth);

	e->pitch = b->width;
	if (b->family != FAM_PITCH)
		e->pitch = o->w + random_below(w, least(most - o->w, 256) + 1) / 4 * 4;
	rows = b->bytes / e->pitch;
	most = rows / o->depth;
	e->height = o->depth > 1 ? o->h + random_below(w, least(most - o->h, 3) + 1)
				 : rows;
	e->x = random_below(w, e->pitch - o->w + 1) / 4 * 4;
	e->y = random_below(w, e->height - o->h + 1);
	e->z = random_below(w, rows / e->height - o->depth + 1);
	e->off = (e->z * e->height + e->y) * e->pitch + e->x;
	touches(o, e->buf, e->off, ((o->depth - 1) * e->height + o->h - 1) * e->pitch + o->w,
		write);
}

static void fit_box(const struct buf *b, struct op *o)
{
	size_t rows = b->bytes / b->width;

	if (b->family == FAM_PITCH) {
		o->w = least(o->w, b->width);
		o->h = least(o->h, rows);
	} else {
		o->w = least(o->w, b->bytes / (o->h * o->depth) / 4 * 4);
	}
}

static void some_box(struct world *w, struct op *o, int deep)
{
	o->w = 4 * (1 + random_below(w, 150));
	o->h = 1 + random_below(w, 7);
	o->depth = deep ? 2 + random_below(w, 2) : 1;
	fit_box(&w->buf[o->d.buf], o);
	if (o->kind != OP_SET2D) {
		fit_box(&w->buf[o->s.buf], o);
		fit_box(&w->buf[o->d.buf], o);	/* h may have shrunk */
	}
}

static int plan_copy2d(struct world *w, struct op *o)
{
	if (!pick_two(w, o, WANT_ANY))
		return 0;
	some_box(w, o, 0);
	place_box(w, o, &o->d, 1);
	place_box(w, o, &o->s, 0);
	return 1;
}

static int plan_copy3d(struct world *w, struct op *o)
{
	if (!pick_two(w, o, WANT_LINEAR))
		return 0;
	some_box(w, o, 1);
	place_box(w, o, &o->d, 1);
	place_box(w, o, &o->s, 0);
	return 1;
}

static int plan_set(struct world *w, struct op *o)
{
	static const int elems[] = { 1, 2, 4 };
	const struct buf *b;

	o->d.buf = pick(w, WANT_DEVICE, o->dev, -1);
	if (o->d.buf < 0)
		return 0;
	b = &w->buf[o->d.buf];
	o->elem = elems[random_below(w, 3)];
	o->w = (1 + random_below(w, least(b->width / 4, COPY_MAX))) * (size_t)o->elem;
	o->d.off = place(w, b, o->w, (size_t)o->elem);
	o->a = (uint32_t)random_next(w);
	touches(o, o->d.buf, o->d.off, o->w, 1);
	return 1;
}

static int plan_set2d(struct world *w, struct op *o)
{
	o->d.buf = pick(w, WANT_DEVICE, o->dev, -1);
	if (o->d.buf < 0)
		return 0;
	some_box(w, o, 0);
	o->elem = random_below(w, 2) ? 4 : 1;
	o->a = (uint32_t)random_next(w);
	place_box(w, o, &o->d, 1);
	return 1;
}

/* ---- kernels, host functions ----------------------------------------------------- */

static int in_table(const struct world *w, int buf)
{
	return w->buf[buf].born < w->segment && w->buf[buf].moved < w->segment;
}

static int pick_operands(struct world *w, struct op *o)
{
	enum want first = o->body == BODY_COUNT ? WANT_DEVICE : WANT_KERNEL;

	o->d.buf = pick(w, first, o->dev, -1);
	if (o->d.buf < 0)
		return 0;
	o->s.buf = pick(w, WANT_KERNEL, o->dev, o->d.buf);
	if (o->s.buf < 0)
		return 0;
	o->s1.buf = pick(w, WANT_KERNEL, o->dev, o->d.buf);
	return o->s1.buf >= 0 &&
	       (o->mode != MODE_TABLE || (in_table(w, o->d.buf) &&
					  in_table(w, o->s.buf) &&
					  in_table(w, o->s1.buf)));
}

static void place_words(struct world *w, struct op *o, struct side *e, size_t len,
			int write)
{
	e->off = place(w, &w->buf[e->buf], len, 4);
	touches(o, e->buf, e->off, len, write);
}

static int plan_kernel(struct world *w, struct op *o)
{
	size_t n;

	o->body = (int)random_below(w, BODIES);
	o->mode = (int)random_below(w, w->c->modes ? MODE_TABLE :
				    o->graph == -2 ? MODE_BLOCK : MODES);
	if (!pick_operands(w, o))
		return 0;
	n = least(w->buf[o->d.buf].width, w->buf[o->s.buf].width);
	n = least(n, w->buf[o->s1.buf].width) / 4;
	n = 1 + random_below(w, least(n, random_below(w, 3) ? 600 : WORDS_MAX));
	o->w = n * 4;
	o->a = (uint32_t)random_next(w) | 1;
	if (o->body == BODY_COUNT) {
		if (w->buf[o->d.buf].width < RBLOCK * 4)
			return 0;
		place_words(w, o, &o->d, RBLOCK * 4, 1);
	} else {
		place_words(w, o, &o->d, o->w, 1);
	}
	place_words(w, o, &o->s, o->w, 0);
	place_words(w, o, &o->s1, o->w, 0);
	return 1;
}

static int plan_host(struct world *w, struct op *o)
{
	const struct buf *b;

	o->d.buf = pick(w, WANT_HOST, o->dev, -1);
	if (o->d.buf < 0)
		return 0;
	b = &w->buf[o->d.buf];
	o->w = 1 + random_below(w, least(b->width, COPY_MAX));
	o->d.off = place(w, b, o->w, 1);
	o->a = (uint32_t)random_next(w);
	touches(o, o->d.buf, o->d.off, o->w, 1);
	return 1;
}

static int plan_query(struct world *w, struct op *o)
{
	o->d.buf = pick(w, WANT_DEVICE, o->dev, -1);
	if (o->d.buf < 0)
		return 0;
	touches(o, o->d.buf, 0, 1, 0);
	return 1;
}

/* ---- graphs ---------------------------------------------------------------------- */

static int meet(const struct op *a, const struct op *b)
{
	for (int i = 0; i < a->n_acc; i++)
		for (int k = 0; k < b->n_acc; k++)
			if (a->acc[i].buf == b->acc[k].buf &&
			    (a->acc[i].write || b->acc[k].write))
				return 1;
	return 0;
}

static void collect(struct op *o)
{
	o->n_acc = 0;
	for (int i = 0; i < o->n_sub; i++)
		for (int k = 0; k < o->sub[i].n_acc; k++)
			o->acc[o->n_acc++] = o->sub[i].acc[k];
}

static int plan_sub(struct world *w, const struct op *o, struct op *s)
{
	static const enum kind kinds[] = { OP_KERNEL, OP_KERNEL, OP_COPY, OP_SET };

	*s = (struct op){ .kind = kinds[random_below(w, 4)], .dev = o->dev, .graph = -2,
			  .stream = 0, .how = (int)random_below(w, 256) & ~1 };
	return s->kind == OP_KERNEL ? plan_kernel(w, s)
	     : s->kind == OP_COPY   ? plan_copy(w, s)
				    : plan_set(w, s);
}

/* As new_number. */
static int new_graph(struct world *w)
{
	if (w->n_graph < GRAPHS_MAX)
		return w->n_graph;
	for (int i = 0; i < GRAPHS_MAX; i++)
		if (!w->graph[i].alive && w->graph[i].died < w->segment)
			return i;
	return -1;
}

static int plan_graph(struct world *w, struct op *o)
{
	int number = new_graph(w), n = 2 + (int)random_below(w, SUBS_MAX - 1);
	struct graph *g = &w->graph[number];

	if (number < 0)
		return 0;
	*g = (struct graph){ .dev = o->dev, .alive = 1 };
	for (int i = 0; i < TRIES && g->n_sub < n; i++) {
		struct op *s = &g->sub[g->n_sub];

		if (!plan_sub(w, o, s))
			continue;
		s->beside = g->n_sub && !s[-1].beside && !meet(s, s - 1);
		g->n_sub++;
	}
	if (!g->n_sub) {
		g->alive = 0;
		return 0;
	}
	w->n_graph += number == w->n_graph;
	g->built = (int)random_below(w, 2) | (w->c->modes != 0);	/* as (2) of random.c */
	o->graph = number;
	o->sub = malloc(sizeof(g->sub));
	if (!o->sub)
		abort();
	memcpy(o->sub, g->sub, sizeof(g->sub));
	o->n_sub = g->n_sub;
	o->launches = 1 + (int)random_below(w, 2);
	collect(o);
	return 1;
}

/* The first kernel gets another scalar. */
static int plan_relaunch(struct world *w, struct op *o)
{
	struct graph *g;
	int n;

	if (!w->n_graph)
		return 0;
	n = (int)random_below(w, (uint64_t)w->n_graph);
	g = &w->graph[n];
	if (!g->alive)
		return 0;
	o->graph = n;
	o->dev = g->dev;
	o->body = -1;			/* which one; -1: none */
	for (int i = 0; i < g->n_sub && o->body < 0; i++)
		if (g->sub[i].kind == OP_KERNEL) {
			o->body = i;
			g->sub[i].a = (uint32_t)random_next(w) | 1;
		}
	o->sub = malloc(sizeof(g->sub));
	if (!o->sub)
		abort();
	memcpy(o->sub, g->sub, sizeof(g->sub));
	o->n_sub = g->n_sub;
	o->launches = 1;
	collect(o);
	return 1;
}

/* ---- all together ---------------------------------------------------------------- */

static const struct {
	enum kind kind;
	int weight;
	int (*plan)(struct world *w, struct op *o);	/* 0: nothing suits */
} table[] = {
	{ OP_ALLOC, 10, plan_alloc },
	{ OP_FREE, 6, plan_free },
	{ OP_MOVE, 6, plan_move },
	{ OP_COPY, 18, plan_copy },
	{ OP_COPY2D, 8, plan_copy2d },
	{ OP_COPY3D, 5, plan_copy3d },
	{ OP_SET, 7, plan_set },
	{ OP_SET2D, 4, plan_set2d },
	{ OP_KERNEL, 24, plan_kernel },
	{ OP_HOSTFN, 4, plan_host },
	{ OP_TOUCH, 4, plan_host },
	{ OP_GRAPH, 4, plan_graph },
	{ OP_RELAUNCH, 6, plan_relaunch },
	{ OP_QUERY, 3, plan_query },
};

#define N_TABLE (sizeof(table) / sizeof(table[0]))

static size_t pick_kind(struct world *w)
{
	int all = 0, at;
	size_t i = 0;

	for (size_t k = 0; k < N_TABLE; k++)
		all += table[k].weight;
	at = (int)random_below(w, (uint64_t)all);
	while (at >= table[i].weight)
		at -= table[i++].weight;
	return i;
}

static int living(const struct world *w)
{
	int n = 0;

	for (int i = 0; i < w->n_buf; i++)
		n += w->buf[i].alive;
	return n;
}

static void begin(struct world *w, struct op *o, enum kind kind)
{
	*o = (struct op){ .kind = kind, .graph = -1 };
	o->thread = (int)random_below(w, w->c->threads);
	o->dev = (int)random_below(w, (uint64_t)w->devices);
	o->stream = (int)random_below(w, w->c->streams + 2);
	o->how = (int)random_below(w, 256);
}

static void add_op(struct world *w)
{
	struct op *o = &w->op[w->n_op];
	size_t k;

	do {
		k = living(w) < FEW_BUFS && random_below(w, 2) ? 0 : pick_kind(w);
		if (table[k].kind == OP_ALLOC && w->live * 8 > w->c->budget * 7)
			k = 1;
		begin(w, o, table[k].kind);
	} while (!table[k].plan(w, o));
	w->n_op++;
	model_do(w, o);
}

void plan_segment(struct world *w, int n)
{
	w->n_op = 0;
	while (w->n_op < n)
		add_op(w);
}

void plan_end(struct world *w)
{
	w->n_op = 0;
	for (int i = 0; i < w->n_buf && w->n_op < OPS_MAX; i++) {
		if (!w->buf[i].alive)
			continue;
		begin(w, &w->op[w->n_op], OP_FREE);
		plan_free_one(w, &w->op[w->n_op], i);
		model_do(w, &w->op[w->n_op++]);
	}
}
