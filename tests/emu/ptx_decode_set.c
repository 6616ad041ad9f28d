/* SPDX-License-Identifier: MIT */
/* ptx_decode_set.c - comparisons, choices and moves become operations.
 *
 * Owns nothing. (1) A comparison that is joined with a predicate, or has two
 * results, is made beside them first: they may be its guard. (2) A vector in a
 * mov is an operation for each part. Lock: none.
 */
#include "tests/emu/ptx_int.h"

/* ---- comparisons ------------------------------------------------------------------------ */

static ptx_fn compare_row(struct parse *p, enum ptx_type t)
{
	static const char *const same[][2] = {
		{ "lo", "lt" }, { "ls", "le" }, { "hi", "gt" }, { "hs", "ge" },
	};
	struct slice op = p->in.mod[1];
	bool eq = slice_is(op, "eq") || slice_is(op, "ne");
	char name[8];

	if (op.len >= sizeof(name))
		return NULL;
	snprintf(name, sizeof(name), "%.*s", (int)op.len, op.at);
	if (type_float(t))
		return t == T_F16X2 || t == T_BF16X2 ? NULL : ptx_row(p, "%s_%s", name, ptx_float_name(t));
	for (int i = 0; i < 4; i++)
		if (!strcmp(name, same[i][0]))
			return ptx_row(p, "%s_u%u", same[i][1], ptx_bits(t));
	return ptx_row(p, "%s_%c%u", name, eq ? 'b' : ptx_letter(t), ptx_bits(t));
}

/* a, b at operand `at` are compared; the result, joined with c if there is one
 * by .and, .or, .xor, is left in *slot, and its opposite in *other if that is
 * not NULL. */
static int compare(struct parse *p, enum ptx_type t, uint32_t at, uint32_t *slot,
		   const uint32_t *other)
{
	struct insn *in = &p->in;
	unsigned s = ptx_type_size(t);
	ptx_fn fn = compare_row(p, t);
	bool joins = ptx_mod(in, "and") || ptx_mod(in, "or") || ptx_mod(in, "xor");
	uint32_t a, b, c = 0, to = *slot;
	struct ptx_op *o;
	int err = ptx_want(p, at + 2 + joins, at + 2 + joins);

	if (!err)
		err = ptx_use(p, &in->o[at], s, &a);
	if (!err)
		err = ptx_use(p, &in->o[at + 1], s, &b);
	if (!err && joins)
		err = ptx_use(p, &in->o[at + 2], 0, &c);
	if (!err && ptx_mod(in, "ftz") && t == T_F32) {
		err = ptx_flushed(p, "ftz_f32", s, &a);
		if (!err)
			err = ptx_flushed(p, "ftz_f32", s, &b);
	}
	if (err)
		return err;
	if (joins || other)
		to = ptx_slot_temp(p->f, 0);
	o = ptx_emit(p, fn);
	if (!o || !to)
		return -ENOMEM;
	o->r[0] = to;
	o->r[1] = a;
	o->r[2] = b;
	if (!joins && !other)
		return 0;
	o = ptx_emit(p, ptx_op_setpx);
	if (!o)
		return -ENOMEM;
	o->kind = ptx_mod(in, "or") ? LOGIC_OR : ptx_mod(in, "xor") ? LOGIC_XOR : LOGIC_AND;
	o->r[0] = *slot;
	o->r[1] = other ? *other : 0;
	o->r[2] = to;
	o->r[3] = c;
	return 0;
}

#define COMPARISONS	" eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan and or xor ftz"

int ptx_d_setp(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	bool joins = ptx_mod(in, "and") || ptx_mod(in, "or") || ptx_mod(in, "xor");
	bool two = in->n == 4u + joins;
	uint32_t to = 0, other = 0;
	int err;

	if (t == T_NONE || t == T_PRED || !ptx_only(in, COMPARISONS) || !compare_row(p, t))
		return ptx_unknown(p);
	if ((err = ptx_want(p, 3 + joins, 4 + joins)))
		return err;
	err = ptx_def(p, &in->o[0], 0, &to);
	if (!err && two)
		err = ptx_def(p, &in->o[1], 0, &other);
	return err ? err : compare(p, t, two ? 2 : 1, &to, two ? &other : NULL);
}

/* selp d, a, b, p on slots. */
static int select_op(struct parse *p, unsigned size, uint32_t d, uint32_t a, uint32_t b,
		     uint32_t pred)
{
	ptx_fn fn = ptx_row(p, "selp_b%u", 8 * size);
	struct ptx_op *o;

	if (!fn)
		return ptx_unknown(p);
	o = ptx_emit(p, fn);
	if (!o || !a || !b || !pred)
		return -ENOMEM;
	o->r[0] = d;
	o->r[1] = a;
	o->r[2] = b;
	o->r[3] = pred;
	return 0;
}

int ptx_d_set(struct parse *p)
{
	static const uint64_t ones[T_COUNT] = {
		[T_F32] = 0x3f800000, [T_F16] = 0x3c00, [T_BF16] = 0x3f80,
	};
	struct insn *in = &p->in;
	enum ptx_type d = ptx_mod_type(in, 0), t = ptx_mod_type(in, 1);
	unsigned s = ptx_type_size(d);
	uint32_t to = 0, pred = ptx_slot_temp(p->f, 0);
	int err;

	if (t == T_NONE || t == T_PRED || !ptx_only(in, COMPARISONS) || !compare_row(p, t) ||
	    s < 2 || s > 4 || d == T_F16X2 || d == T_BF16X2)
		return ptx_unknown(p);
	err = ptx_want(p, 3, 4);
	if (!err)
		err = ptx_def(p, &in->o[0], s, &to);
	if (!err)
		err = pred ? compare(p, t, 1, &pred, NULL) : -ENOMEM;
	if (err)
		return err;
	return select_op(p, s, to, ptx_slot_fill(p->f, FILL_CONST, ones[d] ? ones[d] : ~0ull, 0, s),
			 ptx_slot_fill(p->f, FILL_CONST, 0, 0, s), pred);
}

int ptx_d_selp(struct parse *p)
{
	enum ptx_type t = ptx_mod_type(&p->in, 0);
	unsigned s = ptx_type_size(t), sizes[] = { s, s, s, 0 };

	if (s < 2 || !ptx_only(&p->in, ""))
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "selp_b%u", 8 * s), sizes, 4, 0, NULL);
}

int ptx_d_slct(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0), c = ptx_mod_type(in, 1);
	unsigned s = ptx_type_size(t), sizes[] = { s, s, s, 4 };

	if ((c != T_S32 && c != T_F32) || !ptx_only(in, " ftz"))
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "slct_b%u_%s", 8 * s, c == T_F32 ? "f32" : "b32"), sizes, 4, 0, NULL);
}

int ptx_d_testp(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	const unsigned sizes[] = { 0, ptx_type_size(t) };
	int err;

	if (t != T_F32 && t != T_F64)
		return ptx_unknown(p);
	err = ptx_alu(p, ptx_row(p, "%.*s_%s", (int)in->mod[1].len, in->mod[1].at,
				 ptx_float_name(t)), sizes, 2, 0, NULL);
	if (!err && p->m->ncode)
		p->m->code[p->m->ncode - 1].r[2] = p->m->code[p->m->ncode - 1].r[1];
	return err;
}

/* ---- mov --------------------------------------------------------------------------------- */

/* mov.b32 {a, b}, c: a the lower part. */
static int mov_parts(struct parse *p, unsigned size)
{
	struct insn *in = &p->in;
	const struct operand *v = &in->o[0];
	uint32_t from, to;
	unsigned part = v->n ? size / v->n : 0;
	ptx_fn fn = part ? ptx_row(p, "part_b%u_b%u", 8 * part, 8 * size) : NULL;
	int err = ptx_use(p, &in->o[1], size, &from);

	if (!fn && !err)
		return ptx_unknown(p);
	for (unsigned i = 0; !err && i < v->n; i++) {
		const struct operand *e = &in->elem[v->first + i];
		struct ptx_op *o;

		if (e->kind == O_SINK)
			continue;
		err = ptx_def(p, e, part, &to);
		if (err)
			break;
		o = ptx_emit(p, fn);
		if (!o)
			return -ENOMEM;
		o->r[0] = to;
		o->r[1] = from;
		o->imm = 8 * part * i;
	}
	return err;
}

static int mov_join(struct parse *p, unsigned size)
{
	struct insn *in = &p->in;
	const struct operand v = in->o[1];
	unsigned part = v.n ? size / v.n : 0;
	ptx_fn fn = part ? ptx_row(p, "join_b%u_b%u", 8 * size, 8 * part) : NULL;
	const unsigned sizes[] = { size, part, part, part, part };

	if (!fn)
		return ptx_unknown(p);
	for (unsigned i = 0; i < v.n; i++)
		in->o[1 + i] = in->elem[v.first + i];
	in->n = 1u + v.n;
	return ptx_alu(p, fn, sizes, in->n, 0, NULL);
}

static int mov_clock(struct parse *p, unsigned size)
{
	uint32_t to;
	struct ptx_op *o;
	int err = ptx_def(p, &p->in.o[0], size, &to);

	if (err)
		return err;
	o = ptx_emit(p, ptx_op_clock);
	if (!o)
		return -ENOMEM;
	o->r[0] = to;
	o->size = (uint8_t)size;
	o->imm = (int64_t)p->in.o[1].imm;
	return 0;
}

int ptx_d_mov(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	unsigned s = ptx_type_size(t), sizes[] = { s, s };
	int err = ptx_want(p, 2, 2);

	if (err)
		return err;
	if (t == T_PRED)
		return ptx_pred_logic(p, LOGIC_MOV, 2);
	if (s < 2 || !ptx_only(in, "") || in->o[1].kind == O_NAME)
		return ptx_unknown(p);
	if (in->o[0].kind == O_VEC)
		return mov_parts(p, s);
	if (in->o[1].kind == O_VEC)
		return mov_join(p, s);
	if (in->o[1].kind == O_SPECIAL && in->o[1].n == FILL_NONE)
		return mov_clock(p, s);
	return ptx_alu(p, ptx_row(p, "mov_b%u", 8 * s), sizes, 2, 0, NULL);
}
