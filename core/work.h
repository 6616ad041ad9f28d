/* SPDX-License-Identifier: MIT */
/* work.h - what the pager gives to other threads: hashing, comparing, copying
 * of whole frames. Internal to core/.
 *
 * A work belongs to the workers from work_put until work_done hands it back;
 * so does the memory it looks at. Pager thread, where nothing else is said.
 */
#ifndef OFFLOAD_WORK_H
#define OFFLOAD_WORK_H

#include <stdbool.h>

struct work {
	void (*run)(struct work *w);	/* no lock, no allocation, never waits */
	struct work *next;
};

/* Keeper. Starts the threads, at the first call. Never fails: without threads what is
 * put is run at once, by the pager. */
void work_open(void);
/* urgent: before what waits already. */
void work_put(struct work *w, bool urgent);
/* All that is finished, oldest first, or NULL. Never waits; the pager is rung
 * when there is something. */
struct work *work_done(void);
/* Child of a fork: no threads, nothing is under way. */
void work_reset(void);

#endif
