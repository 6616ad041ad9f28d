/* SPDX-License-Identifier: MIT */
/* spill.h - the spill file store: where in which file a spilled chunk lies.
 * Internal to core/.
 *
 * It gives out room (slots) in an unlinked file and keeps the descriptors;
 * the bytes are moved by the caller, through its own I/O engine. A process
 * writes to one file of its own; after a fork it also reads from the files it
 * got from its parent.
 *
 *     CLOSED --spill_open--> OPEN          own file: room, leases
 *     CLOSED, OPEN --no file can be had--> OFF          for good
 *
 * The file has no name: nothing is left after a SIGKILL, and when the folder
 * goes away the descriptors work on; only the next file needs it again.
 *
 * Forks. What is alive at a fork belongs to both sides from then on: the
 * parent goes on with the room that was free, and what it frees of the rest
 * is leased, not reused, until no child has the file open (each holds a shared
 * lock on it). The child only reads it, and closes it when it has freed all.
 *
 *   parent, pager     spill_fork_begin, spill_export
 *   parent, forking   spill_carry     (into the program's table, which the
 *     thread          fork             child inherits)
 *   parent, forking   close what carry opened
 *     thread
 *   parent, pager     spill_fork_end
 *   child, library    spill_import, after leaving the program's table; then
 *     thread          the child's program thread closes its copies
 *
 * A descriptor that the child forgets to close prolongs the lease, no more.
 *
 * One library thread (the pager) makes all calls but spill_carry. No lock.
 * Opening, growing and shrinking the file may wait for the disk.
 */
#ifndef OFFLOAD_SPILL_H
#define OFFLOAD_SPILL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A slot: the index of its file in the top 16 bits, below it the byte offset
 * divided by 4096. */
#define SPILL_NONE	UINT64_MAX
#define SPILL_FILES	64	/* own and inherited, at once */

/* Byte offset of a slot in its file. */
static inline uint64_t spill_offset(uint64_t ref)
{
	return (ref & ((1ull << 48) - 1)) * 4096;
}

/* Which file it lies in: the number of its key (seal.h). */
static inline uint32_t spill_file_number(uint64_t ref)
{
	return (uint32_t)(ref >> 48);
}

/* Chooses the folder and makes the file: OFFLOAD_SPILL, else the first of
 * /var/tmp and /tmp that is on a disk, writable and has room. 0, also when it
 * is open already. -errno: none can be had, said in one line; -ENODEV: that
 * was so before: spilling stays off. */
int spill_open(void);

/* Room for bytes, a multiple of 4096 up to 2 MiB; 2 MiB slots lie at a
 * multiple of 2 MiB unless there is no such room left. Slots asked for one
 * after the other lie one after the other where they can.
 * -EINVAL; -ENODEV: not open, or off; -EAGAIN: a fork is under way; -ENOMEM;
 * -ENOSPC: OFFLOAD_SPILL_MAX (whole 2 MiB of it) is reached, or less than 5%
 * of the file system would stay free: said once, asked again after a second. */
int spill_alloc(uint32_t bytes, uint64_t *ref);
/* Gives back what spill_alloc gave, with the same length. No I/O on it may be
 * in flight. */
void spill_free(uint64_t ref, uint32_t bytes);

/* The descriptors of a slot's file, in the library's table, until the slot is
 * freed. direct: O_DIRECT, proven by a write and a read, or -1. Writable only
 * in a file of this process's own. -EBADF: it did not come over a fork: the
 * bytes cannot be had (R4). */
int spill_fds(uint64_t ref, int *direct, int *buffered);

/* The folder it was made in, for messages. */
const char *spill_folder(uint64_t ref);

/* Bytes were written to the file. */
void spill_written(uint64_t bytes);
/* Nanoseconds the next write has to wait, so that OFFLOAD_SPILL_RATE holds on
 * average; one second's worth may go at once. 0: none. now_ns: any clock that
 * only goes forward, always the same one. */
uint64_t spill_wait_ns(uint64_t now_ns);

/* Bytes in live slots, inherited ones included. */
uint64_t spill_bytes(void);

/* About once a second: ends leases nobody uses any more, and gives room that
 * has been freed back to the file system, at most 1 GiB a call. */
void spill_poll(void);

/* Right before a fork, nothing being written: from here on both sides keep
 * their hands off what is alive now. 0, or -errno: the child cannot have the
 * slots, and there is nothing to end. Overlapping forks are fine. */
int spill_fork_begin(void);
/* Between begin and end: the descriptors the child needs, each holding the
 * lease. Returns how many there are, at most SPILL_FILES; the first max are
 * in fds. */
int spill_export(int fds[], int max);
/* The forking thread, in the parent: opens what spill_export told in its own
 * table. tid: the library thread whose numbers fds are. out[i]: -1 where it
 * failed. 0, or the first -errno. */
int spill_carry(pid_t tid, const int fds[], int n, int out[]);
/* In the parent, after the fork, failed or not. */
void spill_fork_end(void);

/* In the child, before any other call, on a copy of the parent's tables: takes
 * the descriptors over (any order; -1 is skipped). They are the store's then,
 * numbers of the calling thread's table. The first spill_alloc makes a file
 * of the child's own. */
void spill_import(const int fds[], int n);
/* In the child instead of it: no slot is taken over; as at the start. */
void spill_forget(void);

#endif
