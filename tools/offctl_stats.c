/* SPDX-License-Identifier: MIT */
/* offctl_stats.c - prints the statistics of one process, or of all.
 *
 * Owns nothing. The JSON is made by core/stats.c, so that it is the same here
 * and in the file that OFFLOAD_STATS names.
 */
#include "offctl.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct stats_args {
	int pid;		/* 0: all */
	int json;
	int count;		/* processes printed so far */
};

static const struct argp_option opts[] = {
	{ "json", 'j', NULL, 0, "one line of JSON instead of a table", 0 },
	{ 0 }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct stats_args *a = state->input;
	char *end;
	long pid;

	switch (key) {
	case 'j':
		a->json = 1;
		return 0;
	case ARGP_KEY_ARG:
		pid = strtol(arg, &end, 10);
		if (a->pid || *end || pid <= 0 || pid > INT32_MAX)
			argp_error(state, "%s is not one process id", arg);
		a->pid = (int)pid;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static void print_json(const struct off_stats *s, void *arg)
{
	struct stats_args *a = arg;
	char buf[STATS_JSON_MAX];

	if (stats_json(buf, sizeof(buf), s) > 0)
		printf("%s%s", a->count++ ? ",\n " : "", buf);
}

static void print_line(const struct off_stats *s, void *arg)
{
	struct stats_args *a = arg;
	char managed[32], plain[32], bytes[32];

	if (!a->count++)
		printf("%7s %-6s %7s %12s %12s %12s %7s %8s %6s %6s %s\n",
		       "PID", "PAGER", "REGIONS", "MANAGED", "PLAIN", "READ",
		       "STALL%", "DEMAND", "LATE", "WASTED", "COMMAND");
	printf("%7d %-6.15s %7llu %12s %12s %12s %7.1f %8llu %6llu %6llu %.40s\n",
	       (int)s->pid, s->pager,
	       (unsigned long long)stat_get(s, ST_HOST_REGIONS),
	       stats_bytes_text(stat_get(s, ST_HOST_MANAGED), managed, 32),
	       stats_bytes_text(stat_get(s, ST_HOST_PLAIN), plain, 32),
	       stats_bytes_text(stat_get(s, ST_IO_READ), bytes, 32),
	       stall_share(stat_get(s, ST_FAULTS_STALL), stats_uptime_ns(s)),
	       (unsigned long long)stat_get(s, ST_FAULTS_DEMAND),
	       (unsigned long long)stat_get(s, ST_PREFETCH_LATE),
	       (unsigned long long)stat_get(s, ST_PREFETCH_WASTED), s->command);
}

static const char *value_text(const char *key, uint64_t v, char *value, size_t len)
{
	size_t n = strlen(key);

	if (n > 6 && !strcmp(key + n - 6, "_bytes"))
		stats_bytes_text(v, value, len);
	else if (n > 3 && !strcmp(key + n - 3, "_ns"))
		snprintf(value, len, "%.3f s", (double)v / 1e9);
	else
		snprintf(value, len, "%llu", (unsigned long long)v);
	return value;
}

static void print_row(const struct off_stats *s, enum off_stat i)
{
	const struct stat_row *r = &stat_rows[i];
	char name[64], value[32];

	snprintf(name, sizeof(name), "%s.%s", r->group, r->key);
	printf("  %-28s %14s  %s\n", name,
	       value_text(r->key, stat_get(s, i), value, sizeof(value)), r->help);
}

/* Names may hold anything: a path does. */
static void print_name(const char *name)
{
	for (; *name; name++)
		putchar((unsigned char)*name < 0x20 || *name == 0x7f ? '?' : *name);
	putchar('\n');
}

static void print_sites(const struct off_stats *s)
{
	struct stat_site site[STATS_SITES];
	int n = stats_sites(s, site);
	char bytes[32];

	if (n)
		printf("%12s %7s %-4s  %s\n", "BYTES", "BLOCKS", "KIND",
		       "LARGEST, BY FILE OR BY WHO ASKED");
	for (int i = 0; i < n; i++) {
		printf("%12s %7llu %-4s  ",
		       stats_bytes_text(site[i].bytes, bytes, sizeof(bytes)),
		       (unsigned long long)site[i].blocks,
		       site[i].kind == STAT_FILE ? "file" : "heap");
		print_name(site[i].name);
	}
	if (n)
		putchar('\n');
}

static void print_devices(const struct off_stats *s)
{
	char name[64], value[32];

	for (int i = 0; i < STATS_DEVICES * SD_N; i++) {
		const struct stat_device *d = &s->device[i / SD_N];
		const struct stat_row *r = &device_rows[i % SD_N];

		if (!(s->devices >> i / SD_N & 1))
			continue;
		snprintf(name, sizeof(name), "device%d.%s%s%s", i / SD_N, r->group,
			 *r->group ? "." : "", r->key);
		printf("  %-28s %14s  %s\n", name,
		       value_text(r->key, d->v[i % SD_N], value, sizeof(value)), r->help);
	}
}

static void print_whole(const struct off_stats *s)
{
	char buf[8192];

	printf("command: %.120s\n", s->command);
	if (stats_summary(buf, sizeof(buf), s) > 0)
		fputs(buf, stdout);
	putchar('\n');
	print_sites(s);
	for (int i = 0; i < ST_N; i++)
		print_row(s, (enum off_stat)i);
	print_devices(s);
}

static int one(const struct stats_args *a)
{
	struct stats_args count = *a;
	struct off_stats s;
	int err = find_stats(a->pid, &s);

	if (err) {
		fprintf(stderr, "offctl: process %d: %s\n", a->pid, find_reason(err));
		return 1;
	}
	if (!a->json) {
		print_whole(&s);
		return 0;
	}
	print_json(&s, &count);
	putchar('\n');
	return 0;
}

static int all(struct stats_args *a)
{
	if (a->json)
		putchar('[');
	each_stats(a->json ? print_json : print_line, a);
	if (a->json)
		puts("]");
	else if (!a->count)
		fputs("offctl: no process in which the library has something "
		      "to do\n", stderr);
	return 0;
}

int cmd_stats(int argc, char **argv)
{
	static const struct argp argp = { opts, parse, "[PID]",
		"Prints the statistics of one process, or of all that this "
		"user may read.\vExit status 1: PID has none.", NULL, NULL,
		NULL };
	struct stats_args a = { 0 };

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	return a.pid ? one(&a) : all(&a);
}
