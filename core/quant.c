/* SPDX-License-Identifier: MIT */
/* quant.c - the format of quant.h, both ways.
 *
 * (1) An image may come from anywhere: each length is checked against what the
 *     caller knows before anything it speaks of is touched. Codes and scales are
 *     just numbers: any will do.
 * (2) A code times its scale is exact in a float (7 and 8 bits), so that every
 *     instruction set gives the same bytes: only the rounding to 16 bits is left,
 *     to nearest, ties to even.
 * (3) Scales are rounded up, so that the largest value needs no larger code.
 * Lock: none.
 */
#include "core/quant.h"
#include "core/core_int.h"
#include "core/cpu.h"

#include <float.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>

#define HALF		(QUANT_BLOCK / 2)

/* Codes, each times a scale, to numbers of a kind: n of them, up to a block. */
struct decoder {
	void (*block)(const int8_t *code, float scale, uint8_t *dst, uint32_t n);
};

uint32_t quant_size(enum quant_kind kind)
{
	static const uint8_t size[QUANT_KINDS] = { 1, 4, 2, 2 };

	return size[kind];
}

/* ---- numbers ------------------------------------------------------------------- */

static inline uint32_t bits_of(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

static inline float float_of(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

static inline uint16_t to_bf16(float f)
{
	uint32_t u = bits_of(f);

	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* Not less than f, which is not negative. */
static uint16_t scale_up(float f)
{
	return (uint16_t)((bits_of(f) + 0xffff) >> 16);
}

/* Adding 0.5 lets the adder round a number below the normal ones, and one above
 * them by so much that its last bit is the 16-bit number's. */
static inline uint16_t to_f16(float f)
{
	uint32_t u = bits_of(f), sign = u >> 16 & 0x8000;

	u &= 0x7fffffff;
	if (u >= 0x477ff000)			/* it would be an infinity */
		return (uint16_t)(sign | (u > 0x7f800000 ? 0x7e00 | (u >> 13 & 0x3ff) : 0x7c00));
	if (u < 0x38800000)
		return (uint16_t)(sign | (bits_of(float_of(u) + 0.5f) - bits_of(0.5f)));
	return (uint16_t)(sign | ((u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13));
}

static inline float from_f16(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, rest = h & 1023;

	if (exp == 31)
		return float_of(sign | 0x7f800000 | rest << 13);
	if (exp)
		return float_of(sign | (exp + 112) << 23 | rest << 13);
	return float_of(sign | bits_of((float)rest * 0x1p-24f));
}

/* n values of a kind from src, as floats. */
static void load(enum quant_kind kind, const uint8_t *src, float *to, uint32_t n)
{
	uint16_t h;

	if (kind == QUANT_F32) {
		memcpy(to, src, n * sizeof(*to));
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		memcpy(&h, src + 2 * i, sizeof(h));
		to[i] = kind == QUANT_F16 ? from_f16(h) : float_of((uint32_t)h << 16);
	}
}

/* ---- decoding: the same bytes with and without AVX2 -------------------------------- */

#define DECODE(name, attributes, type, convert)					\
attributes static void name(const int8_t *code, float scale, uint8_t *dst, uint32_t n) \
{										\
	type out[QUANT_BLOCK];							\
										\
	for (uint32_t i = 0; i < QUANT_BLOCK; i++)				\
		out[i] = convert((float)code[i] * scale);			\
	memcpy(dst, out, n * sizeof(type));					\
}

#define AS_IT_IS(f) (f)
DECODE(f32_plain, , float, AS_IT_IS)
DECODE(f16_plain, , uint16_t, to_f16)
DECODE(bf16_plain, , uint16_t, to_bf16)

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,f16c")))

/* Eight codes times the scale. */
AVX2 static inline __m256 eight(const int8_t *code, __m256 scale)
{
	__m256i c = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)code));

	return _mm256_mul_ps(_mm256_cvtepi32_ps(c), scale);
}

/* As to_bf16, in the low halves. */
AVX2 static inline __m256i eight_bf16(const int8_t *code, __m256 scale)
{
	__m256i u = _mm256_castps_si256(eight(code, scale));
	__m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));

	u = _mm256_add_epi32(_mm256_add_epi32(u, odd), _mm256_set1_epi32(0x7fff));
	return _mm256_srli_epi32(u, 16);
}

#define BLOCK_AVX2(name, type, step, store)					\
AVX2 static void name(const int8_t *code, float scale, uint8_t *dst, uint32_t n) \
{										\
	type out[QUANT_BLOCK], *to = n == QUANT_BLOCK ? (type *)(void *)dst : out; \
	__m256 by = _mm256_set1_ps(scale);					\
										\
	for (uint32_t i = 0; i < QUANT_BLOCK; i += (step))			\
		store((void *)(to + i), code + i, by);				\
	if (to == out)								\
		memcpy(dst, out, n * sizeof(type));				\
}

AVX2 static inline void put_f32(void *to, const int8_t *code, __m256 by)
{
	_mm256_storeu_ps(to, eight(code, by));
}

/* What to_f16 does is an instruction. */
AVX2 static inline void put_f16(void *to, const int8_t *code, __m256 by)
{
	_mm_storeu_si128(to, _mm256_cvtps_ph(eight(code, by), _MM_FROUND_TO_NEAREST_INT));
}

AVX2 static inline void put_bf16(void *to, const int8_t *code, __m256 by)
{
	__m256i both = _mm256_packus_epi32(eight_bf16(code, by), eight_bf16(code + 8, by));

	_mm256_storeu_si256(to, _mm256_permute4x64_epi64(both, 0xd8));
}

BLOCK_AVX2(f32_avx2, float, 8, put_f32)
BLOCK_AVX2(f16_avx2, uint16_t, 8, put_f16)
BLOCK_AVX2(bf16_avx2, uint16_t, 16, put_bf16)
#else
#define f32_avx2 f32_plain
#define f16_avx2 f16_plain
#define bf16_avx2 bf16_plain
#endif

static struct decoder decoder_of(enum quant_kind kind)
{
	static const struct decoder all[2][QUANT_KINDS] = {
		{ { NULL }, { f32_plain }, { f16_plain }, { bf16_plain } },
		{ { NULL }, { f32_avx2 }, { f16_avx2 }, { bf16_avx2 } },
	};

	return all[off_opt.simd != OPT_SIMD_PORTABLE && cpu_simd() >= CPU_AVX2][kind];
}

/* A block's codes, 8 or 4 bits each, as whole bytes. */
static inline void spread(unsigned int bits, const uint8_t *src, int8_t *code)
{
	if (bits == 8) {
		memcpy(code, src, QUANT_BLOCK);
		return;
	}
	for (uint32_t i = 0; i < HALF; i++) {
		code[i] = (int8_t)((int8_t)(src[i] << 4) >> 4);
		code[i + HALF] = (int8_t)((int8_t)src[i] >> 4);
	}
}

/* ---- where things are ------------------------------------------------------------------ */

static uint32_t code_bytes(unsigned int bits)
{
	return QUANT_BLOCK * bits / 8;
}

static uint32_t blocks_of(const struct quant_piece *p)
{
	uint32_t values = p->len / quant_size((enum quant_kind)p->kind);

	return (values + QUANT_BLOCK - 1) / QUANT_BLOCK;
}

static size_t body_bytes(unsigned int bits, const struct quant_piece *p)
{
	if (p->kind == QUANT_RAW)
		return p->len;
	return blocks_of(p) * (sizeof(uint16_t) + code_bytes(bits));
}

/* Values of block b. */
static uint32_t in_block(const struct quant_piece *p, uint32_t b)
{
	uint32_t left = p->len / quant_size((enum quant_kind)p->kind) - b * QUANT_BLOCK;

	return left < QUANT_BLOCK ? left : QUANT_BLOCK;
}

/* ---- packing ------------------------------------------------------------------------------ */

/* The largest of a block, or a negative number: one of them is not finite. */
static float largest(const float *v)
{
	float most = 0;

	for (uint32_t i = 0; i < QUANT_BLOCK; i++) {
		float a = fabsf(v[i]);

		if (!(a <= FLT_MAX))
			return -1;
		most = a > most ? a : most;
	}
	return most;
}

static void encode(unsigned int bits, const float *v, float scale, uint8_t *dst)
{
	float inverse = scale > 0 ? 1 / scale : 0;
	int8_t code[QUANT_BLOCK];
	int most = bits == 8 ? 127 : 7;

	for (uint32_t i = 0; i < QUANT_BLOCK; i++) {
		/* to the nearest, and no call of libm */
		int c = (int)((v[i] * inverse + 0x1.8p23f) - 0x1.8p23f);

		code[i] = (int8_t)(c > most ? most : c < -most ? -most : c);
	}
	if (bits == 8) {
		memcpy(dst, code, sizeof(code));
		return;
	}
	for (uint32_t i = 0; i < HALF; i++)
		dst[i] = (uint8_t)((code[i] & 15) | (code[i + HALF] & 15) << 4);
}

/* What a block whose largest value is `most` is multiplied by, as bf16. Below
 * the normal numbers its inverse could not be had: such values become zeros. */
static uint16_t scale_of(unsigned int bits, float most)
{
	float scale = most / (bits == 8 ? 127 : 7);

	return scale < FLT_MIN ? 0 : scale_up(scale);
}

static int pack_floats(unsigned int bits, const struct quant_piece *p, uint8_t *dst,
		       const uint8_t *src)
{
	uint32_t blocks = blocks_of(p), size = quant_size((enum quant_kind)p->kind);
	uint8_t *codes = dst + blocks * sizeof(uint16_t);
	float v[QUANT_BLOCK], most;
	uint16_t scale;

	for (uint32_t b = 0; b < blocks; b++) {
		memset(v, 0, sizeof(v));
		load((enum quant_kind)p->kind, src + (size_t)b * QUANT_BLOCK * size, v,
		     in_block(p, b));
		most = largest(v);
		if (most < 0)
			return -E2BIG;
		scale = scale_of(bits, most);
		memcpy(dst + b * sizeof(scale), &scale, sizeof(scale));
		encode(bits, v, float_of((uint32_t)scale << 16), codes + b * code_bytes(bits));
	}
	return 0;
}

ssize_t quant_pack(unsigned int bits, const struct quant_piece *piece, int n,
		   void *dst, size_t cap, const void *src, size_t len)
{
	struct quant_head head = { .bits = (uint8_t)bits, .pieces = (uint8_t)n };
	size_t used = sizeof(head) + (size_t)n * sizeof(*piece), raw = 0;
	uint8_t *out = dst;

	for (int i = 0; i < n; i++) {
		used += body_bytes(bits, &piece[i]);
		raw += piece[i].len;
	}
	off_assert(raw == len && n >= 1 && n <= QUANT_PIECES);
	if (used > cap)
		return -E2BIG;
	memcpy(out, &head, sizeof(head));
	out += sizeof(head);
	for (int i = 0; i < n; i++, out += sizeof(*piece)) {
		struct quant_piece p = piece[i];

		p.tag = 0;
		memcpy(out, &p, sizeof(p));
	}
	for (int i = 0; i < n; i++) {
		if (piece[i].kind == QUANT_RAW)
			memcpy(out, src, piece[i].len);
		else if (pack_floats(bits, &piece[i], out, src))
			return -E2BIG;
		out += body_bytes(bits, &piece[i]);
		src = (const uint8_t *)src + piece[i].len;
	}
	return (ssize_t)used;
}

/* ---- unpacking ------------------------------------------------------------------------------ */

static void unpack_floats(unsigned int bits, const struct quant_piece *p, uint8_t *dst,
			  const uint8_t *src)
{
	uint32_t blocks = blocks_of(p), size = quant_size((enum quant_kind)p->kind);
	const uint8_t *codes = src + blocks * sizeof(uint16_t);
	struct decoder decode = decoder_of((enum quant_kind)p->kind);
	int8_t code[QUANT_BLOCK];
	uint16_t scale;

	for (uint32_t b = 0; b < blocks; b++) {
		memcpy(&scale, src + b * sizeof(scale), sizeof(scale));
		spread(bits, codes + b * code_bytes(bits), code);
		decode.block(code, float_of((uint32_t)scale << 16),
			     dst + (size_t)b * QUANT_BLOCK * size, in_block(p, b));
	}
}

/* (1) True: the pieces make len raw bytes of n bytes of image. */
static bool fits(const struct quant_head *head, const struct quant_piece *piece,
		 size_t len, size_t n)
{
	size_t raw = 0, used = sizeof(*head) + head->pieces * sizeof(*piece);

	for (int i = 0; i < head->pieces; i++) {
		const struct quant_piece *p = &piece[i];

		if (p->kind >= QUANT_KINDS || !p->len || p->len > len || p->zero || p->tag ||
		    p->len % quant_size((enum quant_kind)p->kind))
			return false;
		raw += p->len;
		used += body_bytes(head->bits, p);
	}
	return raw == len && used == n;
}

int quant_unpack(void *dst, size_t len, const void *src, size_t n)
{
	struct quant_piece piece[QUANT_PIECES];
	static const struct quant_head none;
	struct quant_head head;
	const uint8_t *in = src;
	uint8_t *out = dst;

	if (n < sizeof(head))
		return -EBADMSG;
	memcpy(&head, in, sizeof(head));
	in += sizeof(head);
	if ((head.bits != 8 && head.bits != 4) || !head.pieces ||
	    head.pieces > QUANT_PIECES || memcmp(head.zero, none.zero, sizeof(head.zero)) ||
	    n < sizeof(head) + head.pieces * sizeof(*piece))
		return -EBADMSG;
	memcpy(piece, in, head.pieces * sizeof(*piece));
	in += head.pieces * sizeof(*piece);
	if (!fits(&head, piece, len, n))
		return -EBADMSG;
	for (int i = 0; i < head.pieces; i++) {
		if (piece[i].kind == QUANT_RAW)
			memcpy(out, in, piece[i].len);
		else
			unpack_floats(head.bits, &piece[i], out, in);
		in += body_bytes(head.bits, &piece[i]);
		out += piece[i].len;
	}
	return 0;
}

/* ---- how far off ------------------------------------------------------------------------------- */

/* Half of a scale, which may be a bf16's last bit above what the largest value
 * asks for, and half of what rounding to 16 bits may add. */
static float allowed(unsigned int bits, enum quant_kind kind, float most)
{
	float step = most / (bits == 8 ? 127 : 7) * (1 + 0x1p-7f);

	return step * 0.5001f + (kind == QUANT_F32 ? 0 : most * 0x1p-8f) + FLT_MIN * 128 +
	       (kind == QUANT_F16 ? 0x1p-25f : 0);
}

static int compare_block(unsigned int bits, enum quant_kind kind, const float *was,
			 const float *is, struct quant_error *out)
{
	float most = largest(was), bound = allowed(bits, kind, most);

	for (uint32_t i = 0; i < QUANT_BLOCK; i++) {
		float off = was[i] - is[i];

		if (!(fabsf(off) <= bound))
			return -EBADMSG;
		out->error2 += (double)off * off;
		out->value2 += (double)was[i] * was[i];
	}
	return 0;
}

int quant_compare(unsigned int bits, const struct quant_piece *p, const void *was,
		  const void *is, struct quant_error *out)
{
	enum quant_kind kind = (enum quant_kind)p->kind;
	uint32_t blocks = blocks_of(p), step = QUANT_BLOCK * quant_size(kind);
	float a[QUANT_BLOCK], b[QUANT_BLOCK];
	int err = 0;

	*out = (struct quant_error){ 0 };
	if (kind == QUANT_RAW)
		return memcmp(was, is, p->len) ? -EBADMSG : 0;
	for (uint32_t i = 0; i < blocks && !err; i++) {
		memset(a, 0, sizeof(a));
		memset(b, 0, sizeof(b));
		load(kind, (const uint8_t *)was + (size_t)i * step, a, in_block(p, i));
		load(kind, (const uint8_t *)is + (size_t)i * step, b, in_block(p, i));
		err = compare_block(bits, kind, a, b, out);
	}
	out->values = p->len / quant_size(kind);
	return err;
}
