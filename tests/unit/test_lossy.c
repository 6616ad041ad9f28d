/* SPDX-License-Identifier: MIT */
/* test_lossy.c - which bytes of a file may be rounded (core/lossy.h).
 *
 * Owns a region that has spans and nothing else. (1) The pieces of a chunk are the
 * chunk, in order; those that are not raw hold whole values of tensors that were
 * asked for. Lock: none.
 */
#include "pack_test.h"

#include "core/lossy.h"

#define SPANS 64

static struct region r;
static struct origin origin = { .name = "model.gguf" };
static struct pol_span span[SPANS];
static char text[4096];
static size_t text_len;

static void add(const char *name, uint64_t off, uint64_t len, enum pol_dtype type, int dims)
{
	struct pol_span *s = &span[r.n_spans++];

	*s = (struct pol_span){ .off = off, .len = len, .dtype = (uint8_t)type,
				.dims = (uint8_t)dims, .name_off = (uint32_t)text_len,
				.name_len = (uint16_t)strlen(name) };
	memcpy(text + text_len, name, strlen(name));
	text_len += strlen(name);
}

static int set_up(void **state)
{
	stats_child();
	memset(&r, 0, sizeof(r));
	r.origin = &origin;
	r.spans = span;
	text_len = 0;
	off_opt.lossy = "int8";
	return 0;
}

static int tear_down(void **state)
{
	mem_free(r.lossy);
	off_opt.lossy = NULL;
	return 0;
}

/* The pieces of the chunk at off, checked. */
static int pieces(uint64_t off, struct quant_piece *p)
{
	int n = lossy_pieces(&r, off, p);
	uint64_t at = off;

	for (int i = 0; i < n; i++) {
		uint32_t size = quant_size((enum quant_kind)p[i].kind);

		assert_true(p[i].len && p[i].len % size == 0);
		for (size_t k = 0; k < r.n_spans; k++) {
			const struct pol_span *s = &span[k];

			if (p[i].kind && at >= s->off && at < s->off + s->len) {
				assert_int_equal((at - s->off) % size, 0);
				assert_true(at + p[i].len <= s->off + s->len);
			}
		}
		at += p[i].len;
	}
	assert_true(!n || at == off + CHUNK);
	return n;
}

static void test_not_asked(void **state)
{
	struct quant_piece p[QUANT_PIECES];

	off_opt.lossy = NULL;
	add("blk.0.a.weight", 0, 4 * CHUNK, POL_DT_BF16, 2);
	lossy_mark(&r, text, text_len);
	assert_null(r.lossy);
	assert_int_equal(pieces(0, p), 0);
}

static void test_what_is_asked(void **state)
{
	struct quant_piece p[QUANT_PIECES];

	off_opt.lossy = "int4:*.weight";
	add("blk.0.a.weight", 128, CHUNK - 128, POL_DT_BF16, 2);
	add("blk.0.norm.weight", CHUNK, 1 << 20, POL_DT_F32, 1);
	add("blk.0.a.bias2", CHUNK + (1 << 20), 1 << 20, POL_DT_F32, 2);
	add("blk.0.q.weight", 2 * CHUNK, CHUNK, POL_DT_QUANT, 2);
	add("blk.1.a.weight", 3 * CHUNK, CHUNK, POL_DT_F16, 2);
	add("blk.2.a.weight", 4 * CHUNK, 1000, POL_DT_F16, 2);
	lossy_mark(&r, text, text_len);
	assert_int_equal(lossy_bits(), 4);
	assert_int_equal(pieces(0, p), 2);
	assert_int_equal(p[0].kind, QUANT_RAW);
	assert_int_equal(p[0].len, 128);
	assert_int_equal(p[1].kind, QUANT_BF16);
	assert_int_equal(pieces(CHUNK, p), 0);		/* a vector, and another name */
	assert_int_equal(pieces(2 * CHUNK, p), 0);	/* rounded already */
	assert_int_equal(pieces(3 * CHUNK, p), 1);
	assert_int_equal(p[0].kind, QUANT_F16);
	assert_int_equal(pieces(4 * CHUNK, p), 0);	/* too small */
	/* Both of one name. */
	assert_int_equal(off_stats_now->n_lossy, 1);
	assert_int_equal(off_stats_now->lossy[0].spans, 2);
	assert_string_equal(off_stats_now->lossy[0].name, "blk.*.a.weight");
}

/* Values that a chunk's ends cut are kept as they are. */
static void test_cut_values(void **state)
{
	struct quant_piece p[QUANT_PIECES];

	add("a.weight", 7, 3 * CHUNK, POL_DT_F32, 2);
	lossy_mark(&r, text, text_len);
	assert_int_equal(pieces(0, p), 3);
	assert_int_equal(p[0].len, 7);
	assert_int_equal(p[2].len, 1);
	assert_int_equal(pieces(CHUNK, p), 3);
	assert_int_equal(p[0].len, 3);
	assert_int_equal(p[0].kind, QUANT_RAW);
	assert_int_equal(pieces(3 * CHUNK, p), 0);	/* what is left is too little */
}

static void test_too_many_pieces(void **state)
{
	struct quant_piece p[QUANT_PIECES];
	char name[32];

	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "t%d.weight", i);
		add(name, (uint64_t)i * 80000 + 1, 70000, POL_DT_BF16, 2);
	}
	lossy_mark(&r, text, text_len);
	assert_int_equal(pieces(0, p), 0);
	r.n_spans = 7;
	assert_int_equal(pieces(0, p), 15);
}

/* More kinds of names than there are rows: all are rounded, the rest is one row. */
static void test_many_names(void **state)
{
	struct quant_piece p[QUANT_PIECES];
	char name[32];

	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "kind%d.weight", i);
		add(name, (uint64_t)i * CHUNK, CHUNK, POL_DT_BF16, 2);
	}
	lossy_mark(&r, text, text_len);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(pieces((uint64_t)i * CHUNK, p), 1);
		assert_int_equal(p[0].tag, i < STATS_LOSSY ? i : STATS_LOSSY - 1);
	}
	assert_int_equal(off_stats_now->n_lossy, STATS_LOSSY);
	assert_string_equal(off_stats_now->lossy[STATS_LOSSY - 1].name, "others");
	assert_int_equal(off_stats_now->lossy[STATS_LOSSY - 1].spans, 50 - STATS_LOSSY + 1);
}

static void test_seen(void **state)
{
	struct quant_piece p[2] = { { .len = 8, .kind = QUANT_RAW },
				    { .len = 8, .kind = QUANT_BF16, .tag = 0 } };
	struct quant_error e[2] = { { 0 }, { .values = 4, .error2 = 0.5, .value2 = 8 } };
	double sum;

	add("blk.7.a.weight", 0, CHUNK, POL_DT_BF16, 2);
	lossy_mark(&r, text, text_len);
	for (int i = 0; i < 3; i++)
		lossy_seen(p, e, 2);
	p[1].tag = 5;		/* of another process's rows */
	lossy_seen(p, e, 2);
	assert_int_equal(off_stats_now->lossy[0].values, 12);
	memcpy(&sum, &off_stats_now->lossy[0].error2, 8);
	assert_true(sum == 1.5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		CASE(test_not_asked),
		CASE(test_what_is_asked),
		CASE(test_cut_values),
		CASE(test_too_many_pieces),
		CASE(test_many_names),
		CASE(test_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
