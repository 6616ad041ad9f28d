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
	int version;		/* that name means this symbol from here on */
	unsigned int flags;	/* CU_PTDS, or 0 */
	void *hook;
	void *real;		/* NULL: not seen yet, the hook was given to nobody */
	const char *records;
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
	N(cuGraphClone) N(cuGraphNodeFindInClone) N(cuGraphGetNodes) N(cuGraphGetEdges) \
	N(cuGraphNodeGetType) N(cuGraphKernelNodeGetParams) N(cuGraphKernelNodeGetParams_v2) \
	N(cuGraphAddDependencies) N(cuGraphDestroy) N(cuGraphKernelNodeCopyAttributes)
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

/* A call that queues work: held back while homes move. */
#define GATED(call) ({ \
	bool in_ = vmm_enter(); \
	CUresult g_ = (call); \
	vmm_leave(in_); \
	g_; })

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
/* The most bytes from both addresses on that do; a copy of a capture makes them stay. */
uint64_t cuda_piece(uint64_t to, uint64_t from, uint64_t n);

/* ---- cuda_image.c ---------------------------------------------------------------- */

/* The driver does not tell the parameters of kernels: device_image.c does. */
bool cuda_reads_images(void);

/* ---- cuda_launch.c --------------------------------------------------------------- */

/* A call that a stream took is part of what it captures, and not done yet. */
bool cuda_captured(CUstream s);

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
