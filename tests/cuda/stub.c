/* SPDX-License-Identifier: MIT */
/* stub.c - a libcuda.so.1 that does nothing but tell who called what.
 *
 * Owns the last call of each thread. (1) Every function whose types are known is here
 * under its own symbol, says so in stub_last, and succeeds. (2) cuGetProcAddress gives
 * the newest version that is not above the one asked for. (3) Two functions share one
 * address, as a linker may make them. (4) It looks itself up by name, as the driver
 * of some systems does with its inner half. Lock: none.
 */
#include <dlfcn.h>
#include <string.h>

#include "interpose/cuda_abi.h"
#include "tests/cuda/stub.h"

__thread struct stub_call stub_last;

static CUresult called(const char *symbol, const void *caller)
{
	stub_last.symbol = symbol;
	stub_last.caller = caller;
	stub_last.hits += stub_last.wanted && !strcmp(stub_last.wanted, symbol);
	return CUDA_SUCCESS;
}

/* These three are below, or are one. */
#define cuGetProcAddress cuGetProcAddress_types
#define cuGetProcAddress_v2 cuGetProcAddress_v2_types
#define cuMemHostUnregister cuMemHostUnregister_types
#define CU_FN(symbol, name, version, flags, types) \
	CUresult symbol types; \
	CUresult symbol types { return called(#symbol, __builtin_return_address(0)); }
#include "interpose/cuda_fn.def"
#undef CU_FN
#undef cuGetProcAddress
#undef cuGetProcAddress_v2
#undef cuMemHostUnregister

CUresult cuMemHostUnregister(void *p) __attribute__((alias("cuMemFreeHost")));

struct entry { const char *symbol, *name; int version; unsigned int flags; void *at; };

static const struct entry entries[] = {
#define CU_FN(symbol, name, version, flags, types) \
	{ #symbol, #name, version, flags, (void *)symbol },
#include "interpose/cuda_fn.def"
#undef CU_FN
};

#define N (sizeof(entries) / sizeof(entries[0]))

static CUresult find(const char *name, void **out, int version, cuuint64_t flags)
{
	const struct entry *best = NULL;
	unsigned int stream = flags & CU_PTDS;

	/* What has no variant of its own for a stream is the same for all. */
	for (int pass = 0; pass < 2 && !best; pass++, stream = 0)
		for (size_t i = 0; i < N; i++)
			if (!strcmp(entries[i].name, name) && entries[i].version <= version &&
			    entries[i].flags == stream &&
			    (!best || entries[i].version > best->version))
				best = &entries[i];
	*out = best ? best->at : NULL;
	return best ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress(const char *name, void **out, int version, cuuint64_t flags)
{
	called("cuGetProcAddress", __builtin_return_address(0));
	return name ? find(name, out, version, flags) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetProcAddress_v2(const char *name, void **out, int version, cuuint64_t flags,
			     CUdriverProcAddressQueryResult *status)
{
	CUresult r = name ? find(name, out, version, flags) : CUDA_ERROR_INVALID_VALUE;

	called("cuGetProcAddress_v2", __builtin_return_address(0));
	if (status)
		*status = r == CUDA_SUCCESS ? CU_GET_PROC_ADDRESS_SUCCESS :
			CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	return r;
}

int stub_count(void)
{
	return (int)N;
}

void stub_entry(int i, const char **symbol, const char **name, int *version,
		unsigned int *flags, void **at)
{
	*symbol = entries[i].symbol;
	*name = entries[i].name;
	*version = entries[i].version;
	*flags = entries[i].flags;
	*at = entries[i].at;
}

void *stub_looks_up(void *handle, const char *symbol)
{
	void *volatile at = dlsym(handle, symbol);	/* not as its last act */

	return at;
}
