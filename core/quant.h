/* SPDX-License-Identifier: MIT */
/* quant.h - floats kept rounded, in blocks that share a scale: OFFLOAD_LOSSY.
 * Internal to core/.
 *
 * An image, for len raw bytes that are pieces of files' tensors, side by side;
 * every number little-endian:
 *
 *   struct quant_head
 *   struct quant_piece for each piece, in order
 *   the pieces' bodies, in order
 *
 * A body is the raw bytes; or of floats, QUANT_BLOCK values to a block, the last
 * filled up with zeros:
 *
 *   each block's scale, as bf16
 *   each block's codes, as signed numbers: 8 bits each; or 4, value i in the low
 *   half of byte i, value i + QUANT_BLOCK / 2 in its high half
 *
 * A value is its code times the scale, rounded to its type. The scale is what
 * makes the largest of the block the largest code, so that no value is off by
 * more than half of it; what cannot be told so (a NaN, an infinity) is not packed.
 * No lock, no allocation; any thread.
 */
#ifndef OFFLOAD_QUANT_H
#define OFFLOAD_QUANT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define QUANT_BLOCK	64u	/* values */
#define QUANT_PIECES	16

enum quant_kind { QUANT_RAW, QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_KINDS };

struct quant_head {
	uint8_t bits, pieces;		/* 8 or 4; 1 to QUANT_PIECES */
	uint8_t zero[6];
};
_Static_assert(sizeof(struct quant_head) == 8, "of an image");

struct quant_piece {
	uint32_t len;			/* raw bytes: not 0, whole values */
	uint8_t kind;			/* enum quant_kind */
	uint8_t zero;
	uint16_t tag;			/* the caller's; 0 in an image */
};
_Static_assert(sizeof(struct quant_piece) == 8, "of an image");

/* How far what comes back is from what was packed, of one piece. */
struct quant_error {
	uint64_t values;
	double error2, value2;		/* sums of squares */
};

/* Bytes of a value; 1 of QUANT_RAW. */
uint32_t quant_size(enum quant_kind kind);

/* Bytes of the image, or -E2BIG: cap is too little, or a value is not finite.
 * bits: 8 or 4; the n pieces' lengths sum up to len. */
ssize_t quant_pack(unsigned int bits, const struct quant_piece *piece, int n,
		   void *dst, size_t cap, const void *src, size_t len);
/* 0, or -EBADMSG: not an image of len bytes; dst may then hold anything. Nothing
 * beyond either buffer is read or written. */
int quant_unpack(void *dst, size_t len, const void *src, size_t n);
/* Compares a piece with what came back of it. 0, or -EBADMSG: a value is further
 * off than the format allows, or raw bytes differ. */
int quant_compare(unsigned int bits, const struct quant_piece *piece,
		  const void *was, const void *is, struct quant_error *out);

#endif
