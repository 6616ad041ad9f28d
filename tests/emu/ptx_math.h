/* SPDX-License-Identifier: MIT */
/* ptx_math.h - values of PTX instructions, one lane at a time.
 *
 * Owns nothing. (1) Only what IEEE 754 defines, integers and comparisons: the
 * same bits by every compiler and processor, if products and sums are not
 * contracted (the makefile says so). (2) Without branches, where that lets a
 * loop over lanes become vector code. Lock: none.
 */
#ifndef PTX_MATH_H
#define PTX_MATH_H

#include <stdint.h>
#include <string.h>

#define INLINE	static inline __attribute__((always_inline, unused))

INLINE float f32_bits(uint32_t u)
{
	float f;

	memcpy(&f, &u, 4);
	return f;
}

INLINE uint32_t bits_f32(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	return u;
}

INLINE double f64_bits(uint64_t u)
{
	double f;

	memcpy(&f, &u, 8);
	return f;
}

INLINE uint64_t bits_f64(double f)
{
	uint64_t u;

	memcpy(&u, &f, 8);
	return u;
}

/* ---- NaN, minimum, maximum ------------------------------------------------- */

INLINE float nan_f32(void)
{
	return f32_bits(0x7fffffff);
}

INLINE double nan_f64(void)
{
	return f64_bits(0xfff8000000000000);
}

INLINE int is_nan(float f)
{
	return f != f;
}

INLINE float canon_f32(float f)
{
	return f == f ? f : nan_f32();
}

INLINE double canon_f64(double f)
{
	return f == f ? f : nan_f64();
}

/* The other one where one is NaN; -0 is less than +0. */
INLINE float min_f32(float a, float b)
{
	float r = a < b ? a : a > b ? b : f32_bits(bits_f32(a) | bits_f32(b));

	r = a != a ? b : r;
	return canon_f32(b != b ? a : r);
}

INLINE float max_f32(float a, float b)
{
	float r = a > b ? a : a < b ? b : f32_bits(bits_f32(a) & bits_f32(b));

	r = a != a ? b : r;
	return canon_f32(b != b ? a : r);
}

INLINE double min_f64(double a, double b)
{
	double r = a < b ? a : a > b ? b : f64_bits(bits_f64(a) | bits_f64(b));

	r = a != a ? b : r;
	return canon_f64(b != b ? a : r);
}

INLINE double max_f64(double a, double b)
{
	double r = a > b ? a : a < b ? b : f64_bits(bits_f64(a) & bits_f64(b));

	r = a != a ? b : r;
	return canon_f64(b != b ? a : r);
}

/* ---- f16, bf16 ----------------------------------------------------------------- */

/* The exponent is moved by a product, which makes subnormals right too. */
INLINE float f16_to(uint16_t h)
{
	uint32_t m = h & 0x7fffu, s = (uint32_t)(h & 0x8000u) << 16;
	uint32_t u = bits_f32(f32_bits(m << 13) * f32_bits(0x77800000));

	u = m >= 0x7c00 ? 0x7f800000 | m << 13 : u;
	return f32_bits(u | s);
}

/* To nearest even: what is too small for an exponent of f16 is rounded by a
 * sum, the rest by adding just under half of what is cut off. */
INLINE uint16_t f16_of(float f)
{
	uint32_t u = bits_f32(f), m = u & 0x7fffffff, s = u >> 16 & 0x8000;
	uint32_t small = bits_f32(f32_bits(m) + 0.5f) - 0x3f000000;
	uint32_t r = (m + 0xfff + (m >> 13 & 1) - 0x38000000) >> 13;

	r = m < 0x38800000 ? small : r;
	r = m >= 0x477ff000 ? 0x7c00 : r;
	return (uint16_t)(m > 0x7f800000 ? 0x7fff : r | s);
}

INLINE float bf16_to(uint16_t h)
{
	return f32_bits((uint32_t)h << 16);
}

INLINE uint16_t bf16_of(float f)
{
	uint32_t u = bits_f32(f);
	uint32_t r = (u + 0x7fff + (u >> 16 & 1)) >> 16;

	return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? 0x7fff : r);
}

/* To float so that a second rounding comes out as if it were the only one: what
 * is not exact gets an odd last bit. */
INLINE float f32_odd(double d)
{
	float f = (float)d;
	uint32_t u = bits_f32(f);
	int away = (double)f < d ? d > 0 : d < 0;

	return (double)f == d || d != d || u & 1 ? f : f32_bits(away ? u + 1 : u - 1);
}

/* The product of two halves is exact in double; so is what their sum lost. */
INLINE float fma_odd(float a, float b, float c)
{
	double p = (double)a * b, s = p + c, v = s - p;
	double lost = (p - (s - v)) + (c - v);
	uint64_t u = bits_f64(s);
	int fix = lost != 0 && lost == lost && !(u & 1) && (s - s == 0);

	u = fix ? ((lost > 0) == (s > 0) ? u + 1 : u - 1) : u;
	return f32_odd(f64_bits(u));
}

/* e with a, b and c one half of each word, for both. */
#define X2(A, B, C, e) \
	__extension__({ \
		uint32_t wa_ = (A), wb_ = (B), wc_ = (C), lo_; \
		{ uint16_t a_ = (uint16_t)wa_, b_ = (uint16_t)wb_, c_ = (uint16_t)wc_; \
		  lo_ = X2_(a_, b_, c_, e); } \
		{ uint16_t a_ = (uint16_t)(wa_ >> 16), b_ = (uint16_t)(wb_ >> 16), \
			   c_ = (uint16_t)(wc_ >> 16); \
		  lo_ |= (uint32_t)X2_(a_, b_, c_, e) << 16; } \
		lo_; \
	})
#define X2_(x, y, z, e) \
	__extension__({ \
		const uint16_t a = (x), b = (y), c = (z); \
		(void)a; (void)b; (void)c; \
		(uint16_t)(e); \
	})

/* ---- approximate functions, in double, within about 1 ulp of float ------------------ */

/* 1.5 * 2^52: the sum's low bits are x to the nearest integer. */
#define ROUNDER	6755399441055744.0

INLINE double exp2_double(double x)
{
	double t = x + ROUNDER, r = x - (t - ROUNDER), p = 1.0178086009239699e-07;

	p = p * r + 1.3215486790144309e-06;
	p = p * r + 1.5252733804059841e-05;
	p = p * r + 1.5403530393381608e-04;
	p = p * r + 1.3333558146428443e-03;
	p = p * r + 9.6181291076284769e-03;
	p = p * r + 5.5504108664821580e-02;
	p = p * r + 2.4022650695910072e-01;
	p = p * r + 6.9314718055994531e-01;
	p = p * r + 1;
	return f64_bits(bits_f64(p) + (bits_f64(t) << 52));
}

INLINE float approx_ex2(float x)
{
	float c = x < -200 ? -200 : x > 200 ? 200 : x;
	float r = (float)exp2_double(c == c ? c : 0);

	return x == x ? r : nan_f32();
}

INLINE float approx_lg2(float x)
{
	uint64_t u = bits_f64((double)x), half = 0x3fe6a09e00000000;	/* sqrt(1/2) */
	uint64_t e = (u - half) >> 52;
	double m = f64_bits(u - (e << 52)), t = (m - 1) / (m + 1), q = t * t, p = 1.0 / 13;
	double n = f64_bits(0x4330000000000000 + (e & 0x7ff)) - 4503599627370496.0;
	float r;

	n = n > 1024 ? n - 2048 : n;
	p = p * q + 1.0 / 11;
	p = p * q + 1.0 / 9;
	p = p * q + 1.0 / 7;
	p = p * q + 1.0 / 5;
	p = p * q + 1.0 / 3;
	p = p * q + 1;
	r = (float)(n + p * t * 2.8853900817779268);
	r = x == 0 ? f32_bits(0xff800000) : r;
	r = bits_f32(x) == 0x7f800000 ? x : r;
	return x >= 0 ? r : nan_f32();
}

/* cos: a quarter on. Exact to about 2^20 quarters, as the argument allows. */
INLINE float approx_sin(float x, int quarter)
{
	double a = x, t = a * 0.63661977236758134 + ROUNDER, n = t - ROUNDER;
	double r = (a - n * 1.5707963267341256) - n * 6.0771005065061922e-11, q = r * r;
	double s = 2.7557319223985893e-06, c = -2.7557319223985888e-07;
	uint64_t k = bits_f64(t) + (uint64_t)quarter;
	double v;

	s = s * q - 1.9841269841269841e-04;
	s = s * q + 8.3333333333333332e-03;
	s = s * q - 1.6666666666666666e-01;
	s = r + r * q * s;
	c = c * q + 2.4801587301587302e-05;
	c = c * q - 1.3888888888888889e-03;
	c = c * q + 4.1666666666666664e-02;
	c = 1 - q * 0.5 + q * q * c;
	v = k & 1 ? c : s;
	v = k & 2 ? -v : v;
	v = v > 1 ? 1 : v < -1 ? -1 : v;
	return x - x == 0 ? (float)v : nan_f32();
}

INLINE float approx_tanh(float x)
{
	float c = x < -30 ? -30 : x > 30 ? 30 : x;
	double e = exp2_double((c == c ? c : 0) * 2.8853900817779268);
	float r = (float)((e - 1) / (e + 1));

	r = x < 1e-4f && x > -1e-4f ? x : r;
	return x == x ? r : nan_f32();
}

/* ---- integers ------------------------------------------------------------------------ */

#define UB(x, i)	((x) >> (8 * (i)) & 0xff)
#define SB(x, i)	((int32_t)(int8_t)((x) >> (8 * (i))))

INLINE int32_t sext24(uint32_t a)
{
	return (int32_t)(a << 8) >> 8;
}

INLINE uint32_t clamp_s32(int64_t v)
{
	return (uint32_t)(int32_t)(v < INT32_MIN ? INT32_MIN : v > INT32_MAX ? INT32_MAX : v);
}

INLINE int32_t s32_of(float f)
{
	int32_t r = (int32_t)(f >= -2147483648.0f && f < 2147483648.0f ? f : 0);

	return f >= 2147483648.0f ? INT32_MAX : f < -2147483648.0f ? INT32_MIN : r;
}

INLINE uint32_t u32_of(float f)
{
	uint32_t r = (uint32_t)(int64_t)(f > 0 && f < 4294967296.0f ? f : 0);

	return f >= 4294967296.0f ? UINT32_MAX : r;
}

INLINE uint32_t popc32(uint32_t x)
{
	x -= x >> 1 & 0x55555555;
	x = (x & 0x33333333) + (x >> 2 & 0x33333333);
	x = (x + (x >> 4)) & 0x0f0f0f0f;
	return x * 0x01010101 >> 24;
}

INLINE uint32_t brev32(uint32_t x)
{
	x = (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
	x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
	x = (x >> 4 & 0x0f0f0f0f) | (x & 0x0f0f0f0f) << 4;
	return __builtin_bswap32(x);
}

INLINE uint32_t bfind(uint64_t a)
{
	return a ? 63u - (uint32_t)__builtin_clzll(a) : ~0u;
}

INLINE uint64_t bfe(uint64_t a, uint32_t b, uint32_t c, unsigned bits, int is_signed)
{
	uint32_t pos = b & 0xff, len = c & 0xff, top = bits - 1;
	uint32_t sign_at = pos + len - 1 < top ? pos + len - 1 : top;
	uint64_t sign = len && is_signed ? 0 - (a >> sign_at & 1) : 0;
	uint64_t mask = len < 64 ? (1ull << (len & 63)) - 1 : ~0ull, r;

	r = pos > top ? sign : a >> pos;
	if (pos <= top && pos)
		r = (r & (~0ull >> pos >> (64 - bits))) | (sign << (bits - pos));
	else if (pos <= top && bits == 32)
		r &= 0xffffffff;
	return (r & mask) | (sign & ~mask);
}

INLINE uint64_t bfi(uint64_t a, uint64_t b, uint32_t c, uint32_t d, unsigned bits)
{
	uint32_t pos = c & 0xff, len = d & 0xff;
	uint64_t mask = len < 64 ? (1ull << (len & 63)) - 1 : ~0ull;

	if (pos >= bits || !len)
		return b;
	mask <<= pos;
	return (b & ~mask) | (a << pos & mask);
}

enum prmt { PRMT_ANY, PRMT_F4E, PRMT_B4E, PRMT_RC8, PRMT_ECL, PRMT_ECR, PRMT_RC16 };

/* The modes, as selectors of the general form. */
INLINE uint32_t prmt_select(uint32_t c, int mode)
{
	uint32_t i = c & 3;
	static const uint16_t table[7][4] = {
		[PRMT_F4E] = { 0x3210, 0x4321, 0x5432, 0x6543 },
		[PRMT_B4E] = { 0x5670, 0x6701, 0x7012, 0x0123 },
		[PRMT_RC8] = { 0x0000, 0x1111, 0x2222, 0x3333 },
		[PRMT_ECL] = { 0x3210, 0x3211, 0x3222, 0x3333 },
		[PRMT_ECR] = { 0x0000, 0x1110, 0x2210, 0x3210 },
		[PRMT_RC16] = { 0x1010, 0x3232, 0x1010, 0x3232 },
	};

	return mode == PRMT_ANY ? c : table[mode][i];
}

INLINE uint32_t prmt(uint32_t a, uint32_t b, uint32_t sel)
{
	uint64_t both = (uint64_t)b << 32 | a;
	uint32_t r = 0;

	for (int i = 0; i < 4; i++) {
		uint32_t s = sel >> 4 * i & 15;
		uint32_t v = (uint32_t)(both >> 8 * (s & 7)) & 0xff;

		v = s & 8 ? (v & 0x80 ? 0xff : 0) : v;
		r |= v << 8 * i;
	}
	return r;
}

INLINE uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t lut)
{
	uint32_t r = 0;

	r |= lut & 0x01 ? ~a & ~b & ~c : 0;
	r |= lut & 0x02 ? ~a & ~b & c : 0;
	r |= lut & 0x04 ? ~a & b & ~c : 0;
	r |= lut & 0x08 ? ~a & b & c : 0;
	r |= lut & 0x10 ? a & ~b & ~c : 0;
	r |= lut & 0x20 ? a & ~b & c : 0;
	r |= lut & 0x40 ? a & b & ~c : 0;
	r |= lut & 0x80 ? a & b & c : 0;
	return r;
}

#endif
