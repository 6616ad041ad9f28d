/* SPDX-License-Identifier: MIT */
/* test_fuzz.c - the fuzzers' inputs (tests/fuzz/corpus), through the same
 * functions, without a fuzzer.
 *
 * Owns nothing. (1) Each input is read without a fault, alike by all instruction
 * sets. (2) Of each folder's some are good images, and some are not, or it would
 * not be worth replaying. Lock: none. Runs in the repository's root.
 */
#include "pack_test.h"
#include "tests/fuzz/harness.h"

#include <dirent.h>

#define QUANT 100

/* Replays dir/name; whether it was an image. */
static int replay(const char *dir, const char *name, int kind)
{
	static uint8_t data[1 << 16];
	char path[400];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "r");
	assert_non_null(f);
	n = fread(data, 1, sizeof(data), f);
	fclose(f);
	if (kind == QUANT)
		return fuzz_quant(data, n);
	return kind < 0 ? fuzz_head(data, n) : fuzz_fx((enum fx_kind)kind, data, n);
}

/* kind: of FX, or QUANT, or -1: whole images. */
static void folder(const char *name, int kind)
{
	int good = 0, all = 0;
	struct dirent *e;
	char dir[64];
	DIR *d;

	snprintf(dir, sizeof(dir), "tests/fuzz/corpus/%s", name);
	d = opendir(dir);
	assert_non_null(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.') {
			good += replay(dir, e->d_name, kind);
			all++;
		}
	closedir(d);
	assert_true(good >= 4);
	assert_true(all > good);
}

static void test_bf16(void **state)
{
	folder("bf16", FX_BF16);
}

static void test_fp16(void **state)
{
	folder("fp16", FX_FP16);
}

static void test_fp32(void **state)
{
	folder("fp32", FX_FP32);
}

static void test_zmask(void **state)
{
	folder("zmask", FX_ZMASK);
}

static void test_quant(void **state)
{
	folder("quant", QUANT);
}

static void test_images(void **state)
{
	folder("image", -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bf16),
		cmocka_unit_test(test_fp16),
		cmocka_unit_test(test_fp32),
		cmocka_unit_test(test_zmask),
		cmocka_unit_test(test_quant),
		cmocka_unit_test(test_images),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
