/* SPDX-License-Identifier: MIT */
/* pager_cmd.c - what the pager does when a program thread's call asks.
 *
 * (1) A command is answered only when it holds: after CMD_FORGET nothing of
 *     ours touches the range any more, after CMD_PIN all of it is PLAIN.
 * (2) The extents were cut by the caller before (region.c), so a chunk with
 *     no piece left is gone.
 * Owns the list of CMD_PINs that wait. Lock: none; pager thread.
 */
#include "core/anon.h"
#include "core/core_int.h"
#include "core/packed.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct cmd *pins;		/* wait for their chunks */
static struct cmd *settling;		/* wait for I/O to end */

/* First and last-plus-one chunk of [lo, hi) in r. */
static void span_of(const struct region *r, uintptr_t lo, uintptr_t hi,
		    uint32_t *from, uint32_t *to)
{
	uintptr_t c0 = chunk_down(r->base);

	lo = lo > r->base ? lo : r->base;
	hi = hi < r->end ? hi : r->end;
	if (hi <= lo) {
		*from = *to = r->first;
		return;
	}
	*from = r->first + (uint32_t)((lo - c0) / CHUNK);
	*to = r->first + (uint32_t)((hi - c0 + CHUNK - 1) / CHUNK);
}

static void gauges(void)
{
	uint64_t n = 0, bytes = 0, spans = 0;

	region_lock();
	for (int i = 0; region_nth(i); i++) {
		const struct region *r = region_nth(i);

		if (r->state != REGION_LIVE && r->state != REGION_HELD)
			continue;
		n++;
		spans += r->n_spans;
		bytes += region_size(r);
	}
	region_unlock();
	stat_set(ST_HOST_REGIONS, n);
	stat_set(ST_HOST_MANAGED, bytes);
	stat_set(ST_HOST_SPANS, spans);
}

static int add(struct region *r, bool adopt)
{
	int index = 0;

	if (r->anon)
		return anon_add(r, adopt);
	while (region_nth(index) != r)
		index++;
	for (uint32_t k = 0; k < r->n; k++)
		pg.chunk[r->first + k] = (struct chunk){ .region = (uint16_t)index };
	exchange_fresh(r->first, r->n);
	pol_add(pg.pol, r->first, r->n, CHUNK, r->file_off & ~(CHUNK - 1),
		r->spans, r->n_spans, 0);
	trace_region(r, r->spans, r->n_spans);
	gauges();
	return 0;
}

static int go(struct region *r, bool adopt)
{
	if (r->anon) {
		int err = adopt ? anon_adopted(r) : anon_go(r);

		gauges();
		pager_count_own();	/* the keeper, who waits, reads the budget next */
		return err;
	}
	region_lock();
	r->state = REGION_LIVE;
	region_unlock();
	for (uint32_t c = r->first; c < r->first + r->n; c++) {
		struct chunk *ch = &pg.chunk[c];

		if (!(ch->flags & CH_FAULTED))
			continue;
		ch->flags &= (uint16_t)~CH_FAULTED;
		ch->t_fault = now_ns();
		stat_add(ST_FAULTS_DEMAND, 1);
		trace_use(c, ch->stream);
		pol_fault(pg.pol, c, ch->stream);
	}
	stat_add(ST_HOST_CONVERTED, 1);
	gauges();
	return 0;
}

/* The chunk is no more. Its memory in the region goes with the unmapping. */
static void forget_chunk(uint32_t c)
{
	struct chunk *ch = &pg.chunk[c];
	enum pol_state st = pol_state_of(pg.pol, c);

	if (st == POL_PLAIN)
		pg.plain--;
	pol_remove(pg.pol, c, 1);
	if (packed_forget(c) || st == POL_INFLIGHT) {
		ch->flags |= CH_GONE;
		return;
	}
	if (ch->slot)
		frames_put(ch->slot - 1, st == POL_PLAIN);
	*ch = (struct chunk){ .region = ch->region, .flags = CH_FORGOTTEN };
}

static void forget_range(struct region *r, uintptr_t lo, uintptr_t hi, bool all)
{
	struct extent piece[MAX_EXTENTS];
	uint32_t c, to;

	for (span_of(r, lo, hi, &c, &to); c < to; c++) {
		struct chunk *ch = &pg.chunk[c];

		if (ch->flags & (CH_GONE | CH_FORGOTTEN))
			continue;
		if (all || !chunk_pieces(c, piece))
			forget_chunk(c);
	}
}

static int forget(struct region *r, uintptr_t lo, uintptr_t hi, bool all)
{
	if (r->n) {	/* else it was never more than watched */
		forget_range(r, lo, hi, all);
		/* Unmapping wakes nobody. Who waits faults anew, and is sent
		 * round until the range is what it will be. */
		if (pg.ops->anon)
			uffd_wake(page_down(lo), page_up(hi) - page_down(lo));
	}
	region_lock();
	if (!r->n_ext) {
		r->state = REGION_DYING;
		pg.dying = true;
	}
	region_unlock();
	gauges();
	return 0;
}

static bool bury(struct region *r)
{
	if (r->inflight)
		return false;
	if (r->n)	/* what threads side by side cut after each other */
		forget_range(r, r->base, r->end, true);
	origin_close(r->origin);
	mem_free(r->spans);
	mem_free(r->lossy);
	if (r->shadow)
		off_sys_munmap(r->shadow, r->end - r->base);
	if (r->huge)
		off_sys_munmap(r->huge, r->end - r->base);
	region_lock();
	region_free(r);
	region_unlock();
	return true;
}

void pager_bury(void)
{
	bool left = false;

	for (int i = 0;; i++) {
		struct region *r;
		bool idle;

		region_lock();
		r = region_nth(i);
		idle = r && r->state == REGION_DYING && !r->users;
		left |= r && r->state == REGION_DYING && r->users;
		region_unlock();
		if (!r)
			break;
		if (idle && !bury(r))
			left = true;
	}
	pg.dying = left;
}

/* ---- mlock ------------------------------------------------------------------ */

static bool pinned_all(const struct cmd *p)
{
	uint32_t c, to;

	for (span_of(p->r, p->lo, p->hi, &c, &to); c < to; c++)
		if (!(pg.chunk[c].flags & (CH_GONE | CH_FORGOTTEN)) &&
		    pol_state_of(pg.pol, c) != POL_PLAIN)
			return false;
	return true;
}

/* A write-protected page (move mode, read-only) would stop the kernel, which
 * populates a writable range by writing to it. */
static void guard(uint32_t c, bool on)
{
	struct extent piece[MAX_EXTENTS];
	int n;

	if (!pg.ops->anon || chunk_region(c)->writable ||
	    pol_state_of(pg.pol, c) != POL_PLAIN)
		return;
	n = chunk_pieces(c, piece);
	for (int i = 0; i < n; i++)
		uffd_protect(piece[i].lo, piece[i].hi - piece[i].lo, on);
}

static void pin(struct cmd *p)
{
	uint32_t c, to;

	for (span_of(p->r, p->lo, p->hi, &c, &to); c < to; c++) {
		struct chunk *ch = &pg.chunk[c];

		if (ch->flags & (CH_GONE | CH_FORGOTTEN))
			continue;
		ch->flags |= CH_LOCKED;
		guard(c, false);
		if (pol_state_of(pg.pol, c) == POL_PLAIN)
			pol_pin(pg.pol, c, 1);
	}
	p->next = pins;
	pins = p;
}

static void unpin(const struct cmd *p)
{
	uint32_t c, to;

	for (span_of(p->r, p->lo, p->hi, &c, &to); c < to; c++) {
		struct chunk *ch = &pg.chunk[c];

		if (!(ch->flags & CH_LOCKED))
			continue;
		ch->flags &= (uint16_t)~CH_LOCKED;
		guard(c, true);
		if (!(ch->flags & (CH_DIRTY | CH_BUSY | CH_GONE | CH_FORGOTTEN)))
			pol_pin(pg.pol, c, 0);
	}
}

/* Asks for the next missing chunks of each waiting pin, a few at a time, so
 * that demand never holds more frames than there are. */
static void serve_pins(void)
{
	struct cmd **link = &pins;

	while (*link) {
		struct cmd *p = *link;
		uint32_t c, to, asked = 0;

		if (pinned_all(p)) {
			*link = p->next;
			cmd_done(p, 0);
			continue;
		}
		for (span_of(p->r, p->lo, p->hi, &c, &to); c < to && asked < 4; c++) {
			if (pg.chunk[c].flags & (CH_GONE | CH_FORGOTTEN) ||
			    pol_state_of(pg.pol, c) == POL_PLAIN)
				continue;
			asked++;
			if (pol_state_of(pg.pol, c) != POL_INFLIGHT)
				pol_fault(pg.pol, c, 0);
		}
		link = &p->next;
	}
}

static void serve_settling(void)
{
	while (settling && anon_idle()) {
		struct cmd *p = settling;

		settling = p->next;
		p->tid = (pid_t)syscall(SYS_gettid);
		cmd_done(p, anon_settle(p->r, &p->fds));
	}
}

/* ---- MADV_DONTNEED on private pages ------------------------------------------ */

/* The file's bytes again, in place: only part of the chunk is dropped. */
static int reread(uint32_t c, uintptr_t lo, uintptr_t hi)
{
	struct region *r = chunk_region(c);
	ssize_t n = off_sys_pread_all(r->origin->fd, (void *)lo, hi - lo,
				      (off_t)(r->file_off + (lo - r->base)));

	return n < 0 ? (int)n : 0;
}

static int discard_chunk(uint32_t c, uintptr_t lo, uintptr_t hi)
{
	struct chunk *ch = &pg.chunk[c];
	uintptr_t a = chunk_addr(c);
	uint16_t hashed;
	int err;

	if (pol_state_of(pg.pol, c) != POL_PLAIN)
		return 0;	/* nothing written, or it would be PLAIN */
	if (lo > a || hi < a + CHUNK)
		return reread(c, lo > a ? lo : a, hi < a + CHUNK ? hi : a + CHUNK);
	hashed = ch->flags & CH_HASHED;
	ch->flags &= (uint16_t)~CH_HASHED;	/* whatever is there goes, and is not packed */
	pg.discarding = true;
	err = pg.ops->evict(c, POL_PLAIN);
	pg.discarding = false;
	ch->flags |= hashed;
	if (err)
		return reread(c, a, a + CHUNK);
	if (ch->flags & CH_DIRTY) {
		ch->flags &= (uint16_t)~CH_DIRTY;
		pol_pin(pg.pol, c, 0);
	}
	chunk_moved(c, POL_ABSENT);
	return 0;
}

static int discard(const struct cmd *p)
{
	uint32_t c, to;
	int err = 0;

	for (span_of(p->r, p->lo, p->hi, &c, &to); c < to && !err; c++)
		if (!(pg.chunk[c].flags & (CH_GONE | CH_FORGOTTEN)))
			err = discard_chunk(c, p->lo, p->hi);
	return err;
}

/* ---- dispatch ----------------------------------------------------------------- */

static void run(struct cmd *p)
{
	switch (p->op) {
	case CMD_ADD:
		cmd_done(p, add(p->r, p->fd));
		break;
	case CMD_GO:
		cmd_done(p, go(p->r, p->fd));
		break;
	case CMD_FORGET:
		cmd_done(p, forget(p->r, p->lo, p->hi, false));
		break;
	case CMD_UNDO:
		cmd_done(p, forget(p->r, p->r->base, p->r->end, true));
		break;
	case CMD_PIN:
		pin(p);
		break;
	case CMD_UNPIN:
		unpin(p);
		cmd_done(p, 0);
		break;
	case CMD_DISCARD:
		cmd_done(p, discard(p));
		break;
	case CMD_FREEZE:
	case CMD_THAW:
		pg.frozen += p->op == CMD_FREEZE ? 1 : -1;
		if (p->op == CMD_THAW)
			anon_resume();
		cmd_done(p, 0);
		break;
	case CMD_SETTLE:
		p->next = settling;
		settling = p;
		break;
	case CMD_GROW:
		cmd_done(p, anon_grown(p->r, p->lo, p->hi));
		break;
	case CMD_CLEAR:
		cmd_done(p, anon_cleared(p->r, p->lo, p->hi));
		break;
	case CMD_MAP:
	case CMD_ADMIT:
	case CMD_ORIGIN:
		cmd_done(p, -EINVAL);	/* the keeper's */
		break;
	}
}

void pager_commands(void)
{
	struct cmd *p = cmd_take_pager();

	while (p) {
		struct cmd *next = p->next;	/* p is gone once it is done */

		run(p);
		p = next;
	}
	serve_pins();
	serve_settling();
}

void pager_commands_reset(void)
{
	settling = NULL;
	pins = NULL;
}
