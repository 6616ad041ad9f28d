/* SPDX-License-Identifier: MIT */
/* helper_shared.c - one of several programs that share a budget, a file and a spill
 * folder (tests/soak/run.sh): its own blocks, the file all have mapped, every word of
 * both looked at, pass after pass, until SIGTERM.
 *
 *     helper_shared NUMBER MIB     so much of each; NUMBER tells the words apart
 *
 * Lock: none, one thread.
 */
#include "anon.h"

#define BLOCK (3 * MIB)

static volatile sig_atomic_t over;

static void enough(int sig)
{
	over = 1;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = enough, .sa_flags = SA_RESTART };
	struct block *b;
	struct trap t;
	uint16_t first;
	size_t size, n;

	check(argc == 3);
	first = (uint16_t)(1000 * atoi(argv[1]) + 1);
	size = (size_t)atol(argv[2]) * MIB;
	n = size / BLOCK;
	check(!sigaction(SIGTERM, &sa, NULL));
	trap_shared(&t, size, 8);
	trap_map(&t, PROT_READ, MAP_SHARED);
	b = calloc(n, sizeof(*b));
	check(b);
	for (size_t i = 0; i < n; i++)
		b[i] = block_new((uint16_t)(first + i), BLOCK);
	for (uint16_t pass = 2; !over; pass++) {
		for (size_t i = 0; i < n && !over; i++) {
			block_verify(&b[i], "block");
			if ((i + pass) % 3 == 0)
				block_fill(&b[i], pass);
			verify(&t, i * BLOCK, BLOCK, "file");
		}
	}
	for (size_t i = 0; i < n; i++)
		block_verify(&b[i], "block, in the end");
	verify_all(&t, "file, in the end");
	for (size_t i = 0; i < n; i++)
		block_free(&b[i]);
	return trap_done(&t);
}
