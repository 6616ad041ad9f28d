/* SPDX-License-Identifier: MIT */
/* test_pool_fork.c - the packed pool and forks (core/pool.h).
 *
 * Owns what pool_test.h does. (1) A child that inherits has all of it, and
 * neither side notices what the other does. (2) One that does not has nothing
 * of it, and a pool that works. (3) One that nobody knows of gets SIGSEGV.
 * Lock: none.
 */
#include "pool_test.h"

#include <signal.h>

/* Forks as the fork wrapper does; in the child runs `one`. */
static void with_child(bool inherit, void (*one)(void))
{
	int status = 0;
	pid_t pid;

	if (inherit)
		pool_fork_open();
	mem_fork_prepare();
	pid = fork();
	if (!pid) {
		mem_fork_child();
		alarm(60);
		pool_fork_child(inherit);
		one();
		_exit(0);
	}
	mem_fork_parent();
	if (inherit)
		pool_fork_close();
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(status == 0);
}

enum { KEPT = 200 };

static void put_kept(void)
{
	for (uint32_t i = 0; i < KEPT; i++)
		slots[i] = must_put((enum kind)(i % KINDS), 1 + i * 997, i, CODEC_RAW);
}

static void all_kept(uint32_t step)
{
	for (uint32_t i = 0; i < KEPT; i += step)
		CHECK(holds(slots[i], (enum kind)(i % KINDS), 1 + i * 997, i));
}

static void grandchild(void)
{
	all_kept(2);
}

/* It has all, and what it does with it is its own business. */
static void heir(void)
{
	uint32_t n;

	resident(pool_at(slots[KEPT - 1], &n), "dddcnh");
	all_kept(1);
	for (uint32_t i = 1; i < KEPT; i += 2)
		pool_free(slots[i]);
	for (uint32_t i = 0; i < 300; i++)
		must_put(NOISE, 5000 + i, i, CODEC_RAW);
	pool_compact(1000);
	with_child(true, grandchild);
	all_kept(2);
}

static void inherited(void)
{
	uint64_t bytes;

	open_pool(256 * MIB);
	put_kept();
	bytes = pool_bytes();
	with_child(true, heir);
	CHECK(pool_bytes() == bytes);
	all_kept(1);
	for (uint32_t i = 0; i < KEPT; i++)
		pool_free(slots[i]);
	CHECK(pool_bytes() == 0);
}

/* The parent drops and replaces while the child still reads. */
static void parent_goes_on(void)
{
	int up[2], status = 0;
	char c = 0;
	pid_t pid;

	open_pool(256 * MIB);
	put_kept();
	CHECK(!pipe(up));
	pool_fork_open();
	pid = fork();
	if (!pid) {
		alarm(60);
		pool_fork_child(true);
		CHECK(read(up[0], &c, 1) == 1);
		all_kept(1);
		_exit(0);
	}
	pool_fork_close();
	for (uint32_t i = 0; i < KEPT; i++)
		pool_free(slots[i]);
	for (uint32_t i = 0; i < KEPT; i++)
		must_put(NOISE, 1 + i * 997, i + 1000, CODEC_RAW);
	CHECK(write(up[1], &c, 1) == 1);
	CHECK(waitpid(pid, &status, 0) == pid && !status);
}

static void starts_anew(void)
{
	CHECK(pool_bytes() == 0 && pool_raw_bytes() == 0 && pool_packed_bytes() == 0);
	CHECK(!pool_open(256 * MIB));
	pool_limit(256 * MIB);
	put_kept();
	all_kept(1);
	with_child(true, heir);
}

static void disinherited(void)
{
	open_pool(256 * MIB);
	put_kept();
	with_child(false, starts_anew);
	all_kept(1);
	put_kept();
}

/* A child behind our back: no memory there, rather than old or zero bytes. */
static void stray_child(void)
{
	int status = 0;
	pid_t pid;
	uint32_t n;
	const volatile uint8_t *p;

	open_pool(256 * MIB);
	p = pool_at(must_put(NOISE, 5000, 1, CODEC_RAW), &n);
	pid = fork();
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		_exit(*p);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

/* Its addresses were taken by somebody else: no pool, and nothing breaks. */
static void addresses_lost(void)
{
	int status = 0;
	pid_t pid;
	uint32_t n, slot;
	void *p;

	open_pool(256 * MIB);
	put_kept();
	p = (void *)chunk_down((uintptr_t)pool_at(slots[0], &n));
	mem_fork_prepare();
	pid = fork();
	if (!pid) {
		mem_fork_child();
		CHECK(mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS |
			   MAP_FIXED_NOREPLACE, -1, 0) == p);
		pool_fork_child(false);
		CHECK(pool_open(256 * MIB) == -ENODEV);
		pool_limit(MIB);
		fill(in, 4096, TEXT, 1);
		CHECK(put(4096, CODEC_LZ4, &slot) == -ENOSPC);
		CHECK(pool_bytes() == 0);
		_exit(0);
	}
	mem_fork_parent();
	CHECK(waitpid(pid, &status, 0) == pid && !status);
}

CASE_NO_TSAN(inherited)
CASE(parent_goes_on)
CASE_NO_TSAN(disinherited)
CASE(stray_child)
CASE_NO_TSAN(addresses_lost)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inherited),
		cmocka_unit_test(test_parent_goes_on),
		cmocka_unit_test(test_disinherited),
		cmocka_unit_test(test_stray_child),
		cmocka_unit_test(test_addresses_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
