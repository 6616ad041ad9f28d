/* SPDX-License-Identifier: MIT */
/* pool_int.h - the memory of the pool's slots: what pool.c knows of
 * pool_arena.c. Pager thread, but where it says otherwise. */
#ifndef OFFLOAD_POOL_INT_H
#define OFFLOAD_POOL_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reserves address space for so many bytes of memory; the first call counts.
 * 0, -ENOMEM, -ENODEV: it was lost in a fork. */
int pool_arena_open(uint64_t bytes);
/* n bytes aligned to 64. *tail: bytes taken beyond them that get no memory, to
 * be told to free. NULL: pool_arena_bytes would grow by more than room (0: only
 * what small blocks left over will do), or no address space is left. */
void *pool_arena_alloc(size_t n, uint64_t room, uint32_t *tail);
void pool_arena_free(void *p, size_t n, uint32_t tail);
/* Memory behind it, and of that what small blocks share pages in. Bytes. */
uint64_t pool_arena_bytes(void);
uint64_t pool_arena_small_bytes(void);
/* Such a block shares its pages with others. */
bool pool_arena_small(size_t n);
/* Forking thread, the pager frozen: may a child have it? */
void pool_arena_inherit(bool yes);
/* Child that did not inherit it: the same addresses, nothing behind them.
 * False: somebody else has them by now. */
bool pool_arena_renew(void);
void pool_arena_unlock(void);	/* any thread: munlock */

#endif
