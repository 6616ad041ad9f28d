/* SPDX-License-Identifier: MIT */
/* budget_share.c - the table by which processes share one limit.
 *
 * Owns the file offload-UID-KEY in /dev/shm, or in /tmp where there is none.
 * A file of BUDGET_SHARERS entries, one per process, changed under flock:
 *
 *     free --poll--> used --leave, or any poll after its end--> free
 *
 * 1. The file is shared with other processes of the same user and nobody
 *    else: it is refused unless it is a plain file of that user, mode 0600.
 * 2. What is in it is a claim, not a fact: sums saturate, sizes are checked,
 *    a table that makes no sense is started afresh.
 * 3. Nobody waits for the lock: its holder may be stopped by a debugger.
 * 4. Where the last process of a table was killed its file stays: whoever joins any
 *    table next removes it. Alive is who polled of late: the others may be of
 *    another pid namespace.
 *
 * Lock: the flock, held within one call only.
 */
#include "budget.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "options.h"
#include "sys.h"

#define TABLE_MAGIC 0x3165726168736f6cull	/* "loshare1" */
#define STALE_S 10
#define LEAVE_TRIES 10

struct entry {
	int64_t pid;		/* 0: free */
	uint64_t start;		/* tells a reused pid apart */
	uint64_t wanted, held;	/* bytes */
	uint64_t seen_s;	/* CLOCK_BOOTTIME of the last poll */
};

struct table {
	uint64_t magic;
	struct entry e[BUDGET_SHARERS];
};

static const char *sysroot(void)
{
	return off_opt.sysroot ? off_opt.sysroot : "";
}

/* ---- who is alive -------------------------------------------------------- */

/* The start time of a process in clock ticks, 0 when it is dead or dying. The
 * name in the second field may hold blanks and brackets: count from its end. */
static uint64_t start_time(int64_t pid)
{
	char path[4096], text[1024], *at;
	uint64_t v = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/proc/%lld/stat", sysroot(),
		 (long long)pid);
	fd = off_sys_open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = off_sys_read(fd, text, sizeof(text) - 1);
	off_sys_close(fd);
	text[n > 0 ? n : 0] = 0;
	at = strrchr(text, ')');
	if (!at || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X')
		return 0;
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	for (at = at ? at + 1 : NULL; at && *at >= '0' && *at <= '9'; at++)
		v = v * 10 + (uint64_t)(*at - '0');
	return v;
}

static uint64_t now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec;
}

/* A process that stopped polling has perhaps become another program by exec.
 * To drop its entry is safe even if not: its memory then counts as others'. */
static int is_gone(const struct entry *e, uint64_t now)
{
	return e->pid <= 0 || e->seen_s + STALE_S < now || e->seen_s > now ||
	       start_time(e->pid) != e->start;
}

/* ---- the file ------------------------------------------------------------ */

/* Processes of different pid namespaces cannot tell whether the others live,
 * so they never share a table. */
static uint64_t table_key(const struct budget *b)
{
	uint64_t h = b->share_key ^ 0xcbf29ce484222325ull;
	char link[4096], ns[64];
	ssize_t n;

	snprintf(link, sizeof(link), "%s/proc/self/ns/pid", sysroot());
	n = off_sys_readlink(link, ns, sizeof(ns));
	for (ssize_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)ns[i]) * 0x100000001b3ull;
	return h;
}

static int table_path(char *out, size_t len, const char *dir, uint64_t key)
{
	int n = snprintf(out, len, "%s%s/offload-%u-%016llx", sysroot(), dir,
			 (unsigned int)geteuid(), (unsigned long long)key);

	return n > 0 && (size_t)n < len ? 0 : -ENAMETOOLONG;
}

static int is_ours(int fd)
{
	struct stat st;

	return !off_sys_fstat(fd, &st) && S_ISREG(st.st_mode) &&
	       st.st_uid == geteuid() && !(st.st_mode & 077) &&
	       st.st_nlink <= 1;
}

static int open_in(char path[PATH_MAX], const char *dir, uint64_t key)
{
	int fd, err = table_path(path, PATH_MAX, dir, key);

	if (err)
		return err;
	fd = off_sys_open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC |
			  O_NONBLOCK, 0600);
	if (fd < 0)
		return -errno;
	if (is_ours(fd))
		return fd;
	off_sys_close(fd);
	return -EPERM;
}

/* path: where it was found. */
static int open_table(char path[PATH_MAX], uint64_t key)
{
	int fd = open_in(path, "/dev/shm", key);

	return fd < 0 ? open_in(path, "/tmp", key) : fd;
}

static int lock(int fd)
{
	if (!off_sys_flock(fd, LOCK_EX | LOCK_NB))
		return 0;
	return errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

/* Locks the table that has the name now: the last to leave removes the file,
 * perhaps between our open and our lock. */
static int lock_current(struct budget_share *s)
{
	char path[PATH_MAX];
	struct stat st;
	int err;

	for (int tries = 0; tries < 4; tries++) {
		err = lock(s->fd);
		if (err)
			return err;
		if (off_sys_fstat(s->fd, &st))
			return -errno;
		if (st.st_nlink)
			return 0;
		off_sys_close(s->fd);
		s->fd = open_table(path, s->key);
		if (s->fd < 0)
			return s->fd;
	}
	return -EAGAIN;
}

static void load(int fd, struct table *t)
{
	ssize_t n = off_sys_pread(fd, t, sizeof(*t), 0);

	if (n != (ssize_t)sizeof(*t) || t->magic != TABLE_MAGIC) {
		memset(t, 0, sizeof(*t));
		t->magic = TABLE_MAGIC;
	}
}

static int save(int fd, const struct table *t)
{
	ssize_t n = off_sys_pwrite(fd, t, sizeof(*t), 0);

	if (n < 0)
		return -errno;
	return n == (ssize_t)sizeof(*t) ? 0 : -EIO;
}

/* ---- entries ------------------------------------------------------------- */

static void drop_gone(struct table *t)
{
	uint64_t now = now_s();

	for (int i = 0; i < BUDGET_SHARERS; i++)
		if (t->e[i].pid && is_gone(&t->e[i], now))
			memset(&t->e[i], 0, sizeof(t->e[i]));
}

static struct entry *find_pid(struct table *t, int64_t pid)
{
	for (int i = 0; i < BUDGET_SHARERS; i++)
		if (t->e[i].pid == pid)
			return &t->e[i];
	return NULL;
}

/* One process's part. A process that holds more than its part has not let go
 * of it yet; what all hold is added back before dividing, so the sum of the
 * parts does not depend on who is late. */
static uint64_t divide(const struct table *t, const struct entry *me,
		       const struct budget_now *now, uint64_t reserve,
		       unsigned int *sharers)
{
	uint64_t wanted[BUDGET_SHARERS], share[BUDGET_SHARERS], held = 0;
	size_t n = 0, mine = 0;

	for (int i = 0; i < BUDGET_SHARERS; i++) {
		const struct entry *e = &t->e[i];

		if (!e->pid)
			continue;
		if (e == me)
			mine = n;
		wanted[n++] = e->wanted;
		if (__builtin_add_overflow(held, e->held, &held))
			held = UINT64_MAX;
	}
	budget_divide(budget_target(now, held, reserve, 0), wanted, n, share);
	*sharers = (unsigned int)n;
	return share[mine];
}

/* ---- tables nobody is at any more (4) -------------------------------------- */

static int is_deserted(int fd)
{
	uint64_t now = now_s();
	struct stat st;
	struct table t;

	if (lock(fd) || off_sys_fstat(fd, &st) || !st.st_nlink ||
	    (uint64_t)st.st_mtim.tv_sec + STALE_S > (uint64_t)time(NULL))
		return 0;
	load(fd, &t);
	for (int i = 0; i < BUDGET_SHARERS; i++)
		if (t.e[i].pid && t.e[i].seen_s + STALE_S >= now && t.e[i].seen_s <= now)
			return 0;
	return 1;
}

static void sweep_one(int dir, const char *name)
{
	int fd = off_sys_openat(dir, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return;
	if (is_ours(fd) && is_deserted(fd))
		unlinkat(dir, name, 0);
	off_sys_close(fd);
}

struct dirent64 {		/* as getdents64 has it */
	uint64_t ino;
	int64_t off;
	uint16_t len;
	uint8_t type;
	char name[];
};

static void sweep(const char *where)
{
	char path[PATH_MAX], ours[64], buf[4096] __attribute__((aligned(8)));
	long n, len = snprintf(ours, sizeof(ours), "offload-%u-", (unsigned int)geteuid());
	int dir;

	snprintf(path, sizeof(path), "%s%s", sysroot(), where);
	dir = off_sys_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (dir >= 0 && (n = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64 *e = (const void *)(buf + at);

			if (!strncmp(e->name, ours, (size_t)len))
				sweep_one(dir, e->name);
			at += e->len;
		}
	if (dir >= 0)
		off_sys_close(dir);
}

/* ---- outward ------------------------------------------------------------- */

int budget_share_join(struct budget_share *s, const struct budget *b)
{
	char path[PATH_MAX];

	s->key = table_key(b);
	s->start = start_time(getpid());
	s->fd = -1;
	if (!s->start)
		return -ESRCH;
	s->fd = open_table(path, s->key);
	sweep(s->fd < 0 || !strstr(path, "/dev/shm/") ? "/tmp" : "/dev/shm");
	return s->fd < 0 ? s->fd : 0;
}

int budget_share_poll(struct budget_share *s, const struct budget_now *now,
		      uint64_t reserve, uint64_t wanted, uint64_t held,
		      uint64_t *share, unsigned int *sharers)
{
	struct entry *me;
	struct table t;
	int err;

	if (s->fd < 0)
		return -EBADF;
	err = lock_current(s);
	if (err)
		return err;
	load(s->fd, &t);
	drop_gone(&t);
	me = find_pid(&t, getpid());
	me = me ? me : find_pid(&t, 0);
	if (me)
		*me = (struct entry){ getpid(), s->start, wanted, held,
				      now_s() };
	err = me ? save(s->fd, &t) : -ENOSPC;
	off_sys_flock(s->fd, LOCK_UN);
	if (!err)
		*share = divide(&t, me, now, reserve, sharers);
	return err;
}

static int is_empty(const struct table *t)
{
	int i = 0;

	while (i < BUDGET_SHARERS && !t->e[i].pid)
		i++;
	return i == BUDGET_SHARERS;
}

/* Whoever is at the table, the keeper of this process maybe, is there for a moment. */
static int lock_soon(int fd)
{
	const struct timespec nap = { 0, 500000 };
	int err;

	for (int i = 0; (err = lock(fd)) && i < LEAVE_TRIES; i++)
		nanosleep(&nap, NULL);
	return err;
}

void budget_share_leave(const struct budget_share *s)
{
	char path[PATH_MAX];
	struct entry *me;
	struct table t;
	struct stat st;
	int fd = s->fd < 0 ? -1 : open_table(path, s->key);

	if (fd < 0)
		return;
	if (!lock_soon(fd) && !off_sys_fstat(fd, &st) && st.st_nlink) {
		load(fd, &t);
		drop_gone(&t);
		me = find_pid(&t, getpid());
		if (me)
			memset(me, 0, sizeof(*me));
		if (!save(fd, &t) && is_empty(&t))
			unlink(path);
	}
	off_sys_close(fd);	/* the flock goes with it */
}
