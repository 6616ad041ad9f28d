/* SPDX-License-Identifier: MIT */
/* anon_process.c - what a process does to itself while its blocks are away: closes
 * every descriptor, runs other programs, loads and unloads libraries, becomes
 * another program.
 *
 * Owns its blocks; lock: none. (1) The library's descriptors cannot be closed or
 * replaced: blocks go to the spill file and come back after (R4). (2) A command
 * that is run finds nothing of it, and the blocks are right after. (3) Libraries
 * come and go beside threads that wait for pages, and allocate as they please.
 * (4) Another image begins with nothing of the one before.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
/* variants: plain move copy hints */
#include "anon.h"

#include <dlfcn.h>

#define BLOCKS	3

static struct block b[BLOCKS];

static void verify_blocks(const char *what)
{
	for (int i = 0; i < BLOCKS; i++)
		block_verify(&b[i], what);
}

static void renew_blocks(const char *what)
{
	for (int i = 0; i < BLOCKS; i++)
		block_fill(&b[i], b[i].gen + 1);
	anon_push_out_fast();
	verify_blocks(what);
}

static void close_all(void)
{
	for (int fd = 3; fd < 300; fd++)
		close(fd);
	check(!close_range(3, ~0u, 0) || errno == ENOSYS);
	closefrom(3);
}

static void dup_over_all(void)
{
	int fd = open("/dev/null", O_RDWR);

	check(fd >= 0);
	for (int to = 3; to < 300; to++)
		check(to == fd || dup2(fd, to) == to);
}

static void without_descriptors(void)
{
	pid_t pid;

	close_all();
	renew_blocks("after closing all");
	dup_over_all();
	renew_blocks("after dup2 over all");
	close_all();
	pid = fork();
	if (!pid) {
		dup_over_all();
		renew_blocks("child after dup2 over all");
		close_all();
		renew_blocks("child after closing all");
		_exit(0);
	}
	renew_blocks("parent of it");
	trap_wait(pid, "child that closed all");
	check(!close_range(3, ~0u, CLOSE_RANGE_UNSHARE) || errno == ENOSYS ||
	      errno == EINVAL);
	renew_blocks("a descriptor table of its own");
}

/* ---- commands ------------------------------------------------------------------- */

static void commands(void)
{
	char line[64] = "";
	FILE *f;

	for (int i = 0; i < 3; i++) {
		anon_push_out_fast();
		check(system("exit 3") == 3 << 8);
		block_verify_random(&b[i], 10, i, "after system");
		f = popen("cat >/dev/null", "w");
		check(f && !pclose(f));
		f = popen("ls /proc/self/fd | wc -l", "r");
		check(f && fgets(line, sizeof(line), f) && !pclose(f));
		/* 0 to 2, and that of the directory */
		if (atoi(line) != 4)
			fail("a command has %s descriptors", line);
	}
	verify_blocks("after commands");
}

/* From a block that is away: names, arguments, environment. */
static void spawn_from_a_block(void)
{
	unsigned char *p = calloc(1, 8 * MIB);
	char **argv = (char **)(p + 3 * MIB), **envp = (char **)(p + 5 * MIB);
	char *text = (char *)p + MIB;
	pid_t pid;

	check(p);
	strcpy(text, "/bin/sh");
	strcpy(text + PAGE, "-c");
	strcpy(text + 2 * PAGE, "exit $CODE");
	strcpy(text + 3 * PAGE, "CODE=6");
	memcpy(argv, (char *[]){ text, text + PAGE, text + 2 * PAGE, NULL },
	       4 * sizeof(*argv));
	memcpy(envp, (char *[]){ text + 3 * PAGE, NULL }, 2 * sizeof(*envp));
	for (int i = 0; i < 3; i++) {
		int st;

		anon_push_out_fast();
		if (i == 0) {
			check(!posix_spawn(&pid, text, NULL, NULL, argv, envp));
		} else {
			pid = i == 1 ? fork() : vfork();
			if (!pid) {
				execve(text, argv, envp);
				_exit(9);
			}
		}
		check(waitpid(pid, &st, 0) == pid);
		if (st != 6 << 8)
			fail("spawned from a block, way %d: status %#x", i, st);
	}
	free(p);
}

/* ---- libraries ---------------------------------------------------------------------- */

static _Atomic int stop;

static void *loads(void *arg)
{
	static const char *const name[] = { "libresolv.so.2", "libm.so.6",
		"libutil.so.1", "libgcc_s.so.1", "libz.so.1", "libnsl.so.1",
		"libsqlite3.so.0", "libcrypto.so.3" };

	for (unsigned int i = (uintptr_t)arg; !atomic_load(&stop); i++) {
		void *h = dlopen(name[i % 8], i & 1 ? RTLD_NOW : RTLD_LAZY);
		struct block own = block_new(60 + (uintptr_t)arg, MIB);

		if (h)
			check(!dlclose(h));
		block_verify(&own, "beside a library that comes and goes");
		block_free(&own);
	}
	return NULL;
}

static void *walks(void *arg)
{
	while (!atomic_load(&stop))
		block_verify_random(anon_ballast(), 16, 3, "beside dlopen");
	return NULL;
}

static void libraries(void)
{
	pthread_t th[3];

	check(dlopen("libm.so.6", RTLD_NOW) != NULL);
	for (uintptr_t i = 0; i < 2; i++)
		check(!pthread_create(&th[i], NULL, loads, (void *)i));
	check(!pthread_create(&th[2], NULL, walks, NULL));
	for (int i = 0; i < 3; i++)
		renew_blocks("beside dlopen and dlclose");
	atomic_store(&stop, 1);
	for (int i = 0; i < 3; i++)
		check(!pthread_join(th[i], NULL));
	dlerror();
}

/* ---- another image --------------------------------------------------------------------- */

static void *becomes(void *arg)
{
	static char *argv[] = { (char *)"anon_process", (char *)"again", NULL };
	extern char **environ;

	verify_blocks("thread about to exec");
	execve("/proc/self/exe", argv, environ);
	fail("execve: %s", strerror(errno));
}

static void make_blocks(void)
{
	b[0] = block_new(1, 13 * MIB);
	b[1] = block_map(2, 6 * MIB + PAGE);
	b[2] = block_new(3, 5 * MIB + 4000);
	renew_blocks("made");
}

int main(int argc, char **argv)
{
	pthread_t th;

	make_blocks();
	if (argc > 1) {
		check(trap_fds() == 3);
		return 0;
	}
	without_descriptors();
	commands();
	spawn_from_a_block();
	libraries();
	verify_blocks("in the end");
	check(!pthread_create(&th, NULL, becomes, NULL));
	for (;;)
		verify_blocks("beside a thread about to exec");
}
