/* SPDX-License-Identifier: MIT */
/* image.c - fuzzes codec_image_unpack, all codecs behind it: harness.h. Lock:
 * none. */
#include "harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	fuzz_head(data, n);
	return 0;
}
