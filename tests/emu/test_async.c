/* SPDX-License-Identifier: MIT */
/* test_async.c - stream-ordered memory, pools, managed memory: E1, E6, E9. */
#include "tests/emu/test.h"

static CUstream stream(void)
{
	CUstream s;

	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	return s;
}

static void lives_in_stream_order(void)
{
	CUdeviceptr a;
	char out[4];
	CUstream s;

	setup();
	s = stream();
	OK(cuMemAllocAsync(&a, 4096, s));
	OK(cuMemsetD8Async(a, 5, 4096, s));
	OK(cuMemcpyDtoHAsync_v2(out, a, 4, s));
	CHECK(out[0] == 5);
	OK(cuMemFreeAsync(a, s));
	IS(cuMemFreeAsync(a, s), CUDA_ERROR_INVALID_VALUE);
	IS(cuMemsetD8Async(a, 5, 4096, s), CUDA_ERROR_INVALID_VALUE);
	OK(cuStreamSynchronize(s));
}

/* Used by a stream that nothing orders behind the allocation. */
static void used_too_early(void)
{
	CUdeviceptr a;
	CUstream s, other;

	setup();
	s = stream();
	other = stream();
	close_gate(s);
	OK(cuMemAllocAsync(&a, 4096, s));
	OK(cuMemsetD8Async(a, 5, 4096, other));
	IS(cuStreamSynchronize(other), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E3");
	CHECK(strstr(emu_fault(), "E9"));
	open_gate();
}

/* Freed by a stream that nothing orders behind the use. */
static void freed_too_early(void)
{
	CUdeviceptr a, b;
	CUstream s, other;

	setup();
	s = stream();
	other = stream();
	OK(cuMemAllocAsync(&a, 4096, s));
	OK(cuMemAlloc_v2(&b, 4096));
	OK(cuStreamSynchronize(s));
	close_gate(other);
	OK(cuMemcpyDtoDAsync_v2(b, a, 4096, other));
	OK(cuMemFreeAsync(a, s));
	IS(cuStreamSynchronize(s), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
	open_gate();
}

static void freed_in_order_elsewhere(void)
{
	CUdeviceptr a;
	CUstream s, other;
	CUevent e;

	setup();
	s = stream();
	other = stream();
	OK(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
	OK(cuMemAllocAsync(&a, 4096, s));
	OK(cuMemsetD8Async(a, 1, 4096, s));
	OK(cuEventRecord(e, s));
	OK(cuStreamWaitEvent(other, e, 0));
	OK(cuMemFreeAsync(a, other));
	OK(cuCtxSynchronize());
}

/* A call for which there is nothing left waits for frees that are queued. */
static void capacity_comes_back(void)
{
	CUdeviceptr a, b;
	size_t left;
	CUstream s;

	setup();
	s = stream();
	OK(cuMemAllocAsync(&a, 12u << 20, s));
	IS(cuMemAllocAsync(&b, 12u << 20, s), CUDA_ERROR_OUT_OF_MEMORY);
	OK(cuMemFreeAsync(a, s));
	OK(cuMemAllocAsync(&b, 12u << 20, s));
	OK(cuMemFree_v2(b));		/* waits, and is right too */
	OK(cuMemGetInfo_v2(&left, NULL));
	CHECK(left == 16u << 20);
}

static void pools(void)
{
	CUmemPoolProps p = {
		.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
		.maxSize = 1u << 20,
	};
	CUmemoryPool pool, now, usual;
	CUdeviceptr a, b;
	cuuint64_t used;
	CUstream s;

	setup();
	s = stream();
	OK(cuMemPoolCreate(&pool, &p));
	OK(cuMemAllocFromPoolAsync(&a, 512 * KIB, pool, s));
	OK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
	CHECK(used == 512 * KIB);
	IS(cuMemAllocFromPoolAsync(&b, 768 * KIB, pool, s), CUDA_ERROR_OUT_OF_MEMORY);
	OK(cuPointerGetAttribute(&now, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, a));
	CHECK(now == pool);
	OK(cuDeviceGetDefaultMemPool(&usual, 0));
	IS(cuMemPoolDestroy(usual), CUDA_ERROR_INVALID_VALUE);
	OK(cuDeviceSetMemPool(0, pool));
	OK(cuMemAllocAsync(&b, 4096, s));
	OK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
	CHECK(used == 512 * KIB + 4096);
	OK(cuMemFreeAsync(a, s));
	OK(cuMemFreeAsync(b, s));
	OK(cuStreamSynchronize(s));
	OK(cuMemPoolDestroy(pool));
	OK(cuDeviceGetMemPool(&now, 0));
	CHECK(now == usual);
	IS(cuMemAllocFromPoolAsync(&a, 4096, pool, s), CUDA_ERROR_INVALID_VALUE);
}

/* ---- managed ------------------------------------------------------------------ */

static void managed_is_everyones(void)
{
	struct emu_device_stats st;
	CUdeviceptr m;
	int where, managed = 0;

	setup();
	OK(cuMemAllocManaged(&m, 1u << 20, CU_MEM_ATTACH_GLOBAL));
	memset((void *)m, 3, 1u << 20);		/* by the host */
	OK(cuMemcpyDtoDAsync_v2(m + 4096, m, 4096, NULL));
	OK(cuCtxSynchronize());
	OK(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, m));
	CHECK(managed);
	OK(cuMemPrefetchAsync(m, 1u << 20, 0, NULL));
	OK(cuCtxSynchronize());
	CHECK(!emu_stats(0, &st) && st.managed == 1u << 20 && st.managed_in == 1u << 20);
	OK(cuMemRangeGetAttribute(&where, 4, CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, m,
				  4096));
	CHECK(where == 0);
	OK(cuMemPrefetchAsync(m, 512 * KIB, CU_DEVICE_CPU, NULL));
	OK(cuCtxSynchronize());
	CHECK(!emu_stats(0, &st) && st.managed == 512 * KIB && st.managed_out == 512 * KIB);
	OK(cuMemAdvise(m, 4096, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, CU_DEVICE_CPU));
	OK(cuMemRangeGetAttribute(&where, 4, CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, m, 4096));
	CHECK(where == CU_DEVICE_CPU);
	IS(cuMemAdvise(m + (1u << 20), 4096, CU_MEM_ADVISE_SET_READ_MOSTLY, 0),
	   CUDA_ERROR_INVALID_VALUE);
	OK(cuMemFree_v2(m));
	CHECK(!emu_stats(0, &st) && st.managed == 0);
}

static void managed_by_the_batch(void)
{
	CUmemLocation where[2] = { { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
				   { CU_MEM_LOCATION_TYPE_HOST, 0 } };
	size_t sizes[3] = { 65536, 65536, 65536 }, from[2] = { 0, 2 };
	struct emu_device_stats st;
	CUdeviceptr m, p[3];

	setup();
	OK(cuMemAllocManaged(&m, 3 * 65536, CU_MEM_ATTACH_GLOBAL));
	for (unsigned i = 0; i < 3; i++)
		p[i] = m + i * 65536;
	OK(cuMemPrefetchAsync(m, 3 * 65536, 0, NULL));
	OK(cuMemPrefetchBatchAsync(p, sizes, 3, where, from, 2, 0, NULL));
	OK(cuCtxSynchronize());
	CHECK(!emu_stats(0, &st) && st.managed == 2 * 65536);
	memset((void *)m, 0, 3 * 65536);
	OK(cuMemDiscardBatchAsync(p + 1, sizes, 1, 0, NULL));
	OK(cuCtxSynchronize());
	CHECK(((char *)m)[65535] == 0 && ((char *)m)[65536] != 0);
}

static void managed_never_exceeds_the_device(void)
{
	struct emu_device_stats st;
	CUdeviceptr m, d;

	setup();
	OK(cuMemAlloc_v2(&d, 8u << 20));
	OK(cuMemAllocManaged(&m, 32u << 20, CU_MEM_ATTACH_GLOBAL));
	for (unsigned i = 0; i < 8; i++)
		OK(cuMemPrefetchAsync(m + i * (4u << 20), 4u << 20, 0, NULL));
	OK(cuCtxSynchronize());
	CHECK(!emu_stats(0, &st) && st.managed == 8u << 20 && st.managed_in == 32u << 20 &&
	      st.managed_out == 24u << 20);
}

/* Memory of a graph goes with its context, what is known of it with the graph. */
static void graphs_outlive_contexts(void)
{
	struct emu_device_stats st;
	CUgraphExec exec;
	CUcontext other;
	CUdeviceptr a;
	CUgraph g;
	CUstream s;

	setup();
	OK(cuCtxCreate_v2(&other, 0, 0));
	s = stream();
	OK(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_RELAXED));
	OK(cuMemAllocAsync(&a, 1 << 20, s));
	OK(cuStreamEndCapture(s, &g));
	OK(cuGraphInstantiateWithFlags(&exec, g, 0));
	OK(cuGraphLaunch(exec, s));
	OK(cuStreamSynchronize(s));
	OK(cuCtxDestroy_v2(other));
	CHECK(!emu_stats(0, &st) && st.used == 0);
	IS(cuMemFree_v2(a), CUDA_ERROR_INVALID_VALUE);
	OK(cuGraphExecDestroy(exec));
	OK(cuGraphDestroy(g));
	OK(cuMemAllocAsync(&a, 1 << 20, NULL));
	OK(cuMemFreeAsync(a, NULL));
	OK(cuCtxSynchronize());
}

static const struct test_case cases[] = {
	{ "lives_in_stream_order", lives_in_stream_order, "EMU_DELAY_US=500" },
	{ "used_too_early", used_too_early, NULL },
	{ "freed_too_early", freed_too_early, NULL },
	{ "freed_in_order_elsewhere", freed_in_order_elsewhere, "EMU_DELAY_US=500" },
	{ "capacity_comes_back", capacity_comes_back, "EMU_DELAY_US=500" },
	{ "pools", pools, NULL },
	{ "graphs_outlive_contexts", graphs_outlive_contexts, NULL },
	{ "managed_is_everyones", managed_is_everyones, NULL },
	{ "managed_by_the_batch", managed_by_the_batch, NULL },
	{ "managed_never_exceeds_the_device", managed_never_exceeds_the_device, NULL },
};

MAIN(cases)
