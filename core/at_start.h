/* SPDX-License-Identifier: MIT */
/* at_start.h - what every process runs at its start and end lies together: each page
 * of it that is touched costs a fault. */
#ifndef OFFLOAD_AT_START_H
#define OFFLOAD_AT_START_H

#define AT_START __attribute__((section(".text.startup")))

#endif
