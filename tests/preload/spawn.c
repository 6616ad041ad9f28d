/* SPDX-License-Identifier: MIT */
/* spawn.c - vfork and exec, posix_spawn, system, popen beside a region.
 *
 * Owns nothing; lock: none. A vfork child shares the memory and must not
 * take anything of it along when it leaves.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static void by_vfork(void)
{
	pid_t pid = vfork();

	if (!pid) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(9);
	}
	trap_wait(pid, "vfork child");
}

static void by_vfork_without_exec(void)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(0);
	trap_wait(pid, "vfork child that only exits");
}

static void by_spawn(void)
{
	extern char **environ;
	char *argv[] = { "true", NULL };
	pid_t pid;

	check(!posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ));
	trap_wait(pid, "posix_spawn child");
}

static void by_popen(void)
{
	char word[16] = "";
	FILE *f = popen("echo word", "r");

	check(f && fgets(word, sizeof(word), f) && !strcmp(word, "word\n"));
	check(!pclose(f));
}

int main(void)
{
	struct trap t;

	trap_start(&t);
	trap_child_env();
	for (int i = 0; i < 5; i++) {
		verify_all(&t, "between spawns");
		by_vfork();
		verify_random(&t, 25, i, "after vfork");
		by_vfork_without_exec();
		by_spawn();
		verify_random(&t, 25, i, "after posix_spawn");
		check(!system("exit 0"));
		by_popen();
	}
	verify_passes(&t, 2, "after");
	return trap_done(&t);
}
