/* SPDX-License-Identifier: MIT */
/* model.h - a dense Llama from a GGUF file that mkmodel made.
 *
 * Owns the mapping of the file, read-only, until the process ends.
 * Lock: none; written once, by the main thread.
 */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include <stdint.h>

#include "tests/engine/arith.h"

struct tensor {
	char name[64];
	const void *data;		/* in the mapping */
	uint64_t bytes;
	enum weight_type type;
	int cols, rows;
};

/* Tensors of a layer, in the order of use. */
enum layer_tensor { ATTN_NORM, ATTN_Q, ATTN_K, ATTN_V, ATTN_OUTPUT, FFN_NORM,
		    FFN_GATE, FFN_UP, FFN_DOWN, LAYER_TENSORS };

struct model {
	int layers, dim, ff, vocab, heads, kv_heads, head_dim;
	float eps, freq_base;
	struct tensor *t;		/* as they lie in the file */
	int n;
	/* Into t. */
	int embd, norm, output;
	int (*layer)[LAYER_TENSORS];
};

/* Maps and reads PATH. Says what is wrong on stderr and exits 2. */
void model_open(struct model *m, const char *path);

/* For the positions 0..n-1: head_dim / 2 pairs of a cosine and a sine. To be
 * freed; exits when there is no memory. */
float *model_turns(const struct model *m, int n);

/* Says why on stderr and exits with status 2. */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
