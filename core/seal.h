/* SPDX-License-Identifier: MIT */
/* seal.h - what goes to the spill file, encrypted (OFFLOAD_ENCRYPT=1).
 * Internal to core/.
 *
 * Each spill file has a key of its own, made at random when the file is made,
 * by the one process that writes it. What is sealed gets a number (a counter of
 * that key) and a tag; both stay in memory, so that a slot that is changed on the
 * disk, or put back as it once was, does not open.
 *
 * Keys are the pager's to make and drop; sealing and opening: any thread, no
 * lock, no allocation, never on the fault path of a program thread.
 */
#ifndef OFFLOAD_SEAL_H
#define OFFLOAD_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEAL_KEYS	65	/* one for each spill file, and vmm_store.c's */
#define SEAL_STATE	512	/* bytes of a key made ready */

struct seal {
	uint64_t number;	/* 0: not sealed */
	uint8_t tag[16];
};

/* A way to do it. key: 32 bytes, state: SEAL_STATE, aligned to 16. */
struct seal_ops {
	const char *name;
	bool (*here)(void);	/* after seal_init */
	void (*ready)(void *state, const uint8_t *key);
	void (*make)(const void *state, struct seal *s, void *dst, const void *src,
		     size_t len);
	/* In place; 0 or -EBADMSG: buf then holds nothing of use. */
	int (*open)(const void *state, const struct seal *s, void *buf, size_t len);
};
extern const struct seal_ops seal_aes, seal_chacha;

/* Looks what the processor can. Any number of times. 0 or -ENOSYS. */
int seal_init(void);
/* A fresh key for spill file `file`, in memory that is not dumped. 0, or -errno:
 * there is none, and nothing may be written to that file. */
int seal_key_new(uint32_t file);
void seal_key_drop(uint32_t file);	/* wiped; none is fine */

/* Seals len bytes at src to dst (as many; may be src). s->number is to come from
 * seal_number, which no two calls answer alike for one key: pager. */
uint64_t seal_number(uint32_t file);
void seal_make(uint32_t file, struct seal *s, void *dst, const void *src, size_t len);
/* Opens in place. 0, or -EBADMSG: not the bytes that were sealed. */
int seal_open(uint32_t file, const struct seal *s, void *buf, size_t len);

/* What a key was made ready to, for tests. */
const void *seal_key_state(uint32_t file);

/* Rooms for sealed chunks on their way out. Pager. NULL: all are taken. */
char *seal_room(uint32_t chunk);
void seal_give(uint32_t chunk);		/* none is fine */
void seal_rooms_reset(void);		/* child of a fork */

#endif
