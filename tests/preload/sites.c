/* SPDX-License-Identifier: MIT */
/* sites.c - functions whose names the statistics must show, each with memory of
 * its own: malloc, mmap, realloc, and what was given back.
 *
 * Owns its blocks; lock: none. (1) Contents are right whatever is told of them.
 * (2) tests/check/sites.sh knows the sizes. With an argument it holds all of
 * it until its input ends; SITES_WAIT names a file that must be mapped first.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=1M */
/* later-needs: regions evictions */
#include "anon.h"

#define WEIGHTS 3

#define TURNS 20

/* Seen from outside, and never part of another. */
__attribute__((noinline)) void site_first(void), site_weights(void), site_cache(void),
	site_scratch(void), site_gone(void), site_child(void), site_left(void),
	site_right(void);

static struct block weight[WEIGHTS], scratch, child;
static unsigned char *cache;

/* Starts the library's threads. */
void site_first(void)
{
	struct block b = block_new(1, 12 * MIB);

	block_verify(&b, "first");
	block_free(&b);
}

/* 48 MiB in two blocks stay. */
void site_weights(void)
{
	for (int i = 0; i < WEIGHTS; i++) {
		weight[i] = (struct block){ malloc(24 * MIB), 24 * MIB, 10 + i, 0 };
		check(weight[i].p);
		block_fill(&weight[i], 1);
	}
	block_free(&weight[1]);
}

/* 32 MiB stay, in two pieces. */
void site_cache(void)
{
	cache = mmap(NULL, 40 * MIB, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(cache != MAP_FAILED);
	anon_put(cache, 20, 1, 0, 40 * MIB);
	check(!munmap(cache + 16 * MIB, 8 * MIB));
}

/* 9 MiB. */
void site_scratch(void)
{
	scratch = (struct block){ malloc(5 * MIB), 5 * MIB, 30, 0 };
	check(scratch.p);
	block_fill(&scratch, 1);
	scratch.p = realloc(scratch.p, 9 * MIB);
	check(scratch.p);
	anon_verify(scratch.p, 30, 1, 0, 5 * MIB, "grown");
	scratch.len = 9 * MIB;
	block_fill(&scratch, 2);
}

/* None. */
void site_gone(void)
{
	struct block b = { calloc(1, 30 * MIB), 30 * MIB, 40, 0 };

	check(b.p);
	anon_is_zero(b.p, b.len, "calloc");
	block_fill(&b, 1);
	block_verify(&b, "gone");
	block_free(&b);
}

/* Two that look alike on the stack; nothing stays of either. */
void site_left(void)
{
	unsigned char *volatile p = malloc(2 * MIB);

	check(p);
	*p = 1;
	free(p);
}

void site_right(void)
{
	unsigned char *volatile p = malloc(3 * MIB);

	check(p);
	*p = 1;
	free(p);
}

static void in_turn(void)
{
	void (*volatile f[2])(void) = { site_left, site_right };

	for (int i = 0; i < 2 * TURNS; i++)
		f[i % 2]();
}

static void all_right(const char *who)
{
	block_verify(&weight[0], who);
	block_verify(&weight[2], who);
	block_verify(&scratch, who);
	anon_verify(cache, 20, 1, 0, 16 * MIB, who);
	anon_verify(cache + 24 * MIB, 20, 1, 24 * MIB, 16 * MIB, who);
}

/* 7 MiB, in the child alone. */
void site_child(void)
{
	child = (struct block){ malloc(7 * MIB), 7 * MIB, 50, 0 };
	check(child.p);
	block_fill(&child, 1);
	block_verify(&child, "child");
}

static void forked(void)
{
	int status = -1;
	pid_t pid = fork();

	check(pid >= 0);
	if (!pid) {
		site_child();
		all_right("in the child");
		exit(0);
	}
	check(waitpid(pid, &status, 0) == pid);
	check(!status);
}

static bool is_mapped(const char *name)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	bool found = false;

	while (f && fgets(line, sizeof(line), f))
		found |= strstr(line, name) != NULL;
	if (f)
		fclose(f);
	return found;
}

int main(int argc, char **argv)
{
	const char *name = getenv("SITES_WAIT");
	char c;

	site_first();
	for (int i = 0; name && !is_mapped(name) && i < 3000; i++)
		usleep(10000);
	site_gone();
	site_weights();
	site_cache();
	site_scratch();
	in_turn();
	all_right("in the parent");
	forked();
	all_right("after the fork");
	while (argc > 1 && read(0, &c, 1) > 0)
		;
	return 0;
}
