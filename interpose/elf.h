/* SPDX-License-Identifier: MIT */
/* elf.h - loaded objects, looked at without the loader's help. */
#ifndef OFFLOAD_ELF_H
#define OFFLOAD_ELF_H

#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Valid while the callback that got it runs. */
struct elf_object {
	const char *name;		/* its file; "" is the program */
	uintptr_t base, lo, hi;		/* load bias; first and past the last byte */
	const ElfW(Sym) *sym;
	const char *str;
	const uint32_t *gnu_hash;	/* or NULL */
	const uint32_t *sysv_hash;	/* or NULL */
	const ElfW(Half) *versym;	/* or NULL */
	const ElfW(Rela) *rela, *plt;
	size_t n_rela, n_plt;
};

/* Calls cb for each loaded object, in load order, until it returns non-zero;
 * returns that, or 0. The loader's list is locked meanwhile: cb may call this
 * again, and nothing that takes another lock of the loader's. Any thread. */
int elf_each(int (*cb)(const struct elf_object *o, void *arg), void *arg);

/* Where the object defines the symbol (its default version), or NULL. */
void *elf_symbol(const struct elf_object *o, const char *name);

/* True: the address is in the object. */
static inline bool elf_holds(const struct elf_object *o, const void *at)
{
	return (uintptr_t)at - o->lo < o->hi - o->lo;
}

/* True: the object's file is called prefix, and whatever follows. */
bool elf_named(const struct elf_object *o, const char *prefix);

/* Where the next object after the one that holds `after` defines the symbol, in
 * load order, or NULL. *prefix_ok, if not NULL: its file is called so. */
void *elf_next(const void *after, const char *name, const char *prefix, bool *prefix_ok);

/* How often objects were loaded and unloaded so far. Cheap. */
void elf_changes(unsigned long long *loads, unsigned long long *unloads);

/* Replaces the pointer at slot, which may lie in pages made read-only once
 * they were relocated. 0 or -errno. */
int elf_store(uintptr_t *slot, uintptr_t value);

#endif
