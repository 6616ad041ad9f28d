/* SPDX-License-Identifier: MIT */
/* device_map.c - regions of device memory by address.
 *
 *   granule of 2 MiB: NONE | one region covers it | a sorted list of those in it
 *
 * (1) Looking takes a load in each of three tables for a large region, and for a
 *     small one a few in its granule's list, however many there are.
 * (2) Readers take no lock: what they read is checked by `seq` afterwards, and
 *     memory of tables and lists is never given back, so that what they follow
 *     meanwhile is always a table or a list.
 * (3) Nothing is there until the first region is.
 * Lock: `lock`, leaf, for all that changes; seq is odd while tables change.
 */
#include "core/device_int.h"

#include <pthread.h>
#include <sched.h>

#define GRAN_BITS	21
#define GRAN		(1ull << GRAN_BITS)
#define LEAF_BITS	14
#define LEAF		(1u << LEAF_BITS)
#define TOP		(1u << 14)
#define ADDR_END	(1ull << (GRAN_BITS + LEAF_BITS + 14))	/* 512 TiB */
#define BLOCK		4096u		/* regions to a block */
#define BLOCKS		1024u
#define CLASSES		13		/* lists of 8 << class */
#define INDEXED		1u		/* class */
#define SUB_BITS	12		/* of the pages of a list's index */
#define SUBS		(1u << (GRAN_BITS - SUB_BITS))
#define LISTED		1ull		/* granule: a list's address + this */
#define COVERED		2ull		/* or a region's number << 3, + this */
#define USED		4ull		/* and this, once its region is marked so */
#define FLAGS		7ull

/* What of a granule is whose, by offsets in it: three arrays of 8 << class, of starts,
 * of ends and of numbers << 1 (+ 1: used), in order. From INDEXED on, before them, for
 * each page of the granule how many start before its end. */
struct list {
	uint32_t n, class;
	struct list *next_free;
	uint32_t array[];
};

struct slot {
	struct device_region r;
	uint32_t next_free;
	bool live;
};

struct phys {
	uint64_t handle, len;
	uint32_t refs, maps;
	int32_t dev;
};

uint64_t device_low = UINT64_MAX, device_high;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t seq;
static uint64_t **top;			/* TOP pointers to LEAF granules */
static struct slot *block[BLOCKS];
static uint32_t fresh, free_slot;	/* numbers + 1; 0: none */
static struct list *free_list[CLASSES];
static char *bump;
static size_t bump_left;
static struct phys *phys;		/* open addressing; handle 0: empty */
static uint32_t phys_cap, phys_n;

static void begin_change(void)
{
	pthread_mutex_lock(&lock);
	__atomic_fetch_add(&seq, 1, __ATOMIC_SEQ_CST);
}

static void end_change(void)
{
	__atomic_fetch_add(&seq, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&lock);
}

static struct slot *slot_of(uint32_t n)
{
	struct slot *b = n < BLOCK * BLOCKS ?
		__atomic_load_n(&block[n / BLOCK], __ATOMIC_ACQUIRE) : NULL;

	return b ? &b[n % BLOCK] : NULL;
}

/* ---- lists ----------------------------------------------------------------------- */

static uint32_t cap_of(const struct list *l)
{
	return 8u << (l->class < CLASSES ? l->class : 0);
}

static uint32_t *starts(const struct list *l)
{
	return (uint32_t *)l->array + (l->class >= INDEXED ? SUBS / 2 : 0);
}

static size_t list_bytes(uint32_t class)
{
	return sizeof(struct list) + (class >= INDEXED ? SUBS * sizeof(uint16_t) : 0) +
	       3 * (sizeof(uint32_t) << (class + 3));
}

static struct list *list_new(uint32_t class)
{
	size_t len = list_bytes(class);
	struct list *l;

	if (class >= CLASSES)
		return NULL;
	l = free_list[class];
	if (l) {
		free_list[class] = l->next_free;
		return l;
	}
	if (bump_left < len) {
		size_t more = len > GRAN / 4 ? page_up(len) : GRAN / 4;

		bump = reserve_range(more);
		bump_left = bump ? more : 0;
		if (!bump)
			return NULL;
	}
	l = (struct list *)bump;
	bump += len;
	bump_left -= len;
	l->class = class;
	return l;
}

static void list_free(struct list *l)
{
	l->n = 0;
	l->next_free = free_list[l->class];
	free_list[l->class] = l;
}

/* How many of l start at or below off. Any n a reader may see is in bounds. */
static uint32_t upto(const struct list *l, uint32_t off)
{
	const uint32_t *start = starts(l);
	uint32_t n = __atomic_load_n(&l->n, __ATOMIC_RELAXED), cap = cap_of(l), i = 0;

	if (l->class < INDEXED) {	/* no branch: none could be foreseen */
		for (uint32_t k = 0; k < cap; k++)
			i += (k < n) & (start[k] <= off);
		return i;
	}
	i = ((const uint16_t *)l->array)[off >> SUB_BITS];
	i = i < cap ? i : cap;
	while (i && start[i - 1] > off)
		i--;
	return i;
}

/* One more or less starts at off. */
static void reindex(struct list *l, uint32_t off, uint16_t change)
{
	uint16_t *sub = (uint16_t *)l->array;

	if (l->class >= INDEXED)
		for (uint32_t i = off >> SUB_BITS; i < SUBS; i++)
			sub[i] = (uint16_t)(sub[i] + change);
}

static uint64_t *granule(uint64_t addr, bool make)
{
	uint64_t *leaf, **t = __atomic_load_n(&top, __ATOMIC_ACQUIRE);

	if (addr >= ADDR_END)
		return NULL;
	if (!t) {
		if (!make || !(t = reserve_range(TOP * sizeof(*t))))
			return NULL;
		__atomic_store_n(&top, t, __ATOMIC_RELEASE);
	}
	leaf = __atomic_load_n(&t[addr >> (GRAN_BITS + LEAF_BITS)], __ATOMIC_ACQUIRE);
	if (!leaf) {
		if (!make || !(leaf = reserve_range(LEAF * sizeof(*leaf))))
			return NULL;
		__atomic_store_n(&t[addr >> (GRAN_BITS + LEAF_BITS)], leaf, __ATOMIC_RELEASE);
	}
	return &leaf[addr >> GRAN_BITS & (LEAF - 1)];
}

static void list_copy(struct list *to, const struct list *from)
{
	for (uint32_t k = 0; k < 3; k++)
		memcpy(starts(to) + k * cap_of(to), starts(from) + k * cap_of(from),
		       from->n * sizeof(uint32_t));
	to->n = from->n;
	if (to->class < INDEXED)
		return;
	memset(to->array, 0, SUBS * sizeof(uint16_t));
	for (uint32_t i = 0; i < to->n; i++)
		reindex(to, starts(to)[i], 1);
}

/* Room for one more in the granule's list. */
static struct list *list_room(uint64_t *g)
{
	struct list *l = (struct list *)(*g & ~FLAGS), *more;

	if (l && l->n < cap_of(l))
		return l;
	more = list_new(l ? l->class + 1 : 0);
	if (!more)
		return NULL;
	if (l) {
		list_copy(more, l);
		list_free(l);
	}
	__atomic_store_n(g, (uint64_t)(uintptr_t)more | LISTED, __ATOMIC_RELEASE);
	return more;
}

static int list_add(uint64_t *g, uint32_t start, uint32_t end, uint32_t region)
{
	struct list *l = list_room(g);
	uint32_t values[3] = { start, end, region << 1 }, at;

	if (!l)
		return -ENOMEM;
	at = upto(l, start);
	for (uint32_t k = 0; k < 3; k++) {
		uint32_t *v = starts(l) + k * cap_of(l);

		memmove(&v[at + 1], &v[at], (l->n - at) * sizeof(*v));
		v[at] = values[k];
	}
	l->n++;
	reindex(l, start, 1);
	return 0;
}

static void list_remove(uint64_t *g, uint32_t start)
{
	struct list *l = (struct list *)(*g & ~FLAGS);
	uint32_t at = l ? upto(l, start) : 0;

	if (!at || starts(l)[at - 1] != start)
		return;
	for (uint32_t k = 0; k < 3; k++) {
		uint32_t *v = starts(l) + k * cap_of(l);

		memmove(&v[at - 1], &v[at], (l->n - at) * sizeof(*v));
	}
	reindex(l, start, UINT16_MAX);
	if (--l->n)
		return;
	__atomic_store_n(g, 0, __ATOMIC_RELEASE);
	list_free(l);
}

/* ---- looking ---------------------------------------------------------------------- */

/* Where it says whose addr is: a granule, or an item of its list. */
struct place {
	uint32_t region;
	bool found, used;
	uint64_t *granule;
	uint32_t *item;
};

/* If what is read is consistent. */
static struct place look(uint64_t addr)
{
	uint64_t *p = granule(addr, false), g = p ? __atomic_load_n(p, __ATOMIC_ACQUIRE) : 0;
	uint32_t off = (uint32_t)(addr & (GRAN - 1)), i, cap;
	const struct list *l;
	uint32_t *start;

	if (g & COVERED)
		return (struct place){ .region = (uint32_t)(g >> 3), .found = true,
				       .used = g & USED, .granule = p };
	if (!(g & LISTED))
		return (struct place){ .found = false };
	l = (const struct list *)(g & ~FLAGS);
	start = starts(l);
	cap = cap_of(l);
	i = upto(l, off);
	if (!i || off >= start[cap + i - 1])
		return (struct place){ .found = false };
	return (struct place){ .region = start[2 * cap + i - 1] >> 1, .found = true,
			       .used = start[2 * cap + i - 1] & 1,
			       .item = &start[2 * cap + i - 1] };
}

/* The same with what it is of, if there is such a region. lock held. */
static struct slot *look_slot(uint64_t addr)
{
	struct place at = look(addr);
	struct slot *s = at.found ? slot_of(at.region) : NULL;

	return s && s->live ? s : NULL;
}

static bool marked(uint64_t addr, unsigned int marks, struct device_region *out)
{
	struct slot *s;

	pthread_mutex_lock(&lock);
	s = look_slot(addr);
	if (s)
		s->r.marks = (uint16_t)(s->r.marks | marks);
	if (s && marks & DEVICE_USED) {
		struct place at = look(addr);

		if (at.granule)
			__atomic_fetch_or(at.granule, USED, __ATOMIC_RELAXED);
		else
			__atomic_fetch_or(at.item, 1, __ATOMIC_RELAXED);
	}
	if (s && out)
		*out = s->r;
	pthread_mutex_unlock(&lock);
	return s != NULL;
}

/* What was read before is not read after what follows. */
static void reads_done(void)
{
#ifndef __SANITIZE_THREAD__	/* which knows no fences */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
#endif
}

/* As look_slot, without the lock: 1 or 0, or -1: ask with it. */
static int glance(uint64_t addr, struct device_region *out, bool *used)
{
	for (int tries = 0; tries < 100; tries++) {
		uint32_t was = __atomic_load_n(&seq, __ATOMIC_ACQUIRE);
		struct place at;
		struct slot *s;

		if (was & 1) {
			sched_yield();
			continue;
		}
		at = look(addr);
		if (at.found && out) {
			s = slot_of(at.region);
			if (s)
				*out = s->r;
		}
		*used = at.used;
		reads_done();
		if (__atomic_load_n(&seq, __ATOMIC_RELAXED) == was)
			return at.found;
	}
	return -1;
}

bool device_find(uint64_t addr, struct device_region *out)
{
	bool used;
	int found = device_maybe(addr) ? glance(addr, out, &used) : 0;

	return found < 0 ? marked(addr, 0, out) : found;
}

bool device_use(uint64_t addr, struct device_region *out)
{
	bool used = false;
	int found = device_maybe(addr) ? glance(addr, out, &used) : 0;

	return found < 0 || (found && !used) ? marked(addr, DEVICE_USED, out) : found;
}

void device_mark(uint64_t addr, unsigned int marks)
{
	struct device_region r;

	if (device_find(addr, &r) && marks & ~r.marks)
		marked(addr, marks, NULL);
}

/* ---- handles (lock held) ------------------------------------------------------------ */

static struct phys *phys_at(uint64_t handle)
{
	uint32_t i;

	if (!phys_cap)
		return NULL;
	for (i = (uint32_t)(handle * 0x9e3779b97f4a7c15ull >> 40) & (phys_cap - 1);
	     phys[i].handle && phys[i].handle != handle; i = (i + 1) & (phys_cap - 1))
		;
	return &phys[i];
}

static int phys_grow(void)
{
	uint32_t cap = phys_cap ? phys_cap * 2 : 256, was = phys_cap;
	struct phys *old = phys, *bigger = mem_zalloc(cap * sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	phys = bigger;
	phys_cap = cap;
	for (uint32_t i = 0; i < was; i++)
		if (old[i].handle)
			*phys_at(old[i].handle) = old[i];
	mem_free(old);
	return 0;
}

static struct phys *phys_find(uint64_t handle)
{
	struct phys *p = handle ? phys_at(handle) : NULL;

	return p && p->handle ? p : NULL;
}

/* The ones behind it in its run move up. */
static void phys_remove(struct phys *p)
{
	uint32_t hole = (uint32_t)(p - phys), i = hole;

	*p = (struct phys){ 0 };
	phys_n--;
	for (;;) {
		struct phys moved;

		i = (i + 1) & (phys_cap - 1);
		if (!phys[i].handle)
			return;
		moved = phys[i];
		phys[i] = (struct phys){ 0 };
		*phys_at(moved.handle) = moved;
	}
}

static void phys_count(const struct phys *p, int64_t sign)
{
	device_stat(p->dev, SD_MANAGED, (int64_t)p->len * sign);
	device_stat(p->dev, SD_RESIDENT, (int64_t)p->len * sign);
}

static void phys_gone(struct phys *p)
{
	if (p->refs || p->maps)
		return;
	phys_count(p, -1);
	phys_remove(p);
}

void device_handle_new(uint64_t handle, uint64_t len, int dev)
{
	struct phys *p;

	pthread_mutex_lock(&lock);
	if (handle && (phys_n * 2 < phys_cap || !phys_grow())) {
		p = phys_at(handle);
		if (p->handle)		/* its end went past us */
			phys_count(p, -1);
		else
			phys_n++;
		*p = (struct phys){ .handle = handle, .len = len, .refs = 1, .dev = dev };
		phys_count(p, 1);
	}
	pthread_mutex_unlock(&lock);
}

void device_handle_retain(uint64_t handle)
{
	struct phys *p;

	pthread_mutex_lock(&lock);
	p = phys_find(handle);
	if (p)
		p->refs++;
	pthread_mutex_unlock(&lock);
}

void device_handle_release(uint64_t handle)
{
	struct phys *p;

	pthread_mutex_lock(&lock);
	p = phys_find(handle);
	if (p && p->refs) {
		p->refs--;
		phys_gone(p);
	}
	pthread_mutex_unlock(&lock);
}

/* ---- regions come and go (changing) ---------------------------------------------------- */

static void count(const struct device_region *r, int64_t sign)
{
	int64_t len = (int64_t)r->len * sign;
	struct phys *p;

	device_stat(r->dev, SD_REGIONS, sign);
	switch (r->kind) {
	case DEVICE_PLAIN:
	case DEVICE_STREAM:
		if (!r->placed)		/* homes are counted as they come and go */
			device_stat(r->dev, SD_RESIDENT, len);
		__attribute__((fallthrough));
	case DEVICE_UNIFIED:
		device_stat(r->dev, SD_MANAGED, len);
		break;
	case DEVICE_PINNED:
	case DEVICE_REGISTERED:
		device_stat(r->dev, SD_PINNED, len);
		break;
	case DEVICE_MAPPED:
		p = phys_find(r->handle);
		if (!p)
			break;
		p->maps += (uint32_t)sign;
		phys_gone(p);
		break;
	}
}

static uint32_t slot_new(void)
{
	uint32_t n = free_slot;

	if (n) {
		free_slot = slot_of(n - 1)->next_free;
		return n;
	}
	if (fresh >= BLOCK * BLOCKS)
		return 0;
	if (!block[fresh / BLOCK]) {
		struct slot *b = reserve_range(BLOCK * sizeof(*b));

		if (!b)
			return 0;
		__atomic_store_n(&block[fresh / BLOCK], b, __ATOMIC_RELEASE);
	}
	return ++fresh;
}

static void slot_free(uint32_t n)
{
	struct slot *s = slot_of(n);

	s->live = false;
	s->next_free = free_slot;
	free_slot = n + 1;
}

static bool covers(const struct device_region *r, uint64_t g)
{
	return r->base <= g && r->base + r->len >= g + GRAN;
}

/* What of the granule at g is the region's: offsets. */
static uint32_t first_in(const struct device_region *r, uint64_t g)
{
	return r->base > g ? (uint32_t)(r->base - g) : 0;
}

static uint32_t end_in(const struct device_region *r, uint64_t g)
{
	return r->base + r->len < g + GRAN ? (uint32_t)(r->base + r->len - g) : (uint32_t)GRAN;
}

static void unlink_upto(const struct device_region *r, uint64_t end)
{
	for (uint64_t g = r->base & ~(GRAN - 1); g < end; g += GRAN) {
		uint64_t *p = granule(g, false);

		if (p && covers(r, g))
			__atomic_store_n(p, 0, __ATOMIC_RELEASE);
		else if (p)
			list_remove(p, first_in(r, g));
	}
}

static int link_slot(uint32_t n, const struct device_region *r)
{
	for (uint64_t g = r->base & ~(GRAN - 1); g < r->base + r->len; g += GRAN) {
		uint64_t *p = granule(g, true);
		int err = p ? 0 : -ENOMEM;

		if (p && covers(r, g))
			__atomic_store_n(p, (uint64_t)n << 3 | COVERED, __ATOMIC_RELEASE);
		else if (p)
			err = list_add(p, first_in(r, g), end_in(r, g), n);
		if (err) {
			unlink_upto(r, g);
			return err;
		}
	}
	return 0;
}

static void remove_slot(struct slot *s)
{
	unlink_upto(&s->r, s->r.base + s->r.len);
	count(&s->r, -1);
	device_tape_region(&s->r, true);
	slot_free(s->r.id);
}

/* One that [base, end) touches, at or after *from; NULL: none. */
static struct slot *touched(uint64_t *from, uint64_t end)
{
	for (; *from < end; *from = (*from & ~(GRAN - 1)) + GRAN) {
		uint64_t g = *from & ~(GRAN - 1), *p = granule(g, false);
		uint32_t last = end - 1 < g + GRAN ? (uint32_t)(end - 1 - g) : (uint32_t)GRAN - 1;
		const struct list *l;
		uint32_t i, cap;

		if (!p || !*p)
			continue;
		if (*p & COVERED)
			return slot_of((uint32_t)(*p >> 3));
		l = (const struct list *)(*p & ~FLAGS);
		cap = cap_of(l);
		i = upto(l, last);	/* they do not overlap: the last one decides */
		if (i && starts(l)[cap + i - 1] > (uint32_t)(*from - g))
			return slot_of(starts(l)[2 * cap + i - 1] >> 1);
	}
	return NULL;
}

static void remove_range(uint64_t base, uint64_t len)
{
	uint64_t from = base;
	struct slot *s;

	while ((s = touched(&from, base + len)))
		remove_slot(s);
}

static bool add(const struct device_region *r, uint16_t marks)
{
	struct slot *s;
	uint32_t n;

	remove_range(r->base, r->len);
	n = slot_new();
	if (!n--)
		return false;
	s = slot_of(n);
	s->r = *r;
	s->r.id = n;
	s->r.marks = marks;
	if (r->kind == DEVICE_MAPPED && phys_find(r->handle))
		s->r.dev = (uint8_t)phys_find(r->handle)->dev;
	s->live = true;
	if (link_slot(n, &s->r)) {
		slot_free(n);
		return false;
	}
	if (r->base < device_low)
		__atomic_store_n(&device_low, r->base, __ATOMIC_RELAXED);
	if (r->base + r->len > device_high)
		__atomic_store_n(&device_high, r->base + r->len, __ATOMIC_RELAXED);
	count(&s->r, 1);
	device_tape_region(&s->r, false);
	return true;
}

static bool add_locked(const struct device_region *r, uint16_t marks)
{
	int saved = errno;
	bool ok = false;

	if (!r->len || r->base >= ADDR_END || r->len > ADDR_END - r->base)
		return false;
	begin_change();
	ok = add(r, marks);
	end_change();
	errno = saved;
	return ok;
}

bool device_add(const struct device_region *r)
{
	return add_locked(r, 0);
}

void device_put_back(const struct device_region *was)
{
	add_locked(was, was->marks);
}

bool device_drop(uint64_t base, struct device_region *was)
{
	struct slot *s;

	if (!device_maybe(base))
		return false;
	begin_change();
	s = look_slot(base);
	if (s && s->r.base == base) {
		*was = s->r;
		remove_slot(s);
	} else {
		s = NULL;
	}
	end_change();
	return s != NULL;
}

void device_drop_range(uint64_t base, uint64_t len)
{
	if (base >= ADDR_END || !len)
		return;
	begin_change();
	remove_range(base, len < ADDR_END - base ? len : ADDR_END - base);
	end_change();
}

/* Some at a time, for `gone` is not called with the lock. */
#define GONE 16u

void device_drop_owner(uintptr_t owner, void (*gone)(const struct device_region *r))
{
	struct device_region r[GONE];
	uint32_t n;

	do {
		n = 0;
		begin_change();
		for (uint32_t i = 0; owner && i < fresh; i++) {
			if (!slot_of(i)->live || slot_of(i)->r.owner != owner)
				continue;
			if (gone && slot_of(i)->r.kind == DEVICE_REGISTERED) {
				if (n == GONE)
					continue;
				r[n++] = slot_of(i)->r;
			}
			remove_slot(slot_of(i));
		}
		end_change();
		for (uint32_t i = 0; i < n; i++)
			gone(&r[i]);
	} while (n == GONE);
}

void device_drop_globals(uint64_t handle)
{
	begin_change();
	for (uint32_t i = 0; i < fresh; i++)
		if (slot_of(i)->live && slot_of(i)->r.kind == DEVICE_GLOBAL &&
		    slot_of(i)->r.handle == handle)
			remove_slot(slot_of(i));
	end_change();
}

/* ---- forks -------------------------------------------------------------------------- */

void device_map_lock(void)
{
	pthread_mutex_lock(&lock);
}

void device_map_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

/* The counts are of a block that is empty now. */
void device_map_child(void)
{
	top = NULL;
	memset(free_list, 0, sizeof(free_list));
	memset(block, 0, sizeof(block));
	bump_left = 0;
	fresh = free_slot = phys_cap = phys_n = 0;
	phys = NULL;
	device_low = UINT64_MAX;
	device_high = 0;
	pthread_mutex_unlock(&lock);
}
