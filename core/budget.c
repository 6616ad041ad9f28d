/* SPDX-License-Identifier: MIT */
/* budget.c - the memory limits of the process, read and put together.
 *
 * Owns the descriptors in struct budget.
 *
 * 1. A limit counts at every level up to the root of what can be seen: the
 *    level with the least room decides, wherever it is.
 * 2. Numbers that cannot be read are left out, never guessed: a missing
 *    cgroup leaves MemAvailable, a missing MemAvailable leaves the cgroup.
 * 3. No allocation, no stdio: read every 50 ms beside a program under
 *    memory pressure.
 * Lock: none; one thread owns a struct budget.
 */
#include <errno.h>
#include <string.h>

#include "budget_int.h"
#include "sys.h"

/* cgroup v1 says "no limit" as the largest page-aligned signed number. */
#define V1_NO_LIMIT (1ull << 60)
#define KEPT_BACK_MOST (32ull << 20)
#define PRESSED_NS 1000000000ull

static const char *const names[3][BF_N] = {
	[1] = { [BF_LIMIT] = "memory.limit_in_bytes",
		[BF_USAGE] = "memory.usage_in_bytes",
		[BF_STAT] = "memory.stat",
		[BF_FAILS] = "memory.failcnt",
		[BF_KERNEL] = "memory.kmem.usage_in_bytes" },
	[2] = { [BF_LIMIT] = "memory.max",
		[BF_HIGH] = "memory.high",
		[BF_USAGE] = "memory.current",
		[BF_STAT] = "memory.stat",
		[BF_FAILS] = "memory.events.local" },
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t sub_u64(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t add_u64(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* ---- files --------------------------------------------------------------- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		off_sys_close(*fd);
	*fd = -1;
}

/* The whole of a small file, 0-terminated; false when there is none. */
static int slurp(int fd, char *buf, size_t len)
{
	ssize_t n = fd < 0 ? -1 : off_sys_pread(fd, buf, len - 1, 0);

	if (n < 0)
		return 0;
	buf[n] = 0;
	return 1;
}

static uint64_t to_number(const char *s)
{
	uint64_t v = 0;

	while (*s == ' ' || *s == '\t')
		s++;
	for (; *s >= '0' && *s <= '9'; s++)
		v = v * 10 + (uint64_t)(*s - '0');
	return v;
}

/* The number after a key that begins a line, or 0. */
static uint64_t value_of(const char *text, const char *key)
{
	size_t len = strlen(key);
	const char *at = text;

	while (at && strncmp(at, key, len)) {
		at = strchr(at, '\n');
		at = at ? at + 1 : NULL;
	}
	return at ? to_number(at + len) : 0;
}

static uint64_t read_number(int fd)
{
	char buf[64];

	return slurp(fd, buf, sizeof(buf)) ? to_number(buf) : 0;
}

static uint64_t read_limit(int fd)
{
	char buf[64];
	uint64_t v;

	if (!slurp(fd, buf, sizeof(buf)) || buf[0] < '0' || buf[0] > '9')
		return BUDGET_NONE;	/* "max" */
	v = to_number(buf);
	return v >= V1_NO_LIMIT ? BUDGET_NONE : v;
}

/* ---- opening ------------------------------------------------------------- */

static uint64_t hash(uint64_t h, const char *s)
{
	while (*s)
		h = (h ^ (unsigned char)*s++) * 0x100000001b3ull;
	return h;
}

static int open_level(struct budget *b, const char *dir)
{
	struct budget_level *l = &b->level[b->n];
	int any = 0;

	for (int i = 0; i < BF_N; i++) {
		const char *name = names[b->version][i];

		l->fd[i] = name ? budget_open_at(dir, name) : -1;
	}
	if (b->version == 2 && l->fd[BF_FAILS] < 0)	/* before Linux 5.2 */
		l->fd[BF_FAILS] = budget_open_at(dir, "memory.events");
	for (int i = 0; i < BF_N; i++)
		any |= l->fd[i] >= 0;
	b->n += any;
	return any;
}

static uint64_t level_limit(const struct budget_level *l)
{
	return min_u64(read_limit(l->fd[BF_LIMIT]), read_limit(l->fd[BF_HIGH]));
}

/* Own cgroup first, then each parent up to the mount point. Sharers are the
 * processes below the lowest limit, the outermost one if several are equal. */
static void open_levels(struct budget *b, char *dir, size_t top)
{
	uint64_t lowest = BUDGET_NONE, limit;
	char *slash;

	while (b->n < BUDGET_LEVELS) {
		if (open_level(b, dir)) {
			limit = level_limit(&b->level[b->n - 1]);
			if (limit != BUDGET_NONE && limit <= lowest) {
				lowest = limit;
				b->share_key = hash(0xcbf29ce484222325ull, dir);
			}
		}
		slash = strrchr(dir, '/');
		if (!slash || (size_t)(slash - dir) < top)
			break;
		*slash = 0;
	}
}

static void open_own(struct budget *b, const char *dir)
{
	char buf[64];
	int fd = budget_open_at(dir, "memory.swappiness");	/* v1 */

	if (fd < 0)
		fd = budget_open_at("/proc/sys/vm/swappiness", "");
	b->swappiness = slurp(fd, buf, sizeof(buf)) ? (int)to_number(buf) : -1;
	close_fd(&fd);
	b->oom_fd = budget_open_at(dir, b->version == 1 ? "memory.oom_control" :
			    "memory.events");
	b->psi_fd = b->version == 2 ? budget_open_at(dir, "memory.pressure") : -1;
}

/* v1 first: in a hybrid set-up the memory controller is there, and the v2
 * path names a cgroup without memory files. */
static void find_cgroup(struct budget *b)
{
	char dir[BUDGET_PATH_LEN];
	size_t top;

	for (int v = 1; v <= 2 && !b->n; v++) {
		if (!budget_find(v, dir, sizeof(dir), &top))
			continue;
		b->version = v;
		open_own(b, dir);
		open_levels(b, dir, top);
		if (!b->n) {
			close_fd(&b->oom_fd);
			close_fd(&b->psi_fd);
		}
	}
	if (!b->n)
		b->version = 0;
}

int budget_open(struct budget *b)
{
	memset(b, 0, sizeof(*b));
	b->swappiness = b->oom_fd = b->psi_fd = -1;
	find_cgroup(b);
	b->meminfo_fd = budget_open_at("/proc/meminfo", "");
	if (b->psi_fd < 0)
		b->psi_fd = budget_open_at("/proc/pressure/memory", "");
	return b->n || b->meminfo_fd >= 0 ? 0 : -ENOENT;
}

void budget_close(struct budget *b)
{
	for (int i = 0; i < b->n; i++)
		for (int f = 0; f < BF_N; f++)
			close_fd(&b->level[i].fd[f]);
	close_fd(&b->meminfo_fd);
	close_fd(&b->psi_fd);
	close_fd(&b->oom_fd);
	b->n = 0;
}

/* ---- reading ------------------------------------------------------------- */

/* Kernels before 5.18 have no total of it. */
static uint64_t v2_kernel(const char *text)
{
	uint64_t v = value_of(text, "kernel ");

	return v ? v : value_of(text, "kernel_stack ") +
		       value_of(text, "pagetables ") +
		       value_of(text, "percpu ") + value_of(text, "slab ");
}

static void parse_stat(int version, const char *text, struct budget_now *o)
{
	const int v1 = version == 1;
	uint64_t lru, kept;

	o->anon = value_of(text, v1 ? "total_rss " : "anon ");
	o->cache = value_of(text, v1 ? "total_cache " : "file ");
	kept = value_of(text, v1 ? "total_mapped_file " : "file_mapped ");
	/* The file lists leave out shared memory and locked pages. */
	lru = value_of(text, v1 ? "total_inactive_file " : "inactive_file ") +
	      value_of(text, v1 ? "total_active_file " : "active_file ");
	o->droppable = min_u64(lru, kept);
	/* What is being written goes when it is written, and not before. */
	kept += value_of(text, v1 ? "total_dirty " : "file_dirty ") +
		value_of(text, v1 ? "total_writeback " : "file_writeback ");
	o->reclaimable = sub_u64(lru, kept);
	if (!v1)
		o->kernel = v2_kernel(text);
}

static void read_level(int version, const struct budget_level *l,
		       struct budget_now *o)
{
	char text[8192];
	uint64_t outer;

	o->usage = read_number(l->fd[BF_USAGE]);
	if (!slurp(l->fd[BF_STAT], text, sizeof(text)))
		text[0] = 0;
	parse_stat(version, text, o);
	if (version == 2)
		return;
	o->kernel = read_number(l->fd[BF_KERNEL]);
	/* Says the limits of ancestors that a container cannot see. */
	outer = value_of(text, "hierarchical_memory_limit ");
	if (outer && outer < V1_NO_LIMIT)
		o->limit = min_u64(o->limit, outer);
}

static uint64_t read_fails(int version, const struct budget_level *l)
{
	char text[512];

	if (version == 1)
		return read_number(l->fd[BF_FAILS]);
	return slurp(l->fd[BF_FAILS], text, sizeof(text)) ?
	       value_of(text, "max ") : 0;
}

static uint64_t room(const struct budget_now *o)
{
	return sub_u64(o->limit, sub_u64(o->usage, o->reclaimable));
}

/* Puts level i in place of what was read before, if it has less room. */
static void take_level(struct budget *b, int i, uint64_t limit,
		       struct budget_now *out)
{
	struct budget_now o = *out;

	o.limit = limit;
	o.depth = i;
	read_level(b->version, &b->level[i], &o);
	o.failcnt += read_fails(b->version, &b->level[i]);
	o.lowest_limit = min_u64(o.lowest_limit, o.limit);
	if (out->limit == BUDGET_NONE || room(&o) <= room(out)) {
		*out = o;
		return;
	}
	out->failcnt = o.failcnt;
	out->lowest_limit = o.lowest_limit;
}

/* Only levels with a limit are read, for it is the statistics that take the
 * time; without any, the process's own. */
static void read_cgroup(struct budget *b, struct budget_now *out)
{
	uint64_t limit;

	for (int i = 0; i < b->n; i++) {
		limit = level_limit(&b->level[i]);
		if (limit != BUDGET_NONE)
			take_level(b, i, limit, out);
	}
	if (b->n && out->limit == BUDGET_NONE)
		take_level(b, 0, BUDGET_NONE, out);
}

static void read_meminfo(int fd, struct budget_now *out)
{
	char text[4096];

	if (!slurp(fd, text, sizeof(text)))
		return;
	out->mem_total = value_of(text, "MemTotal:") << 10;
	out->mem_available = value_of(text, "MemAvailable:") << 10;
}

static uint64_t psi_total(const char *text, const char *line)
{
	const char *at = strstr(text, line);

	at = at ? strstr(at, "total=") : NULL;
	return at ? to_number(at + 6) : 0;
}

static void read_psi(int fd, struct budget_now *out)
{
	const char *at;
	char text[512];

	if (!slurp(fd, text, sizeof(text)))
		return;
	out->psi_some_us = psi_total(text, "some ");
	out->psi_full_us = psi_total(text, "full ");
	at = strstr(text, "full avg10=");
	if (!at)
		return;
	at += strlen("full avg10=");
	out->psi_full_avg10 = (unsigned int)to_number(at) * 100;
	at = strchr(at, '.');
	if (at)		/* always two digits */
		out->psi_full_avg10 += (unsigned int)to_number(at + 1);
}

int budget_read(struct budget *b, struct budget_now *out)
{
	char text[512];

	memset(out, 0, sizeof(*out));
	out->limit = out->lowest_limit = BUDGET_NONE;
	out->version = b->version;
	out->swappiness = b->swappiness;
	read_cgroup(b, out);
	read_meminfo(b->meminfo_fd, out);
	read_psi(b->psi_fd, out);
	if (slurp(b->oom_fd, text, sizeof(text)))
		out->oom_kill = value_of(text, "oom_kill ");
	return out->limit == BUDGET_NONE && !out->mem_total ? -EIO : 0;
}

/* ---- what follows -------------------------------------------------------- */

uint64_t budget_others(const struct budget_now *now, uint64_t own_bytes)
{
	return sub_u64(now->usage, add_u64(own_bytes, now->reclaimable));
}

uint64_t budget_target(const struct budget_now *now, uint64_t own_bytes,
		       uint64_t reserve, uint64_t asked)
{
	uint64_t least = now->mem_total / 20, t = UINT64_MAX;

	if (now->limit != BUDGET_NONE)
		t = sub_u64(now->limit,
			    add_u64(reserve, budget_others(now, own_bytes)));
	if (now->mem_total)
		t = min_u64(t, sub_u64(add_u64(now->mem_available, own_bytes),
				       reserve > least ? reserve : least));
	if (t == UINT64_MAX)
		t = 0;
	return asked ? min_u64(t, asked) : t;
}

uint64_t budget_kept_back(struct budget_pressure *p, const struct budget_now *now, uint64_t t)
{
	if (p->known && now->failcnt > p->fails)
		p->until = t + PRESSED_NS;
	p->known = true;
	p->fails = now->failcnt;
	if (t >= p->until || now->limit == BUDGET_NONE)
		return 0;
	return min_u64(KEPT_BACK_MOST, now->limit / 64);
}

void budget_divide(uint64_t total, const uint64_t *wanted, size_t n,
		   uint64_t *share)
{
	uint64_t fair;
	size_t left = n, served;

	for (size_t i = 0; i < n; i++)
		share[i] = UINT64_MAX;
	do {		/* serve all who want no more than the fair part */
		served = 0;
		fair = left ? total / left : 0;
		for (size_t i = 0; i < n; i++) {
			if (share[i] != UINT64_MAX || wanted[i] > fair)
				continue;
			share[i] = wanted[i];
			total -= wanted[i];
			served++;
		}
		left -= served;
	} while (served && left);
	for (size_t i = 0; i < n; i++)
		if (share[i] == UINT64_MAX)
			share[i] = fair;
}
