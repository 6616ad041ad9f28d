/* SPDX-License-Identifier: MIT */
/* sites.h - the places in the program that asked the heap for memory.
 *
 * A site is a chain of return addresses in the program. A request made before
 * chains can be had, or without one, or when the table is full belongs to one
 * of the first three. Sites are never forgotten; a child of a fork keeps them,
 * as it keeps the blocks.
 */
#ifndef OFFLOAD_SITES_H
#define OFFLOAD_SITES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/stats.h"

#define SITES		256
#define SITE_FRAMES	16	/* of a chain; what lies beyond tells none apart */

enum { SITE_EARLY, SITE_UNNAMED, SITE_OTHER, SITE_FIRST };

/* ---- sites.c: the table. Any thread, no lock. ------------------------------- */

/* The site of n (at least 1) return addresses, innermost first. *fresh: it was
 * not known and needs a name. SITE_OTHER: the table is full. */
uint32_t sites_find(void *const *frame, int n, bool *fresh);
/* A request was met. */
void sites_asked(uint32_t site, uint64_t bytes);
/* Its blocks changed. */
void sites_count(uint32_t site, int64_t bytes, int64_t blocks);
/* One thread at a time: the next site from i on that has no name yet, or
 * SITES; its chain. */
uint32_t sites_unnamed(uint32_t i, void *const **frame, int *n);
/* That thread. From now on it counts as one with others of this name. */
void sites_name(uint32_t site, const char *name);
/* True: a chain's end in this function of this file (symbol: or NULL) says
 * nothing of who wanted the memory. */
bool sites_allocator(const char *file, const char *symbol);
/* Puts s in its place among the n largest, of which max are kept. Returns how
 * many there are then. */
int sites_insert(struct stat_site *list, int n, int max, const struct stat_site *s);
/* Does so with each site anything was asked from. */
int sites_largest(struct stat_site *list, int n, int max);

/* ---- unwind.c: whose request it is ------------------------------------------- */

/* Program thread, in a request of the heap, no lock held: its site. */
uint32_t sites_here(void);
/* Keeper: the thread that loads libunwind and makes names. Any number of times. */
void sites_start(void);
/* A program thread, at the end of the process: lets names be made, for a
 * second or two. */
void sites_settle(void);
/* Around forks, signals blocked. child: lock's other end there; the thread is gone. */
void sites_fork_lock(void);
void sites_fork_unlock(void);
void sites_fork_child(void);

/* ---- largest.c ------------------------------------------------------------------ */

/* Shows the largest files and sites in the statistics. Keeper, or a program
 * thread at the end of the process. */
void largest_publish(void);

#endif
