/* SPDX-License-Identifier: MIT */
/* names.c - what a tensor's name says of when it is used.
 *
 * A decoding pass reads embeddings, then layer after layer, in a layer role
 * after role, then the output. Names of GGUF and of published safetensors
 * follow few conventions; a name that follows none keeps its file order.
 *
 *     rank = phase (before, layers, after) | layer | role | file order
 *
 * Guesses only: a wrong rank costs a fault, never a byte (R3).
 * Lock: none.
 */
#include "policy/policy_int.h"

enum { PHASE_BEFORE, PHASE_LAYERS, PHASE_AFTER };

#define ROLE_OTHER 15u		/* between attention and feed-forward */

/* First match wins. GGUF's words first, then those of published models. */
static const struct { const char *part; uint8_t rank; } role[] = {
	{ "shexp", 40 }, { "shared_expert", 40 },
	{ "attn_norm", 1 }, { "input_layernorm", 1 }, { "ln_1", 1 },
	{ "attn_qkv", 4 }, { "qkv_proj", 4 }, { "query_key_value", 4 },
	{ "c_attn", 4 }, { "attn_q", 5 }, { "q_proj", 5 }, { "q_a_proj", 5 },
	{ "q_b_proj", 6 }, { "attn_kv", 7 }, { "kv_a_proj", 7 },
	{ "kv_b_proj", 8 }, { "attn_k", 8 }, { "k_proj", 8 },
	{ "attn_v", 9 }, { "v_proj", 9 }, { "attn_output", 12 },
	{ "o_proj", 12 }, { "out_proj", 12 }, { "attn.c_proj", 12 },
	{ "attention.dense", 12 }, { "post_attention_norm", 14 },
	{ "ffn_norm", 20 }, { "post_attention_layernorm", 20 },
	{ "ln_2", 20 }, { "ffn_gate_inp", 22 }, { "mlp.gate.", 22 },
	{ "moe.gate.", 22 }, { "router", 22 }, { "gate_up_proj", 24 },
	{ "ffn_gate", 24 }, { "gate_proj", 24 }, { ".w1.", 24 },
	{ "ffn_up", 26 }, { "up_proj", 26 }, { ".w3.", 26 },
	{ "c_fc", 26 }, { "ffn_down", 28 }, { "down_proj", 28 },
	{ ".w2.", 28 }, { "mlp.c_proj", 28 }, { "post_ffw_norm", 44 },
	{ "layer_output_norm", 45 },
};

bool pol_name_has(const uint8_t *name, size_t len, const char *needle)
{
	size_t n = strlen(needle);

	for (size_t i = 0; i + n <= len; i++)
		if (!memcmp(name + i, needle, n))
			return true;
	return false;
}

static bool begins(const uint8_t *name, size_t len, const char *word)
{
	size_t n = strlen(word);

	return len >= n && !memcmp(name, word, n);
}

bool pol_name_is_stack(const uint8_t *name, size_t len)
{
	return pol_name_has(name, len, "_exps") ||
	       pol_name_has(name, len, ".experts.");
}

static bool is_token_embedding(const uint8_t *name, size_t len)
{
	return begins(name, len, "token_embd.weight") ||
	       pol_name_has(name, len, "embed_tokens") ||
	       pol_name_has(name, len, "wte.weight") ||
	       pol_name_has(name, len, "word_embeddings.weight");
}

static bool is_output(const uint8_t *name, size_t len)
{
	return begins(name, len, "output.weight") ||
	       pol_name_has(name, len, "lm_head") ||
	       pol_name_has(name, len, "embed_out");
}

/* Used per image or sound, not per token. */
static bool is_side_tower(const uint8_t *name, size_t len)
{
	return begins(name, len, "v.") || begins(name, len, "mm.") ||
	       pol_name_has(name, len, "vision_") ||
	       pol_name_has(name, len, "visual.") ||
	       pol_name_has(name, len, "audio_");
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

/* The number that stands alone between dots from *at on, or POL_NIL; *at
 * then is behind it. */
static uint32_t next_number(const uint8_t *name, size_t len, size_t *at)
{
	size_t i = *at, j;
	uint32_t v;

	while (i < len) {
		for (v = 0, j = i; j < len && is_digit(name[j]) && j < i + 6; j++)
			v = v * 10 + (name[j] - '0');
		if (j > i && j < len && name[j] == '.') {
			*at = j;
			return v;
		}
		while (i < len && name[i] != '.')
			i++;
		i++;
	}
	*at = len;
	return POL_NIL;
}

static uint32_t role_of(const uint8_t *name, size_t len)
{
	for (size_t i = 0; i < sizeof(role) / sizeof(role[0]); i++)
		if (pol_name_has(name, len, role[i].part))
			return role[i].rank;
	return ROLE_OTHER;
}

/* Outside the layers: embeddings and what precedes, or the output side. */
static uint32_t edge_rank(const uint8_t *name, size_t len, bool tied)
{
	bool embd = is_token_embedding(name, len);

	if (is_output(name, len) || (embd && tied))
		return PHASE_AFTER << 28 | 2;
	if (begins(name, len, "output") || pol_name_has(name, len, "ln_f") ||
	    pol_name_has(name, len, "model.norm") ||
	    pol_name_has(name, len, "final_layer"))
		return PHASE_AFTER << 28 | 1;
	return PHASE_BEFORE << 28 | !embd;
}

static void read_name(const uint8_t *name, struct pol_span *s, bool tied)
{
	size_t len = s->name_len, at = 0;

	s->pattern = POL_LOOP;
	s->expert = POL_NIL;
	s->layer = next_number(name, len, &at);
	if (s->layer == POL_NIL) {
		s->order = edge_rank(name, len, tied);
		if (!tied && is_token_embedding(name, len))
			s->pattern = POL_SKEW;
	} else {
		s->order = PHASE_LAYERS << 28 | (s->layer & 0xfffff) << 8 |
			   role_of(name + at, len - at);
		if (pol_name_has(name + at, len - at, ".experts."))
			s->expert = next_number(name, len, &at);
	}
	if (s->slab) {
		s->pattern = POL_SKEW;
		s->expert = 0;
	} else if (s->expert != POL_NIL) {
		s->pattern = POL_SKEW;
		s->slab = s->len;
	}
	if (is_side_tower(name, len))
		s->pattern = POL_SKEW;
}

static bool later(const struct pol_span *a, const struct pol_span *b,
		  bool by_order)
{
	if (by_order && a->order != b->order)
		return a->order > b->order;
	if (a->off != b->off)
		return a->off > b->off;
	return a->name_off > b->name_off;
}

static void sift(struct pol_span *s, size_t i, size_t n, bool by_order)
{
	struct pol_span t = s[i];
	size_t c;

	while ((c = 2 * i + 1) < n) {
		if (c + 1 < n && later(&s[c + 1], &s[c], by_order))
			c++;
		if (!later(&s[c], &t, by_order))
			break;
		s[i] = s[c];
		i = c;
	}
	s[i] = t;
}

static void sort_spans(struct pol_span *s, size_t n, bool by_order)
{
	struct pol_span t;
	size_t i;

	for (i = n / 2; i-- > 0;)
		sift(s, i, n, by_order);
	for (i = n; i-- > 1;) {
		t = s[0];
		s[0] = s[i];
		s[i] = t;
		sift(s, 0, i, by_order);
	}
}

void pol_names_rank(const uint8_t *buf, struct pol_span *s, size_t n)
{
	bool tied = true;
	size_t i;

	for (i = 0; i < n; i++)
		if (is_output(buf + s[i].name_off, s[i].name_len))
			tied = false;
	for (i = 0; i < n; i++)
		read_name(buf + s[i].name_off, &s[i], tied);
	sort_spans(s, n, true);
	for (i = 0; i < n; i++)
		s[i].order = (uint32_t)i;
	sort_spans(s, n, false);
}
