/* SPDX-License-Identifier: MIT */
/* pass.c - the model, kernel by kernel.
 *
 * Owns nothing; lock: none.
 * (1) The order within a lane is the order of the calls; lanes meet in lane_join.
 */
#include "tests/engine/engine.h"

#include <math.h>

#define BLOCK	128u

static unsigned int blocks(int n, unsigned int each)
{
	return ((unsigned int)n + each - 1) / each;
}

static CUdeviceptr at_float(CUdeviceptr p, long n)
{
	return p + (CUdeviceptr)n * sizeof(float);
}

static struct ref ref_of(const struct gpu *g, int t)
{
	const struct tensor *w = &g->m->t[t];
	struct ref r = { .index = t, .cols = w->cols, .rows = w->rows };

	if (g->c->ref == REF_TABLE)
		r.table = (const void *const *)(uintptr_t)g->table;
	else
		r.data = (const void *)(uintptr_t)g->weight[t];
	return r;
}

static void product(struct gpu *g, int lane, int t, CUdeviceptr y, CUdeviceptr x,
		    int tokens, int add)
{
	const struct tensor *w = &g->m->t[t];
	int many = tokens > 1, direct = g->c->ref == REF_DIRECT;
	struct ref r = ref_of(g, t);
	struct args a = { .n = 0 };

	arg_ptr(&a, y);
	if (direct) {
		arg_ptr(&a, g->weight[t]);
		arg_int(&a, w->cols);
		arg_int(&a, w->rows);
	} else {
		arg_put(&a, &r, sizeof(r), _Alignof(struct ref));
	}
	arg_ptr(&a, x);
	arg_int(&a, tokens);
	arg_int(&a, add);
	launch(g, lane, (direct ? many ? K_MATMUL : K_MATVEC
				: many ? K_MATMUL_REF : K_MATVEC_REF) + (int)w->type,
	       blocks(w->rows, BLOCK / LANES), many ? blocks(tokens, 4) : 1, BLOCK, 0,
	       &a);
}

static void norm(struct gpu *g, int t, CUdeviceptr y, CUdeviceptr x, int tokens)
{
	struct args a = { .n = 0 };

	arg_ptr(&a, y);
	arg_ptr(&a, x);
	arg_ptr(&a, g->weight[t]);
	arg_int(&a, g->m->dim);
	arg_float(&a, g->m->eps);
	launch(g, 0, K_NORM, (unsigned int)tokens, 1, NORM_LANES, 0, &a);
}

static void put_step(struct args *a, const struct step *at)
{
	arg_put(a, at, sizeof(*at), _Alignof(struct step));
}

/* Argument 2 of embed, 4 of rope, 7 of keep, 8 of attention. */
int step_arg(int k)
{
	switch (k) {
	case K_ROPE: return 4;
	case K_KEEP: return 7;
	case K_ATTENTION: return 8;
	default: return k >= K_EMBED && k < K_MATVEC ? 2 : -1;
	}
}

static void embed(struct gpu *g, int tokens, const struct step *at)
{
	struct ref r = ref_of(g, g->m->embd);
	struct args a = { .n = 0 };

	arg_ptr(&a, g->x);
	arg_put(&a, &r, sizeof(r), _Alignof(struct ref));
	put_step(&a, at);
	launch(g, 0, K_EMBED + (int)g->m->t[g->m->embd].type, (unsigned int)tokens,
	       1, BLOCK, 0, &a);
}

static void rope(struct gpu *g, int tokens, const struct step *at)
{
	struct args a = { .n = 0 };

	arg_ptr(&a, g->q);
	arg_ptr(&a, g->turns);
	arg_int(&a, g->m->heads);
	arg_int(&a, g->m->head_dim);
	put_step(&a, at);
	launch(g, 0, K_ROPE, (unsigned int)tokens, 1, BLOCK, 0, &a);
}

static void keep(struct gpu *g, int tokens, long cache, const struct step *at)
{
	struct args a = { .n = 0 };

	arg_ptr(&a, at_float(g->keys, cache));
	arg_ptr(&a, at_float(g->values, cache));
	arg_ptr(&a, g->k);
	arg_ptr(&a, g->v);
	arg_ptr(&a, g->turns);
	arg_int(&a, g->m->kv_heads);
	arg_int(&a, g->m->head_dim);
	put_step(&a, at);
	launch(g, 0, K_KEEP, (unsigned int)tokens, 1, BLOCK, 0, &a);
}

static void attention(struct gpu *g, int tokens, long cache,
		      const struct step *at)
{
	struct args a = { .n = 0 };

	arg_ptr(&a, g->att);
	arg_ptr(&a, g->q);
	arg_ptr(&a, at_float(g->keys, cache));
	arg_ptr(&a, at_float(g->values, cache));
	arg_int(&a, g->m->heads);
	arg_int(&a, g->m->kv_heads);
	arg_int(&a, g->m->head_dim);
	arg_float(&a, 1.0f / sqrtf((float)g->m->head_dim));
	put_step(&a, at);
	launch(g, 0, K_ATTENTION, (unsigned int)g->m->heads, (unsigned int)tokens,
	       ATTN_LANES, (unsigned int)(ATTN_LANES + g->ctx_len) * 4, &a);
}

static void swiglu(struct gpu *g, int n)
{
	struct args a = { .n = 0 };

	arg_ptr(&a, g->gate);
	arg_ptr(&a, g->up);
	arg_int(&a, n);
	launch(g, 0, K_SWIGLU, blocks(n, BLOCK), 1, BLOCK, 0, &a);
}

static void choose(struct gpu *g, const struct step *at)
{
	struct args a = { .n = 0 };

	arg_ptr(&a, g->state + sizeof(int));
	arg_ptr(&a, at->state ? g->state : 0);
	arg_ptr(&a, g->logits);
	arg_int(&a, g->m->vocab);
	launch(g, 0, K_CHOOSE, 1, 1, NORM_LANES, 0, &a);
}

static void layer(struct gpu *g, int i, int tokens, const struct step *at)
{
	const int *t = g->m->layer[i];
	int kv = g->m->kv_heads * g->m->head_dim, n = (int)g->c->streams;
	long cache = (long)i * g->ctx_len * kv;
	int b = n > 1 ? 1 : 0, c = n > 2 ? 2 : b;

	norm(g, t[ATTN_NORM], g->y, g->x, tokens);
	lane_fork(g, b);
	if (c != b)
		lane_fork(g, c);
	product(g, b, t[ATTN_K], g->k, g->y, tokens, 0);
	product(g, c, t[ATTN_V], g->v, g->y, tokens, 0);
	product(g, 0, t[ATTN_Q], g->q, g->y, tokens, 0);
	rope(g, tokens, at);
	lane_join(g, b);
	if (c != b)
		lane_join(g, c);
	keep(g, tokens, cache, at);
	attention(g, tokens, cache, at);
	product(g, 0, t[ATTN_OUTPUT], g->x, g->att, tokens, 1);
	norm(g, t[FFN_NORM], g->y, g->x, tokens);
	lane_fork(g, b);
	product(g, b, t[FFN_UP], g->up, g->y, tokens, 0);
	product(g, 0, t[FFN_GATE], g->gate, g->y, tokens, 0);
	lane_join(g, b);
	swiglu(g, tokens * g->m->ff);
	product(g, 0, t[FFN_DOWN], g->x, g->gate, tokens, 1);
}

void pass(struct gpu *g, int tokens, struct step at)
{
	long last = (long)(tokens - 1) * g->m->dim;

	embed(g, tokens, &at);
	for (int i = 0; i < g->m->layers; i++)
		layer(g, i, tokens, &at);
	norm(g, g->m->norm, at_float(g->y, last), at_float(g->x, last), 1);
	product(g, 0, g->m->output, g->logits, at_float(g->y, last), 1, 0);
	choose(g, &at);
}
