/* SPDX-License-Identifier: MIT */
/* codec.h - how a chunk's bytes are packed, and how a packed one is read.
 * Internal to core/.
 *
 * An image is what lies in a slot: a head, then what the codec made of the
 * bytes. It can be read back without anything else being known but the length
 * of the raw bytes, and is trusted in nothing (R4).
 *
 * Any thread that has working memory of its own; no lock, and no allocation
 * but codec_work_new.
 */
#ifndef OFFLOAD_CODEC_H
#define OFFLOAD_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/quant.h"
#include "policy/policy.h"	/* enum pol_dtype */

#define CODEC_MAX	(2u << 20)	/* raw bytes in an image: 1 to so many */
#define CODEC_IDS	16

struct codec_work;

/* One row of the table. Lengths are 1 to CODEC_MAX; src and dst do not overlap
 * and need no alignment. */
struct codec {
	uint8_t id;	/* in images: a number never means another codec */
	const char *name;
	/* Predicts from a sample (fx_sample) what it leaves of raw bytes, in
	 * 1/1000; NULL: it cannot be known but by trying. */
	uint32_t (*cost)(const uint8_t *sample, size_t n);
	/* Tried on a sample it must reach 1/100 of this ratio, 0: it is not
	 * tried; and so much (1/100) of what the best row before it reached. */
	uint32_t pays, better;
	size_t (*bound)(size_t len);	/* the most bytes pack can need */
	/* Bytes written to dst, at most cap; -E2BIG: that is not enough. */
	ssize_t (*pack)(struct codec_work *w, void *dst, size_t cap,
			const void *src, size_t len);
	/* Exactly len bytes to dst from exactly n: 0, or -EBADMSG: dst may then
	 * hold anything, and nothing beyond it or before it was touched. */
	int (*unpack)(struct codec_work *w, void *dst, size_t len,
		      const void *src, size_t n);
};

enum codec_id {
	CODEC_RAW = 1,
	CODEC_ZERO = 2,
	CODEC_LZ4 = 3,
	CODEC_ZSTD = 4,
	CODEC_BF16 = 5,		/* these four: fx.h */
	CODEC_FP16 = 6,
	CODEC_FP32 = 7,		/* and bf16 kept as fp32 */
	CODEC_ZMASK = 8,	/* 16-bit values, many of them zero */
	CODEC_QUANT = 9,	/* rounded: quant.h. Never chosen */
};

/* The row, or NULL: no such codec here. */
const struct codec *codec_by_id(uint8_t id);

/* What one thread packs and unpacks with: 3 MiB of addresses; about 0.2 MiB of
 * memory for floats, 0.7 MiB for text. NULL: no memory. */
struct codec_work *codec_work_new(void);
void codec_work_free(struct codec_work *w);	/* NULL is fine */

/* The row that is likely to pay for these bytes, judged by a sample from
 * places that seed decides (their hash will do); RAW where none does. hint:
 * what a file's header says they are, POL_DT_OTHER: nothing is known. ZERO was
 * confirmed, byte by byte; any other may yet turn out not to pay. Takes 5 to
 * 100 us for 2 MiB: callers remember the answer for what is alike, and judge
 * again when pack finds that it does not fit codec_worth. */
const struct codec *codec_choose(struct codec_work *w, const void *chunk,
				 size_t len, uint64_t seed, enum pol_dtype hint);
/* The most bytes an image of len raw ones may have to be worth unpacking: the
 * cap for codec_image_pack. Less than 1.05x is not. */
size_t codec_worth(size_t len);

struct codec_head {
	uint32_t magic;
	uint8_t id;
	uint8_t zero[3];
	uint32_t raw_len, packed_len;
	uint64_t hash;		/* codec_image_sum */
	uint8_t rest[40];	/* zeros: what follows begins aligned to 64 */
};
_Static_assert(sizeof(struct codec_head) == 64, "of an image");

/* The hash of an image with this head, whose own is taken for zero, and the
 * packed_len bytes that follow it. */
uint64_t codec_image_sum(struct codec_head head, const void *body);
/* Makes an image of the len bytes at src in cap bytes at dst. Bytes of it, or
 * -E2BIG: it does not fit. */
ssize_t codec_image_pack(struct codec_work *w, const struct codec *codec,
			 void *dst, size_t cap, const void *src, size_t len);
/* The same of floats that are rounded: see quant_pack. */
ssize_t codec_image_quant(void *dst, size_t cap, const void *src, size_t len,
			  unsigned int bits, const struct quant_piece *piece, int n);
/* Makes len raw bytes at dst of the n bytes of an image. 0, or -EBADMSG: they
 * are not an image, not one of so many bytes, or not those that were packed;
 * dst may then hold anything. */
int codec_image_unpack(struct codec_work *w, void *dst, size_t len,
		       const void *image, size_t n);

#endif
