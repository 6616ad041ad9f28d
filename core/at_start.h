/* SPDX-License-Identifier: MIT */
/* at_start.h - what functions are marked with. What every process runs at its start and end
 * lies together: each page of it that is touched costs a fault. */
#ifndef OFFLOAD_AT_START_H
#define OFFLOAD_AT_START_H

#define AT_START __attribute__((section(".text.startup")))

/* The bytes its first argument points to are not looked at. Not every compiler asks. */
#ifdef __has_attribute
#if __has_attribute(access)
#define ADDRESS_ONLY __attribute__((access(none, 1)))
#endif
#endif
#ifndef ADDRESS_ONLY
#define ADDRESS_ONLY
#endif

#endif
