/* SPDX-License-Identifier: MIT */
/* codec_data.h - the data that tests/bench/codec.c packs.
 *
 * Owns a random number. All of it is made here from a fixed seed: it is like the
 * real thing in the statistics that packing lives on, and no more. Weights are
 * as tools/mkmodel.c makes them: normal, with a log-normal scale per row.
 * Lock: none.
 */
#ifndef OFFLOAD_CODEC_DATA_H
#define OFFLOAD_CODEC_DATA_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint64_t data_state;

static uint64_t rnd(void)
{
	data_state ^= data_state >> 12;
	data_state ^= data_state << 25;
	data_state ^= data_state >> 27;
	return data_state * 0x2545f4914f6cdd1dull;
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

static uint16_t fp16(double x)
{
	_Float16 h = (_Float16)x;
	uint16_t u;

	memcpy(&u, &h, 2);
	return u;
}

static void make_zeros(uint8_t *p, size_t n)
{
	memset(p, 0, n);
}

static void make_random(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n / 8; i++)
		((uint64_t *)p)[i] = rnd();
}

/* 4000 words of 2 to 9 letters, the k-th as frequent as 1/k. */
static void make_text(uint8_t *p, size_t bytes)
{
	static char word[4000][10];

	for (int k = 0; k < 4000; k++)
		for (int i = 0, n = 2 + (int)(rnd() % 8); i < n; i++)
			word[k][i] = (char)('a' + (int)(26 * uniform() * uniform()));
	for (size_t at = 0; at < bytes;) {
		const char *w = word[(int)pow(4000, uniform()) - 1];
		size_t n = strlen(w);

		for (size_t i = 0; i < n && at < bytes; i++)
			p[at++] = (uint8_t)w[i];
		if (at < bytes)
			p[at++] = rnd() % 12 ? ' ' : '\n';
	}
}

/* Token numbers: low ones often. */
static void make_ids(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n / 4; i++)
		((uint32_t *)p)[i] = (uint32_t)(128000 * pow(uniform(), 4));
}

/* Rows of 1024 channels, each of a scale of its own, some far out. */
static void make_kv(uint8_t *p, size_t n)
{
	double scale[1024];

	for (int i = 0; i < 1024; i++)
		scale[i] = exp(0.8 * gauss()) * (rnd() % 50 ? 1 : 6);
	for (size_t i = 0; i < n / 2; i++)
		((uint16_t *)p)[i] = bf16(gauss() * scale[i % 1024]);
}

/* The same, filled by half: each block of 32 KiB is for 16 tokens. */
static void make_kv_half(uint8_t *p, size_t n)
{
	make_kv(p, n);
	for (size_t i = 0; i < n; i += 32768)
		memset(p + i + 16384, 0, 16384);
}

static double weight(size_t i)
{
	static double scale;

	if (i % 4096 == 0)
		scale = 0.02 * exp(0.35 * gauss());
	return scale * gauss();
}

static void make_bf16(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n / 2; i++)
		((uint16_t *)p)[i] = bf16(weight(i));
}

static void make_fp16(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n / 2; i++)
		((uint16_t *)p)[i] = fp16(weight(i));
}

static void make_fp32(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n / 4; i++)
		((uint32_t *)p)[i] = bits_of(weight(i));
}

/* bf16 weights that the program keeps as fp32. */
static void make_upcast(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n / 4; i++)
		((uint32_t *)p)[i] = (uint32_t)bf16(weight(i)) << 16;
}

/* Blocks of 32 weights: the largest as fp16, and each of them in 127ths of it. */
static void make_q8_0(uint8_t *p, size_t n)
{
	for (size_t at = 0, i = 0; at + 34 <= n; at += 34, i += 32) {
		double x[32], most = 0;

		for (int k = 0; k < 32; k++) {
			x[k] = weight(i + (size_t)k);
			most = fmax(most, fabs(x[k]));
		}
		memcpy(p + at, &(uint16_t){ fp16(most / 127) }, 2);
		for (int k = 0; k < 32; k++)
			p[at + 2 + k] = (uint8_t)(int8_t)lrint(x[k] * 127 / most);
	}
}

/* Activations: all below a limit are nothing. */
static void make_sparse(uint8_t *p, size_t n, double limit)
{
	for (size_t i = 0; i < n / 2; i++) {
		double x = gauss() - limit;

		((uint16_t *)p)[i] = x > 0 ? bf16(x) : 0;
	}
}

static void make_half_sparse(uint8_t *p, size_t n)
{
	make_sparse(p, n, 0);
}

static void make_very_sparse(uint8_t *p, size_t n)
{
	make_sparse(p, n, 1.2816);
}

static const struct data_kind {
	const char *name;
	void (*make)(uint8_t *p, size_t n);
} data_kinds[] = {
	{ "weights bf16", make_bf16 },
	{ "weights fp16", make_fp16 },
	{ "weights fp32", make_fp32 },
	{ "bf16 in fp32", make_upcast },
	{ "weights q8_0", make_q8_0 },
	{ "KV bf16", make_kv },
	{ "KV, half filled", make_kv_half },
	{ "bf16, 50% zeros", make_half_sparse },
	{ "bf16, 90% zeros", make_very_sparse },
	{ "zeros", make_zeros },
	{ "token ids", make_ids },
	{ "text", make_text },
	{ "random", make_random },
};
#define DATA_KINDS (sizeof(data_kinds) / sizeof(data_kinds[0]))

#endif
