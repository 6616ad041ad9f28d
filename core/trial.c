/* SPDX-License-Identifier: MIT */
/* trial.c - tries packing a chunk, with the pool's codecs and its threshold.
 *
 * Owns one mapping for an image and what comes out of it again. Unpacking is
 * timed by the thread's processor time: whoever else runs does not count. The
 * image is still in the cache then, so the rate is a little too good.
 * Lock: none; a trial belongs to one thread.
 */
#include "core/trial.h"
#include "core/codec.h"
#include "core/core_int.h"
#include "core/lossy.h"

_Static_assert(TRIAL_MAX == CODEC_MAX, "a chunk is what a codec takes");

struct trial {
	struct codec_work *work;
	char image[CODEC_MAX], out[CODEC_MAX];
};

struct trial *trial_new(void)
{
	struct trial *t = reserve_range(sizeof(*t));

	if (!t)
		return NULL;
	t->work = codec_work_new();
	if (!t->work) {
		trial_free(t);
		return NULL;
	}
	memset(t->out, 1, sizeof(t->out));	/* its faults are not timed */
	return t;
}

void trial_free(struct trial *t)
{
	if (!t)
		return;
	codec_work_free(t->work);
	off_sys_munmap(t, sizeof(*t));
}

_Static_assert(QUANT_RAW == 0, "kept exactly");

unsigned int trial_bits(void)
{
	return lossy_bits();
}

int trial_kind(const struct pol_span *s, const char *name)
{
	return lossy_bits() ? (int)lossy_kind(s, name) : QUANT_RAW;
}

uint32_t trial_size(int kind)
{
	return quant_size((enum quant_kind)kind);
}

static ssize_t pack_exactly(struct trial *t, const void *chunk, size_t len, uint64_t seed)
{
	const struct codec *codec = codec_choose(t->work, chunk, len, seed, POL_DT_OTHER);

	return codec_image_pack(t->work, codec, t->image, codec_worth(len), chunk, len);
}

static ssize_t pack_rounded(struct trial *t, const void *chunk, size_t len,
			    int kind)
{
	uint32_t rest = (uint32_t)len % trial_size(kind);
	struct quant_piece piece[2] = {
		{ .len = (uint32_t)len - rest, .kind = (uint8_t)kind },
		{ .len = rest, .kind = QUANT_RAW },
	};

	if (rest == len)
		return -E2BIG;
	return codec_image_quant(t->image, codec_worth(len), chunk, len, lossy_bits(),
				 piece, rest ? 2 : 1);
}

void trial_chunk(struct trial *t, const void *chunk, size_t len, int kind,
		 struct trial_sum *sum)
{
	ssize_t n = kind == QUANT_RAW ? -E2BIG : pack_rounded(t, chunk, len, kind);
	uint64_t begin;

	sum->rounded += n > 0 ? len : 0;
	if (n <= 0)
		n = pack_exactly(t, chunk, len, sum->raw + 1);
	sum->raw += len;
	sum->held += n > 0 ? (uint64_t)n : len;
	if (n <= 0)
		return;
	begin = thread_ns();
	if (codec_image_unpack(t->work, t->out, len, t->image, (size_t)n))
		off_fatal("what was packed for trial does not come back");
	sum->unpack_ns += thread_ns() - begin;
	sum->unpacked += len;
}
