/* SPDX-License-Identifier: MIT */
/* ptx_ops.h - the loops over 32 lanes, for one level of the processor.
 *
 * Included by ptx_ops_v*.c, which say LEVEL(name) and TARGET. Written so that
 * the compiler makes vector code of them.
 *
 * (1) Results go straight to the register if all lanes take part; else beside
 *     it, and into it where a lane does.
 * (2) An access that is within one page of PTX_PAGE for all lanes is looked up
 *     once; what is not, and what is wrong, goes lane by lane (ptx_reach).
 * Lock: none.
 */
#include "tests/emu/ptx_int.h"
#include "tests/emu/ptx_math.h"

#include <math.h>

#pragma GCC diagnostic ignored "-Wshadow"

#define U8	uint8_t
#define U16	uint16_t
#define U32	uint32_t
#define U64	uint64_t
#define U128	unsigned __int128
#define S8	int8_t
#define S16	int16_t
#define S32	int32_t
#define S64	int64_t
#define S128	__int128
#define F32	float
#define F64	double

#if defined(__clang__)
#define IVDEP	_Pragma("clang loop vectorize(assume_safety)")
#else
#define IVDEP	_Pragma("GCC ivdep")
#endif
#define EACH_LANE	IVDEP for (int i = 0; i < LANES; i++)
#define REG(T, k)	((T *)__builtin_assume_aligned(w->r + o->r[k], 64))
#define HANDLER(name)	\
	TARGET static int LEVEL(name)(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
#define LANE_BUF	__attribute__((aligned(64)))

#define MERGE(T) \
	TARGET static void LEVEL(merge_##T)(T *d, const T *from, uint32_t m) \
	{ \
		EACH_LANE d[i] = m >> i & 1 ? from[i] : d[i]; \
	}
MERGE(uint16_t)
MERGE(uint32_t)
MERGE(uint64_t)

#define MERGED(D, d, t, m) \
	do { \
		if (sizeof(D) == 2) \
			LEVEL(merge_uint16_t)((uint16_t *)(void *)(d), (uint16_t *)(void *)(t), m); \
		else if (sizeof(D) == 4) \
			LEVEL(merge_uint32_t)((uint32_t *)(void *)(d), (uint32_t *)(void *)(t), m); \
		else \
			LEVEL(merge_uint64_t)((uint64_t *)(void *)(d), (uint64_t *)(void *)(t), m); \
	} while (0)

#define RESULT(D, e) \
	D *to = REG(D, 0), *out = to, t[LANES] LANE_BUF; \
	const int64_t imm = o->imm; \
	(void)imm; \
	if (m != FULL) \
		out = t; \
	out = __builtin_assume_aligned(out, 64); \
	EACH_LANE { \
		e; \
	} \
	if (m != FULL) \
		MERGED(D, to, t, m); \
	return GO_ON

#define ALU1(name, D, A, v) \
	HANDLER(name) \
	{ \
		const A *pa = REG(A, 1); \
		RESULT(D, const A a = pa[i]; out[i] = (D)(v)); \
	}
#define ALU2(name, D, A, B, v) \
	HANDLER(name) \
	{ \
		const A *pa = REG(A, 1); \
		const B *pb = REG(B, 2); \
		RESULT(D, const A a = pa[i]; const B b = pb[i]; out[i] = (D)(v)); \
	}
#define ALU3(name, D, A, B, C, v) \
	HANDLER(name) \
	{ \
		const A *pa = REG(A, 1); \
		const B *pb = REG(B, 2); \
		const C *pc = REG(C, 3); \
		RESULT(D, const A a = pa[i]; const B b = pb[i]; const C c = pc[i]; \
		       out[i] = (D)(v)); \
	}
#define ALU4(name, T, A, B, C, D, v) \
	HANDLER(name) \
	{ \
		const A *pa = REG(A, 1); \
		const B *pb = REG(B, 2); \
		const C *pc = REG(C, 3); \
		const D *pd = REG(D, 4); \
		RESULT(T, const A a = pa[i]; const B b = pb[i]; const C c = pc[i]; \
		       const D d = pd[i]; out[i] = (T)(v)); \
	}
/* The word of a predicate is collected from 32 bytes. */
#define CMP(name, A, v) \
	HANDLER(name) \
	{ \
		const A *pa = REG(A, 1), *pb = REG(A, 2); \
		uint8_t t[LANES] LANE_BUF; \
		EACH_LANE { \
			const A a = pa[i], b = pb[i]; \
			(void)b; \
			t[i] = (uint8_t)-(uint8_t)!!(v); \
		} \
		pred_set(w, o->r[0], LEVEL(bits_of)(t), m); \
		return GO_ON; \
	}
#define SEL(name, T) \
	HANDLER(name) \
	{ \
		const T *pa = REG(T, 1), *pb = REG(T, 2); \
		const uint32_t p = *pred_at(w, o->r[3]); \
		RESULT(T, out[i] = p >> i & 1 ? pa[i] : pb[i]); \
	}

#if defined(__SSE2__)
#include <emmintrin.h>

TARGET static inline uint32_t LEVEL(bits_of)(const uint8_t t[LANES])
{
	uint32_t lo = (uint32_t)_mm_movemask_epi8(*(const __m128i *)(const void *)t);
	uint32_t hi = (uint32_t)_mm_movemask_epi8(*(const __m128i *)(const void *)(t + 16));

	return hi << 16 | lo;
}
#else
static inline uint32_t LEVEL(bits_of)(const uint8_t t[LANES])
{
	uint32_t r = 0;

	for (int i = 0; i < LANES; i++)
		r |= (uint32_t)(t[i] & 1) << i;
	return r;
}
#endif

/* ---- memory ---------------------------------------------------------------- */

enum reach { REACH_EACH, REACH_ROW, REACH_ONE, REACH_FAULT };

/* Lane by lane. */
static int LEVEL(reach_slow)(struct ptx_warp *w, const struct ptx_op *o, uint32_t m,
			     uint64_t *a, unsigned len, bool write)
{
	uint64_t some = 0;

	for (unsigned i = 0; i < LANES; i++) {
		if (!(m >> i & 1))
			continue;
		a[i] = (uintptr_t)ptx_reach(w, o, a[i], i, len, write);
		if (!a[i])
			return REACH_FAULT;
		some = a[i];
	}
	for (unsigned i = 0; i < LANES; i++)
		if (!(m >> i & 1))
			a[i] = some;
	return REACH_EACH;
}

/* What is added to the addresses of all lanes, and for each lane more than for
 * the one before, to make them the host's; false: not known. */
TARGET static inline bool LEVEL(shift_of)(struct ptx_warp *w, const struct ptx_op *o,
					  const uint64_t *a, unsigned len, bool write,
					  uint64_t *shift, uint64_t *step)
{
	struct ptx_block *b = w->b;
	enum ptx_space space = o->space;
	uint64_t base = 0, size, bad = 0;
	const uint8_t *host;

	*step = 0;
	if (space == SP_GENERIC && WINDOW(a[0]) >= WIN_SHARED && WINDOW(a[0]) <= WIN_PARAM) {
		space = WINDOW(a[0]) == WIN_SHARED ? SP_SHARED :
			WINDOW(a[0]) == WIN_PARAM ? SP_PARAM : SP_LOCAL;
		base = WINDOW_BASE(WINDOW(a[0]));
	}
	switch (space) {
	case SP_SHARED:
		host = b->shared;
		size = b->shared_bytes;
		break;
	case SP_PARAM:
		host = b->params;
		size = write ? 0 : b->param_bytes;
		break;
	case SP_LOCAL:
		host = w->local;
		size = *step = b->lane_local;
		break;
	default:
		host = ptx_page(b, a[0] / PTX_PAGE, write);
		*shift = (uintptr_t)host - (a[0] & ~(uint64_t)(PTX_PAGE - 1));
		if (host)
			return true;
		base = size = a[0];
		EACH_LANE base = a[i] < base ? a[i] : base;
		EACH_LANE size = a[i] > size ? a[i] : size;
		host = ptx_range(b, base, size - base + len, write);
		*shift = (uintptr_t)host - base;
		return host;
	}
	base += SPACE_START;
	if (size < len)
		return false;
	size -= len;
	EACH_LANE bad |= (uint64_t)(a[i] - base > size);
	*shift = (uintptr_t)host - base;
	return !bad;
}

/* The host's addresses of `len` bytes for each lane, in a[]; those of lanes
 * that take no part are some other lane's. REACH_ROW: one after another;
 * REACH_ONE: all the same. */
TARGET static inline int LEVEL(reach)(struct ptx_warp *w, const struct ptx_op *o, uint32_t m,
				      uint64_t *a, unsigned len, bool write)
{
	const uint64_t off = (uint64_t)o->imm;
	uint64_t differ = 0, row = 0, first, shift, step;

	if (o->kind == 4) {
		const uint32_t *p = REG(uint32_t, 5);

		EACH_LANE a[i] = (uint32_t)(p[i] + off);
	} else {
		const uint64_t *p = REG(uint64_t, 5);

		EACH_LANE a[i] = p[i] + off;
	}
	if (m != FULL) {
		first = a[__builtin_ctz(m)];
		EACH_LANE a[i] = m >> i & 1 ? a[i] : first;
	}
	first = a[0];
	EACH_LANE {
		differ |= a[i] ^ first;
		row |= (a[i] - first) ^ (uint64_t)i * len;
	}
	if ((differ | first) & (len - 1) || differ >= PTX_PAGE ||
	    !LEVEL(shift_of)(w, o, a, len, write, &shift, &step))
		return LEVEL(reach_slow)(w, o, m, a, len, write);
	EACH_LANE a[i] += shift + (uint64_t)i * step;
	return step ? REACH_EACH : !differ ? REACH_ONE : !row ? REACH_ROW : REACH_EACH;
}

#define LD(name, M, D) \
	HANDLER(name) \
	{ \
		uint64_t a[LANES] LANE_BUF; \
		int how = LEVEL(reach)(w, o, m, a, (unsigned)sizeof(M) * o->n, false); \
		if (how == REACH_FAULT) \
			return LEAVE_FAULT; \
		for (unsigned k = 0; k < o->n; k++) { \
			D *to = REG(D, k), *out = to, t[LANES] LANE_BUF; \
			const M *from = (const M *)(uintptr_t)a[0] + k; \
			if (!o->r[k]) \
				continue; \
			if (m != FULL) \
				out = t; \
			out = __builtin_assume_aligned(out, 64); \
			if (how == REACH_ONE) { \
				const D v = (D)*from; \
				EACH_LANE out[i] = v; \
			} else if (how == REACH_ROW && o->n == 1) { \
				EACH_LANE out[i] = (D)from[i]; \
			} else { \
				EACH_LANE out[i] = (D)((const M *)(uintptr_t)a[i])[k]; \
			} \
			if (m != FULL) \
				MERGED(D, to, t, m); \
		} \
		return GO_ON; \
	}
/* Of lanes that write the same place the highest has the last word. */
#define ST(name, M, D) \
	HANDLER(name) \
	{ \
		uint64_t a[LANES] LANE_BUF; \
		int how = LEVEL(reach)(w, o, m, a, (unsigned)sizeof(M) * o->n, true); \
		if (how == REACH_FAULT) \
			return LEAVE_FAULT; \
		for (unsigned k = 0; k < o->n; k++) { \
			const D *from = REG(D, k); \
			M *row = (M *)(uintptr_t)a[0]; \
			if (how == REACH_ROW && o->n == 1 && m == FULL) { \
				EACH_LANE row[i] = (M)from[i]; \
				continue; \
			} \
			for (uint32_t left = m; left; left &= left - 1) { \
				unsigned i = (unsigned)__builtin_ctz(left); \
				((M *)(uintptr_t)a[i])[k] = (M)from[i]; \
			} \
		} \
		return GO_ON; \
	}

#include "tests/emu/ptx_alu.def"

#define ROW(name)	[OP_##name] = LEVEL(name),
const ptx_fn LEVEL(ptx_ops)[OP_COUNT] = {
#undef ALU1
#undef ALU2
#undef ALU3
#undef ALU4
#undef CMP
#undef SEL
#undef LD
#undef ST
#include "tests/emu/ptx_rows.h"
};
