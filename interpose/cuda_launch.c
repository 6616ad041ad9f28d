/* SPDX-License-Identifier: MIT */
/* cuda_launch.c - kernels, captures, and the functions that kernels are made of.
 *
 * (1) A launch costs no driver call: what a function's parameters are is asked once,
 *     at its first launch, and which device a thread is on after that has changed.
 * (2) Arguments are read as the driver reads them, so many bytes and no more; where
 *     their sizes cannot be had, they are not read.
 * (3) A handle of a launch may be a kernel of no context: those are known from
 *     where they were handed out.
 * Lock: none.
 */
#include "interpose/cuda_launch.h"

#define MAX_PARAMS 512	/* 32 KiB of them cannot hold more that matter */
#define KERNELS 4096u	/* power of two; beyond, they are asked as functions first */

struct kernel_of { uintptr_t kernel, library; };	/* by atomics */

static struct kernel_of kernels[KERNELS];	/* by hash of the handle */

/* ---- functions ------------------------------------------------------------------------ */

static struct kernel_of *kernel_slot(const void *handle)
{
	return &kernels[(uintptr_t)handle * 0x9e3779b97f4a7c15ull >> 40 & (KERNELS - 1)];
}

void cuda_note_kernel(CUkernel k, CUlibrary l)
{
	struct kernel_of *at = kernel_slot(k);

	__atomic_store_n(&at->library, (uintptr_t)l, __ATOMIC_RELAXED);
	__atomic_store_n(&at->kernel, (uintptr_t)k, __ATOMIC_RELEASE);
}

bool cuda_is_kernel(const void *f, uintptr_t *library)
{
	struct kernel_of *at = kernel_slot(f);
	bool is = __atomic_load_n(&at->kernel, __ATOMIC_ACQUIRE) == (uintptr_t)f;

	*library = is ? __atomic_load_n(&at->library, __ATOMIC_RELAXED) : 0;
	return is;
}

static void forget_kernels(CUlibrary l)
{
	for (uint32_t i = 0; i < KERNELS; i++)
		if (__atomic_load_n(&kernels[i].library, __ATOMIC_RELAXED) == (uintptr_t)l ||
		    !kernels[i].library)
			__atomic_store_n(&kernels[i].kernel, 0, __ATOMIC_RELAXED);
}

static CUresult ask(CUfunction f, bool kernel, size_t i, size_t *off, size_t *size)
{
	if (kernel)
		return DRIVER(cuKernelGetParamInfo) ?
		       DRIVER(cuKernelGetParamInfo)((CUkernel)f, i, off, size) :
		       CUDA_ERROR_NOT_SUPPORTED;
	return DRIVER(cuFuncGetParamInfo) ? DRIVER(cuFuncGetParamInfo)(f, i, off, size) :
	       CUDA_ERROR_NOT_SUPPORTED;
}

/* How many parameters; below 0: they cannot be had. */
static int read_params(CUfunction f, bool kernel, struct device_param *p)
{
	size_t off, size;
	CUresult r;
	int n = 0;

	while ((r = ask(f, kernel, (size_t)n, &off, &size)) == CUDA_SUCCESS) {
		if (n == MAX_PARAMS)
			return -1;
		p[n++] = (struct device_param){ (uint32_t)off, (uint32_t)size };
	}
	if (r == CUDA_ERROR_INVALID_VALUE)
		return n;
	return cuda_reads_images() ? device_image_params((uintptr_t)f, p, MAX_PARAMS, NULL, 0) :
	       -1;
}

/* Up to room bytes of an image's, or the driver's own. */
static const char *name_of(CUfunction f, bool kernel, char *own, size_t room)
{
	const char *name = NULL;

	if (!device_tape_on())
		return NULL;
	if (kernel && DRIVER(cuKernelGetName))
		DRIVER(cuKernelGetName)(&name, (CUkernel)f);
	else if (!kernel && DRIVER(cuFuncGetName))
		DRIVER(cuFuncGetName)(&name, f);
	if (!name && cuda_reads_images()) {
		*own = 0;
		device_image_params((uintptr_t)f, NULL, -1, own, room);
		name = *own ? own : NULL;
	}
	return name;
}

static __attribute__((noinline, cold)) const struct device_fn *learn(CUfunction f)
{
	struct device_param p[MAX_PARAMS];
	uintptr_t owner;
	bool kernel = cuda_is_kernel(f, &owner);
	int n = read_params(f, kernel, p);
	CUmodule m = NULL;
	char own[256];

	if (!kernel && DRIVER(cuFuncGetModule) && DRIVER(cuFuncGetModule)(&m, f) == CUDA_SUCCESS)
		owner = (uintptr_t)m;
	return device_fn_add((uintptr_t)f, owner, p, n, name_of(f, kernel, own, sizeof(own)));
}

/* A call was taken by a stream that captures: it becomes part of a graph, and is not done now.
 * No stream: the thread's, for the legacy one captures nothing. */
bool cuda_captured(CUstream s)
{
	CUstreamCaptureStatus now = CU_STREAM_CAPTURE_STATUS_NONE;

	return vmm_captures() && DRIVER(cuStreamIsCapturing) &&
	       DRIVER(cuStreamIsCapturing)(s ? s : CU_STREAM_PER_THREAD, &now) == CUDA_SUCCESS &&
	       now == CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

/* The bytes of `extra`, or NULL: none, or they are given another way. */
static const void *packed_args(void *const *extra, size_t *bytes)
{
	const void *at = NULL;

	*bytes = 0;
	for (int i = 0; extra && extra[i] != CU_LAUNCH_PARAM_END && i < 8; i += 2) {
		if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
			at = extra[i + 1];
		else if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE && extra[i + 1])
			*bytes = *(const size_t *)extra[i + 1];
	}
	return at;
}

/* Before the call: its arguments are the program's until then. */
void cuda_look_at_args(CUfunction f, uintptr_t stream, void *const *params, void *const *extra)
{
	const struct device_fn *fn;
	const void *packed = NULL;
	size_t bytes = 0;

	if (!f || !device_begun())
		return;
	fn = device_fn((uintptr_t)f);
	if (!fn)
		fn = learn(f);
	if (!params)
		packed = packed_args(extra, &bytes);
	if (fn)
		device_launch(cuda_device(), stream, fn, params, packed, bytes);
}

/* Of a launch. True: it is captured. */
static bool look_at(CUfunction f, CUstream s, void *const *params, void *const *extra)
{
	bool captured = cuda_captured(s);

	cuda_look_at_args(f, captured ? DEVICE_NODE : (uintptr_t)s, params, extra);
	return captured;
}

/* ---- launches whose arguments may be changed (core/vmm.h) -------------------------------- */

static void add_word(uint32_t nth, uint64_t value, void *arg)
{
	struct vmm_launch *l = arg;

	if (l->n < VMM_WORDS) {
		l->arg[l->n].word = nth;
		l->arg[l->n].value = value;
	}
	l->n++;
}

/* False: nothing is known of its arguments. */
bool cuda_read_words(struct vmm_launch *l, const struct device_fn *fn, void *const *params,
		     void *const *extra)
{
	size_t bytes = 0;
	const void *packed = params ? NULL : packed_args(extra, &bytes);

	l->n = 0;
	l->fn = fn ? device_fn_life(fn) : 0;
	if (!l->fn || device_unread(fn, params, packed))
		return false;
	device_words(fn, params, packed, bytes, add_word, l);
	return true;
}

/* Of a graph: launched again and again, past us. */
void cuda_kept_by_graph(CUfunction f, void *const *params, void *const *extra)
{
	struct vmm_launch l = { .dev = cuda_device() };

	if (!atomic_load_explicit(&vmm_stages, memory_order_relaxed) || !f)
		return;
	if (cuda_read_words(&l, device_fn((uintptr_t)f), params, extra))
		vmm_launch_kept(&l);
	else
		vmm_doubt(0);
}

bool cuda_patch(struct cuda_staging *g, void ***params, void ***extra)
{
	struct device_word word[VMM_WORDS];
	const void *packed = *params ? NULL : packed_args(*extra, &g->bytes);

	for (uint32_t i = 0; i < g->l.n; i++)
		word[i] = (struct device_word){ g->l.arg[i].word, g->l.arg[i].other };
	if (!device_patch(g->fn, *params, packed, g->bytes, g->l.n, word, &g->to))
		return false;
	if (*params) {
		*params = g->to.args;
		return true;
	}
	g->extra[0] = CU_LAUNCH_PARAM_BUFFER_POINTER;
	g->extra[1] = g->to.bytes;
	g->extra[2] = CU_LAUNCH_PARAM_BUFFER_SIZE;
	g->extra[3] = &g->bytes;
	g->extra[4] = CU_LAUNCH_PARAM_END;
	*extra = g->extra;
	return true;
}

static void stage_begin(struct cuda_staging *g, CUfunction f, CUstream s, bool ptds, void ***params,
			void ***extra)
{
	CUcontext ctx = NULL;

	g->l.n = g->l.n_pins = g->l.trial = 0;
	if (vmm_captures()) {
		cuda_kept_by_graph(f, *params, *extra);
		return;
	}
	g->fn = f ? device_fn((uintptr_t)f) : NULL;
	if (!f || !cuda_read_words(&g->l, g->fn, *params, *extra)) {
		if (f)
			vmm_doubt(0);
		return;
	}
	DRIVER(cuCtxGetCurrent)(&ctx);
	g->l.dev = cuda_device();
	g->l.ctx = (uintptr_t)ctx;
	g->l.stream = (uintptr_t)(!s && ptds ? CU_STREAM_PER_THREAD : s);
	vmm_launch_begin(&g->l);
	if (g->l.changed && !cuda_patch(g, params, extra)) {
		vmm_launch_end(&g->l, false);
		g->l.n_pins = g->l.trial = 0;
	}
}

/* `call` with p_ and e_ for the arguments. */
#define STAGED(f, s, ptds, params, extra, call) ({ \
	struct cuda_staging st_; \
	void **p_ = (params), **e_ = (extra); \
	CUresult s_; \
	stage_begin(&st_, f, s, ptds, &p_, &e_); \
	s_ = (call); \
	vmm_launch_end(&st_.l, s_ == CUDA_SUCCESS); \
	s_; })

CUresult cuda_launched(CUresult r, bool captured)
{
	if (r == CUDA_SUCCESS && !captured && device_begun())
		device_count_launch(cuda_device());
	return cuda_told_end(r);
}

static void reach_word(uint32_t nth, uint64_t value, void *arg)
{
	vmm_reach_add(arg, value, 0);
}

void cuda_kernel_reach(CUfunction f, void *const *params, void *const *extra, struct vmm_reach *w)
{
	const struct device_fn *fn = f ? device_fn((uintptr_t)f) : NULL;
	size_t bytes = 0;
	const void *packed = params ? NULL : packed_args(extra, &bytes);

	vmm_reach_none(w);
	w->kernel = true;
	if (f && !fn)
		fn = learn(f);
	w->all = !fn || device_unread(fn, params, packed);
	if (!w->all)
		device_words(fn, params, packed, bytes, reach_word, w);
}

void cuda_node(CUfunction f, void *const *params, void *const *extra)
{
	cuda_look_at_args(f, DEVICE_NODE, params, extra);
	cuda_kept_by_graph(f, params, extra);
}

void cuda_kernel_seen(CUkernel k)
{
	uintptr_t library;

	if (!cuda_is_kernel(k, &library))
		cuda_note_kernel(k, NULL);
}

/* ---- launches --------------------------------------------------------------------------- */

#define SIG_launch (CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, \
		    unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared, \
		    CUstream s, void **params, void **extra)
#define ARG_launch f, gx, gy, gz, bx, by, bz, shared, s, params, extra
static __attribute__((noinline)) CUresult
staged_launch(__typeof__(&cuLaunchKernel) real, CUfunction f, unsigned int gx, unsigned int gy,
	      unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz,
	      unsigned int shared, CUstream s, void **params, void **extra)
{
	return STAGED(f, s, real == REAL(cuLaunchKernel_ptsz), params, extra,
		      real(f, gx, gy, gz, bx, by, bz, shared, s, p_, e_));
}

static CUresult on_launch(__typeof__(&cuLaunchKernel) real, CUfunction f, unsigned int gx,
			  unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
			  unsigned int bz, unsigned int shared, CUstream s, void **params,
			  void **extra)
{
	bool captured = look_at(f, s, params, extra);

	return cuda_launched(LAUNCH(cuda_enter_kernel(f, params, extra, captured, &gate_),
				    real(ARG_launch), staged_launch(real, ARG_launch)), captured);
}

#define SIG_launch_ex (const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
#define ARG_launch_ex config, f, params, extra
static __attribute__((noinline)) CUresult
staged_ex(__typeof__(&cuLaunchKernelEx) real, const CUlaunchConfig *config, CUfunction f,
	  void **params, void **extra)
{
	return STAGED(config ? f : NULL, config ? config->hStream : NULL,
		      real == REAL(cuLaunchKernelEx_ptsz), params, extra,
		      real(config, f, p_, e_));
}

static CUresult on_launch_ex(__typeof__(&cuLaunchKernelEx) real, const CUlaunchConfig *config,
			     CUfunction f, void **params, void **extra)
{
	bool captured = look_at(f, config ? config->hStream : NULL, params, extra);

	return cuda_launched(LAUNCH(cuda_enter_kernel(f, params, extra, captured, &gate_),
				    real(config, f, params, extra), staged_ex(real, ARG_launch_ex)),
			     captured);
}

#define SIG_launch_coop (CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, \
			 unsigned int bx, unsigned int by, unsigned int bz, \
			 unsigned int shared, CUstream s, void **params)
#define ARG_launch_coop f, gx, gy, gz, bx, by, bz, shared, s, params
static __attribute__((noinline)) CUresult
staged_coop(__typeof__(&cuLaunchCooperativeKernel) real, CUfunction f, unsigned int gx,
	    unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz,
	    unsigned int shared, CUstream s, void **params)
{
	return STAGED(f, s, real == REAL(cuLaunchCooperativeKernel_ptsz), params, NULL,
		      real(f, gx, gy, gz, bx, by, bz, shared, s, p_));
}

static CUresult on_launch_coop(__typeof__(&cuLaunchCooperativeKernel) real, CUfunction f,
			       unsigned int gx, unsigned int gy, unsigned int gz,
			       unsigned int bx, unsigned int by, unsigned int bz,
			       unsigned int shared, CUstream s, void **params)
{
	bool captured = look_at(f, s, params, NULL);

	return cuda_launched(LAUNCH(cuda_enter_kernel(f, params, NULL, captured, &gate_),
				    real(ARG_launch_coop), staged_coop(real, ARG_launch_coop)),
			     captured);
}

/* From before parameters were given with a launch: nothing is known of them. */
#define SIG_launch_old (CUfunction f)
#define ARG_launch_old f
static CUresult on_launch_old(__typeof__(&cuLaunch) real, CUfunction f)
{
	vmm_doubt(0);
	return cuda_launched(GATED(real(f)), false);
}

#define SIG_launch_grid (CUfunction f, int x, int y)
#define ARG_launch_grid f, x, y
static CUresult on_launch_grid(__typeof__(&cuLaunchGrid) real, CUfunction f, int x, int y)
{
	vmm_doubt(0);
	return cuda_launched(GATED(real(f, x, y)), false);
}

#define SIG_launch_grid_async (CUfunction f, int x, int y, CUstream s)
#define ARG_launch_grid_async f, x, y, s
static CUresult on_launch_grid_async(__typeof__(&cuLaunchGridAsync) real, CUfunction f, int x,
				     int y, CUstream s)
{
	vmm_doubt(0);
	return cuda_launched(GATED(real(f, x, y, s)), cuda_captured(s));
}

#define SIG_mem_ops (CUstream s, unsigned int n, CUstreamBatchMemOpParams *op, unsigned int flags)
#define ARG_mem_ops s, n, op, flags
static CUresult on_mem_ops(__typeof__(&cuStreamBatchMemOp) real, CUstream s, unsigned int n,
			   CUstreamBatchMemOpParams *op, unsigned int flags)
{
	vmm_doubt(0);
	return GATED(real(s, n, op, flags));
}

#define SIG_host_func (CUstream s, CUhostFn fn, void *data)
#define ARG_host_func s, fn, data
static CUresult on_host_func(__typeof__(&cuLaunchHostFunc) real, CUstream s, CUhostFn fn,
			     void *data)
{
	return real(s, fn, data);
}

#define SIG_write32 (CUstream s, CUdeviceptr at, cuuint32_t v, unsigned int flags)
#define ARG_write32 s, at, v, flags
static CUresult on_write32(__typeof__(&cuStreamWriteValue32) real, CUstream s, CUdeviceptr at,
			   cuuint32_t v, unsigned int flags)
{
	vmm_doubt(at);
	return ENTERED(cuda_enter_bytes(at, 8, 0, 0, &in_), real(s, at, v, flags));
}

#define SIG_write64 (CUstream s, CUdeviceptr at, cuuint64_t v, unsigned int flags)
#define ARG_write64 s, at, v, flags
static CUresult on_write64(__typeof__(&cuStreamWriteValue64) real, CUstream s, CUdeviceptr at,
			   cuuint64_t v, unsigned int flags)
{
	vmm_doubt(at);
	return ENTERED(cuda_enter_bytes(at, 8, 0, 0, &in_), real(s, at, v, flags));
}

/* ---- captures ----------------------------------------------------------------------------- */

/* Counted before it begins: from then on nobody may drain. */
#define CAPTURING(call) ({ \
	bool in_ = vmm_enter(); \
	CUresult c_; \
	vmm_capture(1); \
	c_ = (call); \
	if (c_ != CUDA_SUCCESS) \
		vmm_capture(-1); \
	vmm_leave(in_); \
	c_; })

#define SIG_begin_capture (CUstream s)
#define ARG_begin_capture s
static CUresult on_begin_capture(__typeof__(&cuStreamBeginCapture) real, CUstream s)
{
	return CAPTURING(real(s));
}

#define SIG_begin_capture2 (CUstream s, CUstreamCaptureMode mode)
#define ARG_begin_capture2 s, mode
static CUresult on_begin_capture2(__typeof__(&cuStreamBeginCapture_v2) real, CUstream s,
				  CUstreamCaptureMode mode)
{
	return CAPTURING(real(s, mode));
}

#define SIG_begin_capture_to (CUstream s, CUgraph g, const CUgraphNode *after, \
			      const CUgraphEdgeData *edge, size_t n, CUstreamCaptureMode mode)
#define ARG_begin_capture_to s, g, after, edge, n, mode
static CUresult on_begin_capture_to(__typeof__(&cuStreamBeginCaptureToGraph) real, CUstream s,
				    CUgraph g, const CUgraphNode *after,
				    const CUgraphEdgeData *edge, size_t n,
				    CUstreamCaptureMode mode)
{
	return CAPTURING(real(s, g, after, edge, n, mode));
}

/* It ends with an error of its own, too; what is refused was no end. */
#define SIG_end_capture (CUstream s, CUgraph *g)
#define ARG_end_capture s, g
static CUresult on_end_capture(__typeof__(&cuStreamEndCapture) real, CUstream s, CUgraph *g)
{
	CUresult r = real(s, g);

	if (r == CUDA_SUCCESS || r == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED ||
	    r == CUDA_ERROR_STREAM_CAPTURE_UNJOINED)
		vmm_capture(-1);
	return r;
}

/* ---- modules ------------------------------------------------------------------------------- */

/* Before the call: no launch may take what comes after for what was before. */
#define SIG_module_unload (CUmodule m)
#define ARG_module_unload m
static CUresult on_module_unload(__typeof__(&cuModuleUnload) real, CUmodule m)
{
	device_image_end((uintptr_t)m);
	device_fn_forget((uintptr_t)m);
	device_drop_globals((uintptr_t)m);
	return real(m);
}

#define SIG_library_unload (CUlibrary l)
#define ARG_library_unload l
static CUresult on_library_unload(__typeof__(&cuLibraryUnload) real, CUlibrary l)
{
	device_image_end((uintptr_t)l);
	forget_kernels(l);
	device_fn_forget(0);	/* of its modules, too */
	device_drop_globals((uintptr_t)l);
	return real(l);
}

#define SIG_get_kernel (CUkernel *kernel, CUlibrary l, const char *name)
#define ARG_get_kernel kernel, l, name
static CUresult on_get_kernel(__typeof__(&cuLibraryGetKernel) real, CUkernel *kernel,
			      CUlibrary l, const char *name)
{
	CUresult r = real(kernel, l, name);

	if (r == CUDA_SUCCESS && kernel) {
		cuda_note_kernel(*kernel, l);
		if (cuda_reads_images())
			device_image_fn((uintptr_t)*kernel, (uintptr_t)l, name);
	}
	return r;
}

#define CU_LAUNCH HOOK
#include "interpose/cuda_hook.def"
