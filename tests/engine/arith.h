/* SPDX-License-Identifier: MIT */
/* arith.h - the engine's arithmetic, one text for the kernels and for the CPU.
 *
 * Owns nothing; lock: none.
 *
 *  1. Only operations that IEEE 754 fixes to the bit: add, multiply, fused
 *     multiply-add, divide, square root, all to nearest. Both compilers are told
 *     not to contract, so a GPU, an interpreter of its code and a processor agree.
 *  2. A sum over many values is LANES partial sums, value i to lane i % LANES,
 *     added as a tree: what a warp's shuffles, or a block's shared memory, do.
 * It is compiled as C and as CUDA without any header of either.
 */
#ifndef ENGINE_ARITH_H
#define ENGINE_ARITH_H

#ifdef __CUDA__
#define FN static inline __attribute__((device, always_inline))
#else
#define FN static inline
#endif

#define LANES		32	/* of a warp: sums over columns */
#define NORM_LANES	128	/* threads of a norm */
#define ATTN_LANES	64	/* threads of an attention head */

enum weight_type { W_F32, W_F16, W_BF16, W_Q8_0, W_TYPES };

/* How a kernel is told its weights: directly, or by an entry of a table in device
 * memory that holds further addresses. */
struct ref {
	const void *data;		/* NULL: table[index] */
	const void *const *table;
	int index;
	int cols, rows;
};

/* Where in the sequence: in arguments, or in device memory. */
struct step {
	const int *state;		/* position, then token(s); NULL: below */
	int pos, token;
};

FN float f_of(unsigned int u)
{
	float f;

	__builtin_memcpy(&f, &u, 4);
	return f;
}

FN unsigned int u_of(float f)
{
	unsigned int u;

	__builtin_memcpy(&u, &f, 4);
	return u;
}

FN float from_bf16(unsigned short h)
{
	return f_of((unsigned int)h << 16);
}

#ifndef __CUDA__
/* Exact, as the GPU's conversion is. */
FN float from_half(unsigned short h)
{
	unsigned int e = (h >> 10) & 31, m = h & 1023;
	float f;

	if (e == 31)
		return f_of((h & 0x8000u) << 16 | 0x7f800000u | m << 13);
	f = e ? f_of((e + 112) << 23 | m << 13) : (float)m / 16777216.0f;
	return h & 0x8000 ? -f : f;
}
#endif

/* e^x, for x <= 0 or a little above; below -87 it is 0. */
FN float exp_of(float x)
{
	float n, r, p;

	if (x < -87.0f)
		return 0.0f;
	if (x > 88.0f)
		x = 88.0f;
	n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
	r = __builtin_fmaf(-n, 0.693359375f, x);
	r = __builtin_fmaf(n, 2.12194440e-4f, r);
	p = 1.0f / 720;
	p = __builtin_fmaf(p, r, 1.0f / 120);
	p = __builtin_fmaf(p, r, 1.0f / 24);
	p = __builtin_fmaf(p, r, 1.0f / 6);
	p = __builtin_fmaf(p, r, 0.5f);
	p = __builtin_fmaf(p, r, 1.0f);
	p = __builtin_fmaf(p, r, 1.0f);
	return p * f_of((unsigned int)((int)n + 127) << 23);
}

FN float silu(float x)
{
	return x / (1.0f + exp_of(-x));
}

/* Rotates the pair (a, b) by the angle whose cosine and sine are c and s. */
FN void rotate(float *a, float *b, float c, float s)
{
	float x = *a, y = *b;

	*a = __builtin_fmaf(x, c, -(y * s));
	*b = __builtin_fmaf(x, s, y * c);
}

#endif
