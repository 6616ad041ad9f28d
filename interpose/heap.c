/* SPDX-License-Identifier: MIT */
/* heap.c - the malloc family.
 *
 * (1) Small requests go to the next allocator by one tail call: a compare and
 *     a jump. Large ones are the heap's (core.h); by its address a block says
 *     whose it may be, and the heap knows.
 * (2) The table of the next allocator's functions begins with ones that look
 *     for it. Looking may itself allocate: that is served from a little memory
 *     of our own, never given back; if it ever is used, the functions that
 *     take a block look at its address first.
 * (3) What the heap refuses goes to the next allocator too.
 * Lock: none. Several threads may look at once, and find the same.
 */
#include "interpose/interpose.h"

#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define SLOW __attribute__((noinline, cold))
#define PAGE_SIZE 4096UL
#define EARLY_HEAD 16UL		/* before an early block: its size */

static void *first_malloc(size_t size);
static void first_free(void *p);
static void *first_calloc(size_t n, size_t size);
static void *first_realloc(void *p, size_t size);
static void *first_memalign(size_t align, size_t size);
static int first_posix_memalign(void **out, size_t align, size_t size);
static void *first_aligned_alloc(size_t align, size_t size);
static void *first_valloc(size_t size);
static void *first_pvalloc(size_t size);
static size_t first_usable(void *p);
static int first_trim(size_t pad);

struct allocator {
	void *(*malloc)(size_t);
	void (*free)(void *);
	void *(*calloc)(size_t, size_t);
	void *(*realloc)(void *, size_t);
	void *(*memalign)(size_t, size_t);
	int (*posix_memalign)(void **, size_t, size_t);
	void *(*aligned_alloc)(size_t, size_t);
	void *(*valloc)(size_t);
	void *(*pvalloc)(size_t);
	size_t (*usable)(void *);	/* may be NULL, as the next */
	int (*trim)(size_t);
};

/* What is called: entry by entry it becomes `real`, or stays careful. */
static struct allocator next = {
	first_malloc, first_free, first_calloc, first_realloc, first_memalign,
	first_posix_memalign, first_aligned_alloc, first_valloc, first_pvalloc,
	first_usable, first_trim,
};
static struct allocator real;
static bool found;
static uintptr_t code_lo, code_hi;	/* the next allocator's, if not libc's */

/* ---- before it is found ------------------------------------------------------ */

static char early[1 << 16] __attribute__((aligned(16)));
static size_t early_used;
static _Thread_local bool looking __attribute__((tls_model("initial-exec")));

static bool is_early(const void *p)
{
	return (size_t)((const char *)p - early) < sizeof(early);
}

static size_t early_size(const void *p)
{
	return *(const size_t *)((const char *)p - EARLY_HEAD);
}

/* Zeros. */
static SLOW void *early_alloc(size_t align, size_t size)
{
	size_t room = EARLY_HEAD + align + ((size + 15) & ~15UL), at;
	char *p;

	if (align > sizeof(early) || size > sizeof(early) || room > sizeof(early) ||
	    (at = __atomic_fetch_add(&early_used, room, __ATOMIC_RELAXED)) >
	    sizeof(early) - room) {
		errno = ENOMEM;
		return NULL;
	}
	p = (char *)(((uintptr_t)early + at + EARLY_HEAD + align - 1) & ~(align - 1));
	*(size_t *)(p - EARLY_HEAD) = size;
	return p;
}

/* ---- looking ------------------------------------------------------------------- */

static int note_code(struct dl_phdr_info *o, size_t size, void *arg)
{
	uintptr_t lo = UINTPTR_MAX, hi = 0, at = (uintptr_t)arg;

	for (int i = 0; i < o->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &o->dlpi_phdr[i];
		uintptr_t from = o->dlpi_addr + h->p_vaddr;

		if (h->p_type != PT_LOAD)
			continue;
		lo = from < lo ? from : lo;
		hi = from + h->p_memsz > hi ? from + h->p_memsz : hi;
	}
	if (at < lo || at >= hi)
		return 0;
	if ((uintptr_t)dl_iterate_phdr < lo || (uintptr_t)dl_iterate_phdr >= hi) {
		code_lo = lo;
		code_hi = hi;
	}
	return 1;
}

bool next_allocators(const void *code)
{
	return (uintptr_t)code - code_lo < code_hi - code_lo;
}

static void careful_free(void *p)
{
	if (!is_early(p))
		real.free(p);
}

static void *careful_realloc(void *p, size_t size)
{
	size_t old = is_early(p) ? early_size(p) : 0;
	void *to;

	if (!is_early(p))
		return real.realloc(p, size);
	to = malloc(size);
	return to ? memcpy(to, p, old < size ? old : size) : NULL;
}

static size_t careful_usable(void *p)
{
	if (is_early(p))
		return early_size(p);
	return real.usable ? real.usable(p) : 0;
}

/* Word by word: another thread calls through the table meanwhile, and the old
 * entries do as well. */
static void install(void)
{
	struct allocator a = real;
	void **from = (void **)&a, **to = (void **)&next;

	if (__atomic_load_n(&early_used, __ATOMIC_RELAXED)) {
		a.free = careful_free;
		a.realloc = careful_realloc;
		a.usable = careful_usable;
	}
	for (size_t i = 0; i < sizeof(a) / sizeof(*from); i++)
		__atomic_store_n(&to[i], from[i], __ATOMIC_RELEASE);
}

static __attribute__((noinline)) AT_START void look(void)
{
	bool outer = looking;

	looking = true;
	real.malloc = real_symbol("malloc");
	real.free = real_symbol("free");
	real.calloc = real_symbol("calloc");
	real.realloc = real_symbol("realloc");
	real.memalign = real_symbol("memalign");
	real.posix_memalign = real_symbol("posix_memalign");
	real.aligned_alloc = real_symbol("aligned_alloc");
	real.valloc = real_symbol("valloc");
	real.pvalloc = real_symbol("pvalloc");
	real.usable = real_symbol("malloc_usable_size");
	real.trim = real_symbol("malloc_trim");
	dl_iterate_phdr(note_code, (void *)real.malloc);
	install();
	__atomic_store_n(&found, true, __ATOMIC_RELEASE);
	looking = outer;
}

AT_START void heap_begin(void)
{
	if (!__atomic_load_n(&found, __ATOMIC_ACQUIRE))
		look();
}

static SLOW void *first_malloc(size_t size)
{
	if (looking)
		return early_alloc(16, size);
	look();
	return next.malloc(size);
}

static SLOW void first_free(void *p)
{
	if (!p || is_early(p))
		return;
	look();
	next.free(p);
}

static SLOW void *first_calloc(size_t n, size_t size)
{
	size_t bytes;

	if (looking)
		return __builtin_mul_overflow(n, size, &bytes) ? NULL :
			early_alloc(16, bytes);
	look();
	return next.calloc(n, size);
}

static SLOW void *first_realloc(void *p, size_t size)
{
	void *to;

	if (!looking) {
		look();
		return is_early(p) ? careful_realloc(p, size) : next.realloc(p, size);
	}
	to = early_alloc(16, size);
	if (to && is_early(p))
		memcpy(to, p, early_size(p) < size ? early_size(p) : size);
	return to;
}

static SLOW void *first_memalign(size_t align, size_t size)
{
	if (looking)
		return early_alloc(align < 16 ? 16 : align, size);
	look();
	return next.memalign(align, size);
}

static SLOW int first_posix_memalign(void **out, size_t align, size_t size)
{
	if (looking)
		return (*out = early_alloc(align < 16 ? 16 : align, size)) ? 0 : ENOMEM;
	look();
	return next.posix_memalign(out, align, size);
}

static SLOW void *first_aligned_alloc(size_t align, size_t size)
{
	if (looking)
		return early_alloc(align < 16 ? 16 : align, size);
	look();
	return next.aligned_alloc(align, size);
}

static SLOW void *first_valloc(size_t size)
{
	if (looking)
		return early_alloc(PAGE_SIZE, size);
	look();
	return next.valloc(size);
}

static SLOW void *first_pvalloc(size_t size)
{
	if (looking)
		return early_alloc(PAGE_SIZE, size);
	look();
	return next.pvalloc(size);
}

static SLOW size_t first_usable(void *p)
{
	if (is_early(p))
		return early_size(p);
	if (looking)
		return 0;
	look();
	return next.usable ? next.usable(p) : 0;
}

static SLOW int first_trim(size_t pad)
{
	if (looking)
		return 0;
	look();
	return next.trim ? next.trim(pad) : 0;
}

/* ---- malloc, free ------------------------------------------------------------ */

static SLOW void *malloc_large(size_t size)
{
	void *p = core_heap_alloc(size, 16, false);

	return p ? p : next.malloc(size);
}

EXPORT void *malloc(size_t size)
{
	if (likely(size < core_heap_min))
		return next.malloc(size);
	return malloc_large(size);
}

static SLOW void free_large(void *p)
{
	if (!core_heap_free(p))
		next.free(p);
}

EXPORT void free(void *p)
{
	if (likely(!core_heap_has(p)))
		next.free(p);
	else
		free_large(p);
}

static SLOW void *calloc_large(size_t n, size_t size)
{
	size_t bytes;
	void *p = NULL;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	if (bytes >= core_heap_min)
		p = core_heap_alloc(bytes, 16, true);
	return p ? p : next.calloc(n, size);
}

EXPORT void *calloc(size_t n, size_t size)
{
	/* Their product fits a word. */
	if (likely((n | size) < 1ul << 32 && n * size < core_heap_min))
		return next.calloc(n, size);
	return calloc_large(n, size);
}

/* ---- realloc -------------------------------------------------------------------- */

/* A block of the heap, old bytes long. */
static void *realloc_ours(void *p, size_t old, size_t size)
{
	void *to = NULL;

	if (!size) {
		core_heap_free(p);
		return NULL;
	}
	if (size >= core_heap_min)
		to = core_heap_resize(p, size);
	if (to)
		return to;
	to = malloc(size);
	if (!to)
		return NULL;
	memcpy(to, p, old < size ? old : size);
	core_heap_free(p);
	return to;
}

static SLOW void *realloc_large(void *p, size_t size)
{
	size_t old = core_heap_has(p) ? core_heap_usable(p) : 0;
	void *to = NULL;

	if (!p)
		return malloc(size);
	if (old)
		return realloc_ours(p, old, size);
	/* From the next allocator's: ours if it grows to be large. */
	if (size >= core_heap_min) {
		old = next.usable ? next.usable(p) : 0;
		to = old && old < size ? core_heap_alloc(size, 16, false) : NULL;
	}
	if (!to)
		return next.realloc(p, size);
	memcpy(to, p, old);
	next.free(p);
	return to;
}

EXPORT void *realloc(void *p, size_t size)
{
	if (likely(size < core_heap_min && !core_heap_has(p)))
		return next.realloc(p, size);
	return realloc_large(p, size);
}

EXPORT void *reallocarray(void *p, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, bytes);
}

/* ---- alignment -------------------------------------------------------------------- */

static bool power_of_two(size_t a)
{
	return a && !(a & (a - 1));
}

/* From the heap, or NULL: the next allocator is to be asked. */
static void *aligned_large(size_t align, size_t size)
{
	if (likely(size < core_heap_min) || !power_of_two(align))
		return NULL;
	return core_heap_alloc(size, align, false);
}

EXPORT int posix_memalign(void **out, size_t align, size_t size)
{
	void *p = align % sizeof(void *) ? NULL : aligned_large(align, size);

	if (!p)
		return next.posix_memalign(out, align, size);
	*out = p;
	return 0;
}

EXPORT void *memalign(size_t align, size_t size)
{
	void *p = aligned_large(align, size);

	return p ? p : next.memalign(align, size);
}

EXPORT void *aligned_alloc(size_t align, size_t size)
{
	void *p = aligned_large(align, size);

	return p ? p : next.aligned_alloc(align, size);
}

EXPORT void *valloc(size_t size)
{
	void *p = aligned_large(PAGE_SIZE, size);

	return p ? p : next.valloc(size);
}

EXPORT void *pvalloc(size_t size)
{
	size_t up = (size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	void *p = up < size ? NULL : aligned_large(PAGE_SIZE, up);

	return p ? p : next.pvalloc(size);
}

/* ---- the rest ----------------------------------------------------------------------- */

EXPORT size_t malloc_usable_size(void *p)
{
	size_t ours = core_heap_has(p) ? core_heap_usable(p) : 0;

	return ours ? ours : next.usable ? next.usable(p) : 0;
}

EXPORT int malloc_trim(size_t pad)
{
	return next.trim ? next.trim(pad) : 0;
}
