/* SPDX-License-Identifier: MIT */
/* log.h - one line on stderr, once, naming the thing and the remedy. */
#ifndef OFFLOAD_LOG_H
#define OFFLOAD_LOG_H

#define OFF_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Writes "offload[pid]: " + message + newline to the program's stderr by raw write (never
 * stdout, no stdio, no malloc). Any thread, no lock. */
void off_log(const char *fmt, ...) OFF_PRINTF(1, 2);
/* Same, only when OFFLOAD_VERBOSE is at least `level`. */
void off_verbose(int level, const char *fmt, ...) OFF_PRINTF(2, 3);
/* Rule R1 or R4 broken: message, then the process stops: SIGABRT, whatever handler
 * the program has. Any thread, no lock. */
_Noreturn void off_fatal(const char *fmt, ...) OFF_PRINTF(1, 2);

#endif
