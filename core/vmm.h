/* SPDX-License-Identifier: MIT */
/* vmm.h - device memory that the library places: part of core.h.
 *
 * A large allocation is addresses of ours, cut into extents. Each has a home: memory of
 * the device, or host memory that the device reads over the link. So every address given
 * to the program always reaches the right bytes (R3); where they lie is a matter of speed.
 *
 * A device is its number in the driver's list, a context an opaque word. The driver is
 * called through one table, so that core/ knows nothing of it, and so that a test can
 * have each operation fail. Calls come from the program's threads; errno is kept.
 */
#ifndef OFFLOAD_VMM_H
#define OFFLOAD_VMM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What is asked of the driver. 0 or -errno: -ENOMEM none left, -EINVAL and -ENOTSUP it
 * refuses such a thing, anything else is its state (a sticky error, the end). Called by one
 * thread at a time. Lengths and addresses are multiples of the granularity. */
struct vmm_ops {
	int (*granularity)(int dev, bool host, uint64_t *bytes);
	/* *at: there if it can be, 0: anywhere; then where it is. */
	int (*reserve)(uint64_t *at, uint64_t len);
	int (*unreserve)(uint64_t at, uint64_t len);
	int (*create)(int dev, bool host, uint64_t len, uint64_t *handle);
	int (*release)(uint64_t handle);
	int (*map)(uint64_t at, uint64_t len, uint64_t handle);
	int (*unmap)(uint64_t at, uint64_t len);
	/* Read and write, for each device of the mask. */
	int (*access)(uint64_t at, uint64_t len, uint32_t devices);
	/* Host memory that the device reaches as it is, at an address of its own. */
	int (*pin)(uintptr_t ctx, uint64_t len, uint64_t *at);
	int (*unpin)(uintptr_t ctx, uint64_t at);
	/* Returns when all that any context of the process has queued is done. */
	int (*drain)(uintptr_t ctx);
	/* Streams that wait for no other by themselves, and events, which end with the
	 * context. done: 0, or -EAGAIN. */
	int (*stream)(uintptr_t ctx, uintptr_t *stream);
	int (*event)(uintptr_t ctx, uintptr_t *event);
	int (*record)(uintptr_t event, uintptr_t stream);
	int (*wait)(uintptr_t stream, uintptr_t event);
	int (*done)(uintptr_t event);
	int (*send)(uintptr_t stream, uint64_t to, uint64_t from, uint64_t len);
	/* To memory of ours, by that stream; done when it returns. */
	int (*fetch)(uintptr_t ctx, uintptr_t stream, void *to, uint64_t from, uint64_t len);
	/* From memory of ours; done when it returns. */
	int (*fill)(uintptr_t ctx, uint64_t to, const void *from, uint64_t len);
	/* As access, but nobody may write there. */
	int (*read_only)(uint64_t at, uint64_t len, uint32_t devices);
	/* Memory that the driver moves; where it shall be. now: it is there when this
	 * returns. can_manage: 0, or the device does not map what is elsewhere. */
	int (*can_manage)(int dev);
	int (*managed)(uintptr_t ctx, uint64_t len, uint64_t *at);
	int (*unmanaged)(uintptr_t ctx, uint64_t at);
	int (*prefer)(uintptr_t ctx, uint64_t at, uint64_t len, int dev, bool host, bool now);
	/* Done when it returns. */
	int (*copy)(uintptr_t ctx, uint64_t to, uint64_t from, uint64_t len);
	int (*free_bytes)(uintptr_t ctx, uint64_t *bytes);
};

/* ---- the gate: vmm_gate.c ------------------------------------------------------- */

/* A region was placed: from here on what queues work goes through the gate. */
extern _Atomic bool vmm_on;

void vmm_gate_in(void);
void vmm_gate_out(void);

/* Around each call that queues work which could touch placed memory: it waits while homes
 * are moved. Not nested. Two atomic additions, no lock; nothing while nothing is placed. */
static inline bool vmm_enter(void)
{
	if (!atomic_load_explicit(&vmm_on, memory_order_relaxed))
		return false;
	vmm_gate_in();
	return true;
}

/* Set from the start or not at all. */
extern bool vmm_torture;

static inline void vmm_leave(bool entered)
{
	if (entered)
		vmm_gate_out();
}

/* A capture begins (1) or ends (-1): homes stay and requests pass while there is one. */
void vmm_capture(int n);
bool vmm_captures(void);	/* there is one */

/* ---- regions: vmm.c ---------------------------------------------------------------- */

/* The driver's table; the first call counts. False: OFFLOAD_DEVICE=off, or not in this
 * program. */
bool vmm_begin(const struct vmm_ops *ops);

/* True: a request of len bytes on the device is ours. Cheap for small ones. refused: the
 * driver said that its memory is used up; from now on large requests are ours, and this
 * one however small it is. */
bool vmm_wants(int dev, uintptr_t ctx, uint64_t len, bool refused);

/* Places len bytes. *number: the region, for what follows (above 0). 0; -EAGAIN: the driver
 * is to allocate it, as it is asked; -ENOMEM: budget and host memory together cannot hold
 * it; other -errno: the driver's, nothing was changed. */
int vmm_alloc(int dev, uintptr_t ctx, uint64_t len, uint64_t *at, uint32_t *number);
/* Waits for all that is queued, as the driver's own does, then gives all of it back. 0 or
 * -errno of the driver's: nothing was changed. */
int vmm_free(uint32_t number);
/* Its context is gone: every region of it ends. */
void vmm_drop_owner(uintptr_t ctx);
/* It must stay where it is: somebody knows more of it than its address. */
void vmm_fix(uint32_t number);
/* Never the same for two regions of a process. */
uint64_t vmm_serial(uint32_t number);

/* Bytes from addr on, len at most, that lie in homes of one kind. Between vmm_enter and
 * vmm_leave. */
uint64_t vmm_run(uint64_t addr, uint64_t len);

/* Before the driver allocates len bytes for itself (again: it said there are none): homes
 * leave the device if they must. True: some did. */
bool vmm_make_room(int dev, uintptr_t ctx, uint64_t len, bool again);

/* The program has waited for all its work, which has one context: homes may change places now. */
void vmm_idle(int dev);
/* ---- launches: vmm_stage.c ------------------------------------------------------------- */

#define VMM_WORDS 32

/* A launch whose arguments have words that are addresses, or ends, of regions; changed
 * where it is given other addresses of the same bytes. */
struct vmm_launch {
	int dev;
	uintptr_t ctx, stream, fn;
	uint32_t n;			/* words; above VMM_WORDS: too many, left alone */
	struct { uint32_t word; uint64_t value, other; } arg[VMM_WORDS];
	bool changed;			/* `other` instead of `value` */
	/* vmm_stage.c's: */
	uint32_t n_pins, trial;
	void *pin[4];
};

/* OFFLOAD_STAGE, and a region has homes on the host. */
extern _Atomic bool vmm_stages;

/* Around the launch, inside the gate. queued: the driver took it. */
void vmm_launch_begin(struct vmm_launch *l);
void vmm_launch_end(struct vmm_launch *l, bool queued);
/* The same arguments in a graph, which is launched without us: what is not shown to be
 * read only may be written from now on. */
void vmm_launch_kept(const struct vmm_launch *l);
/* Work whose arguments are not known, or are made again without us: what the address is in may
 * be written; 0: anything may. */
void vmm_doubt(uint64_t addr);
/* A copy or memset to [addr, addr + len) was queued on a stream. */
void vmm_wrote(uint64_t addr, uint64_t len, uintptr_t stream);
/* The program waited for something: is there news of what was launched? */
void vmm_synced(void);

/* ---- spilled homes: vmm_reach.c (OFFLOAD_DEVICE_DEEP=1) ---------------------------------- */

/* Regions may have extents without a home, whose bytes are in a file. From then on. */
extern _Atomic bool vmm_deep;

#define VMM_RANGES 256
/* len 0: the whole region that the address is in, or ends, and what addresses in there lead
 * to. */
struct vmm_range { uint64_t at, len; };
/* What a call can touch. all: anything; kernel: what variables of modules lead to, too. */
struct vmm_reach { uint32_t n; bool all, kernel; struct vmm_range range[VMM_RANGES]; };

/* Nothing, yet: the ranges are not cleared, for this is on the way of each call. */
static inline void vmm_reach_none(struct vmm_reach *w)
{
	w->n = 0;
	w->all = w->kernel = false;
}

static inline void vmm_reach_add(struct vmm_reach *w, uint64_t at, uint64_t len)
{
	if (w->n < VMM_RANGES)
		w->range[w->n++] = (struct vmm_range){ at, len };
	else
		w->all = true;
}

/* vmm_enter, and all of it has homes until vmm_leave: 0. -errno: not inside; said why. */
int vmm_enter_reach(const struct vmm_reach *w, bool *in);
/* Inside the gate: all of it has homes now. */
bool vmm_reached(const struct vmm_reach *w);
/* Bytes from addr on, len at most, that lie in one extent. Any thread. */
uint64_t vmm_in_extent(uint64_t addr, uint64_t len);
/* Device memory at `to` gets the host's bytes: which of them are addresses of regions? now:
 * it has what was there no longer. */
void vmm_points(uint64_t to, const void *from, uint64_t len, bool now);
/* It gets other device memory's; to 0: that at `from` ends. */
void vmm_points_moved(uint64_t to, uint64_t from, uint64_t len, bool now);
/* A kernel touched what no argument of its led to, it seems: says so, once. */
void vmm_reach_missed(void);

/* OFFLOAD_TORTURE, before a launch on the device: homes move for no reason. */
void vmm_tortured(int dev);

/* Kernels of the device reach memory of another, from now on. */
void vmm_peer(int dev, int of);

/* Host bytes that homes may take beside those they have. */
uint64_t vmm_host_room(void);

#endif
