/* SPDX-License-Identifier: MIT */
/* kernels_ptx.h - what a thread computes, for the GPU's compiler and for the CPU's.
 *
 * Owns nothing. Both must come to the same bits: no function of a library, no
 * value that C leaves undefined. Lock: none.
 */
#ifndef KERNELS_PTX_H
#define KERNELS_PTX_H

#ifndef DEV
#define DEV	static inline
#endif

struct ints {
	unsigned long long u64[8];
	long long s64[8];
	unsigned int u32[12];
	int s32[8];
	unsigned short u16[6];
	short s16[6];
};

DEV void do_ints(struct ints *r, unsigned long long a, unsigned long long b)
{
	long long sa = (long long)a, sb = (long long)b;
	unsigned int ua = (unsigned int)a, ub = (unsigned int)b;
	int ia = (int)ua, ib = (int)ub;
	unsigned short ha = (unsigned short)a, hb = (unsigned short)b;
	short ja = (short)a, jb = (short)b;

	b = b ? b : 3;
	ub = ub ? ub : 5;
	hb = hb ? hb : 7;
	sb = sb == 0 || sb == -1 ? 9 : sb;
	ib = ib == 0 || ib == -1 ? 11 : ib;
	jb = jb == 0 || jb == -1 ? 13 : jb;
	r->u64[0] = a * b + 17;
	r->u64[1] = a / b;
	r->u64[2] = a % b;
	r->u64[3] = (unsigned long long)(((unsigned __int128)a * b) >> 64);
	r->u64[4] = a << (b & 63) | a >> (63 - (b & 63));
	r->u64[5] = a < b ? a ^ b : a & ~b;
	r->u64[6] = (unsigned long long)ua * ub + b;
	r->u64[7] = (unsigned long long)(((unsigned __int128)a + b) >> 3);
	r->s64[0] = sa / sb;
	r->s64[1] = sa % sb;
	r->s64[2] = sa >> (b & 63);
	r->s64[3] = sa < sb ? sa : sb;
	r->s64[4] = (long long)ia * ib;
	r->s64[5] = (long long)(((__int128)sa * sb) >> 64);
	r->s64[6] = (signed char)a + (long long)(short)b;
	r->s64[7] = sa < 0 ? (long long)(0 - a) : sa;
	r->u32[0] = ua * ub - 3;
	r->u32[1] = ua / ub;
	r->u32[2] = ua % ub;
	r->u32[3] = (unsigned int)(((unsigned long long)ua * ub) >> 32);
	r->u32[4] = ua << (ub & 31) | ua >> ((32 - (ub & 31)) & 31);
	r->u32[5] = (unsigned int)__builtin_popcount(ua) + (unsigned int)__builtin_popcountll(a);
	r->u32[6] = ua ? (unsigned int)__builtin_clz(ua) : 77;
	r->u32[7] = a ? (unsigned int)__builtin_clzll(a) : 77;
	r->u32[8] = ua ? (unsigned int)__builtin_ctz(ua) : 77;
	r->u32[9] = ua >> 5 & 0x7f;
	r->u32[10] = (ua & 0xff00ff) | (ub & 0xff00ff00);
	r->u32[11] = (unsigned int)(a > b) + 2 * (unsigned int)(sa >= sb) + 4 * (ua != ub);
	r->s32[0] = ia / ib;
	r->s32[1] = ia % ib;
	r->s32[2] = ia >> (ub & 31);
	r->s32[3] = ia < ib ? ia : ib;
	r->s32[4] = (int)(signed char)ua * (short)ub;
	r->s32[5] = (int)(((long long)ia * ib) >> 32);
	r->s32[6] = (int)(ua << 3) >> 24;
	r->s32[7] = ia > ib ? (int)(ua - ub) : (int)(ub - ua);
	r->u16[0] = (unsigned short)(ha * 3u + hb);
	r->u16[1] = (unsigned short)(ha / hb);
	r->u16[2] = (unsigned short)(ha % hb);
	r->u16[3] = (unsigned short)(ha >> (hb & 15));
	r->u16[4] = ha < hb ? ha : hb;
	r->u16[5] = (unsigned short)(ha ^ hb);
	r->s16[0] = (short)(ja / jb);
	r->s16[1] = (short)(ja % jb);
	r->s16[2] = (short)(ja >> (hb & 15));
	r->s16[3] = ja > jb ? ja : jb;
	r->s16[4] = (short)-(ja / 2);
	r->s16[5] = (short)((signed char)ja * 2);
}

struct floats {
	float f[20];
	double d[12];
	int i[8];
	unsigned int u[4];
	long long l[4];
	unsigned long long q[2];
};

/* a, b: finite, of moderate size. */
DEV void do_floats(struct floats *r, float a, float b, double c)
{
	float big = a < 0 ? -a : a;

	r->f[0] = a + b;
	r->f[1] = a - b;
	r->f[2] = a * b;
	r->f[3] = a / b;
	r->f[4] = __builtin_sqrtf(big);
	r->f[5] = __builtin_fmaf(a, b, r->f[3]);
	r->f[6] = 1.0f / b;
	r->f[7] = __builtin_floorf(a);
	r->f[8] = __builtin_ceilf(a);
	r->f[9] = __builtin_truncf(a);
	r->f[10] = __builtin_rintf(a);
	r->f[11] = a < b ? a : b;
	r->f[12] = __builtin_fabsf(b);
	r->f[13] = -a;
	r->f[14] = (float)(int)a;
	r->f[15] = (float)(unsigned int)big;
	r->f[16] = (float)(long long)(a * 1e9f);
	r->f[17] = (float)c;
	r->f[18] = __builtin_copysignf(a, b);
	r->f[19] = (float)(short)(int)b;
	r->d[0] = c + a;
	r->d[1] = c - b;
	r->d[2] = c * a;
	r->d[3] = c / b;
	r->d[4] = __builtin_sqrt(c < 0 ? -c : c);
	r->d[5] = __builtin_fma(c, (double)a, (double)b);
	r->d[6] = __builtin_floor(c);
	r->d[7] = (double)(long long)c;
	r->d[8] = (double)(unsigned long long)big;
	r->d[9] = (double)(int)a;
	r->d[10] = a;
	r->d[11] = c < a ? c : (double)a;
	r->i[0] = (int)a;
	r->i[1] = (int)__builtin_floorf(b);
	r->i[2] = a < b;
	r->i[3] = a == b;
	r->i[4] = !(a >= c);
	r->i[5] = (signed char)(int)a;
	r->i[6] = (int)c;
	r->i[7] = (int)__builtin_rintf(a);
	r->u[0] = (unsigned int)big;
	r->u[1] = (unsigned char)(unsigned int)big;
	r->u[2] = (unsigned short)(unsigned int)big;
	r->u[3] = (unsigned int)(big * 1000);
	r->l[0] = (long long)a;
	r->l[1] = (long long)(a * 1e9f);
	r->l[2] = (long long)c;
	r->l[3] = (long long)__builtin_floorf(b);
	r->q[0] = (unsigned long long)big;
	r->q[1] = (unsigned long long)(big * 1e9f);
}

/* Where lanes part in many ways. */
DEV unsigned int do_paths(unsigned int seed, int n)
{
	unsigned int x = seed, sum = 0;

	for (int i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		switch (x >> 29) {
		case 0:
			continue;
		case 1:
			sum += x >> 3;
			break;
		case 2:
			for (unsigned int k = x & 15; k; k--) {
				sum = sum * 31 + k;
				if ((sum & 63) == 5)
					break;
			}
			break;
		case 3:
			if (x & 256)
				sum ^= x;
			else if (x & 512)
				sum -= x;
			else
				return sum;
			break;
		default:
			while ((sum & 7) != (x & 7))
				sum++;
		}
		if (sum == 12345)
			break;
	}
	return sum;
}

struct half_block {
	unsigned short d;		/* f16 */
	signed char q[32];
};

struct nibble_block {
	unsigned short d;
	unsigned char q[16];
};

struct pair {
	float a;
	double b;
	int c[3];
};

struct node {
	struct node *next;
	int value;
};

struct args {
	float *out;
	const struct node *list;
	int n;
	float scale[3];
	struct pair p;
};

#endif
