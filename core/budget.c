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
#include "budget.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "options.h"
#include "sys.h"

#define PATH_LEN 4096

/* cgroup v1 says "no limit" as the largest page-aligned signed number. */
#define V1_NO_LIMIT (1ull << 60)

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

static int open_at(const char *dir, const char *name)
{
	const char *root = off_opt.sysroot ? off_opt.sysroot : "";
	char path[PATH_LEN];
	int n = snprintf(path, sizeof(path), "%s%s%s%s", root, dir,
			 *name ? "/" : "", name);

	if (n < 0 || (size_t)n >= sizeof(path))
		return -1;
	return off_sys_open(path, O_RDONLY | O_CLOEXEC);
}

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

/* ---- finding the cgroup -------------------------------------------------- */

struct lines {
	int fd;
	size_t at, have;
	char buf[8192];
};

static int refill(struct lines *l)
{
	ssize_t n;

	memmove(l->buf, l->buf + l->at, l->have - l->at);
	l->have -= l->at;
	l->at = 0;
	n = off_sys_read(l->fd, l->buf + l->have, sizeof(l->buf) - 1 - l->have);
	if (n > 0)
		l->have += (size_t)n;
	return n > 0;
}

/* The next line, 0-terminated, or NULL. One longer than the buffer comes in
 * pieces; none that matters here is (layered root mounts can be). */
static char *next_line(struct lines *l)
{
	char *line, *end;

	while (!(end = memchr(l->buf + l->at, '\n', l->have - l->at)))
		if (!refill(l))
			break;
	if (!end && l->at == l->have)
		return NULL;
	line = l->buf + l->at;
	if (!end)
		end = l->buf + l->have;
	l->at = (size_t)(end - l->buf) + (end < l->buf + l->have);
	*end = 0;
	return line;
}

/* Whether a word is in a list with commas between. */
static int has_word(const char *list, const char *word)
{
	size_t len = strlen(word), n;

	for (; *list; list += n + (list[n] == ',')) {
		n = strcspn(list, ",");
		if (n == len && !strncmp(list, word, n))
			return 1;
	}
	return 0;
}

/* One line of /proc/self/cgroup, "4:memory:/a" or "0::/a": which version it
 * speaks of for memory, 0 for neither; *path where its path begins. */
static int cgroup_line(char *line, char **path)
{
	char *controllers = strchr(line, ':');

	*path = controllers ? strchr(controllers + 1, ':') : NULL;
	if (!*path)
		return 0;
	*controllers++ = 0;
	*(*path)++ = 0;
	if (has_word(controllers, "memory"))
		return 1;
	return !strcmp(line, "0") && !*controllers ? 2 : 0;
}

/* Paths in both hierarchies; "" for one the process is not in. */
static void read_self(char path[3][PATH_LEN])
{
	struct lines l = { .fd = open_at("/proc/self/cgroup", "") };
	char *line, *p;
	int v;

	path[1][0] = path[2][0] = 0;
	while (l.fd >= 0 && (line = next_line(&l))) {
		v = cgroup_line(line, &p);
		if (v)
			snprintf(path[v], PATH_LEN, "%s", p);
	}
	close_fd(&l.fd);
}

/* mountinfo writes blanks and backslashes as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++, to++) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*to = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
				     (s[3] - '0'));
			s += 3;
		} else {
			*to = *s;
		}
	}
	*to = 0;
}

struct mount {
	char root[PATH_LEN], point[PATH_LEN];
	int version;
};

/* Splits off the next word; *line is left behind it. */
static char *word(char **line)
{
	return *line ? strsep(line, " ") : NULL;
}

static int mount_version(const char *type, const char *super)
{
	if (!strcmp(type, "cgroup2"))
		return 2;
	return !strcmp(type, "cgroup") && has_word(super, "memory");
}

/* One line of mountinfo; true when it mounts memory cgroups. */
static int mount_line(char *line, struct mount *m)
{
	char *tail = strstr(line, " - "), *type, *super, *root, *point;

	if (!tail)
		return 0;
	*tail = 0;
	tail += 3;
	type = word(&tail);
	word(&tail);
	super = word(&tail);
	m->version = type && super ? mount_version(type, super) : 0;
	if (!m->version)
		return 0;
	for (int i = 0; i < 3; i++)
		word(&line);
	root = word(&line);
	point = word(&line);
	if (!root || !point)
		return 0;
	unescape(root);
	unescape(point);
	snprintf(m->root, sizeof(m->root), "%s", root);
	snprintf(m->point, sizeof(m->point), "%s", point);
	return 1;
}

static int find_mount(int version, struct mount *m)
{
	struct lines l = { .fd = open_at("/proc/self/mountinfo", "") };
	int found = 0;
	char *line;

	while (l.fd >= 0 && !found && (line = next_line(&l)))
		found = mount_line(line, m) && m->version == version;
	close_fd(&l.fd);
	return found;
}

/* What follows the mount's root in the cgroup path: inside a container the
 * mount may show only the container's own part. A path outside of it (".."
 * of a namespace) leaves the mount point itself. */
static const char *below_root(const char *path, const char *root)
{
	size_t n = strcmp(root, "/") ? strlen(root) : 0;

	if (strncmp(path, root, n) || (path[n] && path[n] != '/') ||
	    strstr(path, "/.."))
		return "";
	return strcmp(path + n, "/") ? path + n : "";
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

		l->fd[i] = name ? open_at(dir, name) : -1;
	}
	if (b->version == 2 && l->fd[BF_FAILS] < 0)	/* before Linux 5.2 */
		l->fd[BF_FAILS] = open_at(dir, "memory.events");
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
	int fd = open_at(dir, "memory.swappiness");	/* v1 */

	if (fd < 0)
		fd = open_at("/proc/sys/vm/swappiness", "");
	b->swappiness = slurp(fd, buf, sizeof(buf)) ? (int)to_number(buf) : -1;
	close_fd(&fd);
	b->oom_fd = open_at(dir, b->version == 1 ? "memory.oom_control" :
			    "memory.events");
	b->psi_fd = b->version == 2 ? open_at(dir, "memory.pressure") : -1;
}

/* v1 first: in a hybrid set-up the memory controller is there, and the v2
 * path names a cgroup without memory files. */
static void find_cgroup(struct budget *b)
{
	char path[3][PATH_LEN], dir[2 * PATH_LEN];
	struct mount m;

	read_self(path);
	for (int v = 1; v <= 2 && !b->n; v++) {
		if (!path[v][0] || !find_mount(v, &m))
			continue;
		b->version = v;
		snprintf(dir, sizeof(dir), "%s%s", m.point,
			 below_root(path[v], m.root));
		open_own(b, dir);
		open_levels(b, dir, strlen(m.point));
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
	b->meminfo_fd = open_at("/proc/meminfo", "");
	if (b->psi_fd < 0)
		b->psi_fd = open_at("/proc/pressure/memory", "");
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
	uint64_t lru;

	o->anon = value_of(text, v1 ? "total_rss " : "anon ");
	o->cache = value_of(text, v1 ? "total_cache " : "file ");
	o->mapped = value_of(text, v1 ? "total_mapped_file " : "file_mapped ");
	/* The file lists leave out shared memory and locked pages. */
	lru = value_of(text, v1 ? "total_inactive_file " : "inactive_file ") +
	      value_of(text, v1 ? "total_active_file " : "active_file ");
	o->reclaimable = sub_u64(lru, o->mapped);
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

/* A level without a limit is not read further. */
static void read_cgroup(struct budget *b, struct budget_now *out)
{
	struct budget_now o;

	for (int i = 0; i < b->n; i++) {
		o = *out;
		o.limit = level_limit(&b->level[i]);
		o.depth = i;
		if (o.limit == BUDGET_NONE && i)
			continue;
		read_level(b->version, &b->level[i], &o);
		o.failcnt += read_fails(b->version, &b->level[i]);
		o.lowest_limit = min_u64(o.lowest_limit, o.limit);
		if (!i || out->limit == BUDGET_NONE || room(&o) <= room(out)) {
			*out = o;
		} else {
			out->failcnt = o.failcnt;
			out->lowest_limit = o.lowest_limit;
		}
	}
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
