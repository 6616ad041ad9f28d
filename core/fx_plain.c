/* SPDX-License-Identifier: MIT */
/* fx_plain.c - blocks of fx.h in plain C, for any CPU.
 *
 * Owns nothing. It is what the others are compared with: clear first, and quick
 * where 8 bytes can be done in one word.
 * Lock: none.
 */
#include "core/fx.h"

#include <string.h>

#define EACH(x)	((uint64_t)(x) * 0x0101010101010101ull)	/* in each byte */
#define WORDS	(FX_GROUP / 8)

static uint64_t word(const uint8_t *p)
{
	uint64_t w;

	memcpy(&w, p, 8);
	return w;
}

/* ---- codes --------------------------------------------------------------- */

/* 64 codes of 3 bits, a byte each, to 24 bytes. */
static void put_codes(const uint8_t *code, uint8_t *to)
{
	uint64_t two[2] = { 0 }, third = 0;

	for (int i = 0; i < (int)WORDS; i++) {
		uint64_t c = word(code + 8 * i);

		two[i % 2] |= (c & EACH(3)) << i / 2 * 2;
		third |= (c >> 2 & EACH(1)) << i;
	}
	memcpy(to, two, 16);
	memcpy(to + 16, &third, 8);
}

/* The i-th 8 of 64 codes. */
static uint64_t codes_at(const uint8_t *from, int i)
{
	return (word(from + 8 * (i % 2)) >> i / 2 * 2 & EACH(3)) |
	       (word(from + 16) >> i & EACH(1)) << 2;
}

static uint8_t code_of(uint8_t exp, struct fx_window w)
{
	uint8_t c = (uint8_t)(exp - w.base);

	if (w.mode == FX_WINDOW)
		return c < FX_ESCAPE ? c : FX_ESCAPE;
	if (!exp)
		return 0;
	return c < FX_ESCAPE - 1 ? c + 1 : FX_ESCAPE;
}

static uint32_t code(const uint8_t *exp, struct fx_window w, uint8_t *codes,
		     uint8_t *escape)
{
	uint32_t n = 0;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, codes += 24) {
		uint8_t c[FX_GROUP];

		for (uint32_t i = 0; i < FX_GROUP; i++) {
			c[i] = code_of(exp[g + i], w);
			escape[n] = exp[g + i];
			n += c[i] == FX_ESCAPE;
		}
		put_codes(c, codes);
	}
	return n;
}

/* ---- splitting ----------------------------------------------------------- */

/* Rest and exponent of 64 values. */
static void rotate_apart(const uint16_t *x, uint8_t *rest, uint8_t *exp)
{
	for (uint32_t i = 0; i < FX_GROUP; i++) {
		rest[i] = (uint8_t)(x[i] << 1 | x[i] >> 15);
		exp[i] = (uint8_t)(x[i] >> 7);
	}
}

static uint32_t split_bf16(const uint8_t *src, uint8_t *body, uint8_t *exp)
{
	uint16_t x[FX_GROUP];

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP) {
		memcpy(x, src + 2 * g, sizeof(x));
		rotate_apart(x, body + FX_RESTS + g, exp + g);
	}
	return 1;
}

static uint32_t split_fp16(const uint8_t *src, uint8_t *body, uint8_t *exp)
{
	uint8_t *tops = body + FX_MORE;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, tops += 24) {
		uint8_t top[FX_GROUP];

		for (uint32_t i = 0; i < FX_GROUP; i++) {
			uint8_t high = src[2 * (g + i) + 1];

			body[FX_RESTS + g + i] = src[2 * (g + i)];
			top[i] = (high & 3) | (high >> 5 & 4);
			exp[g + i] = high >> 2 & 31;
		}
		put_codes(top, tops);
	}
	return 1;
}

static uint32_t split_fp32(const uint8_t *src, uint8_t *body, uint8_t *exp)
{
	uint8_t *lows = body + FX_MORE;
	uint32_t any = 0;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP) {
		uint32_t x[FX_GROUP];
		uint16_t high[FX_GROUP], low[FX_GROUP];

		memcpy(x, src + 4 * g, sizeof(x));
		for (uint32_t i = 0; i < FX_GROUP; i++) {
			high[i] = (uint16_t)(x[i] >> 16);
			low[i] = (uint16_t)x[i];
			any |= low[i];
		}
		memcpy(lows + 2 * g, low, sizeof(low));
		rotate_apart(high, body + FX_RESTS + g, exp + g);
	}
	return any;
}

static uint32_t mask(const uint8_t *src, uint8_t *body, uint8_t *escape)
{
	uint8_t *to = escape;

	for (uint32_t i = 0; i < FX_BLOCK; i += 8) {
		uint8_t bits = 0;

		for (uint32_t k = 0; k < 8; k++, src += 2) {
			bool some = src[0] | src[1];

			bits |= (uint8_t)(some << k);
			memcpy(to, src, 2);
			to += some ? 2 : 0;
		}
		*body++ = bits;
	}
	return (uint32_t)(to - escape);
}

/* ---- joining ------------------------------------------------------------- */

struct reader {
	const uint8_t *escape, *end;
};

/* Exponents of 8 codes, as the dictionary has them; 255 where escaped. */
static uint64_t looked_up(uint64_t code, const struct fx_coded *c, int shift)
{
	uint64_t some = (code | code >> 1 | code >> 2) & EACH(1);
	uint64_t escaped = (code & code >> 1 & code >> 2) & EACH(1);
	uint64_t exp = (code + EACH(c->base - c->zero7)) << shift;

	if (c->zero7)
		exp &= some * 255;
	return exp | escaped * 255;
}

/* False: no escape is left. */
static bool put_escapes(uint8_t *exp, struct reader *r)
{
	for (int i = 0; i < 8; i++) {
		if (exp[i] != 255)
			continue;
		if (r->escape == r->end)
			return false;
		exp[i] = *r->escape++;
	}
	return true;
}

static bool exponents(const uint8_t *codes, const struct fx_coded *c, int shift,
		      struct reader *r, uint8_t *exp)
{
	for (int i = 0; i < (int)WORDS; i++) {
		uint64_t code = codes_at(codes, i);
		uint64_t e = looked_up(code, c, shift);

		memcpy(exp + 8 * i, &e, 8);
		if ((code & code >> 1 & code >> 2 & EACH(1)) && !put_escapes(exp + 8 * i, r))
			return false;
	}
	return true;
}

static void rotate_together(const uint8_t *rest, const uint8_t *exp, uint16_t *x)
{
	for (uint32_t i = 0; i < FX_GROUP; i++)
		x[i] = (uint16_t)(exp[i] << 7 | rest[i] >> 1 | rest[i] << 15);
}

static bool unpack_bf16(uint8_t *dst, const struct fx_coded *c)
{
	struct reader r = { c->escape, c->escape + c->escapes };
	const uint8_t *codes = c->body;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, codes += 24) {
		uint8_t exp[FX_GROUP];
		uint16_t x[FX_GROUP];

		if (!exponents(codes, c, 0, &r, exp))
			return false;
		rotate_together(c->body + FX_RESTS + g, exp, x);
		memcpy(dst + 2 * g, x, sizeof(x));
	}
	return r.escape == r.end;
}

static bool unpack_fp16(uint8_t *dst, const struct fx_coded *c)
{
	struct reader r = { c->escape, c->escape + c->escapes };
	const uint8_t *codes = c->body, *tops = c->body + FX_MORE;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, codes += 24, tops += 24) {
		uint8_t exp[FX_GROUP], top[FX_GROUP];

		if (!exponents(codes, c, 2, &r, exp))
			return false;
		for (int i = 0; i < (int)WORDS; i++) {
			uint64_t t = codes_at(tops, i);

			memcpy(top + 8 * i, &t, 8);
		}
		for (uint32_t i = 0; i < FX_GROUP; i++) {
			dst[2 * (g + i)] = c->body[FX_RESTS + g + i];
			dst[2 * (g + i) + 1] = (uint8_t)(exp[i] | (top[i] & 3) |
							 (top[i] & 4) << 5);
		}
	}
	return r.escape == r.end;
}

static bool unpack_fp32(uint8_t *dst, const struct fx_coded *c)
{
	struct reader r = { c->escape, c->escape + c->escapes };
	const uint8_t *codes = c->body, *lows = c->body + FX_MORE;

	for (uint32_t g = 0; g < FX_BLOCK; g += FX_GROUP, codes += 24) {
		uint8_t exp[FX_GROUP];
		uint16_t high[FX_GROUP], low[FX_GROUP] = { 0 };
		uint32_t x[FX_GROUP];

		if (!exponents(codes, c, 0, &r, exp))
			return false;
		if (c->low)
			memcpy(low, lows + 2 * g, sizeof(low));
		rotate_together(c->body + FX_RESTS + g, exp, high);
		for (uint32_t i = 0; i < FX_GROUP; i++)
			x[i] = (uint32_t)high[i] << 16 | low[i];
		memcpy(dst + 4 * g, x, sizeof(x));
	}
	return r.escape == r.end;
}

static bool unpack_zmask(uint8_t *dst, const struct fx_coded *c)
{
	const uint8_t *from = c->escape, *end = from + c->escapes;

	for (uint32_t i = 0; i < FX_MASK; i++) {
		uint32_t bits = c->body[i];

		if (2 * __builtin_popcount(bits) > end - from)
			return false;
		for (uint32_t k = 0; k < 8; k++, dst += 2, bits >>= 1) {
			uint16_t some = (uint16_t)-(bits & 1), x;

			memcpy(&x, from, 2);	/* the slack, at the end */
			x &= some;
			memcpy(dst, &x, 2);
			from += some & 2;
		}
	}
	return from == end;
}

const struct fx_ops fx_plain = {
	.name = "portable",
	.split = { split_bf16, split_fp16, split_fp32, NULL },
	.code = code,
	.mask = mask,
	.unpack = { unpack_bf16, unpack_fp16, unpack_fp32, unpack_zmask },
};
