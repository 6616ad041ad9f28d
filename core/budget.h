/* SPDX-License-Identifier: MIT */
/* budget.h - how much memory the library may hold.
 *
 * What is read (budget_read) and what follows from it (budget_target,
 * budget_divide) are apart: the second half is pure and tested by numbers.
 * Everything is read below OFFLOAD_SYSROOT, so recorded trees work too.
 */
#ifndef OFFLOAD_BUDGET_H
#define OFFLOAD_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUDGET_NONE	UINT64_MAX	/* no such limit */
#define BUDGET_LEVELS	12		/* own cgroup and ancestors looked at */
#define BUDGET_SHARERS	64		/* processes in one share table */

enum budget_file { BF_LIMIT, BF_HIGH, BF_USAGE, BF_STAT, BF_FAILS, BF_KERNEL,
		   BF_N };

/* Descriptors are private to this module; -1: no such file. */
struct budget_level {
	int fd[BF_N];
};

struct budget {
	int version;		/* cgroup 1 or 2; 0: none found */
	int n;			/* levels, the process's own first */
	int meminfo_fd, psi_fd, oom_fd;
	int swappiness;		/* -1: unknown */
	uint64_t share_key;	/* names what all sharers have in common */
	struct budget_level level[BUDGET_LEVELS];
};

/* One reading. Bytes, unless the name says otherwise. The cgroup's numbers
 * are those of the level with the least room left: the process's own or an
 * ancestor, whose usage counts its other children too. */
struct budget_now {
	uint64_t limit;		/* BUDGET_NONE: no level has one */
	uint64_t lowest_limit;	/* of all levels, what the cgroup is called */
	uint64_t usage;		/* everything charged, kernel memory included */
	uint64_t anon;		/* anonymous memory, huge pages included */
	uint64_t cache;		/* page cache, shared memory included */
	uint64_t droppable;	/* of it mapped file pages, neither shared memory nor locked */
	uint64_t reclaimable;	/* of it file pages nobody maps */
	uint64_t kernel;	/* page tables, slab, stacks */
	uint64_t failcnt;	/* times a limit was hit, all levels together */
	uint64_t oom_kill;	/* processes killed in the process's own cgroup */
	uint64_t mem_total, mem_available;	/* the machine; 0: unknown */
	uint64_t psi_some_us, psi_full_us;	/* total stall so far */
	unsigned int psi_full_avg10;		/* hundredths of a per cent */
	int swappiness;		/* -1: unknown */
	int version;		/* cgroup 1 or 2; 0: none */
	int depth;		/* 0: the process's own cgroup, 1: its parent... */
};

/* Finds the process's memory cgroup and its ancestors and opens what is read
 * later. The descriptors stay open: call from a library thread. No malloc;
 * needs 48 KiB of stack.
 * A cgroup the process is moved to later is not noticed; open again then.
 * Returns 0, or -ENOENT: neither a cgroup nor /proc/meminfo can be read. */
int budget_open(struct budget *b);
void budget_close(struct budget *b);

/* Reads everything anew. Same thread as budget_open; no malloc, cheap enough
 * to be called every 50 ms. Returns 0, or -EIO: nothing could be read. */
int budget_read(struct budget *b, struct budget_now *out);

/* How many bytes the library may hold in frames. Pure.
 *   own_bytes  anonymous memory the library holds now (all sharers' together
 *              when the answer is to be divided among them)
 *   reserve    kept free under the limit
 *   asked      the user's cap, 0: none
 * Under a cgroup limit:
 *   limit - reserve - (usage - own_bytes - reclaimable)
 * usage holds page tables and kernel memory, and what other processes need;
 * unmapped cache is given up by the kernel before anything is swapped, so it
 * is not a need. On the machine, with or without such a limit:
 *   MemAvailable + own_bytes - max(reserve, MemTotal / 20)
 * The least of the three counts, and never less than 0. */
uint64_t budget_target(const struct budget_now *now, uint64_t own_bytes,
		       uint64_t reserve, uint64_t asked);

/* Bytes to keep back: while the kernel has to reclaim at the limit, and for a second after,
 * a little of it. p: of this process, zeros at first. t: ns. */
struct budget_pressure { uint64_t fails, until; bool known; };
uint64_t budget_kept_back(struct budget_pressure *p, const struct budget_now *now, uint64_t t);

/* Bytes below now->limit that are neither the library's nor reclaimable. */
uint64_t budget_others(const struct budget_now *now, uint64_t own_bytes);

/* ---- sharing ------------------------------------------------------------- */

/* Divides total by water-filling: nobody gets more than wanted, and what one
 * leaves is divided among the rest. n <= BUDGET_SHARERS. Pure. */
void budget_divide(uint64_t total, const uint64_t *wanted, size_t n,
		   uint64_t *share);

struct budget_share {
	int fd;			/* the table; -1: not joined */
	uint64_t key;
	uint64_t start;		/* of this process, as /proc tells it */
};

/* Joins the table of this user's processes under one limit: a small file in
 * /dev/shm, else /tmp, locked by flock for the moment of each call. The
 * descriptor stays open: call from a library thread.
 * Returns 0, or -errno: the process then acts as if it were alone. */
int budget_share_join(struct budget_share *s, const struct budget *b);

/* Says what this process wants and holds (bytes), drops the entries of dead
 * ones, and divides what all may hold together. *share is this process's
 * part before OFFLOAD_RAM; *sharers counts all, this one included.
 * Returns 0, -EAGAIN: somebody holds the lock, keep the last answer, -ENOSPC:
 * the table is full, or -errno; *share is untouched on failure. */
int budget_share_poll(struct budget_share *s, const struct budget_now *now,
		      uint64_t reserve, uint64_t wanted, uint64_t held,
		      uint64_t *share, unsigned int *sharers);

/* The process ends: it leaves, and the last one removes the file. Any thread:
 * nothing of s changes, the table is opened again. What is killed, or finds the
 * lock taken, leaves nothing undone but this. */
void budget_share_leave(const struct budget_share *s);

#endif
