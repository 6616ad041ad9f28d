/* SPDX-License-Identifier: MIT */
/* stub.h - what stub.c says beside what a driver says. */
#ifndef CUDA_STUB_H
#define CUDA_STUB_H

struct stub_call {
	const char *symbol;
	const void *caller;
	const char *wanted;	/* set by a test: calls of this symbol are counted */
	int hits;
};

extern __thread struct stub_call stub_last;

/* Its functions, one for each row of cuda_fn.def. */
int stub_count(void);
void stub_entry(int i, const char **symbol, const char **name, int *version,
		unsigned int *flags, void **at);
/* A look-up that the driver itself makes. */
void *stub_looks_up(void *handle, const char *symbol);

#endif
