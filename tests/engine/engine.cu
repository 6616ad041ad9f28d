/* SPDX-License-Identifier: MIT */
/* engine.cu - the engine's kernels, for clang's NVPTX backend: no header and no
 * library of a CUDA toolkit. PTX ISA 7.0, sm_80.
 *
 * Owns nothing. Every kernel repeats in parallel what cpu.c does in turn, bit by
 * bit (rules in arith.h). Activations are f32, a column of them for each token.
 */
#include "arith.h"

#define KERNEL extern "C" __attribute__((global)) void
#define INLINE inline __attribute__((device, always_inline))
#define DEVICE static INLINE
#define SHARED __attribute__((shared))
#define TID __nvvm_read_ptx_sreg_tid_x()
#define NTID __nvvm_read_ptx_sreg_ntid_x()
#define BLOCK_X __nvvm_read_ptx_sreg_ctaid_x()
#define BLOCK_Y __nvvm_read_ptx_sreg_ctaid_y()

#define TILE 4		/* tokens that share one reading of a weight */

extern SHARED float dynamic[];

DEVICE float from_half(unsigned short h)
{
	float f;

	__asm__("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
	return f;
}

DEVICE float warp_sum(float v)
{
	for (int k = LANES / 2; k; k >>= 1)
		v += f_of(__nvvm_shfl_sync_bfly_i32(~0u, u_of(v), k, 31));
	return v;
}

/* Sum of s[0..n), in s[0]; n a power of two, a thread each. */
DEVICE float block_sum(float *s, int n)
{
	int t = TID;
	float sum;

	__syncthreads();
	for (int k = n / 2; k; k >>= 1) {
		if (t < k)
			s[t] += s[t + k];
		__syncthreads();
	}
	sum = s[0];
	__syncthreads();
	return sum;
}

DEVICE float block_max(float *s, int n)
{
	int t = TID;
	float most;

	__syncthreads();
	for (int k = n / 2; k; k >>= 1) {
		if (t < k)
			s[t] = __builtin_fmaxf(s[t], s[t + k]);
		__syncthreads();
	}
	most = s[0];
	__syncthreads();
	return most;
}

DEVICE int position(struct step at)
{
	return at.state ? at.state[0] : at.pos;
}

/* ---- weights ------------------------------------------------------------- */

template <int TYPE> DEVICE float item(const void *row, int i);

template <> INLINE float item<W_F32>(const void *row, int i)
{
	return ((const float *)row)[i];
}

template <> INLINE float item<W_F16>(const void *row, int i)
{
	return from_half(((const unsigned short *)row)[i]);
}

template <> INLINE float item<W_BF16>(const void *row, int i)
{
	return from_bf16(((const unsigned short *)row)[i]);
}

/* Blocks of 34 bytes: a half, then 32 signed bytes. */
template <> INLINE float item<W_Q8_0>(const void *row, int i)
{
	const char *b = (const char *)row + i / 32 * 34;

	return from_half(*(const unsigned short *)b) *
	       (float)((const signed char *)b)[2 + i % 32];
}

template <int TYPE> DEVICE long row_bytes(int cols)
{
	return TYPE == W_F32 ? cols * 4L : TYPE == W_Q8_0 ? cols / 32 * 34L
							  : cols * 2L;
}

DEVICE struct ref direct(const void *w, int cols, int rows)
{
	struct ref r = { w, 0, 0, cols, rows };

	return r;
}

DEVICE const void *weights(struct ref w)
{
	return w.data ? w.data : w.table[w.index];
}

/* y[t][row] = or += w[row] . x[t]: a warp for each row, N tokens at once. */
template <int TYPE, int N>
DEVICE void product(float *y, struct ref w, const float *x, int tokens, int add)
{
	int lane = TID % LANES, row = BLOCK_X * (NTID / LANES) + TID / LANES;
	int first = BLOCK_Y * N;
	const char *base;
	float sum[N];

	if (row >= w.rows)
		return;
	base = (const char *)weights(w) + row * row_bytes<TYPE>(w.cols);
	for (int t = 0; t < N; t++)
		sum[t] = 0;
	for (int i = lane; i < w.cols; i += LANES) {
		float v = item<TYPE>(base, i);

		for (int t = 0; t < N; t++)
			if (N == 1 || first + t < tokens)
				sum[t] = __builtin_fmaf(v, x[(long)(first + t) * w.cols + i], sum[t]);
	}
	for (int t = 0; t < N; t++) {
		float *out = &y[(long)(first + t) * w.rows + row];
		float s = warp_sum(sum[t]);

		if (lane == 0 && (N == 1 || first + t < tokens))
			*out = add ? *out + s : s;
	}
}

template <int TYPE>
DEVICE void embed(float *x, struct ref w, struct step at)
{
	int t = BLOCK_X, token = at.state ? at.state[1 + t] : at.token;
	const char *row = (const char *)weights(w) + token * row_bytes<TYPE>(w.cols);

	for (int i = TID; i < w.cols; i += NTID)
		x[(long)t * w.cols + i] = item<TYPE>(row, i);
}

#define FOR_TYPE(T, name)							\
KERNEL matvec_##name(float *y, const void *w, int cols, int rows,		\
		     const float *x, int tokens, int add)			\
{										\
	product<T, 1>(y, direct(w, cols, rows), x, tokens, add);		\
}										\
KERNEL matmul_##name(float *y, const void *w, int cols, int rows,		\
		     const float *x, int tokens, int add)			\
{										\
	product<T, TILE>(y, direct(w, cols, rows), x, tokens, add);		\
}										\
KERNEL matvec_ref_##name(float *y, struct ref w, const float *x, int tokens,	\
			 int add)						\
{										\
	product<T, 1>(y, w, x, tokens, add);					\
}										\
KERNEL matmul_ref_##name(float *y, struct ref w, const float *x, int tokens,	\
			 int add)						\
{										\
	product<T, TILE>(y, w, x, tokens, add);					\
}										\
KERNEL embed_##name(float *x, struct ref w, struct step at)			\
{										\
	embed<T>(x, w, at);							\
}

FOR_TYPE(W_F32, f32)
FOR_TYPE(W_F16, f16)
FOR_TYPE(W_BF16, bf16)
FOR_TYPE(W_Q8_0, q8_0)

/* ---- the rest ------------------------------------------------------------ */

/* A block of NORM_LANES for each token. */
KERNEL rmsnorm(float *y, const float *x, const float *w, int dim, float eps)
{
	SHARED static float s[NORM_LANES];
	const float *in = x + (long)BLOCK_X * dim;
	float *out = y + (long)BLOCK_X * dim;
	float sum = 0, scale;
	int t = TID;

	for (int i = t; i < dim; i += NORM_LANES)
		sum = __builtin_fmaf(in[i], in[i], sum);
	s[t] = sum;
	sum = block_sum(s, NORM_LANES);
	scale = 1.0f / __builtin_sqrtf(sum / (float)dim + eps);
	for (int i = t; i < dim; i += NORM_LANES)
		out[i] = in[i] * scale * w[i];
}

/* Turns q in place. turns: for each position, head_dim / 2 pairs of a cosine and
 * a sine. A block for each token. */
KERNEL rope(float *q, const float *turns, int heads, int head_dim, struct step at)
{
	int half = head_dim / 2, n = heads * half;
	const float *cs = turns + (long)(position(at) + (int)BLOCK_X) * head_dim;
	float *x = q + (long)BLOCK_X * heads * head_dim;

	for (int i = TID; i < n; i += NTID)
		rotate(&x[2 * i], &x[2 * i + 1], cs[i % half * 2],
		       cs[i % half * 2 + 1]);
}

/* Turns k and puts k and v where their positions are in a layer's cache. */
KERNEL keep(float *keys, float *values, const float *k, const float *v,
	    const float *turns, int heads, int head_dim, struct step at)
{
	int half = head_dim / 2, n = heads * half, dim = heads * head_dim;
	long pos = position(at) + (int)BLOCK_X;
	const float *cs = turns + pos * head_dim;

	k += (long)BLOCK_X * dim;
	v += (long)BLOCK_X * dim;
	for (int i = TID; i < n; i += NTID) {
		float a = k[2 * i], b = k[2 * i + 1];

		rotate(&a, &b, cs[i % half * 2], cs[i % half * 2 + 1]);
		keys[pos * dim + 2 * i] = a;
		keys[pos * dim + 2 * i + 1] = b;
		values[pos * dim + 2 * i] = v[2 * i];
		values[pos * dim + 2 * i + 1] = v[2 * i + 1];
	}
}

/* A block of ATTN_LANES for each head (x) of each token (y). Dynamic shared
 * memory: ATTN_LANES floats, and one for each position. */
KERNEL attention(float *out, const float *q, const float *keys,
		 const float *values, int heads, int kv_heads, int head_dim,
		 float scale, struct step at)
{
	int t = TID, head = BLOCK_X, n = position(at) + (int)BLOCK_Y + 1;
	int dim = kv_heads * head_dim, from = head / (heads / kv_heads) * head_dim;
	long column = ((long)BLOCK_Y * heads + head) * head_dim;
	float *red = dynamic, *score = dynamic + ATTN_LANES;
	float most = -1e30f, sum = 0;

	for (int p = t; p < n; p += ATTN_LANES) {
		float s = 0;

		for (int i = 0; i < head_dim; i++)
			s = __builtin_fmaf(q[column + i], keys[(long)p * dim + from + i], s);
		score[p] = s * scale;
		most = __builtin_fmaxf(most, score[p]);
	}
	red[t] = most;
	most = block_max(red, ATTN_LANES);
	for (int p = t; p < n; p += ATTN_LANES) {
		score[p] = exp_of(score[p] - most);
		sum += score[p];
	}
	red[t] = sum;
	sum = block_sum(red, ATTN_LANES);
	for (int i = t; i < head_dim; i += ATTN_LANES) {
		float s = 0;

		for (int p = 0; p < n; p++)
			s = __builtin_fmaf(score[p], values[(long)p * dim + from + i], s);
		out[column + i] = s / sum;
	}
}

KERNEL swiglu(float *gate, const float *up, int n)
{
	int i = BLOCK_X * NTID + TID;

	if (i < n)
		gate[i] = silu(gate[i]) * up[i];
}

/* The first of the largest, into token[0]; the position counts on, if it is to. One
 * block of NORM_LANES. */
KERNEL choose(int *token, int *pos, const float *logits, int n)
{
	SHARED static float best[NORM_LANES];
	SHARED static int at[NORM_LANES];
	int t = TID;

	best[t] = -1e30f;
	at[t] = 0;
	for (int i = t; i < n; i += NORM_LANES)
		if (logits[i] > best[t]) {
			best[t] = logits[i];
			at[t] = i;
		}
	for (int k = NORM_LANES / 2; k; k >>= 1) {
		__syncthreads();
		if (t < k && (best[t + k] > best[t] ||
			      (best[t + k] == best[t] && at[t + k] < at[t]))) {
			best[t] = best[t + k];
			at[t] = at[t + k];
		}
	}
	if (t == 0) {
		*token = at[0];
		if (pos)
			*pos += 1;
	}
}
