/* SPDX-License-Identifier: MIT */
/* anon_origin.c - blocks that were read from a tensor file, in every way: dropped when
 * they have to go, and read again from the file, which may have changed since.
 *
 * Owns private copies of the file; the program runs itself as the victim. Lock: none.
 * (1) read, pread, readv, preadv and fread, in pieces of any length to places of any
 * alignment: the block is what was read, for ever. (2) What the program changed in it
 * stays, and the file does not change. (3) A file that is touched, renamed, replaced or
 * deleted changes nothing. (4) One that cannot be held (somebody may write to it) and is
 * changed or shortened ends the process with a message that names it, or the bytes are
 * still the old ones; never others, never zeros.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
/* variants: plain move copy hints */
#include "anon.h"

#define SIZE	(24 * MIB)
#define OLD	41
#define NEW	42

static struct trap t;
static unsigned char *p;

static void settle(const char *what)
{
	for (int i = 0; i < 2; i++) {
		anon_push_out_fast();
		verify_at(&t, p, 0, SIZE, what);
	}
}

static void by_read(int fd)
{
	for (size_t at = 0; at < SIZE;) {
		size_t n = SIZE - at < 7 * MIB + 13 ? SIZE - at : 7 * MIB + 13;
		ssize_t got = at % 2 ? pread(fd, p + at, n, at) : read(fd, p + at, n);

		check(got > 0);
		at += got;
		check(lseek(fd, at, SEEK_SET) == (off_t)at);
	}
}

/* In an order of its own, two pieces a call. */
static void by_vectors(int fd)
{
	size_t n = 3 * MIB;

	for (size_t at = 0; at < SIZE; at += n) {
		struct iovec iov[2] = { { p + at, n / 3 },
					{ p + at + n / 3, n - n / 3 } };

		check(lseek(fd, at, SEEK_SET) == (off_t)at);
		check((at / n % 2 ? readv(fd, iov, 2) : preadv(fd, iov, 2, at)) ==
		      (ssize_t)n);
	}
}

static void by_stream(int fd)
{
	FILE *f = fdopen(dup(fd), "rb");

	check(f && !fseek(f, 0, SEEK_SET));
	for (size_t at = 0; at < SIZE; at += 2 * MIB)
		check(fread(p + at, 4, MIB / 2, f) == MIB / 2);
	check(!fclose(f));
}

static void in_every_way(void)
{
	static void (*const way[])(int) = { by_read, by_vectors, by_stream };
	static const char *const name[] = { "read", "readv", "fread" };

	for (int i = 0; i < 3; i++) {
		int fd = trap_open(&t);
		/* Of a malloc'd block, and not where a page begins. */
		unsigned char *block = malloc(SIZE + PAGE);

		check(block);
		p = block + (i == 2 ? 48 : 0);
		way[i](fd);
		close(fd);
		settle(name[i]);
		free(block);
	}
}

static void read_all(void)
{
	int fd = trap_open(&t);

	if (!p)
		p = malloc(SIZE);
	check(p);
	by_read(fd);
	close(fd);
}

/* A page in 37 is changed, in memory only. */
static void changed_in_memory(void)
{
	struct trap own = t;

	own.seed = NEW;
	for (size_t at = 37 * PAGE; at < SIZE; at += 37 * PAGE)
		trap_expect(p + at, at, PAGE, t.size, NEW);
	for (int i = 0; i < 2; i++) {
		anon_push_out_fast();
		for (size_t at = 0; at < SIZE; at += PAGE)
			verify_at(at && !(at % (37 * PAGE)) ? &own : &t, p + at, at,
				  PAGE, "changed in memory");
	}
	t.map = NULL;
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify(&t, 0, SIZE, "the file of what was changed in memory");
	trap_unmap(&t);
}

static void file_is_handled(void)
{
	struct timespec ts[2] = { { 1000000000, 0 }, { 1000000000, 5 } };
	char moved[PATH_MAX + 8];
	struct trap other;
	pid_t pid;

	read_all();
	settle("read");
	check(!utimensat(AT_FDCWD, t.path, ts, 0));
	settle("touched");
	snprintf(moved, sizeof(moved), "%s.moved", t.path);
	check(!rename(t.path, moved));
	settle("renamed");
	trap_private(&other, trap_dir(), t.size, NEW);
	check(!rename(other.path, t.path));
	settle("replaced");
	check(!unlink(t.path) && !unlink(moved));
	settle("deleted");
	pid = fork();
	if (!pid) {
		settle("child, deleted");
		_exit(0);
	}
	settle("parent, deleted");
	trap_wait(pid, "child");
}

/* ---- victims --------------------------------------------------------------------- */

static int victim(const char *how, const char *path)
{
	struct trap now;

	t = (struct trap){ .size = SIZE, .seed = OLD };
	snprintf(t.path, sizeof(t.path), "%s", path);
	check(open(path, O_WRONLY) >= 0);	/* stays: nobody can hold it */
	read_all();
	if (strcmp(how, "at once"))	/* else little was dropped yet */
		settle("before");
	now = t;
	now.seed = NEW;
	if (!strcmp(how, "shorten"))
		check(!truncate(t.path, MIB));
	else
		trap_write(&now, now.size);
	for (int i = 0; i < 3; i++)
		settle("after");
	return 0;
}

static void ends_or_is_right(const char *how)
{
	struct rlimit none = { 0, 0 };
	struct trap_child c;

	setrlimit(RLIMIT_CORE, &none);
	trap_private(&t, trap_dir(), SIZE, OLD);
	trap_run(&c, how, t.path);
	if (c.status && (!strstr(c.err, strrchr(t.path, '/') + 1) ||
			 !strstr(c.err, "offload[") || strstr(c.err, "wrong byte at")))
		fail("%s: status %#x; it said: %s", how, c.status, c.err);
	if (!c.status && trap_paged() && !strcmp(how, "shorten"))
		fail("bytes that are nowhere were read");
	trap_done(&t);
}

int main(int argc, char **argv)
{
	if (argc > 2)
		return victim(argv[1], argv[2]);
	trap_private(&t, trap_dir(), SIZE, OLD);
	in_every_way();
	p = NULL;
	read_all();
	changed_in_memory();
	file_is_handled();
	ends_or_is_right("at once");
	ends_or_is_right("change");
	ends_or_is_right("shorten");
	return 0;
}
