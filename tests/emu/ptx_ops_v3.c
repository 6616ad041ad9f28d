/* SPDX-License-Identifier: MIT */
/* ptx_ops_v3.c - operations by AVX2 and FMA. Owns tables. Lock: none. */
#if defined(__x86_64__)
#define LEVEL(name)	name##_v3
#define TARGET		__attribute__((target("avx2,fma,bmi,bmi2,lzcnt,popcnt")))
#include "tests/emu/ptx_ops.h"
#endif
