/* SPDX-License-Identifier: MIT */
/* test.h - what the programs share that hold the emulated driver to its rules.
 *
 * (1) Each case is a process of its own, forked before the driver is there, with the
 *     options it names: a sticky error or a crash is that case's alone.
 * (2) A case that breaks a rule asks for the error and for the rule's number in what the
 *     emulator said (BROKE): with the rule removed it fails.
 */
#ifndef EMU_TEST_CASES_H
#define EMU_TEST_CASES_H

#include "interpose/cuda_abi.h"
#include "tests/emu/emu_test.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB	1024u
#define G	65536u		/* EMU_GRANULARITY of all cases */

#define IS(call, err)	expect(call, err, #call, __LINE__)
#define OK(call)	IS(call, CUDA_SUCCESS)
#define CHECK(cond)	((cond) ? (void)0 : fail(#cond, __LINE__))
#define BROKE(rule)	CHECK(!strncmp(emu_fault(), rule ":", strlen(rule) + 1))

struct test_case {
	const char *name;
	void (*run)(void);
	const char *env;	/* "NAME=VALUE NAME=VALUE" */
};

static __attribute__((noreturn)) void fail(const char *what, int line)
{
	fprintf(stderr, "line %d: %s (last broken rule: %s)\n", line, what, emu_fault());
	_exit(1);
}

static inline void expect(CUresult got, CUresult want, const char *call, int line)
{
	char what[256];

	if (got == want)
		return;
	snprintf(what, sizeof(what), "%s: %d, not %d", call, got, want);
	fail(what, line);
}

/* A context on device 0. */
static inline CUcontext setup(void)
{
	CUdevice d;
	CUcontext c;

	OK(cuInit(0));
	OK(cuDeviceGet(&d, 0));
	OK(cuDevicePrimaryCtxRetain(&c, d));
	OK(cuCtxSetCurrent(c));
	return c;
}

static inline CUmemAllocationProp on_device(int device)
{
	return (CUmemAllocationProp){
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, device },
	};
}

static inline CUmemGenericAllocationHandle handle(size_t size)
{
	CUmemAllocationProp p = on_device(0);
	CUmemGenericAllocationHandle h;

	OK(cuMemCreate(&h, size, &p, 0));
	return h;
}

static inline void allow(CUdeviceptr at, size_t size, int device, CUmemAccess_flags flags)
{
	CUmemAccessDesc d = { { CU_MEM_LOCATION_TYPE_DEVICE, device }, flags };

	OK(cuMemSetAccess(at, size, &d, 1));
}

/* Reserved, backed by one handle, accessible. */
static inline CUdeviceptr mapped(size_t size)
{
	CUmemGenericAllocationHandle h = handle(size);
	CUdeviceptr at;

	OK(cuMemAddressReserve(&at, size, 0, 0, 0));
	OK(cuMemMap(at, size, 0, h, 0));
	OK(cuMemRelease(h));
	allow(at, size, 0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	return at;
}

/* What comes next in the stream waits until open_gate(). */
static _Atomic int gate;

static void wait_at_gate(void *unused)
{
	while (!gate)
		usleep(100);
}

static inline void close_gate(CUstream s)
{
	gate = 0;
	OK(cuLaunchHostFunc(s, wait_at_gate, NULL));
}

static inline void open_gate(void)
{
	gate = 1;
}

static inline int run_case(const struct test_case *t)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		char env[512];

		snprintf(env, sizeof(env), "EMU_GRANULARITY=64K EMU_VRAM=16M EMU_QUIET=1 %s",
			 t->env ? t->env : "");
		for (char *s = strtok(env, " "); s; s = strtok(NULL, " "))
			putenv(strdup(s));
		alarm(60);
		t->run();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (status)
		fprintf(stderr, "FAIL %s (status %#x)\n", t->name, status);
	else
		printf("ok %s\n", t->name);
	return status != 0;
}

static inline int run_cases(const struct test_case *t, size_t n, const char *only)
{
	int bad = 0;

	for (size_t i = 0; i < n; i++)
		if (!only || !strcmp(only, t[i].name))
			bad |= run_case(&t[i]);
	return bad;
}

#define MAIN(cases)                                                                  \
	int main(int argc, char **argv)                                              \
	{                                                                            \
		setvbuf(stdout, NULL, _IONBF, 0);                                    \
		return run_cases(cases, sizeof(cases) / sizeof(*(cases)), argv[1]);  \
	}

#endif
