/* SPDX-License-Identifier: MIT */
/* anon_int.h - what anon_pager.c and anon_origin.c know of each other. */
#ifndef OFFLOAD_ANON_INT_H
#define OFFLOAD_ANON_INT_H

#include "core/core_int.h"

#include <stdbool.h>
#include <stdint.h>

/* ---- anon_copy.c ---- */

int pages_open(void);		/* 0 or -errno */
void pages_reset(void);		/* child of a fork */
/* One bit per page of the chunk that is there or in swap; how many, or -EIO. */
int pages_there(uint32_t c, uint64_t map[CHUNK / PAGE / 64]);
/* Pages shared with a forked process refuse to move, and go on refusing when it
 * is gone: a write makes each the program's own again. 0 or -errno. */
int unshare_pages(uint32_t c);
bool all_zeros(const char *frame);
/* Zeros in all that is missing from addr to the chunk's end, or the next page
 * that is there. 0 or -errno. */
int zero_from(uint32_t c, uintptr_t addr);
/* Copy mode: the pages are protected, so that who writes waits
 * for this thread, copied to a frame, and dropped. 0, or -errno and all is as it was. */
int copy_out(uint32_t c, char *to);

/* ---- anon_origin.c ---- */

struct source;		/* where in which files a chunk's bytes are */
struct bounce;		/* a buffer with reads under way, or done */

/* Starts to read what the hints say chunk c came from; completions carry c and
 * IO_TAG_VERIFY. 0, -ENOENT: no hints to speak of, -EAGAIN: no buffer is free,
 * -ENOMEM, -EIO. */
int origin_compare(uint32_t c, struct source **source, struct bounce **out);
/* The same for a source that was compared before. 0, -EAGAIN, -EIO. */
int origin_fetch(uint32_t c, const struct source *s, struct bounce **out);
/* One completion. True: it was the last. */
bool origin_part_done(struct bounce *b, int res);
void origin_put(struct bounce *b);
/* All reads done: are these the bytes of the frame? */
bool origin_equal(uint32_t c, const struct source *s, const struct bounce *b,
		  const char *frame);
/* Makes the frame of them. False: a read failed. */
bool origin_fill(uint32_t c, const struct source *s, const struct bounce *b, char *frame);
void origin_forget(struct source *s);	/* NULL is fine */
struct origin *origin_nth(const struct source *s, int i);	/* NULL past the end */
void origin_reset(void);	/* child of a fork: nothing is under way */

#endif
