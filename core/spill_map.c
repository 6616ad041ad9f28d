/* SPDX-License-Identifier: MIT */
/* spill_map.c - which pages of a spill file are taken.
 *
 * A page is free, live, live and held (leased to a child), or held only. A
 * block is backed (disk is reserved behind it) or bare. A tree over the blocks
 * knows the runs of free pages in every stretch of the file, so that the
 * lowest run that is long enough is found in O(log n).
 *
 * (1) Only backed pages are given out: whoever backs a block first made sure
 *     that the disk has room for it.
 * (2) Lowest address first, so that the end of the file gets free; but up to
 *     16 MiB go on where the last slot ended, so that one write may cover
 *     several.
 * (3) A held page stays taken until release, whatever is put meanwhile.
 * Owns the tables of struct spill_map; lock: none.
 */
#include "core/spill_int.h"

#define WORD_PAGES	64U
#define BLOCK_WORDS	(BLOCK_PAGES / WORD_PAGES)
#define BATCH_PAGES	4096U
#define LEAST_BLOCKS	64U

/* The bits of pages [lo, hi) that lie in word w. */
static uint64_t word_mask(uint32_t w, uint32_t lo, uint32_t hi)
{
	uint32_t a = w * WORD_PAGES, b = a + WORD_PAGES, base = a;
	uint32_t len;

	a = lo > a ? lo : a;
	b = hi < b ? hi : b;
	len = b - a;
	return (len == WORD_PAGES ? ~0ull : (1ull << len) - 1) << (a - base);
}

static uint64_t taken(const struct spill_map *m, uint32_t w)
{
	return m->live[w] | m->held[w];
}

/* ---- the tree -------------------------------------------------------------- */

static uint32_t max32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

struct scan {
	struct spill_runs runs;
	uint32_t run;		/* length of the one under way */
	uint32_t fit;		/* page in the block, where `want` pages fit */
};

/* The run under way ends before page `at` of the block. */
static void run_ends(struct scan *s, uint32_t at, uint32_t want)
{
	if (s->run == at)
		s->runs.pre = s->run;
	if (s->run >= want && s->fit == NO_PAGE)
		s->fit = at - s->run;
	s->runs.best = max32(s->runs.best, s->run);
}

/* The runs of one block's pages, and the first of at least `want`. */
static struct scan scan_block(const struct spill_map *m, uint32_t b, uint32_t want)
{
	struct scan s = { .fit = NO_PAGE };

	for (uint32_t w = 0; w < BLOCK_WORDS; w++) {
		uint64_t bits = taken(m, b * BLOCK_WORDS + w);
		uint32_t left = WORD_PAGES;

		while (bits) {
			uint32_t zeros = (uint32_t)__builtin_ctzll(bits), ones;

			s.run += zeros;
			run_ends(&s, (w + 1) * WORD_PAGES - left + zeros, want);
			s.run = 0;
			bits >>= zeros;
			left -= zeros;
			ones = ~bits ? (uint32_t)__builtin_ctzll(~bits) : WORD_PAGES;
			bits = ones < WORD_PAGES ? bits >> ones : 0;
			left -= ones;
		}
		s.run += left;
	}
	run_ends(&s, BLOCK_PAGES, want);
	s.runs.suf = s.run;
	s.runs.whole = s.run == BLOCK_PAGES;
	return s;
}

/* Two stretches side by side, len pages each. */
static struct spill_runs joined(const struct spill_runs *a,
				const struct spill_runs *b, uint32_t len)
{
	return (struct spill_runs){
		.pre = a->pre == len ? len + b->pre : a->pre,
		.suf = b->suf == len ? len + a->suf : b->suf,
		.best = max32(max32(a->best, b->best), a->suf + b->pre),
		.whole = a->whole || b->whole,
	};
}

static void set_leaf(struct spill_map *m, uint32_t b)
{
	m->tree[m->n + b] = m->backed[b] ? scan_block(m, b, NO_PAGE).runs :
			    (struct spill_runs){ 0 };
}

static void changed(struct spill_map *m, uint32_t b)
{
	uint32_t i = m->n + b, len = BLOCK_PAGES;

	set_leaf(m, b);
	for (i /= 2; i; i /= 2, len *= 2)
		m->tree[i] = joined(&m->tree[2 * i], &m->tree[2 * i + 1], len);
}

static void rebuild(struct spill_map *m)
{
	uint32_t len = BLOCK_PAGES;

	for (uint32_t b = 0; b < m->n; b++)
		set_leaf(m, b);
	for (uint32_t row = m->n / 2; row; row /= 2, len *= 2)
		for (uint32_t i = row; i < 2 * row; i++)
			m->tree[i] = joined(&m->tree[2 * i], &m->tree[2 * i + 1], len);
}

static uint32_t lowest_whole(const struct spill_map *m)
{
	uint32_t i = 1;

	if (!m->tree[1].whole)
		return NO_PAGE;
	while (i < m->n)
		i = 2 * i + !m->tree[2 * i].whole;
	return (i - m->n) * BLOCK_PAGES;
}

static uint32_t lowest_run(const struct spill_map *m, uint32_t pages)
{
	uint32_t i = 1, lo = 0, len = m->n * BLOCK_PAGES;

	if (m->tree[1].best < pages)
		return NO_PAGE;
	while (i < m->n) {
		const struct spill_runs *a = &m->tree[2 * i], *b = a + 1;

		len /= 2;
		if (a->best >= pages) {
			i = 2 * i;
			continue;
		}
		if (a->suf + b->pre >= pages)
			return lo + len - a->suf;
		i = 2 * i + 1;
		lo += len;
	}
	return lo + scan_block(m, i - m->n, pages).fit;
}

/* ---- taking and putting ------------------------------------------------------ */

static bool run_free(const struct spill_map *m, uint32_t page, uint32_t pages)
{
	uint32_t end = page + pages;

	if (end > m->n * BLOCK_PAGES || !m->backed[page / BLOCK_PAGES] ||
	    !m->backed[(end - 1) / BLOCK_PAGES])
		return false;
	for (uint32_t w = page / WORD_PAGES; w * WORD_PAGES < end; w++)
		if (taken(m, w) & word_mask(w, page, end))
			return false;
	return true;
}

static uint32_t choose(const struct spill_map *m, uint32_t pages, bool aligned)
{
	if (!m->n)
		return NO_PAGE;
	if (m->batch >= pages && !(aligned && m->cursor % BLOCK_PAGES) &&
	    run_free(m, m->cursor, pages))
		return m->cursor;
	return aligned ? lowest_whole(m) : lowest_run(m, pages);
}

uint32_t spill_map_take(struct spill_map *m, uint32_t pages, bool aligned)
{
	uint32_t page = choose(m, pages, aligned), end = page + pages;

	if (page == NO_PAGE)
		return NO_PAGE;
	for (uint32_t w = page / WORD_PAGES; w * WORD_PAGES < end; w++)
		m->live[w] |= word_mask(w, page, end);
	for (uint32_t b = page / BLOCK_PAGES; b * BLOCK_PAGES < end; b++)
		changed(m, b);
	m->batch = page == m->cursor && m->batch >= pages ? m->batch - pages :
		   BATCH_PAGES - pages;
	m->cursor = end;
	m->live_pages += pages;
	return page;
}

void spill_map_put(struct spill_map *m, uint32_t page, uint32_t pages)
{
	uint32_t end = page + pages;

	off_assert(end <= m->n * BLOCK_PAGES && pages <= m->live_pages);
	for (uint32_t w = page / WORD_PAGES; w * WORD_PAGES < end; w++) {
		uint64_t mask = word_mask(w, page, end);

		off_assert((m->live[w] & mask) == mask);
		m->live[w] &= ~mask;
	}
	m->live_pages -= pages;
	m->idle = true;
	if (!m->live_pages)
		m->batch = 0;	/* begin at the beginning */
	if (!m->tree)
		return;
	for (uint32_t b = page / BLOCK_PAGES; b * BLOCK_PAGES < end; b++)
		changed(m, b);
}

/* ---- disk behind blocks -------------------------------------------------------- */

static bool is_bare(const struct spill_map *m, uint32_t b)
{
	return b >= m->n || !m->backed[b];
}

uint32_t spill_map_bare(const struct spill_map *m, uint32_t max, uint32_t limit,
			uint32_t *first)
{
	uint32_t n = 0;

	*first = m->first_bare;
	while (n < max && *first + n < limit && is_bare(m, *first + n))
		n++;
	return n;
}

/* *table with `bytes` more of zeros; as it was when there is no memory. */
static void *widened(void *table, size_t old, size_t bytes)
{
	char *p = mem_realloc(table, old + bytes);

	if (p)
		memset(p + old, 0, bytes);
	return p;
}

static int widen_bits(uint64_t **bits, uint32_t old, uint32_t new)
{
	size_t unit = BLOCK_PAGES / 8;
	uint64_t *p = widened(*bits, old * unit, (new - old) * unit);

	if (p)
		*bits = p;
	return p ? 0 : -ENOMEM;
}

static int widen_backed(struct spill_map *m, uint32_t new)
{
	uint8_t *p = widened(m->backed, m->n, new - m->n);

	if (p)
		m->backed = p;
	return p ? 0 : -ENOMEM;
}

int spill_map_grow(struct spill_map *m, uint32_t n)
{
	uint32_t new = m->n ? m->n : LEAST_BLOCKS;
	struct spill_runs *tree;

	while (new < n)
		new *= 2;
	if (new == m->n)
		return 0;
	tree = mem_zalloc(2 * (size_t)new * sizeof(*tree));
	if (!tree || widen_bits(&m->live, m->n, new) ||
	    widen_bits(&m->held, m->n, new) || widen_backed(m, new)) {
		mem_free(tree);
		return -ENOMEM;
	}
	mem_free(m->tree);
	m->tree = tree;
	m->n = new;
	rebuild(m);
	return 0;
}

void spill_map_back(struct spill_map *m, uint32_t first, uint32_t n)
{
	for (uint32_t b = first; b < first + n; b++) {
		m->backed[b] = 1;
		changed(m, b);
	}
	while (!is_bare(m, m->first_bare))
		m->first_bare++;
}

void spill_map_unback(struct spill_map *m, uint32_t first, uint32_t n)
{
	for (uint32_t b = first; b < first + n; b++) {
		off_assert(m->backed[b] && m->tree[m->n + b].whole);
		m->backed[b] = 0;
		changed(m, b);
	}
	if (first < m->first_bare)
		m->first_bare = first;
}

static bool is_spare(const struct spill_map *m, uint32_t b)
{
	return m->tree[m->n + b].whole;
}

uint32_t spill_map_top(const struct spill_map *m)
{
	uint32_t b = m->n;

	while (b && !m->backed[b - 1])
		b--;
	return b;
}

uint32_t spill_map_end(const struct spill_map *m)
{
	uint32_t b = m->n;

	while (b && (!m->backed[b - 1] || is_spare(m, b - 1)))
		b--;
	return b;
}

uint32_t spill_map_backed(const struct spill_map *m)
{
	uint32_t n = 0;

	for (uint32_t b = 0; b < m->n; b++)
		n += m->backed[b];
	return n;
}

uint32_t spill_map_spares(const struct spill_map *m, uint32_t below)
{
	uint32_t n = 0;

	for (uint32_t b = 0; b < below; b++)
		n += is_spare(m, b);
	return n;
}

uint32_t spill_map_spare(const struct spill_map *m, uint32_t below, uint32_t least,
			 uint32_t most, uint32_t *first)
{
	uint32_t run = 0;

	for (uint32_t b = below; b--;) {
		run = is_spare(m, b) ? run + 1 : 0;
		*first = b;
		if (run == most || (run >= least && (!b || !is_spare(m, b - 1))))
			return run;
	}
	return 0;
}

/* ---- leases -------------------------------------------------------------------- */

void spill_map_hold(struct spill_map *m)
{
	for (size_t w = 0; w < (size_t)m->n * BLOCK_WORDS; w++)
		m->held[w] |= m->live[w];
	m->leased = m->leased || m->live_pages;
}

void spill_map_release(struct spill_map *m)
{
	if (m->n)
		memset(m->held, 0, (size_t)m->n * BLOCK_PAGES / 8);
	m->leased = false;
	m->idle = true;
	rebuild(m);
}

void spill_map_freeze(struct spill_map *m)
{
	mem_free(m->tree);
	mem_free(m->held);
	mem_free(m->backed);
	m->tree = NULL;
	m->held = NULL;
	m->backed = NULL;
	m->leased = false;
}

void spill_map_free(struct spill_map *m)
{
	spill_map_freeze(m);
	mem_free(m->live);
	*m = (struct spill_map){ 0 };
}
