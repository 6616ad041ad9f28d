/* SPDX-License-Identifier: MIT */
/* test_seal.c - encryption of what is spilled (core/seal.h).
 *
 * (1) What was sealed opens to the same bytes, and nothing that was changed does,
 *     wherever the change is. (2) A key is random, not dumped, and wiped; no number is
 *     given out twice for one. Lock: none.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "core/core_int.h"
#include "core/seal.h"

#define LEN (2u << 20)

static uint8_t text[LEN], out[LEN], back[LEN];
static uint8_t state[SEAL_STATE] __attribute__((aligned(64)));

static void fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i * 7 + (i >> 9));
}

static void made(const struct seal_ops *ops, struct seal *s, size_t len)
{
	fill(text, len);
	memset(out, 0, len);
	ops->make(state, s, out, text, len);
	memcpy(back, out, len);
}

static void both_ways(const struct seal_ops *ops)
{
	static const size_t len[] = { 1, 15, 16, 4096, 4097, LEN };
	const uint8_t key[32] = { 1, 2, 3 };
	struct seal s = { .number = 9 }, other;

	if (!ops->here())
		skip();
	ops->ready(state, key);
	for (size_t i = 0; i < sizeof(len) / sizeof(len[0]); i++) {
		made(ops, &s, len[i]);
		assert_int_equal(ops->open(state, &s, back, len[i]), 0);
		assert_memory_equal(back, text, len[i]);
		for (size_t at = 0; at < len[i]; at = at * 3 + 1) {	/* a bit of it */
			memcpy(back, out, len[i]);
			back[at] ^= 0x20;
			assert_int_equal(ops->open(state, &s, back, len[i]), -EBADMSG);
		}
	}
	made(ops, &s, LEN);
	assert_memory_not_equal(out, text, LEN);
	other = s;
	other.tag[15] ^= 1;
	assert_int_equal(ops->open(state, &other, back, LEN), -EBADMSG);
	other = s;
	other.number++;		/* put back as it once was */
	memcpy(back, out, LEN);
	assert_int_equal(ops->open(state, &other, back, LEN), -EBADMSG);
	ops->make(state, &other, back, text, LEN);
	assert_memory_not_equal(back, out, 64);
	memcpy(back, text, LEN);		/* where it is */
	ops->make(state, &s, back, back, LEN);
	assert_memory_equal(back, out, LEN);
}

static void aes(void **unused)
{
	both_ways(&seal_aes);
}

static void chacha(void **unused)
{
	both_ways(&seal_chacha);
}

/* The flags of the mapping with addr in it. */
static bool has_flag(const void *addr, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long lo, hi;
	bool here = false, found = false;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &lo, &hi) == 2)
			here = (uintptr_t)addr >= lo && (uintptr_t)addr < hi;
		else if (here && !strncmp(line, "VmFlags:", 8))
			found = strstr(line, flag) != NULL;
	}
	fclose(f);
	return found;
}

static bool dumped_nowhere(void)
{
	return has_flag(seal_key_state(1), " dd");
}

static void keys(void **unused)
{
	struct seal a = { 0 }, b = { 0 };

	assert_int_equal(seal_key_new(0), 0);
	assert_int_equal(seal_key_new(1), 0);
	assert_true(dumped_nowhere());
	for (uint64_t i = 1; i < 1000; i++)
		assert_int_equal(seal_number(0), i);
	a.number = seal_number(0);
	b.number = a.number;
	fill(text, LEN);
	seal_make(0, &a, out, text, LEN);
	seal_make(1, &b, back, text, LEN);
	assert_memory_not_equal(out, back, 64);		/* two keys */
	assert_int_equal(seal_open(0, &b, back, LEN), -EBADMSG);
	assert_int_equal(seal_open(0, &a, out, LEN), 0);
	assert_memory_equal(out, text, LEN);
	a.number = 0;
	assert_int_equal(seal_open(0, &a, out, LEN), -EBADMSG);
}

static void wiped(void **unused)
{
	const uint8_t *at = seal_key_state(1);
	uint8_t none[SEAL_STATE] = { 0 };

	assert_memory_not_equal(at, none, SEAL_STATE);
	seal_key_drop(1);
	assert_memory_equal(at, none, SEAL_STATE);
	seal_key_drop(1);
	assert_int_equal(seal_key_new(1), 0);		/* another one */
	assert_int_equal(seal_number(1), 1);
	seal_key_drop(1);
	seal_key_drop(0);
}

static void rooms(void **unused)
{
	char *at[4];

	for (uint32_t i = 0; i < 4; i++) {
		at[i] = seal_room(100 + i);
		assert_non_null(at[i]);
		assert_int_equal((uintptr_t)at[i] % 4096, 0);
	}
	assert_null(seal_room(7));
	seal_give(7);
	assert_null(seal_room(7));
	seal_give(102);
	assert_ptr_equal(seal_room(7), at[2]);
	assert_true(has_flag(at[0], " dc"));		/* no child has it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(aes),
		cmocka_unit_test(chacha),
		cmocka_unit_test(keys),
		cmocka_unit_test(wiped),
		cmocka_unit_test(rooms),
	};

	if (seal_init())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
