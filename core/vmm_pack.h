/* SPDX-License-Identifier: MIT */
/* vmm_pack.h - pieces of spilled device memory, packed and unpacked. In the turn. */
#ifndef OFFLOAD_VMM_PACK_H
#define OFFLOAD_VMM_PACK_H

#include <stdint.h>

/* What the others need; any number of times. 0 or -ENOMEM. */
int vmm_pack_open(void);
/* The len bytes at buf, up to STORE_PIECE, whose hash that is: if it pays, buf holds an image
 * of them and zeros up to the next page. Bytes of the image; 0: they are as they were. */
uint32_t vmm_pack(void *buf, uint32_t len, uint64_t hash);
/* The len bytes that an image of n bytes was made of, until the next call of this file; NULL:
 * it is not that. */
const char *vmm_unpack(const void *image, uint32_t n, uint32_t len);

#endif
