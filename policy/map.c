/* SPDX-License-Identifier: MIT */
/* map.c - bitmaps over the positions of the order, and the chunk lists.
 *
 * Scans go by words of 64 positions, so that a step costs the same whether
 * the model has a thousand chunks or a hundred thousand.
 * Lock: none, the caller serialises.
 */
#include "policy/policy_int.h"

/* Without -mpopcnt the builtin becomes a libgcc call. */
static uint32_t popcount(uint64_t w)
{
	w -= w >> 1 & 0x5555555555555555u;
	w = (w & 0x3333333333333333u) + (w >> 2 & 0x3333333333333333u);
	w = (w + (w >> 4)) & 0x0f0f0f0f0f0f0f0fu;
	return (uint32_t)(w * 0x0101010101010101u >> 56);
}

bool pol_map_get(const struct pol *p, enum pol_map m, uint32_t pos)
{
	return p->map[m][pos / 64] >> (pos % 64) & 1;
}

void pol_map_put(struct pol *p, enum pol_map m, uint32_t pos, bool on)
{
	uint64_t bit = (uint64_t)1 << (pos % 64), *w = &p->map[m][pos / 64];

	if (!(*w & bit) == !on)
		return;
	*w ^= bit;
	p->map_n[m] += on ? 1 : -1u;
}

void pol_map_zero(struct pol *p, uint32_t n_pos)
{
	for (int m = 0; m < B_N; m++) {
		memset(p->map[m], 0, ((size_t)n_pos + 63) / 64 * 8);
		p->map_n[m] = 0;
	}
}

/* First set bit at or after pos and below end, or POL_NIL. */
static uint32_t scan_up(const uint64_t *map, uint32_t pos, uint32_t end)
{
	uint64_t w;

	if (pos >= end)
		return POL_NIL;
	w = map[pos / 64] & ~(uint64_t)0 << (pos % 64);
	for (pos &= ~63u; !w; w = map[pos / 64]) {
		pos += 64;
		if (pos >= end)
			return POL_NIL;
	}
	pos += (uint32_t)__builtin_ctzll(w);
	return pos < end ? pos : POL_NIL;
}

/* Last set bit at or before pos and not below low, or POL_NIL. */
static uint32_t scan_down(const uint64_t *map, uint32_t pos, uint32_t low)
{
	uint32_t at = pos & ~63u;
	uint64_t w = map[pos / 64] & ~(uint64_t)0 >> (63 - pos % 64);

	while (!w) {
		if (at <= low)
			return POL_NIL;
		at -= 64;
		w = map[at / 64];
	}
	at += 63 - (uint32_t)__builtin_clzll(w);
	return at >= low ? at : POL_NIL;
}

uint32_t pol_map_next(const struct pol *p, enum pol_map m, uint32_t pos,
		      uint32_t n)
{
	uint32_t room = p->n_pos - pos, at;

	if (!n || !p->map_n[m])
		return POL_NIL;
	if (n <= room)
		return scan_up(p->map[m], pos, pos + n);
	at = scan_up(p->map[m], pos, p->n_pos);
	return at != POL_NIL ? at : scan_up(p->map[m], 0, n - room);
}

uint32_t pol_map_prev(const struct pol *p, enum pol_map m, uint32_t pos,
		      uint32_t n)
{
	uint32_t at;

	if (!n || !p->map_n[m])
		return POL_NIL;
	if (n <= pos + 1)
		return scan_down(p->map[m], pos, pos + 1 - n);
	at = scan_down(p->map[m], pos, 0);
	if (at != POL_NIL)
		return at;
	return scan_down(p->map[m], p->n_pos - 1, p->n_pos - (n - pos - 1));
}

static uint32_t count_up(const uint64_t *map, uint32_t pos, uint32_t end,
			 uint32_t max)
{
	uint32_t sum = 0, bits;
	uint64_t w;

	for (; pos < end && sum < max; pos += bits) {
		bits = 64 - pos % 64;
		w = map[pos / 64] >> (pos % 64);
		if (bits > end - pos) {
			bits = end - pos;
			w &= ((uint64_t)1 << bits) - 1;
		}
		sum += popcount(w);
	}
	return sum < max ? sum : max;
}

uint32_t pol_map_count(const struct pol *p, enum pol_map m, uint32_t pos,
		       uint32_t n, uint32_t max)
{
	uint32_t room = p->n_pos - pos, sum;

	if (n <= room)
		return count_up(p->map[m], pos, pos + n, max);
	sum = count_up(p->map[m], pos, p->n_pos, max);
	return sum + count_up(p->map[m], 0, n - room, max - sum);
}

void pol_list_add(struct pol *p, enum pol_list l, uint32_t id, bool front)
{
	struct pol_fifo *f = &p->list[l];
	struct pol_chunk *c = &p->chunk[id];

	c->list = l;
	c->prev = front ? POL_NIL : f->tail;
	c->next = front ? f->head : POL_NIL;
	if (c->prev != POL_NIL)
		p->chunk[c->prev].next = id;
	else
		f->head = id;
	if (c->next != POL_NIL)
		p->chunk[c->next].prev = id;
	else
		f->tail = id;
	f->n++;
}

void pol_list_del(struct pol *p, uint32_t id)
{
	struct pol_chunk *c = &p->chunk[id];
	struct pol_fifo *f = &p->list[c->list];

	if (c->list == L_NONE)
		return;
	if (c->prev != POL_NIL)
		p->chunk[c->prev].next = c->next;
	else
		f->head = c->next;
	if (c->next != POL_NIL)
		p->chunk[c->next].prev = c->prev;
	else
		f->tail = c->prev;
	f->n--;
	c->list = L_NONE;
}
