/* SPDX-License-Identifier: MIT */
/* anon_fork.c - what the child of a fork gets of a paged heap.
 *
 * (1) Settled: with the pager frozen and nothing under way, the bytes of every
 *     chunk are in place, or stored where the child can read them too.
 * (2) The child's table is its copy of this one: the same slots, leased by
 *     spill.c, and the same files, whose descriptors are carried over.
 * Lock: none; pager thread, and in the child its keeper.
 */
#include "core/anon.h"
#include "core/anon_int.h"
#include "core/core_int.h"
#include "core/hold.h"
#include "core/packer.h"
#include "core/spill.h"
#include "core/work.h"

static int carried[KEEP_FDS];
static int n_carried, n_spills;
static struct origin *taken[KEEP_FDS - SPILL_FILES];	/* files, for the child */
static int n_taken;

static int take_origins(const struct source *s)
{
	struct origin *o;

	for (int i = 0; (o = origin_nth(s, i)); i++) {
		int k = 0;

		while (k < n_taken && taken[k] != o)
			k++;
		if (k == KEEP_FDS - SPILL_FILES)
			return -EMFILE;
		if (k == n_taken)
			taken[n_taken++] = o;
	}
	return 0;
}

/* What the child will find. All bytes are in place or stored: nothing is in
 * flight, and what only a frame holds is put in place. */
static int settle(uint32_t c)
{
	struct anon_chunk *a = anon_at(c);
	enum pol_state st = pol_state_of(pg.pol, c);
	int err = 0;

	if (pg.chunk[c].flags & CH_FORGOTTEN || a->store == STORE_ZERO) {
		a->child = CHILD_EMPTY;
		return 0;
	}
	/* One that was in place until a moment ago may have been written since. */
	if (st == POL_READY && pg.chunk[c].slot &&
	    (a->store == STORE_NONE || chunk_hash(anon_frame(c), CHUNK) != a->hash)) {
		err = anon_install(c);
		chunk_moved(c, err ? POL_READY : POL_PLAIN);
		st = POL_PLAIN;
	}
	a->child = st == POL_PLAIN ? CHILD_IN_PLACE : CHILD_STORED;
	/* Shared from now on: who writes gets small pages. MOVE tells, by refusing. */
	a->split |= st == POL_PLAIN && !exchange_moves();
	/* Packed ones, too: they may come to be read again (unpooled). */
	return err || !a->source ? err : take_origins(a->source);
}

bool anon_idle(void)
{
	return !pg.inflight && !anon_save_more();
}

int anon_settle(const struct region *r, int **fds)
{
	int err = 0;

	n_carried = n_spills = n_taken = 0;
	for (uint32_t c = r->first; c < r->first + r->n && !err; c++)
		err = settle(c);
	if (!err && spill_bytes())
		err = spill_fork_begin();
	if (!err && spill_bytes())
		n_spills = spill_export(carried, SPILL_FILES);
	n_carried = n_spills;
	for (int i = 0; i < n_taken; i++)
		carried[n_carried++] = taken[i]->fd;
	*fds = carried;
	return err ? err : n_carried;
}

void anon_resume(void)
{
	if (n_spills)
		spill_fork_end();
	n_spills = 0;
}

void anon_take_fds(const int *fds, int n)
{
	spill_import(fds, n_spills < n ? n_spills : n);
	for (int i = 0; i < n_taken; i++) {
		taken[i]->fd = n_spills + i < n ? fds[n_spills + i] : -1;
		taken[i]->fd_direct = -1;
		hold_inherit(taken[i]);
	}
	n_spills = n_taken = 0;
}

/* What is in the pool can do without its copy in a file that did not come along. */
static void forget_unreadable(struct anon_chunk *was)
{
	int direct, buffered;

	if (was->store != STORE_POOL || !was->has_ref ||
	    !spill_fds(was->ref, &direct, &buffered))
		return;
	spill_free(was->ref, CHUNK);
	was->has_ref = false;
}

int anon_adopted(struct region *r)
{
	for (uint32_t c = r->first; c < r->first + r->n; c++) {
		struct anon_chunk was = *anon_at(c);

		anon_chunk_init(r, c, c + 1);
		if (was.child == CHILD_EMPTY || anon_lost(c - r->first))
			continue;
		if (was.child == CHILD_IN_PLACE)
			anon_make_plain(c, was.store);
		else
			anon_make_known(c);
		forget_unreadable(&was);
		*anon_at(c) = (struct anon_chunk){ .ref = was.ref, .hash = was.hash, .seal = was.seal,
			.slot = was.slot,
			.store = was.store, .has_ref = was.has_ref,
			.source = was.source, .compared = was.compared,
			.split = was.child == CHILD_IN_PLACE };
	}
	anon_go_on(r);
	return 0;
}

void anon_child_reset(void)
{
	pages_reset();
	direct_reset();
	anon_io_reset();
	work_reset();
	packer_reset();
	origin_reset();
	hold_reset();
}
