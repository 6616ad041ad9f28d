/* SPDX-License-Identifier: MIT */
/* header.c - tensor container headers: telling them apart, reading them.
 *
 * Owns the bounded reader (struct pol_head) that gguf.c and safetensors.c
 * read through, and the checks that hold for every container.
 *
 * (H1) Every byte is fetched through pol_head_take: no read outside buf.
 * (H2) The first error sticks; later reads return zeros.
 * (H3) A span handed out lies inside the file, whatever the header says.
 * Lock: none, pure functions of their arguments.
 */
#include "policy/policy_int.h"

#define GROW_MIN 65536u

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

void pol_head_bad(struct pol_head *h, uint64_t need)
{
	if (h->err)
		return;
	h->err = -EBADMSG;
	h->need = need;
}

/* The header goes on beyond buf: ask for twice as much, so that a long
 * vocabulary costs few calls. */
static void ask_more(struct pol_head *h, uint64_t end)
{
	uint64_t want = h->len < UINT64_MAX / 2 ? h->len * 2 : h->len;

	if (want < end)
		want = end;
	if (want < GROW_MIN)
		want = GROW_MIN;
	h->err = -EAGAIN;
	h->need = min_u64(want, h->file_size);
}

const uint8_t *pol_head_take(struct pol_head *h, uint64_t n)
{
	const uint8_t *at = h->buf + h->pos;

	if (h->err)
		return NULL;
	if (n > UINT64_MAX - h->pos) {
		pol_head_bad(h, 0);
		return NULL;
	}
	if (h->pos + n > h->file_size) {
		pol_head_bad(h, h->pos + n);
		return NULL;
	}
	if (h->pos + n > h->len) {
		ask_more(h, h->pos + n);
		return NULL;
	}
	h->pos += n;
	return at;
}

static uint64_t le(const uint8_t *b, unsigned int n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | b[n];
	return v;
}

uint32_t pol_head_u32(struct pol_head *h)
{
	const uint8_t *b = pol_head_take(h, 4);

	return b ? (uint32_t)le(b, 4) : 0;
}

uint64_t pol_head_u64(struct pol_head *h)
{
	const uint8_t *b = pol_head_take(h, 8);

	return b ? le(b, 8) : 0;
}

void pol_head_emit(struct pol_head *h, const struct pol_span *s)
{
	if (h->err)
		return;
	if (h->n < h->max)
		h->out[h->n] = *s;
	h->n++;
}

static bool ends_with(const char *name, const char *tail)
{
	size_t n = strlen(name), t = strlen(tail);

	return n >= t && !memcmp(name + n - t, tail, t);
}

static bool is_torch_zip(const uint8_t *b, size_t len)
{
	static const char *const member[] = {
		"/data.pkl", "/byteorder", ".format_version", "/version",
	};
	size_t n, i;

	if (len < 31 || memcmp(b, "PK\3\4", 4))
		return false;
	n = min_u64(le(b + 26, 2), len - 30);
	for (i = 0; i < sizeof(member) / sizeof(member[0]); i++)
		if (pol_name_has(b + 30, n, member[i]))
			return true;
	return false;
}

/* Not more than the reference reader accepts. */
#define SAFETENSORS_HEAD_MAX 100000000u

static bool is_safetensors(const uint8_t *b, size_t len)
{
	uint64_t n;

	if (len < 9)
		return false;
	n = le(b, 8);
	return n >= 2 && n <= SAFETENSORS_HEAD_MAX && b[8] == '{';
}

static bool is_onnx(const uint8_t *b, size_t len, const char *name)
{
	if (!name)
		return false;
	if (ends_with(name, ".onnx_data") || ends_with(name, ".onnx.data"))
		return true;
	/* ModelProto: field 1, a varint (ir_version), is written first */
	return ends_with(name, ".onnx") && len >= 2 && b[0] == 0x08;
}

enum pol_container pol_container_of(const void *head, size_t len,
				    const char *name)
{
	const uint8_t *b = head;

	if (len >= 4 && !memcmp(b, "GGUF", 4))
		return POL_FILE_GGUF;
	if (is_safetensors(b, len))
		return POL_FILE_SAFETENSORS;
	if (is_torch_zip(b, len))
		return POL_FILE_ZIP;
	if (is_onnx(b, len, name))
		return POL_FILE_ONNX;
	return POL_FILE_UNKNOWN;
}

/* Where a span ends that did not say so: at the next one, or at the end. */
static uint64_t open_end(const struct pol_head *h, size_t i)
{
	for (size_t j = i + 1; j < h->n; j++)
		if (h->out[j].off > h->out[i].off)
			return h->out[j].off;
	return h->file_size;
}

/* Spans are sorted by offset here. (H3) */
static void check_spans(struct pol_head *h)
{
	uint64_t want = 0;
	size_t i;

	for (i = 0; i < h->n; i++) {
		struct pol_span *s = &h->out[i];
		uint64_t end;

		if (s->off > h->file_size) {
			want = s->off > want ? s->off : want;
			continue;
		}
		if (s->len == UINT64_MAX)
			s->len = open_end(h, i) - s->off;
		if (s->len > UINT64_MAX - s->off)
			return pol_head_bad(h, 0);
		end = s->off + s->len;
		want = end > want ? end : want;
	}
	if (want > h->file_size)
		pol_head_bad(h, want);
}

long pol_spans(const void *buf, size_t len, uint64_t file_size,
	       struct pol_span *out, size_t max, uint64_t *need)
{
	struct pol_head h = {
		.buf = buf, .len = min_u64(len, file_size),
		.file_size = file_size, .out = out, .max = max,
	};

	*need = 0;
	if (h.len < 9 && file_size > h.len)
		ask_more(&h, 9);
	else if (h.len >= 4 && !memcmp(buf, "GGUF", 4))
		pol_gguf(&h);
	else if (is_safetensors(buf, h.len))
		pol_safetensors(&h);
	else
		pol_head_bad(&h, 0);
	if (!h.err && h.n <= max) {
		pol_names_rank(buf, out, h.n);
		check_spans(&h);
	}
	*need = h.need;
	return h.err ? h.err : (long)h.n;
}

uint32_t pol_experts_used(const void *buf, size_t len)
{
	struct pol_head h = { .buf = buf, .len = len, .file_size = UINT64_MAX };

	if (len >= 4 && !memcmp(buf, "GGUF", 4))
		pol_gguf(&h);
	return h.experts_used;
}
