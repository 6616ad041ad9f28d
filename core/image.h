/* SPDX-License-Identifier: MIT */
/* image.h - which kernels a device image holds, and where their parameters lie.
 *
 * An image is text in PTX, an ELF file for a card (cubin), or a container of both (fat
 * binary), packed or not. What is read here may be anything: nothing outside the
 * bytes given is touched, and what does not fit together is not known.
 */
#ifndef OFFLOAD_IMAGE_H
#define OFFLOAD_IMAGE_H

#include "core/device.h"

#define IMAGE_PARAMS	512		/* of one kernel; with more they are not known */
#define IMAGE_BYTES	(256ul << 20)	/* of one image, unpacked too; the rest is not read */

/* A kernel: its name (not ended by a zero), and its n parameters in order; n is -1 where
 * they cannot be told. Any thread; nothing of it stays. */
typedef void (*image_found)(void *arg, const char *name, size_t len,
			    const struct device_param *p, int n);

/* Any kind of image. Any thread; takes no lock of ours, but may allocate. */
void image_read(const uint8_t *at, size_t len, image_found found, void *arg);
/* image_ptx.c: the same of text; the text ends at a zero, or at len. */
void image_read_ptx(const char *at, size_t len, image_found found, void *arg);

/* How long an image is, by its first bytes, from which it may be told: 0 if more of them are
 * needed than len, and *need says how many; *text: it is text, of unknown length. */
size_t image_len(const uint8_t *at, size_t len, size_t *need, bool *text);

#endif
