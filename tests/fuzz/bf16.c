/* SPDX-License-Identifier: MIT */
/* bf16.c - fuzzes what reads images of FX_BF16: harness.h. Lock: none. */
#include "harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	fuzz_fx(FX_BF16, data, n);
	return 0;
}
