/* SPDX-License-Identifier: MIT */
/* outfile.h - files the library writes where an option names a path. */
#ifndef OFFLOAD_OUTFILE_H
#define OFFLOAD_OUTFILE_H

#include <stdbool.h>
#include <stddef.h>

/* Opens path for writing, emptied; a new file is its owner's alone (0600), and so
 * is an old one from then on. fresh: only if there is none. A symbolic link, and
 * a file that is somebody else's or has a second name, are refused: whoever
 * made them wants it written, or read, elsewhere. Devices and pipes are fine.
 * Any thread. The descriptor, or -errno: -ELOOP (a link), -EPERM (somebody
 * else's, or two names), -EEXIST and those of open(2). */
int outfile_open(const char *path, bool fresh);
/* What that error means, in words. */
const char *outfile_error(int err);

#endif
