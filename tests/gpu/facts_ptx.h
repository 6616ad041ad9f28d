/* SPDX-License-Identifier: MIT */
/* facts_ptx.h - the kernels that ask, as text: nothing is needed to build them.
 *
 * sum(in, pairs, out)            adds pairs of 64-bit words, and the result to *out
 * fill(to, words, first)         writes first, first + 1, ...
 * spin(flag, turns, data, out)   until *flag is not 0, at most so many turns; then *data
 *                                to *out, if data is not 0
 */
#ifndef GPU_FACTS_PTX_H
#define GPU_FACTS_PTX_H

/* The number of this thread, and of all. */
#define THREAD \
	"	.reg .u32 %t, %b, %d, %g;\n" \
	"	mov.u32 %t, %tid.x;\n" \
	"	mov.u32 %b, %ctaid.x;\n" \
	"	mov.u32 %d, %ntid.x;\n" \
	"	mov.u32 %g, %nctaid.x;\n" \
	"	mad.lo.u32 %t, %b, %d, %t;\n" \
	"	mul.lo.u32 %g, %g, %d;\n" \
	"	cvt.u64.u32 %i, %t;\n" \
	"	cvt.u64.u32 %step, %g;\n"

#define FACTS_PTX \
	".version 6.4\n" \
	".target sm_60\n" \
	".address_size 64\n" \
	".visible .entry sum(.param .u64 sum_in, .param .u64 sum_n, .param .u64 sum_out)\n" \
	"{\n" \
	"	.reg .u64 %in, %n, %out, %i, %step, %at, %v, %w, %s;\n" \
	"	.reg .pred %p;\n" \
	THREAD \
	"	ld.param.u64 %in, [sum_in];\n" \
	"	ld.param.u64 %n, [sum_n];\n" \
	"	ld.param.u64 %out, [sum_out];\n" \
	"	mov.u64 %s, 0;\n" \
	"SUM:	setp.ge.u64 %p, %i, %n;\n" \
	"	@%p bra SUMMED;\n" \
	"	shl.b64 %at, %i, 4;\n" \
	"	add.u64 %at, %at, %in;\n" \
	"	ld.global.v2.u64 {%v, %w}, [%at];\n" \
	"	add.u64 %s, %s, %v;\n" \
	"	add.u64 %s, %s, %w;\n" \
	"	add.u64 %i, %i, %step;\n" \
	"	bra SUM;\n" \
	"SUMMED:	atom.global.add.u64 %v, [%out], %s;\n" \
	"	ret;\n" \
	"}\n" \
	".visible .entry fill(.param .u64 fill_to, .param .u64 fill_n, .param .u64 fill_first)\n" \
	"{\n" \
	"	.reg .u64 %to, %n, %first, %i, %step, %at, %v;\n" \
	"	.reg .pred %p;\n" \
	THREAD \
	"	ld.param.u64 %to, [fill_to];\n" \
	"	ld.param.u64 %n, [fill_n];\n" \
	"	ld.param.u64 %first, [fill_first];\n" \
	"FILL:	setp.ge.u64 %p, %i, %n;\n" \
	"	@%p bra FILLED;\n" \
	"	shl.b64 %at, %i, 3;\n" \
	"	add.u64 %at, %at, %to;\n" \
	"	add.u64 %v, %i, %first;\n" \
	"	st.global.u64 [%at], %v;\n" \
	"	add.u64 %i, %i, %step;\n" \
	"	bra FILL;\n" \
	"FILLED:	ret;\n" \
	"}\n" \
	".visible .entry spin(.param .u64 spin_flag, .param .u64 spin_n, .param .u64 spin_data,\n" \
	"	.param .u64 spin_out)\n" \
	"{\n" \
	"	.reg .u64 %flag, %n, %data, %out, %v;\n" \
	"	.reg .u32 %f;\n" \
	"	.reg .pred %p;\n" \
	"	ld.param.u64 %flag, [spin_flag];\n" \
	"	ld.param.u64 %n, [spin_n];\n" \
	"	ld.param.u64 %data, [spin_data];\n" \
	"	ld.param.u64 %out, [spin_out];\n" \
	"SPIN:	ld.volatile.global.u32 %f, [%flag];\n" \
	"	setp.ne.u32 %p, %f, 0;\n" \
	"	@%p bra SPUN;\n" \
	"	sub.u64 %n, %n, 1;\n" \
	"	setp.ne.u64 %p, %n, 0;\n" \
	"	@%p bra SPIN;\n" \
	"SPUN:	setp.eq.u64 %p, %data, 0;\n" \
	"	@%p bra LEFT;\n" \
	"	ld.global.u64 %v, [%data];\n" \
	"	st.global.u64 [%out], %v;\n" \
	"LEFT:	ret;\n" \
	"}\n"

#endif
