/* SPDX-License-Identifier: MIT */
/* fx.c - the format of fx.h: where things are in it, and reading it.
 *
 * Owns the choice of instruction set, made once.
 *
 * (1) An image may come from anywhere: head and each entry are checked before
 *     what they speak of is touched. All lengths follow from what the caller
 *     knows and from modes; where the image says them too, it must agree.
 * (2) What is checked is a copy, read once.
 * (3) How many escapes a block's codes have is only known by decoding them: the
 *     block's function stops where they do not suffice.
 * Lock: none.
 */
#include "core/fx.h"
#include "core/core_int.h"
#include "core/cpu.h"

/* ---- instruction sets ---------------------------------------------------- */

const struct fx_ops *fx_level(uint64_t simd)
{
	if (simd == OPT_SIMD_PORTABLE)
		return &fx_plain;
#if defined(__x86_64__)
	if (simd == OPT_SIMD_AVX2)
		return cpu_simd() >= CPU_AVX2 ? &fx_avx2 : NULL;
	if (simd == OPT_SIMD_AVX512)
		return cpu_simd() >= CPU_AVX512 ? &fx_avx512 : NULL;
#endif
	return NULL;
}

const struct fx_ops *fx_best(void)
{
	static _Atomic bool said;
	uint64_t asked = off_opt.simd == OPT_SIMD_AUTO ? OPT_SIMD_AVX512 : off_opt.simd;
	uint64_t simd = asked;

	while (!fx_level(simd))
		simd--;
	if (off_opt.simd != OPT_SIMD_AUTO && simd != asked && !atomic_exchange(&said, true))
		off_log("OFFLOAD_SIMD: this CPU cannot do that; chunks are packed by %s code",
			fx_level(simd)->name);
	return fx_level(simd);
}

/* ---- the format ---------------------------------------------------------- */

struct fx_shape fx_shape(enum fx_kind kind, uint32_t lead, size_t len)
{
	struct fx_shape s = { .block = FX_BLOCK * fx_value(kind), .lead = lead };

	s.blocks = ((uint32_t)len - lead) / s.block;
	s.tail = ((uint32_t)len - lead) % s.block;
	s.bodies = (uint32_t)(sizeof(struct fx_head) +
			      s.blocks * sizeof(struct fx_entry) + 63) & ~63u;
	return s;
}

size_t fx_bound(size_t len)
{
	return fx_shape(FX_BF16, 0, len).bodies + len + FX_SLACK;
}

uint32_t fx_body(enum fx_kind kind, uint8_t mode)
{
	static const uint16_t coded[FX_KINDS] = {
		[FX_BF16] = FX_BLOCK + FX_CODES,
		[FX_FP16] = FX_BLOCK + 2 * FX_CODES,
		[FX_FP32] = FX_BLOCK + FX_CODES + 2 * FX_BLOCK,
		[FX_ZMASK] = FX_MASK,
	};

	if (mode == FX_NOTHING)
		return 0;
	if (mode == FX_RAW)
		return FX_BLOCK * fx_value(kind);
	return coded[kind] - (mode & FX_NO_LOW ? 2 * FX_BLOCK : 0);
}

uint32_t fx_top_base(enum fx_kind kind, uint8_t mode)
{
	uint32_t top = kind == FX_FP16 ? 31 : 254;

	return top - ((mode & FX_ZERO7) ? FX_ESCAPE - 2 : FX_ESCAPE - 1);
}

/* Differs from its own bytes one place further where any is not zero. */
bool fx_is_zero(const uint8_t *p, size_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

/* ---- checking ------------------------------------------------------------ */

struct image {
	enum fx_kind kind;
	struct fx_shape shape;
	const uint8_t *at;
	uint32_t bodies, escapes;	/* bytes of them */
	bool stream;
};

/* (1) */
static bool head_good(struct image *im, size_t len, size_t n)
{
	struct fx_head h;
	uint64_t want;

	if (n < sizeof(h))
		return false;
	memcpy(&h, im->at, sizeof(h));
	if (h.kind != im->kind || h.lead >= fx_value(im->kind) || h.lead > len || h.zero)
		return false;
	im->shape = fx_shape(im->kind, h.lead, len);
	want = im->shape.bodies + 64ull * h.bodies + h.escapes + im->shape.lead +
	       im->shape.tail + FX_SLACK;
	if (h.blocks != im->shape.blocks || h.bodies > UINT16_MAX || want != n)
		return false;
	im->bodies = 64 * h.bodies;
	im->escapes = h.escapes;
	return true;
}

static bool padding_good(const struct image *im, size_t n)
{
	uint32_t end = (uint32_t)(sizeof(struct fx_head) +
				  im->shape.blocks * sizeof(struct fx_entry));

	return (end == im->shape.bodies ||
		fx_is_zero(im->at + end, im->shape.bodies - end)) &&
	       fx_is_zero(im->at + n - FX_SLACK, FX_SLACK);
}

static struct fx_entry entry_at(const struct image *im, uint32_t i)
{
	struct fx_entry e;

	if (i == im->shape.blocks)
		return (struct fx_entry){ im->escapes, (uint16_t)(im->bodies / 64), 0, 0 };
	memcpy(&e, im->at + sizeof(struct fx_head) + i * sizeof(e), sizeof(e));
	return e;
}

static bool mode_good(enum fx_kind kind, const struct fx_entry *e, uint32_t escapes)
{
	if (e->mode == FX_NOTHING || e->mode == FX_RAW)
		return !e->base && !escapes;
	if (kind == FX_ZMASK)
		return !e->mode && !e->base && escapes <= 2 * FX_BLOCK && escapes % 2 == 0;
	if (e->mode & ~(FX_ZERO7 | (kind == FX_FP32 ? FX_NO_LOW : 0)))
		return false;
	return e->base >= (e->mode & FX_ZERO7) && e->base <= fx_top_base(kind, e->mode) &&
	       escapes <= FX_BLOCK;
}

/* The entry, and the next, which says where what belongs to it ends. */
static bool entry_good(const struct image *im, const struct fx_entry *e,
		       const struct fx_entry *next)
{
	if (next->escape < e->escape || next->escape > im->escapes ||
	    !mode_good(im->kind, e, next->escape - e->escape))
		return false;
	return e->body * 64u + fx_body(im->kind, e->mode) == next->body * 64u &&
	       next->body * 64u <= im->bodies;
}

/* ---- reading ------------------------------------------------------------- */

static void dictionary(uint8_t *dict, enum fx_kind kind, const struct fx_entry *e)
{
	uint8_t shift = kind == FX_FP16 ? 2 : 0, zero = e->mode & FX_ZERO7;

	memset(dict, 0xff, 16);
	for (uint8_t c = 0; c < FX_ESCAPE; c++)
		dict[c] = (uint8_t)((e->base + c - zero) << shift);
	if (zero)
		dict[0] = 0;
}

static bool unpack_coded(const struct fx_ops *ops, const struct image *im, uint8_t *dst,
			 const struct fx_entry *e, const struct fx_entry *next)
{
	const uint8_t *bodies = im->at + im->shape.bodies;
	struct fx_coded c = {
		.body = bodies + e->body * 64u,
		.escape = bodies + im->bodies + e->escape,
		.escapes = next->escape - e->escape,
		.base = e->base,
		.zero7 = e->mode & FX_ZERO7,
		.low = !(e->mode & FX_NO_LOW),
		.stream = im->stream,
	};

	dictionary(c.dict, im->kind, e);
	return ops->unpack[im->kind](dst, &c);
}

static bool unpack_block(const struct fx_ops *ops, const struct image *im, uint8_t *dst,
			 const struct fx_entry *e, const struct fx_entry *next)
{
	if (!entry_good(im, e, next))
		return false;
	if (e->mode == FX_NOTHING)
		memset(dst, 0, im->shape.block);
	else if (e->mode == FX_RAW)
		memcpy(dst, im->at + im->shape.bodies + e->body * 64u, im->shape.block);
	else
		return unpack_coded(ops, im, dst, e, next);
	return true;
}

static bool unpack_blocks(const struct fx_ops *ops, const struct image *im, uint8_t *to)
{
	struct fx_entry e, next = entry_at(im, 0);

	if (next.escape || next.body)
		return false;
	for (uint32_t i = 0; i < im->shape.blocks; i++, to += im->shape.block) {
		e = next;
		next = entry_at(im, i + 1);
		if (!unpack_block(ops, im, to, &e, &next))
			return false;
	}
	return true;
}

/* Stores that went past the caches are seen by all before whatever is next. */
static void settle(void)
{
#if defined(__x86_64__)
	__builtin_ia32_sfence();
#endif
}

int fx_unpack(const struct fx_ops *ops, enum fx_kind kind, void *dst, size_t len,
	      const void *src, size_t n)
{
	struct image im = { .kind = kind, .at = src };
	uint8_t *to = dst;
	const uint8_t *rest;
	bool good;

	if (!head_good(&im, len, n) || !padding_good(&im, n))
		return -EBADMSG;
	rest = im.at + im.shape.bodies + im.bodies + im.escapes;
	memcpy(to, rest, im.shape.lead);
	to += im.shape.lead;
	im.stream = len >= FX_STREAM && (uintptr_t)to % 64 == 0;
	good = unpack_blocks(ops, &im, to);
	if (im.stream)
		settle();
	memcpy(to + len - im.shape.lead - im.shape.tail, rest + im.shape.lead, im.shape.tail);
	return good ? 0 : -EBADMSG;
}
