/* SPDX-License-Identifier: MIT */
/* account.h - what the files of the scripted program share (account.c). */
#ifndef TESTS_CUDA_ACCOUNT_H
#define TESTS_CUDA_ACCOUNT_H

#include <stdio.h>
#include <unistd.h>

#include "interpose/cuda_abi.h"

#define KIB	1024ul
#define MIB	(1024 * KIB)
#define GRAN	(64 * KIB)	/* EMU_GRANULARITY of the script */

#define fail(...) do { \
	fprintf(stderr, "line %d: ", __LINE__); \
	fprintf(stderr, __VA_ARGS__); \
	fputc('\n', stderr); \
	_exit(1); } while (0)
#define is(call, err) do { \
	CUresult r_ = (call); \
	if (r_ != (err)) \
		fail("%s: %d, not %d", #call, r_, (int)(err)); } while (0)
#define ok(call) is(call, CUDA_SUCCESS)
#define refused(call) do { \
	if ((call) == CUDA_SUCCESS) \
		fail("%s: not refused", #call); } while (0)

struct expect {
	long managed_bytes, resident_bytes, pinned_bytes, regions, h2d_bytes, d2h_bytes,
	     launches, unread;
};

extern struct expect want[2];
extern CUcontext ctx[2];

/* Device memory of the program's, in the device: sign -1 when it ends. */
void have(int dev, long bytes, long regions);
/* Copied to the device, and from it. */
void moved(int dev, long h2d, long d2h);
/* So many bytes of the first device, expected from now on. */
CUdeviceptr get(size_t len);
CUfunction function(CUmodule m, const char *name);

/* account_more.c */
void captured(void);
void added(void);
void unloaded(void);
void pushed(void);
void pools_elsewhere(void);
void given_back(void);

#endif
