/* SPDX-License-Identifier: MIT */
/* anon.h - anonymous memory: what heap.c, anon.c, spill.c, pool.c and
 * learned.c know of each other. Internal to core/.
 *
 * Large requests of the program (malloc family, anonymous mmap) are served
 * from one range of addresses, the heap, reserved once:
 *
 *   base            top                                     base + size
 *    | blocks, holes | never used (PROT_NONE)                    |
 *
 * While the program fits, [base, top) is the kernel's ordinary anonymous
 * memory (WATCHED) and costs nothing. Under pressure all of it is registered
 * in place (LIVE): each 2 MiB chunk is then EMPTY (zeros owed, no memory),
 * PLAIN, or stored (pool, spill file, origin).
 */
#ifndef OFFLOAD_ANON_H
#define OFFLOAD_ANON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- anon.c: state of the heap's memory. Called by heap.c, program threads,
 * on ranges that belong to the caller alone, heap lock not held. ----------- */

/* [lo, hi), multiples of 2 MiB, PROT_NONE until now: becomes usable, zeros.
 * 0 or -errno. */
int anon_grow(uintptr_t lo, uintptr_t hi);
/* Whole pages [lo, hi): their bytes are not needed any more; zeros from now
 * on, memory given back. Never fails: at worst it writes zeros. */
void anon_clear(uintptr_t lo, uintptr_t hi);
/* A block of so many bytes is about to be handed out; may make the heap LIVE
 * when it could not be populated within the budget. May start the keeper. */
void anon_admit(size_t bytes);
/* True while the heap is paged: then its pages must not be moved (mremap). */
bool anon_live(void);

/* ---- heap.c: who owns which addresses of it ------------------------------- */

uint64_t heap_used(void);	/* bytes of blocks handed out; any thread, no lock */
uintptr_t heap_top(void);	/* end of what was ever handed out */
void heap_fork_prepare(void);	/* takes the heap's lock; the other two give it back */
void heap_fork_done(void);

#endif
