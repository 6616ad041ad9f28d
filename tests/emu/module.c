/* SPDX-License-Identifier: MIT */
/* module.c - modules of PTX text, their variables, and libraries of them.
 *
 * Owns modules, functions, libraries and kernels. (1) A library is one text; each context
 * that uses it gets a module of its own, with its own variables. (2) Anything that is not
 * PTX text is CUDA_ERROR_NO_BINARY_FOR_GPU. Lock: the emulator's.
 */
#include "tests/emu/emu.h"
#include "tests/emu/ptx.h"

#include <stdio.h>

struct library {
	uintptr_t handle;
	char *text;
	struct ptx_module *ptx;		/* for names; never run */
	struct module **modules;
	unsigned nmodules;
	struct kernel **kernels;
	unsigned nkernels;
};

/* ---- loading ----------------------------------------------------------------------- */

static CUresult parse(const char *text, struct ptx_module **out)
{
	char why[256] = "";
	int err;

	if (!text)
		return CUDA_ERROR_INVALID_VALUE;
	if (!memcmp(text, "\177ELF", 4) || !memcmp(text, "\xb1\x43\x62\x46", 4) ||
	    !memcmp(text, "\x50\xed\x55\xba", 4))
		return CUDA_ERROR_NO_BINARY_FOR_GPU;
	err = ptx_parse(text, strlen(text), out, why, sizeof(why));
	if (err)
		emu_log("PTX: %s", why);
	return err ? CUDA_ERROR_INVALID_PTX : CUDA_SUCCESS;
}

static CUresult place_one(struct module *m, int i)
{
	const char *name;
	size_t size, align;
	const void *init;
	int is_const;
	struct range *r;
	CUresult err;

	ptx_global(m->ptx, i, &name, &size, &align, &init, &is_const);
	r = vm_reserve(round_up(size ? size : 1, EMU_PAGE), EMU_PAGE, 0, R_GLOBAL);
	if (!r)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r->asked = size;
	r->ctx = m->ctx;
	err = vm_back(r, m->ctx->device);
	if (err) {
		vm_forget(r);
		return err;
	}
	ptx_global_place(m->ptx, i, r->addr);
	m->globals[m->nglobals++] = r;
	vm_show(r);
	return CUDA_SUCCESS;
}

static CUresult place_all(struct module *m)
{
	int n = ptx_global_count(m->ptx);
	CUresult err = CUDA_SUCCESS;

	m->globals = calloc((size_t)n + 1, sizeof(struct range *));
	for (int i = 0; i < n && !err; i++)
		err = place_one(m, i);
	for (int i = 0; i < n && !err; i++) {
		const char *name;
		size_t size, align;
		const void *init;
		int is_const;
		char *at = vm_alias(m->globals[i]->addr);

		ptx_global(m->ptx, i, &name, &size, &align, &init, &is_const);
		memset(at, 0, size);
		if (init)
			memcpy(at, init, size);
	}
	return err;
}

CUresult module_open(const void *image, struct library *lib, struct ctx *c, struct module **out)
{
	struct module *m = calloc(1, sizeof(*m));
	CUresult err;

	if (!m)
		abort();
	err = parse(image, &m->ptx);
	if (err) {
		free(m);
		return err;
	}
	m->ctx = c;
	m->library = lib;
	m->handle = obj_new(K_MODULE, m);
	err = place_all(m);
	if (err) {
		module_end(m);
		return err;
	}
	*out = m;
	return CUDA_SUCCESS;
}

/* What it has may still be asked for by work that is queued: that ends first. */
void module_end(struct module *m)
{
	ctx_wait(m->ctx);
	for (unsigned i = 0; i < m->nglobals; i++) {
		vm_unback(m->globals[i]);
		vm_forget(m->globals[i]);
	}
	for (unsigned i = 0; i < m->nfunctions; i++)
		obj_end(m->functions[i]->handle);
	ptx_free(m->ptx);
	obj_end(m->handle);
	m->ptx = NULL;		/* the rest stays: graphs may name its functions */
	m->nglobals = 0;
}

struct function *module_function(struct module *m, const char *name)
{
	const struct ptx_kernel *k = name ? ptx_kernel(m->ptx, name) : NULL;
	struct function *f;

	if (!k)
		return NULL;
	for (unsigned i = 0; i < m->nfunctions; i++)
		if (m->functions[i]->k == k)
			return m->functions[i];
	f = calloc(1, sizeof(*f));
	m->functions = realloc(m->functions, (m->nfunctions + 1) * sizeof(struct function *));
	if (!f || !m->functions)
		abort();
	f->module = m;
	f->k = k;
	f->name = ptx_kernel_name(k);
	f->carveout = -1;
	f->max_dynamic = 49152 - (int)ptx_shared_bytes(k);
	f->handle = obj_new(K_FUNCTION, f);
	m->functions[m->nfunctions++] = f;
	return f;
}

CUresult module_global(const struct module *m, const char *want, CUdeviceptr *addr, size_t *out)
{
	int n = ptx_global_count(m->ptx);

	for (int i = 0; i < n && want; i++) {
		const char *name;
		size_t size, align;
		const void *init;
		int is_const;

		ptx_global(m->ptx, i, &name, &size, &align, &init, &is_const);
		if (strcmp(name, want))
			continue;
		if (addr)
			*addr = m->globals[i]->addr;
		if (out)
			*out = size;
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_NOT_FOUND;
}

char *read_text(const char *path)
{
	FILE *f = path ? fopen(path, "re") : NULL;
	char *text = NULL;
	size_t room = 0;

	if (!f)
		return NULL;
	if (getdelim(&text, &room, 0, f) < 0) {
		free(text);
		text = NULL;
	}
	fclose(f);
	return text;
}

/* ---- modules --------------------------------------------------------------------------- */

static struct module *module_of(CUmodule h)
{
	return obj_get(K_MODULE, (uintptr_t)h);
}

CUresult i_cuModuleLoadData(CUmodule *out, const void *image)
{
	struct ctx *c = ctx_current();
	struct module *m;
	CUresult r;

	if (!out || !image || !c)
		return c ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_CONTEXT;
	r = module_open(image, NULL, c, &m);
	if (!r)
		*out = (CUmodule)m->handle;
	return r;
}

CUresult i_cuModuleLoadDataEx(CUmodule *out, const void *image, unsigned int n,
			      CUjit_option *options, void **values)
{
	return i_cuModuleLoadData(out, image);
}

CUresult i_cuModuleLoadFatBinary(CUmodule *out, const void *image)
{
	return i_cuModuleLoadData(out, image);
}

CUresult i_cuModuleLoad(CUmodule *out, const char *path)
{
	char *text = read_text(path);
	CUresult r = text ? i_cuModuleLoadData(out, text) : CUDA_ERROR_FILE_NOT_FOUND;

	free(text);
	return r;
}

CUresult i_cuModuleUnload(CUmodule h)
{
	struct module *m = module_of(h);

	if (!m || m->library)
		return CUDA_ERROR_INVALID_HANDLE;
	module_end(m);
	return CUDA_SUCCESS;
}

CUresult i_cuModuleGetFunction(CUfunction *out, CUmodule h, const char *name)
{
	struct module *m = module_of(h);
	const struct function *f;

	if (!out || !name || !m)
		return m ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
	f = module_function(m, name);
	if (!f)
		return CUDA_ERROR_NOT_FOUND;
	*out = (CUfunction)f->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuModuleGetGlobal_v2(CUdeviceptr *addr, size_t *size, CUmodule h, const char *name)
{
	const struct module *m = module_of(h);

	return m ? module_global(m, name, addr, size) : CUDA_ERROR_INVALID_HANDLE;
}

CUresult i_cuModuleGetFunctionCount(unsigned int *out, CUmodule h)
{
	const struct module *m = module_of(h);

	if (!out || !m)
		return m ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
	*out = (unsigned)ptx_kernel_count(m->ptx);
	return CUDA_SUCCESS;
}

CUresult i_cuModuleEnumerateFunctions(CUfunction *out, unsigned int n, CUmodule h)
{
	struct module *m = module_of(h);

	if (!out || !m)
		return m ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
	for (int i = 0; i < ptx_kernel_count(m->ptx) && (unsigned)i < n; i++)
		out[i] = (CUfunction)module_function(m, ptx_kernel_name(ptx_kernel_at(m->ptx, i)))
				 ->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
	if (!mode)
		return CUDA_ERROR_INVALID_VALUE;
	*mode = CU_MODULE_EAGER_LOADING;
	return CUDA_SUCCESS;
}

/* ---- libraries ---------------------------------------------------------------------------- */

static struct library *library_of(CUlibrary h)
{
	return obj_get(K_LIBRARY, (uintptr_t)h);
}

static CUresult library_new(CUlibrary *out, const char *text)
{
	struct library *l = calloc(1, sizeof(*l));
	CUresult r;

	if (!l || !out)
		abort();
	r = parse(text, &l->ptx);
	if (r) {
		free(l);
		return r;
	}
	l->text = strdup(text);
	l->handle = obj_new(K_LIBRARY, l);
	*out = (CUlibrary)l->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuLibraryLoadData(CUlibrary *out, const void *code, CUjit_option *options,
			     void **values, unsigned int n, CUlibraryOption *lib_options,
			     void **lib_values, unsigned int lib_n)
{
	return out && code ? library_new(out, code) : CUDA_ERROR_INVALID_VALUE;
}

CUresult i_cuLibraryLoadFromFile(CUlibrary *out, const char *path, CUjit_option *options,
				 void **values, unsigned int n, CUlibraryOption *lib_options,
				 void **lib_values, unsigned int lib_n)
{
	char *text = out ? read_text(path) : NULL;
	CUresult r = text ? library_new(out, text) : CUDA_ERROR_FILE_NOT_FOUND;

	free(text);
	return r;
}

CUresult i_cuLibraryUnload(CUlibrary h)
{
	struct library *l = library_of(h);

	if (!l)
		return CUDA_ERROR_INVALID_HANDLE;
	for (unsigned i = 0; i < l->nmodules; i++)
		if (obj_get(K_MODULE, l->modules[i]->handle))
			module_end(l->modules[i]);
	for (unsigned i = 0; i < l->nkernels; i++)
		obj_end(l->kernels[i]->handle);
	obj_end(l->handle);
	ptx_free(l->ptx);
	return CUDA_SUCCESS;
}

static CUresult library_module(struct library *l, struct ctx *c, struct module **out)
{
	CUresult r;

	for (unsigned i = 0; i < l->nmodules; i++)
		if (l->modules[i]->ctx == c && obj_get(K_CTX, c->handle)) {
			*out = l->modules[i];
			return CUDA_SUCCESS;
		}
	r = module_open(l->text, l, c, out);
	if (r)
		return r;
	l->modules = realloc(l->modules, (l->nmodules + 1) * sizeof(struct module *));
	if (!l->modules)
		abort();
	l->modules[l->nmodules++] = *out;
	return CUDA_SUCCESS;
}

static struct kernel *library_kernel(struct library *l, const char *name)
{
	struct kernel *k;

	if (!ptx_kernel(l->ptx, name))
		return NULL;
	for (unsigned i = 0; i < l->nkernels; i++)
		if (!strcmp(l->kernels[i]->name, name))
			return l->kernels[i];
	k = calloc(1, sizeof(*k));
	l->kernels = realloc(l->kernels, (l->nkernels + 1) * sizeof(struct kernel *));
	if (!k || !l->kernels)
		abort();
	k->library = l;
	k->name = strdup(name);
	k->handle = obj_new(K_KERNEL, k);
	l->kernels[l->nkernels++] = k;
	return k;
}

CUresult i_cuLibraryGetKernel(CUkernel *out, CUlibrary h, const char *name)
{
	struct library *l = library_of(h);
	const struct kernel *k;

	if (!out || !name || !l)
		return l ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
	k = library_kernel(l, name);
	if (!k)
		return CUDA_ERROR_NOT_FOUND;
	*out = (CUkernel)k->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuLibraryGetModule(CUmodule *out, CUlibrary h)
{
	struct library *l = library_of(h);
	struct module *m;
	CUresult r;

	if (!out || !l)
		return l ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
	if (!ctx_current())
		return CUDA_ERROR_INVALID_CONTEXT;
	r = library_module(l, ctx_current(), &m);
	if (!r)
		*out = (CUmodule)m->handle;
	return r;
}

CUresult i_cuLibraryGetGlobal(CUdeviceptr *addr, size_t *size, CUlibrary h, const char *name)
{
	CUmodule m;
	CUresult r = i_cuLibraryGetModule(&m, h);

	return r ? r : module_global(module_of(m), name, addr, size);
}

CUresult i_cuLibraryGetKernelCount(unsigned int *out, CUlibrary h)
{
	const struct library *l = library_of(h);

	if (!out || !l)
		return l ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
	*out = (unsigned)ptx_kernel_count(l->ptx);
	return CUDA_SUCCESS;
}

CUresult i_cuLibraryEnumerateKernels(CUkernel *out, unsigned int n, CUlibrary h)
{
	struct library *l = library_of(h);

	if (!out || !l)
		return l ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
	for (int i = 0; i < ptx_kernel_count(l->ptx) && (unsigned)i < n; i++)
		out[i] = (CUkernel)library_kernel(l, ptx_kernel_name(ptx_kernel_at(l->ptx, i)))
				 ->handle;
	return CUDA_SUCCESS;
}

struct function *function_get(uintptr_t h, struct ctx *c, CUresult *err)
{
	struct function *f = obj_get(K_FUNCTION, h);
	const struct kernel *k = obj_get(K_KERNEL, h);
	struct module *m;

	*err = CUDA_SUCCESS;
	if (f)
		return f;
	*err = c ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
	if (!k || !c)
		return NULL;
	*err = library_module(k->library, c, &m);
	return *err ? NULL : module_function(m, k->name);
}

CUresult i_cuKernelGetFunction(CUfunction *out, CUkernel h)
{
	CUresult r;
	const struct function *f;

	if (!out || !obj_get(K_KERNEL, (uintptr_t)h))
		return out ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_VALUE;
	f = function_get((uintptr_t)h, ctx_current(), &r);
	if (f)
		*out = (CUfunction)f->handle;
	return r;
}

CUresult i_cuKernelGetLibrary(CUlibrary *out, CUkernel h)
{
	const struct kernel *k = obj_get(K_KERNEL, (uintptr_t)h);

	if (!out || !k)
		return out ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_VALUE;
	*out = (CUlibrary)k->library->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuKernelGetName(const char **out, CUkernel h)
{
	const struct kernel *k = obj_get(K_KERNEL, (uintptr_t)h);

	if (!out || !k)
		return out ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_VALUE;
	*out = k->name;
	return CUDA_SUCCESS;
}

CUresult i_cuKernelGetParamInfo(CUkernel h, size_t i, size_t *offset, size_t *size)
{
	const struct kernel *k = obj_get(K_KERNEL, (uintptr_t)h);
	struct function f;

	if (!k)
		return CUDA_ERROR_INVALID_HANDLE;
	f = (struct function){ .k = ptx_kernel(k->library->ptx, k->name) };
	return function_param(&f, i, offset, size);
}
