/* SPDX-License-Identifier: MIT */
/* safetensors.c - the safetensors header: a length, then one JSON object.
 *
 *     u64 n | { "name": {"dtype":"BF16","shape":[..],
 *                        "data_offsets":[begin,end]}, ... } | data
 *
 * (S1) Not a JSON reader: just what this header may hold, and anything else
 *      is skipped by bracket depth or refused.
 * (S2) Every character comes through peek(), which ends at the header's end.
 * Lock: none.
 */
#include "policy/policy_int.h"

#define JSON_DEPTH_MAX 32
#define ST_DIMS_MAX 8u

struct json {
	struct pol_head *h;
	const uint8_t *b;	/* the object's text */
	uint64_t len, pos;
};

struct str {
	const uint8_t *at;
	uint64_t len;
};

struct entry {			/* one tensor, as the header tells it */
	struct str dtype;
	uint64_t shape[ST_DIMS_MAX], off[2];
	uint32_t n_dims, n_off;
};

static int peek(struct json *j)
{
	if (j->h->err || j->pos >= j->len)
		return -1;
	return j->b[j->pos];
}

static void skip_space(struct json *j)
{
	int c;

	while ((c = peek(j)) == ' ' || c == '\n' || c == '\t' || c == '\r')
		j->pos++;
}

/* Takes c after spaces if it is next. */
static bool accept(struct json *j, int c)
{
	skip_space(j);
	if (peek(j) != c)
		return false;
	j->pos++;
	return true;
}

static void expect(struct json *j, int c)
{
	if (!accept(j, c))
		pol_head_bad(j->h, 0);
}

/* The text between the quotes, escapes left as they are written. */
static struct str take_str(struct json *j)
{
	struct str s = { 0 };
	int c;

	expect(j, '"');
	s.at = j->b + j->pos;
	while ((c = peek(j)) >= 0x20 && c != '"')
		j->pos += c == '\\' ? 2 : 1;
	if (c != '"')
		pol_head_bad(j->h, 0);
	else
		s.len = (uint64_t)(j->b + j->pos++ - s.at);
	return s;
}

static uint64_t take_num(struct json *j)
{
	uint64_t v = 0;
	int c;

	skip_space(j);
	c = peek(j);
	if (c < '0' || c > '9')
		pol_head_bad(j->h, 0);
	for (; c >= '0' && c <= '9'; c = peek(j)) {
		if (v > (UINT64_MAX >> 1) / 10 - 1)
			pol_head_bad(j->h, 0);
		v = v * 10 + (uint64_t)(c - '0');
		j->pos++;
	}
	return v;
}

/* Reads [n, n, ...], at most max of them. Returns how many. */
static uint32_t take_nums(struct json *j, uint64_t *v, uint32_t max)
{
	uint32_t n = 0;

	expect(j, '[');
	if (accept(j, ']'))
		return 0;
	do {
		if (n == max) {
			pol_head_bad(j->h, 0);
			return 0;
		}
		v[n++] = take_num(j);
	} while (!j->h->err && accept(j, ','));
	expect(j, ']');
	return n;
}

static bool is(struct str s, const char *word)
{
	return s.len == strlen(word) && !memcmp(s.at, word, s.len);
}

/* Any value, by bracket depth: metadata, and keys of times to come. */
static void skip_any(struct json *j)
{
	int depth = 0, c;

	do {
		skip_space(j);
		c = peek(j);
		if (c < 0)
			return pol_head_bad(j->h, 0);
		if (c == '"') {
			take_str(j);
			continue;
		}
		if ((c == '}' || c == ']' || c == ',') && !depth)
			return;
		depth += (c == '{' || c == '[') - (c == '}' || c == ']');
		if (depth > JSON_DEPTH_MAX)
			return pol_head_bad(j->h, 0);
		j->pos++;
	} while (!j->h->err);
}

static void take_field(struct json *j, struct entry *e)
{
	struct str key = take_str(j);

	expect(j, ':');
	if (j->h->err)
		return;
	if (is(key, "dtype"))
		e->dtype = take_str(j);
	else if (is(key, "shape"))
		e->n_dims = take_nums(j, e->shape, ST_DIMS_MAX);
	else if (is(key, "data_offsets"))
		e->n_off = take_nums(j, e->off, 2);
	else
		skip_any(j);
}

static enum pol_dtype dtype_of(struct str s, uint64_t *size)
{
	static const struct {
		const char *name;
		uint8_t size, dtype;
	} t[] = {
		{ "F32", 4, POL_DT_F32 }, { "F16", 2, POL_DT_F16 },
		{ "BF16", 2, POL_DT_BF16 }, { "F64", 8, POL_DT_OTHER },
		{ "I64", 8, POL_DT_OTHER }, { "I32", 4, POL_DT_OTHER },
		{ "I16", 2, POL_DT_OTHER }, { "I8", 1, POL_DT_OTHER },
		{ "U64", 8, POL_DT_OTHER }, { "U32", 4, POL_DT_OTHER },
		{ "U16", 2, POL_DT_OTHER }, { "U8", 1, POL_DT_OTHER },
		{ "BOOL", 1, POL_DT_OTHER }, { "F8_E4M3", 1, POL_DT_OTHER },
		{ "F8_E5M2", 1, POL_DT_OTHER },
	};

	*size = 0;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		if (is(s, t[i].name)) {
			*size = t[i].size;
			return t[i].dtype;
		}
	return POL_DT_OTHER;
}

/* The shape must agree with the offsets, where the type's size is known. */
static bool shape_agrees(const struct entry *e, uint64_t size)
{
	uint64_t n = size;

	for (uint32_t i = 0; i < e->n_dims; i++)
		if (__builtin_mul_overflow(n, e->shape[i], &n))
			return false;
	return !size || n == e->off[1] - e->off[0];
}

static void emit(struct json *j, struct str name, const struct entry *e)
{
	struct pol_head *h = j->h;
	struct pol_span s = { 0 };
	uint64_t size;

	if (h->err)
		return;
	s.dtype = dtype_of(e->dtype, &size);
	if (e->n_off != 2 || e->off[1] < e->off[0] || name.len > UINT16_MAX ||
	    !shape_agrees(e, size))
		return pol_head_bad(h, 0);
	s.off = h->pos + e->off[0];
	s.len = e->off[1] - e->off[0];
	s.dims = (uint8_t)e->n_dims;
	s.name_off = (uint32_t)(name.at - h->buf);
	s.name_len = (uint16_t)name.len;
	if (e->n_dims == 3 && e->shape[0] > 1 &&
	    pol_name_is_stack(name.at, name.len))
		s.slab = s.len / e->shape[0];
	pol_head_emit(h, &s);
}

static void take_tensor(struct json *j)
{
	struct str name = take_str(j);
	struct entry e = { 0 };

	expect(j, ':');
	if (!j->h->err && is(name, "__metadata__"))
		return skip_any(j);
	expect(j, '{');
	if (!accept(j, '}')) {
		do
			take_field(j, &e);
		while (!j->h->err && accept(j, ','));
		expect(j, '}');
	}
	emit(j, name, &e);
}

void pol_safetensors(struct pol_head *h)
{
	struct json j = { .h = h };

	j.len = pol_head_u64(h);
	j.b = pol_head_take(h, j.len);
	if (!j.b)
		return;
	expect(&j, '{');
	if (accept(&j, '}'))
		return;
	do
		take_tensor(&j);
	while (!h->err && accept(&j, ','));
	expect(&j, '}');
}
