/* SPDX-License-Identifier: MIT */
/* vmm_pack.c - pieces of spilled device memory, packed and unpacked.
 *
 * (1) An image is unpacked and compared once before it takes the place of the bytes (R1).
 *     Whoever reads it compares the hash of the bytes: an image of other ones is one, too.
 * (2) Nothing is known of the bytes but themselves: a piece is judged by a sample each time it
 *     is written, which weights are once.
 * (3) By the codecs that unpack as fast as memory is copied: one thread does it, and launches
 *     are held meanwhile. LZ4 and zstd take longer than to read the bytes themselves.
 * (4) Never rounded (OFFLOAD_LOSSY): who computes with them is not known.
 * Owns a codec's working memory and room for two pieces. Lock: the turn.
 */
#include "core/vmm_pack.h"
#include "core/codec.h"
#include "core/core_int.h"
#include "core/packer.h"
#include "core/vmm_store.h"

static struct codec_work *work;
static char *image, *raw;

int vmm_pack_open(void)
{
	if (!work)
		work = codec_work_new();
	if (work && !image)
		image = reserve_range(2 * (size_t)STORE_PIECE);
	if (!image)
		return -ENOMEM;
	raw = image + STORE_PIECE;
	return 0;
}

uint32_t vmm_pack(void *buf, uint32_t len, uint64_t hash)
{
	const struct codec *codec = codec_choose(work, buf, len, hash, POL_DT_OTHER);
	ssize_t n = -E2BIG;
	size_t room;

	if (codec->id != CODEC_LZ4 && codec->id != CODEC_ZSTD)		/* (3) */
		n = packer_image(work, codec, image, raw, buf, len);
	room = n > 0 ? page_up((size_t)n) : len;
	if (room >= len)
		return 0;
	memcpy(buf, image, (size_t)n);
	memset((char *)buf + n, 0, room - (size_t)n);
	return (uint32_t)n;
}

const char *vmm_unpack(const void *packed, uint32_t n, uint32_t len)
{
	return codec_image_unpack(work, raw, len, packed, n) ? NULL : raw;
}
