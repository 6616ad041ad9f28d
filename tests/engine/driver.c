/* SPDX-License-Identifier: MIT */
/* driver.c - finds the driver's functions.
 *
 * Owns drv; lock: none.
 * (1) Nothing is linked: the same binary runs on an emulated driver, on a real one,
 *     with something preloaded between, or says that there is none.
 */
#include "tests/emu/emu_test.h"
#include "tests/engine/driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct driver drv;

/* By what name and version a symbol is asked for. */
struct row {
	const char *symbol, *name;
	int version;
	uint64_t flags;
};

static const struct row rows[] = {
#define CU_FN(symbol, name, version, flags, types) { #symbol, #name, version, flags },
#include "interpose/cuda_fn.def"
#undef CU_FN
};

static const struct {
	const char *symbol;
	void **where;
	int must;
} wanted[] = {
#define USE(symbol) { #symbol, (void **)&drv.symbol, 1 },
#define MAY(symbol) { #symbol, (void **)&drv.symbol, 0 },
#include "tests/engine/driver.def"
#undef USE
#undef MAY
};

static __typeof__(cuGetProcAddress) *get_proc_old;
static __typeof__(cuGetProcAddress_v2) *get_proc;

static const struct row *row_of(const char *symbol)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (!strcmp(rows[i].symbol, symbol))
			return &rows[i];
	fprintf(stderr, "%s: %s has no row\n", program_invocation_short_name, symbol);
	exit(1);
}

/* Null where it is not found. */
static void *ask(enum driver_api how, void *lib, const char *symbol)
{
	const struct row *r = row_of(symbol);
	CUdriverProcAddressQueryResult found;
	void *f = NULL;

	switch (how) {
	case API_GETPROC:
		get_proc(r->name, &f, r->version, r->flags, &found);
		return f;
	case API_GETPROC_OLD:
		get_proc_old(r->name, &f, r->version, r->flags);
		return f;
	case API_DEFAULT:
		return dlsym(RTLD_DEFAULT, symbol);
	default:
		return dlsym(lib, symbol);
	}
}

static void no_device(const char *why)
{
	fprintf(stderr, "no CUDA device: %s\n", why);
	exit(77);
}

void driver_open(enum driver_api how)
{
	void *lib = dlopen("libcuda.so.1", RTLD_NOW |
			   (how == API_DEFAULT ? RTLD_GLOBAL : RTLD_LOCAL));
	int n;

	if (!lib)
		no_device(dlerror());
	get_proc = (__typeof__(get_proc))dlsym(lib, "cuGetProcAddress_v2");
	get_proc_old = (__typeof__(get_proc_old))dlsym(lib, "cuGetProcAddress");
	if ((how == API_GETPROC && !get_proc) ||
	    (how == API_GETPROC_OLD && !get_proc_old))
		no_device("it has no cuGetProcAddress of this version");
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		*wanted[i].where = ask(how, lib, wanted[i].symbol);
		if (!*wanted[i].where && wanted[i].must) {
			fprintf(stderr, "%s: the driver has no %s\n",
				program_invocation_short_name,
				wanted[i].symbol);
			exit(1);
		}
	}
	/* Only now: runtimes find everything before they call anything. */
	if (drv.cuInit(0) || drv.cuDeviceGetCount(&n) || n < 1)
		no_device("cuInit finds none");
}

char *beside(const char *name)
{
	char path[PATH_MAX], *slash, *text;
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	long size;
	FILE *f;

	path[n > 0 ? n : 0] = 0;
	slash = strrchr(path, '/');
	if (!slash || strlen(name) + 2 > sizeof(path) - (size_t)(slash - path))
		exit(1);
	strcpy(slash + 1, name);
	f = fopen(path, "re");
	if (!f) {
		fprintf(stderr, "no %s: built without clang\n", name);
		exit(77);
	}
	fseek(f, 0, SEEK_END);
	size = ftell(f);
	rewind(f);
	text = calloc(1, (size_t)size + 1);
	if (!text || fread(text, 1, (size_t)size, f) != (size_t)size) {
		fprintf(stderr, "%s: cannot read %s\n", program_invocation_short_name,
			path);
		exit(1);
	}
	fclose(f);
	return text;
}

CUmodule module_beside(const char *name)
{
	char *ptx = beside(name);
	CUmodule module;

	ck(cuModuleLoadData(&module, ptx));
	free(ptx);
	return module;
}

CUmodule first_device(const char *name)
{
	CUdevice device;
	CUcontext ctx;

	ck(cuDeviceGet(&device, 0));
	ck(cuDevicePrimaryCtxRetain(&ctx, device));
	ck(cuCtxSetCurrent(ctx));
	return module_beside(name);
}

void driver_check(CUresult err, const char *what, const char *file, int line)
{
	const char *name = NULL;

	if (!err)
		return;
	if (drv.cuGetErrorName)
		drv.cuGetErrorName(err, &name);
	fflush(stdout);
	fprintf(stderr, "%s:%d: %s: %s (%d)\n", file, line, what,
		name ? name : "an error", (int)err);
	exit(1);
}

uint64_t host_reached(void)
{
	void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
	__typeof__(emu_stats) *stats = lib ? (__typeof__(emu_stats) *)dlsym(lib, "emu_stats") : NULL;
	struct emu_device_stats s = { .host_reached = 0 };

	if (stats)
		stats(0, &s);
	return s.host_reached;
}
