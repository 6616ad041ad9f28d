/* SPDX-License-Identifier: MIT */
/* packer.h - packing and unpacking by the workers, and how fast that goes.
 * Internal to core/.
 */
#ifndef OFFLOAD_PACKER_H
#define OFFLOAD_PACKER_H

#include "core/codec.h"
#include "core/quant.h"
#include "policy/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PACK_FRAMES 4	/* frames of files that are packed at a time, beside the budget's */

/* Keeper, when it starts; any number of times. Without memory nothing is packed. */
void packer_open(void);
/* Pager. Room for one image of a chunk; NULL: all are in use. Few are packed at a
 * time: it is slow, and what waits for it holds a frame. must: it would have to be
 * written otherwise; some are kept for those. */
char *packer_room(bool must);
void packer_give(const char *image);
/* Any thread. Chunks of memory in nobody's count: what packing will use and never has
 * yet, and frames that are being packed. */
uint32_t packer_extra(void);
/* Child of a fork, and nowhere else: the threads that pack are gone. */
void packer_reset(void);

/* What is known of 2 MiB that are to be packed. */
struct packer_of {
	uint64_t hash;			/* chunk_hash */
	enum pol_dtype hint;		/* what a file says they are */
	int n_pieces;			/* 0: they come back as they were */
	struct quant_piece piece[QUANT_PIECES];
};

/* Any thread that has the working memory, and room for len bytes at trial. Makes an image at
 * `image` that pays (codec_worth) and was seen to give the len bytes at src again. Its bytes,
 * or -E2BIG. */
ssize_t packer_image(struct codec_work *work, const struct codec *codec, char *image,
		     char *trial, const void *src, size_t len);
/* Any worker. Makes an image of the 2 MiB at frame. Its bytes, or -E2BIG: it does
 * not pay. */
ssize_t packer_pack(char *image, const char *frame, const struct packer_of *of);
/* Any worker, and the pager. 0, or -EBADMSG: not what was packed, -ENOMEM. */
int packer_unpack(char *frame, const char *image, size_t n);

/* Any thread: an image that packer_unpack took; what came out was rounded. */
bool packer_rounded(const char *image);

/* Any thread. What was seen so far: chunks tried, those that paid, bytes of their
 * images; raw bytes a processor unpacks in a second, or a guess. */
struct packer_seen { uint32_t tried, paid; uint64_t bytes; double unpack; };
void packer_seen(struct packer_seen *out);

#endif
