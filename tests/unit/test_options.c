/* SPDX-License-Identifier: MIT */
/* test_options.c - the OFFLOAD_ variables (core/options.h).
 *
 * Owns a copy of off_log, so that messages can be read. (1) Every row takes
 * what it says and refuses the rest. (2) A bad variable is named, once, with
 * what is accepted and the nearest name. Lock: none.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/log.h"
#include "core/options.h"

static char said[1024];
static int messages;

void off_log(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(said, sizeof(said), fmt, ap);
	va_end(ap);
	messages++;
}

static int fresh(void **state)
{
	off_opt = off_opt_default;
	said[0] = 0;
	messages = 0;
	return 0;
}

/* Reads one variable; the rest of the environment stays out. */
static int read_var(const char *var)
{
	char copy[4096];
	char *envp[] = { "PATH=/bin", copy, "OFFLOADED=1", NULL };

	snprintf(copy, sizeof(copy), "%s", var);
	return options_read(envp);
}

static void no_variables(void **state)
{
	char *envp[] = { "PATH=/bin", "OFFLOA", "OFFLOADX=3", "", NULL };

	assert_int_equal(options_read(envp), 0);
	assert_int_equal(options_read(NULL), 0);
	assert_memory_equal(&off_opt, &off_opt_default, sizeof(off_opt));
	assert_int_equal(messages, 0);
}

static void defaults(void **state)
{
	assert_int_equal(off_opt.ram, 0);
	assert_int_equal(off_opt.host_min, 2 << 20);
	assert_int_equal(off_opt.window, 40 << 20);
	assert_int_equal(off_opt.reserve, 64 << 20);
	assert_int_equal(off_opt.pager, OPT_PAGER_AUTO);
	assert_null(off_opt.stats);
	assert_null(off_opt.sysroot);
}

static void sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 }, { "512", 512 }, { "32K", 32 << 10 },
		{ "32m", 32 << 20 }, { "2600M", 2600ull << 20 },
		{ "8G", 8ull << 30 }, { "8GB", 8ull << 30 },
		{ "8GiB", 8ull << 30 }, { "2.5G", 5ull << 29 },
		{ "0.125K", 128 }, { "1T", 1ull << 40 }, { "1024T", 1ull << 50 },
	};
	uint64_t n;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(options_size(good[i].text, &n), 0);
		assert_int_equal(n, good[i].bytes);
	}
}

static void bad_sizes(void **state)
{
	static const char *const bad[] = {
		"M", "-1", "+1", " 1", "1 G", "1Q", "1.5", "1.G", "1.2345G",
		"0x10", "1GG", "1BB", "1Gi", "",
	};
	uint64_t n;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(options_size(bad[i], &n), -EINVAL);
	assert_int_equal(options_size("1025T", &n), -ERANGE);
	assert_int_equal(options_size("1024.5T", &n), -ERANGE);
	assert_int_equal(options_size("99999999999999999999", &n), -ERANGE);
	assert_int_equal(options_size("17179869185G", &n), -ERANGE);
}

static void size_texts(void **state)
{
	char buf[32];

	assert_string_equal(options_size_text(0, buf, 32), "0");
	assert_string_equal(options_size_text(1000, buf, 32), "1000");
	assert_string_equal(options_size_text(1024, buf, 32), "1K");
	assert_string_equal(options_size_text(2600ull << 20, buf, 32), "2600M");
	assert_string_equal(options_size_text(1ull << 50, buf, 32), "1024T");
}

static void each_type(void **state)
{
	assert_int_equal(read_var("OFFLOAD_RAM=2600M"), 0);
	assert_int_equal(off_opt.ram, 2600ull << 20);
	assert_int_equal(read_var("OFFLOAD_PAGER=hints"), 0);
	assert_int_equal(off_opt.pager, OPT_PAGER_HINTS);
	assert_int_equal(read_var("OFFLOAD_PAGER=off"), 0);
	assert_int_equal(off_opt.pager, OPT_PAGER_OFF);
	assert_int_equal(read_var("OFFLOAD_IO=pread"), 0);
	assert_int_equal(off_opt.io, OPT_IO_PREAD);
	assert_int_equal(read_var("OFFLOAD_DIRECT=off"), 0);
	assert_int_equal(off_opt.direct, OPT_DIRECT_OFF);
	assert_int_equal(read_var("OFFLOAD_VERBOSE=3"), 0);
	assert_int_equal(off_opt.verbose, 3);
	assert_int_equal(read_var("OFFLOAD_TORTURE=18446744073709551615"), 0);
	assert_true(off_opt.torture == UINT64_MAX);
	assert_int_equal(read_var("OFFLOAD_FILES=*.bin,model*"), 0);
	assert_string_equal(off_opt.files, "*.bin,model*");
	assert_int_equal(read_var("OFFLOAD_LOSSY=int4"), 0);
	assert_string_equal(off_opt.lossy, "int4");
	assert_int_equal(read_var("OFFLOAD_LOSSY=int8:*ffn*,out*"), 0);
	assert_string_equal(off_opt.lossy, "int8:*ffn*,out*");
	assert_int_equal(messages, 0);
}

/* The program may overwrite its environment; the option must not follow. */
static void texts_are_copies(void **state)
{
	char var[] = "OFFLOAD_FILES=pager";
	char *envp[] = { var, NULL };

	assert_int_equal(options_read(envp), 0);
	memset(var, 'x', sizeof(var) - 1);
	assert_string_equal(off_opt.files, "pager");
}

static void paths_are_made_absolute(void **state)
{
	char dir[4096], want[4200];

	assert_non_null(getcwd(dir, sizeof(dir)));
	snprintf(want, sizeof(want), "%s/t.tape", dir);
	assert_int_equal(read_var("OFFLOAD_TRACE=t.tape"), 0);
	assert_string_equal(off_opt.trace, want);
	assert_int_equal(read_var("OFFLOAD_SPILL=/var/tmp"), 0);
	assert_string_equal(off_opt.spill, "/var/tmp");
}

static void stats_forms(void **state)
{
	assert_int_equal(read_var("OFFLOAD_STATS=1"), 0);
	assert_string_equal(off_opt.stats, "1");
	assert_int_equal(read_var("OFFLOAD_STATS=0"), 0);
	assert_null(off_opt.stats);
	assert_int_equal(read_var("OFFLOAD_STATS=/tmp/s.json"), 0);
	assert_string_equal(off_opt.stats, "/tmp/s.json");
}

static void empty_is_unset(void **state)
{
	static const char *const vars[] = { "OFFLOAD_RAM=", "OFFLOAD_PAGER=",
		"OFFLOAD_TRACE=", "OFFLOAD_FILES=", "OFFLOAD_STATS=" };

	for (size_t i = 0; i < 5; i++)
		assert_int_equal(read_var(vars[i]), 0);
	assert_memory_equal(&off_opt, &off_opt_default, sizeof(off_opt));
}

static void refused(const char *var, const char *a, const char *b)
{
	messages = 0;
	assert_int_equal(read_var(var), -EINVAL);
	assert_int_equal(messages, 1);
	if (!strstr(said, a) || !strstr(said, b))
		fail_msg("%s: said \"%s\", not %s and %s", var, said, a, b);
}

static void malformed_values(void **state)
{
	refused("OFFLOAD_RAM=12Q", "OFFLOAD_RAM=12Q", "K, M, G");
	refused("OFFLOAD_PAGER=mvoe", "auto|move|copy|hints|off", "nearest is move");
	refused("OFFLOAD_LOSSY=int2", "int8|int4, or with patterns", "nearest is int");
	refused("OFFLOAD_LOSSY=int8:", "OFFLOAD_LOSSY=int8:", "int8:*ffn*");
	refused("OFFLOAD_LOSSY=1", "OFFLOAD_LOSSY=1", "int8|int4");
	refused("OFFLOAD_PAGER=Move", "OFFLOAD_PAGER=Move", "nearest is move");
	refused("OFFLOAD_PAGER=mov", "OFFLOAD_PAGER=mov", "nearest is move");
	refused("OFFLOAD_DIRECT=fof", "auto|on|off", "nearest is off");
	refused("OFFLOAD_VERBOSE=4", "OFFLOAD_VERBOSE=4", "0 to 3");
	refused("OFFLOAD_VERBOSE=-1", "OFFLOAD_VERBOSE=-1", "0 to 3");
	refused("OFFLOAD_STRICT=yes", "OFFLOAD_STRICT=yes", "0 to 1");
	refused("OFFLOAD_TORTURE=18446744073709551616", "TORTURE", "whole");
	refused("OFFLOAD_RAM=%n%s%n", "%n%s%n", "K, M, G");
	assert_memory_equal(&off_opt, &off_opt_default, sizeof(off_opt));
}

static void unknown_names(void **state)
{
	refused("OFFLOAD_RMA=4G", "OFFLOAD_RMA is not", "OFFLOAD_RAM (");
	refused("OFFLOAD_RAN=4G", "OFFLOAD_RAN is not", "OFFLOAD_RAM (");
	refused("OFFLOAD_ram=4G", "OFFLOAD_ram is not", "nearest");
	refused("OFFLOAD_HOSTMIN=4G", "OFFLOAD_HOSTMIN", "OFFLOAD_HOST_MIN (");
	refused("OFFLOAD_PROGRAM=x", "OFFLOAD_PROGRAM is", "OFFLOAD_PROGRAMS (");
	refused("OFFLOAD_=x", "OFFLOAD_ is not", "nearest");
	refused("OFFLOAD_NOEQUALS", "OFFLOAD_NOEQUALS is not", "nearest");
	refused("OFFLOAD_RAMRAMRAMRAMRAMRAMRAMRAMRAMRAMRAMRAMRAMRAM=1",
		"is not an option", "nearest");
}

/* One bad variable does not hide the others. */
static void rest_is_still_read(void **state)
{
	char *envp[] = { "OFFLOAD_BAD=1", "OFFLOAD_STRICT=1",
			 "OFFLOAD_RAM=zzz", "OFFLOAD_WINDOW=4M", NULL };

	assert_int_equal(options_read(envp), -EINVAL);
	assert_int_equal(messages, 2);
	assert_int_equal(off_opt.strict, 1);
	assert_int_equal(off_opt.window, 4 << 20);
}

/* Repeated long texts fill the store; the answer is a refusal. */
static void long_texts(void **state)
{
	static char var[4096];
	int err = 0, n = 0;

	n = snprintf(var, sizeof(var), "OFFLOAD_FILES=");
	memset(var + n, 'a', 4000);
	for (n = 0; n < 100 && !err; n++)
		err = read_var(var);
	assert_int_equal(err, -EINVAL);
	assert_true(n > 1);
}

static void globs(void **state)
{
	assert_true(options_glob("*.gguf", "/m/a.gguf"));
	assert_true(options_glob("x,*.gguf", "a.gguf"));
	assert_true(options_glob("all", "/any/thing"));
	assert_true(options_glob("/m/*", "/m/a/b"));
	assert_true(options_glob("a?c*", "/x/abcd"));
	assert_true(options_glob("a*b*c", "a--b--b--c"));
	assert_true(options_glob(",,q", "q"));
	assert_false(options_glob(NULL, "x"));
	assert_false(options_glob("", "x"));
	assert_false(options_glob("*.gguf", "/m/a.gguf.txt"));
	assert_false(options_glob("m/*", "/m/a"));
	assert_false(options_glob("a*b*c", "a--b--b"));
	assert_false(options_glob("allx", "all"));
}

/* ---- the table itself ---------------------------------------------------- */

static int check_row(const struct opt_row *r, void *count)
{
	char value[64], accepted[128];

	++*(int *)count;
	assert_true(strlen(r->name) && strlen(r->name) < 32);
	assert_true(r->help && strlen(r->help) > 10);
	assert_true(r->offset + 8 <= sizeof(struct off_options));
	assert_true(strlen(options_accepted(r, accepted, 128)) > 3);
	assert_true((r->type == OPT_ENUM || r->type == OPT_RULE) == (r->words != NULL));
	options_value(r, &off_opt_default, value, sizeof(value));
	return 0;
}

static void every_row(void **state)
{
	int n = 0;

	assert_int_equal(options_each(check_row, &n), 0);
	assert_true(n >= 19);
}

static int back_again(const struct opt_row *r, void *arg)
{
	char value[64], var[128];

	options_value(r, &off_opt_default, value, sizeof(value));
	snprintf(var, sizeof(var), "OFFLOAD_%s=%s", r->name, value);
	assert_int_equal(read_var(var), 0);
	return 0;
}

/* Defaults as printed are read back as the same values. */
static void defaults_round_trip(void **state)
{
	options_each(back_again, NULL);
	assert_memory_equal(&off_opt, &off_opt_default, sizeof(off_opt));
}

static int stop_at_third(const struct opt_row *r, void *count)
{
	return ++*(int *)count == 3 ? 7 : 0;
}

static void each_stops(void **state)
{
	int n = 0;

	assert_int_equal(options_each(stop_at_third, &n), 7);
	assert_int_equal(n, 3);
}

#define T(f) cmocka_unit_test_setup(f, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(no_variables), T(defaults), T(sizes), T(bad_sizes),
		T(size_texts), T(each_type), T(texts_are_copies),
		T(paths_are_made_absolute), T(stats_forms), T(empty_is_unset),
		T(malformed_values), T(unknown_names), T(rest_is_still_read),
		T(globs), T(every_row), T(defaults_round_trip), T(each_stops),
		T(long_texts),	/* last: it fills the store */
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
