/* SPDX-License-Identifier: MIT */
/* placement.c - how much of the budget holds packed chunks.
 *
 * Owns the plan in force and the rates it was made from:
 *
 *   disk      what was read while some reads were in flight: on the whole it is
 *             asked for less than it could give. Not while
 *             frames get their memory: a machine may take longer to find that
 *             (seen: 6 ms for 2 MiB, where the host had taken it back) than to read
 *   compute   the pass, less what threads waited for reads and what unpacking and
 *             reading take: all three come on top of each other (twelve points seen:
 *             the rest is then what the engine takes with all in memory, within a
 *             twentieth of the pass; less taken off, and a slow disk passed for much
 *             computing, so that too little was packed). The middle one of the last
 *             PASSES: a pass in which a heap was filled, or the period was not found
 *             yet, says anything
 *   unpack    packer.c's
 *
 * (1) Solved anew once a pass when one of them has moved by a tenth, and adopted
 *     when it is much shorter: both ways of going over cost a pass or two.
 * (2) Before it can be solved a few chunks are packed for trial.
 *     Loops that are shorter for a while, as when a heap is filled, are not
 *     taken for the whole; what is not there any more is no part of it.
 * (3) A quarter of the budget, beside the plan, may hold what would have to be
 *     written otherwise; what is read unchanged after that leaves it (anon_io.c).
 * (4) Where all is packed nothing is read: then some chunks are, now and then, to
 *     see the disk again.
 * Lock: none; pager thread.
 */
#include "core/placement.h"
#include "core/anon.h"
#include "core/core_int.h"
#include "core/packer.h"
#include "core/pool.h"
#include "core/work.h"

#define TRIED_LEAST	8u
#define LOWER_AFTER	3u		/* while a heap grows it is one thing, then another */
#define BUSY_READS	4u		/* in flight: it gives what it can */
#define BUSY_LEAST_NS	200000000u	/* to be judged by; or */
#define BUSY_LEAST	(256u << 20)	/* bytes: a disk that is throttled gives some at once */
#define DWELL		8u		/* passes a plan stays, once it was made from what was seen */
#define DISK_GUESS	4e9		/* too much is soon known better: it is read from */
#define COMPUTE_GUESS	1e-10	/* s per byte: what an engine reads weights at */
#define COMPUTE_LEAST	16e9	/* ns: of a pass */
#define PASSES		7u		/* three odd ones among them do not matter */
#define PROBE_PASSES	16u		/* (4) */
#define PROBE_CHUNKS	160u		/* some more than BUSY_LEAST */
#define MORE		100u		/* frames / this: holes do not stay quite where they are */
#define SLACK		(8 * CHUNK)	/* of the pool: else what fills it up has something else leave it */
#define FRAMES_LEAST	32u		/* half of the budget if that is less: not packed in */

static struct pol_plan_in was;
static struct pol_plan plan;
static bool planned;
static uint32_t pass, adopted_at;	/* passes so far; at the last plan */
static bool dwell;			/* it was made from what was seen */
static uint32_t lower;			/* passes in a row that wanted it to be less */
static uint64_t target, most;		/* bytes: of the plan, and ever */
static double loop;			/* chunks: the longest of late */
static uint32_t frames;
static double disk, compute;		/* bytes/s, s per byte of the loop; 0: not seen */
static double computes[PASSES];		/* of the last passes, the newest anywhere */
static double doubles[PASSES];		/* chunks taken out beyond those that had no frame */
static uint64_t evicted;		/* as of the last pass */
static uint64_t read_bytes, last_turn;	/* since then */
static uint64_t busy_ns, busy_bytes;	/* not judged yet */
static bool was_busy, refused;		/* somebody found no room */
static uint32_t unseen, probes;		/* passes unjudged; reads left of a probe */

void placement_reset(void)
{
	planned = was_busy = refused = false;
	lower = unseen = probes = pass = adopted_at = 0;
	dwell = false;
	evicted = 0;
	frames_grew();
	target = most = read_bytes = busy_bytes = busy_ns = last_turn = 0;
	frames = 0;
	disk = compute = loop = 0;
}

void placement_turn(uint32_t reads)
{
	uint64_t t = now_ns();

	if (!frames_grew() && was_busy) {
		busy_ns += t - last_turn;
		busy_bytes += read_bytes;
	}
	was_busy = reads >= BUSY_READS;
	last_turn = t;
	read_bytes = 0;
	if (!planned && frames)		/* (2) */
		placement_budget(frames);
}

void placement_read(uint64_t bytes)
{
	read_bytes += bytes;
}

/* Enough was read to judge the disk by. */
static bool enough(void)
{
	return busy_ns >= BUSY_LEAST_NS || busy_bytes >= BUSY_LEAST;
}

/* Once a pass. */
static void judge_disk(void)
{
	double rate = (double)busy_bytes * 1e9 / (double)(busy_ns + 1);

	if (!enough()) {
		if (++unseen % PROBE_PASSES == 0)	/* (4) */
			probes = PROBE_CHUNKS;
		return;
	}
	disk = disk > 0 ? (disk + rate) / 2 : rate;
	unseen = probes = 0;
	busy_ns = busy_bytes = 0;
}

/* What the pool may hold: (3), and room to unpack into. */
static uint64_t limit(void)
{
	uint64_t n = target + (uint64_t)frames * CHUNK / 4;

	return n < most ? n : most;
}

/* Frames for what is used now and then: all that a short loop leaves is theirs, but
 * that is no part of what the loop as it was would leave. */
static double skewed(const struct pol_counts *pc)
{
	double least = pc->frames / 16, left = pc->frames > loop ? pc->frames - loop : 0;

	left = left > least ? left : least;
	return pc->skew < left ? pc->skew : left;
}

static double middle(const double *v)
{
	double sorted[PASSES];

	for (uint32_t i = 0; i < PASSES; i++) {
		uint32_t at = i;

		for (; at && sorted[at - 1] > v[i]; at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = v[i];
	}
	return sorted[PASSES / 2];
}

/* Frames that hold what is packed, or absent, as well: fetched ahead, or used just now. Each
 * is taken out once a pass, as what has no frame is. */
static double twice(const struct pol_counts *pc)
{
	double seen = pass < PASSES ? 0 : middle(doubles), cap = pc->frames / 8;

	seen = seen < cap ? seen : cap;		/* chunks beside the loop are among them */
	return seen > pc->hold ? seen : pc->hold;
}

/* The chunks of the loop, those that pack and those that do not. */
static void classes(struct pol_plan_in *in, const struct packer_seen *seen)
{
	struct pol_counts pc;
	double all, packs;

	pol_counts(pg.pol, &pc);
	loop = pc.period > loop * 0.95 ? pc.period : loop * 0.95;
	loop = loop < pc.known ? loop : pc.known;	/* the rest was given back */
	all = loop * CHUNK;
	packs = seen->tried ? all * seen->paid / seen->tried : 0;
	in->n = 2;
	in->class[0] = (struct pol_class){ .bytes = packs, .uses = 1, .unpack = pol_unpack_rate(seen->unpack),
		.ratio = seen->bytes ? (double)seen->paid * CHUNK / (double)seen->bytes : 1 };
	in->class[1] = (struct pol_class){ .bytes = all - packs, .uses = 1, .ratio = 1 };
	in->window = (double)(twice(&pc) + skewed(&pc) + frames / MORE) * CHUNK;
}

static uint64_t packed_bytes(const struct pol_plan_in *in, const struct pol_plan *p)
{
	return (uint64_t)(p->share[0][POL_TIER_PACKED] * in->class[0].bytes /
			  in->class[0].ratio);
}

static double share_of(const struct pol_plan_in *in, const struct pol_plan *p, enum pol_tier tier)
{
	double bytes = in->class[0].bytes + in->class[1].bytes;

	return (p->share[0][tier] * in->class[0].bytes +
		p->share[1][tier] * in->class[1].bytes) / (bytes > 0 ? bytes : 1);
}

static void say(const struct pol_plan_in *in)
{
	off_verbose(1, "plan: %.0f%% plain, %.0f%% packed (%.2fx), %.0f%% absent; %.3f s a pass (disk %.2f, unpack %.2f GB/s, compute %.3f s)",
		    100 * share_of(in, &plan, POL_TIER_PLAIN),
		    100 * share_of(in, &plan, POL_TIER_PACKED), in->class[0].ratio,
		    100 * share_of(in, &plan, POL_TIER_ABSENT), plan.likely,
		    in->disk / 1e9, in->class[0].unpack / 1e9, in->compute);
}

static void solve(void)
{
	struct pol_plan_in in = {
		.ram = (double)frames * CHUNK, .cores = work_processors(),
		.disk = off_opt.disk ? (double)off_opt.disk :
			disk > 0 ? disk : DISK_GUESS,
		.read_cpu = POL_READ_CPU, .overlap = 1,
		/* What a heap's chunks cost beside unpacking is more than is known. */
		.quiet = anon_live() ? 0 : POL_QUIET,
	};
	struct packer_seen seen;
	struct pol_plan next;

	packer_seen(&seen);
	if (torture()) {
		target = most;
		return;
	}
	if (seen.tried < TRIED_LEAST) {
		target = TRIED_LEAST * CHUNK < most ? TRIED_LEAST * CHUNK : most;
		return;
	}
	classes(&in, &seen);
	in.compute = (in.class[0].bytes + in.class[1].bytes) *
		(compute > 0 ? compute : COMPUTE_GUESS);
	if (planned && !pol_plan_stale(&was, &in))
		return;
	if (pol_plan(&in, &next) || (planned && !pol_plan_adopt(&in, &plan, &next)))
		return;
	if (planned && packed_bytes(&in, &next) < target && ++lower < LOWER_AFTER)
		return;
	if (dwell && pass - adopted_at < DWELL && plan.ram + in.window <= in.ram)
		return;
	dwell = disk > 0 && compute > 0;
	adopted_at = pass;
	lower = 0;
	was = in;
	plan = next;
	planned = true;
	target = packed_bytes(&in, &plan);
	target = target < most ? target : most;
	say(&in);
}

void placement_budget(uint32_t n)
{
	uint32_t least = n / 2 < FRAMES_LEAST ? n / 2 : FRAMES_LEAST;

	frames = n;
	most = (uint64_t)(n - least) * CHUNK;
	solve();
	pool_limit(limit());
}

void placement_pass(uint64_t ns, uint64_t stall_ns)
{
	double stall = (double)stall_ns / 1e9, s = (double)ns / 1e9;
	struct pol_counts pc;

	pol_counts(pg.pol, &pc);
	s -= stall;
	if (planned)
		s -= plan.decode_s + plan.read_s;
	if (s < (double)ns / COMPUTE_LEAST)
		s = (double)ns / COMPUTE_LEAST;
	doubles[pass % PASSES] = (double)(pc.evictions - evicted) + pc.frames - pc.skew - pc.period;
	evicted = pc.evictions;
	computes[pass++ % PASSES] = s / (((double)pc.period + 1) * CHUNK);
	if (pass >= PASSES)
		compute = middle(computes);
	judge_disk();
	placement_budget(frames);
}

bool placement_probe(void)
{
	return !off_opt.disk && !enough() && probes && probes--;
}

static bool below(uint64_t bytes)
{
	bool room = pool_bytes() < bytes;

	refused |= !room;
	return room;
}

bool placement_room(void)
{
	return below(target);
}

bool placement_roomy(void)
{
	return below(target > SLACK ? target - SLACK : 0);
}

bool placement_spare(void)
{
	return below(limit());
}

bool placement_planned(void)
{
	return planned;
}

bool placement_over(void)
{
	return planned && pool_bytes() > target;
}

bool placement_short(bool *over)
{
	bool was_refused = refused;

	refused = false;
	*over = pool_bytes() > limit();
	return was_refused || *over;
}
