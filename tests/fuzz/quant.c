/* SPDX-License-Identifier: MIT */
/* quant.c - fuzzes what reads images of rounded floats: harness.h. Lock: none. */
#include "harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	fuzz_quant(data, n);
	return 0;
}
