/* SPDX-License-Identifier: MIT */
/* test_ptx_text.c - PTX text that is wrong, or asks for what cannot be; barriers.
 *
 * Owns device memory (ptx_test.h). (1) No text makes the parser crash: cut off at
 * every byte, bytes of it changed at random (PTX_SEEDS says how often). (2) What
 * cannot be run fails its kernel only, and is named. (3) Threads that wait for
 * each other are found. Lock: none.
 */
#include "tests/emu/ptx_test.h"

#define HEAD	".version 7.0\n.target sm_80\n.address_size 64\n"

/* A bit of everything. */
static const char sample[] = HEAD
	"/* comment */ // another\n"
	".extern .func (.param .b32 r) outside(.param .b32 a);\n"
	".visible .global .align 4 .u32 counter = 5;\n"
	".visible .global .align 8 .u64 pointers[3] = {generic(counter), counter+4, 0};\n"
	".global .f32 fl[2] = {0f3F800000, 1.5};\n"
	".const .align 2 .b8 k[4] = {1, -2, 0x3, 0b1};\n"
	".const .b8 nested[2][2] = {{1, 2}, {3, 4}};\n"
	".shared .align 8 .b8 s[16];\n.extern .shared .align 16 .b8 dyn[];\n"
	".func (.param .align 8 .b8 ret[16]) twice(.param .align 8 .b8 arg[16], .param .u32 n)\n{\n"
	".reg .b64 %rd<5>;\n.reg .b32 %r<3>;\nld.param.u64 %rd1, [arg];\nld.param.u32 %r1, [n];\n"
	"cvt.u64.u32 %rd2, %r1;\nmul.lo.s64 %rd1, %rd1, %rd2;\nst.param.b64 [ret+0], %rd1;\n"
	"st.param.b64 [ret+8], %rd2;\nret;\n}\n"
	".visible .entry all(\n.param .u64 .ptr .global .align 8 o,\n.param .u32 n,\n"
	".param .align 8 .b8 st[24]\n)\n.maxntid 64, 1, 1\n.minnctapersm 2\n{\n"
	".local .align 8 .b8 depot[32];\n.reg .pred %p<4>;\n.reg .b32 %r<9>;\n.reg .b64 %rd<9>;\n"
	".reg .f32 %f<4>;\n.reg .b16 %rs<4>;\n.loc 1 2 3\n"
	"ld.param.u64 %rd1, [o];\nld.param.u32 %r1, [n];\nld.param.v2.u32 {%r7, _}, [st+8];\n"
	"mov.u32 %r2, %tid.x;\nmov.u32 %r3, 0;\nmov.f32 %f1, 0f40000000;\n"
	"LOOP:\n.pragma \"nounroll\";\nadd.s32 %r3, %r3, 1;\nsetp.lt.and.s32 %p1|%p2, %r3, %r1, !%p3;\n"
	"@%p1 bra LOOP;\n@!%p2 bra.uni NEXT;\nNEXT:\n"
	"{ // a call\n.param .align 8 .b8 a0[16];\n.param .b32 a1;\n.param .align 8 .b8 r0[16];\n"
	"st.param.b64 [a0+0], 7;\nst.param.b64 [a0+8], %rd1;\nst.param.b32 [a1+0], %r3;\n"
	"call.uni (r0), twice, (a0, a1);\nld.param.b64 %rd3, [r0+0];\n}\n"
	"shfl.sync.bfly.b32 %r4|%p3, %r2, 1, 0x1f, 0xffffffff;\nvote.sync.ballot.b32 %r5, %p3, -1;\n"
	"bar.sync 0;\natom.shared.add.u32 %r6, [s+4], 1;\nred.global.add.f32 [%rd1+-4], 0f3F800000;\n"
	"st.local.v4.u32 [depot], {%r1, %r2, %r3, 4};\nmov.b32 {%rs1, %rs2}, %r3;\n"
	"mad.wide.u32 %rd2, %r2, 8, %rd1;\nst.global.u64 [%rd2], %rd3;\n@%p1 exit;\nret;\n}\n";

static int parses(const char *text, size_t len, char *err, size_t errlen)
{
	struct ptx_module *m;
	/* Where reading on is seen. */
	char *copy = malloc(len ? len : 1);
	int r;

	memcpy(copy, text, len);
	r = ptx_parse(copy, len, &m, err, errlen);
	free(copy);
	assert_true(!r == !!m);
	ptx_free(m);
	return r;
}

static void cut_off(void **state)
{
	char err[100];
	size_t whole = sizeof(sample) - 1;
	int good = 0;

	assert_int_equal(parses(sample, whole, err, sizeof(err)), 0);
	for (size_t n = 0; n < whole; n++) {
		err[0] = 0;
		if (!parses(sample, n, err, sizeof(err)))
			good++;
		else
			assert_true(err[0]);
	}
	/* In the head, in comments, between two declarations, and no more. */
	assert_in_range(good, 50, 150);
}

static void changed_at_random(void **state)
{
	const char *seeds = getenv("PTX_SEEDS");
	int n = seeds ? atoi(seeds) : 4000, good = 0;
	char text[sizeof(sample)], err[100];

	print_message("# PTX_SEEDS=%d\n", n);
	for (int i = 0; i < n; i++) {
		size_t len = sizeof(sample) - 1;

		memcpy(text, sample, len);
		for (int k = (int)(rnd() % 4); k >= 0; k--) {
			size_t at = rnd() % len, from = rnd() % len, m = rnd() % 24;

			switch (rnd() % 4) {
			case 0:
				text[at] = (char)rnd();
				break;
			case 1:
				text[at] = "{}[]();,.:%0123456789"[rnd() % 21];
				break;
			case 2:
				m = at + m > len ? len - at : m;
				memmove(text + at, text + at + m, len - at - m);
				len -= m;
				len += !len;
				break;
			default:
				m = at + m > len ? len - at : m;
				m = from + m > len ? len - from : m;
				memmove(text + at, text + from, m);
			}
		}
		good += !parses(text, len, err, sizeof(err));
	}
	assert_true(good > 0);
}

static void refused(void **state)
{
	static const struct {
		const char *text, *says;
	} wrong[] = {
		{ "", "empty" },
		{ ".target sm_80\n", ".version" },
		{ HEAD ".address_size 32\n", "64 bits" },
		{ HEAD ".entry f()\n{\nadd.s32 %r1, %r1, 1;\n}", "line 6: %r1 is not declared" },
		{ HEAD ".entry f()\n{\n.reg .b32 a;\nbra nowhere;\n}", "line 7: no label nowhere" },
		{ HEAD ".entry f()\n{\n.reg .b32 a;\nadd.s32 a, a;\n}", "operands" },
		{ HEAD ".entry f()\n{\n.reg .b32 a;\n.reg .b64 b;\nadd.s32 a, a, b;\n}", "size" },
		{ HEAD ".entry f()\n{\n.reg .b32 a;\nld.u64 a, [a];\n}", "narrow" },
		{ HEAD ".entry f()\n{\n.reg .b32 a;\nadd.s32 a, a, 1\n}", "expected" },
		{ HEAD ".entry f()\n{\n.reg .b32 a;\n@a bra x;\n}", "no predicate" },
		{ HEAD ".entry f()\n{\nret;\n", "ends within f" },
		{ HEAD ".entry f()\n{\nret;\n}\n.entry f()\n{\nret;\n}\n", "twice" },
		{ HEAD ".global .u32 a;\n.global .u32 a;\n", "twice" },
		{ HEAD ".global .u32 a[2] = {1, 2, 3};\n", "too long" },
		{ HEAD ".global .u32 a[2] = {1, b};\n", "not known" },
		{ HEAD ".global .u32 a = 08;\n", "no constant" },
		{ HEAD ".global .b8 a[99999999999][99999999999];\n", "too large" },
		{ HEAD ".global .align 3 .b8 a;\n", "power of two" },
		{ HEAD ".entry f(.param .b8 a[40000])\n{\nret;\n}\n", "too large" },
		{ HEAD ".entry f()\n{\n.local .b8 a[9999999];\nret;\n}\n", "local memory" },
		{ HEAD ".entry f()\n{\ncall g;\n}\n", "no function g" },
		{ HEAD ".func g(.param .b32 a);\n.entry f()\n{\ncall g;\n}\n", "as many arguments" },
	};
	char err[100];

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		assert_int_equal(parses(wrong[i].text, strlen(wrong[i].text), err, sizeof(err)),
				 -EINVAL);
		if (!strstr(err, wrong[i].says))
			fail_msg("%s: \"%s\", not \"%s\"", wrong[i].text, err, wrong[i].says);
	}
}

/* ---- what cannot be run ------------------------------------------------------- */

static void load_text(const char *body)
{
	char *text;
	int n = asprintf(&text, HEAD "%s", body);

	assert_true(n > 0);
	load(text, (size_t)n);
	place_globals();
	free(text);
}

static void unload(void)
{
	ptx_free(module);
	module = NULL;
	dev_reset();
}

#define STORE	"ld.param.u64 O, [o];\nmov.u32 t, %tid.x;\nmad.wide.u32 O, t, 4, O;\n"
#define ENTRY(name) \
	".entry " name "(.param .u64 o)\n{\n.reg .b64 O, A;\n.reg .b32 t, a, b, c, d;\n" \
	".reg .pred p, q, r;\n" STORE

static void unsupported(void **state)
{
	static const struct {
		const char *name, *says;
	} bad[] = {
		{ "f1", "wmma.load.a.sync.row.m16n16k16.f16" },
		{ "f2", "recursion of down" },
		{ "f3", "tex.2d.v4.f32.f32" },
		{ "f4", "no body of outside" },
		{ "f5", "add.strange.s32" },
		{ "f6", "by its address" },
		{ "f7", "external variable" },
	};
	uint64_t out;
	struct pack p;

	load_text(".extern .func outside(.param .b32 a);\n.extern .global .u32 ext;\n"
		  ".func up(.param .b32 a);\n.func down(.param .b32 a)\n{\n.param .b32 x;\ncall up, (x);\nret;\n}\n"
		  ".func up(.param .b32 a)\n{\n.param .b32 x;\ncall down, (x);\nret;\n}\n"
		  ENTRY("f1") "wmma.load.a.sync.row.m16n16k16.f16 {a, b}, [O], t;\nret;\n}\n"
		  ENTRY("f2") ".param .b32 x;\nst.param.b32 [x], 1;\ncall down, (x);\nret;\n}\n"
		  ENTRY("f3") "tex.2d.v4.f32.f32 {a, b, c, d}, [texture, {a, b}];\nret;\n}\n"
		  ENTRY("f4") ".param .b32 x;\nst.param.b32 [x], 1;\ncall outside, (x);\nret;\n}\n"
		  ENTRY("f5") "add.strange.s32 a, a, 1;\nret;\n}\n"
		  ENTRY("f6") "call (a), O, (a), proto;\nret;\n}\n"
		  ENTRY("f7") "mov.u64 A, ext;\nret;\n}\n"
		  ENTRY("good") "st.global.u32 [O], t;\nret;\n}\n");
	assert_int_equal(ptx_kernel_count(module), 8);
	out = dev(NULL, 32 * 4);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(launch(bad[i].name, 1, 32, 0, pack_of(&p, "p", out)), -ENOSYS);
		if (!strstr(fault.why, bad[i].says))
			fail_msg("\"%s\", not \"%s\"", fault.why, bad[i].says);
		assert_string_equal(fault.kernel, bad[i].name);
	}
	launched("good", 1, 32, 0, pack_of(&p, "p", out));
	assert_int_equal(((uint32_t *)host(out))[31], 31);
	unload();
}

static void heads(void **state)
{
	size_t off, size;
	const struct ptx_kernel *k;

	load(sample, sizeof(sample) - 1);
	k = ptx_kernel_at(module, 0);
	assert_ptr_equal(k, ptx_kernel(module, "all"));
	assert_null(ptx_kernel(module, "twice"));
	assert_null(ptx_kernel_at(module, 1));
	assert_int_equal(ptx_param_count(k), 3);
	assert_int_equal(ptx_param(k, 2, &off, &size), 0);
	assert_int_equal(off, 16);
	assert_int_equal(size, 24);
	assert_int_equal(ptx_param(k, 3, &off, &size), -ERANGE);
	assert_int_equal(ptx_param_bytes(k), 40);
	assert_int_equal(ptx_max_threads(k), 64);
	assert_int_equal(ptx_shared_bytes(k), 16);
	assert_true(ptx_local_bytes(k) >= 32);
	assert_int_equal(ptx_global_count(module), 5);
	unload();
}

static void limits(void **state)
{
	const unsigned one[3] = { 1, 1, 1 }, none[3] = { 1, 0, 1 }, deep[3] = { 1, 1, 65 };
	struct pack p;
	uint64_t out;

	load_text(ENTRY("f") "st.global.u32 [O], t;\nret;\n}\n"
		  ".entry g(.param .u64 o)\n.reqntid 32\n{\nret;\n}\n");
	out = dev(NULL, 4096);
	pack_of(&p, "p", out);
	assert_int_equal(launch("f", 1, 1024, 0, p.at), 0);
	assert_int_equal(launch("f", 1, 1025, 0, p.at), -EINVAL);
	assert_int_equal(launch("f", 1, 32, 300 << 10, p.at), -EINVAL);
	assert_int_equal(launch3("f", none, one, 0, p.at), -EINVAL);
	assert_int_equal(launch3("f", one, deep, 0, p.at), -EINVAL);
	assert_int_equal(launch("g", 1, 33, 0, p.at), -EINVAL);
	unload();
}

/* ---- accesses ------------------------------------------------------------------- */

static void accesses(void **state)
{
	static const char *const bad[] = { "s1", "s2", "l1", "l2", "p1", "p2", "c1", "g1", "n1", "w1", "t1" };
	struct pack p;
	uint64_t out;

	load_text(".const .u32 k = 7;\n.shared .u32 s[4];\n"
		  /* What was never written. */
		  ENTRY("reg") "setp.ne.u32 p, t, 7;\n@p mov.u32 a, t;\nst.global.u32 [O], a;\nret;\n}\n"
		  ENTRY("ok") ".local .b8 l[8];\nst.shared.u32 [s+12], t;\nst.local.u32 [l+4], t;\n"
		  "ld.const.u32 a, [k];\nst.global.u32 [O], a;\nret;\n}\n"
		  ENTRY("s1") "st.shared.u32 [s+16], t;\nret;\n}\n"
		  ENTRY("s2") "mov.u64 A, s;\ncvta.shared.u64 A, A;\nld.u32 a, [A+-4];\nret;\n}\n"
		  ENTRY("l1") ".local .b8 l[8];\nst.local.u32 [l+16], t;\nret;\n}\n"
		  ENTRY("l2") ".local .b8 l[8];\nmov.u64 A, l;\nst.global.u32 [A], t;\nret;\n}\n"
		  ENTRY("p1") "ld.param.u32 a, [o+8];\nret;\n}\n"
		  ENTRY("p2") "mov.u64 A, o;\ncvta.param.u64 A, A;\nst.u32 [A], t;\nret;\n}\n"
		  ENTRY("c1") "mov.u64 A, k;\nst.global.u32 [A], t;\nret;\n}\n"
		  ENTRY("g1") "atom.global.add.u32 a, [O+128], 1;\nret;\n}\n"
		  ENTRY("n1") "ld.shared.u32 a, [0];\nret;\n}\n"
		  ENTRY("w1") ".local .b8 l[8];\nmov.u64 A, l;\nadd.u64 A, A, 0x7f00000000000000;\n"
		  "ld.u32 a, [A];\nret;\n}\n"
		  ENTRY("t1") "setp.eq.u32 p, t, 3;\n@p trap;\nret;\n}\n");
	out = dev(NULL, 32 * 4);
	pack_of(&p, "p", out);
	launched("ok", 1, 32, 0, p.at);
	assert_int_equal(*(uint32_t *)host(out), 7);
	launched("reg", 2, 32, 0, p.at);
	for (uint32_t t = 0; t < 32; t++)
		assert_int_equal(((uint32_t *)host(out))[t], t == 7 ? 0x7f7f7f7f : t);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (launch(bad[i], 1, 32, 0, p.at) != -EFAULT)
			fail_msg("%s: %s", bad[i], fault.why);
		assert_string_equal(fault.kernel, bad[i]);
	}
	assert_non_null(strstr(fault.why, "trap"));
	assert_non_null(strstr(fault.why, "thread 3,0,0"));
	unload();
}

/* ---- barriers -------------------------------------------------------------------- */

static void deadlocks(void **state)
{
	static const char *const bad[] = { "half", "two", "mask", "loop" };
	struct pack p;

	load_text(
		/* Lanes of one warp at two barriers, in the code. */
		ENTRY("half") "setp.lt.u32 p, t, 16;\n@!p bra X;\nbar.sync 0;\nbra Y;\nX:\nbar.sync 0;\nY:\n"
		"st.global.u32 [O], t;\nret;\n}\n"
		/* Two warps at two barriers. */
		ENTRY("two") "setp.lt.u32 p, t, 32;\n@p bar.sync 1;\n@!p bar.sync 2;\nret;\n}\n"
		/* A lane waits for one that waits at the barrier. */
		ENTRY("mask") "setp.eq.u32 p, t, 5;\n@p bra X;\nbar.warp.sync -1;\nret;\nX:\nbar.sync 0;\nret;\n}\n"
		/* A warp comes back to a barrier that the other has left for good. */
		ENTRY("loop") "setp.lt.u32 p, t, 32;\nbar.sync 0, 64;\n@p bra X;\nret;\nX:\nbar.sync 0, 64;\nret;\n}\n"
		/* These are allowed: threads that exited are not waited for. */
		ENTRY("good") "setp.lt.u32 p, t, 16;\n@p exit;\nbar.sync 0;\nbar.warp.sync -1;\n"
		"st.global.u32 [O], t;\nret;\n}\n");
	pack_of(&p, "p", dev(NULL, 64 * 4));
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (launch(bad[i], 1, 64, 0, p.at) != -EDEADLK)
			fail_msg("%s: %s", bad[i], fault.why);
		assert_string_equal(fault.kernel, bad[i]);
		assert_non_null(strstr(fault.why, "wait for each other: bar."));
	}
	launched("good", 1, 64, 0, p.at);
	unload();
}

static void barriers(void **state)
{
	uint64_t out;
	struct pack p;

	load_text(".shared .u32 s[128];\n"
		  /* The second warp makes, the first takes: twice. */
		  ENTRY("pipe") ".reg .b32 i;\n.reg .b64 S;\nmov.u32 i, 0;\nsetp.lt.u32 p, t, 32;\n"
		  "and.b32 a, t, 31;\nmul.wide.u32 A, a, 4;\nmov.u64 S, s;\nadd.u64 A, A, S;\n"
		  "mov.u32 b, 0;\nL:\n@p bra TAKE;\nadd.u32 c, a, i;\nst.shared.u32 [A], c;\n"
		  "bar.arrive 1, 64;\nbar.sync 2, 64;\nbra N;\nTAKE:\nbar.sync 1, 64;\n"
		  "ld.shared.u32 c, [A];\nmad.lo.u32 b, b, 10, c;\nbar.arrive 2, 64;\nN:\n"
		  "add.u32 i, i, 1;\nsetp.lt.u32 q, i, 2;\n@q bra L;\nst.global.u32 [O], b;\nret;\n}\n"
		  ENTRY("red") "and.b32 a, t, 1;\nsetp.eq.u32 p, a, 0;\nbar.red.popc.u32 a, 0, p;\n"
		  "bar.red.and.pred q, 0, p;\nselp.u32 b, 100, 200, q;\nadd.u32 a, a, b;\n"
		  "bar.red.or.pred q, 0, p;\nselp.u32 b, 1000, 2000, q;\nadd.u32 a, a, b;\n"
		  "st.global.u32 [O], a;\nret;\n}\n");
	out = dev(NULL, 64 * 4);
	pack_of(&p, "p", out);
	launched("pipe", 1, 64, 0, p.at);
	for (uint32_t t = 0; t < 32; t++)
		assert_int_equal(((uint32_t *)host(out))[t], 11 * t + 1);
	launched("red", 1, 50, 0, p.at);
	for (uint32_t t = 0; t < 50; t++)
		assert_int_equal(((uint32_t *)host(out))[t], 25 + 200 + 1000);
	unload();
}

/* Lanes that came from two places meet in a function, and part again. */
static void two_callers(void **state)
{
	uint64_t out;
	struct pack p;

#define CALL	"{\n.param .b32 x;\n.param .b32 y;\nst.param.b32 [x], t;\n" \
		"call (y), meet, (x);\nld.param.u32 a, [y];\n}\n"
	load_text(".func (.param .b32 r) meet(.param .b32 v)\n{\n.reg .b32 a, b;\n"
		  "ld.param.u32 a, [v];\nshfl.sync.bfly.b32 b, a, 31, 31, -1;\n"
		  "mad.lo.u32 b, a, 1000, b;\nst.param.b32 [r], b;\nret;\n}\n"
		  ENTRY("f") "setp.lt.u32 p, t, 9;\n@p bra X;\n" CALL "add.u32 a, a, 100;\nbra Y;\n"
		  "X:\n" CALL "add.u32 a, a, 200;\nY:\nst.global.u32 [O], a;\nret;\n}\n");
	out = dev(NULL, 32 * 4);
	launched("f", 1, 32, 0, pack_of(&p, "p", out));
	for (uint32_t t = 0; t < 32; t++)
		assert_int_equal(((uint32_t *)host(out))[t],
				 1000 * t + (t ^ 31) + (t < 9 ? 200 : 100));
	unload();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cut_off),   cmocka_unit_test(changed_at_random),
		cmocka_unit_test(refused),   cmocka_unit_test(unsupported),
		cmocka_unit_test(heads),     cmocka_unit_test(limits),
		cmocka_unit_test(accesses),  cmocka_unit_test(deadlocks),
		cmocka_unit_test(barriers),  cmocka_unit_test(two_callers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
