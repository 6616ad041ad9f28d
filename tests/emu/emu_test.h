/* SPDX-License-Identifier: MIT */
/* emu_test.h - what the emulated driver tells a test beside the driver's own functions.
 *
 * Looked up with dlsym: the real driver has none of them, and a program that runs on
 * both goes without. Any thread; lock: the emulator's.
 */
#ifndef EMU_TEST_H
#define EMU_TEST_H

#include <stdint.h>

struct emu_device_stats {
	uint64_t capacity, used, peak;		/* bytes of device memory */
	uint64_t h2d, d2h;			/* bytes copied */
	uint64_t launches;			/* kernels run */
	uint64_t managed;			/* bytes of managed memory that are there */
	uint64_t managed_in, managed_out;	/* bytes moved there and back */
	/* Of handles in host memory: bytes of the pages that kernels reached, each once for
	 * each kernel. */
	uint64_t host_reached;
};

/* Calls so far of a function by its symbol ("cuMemMap"); NULL: of all functions. */
uint64_t emu_calls(const char *symbol);
/* The rule last broken, as on stderr, or "". Good until the next is broken. */
const char *emu_fault(void);
/* 0, or -1: no such device. */
int emu_stats(int device, struct emu_device_stats *out);
/* Which function is this an entry point of? NULL: none. */
const char *emu_symbol(const void *entry);

#endif
