/* SPDX-License-Identifier: MIT */
/* cuda_ctx.c - contexts: which device a thread is on, what ends with a context, and what
 * may be done where a program waits.
 *
 * (1) Which device a thread launches on is remembered, with those of the contexts that it
 *     pushed others over, and asked for again after a change that does not say (cuda_device).
 * (2) A call is made first; what it ended is taken out after.
 * Lock: none; core has its own.
 */
#include "interpose/cuda_int.h"

#define CONTEXTS	CUDA_CONTEXTS
#define UNKNOWN		(-2)
#define PUSHED		16u	/* deeper ones are asked for */
#define TAKEN		((CUcontext)-1)	/* a place that is being written */

struct context {
	CUcontext ctx;
	int dev;
	int attached;	/* with who made it; 0: a device's own, never ends so */
};

static struct context contexts[CONTEXTS];	/* a ring; by atomics, ctx first out, last in */
static uint32_t next_context;
static CUcontext primary[DEVICES];
static _Thread_local int current __attribute__((tls_model("initial-exec"))) = UNKNOWN;
static _Thread_local int below[PUSHED] __attribute__((tls_model("initial-exec")));
static _Thread_local uint32_t pushed __attribute__((tls_model("initial-exec")));

/* ---- which device ------------------------------------------------------------------ */

int cuda_ask_device(void)
{
	CUdevice dev;

	if (!DRIVER(cuCtxGetDevice) || DRIVER(cuCtxGetDevice)(&dev) != CUDA_SUCCESS)
		return -1;
	return dev;
}

int cuda_device(void)
{
	if (current == UNKNOWN) {
		int dev = cuda_ask_device();

		if (dev < 0)
			return -1;
		current = dev;
	}
	return current;
}

static void forget_context(CUcontext ctx)
{
	for (uint32_t i = 0; i < CONTEXTS; i++)
		if (__atomic_load_n(&contexts[i].ctx, __ATOMIC_RELAXED) == ctx)
			__atomic_store_n(&contexts[i].ctx, NULL, __ATOMIC_RELAXED);
}

/* Where it is already, else in a free place, else in another's: one that is not known can
 * not be waited for, and homes stay where they are from then on. */
static void note_context(CUcontext ctx, int dev, int attached)
{
	uint32_t at = CONTEXTS;

	for (uint32_t i = 0; i < CONTEXTS && at == CONTEXTS; i++)
		if (__atomic_load_n(&contexts[i].ctx, __ATOMIC_RELAXED) == ctx)
			at = i;
	for (uint32_t i = 0; i < CONTEXTS && at == CONTEXTS; i++) {
		CUcontext none = NULL;

		if (__atomic_compare_exchange_n(&contexts[i].ctx, &none, TAKEN, false,
						__ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			at = i;
	}
	if (at == CONTEXTS) {
		vmm_capture(1);
		at = __atomic_fetch_add(&next_context, 1, __ATOMIC_RELAXED) % CONTEXTS;
	}
	__atomic_store_n(&contexts[at].ctx, TAKEN, __ATOMIC_RELAXED);
	__atomic_store_n(&contexts[at].dev, dev, __ATOMIC_RELAXED);
	__atomic_store_n(&contexts[at].attached, attached, __ATOMIC_RELEASE);
	__atomic_store_n(&contexts[at].ctx, ctx, __ATOMIC_RELEASE);
}

static int device_of(CUcontext ctx)
{
	for (uint32_t i = 0; ctx && i < CONTEXTS; i++)
		if (__atomic_load_n(&contexts[i].ctx, __ATOMIC_ACQUIRE) == ctx)
			return __atomic_load_n(&contexts[i].dev, __ATOMIC_RELAXED);
	return UNKNOWN;
}

/* One more, or one less. True: that was the last. */
static bool attach(CUcontext ctx, int n)
{
	for (uint32_t i = 0; ctx && i < CONTEXTS; i++)
		if (__atomic_load_n(&contexts[i].ctx, __ATOMIC_ACQUIRE) == ctx &&
		    __atomic_load_n(&contexts[i].attached, __ATOMIC_RELAXED))
			return !__atomic_add_fetch(&contexts[i].attached, n, __ATOMIC_RELAXED);
	return false;
}

bool cuda_context(uint32_t i, CUcontext *ctx)
{
	*ctx = __atomic_load_n(&contexts[i].ctx, __ATOMIC_ACQUIRE);
	return *ctx && *ctx != TAKEN;
}

void cuda_known(CUdevice dev)
{
	char name[128] = "";
	CUuuid uuid = { { 0 } };
	size_t vram = 0;

	if (device_known(dev))
		return;
	if (DRIVER(cuDeviceGetName))
		DRIVER(cuDeviceGetName)(name, sizeof(name), dev);
	if (REAL(cuDeviceTotalMem_v2))
		REAL(cuDeviceTotalMem_v2)(&vram, dev);
	if (DRIVER(cuDeviceGetUuid_v2))
		DRIVER(cuDeviceGetUuid_v2)(&uuid, dev);
	else if (DRIVER(cuDeviceGetUuid))
		DRIVER(cuDeviceGetUuid)(&uuid, dev);
	device_meet(dev, name, vram, uuid.bytes);
}

int cuda_meet(void)
{
	int dev = cuda_ask_device();

	if (dev >= 0)
		cuda_known(dev);
	return dev;
}

/* ---- contexts ------------------------------------------------------------------------ */

static void push(int dev)
{
	if (pushed < PUSHED)
		below[pushed] = current;
	pushed++;
	current = dev;
}

static void pop(void)
{
	bool known = pushed && --pushed < PUSHED;

	current = known ? below[pushed] : UNKNOWN;
}

static CUresult ctx_made(CUresult r, CUcontext *ctx, CUdevice dev)
{
	if (r == CUDA_SUCCESS && ctx) {
		note_context(*ctx, dev, 1);
		push(dev);
	}
	return r;
}

#define SIG_ctx_create (CUcontext *ctx, unsigned int flags, CUdevice dev)
#define ARG_ctx_create ctx, flags, dev
static CUresult on_ctx_create(__typeof__(&cuCtxCreate_v2) real, CUcontext *ctx,
			      unsigned int flags, CUdevice dev)
{
	return ctx_made(real(ctx, flags, dev), ctx, dev);
}

#define SIG_ctx_create3 (CUcontext *ctx, CUexecAffinityParam *p, int n, unsigned int flags, \
			 CUdevice dev)
#define ARG_ctx_create3 ctx, p, n, flags, dev
static CUresult on_ctx_create3(__typeof__(&cuCtxCreate_v3) real, CUcontext *ctx,
			       CUexecAffinityParam *p, int n, unsigned int flags, CUdevice dev)
{
	return ctx_made(real(ctx, p, n, flags, dev), ctx, dev);
}

#define SIG_ctx_create4 (CUcontext *ctx, CUctxCreateParams *p, unsigned int flags, CUdevice dev)
#define ARG_ctx_create4 ctx, p, flags, dev
static CUresult on_ctx_create4(__typeof__(&cuCtxCreate_v4) real, CUcontext *ctx,
			       CUctxCreateParams *p, unsigned int flags, CUdevice dev)
{
	return ctx_made(real(ctx, p, flags, dev), ctx, dev);
}

/* After the driver did it. */
static void ended(CUcontext ctx)
{
	forget_context(ctx);
	device_fn_forget(0);
	device_drop_owner((uintptr_t)ctx, cuda_unregistered);
	vmm_drop_owner((uintptr_t)ctx);
}

static void destroyed(CUcontext ctx)
{
	pushed = 0;	/* it may have lain anywhere in it */
	current = UNKNOWN;
	ended(ctx);
}

#define SIG_ctx_destroy (CUcontext ctx)
#define ARG_ctx_destroy ctx
static CUresult on_ctx_destroy(__typeof__(&cuCtxDestroy_v2) real, CUcontext ctx)
{
	CUresult r = real(ctx);

	if (r == CUDA_SUCCESS)
		destroyed(ctx);
	return r;
}

/* Of the current one. */
#define SIG_ctx_attach (CUcontext *ctx, unsigned int flags)
#define ARG_ctx_attach ctx, flags
static CUresult on_ctx_attach(__typeof__(&cuCtxAttach) real, CUcontext *ctx, unsigned int flags)
{
	CUresult r = real(ctx, flags);

	if (r == CUDA_SUCCESS && ctx)
		attach(*ctx, 1);
	return r;
}

#define SIG_ctx_detach (CUcontext ctx)
#define ARG_ctx_detach ctx
static CUresult on_ctx_detach(__typeof__(&cuCtxDetach) real, CUcontext ctx)
{
	CUresult r = real(ctx);

	if (r == CUDA_SUCCESS && attach(ctx, -1))
		destroyed(ctx);
	return r;
}

#define SIG_ctx_set (CUcontext ctx)
#define ARG_ctx_set ctx
static CUresult on_ctx_set(__typeof__(&cuCtxSetCurrent) real, CUcontext ctx)
{
	CUresult r = real(ctx);

	if (r == CUDA_SUCCESS && !ctx)
		pop();		/* that is what it means */
	else if (r == CUDA_SUCCESS)
		current = device_of(ctx);
	return r;
}

#define SIG_ctx_push (CUcontext ctx)
#define ARG_ctx_push ctx
static CUresult on_ctx_push(__typeof__(&cuCtxPushCurrent_v2) real, CUcontext ctx)
{
	CUresult r = real(ctx);

	if (r == CUDA_SUCCESS)
		push(device_of(ctx));
	return r;
}

#define SIG_ctx_pop (CUcontext *ctx)
#define ARG_ctx_pop ctx
static CUresult on_ctx_pop(__typeof__(&cuCtxPopCurrent_v2) real, CUcontext *ctx)
{
	CUresult r = real(ctx);

	if (r == CUDA_SUCCESS)
		pop();
	return r;
}

#define SIG_primary_retain (CUcontext *ctx, CUdevice dev)
#define ARG_primary_retain ctx, dev
static CUresult on_primary_retain(__typeof__(&cuDevicePrimaryCtxRetain) real, CUcontext *ctx,
				  CUdevice dev)
{
	CUresult r = real(ctx, dev);

	if (r == CUDA_SUCCESS && ctx) {
		note_context(*ctx, dev, 0);
		if ((unsigned int)dev < DEVICES)
			__atomic_store_n(&primary[dev], *ctx, __ATOMIC_RELAXED);
	}
	return r;
}

static bool still_active(CUdevice dev)
{
	unsigned int flags;
	int active = 1;

	if (DRIVER(cuDevicePrimaryCtxGetState))
		DRIVER(cuDevicePrimaryCtxGetState)(dev, &flags, &active);
	return active;
}

#define SIG_primary_end (CUdevice dev)
#define ARG_primary_end dev
static CUresult on_primary_end(__typeof__(&cuDevicePrimaryCtxRelease_v2) real, CUdevice dev)
{
	CUresult r = real(dev);

	if (r == CUDA_SUCCESS && (unsigned int)dev < DEVICES && !still_active(dev))
		ended(__atomic_load_n(&primary[dev], __ATOMIC_RELAXED));
	return r;
}

/* Homes move when all contexts have nothing queued, and the program waited for one: what
 * another's work waits for may be what this thread does next. */
static bool alone(void)
{
	uint32_t n = 0;
	CUcontext ctx;

	for (uint32_t i = 0; i < CONTEXTS; i++)
		n += cuda_context(i, &ctx);
	return n <= 1;
}

#define SIG_ctx_wait (void)
#define ARG_ctx_wait 0	/* nothing */
static CUresult waited(CUresult r)
{
	if (r == CUDA_SUCCESS) {
		if (atomic_load_explicit(&vmm_on, memory_order_relaxed) && alone())
			vmm_idle(cuda_device());
		vmm_synced();
	}
	return r;
}

#define SIG_stream_wait (CUstream s)
#define ARG_stream_wait s
static CUresult on_stream_wait(__typeof__(&cuStreamSynchronize) real, CUstream s)
{
	CUresult r = cuda_told_end(real(s));

	vmm_synced();
	return r;
}

#define SIG_event_wait (CUevent e)
#define ARG_event_wait e
static CUresult on_event_wait(__typeof__(&cuEventSynchronize) real, CUevent e)
{
	CUresult r = cuda_told_end(real(e));

	vmm_synced();
	return r;
}

static CUresult on_ctx_wait(__typeof__(&cuCtxSynchronize) real, int nothing)
{
	return waited(cuda_told_end(real()));
}

#define SIG_ctx_wait2 (CUcontext ctx)
#define ARG_ctx_wait2 ctx
static CUresult on_ctx_wait2(__typeof__(&cuCtxSynchronize_v2) real, CUcontext ctx)
{
	return waited(cuda_told_end(real(ctx)));
}

#define SIG_peer_on (CUcontext peer, unsigned int flags)
#define ARG_peer_on peer, flags
static CUresult on_peer_on(__typeof__(&cuCtxEnablePeerAccess) real, CUcontext peer,
			   unsigned int flags)
{
	CUresult r = real(peer, flags);
	int of = device_of(peer);

	if (r == CUDA_SUCCESS && of >= 0 && cuda_device() >= 0)
		vmm_peer(cuda_device(), of);
	return r;
}

#define CU_CTX HOOK
#include "interpose/cuda_hook.def"
