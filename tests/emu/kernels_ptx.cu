// SPDX-License-Identifier: MIT
// kernels_ptx.cu - kernels of a transformer, and of whatever else compilers make
// PTX of, for tests/emu/test_ptx_kernels.c. Needs no header of a toolkit.
#define DEV	static __attribute__((device)) inline
#define NOINL	static __attribute__((device)) __attribute__((noinline))
#define KERNEL	extern "C" __attribute__((global)) void
#define SHARED	__attribute__((shared))
#include "kernels_ptx.h"

#define TID	((int)__nvvm_read_ptx_sreg_tid_x())
#define NTID	((int)__nvvm_read_ptx_sreg_ntid_x())
#define CTA	((int)__nvvm_read_ptx_sreg_ctaid_x())
#define LANE	(TID & 31)
#define SYNC()	__syncthreads()
#define ALL	0xffffffffu

typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;
struct float4v { float x, y, z, w; } __attribute__((aligned(16)));

DEV float bits(u32 u) { return __builtin_bit_cast(float, u); }
DEV u32 bits(float f) { return __builtin_bit_cast(u32, f); }
DEV float from_bf16(bf16 h) { return bits((u32)h << 16); }
DEV float from_f16(unsigned short h) { return (float)__builtin_bit_cast(__fp16, h); }
DEV bf16 to_bf16(float f)
{
	bf16 r;

	asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(f));
	return r;
}

DEV float warp_sum(float v)
{
	for (int k = 16; k; k >>= 1)
		v += bits((u32)__nvvm_shfl_sync_bfly_i32(ALL, (int)bits(v), k, 31));
	return v;
}

DEV float exp_of(float x) { return __nvvm_ex2_approx_f(x * 1.4426950408889634f); }

extern SHARED float dynamic[];
SHARED float partial[32];
SHARED int counters[8];

DEV float block_sum(float v)
{
	v = warp_sum(v);
	if (!LANE)
		partial[TID / 32] = v;
	SYNC();
	if (TID < 32)
		partial[TID] = warp_sum(TID < NTID / 32 ? partial[TID] : 0);
	SYNC();
	v = partial[0];
	SYNC();
	return v;
}

KERNEL rmsnorm(bf16 *out, const bf16 *x, const float *w, int n)
{
	const bf16 *row = x + CTA * n;
	float sum = 0;

	for (int i = TID; i < n; i += NTID)
		sum += from_bf16(row[i]) * from_bf16(row[i]);
	sum = __nvvm_rsqrt_approx_f(block_sum(sum) / n + 1e-5f);
	for (int i = TID; i < n; i += NTID)
		out[CTA * n + i] = to_bf16(from_bf16(row[i]) * sum * w[i]);
}

// A warp for each row.
KERNEL matvec_f16(float *y, const __fp16 *w, const float *x, int n)
{
	int row = CTA * (NTID / 32) + TID / 32;
	float sum = 0;

	for (int i = LANE; i < n; i += 32)
		sum += (float)w[row * n + i] * x[i];
	sum = warp_sum(sum);
	if (!LANE)
		y[row] = sum;
}

KERNEL matvec_bf16(float *y, const u32 *w, const float *x, int n)
{
	int row = CTA * (NTID / 32) + TID / 32;
	float sum = 0;

	for (int i = LANE; i < n / 2; i += 32) {
		u32 two = w[row * (n / 2) + i];

		sum += bits(two << 16) * x[2 * i] + bits(two & 0xffff0000) * x[2 * i + 1];
	}
	sum = warp_sum(sum);
	if (!LANE)
		y[row] = sum;
}

KERNEL matvec_f32(float *y, const float4v *w, const float4v *x, int n)
{
	int row = CTA * (NTID / 32) + TID / 32;
	float sum = 0;

	for (int i = LANE; i < n / 4; i += 32) {
		float4v a = w[row * (n / 4) + i], b = x[i];

		sum += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
	}
	sum = warp_sum(sum);
	if (!LANE)
		y[row] = sum;
}

KERNEL matvec_q8(float *y, const half_block *w, const float *x, int n)
{
	int row = CTA * (NTID / 32) + TID / 32;
	float sum = 0;

	for (int b = LANE; b < n / 32; b += 32) {
		const half_block *k = &w[row * (n / 32) + b];
		float s = 0;

		for (int j = 0; j < 32; j++)
			s += (float)k->q[j] * x[b * 32 + j];
		sum += from_f16(k->d) * s;
	}
	sum = warp_sum(sum);
	if (!LANE)
		y[row] = sum;
}

KERNEL matvec_q4(float *y, const nibble_block *w, const float *x, int n)
{
	int row = CTA * (NTID / 32) + TID / 32;
	float sum = 0;

	for (int b = LANE; b < n / 32; b += 32) {
		const nibble_block *k = &w[row * (n / 32) + b];
		float s = 0;

		for (int j = 0; j < 16; j++) {
			s += (float)((k->q[j] & 15) - 8) * x[b * 32 + j];
			s += (float)((k->q[j] >> 4) - 8) * x[b * 32 + j + 16];
		}
		sum += from_f16(k->d) * s;
	}
	sum = warp_sum(sum);
	if (!LANE)
		y[row] = sum;
}

// Integer dot products of q8 with quantised activations.
KERNEL dot_q8(int *y, const int *w, const int *x, int n)
{
	int sum = 0;

	for (int i = TID; i < n; i += NTID)
		asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(w[CTA * n + i]), "r"(x[i]));
	for (int k = 16; k; k >>= 1)
		sum += __nvvm_shfl_sync_down_i32(ALL, sum, k, 31);
	if (!LANE)
		__nvvm_atom_add_gen_i(&y[CTA], sum);
}

KERNEL rope(float *x, int heads, int dim, int pos)
{
	int i = CTA * NTID + TID, half = dim / 2;

	if (i >= heads * half)
		return;
	float freq = __nvvm_ex2_approx_f(-13.287712379549449f * (float)(i % half) / (float)half);
	float a = (float)pos * freq, c = __nvvm_cos_approx_f(a), s = __nvvm_sin_approx_f(a);
	float *at = x + i / half * dim + i % half, p = at[0], q = at[half];

	at[0] = p * c - q * s;
	at[half] = p * s + q * c;
}

KERNEL softmax(float *x, int n)
{
	float *row = x + CTA * n, most = -1e30f, sum = 0;

	for (int i = TID; i < n; i += NTID) {
		dynamic[i] = row[i];
		most = row[i] > most ? row[i] : most;
	}
	for (int k = 16; k; k >>= 1) {
		float o = bits((u32)__nvvm_shfl_sync_bfly_i32(ALL, (int)bits(most), k, 31));

		most = o > most ? o : most;
	}
	if (!LANE)
		partial[TID / 32] = most;
	SYNC();
	for (int i = 0; i < NTID / 32; i++)
		most = partial[i] > most ? partial[i] : most;
	SYNC();
	for (int i = TID; i < n; i += NTID) {
		dynamic[i] = exp_of(dynamic[i] - most);
		sum += dynamic[i];
	}
	sum = block_sum(sum);
	for (int i = TID; i < n; i += NTID)
		row[i] = dynamic[i] / sum;
}

// One query, keys and values in bf16, a block for each head; online softmax.
KERNEL attention(float *out, const float *q, const bf16 *k, const bf16 *v, int n, int dim)
{
	const float *query = q + CTA * dim;
	float most = -1e30f, sum = 0, acc = 0;

	for (int i = 0; i < n; i++) {
		const bf16 *key = k + (CTA * n + i) * dim;
		float s = block_sum(TID < dim ? query[TID] * from_bf16(key[TID]) : 0);
		float m = s > most ? s : most, old = exp_of(most - m), e = exp_of(s - m);

		sum = sum * old + e;
		acc = acc * old + (TID < dim ? e * from_bf16(v[(CTA * n + i) * dim + TID]) : 0);
		most = m;
	}
	if (TID < dim)
		out[CTA * dim + TID] = acc / sum;
}

KERNEL silu(__fp16 *out, const __fp16 *gate, const __fp16 *up, int n)
{
	int i = CTA * NTID + TID;

	if (i < n) {
		float g = gate[i];

		out[i] = g / (1 + exp_of(-g)) * (float)up[i];
	}
}

KERNEL gelu(float *x, int n)
{
	int i = CTA * NTID + TID;
	float v = x[i < n ? i : 0], t;

	asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(0.7978845608f * (v + 0.044715f * v * v * v)));
	if (i < n)
		x[i] = 0.5f * v * (1 + t);
}

KERNEL embed(bf16 *out, const bf16 *table, const int *ids, int dim)
{
	for (int i = TID; i < dim; i += NTID)
		out[CTA * dim + i] = table[(long long)ids[CTA] * dim + i];
}

KERNEL argmax(u64 *best, const float *x, int n)
{
	for (int i = CTA * NTID + TID; i < n; i += NTID * (int)__nvvm_read_ptx_sreg_nctaid_x()) {
		u32 u = bits(x[i]);

		u = u & 0x80000000 ? ~u : u | 0x80000000;
		__nvvm_atom_max_gen_ull(best, (u64)u << 32 | (u32)~i);
	}
}

#define TILE 16
KERNEL gemm(float *c, const float *a, const float *b, int n)
{
	SHARED static float ta[TILE][TILE + 1], tb[TILE][TILE];
	int tx = TID, ty = (int)__nvvm_read_ptx_sreg_tid_y();
	int row = (int)__nvvm_read_ptx_sreg_ctaid_y() * TILE + ty, col = CTA * TILE + tx;
	float sum = 0;

	for (int t = 0; t < n; t += TILE) {
		ta[ty][tx] = a[row * n + t + tx];
		tb[ty][tx] = b[(t + ty) * n + col];
		SYNC();
		for (int k = 0; k < TILE; k++)
			sum = __builtin_fmaf(ta[ty][k], tb[k][tx], sum);
		SYNC();
	}
	c[row * n + col] = sum;
}

KERNEL halves(u32 *out, const u32 *a, const u32 *b, const float *f)
{
	u32 r, x = a[TID], y = b[TID];
	unsigned short h;

	asm("fma.rn.f16x2 %0, %1, %2, %1;" : "=r"(r) : "r"(x), "r"(y));
	out[TID * 8] = r;
	asm("add.f16x2 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(y));
	out[TID * 8 + 1] = r;
	asm("mul.f16x2 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(y));
	out[TID * 8 + 2] = r;
	asm("fma.rn.bf16x2 %0, %1, %2, %1;" : "=r"(r) : "r"(x), "r"(y));
	out[TID * 8 + 3] = r;
	asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(f[TID]), "f"(f[TID] * 0.3f));
	out[TID * 8 + 4] = r;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(f[TID]), "f"(f[TID] * 0.3f));
	out[TID * 8 + 5] = r;
	asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f[TID]));
	out[TID * 8 + 6] = h;
	out[TID * 8 + 7] = to_bf16(f[TID]);
}

KERNEL ints_k(struct ints *out, const u64 *a, const u64 *b)
{
	do_ints(&out[TID], a[TID], b[TID]);
}

KERNEL floats_k(struct floats *out, const float *a, const float *b, const double *c)
{
	do_floats(&out[TID], a[TID], b[TID], c[TID]);
}

KERNEL paths(u32 *out, int n)
{
	out[CTA * NTID + TID] = do_paths((u32)(CTA * NTID + TID), n);
}

// ---- calls, local memory, structs

NOINL struct pair change(struct pair p, int i)
{
	p.a += (float)p.c[i % 3];
	p.b *= 2;
	p.c[0] = i;
	return p;
}

NOINL float sum_of(const float *t, int n)
{
	float s = 0;

	for (int i = 0; i < n; i++)
		s += t[i] * (float)(i + 1);
	return s;
}

KERNEL calls(struct args a)
{
	float local[24], s = 0;
	struct pair p = a.p;

	for (int i = 0; i < 24; i++)
		local[i] = (float)(i * TID) + a.scale[i % 3];
	for (const struct node *k = a.list; k; k = k->next)
		s += (float)k->value;
	if (TID & 1)
		s += sum_of(local, a.n & 15);
	else
		s -= sum_of(local + 2, TID % 20);
	for (int i = 0; i < TID % 5; i++)
		p = change(p, i + TID);
	a.out[TID] = s + p.a + (float)p.b + (float)p.c[0];
}

// ---- variables

__attribute__((device)) int counter = 5;
__attribute__((device)) int *pointer = &counter;
__attribute__((constant)) float table[5] = { 1, 2, 3.5f, 4, -7 };
__attribute__((device)) struct { int a; const float *p; short s[3]; } mixed = { 7, &table[2], { 1, -2, 3 } };
__attribute__((device)) u32 zeros[100];

KERNEL variables(float *out)
{
	if (!TID) {
		__nvvm_atom_add_gen_i(pointer, 3);
		zeros[99] += 2;
	}
	SYNC();
	out[TID] = (float)counter + table[TID % 5] + *mixed.p + (float)mixed.s[TID % 3] +
		(float)zeros[TID] + (float)zeros[99];
}

// ---- lanes together

KERNEL warps(u32 *out)
{
	u32 *r = out + TID * 12, v = (u32)(TID * 2654435761u), d;
	bool odd = TID & 1;

	r[0] = __nvvm_vote_ballot_sync(ALL, odd);
	r[1] = (u32)__nvvm_vote_any_sync(ALL, LANE == 7) + 2 * (u32)__nvvm_vote_all_sync(ALL, LANE < 31);
	r[2] = (u32)__nvvm_shfl_sync_up_i32(ALL, (int)v, 3, 0);
	r[3] = (u32)__nvvm_shfl_sync_down_i32(ALL, (int)v, 5, 31);
	r[4] = (u32)__nvvm_shfl_sync_idx_i32(ALL, (int)v, 9, 31);
	r[5] = (u32)__nvvm_shfl_sync_idx_i32(ALL, (int)v, 1, 24 << 8 | 31);	// eight at a time
	asm volatile("match.any.sync.b32 %0, %1, %2;" : "=r"(d) : "r"(v >> 30), "r"(ALL));
	r[6] = d;
	asm volatile("redux.sync.add.u32 %0, %1, %2;" : "=r"(d) : "r"(v), "r"(ALL));
	r[7] = d;
	asm volatile("redux.sync.min.s32 %0, %1, %2;" : "=r"(d) : "r"(v), "r"(ALL));
	r[8] = d;
	// Both halves of a branch, each with its own mask; they meet again.
	if (odd)
		r[9] = (u32)__nvvm_shfl_sync_bfly_i32(0xaaaaaaaa, (int)v, 2, 31);
	else
		r[9] = __nvvm_vote_ballot_sync(0x55555555, LANE > 9);
	__nvvm_bar_warp_sync(ALL);
	// Lanes that leave at different times.
	for (int i = 0; i < LANE; i++)
		v = v * 3 + 1;
	r[10] = (u32)__nvvm_shfl_sync_idx_i32(ALL, (int)v, LANE ^ 1, 31);
	if (LANE < 20) {
		u32 m;

		asm volatile("activemask.b32 %0;" : "=r"(m));
		r[11] = m;
	} else {
		r[11] = 1;
	}
}

// ---- atomics

KERNEL atomics(u32 *g, u64 *h, float *f)
{
	u32 lock;

	if (TID < 8)
		counters[TID] = 0;
	SYNC();
	__nvvm_atom_add_gen_i(&counters[0], TID);
	__nvvm_atom_add_gen_i((int *)&g[0], 1);
	__nvvm_atom_max_gen_ui(&g[1], (u32)(TID * 7919 % 1000));
	__nvvm_atom_min_gen_i((int *)&g[2], 5 - TID);
	__nvvm_atom_or_gen_i((int *)&g[3], 1 << LANE);
	__nvvm_atom_and_gen_i((int *)&g[4], ~(1 << LANE));
	__nvvm_atom_xor_gen_i((int *)&g[5], TID);
	__nvvm_atom_add_gen_ll((long long *)&h[0], 1ll << 33);
	__nvvm_atom_max_gen_ull(&h[1], (u64)TID << 40);
	__nvvm_atom_add_gen_f(&f[0], 0.5f);
	__nvvm_atom_inc_gen_ui(&g[6], 9);
	__nvvm_atom_dec_gen_ui(&g[7], 12);
	// A lock that each thread of the warp takes in turn.
	do {
		lock = (u32)__nvvm_atom_cas_gen_i((int *)&g[8], 0, 1);
		if (!lock) {
			g[9] = g[9] * 3 + 1;
			__nvvm_membar_gl();
			__nvvm_atom_xchg_gen_i((int *)&g[8], 0);
		}
	} while (lock);
	SYNC();
	if (!TID)
		g[10] = (u32)counters[0];
}

// One warp waits for what another writes.
KERNEL waits(volatile int *flag, int *out)
{
	if (TID >= 32) {
		while (!*flag)
			;
		out[TID] = *flag;
	} else {
		for (int i = 0; i < 1000; i++)
			out[TID] = i;
		if (!TID)
			*flag = 42;
	}
}

KERNEL wild(int *p, long long off)
{
	p[off + TID] = 1;
}

KERNEL poison(u32 *out, int n)
{
	SHARED static u32 s[64];
	volatile u32 local[4];

	if (TID < n)
		s[n - TID] = 0;
	out[2 * TID] = s[TID];
	local[TID & 1] = 0;
	out[2 * TID + 1] = local[2 + (TID & 1)];
}

// Work for the clock: 8 multiplications and additions a round.
KERNEL busy(float *out, int n)
{
	float a = (float)TID, b = 1, c = 2, d = 3;

	for (int i = 0; i < n; i++) {
		a = a * 0.5f + b;
		b = b * 0.25f + c;
		c = c * 0.125f + d;
		d = d * 0.5f + a;
	}
	out[TID] = a + b + c + d;
}
