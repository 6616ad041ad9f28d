/* SPDX-License-Identifier: MIT */
/* test_policy_headers.c - spans from GGUF and safetensors headers.
 *
 * Builds small headers in memory, reads them, then damages them in every
 * place: no damage may be read as a span outside the file (H3), and under
 * ASan none may read outside the buffer (H1): each buffer handed over is
 * an exact heap copy.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/policy_int.h"

struct buf {
	uint8_t b[16384];
	size_t n;
};

static void bytes(struct buf *o, const void *p, size_t n)
{
	assert_true(o->n + n <= sizeof(o->b));
	memcpy(o->b + o->n, p, n);
	o->n += n;
}

static void u32(struct buf *o, uint32_t v)
{
	bytes(o, &v, 4);
}

static void u64(struct buf *o, uint64_t v)
{
	bytes(o, &v, 8);
}

static void str(struct buf *o, const char *s)
{
	u64(o, strlen(s));
	bytes(o, s, strlen(s));
}

struct tensor {
	const char *name;
	uint64_t ne[3];
	uint32_t type;
	uint64_t off;
};

static void put_tensor(struct buf *o, const struct tensor *t)
{
	uint32_t dims = t->ne[2] ? 3 : t->ne[1] ? 2 : 1;

	str(o, t->name);
	u32(o, dims);
	for (uint32_t i = 0; i < dims; i++)
		u64(o, t->ne[i]);
	u32(o, t->type);
	u64(o, t->off);
}

static void put_kv(struct buf *o)
{
	str(o, "general.alignment");
	u32(o, 4);
	u32(o, 64);
	str(o, "tokens");
	u32(o, 9);
	u32(o, 8);
	u64(o, 2);
	str(o, "<s>");
	str(o, "the");
	str(o, "scores");
	u32(o, 9);
	u32(o, 6);
	u64(o, 3);
	bytes(o, "0123456789ab", 12);
	str(o, "flag");
	u32(o, 7);
	bytes(o, "\1", 1);
}

/* q8_0: 34 bytes per 32; f32: 4; q4_K: 144 per 256; 77: nobody's type. */
static const struct tensor tiny[] = {
	{ "output.weight", { 64, 32 }, 8, 0 },			/* 2176 */
	{ "token_embd.weight", { 64, 32 }, 8, 2176 },
	{ "blk.1.attn_q.weight", { 256, 2 }, 12, 4352 },	/* 288 */
	{ "blk.0.ffn_down.weight", { 32, 4 }, 77, 4672 },	/* to 5184 */
	{ "blk.0.attn_norm.weight", { 64 }, 0, 5184 },		/* 256 */
	{ "blk.0.ffn_gate_exps.weight", { 32, 4, 8 }, 8, 5440 }, /* 1088 */
	{ "blk.10.attn_q.weight", { 32 }, 1, 6528 },		/* 64 */
	{ "output_norm.weight", { 64 }, 0, 6592 },		/* 256 */
};

#define N_TINY (sizeof(tiny) / sizeof(tiny[0]))

static void make_gguf(struct buf *o, uint32_t version, size_t first)
{
	o->n = 0;
	bytes(o, "GGUF", 4);
	u32(o, version);
	u64(o, N_TINY - first);
	u64(o, 4);
	put_kv(o);
	for (size_t i = first; i < N_TINY; i++)
		put_tensor(o, &tiny[i]);
}

static uint64_t data_at(const struct buf *o)
{
	return (o->n + 63) / 64 * 64;
}

/* Reads from an exact copy, so that ASan sees a byte too far. */
static long read_spans(const void *b, size_t len, uint64_t file,
		       struct pol_span *s, size_t max, uint64_t *need)
{
	void *copy = malloc(len ? len : 1);
	long n;

	memcpy(copy, b, len);
	n = pol_spans(copy, len, file, s, max, need);
	free(copy);
	return n;
}

static const struct pol_span *find(const struct pol_span *s, size_t n,
				   const struct buf *o, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (s[i].name_len == strlen(name) &&
		    !memcmp(o->b + s[i].name_off, name, s[i].name_len))
			return &s[i];
	fail_msg("no span %s", name);
	return NULL;
}

static void gguf_is_read(void **state)
{
	struct pol_span s[16];
	const struct pol_span *t;
	struct buf o;
	uint64_t need;
	long n;

	for (uint32_t v = 2; v <= 3; v++) {
		make_gguf(&o, v, 0);
		n = read_spans(o.b, o.n, data_at(&o) + 6848, s, 16, &need);
		assert_int_equal(n, N_TINY);
		for (size_t i = 0; i < N_TINY; i++)
			assert_int_equal(s[i].off, data_at(&o) + tiny[i].off);
		t = find(s, n, &o, "token_embd.weight");
		assert_int_equal(t->len, 2176);
		assert_int_equal(t->order, 0);
		assert_int_equal(t->pattern, POL_SKEW);
		assert_int_equal(t->layer, UINT32_MAX);
		assert_int_equal(t->dtype, POL_DT_QUANT);
		assert_int_equal(t->dims, 2);
		t = find(s, n, &o, "blk.0.ffn_down.weight");
		assert_int_equal(t->len, 512);	/* up to the next one */
		t = find(s, n, &o, "blk.1.attn_q.weight");
		assert_int_equal(t->len, 288);
		t = find(s, n, &o, "blk.0.ffn_gate_exps.weight");
		assert_int_equal(t->pattern, POL_SKEW);
		assert_int_equal(t->slab, 1088 / 8);
	}
}

static void order_is_that_of_use(void **state)
{
	static const char *const order[] = {
		"token_embd.weight", "blk.0.attn_norm.weight",
		"blk.0.ffn_gate_exps.weight", "blk.0.ffn_down.weight",
		"blk.1.attn_q.weight", "blk.10.attn_q.weight",
		"output_norm.weight", "output.weight",
	};
	struct pol_span s[16];
	struct buf o;
	uint64_t need;
	long n;

	make_gguf(&o, 3, 0);
	n = read_spans(o.b, o.n, data_at(&o) + 6848, s, 16, &need);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(find(s, n, &o, order[i])->order, i);
}

static void tied_embeddings_are_used_last(void **state)
{
	struct pol_span s[16];
	const struct pol_span *t;
	struct buf o;
	uint64_t need;
	long n;

	make_gguf(&o, 3, 1);	/* without output.weight */
	n = read_spans(o.b, o.n, data_at(&o) + 6848, s, 16, &need);
	t = find(s, n, &o, "token_embd.weight");
	assert_int_equal(t->pattern, POL_LOOP);
	assert_int_equal(t->order, n - 1);
}

static void experts_used_is_read(void **state)
{
	struct buf o = { .n = 0 };

	bytes(&o, "GGUF\3\0\0\0", 8);
	u64(&o, 0);
	u64(&o, 3);
	str(&o, "mixtral.expert_count");
	u32(&o, 4);
	u32(&o, 8);
	str(&o, "mixtral.expert_used_count");
	u32(&o, 4);
	u32(&o, 3);
	str(&o, "x.expert_used_count");	/* not a number of that kind */
	u32(&o, 7);
	bytes(&o, "\1", 1);
	assert_int_equal(pol_experts_used(o.b, o.n), 3);
	assert_int_equal(pol_experts_used(o.b, 40), 0);
	assert_int_equal(pol_experts_used(o.b, 2), 0);
	make_gguf(&o, 3, 0);
	assert_int_equal(pol_experts_used(o.b, o.n), 0);
}

static void few_spans_wanted(void **state)
{
	struct pol_span s[2];
	struct buf o;
	uint64_t need;

	make_gguf(&o, 3, 0);
	assert_int_equal(read_spans(o.b, o.n, 1 << 20, s, 2, &need), N_TINY);
	assert_int_equal(read_spans(o.b, o.n, 1 << 20, NULL, 0, &need), N_TINY);
}

static void types_have_their_sizes(void **state)
{
	/* bytes of 256 elements */
	static const struct { uint32_t type; uint64_t len; } t[] = {
		{ 0, 1024 }, { 1, 512 }, { 2, 144 }, { 3, 160 }, { 6, 176 },
		{ 7, 192 }, { 8, 272 }, { 9, 288 }, { 10, 84 }, { 11, 110 },
		{ 12, 144 }, { 13, 176 }, { 14, 210 }, { 15, 292 },
		{ 16, 66 }, { 17, 74 }, { 18, 98 }, { 19, 50 }, { 20, 144 },
		{ 21, 110 }, { 22, 82 }, { 23, 136 }, { 24, 256 },
		{ 25, 512 }, { 26, 1024 }, { 27, 2048 }, { 28, 2048 },
		{ 29, 56 }, { 30, 512 }, { 34, 54 }, { 35, 66 }, { 39, 136 },
	};
	struct tensor x = { "x", { 256, 0, 0 }, 0, 0 };
	struct pol_span s;
	struct buf o;
	uint64_t need;

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		o.n = 0;
		bytes(&o, "GGUF\3\0\0\0", 8);
		u64(&o, 1);
		u64(&o, 0);
		x.type = t[i].type;
		put_tensor(&o, &x);
		assert_int_equal(read_spans(o.b, o.n, 1 << 20, &s, 1, &need), 1);
		assert_int_equal(s.len, t[i].len);
	}
}

static void truncated_file_says_what_it_wants(void **state)
{
	struct pol_span s[16];
	struct buf o;
	uint64_t need, end;

	make_gguf(&o, 3, 0);
	end = data_at(&o) + 6848;
	assert_int_equal(read_spans(o.b, o.n, end, s, 16, &need), N_TINY);
	assert_int_equal(read_spans(o.b, o.n, end - 1, s, 16, &need), -EBADMSG);
	assert_int_equal(need, end);
}

/* The file is whole, only few bytes of it are at hand. */
static void short_buffer_asks_for_more(struct buf *o, uint64_t file, long want)
{
	struct pol_span s[16];
	uint64_t need;
	long n;

	for (size_t len = 0; len < o->n; len++) {
		n = read_spans(o->b, len, file, s, 16, &need);
		if (n == -EAGAIN) {
			assert_true(need > len && need <= file);
			continue;
		}
		assert_int_equal(len, o->n);
	}
	assert_int_equal(read_spans(o->b, o->n, file, s, 16, &need), want);
}

/* The file itself ends early. */
static void cut_file_is_refused(struct buf *o)
{
	struct pol_span s[16];
	uint64_t need;

	for (size_t len = 0; len < o->n; len++)
		assert_int_equal(read_spans(o->b, len, len, s, 16, &need),
				 -EBADMSG);
}

static void damage(struct buf *good, uint64_t file, unsigned int seed)
{
	struct pol_span s[16];
	struct buf o = *good;
	uint64_t need;
	long n;

	srand(seed);
	for (int flips = 1 + rand() % 3; flips--;)
		o.b[rand() % o.n] ^= (uint8_t)(1 << rand() % 8 |
					       (rand() & 1 ? rand() : 0));
	n = read_spans(o.b, o.n, file, s, 16, &need);
	if (n < 0)
		assert_true(n == -EBADMSG || n == -EAGAIN);
	for (long i = 0; i < n && n <= 16; i++) {
		assert_true(s[i].off <= file && s[i].len <= file - s[i].off);
		assert_true(s[i].name_off + (uint64_t)s[i].name_len <= o.n);
		assert_true(s[i].order < n && s[i].slab <= s[i].len);
	}
}

static void damaged_gguf(void **state)
{
	struct buf o;

	make_gguf(&o, 3, 0);
	short_buffer_asks_for_more(&o, data_at(&o) + 6848, N_TINY);
	cut_file_is_refused(&o);
	for (unsigned int i = 0; i < 20000; i++)
		damage(&o, data_at(&o) + 6848, i);
}

static const char st_text[] =
	"{\"__metadata__\":{\"format\":\"pt\",\"x\":\"{\\\"}\"},"
	"\"lm_head.weight\":{\"dtype\":\"BF16\",\"shape\":[8,4],"
	"\"data_offsets\":[64,128]},"
	"\"model.embed_tokens.weight\" : {\"dtype\":\"BF16\",\"shape\":[8,4],"
	"\"data_offsets\":[0,64]} ,\n"
	"\"model.layers.0.block_sparse_moe.experts.7.w1.weight\":"
	"{\"dtype\":\"F16\",\"shape\":[4,4],\"data_offsets\":[128,160]},"
	"\"model.layers.0.self_attn.q_proj.weight\":"
	"{\"extra\":[{},[1,2]],\"dtype\":\"F32\",\"shape\":[4],"
	"\"data_offsets\":[160,176]},"
	"\"model.layers.0.mlp.experts.gate_up_proj\":"
	"{\"dtype\":\"U8\",\"shape\":[4,2,2],\"data_offsets\":[176,192]}}";

static void make_safetensors(struct buf *o)
{
	o->n = 0;
	u64(o, sizeof(st_text) - 1);
	bytes(o, st_text, sizeof(st_text) - 1);
}

static void safetensors_is_read(void **state)
{
	struct pol_span s[16];
	const struct pol_span *t;
	struct buf o;
	uint64_t need;
	long n;

	make_safetensors(&o);
	n = read_spans(o.b, o.n, o.n + 192, s, 16, &need);
	assert_int_equal(n, 5);
	t = find(s, n, &o, "model.embed_tokens.weight");
	assert_int_equal(t->off, o.n);
	assert_int_equal(t->len, 64);
	assert_int_equal(t->pattern, POL_SKEW);
	assert_int_equal(t->dtype, POL_DT_BF16);
	assert_int_equal(t->dims, 2);
	t = find(s, n, &o,
		 "model.layers.0.block_sparse_moe.experts.7.w1.weight");
	assert_int_equal(t->layer, 0);
	assert_int_equal(t->expert, 7);
	assert_int_equal(t->slab, 32);
	t = find(s, n, &o, "model.layers.0.mlp.experts.gate_up_proj");
	assert_int_equal(t->slab, 4);
	assert_int_equal(t->pattern, POL_SKEW);
	assert_int_equal(find(s, n, &o, "lm_head.weight")->order, 4);
	assert_int_equal(find(s, n, &o,
		"model.layers.0.self_attn.q_proj.weight")->order, 1);
}

static void damaged_safetensors(void **state)
{
	struct buf o;

	make_safetensors(&o);
	short_buffer_asks_for_more(&o, o.n + 192, 5);
	cut_file_is_refused(&o);
	for (unsigned int i = 0; i < 20000; i++)
		damage(&o, o.n + 192, i);
}

static void hostile_json(void **state)
{
	static const char *const text[] = {
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],"
		"\"data_offsets\":[4,0]}}",
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],"
		"\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":"
		"[0,99999999999999999999999]}}",
		"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0]}}",
		"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,1,2]}}",
		"{\"a\":{}}", "{\"a\":1}", "{\"a\"}", "{\"a", "{", "{\"a\\",
		"{\"__metadata__\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
		"{\"a\":{\"x\":", "{,}",
	};
	struct pol_span s[4];
	struct buf o;
	uint64_t need;

	for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++) {
		o.n = 0;
		u64(&o, strlen(text[i]) < 2 ? 2 : strlen(text[i]));
		bytes(&o, text[i], strlen(text[i]));
		if (strlen(text[i]) < 2)
			bytes(&o, " ", 1);
		assert_int_equal(read_spans(o.b, o.n, o.n + 64, s, 4, &need),
				 -EBADMSG);
	}
}

static void containers_are_told_apart(void **state)
{
	struct buf o = { .n = 0 };

	assert_int_equal(pol_container_of("GGUF\3\0\0\0", 8, "x"),
			 POL_FILE_GGUF);
	make_safetensors(&o);
	assert_int_equal(pol_container_of(o.b, 64, "x"), POL_FILE_SAFETENSORS);
	memset(&o, 0, sizeof(o));
	memcpy(o.b, "PK\3\4", 4);
	o.b[26] = 16;
	memcpy(o.b + 30, "archive/data.pkl", 16);
	assert_int_equal(pol_container_of(o.b, 64, "x.pt"), POL_FILE_ZIP);
	memcpy(o.b + 30, "word/doc.xml    ", 16);
	assert_int_equal(pol_container_of(o.b, 64, "x.pt"), POL_FILE_UNKNOWN);
	assert_int_equal(pol_container_of("\x08\x07\x12\x04", 4, "m.onnx"),
			 POL_FILE_ONNX);
	assert_int_equal(pol_container_of("\x08\x07\x12\x04", 4, "m.bin"),
			 POL_FILE_UNKNOWN);
	assert_int_equal(pol_container_of("SQLite format 3", 16, "a.db"),
			 POL_FILE_UNKNOWN);
	assert_int_equal(pol_container_of("", 0, ""), POL_FILE_UNKNOWN);
	assert_int_equal(pol_container_of("GGU", 3, NULL), POL_FILE_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(containers_are_told_apart),
		cmocka_unit_test(gguf_is_read),
		cmocka_unit_test(order_is_that_of_use),
		cmocka_unit_test(tied_embeddings_are_used_last),
		cmocka_unit_test(experts_used_is_read),
		cmocka_unit_test(few_spans_wanted),
		cmocka_unit_test(types_have_their_sizes),
		cmocka_unit_test(truncated_file_says_what_it_wants),
		cmocka_unit_test(damaged_gguf),
		cmocka_unit_test(safetensors_is_read),
		cmocka_unit_test(damaged_safetensors),
		cmocka_unit_test(hostile_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
