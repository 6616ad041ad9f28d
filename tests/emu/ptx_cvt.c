/* SPDX-License-Identifier: MIT */
/* ptx_cvt.c - cvt: the common forms by their rows, the others lane by lane.
 *
 * Owns nothing. (1) A value is taken to the widest type of its kind, which holds
 * it exactly, and rounded once from there. (2) To an integer that is too narrow
 * floats clamp, integers wrap; with .sat they clamp too. NaN is 0. Lock: none.
 */
#include "tests/emu/ptx_int.h"
#include "tests/emu/ptx_math.h"

#include <fenv.h>
#include <math.h>

/* imm of the operation. */
#define CVT_SAT		1
#define CVT_INTEGRAL	2	/* .rni and the like: of float to float */

/* ---- lane by lane ---------------------------------------------------------------- */

static const int modes[] = {
	[RND_NONE] = FE_TONEAREST, [RND_NEAR] = FE_TONEAREST, [RND_ZERO] = FE_TOWARDZERO,
	[RND_DOWN] = FE_DOWNWARD,  [RND_UP] = FE_UPWARD,      [RND_AWAY] = FE_TONEAREST,
};

/* What rounds by the processor's mode: the inner function loops over the lanes,
 * so that nothing of it can move out of here. */
int ptx_op_round(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	int r;

	fesetround(modes[o->rnd]);
	r = o->inner(w, o, m);
	fesetround(FE_TONEAREST);
	return r;
}

static uint64_t raw(const struct ptx_warp *w, uint32_t place, unsigned size, unsigned i)
{
	const uint8_t *at = w->r + place + i * size;
	uint64_t v = 0;

	memcpy(&v, at, size);
	return v;
}

static int64_t sign_extend(uint64_t v, unsigned size)
{
	unsigned shift = 64 - 8 * size;

	return (int64_t)(v << shift) >> shift;
}

static double float_of(uint64_t v, enum ptx_type t)
{
	switch (t) {
	case T_F16: return f16_to((uint16_t)v);
	case T_BF16: return bf16_to((uint16_t)v);
	case T_F32: return f32_bits((uint32_t)v);
	default: return f64_bits(v);
	}
}

/* A float to fewer bits of mantissa and exponent, in a given direction. The
 * lower bits of the result are zero, as bits of float. */
static uint16_t half_directed(double d, enum round rnd, enum ptx_type t)
{
	float odd = f32_odd(d), back;
	uint16_t h = t == T_F16 ? f16_of(odd) : bf16_of(odd);
	uint16_t most = t == T_F16 ? 0x7bff : 0x7f7f;
	bool down = rnd == RND_DOWN || (rnd == RND_ZERO && d > 0), up;

	if (d != d || rnd <= RND_NEAR || rnd == RND_AWAY)
		return h;
	up = rnd == RND_UP || (rnd == RND_ZERO && d < 0);
	back = t == T_F16 ? f16_to(h) : bf16_to(h);
	if ((h & 0x7fff) == most + 1 && fabs(d) < INFINITY)
		return (d > 0 ? down : up) ? (uint16_t)((h & 0x8000) | most) : h;
	if (down && (double)back > d)
		return back > 0 ? (uint16_t)(h - 1) : h == 0 ? 0x8001 : (uint16_t)(h + 1);
	if (up && (double)back < d)
		return back < 0 ? (uint16_t)(h - 1) : h == 0x8000 ? 1 : (uint16_t)(h + 1);
	return h;
}

static double integral(double d, enum round rnd)
{
	switch (rnd) {
	case RND_ZERO: return trunc(d);
	case RND_DOWN: return floor(d);
	case RND_UP: return ceil(d);
	default: return rint(d);
	}
}

static uint64_t int_of_float(double d, enum ptx_type t, enum round rnd)
{
	unsigned bits = 8 * ptx_type_size(t);
	double top = ldexp(1, (int)bits - type_signed(t));
	double bottom = type_signed(t) ? -top : 0;

	d = integral(d, rnd);
	if (d != d)
		return 0;
	if (d >= top)
		return ~0ull >> (64 - bits + type_signed(t));
	if (d <= bottom)
		return type_signed(t) ? ~0ull << (bits - 1) : 0;
	return type_signed(t) ? (uint64_t)(int64_t)d : (uint64_t)d;
}

static uint64_t int_of_int(uint64_t v, enum ptx_type from, enum ptx_type to, bool sat)
{
	unsigned bits = 8 * ptx_type_size(to);
	int64_t s = (int64_t)v, least = type_signed(to) ? (int64_t)(~0ull << (bits - 1)) : 0;
	uint64_t most = ~0ull >> (64 - bits + type_signed(to));

	if (!sat)
		return v;
	if (type_signed(from) && s < least)
		return (uint64_t)least;
	return (!type_signed(from) || s > 0) && v > most ? most : v;
}

/* Under the rounding mode that is set. */
static uint64_t float_result(double d, enum ptx_type t, enum round rnd)
{
	switch (t) {
	case T_F16:
	case T_BF16: return half_directed(d, rnd, t);
	case T_F32: return bits_f32(canon_f32((float)d));
	default: return bits_f64(canon_f64(d));
	}
}

/* An integer of 64 bits that double cannot hold goes to float at once. */
static uint64_t float_of_int(uint64_t v, bool is_signed, enum ptx_type t, enum round rnd)
{
	if (t == T_F32)
		return bits_f32(is_signed ? (float)(int64_t)v : (float)v);
	return float_result(is_signed ? (double)(int64_t)v : (double)v, t, rnd);
}

static uint64_t lane(const struct ptx_op *o, uint64_t v)
{
	enum ptx_type to = o->size, from = o->n;
	unsigned fs = ptx_type_size(from);
	bool sat = o->imm & CVT_SAT;
	double d;

	if (!type_float(from)) {
		v = type_signed(from) ? (uint64_t)sign_extend(v, fs) : v & ~0ull >> (64 - 8 * fs);
		if (!type_float(to))
			return int_of_int(v, from, to, sat);
		return float_of_int(v, type_signed(from), to, o->rnd);
	}
	d = float_of(v, from);
	if (!type_float(to))
		return int_of_float(d, to, o->rnd);
	if (o->imm & CVT_INTEGRAL)
		d = integral(d, o->rnd);
	if (sat)
		d = d > 0 ? d < 1 ? d : 1 : 0;
	return float_result(d, to, o->imm & CVT_INTEGRAL ? RND_NEAR : o->rnd);
}

/* space, kind: bytes of the registers; size, n: types. */
int ptx_op_cvt(struct ptx_warp *w, const struct ptx_op *o, uint32_t m)
{
	unsigned ts = ptx_type_size(o->size);
	bool directed = (o->size == T_F32 || o->size == T_F64) && !(o->imm & CVT_INTEGRAL);

	if (directed)
		fesetround(modes[o->rnd]);
	for (unsigned i = 0; i < LANES; i++) {
		uint64_t v;

		if (!(m >> i & 1))
			continue;
		v = lane(o, raw(w, o->r[1], o->kind, i));
		if (!type_float(o->size))
			v = type_signed(o->size) ? (uint64_t)sign_extend(v, ts) :
				v & ~0ull >> (64 - 8 * ts);
		memcpy(w->r + o->r[0] + i * o->space, &v, o->space);
	}
	if (directed)
		fesetround(FE_TONEAREST);
	return GO_ON;
}

/* ---- which form it is --------------------------------------------------------------- */

static enum round rounding(const struct insn *in, bool integer)
{
	static const char *const names[][2] = {
		{ "rn", "rni" }, { "rz", "rzi" }, { "rm", "rmi" }, { "rp", "rpi" },
	};

	for (int i = 0; i < 4; i++)
		if (ptx_mod(in, names[i][integer]))
			return (enum round)(RND_NEAR + i);
	return RND_NONE;
}

static int put(struct parse *p, ptx_fn fn, enum round rnd, uint32_t to, uint32_t from)
{
	struct ptx_op *o = ptx_emit(p, rnd > RND_NEAR ? ptx_op_round : fn);

	if (!o || !to || !from)
		return -ENOMEM;
	o->inner = fn;
	o->rnd = (uint8_t)rnd;
	o->r[0] = to;
	o->r[1] = from;
	return 0;
}

static int put_named(struct parse *p, const char *name, uint32_t to, uint32_t from)
{
	ptx_fn fn = ptx_op_named(p->m, name);

	return fn ? put(p, fn, RND_NONE, to, from) : ptx_unknown(p);
}

/* cvt.rn.f16x2.f32 d, a, b */
static int packed(struct parse *p, enum ptx_type t)
{
	struct insn *in = &p->in;
	ptx_fn fn = ptx_op_named(p->m, t == T_F16X2 ? "cvt_f16x2_f32" : "cvt_bf16x2_f32");
	uint32_t d, a, b;
	struct ptx_op *o;
	int err = ptx_want(p, 3, 3);

	if (!ptx_mod(in, "rn") || ptx_mod_type(in, 1) != T_F32)
		return ptx_unknown(p);
	if (!err)
		err = ptx_def(p, &in->o[0], 4, &d);
	if (!err)
		err = ptx_use(p, &in->o[1], 4, &a);
	if (!err)
		err = ptx_use(p, &in->o[2], 4, &b);
	if (err)
		return err;
	o = ptx_emit(p, fn);
	if (!o)
		return -ENOMEM;
	o->r[0] = d;
	o->r[1] = a;
	o->r[2] = b;
	if (ptx_mod(in, "relu"))
		err = put_named(p, t == T_F16X2 ? "relu_f16x2" : "relu_bf16x2", d, d);
	return err;
}

/* Integer to integer, nothing but width changes. NULL: not so. */
static ptx_fn widening(struct parse *p, enum ptx_type to, enum ptx_type from, unsigned dreg,
		       unsigned sreg)
{
	unsigned ds = ptx_type_size(to), ss = ptx_type_size(from);
	char name[32];

	if (ptx_mod(&p->in, "sat") || dreg != ds)
		return NULL;
	if (ss >= ds)
		snprintf(name, sizeof(name), "cvt_U%u_u%u_U%u", 8 * dreg, 8 * ds, 8 * sreg);
	else
		snprintf(name, sizeof(name), "cvt_U%u_%c%u_U%u", 8 * dreg,
			 type_signed(from) ? 's' : 'u', 8 * ss, 8 * sreg);
	if (ds == 8 && ss == 8)
		return ptx_op_named(p->m, "mov_b64");
	return ptx_op_named(p->m, name);
}

static const char *short_name(enum ptx_type t)
{
	static const char *const names[T_COUNT] = {
		[T_U16] = "u16", [T_S16] = "s16", [T_U32] = "u32",   [T_S32] = "s32",
		[T_F16] = "f16", [T_F32] = "f32", [T_BF16] = "bf16", [T_F64] = "f64",
	};

	return names[t];
}

/* A row, where there is one that does just this. */
static ptx_fn common(struct parse *p, enum ptx_type to, enum ptx_type from, enum round rnd,
		     enum round irnd)
{
	static const char *const how[] = {
		[RND_NEAR] = "rni_", [RND_ZERO] = "rzi_", [RND_DOWN] = "rmi_", [RND_UP] = "rpi_",
	};
	const char *a = short_name(to), *b = short_name(from);
	char name[40];

	if (!a || !b)
		return NULL;
	if (rnd > RND_NEAR && (to == T_F16 || to == T_BF16))
		return NULL;
	snprintf(name, sizeof(name), "cvt_%s%s_%s", irnd ? how[irnd] : "", a, b);
	return ptx_op_named(p->m, name);
}

static int lanewise(struct parse *p, enum ptx_type to, enum ptx_type from, unsigned dreg,
		    unsigned sreg, enum round rnd, enum round irnd, uint32_t d, uint32_t s)
{
	int err = put(p, ptx_op_cvt, RND_NONE, d, s);
	struct ptx_op *o = err ? NULL : &p->m->code[p->m->ncode - 1];

	if (err)
		return err;
	o->inner = NULL;
	o->size = (uint8_t)to;
	o->n = (uint8_t)from;
	o->space = (uint8_t)dreg;
	o->kind = (uint8_t)sreg;
	o->rnd = (uint8_t)(irnd ? irnd : rnd);
	o->imm = (ptx_mod(&p->in, "sat") ? CVT_SAT : 0) |
		(irnd && type_float(to) ? CVT_INTEGRAL : 0);
	return 0;
}

/* A narrow integer is widened first, so that the rows for 32 bits do. */
static int widened(struct parse *p, enum ptx_type *from, unsigned *sreg, uint32_t *s)
{
	uint32_t t;
	ptx_fn fn;

	if (type_float(*from) || ptx_type_size(*from) == 8 ||
	    (ptx_type_size(*from) == *sreg && *sreg >= 2))
		return 0;
	fn = ptx_type_size(*from) == 4 ? ptx_op_named(p->m, "cvt_U32_u32_U64") :
		widening(p, T_U32, *from, 4, *sreg);
	t = ptx_slot_temp(p->f, 4);
	if (!fn || put(p, fn, RND_NONE, t, *s))
		return fn ? -ENOMEM : 0;
	*from = type_signed(*from) ? T_S32 : T_U32;
	*sreg = 4;
	*s = t;
	return 0;
}

/* What is done to the result after that. `by_row`: it did not come
 * lane by lane. */
static int finish(struct parse *p, enum ptx_type to, bool by_row, uint32_t d)
{
	const struct insn *in = &p->in;
	int err = 0;

	if (ptx_mod(in, "ftz") && to == T_F32)
		err = put_named(p, "ftz_f32", d, d);
	if (!err && by_row && ptx_mod(in, "sat") && type_float(to))
		err = put_named(p, "sat_f32", d, d);
	if (!err && ptx_mod(in, "relu"))
		err = to == T_F16 ? put_named(p, "relu_f16", d, d) :
			to == T_BF16 ? put_named(p, "relu_bf16", d, d) : ptx_unknown(p);
	return err;
}

/* From the register s to d, of so many bytes. */
static int convert(struct parse *p, enum ptx_type to, enum ptx_type from, unsigned dreg,
		   unsigned sreg, uint32_t d, uint32_t s)
{
	enum round rnd = rounding(&p->in, false), irnd = rounding(&p->in, true);
	ptx_fn fn = NULL;
	int err = 0;

	if (!type_float(to) && !type_float(from)) {
		fn = widening(p, to, from, dreg, sreg);
		return fn ? put(p, fn, RND_NONE, d, s) :
			lanewise(p, to, from, dreg, sreg, RND_NONE, RND_NONE, d, s);
	}
	if (type_float(to))
		err = widened(p, &from, &sreg, &s);
	if (!err && dreg == ptx_type_size(to) && sreg == ptx_type_size(from) &&
	    (!ptx_mod(&p->in, "sat") || to == T_F32))
		fn = common(p, to, from, rnd, irnd);
	if (!err)
		err = fn ? put(p, fn, rnd, d, s) :
			lanewise(p, to, from, dreg, sreg, rnd, irnd, d, s);
	return err ? err : finish(p, to, fn != NULL, d);
}

int ptx_decode_cvt(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type to = ptx_mod_type(in, 0), from = ptx_mod_type(in, 1);
	unsigned dreg = ptx_type_size(to) < 2 ? 2 : ptx_type_size(to), sreg;
	uint32_t d, s, t;
	int err;

	if (!ptx_type_size(to) || !ptx_type_size(from) ||
	    !ptx_only(in, " rn rz rm rp rni rzi rmi rpi sat ftz relu"))
		return ptx_unknown(p);
	if (to == T_F16X2 || to == T_BF16X2)
		return packed(p, to);
	if (from == T_F16X2 || from == T_BF16X2 ||
	    (type_float(from) && !type_float(to) && !rounding(in, true)))
		return ptx_unknown(p);
	err = ptx_want(p, 2, 2);
	if (!err)
		err = ptx_use_any(p, &in->o[1], ptx_type_size(from), &s, &sreg);
	if (!err && in->o[0].kind == O_REG && ptx_type_size(in->o[0].type) > dreg)
		dreg = ptx_type_size(in->o[0].type);
	if (!err)
		err = ptx_def(p, &in->o[0], dreg, &d);
	if (!err && ptx_mod(in, "ftz") && from == T_F32) {
		t = ptx_slot_temp(p->f, 4);
		err = put_named(p, "ftz_f32", t, s);
		s = t;
	}
	return err ? err : convert(p, to, from, dreg, sreg, d, s);
}
