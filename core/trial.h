/* SPDX-License-Identifier: MIT */
/* trial.h - what packing a chunk would give, tried as the pool does it.
 *
 * For offctl: one thread, no lock.
 */
#ifndef OFFLOAD_TRIAL_H
#define OFFLOAD_TRIAL_H

#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

#define TRIAL_MAX (2u << 20)	/* bytes of a chunk */

/* Sums over chunks; zeroed by the caller first. */
struct trial_sum {
	uint64_t raw;		/* bytes tried */
	uint64_t held;		/* what the pool would hold of them, or plain */
	uint64_t unpacked;	/* of raw: the chunks that pay */
	uint64_t rounded;	/* of raw: not exactly */
	uint64_t unpack_ns;	/* processor time to unpack those, hash included */
};

/* Working memory, about 5 MiB. NULL: there is none. */
struct trial *trial_new(void);
void trial_free(struct trial *t);	/* NULL is fine */

/* What OFFLOAD_LOSSY asks for: bits a value, or 0. */
unsigned int trial_bits(void);
/* How it would have a tensor of this name kept; 0: exactly. */
int trial_kind(const struct pol_span *s, const char *name);
/* Bytes of a value of that kind. */
uint32_t trial_size(int kind);

/* Tries 1 to TRIAL_MAX bytes and adds to sum: rounded where kind (trial_kind's) is not 0
 * and that can be done, else exactly. chunk begins with a whole value then. */
void trial_chunk(struct trial *t, const void *chunk, size_t len, int kind,
		 struct trial_sum *sum);

#endif
