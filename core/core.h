/* SPDX-License-Identifier: MIT */
/* core.h - the one outward header of core/, for interpose/.
 *
 * Calls are made on the program's threads, from inside the libc call they
 * stand for; none of them changes errno. All of them are cheap and take no
 * lock while there is no region: look with core_overlaps first.
 */
#ifndef OFFLOAD_CORE_H
#define OFFLOAD_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/at_start.h"
#include "core/device.h"
#include "core/vmm.h"
#include "core/vmm_graph.h"
#include "core/vmm_use.h"

/* Means "do what you would do without the library". */
#define CORE_PASS 1

/* The constructor: reads the options; starts nothing. A secure-execution program
 * has none and is passed through. Returns 0, or -EINVAL
 * (a variable was refused and said so; the library then only passes through,
 * and the caller ends the process if OFFLOAD_STRICT asks for it). */
int core_init(char **envp);
bool core_strict(void);
/* Not kept out of this program by its name, or by options that were refused. */
bool core_on(void);

/* The end of the process (destructor, _exit): writes what OFFLOAD_STATS asks
 * for. Any number of times; only the first counts. */
void core_exit(void);
/* The destructor, before that: takes back what other processes can see of this
 * one. Not in _exit, which signal handlers call on stacks of any size. */
void core_leave(void);

/* Memory of the library's own, zeroed, or NULL; and back. NULL is fine. */
void *core_memory(size_t bytes);
void core_memory_free(void *p);

/* True if [addr, addr+len) touches a region, watched or converted. No lock; the bytes
 * are not looked at. */
ADDRESS_ONLY bool core_overlaps(const void *addr, size_t len);

/* A mapping the program asks for through a descriptor, not MAP_FIXED. CORE_PASS, or 0: *out is
 * the address to give the program, or -errno: the call's failure. */
int core_map_file(void **out, void *hint, size_t len, int prot, int flags,
		  int fd, off_t off);

/* These return CORE_PASS (make the real call), 0 (done) or -errno. */

/* Just before the range is really unmapped or mapped over: the pager lets go
 * of it, and until the real call it is a plain mapping. -ENOMEM: too many
 * holes to keep track of. */
int core_unmap(const void *addr, size_t len);
int core_protect(const void *addr, size_t len, int prot);
int core_advise(const void *addr, size_t len, int advice);
int core_lock(const void *addr, size_t len);	/* then the real mlock */
int core_lock_all(int flags);
bool core_reserves(void);	/* the library has reserved address space */
void core_locked_all(void);	/* after the real mlockall: exempts it */
void core_unlocked(const void *addr, size_t len); /* after the real munlock */
void core_unlocked_all(void);			/* after the real munlockall */
int core_mincore(const void *addr, size_t len, unsigned char *vec);
int core_remap(const void *addr, size_t len, size_t new_len, int flags);

/* ---- large anonymous requests: heap.c ------------------------------------- */

/* Requests of at least so many bytes are the heap's; SIZE_MAX: none are. */
extern size_t core_heap_min;
/* The heap's addresses; size 0 until the first request. Never change after.
 * Not all that is there is a block: ask by the functions below. */
extern uintptr_t core_heap_base;
extern size_t core_heap_size;

static inline bool core_heap_has(const void *p)
{
	return (uintptr_t)p - __atomic_load_n(&core_heap_base, __ATOMIC_RELAXED) <
	       __atomic_load_n(&core_heap_size, __ATOMIC_RELAXED);
}

static inline bool core_heap_touches(const void *p, size_t len)
{
	return core_heap_has(p) ||
	       (__atomic_load_n(&core_heap_size, __ATOMIC_RELAXED) &&
		__atomic_load_n(&core_heap_base, __ATOMIC_RELAXED) - (uintptr_t)p < len);
}

/* A block for malloc (align: power of two) or NULL: ask the next allocator.
 * zero: its bytes must read as zeros. */
void *core_heap_alloc(size_t size, size_t align, bool zero);
/* p: a block's start. False: another allocator's, which got its memory by mmap.
 * Anything else ends the process, as glibc does. */
bool core_heap_free(void *p);
/* Bytes of the block that begins at p; 0: none of core_heap_alloc's does. */
size_t core_heap_usable(const void *p);
/* The block at p with a new size (>= core_heap_min), moved where it must be,
 * its bytes kept; NULL: could not (the caller copies, p is as it was). */
void *core_heap_resize(void *p, size_t size);
/* Private anonymous read-write mappings of any address; zeros. CORE_PASS, or 0. */
int core_heap_map(void **out, size_t len, int prot, int flags);
/* [addr, addr+len) touches the heap. CORE_PASS (not ours after all: make the real call), 0
 * (done) or -errno. unmap: also before MAP_FIXED over it (fixed), where the
 * real call follows and the addresses are lost to the heap. -ENOMEM: too many
 * pieces to keep track of. remap: addr is in the heap; with MREMAP_FIXED *out is
 * the place, and made free for it; checks as the kernel does. */
int core_heap_unmap(const void *addr, size_t len, bool fixed);
int core_heap_remap(void **out, void *addr, size_t len, size_t new_len, int flags);

/* The program has read len bytes at off of fd's file to buf, in the heap: they
 * need not be written anywhere to be had again. off below 0: unknown. */
void core_read_done(int fd, const void *buf, size_t len, int64_t off);
/* A long read of fd to the heap is better made in pieces: parts of what it brings
 * may have to go before it ends, and the file's cached pages take the room. */
bool core_read_long(int fd);

/* Around a read that writes to pages, not to addresses (core_read_direct), where
 * core_direct_matters: pages may be taken out under it, unseen. [buf, buf+len) is what
 * it is to fill. ELSEWHERE: the caller reads to memory of its own and copies.
 * COUNTED: the heap is not paged before core_read_end, which takes any of these answers.
 * Any thread; region_lock for a moment. core_paged: something may be taken out now. */
enum core_read { CORE_READ_PLAIN, CORE_READ_COUNTED, CORE_READ_ELSEWHERE };
extern bool core_direct_matters;
bool core_paged(void);
bool core_read_direct(int fd);
ADDRESS_ONLY enum core_read core_read_begin(const void *buf, size_t len);
void core_read_end(enum core_read how);

/* Around fork, _Fork and clone without CLONE_VM. prepare takes what must be
 * whole in the child; exactly one of the other two follows on each side. */
void core_fork_prepare(void);
void core_fork_parent(void);
void core_fork_child(void);
/* This process is the child of a fork we know of. */
bool core_forked(void);

#endif
