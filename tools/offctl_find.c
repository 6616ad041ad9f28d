/* SPDX-License-Identifier: MIT */
/* offctl_find.c - finds the statistics of running programs.
 *
 * Owns nothing. The block is a memfd that only the library's threads have
 * open, in a descriptor table of their own; /proc shows that table under
 * their task directories, to the owner of the process and nobody else.
 */
#include "offctl.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINK "/memfd:" STATS_NAME

static bool is_number(const char *s)
{
	return isdigit((unsigned char)*s) && !s[strspn(s, "0123456789")];
}

/* One file is read instead of every descriptor of every thread. */
static int is_mapped(int pid)
{
	char path[64], *line = NULL;
	int found = -ENOENT;
	size_t cap = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? -ESRCH : -errno;
	while (found && getline(&line, &cap, f) > 0)
		if (strstr(line, LINK))
			found = 0;
	free(line);
	if (ferror(f) && found)
		found = -EACCES;	/* maps opens, but does not read */
	fclose(f);
	return found;
}

/* As a whole, if its list is not being written all the time. */
static ssize_t read_whole(int fd, struct off_stats *out)
{
	uint32_t seq = 0;
	ssize_t n = 0;

	for (int tries = 0; tries < 100; tries++) {
		n = pread(fd, out, sizeof(*out), 0);
		if (n != (ssize_t)sizeof(*out) ||
		    pread(fd, &seq, sizeof(seq),
			  offsetof(struct off_stats, sites_seq)) != sizeof(seq) ||
		    (seq == out->sites_seq && !(seq & 1)))
			break;
	}
	out->sites_seq = 0;	/* nobody writes to the copy */
	return n;
}

static int read_block(int dir, const char *name, struct off_stats *out)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read_whole(fd, out);

	if (fd >= 0)
		close(fd);
	if (n != (ssize_t)sizeof(*out) || out->magic != STATS_MAGIC ||
	    out->version != STATS_VERSION || out->n != ST_N)
		return -EPROTO;
	return 0;
}

static int search_fds(const char *path, struct off_stats *out)
{
	DIR *d = opendir(path);
	int ret = d ? -ENOENT : -errno;
	struct dirent *e;
	char link[64];
	ssize_t n;

	while (ret == -ENOENT && (e = readdir(d))) {
		n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);
		link[n > 0 ? n : 0] = 0;
		if (!strncmp(link, LINK, strlen(LINK)))
			ret = read_block(dirfd(d), e->d_name, out);
	}
	if (d)
		closedir(d);
	return ret;
}

/* All threads but the main one, whose table is the program's; it comes last,
 * for a library that could not get a table of its own. */
static int search_tasks(int pid, struct off_stats *out)
{
	char path[128];
	struct dirent *e;
	int ret = -ENOENT;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? -ESRCH : -errno;
	while (ret == -ENOENT && (e = readdir(d))) {
		if (!is_number(e->d_name) || atoi(e->d_name) == pid)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/fd", pid,
			 e->d_name);
		ret = search_fds(path, out);
	}
	closedir(d);
	if (ret == -ENOENT) {
		snprintf(path, sizeof(path), "/proc/%d/fd", pid);
		ret = search_fds(path, out);
	}
	return ret;
}

int find_stats(int pid, struct off_stats *out)
{
	int err = is_mapped(pid);

	return err ? err : search_tasks(pid, out);
}

static bool may_read(int proc, const char *name)
{
	struct stat st;

	return is_number(name) && !fstatat(proc, name, &st, 0) &&
	       (!geteuid() || st.st_uid == geteuid());
}

static int by_number(const struct dirent **a, const struct dirent **b)
{
	return atoi((*a)->d_name) - atoi((*b)->d_name);
}

void each_stats(void (*cb)(const struct off_stats *s, void *arg), void *arg)
{
	int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent **names = NULL;
	int n = scandir("/proc", &names, NULL, by_number);
	struct off_stats s;

	for (int i = 0; i < n; i++) {
		if (may_read(proc, names[i]->d_name) &&
		    !find_stats(atoi(names[i]->d_name), &s))
			cb(&s, arg);
		free(names[i]);
	}
	free(names);
	if (proc >= 0)
		close(proc);
}

const char *find_reason(int err)
{
	switch (err) {
	case -ENOENT:
		return "the library has nothing to do in it (no region yet, "
		       "or it is not loaded)";
	case -ESRCH:
		return "no such process";
	case -EPROTO:
		return "it uses another version of the library";
	case -EACCES:
	case -EPERM:
		return "it belongs to another user";
	}
	return strerror(-err);
}

double stall_share(uint64_t stall_ns, uint64_t wall_ns)
{
	return wall_ns ? 100.0 * (double)stall_ns / (double)wall_ns : 0;
}
