/* SPDX-License-Identifier: MIT */
/* anon_work.c - what workers do with the frames of the heap's chunks.
 *
 * A job is its chunk's alone while it is under way: frame, slot and room are
 * nobody else's (anon_io.c, 5). Owns nothing. Lock: none; any worker.
 */
#include "core/anon_int.h"
#include "core/core_int.h"
#include "core/packer.h"

void run_judge(struct work *w)
{
	struct job *j = (struct job *)w;

	j->zero = all_zeros(j->frame);
	j->hash = j->zero ? 0 : chunk_hash(j->frame, CHUNK);
}

void run_compare(struct work *w)
{
	struct job *j = (struct job *)w;

	j->ok = origin_equal(j->addr, j->source, j->bounce, j->frame);
}

void run_check(struct work *w)
{
	struct job *j = (struct job *)w;
	uint64_t hash = 0;

	if (j->sealed)
		j->ok = !seal_open(j->file, &j->seal, j->frame, CHUNK);
	else
		j->ok = !j->source || origin_fill(j->addr, j->source, j->bounce, j->frame, &hash);
	if (j->ok && j->hash)
		j->ok = (j->source ? hash : chunk_hash(j->frame, CHUNK)) == j->hash;
}

void run_pack(struct work *w)
{
	struct job *j = (struct job *)w;
	const struct packer_of of = { .hash = j->hash, .hint = POL_DT_OTHER };

	j->n = packer_pack(j->image, j->frame, &of);
}

void run_unpack(struct work *w)
{
	struct job *j = (struct job *)w;

	j->ok = !packer_unpack(j->frame, j->image, (size_t)j->n);
}

void run_seal(struct work *w)
{
	struct job *j = (struct job *)w;

	seal_make(j->file, &j->seal, j->image, j->frame, CHUNK);
}

void run_clear(struct work *w)
{
	struct job *j = (struct job *)w;

	memset(j->frame, 0, CHUNK);
	j->ok = true;
}

/* There is nothing in it: the kernel clears it all, if it has a huge page. */
void run_touch(struct work *w)
{
	struct job *j = (struct job *)w;

	*(volatile char *)j->frame = 0;
	j->ok = true;
}
