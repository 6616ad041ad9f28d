/* SPDX-License-Identifier: MIT */
/* stats.c - the block of counters, its memfd, its JSON and its summary.
 *
 * Owns off_stats_now.
 *
 *     static --stats_start--> memfd (shared)
 *     either --stats_child--> static, emptied
 *
 * 1. Before the first region there is no descriptor: a preloaded shell must
 *    look as it does without the library.
 * 2. A number that cannot be reported is lost, never waited for.
 * Lock: none. The block is only ever replaced by stats_start and stats_child.
 */
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "options.h"
#include "outfile.h"
#include "sys.h"

static struct off_stats before_start;
struct off_stats *off_stats_now = &before_start;

const struct stat_row stat_rows[ST_N] = {
#define ST(name, group, key, kind, help) \
	{ #group, #key, help, STAT_##kind },
#include "stats.def"
#undef ST
};

const struct stat_row device_rows[SD_N] = {
#define DEV(name, group, key, kind, help) \
	{ group, #key, help, STAT_##kind },
#include "device.def"
#undef DEV
};

/* ---- the block ----------------------------------------------------------- */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t stats_uptime_ns(const struct off_stats *s)
{
	uint64_t now = now_ns();

	return s->start_ns && now > s->start_ns ? now - s->start_ns : 0;
}

static void read_command(char *out, size_t len)
{
	int fd = off_sys_open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : off_sys_read(fd, out, len - 1);

	if (fd >= 0)
		off_sys_close(fd);
	n = n > 0 ? n : 0;
	memset(out + n, 0, len - (size_t)n);
	for (ssize_t i = 0; i + 1 < n; i++)	/* the last 0 ends the text */
		if (!out[i])
			out[i] = ' ';
}

static void fill_header(struct off_stats *s)
{
	s->version = STATS_VERSION;
	s->n = ST_N;
	s->pid = (int32_t)getpid();
	s->start_ns = now_ns();
	read_command(s->command, sizeof(s->command));
	__atomic_store_n(&s->magic, STATS_MAGIC, __ATOMIC_RELEASE);
}

static void copy_name(char *to, size_t len, const char *from)
{
	if (from)
		snprintf(to, len, "%s", from);
}

void stats_names(const char *pager, const char *io_engine)
{
	struct off_stats *s = stats_now();

	copy_name(s->pager, sizeof(s->pager), pager);
	copy_name(s->io_engine, sizeof(s->io_engine), io_engine);
}

/* ---- the largest ------------------------------------------------------------ */

struct off_stats *stats_sites_begin(void)
{
	struct off_stats *s = stats_now();

	for (int tries = 0; tries < 1000; tries++) {
		uint32_t seq = __atomic_load_n(&s->sites_seq, __ATOMIC_RELAXED);

		if (!(seq & 1) &&
		    __atomic_compare_exchange_n(&s->sites_seq, &seq, seq + 1, 0,
						__ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
			return s;
		sched_yield();
	}
	return NULL;
}

void stats_sites_end(struct off_stats *s, int n)
{
	s->n_sites = (uint32_t)n;
	__atomic_fetch_add(&s->sites_seq, 1, __ATOMIC_SEQ_CST);
}

/* In order, and before what is read after it. */
static void copy_sites(struct stat_site *to, const struct stat_site *from)
{
	const unsigned char *f = (const unsigned char *)from;
	unsigned char *t = (unsigned char *)to;

	for (size_t i = 0; i < STATS_SITES * sizeof(*from); i++)
		t[i] = __atomic_load_n(&f[i], __ATOMIC_ACQUIRE);
}

int stats_sites(const struct off_stats *s, struct stat_site out[STATS_SITES])
{
	uint32_t n = 0, seq = 1;

	for (int tries = 0; tries < 1000; tries++) {
		seq = __atomic_load_n(&s->sites_seq, __ATOMIC_SEQ_CST);
		n = s->n_sites < STATS_SITES ? s->n_sites : STATS_SITES;
		copy_sites(out, s->site);
		if (!(seq & 1) &&
		    seq == __atomic_load_n(&s->sites_seq, __ATOMIC_SEQ_CST))
			break;
		sched_yield();
	}
	for (uint32_t i = 0; i < n; i++)
		out[i].name[SITE_NAME_MAX - 1] = 0;
	return (int)n;
}

/* ---- the memfd --------------------------------------------------------------- */

/* The descriptor stays open on purpose: it is how offctl finds the block. */
static struct off_stats *map_memfd(int fd)
{
	void *at;

	/* Made for all; nobody else can reach it, but that is for others to see. */
	if (fchmod(fd, 0600) || off_sys_ftruncate(fd, sizeof(struct off_stats)))
		return NULL;
	at = off_sys_mmap(NULL, sizeof(struct off_stats),
			  PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return at == MAP_FAILED ? NULL : at;
}

int stats_start(void)
{
	int fd = off_sys_memfd_create(STATS_NAME, MFD_CLOEXEC);
	struct off_stats *s;
	int err;

	if (fd < 0)
		return -errno;
	s = map_memfd(fd);
	if (!s) {
		err = -errno;
		off_sys_close(fd);
		return err;
	}
	*s = before_start;
	s->sites_seq = 0;
	fill_header(s);
	__atomic_store_n(&off_stats_now, s, __ATOMIC_RELEASE);
	return 0;
}

void stats_child(void)
{
	memset(&before_start, 0, sizeof(before_start));
	__atomic_store_n(&off_stats_now, &before_start, __ATOMIC_RELEASE);
}

/* ---- writing text -------------------------------------------------------- */

struct text {
	char *buf;
	size_t len, used;	/* used > len: it did not fit */
};

__attribute__((format(printf, 2, 3)))
static void put(struct text *t, const char *fmt, ...)
{
	size_t room = t->used < t->len ? t->len - t->used : 0;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(room ? t->buf + t->used : NULL, room, fmt, ap);
	va_end(ap);
	t->used += n > 0 ? (size_t)n : 0;
}

static ssize_t done(const struct text *t)
{
	return t->used < t->len ? (ssize_t)t->used : -ENOSPC;
}

/* Bytes of the valid UTF-8 sequence at s, or 0. A command line cut in the
 * middle of one must not make the JSON unreadable. */
static size_t utf8_len(const char *s)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t n = u[0] < 0x80 ? 1 : u[0] >= 0xc2 && u[0] < 0xe0 ? 2 :
		   u[0] >= 0xe0 && u[0] < 0xf0 ? 3 :
		   u[0] >= 0xf0 && u[0] < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < n; i++)
		if ((u[i] & 0xc0) != 0x80)
			return 0;
	if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) ||
	    (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f))
		return 0;
	return n;
}

static void put_string(struct text *t, const char *s, size_t max)
{
	char copy[sizeof(((struct off_stats *)0)->command) + 1];
	size_t n = strnlen(s, max < sizeof(copy) ? max : sizeof(copy) - 1);

	memcpy(copy, s, n);	/* the writer may be in the middle of it */
	copy[n] = 0;
	put(t, "\"");
	for (s = copy; *s; s += n) {
		n = utf8_len(s);
		if (!n) {
			put(t, "?");
			n = 1;
		} else if (*s == '"' || *s == '\\') {
			put(t, "\\%c", *s);
		} else if (n == 1 && ((unsigned char)*s < 0x20 || *s == 0x7f)) {
			put(t, "\\u%04x", (unsigned int)*s);
		} else {
			put(t, "%.*s", (int)n, s);
		}
	}
	put(t, "\"");
}

static void put_member(struct text *t, const struct off_stats *s, int i)
{
	const struct stat_row *r = &stat_rows[i];
	int first = !i || strcmp(r->group, r[-1].group);
	int last = i + 1 == ST_N || strcmp(r->group, r[1].group);

	if (first)
		put(t, ",\"%s\":{", r->group);
	put(t, "%s\"%s\":%llu%s", first ? "" : ",", r->key,
	    (unsigned long long)stat_get(s, (enum off_stat)i), last ? "}" : "");
}

static void put_sites(struct text *t, const struct off_stats *s)
{
	struct stat_site site[STATS_SITES];
	int n = stats_sites(s, site);

	put(t, ",\"sites\":[");
	for (int i = 0; i < n; i++) {
		put(t, "%s{\"kind\":\"%s\",\"name\":", i ? "," : "",
		    site[i].kind == STAT_FILE ? "file" : "heap");
		put_string(t, site[i].name, sizeof(site[i].name));
		put(t, ",\"bytes\":%llu,\"blocks\":%llu,\"requests\":%llu,"
		    "\"requested_bytes\":%llu}",
		    (unsigned long long)site[i].bytes,
		    (unsigned long long)site[i].blocks,
		    (unsigned long long)site[i].requests,
		    (unsigned long long)site[i].asked);
	}
	put(t, "]");
}

/* No libm, and no locale's comma. */
static double root(double v)
{
	double r = v > 1 ? v : 1;

	for (int i = 0; i < 128; i++)
		r = (r + v / r) / 2;
	return v > 0 ? r : 0;
}

static void put_real(struct text *t, double v)
{
	unsigned int digits;
	int exp = 0;

	if (!(v > 1e-300 && v < 1e300)) {
		put(t, "0");
		return;
	}
	for (; v >= 10; v /= 10)
		exp++;
	for (; v < 1; v *= 10)
		exp--;
	digits = (unsigned int)(v * 1e5 + 0.5);
	put(t, "%u.%05ue%d", digits / 100000, digits % 100000, exp);
}

static double real_at(const uint64_t *bits)
{
	uint64_t u = __atomic_load_n(bits, __ATOMIC_RELAXED);
	double v;

	memcpy(&v, &u, sizeof(v));
	return v;
}

static uint32_t n_lossy(const struct off_stats *s)
{
	uint32_t n = __atomic_load_n(&s->n_lossy, __ATOMIC_ACQUIRE);

	return n < STATS_LOSSY ? n : STATS_LOSSY;
}

/* Of the values; 0: none was packed. */
static double relative_error(const struct stat_lossy *l)
{
	double value2 = real_at(&l->value2);

	return value2 > 0 ? root(real_at(&l->error2) / value2) : 0;
}

static void put_lossy(struct text *t, const struct off_stats *s)
{
	put(t, ",\"lossy\":[");
	for (uint32_t i = 0; i < n_lossy(s); i++) {
		const struct stat_lossy *l = &s->lossy[i];
		uint64_t values = __atomic_load_n(&l->values, __ATOMIC_RELAXED);

		put(t, "%s{\"name\":", i ? "," : "");
		put_string(t, l->name, sizeof(l->name));
		put(t, ",\"to\":\"int%u\",\"spans\":%llu,\"values\":%llu,\"rms\":",
		    (unsigned int)l->bits, (unsigned long long)l->spans,
		    (unsigned long long)values);
		put_real(t, values ? root(real_at(&l->error2) / (double)values) : 0);
		put(t, ",\"relative\":");
		put_real(t, relative_error(l));
		put(t, "}");
	}
	put(t, "]");
}

static void put_device(struct text *t, const struct stat_device *d, int id)
{
	put(t, "{\"name\":");
	put_string(t, d->name, sizeof(d->name));
	put(t, ",\"id\":%d", id);
	for (int i = 0; i < SD_N; i++) {
		const struct stat_row *r = &device_rows[i];
		int first = i && strcmp(r->group, r[-1].group);
		int last = *r->group && (i + 1 == SD_N || strcmp(r->group, r[1].group));

		if (first && *r->group)
			put(t, ",\"%s\":{", r->group);
		put(t, "%s\"%s\":%llu%s", first && *r->group ? "" : ",", r->key,
		    (unsigned long long)__atomic_load_n(&d->v[i], __ATOMIC_RELAXED),
		    last ? "}" : "");
	}
	put(t, "}");
}

static void put_devices(struct text *t, const struct off_stats *s)
{
	uint32_t which = __atomic_load_n(&s->devices, __ATOMIC_ACQUIRE);
	int n = 0;

	put(t, ",\"devices\":[");
	for (int i = 0; i < STATS_DEVICES; i++) {
		if (!(which >> i & 1))
			continue;
		put(t, n++ ? "," : "");
		put_device(t, &s->device[i], i);
	}
	put(t, "]}");
}

ssize_t stats_json(char *buf, size_t len, const struct off_stats *s)
{
	struct text t = { buf, len, 0 };
	uint64_t ms = stats_uptime_ns(s) / 1000000;

	put(&t, "{\"schema\":1,\"pid\":%d,\"command\":", (int)s->pid);
	put_string(&t, s->command, sizeof(s->command));
	put(&t, ",\"uptime_s\":%llu.%03u", (unsigned long long)(ms / 1000),
	    (unsigned int)(ms % 1000));
	for (int i = 0; i < ST_N; i++)
		put_member(&t, s, i);
	put_sites(&t, s);
	put_lossy(&t, s);
	put(&t, ",\"pager\":");
	put_string(&t, s->pager, sizeof(s->pager));
	put(&t, ",\"io_engine\":");
	put_string(&t, s->io_engine, sizeof(s->io_engine));
	put_devices(&t, s);
	return done(&t);
}

/* ---- for people ---------------------------------------------------------- */

const char *stats_bytes_text(uint64_t bytes, char *buf, size_t len)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	uint64_t hundredths;
	int i = 0;

	while (i < 4 && bytes >> (10 * (i + 1)))
		i++;
	hundredths = (bytes >> (10 * i)) * 100 +
		     ((bytes & ((1ull << (10 * i)) - 1)) * 100 >> (10 * i));
	if (!i)
		snprintf(buf, len, "%llu B", (unsigned long long)bytes);
	else
		snprintf(buf, len, "%llu.%02llu %s",
			 (unsigned long long)hundredths / 100,
			 (unsigned long long)hundredths % 100, units[i]);
	return buf;
}

struct size_text { char s[32]; };

static struct size_text size_of(const struct off_stats *s, enum off_stat i)
{
	struct size_text t;

	stats_bytes_text(stat_get(s, i), t.s, sizeof(t.s));
	return t;
}

static void put_pass(struct text *t, const struct off_stats *s)
{
	uint64_t bound = stat_get(s, ST_TAPE_LAST_BOUND);
	uint64_t read = stat_get(s, ST_TAPE_LAST_READ);

	if (!stat_get(s, ST_TAPE_PASSES)) {
		put(t, "  pass: none seen whole\n");
		return;
	}
	put(t, "  pass: %llu seen; the last read %s, the bound is %s",
	    (unsigned long long)stat_get(s, ST_TAPE_PASSES),
	    size_of(s, ST_TAPE_LAST_READ).s, size_of(s, ST_TAPE_LAST_BOUND).s);
	if (bound)
		put(t, " (%llu.%02llux)", (unsigned long long)(read / bound),
		    (unsigned long long)(read % bound * 100 / bound));
	put(t, stat_get(s, ST_TAPE_FALLBACK) ? "; order lost, CLOCK\n" : "\n");
}

static void put_faults(struct text *t, const struct off_stats *s)
{
	uint64_t up = stats_uptime_ns(s) / 1000;
	uint64_t stall = stat_get(s, ST_FAULTS_STALL) / 1000;
	uint64_t tenths = up ? stall * 1000 / up : 0;

	put(t, "  stall: %llu.%03llu s, %llu.%llu%% of the time;",
	    (unsigned long long)(stall / 1000000),
	    (unsigned long long)(stall / 1000 % 1000),
	    (unsigned long long)(tenths / 10), (unsigned long long)(tenths % 10));
	put(t, " faults: %llu demand, %llu milestone; late %llu, wasted %llu\n",
	    (unsigned long long)stat_get(s, ST_FAULTS_DEMAND),
	    (unsigned long long)stat_get(s, ST_FAULTS_MILESTONE),
	    (unsigned long long)stat_get(s, ST_PREFETCH_LATE),
	    (unsigned long long)stat_get(s, ST_PREFETCH_WASTED));
}

/* Why a first token is slow; not told of a few. */
static void put_slow_memory(struct text *t, const struct off_stats *s)
{
	uint64_t n = stat_get(s, ST_HOST_SLOW_FRAMES), by_cache = stat_get(s, ST_HOST_CACHE_FRAMES);

	if (n + by_cache >= 64)
		put(t, "  memory: the machine was slow to find it, %llu times for 2 MiB; %llu came by way of the page cache\n",
		    (unsigned long long)n, (unsigned long long)by_cache);
}

static void put_rounded(struct text *t, const struct off_stats *s)
{
	for (uint32_t i = 0; i < n_lossy(s); i++) {
		const struct stat_lossy *l = &s->lossy[i];
		unsigned int parts = (unsigned int)(relative_error(l) * 1e5 + 0.5);

		if (parts)
			put(t, "  rounded to int%u: %.*s, by %u.%03u%% (RMS)\n",
			    (unsigned int)l->bits, (int)sizeof(l->name) - 1, l->name,
			    parts / 1000, parts % 1000);
	}
}

static struct size_text device_size(const struct stat_device *d, enum device_stat i)
{
	struct size_text t;

	stats_bytes_text(__atomic_load_n(&d->v[i], __ATOMIC_RELAXED), t.s, sizeof(t.s));
	return t;
}

static void put_cards(struct text *t, const struct off_stats *s)
{
	for (int i = 0; i < STATS_DEVICES; i++) {
		const struct stat_device *d = &s->device[i];

		if (!(__atomic_load_n(&s->devices, __ATOMIC_ACQUIRE) >> i & 1))
			continue;
		put(t, "  device %d, %.*s: %s of %s, %s resident; ", i,
		    (int)sizeof(d->name) - 1, d->name, device_size(d, SD_MANAGED).s,
		    device_size(d, SD_VRAM).s, device_size(d, SD_RESIDENT).s);
		put(t, "%s to it, %s from it, %llu launches\n",
		    device_size(d, SD_H2D).s, device_size(d, SD_D2H).s,
		    (unsigned long long)__atomic_load_n(&d->v[SD_LAUNCHES], __ATOMIC_RELAXED));
	}
}

ssize_t stats_summary(char *buf, size_t len, const struct off_stats *s)
{
	struct text t = { buf, len, 0 };

	put(&t, "offload[%d]: pager %.*s, io %.*s; %llu regions, %s, ",
	    (int)s->pid, (int)sizeof(s->pager) - 1, s->pager,
	    (int)sizeof(s->io_engine) - 1, s->io_engine,
	    (unsigned long long)stat_get(s, ST_HOST_REGIONS),
	    size_of(s, ST_HOST_MANAGED).s);
	put(&t, "budget %s, peak %s\n", size_of(s, ST_BUDGET_RAM).s,
	    size_of(s, ST_HOST_PEAK_RAM).s);
	put_pass(&t, s);
	put_faults(&t, s);
	put(&t, "  moved: %s read, %s written, %llu evictions, %llu I/O errors\n",
	    size_of(s, ST_IO_READ).s, size_of(s, ST_IO_WRITTEN).s,
	    (unsigned long long)stat_get(s, ST_HOST_EVICTIONS),
	    (unsigned long long)stat_get(s, ST_IO_ERRORS));
	put_slow_memory(&t, s);
	put_rounded(&t, s);
	put_cards(&t, s);
	return done(&t);
}

/* ---- at the end ---------------------------------------------------------- */

static int write_all(int fd, const char *buf, size_t n)
{
	ssize_t did;

	while (n) {
		did = off_sys_write(fd, buf, n);
		if (did < 0 && errno == EINTR)
			continue;
		if (did <= 0)
			return did ? -errno : -EIO;
		buf += did;
		n -= (size_t)did;
	}
	return 0;
}

static int expand_pid(char *out, size_t len, const char *path)
{
	const char *at = strstr(path, "%p");
	int n = at ? snprintf(out, len, "%.*s%d%s", (int)(at - path), path,
			      (int)getpid(), at + 2) :
		     snprintf(out, len, "%s", path);

	return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}

static int write_json(const char *path, bool fresh, const char *json, size_t n)
{
	char name[4096];
	int fd, err = expand_pid(name, sizeof(name), path);

	if (err)
		return err;
	fd = outfile_open(name, fresh);
	if (fd < 0)
		return fd;
	err = write_all(fd, json, n);
	off_sys_close(fd);
	return err;
}

/* True while the library had nothing to do here. Shells around a program
 * inherit OFFLOAD_STATS too; they must not write over its file. */
static int is_idle(const struct off_stats *s)
{
	int i = 0;

	while (i < ST_N && !stat_get(s, (enum off_stat)i))
		i++;
	return s->magic != STATS_MAGIC && i == ST_N && !s->devices;
}

int stats_report(void)
{
	static char buf[STATS_JSON_MAX + 1];	/* more than a stack may have */
	int idle, err;
	ssize_t n;

	if (!off_opt.stats)
		return 0;
	idle = is_idle(off_stats_now);
	if (idle && !strcmp(off_opt.stats, "1"))
		return 0;
	if (off_stats_now->magic != STATS_MAGIC)
		fill_header(off_stats_now);
	if (!strcmp(off_opt.stats, "1")) {
		n = stats_summary(buf, sizeof(buf), off_stats_now);
		return n < 0 ? (int)n : write_all(STDERR_FILENO, buf, (size_t)n);
	}
	n = stats_json(buf, STATS_JSON_MAX, off_stats_now);
	if (n < 0)
		return (int)n;
	buf[n++] = '\n';
	err = write_json(off_opt.stats, idle, buf, (size_t)n);
	return idle && err == -EEXIST ? 0 : err;
}
