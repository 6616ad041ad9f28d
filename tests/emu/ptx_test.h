/* SPDX-License-Identifier: MIT */
/* ptx_test.h - device memory and launches for tests of the PTX interpreter.
 *
 * Owns the memory: each block of it at an address of its own, far from others,
 * at the end of a page of PTX_PAGE, so that the byte behind it is nobody's.
 * Lock: none; launches may run at once, memory may not be asked for meanwhile.
 */
#ifndef PTX_TEST_H
#define PTX_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/emu/ptx.h"

#define BLOCKS		256
#define DEV_BASE	0x700000000000ull
#define DEV_STEP	(1ull << 32)

static struct {
	uint64_t addr;
	size_t size;
	uint8_t *host;
	bool freed, read_only;
} blocks[BLOCKS];
static int nblocks;

static inline void *mem_at(void *ctx, uint64_t addr, size_t size, int write)
{
	uint64_t i = (addr - DEV_BASE) / DEV_STEP;

	if (addr < DEV_BASE || i >= (uint64_t)nblocks || addr < blocks[i].addr ||
	    size > blocks[i].size || addr - blocks[i].addr > blocks[i].size - size ||
	    blocks[i].freed || (write && blocks[i].read_only))
		return NULL;
	return blocks[i].host + (addr - blocks[i].addr);
}

static const struct ptx_mem mem = { NULL, mem_at };

/* Device memory that holds a copy of `from`, or 0xa5. */
static inline uint64_t dev(const void *from, size_t size)
{
	int i = nblocks++;

	assert_true(i < BLOCKS);
	blocks[i].size = size;
	blocks[i].addr = DEV_BASE + (uint64_t)i * DEV_STEP + (1 << 30) - ((size + 15) & ~(size_t)15);
	blocks[i].host = aligned_alloc(64, (size + 127) & ~(size_t)63);
	blocks[i].freed = blocks[i].read_only = false;
	if (from)
		memcpy(blocks[i].host, from, size);
	else
		memset(blocks[i].host, 0xa5, size);
	return blocks[i].addr;
}

static inline void *host(uint64_t addr)
{
	void *at = mem_at(NULL, addr, 1, 0);

	assert_non_null(at);
	return at;
}

static inline void dev_reset(void)
{
	while (nblocks)
		free(blocks[--nblocks].host);
}

/* Parameters of a launch, one after another as the ABI lays them out. */
struct pack {
	uint8_t at[256];
	size_t n;
};

static inline void pack_add(struct pack *p, const void *v, size_t size, size_t align)
{
	p->n = (p->n + align - 1) & ~(align - 1);
	memcpy(p->at + p->n, v, size);
	p->n += size;
}

#define ADD(p, v)	pack_add(p, &(v), sizeof(v), sizeof(v))

static inline void *pack_of(struct pack *p, const char *fmt, ...)
{
	va_list ap;

	p->n = 0;
	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		uint64_t u;
		int i;

		if (*fmt == 'p' || *fmt == 'l') {
			u = va_arg(ap, uint64_t);
			ADD(p, u);
		} else {
			i = va_arg(ap, int);
			ADD(p, i);
		}
	}
	va_end(ap);
	return p->at;
}

static struct ptx_module *module;
static struct ptx_fault fault;

static inline void load(const char *text, size_t len)
{
	char err[200];
	int r = ptx_parse(text, len, &module, err, sizeof(err));

	if (r)
		fail_msg("not parsed: %s", err);
}

/* Its variables get memory. */
static inline void place_globals(void)
{
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0, first = nblocks; i < ptx_global_count(module); i++) {
			const char *name;
			size_t size, align;
			const void *init;
			int is_const;

			assert_int_equal(ptx_global(module, i, &name, &size, &align, &init,
						    &is_const), 0);
			if (!pass) {
				uint64_t at = dev(NULL, size);

				assert_int_equal(at % align, 0);
				ptx_global_place(module, i, at);
			} else {
				int b = first - ptx_global_count(module) + i;

				memset(blocks[b].host, 0, size);
				if (init)
					memcpy(blocks[b].host, init, size);
				blocks[b].read_only = is_const;
			}
		}
	}
}

static inline int launch3(const char *name, const unsigned grid[3], const unsigned block[3],
			  size_t shared, const void *params)
{
	const struct ptx_kernel *k = ptx_kernel(module, name);

	assert_non_null(k);
	return ptx_run(k, grid, block, shared, params, &mem, &fault);
}

static inline int launch(const char *name, unsigned grid, unsigned block, size_t shared,
			 const void *params)
{
	const unsigned g[3] = { grid, 1, 1 }, b[3] = { block, 1, 1 };

	return launch3(name, g, b, shared, params);
}

static inline void launched(const char *name, unsigned grid, unsigned block, size_t shared,
			    const void *params)
{
	int r = launch(name, grid, block, shared, params);

	if (r)
		fail_msg("%s: %d, %s", name, r, fault.why);
}

/* ---- random numbers ----------------------------------------------------------- */

static uint64_t rnd_state = 88172645463325252ull;

static inline uint64_t rnd(void)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return rnd_state * 0x2545f4914f6cdd1dull;
}

/* -1 to 1 */
static inline float rndf(void)
{
	return (float)((int32_t)(rnd() >> 40) - (1 << 23)) / (1 << 23);
}

#endif
