/* SPDX-License-Identifier: MIT */
/* trial.h - what packing a chunk would give, tried as the pool does it.
 *
 * For offctl: one thread, no lock.
 */
#ifndef OFFLOAD_TRIAL_H
#define OFFLOAD_TRIAL_H

#include <stddef.h>
#include <stdint.h>

#include "core/quant.h"

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

/* Tries 1 to TRIAL_MAX bytes and adds to sum: rounded to lossy_bits where kind is not
 * QUANT_RAW and that can be done, else exactly. chunk then begins with a whole value. */
void trial_chunk(struct trial *t, const void *chunk, size_t len, enum quant_kind kind,
		 struct trial_sum *sum);

#endif
