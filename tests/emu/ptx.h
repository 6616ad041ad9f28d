/* SPDX-License-Identifier: MIT */
/* ptx.h - PTX text is parsed, and its kernels are run on the processor.
 *
 *   text --ptx_parse--> module --ptx_global_place for each--> ptx_run, often --ptx_free-->
 *
 * (1) A module does not change once its variables are placed: ptx_run may be
 *     called by several threads at once, on one kernel too.
 * (2) What cannot be run (an instruction that is not known, recursion) fails
 *     the kernels that hold or call it, when they are run, not the module.
 * (3) Every access is checked: its address, its length, its alignment.
 * (4) The same launch on the same memory gives the same bits on every run and
 *     on every processor: what IEEE 754 defines is exact, the approximate
 *     functions are made of nothing else. NaNs are the GPU's one NaN.
 * (5) Registers, shared and local memory start out as poison, never as zeros.
 * (6) Blocks run one after another, in order of %ctaid: a block that waits for
 *     a later one waits for ever. Within a block warps and lanes take turns.
 * Lock: none.
 */
#ifndef PTX_H
#define PTX_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

struct ptx_module;
struct ptx_kernel;

/* How the interpreter reaches memory. `at` gives the host's pointer for `size`
 * bytes at a device address, or NULL if any of them may not be reached so.
 * NULL is no fault yet: ranges are tried that are longer than the access, of
 * PTX_PAGE bytes, and what they gave is used till the end of that launch and
 * no longer. Called by the thread in ptx_run, holding no lock; several at once
 * where several run. */
#define PTX_PAGE	65536u
struct ptx_mem {
	void *ctx;
	void *(*at)(void *ctx, uint64_t addr, size_t size, int write);
};

/* Why a launch failed. addr, size and write are 0 unless it was -EFAULT. */
struct ptx_fault {
	uint64_t addr;
	size_t size;
	int write;
	char kernel[128];
	char why[160];
};

/* Parses `len` bytes, which need not end in NUL. 0, or -EINVAL (`err` says the
 * line and what is wrong), -ENOMEM. *m is NULL unless 0 was returned. */
int ptx_parse(const char *text, size_t len, struct ptx_module **m, char *err,
	      size_t errlen);
/* Nothing of it may be running. NULL is nothing. */
void ptx_free(struct ptx_module *m);

int ptx_kernel_count(const struct ptx_module *m);
const struct ptx_kernel *ptx_kernel_at(const struct ptx_module *m, int i);
/* By its (mangled) name; NULL: there is none. */
const struct ptx_kernel *ptx_kernel(const struct ptx_module *m, const char *name);
const char *ptx_kernel_name(const struct ptx_kernel *k);

/* Parameter i lies at *offset in the bytes given to ptx_run. -ERANGE: there is
 * no such parameter. */
int ptx_param_count(const struct ptx_kernel *k);
int ptx_param(const struct ptx_kernel *k, int i, size_t *offset, size_t *size);
size_t ptx_param_bytes(const struct ptx_kernel *k);
/* Static shared memory, local memory of a thread, the most threads in a block
 * (.maxntid, .reqntid; else 1024). */
size_t ptx_shared_bytes(const struct ptx_kernel *k);
size_t ptx_local_bytes(const struct ptx_kernel *k);
unsigned ptx_max_threads(const struct ptx_kernel *k);

/* Variables of the module in .global and .const. Whoever loads it reserves
 * `size` bytes of device memory aligned to `align`, says where (ptx_global_place),
 * and then copies *init there (size bytes; NULL: zeros). The initialisers that
 * hold addresses of other variables are right once all are placed. -ERANGE. */
int ptx_global_count(const struct ptx_module *m);
int ptx_global(const struct ptx_module *m, int i, const char **name, size_t *size,
	       size_t *align, const void **init, int *is_const);
void ptx_global_place(struct ptx_module *m, int i, uint64_t addr);

/* Runs the kernel to its end. `params`: ptx_param_bytes bytes. 0, or with
 * *fault filled (it may be NULL): -EFAULT an access that is not allowed, or a
 * trap; -ENOSYS something that cannot be run, named in `why`; -EDEADLK threads
 * that wait for each other; -EINVAL a grid or block that no GPU takes; -ENOMEM. */
int ptx_run(const struct ptx_kernel *k, const unsigned grid[3], const unsigned block[3],
	    size_t dyn_shared, const void *params, const struct ptx_mem *mem,
	    struct ptx_fault *fault);

/* What ptx_run has done in this process, for whoever measures it: instructions
 * times the threads that took part. */
uint64_t ptx_instructions(void);

#endif
