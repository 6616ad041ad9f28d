/* SPDX-License-Identifier: MIT */
/* placement.h - how much of the budget holds packed chunks. Internal to core/.
 *
 * Pager thread. policy/plan.c solves it; here its inputs are measured.
 */
#ifndef OFFLOAD_PLACEMENT_H
#define OFFLOAD_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

void placement_reset(void);
void placement_budget(uint32_t frames);	/* it is so much now, packed chunks included */
/* Once a turn. reads: of stored chunks, in flight. */
void placement_turn(uint32_t reads);
void placement_read(uint64_t bytes);	/* one is done */
/* A pass took so long, and threads waited for reads for so long in it. */
void placement_pass(uint64_t ns, uint64_t stall_ns);
/* A chunk that is packed is to be read all the same, to see how fast that is. */
bool placement_probe(void);
/* There is room for a chunk that could be had again otherwise; for one that would
 * have to be written. */
bool placement_room(void);
bool placement_roomy(void);	/* for several: what can be had again otherwise may use it */
bool placement_spare(void);
bool placement_planned(void);	/* a plan is in force */
/* More is packed than the plan wants, by what is there beside it. */
bool placement_over(void);
/* Room is to be made: placement_room found none since the last call; or, over, there
 * is more than may be. */
bool placement_short(bool *over);

#endif
