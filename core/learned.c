/* SPDX-License-Identifier: MIT */
/* learned.c - which bytes of the heap were read from which file.
 *
 * Owns a sorted list of ranges of addresses, and the files they came from.
 *
 * (1) Files that are tensor containers, and large ones of any kind that can be held
 *     as they are (hold.c): others may be rewritten in place any time, and a program
 *     that read them has its copy. Read through an O_RDONLY descriptor.
 * (2) A file is known by device, inode, size and time of change; it is opened
 *     anew by the keeper and stays open.
 * (3) Nothing is noted before the library runs: a hint is worth no thread.
 * Lock: `lock`, rank 0, leaf; never held while the keeper is asked.
 */
#include "core/anon.h"
#include "core/learned.h"
#include "core/core_int.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES_MAX	512
#define RANGES_MAX	(1U << 16)
#define READ_LEAST	(64ul << 10)	/* shorter ones only where they continue one */
#define GAP_MOST	PAGE
#define ANY_LEAST	(16l << 20)	/* of no known kind: worth it from here on */

struct range {
	uintptr_t lo, hi;
	uint64_t off;
	uint32_t file;
};

struct known {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime;
	struct origin *origin;	/* NULL: not wanted, or it cannot be opened */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *range;	/* sorted, disjoint */
static _Atomic uint32_t n;	/* learned_any looks without the lock */
static struct known file[FILES_MAX];
static uint32_t files;

/* ---- the list; lock held ---------------------------------------------------------- */

/* The first range that ends after addr. */
static uint32_t after(uintptr_t addr)
{
	uint32_t lo = 0, hi = n;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (range[mid].hi <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void insert(uint32_t i, struct range r)
{
	memmove(range + i + 1, range + i, (n - i) * sizeof(*range));
	range[i] = r;
	n++;
}

static void cut(uintptr_t lo, uintptr_t hi)
{
	uint32_t i = after(lo), end;

	if (i < n && range[i].lo < lo) {
		struct range tail = range[i];

		range[i++].hi = lo;
		if (tail.hi > hi && n < RANGES_MAX) {
			tail.off += hi - tail.lo;
			tail.lo = hi;
			insert(i, tail);
			return;
		}
	}
	for (end = i; end < n && range[end].hi <= hi; end++)
		;
	memmove(range + i, range + end, (n - end) * sizeof(*range));
	n -= end - i;
	if (i < n && range[i].lo < hi) {
		range[i].off += hi - range[i].lo;
		range[i].lo = hi;
	}
}

static bool continues(const struct range *a, const struct range *b)
{
	return a->file == b->file && a->hi == b->lo && a->off + (a->hi - a->lo) == b->off;
}

static void note(struct range r)
{
	uint32_t i;

	cut(r.lo, r.hi);
	i = after(r.lo);
	if (i && continues(&range[i - 1], &r))
		range[i - 1].hi = r.hi;
	else if (n < RANGES_MAX)
		insert(i, r);
}

/* ---- files ------------------------------------------------------------------------- */

static bool same(const struct known *k, const struct stat *st)
{
	return k->dev == st->st_dev && k->ino == st->st_ino && k->size == st->st_size &&
	       k->mtime.tv_sec == st->st_mtim.tv_sec &&
	       k->mtime.tv_nsec == st->st_mtim.tv_nsec;
}

static bool usable(const struct known *k)
{
	return k->origin && !atomic_load(&k->origin->let_go);
}

/* The number of a file seen before; -EPERM: it was of no use; -ENOENT. Lock held. */
static int known_as(const struct stat *st)
{
	for (uint32_t i = 0; i < files; i++)
		if (same(&file[i], st) && (!file[i].origin || usable(&file[i])))
			return file[i].origin ? (int)i : -EPERM;
	return -ENOENT;
}

/* For one more; what is of no use makes room. NULL: all are in use. Lock held. */
static struct known *place(void)
{
	static uint32_t next;

	if (files < FILES_MAX)
		return &file[files++];
	for (uint32_t i = 0; i < FILES_MAX; i++) {
		struct known *k = &file[next++ % FILES_MAX];

		if (!usable(k))
			return k;
	}
	return NULL;
}

/* The number of the file behind fd, or -errno: hints of it are of no use. */
static int file_of(int fd)
{
	struct cmd c = { .op = CMD_ORIGIN, .fd = fd };
	struct known k = { 0 }, *to;
	struct stat st;
	uint64_t size;
	int found;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return -EINVAL;
	pthread_mutex_lock(&lock);
	found = known_as(&st);
	to = found == -ENOENT ? place() : NULL;
	if (to)
		*to = (struct known){ .size = -1 };	/* ours, until it is known */
	pthread_mutex_unlock(&lock);
	if (!to)
		return found == -ENOENT ? -ENFILE : found;
	c.tid = (pid_t)syscall(SYS_gettid);
	c.any = !origin_tensor(fd, &size);
	if ((!c.any || (st.st_size >= ANY_LEAST && origin_readable(fd, &size))) && !cmd_call(&c))
		k.origin = c.origin;
	k.dev = st.st_dev;
	k.ino = st.st_ino;
	k.size = st.st_size;
	k.mtime = st.st_mtim;
	pthread_mutex_lock(&lock);
	*to = k;
	pthread_mutex_unlock(&lock);
	return k.origin ? (int)(to - file) : -EPERM;
}

/* ---- program threads ----------------------------------------------------------------- */

bool core_read_long(int fd)
{
	int saved = errno;
	bool yes = keeper_running() && !library_thread() && file_of(fd) >= 0;

	errno = saved;
	return yes;
}

void core_read_done(int fd, const void *buf, size_t len, int64_t off)
{
	struct range r = { (uintptr_t)buf, (uintptr_t)buf + len, (uint64_t)off, 0 };
	int saved = errno, f;
	bool follows = false;

	if (off < 0 || !len || !keeper_running() || library_thread())
		return;
	pthread_mutex_lock(&lock);
	if (len < READ_LEAST && n) {
		uint32_t i = after(r.lo);

		follows = i && range[i - 1].hi == r.lo;
	}
	pthread_mutex_unlock(&lock);
	f = len >= READ_LEAST || follows ? file_of(fd) : -EINVAL;
	pthread_mutex_lock(&lock);
	if (!range)
		range = reserve_range((RANGES_MAX + 1) * sizeof(*range));
	r.file = (uint32_t)f;
	if (range && f >= 0)
		note(r);
	else if (range)
		cut(r.lo, r.hi);
	pthread_mutex_unlock(&lock);
	/* Two copies do not fit; and at its limit a group gets no huge pages. */
	if (f >= 0 && len >= READ_LEAST && anon_live())
		off_sys_fadvise(fd, (off_t)off, (off_t)len, POSIX_FADV_DONTNEED);
	errno = saved;
}

void learned_forget(uintptr_t lo, uintptr_t hi)
{
	pthread_mutex_lock(&lock);
	if (n)
		cut(lo, hi);
	pthread_mutex_unlock(&lock);
}

/* ---- pager ----------------------------------------------------------------------------- */

int learned_pieces(uintptr_t lo, uintptr_t hi, struct learned_piece *out, int max)
{
	int k = 0;

	pthread_mutex_lock(&lock);
	for (uint32_t i = after(lo); i < n && range[i].lo < hi; i++) {
		uintptr_t a = range[i].lo > lo ? range[i].lo : lo;
		uintptr_t b = range[i].hi < hi ? range[i].hi : hi;
		struct learned_piece p = { a, b, file[range[i].file].origin,
					   range[i].off + (a - range[i].lo) };
		struct learned_piece *last = k ? &out[k - 1] : NULL;

		if (!p.origin)		/* its place in the table is another's */
			continue;
		if (last && last->origin == p.origin && a - last->hi <= GAP_MOST &&
		    last->off + (a - last->lo) == p.off) {
			last->hi = b;
		} else if (k < max) {
			out[k++] = p;
		} else {
			k = -E2BIG;
			break;
		}
	}
	pthread_mutex_unlock(&lock);
	return k;
}

bool learned_any(void)
{
	return n != 0;
}

/* ---- forks -------------------------------------------------------------------------------- */

void learned_fork_lock(void)
{
	pthread_mutex_lock(&lock);
}

void learned_fork_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void learned_fork_child(void)
{
	n = 0;
	files = 0;
}
