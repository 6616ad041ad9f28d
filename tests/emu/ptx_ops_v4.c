/* SPDX-License-Identifier: MIT */
/* ptx_ops_v4.c - operations by AVX-512. Owns tables. Lock: none. */
#if defined(__x86_64__)
#if defined(__clang__)
#define WIDE	""
#else
#define WIDE	",prefer-vector-width=512"
#endif
#define LEVEL(name)	name##_v4
#define TARGET \
	__attribute__((target("avx2,fma,bmi,bmi2,lzcnt,popcnt,avx512f,avx512dq,avx512bw,avx512vl" WIDE)))
#include "tests/emu/ptx_ops.h"
#endif
