/* SPDX-License-Identifier: MIT */
/* interpose.h - what the wrappers share. */
#ifndef OFFLOAD_INTERPOSE_H
#define OFFLOAD_INTERPOSE_H

#include "core/core.h"

#include <errno.h>

/* The only visible functions of the library. */
#define EXPORT __attribute__((visibility("default")))

/* The ABI edge: 0 / -errno inside becomes 0 / -1 with errno, once, here. */
static inline int libc_result(int err)
{
	if (err >= 0)
		return err;
	errno = -err;
	return -1;
}

/* The next definition of a symbol in the program's search order. */
void *real_symbol(const char *name);

/* heap.c: finds the next allocator. Any number of times. */
void heap_begin(void);
/* The code at this address is the next allocator's; the C library's does not
 * count, for it maps its memory without calling us. */
bool next_allocators(const void *code);

#endif
