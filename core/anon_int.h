/* SPDX-License-Identifier: MIT */
/* anon_int.h - what the files of the heap's pager know of each other. */
#ifndef OFFLOAD_ANON_INT_H
#define OFFLOAD_ANON_INT_H

#include "core/core_int.h"
#include "core/seal.h"
#include "core/work.h"

#include <stdbool.h>
#include <stdint.h>

struct source;		/* where in which files a chunk's bytes are */
struct bounce;		/* a buffer with reads under way, or done */

/* ---- anon_pager.c ---- */

enum store { STORE_NONE, STORE_ZERO, STORE_POOL, STORE_SPILL, STORE_ORIGIN };

/* What is being done to its frame, out of the program's reach. */
enum busy {
	BUSY_NO,
	BUSY_JUDGING,	/* out: a worker looks whether it was written */
	BUSY_COMPARING,	/* out: with the file it may have come from */
	BUSY_PACKING,	/* out: a worker tries to make it smaller */
	BUSY_QUEUED,	/* out: waits to be written */
	BUSY_SEALING,	/* out: a worker encrypts it */
	BUSY_WRITING,
	BUSY_READING,	/* in: from its slot or its origin */
	BUSY_CHECKING,	/* in: a worker makes or verifies it */
};

enum child { CHILD_EMPTY, CHILD_IN_PLACE, CHILD_STORED };	/* at a fork */

struct anon_chunk {
	uint64_t ref;		/* its slot in the spill file */
	uint64_t hash;		/* of the stored copy */
	struct seal seal;	/* of that in the spill file, if it is encrypted */
	uint32_t slot;		/* STORE_POOL: in the pool */
	uint8_t store;		/* enum store; NONE: the bytes are in memory only */
	uint8_t busy;		/* enum busy */
	uint8_t child;		/* enum child */
	bool has_ref;		/* STORE_SPILL and POOL: good; else out of date, or being written */
	bool wanted;		/* on its way out: somebody waits for the frame */
	bool gone;		/* cleared while it was busy */
	bool compared;		/* with its origin, if it had one */
	bool raw;		/* packing it does not pay */
	bool rewritten;		/* its stored copy was out of date once */
	bool skew;		/* the policy was told so */
	uint8_t looks;		/* how often it was kept rather than written */
	bool split;		/* its memory is small pages: not to be recycled */
	struct source *source;	/* STORE_ORIGIN, or being compared */
	struct bounce *bounce;	/* reads of it under way, or being looked at */
};

struct anon_chunk *anon_at(uint32_t c);
char *anon_frame(uint32_t c);	/* of a chunk that has one */
void anon_put_frame(uint32_t c);	/* gives it back, if it has one */
/* Memory that came by small pages becomes a huge page before it goes: moving, hashing
 * and replacing 512 small ones costs ten times that (12 ms against 0.7 where page tables
 * are the hypervisor's). Chunks with holes stay as they are. */
void anon_collapse(uint32_t c);
/* Its packed copy is no longer kept; it is in place, or can be read. */
void anon_unpool(struct anon_chunk *a);
/* The spill file is full: frees a slot of it whose bytes the pool has too. False: none. */
bool anon_spare_copy(void);
void anon_empty(uint32_t c);	/* it holds nothing; not busy */
/* Frees what is stored of it; nothing of it is known any more. Not busy. */
void anon_forget(uint32_t c);
/* ABSENT. Weights are written once; what is written again and again, or is not
 * from a file while other memory is, has no place in the order of use. */
void anon_tell_skew(uint32_t c);
/* Known to the policy; its bytes are where the program looks. */
void anon_make_known(uint32_t c);
void anon_make_plain(uint32_t c, enum store store);
void anon_chunk_init(struct region *r, uint32_t from, uint32_t to);
void anon_go_on(struct region *r);	/* LIVE: who waits looks again */

/* ---- anon_work.c: run by workers ---- */

struct job {
	struct work work;
	bool used;
	uint32_t c;
	uintptr_t addr;
	char *frame;
	const struct source *source;
	const struct bounce *bounce;
	char *image;		/* PACKING: room for one; else the one to unpack */
	ssize_t n;		/* its bytes; -E2BIG: it does not pay */
	uint64_t hash;		/* found; or the one it must have */
	bool zero, ok;		/* found */
	bool sealed;		/* it is, or is to be, encrypted; with the key of: */
	uint32_t file;
	struct seal seal;
};

void run_judge(struct work *w);		/* zero, hash */
void run_compare(struct work *w);	/* with its origin: ok */
void run_check(struct work *w);		/* opened, filled, as it was stored: ok */
void run_pack(struct work *w);		/* n */
void run_unpack(struct work *w);	/* ok */
void run_seal(struct work *w);		/* seal */
void run_clear(struct work *w);
void run_touch(struct work *w);

/* ---- anon_io.c ---- */

void anon_unqueue(uint32_t c);	/* BUSY_QUEUED: it stays in its frame */
void anon_io_reset(void);

/* ---- pages.c, the heap's part ---- */

/* One bit per page of the chunk that is there or in swap; how many, or -EIO. */
int pages_there(uint32_t c, uint64_t map[CHUNK / PAGE / 64]);
/* Pages shared with a forked process refuse to move, and go on refusing when it
 * is gone: a write makes each the program's own again. 0 or -errno. */
int unshare_pages(uint32_t c);
bool all_zeros(const char *frame);
/* Zeros in all that is missing from addr to the chunk's end, or the next page
 * that is there. 0 or -errno. */
int zero_from(uint32_t c, uintptr_t addr);

/* ---- anon_origin.c ---- */

/* Starts to read what the hints say chunk c came from; completions carry c and
 * IO_TAG_VERIFY. 0, -ENOENT: no hints to speak of, -EAGAIN: no buffer is free,
 * -ENOMEM, -EIO. */
int origin_compare(uint32_t c, struct source **source, struct bounce **out);
/* The same for a source that was compared before. 0, -EAGAIN, -EIO; -ENOMEM: there can be no
 * buffers. */
int origin_fetch(uint32_t c, const struct source *s, struct bounce **out);
/* Then: reads it at once, straight to chunk c's frame. 0, -EAGAIN: it failed, and may not the
 * next time; -EIO. */
int origin_read(uint32_t c, const struct source *s, char *frame);
/* One completion. True: it was the last. */
bool origin_part_done(struct bounce *b, int res);
void origin_put(struct bounce *b);
/* All reads done: are these the bytes of the frame of the chunk at a? Any thread. */
bool origin_equal(uintptr_t a, const struct source *s, const struct bounce *b,
		  const char *frame);
/* Makes the frame of them, and its hash. False: a read failed. Any thread. */
bool origin_fill(uintptr_t a, const struct source *s, const struct bounce *b, char *frame,
		 uint64_t *hash);
void origin_forget(struct source *s);	/* NULL is fine */
struct origin *origin_nth(const struct source *s, int i);	/* NULL past the end */
void origin_reset(void);	/* child of a fork: nothing is under way */

#endif
