/* SPDX-License-Identifier: MIT */
/* device.c - the devices, what is counted of them, and what the program is told.
 *
 *   UNKNOWN --device_meet--> KNOWN, until the process ends or forks
 *
 * (1) A device is known once memory on it is asked for; nothing is said or shown of
 *     others.
 * (2) What the driver says is passed on as it is unless OFFLOAD_VRAM is set. Then
 *     every way to ask (driver, management library) is answered from the same sum.
 * Lock: `lock`, leaf, while a device becomes known.
 */
#include "core/vmm_int.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#define NAMES 1024u	/* power of two */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool known[DEVICES];
static unsigned char uuids[DEVICES][16];
static _Atomic int n_known;
static _Atomic int begun;		/* 0: not yet, 1: yes, -1: never */
static _Atomic uint64_t said[NAMES];	/* hashes of names */

bool device_begin(void)
{
	int saved = errno, now = atomic_load_explicit(&begun, memory_order_relaxed);

	if (now > 0)
		return true;
	if (now < 0 || !core_on())
		return false;
	/* What it is told by is a thread with a descriptor table of its own. */
	if (off_opt.pager != OPT_PAGER_OFF && keeper_start())
		off_verbose(1, "statistics of devices are not shown to offctl");
	atomic_store(&begun, 1);
	errno = saved;
	return true;
}

bool device_begun(void)
{
	return atomic_load_explicit(&begun, memory_order_relaxed) > 0;
}

/* ---- devices ----------------------------------------------------------------------- */

bool device_known(int dev)
{
	return (unsigned int)dev >= DEVICES ||
	       atomic_load_explicit(&known[dev], memory_order_acquire);
}

int device_count(void)
{
	return atomic_load_explicit(&n_known, memory_order_relaxed);
}

static uint64_t budget_of(uint64_t vram)
{
	return off_opt.vram && off_opt.vram < vram ? off_opt.vram : vram;
}

void device_meet(int dev, const char *name, uint64_t vram, const void *uuid)
{
	struct off_stats *s = stats_now();
	int saved = errno;

	if ((unsigned int)dev >= DEVICES)
		return;
	pthread_mutex_lock(&lock);
	if (!atomic_load(&known[dev])) {
		memcpy(uuids[dev], uuid, sizeof(uuids[dev]));
		snprintf(s->device[dev].name, sizeof(s->device[dev].name), "%s", name);
		device_stat(dev, SD_VRAM, (int64_t)vram);
		device_stat(dev, SD_BUDGET, (int64_t)budget_of(vram));
		stat_add(ST_BUDGET_VRAM, budget_of(vram));
		__atomic_fetch_or(&s->devices, 1u << dev, __ATOMIC_RELEASE);
		atomic_fetch_add(&n_known, 1);
		atomic_store(&known[dev], true);
	}
	pthread_mutex_unlock(&lock);
	errno = saved;
}

int device_by_uuid(const void *uuid)
{
	static const unsigned char none[16];

	for (int i = 0; i < DEVICES && memcmp(uuid, none, sizeof(none)); i++)
		if (atomic_load(&known[i]) && !memcmp(uuids[i], uuid, sizeof(none)))
			return i;
	return -1;
}

/* ---- what is told ------------------------------------------------------------------- */

bool device_tells(void)
{
	return off_opt.vram && off_opt.report != OPT_REPORT_PHYSICAL && core_on();
}

/* The host's part of the pool: what homes could have there when it was first asked for.
 * Programs take a total for what never changes. */
static uint64_t pool_host(int dev, uint64_t now)
{
	static _Atomic uint64_t first[DEVICES];
	uint64_t was = 0;

	if (dev < 0 || dev >= DEVICES)
		return now;
	return atomic_compare_exchange_strong(&first[dev], &was, now) ? now : was;
}

void device_told(int dev, uint64_t *free, uint64_t *total)
{
	uint64_t all = *total, used = 0, host = 0, spare = 0, part;

	if (!device_tells())
		return;
	*total = budget_of(all);
	if (dev >= 0 && dev < DEVICES) {
		spare = vmm_spare(dev, true);
		/* Both change meanwhile. */
		used = less(vmm_stat(dev, SD_RESIDENT), vmm_spare(dev, false));
		host = less(vmm_stat(dev, SD_HOST_HOME), spare);
		*free += vmm_spare(dev, false);
	}
	used = used < *total ? used : *total;
	if (*free > *total - used)
		*free = *total - used;
	if (off_opt.device == OPT_DEVICE_OFF || off_opt.report == OPT_REPORT_VRAM)
		return;
	/* The pool is what the card may hold and what homes may take of the host. */
	used = vmm_host_room() + spare;
	part = pool_host(dev, host + used);
	*total += part;
	part = part > host ? part - host : 0;
	*free += used < part ? used : part;
}

void device_count_copy(int dev, uint64_t h2d, uint64_t d2h)
{
	if (h2d)
		device_stat(dev, SD_H2D, (int64_t)h2d);
	if (d2h)
		device_stat(dev, SD_D2H, (int64_t)d2h);
}

void device_count_launch(int dev)
{
	device_stat(dev, SD_LAUNCHES, 1);
}

/* ---- what goes past us --------------------------------------------------------------- */

/* False: it was said before, or so many were that it does not matter. */
static bool first_time(const char *name)
{
	uint64_t h = 0xcbf29ce484222325ull, was;

	for (const char *c = name; *c; c++)
		h = (h ^ (unsigned char)*c) * 0x100000001b3ull;
	h |= 1;
	for (uint32_t i = 0; i < NAMES; i++) {
		_Atomic uint64_t *at = &said[(h + i) & (NAMES - 1)];

		was = 0;
		if (atomic_compare_exchange_strong(at, &was, h))
			return true;
		if (was == h)
			return false;
	}
	return false;
}

void device_unhooked(const char *symbol)
{
	if (off_opt.verbose && core_on() && first_time(symbol))
		off_verbose(1, "%s passes by: nothing of it is recorded", symbol);
}

void device_say(const char *fmt, ...)
{
	char line[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	off_log("%s", line);
}

/* ---- forks ---------------------------------------------------------------------------- */

void device_fork_prepare(void)
{
	vmm_lock();
	pthread_mutex_lock(&lock);
	device_fn_lock();
	device_map_lock();
	device_tape_lock();
}

void device_fork_parent(void)
{
	device_tape_unlock();
	device_map_unlock();
	device_fn_unlock();
	pthread_mutex_unlock(&lock);
	vmm_unlock();
}

/* No context of the parent's works in here. */
void device_fork_child(void)
{
	device_tape_child();
	device_map_child();
	device_fn_unlock();
	for (int i = 0; i < DEVICES; i++)
		atomic_store(&known[i], false);
	atomic_store(&n_known, 0);
	atomic_store(&begun, 0);
	pthread_mutex_unlock(&lock);
	vmm_child();
}
