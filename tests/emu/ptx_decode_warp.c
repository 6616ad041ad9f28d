/* SPDX-License-Identifier: MIT */
/* ptx_decode_warp.c - control flow and what lanes do together become operations.
 *
 * Owns nothing. (1) A branch's target is a distance, filled in when the body is
 * read. (2) A call copies its arguments to where the function's parameters lie,
 * and its result back. Lock: none.
 */
#include "tests/emu/ptx_int.h"

static int unknown(struct parse *p)
{
	return ptx_unsupported(p, "%.*s", (int)p->in.op.len, p->in.op.at);
}

static int emit(struct parse *p, ptx_fn fn, unsigned kind, unsigned size,
		const uint32_t *r, unsigned n)
{
	struct ptx_op *o = ptx_emit(p, fn);

	if (!o)
		return -ENOMEM;
	o->kind = (uint8_t)kind;
	o->size = (uint8_t)size;
	memcpy(o->r, r, n * sizeof(*r));
	return 0;
}

/* ---- collectives ------------------------------------------------------------------ */

/* shfl.sync.bfly.b32 d|p, a, b, c, mask. Without .sync: whoever is there. */
static int d_shfl(struct parse *p)
{
	static const char *const modes[] = { "up", "down", "bfly", "idx" };
	struct insn *in = &p->in;
	bool sync = ptx_mod(in, "sync"), two = in->n == 5u + sync;
	uint32_t r[6] = { 0 }, at = two ? 2 : 1;
	int mode = -1, err;

	for (int i = 0; i < 4; i++)
		if (ptx_mod(in, modes[i]))
			mode = i;
	if (mode < 0 || ptx_type_size(ptx_mod_type(in, 0)) != 4)
		return unknown(p);
	if ((err = ptx_want(p, 4 + sync, 5 + sync)))
		return err;
	err = ptx_def(p, &in->o[0], 4, &r[0]);
	if (!err && two)
		err = ptx_def(p, &in->o[1], 0, &r[1]);
	for (uint32_t i = 0; !err && i < 3u + sync; i++)
		err = ptx_use(p, &in->o[at + i], 4, &r[2 + i]);
	return err ? err : emit(p, ptx_op_shfl, (unsigned)mode, 4, r, 6);
}

static int d_vote(struct parse *p)
{
	static const char *const modes[] = { "all", "any", "uni", "ballot" };
	struct insn *in = &p->in;
	bool sync = ptx_mod(in, "sync");
	uint32_t r[6] = { 0 };
	int mode = -1, err = ptx_want(p, 2 + sync, 2 + sync);

	for (int i = 0; i < 4; i++)
		if (ptx_mod(in, modes[i]))
			mode = i;
	if (mode < 0)
		return unknown(p);
	if (!err)
		err = ptx_def(p, &in->o[0], mode == VOTE_BALLOT ? 4 : 0, &r[0]);
	if (!err)
		err = ptx_use(p, &in->o[1], 0, &r[1]);
	if (!err && sync)
		err = ptx_use(p, &in->o[2], 4, &r[5]);
	return err ? err : emit(p, ptx_op_vote, (unsigned)mode, 4, r, 6);
}

/* match.any.sync.b32 d, a, mask; match.all.sync.b32 d|p, a, mask */
static int d_match(struct parse *p)
{
	struct insn *in = &p->in;
	unsigned s = ptx_type_size(ptx_mod_type(in, 0));
	bool all = ptx_mod(in, "all"), two = in->n == 4;
	uint32_t r[6] = { 0 }, at = two ? 2 : 1;
	int err = ptx_want(p, 3, 3 + all);

	if (s != 4 && s != 8)
		return unknown(p);
	if (!err)
		err = ptx_def(p, &in->o[0], 4, &r[0]);
	if (!err && two)
		err = ptx_def(p, &in->o[1], 0, &r[1]);
	if (!err)
		err = ptx_use(p, &in->o[at], s, &r[2]);
	if (!err)
		err = ptx_use(p, &in->o[at + 1], 4, &r[5]);
	return err ? err : emit(p, ptx_op_match, all, s, r, 6);
}

static int d_redux(struct parse *p)
{
	static const struct {
		const char *name;
		enum atom op;
	} ops[] = { { "add", ATOM_ADD }, { "min", ATOM_MIN }, { "max", ATOM_MAX },
		    { "and", ATOM_AND }, { "or", ATOM_OR },   { "xor", ATOM_XOR } };
	struct insn *in = &p->in;
	enum ptx_type t = ptx_mod_type(in, 0);
	uint32_t r[6] = { 0 };
	int op = -1, err = ptx_want(p, 3, 3);

	for (int i = 0; i < 6; i++)
		if (ptx_mod(in, ops[i].name))
			op = ops[i].op;
	if (op < 0 || ptx_type_size(t) != 4 || type_float(t))
		return unknown(p);
	if (!err)
		err = ptx_def(p, &in->o[0], 4, &r[0]);
	if (!err)
		err = ptx_use(p, &in->o[1], 4, &r[1]);
	if (!err)
		err = ptx_use(p, &in->o[2], 4, &r[5]);
	if (!err)
		err = emit(p, ptx_op_redux, (unsigned)op, 4, r, 6);
	if (!err)
		p->m->code[p->m->ncode - 1].n = type_signed(t);
	return err;
}

static int d_activemask(struct parse *p)
{
	uint32_t r[1];
	int err = ptx_want(p, 1, 1);

	if (!err)
		err = ptx_def(p, &p->in.o[0], 4, r);
	return err ? err : emit(p, ptx_op_activemask, 0, 4, r, 1);
}

/* bar.sync a{, b}; bar.arrive a, b; bar.red.popc.u32 d, a{, b}, c; bar.warp.sync m.
 * `n` of the operation: all lanes of a warp must come at once. */
static int d_bar(struct parse *p)
{
	struct insn *in = &p->in;
	bool red = ptx_mod(in, "red"), arrive = ptx_mod(in, "arrive");
	uint32_t r[6] = { 0 }, at = 0, left;
	enum bar kind = arrive ? BAR_ARRIVE : !red ? BAR_SYNC : ptx_mod(in, "popc") ? BAR_POPC :
		ptx_mod(in, "and") ? BAR_AND : BAR_OR;
	int err = 0;

	if (ptx_mod(in, "warp")) {
		err = ptx_want(p, 1, 1);
		if (!err)
			err = ptx_use(p, &in->o[0], 4, &r[5]);
		return err ? err : emit(p, ptx_op_warpsync, 0, 4, r, 6);
	}
	if (ptx_mod(in, "cluster") || (!red && !arrive && !ptx_mod(in, "sync")))
		return unknown(p);
	if ((err = ptx_want(p, red ? 3 : 1, red ? 4 : 2)))
		return err;
	if (red)
		err = ptx_def(p, &in->o[at++], kind == BAR_POPC ? 4 : 0, &r[0]);
	left = in->n - at - red;
	if (!err)
		err = ptx_use(p, &in->o[at++], 4, &r[1]);
	if (!err && left > 1)
		err = ptx_use(p, &in->o[at++], 4, &r[2]);
	if (!err && red)
		err = ptx_use(p, &in->o[at], 0, &r[3]);
	if (!err)
		err = emit(p, ptx_op_bar, kind, 4, r, 6);
	if (!err)
		p->m->code[p->m->ncode - 1].n =
			slice_is(in->mod[0], "bar") || ptx_mod(in, "aligned");
	return err;
}

/* ---- control flow -------------------------------------------------------------------- */

static int d_bra(struct parse *p)
{
	struct insn *in = &p->in;
	struct fixup x = { .line = in->line };
	struct ptx_op *o;
	int err = ptx_want(p, 1, 1);

	if (err)
		return err;
	if (in->o[0].kind != O_NAME)
		return ptx_bad(p, "a label is expected");
	x.name = in->o[0].name;
	x.op = p->m->ncode;
	if (ptx_grow(&p->fixups, &p->cfixups, p->nfixups, sizeof(x)))
		return -ENOMEM;
	p->fixups[p->nfixups++] = x;
	o = ptx_emit(p, ptx_op_bra);
	return o ? 0 : -ENOMEM;
}

/* One variable to another, both in local memory. */
static int copy(struct parse *p, uint32_t to, uint32_t from)
{
	uint32_t r[2] = { ptx_slot_fill(p->f, FILL_VAR, 0, to, 8),
			  ptx_slot_fill(p->f, FILL_VAR, 0, from, 8) };
	size_t a = p->m->vars[to].size, b = p->m->vars[from].size;
	int err;

	if (!r[0] || !r[1])
		return -ENOMEM;
	if (a != b || p->m->vars[to].space != SP_LOCAL || p->m->vars[from].space != SP_LOCAL)
		return ptx_bad(p, "an argument has not the parameter's size");
	err = emit(p, ptx_op_copy, 0, 8, r, 2);
	if (!err)
		p->m->code[p->m->ncode - 1].imm = (int64_t)a;
	return err;
}

static int copies(struct parse *p, const struct operand *list, const uint32_t *vars, uint32_t n,
		  bool in)
{
	int err = 0;

	if ((list ? list->n : 0) != n)
		return ptx_bad(p, "a call has not as many arguments as the function");
	for (uint32_t i = 0; !err && i < n; i++) {
		const struct operand *e = &p->in.elem[list->first + i];

		if (e->kind != O_VAR)
			return ptx_unsupported(p, "a call with arguments that are no .param");
		err = in ? copy(p, vars[i], e->var) : copy(p, e->var, vars[i]);
	}
	return err;
}

static int add_call(struct ptx_func *f, struct ptx_func *to)
{
	struct ptx_func **more;

	for (uint32_t i = 0; i < f->ncalls; i++)
		if (f->calls[i] == to)
			return 0;
	more = realloc(f->calls, (f->ncalls + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	f->calls = more;
	more[f->ncalls++] = to;
	return 0;
}

/* call (result), function, (arguments) */
static int d_call(struct parse *p)
{
	struct insn *in = &p->in;
	const struct operand *rets = NULL, *args = NULL;
	struct ptx_func *to;
	struct ptx_op *o;
	uint32_t at = 0;
	int err;

	if (in->n && in->o[0].kind == O_LIST)
		rets = &in->o[at++];
	if (at >= in->n)
		return ptx_bad(p, "call of nothing");
	if (in->o[at].kind != O_NAME)
		return ptx_unsupported(p, "a call of a function by its address");
	to = ptx_find_func(p->m, in->o[at].name);
	if (!to || to->is_entry)
		return ptx_bad(p, "no function %.*s", (int)in->o[at].name.len, in->o[at].name.at);
	if (++at < in->n && in->o[at].kind == O_LIST)
		args = &in->o[at++];
	if (at < in->n)
		return unknown(p);
	err = add_call(p->f, to);
	if (!err)
		err = copies(p, args, to->params, to->nparams, true);
	if (err)
		return err;
	o = ptx_emit(p, ptx_op_call);
	if (!o)
		return -ENOMEM;
	o->callee = to;
	return copies(p, rets, to->rets, to->nrets, false);
}

static int d_plain(struct parse *p, ptx_fn fn)
{
	int err = ptx_want(p, 0, 0);

	return err ? err : ptx_emit(p, fn) ? 0 : -ENOMEM;
}

static int d_ret(struct parse *p)
{
	return d_plain(p, p->f->is_entry ? ptx_op_exit : ptx_op_ret);
}

static int d_exit(struct parse *p)
{
	return d_plain(p, ptx_op_exit);
}

static int d_trap(struct parse *p)
{
	return d_plain(p, ptx_op_trap);
}

static const struct {
	const char *name;
	int (*decode)(struct parse *p);
} known[] = {
	{ "shfl", d_shfl },   { "vote", d_vote }, { "match", d_match }, { "redux", d_redux },
	{ "activemask", d_activemask }, { "bar", d_bar }, { "barrier", d_bar },
	{ "bra", d_bra },     { "call", d_call }, { "ret", d_ret },	{ "exit", d_exit },
	{ "trap", d_trap },
};

int ptx_decode_warp(struct parse *p, bool *done)
{
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		if (!slice_is(p->in.mod[0], known[i].name))
			continue;
		*done = true;
		return known[i].decode(p);
	}
	return 0;
}
