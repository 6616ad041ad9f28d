/* SPDX-License-Identifier: MIT */
/* test_image.c - what device images say of kernels (core/image.c, image_ptx.c,
 * device_image.c).
 *
 * Owns nothing; lock: none. (1) Offsets and sizes are those of the rules, in text, for a
 * card, and in a container, packed or not. (2) An image cut anywhere, or with any byte
 * changed, is read without a step outside it: the byte behind it cannot be touched.
 * (3) What does not agree is not known, and what an owner had ends with it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include <lz4.h>
#include <zstd.h>

#include "core/image.h"

struct seen {
	char text[4096];
};

/* "name: offset+size offset+size; ", or "name: ?; ". */
static void hear(void *arg, const char *name, size_t len, const struct device_param *p, int n)
{
	struct seen *s = arg;
	size_t at = strlen(s->text);

	at += (size_t)snprintf(s->text + at, sizeof(s->text) - at, "%.*s:", (int)len, name);
	for (int i = 0; i < n && at < sizeof(s->text) - 40; i++)
		at += (size_t)snprintf(s->text + at, sizeof(s->text) - at, " %u+%u",
				       p[i].offset, p[i].size);
	if (at < sizeof(s->text) - 4)
		strcpy(s->text + at, n < 0 ? " ?; " : "; ");
}

static void says(const void *image, size_t len, const char *want)
{
	struct seen s = { "" };

	image_read(image, len, hear, &s);
	assert_string_equal(s.text, want);
}

/* ---- text ------------------------------------------------------------------------------ */

static void text(void **state)
{
	static const struct { const char *ptx, *want; } rows[] = {
		{ ".version 7.0\n.target sm_80\n.visible .entry a(.param .u64 x, .param .u32 y,\n"
		  "\t.param .u64 z)\n{ ret; }\n", "a: 0+8 8+4 16+8; " },
		{ ".entry b(.param .u8 c, .param .align 8 .b8 s[24], .param .u16 h, .param .f64 d)",
		  "b: 0+1 8+24 32+2 40+8; " },
		{ ".entry c(.param .u32 i, .param .u64 .ptr .global .align 128 p)",
		  "c: 0+4 8+8; " },
		{ ".entry d(.param .align 64 .b8 m[128], .param .b8 v[2][3], .param .b64 w)",
		  "d: 0+128 128+6 136+8; " },
		{ ".entry none() {} .entry bare { ret; } .entry tuned .maxntid 32, 1, 1 {}",
		  "none:; bare:; tuned:; " },
		{ "// .entry no(.param .u64 x)\n/* .entry no() */ .file 1 \".entry no(\"\n"
		  ".entry /* here */ yes(/* ) */ .param .u64 x // , .param .u32 y\n)",
		  "yes: 0+8; " },
		{ ".func (.param .b32 r) f(.param .b64 x) { .param .b32 q; } .entry k(.param .s64 v)",
		  "k: 0+8; " },
		{ ".entry e(.param .v4 .f32 x) {} .entry f(.param .u64 x)", "e: ?; f: 0+8; " },
		{ ".entry g(.param .u64 x[0])", "g: ?; " },
		{ ".entry h(.param .u64 x[99999999999])", "h: ?; " },
		{ ".entry i(.param .align 3 .b8 x[3])", "i: ?; " },
		{ ".entry j(.param .u64", "j: ?; " },
		{ ".entry k(", "k: ?; " },
		{ ".entry", "" },
		{ "no text at all \x01\xff ( ) /* ", "" },
		{ "\"", "" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		says(rows[i].ptx, strlen(rows[i].ptx), rows[i].want);
}

/* ---- made images ------------------------------------------------------------------------- */

struct made {
	uint8_t at[8192];
	size_t len;
};

static void put(struct made *m, uint64_t v, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		m->at[m->len++] = (uint8_t)(v >> 8 * i);
}

static void put_at(struct made *m, size_t at, uint64_t v, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		m->at[at + i] = (uint8_t)(v >> 8 * i);
}

static void attr_param(struct made *m, unsigned int i, unsigned int off, uint32_t size)
{
	put(m, 0x1704, 2);
	put(m, 12, 2);
	put(m, 0, 4);
	put(m, i, 2);
	put(m, off, 2);
	put(m, size << 18 | 0x1f000, 4);
}

static void attr_all(struct made *m, unsigned int bytes)
{
	put(m, 0x1903, 2);
	put(m, bytes, 2);
}

static const char names[] = "\0.nv.info.one\0.nv.info.none\0.text.one\0.nv.info";

/* Of a card: the kernels "one" (a pointer, an int, 24 bytes) and "none". */
static struct made card(unsigned int all)
{
	struct made m = { .len = 64 };
	size_t one, none, strings;

	memcpy(m.at, "\x7f" "ELF\2\1\1", 7);
	one = m.len;
	put(&m, 0x0401, 2);	/* of no value */
	put(&m, 0, 2);
	attr_all(&m, all);
	attr_param(&m, 2, 16, 24);
	attr_param(&m, 1, 8, 4);
	attr_param(&m, 0, 0, 8);
	none = m.len;
	put(&m, 0x5003, 4);
	strings = m.len;
	memcpy(m.at + m.len, names, sizeof(names));
	m.len = (m.len + sizeof(names) + 7) & ~7ul;
	put_at(&m, 40, m.len, 8);
	put_at(&m, 58, 64, 2);
	put_at(&m, 60, 4, 2);
	put_at(&m, 62, 3, 2);
	m.len += 64;
	for (int i = 0; i < 3; i++) {
		size_t at[3] = { one, none, strings }, end[3] = { none, strings, strings + sizeof(names) };

		put_at(&m, m.len, (unsigned int[]){ 1, 14, 0 }[i], 4);
		put_at(&m, m.len + 4, i == 2 ? 3 : 0x70000000, 4);
		put_at(&m, m.len + 24, at[i], 8);
		put_at(&m, m.len + 32, end[i] - at[i], 8);
		m.len += 64;
	}
	return m;
}

#define CARD_SAYS "one: 0+8 8+4 16+24; none:; "

static void entry(struct made *m, unsigned int kind, const void *content, size_t len,
		  uint64_t flags, size_t plain)
{
	unsigned int head = kind == 1 ? 80 : 64;
	size_t at = m->len, padded = (len + 7) & ~7ul;

	put_at(m, at, kind, 2);
	put_at(m, at + 4, head, 4);
	put_at(m, at + 8, padded, 8);
	put_at(m, at + 16, flags ? len : 0, 4);
	put_at(m, at + 40, flags, 8);
	put_at(m, at + 56, plain, 8);
	memcpy(m->at + at + head, content, len);
	m->len += head + padded;
}

/* Kinds: 0 as they are, 0x2000 or 0x8000 packed. */
static struct made container(uint64_t kind, struct made of, const char *ptx)
{
	struct made m = { .len = 16 };
	char packed[8192];
	size_t n;

	if (!kind) {
		entry(&m, 2, of.at, of.len, 0, 0);
		entry(&m, 1, ptx, strlen(ptx) + 1, 0, 0);
	} else if (kind == 0x2000) {
		n = (size_t)LZ4_compress_default((char *)of.at, packed, (int)of.len, sizeof(packed));
		entry(&m, 2, packed, n, kind | 0x11, of.len);
		n = (size_t)LZ4_compress_default(ptx, packed, (int)strlen(ptx) + 1, sizeof(packed));
		entry(&m, 1, packed, n, kind | 0x11, strlen(ptx) + 1);
	} else {
		n = ZSTD_compress(packed, sizeof(packed), of.at, of.len, 3);
		entry(&m, 2, packed, n, kind | 0x11, of.len);
		n = ZSTD_compress(packed, sizeof(packed), ptx, strlen(ptx) + 1, 3);
		entry(&m, 1, packed, n, kind | 0x11, strlen(ptx) + 1);
	}
	put_at(&m, 0, 0xba55ed50, 4);
	put_at(&m, 4, 1, 2);
	put_at(&m, 6, 16, 2);
	put_at(&m, 8, m.len - 16, 8);
	return m;
}

#define PTX ".version 7.0\n.entry more(.param .u64 x, .param .u32 y) { ret; }"

static void cards(void **state)
{
	struct made m = card(40);

	says(m.at, m.len, CARD_SAYS);
	m = card(48);		/* more than the last one's end and what may be behind it */
	says(m.at, m.len, CARD_SAYS);
	m = card(56);
	says(m.at, m.len, "one: ?; none:; ");
	m = card(32);
	says(m.at, m.len, "one: ?; none:; ");
	m = card(40);
	put_at(&m, 64 + 8 + 8, 1, 2);	/* one number twice, one not at all */
	says(m.at, m.len, "one: ?; none:; ");
	m = card(40);
	put_at(&m, 64 + 8 + 10, 10, 2);	/* it begins within the one before */
	says(m.at, m.len, "one: ?; none:; ");
}

static void containers(void **state)
{
	static const uint64_t kinds[] = { 0, 0x2000, 0x8000 };

	for (int i = 0; i < 3; i++) {
		struct made m = container(kinds[i], card(40), PTX);

		says(m.at, m.len, CARD_SAYS "more: 0+8 8+4; ");
		put_at(&m, 16 + 40, 0x11 | 0x2000 | 0x8000, 8);	/* not what it is */
		if (kinds[i] == 0x2000)
			says(m.at, m.len, "more: 0+8 8+4; ");
		m = container(kinds[i], card(40), PTX);
		put_at(&m, 16 + 56, 1ull << 40, 8);	/* too long to be unpacked */
		says(m.at, m.len, kinds[i] ? "more: 0+8 8+4; " : CARD_SAYS "more: 0+8 8+4; ");
	}
}

/* ---- hostile ones ------------------------------------------------------------------------- */

static uint8_t *edge;	/* the first byte that cannot be touched */

static void at_edge(const uint8_t *p, size_t len)
{
	struct seen s = { "" };

	memcpy(edge - len, p, len);
	image_read(edge - len, len, hear, &s);
}

static void hostile(void **state)
{
	uint8_t *p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	unsigned int seed = 5;

	assert_true(p != MAP_FAILED);
	assert_int_equal(mprotect(p + 2 * 4096, 4096, PROT_NONE), 0);
	edge = p + 2 * 4096;
	for (int kind = 0; kind < 5; kind++) {
		struct made m = card(40), c;

		if (kind < 3)
			m = container((uint64_t[]){ 0, 0x2000, 0x8000 }[kind], m, PTX);
		else if (kind == 4)
			m.len = (size_t)snprintf((char *)m.at, sizeof(m.at), PTX);
		for (size_t n = 0; n <= m.len; n++)
			at_edge(m.at, n);
		for (int i = 0; i < 20000; i++) {
			c = m;
			for (int k = rand_r(&seed) % 3; k >= 0; k--)
				c.at[(size_t)rand_r(&seed) % c.len] =
					rand_r(&seed) % 2 ? 0xff : (uint8_t)rand_r(&seed);
			at_edge(c.at, c.len);
		}
	}
	munmap(p, 3 * 4096);
}

/* ---- what was loaded --------------------------------------------------------------------------- */

static void known(uintptr_t handle, const char *want)
{
	struct device_param p[8];
	struct seen s = { "" };
	char name[64] = "";
	int n = device_image_params(handle, p, 8, name, sizeof(name));

	hear(&s, name, strlen(name), p, n);
	assert_string_equal(s.text, want);
}

static void loaded(void **state)
{
	struct made m = container(0x8000, card(40), PTX);
	struct { uint32_t magic, version; const void *at; uint64_t none; } wrapper = {
		0x466243b1, 1, m.at, 0 };

	device_image(100, &wrapper);
	device_image_fn(1, 100, "one");
	device_image_fn(2, 100, "more");
	device_image_fn(3, 100, "other");
	known(1, "one: 0+8 8+4 16+24; ");
	known(2, "more: 0+8 8+4; ");
	known(3, ": ?; ");
	known(4, ": ?; ");
	device_image_same(5, 1);
	known(5, "one: 0+8 8+4 16+24; ");
	device_image_module(101, 100);
	device_image_fn(6, 101, "none");
	known(6, "none:; ");
	assert_int_equal(device_image_params(1, NULL, 2, NULL, 0), -1);	/* of three */
	device_image(200, card(40).at);
	device_image_fn(1, 200, "none");	/* a handle that comes again */
	known(1, "none:; ");
	device_image_end(100);
	known(1, "none:; ");
	known(2, ": ?; ");
	known(5, ": ?; ");
	device_image_fn(6, 101, "none");
	known(6, ": ?; ");
	device_image_end(200);
	known(1, ": ?; ");
}

static void two_that_differ(void **state)
{
	struct made m = container(0, card(40), ".entry one(.param .u64 x) {} .entry none() {}");

	device_image(300, m.at);
	device_image_fn(1, 300, "one");
	device_image_fn(2, 300, "none");
	known(1, "one: ?; ");
	known(2, "none:; ");
	device_image_end(300);
}

/* The text goes up to where there is no memory, or the image is said to. */
static void ends_early(void **state)
{
	static const char ptx[] = ".entry near(.param .u64 x)";
	uint8_t *p = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	struct made m = card(40);

	assert_true(p != MAP_FAILED);
	munmap(p + 4096, 4096);
	memcpy(p + 4096 - sizeof(ptx) + 1, ptx, sizeof(ptx) - 1);
	device_image(400, p + 4096 - sizeof(ptx) + 1);
	device_image_fn(1, 400, "near");
	known(1, "near: 0+8; ");
	device_image_end(400);
	memcpy(p + 4096 - m.len / 2, m.at, m.len / 2);
	device_image(401, p + 4096 - m.len / 2);
	device_image_fn(1, 401, "one");
	known(1, ": ?; ");
	device_image_end(401);
	device_image(402, (void *)16);
	device_image(402, NULL);
	device_image_end(402);
	munmap(p, 4096);
}

/* Tables that grow. */
static void many(void **state)
{
	char *ptx = malloc(1 << 20), name[32];
	size_t n = 0;

	assert_non_null(ptx);
	for (int i = 0; i < 5000; i++)
		n += (size_t)snprintf(ptx + n, (1 << 20) - n,
				      ".entry k%d(.param .u64 x, .param .b8 y[%d]) {}\n", i, i + 1);
	device_image(500, ptx);
	free(ptx);
	for (int i = 0; i < 5000; i += 7) {
		char want[64];

		snprintf(name, sizeof(name), "k%d", i);
		snprintf(want, sizeof(want), "k%d: 0+8 8+%d; ", i, i + 1);
		device_image_fn(1000 + (uintptr_t)i, 500, name);
		known(1000 + (uintptr_t)i, want);
	}
	device_image_end(500);
	known(1000, ": ?; ");
}

/* For tests/check/image.sh: a line for each kernel of a file. */
static int show(const char *path)
{
	static char bytes[1 << 20];
	struct seen s = { "" };
	FILE *f = fopen(path, "re");
	size_t n = f ? fread(bytes, 1, sizeof(bytes), f) : 0;

	if (f)
		fclose(f);
	image_read((uint8_t *)bytes, n, hear, &s);
	for (char *p = s.text, *end; (end = strstr(p, "; ")); p = end + 2)
		printf("%.*s\n", (int)(end - p), p);
	return !n;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text),
		cmocka_unit_test(cards),
		cmocka_unit_test(containers),
		cmocka_unit_test(hostile),
		cmocka_unit_test(loaded),
		cmocka_unit_test(two_that_differ),
		cmocka_unit_test(ends_early),
		cmocka_unit_test(many),
	};

	if (argc > 1)
		return show(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
