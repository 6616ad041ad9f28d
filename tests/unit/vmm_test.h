/* SPDX-License-Identifier: MIT */
/* vmm_test.h - a driver of arrays for core/vmm*.c: addresses, handles and mappings, each call of
 * which can be made to fail; what is copied is a stamp per granule. Owns them. Lock: none. */
#ifndef OFFLOAD_VMM_TEST_H
#define OFFLOAD_VMM_TEST_H

#include "core/vmm_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define G	4096ull
#define BUDGET	(64 * G)
#define HOST	(64 * G)
#define MANY	512
#define CTX	((uintptr_t)7)

struct handle { bool live, host; uint64_t len; unsigned int maps; uint32_t stamp[256]; };
struct mapping { uint64_t at, len, handle; bool shown; };

static struct handle handles[MANY];
static struct mapping maps[MANY];
static int n_maps, n_reserved, n_pins;
static uint64_t next_address, device_used, host_used, worst_device, worst_host;
static uint64_t calls, fail_at;
static int fail_with;
static _Atomic bool idle;
static bool no_host, no_mix;
static int taken_badly;		/* unmapped while something was queued */
static bool told[4096];		/* the program has the address: by its upper half */
static bool leaks;		/* the driver did not take something back */
static uint64_t capacity = BUDGET;	/* bytes of the device */
static uint64_t gran = G;	/* the driver's; bytes that have a stamp */

static bool fails(bool back)
{
	if (++calls != fail_at)
		return false;
	leaks |= back;
	return true;
}

#define OP(back) do { if (fails(back)) return fail_with; } while (0)

static int f_granularity(int dev, bool host, uint64_t *bytes)
{
	*bytes = gran;
	return 0;
}

static bool obeys;	/* takes addresses it is asked for */

static int f_reserve(uint64_t *at, uint64_t len)
{
	OP(false);
	if (!obeys || !*at)
		*at = next_address += 1ull << 32;
	n_reserved++;
	return 0;
}

static struct mapping *find(uint64_t at)
{
	for (int i = 0; i < n_maps; i++)
		if (at - maps[i].at < maps[i].len)
			return &maps[i];
	return NULL;
}

static int f_unreserve(uint64_t at, uint64_t len)
{
	OP(true);
	for (uint64_t a = at; a < at + len; a += G)
		if (find(a))
			return -EINVAL;
	n_reserved--;
	return 0;
}

static int f_create(int dev, bool host, uint64_t len, uint64_t *handle)
{
	uint64_t h = 1;

	OP(false);
	if (host && no_host)
		return -ENOTSUP;
	if (!host && device_used + len > capacity)
		return -ENOMEM;
	while (handles[h].live)
		h++;
	handles[h] = (struct handle){ .live = true, .host = host, .len = len };
	*(host ? &host_used : &device_used) += len;
	if (device_used > worst_device)
		worst_device = device_used;
	if (host_used > worst_host)
		worst_host = host_used;
	*handle = h;
	return 0;
}

static int f_release(uint64_t h)
{
	OP(true);
	assert_true(handles[h].live);
	if (handles[h].maps) {	/* it did not let go of it: lives on where it is mapped */
		assert_true(leaks);
		return 0;
	}
	handles[h].live = false;
	*(handles[h].host ? &host_used : &device_used) -= handles[h].len;
	return 0;
}

static int f_map(uint64_t at, uint64_t len, uint64_t h)
{
	OP(false);
	assert_true(handles[h].live && handles[h].len == len && !find(at));
	for (int i = 0; no_mix && i < n_maps; i++)
		if (maps[i].at >> 32 == at >> 32 && handles[maps[i].handle].host != handles[h].host)
			return -EINVAL;
	maps[n_maps++] = (struct mapping){ at, len, h, false };
	handles[h].maps++;
	return 0;
}

static int f_unmap(uint64_t at, uint64_t len)
{
	struct mapping *m = find(at);

	OP(true);
	assert_true(m && m->at == at && m->len == len);
	taken_badly += !idle && told[(at >> 32) % 4096];
	handles[m->handle].maps--;
	*m = maps[--n_maps];
	return 0;
}

static int f_access(uint64_t at, uint64_t len, uint32_t devices)
{
	OP(false);
	for (uint64_t a = at; a < at + len;) {
		struct mapping *m = find(a);

		assert_non_null(m);
		m->shown = devices & 1;
		a = m->at + m->len;
	}
	return 0;
}

static int f_pin(uintptr_t ctx, uint64_t len, uint64_t *at)
{
	OP(false);
	*at = next_address += 1ull << 32;
	n_pins++;
	return 0;
}

static int f_unpin(uintptr_t ctx, uint64_t at)
{
	OP(true);
	n_pins--;
	return 0;
}

static int f_drain(uintptr_t ctx)
{
	OP(false);
	idle = true;
	return 0;
}

static uint32_t *stamp(uint64_t at)
{
	struct mapping *m = find(at);

	assert_true(m && m->shown);
	return &handles[m->handle].stamp[(at - m->at) / gran];
}

static int f_copy(uintptr_t ctx, uint64_t to, uint64_t from, uint64_t len)
{
	for (uint64_t i = 0; i < len; i += gran)
		*stamp(to + i) = *stamp(from + i) + (calls + 1 == fail_at);
	OP(false);
	return 0;
}

/* Bytes of a granule are its stamp, and zeros. */
static int f_fetch(uintptr_t ctx, uintptr_t stream, void *to, uint64_t from, uint64_t len)
{
	OP(false);
	memset(to, 0, len);
	for (uint64_t i = 0; i < len; i += gran)
		memcpy((char *)to + i, stamp(from + i), 4);
	return 0;
}

static int f_fill(uintptr_t ctx, uint64_t to, const void *from, uint64_t len)
{
	for (uint64_t i = 0; i < len; i += gran)
		memcpy(stamp(to + i), (const char *)from + i, 4);
	OP(false);
	return 0;
}

static int f_free_bytes(uintptr_t ctx, uint64_t *bytes)
{
	*bytes = capacity - device_used;
	return 0;
}

static const struct vmm_ops fake = {
	.granularity = f_granularity, .reserve = f_reserve, .unreserve = f_unreserve,
	.create = f_create, .release = f_release, .map = f_map, .unmap = f_unmap,
	.access = f_access, .pin = f_pin, .unpin = f_unpin, .drain = f_drain,
	.copy = f_copy, .free_bytes = f_free_bytes, .fetch = f_fetch, .fill = f_fill,
};

#endif
