/* SPDX-License-Identifier: MIT */
/* cudart.c - which of the driver's functions the CUDA runtime calls to allocate and launch.
 *
 * One line, and status 0 whatever it is. FACTS_CUDART: the runtime's file, if it is not
 * where the loader looks.
 *
 * (1) It is in the way of the runtime's look-ups by defining dlsym: a program's own
 *     definition comes first. What it hands out counts and passes on.
 * (2) What the runtime does to know its driver is not touched.
 * Owns the counts; lock: none, one thread.
 */
#include "interpose/cuda_abi.h"
#include "tests/gpu/facts_ptx.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALLOC(X) \
	X(cuMemAlloc_v2, (CUdeviceptr *p, size_t n), (p, n)) \
	X(cuMemAllocAsync, (CUdeviceptr *p, size_t n, CUstream s), (p, n, s)) \
	X(cuMemAllocAsync_ptsz, (CUdeviceptr *p, size_t n, CUstream s), (p, n, s)) \
	X(cuMemAllocManaged, (CUdeviceptr *p, size_t n, unsigned int f), (p, n, f)) \
	X(cuMemAllocPitch_v2, (CUdeviceptr *p, size_t *q, size_t w, size_t h, unsigned int e), \
	  (p, q, w, h, e)) \
	X(cuMemFree_v2, (CUdeviceptr p), (p)) \
	X(cuMemFreeAsync, (CUdeviceptr p, CUstream s), (p, s))
#define LAUNCH_ARGS (CUfunction f, unsigned int a, unsigned int b, unsigned int c, \
	unsigned int d, unsigned int e, unsigned int g, unsigned int m, CUstream s, void **p, \
	void **x)
#define LAUNCH(X) \
	X(cuLaunchKernel, LAUNCH_ARGS, (f, a, b, c, d, e, g, m, s, p, x)) \
	X(cuLaunchKernel_ptsz, LAUNCH_ARGS, (f, a, b, c, d, e, g, m, s, p, x)) \
	X(cuLaunchKernelEx, (const CUlaunchConfig *c, CUfunction f, void **p, void **x), \
	  (c, f, p, x)) \
	X(cuLaunchKernelEx_ptsz, (const CUlaunchConfig *c, CUfunction f, void **p, void **x), \
	  (c, f, p, x))
#define ALL(X) ALLOC(X) LAUNCH(X)

#define X(symbol, types, args) \
	static __typeof__(symbol) *real_##symbol; \
	static unsigned int calls_##symbol; \
	static CUresult count_##symbol types \
	{ \
		calls_##symbol++; \
		return real_##symbol args; \
	}
ALL(X)
#undef X

static const struct {
	const char *symbol;
	void *counts, **real;
	unsigned int *calls;
} rows[] = {
#define X(symbol, types, args) \
	{ #symbol, (void *)count_##symbol, (void **)&real_##symbol, &calls_##symbol },
	ALL(X)
#undef X
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static void *driver;
static __typeof__(cuGetProcAddress_v2) *real_get_proc;
static __typeof__(cuGetProcAddress) *real_get_proc_old;
static unsigned int looked;

typedef void *(*lookup)(void *, const char *);	/* of dlsym */

static lookup real_dlsym(void)
{
	static lookup f;

	if (!f)
		f = (lookup)dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
	if (!f)
		f = (lookup)dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
	if (!f)
		f = (lookup)dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.17");
	return f;
}

static CUresult get_proc(const char *, void **, int, cuuint64_t,
			 CUdriverProcAddressQueryResult *);
static CUresult get_proc_old(const char *, void **, int, cuuint64_t);

/* By the pointer: whatever name and version it was asked for. */
static void *counted(void *at)
{
	if (at && at == (void *)real_get_proc)
		return (void *)get_proc;
	if (at && at == (void *)real_get_proc_old)
		return (void *)get_proc_old;
	for (size_t i = 0; at && i < ROWS; i++)
		if (*rows[i].real == at)
			return rows[i].counts;
	return at;
}

static CUresult get_proc(const char *name, void **at, int version, cuuint64_t flags,
			 CUdriverProcAddressQueryResult *found)
{
	CUresult r = real_get_proc(name, at, version, flags, found);

	looked++;
	if (r == CUDA_SUCCESS && at)
		*at = counted(*at);
	return r;
}

static CUresult get_proc_old(const char *name, void **at, int version, cuuint64_t flags)
{
	CUresult r = real_get_proc_old(name, at, version, flags);

	looked++;
	if (r == CUDA_SUCCESS && at)
		*at = counted(*at);
	return r;
}

__attribute__((visibility("default"))) void *dlsym(void *handle, const char *name)
{
	return counted(real_dlsym()(handle, name));
}

static void *runtime(void)
{
	static const char *const names[] = { "libcudart.so.13", "libcudart.so.12",
					     "libcudart.so.11.0", "libcudart.so",
					     "/usr/local/cuda/lib64/libcudart.so" };
	const char *own = getenv("FACTS_CUDART");
	void *h = own ? dlopen(own, RTLD_NOW) : NULL;

	for (size_t i = 0; !h && i < sizeof(names) / sizeof(names[0]); i++)
		h = dlopen(names[i], RTLD_NOW);
	return h;
}

static void calls_since(unsigned int *before)
{
	const char *between = "";

	for (size_t i = 0; i < ROWS; i++) {
		if (*rows[i].calls == before[i])
			continue;
		printf("%s%s", between, rows[i].symbol);
		between = " ";
		before[i] = *rows[i].calls;
	}
	if (!*between)
		printf("none that is looked at");
}

struct dim { unsigned int x, y, z; };

/* As what <<<>>> is compiled to does, of a kernel that is loaded from memory. */
static void launch(void *rt, void *mem, unsigned int *before)
{
	int (*load)(void **, const void *, void *, void *, unsigned int, void *, void *,
		    unsigned int) = NULL;
	int (*get)(void **, void *, const char *) = NULL;
	int (*run)(const void *, struct dim, struct dim, void **, size_t, void *) = NULL;
	void *lib = NULL, *kernel = NULL;
	unsigned long long n = 0;
	int r;

	*(void **)&load = dlsym(rt, "cudaLibraryLoadData");
	*(void **)&get = dlsym(rt, "cudaLibraryGetKernel");
	*(void **)&run = dlsym(rt, "cudaLaunchKernel");
	if (!load || !get || !run) {
		printf(", launch: not known: this runtime loads no kernel from memory");
		return;
	}
	r = load(&lib, FACTS_PTX, NULL, NULL, 0, NULL, NULL, 0);
	if (!r)
		r = get(&kernel, lib, "fill");
	if (!r)
		r = run(kernel, (struct dim){ 1, 1, 1 }, (struct dim){ 32, 1, 1 },
			(void *[]){ &mem, &n, &n }, 0, NULL);
	printf(", launch: ");
	if (r)
		printf("not known: error %d of the runtime", r);
	else
		calls_since(before);
}

int main(void)
{
	unsigned int before[ROWS] = { 0 };
	int (*alloc)(void **, size_t), (*version)(int *);
	void *rt, *mem = NULL;
	int r, v = 0;

	driver = dlopen("libcuda.so.1", RTLD_NOW);
	for (size_t i = 0; driver && i < ROWS; i++)
		*rows[i].real = real_dlsym()(driver, rows[i].symbol);
	if (driver) {
		*(void **)&real_get_proc = real_dlsym()(driver, "cuGetProcAddress_v2");
		*(void **)&real_get_proc_old = real_dlsym()(driver, "cuGetProcAddress");
	}
	rt = driver ? runtime() : NULL;
	if (!rt) {
		printf("not known: no %s\n", driver ? "runtime (libcudart) is found" : "driver");
		return 0;
	}
	*(void **)&alloc = dlsym(rt, "cudaMalloc");
	*(void **)&version = dlsym(rt, "cudaRuntimeGetVersion");
	if (!alloc || !version || version(&v)) {
		printf("not known: it is no runtime\n");
		return 0;
	}
	r = alloc(&mem, 64 << 20);
	if (r) {
		printf("not known: cudaMalloc of runtime %d says %d after %u look-ups\n",
		       v, r, looked);
		return 0;
	}
	printf("runtime %d: cudaMalloc: ", v);
	calls_since(before);
	launch(rt, mem, before);
	printf("\n");
	return 0;
}
