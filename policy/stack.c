/* SPDX-License-Identifier: MIT */
/* stack.c - experts: chunks that are needed together.
 *
 * A mixture layer keeps its experts in a few tensors (gate, up, down), one
 * slab per expert in each, or one small tensor per expert. A demand on one
 * chunk of a slab says that the whole slab is wanted, and the slabs of the
 * same expert in the layer's other tensors.
 *
 * (X1) Siblings are spans of one pol_add with the same layer; they are
 *      found through a hash of (add, layer).
 * (X2) A wish is dropped when all its chunks have a frame or are coming, and
 *      when it has had half of the frames it may use: it must not evict
 *      what it fetched.
 * Lock: none, the caller serialises.
 */
#include "policy/policy_int.h"

static uint32_t bucket_of(uint32_t serial, uint32_t layer)
{
	return (serial * 2654435761u ^ layer * 40503u) % POL_BUCKETS;
}

uint32_t pol_stack_add(struct pol *p, const struct pol_span *s,
		       uint32_t first, uint32_t n, uint32_t chunk_bytes,
		       uint64_t file_off)
{
	uint32_t most = p->conf.max_chunks, b = bucket_of(p->serial, s->layer);
	struct pol_stack *t;

	if (most > POL_STACKS_MAX)
		most = POL_STACKS_MAX;
	if (p->n_stacks == most || !s->slab)
		return 0;
	t = &p->stacks[p->n_stacks++];
	*t = (struct pol_stack){
		.off = s->off, .len = s->len, .slab = s->slab,
		.base = file_off, .first = first, .n = n,
		.chunk_bytes = chunk_bytes, .serial = p->serial,
		.layer = s->layer, .expert = s->expert, .next = p->bucket[b],
	};
	p->bucket[b] = p->n_stacks;
	return p->n_stacks;
}

/* The expert that begins in the chunk, else the one it lies in: the one
 * before it was read to its end already. POL_NIL when there are several. */
static uint32_t expert_at(const struct pol_stack *t, uint32_t id)
{
	uint64_t at = t->base + (uint64_t)(id - t->first) * t->chunk_bytes;
	uint64_t end = at + t->chunk_bytes, from, to;

	if (t->slab < t->chunk_bytes && t->len > t->slab)
		return POL_NIL;
	from = at > t->off ? (at - t->off) / t->slab : 0;
	to = end < t->off + t->len ? (end - 1 - t->off) / t->slab :
				     (t->len - 1) / t->slab;
	return t->expert + (uint32_t)(to > from ? to : from);
}

void pol_stack_wish(struct pol *p, uint32_t id)
{
	const struct pol_stack *t = &p->stacks[p->chunk[id].stack - 1];
	uint32_t expert = expert_at(t, id), i;

	if (expert == POL_NIL)
		return;
	for (i = 0; i < p->n_wishes; i++)
		if (p->wish[i].serial == t->serial &&
		    p->wish[i].layer == t->layer && p->wish[i].expert == expert)
			return;
	if (p->n_wishes == POL_WISHES) {
		memmove(p->wish, p->wish + 1,
			(POL_WISHES - 1) * sizeof(p->wish[0]));
		p->n_wishes--;
	}
	p->wish[p->n_wishes++] = (struct pol_wish){
		t->serial, t->layer, expert, p->skew_quota / 2,
	};
}

/* First chunk of the expert's slab in t still to be fetched, or POL_NIL. */
static uint32_t lacking(const struct pol *p, const struct pol_stack *t,
			uint32_t expert)
{
	uint64_t i = expert - t->expert, at = t->off + i * t->slab, end;
	uint32_t id, last;

	if (expert < t->expert || i >= t->len / t->slab)
		return POL_NIL;
	end = at + t->slab;
	if (at < t->base)
		at = t->base;
	if (end <= at)
		return POL_NIL;
	id = (uint32_t)((at - t->base) / t->chunk_bytes);
	last = (uint32_t)((end - 1 - t->base) / t->chunk_bytes);
	for (; id <= last && id < t->n; id++) {
		const struct pol_chunk *c = &p->chunk[t->first + id];

		if (c->flags & F_KNOWN && c->flags & F_SKEW &&
		    c->state == POL_ABSENT && !(c->flags & (F_COOL | F_DEMAND)))
			return t->first + id;
	}
	return POL_NIL;
}

static uint32_t next_of(const struct pol *p, const struct pol_wish *w)
{
	uint32_t i = p->bucket[bucket_of(w->serial, w->layer)], id;

	for (; i; i = p->stacks[i - 1].next) {
		const struct pol_stack *t = &p->stacks[i - 1];

		if (t->serial != w->serial || t->layer != w->layer)
			continue;
		id = lacking(p, t, w->expert);
		if (id != POL_NIL)
			return id;
	}
	return POL_NIL;
}

uint32_t pol_stack_next(struct pol *p)
{
	uint32_t id;

	while (p->n_wishes) {
		id = p->wish[0].left ? next_of(p, &p->wish[0]) : POL_NIL;
		if (id != POL_NIL)
			return id;
		p->n_wishes--;
		memmove(p->wish, p->wish + 1,
			p->n_wishes * sizeof(p->wish[0]));
	}
	return POL_NIL;
}

void pol_stack_granted(struct pol *p)
{
	p->wish[0].left--;
}
