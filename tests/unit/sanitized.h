/* SPDX-License-Identifier: MIT */
/* sanitized.h - which sanitizer a unit program was built with, as constants:
 * cases that cannot run under one are built with it all the same, and skipped.
 * Owns nothing. Lock: none.
 */
#ifndef OFFLOAD_SANITIZED_H
#define OFFLOAD_SANITIZED_H

#ifdef __SANITIZE_THREAD__
#define TSAN 1
#else
#define TSAN 0
#endif

#ifdef __SANITIZE_ADDRESS__
#define ASAN 1
#else
#define ASAN 0
#endif

#endif
