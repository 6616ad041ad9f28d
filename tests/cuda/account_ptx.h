/* SPDX-License-Identifier: MIT */
/* account_ptx.h - the kernels of account.c: one includes it. */
#ifndef ACCOUNT_PTX_H
#define ACCOUNT_PTX_H

static const char ptx[] =
	".version 7.0\n.target sm_80\n.address_size 64\n"
	".visible .global .align 4 .u32 total;\n"
	".visible .entry bump(.param .u64 p, .param .u32 n)\n{\n"
	"	.reg .b64 %rd<3>;\n	.reg .b32 %r<4>;\n"
	"	ld.param.u64 %rd1, [p];\n	cvta.to.global.u64 %rd2, %rd1;\n"
	"	ld.param.u32 %r1, [n];\n	ld.global.u32 %r2, [%rd2];\n"
	"	add.s32 %r3, %r2, %r1;\n	st.global.u32 [%rd2], %r3;\n	ret;\n}\n"
	".visible .entry within(.param .align 8 .b8 s[24])\n{\n"
	"	.reg .b64 %rd<3>;\n	.reg .b32 %r<2>;\n"
	"	ld.param.u64 %rd1, [s+8];\n	cvta.to.global.u64 %rd2, %rd1;\n"
	"	mov.u32 %r1, 9;\n	st.global.u32 [%rd2], %r1;\n	ret;\n}\n"
	".visible .entry nothing()\n{\n	ret;\n}\n";

/* Kernels that a library which gives them other addresses must see through. */
static const char sly[] =
	".version 7.0\n.target sm_80\n.address_size 64\n"
	".visible .global .align 8 .u64 hidden;\n"
	".visible .entry look(.param .u64 p, .param .u64 out)\n{\n"	/* *out = *p */
	"	.reg .b64 %rd<5>;\n	.reg .b32 %r<2>;\n"
	"	ld.param.u64 %rd1, [p];\n	cvta.to.global.u64 %rd2, %rd1;\n"
	"	ld.param.u64 %rd3, [out];\n	cvta.to.global.u64 %rd4, %rd3;\n"
	"	ld.global.u32 %r1, [%rd2];\n	st.global.u32 [%rd4], %r1;\n	ret;\n}\n"
	".visible .entry keep(.param .u64 p, .param .u64 out)\n{\n"	/* *out = p */
	"	.reg .b64 %rd<4>;\n"
	"	ld.param.u64 %rd1, [p];\n"
	"	ld.param.u64 %rd2, [out];\n	cvta.to.global.u64 %rd3, %rd2;\n"
	"	st.global.u64 [%rd3], %rd1;\n	ret;\n}\n"
	".visible .entry follow(.param .u64 cell, .param .u64 out)\n{\n"	/* *out = **cell */
	"	.reg .b64 %rd<7>;\n	.reg .b32 %r<2>;\n"
	"	ld.param.u64 %rd1, [cell];\n	cvta.to.global.u64 %rd2, %rd1;\n"
	"	ld.param.u64 %rd3, [out];\n	cvta.to.global.u64 %rd4, %rd3;\n"
	"	ld.global.u64 %rd5, [%rd2];\n	cvta.to.global.u64 %rd6, %rd5;\n"
	"	ld.global.u32 %r1, [%rd6];\n	st.global.u32 [%rd4], %r1;\n	ret;\n}\n"
	".visible .entry bump(.param .u64 p, .param .u64 out)\n{\n"	/* *out = ++*p */
	"	.reg .b64 %rd<5>;\n	.reg .b32 %r<3>;\n"
	"	ld.param.u64 %rd1, [p];\n	cvta.to.global.u64 %rd2, %rd1;\n"
	"	ld.param.u64 %rd3, [out];\n	cvta.to.global.u64 %rd4, %rd3;\n"
	"	ld.global.u32 %r1, [%rd2];\n	add.u32 %r2, %r1, 1;\n"
	"	st.global.u32 [%rd2], %r2;\n	st.global.u32 [%rd4], %r2;\n	ret;\n}\n"
	".visible .entry poke(.param .u32 v)\n{\n"			/* *hidden = v */
	"	.reg .b64 %rd<3>;\n	.reg .b32 %r<2>;\n"
	"	ld.param.u32 %r1, [v];\n"
	"	ld.global.u64 %rd1, [hidden];\n	cvta.to.global.u64 %rd2, %rd1;\n"
	"	st.global.u32 [%rd2], %r1;\n	ret;\n}\n";

#endif
