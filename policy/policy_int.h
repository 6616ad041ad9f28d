/* SPDX-License-Identifier: MIT */
/* policy_int.h - what the files of policy/ share, sectioned by owner.
 *
 * Only policy/ and its unit tests include this. Nothing here locks: the
 * caller serialises every call (policy.h).
 */
#ifndef OFFLOAD_POLICY_INT_H
#define OFFLOAD_POLICY_INT_H

#include "policy/policy.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define POL_NIL UINT32_MAX

/* ---- header.c: a bounded reader and what every container shares -------- */

struct pol_head {
	const uint8_t *buf;
	uint64_t len, pos;	/* bytes at hand, bytes read */
	uint64_t file_size;
	uint64_t need;		/* see pol_spans */
	int err;		/* first error sticks: 0, -EAGAIN, -EBADMSG */
	struct pol_span *out;
	size_t max, n;		/* room in out, spans seen */
	uint32_t experts_used;	/* see pol_experts_used */
};

/* Claims n bytes and returns them, or NULL with h->err set. */
const uint8_t *pol_head_take(struct pol_head *h, uint64_t n);
/* Little-endian integers; 0 once h->err is set. */
uint32_t pol_head_u32(struct pol_head *h);
uint64_t pol_head_u64(struct pol_head *h);
/* Sets -EBADMSG unless an error is set already; need as pol_spans says. */
void pol_head_bad(struct pol_head *h, uint64_t need);
/* Hands over one span; kept when there is room for it. */
void pol_head_emit(struct pol_head *h, const struct pol_span *s);

/* gguf.c, safetensors.c: read the whole header through h. They set off, len
 * (UINT64_MAX: up to the next span), slab, name, dtype. */
void pol_gguf(struct pol_head *h);
void pol_safetensors(struct pol_head *h);

/* ---- names.c: what a tensor's name says -------------------------------- */

/* Fills layer, expert, order and pattern of n spans, whose names lie in
 * buf, and leaves them sorted by offset. Heapsort in place, no memory. */
void pol_names_rank(const uint8_t *buf, struct pol_span *s, size_t n);
/* True when the name is one of many experts' tensors (3-D stack). */
bool pol_name_is_stack(const uint8_t *name, size_t len);
/* True when needle occurs in the name. */
bool pol_name_has(const uint8_t *name, size_t len, const char *needle);

/* ---- simplex.c: a small linear program ---------------------------------- */

#define POL_LP_COLS (3 * POL_CLASSES + 1)
#define POL_LP_ROWS (POL_CLASSES + 6)

struct pol_lp {			/* about 12 KB: fine on a stack */
	uint32_t rows, cols;
	double goal[2][POL_LP_COLS];	/* the caller's to fill */
	double row[POL_LP_ROWS][POL_LP_COLS];
	double rhs[POL_LP_ROWS];
	uint32_t col_var[POL_LP_COLS];	/* variables: columns, then slacks */
	uint32_t row_var[POL_LP_ROWS];
};

/* An empty program of so many variables, at most POL_LP_COLS. */
void pol_lp_init(struct pol_lp *lp, uint32_t cols);
/* One more row, at most POL_LP_ROWS, of zeros for the caller to fill; rhs >= 0. */
double *pol_lp_row(struct pol_lp *lp, double rhs);
/* Solves it; cols values at x. A goal without a bound is left at a corner from
 * which it could go on forever. */
void pol_lp_solve(struct pol_lp *lp, double *x);

/* ---- live.c: the live policy's state ----------------------------------- */

/* Lists a chunk can be on, one at a time. */
enum pol_list {
	L_NONE,
	L_FETCH,	/* demanded, ABSENT */
	L_INST,		/* demanded, READY */
	L_ACTIVE,	/* skewed, PLAIN, oldest first */
	L_SOFT,		/* skewed, READY, next victim first */
	L_COOL,		/* an action on it failed: left alone for a pass */
	L_N,
};

/* Bitmaps over positions in the order of use. */
enum pol_map {
	B_ABSENT,	/* worth a prefetch */
	B_LACK,		/* not PLAIN, trusted: a use of it would be seen */
	B_READY,	/* READY, ahead: may be installed in a batch */
	B_VICTIM,	/* PLAIN, or READY and not ahead: may be evicted */
	B_HOLE,		/* of these, the holes */
	B_AHEAD,	/* fetched ahead and not passed yet */
	B_WASTE,	/* READY, and its turn went by */
	B_N,
};

enum {			/* pol_chunk.flags */
	F_KNOWN = 1,	/* added */
	F_SKEW = 2,	/* its span says so: no place in the order */
	F_PINNED = 4,
	F_DEMAND = 8,	/* somebody waits for it */
	F_PREF = 16,	/* fetched ahead, no use seen since */
	F_AHEAD = 32,	/* see B_AHEAD */
	F_WASTE = 64,	/* see B_WASTE */
	F_COOL = 128,	/* see L_COOL */
	F_SPAN = 256,	/* its order comes from a span */
	F_NEW = 512,	/* added, not sorted in yet */
	F_DORMANT = 1024, /* in the order, but not in the loop in force */
	F_JUMP = 2048,	/* its first fault of the epoch was a jump */
	F_RECENT = 4096, /* among the last faults: see pol.recent */
	F_HOLE = 8192, /* streamed: read and given up again each pass, see pick.c */
	F_BORN = 16384, /* never fetched: stored nowhere, giving it up costs a write */
};

#define POL_SHARED 256u		/* see (O4) in order.c */
#define POL_CONF_START 2	/* prefetched, but not installed unseen */
#define POL_CONF_MAX 3

/* What confidence the loop class asks for. */
enum pol_trust {
	TRUST_NEW = 2,		/* chunks of which nothing is known yet */
	TRUST_NONE = 4,		/* fallback: the order is no use */
};

struct pol_chunk {
	uint32_t pos;		/* in the order; POL_NIL for F_SKEW */
	uint32_t order;		/* rank from the spans, base added */
	uint32_t stamp;		/* fault clock at its first fault of the epoch */
	uint32_t pass;		/* pass in which a use was last seen */
	uint32_t prev, next;	/* in its list */
	uint32_t stack;		/* 1 + its expert stack, 0: none */
	uint32_t softened;	/* L_SOFT: in which pass */
	uint16_t flags;
	uint8_t state;		/* enum pol_state */
	uint8_t list;		/* enum pol_list */
	uint8_t conf;		/* that a prefetch of it is used */
	uint8_t streak;		/* passes in a row with a use seen */
	uint8_t heat;		/* uses seen since it was fetched */
	uint8_t rounds;		/* turns it is spared before it is softened */
	bool lived;		/* born once: outlives pol_remove */
};

struct pol_fifo { uint32_t head, tail, n; };

/* A tensor whose experts lie one after another (or one expert's tensor). */
struct pol_stack {
	uint64_t off, len, slab;	/* bytes in the file */
	uint64_t base;			/* file offset of chunk `first` */
	uint32_t first, n;		/* the chunks added with it */
	uint32_t chunk_bytes;
	uint32_t serial, layer, expert;	/* which siblings belong together */
	uint32_t next;			/* 1 + next of the same hash bucket */
};

#define POL_STACKS_MAX 65536u
#define POL_BUCKETS 1024u
#define POL_STREAMS 16u
#define POL_WISHES 8u
#define POL_RECENT 16u

struct pol_stream { uint32_t id, pos, when; };

/* Experts whose other parts are wanted now. */
struct pol_wish { uint32_t serial, layer, expert, left; };

struct pol {
	struct pol_conf conf;
	uint32_t frames, window;	/* in force */
	uint32_t hold;			/* window once frames are full */
	uint32_t count[4];		/* known chunks by state */
	uint32_t n_known;
	uint32_t n_loop;		/* of them, in the loop class */
	uint32_t used_loop;		/* frames of the loop class */
	uint32_t skew_quota;		/* frames the skewed ones may keep */
	uint32_t thrash;		/* demands without a second chance used */
	struct pol_fifo list[L_N];
	uint32_t asked;			/* chunk of the last action */
	uint32_t rng, mischief;		/* torture */
	uint32_t recent[POL_RECENT];	/* 1 + chunk; 0: empty */
	uint32_t recent_at;

	/* order.c */
	uint32_t n_seq;			/* chunks in seq */
	uint32_t n_pos;			/* of them, the loop in force: the first */
	uint32_t gaps;			/* of n_seq, places of chunks no longer known */
	uint32_t late;			/* at its end, not sorted in */
	uint32_t lead, tail, from;	/* positions, see order.c */
	uint32_t lag_seen, lag_prev;	/* how far threads trail, this pass */
	uint32_t cand;			/* a jump's target, to be confirmed */
	uint32_t travel;		/* what lead went forward since a wrap */
	bool dirty, started, learned;
	bool repeat;		/* another thread waits for the same chunk */
	bool rebuild;		/* dirty, and not by appending alone */
	uint32_t trust;			/* enum pol_trust */
	uint32_t hit, miss;		/* prefetches used, in vain; lately */
	uint32_t clock;			/* faults on ordered chunks */
	uint32_t e_start, e_faults, e_jumps, e_again, e_unique;
	uint32_t bad;			/* bad epochs in a row */
	uint32_t good, good_least;	/* good ones, how many end a fallback */
	uint32_t fall_age;		/* epochs of the fallback so far */
	uint32_t rest, rest_next;	/* epochs until the next fresh start */
	uint32_t survey;		/* positions still to soften */
	uint32_t turns, turns_least;	/* jumps back in a row; see narrow */
	uint32_t narrow_pass;		/* pass in which the loop was narrowed */
	struct pol_stream stream[POL_STREAMS];

	/* pick.c */
	uint64_t rho;			/* holes per chunk, 32.32 */
	int64_t acc;			/* error diffusion, 32.32 */
	uint32_t spread;		/* of victims while memory is filled */
	bool idle_due;			/* one idle chunk may go: a fault was seen */
	uint32_t batch;			/* installs still due in this batch */
	uint32_t calm;			/* milestones in a row, none waited for */

	/* stack.c */
	uint32_t n_stacks, serial;
	uint32_t n_wishes;
	struct pol_wish wish[POL_WISHES];
	uint32_t bucket[POL_BUCKETS];	/* 1 + first stack */

	struct pol_counts c;		/* running totals */
	uint32_t map_n[B_N];		/* bits set */

	/* in the memory behind this struct */
	struct pol_chunk *chunk;	/* by id */
	uint64_t *key;			/* by id: scratch of the sort */
	uint32_t *seq;			/* position -> id */
	uint32_t *start;		/* position -> first of its span */
	uint64_t *map[B_N];
	struct pol_stack *stacks;
};

/* What seq holds where a chunk was: one that is never known. */
static inline uint32_t pol_gap(const struct pol *p)
{
	return p->conf.max_chunks;
}

/* True for a chunk kept by the loop rules; else it is kept by skew rules. */
static inline bool pol_loopish(const struct pol *p, const struct pol_chunk *c)
{
	return !(c->flags & (F_SKEW | F_DORMANT)) && c->conf >= p->trust;
}

static inline bool pol_framed(const struct pol_chunk *c)
{
	return c->state != POL_ABSENT;
}

static inline uint32_t pol_used(const struct pol *p)
{
	return p->n_known - p->count[POL_ABSENT];
}

static inline uint32_t pol_used_skew(const struct pol *p)
{
	return pol_used(p) - p->used_loop;
}

/* Cyclic distance from position a forward to b. */
static inline uint32_t pol_dist(const struct pol *p, uint32_t a, uint32_t b)
{
	return b >= a ? b - a : b + p->n_pos - a;
}

/* Position a moved by d < n_pos, forward and back. */
static inline uint32_t pol_fwd(const struct pol *p, uint32_t a, uint32_t d)
{
	return a + d >= p->n_pos ? a + d - p->n_pos : a + d;
}

static inline uint32_t pol_back(const struct pol *p, uint32_t a, uint32_t d)
{
	return a >= d ? a - d : a + p->n_pos - d;
}

/* Every change of a chunk's state, flags, conf or position lies between
 * leave and enter, which keep counts, lists and maps true. */
void pol_leave(struct pol *p, uint32_t id);
void pol_enter(struct pol *p, uint32_t id);
/* Computes window, quota and rho anew after counts changed. */
void pol_quota(struct pol *p);

/* ---- map.c: bitmaps over positions, lists ------------------------------ */

bool pol_map_get(const struct pol *p, enum pol_map m, uint32_t pos);
void pol_map_put(struct pol *p, enum pol_map m, uint32_t pos, bool on);
void pol_map_zero(struct pol *p, uint32_t n_pos);
/* First set bit in the n positions from pos on (cyclic), or POL_NIL. */
uint32_t pol_map_next(const struct pol *p, enum pol_map m, uint32_t pos,
		      uint32_t n);
/* First set bit in the n positions pos, pos-1, ... (cyclic), or POL_NIL. */
uint32_t pol_map_prev(const struct pol *p, enum pol_map m, uint32_t pos,
		      uint32_t n);
/* Set bits in the n positions from pos on (cyclic), counted up to max. */
uint32_t pol_map_count(const struct pol *p, enum pol_map m, uint32_t pos,
		       uint32_t n, uint32_t max);
void pol_list_add(struct pol *p, enum pol_list l, uint32_t id, bool front);
void pol_list_del(struct pol *p, uint32_t id);

/* ---- order.c: the order of use and where the program is in it ---------- */

/* Sorts chunks in that were added since; cheap when none were. */
void pol_order_flush(struct pol *p);
/* Drops chunks no longer known from the order. */
void pol_order_compact(struct pol *p);
/* May n chunks more leave gaps, which is cheap, rather than be dropped at once? */
bool pol_order_may_gap(const struct pol *p, uint32_t n);
void pol_order_gap(struct pol *p, uint32_t pos);
/* A fault on a chunk that has a position: moves lead, learns. */
void pol_order_fault(struct pol *p, uint32_t id, uint32_t stream);
/* A use outside the loop in force; soon after it came into force: a mistake
 * made less easily next time. */
void pol_order_widen(struct pol *p, uint32_t id);
/* The whole order is in force again; the program is at chunk id. */
void pol_order_wake(struct pol *p, uint32_t id);
/* seq was sorted anew while the program is at chunk id. */
void pol_order_replace(struct pol *p, uint32_t id);
/* Chunks behind lead that must not be evicted yet. */
uint32_t pol_order_guard(const struct pol *p);

/* ---- learn.c: passes, order learned from faults, the fallback ---------- */

/* Notes the fault; jump: it was not where the order had it. */
void pol_learn_fault(struct pol *p, uint32_t id, bool jump);
/* A chunk fetched ahead was used, or was not. */
void pol_learn_guess(struct pol *p, bool used);
/* True while few faults of this epoch were jumps. */
bool pol_learn_calm(const struct pol *p);
/* The order wrapped around. */
void pol_learn_wrap(struct pol *p);
/* Sorts seq by key. */
void pol_learn_sort(struct pol *p);

/* ---- pick.c: what to do next ------------------------------------------- */

/* Says which of the n positions from pos on, just left behind, are holes. */
void pol_pick_holes(struct pol *p, uint32_t pos, uint32_t n);
/* A xorshift step: torture only. */
uint32_t pol_random(struct pol *p);

/* ---- stack.c: experts --------------------------------------------------- */

/* Registers an expert span of chunks first..first+n-1; 1 + its index, or 0. */
uint32_t pol_stack_add(struct pol *p, const struct pol_span *s,
		       uint32_t first, uint32_t n, uint32_t chunk_bytes,
		       uint64_t file_off);
/* A demand on a chunk of a stack: its expert's other chunks are wanted. */
void pol_stack_wish(struct pol *p, uint32_t id);
/* Next ABSENT chunk of the wishes, or POL_NIL. */
uint32_t pol_stack_next(struct pol *p);
/* It is being fetched now. */
void pol_stack_granted(struct pol *p);

/* ---- check.c ------------------------------------------------------------ */

/* True when every invariant holds. Slow: tests only. */
bool pol_check(const struct pol *p);

/* ---- sim.c --------------------------------------------------------------- */

/* pol_simulate's "live", with fetches ahead done only after `delay` further
 * uses (demand fetches at once). frames_at, if not NULL, gives the budget at
 * each use. step, if not NULL, is called after each use. */
struct pol_sim {
	const struct pol_use *tape;
	size_t n;
	uint32_t chunks, frames, window, delay, seed;
	const struct pol_span *spans;
	size_t n_spans;
	uint32_t chunk_bytes;
	uint32_t (*frames_at)(size_t use);
	void (*step)(struct pol *p, size_t use, void *arg);
	void *arg;
};
size_t pol_sim_size(uint32_t chunks);
struct pol *pol_sim_live(const struct pol_sim *s, void *scratch,
			 struct pol_result *out);

#endif
