/* SPDX-License-Identifier: MIT */
/* heap.c - who owns which addresses of the heap range.
 *
 * Owns a sorted list of pieces that cover [base, top) without gaps:
 *
 *   CLEAN, DIRTY (free) --malloc--> USED ----free--> DIRTY --> CLEAR --> CLEAN
 *                       \--mmap--> MAPPED --munmap--^
 *                                      \--MAP_FIXED over it--> LOST
 *
 * (1) CLEAN reads as zeros; DIRTY keeps its memory for the next block, up to a
 *     cap. CLEAR is being cleared, outside the lock, and is nobody's: who maps
 *     over it waits, or the clearing would hit the new mapping.
 * (2) Free neighbours of one kind are one piece; lowest address first.
 * (3) Large blocks begin at a chunk, smaller ones are packed page by page.
 * (4) LOST addresses are the program's own mappings now and never come back.
 *     They stay reserved when it unmaps them: in a hole the kernel would put
 *     things that are taken for ours by their address.
 * (5) Only USED pieces are malloc's. The next allocator may live in a MAPPED
 *     one: what is freed there is not ours.
 * Lock: `lock`, rank -1: before anon.c's, held across anon_grow only. Signals
 * are blocked while it is held: a handler may call munmap.
 */
#include "core/anon.h"
#include "core/core_int.h"
#include "core/sites.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define PIECES_MAX	(1U << 20)
#define PIECES_ROOM	8	/* what a call may add */
#define ALIGN_FROM	(8ul << 20)	/* blocks that begin at a chunk */
#define DIRTY_MAX	(64ul << 20)
#define SIZE_MOST	((size_t)HEAP_CHUNKS * CHUNK)
#define SIZE_LEAST	(1ul << 30)
#define SMALL_ZERO	(128ul << 10)	/* zeroed by hand */
#define ADDRESSES	(1ul << 47)	/* of a program */

enum kind { CLEAN, DIRTY, CLEAR, USED, MAPPED, LOST };

struct piece {
	uintptr_t lo;
	enum kind kind;
	uint32_t site;		/* a block's: who asked for it */
};

size_t core_heap_min = SIZE_MAX;
/* Until there is a heap: with either size no address of a program's is in it,
 * so that who looks while it is reserved sees nothing odd. */
uintptr_t core_heap_base = 1ul << 63;
size_t core_heap_size;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sigset_t mask;			/* of the holder */
static struct piece *piece;		/* [n].lo is the top */
static size_t n;
static uintptr_t edge;			/* the heap may not grow beyond */
static size_t dirty;			/* bytes in DIRTY pieces */
static _Atomic uint64_t used;
static bool failed;			/* no range to be had */
static _Atomic bool barred;		/* some of it was made unreadable or read-only */

uint64_t heap_used(void)
{
	return atomic_load_explicit(&used, memory_order_relaxed);
}

static void heap_lock(void)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pthread_mutex_lock(&lock);
	mask = old;
}

static void heap_unlock(void)
{
	sigset_t old = mask;

	pthread_mutex_unlock(&lock);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
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

static bool is_block(enum kind k)
{
	return k == USED || k == MAPPED;
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
	piece[i + 1] = (struct piece){ addr, piece[i].kind, piece[i].site };
	if (is_block(piece[i].kind))
		sites_count(piece[i].site, 0, 1);
	n++;
	return i + 1;
}

static void erase(size_t i)
{
	memmove(piece + i, piece + i + 1, (n - i) * sizeof(*piece));
	n--;
}

/* Joins piece i with neighbours of its kind; blocks stay apart, and what is
 * being cleared belongs to who clears it. */
static void join(size_t i)
{
	if (!is_free(piece[i].kind) && piece[i].kind != LOST)
		return;
	if (i + 1 < n && piece[i + 1].kind == piece[i].kind)
		erase(i + 1);
	if (i && piece[i - 1].kind == piece[i].kind)
		erase(i);
}

static void count(const struct piece *p, size_t bytes, int sign)
{
	if (p->kind == DIRTY)
		dirty += sign > 0 ? bytes : -bytes;
	if (!is_block(p->kind))
		return;
	atomic_fetch_add(&used, sign > 0 ? bytes : -(uint64_t)bytes);
	sites_count(p->site, sign * (int64_t)bytes, sign);
}

/* All of [lo, hi), piece by piece, becomes one of this kind. */
static void set_block(uintptr_t lo, uintptr_t hi, enum kind k, uint32_t site)
{
	size_t i = split(lo), end = split(hi);

	for (size_t p = i; p < end; p++)
		count(&piece[p], length(p), -1);
	while (end > i + 1)
		erase(--end);
	piece[i].kind = k;
	piece[i].site = site;
	count(&piece[i], hi - lo, 1);
	join(i);
}

static void set(uintptr_t lo, uintptr_t hi, enum kind k)
{
	set_block(lo, hi, k, SITE_EARLY);	/* nobody's */
}

/* ---- the range ------------------------------------------------------------------- */

/* Address space of this process, in bytes; 0: unknown. */
static size_t mapped_now(void)
{
	int fd = off_sys_open("/proc/self/statm", O_RDONLY | O_CLOEXEC, 0);
	char buf[32];
	ssize_t got = fd < 0 ? 0 : off_sys_read(fd, buf, sizeof(buf));
	size_t pages = 0;

	if (fd >= 0)
		off_sys_close(fd);
	for (ssize_t i = 0; i < got && buf[i] >= '0' && buf[i] <= '9'; i++)
		pages = 10 * pages + (size_t)(buf[i] - '0');
	return pages * PAGE;
}

static size_t size_wanted(void)
{
	size_t ram = (size_t)sysconf(_SC_PHYS_PAGES) * PAGE;
	size_t size = (8 * ram + SIZE_LEAST - 1) & ~(SIZE_LEAST - 1);
	struct rlimit rl;

	if (size > SIZE_MOST)
		size = SIZE_MOST;
	if (!getrlimit(RLIMIT_AS, &rl) && rl.rlim_cur != RLIM_INFINITY) {
		size_t now = mapped_now(), left = rl.rlim_cur > now ? rl.rlim_cur - now : 0;

		size = size > left / 2 ? left / 2 : size;
	}
	return size & ~(CHUNK - 1);
}

/* The size is stored last: with it core_heap_has begins to say yes. */
static bool reserve(void)
{
	size_t size = size_wanted();
	char *p = MAP_FAILED;

	for (; size >= SIZE_LEAST; size = size / 4 & ~(CHUNK - 1)) {
		p = off_sys_mmap(NULL, size + CHUNK, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p != MAP_FAILED)
			break;
	}
	if (p == MAP_FAILED)
		return false;
	piece = reserve_range(PIECES_MAX * sizeof(*piece));
	if (!piece) {
		off_sys_munmap(p, size + CHUNK);
		return false;
	}
	n = 0;
	piece[0].lo = chunk_down((uintptr_t)p + CHUNK - 1);
	edge = piece[0].lo + size;
	__atomic_store_n(&core_heap_base, piece[0].lo, __ATOMIC_RELEASE);
	__atomic_store_n(&core_heap_size, size, __ATOMIC_RELEASE);
	return true;
}

static bool ready(void)
{
	if (!core_heap_size && !failed) {
		failed = !reserve();
		if (failed)
			core_heap_min = SIZE_MAX;
	}
	return !failed && n < PIECES_MAX - PIECES_ROOM;
}

void heap_reserve(void)
{
	heap_lock();
	ready();
	heap_unlock();
}

/* Adds room for at least bytes at the top. */
static bool grow(size_t bytes)
{
	uintptr_t top = piece[n].lo, to = chunk_down(top + bytes + CHUNK - 1);

	if (to > edge || to < top || anon_grow(top, to))
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
		heap_unlock();
		anon_clear(lo, hi);
		heap_lock();
		set(lo, hi, CLEAN);
		i = (size_t)-1;		/* the list was anybody's meanwhile */
	}
}

static uintptr_t take(size_t size, size_t align, enum kind k, uint32_t site, bool *was_dirty)
{
	uintptr_t a = 0;

	heap_lock();
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
		set_block(a, a + size, k, site);
		sites_asked(site, size);
	}
	heap_unlock();
	return a;
}

static void *alloc(size_t size, size_t align, bool zero, enum kind k)
{
	size_t bytes = page_up(size);
	bool was_dirty = false;
	int saved = errno;
	uintptr_t a;

	if (library_thread() || bytes < size || bytes > SIZE_MOST || align > SIZE_MOST)
		return NULL;
	if (bytes >= ALIGN_FROM && align < CHUNK)
		align = CHUNK;
	anon_admit(bytes);
	a = take(bytes, align < PAGE ? PAGE : align, k, sites_here(), &was_dirty);
	if (a && zero && was_dirty && bytes <= SMALL_ZERO)
		memset((void *)a, 0, bytes);
	else if (a && zero && was_dirty)
		anon_clear(a, a + bytes);
	errno = saved;
	return (void *)a;
}

void *core_heap_alloc(size_t size, size_t align, bool zero)
{
	return alloc(size ? size : 1, align, zero, USED);
}

void heap_protect(const void *addr, size_t len, int prot)
{
	if ((prot & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE))
		return;
	atomic_store(&barred, true);
	anon_bar((uintptr_t)addr, page_up((uintptr_t)addr + len), true);
}

/* Lock held, lost for a while. Pages of a block, or of several, are free.
 * -ENOMEM: the list is full, they are not. Whoever gets them next may read and
 * write, as in memory that is new. */
static int release(uintptr_t lo, uintptr_t hi)
{
	bool splits = piece[find(lo)].lo != lo || piece[find(hi - 1) + 1].lo != hi;

	if (splits && n >= PIECES_MAX - PIECES_ROOM)
		return -ENOMEM;
	if (atomic_load(&barred)) {
		if (off_sys_mprotect((void *)lo, hi - lo, PROT_READ | PROT_WRITE))
			return -errno;
		anon_bar(lo, hi, false);
	}
	set(lo, hi, DIRTY);
	purge(anon_live() || torture() ? 0 : DIRTY_MAX);
	return 0;
}

static int give(uintptr_t lo, uintptr_t hi)
{
	int err;

	heap_lock();
	err = release(lo, hi);
	heap_unlock();
	return err;
}

bool core_heap_free(void *p)
{
	uintptr_t lo = (uintptr_t)p;
	int saved = errno;
	enum kind k;
	bool start;
	size_t i;

	heap_lock();
	i = find(lo);
	k = lo < piece[n].lo ? piece[i].kind : LOST;
	start = piece[i].lo == lo && k == USED;
	if (start)
		release(lo, piece[i + 1].lo);
	heap_unlock();
	if (!start && k != MAPPED && k != LOST)
		off_fatal("free(%p): this is not the start of a block", p);
	errno = saved;
	return start;
}

size_t core_heap_usable(const void *p)
{
	size_t bytes = 0, i;

	heap_lock();
	i = find((uintptr_t)p);
	if ((uintptr_t)p < piece[n].lo && piece[i].lo == (uintptr_t)p && piece[i].kind == USED)
		bytes = length(i);
	heap_unlock();
	return bytes;
}

/* ---- forks ----------------------------------------------------------------------------- */

void heap_fork_prepare(void)
{
	heap_lock();
}

void heap_fork_done(void)
{
	heap_unlock();
}

/* Who cleared in the parent is not here to say that it is done. */
void heap_fork_child(void)
{
	for (size_t i = 0; i < n; i++)
		if (piece[i].kind == CLEAR) {
			set(piece[i].lo, piece[i + 1].lo, DIRTY);
			i = (size_t)-1;		/* it was joined */
		}
	heap_unlock();
}

/* ---- resizing ------------------------------------------------------------------------ */

/* Lock held: [lo, hi) is free, or will be when the top has grown. *was_dirty:
 * some of it is not zeros. */
static bool free_up_to(uintptr_t lo, uintptr_t hi, bool *was_dirty)
{
	uintptr_t a = lo;

	while (a < hi && a < piece[n].lo) {
		size_t i = find(a);

		if (!is_free(piece[i].kind))
			return false;
		*was_dirty |= piece[i].kind == DIRTY;
		a = piece[i + 1].lo;
	}
	return a >= hi || grow(hi - a);
}

/* The block that ends at hi is made longer where it is. */
static bool extend(uintptr_t hi, uintptr_t to, bool zero)
{
	bool ok, was_dirty = false;

	anon_admit(to - hi);
	heap_lock();
	ok = n < PIECES_MAX - PIECES_ROOM && piece[find(hi - 1) + 1].lo == hi &&
	     free_up_to(hi, to, &was_dirty);
	if (ok) {
		struct piece b = piece[find(hi - 1)];

		set_block(hi, to, b.kind, b.site);
		erase(find(hi));	/* one block with what lies before */
		sites_count(b.site, 0, -1);
	}
	heap_unlock();
	if (ok && zero && was_dirty)
		anon_clear(hi, to);
	return ok;
}

/* [lo, hi) to a new place of bytes; NULL: there is none. */
static void *move(uintptr_t lo, uintptr_t hi, size_t bytes, enum kind k)
{
	void *to = alloc(bytes, 1, true, k);

	if (!to)
		return NULL;
	anon_move((uintptr_t)to, lo, hi - lo < page_up(bytes) ? hi - lo : page_up(bytes));
	give(lo, hi);
	return to;
}

/* What is asked for can be the size of a block at all. */
static bool possible(size_t size)
{
	return page_up(size) >= size && page_up(size) <= SIZE_MOST && size;
}

void *core_heap_resize(void *p, size_t size)
{
	uintptr_t lo = (uintptr_t)p, hi = lo + core_heap_usable(p);
	uintptr_t to = lo + page_up(size);
	int saved = errno;

	if (!possible(size) || hi == lo)
		return NULL;
	if (to > hi && !extend(hi, to, false))
		p = move(lo, hi, size, USED);
	else if (to < hi)
		give(to, hi);	/* if that fails it is longer than need be */
	errno = saved;
	return p;
}

/* ---- anonymous mappings ---------------------------------------------------------------- */

int core_heap_map(void **out, size_t len, int prot, int flags)
{
	const int fine = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_NONBLOCK;
	int saved = errno;
	void *p;

	if (prot != (PROT_READ | PROT_WRITE) || !(flags & MAP_PRIVATE) || flags & ~fine ||
	    !len || lock_future_set())
		return CORE_PASS;
	p = alloc(len, 1, true, MAPPED);
	if (!p)
		return CORE_PASS;
	if (flags & MAP_POPULATE && !(flags & MAP_NONBLOCK) && !anon_live())
		off_sys_madvise(p, page_up(len), MADV_POPULATE_WRITE);
	*out = p;
	errno = saved;
	return 0;
}

/* Addresses nobody but the program may map: 0 or -errno. */
static int reserve_again(uintptr_t lo, uintptr_t hi, int how)
{
	void *p = off_sys_mmap((void *)lo, hi - lo, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | how, -1, 0);

	return p == MAP_FAILED ? -errno : 0;
}

/* The next run of one sort in [lo, hi): its end, and whose it is. */
static uintptr_t next_run(uintptr_t lo, uintptr_t hi, enum kind *k)
{
	uintptr_t end = hi;

	heap_lock();
	if (!core_heap_has((void *)lo)) {
		*k = LOST;
		if (lo < core_heap_base)
			end = core_heap_base;
	} else if (lo >= piece[n].lo) {
		*k = lo < edge ? CLEAN : LOST;
		end = lo < edge ? edge : core_heap_base + core_heap_size;
	} else {
		size_t i = find(lo);

		*k = piece[i].kind;
		end = piece[i + 1].lo;
	}
	heap_unlock();
	return end < hi ? end : hi;
}

/* Lock held: some of [lo, hi) is being cleared. */
static bool being_cleared(uintptr_t lo, uintptr_t hi)
{
	for (size_t i = find(lo); i < n && piece[i].lo < hi; i++)
		if (piece[i].kind == CLEAR)
			return true;
	return false;
}

/* 0, or -ENOMEM: the list is full. */
static int lose(uintptr_t lo, uintptr_t hi)
{
	const struct timespec nap = { 0, 50000 };
	bool ok;

	heap_lock();
	while (being_cleared(lo, hi)) {
		heap_unlock();
		nanosleep(&nap, NULL);
		heap_lock();
	}
	ok = n < PIECES_MAX - PIECES_ROOM;
	if (ok && hi > piece[n].lo && !grow(hi - piece[n].lo)) {
		uintptr_t from = chunk_down(lo) > piece[n].lo ? chunk_down(lo) : piece[n].lo;

		edge = edge < from ? edge : from;	/* ends before it */
		hi = hi < edge ? hi : edge;
	}
	if (ok && lo < hi)
		set(lo, hi, LOST);
	heap_unlock();
	if (ok && lo < hi)
		anon_lose(lo, hi);
	return ok ? 0 : -ENOMEM;
}

/* What the heap does not own of [lo, hi). */
static int unmap_theirs(uintptr_t lo, uintptr_t hi)
{
	int err;

	if (core_heap_has((void *)lo))
		return reserve_again(lo, hi, MAP_FIXED);
	err = core_unmap((void *)lo, hi - lo);
	if (err < 0)
		return err;
	return off_sys_munmap((void *)lo, hi - lo) ? -errno : 0;
}

int core_heap_unmap(const void *addr, size_t len, bool fixed)
{
	uintptr_t lo = (uintptr_t)addr, hi = page_up(lo + len), end;
	int saved = errno, err = 0, e;
	enum kind k;

	if (lo % PAGE || !len || hi <= lo || hi > ADDRESSES)
		return CORE_PASS;	/* EINVAL */
	for (; lo < hi; lo = end) {
		e = 0;
		end = next_run(lo, hi, &k);
		if (fixed)
			e = k == LOST ? 0 : lose(lo, end);
		else if (k == LOST)
			e = unmap_theirs(lo, end);
		else if (is_block(k))
			e = give(lo, end);
		err = e ? e : err;
	}
	errno = saved;
	return fixed && !err ? CORE_PASS : err;
}

/* ---- mremap -------------------------------------------------------------------------------- */

/* Makes way at [to, to + len), where something is about to be mapped. */
static int make_way(void *to, size_t len)
{
	int err = core_heap_touches(to, len) ? core_heap_unmap(to, len, true) : CORE_PASS;

	return err < 0 ? err : core_unmap(to, len);
}

/* To *out, which is no heap of ours afterwards. 0 or -errno. */
static int remap_fixed(void **out, uintptr_t lo, uintptr_t hi, size_t new_len)
{
	size_t bytes = hi - lo < page_up(new_len) ? hi - lo : page_up(new_len);
	int err = make_way(*out, new_len);
	void *to;

	if (err < 0)
		return err;
	to = off_sys_mmap(*out, new_len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (to == MAP_FAILED)
		return -errno;
	memcpy(to, (void *)lo, bytes);
	return give(lo, hi);
}

/* A mapping of the program's own at lost addresses. */
static int remap_lost(void **out, uintptr_t lo, uintptr_t hi, size_t new_len, int flags)
{
	int err = flags & MREMAP_FIXED ? make_way(*out, new_len) : 0;
	uintptr_t left;
	void *p;

	if (err < 0)
		return err;
	p = off_sys_mremap((void *)lo, hi - lo, new_len, flags, *out);
	if (p == MAP_FAILED)
		return -errno;
	left = p == (void *)lo ? lo + page_up(new_len) : lo;
	if (left < hi && !(flags & MREMAP_DONTUNMAP))
		reserve_again(left, hi, MAP_FIXED_NOREPLACE);
	*out = p;
	return 0;
}

/* In place, or moved within the heap. 0 or -errno. */
static int remap_here(void **out, uintptr_t lo, uintptr_t hi, size_t new_len, int flags,
		      enum kind k)
{
	uintptr_t to = lo + page_up(new_len);

	*out = (void *)lo;
	if (to < hi)
		return give(to, hi);
	if (to == hi || extend(hi, to, true))
		return 0;
	*out = flags & MREMAP_MAYMOVE ? move(lo, hi, new_len, k) : NULL;
	return *out ? 0 : -ENOMEM;
}

/* What the kernel finds wrong before it looks at the mapping. */
static bool remap_valid(const void *to, uintptr_t lo, size_t len, size_t new_len, int flags)
{
	uintptr_t at = (uintptr_t)to;

	if (lo % PAGE || flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) ||
	    page_up(new_len) < new_len || !new_len || page_up(lo + len) < lo)
		return false;
	if (!(flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)))
		return true;
	if (!(flags & MREMAP_MAYMOVE))
		return false;
	return !(flags & MREMAP_FIXED) ||
	       (!(at % PAGE) && at + new_len > at && at + new_len <= ADDRESSES &&
		(at + page_up(new_len) <= lo || page_up(lo + len) <= at));
}

int core_heap_remap(void **out, void *addr, size_t len, size_t new_len, int flags)
{
	uintptr_t lo = (uintptr_t)addr, hi = page_up(lo + len);
	int saved = errno, err;
	enum kind k;

	if (!remap_valid(*out, lo, len, new_len, flags))
		return -EINVAL;
	if (next_run(lo, hi > lo ? hi : lo + 1, &k) < hi || is_free(k) || k == CLEAR)
		err = -EFAULT;
	else if (k == LOST)
		err = remap_lost(out, lo, hi, new_len, flags);
	else if (!len || (flags & MREMAP_DONTUNMAP && anon_live()))
		err = -EINVAL;
	else if (flags & MREMAP_DONTUNMAP)
		err = flags & MREMAP_FIXED ? make_way(*out, new_len) : CORE_PASS;
	else if (flags & MREMAP_FIXED)
		err = remap_fixed(out, lo, hi, new_len);
	else if (page_up(new_len) > SIZE_MOST)
		err = -ENOMEM;
	else
		err = remap_here(out, lo, hi, new_len, flags, k);
	errno = saved;
	return err;
}
