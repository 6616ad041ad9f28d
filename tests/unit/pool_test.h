/* SPDX-License-Identifier: MIT */
/* pool_test.h - what the tests of the pool share.
 *
 * Owns a chunk of data, room for another and for an image, and the numbers of
 * slots. Every case runs in a process of its own: it begins with a pool that was
 * never opened.
 * Lock: none.
 */
#ifndef OFFLOAD_POOL_TEST_H
#define OFFLOAD_POOL_TEST_H

#include "pack_test.h"

#include <sys/wait.h>

#include "core/pool.h"
#include "sanitized.h"

#define MIB (1ull << 20)

/* For the case's processes, which cmocka does not know. */
#define CHECK(x) \
	do { \
		if (!(x)) { \
			fprintf(stderr, "%s:%d: not (%s)\n", __FILE__, __LINE__, #x); \
			_exit(1); \
		} \
	} while (0)

static uint8_t *in, *out;	/* CODEC_MAX each */
static uint8_t *image;
static struct codec_work *packer;
static uint32_t slots[100000];	/* the cases' own */

/* The first len bytes of `in`, packed, go to the pool. */
static inline int put(uint32_t len, uint8_t codec, uint32_t *slot)
{
	ssize_t n = codec_image_pack(packer, codec_by_id(codec), image,
				     CODEC_MAX + sizeof(struct codec_head), in, len);

	CHECK(n > 0);
	return pool_put(image, (uint32_t)n, len, slot);
}

static inline uint32_t must_put(enum kind kind, uint32_t len, uint64_t seed, uint8_t codec)
{
	uint32_t slot = POOL_NONE;

	fill(in, len, kind, seed);
	CHECK(!put(len, codec, &slot));
	CHECK(slot != POOL_NONE);
	return slot;
}

static inline bool holds(uint32_t slot, enum kind kind, uint32_t len, uint64_t seed)
{
	fill(in, len, kind, seed);
	memset(out, ~in[0], len);
	return !pool_get(slot, out, len) && !memcmp(in, out, len);
}

static inline void open_pool(uint64_t limit)
{
	CHECK(!pool_open(1024 * MIB));
	pool_limit(limit);
}

/* Runs one case and expects it to leave well. */
static inline void alone(void (*one)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		alarm(120);
		in = reserve_range(CODEC_MAX);
		out = reserve_range(CODEC_MAX);
		image = reserve_range(CODEC_MAX + sizeof(struct codec_head));
		packer = codec_work_new();
		CHECK(in && out && image && packer);
		one();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* Of the mapping with addr in it: Rss in bytes, and whether all flags are set. */
static inline uint64_t resident(const void *addr, const char *flags)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	uint64_t lo, hi, kib, rss = 0;
	bool here = false;

	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &lo, &hi) == 2)
			here = (uintptr_t)addr >= lo && (uintptr_t)addr < hi;
		else if (here && sscanf(line, "Rss: %lu kB", &kib) == 1)
			rss = kib << 10;
		else if (here && !strncmp(line, "VmFlags:", 8))
			for (; *flags; flags += 2)
				CHECK(strstr(line, (char[]){ ' ', flags[0], flags[1], 0 }));
	}
	fclose(f);
	return rss;
}

#define CASE(name) \
	static void test_##name(void **state) { alone(name); }
/* TSan has memory of its own for ours, and counts at most 64 held locks. */
#define CASE_NO_TSAN(name) \
	static void test_##name(void **state) \
	{ \
		if (TSAN) \
			skip(); \
		alone(name); \
	}

#endif
