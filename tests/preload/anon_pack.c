/* SPDX-License-Identifier: MIT */
/* anon_pack.c - memory that packs well is kept packed, and comes back whole.
 *
 * Owns its blocks; lock: none. (1) Every eight words are one word, eight times:
 * about a quarter of the bytes. (2) Beside them a block that does not pack, so
 * that both ways out are taken. (3) Written in part, freed, and forked while
 * packed.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions packed */
#include "anon.h"

#define LEN (48 * MIB)

static unsigned char *soft;
static struct block hard;

static void put(uint16_t gen, size_t from, size_t len)
{
	for (size_t at = from; at < from + len; at += 8) {
		uint64_t w = anon_word(7, gen, at & ~63ul);

		memcpy(soft + at, &w, 8);
	}
}

static void soft_verify(uint16_t gen, size_t from, size_t len, const char *what)
{
	for (size_t at = from; at < from + len; at += 8) {
		uint64_t w = anon_word(7, gen, at & ~63ul);

		if (memcmp(soft + at, &w, 8))
			fail("%s: gen %u: wrong word at %#zx", what, gen, at);
	}
}

static void all(uint16_t gen, const char *what)
{
	soft_verify(gen, 0, LEN, what);
	block_verify(&hard, what);
}

/* Some of each third chunk is written, so packed copies are out of date. */
static void rewrite_some(void)
{
	for (size_t at = 0; at < LEN; at += 3 * CHUNK)
		put(2, at + 64 * KIB, 4 * KIB);
	for (int i = 0; i < 2; i++)
		for (size_t at = 0; at < LEN; at += 3 * CHUNK) {
			soft_verify(1, at, 64 * KIB, "before what was rewritten");
			soft_verify(2, at + 64 * KIB, 4 * KIB, "rewritten");
			soft_verify(1, at + 68 * KIB, CHUNK - 68 * KIB, "behind it");
			block_verify_random(&hard, 20, (uint32_t)at + 1, "beside");
		}
	put(1, 0, LEN);
}

static void in_child(void)
{
	pid_t pid = fork();

	if (!pid) {
		all(1, "child");
		put(3, 0, LEN / 2);
		soft_verify(3, 0, LEN / 2, "child's own");
		soft_verify(1, LEN / 2, LEN / 2, "child, not written");
		_exit(0);
	}
	all(1, "parent beside its child");
	trap_wait(pid, "child with packed memory");
	all(1, "parent, after its child");
}

int main(void)
{
	trap_child_env();
	soft = anon_map(LEN);
	put(1, 0, LEN);
	hard = block_new(1, 24 * MIB);
	for (int i = 0; i < 3; i++)
		all(1, "a pass");
	rewrite_some();
	in_child();
	check(!madvise(soft + 5 * MIB, 9 * MIB, MADV_DONTNEED));
	anon_is_zero(soft + 5 * MIB, 9 * MIB, "DONTNEED of packed memory");
	put(1, 0, LEN);
	all(1, "the last pass");
	return 0;
}
