/* SPDX-License-Identifier: MIT */
/* ptx_link.c - where registers, local and shared memory lie, and who calls whom.
 *
 * Owns nothing. (1) Functions' registers and local memory lie side by side, a
 * kernel's behind those of all functions if it calls any: operations hold the
 * final places. (2) Within a function: predicates, registers, then what is
 * filled in before a block starts. (3) Shared memory is laid out for each kernel,
 * of the variables it can reach; dynamic memory starts where they end.
 * Lock: none.
 */
#include "tests/emu/ptx_int.h"

#define ALIGN(n, a)	(((n) + (a) - 1) & ~((a) - 1))

static void why(struct ptx_func *f, const char *what, const char *name)
{
	if (!f->why[0])
		snprintf(f->why, sizeof(f->why), "%.100s %.50s", what, name);
}

/* ---- registers ------------------------------------------------------------------ */

static void place(struct ptx_func *f, bool fills, bool preds, uint32_t *at)
{
	for (uint32_t i = 1; i < f->nslots; i++) {
		struct ptx_slot *s = &f->slots[i];

		if ((s->fill != FILL_NONE) != fills || !s->size != preds)
			continue;
		s->place = *at;
		*at += s->size ? s->size * LANES : 4;
	}
	*at = ALIGN(*at, 64u);
}

/* 0 is no place: a function's first 64 bytes are nobody's. */
static void layout(struct ptx_func *f)
{
	uint32_t at = 64;

	place(f, false, true, &at);
	place(f, false, false, &at);
	f->poison_bytes = at;
	place(f, true, true, &at);
	place(f, true, false, &at);
	f->regs_bytes = at;
	f->local_bytes = ALIGN(f->local_bytes, 16u);
}

static void patch(struct ptx_func *f)
{
	for (uint32_t i = f->code; i < f->code + f->ncode; i++) {
		struct ptx_op *o = &f->m->code[i];

		for (int k = 0; k < 6; k++)
			if (o->r[k])
				o->r[k] = f->regs_base + f->slots[o->r[k]].place;
		if (o->guard)
			o->guard = f->regs_base + f->slots[o->guard].place;
	}
}

/* ---- calls ------------------------------------------------------------------------- */

static int add_reach(struct ptx_func *k, struct ptx_func *f)
{
	struct ptx_func **more = realloc(k->reach, (k->nreach + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	k->reach = more;
	more[k->nreach++] = f;
	return 0;
}

enum mark { MARK_NONE, MARK_OPEN, MARK_DONE };

static int search(struct ptx_func *k, struct ptx_func *f, unsigned depth)
{
	int err = 0;

	if (f->mark == MARK_DONE)
		return 0;
	if (f->mark == MARK_OPEN || depth >= MAX_DEPTH - 1) {
		why(k, "recursion of", f->cname);
		return 0;
	}
	if (!f->defined)
		why(k, "there is no body of", f->cname);
	if (f->why[0] && f != k)
		why(k, f->why, "");
	f->mark = MARK_OPEN;
	for (uint32_t i = 0; !err && i < f->ncalls; i++)
		err = search(k, f->calls[i], depth + 1);
	f->mark = MARK_DONE;
	return err ? err : add_reach(k, f);
}

/* ---- shared memory ---------------------------------------------------------------------- */

static int add_shared(struct ptx_func *k, uint32_t var)
{
	uint32_t *a, *b;

	for (uint32_t i = 0; i < k->nshared; i++)
		if (k->shared[i] == var)
			return 0;
	a = realloc(k->shared, (k->nshared + 1) * sizeof(*a));
	if (a)
		k->shared = a;
	b = realloc(k->shared_at, (k->nshared + 1) * sizeof(*b));
	if (b)
		k->shared_at = b;
	if (!a || !b)
		return -ENOMEM;
	a[k->nshared++] = var;
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int find_shared(struct ptx_func *k, const struct ptx_func *f)
{
	const struct ptx_var *vars = k->m->vars;

	for (uint32_t i = 1; i < f->nslots; i++) {
		const struct ptx_slot *s = &f->slots[i];
		const struct ptx_var *v;

		if (s->fill != FILL_VAR)
			continue;
		v = &vars[s->var];
		if (v->space == SP_SHARED && add_shared(k, s->var))
			return -ENOMEM;
		if (v->space != SP_SHARED && v->is_extern)
			why(k, "an external variable,", "without a definition");
	}
	return 0;
}

static void layout_shared(struct ptx_func *k)
{
	const struct ptx_var *vars = k->m->vars;
	size_t at = 0, align = 16;

	qsort(k->shared, k->nshared, sizeof(*k->shared), by_number);
	for (uint32_t i = 0; i < k->nshared; i++) {
		const struct ptx_var *v = &vars[k->shared[i]];

		if (v->is_extern || !v->size) {
			align = v->align > align ? v->align : align;
			continue;
		}
		at = ALIGN(at, v->align);
		k->shared_at[i] = (uint32_t)at;
		at += v->size;
		if (v->size > 1u << 20 || at > 1u << 20) {
			why(k, "more shared memory than a GPU has,", "static");
			at = 0;
		}
	}
	k->static_shared = (uint32_t)at;
	k->dyn_align = (uint32_t)align;
	for (uint32_t i = 0; i < k->nshared; i++)
		if (vars[k->shared[i]].is_extern || !vars[k->shared[i]].size)
			k->shared_at[i] = (uint32_t)ALIGN(at, align);
}

static int link_kernel(struct ptx_module *m, struct ptx_func *k)
{
	int err;

	for (uint32_t i = 0; i < m->nfuncs; i++)
		m->funcs[i]->mark = MARK_NONE;
	err = search(k, k, 0);
	for (uint32_t i = 0; !err && i < k->nreach; i++)
		err = find_shared(k, k->reach[i]);
	if (!err && k->nshared)
		layout_shared(k);
	if (!k->dyn_align)
		k->dyn_align = 16;
	return err;
}

static int find_globals(struct ptx_module *m)
{
	m->globals = malloc((m->nvars + 1) * sizeof(*m->globals));
	if (!m->globals)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->nvars; i++) {
		struct ptx_var *v = &m->vars[i];

		if ((v->space != SP_GLOBAL && v->space != SP_CONST) || v->is_extern)
			continue;
		v->cname = strndup(v->name.at, v->name.len);
		if (!v->cname)
			return -ENOMEM;
		m->globals[m->nglobals++] = i;
	}
	return 0;
}

int ptx_link(struct parse *p)
{
	struct ptx_module *m = p->m;
	uint64_t regs = 0, local = 0;
	int err = find_globals(m);

	for (uint32_t i = 0; i < m->nfuncs; i++) {
		struct ptx_func *f = m->funcs[i];

		layout(f);
		if (f->is_entry)
			continue;
		f->regs_base = (uint32_t)regs;
		f->local_base = (uint32_t)local;
		regs += f->regs_bytes;
		local += f->local_bytes;
	}
	if (regs > 1u << 30 || local > 1u << 30)
		return ptx_bad(p, "functions want too many registers");
	for (uint32_t i = 0; i < m->nfuncs; i++) {
		struct ptx_func *f = m->funcs[i];

		if (f->is_entry) {
			f->regs_base = f->ncalls ? (uint32_t)regs : 0;
			f->local_base = f->ncalls ? (uint32_t)local : 0;
		}
		f->file_bytes = f->regs_base + f->regs_bytes;
		f->lane_local = f->local_base + f->local_bytes;
		patch(f);
	}
	for (uint32_t i = 0; !err && i < m->nkernels; i++)
		err = link_kernel(m, m->kernels[i]);
	return err;
}

/* ---- what the module tells ------------------------------------------------------------ */

int ptx_kernel_count(const struct ptx_module *m)
{
	return (int)m->nkernels;
}

const struct ptx_kernel *ptx_kernel_at(const struct ptx_module *m, int i)
{
	return i >= 0 && (uint32_t)i < m->nkernels ? &m->kernels[i]->kernel : NULL;
}

const struct ptx_kernel *ptx_kernel(const struct ptx_module *m, const char *name)
{
	for (uint32_t i = 0; i < m->nkernels; i++)
		if (!strcmp(m->kernels[i]->cname, name))
			return &m->kernels[i]->kernel;
	return NULL;
}

const char *ptx_kernel_name(const struct ptx_kernel *k)
{
	return k->f->cname;
}

int ptx_param_count(const struct ptx_kernel *k)
{
	return (int)k->f->nparams;
}

int ptx_param(const struct ptx_kernel *k, int i, size_t *offset, size_t *size)
{
	const struct ptx_var *v;

	if (i < 0 || (uint32_t)i >= k->f->nparams)
		return -ERANGE;
	v = &k->m->vars[k->f->params[i]];
	*offset = (size_t)v->addr;
	*size = v->size;
	return 0;
}

size_t ptx_param_bytes(const struct ptx_kernel *k)
{
	return k->f->param_bytes;
}

size_t ptx_shared_bytes(const struct ptx_kernel *k)
{
	return k->f->static_shared;
}

size_t ptx_local_bytes(const struct ptx_kernel *k)
{
	return k->f->lane_local;
}

unsigned ptx_max_threads(const struct ptx_kernel *k)
{
	return k->f->max_threads;
}

int ptx_global_count(const struct ptx_module *m)
{
	return (int)m->nglobals;
}

int ptx_global(const struct ptx_module *m, int i, const char **name, size_t *size,
	       size_t *align, const void **init, int *is_const)
{
	const struct ptx_var *v;

	if (i < 0 || (uint32_t)i >= m->nglobals)
		return -ERANGE;
	v = &m->vars[m->globals[i]];
	*name = v->cname;
	*size = v->size;
	*align = v->align;
	*init = v->init;
	*is_const = v->space == SP_CONST;
	return 0;
}

void ptx_global_place(struct ptx_module *m, int i, uint64_t addr)
{
	if (i < 0 || (uint32_t)i >= m->nglobals)
		return;
	m->vars[m->globals[i]].addr = addr;
	for (uint32_t k = 0; k < m->nvars; k++) {
		struct ptx_var *v = &m->vars[k];

		for (uint32_t r = 0; r < v->relocs; r++) {
			uint64_t to = m->vars[v->reloc[r].var].addr + (uint64_t)v->reloc[r].add;

			if (v->reloc[r].var == m->globals[i])
				memcpy(v->init + v->reloc[r].at, &to, 8);
		}
	}
}
