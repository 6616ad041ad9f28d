/* SPDX-License-Identifier: MIT */
/* test_trial.c - what offctl plan asks of core: a file's header, and packing
 * tried on a chunk.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/header.h"
#include "core/trial.h"

static void fill(uint8_t *p, size_t len, const char *text)
{
	uint64_t x = 88172645463325252ull;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = text ? (uint8_t)text[i % strlen(text)] : (uint8_t)x;
	}
}

static void what_pays_is_packed(void **state)
{
	uint8_t *chunk = calloc(1, TRIAL_MAX);
	struct trial *t = trial_new();
	struct trial_sum zeros = { 0 }, text = { 0 }, noise = { 0 };

	assert_non_null(t);
	trial_chunk(t, chunk, TRIAL_MAX, 0, &zeros);
	assert_int_equal(zeros.raw, TRIAL_MAX);
	assert_int_equal(zeros.unpacked, TRIAL_MAX);
	assert_true(zeros.held < 4096);
	fill(chunk, TRIAL_MAX, "one line of text after another ");
	for (int i = 0; i < 3; i++)
		trial_chunk(t, chunk, TRIAL_MAX, 0, &text);
	assert_int_equal(text.unpacked, 3 * TRIAL_MAX);
	assert_true(text.held < text.raw / 4 && text.unpack_ns > 0);
	fill(chunk, TRIAL_MAX, NULL);
	trial_chunk(t, chunk, TRIAL_MAX, 0, &noise);
	trial_chunk(t, chunk, 1, 0, &noise);
	assert_int_equal(noise.raw, TRIAL_MAX + 1);
	assert_int_equal(noise.held, noise.raw);
	assert_int_equal(noise.unpacked, 0);
	assert_int_equal(noise.unpack_ns, 0);
	trial_free(t);
	trial_free(NULL);
	free(chunk);
}

/* A GGUF with many long keys before one tensor: longer than the first read. */
static FILE *long_gguf(uint32_t keys, uint64_t *size)
{
	static const uint64_t tensors = 1, n = 4, ne = 32, off = 0;
	uint64_t kvs = keys, len = 1000;
	uint32_t version = 3, string = 8, dims = 1, f32 = 0;
	static char key[1000];
	FILE *f = tmpfile();

	assert_non_null(f);
	memset(key, 'k', sizeof(key));
	fwrite("GGUF", 4, 1, f);
	fwrite(&version, 4, 1, f);
	fwrite(&tensors, 8, 1, f);
	fwrite(&kvs, 8, 1, f);
	for (uint32_t i = 0; i < keys; i++) {
		fwrite(&len, 8, 1, f);
		fwrite(key, 1000, 1, f);
		fwrite(&string, 4, 1, f);
		fwrite(&len, 8, 1, f);
		fwrite(key, 1000, 1, f);
	}
	fwrite(&n, 8, 1, f);
	fwrite("name", 4, 1, f);
	fwrite(&dims, 4, 1, f);
	fwrite(&ne, 8, 1, f);
	fwrite(&f32, 4, 1, f);
	fwrite(&off, 8, 1, f);
	*size = ((uint64_t)ftell(f) + 31) / 32 * 32 + 128;
	fflush(f);
	assert_int_equal(ftruncate(fileno(f), (off_t)*size), 0);
	return f;
}

static void headers_are_read_to_their_end(void **state)
{
	struct header h;
	uint64_t size;
	FILE *f = long_gguf(3000, &size);	/* 6 MB */

	assert_int_equal(header_read(fileno(f), size, &h), 0);
	assert_int_equal(h.n_spans, 1);
	assert_int_equal(h.spans[0].len, 128);
	assert_int_equal(h.spans[0].off, size - 128);
	assert_memory_equal((char *)h.text + h.spans[0].name_off, "name", 4);
	header_free(&h);
	assert_int_equal(header_read(fileno(f), size - 1, &h), -EBADMSG);
	assert_int_equal(h.want, size);
	assert_null(h.spans);
	header_free(&h);
	assert_int_equal(header_read(fileno(f), 0, &h), -EBADMSG);
	header_free(&h);
	assert_int_equal(header_read(-1, size, &h), -EIO);
	header_free(&h);
	fclose(f);
}

static void endless_headers_are_not(void **state)
{
	struct header h;
	uint64_t size;
	FILE *f = long_gguf(40000, &size);	/* 80 MB */

	assert_int_equal(header_read(fileno(f), size, &h), -EFBIG);
	header_free(&h);
	fclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_pays_is_packed),
		cmocka_unit_test(headers_are_read_to_their_end),
		cmocka_unit_test(endless_headers_are_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
