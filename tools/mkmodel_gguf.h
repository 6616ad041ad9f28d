/* SPDX-License-Identifier: MIT */
/* mkmodel_gguf.h - the shape of a synthetic model and its GGUF header. Part
 * of mkmodel.c, which alone includes it.
 *
 * Owns the list of tensors and the bytes before the first of them.
 *
 *  1. Tensors are listed in the order they lie in the file, which is the
 *     order an engine uses them in, but for the embedding.
 *  2. Every key that llama.cpp needs to load a Llama is there, tokenizer
 *     included, and no other.
 * Lock: none; all of it happens before any thread runs.
 */
#ifndef OFFLOAD_MKMODEL_GGUF_H
#define OFFLOAD_MKMODEL_GGUF_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/mkmodel_items.h"

#define ALIGN		32u		/* GGUF's default */
#define FIRST_WORD	259u		/* unk, bos, eos, 256 byte tokens */

struct tensor {
	char name[40];
	const struct kind *kind;
	uint64_t cols, rows, planes;	/* planes: experts, else 1 */
	uint64_t off, bytes;		/* from the start of the data */
	int norm;			/* 1 + small noise, not a weight */
};

struct conf {
	const struct kind *kind;
	uint64_t layers, dim, ff, vocab, experts, used, seed;
	uint64_t heads, kv_heads, head_dim;	/* all 0: chosen */
	uint64_t threads;
	const char *out, *drop;
	int dry;
};

struct model {
	struct conf conf;
	struct tensor *t;
	size_t n;
	uint64_t heads, kv_heads, head_dim;
	uint64_t data_bytes;
	float base;			/* median sd of a row */
};

/* Says why on stderr, leaves no file behind, exits. */
static void die(const char *fmt, ...)
	__attribute__((noreturn, format(printf, 1, 2)));

/* ---- the shape ----------------------------------------------------------- */

static uint64_t row_bytes(const struct tensor *t)
{
	return t->cols / t->kind->items * t->kind->bytes;
}

static uint64_t align_up(uint64_t n)
{
	return (n + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
}

static struct tensor *add(struct model *m, const struct kind *kind,
			  uint64_t cols, uint64_t rows)
{
	struct tensor *t = &m->t[m->n++];

	*t = (struct tensor){ .kind = kind, .cols = cols, .rows = rows,
			      .planes = 1 };
	return t;
}

static void add_norm(struct model *m, const char *fmt, uint64_t layer)
{
	struct tensor *t = add(m, kind_named("f32"), m->conf.dim, 1);

	snprintf(t->name, sizeof(t->name), fmt, (unsigned)layer);
	t->norm = 1;
}

static void add_weight(struct model *m, const char *what, int layer,
		       uint64_t cols, uint64_t rows, uint64_t planes)
{
	struct tensor *t = add(m, m->conf.kind, cols, rows);

	if (layer < 0)
		snprintf(t->name, sizeof(t->name), "%s.weight", what);
	else
		snprintf(t->name, sizeof(t->name), "blk.%d.%s.weight", layer,
			 what);
	t->planes = planes;
}

static void add_layer(struct model *m, int i)
{
	const struct conf *c = &m->conf;
	uint64_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
	uint64_t e = c->experts;

	add_norm(m, "blk.%u.attn_norm.weight", i);
	add_weight(m, "attn_q", i, c->dim, q, 1);
	add_weight(m, "attn_k", i, c->dim, kv, 1);
	add_weight(m, "attn_v", i, c->dim, kv, 1);
	add_weight(m, "attn_output", i, q, c->dim, 1);
	add_norm(m, "blk.%u.ffn_norm.weight", i);
	if (!e) {
		add_weight(m, "ffn_gate", i, c->dim, c->ff, 1);
		add_weight(m, "ffn_up", i, c->dim, c->ff, 1);
		add_weight(m, "ffn_down", i, c->ff, c->dim, 1);
		return;
	}
	add_weight(m, "ffn_gate_inp", i, c->dim, e, 1);
	m->t[m->n - 1].kind = kind_named("f32");
	add_weight(m, "ffn_gate_exps", i, c->dim, c->ff, e);
	add_weight(m, "ffn_up_exps", i, c->dim, c->ff, e);
	add_weight(m, "ffn_down_exps", i, c->ff, c->dim, e);
}

/* Unless they were asked for: heads of the largest customary size of which
 * there is a multiple of four, so that four share one key/value head. */
static void choose_heads(struct model *m)
{
	m->heads = m->conf.heads;
	m->kv_heads = m->conf.kv_heads;
	m->head_dim = m->conf.head_dim;
	if (m->heads)
		return;
	for (uint64_t d = 128; d >= 16; d /= 2)
		if (!m->head_dim && m->conf.dim % (4 * d) == 0)
			m->head_dim = d;
	if (!m->head_dim)
		die("--dim must be a multiple of 64");
	m->heads = m->conf.dim / m->head_dim;
	m->kv_heads = m->heads / 4;
}

static void shape(struct model *m)
{
	const struct conf *c = &m->conf;
	uint64_t off = 0;

	choose_heads(m);
	/* The customary 0.02 at 4096 columns: every product of a normed
	 * vector and a row has a standard deviation near 1. */
	m->base = (float)(1.28 / sqrt((double)c->dim));
	m->t = calloc(c->layers * 10 + 3, sizeof(*m->t));
	if (!m->t)
		die("out of memory");
	add_weight(m, "token_embd", -1, c->dim, c->vocab, 1);
	for (uint64_t i = 0; i < c->layers; i++)
		add_layer(m, (int)i);
	add_norm(m, "output_norm.weight", 0);
	add_weight(m, "output", -1, c->dim, c->vocab, 1);
	for (size_t i = 0; i < m->n; i++) {
		struct tensor *t = &m->t[i];

		t->off = off;
		t->bytes = row_bytes(t) * t->rows * t->planes;
		off = align_up(off + t->bytes);
	}
	m->data_bytes = off;
}

/* ---- the header ---------------------------------------------------------- */

enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_BOOL = 7, GGUF_STR = 8,
       GGUF_ARR = 9 };

struct out {
	uint8_t *mem;
	size_t len, cap;
	uint64_t keys;
};

static void put(struct out *o, const void *p, size_t n)
{
	if (o->len + n > o->cap) {
		o->cap = (o->len + n) * 2;
		o->mem = realloc(o->mem, o->cap);
		if (!o->mem)
			die("out of memory");
	}
	memcpy(o->mem + o->len, p, n);
	o->len += n;
}

static void put_u32(struct out *o, uint32_t v)
{
	put(o, &v, 4);
}

static void put_u64(struct out *o, uint64_t v)
{
	put(o, &v, 8);
}

static void put_str(struct out *o, const char *s)
{
	put_u64(o, strlen(s));
	put(o, s, strlen(s));
}

static void key(struct out *o, const char *name, uint32_t type)
{
	o->keys++;
	put_str(o, name);
	put_u32(o, type);
}

static void key_u32(struct out *o, const char *name, uint64_t v)
{
	key(o, name, GGUF_U32);
	put_u32(o, (uint32_t)v);
}

static void key_f32(struct out *o, const char *name, float v)
{
	key(o, name, GGUF_F32);
	put(o, &v, 4);
}

static void key_str(struct out *o, const char *name, const char *v)
{
	key(o, name, GGUF_STR);
	put_str(o, v);
}

static void key_array(struct out *o, const char *name, uint32_t type,
		      uint64_t n)
{
	key(o, name, GGUF_ARR);
	put_u32(o, type);
	put_u64(o, n);
}

/* Bytes, then words that begin with the mark SentencePiece uses for a space:
 * any text has a tokenisation, and most is split into short words. */
static void token_text(uint64_t i, char *s, size_t n)
{
	static const char *const special[] = { "<unk>", "<s>", "</s>" };
	char word[16];
	int len = 0;

	if (i < 3) {
		snprintf(s, n, "%s", special[i]);
		return;
	}
	if (i < FIRST_WORD) {
		snprintf(s, n, "<0x%02X>", (unsigned)(i - 3));
		return;
	}
	for (i -= FIRST_WORD - 1; i; i = (i - 1) / 26)
		word[len++] = (char)('a' + (i - 1) % 26);
	word[len] = 0;
	snprintf(s, n, "\xe2\x96\x81%s", word);
}

static void put_tokenizer(struct out *o, uint64_t vocab)
{
	char s[32];

	key_str(o, "tokenizer.ggml.model", "llama");
	key_array(o, "tokenizer.ggml.tokens", GGUF_STR, vocab);
	for (uint64_t i = 0; i < vocab; i++) {
		token_text(i, s, sizeof(s));
		put_str(o, s);
	}
	key_array(o, "tokenizer.ggml.scores", GGUF_F32, vocab);
	for (uint64_t i = 0; i < vocab; i++)
		put_u32(o, bits(i < FIRST_WORD ? 0 : -(float)i));
	key_array(o, "tokenizer.ggml.token_type", GGUF_I32, vocab);
	for (uint64_t i = 0; i < vocab; i++)	/* unknown, control, byte, normal */
		put_u32(o, i == 0 ? 2 : i < 3 ? 3 : i < FIRST_WORD ? 6 : 1);
	key_u32(o, "tokenizer.ggml.bos_token_id", 1);
	key_u32(o, "tokenizer.ggml.eos_token_id", 2);
	key_u32(o, "tokenizer.ggml.unknown_token_id", 0);
}

static void put_keys(struct out *o, const struct model *m)
{
	const struct conf *c = &m->conf;

	key_str(o, "general.architecture", "llama");
	key_str(o, "general.name", "synthetic");
	key_u32(o, "general.file_type", c->kind->file_type);
	key_u32(o, "general.quantization_version", 2);
	key_u32(o, "llama.context_length", 2048);
	key_u32(o, "llama.embedding_length", c->dim);
	key_u32(o, "llama.block_count", c->layers);
	key_u32(o, "llama.feed_forward_length", c->ff);
	key_u32(o, "llama.attention.head_count", m->heads);
	key_u32(o, "llama.attention.head_count_kv", m->kv_heads);
	if (m->conf.heads) {
		key_u32(o, "llama.attention.key_length", m->head_dim);
		key_u32(o, "llama.attention.value_length", m->head_dim);
	}
	key_f32(o, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
	key_u32(o, "llama.rope.dimension_count", m->head_dim);
	key_f32(o, "llama.rope.freq_base", 10000.0f);
	key_u32(o, "llama.vocab_size", c->vocab);
	if (c->experts) {
		key_u32(o, "llama.expert_count", c->experts);
		key_u32(o, "llama.expert_used_count", c->used);
	}
	put_tokenizer(o, c->vocab);
}

static void put_tensor(struct out *o, const struct tensor *t)
{
	uint32_t dims = t->norm ? 1 : t->planes > 1 ? 3 : 2;
	uint64_t d[3] = { t->cols, t->rows, t->planes };

	put_str(o, t->name);
	put_u32(o, dims);
	put(o, d, dims * 8);
	put_u32(o, t->kind->ggml);
	put_u64(o, t->off);
}

static void header(struct out *o, const struct model *m)
{
	static const char zero[ALIGN];
	size_t keys_at;

	put(o, "GGUF", 4);
	put_u32(o, 3);
	put_u64(o, m->n);
	keys_at = o->len;
	put_u64(o, 0);
	put_keys(o, m);
	memcpy(o->mem + keys_at, &o->keys, 8);
	for (size_t i = 0; i < m->n; i++)
		put_tensor(o, &m->t[i]);
	put(o, zero, align_up(o->len) - o->len);
}

#endif
