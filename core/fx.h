/* SPDX-License-Identifier: MIT */
/* fx.h - packing of floating point numbers, and of 16-bit data that is often
 * zero, by codes of fixed width. Internal to core/.
 *
 * A trained tensor's exponents crowd together, its other bits are noise. So
 * the noise is stored as it is, and of each exponent a code of 3 bits: which of
 * a window of 7 it is, or that it lies outside of it (an escape: its byte is
 * stored beside). No code depends on the one before it: that is what makes it
 * as fast as copying.
 *
 * An image, for len raw bytes of a kind; every number little-endian:
 *
 *   struct fx_head
 *   struct fx_entry for each block of FX_BLOCK values
 *   zeros up to a multiple of 64
 *   the blocks' bodies, in order, each a multiple of 64 bytes
 *   the blocks' escapes, in order
 *   the first `lead` raw bytes (they are not values: data may begin anywhere),
 *   and those after the last whole block
 *   FX_SLACK zeros: escapes are read so many at a time
 *
 * A block's body:
 *
 *   raw      the bytes
 *   zero     nothing: all its bytes are zeros
 *   coded    bf16   codes 768, rests 2048
 *            fp16   codes 768, rests 2048, tops 768
 *            fp32   codes 768, rests 2048, low halves 4096, or absent: they are
 *                   zeros (bf16 kept as fp32)
 *            zmask  2048 bits, the first value's the lowest: it is not 0. Its
 *                   escapes are the values that are not, 2 bytes each
 *
 * bf16, and the high half of fp32, rotated left by 1: the high byte is the
 * exponent, the low one the rest. fp16: the low byte is the rest, a top is the
 * sign (4) and the upper two bits of the high byte's mantissa (2, 1), and
 * exponents, from the dictionary and escaped, are held shifted left by 2: as
 * they stand in the high byte.
 *
 * Codes, and tops, come 64 at a time in 24 bytes: bits 0 and 1 of value i at bit
 * 2 * (i / 16) of byte i % 16, bit 2 of it at bit i / 8 of byte 16 + i % 8. Code
 * 7 is an escape. Others c mean base + c; in mode FX_ZERO7 0 means exponent 0,
 * and others base + c - 1. Exponent 255 is always escaped: no dictionary has it.
 *
 * The files: fx.c reads and checks the format, fx_pack.c writes it, fx_guess.c
 * judges what it would save, and fx_plain.c, fx_avx2.c, fx_avx512.c do one
 * block of it: the same bytes from all of them, in both directions.
 * No lock, no allocation; any thread.
 */
#ifndef OFFLOAD_FX_H
#define OFFLOAD_FX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FX_BLOCK	2048u		/* values */
#define FX_GROUP	64u		/* values whose codes lie together */
#define FX_CODES	(FX_BLOCK / FX_GROUP * 24)
#define FX_RESTS	FX_CODES		/* where they begin in a body */
#define FX_MORE		(FX_RESTS + FX_BLOCK)	/* tops, low halves */
#define FX_MASK		(FX_BLOCK / 8)
#define FX_SLACK	64u
#define FX_LEN_MIN	(4 * FX_BLOCK * 4)	/* less is mostly outside of blocks */
#define FX_LEN_MAX	(2u << 20)
#define FX_ESCAPE	7
/* From so many bytes on what is unpacked goes past the caches where it can: not
 * to read what will be overwritten saves more than whoever reads it next (the
 * hash, at once) loses. Seen with 2 MiB: 5 to 25% with the hash, more without. */
#define FX_STREAM	(512u << 10)

enum fx_kind { FX_BF16, FX_FP16, FX_FP32, FX_ZMASK, FX_KINDS };

enum fx_mode {
	FX_WINDOW,		/* base to base + 6 */
	FX_ZERO7,		/* 0, and base to base + 5 */
	FX_NOTHING,		/* all zeros */
	FX_RAW,
	FX_NO_LOW = 4,		/* beside the first two: fp32, low halves absent */
};

struct fx_head {
	uint8_t kind, lead;
	uint16_t zero;
	uint32_t blocks;
	uint32_t bodies;	/* in 64 bytes */
	uint32_t escapes;	/* bytes */
};
_Static_assert(sizeof(struct fx_head) == 16, "of an image");

struct fx_entry {
	uint32_t escape;	/* its first: bytes from the start of them */
	uint16_t body;		/* from the first one's, in 64 bytes */
	uint8_t base, mode;	/* base 0 where it means nothing */
};
_Static_assert(sizeof(struct fx_entry) == 8, "of an image");

/* ---- what codec.c calls ----------------------------------------------------- */

struct fx_ops;
struct fx_scratch;

/* The fastest this CPU and OFFLOAD_SIMD allow; says so once where the option
 * asks for more than the CPU has. Any thread. */
const struct fx_ops *fx_best(void);
/* The one of an OPT_SIMD_ number; NULL: the CPU, or the kernel, has it not. */
const struct fx_ops *fx_level(uint64_t simd);

/* The most bytes an image of len raw ones takes; len 1 to FX_LEN_MAX. Nothing is
 * saved to speak of below FX_LEN_MIN. */
size_t fx_bound(size_t len);
/* Bytes of working memory fx_pack needs; aligned to 64. */
size_t fx_scratch_size(void);
/* Bytes of the image, or -E2BIG: cap is too little. Depends on kind and raw
 * bytes alone, not on ops nor on where they lie. */
ssize_t fx_pack(const struct fx_ops *ops, struct fx_scratch *s, enum fx_kind kind,
		void *dst, size_t cap, const void *src, size_t len);
/* Of len bytes, 1 to FX_LEN_MAX. 0, or -EBADMSG: not an image of so many of this
 * kind; dst may then hold anything. Nothing beyond either buffer is read or written. */
int fx_unpack(const struct fx_ops *ops, enum fx_kind kind, void *dst, size_t len,
	      const void *src, size_t n);

#define FX_PIECE	256u	/* bytes of a sample that lie together */
/* Takes pieces * FX_PIECE bytes of a chunk, or all of it where it has no more:
 * a piece from each of so many equal parts, from a place the seed decides: at
 * regular ones it would fall into step with the data. Every second part comes
 * first, so that either half of the sample is a sample. Bytes. */
size_t fx_sample(uint8_t *to, uint32_t pieces, const uint8_t *chunk, size_t len,
		 uint64_t seed);
/* What packing will leave of data that this is a sample of, in 1/1000 of raw:
 * up to 1000. The window is that of each piece: real ones are of a block. */
uint32_t fx_cost(enum fx_kind kind, const uint8_t *sample, size_t n);
/* Where its values begin: bytes to skip. */
uint32_t fx_lead(enum fx_kind kind, const uint8_t *src, size_t len);

/* ---- between the fx files ------------------------------------------------------ */

static inline uint32_t fx_value(enum fx_kind kind)	/* bytes */
{
	return kind == FX_FP32 ? 4 : 2;
}

/* Where things are, from what must be known beforehand. */
struct fx_shape {
	uint32_t blocks, block;		/* how many; bytes of one */
	uint32_t lead, tail;		/* raw bytes before and after them */
	uint32_t bodies;		/* offset of the first body */
};
struct fx_shape fx_shape(enum fx_kind kind, uint32_t lead, size_t len);
/* Bytes of a body. */
uint32_t fx_body(enum fx_kind kind, uint8_t mode);
/* The highest base a window may have. */
uint32_t fx_top_base(enum fx_kind kind, uint8_t mode);

bool fx_is_zero(const uint8_t *p, size_t len);	/* len not 0 */

struct fx_window {
	uint8_t base, mode;	/* FX_WINDOW or FX_ZERO7 */
	uint8_t inside;		/* how many of those looked at */
};
#define FX_LOOKED_MAX 255	/* no counter overflows */
/* The window that has the most of n / stride exponents, at most FX_LOOKED_MAX. */
struct fx_window fx_window(enum fx_kind kind, const uint8_t *exp, uint32_t n,
			   uint32_t stride);

/* A coded block, checked: body is whole, and FX_SLACK bytes can be read after the
 * escapes. What an escape says is not checked, nor need be: any byte will do. */
struct fx_coded {
	const uint8_t *body, *escape;
	uint32_t escapes;	/* bytes */
	uint8_t base;
	bool zero7, low;	/* mode FX_ZERO7; fp32 has its low halves */
	bool stream;		/* past the caches; dst is aligned to 64 */
	uint8_t dict[16];	/* of codes 0 to 6; 255 after them */
};

/* One block, by one instruction set. No pointer need be aligned, but exp (64). */
struct fx_ops {
	const char *name;
	/* Writes all of a body but its codes, and each value's exponent (fp16: not
	 * shifted). 0: fp32, and the low halves are all zeros. */
	uint32_t (*split[FX_KINDS])(const uint8_t *src, uint8_t *body, uint8_t *exp);
	/* Codes of exponents in a window; returns how many are escaped. Up to
	 * FX_BLOCK + FX_SLACK bytes at escape are written. */
	uint32_t (*code)(const uint8_t *exp, struct fx_window w, uint8_t *codes,
			 uint8_t *escape);
	/* FX_ZMASK: the body; bytes of escapes, of which 2 * FX_BLOCK + FX_SLACK
	 * are written. */
	uint32_t (*mask)(const uint8_t *src, uint8_t *body, uint8_t *escape);
	/* False: the codes have not as many escapes as there are. */
	bool (*unpack[FX_KINDS])(uint8_t *dst, const struct fx_coded *c);
};
extern const struct fx_ops fx_plain, fx_avx2, fx_avx512;

#endif
