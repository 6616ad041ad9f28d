/* SPDX-License-Identifier: MIT */
/* mkmodel.c - make a synthetic model file (GGUF v3) of any size.
 *
 * Owns the shape of the model, the numbers in it and the file they go to.
 * The result is Llama-shaped (Mixtral-shaped with --experts), loads in
 * llama.cpp, and its weights have the statistics of published ones: normal,
 * with a log-normal scale per row, one base scale for all tensors.
 *
 *     workers: [claim a block] -> fill -> full --.
 *     main:                   write, in order <--'  -> block free again
 *
 *  1. A row depends on (seed, tensor, row) only: any number of threads
 *     makes the same file.
 *  2. The file is written as OUT.tmp and renamed when whole. Whatever stops
 *     us, OUT.tmp is removed: no partial model is ever seen under OUT.
 *  3. Blocks are claimed and written in file order, so the disk sees one
 *     sequential stream of large writes.
 * Lock: pipe.lock guards the counters of struct pipe; block contents belong
 * to the worker that claimed them until they are marked full.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALIGN		32u		/* GGUF's default */
#define BLOCK_BYTES	(8u << 20)
#define MAX_THREADS	16
#define ROW_SD		0.35		/* of the log of a row's scale */
#define MAX_DIM		(1u << 20)	/* a row must fit a block */
#define FIRST_WORD	259u		/* unk, bos, eos, 256 byte tokens */

/* ---- types --------------------------------------------------------------- */

struct kind {
	const char *name;
	uint32_t ggml, file_type;	/* ids of the format */
	uint32_t items, bytes;		/* per block of the type */
	void (*store)(void *dst, const float *src, size_t n);
	uint32_t exp_shift, exp_mask;	/* of the stored item; mask 0: none */
};

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
	uint64_t threads;
	const char *out, *drop;
	int dry;
};

struct model {
	struct conf conf;
	struct tensor *t;
	size_t n;
	uint64_t heads, head_dim;
	uint64_t data_bytes;
	float base;			/* median sd of a row */
};

static const char *tmp_name;		/* removed on any failure (rule 2) */

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list ap;

	if (tmp_name)
		unlink(tmp_name);
	fputs("mkmodel: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

/* ---- numbers ------------------------------------------------------------- */

#define QUANTILES	16384
static float quantile[QUANTILES + 1];

/* Newton's method on the normal distribution function. */
static double normal_quantile(double p)
{
	double x = 0;

	for (int i = 0; i < 60; i++) {
		double f = 0.5 * erfc(-x / M_SQRT2) - p;
		double d = exp(-x * x / 2) / sqrt(2 * M_PI);
		double step = f / d;

		step = fmin(fmax(step, -0.5), 0.5);
		x -= step;
		if (fabs(step) < 1e-12)
			break;
	}
	return x;
}

static void quantile_init(void)
{
	for (int i = 1; i < QUANTILES; i++)
		quantile[i] = (float)normal_quantile((double)i / QUANTILES);
	quantile[0] = -4.5f;		/* the tails end here */
	quantile[QUANTILES] = 4.5f;
}

static inline uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* 14 bits choose the interval, 18 the place in it. */
static inline float normal(uint32_t r)
{
	uint32_t i = r >> 18;
	float f = (float)(r & 0x3ffff) * (1.0f / 262144);

	return quantile[i] + f * (quantile[i + 1] - quantile[i]);
}

/* n is even. */
static void fill_row(float *x, size_t n, uint64_t key, float scale)
{
	for (size_t i = 0; i < n; i += 2) {
		uint64_t z = mix(key + (i + 2) * 0x9e3779b97f4a7c15u);

		x[i] = scale * normal((uint32_t)z);
		x[i + 1] = scale * normal((uint32_t)(z >> 32));
	}
}

static inline uint32_t bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	return u;
}

static inline float unbits(uint32_t u)
{
	float f;

	memcpy(&f, &u, 4);
	return f;
}

/* To nearest, ties to even: adding 1.5 * 2^23 leaves the integer in the low
 * bits. For |f| < 2^22. */
static inline int32_t nearest(float f)
{
	return (int32_t)(bits(f + 12582912.0f) - 0x4b400000u);
}

static inline uint16_t to_bf16(float f)
{
	uint32_t u = bits(f);

	return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/* Finite values below 65504 only. */
static inline uint16_t to_f16(float f)
{
	uint32_t u = bits(f), sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;

	if (a < 0x38800000)		/* subnormal: a multiple of 2^-24 */
		return (uint16_t)(sign | (uint32_t)nearest(unbits(a) * 16777216.0f));
	a += 0xfff + ((a >> 13) & 1);
	return (uint16_t)(sign | ((a >> 13) - (112u << 10)));
}

static inline float from_f16(uint16_t h)
{
	uint32_t e = (h >> 10) & 31, m = h & 1023;
	float f = e ? unbits(((e + 112) << 23) | (m << 13)) : (float)m / 16777216.0f;

	return h & 0x8000 ? -f : f;
}

static void store_f32(void *dst, const float *src, size_t n)
{
	memcpy(dst, src, n * 4);
}

static void store_f16(void *dst, const float *src, size_t n)
{
	uint16_t *d = dst;

	for (size_t i = 0; i < n; i++)
		d[i] = to_f16(src[i]);
}

static void store_bf16(void *dst, const float *src, size_t n)
{
	uint16_t *d = dst;

	for (size_t i = 0; i < n; i++)
		d[i] = to_bf16(src[i]);
}

/* The bit pattern of |x| orders as |x| does: an integer maximum. */
static inline uint32_t largest(const float *x, int n)
{
	uint32_t most = 0;

	for (int i = 0; i < n; i++) {
		uint32_t a = bits(x[i]) & 0x7fffffff;

		most = a > most ? a : most;
	}
	return most;
}

static void store_q8_0(void *dst, const float *src, size_t n)
{
	uint8_t *d = dst;

	for (size_t b = 0; b < n / 32; b++, d += 34, src += 32) {
		float scale = unbits(largest(src, 32)) / 127;
		float inv = scale > 0 ? 1 / scale : 0;
		uint16_t h = to_f16(scale);

		memcpy(d, &h, 2);
		for (int i = 0; i < 32; i++)
			d[2 + i] = (uint8_t)nearest(src[i] * inv);
	}
}

/* The value of largest magnitude becomes -8, as ggml does it. */
static void store_q4_0(void *dst, const float *src, size_t n)
{
	uint8_t *d = dst;

	for (size_t b = 0; b < n / 32; b++, d += 18, src += 32) {
		uint32_t most = largest(src, 32);
		float top = unbits(most), scale, inv;
		uint16_t h;

		for (int i = 0; i < 32; i++)
			if (bits(src[i]) == most)
				top = -unbits(most);
		scale = top / 8;
		inv = most ? 1 / scale : 0;
		h = to_f16(scale);
		memcpy(d, &h, 2);
		for (int i = 0; i < 16; i++) {
			int lo = nearest(src[i] * inv) + 8;
			int hi = nearest(src[i + 16] * inv) + 8;

			lo = lo > 15 ? 15 : lo;
			hi = hi > 15 ? 15 : hi;
			d[2 + i] = (uint8_t)(lo | hi << 4);
		}
	}
}

static const struct kind kinds[] = {
	{ "f32",   0,  0,  1,  4, store_f32,  23, 255 },
	{ "f16",   1,  1,  1,  2, store_f16,  10, 31 },
	{ "q4_0",  2,  2, 32, 18, store_q4_0, 0, 0 },
	{ "q8_0",  8,  7, 32, 34, store_q8_0, 0, 0 },
	{ "bf16", 30, 32,  1,  2, store_bf16,  7, 255 },
};

static const struct kind *kind_named(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

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
	uint64_t kv = c->dim / 4, e = c->experts;

	add_norm(m, "blk.%u.attn_norm.weight", i);
	add_weight(m, "attn_q", i, c->dim, c->dim, 1);
	add_weight(m, "attn_k", i, c->dim, kv, 1);
	add_weight(m, "attn_v", i, c->dim, kv, 1);
	add_weight(m, "attn_output", i, c->dim, c->dim, 1);
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

/* Heads of the largest customary size of which there is a multiple of four,
 * so that four share one key/value head. */
static void choose_heads(struct model *m)
{
	for (uint64_t d = 128; d >= 16; d /= 2)
		if (!m->head_dim && m->conf.dim % (4 * d) == 0)
			m->head_dim = d;
	if (!m->head_dim)
		die("--dim must be a multiple of 64");
	m->heads = m->conf.dim / m->head_dim;
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
	key_u32(o, "llama.attention.head_count_kv", m->heads / 4);
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

/* ---- the pipe of blocks -------------------------------------------------- */

struct block {
	uint8_t *mem;
	size_t bytes;
	int full;
};

struct pipe {
	const struct model *m;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	struct block *ring;		/* slots; block b uses slot b % slots */
	uint64_t slots;
	uint64_t claimed, written;	/* blocks */
	size_t tensor;			/* the next rows to claim */
	uint64_t row;
	uint64_t exps[256];		/* exponents seen, by value */
};

/* What a worker claimed: rows of one tensor, for one block. */
struct job {
	uint64_t block;
	size_t tensor;
	uint64_t row, rows;
};

static uint64_t all_rows(const struct tensor *t)
{
	return t->rows * t->planes;
}

/* Called with the lock held. Returns 0 when nothing is left. */
static int claim(struct pipe *p, struct job *j)
{
	const struct tensor *t;
	uint64_t left;

	if (p->tensor == p->m->n)
		return 0;
	t = &p->m->t[p->tensor];
	left = all_rows(t) - p->row;
	j->block = p->claimed++;
	j->tensor = p->tensor;
	j->row = p->row;
	j->rows = BLOCK_BYTES / row_bytes(t);
	if (j->rows >= left) {
		j->rows = left;
		p->tensor++;
		p->row = 0;
	} else {
		p->row += j->rows;
	}
	return 1;
}

static void make_row(const struct model *m, size_t tensor, uint64_t row,
		     float *x)
{
	const struct tensor *t = &m->t[tensor];
	uint64_t k = mix(mix(m->conf.seed + 1) + tensor * 0x632be59bd9b4e019u);
	double scale;

	k = mix(k + row * 0x9e3779b97f4a7c15u);
	scale = m->base * exp(ROW_SD * normal((uint32_t)(k >> 32)));
	fill_row(x, t->cols, k, t->norm ? 0.05f : (float)scale);
	for (uint64_t i = 0; t->norm && i < t->cols; i++)
		x[i] += 1;
}

static void count_exponents(const struct kind *kind, const uint8_t *p,
			    uint64_t n, uint64_t *exps)
{
	for (uint64_t i = 0; i < n; i++) {
		uint32_t v = 0;

		memcpy(&v, p + i * kind->bytes, kind->bytes);
		exps[(v >> kind->exp_shift) & kind->exp_mask]++;
	}
}

/* Fills a block; its exponents are counted on one row in eight. */
static void make_block(struct pipe *p, const struct job *j, float *x,
		       uint64_t *exps)
{
	const struct tensor *t = &p->m->t[j->tensor];
	struct block *b = &p->ring[j->block % p->slots];
	uint64_t bytes = row_bytes(t);

	for (uint64_t i = 0; i < j->rows; i++) {
		uint8_t *dst = b->mem + i * bytes;

		make_row(p->m, j->tensor, j->row + i, x);
		t->kind->store(dst, x, t->cols);
		if (!t->norm && t->kind->exp_mask && (j->row + i) % 8 == 0)
			count_exponents(t->kind, dst, t->cols, exps);
	}
	b->bytes = bytes * j->rows;
	if (j->row + j->rows == all_rows(t)) {
		size_t pad = align_up(t->bytes) - t->bytes;

		memset(b->mem + b->bytes, 0, pad);
		b->bytes += pad;
	}
}

static void *work(void *arg)
{
	struct pipe *p = arg;
	uint64_t exps[256] = { 0 };
	float *x = malloc(MAX_DIM * sizeof(*x));
	struct job j;

	if (!x)
		die("out of memory");
	pthread_mutex_lock(&p->lock);
	while (claim(p, &j)) {
		while (j.block >= p->written + p->slots)
			pthread_cond_wait(&p->moved, &p->lock);
		pthread_mutex_unlock(&p->lock);
		make_block(p, &j, x, exps);
		pthread_mutex_lock(&p->lock);
		p->ring[j.block % p->slots].full = 1;
		pthread_cond_broadcast(&p->moved);
	}
	for (int i = 0; i < 256; i++)
		p->exps[i] += exps[i];
	pthread_mutex_unlock(&p->lock);
	free(x);
	return NULL;
}

static void write_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t r = write(fd, p, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			die("%s: %s", tmp_name, strerror(errno));
		p += r;
		n -= (size_t)r;
	}
}

static void progress(uint64_t done, uint64_t all, const char *name)
{
	static unsigned shown = 101;
	unsigned pct = (unsigned)(done * 100 / all);

	if (pct == shown || !isatty(2))
		return;
	shown = pct;
	fprintf(stderr, "\r%s: %u%%%s", name, pct, done == all ? "\n" : "");
}

/* The main thread's half: writes each block when its turn comes. */
static void drain(struct pipe *p, int fd, uint64_t bytes)
{
	uint64_t done = 0;

	while (done < bytes) {
		struct block *b = &p->ring[p->written % p->slots];

		pthread_mutex_lock(&p->lock);
		while (!b->full)
			pthread_cond_wait(&p->moved, &p->lock);
		pthread_mutex_unlock(&p->lock);
		write_all(fd, b->mem, b->bytes);
		/* Start it on its way: dirty pages must not pile up. */
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
		done += b->bytes;
		pthread_mutex_lock(&p->lock);
		b->full = 0;
		p->written++;
		pthread_cond_broadcast(&p->moved);
		pthread_mutex_unlock(&p->lock);
		progress(done, bytes, p->m->conf.out);
	}
}

static void pipe_init(struct pipe *p, const struct model *m)
{
	*p = (struct pipe){ .m = m, .slots = 2 * m->conf.threads + 2 };
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->moved, NULL);
	p->ring = calloc(p->slots, sizeof(*p->ring));
	for (uint64_t i = 0; p->ring && i < p->slots; i++) {
		p->ring[i].mem = malloc(BLOCK_BYTES + ALIGN);
		if (!p->ring[i].mem)
			die("out of memory");
	}
	if (!p->ring)
		die("out of memory");
}

static void pipe_run(struct pipe *p, int fd)
{
	pthread_t th[MAX_THREADS];
	uint64_t n = p->m->conf.threads;
	int err;

	for (uint64_t i = 0; i < n; i++) {
		err = pthread_create(&th[i], NULL, work, p);
		if (err)
			die("cannot start a thread: %s", strerror(err));
	}
	drain(p, fd, p->m->data_bytes);
	for (uint64_t i = 0; i < n; i++)
		pthread_join(th[i], NULL);
}

static double entropy(const uint64_t *count)
{
	double all = 0, h = 0;

	for (int i = 0; i < 256; i++)
		all += (double)count[i];
	for (int i = 0; i < 256; i++)
		if (count[i])
			h -= (double)count[i] / all * log2((double)count[i] / all);
	return h;
}

/* ---- the file ------------------------------------------------------------ */

static void on_signal(int sig)
{
	unlink(tmp_name);
	_exit(128 + sig);
}

static int open_tmp(const char *out, uint64_t bytes)
{
	char *name;
	int fd;

	if (asprintf(&name, "%s.tmp", out) < 0)
		die("out of memory");
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		die("%s: %s", name, strerror(errno));
	tmp_name = name;
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
	/* Ask for the room at once: a full disk is told before the work. */
	if (fallocate(fd, 0, 0, (off_t)bytes) && errno != EOPNOTSUPP)
		die("%s: no room for %llu MB: %s", out,
		    (unsigned long long)(bytes / 1000000), strerror(errno));
	return fd;
}

static void make(const struct model *m)
{
	const struct kind *kind = m->conf.kind;
	struct out o = { 0 };
	struct pipe p;
	int fd;

	header(&o, m);
	printf("bytes %llu\n", (unsigned long long)(o.len + m->data_bytes));
	if (m->conf.dry)
		return;
	quantile_init();
	fd = open_tmp(m->conf.out, o.len + m->data_bytes);
	write_all(fd, o.mem, o.len);
	pipe_init(&p, m);
	pipe_run(&p, fd);
	if (close(fd))
		die("%s: %s", tmp_name, strerror(errno));
	if (rename(tmp_name, m->conf.out))
		die("%s: %s", m->conf.out, strerror(errno));
	tmp_name = NULL;
	if (kind->exp_mask)
		printf("exponent entropy %.3f bits\n", entropy(p.exps));
}

/* Bytes of the file in the page cache, whoever they are charged to. */
static uint64_t cached(int fd, uint64_t size)
{
	size_t pages = (size + 4095) / 4096, in = 0;
	void *at = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	unsigned char *vec = malloc(pages);

	if (at == MAP_FAILED || !vec || mincore(at, size, vec))
		die("cannot look at the page cache: %s", strerror(errno));
	for (size_t i = 0; i < pages; i++)
		in += vec[i] & 1;
	munmap(at, size);
	free(vec);
	return in * 4096;
}

/* Dirty pages cannot be dropped: they are written out first. */
static void drop(const char *name)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint64_t left;

	if (fd < 0 || fstat(fd, &st))
		die("%s: %s", name, strerror(errno));
	if (!st.st_size)
		return;
	if (fdatasync(fd) && errno != EROFS)
		die("%s: %s", name, strerror(errno));
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	left = cached(fd, (uint64_t)st.st_size);
	if (left > (uint64_t)st.st_size / 100)
		die("%s: %llu MB stay in the page cache (in use elsewhere?)",
		    name, (unsigned long long)(left / 1000000));
	close(fd);
}

/* ---- arguments ----------------------------------------------------------- */

enum { OPT_TYPE = 256, OPT_LAYERS, OPT_DIM, OPT_FF, OPT_VOCAB, OPT_EXPERTS,
       OPT_USED, OPT_SEED, OPT_THREADS, OPT_DRY, OPT_DROP };

static const struct argp_option options[] = {
	{ "type", OPT_TYPE, "TYPE", 0, "bf16, f16, f32, q8_0 or q4_0", 0 },
	{ "layers", OPT_LAYERS, "N", 0, "transformer blocks", 0 },
	{ "dim", OPT_DIM, "D", 0, "embedding length, a multiple of 64", 0 },
	{ "ff", OPT_FF, "F", 0, "feed-forward length, a multiple of 32", 0 },
	{ "vocab", OPT_VOCAB, "V", 0, "tokens, 320 at least", 0 },
	{ "experts", OPT_EXPERTS, "E", 0, "experts per layer (Mixtral-shaped)", 0 },
	{ "experts-used", OPT_USED, "K", 0, "experts used per token (2)", 0 },
	{ "seed", OPT_SEED, "S", 0, "same seed, same file (1)", 0 },
	{ "threads", OPT_THREADS, "N", 0, "threads (all processors)", 0 },
	{ "dry-run", OPT_DRY, NULL, 0, "print the size, write nothing", 0 },
	{ "drop", OPT_DROP, "FILE", 0,
	  "drop FILE from the page cache and do nothing else", 0 },
	{ 0 }
};

static uint64_t number(struct argp_state *state, const char *s, uint64_t least,
		       uint64_t most)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(s, &end, 10);
	if (*s < '0' || *s > '9' || *end || errno || v < least || v > most)
		argp_error(state, "'%s' is not a number from %llu to %llu", s,
			   (unsigned long long)least, (unsigned long long)most);
	return v;
}

static const struct kind *type_arg(struct argp_state *state, const char *s)
{
	const struct kind *k = kind_named(s);

	if (!k)
		argp_error(state, "type '%s' is none of bf16 f16 f32 q8_0 q4_0", s);
	return k;
}

static void check(struct argp_state *state, const struct conf *c)
{
	if (c->drop)
		return;
	if (!c->kind || !c->layers || !c->dim || !c->ff || !c->vocab)
		argp_error(state, "--type, --layers, --dim, --ff and --vocab are needed");
	if (!c->out && !c->dry)
		argp_error(state, "no output file");
	if (c->dim % 64 || c->ff % 32)
		argp_error(state, "--dim must be a multiple of 64, --ff of 32");
	if (c->experts && c->used > c->experts)
		argp_error(state, "--experts-used is more than --experts");
}

static error_t parse(int k, char *arg, struct argp_state *state)
{
	struct conf *c = state->input;

	switch (k) {
	case OPT_TYPE: c->kind = type_arg(state, arg); break;
	case OPT_LAYERS: c->layers = number(state, arg, 1, 1000); break;
	case OPT_DIM: c->dim = number(state, arg, 64, MAX_DIM); break;
	case OPT_FF: c->ff = number(state, arg, 32, MAX_DIM); break;
	case OPT_VOCAB: c->vocab = number(state, arg, 320, 1 << 24); break;
	case OPT_EXPERTS: c->experts = number(state, arg, 2, 1024); break;
	case OPT_USED: c->used = number(state, arg, 1, 1024); break;
	case OPT_SEED: c->seed = number(state, arg, 0, UINT64_MAX); break;
	case OPT_THREADS: c->threads = number(state, arg, 1, MAX_THREADS); break;
	case OPT_DRY: c->dry = 1; break;
	case OPT_DROP: c->drop = arg; break;
	case ARGP_KEY_ARG:
		if (c->out)
			return ARGP_ERR_UNKNOWN;
		c->out = arg;
		break;
	case ARGP_KEY_END: check(state, c); break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static uint64_t processors(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (uint64_t)n;
}

int main(int argc, char **argv)
{
	static const struct argp argp = { options, parse, "OUT.gguf",
		"Make a synthetic GGUF model with the statistics of a real one.",
		NULL, NULL, NULL };
	struct model m = { .conf = { .seed = 1, .used = 2,
				     .threads = processors() } };

	argp_parse(&argp, argc, argv, 0, NULL, &m.conf);
	if (m.conf.drop) {
		drop(m.conf.drop);
		return 0;
	}
	shape(&m);
	make(&m);
	return 0;
}
