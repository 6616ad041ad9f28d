/* SPDX-License-Identifier: MIT */
/* test_ptx_kernels.c - kernels that clang made PTX of, against the CPU.
 *
 * Owns device memory (ptx_test.h). (1) What a thread computes by itself comes out
 * in the same bits (kernels_ptx.h); sums of many threads to within rounding.
 * (2) The same launch gives the same bytes again, for each instruction set, and
 * from several threads at once. Without clang: skipped. Lock: none.
 */
#include "tests/emu/ptx_test.h"
#include "tests/emu/kernels_ptx.h"
#include "tests/emu/ptx_int.h"
#include "tests/emu/ptx_math.h"

#include <math.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#define CLANG \
	"clang++ -x cuda --cuda-device-only --cuda-gpu-arch=sm_80 -nocudainc -nocudalib " \
	"-Wno-unknown-cuda-version -Xclang -target-feature -Xclang +ptx70 " \
	"-ffp-contract=off -S %s -o %s tests/emu/kernels_ptx.cu"

static char *text;
static size_t text_len;

static int compile(const char *how)
{
	char out[] = "/tmp/ptx-XXXXXX", cmd[1024];
	int fd = mkstemp(out);
	FILE *f;

	if (fd < 0)
		return -1;
	snprintf(cmd, sizeof(cmd), CLANG, how, out);
	if (system(cmd)) {
		unlink(out);
		return -1;
	}
	f = fopen(out, "r");	/* another file of that name by now */
	close(fd);
	unlink(out);
	if (!f)
		return -1;
	fseek(f, 0, SEEK_END);
	text_len = (size_t)ftell(f);
	rewind(f);
	text = malloc(text_len + 1);
	if (fread(text, 1, text_len, f) != text_len)
		return -1;
	fclose(f);
	return 0;
}

static int set_up(void **state)
{
	load(text, text_len);
	place_globals();
	return 0;
}

static int tear_down(void **state)
{
	ptx_free(module);
	dev_reset();
	return 0;
}

static void near(float got, float want, float tolerance, const char *what, int i)
{
	if (!(fabsf(got - want) <= tolerance * fmaxf(1, fabsf(want))))
		fail_msg("%s %d: %.9g, not %.9g", what, i, got, want);
}

static float *random_floats(int n)
{
	float *x = malloc((size_t)n * sizeof(*x));

	for (int i = 0; i < n; i++)
		x[i] = rndf();
	return x;
}

static uint16_t *random_halves(int n, uint16_t (*of)(float))
{
	uint16_t *x = malloc((size_t)n * sizeof(*x));

	for (int i = 0; i < n; i++)
		x[i] = of(rndf());
	return x;
}

static uint16_t half(float f)
{
	return f16_of(f);
}

static uint16_t brain(float f)
{
	return bf16_of(f);
}

/* ---- layers ------------------------------------------------------------------- */

static void rmsnorm(void **state)
{
	enum { ROWS = 3, N = 328 };
	uint16_t *x = random_halves(ROWS * N, brain);
	float *w = random_floats(N);
	uint64_t out = dev(NULL, ROWS * N * 2);
	struct pack p;

	launched("rmsnorm", ROWS, 96, 0,
		 pack_of(&p, "pppi", out, dev(x, ROWS * N * 2), dev(w, N * 4), N));
	for (int r = 0; r < ROWS; r++) {
		double sum = 0;

		for (int i = 0; i < N; i++)
			sum += (double)bf16_to(x[r * N + i]) * bf16_to(x[r * N + i]);
		for (int i = 0; i < N; i++)
			near(bf16_to(((uint16_t *)host(out))[r * N + i]),
			     (float)(bf16_to(x[r * N + i]) / sqrt(sum / N + 1e-5)) * w[i], 0.005f,
			     "rmsnorm", i);
	}
	free(x);
	free(w);
}

static float weight(const void *w, int format, int n, int row, int i)
{
	const struct half_block *b8 = (const struct half_block *)w + (row * n + i) / 32;
	const struct nibble_block *b4 = (const struct nibble_block *)w + (row * n + i) / 32;

	switch (format) {
	case 0: return ((const float *)w)[row * n + i];
	case 1: return f16_to(((const uint16_t *)w)[row * n + i]);
	case 2: return bf16_to(((const uint16_t *)w)[row * n + i]);
	case 3: return f16_to(b8->d) * b8->q[i % 32];
	default:
		return f16_to(b4->d) *
			(((i % 32 < 16 ? b4->q[i % 16] : b4->q[i % 16] >> 4) & 15) - 8);
	}
}

static void *weights(int format, int n, size_t *bytes)
{
	void *w;

	*bytes = (size_t)n * 4;
	if (format == 0)
		return random_floats(n);
	*bytes = (size_t)n * 2;
	if (format <= 2)
		return random_halves(n, format == 1 ? half : brain);
	*bytes = (size_t)n / 32 * (format == 3 ? sizeof(struct half_block) : sizeof(struct nibble_block));
	w = malloc(*bytes);
	for (size_t i = 0; i < *bytes; i++)
		((uint8_t *)w)[i] = (uint8_t)rnd();
	for (int b = 0; b < n / 32; b++) {
		if (format == 3)
			((struct half_block *)w)[b].d = f16_of(rndf() / 64);
		else
			((struct nibble_block *)w)[b].d = f16_of(rndf() / 8);
	}
	return w;
}

static void matvec(void **state)
{
	static const char *const names[] = { "matvec_f32", "matvec_f16", "matvec_bf16",
					     "matvec_q8", "matvec_q4" };
	enum { ROWS = 24, N = 1056 };
	float *x = random_floats(N);
	uint64_t dx = dev(x, N * 4);

	for (int f = 0; f < 5; f++) {
		size_t bytes;
		void *w = weights(f, ROWS * N, &bytes);
		uint64_t y = dev(NULL, ROWS * 4);
		struct pack p;

		launched(names[f], ROWS / 8, 256, 0, pack_of(&p, "pppi", y, dev(w, bytes), dx, N));
		for (int r = 0; r < ROWS; r++) {
			double sum = 0;

			for (int i = 0; i < N; i++)
				sum += (double)weight(w, f, N, r, i) * x[i];
			near(((float *)host(y))[r], (float)sum, 1e-4f, names[f], r);
		}
		free(w);
	}
	free(x);
}

static void dot_q8(void **state)
{
	enum { ROWS = 4, N = 300 };
	int8_t w[ROWS * N * 4], x[N * 4];
	int zero[ROWS] = { 0 };
	uint64_t y = dev(zero, sizeof(zero));
	struct pack p;

	for (size_t i = 0; i < sizeof(w); i++)
		w[i] = (int8_t)rnd();
	for (size_t i = 0; i < sizeof(x); i++)
		x[i] = (int8_t)rnd();
	launched("dot_q8", ROWS, 64, 0,
		 pack_of(&p, "pppi", y, dev(w, sizeof(w)), dev(x, sizeof(x)), N));
	for (int r = 0; r < ROWS; r++) {
		int sum = 0;

		for (int i = 0; i < N * 4; i++)
			sum += w[r * N * 4 + i] * x[i];
		assert_int_equal(((int *)host(y))[r], sum);
	}
}

static void rope(void **state)
{
	enum { HEADS = 3, DIM = 64 };
	float *x = random_floats(HEADS * DIM);
	uint64_t d = dev(x, HEADS * DIM * 4);
	struct pack p;

	launched("rope", 2, 64, 0, pack_of(&p, "piii", d, HEADS, DIM, 37));
	for (int h = 0; h < HEADS; h++) {
		for (int i = 0; i < DIM / 2; i++) {
			float *a = x + h * DIM + i;
			double t = 37 * pow(10000, -2.0 * i / DIM);

			near(((float *)host(d))[h * DIM + i],
			     (float)(a[0] * cos(t) - a[DIM / 2] * sin(t)), 1e-5f, "rope", i);
			near(((float *)host(d))[h * DIM + i + DIM / 2],
			     (float)(a[0] * sin(t) + a[DIM / 2] * cos(t)), 1e-5f, "rope", i);
		}
	}
	free(x);
}

static void softmax(void **state)
{
	enum { ROWS = 2, N = 500 };
	float *x = random_floats(ROWS * N);
	uint64_t d = dev(x, ROWS * N * 4);
	struct pack p;

	launched("softmax", ROWS, 128, N * 4, pack_of(&p, "pi", d, N));
	for (int r = 0; r < ROWS; r++) {
		double sum = 0;

		for (int i = 0; i < N; i++)
			sum += exp(x[r * N + i]);
		for (int i = 0; i < N; i++)
			near(((float *)host(d))[r * N + i], (float)(exp(x[r * N + i]) / sum), 1e-6f,
			     "softmax", i);
	}
	free(x);
}

static void attention(void **state)
{
	enum { HEADS = 2, N = 19, DIM = 48 };
	uint16_t *k = random_halves(HEADS * N * DIM, brain);
	uint16_t *v = random_halves(HEADS * N * DIM, brain);
	float *q = random_floats(HEADS * DIM);
	uint64_t out = dev(NULL, HEADS * DIM * 4);
	struct pack p;

	launched("attention", HEADS, 64, 0,
		 pack_of(&p, "ppppii", out, dev(q, HEADS * DIM * 4), dev(k, HEADS * N * DIM * 2),
			 dev(v, HEADS * N * DIM * 2), N, DIM));
	for (int h = 0; h < HEADS; h++) {
		double e[N], sum = 0;

		for (int i = 0; i < N; i++) {
			double s = 0;

			for (int j = 0; j < DIM; j++)
				s += (double)q[h * DIM + j] * bf16_to(k[(h * N + i) * DIM + j]);
			sum += e[i] = exp(s);
		}
		for (int j = 0; j < DIM; j++) {
			double want = 0;

			for (int i = 0; i < N; i++)
				want += e[i] / sum * bf16_to(v[(h * N + i) * DIM + j]);
			near(((float *)host(out))[h * DIM + j], (float)want, 1e-4f, "attention", j);
		}
	}
	free(k);
	free(v);
	free(q);
}

static void activations(void **state)
{
	enum { N = 200 };
	uint16_t *g = random_halves(N, half), *u = random_halves(N, half);
	float *x = random_floats(N);
	uint64_t out = dev(NULL, N * 2), dx = dev(x, N * 4);
	struct pack p;

	launched("silu", 2, 128, 0,
		 pack_of(&p, "pppi", out, dev(g, N * 2), dev(u, N * 2), N));
	launched("gelu", 2, 128, 0, pack_of(&p, "pi", dx, N));
	for (int i = 0; i < N; i++) {
		double a = f16_to(g[i]), v = x[i];

		near(f16_to(((uint16_t *)host(out))[i]), (float)(a / (1 + exp(-a))) * f16_to(u[i]),
		     1e-3f, "silu", i);
		near(((float *)host(dx))[i],
		     (float)(0.5 * v * (1 + tanh(0.7978845608 * (v + 0.044715 * v * v * v)))), 1e-6f,
		     "gelu", i);
	}
	free(g);
	free(u);
	free(x);
}

static void lookups(void **state)
{
	enum { DIM = 100, ROWS = 9, N = 1000 };
	uint16_t *t = random_halves(DIM * ROWS, brain);
	const int ids[4] = { 8, 0, 3, 8 };
	float *x = random_floats(N);
	uint64_t out = dev(NULL, 4 * DIM * 2), best = dev(&(uint64_t){ 0 }, 8);
	struct pack p;
	int at = 0;

	launched("embed", 4, 32, 0,
		 pack_of(&p, "pppi", out, dev(t, DIM * ROWS * 2), dev(ids, sizeof(ids)), DIM));
	for (int i = 0; i < 4; i++)
		assert_memory_equal((uint16_t *)host(out) + i * DIM, t + ids[i] * DIM, DIM * 2);
	launched("argmax", 3, 64, 0, pack_of(&p, "ppi", best, dev(x, N * 4), N));
	for (int i = 0; i < N; i++)
		at = x[i] > x[at] ? i : at;
	assert_int_equal(~(uint32_t)*(uint64_t *)host(best), at);
	free(t);
	free(x);
}

static void gemm(void **state)
{
	enum { N = 48 };
	const unsigned grid[3] = { N / 16, N / 16, 1 }, block[3] = { 16, 16, 1 };
	float *a = random_floats(N * N), *b = random_floats(N * N);
	uint64_t c = dev(NULL, N * N * 4);
	struct pack p;

	assert_int_equal(launch3("gemm", grid, block, 0,
				 pack_of(&p, "pppi", c, dev(a, N * N * 4), dev(b, N * N * 4), N)),
			 0);
	for (int i = 0; i < N * N; i++) {
		float sum = 0;

		for (int k = 0; k < N; k++)
			sum = fmaf(a[i / N * N + k], b[k * N + i % N], sum);
		assert_true(((float *)host(c))[i] == sum);
	}
	free(a);
	free(b);
}

/* ---- one thread's values ------------------------------------------------------------ */

static void integers(void **state)
{
	enum { N = 512 };
	uint64_t a[N], b[N], out = dev(NULL, N * sizeof(struct ints));
	const uint64_t edges[] = { 0, 1, ~0ull, 1ull << 63, 0x7fffffff, 0x80000000, 0xffffffff,
				   0x8000, 0xffff8000, 0x7fffffffffffffff, 63, 0x100000000 };
	struct pack p;

	for (int i = 0; i < N; i++) {
		a[i] = i < 144 ? edges[i / 12] : rnd() >> (rnd() & 63);
		b[i] = i < 144 ? edges[i % 12] : rnd() >> (rnd() & 63);
	}
	launched("ints_k", 1, N, 0, pack_of(&p, "ppp", out, dev(a, sizeof(a)), dev(b, sizeof(b))));
	for (int i = 0; i < N; i++) {
		struct ints want, *got = (struct ints *)host(out) + i;

		memset(&want, 0xa5, sizeof(want));
		do_ints(&want, a[i], b[i]);
		for (size_t k = 0; k < sizeof(want) / 2; k++)
			if (((uint16_t *)&want)[k] != ((uint16_t *)got)[k])
				fail_msg("%d: byte %zu of %lx, %lx", i, 2 * k, a[i], b[i]);
	}
}

static void floats(void **state)
{
	enum { N = 512 };
	float a[N], b[N];
	double c[N];
	uint64_t out = dev(NULL, N * sizeof(struct floats));
	struct pack p;

	for (int i = 0; i < N; i++) {
		a[i] = ldexpf(rndf(), (int)(rnd() % 40) - 25);
		b[i] = i % 16 ? ldexpf(rndf(), (int)(rnd() % 30) - 20) : a[i];
		c[i] = ldexp(rndf() + rndf() / (1 << 24), (int)(rnd() % 60) - 30);
		if (i % 7 == 0)
			a[i] = (float)(int)(rnd() % 33) / 2;
	}
	launched("floats_k", 1, N, 0, pack_of(&p, "pppp", out, dev(a, sizeof(a)), dev(b, sizeof(b)),
					      dev(c, sizeof(c))));
	for (int i = 0; i < N; i++) {
		struct floats want, *got = (struct floats *)host(out) + i;

		memset(&want, 0xa5, sizeof(want));
		do_floats(&want, a[i], b[i], c[i]);
		for (size_t k = 0; k < sizeof(want) / 4; k++)
			if (((uint32_t *)&want)[k] != ((uint32_t *)got)[k])
				fail_msg("%d: word %zu of %a, %a, %a: %08x, not %08x", i, k, a[i],
					 b[i], c[i], ((uint32_t *)got)[k], ((uint32_t *)&want)[k]);
	}
}

static void half_values(void **state)
{
	enum { N = 1024 };
	uint32_t a[N], b[N];
	float f[N];
	uint64_t out = dev(NULL, N * 32);
	struct pack p;

	for (int i = 0; i < N; i++) {
		a[i] = (uint32_t)rnd();
		b[i] = (uint32_t)rnd();
		f[i] = ldexpf(rndf(), (int)(rnd() % 60) - 40);
	}
	launched("halves", 1, N, 0, pack_of(&p, "pppp", out, dev(a, sizeof(a)), dev(b, sizeof(b)),
					    dev(f, sizeof(f))));
	for (int i = 0; i < N; i++) {
		const uint16_t *got = (uint16_t *)host(out) + 16 * i;

		for (int k = 0; k < 2; k++) {
			_Float16 x, y, z;
			uint16_t ha = (uint16_t)(a[i] >> 16 * k), hb = (uint16_t)(b[i] >> 16 * k);
			_Float16 want[4];
			float g = k ? f[i] : f[i] * 0.3f;

			memcpy(&x, &ha, 2);
			memcpy(&y, &hb, 2);
			/* Exact in long double, so that it is rounded once. */
			want[0] = (_Float16)((long double)x * y + (long double)x);
			want[1] = x + y;
			want[2] = x * y;
			want[3] = (_Float16)g;
			for (int j = 0; j < 4; j++) {
				uint16_t w, v = got[2 * (j < 3 ? j : 4) + k];

				memcpy(&w, &want[j], 2);
				z = want[j];
				w = z != z ? 0x7fff : w;
				if (v != w)
					fail_msg("%d.%d: %04x %04x: %04x, not %04x", i, j, ha, hb, v, w);
			}
			assert_int_equal(got[10 + k], bf16_of(g));
		}
		assert_int_equal(got[12], f16_of(f[i]));
		assert_int_equal(got[14], bf16_of(f[i]));
	}
}

static void diverging(void **state)
{
	enum { N = 1024 };
	uint64_t out = dev(NULL, N * 4);
	struct pack p;

	launched("paths", 4, 256, 0, pack_of(&p, "pi", out, 200));
	for (int i = 0; i < N; i++)
		assert_int_equal(((uint32_t *)host(out))[i], do_paths((uint32_t)i, 200));
}

/* ---- calls, variables ------------------------------------------------------------------- */

static struct pair change(struct pair p, int i)
{
	p.a += (float)p.c[i % 3];
	p.b *= 2;
	p.c[0] = i;
	return p;
}

static void calls(void **state)
{
	struct { uint64_t next; int value; } n[3] = { { 0, 5 }, { 0, 70 }, { 0, -3 } };
	struct { uint64_t out, list; int n; float scale[3]; struct pair p; } a = {
		.n = 21, .scale = { 0.5f, 0.25f, 3 }, .p = { 1.5f, 2.25, { 4, 5, 6 } } };
	uint64_t at = 0;

	for (int i = 0; i < 3; i++) {
		n[i].next = at;
		at = dev(&n[i], sizeof(n[i]));
	}
	a.list = at;
	a.out = dev(NULL, 96 * 4);
	launched("calls", 1, 96, 0, &a);
	for (int t = 0; t < 96; t++) {
		float local[24], s = 0, sum = 0;
		struct pair p = a.p;

		for (int i = 0; i < 24; i++)
			local[i] = (float)(i * t) + a.scale[i % 3];
		s = 72;
		for (int i = 0; i < (t & 1 ? a.n & 15 : t % 20); i++)
			sum += local[t & 1 ? i : i + 2] * (float)(i + 1);
		s = t & 1 ? s + sum : s - sum;
		for (int i = 0; i < t % 5; i++)
			p = change(p, i + t);
		near(((float *)host(a.out))[t], s + p.a + (float)p.b + (float)p.c[0], 0, "calls", t);
	}
}

static void variables(void **state)
{
	static const float table[] = { 1, 2, 3.5f, 4, -7 };
	static const int s[] = { 1, -2, 3 };
	uint64_t out = dev(NULL, 100 * 4);
	struct pack p;

	launched("variables", 1, 100, 0, pack_of(&p, "p", out));
	launched("variables", 1, 100, 0, pack_of(&p, "p", out));
	for (int t = 0; t < 100; t++)
		near(((float *)host(out))[t],
		     11 + table[t % 5] + 3.5f + (float)s[t % 3] + (t == 99 ? 4 : 0) + 4, 0,
		     "variables", t);
}

/* ---- lanes together ------------------------------------------------------------------------ */

static void warps(void **state)
{
	enum { N = 64 };
	uint64_t out = dev(NULL, N * 48);
	struct pack p;

	launched("warps", 1, N, 0, pack_of(&p, "p", out));
	for (uint32_t t = 0; t < N; t++) {
		const uint32_t *r = (uint32_t *)host(out) + 12 * t;
		uint32_t lane = t & 31, first = t - lane, same = 0, sum = 0, v, n;
		int least = INT32_MAX;
#define V(l)	((first + (uint32_t)(l)) * 2654435761u)
		for (uint32_t l = 0; l < 32; l++) {
			same |= (uint32_t)(V(l) >> 30 == V(lane) >> 30) << l;
			sum += V(l);
			least = (int)V(l) < least ? (int)V(l) : least;
		}
		assert_int_equal(r[0], 0xaaaaaaaa);
		assert_int_equal(r[1], 1);
		assert_int_equal(r[2], V(lane < 3 ? lane : lane - 3));
		assert_int_equal(r[3], V(lane + 5 > 31 ? lane : lane + 5));
		assert_int_equal(r[4], V(9));
		assert_int_equal(r[5], V((lane & 24) | 1));
		assert_int_equal(r[6], same);
		assert_int_equal(r[7], sum);
		assert_int_equal((int)r[8], least);
		assert_int_equal(r[9], t & 1 ? V(lane ^ 2) : 0x55555400);
		n = lane ^ 1;
		v = V(n);
		for (uint32_t i = 0; i < n; i++)
			v = v * 3 + 1;
		assert_int_equal(r[10], v);
		assert_int_equal(r[11], lane < 20 ? 0xfffff : 1);
	}
}

static void atomics(void **state)
{
	uint32_t g[11] = { 0, 0, 0, 0, ~0u, 0, 3, 5, 0, 0, 0 }, n = 0, x = 0, most = 0;
	uint64_t h[2] = { 7, 0 }, dg = dev(g, sizeof(g)), dh = dev(h, sizeof(h));
	uint64_t f = dev(&(float){ 1 }, 4);
	const uint32_t *r;
	struct pack p;
	uint32_t inc = 3, dec = 5;

	launched("atomics", 1, 96, 0, pack_of(&p, "ppp", dg, dh, f));
	r = host(dg);
	for (uint32_t t = 0; t < 96; t++) {
		x ^= t;
		most = t * 7919 % 1000 > most ? t * 7919 % 1000 : most;
		n = n * 3 + 1;
		inc = inc >= 9 ? 0 : inc + 1;
		dec = !dec || dec > 12 ? 12 : dec - 1;
	}
	assert_int_equal(r[0], 96);
	assert_int_equal(r[1], most);
	assert_int_equal((int)r[2], 5 - 95);
	assert_int_equal(r[3], ~0u);
	assert_int_equal(r[4], 0);
	assert_int_equal(r[5], x);
	assert_int_equal(r[6], inc);
	assert_int_equal(r[7], dec);
	assert_int_equal(r[8], 0);
	assert_int_equal(r[9], n);
	assert_int_equal(r[10], 95 * 96 / 2);
	assert_true(((uint64_t *)host(dh))[0] == 7 + 96 * (1ull << 33));
	assert_true(((uint64_t *)host(dh))[1] == 95ull << 40);
	near(*(float *)host(f), 49, 0, "atomic f32", 0);
}

static void waits(void **state)
{
	uint64_t flag = dev(&(int){ 0 }, 4), out = dev(NULL, 64 * 4);
	struct pack p;

	launched("waits", 1, 64, 0, pack_of(&p, "pp", flag, out));
	for (int i = 0; i < 64; i++)
		assert_int_equal(((int *)host(out))[i], i < 32 ? 999 : 42);
}

/* ---- rules --------------------------------------------------------------------------------- */

static void wild(void **state)
{
	uint64_t d = dev(NULL, 40 * 4);
	struct pack p;

	launched("wild", 1, 40, 0, pack_of(&p, "pl", d, (uint64_t)0));
	assert_int_equal(launch("wild", 1, 40, 0, pack_of(&p, "pl", d, (uint64_t)1)), -EFAULT);
	assert_string_equal(fault.kernel, "wild");
	assert_true(fault.addr == d + 160 && fault.size == 4 && fault.write);
	assert_non_null(strstr(fault.why, "illegal"));
	assert_non_null(strstr(fault.why, "thread 39,0,0"));
	assert_int_equal(launch("wild", 1, 1, 0, pack_of(&p, "pl", d + 2, (uint64_t)0)), -EFAULT);
	assert_non_null(strstr(fault.why, "misaligned"));
	assert_int_equal(launch("wild", 1, 1, 0, pack_of(&p, "pl", (uint64_t)0, (uint64_t)0)), -EFAULT);
	assert_true(fault.addr == 0);
	/* What was reachable in the last launch is not in the next. */
	blocks[nblocks - 1].freed = true;
	assert_int_equal(launch("wild", 1, 1, 0, pack_of(&p, "pl", d, (uint64_t)0)), -EFAULT);
	blocks[nblocks - 1].freed = false;
	blocks[nblocks - 1].read_only = true;
	assert_int_equal(launch("wild", 1, 1, 0, pack_of(&p, "pl", d, (uint64_t)0)), -EFAULT);
}

static void poison(void **state)
{
	uint64_t out = dev(NULL, 64 * 8);
	struct pack p;

	launched("poison", 1, 64, 0, pack_of(&p, "pi", out, 0));
	for (int i = 0; i < 128; i++)
		assert_int_equal(((uint32_t *)host(out))[i], 0x7f7f7f7f);
}

/* ---- the same again -------------------------------------------------------------------------- */

struct again {
	uint64_t a, b, c, out;
	int err;
};

static void *one_more(void *arg)
{
	struct again *g = arg;
	const unsigned one[3] = { 1, 1, 1 }, threads[3] = { 256, 1, 1 };
	struct ptx_fault mine;
	struct pack p;

	g->err = ptx_run(ptx_kernel(module, "floats_k"), one, threads, 0,
			 pack_of(&p, "pppp", g->out, g->a, g->b, g->c), &mem, &mine);
	return NULL;
}

/* Several threads at once, and each instruction set. */
static void same_again(void **state)
{
	enum { N = 256, SIZE = N * (int)sizeof(struct floats) };
	struct again g[5];
	pthread_t id[3];
	float *a = random_floats(N), *b = random_floats(N);
	double c[N];

	for (int i = 0; i < N; i++)
		c[i] = rndf();
	for (int i = 0; i < 5; i++)
		g[i] = (struct again){ dev(a, N * 4), dev(b, N * 4), dev(c, N * 8), dev(NULL, SIZE), 0 };
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&id[i], NULL, one_more, &g[i]), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_join(id[i], NULL), 0);
	for (int i = 3; i < 5; i++) {
		static const int levels[] = { 1, 3 };
		struct ptx_module *kept = module;

		ptx_level_most = levels[i - 3];
		load(text, text_len);
		one_more(&g[i]);
		ptx_free(module);
		module = kept;
	}
	ptx_level_most = 3;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(g[i].err, 0);
		assert_memory_equal(host(g[i].out), host(g[0].out), SIZE);
	}
	free(a);
	free(b);
}

/* ---- how fast --------------------------------------------------------------------------------- */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Only said, and only if it was asked for: PTX_SPEED=1. */
static void speed(const char *name, unsigned grid, unsigned block, const void *params)
{
	uint64_t n = ptx_instructions();
	double from = seconds(), t;

	launched(name, grid, block, 0, params);
	t = seconds() - from;
	print_message("%-12s %8.1f M instructions, %.3f s, %.0f M/s\n", name,
		      (double)(ptx_instructions() - n) / 1e6, t,
		      (double)(ptx_instructions() - n) / t / 1e6);
}

static void speeds(void **state)
{
	static const char *const names[] = { "matvec_f32", "matvec_f16", "matvec_bf16",
					     "matvec_q8", "matvec_q4" };
	enum { ROWS = 512, N = 4096 };
	uint64_t dx, y;
	struct pack p;
	float *x;

	if (!getenv("PTX_SPEED"))
		skip();
	x = random_floats(N);
	dx = dev(x, N * 4);
	y = dev(NULL, ROWS * 4);
	speed("busy", 4, 256, pack_of(&p, "pi", dx, 20000));
	for (int f = 0; f < 5; f++) {
		size_t bytes;
		void *w = weights(f, ROWS * N, &bytes);

		speed(names[f], ROWS / 8, 256, pack_of(&p, "pppi", y, dev(w, bytes), dx, N));
		free(w);
	}
	free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f)	cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		T(rmsnorm), T(matvec), T(dot_q8), T(rope), T(softmax), T(attention),
		T(activations), T(lookups), T(gemm), T(integers), T(floats), T(half_values),
		T(diverging), T(calls), T(variables), T(warps), T(atomics), T(waits), T(wild),
		T(poison), T(same_again), T(speeds),
	};
	/* Not optimised: calls, and all variables in local memory. */
	static const char *const how[] = { "-O2", "-O0" };
	int r = 0;

	if (system("clang++ --version >/dev/null 2>&1")) {
		print_message("clang++ is missing\n");
		return 77;
	}
	for (size_t i = 0; i < sizeof(how) / sizeof(*how); i++) {
		if (compile(how[i])) {
			print_message("clang++ cannot make PTX\n");
			return 77;
		}
		print_message("# %s\n", how[i]);
		r += cmocka_run_group_tests(tests, NULL, NULL);
		free(text);
	}
	return r;
}
