/* SPDX-License-Identifier: MIT */
/* random_model.c - operations done to the model of the memory.
 *
 * Owns nothing: the bytes are the buffers'. Lock: none, the planner's.
 */
#include "tests/engine/random.h"

#include <stdlib.h>
#include <string.h>

uint8_t first_byte(uint32_t a, size_t i)
{
	if (!(a & 1))
		return (uint8_t)(a >> 1);
	return (uint8_t)(scramble(a + (uint32_t)(i / 4)) >> 8 * (i % 4));
}

static uint8_t *at(struct world *w, const struct side *e)
{
	return w->buf[e->buf].model + e->off;
}

static uint32_t word(const uint8_t *p, size_t i)
{
	uint32_t v;

	memcpy(&v, p + 4 * i, 4);
	return v;
}

static void put(uint8_t *p, size_t i, uint32_t v)
{
	memcpy(p + 4 * i, &v, 4);
}

static void kernel(struct world *w, const struct op *o)
{
	uint8_t *d = at(w, &o->d);
	const uint8_t *s0 = at(w, &o->s), *s1 = at(w, &o->s1);
	size_t n = o->w / 4;

	for (size_t i = 0; i < n; i++) {
		size_t first = i / RBLOCK * RBLOCK;
		size_t here = n - first < RBLOCK ? n - first : RBLOCK;

		switch (o->body) {
		case BODY_FILL:
			put(d, i, scramble(o->a + (uint32_t)i));
			break;
		case BODY_MULADD:
			put(d, i, word(d, i) * o->a + word(s0, i));
			break;
		case BODY_MIX:
			put(d, i, word(s0, i) ^ (word(s1, n - 1 - i) + o->a));
			break;
		case BODY_TURN:
			put(d, i, word(s0, first + here - 1 - (i - first)) + o->a);
			break;
		default:
			put(d, word(s0, i) % RBLOCK,
			    word(d, word(s0, i) % RBLOCK) + o->a);
		}
	}
}

static void copy_box(struct world *w, const struct op *o)
{
	for (size_t z = 0; z < o->depth; z++)
		for (size_t y = 0; y < o->h; y++)
			memcpy(at(w, &o->d) + (z * o->d.height + y) * o->d.pitch,
			       at(w, &o->s) + (z * o->s.height + y) * o->s.pitch, o->w);
}

static void set_row(uint8_t *p, size_t n, uint32_t a, int elem)
{
	for (size_t i = 0; i < n; i += (size_t)elem)
		memcpy(p + i, &a, (size_t)elem);
}

static void alloc(struct world *w, const struct op *o)
{
	struct buf *b = &w->buf[o->d.buf];

	for (size_t i = 0; i < b->bytes; i++)
		b->model[i] = first_byte(o->a, i);
}

static void again(struct world *w, const struct op *o)
{
	for (int n = 0; n < o->launches; n++)
		for (int i = 0; i < o->n_sub; i++)
			model_do(w, &o->sub[i]);
}

void model_do(struct world *w, const struct op *o)
{
	switch (o->kind) {
	case OP_ALLOC:
		alloc(w, o);
		break;
	case OP_FREE:
		free(w->buf[o->d.buf].model);
		w->buf[o->d.buf].model = NULL;
		break;
	case OP_COPY:
		memcpy(at(w, &o->d), at(w, &o->s), o->w);
		break;
	case OP_COPY2D: case OP_COPY3D:
		copy_box(w, o);
		break;
	case OP_SET:
		set_row(at(w, &o->d), o->w, o->a, o->elem);
		break;
	case OP_SET2D:
		for (size_t y = 0; y < o->h; y++)
			set_row(at(w, &o->d) + y * o->d.pitch, o->w, o->a, o->elem);
		break;
	case OP_KERNEL:
		kernel(w, o);
		break;
	case OP_HOSTFN: case OP_TOUCH:
		for (size_t i = 0; i < o->w; i++)
			at(w, &o->d)[i] = (uint8_t)(at(w, &o->d)[i] * 5 + o->a);
		break;
	case OP_GRAPH: case OP_RELAUNCH:
		again(w, o);
		break;
	default:
		break;
	}
}
