/* SPDX-License-Identifier: MIT */
/* ptx_body.c - a function's body: scopes, labels, instructions and their operands.
 *
 * Owns nothing. (1) Each instruction is decoded as it is read; what is not known
 * is read over to its semicolon, and its function cannot run. (2) A name means
 * what was declared last before it in a scope around it; else it is a label or a
 * function, looked for at the end. (3) A register has a slot from its first use
 * on: declaring many costs nothing. Lock: none.
 */
#include "tests/emu/ptx_int.h"

#define MAX_SLOTS	65536u

/* ---- slots ------------------------------------------------------------------- */

static uint32_t hash_of(uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t h = (a ^ 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;

	h = (h ^ h >> 29 ^ b) * 0x94d049bb133111eb;
	h = (h ^ h >> 32 ^ c) * 0xbf58476d1ce4e5b9;
	return (uint32_t)(h >> 32);
}

static uint32_t slot_hash(const struct ptx_slot *s)
{
	return hash_of(s->key ^ s->value, (uint64_t)s->var << 16 | s->fill << 8 | s->size, s->key);
}

static bool slot_same(const struct ptx_slot *a, const struct ptx_slot *b)
{
	return a->key == b->key && a->value == b->value && a->var == b->var &&
		a->fill == b->fill && a->size == b->size;
}

static int rehash(struct ptx_func *f)
{
	uint32_t size = f->hash_size ? f->hash_size * 2 : 256;
	uint32_t *to = calloc(size, sizeof(*to));

	if (!to)
		return -ENOMEM;
	for (uint32_t i = 1; i < f->nslots; i++) {
		uint32_t h = slot_hash(&f->slots[i]) & (size - 1);

		while (to[h])
			h = (h + 1) & (size - 1);
		to[h] = i;
	}
	free(f->hash);
	f->hash = to;
	f->hash_size = size;
	return 0;
}

/* Number 0 is nobody's. */
static uint32_t slot_get(struct ptx_func *f, struct ptx_slot s)
{
	uint32_t h;

	if (f->nslots * 2 >= f->hash_size && rehash(f))
		return 0;
	h = slot_hash(&s) & (f->hash_size - 1);
	while (f->hash[h] && !slot_same(&f->slots[f->hash[h]], &s))
		h = (h + 1) & (f->hash_size - 1);
	if (f->hash[h])
		return f->hash[h];
	if (!f->nslots)
		f->nslots = 1;
	if (f->nslots >= MAX_SLOTS || ptx_grow(&f->slots, &f->cslots, f->nslots, sizeof(s)))
		return 0;
	f->slots[f->nslots] = s;
	f->hash[h] = f->nslots;
	return f->nslots++;
}

uint32_t ptx_slot_reg(struct ptx_func *f, uint64_t key, unsigned size)
{
	return slot_get(f, (struct ptx_slot){ .key = key, .size = (uint8_t)size });
}

uint32_t ptx_slot_fill(struct ptx_func *f, enum fill fill, uint64_t value, uint32_t var,
		       unsigned size)
{
	if (fill == FILL_CONST && size < 8)
		value &= (1ull << 8 * size) - 1;
	return slot_get(f, (struct ptx_slot){ .fill = (uint8_t)fill, .size = (uint8_t)size,
					      .value = value, .var = var });
}

uint32_t ptx_slot_temp(struct ptx_func *f, unsigned size)
{
	return ptx_slot_reg(f, 1ull << 62 | f->nslots, size);
}

/* ---- names --------------------------------------------------------------------- */

static int declare_regs(struct parse *p)
{
	struct ptx_range r = { .type = T_NONE };

	if (p->l.kind == K_DIRECTIVE)
		r.type = ptx_type_named((struct slice){ p->l.text.at + 1, p->l.text.len - 1 });
	if (r.type == T_NONE)
		return ptx_bad(p, "a register's type is expected");
	ptx_lex_next(&p->l);
	do {
		if (p->l.kind != K_WORD)
			return ptx_bad(p, "a register's name is expected");
		r.name = p->l.text;
		r.count = 0;
		ptx_lex_next(&p->l);
		if (ptx_lex_take(&p->l, "<")) {
			if (p->l.kind != K_INT || !p->l.num || p->l.num > UINT32_MAX)
				return ptx_bad(p, "a number of registers is expected");
			r.count = (uint32_t)p->l.num;
			ptx_lex_next(&p->l);
			if (!ptx_lex_take(&p->l, ">"))
				return ptx_bad(p, "> is expected");
		}
		if (ptx_grow(&p->ranges, &p->cranges, p->nranges, sizeof(r)))
			return -ENOMEM;
		p->ranges[p->nranges++] = r;
	} while (ptx_lex_take(&p->l, ","));
	return ptx_lex_take(&p->l, ";") ? 0 : ptx_bad(p, "; is expected");
}

/* Is `name` one of the range's? *n: which. */
static bool in_range(const struct ptx_range *r, struct slice name, uint32_t *n)
{
	uint64_t v = 0;

	*n = 0;
	if (name.len < r->name.len || memcmp(name.at, r->name.at, r->name.len))
		return false;
	if (!r->count)
		return name.len == r->name.len;
	if (name.len == r->name.len || name.len > r->name.len + 9)
		return false;
	for (uint32_t i = r->name.len; i < name.len; i++) {
		if (name.at[i] < '0' || name.at[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(name.at[i] - '0');
	}
	*n = (uint32_t)v;
	return v < r->count;
}

static unsigned reg_size(enum ptx_type t)
{
	return t == T_PRED ? 0 : ptx_type_size(t) < 2 ? 2 : ptx_type_size(t);
}

/* 0 and a slot, or -ENOENT. */
static int find_reg(struct parse *p, struct slice name, uint32_t *slot, enum ptx_type *type)
{
	for (uint32_t i = p->nranges; i-- > 0;) {
		uint32_t n;

		if (!in_range(&p->ranges[i], name, &n))
			continue;
		*type = p->ranges[i].type;
		*slot = ptx_slot_reg(p->f, (uint64_t)(i + 1) << 32 | n, reg_size(*type));
		return *slot ? 0 : -ENOMEM;
	}
	return -ENOENT;
}

static const struct {
	const char *name;
	enum fill fill;
	uint8_t value, size;
} specials[] = {
	{ "%tid.x", FILL_TID, 0, 4 },	     { "%tid.y", FILL_TID, 1, 4 },
	{ "%tid.z", FILL_TID, 2, 4 },	     { "%ntid.x", FILL_NTID, 0, 4 },
	{ "%ntid.y", FILL_NTID, 1, 4 },	     { "%ntid.z", FILL_NTID, 2, 4 },
	{ "%ctaid.x", FILL_CTAID, 0, 4 },    { "%ctaid.y", FILL_CTAID, 1, 4 },
	{ "%ctaid.z", FILL_CTAID, 2, 4 },    { "%nctaid.x", FILL_NCTAID, 0, 4 },
	{ "%nctaid.y", FILL_NCTAID, 1, 4 },  { "%nctaid.z", FILL_NCTAID, 2, 4 },
	{ "%laneid", FILL_LANE, 0, 4 },	     { "%warpid", FILL_WARP, 0, 4 },
	{ "%nwarpid", FILL_NWARP, 0, 4 },    { "%smid", FILL_CONST, 0, 4 },
	{ "%nsmid", FILL_CONST, 1, 4 },	     { "%gridid", FILL_CONST, 1, 8 },
	{ "%lanemask_eq", FILL_LANEMASK, 0, 4 }, { "%lanemask_lt", FILL_LANEMASK, 1, 4 },
	{ "%lanemask_le", FILL_LANEMASK, 2, 4 }, { "%lanemask_gt", FILL_LANEMASK, 3, 4 },
	{ "%lanemask_ge", FILL_LANEMASK, 4, 4 }, { "%dynamic_smem_size", FILL_DYN_SHARED, 0, 4 },
	{ "%total_smem_size", FILL_ALL_SHARED, 0, 4 },
	{ "%clock", FILL_NONE, 0, 4 },	     { "%clock_hi", FILL_NONE, 32, 4 },
	{ "%clock64", FILL_NONE, 0, 8 },     { "%globaltimer", FILL_NONE, 0, 8 },
	{ "%globaltimer_lo", FILL_NONE, 0, 4 }, { "%globaltimer_hi", FILL_NONE, 32, 4 },
};

static bool find_special(struct slice name, struct operand *o)
{
	for (size_t i = 0; i < sizeof(specials) / sizeof(*specials); i++) {
		if (!slice_is(name, specials[i].name))
			continue;
		o->kind = O_SPECIAL;
		o->n = (uint8_t)specials[i].fill;
		o->imm = specials[i].value;
		o->first = specials[i].size;
		return true;
	}
	return false;
}

/* ---- operands ---------------------------------------------------------------------- */

static int word_operand(struct parse *p, struct operand *o)
{
	struct slice name = p->l.text;
	int err;

	o->name = name;
	ptx_lex_next(&p->l);
	if (slice_is(name, "_")) {
		o->kind = O_SINK;
		return 0;
	}
	if (slice_is(name, "WARP_SZ")) {
		o->kind = O_INT;
		o->imm = LANES;
		return 0;
	}
	err = find_reg(p, name, &o->slot, &o->type);
	if (!err)
		o->kind = O_REG;
	if (err == -ENOENT && !ptx_find_var(p, name, &o->var)) {
		o->kind = O_VAR;
		err = 0;
	}
	if (err == -ENOENT && find_special(name, o))
		err = 0;
	if (err == -ENOENT && name.at[0] != '%') {
		o->kind = O_NAME;
		err = 0;
	}
	if (err == -ENOENT)
		return ptx_bad(p, "%.*s is not declared", (int)name.len, name.at);
	return err;
}

/* + 8, - 8, +-8 after an address. */
static int displacement(struct parse *p, struct operand *o)
{
	bool minus = false, any = false;

	while (ptx_lex_is(&p->l, "+") || ptx_lex_is(&p->l, "-")) {
		minus ^= ptx_lex_is(&p->l, "-");
		any = true;
		ptx_lex_next(&p->l);
	}
	if (!any)
		return 0;
	if (p->l.kind != K_INT)
		return ptx_bad(p, "an offset is expected");
	o->imm += minus ? 0 - p->l.num : p->l.num;
	ptx_lex_next(&p->l);
	return 0;
}

static int simple_operand(struct parse *p, struct operand *o)
{
	int err;

	while (ptx_lex_is(&p->l, "-") || ptx_lex_is(&p->l, "!")) {
		o->not ^= ptx_lex_is(&p->l, "!");
		o->minus ^= ptx_lex_is(&p->l, "-");
		ptx_lex_next(&p->l);
	}
	switch (p->l.kind) {
	case K_INT:
		o->kind = O_INT;
		break;
	case K_F32:
		o->kind = O_F32;
		break;
	case K_F64:
		o->kind = O_F64;
		break;
	case K_WORD:
		err = word_operand(p, o);
		return err || o->kind != O_VAR ? err : displacement(p, o);
	default:
		return ptx_bad(p, "an operand is expected");
	}
	o->imm = p->l.num;
	if (o->minus && o->kind == O_INT)
		o->imm = 0 - o->imm;
	ptx_lex_next(&p->l);
	return 0;
}

static int element(struct parse *p, struct operand *list)
{
	struct insn *in = &p->in;

	if (in->nelem >= MAX_ELEMS)
		return ptx_bad(p, "too many operands");
	in->elem[in->nelem] = (struct operand){ 0 };
	list->n++;
	return simple_operand(p, &in->elem[in->nelem++]);
}

static int list_operand(struct parse *p, struct operand *o, const char *close)
{
	int err;

	o->first = (uint8_t)p->in.nelem;
	while (!ptx_lex_take(&p->l, close)) {
		if (o->n && !ptx_lex_take(&p->l, ","))
			return ptx_bad(p, "%s is expected", close);
		if ((err = element(p, o)))
			return err;
	}
	return 0;
}

static int operand(struct parse *p, struct operand *o)
{
	int err;

	*o = (struct operand){ 0 };
	if (ptx_lex_take(&p->l, "{")) {
		o->kind = O_VEC;
		return list_operand(p, o, "}");
	}
	if (ptx_lex_take(&p->l, "(")) {
		o->kind = O_LIST;
		return list_operand(p, o, ")");
	}
	if (!ptx_lex_take(&p->l, "["))
		return simple_operand(p, o);
	err = simple_operand(p, o);
	if (!err && o->kind != O_VAR)
		err = displacement(p, o);
	o->mem = true;
	if (err)
		return err;
	return ptx_lex_take(&p->l, "]") ? 0 : ptx_bad(p, "] is expected");
}

static int operands(struct parse *p)
{
	struct insn *in = &p->in;
	int err;

	in->n = in->nelem = 0;
	while (!ptx_lex_is(&p->l, ";")) {
		/* shfl.sync d|p, a, ...: the pair are two operands. */
		if (in->n && !ptx_lex_take(&p->l, ",") && !ptx_lex_take(&p->l, "|"))
			return ptx_bad(p, "; is expected");
		if (in->n >= MAX_OPERANDS)
			return ptx_bad(p, "too many operands");
		if ((err = operand(p, &in->o[in->n++])))
			return err;
	}
	ptx_lex_next(&p->l);
	return 0;
}

/* ---- instructions ----------------------------------------------------------------------- */

static void split(struct insn *in)
{
	uint32_t from = 0;

	in->nmods = 0;
	for (uint32_t i = 0; i <= in->op.len; i++) {
		if (i < in->op.len && in->op.at[i] != '.')
			continue;
		if (in->nmods < 16)
			in->mod[in->nmods++] = (struct slice){ in->op.at + from, i - from };
		from = i + 1;
	}
}

static int guard(struct parse *p)
{
	enum ptx_type type;
	int err;

	p->in.guard = 0;
	p->in.guard_not = false;
	if (!ptx_lex_take(&p->l, "@"))
		return 0;
	p->in.guard_not = ptx_lex_take(&p->l, "!");
	if (p->l.kind != K_WORD)
		return ptx_bad(p, "a predicate is expected");
	err = find_reg(p, p->l.text, &p->in.guard, &type);
	if (err == -ENOENT || (!err && type != T_PRED))
		return ptx_bad(p, "%.*s is no predicate", (int)p->l.text.len, p->l.text.at);
	ptx_lex_next(&p->l);
	return err;
}

static int skip_unknown(struct parse *p)
{
	ptx_unsupported(p, "%.*s", (int)p->in.op.len, p->in.op.at);
	while (p->l.kind != K_END && !ptx_lex_is(&p->l, ";"))
		ptx_lex_next(&p->l);
	return ptx_lex_take(&p->l, ";") ? 0 : ptx_bad(p, "the text ends too early");
}

static int instruction(struct parse *p)
{
	struct insn *in = &p->in;
	int err;

	in->line = p->l.tok_line;
	if ((err = guard(p)))
		return err;
	if (p->l.kind != K_WORD)
		return ptx_bad(p, "an instruction is expected");
	in->op = ptx_lex_opcode(&p->l);
	split(in);
	if (!ptx_known(in->mod[0]))
		return skip_unknown(p);
	if ((err = operands(p)))
		return err;
	return ptx_decode(p);
}

/* ---- labels ------------------------------------------------------------------------------- */

static bool at_label(const struct parse *p)
{
	const char *c = p->l.at;

	while (c < p->l.end && (*c == ' ' || *c == '\t'))
		c++;
	return p->l.kind == K_WORD && c < p->l.end && *c == ':' &&
		!(c + 1 < p->l.end && c[1] == ':');
}

static int label(struct parse *p)
{
	struct label new = { p->l.text, p->m->ncode };
	struct ptx_op *o;

	if (ptx_grow(&p->labels, &p->clabels, p->nlabels, sizeof(new)))
		return -ENOMEM;
	p->labels[p->nlabels++] = new;
	ptx_lex_next(&p->l);
	ptx_lex_next(&p->l);
	p->in.guard = 0;
	p->in.op = new.name;
	p->in.line = p->l.tok_line;
	o = ptx_emit(p, ptx_op_join);
	return o ? 0 : -ENOMEM;
}

static int label_order(const void *a, const void *b)
{
	const struct label *x = a, *y = b;
	uint32_t n = x->name.len < y->name.len ? x->name.len : y->name.len;
	int d = memcmp(x->name.at, y->name.at, n);

	return d ? d : (x->name.len > y->name.len) - (x->name.len < y->name.len);
}

static int resolve_labels(struct parse *p)
{
	if (p->nlabels)
		qsort(p->labels, p->nlabels, sizeof(*p->labels), label_order);
	for (uint32_t i = 0; i < p->nfixups; i++) {
		struct fixup *x = &p->fixups[i];
		struct label key = { x->name, 0 }, *l = NULL;

		if (p->nlabels)
			l = bsearch(&key, p->labels, p->nlabels, sizeof(key), label_order);
		if (!l) {
			p->l.tok_line = x->line;
			return ptx_bad(p, "no label %.*s", (int)x->name.len, x->name.at);
		}
		p->m->code[x->op].imm = (int64_t)l->at - (int64_t)x->op;
	}
	return 0;
}

/* ---- bodies --------------------------------------------------------------------------------- */

static int scope_open(struct parse *p)
{
	if (p->depth == sizeof(p->scopes) / sizeof(*p->scopes))
		return ptx_bad(p, "too many scopes");
	p->scopes[p->depth++] = (struct scope){ p->nnames, p->nranges };
	return 0;
}

/* Names of registers are gone for good: what they stood for keeps its slot, for
 * numbers of ranges are not used again. */
static void scope_close(struct parse *p)
{
	struct scope s = p->scopes[--p->depth];

	p->nnames = s.vars;
	for (uint32_t i = s.ranges; i < p->nranges; i++)
		p->ranges[i].name.len = UINT32_MAX;
}

static int local_var(struct parse *p)
{
	uint32_t from = p->m->nvars, var;
	int err = ptx_declare(p, SP_LOCAL, false, false, &var);

	for (uint32_t i = from; !err && i < p->m->nvars; i++) {
		struct ptx_var *v = &p->m->vars[i];
		size_t at = (p->f->local_bytes + v->align - 1) & ~(v->align - 1);

		if (v->size > MAX_LOCAL || at + v->size > MAX_LOCAL)
			return ptx_bad(p, "too much local memory");
		v->func = p->f;
		v->addr = at;
		p->f->local_bytes = (uint32_t)(at + v->size);
	}
	return err;
}

static int statement(struct parse *p)
{
	uint32_t var;

	if (ptx_lex_take(&p->l, ".reg"))
		return declare_regs(p);
	if (ptx_lex_take(&p->l, ".local") || ptx_lex_take(&p->l, ".param"))
		return local_var(p);
	if (ptx_lex_take(&p->l, ".shared"))
		return ptx_declare(p, SP_SHARED, false, false, &var);
	if (ptx_lex_is(&p->l, ".loc") || ptx_lex_is(&p->l, ".file")) {
		uint32_t line = p->l.tok_line;

		while (p->l.kind != K_END && p->l.tok_line == line)
			ptx_lex_next(&p->l);
		return 0;
	}
	if (p->l.kind == K_DIRECTIVE) {
		bool pragma = ptx_lex_is(&p->l, ".pragma");

		p->in.op = p->l.text;
		p->in.line = p->l.tok_line;
		if (!pragma)
			return skip_unknown(p);
		while (p->l.kind != K_END && !ptx_lex_is(&p->l, ";"))
			ptx_lex_next(&p->l);
	}
	if (ptx_lex_take(&p->l, ";"))
		return 0;
	if (ptx_lex_take(&p->l, "{"))
		return scope_open(p);
	if (ptx_lex_take(&p->l, "}")) {
		scope_close(p);
		return 0;
	}
	return at_label(p) ? label(p) : instruction(p);
}

int ptx_body(struct parse *p, struct ptx_func *f)
{
	int err = scope_open(p);

	p->nlabels = p->nfixups = 0;
	f->code = p->m->ncode;
	while (!err && p->depth) {
		if (p->l.kind == K_END)
			err = ptx_bad(p, "the text ends within %s", f->cname);
		else
			err = statement(p);
	}
	p->depth = 0;
	p->nranges = 0;
	p->in.guard = 0;
	p->in.op = (struct slice){ "ret", 3 };
	if (!err && !ptx_emit(p, f->is_entry ? ptx_op_exit : ptx_op_ret))
		err = -ENOMEM;
	f->ncode = p->m->ncode - f->code;
	return err ? err : resolve_labels(p);
}
