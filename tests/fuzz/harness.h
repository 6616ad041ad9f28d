/* SPDX-License-Identifier: MIT */
/* harness.h - what the fuzzers do with an input: each decoder, held against the
 * others.
 *
 * Owns nothing. (1) An input is read from, and a result written to, memory of
 * just its length: sanitizers see every step over the edge. (2) All instruction
 * sets this CPU has agree, or the program ends. (3) Short inputs suffice: a body
 * takes thousands of bytes, so what an input does not say is said again.
 * Lock: none.
 *
 * An input of an FX kind: 4 bytes, how many there are to unpack and, in the
 * highest bit, whether what follows is an image as it is, or a recipe for one
 * that begins to make sense; with the next bit it is so long that it goes past
 * the caches, most of its blocks zeros.
 */
#ifndef OFFLOAD_FUZZ_HARNESS_H
#define OFFLOAD_FUZZ_HARNESS_H

#include "core/codec.h"
#include "core/core_int.h"
#include "core/fx.h"
#include "core/quant.h"

#include <stdlib.h>

#define FUZZ_LEN_MAX	20000u
#define FUZZ_RECIPE	(1u << 31)
#define FUZZ_LONG	(1u << 30)
#define FUZZ_COOKED	8	/* blocks of a recipe that are not zeros for sure */

struct recipe {
	const uint8_t *p;
	size_t n, at;
};

/* The next byte, round and round. */
static inline uint8_t said(struct recipe *r)
{
	return r->n ? r->p[r->at++ % r->n] : 0;
}

static inline uint32_t said_many(struct recipe *r, int bytes)
{
	uint32_t v = 0;

	while (bytes--)
		v = v << 8 | said(r);
	return v;
}

/* Escapes a body asks for. */
static inline uint32_t asked_for(enum fx_kind kind, const uint8_t *body)
{
	uint32_t n = 0, bits = kind == FX_ZMASK ? FX_MASK : 0;

	for (uint32_t i = 0; i < bits; i++)
		n += 2 * (uint32_t)__builtin_popcount(body[i]);
	for (uint32_t g = 0; !bits && g < FX_CODES; g += 24)
		for (uint32_t i = 0; i < FX_GROUP; i++)
			n += (body[g + i % 16] >> i / 16 * 2 & 3) == 3 &&
			     (body[g + 16 + i % 8] >> i / 8 & 1);
	return n;
}

static inline uint8_t some_mode(enum fx_kind kind, uint8_t how)
{
	static const uint8_t modes[FX_KINDS][6] = {
		{ 0, 1, 0, 1, FX_NOTHING, FX_RAW },
		{ 0, 1, 0, 1, FX_NOTHING, FX_RAW },
		{ 0, 1, FX_NO_LOW, FX_NO_LOW | 1, FX_NOTHING, FX_RAW },
		{ 0, 0, 0, 0, FX_NOTHING, FX_RAW },
	};

	return modes[kind][how % 6];
}

/* One entry and its body, most often as they should be. */
static inline void cook_block(struct recipe *r, enum fx_kind kind, struct fx_entry *e,
			      uint8_t *body, uint32_t *bytes, uint32_t *escapes)
{
	uint8_t how = said(r);

	e->mode = some_mode(kind, how);
	if (e->mode != FX_NOTHING && e->mode != FX_RAW && kind != FX_ZMASK)
		e->base = (uint8_t)(1 + said(r) % fx_top_base(kind, e->mode));
	*bytes = fx_body(kind, e->mode);
	for (uint32_t i = 0; i < *bytes; i++)
		body[i] = how & 8 ? said(r) : said(r) & said(r) & said(r);
	*escapes = *bytes && e->mode != FX_RAW ? asked_for(kind, body) : 0;
	if (how >= 0xf0)
		*escapes += said(r) - 128u;
	else if (how >= 0xe0)
		e->mode = said(r);
	else if (how >= 0xd0)
		e->base = said(r);
}

/* What the first word says of it. */
static inline size_t fuzz_len(uint32_t word)
{
	return 1 + (word & ~(FUZZ_RECIPE | FUZZ_LONG)) % FUZZ_LEN_MAX +
	       (word & FUZZ_LONG ? FX_STREAM : 0);
}

/* An image for len bytes; its length. */
static inline size_t cook(struct recipe *r, enum fx_kind kind, size_t len, uint8_t **image)
{
	uint32_t lead = said(r) % (fx_value(kind) + 1);
	struct fx_shape s = fx_shape(kind, lead < len ? lead : 0, len);
	size_t most = fx_bound(len) + s.blocks * (FX_BLOCK * 2 + 256) + len;
	struct fx_head h = { .kind = (uint8_t)kind, .lead = (uint8_t)s.lead, .blocks = s.blocks };
	uint8_t *p = calloc(1, most);
	uint32_t at = 0, n;

	for (uint32_t i = 0; i < s.blocks; i++) {
		struct fx_entry e = { .escape = h.escapes, .body = (uint16_t)(at / 64) };
		uint32_t bytes = 0, escapes = 0;

		if (i < FUZZ_COOKED)
			cook_block(r, kind, &e, p + s.bodies + at, &bytes, &escapes);
		else
			e.mode = FX_NOTHING;
		memcpy(p + sizeof(h) + i * sizeof(e), &e, sizeof(e));
		at += bytes;
		h.escapes += escapes < 2 * FX_BLOCK + 200 ? escapes : 0;
	}
	h.bodies = at / 64;
	memcpy(p, &h, sizeof(h));
	n = s.bodies + at;
	for (uint32_t i = 0; i < h.escapes + s.lead + s.tail; i++)
		p[n++] = said(r);
	n += FX_SLACK;
	*image = realloc(p, n);
	return n;
}

/* As frames are aligned, and no longer than it must be. */
static inline void *fuzz_room(size_t len)
{
	void *p = NULL;

	if (posix_memalign(&p, 64, len))
		abort();
	return p;
}

/* 1: it is an image, and all read the same. 0: all refuse it. */
static inline int fuzz_image_of(enum fx_kind kind, const uint8_t *image, size_t n, size_t len)
{
	uint8_t *first = fuzz_room(len), *other = fuzz_room(len);
	int err = fx_unpack(fx_level(OPT_SIMD_PORTABLE), kind, first, len, image, n);

	for (uint64_t simd = OPT_SIMD_AVX2; simd <= OPT_SIMD_AVX512; simd++) {
		if (!fx_level(simd))
			continue;
		if (fx_unpack(fx_level(simd), kind, other, len, image, n) != err ||
		    (!err && memcmp(first, other, len)))
			abort();
	}
	free(first);
	free(other);
	return !err;
}

static inline int fuzz_fx(enum fx_kind kind, const uint8_t *data, size_t n)
{
	struct recipe r = { data, n, 0 };
	uint32_t word = said_many(&r, 4);
	size_t len = fuzz_len(word), bytes;
	uint8_t *image;
	int good;

	if (n < 4)
		return 0;
	if (word & FUZZ_RECIPE) {
		bytes = cook(&r, kind, len, &image);
	} else {
		bytes = n - 4;
		image = malloc(bytes + !bytes);
		memcpy(image, data + 4, bytes);
	}
	good = fuzz_image_of(kind, image, bytes, len);
	free(image);
	return good;
}

/* A quant image for len bytes that begins to make sense; its length. */
static inline size_t cook_quant(struct recipe *r, size_t len, uint8_t **image)
{
	struct quant_head h = { .bits = said(r) & 1 ? 8 : 4 };
	struct quant_piece piece[QUANT_PIECES] = { { 0 } };
	size_t n, left = len;
	uint8_t how = said(r);

	while (left && h.pieces < QUANT_PIECES) {
		struct quant_piece *q = &piece[h.pieces++];
		size_t want = said_many(r, 2) * (size_t)2 + 4;

		q->kind = said(r) % QUANT_KINDS;
		q->len = (uint32_t)(want < left ? want & ~3ul : left);
		if (q->len % quant_size((enum quant_kind)q->kind) || h.pieces == QUANT_PIECES) {
			q->kind = QUANT_RAW;
			q->len = (uint32_t)left;
		}
		left -= q->len;
	}
	n = sizeof(h) + h.pieces * sizeof(*piece);
	for (int i = 0; i < h.pieces; i++) {
		uint32_t size = quant_size((enum quant_kind)piece[i].kind);
		size_t blocks = (piece[i].len / size + QUANT_BLOCK - 1) / QUANT_BLOCK;

		n += piece[i].kind == QUANT_RAW ? piece[i].len :
			blocks * (2 + QUANT_BLOCK * h.bits / 8);
	}
	if (how >= 0xf0)
		n += said(r) >= 128 ? said(r) & 7 : 0;
	else if (how >= 0xe0)
		piece[said(r) % QUANT_PIECES].len += said(r);
	else if (how >= 0xd0)
		h.bits = said(r);
	*image = malloc(n);
	for (size_t i = 0; i < n; i++)
		(*image)[i] = said(r);
	memcpy(*image, &h, sizeof(h));
	memcpy(*image + sizeof(h), piece, h.pieces * sizeof(*piece));
	return n;
}

/* As fuzz_fx, of rounded floats. */
static inline int fuzz_quant(const uint8_t *data, size_t n)
{
	struct recipe r = { data, n, 0 };
	uint32_t word = said_many(&r, 4);
	size_t len = fuzz_len(word & ~FUZZ_LONG), bytes;
	uint8_t *image, *one = malloc(len), *other = malloc(len);
	uint64_t simd = off_opt.simd;
	int err;

	if (word & FUZZ_RECIPE) {
		bytes = cook_quant(&r, len, &image);
	} else {
		bytes = n > 4 ? n - 4 : 0;
		image = malloc(bytes + !bytes);
		memcpy(image, data + (bytes ? 4 : 0), bytes);
	}
	off_opt.simd = OPT_SIMD_PORTABLE;
	err = quant_unpack(one, len, image, bytes);
	off_opt.simd = OPT_SIMD_AUTO;
	if (quant_unpack(other, len, image, bytes) != err || (!err && memcmp(one, other, len)))
		abort();
	off_opt.simd = simd;
	free(image);
	free(one);
	free(other);
	return !err;
}

/* 4 bytes, how many there are to unpack, and an image: by codec_image_unpack.
 * With the highest bit the head's lengths and hash are made to agree. */
static inline int fuzz_head(const uint8_t *data, size_t n)
{
	static struct codec_work *work;
	struct recipe r = { data, n, 0 };
	uint32_t word = said_many(&r, 4);
	size_t len = fuzz_len(word);
	uint8_t *image, *out;
	int good;

	if (!work)
		work = codec_work_new();
	if (n < 4 || !work)
		return 0;
	n -= 4;
	image = malloc(n + !n);
	out = malloc(len);
	memcpy(image, data + 4, n);
	if (word & FUZZ_RECIPE && n >= sizeof(struct codec_head)) {
		struct codec_head h;

		memcpy(&h, image, sizeof(h));
		h.raw_len = (uint32_t)len;
		h.packed_len = (uint32_t)(n - sizeof(h));
		h.hash = codec_image_sum(h, image + sizeof(h));
		memcpy(image, &h, sizeof(h));
	}
	good = !codec_image_unpack(work, out, len, image, n);
	free(image);
	free(out);
	return good;
}

#endif
