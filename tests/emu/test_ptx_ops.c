/* SPDX-License-Identifier: MIT */
/* test_ptx_ops.c - single instructions, with what they must give.
 *
 * Owns device memory (ptx_test.h). Each row is a kernel of one instruction, run
 * by 40 threads, of which some take no part: those keep what they had. Each row
 * is run by each instruction set. Lock: none.
 */
#include "tests/emu/ptx_test.h"
#include "tests/emu/ptx_int.h"

#define F(x)	((union { float f; uint32_t u; }){ .f = (x) }.u)
#define D(x)	((union { double f; uint64_t u; }){ .f = (x) }.u)
#define M1	0xffffffffffffffffull

/* A B C: the operands, as b64; a b c their lower 32 bits, ha hb hc 16. The result
 * is D, d or hd, or p as 0 and 1; q is p's opposite where there is one. */
struct row {
	const char *ins;
	uint64_t a, b, c, want;
};

static const struct row *rows;
static size_t nrows;

static char *source;
static size_t source_len;

/* Threads whose number is divisible by 3 take no part. */
static void write_kernel(FILE *f, size_t i)
{
	const char *ins = rows[i].ins, *to = strrchr(ins, ';');
	const char *res = strchr(to ? to + 2 : ins, ' ') + 1;
	char all[512];
	size_t n = 0;

	if (!strncmp(res, "{_, d}", 6) || !strncmp(res, "{hd, _}", 7))
		res = res[1] == '_' ? "d," : "hd,";
	/* Each instruction with the guard. */
	for (const char *c = ins; *c; c++) {
		if (c == ins || (c[-1] == ' ' && c > ins + 1 && c[-2] == ';'))
			n += (size_t)snprintf(all + n, sizeof(all) - n, "@!z ");
		all[n++] = *c;
	}
	all[n] = 0;
	fprintf(f, ".visible .entry k%zu(.param .u64 o, .param .u64 x, .param .u64 y, .param .u64 w)\n"
		"{\n.reg .b64 A, B, C, D, O;\n.reg .b32 a, b, c, d, t;\n.reg .b16 ha, hb, hc, hd;\n"
		".reg .pred p, q, z;\n.local .align 8 .b8 l[16];\n"
		"ld.param.u64 O, [o];\nld.param.u64 A, [x];\nld.param.u64 B, [y];\n"
		"ld.param.u64 C, [w];\ncvt.u32.u64 a, A;\ncvt.u32.u64 b, B;\ncvt.u32.u64 c, C;\n"
		"cvt.u16.u64 ha, A;\ncvt.u16.u64 hb, B;\ncvt.u16.u64 hc, C;\n"
		"mov.u32 t, %%tid.x;\nrem.u32 d, t, 3;\nsetp.eq.u32 z, d, 0;\n"
		"mov.u64 D, 0x5555555555555555;\nmov.u32 d, 0x55555555;\nmov.u16 hd, 0x5555;\n"
		"setp.eq.u32 p, t, t;\nsetp.eq.u32 q, t, t;\n%s;\n", i, all);
	if (*res == 'p' || *res == 'q')
		fprintf(f, "selp.u64 D, 1, 0, p;\n");
	else if (*res == 'd')
		fprintf(f, "cvt.u64.u32 D, d;\n");
	else if (*res == 'h')
		fprintf(f, "cvt.u64.u16 D, hd;\n");
	fprintf(f, "mad.wide.u32 O, t, 8, O;\nst.global.u64 [O], D;\nret;\n}\n");
}

static uint64_t untouched(size_t i)
{
	const char *ins = rows[i].ins, *to = strrchr(ins, ';');
	const char *res = strchr(to ? to + 2 : ins, ' ') + 1;

	return *res == 'p' || *res == 'q' ? 1 : *res == 'd' || !strncmp(res, "{_", 2) ? 0x55555555 :
		*res == 'h' || *res == '{' ? 0x5555 : 0x5555555555555555;
}

static void write_source(void)
{
	FILE *f = open_memstream(&source, &source_len);

	fprintf(f, ".version 7.0\n.target sm_80\n.address_size 64\n"
		".const .align 2 .b8 k[4] = {1, -2, 3, 4};\n.shared .align 8 .b8 s[16];\n");
	for (size_t i = 0; i < nrows; i++)
		write_kernel(f, i);
	fclose(f);
}

static void check_level(int level)
{
	uint64_t out;
	int bad = 0;

	ptx_level_most = level;
	load(source, source_len);
	place_globals();
	out = dev(NULL, 40 * 8);
	for (size_t i = 0; i < nrows; i++) {
		char name[32];
		struct pack p;

		snprintf(name, sizeof(name), "k%zu", i);
		memset(host(out), 0xa5, 40 * 8);
		if (launch(name, 1, 40, 0,
			   pack_of(&p, "plll", out, rows[i].a, rows[i].b, rows[i].c))) {
			print_error("%s: %s\n", rows[i].ins, fault.why);
			bad++;
			continue;
		}
		for (uint32_t t = 0; t < 40; t++) {
			uint64_t got = ((uint64_t *)host(out))[t];
			uint64_t want = t % 3 ? rows[i].want : untouched(i);

			if (got == want)
				continue;
			print_error("level %d, thread %u, %s: %lx, not %lx\n", level, t,
				    rows[i].ins, got, want);
			bad++;
			break;
		}
	}
	ptx_free(module);
	dev_reset();
	ptx_level_most = 3;
	assert_int_equal(bad, 0);
}

static void any_processor(void **state)
{
	check_level(1);
}

static void avx2(void **state)
{
	check_level(3);
}

int main(void)
{
	const struct row all[] = {
#define ROW(...)	{ __VA_ARGS__ },
#include "tests/emu/ptx_expect.def"
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_processor),
		cmocka_unit_test(avx2),
	};
	int r;

	rows = all;
	nrows = sizeof(all) / sizeof(*all);
	write_source();
	r = cmocka_run_group_tests(tests, NULL, NULL);
	free(source);
	return r;
}
