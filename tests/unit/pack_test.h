/* SPDX-License-Identifier: MIT */
/* pack_test.h - what the tests of codecs and pool share: kinds of data, and
 * buffers that end where nothing is mapped.
 *
 * Owns a random number. (1) Data depends on kind, length and seed alone. (2) A
 * byte read or written past a guarded buffer is a SIGSEGV, in code that no
 * sanitizer sees too; before it lie bytes that are looked at. Lock: none.
 */
#ifndef OFFLOAD_PACK_TEST_H
#define OFFLOAD_PACK_TEST_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/codec.h"
#include "core/core_int.h"

enum kind { ZEROS, TEXT, FLOATS, NOISE, SPARSE, KINDS };

static uint64_t test_seed = 1;

static inline uint64_t rnd(void)
{
	test_seed ^= test_seed >> 12;
	test_seed ^= test_seed << 25;
	test_seed ^= test_seed >> 27;
	return test_seed * 0x2545f4914f6cdd1dull;
}

static inline uint32_t below(uint32_t n)
{
	return (uint32_t)((rnd() >> 32) * n >> 32);
}

static inline uint8_t text_byte(size_t i)
{
	static const char *const words[] = { "the ", "layer ", "of ", "weights ",
		"is ", "read ", "once ", "a ", "token, ", "and ", "then ", "again\n" };
	static const char *at = "";

	if (!i || !*at)
		at = words[below(12)];
	return (uint8_t)*at++;
}

/* bf16 of about normal numbers, as a KV cache holds them. */
static inline uint16_t float_bits(void)
{
	int32_t sum = 0;
	float f;
	uint32_t u;

	for (int i = 0; i < 6; i++)
		sum += (int32_t)below(65536) - 32768;
	f = (float)sum * 1e-5f;
	memcpy(&u, &f, 4);
	return (uint16_t)(u >> 16);
}

/* Only ZEROS is nothing but zeros. */
static inline void fill(uint8_t *p, size_t len, enum kind kind, uint64_t seed)
{
	test_seed = seed * 2654435761u + 1;
	memset(p, 0, len);
	if (kind == TEXT)
		for (size_t i = 0; i < len; i++)
			p[i] = text_byte(i);
	if (kind == FLOATS)
		for (size_t i = 0; i + 1 < len; i += 2)
			memcpy(p + i, &(uint16_t){ float_bits() }, 2);
	if (kind == NOISE)
		for (size_t i = 0; i < len; i++)
			p[i] = (uint8_t)(rnd() >> 56);
	if (kind == SPARSE)
		for (size_t i = 0; i < len / 100 + 1; i++)
			p[below((uint32_t)len)] = (uint8_t)(1 + below(255));
	p[0] |= kind != ZEROS;
}

/* ---- guarded buffers ----------------------------------------------------------- */

#define CANARY 0xa5
#define GUARDED_MAX (2 * CHUNK)

/* Room for GUARDED_MAX bytes, then nothing. */
static inline uint8_t *guarded_new(void)
{
	uint8_t *p = mmap(NULL, GUARDED_MAX + 2 * PAGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mprotect(p, GUARDED_MAX + PAGE, PROT_READ | PROT_WRITE), 0);
	memset(p, CANARY, GUARDED_MAX + PAGE);
	return p + GUARDED_MAX + PAGE;
}

static inline void guarded_free(uint8_t *end)
{
	munmap(end - GUARDED_MAX - PAGE, GUARDED_MAX + 2 * PAGE);
}

/* The last n bytes of it; what lies before them is made recognisable. */
static inline uint8_t *last(uint8_t *end, size_t n)
{
	memset(end - n - 64, CANARY, 64);
	return end - n;
}

static inline bool untouched_before(const uint8_t *p)
{
	for (int i = 1; i <= 64; i++)
		if (p[-i] != CANARY)
			return false;
	return true;
}

/* Bytes the calling thread ever got from the library's own heap. */
int off_je_mallctl(const char *name, void *old, size_t *old_len, void *now,
		   size_t now_len);

static inline uint64_t ever_allocated(void)
{
	uint64_t n = 0;
	size_t len = sizeof(n);

	assert_int_equal(off_je_mallctl("thread.allocated", &n, &len, NULL, 0), 0);
	return n;
}

#endif
