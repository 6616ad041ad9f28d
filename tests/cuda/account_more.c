/* SPDX-License-Identifier: MIT */
/* account_more.c - scenarios of account.c: what is not done when it is called, what ends with
 * a module, and which device it was.
 *
 * Owns nothing. Lock: none. (1) What the library asks the driver beside the program's calls
 * is counted by the emulator: more fails, with the library and without.
 */
#include <string.h>

#include "tests/cuda/account.h"
#include "tests/cuda/account_ptx.h"
#include "tests/emu/emu_test.h"

/* Done when the graph is launched, if ever. */
void captured(void)
{
	CUdeviceptr p = get(4096), q;
	unsigned int n = 1;
	void *args[] = { &p, &n };
	CUgraphExec exec;
	CUstream s;
	CUmodule m;
	CUgraph g;
	char b[64] = "";

	ok(cuMemsetD8_v2(p, 0, 4096));
	ok(cuCtxSynchronize());
	ok(cuModuleLoadData(&m, ptx));
	ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	ok(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_RELAXED));
	for (int i = 0; i < 10; i++)
		ok(cuLaunchKernel(function(m, "bump"), 1, 1, 1, 1, 1, 1, 0, s, args, NULL));
	ok(cuMemcpyHtoDAsync_v2(p + 64, b, sizeof(b), s));
	ok(cuMemcpyDtoHAsync_v2(b, p + 128, sizeof(b), s));
	ok(cuMemAllocAsync(&q, 6 * MIB, s));
	ok(cuMemsetD8Async(q, 1, 4096, s));
	ok(cuMemFreeAsync(q, s));
	/* Another stream's work is done meanwhile. */
	ok(cuMemcpyHtoDAsync_v2(p + 64, b, 8, CU_STREAM_PER_THREAD));
	moved(0, 8, 0);
	ok(cuStreamEndCapture(s, &g));
	ok(cuGraphInstantiateWithFlags(&exec, g, 0));
	for (int i = 0; i < 3; i++)
		ok(cuGraphLaunch(exec, s));
	want[0].launches += 3;
	ok(cuStreamSynchronize(s));
	ok(cuMemcpyDtoH_v2(&n, p, 4));
	moved(0, 0, 4);
	printf("read %u\n", n);
	/* The same of the thread's own stream. */
	ok(cuStreamBeginCapture_v2_ptsz(NULL, CU_STREAM_CAPTURE_MODE_RELAXED));
	ok(cuLaunchKernel_ptsz(function(m, "bump"), 1, 1, 1, 1, 1, 1, 0, NULL, args, NULL));
	ok(cuMemAllocAsync_ptsz(&q, MIB, NULL));
	ok(cuStreamEndCapture_ptsz(NULL, &g));
	ok(cuLaunchKernel(function(m, "bump"), 1, 1, 1, 1, 1, 1, 0, s, args, NULL));
	want[0].launches++;
	ok(cuStreamSynchronize(s));
}

static void launch(CUfunction f, CUdeviceptr p)
{
	unsigned int n = 1;
	void *args[] = { &p, &n };

	ok(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, args, NULL));
	want[0].launches++;
}

/* A module goes: what is known of others is not asked for again, its variables are gone. */
void unloaded(void)
{
	CUdeviceptr p = get(4096), at;
	CUmodule stays, goes;
	CUlibrary lib[2];
	CUkernel k;
	CUfunction f;
	uint64_t was;
	size_t n;

	ok(cuMemsetD8_v2(p, 0, 4096));
	ok(cuModuleLoadData(&stays, ptx));
	f = function(stays, "bump");
	launch(f, p);
	for (int i = 0; i < 20; i++) {
		ok(cuModuleLoadData(&goes, ptx));
		ok(cuModuleGetGlobal_v2(&at, &n, goes, "total"));
		launch(function(goes, "bump"), p);
		ok(cuCtxSynchronize());
		ok(cuModuleUnload(goes));
		was = emu_calls("cuFuncGetParamInfo");
		launch(f, p);
		if (emu_calls("cuFuncGetParamInfo") != was)
			fail("asked again");
	}
	ok(cuModuleGetGlobal_v2(&at, &n, stays, "total"));
	want[0].regions++;
	/* A library's kernels stay known for kernels when another library goes. */
	for (int i = 0; i < 2; i++)
		ok(cuLibraryLoadData(&lib[i], ptx, NULL, NULL, 0, NULL, NULL, 0));
	ok(cuLibraryGetKernel(&k, lib[0], "bump"));
	ok(cuLibraryGetGlobal(&at, &n, lib[1], "total"));
	launch((CUfunction)k, p);
	ok(cuCtxSynchronize());
	ok(cuLibraryUnload(lib[1]));
	was = emu_calls("cuFuncGetParamInfo");
	launch((CUfunction)k, p);
	if (emu_calls("cuFuncGetParamInfo") != was)
		fail("a kernel was asked for as a function");
	ok(cuCtxSynchronize());
	ok(cuMemcpyDtoH_v2(&n, p, 4));
	moved(0, 0, 4);
	printf("read %u\n", (unsigned int)n);
}

/* Nodes of graphs that are added as one of any kind, and memory that a graph has: nobody
 * sees what they name until they are there. */
void added(void)
{
	CUDA_MEM_ALLOC_NODE_PARAMS_v1 has = { .bytesize = 64 * KIB };
	CUgraphNodeParams copy = { .type = CU_GRAPH_NODE_TYPE_MEMCPY };
	CUdeviceptr p = get(MIB), q = get(MIB);
	static char fill[1024 * 1024];
	unsigned int n = 0;
	CUgraphNode node;
	CUgraphExec exec;
	CUmodule m;
	CUgraph g;

	has.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
	has.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
	ok(cuModuleLoadData(&m, ptx));
	memset(fill, 0x11, sizeof(fill));
	ok(cuMemcpyHtoD_v2(p, fill, MIB));
	ok(cuMemcpyHtoD_v2(q, fill, MIB));
	moved(0, 2 * MIB, 0);
	ok(cuGraphCreate(&g, 0));
	ok(cuGraphAddMemAllocNode(&node, g, NULL, 0, &has));
	ok(cuGraphInstantiateWithFlags(&exec, g, 0));
	ok(cuGraphLaunch(exec, NULL));
	ok(cuMemsetD8_v2(has.dptr, 0x22, 64 * KIB));
	ok(cuMemcpy(p + 200 * KIB, has.dptr, 4096));
	moved(0, 4096, 0);	/* from what is known nowhere */
	copy.memcpy.copyParams = (CUDA_MEMCPY3D){ .srcMemoryType = CU_MEMORYTYPE_DEVICE,
		.srcDevice = p + 200 * KIB, .dstMemoryType = CU_MEMORYTYPE_DEVICE,
		.dstDevice = q + 400 * KIB, .WidthInBytes = 4096, .Height = 1, .Depth = 1 };
	copy.memcpy.copyCtx = ctx[0];
	ok(cuGraphCreate(&g, 0));
	ok(cuGraphAddNode(&node, g, NULL, 0, &copy));
	ok(cuGraphInstantiateWithFlags(&exec, g, 0));
	want[0].launches++;
	for (int i = 0; i < 40; i++) {
		launch(function(m, "bump"), p + (CUdeviceptr)i % 16 * 64 * KIB);
		ok(cuMemsetD32_v2(p + 200 * KIB, (unsigned int)i, 1024));
		ok(cuGraphLaunch(exec, NULL));
		want[0].launches++;
		ok(cuCtxSynchronize());
		ok(cuMemcpyDtoH_v2(&n, q + 400 * KIB + 64, 4));
		moved(0, 0, 4);
		printf("read %x\n", n);
	}
}

/* Contexts pushed and popped around each launch. */
void pushed(void)
{
	CUdeviceptr p;
	CUfunction f[2];
	CUmodule m;
	CUcontext made;
	uint64_t was = 0;

	for (int i = 1; i >= 0; i--) {
		ok(cuCtxSetCurrent(ctx[i]));
		ok(cuModuleLoadData(&m, ptx));
		f[i] = function(m, "nothing");
		ok(cuMemAlloc_v2(&p, 4096));	/* a device is known by its memory */
		have(i, 4096, 1);
	}
	for (int i = 0; i < 40; i++) {
		ok(cuCtxPushCurrent_v2(ctx[1]));
		ok(cuCtxPushCurrent_v2(ctx[0]));
		ok(cuCtxPopCurrent_v2(NULL));
		ok(cuLaunchKernel(f[1], 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
		ok(cuCtxPopCurrent_v2(NULL));
		ok(cuLaunchKernel(f[0], 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
		want[0].launches++;
		want[1].launches++;
		if (i == 1)
			was = emu_calls("cuCtxGetDevice");
	}
	if (emu_calls("cuCtxGetDevice") != was)
		fail("the device was asked for %lu times", (unsigned long)(emu_calls("cuCtxGetDevice") - was));
	/* One that is made is pushed; it goes from where it lies. */
	ok(cuCtxCreate_v2(&made, 0, 1));
	ok(cuCtxDestroy_v2(made));
	ok(cuLaunchKernel(f[0], 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	want[0].launches++;
	ok(cuMemsetD8_v2(p, 0, 4096));
}

/* Memory of a pool is on the pool's device, whichever is current. */
void pools_elsewhere(void)
{
	CUmemPoolProps props;
	CUmemoryPool pool;
	CUdeviceptr p;
	CUstream s;

	memset(&props, 0, sizeof(props));
	props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
	props.location = (CUmemLocation){ CU_MEM_LOCATION_TYPE_DEVICE, 1 };
	ok(cuCtxSetCurrent(ctx[0]));
	get(4096);
	ok(cuMemPoolCreate(&pool, &props));
	ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	ok(cuMemAllocFromPoolAsync(&p, 4 * MIB, pool, s));
	have(1, 4 * MIB, 1);
	ok(cuMemAllocAsync(&p, MIB, s));
	have(0, MIB, 1);
	ok(cuStreamSynchronize(s));
}

/* What is told to be free, before large allocations and after their end. */
void given_back(void)
{
	size_t free[2], total;
	CUdeviceptr p[5];

	ok(cuMemGetInfo_v2(&free[0], &total));
	for (size_t len = 10 * MIB; len <= 18 * MIB; len += 4 * MIB) {
		for (int i = 0; i < 5; i++)
			ok(cuMemAlloc_v2(&p[i], len));
		for (int i = 0; i < 5; i++)
			ok(cuMemFree_v2(p[i]));
	}
	ok(cuMemGetInfo_v2(&free[1], &total));
	printf("given_back %zu %zu\n", free[0], free[1]);
}
