/* SPDX-License-Identifier: MIT */
/* codec.c - the codecs, and which of them pays.
 *
 * Owns nothing but what codec_work_new hands out.
 *
 * (1) What is unpacked may have come from anywhere: each length in it is
 *     checked against what the caller knows, and the bytes by their hash.
 * (2) A codec is chosen by trying it, on pieces from jittered places: regular
 *     ones fall into step with the data (a KV cache's half-filled blocks).
 * (3) Rows stand in the order of how fast they unpack: a slower one must be
 *     worth it.
 * (4) No allocation after codec_work_new, which maps all of it at once: zstd's
 *     contexts are static ones.
 * Lock: none; working memory belongs to one thread.
 */
#include "core/codec.h"
#include "core/core_int.h"

#include <lz4.h>
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#define MAGIC		0x53464f4cu	/* "LOFS" */
#define ZSTD_LEVEL	1
/* Many small pieces: a chunk half full of zeros must not look full, nor empty;
 * what LZ4 and zstd would match lies in all of them alike. */
#define PIECE		256u
#define PIECES		32u
#define SAMPLE		(PIECE * PIECES)
#define LZ4_PAYS	125u
/* It unpacks at a third of LZ4's speed or less: text is worth that, floats
 * that are often zero are not. */
#define ZSTD_PAYS	150u
#define ZSTD_BETTER	150u

struct codec_work {
	ZSTD_CCtx *pack;
	ZSTD_DCtx *unpack;
	void *lz4;
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

static bool is_zero(const uint8_t *p, size_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

static size_t zero_bound(size_t len)
{
	return 0;
}

static ssize_t zero_pack(struct codec_work *w, void *dst, size_t cap,
			 const void *src, size_t len)
{
	return is_zero(src, len) ? 0 : -E2BIG;
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

/* ---- the table ----------------------------------------------------------------- */

static const struct codec codecs[] = {
	{ CODEC_RAW, "raw", 0, 0, raw_bound, raw_pack, raw_unpack },
	{ CODEC_ZERO, "zero", 0, 0, zero_bound, zero_pack, zero_unpack },
	{ CODEC_LZ4, "lz4", LZ4_PAYS, 100, lz4_bound, lz4_pack, lz4_unpack },
	{ CODEC_ZSTD, "zstd", ZSTD_PAYS, ZSTD_BETTER, zstd_bound, zstd_pack,
	  zstd_unpack },
};
#define N_CODECS (sizeof(codecs) / sizeof(codecs[0]))
_Static_assert(N_CODECS <= CODEC_IDS, "ids start at 1");

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
				ZSTD_estimateDCtxSize() };
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
	w->sample = p + at[1];
	w->trial = p + at[2];
	w->lz4 = p + at[3];
	w->pack = ZSTD_initStaticCCtx(p + at[4], size[4]);
	w->unpack = ZSTD_initStaticDCtx(p + at[5], size[5]);
	off_assert(w->pack && w->unpack);
	return w;
}

/* ---- choosing ------------------------------------------------------------------------ */

/* xorshift64*: any seed but 0 will do. */
static uint64_t next_random(uint64_t *x)
{
	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return *x * 0x2545f4914f6cdd1dull;
}

/* One piece from each of PIECES equal parts, at a multiple of 64. Bytes. */
static size_t take_sample(struct codec_work *w, const uint8_t *chunk, size_t len,
			  uint64_t seed)
{
	size_t part = len / PIECES & ~63ul;

	if (len <= SAMPLE) {
		memcpy(w->sample, chunk, len);
		return len;
	}
	seed |= 1;
	for (size_t i = 0; i < PIECES; i++) {
		size_t at = next_random(&seed) % (part - PIECE + 1) & ~63ul;

		memcpy(w->sample + i * PIECE, chunk + i * part + at, PIECE);
	}
	return SAMPLE;
}

const struct codec *codec_choose(struct codec_work *w, const void *chunk,
				 size_t len, uint64_t seed)
{
	size_t n = take_sample(w, chunk, len, seed);
	const struct codec *best = codec_by_id(CODEC_RAW);
	uint64_t ratio = 100;

	if (is_zero(w->sample, n) && is_zero(chunk, len))
		return codec_by_id(CODEC_ZERO);
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

/* ---- images ----------------------------------------------------------------------------- */

ssize_t codec_image_pack(struct codec_work *w, const struct codec *codec,
			 void *dst, size_t cap, const void *src, size_t len,
			 uint64_t hash)
{
	struct codec_head head = { .magic = MAGIC, .id = codec->id,
				   .raw_len = (uint32_t)len, .hash = hash };
	ssize_t n;

	off_assert(len && len <= CODEC_MAX);
	if (cap < sizeof(head))
		return -E2BIG;
	n = codec->pack(w, (char *)dst + sizeof(head), cap - sizeof(head), src, len);
	if (n < 0)
		return n;
	head.packed_len = (uint32_t)n;
	memcpy(dst, &head, sizeof(head));
	return n + (ssize_t)sizeof(head);
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
	codec = trusted(&head, len, n);
	if (!codec || codec->unpack(w, dst, len, (const char *)image + sizeof(head),
				    n - sizeof(head)))
		return -EBADMSG;
	return chunk_hash(dst, len) == head.hash ? 0 : -EBADMSG;
}
