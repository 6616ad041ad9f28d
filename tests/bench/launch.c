/* SPDX-License-Identifier: MIT */
/* launch.c - what a launch costs more with the library, by the number of regions.
 *
 *     launch DRIVER [ROUNDS]		run with the library preloaded
 *
 * Owns nothing; lock: none. DRIVER is this file built with -DDRIVER as libcuda.so.1: a
 * driver that does nothing, so that what is left is the call and the hook. For each
 * number of regions, small and large ones, it launches a kernel of eight parameters,
 * five of them addresses, another choice each time, in turn directly (the driver's own
 * address) and through the hook, and prints the shortest rounds, what the hook
 * adds, that against the baseline of 10 regions beside it, and the driver calls added.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CALL_COUNT unsigned long bench_calls
#define LAUNCH_TYPES (void *f, unsigned int gx, unsigned int gy, unsigned int gz, \
		      unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared, \
		      void *stream, void **params, void **extra)

#ifdef DRIVER

CALL_COUNT;
static uint64_t next = 0x7f0000000000ull;

int cuInit(unsigned int flags) { bench_calls++; return 0; }
int cuCtxGetDevice(int *dev) { bench_calls++; *dev = 0; return 0; }
int cuCtxGetCurrent(void **ctx) { bench_calls++; *ctx = (void *)8; return 0; }
int cuDeviceTotalMem_v2(size_t *n, int dev) { bench_calls++; *n = 1ul << 36; return 0; }
int cuDeviceGetName(char *s, int n, int dev)
{
	bench_calls++;
	snprintf(s, (size_t)n, "no device");
	return 0;
}

/* Large ones at granules of their own, small ones side by side. */
int cuMemAlloc_v2(uint64_t *p, size_t n)
{
	uint64_t align = n >= 2u << 20 ? 2u << 20 : 512;

	bench_calls++;
	*p = (next + align - 1) & ~(align - 1);
	next = *p + n;
	return 0;
}

int cuMemFree_v2(uint64_t p) { bench_calls++; return 0; }
int cuLaunchKernel LAUNCH_TYPES { bench_calls++; return 0; }
void *bench_launch(void);
void *bench_launch(void) { return (void *)cuLaunchKernel; }

int cuFuncGetParamInfo(void *f, size_t i, size_t *off, size_t *size)
{
	bench_calls++;
	if (i > 7)
		return 1;
	*off = i * 8;
	*size = i < 5 ? 8 : 4;
	return 0;
}

#else

#define MOST	100000
#define CALLS	20000
#define CHOICES	4096

static uint64_t *region, choice[CHOICES][5];

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double round_ns(int (*launch) LAUNCH_TYPES)
{
	int n[3] = { 1, 2, 3 };
	double from = now_ns();

	for (int i = 0; i < CALLS; i++) {
		uint64_t *c = choice[i % CHOICES];
		void *args[] = { &c[0], &c[1], &c[2], &c[3], &c[4], &n[0], &n[1], &n[2] };

		launch((void *)64, 1, 1, 1, 1, 1, 1, 0, NULL, args, NULL);
	}
	return (now_ns() - from) / CALLS;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* What is in the way of a round only makes it longer. */
static double least(double *v, int n)
{
	qsort(v, (size_t)n, sizeof(*v), by_value);
	return v[0];
}

static void choose(int regions, size_t len)
{
	unsigned int seed = 1;

	for (int i = 0; i < CHOICES; i++)
		for (int k = 0; k < 5; k++)
			choice[i][k] = region[rand_r(&seed) % regions] + (size_t)rand_r(&seed) % len;
}

static void measure(void *driver, int regions, size_t len, int rounds, double *baseline)
{
	void *(*own)(void) = (void *(*)(void))dlsym(driver, "bench_launch");
	int (*hook) LAUNCH_TYPES = (int (*) LAUNCH_TYPES)dlsym(driver, "cuLaunchKernel");
	int (*direct) LAUNCH_TYPES = (int (*) LAUNCH_TYPES)own();
	unsigned long *calls = dlsym(driver, "bench_calls"), before, added;
	double a[99], b[99], with, without;

	choose(regions, len);
	round_ns(hook);		/* the function is asked about here */
	before = *calls;
	round_ns(hook);
	added = *calls - before - CALLS;
	for (int i = 0; i < rounds; i++) {
		a[i] = round_ns(direct);
		b[i] = round_ns(hook);
	}
	without = least(a, rounds);
	with = least(b, rounds);
	if (!*baseline)
		*baseline = with - without;
	printf("%8d %9zu %9.1f %9.1f %9.1f %9.2fx %8lu\n", regions, len, without, with,
	       with - without, (with - without) / *baseline, added);
}

int main(int argc, char **argv)
{
	static const size_t lengths[] = { 4096, 2u << 20, 3000000 };
	int rounds = argc > 2 ? atoi(argv[2]) : 9;
	void *driver = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
	int (*alloc)(uint64_t *, size_t), (*release)(uint64_t);

	if (!driver || rounds < 1 || rounds > 99) {
		fprintf(stderr, "usage: launch DRIVER [ROUNDS 1-99]\n");
		return 2;
	}
	alloc = (int (*)(uint64_t *, size_t))dlsym(driver, "cuMemAlloc_v2");
	release = (int (*)(uint64_t))dlsym(driver, "cuMemFree_v2");
	region = calloc(MOST, sizeof(*region));
	printf("%8s %9s %9s %9s %9s %10s %8s\n", "regions", "bytes", "direct ns", "hook ns",
	       "adds ns", "to the 1st", "calls");
	for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
		double baseline = 0;
		int have = 0;

		for (int n = 10; n <= MOST; n *= 10) {
			while (have < n)
				alloc(&region[have++], lengths[l]);
			measure(driver, n, lengths[l], rounds, &baseline);
		}
		while (have)
			release(region[--have]);
	}
	return 0;
}

#endif
