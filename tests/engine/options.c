/* SPDX-License-Identifier: MIT */
/* options.c - command lines by a table.
 *
 * Owns nothing; lock: none.
 */
#include "tests/engine/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void default_text(const struct option_row *r, char *s, size_t size)
{
	const char *c = r->choices;

	for (uint64_t i = 0; c && i < *r->value; i++)
		c = strchr(c, ' ') ? strchr(c, ' ') + 1 : "";
	if (c)
		snprintf(s, size, "%.*s", (int)strcspn(c, " "), c);
	else
		snprintf(s, size, "%llu", (unsigned long long)*r->value);
}

static void help(const struct option_row *rows, const char *usage)
{
	char def[32];

	printf("usage: %s\n", usage);
	for (const struct option_row *r = rows; r->name; r++) {
		default_text(r, def, sizeof(def));
		printf("  --%-10s %s (%s)%s%s\n", r->name, r->help, def,
		       r->choices ? ": " : "", r->choices ? r->choices : "");
	}
	exit(0);
}

static void refuse(const char *what, const char *arg)
{
	fprintf(stderr, "%s: %s: %s (--help shows the options)\n",
		program_invocation_short_name, what, arg);
	exit(2);
}

static int choice(const char *choices, const char *arg)
{
	size_t n = strlen(arg);
	int i = 0;

	for (const char *c = choices; ; i++) {
		size_t len = strcspn(c, " ");

		if (len == n && !memcmp(c, arg, n))
			return i;
		if (!c[len])
			return -1;
		c += len + 1;
	}
}

static void set(const struct option_row *r, const char *arg)
{
	unsigned long long v;
	char *end;

	if (r->choices) {
		int i = choice(r->choices, arg);

		if (i < 0)
			refuse(r->choices, arg);
		*r->value = (uint64_t)i;
		return;
	}
	errno = 0;
	v = strtoull(arg, &end, 10);
	if (*arg < '0' || *arg > '9' || *end || errno || v < r->least || v > r->most)
		refuse(r->name, arg);
	*r->value = v;
}

const char *options_read(int argc, char **argv, const struct option_row *rows,
			 const char *usage)
{
	const char *rest = NULL;

	for (int i = 1; i < argc; i++) {
		const struct option_row *r = rows;

		if (strncmp(argv[i], "--", 2)) {
			if (rest)
				refuse("one argument too many", argv[i]);
			rest = argv[i];
			continue;
		}
		if (!strcmp(argv[i], "--help"))
			help(rows, usage);
		while (r->name && strcmp(r->name, argv[i] + 2))
			r++;
		if (!r->name)
			refuse("no such option", argv[i]);
		if (++i == argc)
			refuse("a value is missing", r->name);
		set(r, argv[i]);
	}
	return rest;
}
