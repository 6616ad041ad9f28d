/* SPDX-License-Identifier: MIT */
/* vmm_stage.h - what vmm_stage.c, vmm_views.c and vmm_show.c know of each other.
 *
 * `vmm_stage_lock` (leaf) guards keys, trials, banks and who holds what; the driver is not
 * called with it. Views are made and ended in the turn; ended with the gate closed, too.
 */
#ifndef OFFLOAD_VMM_STAGE_H
#define OFFLOAD_VMM_STAGE_H

#include "core/vmm_int.h"

/* Of what is kept free of the budget where launches are staged, in tenths: for slots of
 * launches, and of graphs. The rest is for what is not ours to place. */
#define KEPT_SLOTS	4u
#define KEPT_GRAPHS	2u

#define BANKS	4u
#define USES	8u		/* streams that use a bank */
#define VIEWS	256u		/* of a region */
#define STARTS	1024u		/* of a region: addresses that kernels were given */
#define WRITES	4u		/* streams that fill a region at a time */

/* The whole region at other addresses, read only; some extents are slots of a bank. */
struct vmm_view {
	uint64_t at, start;	/* start: the address it stands for */
	uint32_t bank, first, n;	/* extents [first, first + n): staged if on the host */
	struct vmm_region *region;
	uint32_t epoch;		/* of the region's shown */
	uint64_t next_start;	/* of the one whose turn was after this one's */
	uint32_t next_region;	/* its number; 0: not seen yet */
};

struct vmm_stream_event { uintptr_t stream, event; };

/* What is known of a region's bytes. */
struct vmm_shown {
	bool doubt;		/* somebody writes it, or may: never staged again */
	bool refused;		/* no views of it can be made */
	uint32_t epoch;		/* of its bytes: the host filled it anew */
	uint64_t probe;		/* addresses that are its homes once more; or 0 */
	struct vmm_view *view[VIEWS];
	uint32_t n_views, n_starts, n_writes;
	uint64_t start[STARTS];	/* in order */
	struct vmm_stream_event write[WRITES];
	struct { uint64_t value; uint32_t epoch, pass; bool known; } hash[];
};

struct vmm_bank {
	struct vmm_view *holds;	/* its bytes are there, or on their way */
	uintptr_t ready;	/* event: they are */
	uint64_t at;		/* the slots, writable */
	uint32_t pins, n_use;
	bool loading, used;
	struct vmm_stream_event use[USES];
};

struct vmm_stager {
	bool tried, open;
	uintptr_t ctx, stream, before;	/* before: event of what was queued before a load */
	uint32_t n_banks, per;		/* slots of a bank */
	bool part;		/* a slot may be mapped in part, for what is shorter */
	uint64_t handle[64];
	struct vmm_bank bank[BANKS];
	uint32_t next;
	struct vmm_view *last;	/* used last, by any launch */
};

extern struct vmm_stager vmm_stager[DEVICES];

/* It is brought to a slot. */
static inline bool vmm_slotted(const struct vmm_region *r, uint32_t i)
{
	return r->ext[i].host && (vmm_bytes(r, i) == r->extent || vmm_stager[r->dev].part);
}

void vmm_stage_lock(void);
void vmm_stage_unlock(void);

/* ---- vmm_views.c: in the turn ------------------------------------------------- */

/* The bank's memory, the stream, the events. False: none to be had. */
bool vmm_stager_open(int dev, uintptr_t ctx);
/* NULL: cannot. */
struct vmm_view *vmm_view_make(struct vmm_region *r, uint64_t start);
bool vmm_probe_make(struct vmm_region *r);
/* The end of a window that begins with start's extent: a number of extents. */
uint32_t vmm_window(const struct vmm_region *r, uint64_t start, uint32_t *first);
/* (in the turn) Extents [0, n) of a view at `at` unmapped, its addresses given back. */
void vmm_take_down(const struct vmm_region *r, uint64_t at, uint32_t n);

/* ---- vmm_show.c ------------------------------------------------------------------ */

struct vmm_shown *vmm_shown_of(struct vmm_region *r, bool make);
/* Compares the slots of the view's bank, which hold it still, with what its extents were.
 * A difference puts the region in doubt; where launches may have been given bytes of
 * before, it ends the process. Behind what our stream waits for. */
void vmm_verify(const struct vmm_view *v);

#endif
