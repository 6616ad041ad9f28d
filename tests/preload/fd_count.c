/* SPDX-License-Identifier: MIT */
/* fd_count.c - a region adds no descriptor to the program or its children.
 *
 * Owns nothing; lock: none. Numbers and targets are compared, for the next
 * open must give the number it would give without the library.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

#define MAX	64

struct table { int all; char target[MAX][128]; };

static void look(struct table *tab)
{
	char name[32];

	memset(tab, 0, sizeof(*tab));
	for (int fd = 0; fd < MAX; fd++) {
		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		if (readlink(name, tab->target[fd], 127) < 0)
			tab->target[fd][0] = 0;
	}
	tab->all = trap_fds();		/* those beyond MAX too */
}

static void same(const struct table *a, const struct table *b,
		 const char *what)
{
	for (int fd = 0; fd < MAX; fd++)
		if (strcmp(a->target[fd], b->target[fd]))
			fail("%s: descriptor %d was \"%s\", is \"%s\"", what,
			     fd, a->target[fd], b->target[fd]);
	if (a->all != b->all)
		fail("%s: %d descriptors, then %d", what, a->all, b->all);
}

static void child(const struct table *before)
{
	struct table now;
	struct trap_child c;
	char n[16];
	pid_t pid = fork();

	if (!pid) {
		look(&now);
		same(before, &now, "child");
		_exit(0);
	}
	trap_wait(pid, "child");
	snprintf(n, sizeof(n), "%d", before->all);
	trap_run(&c, "count", n);
	if (c.status)
		fail("a program started from here: %s", c.err);
}

static int count(int expected)
{
	int n = trap_fds();

	if (n != expected)
		fail("%d descriptors inherited, not %d", n, expected);
	return 0;
}

int main(int argc, char **argv)
{
	struct table before, after;
	struct trap t;
	int low;

	if (argc > 2)
		return count(atoi(argv[2]));
	trap_shared(&t, TRAP_SIZE, 1);
	look(&before);
	trap_map(&t, PROT_READ, MAP_SHARED);
	look(&after);
	same(&before, &after, "just mapped");
	verify_passes(&t, 3, "in use");
	look(&after);
	same(&before, &after, "in use");
	child(&before);
	low = dup(0);
	close(low);
	for (int fd = 0; fd < low; fd++)
		check(before.target[fd][0]);
	trap_unmap(&t);
	look(&after);
	same(&before, &after, "unmapped");
	return trap_done(&t);
}
