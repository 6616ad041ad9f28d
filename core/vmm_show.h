/* SPDX-License-Identifier: MIT */
/* vmm_show.h - keys and trials (vmm_show.c), for vmm_stage.c which makes them. */
#ifndef OFFLOAD_VMM_SHOW_H
#define OFFLOAD_VMM_SHOW_H

#include "core/vmm_stage.h"

#define VMM_KEYS	8192u	/* power of two */
#define VMM_TRIALS	64u

enum vmm_key_state {
	VMM_NEW, VMM_READY, VMM_TRIED, VMM_PROBED, VMM_SHOWN, VMM_BAD,
};

struct vmm_key {
	uintptr_t fn;		/* 0: unused */
	uint64_t start, serial;
	uint32_t word, region, epoch;
	uint16_t times;		/* trials that changed nothing */
	uint8_t state;
};

enum { VMM_UNUSED, VMM_MADE, VMM_ARMED };

struct vmm_trial {
	uint32_t state;
	uint32_t region, epoch, n_keys, n_words;
	uint64_t serial;
	uintptr_t event, ctx;	/* event 0: to be made */
	bool probe;
	uint32_t key[VMM_WORDS];	/* numbers */
	uint64_t word[VMM_WORDS];	/* all of the launch's addresses */
};

extern struct vmm_key vmm_keys[VMM_KEYS];
extern struct vmm_trial vmm_trials[VMM_TRIALS];
extern _Atomic uint32_t vmm_news;

/* Lock held. NULL: there are too many. */
struct vmm_key *vmm_key(const struct vmm_region *r, uintptr_t fn, uint32_t word, uint64_t start);
void vmm_started(struct vmm_shown *s, uint64_t start);

/* Nothing but copies from the host has touched it, and nobody else knows of it. */
bool vmm_only_filled(const struct vmm_region *r);

#endif
