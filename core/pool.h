/* SPDX-License-Identifier: MIT */
/* pool.h - the packed pool: chunks kept in memory, in fewer bytes.
 * Internal to core/.
 *
 * A slot is an image (codec.h) somewhere in memory that counts against the
 * pool's limit. Slots have numbers, so that pool_compact may move what lies
 * in them.
 *
 * A chunk in the pool is one whose slot's number is remembered and whose frame
 * was let go after pool_put returned 0 (R2). On any error the frame is still
 * the only copy.
 *
 * Forks. The child gets the slots as they are, copied on write by the kernel:
 * the parent need not unpack, keep or share anything, and both go on with the
 * same numbers. Both count all of it. Order:
 *
 *   parent, forking thread   pool_fork_open   beside what makes the heap itself
 *                                             inheritable, the pager frozen
 *                            pool_fork_lock   always
 *                              fork
 *   parent and child         pool_fork_unlock
 *   parent, forking thread   pool_fork_close
 *   child, after mem_fork_child and before its pager starts
 *                            pool_fork_child(true), then pool_free of what it
 *                            does not go on with; or pool_fork_child(false)
 *                            where pool_fork_open was not called: as at the
 *                            start, pool_open and pool_limit are to be called
 *
 * Pager thread, but for what the forking thread calls. May map memory and wait for the allocator's lock, so not for the
 * fault path of a program thread.
 */
#ifndef OFFLOAD_POOL_H
#define OFFLOAD_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POOL_NONE UINT32_MAX	/* never a slot's number */

/* Reserves address space for slots of so many bytes in all (the most the limit
 * will ever be; some is lost to holes, so twice that is good), and working
 * memory. No memory is taken for slots, and none may be until pool_limit. 0,
 * also when open already; -ENOMEM; -ENODEV: a fork lost its addresses. */
int pool_open(uint64_t bytes);
/* The most pool_bytes may come to. It may be less than there is already: then
 * nothing is taken in until enough was freed. Starts at 0. */
void pool_limit(uint64_t bytes);

/* Copies an image of n bytes that codec_image_pack made, of len raw bytes, into
 * a slot. 0, or and nothing is changed: -ENOSPC: the limit, or no number is
 * left; -ENODEV: not open. */
int pool_put(const void *image, uint32_t n, uint32_t len, uint32_t *slot);
/* Unpacks it; the slot stays. 0, or -EBADMSG: the slot does not hold len bytes
 * as they were put; then frame may hold anything (R4). */
int pool_get(uint32_t slot, void *frame, uint32_t len);
/* Its memory is the kernel's again, or the next small slot's. */
void pool_free(uint32_t slot);

/* Memory the slots take, what lies between them included; what they unpack to;
 * their images. Bytes. */
uint64_t pool_bytes(void);
uint64_t pool_raw_bytes(void);
uint64_t pool_packed_bytes(void);
/* The image in a slot and its length, until the next call that may move it:
 * pool_free, pool_compact. */
const void *pool_at(uint32_t slot, uint32_t *bytes);

/* Where small slots that were freed left pages half empty, moves others
 * together. Looks at no more than max slots; returns how many it moved. Now and
 * then, when there is nothing else to do: it costs nothing while there is
 * nothing to win. Slots of 16 KiB and more have pages of their own and lose
 * less than one of them each. */
uint32_t pool_compact(uint32_t max);

void pool_fork_lock(void);
void pool_fork_unlock(void);
void pool_fork_open(void);
void pool_fork_close(void);
void pool_fork_child(bool inherited);
void pool_unlock(void);		/* any thread: munlock, as pager_unlock */

#endif
