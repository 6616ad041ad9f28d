/* SPDX-License-Identifier: MIT */
/* budget_int.h - shared by core/budget.c and core/budget_find.c alone.
 *
 * Calls of one struct budget's owner; no locks.
 */
#ifndef OFFLOAD_BUDGET_INT_H
#define OFFLOAD_BUDGET_INT_H

#include "budget.h"

#define BUDGET_PATH_LEN 4096

/* Opens dir/name, or dir when name is empty, for reading, below
 * OFFLOAD_SYSROOT. Returns a descriptor, or -1. */
int budget_open_at(const char *dir, const char *name);

/* Finds the process's memory cgroup in version 1 or 2: its directory, below
 * OFFLOAD_SYSROOT, and in *top the length of the part above which there is
 * nothing to see. Returns 1, or 0: not in one, or it is not mounted. */
int budget_find(int version, char *dir, size_t len, size_t *top);

#endif
