/* SPDX-License-Identifier: MIT */
/* skew.c - a program that uses some of its memory more often than the rest.
 *
 *     skew [--passes N] [--seed N] [--bytes N] [--kind skew|dense] [--graph no|update|new]
 *
 * A pass: 4 buffers of "attention" once, one of "embedding" twice, and 4 of 32 "experts",
 * those of the upper half six times as often (dense: all buffers once). Memory for the
 * seldom ones is asked for first. With a graph each pass is captured, and launched as an update
 * of the last one's executable graph, or as a new one. Prints a hash of what all kernels came to; on the emulated
 * driver, on stderr, the bytes that kernels read at the host in a pass: of the first 20 passes,
 * and of the last 20.
 * Status: 0; 1 something is wrong; 77 there is no device.
 * (1) What it prints depends on its options alone.
 * Owns all of it; lock: none.
 */
#include "tests/engine/driver.h"
#include "tests/engine/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPERTS	32
#define SHARED	5	/* the last: the embedding */
#define SOME	20u	/* passes that are measured */
#define THREADS	128

static uint64_t passes = 200, seed = 1, bytes = 16384, kind, graphs;

static const struct option_row rows[] = {
	{ "passes", &passes, NULL, 2 * SOME, 1000000, "passes" },
	{ "seed", &seed, NULL, 0, UINT64_MAX, "of what is in memory, and of which experts" },
	{ "bytes", &bytes, NULL, 4096, 1 << 30, "of a buffer" },
	{ "kind", &kind, "skew dense", 0, 0, "what is used in a pass" },
	{ "graph", &graphs, "no update new", 0, 0, "passes are graphs" },
	{ NULL, NULL, NULL, 0, 0, NULL }
};

static CUdeviceptr buffer[EXPERTS + SHARED], sum;
static CUfunction fold;
static CUstream stream;
static CUgraphExec exec;

static unsigned int draw(unsigned int below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned int)(seed >> 33) % below;
}

static void start(void)
{
	unsigned int *words = malloc(bytes);
	CUmodule module;

	if (!words)
		exit(1);
	module = first_device("skew.ptx");
	ck(cuModuleGetFunction(&fold, module, "fold"));
	for (int i = 0; i < EXPERTS + SHARED; i++) {
		for (uint64_t k = 0; k < bytes / 4; k++)
			words[k] = draw(1u << 31);
		ck(cuMemAlloc_v2(&buffer[i], bytes));
		ck(cuMemcpyHtoD_v2(buffer[i], words, bytes));
	}
	if (graphs)
		ck(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	memset(words, 0, THREADS * 4);
	ck(cuMemAlloc_v2(&sum, THREADS * 4));
	ck(cuMemcpyHtoD_v2(sum, words, THREADS * 4));
	free(words);
}

static void use(int i)
{
	int n = (int)(bytes / 4);
	void *args[] = { &sum, &buffer[i], &n };

	ck(cuLaunchKernel(fold, 1, 1, 1, THREADS, 1, 1, 0, stream, args, NULL));
}

static void kernels(void)
{
	for (int i = 0; i < (kind ? EXPERTS + SHARED : 0); i++)
		use(i);
	for (int i = 0; i < (kind ? 0 : 4); i++) {
		use(EXPERTS + i);
		use((int)(draw(7) ? EXPERTS / 2 : 0) + (int)draw(EXPERTS / 2));
	}
	for (int i = 0; i < (kind ? 0 : 2); i++)
		use(EXPERTS + SHARED - 1);
}

static void launch(CUgraph g)
{
	CUgraphExecUpdateResult why;
	CUgraphNode bad;

	if (exec && graphs == 1)
		ck(cuGraphExecUpdate(exec, g, &bad, &why));
	if (exec && graphs == 2)
		ck(cuGraphExecDestroy(exec));
	if (!exec || graphs == 2)
		ck(cuGraphInstantiateWithFlags(&exec, g, 0));
	ck(cuGraphLaunch(exec, stream));
	ck(cuGraphDestroy(g));
}

static void pass(void)
{
	CUgraph g;

	if (graphs)
		ck(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	kernels();
	if (graphs) {
		ck(cuStreamEndCapture(stream, &g));
		launch(g);
	}
	ck(cuCtxSynchronize());
}

int main(int argc, char **argv)
{
	uint64_t first = 0, last = 0, h = 0;
	unsigned int out[THREADS];

	options_read(argc, argv, rows, "skew [OPTION VALUE...]");
	driver_open(API_DLSYM);
	start();
	for (uint64_t i = 0; i < passes; i++) {
		pass();
		first = i + 1 == SOME ? host_reached() : first;
		last = i + 1 == passes - SOME ? host_reached() : last;
	}
	last = host_reached() - last;
	ck(cuMemcpyDtoH_v2(out, sum, sizeof(out)));
	for (int i = 0; i < THREADS; i++)
		h = (h ^ out[i]) * 0x9e3779b97f4a7c15u;
	printf("skew %016llx\n", (unsigned long long)h);
	fprintf(stderr, "read at the host in a pass: %llu bytes at first, %llu at last\n",
		(unsigned long long)(first / SOME), (unsigned long long)(last / SOME));
	return 0;
}
