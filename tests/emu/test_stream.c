/* SPDX-License-Identifier: MIT */
/* test_stream.c - order, events, default streams and host memory: E1, E7, E8, E12. */
#include "tests/emu/test.h"

#include <pthread.h>

#define N	16384u

static int order[64];
static _Atomic int norder;

static void note(void *what)
{
	order[norder++] = (int)(intptr_t)what;
}

static void says(CUstream s, int what)
{
	OK(cuLaunchHostFunc(s, note, (void *)(intptr_t)what));
}

static CUstream stream(unsigned flags)
{
	CUstream s;

	OK(cuStreamCreate(&s, flags));
	return s;
}

/* ---- order ------------------------------------------------------------------------ */

static void a_stream_keeps_its_order(void)
{
	CUstream s;

	setup();
	s = stream(CU_STREAM_NON_BLOCKING);
	for (int i = 0; i < 50; i++)
		says(s, i);
	OK(cuStreamSynchronize(s));
	CHECK(norder == 50);
	for (int i = 0; i < 50; i++)
		CHECK(order[i] == i);
}

static void streams_run_by_themselves(void)
{
	CUstream a, b;

	setup();
	a = stream(CU_STREAM_NON_BLOCKING);
	b = stream(CU_STREAM_NON_BLOCKING);
	close_gate(a);
	says(a, 1);
	says(b, 2);
	OK(cuStreamSynchronize(b));
	CHECK(norder == 1 && order[0] == 2);
	IS(cuStreamQuery(a), CUDA_ERROR_NOT_READY);
	IS(cuStreamQuery(NULL), CUDA_SUCCESS);	/* they are non-blocking */
	open_gate();
	OK(cuCtxSynchronize());
	OK(cuStreamQuery(a));
	CHECK(norder == 2);
}

static void an_event_orders(void)
{
	CUstream a, b;
	CUevent e;

	setup();
	a = stream(CU_STREAM_NON_BLOCKING);
	b = stream(CU_STREAM_NON_BLOCKING);
	OK(cuEventCreate(&e, 0));
	OK(cuEventQuery(e));			/* never recorded */
	close_gate(a);
	says(a, 1);
	OK(cuEventRecord(e, a));
	OK(cuStreamWaitEvent(b, e, 0));
	says(b, 2);
	IS(cuEventQuery(e), CUDA_ERROR_NOT_READY);
	IS(cuStreamQuery(b), CUDA_ERROR_NOT_READY);
	open_gate();
	OK(cuEventSynchronize(e));
	CHECK(order[0] == 1);
	OK(cuStreamSynchronize(b));
	CHECK(norder == 2 && order[1] == 2);
	OK(cuEventDestroy_v2(e));
	IS(cuEventQuery(e), CUDA_ERROR_INVALID_HANDLE);
}

static void the_legacy_stream_is_a_barrier(void)
{
	CUstream a, b, free_one;

	setup();
	a = stream(0);
	b = stream(0);
	free_one = stream(CU_STREAM_NON_BLOCKING);
	close_gate(a);
	says(a, 1);
	says(NULL, 2);		/* behind a */
	says(b, 3);		/* behind the legacy stream */
	says(free_one, 4);	/* behind nothing */
	OK(cuStreamSynchronize(free_one));
	CHECK(norder == 1 && order[0] == 4);
	open_gate();
	OK(cuStreamSynchronize(b));
	CHECK(norder == 4 && order[1] == 1 && order[2] == 2 && order[3] == 3);
}

static void *second_thread(void *c)
{
	OK(cuCtxSetCurrent(c));
	says(CU_STREAM_PER_THREAD, 2);
	OK(cuLaunchHostFunc_ptsz(NULL, note, (void *)3));
	OK(cuStreamSynchronize_ptsz(NULL));
	return NULL;
}

static void each_thread_has_a_default_stream(void)
{
	CUcontext c = setup();
	pthread_t t;

	close_gate(CU_STREAM_PER_THREAD);
	says(CU_STREAM_PER_THREAD, 1);
	CHECK(!pthread_create(&t, NULL, second_thread, c));
	pthread_join(t, NULL);
	CHECK(norder == 2 && order[0] == 2 && order[1] == 3);
	open_gate();
	OK(cuStreamSynchronize_ptsz(NULL));
	CHECK(norder == 3 && order[2] == 1);
}

/* The same seeds give the same delays; another order comes up among a few. */
static void delays_reorder(void)
{
	CUstream a, b;
	int first = 0;

	setup();
	a = stream(CU_STREAM_NON_BLOCKING);
	b = stream(CU_STREAM_NON_BLOCKING);
	for (int i = 0; i < 20; i++) {
		norder = 0;
		says(a, 1);
		says(b, 2);
		OK(cuCtxSynchronize());
		first |= order[0];
	}
	CHECK(first == 3);
}

static void host_functions_call_nothing_body(void *out)
{
	*(CUresult *)out = cuCtxSynchronize();
}

static void host_functions_call_nothing(void)
{
	CUresult got = CUDA_SUCCESS;

	setup();
	OK(cuLaunchHostFunc(NULL, host_functions_call_nothing_body, &got));
	OK(cuCtxSynchronize());
	CHECK(got == CUDA_ERROR_NOT_PERMITTED);
}

static void elapsed(void)
{
	CUevent a, b, untimed;
	float ms = -1;

	setup();
	OK(cuEventCreate(&a, 0));
	OK(cuEventCreate(&b, 0));
	OK(cuEventCreate(&untimed, CU_EVENT_DISABLE_TIMING));
	IS(cuEventElapsedTime(&ms, a, b), CUDA_ERROR_INVALID_HANDLE);
	OK(cuEventRecord(a, NULL));
	close_gate(NULL);
	OK(cuEventRecord(b, NULL));
	OK(cuEventRecord(untimed, NULL));
	IS(cuEventElapsedTime(&ms, a, b), CUDA_ERROR_NOT_READY);
	open_gate();
	OK(cuCtxSynchronize());
	OK(cuEventElapsedTime(&ms, a, b));
	CHECK(ms >= 0);
	IS(cuEventElapsedTime(&ms, a, untimed), CUDA_ERROR_INVALID_HANDLE);
}

/* ---- host memory -------------------------------------------------------------------- */

static void pinned_memory_is_read_late(void)
{
	CUdeviceptr d;
	char *pinned, pageable[N], out[N];

	setup();
	OK(cuMemAlloc_v2(&d, 2 * N));
	OK(cuMemHostAlloc((void **)&pinned, N, 0));
	memset(pinned, 1, N);
	memset(pageable, 1, N);
	close_gate(NULL);
	OK(cuMemcpyHtoDAsync_v2(d, pinned, N, NULL));
	OK(cuMemcpyHtoDAsync_v2(d + N, pageable, N, NULL));
	memset(pinned, 2, N);
	memset(pageable, 2, N);
	open_gate();
	OK(cuMemcpyDtoH_v2(out, d, N));
	CHECK(out[0] == 2 && out[N - 1] == 2);	/* the program should have waited */
	OK(cuMemcpyDtoH_v2(out, d + N, N));
	CHECK(out[0] == 1 && out[N - 1] == 1);
}

static void *opens_later(void *unused)
{
	usleep(20000);
	open_gate();
	return NULL;
}

static void pageable_targets_are_waited_for(void)
{
	CUdeviceptr d;
	char out[N], *pinned;
	pthread_t t;

	setup();
	OK(cuMemAlloc_v2(&d, N));
	OK(cuMemHostAlloc((void **)&pinned, N, 0));
	OK(cuMemsetD8_v2(d, 5, N));
	close_gate(NULL);
	pinned[0] = 0;
	OK(cuMemcpyDtoHAsync_v2(pinned, d, N, NULL));
	CHECK(pinned[0] == 0);
	CHECK(!pthread_create(&t, NULL, opens_later, NULL));
	OK(cuMemcpyDtoHAsync_v2(out, d, N, NULL));
	CHECK(out[0] == 5 && out[N - 1] == 5);
	pthread_join(t, NULL);
}

static void copies_end_in_their_block(void)
{
	static char buf[4 * 4096] __attribute__((aligned(4096)));
	CUdeviceptr d;

	setup();
	OK(cuMemAlloc_v2(&d, sizeof(buf)));
	OK(cuMemHostRegister_v2(buf, 2 * 4096, 0));
	IS(cuMemHostRegister_v2(buf + 4096, 4096, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
	OK(cuMemHostRegister_v2(buf + 2 * 4096, 2 * 4096, 0));
	OK(cuMemcpyHtoD_v2(d, buf, 2 * 4096));
	IS(cuMemcpyHtoD_v2(d, buf, 3 * 4096), CUDA_ERROR_INVALID_VALUE);
	OK(cuMemHostUnregister(buf));
	IS(cuMemHostUnregister(buf), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

static void unregistered_under_a_copy(void)
{
	static char buf[4096] __attribute__((aligned(4096)));
	CUdeviceptr d;

	setup();
	OK(cuMemAlloc_v2(&d, sizeof(buf)));
	OK(cuMemHostRegister_v2(buf, sizeof(buf), 0));
	close_gate(NULL);
	OK(cuMemcpyHtoDAsync_v2(d, buf, sizeof(buf), NULL));
	IS(cuMemHostUnregister(buf), CUDA_ERROR_ILLEGAL_ADDRESS);
	BROKE("E1");
}

/* ---- copies of all shapes --------------------------------------------------------------- */

static void rows_and_layers(void)
{
	unsigned char in[4 * 8 * 16], out[4 * 8 * 16];
	CUDA_MEMCPY3D c = {
		.srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = in, .srcPitch = 16, .srcHeight = 8,
		.srcXInBytes = 3, .srcY = 1, .srcZ = 1,
		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstPitch = 32, .dstHeight = 8,
		.dstXInBytes = 5, .dstY = 2, .dstZ = 1,
		.WidthInBytes = 7, .Height = 4, .Depth = 2,
	};
	CUDA_MEMCPY2D back = {
		.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcPitch = 32, .srcXInBytes = 5,
		.srcY = 8 + 2, .dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = out, .dstPitch = 7,
		.WidthInBytes = 7, .Height = 4,
	};
	size_t pitch;

	setup();
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (unsigned char)(i * 7);
	OK(cuMemAllocPitch_v2(&c.dstDevice, &pitch, 100, 16, 4));
	CHECK(pitch == 512);
	OK(cuMemcpy3D_v2(&c));
	back.srcDevice = c.dstDevice;
	OK(cuMemcpy2D_v2(&back));
	for (unsigned r = 0; r < 4; r++)
		CHECK(!memcmp(out + 7 * r, in + ((1 * 8 + 1 + r) * 16) + 3, 7));
	back.WidthInBytes = 40;
	IS(cuMemcpy2D_v2(&back), CUDA_ERROR_INVALID_VALUE);	/* wider than the pitch */
}

static void memsets(void)
{
	unsigned out[8];
	CUdeviceptr d;

	setup();
	OK(cuMemAlloc_v2(&d, 4096));
	OK(cuMemsetD32_v2(d, 0xdeadbeef, 8));
	OK(cuMemsetD16_v2(d + 4, 0x1234, 2));
	OK(cuMemsetD2D8_v2(d + 8, 8, 0x55, 4, 2));
	IS(cuMemsetD32_v2(d + 2, 0, 1), CUDA_ERROR_INVALID_VALUE);
	OK(cuMemcpyDtoH_v2(out, d, sizeof(out)));
	CHECK(out[0] == 0xdeadbeef && out[1] == 0x12341234 && out[2] == 0x55555555 &&
	      out[3] == 0xdeadbeef && out[4] == 0x55555555 && out[5] == 0xdeadbeef);
}

static void batches(void)
{
	CUmemcpyAttributes attr = { .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM };
	CUdeviceptr dst[2], src[2], d;
	size_t sizes[2] = { 16, 32 }, index = 0;
	char in[48], out[48];
	CUstream s;

	setup();
	s = stream(0);
	memset(in, 9, sizeof(in));
	OK(cuMemAlloc_v2(&d, 4096));
	dst[0] = d;
	dst[1] = d + 16;
	src[0] = (CUdeviceptr)in;
	src[1] = (CUdeviceptr)in + 16;
	IS(cuMemcpyBatchAsync_v2(dst, src, sizes, 2, &attr, &index, 1, NULL),
	   CUDA_ERROR_INVALID_VALUE);
	OK(cuMemcpyBatchAsync_v2(dst, src, sizes, 2, &attr, &index, 1, s));
	OK(cuStreamSynchronize(s));
	OK(cuMemcpyDtoH_v2(out, d, sizeof(out)));
	CHECK(!memcmp(in, out, sizeof(in)));
}

static void a_free_waits(void)
{
	CUdeviceptr d;
	CUstream s;
	pthread_t t;

	setup();
	s = stream(CU_STREAM_NON_BLOCKING);
	OK(cuMemAlloc_v2(&d, 4096));
	close_gate(s);
	OK(cuMemsetD8Async(d, 1, 4096, s));
	says(s, 1);
	CHECK(!pthread_create(&t, NULL, opens_later, NULL));
	OK(cuMemFree_v2(d));
	CHECK(norder == 1);
	OK(cuCtxSynchronize());
	pthread_join(t, NULL);
}

static void values(void)
{
	CUdeviceptr d;
	CUstream a, b;

	setup();
	a = stream(CU_STREAM_NON_BLOCKING);
	b = stream(CU_STREAM_NON_BLOCKING);
	OK(cuMemAlloc_v2(&d, 4096));
	OK(cuMemsetD32_v2(d, 0, 1));
	OK(cuCtxSynchronize());
	OK(cuStreamWaitValue32_v2(a, d, 5, 0));
	says(a, 1);
	says(b, 2);
	OK(cuStreamWriteValue32_v2(b, d, 5, 0));
	OK(cuStreamSynchronize(a));
	CHECK(norder == 2 && order[0] == 2 && order[1] == 1);
}

static const struct test_case cases[] = {
	{ "a_stream_keeps_its_order", a_stream_keeps_its_order, "EMU_DELAY_US=200" },
	{ "streams_run_by_themselves", streams_run_by_themselves, NULL },
	{ "an_event_orders", an_event_orders, NULL },
	{ "the_legacy_stream_is_a_barrier", the_legacy_stream_is_a_barrier, NULL },
	{ "each_thread_has_a_default_stream", each_thread_has_a_default_stream, NULL },
	{ "delays_reorder", delays_reorder, "EMU_DELAY_US=2000" },
	{ "host_functions_call_nothing", host_functions_call_nothing, NULL },
	{ "elapsed", elapsed, NULL },
	{ "pinned_memory_is_read_late", pinned_memory_is_read_late, NULL },
	{ "pageable_targets_are_waited_for", pageable_targets_are_waited_for, NULL },
	{ "copies_end_in_their_block", copies_end_in_their_block, NULL },
	{ "unregistered_under_a_copy", unregistered_under_a_copy, NULL },
	{ "rows_and_layers", rows_and_layers, NULL },
	{ "memsets", memsets, NULL },
	{ "batches", batches, NULL },
	{ "a_free_waits", a_free_waits, NULL },
	{ "values", values, NULL },
};

MAIN(cases)
