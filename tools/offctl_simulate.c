/* SPDX-License-Identifier: MIT */
/* offctl_simulate.c - replays a tape against policies.
 *
 * Owns nothing. "live" is the very code the library runs (policy/); the
 * others are what it is compared with, belady being the least any could do.
 */
#include "offctl.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sim_args {
	const char *tape, *policy;
	uint64_t frames, ram, window;	/* chunks, bytes, bytes */
	double disk_gbs;
};

/* What all rows are printed with. */
struct sim {
	const struct tape *t;
	uint32_t frames, window;	/* chunks */
	size_t pass;			/* uses in one pass; 0: no period */
	void *scratch;
	double disk_gbs;
};

static const struct argp_option opts[] = {
	{ "frames", 'n', "N", 0, "chunks that fit in memory (four fifths of "
	  "those on the tape)", 0 },
	{ "ram", 'r', "SIZE", 0, "the same in bytes", 0 },
	{ "policy", 'p', "NAME", 0, "this policy only", 0 },
	{ "window", 'w', "SIZE", 0, "how far ahead live reads (0: not)", 0 },
	{ "disk", 'd', "GB/S", 0, "disk speed for the time column (2.0)", 0 },
	{ 0 }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct sim_args *a = state->input;

	switch (key) {
	case 'n':
		a->frames = size_arg("--frames", arg);
		return 0;
	case 'r':
		a->ram = size_arg("--ram", arg);
		return 0;
	case 'p':
		a->policy = arg;
		return 0;
	case 'w':
		a->window = size_arg("--window", arg);
		return 0;
	case 'd':
		a->disk_gbs = number_arg("--disk", arg);
		return 0;
	case ARGP_KEY_ARG:
		if (a->tape)
			argp_error(state, "one tape only");
		a->tape = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->tape)
			argp_error(state, "which tape?");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* ---- the tape ------------------------------------------------------------ */

static uint32_t distinct(const struct tape *t)
{
	char *seen = calloc(t->chunks, 1);
	uint32_t n = 0;

	for (size_t i = 0; seen && i < t->n_uses; i++) {
		n += !seen[t->uses[i].chunk];
		seen[t->uses[i].chunk] = 1;
	}
	free(seen);
	return n;
}

/* Uses in one pass, or 0. A loop cannot be shorter than the chunks on it. */
static size_t find_pass(const struct tape *t)
{
	uint32_t *chunks = malloc((t->n_uses + 1) * sizeof(*chunks));
	struct tape half = *t;
	size_t pass;

	if (!chunks)
		return 0;
	for (size_t i = 0; i < t->n_uses; i++)
		chunks[i] = t->uses[i].chunk;
	pass = pol_period(chunks, t->n_uses);
	free(chunks);
	half.uses += t->n_uses / 2;
	half.n_uses -= t->n_uses / 2;
	return pass < distinct(&half) ? 0 : pass;
}

/* ---- one policy ---------------------------------------------------------- */

static int replay(const struct sim *s, const char *name, size_t uses,
		  struct pol_result *out)
{
	const struct tape *t = s->t;

	return pol_simulate(name, t->uses, uses, t->chunks, s->frames, s->window,
			    t->n_spans ? t->spans : NULL, t->n_spans,
			    t->chunk_bytes, s->scratch, out);
}

/* Chunks fetched per pass once the first two are over (they fill the memory
 * and show the order), or below 0 when the tape is too short to tell. */
static double per_pass(const struct sim *s, const char *name,
		       const struct pol_result *whole)
{
	struct pol_result start;
	double passes;

	if (!s->pass || s->t->n_uses < 4 * s->pass ||
	    replay(s, name, 2 * s->pass, &start))
		return -1;
	passes = (double)(s->t->n_uses - 2 * s->pass) / (double)s->pass;
	return ((double)whole->fetched - (double)start.fetched) / passes;
}

static int print_policy(const struct sim *s, const char *name, double best)
{
	struct pol_result r;
	char bytes[32];
	double pass, seconds;
	int err = replay(s, name, s->t->n_uses, &r);

	if (err)
		return err;
	pass = per_pass(s, name, &r);
	stats_bytes_text(r.fetched * s->t->chunk_bytes, bytes, sizeof(bytes));
	seconds = (double)r.fetched * s->t->chunk_bytes / (s->disk_gbs * 1e9);
	printf("%-8s %6.2f%% %9llu ", name, r.uses ?
	       100.0 * (double)r.hits / (double)r.uses : 0.0,
	       (unsigned long long)r.fetched);
	if (pass < 0)
		printf("%10s", "-");
	else
		printf("%10.1f", pass);
	printf(" %12s %9.2f s %7.2fx\n", bytes, seconds,
	       best > 0 ? (double)r.fetched / best : 1.0);
	return 0;
}

static void print_head(const struct sim *s, uint32_t used)
{
	char frames[32], all[32];
	const struct tape *t = s->t;

	stats_bytes_text((uint64_t)s->frames * t->chunk_bytes, frames, 32);
	stats_bytes_text((uint64_t)used * t->chunk_bytes, all, 32);
	printf("%zu uses of %u chunks (%s); memory %u frames (%s)\n", t->n_uses,
	       used, all, s->frames, frames);
	if (s->pass)
		printf("one pass is %zu uses, %.1f passes\n", s->pass,
		       (double)t->n_uses / (double)s->pass);
	else
		puts("no period: the uses do not repeat");
	printf("\n%-8s %7s %9s %10s %12s %11s %8s\n", "POLICY", "HITS",
	       "FETCHED", "PER PASS", "BYTES", "AT DISK", "BELADY");
}

static int unknown_policy(const char *name)
{
	fprintf(stderr, "offctl: no policy %s; there are:", name);
	for (int i = 0; pol_names[i]; i++)
		fprintf(stderr, " %s", pol_names[i]);
	fputc('\n', stderr);
	return EXIT_USAGE;
}

static bool is_policy(const char *name)
{
	int i = 0;

	while (pol_names[i] && strcmp(pol_names[i], name))
		i++;
	return pol_names[i];
}

/* ---- all ----------------------------------------------------------------- */

static uint32_t clamp(uint64_t n)
{
	return n < 1 ? 1 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static int simulate(const struct sim_args *a, const struct tape *t)
{
	uint32_t used = distinct(t);
	struct sim s = { .t = t, .disk_gbs = a->disk_gbs, .pass = find_pass(t) };
	struct pol_result best = { 0 };
	int err;

	s.frames = clamp(a->frames ? a->frames :
			 a->ram ? a->ram / t->chunk_bytes :
			 (uint64_t)used * 4 / 5);
	s.window = clamp(a->window / t->chunk_bytes);
	s.scratch = malloc(pol_simulate_size(t->n_uses, t->chunks));
	if (!s.scratch)
		return -ENOMEM;
	print_head(&s, used);
	err = replay(&s, "belady", t->n_uses, &best);
	for (int i = 0; pol_names[i] && !err; i++)
		if (!a->policy || !strcmp(a->policy, pol_names[i]))
			err = print_policy(&s, pol_names[i], (double)best.fetched);
	free(s.scratch);
	return err;
}

int cmd_simulate(int argc, char **argv)
{
	static const struct argp argp = { opts, parse, "TAPE",
		"Replays a tape against eviction policies.\vA tape is written "
		"by the library when OFFLOAD_TRACE names a file. PER PASS "
		"leaves the first two passes out. AT DISK is the time the "
		"fetched bytes take, BELADY how many times the chunks of the "
		"best possible policy were fetched.", NULL, NULL, NULL };
	struct sim_args a = { .disk_gbs = 2.0 };
	struct tape t;
	int err;

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	if (a.policy && !is_policy(a.policy))
		return unknown_policy(a.policy);
	err = tape_read(a.tape, &t);
	if (!err && !t.n_uses) {
		fprintf(stderr, "offctl: %s: no uses on it\n", a.tape);
		err = -EBADMSG;
	} else if (!err) {
		err = simulate(&a, &t);
	}
	tape_free(&t);
	if (err && err != -EBADMSG)	/* that one was told */
		fprintf(stderr, "offctl: %s: %s\n", a.tape, strerror(-err));
	return err ? 1 : 0;
}
