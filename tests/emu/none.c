/* SPDX-License-Identifier: MIT */
/* none.c - what is not there yet. */
#include "tests/emu/emu.h"
#include "tests/emu/ptx.h"
#define W __attribute__((weak))
W int ptx_parse(const char *t, size_t l, struct ptx_module **m, char *e, size_t n) { return -ENOSYS; }
W void ptx_free(struct ptx_module *m) { }
W int ptx_kernel_count(const struct ptx_module *m) { return 0; }
W const struct ptx_kernel *ptx_kernel_at(const struct ptx_module *m, int i) { return NULL; }
W const struct ptx_kernel *ptx_kernel(const struct ptx_module *m, const char *n) { return NULL; }
W const char *ptx_kernel_name(const struct ptx_kernel *k) { return NULL; }
W int ptx_param_count(const struct ptx_kernel *k) { return 0; }
W int ptx_param(const struct ptx_kernel *k, int i, size_t *o, size_t *s) { return -ERANGE; }
W size_t ptx_param_bytes(const struct ptx_kernel *k) { return 0; }
W size_t ptx_shared_bytes(const struct ptx_kernel *k) { return 0; }
W size_t ptx_local_bytes(const struct ptx_kernel *k) { return 0; }
W unsigned ptx_max_threads(const struct ptx_kernel *k) { return 1024; }
W int ptx_global_count(const struct ptx_module *m) { return 0; }
W int ptx_global(const struct ptx_module *m, int i, const char **n, size_t *s, size_t *a, const void **x, int *c) { return -ERANGE; }
W void ptx_global_place(struct ptx_module *m, int i, uint64_t a) { }
W int ptx_run(const struct ptx_kernel *k, const unsigned g[3], const unsigned b[3], size_t d, const void *p, const struct ptx_mem *m, struct ptx_fault *f) { return -ENOSYS; }
