/* SPDX-License-Identifier: MIT */
/* zmask.c - fuzzes what reads images of FX_ZMASK: harness.h. Lock: none. */
#include "harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	fuzz_fx(FX_ZMASK, data, n);
	return 0;
}
