/* SPDX-License-Identifier: MIT */
/* test_frames.c - what is counted as held: frames with memory behind them, and no others.
 * Owns an arena. Lock: none. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>

#include "core/core_int.h"

#define FRAMES	8u

static uint64_t resident(void)
{
	static unsigned char vec[FRAMES * CHUNK / PAGE];
	uint64_t pages = 0;

	assert_int_equal(mincore(frames_at(0), sizeof(vec) * PAGE, vec), 0);
	for (size_t i = 0; i < sizeof(vec); i++)
		pages += vec[i] & 1;
	return pages * PAGE;
}

static void counted(uint32_t all, uint32_t filled)
{
	assert_int_equal(frames_bytes(), all * CHUNK);
	assert_int_equal(frames_filled_bytes(), filled * CHUNK);
	assert_int_equal(resident(), filled * CHUNK);
}

static void test_counted(void **state)
{
	uint32_t slot[FRAMES];
	bool used;

	(void)state;
	for (uint32_t i = 0; i < FRAMES; i++) {
		slot[i] = frames_get(&used);
		assert_false(used);
		counted(i + 1, i);
		memset(frames_at(slot[i]), 1, CHUNK);
		frames_filled(slot[i]);
		frames_filled(slot[i]);
		counted(i + 1, i + 1);
	}
	frames_put(slot[0], true);	/* given back */
	counted(FRAMES - 1, FRAMES - 1);
	slot[0] = frames_get(&used);
	counted(FRAMES, FRAMES - 1);
	frames_put(slot[0], true);	/* never filled */
	counted(FRAMES - 1, FRAMES - 1);
	frames_put(slot[1], false);	/* warm: its memory is still there */
	counted(FRAMES - 1, FRAMES - 1);
	slot[1] = frames_get(&used);
	assert_true(used);
	counted(FRAMES - 1, FRAMES - 1);
	slot[0] = frames_get_bare();	/* what moves in brings its memory along */
	assert_int_equal(frames_filled_bytes(), FRAMES * CHUNK);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_counted) };

	if (mem_init() || frames_open(FRAMES * CHUNK))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
