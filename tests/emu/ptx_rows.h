/* SPDX-License-Identifier: MIT */
/* ptx_rows.h - ROW(name) for each row of ptx_alu.def, in its order. */
#define ALU1(name, ...)	ROW(name)
#define ALU2(name, ...)	ROW(name)
#define ALU3(name, ...)	ROW(name)
#define ALU4(name, ...)	ROW(name)
#define CMP(name, ...)	ROW(name)
#define SEL(name, ...)	ROW(name)
#define LD(name, ...)	ROW(name)
#define ST(name, ...)	ROW(name)
#include "tests/emu/ptx_alu.def"
#undef ALU1
#undef ALU2
#undef ALU3
#undef ALU4
#undef CMP
#undef SEL
#undef LD
#undef ST
