/* SPDX-License-Identifier: MIT */
/* offctl.c - runs, shows and explains liboffload: the table of commands.
 *
 * Owns the command table and what all commands share.
 */
#include "offctl.h"

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/options.h"

static const struct command {
	const char *name, *help;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "run", "run a program with the library", cmd_run },
	{ "stats", "print what the library counts in running programs",
	  cmd_stats },
	{ "top", "the same, refreshed on the whole screen", cmd_top },
	{ "doctor", "say what this machine allows, at what cost, and how to "
	  "mend it", cmd_doctor },
	{ "plan", "say what would be kept plain, packed or read each time, and "
	  "how long a token then takes", cmd_plan },
	{ "simulate", "replay a tape against eviction policies", cmd_simulate },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

const char *argp_program_version = "offctl " OFF_VERSION;

static void print_help(FILE *to)
{
	fputs("usage: offctl COMMAND [ARGUMENTS]\n\n", to);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
	fputs("\n  --version  print the version\n"
	      "  --help     this text; `offctl COMMAND --help` tells more\n", to);
}

uint64_t size_arg(const char *option, const char *text)
{
	uint64_t bytes;

	if (options_size(text, &bytes)) {
		fprintf(stderr, "offctl: %s %s: not accepted; it takes a size "
			"in bytes, or with K, M, G or T, as in 512M\n",
			option, text);
		exit(EXIT_USAGE);
	}
	return bytes;
}

double number_arg(const char *option, const char *text)
{
	char *end;
	double v = strtod(text, &end);

	if (*end || end == text || !(v > 0) || v > 1e9) {
		fprintf(stderr, "offctl: %s %s: not accepted; it takes a "
			"number above 0\n", option, text);
		exit(EXIT_USAGE);
	}
	return v;
}

uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int usable(const char *path, char *out, size_t len)
{
	char real[PATH_MAX];

	if (!realpath(path, real) || access(real, R_OK) || strlen(real) >= len)
		return -ENOENT;
	strcpy(out, real);
	return 0;
}

int find_library(char *out, size_t len)
{
	static const char *const places[] = { "", "../lib/" };
	const char *asked = getenv("OFFLOAD_LIB");
	char self[PATH_MAX], path[PATH_MAX + 64];
	ssize_t n;

	if (asked && *asked)
		return usable(asked, out, len);
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[n > 0 ? n : 0] = 0;
	if (!strrchr(self, '/'))
		return -ENOENT;
	strrchr(self, '/')[1] = 0;
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s%sliboffload.so", self, places[i]);
		if (!usable(path, out, len))
			return 0;
	}
	return -ENOENT;
}

static int dispatch(const struct command *c, int argc, char **argv)
{
	char name[32];

	snprintf(name, sizeof(name), "offctl %s", c->name);
	argv[0] = name;
	program_invocation_name = name;
	return c->run(argc, argv);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "--help";

	argp_err_exit_status = EXIT_USAGE;
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(name, commands[i].name))
			return dispatch(&commands[i], argc - 1, argv + 1);
	if (!strcmp(name, "--version")) {
		puts(argp_program_version);
		return 0;
	}
	if (argc > 1 && (!strcmp(name, "--help") || !strcmp(name, "help"))) {
		print_help(stdout);
		return 0;
	}
	if (argc > 1)
		fprintf(stderr, "offctl: no command %s\n", name);
	print_help(stderr);
	return EXIT_USAGE;
}
