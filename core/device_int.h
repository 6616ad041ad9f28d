/* SPDX-License-Identifier: MIT */
/* device_int.h - what the device files of core/ know of each other. */
#ifndef OFFLOAD_DEVICE_INT_H
#define OFFLOAD_DEVICE_INT_H

#include "core/core_int.h"
#include "core/device.h"

static inline void device_stat(int dev, enum device_stat i, int64_t n)
{
	if ((unsigned int)dev < DEVICES)
		__atomic_fetch_add(&off_stats_now->device[dev].v[i], (uint64_t)n,
				   __ATOMIC_RELAXED);
}

/* Locks of regions, functions and the tape, all leaves; around a fork. */
void device_map_lock(void);
void device_map_unlock(void);
void device_map_child(void);	/* no context survives a fork */
void device_fn_lock(void);
void device_fn_unlock(void);
void device_tape_lock(void);
void device_tape_unlock(void);
void device_tape_child(void);

/* The word is an address in here, perhaps: two loads and a compare. */
extern uint64_t device_low, device_high;
static inline bool device_maybe(uint64_t word)
{
	return word - __atomic_load_n(&device_low, __ATOMIC_RELAXED) <
	       __atomic_load_n(&device_high, __ATOMIC_RELAXED) -
	       __atomic_load_n(&device_low, __ATOMIC_RELAXED);
}
/* device_find, and the region is marked used. out may be NULL: cheaper then. */
bool device_use(uint64_t addr, struct device_region *out);

void device_tape_line(const char *line, size_t len);
void device_tape_region(const struct device_region *r, bool gone);

#endif
