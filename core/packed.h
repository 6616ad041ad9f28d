/* SPDX-License-Identifier: MIT */
/* packed.h - chunks of files that are kept packed. Internal to core/.
 *
 * Pager thread. A chunk here is one of a file region that is read only, so
 * that what is packed of it never gets out of date, and can be read again.
 */
#ifndef OFFLOAD_PACKED_H
#define OFFLOAD_PACKED_H

#include <stdbool.h>
#include <stdint.h>

bool packed_open(void);		/* any number of times; false: no memory */
/* It is on its way out, its bytes in a frame of its own that nobody writes to.
 * True: the frame is taken over, and given back when the chunk is packed. */
bool packed_keep(uint32_t c);
/* It is wanted. 0: it will be READY, its frame filled; -ENOENT: it is not packed,
 * read it; -ENOMEM: no frame. */
int packed_fetch(uint32_t c);
bool packed_has(uint32_t c);	/* also while it is in place: (1) in packed.c */
/* It is no more. True: its frame is being packed, and seen to later. */
bool packed_forget(uint32_t c);
/* Frees the room of a few chunks that are in place to stay; any: of any. */
void packed_shed(bool any);
uint32_t packed_inflight(void);	/* of pg.inflight: no disk is asked for them */
/* Child of a fork: the pool is inherited (frees what it will not use), or not. */
void packed_fork_child(bool inherited);

#endif
