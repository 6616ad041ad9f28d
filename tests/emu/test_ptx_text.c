/* SPDX-License-Identifier: MIT */
#include "tests/emu/ptx.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static char *base; static void *at(void *c, uint64_t a, size_t n, int w) { return a >= 0x10000 && a + n <= 0x110000 ? base + a - 0x10000 : NULL; }
int main(int argc, char **argv) {
 static char text[1<<22]; FILE *f = fopen(argv[1], "r"); size_t n = fread(text, 1, sizeof text, f);
 struct ptx_module *m; char err[200]; int r = ptx_parse(text, n, &m, err, sizeof err); printf("%d %s\n", r, err); if (r) return 1;
 base = calloc(1, 1<<20); struct ptx_mem mem = { 0, at }; struct ptx_fault ft;
 for (int i = 0; i < ptx_global_count(m); i++) { const char *nm; size_t s, a; const void *in; int c; ptx_global(m, i, &nm, &s, &a, &in, &c); ptx_global_place(m, i, 0x10000 + 0x1000 * (i+1)); printf("%s %zu %zu\n", nm, s, a); }
 for (int i = 0; i < ptx_global_count(m); i++) { const char *nm; size_t s, a; const void *in; int c; ptx_global(m, i, &nm, &s, &a, &in, &c); if (in) memcpy(base + 0x1000*(i+1), in, s); }
 float *x = (float *)(base + 0x80000); for (int i = 0; i < 1024; i++) x[i] = i;
 struct { uint64_t o; uint32_t n; } p = { 0x90000, 7 };
 unsigned one[3] = {1,1,1}, b[3] = {64,1,1};
 for (int i = 0; i < ptx_kernel_count(m); i++) printf("%s %zu\n", ptx_kernel_name(ptx_kernel_at(m, i)), ptx_param_bytes(ptx_kernel_at(m,i)));
 r = ptx_run(ptx_kernel(m, "call"), one, b, 0, &p, &mem, &ft); printf("%d %s\n", r, r ? ft.why : ""); printf("%g %g %d\n", x[0], x[1], *(int*)(base+0x1000));
 struct { uint64_t o; uint32_t n; long long d; } q = { 0x90000, 63, 1000 };
 r = ptx_run(ptx_kernel(m, "sh"), one, b, 4*64, &q, &mem, &ft); printf("%d %s\n", r, r ? ft.why : ""); printf("%g %g\n", x[0], x[1]);
 return 0; }
