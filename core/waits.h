/* SPDX-License-Identifier: MIT */
/* waits.h - how long at least one of several threads waited. Internal to core/. */
#ifndef OFFLOAD_WAITS_H
#define OFFLOAD_WAITS_H

#include <stdint.h>

#define WAITS_MOST 16U

/* Zero at first. Whoever uses it has the lock, if there is one. */
struct waits {
	struct { uint64_t from, to; } span[WAITS_MOST];	/* apart, in order */
	uint32_t n;
};

/* One more thread waited, from then until now (ns; to: never less than the last time).
 * Returns by how much that makes the time longer in which any of them did. */
uint64_t waits_add(struct waits *w, uint64_t from, uint64_t to);

#endif
