/* SPDX-License-Identifier: MIT */
/* changed.c - the file's contents change in place under the mapping.
 *
 * Owns a private copy; the program runs itself as the victim. Lock: none.
 * (1) The kernel's answer is that new bytes show at once; the library's, when
 *     it notices, is to stop the process with a message naming the file.
 * (2) Old and new bytes may be seen mixed until then, nothing else ever, and
 *     not for ever: within ten passes all is new or the process has stopped.
 */
/* env: OFFLOAD_RAM=32M */
#include "trap.h"

#define OLD	7
#define NEW	8
#define PASSES	10

/* One page in every 256 KiB changes, so every chunk does. */
static bool changes(size_t off)
{
	return off % (256 * KIB) == 64 * KIB;
}

static void change(const struct trap *t)
{
	unsigned char buf[PAGE];
	int fd = open(t->path, O_RDWR | O_CLOEXEC);

	check(fd >= 0);
	for (size_t off = 0; off < t->size; off += PAGE)
		if (changes(off)) {
			trap_expect(buf, off, PAGE, t->size, NEW);
			trap_write_all(fd, buf, PAGE, off);
		}
	close(fd);
}

/* Returns how many changed pages still show their old bytes. */
static int mixed_pass(const struct trap *old, const struct trap *new)
{
	unsigned char want[PAGE];
	int stale = 0;

	for (size_t off = 0; off < old->size; off += PAGE) {
		if (!changes(off)) {
			verify(old, off, PAGE, "unchanged page");
			continue;
		}
		trap_expect(want, off, PAGE, old->size, OLD);
		if (!memcmp(old->map + off, want, PAGE))
			stale++;
		else
			verify(new, off, PAGE, "changed page");
	}
	return stale;
}

static int victim(const char *path)
{
	struct trap t = { .size = TRAP_SIZE, .seed = OLD }, new;
	int stale = 0;

	snprintf(t.path, sizeof(t.path), "%s", path);
	trap_map(&t, PROT_READ, MAP_SHARED);
	new = t;
	new.seed = NEW;
	verify_passes(&t, 3, "before the change");
	change(&t);
	for (int i = 0; i < PASSES; i++)
		stale = mixed_pass(&t, &new);
	if (stale)
		fail("%d pages show old bytes for ever, and nothing was said",
		     stale);
	return 0;
}

int main(int argc, char **argv)
{
	struct trap_child c;
	struct trap t;

	if (argc > 2)
		return victim(argv[2]);
	trap_private(&t, trap_dir(), TRAP_SIZE, OLD);
	trap_run(&c, "victim", t.path);
	trap_done(&t);
	if (!c.status)
		return 0;
	if (!strstr(c.err, strrchr(t.path, '/') + 1) ||
	    !strstr(c.err, "offload"))
		fail("status %#x without a message naming the file; it said: %s",
		     c.status, c.err);
	if (strstr(c.err, "wrong byte at"))
		fail("%s", c.err);
	return 0;
}
