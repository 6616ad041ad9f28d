/* SPDX-License-Identifier: MIT */
/* offctl_run.c - starts a program with the library preloaded.
 *
 * Owns nothing: it becomes the program. (1) The program runs in any case in
 * which it would run without us, and its exit status is its own (R9).
 * (2) What is in the environment already stays.
 */
#include "offctl.h"

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/options.h"

#define EXIT_CANNOT_RUN	126
#define EXIT_NOT_FOUND	127

static const struct argp_option opts[] = {
	{ "ram", 'r', "SIZE", 0, "host memory the library may hold "
	  "(OFFLOAD_RAM); without it, what the cgroup and the machine leave", 0 },
	{ "vram", 'v', "SIZE", 0, "device memory (OFFLOAD_VRAM)", 0 },
	{ "spill", 's', "DIR", 0, "directory of the spill file "
	  "(OFFLOAD_SPILL)", 0 },
	{ 0 }
};

/* ---- help ---------------------------------------------------------------- */

static const char *short_form(const struct opt_row *r, char *buf, size_t len)
{
	static const char *const forms[] = {
		[OPT_SIZE] = "SIZE", [OPT_PATH] = "PATH",
		[OPT_GLOB] = "PATTERN,...", [OPT_OUT] = "0|1|PATH",
	};

	if (r->type == OPT_RULE)
		snprintf(buf, len, "%s[:PATTERN,...]", r->words);
	else if (r->type != OPT_NUM)
		snprintf(buf, len, "%s", r->words ? r->words : forms[r->type]);
	else if (r->max == UINT64_MAX)
		snprintf(buf, len, "NUMBER");
	else
		snprintf(buf, len, "%llu-%llu", (unsigned long long)r->min,
			 (unsigned long long)r->max);
	return buf;
}

static int print_row(const struct opt_row *r, void *to)
{
	char value[128], form[128];

	fprintf(to, "  OFFLOAD_%s=%s", r->name,
		short_form(r, form, sizeof(form)));
	options_value(r, &off_opt_default, value, sizeof(value));
	fprintf(to, *value ? "   [%s]\n" : "\n", value);
	fprintf(to, "      %s\n", r->help);
	return 0;
}

static char *help_filter(int key, const char *text, void *input)
{
	char *out = NULL;
	size_t len;
	FILE *f;

	if (key != ARGP_KEY_HELP_POST_DOC)
		return (char *)(uintptr_t)text;
	f = open_memstream(&out, &len);
	if (!f)
		return NULL;
	fputs("Environment variables, for the library with or without "
	      "offctl [default]:\n", f);
	options_each(print_row, f);
	fputs("Exit status: the program's; 126 and 127 when it cannot be run or "
	      "is not found, 2 for wrong usage.", f);
	fclose(f);
	return out;
}

/* ---- arguments ----------------------------------------------------------- */

struct run_args {
	char **argv;
};

static void set_size(const char *name, const char *option, const char *text)
{
	size_arg(option, text);
	setenv(name, text, 1);
}

static void set_dir(const char *dir)
{
	char real[PATH_MAX];
	struct stat st;

	if (!realpath(dir, real) || stat(real, &st) || !S_ISDIR(st.st_mode)) {
		fprintf(stderr, "offctl: --spill %s: no such directory\n", dir);
		exit(EXIT_USAGE);
	}
	setenv("OFFLOAD_SPILL", real, 1);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct run_args *a = state->input;

	switch (key) {
	case 'r':
		set_size("OFFLOAD_RAM", "--ram", arg);
		return 0;
	case 'v':
		set_size("OFFLOAD_VRAM", "--vram", arg);
		return 0;
	case 's':
		set_dir(arg);
		return 0;
	case ARGP_KEY_ARGS:
		a->argv = state->argv + state->next;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which program?");
		return EINVAL;
	}
	return ARGP_ERR_UNKNOWN;
}

/* ---- the program --------------------------------------------------------- */

static bool is_program(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

/* Where execvp will find it. */
static int resolve(const char *cmd, char *out, size_t len)
{
	const char *path = getenv("PATH");
	size_t n;

	if (strchr(cmd, '/')) {
		snprintf(out, len, "%s", cmd);
		return is_program(cmd) ? 0 : -ENOENT;
	}
	for (path = path ? path : "/bin:/usr/bin"; ; path += n + 1) {
		n = strcspn(path, ":");
		snprintf(out, len, "%.*s%s%s", (int)n, path, n ? "/" : "", cmd);
		if (is_program(out))
			return 0;
		if (!path[n])
			return -ENOENT;
	}
}

/* Whether the list, with blanks or colons between, already has it. */
static bool in_preload(const char *list, const char *lib)
{
	size_t n, len = strlen(lib);

	for (; *list; list += n + !!list[n]) {
		n = strcspn(list, " :");
		if (n == len && !strncmp(list, lib, n))
			return true;
	}
	return false;
}

static void set_preload(const char *lib)
{
	const char *was = getenv("LD_PRELOAD");
	char *both = NULL;

	if (!was || !*was) {
		setenv("LD_PRELOAD", lib, 1);
	} else if (!in_preload(was, lib)) {
		if (asprintf(&both, "%s:%s", lib, was) < 0)
			return;
		setenv("LD_PRELOAD", both, 1);
		free(both);
	}
}

static void without(const char *why)
{
	fprintf(stderr, "offctl: %s: runs without the library\n", why);
}

/* Returns what target_check said. */
static int prepare(const char *program)
{
	char lib[PATH_MAX], why[PATH_MAX + 128];
	int target = target_check(program, why, sizeof(why));

	if (target == 1)
		without(why);
	else if (find_library(lib, sizeof(lib)))
		without("liboffload.so is not beside offctl, not in ../lib and "
			"not named by OFFLOAD_LIB");
	else if (strpbrk(lib, " :"))
		without("the library's path holds a blank or a colon, which "
			"LD_PRELOAD cannot");
	else
		set_preload(lib);
	return target;
}

static int cannot(const char *cmd, const char *why, int status)
{
	fprintf(stderr, "offctl: %s: %s\n", cmd, why);
	return status;
}

static int not_found(const char *cmd)
{
	struct stat st;

	/* a file that may not be executed is another thing than none */
	if (strchr(cmd, '/') && !stat(cmd, &st))
		return cannot(cmd, strerror(EACCES), EXIT_CANNOT_RUN);
	return cannot(cmd, "command not found", EXIT_NOT_FOUND);
}

int cmd_run(int argc, char **argv)
{
	static const struct argp argp = { opts, parse, "[--] CMD [ARG...]",
		"Runs CMD with liboffload preloaded.\v ", NULL, help_filter,
		NULL };
	struct run_args a = { NULL };
	char program[PATH_MAX];
	int target;

	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
	if (resolve(a.argv[0], program, sizeof(program)))
		return not_found(a.argv[0]);
	target = prepare(program);
	execv(program, a.argv);
	if (errno == ENOEXEC && target != 1)
		execvp(program, a.argv);	/* text without #!: the shell */
	if (errno == ENOENT)
		return cannot(a.argv[0], "its interpreter or loader is missing",
			      EXIT_NOT_FOUND);
	return cannot(a.argv[0], strerror(errno), EXIT_CANNOT_RUN);
}
