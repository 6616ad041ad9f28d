/* SPDX-License-Identifier: MIT */
/* launch.c - functions, their parameters, and launches of them.
 *
 * Owns what a running kernel has touched. (1) Parameters are copied at the launch.
 * (2) While a kernel runs, all it got from the page table counts as reached (E1), since
 * the interpreter keeps it until the launch ends. Lock: the emulator's; `lock`, leaf,
 * for what is touched.
 */
#include "tests/emu/emu.h"
#include "tests/emu/ptx.h"

#define SHARED_MOST	232448u

struct touched {
	struct {
		uint64_t addr, size;
	} *at;
	unsigned n, room;
	int device;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- running ------------------------------------------------------------------ */

/* Lately; the same again does no harm. */
static bool noted(const struct touched *t, uint64_t addr, uint64_t size)
{
	for (unsigned i = t->n; i > 0 && i + 8 > t->n; i--)
		if (t->at[i - 1].addr == addr && t->at[i - 1].size == size)
			return true;
	return false;
}

static void *reach(void *arg, uint64_t addr, size_t size, int write)
{
	struct touched *t = arg;
	void *at = vm_at(t->device, addr, size, write);

	if (!at)
		return NULL;
	pthread_mutex_lock(&lock);
	if (!noted(t, addr, size)) {
		if (t->n == t->room) {
			t->room = t->room ? 2 * t->room : 64;
			t->at = realloc(t->at, t->room * sizeof(*t->at));
			if (!t->at)
				abort();
		}
		t->at[t->n].addr = addr;
		t->at[t->n++].size = size;
	}
	pthread_mutex_unlock(&lock);
	return at;
}

bool function_touched(const struct work *w, uint64_t addr, uint64_t size)
{
	const struct touched *t;
	bool found = false;

	pthread_mutex_lock(&lock);
	t = w->u.kernel.touched;
	for (unsigned i = 0; t && i < t->n && !found; i++)
		found = t->at[i].addr < addr + size && addr < t->at[i].addr + t->at[i].size;
	pthread_mutex_unlock(&lock);
	return found;
}

static void touching(struct work *w, struct touched *t)
{
	pthread_mutex_lock(&lock);
	w->u.kernel.touched = t;
	pthread_mutex_unlock(&lock);
}

static const char *what_is(uint64_t addr)
{
	const struct range *r;
	struct host_range h;

	if (host_find(addr, &h))
		return "host memory, but not so";
	if (!vm_is_device(addr))
		return "no device memory (E7)";
	r = vm_find(addr);
	if (!r)
		return "nothing is there";
	if (r->kind == R_ASYNC && !r->live)
		return "not yet, or no longer, allocated (E9)";
	return r->kind == R_RESERVED ? "not mapped, or no access" : "no access";
}

static void failed(struct work *w, int err, const struct ptx_fault *f)
{
	pthread_mutex_lock(&emu.lock);
	if (err == -EFAULT && f->size)
		ctx_fault(w->ctx, CUDA_ERROR_ILLEGAL_ADDRESS,
			  "E4: kernel %s %s %zu bytes at %#llx: %s%s%s", w->u.kernel.fn->name,
			  f->write ? "writes" : "reads", f->size, (unsigned long long)f->addr,
			  what_is(f->addr), f->why[0] ? ": " : "", f->why);
	else
		ctx_fault(w->ctx, err == -ENOSYS  ? CUDA_ERROR_ILLEGAL_INSTRUCTION :
				  err == -EDEADLK ? CUDA_ERROR_LAUNCH_TIMEOUT :
						    CUDA_ERROR_LAUNCH_FAILED,
			  "E4: kernel %s: %s", w->u.kernel.fn->name, f->why);
	pthread_mutex_unlock(&emu.lock);
}

static int by_address(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Of what it touched, what lies in handles of host memory; each page once. */
static void count_host(struct touched *t)
{
	CUmemLocation where;
	uint64_t bytes = 0;

	if (t->n)
		qsort(t->at, t->n, sizeof(*t->at), by_address);
	pthread_mutex_lock(&emu.lock);
	for (unsigned i = 0; i < t->n; i++) {
		if ((i && t->at[i].addr == t->at[i - 1].addr) || vmm_place(t->at[i].addr, &where) ||
		    where.type == CU_MEM_LOCATION_TYPE_DEVICE)
			continue;
		bytes += t->at[i].size;
	}
	emu.dev[t->device].host_reached += bytes;
	pthread_mutex_unlock(&emu.lock);
}

void function_run(struct work *w)
{
	struct touched t = { .device = w->ctx->device };
	const struct ptx_mem mem = { .ctx = &t, .at = reach };
	struct ptx_fault fault = { .addr = 0 };
	int err;

	if (!w->u.kernel.fn->module->ptx)
		return;
	touching(w, &t);
	err = ptx_run(w->u.kernel.fn->k, w->u.kernel.grid, w->u.kernel.block, w->u.kernel.shared,
		      w->u.kernel.params, &mem, &fault);
	touching(w, NULL);
	count_host(&t);
	free(t.at);
	__atomic_fetch_add(&emu.dev[w->ctx->device].launches, 1, __ATOMIC_RELAXED);
	if (err)
		failed(w, err, &fault);
}

/* ---- a launch as work --------------------------------------------------------- */

static CUresult pack(const struct function *f, void **params, unsigned char *to)
{
	int n = ptx_param_count(f->k);

	for (int i = 0; i < n; i++) {
		size_t offset, size;

		ptx_param(f->k, i, &offset, &size);
		if (!params || !params[i])
			return CUDA_ERROR_INVALID_VALUE;
		memcpy(to + offset, params[i], size);
	}
	return CUDA_SUCCESS;
}

static CUresult unpack_extra(void **extra, unsigned char *to, size_t bytes)
{
	const void *from = NULL;
	const size_t *size = NULL;

	for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
		if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER)
			from = extra[1];
		else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE)
			size = extra[1];
		else
			return CUDA_ERROR_INVALID_VALUE;
	}
	if (!size || *size < bytes || (bytes && !from))
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(to, from, bytes);
	return CUDA_SUCCESS;
}

static CUresult check_shape(const CUDA_KERNEL_NODE_PARAMS_v2 *p, const struct function *f)
{
	uint64_t threads = (uint64_t)p->blockDimX * p->blockDimY * p->blockDimZ;

	if (!p->gridDimX || !p->gridDimY || !p->gridDimZ || !threads || threads > 1024 ||
	    p->blockDimZ > 64 || p->gridDimX > 0x7fffffff || p->gridDimY > 65535 ||
	    p->gridDimZ > 65535)
		return CUDA_ERROR_INVALID_VALUE;
	if ((int64_t)p->sharedMemBytes > f->max_dynamic)
		return CUDA_ERROR_INVALID_VALUE;
	return threads > ptx_max_threads(f->k) ? CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES : CUDA_SUCCESS;
}

CUresult function_work(const CUDA_KERNEL_NODE_PARAMS_v2 *p, bool cooperative, struct ctx *c,
		       struct work *w)
{
	uintptr_t h = p->func ? (uintptr_t)p->func : (uintptr_t)p->kern;
	CUresult r;
	struct function *f = function_get(h, c, &r);

	if (!f)
		return r;
	if (f->module->ctx != c)
		return CUDA_ERROR_INVALID_HANDLE;
	r = check_shape(p, f);
	if (r || (p->kernelParams && p->extra))
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	memset(w, 0, sizeof(*w));
	w->kind = W_KERNEL;
	w->ctx = c;
	w->u.kernel.fn = f;
	w->u.kernel.kern = obj_get(K_KERNEL, h);
	memcpy(w->u.kernel.grid, &p->gridDimX, sizeof(w->u.kernel.grid));
	memcpy(w->u.kernel.block, &p->blockDimX, sizeof(w->u.kernel.block));
	w->u.kernel.shared = p->sharedMemBytes;
	w->u.kernel.cooperative = cooperative;
	w->u.kernel.bytes = ptx_param_bytes(f->k);
	w->u.kernel.params = calloc(1, w->u.kernel.bytes + 8);
	if (!w->u.kernel.params)
		abort();
	r = p->extra ? unpack_extra(p->extra, w->u.kernel.params, w->u.kernel.bytes) :
		       pack(f, p->kernelParams, w->u.kernel.params);
	if (r)
		work_drop(w);
	return r;
}

static CUresult launch(const CUDA_KERNEL_NODE_PARAMS_v2 *p, CUstream h, bool cooperative)
{
	struct work w;
	CUresult r;
	struct stream *s = stream_get(h, &r);

	if (!s)
		return r;
	r = function_work(p, cooperative, s->ctx, &w);
	return r ? r : stream_submit(s, &w);
}

/* Blocks of a cooperative launch run at once: no more than fit. */
static bool fits(const CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
	uint64_t threads = (uint64_t)p->blockDimX * p->blockDimY * p->blockDimZ;
	uint64_t blocks = (uint64_t)p->gridDimX * p->gridDimY * p->gridDimZ;

	return threads && blocks <= 4 * (2048 / (threads > 2048 ? 2048 : threads));
}

CUresult i_cuLaunchKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz,
			  unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared,
			  CUstream s, void **params, void **extra)
{
	const CUDA_KERNEL_NODE_PARAMS_v2 p = {
		f, gx, gy, gz, bx, by, bz, shared, params, extra, NULL, NULL,
	};

	return launch(&p, s, false);
}

CUresult i_cuLaunchCooperativeKernel(CUfunction f, unsigned int gx, unsigned int gy,
				     unsigned int gz, unsigned int bx, unsigned int by,
				     unsigned int bz, unsigned int shared, CUstream s,
				     void **params)
{
	const CUDA_KERNEL_NODE_PARAMS_v2 p = {
		f, gx, gy, gz, bx, by, bz, shared, params, NULL, NULL, NULL,
	};

	return fits(&p) ? launch(&p, s, true) : CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
}

CUresult i_cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **params, void **extra)
{
	CUDA_KERNEL_NODE_PARAMS_v2 p = { .func = f, .kernelParams = params, .extra = extra };
	bool cooperative = false;

	if (!c || (c->numAttrs && !c->attrs))
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&p.gridDimX, &c->gridDimX, 7 * sizeof(unsigned));
	for (unsigned i = 0; i < c->numAttrs; i++) {
		const CUlaunchAttributeValue *v = &c->attrs[i].value;

		if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
			cooperative = v->cooperative;
		if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION &&
		    (uint64_t)v->clusterDim.x * v->clusterDim.y * v->clusterDim.z > 1)
			return CUDA_ERROR_NOT_SUPPORTED;
	}
	if (cooperative && !fits(&p))
		return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
	return launch(&p, c->hStream, cooperative);
}

/* ---- what is said of functions ------------------------------------------------ */

CUresult function_param(const struct function *f, size_t i, size_t *offset, size_t *size)
{
	size_t o, n;

	if (!offset || i > 1u << 20 || ptx_param(f->k, (int)i, &o, &n) < 0)
		return CUDA_ERROR_INVALID_VALUE;
	*offset = o;
	if (size)
		*size = n;
	return CUDA_SUCCESS;
}

CUresult function_attribute(const struct function *f, CUfunction_attribute a, int *out)
{
	switch (a) {
	case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *out = (int)ptx_max_threads(f->k); break;
	case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *out = (int)ptx_shared_bytes(f->k); break;
	case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *out = (int)ptx_local_bytes(f->k); break;
	case CU_FUNC_ATTRIBUTE_NUM_REGS: *out = 32; break;
	case CU_FUNC_ATTRIBUTE_PTX_VERSION:
	case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *out = 80; break;
	case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *out = f->max_dynamic; break;
	case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: *out = f->carveout; break;
	case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
	case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA: *out = 0; break;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

CUresult function_set(struct function *f, CUfunction_attribute a, int value)
{
	switch (a) {
	case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
		if (value < 0 || (unsigned)value + ptx_shared_bytes(f->k) > SHARED_MOST)
			return CUDA_ERROR_INVALID_VALUE;
		f->max_dynamic = value;
		return CUDA_SUCCESS;
	case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
		f->carveout = value;
		return CUDA_SUCCESS;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult i_cuFuncGetParamInfo(CUfunction h, size_t i, size_t *offset, size_t *size)
{
	CUresult r;
	const struct function *f = function_get((uintptr_t)h, ctx_current(), &r);

	return f ? function_param(f, i, offset, size) : r;
}

CUresult i_cuFuncGetAttribute(int *out, CUfunction_attribute a, CUfunction h)
{
	CUresult r;
	const struct function *f = function_get((uintptr_t)h, ctx_current(), &r);

	if (!f || !out)
		return f ? CUDA_ERROR_INVALID_VALUE : r;
	return function_attribute(f, a, out);
}

CUresult i_cuFuncSetAttribute(CUfunction h, CUfunction_attribute a, int value)
{
	CUresult r;
	struct function *f = function_get((uintptr_t)h, ctx_current(), &r);

	return f ? function_set(f, a, value) : r;
}

CUresult i_cuKernelGetAttribute(int *out, CUfunction_attribute a, CUkernel h, CUdevice device)
{
	return i_cuFuncGetAttribute(out, a, (CUfunction)h);
}

CUresult i_cuKernelSetAttribute(CUfunction_attribute a, int value, CUkernel h, CUdevice device)
{
	return i_cuFuncSetAttribute((CUfunction)h, a, value);
}

CUresult i_cuFuncSetCacheConfig(CUfunction h, CUfunc_cache config)
{
	CUresult r;

	function_get((uintptr_t)h, ctx_current(), &r);
	return r;
}

CUresult i_cuFuncGetName(const char **out, CUfunction h)
{
	CUresult r;
	const struct function *f = function_get((uintptr_t)h, ctx_current(), &r);

	if (!f || !out)
		return f ? CUDA_ERROR_INVALID_VALUE : r;
	*out = f->name;
	return CUDA_SUCCESS;
}

CUresult i_cuFuncGetModule(CUmodule *out, CUfunction h)
{
	CUresult r;
	const struct function *f = function_get((uintptr_t)h, ctx_current(), &r);

	if (!f || !out)
		return f ? CUDA_ERROR_INVALID_VALUE : r;
	*out = (CUmodule)f->module->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuFuncIsLoaded(CUfunctionLoadingState *out, CUfunction h)
{
	CUresult r;

	if (!out || !function_get((uintptr_t)h, ctx_current(), &r))
		return out ? r : CUDA_ERROR_INVALID_VALUE;
	*out = CU_FUNCTION_LOADING_STATE_LOADED;
	return CUDA_SUCCESS;
}

CUresult i_cuFuncLoad(CUfunction h)
{
	CUresult r;

	function_get((uintptr_t)h, ctx_current(), &r);
	return r;
}

CUresult i_cuOccupancyMaxActiveBlocksPerMultiprocessor(int *out, CUfunction h, int block,
						       size_t shared)
{
	CUresult r;

	if (!out || block <= 0 || block > 1024 || !function_get((uintptr_t)h, ctx_current(), &r))
		return CUDA_ERROR_INVALID_VALUE;
	*out = 2048 / block > 32 ? 32 : 2048 / block;
	return CUDA_SUCCESS;
}

CUresult i_cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *out, CUfunction h, int block,
								size_t shared, unsigned int flags)
{
	return i_cuOccupancyMaxActiveBlocksPerMultiprocessor(out, h, block, shared);
}
