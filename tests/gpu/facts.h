/* SPDX-License-Identifier: MIT */
/* facts.h - what the files share that ask a card and its driver.
 *
 * (1) Each fact is asked by a process of its own, on a fresh context: what ends one ends
 *     no other. It gives one answer and leaves; not knowing why not is an answer.
 * (2) What a driver may refuse is an answer (say); what must work for the question to
 *     make sense is `need`ed.
 * Lock: none; one thread, but for the one that lets a kernel go.
 */
#ifndef GPU_FACTS_H
#define GPU_FACTS_H

#include "tests/engine/driver.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MB (1ull << 20)

/* The card, and what a question finds ready. */
struct card {
	CUdevice device;
	CUcontext ctx;
	CUfunction sum, fill, spin;
	CUstream stream, other;		/* neither waits for the legacy one */
	CUdeviceptr out;		/* 8 bytes that kernels write to */
	size_t granularity;		/* of handles; 0: it has none */
	bool emulated;
};
extern struct card card;

struct fact {
	const char *name;
	void (*ask)(uint64_t arg);
	uint64_t arg;
	const char *what;
};

/* The answer, in parts; printed when the process ends by done. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
__attribute__((noreturn)) void done(void);
/* The same for "not known: ...", in place of all that was said. */
__attribute__((noreturn)) void unknown(const char *fmt, ...)
	__attribute__((format(printf, 1, 2)));
const char *error_name(CUresult err);

/* Not known unless the call is CUDA_SUCCESS. A function that the driver lacks is null. */
#define need(symbol, ...) do { \
	CUresult r_ = drv.symbol ? drv.symbol(__VA_ARGS__) : CUDA_ERROR_NOT_FOUND; \
	if (r_ != CUDA_SUCCESS) \
		unknown("%s: %s", #symbol, error_name(r_)); \
} while (0)

double now_us(void);
int attribute(CUdevice_attribute a);	/* -1: the driver knows none */

/* ---- kernels: queued on a stream ------------------------------------------------- */

CUresult queue_sum(CUstream s, CUdeviceptr in, size_t bytes);	/* adds to card.out */
CUresult queue_fill(CUstream s, CUdeviceptr to, size_t bytes, uint64_t first);
/* The sum a kernel makes of it; error: the launch's or what came of it. */
CUresult sum_of(CUdeviceptr in, size_t bytes, uint64_t *sum);
/* What that should be of first, first + 1, ... */
uint64_t sum_should(size_t bytes, uint64_t first);
/* says "right", "wrong bytes" or the error. */
void say_sum(CUdeviceptr in, size_t bytes, uint64_t want);

/* A kernel that runs on `s` until let_go, for some seconds at most; then it reads data
 * if that is not 0. */
void hold(CUstream s, CUdeviceptr data);
void let_go(void);
/* How long the call took (us), and whether it only came back when the kernel of hold was
 * let go, which happens after a while. */
bool waited(void (*call)(void *), void *arg, double *us);

/* ---- handles and addresses (facts_map.c) ----------------------------------------- */

#define ON_HOST true
CUresult handle_new(bool host, size_t len, CUmemGenericAllocationHandle *h);
CUdeviceptr addresses(size_t len);	/* not known if there are none */
CUresult map_at(CUdeviceptr at, size_t len, CUmemGenericAllocationHandle h);
CUresult access_at(CUdeviceptr at, size_t len);
/* Both, needed. */
void put_at(CUdeviceptr at, size_t len, CUmemGenericAllocationHandle h);
size_t extent(void);	/* bytes, of the granularity: what questions use */

/* ---- questions: rows of facts.def ------------------------------------------------ */

#define FACT(name, function, arg, what) void function(uint64_t);
#include "tests/gpu/facts.def"
#undef FACT

#endif
