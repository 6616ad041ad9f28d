/* SPDX-License-Identifier: MIT */
/* fx_pack.c - writes images of fx.h.
 *
 * Owns nothing but what the caller lends it.
 *
 * (1) Bodies go to their place, escapes to working memory: how long the bodies
 *     are is known at the end only. A body that may not fit is made aside.
 * (2) What is decided (where values begin, windows, what stays raw) is decided
 *     here and in fx_guess.c, never by an instruction set's code.
 * (3) A block that would save less than a sixteenth stays as it is: copying it
 *     is faster.
 * Lock: none.
 */
#include "core/fx.h"
#include "core/core_int.h"

/* Odd, so that it does not fall into step with rows; few enough for counters. */
#define STRIDE		17u
_Static_assert((FX_BLOCK + STRIDE - 1) / STRIDE <= FX_LOOKED_MAX, "counters");
#define BODY_MAX	(4 * FX_BLOCK)	/* a raw one of fp32 */
#define ESCAPES_MAX	(2 * FX_BLOCK + FX_SLACK)	/* a block's, and what is written after */

struct fx_scratch {
	uint8_t exp[FX_BLOCK] __attribute__((aligned(64)));
	uint8_t body[BODY_MAX];
	uint8_t escape[FX_LEN_MAX + ESCAPES_MAX];
};

struct packing {
	const struct fx_ops *ops;
	struct fx_scratch *s;
	enum fx_kind kind;
	uint8_t *bodies;
	size_t room;		/* bytes there, for bodies and escapes */
	uint32_t at, escapes;	/* bytes so far */
};

size_t fx_scratch_size(void)
{
	return (sizeof(struct fx_scratch) + 63) & ~63ul;
}

/* (3) */
static uint32_t worth(enum fx_kind kind)
{
	uint32_t raw = fx_body(kind, FX_RAW);

	return raw - raw / 16;
}

/* Makes a body, and its entry. */
static struct fx_entry coded(struct packing *p, const uint8_t *src, uint8_t *body,
			     uint32_t *escapes)
{
	uint8_t *escape = p->s->escape + p->escapes;
	struct fx_entry e = { .escape = p->escapes, .body = (uint16_t)(p->at / 64) };
	struct fx_window w;

	if (p->kind == FX_ZMASK) {
		*escapes = p->ops->mask(src, body, escape);
		return e;
	}
	if (!p->ops->split[p->kind](src, body, p->s->exp))
		e.mode = FX_NO_LOW;
	w = fx_window(p->kind, p->s->exp, FX_BLOCK, STRIDE);
	*escapes = p->ops->code(p->s->exp, w, body, escape);
	for (uint32_t i = 0; p->kind == FX_FP16 && i < *escapes; i++)
		escape[i] = (uint8_t)(escape[i] << 2);
	e.base = w.base;
	e.mode |= w.mode;
	return e;
}

static struct fx_entry raw(struct packing *p, const uint8_t *src, uint8_t *body)
{
	memcpy(body, src, fx_body(p->kind, FX_RAW));
	return (struct fx_entry){ p->escapes, (uint16_t)(p->at / 64), 0, FX_RAW };
}

/* The entry of a block that was put where it belongs, or -E2BIG. */
static int pack_block(struct packing *p, const uint8_t *src, struct fx_entry *e)
{
	size_t room = p->room - p->at - p->escapes;
	uint8_t *to = p->bodies + p->at, *body = room < BODY_MAX ? p->s->body : to;
	uint32_t escapes = 0, bytes;

	if (fx_is_zero(src, fx_body(p->kind, FX_RAW))) {
		*e = (struct fx_entry){ p->escapes, (uint16_t)(p->at / 64), 0, FX_NOTHING };
		return 0;
	}
	*e = coded(p, src, body, &escapes);
	if (fx_body(p->kind, e->mode) + escapes > worth(p->kind)) {
		*e = raw(p, src, body);
		escapes = 0;
	}
	bytes = fx_body(p->kind, e->mode);
	if (bytes + escapes > room)
		return -E2BIG;
	if (body != to)
		memcpy(to, body, bytes);
	p->at += bytes;
	p->escapes += escapes;
	return 0;
}

/* Escapes, and what belongs to no block. */
static uint8_t *finish(struct packing *p, const struct fx_shape *shape,
		       const uint8_t *src, size_t len)
{
	uint8_t *to = p->bodies + p->at;

	memcpy(to, p->s->escape, p->escapes);
	to += p->escapes;
	memcpy(to, src, shape->lead);
	to += shape->lead;
	memcpy(to, src + len - shape->tail, shape->tail);
	memset(to + shape->tail, 0, FX_SLACK);
	return to + shape->tail + FX_SLACK;
}

ssize_t fx_pack(const struct fx_ops *ops, struct fx_scratch *s, enum fx_kind kind,
		void *dst, size_t cap, const void *src, size_t len)
{
	uint32_t lead = fx_lead(kind, src, len);
	struct fx_shape shape = fx_shape(kind, lead, len);
	uint32_t fixed = shape.bodies + shape.lead + shape.tail + FX_SLACK;
	struct packing p = { ops, s, kind, (uint8_t *)dst + shape.bodies, 0, 0, 0 };
	const uint8_t *from = (const uint8_t *)src + lead;
	struct fx_head h = { .kind = (uint8_t)kind, .lead = (uint8_t)lead,
			     .blocks = shape.blocks };
	uint8_t *to = (uint8_t *)dst + sizeof(h), *end;

	if (fixed > cap)
		return -E2BIG;
	p.room = cap - fixed;
	for (uint32_t i = 0; i < shape.blocks; i++, from += shape.block) {
		struct fx_entry e;

		if (pack_block(&p, from, &e))
			return -E2BIG;
		memcpy(to, &e, sizeof(e));
		to += sizeof(e);
	}
	memset(to, 0, (size_t)(p.bodies - to));
	h.bodies = p.at / 64;
	h.escapes = p.escapes;
	memcpy(dst, &h, sizeof(h));
	end = finish(&p, &shape, src, len);
	return end - (uint8_t *)dst;
}
