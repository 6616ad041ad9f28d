/* SPDX-License-Identifier: MIT */
/* tape.h - reads the tapes in tests/golden, for the policy's unit tests.
 *
 * Text, '#' to the end of a line is a comment. A line is a row of uses:
 *     C         chunk C             C+N     chunks C, C+1 ... C+N-1
 *     C/S C+N/S ... by stream S     *K      first in a line: K times
 * or a span, in chunks: ! OFF LEN ORDER SLAB EXPERT LAYER (SLAB > 0: a stack
 * of experts, used now and then).
 */
#ifndef TESTS_TAPE_H
#define TESTS_TAPE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/policy_int.h"

struct tape {
	struct pol_use *use;
	size_t n, room;
	uint32_t chunks;
	struct pol_span span[64];
	size_t n_spans;
};

static inline void tape_use(struct tape *t, uint32_t chunk, uint32_t stream)
{
	if (t->n == t->room) {
		t->room = t->room ? t->room * 2 : 1024;
		t->use = realloc(t->use, t->room * sizeof(*t->use));
		assert_non_null(t->use);
	}
	t->use[t->n++] = (struct pol_use){ chunk, stream };
	if (chunk >= t->chunks)
		t->chunks = chunk + 1;
}

static inline void tape_span(struct tape *t, const char *line)
{
	unsigned int off, len, order, slab, expert, layer;
	struct pol_span *s = &t->span[t->n_spans++];

	assert_true(t->n_spans <= 64);
	assert_int_equal(sscanf(line, "! %u %u %u %u %u %u", &off, &len, &order,
				&slab, &expert, &layer), 6);
	*s = (struct pol_span){
		.off = off, .len = len, .order = order, .slab = slab,
		.expert = expert, .layer = layer,
		.pattern = slab ? POL_SKEW : POL_LOOP,
	};
}

/* One token: C, C+N, C/S, C+N/S. */
static inline void tape_word(struct tape *t, char *word)
{
	uint32_t n = 1, stream = 0, chunk;
	char *end;

	chunk = (uint32_t)strtoul(word, &end, 10);
	if (*end == '+')
		n = (uint32_t)strtoul(end + 1, &end, 10);
	if (*end == '/')
		stream = (uint32_t)strtoul(end + 1, &end, 10);
	assert_true(end != word && !*end);
	while (n--)
		tape_use(t, chunk++, stream);
}

static inline void tape_line(struct tape *t, char *line)
{
	size_t from = t->n, len;
	long times = 1;
	char *word, *save;

	line[strcspn(line, "#\n")] = 0;
	if (*line == '!') {
		tape_span(t, line);
		return;
	}
	for (word = strtok_r(line, " ", &save); word;
	     word = strtok_r(NULL, " ", &save))
		if (*word == '*')
			times = strtol(word + 1, NULL, 10);
		else
			tape_word(t, word);
	len = t->n - from;
	while (--times > 0)
		for (size_t i = 0; i < len; i++)
			tape_use(t, t->use[from + i].chunk,
				 t->use[from + i].stream);
}

/* Tests run in the repository's root. */
static inline struct tape tape_read(const char *name)
{
	struct tape t = { 0 };
	char path[128], *line = NULL;
	size_t size = 0;
	FILE *f;

	snprintf(path, sizeof(path), "tests/golden/%s", name);
	f = fopen(path, "r");
	if (!f)
		fail_msg("%s: not found: run in the repository's root", path);
	while (getline(&line, &size, f) > 0)
		tape_line(&t, line);
	free(line);
	fclose(f);
	return t;
}

static inline struct pol_result tape_run(const struct tape *t,
					 const char *policy, uint32_t frames,
					 uint32_t window, bool spans)
{
	void *mem = malloc(pol_simulate_size(t->n, t->chunks));
	struct pol_result r;

	assert_non_null(mem);
	assert_int_equal(pol_simulate(policy, t->use, t->n, t->chunks, frames,
				      window, t->span, spans ? t->n_spans : 0,
				      1, mem, &r), 0);
	free(mem);
	return r;
}

#endif
