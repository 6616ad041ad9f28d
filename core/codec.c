/* SPDX-License-Identifier: MIT */
/* codec.c - the codecs, and which of them pays.
 *
 * Owns nothing but what codec_work_new hands out.
 *
 * (1) What is unpacked may have come from anywhere: each length in it is
 *     checked against what the caller knows, and the image by its hash: it is
 *     shorter than the bytes, and lies in the cache then for the codec.
 * (2) A codec is chosen by a sample of pieces from jittered places: regular
 *     ones fall into step with the data (a KV cache's half-filled blocks). What
 *     the codes of fixed width save is predicted from it, each being a
 *     hypothesis of what the data is; the others are tried on it, and only where
 *     no hypothesis says much: nothing tells beforehand what LZ4 will find.
 * (3) Rows stand in the order of how fast they unpack: a slower one must be
 *     worth it.
 * (4) No allocation after codec_work_new, which maps all of it at once: zstd's
 *     contexts are static ones.
 * Lock: none; working memory belongs to one thread.
 */
#include "core/codec.h"
#include "core/core_int.h"
#include "core/fx.h"

#include <lz4.h>
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#define MAGIC		0x53464f4cu	/* "LOFS" */
#define ZSTD_LEVEL	1
/* Many small pieces: a chunk half full of zeros must not look full, nor empty;
 * what LZ4 and zstd would match lies in all of them alike. For predictions, one
 * half of them does. */
#define PIECES		32u
#define SAMPLE		(FX_PIECE * PIECES)
#define WORTH		105u	/* 1/100 of the least ratio worth having */
/* A prediction of so much is taken as it is: bf16, and all that is often zero. */
#define STRONG		130u
#define LZ4_PAYS	125u
#define LZ4_BETTER	125u
/* It unpacks at a third of LZ4's speed or less: text is worth that, floats
 * that are often zero are not. */
#define ZSTD_PAYS	150u
#define ZSTD_BETTER	150u

struct codec_work {
	size_t bytes;			/* of this mapping */
	ZSTD_CCtx *pack;
	ZSTD_DCtx *unpack;
	void *lz4;
	const struct fx_ops *simd;
	struct fx_scratch *fx;
	uint8_t *sample, *trial;	/* SAMPLE; room for any trial */
};

/* ---- RAW, ZERO ------------------------------------------------------------- */

static size_t raw_bound(size_t len)
{
	return len;
}

static ssize_t raw_pack(struct codec_work *w, void *dst, size_t cap,
			const void *src, size_t len)
{
	if (len > cap)
		return -E2BIG;
	memcpy(dst, src, len);
	return (ssize_t)len;
}

static int raw_unpack(struct codec_work *w, void *dst, size_t len,
		      const void *src, size_t n)
{
	if (n != len)
		return -EBADMSG;
	memcpy(dst, src, len);
	return 0;
}

static size_t zero_bound(size_t len)
{
	return 0;
}

static ssize_t zero_pack(struct codec_work *w, void *dst, size_t cap,
			 const void *src, size_t len)
{
	return fx_is_zero(src, len) ? 0 : -E2BIG;
}

static int zero_unpack(struct codec_work *w, void *dst, size_t len,
		       const void *src, size_t n)
{
	if (n)
		return -EBADMSG;
	memset(dst, 0, len);
	return 0;
}

/* ---- LZ4, zstd --------------------------------------------------------------- */

static size_t lz4_bound(size_t len)
{
	return (size_t)LZ4_compressBound((int)len);
}

static ssize_t lz4_pack(struct codec_work *w, void *dst, size_t cap,
			const void *src, size_t len)
{
	int room = cap < INT32_MAX ? (int)cap : INT32_MAX;
	int n = LZ4_compress_fast_extState(w->lz4, src, dst, (int)len, room, 1);

	return n > 0 ? n : -E2BIG;
}

static int lz4_unpack(struct codec_work *w, void *dst, size_t len,
		      const void *src, size_t n)
{
	if (n > lz4_bound(len))
		return -EBADMSG;
	return LZ4_decompress_safe(src, dst, (int)n, (int)len) == (int)len ?
		       0 : -EBADMSG;
}

static size_t zstd_bound(size_t len)
{
	return ZSTD_compressBound(len);
}

static ssize_t zstd_pack(struct codec_work *w, void *dst, size_t cap,
			 const void *src, size_t len)
{
	size_t n = ZSTD_compressCCtx(w->pack, dst, cap, src, len, ZSTD_LEVEL);

	return ZSTD_isError(n) ? -E2BIG : (ssize_t)n;
}

/* One frame, and nothing after it: zstd would go on with further frames and
 * skip those that are not its own. A static context reads no older format. */
static int zstd_unpack(struct codec_work *w, void *dst, size_t len,
		       const void *src, size_t n)
{
	if (ZSTD_findFrameCompressedSize(src, n) != n)
		return -EBADMSG;
	return ZSTD_decompressDCtx(w->unpack, dst, len, src, n) == len ?
		       0 : -EBADMSG;
}

/* ---- FX ---------------------------------------------------------------------- */

#define FX_ROW(name, kind)						\
static ssize_t name##_pack(struct codec_work *w, void *dst, size_t cap,	\
			   const void *src, size_t len)			\
{									\
	return fx_pack(w->simd, w->fx, kind, dst, cap, src, len);	\
}									\
									\
static int name##_unpack(struct codec_work *w, void *dst, size_t len,	\
			 const void *src, size_t n)			\
{									\
	return fx_unpack(w->simd, kind, dst, len, src, n);		\
}									\
									\
static uint32_t name##_cost(const uint8_t *sample, size_t n)		\
{									\
	return fx_cost(kind, sample, n);				\
}

FX_ROW(bf16, FX_BF16)
FX_ROW(fp16, FX_FP16)
FX_ROW(fp32, FX_FP32)
FX_ROW(zmask, FX_ZMASK)

/* ---- QUANT -------------------------------------------------------------------- */

/* Not without being told what is what: codec_image_quant. */
static ssize_t quant_row_pack(struct codec_work *w, void *dst, size_t cap,
			      const void *src, size_t len)
{
	return -E2BIG;
}

static int quant_row_unpack(struct codec_work *w, void *dst, size_t len,
			    const void *src, size_t n)
{
	return quant_unpack(dst, len, src, n);
}

/* ---- the table ----------------------------------------------------------------- */

#define FX_CODEC(id, name) \
	{ id, #name, name##_cost, 0, 0, fx_bound, name##_pack, name##_unpack }

static const struct codec codecs[] = {
	{ CODEC_RAW, "raw", NULL, 0, 0, raw_bound, raw_pack, raw_unpack },
	{ CODEC_ZERO, "zero", NULL, 0, 0, zero_bound, zero_pack, zero_unpack },
	FX_CODEC(CODEC_BF16, bf16),
	FX_CODEC(CODEC_FP32, fp32),
	FX_CODEC(CODEC_FP16, fp16),
	FX_CODEC(CODEC_ZMASK, zmask),
	{ CODEC_LZ4, "lz4", NULL, LZ4_PAYS, LZ4_BETTER, lz4_bound, lz4_pack,
	  lz4_unpack },
	{ CODEC_ZSTD, "zstd", NULL, ZSTD_PAYS, ZSTD_BETTER, zstd_bound, zstd_pack,
	  zstd_unpack },
	{ CODEC_QUANT, "quant", NULL, 0, 0, raw_bound, quant_row_pack, quant_row_unpack },
};
#define N_CODECS (sizeof(codecs) / sizeof(codecs[0]))
_Static_assert(N_CODECS < CODEC_IDS, "ids start at 1");
_Static_assert(CODEC_MAX <= FX_LEN_MAX && SAMPLE <= FX_LEN_MIN, "fx.h");

const struct codec *codec_by_id(uint8_t id)
{
	for (size_t i = 0; i < N_CODECS; i++)
		if (codecs[i].id == id)
			return &codecs[i];
	return NULL;
}

/* ---- working memory --------------------------------------------------------------- */

static size_t trial_size(void)
{
	size_t most = 0;

	for (size_t i = 0; i < N_CODECS; i++)
		if (codecs[i].pays && codecs[i].bound(SAMPLE) > most)
			most = codecs[i].bound(SAMPLE);
	return most;
}

struct codec_work *codec_work_new(void)
{
	const size_t size[] = { sizeof(struct codec_work), SAMPLE, trial_size(),
				(size_t)LZ4_sizeofState(),
				ZSTD_estimateCCtxSize(ZSTD_LEVEL),
				ZSTD_estimateDCtxSize(), fx_scratch_size() };
	enum { N = sizeof(size) / sizeof(size[0]) };
	size_t at[N + 1] = { 0 };
	struct codec_work *w;
	uint8_t *p;

	for (int i = 0; i < N; i++)
		at[i + 1] = at[i] + ((size[i] + 63) & ~63ul);
	p = reserve_range(at[N]);
	if (!p)
		return NULL;
	w = (struct codec_work *)p;
	w->bytes = at[N];
	w->sample = p + at[1];
	w->trial = p + at[2];
	w->lz4 = p + at[3];
	w->pack = ZSTD_initStaticCCtx(p + at[4], size[4]);
	w->unpack = ZSTD_initStaticDCtx(p + at[5], size[5]);
	off_assert(w->pack && w->unpack);
	w->fx = (struct fx_scratch *)(p + at[6]);
	w->simd = fx_best();
	return w;
}

void codec_work_free(struct codec_work *w)
{
	if (w)
		off_sys_munmap(w, w->bytes);
}

/* ---- choosing ------------------------------------------------------------------------ */

static const struct codec *hinted(enum pol_dtype hint)
{
	switch (hint) {
	case POL_DT_F32:
		return codec_by_id(CODEC_FP32);
	case POL_DT_F16:
		return codec_by_id(CODEC_FP16);
	case POL_DT_BF16:
		return codec_by_id(CODEC_BF16);
	case POL_DT_QUANT:
	case POL_DT_OTHER:
		break;
	}
	return NULL;
}

/* 1/100 of what it is expected to reach, by half of a full sample. */
static uint32_t predicted(struct codec_work *w, const struct codec *c)
{
	uint32_t cost = c->cost(w->sample, SAMPLE / 2);

	return 100000 / (cost ? cost : 1);
}

/* The best of those that can be predicted, or RAW. */
static const struct codec *likely(struct codec_work *w, uint32_t *ratio)
{
	const struct codec *best = codec_by_id(CODEC_RAW);

	*ratio = WORTH - 1;
	for (size_t i = 0; i < N_CODECS; i++) {
		uint32_t r = codecs[i].cost ? predicted(w, &codecs[i]) : 0;

		if (r <= *ratio)
			continue;
		*ratio = r;
		best = &codecs[i];
	}
	return best;
}

/* One that does clearly better than best, which will reach ratio. */
static const struct codec *tried(struct codec_work *w, size_t n,
				 const struct codec *best, uint64_t ratio)
{
	for (size_t i = 0; i < N_CODECS; i++) {
		const struct codec *c = &codecs[i];
		ssize_t got;

		if (!c->pays)
			continue;
		got = c->pack(w, w->trial, c->bound(n), w->sample, n);
		if (got <= 0 || 100 * n < c->pays * (uint64_t)got ||
		    10000 * n < c->better * ratio * (uint64_t)got)
			continue;
		best = c;
		ratio = 100 * n / (uint64_t)got;
	}
	return best;
}

const struct codec *codec_choose(struct codec_work *w, const void *chunk,
				 size_t len, uint64_t seed, enum pol_dtype hint)
{
	size_t n = fx_sample(w->sample, PIECES, chunk, len, seed);
	const struct codec *best = hinted(hint);
	uint32_t ratio;

	if (fx_is_zero(w->sample, n) && fx_is_zero(chunk, len))
		return codec_by_id(CODEC_ZERO);
	if (hint == POL_DT_QUANT)
		return codec_by_id(CODEC_RAW);
	if (len < FX_LEN_MIN)
		return tried(w, n, codec_by_id(CODEC_RAW), 100);
	if (best && predicted(w, best) >= WORTH)
		return best;
	best = likely(w, &ratio);
	return ratio >= STRONG ? best : tried(w, n, best, best->cost ? ratio : 100);
}

size_t codec_worth(size_t len)
{
	return 100 * len / WORTH;
}

/* ---- images ----------------------------------------------------------------------------- */

uint64_t codec_image_sum(struct codec_head head, const void *body)
{
	uint64_t h = chunk_hash(body, head.packed_len);

	head.hash = 0;
	return chunk_hash(&head, sizeof(head)) ^ (h << 1 | h >> 63);
}

/* Puts the head before a body of n bytes; n is passed on where it is an error. */
static ssize_t seal(void *dst, uint8_t id, size_t len, ssize_t n)
{
	struct codec_head head = { .magic = MAGIC, .id = id, .raw_len = (uint32_t)len };

	if (n < 0)
		return n;
	head.packed_len = (uint32_t)n;
	head.hash = codec_image_sum(head, (char *)dst + sizeof(head));
	memcpy(dst, &head, sizeof(head));
	return n + (ssize_t)sizeof(head);
}

ssize_t codec_image_pack(struct codec_work *w, const struct codec *codec,
			 void *dst, size_t cap, const void *src, size_t len)
{
	size_t head = sizeof(struct codec_head);

	off_assert(len && len <= CODEC_MAX);
	if (cap < head)
		return -E2BIG;
	return seal(dst, codec->id, len,
		    codec->pack(w, (char *)dst + head, cap - head, src, len));
}

ssize_t codec_image_quant(void *dst, size_t cap, const void *src, size_t len,
			  unsigned int bits, const struct quant_piece *piece, int n)
{
	size_t head = sizeof(struct codec_head);

	off_assert(len && len <= CODEC_MAX);
	if (cap < head)
		return -E2BIG;
	return seal(dst, CODEC_QUANT, len,
		    quant_pack(bits, piece, n, (char *)dst + head, cap - head, src, len));
}

/* Its head says what the caller knows, and nothing that it does not know. */
static const struct codec *trusted(const struct codec_head *h, size_t len, size_t n)
{
	static const struct codec_head none;

	if (h->magic != MAGIC || h->raw_len != len ||
	    h->packed_len != n - sizeof(*h) ||
	    memcmp(h->zero, none.zero, sizeof(h->zero)) ||
	    memcmp(h->rest, none.rest, sizeof(h->rest)))
		return NULL;
	return codec_by_id(h->id);
}

int codec_image_unpack(struct codec_work *w, void *dst, size_t len,
		       const void *image, size_t n)
{
	const struct codec *codec;
	struct codec_head head;

	off_assert(len && len <= CODEC_MAX);
	if (n < sizeof(head) || n - sizeof(head) > UINT32_MAX)
		return -EBADMSG;
	memcpy(&head, image, sizeof(head));
	image = (const char *)image + sizeof(head);
	codec = trusted(&head, len, n);
	if (!codec || codec_image_sum(head, image) != head.hash)
		return -EBADMSG;
	return codec->unpack(w, dst, len, image, n - sizeof(head));
}
