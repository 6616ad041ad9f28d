/* SPDX-License-Identifier: MIT */
#ifndef OFFLOAD_SPILL_H
#define OFFLOAD_SPILL_H
#include <stdbool.h>
#include <stdint.h>
int spill_open(void);
int spill_alloc(uint32_t bytes, uint64_t *ref);
void spill_free(uint64_t ref, uint32_t bytes);
bool spill_ours(uint64_t ref);
int spill_fds(uint64_t ref, int *direct, int *buffered);
uint64_t spill_offset(uint64_t ref);
void spill_written(uint64_t bytes);
uint64_t spill_wait_ns(uint64_t now_ns);
#endif
