/* SPDX-License-Identifier: MIT */
/* image.c - device images: containers of images, and those for one card.
 *
 * A container: a header (magic, 16 bits of version, 16 of its own length, 64 of what
 * follows), and entries: kind, length of the entry's header, of its content, of what is
 * in use of that if packed, flags, and the length unpacked. A card's image is an ELF file
 * of 64 bits; of each kernel there is a section ".nv.info.NAME" of attributes, each a form,
 * a number, and a value of 16 bits, or so many bytes as that says.
 *
 * (1) A length is compared with what is left before it is used, never added first.
 * (2) A kernel's parameters are known if they are numbered without gaps, follow one
 *     another, and end where the kernel's attribute says that all of them end.
 * (3) Unpacked bytes are read as the others are; a container in a container is not.
 * Owns nothing; lock: none.
 */
#include "core/image.h"
#include "core/core_int.h"

#include <lz4.h>
#include <string.h>
#include <zstd.h>

#define CONTAINER	0xba55ed50u
#define CONTAINER_HEAD	16
#define ENTRY_HEAD	64
#define KIND_PTX	1
#define KIND_CARD	2
#define PACKED_LZ4	0x2000u
#define PACKED_ZSTD	0x8000u

#define ELF_HEAD	64
#define SECTION_HEAD	64
#define SECTION_EMPTY	8	/* takes no place in the file */

#define FORM_BYTES	4
#define ATTR_PARAM	0x17	/* one parameter */
#define ATTR_PARAMS	0x19	/* bytes of all */

struct bytes {
	const uint8_t *at;
	size_t len;
};

static uint64_t number(const uint8_t *p, unsigned int bytes)
{
	uint64_t v = 0;

	for (unsigned int i = bytes; i; i--)
		v = v << 8 | p[i - 1];
	return v;
}

/* A part, or an empty one if it is not all there. */
static struct bytes part(struct bytes b, uint64_t from, uint64_t len)
{
	if (from > b.len || len > b.len - from)
		return (struct bytes){ NULL, 0 };
	return (struct bytes){ b.at + from, len };
}

/* ---- the attributes of a kernel ------------------------------------------------------ */

struct params {
	struct device_param p[IMAGE_PARAMS];
	uint8_t seen[IMAGE_PARAMS];
	int n;			/* the highest number, and one */
	int64_t all;		/* bytes of all; -1: not said */
	bool bad;
};

/* Index, number (16), offset (16), and the size above 18 other bits. */
static void add_param(struct params *k, struct bytes v)
{
	unsigned int i;

	if (v.len < 12) {
		k->bad = true;
		return;
	}
	i = (unsigned int)number(v.at + 4, 2);
	if (i >= IMAGE_PARAMS || k->seen[i]) {
		k->bad = true;
		return;
	}
	k->seen[i] = 1;
	k->p[i].offset = (uint32_t)number(v.at + 6, 2);
	k->p[i].size = (uint32_t)(number(v.at + 8, 4) >> 18);
	if ((int)i >= k->n)
		k->n = (int)i + 1;
}

static bool fits_together(const struct params *k)
{
	uint64_t end = 0;

	for (int i = 0; i < k->n; i++) {
		if (!k->seen[i] || !k->p[i].size || k->p[i].offset < end)
			return false;
		end = (uint64_t)k->p[i].offset + k->p[i].size;
	}
	return k->all < 0 ? k->n > 0 : (uint64_t)k->all >= end && (uint64_t)k->all < end + 16;
}

/* A section of attributes; a kernel without parameters has none of them at all. */
static void read_attributes(struct bytes b, struct params *k)
{
	memset(k->seen, 0, sizeof(k->seen));
	k->n = 0;
	k->all = -1;
	k->bad = false;
	for (size_t at = 0; b.len - at >= 4;) {
		unsigned int form = b.at[at], what = b.at[at + 1];
		size_t value = (size_t)number(b.at + at + 2, 2);
		struct bytes v;

		at += 4;
		if (form != FORM_BYTES) {
			if (what == ATTR_PARAMS)
				k->all = (int64_t)value;
			continue;
		}
		v = part(b, at, value);
		if (!v.at) {
			k->bad = true;
			return;
		}
		if (what == ATTR_PARAM)
			add_param(k, v);
		at += value;
	}
}

/* ---- an image for one card --------------------------------------------------------------- */

/* The name in a table of names, if it ends there. */
static const char *name_at(struct bytes names, uint64_t from, size_t *len)
{
	const uint8_t *end;

	if (from >= names.len)
		return NULL;
	end = memchr(names.at + from, 0, names.len - from);
	*len = end ? (size_t)(end - (names.at + from)) : 0;
	return end ? (const char *)names.at + from : NULL;
}

static struct bytes section(struct bytes b, const uint8_t *head)
{
	if (number(head + 4, 4) == SECTION_EMPTY)
		return (struct bytes){ NULL, 0 };
	return part(b, number(head + 24, 8), number(head + 32, 8));
}

static void read_card(struct bytes b, image_found found, void *arg)
{
	static const char prefix[] = ".nv.info.";
	const size_t pre = sizeof(prefix) - 1;
	struct bytes heads, names;
	struct params *k;
	uint64_t each, many, which;

	if (b.len < ELF_HEAD)
		return;
	each = number(b.at + 58, 2);
	many = number(b.at + 60, 2);
	which = number(b.at + 62, 2);
	if (each < SECTION_HEAD || which >= many)
		return;
	heads = part(b, number(b.at + 40, 8), each * many);
	if (!heads.at)
		return;
	names = section(b, heads.at + which * each);
	k = mem_alloc(sizeof(*k));
	for (uint64_t i = 0; k && i < many; i++) {
		const uint8_t *head = heads.at + i * each;
		size_t len;
		const char *name = name_at(names, number(head, 4), &len);
		struct bytes s;

		if (!name || len <= pre || memcmp(name, prefix, pre))
			continue;
		s = section(b, head);
		read_attributes(s, k);
		/* Without attributes there is nothing it could have parameters from. */
		if (!k->n && k->all <= 0 && !k->bad && s.at)
			found(arg, name + pre, len - pre, NULL, 0);
		else
			found(arg, name + pre, len - pre, k->p,
			      k->bad || !fits_together(k) ? -1 : k->n);
	}
	mem_free(k);
}

/* ---- containers ------------------------------------------------------------------------------ */

static void read_plain(struct bytes b, unsigned int kind, image_found found, void *arg)
{
	if (kind == KIND_PTX)
		image_read_ptx((const char *)b.at, b.len, found, arg);
	else if (b.len >= 4 && !memcmp(b.at, "\x7f" "ELF", 4))
		read_card(b, found, arg);
}

static void read_packed(struct bytes b, unsigned int kind, bool zstd, uint64_t len,
			image_found found, void *arg)
{
	uint8_t *to;
	bool right;

	if (!len || len > IMAGE_BYTES || b.len > INT32_MAX)
		return;
	to = mem_alloc(len);
	if (!to)
		return;
	if (zstd)
		right = ZSTD_decompress(to, len, b.at, b.len) == len;
	else
		right = LZ4_decompress_safe((const char *)b.at, (char *)to, (int)b.len,
					    (int)len) == (int)len;
	if (right)
		read_plain((struct bytes){ to, len }, kind, found, arg);
	mem_free(to);
}

/* Its header, and how long it is with its content; 0: it does not fit. */
static uint64_t entry_len(struct bytes rest, uint64_t *head)
{
	uint64_t content;

	if (rest.len < ENTRY_HEAD)
		return 0;
	*head = number(rest.at + 4, 4);
	content = number(rest.at + 8, 8);
	if (*head < ENTRY_HEAD || *head > rest.len || content > rest.len - *head)
		return 0;
	return *head + content;
}

static void read_container(struct bytes b, image_found found, void *arg)
{
	uint64_t from = number(b.at + 6, 2), unpacked = 0, head, len;
	struct bytes rest;

	b = part(b, from, number(b.at + 8, 8));
	for (rest = b; (len = entry_len(rest, &head)); rest = part(rest, len, rest.len - len)) {
		unsigned int kind = (unsigned int)number(rest.at, 2);
		uint64_t flags = number(rest.at + 40, 8), used = number(rest.at + 16, 4);
		uint64_t plain = number(rest.at + 56, 8);
		bool packed = flags & (PACKED_LZ4 | PACKED_ZSTD);
		struct bytes content = part(rest, head, packed ? used : len - head);

		if (!content.at || (packed && used > len - head))
			continue;
		if (!packed) {
			read_plain(content, kind, found, arg);
		} else if (plain <= IMAGE_BYTES - unpacked) {
			unpacked += plain;
			read_packed(content, kind, flags & PACKED_ZSTD, plain, found, arg);
		}
	}
}

void image_read(const uint8_t *at, size_t len, image_found found, void *arg)
{
	struct bytes b = { at, len };

	if (len >= CONTAINER_HEAD && number(at, 4) == CONTAINER)
		read_container(b, found, arg);
	else if (len >= 4 && !memcmp(at, "\x7f" "ELF", 4))
		read_card(b, found, arg);
	else
		image_read_ptx((const char *)at, len, found, arg);
}

/* ---- how long one is -------------------------------------------------------------------------- */

/* The end of what the sections' table and the sections reach to. */
static size_t card_len(struct bytes b, size_t *need)
{
	uint64_t table, each, many, end;

	*need = ELF_HEAD;
	if (b.len < ELF_HEAD)
		return 0;
	table = number(b.at + 40, 8);
	each = number(b.at + 58, 2);
	many = number(b.at + 60, 2);
	if (each < SECTION_HEAD || table > IMAGE_BYTES)
		return ELF_HEAD;
	end = table + each * many;
	*need = end;
	if (b.len < end)
		return 0;
	for (uint64_t i = 0; i < many; i++) {
		const uint8_t *head = b.at + table + i * each;
		uint64_t from = number(head + 24, 8), len = number(head + 32, 8);

		if (number(head + 4, 4) != SECTION_EMPTY && from <= IMAGE_BYTES &&
		    len <= IMAGE_BYTES && from + len > end)
			end = from + len;
	}
	return end;
}

size_t image_len(const uint8_t *at, size_t len, size_t *need, bool *text)
{
	uint64_t content;

	*need = CONTAINER_HEAD;
	*text = false;
	if (len >= 4 && !memcmp(at, "\x7f" "ELF", 4))
		return card_len((struct bytes){ at, len }, need);
	if (len < 4 || number(at, 4) != CONTAINER) {
		*text = len >= 4;
		return 0;
	}
	if (len < CONTAINER_HEAD)
		return 0;
	content = number(at + 8, 8);
	return content > IMAGE_BYTES ? 0 : number(at + 6, 2) + content;
}
