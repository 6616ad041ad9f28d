/* SPDX-License-Identifier: MIT */
/* exec.c - the program replaces itself while its region is being read.
 *
 * Owns nothing; lock: none. Each image maps and checks anew; nothing of the
 * image before may be left: descriptors, memory, or a wait that never ends.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions */
#include "trap.h"

static struct trap t;

static void *reader(void *arg)
{
	for (;;)
		verify_all(&t, "thread beside exec");
	return NULL;
}

int main(int argc, char **argv)
{
	int round = argc > 1 ? atoi(argv[1]) : 0, fds = trap_fds();
	char next[16], first[16];
	pthread_t th;

	trap_start(&t);
	verify_passes(&t, 2, "after exec");
	if (round == 4)
		return trap_done(&t);
	if (argc > 2 && fds != atoi(argv[2]))
		fail("image %d starts with %d descriptors, the first had %s",
		     round, fds, argv[2]);
	if (round & 1)
		check(!pthread_create(&th, NULL, reader, NULL));
	snprintf(next, sizeof(next), "%d", round + 1);
	snprintf(first, sizeof(first), "%s", argc > 2 ? argv[2] : "");
	if (!*first)
		snprintf(first, sizeof(first), "%d", fds);
	execl("/proc/self/exe", argv[0], next, first, (char *)NULL);
	fail("exec: %s", strerror(errno));
}
