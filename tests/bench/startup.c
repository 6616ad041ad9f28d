/* SPDX-License-Identifier: MIT */
/* startup.c - what preloading adds to programs that do not need it.
 *
 *     startup LIBRARY [RUNS]
 *
 * Starts each program of a list in turn without and with LIBRARY preloaded,
 * interleaved, and prints the medians of the time from its start to its end
 * and of the difference of each pair, in milliseconds, with twice the standard
 * error of the latter: a program that takes 70 ms differs from itself by more
 * than the millisecond that is looked for.
 *
 * 1. One process at a time; output goes nowhere.
 * 2. The order within a pair changes, so that neither is always the first.
 */
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static char *const programs[][4] = {
	{ "true" },
	{ "bash", "-c", ":" },
	{ "/usr/bin/python3", "-c", "pass" },
	{ "node", "-e", "0" },
	{ "gcc", "--version" },
	{ "git", "--version" },
};

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Milliseconds from start to end, or -1: it could not be started. */
static double once(char *const argv[], const posix_spawn_file_actions_t *fa)
{
	double start = now_ms();
	int status;
	pid_t pid;

	if (posix_spawnp(&pid, argv[0], fa, NULL, argv, environ))
		return -1;
	while (waitpid(pid, &status, 0) < 0)
		;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? now_ms() - start : -1;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, int n)
{
	qsort(v, (size_t)n, sizeof(*v), by_value);
	return v[n / 2];
}

/* Twice the standard error of the median of V, by the median of what differs
 * from it (MAD; both for normal noise). Sorts and changes V. */
static double twice_error(double *v, int n, double middle)
{
	for (int i = 0; i < n; i++)
		v[i] = fabs(v[i] - middle);
	return 2 * 1.2533 * 1.4826 * median(v, n) / sqrt(n);
}

static void compare(char *const argv[], const char *lib, int runs,
		    const posix_spawn_file_actions_t *fa)
{
	double *ms[3];		/* without, with, added */
	double added, error;

	for (int k = 0; k < 3; k++)
		ms[k] = malloc((size_t)runs * sizeof(double));
	for (int i = 0; i < 2 * runs; i++) {
		int kind = (i ^ i >> 1) & 1;	/* 0 1 1 0 0 1 1 0 ... */

		if (kind)
			setenv("LD_PRELOAD", lib, 1);
		else
			unsetenv("LD_PRELOAD");
		ms[kind][i / 2] = once(argv, fa);
	}
	unsetenv("LD_PRELOAD");
	for (int i = 0; i < runs; i++)
		ms[2][i] = ms[1][i] - ms[0][i];
	added = median(ms[2], runs);
	error = twice_error(ms[2], runs, added);
	if (ms[0][0] < 0 || ms[1][0] < 0)
		printf("%-16s cannot be started here\n", argv[0]);
	else
		printf("%-16s %8.3f %8.3f %+8.3f %8.3f %s\n", argv[0],
		       median(ms[0], runs), median(ms[1], runs), added, error,
		       added <= 1 ? "" : "missed (1.0)");
	for (int k = 0; k < 3; k++)
		free(ms[k]);
}

int main(int argc, char **argv)
{
	posix_spawn_file_actions_t fa;
	int runs = argc > 2 ? atoi(argv[2]) : 101;

	if (argc < 2 || runs < 1) {
		fputs("usage: startup LIBRARY [RUNS]\n", stderr);
		return 2;
	}
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
	printf("%-16s %8s %8s %8s %8s   median of %d, ms\n", "program", "without",
	       "with", "added", "+-", runs);
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++)
		compare(programs[i], argv[1], runs, &fa);
	return 0;
}
