/* SPDX-License-Identifier: MIT */
/* lossy.h - which tensors OFFLOAD_LOSSY lets be kept rounded, and how far off they
 * are then. Internal to core/.
 *
 * Only where the user asked for it (R6), and only of mapped files, whose header
 * says what is where: floats of two dimensions and more. What memory holds that
 * a program filled itself nobody knows: there a pointer may look like a float.
 */
#ifndef OFFLOAD_LOSSY_H
#define OFFLOAD_LOSSY_H

#include "core/quant.h"
#include "policy/policy.h"

#include <stddef.h>
#include <stdint.h>

struct region;

unsigned int lossy_bits(void);	/* 8, 4; 0: not asked for. Any thread */
/* What a tensor of this name is rounded as; QUANT_RAW: not at all. Only where
 * lossy_bits is not 0. Any thread. */
enum quant_kind lossy_kind(const struct pol_span *s, const char *name);
/* Keeper. Marks the spans of a file, whose first bytes (the names) are text, and
 * says so once. */
void lossy_mark(struct region *r, const char *text, size_t text_len);
/* Pager. The pieces of the chunk at this offset of the region's file; tag: for
 * lossy_seen. 0: none of it is to be rounded. */
int lossy_pieces(const struct region *r, uint64_t off, struct quant_piece *out);
/* Any worker: so far off are they. */
void lossy_seen(const struct quant_piece *piece, const struct quant_error *error, int n);

#endif
