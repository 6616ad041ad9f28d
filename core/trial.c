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

void trial_chunk(struct trial *t, const void *chunk, size_t len,
		 struct trial_sum *sum)
{
	uint64_t begin;
	const struct codec *codec = codec_choose(t->work, chunk, len, sum->raw + 1,
						 POL_DT_OTHER);
	ssize_t n = codec_image_pack(t->work, codec, t->image, codec_worth(len),
				     chunk, len);

	sum->raw += len;
	sum->held += n > 0 ? (uint64_t)n : len;
	if (n <= 0)
		return;
	begin = thread_ns();
	if (codec_image_unpack(t->work, t->out, len, t->image, (size_t)n))
		off_fatal("%s does not unpack what it packed", codec->name);
	sum->unpack_ns += thread_ns() - begin;
	sum->unpacked += len;
}
