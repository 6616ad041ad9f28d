/* SPDX-License-Identifier: MIT */
/* test_api.c - entry points, contexts, devices, pointers, injected failures: E12, E13, E15. */
#include "tests/emu/test.h"

#include <dlfcn.h>

/* ---- entry points ------------------------------------------------------------------- */

static const char *found(const char *name, int version, cuuint64_t flags, int want_status)
{
	CUdriverProcAddressQueryResult status = 99;
	void *p = (void *)1;
	CUresult r = cuGetProcAddress_v2(name, &p, version, flags, &status);

	CHECK((int)status == want_status);
	CHECK((r == CUDA_SUCCESS) == (want_status == CU_GET_PROC_ADDRESS_SUCCESS));
	CHECK(!p == (r != CUDA_SUCCESS));
	return p ? emu_symbol(p) : "";
}

#define FOUND(name, version, flags, symbol) \
	CHECK(!strcmp(found(name, version, flags, CU_GET_PROC_ADDRESS_SUCCESS), symbol))

static void found_by_name_version_and_stream(void)
{
	const cuuint64_t ptds = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
	void *p;

	/* Before cuInit: so the runtime does it. */
	FOUND("cuMemAlloc", 3020, 0, "cuMemAlloc_v2");
	FOUND("cuMemAlloc", 13000, 0, "cuMemAlloc_v2");
	FOUND("cuMemAlloc", 13000, ptds, "cuMemAlloc_v2");	/* it has no stream */
	FOUND("cuMemcpyHtoD", 12000, 0, "cuMemcpyHtoD_v2");
	FOUND("cuMemcpyHtoD", 12000, CU_GET_PROC_ADDRESS_LEGACY_STREAM, "cuMemcpyHtoD_v2");
	FOUND("cuMemcpyHtoD", 12000, ptds, "cuMemcpyHtoD_v2_ptds");
	FOUND("cuLaunchKernel", 7000, ptds, "cuLaunchKernel_ptsz");
	FOUND("cuMemcpyBatchAsync", 12080, 0, "cuMemcpyBatchAsync");
	FOUND("cuMemcpyBatchAsync", 12090, 0, "cuMemcpyBatchAsync");
	FOUND("cuMemcpyBatchAsync", 13000, 0, "cuMemcpyBatchAsync_v2");
	FOUND("cuMemcpyBatchAsync", 13000, ptds, "cuMemcpyBatchAsync_v2_ptsz");
	FOUND("cuGetProcAddress", 11030, 0, "cuGetProcAddress");
	FOUND("cuGetProcAddress", 12000, 0, "cuGetProcAddress_v2");
	FOUND("cuStreamBeginCapture", 10000, 0, "cuStreamBeginCapture");
	FOUND("cuStreamBeginCapture", 10010, 0, "cuStreamBeginCapture_v2");
	FOUND("cuGraphInstantiate", 11000, 0, "cuGraphInstantiate_v2");
	FOUND("cuTexRefCreate", 12000, 0, "cuTexRefCreate");
	found("cuMemcpyBatchAsync", 12000, 0, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
	found("cuMemcpyHtoD", 6000, ptds, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
	found("cuMemAlloc_v2", 12000, 0, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
	found("", 0, 0, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
	OK(cuGetProcAddress("cuMemFree", &p, 12000, 0));
	CHECK(p == dlsym(RTLD_DEFAULT, "cuMemFree_v2"));
}

static void an_older_driver(void)
{
	int version;

	OK(cuInit(0));
	OK(cuDriverGetVersion(&version));
	CHECK(version == 12020);
	FOUND("cuMemAdvise", 13000, 0, "cuMemAdvise_v2");
	found("cuFuncGetParamInfo", 13000, 0, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
}

static void no_export_tables(void)
{
	const void *table = (void *)1;
	CUuuid id = { { 0 } };

	IS(cuGetExportTable(&table, &id), CUDA_ERROR_NOT_FOUND);
	CHECK(!table);
}

static void what_is_missing_says_so(void)
{
	CUresult (*create)(void *, unsigned);

	setup();
	create = (CUresult(*)(void *, unsigned))dlsym(RTLD_DEFAULT, "cuTexRefCreate");
	CHECK(create);
	IS(create(NULL, 0), CUDA_ERROR_NOT_SUPPORTED);
}

static void failures_are_injected(void)
{
	CUmemAllocationProp p = on_device(0);
	CUmemGenericAllocationHandle h;
	CUdeviceptr d;
	CUstream s;

	/* Read when the library is loaded: the program runs again with it. */
	if (!getenv("EMU_FAIL")) {
		setenv("EMU_FAIL", "cuMemCreate:3:2,cuStreamCreate:0:999", 1);
		execl("/proc/self/exe", "test_api", "failures_are_injected", NULL);
		_exit(1);
	}
	setup();
	OK(cuMemCreate(&h, G, &p, 0));
	OK(cuMemCreate(&h, G, &p, 0));
	IS(cuMemCreate(&h, G, &p, 0), CUDA_ERROR_OUT_OF_MEMORY);
	OK(cuMemCreate(&h, G, &p, 0));
	IS(cuStreamCreate(&s, 0), CUDA_ERROR_UNKNOWN);
	IS(cuStreamCreate(&s, 0), CUDA_ERROR_UNKNOWN);
	OK(cuMemAlloc_v2(&d, G));
	CHECK(emu_calls("cuMemCreate") == 4 && emu_calls("cuStreamCreate") == 2);
}

/* ---- contexts ------------------------------------------------------------------------- */

static void a_context_is_needed(void)
{
	CUdeviceptr d;
	CUcontext c, other, now;
	int n;

	IS(cuDeviceGetCount(&n), CUDA_ERROR_NOT_INITIALIZED);
	OK(cuInit(0));
	IS(cuMemAlloc_v2(&d, 1), CUDA_ERROR_INVALID_CONTEXT);
	IS(cuStreamSynchronize(NULL), CUDA_ERROR_INVALID_CONTEXT);
	OK(cuCtxCreate_v2(&c, 0, 0));
	OK(cuMemAlloc_v2(&d, 1));
	OK(cuCtxCreate_v2(&other, 0, 0));
	OK(cuCtxPopCurrent_v2(&now));
	CHECK(now == other);
	OK(cuCtxGetCurrent(&now));
	CHECK(now == c);
	OK(cuCtxDestroy_v2(c));
	IS(cuCtxSynchronize(), CUDA_ERROR_INVALID_CONTEXT);
	IS(cuCtxPushCurrent_v2(c), CUDA_ERROR_INVALID_CONTEXT);
}

static void the_primary_context_is_one(void)
{
	CUcontext a = setup(), b;
	CUdeviceptr d;
	unsigned flags;
	size_t left;
	int active;

	OK(cuDevicePrimaryCtxRetain(&b, 0));
	CHECK(a == b);
	OK(cuMemAlloc_v2(&d, G));
	OK(cuDevicePrimaryCtxRelease_v2(0));
	OK(cuDevicePrimaryCtxGetState(0, &flags, &active));
	CHECK(active);
	OK(cuDevicePrimaryCtxRelease_v2(0));
	OK(cuDevicePrimaryCtxGetState(0, &flags, &active));
	CHECK(!active);
	setup();
	OK(cuMemGetInfo_v2(&left, NULL));	/* its memory went with it */
	CHECK(left == 16u << 20);
}

static void an_error_is_the_contexts_own(void)
{
	CUdeviceptr d;
	CUcontext c;
	CUstream s;

	setup();
	d = mapped(G);
	close_gate(NULL);
	OK(cuMemsetD8Async(d, 1, 1, NULL));
	IS(cuMemUnmap(d, G), CUDA_ERROR_ILLEGAL_ADDRESS);
	open_gate();
	IS(cuStreamCreate(&s, 0), CUDA_ERROR_ILLEGAL_ADDRESS);
	IS(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
	OK(cuCtxCreate_v2(&c, 0, 0));
	OK(cuStreamCreate(&s, 0));
	OK(cuCtxDestroy_v2(c));
	OK(cuDevicePrimaryCtxReset_v2(0));
	setup();
	OK(cuStreamCreate(&s, 0));
}

static void a_child_calls_nothing(void)
{
	int status;
	pid_t pid;

	setup();
	pid = fork();
	if (!pid)
		_exit(cuInit(0) == CUDA_ERROR_NOT_INITIALIZED &&
		      cuCtxSynchronize() == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
	waitpid(pid, &status, 0);
	CHECK(!status);
}

static void errors_have_names(void)
{
	const char *s;

	OK(cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &s));
	CHECK(!strcmp(s, "CUDA_ERROR_OUT_OF_MEMORY"));
	OK(cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &s));
	CHECK(!strcmp(s, "out of memory"));
	IS(cuGetErrorName(12345, &s), CUDA_ERROR_INVALID_VALUE);
}

/* ---- two devices ------------------------------------------------------------------------- */

static void two_devices(void)
{
	CUmemAccessDesc d1 = { { CU_MEM_LOCATION_TYPE_DEVICE, 1 },
			       CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUcontext c0 = setup(), c1;
	unsigned long long flags;
	CUdeviceptr a, b, v;
	size_t left;
	char out[4];
	int n, can;

	OK(cuDeviceGetCount(&n));
	CHECK(n == 2);
	OK(cuMemAlloc_v2(&a, 16u << 20));
	v = 0;
	IS(cuMemAlloc_v2(&v, 1), CUDA_ERROR_OUT_OF_MEMORY);
	OK(cuDevicePrimaryCtxRetain(&c1, 1));
	OK(cuCtxSetCurrent(c1));
	OK(cuMemAlloc_v2(&b, G));		/* a capacity each */
	OK(cuMemGetInfo_v2(&left, NULL));
	CHECK(left == (16u << 20) - G);
	OK(cuMemsetD8_v2(b, 4, G));
	OK(cuMemcpyPeer(a, c0, b, c1, 4));
	OK(cuMemcpyDtoH_v2(out, a, 4));
	CHECK(out[0] == 4);
	OK(cuDeviceCanAccessPeer(&can, 0, 1));
	CHECK(can);
	OK(cuCtxEnablePeerAccess(c0, 0));
	IS(cuCtxEnablePeerAccess(c0, 0), CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
	OK(cuCtxDisablePeerAccess(c0));
	IS(cuCtxDisablePeerAccess(c0), CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
	OK(cuCtxSetCurrent(c0));
	OK(cuMemFree_v2(a));
	v = mapped(G);
	OK(cuMemGetAccess(&flags, &d1.location, v));
	CHECK(!flags);
	OK(cuMemSetAccess(v, G, &d1, 1));
	OK(cuMemGetAccess(&flags, &d1.location, v));
	CHECK(flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	IS(cuDeviceGet(&n, 2), CUDA_ERROR_INVALID_DEVICE);
}

/* ---- pointers ------------------------------------------------------------------------------- */

static void pointers_are_known(void)
{
	CUpointer_attribute ask[3] = { CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
				       CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
				       CU_POINTER_ATTRIBUTE_RANGE_SIZE };
	unsigned type;
	int ordinal;
	size_t size;
	void *got[3] = { &type, &ordinal, &size };
	CUdeviceptr d, base;
	CUcontext c = setup(), of;
	void *host;

	OK(cuMemAlloc_v2(&d, 100000));
	OK(cuMemGetAddressRange_v2(&base, &size, d + 77777));
	CHECK(base == d && size == 100000);
	OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, d + 5));
	CHECK(type == CU_MEMORYTYPE_DEVICE);
	OK(cuPointerGetAttribute(&of, CU_POINTER_ATTRIBUTE_CONTEXT, d));
	CHECK(of == c);
	OK(cuMemHostAlloc(&host, 4096, 0));
	OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)host));
	CHECK(type == CU_MEMORYTYPE_HOST);
	OK(cuPointerGetAttributes(3, ask, got, d));
	CHECK(type == CU_MEMORYTYPE_DEVICE && ordinal == 0 && size == 100000);
	OK(cuPointerGetAttributes(3, ask, got, (CUdeviceptr)&c));	/* pageable */
	CHECK(type == 0 && ordinal == CU_DEVICE_INVALID && size == 0);
	IS(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)&c),
	   CUDA_ERROR_INVALID_VALUE);
	d = mapped(G);
	OK(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, d));
	CHECK(!ordinal);
	IS(cuIpcGetMemHandle(&(CUipcMemHandle){ { 0 } }, d), CUDA_ERROR_INVALID_VALUE);
}

static const struct test_case cases[] = {
	{ "found_by_name_version_and_stream", found_by_name_version_and_stream, NULL },
	{ "an_older_driver", an_older_driver, "EMU_DRIVER=12020" },
	{ "no_export_tables", no_export_tables, NULL },
	{ "what_is_missing_says_so", what_is_missing_says_so, NULL },
	{ "failures_are_injected", failures_are_injected, NULL },
	{ "a_context_is_needed", a_context_is_needed, NULL },
	{ "the_primary_context_is_one", the_primary_context_is_one, NULL },
	{ "an_error_is_the_contexts_own", an_error_is_the_contexts_own, NULL },
	{ "a_child_calls_nothing", a_child_calls_nothing, NULL },
	{ "errors_have_names", errors_have_names, NULL },
	{ "two_devices", two_devices, "EMU_DEVICES=2" },
	{ "pointers_are_known", pointers_are_known, NULL },
};

MAIN(cases)
