/* SPDX-License-Identifier: MIT */
/* helper_secret.c - memory with a secret in each of its pages, most of it in the spill
 * file: tests/check/security.sh looks there.
 *
 * Says "ready", waits for a line, and then looks whether all is as it was. Lock: none.
 */
#include "anon.h"

#define LEN	(64 * MIB)

static void put(unsigned char *p)
{
	anon_put(p, 1, 1, 0, LEN);
	for (size_t at = 0; at < LEN; at += PAGE)
		memcpy(p + at + 1024, "attack at dawn, says nobody", 27);
}

static void look(const unsigned char *p)
{
	for (size_t at = 0; at < LEN; at += PAGE) {
		anon_verify(p + at, 1, 1, at, 1024, "before the secret");
		check(!memcmp(p + at + 1024, "attack at dawn, says nobody", 27));
		anon_verify(p + at + 2048, 1, 1, at + 2048, PAGE - 2048, "behind it");
	}
}

int main(void)
{
	unsigned char *p = anon_map(LEN);
	char line[8];

	put(p);
	look(p);
	check(write(1, "ready\n", 6) == 6);
	check(read(0, line, sizeof(line)) > 0);
	look(p);
	return 0;
}
