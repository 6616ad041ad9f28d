/* SPDX-License-Identifier: MIT */
/* private_write.c - a private writable mapping, pages written at random.
 *
 * Owns a private copy of the file; lock: none. Written pages persist through
 * evictions, the others come from the file, and the file stays as it was,
 * also with writers and readers on the same chunk at once and over a fork, where a
 * thread gives up other pages meanwhile.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions */
#include "trap.h"

#define STEP	(37 * PAGE)	/* one written page in 37 */

static struct trap t;

static void write_page(size_t off, uint32_t gen)
{
	for (size_t i = 0; i < PAGE; i += 8) {
		uint64_t w = trap_word(off + i, 1000 + gen);

		memcpy(t.map + off + i, &w, 8);
	}
}

static void write_pages(uint32_t gen)
{
	for (size_t off = STEP; off < t.size; off += STEP)
		write_page(off, gen);
}

static void verify_page(size_t off, uint32_t gen, const char *what)
{
	uint64_t w;

	for (size_t i = 0; i < PAGE; i += 8) {
		memcpy(&w, t.map + off + i, 8);
		if (w != trap_word(off + i, 1000 + gen))
			fail("%s: page %#zx lost what was written (%s)", what,
			     off, w == trap_word(off + i, t.seed) ?
			     "holds the file's bytes" : w ? "garbage" : "zero");
	}
}

static void verify_mix(uint32_t gen, const char *what)
{
	for (size_t off = 0; off < t.size; off += PAGE)
		if (off && !(off % STEP))
			verify_page(off, gen, what);
		else
			verify(&t, off, PAGE, what);
}

static void *writer(void *stop)
{
	for (uint32_t gen = 2; !atomic_load((_Atomic int *)stop); gen++) {
		write_pages(gen);
		for (size_t off = STEP; off < t.size; off += STEP)
			verify_page(off, gen, "the writer itself");
	}
	return NULL;
}

static void beside_a_writer(void)
{
	static _Atomic int stop;
	pthread_t th;

	check(!pthread_create(&th, NULL, writer, &stop));
	for (int i = 0; i < 2; i++)
		for (size_t off = PAGE; off < t.size; off += STEP)
			verify(&t, off, PAGE, "beside a writer");
	atomic_store(&stop, 1);
	check(!pthread_join(th, NULL));
}

/* What a child gives up is the file's again, not zeros; where it maps something else,
 * that is left alone. */
static void given_up(void)
{
	size_t part = t.size / 4 & ~(PAGE - 1);
	unsigned char *own;
	pid_t pid;

	check(!madvise(t.map + part, part, MADV_DONTNEED));
	verify(&t, part, part, "given up");
	own = mmap(t.map + 2 * part, part, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	check(own == t.map + 2 * part);
	own[PAGE] = 1;
	check(!madvise(own, part, MADV_DONTNEED));
	check(!own[PAGE]);
	write_page(part, 71);
	verify_page(part, 71, "written after it was given up");
	pid = fork();
	if (!pid) {
		check(!madvise(t.map, part, MADV_DONTNEED));
		verify(&t, 0, part, "given up by a grandchild");
		verify_page(part, 71, "a grandchild");
		_exit(0);
	}
	trap_wait(pid, "grandchild");
}

/* Writes of either side after a fork are its own. */
static void over_a_fork(void)
{
	pid_t pid = fork();

	if (!pid) {
		verify_mix(1, "child");
		write_pages(70);
		verify_mix(70, "child that wrote");
		given_up();
		_exit(0);
	}
	verify_mix(1, "parent beside the child");
	trap_wait(pid, "child");
	verify_mix(1, "parent after the child wrote");
}

static _Atomic bool enough;

static void *giver(void *none)
{
	size_t half = t.size / 2;

	while (!atomic_load(&enough)) {
		check(!madvise(t.map + half, half, MADV_DONTNEED));
		for (size_t off = half; off < t.size; off += 2 * MIB)
			check(*(volatile unsigned char *)(t.map + off) == (unsigned char)
			      trap_word(off, t.seed));
	}
	return none;
}

/* Forks in the middle of that: what was written elsewhere is the child's, too. */
static void beside_a_giver(void)
{
	pthread_t th;

	check(!pthread_create(&th, NULL, giver, NULL));
	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();

		if (!pid) {
			for (size_t off = STEP; off < t.size / 4; off += STEP)
				verify_page(off, 9, "child, beside who gives up");
			_exit(0);
		}
		trap_wait(pid, "child beside who gives up");
	}
	atomic_store(&enough, true);
	check(!pthread_join(th, NULL));
}

int main(void)
{
	trap_private(&t, trap_dir(), TRAP_SIZE, 4);
	trap_map(&t, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	verify_all(&t, "untouched");
	write_pages(1);
	for (int i = 0; i < 4; i++)
		verify_mix(1, "written");
	over_a_fork();
	beside_a_writer();
	write_pages(9);
	verify_mix(9, "written again");
	beside_a_giver();
	trap_unmap(&t);
	trap_map(&t, PROT_READ, MAP_SHARED);
	verify_passes(&t, 2, "the file itself");
	return trap_done(&t);
}
