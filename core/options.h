/* SPDX-License-Identifier: MIT */
/* options.h - the OFFLOAD_ variables, read once.
 *
 * off_opt holds the defaults from the start, so it may be read before
 * options_read, and is never written after it: no lock.
 */
#ifndef OFFLOAD_OPTIONS_H
#define OFFLOAD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPT_SIZE_MAX (1ull << 50)

enum { OPT_PAGER_AUTO, OPT_PAGER_MOVE, OPT_PAGER_COPY, OPT_PAGER_HINTS,
       OPT_PAGER_OFF };
enum { OPT_REPORT_POOL, OPT_REPORT_VRAM, OPT_REPORT_PHYSICAL };
enum { OPT_STAGE_OFF, OPT_STAGE_SAFE, OPT_STAGE_AHEAD };
enum { OPT_DEVICE_AUTO, OPT_DEVICE_VMM, OPT_DEVICE_UVM, OPT_DEVICE_OFF };
enum { OPT_IO_AUTO, OPT_IO_URING, OPT_IO_PREAD };
enum { OPT_DIRECT_AUTO, OPT_DIRECT_ON, OPT_DIRECT_OFF };
enum { OPT_SIMD_AUTO, OPT_SIMD_PORTABLE, OPT_SIMD_AVX2, OPT_SIMD_AVX512 };

#define OPT_CTYPE_SIZE	uint64_t
#define OPT_CTYPE_NUM	uint64_t
#define OPT_CTYPE_ENUM	uint64_t
#define OPT_CTYPE_PATH	const char *
#define OPT_CTYPE_GLOB	const char *
#define OPT_CTYPE_RULE	const char *
#define OPT_CTYPE_OUT	const char *

/* Immutable after options_read. Texts are copies: a program may overwrite
 * its environment (setproctitle), and ours must not change with it. */
struct off_options {
#define OPT(type, name, field, def, min, max, words, help) \
	OPT_CTYPE_##type field;
#include "options.def"
#undef OPT
};

extern struct off_options off_opt;

enum opt_type { OPT_SIZE, OPT_NUM, OPT_ENUM, OPT_PATH, OPT_GLOB,
		OPT_RULE, OPT_OUT };

struct opt_row {
	const char *name;	/* without OFFLOAD_ */
	enum opt_type type;
	size_t offset;		/* of the field in struct off_options */
	uint64_t min, max;	/* SIZE and NUM */
	const char *words;	/* ENUM, RULE: "a|b|c" */
	const char *help;
};

/* Reads every OFFLOAD_ variable of envp into off_opt. An unset or empty one
 * keeps its default. Cheap when there is none. Call once, before any thread;
 * a constructor may. Each bad variable is told in one line on stderr and
 * skipped, the rest is still read.
 * Returns 0, or -EINVAL: a name is unknown or a value malformed; the caller
 * then passes everything through, or with off_opt.strict ends the process. */
int options_read(char **envp);

/* Calls cb for each row in table order, until it returns non-zero, and
 * returns what the last call returned. */
int options_each(int (*cb)(const struct opt_row *row, void *arg), void *arg);

/* Writes what the row accepts ("bytes, or with K, M, G, T") to buf, and
 * returns buf. 128 bytes suffice for every row. */
const char *options_accepted(const struct opt_row *row, char *buf, size_t len);

/* Writes the row's value in *o as a user would type it; unset texts give "".
 * Returns buf. */
const char *options_value(const struct opt_row *row, const struct off_options *o,
			  char *buf, size_t len);

/* The defaults, for help. Immutable. */
extern const struct off_options off_opt_default;

/* Parses "512", "32M", "2.5G", "1GiB" into bytes. Any thread.
 * Returns 0, -EINVAL not a size, -ERANGE above OPT_SIZE_MAX. */
int options_size(const char *text, uint64_t *bytes);

/* Writes bytes with the largest suffix that divides it evenly: 32M, 1000.
 * Returns buf. */
const char *options_size_text(uint64_t bytes, char *buf, size_t len);

/* Whether path matches a comma-separated list of patterns (*, ?). A pattern
 * with a slash is matched with the whole path, any other with its last part;
 * the pattern "all" matches everything. False for a NULL list. No malloc, no
 * locale, any thread: fnmatch(3) promises neither. */
bool options_glob(const char *list, const char *path);

#endif
