/* SPDX-License-Identifier: MIT */
/* convert.c - from the program's real mapping to a paged region, and back.
 *
 *   WATCHED --HELD, CMD_ADD--> range built elsewhere, registered
 *           --mremap over the live mapping--> CMD_GO --> LIVE
 *
 * (1) Never mmap(MAP_FIXED) and then register: in between, threads would read
 *     zeros. The registered range is moved over the mapping in one step, and
 *     UFFD_FEATURE_EVENT_REMAP keeps it registered (its event is read by the
 *     pager while our mremap waits).
 * (2) The region is HELD before its extents are copied, under one lock: a
 *     thread that cuts it later waits for the pager, which comes after us.
 * (3) A plain mapping of the same range, never touched, is kept aside: for
 *     the children of forks, and for the way back.
 * Lock: region_lock for states and extents; keeper thread but for undo.
 */
#include "core/core_int.h"
#include "core/work.h"

#include <fcntl.h>
#include <sys/mman.h>

/* Ids for n chunks: the first gap. region_lock held. UINT32_MAX: none. */
static uint32_t ids_find(uint32_t n)
{
	uint32_t at = 0;
	bool again = true;

	while (again) {
		again = false;
		for (int i = 0; region_nth(i); i++) {
			const struct region *r = region_nth(i);

			if (r->state > REGION_WATCHED && at < r->first + r->n &&
			    r->first < at + n) {
				at = r->first + r->n;
				again = true;
			}
		}
	}
	return at + n <= MAX_CHUNKS - HEAP_CHUNKS ? at : UINT32_MAX;
}

/* Becomes HELD and gets its ids. Returns how many extents were copied. */
static int hold(struct region *r, struct extent *ext)
{
	int n = -EBUSY;
	uint32_t chunks = region_chunks(r), first;

	region_lock();
	first = ids_find(chunks);
	if (first != UINT32_MAX && r->state == REGION_WATCHED && r->n_ext &&
	    !r->locked && !r->refused) {
		n = r->n_ext;
		memcpy(ext, r->ext, sizeof(r->ext));
		r->first = first;
		r->n = chunks;
		r->state = REGION_HELD;
	}
	region_unlock();
	return n;
}

static int tell_pager(enum cmd_op op, struct region *r)
{
	struct cmd c = { .op = op, .r = r };

	return cmd_pager_call(&c);
}

static char *build_range(const struct region *r)
{
	size_t len = r->end - r->base;
	char *p = reserve_range(len);

	if (!p)
		return NULL;
	off_sys_madvise(p, len, MADV_HUGEPAGE);
	off_sys_madvise(p, len, MADV_DONTDUMP);
	if (off_sys_madvise(p, len, MADV_DONTFORK) ||
	    uffd_register_moving(p, len, true, !r->writable || !exchange_moves())) {
		off_sys_munmap(p, len);
		return NULL;
	}
	return p;
}

static int map_shadow(struct region *r)
{
	void *p = off_sys_mmap(NULL, r->end - r->base, r->prot,
			       (r->flags & (MAP_SHARED | MAP_PRIVATE)) | MAP_NORESERVE,
			       r->origin->fd, (off_t)r->file_off);

	r->shadow = p == MAP_FAILED ? NULL : p;
	return r->shadow ? 0 : -errno;
}

static int remap(char *from, uintptr_t to, size_t len)
{
	void *p = off_sys_mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
				 (void *)to);

	return p == MAP_FAILED ? -errno : 0;
}

/* Moves the pieces of a spare mapping of the region to their places. */
static int put_pieces(const struct region *r, char *spare,
		      const struct extent *ext, int n)
{
	int err = 0;

	for (int i = 0; i < n && !err; i++)
		err = remap(spare + (ext[i].lo - r->base), ext[i].lo,
			    ext[i].hi - ext[i].lo);
	return err;
}

/* What of the spare mapping found no place. */
static void drop_rest(const struct region *r, char *spare,
		      const struct extent *ext, int n)
{
	uintptr_t at = r->base;

	for (int i = 0; i < n; i++) {
		if (ext[i].lo > at)
			off_sys_munmap(spare + (at - r->base), ext[i].lo - at);
		at = ext[i].hi;
	}
	if (at < r->end)
		off_sys_munmap(spare + (at - r->base), r->end - at);
}

static int convert_anon(struct region *r)
{
	struct extent ext[MAX_EXTENTS];
	char *range;
	int n, err = r->shadow ? 0 : map_shadow(r);

	if (err)
		return err;
	range = lock_future_set() ? NULL : build_range(r);
	if (!range)
		return -ENOMEM;
	if (lock_future_set()) {	/* then it may be full of zeros already */
		off_sys_munmap(range, r->end - r->base);
		return -EBUSY;
	}
	n = hold(r, ext);
	if (n < 0) {
		off_sys_munmap(range, r->end - r->base);
		return n;
	}
	work_open();
	tell_pager(CMD_ADD, r);
	if (put_pieces(r, range, ext, n))
		off_fatal("%s could not be moved into place (mremap: %s); raise vm.max_map_count",
			  r->origin->name, strerrordesc_np(errno));
	drop_rest(r, range, ext, n);
	return tell_pager(CMD_GO, r);
}

/* After it was read anew at p: is it one huge page? */
static bool comes_huge(const struct region *r, char *p, uint64_t off)
{
	off_sys_fadvise(r->origin->fd, (off_t)off, CHUNK, POSIX_FADV_DONTNEED);
	return !off_sys_madvise(p, CHUNK, MADV_POPULATE_READ) && pages_huge((uintptr_t)p);
}

/* A second mapping of the file, if its pages come huge there; or NULL. */
static char *map_huge(const struct region *r)
{
	size_t len = r->end - r->base, head = -r->base & (CHUNK - 1);
	char *p;

	if (len < head + 2 * CHUNK)
		return NULL;
	p = map_congruent(len, PROT_READ, MAP_SHARED | MAP_NORESERVE, r->origin->fd,
			  (off_t)r->file_off);
	if (p == MAP_FAILED)
		return NULL;
	off_sys_madvise(p, len, MADV_DONTFORK);
	if (off_sys_madvise(p, len, MADV_HUGEPAGE) ||
	    !comes_huge(r, p + head, r->file_off + head)) {
		off_sys_munmap(p, len);
		return NULL;
	}
	off_sys_madvise(p + head, CHUNK, MADV_DONTNEED);
	return p;
}

static int convert_hints(struct region *r)
{
	struct extent ext[MAX_EXTENTS];
	int n;

	if (r->writable)
		return -ENOTSUP;	/* DONTNEED would undo its writes */
	n = hold(r, ext);
	if (n < 0)
		return n;
	for (int i = 0; i < n; i++)	/* what is mapped already is not ours to see */
		off_sys_madvise((void *)ext[i].lo, ext[i].hi - ext[i].lo, MADV_DONTNEED);
	r->huge = map_huge(r);
	for (int i = 0; r->huge && i < n; i++)
		off_sys_madvise((void *)ext[i].lo, ext[i].hi - ext[i].lo, MADV_HUGEPAGE);
	tell_pager(CMD_ADD, r);
	return tell_pager(CMD_GO, r);
}

int convert_region(struct region *r)
{
	uint64_t len = r->end - r->base;
	int err;

	if (r->locked)
		return -EBUSY;
	r->origin->drop_cache = r->origin->fd_direct < 0 ||
		origin_cached(r->origin, r->file_off, len, NULL) > (int64_t)(len / 64);
	err = pg.ops->anon ? convert_anon(r) : convert_hints(r);
	if (err) {
		off_verbose(1, "%s stays as it is (%s)", r->origin->name,
			    strerrordesc_np(-err));
		return err;
	}
	off_verbose(1, "%s: %llu MiB at %#lx paged (%s%s), %zu spans", r->origin->name,
		    (unsigned long long)(len >> 20), (unsigned long)r->base,
		    pg.ops->name, r->huge ? ", huge pages" : "", r->n_spans);
	return 0;
}

/* The shadow stays mapped in full: its place must not become somebody else's
 * before it is given back. Kernels before 5.13 cannot keep it; there its
 * place is taken at once. */
void convert_from_shadow(const struct region *r, uintptr_t lo, uintptr_t hi)
{
	char *from = r->shadow + (lo - r->base);
	size_t len = hi - lo;

	if (off_sys_mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
			   (void *)lo) != MAP_FAILED)
		return;
	if (remap(from, lo, len))
		off_fatal("a region could not be made plain again at %#lx (mremap: %s)",
			  (unsigned long)lo, strerrordesc_np(errno));
	off_sys_mmap(from, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
		     MAP_FIXED_NOREPLACE, -1, 0);
}

int convert_undo(struct region *r)
{
	struct cmd forget = { .op = CMD_FORGET, .r = r };
	struct extent ext[MAX_EXTENTS];
	bool ours;
	int n;

	region_lock();
	if (r->anon || (r->writable && r->shadow)) {
		region_unlock();
		return -ENOMEM;
	}
	ours = r->state == REGION_HELD || r->state == REGION_LIVE;
	if (ours)
		r->state = REGION_UNDOING;
	n = r->n_ext;
	memcpy(ext, r->ext, sizeof(ext));
	region_unlock();
	if (!ours)
		return 0;	/* somebody else was quicker */
	cmd_call(&(struct cmd){ .op = CMD_UNDO, .r = r });
	for (int i = 0; r->shadow && i < n; i++)
		convert_from_shadow(r, ext[i].lo, ext[i].hi);
	region_lock();
	r->n_ext = 0;
	region_unlock();
	cmd_call(&forget);
	return 0;
}
