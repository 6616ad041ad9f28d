/* SPDX-License-Identifier: MIT */
/* object.c - handles of all kinds.
 *
 * Owns the table. (1) A handle is a number, never an address: slot, kind and how often
 * the slot was used, so that a dead one is told from its successor (E12). (2) The
 * numbers are above those that name default streams. Lock: the emulator's.
 */
#include "tests/emu/emu.h"

struct slot {
	void *object;
	uint32_t uses;
	uint8_t kind;
};

static struct slot *slots;
static unsigned n, room, free_hint;

static uintptr_t number(unsigned i)
{
	return (uintptr_t)(slots[i].uses & 0xffffff) << 36 | (uintptr_t)(i + 1) << 12 |
	       (uintptr_t)slots[i].kind << 4;
}

uintptr_t obj_new(enum kind kind, void *object)
{
	unsigned i = free_hint;

	while (i < n && slots[i].object)
		i++;
	if (i == room) {
		room = room ? 2 * room : 256;
		slots = realloc(slots, room * sizeof(*slots));
		if (!slots)
			abort();
	}
	if (i == n) {
		slots[n++] = (struct slot){ 0 };
	}
	free_hint = i + 1;
	slots[i].object = object;
	slots[i].kind = (uint8_t)kind;
	slots[i].uses++;
	return number(i);
}

static struct slot *find(uintptr_t handle)
{
	unsigned i = (unsigned)(handle >> 12 & 0xffffff);

	if (!i || i > n || !slots[i - 1].object || number(i - 1) != handle)
		return NULL;
	return &slots[i - 1];
}

void *obj_get(enum kind kind, uintptr_t handle)
{
	const struct slot *s = find(handle);

	return s && s->kind == kind ? s->object : NULL;
}

void obj_end(uintptr_t handle)
{
	struct slot *s = find(handle);

	if (!s)
		return;
	s->object = NULL;
	if ((unsigned)(s - slots) < free_hint)
		free_hint = (unsigned)(s - slots);
}

void *obj_next(enum kind kind, unsigned *at)
{
	while (*at < n) {
		struct slot *s = &slots[(*at)++];

		if (s->object && s->kind == kind)
			return s->object;
	}
	return NULL;
}
