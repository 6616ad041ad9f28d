/* SPDX-License-Identifier: MIT */
/* gguf.c - the GGUF header, versions 2 and 3, little-endian.
 *
 *     magic version n_tensors n_kv | n_kv x (key type value)
 *     | n_tensors x (name n_dims dims type offset) | pad | data
 *
 * (G1) Key-values are skipped, but for general.alignment.
 * (G2) Counts are not trusted: each item read consumes bytes of the header,
 *      so no loop outlives the buffer.
 * Lock: none.
 */
#include "policy/policy_int.h"

#define GGUF_DIMS_MAX 4u
#define GGUF_DEPTH_MAX 3u	/* arrays in arrays */

enum { KV_U32 = 4, KV_STRING = 8, KV_ARRAY = 9, KV_END = 13 };

/* Bytes of a key-value of fixed size, by type. */
static const uint8_t kv_size[KV_END] = {
	1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8,
};

/* Elements and bytes of one block, by tensor type; 0: not known. */
static const struct { uint16_t elems, bytes; } block[] = {
	[0] = { 1, 4 },		/* F32 */
	[1] = { 1, 2 },		/* F16 */
	[2] = { 32, 18 },	/* Q4_0 */
	[3] = { 32, 20 },	/* Q4_1 */
	[6] = { 32, 22 },	/* Q5_0 */
	[7] = { 32, 24 },	/* Q5_1 */
	[8] = { 32, 34 },	/* Q8_0 */
	[9] = { 32, 36 },	/* Q8_1 */
	[10] = { 256, 84 },	/* Q2_K */
	[11] = { 256, 110 },	/* Q3_K */
	[12] = { 256, 144 },	/* Q4_K */
	[13] = { 256, 176 },	/* Q5_K */
	[14] = { 256, 210 },	/* Q6_K */
	[15] = { 256, 292 },	/* Q8_K */
	[16] = { 256, 66 },	/* IQ2_XXS */
	[17] = { 256, 74 },	/* IQ2_XS */
	[18] = { 256, 98 },	/* IQ3_XXS */
	[19] = { 256, 50 },	/* IQ1_S */
	[20] = { 32, 18 },	/* IQ4_NL */
	[21] = { 256, 110 },	/* IQ3_S */
	[22] = { 256, 82 },	/* IQ2_S */
	[23] = { 256, 136 },	/* IQ4_XS */
	[24] = { 1, 1 },	/* I8 */
	[25] = { 1, 2 },	/* I16 */
	[26] = { 1, 4 },	/* I32 */
	[27] = { 1, 8 },	/* I64 */
	[28] = { 1, 8 },	/* F64 */
	[29] = { 256, 56 },	/* IQ1_M */
	[30] = { 1, 2 },	/* BF16 */
	[34] = { 256, 54 },	/* TQ1_0 */
	[35] = { 256, 66 },	/* TQ2_0 */
	[39] = { 32, 17 },	/* MXFP4 */
};

#define N_BLOCK (sizeof(block) / sizeof(block[0]))

static enum pol_dtype dtype_of(uint32_t type)
{
	if (type == 0)
		return POL_DT_F32;
	if (type == 1)
		return POL_DT_F16;
	if (type == 30)
		return POL_DT_BF16;
	if (type < N_BLOCK && block[type].elems > 1)
		return POL_DT_QUANT;
	return POL_DT_OTHER;
}

static const uint8_t *take_string(struct pol_head *h, uint64_t *len)
{
	*len = pol_head_u64(h);
	return pol_head_take(h, *len);
}

static void skip_value(struct pol_head *h, uint32_t type, unsigned int depth);

static void skip_array(struct pol_head *h, unsigned int depth)
{
	uint32_t type = pol_head_u32(h);
	uint64_t n = pol_head_u64(h);

	if (type >= KV_END || depth == 0)
		return pol_head_bad(h, 0);
	if (kv_size[type]) {
		if (n > UINT64_MAX / 8)
			return pol_head_bad(h, 0);
		pol_head_take(h, n * kv_size[type]);
		return;
	}
	while (n-- && !h->err)
		skip_value(h, type, depth - 1);
}

static void skip_value(struct pol_head *h, uint32_t type, unsigned int depth)
{
	uint64_t len;

	if (type >= KV_END)
		pol_head_bad(h, 0);
	else if (type == KV_STRING)
		take_string(h, &len);
	else if (type == KV_ARRAY)
		skip_array(h, depth);
	else
		pol_head_take(h, kv_size[type]);
}

static bool ends_key(const uint8_t *key, uint64_t len, const char *tail)
{
	size_t n = strlen(tail);

	return len >= n && !memcmp(key + len - n, tail, n);
}

/* Returns the alignment of the data, from the key-values or the default. */
static uint64_t read_kv(struct pol_head *h, uint64_t n)
{
	static const char name[] = "general.alignment";
	uint64_t align = 32, len;
	const uint8_t *key;
	uint32_t type;

	while (n-- && !h->err) {
		key = take_string(h, &len);
		type = pol_head_u32(h);
		if (key && type == KV_U32 && len == sizeof(name) - 1 &&
		    !memcmp(key, name, len))
			align = pol_head_u32(h);
		else if (key && type == KV_U32 &&
			 ends_key(key, len, ".expert_used_count"))
			h->experts_used = pol_head_u32(h);
		else
			skip_value(h, type, GGUF_DEPTH_MAX);
	}
	if (!h->err && (!align || align & (align - 1)))
		pol_head_bad(h, 0);
	return align;
}

/* Bytes of a tensor; UINT64_MAX: of a type not known here. */
static uint64_t tensor_len(struct pol_head *h, const uint64_t *ne,
			   uint32_t n_dims, uint32_t type)
{
	uint64_t n = 1;

	for (uint32_t i = 0; i < n_dims; i++)
		if (__builtin_mul_overflow(n, ne[i], &n))
			pol_head_bad(h, 0);
	if (type >= N_BLOCK || !block[type].elems)
		return UINT64_MAX;
	if (ne[0] % block[type].elems)
		pol_head_bad(h, 0);
	n /= block[type].elems;
	if (__builtin_mul_overflow(n, (uint64_t)block[type].bytes, &n))
		pol_head_bad(h, 0);
	return n;
}

static void read_tensor(struct pol_head *h, uint64_t align)
{
	uint64_t ne[GGUF_DIMS_MAX] = { 1, 1, 1, 1 }, name_len;
	const uint8_t *name = take_string(h, &name_len);
	struct pol_span s = { 0 };
	uint32_t n_dims, type;

	n_dims = pol_head_u32(h);
	if (!h->err && (name_len > UINT16_MAX || n_dims > GGUF_DIMS_MAX))
		pol_head_bad(h, 0);
	for (uint32_t i = 0; !h->err && i < n_dims; i++)
		ne[i] = pol_head_u64(h);
	type = pol_head_u32(h);
	s.off = pol_head_u64(h);	/* from the start of the data */
	if (h->err)
		return;
	if (s.off % align || (uint64_t)(name - h->buf) > UINT32_MAX)
		return pol_head_bad(h, 0);
	s.len = tensor_len(h, ne, n_dims, type);
	s.dtype = dtype_of(type);
	s.dims = (uint8_t)n_dims;
	s.name_off = (uint32_t)(name - h->buf);
	s.name_len = (uint16_t)name_len;
	if (s.len != UINT64_MAX && n_dims == 3 && ne[2] > 1 &&
	    pol_name_is_stack(name, name_len))
		s.slab = s.len / ne[2];
	pol_head_emit(h, &s);
}

void pol_gguf(struct pol_head *h)
{
	uint64_t n_tensors, n_kv, align, base;
	uint32_t version;

	pol_head_take(h, 4);
	version = pol_head_u32(h);
	if (!h->err && version != 2 && version != 3)
		return pol_head_bad(h, 0);
	n_tensors = pol_head_u64(h);
	n_kv = pol_head_u64(h);
	align = read_kv(h, n_kv);
	while (n_tensors-- && !h->err)
		read_tensor(h, align);
	if (h->err)
		return;
	base = (h->pos + align - 1) & ~(align - 1);
	for (size_t i = 0; i < h->n && i < h->max; i++)
		if (__builtin_add_overflow(h->out[i].off, base, &h->out[i].off))
			return pol_head_bad(h, 0);
}
