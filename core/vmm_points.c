/* SPDX-License-Identifier: MIT */
/* vmm_points.c - addresses of regions that lie in device memory (OFFLOAD_DEVICE_DEEP=1).
 *
 * A kernel that is given a table reaches what the table points to. What the host copies
 * to the device is searched for addresses of regions, on its way.
 *
 * (1) What was copied over is forgotten, and so is what was freed. Copies within the device
 *     take their addresses with them. A copy that a stream captures is not made yet: what is
 *     there stays, too.
 * (2) Addresses that kernels write are not seen: who reaches spilled memory by one is
 *     stopped (vmm_spill.c, 1), and the user told.
 * (3) Regions lie where numbers rarely point (vmm.c, 6); a number that does makes more
 *     reached, no less.
 * Owns the list, sorted by place. Lock: `lock`, leaf.
 */
#include "core/vmm_int.h"

#include <pthread.h>

struct point { uint64_t where, value; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct point *list;
static uint32_t n, cap, n_global;	/* global: in variables of modules; an upper bound */
static _Atomic uint32_t some;		/* n, to look at without the lock */

/* The first one at or behind it. */
static uint32_t from(uint64_t where)
{
	uint32_t lo = 0, hi = n;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (list[mid].where < where)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void forget(uint64_t at, uint64_t len)
{
	uint32_t a = from(at), b = from(at + len);

	memmove(&list[a], &list[b], (n - b) * sizeof(*list));
	n -= b - a;
	atomic_store(&some, n);
}

static void add(uint64_t where, uint64_t value)
{
	struct device_region d;
	uint32_t i = from(where);

	for (uint32_t k = i; k < n && list[k].where == where; k++)
		if (list[k].value == value)
			return;
	if (n == cap) {
		uint32_t more = cap ? 2 * cap : 256;
		struct point *p = mem_realloc(list, more * sizeof(*p));

		if (!p)
			return;		/* as (2) */
		list = p;
		cap = more;
	}
	memmove(&list[i + 1], &list[i], (n - i) * sizeof(*list));
	list[i] = (struct point){ where, value };
	atomic_store(&some, ++n);
	n_global += device_find(where, &d) && d.kind == DEVICE_GLOBAL;
}

static bool of_region(uint64_t w)
{
	struct device_region d;

	return device_maybe(w) && device_find(w, &d) && d.placed;
}

void vmm_points(uint64_t to, const void *bytes, uint64_t len, bool now)
{
	const char *at = bytes;
	uint64_t w, i = -to & 7;

	if (!atomic_load_explicit(&vmm_deep, memory_order_relaxed) || !bytes)
		return;
	if (now && atomic_load(&some)) {
		pthread_mutex_lock(&lock);
		forget(to, len);
		pthread_mutex_unlock(&lock);
	}
	for (; i + 8 <= len; i += 8) {
		memcpy(&w, at + i, sizeof(w));
		if (!device_maybe(w) || !of_region(w))
			continue;
		pthread_mutex_lock(&lock);
		add(to + i, w);
		pthread_mutex_unlock(&lock);
	}
}

void vmm_points_moved(uint64_t to, uint64_t where, uint64_t len, bool now)
{
	if (!atomic_load(&some))
		return;
	pthread_mutex_lock(&lock);
	if (to && now && (to - where >= len && where - to >= len))
		forget(to, len);
	if (to)
		for (uint32_t i = from(where); i < n && list[i].where - where < len; i++) {
			struct point p = list[i];
			uint64_t at = to + (p.where - where);
			uint32_t were = n;

			add(at, p.value);
			i += n > were && at <= p.where;	/* it was put before this one */
		}
	else
		forget(where, len);
	pthread_mutex_unlock(&lock);
}

/* A few at a time, those of one place together: what point does must not find the lock held. */
void vmm_points_in(uint64_t at, uint64_t len, void (*point)(uint64_t value, void *arg), void *arg)
{
	uint64_t end = at + len, value[64];
	uint32_t k;

	while (atomic_load_explicit(&some, memory_order_relaxed) && at < end) {
		pthread_mutex_lock(&lock);
		k = 0;
		for (uint32_t i = from(at); i < n && list[i].where < end &&
		     (k < 32 || (k < 64 && list[i].where < at)); i++) {
			value[k++] = list[i].value;
			at = list[i].where + 1;
		}
		pthread_mutex_unlock(&lock);
		for (uint32_t i = 0; i < k; i++)
			point(value[i], arg);
		if (k < 32)
			return;
	}
}

void vmm_points_global(void (*point)(uint64_t value, void *arg), void *arg)
{
	uint64_t at = 0, value;
	struct device_region d;

	while (__atomic_load_n(&n_global, __ATOMIC_RELAXED)) {
		uint32_t i;

		pthread_mutex_lock(&lock);
		for (i = from(at); i < n; i++)
			if (device_find(list[i].where, &d) && d.kind == DEVICE_GLOBAL)
				break;
		at = i < n ? list[i].where + 1 : 0;
		value = i < n ? list[i].value : 0;
		pthread_mutex_unlock(&lock);
		if (!at)
			return;
		point(value, arg);
	}
}

void vmm_points_child(void)
{
	pthread_mutex_init(&lock, NULL);
	list = NULL;
	n = cap = n_global = 0;
	atomic_store(&some, 0);
}
