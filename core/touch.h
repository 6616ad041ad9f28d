/* SPDX-License-Identifier: MIT */
/* touch.h - frames that have no memory yet. Internal to core/; pager thread. */
#ifndef OFFLOAD_TOUCH_H
#define OFFLOAD_TOUCH_H

#include <stdint.h>

/* As fetch_read, into the chunk's own frame, which has no memory yet: 0, and the
 * chunk is INFLIGHT, or -errno of the read. */
int touch_fetch(uint32_t c);
uint32_t touch_inflight(void);	/* of pg.inflight: the pager asked no disk for them */
/* Child of a fork: nothing is under way. */
void touch_fork_child(void);

#endif
