/* SPDX-License-Identifier: MIT */
/* core_int.h - what the files of core/ know of each other, by owning file.
 *
 * Threads. Program threads enter through core.h. Two library threads are
 * started with the first region, all signals blocked, in a descriptor table
 * of their own (R4):
 *   keeper  takes commands, samples the budget, converts watched regions;
 *   pager   owns every chunk, frame and read in flight, and is the only one
 *           to act on them, so none of that needs a lock (R7).
 * plus reader threads of the pread engine, which touch only their own job,
 * and, once the heap is watched, one that makes names (unwind.c), once it is
 * paged, workers that look at frames for the pager (work.c).
 *
 * Lock ranks (take upwards only; never held across I/O, R7):
 *   1 region_lock   the region table and the extents in it
 *   2 queue locks   none: command queues are lock-free lists
 */
#ifndef OFFLOAD_CORE_INT_H
#define OFFLOAD_CORE_INT_H

#include "core/core.h"
#include "core/budget.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/options.h"
#include "core/stats.h"
#include "core/sys.h"
#include "policy/policy.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK		(2UL << 20)
#define PAGE		4096UL
#define MAX_CHUNKS	(1U << 20)	/* ids: 2 TiB of regions */
#define HEAP_CHUNKS	(MAX_CHUNKS / 2)	/* of them the heap's, the upper ones */
#define MAX_REGIONS	1024
#define MAX_EXTENTS	64
#define NO_SLOT		UINT32_MAX
#define MAX_TRIES	4U	/* reads of one chunk, in a row */
#ifndef MADV_POPULATE_READ	/* newer than some headers */
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define HINTS_SLACK	32U	/* chunks hints mode leaves to what it cannot see */

/* assert's text would go to a library thread's stderr, which is nowhere. */
#define off_assert(x) \
	((x) ? (void)0 : off_fatal("%s:%d: not (%s)", __FILE__, __LINE__, #x))

static inline uintptr_t page_up(uintptr_t a) { return (a + PAGE - 1) & ~(PAGE - 1); }
static inline uintptr_t page_down(uintptr_t a) { return a & ~(PAGE - 1); }
static inline uintptr_t chunk_down(uintptr_t a) { return a & ~(CHUNK - 1); }

/* ---- clock.c-sized helpers (keeper.c) ---------------------------------- */
uint64_t now_ns(void);
uint64_t thread_ns(void);	/* processor time of this thread */

/* ---- origin.c: the file a region came from ------------------------------- */

struct origin {
	int fd;			/* buffered; library's descriptor table */
	int fd_direct;		/* O_DIRECT, or -1 */
	uint64_t ino, size;
	int64_t mtime_ns;
	bool moved;		/* times changed since: compare hashes */
	bool held;		/* hold.c: nobody writes to it before it was copied */
	_Atomic bool kept;	/* the descriptors are the copy's, or will be in a moment */
	_Atomic bool let_go;	/* nothing more may rely on it */
	_Atomic uint32_t users;	/* pieces of chunks that rely on it */
	bool drop_cache;	/* our cgroup pays for its cached pages */
	char name[256];
};

/* Library thread. Opens the file behind the program's descriptor.
 * Returns 0, -EACCES and other errors of open: the region then passes. */
int origin_open(struct origin **out, pid_t tid, int fd);
void origin_close(struct origin *o);		/* NULL is fine */
/* Pager. 0, or -ESTALE: the file no longer holds [0, need). Notes `moved`. */
int origin_check(struct origin *o, uint64_t need);
/* Bytes of [off, off+len) in the page cache; -ENOSYS where unknown. *evicted: recently pushed out. */
int64_t origin_cached(struct origin *o, uint64_t off, uint64_t len,
		      uint64_t *evicted);
/* Keeper: its size and times are those of when it was opened. */
bool origin_unchanged(const struct origin *o);
/* Program thread: is fd a read-only descriptor of a regular file? *size: its size. */
bool origin_readable(int fd, uint64_t *size);
/* And of a tensor container (or a file OFFLOAD_FILES names)? */
bool origin_wanted(int fd, uint64_t *size);
/* The same, torture or not. */
bool origin_tensor(int fd, uint64_t *size);
/* mmap of a file, at an address congruent to the offset modulo CHUNK, so that
 * chunks of it can be huge pages in memory. Any thread. MAP_FAILED and errno. */
void *map_congruent(size_t len, int prot, int flags, int fd, off_t off);

/* ---- region.c: the table of regions ------------------------------------- */

enum region_state {
	REGION_FREE,
	REGION_WATCHED,		/* the program's real mapping, untouched */
	REGION_HELD,		/* being converted: faults wait */
	REGION_LIVE,		/* paged by us */
	REGION_UNDOING,		/* becoming plain again: others wait */
	REGION_DYING,		/* nothing mapped is left of it */
};

struct extent { uintptr_t lo, hi; };

struct region {
	enum region_state state;
	uintptr_t base, end;	/* page aligned; immutable */
	uint64_t file_off;	/* of base; congruent to it modulo CHUNK */
	int prot, flags;	/* as the program asked */
	bool writable;		/* private and ever writable: may be dirty */
	bool anon;		/* the heap: no file, never unmapped, see anon.h */
	bool locked;		/* mlocked while watched: not converted */
	bool refused;		/* keeper: could not be converted */
	uint64_t cached_peak;	/* keeper: most of it seen in the page cache */
	struct origin *origin;
	char *shadow;		/* plain mapping for forks and undoing, or NULL */
	char *huge;		/* hints: a mapping to read huge pages through, or NULL */
	uint32_t first, n;	/* chunk ids; pager (fixed while LIVE) */
	uint32_t inflight;	/* pager only */
	struct pol_span *spans;	/* from the file's header, or NULL */
	size_t n_spans;
	uint16_t *lossy;	/* by span: see lossy.h; or NULL */
	int users;		/* region_lock: threads at work on it */
	uint64_t locked_bytes;	/* region_lock: mlocked while LIVE */
	int n_ext;		/* region_lock */
	struct extent ext[MAX_EXTENTS];
};

/* Signals are blocked while it is held: a handler may call munmap. */
void region_lock(void);
void region_unlock(void);
void region_lock_reset(void);			/* child of fork */
ADDRESS_ONLY bool region_any(const void *addr, size_t len);	/* no lock */
void region_put(struct region *r);	/* lock not held: users is one less */

/* The rest: region_lock held. */
struct region *region_new(uintptr_t base, size_t len); /* NULL: table full */
void region_free(struct region *r);
struct region *region_at(uintptr_t addr);	/* a mapped page of it */
struct region *region_nth(int i);		/* NULL past the end; FREE ones too */
/* Cuts [lo, hi) out of r. -ENOSPC: too many holes to keep track of. */
int region_cut(struct region *r, uintptr_t lo, uintptr_t hi);
/* The mapped pieces of [lo, hi), at most MAX_EXTENTS; returns how many. */
int region_pieces(const struct region *r, uintptr_t lo, uintptr_t hi,
		  struct extent *out);
bool region_covers(const struct region *r, uintptr_t lo, uintptr_t hi);
uint64_t region_size(const struct region *r);	/* bytes of it that are mapped */
uint64_t region_bytes(void);			/* watched and live, all */
void region_forget_all(void);			/* child of fork */

static inline uint32_t region_chunks(const struct region *r)
{
	return (uint32_t)((r->end - chunk_down(r->base) + CHUNK - 1) / CHUNK);
}

/* ---- uffd.c: userfaultfd ------------------------------------------------- */

enum mode { MODE_MOVE, MODE_COPY, MODE_HINTS };

/* Library thread. Opens userfaultfd in full mode with what this kernel has
 * and tries MOVE for real. Returns the best mode not above `want`. */
enum mode uffd_open(enum mode want);
/* Keeper. Tries it with two chunks side by side, which nobody else has. */
bool uffd_try(bool (*there_and_back)(uintptr_t a, uintptr_t b));
/* Descriptors to be polled, and how many; the second only in mode copy. */
int uffd_fds(int fd[2]);
int uffd_register(void *p, size_t len, bool missing, bool wp);
/* The same for a range that mremap will move and that stays registered then:
 * who moves it waits for the pager. */
int uffd_register_moving(void *p, size_t len, bool missing, bool wp);
void uffd_unregister(void *p, size_t len);	/* what of it is; who waits is woken */
/* Bytes moved or copied before the error are told in *done. 0 or -errno:
 * -EAGAIN (an event waits to be read), -EBUSY (pinned), -EEXIST, -ENOENT. */
int uffd_move(uintptr_t dst, uintptr_t src, size_t len, bool wake, size_t *done);
int uffd_copy(uintptr_t dst, uintptr_t src, size_t len, bool wp, size_t *done);
int uffd_protect(uintptr_t p, size_t len, bool on);
/* Missing pages become zeros, no memory behind them until they are written. */
int uffd_zero(uintptr_t p, size_t len, size_t *done);
void uffd_wake(uintptr_t p, size_t len);

enum uffd_what { UFFD_MISSING, UFFD_WRITE, UFFD_OTHER };
struct uffd_event { enum uffd_what what; uintptr_t addr; uint32_t tid; };
/* Reads at most max events; returns how many. */
int uffd_read(struct uffd_event *out, int max);

/* ---- pages.c: what the kernel says of pages -------------------------------- */

int pages_open(void);		/* 0 or -errno; any number of times */
void pages_reset(void);		/* child of a fork */
/* The kernel's word for each page: there if bits 62 or 63 are set. 0 or -EIO. */
int pages_read(uintptr_t at, size_t len, uint64_t *entry);
/* Keeper or pager: is the chunk at this address mapped by one entry? False also
 * where the kernel (before 6.7) cannot be asked. */
bool pages_huge(uintptr_t at);

/* ---- direct.c: reads to pages that may be taken out ---------------------------- */

/* Any thread. A read of a file there, by O_DIRECT or not, may hold pages unseen. */
bool direct_unseen(uint32_t magic, bool o_direct, bool move);
void direct_mode(enum mode mode);	/* keeper, before the pager runs */
/* The heap is about to be paged. Waits, up to a second, for the reads into it that are
 * under way; those that come go elsewhere. */
void direct_close(void);
void direct_open(void);		/* it is not to be paged after all */
void direct_reset(void);	/* child of a fork */

/* ---- exchange.c: how memory changes places (pager only) -------------------- */

enum how { HOW_MOVE, HOW_REMAP, HOW_COPY };

/* Keeper, before the pager runs. 0; -errno: not even COPY is possible. */
int exchange_open(bool moves);
bool exchange_moves(void);	/* any thread: by MOVE, which refuses pinned pages */
/* Between [at, at + len) of chunk c in its region and the same of its slot;
 * *done bytes did. 0 or -errno as uffd_move says; by REMAP or COPY all or nothing.
 * In: the region's are missing, and if wake who waits for them is woken; if not, that
 * is for the caller, who protects them first (COPY wakes, and has protected). */
int exchange_in(uint32_t c, uintptr_t at, size_t len, bool wake, size_t *done);
int exchange_out(uint32_t c, uintptr_t at, size_t len, size_t *done);
/* In by copying: pages that are pinned; guard: write-protected. 0 or -errno. */
int exchange_copy(uint32_t c, uintptr_t at, size_t len, bool guard);
/* These chunks' range was built anew. */
void exchange_fresh(uint32_t first, uint32_t n);

/* ---- frames.c: the arena (pager only) ------------------------------------ */

#define FRAME_ROOMS 4		/* beside the slots: no frames, to pass bytes through */
int frames_open(size_t bytes);
void *frames_at(uint32_t slot);
/* NO_SLOT: none left. *used: there are old bytes in it, else nothing. */
uint32_t frames_get(bool *used);
/* The same, nothing in it: its memory is in the region already, or will be. */
uint32_t frames_get_bare(void);
bool frames_grew(void);		/* since the last call, by one that never had memory */
void frames_put(uint32_t slot, bool split);
void frames_trim(uint32_t keep);	/* give free memory back above `keep` frames in all */
char *frames_rooms(void);		/* FRAME_ROOMS of 2 MiB each; no memory until used */
void frames_filled(uint32_t slot);	/* from now on there is memory behind it, for sure */
uint64_t frames_bytes(void);		/* memory behind slots and moved-out frames */
uint64_t frames_filled_bytes(void);	/* of that, what is there already */
int frames_register(void);
void frames_unlock(void);		/* any thread: munlock */

/* ---- io.c, io_uring.c, io_pread.c: reads (pager only) -------------------- */

struct io_done { uint32_t chunk; int res; };	/* res: bytes or -errno */

#define IO_TAG_WRITE	(1U << 30)	/* beside the chunk: a write-back */
#define IO_TAG_VERIFY	(1U << 29)	/* a read to compare with */

enum io_kind { IO_READ, IO_READAHEAD, IO_POPULATE, IO_WRITE };

struct io_job {
	enum io_kind kind;
	int fd;
	void *buf;
	uint64_t off;
	uint32_t len, chunk;
};

struct io_ops {
	const char *name;
	int (*open)(uint32_t depth);	/* 0 or -errno: not here */
	int (*submit)(const struct io_job *job);
	int (*reap)(struct io_done *out, int max);	/* never waits */
	int (*fd)(void);		/* becomes readable when reap has work */
};
extern const struct io_ops io_uring_ops, io_pread_ops;
/* Opens the engine OFFLOAD_IO asks for, else the next that works. */
const struct io_ops *io_open(uint32_t depth, bool need_threads);

/* ---- pager.c: the thread that owns the chunks ---------------------------- */

enum chunk_flag {
	CH_HASHED = 1,		/* hash is that of the file's bytes */
	CH_DIRTY = 2,		/* private page written: its bytes are here only */
	CH_BUSY = 4,		/* pinned by somebody's I/O: tried again later */
	CH_LOCKED = 8,		/* mlocked */
	CH_RETRY = 16,		/* one read failed: buffered next */
	CH_SPURIOUS = 32,	/* one fault on a PLAIN chunk */
	CH_FAULTED = 64,	/* faulted while the region was held */
	CH_GONE = 128,		/* unmapped while its read was in flight */
	CH_FORGOTTEN = 256,	/* unmapped */
	CH_ROUNDED = 512,	/* its frame holds rounded bytes: not to be packed as the file's */
	CH_CACHED = 1024,	/* hints: absent, and was cached a round ago */
	CH_OTHERS = 2048,	/* ... and what is cached of it cannot be dropped */
};

struct chunk {
	uint32_t slot;		/* frame slot + 1, 0 = none */
	uint16_t region;	/* index in the table */
	uint16_t flags;		/* enum chunk_flag */
	uint16_t tries;
	uint32_t stream;	/* the thread of its last fault */
	uint64_t hash;
	uint64_t t_fault;	/* a thread waits since, or 0 */
};

struct pager {
	enum mode mode;
	const struct mode_ops *ops;
	const struct io_ops *io;
	struct pol *pol;
	struct chunk *chunk;
	uint32_t depth, inflight;
	uint32_t saving;	/* frames being written, or waiting to be */
	uint32_t plain;		/* chunks in that state */
	int frozen;		/* forks under way */
	bool dying;		/* regions wait to be freed */
	bool discarding;	/* what was written goes, too */
	struct region *heap;	/* once it is paged */
};
extern struct pager pg;

/* What a mode does to one chunk. Pager thread; 0 or -errno, and on an error
 * the chunk is as it was. */
struct mode_ops {
	const char *name;
	bool anon;			/* regions are anonymous ranges */
	int (*fetch)(uint32_t c);	/* starts the read */
	int (*install)(uint32_t c);	/* READY -> PLAIN */
	int (*soften)(uint32_t c);	/* PLAIN -> READY; -ENOTSUP */
	int (*evict)(uint32_t c, enum pol_state from);	/* -> ABSENT; -EUCLEAN: dirty; -EBUSY */
	void (*watch)(void);		/* hints: looks for uses */
};
extern const struct mode_ops mode_move, mode_copy, mode_hints;

int pager_start(enum mode mode);	/* keeper; 0 or -errno */
void pager_frames(uint32_t frames);	/* keeper: a new budget */
uint64_t pager_own_bytes(void);		/* any thread */
uint32_t pager_frames_left(void);	/* pager: that the budget has beside those with memory */
void pager_reset(void);			/* child of fork */
void pager_unlock(void);		/* any thread: its tables, munlock */
struct region *chunk_region(uint32_t c);
uintptr_t chunk_addr(uint32_t c);	/* may lie before the region's base */
uint64_t chunk_off(uint32_t c);		/* in the file */
uint32_t chunk_bytes_in_file(uint32_t c); /* of its 2 MiB, how many exist */
int chunk_pieces(uint32_t c, struct extent *out);
void chunk_mark_dirty(uint32_t c);
void chunk_moved(uint32_t c, enum pol_state st);
void chunk_use(uint32_t c);		/* hints: seen to be used */
void chunk_landed(uint32_t c);		/* a fetch of it is over */
int chunk_take_frame(uint32_t c, bool *used);	/* as frames_get; 0 or -ENOMEM */
void chunk_drop_frame(uint32_t c);	/* gives its slot back, if it has one */
void chunk_unread(uint32_t c);		/* its frame was not filled: ABSENT, asked for again if waited for */
/* file_io.c, for the modes: starts the read. 0 or -errno. */
int fetch_read(uint32_t c, void *frame);
/* R4, before its bytes are believed: ends the process if they are no more; notes if the
 * file's times have moved. */
void file_look(uint32_t c);
void file_read_done(uint32_t c, int res);	/* of the heap, too: passes it on */
/* R4: its bytes cannot be had. */
_Noreturn void chunk_lost(uint32_t c, const char *why);
void pager_read_events(void);
void pager_count_read(uint64_t bytes);	/* of this pass */
void pager_busy(void);		/* retry CH_BUSY chunks after a while */
/* An action got -EAGAIN the tries-th time: reads the event it is about. */
bool pager_again(int *tries);
/* Pager thread: what pager_own_bytes says is what the library holds now. */
void pager_count_own(void);
void pager_commands(void);		/* pager_cmd.c */
void pager_commands_reset(void);	/* child of fork */
void pager_bury(void);			/* frees DYING regions nobody uses */

/* ---- hash.c ----------------------------------------------------------------- */

uint64_t chunk_hash(const void *p, size_t len);		/* any thread */
uint64_t chunk_hash_avx2(const void *p, size_t len);	/* hash.c only */
struct hash_part {
	const char *from;		/* NULL: zeros */
	size_t len;
};
/* Puts the n parts one after the other at `to`; returns chunk_hash of them all,
 * for less than hashing them when they have left the cache. Any thread. */
uint64_t chunk_gather(char *to, const struct hash_part *part, int n);
uint64_t chunk_gather_avx2(char *to, const struct hash_part *part, int n);

/* ---- cmd.c: what program threads ask of the library's -------------------- */

enum cmd_op {
	CMD_MAP,	/* keeper: open the origin, decide, maybe convert */
	CMD_ADD,	/* pager: a held region's chunks exist */
	CMD_GO,		/* pager: the range is in place */
	CMD_FORGET,	/* pager: [lo, hi) was cut out of the table */
	CMD_UNDO,	/* pager: forget a whole region, it becomes plain again */
	CMD_PIN, CMD_UNPIN,	/* pager: mlock */
	CMD_DISCARD,	/* pager: MADV_DONTNEED on private pages */
	CMD_FREEZE, CMD_THAW,	/* pager: around a fork */
	CMD_ORIGIN,	/* keeper: open the file behind fd */
	CMD_ADMIT,	/* keeper: a block of lo bytes is about to be handed out */
	CMD_GROW,	/* pager: the heap got [lo, hi) */
	CMD_SETTLE,	/* pager, frozen: the heap is made fit for a fork */
	CMD_CLEAR,	/* pager: [lo, hi) of the heap is zeros from now on */
};

struct cmd {
	enum cmd_op op;
	struct region *r;
	uintptr_t lo, hi;
	int fd;			/* MAP; ADD and GO: not 0 in the child of a fork */
	pid_t tid;
	struct origin *origin;	/* ORIGIN: the answer */
	bool any;		/* ORIGIN: of no known kind: only if it can be held */
	int *fds;		/* SETTLE: descriptors of thread tid */
	int result;
	_Atomic uint32_t done;
	struct cmd *next;
};

/* Runs it and waits. Program threads and the keeper. */
int cmd_call(struct cmd *c);
/* Keeper / pager: takes all that waits, oldest first. */
struct cmd *cmd_take_keeper(void);
struct cmd *cmd_take_pager(void);
void cmd_done(struct cmd *c, int result);
int cmd_pager_fd(void);		/* readable when the pager's queue is not empty */
int cmd_open(void);		/* library thread, once */
void cmd_wait_keeper(uint64_t ns);
void cmd_reset(void);		/* child of fork */
void cmd_to_pager(struct cmd *c);
void cmd_ring_pager(void);	/* it has something to look at */
int cmd_pager_call(struct cmd *c);	/* keeper: runs it there and waits */

/* ---- keeper.c ------------------------------------------------------------ */

int keeper_start(void);		/* program thread; once; 0 or -errno */
bool keeper_running(void);
void keeper_leave(void);	/* program thread: the process ends */
void keeper_reset(void);	/* child of fork */
uint64_t keeper_budget(void);	/* bytes we may hold now */
bool library_thread(void);
bool library_thread_set(bool on);	/* this thread, for a while; what it was */
void library_thread_enter(const char *name);
/* A thread of ours, detached, with no signal of the program's. Library threads, and program
 * threads from inside a call. 0 or -errno. */
int library_thread_start(void *(*run)(void *), void *arg, size_t stack);
uint64_t host_min(void);	/* core.c */
bool core_populating(void);	/* core.c: a MAP_POPULATE is being served */
bool lock_future_set(void);	/* core.c: mlockall(MCL_FUTURE) is in force */
void core_new_owner(void);	/* core.c: child of fork */
void core_unlock_reset(void);	/* core.c: child of fork */

/* ---- convert.c ------------------------------------------------------------ */

/* Keeper: makes a watched region live. 0 or -errno (it stays as it was). */
int convert_region(struct region *r);
/* Program thread, r in use: makes a live region a plain mapping again (R9).
 * 0, or -ENOMEM: it may hold written private pages. */
int convert_undo(struct region *r);
/* Program thread: a plain mapping of the file at [lo, hi) of r. */
void convert_from_shadow(const struct region *r, uintptr_t lo, uintptr_t hi);

/* ---- fork.c ----------------------------------------------------------------- */

/* In the child of a fork some of a private mapping is memory without a file. Such parts
 * of [lo, hi) are so no longer: discard: they are the file's from now on, as the
 * kernel's MADV_DONTNEED leaves them; else they are about to go. 0, or -ENOMEM: no mapping. */
int fork_left_end(uintptr_t lo, uintptr_t hi, bool discard);
/* Widens [*lo, *hi) to hold them all. region_lock held, or nobody else is there. */
void fork_left_bounds(uintptr_t *lo, uintptr_t *hi);

/* ---- watch.c ---------------------------------------------------------------- */

void watch_this(const char *name);	/* this thread never ends by itself */
void watch_no_more(void);		/* this thread will */
void watch_reset(void);			/* child of fork */
void watch_look(void);			/* R4: stops the process if one did. Any thread */

/* ---- torture.c ------------------------------------------------------------ */

bool torture(void);
uint32_t torture_random(uint32_t below);	/* pager or keeper */

/* ---- trace.c (pager only) ------------------------------------------------- */
void trace_open(void);
void trace_region(const struct region *r, const struct pol_span *s, size_t n);
void trace_use(uint32_t chunk, uint32_t stream);
void trace_flush(void);

/* ---- device.c, device_tape.c ------------------------------------------------- */

void device_fork_prepare(void);
void device_fork_parent(void);
void device_fork_child(void);
/* Writes what waits, if it is much, or all of it. No lock held. */
void device_tape_flush(bool all);

#endif
