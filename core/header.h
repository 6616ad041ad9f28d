/* SPDX-License-Identifier: MIT */
/* header.h - what the header of a tensor file says, read from the file.
 *
 * For the keeper and for offctl. Any thread, no lock; may allocate (mem.h).
 */
#ifndef OFFLOAD_HEADER_H
#define OFFLOAD_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

struct header {
	struct pol_span *spans;		/* mem_alloc's; in file order */
	size_t n_spans;
	void *text;			/* the file's first bytes: names */
	size_t text_len;
	uint64_t want;			/* -EBADMSG: as *need of pol_spans */
};

/* Reads the header of the file of so many bytes behind fd. Returns 0, and
 * header_free gives it back; or -EBADMSG: not a GGUF or safetensors header,
 * or a file that ends too early, -EFBIG: the header is longer than any is,
 * -EIO: it could not be read, -ENOMEM. */
int header_read(int fd, uint64_t size, struct header *h);
/* What header_read gave; a NULL in place of what the caller keeps is fine. */
void header_free(struct header *h);

#endif
