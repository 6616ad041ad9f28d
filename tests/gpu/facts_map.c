/* SPDX-License-Identifier: MIT */
/* facts_map.c - questions about handles, addresses and what is mapped there.
 *
 * Owns nothing that outlives a question; lock: none.
 */
#include "tests/gpu/facts.h"

#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* ---- handles and addresses ------------------------------------------------------- */

size_t extent(void)
{
	size_t at_least = card.emulated ? 1 : 2 * MB;

	if (!card.granularity)
		unknown("the driver has no granularity for handles");
	return card.granularity > at_least ? card.granularity : at_least;
}

static CUmemAllocationProp kind_of(CUmemLocationType type, int id)
{
	return (CUmemAllocationProp){
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { type, id },
	};
}

static int host_node(void)
{
	int node = attribute(CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID);

	return node < 0 ? 0 : node;
}

CUresult handle_new(bool host, size_t len, CUmemGenericAllocationHandle *h)
{
	CUmemAllocationProp p = host ? kind_of(CU_MEM_LOCATION_TYPE_HOST_NUMA, host_node()) :
				kind_of(CU_MEM_LOCATION_TYPE_DEVICE, card.device);

	return drv.cuMemCreate ? drv.cuMemCreate(h, len, &p, 0) : CUDA_ERROR_NOT_SUPPORTED;
}

CUdeviceptr addresses(size_t len)
{
	CUdeviceptr at;

	need(cuMemAddressReserve, &at, len, 0, 0, 0);
	return at;
}

CUresult map_at(CUdeviceptr at, size_t len, CUmemGenericAllocationHandle h)
{
	return drv.cuMemMap(at, len, 0, h, 0);
}

CUresult access_at(CUdeviceptr at, size_t len)
{
	CUmemAccessDesc d = { { CU_MEM_LOCATION_TYPE_DEVICE, card.device },
			      CU_MEM_ACCESS_FLAGS_PROT_READWRITE };

	return drv.cuMemSetAccess(at, len, &d, 1);
}

void put_at(CUdeviceptr at, size_t len, CUmemGenericAllocationHandle h)
{
	need(cuMemMap, at, len, 0, h, 0);
	if (access_at(at, len) != CUDA_SUCCESS)
		unknown("cuMemSetAccess refuses what cuMemMap took");
}

static CUmemGenericAllocationHandle handle(bool host, size_t len)
{
	CUmemGenericAllocationHandle h;
	CUresult r = handle_new(host, len, &h);

	if (r != CUDA_SUCCESS)
		unknown("cuMemCreate of %s memory: %s", host ? "host" : "device",
			error_name(r));
	return h;
}

/* A new handle there, full of first, first + 1, ... */
static CUmemGenericAllocationHandle filled(bool host, CUdeviceptr at, size_t len,
					   uint64_t first)
{
	CUmemGenericAllocationHandle h = handle(host, len);

	put_at(at, len, h);
	if (queue_fill(card.stream, at, len, first) != CUDA_SUCCESS)
		unknown("a kernel that fills it cannot be launched");
	need(cuStreamSynchronize, card.stream);
	return h;
}

/* ---- homes ----------------------------------------------------------------------- */

void ask_host_handles(uint64_t arg)
{
	static const struct { CUmemLocationType type; const char *name; } kinds[] = {
		{ CU_MEM_LOCATION_TYPE_HOST, "host" },
		{ CU_MEM_LOCATION_TYPE_HOST_NUMA, "host-numa" },
		{ CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT, "host-numa-current" },
	};
	size_t len = extent();

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		CUmemAllocationProp p = kind_of(kinds[i].type,
						i == 1 ? host_node() : 0);
		CUmemGenericAllocationHandle h;
		CUresult r = drv.cuMemCreate(&h, len, &p, 0);

		if (r == CUDA_SUCCESS)
			drv.cuMemRelease(h);
		say("%s%s: %s", i ? ", " : "", kinds[i].name,
		    r == CUDA_SUCCESS ? "yes" : error_name(r));
	}
}

void ask_mixed(uint64_t arg)
{
	size_t len = extent();
	CUdeviceptr at = addresses(4 * len);

	for (size_t i = 0; i < 4; i++)
		filled(i % 2 ? ON_HOST : !ON_HOST, at + i * len, len, i * len / 8);
	say_sum(at, 4 * len, sum_should(4 * len, 0));
}

void ask_alias(uint64_t arg)
{
	size_t len = extent();
	CUdeviceptr a = addresses(len), b = addresses(len);
	CUmemGenericAllocationHandle h = filled(!ON_HOST, a, len, 7);

	put_at(b, len, h);
	say("device: read at the second ");
	say_sum(b, len, sum_should(len, 7));
	if (queue_fill(card.stream, b, len, 9) != CUDA_SUCCESS)
		unknown("a write at the second address cannot be launched");
	need(cuStreamSynchronize, card.stream);
	say(", written at the second and read at the first ");
	say_sum(a, len, sum_should(len, 9));
}

void ask_views(uint64_t arg)
{
	size_t len = extent();
	CUdeviceptr a = addresses(3 * len), b = addresses(3 * len);
	CUmemGenericAllocationHandle h[3], other;

	h[0] = filled(!ON_HOST, a, len, 0);
	h[1] = filled(ON_HOST, a + len, len, len / 8);
	h[2] = filled(!ON_HOST, a + 2 * len, len, 2 * len / 8);
	for (size_t i = 0; i < 3; i += 2)
		put_at(b + i * len, len, h[i]);
	other = filled(!ON_HOST, b + len, len, len / 8);
	say("home ");
	say_sum(a, 3 * len, sum_should(3 * len, 0));
	say(", view with a copy in the middle ");
	say_sum(b, 3 * len, sum_should(3 * len, 0));
	need(cuMemUnmap, b + len, len);
	need(cuMemRelease, other);
	put_at(b + len, len, h[1]);
	say(", with the host home in it ");
	say_sum(b, 3 * len, sum_should(3 * len, 0));
}

/* One handle at two addresses, of which the second may only be read. */
void ask_read_only(uint64_t host)
{
	size_t len = extent();
	CUdeviceptr a = addresses(len), b = addresses(len);
	CUmemGenericAllocationHandle h = filled(host, a, len, 7);
	CUmemAccessDesc d = { { CU_MEM_LOCATION_TYPE_DEVICE, card.device },
			      CU_MEM_ACCESS_FLAGS_PROT_READ };
	CUresult r;

	need(cuMemMap, b, len, 0, h, 0);
	r = drv.cuMemSetAccess(b, len, &d, 1);
	say("cuMemSetAccess: %s", r == CUDA_SUCCESS ? "granted" : error_name(r));
	if (r != CUDA_SUCCESS)
		return;
	say(", read ");
	say_sum(b, len, sum_should(len, 7));
	say(", the other: read ");
	say_sum(a, len, sum_should(len, 7));
	r = queue_fill(card.stream, a, len, 9);
	r = r == CUDA_SUCCESS ? drv.cuStreamSynchronize(card.stream) : r;
	say(", written: %s", r == CUDA_SUCCESS ? "yes" : error_name(r));
	r = queue_fill(card.stream, b, len, 11);
	r = r == CUDA_SUCCESS ? drv.cuStreamSynchronize(card.stream) : r;
	say(", a kernel that writes where it may not: %s", r == CUDA_SUCCESS ?
	    "it is not stopped" : error_name(r));
}

void ask_hint(uint64_t arg)
{
	static const uint64_t sizes[] = { 2 * MB, 32 * MB, 256 * MB };
	static const uint64_t away[] = { 0, 1, 4, 32 };	/* times the size, further on */
	CUdeviceptr first = 0x5b3d80000000ull, at;

	for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++, first += 64ull << 30) {
		say("%s%llu MB:", k ? "; " : "", (unsigned long long)(sizes[k] / MB));
		for (size_t i = 0; i < sizeof(away) / sizeof(away[0]); i++) {
			CUdeviceptr to = first + away[i] * sizes[k];

			need(cuMemAddressReserve, &at, sizes[k], 0, to, 0);
			say("%s %s", i ? "," : "", at == to ? "there" : "elsewhere");
		}
	}
}

void ask_part(uint64_t arg)
{
	size_t len = extent();
	CUdeviceptr a = addresses(2 * len), b = addresses(len);
	CUmemGenericAllocationHandle h = filled(!ON_HOST, a, 2 * len, 7);
	CUresult r = map_at(b, len, h);

	r = r == CUDA_SUCCESS ? access_at(b, len) : r;
	say("%s", r == CUDA_SUCCESS ? "granted, read " : error_name(r));
	if (r == CUDA_SUCCESS)
		say_sum(b, len, sum_should(len, 7));
}

static sigjmp_buf back;

static void segv(int sig)
{
	siglongjmp(back, sig);
}

/* "yes", or what happens. */
static const char *touched(const volatile uint64_t *p, uint64_t want)
{
	struct sigaction a = { .sa_handler = segv };
	volatile const char *answer = "SIGSEGV";

	sigaction(SIGSEGV, &a, NULL);
	sigaction(SIGBUS, &a, NULL);
	if (!sigsetjmp(back, 1))
		answer = *p == want ? "yes" : "other bytes";
	return (const char *)answer;
}

void ask_host_touches(uint64_t arg)
{
	size_t len = extent();
	CUdeviceptr at = addresses(len);
	CUmemAccessDesc d = { { CU_MEM_LOCATION_TYPE_HOST_NUMA, host_node() },
			      CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUresult r;

	filled(ON_HOST, at, len, 5);
	say("as it is mapped: %s", touched((void *)(uintptr_t)at, 5));
	r = drv.cuMemSetAccess(at, len, &d, 1);
	say(", with access for the host: %s", r != CUDA_SUCCESS ? error_name(r) :
	    touched((void *)(uintptr_t)at, 5));
}

/* ---- while kernels run ----------------------------------------------------------- */

void ask_unmap_drains(uint64_t arg)
{
	size_t len = extent();
	CUdeviceptr at = addresses(len);
	double from;
	CUresult r;

	filled(!ON_HOST, at, len, 1);
	hold(card.stream, at);
	from = now_us();
	r = drv.cuMemUnmap(at, len);
	if (r != CUDA_SUCCESS) {
		say("refused: %s", error_name(r));
		let_go();
		return;
	}
	say(drv.cuStreamQuery(card.stream) == CUDA_ERROR_NOT_READY ?
	    "no, it is back after %.0f us" : "yes, it is back after %.0f us", now_us() - from);
	let_go();
	r = drv.cuStreamSynchronize(card.stream);
	say(", the kernel then: %s", r == CUDA_SUCCESS ? "no error" : error_name(r));
}

struct remap {
	CUdeviceptr at;
	size_t len;
	CUmemGenericAllocationHandle h;
	CUresult err;
};

static void remap(void *arg)
{
	struct remap *m = arg;

	m->err = drv.cuMemUnmap(m->at, m->len);
	if (m->err == CUDA_SUCCESS)
		m->err = map_at(m->at, m->len, m->h);
	if (m->err == CUDA_SUCCESS)
		m->err = access_at(m->at, m->len);
}

/* The kernel's argument is in the first extent, the second is remapped. */
void ask_remap_beside(uint64_t arg)
{
	size_t len = extent();
	struct remap m = { addresses(2 * len) + len, len, 0, 0 };
	double from, idle, busy;
	bool late;

	filled(!ON_HOST, m.at - len, len, 1);
	m.h = filled(!ON_HOST, m.at, len, 2);
	from = now_us();
	remap(&m);
	idle = now_us() - from;
	late = waited(remap, &m, &busy);
	if (m.err != CUDA_SUCCESS)
		unknown("it is refused: %s", error_name(m.err));
	say("%s: %.0f us, idle %.0f us, then ", late ? "waits for the kernel" : "does not wait",
	    busy, idle);
	say_sum(m.at, len, sum_should(len, 2));
}

/* ---- graphs ---------------------------------------------------------------------- */

void ask_graph(uint64_t arg)
{
	size_t len = extent();
	CUdeviceptr at = addresses(len);
	CUgraph g;
	CUgraphExec exec;
	uint64_t sum = 0;

	filled(!ON_HOST, at, len, 1);
	need(cuStreamBeginCapture_v2, card.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
	if (queue_sum(card.stream, at, len) != CUDA_SUCCESS)
		unknown("a kernel cannot be captured");
	need(cuStreamEndCapture, card.stream, &g);
	need(cuGraphInstantiate_v2, &exec, g, NULL, NULL, 0);
	need(cuGraphLaunch, exec, card.stream);
	need(cuStreamSynchronize, card.stream);
	for (int host = 0; host < 2; host++) {
		CUresult r;

		need(cuMemUnmap, at, len);
		if (host) {
			CUmemGenericAllocationHandle h;

			if (handle_new(ON_HOST, len, &h) != CUDA_SUCCESS) {
				say(", there is no host home");
				return;
			}
			drv.cuMemRelease(h);
		}
		filled(host ? ON_HOST : !ON_HOST, at, len, 1000 + (unsigned int)host);
		need(cuMemsetD8_v2, card.out, 0, 8);
		need(cuCtxSynchronize);
		r = drv.cuGraphLaunch(exec, card.stream);
		if (r == CUDA_SUCCESS)
			r = drv.cuStreamSynchronize(card.stream);
		if (r == CUDA_SUCCESS)
			r = drv.cuMemcpyDtoH_v2(&sum, card.out, 8);
		say("%s%s: %s", host ? ", " : "", host ? "host home" : "device home",
		    r != CUDA_SUCCESS ? error_name(r) :
		    sum == sum_should(len, 1000 + (unsigned int)host) ? "right" : "wrong bytes");
	}
}

/* ---- copies ---------------------------------------------------------------------- */

static uint64_t *copy_from, *copy_to;

static CUresult copy_in(CUdeviceptr at, size_t n)
{
	return drv.cuMemcpyHtoD_v2(at, copy_from, n);
}

static CUresult copy_in_async(CUdeviceptr at, size_t n)
{
	CUresult r = drv.cuMemcpyHtoDAsync_v2(at, copy_from, n, card.stream);

	return r != CUDA_SUCCESS ? r : drv.cuStreamSynchronize(card.stream);
}

static CUresult copy_2d(CUdeviceptr at, size_t n)
{
	CUDA_MEMCPY2D c = {
		.srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = copy_from, .srcPitch = 4096,
		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = at, .dstPitch = 4096,
		.WidthInBytes = 4096, .Height = n / 4096,
	};

	return drv.cuMemcpy2D_v2(&c);
}

static CUresult copy_generic(CUdeviceptr at, size_t n)
{
	return drv.cuMemcpy(at, (uintptr_t)copy_from, n);
}

static CUresult copy_device(CUdeviceptr at, size_t n)
{
	CUdeviceptr tmp;
	CUresult r = drv.cuMemAlloc_v2(&tmp, n);

	if (r == CUDA_SUCCESS)
		r = drv.cuMemcpyHtoD_v2(tmp, copy_from, n);
	if (r == CUDA_SUCCESS)
		r = drv.cuMemcpyDtoD_v2(at, tmp, n);
	if (r == CUDA_SUCCESS)
		r = drv.cuCtxSynchronize();
	return r;
}

/* Half of what is copied lies on each side of the border. */
void ask_copy_mixed(uint64_t arg)
{
	static const struct { const char *name; CUresult (*copy)(CUdeviceptr, size_t); } ways[] = {
		{ "in", copy_in }, { "in, asynchronous", copy_in_async },
		{ "in, 2D", copy_2d }, { "cuMemcpy", copy_generic },
		{ "in, from device memory", copy_device },
	};
	size_t len = extent(), n = len < 65536 ? len : 65536;
	CUdeviceptr at = addresses(2 * len), from = at + len - n / 2;

	filled(!ON_HOST, at, len, 0);
	filled(ON_HOST, at + len, len, 0);
	need(cuMemHostAlloc, (void **)&copy_from, n, 0);
	need(cuMemHostAlloc, (void **)&copy_to, n, 0);
	for (size_t k = 0; k < sizeof(ways) / sizeof(ways[0]); k++) {
		CUresult r;

		for (size_t i = 0; i < n / 8; i++)
			copy_from[i] = i * 3 + k;
		memset(copy_to, 0xee, n);
		r = ways[k].copy(from, n);
		say("%s%s: ", k ? "; " : "", ways[k].name);
		if (r == CUDA_SUCCESS)
			r = drv.cuMemcpyDtoH_v2(copy_to, from, n);
		say("%s", r != CUDA_SUCCESS ? error_name(r) :
		    memcmp(copy_from, copy_to, n) ? "wrong bytes" : "right");
	}
}

/* ---- rules ----------------------------------------------------------------------- */

void ask_rule(uint64_t arg)
{
	size_t len = extent();
	CUdeviceptr at = addresses(4 * len);
	CUmemGenericAllocationHandle h = filled(!ON_HOST, at, 2 * len, 0);
	uint64_t word;
	CUresult r = CUDA_SUCCESS;

	switch (arg) {
	case 0:	r = drv.cuMemcpyDtoH_v2(&word, at + 3 * len, 8); break;
	case 1:	r = drv.cuMemMap(at + 2 * len, len, len, h, 0); break;
	case 2:	r = drv.cuMemMap(at, 2 * len, 0, h, 0); break;
	case 3:	r = drv.cuMemUnmap(at, len); break;
	case 4:	r = sum_of(at + 3 * len, 4096, &word); break;
	}
	say("%s", r == CUDA_SUCCESS ? "taken" : error_name(r));
	r = drv.cuCtxSynchronize();
	say(r == CUDA_SUCCESS ? ", the context goes on" : ", the context is lost: %s",
	    error_name(r));
}

void ask_range(uint64_t arg)
{
	size_t len = extent(), size = 0;
	CUdeviceptr at = addresses(3 * len), base = 0;
	unsigned int type = 0;
	CUresult r;

	filled(!ON_HOST, at, len, 0);
	filled(!ON_HOST, at + len, len, 0);
	r = drv.cuMemGetAddressRange_v2(&base, &size, at + len + 8);
	if (r != CUDA_SUCCESS)
		say("%s", error_name(r));
	else
		say("from %s, %s", base == at ? "the reservation" : base == at + len ?
		    "its mapping" : "elsewhere", size == len ? "one extent" :
		    size == 2 * len ? "what is mapped" : size == 3 * len ? "all of it" :
		    "another length");
	r = drv.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at + len);
	say("; memory type %s", r != CUDA_SUCCESS ? error_name(r) :
	    type == CU_MEMORYTYPE_DEVICE ? "device" : type == CU_MEMORYTYPE_HOST ? "host" :
	    "another");
}

void ask_small(uint64_t arg)
{
	CUdeviceptr p[8];
	long long least = -1;

	for (size_t i = 0; i < 8; i++) {
		need(cuMemAlloc_v2, &p[i], 1);
		for (size_t k = 0; k < i; k++) {
			long long d = llabs((long long)(p[i] - p[k]));

			if (least < 0 || d < least)
				least = d;
		}
	}
	say("%lld bytes apart, the first at a multiple of %llu", least,
	    (unsigned long long)(p[0] & -p[0]));
}
