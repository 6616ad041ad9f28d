/* SPDX-License-Identifier: MIT */
/* random_body.h - what the random program's kernels compute, one text for them and
 * for the model of memory on the processor.
 *
 * Words of 32 bits, wrapping: nothing depends on an order but where order is told.
 * Lock: none.
 */
#ifndef ENGINE_RANDOM_BODY_H
#define ENGINE_RANDOM_BODY_H

#ifdef __CUDA__
#define RFN static inline __attribute__((device, always_inline))
#else
#define RFN static inline
#endif

#define RBLOCK	64		/* threads of a block, words they make */
#define RHIDDEN	64		/* structs in the variable */

enum body {
	BODY_FILL,		/* from the scalar */
	BODY_MULADD,		/* dst = dst * a + s0 */
	BODY_MIX,		/* dst = s0 ^ (s1, backwards, + a) */
	BODY_TURN,		/* each block's words of s0, backwards: shared memory */
	BODY_COUNT,		/* dst[s0 % RBLOCK] += a: atomics */
	BODIES
};

/* How a kernel is told where its operands are. */
enum mode {
	MODE_DIRECT,		/* an argument each */
	MODE_STRUCT,		/* inside a struct, by value */
	MODE_TABLE,		/* indices into a table of addresses on the device */
	MODE_BLOCK,		/* the struct is in device memory */
	MODE_HIDDEN,		/* and in a variable of the module: no argument says so */
	MODES
};

struct operands {
	unsigned int *dst;
	const unsigned int *s0, *s1;
	int n;			/* words */
	unsigned int a;
};

struct indices {
	int dst, s0, s1;			/* in the table */
	unsigned int dst_off, s0_off, s1_off;	/* words */
	int n;
	unsigned int a;
};

RFN unsigned int scramble(unsigned int x)
{
	x = (x ^ (x >> 16)) * 0x7feb352du;
	x = (x ^ (x >> 15)) * 0x846ca68bu;
	return x ^ (x >> 16);
}

#endif
