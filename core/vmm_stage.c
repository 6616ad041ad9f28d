/* SPDX-License-Identifier: MIT */
/* vmm_stage.c - launches are given addresses whose bytes were brought to the device.
 *
 *   launching stream   ... --event--.                 .--wait-- kernel --event--.
 *   our stream                       `-wait- copies -event-'                     `- next load
 *
 * (1) Only what was shown (vmm_show.c): every word of the launch that is an address of the
 *     region, each with the same distance; a word that may be the region's end: none.
 *     And only regions whose addresses are apart (vmm.c): drivers hand out low ones, which
 *     two small numbers side by side look like (seen: 4 and 4, at 16 GB and a little more).
 * (2) Slots are filled again only behind the launches that were given them, and a launch
 *     waits for its slots' copies, both by events: no thread waits.
 * (3) OFFLOAD_STAGE=safe: the copies are behind all that was in the launching stream
 *     before, so that even who wrote by a way that nobody could see is seen; each launch
 *     has its own. ahead: what comes next, as the last pass went, is copied meanwhile, and
 *     launches share what is there.
 * (4) Whoever loads or uses a bank holds it; a bank that another thread holds is not
 *     waited for: the launch reads its bytes in place.
 * Lock: vmm_stage_lock, not held while the driver is called.
 */
#include "core/vmm_show.h"

#define TRIES 3u	/* launches in place that change nothing, before the probe */

_Atomic bool vmm_stages;

static bool ahead(void)
{
	return off_opt.stage == OPT_STAGE_AHEAD;
}

/* ---- banks ------------------------------------------------------------------------ */

static struct vmm_bank *bank_of(const struct vmm_view *v)
{
	return &vmm_stager[v->region->dev].bank[v->bank];
}

/* Not held (lock held): a place for the stream's event; NULL: too many streams. */
static struct vmm_stream_event *use_of(struct vmm_bank *b, uintptr_t stream)
{
	for (uint32_t i = 0; i < b->n_use; i++)
		if (b->use[i].stream == stream)
			return &b->use[i];
	if (b->n_use == USES)
		return NULL;
	b->use[b->n_use].stream = stream;
	return &b->use[b->n_use++];
}

static int send(const struct vmm_view *v, struct vmm_bank *b)
{
	const struct vmm_region *r = v->region;
	const struct vmm_stager *g = &vmm_stager[r->dev];
	uint32_t slot = 0;
	int err = 0;

	for (uint32_t i = v->first; i < v->first + v->n && slot < g->per && !err; i++) {
		if (!vmm_slotted(r, i))
			continue;
		err = vmm_ops->send(g->stream, b->at + slot++ * r->extent, vmm_at(r, i),
				    vmm_bytes(r, i));
		device_stat(r->dev, SD_STAGED, (int64_t)vmm_bytes(r, i));
	}
	return err;
}

/* The bank is ours (loading). Behind its users, and behind what is in `after` already. */
static bool load(struct vmm_view *v, const struct vmm_view *old, uintptr_t after, bool behind)
{
	struct vmm_bank *b = bank_of(v);
	struct vmm_stager *g = &vmm_stager[v->region->dev];
	uint32_t n = b->n_use;
	int err = 0;

	if (behind && vmm_captures())
		return false;
	for (uint32_t i = 0; i < n && !err; i++)
		err = vmm_ops->wait(g->stream, b->use[i].event);
	if (torture() && old && !err)
		vmm_verify(old);
	if (!err && behind) {
		err = vmm_ops->record(g->before, after);
		err = err ? err : vmm_ops->wait(g->stream, g->before);
	}
	err = err ? err : send(v, b);
	err = err ? err : vmm_ops->record(b->ready, g->stream);
	return !err;
}

/* Lock held. */
static void loaded(struct vmm_view *v, bool ok)
{
	struct vmm_bank *b = bank_of(v);

	b->loading = false;
	b->holds = ok && v->epoch == v->region->shown->epoch ? v : NULL;
	if (ok)
		b->n_use = 0;
	b->used = false;
}

/* ---- one region of a launch (lock held) ------------------------------------------------ */

static bool belongs(const struct vmm_region *r, uint64_t at)
{
	return at - r->base < r->len;
}

static struct vmm_view *view_at(const struct vmm_region *r, uint64_t start)
{
	const struct vmm_shown *s = r->shown;

	for (uint32_t i = 0; s && i < s->n_views; i++)
		if (s->view[i]->start == start && s->view[i]->epoch == s->epoch)
			return s->view[i];
	return NULL;
}

static void change(struct vmm_launch *l, const struct vmm_region *r, uint64_t to)
{
	for (uint32_t i = 0; i < l->n; i++)
		if (belongs(r, l->arg[i].value))
			l->arg[i].other = l->arg[i].value - r->base + to;
	l->changed = true;
}

/* The launch is followed: its event tells when its bytes can be looked at. */
static bool try(struct vmm_launch *l, const struct vmm_region *r, struct vmm_key **key,
		uint32_t n, bool probe)
{
	for (uint32_t i = 0; i < VMM_TRIALS && !l->trial; i++) {
		struct vmm_trial *t = &vmm_trials[i];

		if (t->state != VMM_UNUSED || (t->event && t->ctx != l->ctx))
			continue;
		t->state = VMM_MADE;
		t->region = r->number;
		t->serial = r->serial;
		t->epoch = r->shown->epoch;
		t->ctx = l->ctx;
		t->probe = probe;
		t->n_keys = 0;
		t->n_words = l->n;
		for (uint32_t k = 0; k < l->n; k++)
			t->word[k] = l->arg[k].value;
		for (uint32_t k = 0; k < n; k++) {
			if (key[k]->state == VMM_SHOWN)
				continue;
			key[k]->state = probe ? VMM_PROBED : VMM_TRIED;
			t->key[t->n_keys++] = (uint32_t)(key[k] - vmm_keys);
		}
		l->trial = i + 1;
		atomic_fetch_add(&vmm_news, 1);
		return true;
	}
	return false;
}

static void pin(struct vmm_launch *l, struct vmm_view *v)
{
	struct vmm_bank *b = bank_of(v);
	struct vmm_view *old = b->holds;
	bool mine = false;

	if (b->loading || l->n_pins == 4 || !use_of(b, l->stream))
		return;
	if (!ahead() || b->holds != v) {
		if (b->pins)
			return;
		b->loading = mine = true;
		b->holds = NULL;
	}
	b->pins++;
	l->pin[l->n_pins++] = v;
	if (mine) {
		bool ok;

		vmm_stage_unlock();
		ok = load(v, old, l->stream, true);
		vmm_stage_lock();
		loaded(v, ok);
		if (ok)
			use_of(b, l->stream);
	}
	if (b->holds != v) {
		b->pins--;
		l->n_pins--;
		return;
	}
	b->used = true;
	change(l, v->region, v->at);
}

/* (1) */
static bool blocked(const struct vmm_launch *l, const struct vmm_region *r)
{
	for (uint32_t i = 0; i < l->n; i++)
		if (l->arg[i].value == r->base + r->len)
			return true;
	return false;
}

/* Something of the window is at the host. */
static bool brings(const struct vmm_region *r, uint64_t start)
{
	uint32_t first, n = vmm_window(r, start, &first);

	for (uint32_t i = first; i < first + n; i++)
		if (r->ext[i].host)
			return true;
	return false;
}

static void one(struct vmm_launch *l, struct vmm_region *r)
{
	struct vmm_shown *s = vmm_shown_of(r, true);
	struct vmm_key *key[VMM_WORDS];
	uint64_t start = UINT64_MAX;
	uint32_t n = 0, shown = 0, ready = 0, tried = 0;

	if (!s || s->doubt || s->refused || !r->apart || r->ctx != l->ctx || blocked(l, r) ||
	    !vmm_only_filled(r))
		return;
	for (uint32_t i = 0; i < l->n; i++) {
		struct vmm_key *k;

		if (!belongs(r, l->arg[i].value))
			continue;
		vmm_started(s, l->arg[i].value);
		k = vmm_key(r, l->fn, l->arg[i].word, l->arg[i].value);
		if (!k)
			return;
		key[n++] = k;
		start = l->arg[i].value < start ? l->arg[i].value : start;
		shown += k->state == VMM_SHOWN;
		ready += k->state == VMM_READY;
		tried += k->state == VMM_READY && k->times >= TRIES;
	}
	if (!brings(r, start))
		return;
	if (shown == n) {
		struct vmm_view *v = view_at(r, start);

		if (v && (!torture() || torture_random(4)))
			pin(l, v);
	} else if (shown + tried == n && try(l, r, key, n, true)) {
		change(l, r, s->probe);
	} else if (shown + ready == n && shown + tried < n) {
		try(l, r, key, n, false);
	}
}

/* ---- launches ------------------------------------------------------------------------------ */

static bool hosted(const struct vmm_region *r)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (r->ext[i].host)
			return true;
	return false;
}

void vmm_launch_begin(struct vmm_launch *l)
{
	struct vmm_region *done[VMM_WORDS];
	uint32_t n_done = 0;

	l->changed = false;
	l->n_pins = l->trial = 0;
	if (l->n > VMM_WORDS) {
		for (uint32_t i = 0; i < VMM_WORDS; i++)
			vmm_doubt(l->arg[i].value);
		return;
	}
	for (uint32_t i = 0; i < l->n; i++)
		l->arg[i].other = l->arg[i].value;
	vmm_stage_lock();
	for (uint32_t i = 0; i < l->n; i++) {
		struct vmm_region *r = vmm_of(l->arg[i].value);

		for (uint32_t k = 0; k < n_done && r; k++)
			r = done[k] == r ? NULL : r;
		if (!r || !r->n || (!r->shown && !hosted(r)))
			continue;
		done[n_done++] = r;
		one(l, r);
	}
	vmm_stage_unlock();
	for (uint32_t i = 0; i < l->n_pins; i++)
		vmm_ops->wait(l->stream, bank_of(l->pin[i])->ready);
	if (l->changed && l->n_pins)
		device_stat(l->dev, SD_PATCHED, 1);
}

/* What comes after v, as it did the last time, if its bank is nobody's now. */
static void fetch_next(const struct vmm_view *v, uintptr_t stream)
{
	struct vmm_region *r;
	struct vmm_view *next, *old;
	struct vmm_bank *b;
	bool ok;

	vmm_stage_lock();
	r = v->next_region ? vmm_nth(v->next_region) : NULL;
	next = r && r->ctx == v->region->ctx ? view_at(r, v->next_start) : NULL;
	b = next ? bank_of(next) : NULL;
	if (!b || b == bank_of(v) || b->loading || b->pins || b->holds == next || r->shown->doubt) {
		vmm_stage_unlock();
		return;
	}
	if (b->holds && !b->used)
		device_stat(r->dev, SD_WASTED, 1);
	old = b->holds;
	b->loading = true;
	b->holds = NULL;
	vmm_stage_unlock();
	ok = load(next, old, stream, false);
	device_stat(r->dev, SD_ISSUED, 1);
	vmm_stage_lock();
	loaded(next, ok);
	vmm_stage_unlock();
}

static void unpin(struct vmm_launch *l, struct vmm_view *v, bool queued)
{
	struct vmm_bank *b = bank_of(v);
	struct vmm_stream_event *u;

	vmm_stage_lock();
	u = use_of(b, l->stream);
	vmm_stage_unlock();
	/* Where its end cannot be told, nobody fills the bank again. */
	if (queued && (!u || vmm_ops->record(u->event, l->stream)))
		return;
	vmm_stage_lock();
	b->pins--;
	vmm_stage_unlock();
}

static void end_trial(struct vmm_launch *l, bool queued)
{
	struct vmm_trial *t = &vmm_trials[l->trial - 1];

	if (queued && !t->event && vmm_ops->event(l->ctx, &t->event))
		t->event = 0;
	if (queued && t->event && !vmm_ops->record(t->event, l->stream)) {
		__atomic_store_n(&t->state, VMM_ARMED, __ATOMIC_RELEASE);
		return;
	}
	vmm_stage_lock();
	for (uint32_t i = 0; i < t->n_keys; i++)
		vmm_keys[t->key[i]].state = queued ? VMM_BAD : VMM_READY;
	t->state = VMM_UNUSED;
	vmm_stage_unlock();
	atomic_fetch_sub(&vmm_news, 1);
}

void vmm_launch_end(struct vmm_launch *l, bool queued)
{
	for (uint32_t i = 0; i < l->n_pins; i++)
		unpin(l, l->pin[i], queued);
	if (l->trial)
		end_trial(l, queued);
	for (uint32_t i = 0; ahead() && queued && i < l->n_pins; i++) {
		struct vmm_view *v = l->pin[i];
		struct vmm_stager *g = &vmm_stager[v->region->dev];

		vmm_stage_lock();
		if (g->last && g->last != v) {
			g->last->next_start = v->start;
			g->last->next_region = v->region->number;
		}
		g->last = v;
		vmm_stage_unlock();
		fetch_next(v, l->stream);
	}
}

/* ---- doubt ---------------------------------------------------------------------- */

static void doubt(struct vmm_region *r)
{
	struct vmm_shown *s;

	vmm_stage_lock();
	s = vmm_shown_of(r, true);
	if (s)
		s->doubt = true;
	vmm_stage_unlock();
}

static struct vmm_region *region_of(uint64_t addr)
{
	struct vmm_region *r = vmm_of(addr);

	return r && r->n ? r : NULL;
}

void vmm_doubt(uint64_t addr)
{
	struct vmm_region *r;

	if (!atomic_load_explicit(&vmm_stages, memory_order_relaxed))
		return;
	for (uint32_t i = 1; !addr && i < VMM_REGIONS; i++)
		if ((r = vmm_nth(i)))
			doubt(r);
	if (addr && (r = region_of(addr)))
		doubt(r);
}

void vmm_launch_kept(const struct vmm_launch *l)
{
	for (uint32_t i = 0; i < l->n && i < VMM_WORDS; i++) {
		struct vmm_region *r = region_of(l->arg[i].value);
		struct vmm_key *k = NULL;

		if (!r)
			continue;
		vmm_stage_lock();
		if (r->shown)
			k = vmm_key(r, l->fn, l->arg[i].word, l->arg[i].value);
		vmm_stage_unlock();
		if (!k || k->state != VMM_SHOWN || l->n > VMM_WORDS)
			doubt(r);
	}
}

/* Where the stream's event is kept: one of few; NULL: there are too many. */
static struct vmm_stream_event *write_of(struct vmm_shown *s, uintptr_t stream)
{
	uint32_t i = 0;

	while (i < s->n_writes && s->write[i].stream != stream)
		i++;
	if (i == WRITES)
		return NULL;
	if (i == s->n_writes)
		s->write[s->n_writes++] = (struct vmm_stream_event){ .stream = stream };
	return &s->write[i];
}

static void filled_anew(struct vmm_region *r, uintptr_t stream)
{
	struct vmm_stream_event *w = NULL;
	struct vmm_shown *s;

	vmm_stage_lock();
	s = vmm_shown_of(r, true);
	for (int d = 0; s && d < DEVICES; d++)
		for (uint32_t b = 0; b < BANKS; b++)
			if (vmm_stager[d].bank[b].holds && vmm_stager[d].bank[b].holds->region == r)
				vmm_stager[d].bank[b].holds = NULL;
	if (s)
		w = write_of(s, stream);
	if (s)
		s->epoch++;
	vmm_stage_unlock();
	if (!s)
		return;
	if (w && !w->event && vmm_ops->event(r->ctx, &w->event))
		w->event = 0;
	if (!w || !w->event || vmm_ops->record(w->event, stream))
		doubt(r);
}

void vmm_wrote(uint64_t addr, uint64_t len, uintptr_t stream)
{
	struct vmm_region *r;

	if (!atomic_load_explicit(&vmm_stages, memory_order_relaxed) || !len)
		return;
	r = region_of(addr);
	if (r && vmm_captures())
		doubt(r);
	else if (r)
		filled_anew(r, stream);
}
