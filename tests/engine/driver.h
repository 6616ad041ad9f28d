/* SPDX-License-Identifier: MIT */
/* driver.h - the CUDA driver, found in each of the ways programs find it.
 *
 * Lock: none; opened once, before any thread.
 */
#ifndef ENGINE_DRIVER_H
#define ENGINE_DRIVER_H

#include "interpose/cuda_abi.h"

enum driver_api {
	API_DLSYM,		/* dlsym of the library's handle */
	API_DEFAULT,		/* what a program linked with -lcuda gets */
	API_GETPROC,		/* cuGetProcAddress_v2, as cudart 12 and 13 do */
	API_GETPROC_OLD,	/* cuGetProcAddress with four parameters */
	API_COUNT
};

struct driver {
#define USE(symbol) __typeof__(symbol) *symbol;
#define MAY(symbol) USE(symbol)
#include "tests/engine/driver.def"
#undef USE
#undef MAY
};

extern struct driver drv;

/* Fills drv. Exits with 77 where there is no driver, or no device; with 1, and a
 * message, where a function is not found. */
void driver_open(enum driver_api how);

/* Of the file NAME beside the program; to be freed. Exits 77 where there is none. */
char *beside(const char *name);
/* The same, loaded in the current context; or in that of the first device, made current. */
CUmodule module_beside(const char *name);
CUmodule first_device(const char *name);

/* Bytes of host memory in handles that kernels have reached, by the emulated driver; 0: it
 * is another. */
uint64_t host_reached(void);

/* Exits with 1 and a message unless ERR is CUDA_SUCCESS. */
void driver_check(CUresult err, const char *what, const char *file, int line);

#define ck(call) driver_check(drv.call, #call, __FILE__, __LINE__)

#endif
