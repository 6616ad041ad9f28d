/* SPDX-License-Identifier: MIT */
/* image_ptx.c - the parameters of kernels that are text.
 *
 *     .entry NAME ( .param [.align N] .TYPE [.ptr ...] NAME [ '[' N ']' ] , ... )
 *
 * (1) Each parameter lies at the next multiple of its alignment, which is its type's, or
 *     what .align says before .ptr: behind that it is what the pointer points to.
 * (2) Words are taken one by one, without comments and strings. What is not understood
 *     makes one kernel unknown, not the text.
 * Owns nothing; lock: none.
 */
#include "core/image.h"
#include "core/core_int.h"

#include <string.h>

struct text {
	const char *at, *end;
	const char *word;	/* the last one taken; len 0: the text is at its end */
	size_t len;
};

static bool is_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '$' || c == '%' || c == '.';
}

/* Past a comment or a string; false: there is none. */
static bool skip_over(struct text *t)
{
	const char *stop = NULL;
	size_t left = (size_t)(t->end - t->at);

	if (*t->at == '"')
		stop = memchr(t->at + 1, '"', left - 1);
	else if (left < 2 || t->at[0] != '/' || (t->at[1] != '/' && t->at[1] != '*'))
		return false;
	else if (t->at[1] == '/')
		stop = memchr(t->at, '\n', left);
	else if (left > 3 && (stop = memmem(t->at + 2, left - 2, "*/", 2)))
		stop++;
	t->at = stop ? stop + 1 : t->end;
	return true;
}

/* A name, a directive, a number, or one other character. */
static bool next(struct text *t)
{
	while (t->at < t->end && ((unsigned char)*t->at <= ' ' || skip_over(t)))
		if (t->at < t->end && (unsigned char)*t->at <= ' ')
			t->at++;
	t->word = t->at;
	t->len = 0;
	if (t->at == t->end)
		return false;
	if (is_name(*t->at))
		while (t->at < t->end && is_name(*t->at))
			t->at++;
	else
		t->at++;
	t->len = (size_t)(t->at - t->word);
	return true;
}

static bool is(const struct text *t, const char *word)
{
	return t->len == strlen(word) && !memcmp(t->word, word, t->len);
}

/* The next word, if it is a plain number below 2^20; else 0. */
static uint32_t take_number(struct text *t)
{
	uint32_t v = 0;

	if (!next(t))
		return 0;
	for (size_t i = 0; i < t->len; i++) {
		if (t->word[i] < '0' || t->word[i] > '9' || v > (1u << 20) / 10)
			return 0;
		v = v * 10 + (uint32_t)(t->word[i] - '0');
	}
	return v;
}

/* Bytes of a type; 0: it is none. */
static uint32_t type_size(const struct text *t)
{
	static const struct { const char *name; uint32_t size; } types[] = {
		{ ".b8", 1 }, { ".u8", 1 }, { ".s8", 1 },
		{ ".b16", 2 }, { ".u16", 2 }, { ".s16", 2 }, { ".f16", 2 }, { ".bf16", 2 },
		{ ".b32", 4 }, { ".u32", 4 }, { ".s32", 4 }, { ".f32", 4 }, { ".tf32", 4 },
		{ ".f16x2", 4 }, { ".bf16x2", 4 },
		{ ".b64", 8 }, { ".u64", 8 }, { ".s64", 8 }, { ".f64", 8 },
		{ ".texref", 8 }, { ".samplerref", 8 }, { ".surfref", 8 }, { ".b128", 16 },
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (is(t, types[i].name))
			return types[i].size;
	return 0;
}

/* One parameter, to the comma or bracket behind it. */
static bool take_param(struct text *t, struct device_param *p, uint64_t *end)
{
	uint32_t size = 0, align = 0, count = 1;
	bool pointee = false, named = false;

	while (next(t) && !is(t, ",") && !is(t, ")")) {
		if (is(t, ".align")) {
			uint32_t n = take_number(t);

			if (!pointee && (!n || n & (n - 1)))
				return false;
			align = pointee ? align : n;
		} else if (is(t, ".ptr")) {
			pointee = true;
		} else if (is(t, "[")) {
			uint32_t n = take_number(t);

			if (!named || !n || count > (1u << 20) / n || !next(t) || !is(t, "]"))
				return false;
			count *= n;
		} else if (type_size(t)) {
			if (size)
				return false;
			size = type_size(t);
		} else if (t->word[0] != '.') {
			if (named || !is_name(t->word[0]))
				return false;
			named = true;
		} else if (!pointee) {
			return false;
		}
	}
	if (!t->len || !size || !named)
		return false;
	align = align ? align : size;
	p->offset = (uint32_t)((*end + align - 1) & ~(uint64_t)(align - 1));
	p->size = size * count;
	*end = (uint64_t)p->offset + p->size;
	return *end <= 1u << 20;
}

/* Behind the bracket that opens them. How many; -1: not known. */
static int take_params(struct text *t, struct device_param *p)
{
	uint64_t end = 0;
	int n = 0;

	if (!next(t))
		return -1;
	while (is(t, ".param")) {
		if (n == IMAGE_PARAMS || !take_param(t, &p[n++], &end))
			return -1;
		if (is(t, ")"))
			return n;
		if (!next(t))
			return -1;
	}
	return !n && is(t, ")") ? 0 : -1;
}

void image_read_ptx(const char *at, size_t len, image_found found, void *arg)
{
	struct text t = { .at = at, .end = at + strnlen(at, len) };
	struct device_param *p = mem_alloc(IMAGE_PARAMS * sizeof(*p));

	while (p && next(&t)) {
		struct text before;
		const char *name;
		size_t name_len;
		int n = 0;

		if (!is(&t, ".entry") || !next(&t) || !is_name(t.word[0]))
			continue;
		name = t.word;
		name_len = t.len;
		before = t;
		if (!next(&t))
			break;
		if (is(&t, "("))
			n = take_params(&t, p);
		else
			t = before;	/* none at all: directives or its body follow */
		found(arg, name, name_len, p, n);
	}
	mem_free(p);
}
