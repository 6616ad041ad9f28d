/* SPDX-License-Identifier: MIT */
/* fx_avx2.c - blocks of fx.h by AVX2, BMI and POPCNT.
 *
 * Owns constant tables. Called only where the CPU has these (fx_level).
 *
 * (1) A block's exponents are made whole in a buffer that stays in the first
 *     cache, escapes included, and joined with the rest after that: escapes are
 *     the only thing that needs more than one step.
 * (2) Few escapes: their places are listed, four at a time whether there are as
 *     many or not, and patched. Many: a table spreads them. Either way, nothing
 *     branches on where they are.
 * (3) Escapes are read 8 (16 bytes, in masks) at a time, and only where there
 *     are as many left as the codes want: FX_SLACK covers the rest.
 * (4) What is unpacked is stored past the caches or not: each loop exists twice.
 * Lock: none.
 */
#include "core/fx.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define SIMD	__attribute__((target("avx2,bmi,popcnt")))
#define INLINE	SIMD static inline __attribute__((always_inline))

/* Escapes of a block from which on they are spread by the table. */
#define MANY	(FX_BLOCK / FX_GROUP * 3)

/* ---- tables -------------------------------------------------------------- */

#define BELOW(m, j)	__builtin_popcount((m) & ((1 << (j)) - 1))
#define ROWS4(R, m)	R(m), R((m) + 1), R((m) + 2), R((m) + 3)
#define ROWS16(R, m)	ROWS4(R, m), ROWS4(R, (m) + 4), ROWS4(R, (m) + 8), ROWS4(R, (m) + 12)
#define ROWS64(R, m)	ROWS16(R, m), ROWS16(R, (m) + 16), ROWS16(R, (m) + 32), ROWS16(R, (m) + 48)
#define ROWS256(R)	ROWS64(R, 0), ROWS64(R, 64), ROWS64(R, 128), ROWS64(R, 192)

/* For pshufb: to the j-th place what lies at the number of bits set below it,
 * where bit j is set, else zero. */
#define SPREAD1(m, j)	((m) >> (j) & 1 ? BELOW(m, j) : 0x80)
#define SPREAD1_ROW(m)	{ SPREAD1(m, 0), SPREAD1(m, 1), SPREAD1(m, 2), SPREAD1(m, 3), \
			  SPREAD1(m, 4), SPREAD1(m, 5), SPREAD1(m, 6), SPREAD1(m, 7) }
static const uint8_t spread1[256][8] = { ROWS256(SPREAD1_ROW) };

/* The same, of 2 bytes each. */
#define SPREAD2(m, j)	((m) >> (j) & 1 ? 2 * BELOW(m, j) : 0x80), \
			((m) >> (j) & 1 ? 2 * BELOW(m, j) + 1 : 0x80)
#define SPREAD2_ROW(m)	{ SPREAD2(m, 0), SPREAD2(m, 1), SPREAD2(m, 2), SPREAD2(m, 3), \
			  SPREAD2(m, 4), SPREAD2(m, 5), SPREAD2(m, 6), SPREAD2(m, 7) }
static const uint8_t spread2[256][16] = { ROWS256(SPREAD2_ROW) };

/* The number of the k-th bit that is set; 0 past the last. */
#define NTH1(m, k, j)	(((m) >> (j) & 1) && BELOW(m, j) == (k) ? (j) : 0)
#define NTH(m, k)	(NTH1(m, k, 1) + NTH1(m, k, 2) + NTH1(m, k, 3) + NTH1(m, k, 4) + \
			 NTH1(m, k, 5) + NTH1(m, k, 6) + NTH1(m, k, 7))
#define NTH_ROW(m)	{ NTH(m, 0), NTH(m, 1), NTH(m, 2), NTH(m, 3), \
			  NTH(m, 4), NTH(m, 5), NTH(m, 6), NTH(m, 7) }
static const uint8_t nth[256][8] = { ROWS256(NTH_ROW) };

INLINE __m256i load(const uint8_t *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

INLINE void store(uint8_t *p, __m256i v)
{
	_mm256_storeu_si256((__m256i *)p, v);
}

/* What is unpacked. */
INLINE void put(uint8_t *p, __m256i v, bool stream)
{
	if (stream)
		_mm256_stream_si256((__m256i *)p, v);
	else
		store(p, v);
}

INLINE __m128i load16(const uint8_t *p)
{
	return _mm_loadu_si128((const __m128i *)p);
}

INLINE uint64_t word(const uint8_t *p)
{
	uint64_t w;

	memcpy(&w, p, 8);
	return w;
}

/* 64 bytes: values 0 to 31, and 32 to 63. */
struct pair { __m256i a, b; };

/* Bit i: the highest of byte i. */
INLINE uint64_t tops_of(struct pair v)
{
	return (uint32_t)_mm256_movemask_epi8(v.a) |
	       (uint64_t)(uint32_t)_mm256_movemask_epi8(v.b) << 32;
}

/* ---- codes --------------------------------------------------------------- */

/* Each quarter of 64 codes lies in its own two bits of the same 16 bytes; their
 * third bits, each eighth in its own bit of the same 8. */
INLINE struct pair get_codes(const uint8_t *p)
{
	const __m256i three = _mm256_set1_epi8(3), four = _mm256_set1_epi8(4);
	__m256i x = _mm256_broadcastsi128_si256(load16(p));
	__m256i q = _mm256_set1_epi64x((long long)word(p + 16));
	__m256i a = _mm256_srlv_epi64(x, _mm256_setr_epi64x(0, 0, 2, 2));
	__m256i b = _mm256_srlv_epi64(x, _mm256_setr_epi64x(4, 4, 6, 6));
	/* To bit 2: left by 2, 1 and 0, then right (64: not this way). */
	__m256i ta = _mm256_or_si256(
		_mm256_sllv_epi64(q, _mm256_setr_epi64x(2, 1, 0, 64)),
		_mm256_srlv_epi64(q, _mm256_setr_epi64x(64, 64, 64, 1)));
	__m256i tb = _mm256_srlv_epi64(q, _mm256_setr_epi64x(2, 3, 4, 5));

	return (struct pair){
		_mm256_or_si256(_mm256_and_si256(a, three), _mm256_and_si256(ta, four)),
		_mm256_or_si256(_mm256_and_si256(b, three), _mm256_and_si256(tb, four)),
	};
}

INLINE __m128i or_halves(__m256i v)
{
	return _mm_or_si128(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

INLINE void put_codes(struct pair c, uint8_t *p)
{
	const __m256i three = _mm256_set1_epi8(3), one = _mm256_set1_epi8(1);
	__m256i two = _mm256_or_si256(
		_mm256_sllv_epi64(_mm256_and_si256(c.a, three), _mm256_setr_epi64x(0, 0, 2, 2)),
		_mm256_sllv_epi64(_mm256_and_si256(c.b, three), _mm256_setr_epi64x(4, 4, 6, 6)));
	__m256i third = _mm256_or_si256(
		_mm256_sllv_epi64(_mm256_and_si256(_mm256_srli_epi64(c.a, 2), one),
				  _mm256_setr_epi64x(0, 1, 2, 3)),
		_mm256_sllv_epi64(_mm256_and_si256(_mm256_srli_epi64(c.b, 2), one),
				  _mm256_setr_epi64x(4, 5, 6, 7)));
	__m128i q = or_halves(third);

	_mm_storeu_si128((__m128i *)p, or_halves(two));
	_mm_storel_epi64((__m128i *)(p + 16), _mm_or_si128(q, _mm_unpackhi_epi64(q, q)));
}

INLINE __m256i code_of(__m256i exp, __m256i first, bool zero7)
{
	const __m256i seven = _mm256_set1_epi8(FX_ESCAPE), none = _mm256_setzero_si256();
	__m256i c = _mm256_min_epu8(_mm256_sub_epi8(exp, first), seven);

	if (zero7) {	/* first is below the window: not in it, and no code but 0's */
		c = _mm256_or_si256(c, _mm256_and_si256(_mm256_cmpeq_epi8(c, none), seven));
		c = _mm256_andnot_si256(_mm256_cmpeq_epi8(exp, none), c);
	}
	return c;
}

INLINE uint32_t codes(const uint8_t *exp, uint8_t base, bool zero7, uint8_t *to,
		      uint8_t *escape)
{
	const __m256i first = _mm256_set1_epi8((char)(base - zero7));
	const __m256i seven = _mm256_set1_epi8(FX_ESCAPE);
	uint32_t n = 0;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, to += 24) {
		struct pair c = { code_of(load(exp + g), first, zero7),
				  code_of(load(exp + g + 32), first, zero7) };
		uint64_t m = tops_of((struct pair){ _mm256_cmpeq_epi8(c.a, seven),
						    _mm256_cmpeq_epi8(c.b, seven) });

		put_codes(c, to);
		for (; m; m = _blsr_u64(m))
			escape[n++] = exp[g + _tzcnt_u64(m)];
	}
	return n;
}

SIMD static uint32_t code(const uint8_t *exp, struct fx_window w, uint8_t *to,
			  uint8_t *escape)
{
	if (w.mode == FX_ZERO7)
		return codes(exp, w.base, true, to, escape);
	return codes(exp, w.base, false, to, escape);
}

/* ---- splitting ----------------------------------------------------------- */

/* Two vectors of 16-bit numbers below 256 to one of bytes, in order. */
INLINE __m256i narrow8(__m256i a, __m256i b)
{
	return _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xd8);
}

INLINE __m256i narrow16(__m256i a, __m256i b)
{
	return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
}

INLINE __m256i low8(__m256i x)
{
	return _mm256_and_si256(x, _mm256_set1_epi16(255));
}

/* Rest and exponent of 32 values. */
INLINE void rotate_apart(__m256i x, __m256i y, uint8_t *rest, uint8_t *exp)
{
	x = _mm256_or_si256(_mm256_slli_epi16(x, 1), _mm256_srli_epi16(x, 15));
	y = _mm256_or_si256(_mm256_slli_epi16(y, 1), _mm256_srli_epi16(y, 15));
	store(rest, narrow8(low8(x), low8(y)));
	store(exp, narrow8(_mm256_srli_epi16(x, 8), _mm256_srli_epi16(y, 8)));
}

SIMD static uint32_t split_bf16(const uint8_t *src, uint8_t *body, uint8_t *exp)
{
	for (uint32_t i = 0; i < FX_BLOCK; i += 32)
		rotate_apart(load(src + 2 * i), load(src + 2 * i + 32), body + FX_RESTS + i, exp + i);
	return 1;
}

/* Rest and exponent of 32 values; returns their tops. */
INLINE __m256i tops_apart(const uint8_t *src, uint8_t *rest, uint8_t *exp)
{
	__m256i x = load(src), y = load(src + 32);
	__m256i high = narrow8(_mm256_srli_epi16(x, 8), _mm256_srli_epi16(y, 8));

	store(rest, narrow8(low8(x), low8(y)));
	store(exp, _mm256_and_si256(_mm256_srli_epi16(high, 2), _mm256_set1_epi8(31)));
	return _mm256_or_si256(
		_mm256_and_si256(high, _mm256_set1_epi8(3)),
		_mm256_and_si256(_mm256_srli_epi16(high, 5), _mm256_set1_epi8(4)));
}

SIMD static uint32_t split_fp16(const uint8_t *src, uint8_t *body, uint8_t *exp)
{
	uint8_t *rest = body + FX_RESTS, *tops = body + FX_MORE;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, tops += 24) {
		__m256i a = tops_apart(src + 2 * g, rest + g, exp + g);
		__m256i b = tops_apart(src + 2 * g + 64, rest + g + 32, exp + g + 32);

		put_codes((struct pair){ a, b }, tops);
	}
	return 1;
}

SIMD static uint32_t split_fp32(const uint8_t *src, uint8_t *body, uint8_t *exp)
{
	const __m256i mask = _mm256_set1_epi32(0xffff);
	uint8_t *low = body + FX_MORE;
	__m256i any = _mm256_setzero_si256();

	for (uint32_t i = 0; i < FX_BLOCK; i += 32, src += 128, low += 64) {
		__m256i x[4], l[4];

		for (int k = 0; k < 4; k++) {
			x[k] = load(src + 32 * k);
			l[k] = _mm256_and_si256(x[k], mask);
			any = _mm256_or_si256(any, l[k]);
			x[k] = _mm256_srli_epi32(x[k], 16);
		}
		store(low, narrow16(l[0], l[1]));
		store(low + 32, narrow16(l[2], l[3]));
		rotate_apart(narrow16(x[0], x[1]), narrow16(x[2], x[3]), body + FX_RESTS + i, exp + i);
	}
	return !_mm256_testz_si256(any, any);
}

/* ---- exponents ----------------------------------------------------------- */

/* By the dictionary; 255 where escaped. */
INLINE struct pair looked_up(const uint8_t *codes_of, __m256i dict)
{
	struct pair c = get_codes(codes_of);

	return (struct pair){ _mm256_shuffle_epi8(dict, c.a), _mm256_shuffle_epi8(dict, c.b) };
}

/* (2) Many. 8 exponents, in which escapes are zeros yet, at a time. */
INLINE void spread(uint8_t *exp, uint64_t m, const uint8_t *from)
{
	for (int i = 0; i < 8; i++, m >>= 8, exp += 8) {
		__m128i x = _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)from),
					     _mm_loadl_epi64((const __m128i *)spread1[m & 255]));
		__m128i e = _mm_loadl_epi64((const __m128i *)exp);

		_mm_storel_epi64((__m128i *)exp, _mm_or_si128(e, x));
		from += _mm_popcnt_u64(m & 255);
	}
}

INLINE bool exponents_spread(const struct fx_coded *c, uint8_t *exp)
{
	const __m256i dict = _mm256_broadcastsi128_si256(load16(c->dict));
	const __m256i mark = _mm256_set1_epi8(-1);
	const uint8_t *codes_of = c->body;
	const uint8_t *from = c->escape, *end = from + c->escapes;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, codes_of += 24) {
		struct pair e = looked_up(codes_of, dict);
		struct pair is = { _mm256_cmpeq_epi8(e.a, mark), _mm256_cmpeq_epi8(e.b, mark) };
		uint64_t m = tops_of(is);
		int64_t n = _mm_popcnt_u64(m);

		if (n > end - from)
			return false;
		store(exp + g, _mm256_andnot_si256(is.a, e.a));
		store(exp + g + 32, _mm256_andnot_si256(is.b, e.b));
		spread(exp + g, m, from);
		from += n;
	}
	return from == end;
}

/* (2) Few. Four places more than there are may be written. */
INLINE uint16_t *list(uint16_t *to, uint64_t m, uint32_t g)
{
	int64_t n = _mm_popcnt_u64(m);

	for (int64_t i = 0; i < 4 || i < n; i += 4)
		for (int k = 0; k < 4; k++, m = _blsr_u64(m))
			to[i + k] = (uint16_t)(g + _tzcnt_u64(m));
	return to + n;
}

INLINE bool exponents_listed(const struct fx_coded *c, uint8_t *exp)
{
	const __m256i dict = _mm256_broadcastsi128_si256(load16(c->dict));
	const __m256i mark = _mm256_set1_epi8(-1);
	const uint8_t *codes_of = c->body;
	uint16_t place[FX_BLOCK + 4], *end = place;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, codes_of += 24) {
		struct pair e = looked_up(codes_of, dict);

		store(exp + g, e.a);
		store(exp + g + 32, e.b);
		end = list(end, tops_of((struct pair){ _mm256_cmpeq_epi8(e.a, mark),
						       _mm256_cmpeq_epi8(e.b, mark) }), g);
	}
	if (end - place != c->escapes)
		return false;
	for (uint32_t i = 0; i < c->escapes; i++)
		exp[place[i]] = c->escape[i];
	return true;
}

INLINE bool exponents(const struct fx_coded *c, uint8_t *exp)
{
	return c->escapes > MANY ? exponents_spread(c, exp) : exponents_listed(c, exp);
}

/* ---- joining ------------------------------------------------------------- */

/* Quarters in the order that unpacklo and unpackhi, which work in halves, undo. */
INLINE __m256i crossed(__m256i x)
{
	return _mm256_permute4x64_epi64(x, 0xd8);
}

INLINE struct pair together8(__m256i low, __m256i high)
{
	low = crossed(low);
	high = crossed(high);
	return (struct pair){ _mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high) };
}

INLINE __m256i rotate_back(__m256i x)
{
	return _mm256_or_si256(_mm256_srli_epi16(x, 1), _mm256_slli_epi16(x, 15));
}

/* 32 values. */
INLINE struct pair rotate_together(const uint8_t *rest, const uint8_t *exp)
{
	struct pair x = together8(load(rest), load(exp));

	return (struct pair){ rotate_back(x.a), rotate_back(x.b) };
}

INLINE void join_bf16(uint8_t *dst, const struct fx_coded *c, const uint8_t *exp, bool stream)
{
	for (uint32_t i = 0; i < FX_BLOCK; i += 32) {
		struct pair x = rotate_together(c->body + FX_RESTS + i, exp + i);

		put(dst + 2 * i, x.a, stream);
		put(dst + 2 * i + 32, x.b, stream);
	}
}

SIMD static bool unpack_bf16(uint8_t *dst, const struct fx_coded *c)
{
	uint8_t exp[FX_BLOCK] __attribute__((aligned(64)));

	if (!exponents(c, exp))
		return false;
	if (c->stream)
		join_bf16(dst, c, exp, true);
	else
		join_bf16(dst, c, exp, false);
	return true;
}

INLINE void join_tops(uint8_t *dst, const uint8_t *rest, const uint8_t *exp, __m256i top,
		      bool stream)
{
	const __m256i where = _mm256_broadcastsi128_si256(_mm_setr_epi8(
		0, 1, 2, 3, (char)0x80, (char)0x81, (char)0x82, (char)0x83,
		0, 0, 0, 0, 0, 0, 0, 0));
	__m256i high = _mm256_or_si256(load(exp), _mm256_shuffle_epi8(where, top));
	struct pair x = together8(load(rest), high);

	put(dst, x.a, stream);
	put(dst + 32, x.b, stream);
}

INLINE void join_fp16(uint8_t *dst, const struct fx_coded *c, const uint8_t *exp, bool stream)
{
	const uint8_t *rest = c->body + FX_RESTS, *tops = c->body + FX_MORE;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, tops += 24, dst += 128) {
		struct pair top = get_codes(tops);

		join_tops(dst, rest + g, exp + g, top.a, stream);
		join_tops(dst + 64, rest + g + 32, exp + g + 32, top.b, stream);
	}
}

SIMD static bool unpack_fp16(uint8_t *dst, const struct fx_coded *c)
{
	uint8_t exp[FX_BLOCK] __attribute__((aligned(64)));

	if (!exponents(c, exp))
		return false;
	if (c->stream)
		join_fp16(dst, c, exp, true);
	else
		join_fp16(dst, c, exp, false);
	return true;
}

INLINE void join_low(uint8_t *dst, __m256i low, __m256i high, bool stream)
{
	low = crossed(low);
	high = crossed(high);
	put(dst, _mm256_unpacklo_epi16(low, high), stream);
	put(dst + 32, _mm256_unpackhi_epi16(low, high), stream);
}

INLINE void join_fp32(uint8_t *dst, const struct fx_coded *c, const uint8_t *exp, bool has_low,
		      bool stream)
{
	const uint8_t *low = c->body + FX_MORE;

	for (uint32_t i = 0; i < FX_BLOCK; i += 32, low += 64, dst += 128) {
		struct pair x = rotate_together(c->body + FX_RESTS + i, exp + i);

		join_low(dst, has_low ? load(low) : _mm256_setzero_si256(), x.a, stream);
		join_low(dst + 64, has_low ? load(low + 32) : _mm256_setzero_si256(), x.b,
			 stream);
	}
}

SIMD static bool unpack_fp32(uint8_t *dst, const struct fx_coded *c)
{
	uint8_t exp[FX_BLOCK] __attribute__((aligned(64)));

	if (!exponents(c, exp))
		return false;
	if (c->low && c->stream)
		join_fp32(dst, c, exp, true, true);
	else if (c->low)
		join_fp32(dst, c, exp, true, false);
	else if (c->stream)
		join_fp32(dst, c, exp, false, true);
	else
		join_fp32(dst, c, exp, false, false);
	return true;
}

/* ---- masks --------------------------------------------------------------- */

/* The values that bits are set for, one after the other. */
INLINE uint8_t *gather(uint8_t *to, __m128i x, uint32_t bits)
{
	__m128i at = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)nth[bits]));

	/* Lane k is bytes 2k and 2k + 1. */
	at = _mm_add_epi16(_mm_mullo_epi16(at, _mm_set1_epi16(0x0202)), _mm_set1_epi16(0x0100));
	_mm_storeu_si128((__m128i *)to, _mm_shuffle_epi8(x, at));
	return to + 2 * _mm_popcnt_u32(bits);
}

SIMD static uint32_t mask(const uint8_t *src, uint8_t *body, uint8_t *escape)
{
	const __m256i none = _mm256_setzero_si256();
	uint8_t *to = escape;

	for (uint32_t i = 0; i < FX_BLOCK; i += 16, src += 32, body += 2) {
		__m256i x = load(src), is = _mm256_cmpeq_epi16(x, none);
		__m128i narrow = _mm_packs_epi16(_mm256_castsi256_si128(is),
						 _mm256_extracti128_si256(is, 1));
		uint16_t bits = (uint16_t)~_mm_movemask_epi8(narrow);

		memcpy(body, &bits, 2);
		to = gather(to, _mm256_castsi256_si128(x), bits & 255);
		to = gather(to, _mm256_extracti128_si256(x, 1), bits >> 8);
	}
	return (uint32_t)(to - escape);
}

INLINE bool spread_masked(uint8_t *dst, const struct fx_coded *c, bool stream)
{
	const uint8_t *from = c->escape, *end = from + c->escapes;

	for (uint32_t i = 0; i < FX_MASK; i += 8) {
		uint64_t m = word(c->body + i);

		if (2 * (int64_t)_mm_popcnt_u64(m) > end - from)
			return false;
		for (int k = 0; k < 8; k++, m >>= 8, dst += 16) {
			__m128i x = _mm_shuffle_epi8(load16(from), load16(spread2[m & 255]));

			if (stream)
				_mm_stream_si128((__m128i *)dst, x);
			else
				_mm_storeu_si128((__m128i *)dst, x);
			from += 2 * _mm_popcnt_u64(m & 255);
		}
	}
	return from == end;
}

SIMD static bool unpack_zmask(uint8_t *dst, const struct fx_coded *c)
{
	return c->stream ? spread_masked(dst, c, true) : spread_masked(dst, c, false);
}

const struct fx_ops fx_avx2 = {
	.name = "avx2",
	.split = { split_bf16, split_fp16, split_fp32, NULL },
	.code = code,
	.mask = mask,
	.unpack = { unpack_bf16, unpack_fp16, unpack_fp32, unpack_zmask },
};
#endif
