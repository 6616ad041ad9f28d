/* SPDX-License-Identifier: MIT */
/* policy.h - the one outward header of policy/.
 *
 * Decisions only: spans, tape, eviction, prefetch, placement. Pure C: no
 * I/O, no clock, no threads, no allocation, no globals. The caller supplies
 * memory and serialises calls; nothing here blocks. The same objects are
 * linked by the library (host regions now, device regions later) and by
 * `offctl simulate`, so a replay makes the decisions the library would make.
 *
 * A chunk is named by a dense id the caller chose. Where its bytes live is
 * one of four states:
 *
 *      ABSENT --fetch--> INFLIGHT --read done--> READY --install--> PLAIN
 *        ^                   |                     |  ^               |
 *        +-------------------+------- drop --------+  +---- soften ---+
 *        +------------------------------ evict ----------------------+
 *
 * READY means: the bytes are in a frame, but not where the program looks,
 * so the next use faults, cheaply, and is seen. A READY chunk left so on
 * purpose is a milestone.
 *
 * The policy is told what a pager can really see: faults. Uses of PLAIN
 * chunks are invisible to it; the simulator keeps them from it too.
 */
#ifndef OFFLOAD_POLICY_H
#define OFFLOAD_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- headers.c: spans from tensor container headers -------------------- */

enum pol_pattern {
	POL_LOOP,	/* used once per pass, in a known order */
	POL_SKEW,	/* used now and then: embedding rows, experts */
};

/* Where a chunk's bytes can come from, dearest last. Part of the interface
 * from the start: policies weigh the cost of a miss by it. */
enum pol_source {
	POL_SRC_PAGE_CACHE,
	POL_SRC_POOL,		/* packed in host memory */
	POL_SRC_HOST,		/* a host handle (device regions) */
	POL_SRC_SLOT,		/* spill file */
	POL_SRC_ORIGIN,		/* the file they came from */
};

enum pol_dtype {
	POL_DT_OTHER, POL_DT_F32, POL_DT_F16, POL_DT_BF16, POL_DT_QUANT,
};

struct pol_span {
	uint64_t off, len;	/* bytes, from the start of the file */
	uint64_t slab;		/* SKEW with experts: bytes of one expert; else 0 */
	uint32_t order;		/* rank of use in one pass, 0 first */
	uint32_t layer;		/* blk.N / layers.N, or UINT32_MAX */
	uint32_t expert;	/* first (or only) expert in it, or UINT32_MAX */
	uint32_t name_off;	/* the name, in the header buffer */
	uint16_t name_len;
	uint8_t pattern;	/* enum pol_pattern */
	uint8_t dtype;		/* enum pol_dtype */
	uint8_t dims;		/* 1: a vector */
};

enum pol_container {
	POL_FILE_UNKNOWN, POL_FILE_GGUF, POL_FILE_SAFETENSORS,
	POL_FILE_ZIP, POL_FILE_ONNX,
};

/* Tells a tensor container from its first bytes (64 suffice) and its file
 * name (only ONNX needs it: no magic number). Never POL_FILE_ZIP for a zip
 * that is not torch's: the first entry's name must hold "/data.pkl" or
 * "/byteorder" or ".format_version"... a torch archive's first members. */
enum pol_container pol_container_of(const void *head, size_t len,
				    const char *name);

/* Reads the header of a GGUF (v2, v3) or safetensors file whose first len
 * bytes are at buf, and writes at most max spans, in file order.
 * Returns the number of spans the header lists (more than max: only max
 * were written; call again), or -EAGAIN: the header is longer than len,
 * *need says how many bytes to bring (a guess that grows, never above
 * file_size), -EBADMSG: not such a header, or it points outside the file
 * (a truncated model): *need then holds the file size it wants, or 0. */
long pol_spans(const void *buf, size_t len, uint64_t file_size,
	       struct pol_span *out, size_t max, uint64_t *need);

/* How many experts a token uses by the same header, as far as it is in buf;
 * 0: it does not say. */
uint32_t pol_experts_used(const void *buf, size_t len);

/* ---- live.c: the policy the library runs -------------------------------- */

enum pol_state { POL_ABSENT, POL_INFLIGHT, POL_READY, POL_PLAIN };

enum pol_act {
	POL_NONE,	/* nothing to do until something happens */
	POL_FETCH,	/* ABSENT: read it (demand says which I/O class) */
	POL_INSTALL,	/* READY: put it where the program looks */
	POL_SOFTEN,	/* PLAIN: take it away, keep the frame (-> READY) */
	POL_EVICT,	/* READY or PLAIN: give its frame up (-> ABSENT) */
};

struct pol_action {
	enum pol_act act;
	uint32_t chunk;
	int demand;		/* FETCH: somebody waits for it */
};

struct pol;			/* lives in the caller's memory */

struct pol_conf {
	uint32_t max_chunks;	/* ids are below this */
	uint32_t frames;	/* chunks that may have a frame at once */
	uint32_t window;	/* most chunks fetched ahead (INFLIGHT + READY) */
	uint32_t seed;		/* torture only: 0 = no random choices */
};

/* Bytes pol_init needs, for max_chunks ids. Memory must be zeroed; pages of
 * chunks never added are never touched, so a large reservation is free. */
size_t pol_size(uint32_t max_chunks);
struct pol *pol_init(void *zeroed, const struct pol_conf *conf);

/* Adds n chunks first..first+n-1, all ABSENT, in file order, the first one
 * beginning at byte file_off of its file; spans as pol_spans wrote them
 * (n_spans 0: nothing known, file order is the guess). `order_base` is added to every span's
 * order, so that shards of one model can be put in sequence. */
void pol_add(struct pol *p, uint32_t first, uint32_t n, uint32_t chunk_bytes,
	     uint64_t file_off, const struct pol_span *spans, size_t n_spans,
	     uint32_t order_base);
/* Forgets chunks (unmapped). Their states no longer count. Ids may be added again. */
void pol_remove(struct pol *p, uint32_t first, uint32_t n);

/* A budget that moved: fewer frames are given back by EVICT actions. */
void pol_set_frames(struct pol *p, uint32_t frames);

/* The program waits for, or was seen to use, this chunk. `stream` tells
 * threads apart (any number; a thread id). In any state. Chunk ABSENT: a demand FETCH follows. READY: an
 * INSTALL of it follows first. INFLIGHT: INSTALL when it becomes READY. PLAIN: nothing to do, only noted. */
void pol_fault(struct pol *p, uint32_t chunk, uint32_t stream);

/* What to do next, most urgent first; the caller does it (or fails to) and
 * says the outcome with pol_moved before it asks again. io_room: reads that
 * may be started now (prefetch keeps within it; demand asks at >= 1). */
struct pol_action pol_next(struct pol *p, uint32_t io_room);
/* Not 0: somebody waits for a READY chunk, and pol_next will say so first. */
int pol_waiting(const struct pol *p);

/* The chunk is now in this state. A failed action reports the old state
 * (the policy then tries another way; see pol_pin for "never"). */
void pol_moved(struct pol *p, uint32_t chunk, enum pol_state st);

/* Known, ABSENT, and never had a frame: a program fills its memory, and what it will
 * hold is stored nowhere yet. The first time counts, for each chunk: blocks that come and
 * go fill no memory. */
void pol_born(struct pol *p, uint32_t chunk);

/* Pinned chunks keep their frame (mlock, written private pages, busy pages). */
void pol_pin(struct pol *p, uint32_t chunk, int pinned);

enum pol_state pol_state_of(const struct pol *p, uint32_t chunk);
/* Not 0: it is PLAIN, and not among those that are given up and fetched again
 * in each pass. */
int pol_stays(const struct pol *p, uint32_t chunk);

struct pol_counts {		/* running totals since pol_init */
	uint64_t faults;	/* pol_fault calls */
	uint64_t demand;	/* ... on ABSENT or INFLIGHT chunks */
	uint64_t milestones;	/* ... on READY chunks */
	uint64_t late;		/* ... on INFLIGHT chunks */
	uint64_t prefetches;	/* non-demand FETCH */
	uint64_t wasted;	/* evicted before the tape reached it */
	uint64_t evictions;
	uint64_t passes;	/* times the order wrapped around */
	uint32_t period;	/* LOOP chunks in one pass, 0 = unknown */
	uint32_t bound;		/* chunks the optimum fetches per pass now */
	uint32_t frames, used;	/* budget; INFLIGHT + READY + PLAIN */
	uint32_t skew, hold;	/* of it: kept for skewed chunks; fetched ahead */
	uint32_t known;		/* chunks there are */
	int fallback;		/* 1: the guard gave up on the order (CLOCK) */
};
void pol_counts(const struct pol *p, struct pol_counts *out);

/* ---- plan.c: how much of what is kept plain, packed, or not at all ------- */

#define POL_CLASSES 16

/* Where a byte's one copy may be. */
enum pol_tier {
	POL_TIER_DEVICE,	/* in device memory; only where there is a link */
	POL_TIER_PLAIN,
	POL_TIER_PACKED,
	POL_TIER_ABSENT,	/* read anew each time: from origin or slot */
	POL_TIERS
};

/* Spans that pack alike and are used alike. */
struct pol_class {
	double bytes;		/* raw */
	double uses;		/* of a byte in one pass, on average; a loop: 1 */
	double ratio;		/* raw bytes per packed one; <= 1: not packed */
	double unpack;		/* raw bytes/s of one core; 0: not packed */
	double unpack_device;	/* of the device, while it computes; 0: packed
				 * bytes are unpacked on this side of the link */
};

/* What a chunk costs beside its codec: it is taken out and put in place, and
 * somebody waits for it. Seconds of a processor per byte: 0.3 to 0.5 ms for 2 MiB
 * (seen in virtual machines, where a page table's change is dear). */
#define POL_HANDLING 0.2e-9
/* The same of a chunk that is read, and what the disk's driver takes: a virtual
 * disk is served by the very processors it is used by (seen: 0.16 to 0.2 ns/byte
 * of them, beside the handling). */
#define POL_READ_CPU 0.36e-9

/* Raw bytes/s of one core for struct pol_class, of a codec that does so many. */
static inline double pol_unpack_rate(double codec)
{
	return codec > 0 ? 1 / (1 / codec + POL_HANDLING) : 0;
}

struct pol_plan_in {
	double ram, vram;	/* bytes that may be held */
	double window;		/* of ram: frames of what is on its way */
	double disk;		/* bytes/s while the program computes */
	double link;		/* bytes/s; 0: the program computes in ram */
	double cores;
	double read_cpu;	/* seconds of a core per byte from disk */
	double compute;		/* seconds of one pass with all in place */
	/* How much of the lesser times is hidden behind the greatest, 0 to 1.
	 * 1 asks for frames for two groups at least: one used, one filled. */
	double overlap;
	/* A placement that reads nothing may take longer by that share: of times as
	 * uncertain as these, one needs no disk. 0: no longer. */
	double quiet;
	uint32_t n;
	struct pol_class class[POL_CLASSES];
};

#define POL_QUIET 0.15	/* of files: how far off plans are (six points seen) */

enum pol_bound {
	POL_BOUND_COMPUTE,
	POL_BOUND_DECODE,	/* processors, and some of it is unpacking */
	POL_BOUND_DISK,
	POL_BOUND_LINK,
	POL_BOUND_BALANCE,	/* DECODE, and disk or link as long */
};

struct pol_plan {
	double share[POL_CLASSES][POL_TIERS];	/* of a class; sum: 1 */
	double ram, vram;			/* bytes it holds, no window */
	/* Seconds of one pass: each by itself, then together. */
	double disk_s, link_s, compute_s, decode_s, read_s, seconds;
	double likely;		/* what a pass takes with that: pol_likely */
	enum pol_bound bound;
};

/* Finds the placement with the shortest pass within ram and vram:
 *
 *     seconds = overlap * longest + (1 - overlap) * sum   of
 *     disk    = absent bytes * uses / disk
 *     link    = bytes not on the device * uses / link
 *     cpu     = compute + packed bytes * uses / (unpack * cores)
 *                       + absent bytes * uses * read_cpu / cores
 *
 * What is packed crosses the link packed where the device unpacks it, else it is
 * unpacked first and crosses raw. With a link the program computes on the device:
 * compute is then no part of cpu, but a fourth time beside these.
 * An engine keeps all its cores busy, spinning when it waits: unpacking takes
 * its time from them, and that is a sum; reading is done beside it, but for
 * what it takes of the processors. Of plans
 * that take equally long, the one that reads, moves and unpacks least; and one that
 * reads nothing, if it takes no more than `quiet` longer. What
 * all fits plain needs no window. Exact: a linear program.
 * Returns 0, or -EINVAL: a number is negative or not finite, disk or cores
 * are 0, overlap is above 1, or there are too many classes. */
int pol_plan(const struct pol_plan_in *in, struct pol_plan *out);

/* Sets all but share from in and share: what a placement would take at other
 * rates. in as pol_plan accepts it. */
void pol_plan_times(const struct pol_plan_in *in, struct pol_plan *plan);

/* True: a rate, a budget or a class moved by a tenth or more since `was` was
 * solved, so that solving again may be worth it. */
bool pol_plan_stale(const struct pol_plan_in *was,
		    const struct pol_plan_in *now);
/* True: `next`, solved for `now`, is to replace `have`, which was solved
 * earlier for the same classes: it is shorter by 20 % at least, or reads nothing
 * any more and is no longer than `quiet` allows, or
 * `have` no longer fits the budgets. Moving bytes costs, too. */
bool pol_plan_adopt(const struct pol_plan_in *now, const struct pol_plan *have,
		    const struct pol_plan *next);

/* What a pass takes whose n parts take these times, each by itself: its longest
 * part as far as that is much longer than the rest, and more, by a fifth at most of
 * two, where others take nearly as long: now this one waits, now that one. The fourth root
 * of the sum of fourth powers, chosen to agree with what was seen (twelve points
 * of two models, full and slowed disks). overlap as in pol_plan_in. */
double pol_likely(const double *times, int n, double overlap);

/* Two stages that work on the same bytes, x and y seconds each by itself, of
 * which `overlap` (0 to 1) of the shorter is hidden: max + (1 - overlap) min.
 * Bytes read packed at b bytes/s and unpacked at d raw bytes/s so come at
 * 1 / pol_overlapped(1 / (b * ratio), 1 / d, overlap) raw bytes/s: from
 * min(b * ratio, d) down to b ratio / (1 + b ratio / d). */
double pol_overlapped(double x, double y, double overlap);

/* Chunks to be ahead of the program: ceil((latency + bytes / rate) / chunk_s),
 * 3 at least, POL_LEAD_MOST at most. latency, seconds: what a read takes
 * beside its own bytes, the queue before it included. rate: bytes/s. chunk_s:
 * seconds between two chunks the program needs. Where bytes / rate exceeds
 * chunk_s the disk is the bound: the lead keeps its queue full, no more. */
#define POL_LEAD_MOST 65536u
uint32_t pol_lead(double latency, double bytes, double rate, double chunk_s);

/* ---- homes.c: which extents of a device's regions are homed in it ---------- */

/* Looks with so many uses of a byte, on average, say something of a pass. */
#define POL_HOME_LOOK 4
/* A move has to pay within so many passes. */
#define POL_HOME_PAY 4

/* An extent: the first five are said anew before each look, the rest is the policy's (zeros
 * at first). A pass is as many bytes used as there are bytes in use. */
struct pol_home {
	uint64_t bytes;
	double uses;		/* of a byte, by kernels, since the last look */
	bool device;		/* its home is there */
	bool written;		/* by kernels: activations, caches */
	bool stays;		/* it cannot be moved */

	float rate, var;	/* uses in a pass: their mean over looks, and its variance */
	uint16_t looks;		/* that it was seen in, 0: none */
	uint16_t idle;		/* looks since its last use */
};

struct pol_homes_in {
	uint64_t room;		/* bytes the device can take as it is; for written extents */
	uint64_t spare;		/* of it, for what is only read */
	uint64_t host;		/* bytes the host can take */
};

/* Of the uses since the last look, in passes: 0 where nothing was used. */
double pol_homes_passes(const struct pol_home *h, uint32_t n);
/* Takes note of them: rates, averaged over some 16 looks. To be called once
 * pol_homes_passes says POL_HOME_LOOK at least: then what is used once in each pass differs
 * by a fourth at most, wherever the look falls, and nothing of it moves. */
void pol_homes_look(struct pol_home *h, uint32_t n);
/* What a byte costs in a pass if it is at the host, in crossings of the link. */
double pol_home_cost(const struct pol_home *h);

/* The moves that pay, in the order they are to be made: out[] numbers of extents, each to
 * the other side, most of them at the most; what makes room comes before what takes it.
 * Order: scratch for n numbers. Returns how many.
 *
 *     gain  = cost of what comes - cost of what goes, bytes * crossings in a pass
 *     moved if gain * POL_HOME_PAY >= bytes moved, and gain is no chance: it exceeds three
 *     deviations of what was seen
 *
 * So each move saves what it takes within POL_HOME_PAY passes, what is used alike never
 * moves, and what a move made better no later look undoes but by other uses. Before the
 * second look only the first rule is known: what is written and used belongs in the
 * device, before what is not written. */
uint32_t pol_homes(const struct pol_homes_in *in, const struct pol_home *h, uint32_t n,
		   uint32_t *order, uint32_t *out, uint32_t most);

/* ---- tape.c: tapes ------------------------------------------------------- */

/* Finds the period of a sequence of uses: the least d such that the last
 * half at least repeats with it (a few per cent of disorder allowed: sets of
 * nearby uses are compared, not exact order). 0: none. Scratch-free. */
uint32_t pol_period(const uint32_t *uses, size_t n);

/* ---- named.c, sim.c: for offctl simulate and the tests ------------------ */

/* A use of a chunk, as a tape records it. */
struct pol_use { uint32_t chunk, stream; };

struct pol_result {
	uint64_t uses, hits, fetched, evicted;
	uint64_t demand, milestones, wasted;	/* live policy only, else 0 */
};

/* Names, NULL-terminated: "live" first, then lru clock lfu wa-lru heat mru belady. */
extern const char *const pol_names[];
/* Scratch bytes pol_simulate needs. */
size_t pol_simulate_size(size_t uses, uint32_t chunks);
/* Replays a tape against one named policy with so many frames. For "live", spans
 * may be given (else NULL, 0). Chunk ids < chunks. scratch need not be zeroed.
 * Returns 0, -ENOENT unknown name, -EINVAL. */
int pol_simulate(const char *name, const struct pol_use *tape, size_t n,
		 uint32_t chunks, uint32_t frames, uint32_t window,
		 const struct pol_span *spans, size_t n_spans,
		 uint32_t chunk_bytes, void *scratch, struct pol_result *out);

#endif
