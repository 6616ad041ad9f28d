/* SPDX-License-Identifier: MIT */
/* anon.h - anonymous memory: what heap.c, anon*.c and the pager know of each
 * other. Internal to core/.
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

struct region;

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
/* The bytes of whole pages [from, from + len) go to zeros at `to`. */
void anon_move(uintptr_t to, uintptr_t from, size_t len);
/* [lo, hi) is about to be mapped over by the program: no business of ours any
 * more, nor what shares a chunk with it. */
void anon_lose(uintptr_t lo, uintptr_t hi);
/* Library thread: registers what is not lost of [lo, hi), not to be inherited by
 * forks. 0 or -errno. */
int anon_register(uintptr_t lo, uintptr_t hi);
/* Pager: chunk k of the heap is such a one. Never changes back. */
bool anon_lost(uint32_t k);
/* [lo, hi) gets a protection other than read and write (on: told before it does),
 * or has lost it for good. Any thread. */
void anon_bar(uintptr_t lo, uintptr_t hi, bool on);
/* The heap's chunk at this address must stay where it is, whatever is unlocked:
 * a mapping of the program's lies in it, or, where the kernel does not see to that
 * itself (by_kernel), pages that are barred. Pager. */
bool anon_stays(uintptr_t at, bool by_kernel);
/* True while the heap is paged: then its pages must not be moved (mremap). */
bool anon_live(void);
/* What the heap's table takes for each chunk, in bytes; 0: there is none. Pager. */
size_t anon_chunk_bytes(void);
bool anon_packed(uint32_t c);		/* the pool has it, in place or not */
/* Keeper. A request of so many bytes (0: a tick): the heap becomes LIVE if what
 * is asked for and not populated yet is more than `room`, or all of it more
 * than `cap` (0: none). Returns true if it did. */
bool anon_judge(size_t bytes, uint64_t room, uint64_t cap);
/* Any thread: the heap has more in it than is worth watching. */
bool anon_watched(void);
/* Around forks, in this order. lock and unlock: its lock, on both sides. */
void anon_fork_lock(void);
void anon_fork_unlock(void);
void anon_fork_open(void);	/* LIVE, the pager frozen: the child may inherit */
void anon_fork_close(void);	/* parent: and no other */
/* Child, everything else reset: a pager of its own serves the heap, before
 * the program can look at it. */
void anon_fork_child(void);
/* Keeper, starting in a child: descriptors of the program's table to keep. */
int anon_keep_fds(const int **fds);
int anon_adopt(void);		/* keeper, started: 0 or -errno */

/* ---- anon_pager.c, anon_fork.c, anon_io.c: its chunks. Pager thread. ---------- */

int anon_add(struct region *r, bool adopt);	/* CMD_ADD: r is HELD */
int anon_go(struct region *r);		/* CMD_GO: registered */
int anon_adopted(struct region *r);	/* CMD_GO in the child of a fork */
/* Frozen: nothing is in flight or waits to be written. */
bool anon_idle(void);
/* Frozen and idle: everything is put where a child will find it. Returns how many
 * descriptors it needs (*fds, numbers of this thread's table), or -errno. */
int anon_settle(const struct region *r, int **fds);
void anon_resume(void);			/* in the parent, after the fork */
/* Keeper, in the child: the descriptors anon_settle asked for, in its order. */
void anon_take_fds(const int *fds, int n);
void anon_child_reset(void);		/* in the child, before it starts anew */
int anon_grown(struct region *r, uintptr_t lo, uintptr_t hi); /* CMD_GROW */
/* CMD_CLEAR. Bit 0, 1: the first, last chunk's part was not cleared; bit 2:
 * nothing was. */
int anon_cleared(struct region *r, uintptr_t lo, uintptr_t hi);
/* A missing page. True: served, or waits; false: the policy is to hear of it. */
bool anon_fault(uint32_t c, uintptr_t addr);
/* As mode_ops' functions; fetch returns 1 when the chunk is READY at once. */
int anon_fetch(uint32_t c);
int anon_install(uint32_t c);
int anon_soften(uint32_t c);
int anon_evict(uint32_t c, bool from_plain);
void anon_read_done(uint32_t c, int res);
void anon_io_done(uint32_t tag, int res);	/* IO_TAG_WRITE, IO_TAG_VERIFY */
/* False: no more evictions now, frames on their way out must get free first. */
bool anon_room(void);
uint32_t anon_reading(void);	/* chunks of the heap that a disk is asked for */
/* Submits what waits to be written. Returns how many are on their way out. */
uint32_t anon_save_more(void);
/* Frees the packed copies of a few chunks that are in place to stay; over: of any whose
 * bytes are elsewhere, too. */
void anon_shed(bool over);
/* Keeper: memory it holds beside the budget's frames, in frames. */
uint32_t anon_extra_frames(void);

/* ---- heap.c: who owns which addresses of it ------------------------------- */

/* Its addresses, if they are not reserved yet and there are any to be had; program
 * thread, no lock held. */
void heap_reserve(void);
uint64_t heap_used(void);	/* bytes of blocks handed out; any thread, no lock */
/* The program is about to give [addr, addr+len) of it this protection. */
void heap_protect(const void *addr, size_t len, int prot);
void heap_fork_prepare(void);	/* takes the heap's lock; the other two give it back */
void heap_fork_done(void);	/* in the parent */
void heap_fork_child(void);

#define KEEP_FDS 96	/* that the child of a fork can take over */
#define SAVE_FRAMES 8U	/* frames on their way out, beside the budget's */

#endif
