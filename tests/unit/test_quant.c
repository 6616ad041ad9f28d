/* SPDX-License-Identifier: MIT */
/* test_quant.c - floats kept rounded (core/quant.h).
 *
 * Owns guarded buffers. (1) No value comes back further off than half a step of
 * its block and what its type cannot tell apart; what is not to be rounded comes
 * back as it was. (2) Every instruction set gives the same bytes, those of the
 * compiler's own conversions. (3) What is not an image is refused, and no byte
 * around is touched. Lock: none.
 */
#include "pack_test.h"

#include <math.h>

#include "core/quant.h"

static uint8_t *src, *dst, *img;	/* ends of guarded buffers */

static int set_up(void **state)
{
	src = guarded_new();
	dst = guarded_new();
	img = guarded_new();
	return 0;
}

static int tear_down(void **state)
{
	guarded_free(src);
	guarded_free(dst);
	guarded_free(img);
	return 0;
}

/* A random number of about 2^scale. */
static float random_float(int scale)
{
	return ldexpf((float)((int32_t)(rnd() >> 40) - (1 << 23)) / (1 << 23), scale);
}

static void put_value(uint8_t *p, enum quant_kind kind, float f)
{
	_Float16 h = (_Float16)f;
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	if (kind == QUANT_F32)
		memcpy(p, &f, sizeof(f));
	else if (kind == QUANT_F16)
		memcpy(p, &h, sizeof(h));
	else
		memcpy(p, &(uint16_t){ (uint16_t)(u >> 16) }, 2);
}

static double value_at(const uint8_t *p, enum quant_kind kind)
{
	_Float16 h;
	uint32_t u = 0;
	float f;

	if (kind == QUANT_F16) {
		memcpy(&h, p, sizeof(h));
		return (double)h;
	}
	memcpy((uint8_t *)&u + (kind == QUANT_BF16 ? 2 : 0), p, quant_size(kind));
	memcpy(&f, &u, sizeof(f));
	return f;
}

/* One piece there and back. Bytes of the image, which ends where img does. */
static size_t there_and_back(unsigned int bits, const struct quant_piece *p)
{
	uint8_t *in = src - p->len, *out = last(dst, p->len);
	ssize_t n = quant_pack(bits, p, 1, last(img, GUARDED_MAX), GUARDED_MAX, in, p->len);

	assert_true(n > 0);
	memmove(img - n, img - GUARDED_MAX, (size_t)n);
	assert_int_equal(quant_unpack(out, p->len, img - n, (size_t)n), 0);
	assert_true(untouched_before(out));
	return (size_t)n;
}

static void check_bound(unsigned int bits, const struct quant_piece *p)
{
	enum quant_kind kind = (enum quant_kind)p->kind;
	uint32_t size = quant_size(kind), n = p->len / size;

	for (uint32_t b = 0; b < n; b += QUANT_BLOCK) {
		uint32_t end = b + QUANT_BLOCK < n ? b + QUANT_BLOCK : n;
		double most = 0, step;

		for (uint32_t i = b; i < end; i++)
			if (most < fabs(value_at(src - p->len + i * size, kind)))
				most = fabs(value_at(src - p->len + i * size, kind));
		step = most / (bits == 8 ? 127 : 7);
		for (uint32_t i = b; i < end; i++) {
			double was = value_at(src - p->len + i * size, kind);
			double off = fabs(was - value_at(dst - p->len + i * size, kind));

			assert_true(off <= step * 0.51 + most / 256 + 1.6e-36);
		}
	}
}

static void test_bounds(void **state)
{
	static const uint32_t counts[] = { 1, 2, 63, 64, 65, 127, 1000, 4096, 100003 };

	for (enum quant_kind kind = QUANT_F32; kind < QUANT_KINDS; kind++)
		for (unsigned int bits = 4; bits <= 8; bits += 4)
			for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++)
				for (int scale = -130; scale <= 127; scale += 37) {
					struct quant_piece p = { .kind = (uint8_t)kind,
						.len = counts[c] * quant_size(kind) };
					struct quant_error e;

					if (kind == QUANT_F16 && (scale > 15 || scale < -20))
						continue;
					for (uint32_t i = 0; i < counts[c]; i++)
						put_value(src - p.len + i * quant_size(kind), kind,
							  random_float(scale));
					there_and_back(bits, &p);
					check_bound(bits, &p);
					assert_int_equal(quant_compare(bits, &p, src - p.len,
								       dst - p.len, &e), 0);
					assert_int_equal(e.values, counts[c]);
				}
}

/* What is promised of bf16: 1.9 and 3.6 to 3.9 times, by so much off. */
static void test_ratio(void **state)
{
	struct quant_piece p = { .kind = QUANT_BF16, .len = CHUNK };
	struct quant_error e;
	size_t n8, n4;

	for (uint32_t i = 0; i < CHUNK; i += 2)
		memcpy(src - CHUNK + i, &(uint16_t){ float_bits() }, 2);
	n8 = there_and_back(8, &p);
	assert_int_equal(quant_compare(8, &p, src - CHUNK, dst - CHUNK, &e), 0);
	assert_true(e.error2 / e.value2 < 0.01 * 0.01 && e.error2 > 0);
	n4 = there_and_back(4, &p);
	assert_int_equal(quant_compare(4, &p, src - CHUNK, dst - CHUNK, &e), 0);
	assert_true(e.error2 / e.value2 < 0.15 * 0.15 && e.error2 > 0);
	assert_true(CHUNK * 10 >= n8 * 19);
	assert_true(CHUNK * 10 >= n4 * 36 && CHUNK * 10 <= n4 * 39);
}

static void test_zeros_and_exact(void **state)
{
	struct quant_piece p = { .kind = QUANT_F32, .len = 4096 };

	memset(src - 4096, 0, 4096);
	there_and_back(4, &p);
	assert_memory_equal(src - 4096, dst - 4096, 4096);
	/* Multiples of a step that bf16 can tell, the largest among them. */
	for (uint32_t i = 0; i < 1024; i++)
		put_value(src - 4096 + i * 4, QUANT_F32,
			  i % 64 ? ldexpf((float)((int)below(255) - 127), -9) : ldexpf(127, -9));
	there_and_back(8, &p);
	assert_memory_equal(src - 4096, dst - 4096, 4096);
}

static void test_not_finite(void **state)
{
	static const float bad[] = { NAN, INFINITY, -INFINITY };

	for (enum quant_kind kind = QUANT_F32; kind < QUANT_KINDS; kind++)
		for (int i = 0; i < 3; i++)
			for (uint32_t at = 0; at < 130; at += 43) {
				struct quant_piece p = { .kind = (uint8_t)kind,
							 .len = 130 * quant_size(kind) };

				memset(src - p.len, 0, p.len);
				put_value(src - p.len + at * quant_size(kind), kind, bad[i]);
				assert_int_equal(quant_pack(8, &p, 1, last(img, 4096), 4096,
							    src - p.len, p.len), -E2BIG);
			}
}

/* Tensors of several types in a chunk, vectors between them, odd bytes. */
static void test_pieces(void **state)
{
	static const struct quant_piece p[] = {
		{ .len = 4099, .kind = QUANT_RAW }, { .len = 65538, .kind = QUANT_BF16, .tag = 3 },
		{ .len = 40004, .kind = QUANT_F32, .tag = 4 }, { .len = 1, .kind = QUANT_RAW },
		{ .len = 9998, .kind = QUANT_F16, .tag = 5 },
	};
	size_t len = 4099 + 65538 + 40004 + 1 + 9998, at = 0;
	uint8_t *in = last(src, len), *out = last(dst, len);
	struct quant_error e;
	ssize_t n;

	fill(in, len, NOISE, 7);
	for (int i = 0; i < 5; at += p[i++].len)
		for (uint32_t k = 0; p[i].kind && k < p[i].len; k += quant_size(p[i].kind))
			put_value(in + at + k, p[i].kind, random_float(0));
	n = quant_pack(4, p, 5, last(img, len), len, in, len);
	assert_true(n > 0);
	for (size_t cap = 0; cap < (size_t)n; cap += 1 + (size_t)n / 50)
		assert_int_equal(quant_pack(4, p, 5, last(img, cap), cap, in, len), -E2BIG);
	n = quant_pack(4, p, 5, last(img, (size_t)n), (size_t)n, in, len);
	assert_int_equal(quant_unpack(out, len, img - n, (size_t)n), 0);
	at = 0;
	for (int i = 0; i < 5; at += p[i++].len)
		assert_int_equal(quant_compare(4, &p[i], in + at, out + at, &e), 0);
	/* A difference is told. */
	out[100] ^= 1;
	assert_int_equal(quant_compare(4, &p[0], in, out, &e), -EBADMSG);
	put_value(out + 4099, QUANT_BF16, 9);
	assert_int_equal(quant_compare(4, &p[1], in + 4099, out + 4099, &e), -EBADMSG);
}

/* An image of one block of any codes and any scale. */
static size_t crafted(enum quant_kind kind, uint16_t scale, uint64_t seed)
{
	struct quant_head h = { .bits = 8, .pieces = 1 };
	struct quant_piece p = { .len = QUANT_BLOCK * quant_size(kind), .kind = (uint8_t)kind };
	size_t n = sizeof(h) + sizeof(p) + 2 + QUANT_BLOCK;
	uint8_t *to = last(img, n);

	memcpy(to, &h, sizeof(h));
	memcpy(to + sizeof(h), &p, sizeof(p));
	memcpy(to + sizeof(h) + sizeof(p), &scale, 2);
	for (uint32_t i = 0; i < QUANT_BLOCK; i++)
		to[sizeof(h) + sizeof(p) + 2 + i] = (uint8_t)(seed * 64 + i);
	return n;
}

/* (2) Every scale there is, numbers too large and too small for the type among
 * what comes of them. */
static void test_same_everywhere(void **state)
{
	for (enum quant_kind kind = QUANT_F32; kind < QUANT_KINDS; kind++)
		for (uint32_t scale = 0; scale < 65536; scale++) {
			size_t n = crafted(kind, (uint16_t)scale, scale), len = QUANT_BLOCK * quant_size(kind);
			float f, s;

			off_opt.simd = OPT_SIMD_PORTABLE;
			assert_int_equal(quant_unpack(src - len, len, img - n, n), 0);
			off_opt.simd = OPT_SIMD_AUTO;
			assert_int_equal(quant_unpack(dst - len, len, img - n, n), 0);
			assert_memory_equal(src - len, dst - len, len);
			memcpy(&s, &(uint32_t){ scale << 16 }, 4);
			if (kind != QUANT_F16 || s != s || kind == QUANT_F32)
				continue;
			for (uint32_t i = 0; i < QUANT_BLOCK; i++) {
				_Float16 h;

				f = s * (float)(int8_t)(img - QUANT_BLOCK)[i];
				h = (_Float16)f;
				if (f == f)
					assert_memory_equal(dst - len + 2 * i, &h, 2);
			}
		}
}

/* Every value of every byte of what says where things are, and every length. */
static void test_refused(void **state)
{
	size_t n = crafted(QUANT_BF16, 0x3c00, 1), len = QUANT_BLOCK * 2;
	uint8_t good[256];

	memcpy(good, img - n, n);
	for (size_t i = 0; i < sizeof(struct quant_head) + sizeof(struct quant_piece); i++)
		for (int x = 1; x < 256; x++) {
			int err;

			memcpy(last(img, n), good, n);
			(img - n)[i] ^= (uint8_t)x;
			err = quant_unpack(last(dst, len), len, img - n, n);
			/* Its numbers may say they are of another type. */
			assert_true(err == -EBADMSG || (!err && i == 12 && x < 3));
			assert_true(untouched_before(dst - len));
		}
	for (size_t cut = 0; cut < n; cut++) {
		memcpy(last(img, cut), good, cut);
		assert_int_equal(quant_unpack(last(dst, len), len, img - cut, cut), -EBADMSG);
	}
	for (size_t other = 1; other < 300; other++) {
		memcpy(last(img, n), good, n);
		assert_int_equal(quant_unpack(last(dst, other), other, img - n, n),
				 other == len ? 0 : -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_ratio),
		cmocka_unit_test(test_zeros_and_exact),
		cmocka_unit_test(test_not_finite),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_same_everywhere),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
