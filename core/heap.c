/* SPDX-License-Identifier: MIT */
/* heap.c - who owns which addresses of the heap range.
 *
 * Owns a sorted list of pieces that cover [base, top) without gaps:
 *
 *   CLEAN, DIRTY (free) --alloc--> USED --free--> CLEAR --> CLEAN or DIRTY
 *                                        \--MAP_FIXED over it--> LOST
 *
 * (1) CLEAN reads as zeros; DIRTY keeps its memory for the next block, up to a
 *     cap. CLEAR is being cleared, outside the lock, and is nobody's.
 * (2) Free neighbours of one kind are one piece; lowest address first.
 * (3) Large blocks begin at a chunk, smaller ones are packed page by page.
 * (4) LOST addresses are the program's own mappings now and never come back.
 * Lock: `lock`, rank -1: before anon.c's, held across anon_grow only.
 */
#include "core/anon.h"
#include "core/core_int.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define PIECES_MAX	(1U << 20)
#define ALIGN_FROM	(8ul << 20)	/* blocks that begin at a chunk */
#define DIRTY_MAX	(64ul << 20)
#define SIZE_MOST	((size_t)HEAP_CHUNKS * CHUNK)
#define SIZE_LEAST	(1ul << 30)
#define SMALL_ZERO	(128ul << 10)	/* zeroed by hand */

enum kind { CLEAN, DIRTY, CLEAR, USED, LOST };

struct piece {
	uintptr_t lo;
	enum kind kind;
};

size_t core_heap_min = SIZE_MAX;
uintptr_t core_heap_base;
size_t core_heap_size;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct piece *piece;		/* [n].lo is the top */
static size_t n;
static size_t dirty;			/* bytes in DIRTY pieces */
static _Atomic uint64_t used;
static bool failed;			/* no range to be had */

uint64_t heap_used(void)
{
	return atomic_load_explicit(&used, memory_order_relaxed);
}

uintptr_t heap_top(void)
{
	return n ? piece[n].lo : core_heap_base;
}

void heap_fork_prepare(void)
{
	pthread_mutex_lock(&lock);
}

void heap_fork_done(void)
{
	pthread_mutex_unlock(&lock);
}

/* ---- the list; lock held ------------------------------------------------------- */

static size_t length(size_t i)
{
	return piece[i + 1].lo - piece[i].lo;
}

static bool is_free(enum kind k)
{
	return k == CLEAN || k == DIRTY;
}

/* The piece that holds addr. */
static size_t find(uintptr_t addr)
{
	size_t lo = 0, hi = n;

	while (hi - lo > 1) {
		size_t mid = (lo + hi) / 2;

		if (piece[mid].lo <= addr)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* A piece begins at addr from now on; its index. */
static size_t split(uintptr_t addr)
{
	size_t i;

	if (addr >= piece[n].lo)
		return n;
	i = find(addr);
	if (piece[i].lo == addr)
		return i;
	memmove(piece + i + 2, piece + i + 1, (n - i) * sizeof(*piece));
	piece[i + 1] = (struct piece){ addr, piece[i].kind };
	n++;
	return i + 1;
}

static void erase(size_t i)
{
	memmove(piece + i, piece + i + 1, (n - i) * sizeof(*piece));
	n--;
}

/* Joins piece i with neighbours of its kind, if it is free. */
static void join(size_t i)
{
	if (!is_free(piece[i].kind))
		return;
	if (i + 1 < n && piece[i + 1].kind == piece[i].kind)
		erase(i + 1);
	if (i && piece[i - 1].kind == piece[i].kind)
		erase(i);
}

static void count(enum kind k, size_t bytes, int sign)
{
	if (k == DIRTY)
		dirty += sign > 0 ? bytes : -bytes;
	if (k == USED)
		atomic_fetch_add(&used, sign > 0 ? bytes : -(uint64_t)bytes);
}

/* All of [lo, hi), piece by piece, becomes one of this kind. */
static void set(uintptr_t lo, uintptr_t hi, enum kind k)
{
	size_t i = split(lo), end = split(hi);

	for (size_t p = i; p < end; p++)
		count(piece[p].kind, length(p), -1);
	while (end > i + 1)
		erase(--end);
	piece[i].kind = k;
	count(k, hi - lo, 1);
	join(i);
}

/* ---- the range ------------------------------------------------------------------- */

static size_t size_wanted(void)
{
	size_t ram = (size_t)sysconf(_SC_PHYS_PAGES) * PAGE;
	size_t size = (8 * ram + SIZE_LEAST - 1) & ~(SIZE_LEAST - 1);
	struct rlimit rl;

	if (size > SIZE_MOST)
		size = SIZE_MOST;
	if (!getrlimit(RLIMIT_AS, &rl) && rl.rlim_cur != RLIM_INFINITY && size > rl.rlim_cur / 4)
		size = rl.rlim_cur / 4 & ~(CHUNK - 1);
	return size;
}

static bool reserve(void)
{
	size_t size = size_wanted();
	char *p = MAP_FAILED;

	for (; size >= SIZE_LEAST && p == MAP_FAILED; size /= 4) {
		p = off_sys_mmap(NULL, size + CHUNK, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p != MAP_FAILED)
			break;
	}
	piece = p == MAP_FAILED ? NULL : reserve_range(PIECES_MAX * sizeof(*piece));
	if (!piece)
		return false;
	core_heap_base = chunk_down((uintptr_t)p + CHUNK - 1);
	size = size & ~(CHUNK - 1);
	piece[0].lo = core_heap_base;
	n = 0;
	core_heap_size = size;
	return true;
}

static bool ready(void)
{
	if (!core_heap_size && !failed) {
		failed = !reserve();
		if (failed)
			core_heap_min = SIZE_MAX;
	}
	return !failed && n < PIECES_MAX - 8;
}

/* Adds room for at least bytes at the top. */
static bool grow(size_t bytes)
{
	uintptr_t top = piece[n].lo, to = chunk_down(top + bytes + CHUNK - 1);

	if (to - core_heap_base > core_heap_size || to < top || anon_grow(top, to))
		return false;
	piece[n].kind = CLEAN;
	piece[++n].lo = to;
	join(n - 1);
	return true;
}

/* ---- blocks ------------------------------------------------------------------------- */

static uintptr_t align_up(uintptr_t a, size_t align)
{
	return (a + align - 1) & ~(align - 1);
}

/* The lowest free place, or 0. */
static uintptr_t fit(size_t size, size_t align)
{
	for (size_t i = 0; i < n; i++) {
		uintptr_t a = align_up(piece[i].lo, align);

		if (is_free(piece[i].kind) && a >= piece[i].lo && a + size > a &&
		    a + size <= piece[i + 1].lo)
			return a;
	}
	return 0;
}

static uintptr_t fit_or_grow(size_t size, size_t align)
{
	uintptr_t a = fit(size, align);
	uintptr_t at = n && piece[n - 1].kind == CLEAN ? piece[n - 1].lo : piece[n].lo;

	if (a)
		return a;
	a = align_up(at, align);
	return a + size > a && grow(a + size - piece[n].lo) ? fit(size, align) : 0;
}

/* Lets free memory go until it is within the cap. */
static void purge(size_t cap)
{
	for (size_t i = 0; dirty > cap && i < n; i++) {
		uintptr_t lo = piece[i].lo, hi = piece[i + 1].lo;

		if (piece[i].kind != DIRTY)
			continue;
		set(lo, hi, CLEAR);
		pthread_mutex_unlock(&lock);
		anon_clear(lo, hi);
		pthread_mutex_lock(&lock);
		set(lo, hi, CLEAN);
		i = (size_t)-1;		/* the list was anybody's meanwhile */
	}
}

static uintptr_t take(size_t size, size_t align, bool *was_dirty)
{
	uintptr_t a = 0;

	pthread_mutex_lock(&lock);
	if (ready()) {
		a = fit(size, align);
		if (!a && dirty) {
			purge(0);	/* pieces that touch are one afterwards */
			a = fit(size, align);
		}
		if (!a)
			a = fit_or_grow(size, align);
	}
	if (a) {
		*was_dirty = piece[find(a)].kind == DIRTY;
		set(a, a + size, USED);
	}
	pthread_mutex_unlock(&lock);
	return a;
}

void *core_heap_alloc(size_t size, size_t align, bool zero)
{
	size_t bytes = page_up(size), was_dirty_bytes = bytes;
	bool was_dirty = false;
	int saved = errno;
	uintptr_t a;

	if (library_thread() || bytes < size || bytes > SIZE_MOST || align > SIZE_MOST)
		return NULL;
	if (bytes >= ALIGN_FROM && align < CHUNK)
		align = CHUNK;
	anon_admit(bytes);
	a = take(bytes, align < PAGE ? PAGE : align, &was_dirty);
	if (a && zero && was_dirty && was_dirty_bytes <= SMALL_ZERO)
		memset((void *)a, 0, bytes);
	else if (a && zero && was_dirty)
		anon_clear(a, a + bytes);
	errno = saved;
	return (void *)a;
}

/* Pages of a block, or of several, are free. */
static void give(uintptr_t lo, uintptr_t hi)
{
	size_t cap = anon_live() || torture() ? 0 : DIRTY_MAX;

	pthread_mutex_lock(&lock);
	set(lo, hi, DIRTY);
	purge(cap);
	pthread_mutex_unlock(&lock);
}

void core_heap_free(void *p)
{
	uintptr_t lo = (uintptr_t)p, hi = lo;
	int saved = errno;
	size_t i;

	pthread_mutex_lock(&lock);
	i = find(lo);
	if (piece[i].lo == lo && piece[i].kind == USED)
		hi = piece[i + 1].lo;
	pthread_mutex_unlock(&lock);
	if (hi == lo)
		off_fatal("free(%p): this is not the start of a block", p);
	give(lo, hi);
	errno = saved;
}

size_t core_heap_usable(const void *p)
{
	size_t bytes;

	pthread_mutex_lock(&lock);
	bytes = piece[find((uintptr_t)p) + 1].lo - (uintptr_t)p;
	pthread_mutex_unlock(&lock);
	return bytes;
}

/* ---- resizing ------------------------------------------------------------------------ */

/* [lo, hi), USED and the end of its block, is made longer where it is. */
static bool extend(uintptr_t hi, uintptr_t to)
{
	bool ok = false, was_dirty = false;

	anon_admit(to - hi);
	pthread_mutex_lock(&lock);
	if (hi == piece[n].lo)
		grow(to - hi);
	if (hi < piece[n].lo) {
		size_t i = find(hi);

		ok = is_free(piece[i].kind) && piece[i].lo == hi && piece[i + 1].lo >= to;
		was_dirty = ok && piece[i].kind == DIRTY;
	}
	if (ok) {
		size_t i;

		set(hi, to, USED);
		i = find(hi);		/* one block with what lies before */
		erase(i);
	}
	pthread_mutex_unlock(&lock);
	if (was_dirty)
		anon_clear(hi, to);	/* mremap's new pages are zeros */
	return ok;
}

/* [lo, hi) to a new place of bytes; NULL: there is none. */
static void *move(uintptr_t lo, uintptr_t hi, size_t bytes)
{
	void *to = core_heap_alloc(bytes, 1, true);

	if (!to)
		return NULL;
	anon_move((uintptr_t)to, lo, hi - lo < page_up(bytes) ? hi - lo : page_up(bytes));
	give(lo, hi);
	return to;
}

void *core_heap_resize(void *p, size_t size)
{
	uintptr_t lo = (uintptr_t)p, hi = lo + core_heap_usable(p);
	uintptr_t to = lo + page_up(size);
	int saved = errno;

	if (to < lo)
		return NULL;
	if (to > hi && !extend(hi, to))
		p = move(lo, hi, size);
	else if (to < hi)
		give(to, hi);
	errno = saved;
	return p;
}

/* ---- anonymous mappings ---------------------------------------------------------------- */

int core_heap_map(void **out, size_t len, int prot, int flags)
{
	const int fine = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_NONBLOCK;
	void *p;

	if (prot != (PROT_READ | PROT_WRITE) || !(flags & MAP_PRIVATE) || flags & ~fine ||
	    lock_future_set())
		return CORE_PASS;
	p = core_heap_alloc(len, 1, true);
	if (!p)
		return CORE_PASS;
	if (flags & MAP_POPULATE && !anon_live())
		off_sys_madvise(p, len, MADV_POPULATE_WRITE);
	*out = p;
	return 0;
}

/* The next run of one sort in [lo, hi): its end, and whether it is ours. */
static uintptr_t next_run(uintptr_t lo, uintptr_t hi, enum kind *k)
{
	uintptr_t end = hi;

	pthread_mutex_lock(&lock);
	if (!core_heap_has((void *)lo)) {
		*k = LOST;
		if (lo < core_heap_base && hi > core_heap_base)
			end = core_heap_base;
	} else if (lo >= piece[n].lo) {
		*k = CLEAN;
		end = core_heap_base + core_heap_size;
	} else {
		size_t i = find(lo);

		*k = piece[i].kind;
		end = piece[i + 1].lo;
	}
	pthread_mutex_unlock(&lock);
	return end < hi ? end : hi;
}

static void lose(uintptr_t lo, uintptr_t hi)
{
	pthread_mutex_lock(&lock);
	if (hi > piece[n].lo)
		grow(hi - piece[n].lo);
	if (hi <= piece[n].lo)
		set(lo, hi, LOST);
	pthread_mutex_unlock(&lock);
	anon_lose(lo, hi);
}

int core_heap_unmap(const void *addr, size_t len, bool fixed)
{
	uintptr_t lo = (uintptr_t)addr, hi = page_up(lo + len), end;
	int saved = errno, err = 0;
	enum kind k;

	if (lo % PAGE || !len || hi < lo)
		return CORE_PASS;	/* EINVAL */
	for (; lo < hi; lo = end) {
		end = next_run(lo, hi, &k);
		if (k == LOST && !fixed)
			err = off_sys_munmap((void *)lo, end - lo) ? -errno : err;
		else if (k != LOST && fixed)
			lose(lo, end);
		else if (k == USED)
			give(lo, end);
	}
	errno = saved;
	return fixed ? CORE_PASS : err;
}

/* Elsewhere, at *out, or nowhere: -errno. */
static int remap_fixed(void **out, uintptr_t lo, uintptr_t hi, size_t new_len)
{
	size_t bytes = hi - lo < page_up(new_len) ? hi - lo : page_up(new_len);
	void *to = off_sys_mmap(*out, new_len, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (to == MAP_FAILED)
		return -errno;
	memcpy(to, (void *)lo, bytes);
	give(lo, hi);
	return 0;
}

int core_heap_remap(void **out, void *addr, size_t len, size_t new_len, int flags)
{
	uintptr_t lo = (uintptr_t)addr, hi = page_up(lo + len), to = lo + page_up(new_len);
	int saved = errno, err = 0;
	enum kind k;

	if (lo % PAGE || !new_len || to < lo)
		return -EINVAL;
	if (next_run(lo, hi, &k) != hi || k != USED)
		return k == LOST ? CORE_PASS : -EFAULT;
	if (flags & MREMAP_DONTUNMAP || !len)
		return anon_live() || !len ? -EINVAL : CORE_PASS;
	if (flags & MREMAP_FIXED) {
		err = remap_fixed(out, lo, hi, new_len);
	} else {
		*out = addr;
		if (to < hi) {
			give(to, hi);
		} else if (to > hi && !extend(hi, to)) {
			*out = flags & MREMAP_MAYMOVE ? move(lo, hi, new_len) : NULL;
			err = *out ? 0 : -ENOMEM;
		}
	}
	errno = saved;
	return err;
}
