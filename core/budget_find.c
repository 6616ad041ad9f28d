/* SPDX-License-Identifier: MIT */
/* budget_find.c - where the process's memory cgroup is.
 *
 * Owns nothing. /proc/self/cgroup says the path in each hierarchy, and
 * /proc/self/mountinfo where, and from which root, each is mounted; both are
 * read line by line: in a container mountinfo can have hundreds of lines.
 * Lock: none.
 */
#include "budget_int.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "options.h"
#include "sys.h"

int budget_open_at(const char *dir, const char *name)
{
	const char *root = off_opt.sysroot ? off_opt.sysroot : "";
	char path[BUDGET_PATH_LEN];
	int n = snprintf(path, sizeof(path), "%s%s%s%s", root, dir,
			 *name ? "/" : "", name);

	if (n < 0 || (size_t)n >= sizeof(path))
		return -1;
	return off_sys_open(path, O_RDONLY | O_CLOEXEC);
}

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

/* The process's path in the hierarchy of that version; "" for none. */
static void read_self(int version, char *path, size_t len)
{
	struct lines l = { .fd = budget_open_at("/proc/self/cgroup", "") };
	char *line, *p;

	path[0] = 0;
	while (l.fd >= 0 && (line = next_line(&l)))
		if (cgroup_line(line, &p) == version)
			snprintf(path, len, "%s", p);
	if (l.fd >= 0)
		off_sys_close(l.fd);
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
	char root[BUDGET_PATH_LEN], point[BUDGET_PATH_LEN];
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
	struct lines l = { .fd = budget_open_at("/proc/self/mountinfo", "") };
	int found = 0;
	char *line;

	while (l.fd >= 0 && !found && (line = next_line(&l)))
		found = mount_line(line, m) && m->version == version;
	if (l.fd >= 0)
		off_sys_close(l.fd);
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

int budget_find(int version, char *dir, size_t len, size_t *top)
{
	char path[BUDGET_PATH_LEN];
	struct mount m;
	int n;

	read_self(version, path, sizeof(path));
	if (!path[0] || !find_mount(version, &m))
		return 0;
	n = snprintf(dir, len, "%s%s", m.point, below_root(path, m.root));
	*top = strlen(m.point);
	return n > 0 && (size_t)n < len;
}
