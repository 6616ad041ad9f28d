/* SPDX-License-Identifier: MIT */
/* stats.h - what the library counts, where others can read it.
 *
 * Counting works from the first instruction, into a static block. When the
 * first region comes, stats_start moves the block to a memfd that offctl
 * finds under /proc, open to the process's owner only and gone with it.
 * All updates are relaxed atomics: any thread, no lock, fault path included.
 */
#ifndef OFFLOAD_STATS_H
#define OFFLOAD_STATS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum off_stat {
#define ST(name, group, key, kind, help) ST_##name,
#include "stats.def"
#undef ST
	ST_N
};

enum device_stat {
#define DEV(name, group, key, kind, help) SD_##name,
#include "device.def"
#undef DEV
	SD_N
};

enum stat_kind { STAT_COUNT, STAT_GAUGE, STAT_MAX };

struct stat_row {
	const char *group, *key, *help;
	enum stat_kind kind;
};

/* Indexed by enum off_stat. */
extern const struct stat_row stat_rows[ST_N];
/* Indexed by enum device_stat; a group may be "". */
extern const struct stat_row device_rows[SD_N];

#define STATS_MAGIC	0x3174617473666f6cull	/* "lofstat1" */
#define STATS_VERSION	4
#define STATS_NAME	"offload-stats"

#define STATS_SITES	16
#define SITE_NAME_MAX	96

#define STATS_LOSSY	32
#define LOSSY_NAME_MAX	64

enum { STAT_FILE, STAT_HEAP };

/* Who holds much memory: a mapped file, or a place in the program that asked
 * the heap for it. */
struct stat_site {
	uint64_t bytes, blocks;		/* now; of a file: its mappings */
	uint64_t requests, asked;	/* heap: how many ever, and their bytes */
	uint32_t kind;			/* STAT_FILE, STAT_HEAP */
	char name[SITE_NAME_MAX];	/* ends with 0, unless it is not ours */
};

/* Tensors that OFFLOAD_LOSSY lets be kept rounded, and how far off they were when
 * they were packed: each packing counts. */
struct stat_lossy {
	uint64_t spans, bits;		/* tensors; 8 or 4 */
	uint64_t values;		/* that were packed so far */
	uint64_t error2, value2;	/* sums of squares: the bits of doubles */
	char name[LOSSY_NAME_MAX];	/* blk.*.attn_q.weight */
};

#define STATS_DEVICES	16
#define DEVICE_NAME_MAX	64

struct stat_device {
	char name[DEVICE_NAME_MAX];
	uint64_t v[SD_N];
};

/* The memfd's content. Header fields are written before magic, which is
 * written last, and not again; v and the texts change at any time. */
struct off_stats {
	uint64_t magic;
	uint32_t version;	/* STATS_VERSION */
	uint32_t n;		/* ST_N of the writer */
	int32_t pid;
	int32_t pad;
	uint64_t start_ns;	/* CLOCK_BOOTTIME */
	char command[120];	/* the command line, cut */
	char pager[16];
	char io_engine[16];
	uint64_t v[ST_N];
	uint32_t sites_seq;	/* odd: the list below is being written */
	uint32_t n_sites;
	struct stat_site site[STATS_SITES];	/* the largest first */
	uint32_t n_lossy, pad2;
	struct stat_lossy lossy[STATS_LOSSY];
	uint32_t devices, pad3;	/* a bit for each that is known */
	struct stat_device device[STATS_DEVICES];
};

/* Where counting goes now. Never NULL; changed by stats_start, stats_child. */
extern struct off_stats *off_stats_now;

/* On any thread, while the keeper may be moving it. */
static inline struct off_stats *stats_now(void)
{
	return __atomic_load_n(&off_stats_now, __ATOMIC_ACQUIRE);
}

static inline void stat_add(enum off_stat i, uint64_t n)
{
	__atomic_fetch_add(&stats_now()->v[i], n, __ATOMIC_RELAXED);
}

static inline void stat_sub(enum off_stat i, uint64_t n)
{
	__atomic_fetch_sub(&stats_now()->v[i], n, __ATOMIC_RELAXED);
}

static inline void stat_set(enum off_stat i, uint64_t n)
{
	__atomic_store_n(&stats_now()->v[i], n, __ATOMIC_RELAXED);
}

static inline void stat_max(enum off_stat i, uint64_t n)
{
	uint64_t *v = &stats_now()->v[i], was = __atomic_load_n(v, __ATOMIC_RELAXED);

	while (was < n &&
	       !__atomic_compare_exchange_n(v, &was, n, 1,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static inline uint64_t stat_get(const struct off_stats *s, enum off_stat i)
{
	return __atomic_load_n(&s->v[i], __ATOMIC_RELAXED);
}

/* Names the pager mode and the I/O engine in use; a NULL keeps what is there.
 * One thread at a time; a reader may see a name half written. */
void stats_names(const char *pager, const char *io_engine);

/* The list of the largest is the caller's to write, until it gives it back with
 * the number of entries. Any thread; NULL: somebody else is at it, and stays. */
struct off_stats *stats_sites_begin(void);
void stats_sites_end(struct off_stats *s, int n);
/* A copy of the list, whole if that can be had. Returns how many; names end. */
int stats_sites(const struct off_stats *s, struct stat_site out[STATS_SITES]);

/* Moves the counters to a memfd. Call once, from a library thread whose
 * descriptor table is private: the descriptor stays open in it. Counts made
 * by other threads during the call may be lost (a few).
 * Returns 0, or -errno; counting then goes on in the static block. */
int stats_start(void);

/* In the child of a fork, before anything counts there: what the parent
 * counted is not the child's. The parent's block stays mapped and unused. */
void stats_child(void);

/* Writes the JSON of one process, one line, no newline, keys in table order.
 * Returns its length without the final 0, or -ENOSPC. STATS_JSON_MAX bytes
 * always suffice. No malloc. */
#define STATS_JSON_MAX 65536
ssize_t stats_json(char *buf, size_t len, const struct off_stats *s);

/* Writes a few lines for people. As stats_json. */
ssize_t stats_summary(char *buf, size_t len, const struct off_stats *s);

/* Does what OFFLOAD_STATS asks for at the end of the process: nothing, the
 * summary to stderr, or the JSON and a newline to a path, whose "%p" becomes
 * the process id. A process in which nothing was counted has no summary, and
 * leaves a file that is there already as it is.
 * Returns 0, or -errno of the file. */
int stats_report(void);

/* Nanoseconds of CLOCK_BOOTTIME since s began. */
uint64_t stats_uptime_ns(const struct off_stats *s);

/* Bytes as "1.25 GiB", into buf; returns buf. */
const char *stats_bytes_text(uint64_t bytes, char *buf, size_t len);

#endif
