/* SPDX-License-Identifier: MIT */
/* cuda_int.h - what the files of the driver's hooks know of each other. */
#ifndef OFFLOAD_CUDA_INT_H
#define OFFLOAD_CUDA_INT_H

#include "interpose/cuda_abi.h"
#include "interpose/interpose.h"

#include <string.h>

/* How the files are called that define what is hooked. */
#define DRIVER_NAME	"libcuda.so"
#define NVML_NAME	"libnvidia-ml.so"

struct cuda_row {
	const char *symbol;	/* as the library defines it */
	const char *name;	/* as cuGetProcAddress is asked for it */
	const char *library;	/* DRIVER_NAME or NVML_NAME */
	void *hook;
	void *real;		/* NULL: not seen yet, the hook was given to nobody */
};

enum {
#define CU_FIND(symbol, handler, records) ROW_##symbol,
#define CU_CTX CU_FIND
#define CU_MEM CU_FIND
#define CU_COPY CU_FIND
#define CU_LAUNCH CU_FIND
#define CU_GRAPH CU_FIND
#define CU_IMAGE CU_FIND
#include "interpose/cuda_hook.def"
#define NVML(symbol, types, records) ROW_##symbol,
#include "interpose/nvml.def"
#undef NVML
	ROWS
};

extern struct cuda_row cuda_rows[ROWS];

/* The driver's own function of a row. */
#define REAL(symbol) ((__typeof__(&symbol)) \
	__atomic_load_n(&cuda_rows[ROW_##symbol].real, __ATOMIC_RELAXED))

/* A row's hook: the handler gets the real function and the arguments, which
 * SIG_handler and ARG_handler name. */
#define HOOK(symbol, handler, records) \
	CUresult hook_##symbol SIG_##handler \
	{ \
		return on_##handler(REAL(symbol), ARG_##handler); \
	}

#define CU_FIND(symbol, handler, records) extern __typeof__(symbol) hook_##symbol;
#define CU_CTX CU_FIND
#define CU_MEM CU_FIND
#define CU_COPY CU_FIND
#define CU_LAUNCH CU_FIND
#define CU_GRAPH CU_FIND
#define CU_IMAGE CU_FIND
#include "interpose/cuda_hook.def"

/* ---- dlsym.c ------------------------------------------------------------------- */

/* The constructor: all that is loaded now was there from the start. */
void dlsym_begin(void);
/* What comes after us under a name, or NULL, of libc's own dlsym: a program, or a library
 * loaded before us, may have one of its own, whose answer would be for itself. */
void *dlsym_next(const char *name);

/* ---- cuda_find.c ----------------------------------------------------------------- */

/* The constructor: programs linked with the driver. */
void cuda_begin(void);
/* Were objects loaded since the last look? Callers of the driver among them are
 * bound to the hooks. Cheap when nothing changed; any thread. */
void cuda_look(void);
/* DRIVER_NAME or NVML_NAME if a name is of its kind (cuX, nvml...), else NULL. */
const char *cuda_library(const char *name);
/* A look-up of name gave `at`: the hook to give instead, or NULL. */
void *cuda_hook(const char *name, void *at);

/* Functions we call that are no rows. */
#define CUDA_NEEDS(N) \
	N(cuCtxGetCurrent) N(cuCtxGetDevice) N(cuDeviceGetName) N(cuDeviceGetUuid_v2) \
	N(cuDeviceGetUuid) N(cuDevicePrimaryCtxGetState) N(cuFuncGetParamInfo) \
	N(cuKernelGetParamInfo) N(cuDriverGetVersion) N(cuFuncGetName) N(cuKernelGetName) \
	N(cuFuncGetModule) N(cuStreamIsCapturing) N(cuDeviceGetCount) \
	N(cuStreamCreate) N(cuEventCreate) N(cuEventRecord) N(cuEventQuery) \
	N(cuMemAdvise) N(cuMemPrefetchAsync) N(cuStreamWaitEvent) \
	N(cuThreadExchangeStreamCaptureMode) \
	N(cuMemAddressReserve) N(cuMemAddressFree) N(cuMemGetAllocationGranularity) \
	N(cuMemSetAccess) N(cuMemHostGetDevicePointer_v2) N(cuDeviceGetAttribute) \
	N(cuGraphClone) N(cuGraphDestroy) N(cuGraphGetNodes) N(cuGraphGetEdges) \
	N(cuGraphNodeGetType) N(cuGraphNodeFindInClone) N(cuGraphKernelNodeGetParams) \
	N(cuGraphMemcpyNodeGetParams) N(cuGraphMemsetNodeGetParams) \
	N(cuGraphKernelNodeGetAttribute) N(cuGraphKernelNodeGetParams_v2) \
	N(cuGraphAddDependencies) N(cuGraphKernelNodeCopyAttributes)
enum {
#define N(symbol) NEED_##symbol,
	CUDA_NEEDS(N)
#undef N
	NEEDS
};
extern void *cuda_needs[NEEDS];
/* The driver's function, or NULL: this driver has none of that name. */
#define DRIVER(symbol) ((__typeof__(&symbol)) \
	__atomic_load_n(&cuda_needs[NEED_##symbol], __ATOMIC_RELAXED))

extern void *nvml_get_uuid;	/* nvmlDeviceGetUUID, or NULL */

/* ---- cuda_vmm.c: device memory that the library places ------------------------- */

/* A request of the program's, before the driver is asked, or after it refused. True: *r
 * is the answer, and *base and *number of the region that is to be recorded if it is CUDA_SUCCESS. */
bool cuda_place(CUdeviceptr *base, size_t len, bool refused, uint32_t *number, CUresult *r);
/* Whether it would try. */
bool cuda_would_place(size_t len);
/* The driver is about to allocate len bytes of the current device for itself, or again
 * after it had none. True: there is more than there was. */
bool cuda_room(size_t len, bool again);
/* As cuMemFree, of a placed region. */
CUresult cuda_unplace(uint32_t number);
/* The region of an address, if we placed it. */
bool cuda_placed(CUdeviceptr at, struct device_region *r);
/* cuda_mem.c: a context ended that memory of the program was registered in. */
void cuda_unregistered(const struct device_region *r);
/* As cuPointerGetAttribute; CUDA_ERROR_NOT_FOUND: ask the driver. */
CUresult cuda_placed_attribute(void *out, CUpointer_attribute what, CUdeviceptr at,
			       const struct device_region *r);

/* A call that queues work: held back while homes move. `enter` sets in_. */
#define ENTERED(enter, call) ({ \
	bool in_; \
	CUresult g_ = (enter); \
	if (g_ == CUDA_SUCCESS) \
		g_ = (call); \
	vmm_leave(in_); \
	g_; })
/* The same, which can touch anything. */
#define GATED(call) ENTERED(cuda_enter_any(&in_), call)

#define LAUNCH_ROOM (32ul << 20)

/* Outside the gate: homes may move before it. Inside, by `enter`, which sets gate_: `staged`
 * where launches are staged, else `call`. */
#define LAUNCH(enter, call, staged) ({ \
	CUresult l_; \
	bool gate_, again_ = false; \
	if (__builtin_expect(vmm_torture, 0)) \
		vmm_tortured(cuda_device()); \
	do { \
		l_ = (enter); \
		if (l_ != CUDA_SUCCESS) \
			break; \
		l_ = gate_ && !again_ && \
		     atomic_load_explicit(&vmm_stages, memory_order_relaxed) ? (staged) : (call); \
		vmm_leave(gate_); \
		/* A kernel's code and stacks need memory of their own. */ \
	} while (l_ == CUDA_ERROR_OUT_OF_MEMORY && gate_ && !again_ && \
		 (again_ = cuda_room(LAUNCH_ROOM, true))); \
	l_; })

/* ---- cuda_reach.c: OFFLOAD_DEVICE_DEEP ---------------------------------------------- */

static inline bool cuda_deep(void)
{
	return atomic_load_explicit(&vmm_deep, memory_order_relaxed);
}

/* What a wait or a launch says: an illegal access may be one of what was spilled. */
static inline CUresult cuda_told_end(CUresult r)
{
	if (r == CUDA_ERROR_ILLEGAL_ADDRESS && cuda_deep())
		vmm_reach_missed();
	return r;
}

/* vmm_enter, with homes for what the call can touch. Else *in is false, and the error is the
 * call's answer. While nothing can be spilled: vmm_enter. */
CUresult cuda_enter(const struct vmm_reach *w, bool *in);
/* The same: of two addresses, bytes each (0: none there); of one, that may be NULL. */
CUresult cuda_enter_bytes(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len, bool *in);
CUresult cuda_enter_any(bool *in);	/* of anything */
/* Of a launch, which does not touch anything now if it is captured. */
CUresult cuda_enter_kernel(CUfunction f, void *const *params, void *const *extra, bool captured,
			   bool *in);
/* Of *n bytes from both addresses on; *n may be less then, by cuda_piece. */
CUresult cuda_enter_piece(uint64_t to, uint64_t from, size_t *n, bool *in);
/* The region of an address has homes from now on, and stays there (vmm_fix). */
CUresult cuda_keep(CUdeviceptr at);

/* cuda_launch.c: what a kernel can touch. */
void cuda_kernel_reach(CUfunction f, void *const *params, void *const *extra, struct vmm_reach *w);

/* ---- cuda_replay.c: graphs whose memory has no homes all at once ------------------------- */

/* Of what a graph was instantiated from, and what was changed in it. No-ops while
 * OFFLOAD_DEVICE_DEEP is unset. */
void cuda_graph_kept(CUgraphExec exec, CUgraph g);
void cuda_graph_kernel(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *p);
void cuda_graph_unknown(CUgraphExec exec);	/* in a way that is not followed */
void cuda_graph_gone(CUgraphExec exec);
/* As cuGraphLaunch. */
CUresult cuda_graph_launch(__typeof__(&cuGraphLaunch) real, CUgraphExec exec, CUstream s);

/* ---- cuda_box.c: copies in pieces ------------------------------------------------ */

/* One side of a block: an address in device memory or 0 (no place of ours can be there),
 * rows of pitch bytes, layers of height rows. */
struct cuda_side { uint64_t at, pitch, height; };

/* A block of a copy, and a part of it: from x, y, z on both sides, so many bytes, rows and
 * layers. */
struct cuda_box {
	struct cuda_side to, from;
	uint64_t x, y, z, width, rows, layers;
};

/* Calls copy for parts of the box that lie in homes of one kind at both ends, until one
 * fails; just once for the whole of it if that is the case already. */
CUresult cuda_parts(const struct cuda_box *box,
		    CUresult (*copy)(const struct cuda_box *part, void *arg), void *arg);
bool cuda_whole(const struct cuda_box *box);
/* cuda_enter, for all of a box that a copy will touch. */
CUresult cuda_enter_box(const struct cuda_box *box, bool *in);
/* Addresses in what was copied to device memory. from 0: not known. now: it was not
 * captured. */
void cuda_points(uint64_t to, uint64_t from, bool host, uint64_t bytes, bool now);
/* The box was filled from host memory of that pitch: addresses in there (vmm_points). */
void cuda_box_points(const struct cuda_box *box, const void *host, uint64_t pitch,
		     uint64_t height, bool now);
/* The most bytes from both addresses on that do; a copy of a capture makes them stay. */
uint64_t cuda_piece(uint64_t to, uint64_t from, uint64_t n);

/* ---- cuda_image.c ---------------------------------------------------------------- */

/* The driver does not tell the parameters of kernels: device_image.c does. */
bool cuda_reads_images(void);

/* ---- cuda_launch.c --------------------------------------------------------------- */

/* A call that a stream took is part of what it captures, and not done yet. */
bool cuda_captured(CUstream s);
/* A launch was taken, or not: counted. */
CUresult cuda_launched(CUresult r, bool captured);
/* Before a kernel becomes a node of a graph: its arguments are looked at. */
void cuda_node(CUfunction f, void *const *params, void *const *extra);
/* A handle that stands for a kernel of no context. */
void cuda_kernel_seen(CUkernel k);

/* ---- cuda_ctx.c -------------------------------------------------------------------- */

/* The device of the calling thread's context, or -1. Asks the driver once after the
 * context has changed. */
int cuda_device(void);
/* The same, asked anew: -1 where there is none. */
int cuda_ask_device(void);
/* What is known of a device is recorded; of the current one, which it returns. */
void cuda_known(CUdevice dev);
int cuda_meet(void);
/* The i-th context known, below CUDA_CONTEXTS; false: none there. */
#define CUDA_CONTEXTS 64u
bool cuda_context(uint32_t i, CUcontext *ctx);

#endif
