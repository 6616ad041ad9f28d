/* SPDX-License-Identifier: MIT */
/* test_vmm.c - mapping and its rules: E1, E2, E3, E5, E6, E12, E14. */
#include "tests/emu/test.h"

static void maps_whole_handles(void)
{
	CUmemGenericAllocationHandle h;
	CUdeviceptr at;

	setup();
	h = handle(2 * G);
	OK(cuMemAddressReserve(&at, 4 * G, 0, 0, 0));
	IS(cuMemMap(at, 2 * G, G, h, 0), CUDA_ERROR_NOT_SUPPORTED);	/* an offset */
	IS(cuMemMap(at, G, 0, h, 0), CUDA_ERROR_NOT_SUPPORTED);	/* a part */
	IS(cuMemMap(at + 4096, 2 * G, 0, h, 0), CUDA_ERROR_INVALID_VALUE);
	IS(cuMemMap(at + 3 * G, 2 * G, 0, h, 0), CUDA_ERROR_INVALID_VALUE);	/* beyond */
	OK(cuMemMap(at, 2 * G, 0, h, 0));
	IS(cuMemMap(at + G, 2 * G, 0, h, 0), CUDA_ERROR_INVALID_VALUE);	/* taken */
	IS(cuMemUnmap(at, G), CUDA_ERROR_INVALID_VALUE);		/* a part */
	IS(cuMemUnmap(at, 3 * G), CUDA_ERROR_INVALID_VALUE);		/* and a hole */
	IS(cuMemAddressFree(at, 4 * G), CUDA_ERROR_INVALID_VALUE);	/* in use */
	OK(cuMemUnmap(at, 2 * G));
	IS(cuMemUnmap(at, 2 * G), CUDA_ERROR_INVALID_VALUE);
	IS(cuMemAddressFree(at, 2 * G), CUDA_ERROR_INVALID_VALUE);
	OK(cuMemAddressFree(at, 4 * G));
	OK(cuMemRelease(h));
	IS(cuMemRelease(h), CUDA_ERROR_INVALID_VALUE);
	IS(cuMemCreate(&h, G + 4096, &(CUmemAllocationProp){ 0 }, 0), CUDA_ERROR_INVALID_VALUE);
}

static void access_is_granted(void)
{
	CUmemGenericAllocationHandle h;
	CUmemAccessDesc d = { { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
			      CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUdeviceptr at;
	unsigned long long flags = 9;

	setup();
	h = handle(G);
	OK(cuMemAddressReserve(&at, 2 * G, 0, 0, 0));
	IS(cuMemSetAccess(at, G, &d, 1), CUDA_ERROR_INVALID_VALUE);	/* nothing there */
	OK(cuMemMap(at, G, 0, h, 0));
	IS(cuMemsetD8_v2(at, 1, G), CUDA_ERROR_INVALID_VALUE);	/* not yet */
	OK(cuMemGetAccess(&flags, &d.location, at));
	CHECK(flags == 0);
	IS(cuMemSetAccess(at, 2 * G, &d, 1), CUDA_ERROR_INVALID_VALUE);	/* a hole */
	OK(cuMemSetAccess(at, G, &d, 1));
	OK(cuMemGetAccess(&flags, &d.location, at));
	CHECK(flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	OK(cuMemsetD8_v2(at, 1, G));
	OK(cuCtxSynchronize());
	OK(cuMemUnmap(at, G));
	OK(cuMemMap(at, G, 0, h, 0));	/* access went with the mapping */
	IS(cuMemsetD8_v2(at, 1, G), CUDA_ERROR_INVALID_VALUE);
}

static void read_only_is_not_written(void)
{
	CUdeviceptr at;

	setup();
	at = mapped(G);
	allow(at, G, 0, CU_MEM_ACCESS_FLAGS_PROT_READ);
	OK(cuMemsetD8_v2(at, 1, 16));
	IS(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E3");
	IS(cuMemsetD8_v2(at, 1, 16), CUDA_ERROR_ILLEGAL_ADDRESS);	/* sticky: E4 */
}

static void one_handle_at_two_addresses(void)
{
	CUmemGenericAllocationHandle h;
	CUdeviceptr a, b;
	char out[2];

	setup();
	h = handle(G);
	OK(cuMemAddressReserve(&a, G, 0, 0, 0));
	OK(cuMemAddressReserve(&b, G, 0, 0, 0));
	OK(cuMemMap(a, G, 0, h, 0));
	OK(cuMemMap(b, G, 0, h, 0));
	OK(cuMemRelease(h));
	allow(a, G, 0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	allow(b, G, 0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	OK(cuMemcpyHtoD_v2(a + 5, "xy", 2));
	OK(cuMemcpyDtoH_v2(out, b + 5, 2));
	CHECK(!memcmp(out, "xy", 2));
	OK(cuMemUnmap(a, G));		/* the memory lives on */
	OK(cuMemcpyDtoH_v2(out, b + 5, 2));
	CHECK(!memcmp(out, "xy", 2));
}

static void host_and_device_side_by_side(void)
{
	CUmemAllocationProp p = on_device(0);
	CUmemGenericAllocationHandle d, h;
	CUdeviceptr at;
	char out[2 * G];
	size_t before, after;

	setup();
	p.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA;
	d = handle(G);
	OK(cuMemGetInfo_v2(&before, NULL));
	OK(cuMemCreate(&h, G, &p, 0));
	OK(cuMemGetInfo_v2(&after, NULL));
	CHECK(before == after);		/* no device memory */
	OK(cuMemAddressReserve(&at, 2 * G, 0, 0, 0));
	OK(cuMemMap(at, G, 0, d, 0));
	OK(cuMemMap(at + G, G, 0, h, 0));
	allow(at, 2 * G, 0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	OK(cuMemsetD8_v2(at, 7, 2 * G));
	OK(cuMemcpyDtoH_v2(out, at, 2 * G));
	CHECK(out[0] == 7 && out[G - 1] == 7 && out[G] == 7 && out[2 * G - 1] == 7);
	p.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT;
	IS(cuMemCreate(&h, G, &p, 0), CUDA_ERROR_INVALID_VALUE);
}

static void mixing_refused(void)
{
	CUmemAllocationProp p = on_device(0);
	CUmemGenericAllocationHandle d, h;
	CUdeviceptr at;

	setup();
	p.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA;
	d = handle(G);
	OK(cuMemCreate(&h, G, &p, 0));
	OK(cuMemAddressReserve(&at, 2 * G, 0, 0, 0));
	OK(cuMemMap(at, G, 0, d, 0));
	IS(cuMemMap(at + G, G, 0, h, 0), CUDA_ERROR_INVALID_VALUE);
}

static void spanning_refused(void)
{
	CUmemAllocationProp p = on_device(0);
	CUmemGenericAllocationHandle d, h;
	char out[2 * G];
	CUdeviceptr at;

	setup();
	p.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA;
	d = handle(G);
	OK(cuMemCreate(&h, G, &p, 0));
	OK(cuMemAddressReserve(&at, 2 * G, 0, 0, 0));
	OK(cuMemMap(at, G, 0, d, 0));
	OK(cuMemMap(at + G, G, 0, h, 0));
	allow(at, 2 * G, 0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	IS(cuMemcpyDtoH_v2(out, at + G - 1, 2), CUDA_ERROR_INVALID_VALUE);
	IS(cuMemsetD8_v2(at + G - 1, 1, 2), CUDA_ERROR_INVALID_VALUE);
	OK(cuMemcpyDtoH_v2(out, at, G));
	OK(cuMemsetD8_v2(at + G, 1, G));
}

static void host_handles_refused(void)
{
	CUmemAllocationProp p = on_device(0);
	CUmemGenericAllocationHandle h;
	int can = 1;

	setup();
	OK(cuDeviceGetAttribute(&can,
		CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 0));
	CHECK(!can);
	p.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA;
	IS(cuMemCreate(&h, G, &p, 0), CUDA_ERROR_NOT_SUPPORTED);
}

/* E1: queued, delayed, unmapped too early; after a wait it is right. */
static void unmap_under_a_copy(void)
{
	CUdeviceptr at, to;

	setup();
	at = mapped(G);
	OK(cuMemAlloc_v2(&to, G));
	close_gate(NULL);
	OK(cuMemcpyDtoDAsync_v2(to, at, G, NULL));
	IS(cuMemUnmap(at, G), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
	open_gate();
	IS(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
	IS(cuMemAlloc_v2(&to, G), CUDA_ERROR_ILLEGAL_ADDRESS);
}

static void unmap_after_a_wait(void)
{
	CUdeviceptr at, to;
	CUstream s;

	setup();
	at = mapped(2 * G);
	OK(cuMemAlloc_v2(&to, G));
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	OK(cuMemcpyDtoDAsync_v2(to, at, G, s));
	OK(cuStreamSynchronize(s));
	OK(cuMemUnmap(at, 2 * G));
	OK(cuCtxSynchronize());
}

/* What cannot be reached may go while something else runs. */
static void unmap_beside_a_copy(void)
{
	CUdeviceptr at, other, to;

	setup();
	at = mapped(G);
	other = mapped(G);
	OK(cuMemAlloc_v2(&to, G));
	close_gate(NULL);
	OK(cuMemcpyDtoDAsync_v2(to, at, G, NULL));
	OK(cuMemUnmap(other, G));
	open_gate();
	OK(cuCtxSynchronize());
}

static void revoke_under_a_memset(void)
{
	CUmemAccessDesc d = { { CU_MEM_LOCATION_TYPE_DEVICE, 0 }, CU_MEM_ACCESS_FLAGS_PROT_READ };
	CUdeviceptr at;

	setup();
	at = mapped(G);
	close_gate(NULL);
	OK(cuMemsetD8Async(at, 1, G, NULL));
	IS(cuMemSetAccess(at, G, &d, 1), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
}

static void capacity_is_exact(void)
{
	CUmemAllocationProp p = on_device(0);
	CUmemGenericAllocationHandle h[17];
	CUdeviceptr at;
	size_t left, total;

	setup();
	for (int i = 0; i < 16; i++)
		h[i] = handle(16 * G);
	IS(cuMemCreate(&h[16], G, &p, 0), CUDA_ERROR_OUT_OF_MEMORY);
	IS(cuMemAlloc_v2(&at, 1), CUDA_ERROR_OUT_OF_MEMORY);
	OK(cuMemGetInfo_v2(&left, &total));
	CHECK(left == 0 && total == 16u << 20);
	OK(cuMemRelease(h[3]));
	OK(cuMemAlloc_v2(&at, 16 * G));
	IS(cuMemAlloc_v2(&at, 1), CUDA_ERROR_OUT_OF_MEMORY);
	OK(cuMemFree_v2(at));
	OK(cuMemGetInfo_v2(&left, NULL));
	CHECK(left == 16 * G);
}

static void host_touches_device_memory(void)
{
	CUdeviceptr at;
	pid_t pid;
	int status;

	setup();
	OK(cuMemAlloc_v2(&at, G));
	pid = fork();
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		_exit(*(volatile char *)at);
	}
	waitpid(pid, &status, 0);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void fresh_memory_is_junk(void)
{
	CUdeviceptr at;
	unsigned char out[16];

	setup();
	for (int i = 0; i < 2; i++) {
		OK(cuMemAlloc_v2(&at, G));
		OK(cuMemcpyDtoH_v2(out, at + G - 16, 16));
		CHECK(out[0] && out[0] != 0x11);
		OK(cuMemsetD8_v2(at, 0x11, G));
		OK(cuMemFree_v2(at));
	}
}

static void overrun_is_illegal(void)
{
	CUdeviceptr a, b;

	setup();
	OK(cuMemAlloc_v2(&a, G));
	OK(cuMemAlloc_v2(&b, G));
	IS(cuMemsetD8_v2(a, 0, G + 4096), CUDA_ERROR_INVALID_VALUE);
	OK(cuMemFree_v2(b));
	IS(cuMemsetD8_v2(b, 0, 1), CUDA_ERROR_INVALID_VALUE);
	IS(cuMemFree_v2(b), CUDA_ERROR_INVALID_VALUE);
}

static const struct test_case cases[] = {
	{ "maps_whole_handles", maps_whole_handles, NULL },
	{ "access_is_granted", access_is_granted, NULL },
	{ "read_only_is_not_written", read_only_is_not_written, NULL },
	{ "one_handle_at_two_addresses", one_handle_at_two_addresses, NULL },
	{ "host_and_device_side_by_side", host_and_device_side_by_side, NULL },
	{ "mixing_refused", mixing_refused, "EMU_MIX=0" },
	{ "spanning_refused", spanning_refused, "EMU_SPAN=0" },
	{ "host_handles_refused", host_handles_refused, "EMU_HOST_VMM=0" },
	{ "unmap_under_a_copy", unmap_under_a_copy, NULL },
	{ "unmap_after_a_wait", unmap_after_a_wait, "EMU_DELAY_US=20000" },
	{ "unmap_beside_a_copy", unmap_beside_a_copy, NULL },
	{ "revoke_under_a_memset", revoke_under_a_memset, NULL },
	{ "capacity_is_exact", capacity_is_exact, NULL },
	{ "host_touches_device_memory", host_touches_device_memory, NULL },
	{ "fresh_memory_is_junk", fresh_memory_is_junk, NULL },
	{ "overrun_is_illegal", overrun_is_illegal, NULL },
};

MAIN(cases)
