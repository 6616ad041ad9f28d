/* SPDX-License-Identifier: MIT */
/* fx_avx512.c - blocks of fx.h by AVX-512 with VBMI and VBMI2.
 *
 * Owns constant tables. Called only where the CPU has these (fx_level).
 *
 * (1) 64 values at a time, from codes to the bytes that are stored: an escape is
 *     put in its place by one instruction (expand), so nothing is kept, and
 *     nothing branches on where escapes are.
 * (2) Escapes are read 64 bytes at a time, and only where there are as many left
 *     as the codes want: FX_SLACK covers the rest.
 * (3) Compressed to a register and then stored: to memory it is slow on some CPUs.
 * (4) What is unpacked is stored past the caches or not: each loop exists twice.
 * Lock: none.
 */
#include "core/fx.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#ifndef SIMD	/* a test has the intrinsics in C, for any CPU */
#define SIMD	__attribute__((target("avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi,popcnt")))
#endif
#define INLINE	SIMD static inline __attribute__((always_inline))

/* ---- tables -------------------------------------------------------------- */

#define EACH4(F, i)	F(i), F((i) + 1), F((i) + 2), F((i) + 3)
#define EACH16(F, i)	EACH4(F, i), EACH4(F, (i) + 4), EACH4(F, (i) + 8), EACH4(F, (i) + 12)
#define EACH32(F)	EACH16(F, 0), EACH16(F, 16)
#define EACH64(F)	EACH32(F), EACH16(F, 32), EACH16(F, 48)

/* Which of two vectors' numbers, the second's coming after the first's: every
 * other one, and one from each in turn. */
#define EVEN(i)		(2 * (i))
#define ODD(i)		(2 * (i) + 1)
#define WOVEN8(i)	((i) / 2 + (i) % 2 * 64)
#define WOVEN8_HIGH(i)	(32 + (i) / 2 + (i) % 2 * 64)
#define WOVEN16(i)	((i) / 2 + (i) % 2 * 32)
#define WOVEN16_HIGH(i)	(16 + (i) / 2 + (i) % 2 * 32)
static const uint8_t even8[64] = { EACH64(EVEN) }, odd8[64] = { EACH64(ODD) };
static const uint16_t even16[32] = { EACH32(EVEN) }, odd16[32] = { EACH32(ODD) };
static const uint8_t woven8[2][64] = { { EACH64(WOVEN8) }, { EACH64(WOVEN8_HIGH) } };
static const uint16_t woven16[2][32] = { { EACH32(WOVEN16) }, { EACH32(WOVEN16_HIGH) } };

/* Top bits of fp16's high byte, by number. */
static const uint8_t top_bits[8] = { 0, 1, 2, 3, 0x80, 0x81, 0x82, 0x83 };

INLINE __m512i load(const void *p)
{
	return _mm512_loadu_si512(p);
}

INLINE void store(void *p, __m512i v)
{
	_mm512_storeu_si512(p, v);
}

/* What is unpacked. */
INLINE void put(void *p, __m512i v, bool stream)
{
	if (stream)
		_mm512_stream_si512(p, v);
	else
		store(p, v);
}

INLINE uint64_t word(const uint8_t *p)
{
	uint64_t w;

	memcpy(&w, p, 8);
	return w;
}

/* ---- codes --------------------------------------------------------------- */

#define TWOS	_mm512_setr_epi64(0, 0, 2, 2, 4, 4, 6, 6)
#define ONES	_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7)
#define TO_BIT2	_mm512_setr_epi64(62, 63, 0, 1, 2, 3, 4, 5)
#define A_IF_C	0xe4	/* ternary logic: of each bit, a where c is set, else b */

/* 64 codes in the low 3 bits, anything in the others. */
INLINE __m512i get_codes(const uint8_t *p)
{
	__m128i two = _mm_loadu_si128((const __m128i *)p);
	__m512i a = _mm512_srlv_epi64(_mm512_broadcast_i32x4(two), TWOS);
	__m512i b = _mm512_rorv_epi64(_mm512_set1_epi64((long long)word(p + 16)), TO_BIT2);

	return _mm512_ternarylogic_epi64(a, b, _mm512_set1_epi8(3), A_IF_C);
}

/* What a table of 8 says to each. */
INLINE __m512i looked_up(const uint8_t *codes_of, const uint8_t *table)
{
	return _mm512_permutexvar_epi8(get_codes(codes_of),
				       _mm512_set1_epi64((long long)word(table)));
}

INLINE void put_codes(__m512i c, uint8_t *p)
{
	__m512i two = _mm512_sllv_epi64(_mm512_and_si512(c, _mm512_set1_epi8(3)), TWOS);
	__m512i third = _mm512_sllv_epi64(
		_mm512_and_si512(_mm512_srli_epi64(c, 2), _mm512_set1_epi8(1)), ONES);
	uint64_t w[3] = {
		(uint64_t)_mm512_mask_reduce_or_epi64(0x55, two),
		(uint64_t)_mm512_mask_reduce_or_epi64(0xaa, two),
		(uint64_t)_mm512_mask_reduce_or_epi64(0xff, third),
	};

	memcpy(p, w, sizeof(w));
}

INLINE __m512i code_of(__m512i exp, __m512i first, bool zero7)
{
	const __m512i seven = _mm512_set1_epi8(FX_ESCAPE);
	__m512i c = _mm512_min_epu8(_mm512_sub_epi8(exp, first), seven);

	if (zero7) {	/* first is below the window: not in it, and no code but 0's */
		c = _mm512_mask_mov_epi8(c, _mm512_testn_epi8_mask(c, c), seven);
		c = _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(exp, exp), c);
	}
	return c;
}

INLINE uint32_t codes(const uint8_t *exp, uint8_t base, bool zero7, uint8_t *to,
		      uint8_t *escape)
{
	const __m512i first = _mm512_set1_epi8((char)(base - zero7));
	uint8_t *end = escape;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, to += 24) {
		__m512i e = load(exp + g), c = code_of(e, first, zero7);
		uint64_t m = _mm512_cmpeq_epi8_mask(c, _mm512_set1_epi8(FX_ESCAPE));

		put_codes(c, to);
		store(end, _mm512_maskz_compress_epi8(m, e));
		end += __builtin_popcountll(m);
	}
	return (uint32_t)(end - escape);
}

SIMD static uint32_t code(const uint8_t *exp, struct fx_window w, uint8_t *to,
			  uint8_t *escape)
{
	if (w.mode == FX_ZERO7)
		return codes(exp, w.base, true, to, escape);
	return codes(exp, w.base, false, to, escape);
}

/* ---- splitting ----------------------------------------------------------- */

/* Rest and exponent of 64 values. */
INLINE void rotate_apart(__m512i x, __m512i y, uint8_t *rest, uint8_t *exp)
{
	x = _mm512_shldi_epi16(x, x, 1);
	y = _mm512_shldi_epi16(y, y, 1);
	store(rest, _mm512_permutex2var_epi8(x, load(even8), y));
	store(exp, _mm512_permutex2var_epi8(x, load(odd8), y));
}

SIMD static uint32_t split_bf16(const uint8_t *src, uint8_t *body, uint8_t *exp)
{
	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP)
		rotate_apart(load(src + 2 * g), load(src + 2 * g + 64), body + FX_RESTS + g,
			     exp + g);
	return 1;
}

SIMD static uint32_t split_fp16(const uint8_t *src, uint8_t *body, uint8_t *exp)
{
	uint8_t *tops = body + FX_MORE;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, tops += 24) {
		__m512i x = load(src + 2 * g), y = load(src + 2 * g + 64);
		__m512i high = _mm512_permutex2var_epi8(x, load(odd8), y);

		store(body + FX_RESTS + g, _mm512_permutex2var_epi8(x, load(even8), y));
		store(exp + g, _mm512_and_si512(_mm512_srli_epi16(high, 2),
						_mm512_set1_epi8(31)));
		put_codes(_mm512_or_si512(
			_mm512_and_si512(high, _mm512_set1_epi8(3)),
			_mm512_and_si512(_mm512_srli_epi16(high, 5), _mm512_set1_epi8(4))),
			tops);
	}
	return 1;
}

SIMD static uint32_t split_fp32(const uint8_t *src, uint8_t *body, uint8_t *exp)
{
	uint8_t *lows = body + FX_MORE;
	__m512i any = _mm512_setzero_si512();

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, src += 256, lows += 128) {
		__m512i high[2];

		for (int k = 0; k < 2; k++) {
			__m512i x = load(src + 128 * k), y = load(src + 128 * k + 64);
			__m512i low = _mm512_permutex2var_epi16(x, load(even16), y);

			high[k] = _mm512_permutex2var_epi16(x, load(odd16), y);
			any = _mm512_or_si512(any, low);
			store(lows + 64 * k, low);
		}
		rotate_apart(high[0], high[1], body + FX_RESTS + g, exp + g);
	}
	return _mm512_test_epi8_mask(any, any) != 0;
}

/* ---- joining ------------------------------------------------------------- */

struct reader {
	const uint8_t *escape, *end;
};

/* 64 exponents, as the dictionary has them. False: escapes do not suffice. */
INLINE bool exponents(const struct fx_coded *c, uint32_t g, struct reader *r, __m512i *exp)
{
	__m512i e = looked_up(c->body + g / FX_GROUP * 24, c->dict);
	uint64_t m = _mm512_cmpeq_epi8_mask(e, _mm512_set1_epi8(-1));
	int64_t n = __builtin_popcountll(m);

	if (n > r->end - r->escape)
		return false;
	*exp = _mm512_mask_expand_epi8(e, m, load(r->escape));
	r->escape += n;
	return true;
}

INLINE __m512i weave8(__m512i low, __m512i high, int half)
{
	return _mm512_permutex2var_epi8(low, load(woven8[half]), high);
}

INLINE __m512i rotate_together(__m512i rest, __m512i exp, int half)
{
	__m512i x = weave8(rest, exp, half);

	return _mm512_shrdi_epi16(x, x, 1);
}

INLINE bool join_bf16(uint8_t *dst, const struct fx_coded *c, bool stream)
{
	struct reader r = { c->escape, c->escape + c->escapes };

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP) {
		__m512i rest = load(c->body + FX_RESTS + g), exp;

		if (!exponents(c, g, &r, &exp))
			return false;
		put(dst + 2 * g, rotate_together(rest, exp, 0), stream);
		put(dst + 2 * g + 64, rotate_together(rest, exp, 1), stream);
	}
	return r.escape == r.end;
}

SIMD static bool unpack_bf16(uint8_t *dst, const struct fx_coded *c)
{
	return c->stream ? join_bf16(dst, c, true) : join_bf16(dst, c, false);
}

INLINE bool join_fp16(uint8_t *dst, const struct fx_coded *c, bool stream)
{
	struct reader r = { c->escape, c->escape + c->escapes };
	const uint8_t *tops = c->body + FX_MORE;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, tops += 24) {
		__m512i rest = load(c->body + FX_RESTS + g), exp;

		if (!exponents(c, g, &r, &exp))
			return false;
		exp = _mm512_or_si512(exp, looked_up(tops, top_bits));
		put(dst + 2 * g, weave8(rest, exp, 0), stream);
		put(dst + 2 * g + 64, weave8(rest, exp, 1), stream);
	}
	return r.escape == r.end;
}

SIMD static bool unpack_fp16(uint8_t *dst, const struct fx_coded *c)
{
	return c->stream ? join_fp16(dst, c, true) : join_fp16(dst, c, false);
}

/* 32 values. */
INLINE void join_low(uint8_t *dst, __m512i low, __m512i high, bool stream)
{
	for (int half = 0; half < 2; half++)
		put(dst + 64 * half,
		    _mm512_permutex2var_epi16(low, load(woven16[half]), high), stream);
}

INLINE bool join_fp32(uint8_t *dst, const struct fx_coded *c, bool has_low, bool stream)
{
	struct reader r = { c->escape, c->escape + c->escapes };
	const uint8_t *lows = c->body + FX_MORE;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, lows += 128, dst += 256) {
		__m512i rest = load(c->body + FX_RESTS + g), exp;

		if (!exponents(c, g, &r, &exp))
			return false;
		for (int half = 0; half < 2; half++)
			join_low(dst + 128 * half,
				 has_low ? load(lows + 64 * half) : _mm512_setzero_si512(),
				 rotate_together(rest, exp, half), stream);
	}
	return r.escape == r.end;
}

SIMD static bool unpack_fp32(uint8_t *dst, const struct fx_coded *c)
{
	if (c->stream)
		return c->low ? join_fp32(dst, c, true, true) : join_fp32(dst, c, false, true);
	return c->low ? join_fp32(dst, c, true, false) : join_fp32(dst, c, false, false);
}

/* ---- masks --------------------------------------------------------------- */

SIMD static uint32_t mask(const uint8_t *src, uint8_t *body, uint8_t *escape)
{
	uint8_t *to = escape;

	for (uint32_t i = 0; i < FX_BLOCK; i += 32, src += 64, body += 4) {
		__m512i x = load(src);
		uint32_t m = _mm512_test_epi16_mask(x, x);

		memcpy(body, &m, 4);
		store(to, _mm512_maskz_compress_epi16(m, x));
		to += 2 * __builtin_popcount(m);
	}
	return (uint32_t)(to - escape);
}

INLINE bool spread_masked(uint8_t *dst, const struct fx_coded *c, bool stream)
{
	const uint8_t *from = c->escape, *end = from + c->escapes;

	for (uint32_t i = 0; i < FX_MASK; i += 4, dst += 64) {
		uint32_t m;

		memcpy(&m, c->body + i, 4);
		if (2 * __builtin_popcount(m) > end - from)
			return false;
		put(dst, _mm512_maskz_expand_epi16(m, load(from)), stream);
		from += 2 * __builtin_popcount(m);
	}
	return from == end;
}

SIMD static bool unpack_zmask(uint8_t *dst, const struct fx_coded *c)
{
	return c->stream ? spread_masked(dst, c, true) : spread_masked(dst, c, false);
}

const struct fx_ops fx_avx512 = {
	.name = "avx512",
	.split = { split_bf16, split_fp16, split_fp32, NULL },
	.code = code,
	.mask = mask,
	.unpack = { unpack_bf16, unpack_fp16, unpack_fp32, unpack_zmask },
};
#endif
