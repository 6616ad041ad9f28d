/* SPDX-License-Identifier: MIT */
/* ptx_ops_v1.c - operations for any processor. Owns tables. Lock: none. */
#define LEVEL(name)	name##_v1
#define TARGET
#include "tests/emu/ptx_ops.h"

const char *const ptx_op_names[OP_COUNT] = {
#undef ROW
#define ROW(name)	[OP_##name] = #name,
#include "tests/emu/ptx_rows.h"
};

int ptx_level_most = 3;

const ptx_fn *ptx_ops_best(void)
{
#if defined(__x86_64__)
	bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
		__builtin_cpu_supports("bmi2");

	if (v3 && ptx_level_most >= 3)
		return ptx_ops_v3;
#endif
	return ptx_ops_v1;
}
