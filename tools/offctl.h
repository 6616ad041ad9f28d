/* SPDX-License-Identifier: MIT */
/* offctl.h - what the files of offctl share.
 *
 * Every command is `int cmd_X(int argc, char **argv)`: argv[0] is the name
 * for messages ("offctl X"), the result is the exit status. Status 2 is wrong
 * usage throughout. Everything runs on one thread unless a file says
 * otherwise; no locks.
 */
#ifndef OFFCTL_H
#define OFFCTL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "core/stats.h"
#include "core/trial.h"
#include "policy/policy.h"

#define EXIT_USAGE 2

int cmd_run(int argc, char **argv);
int cmd_stats(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_simulate(int argc, char **argv);

/* ---- offctl.c ------------------------------------------------------------ */

/* Parses a size argument, or says what is wrong and ends with EXIT_USAGE. */
uint64_t size_arg(const char *option, const char *text);
/* A number with a fraction above 0, the same way. */
double number_arg(const char *option, const char *text);

/* Nanoseconds of a clock: CLOCK_MONOTONIC ... */
uint64_t clock_ns(clockid_t clock);

/* Finds liboffload.so: OFFLOAD_LIB, beside offctl, or in ../lib from it.
 * Returns 0 and an absolute path, or -ENOENT. */
int find_library(char *out, size_t len);

/* ---- offctl_target.c ----------------------------------------------------- */

/* Looks at the program that executing path would start, through scripts to
 * their interpreter. Returns 0: the library can be preloaded. 1: it cannot,
 * why says so. -errno: path cannot be read, nothing is known. */
int target_check(const char *path, char *why, size_t len);

/* ---- offctl_find.c ------------------------------------------------------- */

/* Copies the statistics of one process. Returns 0, or -ESRCH no such process,
 * -EACCES not ours to read, -ENOENT the library does nothing in it, -EPROTO
 * written by another version of the library. */
int find_stats(int pid, struct off_stats *out);

/* Calls cb for every process this user may read that has statistics, in
 * order of pid. Root reads all. */
void each_stats(void (*cb)(const struct off_stats *s, void *arg), void *arg);

/* Why find_stats failed, for people. */
const char *find_reason(int err);

/* Stall time in per cent of wall time. */
double stall_share(uint64_t stall_ns, uint64_t wall_ns);

/* ---- offctl_tape.c ------------------------------------------------------- */

struct tape {
	uint32_t chunk_bytes, chunks;
	struct pol_use *uses;
	size_t n_uses;
	struct pol_span *spans;
	size_t n_spans;
};

/* Reads a tape. Returns 0, or -errno, or -EBADMSG with a message on stderr
 * that names the line. Free with tape_free in every case. */
int tape_read(const char *path, struct tape *t);
void tape_free(struct tape *t);

/* ---- offctl_doctor*.c ---------------------------------------------------- */

enum finding { FOUND_OK, FOUND_LESS, FOUND_NONE, FOUND_INFO };

/* Prints one finding: what was found, what it costs, how to mend it; the last
 * two may be NULL. */
void tell(enum finding f, const char *what, const char *cost,
	  const char *mend, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

/* What userfaultfd allows here, found by doing it. */
enum uffd_mode { UFFD_REFUSED, UFFD_USER_ONLY, UFFD_FULL };
struct uffd_found {
	enum uffd_mode mode;
	int err;		/* of the full attempt, positive */
	bool by_device;		/* through /dev/userfaultfd */
	bool move, write_protect, remap_event;
	uint64_t features;
};
void probe_uffd(struct uffd_found *out);

/* Checks O_DIRECT on a file system and measures reading: 2 MiB blocks, eight
 * at a time, for half a second, from `file` or from a temporary file in dir.
 * Prints its findings. */
void probe_disk(const char *dir, const char *file);

/* ---- offctl_disk.c, offctl_memory.c: rates, for plan ---------------------- */

#define DISK_DEPTH 8		/* reads at a time while a disk is measured */

/* Measures reading the file, O_DIRECT, a second in all: bytes/s with the
 * processors idle, and with so many of them busy. Returns 0, or -errno:
 * -EINVAL no O_DIRECT, -ENODATA too short. */
int disk_rates(const char *file, int cores, double *idle, double *busy);

/* Processors this process may use. */
int cores_here(void);
/* Bytes/s that so many threads together read from memory, or 0: it could not be
 * measured. A fifth of a second, and 32 MiB each (1 GiB at most in all). */
double memory_rate(int cores);

/* ---- offctl_model.c ------------------------------------------------------- */

#define MODEL_CLASSES 15

/* Tensors of one element type and one pattern of use; there may be none. */
struct model_class {
	uint64_t bytes, tensors;
	double uses;		/* of a byte in one pass */
	struct trial_sum trial;	/* of some chunks */
};

struct model {
	struct model_class class[MODEL_CLASSES];
	uint32_t experts, experts_used;	/* used: 0 where nobody says */
};

/* "bf16 loop" and the like, in buf; 32 bytes suffice. */
const char *model_class_name(unsigned int class, char *buf, size_t len);
/* Adds a model file: reads its header, and some chunks of it to try packing.
 * Returns 0, or 1: it said why not. */
int model_add(struct model *m, const char *path);
/* Sets the uses of all classes once all files are added, and experts_used to a
 * guess where nobody says. */
void model_uses(struct model *m);

#endif
