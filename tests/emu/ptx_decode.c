/* SPDX-License-Identifier: MIT */
/* ptx_decode.c - instructions on registers become operations.
 *
 * Owns nothing. (1) The row of ptx_alu.def is found by a name made of the
 * instruction's; a modifier that is not known makes the function one that cannot
 * run. (2) What a modifier adds (.sat, .ftz, .relu) is an operation of its own
 * before or after. (3) Operands have just the size the type wants, but for
 * ld, st and cvt, where registers may be wider. Lock: none.
 */
#include "tests/emu/ptx_int.h"

#include <pthread.h>
#include <stdarg.h>

/* ---- operations by name -------------------------------------------------------- */

static uint16_t by_name[OP_COUNT];
static pthread_once_t sorted = PTHREAD_ONCE_INIT;

static int name_order(const void *a, const void *b)
{
	const uint16_t *x = a, *y = b;

	return strcmp(ptx_op_names[*x], ptx_op_names[*y]);
}

static void sort_names(void)
{
	for (uint16_t i = 0; i < OP_COUNT; i++)
		by_name[i] = i;
	qsort(by_name, OP_COUNT, sizeof(*by_name), name_order);
}

ptx_fn ptx_op_named(const struct ptx_module *m, const char *name)
{
	unsigned lo = 0, hi = OP_COUNT;

	pthread_once(&sorted, sort_names);
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		int d = strcmp(name, ptx_op_names[by_name[mid]]);

		if (!d)
			return m->ops[by_name[mid]];
		if (d < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

ptx_fn ptx_row(struct parse *p, const char *fmt, ...)
{
	char name[64];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	return n < (int)sizeof(name) ? ptx_op_named(p->m, name) : NULL;
}

struct ptx_op *ptx_emit(struct parse *p, ptx_fn fn)
{
	struct ptx_module *m = p->m;
	struct ptx_op *o;

	if (ptx_grow(&m->code, &m->ccode, m->ncode, sizeof(*m->code)))
		return NULL;
	o = &m->code[m->ncode++];
	*o = (struct ptx_op){ .fn = fn, .line = p->in.line, .name = p->in.op.at,
			      .name_len = (uint16_t)(p->in.op.len < 80 ? p->in.op.len : 80),
			      .guard = p->in.guard, .guard_not = p->in.guard_not ? FULL : 0 };
	return o;
}

/* ---- modifiers, operands --------------------------------------------------------- */

bool ptx_mod(const struct insn *in, const char *name)
{
	for (uint32_t i = 1; i < in->nmods; i++)
		if (slice_is(in->mod[i], name))
			return true;
	return false;
}

enum ptx_type ptx_mod_type(const struct insn *in, uint32_t nth)
{
	for (uint32_t i = 1; i < in->nmods; i++) {
		enum ptx_type t = ptx_type_named(in->mod[i]);

		if (t != T_NONE && !nth--)
			return t;
	}
	return T_NONE;
}

/* Are all modifiers types, or words of the list? */
bool ptx_only(const struct insn *in, const char *list)
{
	for (uint32_t i = 1; i < in->nmods; i++) {
		struct slice s = in->mod[i];
		const char *at = list;
		bool found = ptx_type_named(s) != T_NONE;

		while (!found && (at = strstr(at, " "))) {
			at++;
			found = !strncmp(at, s.at, s.len) && (at[s.len] == ' ' || !at[s.len]);
		}
		if (!found)
			return false;
	}
	return true;
}

int ptx_unknown(struct parse *p)
{
	return ptx_unsupported(p, "%.*s", (int)p->in.op.len, p->in.op.at);
}

int ptx_want(struct parse *p, uint32_t least, uint32_t most)
{
	return p->in.n >= least && p->in.n <= most ? 0 :
		ptx_bad(p, "%.*s has %u operands", (int)p->in.op.len, p->in.op.at, p->in.n);
}

static unsigned size_of_reg(enum ptx_type t)
{
	return t == T_PRED ? 0 : ptx_type_size(t) < 2 ? 2 : ptx_type_size(t);
}

static uint64_t float_bits(const struct operand *o, unsigned size)
{
	uint64_t bits = o->imm;
	uint32_t u = (uint32_t)bits;
	double d;
	float f;

	if (o->kind == O_F32 && size == 8) {
		memcpy(&f, &u, 4);
		d = f;
		memcpy(&bits, &d, 8);
	} else if (o->kind == O_F64 && size == 4) {
		memcpy(&d, &bits, 8);
		f = (float)d;
		memcpy(&u, &f, 4);
		bits = u;
	}
	return o->minus ? bits ^ 1ull << (8 * size - 1) : bits;
}

static int use_pred(struct parse *p, const struct operand *o, uint32_t *slot)
{
	struct ptx_op *op;
	uint32_t from = o->slot;

	if (o->kind == O_INT) {
		*slot = ptx_slot_fill(p->f, FILL_CONST, !o->imm == o->not, 0, 0);
		return *slot ? 0 : -ENOMEM;
	}
	if (o->kind != O_REG || o->type != T_PRED)
		return ptx_bad(p, "a predicate is expected");
	*slot = from;
	if (!o->not)
		return 0;
	*slot = ptx_slot_temp(p->f, 0);
	op = ptx_emit(p, ptx_op_predlogic);
	if (!*slot || !op)
		return -ENOMEM;
	op->kind = LOGIC_NOT;
	op->r[0] = *slot;
	op->r[1] = from;
	return 0;
}

/* The slot of an operand that is read. */
int ptx_use(struct parse *p, const struct operand *o, unsigned size, uint32_t *slot)
{
	struct ptx_func *f = p->f;

	if (!size)
		return use_pred(p, o, slot);
	switch (o->kind) {
	case O_REG:
		if (size_of_reg(o->type) != size || o->type == T_PRED)
			return ptx_bad(p, "%.*s has not the size of the type",
				       (int)o->name.len, o->name.at);
		*slot = o->slot;
		break;
	case O_INT:
		*slot = ptx_slot_fill(f, FILL_CONST, o->imm, 0, size);
		break;
	case O_F32:
	case O_F64:
		*slot = ptx_slot_fill(f, FILL_CONST, float_bits(o, size), 0, size);
		break;
	case O_VAR:
		if (size < 4)
			return ptx_bad(p, "an address wants more bits");
		*slot = ptx_slot_fill(f, FILL_VAR, o->imm, o->var, size);
		break;
	case O_SPECIAL:
		if (o->n == FILL_NONE)
			return ptx_bad(p, "a clock is read by mov only");
		*slot = ptx_slot_fill(f, (enum fill)o->n, o->imm, 0, size);
		break;
	default:
		return ptx_bad(p, "%.*s: an operand is of no use", (int)p->in.op.len, p->in.op.at);
	}
	return *slot ? 0 : -ENOMEM;
}

/* A register may be wider than `least`. */
int ptx_use_any(struct parse *p, const struct operand *o, unsigned least, uint32_t *slot,
		unsigned *size)
{
	*size = least < 2 ? 2 : least;
	if (o->kind == O_REG && o->type != T_PRED && size_of_reg(o->type) > least)
		*size = size_of_reg(o->type);
	return ptx_use(p, o, *size, slot);
}

int ptx_def(struct parse *p, const struct operand *o, unsigned size, uint32_t *slot)
{
	if (o->kind == O_SINK) {
		*slot = ptx_slot_temp(p->f, size);
		return *slot ? 0 : -ENOMEM;
	}
	if (o->kind != O_REG || (o->type == T_PRED) != !size || size_of_reg(o->type) != size)
		return ptx_bad(p, "%.*s: no register of this size to write to",
			       (int)p->in.op.len, p->in.op.at);
	*slot = o->slot;
	return 0;
}

/* ---- arithmetic ------------------------------------------------------------------- */

static int post(struct parse *p, const char *name, uint32_t slot)
{
	ptx_fn fn = ptx_op_named(p->m, name);
	struct ptx_op *o;

	if (!fn)
		return ptx_unknown(p);
	o = ptx_emit(p, fn);
	if (!o)
		return -ENOMEM;
	o->r[0] = o->r[1] = slot;
	return 0;
}

int ptx_flushed(struct parse *p, const char *name, unsigned size, uint32_t *slot)
{
	uint32_t t = ptx_slot_temp(p->f, size);
	ptx_fn fn = ptx_op_named(p->m, name);
	struct ptx_op *o;

	if (!fn)
		return ptx_unknown(p);
	o = ptx_emit(p, fn);
	if (!t || !o)
		return -ENOMEM;
	o->r[0] = t;
	o->r[1] = *slot;
	*slot = t;
	return 0;
}

/* d, a, b, ...: sizes[] says how wide each is. imm: of the operation. */
int ptx_alu(struct parse *p, ptx_fn fn, const unsigned *sizes, uint32_t n, int64_t imm,
	       const struct ptx_extra *x)
{
	uint32_t slot[6];
	struct ptx_op *o;
	int err = ptx_want(p, n, n);

	if (err)
		return err;
	if (!fn)
		return ptx_unknown(p);
	for (uint32_t i = 1; i < n; i++) {
		err = ptx_use(p, &p->in.o[i], sizes[i], &slot[i]);
		if (!err && x && x->before && sizes[i] == sizes[0])
			err = ptx_flushed(p, x->before, sizes[i], &slot[i]);
		if (err)
			return err;
	}
	if ((err = ptx_def(p, &p->in.o[0], sizes[0], &slot[0])))
		return err;
	o = ptx_emit(p, x && x->rnd > RND_NEAR ? ptx_op_round : fn);
	if (!o)
		return -ENOMEM;
	o->inner = fn;
	o->rnd = x ? (uint8_t)x->rnd : 0;
	o->imm = imm;
	memcpy(o->r, slot, n * sizeof(*slot));
	if (x && x->after)
		err = post(p, x->after, slot[0]);
	if (!err && x && x->also)
		err = post(p, x->also, slot[0]);
	return err;
}

static enum round rounding(const struct insn *in)
{
	return ptx_mod(in, "rz") ? RND_ZERO : ptx_mod(in, "rm") ? RND_DOWN :
		ptx_mod(in, "rp") ? RND_UP : RND_NONE;
}

const char *ptx_float_name(enum ptx_type t)
{
	static const char *const names[T_COUNT] = {
		[T_F16] = "f16", [T_F16X2] = "f16x2", [T_BF16] = "bf16",
		[T_BF16X2] = "bf16x2", [T_F32] = "f32", [T_F64] = "f64",
	};

	return names[t];
}

static void extras(const struct insn *in, enum ptx_type t, struct ptx_extra *x, char buf[2][16])
{
	*x = (struct ptx_extra){ .rnd = rounding(in) };
	snprintf(buf[0], 16, "ftz_%s", ptx_float_name(t));
	if (ptx_mod(in, "ftz"))
		x->before = x->after = buf[0];
	snprintf(buf[1], 16, "%s_%s", ptx_mod(in, "sat") ? "sat" : "relu", ptx_float_name(t));
	if (ptx_mod(in, "sat") || ptx_mod(in, "relu"))
		x->also = buf[1];
}

/* Floats: d and `n` - 1 operands of one type. */
static int floats(struct parse *p, const char *base, enum ptx_type t, uint32_t n)
{
	struct insn *in = &p->in;
	unsigned s = ptx_type_size(t), sizes[] = { s, s, s, s };
	struct ptx_extra x;
	char buf[2][16];

	if (!ptx_only(in, " rn rz rm rp ftz sat relu approx full NaN"))
		return ptx_unknown(p);
	extras(in, t, &x, buf);
	if (x.rnd && t != T_F32 && t != T_F64)
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "%s%s_%s", base, ptx_mod(in, "NaN") ? "_NaN" : "", ptx_float_name(t)),
		   sizes, n, 0, &x);
}

uint32_t ptx_bits(enum ptx_type t)
{
	return 8 * ptx_type_size(t);
}

char ptx_letter(enum ptx_type t)
{
	return type_signed(t) ? 's' : 'u';
}

static bool integer(enum ptx_type t)
{
	return t != T_NONE && t != T_PRED && !type_float(t) && ptx_type_size(t) >= 2;
}

static int carry(struct parse *p, bool sub, bool in, unsigned size)
{
	const unsigned sizes[] = { size, size, size };
	int64_t how = sub | in << 1 | (int64_t)ptx_mod(&p->in, "cc") << 2 | (int64_t)size << 8;

	return ptx_alu(p, ptx_op_carry, sizes, 3, how, NULL);
}

static int d_add(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	bool sub = in->mod[0].at[0] == 's', c = in->mod[0].len == 4;
	unsigned s = ptx_type_size(t), sizes[] = { s, s, s };

	if (type_float(t))
		return floats(p, sub ? "sub" : "add", t, 3);
	if (!integer(t) || !ptx_only(in, " sat cc"))
		return ptx_unknown(p);
	if (c || ptx_mod(in, "cc"))
		return s < 4 ? ptx_unknown(p) : carry(p, sub, c, s);
	if (ptx_mod(in, "sat"))
		return ptx_alu(p, ptx_row(p, "%s_sat_%c%u", sub ? "sub" : "add", ptx_letter(t), ptx_bits(t)),
			   sizes, 3, 0, NULL);
	return ptx_alu(p, ptx_row(p, "%s_b%u", sub ? "sub" : "add", ptx_bits(t)), sizes, 3, 0, NULL);
}

/* mul, mad, fma */
static int d_mul(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	bool mad = !slice_is(in->mod[0], "mul");
	unsigned s = ptx_type_size(t), sizes[] = { s, s, s, s };
	const char *base = mad ? "mad" : "mul";

	if (type_float(t))
		return floats(p, mad ? "fma" : "mul", t, mad ? 4 : 3);
	if (!integer(t) || !ptx_only(in, " lo hi wide sat"))
		return ptx_unknown(p);
	if (ptx_mod(in, "wide")) {
		sizes[0] = sizes[3] = 2 * s;
		return ptx_alu(p, ptx_row(p, "%s_wide_%c%u", base, ptx_letter(t), ptx_bits(t)), sizes,
			   mad ? 4 : 3, 0, NULL);
	}
	if (ptx_mod(in, "hi"))
		return ptx_alu(p, ptx_row(p, "%s_hi%s_%c%u", base, ptx_mod(in, "sat") ? "_sat" : "",
				  ptx_letter(t), ptx_bits(t)), sizes, mad ? 4 : 3, 0, NULL);
	if (!ptx_mod(in, "lo") || ptx_mod(in, "sat"))
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "%s_lo_b%u", base, ptx_bits(t)), sizes, mad ? 4 : 3, 0, NULL);
}

/* mul24, mad24, sad */
static int d_mul24(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	bool three = in->mod[0].at[1] != 'u', sad = in->mod[0].len == 3;
	unsigned s = ptx_type_size(t), sizes[] = { s, s, s, s };

	if (!integer(t) || !ptx_only(in, " lo hi"))
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "%.*s%s_%c%u", (int)in->mod[0].len, in->mod[0].at,
			  sad ? "" : ptx_mod(in, "hi") ? "_hi" : "_lo", ptx_letter(t), ptx_bits(t)),
		   sizes, three ? 4 : 3, 0, NULL);
}

/* div, rem, min, max: signs make a difference. */
static int d_div(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	unsigned s = ptx_type_size(t), sizes[] = { s, s, s };
	char base[8];

	snprintf(base, sizeof(base), "%.*s", (int)in->mod[0].len, in->mod[0].at);
	if (type_float(t))
		return floats(p, base, t, 3);
	if (!integer(t) || !ptx_only(in, ""))
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "%s_%c%u", base, ptx_letter(t), ptx_bits(t)), sizes, 3, 0, NULL);
}

/* One operand: abs, neg; rcp, sqrt, ex2 ... */
static int d_one(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	unsigned s = ptx_type_size(t), sizes[] = { s, s };
	char base[8];

	snprintf(base, sizeof(base), "%.*s", (int)in->mod[0].len, in->mod[0].at);
	if (type_float(t))
		return floats(p, base, t, 2);
	if (!integer(t) || !ptx_only(in, ""))
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "%s_b%u", base, ptx_bits(t)), sizes, 2, 0, NULL);
}

int ptx_pred_logic(struct parse *p, enum logic how, uint32_t n)
{
	const unsigned sizes[] = { 0, 0, 0 };
	int err = ptx_alu(p, ptx_op_predlogic, sizes, n, 0, NULL);

	if (!err)
		p->m->code[p->m->ncode - 1].kind = (uint8_t)how;
	return err;
}

/* and, or, xor, not, cnot */
static int d_logic(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	unsigned s = ptx_type_size(t), sizes[] = { s, s, s };
	char c = in->mod[0].at[0];
	uint32_t n = c == 'n' || c == 'c' ? 2 : 3;

	if (t == T_PRED && c != 'c')
		return ptx_pred_logic(p, c == 'a' ? LOGIC_AND : c == 'o' ? LOGIC_OR :
				  c == 'x' ? LOGIC_XOR : LOGIC_NOT, n);
	if (!integer(t) || !ptx_only(in, ""))
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "%.*s_b%u", (int)in->mod[0].len, in->mod[0].at, ptx_bits(t)), sizes,
		   n, 0, NULL);
}

static int d_shift(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	unsigned s = ptx_type_size(t), sizes[] = { s, s, 4 };
	bool left = in->mod[0].at[2] == 'l';

	if (!integer(t) || !ptx_only(in, ""))
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "%s_%c%u", left ? "shl" : "shr",
				  left ? 'b' : ptx_letter(t), ptx_bits(t)), sizes, 3, 0, NULL);
}

/* ---- bits --------------------------------------------------------------------------- */

/* popc, clz, bfind: the result has 32 bits. */
static int d_count(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	const unsigned sizes[] = { 4, ptx_type_size(t) };
	bool find = in->mod[0].at[0] == 'b';

	if (!integer(t) || !ptx_only(in, " shiftamt"))
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "%.*s%s_%c%u", (int)in->mod[0].len, in->mod[0].at,
			  ptx_mod(in, "shiftamt") ? "_shiftamt" : "",
			  find ? ptx_letter(t) : 'b', ptx_bits(t)), sizes, 2, 0, NULL);
}

static int d_field(struct parse *p)
{
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	unsigned s = ptx_type_size(t);
	bool insert = slice_is(in->mod[0], "bfi");
	const unsigned get[] = { s, s, 4, 4 }, put[] = { s, s, s, 4, 4 };

	if (!integer(t) || !ptx_only(in, ""))
		return ptx_unknown(p);
	return insert ? ptx_alu(p, ptx_row(p, "bfi_b%u", ptx_bits(t)), put, 5, 0, NULL) :
		ptx_alu(p, ptx_row(p, "bfe_%c%u", ptx_letter(t), ptx_bits(t)), get, 4, 0, NULL);
}

/* prmt, lop3, shf, bmsk: 32 bits. */
static int d_bits(struct parse *p)
{
	static const char *const modes[] = { "f4e", "b4e", "rc8", "ecl", "ecr", "rc16" };
	static const unsigned sizes[] = { 4, 4, 4, 4 };
	struct insn *in = &p->in;
	int64_t imm = 0;

	if (ptx_mod_type(in, 0) != T_B32 ||
	    !ptx_only(in, " f4e b4e rc8 ecl ecr rc16 l r wrap clamp"))
		return ptx_unknown(p);
	if (slice_is(in->mod[0], "lop3")) {
		if (in->n != 5 || in->o[4].kind != O_INT)
			return ptx_bad(p, "lop3 wants a table");
		imm = (int64_t)in->o[--in->n].imm;
		return ptx_alu(p, ptx_row(p, "lop3_b32"), sizes, 4, imm, NULL);
	}
	if (slice_is(in->mod[0], "bmsk"))
		return ptx_alu(p, ptx_row(p, "bmsk_clamp_b32"), sizes, 3, 0, NULL);
	for (int i = 0; i < 6; i++)
		if (ptx_mod(in, modes[i]))
			imm = i + 1;
	if (slice_is(in->mod[0], "prmt"))
		return ptx_alu(p, ptx_row(p, "prmt_b32"), sizes, 4, imm, NULL);
	return ptx_alu(p, ptx_row(p, "shf_%s_%s_b32", ptx_mod(in, "l") ? "l" : "r",
			  ptx_mod(in, "wrap") ? "wrap" : "clamp"), sizes, 4, 0, NULL);
}

static int d_dot(struct parse *p)
{
	static const unsigned sizes[] = { 4, 4, 4, 4 };
	struct insn *in = &p->in;

	if (!ptx_only(in, " lo hi"))
		return ptx_unknown(p);
	return ptx_alu(p, ptx_row(p, "%.*s_%c32_%c32", (int)in->mod[0].len, in->mod[0].at,
			  ptx_letter(ptx_mod_type(in, 0)), ptx_letter(ptx_mod_type(in, 1))),
		   sizes, 4, ptx_mod(in, "hi") ? 2 : 0, NULL);
}

/* copysign d, a, b: the sign of a, the rest of b. */
static int d_copysign(struct parse *p)
{
	return floats(p, "copysign", ptx_mod_type(&p->in, 0), 3);
}

/* ---- which is which ------------------------------------------------------------------------ */

static const struct {
	const char *name;
	int (*decode)(struct parse *p);		/* NULL: ptx_decode_mem, _warp */
} known[] = {
	{ "add", d_add },	{ "sub", d_add },	{ "addc", d_add },
	{ "subc", d_add },	{ "mul", d_mul },	{ "mad", d_mul },
	{ "fma", d_mul },	{ "mul24", d_mul24 },	{ "mad24", d_mul24 },
	{ "sad", d_mul24 },	{ "div", d_div },	{ "rem", d_div },
	{ "min", d_div },	{ "max", d_div },	{ "abs", d_one },
	{ "neg", d_one },	{ "rcp", d_one },	{ "sqrt", d_one },
	{ "rsqrt", d_one },	{ "ex2", d_one },	{ "lg2", d_one },
	{ "sin", d_one },	{ "cos", d_one },	{ "tanh", d_one },
	{ "brev", d_one },	{ "and", d_logic },	{ "or", d_logic },
	{ "xor", d_logic },	{ "not", d_logic },	{ "cnot", d_logic },
	{ "shl", d_shift },	{ "shr", d_shift },	{ "popc", d_count },
	{ "clz", d_count },	{ "bfind", d_count },	{ "bfe", d_field },
	{ "bfi", d_field },	{ "prmt", d_bits },	{ "lop3", d_bits },
	{ "shf", d_bits },	{ "bmsk", d_bits },	{ "dp4a", d_dot },
	{ "dp2a", d_dot },	{ "copysign", d_copysign }, { "setp", ptx_d_setp },
	{ "set", ptx_d_set },	{ "selp", ptx_d_selp },	{ "slct", ptx_d_slct },
	{ "testp", ptx_d_testp },	{ "mov", ptx_d_mov },	{ "cvt", ptx_decode_cvt },
	{ "cvta", NULL },	{ "isspacep", NULL },	{ "ld", NULL },
	{ "ldu", NULL },	{ "st", NULL },		{ "atom", NULL },
	{ "red", NULL },	{ "cp", NULL },		{ "bar", NULL },
	{ "barrier", NULL },	{ "shfl", NULL },	{ "vote", NULL },
	{ "match", NULL },	{ "redux", NULL },	{ "activemask", NULL },
	{ "bra", NULL },	{ "call", NULL },	{ "ret", NULL },
	{ "exit", NULL },	{ "trap", NULL },	{ "brkpt", NULL },
	{ "membar", NULL },	{ "fence", NULL },	{ "nanosleep", NULL },
	{ "prefetch", NULL },	{ "prefetchu", NULL },	{ "discard", NULL },
	{ "applypriority", NULL },
};

bool ptx_known(struct slice base)
{
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (slice_is(base, known[i].name))
			return true;
	return false;
}

int ptx_decode(struct parse *p)
{
	bool done = false;
	int err;

	if (p->f->why[0])
		return 0;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (slice_is(p->in.mod[0], known[i].name) && known[i].decode)
			return known[i].decode(p);
	err = ptx_decode_mem(p, &done);
	if (!err && !done)
		err = ptx_decode_warp(p, &done);
	return err || done ? err : ptx_unknown(p);
}
