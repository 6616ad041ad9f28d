/* SPDX-License-Identifier: MIT */
/* elf.c - loaded objects, looked at without the loader's help.
 *
 * Owns nothing. (1) Only what is mapped is read: no file, no allocation, no call
 * that takes the loader's other lock, so it may run inside dlsym. (2) Symbols are
 * found by the object's own hash table; hidden versions are passed over.
 * Lock: the loader's, of the list of objects, by dl_iterate_phdr.
 */
#include "core/core.h"
#include "interpose/elf.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define HIDDEN_VERSION 0x8000u

/* ---- reading an object ------------------------------------------------------- */

/* The loader adds the load bias in place, but not everywhere. */
static uintptr_t absolute(const struct elf_object *o, uintptr_t p)
{
	return p >= o->base ? p : o->base + p;
}

static AT_START void read_dynamic(struct elf_object *o, const ElfW(Dyn) *d)
{
	size_t relative = 0, rela_bytes = 0, plt_bytes = 0;

	for (; d->d_tag != DT_NULL; d++) {
		uintptr_t p = absolute(o, d->d_un.d_ptr);

		switch (d->d_tag) {
		case DT_SYMTAB:		o->sym = (const void *)p; break;
		case DT_STRTAB:		o->str = (const void *)p; break;
		case DT_GNU_HASH:	o->gnu_hash = (const void *)p; break;
		case DT_HASH:		o->sysv_hash = (const void *)p; break;
		case DT_VERSYM:		o->versym = (const void *)p; break;
		case DT_RELA:		o->rela = (const void *)p; break;
		case DT_JMPREL:		o->plt = (const void *)p; break;
		case DT_RELASZ:		rela_bytes = d->d_un.d_val; break;
		case DT_PLTRELSZ:	plt_bytes = d->d_un.d_val; break;
		case DT_RELACOUNT:	relative = d->d_un.d_val; break;
		}
	}
	o->n_rela = o->rela ? rela_bytes / sizeof(*o->rela) : 0;
	o->n_plt = o->plt ? plt_bytes / sizeof(*o->plt) : 0;
	if (relative <= o->n_rela) {	/* those come first, and name nothing */
		o->rela += relative;
		o->n_rela -= relative;
	}
}

static AT_START bool read_object(struct elf_object *o, const struct dl_phdr_info *i)
{
	const ElfW(Dyn) *dyn = NULL;

	*o = (struct elf_object){ .name = i->dlpi_name ? i->dlpi_name : "",
				  .base = i->dlpi_addr, .lo = UINTPTR_MAX };
	for (int k = 0; k < i->dlpi_phnum; k++) {
		const ElfW(Phdr) *h = &i->dlpi_phdr[k];
		uintptr_t from = o->base + h->p_vaddr;

		if (h->p_type == PT_DYNAMIC)
			dyn = (const void *)from;
		if (h->p_type != PT_LOAD)
			continue;
		o->lo = from < o->lo ? from : o->lo;
		o->hi = from + h->p_memsz > o->hi ? from + h->p_memsz : o->hi;
	}
	if (o->lo > o->hi)
		return false;
	if (dyn)
		read_dynamic(o, dyn);
	return true;
}

struct each {
	int (*cb)(const struct elf_object *, void *);
	void *arg;
};

static AT_START int each_one(struct dl_phdr_info *i, size_t size, void *arg)
{
	const struct each *e = arg;
	struct elf_object o;

	return read_object(&o, i) ? e->cb(&o, e->arg) : 0;
}

AT_START int elf_each(int (*cb)(const struct elf_object *o, void *arg), void *arg)
{
	struct each e = { cb, arg };

	return dl_iterate_phdr(each_one, &e);
}

static AT_START int first_only(struct dl_phdr_info *i, size_t size, void *arg)
{
	unsigned long long *n = arg;

	n[0] = i->dlpi_adds;
	n[1] = i->dlpi_subs;
	return 1;
}

AT_START void elf_changes(unsigned long long *loads, unsigned long long *unloads)
{
	unsigned long long n[2] = { 0, 0 };

	dl_iterate_phdr(first_only, n);
	*loads = n[0];
	*unloads = n[1];
}

AT_START bool elf_named(const struct elf_object *o, const char *prefix)
{
	const char *slash = strrchr(o->name, '/');

	return !strncmp(slash ? slash + 1 : o->name, prefix, strlen(prefix));
}

/* ---- symbols ------------------------------------------------------------------ */

static void *value_of(const struct elf_object *o, uint32_t i, const char *name)
{
	const ElfW(Sym) *s = &o->sym[i];
	unsigned int type = ELF64_ST_TYPE(s->st_info);

	if (s->st_shndx == SHN_UNDEF || !s->st_value ||
	    ELF64_ST_BIND(s->st_info) == STB_LOCAL ||
	    (type != STT_FUNC && type != STT_NOTYPE) ||
	    (o->versym && o->versym[i] & HIDDEN_VERSION) ||
	    strcmp(o->str + s->st_name, name))
		return NULL;
	return (void *)(o->base + s->st_value);
}

static uint32_t gnu_hash(const char *name)
{
	uint32_t h = 5381;

	while (*name)
		h = h * 33 + (unsigned char)*name++;
	return h;
}

static void *by_gnu_hash(const struct elf_object *o, const char *name)
{
	const uint32_t *t = o->gnu_hash, *bucket, *chain;
	uint32_t n = t[0], first = t[1], words = t[2], shift = t[3], h, i;
	const uint64_t *bloom = (const uint64_t *)(t + 4);
	uint64_t word;
	void *at;

	h = gnu_hash(name);
	bucket = (const uint32_t *)(bloom + words);
	chain = bucket + n;
	if (!n || !words)
		return NULL;
	word = bloom[h / 64 % words];
	if (!(word >> h % 64 & word >> (h >> shift) % 64 & 1))
		return NULL;
	i = bucket[h % n];
	if (i < first)
		return NULL;
	for (;; i++) {
		if ((chain[i - first] | 1) == (h | 1) && (at = value_of(o, i, name)))
			return at;
		if (chain[i - first] & 1)
			return NULL;
	}
}

static void *by_sysv_hash(const struct elf_object *o, const char *name)
{
	const uint32_t *t = o->sysv_hash, *chain = t + 2 + t[0];
	uint32_t h = 0, top;
	void *at;

	for (const char *c = name; *c; c++) {
		h = (h << 4) + (unsigned char)*c;
		top = h & 0xf0000000;
		h = (h ^ top >> 24) & ~top;
	}
	for (uint32_t i = t[0] ? t[2 + h % t[0]] : 0; i; i = chain[i])
		if ((at = value_of(o, i, name)))
			return at;
	return NULL;
}

void *elf_symbol(const struct elf_object *o, const char *name)
{
	if (!o->sym || !o->str)
		return NULL;
	return o->gnu_hash ? by_gnu_hash(o, name) :
	       o->sysv_hash ? by_sysv_hash(o, name) : NULL;
}

struct next {
	const void *after;
	const char *name, *prefix;
	bool passed, prefix_ok;
	void *found;
};

static int look_further(const struct elf_object *o, void *arg)
{
	struct next *n = arg;

	if (!n->passed) {
		n->passed = elf_holds(o, n->after);
		return 0;
	}
	n->found = elf_symbol(o, n->name);
	n->prefix_ok = n->found && n->prefix && elf_named(o, n->prefix);
	return n->found != NULL;
}

AT_START void *elf_next(const void *after, const char *name, const char *prefix, bool *prefix_ok)
{
	struct next n = { .after = after, .name = name, .prefix = prefix };

	elf_each(look_further, &n);
	if (prefix_ok)
		*prefix_ok = n.prefix_ok;
	return n.found;
}

/* ---- writing ------------------------------------------------------------------ */

/* Whether the page can be written is asked of the kernel, by writing what is
 * there: it may be that the loader has not protected it yet. */
static bool writable(uintptr_t *slot)
{
	uintptr_t same = __atomic_load_n(slot, __ATOMIC_RELAXED);
	struct iovec from = { &same, sizeof(same) }, to = { slot, sizeof(same) };

	return syscall(SYS_process_vm_writev, getpid(), &from, 1, &to, 1, 0) ==
	       (ssize_t)sizeof(same);
}

int elf_store(uintptr_t *slot, uintptr_t value)
{
	uintptr_t page = (uintptr_t)slot & ~4095UL;
	int saved = errno, err = 0;
	bool locked = !writable(slot);

	if (locked && syscall(SYS_mprotect, page, 4096UL, PROT_READ | PROT_WRITE))
		err = -errno;
	if (!err)
		__atomic_store_n(slot, value, __ATOMIC_RELEASE);
	if (!err && locked)
		syscall(SYS_mprotect, page, 4096UL, PROT_READ);
	errno = saved;
	return err;
}
