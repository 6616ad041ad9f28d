/* SPDX-License-Identifier: MIT */
/* vmm_int.h - what the files of placed device memory know of each other.
 *
 * One thread at a time changes anything ("the turn"): it is no lock, for it is kept while
 * the driver waits for the device (R7), and a fork forgets it. Whoever reads extents is
 * inside the gate, or has the turn; whoever changes them has the turn and has closed the
 * gate.
 */
#ifndef OFFLOAD_VMM_INT_H
#define OFFLOAD_VMM_INT_H

#include "core/device_int.h"
#include "core/vmm.h"

#define KEPT_ALL	10u	/* of 64 parts of the budget, and extents at least: kept free */
#define VMM_REGIONS	8192u
#define VMM_EXTENT	(32ull << 20)	/* bytes; less where the budget is small */

/* How a device lets memory be placed. */
enum vmm_mode {
	VMM_UNKNOWN,
	VMM_MIXED,	/* homes of both kinds in one region */
	VMM_WHOLE,	/* the driver refuses that: a region is the driver's, or pinned */
	VMM_MANAGED,	/* the driver moves it, as it is told */
};

struct vmm_extent {
	uint64_t handle;
	bool host;
	bool spilled;		/* no home: what bytes it has are in the file (vmm_spill.c) */
};

struct vmm_region {
	uint64_t base, len;	/* len: as asked */
	uint64_t size;		/* mapped */
	uint64_t extent, serial;
	uintptr_t ctx;
	int dev;
	uint32_t number, n;	/* n: extents; 0: pinned as a whole */
	bool fixed, managed;
	bool apart;		/* no number that is not an address looks like one of it */
	struct vmm_shown *shown;	/* vmm_stage.h; or NULL */
	struct vmm_piece *piece;	/* vmm_spill.c; NULL: never spilled */
	uint32_t n_spilled;	/* extents. By atomics */
	uint64_t used_at, every;	/* uses of regions counted: the last of this one, and how
					 * many lay between the last two. By atomics */
	uint32_t after;		/* number of the region that was used next. By atomics */
	uint64_t want;		/* of the call that is being served now: its extents */
	uint32_t want_lo, want_hi;
	struct vmm_extent ext[];
};

struct vmm_device {
	enum vmm_mode mode;
	bool pressed;
	uint64_t gran, extent, least;	/* least: smaller requests pass */
	uint64_t keep;		/* of the budget: for what is not ours to place */
	uint32_t peers;		/* devices that reach it, itself included */
	uint64_t window;	/* addresses for one extent, to move it; or 0 */
};

extern const struct vmm_ops *vmm_ops;
extern struct vmm_device vmm_dev[DEVICES];

void vmm_take_turn(void);
bool vmm_try_turn(void);	/* false: another has it */
void vmm_give_turn(void);

static inline uint64_t vmm_at(const struct vmm_region *r, uint32_t i)
{
	return r->base + i * r->extent;
}

static inline uint64_t vmm_bytes(const struct vmm_region *r, uint32_t i)
{
	return i + 1 < r->n ? r->extent : r->size - i * r->extent;
}

static inline uint64_t vmm_stat(int dev, enum device_stat i)
{
	return __atomic_load_n(&off_stats_now->device[dev].v[i], __ATOMIC_RELAXED);
}

/* In the turn, or inside the gate. NULL: no such region. */
struct vmm_region *vmm_nth(uint32_t number);
/* The same of the region that the address is in, if its memory is placed. */
struct vmm_region *vmm_of(uint64_t addr);

/* ---- vmm_gate.c ----------------------------------------------------------------- */

/* Closes the gate with nothing queued anywhere. 0: whoever comes waits until
 * vmm_gate_open, and that is counted at dev; -errno of the drain; -EBUSY: somebody
 * captures, or stays inside. */
int vmm_gate_close(int dev, uintptr_t ctx);
void vmm_gate_open(void);

/* ---- vmm_pool.c: handles, recycled ------------------------------------------------ */

/* 0, -ENOMEM (the budget is not looked at), or -errno of the driver's. */
int vmm_handle_get(int dev, bool host, uint64_t len, uint64_t *handle);
void vmm_handle_put(int dev, bool host, uint64_t len, uint64_t handle);
/* Memory of a kind came, or went: bytes below 0. */
void vmm_count(int dev, bool host, int64_t bytes);
/* Gives back what is kept for later, of a device. True: there was some of its memory. */
bool vmm_handle_flush(int dev);
/* a - b, at least 0. */
static inline uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* Bytes of what is kept for later. Any thread. */
uint64_t vmm_spare(int dev, bool host);
/* Bytes of the host that homes of the device may still take, what is kept included. */
uint64_t vmm_host_left(int dev);
/* Bytes of the device that homes may still take, leaving `keep` of the budget. */
uint64_t vmm_room(int dev, uintptr_t ctx, uint64_t keep);

/* Of n extents, is the i-th one of the `many` that the device holds? */
bool vmm_in_device(uint32_t i, uint32_t n, uint32_t many);

/* The homes of a device's regions are extents, and can move. */
static inline bool vmm_moves(int dev)
{
	return vmm_dev[dev].mode == VMM_MIXED || vmm_dev[dev].mode == VMM_MANAGED;
}

/* One of the device's whose homes may change. */
static inline bool vmm_movable(const struct vmm_region *r, int dev)
{
	return r && r->dev == dev && r->n && !r->fixed;
}

/* ---- vmm_managed.c: in the turn --------------------------------------------------- */

bool vmm_managed_able(int dev);
/* So many extents in the device. 0 or -errno of the driver's: nothing is placed. */
int vmm_managed_place(struct vmm_region *r, uint32_t many);
void vmm_managed_end(struct vmm_region *r);
int vmm_managed_move(struct vmm_region *r, uint32_t i);	/* as vmm_move */

/* ---- vmm_move.c --------------------------------------------------------------------- */

/* In the turn, the gate closed: the extent's home goes to the other side. 0 or -errno: it
 * is where it was. */
int vmm_move(struct vmm_region *r, uint32_t i);
/* In the turn. Moves homes of at least so many bytes from the device to the host.
 * Returns how many bytes moved. */
uint64_t vmm_evict(int dev, uintptr_t ctx, uint64_t bytes);
/* OFFLOAD_TORTURE: homes of the device move for no reason. In the turn. */
void vmm_shuffle(int dev);

/* ---- vmm_spill.c: in the turn ------------------------------------------------------ */

/* Homes of a device's regions may be spilled. */
bool vmm_deep_on(int dev);
/* The file can hold so many bytes more of the region; it gets what it needs to be spilled.
 * 0 or -errno, said. */
int vmm_spill_begin(struct vmm_region *r, uint64_t bytes);
/* An extent that was just made has no home, and no bytes yet. 0 or -ENOSPC. */
int vmm_spill_fresh(struct vmm_region *r, uint32_t i);
/* The gate closed. Its home is given up for the file; or it gets one. 0 or -errno: it is as
 * it was. */
int vmm_spill_out(struct vmm_region *r, uint32_t i);
int vmm_spill_in(struct vmm_region *r, uint32_t i);
/* Up to so many pieces of a spilled extent are read from the file, for when it comes home;
 * the gate may be open. How many of them are, or are on their way; VMM_AHEAD in all. */
#define VMM_AHEAD	8u
uint32_t vmm_spill_ahead(struct vmm_region *r, uint32_t i, uint32_t most);
/* Child of a fork. */
void vmm_spill_child(void);
/* Of those that the call `want` may do without (0: of all), the one goes out that is used
 * furthest from now, not before `before`. 0; -ENOMEM: there is none; -errno: it stayed. */
int vmm_spill_one(int dev, uint64_t want, uint64_t before);
/* The extent may be spilled at all. */
bool vmm_spillable(const struct vmm_region *r);
/* The region ends. */
void vmm_spill_end(struct vmm_region *r);

/* vmm_points.c: each address in [at, at + len) of device memory. */
void vmm_points_in(uint64_t at, uint64_t len, void (*point)(uint64_t value, void *arg), void *arg);
/* And each in variables of modules: any kernel of theirs can reach them. */
void vmm_points_global(void (*point)(uint64_t value, void *arg), void *arg);
void vmm_points_child(void);
void vmm_reach_child(void);

/* ---- vmm_views.c, vmm_show.c, vmm_stage.c --------------------------------------------- */

/* In the turn, the gate closed: its homes may change then. */
void vmm_views_end(struct vmm_region *r);
void vmm_views_free(struct vmm_region *r);	/* and it ends */
void vmm_stager_end(uintptr_t ctx);	/* the gate may be open: it is gone */
void vmm_views_child(void);
void vmm_show_child(void);

/* ---- vmm_graph.c: in the turn, the gate closed --------------------------------------------- */

/* The extent's home is the handle's now. False: the old handle is still mapped somewhere. */
bool vmm_graphs_moved(const struct vmm_region *r, uint32_t i, uint64_t handle);
/* The views of launches ended, so that its epoch is another, but not its bytes. */
void vmm_graphs_epoch(const struct vmm_region *r, uint32_t was);
void vmm_graphs_region_end(const struct vmm_region *r);
void vmm_graphs_owner_end(uintptr_t ctx);	/* the gate may be open */
/* Those that ended, whose work is done. dying: there are some; in the turn. */
void vmm_graphs_reap(void);
bool vmm_graphs_dying(void);
void vmm_graphs_child(void);

/* ---- vmm_use.c: in the turn ---------------------------------------------------------- */

struct vmm_place { struct vmm_region *region; uint32_t extent; };

/* Uses of some passes were counted: a look tells something. Any thread. */
bool vmm_uses_tell(void);
/* All extents of the device as the policy sees them, and whose they are, in one block for
 * mem_free; uses of some passes become rates. NULL: no memory. */
struct pol_home *vmm_look(int dev, struct vmm_place **at, uint32_t *n);
/* What a byte of the extent costs at the host, as far as it was looked at: pol_home_cost. */
double vmm_cost(const struct vmm_region *r, uint32_t i);
void vmm_use_child(void);

/* ---- vmm_settle.c ------------------------------------------------------------------- */

void vmm_requested(void);	/* in the turn: a region came or went */

/* ---- forks ------------------------------------------------------------------------------ */

void vmm_lock(void);
void vmm_unlock(void);
void vmm_child(void);
void vmm_gate_child(void);
void vmm_pool_lock(void);
void vmm_pool_unlock(void);
void vmm_pool_child(void);

#endif
