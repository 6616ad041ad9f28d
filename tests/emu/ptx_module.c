/* SPDX-License-Identifier: MIT */
/* ptx_module.c - what stands outside of functions: variables, functions' heads.
 *
 * Owns the module, a copy of its text included. (1) Declarations that may be
 * repeated (.extern, .visible, a function before its body) are one object.
 * (2) Every length is bounded before memory is asked for. Lock: none.
 */
#include "tests/emu/ptx_int.h"

#include <stdarg.h>

#define MAX_INIT	((size_t)256 << 20)
#define MAX_BYTES	((size_t)1 << 40)
#define MAX_PARAMS	32764u

int ptx_bad(struct parse *p, const char *fmt, ...)
{
	va_list ap;
	size_t n;

	if (p->failed)
		return p->failed;
	p->failed = -EINVAL;
	if (p->err && p->errlen) {
		snprintf(p->err, p->errlen, "line %u: ", p->l.tok_line);
		n = strlen(p->err);
		va_start(ap, fmt);
		vsnprintf(p->err + n, p->errlen - n, fmt, ap);
		va_end(ap);
	}
	return -EINVAL;
}

int ptx_unsupported(struct parse *p, const char *fmt, ...)
{
	struct ptx_func *f = p->f;
	va_list ap;
	int n;

	if (f->why[0])
		return 0;
	va_start(ap, fmt);
	n = vsnprintf(f->why, sizeof(f->why), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(f->why))
		snprintf(f->why + n, sizeof(f->why) - (size_t)n, ", line %u", p->in.line);
	return 0;
}

int ptx_grow(void *array, uint32_t *cap, uint32_t n, size_t size)
{
	void *at, **to = array;
	uint32_t want;

	if (n < *cap)
		return 0;
	want = *cap ? *cap * 2 : 16;
	at = realloc(*to, want * size);
	if (!at)
		return -ENOMEM;
	memset((char *)at + *cap * size, 0, (want - *cap) * size);
	*to = at;
	*cap = want;
	return 0;
}

/* ---- types ------------------------------------------------------------------ */

static const struct {
	const char *name;
	uint8_t size;
} types[T_COUNT] = {
	[T_NONE] = { "", 0 },	  [T_PRED] = { "pred", 0 },
	[T_B8] = { "b8", 1 },	  [T_B16] = { "b16", 2 },
	[T_B32] = { "b32", 4 },	  [T_B64] = { "b64", 8 },
	[T_U8] = { "u8", 1 },	  [T_U16] = { "u16", 2 },
	[T_U32] = { "u32", 4 },	  [T_U64] = { "u64", 8 },
	[T_S8] = { "s8", 1 },	  [T_S16] = { "s16", 2 },
	[T_S32] = { "s32", 4 },	  [T_S64] = { "s64", 8 },
	[T_F16] = { "f16", 2 },	  [T_F16X2] = { "f16x2", 4 },
	[T_BF16] = { "bf16", 2 }, [T_BF16X2] = { "bf16x2", 4 },
	[T_F32] = { "f32", 4 },	  [T_F64] = { "f64", 8 },
};

enum ptx_type ptx_type_named(struct slice s)
{
	for (int t = T_PRED; t < T_COUNT; t++)
		if (slice_is(s, types[t].name))
			return (enum ptx_type)t;
	return T_NONE;
}

unsigned ptx_type_size(enum ptx_type t)
{
	return types[t].size;
}

/* ---- variables ------------------------------------------------------------------ */

static bool same(struct slice a, struct slice b)
{
	return a.len == b.len && !memcmp(a.at, b.at, a.len);
}

int ptx_find_var(const struct parse *p, struct slice name, uint32_t *var)
{
	for (uint32_t i = p->nnames; i-- > 0;) {
		if (same(p->m->vars[p->names[i]].name, name)) {
			*var = p->names[i];
			return 0;
		}
	}
	return -ENOENT;
}

static int new_var(struct parse *p, struct ptx_var v, uint32_t *var)
{
	struct ptx_module *m = p->m;

	if (m->nvars >= MAX_VARS)
		return ptx_bad(p, "too many variables");
	if (ptx_grow(&m->vars, &m->cvars, m->nvars, sizeof(*m->vars)) ||
	    ptx_grow(&p->names, &p->cnames, p->nnames, sizeof(*p->names)))
		return -ENOMEM;
	m->vars[m->nvars] = v;
	p->names[p->nnames++] = m->nvars;
	*var = m->nvars++;
	return 0;
}

static int number(struct parse *p, uint64_t *n)
{
	*n = 0;
	if (p->l.kind != K_INT)
		return ptx_bad(p, "a number is expected");
	*n = p->l.num;
	ptx_lex_next(&p->l);
	return 0;
}

static int expect(struct parse *p, const char *what)
{
	return ptx_lex_take(&p->l, what) ? 0 : ptx_bad(p, "%s is expected", what);
}

/* [2][3]; the first may be empty. */
static int dimensions(struct parse *p, size_t *count)
{
	uint64_t n;
	int err;

	*count = 1;
	while (ptx_lex_take(&p->l, "[")) {
		n = 0;
		if (p->l.kind == K_INT && (err = number(p, &n)))
			return err;
		if (n && *count > MAX_BYTES / n)
			return ptx_bad(p, "an array is too large");
		*count *= (size_t)n;
		if ((err = expect(p, "]")))
			return err;
	}
	return 0;
}

static void put_number(uint8_t *to, unsigned size, enum tok kind, uint64_t num, bool minus,
		       enum ptx_type type)
{
	float f;
	double d;

	memcpy(&d, &num, 8);
	if (kind == K_F64 && type == T_F32) {
		f = (float)(minus ? -d : d);
		memcpy(to, &f, 4);
		return;
	}
	if (minus)
		num = kind == K_F64 ? num ^ 1ull << 63 : 0 - num;
	memcpy(to, &num, size);
}

static int add_reloc(struct parse *p, struct ptx_var *v, size_t at, unsigned size)
{
	struct ptx_reloc r = { .at = at, .size = (uint8_t)size }, *more;
	bool generic = ptx_lex_take(&p->l, "generic"), minus;
	int err;

	if (generic && (err = expect(p, "(")))
		return err;
	if (p->l.kind != K_WORD || ptx_find_var(p, p->l.text, &r.var))
		return ptx_bad(p, "%.*s is not known", (int)p->l.text.len, p->l.text.at);
	if (p->m->vars[r.var].space != SP_GLOBAL && p->m->vars[r.var].space != SP_CONST)
		return ptx_bad(p, "no constant address");
	ptx_lex_next(&p->l);
	if (generic && (err = expect(p, ")")))
		return err;
	minus = ptx_lex_is(&p->l, "-");
	if (minus || ptx_lex_is(&p->l, "+")) {
		uint64_t n;

		ptx_lex_next(&p->l);
		if ((err = number(p, &n)))
			return err;
		r.add = (int64_t)(minus ? 0 - n : n);
	}
	if (size != 8)
		return ptx_bad(p, "an address wants 64 bits");
	more = realloc(v->reloc, (v->relocs + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	v->reloc = more;
	v->reloc[v->relocs++] = r;
	return 0;
}

/* After the =. Braces within braces are only counted. */
static int initialiser(struct parse *p, struct ptx_var *v, unsigned size)
{
	unsigned depth = 0;
	size_t at = 0;
	int err = 0;

	if (v->size > MAX_INIT || !v->size)
		return ptx_bad(p, "a variable is too large for its initialiser");
	v->init = calloc(1, v->size);
	if (!v->init)
		return -ENOMEM;
	do {
		bool minus = false;

		if (ptx_lex_take(&p->l, "{")) {
			depth++;
			continue;
		}
		if (depth && ptx_lex_take(&p->l, "}")) {
			depth--;
			continue;
		}
		if (depth && ptx_lex_take(&p->l, ","))
			continue;
		while (ptx_lex_take(&p->l, "-"))
			minus = !minus;
		if (at + size > v->size)
			return ptx_bad(p, "an initialiser is too long");
		if (p->l.kind == K_INT || p->l.kind == K_F32 || p->l.kind == K_F64) {
			put_number(v->init + at, size, p->l.kind, p->l.num, minus, v->type);
			ptx_lex_next(&p->l);
		} else if (p->l.kind == K_WORD && !minus) {
			err = add_reloc(p, v, at, size);
		} else {
			return ptx_bad(p, "no constant");
		}
		at += size;
	} while (!err && depth);
	return err;
}

/* What may stand before a variable's type. */
static int attributes(struct parse *p, struct ptx_var *v, unsigned *vec)
{
	uint64_t n;
	int err;

	*vec = 1;
	for (;;) {
		if (ptx_lex_take(&p->l, ".align")) {
			if ((err = number(p, &n)))
				return err;
			if (!n || n & (n - 1) || n > 4096)
				return ptx_bad(p, "an alignment is no power of two");
			if (n > v->align && p->l.kind == K_DIRECTIVE)
				v->align = (size_t)n;
		} else if (ptx_lex_take(&p->l, ".v2")) {
			*vec = 2;
		} else if (ptx_lex_take(&p->l, ".v4")) {
			*vec = 4;
		} else {
			break;
		}
	}
	return 0;
}

/* .ptr .global .align 8: says nothing about the parameter itself. */
static int pointee(struct parse *p)
{
	uint64_t n;

	if (!ptx_lex_take(&p->l, ".ptr"))
		return 0;
	while (p->l.kind == K_DIRECTIVE) {
		bool align = ptx_lex_is(&p->l, ".align");
		int err;

		ptx_lex_next(&p->l);
		if (align && (err = number(p, &n)))
			return err;
	}
	return 0;
}

static int one_variable(struct parse *p, struct ptx_var v, unsigned size, uint32_t *var)
{
	size_t count;
	uint32_t old;
	int err;

	if (p->l.kind != K_WORD)
		return ptx_bad(p, "a name is expected");
	v.name = p->l.text;
	ptx_lex_next(&p->l);
	if ((err = dimensions(p, &count)))
		return err;
	if (count > MAX_BYTES / size)
		return ptx_bad(p, "an array is too large");
	v.size = count * size;
	if (ptx_lex_take(&p->l, "=")) {
		if (v.space != SP_GLOBAL && v.space != SP_CONST)
			return ptx_bad(p, "no initialiser is allowed here");
		err = initialiser(p, &v, size);
	}
	/* Repeated: whichever is not only a declaration. */
	if (!err && !p->f && !ptx_find_var(p, v.name, &old) &&
	    p->m->vars[old].space == v.space) {
		if (!v.is_extern && p->m->vars[old].is_extern)
			p->m->vars[old] = v;
		else
			err = v.is_extern ? 0 : ptx_bad(p, "a variable is there twice");
		*var = old;
	} else if (!err) {
		err = new_var(p, v, var);
	}
	if (err) {
		free(v.init);
		free(v.reloc);
	}
	return err;
}

int ptx_declare(struct parse *p, enum ptx_space space, bool is_extern, bool in_list,
		uint32_t *var)
{
	struct ptx_var v = { .space = space, .is_extern = is_extern };
	unsigned vec;
	int err = attributes(p, &v, &vec);

	if (err)
		return err;
	if (p->l.kind == K_DIRECTIVE)
		v.type = ptx_type_named((struct slice){ p->l.text.at + 1, p->l.text.len - 1 });
	if (v.type == T_NONE || v.type == T_PRED)
		return ptx_bad(p, "a variable's type is expected");
	ptx_lex_next(&p->l);
	if ((err = pointee(p)))
		return err;
	if (v.align < ptx_type_size(v.type) * vec)
		v.align = ptx_type_size(v.type) * vec;
	do {
		err = one_variable(p, v, ptx_type_size(v.type) * vec, var);
	} while (!err && !in_list && ptx_lex_take(&p->l, ","));
	return err || in_list ? err : expect(p, ";");
}

/* ---- functions ---------------------------------------------------------------------- */

struct ptx_func *ptx_find_func(const struct ptx_module *m, struct slice name)
{
	for (uint32_t i = 0; i < m->nfuncs; i++)
		if (same(m->funcs[i]->name, name))
			return m->funcs[i];
	return NULL;
}

static struct ptx_func *new_func(struct ptx_module *m, struct slice name)
{
	struct ptx_func **more = realloc(m->funcs, (m->nfuncs + 1) * sizeof(*more));
	struct ptx_func *f;

	if (!more)
		return NULL;
	m->funcs = more;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->m = m;
	f->name = name;
	f->max_threads = MAX_THREADS;
	f->kernel = (struct ptx_kernel){ m, f };
	f->cname = strndup(name.at, name.len);
	if (!f->cname) {
		free(f);
		return NULL;
	}
	m->funcs[m->nfuncs++] = f;
	return f;
}

static size_t round_up(size_t n, size_t align)
{
	return (n + align - 1) & ~(align - 1);
}

/* Where a parameter lies: an entry's in the launch's bytes, a function's in its
 * local memory. */
static int place_param(struct parse *p, struct ptx_func *f, uint32_t var)
{
	struct ptx_var *v = &p->m->vars[var];
	size_t at = round_up(f->is_entry ? f->param_bytes : f->local_bytes, v->align);

	if (v->size > MAX_PARAMS || at + v->size > (f->is_entry ? MAX_PARAMS : MAX_LOCAL))
		return ptx_bad(p, "parameters are too large");
	v->addr = at;
	v->func = f;
	if (f->is_entry)
		f->param_bytes = at + v->size;
	else
		f->local_bytes = (uint32_t)(at + v->size);
	return 0;
}

/* ( .param ..., ... ) */
static int param_list(struct parse *p, struct ptx_func *f, uint32_t **list, uint32_t *n)
{
	int err;

	free(*list);
	*list = NULL;
	*n = 0;
	if (!ptx_lex_take(&p->l, "("))
		return 0;
	while (!ptx_lex_take(&p->l, ")")) {
		uint32_t var, *more;

		if (ptx_lex_is(&p->l, ".reg"))
			ptx_unsupported(p, "parameters in registers");
		if (!ptx_lex_take(&p->l, ".param") && !ptx_lex_take(&p->l, ".reg"))
			return ptx_bad(p, ".param is expected");
		err = ptx_declare(p, f->is_entry ? SP_PARAM : SP_LOCAL, false, true, &var);
		if (!err)
			err = place_param(p, f, var);
		if (err)
			return err;
		more = realloc(*list, (*n + 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		*list = more;
		more[(*n)++] = var;
		if (!ptx_lex_take(&p->l, ",") && !ptx_lex_is(&p->l, ")"))
			return ptx_bad(p, ") is expected");
	}
	return 0;
}

/* .maxntid 256, 1, 1 .minnctapersm 2 ... up to { or ; */
static int directives(struct parse *p, struct ptx_func *f)
{
	while (p->l.kind == K_DIRECTIVE) {
		bool threads = ptx_lex_is(&p->l, ".maxntid") || ptx_lex_is(&p->l, ".reqntid");
		uint64_t n = 1;

		ptx_lex_next(&p->l);
		while (p->l.kind == K_INT || p->l.kind == K_STRING) {
			n *= p->l.kind == K_INT && p->l.num < 1 << 20 ? p->l.num : 1;
			n = n < MAX_THREADS ? n : MAX_THREADS;
			ptx_lex_next(&p->l);
			if (!ptx_lex_take(&p->l, ","))
				break;
		}
		if (threads && n)
			f->max_threads = (unsigned)n;
	}
	return 0;
}

static int add_kernel(struct ptx_module *m, struct ptx_func *f)
{
	struct ptx_func **more = realloc(m->kernels, (m->nkernels + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	m->kernels = more;
	m->kernels[m->nkernels++] = f;
	return 0;
}

/* The name of a function whose results come before it. */
static int name_ahead(struct parse *p, struct slice *name)
{
	struct lex at = p->l;

	if (ptx_lex_is(&at, "("))
		while (at.kind != K_END && at.kind != K_BAD && !ptx_lex_take(&at, ")"))
			ptx_lex_next(&at);
	if (at.kind != K_WORD)
		return ptx_bad(p, "a function's name is expected");
	*name = at.text;
	return 0;
}

static int function(struct parse *p, bool entry)
{
	uint32_t outside = p->nnames;
	struct slice name;
	struct ptx_func *f;
	int err = name_ahead(p, &name);

	if (err)
		return err;
	f = ptx_find_func(p->m, name);
	if (f && (f->defined || f->is_entry != entry))
		return ptx_bad(p, "%.*s is there twice", (int)name.len, name.at);
	if (!f)
		f = new_func(p->m, name);
	if (!f)
		return -ENOMEM;
	f->is_entry = entry;
	f->param_bytes = f->local_bytes = 0;
	p->f = f;
	p->in.line = p->l.tok_line;
	err = param_list(p, f, &f->rets, &f->nrets);
	if (!err)
		ptx_lex_next(&p->l);
	if (!err)
		err = param_list(p, f, &f->params, &f->nparams);
	if (!err)
		err = directives(p, f);
	if (!err && ptx_lex_take(&p->l, "{")) {
		f->defined = true;
		err = ptx_body(p, f);
		if (!err && entry)
			err = add_kernel(p->m, f);
	} else if (!err) {
		ptx_lex_take(&p->l, ";");
	}
	p->f = NULL;
	p->nnames = outside;
	return err;
}

/* ---- the module --------------------------------------------------------------------------- */

/* To the end of what is of no use here: ; or a block in braces. */
static int skip(struct parse *p)
{
	unsigned depth = 0;

	while (p->l.kind != K_END) {
		if (ptx_lex_is(&p->l, "{"))
			depth++;
		if (ptx_lex_is(&p->l, "}") && (!depth || !--depth))
			break;
		if (ptx_lex_is(&p->l, ";") && !depth)
			break;
		ptx_lex_next(&p->l);
	}
	if (p->l.kind == K_END)
		return ptx_bad(p, "the text ends too early");
	ptx_lex_next(&p->l);
	return 0;
}

/* The rest of the directive's line. */
static void skip_line(struct parse *p)
{
	uint32_t line = p->l.tok_line;

	while (p->l.kind != K_END && p->l.tok_line == line)
		ptx_lex_next(&p->l);
}

static int address_size(struct parse *p)
{
	uint64_t n;
	int err = number(p, &n);

	return err ? err : n == 64 ? 0 : ptx_bad(p, "addresses of 64 bits are expected");
}

static int statement(struct parse *p)
{
	bool is_extern = false;
	uint32_t var;

	while (ptx_lex_is(&p->l, ".visible") || ptx_lex_is(&p->l, ".extern") ||
	       ptx_lex_is(&p->l, ".weak") || ptx_lex_is(&p->l, ".common")) {
		is_extern |= ptx_lex_is(&p->l, ".extern");
		ptx_lex_next(&p->l);
	}
	if (ptx_lex_take(&p->l, ".entry"))
		return function(p, true);
	if (ptx_lex_take(&p->l, ".func"))
		return function(p, false);
	if (ptx_lex_take(&p->l, ".global"))
		return ptx_declare(p, SP_GLOBAL, is_extern, false, &var);
	if (ptx_lex_take(&p->l, ".const"))
		return ptx_declare(p, SP_CONST, is_extern, false, &var);
	if (ptx_lex_take(&p->l, ".shared"))
		return ptx_declare(p, SP_SHARED, is_extern, false, &var);
	if (ptx_lex_take(&p->l, ".address_size"))
		return address_size(p);
	if (ptx_lex_is(&p->l, ".version") || ptx_lex_is(&p->l, ".target") ||
	    ptx_lex_is(&p->l, ".file") || ptx_lex_is(&p->l, ".loc")) {
		skip_line(p);
		return 0;
	}
	if (p->l.kind == K_DIRECTIVE)
		return skip(p);
	return ptx_lex_take(&p->l, ";") ? 0 : ptx_bad(p, "a directive is expected");
}

static int parse_all(struct parse *p)
{
	bool version = false;
	int err = 0;

	ptx_lex_next(&p->l);
	while (!err && p->l.kind != K_END) {
		version |= ptx_lex_is(&p->l, ".version");
		err = version ? statement(p) : ptx_bad(p, ".version is expected");
	}
	if (!err && !version)
		err = ptx_bad(p, "the text is empty");
	return err ? err : ptx_link(p);
}

int ptx_parse(const char *text, size_t len, struct ptx_module **m, char *err, size_t errlen)
{
	struct parse *p = calloc(1, sizeof(*p));
	int r = -ENOMEM;

	*m = NULL;
	if (err && errlen)
		err[0] = 0;
	if (!p)
		return -ENOMEM;
	p->err = err;
	p->errlen = errlen;
	p->m = calloc(1, sizeof(*p->m));
	if (p->m && len < UINT32_MAX)
		p->m->text = malloc(len + 1);
	if (p->m && p->m->text) {
		memcpy(p->m->text, text, len);
		p->m->ops = ptx_ops_best();
		p->l = (struct lex){ .at = p->m->text, .end = p->m->text + len, .line = 1 };
		r = parse_all(p);
	}
	if (!r)
		*m = p->m;
	else
		ptx_free(p->m);
	if (r == -ENOMEM && err && errlen)
		snprintf(err, errlen, "no memory");
	free(p->names);
	free(p->ranges);
	free(p->labels);
	free(p->fixups);
	free(p);
	return r;
}

static void free_func(struct ptx_func *f)
{
	free(f->cname);
	free(f->params);
	free(f->rets);
	free(f->slots);
	free(f->hash);
	free(f->calls);
	free(f->reach);
	free(f->shared);
	free(f->shared_at);
	free(f);
}

void ptx_free(struct ptx_module *m)
{
	if (!m)
		return;
	for (uint32_t i = 0; i < m->nfuncs; i++)
		free_func(m->funcs[i]);
	for (uint32_t i = 0; i < m->nvars; i++) {
		free(m->vars[i].cname);
		free(m->vars[i].init);
		free(m->vars[i].reloc);
	}
	free(m->funcs);
	free(m->kernels);
	free(m->vars);
	free(m->globals);
	free(m->code);
	free(m->text);
	free(m);
}
