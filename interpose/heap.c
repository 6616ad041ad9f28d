/* SPDX-License-Identifier: MIT */
/* heap.c - the malloc family.
 *
 * (1) Small requests go to the next allocator by one tail call: a compare and
 *     a jump. Large ones are the heap's (core.h); by its address a block says
 *     whose it is.
 * (2) Looking for the next allocator may itself allocate: that is served from
 *     a little memory of our own, never given back.
 * (3) What the heap refuses goes to the next allocator too.
 * Lock: none.
 */
#include "interpose/interpose.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define SLOW __attribute__((noinline, cold))
#define PAGE_SIZE 4096UL

static struct {
	void *(*malloc)(size_t);
	void (*free)(void *);
	void *(*calloc)(size_t, size_t);
	void *(*realloc)(void *, size_t);
	void *(*memalign)(size_t, size_t);
	int (*posix_memalign)(void **, size_t, size_t);
	void *(*aligned_alloc)(size_t, size_t);
	void *(*valloc)(size_t);
	void *(*pvalloc)(size_t);
	size_t (*usable)(void *);
	int (*trim)(size_t);
} next;

/* ---- the next allocator ---------------------------------------------------- */

static char early[1 << 16] __attribute__((aligned(16)));
static size_t early_used;
static _Thread_local bool looking __attribute__((tls_model("initial-exec")));

static bool is_early(const void *p)
{
	return (size_t)((const char *)p - early) < sizeof(early);
}

/* One thread: the loader's lock is held by who is looking. */
static void *early_alloc(size_t size)
{
	char *p = early + early_used;

	size = (size + 31) & ~(size_t)15;
	if (size > sizeof(early) - early_used) {
		errno = ENOMEM;
		return NULL;
	}
	early_used += size;
	*(size_t *)p = size - 16;
	return p + 16;
}

static SLOW void look(void)
{
	looking = true;
	next.free = real_symbol("free");
	next.calloc = real_symbol("calloc");
	next.realloc = real_symbol("realloc");
	next.memalign = real_symbol("memalign");
	next.posix_memalign = real_symbol("posix_memalign");
	next.aligned_alloc = real_symbol("aligned_alloc");
	next.valloc = real_symbol("valloc");
	next.pvalloc = real_symbol("pvalloc");
	next.usable = real_symbol("malloc_usable_size");
	next.trim = real_symbol("malloc_trim");
	__atomic_store_n(&next.malloc, real_symbol("malloc"), __ATOMIC_RELEASE);
	looking = false;
}

/* True: the caller is being asked by the search itself. */
static inline bool unready(void)
{
	if (likely(next.malloc))
		return false;
	if (looking)
		return true;
	look();
	return false;
}

/* ---- malloc, free ------------------------------------------------------------ */

static SLOW void *malloc_slow(size_t size)
{
	void *p;

	if (unready())
		return early_alloc(size);
	p = size >= core_heap_min ? core_heap_alloc(size, 16, false) : NULL;
	return p ? p : next.malloc(size);
}

EXPORT void *malloc(size_t size)
{
	if (likely(size < core_heap_min && next.malloc))
		return next.malloc(size);
	return malloc_slow(size);
}

static SLOW void free_slow(void *p)
{
	if (core_heap_has(p))
		core_heap_free(p);
	else if (!is_early(p) && !unready())
		next.free(p);
}

EXPORT void free(void *p)
{
	if (likely(!core_heap_has(p) && !is_early(p) && next.free))
		next.free(p);
	else
		free_slow(p);
}

static SLOW void *calloc_slow(size_t n, size_t size)
{
	size_t bytes;
	void *p = NULL;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	if (unready())
		return early_alloc(bytes);	/* static memory: zeros */
	if (bytes >= core_heap_min)
		p = core_heap_alloc(bytes, 16, true);
	return p ? p : next.calloc(n, size);
}

EXPORT void *calloc(size_t n, size_t size)
{
	/* Neither alone nor together can they reach the heap's least size. */
	if (likely(n < 1u << 20 && size < 1u << 20 && n * size < core_heap_min && next.malloc))
		return next.calloc(n, size);
	return calloc_slow(n, size);
}

/* ---- realloc -------------------------------------------------------------------- */

/* p, whose first `bytes` count, becomes a block of size elsewhere. */
static void *copy_to(void *p, size_t bytes, size_t size)
{
	void *to = malloc(size);

	if (!to)
		return NULL;
	memcpy(to, p, bytes < size ? bytes : size);
	free(p);
	return to;
}

static SLOW void *realloc_slow(void *p, size_t size)
{
	void *to = NULL;

	if (!p)
		return malloc(size);
	if (is_early(p))
		return copy_to(p, ((size_t *)p)[-2], size);
	if (unready()) {
		errno = ENOMEM;
		return NULL;
	}
	if (core_heap_has(p)) {
		if (!size) {
			core_heap_free(p);
			return NULL;
		}
		if (size >= core_heap_min)
			to = core_heap_resize(p, size);
		return to ? to : copy_to(p, core_heap_usable(p), size);
	}
	/* From the next allocator's: ours if it grows to be large. */
	if (size >= core_heap_min) {
		size_t bytes = next.usable ? next.usable(p) : 0;

		to = bytes && bytes < size ? core_heap_alloc(size, 16, false) : NULL;
		if (to) {
			memcpy(to, p, bytes);
			next.free(p);
			return to;
		}
	}
	return next.realloc(p, size);
}

EXPORT void *realloc(void *p, size_t size)
{
	if (likely(p && size < core_heap_min && !core_heap_has(p) && !is_early(p) &&
		   next.malloc))
		return next.realloc(p, size);
	return realloc_slow(p, size);
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
	if (unready() || size < core_heap_min || !power_of_two(align))
		return NULL;
	return core_heap_alloc(size, align, false);
}

EXPORT int posix_memalign(void **out, size_t align, size_t size)
{
	void *p = align % sizeof(void *) ? NULL : aligned_large(align, size);

	if (p) {
		*out = p;
		return 0;
	}
	return unready() ? ENOMEM : next.posix_memalign(out, align, size);
}

EXPORT void *memalign(size_t align, size_t size)
{
	void *p = aligned_large(align, size);

	return p || unready() ? p : next.memalign(align, size);
}

EXPORT void *aligned_alloc(size_t align, size_t size)
{
	void *p = aligned_large(align, size);

	return p || unready() ? p : next.aligned_alloc(align, size);
}

EXPORT void *valloc(size_t size)
{
	void *p = aligned_large(PAGE_SIZE, size);

	return p || unready() ? p : next.valloc(size);
}

EXPORT void *pvalloc(size_t size)
{
	size_t up = (size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	void *p = up < size ? NULL : aligned_large(PAGE_SIZE, up);

	return p || unready() ? p : next.pvalloc(size);
}

/* ---- the rest ----------------------------------------------------------------------- */

EXPORT size_t malloc_usable_size(void *p)
{
	if (core_heap_has(p))
		return core_heap_usable(p);
	if (is_early(p))
		return ((size_t *)p)[-2];
	return unready() || !next.usable ? 0 : next.usable(p);
}

EXPORT int malloc_trim(size_t pad)
{
	return unready() || !next.trim ? 0 : next.trim(pad);
}
