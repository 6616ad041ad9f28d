/* SPDX-License-Identifier: MIT */
/* sites.c - the table of allocation sites.
 *
 * Owns it: hashed, open addressing, filled and never emptied.
 *
 *   FREE --sites_find: hash--> CLAIMED --frames--> KNOWN --sites_name--> NAMED
 *
 * (1) Counters may be used from CLAIMED on; frames and name are written once,
 *     before the state says so.
 * (2) The blocks of a site are the heap's pieces: a block cut in two is two.
 * (3) Sites with one name are shown as one, the first that had it.
 * Lock: none; atomics. A fork in the middle leaves a CLAIMED site in the child,
 * which counts and has no name there.
 */
#include "core/sites.h"

#include <stdatomic.h>
#include <string.h>

enum { FREE, CLAIMED, KNOWN, NAMED };

struct site {
	_Atomic uint64_t hash;		/* 0: FREE */
	_Atomic uint32_t state;
	uint32_t same;			/* site of this name; NAMED */
	int depth;
	void *frame[SITE_FRAMES];
	char name[SITE_NAME_MAX];
	_Atomic uint64_t bytes, blocks;		/* now */
	_Atomic uint64_t requests, asked;	/* ever */
};

static struct site site[SITES] = {
	[SITE_EARLY] = { .state = NAMED, .same = SITE_EARLY, .name = "early" },
	[SITE_UNNAMED] = { .state = NAMED, .same = SITE_UNNAMED, .name = "unnamed" },
	[SITE_OTHER] = { .state = NAMED, .same = SITE_OTHER, .name = "other" },
};

/* ---- finding ---------------------------------------------------------------- */

static uint64_t hash_of(void *const *frame, int n)
{
	uint64_t h = (uint64_t)n;

	for (int i = 0; i < n; i++) {
		h = (h ^ (uintptr_t)frame[i]) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	return h ? h : 1;
}

static void remember(struct site *s, void *const *frame, int n)
{
	memcpy(s->frame, frame, (size_t)n * sizeof(*frame));
	s->depth = n;
	atomic_store(&s->state, KNOWN);
}

uint32_t sites_find(void *const *frame, int n, bool *fresh)
{
	uint64_t h;

	n = n < SITE_FRAMES ? n : SITE_FRAMES;
	h = hash_of(frame, n);
	*fresh = false;
	for (uint32_t k = 0; k < SITES - SITE_FIRST; k++) {
		uint32_t i = SITE_FIRST + (uint32_t)((h + k) % (SITES - SITE_FIRST));
		uint64_t was = 0;

		if (atomic_compare_exchange_strong(&site[i].hash, &was, h)) {
			remember(&site[i], frame, n);
			*fresh = true;
			return i;
		}
		if (was == h)
			return i;
	}
	return SITE_OTHER;
}

/* ---- counting --------------------------------------------------------------- */

void sites_asked(uint32_t i, uint64_t bytes)
{
	atomic_fetch_add_explicit(&site[i].requests, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&site[i].asked, bytes, memory_order_relaxed);
}

void sites_count(uint32_t i, int64_t bytes, int64_t blocks)
{
	atomic_fetch_add_explicit(&site[i].bytes, (uint64_t)bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&site[i].blocks, (uint64_t)blocks, memory_order_relaxed);
}

/* ---- names ------------------------------------------------------------------ */

uint32_t sites_unnamed(uint32_t i, void *const **frame, int *n)
{
	while (i < SITES && atomic_load(&site[i].state) != KNOWN)
		i++;
	if (i < SITES) {
		*frame = site[i].frame;
		*n = site[i].depth;
	}
	return i;
}

void sites_name(uint32_t i, const char *name)
{
	struct site *s = &site[i];
	uint32_t k = 0;

	strncpy(s->name, name, sizeof(s->name) - 1);
	while (k < SITES && (atomic_load(&site[k].state) != NAMED ||
			     strcmp(site[k].name, s->name)))
		k++;
	s->same = k < SITES ? site[k].same : i;
	atomic_store(&s->state, NAMED);
}

/* All that could stand between malloc and who wants memory: C++'s operators,
 * other allocators, functions of libc that return a block. */
bool sites_allocator(const char *file, const char *symbol)
{
	static const char *const files[] = {
		"libc.so.", "libc-2.", "ld-linux", "libstdc++.so", "libc++.so",
		"libc++abi.so", "libjemalloc", "libtcmalloc", "libmimalloc",
	};
	static const char *const symbols[] = {
		"malloc", "calloc", "realloc", "reallocarray", "posix_memalign",
		"aligned_alloc", "memalign", "valloc", "pvalloc", "mmap",
		"mmap64", "mremap",
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		if (!strncmp(file, files[i], strlen(files[i])))
			return true;
	if (!symbol)
		return false;
	for (size_t i = 0; i < sizeof(symbols) / sizeof(*symbols); i++)
		if (!strcmp(symbol, symbols[i]))
			return true;
	return !strncmp(symbol, "_Znw", 4) || !strncmp(symbol, "_Zna", 4);
}

/* ---- the largest ------------------------------------------------------------- */

static bool larger(const struct stat_site *a, const struct stat_site *b)
{
	return a->bytes != b->bytes ? a->bytes > b->bytes : a->asked > b->asked;
}

int sites_insert(struct stat_site *list, int n, int max, const struct stat_site *s)
{
	int at = n;

	while (at && larger(s, &list[at - 1]))
		at--;
	if (at == max)
		return n;
	n = n < max ? n + 1 : max;
	memmove(list + at + 1, list + at, (size_t)(n - 1 - at) * sizeof(*list));
	list[at] = *s;
	return n;
}

struct sum { uint64_t bytes, blocks, requests, asked; };

static void add(struct sum *to, const struct site *s)
{
	to->bytes += atomic_load_explicit(&s->bytes, memory_order_relaxed);
	to->blocks += atomic_load_explicit(&s->blocks, memory_order_relaxed);
	to->requests += atomic_load_explicit(&s->requests, memory_order_relaxed);
	to->asked += atomic_load_explicit(&s->asked, memory_order_relaxed);
}

int sites_largest(struct stat_site *list, int n, int max)
{
	struct sum sum[SITES] = { 0 };

	for (uint32_t i = 0; i < SITES; i++)
		add(&sum[atomic_load(&site[i].state) == NAMED ? site[i].same : SITE_UNNAMED],
		    &site[i]);
	for (uint32_t i = 0; i < SITES; i++) {
		struct stat_site s = { sum[i].bytes, sum[i].blocks, sum[i].requests,
				       sum[i].asked, STAT_HEAP, "" };

		if (!s.requests)
			continue;
		memcpy(s.name, site[i].name, sizeof(s.name));
		n = sites_insert(list, n, max, &s);
	}
	return n;
}
