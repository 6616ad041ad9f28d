/* SPDX-License-Identifier: MIT */
/* lossy.c - which tensors OFFLOAD_LOSSY lets be kept rounded, and how far off they
 * are then.
 *
 * Owns the rows in the statistics: one for tensors whose names differ in a number
 * alone (blk.*.attn_q.weight). Rows are added by the keeper, and never go.
 *
 * (1) What does not lie on whole values of its tensor (the ends of a chunk may cut
 *     one) is kept as it is, and so is a chunk of more pieces than an image has.
 * Lock: none: a row's name is there before its number is; sums are atomic.
 */
#include "core/lossy.h"
#include "core/core_int.h"

#include <stdio.h>

#define SPAN_LEAST	(64u << 10)	/* bytes: less saves nothing */
#define PIECE_LEAST	4096u
#define NO_ROW		UINT16_MAX

unsigned int lossy_bits(void)
{
	if (!off_opt.lossy)
		return 0;
	return strncmp(off_opt.lossy, "int4", 4) ? 8 : 4;
}

static enum quant_kind kind_of(const struct pol_span *s)
{
	switch ((enum pol_dtype)s->dtype) {
	case POL_DT_F32:
		return QUANT_F32;
	case POL_DT_F16:
		return QUANT_F16;
	case POL_DT_BF16:
		return QUANT_BF16;
	case POL_DT_QUANT:
	case POL_DT_OTHER:
		break;
	}
	return QUANT_RAW;
}

/* ---- rows ---------------------------------------------------------------------- */

/* The name with its first number, between dots, as a star. */
static void group_name(char *to, size_t len, const char *name)
{
	const char *dot = name, *end;
	size_t digits;

	for (; (dot = strchr(dot, '.')); dot++) {
		digits = strspn(dot + 1, "0123456789");
		end = dot + 1 + digits;
		if (digits && *end == '.') {
			snprintf(to, len, "%.*s*%s", (int)(dot + 1 - name), name, end);
			return;
		}
	}
	snprintf(to, len, "%.*s", (int)len - 1, name);
}

/* The row of this name, a new one if need be; the last one is all others'. */
static uint16_t row_of(const char *name)
{
	struct off_stats *s = stats_now();
	char group[LOSSY_NAME_MAX];
	uint32_t i;

	group_name(group, sizeof(group), name);
	for (i = 0; i < s->n_lossy && i < STATS_LOSSY - 1; i++)
		if (!strcmp(s->lossy[i].name, group))
			break;
	if (i == STATS_LOSSY - 1)
		strcpy(group, "others");
	if (i == s->n_lossy) {
		memcpy(s->lossy[i].name, group, sizeof(group));
		s->lossy[i].bits = lossy_bits();
		__atomic_store_n(&s->n_lossy, i + 1, __ATOMIC_RELEASE);
	}
	s->lossy[i].spans++;
	return (uint16_t)i;
}

/* Adds to a number that is kept as its bits. */
static void add_real(uint64_t *sum, double more)
{
	uint64_t was = __atomic_load_n(sum, __ATOMIC_RELAXED), now;
	double v;

	do {
		memcpy(&v, &was, sizeof(v));
		v += more;
		memcpy(&now, &v, sizeof(v));
	} while (!__atomic_compare_exchange_n(sum, &was, now, 1, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
}

void lossy_seen(const struct quant_piece *piece, const struct quant_error *error, int n)
{
	struct off_stats *s = stats_now();
	uint32_t rows = __atomic_load_n(&s->n_lossy, __ATOMIC_ACQUIRE);

	for (int i = 0; i < n; i++) {
		struct stat_lossy *l = &s->lossy[piece[i].tag];

		if (piece[i].kind == QUANT_RAW || piece[i].tag >= rows)
			continue;
		__atomic_fetch_add(&l->values, error[i].values, __ATOMIC_RELAXED);
		add_real(&l->error2, error[i].error2);
		add_real(&l->value2, error[i].value2);
	}
}

/* ---- spans --------------------------------------------------------------------------- */

enum quant_kind lossy_kind(const struct pol_span *s, const char *name)
{
	const char *filter = strchr(off_opt.lossy, ':');
	bool wanted = s->dims > 1 && s->len >= SPAN_LEAST &&
		      (!filter || options_glob(filter + 1, name));

	return wanted ? kind_of(s) : QUANT_RAW;
}

void lossy_mark(struct region *r, const char *text, size_t text_len)
{
	uint64_t bytes = 0, n = 0;
	char name[256];

	if (!lossy_bits() || !r->n_spans)
		return;
	if (pg.mode == MODE_HINTS) {
		off_log("OFFLOAD_LOSSY: mode hints packs nothing, so nothing of %s is rounded",
			r->origin->name);
		return;
	}
	r->lossy = mem_alloc(r->n_spans * sizeof(*r->lossy));
	if (!r->lossy)
		return;
	for (size_t i = 0; i < r->n_spans; i++) {
		const struct pol_span *s = &r->spans[i];

		r->lossy[i] = NO_ROW;
		if ((uint64_t)s->name_off + s->name_len > text_len)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)s->name_len, text + s->name_off);
		if (lossy_kind(s, name) == QUANT_RAW)
			continue;
		r->lossy[i] = row_of(name);
		bytes += s->len;
		n++;
	}
	if (n)
		off_log("OFFLOAD_LOSSY=%s: %llu tensors of %s (%llu MiB) may be rounded to int%u where they are packed; results will differ",
			off_opt.lossy, (unsigned long long)n, r->origin->name,
			(unsigned long long)(bytes >> 20), lossy_bits());
	else
		off_log("OFFLOAD_LOSSY=%s: no tensor of %s is a matrix of floats that it names; nothing is rounded",
			off_opt.lossy, r->origin->name);
}

static int add_piece(struct quant_piece *out, int n, uint64_t len, enum quant_kind kind,
		     uint16_t row)
{
	if (!len)
		return n;
	if (n >= QUANT_PIECES)		/* and no further: the caller gives up */
		return QUANT_PIECES + 1;
	out[n] = (struct quant_piece){ .len = (uint32_t)len, .kind = (uint8_t)kind,
				       .tag = row };
	return n + 1;
}

int lossy_pieces(const struct region *r, uint64_t off, struct quant_piece *out)
{
	uint64_t at = off, end = off + CHUNK, lo, hi, size;
	bool any = false;
	int n = 0;

	for (size_t i = 0; r->lossy && i < r->n_spans && n <= QUANT_PIECES; i++) {
		const struct pol_span *s = &r->spans[i];

		if (r->lossy[i] == NO_ROW || s->off >= end || s->off + s->len <= at)
			continue;
		size = quant_size(kind_of(s));
		lo = s->off > at ? s->off : at;
		lo += (size - (lo - s->off) % size) % size;		/* (1) */
		hi = s->off + s->len < end ? s->off + s->len : end;
		if (hi < lo + PIECE_LEAST)
			continue;
		hi -= (hi - lo) % size;
		n = add_piece(out, n, lo - at, QUANT_RAW, 0);
		n = add_piece(out, n, hi - lo, kind_of(s), r->lossy[i]);
		at = hi;
		any = true;
	}
	n = add_piece(out, n, end - at, QUANT_RAW, 0);
	return any && n <= QUANT_PIECES ? n : 0;
}
