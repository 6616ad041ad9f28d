/* SPDX-License-Identifier: MIT */
/* device.h - what is known of device memory: part of core.h.
 *
 * Addresses are the device's, or the host's where the device reaches host memory:
 * they never overlap. A device is its number in the driver's list. Calls come from
 * the program's threads, inside the driver call they stand for; none of them calls
 * the driver. All return errno as it was.
 */
#ifndef OFFLOAD_DEVICE_H
#define OFFLOAD_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICES 16	/* more are not recorded */

enum device_kind {
	DEVICE_PLAIN,		/* cuMemAlloc and with a pitch */
	DEVICE_STREAM,		/* ordered by streams, from a pool */
	DEVICE_UNIFIED,		/* managed by the driver: on either side */
	DEVICE_MAPPED,		/* a handle of the program's, at an address of its own */
	DEVICE_FOREIGN,		/* another process's, opened here */
	DEVICE_PINNED,		/* host memory of the driver's */
	DEVICE_REGISTERED,	/* host memory of the program's, pinned */
	DEVICE_GLOBAL,		/* a variable of a module or library */
};

/* What happened to a region, for who wants to move it. */
enum device_mark {
	DEVICE_FILLED = 1,	/* by copies from the host */
	DEVICE_WRITTEN = 2,	/* by other copies, and by setting it */
	DEVICE_SHOWN = 4,	/* to another process or driver: must stay where it is */
	DEVICE_ENCODED = 8,	/* its address is in a tensor map */
	DEVICE_USED = 16,	/* its address was an argument of a launch */
};

struct device_region {
	uint64_t base, len;
	uintptr_t owner;	/* context whose end is its end; 0: none */
	uint64_t handle;	/* MAPPED: of what; GLOBAL: of which module or library */
	uint32_t id;		/* unique while it lives */
	uint32_t placed;	/* PLAIN: our own region of it (vmm.h); 0: the driver's */
	uint16_t marks;
	uint8_t kind;		/* enum device_kind */
	uint8_t dev;
};

/* ---- devices: device.c ------------------------------------------------------- */

/* True: calls are to be recorded. The first time, and while a thread of ours can
 * run, statistics become visible to others. Not inside another call of ours. */
bool device_begin(void);
/* The same without beginning anything: has device_begin been true? */
bool device_begun(void);

/* True: the device is known already. */
bool device_known(int dev);
/* Makes it known. uuid: 16 bytes, zeros: unknown. */
void device_meet(int dev, const char *name, uint64_t vram, const void *uuid);
/* The device with that uuid, or -1. */
int device_by_uuid(const void *uuid);
/* How many are known. */
int device_count(void);

/* What the program is told of a device's memory: in, what the driver says; out, what
 * OFFLOAD_VRAM and OFFLOAD_REPORT make of it. dev -1: a device not known yet. */
bool device_tells(void);	/* something else than the driver says */
void device_told(int dev, uint64_t *free, uint64_t *total);

void device_count_copy(int dev, uint64_t h2d, uint64_t d2h);
void device_count_launch(int dev);
/* A function the program found and that goes past us: said once by name, where
 * OFFLOAD_VERBOSE asks for it. */
void device_unhooked(const char *symbol);
/* A line for the user, as off_log. */
void device_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- regions: device_map.c ------------------------------------------------------ */

/* After the driver made it. What was known to be there is no more. False: it could
 * not be recorded. r->id and r->marks are set here. */
bool device_add(const struct device_region *r);
/* Before the driver frees what begins at base: it may be somebody else's straight
 * after. False: nothing known begins there. *was, if the driver refuses, is for
 * device_put_back. */
bool device_drop(uint64_t base, struct device_region *was);
void device_put_back(const struct device_region *was);
/* Every region in [base, base+len), or of an owner: after the driver did it. */
void device_drop_range(uint64_t base, uint64_t len);
/* gone, or NULL: called, without a lock, for each that is the program's own memory. */
void device_drop_owner(uintptr_t owner, void (*gone)(const struct device_region *r));
/* The variables of a module or library: before the driver unloads it. */
void device_drop_globals(uint64_t handle);
/* The region an address is in. No lock, and no slower for there being many. */
bool device_find(uint64_t addr, struct device_region *out);
void device_mark(uint64_t addr, unsigned int marks);

/* Physical memory of the program's own, by handle; it is gone when it was released
 * as often as retained (new counts) and is mapped nowhere. Mappings are regions. */
void device_handle_new(uint64_t handle, uint64_t len, int dev);
void device_handle_retain(uint64_t handle);
void device_handle_release(uint64_t handle);

/* ---- launches: device_launch.c ---------------------------------------------------- */

struct device_param { uint32_t offset, size; };	/* bytes, as the kernel sees them */

struct device_fn;
/* What is known of a function, or NULL: say it by device_fn_add. No lock. */
const struct device_fn *device_fn(uintptr_t handle);
/* n parameters in order; n below 0: they cannot be had. NULL: no memory. name may be
 * NULL. owner: the module or library it ends with, 0: not known. Holds until device_fn_forget. */
const struct device_fn *device_fn_add(uintptr_t handle, uintptr_t owner,
				      const struct device_param *p, int n, const char *name);
/* A number that no other function has, nor that handle once it was forgotten; 0: it is. */
uintptr_t device_fn_life(const struct device_fn *fn);
/* An owner goes (0: any may), and its functions with it: their handles may come again, as others. */
void device_fn_forget(uintptr_t owner);

/* ---- what images say of kernels: device_image.c. For drivers that do not tell ------- */

/* A module or library was loaded from an image: text, a card's, a container, or what points
 * to one. It is read here; of what is not understood nothing is known. */
void device_image(uintptr_t owner, const void *image);
/* A handle of the kernel of that name; another handle of the same; a library's module. */
void device_image_fn(uintptr_t handle, uintptr_t owner, const char *name);
void device_image_same(uintptr_t handle, uintptr_t as);
void device_image_module(uintptr_t module, uintptr_t library);
/* The same of an image in a file. */
void device_image_file(uintptr_t owner, const char *path);
/* The module or library goes, and what is known of its handles. */
void device_image_end(uintptr_t owner);
/* How many parameters a handle's kernel has, most at the most, to p; -1: not known. Its name
 * to `name`, cut to room (0: not wanted) and untouched if there is none. */
int device_image_params(uintptr_t handle, struct device_param *p, int most, char *name,
			size_t room);

/* The most words one launch can hold. */
#define DEVICE_WORDS 4096
/* Instead of a stream: a node of a graph, not a launch. */
#define DEVICE_NODE UINTPTR_MAX

/* A launch: every aligned word of its arguments that is an address of a region marks it
 * used, and goes on the tape. args: one pointer per parameter, or NULL and all of
 * them in `packed`, of so many bytes. */
void device_launch(int dev, uintptr_t stream, const struct device_fn *fn,
		   void *const *args, const void *packed, size_t bytes);

/* The driver knows no sizes, or the arguments are given in a way that is not read. */
bool device_unread(const struct device_fn *fn, void *const *args, const void *packed);
/* word() for every word of the arguments that is an address in a region or the end of one,
 * with its number among all words. Returns how many. */
uint32_t device_words(const struct device_fn *fn, void *const *args, const void *packed,
		      size_t bytes, void (*word)(uint32_t nth, uint64_t value, void *arg), void *arg);

struct device_word { uint32_t nth; uint64_t value; };

/* Arguments that are the program's but for some words: args, or bytes where they are
 * packed. */
#define DEVICE_PARAMS 512u
struct device_patched {
	void *args[DEVICE_PARAMS];
	_Alignas(16) char bytes[8192];
};

/* False: they are too many. */
bool device_patch(const struct device_fn *fn, void *const *args, const void *packed, size_t bytes,
		  uint32_t n, const struct device_word *word, struct device_patched *out);

/* ---- the tape: device_tape.c ------------------------------------------------------- */

/* OFFLOAD_TRACE is set and lines can be written. */
bool device_tape_on(void);
void device_tape_copy(int dev, const char *what, uint64_t addr, uint64_t bytes);

#endif
