/* SPDX-License-Identifier: MIT */
/* mkmodel_items.h - the numbers of a synthetic model and how each type of
 * GGUF stores them. Part of mkmodel.c, which alone includes it.
 *
 * Owns the table of quantiles and the table of types.
 *
 *  1. A number is a function of a key and its place in the row: no state, so
 *     any thread may make any row.
 *  2. Nothing depends on the order of floating point operations a compiler
 *     may change, so the same seed gives the same file on one architecture.
 * Lock: none; the quantiles are written once, before any thread runs.
 */
#ifndef OFFLOAD_MKMODEL_ITEMS_H
#define OFFLOAD_MKMODEL_ITEMS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct kind {
	const char *name;
	uint32_t ggml, file_type;	/* ids of the format */
	uint32_t items, bytes;		/* per block of the type */
	void (*store)(void *dst, const float *src, size_t n);
	uint32_t exp_shift, exp_mask;	/* of the stored item; mask 0: none */
};

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

#endif
