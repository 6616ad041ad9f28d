/* SPDX-License-Identifier: MIT */
/* test_codec.c - codecs and images (core/codec.h).
 *
 * Owns guarded buffers. (1) What is packed comes back, at any length. (2) What
 * is not an image, or not the right one, is refused or unpacks to the right
 * bytes nevertheless: never to others, and no byte around is touched.
 * (3) Packing and unpacking allocate nothing. Lock: none.
 */
#include "pack_test.h"

#include <pthread.h>

static struct codec_work *work;
static uint8_t *src, *dst, *img;	/* ends of guarded buffers */

static int set_up(void **state)
{
	work = codec_work_new();
	src = guarded_new();
	dst = guarded_new();
	img = guarded_new();
	return !work;
}

static int tear_down(void **state)
{
	guarded_free(src);
	guarded_free(dst);
	guarded_free(img);
	return 0;
}

static void test_table(void **state)
{
	int n = 0;

	for (int id = 0; id < 256; id++) {
		const struct codec *c = codec_by_id((uint8_t)id);

		if (!c)
			continue;
		n++;
		assert_true(id && id < CODEC_IDS && c->id == id && c->name[0]);
	}
	assert_int_equal(n, CODEC_QUANT);
	assert_string_equal(codec_by_id(CODEC_LZ4)->name, "lz4");
}

/* ---- round trips ----------------------------------------------------------------- */

static void round_trip(const struct codec *c, enum kind kind, size_t len)
{
	uint8_t *in = last(src, len), *out = last(dst, len), *p;
	ssize_t n = c->pack(work, last(img, c->bound(len)), c->bound(len), in, len);

	if ((c->id == CODEC_ZERO && kind != ZEROS) || c->id == CODEC_QUANT) {
		assert_int_equal(n, -E2BIG);
		return;
	}
	assert_in_range(n, 0, c->bound(len));
	p = last(img, c->bound(len));
	memmove(img - n, p, (size_t)n);	/* as it would lie in a slot: no slack */
	memset(out, ~in[0], len);
	assert_int_equal(c->unpack(work, out, len, img - n, (size_t)n), 0);
	assert_memory_equal(in, out, len);
	assert_true(untouched_before(out));
	/* The codec itself knows other lengths from the right one. */
	if (c->id == CODEC_ZERO)
		assert_int_equal(c->unpack(work, out, len, in, 1), -EBADMSG);
	else if (len > 1)
		assert_int_equal(c->unpack(work, out + 1, len - 1, img - n, (size_t)n), -EBADMSG);
	if (c->id != CODEC_ZERO)
		assert_int_equal(c->unpack(work, last(dst, len + 1), len + 1, img - n,
					   (size_t)n), -EBADMSG);
}

static void round_trips(size_t len)
{
	for (enum kind k = ZEROS; k < KINDS; k++) {
		fill(last(src, len), len, k, len);
		for (uint8_t id = 0; id < CODEC_IDS; id++)
			if (codec_by_id(id))
				round_trip(codec_by_id(id), k, len);
	}
}

static void test_all_short_lengths(void **state)
{
	for (size_t len = 1; len <= 1500; len++)
		round_trips(len);
}

static void test_long_lengths(void **state)
{
	static const size_t lens[] = { 4095, 4096, 4097, 16383, 16385, 65535,
		65537, 131073, 262145, 1000003, CODEC_MAX - 1, CODEC_MAX };

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
		round_trips(lens[i]);
}

/* Whatever the room, it is not left. */
static void test_no_room(void **state)
{
	const size_t len = 5000;

	for (enum kind k = ZEROS; k < KINDS; k++)
		for (uint8_t id = CODEC_RAW; id < CODEC_IDS; id++) {
			const struct codec *c = codec_by_id(id);
			ssize_t need;

			if (!c)
				continue;
			fill(last(src, len), len, k, 1);
			need = c->pack(work, last(img, c->bound(len)), c->bound(len),
				       src - len, len);
			for (ssize_t cap = 0; cap < need; cap += 1 + need / 300) {
				uint8_t *p = last(img, (size_t)cap);

				assert_int_equal(c->pack(work, p, (size_t)cap, src - len, len),
						 -E2BIG);
				assert_true(untouched_before(p));
			}
		}
}

/* ---- images --------------------------------------------------------------------- */

/* An image of so many bytes of a kind, without slack. Its length. */
static size_t image_of(enum kind kind, size_t len, uint8_t id, uint64_t seed)
{
	const struct codec *c = codec_by_id(id);
	size_t cap = c->bound(len) + sizeof(struct codec_head);
	uint8_t *in = last(src, len), *p = last(img, cap);
	ssize_t n;

	fill(in, len, kind, seed);
	n = codec_image_pack(work, c, p, cap, in, len);
	if (n < 0)
		return 0;
	memmove(img - n, p, (size_t)n);
	return (size_t)n;
}

static int unpack_image(size_t len, const uint8_t *p, size_t n)
{
	int err = codec_image_unpack(work, last(dst, len), len, p, n);

	assert_true(err == 0 || err == -EBADMSG);
	assert_true(untouched_before(dst - len));
	if (!err)
		assert_memory_equal(src - len, dst - len, len);
	return err;
}

static void test_image_round_trip(void **state)
{
	for (enum kind k = ZEROS; k < KINDS; k++)
		for (uint8_t id = CODEC_RAW; id < CODEC_IDS; id++)
			for (size_t len = 1; len <= CODEC_MAX; len = len * 9 + 7) {
				size_t n = codec_by_id(id) ? image_of(k, len, id, len) : 0;

				assert_true(n || !codec_by_id(id) ||
					    (id == CODEC_ZERO && k != ZEROS) ||
					    id == CODEC_QUANT);
				if (n)
					assert_int_equal(unpack_image(len, img - n, n), 0);
			}
}

static void test_image_no_room(void **state)
{
	const struct codec *c = codec_by_id(CODEC_RAW);

	fill(last(src, 100), 100, NOISE, 1);
	for (size_t cap = 0; cap < 100 + sizeof(struct codec_head); cap++)
		assert_int_equal(codec_image_pack(work, c, last(img, cap), cap,
						  src - 100, 100), -E2BIG);
	assert_int_equal(codec_image_pack(work, c, last(img, 164), 164, src - 100,
					  100), 164);
}

/* Every value of every byte of the head. */
static void test_head_corrupted(void **state)
{
	const size_t len = 700;

	for (uint8_t id = CODEC_RAW; id <= CODEC_ZMASK; id++) {
		size_t n = image_of(id == CODEC_ZERO ? ZEROS : TEXT, len, id, 3);

		assert_true(n);
		for (size_t i = 0; i < sizeof(struct codec_head); i++)
			for (int x = 1; x < 256; x++) {
				img[-(ssize_t)n + (ssize_t)i] ^= (uint8_t)x;
				assert_int_equal(unpack_image(len, img - n, n), -EBADMSG);
				img[-(ssize_t)n + (ssize_t)i] ^= (uint8_t)x;
			}
		assert_int_equal(unpack_image(len, img - n, n), 0);
	}
}

/* Lengths that lie, and lie alike in head and call. */
static void test_lengths_lie(void **state)
{
	const size_t len = 3000;

	for (uint8_t id = CODEC_RAW; id <= CODEC_ZMASK; id++) {
		size_t n = image_of(id == CODEC_ZERO ? ZEROS : TEXT, len, id, 4);
		struct codec_head h;

		memcpy(&h, img - n, sizeof(h));
		for (size_t other = 1; other < 2 * len; other++) {
			if (other == len)
				continue;
			h.raw_len = (uint32_t)len;
			memcpy(img - n, &h, sizeof(h));
			assert_int_equal(codec_image_unpack(work, last(dst, other), other,
							    img - n, n), -EBADMSG);
			h.raw_len = (uint32_t)other;
			memcpy(img - n, &h, sizeof(h));
			assert_int_equal(codec_image_unpack(work, last(dst, other), other,
							    img - n, n), -EBADMSG);
			assert_true(untouched_before(dst - other));
		}
	}
}

/* Torn: only the first bytes of it, whatever its head was made to say. */
static void test_truncated(void **state)
{
	const size_t len = 20000;

	for (uint8_t id = CODEC_RAW; id <= CODEC_ZMASK; id++) {
		enum kind k = id == CODEC_ZERO ? ZEROS : id == CODEC_RAW ? SPARSE : TEXT;
		size_t n = image_of(k, len, id, 5);
		static uint8_t whole[3 * 20000];

		memcpy(whole, img - n, n);
		for (size_t m = 0; m < n; m++) {
			struct codec_head h;

			memcpy(img - m, whole, m);
			assert_int_equal(unpack_image(len, img - m, m), -EBADMSG);
			if (m < sizeof(h))
				continue;
			memcpy(&h, whole, sizeof(h));
			h.packed_len = (uint32_t)(m - sizeof(h));
			memcpy(img - m, &h, sizeof(h));
			assert_int_equal(unpack_image(len, img - m, m), -EBADMSG);
		}
	}
}

/* Something behind the payload. Of zstd's frames each would be right. */
static void append(const void *more, size_t len, uint8_t id)
{
	size_t n = image_of(TEXT, 5000, id, 6);
	struct codec_head h;

	memmove(img - n - len, img - n, n);
	memcpy(img - len, more, len);
	assert_int_equal(unpack_image(5000, img - n - len, n + len), -EBADMSG);
	memcpy(&h, img - n - len, sizeof(h));
	h.packed_len += (uint32_t)len;
	memcpy(img - n - len, &h, sizeof(h));
	assert_int_equal(unpack_image(5000, img - n - len, n + len), -EBADMSG);
}

static void test_appended(void **state)
{
	static const uint8_t skippable[] = { 0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 1 };
	static const uint8_t empty[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0 };
	static const uint8_t zero[1];

	for (uint8_t id = CODEC_LZ4; id <= CODEC_ZSTD; id++) {
		append(zero, sizeof(zero), id);
		append(skippable, sizeof(skippable), id);
		append(empty, sizeof(empty), id);
	}
}

/* Two good frames that together make the length that is asked for. */
static void test_two_frames(void **state)
{
	const struct codec *c = codec_by_id(CODEC_ZSTD);
	uint8_t *in = last(src, 4000);
	ssize_t a, b;

	fill(in, 4000, TEXT, 7);
	a = c->pack(work, last(img, 9000), 4500, in, 2000);
	b = c->pack(work, img - 9000 + a, 4500, in + 2000, 2000);
	assert_true(a > 0 && b > 0);
	memmove(img - a - b, img - 9000, (size_t)(a + b));
	assert_int_equal(c->unpack(work, last(dst, 4000), 4000, img - a - b,
				   (size_t)(a + b)), -EBADMSG);
}

/* ---- bits flipped ------------------------------------------------------------------ */

/* Flips some; most change the bytes, and all that do are noticed. */
static int flip(size_t n, size_t len)
{
	size_t head = sizeof(struct codec_head);
	uint32_t at[8], flips = 1 + below(8);
	int err;

	for (uint32_t i = 0; i < flips; i++) {
		at[i] = below((uint32_t)(n - head) * 8);
		img[-(ssize_t)n + (ssize_t)(head + at[i] / 8)] ^= (uint8_t)(1 << at[i] % 8);
	}
	err = unpack_image(len, img - n, n);
	while (flips--)
		img[-(ssize_t)n + (ssize_t)(head + at[flips] / 8)] ^=
			(uint8_t)(1 << at[flips] % 8);
	return err;
}

static void test_bits_flipped(void **state)
{
	static const size_t lens[] = { 40, 1000, 30000, 200000 };
	static const int tries[] = { 4000, 4000, 1000, 200 };

	for (int i = 0; i < 4; i++)
		for (enum kind k = ZEROS; k < KINDS; k++)
			for (uint8_t id = CODEC_RAW; id <= CODEC_ZMASK; id++) {
				size_t n = id == CODEC_ZERO ? 0 : image_of(k, lens[i], id, 8);
				int bad = 0;

				for (int t = 0; n && t < tries[i]; t++)
					bad += flip(n, lens[i]) != 0;
				assert_true(!n || k == ZEROS || k == SPARSE ||
					    bad >= tries[i] * 9 / 10);
			}
}

/* The codecs alone, with no hash to help them: wrong bytes perhaps, but where
 * they belong. */
static void test_hostile_payload(void **state)
{
	for (int t = 0; t < 30000; t++) {
		size_t n = 1 + below(t % 100 ? 200 : 20000);
		size_t len = 1 + below(t % 100 ? 2000 : 200000);

		for (uint8_t id = CODEC_RAW; id < CODEC_IDS; id++) {
			const struct codec *c = codec_by_id(id);
			int err;

			if (!c)
				continue;
			for (size_t i = 1; i <= n; i++)
				img[-(ssize_t)i] = (uint8_t)(rnd() >> 56);
			if (id == CODEC_ZSTD && n >= 5 && t % 2)
				memcpy(img - n, "\x28\xb5\x2f\xfd\x60", 5);
			err = c->unpack(work, last(dst, len), len, img - n, n);
			assert_true(err == 0 || err == -EBADMSG);
			assert_true(untouched_before(dst - len));
		}
	}
}

/* Of version 0.7, which zstd still reads: one block, as it is, and the end. */
static void test_old_format(void **state)
{
	static const uint8_t start[] = { 0x27, 0xb5, 0x2f, 0xfd, 0x20, 100, 0x40, 0, 100 };
	uint8_t *p = last(img, sizeof(start) + 100 + 3);

	memcpy(p, start, sizeof(start));
	memset(p + sizeof(start), 'x', 100);
	memcpy(img - 3, "\xc0\0\0", 3);
	assert_int_equal(codec_by_id(CODEC_ZSTD)->unpack(work, last(dst, 100), 100, p,
							 sizeof(start) + 103), -EBADMSG);
}

/* ---- choosing ------------------------------------------------------------------------ */

static uint8_t chosen(const uint8_t *p, size_t len, uint64_t seed)
{
	return codec_choose(work, p, len, seed, POL_DT_OTHER)->id;
}

static void test_choice(void **state)
{
	uint8_t *p = last(src, CODEC_MAX);
	uint8_t id;

	for (uint64_t seed = 0; seed < 20; seed++) {
		fill(p, CODEC_MAX, ZEROS, seed);
		assert_int_equal(chosen(p, CODEC_MAX, seed), CODEC_ZERO);
		fill(p, CODEC_MAX, NOISE, seed);
		assert_int_equal(chosen(p, CODEC_MAX, seed), CODEC_RAW);
		fill(p, CODEC_MAX, FLOATS, seed);
		assert_int_equal(chosen(p, CODEC_MAX, seed), CODEC_BF16);
		fill(p, CODEC_MAX, TEXT, seed);
		id = chosen(p, CODEC_MAX, seed);
		assert_true(id == CODEC_LZ4 || id == CODEC_ZSTD);
		/* Noise with pages of nothing: blocks are raw, or zeros. */
		fill(p, CODEC_MAX, NOISE, seed);
		for (size_t i = 0; i < CODEC_MAX; i += 8192)
			memset(p + i, 0, 4096);
		id = chosen(p, CODEC_MAX, seed);
		assert_in_range(codec_by_id(id)->pack(work, last(img, CODEC_MAX), CODEC_MAX, p,
						      CODEC_MAX), CODEC_MAX / 2, CODEC_MAX / 100 * 51);
		assert_int_not_equal(id, CODEC_LZ4);
	}
}

/* Every byte is one of so many, in no order: only entropy coding finds it. */
static void fill_of(uint8_t *p, size_t len, uint32_t symbols)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(1 + below(symbols));
}

/* zstd is slow: alone it must save a third, and where LZ4 pays it must be better
 * by half. */
static void test_zstd_clearly_better(void **state)
{
	uint8_t *p = last(src, CODEC_MAX);

	for (uint64_t seed = 0; seed < 5; seed++) {
		/* Noise of 16 bytes out of 64: only LZ4 does anything with it. */
		fill(p, CODEC_MAX, NOISE, seed);
		for (size_t i = 0; i < CODEC_MAX; i += 64)
			memset(p + i + 16, 'x', 48);
		assert_int_equal(chosen(p, CODEC_MAX, seed), CODEC_LZ4);
		fill_of(p, CODEC_MAX, 48);	/* 1.4 */
		assert_int_equal(chosen(p, CODEC_MAX, seed), CODEC_RAW);
		fill_of(p, CODEC_MAX, 16);	/* 2 */
		assert_int_equal(chosen(p, CODEC_MAX, seed), CODEC_ZSTD);
	}
}

/* A byte that no sample finds. */
static void test_almost_zero(void **state)
{
	uint8_t *p = last(src, CODEC_MAX);

	fill(p, CODEC_MAX, ZEROS, 0);
	for (uint64_t seed = 0; seed < 50; seed++) {
		uint32_t i = seed ? below(CODEC_MAX) : CODEC_MAX - 1;

		p[i] = 1;
		assert_int_not_equal(chosen(p, CODEC_MAX, seed), CODEC_ZERO);
		p[i] = 0;
	}
	assert_int_equal(chosen(p, CODEC_MAX, 1), CODEC_ZERO);
}

/* Each 64 KiB begins with 1 KiB that is unlike the rest of it: a sample taken
 * at regular places would see nothing else. */
static void test_no_regular_places(void **state)
{
	uint8_t *p = last(src, CODEC_MAX);
	int raw = 0;

	for (uint64_t seed = 1; seed < 20; seed++) {
		fill(p, CODEC_MAX, NOISE, seed);
		for (size_t i = 0; i < CODEC_MAX; i += 65536)
			memset(p + i, 0, 1024);
		raw += chosen(p, CODEC_MAX, seed) == CODEC_RAW;
		fill(p, CODEC_MAX, NOISE, seed);
		for (size_t i = 0; i < CODEC_MAX; i += 65536)
			memset(p + i + 4096, 0, 65536 - 4096);
		assert_int_not_equal(chosen(p, CODEC_MAX, seed), CODEC_RAW);
	}
	assert_in_range(raw, 12, 19);
}

static void test_choice_of_short(void **state)
{
	for (size_t len = 1; len < 20000; len += 1 + len / 7)
		for (enum kind k = ZEROS; k < KINDS; k++) {
			fill(last(src, len), len, k, len);
			assert_int_equal(chosen(src - len, len, len) == CODEC_ZERO,
					 k == ZEROS);
			if (k == NOISE)
				assert_int_equal(chosen(src - len, len, 1), CODEC_RAW);
		}
}

/* ---- choosing among floats -------------------------------------------------------------- */

/* A number of about normal distribution; scale changes every so many. */
static uint32_t number(size_t i)
{
	static float scale;
	int32_t sum = 0;
	float f;
	uint32_t u;

	if (i % 4096 == 0)
		scale = 1e-7f * (float)(1 + below(8));
	for (int k = 0; k < 6; k++)
		sum += (int32_t)below(65536) - 32768;
	f = (float)sum * scale + 1e-9f * (float)below(100);
	memcpy(&u, &f, 4);
	return u;
}

static uint16_t half_of(uint32_t u)
{
	uint32_t e = u >> 23 & 255;

	return (uint16_t)((u >> 16 & 0x8000) | (e < 113 ? 0 : (e - 112) << 10) |
			  (u >> 13 & 0x3ff));
}

enum numbers { AS_BF16, AS_FP16, AS_FP32, AS_BF16_IN_FP32, HALF_ZERO, NUMBERS };

static void fill_numbers(uint8_t *p, size_t len, enum numbers as)
{
	for (size_t i = 0, at = 0; at + 4 <= len; i++) {
		uint32_t u = number(i);
		uint16_t h = as == AS_FP16 ? half_of(u) : (uint16_t)(u >> 16);

		if (as == HALF_ZERO)
			h = below(2) ? 0 : h;
		if (as == AS_BF16_IN_FP32)
			u &= 0xffff0000;
		if (as == AS_FP32 || as == AS_BF16_IN_FP32)
			memcpy(p + at, &u, 4);
		else
			memcpy(p + at, &h, 2);
		at += as == AS_FP32 || as == AS_BF16_IN_FP32 ? 4 : 2;
	}
}

static const uint8_t right[NUMBERS] = {
	CODEC_BF16, CODEC_FP16, CODEC_FP32, CODEC_FP32, CODEC_ZMASK,
};

/* Wherever they begin, without any hint, it is seen what they are; and what was
 * chosen is worth it. */
static void test_choice_of_floats(void **state)
{
	enum { LEN = 300000 };

	for (enum numbers as = 0; as < NUMBERS; as++)
		for (uint64_t seed = 0; seed < 40; seed++) {
			size_t lead = seed % 8 / 2;
			uint8_t *p = last(src, LEN);
			ssize_t n;

			fill(p, LEN, NOISE, seed);
			fill_numbers(p + lead, LEN - lead, as);
			assert_int_equal(chosen(p, LEN, seed), right[as]);
			n = codec_image_pack(work, codec_by_id(right[as]),
					     last(img, codec_worth(LEN)), codec_worth(LEN),
					     p, LEN);
			assert_true(n > 0);
		}
}

/* A hint that fits is followed; one that does not fit harms nothing. */
static void test_hints(void **state)
{
	enum { LEN = 300000 };
	uint8_t *p = last(src, LEN);

	for (enum numbers as = 0; as < NUMBERS; as++) {
		fill_numbers(p, LEN, as);
		assert_int_equal(codec_choose(work, p, LEN, 1, POL_DT_QUANT)->id, CODEC_RAW);
	}
	fill_numbers(p, LEN, HALF_ZERO);
	assert_int_equal(codec_choose(work, p, LEN, 1, POL_DT_BF16)->id, CODEC_BF16);
	fill_numbers(p, LEN, AS_BF16);
	assert_int_equal(codec_choose(work, p, LEN, 1, POL_DT_F16)->id, CODEC_FP16);
	assert_int_equal(codec_choose(work, p, LEN, 1, POL_DT_F32)->id, CODEC_FP32);
	fill(p, LEN, TEXT, 1);
	assert_int_equal(codec_choose(work, p, LEN, 1, POL_DT_BF16)->id, chosen(p, LEN, 1));
	fill(p, LEN, NOISE, 1);
	assert_int_equal(codec_choose(work, p, LEN, 1, POL_DT_F32)->id, CODEC_RAW);
	memset(p, 0, LEN);
	assert_int_equal(codec_choose(work, p, LEN, 1, POL_DT_QUANT)->id, CODEC_ZERO);
}

/* Half of each 32 KiB is nothing yet: a KV cache. */
static void test_choice_of_half_filled(void **state)
{
	enum { LEN = 1 << 20 };
	uint8_t *p = last(src, LEN);

	for (uint64_t seed = 0; seed < 20; seed++) {
		fill_numbers(p, LEN, AS_BF16);
		for (size_t i = 0; i < LEN; i += 32768)
			memset(p + i + 16384, 0, 16384);
		assert_int_equal(chosen(p, LEN, seed), CODEC_BF16);
	}
}

static void test_worth(void **state)
{
	assert_int_equal(codec_worth(105000), 100000);
	assert_true(codec_worth(CODEC_MAX) * 105 / 100 <= CODEC_MAX);
	for (size_t len = 1; len < 2000; len++) {
		fill(last(src, len), len, NOISE, len);
		for (uint8_t id = CODEC_ZERO; id < CODEC_IDS; id++)
			if (codec_by_id(id))
				assert_int_equal(codec_image_pack(work, codec_by_id(id),
					last(img, codec_worth(len)), codec_worth(len),
					src - len, len), -E2BIG);
	}
}

/* ---- memory, threads ------------------------------------------------------------------- */

static void test_no_allocation(void **state)
{
	uint64_t before;

	mem_free(mem_alloc(1));
	before = ever_allocated();
	for (size_t len = 1; len <= CODEC_MAX; len = len * 5 + 3)
		round_trips(len);
	test_choice(state);
	assert_int_equal(ever_allocated(), before);
	mem_free(mem_alloc(1));
	assert_true(ever_allocated() > before);
}

static void *one_thread(void *arg)
{
	enum { LEN = 100000 };
	const struct codec *c = codec_by_id(CODEC_ZSTD);
	struct codec_work *w = codec_work_new();
	uint8_t *in = arg, *p = malloc(2 * LEN), *out = malloc(LEN);
	void *bad = NULL;

	for (int i = 0; i < 50 && !bad; i++) {
		ssize_t n = c->pack(w, p, 2 * LEN, in, LEN);

		if (n <= 0 || c->unpack(w, out, LEN, p, (size_t)n) ||
		    memcmp(in, out, LEN) || codec_choose(w, in, LEN, 1, POL_DT_OTHER)->id == CODEC_RAW)
			bad = in;
	}
	free(p);
	free(out);
	return bad;
}

static void test_threads(void **state)
{
	pthread_t t[3];
	void *bad;

	for (uint64_t i = 0; i < 3; i++) {
		fill(last(src, 100000 * (i + 1)), 100000, TEXT, i);
		assert_int_equal(pthread_create(&t[i], NULL, one_thread,
						src - 100000 * (i + 1)), 0);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pthread_join(t[i], &bad), 0);
		assert_null(bad);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_all_short_lengths),
		cmocka_unit_test(test_long_lengths),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_image_round_trip),
		cmocka_unit_test(test_image_no_room),
		cmocka_unit_test(test_head_corrupted),
		cmocka_unit_test(test_lengths_lie),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_appended),
		cmocka_unit_test(test_two_frames),
		cmocka_unit_test(test_bits_flipped),
		cmocka_unit_test(test_hostile_payload),
		cmocka_unit_test(test_old_format),
		cmocka_unit_test(test_choice),
		cmocka_unit_test(test_zstd_clearly_better),
		cmocka_unit_test(test_almost_zero),
		cmocka_unit_test(test_no_regular_places),
		cmocka_unit_test(test_choice_of_short),
		cmocka_unit_test(test_choice_of_floats),
		cmocka_unit_test(test_hints),
		cmocka_unit_test(test_choice_of_half_filled),
		cmocka_unit_test(test_worth),
		cmocka_unit_test(test_no_allocation),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
