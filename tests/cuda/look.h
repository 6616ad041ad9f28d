/* SPDX-License-Identifier: MIT */
/* look.h - what the look-up programs share.
 *
 * A program exits 0 if all is as it must be, says what is not and exits 1. With
 * WANT_HOOKS=1 in its environment functions of the driver must come from the library,
 * else from the driver.
 */
#ifndef CUDA_LOOK_H
#define CUDA_LOOK_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define check(cond, ...) do { \
	if (!(cond)) { \
		fprintf(stderr, "line %d: not (%s): ", __LINE__, #cond); \
		fprintf(stderr, __VA_ARGS__); \
		fputc('\n', stderr); \
		exit(1); \
	} } while (0)

static inline bool want_hooks(void)
{
	const char *want = getenv("WANT_HOOKS");

	return want && *want == '1';
}

/* The file that holds the address. */
static inline const char *file_of(const void *at)
{
	Dl_info info;
	const char *slash;

	if (!at || !dladdr(at, &info) || !info.dli_fname)
		return "";
	slash = strrchr(info.dli_fname, '/');
	return slash ? slash + 1 : info.dli_fname;
}

static inline bool is_hook(const void *at)
{
	return !strcmp(file_of(at), "liboffload.so");
}

#endif
