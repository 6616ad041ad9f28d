/* SPDX-License-Identifier: MIT */
/* emu.h - an emulated GPU driver: libcuda.so.1 on host memory, stricter than the real one.
 *
 * Rules. What breaks one is an error the emulator reports: returned, where the real
 * driver is known to return one; else logged on stderr with the rule's number and
 * sticky in the context, since hardware would have gone on with wrong bytes.
 *
 * E1  What queued or running work can reach is not unmapped, revoked, freed in stream
 *     order or unregistered. Reach: the exact ranges of copies and memsets; of a kernel,
 *     every range that a word of its parameters points into (the whole reservation or
 *     allocation), that words in small ranges so reached point into (tables), its
 *     module's variables, and while it runs what it has touched. EMU_REACH=any: a kernel
 *     can reach everything. The call is refused, so that what happens next is the same
 *     each time.
 * E2  cuMemMap: offset 0, the whole handle, multiples of the granularity, onto nothing.
 *     cuMemUnmap: whole mappings. cuMemAddressFree: a whole reservation with nothing
 *     mapped. cuMemSetAccess: whole mappings, no holes.
 * E3  Nothing is touched by a device that was not given access, nor after it was freed.
 * E4  An illegal access is sticky: every later call of the context returns it. The log
 *     names the kernel and the address.
 * E5  Device addresses mean nothing to the host: touching one there is SIGSEGV.
 * E6  Capacity is exact: a byte too many is CUDA_ERROR_OUT_OF_MEMORY.
 * E7  A kernel reaches only pinned and managed host memory. A copy that starts in pinned
 *     memory ends in the same block of it. Asynchronous copies read pinned memory when
 *     they run; pageable sources are read at the call, pageable targets are waited for.
 * E8  Streams run by themselves, each at random delays; nothing is ordered but by its
 *     stream, events, the legacy default stream, or a wait of the host.
 * E9  Stream-ordered memory lives from its allocation to its free in stream order.
 * E10 What a capture forbids is refused and ends the capture.
 * E11 A graph that was instantiated is a copy; an update has the same shape.
 * E12 Handles are checked: one that is dead or of another kind is refused.
 * E13 cuInit first; a context before what needs one.
 * E14 Fresh memory is junk, never zeros.
 * E15 cuGetProcAddress answers by name, version and default stream together.
 *
 * What a test that passes here may claim: that the program kept these rules under the
 * delays it was run with. Never: speed, overlap, what caches and TLBs show, the calls
 * made by the real runtime or its libraries, or code that is not PTX.
 *
 * Options (environment): EMU_VRAM bytes (K, M, G; 1G), EMU_GRANULARITY (2M), EMU_DEVICES
 * (1), EMU_DRIVER version (13000), EMU_DELAY_US mean (0), EMU_SEED (1), EMU_REACH
 * (args|any), EMU_FAIL function:nth:CUresult,... (nth 0: always), EMU_LOG (stderr or a
 * file: every call), EMU_HOST_VMM (1), EMU_MIX (1: host and device handles in one
 * reservation), EMU_SPAN (1: a copy or memset may go across both), EMU_HOST_ACCESS (0:
 * kernels reach pageable memory), EMU_CONCURRENT (1: concurrent managed access), EMU_LOW
 * (1: addresses begin where two small numbers are one), EMU_PART (0; 1: handles can be
 * mapped from their start on), EMU_QUIET (0: nothing on stderr).
 *
 * Lock: one, `emu.lock`, taken around every call by its wrapper (entry.c) and let go
 * while a call waits. Work runs without it: it reads the page table, which E1 keeps
 * from changing under it, and the host ranges under their own lock (hostmem.c).
 */
#ifndef EMU_H
#define EMU_H

#include "interpose/cuda_abi.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT		__attribute__((visibility("default")))
#define PRINTF(f, a)	__attribute__((format(printf, f, a)))
#define EMU_DEVICES_MAX	4
#define EMU_PAGE	4096ull		/* of the page table */
#define EMU_VA		(256ull << 30)	/* bytes of device addresses */

/* Every function that is implemented, by the name of its symbol; weak: the others are NULL. */
#define CU_FN(symbol, name, version, flags, types) \
	CUresult i_##symbol types __attribute__((weak));
#include "interpose/cuda_fn.def"
#undef CU_FN

enum kind {
	K_CTX = 1, K_STREAM, K_EVENT, K_MODULE, K_FUNCTION, K_LIBRARY, K_KERNEL, K_HANDLE,
	K_POOL, K_GRAPH, K_NODE, K_EXEC,
};

struct options {
	uint64_t vram, granularity, seed;
	unsigned devices, driver, delay_us;
	bool reach_any, host_vmm, mix, low, part, span, host_access, concurrent, quiet;
};

struct device {
	uint64_t used, peak;		/* bytes */
	struct ctx *primary;
	unsigned primary_refs, primary_flags;
	struct pool *default_pool, *pool;
	uint64_t h2d, d2h, launches, host_reached;
	uint64_t managed, managed_in, managed_out;
	bool peers[EMU_DEVICES_MAX];	/* whose memory it reaches */
};

struct emu {
	pthread_mutex_t lock;
	pthread_cond_t change;		/* an operation ended, or was queued */
	bool inited;
	struct options opt;
	struct device dev[EMU_DEVICES_MAX];
	char *base;			/* of device addresses: never accessible */
	char *alias;			/* the same bytes, for the emulator */
	uint16_t *pages;		/* two bits per device: reads, writes */
};
extern struct emu emu;
extern __thread bool emu_ptds;		/* this call's default stream is the thread's */

/* entry.c. emu_log: as printf, when EMU_LOG is set. */
void emu_log(const char *fmt, ...) PRINTF(1, 2);
uint64_t emu_random(void);		/* the emulator's lock is held */
unsigned emu_driver(void);		/* its version, as EMU_DRIVER has it */
void emu_host_function(bool on);	/* this thread runs one: it may call nothing */

/* object.c: handles. obj_get: NULL if it is not a live handle of this kind. */
uintptr_t obj_new(enum kind kind, void *object);
void *obj_get(enum kind kind, uintptr_t handle);
void obj_end(uintptr_t handle);
void *obj_next(enum kind kind, unsigned *at);	/* all live ones: NULL at the end */

/* ---- contexts (context.c) ----------------------------------------------------- */

struct ctx {
	uintptr_t handle;
	int device;
	unsigned flags, version;
	bool primary;
	CUresult sticky;
	struct stream *legacy;
	uint64_t id;
};

struct ctx *ctx_current(void);		/* NULL: none */
/* A rule was broken or an illegal access made: said, and sticky. */
void ctx_fault(struct ctx *c, CUresult err, const char *fmt, ...) PRINTF(3, 4);
const char *emu_last_fault(void);
bool device_ok(int device);

/* ---- device memory (vm.c) ----------------------------------------------------------
 * A range is a reservation of the program's (VMM) or an allocation. */

enum range_kind { R_RESERVED, R_ALLOC, R_ASYNC, R_GLOBAL };

struct range {
	uint64_t addr, size;		/* pages */
	uint64_t asked;			/* bytes, as the program has it */
	enum range_kind kind;
	int device;
	struct ctx *ctx;
	struct pool *pool;		/* R_ASYNC */
	bool live;			/* memory is there (R_ASYNC: in stream order) */
	bool freeing;			/* R_ASYNC: a free is queued */
	unsigned graphs;		/* R_ASYNC: of so many nodes: lives on after a free */
	uint64_t phys;			/* in the memory file; not R_RESERVED */
	uint64_t id;
};

/* All but vm_at: with the emulator's lock. Sizes and addresses of ranges are whole pages. */
int vm_open(void);			/* once; 0 or -errno */
struct range *vm_find(uint64_t addr);	/* NULL: none */
struct range *vm_nth(unsigned i);	/* in order of addresses; NULL: no more */
/* Addresses alone, at the hint (0: none) where that is free; NULL: there are none. */
struct range *vm_reserve(uint64_t size, uint64_t align, uint64_t hint, enum range_kind kind);
void vm_forget(struct range *r);	/* they may be used again; r is gone */
/* Memory of a device for a whole range, full of junk, not accessible yet; CUDA_SUCCESS or
 * CUDA_ERROR_OUT_OF_MEMORY. And back: its bytes are lost. */
CUresult vm_back(struct range *r, int device);
void vm_unback(struct range *r);
void vm_show(struct range *r);		/* accessible to its device and peers from now on */
void vm_hide(struct range *r);		/* to nobody */
bool vm_take(int device, uint64_t bytes);	/* false: beyond the capacity */
void vm_give(int device, uint64_t bytes);
/* Memory of a handle: an offset in the memory file. Capacity is the caller's. */
uint64_t vm_phys_new(uint64_t bytes);
void vm_phys_end(uint64_t phys, uint64_t bytes);
bool vm_is_device(uint64_t addr);	/* or memory of the host */
/* All of it mapped, by anyone, or allocated in stream order. */
bool vm_mapped(uint64_t addr, uint64_t size);
/* The emulator's pointer to device or host memory, as this device may touch it (any: -1);
 * NULL: it may not. Any thread. */
void *vm_at(int device, uint64_t addr, uint64_t size, int write);
/* Who may touch it: two bits for each device, the lower reads. */
void vm_access(uint64_t addr, uint64_t size, uint16_t bits);
void *vm_alias(uint64_t addr);		/* the emulator's pointer, unchecked */
int vm_map(uint64_t addr, uint64_t size, uint64_t phys);	/* 0 or -errno */
void vm_unmap(uint64_t addr, uint64_t size);	/* nobody may touch it any more */
/* The host may touch it at its device address, or no longer. 0 or -errno. */
int vm_host(uint64_t addr, uint64_t size, uint64_t phys, bool on);
void vm_peers(int device, int of, bool on);	/* device reaches what is allocated on `of` */
void *emu_map(uint64_t bytes);		/* host memory, nobody's to interpose; NULL: none */
void emu_unmap(void *at, uint64_t bytes);
uint64_t round_up(uint64_t n, uint64_t to);

/* vmm.c: where the memory mapped there is, and which mapping it is. -1, false: none. */
int vmm_place(uint64_t addr, CUmemLocation *where);
bool vmm_range(uint64_t addr, uint64_t *base, uint64_t *size);
bool vmm_both(uint64_t addr, uint64_t size);	/* in device memory, and in the host's */

struct work;

/* ---- host memory (hostmem.c) -------------------------------------------------- */

enum host_kind { H_ALLOC = 1, H_REGISTERED, H_MANAGED };

struct host_range {
	uint64_t addr, size;
	enum host_kind kind;
	unsigned flags;
	struct ctx *ctx;
	uint64_t id;
	struct managed *managed;
};

/* A copy of the range that has the address. Any thread, any lock. */
bool host_find(uint64_t addr, struct host_range *out);
/* The rest: with the emulator's lock. host_next: each in turn, from *at = 0. */
bool host_next(unsigned *at, struct host_range *out);
CUresult host_add(const struct host_range *r);	/* ..._ALREADY_REGISTERED: it overlaps */
bool host_remove(uint64_t addr, enum host_kind kind, struct host_range *out);

/* managed.c. A device touches it (any thread); it is freed; W_PREFETCH runs (no lock). */
void managed_touch(struct managed *m, int device, uint64_t off, uint64_t size);
void managed_end(struct managed *m);
void managed_prefetch(struct work *w);

/* ---- work: what a stream runs and what a graph is made of (work.c) ------------ */

enum work_kind {
	W_EMPTY, W_KERNEL, W_COPY, W_SET, W_HOST, W_CALLBACK, W_RECORD, W_WAIT, W_ALLOC,
	W_FREE, W_GRAPH, W_CHILD, W_VALUE, W_AWAIT, W_PREFETCH,
};

/* One side of a copy: rows of pitch bytes, layers of height rows. */
struct side {
	uint64_t addr;			/* of its first byte */
	uint64_t pitch, height;
	bool host;
};

struct copy {
	struct side src, dst;
	uint64_t width, rows, layers;
};

struct work {
	enum work_kind kind;
	struct ctx *ctx;
	union {
		struct {
			struct function *fn;
			struct kernel *kern;	/* how the program named it, or NULL */
			unsigned grid[3], block[3], shared;
			bool cooperative;
			unsigned char *params;	/* owned */
			size_t bytes;
			struct touched *touched;	/* while it runs (launch.c) */
		} kernel;
		struct {
			struct copy c;
			void *staged;		/* owned: the source's bytes at the call */
			CUDA_MEMCPY3D as;	/* as the program said it */
		} copy;
		CUDA_MEMSET_NODE_PARAMS_v2 set;
		struct {
			CUhostFn fn;
			CUstreamCallback callback;
			void *data;
			CUstream stream;
		} host;
		struct event *event;
		struct {
			struct range *range;
			uint64_t addr;
			CUDA_MEM_ALLOC_NODE_PARAMS_v1 as;
		} memory;
		struct image *image;		/* owned reference: a graph's copy */
		struct graph *child;		/* in a graph not instantiated; owned */
		struct {
			uint64_t addr, value;
			unsigned bytes, flags;
		} value;
		struct {
			uint64_t addr, size;
			int device;		/* -1: the host */
		} prefetch;
	} u;
};

/* Runs it, without the lock. Not W_RECORD and W_WAIT, which are the stream's. */
void work_run(struct work *w, uint64_t seq);
/* The rest: with the emulator's lock. What it owns ends; is copied; can it touch a byte
 * of the range (E1); how it is called in messages. */
void work_drop(struct work *w);
void work_dup(struct work *to, const struct work *from);
bool work_reaches(const struct work *w, uint64_t addr, uint64_t size);
const char *work_name(const struct work *w);

/* copy.c, for nodes of graphs: what the program said, checked and made into work. */
CUresult copy_work(const CUDA_MEMCPY3D *p, struct work *w);
CUresult set_work(const CUDA_MEMSET_NODE_PARAMS_v2 *p, struct work *w);
bool copy_shape(const CUDA_MEMCPY3D *p, struct copy *c);

/* ---- streams and events (stream.c, event.c) ----------------------------------- */

struct op {
	struct work w;
	struct stream *stream;
	struct op *next;
	struct op **deps;
	unsigned ndeps, refs;
	bool done;
	uint64_t seq;			/* in the order of all calls */
	uint64_t when;			/* ns: it ended */
};

struct stream {
	uintptr_t handle;
	struct ctx *ctx;
	unsigned flags;
	int priority;
	uint64_t id;
	bool legacy, stop;
	uint64_t thread;		/* whose default stream, or 0 */
	struct op *head, *tail;		/* queued and running */
	struct op *last;		/* latest queued, or NULL: a reference */
	bool started;
	struct capture *capture;
	struct node **tips;		/* of the capture: what comes next is behind them */
	unsigned ntips;
	CUlaunchAttributeValue attr[2];
	struct stream *next;
};

struct event {
	uintptr_t handle;
	struct ctx *ctx;
	unsigned flags;
	struct op *op;			/* latest record, or NULL: a reference */
	struct capture *capture;	/* recorded in a capture */
	struct node **cap;		/* its nodes */
	unsigned ncap;
	unsigned refs;
};

/* All with the emulator's lock; those that wait let it go meanwhile. */
/* The stream of a call; NULL, 1 and 2 are default streams. *err says why NULL. */
struct stream *stream_get(CUstream h, CUresult *err);
struct stream *stream_first(void);	/* all there are, by ->next */
/* Queues the work, or puts it into the capture; takes over what the work owns. */
CUresult stream_submit(struct stream *s, struct work *w);
/* The same; *op (if not NULL) gets a reference, NULL in a capture. */
CUresult stream_submit_op(struct stream *s, struct work *w, struct op **op);
CUresult stream_wait(struct stream *s);		/* until it is empty; sticky error */
void stream_after(struct stream *s, struct op *op);	/* what comes next waits for it */
struct stream *stream_new(struct ctx *c, unsigned flags, int priority);
void stream_end(struct stream *s);	/* gone when what is queued has run */
CUresult ctx_wait(struct ctx *c);		/* all its streams */
CUresult device_wait(int device);		/* all contexts on it */
void op_wait(struct op *op);
void op_depend(struct op *op, struct op *on);	/* before the lock is let go */
void op_put(struct op *op);
struct op *op_get(struct op *op);
/* Work that is not done and can touch the range, beside `but`; NULL: none. */
const struct op *op_reaching(uint64_t addr, uint64_t size, const struct op *but);
/* The same, of what was queued before a number of op.seq. */
const struct op *op_racing(uint64_t addr, uint64_t size, uint64_t seq);
void event_put(struct event *e);

/* ---- pools (async.c) ---------------------------------------------------------- */

struct pool {
	uintptr_t handle;
	int device;
	uint64_t used, used_high, threshold;
	uint64_t max;			/* 0: none */
	CUmemPoolProps props;
	int opt[4];
};

/* CUDA_SUCCESS, or CUDA_ERROR_OUT_OF_MEMORY; waits for frees that are queued. */
CUresult async_alloc(struct pool *p, uint64_t size, struct ctx *c, struct range **out);
void async_live(struct range *r);	/* its allocation has run */
void async_end(struct range *r);	/* its free has; r is gone unless a graph's */
void async_graph(struct work *w);	/* W_ALLOC: of a node from now on */
void async_graph_end(struct range *r);	/* of one node less */
/* Its context ends, and so does its memory. False: r is gone with it. */
bool async_orphan(struct range *r);
struct pool *pool_default(int device);

/* ---- modules (module.c) ------------------------------------------------------- */

struct function {
	uintptr_t handle;
	struct module *module;
	const struct ptx_kernel *k;
	const char *name;
	int max_dynamic, carveout;
};

struct module {
	uintptr_t handle;
	struct ctx *ctx;
	struct library *library;	/* NULL: a module of its own */
	struct ptx_module *ptx;
	struct range **globals;
	unsigned nglobals;
	struct function **functions;
	unsigned nfunctions;
};

struct kernel {
	uintptr_t handle;
	struct library *library;
	char *name;
};

/* A CUfunction or CUkernel as a function of the context. NULL: *err. */
struct function *function_get(uintptr_t handle, struct ctx *c, CUresult *err);
void function_run(struct work *w);	/* no lock */
bool function_touched(const struct work *w, uint64_t addr, uint64_t size);	/* so far */
/* Checks the launch and copies the parameters. */
CUresult function_work(const CUDA_KERNEL_NODE_PARAMS_v2 *p, bool cooperative, struct ctx *c,
		       struct work *w);
/* PTX text, its variables placed; CUDA_ERROR_INVALID_PTX, ..._NO_BINARY_FOR_GPU, ..._OUT_OF_MEMORY. */
CUresult module_open(const void *image, struct library *lib, struct ctx *c, struct module **out);
void module_end(struct module *m);	/* waits for its context's work */
struct function *module_function(struct module *m, const char *name);	/* NULL: none */
CUresult module_global(const struct module *m, const char *name, CUdeviceptr *addr, size_t *size);
CUresult function_attribute(const struct function *f, CUfunction_attribute a, int *out);
CUresult function_set(struct function *f, CUfunction_attribute a, int value);
CUresult function_param(const struct function *f, size_t i, size_t *offset, size_t *size);
char *read_text(const char *path);	/* NULL: cannot; to be freed */

/* ---- graphs (graph.c, node.c, exec.c, capture.c) ------------------------------- */

struct node {
	uintptr_t handle;
	struct graph *graph;
	struct work w;
	struct node **deps;
	unsigned ndeps;
	void **ptrs;			/* of a kernel's parameters, for who asks */
	uintptr_t origin;		/* in a clone: the node's handle */
	bool mark;
};

struct graph {
	uintptr_t handle;
	struct node **nodes;
	unsigned n;
	bool owned;			/* a child of a node */
};

/* A graph as it is launched: nodes by number. Immutable once queued. */
struct image {
	unsigned n, refs;
	struct work *work;
	unsigned **deps;		/* numbers */
	unsigned *ndeps;
	uintptr_t *origin;		/* handles of the nodes it was made from */
	bool *disabled;
};

struct exec {
	uintptr_t handle;
	struct image *im;
	cuuint64_t flags;
	struct op *last;		/* launches run one after another */
};

/* All but image_run with the emulator's lock. */
struct graph *graph_new(void);
void graph_end(struct graph *g);	/* and its nodes */
struct graph *graph_clone(const struct graph *g);
struct graph *graph_of_image(const struct image *im);
struct node *node_of(CUgraphNode h);
struct graph *graph_of(CUgraph h);
CUgraphNodeType node_type(const struct work *w);
/* A structure of one kind of node (from, into `to`, a part of *p), as cuGraphAddNode takes
 * it: older ones are the beginnings of it. False: there is none. */
bool node_given(CUgraphNodeParams *p, CUgraphNodeType type, void *to, const void *from,
		size_t len);
/* From what the program says to work, and its way back. */
CUresult node_work(const CUgraphNodeParams *p, struct work *w);
void node_params(struct node *n, CUDA_KERNEL_NODE_PARAMS_v2 *p);
/* Takes over what the work owns. */
struct node *graph_add(struct graph *g, struct node **deps, unsigned ndeps, struct work *w);
bool node_depend(struct node *n, struct node *on);	/* false: it does already */
struct image *image_new(const struct graph *g);	/* NULL: it has a cycle */
struct image *image_dup(const struct image *im);
struct image *image_get(struct image *im);
void image_put(struct image *im);
void image_run(struct image *im, uint64_t seq);
bool image_reaches(const struct image *im, uint64_t addr, uint64_t size);

/* capture.c */
CUresult capture_add(struct stream *s, struct work *w);
CUresult capture_record(struct stream *s, struct event *e);
CUresult capture_wait(struct stream *s, struct event *e);
/* What the call does is not allowed while it captures: ends the capture. */
CUresult capture_refuse(struct stream *s);
/* A call on the legacy stream, and calls that are unsafe in a capture. */
CUresult capture_implicit(struct ctx *c);
CUresult capture_unsafe(void);
void capture_stream_end(struct stream *s);

#endif
