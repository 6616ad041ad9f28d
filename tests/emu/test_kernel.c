/* SPDX-License-Identifier: MIT */
/* test_kernel.c - modules, launches, and what kernels reach: E1, E3, E4, E7, E11. */
#include "tests/emu/test.h"

/* fill(p, v, n): n words. through(table): *table = 7, by the pointer that is in memory.
 * by_struct(s): s.p[0] = s.v. hidden(): the pointer is in a variable. count(): one more. */
static const char text[] =
	".version 7.0\n.target sm_80\n.address_size 64\n"
	".visible .global .align 8 .u64 where = 0;\n"
	".visible .global .align 4 .u32 counter = 5;\n"
	".visible .const .align 4 .u32 step = 3;\n"
	".visible .entry fill(.param .u64 p, .param .u32 v, .param .u32 n)\n{\n"
	" .reg .pred %p<2>; .reg .b32 %r<8>; .reg .b64 %rd<4>;\n"
	" ld.param.u64 %rd1, [p];\n ld.param.u32 %r1, [v];\n ld.param.u32 %r2, [n];\n"
	" mov.u32 %r3, %ctaid.x;\n mov.u32 %r4, %ntid.x;\n mov.u32 %r5, %tid.x;\n"
	" mad.lo.s32 %r6, %r3, %r4, %r5;\n setp.ge.u32 %p1, %r6, %r2;\n @%p1 bra $done;\n"
	" mul.wide.u32 %rd2, %r6, 4;\n add.s64 %rd3, %rd1, %rd2;\n st.global.u32 [%rd3], %r1;\n"
	"$done:\n ret;\n}\n"
	".visible .entry through(.param .u64 table)\n{\n .reg .b32 %r<2>; .reg .b64 %rd<3>;\n"
	" ld.param.u64 %rd1, [table];\n ld.global.u64 %rd2, [%rd1];\n mov.u32 %r1, 7;\n"
	" st.global.u32 [%rd2], %r1;\n ret;\n}\n"
	".visible .entry by_struct(.param .align 8 .b8 s[24])\n{\n"
	" .reg .b32 %r<2>; .reg .b64 %rd<2>;\n ld.param.u64 %rd1, [s+8];\n"
	" ld.param.u32 %r1, [s+16];\n st.global.u32 [%rd1], %r1;\n ret;\n}\n"
	".visible .entry hidden()\n{\n .reg .b32 %r<2>; .reg .b64 %rd<2>;\n"
	" ld.global.u64 %rd1, [where];\n mov.u32 %r1, 9;\n st.global.u32 [%rd1], %r1;\n ret;\n}\n"
	".visible .entry count()\n{\n .reg .b32 %r<4>;\n ld.const.u32 %r1, [step];\n"
	" ld.global.u32 %r2, [counter];\n add.u32 %r3, %r1, %r2;\n"
	" st.global.u32 [counter], %r3;\n ret;\n}\n"
	".visible .entry odd()\n{\n nonsense.u32 1;\n ret;\n}\n";

struct by_value {
	uint64_t first;
	CUdeviceptr p;
	unsigned v;
};

static CUmodule module;

static CUfunction function(const char *name)
{
	CUfunction f;

	OK(cuModuleGetFunction(&f, module, name));
	return f;
}

static void begin(void)
{
	setup();
	OK(cuModuleLoadData(&module, text));
}

static CUresult launch(CUfunction f, void **params)
{
	return cuLaunchKernel(f, 2, 1, 1, 32, 1, 1, 0, NULL, params, NULL);
}

static CUresult fill(CUdeviceptr p, unsigned v, unsigned n)
{
	void *params[] = { &p, &v, &n };

	return launch(function("fill"), params);
}

static unsigned word(CUdeviceptr p)
{
	unsigned v;

	OK(cuMemcpyDtoH_v2(&v, p, 4));
	return v;
}

/* ---- launching ------------------------------------------------------------------- */

static void runs(void)
{
	CUdeviceptr d, count;
	CUfunction f;
	size_t size;

	begin();
	OK(cuMemAlloc_v2(&d, 4096));
	OK(cuMemsetD8_v2(d, 0, 4096));
	OK(fill(d, 77, 50));
	CHECK(word(d) == 77 && word(d + 49 * 4) == 77 && word(d + 50 * 4) == 0);
	OK(cuModuleGetGlobal_v2(&count, &size, module, "counter"));
	CHECK(size == 4 && word(count) == 5);
	OK(cuLaunchKernel(function("count"), 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	CHECK(word(count) == 8);
	IS(cuModuleGetFunction(&f, module, "none"), CUDA_ERROR_NOT_FOUND);
	OK(cuModuleUnload(module));
	IS(cuModuleGetFunction(&f, module, "fill"), CUDA_ERROR_INVALID_HANDLE);
}

static void parameters_are_known(void)
{
	size_t offset, size;
	CUlibrary lib;
	CUkernel k;
	CUfunction f;

	begin();
	f = function("fill");
	OK(cuFuncGetParamInfo(f, 0, &offset, &size));
	CHECK(offset == 0 && size == 8);
	OK(cuFuncGetParamInfo(f, 2, &offset, &size));
	CHECK(offset == 12 && size == 4);
	IS(cuFuncGetParamInfo(f, 3, &offset, &size), CUDA_ERROR_INVALID_VALUE);
	OK(cuFuncGetParamInfo(function("by_struct"), 0, &offset, &size));
	CHECK(offset == 0 && size == 24);
	OK(cuLibraryLoadData(&lib, text, NULL, NULL, 0, NULL, NULL, 0));
	OK(cuLibraryGetKernel(&k, lib, "fill"));
	OK(cuKernelGetParamInfo(k, 1, &offset, NULL));
	CHECK(offset == 8);
	OK(cuFuncGetParamInfo((CUfunction)k, 1, &offset, &size));
	CHECK(offset == 8 && size == 4);
}

static void launched_in_every_way(void)
{
	CUlaunchAttribute attr = { .id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE };
	CUlaunchConfig c = { 1, 1, 1, 32, 1, 1, 0, NULL, &attr, 1 };
	unsigned v = 4, n = 8;
	CUdeviceptr d;
	void *params[] = { &d, &v, &n };
	struct {
		CUdeviceptr p;
		unsigned v, n;
	} packed = { 0, 6, 8 };
	size_t size = 16;
	void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE,
			  &size, CU_LAUNCH_PARAM_END };
	CUfunction f;
	CUlibrary lib;
	CUkernel k;

	begin();
	f = function("fill");
	OK(cuMemAlloc_v2(&d, 4096));
	attr.value.cooperative = 1;
	OK(cuLaunchKernelEx(&c, f, params, NULL));
	CHECK(word(d) == 4);
	packed.p = d;
	OK(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra));
	CHECK(word(d) == 6);
	v = 5;
	OK(cuLaunchCooperativeKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, params));
	CHECK(word(d) == 5);
	IS(cuLaunchCooperativeKernel(f, 100000, 1, 1, 32, 1, 1, 0, NULL, params),
	   CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
	v = 8;
	OK(cuLibraryLoadData(&lib, text, NULL, NULL, 0, NULL, NULL, 0));
	OK(cuLibraryGetKernel(&k, lib, "fill"));
	OK(cuLaunchKernel((CUfunction)k, 1, 1, 1, 32, 1, 1, 0, NULL, params, NULL));
	CHECK(word(d) == 8);
	size = 12;
	IS(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra), CUDA_ERROR_INVALID_VALUE);
	IS(cuLaunchKernel(f, 0, 1, 1, 32, 1, 1, 0, NULL, params, NULL), CUDA_ERROR_INVALID_VALUE);
	IS(cuLaunchKernel(f, 1, 1, 1, 2048, 1, 1, 0, NULL, params, NULL), CUDA_ERROR_INVALID_VALUE);
	IS(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 60000, NULL, params, NULL),
	   CUDA_ERROR_INVALID_VALUE);
	OK(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 60000));
	OK(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 60000, NULL, params, NULL));
	IS(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
}

/* Parameters are what they were at the launch. */
static void parameters_are_copied(void)
{
	unsigned v = 1, n = 1;
	CUdeviceptr d;
	void *params[] = { &d, &v, &n };

	begin();
	OK(cuMemAlloc_v2(&d, 4096));
	close_gate(NULL);
	OK(launch(function("fill"), params));
	v = 2;
	open_gate();
	CHECK(word(d) == 1);
}

static void one_kernel_fails_not_its_module(void)
{
	CUmodule bad;

	begin();
	IS(cuModuleLoadData(&bad, "this is no PTX"), CUDA_ERROR_INVALID_PTX);
	IS(cuModuleLoadData(&bad, "\177ELF\2\1\1"), CUDA_ERROR_NO_BINARY_FOR_GPU);
	OK(launch(function("count"), NULL));
	OK(cuCtxSynchronize());
	OK(launch(function("odd"), NULL));
	IS(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_INSTRUCTION);
	CHECK(strstr(emu_fault(), "odd"));
}

/* ---- what it may touch --------------------------------------------------------------- */

static void an_illegal_access_names_both(void)
{
	char address[32];
	CUdeviceptr d;

	begin();
	OK(cuMemAlloc_v2(&d, 4096));
	OK(fill(d + (1u << 20), 1, 1));
	IS(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E4");
	snprintf(address, sizeof(address), "%#llx", d + (1u << 20));
	CHECK(strstr(emu_fault(), "fill") && strstr(emu_fault(), address));
	IS(cuMemFree_v2(d), CUDA_ERROR_ILLEGAL_ADDRESS);	/* sticky */
}

static void pageable_memory_is_out_of_reach(void)
{
	static unsigned pageable[16];

	begin();
	OK(fill((CUdeviceptr)pageable, 1, 1));
	IS(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
	CHECK(strstr(emu_fault(), "E7") && !pageable[0]);
}

static void pinned_memory_is_in_reach(void)
{
	unsigned *pinned;
	CUdeviceptr m, at;

	begin();
	OK(cuMemHostAlloc((void **)&pinned, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
	OK(cuMemHostGetDevicePointer_v2(&at, pinned, 0));
	OK(fill(at, 3, 2));
	OK(cuMemAllocManaged(&m, 4096, CU_MEM_ATTACH_GLOBAL));
	OK(fill(m, 4, 2));
	OK(cuCtxSynchronize());
	CHECK(pinned[1] == 3 && ((unsigned *)m)[1] == 4);
}

static void host_memory_by_option(void)
{
	static unsigned pageable[16];
	int can;

	begin();
	OK(cuDeviceGetAttribute(&can, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 0));
	CHECK(can);
	OK(fill((CUdeviceptr)pageable, 6, 1));
	OK(cuCtxSynchronize());
	CHECK(pageable[0] == 6);
}

static void the_other_device(void)
{
	CUcontext c0, c1;
	CUdeviceptr d;

	begin();
	OK(cuCtxGetCurrent(&c0));
	OK(cuMemAlloc_v2(&d, 4096));
	OK(cuDevicePrimaryCtxRetain(&c1, 1));
	OK(cuCtxSetCurrent(c1));
	IS(fill(d, 1, 1), CUDA_ERROR_INVALID_HANDLE);	/* a function of c0's */
	OK(cuModuleLoadData(&module, text));
	OK(cuCtxEnablePeerAccess(c0, 0));
	OK(fill(d, 5, 1));
	CHECK(word(d) == 5);
	OK(cuCtxDisablePeerAccess(c0));
	OK(fill(d, 6, 1));
	IS(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E4");
	OK(cuCtxSetCurrent(c0));
	CHECK(word(d) == 5);		/* this context is as it was */
}

/* ---- E1 --------------------------------------------------------------------------------- */

static void unmap_under_a_parameter(void)
{
	CUdeviceptr d;

	begin();
	d = mapped(G);
	close_gate(NULL);
	OK(fill(d, 1, 1));
	IS(cuMemUnmap(d, G), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
	CHECK(strstr(emu_fault(), "fill"));
	open_gate();
}

/* The pointer's extent is unknown: all of the reservation counts. */
static void unmap_beside_a_parameter(void)
{
	CUmemGenericAllocationHandle h;
	CUdeviceptr d;

	begin();
	OK(cuMemAddressReserve(&d, 2 * G, 0, 0, 0));
	h = handle(G);
	OK(cuMemMap(d, G, 0, h, 0));
	h = handle(G);
	OK(cuMemMap(d + G, G, 0, h, 0));
	allow(d, 2 * G, 0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	close_gate(NULL);
	OK(fill(d, 1, 1));
	IS(cuMemUnmap(d + G, G), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
	open_gate();
}

static void unmap_elsewhere(void)
{
	CUdeviceptr d, other;

	begin();
	d = mapped(G);
	other = mapped(G);
	close_gate(NULL);
	OK(fill(d, 1, 1));
	OK(cuMemUnmap(other, G));
	open_gate();
	OK(cuCtxSynchronize());
}

static void unmap_elsewhere_refused(void)
{
	CUdeviceptr d, other;

	begin();
	d = mapped(G);
	other = mapped(G);
	close_gate(NULL);
	OK(fill(d, 1, 1));
	IS(cuMemUnmap(other, G), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
	open_gate();
}

static void unmap_under_a_struct(void)
{
	struct by_value s = { .v = 3 };
	void *params[] = { &s };

	begin();
	s.p = mapped(G);
	OK(launch(function("by_struct"), params));
	CHECK(word(s.p) == 3);
	close_gate(NULL);
	OK(launch(function("by_struct"), params));
	IS(cuMemUnmap(s.p, G), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
	open_gate();
}

static void unmap_under_a_table(void)
{
	CUdeviceptr d, table;
	void *params[] = { &table };

	begin();
	d = mapped(G);
	OK(cuMemAlloc_v2(&table, 4096));
	OK(cuMemcpyHtoD_v2(table, &d, 8));
	OK(launch(function("through"), params));
	CHECK(word(d) == 7);
	close_gate(NULL);
	OK(launch(function("through"), params));
	IS(cuMemUnmap(d, G), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
	open_gate();
}

static void unmap_under_a_variable(void)
{
	CUdeviceptr d, where;

	begin();
	d = mapped(G);
	OK(cuModuleGetGlobal_v2(&where, NULL, module, "where"));
	OK(cuMemcpyHtoD_v2(where, &d, 8));
	OK(launch(function("hidden"), NULL));
	CHECK(word(d) == 9);
	close_gate(NULL);
	OK(launch(function("hidden"), NULL));
	IS(cuMemUnmap(d, G), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
	open_gate();
}

/* ---- in graphs ----------------------------------------------------------------------------- */

static void kernels_of_graphs(void)
{
	CUDA_KERNEL_NODE_PARAMS_v2 p, asked;
	unsigned v = 1, n = 1;
	CUdeviceptr d, e;
	void *params[] = { &d, &v, &n };
	CUgraphNode node;
	CUgraphExec x;
	CUgraph g;
	CUstream s;

	begin();
	OK(cuMemAlloc_v2(&d, 4096));
	OK(cuMemAlloc_v2(&e, 4096));
	OK(cuMemsetD8_v2(e, 0, 4096));
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	OK(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
	OK(cuLaunchKernel(function("fill"), 1, 1, 1, 32, 1, 1, 0, s, params, NULL));
	OK(cuStreamEndCapture(s, &g));
	{
		size_t count = 1;

		OK(cuGraphGetNodes(g, &node, &count));
		CHECK(count == 1);
	}
	OK(cuGraphKernelNodeGetParams_v2(node, &asked));
	CHECK(asked.blockDimX == 32 && asked.func == function("fill") &&
	      *(CUdeviceptr *)asked.kernelParams[0] == d && *(unsigned *)asked.kernelParams[1] == 1);
	OK(cuGraphInstantiateWithFlags(&x, g, 0));
	OK(cuGraphLaunch(x, s));
	OK(cuStreamSynchronize(s));
	CHECK(word(d) == 1);
	p = asked;
	params[0] = &e;
	v = 2;
	p.kernelParams = params;
	OK(cuGraphExecKernelNodeSetParams_v2(x, node, &p));
	OK(cuGraphLaunch(x, s));
	OK(cuStreamSynchronize(s));
	CHECK(word(d) == 1 && word(e) == 2);
	OK(cuGraphKernelNodeGetParams_v2(node, &asked));	/* the graph's is as it was */
	CHECK(*(CUdeviceptr *)asked.kernelParams[0] == d);
}

static void unmap_under_a_graphs_kernel(void)
{
	unsigned v = 1, n = 1;
	CUdeviceptr d;
	void *params[] = { &d, &v, &n };
	CUDA_KERNEL_NODE_PARAMS_v2 p = { NULL, 1, 1, 1, 32, 1, 1, 0, params, NULL, NULL, NULL };
	CUgraphNode node;
	CUgraphExec x;
	CUgraph g;

	begin();
	d = mapped(G);
	p.func = function("fill");
	OK(cuGraphCreate(&g, 0));
	OK(cuGraphAddKernelNode_v2(&node, g, NULL, 0, &p));
	OK(cuGraphInstantiateWithFlags(&x, g, 0));
	close_gate(NULL);
	OK(cuGraphLaunch(x, NULL));
	IS(cuMemUnmap(d, G), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
	open_gate();
}

static const struct test_case cases[] = {
	{ "runs", runs, NULL },
	{ "parameters_are_known", parameters_are_known, NULL },
	{ "launched_in_every_way", launched_in_every_way, NULL },
	{ "parameters_are_copied", parameters_are_copied, NULL },
	{ "one_kernel_fails_not_its_module", one_kernel_fails_not_its_module, NULL },
	{ "an_illegal_access_names_both", an_illegal_access_names_both, NULL },
	{ "pageable_memory_is_out_of_reach", pageable_memory_is_out_of_reach, NULL },
	{ "pinned_memory_is_in_reach", pinned_memory_is_in_reach, NULL },
	{ "host_memory_by_option", host_memory_by_option, "EMU_HOST_ACCESS=1" },
	{ "the_other_device", the_other_device, "EMU_DEVICES=2" },
	{ "unmap_under_a_parameter", unmap_under_a_parameter, NULL },
	{ "unmap_beside_a_parameter", unmap_beside_a_parameter, NULL },
	{ "unmap_elsewhere", unmap_elsewhere, NULL },
	{ "unmap_elsewhere_refused", unmap_elsewhere_refused, "EMU_REACH=any" },
	{ "unmap_under_a_struct", unmap_under_a_struct, NULL },
	{ "unmap_under_a_table", unmap_under_a_table, NULL },
	{ "unmap_under_a_variable", unmap_under_a_variable, NULL },
	{ "kernels_of_graphs", kernels_of_graphs, NULL },
	{ "unmap_under_a_graphs_kernel", unmap_under_a_graphs_kernel, NULL },
};

MAIN(cases)
