/* SPDX-License-Identifier: MIT */
/* fx_test.h - what the tests of fx.h share: data that is hard on it, and one
 * instruction set held against another.
 *
 * Owns guarded buffers and working memory. (1) An image does not depend on the
 * instruction set nor on where the bytes lie, nor does what it unpacks to, good
 * or bad. (2) Buffers end at a page that is not there. Lock: none.
 */
#ifndef OFFLOAD_FX_TEST_H
#define OFFLOAD_FX_TEST_H

#include "core/fx.h"
#include "pack_test.h"

static uint8_t *src, *dst, *img, *img2;	/* ends of guarded buffers */
static struct fx_scratch *scratch;

static inline int fx_set_up(void **state)
{
	src = guarded_new();
	dst = guarded_new();
	img = guarded_new();
	img2 = guarded_new();
	scratch = aligned_alloc(64, fx_scratch_size());
	return !scratch;
}

static inline int fx_tear_down(void **state)
{
	guarded_free(src);
	guarded_free(dst);
	guarded_free(img);
	guarded_free(img2);
	free(scratch);
	return 0;
}

/* ---- data ------------------------------------------------------------------------ */

static inline uint32_t fp32_bits(int spread)
{
	static const uint32_t odd[] = { 0x7f800000, 0xff800000, 0x7fc00001, 0xffbfffff,
		0x7fffffff, 1, 0x80000001, 0x007fffff, 0x80000000, 0, 0xffffffff };
	uint32_t r = (uint32_t)rnd();

	if (spread > 8 && !below(40))
		return odd[below(11)];
	return (r & 0x807fffff) | (uint32_t)(120 - __builtin_ctz(r | 1u << spread)) << 23;
}

static inline void put16(uint8_t *p, uint32_t v)
{
	memcpy(p, &(uint16_t){ (uint16_t)v }, 2);
}

/* One of many ways to fill some bytes. */
static inline void fx_run(uint8_t *p, size_t len, uint32_t way)
{
	uint32_t base = below(256), some = 1 + below(12);

	memset(p, 0, len);
	for (size_t i = 0; i + 3 < len; i += 4) {
		uint32_t a = fp32_bits(6), b = fp32_bits(12), r = (uint32_t)rnd();

		switch (way) {
		case 0:	break;
		case 1: memcpy(p + i, &r, 4); break;
		case 2: put16(p + i, a >> 16), put16(p + i + 2, b >> 16); break;
		case 3: memcpy(p + i, &b, 4); break;
		case 4: b &= 0xffff0000; memcpy(p + i, &b, 4); break;
		case 5:	/* fp16 */
			put16(p + i, (r & 0x83ff) | (8 + (a >> 23 & 7)) << 10);
			put16(p + i + 2, (r >> 16 & 0x83ff) | (b >> 23 & 31) << 10);
			break;
		case 6:	/* often zero */
			put16(p + i, below(some) ? 0 : a >> 16);
			put16(p + i + 2, below(some) ? 0 : b >> 16);
			break;
		case 7:	/* exponents of a window that lies anywhere, a few outside */
			put16(p + i, (r & 0x807f) | ((base + below(7)) & 255) << 7);
			put16(p + i + 2, (r >> 16 & 0x807f) |
			      ((base + (below(8) ? below(7) : r >> 24)) & 255) << 7);
			break;
		case 8:	/* -0 and denormals */
			put16(p + i, below(2) ? 0x8000 : r & 0x807f);
			put16(p + i + 2, below(3) ? 0 : 0x8000);
			break;
		case 9:	/* every pattern in turn */
			put16(p + i, (uint32_t)i / 2 + base * 257);
			put16(p + i + 2, (uint32_t)i / 2 + 1 + base * 257);
			break;
		case 10: /* none in any window */
			put16(p + i, 0x7f80 | (r & 0x807f));
			put16(p + i + 2, 0x7f80 | (r >> 16 & 0x807f));
			break;
		default: /* the same, over and over */
			put16(p + i, base << 8 | base);
			put16(p + i + 2, base << 8 | base);
		}
	}
	for (size_t i = len & ~3ul; i < len; i++)
		p[i] = (uint8_t)(rnd() >> 56);
}
#define FX_WAYS 12

/* Runs of every kind, of lengths that are about blocks or about nothing. */
static inline void fx_fill(uint8_t *p, size_t len, uint64_t seed)
{
	uint32_t only;

	test_seed = seed * 2654435761u + 1;
	only = below(2) ? FX_WAYS : below(FX_WAYS);
	for (size_t at = 0, n; at < len; at += n) {
		n = below(3) ? 4096 * (1 + below(5)) : 1 + below(9000);
		if (!at && !below(3))
			n = 1 + below(4);
		n = n < len - at ? n : len - at;
		fx_run(p + at, n, only < FX_WAYS ? only : below(FX_WAYS));
	}
}

/* ---- one against another ------------------------------------------------------------- */

/* Bytes of the image of src's last len, that then end at img. */
static inline size_t pack_with(const struct fx_ops *ops, enum fx_kind kind, size_t len,
			       uint8_t *end)
{
	size_t bound = fx_bound(len);
	uint8_t *p = last(end, bound);
	ssize_t n = fx_pack(ops, scratch, kind, p, bound, src - len, len);

	assert_in_range(n, 1, bound);
	assert_true(untouched_before(p));
	memmove(end - n, p, (size_t)n);
	return (size_t)n;
}

static inline int unpack_with(const struct fx_ops *ops, enum fx_kind kind, size_t len,
			      const uint8_t *image, size_t n)
{
	int err = fx_unpack(ops, kind, last(dst, len), len, image, n);

	assert_true(err == 0 || err == -EBADMSG);
	assert_true(untouched_before(dst - len));
	return err;
}

/* Src's last len bytes, by ops, as others do it. */
static inline void same_both_ways(const struct fx_ops *ops, const struct fx_ops *others,
				  enum fx_kind kind, size_t len)
{
	size_t n = pack_with(others, kind, len, img), m = pack_with(ops, kind, len, img2);

	assert_int_equal(n, m);
	assert_memory_equal(img - n, img2 - n, n);
	memset(dst - len, (uint8_t)~src[-1], len);
	assert_int_equal(unpack_with(ops, kind, len, img - n, n), 0);
	assert_memory_equal(src - len, dst - len, len);
}

/* A flipped image: both refuse it, or both read the same bytes. */
static inline void same_when_bad(const struct fx_ops *ops, const struct fx_ops *others,
				 enum fx_kind kind, size_t len, const uint8_t *image, size_t n)
{
	int err = unpack_with(others, kind, len, image, n);

	if (!err)
		memcpy(img2 - len, dst - len, len);
	assert_int_equal(unpack_with(ops, kind, len, image, n), err);
	if (!err)
		assert_memory_equal(img2 - len, dst - len, len);
}

/* Mebibytes to go through: FX_MIB, or a few. */
static inline size_t fx_bytes(void)
{
	const char *mib = getenv("FX_MIB");

	return (mib ? strtoul(mib, NULL, 10) : 8) << 20;
}

/* Lengths of all sizes, each by every kind. */
static inline void fx_compare(const struct fx_ops *ops, const struct fx_ops *others)
{
	size_t done = 0;

	for (uint64_t seed = 0; done < fx_bytes(); seed++) {
		size_t len = 1 + below(seed % 2 ? 20000 : seed % 40 ? 130000 : FX_LEN_MAX);

		fx_fill(last(src, len), len, seed);
		for (enum fx_kind k = 0; k < FX_KINDS; k++)
			same_both_ways(ops, others, k, len);
		done += len;
		test_seed += seed;
	}
}

static inline void fx_compare_short(const struct fx_ops *ops, const struct fx_ops *others)
{
	for (enum fx_kind k = 0; k < FX_KINDS; k++)
		for (size_t len = 1; len <= 3 * 8192 + 5;) {
			fx_fill(last(src, len), len, len);
			same_both_ways(ops, others, k, len);
			/* All short ones, and those about blocks. */
			len += len <= 200 || (len + 6) % 4096 < 12 ? 1 : 4096 - (len + 6) % 4096;
		}
}

/* Long enough to go past the caches; aligned, with a tail, and not. */
static inline void fx_compare_long(const struct fx_ops *ops, const struct fx_ops *others)
{
	for (int way = 0; way < FX_WAYS; way++)
		for (enum fx_kind k = 0; k < FX_KINDS; k++)
			for (uint32_t more = 0; more < 3; more++) {
				size_t len = FX_STREAM + (size_t[]){ 0, 64, 77 }[more];

				fx_run(last(src, len), len, (uint32_t)way);
				same_both_ways(ops, others, k, len);
			}
}

/* Some bits of an image are turned over. */
static inline void fx_compare_flipped(const struct fx_ops *ops, const struct fx_ops *others)
{
	enum { LEN = 3 * 8192 + 77 };

	for (uint64_t seed = 0; seed < fx_bytes() >> 14; seed++) {
		enum fx_kind k = seed % FX_KINDS;
		size_t n;

		fx_fill(last(src, LEN), LEN, seed);
		n = pack_with(others, k, LEN, img);
		for (uint32_t i = 1 + below(8); i; i--) {
			uint32_t at = below(3) ? below((uint32_t)n) : below(96);

			img[-(ssize_t)n + at] ^= (uint8_t)(1 << below(8));
		}
		same_when_bad(ops, others, k, LEN, img - n, n);
	}
}

#endif
