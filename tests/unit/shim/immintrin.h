/* SPDX-License-Identifier: MIT */
/* immintrin.h - the AVX-512 intrinsics that core/fx_avx512.c uses, in C: its
 * logic is run on CPUs that have none of them (test_fx512.c). Each does what
 * Intel's description of it says, lane by lane. Only these; owns nothing; no
 * lock.
 */
#ifndef OFFLOAD_SHIM_IMMINTRIN_H
#define OFFLOAD_SHIM_IMMINTRIN_H

#include <stdint.h>
#include <string.h>

struct shim128 { uint64_t q[2]; };
union shim512 {
	uint8_t b[64];
	uint16_t w[32];
	uint64_t q[8];
};
#define __m128i struct shim128
#define __m512i union shim512

#define LANES(type, field, n, expr)				\
	({ union shim512 to_; (void)(type)0;			\
	   for (int i = 0; i < (n); i++)			\
		to_.field[i] = (type)(expr);			\
	   to_; })

static inline __m512i _mm512_loadu_si512(const void *p)
{
	__m512i v;

	memcpy(&v, p, 64);
	return v;
}

static inline void _mm512_storeu_si512(void *p, __m512i v)
{
	memcpy(p, &v, 64);
}

/* A fault where it is not aligned, as there. */
static inline void _mm512_stream_si512(void *p, __m512i v)
{
	if ((uintptr_t)p % 64)
		__builtin_trap();
	memcpy(p, &v, 64);
}

static inline __m128i _mm_loadu_si128(const __m128i *p)
{
	__m128i v;

	memcpy(&v, p, 16);
	return v;
}

static inline __m512i _mm512_setzero_si512(void)
{
	return LANES(uint64_t, q, 8, 0);
}

static inline __m512i _mm512_set1_epi8(char x)
{
	return LANES(uint8_t, b, 64, x);
}

static inline __m512i _mm512_set1_epi64(long long x)
{
	return LANES(uint64_t, q, 8, x);
}

#define _mm512_setr_epi64(...) ((__m512i){ .q = { __VA_ARGS__ } })

static inline __m512i _mm512_broadcast_i32x4(__m128i x)
{
	return LANES(uint64_t, q, 8, x.q[i % 2]);
}

/* ---- bits ------------------------------------------------------------------------- */

static inline __m512i _mm512_and_si512(__m512i x, __m512i y)
{
	return LANES(uint64_t, q, 8, x.q[i] & y.q[i]);
}

static inline __m512i _mm512_or_si512(__m512i x, __m512i y)
{
	return LANES(uint64_t, q, 8, x.q[i] | y.q[i]);
}

/* Bit 4a + 2b + c of imm, for each bit. */
static inline __m512i _mm512_ternarylogic_epi64(__m512i x, __m512i y, __m512i z, int imm)
{
	__m512i to = { .q = { 0 } };

	for (int i = 0; i < 512; i++) {
		uint64_t a = x.q[i / 64] >> i % 64 & 1, b = y.q[i / 64] >> i % 64 & 1;
		uint64_t c = z.q[i / 64] >> i % 64 & 1;

		to.q[i / 64] |= ((uint64_t)imm >> (4 * a + 2 * b + c) & 1) << i % 64;
	}
	return to;
}

static inline __m512i _mm512_srlv_epi64(__m512i x, __m512i n)
{
	return LANES(uint64_t, q, 8, n.q[i] < 64 ? x.q[i] >> n.q[i] : 0);
}

static inline __m512i _mm512_sllv_epi64(__m512i x, __m512i n)
{
	return LANES(uint64_t, q, 8, n.q[i] < 64 ? x.q[i] << n.q[i] : 0);
}

static inline __m512i _mm512_rorv_epi64(__m512i x, __m512i n)
{
	return LANES(uint64_t, q, 8, x.q[i] >> n.q[i] % 64 | x.q[i] << (64 - n.q[i] % 64) % 64);
}

static inline __m512i _mm512_srli_epi64(__m512i x, unsigned int n)
{
	return LANES(uint64_t, q, 8, x.q[i] >> n);
}

static inline __m512i _mm512_srli_epi16(__m512i x, unsigned int n)
{
	return LANES(uint16_t, w, 32, x.w[i] >> n);
}

/* The upper half of x:y shifted left; the lower half of y:x shifted right. */
static inline __m512i _mm512_shldi_epi16(__m512i x, __m512i y, int n)
{
	return LANES(uint16_t, w, 32, ((uint32_t)x.w[i] << 16 | y.w[i]) << n >> 16);
}

static inline __m512i _mm512_shrdi_epi16(__m512i x, __m512i y, int n)
{
	return LANES(uint16_t, w, 32, ((uint32_t)y.w[i] << 16 | x.w[i]) >> n);
}

static inline long long _mm512_mask_reduce_or_epi64(uint8_t m, __m512i x)
{
	uint64_t all = 0;

	for (int i = 0; i < 8; i++)
		all |= m >> i & 1 ? x.q[i] : 0;
	return (long long)all;
}

/* ---- bytes and words ------------------------------------------------------------------ */

static inline __m512i _mm512_sub_epi8(__m512i x, __m512i y)
{
	return LANES(uint8_t, b, 64, x.b[i] - y.b[i]);
}

static inline __m512i _mm512_min_epu8(__m512i x, __m512i y)
{
	return LANES(uint8_t, b, 64, x.b[i] < y.b[i] ? x.b[i] : y.b[i]);
}

static inline __m512i _mm512_permutexvar_epi8(__m512i at, __m512i x)
{
	return LANES(uint8_t, b, 64, x.b[at.b[i] & 63]);
}

static inline __m512i _mm512_permutex2var_epi8(__m512i x, __m512i at, __m512i y)
{
	return LANES(uint8_t, b, 64, (at.b[i] & 64 ? y : x).b[at.b[i] & 63]);
}

static inline __m512i _mm512_permutex2var_epi16(__m512i x, __m512i at, __m512i y)
{
	return LANES(uint16_t, w, 32, (at.w[i] & 32 ? y : x).w[at.w[i] & 31]);
}

#define MASK_OF(type, n, expr)					\
	({ type m_ = 0;						\
	   for (int i = 0; i < (n); i++)			\
		m_ |= (type)((type)((expr) != 0) << i);		\
	   m_; })

static inline uint64_t _mm512_cmpeq_epi8_mask(__m512i x, __m512i y)
{
	return MASK_OF(uint64_t, 64, x.b[i] == y.b[i]);
}

static inline uint64_t _mm512_test_epi8_mask(__m512i x, __m512i y)
{
	return MASK_OF(uint64_t, 64, x.b[i] & y.b[i]);
}

static inline uint64_t _mm512_testn_epi8_mask(__m512i x, __m512i y)
{
	return ~_mm512_test_epi8_mask(x, y);
}

static inline uint32_t _mm512_test_epi16_mask(__m512i x, __m512i y)
{
	return MASK_OF(uint32_t, 32, x.w[i] & y.w[i]);
}

static inline __m512i _mm512_mask_mov_epi8(__m512i other, uint64_t m, __m512i x)
{
	return LANES(uint8_t, b, 64, m >> i & 1 ? x.b[i] : other.b[i]);
}

static inline __m512i _mm512_maskz_mov_epi8(uint64_t m, __m512i x)
{
	return LANES(uint8_t, b, 64, m >> i & 1 ? x.b[i] : 0);
}

static inline __m512i _mm512_maskz_compress_epi8(uint64_t m, __m512i x)
{
	__m512i to = { .q = { 0 } };

	for (int i = 0, n = 0; i < 64; i++)
		if (m >> i & 1)
			to.b[n++] = x.b[i];
	return to;
}

static inline __m512i _mm512_maskz_compress_epi16(uint32_t m, __m512i x)
{
	__m512i to = { .q = { 0 } };

	for (int i = 0, n = 0; i < 32; i++)
		if (m >> i & 1)
			to.w[n++] = x.w[i];
	return to;
}

static inline __m512i _mm512_mask_expand_epi8(__m512i other, uint64_t m, __m512i x)
{
	for (int i = 0, n = 0; i < 64; i++)
		if (m >> i & 1)
			other.b[i] = x.b[n++];
	return other;
}

static inline __m512i _mm512_maskz_expand_epi16(uint32_t m, __m512i x)
{
	__m512i to = { .q = { 0 } };

	for (int i = 0, n = 0; i < 32; i++)
		if (m >> i & 1)
			to.w[i] = x.w[n++];
	return to;
}

#endif
