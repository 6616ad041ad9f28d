/* SPDX-License-Identifier: MIT */
/* anon.h - what the trap programs of anonymous memory share: blocks whose
 * every word says which block, generation and place it belongs to.
 *
 * Owns the ballast, a block read only to push others out.
 *
 * (1) A word is a bijection of (id, generation, offset / 8), so that a wrong
 *     word can be read backwards: the failure says whose word it is.
 * (2) id 0 is not used: then no word is zero, and zeros never match.
 * (3) Offsets are multiples of 8; lengths may be any, the last word is cut.
 * Lock: none. All helpers may be called on any thread; a block belongs to
 * one thread at a time.
 */
#ifndef TRAP_ANON_H
#define TRAP_ANON_H

#include "trap.h"

#include <malloc.h>

#define CHUNK		(2 * MIB)	/* what the library moves at once */
#define BUDGET		(32 * MIB)	/* OFFLOAD_RAM of every anon program */

struct block {
	unsigned char *p;
	size_t len;
	uint16_t id, gen;
};

/* ---- where it is ---------------------------------------------------------- */

/* KiB of /proc/self/smaps under this key, in mappings of at least so many bytes. */
static inline size_t anon_smaps(const char *key, size_t least)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	size_t all = 0, n;
	bool large = false;

	check(f);
	while (fgets(line, sizeof(line), f)) {
		size_t from, to;

		if (sscanf(line, "%zx-%zx ", &from, &to) == 2)
			large = to - from >= least;
		else if (large && !strncmp(line, key, strlen(key)) &&
			 sscanf(line + strlen(key), ": %zu", &n) == 1)
			all += n;
	}
	fclose(f);
	return all;
}

/* ---- contents ------------------------------------------------------------- */

static inline uint64_t anon_word(uint16_t id, uint16_t gen, uint64_t off)
{
	uint64_t x = (uint64_t)id << 48 | (uint64_t)gen << 32 | off >> 3;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* The other way: what anon_word made the word from. */
static inline uint64_t anon_unword(uint64_t x)
{
	x = (x ^ (x >> 31) ^ (x >> 62)) * 0x319642b2d24d8ec3ull;
	x = (x ^ (x >> 27) ^ (x >> 54)) * 0x96de1b173f119089ull;
	return x ^ (x >> 30) ^ (x >> 60);
}

/* Writes the words of offsets [off, off+len) at p. */
static inline void anon_put(void *p, uint16_t id, uint16_t gen, uint64_t off,
			    size_t len)
{
	unsigned char *to = p;
	uint64_t w;
	size_t i = 0;

	for (; i + 8 <= len; i += 8) {
		w = anon_word(id, gen, off + i);
		memcpy(to + i, &w, 8);
	}
	w = anon_word(id, gen, off + i);
	memcpy(to + i, &w, len - i);
}

/* Bytes that are zero from p on, at most len: a page, a chunk, one word? */
static inline size_t anon_zeros(const unsigned char *p, size_t len)
{
	size_t n = 0;

	while (n < len && !p[n])
		n++;
	return n;
}

static inline _Noreturn void anon_differ(const unsigned char *p, uint16_t id,
					 uint16_t gen, uint64_t off,
					 size_t rest, const char *what)
{
	uint64_t w = 0, x;

	memcpy(&w, p, rest < 8 ? rest : 8);
	if (!w)
		fail("%s: block %u gen %u: zeros at offset %#llx (%p), %zu of "
		     "them", what, id, gen, (unsigned long long)off,
		     (const void *)p, anon_zeros(p, rest));
	x = anon_unword(w);
	fail("%s: block %u gen %u: wrong word at offset %#llx (%p): %016llx, "
	     "which would be block %u gen %u offset %#llx", what, id, gen,
	     (unsigned long long)off, (const void *)p, (unsigned long long)w,
	     (unsigned)(x >> 48), (unsigned)(x >> 32 & 0xffff),
	     (unsigned long long)(x & 0xffffffff) << 3);
}

/* Compares [p, p+len) with the words of offsets [off, off+len). */
static inline void anon_verify(const void *mem, uint16_t id, uint16_t gen,
			       uint64_t off, size_t len, const char *what)
{
	const unsigned char *p = mem;
	uint64_t w, last;
	size_t i = 0;

	for (; i + 8 <= len; i += 8) {
		memcpy(&w, p + i, 8);
		if (w != anon_word(id, gen, off + i))
			anon_differ(p + i, id, gen, off + i, len - i, what);
	}
	last = anon_word(id, gen, off + i);
	if (memcmp(p + i, &last, len & 7))
		anon_differ(p + i, id, gen, off + i, len - i, what);
}

/* All of [p, p+len) must be zeros. */
static inline void anon_is_zero(const void *mem, size_t len, const char *what)
{
	const unsigned char *p = mem;
	size_t n = 0;
	uint64_t w = 0, x;

	/* Compared with itself, a byte further: the fastest there is. */
	if (!len || (!*p && !memcmp(p, p + 1, len - 1)))
		return;
	while (!p[n])
		n++;
	n &= ~7UL;
	memcpy(&w, p + n, len - n < 8 ? len - n : 8);
	x = anon_unword(w);
	fail("%s: %p+%#zx is not zero: %016llx, which would be block %u gen %u "
	     "offset %#llx", what, mem, n, (unsigned long long)w,
	     (unsigned)(x >> 48), (unsigned)(x >> 32 & 0xffff),
	     (unsigned long long)(x & 0xffffffff) << 3);
}

/* ---- blocks --------------------------------------------------------------- */

static inline void block_fill(struct block *b, uint16_t gen)
{
	b->gen = gen;
	anon_put(b->p, b->id, gen, 0, b->len);
}

/* A malloc'd block, all of it written. */
static inline struct block block_new(uint16_t id, size_t len)
{
	struct block b = { .p = malloc(len), .len = len, .id = id };

	if (!b.p)
		fail("malloc(%zu): %s", len, strerror(errno));
	block_fill(&b, 1);
	return b;
}

static inline void block_verify(const struct block *b, const char *what)
{
	anon_verify(b->p, b->id, b->gen, 0, b->len, what);
}

/* The part [off, off+len) of it. */
static inline void block_verify_at(const struct block *b, size_t off,
				   size_t len, const char *what)
{
	anon_verify(b->p + off, b->id, b->gen, off, len, what);
}

/* `n` of its pages picked at random: tens, not thousands. */
static inline void block_verify_random(const struct block *b, int n,
				       uint32_t seed, const char *what)
{
	while (n--)
		block_verify_at(b, trap_random(&seed) % (b->len / PAGE) * PAGE,
				PAGE, what);
}

static inline void block_free(struct block *b)
{
	free(b->p);
	b->p = NULL;
}

/* ---- mappings ------------------------------------------------------------- */

static inline unsigned char *anon_map(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("mmap of %zu bytes: %s", len, strerror(errno));
	return p;
}

/* An anonymous mapping, all of it written. */
static inline struct block block_map(uint16_t id, size_t len)
{
	struct block b = { .p = anon_map(len), .len = len, .id = id };

	block_fill(&b, 1);
	return b;
}

/* More than the budget, beside the block under test: reading it pushes
 * everything else out. Made by the first caller, before others may ask. */
static inline struct block *anon_ballast(void)
{
	static struct block b;

	if (!b.p)
		b = block_new(0xba11, BUDGET + BUDGET / 4);
	return &b;
}

/* Everything that was not used since is evicted, if it can be. */
static inline void anon_push_out(void)
{
	block_verify(anon_ballast(), "ballast");
}

/* The same, a word of each page: for programs that do it often. */
static inline void anon_push_out_fast(void)
{
	const struct block *b = anon_ballast();

	for (size_t at = 0; at + 8 <= b->len; at += PAGE)
		block_verify_at(b, at, 8, "ballast");
}

#endif
