/* SPDX-License-Identifier: MIT */
/* mem.h - the library's own heap, which never meets the program's (R8).
 *
 * Any thread may call the four functions below, but not the fault path: a
 * call may take a lock and map memory. Nothing here ever becomes a region.
 */
#ifndef OFFLOAD_MEM_H
#define OFFLOAD_MEM_H

#include <stddef.h>

/* Uninitialised memory, aligned as malloc's (below 16 bytes: to 8), or NULL
 * when there is none. Size 0 gives a pointer that mem_free takes. */
void *mem_alloc(size_t size);
/* The same, zeroed. */
void *mem_zalloc(size_t size);
/* Grows or shrinks; NULL means no memory and leaves the old block as it was.
 * ptr may be NULL. Size 0 keeps a block of least size. */
void *mem_realloc(void *ptr, size_t size);
/* NULL is fine. May run on another thread than the one that allocated. */
void mem_free(void *ptr);
/* What the blocks of all that take, in bytes; what the bundled libraries ask for by
 * themselves is not in it. */
size_t mem_bytes(void);

/* Private anonymous address space, no memory behind it yet; a system call, nothing of
 * the heap's. NULL: none. */
void *reserve_range(size_t len);
void *reserve_own(size_t len);		/* the same, not inherited by forks */

/* Sets the heap up: about 0.1 ms once, nothing after. The first mem_alloc
 * would do it too; called where the first region is made, so that it never
 * happens inside a program's allocator. Returns 0 or -ENOMEM. */
int mem_init(void);

/* Around every fork the library sees, _Fork included, by the forking thread,
 * no other lock of the library taken after it: prepare takes the heap's
 * locks, the other two give them back in parent and child. Nothing happens
 * in a process that never used the heap. */
void mem_fork_prepare(void);
void mem_fork_parent(void);
void mem_fork_child(void);

#endif
