/* SPDX-License-Identifier: MIT */
/* offctl_top.c - statistics of all processes, refreshed on the screen.
 *
 * Owns the screen while it runs, and the last reading of each process, from
 * which rates are made.
 */
#include "offctl.h"

#include <argp.h>
#include <curses.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_PROCS 128

struct reading {
	int pid;
	uint64_t start_ns;	/* tells a reused pid apart */
	uint64_t at_ns, read, stall;
	struct stat_device device[STATS_DEVICES];
};

struct top {
	struct reading last[MAX_PROCS], now[MAX_PROCS];
	int n_last, n_now;
	int row;		/* of the screen */
	double delay_s;
};

static const struct argp_option opts[] = {
	{ "delay", 'd', "SECONDS", 0, "time between readings (1)", 0 },
	{ 0 }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct top *t = state->input;

	if (key != 'd')
		return ARGP_ERR_UNKNOWN;
	t->delay_s = number_arg("--delay", arg);
	if (t->delay_s < 0.1 || t->delay_s > 3600)
		argp_error(state, "--delay takes 0.1 to 3600");
	return 0;
}

/* The reading before; a process seen first counts from its own beginning. */
static struct reading before(const struct top *t, const struct off_stats *s,
			     uint64_t now)
{
	struct reading none = { .at_ns = now - stats_uptime_ns(s) };

	for (int i = 0; i < t->n_last; i++)
		if (t->last[i].pid == s->pid &&
		    t->last[i].start_ns == s->start_ns)
			return t->last[i];
	return none;
}

/* The next row, from a column on; what does not fit is cut off, not wrapped. */
__attribute__((format(printf, 3, 4)))
static void print_row(struct top *t, int column, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (t->row < getmaxy(stdscr) && column < getmaxx(stdscr))
		mvaddnstr(t->row, column, text, getmaxx(stdscr) - column);
	t->row++;
}

/* Two columns are left out where they would take the command's place. */
static bool wide(void)
{
	return getmaxx(stdscr) >= 100;
}

static void print_process(struct top *t, const struct off_stats *s, const struct reading *was,
			  const struct reading *now)
{
	double seconds = (double)(now->at_ns - was->at_ns) / 1e9;
	double rate = seconds > 0 ? (double)(now->read - was->read) / seconds : 0;
	char plain[32], managed[32], per_s[32], more[32] = "";

	if (wide())
		snprintf(more, sizeof(more), " %6llu %6llu",
			 (unsigned long long)stat_get(s, ST_PREFETCH_LATE),
			 (unsigned long long)stat_get(s, ST_PREFETCH_WASTED));
	print_row(t, 0, "%7d %-5.5s %11s %11s %11s/s %6.1f %7llu%s %s", (int)s->pid, s->pager,
		  stats_bytes_text(stat_get(s, ST_HOST_MANAGED), managed, 32),
		  stats_bytes_text(stat_get(s, ST_HOST_PLAIN), plain, 32),
		  stats_bytes_text((uint64_t)rate, per_s, 32),
		  stall_share(now->stall - was->stall, now->at_ns - was->at_ns),
		  (unsigned long long)stat_get(s, ST_FAULTS_DEMAND), more, s->command);
}

static uint64_t per_second(uint64_t now, uint64_t was, double seconds)
{
	return seconds > 0 ? (uint64_t)((double)(now - was) / seconds) : 0;
}

/* Under its process, 80 columns wide. */
static void print_device(struct top *t, int i, const struct stat_device *d,
			 const struct stat_device *was, double seconds)
{
	char text[9][32];
	const uint64_t n[9] = {
		d->v[SD_RESIDENT], d->v[SD_BUDGET], d->v[SD_HOST_HOME], d->v[SD_SPILLED],
		per_second(d->v[SD_H2D], was->v[SD_H2D], seconds),
		per_second(d->v[SD_D2H], was->v[SD_D2H], seconds),
		per_second(d->v[SD_STAGED], was->v[SD_STAGED], seconds),
		per_second(d->v[SD_MOVED], was->v[SD_MOVED], seconds),
		per_second(d->v[SD_SPILL_IN], was->v[SD_SPILL_IN], seconds),
	};

	for (int k = 0; k < 9; k++)
		stats_bytes_text(n[k], text[k], sizeof(text[k]));
	print_row(t, 8, "device %d  %.24s  in it %s of %s", i, d->name, text[0], text[1]);
	print_row(t, 18, "at the host %s  spilled %s  %llu launches/s", text[2], text[3],
		  (unsigned long long)per_second(d->v[SD_LAUNCHES], was->v[SD_LAUNCHES], seconds));
	print_row(t, 18, "to it %s/s  from it %s/s  staged %s/s", text[4], text[5], text[6]);
	print_row(t, 18, "moved %s/s  unspilled %s/s  stall %.1f%%", text[7], text[8],
		  stall_share(d->v[SD_STALL] - was->v[SD_STALL], (uint64_t)(seconds * 1e9)));
}

static void print_devices(struct top *t, const struct off_stats *s, const struct reading *was,
			  const struct reading *now)
{
	double seconds = (double)(now->at_ns - was->at_ns) / 1e9;

	for (int i = 0; i < STATS_DEVICES; i++)
		if (s->devices >> i & 1)
			print_device(t, i, &s->device[i], &was->device[i], seconds);
}

static void take(const struct off_stats *s, void *arg)
{
	struct reading now = { .pid = s->pid, .start_ns = s->start_ns,
			       .at_ns = clock_ns(CLOCK_MONOTONIC),
			       .read = stat_get(s, ST_IO_READ),
			       .stall = stat_get(s, ST_FAULTS_STALL) };
	struct top *t = arg;
	struct reading was = before(t, s, now.at_ns);

	memcpy(now.device, s->device, sizeof(now.device));
	if (t->n_now < MAX_PROCS)
		t->now[t->n_now++] = now;
	print_process(t, s, &was, &now);
	print_devices(t, s, &was, &now);
}

static void draw(struct top *t)
{
	erase();
	t->row = 0;
	print_row(t, 0, "offctl top   every %.1f s   q quits", t->delay_s);
	t->row = 2;
	attron(A_REVERSE);
	print_row(t, 0, "%7s %-5s %11s %11s %13s %6s %7s%s COMMAND", "PID", "PAGER",
		  "MANAGED", "PLAIN", "READ", "STALL%", "DEMAND",
		  wide() ? "   LATE WASTED" : "");
	attroff(A_REVERSE);
	t->n_now = 0;
	each_stats(take, t);
	if (!t->n_now)
		print_row(t, 0, "no process in which the library has something to do");
	memcpy(t->last, t->now, sizeof(t->now));
	t->n_last = t->n_now;
	refresh();
}

int cmd_top(int argc, char **argv)
{
	static const struct argp argp = { opts, parse, NULL,
		"Shows the statistics of all processes, refreshed; q quits.\v"
		"READ and STALL% are rates since the last reading; STALL% 100: "
		"at least one thread waited all the time.", NULL, NULL, NULL };
	static struct top t = { .delay_s = 1 };
	SCREEN *screen;
	int key = ERR;

	argp_parse(&argp, argc, argv, 0, NULL, &t);
	screen = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) ?
		 newterm(NULL, stdout, stdin) : NULL;
	if (!screen) {
		fputs("offctl: top needs a terminal; `offctl stats` prints the "
		      "same once\n", stderr);
		return 1;
	}
	cbreak();
	noecho();
	curs_set(0);
	timeout((int)(t.delay_s * 1000));
	while (key != 'q' && key != 'Q') {
		draw(&t);
		key = getch();
	}
	endwin();
	delscreen(screen);
	return 0;
}
