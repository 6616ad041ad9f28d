/* SPDX-License-Identifier: MIT */
/* context.c - options, devices, contexts and their sticky errors.
 *
 * Owns `emu`, the devices' primary contexts and each thread's stack of contexts.
 * (1) A context that is destroyed waits for its work and frees its memory. (2) A sticky
 * error is the context's until it is destroyed or reset (E4). Lock: the emulator's.
 */
#include "tests/emu/emu.h"
#include "tests/emu/emu_test.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define STACK	16

struct emu emu = { .lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER };

static __thread uintptr_t stack[STACK];
static __thread unsigned depth;
static uint64_t contexts;
static char last_fault[512];

/* ---- options ------------------------------------------------------------------ */

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);
	char *end;
	uint64_t n;

	if (!s || !*s)
		return otherwise;
	n = strtoull(s, &end, 10);
	if (*end == 'K' || *end == 'k')
		n <<= 10, end++;
	else if (*end == 'M' || *end == 'm')
		n <<= 20, end++;
	else if (*end == 'G' || *end == 'g')
		n <<= 30, end++;
	if (*end) {
		dprintf(2, "emu: %s=%s is not a number\n", name, s);
		exit(1);
	}
	return n;
}

static void read_options(struct options *o)
{
	const char *reach = getenv("EMU_REACH");

	o->vram = number("EMU_VRAM", 1ull << 30);
	o->granularity = number("EMU_GRANULARITY", 2ull << 20);
	o->devices = (unsigned)number("EMU_DEVICES", 1);
	o->driver = emu_driver();
	o->delay_us = (unsigned)number("EMU_DELAY_US", 0);
	o->seed = number("EMU_SEED", 1);
	o->reach_any = reach && !strcmp(reach, "any");
	o->host_vmm = number("EMU_HOST_VMM", 1);
	o->mix = number("EMU_MIX", 1);
	o->low = number("EMU_LOW", 0);
	o->part = number("EMU_PART", 0);
	o->span = number("EMU_SPAN", 1);
	o->host_access = number("EMU_HOST_ACCESS", 0);
	o->concurrent = number("EMU_CONCURRENT", 1);
	o->quiet = number("EMU_QUIET", 0);
	if (o->devices > EMU_DEVICES_MAX || o->granularity % EMU_PAGE || !o->granularity) {
		dprintf(2, "emu: EMU_DEVICES or EMU_GRANULARITY cannot be that\n");
		exit(1);
	}
}

/* Asked before cuInit, too. */
unsigned emu_driver(void)
{
	return emu.inited ? emu.opt.driver : (unsigned)number("EMU_DRIVER", CUDA_ABI_VERSION);
}

uint64_t emu_random(void)
{
	static uint64_t s;

	if (!s)
		s = emu.opt.seed * 0x9e3779b97f4a7c15u + 1;
	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	return s;
}

CUresult i_cuInit(unsigned int flags)
{
	if (flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (emu.inited)
		return CUDA_SUCCESS;
	read_options(&emu.opt);
	if (!emu.opt.devices)
		return CUDA_ERROR_NO_DEVICE;
	if (vm_open() < 0)
		return CUDA_ERROR_OUT_OF_MEMORY;
	emu.inited = true;
	return CUDA_SUCCESS;
}

CUresult i_cuDriverGetVersion(int *version)
{
	if (!version)
		return CUDA_ERROR_INVALID_VALUE;
	*version = (int)emu_driver();
	return CUDA_SUCCESS;
}

/* ---- errors ------------------------------------------------------------------- */

static const struct {
	CUresult code;
	const char *name, *text;
} errors[] = {
#define E(code, text) { code, #code, text }
	E(CUDA_SUCCESS, "no error"),
	E(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
	E(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
	E(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
	E(CUDA_ERROR_DEINITIALIZED, "driver shutting down"),
	E(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
	E(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
	E(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
	E(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
	E(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for the device"),
	E(CUDA_ERROR_INVALID_PTX, "a PTX compilation failed"),
	E(CUDA_ERROR_FILE_NOT_FOUND, "file not found"),
	E(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
	E(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
	E(CUDA_ERROR_NOT_READY, "device not ready"),
	E(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
	E(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
	E(CUDA_ERROR_LAUNCH_TIMEOUT, "the launch timed out and was terminated"),
	E(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, "peer access is already enabled"),
	E(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, "peer access has not been enabled"),
	E(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE, "primary context active"),
	E(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
	E(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "memory is already registered"),
	E(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "memory is not registered"),
	E(CUDA_ERROR_ILLEGAL_INSTRUCTION, "an illegal instruction was encountered"),
	E(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
	E(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "too many blocks in cooperative launch"),
	E(CUDA_ERROR_NOT_PERMITTED, "operation not permitted"),
	E(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
	E(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "not permitted when stream is capturing"),
	E(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "capture was invalidated by an earlier error"),
	E(CUDA_ERROR_STREAM_CAPTURE_MERGE, "would merge two separate capture sequences"),
	E(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "capture was not begun in this stream"),
	E(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "capture has unjoined work"),
	E(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "dependency on uncaptured work"),
	E(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "would make the legacy stream depend on a capture"),
	E(CUDA_ERROR_CAPTURED_EVENT, "not permitted on an event last recorded in a capture"),
	E(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "capture was begun in another thread"),
	E(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "graph update was not performed"),
	E(CUDA_ERROR_UNKNOWN, "unknown error"),
#undef E
};

static CUresult describe(CUresult code, const char **out, bool name)
{
	if (!out)
		return CUDA_ERROR_INVALID_VALUE;
	*out = NULL;
	for (unsigned i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (errors[i].code == code)
			*out = name ? errors[i].name : errors[i].text;
	return *out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult i_cuGetErrorName(CUresult code, const char **out)
{
	return describe(code, out, true);
}

CUresult i_cuGetErrorString(CUresult code, const char **out)
{
	return describe(code, out, false);
}

void ctx_fault(struct ctx *c, CUresult err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(last_fault, sizeof(last_fault), fmt, ap);
	va_end(ap);
	if (!emu.opt.quiet)
		dprintf(2, "emu: %s\n", last_fault);
	emu_log("fault: %s", last_fault);
	if (c && !c->sticky)
		c->sticky = err;
}

const char *emu_last_fault(void)
{
	return last_fault;
}

/* ---- devices ------------------------------------------------------------------ */

bool device_ok(int device)
{
	return device >= 0 && device < (int)emu.opt.devices;
}

CUresult i_cuDeviceGetCount(int *n)
{
	if (!n)
		return CUDA_ERROR_INVALID_VALUE;
	*n = (int)emu.opt.devices;
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceGet(CUdevice *device, int ordinal)
{
	if (!device || !device_ok(ordinal))
		return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE;
	*device = ordinal;
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceGetName(char *name, int len, CUdevice device)
{
	if (!name || len <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	snprintf(name, (size_t)len, "Emulated GPU %d", device);
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceGetUuid_v2(CUuuid *id, CUdevice device)
{
	if (!id)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	memcpy(id->bytes, "emulated GPU no", 16);
	id->bytes[15] = (char)device;
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceGetUuid(CUuuid *id, CUdevice device)
{
	return i_cuDeviceGetUuid_v2(id, device);
}

CUresult i_cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
	if (!bytes)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	*bytes = emu.opt.vram;
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceGetPCIBusId(char *id, int len, CUdevice device)
{
	if (!id || len < 13)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	snprintf(id, (size_t)len, "0000:%02x:00.0", device + 1);
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceGetByPCIBusId(CUdevice *device, const char *id)
{
	unsigned bus;

	if (!device || !id)
		return CUDA_ERROR_INVALID_VALUE;
	if (sscanf(id, "%*x:%x:", &bus) != 1 || !device_ok((int)bus - 1))
		return CUDA_ERROR_INVALID_DEVICE;
	*device = (int)bus - 1;
	return CUDA_SUCCESS;
}

static const struct {
	CUdevice_attribute attribute;
	int value;
} attributes[] = {
#define A(name, value) { CU_DEVICE_ATTRIBUTE_##name, value }
	A(MAX_THREADS_PER_BLOCK, 1024), A(MAX_BLOCK_DIM_X, 1024), A(MAX_BLOCK_DIM_Y, 1024),
	A(MAX_BLOCK_DIM_Z, 64), A(MAX_GRID_DIM_X, 2147483647), A(MAX_GRID_DIM_Y, 65535),
	A(MAX_GRID_DIM_Z, 65535), A(MAX_SHARED_MEMORY_PER_BLOCK, 49152),
	A(MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 232448), A(RESERVED_SHARED_MEMORY_PER_BLOCK, 1024),
	A(MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 233472), A(TOTAL_CONSTANT_MEMORY, 65536),
	A(WARP_SIZE, 32), A(MAX_PITCH, 2147483647), A(MAX_REGISTERS_PER_BLOCK, 65536),
	A(MAX_REGISTERS_PER_MULTIPROCESSOR, 65536), A(CLOCK_RATE, 1000000),
	A(MEMORY_CLOCK_RATE, 1000000), A(GLOBAL_MEMORY_BUS_WIDTH, 256), A(L2_CACHE_SIZE, 4194304),
	A(TEXTURE_ALIGNMENT, 512), A(TEXTURE_PITCH_ALIGNMENT, 32), A(MULTIPROCESSOR_COUNT, 4),
	A(MAX_THREADS_PER_MULTIPROCESSOR, 2048), A(MAX_BLOCKS_PER_MULTIPROCESSOR, 32),
	A(COMPUTE_CAPABILITY_MAJOR, 8), A(COMPUTE_CAPABILITY_MINOR, 0), A(INTEGRATED, 0),
	A(CAN_MAP_HOST_MEMORY, 1), A(COMPUTE_MODE, 0), A(CONCURRENT_KERNELS, 1),
	A(UNIFIED_ADDRESSING, 1), A(ASYNC_ENGINE_COUNT, 2), A(STREAM_PRIORITIES_SUPPORTED, 1),
	A(MANAGED_MEMORY, 1), A(COOPERATIVE_LAUNCH, 1), A(HOST_REGISTER_SUPPORTED, 1),
	A(CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1), A(COMPUTE_PREEMPTION_SUPPORTED, 1),
	A(VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1), A(MEMORY_POOLS_SUPPORTED, 1),
	A(HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 0), A(HOST_NUMA_ID, 0),
	A(NUMA_CONFIG, 0), A(NUMA_ID, -1),
#undef A
};

CUresult i_cuDeviceGetAttribute(int *value, CUdevice_attribute a, CUdevice device)
{
	if (!value || a < 1 || a > 400)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	*value = 0;
	for (unsigned i = 0; i < sizeof(attributes) / sizeof(*attributes); i++)
		if (attributes[i].attribute == a)
			*value = attributes[i].value;
	if (a == CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED)
		*value = emu.opt.host_vmm;
	if (a == CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS)
		*value = emu.opt.host_access;
	if (a == CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS)
		*value = emu.opt.concurrent;
	if (a == CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)
		*value = device + 1;
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer)
{
	if (!can)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device_ok(device) || !device_ok(peer))
		return CUDA_ERROR_INVALID_DEVICE;
	*can = device != peer;
	return CUDA_SUCCESS;
}

CUresult i_cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute a, CUdevice from, CUdevice to)
{
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device_ok(from) || !device_ok(to) || from == to)
		return CUDA_ERROR_INVALID_DEVICE;
	*value = a == CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED;
	return CUDA_SUCCESS;
}

/* ---- contexts ----------------------------------------------------------------- */

struct ctx *ctx_current(void)
{
	return depth ? obj_get(K_CTX, stack[depth - 1]) : NULL;
}

static struct ctx *ctx_of(CUcontext h)
{
	return obj_get(K_CTX, (uintptr_t)h);
}

static struct ctx *ctx_new(int device, unsigned flags)
{
	struct ctx *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->device = device;
	c->flags = flags;
	c->version = 3020;
	c->id = ++contexts;
	c->handle = obj_new(K_CTX, c);
	c->legacy = stream_new(c, 0, 0);
	c->legacy->legacy = true;
	return c;
}

/* Everything it holds goes; its work has ended, or failed. */
static void ctx_end(struct ctx *c)
{
	struct stream *s, *next;
	struct range *r;
	struct host_range h;

	ctx_wait(c);
	for (s = stream_first(); s; s = next) {
		next = s->next;
		if (s->ctx == c)
			stream_end(s);
	}
	for (unsigned i = 0; (r = vm_nth(i));) {
		if (r->kind == R_RESERVED || r->ctx != c) {
			i++;
		} else if (r->kind == R_ASYNC) {
			i += async_orphan(r);
		} else {
			vm_unback(r);
			vm_forget(r);
		}
	}
	for (unsigned at = 0; host_next(&at, &h);)
		if (h.ctx == c && h.kind == H_REGISTERED && host_remove(h.addr, h.kind, &h))
			at = 0;
	obj_end(c->handle);
}

static void push(struct ctx *c)
{
	if (depth < STACK)
		stack[depth++] = c->handle;
}

static CUresult create(CUcontext *out, unsigned flags, CUdevice device, unsigned version)
{
	struct ctx *c;

	if (!out || flags & ~0x3fu)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	c = ctx_new(device, flags);
	c->version = version;
	push(c);
	*out = (CUcontext)c->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuCtxCreate_v2(CUcontext *out, unsigned int flags, CUdevice device)
{
	return create(out, flags, device, 3020);
}

CUresult i_cuCtxCreate_v3(CUcontext *out, CUexecAffinityParam *params, int n, unsigned int flags,
			  CUdevice device)
{
	return n ? CUDA_ERROR_NOT_SUPPORTED : create(out, flags, device, 3020);
}

CUresult i_cuCtxCreate_v4(CUcontext *out, CUctxCreateParams *params, unsigned int flags,
			  CUdevice device)
{
	if (params && (params->numExecAffinityParams || params->cigParams))
		return CUDA_ERROR_NOT_SUPPORTED;
	return create(out, flags, device, 3020);
}

CUresult i_cuCtxDestroy_v2(CUcontext h)
{
	struct ctx *c = ctx_of(h);

	if (!c || c->primary)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (depth && stack[depth - 1] == c->handle)
		depth--;
	ctx_end(c);
	return CUDA_SUCCESS;
}

CUresult i_cuCtxPushCurrent_v2(CUcontext h)
{
	struct ctx *c = ctx_of(h);

	if (!c)
		return CUDA_ERROR_INVALID_CONTEXT;
	push(c);
	return CUDA_SUCCESS;
}

CUresult i_cuCtxPopCurrent_v2(CUcontext *out)
{
	if (!depth)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (out)
		*out = (CUcontext)stack[depth - 1];
	depth--;
	return CUDA_SUCCESS;
}

CUresult i_cuCtxSetCurrent(CUcontext h)
{
	if (h && !ctx_of(h))
		return CUDA_ERROR_INVALID_CONTEXT;
	if (depth)
		depth--;
	if (h)
		push(ctx_of(h));
	return CUDA_SUCCESS;
}

CUresult i_cuCtxGetCurrent(CUcontext *out)
{
	if (!out)
		return CUDA_ERROR_INVALID_VALUE;
	*out = depth ? (CUcontext)stack[depth - 1] : NULL;
	return CUDA_SUCCESS;
}

CUresult i_cuCtxGetDevice_v2(CUdevice *device, CUcontext h)
{
	const struct ctx *c = h ? ctx_of(h) : ctx_current();

	if (!device || !c)
		return device ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_VALUE;
	*device = c->device;
	return CUDA_SUCCESS;
}

CUresult i_cuCtxGetDevice(CUdevice *device)
{
	return i_cuCtxGetDevice_v2(device, NULL);
}

CUresult i_cuCtxGetId(CUcontext h, unsigned long long *id)
{
	const struct ctx *c = h ? ctx_of(h) : ctx_current();

	if (!id || !c)
		return id ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_VALUE;
	*id = c->id;
	return CUDA_SUCCESS;
}

CUresult i_cuCtxGetFlags(unsigned int *flags)
{
	const struct ctx *c = ctx_current();

	if (!flags || !c)
		return flags ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_VALUE;
	*flags = c->flags;
	return CUDA_SUCCESS;
}

CUresult i_cuCtxGetApiVersion(CUcontext h, unsigned int *version)
{
	const struct ctx *c = h ? ctx_of(h) : ctx_current();

	if (!version || !c)
		return version ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_VALUE;
	*version = c->version;
	return CUDA_SUCCESS;
}

CUresult i_cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
	if (!ctx_current())
		return CUDA_ERROR_INVALID_CONTEXT;
	if (least)
		*least = 0;
	if (greatest)
		*greatest = -5;
	return CUDA_SUCCESS;
}

CUresult i_cuCtxGetLimit(size_t *value, CUlimit limit)
{
	if (!value || !ctx_current())
		return value ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_VALUE;
	*value = limit == CU_LIMIT_STACK_SIZE ? 1024 : 8u << 20;
	return CUDA_SUCCESS;
}

CUresult i_cuCtxSetLimit(CUlimit limit, size_t value)
{
	return ctx_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult i_cuCtxGetCacheConfig(CUfunc_cache *config)
{
	if (!config || !ctx_current())
		return config ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_VALUE;
	*config = CU_FUNC_CACHE_PREFER_NONE;
	return CUDA_SUCCESS;
}

CUresult i_cuCtxSetCacheConfig(CUfunc_cache config)
{
	return ctx_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult i_cuCtxSynchronize_v2(CUcontext h)
{
	struct ctx *c = h ? ctx_of(h) : ctx_current();

	return c ? ctx_wait(c) : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult i_cuCtxSynchronize(void)
{
	return i_cuCtxSynchronize_v2(NULL);
}

CUresult i_cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
	const struct ctx *c = ctx_current(), *p = ctx_of(peer);

	if (!c || !p)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (c->device == p->device)
		return CUDA_ERROR_INVALID_DEVICE;
	if (emu.dev[c->device].peers[p->device])
		return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
	vm_peers(c->device, p->device, true);
	return CUDA_SUCCESS;
}

CUresult i_cuCtxDisablePeerAccess(CUcontext peer)
{
	const struct ctx *c = ctx_current(), *p = ctx_of(peer);

	if (!c || !p)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (c->device == p->device || !emu.dev[c->device].peers[p->device])
		return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
	vm_peers(c->device, p->device, false);
	return CUDA_SUCCESS;
}

/* ---- primary contexts --------------------------------------------------------- */

CUresult i_cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
	struct device *d = &emu.dev[device_ok(device) ? device : 0];

	if (!out || !device_ok(device))
		return out ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE;
	if (!d->primary) {
		d->primary = ctx_new(device, d->primary_flags);
		d->primary->primary = true;
	}
	d->primary_refs++;
	*out = (CUcontext)d->primary->handle;
	return CUDA_SUCCESS;
}

static void primary_end(struct device *d)
{
	if (d->primary)
		ctx_end(d->primary);
	d->primary = NULL;
	d->primary_refs = 0;
}

CUresult i_cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	if (!emu.dev[device].primary_refs)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (emu.dev[device].primary_refs == 1)
		primary_end(&emu.dev[device]);
	else
		emu.dev[device].primary_refs--;
	return CUDA_SUCCESS;
}

CUresult i_cuDevicePrimaryCtxRelease(CUdevice device)
{
	return i_cuDevicePrimaryCtxRelease_v2(device);
}

CUresult i_cuDevicePrimaryCtxReset_v2(CUdevice device)
{
	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	primary_end(&emu.dev[device]);
	return CUDA_SUCCESS;
}

CUresult i_cuDevicePrimaryCtxReset(CUdevice device)
{
	return i_cuDevicePrimaryCtxReset_v2(device);
}

CUresult i_cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags)
{
	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	emu.dev[device].primary_flags = flags;
	return CUDA_SUCCESS;
}

CUresult i_cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned int flags)
{
	return i_cuDevicePrimaryCtxSetFlags_v2(device, flags);
}

CUresult i_cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
	if (!device_ok(device))
		return CUDA_ERROR_INVALID_DEVICE;
	if (flags)
		*flags = emu.dev[device].primary_flags;
	if (active)
		*active = emu.dev[device].primary != NULL;
	return CUDA_SUCCESS;
}

EXPORT int emu_stats(int device, struct emu_device_stats *out)
{
	const struct device *d = &emu.dev[device_ok(device) ? device : 0];

	if (!device_ok(device) || !out)
		return -1;
	pthread_mutex_lock(&emu.lock);
	*out = (struct emu_device_stats){
		.capacity = emu.opt.vram, .used = d->used, .peak = d->peak,
		.h2d = d->h2d, .d2h = d->d2h, .launches = d->launches,
		.managed = d->managed, .managed_in = d->managed_in,
		.managed_out = d->managed_out, .host_reached = d->host_reached,
	};
	pthread_mutex_unlock(&emu.lock);
	return 0;
}
