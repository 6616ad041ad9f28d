/* SPDX-License-Identifier: MIT */
/* vmm_store.h - a file without a name that bytes of device memory are kept in.
 *
 *   CLOSED --store_open--> OPEN | OFF (for good)
 *
 * Slots are runs of pages in it. The file, and the threads that read and write it, are in
 * a descriptor table of their own, where the program's close_range does not reach (R4).
 * Whoever has the turn (vmm_int.h) makes all calls.
 */
#ifndef OFFLOAD_VMM_STORE_H
#define OFFLOAD_VMM_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/seal.h"

#define STORE_NONE	UINT32_MAX	/* never a slot */
#define STORE_PIECE	(2u << 20)	/* bytes of a slot, at most */

enum store_kind { STORE_READ, STORE_WRITE, STORE_GROW };

/* A read or a write of a slot: a thread's from store_post until store_wait. GROW, the
 * store's own: len blocks from page on. */
struct store_job {
	enum store_kind kind;
	bool done;
	uint32_t page, len;
	void *buf;
	int res;
	struct store_job *next;
};

/* Starts the threads and makes the file: where OFFLOAD_SPILL says, else as the spill file.
 * 0, also when it is open; -errno: none can be had, said once. */
int store_open(void);
/* Room for so many bytes more is kept in the file. 0 or -ENOSPC (OFFLOAD_SPILL_MAX, the
 * disk), said once. */
int store_reserve(uint64_t bytes);
/* A slot for bytes, a multiple of 4096 up to STORE_PIECE. 0 or -ENOSPC. */
int store_take(uint32_t bytes, uint32_t *page);
void store_give(uint32_t page, uint32_t bytes);

/* Queued; run in the order they came, several at a time. */
void store_post(struct store_job *j);
bool store_done(const struct store_job *j);
/* Returns when it is done: 0 or -errno. */
int store_wait(struct store_job *j);

/* OFFLOAD_ENCRYPT: the bytes in place, before a write and after a read. */
void store_seal(struct seal *s, void *buf, uint32_t len);
int store_unseal(const struct seal *s, void *buf, uint32_t len);	/* 0 or -EBADMSG */

/* Child of a fork: the file is the parent's. */
void store_child(void);

#endif
