/* SPDX-License-Identifier: MIT */
/* vmm_show.c - which kernels only read which ranges: shown, not guessed.
 *
 * A key is a parameter of a function with one address (the start of a window, up to the
 * next address that is given to kernels).
 *
 *   NEW --the window's hash is known--> READY --launched--> TRIED --unchanged--> READY (again)
 *     READY, TRIES times unchanged --launched with probe addresses--> PROBED
 *     PROBED --unchanged, and no address of the probe is found anywhere--> SHOWN
 *   anything else, at any time --> BAD, and where bytes changed the region is in doubt
 *
 * (1) A region is looked at only if nothing but the host has filled it and nobody else
 *     knows of it. When the host fills it anew all begins again.
 * (2) Nothing waits for a trial: its launches are followed by an event, and whether that
 *     has come is looked at where the program waits for something anyway.
 * (3) A kernel that keeps a pointer it was given would reach through it later, when other
 *     bytes are there. So once it gets addresses that are nobody else's and always right
 *     (the probe), and all that it can have written to is searched for them.
 * (4) All of a window's extents are hashed each time, those in the device too: a view is
 *     read only as a whole. An unfinished copy to the region makes all of it wait.
 * Lock: vmm_stage_lock, for keys and trials; checking is in the turn.
 */
#include "core/vmm_show.h"

#include <pthread.h>

#define PIECE		(1ull << 20)
#define SCAN_MOST	(256ull << 20)	/* larger ones are not searched: no proof */

struct vmm_key vmm_keys[VMM_KEYS];
struct vmm_trial vmm_trials[VMM_TRIALS];
_Atomic uint32_t vmm_news;		/* NEW keys and trials under way */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t fresh[VMM_KEYS], n_fresh;	/* numbers of NEW keys */
static uint32_t n_keys, pass;
static char *piece;

void vmm_stage_lock(void)
{
	pthread_mutex_lock(&lock);
}

void vmm_stage_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

/* ---- keys (lock held) ---------------------------------------------------------------- */

static void renew(uint32_t i, uint32_t epoch)
{
	vmm_keys[i].state = VMM_NEW;
	vmm_keys[i].epoch = epoch;
	vmm_keys[i].times = 0;
	if (n_fresh < VMM_KEYS) {
		fresh[n_fresh++] = i;
		atomic_fetch_add(&vmm_news, 1);
	}
}

struct vmm_key *vmm_key(const struct vmm_region *r, uintptr_t fn, uint32_t word, uint64_t start)
{
	uint64_t h = (fn ^ start * 31 ^ word * 0x51ull ^ r->serial << 40) * 0x9e3779b97f4a7c15ull;

	for (uint32_t k = 0, i = h >> 40 & (VMM_KEYS - 1); k < 64; k++, i = (i + 1) & (VMM_KEYS - 1)) {
		struct vmm_key *key = &vmm_keys[i];

		if (!key->fn) {
			if (n_keys++ > VMM_KEYS * 3 / 4)
				return NULL;
			*key = (struct vmm_key){ .fn = fn, .start = start, .serial = r->serial,
						 .word = word, .region = r->number };
			renew(i, r->shown->epoch);
			return key;
		}
		if (key->fn == fn && key->start == start && key->word == word &&
		    key->serial == r->serial) {
			if (key->epoch != r->shown->epoch && key->state != VMM_BAD)
				renew(i, r->shown->epoch);
			return key;
		}
	}
	return NULL;
}

struct vmm_shown *vmm_shown_of(struct vmm_region *r, bool make)
{
	struct vmm_shown *s = __atomic_load_n(&r->shown, __ATOMIC_ACQUIRE);

	if (!s && make && r->n) {
		s = mem_zalloc(sizeof(*s) + r->n * sizeof(s->hash[0]));
		__atomic_store_n(&r->shown, s, __ATOMIC_RELEASE);
	}
	return s;
}

/* In order, each once. */
void vmm_started(struct vmm_shown *s, uint64_t start)
{
	uint32_t i = s->n_starts;

	while (i && s->start[i - 1] > start)
		i--;
	if ((i && s->start[i - 1] == start) || s->n_starts == STARTS)
		return;
	memmove(&s->start[i + 1], &s->start[i], (s->n_starts - i) * sizeof(s->start[0]));
	s->start[i] = start;
	s->n_starts++;
}

/* ---- bytes (in the turn) ---------------------------------------------------------------- */

/* (1) */
bool vmm_only_filled(const struct vmm_region *r)
{
	struct device_region d;
	const unsigned int others = DEVICE_WRITTEN | DEVICE_SHOWN | DEVICE_ENCODED;

	return !r->fixed && device_find(r->base, &d) && d.placed == r->number &&
	       (d.marks & (DEVICE_FILLED | others)) == DEVICE_FILLED;
}

static bool copies_done(const struct vmm_region *r)
{
	for (uint32_t i = 0; i < r->shown->n_writes; i++)
		if (!r->shown->write[i].event || vmm_ops->done(r->shown->write[i].event))
			return false;
	return true;
}

static int hash_at(const struct vmm_region *r, char *buf, uint64_t at, uint64_t len, uint64_t *out)
{
	const struct vmm_stager *g = &vmm_stager[r->dev];
	uint64_t h = 0;

	for (uint64_t i = 0; i < len; i += PIECE) {
		uint64_t n = len - i < PIECE ? len - i : PIECE;
		int err = vmm_ops->fetch(r->ctx, g->stream, buf, at + i, n);

		if (err)
			return err;
		h = h * 0x9e3779b97f4a7c15ull + chunk_hash(buf, n);
	}
	*out = h;
	return 0;
}

/* The extent's hash is as it was (or the first). 1, 0: it is not, or -errno. */
static int same(struct vmm_region *r, uint32_t i)
{
	struct vmm_shown *s = r->shown;
	uint64_t h;
	int err;

	if (s->hash[i].known && s->hash[i].epoch == s->epoch && s->hash[i].pass == pass)
		return 1;
	err = hash_at(r, piece, vmm_at(r, i), vmm_bytes(r, i), &h);
	if (err)
		return err;
	if (!s->hash[i].known || s->hash[i].epoch != s->epoch) {
		s->hash[i].value = h;
		s->hash[i].epoch = s->epoch;
		s->hash[i].known = true;
	}
	s->hash[i].pass = pass;
	return s->hash[i].value == h;
}

/* (4) */
static int window_same(struct vmm_region *r, uint64_t start)
{
	uint32_t first, n = vmm_window(r, start, &first);

	for (uint32_t i = first; i < first + n; i++) {
		int ok = same(r, i);

		if (ok != 1)
			return ok;
	}
	return 1;
}

void vmm_verify(const struct vmm_view *v)
{
	struct vmm_region *r = v->region;
	const struct vmm_stager *g = &vmm_stager[r->dev];
	uint64_t at = g->bank[v->bank].at, h;
	uint32_t slot = 0;
	char *buf = mem_alloc(PIECE);

	for (uint32_t i = v->first; buf && i < v->first + v->n && slot < g->per; i++) {
		if (!vmm_slotted(r, i))
			continue;
		if (hash_at(r, buf, at + slot++ * r->extent, vmm_bytes(r, i), &h) ||
		    !r->shown->hash[i].known || r->shown->hash[i].epoch != v->epoch ||
		    r->shown->hash[i].value == h)
			continue;
		r->shown->doubt = true;
		if (off_opt.stage == OPT_STAGE_AHEAD)	/* else they were right all the same */
			off_fatal("device %d: staged bytes at %#llx are not what they were",
				  r->dev, (unsigned long long)vmm_at(r, i));
	}
	mem_free(buf);
}

/* True: a word in [at, at + len) is an address of the probe; or it cannot be said. */
static bool holds(const struct vmm_region *r, uint64_t at, uint64_t len)
{
	for (uint64_t i = 0; i < len; i += PIECE) {
		uint64_t n = len - i < PIECE ? len - i : PIECE, w;

		if (vmm_ops->fetch(r->ctx, vmm_stager[r->dev].stream, piece, at + i, n))
			return true;
		for (uint64_t k = 0; k + 8 <= n; k += 4) {
			memcpy(&w, piece + k, 8);
			if (w - r->shown->probe <= r->size)
				return true;
		}
	}
	return false;
}

/* (3) */
static bool kept(const struct vmm_region *r, const struct vmm_trial *t)
{
	struct device_region d;

	for (uint32_t i = 0; i < t->n_words; i++) {
		if (t->word[i] - r->base < r->size || !device_find(t->word[i], &d))
			continue;
		if (d.len > SCAN_MOST || d.kind == DEVICE_GLOBAL || holds(r, d.base, d.len))
			return true;
	}
	return false;
}

/* ---- checking (in the turn) ---------------------------------------------------------------- */

static void judge(const struct vmm_trial *t, enum vmm_key_state state)
{
	vmm_stage_lock();
	for (uint32_t i = 0; i < t->n_keys; i++) {
		struct vmm_key *k = &vmm_keys[t->key[i]];

		if (k->state != VMM_TRIED && k->state != VMM_PROBED)
			continue;
		k->state = state;
		k->times += state == VMM_READY;
	}
	vmm_stage_unlock();
}

static void tell(const struct vmm_region *r, const struct vmm_trial *t, const char *what)
{
	for (uint32_t i = 0; i < t->n_keys; i++) {
		const struct vmm_key *k = &vmm_keys[t->key[i]];

		off_verbose(3, "device %d: kernel %#lx, argument %u, %#llx of the %llu bytes at "
			    "%#llx: %s", r->dev, k->fn, k->word, (unsigned long long)k->start,
			    (unsigned long long)r->len, (unsigned long long)r->base, what);
	}
}

static struct vmm_region *alive(uint32_t number, uint64_t serial)
{
	struct vmm_region *r = vmm_nth(number);

	return r && r->serial == serial && r->shown ? r : NULL;
}

static void verdict(struct vmm_trial *t)
{
	struct vmm_region *r = alive(t->region, t->serial);
	int ok = 1;

	if (!r || r->shown->epoch != t->epoch || r->shown->doubt) {
		judge(t, VMM_BAD);
		return;
	}
	for (uint32_t i = 0; i < t->n_keys && ok == 1; i++)
		ok = window_same(r, vmm_keys[t->key[i]].start);
	if (!ok)
		r->shown->doubt = true;
	if (ok != 1 || (t->probe && kept(r, t))) {
		tell(r, t, ok == 1 ? "it may keep it" : ok ? "not known" : "it writes there");
		judge(t, VMM_BAD);
		return;
	}
	if (t->probe)
		tell(r, t, "it only reads");
	for (uint32_t i = 0; t->probe && i < t->n_keys; i++) {
		uint64_t start = vmm_keys[t->key[i]].start;
		struct vmm_view *v = NULL;

		for (uint32_t k = 0; k < r->shown->n_views && !v; k++)
			if (r->shown->view[k]->start == start)
				v = r->shown->view[k];
		if (v)		/* of bytes that were there before: its homes are the same */
			v->epoch = r->shown->epoch;
		else
			vmm_view_make(r, start);
	}
	judge(t, t->probe ? VMM_SHOWN : VMM_READY);
}

static void check_trials(void)
{
	for (uint32_t i = 0; i < VMM_TRIALS; i++) {
		struct vmm_trial *t = &vmm_trials[i];
		const struct vmm_region *r;

		if (__atomic_load_n(&t->state, __ATOMIC_ACQUIRE) != VMM_ARMED ||
		    vmm_ops->done(t->event))
			continue;
		r = alive(t->region, t->serial);
		if (r && !copies_done(r))
			continue;
		verdict(t);
		__atomic_store_n(&t->state, VMM_UNUSED, __ATOMIC_RELEASE);
		atomic_fetch_sub(&vmm_news, 1);
	}
}

/* NEW -> READY, or later. */
static void check_fresh(void)
{
	uint32_t n, i, kept_on = 0;

	vmm_stage_lock();
	n = n_fresh;
	vmm_stage_unlock();
	for (i = 0; i < n; i++) {
		struct vmm_key *k = &vmm_keys[fresh[i]];
		struct vmm_region *r = alive(k->region, k->serial);
		bool can = r && !r->shown->doubt && vmm_only_filled(r);
		int ok = -EAGAIN;

		if (can && copies_done(r) && vmm_stager_open(r->dev, r->ctx) && vmm_probe_make(r))
			ok = window_same(r, k->start);
		if (can && ok == -EAGAIN && !r->shown->refused && !copies_done(r)) {
			fresh[kept_on++] = fresh[i];	/* later */
			continue;
		}
		vmm_stage_lock();
		if (ok == 0)
			r->shown->doubt = true;
		k->state = ok == 1 ? VMM_READY : VMM_BAD;
		vmm_stage_unlock();
		atomic_fetch_sub(&vmm_news, 1);
	}
	vmm_stage_lock();
	memmove(&fresh[kept_on], &fresh[n], (n_fresh - n) * sizeof(fresh[0]));
	n_fresh -= n - kept_on;
	vmm_stage_unlock();
}

void vmm_synced(void)
{
	int saved = errno;

	if (!atomic_load_explicit(&vmm_news, memory_order_relaxed) || vmm_captures() ||
	    !vmm_try_turn())
		return;
	if (!piece)
		piece = reserve_range(PIECE);
	pass++;
	if (piece) {
		check_trials();
		check_fresh();
	}
	vmm_give_turn();
	errno = saved;
}

void vmm_show_child(void)
{
	memset(vmm_keys, 0, sizeof(vmm_keys));
	memset(vmm_trials, 0, sizeof(vmm_trials));
	n_fresh = n_keys = 0;
	atomic_store(&vmm_news, 0);
	pthread_mutex_init(&lock, NULL);
}
