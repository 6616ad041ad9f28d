/* SPDX-License-Identifier: MIT */
/* vmm_use.h - which placed memory kernels are given, and how often: part of core.h.
 *
 * Counting costs nothing while all that is placed is in devices. Any thread; no lock.
 */
#ifndef OFFLOAD_VMM_USE_H
#define OFFLOAD_VMM_USE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Something has a home on the host: uses are counted from here on. */
extern _Atomic bool vmm_counts;

/* A kernel that was launched has the address, which is in a placed region. */
void vmm_used(uint64_t addr);

/* What the kernels of an executable graph have: counted as one, when it is launched. */
struct vmm_group;
/* A copy of the n addresses is kept. NULL: no memory; it is not counted then. */
struct vmm_group *vmm_group_new(const uint64_t *addr, uint32_t n);
/* It was launched. NULL: nothing. */
void vmm_group_used(struct vmm_group *g);
/* Nobody launches it any more. NULL: nothing. */
void vmm_group_end(struct vmm_group *g);

#endif
