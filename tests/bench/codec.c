/* SPDX-License-Identifier: MIT */
/* codec.c - what packing costs and saves, beside memcpy.
 *
 *     codec [PASSES [JSON]]
 *
 * Packs and unpacks 2 MiB chunks of several kinds of data by each codec, and
 * puts them into the pool and gets them out by the codec that is chosen for
 * them, hash, copy and memory from the kernel included. Prints the ratio, GB/s
 * of raw bytes, and those as multiples of what memcpy did on the same chunks.
 * JSON: a file that gets a line per row; "size" is the inverse of the ratio.
 *
 * 1. One thread. The data is larger than the caches: each pass walks all of it.
 * 2. memcpy is measured before each row; medians of PASSES (5).
 * 3. All data is made here from a fixed seed. It is like the real thing in the
 *    statistics that packing lives on, and no more.
 */
#include "core/codec.h"
#include "core/core_int.h"
#include "core/pool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CHUNKS	32
#define BYTES	(CHUNKS * (size_t)CHUNK)
#define MAX_PASSES 101

static uint8_t *data, *back, *images;
static size_t image_len[CHUNKS];
static struct codec_work *work;
static FILE *json;
static int passes = 5;

/* ---- data ---------------------------------------------------------------------- */

static uint64_t state;

static uint64_t rnd(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dull;
}

static double uniform(void)
{
	return ((double)(rnd() >> 11) + 0.5) / 9007199254740992.0;
}

static double gauss(void)
{
	return sqrt(-2 * log(uniform())) * cos(2 * M_PI * uniform());
}

static uint32_t bits_of(double x)
{
	float f = (float)x;
	uint32_t u;

	memcpy(&u, &f, 4);
	return u;
}

static uint16_t bf16(double x)
{
	return (uint16_t)((bits_of(x) + 0x8000) >> 16);
}

static void make_zeros(uint8_t *p)
{
	memset(p, 0, BYTES);
}

static void make_random(uint8_t *p)
{
	for (size_t i = 0; i < BYTES / 8; i++)
		((uint64_t *)p)[i] = rnd();
}

/* 4000 words of 2 to 9 letters, the k-th as frequent as 1/k. */
static void make_text(uint8_t *p)
{
	static char word[4000][10];

	for (int k = 0; k < 4000; k++)
		for (int i = 0, n = 2 + (int)(rnd() % 8); i < n; i++)
			word[k][i] = (char)('a' + (int)(26 * uniform() * uniform()));
	for (size_t at = 0; at < BYTES;) {
		const char *w = word[(int)pow(4000, uniform()) - 1];
		size_t n = strlen(w);

		for (size_t i = 0; i < n && at < BYTES; i++)
			p[at++] = (uint8_t)w[i];
		if (at < BYTES)
			p[at++] = rnd() % 12 ? ' ' : '\n';
	}
}

/* Rows of 1024 channels, each of a scale of its own, some far out. */
static void make_kv(uint8_t *p)
{
	double scale[1024];

	for (int i = 0; i < 1024; i++)
		scale[i] = exp(0.8 * gauss()) * (rnd() % 50 ? 1 : 20);
	for (size_t i = 0; i < BYTES / 2; i++)
		((uint16_t *)p)[i] = bf16(gauss() * scale[i % 1024]);
}

/* The same, filled by half: each block of 32 KiB is for 16 tokens. */
static void make_kv_half(uint8_t *p)
{
	make_kv(p);
	for (size_t i = 0; i < BYTES; i += 32768)
		memset(p + i + 16384, 0, 16384);
}

static void make_bf16(uint8_t *p)
{
	for (size_t i = 0; i < BYTES / 2; i++)
		((uint16_t *)p)[i] = bf16(0.02 * gauss());
}

/* bf16 weights that the program keeps as fp32. */
static void make_upcast(uint8_t *p)
{
	for (size_t i = 0; i < BYTES / 4; i++)
		((uint32_t *)p)[i] = (uint32_t)bf16(0.02 * gauss()) << 16;
}

static void make_fp32(uint8_t *p)
{
	for (size_t i = 0; i < BYTES / 4; i++)
		((uint32_t *)p)[i] = bits_of(0.02 * gauss());
}

/* An activation: half of it is nothing. */
static void make_relu(uint8_t *p)
{
	for (size_t i = 0; i < BYTES / 2; i++)
		((uint16_t *)p)[i] = rnd() & 1 ? bf16(gauss()) : 0;
}

static const struct kind {
	const char *name;
	void (*make)(uint8_t *p);
} kinds[] = {
	{ "zeros", make_zeros },
	{ "text", make_text },
	{ "KV bf16", make_kv },
	{ "KV, half filled", make_kv_half },
	{ "weights bf16", make_bf16 },
	{ "weights fp32", make_fp32 },
	{ "bf16 in fp32", make_upcast },
	{ "bf16, half zeros", make_relu },
	{ "random", make_random },
};

/* ---- measuring -------------------------------------------------------------------- */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* GB/s of raw bytes, the median of some passes over all chunks. */
static double speed(void (*one)(size_t k, const struct codec *), const struct codec *c)
{
	double s[MAX_PASSES];

	for (int i = 0; i < passes; i++) {
		s[i] = seconds();
		for (size_t k = 0; k < CHUNKS; k++)
			one(k, c);
		s[i] = seconds() - s[i];
	}
	qsort(s, (size_t)passes, sizeof(*s), by_value);
	return (double)BYTES / s[passes / 2] * 1e-9;
}

static uint8_t *chunk(uint8_t *in, size_t k)
{
	return in + k * CHUNK;
}

static uint8_t *image(const struct codec *c, size_t k)
{
	return images + k * (2 * CHUNK);
}

static void copy(size_t k, const struct codec *c)
{
	memcpy(chunk(back, k), chunk(data, k), CHUNK);
}

static void pack(size_t k, const struct codec *c)
{
	ssize_t n = c->pack(work, image(c, k), 2 * CHUNK, chunk(data, k), CHUNK);

	image_len[k] = n < 0 ? 0 : (size_t)n;
}

static void unpack(size_t k, const struct codec *c)
{
	if (c->unpack(work, chunk(back, k), CHUNK, image(c, k), image_len[k]))
		abort();
}

static void judge(size_t k, const struct codec *c)
{
	if (!codec_choose(work, chunk(data, k), CHUNK, k + 1, POL_DT_OTHER))
		abort();
}

static uint32_t slot[CHUNKS];

static void put(size_t k, const struct codec *c)
{
	const uint8_t *p = chunk(data, k);
	ssize_t n;

	if (slot[k] != POOL_NONE)
		pool_free(slot[k]);
	n = codec_image_pack(work, c, image(c, k), 2 * CHUNK, p, CHUNK,
			     chunk_hash(p, CHUNK));
	if (n < 0 || pool_put(image(c, k), (uint32_t)n, CHUNK, &slot[k]))
		abort();
}

static void get(size_t k, const struct codec *c)
{
	if (pool_get(slot[k], chunk(back, k), CHUNK))
		abort();
}

static void tell(const char *kind, const char *what, double ratio, double in,
		 double out, double base)
{
	printf("%-17s %-10s %9.3f %8.2f %6.2f %9.2f %6.2f\n", kind, what, ratio,
	       in, in / base, out, out / base);
	if (json)
		fprintf(json, "{\"data\": \"%s\", \"codec\": \"%s\", \"size\": %.6f, "
			"\"pack_gbs\": %.3f, \"unpack_gbs\": %.3f, \"memcpy_gbs\": %.3f}\n",
			kind, what, 1 / ratio, in, out, base);
}

static void must_be_right(void)
{
	if (memcmp(data, back, BYTES)) {
		fputs("codec: the bytes came back wrong\n", stderr);
		exit(1);
	}
}

static void one_codec(const char *kind, const struct codec *c)
{
	double base = speed(copy, NULL), in = speed(pack, c), out;
	size_t n = 0;

	for (size_t k = 0; k < CHUNKS; k++)
		n += image_len[k];
	if (c->id != CODEC_ZERO && !n)
		return;
	if (c->id == CODEC_ZERO && c->pack(work, back, 0, data, CHUNK))
		return;
	memset(back, 1, BYTES);
	out = speed(unpack, c);
	must_be_right();
	tell(kind, c->name, n ? (double)BYTES / (double)n : INFINITY, in, out, base);
}

/* As the pager uses it; the first pass finds no slot to free. */
static void whole_way(const char *kind)
{
	const struct codec *c = codec_choose(work, data, CHUNK, 1, POL_DT_OTHER);
	double base = speed(copy, NULL), in, out, ratio, us = 1e6 * CHUNK /
		(speed(judge, NULL) * 1e9);
	char name[32];

	memset(slot, 0xff, sizeof(slot));
	in = speed(put, c);
	ratio = (double)pool_raw_bytes() / (double)pool_bytes();
	memset(back, 1, BYTES);
	out = speed(get, c);
	must_be_right();
	for (size_t k = 0; k < CHUNKS; k++)
		pool_free(slot[k]);
	snprintf(name, sizeof(name), "pool: %s", c->name);
	tell(kind, name, ratio, in, out, base);
	printf("%-17s %-10s chosen in %.0f us\n", "", "", us);
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
	work = codec_work_new();
	if (!data || !back || !images || !work || pool_open(2 * BYTES))
		return 1;
	madvise(data, BYTES, MADV_HUGEPAGE);
	madvise(back, BYTES, MADV_HUGEPAGE);
	pool_limit(2 * BYTES);
	printf("%-17s %-10s %9s %8s %6s %9s %6s   GB/s of raw bytes, and times memcpy\n",
	       "data", "codec", "ratio", "pack", "x", "unpack", "x");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		state = 88172645463325252ull + i;
		kinds[i].make(data);
		for (uint8_t id = 0; id < CODEC_IDS; id++)
			if (codec_by_id(id))
				one_codec(kinds[i].name, codec_by_id(id));
		whole_way(kinds[i].name);
	}
	return json ? fclose(json) != 0 : 0;
}
