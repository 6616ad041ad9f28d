/* SPDX-License-Identifier: MIT */
/* anon_rewrite.c - files that were read into blocks, and are written anew in place by the
 * same thread, another process, or cut: as who loads a model, goes on with it and saves it
 * under the same name does. The blocks stay what was read.
 *
 * Owns its files. Lock: none. (1) Where the file system does not let a file be held,
 * nothing can be shown. (2) A child of a fork has the old bytes, too. (3) One fread of more than
 * there is. (4) What nobody
 * needs any more may be written at once, and what is read then is the new file.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions reads */
/* variants: plain move copy */
#include "anon.h"

#define SIZE	(24 * MIB + 5)
#define OLD	61
#define NEW	62

static void settle(struct trap *t, const unsigned char *p, const char *what)
{
	for (int i = 0; i < 2; i++) {
		anon_push_out_fast();
		verify_at(t, p, 0, SIZE, what);
	}
}

static unsigned char *read_file(const struct trap *t)
{
	unsigned char *p = malloc(8 * SIZE);
	FILE *f = fopen(t->path, "r");

	check(p && f);
	check(fread(p, 8, SIZE, f) == SIZE / 8 && feof(f));
	check(ftell(f) == (long)SIZE);
	fclose(f);
	return p;
}

static void change(const char *how, const struct trap *t)
{
	struct trap now = *t;
	pid_t pid;

	now.seed = NEW;
	if (!strcmp(how, "cut")) {
		check(!truncate(t->path, MIB));
	} else if (!strcmp(how, "written by another")) {
		pid = fork();
		if (!pid) {
			trap_write(&now, SIZE);
			_exit(0);
		}
		trap_wait(pid, "writer");
	} else {
		trap_write(&now, SIZE);
	}
}

static void one(const char *how)
{
	struct trap t, now;
	unsigned char *p;
	pid_t pid;

	trap_private(&t, trap_dir(), SIZE, OLD);
	p = read_file(&t);
	settle(&t, p, "as read");
	change(how, &t);
	settle(&t, p, how);
	pid = fork();
	if (!pid) {
		settle(&t, p, "child");
		_exit(0);
	}
	trap_wait(pid, "child");
	settle(&t, p, "parent");
	free(p);
	now = t;
	now.seed = NEW;
	if (strcmp(how, "cut")) {
		p = read_file(&now);
		settle(&now, p, "the new file");
		free(p);
	}
	change("written", &t);
	trap_done(&t);
}

/* In the child the descriptor is the parent's. */
static void after_fork(void)
{
	struct trap t;
	unsigned char *p;
	pid_t pid;

	trap_private(&t, trap_dir(), SIZE, OLD);
	p = read_file(&t);
	settle(&t, p, "as read");
	pid = fork();
	if (!pid) {
		settle(&t, p, "child");
		change("written", &t);
		settle(&t, p, "child, written");
		_exit(0);
	}
	trap_wait(pid, "child");
	settle(&t, p, "parent, written by the child");
	free(p);
	trap_done(&t);
}

static void needs_holds(void)
{
	struct trap t;
	int fd;

	trap_private(&t, trap_dir(), MIB, OLD);
	fd = trap_open(&t);
	if (fcntl(fd, F_SETLEASE, F_RDLCK))
		skip("files cannot be held on this file system");
	close(fd);
	trap_done(&t);
}

int main(void)
{
	needs_holds();
	one("written");
	one("written by another");
	one("cut");
	after_fork();
	return 0;
}
