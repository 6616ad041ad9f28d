/* SPDX-License-Identifier: MIT */
/* cpu.c - what engine.cu does, in turn, bit by bit.
 *
 * Owns its state (struct cpu); lock: none.
 * (1) Sums keep the kernels' order: rule 2 of arith.h.
 */
#include "tests/engine/cpu.h"

#include <stdlib.h>
#include <string.h>

struct cpu {
	const struct model *m;
	int ctx;
	float *turns, *keys, *values;	/* [layer][position][kv] */
	float *x, *y, *q, *k, *v, *att, *gate, *up, *score, *logits;
};

static float item(const struct tensor *t, const char *row, int i)
{
	const char *b = row + i / 32 * 34;
	unsigned short h;
	float f;

	switch (t->type) {
	case W_F32:
		memcpy(&f, row + 4 * i, 4);
		return f;
	case W_F16:
		memcpy(&h, row + 2 * i, 2);
		return from_half(h);
	case W_BF16:
		memcpy(&h, row + 2 * i, 2);
		return from_bf16(h);
	default:
		memcpy(&h, b, 2);
		return from_half(h) * (float)((const signed char *)b)[2 + i % 32];
	}
}

static float tree_sum(float *s, int n)
{
	for (int k = n / 2; k; k /= 2)
		for (int i = 0; i < k; i++)
			s[i] += s[i + k];
	return s[0];
}

static void product(float *y, const struct tensor *w, const float *x, int add)
{
	uint64_t row_bytes = w->bytes / (uint64_t)w->rows;

	for (int r = 0; r < w->rows; r++) {
		const char *row = (const char *)w->data + (uint64_t)r * row_bytes;
		float lane[LANES] = { 0 }, s;

		for (int i = 0; i < w->cols; i++)
			lane[i % LANES] = __builtin_fmaf(item(w, row, i), x[i],
							 lane[i % LANES]);
		s = tree_sum(lane, LANES);
		y[r] = add ? y[r] + s : s;
	}
}

static void norm(const struct cpu *c, float *y, const float *x,
		 const struct tensor *w)
{
	float lane[NORM_LANES] = { 0 }, scale;

	for (int i = 0; i < w->cols; i++)
		lane[i % NORM_LANES] = __builtin_fmaf(x[i], x[i],
						      lane[i % NORM_LANES]);
	scale = tree_sum(lane, NORM_LANES) / (float)w->cols + c->m->eps;
	scale = 1.0f / __builtin_sqrtf(scale);
	for (int i = 0; i < w->cols; i++)
		y[i] = x[i] * scale * item(w, w->data, i);
}

static void turn(const struct cpu *c, float *x, int heads, int pos)
{
	int half = c->m->head_dim / 2;
	const float *cs = c->turns + pos * c->m->head_dim;

	for (int i = 0; i < heads * half; i++)
		rotate(&x[2 * i], &x[2 * i + 1], cs[i % half * 2],
		       cs[i % half * 2 + 1]);
}

static float dot(const float *a, const float *b, int n)
{
	float s = 0;

	for (int i = 0; i < n; i++)
		s = __builtin_fmaf(a[i], b[i], s);
	return s;
}

/* One head: keys and values of its group, the first position's. */
static void attend(const struct cpu *c, float *out, const float *q,
		   const float *keys, const float *values, int n)
{
	int hd = c->m->head_dim, dim = c->m->kv_heads * hd;
	float lane[ATTN_LANES] = { 0 }, most = -1e30f, sum;
	float scale = 1.0f / __builtin_sqrtf((float)hd), *score = c->score;

	for (int p = 0; p < n; p++) {
		score[p] = dot(q, keys + (long)p * dim, hd) * scale;
		most = most > score[p] ? most : score[p];
	}
	for (int p = 0; p < n; p++) {
		score[p] = exp_of(score[p] - most);
		lane[p % ATTN_LANES] += score[p];
	}
	sum = tree_sum(lane, ATTN_LANES);
	for (int i = 0; i < hd; i++) {
		float s = 0;

		for (int p = 0; p < n; p++)
			s = __builtin_fmaf(score[p], values[(long)p * dim + i], s);
		out[i] = s / sum;
	}
}

static void attention(const struct cpu *c, const struct tensor *t,
		      const int *layer, int i, int pos)
{
	const struct model *m = c->m;
	int kv = m->kv_heads * m->head_dim;
	long base = (long)i * c->ctx * kv;

	norm(c, c->y, c->x, &t[layer[ATTN_NORM]]);
	product(c->q, &t[layer[ATTN_Q]], c->y, 0);
	product(c->k, &t[layer[ATTN_K]], c->y, 0);
	product(c->v, &t[layer[ATTN_V]], c->y, 0);
	turn(c, c->q, m->heads, pos);
	turn(c, c->k, m->kv_heads, pos);
	memcpy(c->keys + base + (long)pos * kv, c->k, (size_t)kv * 4);
	memcpy(c->values + base + (long)pos * kv, c->v, (size_t)kv * 4);
	for (int h = 0; h < m->heads; h++) {
		int from = h / (m->heads / m->kv_heads) * m->head_dim;

		attend(c, c->att + h * m->head_dim, c->q + h * m->head_dim,
		       c->keys + base + from, c->values + base + from, pos + 1);
	}
	product(c->x, &t[layer[ATTN_OUTPUT]], c->att, 1);
}

static void feed_forward(const struct cpu *c, const struct tensor *t,
			 const int *layer)
{
	norm(c, c->y, c->x, &t[layer[FFN_NORM]]);
	product(c->gate, &t[layer[FFN_GATE]], c->y, 0);
	product(c->up, &t[layer[FFN_UP]], c->y, 0);
	for (int i = 0; i < c->m->ff; i++)
		c->gate[i] = silu(c->gate[i]) * c->up[i];
	product(c->x, &t[layer[FFN_DOWN]], c->gate, 1);
}

const float *cpu_pass(struct cpu *c, int token, int pos)
{
	const struct model *m = c->m;
	const struct tensor *e = &m->t[m->embd];
	const char *row = (const char *)e->data +
			  (uint64_t)token * (e->bytes / (uint64_t)e->rows);

	for (int i = 0; i < m->dim; i++)
		c->x[i] = item(e, row, i);
	for (int i = 0; i < m->layers; i++) {
		attention(c, m->t, m->layer[i], i, pos);
		feed_forward(c, m->t, m->layer[i]);
	}
	norm(c, c->y, c->x, &m->t[m->norm]);
	product(c->logits, &m->t[m->output], c->y, 0);
	return c->logits;
}

static float *floats(long n)
{
	float *p = calloc((size_t)n, sizeof(*p));

	if (!p)
		die("out of memory");
	return p;
}

struct cpu *cpu_new(const struct model *m, int ctx)
{
	struct cpu *c = calloc(1, sizeof(*c));
	int kv = m->kv_heads * m->head_dim, q = m->heads * m->head_dim;

	if (!c)
		die("out of memory");
	c->m = m;
	c->ctx = ctx;
	c->turns = model_turns(m, ctx);
	c->keys = floats((long)m->layers * ctx * kv);
	c->values = floats((long)m->layers * ctx * kv);
	c->x = floats(m->dim);
	c->y = floats(m->dim);
	c->q = floats(q);
	c->k = floats(kv);
	c->v = floats(kv);
	c->att = floats(q);
	c->gate = floats(m->ff);
	c->up = floats(m->ff);
	c->score = floats(ctx);
	c->logits = floats(m->vocab);
	return c;
}
