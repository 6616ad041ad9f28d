/* SPDX-License-Identifier: MIT */
/* cpu.h - which vector instructions may be used here. */
#ifndef OFFLOAD_CPU_H
#define OFFLOAD_CPU_H

enum cpu_simd {
	CPU_PLAIN,
	CPU_AVX2,	/* AVX2, BMI1, POPCNT, F16C */
	CPU_AVX512,	/* those, and AVX512F, BW, VBMI, VBMI2 */
};

/* The most there is. Any thread, no lock, no error. */
enum cpu_simd cpu_simd(void);

#endif
