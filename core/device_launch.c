/* SPDX-License-Identifier: MIT */
/* device_launch.c - what a kernel's arguments reach.
 *
 * (1) A function's parameters are asked for once; after that a launch costs a look
 *     into a table and a compare for each of its words, a look-up for those that are
 *     in the bounds of all regions.
 * (2) Readers take no lock: what is in the table is never given back, and nothing of it
 *     changes but whether it holds. After device_fn_forget an entry is as good as
 *     absent, and asked for again; the same answer makes it hold again.
 * (3) What is found here is a guess: a number may look like an address, and a kernel
 *     may find others in memory. It steers, it does not decide.
 * Lock: `lock`, leaf, for adding.
 */
#include "core/device_int.h"
#include "core/vmm_use.h"

#include <pthread.h>
#include <stdio.h>

#define FIRST_CAP 256u

struct word_run { uint32_t param, offset, words, size; };

struct device_fn {
	uintptr_t handle, owner;
	uintptr_t life;			/* 0: it does not hold. By atomics */
	int n;				/* runs; below 0: unknown */
	uint32_t params;		/* all of them */
	const char *name;		/* or NULL */
	struct device_fn *before;	/* what the handle was before */
	struct word_run run[];
};

struct table {
	uint32_t cap, n;
	struct device_fn *at[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct table *table;
static uintptr_t lives;

static uint32_t place(const struct table *t, uintptr_t handle)
{
	return (uint32_t)(handle * 0x9e3779b97f4a7c15ull >> 32) & (t->cap - 1);
}

uintptr_t device_fn_life(const struct device_fn *fn)
{
	return __atomic_load_n(&fn->life, __ATOMIC_RELAXED);
}

const struct device_fn *device_fn(uintptr_t handle)
{
	const struct table *t = __atomic_load_n(&table, __ATOMIC_ACQUIRE);
	const struct device_fn *f;

	for (uint32_t i = t ? place(t, handle) : 0; t; i = (i + 1) & (t->cap - 1)) {
		f = __atomic_load_n(&t->at[i], __ATOMIC_ACQUIRE);
		if (!f)
			return NULL;
		if (f->handle == handle)
			return device_fn_life(f) ? f : NULL;
	}
	return NULL;
}

/* Where it is, or would be. */
static struct device_fn **entry(struct table *t, uintptr_t handle)
{
	uint32_t i = place(t, handle);

	while (t->at[i] && t->at[i]->handle != handle)
		i = (i + 1) & (t->cap - 1);
	return &t->at[i];
}

static void put(struct table *t, struct device_fn *f)
{
	struct device_fn **at = entry(t, f->handle);

	t->n += !*at;
	__atomic_store_n(at, f, __ATOMIC_RELEASE);
}

/* The old table stays: somebody may be reading it. */
static bool grow(void)
{
	uint32_t cap = table ? table->cap * 2 : FIRST_CAP;
	struct table *t = mem_zalloc(sizeof(*t) + cap * sizeof(*t->at));

	if (!t)
		return false;
	t->cap = cap;
	for (uint32_t i = 0; table && i < table->cap; i++)
		if (table->at[i])
			put(t, table->at[i]);
	__atomic_store_n(&table, t, __ATOMIC_RELEASE);
	return true;
}

/* Of parameters that can hold an address at all, the words. */
static int runs(struct word_run *run, const struct device_param *p, int n)
{
	uint32_t words = 0;
	int k = 0;

	for (int i = 0; i < n; i++) {
		uint32_t more = p[i].size / 8;

		if (!more || p[i].offset % 8 || words + more > DEVICE_WORDS)
			continue;
		words += more;
		run[k++] = (struct word_run){ (uint32_t)i, p[i].offset, more, p[i].size };
	}
	return k;
}

static bool alike(const struct device_fn *a, const struct device_fn *b)
{
	return a->owner == b->owner && a->n == b->n && a->params == b->params &&
	       !a->name == !b->name && (!a->name || !strcmp(a->name, b->name)) &&
	       (a->n <= 0 || !memcmp(a->run, b->run, (size_t)a->n * sizeof(*a->run)));
}

/* The handle was that before: then f is not needed. Entries are not given back, so there
 * is one for each thing a handle ever was, however often it comes again. */
static struct device_fn *again(struct device_fn *f)
{
	struct device_fn **at = entry(table, f->handle), *old = *at;
	uintptr_t life = ++lives;

	f->life = life;
	while (old && !alike(old, f))
		old = old->before;
	if (!old) {
		f->before = *at;
		put(table, f);
		return f;
	}
	mem_free(f);
	if (old != *at) {	/* to the front */
		struct device_fn *d = *at;

		while (d->before != old)
			d = d->before;
		d->before = old->before;
		old->before = *at;
	}
	__atomic_store_n(&old->life, life, __ATOMIC_RELAXED);
	__atomic_store_n(at, old, __ATOMIC_RELEASE);
	return old;
}

const struct device_fn *device_fn_add(uintptr_t handle, uintptr_t owner,
				      const struct device_param *p, int n, const char *name)
{
	size_t len = name ? strlen(name) + 1 : 0;
	int many = n > 0 ? n : 0, saved = errno;
	struct device_fn *f = mem_alloc(sizeof(*f) + (size_t)many * sizeof(*f->run) + len);

	if (!f)
		return NULL;
	*f = (struct device_fn){ .handle = handle, .owner = owner,
				 .n = n < 0 ? n : 0, .params = (uint32_t)many };
	if (n > 0)
		f->n = runs(f->run, p, n);
	if (name)
		f->name = memcpy(&f->run[many], name, len);
	pthread_mutex_lock(&lock);
	if ((!table || table->n * 2 >= table->cap) && !grow()) {
		mem_free(f);
		f = NULL;
	} else {
		f = again(f);
	}
	pthread_mutex_unlock(&lock);
	errno = saved;
	return f;
}

void device_fn_forget(uintptr_t owner)
{
	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; table && i < table->cap; i++) {
		struct device_fn *f = table->at[i];

		if (f && (!owner || !f->owner || f->owner == owner))
			__atomic_store_n(&f->life, 0, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&lock);
}

/* ---- launches ------------------------------------------------------------------------ */

struct heard {
	char *line;
	size_t used, len;
};

static void hear(struct heard *h, const struct device_region *r, uint64_t addr)
{
	int n;

	if (!h || h->used + 48 > h->len)
		return;
	n = snprintf(h->line + h->used, h->len - h->used, " %u+%llu", r->id,
		     (unsigned long long)(addr - r->base));
	h->used += n > 0 ? (size_t)n : 0;
}

/* counts: uses of what is placed are counted. */
static void scan(const char *value, uint32_t words, struct heard *h, bool counts)
{
	struct device_region r;
	uint64_t w;

	for (; words; words--, value += sizeof(w)) {
		memcpy(&w, value, sizeof(w));
		if (!device_maybe(w) || !device_use(w, h || counts ? &r : NULL))
			continue;
		if (h)
			hear(h, &r, w);
		if (counts && r.placed)
			vmm_used(w);
	}
}

static void read_args(const struct device_fn *fn, void *const *args, const char *packed,
		      size_t bytes, struct heard *h, bool counts)
{
	for (int i = 0; i < fn->n; i++) {
		const struct word_run *run = &fn->run[i];

		if (args && args[run->param])
			scan(args[run->param], run->words, h, counts);
		else if (!args && packed && run->offset + run->words * 8ull <= bytes)
			scan(packed + run->offset, run->words, h, counts);
	}
}

static __attribute__((noinline)) void on_tape(int dev, uintptr_t stream,
					      const struct device_fn *fn, void *const *args,
					      const void *packed, size_t bytes, bool counts)
{
	char line[2048];
	struct heard h = { line, 0, sizeof(line) - 1 };
	int n = stream == DEVICE_NODE ?
		snprintf(line, 512, "device %d node %.200s", dev, fn->name ? fn->name : "?") :
		snprintf(line, 512, "device %d launch %lx %.200s", dev, (long)stream,
			 fn->name ? fn->name : "?");

	h.used = n > 0 ? (size_t)n : 0;
	read_args(fn, args, packed, bytes, &h, counts);
	line[h.used++] = '\n';
	device_tape_line(line, h.used);
	device_tape_flush(false);
}

void device_launch(int dev, uintptr_t stream, const struct device_fn *fn,
		   void *const *args, const void *packed, size_t bytes)
{
	bool counts = atomic_load_explicit(&vmm_counts, memory_order_relaxed) &&
		      stream != DEVICE_NODE;

	if (fn->n < 0 || (fn->n && !args && !packed))
		device_stat(dev, SD_UNREAD, 1);
	if (__builtin_expect(device_tape_on(), 0))
		on_tape(dev, stream, fn, args, packed, bytes, counts);
	else
		read_args(fn, args, packed, bytes, NULL, counts);
}

bool device_unread(const struct device_fn *fn, void *const *args, const void *packed)
{
	return fn->n < 0 || (fn->n && !args && !packed);
}

/* Where a run's words are; NULL: not among these. */
static const char *words_at(const struct word_run *run, void *const *args, const char *packed,
			    size_t bytes)
{
	if (args)
		return args[run->param];
	return packed && run->offset + run->words * 8ull <= bytes ? packed + run->offset : NULL;
}

static bool interesting(uint64_t w)
{
	return (device_maybe(w) && device_find(w, NULL)) ||
	       (device_maybe(w - 1) && device_find(w - 1, NULL));
}

uint32_t device_words(const struct device_fn *fn, void *const *args, const void *packed,
		      size_t bytes, void (*word)(uint32_t nth, uint64_t value, void *arg), void *arg)
{
	uint32_t n = 0, nth = 0;
	uint64_t w;

	for (int i = 0; i < fn->n; i++) {
		const struct word_run *run = &fn->run[i];
		const char *at = words_at(run, args, packed, bytes);

		for (uint32_t k = 0; k < run->words; k++, nth++) {
			if (!at)
				continue;
			memcpy(&w, at + 8 * k, sizeof(w));
			if (!interesting(w))
				continue;
			word(nth, w, arg);
			n++;
		}
	}
	return n;
}

static void put_words(char *to, uint32_t first, uint32_t words, uint32_t n,
		      const struct device_word *word)
{
	for (uint32_t i = 0; i < n; i++)
		if (word[i].nth - first < words)
			memcpy(to + 8 * (word[i].nth - first), &word[i].value, 8);
}

bool device_patch(const struct device_fn *fn, void *const *args, const void *packed, size_t bytes,
		  uint32_t n, const struct device_word *word, struct device_patched *out)
{
	uint32_t nth = 0;
	size_t used = 0;

	if (args ? fn->params > DEVICE_PARAMS : bytes > sizeof(out->bytes))
		return false;
	if (args)
		memcpy(out->args, args, fn->params * sizeof(*args));
	else
		memcpy(out->bytes, packed, bytes);
	for (int i = 0; i < fn->n; nth += fn->run[i++].words) {
		const struct word_run *run = &fn->run[i];
		char *to = out->bytes + run->offset;

		if (args) {
			if (used + run->size > sizeof(out->bytes))
				return false;
			to = out->bytes + used;
			used += (run->size + 15ul) & ~15ul;
			memcpy(to, args[run->param], run->size);
			out->args[run->param] = to;
		}
		put_words(to, nth, run->words, n, word);
	}
	return true;
}

void device_fn_lock(void)
{
	pthread_mutex_lock(&lock);
}

void device_fn_unlock(void)
{
	pthread_mutex_unlock(&lock);
}
