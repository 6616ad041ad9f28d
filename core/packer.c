/* SPDX-License-Identifier: MIT */
/* packer.c - packing and unpacking by the workers, and how fast that goes.
 *
 * Owns the rooms for images, and what each thread packs with.
 *
 * (1) Rates are of the thread's processor time: the engine takes most of the
 *     time on the clock, and is not what is measured.
 * (2) An image is unpacked and compared before the bytes are let go (R2): its hash
 *     is its own, and says nothing of the codec.
 * (3) All is mapped when the keeper starts: see keeper.c.
 * Lock: none; rooms are the pager's, the counts are atomic.
 */
#include "core/packer.h"
#include "core/codec.h"
#include "core/core_int.h"
#include "core/lossy.h"
#include "core/work.h"

#include <sys/mman.h>

#define KEPT		2
#define ROOMS		(PACK_FRAMES + KEPT)
#define THREADS		5		/* workers, and the pager where there are none */
#define GUESS		6e9	/* bytes/s, until it was seen */

static struct kit { struct codec_work *work; char *trial; } kit[THREADS];
static _Atomic int threads;	/* that have one */
static char *room;		/* ROOMS chunks; reserved, used as need be */
static bool used[ROOMS];
static _Atomic uint32_t written;	/* of the rooms, a bit each: there is memory in them */
static _Atomic uint32_t tried, paid;
static _Atomic uint64_t image_bytes, unpacked, unpack_ns;

char *packer_room(bool must)
{
	int i = must ? 0 : KEPT;

	while (i < ROOMS && used[i])
		i++;
	if (!room || i == ROOMS)
		return NULL;
	used[i] = true;
	return room + i * CHUNK;
}

void packer_give(const char *image)
{
	uint32_t i = (uint32_t)((size_t)(image - room) / CHUNK);

	used[i] = false;
	atomic_fetch_or(&written, 1u << i);
}

uint32_t packer_extra(void)
{
	int kits = work_processors() < THREADS ? (int)work_processors() : THREADS;
	int more = kits - atomic_load(&threads);
	int to_come = ROOMS - __builtin_popcount(atomic_load(&written));

	return (uint32_t)(to_come + (more > 0 ? more : 0) + PACK_FRAMES);
}

/* What is not inherited is mapped anew. */
void packer_reset(void)
{
	memset(used, 0, sizeof(used));
	atomic_store(&threads, 0);
	atomic_store(&written, 0);
	room = NULL;
	for (int i = 0; i < THREADS; i++)
		kit[i].trial = NULL;
}

void packer_open(void)
{
	if (!room)
		room = reserve_own(ROOMS * CHUNK);
	for (int i = 0; i < THREADS && !kit[i].trial; i++) {
		kit[i].trial = reserve_own(CHUNK);
		if (kit[i].trial && !kit[i].work)
			kit[i].work = codec_work_new();
	}
}

/* NULL: this thread cannot. */
static struct kit *mine(void)
{
	static _Thread_local int number __attribute__((tls_model("initial-exec")));

	if (!number)
		number = atomic_fetch_add(&threads, 1) + 1;
	return number <= THREADS && kit[number - 1].work && kit[number - 1].trial ? &kit[number - 1] : NULL;
}

/* (2) */
ssize_t packer_image(struct codec_work *work, const struct codec *codec, char *image,
		     char *trial, const void *src, size_t len)
{
	ssize_t n = -E2BIG;

	if (codec->id != CODEC_RAW)
		n = codec_image_pack(work, codec, image, codec_worth(len), src, len);
	if (n > 0 && (codec_image_unpack(work, trial, len, image, (size_t)n) ||
		      memcmp(trial, src, len)))
		return -E2BIG;
	return n;
}

static ssize_t pack_exactly(struct kit *k, char *image, const char *frame,
			    const struct packer_of *of)
{
	const struct codec *codec = codec_choose(k->work, frame, CHUNK, of->hash, of->hint);

	return packer_image(k->work, codec, image, k->trial, frame, CHUNK);
}

/* As far off as the format allows, and no further (2); how far is counted. */
static bool comes_near(struct kit *k, const char *image, size_t n, const char *frame,
		       const struct packer_of *of)
{
	struct quant_error error[QUANT_PIECES];
	size_t at = 0;

	if (codec_image_unpack(k->work, k->trial, CHUNK, image, n))
		return false;
	for (int i = 0; i < of->n_pieces; at += of->piece[i++].len)
		if (quant_compare(lossy_bits(), &of->piece[i], frame + at, k->trial + at,
				  &error[i]))
			return false;
	lossy_seen(of->piece, error, of->n_pieces);
	return true;
}

static ssize_t pack_rounded(struct kit *k, char *image, const char *frame,
			    const struct packer_of *of)
{
	ssize_t n = codec_image_quant(image, codec_worth(CHUNK), frame, CHUNK, lossy_bits(),
				      of->piece, of->n_pieces);

	return n > 0 && !comes_near(k, image, (size_t)n, frame, of) ? -E2BIG : n;
}

ssize_t packer_pack(char *image, const char *frame, const struct packer_of *of)
{
	struct kit *k = mine();
	ssize_t n = -E2BIG;

	if (!k)
		return n;
	if (of->n_pieces)
		n = pack_rounded(k, image, frame, of);
	if (n < 0)
		n = pack_exactly(k, image, frame, of);
	atomic_fetch_add(&tried, 1);
	if (n > 0) {
		atomic_fetch_add(&paid, 1);
		atomic_fetch_add(&image_bytes, (uint64_t)n);
	}
	return n;
}

int packer_unpack(char *frame, const char *image, size_t n)
{
	uint64_t begin = thread_ns();
	struct kit *k = mine();
	int err = k ? codec_image_unpack(k->work, frame, CHUNK, image, n) : -ENOMEM;

	if (!err) {
		atomic_fetch_add(&unpack_ns, thread_ns() - begin);
		atomic_fetch_add(&unpacked, CHUNK);
	}
	return err;
}

bool packer_rounded(const char *image)
{
	return ((const struct codec_head *)(const void *)image)->id == CODEC_QUANT;
}

void packer_seen(struct packer_seen *out)
{
	uint64_t ns = atomic_load(&unpack_ns), bytes = atomic_load(&unpacked);

	out->tried = atomic_load(&tried);
	out->paid = atomic_load(&paid);
	out->bytes = atomic_load(&image_bytes);
	out->unpack = bytes > 32 * CHUNK && ns ? (double)bytes * 1e9 / (double)ns : GUESS;
}
