/* SPDX-License-Identifier: MIT */
/* cpu.h - the reference: the same model on the processor, a token at a time.
 *
 * Lock: none; one thread.
 */
#ifndef ENGINE_CPU_H
#define ENGINE_CPU_H

#include "tests/engine/model.h"

struct cpu;

/* A state for up to CTX positions; exits when there is no memory. */
struct cpu *cpu_new(const struct model *m, int ctx);

/* One pass: TOKEN at POS, whose predecessors were passed before. The logits are the
 * state's, good until the next pass. */
const float *cpu_pass(struct cpu *c, int token, int pos);

#endif
