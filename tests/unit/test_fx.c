/* SPDX-License-Identifier: MIT */
/* test_fx.c - packing of floats and of sparse data (core/fx.h).
 *
 * Owns nothing beside fx_test.h. (1) What is packed comes back bit for bit. (2)
 * Each instruction set this CPU has does what the portable code does. (3) What
 * was torn or changed is refused, or read within its bounds. (4) It packs what
 * it is there for. Lock: none.
 */
#include "fx_test.h"

/* ---- instruction sets --------------------------------------------------------------- */

static void each_level(void (*f)(const struct fx_ops *, const struct fx_ops *))
{
	for (uint64_t simd = OPT_SIMD_PORTABLE; simd <= OPT_SIMD_AVX512; simd++)
		if (fx_level(simd))
			f(fx_level(simd), fx_level(OPT_SIMD_PORTABLE));
}

static void test_compare(void **state)
{
	each_level(fx_compare);
}

static void test_compare_long(void **state)
{
	each_level(fx_compare_long);
}

static void test_compare_short(void **state)
{
	each_level(fx_compare_short);
}

static void test_compare_flipped(void **state)
{
	each_level(fx_compare_flipped);
}

static void test_levels(void **state)
{
	const struct fx_ops *best;

	assert_string_equal(fx_level(OPT_SIMD_PORTABLE)->name, "portable");
	assert_null(fx_level(OPT_SIMD_AVX512 + 1));
	off_opt.simd = OPT_SIMD_PORTABLE;
	assert_ptr_equal(fx_best(), fx_level(OPT_SIMD_PORTABLE));
	off_opt.simd = OPT_SIMD_AUTO;
	best = fx_best();
	for (uint64_t simd = OPT_SIMD_PORTABLE; simd <= OPT_SIMD_AVX512; simd++)
		if (fx_level(simd))
			assert_true(simd == OPT_SIMD_PORTABLE || best != fx_level(OPT_SIMD_PORTABLE));
	off_opt.simd = OPT_SIMD_AVX512;	/* says so where there is none */
	assert_ptr_equal(fx_best(), best);
	off_opt.simd = OPT_SIMD_AUTO;
}

/* Where bytes lie does not matter. */
static void one_place(const struct fx_ops *ops, const struct fx_ops *others)
{
	enum { LEN = 5 * 4096 + 3 };
	static uint8_t in[LEN + 64], out[LEN + 64], image[2 * LEN + 64];

	for (enum fx_kind k = 0; k < FX_KINDS; k++)
		for (uint32_t at = 0; at < 64; at += 1 + at % 3) {
			size_t n;

			fx_fill(last(src, LEN), LEN, at);
			memcpy(in + at, src - LEN, LEN);
			n = pack_with(others, k, LEN, img);
			assert_int_equal(fx_pack(ops, scratch, k, image + 63 - at, 2 * LEN,
						 in + at, LEN), n);
			assert_memory_equal(image + 63 - at, img - n, n);
			memset(out, 0x77, sizeof(out));
			assert_int_equal(fx_unpack(ops, k, out + at / 2, LEN, image + 63 - at, n), 0);
			assert_memory_equal(out + at / 2, src - LEN, LEN);
			assert_true(out[at / 2 + LEN] == 0x77 && (!at || out[(at - 1) / 2] == 0x77 ||
								  at / 2 == (at - 1) / 2));
		}
}

static void test_any_place(void **state)
{
	each_level(one_place);
}

/* ---- values ---------------------------------------------------------------------------- */

/* Each of 65536 patterns, as bf16, fp16, and either half of fp32. */
static void every_pattern(const struct fx_ops *ops, const struct fx_ops *others)
{
	enum { LEN = 4 * 65536 };

	for (int low = 0; low < 3; low++) {
		uint8_t *p = last(src, LEN);

		for (uint32_t v = 0; v < 65536; v++) {
			put16(p + 4 * v, low == 1 ? v : low ? v * 40503 : 0);
			put16(p + 4 * v + 2, low == 1 ? 0x3f80 : v);
		}
		for (enum fx_kind k = 0; k < FX_KINDS; k++)
			same_both_ways(ops, others, k, LEN);
	}
}

static void test_every_pattern(void **state)
{
	each_level(every_pattern);
}

/* A block with exactly so many exponents outside the window. */
static void so_many_escapes(const struct fx_ops *ops, const struct fx_ops *others)
{
	enum { LEN = 2 * 4096 };

	for (uint32_t n = 0; n <= FX_BLOCK; n += n < 300 || n > FX_BLOCK - 4 ? 1 : 13) {
		uint8_t *p = last(src, LEN);

		test_seed = n + 1;
		for (uint32_t i = 0; i < 2 * FX_BLOCK; i++)
			put16(p + 2 * i, (uint32_t)(rnd() >> 48 & 0x807f) | (100 + below(7)) << 7);
		for (uint32_t i = 0; i < n; i++)
			put16(p + 2 * ((i * 5) % FX_BLOCK), 200 << 7);
		for (enum fx_kind k = 0; k < FX_KINDS; k++)
			same_both_ways(ops, others, k, LEN);
	}
}

static void test_so_many_escapes(void **state)
{
	each_level(so_many_escapes);
}

/* ---- what it saves ------------------------------------------------------------------------ */

static size_t packed(enum fx_kind kind, size_t len)
{
	size_t n = pack_with(fx_best(), kind, len, img);

	assert_int_equal(unpack_with(fx_best(), kind, len, img - n, n), 0);
	assert_memory_equal(src - len, dst - len, len);
	return n;
}

static void fill_floats(uint8_t *p, size_t len, enum fx_kind kind)
{
	for (size_t i = 0; i + fx_value(kind) <= len; i += fx_value(kind)) {
		uint32_t x = fp32_bits(8);

		if (kind == FX_FP32)
			memcpy(p + i, &x, 4);
		else if (kind == FX_BF16)
			put16(p + i, x >> 16);
		else if (kind == FX_FP16)
			put16(p + i, (x >> 13 & 0x3ff) | (x >> 16 & 0x8000) |
			      ((x >> 23) - 105) << 10);
		else
			put16(p + i, below(10) ? 0 : x | 1);
	}
}

/* Data that begins anywhere. */
static void test_saves(void **state)
{
	static const uint32_t most[FX_KINDS] = { 710, 900, 860, 190 };	/* 1/1000 */
	enum { LEN = 64 * 8192 };

	for (enum fx_kind k = 0; k < FX_KINDS; k++)
		for (uint32_t lead = 0; lead < fx_value(k); lead++) {
			uint8_t *p = last(src, LEN + lead), sample[8 * FX_PIECE];
			uint32_t cost;
			size_t n;

			test_seed = k + 1;
			fill(p, lead + 1, NOISE, 1);
			fill_floats(p + lead, LEN, k);
			assert_int_equal(fx_lead(k, p, LEN + lead), lead);
			n = packed(k, LEN + lead);
			assert_in_range(n * 1000 / LEN, most[k] * 8 / 10, most[k]);
			fx_sample(sample, 8, p, LEN + lead, 5);
			cost = fx_cost(k, sample, sizeof(sample));
			assert_in_range(cost, n * 1000 / LEN - 30, n * 1000 / LEN + 30);
		}
}

/* Half of it is something else, or nothing. */
static void test_saves_of_mixed(void **state)
{
	enum { LEN = 64 * 8192 };
	uint8_t *p = last(src, LEN);
	size_t pure, mixed;

	fill_floats(p, LEN, FX_BF16);
	pure = packed(FX_BF16, LEN);
	for (size_t at = 0; at < LEN; at += 16384)
		fill(p + at, 8192, NOISE, at);
	mixed = packed(FX_BF16, LEN);
	assert_in_range(mixed, (LEN + pure) / 2 - 2000, (LEN + pure) / 2 + 2000);
	for (size_t at = 0; at < LEN; at += 16384)
		memset(p + at, 0, 8192);
	mixed = packed(FX_BF16, LEN);
	assert_in_range(mixed, pure / 2 - 2000, pure / 2 + 2000);
	memset(p, 0, LEN);
	assert_true(packed(FX_BF16, LEN) < LEN / 400);
	/* The low halves of some blocks of fp32 are nothing. */
	for (size_t at = 0; at < LEN; at += 8192)
		for (uint32_t i = 0; i < 8192; i += 4)
			memcpy(p + at + i, &(uint32_t){ fp32_bits(5) &
				(at < LEN / 2 ? ~0u : ~0xffffu) }, 4);
	mixed = packed(FX_FP32, LEN);
	assert_in_range(mixed, LEN * 58 / 100, LEN * 62 / 100);
}

/* What cannot be packed grows by no more than it must. */
static void test_noise(void **state)
{
	enum { LEN = 200000 };

	fill(last(src, LEN), LEN, NOISE, 3);
	for (enum fx_kind k = 0; k < FX_KINDS; k++)
		assert_in_range(packed(k, LEN), LEN, fx_bound(LEN));
}

/* Just as much room as it takes is enough, and one byte less is not. */
static void test_room(void **state)
{
	for (uint64_t seed = 0; seed < 300; seed++) {
		size_t len = 1 + below(60000), n;
		enum fx_kind k = seed % FX_KINDS;

		fx_fill(last(src, len), len, seed);
		n = pack_with(fx_best(), k, len, img);
		assert_int_equal(fx_pack(fx_best(), scratch, k, last(img2, n), n, src - len, len),
				 n);
		assert_memory_equal(img - n, img2 - n, n);
		assert_int_equal(fx_pack(fx_best(), scratch, k, last(img2, n - 1), n - 1,
					 src - len, len), -E2BIG);
		assert_true(untouched_before(img2 - (n - 1)));
		assert_int_equal(fx_pack(fx_best(), scratch, k, img2 - n / 2, n / 2, src - len,
					 len), -E2BIG);
	}
}

/* ---- bad images ---------------------------------------------------------------------------- */

enum { BAD_LEN = 2 * 8192 + 40 };

/* An image that has coded blocks, of BAD_LEN bytes. */
static size_t good_image(enum fx_kind kind)
{
	test_seed = 1;
	fill_floats(last(src, BAD_LEN), BAD_LEN, kind);
	return pack_with(fx_level(OPT_SIMD_PORTABLE), kind, BAD_LEN, img);
}

static void torn(const struct fx_ops *ops, const struct fx_ops *others)
{
	static uint8_t whole[2 * BAD_LEN];

	for (enum fx_kind k = 0; k < FX_KINDS; k++) {
		size_t n = good_image(k);

		memcpy(whole, img - n, n);
		for (size_t m = 0; m < n; m++) {
			memcpy(img - m, whole, m);
			assert_int_equal(unpack_with(ops, k, BAD_LEN, img - m, m), -EBADMSG);
			assert_int_equal(unpack_with(ops, k, BAD_LEN, img - m, m), -EBADMSG);
		}
		memcpy(img - n, whole, n);
		for (size_t len = 1; len < 2 * BAD_LEN; len++)
			assert_int_equal(unpack_with(ops, k, len, img - n, n),
					 len == BAD_LEN ? 0 : -EBADMSG);
		for (enum fx_kind other = 0; other < FX_KINDS; other++)
			assert_int_equal(unpack_with(ops, other, BAD_LEN, img - n, n),
					 other == k ? 0 : -EBADMSG);
	}
}

static void test_torn(void **state)
{
	each_level(torn);
}

/* Every value of every byte of head, entries and padding: refused, or of no
 * consequence to anything but the bytes. (Another lead is as good as any.) */
static void changed(const struct fx_ops *ops, const struct fx_ops *others)
{
	for (enum fx_kind k = 0; k < FX_KINDS; k++) {
		size_t n = good_image(k);

		for (size_t i = 0; i < 64; i++)
			for (int x = 1; x < 256; x++) {
				img[-(ssize_t)n + (ssize_t)i] ^= (uint8_t)x;
				same_when_bad(ops, others, k, BAD_LEN, img - n, n);
				if (i < sizeof(struct fx_head) && i != 1)
					assert_int_equal(unpack_with(ops, k, BAD_LEN, img - n, n),
							 -EBADMSG);
				img[-(ssize_t)n + (ssize_t)i] ^= (uint8_t)x;
			}
		img[-1] = 1;
		assert_int_equal(unpack_with(ops, k, BAD_LEN, img - n, n), -EBADMSG);
	}
}

static void test_changed(void **state)
{
	each_level(changed);
}

/* Codes that ask for more escapes than there are, or fewer. */
static void wrong_escapes(const struct fx_ops *ops, const struct fx_ops *others)
{
	for (enum fx_kind k = 0; k < FX_KINDS; k++) {
		size_t n = good_image(k), codes = 64;
		size_t many = k == FX_ZMASK ? FX_MASK : FX_CODES;
		uint8_t *p = img - n + codes;

		memset(p, 0xff, many);
		assert_int_equal(unpack_with(ops, k, BAD_LEN, img - n, n), -EBADMSG);
		memset(p, 0, many);
		assert_int_equal(unpack_with(ops, k, BAD_LEN, img - n, n), -EBADMSG);
	}
}

static void test_wrong_escapes(void **state)
{
	each_level(wrong_escapes);
}

/* Escapes are bytes like any other: whatever they say, all read the same. */
static void any_escapes(const struct fx_ops *ops, const struct fx_ops *others)
{
	for (enum fx_kind k = 0; k < FX_KINDS; k++) {
		size_t n = good_image(k), end = FX_SLACK + fx_shape(k, 0, BAD_LEN).tail;
		struct fx_head h;

		memcpy(&h, img - n, sizeof(h));
		assert_true(h.escapes > 10);
		for (size_t i = 1; i <= h.escapes; i++)
			if (i % 3)
				img[-(ssize_t)(end + i)] = (uint8_t)(rnd() >> 56);
		same_when_bad(ops, others, k, BAD_LEN, img - n, n);
		assert_int_equal(unpack_with(ops, k, BAD_LEN, img - n, n), 0);
	}
}

static void test_any_escapes(void **state)
{
	each_level(any_escapes);
}

/* Heads that agree with the length, and then anything. */
static void hostile(const struct fx_ops *ops, const struct fx_ops *others)
{
	for (uint32_t t = 0; t < 5000; t++) {
		enum fx_kind k = t % FX_KINDS;
		size_t len = 1 + below(30000), n;
		struct fx_shape s = fx_shape(k, 0, len);
		struct fx_head h = { .kind = (uint8_t)k, .blocks = s.blocks,
				     .bodies = below(4 + s.blocks * 70),
				     .escapes = below(3000) };

		n = s.bodies + 64 * h.bodies + h.escapes + s.tail + FX_SLACK;
		for (size_t i = 1; i <= n; i++)
			img[-(ssize_t)i] = (uint8_t)(i <= FX_SLACK ? 0 : rnd() >> 56);
		memset(img - n, 0, s.bodies);
		memcpy(img - n, &h, sizeof(h));
		for (uint32_t i = 0, at = 0, escape = 0; i < s.blocks; i++) {
			struct fx_entry e = { .escape = escape, .body = (uint16_t)at,
					      .base = (uint8_t)below(250),
					      .mode = (uint8_t)below(8) };

			memcpy(img - n + sizeof(h) + i * sizeof(e), &e, sizeof(e));
			at += e.mode < 8 ? fx_body(k, e.mode & 5) / 64 : 0;
			escape += below(2) ? below(300) : 0;
		}
		same_when_bad(ops, others, k, len, img - n, n);
	}
}

static void test_hostile(void **state)
{
	each_level(hostile);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_compare_short),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_compare_long),
		cmocka_unit_test(test_compare_flipped),
		cmocka_unit_test(test_any_place),
		cmocka_unit_test(test_every_pattern),
		cmocka_unit_test(test_so_many_escapes),
		cmocka_unit_test(test_saves),
		cmocka_unit_test(test_saves_of_mixed),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_wrong_escapes),
		cmocka_unit_test(test_any_escapes),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, fx_set_up, fx_tear_down);
}
