/* SPDX-License-Identifier: MIT */
/* random.cu - the random program's kernels: each body, each way to be told where its
 * operands are. For clang's NVPTX backend, without any header of a toolkit.
 */
#include "random_body.h"

#define KERNEL extern "C" __attribute__((global)) void
#define SHARED __attribute__((shared))
#define TID ((int)__nvvm_read_ptx_sreg_tid_x())
#define BLOCK ((int)__nvvm_read_ptx_sreg_ctaid_x())

/* Written by the host through its address. */
__attribute__((device)) struct operands hidden[RHIDDEN];

template <int BODY> RFN void run(struct operands o)
{
	int i = BLOCK * RBLOCK + TID;

	if (BODY == BODY_TURN) {
		SHARED static unsigned int s[RBLOCK];
		int first = BLOCK * RBLOCK;
		int here = o.n - first < RBLOCK ? o.n - first : RBLOCK;

		if (TID < here)
			s[here - 1 - TID] = o.s0[i];
		__syncthreads();
		if (TID < here)
			o.dst[i] = s[TID] + o.a;
		return;
	}
	if (i >= o.n)
		return;
	if (BODY == BODY_FILL)
		o.dst[i] = scramble(o.a + (unsigned int)i);
	else if (BODY == BODY_MULADD)
		o.dst[i] = o.dst[i] * o.a + o.s0[i];
	else if (BODY == BODY_MIX)
		o.dst[i] = o.s0[i] ^ (o.s1[o.n - 1 - i] + o.a);
	else
		__nvvm_atom_add_gen_i((int *)&o.dst[o.s0[i] % RBLOCK], (int)o.a);
}

template <int BODY>
RFN void by_table(unsigned int *const *table, struct indices x)
{
	struct operands o = {
		table[x.dst] + x.dst_off, table[x.s0] + x.s0_off,
		table[x.s1] + x.s1_off, x.n, x.a,
	};

	run<BODY>(o);
}

#define FOR_BODY(B, name)							\
KERNEL name##_direct(unsigned int *dst, const unsigned int *s0,		\
		     const unsigned int *s1, int n, unsigned int a)		\
{										\
	struct operands o = { dst, s0, s1, n, a };				\
										\
	run<B>(o);								\
}										\
KERNEL name##_struct(struct operands o)						\
{										\
	run<B>(o);								\
}										\
KERNEL name##_table(unsigned int *const *table, struct indices x)		\
{										\
	by_table<B>(table, x);							\
}										\
KERNEL name##_block(const struct operands *o)					\
{										\
	run<B>(*o);								\
}										\
KERNEL name##_hidden(int i)							\
{										\
	run<B>(hidden[i]);							\
}

FOR_BODY(BODY_FILL, fill)
FOR_BODY(BODY_MULADD, muladd)
FOR_BODY(BODY_MIX, mix)
FOR_BODY(BODY_TURN, turn)
FOR_BODY(BODY_COUNT, count)
