/* SPDX-License-Identifier: MIT */
/* exits.c - every way to end, with a region in use by other threads.
 *
 * Owns nothing; the program runs itself as the victim. Lock: none. The exit
 * status is the one the program chose, nothing hangs, and nothing is left in
 * /dev/shm but the one budget table that processes share.
 */
/* env: OFFLOAD_RAM=32M */
#include "trap.h"

#include <dirent.h>

static struct trap t;

static void *reader(void *arg)
{
	for (;;)
		verify_all(&t, "thread beside the end");
	return NULL;
}

static void end_by(const char *way)
{
	if (!strcmp(way, "exit"))
		exit(3);
	if (!strcmp(way, "_exit"))
		_exit(4);
	if (!strcmp(way, "quick_exit"))
		quick_exit(5);
	if (!strcmp(way, "abort"))
		abort();
	if (!strcmp(way, "SIGKILL"))
		raise(SIGKILL);
	if (!strcmp(way, "SIGSEGV"))
		raise(SIGSEGV);
	if (!strcmp(way, "exit_group"))
		syscall(SYS_exit_group, 6);
}

static int victim(const char *way)
{
	struct rlimit none = { 0, 0 };
	pthread_t th[2];

	setrlimit(RLIMIT_CORE, &none);
	trap_start(&t);
	verify_all(&t, "victim");
	for (int i = 0; i < 2; i++)
		check(!pthread_create(&th[i], NULL, reader, NULL));
	verify_random(&t, 40, 1, "victim");
	if (!strcmp(way, "return"))
		return 7;
	end_by(way);
	return 99;
}

/* Names of ours in /dev/shm, beside the share table. */
static int left_in_shm(void)
{
	DIR *d = opendir("/dev/shm");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)))
		if (strstr(e->d_name, "offload"))
			n++;
	if (d)
		closedir(d);
	return n;
}

static const struct { const char *way; int code, sig; } ends[] = {
	{ "exit", 3, 0 }, { "_exit", 4, 0 }, { "quick_exit", 5, 0 },
	{ "exit_group", 6, 0 }, { "return", 7, 0 }, { "abort", 0, SIGABRT },
	{ "SIGKILL", 0, SIGKILL }, { "SIGSEGV", 0, SIGSEGV },
};

int main(int argc, char **argv)
{
	struct trap_child c;
	int before = left_in_shm();

	if (argc > 1)
		return victim(argv[1]);
	trap_shared(&t, TRAP_SIZE, 1);	/* made once, before the victims */
	for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
		trap_run(&c, ends[i].way, NULL);
		if (ends[i].sig ? !WIFSIGNALED(c.status) ||
		    WTERMSIG(c.status) != ends[i].sig :
		    !WIFEXITED(c.status) || WEXITSTATUS(c.status) !=
		    ends[i].code)
			fail("%s: status %#x; it said: %s", ends[i].way,
			     c.status, c.err);
	}
	if (left_in_shm() > before + 1)
		fail("%d names in /dev/shm, then %d", before, left_in_shm());
	return trap_done(&t);
}
