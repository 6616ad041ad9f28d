/* SPDX-License-Identifier: MIT */
/* fault.h - failures put in at the seams of core/: what wrap.c and nth.c know
 * of each other.
 *
 * A process injects at one site, from its n-th call on (always) or at that one
 * (once). All calls of all sites are counted.
 */
#ifndef OFFLOAD_FAULT_H
#define OFFLOAD_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum way_to_fail { FAIL, AFTER, SHORT, TORN, FLIP, STALL, DIE };
enum verdict { RIGHT, STOP, NEVER };

enum site {
#define SYS(seam, name, ...) F_##name,
#define CTL SYS
#define FN SYS
#define IO SYS
#define IN SYS
#include "sites.def"
	F_N
#undef SYS
#undef CTL
#undef FN
#undef IO
#undef IN
};

struct site_row {
	const char *name, *seam;
	enum way_to_fail how;
	int err;
	enum verdict once, always;
};
extern const struct site_row site_rows[F_N];

/* Seen by the driver: in shared memory. */
struct fault {
	int site;		/* F_N: none, all is counted */
	uint32_t n;		/* from 1 */
	bool always;
	_Atomic bool armed;
	_Atomic uint32_t calls[F_N], hits;
	/* What the process saw at its end. */
	bool ended;
	uint32_t fds, own_fds;	/* the library's table; the program's, grown by */
	int mode;		/* enum mode */
	uint64_t memory;	/* bytes the library's heap holds */
	char names[2000];	/* of the library's descriptors */
	char left[200];		/* what was not given back, or "" */
};
extern struct fault *fault;

#define WORKS		4
#define VARIANTS	7
#define FILE_SIZE	((12ul << 20) + 12345)

struct work_row {
	const char *name;
	void (*run)(void);
	bool files;		/* all it holds can be read again from a file */
};
struct variant { const char *name, *env[4]; };
extern const struct work_row works[WORKS];
extern const struct variant variants[VARIANTS];
extern char dir[64], file_path[96];	/* nth.c: scratch, and a file of file_word */

uint64_t file_word(uint64_t i);
/* A case's process, from begin to end. */
_Noreturn void run_case(const struct work_row *w, const struct variant *v);

/* This call is to fail. */
bool fault_at(enum site s);

#endif
