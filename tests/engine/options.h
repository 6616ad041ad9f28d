/* SPDX-License-Identifier: MIT */
/* options.h - command lines of the programs in this folder, by a table.
 *
 * Lock: none; read once, by the main thread.
 */
#ifndef ENGINE_OPTIONS_H
#define ENGINE_OPTIONS_H

#include <stdint.h>

/* One row per option: --NAME VALUE. */
struct option_row {
	const char *name;
	uint64_t *value;		/* holds the default */
	const char *choices;		/* "first second ...": the value is an index */
	uint64_t least, most;		/* else a number in this range */
	const char *help;
};

/* Reads the command line; rows end with a null name. Returns the one argument that
 * is no option, or NULL. Prints the table for --help; exits 2 for what it does not
 * know. */
const char *options_read(int argc, char **argv, const struct option_row *rows,
			 const char *usage);

#endif
