/* SPDX-License-Identifier: MIT */
/* fx_guess.c - what packing by fx.h would save, and by which window.
 *
 * Owns nothing. Integers only, so that every CPU judges alike (an image depends
 * on it).
 *
 * (1) A value costs its fixed bits, and 8 more where its exponent is outside
 *     the window. A piece of zeros costs nothing: it will be in a block of
 *     zeros. None costs more than it has: there are raw blocks.
 * (2) Any kind of data has one hypothesis that is cheapest: bf16 read as fp16
 *     saves an eighth just as surely as fp16 does, but as bf16 it saves more.
 * Lock: none.
 */
#include "core/fx.h"

#include <string.h>

#define LEAD_PIECES	8u

/* ---- windows ------------------------------------------------------------- */

/* How many there are of each byte value. Four tables, as neighbours are often
 * equal and would wait for each other. */
static void count(uint8_t *t, const uint8_t *exp, uint32_t n, uint32_t stride)
{
	uint8_t more[3][256] = { 0 };
	uint32_t i = 0;

	for (; i + 3 * stride < n; i += 4 * stride) {
		t[exp[i]]++;
		more[0][exp[i + stride]]++;
		more[1][exp[i + 2 * stride]]++;
		more[2][exp[i + 3 * stride]]++;
	}
	for (; i < n; i += stride)
		t[exp[i]]++;
	for (i = 0; i < 256; i++)
		t[i] = (uint8_t)(t[i] + more[0][i] + more[1][i] + more[2][i]);
}

/* The first that is largest, of those from which a window fits. */
static uint32_t largest(uint8_t *sum, uint32_t from, uint32_t to)
{
	uint8_t most = 0;

	memset(sum, 0, from);
	memset(sum + to + 1, 0, 255 - to);
	for (int i = 0; i < 256; i++)	/* of fixed length: in vectors */
		most = sum[i] > most ? sum[i] : most;
	return (uint32_t)((const uint8_t *)memchr(sum + from, most, 256 - from) - sum);
}

struct fx_window fx_window(enum fx_kind kind, const uint8_t *exp, uint32_t n,
			   uint32_t stride)
{
	uint8_t t[256 + 8] = { 0 }, six[256], seven[256];
	uint32_t at7, at6;

	count(t, exp, n, stride);
	for (int i = 0; i < 256; i++)
		six[i] = (uint8_t)(t[i] + t[i + 1] + t[i + 2] + t[i + 3] + t[i + 4] + t[i + 5]);
	for (int i = 0; i < 256; i++)
		seven[i] = (uint8_t)(six[i] + t[i + 6]);
	at7 = largest(seven, 0, fx_top_base(kind, FX_WINDOW));
	at6 = largest(six, 1, fx_top_base(kind, FX_ZERO7));
	if ((uint32_t)t[0] + six[at6] > seven[at7])
		return (struct fx_window){ (uint8_t)at6, FX_ZERO7,
					   (uint8_t)(t[0] + six[at6]) };
	return (struct fx_window){ (uint8_t)at7, FX_WINDOW, seven[at7] };
}

/* ---- costs --------------------------------------------------------------- */

static uint32_t half(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint8_t exponent(enum fx_kind kind, const uint8_t *p)
{
	if (kind == FX_FP16)
		return p[1] >> 2 & 31;
	return (uint8_t)(half(kind == FX_FP32 ? p + 2 : p) >> 7);
}

/* Bits that n values take whatever they are. */
static uint32_t fixed_bits(enum fx_kind kind, const uint8_t *p, uint32_t n)
{
	uint32_t low = 0;

	if (kind != FX_FP32)
		return n * (kind == FX_BF16 ? 11 : 14);
	for (uint32_t i = 0; i < n; i++)
		low |= half(p + 4 * i);
	return n * (low ? 27 : 11);
}

static uint32_t mask_bits(const uint8_t *p, uint32_t n)
{
	uint32_t bits = n;

	for (uint32_t i = 0; i < n; i++)
		bits += half(p + 2 * i) ? 16 : 0;
	return bits;
}

/* Of n values at p, at most FX_PIECE bytes of them. */
static uint32_t piece_bits(enum fx_kind kind, const uint8_t *p, uint32_t n)
{
	uint8_t exp[FX_PIECE / 2];
	struct fx_window w;

	if (!n || fx_is_zero(p, n * fx_value(kind)))
		return 0;
	if (kind == FX_ZMASK)
		return mask_bits(p, n);
	for (uint32_t i = 0; i < n; i++)
		exp[i] = exponent(kind, p + i * fx_value(kind));
	w = fx_window(kind, exp, n, 1);
	return fixed_bits(kind, p, n) + 8 * (n - w.inside);
}

static uint32_t cost_at(enum fx_kind kind, uint32_t lead, const uint8_t *sample, size_t n)
{
	uint64_t bits = 0, raw = 0;

	for (size_t at = 0; at + lead < n; at += FX_PIECE) {
		size_t piece = n - at < FX_PIECE ? n - at : FX_PIECE;
		uint32_t values = (uint32_t)(piece - lead) / fx_value(kind);
		uint32_t got = piece_bits(kind, sample + at + lead, values);
		uint32_t most = 8 * values * fx_value(kind);

		bits += got < most ? got : most;
		raw += most;
	}
	return raw ? (uint32_t)(1000 * bits / raw) : 1000;
}

/* So little that values must begin there: hardly an escape. Where they, or
 * their halves, are often zero any place looks good: all are tried. */
static bool surely(enum fx_kind kind, uint32_t cost)
{
	static const uint16_t most[FX_KINDS] = {
		[FX_BF16] = 1080 * 11 / 16, [FX_FP16] = 1080 * 14 / 16,
	};

	return cost <= most[kind] && cost >= most[kind] * 9 / 10;
}

/* The cheapest place for values to begin, and what they cost from there. */
static uint32_t best_lead(enum fx_kind kind, const uint8_t *sample, size_t n,
			  uint32_t *cost)
{
	uint32_t best = 0;

	*cost = cost_at(kind, 0, sample, n);
	if (surely(kind, *cost))
		return 0;
	for (uint32_t lead = 1; lead < fx_value(kind); lead++) {
		uint32_t c = cost_at(kind, lead, sample, n);

		if (c < *cost) {
			*cost = c;
			best = lead;
		}
	}
	return best;
}

uint32_t fx_cost(enum fx_kind kind, const uint8_t *sample, size_t n)
{
	uint32_t cost;

	best_lead(kind, sample, n, &cost);
	return cost;
}

/* ---- samples ------------------------------------------------------------- */

/* xorshift64*: any seed but 0 will do. */
static uint64_t next_random(uint64_t *x)
{
	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return *x * 0x2545f4914f6cdd1dull;
}

size_t fx_sample(uint8_t *to, uint32_t pieces, const uint8_t *chunk, size_t len,
		 uint64_t seed)
{
	size_t part = len / pieces & ~63ul;

	if (len <= pieces * FX_PIECE) {
		memcpy(to, chunk, len);
		return len;
	}
	seed |= 1;
	for (uint32_t i = 0; i < pieces; i++) {
		size_t at = next_random(&seed) % (part - FX_PIECE + 1) & ~63ul;
		uint32_t place = i % 2 * (pieces / 2) + i / 2;

		memcpy(to + place * FX_PIECE, chunk + i * part + at, FX_PIECE);
	}
	return pieces * FX_PIECE;
}

uint32_t fx_lead(enum fx_kind kind, const uint8_t *src, size_t len)
{
	uint8_t sample[LEAD_PIECES * FX_PIECE];
	size_t n = fx_sample(sample, LEAD_PIECES, src, len, len);
	uint32_t cost, lead = best_lead(kind, sample, n, &cost);

	return lead < len ? lead : 0;
}
