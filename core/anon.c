/* SPDX-License-Identifier: MIT */
/* anon.c - the heap's memory: the kernel's until pressure comes, then paged.
 *
 *   WATCHED --anon_judge: it cannot fit--> HELD --registered--> LIVE (for good)
 *
 * (1) Registered in place: what is populated stays where it is, and the first
 *     evictions take it from there.
 * (2) Judged when a block is handed out, for by the time its pages are touched
 *     it may be too late: what was promised and is not populated counts.
 * Lock: `lock`, rank 0: taken before region_lock, held while the range grows
 * or becomes LIVE, across a call to the pager, which never takes it.
 */
#include "core/anon.h"
#include "core/core_int.h"
#include "core/learned.h"
#include "core/packed.h"
#include "core/pool.h"
#include "core/spill.h"
#include "core/touch.h"
#include "core/work.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#define WATCH_FROM (64ull << 20)	/* less in all is not worth a thread */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(struct region *) live;	/* NULL while WATCHED */
static _Atomic uintptr_t grown_to;	/* usable from core_heap_base to here */
static _Atomic uint64_t admitted;	/* blocks up to so many bytes in all may go on */
static _Atomic bool huge;		/* populated by huge pages, see foresee */
static uint64_t resident;		/* keeper: populated at the last look */
static bool said_hints;
static int keep[KEEP_FDS], n_keep;	/* in a fork: the spill files, for the child */
static bool inherits, adopting;
static uint64_t lost[HEAP_CHUNKS / 64];	/* chunks with mappings of the program's in them */
static _Atomic uint64_t barred[HEAP_CHUNKS / 64];	/* with pages not to be written, or read */

/* Usable up to here: nothing, until the first block. */
static uintptr_t heap_end(void)
{
	uintptr_t to = atomic_load(&grown_to);

	return to ? to : core_heap_base;
}

bool anon_live(void)
{
	return atomic_load_explicit(&live, memory_order_relaxed) != NULL;
}

/* ---- the range ---------------------------------------------------------------- */

bool anon_lost(uint32_t k)
{
	return lost[k / 64] >> (k % 64) & 1;
}

void anon_bar(uintptr_t lo, uintptr_t hi, bool on)
{
	uintptr_t end = core_heap_base + core_heap_size;

	lo = lo < core_heap_base ? core_heap_base : lo;
	hi = hi > end ? end : hi;
	lo = on ? chunk_down(lo) : chunk_down(lo + CHUNK - 1);
	for (; on ? lo < hi : lo + CHUNK <= hi; lo += CHUNK) {
		uint32_t k = (uint32_t)((lo - core_heap_base) / CHUNK);

		if (on)
			atomic_fetch_or(&barred[k / 64], 1ull << (k % 64));
		else
			atomic_fetch_and(&barred[k / 64], ~(1ull << (k % 64)));
	}
}

bool anon_stays(uintptr_t at, bool by_kernel)
{
	uint32_t k = (uint32_t)((at - core_heap_base) / CHUNK);

	return anon_lost(k) || (!by_kernel && atomic_load(&barred[k / 64]) >> (k % 64) & 1);
}

int anon_register(uintptr_t lo, uintptr_t hi)
{
	int err = 0;

	while (lo < hi && !err) {
		uintptr_t end = lo;

		while (end < hi && !anon_lost((uint32_t)((end - core_heap_base) / CHUNK)))
			end += CHUNK;
		if (end > lo)
			err = uffd_register((void *)lo, end - lo, true, true);
		if (end > lo && !err)
			off_sys_madvise((void *)lo, end - lo, MADV_DONTFORK);
		/* Else a fault makes a page table before it comes to us, and a
		 * huge page that is moved there is split. */
		if (end > lo && !err)
			off_sys_madvise((void *)lo, end - lo, MADV_HUGEPAGE);
		lo = end + CHUNK;
	}
	return err;
}

/* All of it but what is lost: that is not ours any more. */
static void advise(int advice)
{
	uintptr_t end = heap_end();

	for (uintptr_t a = core_heap_base; a < end; a += CHUNK) {
		uintptr_t lo = a;

		while (a < end && !anon_lost((uint32_t)((a - core_heap_base) / CHUNK)))
			a += CHUNK;
		if (a > lo)
			off_sys_madvise((void *)lo, a - lo, advice);
	}
}

int anon_grow(uintptr_t lo, uintptr_t hi)
{
	struct cmd c = { .op = CMD_GROW, .lo = lo, .hi = hi };
	int err;

	pthread_mutex_lock(&lock);
	c.r = atomic_load(&live);
	err = off_sys_mprotect((void *)lo, hi - lo, PROT_READ | PROT_WRITE) ? -errno : 0;
	if (!err && c.r)
		err = cmd_call(&c);
	else if (!err && atomic_load(&huge))
		off_sys_madvise((void *)lo, hi - lo, MADV_HUGEPAGE);
	if (!err && hi > atomic_load(&grown_to))
		atomic_store(&grown_to, hi);
	pthread_mutex_unlock(&lock);
	return err;
}

void anon_clear(uintptr_t lo, uintptr_t hi)
{
	struct cmd c = { .op = CMD_CLEAR, .r = atomic_load(&live), .lo = lo, .hi = hi };
	int left;

	if (lo >= hi)
		return;
	learned_forget(lo, hi);
	if (!c.r && off_sys_madvise((void *)lo, hi - lo, MADV_DONTNEED))
		memset((void *)lo, 0, hi - lo);
	/* Paged since it was asked: some may have been taken out before that. */
	c.r = atomic_load(&live);
	if (!c.r)
		return;
	left = cmd_call(&c);
	if (left & 4)
		memset((void *)lo, 0, hi - lo);
	if (left & 1) {
		uintptr_t end = chunk_down(lo) + CHUNK;

		memset((void *)lo, 0, (end < hi ? end : hi) - lo);
	}
	if (left & 2 && chunk_down(hi) >= lo)
		memset((void *)chunk_down(hi), 0, hi - chunk_down(hi));
}

/* Whole chunks by the kernel; the rest, and all that is paged, by copying: two
 * mappings in one chunk could not be moved at once. */
void anon_move(uintptr_t to, uintptr_t from, size_t len)
{
	size_t whole = (to | from) % CHUNK ? 0 : len & ~(CHUNK - 1);

	pthread_mutex_lock(&lock);
	if (atomic_load(&live) || !whole ||
	    off_sys_mremap((void *)from, whole, whole,
			   MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
			   (void *)to) == MAP_FAILED)
		whole = 0;
	pthread_mutex_unlock(&lock);
	memcpy((void *)(to + whole), (void *)(from + whole), len - whole);
}

void anon_lose(uintptr_t lo, uintptr_t hi)
{
	struct region *r;

	pthread_mutex_lock(&lock);
	r = atomic_load(&live);
	for (uintptr_t a = chunk_down(lo); a < hi; a += CHUNK) {
		uint32_t k = (uint32_t)((a - core_heap_base) / CHUNK);

		if (r && !anon_lost(k)) {
			off_sys_madvise((void *)a, PAGE, MADV_POPULATE_READ);
			cmd_call(&(struct cmd){ .op = CMD_PIN, .r = r, .lo = a,
						.hi = a + CHUNK });
		}
		lost[k / 64] |= 1ull << (k % 64);
	}
	pthread_mutex_unlock(&lock);
}

/* ---- watching ------------------------------------------------------------------ */

static uint64_t watch_from(void)
{
	if (torture())
		return 0;
	return off_opt.ram && off_opt.ram / 4 < WATCH_FROM ? off_opt.ram / 4 : WATCH_FROM;
}

bool anon_watched(void)
{
	return !anon_live() && heap_used() > watch_from();
}

void anon_admit(size_t bytes)
{
	struct cmd c = { .op = CMD_ADMIT, .lo = bytes };
	uint64_t all = heap_used() + bytes;
	int saved = errno;

	if (anon_live() || all <= watch_from() || all <= atomic_load(&admitted))
		return;
	if (keeper_start()) {
		atomic_store(&admitted, UINT64_MAX);
	} else {
		heap_reserve();		/* the first block alone may be too much */
		if (bytes <= core_heap_size)	/* else it is not ours to give */
			cmd_call(&c);
	}
	errno = saved;
}

/* Pages of the heap that have memory behind them. */
static uint64_t count_resident(void)
{
	static unsigned char vec[16384];
	uintptr_t at = core_heap_base, end = heap_end();
	uint64_t pages = 0;

	while (at < end) {
		size_t step = sizeof(vec) * PAGE < end - at ? sizeof(vec) * PAGE : end - at;

		if (off_sys_mincore((void *)at, step, vec))
			return 0;
		for (size_t i = 0; i < step / PAGE; i++)
			pages += vec[i] & 1;
		at += step;
	}
	return pages * PAGE;
}

static uint64_t unpopulated(void)
{
	uint64_t used = heap_used();

	return used > resident ? used - resident : 0;
}

/* A heap that is used to the full and has come to a quarter of what there is will likely be
 * paged: what it populates from now on comes as huge pages, as all memory does where the
 * kernel's default is so. Moving chunks of small pages is dear (anon_collapse). Sparse
 * heaps, and small ones, stay as the kernel has them; blocks that are asked for later are taken
 * to be like those before: sparse ones among them come by 2 MiB then. */
static void foresee(uint64_t room)
{
	static uint64_t looked;
	uint64_t used = heap_used();

	if (atomic_load(&huge) || used < looked + used / 8 || used < room / 3)
		return;
	looked = used;
	resident = count_resident();
	if (resident < used - used / 8)
		return;
	if (pthread_mutex_trylock(&lock)) {	/* as in convert */
		looked = 0;
		return;
	}
	atomic_store(&huge, true);
	advise(MADV_HUGEPAGE);
	pthread_mutex_unlock(&lock);
}

/* The heap's entry in the table, HELD. */
static struct region *enter(void)
{
	uint32_t ids = (uint32_t)(core_heap_size / CHUNK);
	struct region *r;

	region_lock();
	r = region_new(core_heap_base, core_heap_size);
	if (r) {
		r->anon = r->writable = true;
		r->prot = PROT_READ | PROT_WRITE;
		r->flags = MAP_PRIVATE | MAP_ANONYMOUS;
		r->first = MAX_CHUNKS - ids;
		r->n = (uint32_t)((heap_end() - core_heap_base) / CHUNK);
		r->state = REGION_HELD;
	}
	region_unlock();
	return r;
}

static void leave(struct region *r)
{
	region_lock();
	region_free(r);
	region_unlock();
}

static int go_live(void)
{
	size_t len = heap_end() - core_heap_base;
	struct region *r = enter();
	int err;

	if (!r)
		return -ENOSPC;
	direct_close();
	work_open();
	err = cmd_pager_call(&(struct cmd){ .op = CMD_ADD, .r = r });
	if (!err)
		err = anon_register(core_heap_base, core_heap_base + len);
	if (err) {	/* some of it may have been registered */
		uffd_unregister((void *)core_heap_base, len);
		off_sys_madvise((void *)core_heap_base, len, MADV_DOFORK);
		leave(r);
		direct_open();
		return err;
	}
	atomic_store(&live, r);
	return cmd_pager_call(&(struct cmd){ .op = CMD_GO, .r = r });
}

/* used: bytes, with those of a request. */
static bool convert(uint64_t used)
{
	int err = -ENODEV;

	if (pg.ops->anon && !lock_future_set()) {
		/* Who holds it may be waiting for this thread: next time. */
		if (pthread_mutex_trylock(&lock))
			return false;
		err = go_live();
		pthread_mutex_unlock(&lock);
	}
	if (err && !said_hints)
		off_log("anonymous memory cannot be paged here (%s): the program must fit; offctl doctor says why",
			strerrordesc_np(-err));
	else if (!err)
		off_verbose(1, "heap: %llu MiB at %#lx paged (%s)",
			    (unsigned long long)(used >> 20),
			    (unsigned long)core_heap_base, pg.ops->name);
	said_hints |= err != 0;
	if (err)
		atomic_store(&admitted, UINT64_MAX);
	return !err;
}

bool anon_judge(size_t bytes, uint64_t room, uint64_t cap)
{
	uint64_t used = heap_used() + bytes;
	bool over = cap && used > cap;

	if (anon_live() || !core_heap_size)
		return false;
	if (!over && unpopulated() + bytes > room) {
		resident = count_resident();
		over = unpopulated() + bytes > room;
	}
	if (over)
		return convert(used);
	foresee(cap && cap - used < room ? cap - used : room);
	if (bytes)
		atomic_store(&admitted, used + (room - unpopulated() - bytes) / 8);
	return false;
}

/* ---- forks ----------------------------------------------------------------------- */

void anon_fork_lock(void)
{
	pthread_mutex_lock(&lock);
}

void anon_fork_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void anon_fork_open(void)
{
	struct cmd c = { .op = CMD_SETTLE, .r = atomic_load(&live) };
	int n;

	n_keep = 0;
	if (!c.r)
		return;
	n = cmd_call(&c);
	if (n > 0 && spill_carry(c.tid, c.fds, n, keep))
		n = -EBADF;
	if (n < 0)
		off_log("a forked process cannot have the paged memory (%s): it gets SIGSEGV there",
			strerrordesc_np(-n));
	inherits = n >= 0;
	n_keep = n > 0 ? n : 0;
	if (inherits) {
		advise(MADV_DOFORK);
		pool_fork_open();
	}
}

static void close_kept(void)
{
	for (int i = 0; i < n_keep; i++)
		if (keep[i] >= 0)
			off_sys_close(keep[i]);
	n_keep = 0;
}

void anon_fork_close(void)
{
	if (!anon_live())
		return;
	advise(MADV_DONTFORK);
	if (inherits)
		pool_fork_close();
	close_kept();
}

int anon_keep_fds(const int **fds)
{
	*fds = keep;
	return n_keep;
}

int anon_adopt(void)
{
	struct region *r;
	int err;

	if (!adopting)
		return 0;
	anon_take_fds(keep, n_keep);
	r = pg.ops->anon ? enter() : NULL;
	if (!r)
		return -ENODEV;
	work_open();
	err = cmd_pager_call(&(struct cmd){ .op = CMD_ADD, .r = r, .fd = 1 });
	if (!err)
		err = anon_register(core_heap_base, heap_end());
	if (!err)
		err = cmd_pager_call(&(struct cmd){ .op = CMD_GO, .r = r, .fd = 1 });
	atomic_store(&live, err ? NULL : r);
	return err;
}

void anon_fork_child(void)
{
	bool was = anon_live() && inherits;

	atomic_store(&live, NULL);
	atomic_store(&admitted, 0);
	resident = 0;
	pool_fork_child(was);
	packed_fork_child(was);
	touch_fork_child();
	anon_child_reset();
	if (!was) {
		spill_forget();		/* its descriptors are the parent's */
		return;
	}
	adopting = true;
	if (keeper_start() || !anon_live())
		off_fatal("the paged memory of a forked process cannot be served in it; run with OFFLOAD_PAGER=off, or give it more memory");
	adopting = false;
	close_kept();
}
