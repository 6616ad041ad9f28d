/* SPDX-License-Identifier: MIT */
/* ptx_decode_mem.c - instructions on memory and addresses become operations.
 *
 * Owns nothing. (1) An address is a register and a constant; a variable's is a
 * register that is filled in before a block starts. (2) Caching, scopes and
 * orderings are read over: one processor runs the block, in order.
 * (3) .param is the launch's parameters in an entry; elsewhere, and for what is
 * passed on in calls, it is local memory. Lock: none.
 */
#include "tests/emu/ptx_int.h"

static bool one_of(struct slice s, const char *const *list)
{
	for (; *list; list++)
		if (slice_is(s, *list))
			return true;
	return false;
}

static bool starts(struct slice s, const char *with)
{
	return s.len >= strlen(with) && !memcmp(s.at, with, strlen(with));
}

static const char *const no_matter[] = {
	"volatile", "weak", "relaxed", "acquire", "release", "acq_rel", "sc", "mmio", "cta",
	"cluster", "gpu", "sys", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "uni", "noftz",
	"aligned", NULL
};
static const char *const spaces[] = {
	"global", "const", "shared", "local", "param", "shared::cta", "param::entry",
	"param::func", NULL
};

/* Are all modifiers harmless, a space, a type, or in `more`? */
static bool only(const struct insn *in, const char *const *more)
{
	for (uint32_t i = 1; i < in->nmods; i++) {
		struct slice s = in->mod[i];

		if (!one_of(s, no_matter) && !one_of(s, spaces) && !one_of(s, more) &&
		    !starts(s, "L1::") && !starts(s, "L2::") && ptx_type_named(s) == T_NONE)
			return false;
	}
	return true;
}

static enum ptx_space space_of(const struct parse *p, const struct operand *addr)
{
	const struct insn *in = &p->in;

	if (ptx_mod(in, "param") || ptx_mod(in, "param::entry") || ptx_mod(in, "param::func")) {
		if (addr && addr->kind == O_VAR)
			return p->m->vars[addr->var].space;
		return p->f->is_entry ? SP_PARAM : SP_LOCAL;
	}
	return ptx_mod(in, "global") ? SP_GLOBAL : ptx_mod(in, "const") ? SP_CONST :
		ptx_mod(in, "shared") || ptx_mod(in, "shared::cta") ? SP_SHARED :
		ptx_mod(in, "local") ? SP_LOCAL : SP_GENERIC;
}

/* The address in brackets: its slot, its constant, the register's size. */
static int address(struct parse *p, const struct operand *a, uint32_t *slot, int64_t *imm,
		   uint8_t *size)
{
	struct operand plain = *a;
	int err;

	*imm = 0;
	*size = 8;
	if (!a->mem)
		return ptx_bad(p, "an address in brackets is expected");
	if (a->kind == O_REG) {
		*imm = (int64_t)a->imm;
		*size = (uint8_t)ptx_type_size(a->type);
		if (*size != 4 && *size != 8)
			return ptx_bad(p, "an address has 32 or 64 bits");
	} else if (a->kind != O_VAR && a->kind != O_INT) {
		return ptx_bad(p, "an address is expected");
	}
	plain.mem = false;
	err = ptx_use(p, &plain, *size, slot);
	return err;
}

/* Elements of a vector, or the one operand. */
static uint32_t elements(struct parse *p, struct operand *o, struct operand **first)
{
	*first = o->kind == O_VEC ? &p->in.elem[o->first] : o;
	return o->kind == O_VEC ? o->n : 1;
}

/* The row for elements of type t in registers of *reg bytes, which are as wide as
 * the widest of the n. */
static ptx_fn access_row(struct parse *p, bool store, enum ptx_type t, const struct operand *e,
			 uint32_t n, unsigned *reg)
{
	unsigned s = ptx_type_size(t);

	*reg = store ? s : 0;
	for (uint32_t i = 0; i < n; i++)
		if (e[i].kind == O_REG && ptx_type_size(e[i].type) > *reg)
			*reg = ptx_type_size(e[i].type);
	*reg = *reg < 2 ? 2 : *reg;
	if (store)
		return ptx_row(p, "st_%u_%u", 8 * s, 8 * *reg);
	return ptx_row(p, "ld_%c%u_%u", type_signed(t) && *reg > s ? 's' : 'u', 8 * s, 8 * *reg);
}

/* ld d, [a]; st [a], b; a vector in braces. A third operand is a cache policy. */
static int d_access(struct parse *p)
{
	static const char *const more[] = { "v2", "v4", NULL };
	struct insn *in = &p->in;
	bool store = in->mod[0].at[0] == 's';
	struct operand *addr = &in->o[!store], *e;
	enum ptx_type t = ptx_mod_type(in, 0);
	struct ptx_op op = { 0 }, *o;
	unsigned reg;
	uint32_t n;
	int err = ptx_want(p, 2, 3);

	if (err)
		return err;
	if (!ptx_type_size(t) || !only(in, more))
		return ptx_unknown(p);
	n = elements(p, &in->o[store], &e);
	if (n != (ptx_mod(in, "v2") ? 2 : ptx_mod(in, "v4") ? 4 : 1))
		return ptx_bad(p, "a vector has not as many elements as said");
	op.fn = access_row(p, store, t, e, n, &reg);
	if (!op.fn)
		return ptx_bad(p, "the register is too narrow");
	for (uint32_t i = 0; !err && i < n; i++)
		if (store)
			err = ptx_use(p, &e[i], reg, &op.r[i]);
		else if (e[i].kind != O_SINK)
			err = ptx_def(p, &e[i], reg, &op.r[i]);
	if (!err)
		err = address(p, addr, &op.r[5], &op.imm, &op.kind);
	if (err)
		return err;
	o = ptx_emit(p, op.fn);
	if (!o)
		return -ENOMEM;
	memcpy(o->r, op.r, sizeof(op.r));
	o->imm = op.imm;
	o->kind = op.kind;
	o->space = (uint8_t)space_of(p, addr);
	o->size = (uint8_t)ptx_type_size(t);
	o->n = (uint8_t)n;
	return 0;
}

/* ---- atomics --------------------------------------------------------------------- */

static const char *const atoms[] = {
	[ATOM_ADD] = "add", [ATOM_MIN] = "min",	  [ATOM_MAX] = "max", [ATOM_AND] = "and",
	[ATOM_OR] = "or",   [ATOM_XOR] = "xor",	  [ATOM_EXCH] = "exch", [ATOM_CAS] = "cas",
	[ATOM_INC] = "inc", [ATOM_DEC] = "dec",	  NULL
};

static bool atom_can(enum atom op, enum ptx_type t)
{
	unsigned s = ptx_type_size(t);

	if (t == T_PRED || s < 2 || t == T_BF16 || t == T_F16)
		return op == ATOM_ADD && (t == T_F16 || t == T_BF16);
	if (s == 2)
		return op == ATOM_CAS;
	if (type_float(t))
		return op == ATOM_ADD || op == ATOM_EXCH;
	return s >= 4;
}

/* atom d, [a], b, c; red [a], b */
static int d_atom(struct parse *p)
{
	struct insn *in = &p->in;
	bool red = slice_is(in->mod[0], "red");
	enum ptx_type t = ptx_mod_type(in, 0);
	unsigned s = ptx_type_size(t), at = red ? 0 : 1;
	struct ptx_op op = { 0 }, *o;
	int kind = -1, err;

	for (int i = 0; atoms[i]; i++)
		if (ptx_mod(in, atoms[i]))
			kind = i;
	if (kind < 0 || !only(in, atoms) || !atom_can((enum atom)kind, t))
		return ptx_unknown(p);
	err = ptx_want(p, at + 2 + (kind == ATOM_CAS), at + 2 + (kind == ATOM_CAS));
	if (!err && !red)
		err = ptx_def(p, &in->o[0], s, &op.r[0]);
	if (!err)
		err = address(p, &in->o[at], &op.r[5], &op.imm, &op.kind);
	if (!err)
		err = ptx_use(p, &in->o[at + 1], s, &op.r[1]);
	if (!err && kind == ATOM_CAS)
		err = ptx_use(p, &in->o[at + 2], s, &op.r[2]);
	if (err)
		return err;
	o = ptx_emit(p, ptx_op_atom);
	if (!o)
		return -ENOMEM;
	memcpy(o->r, op.r, sizeof(op.r));
	o->imm = op.imm;
	o->kind = op.kind;
	o->space = (uint8_t)space_of(p, &in->o[at]);
	o->size = (uint8_t)s;
	o->n = (uint8_t)kind;
	o->rnd = (uint8_t)t;
	return 0;
}

/* cp.async.ca.shared.global [to], [from], 16{, bytes}: done at once. */
static int d_cp(struct parse *p)
{
	static const char *const more[] = { "async", NULL };
	struct insn *in = &p->in;
	struct ptx_op op = { 0 }, *o;
	int64_t from_imm;
	uint8_t from_kind;
	int err;

	if (!ptx_mod(in, "async"))
		return ptx_unknown(p);
	if (ptx_mod(in, "commit_group") || ptx_mod(in, "wait_group") || ptx_mod(in, "wait_all"))
		return 0;
	if (!only(in, more) || !ptx_mod(in, "global") || in->n < 3 || in->o[2].kind != O_INT ||
	    (in->o[2].imm != 4 && in->o[2].imm != 8 && in->o[2].imm != 16))
		return ptx_unknown(p);
	err = address(p, &in->o[0], &op.r[5], &op.imm, &op.kind);
	if (!err)
		err = address(p, &in->o[1], &op.r[1], &from_imm, &from_kind);
	if (!err && in->n > 3)
		err = ptx_use(p, &in->o[3], 4, &op.r[2]);
	if (err)
		return err;
	if (from_kind != 8 || from_imm < INT32_MIN || from_imm > INT32_MAX || op.imm > INT32_MAX ||
	    op.imm < INT32_MIN)
		return ptx_unknown(p);
	o = ptx_emit(p, ptx_op_cpasync);
	if (!o)
		return -ENOMEM;
	memcpy(o->r, op.r, sizeof(op.r));
	o->imm = (int64_t)((uint64_t)from_imm << 32 | (uint32_t)op.imm);
	o->kind = op.kind;
	o->size = (uint8_t)in->o[2].imm;
	return 0;
}

/* ---- addresses --------------------------------------------------------------------- */

static unsigned window_of(const struct parse *p)
{
	switch (space_of(p, NULL)) {
	case SP_SHARED: return WIN_SHARED;
	case SP_LOCAL: return WIN_LOCAL;
	case SP_PARAM: return WIN_PARAM;
	default: return 0;
	}
}

/* cvta.shared.u64 d, a (to generic); cvta.to.shared.u64 (back) */
static int d_cvta(struct parse *p)
{
	static const char *const more[] = { "to", NULL };
	struct insn *in = &p->in;
	unsigned s = ptx_type_size(ptx_mod_type(in, 0));
	struct ptx_op *o;
	uint32_t to, from;
	int err = ptx_want(p, 2, 2);

	if (err)
		return err;
	if (s != 8 || !only(in, more))
		return ptx_unknown(p);
	err = ptx_use(p, &in->o[1], s, &from);
	if (!err)
		err = ptx_def(p, &in->o[0], s, &to);
	if (err)
		return err;
	o = ptx_emit(p, ptx_op_cvta);
	if (!o)
		return -ENOMEM;
	o->r[0] = to;
	o->r[1] = from;
	o->kind = (uint8_t)window_of(p);
	o->n = ptx_mod(in, "to");
	return 0;
}

static int d_isspacep(struct parse *p)
{
	static const char *const more[] = { NULL };
	struct insn *in = &p->in;
	struct ptx_op *o;
	uint32_t to, from;
	int err = ptx_want(p, 2, 2);

	if (err)
		return err;
	if (!only(in, more))
		return ptx_unknown(p);
	err = ptx_use(p, &in->o[1], 8, &from);
	if (!err)
		err = ptx_def(p, &in->o[0], 0, &to);
	if (err)
		return err;
	o = ptx_emit(p, ptx_op_isspacep);
	if (!o)
		return -ENOMEM;
	o->r[0] = to;
	o->r[1] = from;
	o->kind = (uint8_t)window_of(p);
	return 0;
}

static const struct {
	const char *name;
	int (*decode)(struct parse *p);		/* NULL: nothing to do */
} known[] = {
	{ "ld", d_access },   { "ldu", d_access }, { "st", d_access },
	{ "atom", d_atom },   { "red", d_atom },   { "cp", d_cp },
	{ "cvta", d_cvta },   { "isspacep", d_isspacep },
	{ "membar", NULL },   { "fence", NULL },   { "nanosleep", NULL },
	{ "prefetch", NULL }, { "prefetchu", NULL }, { "discard", NULL },
	{ "applypriority", NULL }, { "brkpt", NULL },
};

int ptx_decode_mem(struct parse *p, bool *done)
{
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		if (!slice_is(p->in.mod[0], known[i].name))
			continue;
		*done = true;
		return known[i].decode ? known[i].decode(p) : 0;
	}
	return 0;
}
