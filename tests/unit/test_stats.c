/* SPDX-License-Identifier: MIT */
/* test_stats.c - counters, their memfd, JSON and summary (core/stats.h).
 *
 * Owns nothing. (1) The JSON has every key of schema 1, in order, and is
 * valid whatever the command line holds. (2) Counts survive the move to the
 * memfd and are not inherited by a child. Lock: none.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/log.h"
#include "core/options.h"
#include "core/stats.h"

void off_log(const char *fmt, ...)
{
	fail_msg("nothing here logs: %s", fmt);
}

static struct off_stats blank(void)
{
	struct off_stats s = { .magic = STATS_MAGIC, .version = STATS_VERSION,
			       .n = ST_N, .pid = 42 };

	return s;
}

/* Keys of schema 1 in the order the JSON has them; others may stand between. */
static const char *const schema_1[] = {
	"{\"schema\":1,", "\"pid\":42,", "\"command\":\"\"", "\"uptime_s\":",
	"\"budget\":{", "\"ram_bytes\":", "\"vram_bytes\":", "\"spill_bytes\":",
	"\"host\":{", "\"regions\":", "\"spans\":", "\"managed_bytes\":",
	"\"plain_bytes\":", "\"packed_bytes\":", "\"packed_raw_bytes\":",
	"\"spilled_bytes\":", "\"absent_bytes\":", "\"staging_bytes\":",
	"\"metadata_bytes\":", "\"peak_ram_bytes\":", "\"evictions\":",
	"\"io\":{", "\"read_bytes\":", "\"written_bytes\":", "\"errors\":",
	"\"faults\":{", "\"demand\":", "\"milestone\":", "\"stall_ns\":",
	"\"prefetch\":{", "\"issued\":", "\"late\":", "\"wasted\":",
	"\"tape\":{", "\"passes\":", "\"period_chunks\":",
	"\"last_pass_read_bytes\":", "\"last_pass_bound_bytes\":",
	"\"sites\":[],",
	"\"pager\":\"\"", "\"io_engine\":\"\"", "\"devices\":[]}",
};

static void json_keys_in_order(void **state)
{
	struct off_stats s = blank();
	char buf[STATS_JSON_MAX], *at = buf;
	ssize_t n = stats_json(buf, sizeof(buf), &s);

	assert_int_equal(n, strlen(buf));
	assert_null(strchr(buf, '\n'));
	for (size_t i = 0; i < sizeof(schema_1) / sizeof(schema_1[0]); i++) {
		at = strstr(at, schema_1[i]);
		if (!at)
			fail_msg("%s is missing or late in %s", schema_1[i], buf);
	}
	assert_true(strlen(at) == strlen("\"devices\":[]}"));
}

static void json_values(void **state)
{
	struct off_stats s = blank();
	char buf[STATS_JSON_MAX];

	for (int i = 0; i < ST_N; i++)
		s.v[i] = UINT64_MAX - (uint64_t)i;
	s.start_ns = 1;
	memset(s.command, 1, sizeof(s.command));	/* six bytes each */
	assert_true(stats_json(buf, sizeof(buf), &s) > 0);
	assert_non_null(strstr(buf, "\"regions\":18446744073709551"));
	s = blank();
	s.v[ST_IO_READ] = 12345;
	s.v[ST_TAPE_LAST_BOUND] = 999;
	stats_json(buf, sizeof(buf), &s);
	assert_non_null(strstr(buf, "\"io\":{\"read_bytes\":12345,"));
	assert_non_null(strstr(buf, "\"last_pass_bound_bytes\":999"));
}

static void json_strings(void **state)
{
	struct off_stats s = blank();
	char buf[STATS_JSON_MAX];

	strcpy(s.command, "a\"b\\c\nd\x7f \xc3\xa9 \xff \xe2\x82");
	strcpy(s.pager, "move");
	strcpy(s.io_engine, "io_uring");
	assert_true(stats_json(buf, sizeof(buf), &s) > 0);
	assert_non_null(strstr(buf, "\"command\":\"a\\\"b\\\\c\\u000ad\\u007f "
				    "\xc3\xa9 ? ??\""));
	assert_non_null(strstr(buf, "\"pager\":\"move\",\"io_engine\":"
				    "\"io_uring\",\"devices\":[]"));
	memset(s.command, 'x', sizeof(s.command));	/* no end */
	memset(s.pager, 'y', sizeof(s.pager));
	assert_true(stats_json(buf, sizeof(buf), &s) > 0);
	assert_non_null(strstr(buf, "yyyyyyyyyyyyyyyy\",\"io_engine"));
}

/* Names as long and as bad as can be, in as many entries as fit. */
static void json_sites(void **state)
{
	struct off_stats s = blank(), *at;
	struct stat_site out[STATS_SITES];
	char buf[STATS_JSON_MAX];

	stats_json(buf, sizeof(buf), &s);
	assert_non_null(strstr(buf, "},\"sites\":[],\"lossy\":[],\"pager\":"));
	s.n_sites = 2;
	s.site[0] = (struct stat_site){ 12, 3, 0, 0, STAT_FILE, "a \"b\".gguf" };
	s.site[1] = (struct stat_site){ 7, 1, 5, 99, STAT_HEAP, "m.so f+0x1" };
	stats_json(buf, sizeof(buf), &s);
	assert_non_null(strstr(buf, ",\"sites\":[{\"kind\":\"file\",\"name\":"
		"\"a \\\"b\\\".gguf\",\"bytes\":12,\"blocks\":3,\"requests\":0,"
		"\"requested_bytes\":0},{\"kind\":\"heap\",\"name\":\"m.so f+0x1\","
		"\"bytes\":7,\"blocks\":1,\"requests\":5,\"requested_bytes\":99}],"));
	for (int i = 0; i < ST_N; i++)
		s.v[i] = UINT64_MAX;
	memset(s.command, 1, sizeof(s.command));
	memset(s.pager, 1, sizeof(s.pager));
	memset(s.io_engine, 1, sizeof(s.io_engine));
	s.n_sites = 1000;	/* as if it were broken */
	memset(s.site, 0xff, sizeof(s.site));
	s.n_lossy = STATS_LOSSY;
	memset(s.lossy, 1, sizeof(s.lossy));
	for (int i = 0; i < STATS_SITES; i++)
		memset(s.site[i].name, 1, SITE_NAME_MAX);
	assert_true(stats_json(buf, sizeof(buf), &s) > STATS_SITES * SITE_NAME_MAX * 5);
	assert_int_equal(stats_sites(&s, out), STATS_SITES);
	assert_int_equal(strlen(out[0].name), SITE_NAME_MAX - 1);
	/* One writer; the list is as before until it is done. */
	stats_child();
	at = stats_sites_begin();
	assert_ptr_equal(at, off_stats_now);
	assert_null(stats_sites_begin());
	at->site[0].bytes = 5;
	stats_sites_end(at, 1);
	assert_int_equal(stats_sites(off_stats_now, out), 1);
	assert_int_equal(out[0].bytes, 5);
	at = stats_sites_begin();
	stats_child();		/* forked in the middle */
	assert_non_null(stats_sites_begin());
	stats_child();
}

/* How far off rounded tensors are: in numbers that no locale changes. */
static void json_lossy(void **state)
{
	struct off_stats s = blank();
	const double error2 = 4e-6 * 1000, value2 = 1000;
	char buf[STATS_JSON_MAX];

	s.n_lossy = 1;
	s.lossy[0] = (struct stat_lossy){ .spans = 32, .bits = 8, .values = 1000,
					  .name = "blk.*.up.weight" };
	assert_true(stats_json(buf, sizeof(buf), &s) > 0);
	assert_non_null(strstr(buf, "\"values\":1000,\"rms\":0,\"relative\":0}]"));
	assert_true(stats_summary(buf, sizeof(buf), &s) > 0);
	assert_null(strstr(buf, "rounded"));
	memcpy(&s.lossy[0].error2, &error2, 8);
	memcpy(&s.lossy[0].value2, &value2, 8);
	stats_json(buf, sizeof(buf), &s);
	assert_non_null(strstr(buf, ",\"lossy\":[{\"name\":\"blk.*.up.weight\",\"to\":\"int8\","
		"\"spans\":32,\"values\":1000,\"rms\":2.00000e-3,\"relative\":2.00000e-3}],"));
	stats_summary(buf, sizeof(buf), &s);
	assert_non_null(strstr(buf, "  rounded to int8: blk.*.up.weight, by 0.200% (RMS)\n"));
	s.n_lossy = 1000;	/* as if it were broken */
	memset(s.lossy, 0xff, sizeof(s.lossy));
	for (int i = 0; i < STATS_LOSSY; i++)
		memset(s.lossy[i].name, 1, LOSSY_NAME_MAX);
	assert_true(stats_json(buf, sizeof(buf), &s) > STATS_LOSSY * LOSSY_NAME_MAX * 5);
	assert_true(stats_summary(buf, sizeof(buf), &s) > 0);
}

static void json_devices(void **state)
{
	static const char *const keys[] = {
		"\"devices\":[{\"name\":\"A \\\"card\\\"\"", "\"vram_bytes\":1000", "\"budget_bytes\":",
		"\"managed_bytes\":", "\"resident_bytes\":", "\"host_home_bytes\":",
		"\"packed_bytes\":", "\"h2d_bytes\":1007", "\"d2h_bytes\":", "\"launches\":",
		"\"stall_ns\":", "\"patched\":", "\"drains\":", "\"prefetch\":{\"issued\":",
		"\"late\":", "\"wasted\":1017}}", "{\"name\":\"\",\"id\":3,", "}}]}",
	};
	struct off_stats s = blank();
	char buf[STATS_JSON_MAX], *at = buf;

	for (int i = 0; i < SD_N; i++)
		s.device[0].v[i] = 1000 + (uint64_t)i;
	s.device[0].v[SD_H2D] = 1007;
	s.device[0].v[SD_WASTED] = 1017;
	strcpy(s.device[0].name, "A \"card\"");
	s.devices = 1 | 8;
	assert_true(stats_json(buf, sizeof(buf), &s) > 0);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		at = strstr(at, keys[i]);
		if (!at)
			fail_msg("%s is missing or late in %s", keys[i], buf);
	}
	assert_true(stats_summary(buf, sizeof(buf), &s) > 0);
	assert_non_null(strstr(buf, "device 0, A \"card\": "));
	assert_null(strstr(buf, "device 1"));
	/* All there can be, and names of nothing but signs. */
	memset(&s.sites_seq, 0, sizeof(s) - offsetof(struct off_stats, sites_seq));
	s.devices = 0xffff;
	memset(s.device, 0xff, sizeof(s.device));
	for (int i = 0; i < STATS_DEVICES; i++)
		memset(s.device[i].name, 1, sizeof(s.device[i].name));
	s.n_sites = STATS_SITES;
	memset(s.site, 1, sizeof(s.site));
	s.n_lossy = STATS_LOSSY;
	memset(s.lossy, 1, sizeof(s.lossy));
	assert_true(stats_json(buf, sizeof(buf), &s) > 0);
}

static void json_needs_room(void **state)
{
	struct off_stats s = blank();
	char buf[STATS_JSON_MAX], small[64];
	ssize_t n = stats_json(buf, sizeof(buf), &s);

	memset(small, 0x55, sizeof(small));
	assert_int_equal(stats_json(small, 60, &s), -ENOSPC);
	assert_int_equal(small[60], 0x55);
	assert_int_equal(stats_json(buf, (size_t)n, &s), -ENOSPC);
	assert_int_equal(stats_json(buf, (size_t)n + 1, &s), n);
	assert_int_equal(stats_json(buf, 0, &s), -ENOSPC);
}

static void rows_make_objects(void **state)
{
	int changes = 0;

	for (int i = 0; i < ST_N; i++) {
		assert_true(strlen(stat_rows[i].help) > 5);
		for (int j = 0; j < i; j++)
			assert_false(!strcmp(stat_rows[i].group, stat_rows[j].group) &&
				     !strcmp(stat_rows[i].key, stat_rows[j].key));
		changes += i && strcmp(stat_rows[i].group, stat_rows[i - 1].group);
	}
	assert_int_equal(changes, 5);	/* each group stands together */
	for (int i = changes = 0; i < SD_N; i++) {
		assert_true(strlen(device_rows[i].help) > 5);
		changes += i && strcmp(device_rows[i].group, device_rows[i - 1].group);
	}
	assert_int_equal(changes, 1);
}

static void summary_text(void **state)
{
	struct off_stats s = blank();
	char buf[2048];

	assert_true(stats_summary(buf, sizeof(buf), &s) > 0);
	assert_non_null(strstr(buf, "offload[42]"));
	assert_non_null(strstr(buf, "none seen whole"));
	s.v[ST_TAPE_PASSES] = 7;
	s.v[ST_TAPE_LAST_READ] = 300ull << 20;
	s.v[ST_TAPE_LAST_BOUND] = 200ull << 20;
	s.v[ST_FAULTS_DEMAND] = 31;
	s.v[ST_IO_WRITTEN] = 0;
	assert_true(stats_summary(buf, sizeof(buf), &s) > 0);
	assert_non_null(strstr(buf, "300.00 MiB, the bound is 200.00 MiB (1.50x)"));
	assert_non_null(strstr(buf, "31 demand"));
	assert_non_null(strstr(buf, "0 B written"));
	assert_int_equal(stats_summary(buf, 50, &s), -ENOSPC);
}

static void byte_texts(void **state)
{
	char b[32];

	assert_string_equal(stats_bytes_text(0, b, 32), "0 B");
	assert_string_equal(stats_bytes_text(1023, b, 32), "1023 B");
	assert_string_equal(stats_bytes_text(1536, b, 32), "1.50 KiB");
	assert_string_equal(stats_bytes_text(5ull << 29, b, 32), "2.50 GiB");
	assert_string_equal(stats_bytes_text(UINT64_MAX, b, 32),
			    "16777215.99 TiB");
}

/* ---- counting ------------------------------------------------------------ */

static void *count_a_lot(void *arg)
{
	for (unsigned int i = 0; i < 100000; i++) {
		stat_add(ST_IO_READ, 3);
		stat_max(ST_HOST_PEAK_RAM, i);
	}
	return arg;
}

static void counting_from_threads(void **state)
{
	pthread_t t[4];

	stats_child();
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, count_a_lot, 0), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(stat_get(off_stats_now, ST_IO_READ), 1200000);
	assert_int_equal(stat_get(off_stats_now, ST_HOST_PEAK_RAM), 99999);
	stat_max(ST_HOST_PEAK_RAM, 5);
	assert_int_equal(stat_get(off_stats_now, ST_HOST_PEAK_RAM), 99999);
	stat_set(ST_HOST_REGIONS, 9);
	stat_sub(ST_HOST_REGIONS, 4);
	assert_int_equal(stat_get(off_stats_now, ST_HOST_REGIONS), 5);
}

/* The descriptor whose link names the block, or -1. */
static int find_fd(void)
{
	char path[64], link[64];
	ssize_t n;

	for (int fd = 0; fd < 256; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, link, sizeof(link) - 1);
		link[n > 0 ? n : 0] = 0;
		if (!strncmp(link, "/memfd:" STATS_NAME, strlen(STATS_NAME) + 7))
			return fd;
	}
	return -1;
}

static void check_memfd(int fd)
{
	struct off_stats *s = mmap(NULL, sizeof(*s), PROT_READ, MAP_SHARED, fd, 0);

	assert_true(s != MAP_FAILED);
	assert_true(s->magic == STATS_MAGIC);
	assert_int_equal(s->version, STATS_VERSION);
	assert_int_equal(s->n, ST_N);
	assert_int_equal(s->pid, getpid());
	assert_non_null(strstr(s->command, "test_stats"));
	assert_int_equal(s->v[ST_IO_ERRORS], 77);	/* counted before */
	stat_add(ST_IO_ERRORS, 1);
	assert_int_equal(s->v[ST_IO_ERRORS], 78);
	stats_names("copy", NULL);
	stats_names(NULL, "a name that is much too long");
	assert_string_equal(s->pager, "copy");
	assert_string_equal(s->io_engine, "a name that is ");
	munmap(s, sizeof(*s));
}

static void memfd_and_child(void **state)
{
	int status, fd;
	struct stat st;
	pid_t pid;

	stats_child();
	stat_add(ST_IO_ERRORS, 77);
	assert_int_equal(find_fd(), -1);
	assert_int_equal(stats_start(), 0);
	fd = find_fd();
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	check_memfd(fd);
	pid = fork();
	if (!pid) {
		stats_child();
		stat_add(ST_IO_ERRORS, 1000);
		_exit(stat_get(off_stats_now, ST_IO_ERRORS) != 1000);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(stat_get(off_stats_now, ST_IO_ERRORS), 78);
}

/* ---- the end of the process ---------------------------------------------- */

static size_t read_file(const char *path, char *buf, size_t len)
{
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(buf, 1, len - 1, f) : 0;

	buf[n] = 0;
	if (f)
		fclose(f);
	return n;
}

static void report_to_a_path(void **state)
{
	char dir[] = "/tmp/offstatXXXXXX", path[128], real[160];
	char buf[STATS_JSON_MAX];

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s.%%p.json", dir);
	snprintf(real, sizeof(real), "%s/s.%d.json", dir, (int)getpid());
	stats_child();
	off_opt.stats = path;
	assert_int_equal(stats_report(), 0);
	assert_true(read_file(real, buf, sizeof(buf)) > 100);
	assert_non_null(strstr(buf, "\"demand\":0,"));
	stat_add(ST_FAULTS_DEMAND, 5);
	assert_int_equal(stats_report(), 0);
	assert_true(read_file(real, buf, sizeof(buf)) > 100);
	assert_non_null(strstr(buf, "\"demand\":5,"));
	stats_child();		/* a shell around it, with nothing to tell */
	assert_int_equal(stats_report(), 0);
	assert_true(read_file(real, buf, sizeof(buf)) > 100);
	assert_non_null(strstr(buf, "\"demand\":5,"));
	assert_string_equal(buf + strlen(buf) - 3, "]}\n");
	unlink(real);
	rmdir(dir);
	assert_int_equal(stats_report(), -ENOENT);
	off_opt.stats = NULL;
	assert_int_equal(stats_report(), 0);
}

/* What others planted under the name: neither written through nor cut off. */
static void report_planted(void **state)
{
	char dir[] = "/tmp/offstatXXXXXX", path[128], kept[128], buf[STATS_JSON_MAX];
	struct stat st;
	FILE *f;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s.json", dir);
	snprintf(kept, sizeof(kept), "%s/kept", dir);
	f = fopen(kept, "w");
	assert_non_null(f);
	fputs("precious", f);
	fclose(f);
	stat_add(ST_FAULTS_DEMAND, 5);
	off_opt.stats = path;
	assert_int_equal(symlink(kept, path), 0);
	assert_int_equal(stats_report(), -ELOOP);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(link(kept, path), 0);
	assert_int_equal(stats_report(), -EPERM);
	assert_int_equal(unlink(path), 0);
	read_file(kept, buf, sizeof(buf));
	assert_string_equal(buf, "precious");
	assert_int_equal(rename(kept, path), 0);	/* an old one of ours */
	assert_int_equal(chmod(path, 0664), 0);
	assert_int_equal(stats_report(), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true(read_file(path, buf, sizeof(buf)) > 100 && buf[0] == '{');
	assert_int_equal(unlink(path), 0);
	umask(0);
	assert_int_equal(stats_report(), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	unlink(path);
	rmdir(dir);
	off_opt.stats = "/dev/null";
	assert_int_equal(stats_report(), 0);
	assert_int_equal(stat("/dev/null", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
	off_opt.stats = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_keys_in_order),
		cmocka_unit_test(json_values),
		cmocka_unit_test(json_strings),
		cmocka_unit_test(json_sites),
		cmocka_unit_test(json_lossy),
		cmocka_unit_test(json_devices),
		cmocka_unit_test(json_needs_room),
		cmocka_unit_test(rows_make_objects),
		cmocka_unit_test(summary_text),
		cmocka_unit_test(byte_texts),
		cmocka_unit_test(counting_from_threads),
		cmocka_unit_test(memfd_and_child),
		cmocka_unit_test(report_to_a_path),
		cmocka_unit_test(report_planted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
