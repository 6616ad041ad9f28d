/* SPDX-License-Identifier: MIT */
/* cpu.c - which vector instructions may be used here.
 *
 * Owns the answer, found when it is first wanted. The compiler's own way to ask
 * (__builtin_cpu_supports) asks at each start of each program: in a virtual
 * machine every CPUID leaves it, and 0.2 ms of 0.6 were that.
 *
 * (1) The processor must have them and the kernel save them (XCR0).
 * Lock: none; any thread: who asks at the same time finds the same.
 */
#include "core/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define XCR0_AVX	0x06u	/* SSE, AVX */
#define XCR0_AVX512	0xe6u	/* ... and mask registers, both upper halves */

static uint32_t xcr0(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return low;
}

static bool all(uint32_t have, uint32_t want)
{
	return (have & want) == want;
}

static enum cpu_simd find(void)
{
	uint32_t a, b, c, d, saved;

	if (!__get_cpuid(1, &a, &b, &c, &d) ||
	    !all(c, bit_OSXSAVE | bit_AVX | bit_POPCNT | bit_F16C))
		return CPU_PLAIN;
	saved = xcr0();
	if (!all(saved, XCR0_AVX) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) ||
	    !all(b, bit_AVX2 | bit_BMI))
		return CPU_PLAIN;
	if (!all(saved, XCR0_AVX512) || !all(b, bit_AVX512F | bit_AVX512BW) ||
	    !all(c, bit_AVX512VBMI | bit_AVX512VBMI2))
		return CPU_AVX2;
	return CPU_AVX512;
}

enum cpu_simd cpu_simd(void)
{
	static _Atomic int found;	/* 1 + the answer; 0: not asked yet */
	int now = atomic_load_explicit(&found, memory_order_relaxed);

	if (!now) {
		now = 1 + (int)find();
		atomic_store_explicit(&found, now, memory_order_relaxed);
	}
	return (enum cpu_simd)(now - 1);
}
#else
enum cpu_simd cpu_simd(void)
{
	return CPU_PLAIN;
}
#endif
