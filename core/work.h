/* SPDX-License-Identifier: MIT */
/* work.h - what the pager gives to other threads: hashing, comparing, copying
 * of whole frames. Internal to core/.
 *
 * A work belongs to the workers from work_put until its `over` is called;
 * so does the memory it looks at. Pager thread, where nothing else is said.
 */
#ifndef OFFLOAD_WORK_H
#define OFFLOAD_WORK_H

#include <stdbool.h>
#include <stdint.h>

struct work {
	void (*run)(struct work *w);	/* no lock, no allocation; waits for a file at most */
	void (*over)(struct work *w);	/* pager, when it has run */
	struct work *next;
};

/* Keeper, when it starts: address space for the threads. */
void work_reserve(void);
/* Keeper. Starts the threads, at the first call. Never fails: without threads what is
 * put is run at once, by the pager. */
void work_open(void);
bool work_threads(void);	/* there are some */
/* What goes first; among equals, what came first. */
enum work_class {
	WORK_WAITED,	/* a thread of the program waits for the chunk */
	WORK_IN,	/* it is on its way in */
	WORK_OUT,
	WORK_CLASSES,
};
void work_put(struct work *w, enum work_class class);
/* Calls over of all that is finished, oldest first; returns how many. Never waits;
 * the pager is rung when there is something. */
int work_finish(void);
uint32_t work_processors(void);	/* that this process may use; any thread */
/* Child of a fork: no threads, nothing is under way. */
void work_reset(void);

#endif
