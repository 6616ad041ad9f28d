/* SPDX-License-Identifier: MIT */
/* spill_int.h - what spill.c, spill_file.c and spill_map.c know of each other.
 *
 * Units: a page is 4096 bytes, a block 2 MiB; both are counted from the
 * beginning of the file. Lock: none, see spill.h.
 */
#ifndef OFFLOAD_SPILL_INT_H
#define OFFLOAD_SPILL_INT_H

#include "core/core_int.h"
#include "core/spill.h"

#define BLOCK_PAGES	512U
#define MAP_BLOCKS	(1U << 22)	/* 8 TiB: page numbers fit 32 bits */
#define NO_PAGE		UINT32_MAX

/* ---- spill_map.c: which pages of one file are taken ------------------------ */

struct spill_runs {		/* of free pages, in some stretch of the file */
	uint32_t pre, suf;	/* at its beginning, at its end */
	uint32_t best;		/* the longest */
	bool whole;		/* a block of it is free */
};

struct spill_map {
	uint64_t *live, *held;	/* a bit per page: in use; leased to a child */
	uint8_t *backed;	/* per block: there is disk behind it */
	struct spill_runs *tree;/* root at 1, block b at n + b */
	uint32_t n;		/* blocks it has tables for: power of two, or 0 */
	uint32_t first_bare;	/* all blocks below are backed */
	uint32_t cursor, batch;	/* where the last slot ended; pages left to go on there */
	uint64_t live_pages;
	bool leased;		/* held has bits */
	bool idle;		/* pages were freed since it was last cleared */
};

/* A run of free backed pages, 1 to 512, or NO_PAGE. aligned: a whole block. */
uint32_t spill_map_take(struct spill_map *m, uint32_t pages, bool aligned);
void spill_map_put(struct spill_map *m, uint32_t page, uint32_t pages);
/* The lowest blocks without disk behind them, below limit: how many lie in a
 * row, at most max; 0: none. */
uint32_t spill_map_bare(const struct spill_map *m, uint32_t max, uint32_t limit,
			uint32_t *first);
/* Tables for blocks [0, n). 0 or -ENOMEM (nothing changed). */
int spill_map_grow(struct spill_map *m, uint32_t n);
/* Blocks there are tables for. unback: no page of them may be taken. */
void spill_map_back(struct spill_map *m, uint32_t first, uint32_t n);
void spill_map_unback(struct spill_map *m, uint32_t first, uint32_t n);
/* One past the last block with a taken page, with disk behind it. */
uint32_t spill_map_end(const struct spill_map *m);
uint32_t spill_map_top(const struct spill_map *m);
uint32_t spill_map_backed(const struct spill_map *m);	/* blocks */
/* Free backed blocks below `below`. */
uint32_t spill_map_spares(const struct spill_map *m, uint32_t below);
/* The highest run of at least `least` free backed blocks, at most `most` of
 * it, that ends at or below `below`. Returns its length, or 0. */
uint32_t spill_map_spare(const struct spill_map *m, uint32_t below, uint32_t least,
			 uint32_t most, uint32_t *first);
/* What is live cannot be reused until release, even if it is put. */
void spill_map_hold(struct spill_map *m);
void spill_map_release(struct spill_map *m);
/* Nothing is taken from it any more: keeps what put needs. */
void spill_map_freeze(struct spill_map *m);
void spill_map_free(struct spill_map *m);

/* ---- spill_file.c: making one ---------------------------------------------- */

struct spill_fd {
	int fd, direct;		/* direct: -1 without */
	dev_t dev;
	ino_t ino;
	const char *folder;	/* never freed */
	bool memory;		/* the folder is in memory, and was asked for */
};

/* A new empty file without a name. 0, or -errno after one line that says why
 * and what to do (not the same line twice in a row). */
int spill_file_open(struct spill_fd *out);
/* Whole blocks that may be taken of the file system, 5% staying free.
 * *total_mib: its size. */
uint64_t spill_file_room(int fd, uint64_t *total_mib);
/* Another description of the same file, in the caller's table: fd or -errno. */
int spill_file_reopen(int fd, int flags);

#endif
