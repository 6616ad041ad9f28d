/* SPDX-License-Identifier: MIT */
/* model.c - reads the GGUF files that mkmodel makes: version 3, the types of
 * arith.h, a dense Llama.
 *
 * Owns the mapping and the list of tensors; lock: none.
 * (1) The file is trusted as far as its maker is: lengths are checked against the
 *     mapping, for a truncated file, and a missing key ends the program.
 */
#include "tests/engine/model.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KV_U32 = 4, KV_I32 = 5, KV_F32 = 6, KV_STRING = 8, KV_ARRAY = 9 };

#define ALIGN 32u

static const struct {
	uint32_t ggml;
	enum weight_type type;
	int items, bytes;		/* of a block */
} kinds[] = {
	{ 0, W_F32, 1, 4 },
	{ 1, W_F16, 1, 2 },
	{ 8, W_Q8_0, 32, 34 },
	{ 30, W_BF16, 1, 2 },
};

struct reader {
	const uint8_t *start, *at, *end;
};

void die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("engine: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

static const void *take(struct reader *r, uint64_t n)
{
	const void *p = r->at;

	if (n > (uint64_t)(r->end - r->at))
		die("the model file ends inside its header");
	r->at += n;
	return p;
}

static uint32_t take_u32(struct reader *r)
{
	uint32_t v;

	memcpy(&v, take(r, 4), 4);
	return v;
}

static uint64_t take_u64(struct reader *r)
{
	uint64_t v;

	memcpy(&v, take(r, 8), 8);
	return v;
}

/* Cut to the buffer's length. */
static void take_string(struct reader *r, char *s, size_t size)
{
	uint64_t n = take_u64(r);
	const void *p = take(r, n);
	size_t len = n < size ? n : size - 1;

	memcpy(s, p, len);
	s[len] = 0;
}

/* ---- keys ---------------------------------------------------------------- */

static const struct {
	const char *name;
	size_t at;
	int real;			/* a float */
} keys[] = {
	{ "llama.embedding_length", offsetof(struct model, dim), 0 },
	{ "llama.block_count", offsetof(struct model, layers), 0 },
	{ "llama.feed_forward_length", offsetof(struct model, ff), 0 },
	{ "llama.attention.head_count", offsetof(struct model, heads), 0 },
	{ "llama.attention.head_count_kv", offsetof(struct model, kv_heads), 0 },
	{ "llama.rope.dimension_count", offsetof(struct model, head_dim), 0 },
	{ "llama.vocab_size", offsetof(struct model, vocab), 0 },
	{ "llama.attention.layer_norm_rms_epsilon", offsetof(struct model, eps), 1 },
	{ "llama.rope.freq_base", offsetof(struct model, freq_base), 1 },
};

#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

static void skip_value(struct reader *r, uint32_t type)
{
	uint64_t n;

	switch (type) {
	case KV_U32: case KV_I32: case KV_F32:
		take(r, 4);
		break;
	case KV_STRING:
		take(r, take_u64(r));
		break;
	case KV_ARRAY:
		type = take_u32(r);
		n = take_u64(r);
		while (n--)
			skip_value(r, type);
		break;
	default:
		die("a key of type %u: mkmodel writes none", (unsigned)type);
	}
}

static void read_key(struct reader *r, struct model *m)
{
	char name[64];
	uint32_t type;

	take_string(r, name, sizeof(name));
	type = take_u32(r);
	if (!strcmp(name, "llama.expert_count"))
		die("a model with experts: only dense ones are run");
	for (size_t i = 0; i < N_KEYS; i++)
		if (!strcmp(keys[i].name, name) &&
		    type == (keys[i].real ? KV_F32 : KV_U32)) {
			memcpy((char *)m + keys[i].at, take(r, 4), 4);
			return;
		}
	skip_value(r, type);
}

/* ---- tensors ------------------------------------------------------------- */

/* data holds the offset for now: where data begins is not known yet. */
static void read_tensor(struct reader *r, struct tensor *t)
{
	uint32_t dims, ggml;
	uint64_t d[2] = { 1, 1 };
	size_t k = 0;

	take_string(r, t->name, sizeof(t->name));
	dims = take_u32(r);
	if (dims < 1 || dims > 2)
		die("%s has %u dimensions", t->name, (unsigned)dims);
	for (uint32_t i = 0; i < dims; i++)
		d[i] = take_u64(r);
	ggml = take_u32(r);
	while (k < sizeof(kinds) / sizeof(kinds[0]) && kinds[k].ggml != ggml)
		k++;
	if (k == sizeof(kinds) / sizeof(kinds[0]))
		die("%s is of type %u: not one of f32, f16, bf16, q8_0", t->name,
		    (unsigned)ggml);
	t->type = kinds[k].type;
	t->cols = (int)d[0];
	t->rows = (int)d[1];
	t->bytes = d[0] / (uint64_t)kinds[k].items * (uint64_t)kinds[k].bytes * d[1];
	t->data = (const void *)(uintptr_t)take_u64(r);
}

static void place_tensors(struct reader *r, struct model *m)
{
	uint64_t head = ((uint64_t)(r->at - r->start) + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
	uint64_t size = (uint64_t)(r->end - r->start);

	for (int i = 0; i < m->n; i++) {
		uint64_t off = head + (uint64_t)(uintptr_t)m->t[i].data;

		if (off > size || m->t[i].bytes > size - off)
			die("%s lies outside of the file", m->t[i].name);
		m->t[i].data = r->start + off;
	}
}

static int find(const struct model *m, const char *name, int cols, int rows)
{
	for (int i = 0; i < m->n; i++) {
		const struct tensor *t = &m->t[i];

		if (strcmp(t->name, name))
			continue;
		if (t->cols != cols || t->rows != rows)
			die("%s is %d x %d, not %d x %d", name, t->cols, t->rows,
			    cols, rows);
		return i;
	}
	die("the model has no %s", name);
}

static void find_layer(struct model *m, int i)
{
	int q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
	const struct { const char *what; int cols, rows; } want[] = {
		[ATTN_NORM] = { "attn_norm", m->dim, 1 },
		[ATTN_Q] = { "attn_q", m->dim, q },
		[ATTN_K] = { "attn_k", m->dim, kv },
		[ATTN_V] = { "attn_v", m->dim, kv },
		[ATTN_OUTPUT] = { "attn_output", q, m->dim },
		[FFN_NORM] = { "ffn_norm", m->dim, 1 },
		[FFN_GATE] = { "ffn_gate", m->dim, m->ff },
		[FFN_UP] = { "ffn_up", m->dim, m->ff },
		[FFN_DOWN] = { "ffn_down", m->ff, m->dim },
	};
	char name[64];

	for (int k = 0; k < LAYER_TENSORS; k++) {
		snprintf(name, sizeof(name), "blk.%d.%s.weight", i, want[k].what);
		m->layer[i][k] = find(m, name, want[k].cols, want[k].rows);
	}
}

static void find_all(struct model *m)
{
	for (size_t i = 0; i < N_KEYS; i++) {
		int zero;

		memcpy(&zero, (char *)m + keys[i].at, 4);
		if (!zero)
			die("the model does not say its %s", keys[i].name);
	}
	m->layer = calloc((size_t)m->layers, sizeof(*m->layer));
	if (!m->layer)
		die("out of memory");
	m->embd = find(m, "token_embd.weight", m->dim, m->vocab);
	for (int i = 0; i < m->layers; i++)
		find_layer(m, i);
	m->norm = find(m, "output_norm.weight", m->dim, 1);
	m->output = find(m, "output.weight", m->dim, m->vocab);
}

/* ---- outside ------------------------------------------------------------- */

void model_open(struct model *m, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct reader r;
	struct stat st;
	uint64_t n_keys;
	void *map;

	*m = (struct model){ 0 };
	if (fd < 0 || fstat(fd, &st))
		die("%s: %s", path, strerror(errno));
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		die("%s: %s", path, strerror(errno));
	close(fd);
	r.start = r.at = map;
	r.end = r.start + st.st_size;
	if (memcmp(take(&r, 4), "GGUF", 4) || take_u32(&r) != 3)
		die("%s is not a GGUF file of version 3", path);
	m->n = (int)take_u64(&r);
	n_keys = take_u64(&r);
	while (n_keys--)
		read_key(&r, m);
	m->t = calloc((size_t)m->n + 1, sizeof(*m->t));
	if (!m->t)
		die("out of memory");
	for (int i = 0; i < m->n; i++)
		read_tensor(&r, &m->t[i]);
	place_tensors(&r, m);
	find_all(m);
}

float *model_turns(const struct model *m, int n)
{
	int half = m->head_dim / 2;
	float *cs = malloc((size_t)n * (size_t)m->head_dim * sizeof(*cs));

	if (!cs)
		die("out of memory");
	for (int p = 0; p < n; p++)
		for (int i = 0; i < half; i++) {
			double a = p * pow(m->freq_base, -2.0 * i / m->head_dim);

			cs[(p * half + i) * 2] = (float)cos(a);
			cs[(p * half + i) * 2 + 1] = (float)sin(a);
		}
	return cs;
}
