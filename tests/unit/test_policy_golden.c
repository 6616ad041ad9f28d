/* SPDX-License-Identifier: MIT */
/* test_policy_golden.c - exact reads of every policy on the tapes of
 * tests/golden, as counts.txt has them.
 *
 * A line of counts.txt: TAPE FRAMES WINDOW SPANS, then the reads of each
 * policy in the order of pol_names. After a change of policy that is meant,
 * `build/unit/test_policy_golden --print` prints the file anew: read the
 * difference before committing it.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tape.h"

#define COUNTS "tests/golden/counts.txt"

struct row {
	char tape[32];
	unsigned int frames, window, spans;
	unsigned long reads[8];
};

/* Returns false at a comment. */
static bool parse(const char *line, struct row *r)
{
	unsigned long *v = r->reads;
	int n;

	if (*line == '#' || *line == '\n')
		return false;
	n = sscanf(line, "%31s %u %u %u %lu %lu %lu %lu %lu %lu %lu %lu",
		   r->tape, &r->frames, &r->window, &r->spans, v, v + 1, v + 2,
		   v + 3, v + 4, v + 5, v + 6, v + 7);
	if (n < 4)
		fail_msg("counts.txt: bad line: %s", line);
	return true;
}

static int check_row(const struct row *r)
{
	struct tape t = tape_read(r->tape);
	struct pol_result res;
	int bad = 0;

	for (int i = 0; pol_names[i]; i++) {
		res = tape_run(&t, pol_names[i], r->frames, r->window,
			       r->spans);
		assert_int_equal(res.uses, t.n);
		if (res.fetched == r->reads[i])
			continue;
		print_error("%s, %u frames, %s: %lu reads, expected %lu\n",
			    r->tape, r->frames, pol_names[i],
			    (unsigned long)res.fetched, r->reads[i]);
		bad++;
	}
	free(t.use);
	return bad;
}

static void print_row(const struct row *r)
{
	struct tape t = tape_read(r->tape);

	printf("%-14s %4u %3u %d", r->tape, r->frames, r->window, r->spans);
	for (int i = 0; pol_names[i]; i++)
		printf(" %6lu", (unsigned long)tape_run(&t, pol_names[i],
			r->frames, r->window, r->spans).fetched);
	printf("\n");
	free(t.use);
}

static int each_row(bool print)
{
	char *line = NULL;
	size_t size = 0;
	struct row r;
	FILE *f = fopen(COUNTS, "r");
	int bad = 0, rows = 0;

	assert_non_null(f);
	while (getline(&line, &size, f) > 0) {
		if (!parse(line, &r)) {
			if (print)
				fputs(line, stdout);
			continue;
		}
		rows++;
		if (print)
			print_row(&r);
		else
			bad += check_row(&r);
	}
	free(line);
	fclose(f);
	assert_true(rows >= 10);
	return bad;
}

static void reads_are_as_counted(void **state)
{
	assert_int_equal(each_row(false), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_are_as_counted),
	};

	if (argc > 1 && !strcmp(argv[1], "--print"))
		return each_row(true);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
