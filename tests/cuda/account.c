/* SPDX-License-Identifier: MIT */
/* account.c - a scripted program on the driver, that says what must have been counted.
 *
 *     account SCENARIO
 *
 * Owns the expectation `want`, made from what it asks for. Prints "want DEVICE KEY
 * NUMBER", and what it read back ("read ..."): the same with and without the library.
 * Lock: none. (1) Every family of calls is in a scenario, with calls that fail among
 * them: those count nothing. (2) What ends by the end of something else (a context, a
 * mapping) is among them.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cuda/account.h"
#include "tests/cuda/account_ptx.h"

struct expect want[2];
CUcontext ctx[2];
static int devices = 1;

static void begin(int n)
{
	ok(cuInit(0));
	devices = n;
	for (int i = n - 1; i >= 0; i--) {
		ok(cuDevicePrimaryCtxRetain(&ctx[i], i));
		ok(cuCtxSetCurrent(ctx[i]));
	}
}

static void end(void)
{
	for (int i = 0; i < devices; i++) {
#define W(key) printf("want %d %s %ld\n", i, #key, want[i].key);
		W(managed_bytes) W(resident_bytes) W(pinned_bytes) W(regions)
		W(h2d_bytes) W(d2h_bytes) W(launches) W(unread)
	}
	fflush(stdout);
}

/* Device memory of the program's, in the device: sign -1 when it ends. */
void have(int dev, long bytes, long regions)
{
	want[dev].managed_bytes += bytes;
	want[dev].resident_bytes += bytes;
	want[dev].regions += regions;
}

CUdeviceptr get(size_t len)
{
	CUdeviceptr p;

	ok(cuMemAlloc_v2(&p, len));
	have(0, (long)len, 1);
	return p;
}

/* ---- allocation --------------------------------------------------------------- */

static void families(void)
{
	CUdeviceptr p, q;
	CUstream s;
	CUmemoryPool pool;
	size_t pitch;
	void *h, *mem = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ok(cuStreamCreate(&s, 0));
	get(1);
	get(3 * MIB + 5);
	ok(cuMemAllocPitch_v2(&p, &pitch, 1000, 10, 4));
	have(0, (long)pitch * 10, 1);
	ok(cuMemAllocManaged(&p, 12345, CU_MEM_ATTACH_GLOBAL));
	want[0].managed_bytes += 12345;
	want[0].regions++;
	ok(cuMemAllocAsync(&p, 777 * KIB, s));
	ok(cuMemAllocAsync_ptsz(&q, 5 * KIB, s));
	have(0, 782 * KIB, 2);
	ok(cuDeviceGetDefaultMemPool(&pool, 0));
	ok(cuMemAllocFromPoolAsync(&p, 9 * KIB, pool, s));
	ok(cuMemAllocFromPoolAsync_ptsz(&p, 11 * KIB, pool, s));
	have(0, 20 * KIB, 2);
	ok(cuStreamSynchronize(s));
	ok(cuMemAllocHost_v2(&h, 100 * KIB));
	ok(cuMemHostAlloc(&h, 50 * KIB, CU_MEMHOSTALLOC_DEVICEMAP));
	ok(cuMemHostRegister_v2(mem, MIB, 0));
	want[0].pinned_bytes += 150 * KIB + MIB;
	want[0].regions += 3;
	refused(cuMemAlloc_v2(&p, 1ul << 40));
	refused(cuMemAlloc_v2(&p, 0));
	refused(cuMemHostRegister_v2(mem, MIB, 0));
}

static void ends(void)
{
	CUdeviceptr p = get(MIB), q;
	CUstream s;
	size_t pitch;
	void *h, *mem = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ok(cuStreamCreate(&s, 0));
	refused(cuMemFree_v2(p + 512));
	ok(cuMemFree_v2(p));
	have(0, -(long)MIB, -1);
	refused(cuMemFree_v2(p));
	ok(cuMemFree_v2(0));
	ok(cuMemAllocPitch_v2(&p, &pitch, 1000, 10, 4));
	ok(cuMemFree_v2(p));
	ok(cuMemAllocManaged(&p, 12345, CU_MEM_ATTACH_GLOBAL));
	ok(cuMemFree_v2(p));
	ok(cuMemAllocAsync(&p, 777, s));
	ok(cuMemAllocAsync(&q, 778, s));
	ok(cuMemFreeAsync(p, s));
	ok(cuMemFreeAsync_ptsz(q, s));
	ok(cuMemAllocAsync(&p, 779, s));
	ok(cuStreamSynchronize(s));
	ok(cuMemFree_v2(p));
	refused(cuMemFreeAsync(p, s));
	ok(cuMemAllocHost_v2(&h, 4096));
	ok(cuMemFreeHost(h));
	refused(cuMemFreeHost(mem));
	ok(cuMemHostRegister_v2(mem, MIB, 0));
	ok(cuMemHostUnregister(mem));
	refused(cuMemHostUnregister(mem));
	get(3000);
}

/* What the driver refuses to free stays (EMU_FAIL of the script). */
static void kept(void)
{
	CUdeviceptr p = get(MIB);
	void *h;

	is(cuMemFree_v2(p), CUDA_ERROR_UNKNOWN);
	ok(cuMemAllocHost_v2(&h, 5000));
	is(cuMemFreeHost(h), CUDA_ERROR_UNKNOWN);
	want[0].pinned_bytes += 5000;
	want[0].regions++;
	ok(cuMemFree_v2(get(9)));
	have(0, -9, -1);
}

/* Many small ones, in many orders: the table of regions against a plain list. */
static void many(void)
{
	enum { N = 800 };
	static CUdeviceptr p[N];
	static size_t len[N];
	unsigned int seed = 5;

	for (int i = 0; i < 4 * N; i++) {
		int k = rand_r(&seed) % N;

		if (p[k]) {
			ok(cuMemFree_v2(p[k]));
			have(0, -(long)len[k], -1);
			p[k] = 0;
		} else {
			len[k] = (size_t)rand_r(&seed) % (i % 50 ? 5000 : 300000) + 1;
			p[k] = get(len[k]);
		}
	}
}

static void own_mappings(void)
{
	CUmemAllocationProp prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED,
				     .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 } };
	CUmemGenericAllocationHandle a, b, c, again;
	CUmemAccessDesc rw = { { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
			       CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUdeviceptr at;

	ok(cuMemAddressReserve(&at, 16 * GRAN, 0, 0, 0));
	ok(cuMemCreate(&a, 2 * GRAN, &prop, 0));
	ok(cuMemCreate(&b, GRAN, &prop, 0));
	ok(cuMemCreate(&c, 4 * GRAN, &prop, 0));
	refused(cuMemCreate(&again, GRAN + 1, &prop, 0));
	ok(cuMemMap(at, 2 * GRAN, 0, a, 0));
	ok(cuMemMap(at + 2 * GRAN, GRAN, 0, b, 0));
	ok(cuMemMap(at + 4 * GRAN, 2 * GRAN, 0, a, 0));
	refused(cuMemMap(at, GRAN, 0, b, 0));
	ok(cuMemSetAccess(at, 3 * GRAN, &rw, 1));
	ok(cuMemRetainAllocationHandle(&again, (void *)(at + 2 * GRAN)));
	ok(cuMemRelease(again));
	ok(cuMemRelease(a));		/* mapped twice still */
	ok(cuMemRelease(b));
	ok(cuMemRelease(c));		/* gone */
	ok(cuMemUnmap(at + 4 * GRAN, 2 * GRAN));	/* once still */
	ok(cuMemUnmap(at + 2 * GRAN, GRAN));		/* gone */
	refused(cuMemUnmap(at + 2 * GRAN, GRAN));
	have(0, 2 * GRAN, 1);
	prop.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA;	/* no memory of a device */
	ok(cuMemCreate(&b, GRAN, &prop, 0));
}

/* What ends with its context. */
static void contexts(void)
{
	CUcontext other;
	CUdeviceptr p;
	void *h;

	get(4096);
	ok(cuCtxCreate_v2(&other, 0, 0));
	ok(cuMemAlloc_v2(&p, MIB));
	ok(cuMemAllocHost_v2(&h, MIB));
	ok(cuMemAllocManaged(&p, MIB, CU_MEM_ATTACH_GLOBAL));
	ok(cuCtxDestroy_v2(other));
	ok(cuCtxSetCurrent(ctx[0]));
	get(8192);
}

static void reset(void)
{
	get(4096);
	get(100);
	ok(cuDevicePrimaryCtxRelease_v2(0));
	have(0, -4196, -2);
	begin(1);
}

/* Which the driver says of a pointer. */
static void tell_pointer(CUdeviceptr base, CUdeviceptr at, size_t len)
{
	unsigned int type = 9, type2 = 9;
	int managed = 9, ordinal = 9, mapped = 9;
	CUdeviceptr same, start, got, start2;
	size_t size, n;
	CUcontext c;
	CUpointer_attribute two[] = { CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
				      CU_POINTER_ATTRIBUTE_RANGE_START_ADDR };
	void *out[] = { &type2, &start2 };

	ok(cuMemGetAddressRange_v2(&got, &n, at));
	ok(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at));
	ok(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, at));
	ok(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at));
	ok(cuPointerGetAttribute(&mapped, CU_POINTER_ATTRIBUTE_MAPPED, at));
	ok(cuPointerGetAttribute(&same, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, at));
	ok(cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, at));
	ok(cuPointerGetAttribute(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, at));
	ok(cuPointerGetAttribute(&c, CU_POINTER_ATTRIBUTE_CONTEXT, at));
	refused(cuPointerGetAttribute(&same, CU_POINTER_ATTRIBUTE_HOST_POINTER, at));
	ok(cuPointerGetAttributes(2, two, out, at));
	printf("pointer: %d %d %u %d %d %d %d %d %d %d\n", got == base, n == len, type, managed,
	       ordinal, mapped, start == base && start2 == base, size == len, c == ctx[0],
	       type2 == type);
}

/* Large ones, that have homes in several places where the library may (PLACED). */
static void places(void)
{
	CUmemGenericAllocationHandle h;
	CUdeviceptr p = get(5 * MIB + 77), q = get(MIB), r;
	unsigned long long id, id2;
	CUipcMemHandle ipc;
	size_t pitch;

	tell_pointer(p, p, 5 * MIB + 77);
	tell_pointer(p, p + 3 * MIB, 5 * MIB + 77);
	tell_pointer(q, q + 100, MIB);
	ok(cuPointerGetAttribute(&id, CU_POINTER_ATTRIBUTE_BUFFER_ID, p));
	ok(cuPointerGetAttribute(&id2, CU_POINTER_ATTRIBUTE_BUFFER_ID, q));
	printf("ids differ: %d\n", id != id2);
	refused(cuMemRetainAllocationHandle(&h, (void *)p));
	refused(cuMemUnmap(p, GRAN));
	is(cuIpcGetMemHandle(&ipc, p), getenv("PLACED") ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS);
	ok(cuMemAllocPitch_v2(&r, &pitch, 1000, 3000, 4));
	have(0, (long)pitch * 3000, 1);
	printf("pitch %zu\n", pitch);
	tell_pointer(r, r + 9, pitch * 3000);
	refused(cuMemFree_v2(p + GRAN));
	ok(cuMemFree_v2(p));
	have(0, -(long)(5 * MIB + 77), -1);
	refused(cuMemFree_v2(p));
	refused(cuMemGetAddressRange_v2(NULL, NULL, p));
}

/* One request, and what the driver says to it. */
static void admitted(int mib)
{
	CUdeviceptr p;
	CUresult r = cuMemAlloc_v2(&p, (size_t)mib * MIB);

	printf("admitted %d %d\n", mib, r);
}

/* ---- copies ------------------------------------------------------------------------ */

static unsigned char host[MIB], back[MIB];

void moved(int dev, long h2d, long d2h)
{
	want[dev].h2d_bytes += h2d;
	want[dev].d2h_bytes += d2h;
}

static void show(CUdeviceptr p, size_t n)
{
	unsigned long sum = 0;

	ok(cuMemcpyDtoH_v2(back, p, n));
	moved(0, 0, (long)n);
	for (size_t i = 0; i < n; i++)
		sum = sum * 31 + back[i];
	printf("read %lx\n", sum);
}

static void plain_copies(void)
{
	CUdeviceptr p = get(MIB), q = get(MIB);
	CUstream s;
	void *pin;

	ok(cuStreamCreate(&s, 0));
	ok(cuMemHostAlloc(&pin, 64 * KIB, 0));
	want[0].pinned_bytes += 64 * KIB;
	want[0].regions++;
	memcpy(pin, host, 64 * KIB);
	ok(cuMemsetD8_v2(p, 0, MIB));
	ok(cuMemsetD8_v2(q, 0, MIB));
	ok(cuMemcpyHtoD_v2(p, host, 1000));
	ok(cuMemcpyHtoD_v2_ptds(p + 1000, host, 200));
	ok(cuMemcpyHtoDAsync_v2(p + 2000, host, 30, s));
	ok(cuMemcpyHtoDAsync_v2_ptsz(p + 3000, host, 4, s));
	ok(cuMemcpyDtoD_v2(q, p, 10000));
	ok(cuMemcpyDtoDAsync_v2(q + 20000, p, 10000, s));
	ok(cuMemcpy(q + 40000, (CUdeviceptr)(uintptr_t)host, 555));	/* h2d */
	ok(cuMemcpy((CUdeviceptr)(uintptr_t)back, p, 66));		/* d2h */
	ok(cuMemcpyAsync(q + 50000, (CUdeviceptr)(uintptr_t)pin, 7777, s));
	ok(cuMemcpyAsync((CUdeviceptr)(uintptr_t)pin, q, 88, s));
	ok(cuMemcpy(q + 60000, p, 99));					/* neither */
	ok(cuMemcpy((CUdeviceptr)(uintptr_t)back, (CUdeviceptr)(uintptr_t)host, 11));
	ok(cuStreamSynchronize(s));
	refused(cuMemcpyHtoD_v2(p + MIB, host, 100000));
	moved(0, 1000 + 200 + 30 + 4 + 555 + 7777, 66 + 88);
	show(p, MIB);
	show(q, MIB);
}

static void blocks(void)
{
	CUdeviceptr p = get(MIB), q = get(MIB);
	CUDA_MEMCPY2D d = { .srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = host, .srcPitch = 300,
			    .dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = p,
			    .dstPitch = 512, .WidthInBytes = 200, .Height = 30 };
	CUDA_MEMCPY3D e = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = p,
			    .srcPitch = 512, .srcHeight = 10, .dstMemoryType = CU_MEMORYTYPE_HOST,
			    .dstHost = back, .dstPitch = 100, .dstHeight = 10,
			    .WidthInBytes = 100, .Height = 10, .Depth = 3 };
	CUstream s;

	ok(cuStreamCreate(&s, 0));
	ok(cuMemsetD8_v2(p, 7, MIB));
	ok(cuMemsetD32_v2(q, 77, MIB / 4));
	ok(cuMemsetD2D8_v2(q, 512, 9, 100, 20));
	ok(cuMemcpy2D_v2(&d));
	ok(cuMemcpy2DUnaligned_v2(&d));
	ok(cuMemcpy2DAsync_v2(&d, s));
	moved(0, 3 * 6000, 0);
	ok(cuMemcpy3D_v2(&e));
	ok(cuMemcpy3DAsync_v2(&e, s));
	moved(0, 0, 2 * 3000);
	d.dstMemoryType = d.srcMemoryType = CU_MEMORYTYPE_UNIFIED;	/* by address */
	d.srcDevice = (CUdeviceptr)(uintptr_t)host;
	d.dstDevice = q;
	ok(cuMemcpy2D_v2(&d));
	moved(0, 6000, 0);
	e.dstMemoryType = CU_MEMORYTYPE_DEVICE;
	e.dstDevice = q;
	ok(cuMemcpy3D_v2(&e));
	ok(cuStreamSynchronize(s));
	show(p, MIB);
	show(q, MIB);
}

static void batches(void)
{
	CUdeviceptr p = get(MIB), to[3] = { p, p + 4096, (CUdeviceptr)(uintptr_t)back },
		    from[3] = { (CUdeviceptr)(uintptr_t)host, p, p };
	size_t n[3] = { 100, 2000, 30000 }, which[1] = { 0 };
	CUmemcpyAttributes attr = { .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM };
	CUstream s;

	ok(cuStreamCreate(&s, 0));
	ok(cuMemsetD8_v2(p, 0, MIB));
	ok(cuMemcpyBatchAsync_v2(to, from, n, 3, &attr, which, 1, s));
	ok(cuStreamSynchronize(s));
	moved(0, 100, 30000);
	show(p, MIB);
}

/* ---- launches ----------------------------------------------------------------------- */

CUfunction function(CUmodule m, const char *name)
{
	CUfunction f;

	ok(cuModuleGetFunction(&f, m, name));
	return f;
}

static void all_launches(CUmodule m, CUdeviceptr p)
{
	unsigned int n = 5;
	void *args[] = { &p, &n };
	struct { CUdeviceptr p; unsigned int n; } flat = { p, 3 };
	size_t size = 12;
	void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, &flat, CU_LAUNCH_PARAM_BUFFER_SIZE,
			  &size, CU_LAUNCH_PARAM_END };
	struct { uint64_t a, p, b; } in = { 1, p + 64, 2 };
	void *one[] = { &in };
	CUlaunchConfig c = { 1, 1, 1, 1, 1, 1, 0, NULL, NULL, 0 };
	CUfunction bump = function(m, "bump");

	ok(cuLaunchKernel(bump, 1, 1, 1, 1, 1, 1, 0, NULL, args, NULL));
	ok(cuLaunchKernel(bump, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, extra));
	ok(cuLaunchKernel_ptsz(bump, 1, 1, 1, 1, 1, 1, 0, NULL, args, NULL));
	ok(cuLaunchKernelEx(&c, bump, args, NULL));
	ok(cuLaunchKernelEx_ptsz(&c, bump, args, NULL));
	ok(cuLaunchCooperativeKernel(bump, 1, 1, 1, 1, 1, 1, 0, NULL, args));
	ok(cuLaunchKernel(function(m, "within"), 1, 1, 1, 1, 1, 1, 0, NULL, one, NULL));
	ok(cuLaunchKernel(function(m, "nothing"), 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	want[0].launches += 8;
	refused(cuLaunchKernel(bump, 0, 1, 1, 1, 1, 1, 0, NULL, args, NULL));
	refused(cuLaunchKernel(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, args, NULL));
}

static void a_graph(CUmodule m, CUdeviceptr p)
{
	unsigned int n = 1000;
	void *args[] = { &p, &n };
	CUDA_KERNEL_NODE_PARAMS_v2 k = { .func = function(m, "bump"), .gridDimX = 1,
					 .gridDimY = 1, .gridDimZ = 1, .blockDimX = 1,
					 .blockDimY = 1, .blockDimZ = 1, .kernelParams = args };
	CUgraph g;
	CUgraphNode node;
	CUgraphExec exec;
	CUstream s;

	ok(cuStreamCreate(&s, 0));
	ok(cuGraphCreate(&g, 0));
	ok(cuGraphAddKernelNode_v2(&node, g, NULL, 0, &k));
	ok(cuGraphInstantiateWithFlags(&exec, g, 0));
	ok(cuGraphLaunch(exec, s));
	n = 100;
	ok(cuGraphExecKernelNodeSetParams_v2(exec, node, &k));
	ok(cuGraphLaunch(exec, s));
	ok(cuStreamSynchronize(s));
	ok(cuGraphExecDestroy(exec));
	want[0].launches += 2;
}

/* From memory, or from a file of that name. */
static void load(CUmodule *m)
{
	const char *path = getenv("MODULE_FILE");
	FILE *f = path ? fopen(path, "w") : NULL;

	if (!path) {
		ok(cuModuleLoadData(m, ptx));
		return;
	}
	if (!f || fputs(ptx, f) < 0 || fclose(f))
		fail("%s", path);
	ok(cuModuleLoad(m, path));
}

static void launches(void)
{
	CUdeviceptr p = get(4096), total;
	CUmodule m, again;
	size_t n;

	ok(cuMemsetD8_v2(p, 0, 4096));
	load(&m);
	ok(cuModuleGetGlobal_v2(&total, &n, m, "total"));
	want[0].regions++;
	all_launches(m, p);
	a_graph(m, p);
	ok(cuCtxSynchronize());
	ok(cuModuleUnload(m));
	want[0].regions--;	/* the variable goes with it */
	/* Handles may come again as other functions of other parameters. */
	load(&again);
	all_launches(again, p);
	ok(cuCtxSynchronize());
	show(p, 4096);
}

static CUstream sly_stream;
static CUdeviceptr sly_out;

/* What the kernel leaves in the output: waited for, as a program would. */
static unsigned int ask(CUfunction f, CUdeviceptr p, CUdeviceptr out)
{
	void *args[] = { &p, &out };
	unsigned int v;

	ok(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, sly_stream, args, NULL));
	ok(cuMemcpyDtoHAsync_v2(&v, sly_out, 4, sly_stream));
	ok(cuStreamSynchronize(sly_stream));
	want[0].launches++;
	moved(0, 0, 4);
	return v;
}

/* Weights that are read again and again; then they are written behind everybody's back,
 * filled anew, and read by a pointer that a kernel has kept. */
static void slyly(void)
{
	enum { WINDOWS = 12, STEP = 100 * 1024 };
	CUdeviceptr p = get(WINDOWS * STEP), cell = get(8), hidden, at = p + 5 * STEP;
	CUfunction look, keep, follow, poke;
	unsigned int v = 12345;
	void *args[] = { &v };
	CUmodule m;
	size_t n;

	ok(cuStreamCreate(&sly_stream, CU_STREAM_NON_BLOCKING));
	sly_out = get(4);
	ok(cuModuleLoadData(&m, sly));
	ok(cuModuleGetGlobal_v2(&hidden, &n, m, "hidden"));
	want[0].regions++;
	ok(cuMemcpyHtoD_v2(hidden, &at, 8));
	for (int i = 0; i < WINDOWS; i++)
		ok(cuMemcpyHtoD_v2(p + (CUdeviceptr)i * STEP, host + i * 1000, STEP));
	moved(0, 8 + WINDOWS * STEP, 0);
	look = function(m, "look");
	keep = function(m, "keep");
	follow = function(m, "follow");
	poke = function(m, "poke");
	for (int pass = 0; pass < 12; pass++)
		for (int i = 0; i < WINDOWS; i++)
			printf("read %x\n", ask(look, p + (CUdeviceptr)i * STEP, sly_out));
	for (int i = 0; i < 12; i++)
		ask(keep, p + 7 * STEP, cell);
	for (int i = 0; i < WINDOWS; i++)
		printf("read %x\n", ask(look, p + (CUdeviceptr)i * STEP, sly_out));
	printf("read %x\n", ask(follow, cell, sly_out));
	for (int i = 0; i < 16; i++) {
		v++;
		ok(cuLaunchKernel(poke, 1, 1, 1, 1, 1, 1, 0, sly_stream, args, NULL));
		want[0].launches++;
		printf("read %x\n", ask(look, at, sly_out));
	}
	for (int pass = 0; pass < 8; pass++) {
		v = 77 + (unsigned int)pass;
		ok(cuMemcpyHtoDAsync_v2(at, &v, 4, sly_stream));
		moved(0, 4, 0);
		printf("read %x\n", ask(look, at, sly_out));
	}
	printf("read %x\n", ask(follow, cell, sly_out));
	for (int i = 0; i < 12; i++)
		printf("read %x\n", ask(function(m, "bump"), p + 9 * STEP, sly_out));
	printf("read %x\n", ask(look, p + 9 * STEP, sly_out));
}

static void nothing(CUfunction f, int dev)
{
	ok(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	want[dev].launches++;
}

static void two_devices(void)
{
	CUdeviceptr p = get(MIB), q;
	CUfunction f[2];
	CUmodule m;

	for (int i = 0; i < 2; i++) {
		ok(cuCtxSetCurrent(ctx[i]));
		ok(cuModuleLoadData(&m, ptx));
		f[i] = function(m, "nothing");
	}

	ok(cuMemAlloc_v2(&q, 2 * MIB));
	have(1, 2 * MIB, 1);
	ok(cuMemcpyHtoD_v2(q, host, 5000));
	moved(1, 5000, 0);
	nothing(f[1], 1);
	ok(cuCtxPushCurrent_v2(ctx[0]));
	nothing(f[0], 0);
	ok(cuMemcpyHtoD_v2(p, host, 600));
	moved(0, 600, 0);
	ok(cuMemcpyPeer(p + 1000, ctx[0], q, ctx[1], 5000));
	ok(cuCtxPopCurrent_v2(NULL));
	nothing(f[1], 1);
	ok(cuMemcpyDtoH_v2(back, q, 70));
	moved(1, 0, 70);
	ok(cuCtxSetCurrent(ctx[0]));
	nothing(f[0], 0);
}

/* ---- threads, forks ------------------------------------------------------------------- */

static void *thread(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;
	CUdeviceptr p[50] = { 0 };

	ok(cuCtxSetCurrent(ctx[0]));
	for (int i = 0; i < 400; i++) {
		int k = rand_r(&seed) % 50;

		if (p[k]) {
			ok(cuMemFree_v2(p[k]));
			p[k] = 0;
		} else {
			ok(cuMemAlloc_v2(&p[k], (size_t)rand_r(&seed) % 100000 + 4));
			ok(cuMemcpyHtoD_v2(p[k], host, 4));
			__atomic_fetch_add(&want[0].h2d_bytes, 4, __ATOMIC_RELAXED);
		}
	}
	for (int k = 0; k < 50; k++)
		if (p[k])
			ok(cuMemFree_v2(p[k]));
	return NULL;
}

static void threads(void)
{
	pthread_t t[2];

	get(MIB);
	for (uintptr_t i = 0; i < 2; i++)
		if (pthread_create(&t[i], NULL, thread, (void *)(i + 1)))
			fail("thread");
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

static void forked(void)
{
	CUdeviceptr p = get(MIB);
	int status;
	pid_t pid;

	ok(cuMemcpyHtoD_v2(p, host, 1000));
	moved(0, 1000, 0);
	pid = fork();
	if (!pid)
		_exit(cuMemFree_v2(p) == CUDA_SUCCESS);	/* the parent's, not ours */
	if (waitpid(pid, &status, 0) != pid || status)
		fail("the child: %x", (unsigned int)status);
	get(3000);
}

/* The management library knows devices by their uuid alone. */
static void manage(const char *path)
{
	struct { unsigned long long total, free, used; } m;
	struct { unsigned int version; unsigned long long total, reserved, free, used; } m2;
	void *lib = dlopen(path, RTLD_NOW);
	int (*info)(void *, void *), (*info2)(void *, void *);
	char text[64] = "GPU-";
	CUuuid id;

	if (!lib)
		fail("%s", dlerror());
	ok(cuDeviceGetUuid_v2(&id, 0));
	for (int i = 0; i < 16; i++)
		sprintf(text + strlen(text), "%s%02x", i == 4 || i == 6 ? "-" : "",
			(unsigned char)id.bytes[i]);
	setenv("FAKE_UUID", text, 1);
	info = (int (*)(void *, void *))dlsym(lib, "nvmlDeviceGetMemoryInfo");
	info2 = (int (*)(void *, void *))dlsym(lib, "nvmlDeviceGetMemoryInfo_v2");
	m2.version = 2;
	if (info(NULL, &m) || info2(NULL, &m2))
		fail("nvml");
	printf("managed %llu %llu %llu; %llu %llu %llu %llu\n", m.total, m.free, m.used,
	       m2.total, m2.reserved, m2.free, m2.used);
}

/* Memory that is paged (OFFLOAD_RAM of the script) stays where a device reads it, or is
 * refused: not more of it than the budget can hold. */
static void registered(void)
{
	char *p = malloc(64 * MIB);
	CUresult some, most;

	memset(p, 5, 64 * MIB);
	memset(p, 7, 64 * MIB);
	some = cuMemHostRegister_v2(p + MIB, 4 * MIB, 0);
	ok(cuMemHostUnregister(p + MIB));
	/* Nor while the context lasts only. */
	for (int i = 0; i < 12; i++) {
		CUcontext other;

		ok(cuCtxCreate_v2(&other, 0, 0));
		ok(cuMemHostRegister_v2(p + (size_t)i * 5 * MIB, 4 * MIB, 0));
		ok(cuCtxDestroy_v2(other));
		ok(cuCtxSetCurrent(ctx[0]));
	}
	most = cuMemHostRegister_v2(p + MIB, 60 * MIB, 0);
	printf("registered %d %d\n", some, most);
}

/* What is told of memory, by all who tell. */
static void told(void)
{
	size_t free0, free1, total, all;

	get(3 * MIB);
	ok(cuMemGetInfo_v2(&free0, &total));
	ok(cuDeviceTotalMem_v2(&all, 0));
	get(MIB);
	ok(cuMemGetInfo_v2(&free1, NULL));
	printf("told %zu %zu %zu %zu\n", total, all, free0, free1);
	if (getenv("TOLD_AGAIN")) {	/* the host's memory is looked at once a second */
		char *p = malloc(256 * MIB);

		memset(p, 1, 256 * MIB);
		usleep(1200000);
		ok(cuMemGetInfo_v2(&free0, &all));
		printf("again %d\n", all == total);
		free(p);
	}
	if (getenv("NVML_LIB"))
		manage(getenv("NVML_LIB"));
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*run)(void); int devices; } all[] = {
		{ "families", families, 1 }, { "ends", ends, 1 }, { "kept", kept, 1 }, { "many", many, 1 },
		{ "own_mappings", own_mappings, 1 }, { "contexts", contexts, 1 },
		{ "reset", reset, 1 }, { "places", places, 1 }, { "slyly", slyly, 1 }, { "plain_copies", plain_copies, 1 },
		{ "blocks", blocks, 1 }, { "batches", batches, 1 },
		{ "two_devices", two_devices, 2 }, { "launches", launches, 1 },
		{ "captured", captured, 1 }, { "added", added, 1 }, { "unloaded", unloaded, 1 },
		{ "pushed", pushed, 2 }, { "pools_elsewhere", pools_elsewhere, 2 },
		{ "threads", threads, 1 }, { "forked", forked, 1 }, { "told", told, 1 }, { "registered", registered, 1 },
	};

	for (size_t i = 0; i < MIB; i++)
		host[i] = (unsigned char)(i * 7 + i / 251);
	if (argc == 3 && !strcmp(argv[1], "admitted")) {
		begin(1);
		admitted(atoi(argv[2]));
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "given_back")) {
		begin(1);
		given_back();
		return 0;
	}
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (argc < 2 && all[i].run != registered)
			puts(all[i].name);
		if (argc != 2 || strcmp(argv[1], all[i].name))
			continue;
		begin(all[i].devices);
		all[i].run();
		end();
	}
	return 0;
}
