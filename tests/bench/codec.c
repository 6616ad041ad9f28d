/* SPDX-License-Identifier: MIT */
/* codec.c - what packing costs and saves, beside copying.
 *
 *     codec [PASSES [JSON]]
 *
 * Packs and unpacks 2 MiB chunks of several kinds of data by each codec that
 * makes anything of them: ours by each instruction set this CPU has, LZ4, zstd
 * at three levels, and blosc where its library is there. Then puts them into
 * the pool and gets them out by the codec that is chosen for them, hash, copy
 * and memory from the kernel included. Prints the ratio, GB/s of raw bytes, and
 * those as multiples of what memcpy and a copy by non-temporal stores did on the
 * same chunks. JSON: a file that gets a line per row; "size" is the inverse of
 * the ratio.
 *
 * 1. One thread, and its own time: other load on the machine costs less. The
 *    data is larger than the caches: each pass walks all of it.
 * 2. Copies are measured before each row; medians of PASSES (5).
 * 3. Every row is checked: what comes back is what went in.
 */
#include "core/codec.h"
#include "core/core_int.h"
#include "core/fx.h"
#include "core/pool.h"

#include "codec_data.h"

#include <dlfcn.h>
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <zstd.h>

#define CHUNKS	32
#define BYTES	(CHUNKS * (size_t)CHUNK)
#define MAX_PASSES 101
#define LEVELS	(OPT_SIMD_AVX512 + 1)

/* A way to pack. */
struct way {
	const char *name;
	ssize_t (*pack)(const struct way *y, void *dst, size_t cap, const void *src);
	int (*unpack)(const struct way *y, void *dst, const void *src, size_t n);
	const struct codec *codec;
	struct codec_work *work;
	int level;		/* zstd's; blosc: bytes of a value */
};

static uint8_t *data, *back, *images;
static size_t image_len[CHUNKS];
static uint32_t slot[CHUNKS];
static struct codec_work *work[LEVELS];		/* by instruction set; NULL: none */
static const char *const levels[LEVELS] = { "", "portable", "avx2", "avx512" };
static FILE *json;
static int passes = 5;

static uint8_t *chunk(uint8_t *in, size_t k)
{
	return in + k * CHUNK;
}

static uint8_t *image(size_t k)
{
	return images + k * (2 * CHUNK);
}

/* ---- ways ------------------------------------------------------------------------- */

static ssize_t pack_codec(const struct way *y, void *dst, size_t cap, const void *src)
{
	return y->codec->pack(y->work, dst, cap, src, CHUNK);
}

static int unpack_codec(const struct way *y, void *dst, const void *src, size_t n)
{
	return y->codec->unpack(y->work, dst, CHUNK, src, n);
}

static ssize_t pack_zstd(const struct way *y, void *dst, size_t cap, const void *src)
{
	static ZSTD_CCtx *ctx;

	ctx = ctx ? ctx : ZSTD_createCCtx();
	return (ssize_t)ZSTD_compressCCtx(ctx, dst, cap, src, CHUNK, y->level);
}

static int unpack_zstd(const struct way *y, void *dst, const void *src, size_t n)
{
	static ZSTD_DCtx *ctx;

	ctx = ctx ? ctx : ZSTD_createDCtx();
	return ZSTD_decompressDCtx(ctx, dst, CHUNK, src, n) != CHUNK;
}

/* Its own symbols: what it brings of LZ4 and zstd must not be ours. */
static int (*blosc_compress)(int clevel, int shuffle, size_t value, size_t len,
			     const void *src, void *dst, size_t cap,
			     const char *codec, size_t block, int threads);
static int (*blosc_decompress)(const void *src, void *dst, size_t cap, int threads);

static void find_blosc(void)
{
	void *so = dlopen("libblosc.so.1", RTLD_NOW | RTLD_LOCAL);

	if (!so) {
		puts("codec: no blosc here (Debian's libblosc1): its rows are left out");
		return;
	}
	*(void **)&blosc_compress = dlsym(so, "blosc_compress_ctx");
	*(void **)&blosc_decompress = dlsym(so, "blosc_decompress_ctx");
}

/* Bits shuffled, then LZ4: its best for floats. */
static ssize_t pack_blosc(const struct way *y, void *dst, size_t cap, const void *src)
{
	return blosc_compress(5, 2, (size_t)y->level, CHUNK, src, dst, cap, "lz4", 0, 1);
}

static int unpack_blosc(const struct way *y, void *dst, const void *src, size_t n)
{
	return blosc_decompress(src, dst, CHUNK, 1) != (int)CHUNK;
}

/* ---- measuring -------------------------------------------------------------------- */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* GB/s of raw bytes, the median of some passes over all chunks. */
static double speed(void (*one)(size_t k, const struct way *), const struct way *y)
{
	double s[MAX_PASSES];

	for (int i = 0; i < passes; i++) {
		s[i] = seconds();
		for (size_t k = 0; k < CHUNKS; k++)
			one(k, y);
		s[i] = seconds() - s[i];
	}
	qsort(s, (size_t)passes, sizeof(*s), by_value);
	return (double)BYTES / s[passes / 2] * 1e-9;
}

static void copy(size_t k, const struct way *y)
{
	memcpy(chunk(back, k), chunk(data, k), CHUNK);
}

/* Without reading what is to be overwritten. */
static void copy_past(size_t k, const struct way *y)
{
	const __m128i *from = (const __m128i *)chunk(data, k);
	__m128i *to = (__m128i *)chunk(back, k);

	for (size_t i = 0; i < CHUNK / sizeof(*to); i += 4)
		for (size_t j = i; j < i + 4; j++)
			_mm_stream_si128(to + j, _mm_load_si128(from + j));
	_mm_sfence();
}

static void pack(size_t k, const struct way *y)
{
	ssize_t n = y->pack(y, image(k), 2 * CHUNK, chunk(data, k));

	image_len[k] = n < 0 ? 0 : (size_t)n;
}

static void unpack(size_t k, const struct way *y)
{
	if (y->unpack(y, chunk(back, k), image(k), image_len[k]))
		abort();
}

static void judge(size_t k, const struct way *y)
{
	if (!codec_choose(y->work, chunk(data, k), CHUNK, k + 1, POL_DT_OTHER))
		abort();
}

static void put(size_t k, const struct way *y)
{
	const uint8_t *p = chunk(data, k);
	ssize_t n;

	if (slot[k] != POOL_NONE)
		pool_free(slot[k]);
	n = codec_image_pack(y->work, y->codec, image(k), codec_worth(CHUNK), p, CHUNK);
	slot[k] = POOL_NONE;
	if (n > 0 && pool_put(image(k), (uint32_t)n, CHUNK, &slot[k]))
		abort();
}

static void get(size_t k, const struct way *y)
{
	if (pool_get(slot[k], chunk(back, k), CHUNK))
		abort();
}

/* ---- rows ---------------------------------------------------------------------------- */

struct speeds { double memcpy_, past, in, out; };

static void copies(struct speeds *s)
{
	s->memcpy_ = speed(copy, NULL);
	s->past = speed(copy_past, NULL);
}

static void tell(const char *kind, const char *what, double ratio, const struct speeds *s)
{
	printf("%-16s %-14s %9.3f %7.2f %6.2f %7.2f %6.2f %6.2f\n", kind, what, ratio,
	       s->in, s->in / s->memcpy_, s->out, s->out / s->memcpy_, s->out / s->past);
	fflush(stdout);
	if (json)
		fprintf(json, "{\"data\": \"%s\", \"codec\": \"%s\", \"size\": %.6f, "
			"\"pack_gbs\": %.3f, \"unpack_gbs\": %.3f, \"memcpy_gbs\": %.3f, "
			"\"nt_copy_gbs\": %.3f}\n", kind, what, 1 / ratio, s->in, s->out,
			s->memcpy_, s->past);
}

static void must_be_right(void)
{
	if (memcmp(data, back, BYTES)) {
		fputs("codec: the bytes came back wrong\n", stderr);
		exit(1);
	}
}

/* The ratio, or 0: it makes nothing of them. */
static double ratio_of(const struct way *y)
{
	size_t n = 0;

	for (size_t k = 0; k < CHUNKS; k++) {
		ssize_t got = y->pack(y, image(k), 2 * CHUNK, chunk(data, k));

		if (got < 0)
			return 0;
		n += (size_t)got;
	}
	return n ? (double)BYTES / (double)n : INFINITY;
}

static void one_way(const char *kind, const struct way *y)
{
	double ratio = ratio_of(y);
	struct speeds s;

	if (ratio < (y->codec ? 1.02 : 0.5))
		return;
	copies(&s);
	s.in = speed(pack, y);
	memset(back, 1, BYTES);
	s.out = speed(unpack, y);
	must_be_right();
	tell(kind, y->name, ratio, &s);
}

/* By each instruction set if it is the one for such data. */
static void one_codec(const char *kind, const struct codec *c, const struct codec *chosen)
{
	bool ours = c->cost != NULL;
	char name[32];

	for (int l = LEVELS - 1; l > 0; l--) {
		struct way y = { name, pack_codec, unpack_codec, c, work[l], 0 };

		if (!work[l])
			continue;
		snprintf(name, sizeof(name), ours ? "%s %s" : "%s", c->name, levels[l]);
		one_way(kind, &y);
		if (!ours || c != chosen)
			return;
	}
}

/* As the pager uses it; the first pass finds no slot to free. */
static void whole_way(const char *kind)
{
	struct way y = { .work = work[OPT_SIMD_AUTO] };
	struct speeds s;
	double ratio, us = 1e6 * CHUNK / (speed(judge, &y) * 1e9);
	char name[32];

	y.codec = codec_choose(y.work, data, CHUNK, 1, POL_DT_OTHER);
	printf("%-16s chosen: %s, in %.0f us\n", kind, y.codec->name, us);
	memset(slot, 0xff, sizeof(slot));
	copies(&s);
	s.in = speed(put, &y);
	if (slot[0] == POOL_NONE)
		return;		/* saves less than the pool wants */
	ratio = (double)pool_raw_bytes() / (double)pool_bytes();
	memset(back, 1, BYTES);
	s.out = speed(get, &y);
	must_be_right();
	for (size_t k = 0; k < CHUNKS; k++)
		pool_free(slot[k]);
	snprintf(name, sizeof(name), "pool: %s", y.codec->name);
	tell(kind, name, ratio, &s);
}

static void one_kind(const struct data_kind *kind)
{
	static const struct way others[] = {
		{ "zstd -1", pack_zstd, unpack_zstd, NULL, NULL, -1 },
		{ "zstd 1", pack_zstd, unpack_zstd, NULL, NULL, 1 },
		{ "zstd 3", pack_zstd, unpack_zstd, NULL, NULL, 3 },
		{ "blosc 2 lz4", pack_blosc, unpack_blosc, NULL, NULL, 2 },
		{ "blosc 4 lz4", pack_blosc, unpack_blosc, NULL, NULL, 4 },
	};

	const struct codec *chosen;

	kind->make(data, BYTES);
	chosen = codec_choose(work[OPT_SIMD_AUTO], data, CHUNK, 1, POL_DT_OTHER);
	for (uint8_t id = CODEC_ZERO; id < CODEC_IDS; id++)
		if (codec_by_id(id) && id != CODEC_ZSTD && id != CODEC_LZ4)
			one_codec(kind->name, codec_by_id(id), chosen);
	one_way(kind->name, &(struct way){ "lz4", pack_codec, unpack_codec,
		codec_by_id(CODEC_LZ4), work[OPT_SIMD_AUTO], 0 });
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (others[i].pack != pack_blosc || blosc_decompress)
			one_way(kind->name, &others[i]);
	whole_way(kind->name);
}

/* One working memory for each instruction set. */
static bool open_works(void)
{
	for (uint64_t l = LEVELS; l-- > 0;) {
		off_opt.simd = l;
		work[l] = !l || fx_level(l) ? codec_work_new() : NULL;
		if (!work[l] && !l)
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	if (argc > 1)
		passes = atoi(argv[1]);
	if (passes < 1 || passes > MAX_PASSES || argc > 3) {
		fputs("usage: codec [PASSES [JSON]]\n", stderr);
		return 2;
	}
	json = argc > 2 ? fopen(argv[2], "w") : NULL;
	data = reserve_range(BYTES);
	back = reserve_range(BYTES);
	images = reserve_range(2 * BYTES);
	if (!data || !back || !images || !open_works() || pool_open(2 * BYTES))
		return 1;
	madvise(data, BYTES, MADV_HUGEPAGE);
	madvise(back, BYTES, MADV_HUGEPAGE);
	madvise(images, 2 * BYTES, MADV_HUGEPAGE);
	memset(back, 1, BYTES);
	pool_limit(2 * BYTES);
	find_blosc();
	printf("%-16s %-14s %9s %7s %6s %7s %6s %6s   GB/s of raw bytes; x: times memcpy, nt: "
	       "times a copy by non-temporal stores\n",
	       "data", "codec", "ratio", "pack", "x", "unpack", "x", "nt");
	for (size_t i = 0; i < DATA_KINDS; i++) {
		data_state = 88172645463325252ull + i;
		one_kind(&data_kinds[i]);
	}
	return json ? fclose(json) != 0 : 0;
}
