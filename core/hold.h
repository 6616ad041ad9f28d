/* SPDX-License-Identifier: MIT */
/* hold.h - files that stay as they are while memory relies on them. Internal to
 * core/. All calls but the first: keeper thread.
 */
#ifndef OFFLOAD_HOLD_H
#define OFFLOAD_HOLD_H

#include <stdbool.h>
#include <stdint.h>

struct origin;

/* Any thread. By a file system's magic number (statfs(2)): it is on this machine, and the
 * kernel sees everybody who writes. */
bool hold_local(uint32_t magic);

/* From now on who wants to write to the file, or shorten it, waits until it was
 * copied or nothing relies on it. False: that cannot be had (not its owner, somebody
 * writes to it now, a file system where others write unseen, or too many are held). */
bool hold_take(struct origin *o);
/* Child of a fork: what was held is to be held here, too, by the descriptor o->fd. */
void hold_inherit(struct origin *o);
/* Every now and then. True: there is more to do, at once. */
bool hold_tick(void);
void hold_reset(void);		/* child of a fork */

#endif
