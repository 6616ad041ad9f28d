/* SPDX-License-Identifier: MIT */
/* fp32.c - fuzzes what reads images of FX_FP32: harness.h. Lock: none. */
#include "harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	fuzz_fx(FX_FP32, data, n);
	return 0;
}
