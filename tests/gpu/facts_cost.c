/* SPDX-License-Identifier: MIT */
/* facts_cost.c - questions about time: who waits for whom, and what things cost.
 *
 * Costs are the least of several rounds. On an emulated card the figures mean nothing.
 * Owns nothing that outlives a question; lock: none.
 */
#include "tests/gpu/facts.h"
#include "tests/gpu/facts_ptx.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS (card.emulated ? 1 : 5)

/* ---- who waits for running kernels ----------------------------------------------- */

/* What a call needs, made before. */
static struct {
	size_t len;
	CUdeviceptr p, at;
	void *host;
	CUmemGenericAllocationHandle h;
	CUmodule module;
	uint64_t word;
	CUresult err;
} w;

static void call_alloc(void *arg) { w.err = drv.cuMemAlloc_v2(&w.p, w.len); }
static void call_free(void *arg) { w.err = drv.cuMemFree_v2(w.p); }
static void call_host_alloc(void *arg) { w.err = drv.cuMemHostAlloc(&w.host, w.len, 0); }
static void call_host_free(void *arg) { w.err = drv.cuMemFreeHost(w.host); }
static void call_register(void *arg) { w.err = drv.cuMemHostRegister_v2(w.host, w.len, 0); }
static void call_unregister(void *arg) { w.err = drv.cuMemHostUnregister(w.host); }
static void call_create(void *arg) { w.err = handle_new(!ON_HOST, w.len, &w.h); }
static void call_release(void *arg) { w.err = drv.cuMemRelease(w.h); }

static void call_map(void *arg)
{
	w.err = map_at(w.at, w.len, w.h);
	if (w.err == CUDA_SUCCESS)
		w.err = access_at(w.at, w.len);
}

static void call_unmap(void *arg) { w.err = drv.cuMemUnmap(w.at, w.len); }
static void call_load(void *arg) { w.err = drv.cuModuleLoadData(&w.module, FACTS_PTX); }
static void call_copy(void *arg) { w.err = drv.cuMemcpyHtoD_v2(card.out, &w.word, 8); }

static void host_block(void)
{
	w.host = aligned_alloc(4096, w.len);
	if (!w.host)
		unknown("no memory");
	memset(w.host, 1, w.len);
}

static void before_register(void) { host_block(); }
static void before_alloc(void) { }
static void before_free(void) { need(cuMemAlloc_v2, &w.p, w.len); }
static void before_host_free(void) { need(cuMemHostAlloc, &w.host, w.len, 0); }

static void before_unregister(void)
{
	host_block();
	need(cuMemHostRegister_v2, w.host, w.len, 0);
}

static void before_release(void)
{
	if (handle_new(!ON_HOST, w.len, &w.h) != CUDA_SUCCESS)
		unknown("cuMemCreate fails");
}

static void before_map(void)
{
	before_release();
	w.at = addresses(w.len);
}

static void before_unmap(void)
{
	before_map();
	put_at(w.at, w.len, w.h);
}

/* By the argument in facts.def. */
static const struct { void (*before)(void), (*call)(void *); } waits[] = {
	{ before_alloc, call_alloc }, { before_free, call_free },
	{ before_alloc, call_host_alloc }, { before_host_free, call_host_free },
	{ before_register, call_register }, { before_unregister, call_unregister },
	{ before_alloc, call_create }, { before_release, call_release },
	{ before_map, call_map }, { before_unmap, call_unmap },
	{ before_alloc, call_load }, { before_alloc, call_copy },
};

void ask_waits(uint64_t i)
{
	double us;
	bool late;

	w.len = 4 * extent();
	waits[i].before();
	late = waited(waits[i].call, NULL, &us);
	if (w.err != CUDA_SUCCESS)
		unknown("the call failed: %s", error_name(w.err));
	say("%s (%.0f us)", late ? "yes" : "no", us);
}

/* ---- what things cost ------------------------------------------------------------ */

enum step { CREATE, MAP, ACCESS, UNMAP, RELEASE, STEPS };

static double least[STEPS];

static void step(enum step s, CUresult r, double *from)
{
	double now = now_us();

	if (r != CUDA_SUCCESS)
		unknown("step %d: %s", (int)s, error_name(r));
	if (!least[s] || now - *from < least[s])
		least[s] = now - *from;
	*from = now_us();
}

void ask_cost(uint64_t len)
{
	static const char *const names[] = { "create", "map", "access", "unmap", "release" };
	CUdeviceptr at;

	for (int host = 0; host < 2; host++) {
		CUmemGenericAllocationHandle h;

		if (len < extent())
			unknown("the granularity is %zu", card.granularity);
		memset(least, 0, sizeof(least));
		at = addresses(len);
		for (int i = 0; i < ROUNDS; i++) {
			double from = now_us();

			step(CREATE, handle_new(host, len, &h), &from);
			step(MAP, map_at(at, len, h), &from);
			step(ACCESS, access_at(at, len), &from);
			need(cuCtxSynchronize);
			from = now_us();
			step(UNMAP, drv.cuMemUnmap(at, len), &from);
			step(RELEASE, drv.cuMemRelease(h), &from);
		}
		say("%s", host ? "; host: " : "device: ");
		for (int s = 0; s < STEPS; s++)
			say("%s%s %.1f", s ? ", " : "", names[s], least[s]);
		say(" us");
	}
}

#define MANY 200

/* The least time of one of MANY. */
#define EACH(call) ({ \
	double best_ = 0; \
	for (int r_ = 0; r_ < ROUNDS; r_++) { \
		double from_ = now_us(), took_; \
		for (int i_ = 0; i_ < MANY; i_++) \
			if ((call) != CUDA_SUCCESS) \
				unknown("%s fails", #call); \
		took_ = (now_us() - from_) / MANY; \
		if (drv.cuCtxSynchronize() != CUDA_SUCCESS) \
			unknown("what was queued failed"); \
		best_ = !r_ || took_ < best_ ? took_ : best_; \
	} \
	best_; \
})

void ask_events(uint64_t arg)
{
	CUevent e;

	need(cuEventCreate, &e, CU_EVENT_DISABLE_TIMING);
	need(cuEventRecord, e, card.stream);
	need(cuStreamSynchronize, card.stream);
	say("query %.2f us", EACH(drv.cuEventQuery(e)));
	say(", record %.2f", EACH(drv.cuEventRecord(e, card.stream)));
	say(", wait %.2f", EACH(drv.cuStreamWaitEvent(card.other, e, 0)));
}

void ask_launch(uint64_t arg)
{
	say("%.2f us", EACH(queue_sum(card.stream, card.out, 0)));
	say(", with its end %.2f us", EACH(queue_sum(card.stream, card.out, 0) ?:
					   drv.cuStreamSynchronize(card.stream)));
}

/* ---- the link -------------------------------------------------------------------- */

static size_t link_bytes(void)
{
	return card.emulated ? 4 * MB : 256 * MB;
}

static void ends(CUstream s)
{
	CUresult r = drv.cuStreamSynchronize(s);

	if (r != CUDA_SUCCESS)
		unknown("what was queued failed: %s", error_name(r));
}

struct way {
	CUdeviceptr to, from;	/* device memory, in and out */
	void *in, *out;		/* pinned */
	size_t len;
};

static CUresult go_in(struct way *y)
{
	return drv.cuMemcpyHtoDAsync_v2(y->to, y->in, y->len, card.stream);
}

static CUresult go_out(struct way *y)
{
	return drv.cuMemcpyDtoHAsync_v2(y->out, y->from, y->len, card.other);
}

/* GB/s of so many bytes each time. */
static double rate(struct way *y, CUresult (*a)(struct way *), CUresult (*b)(struct way *),
		   size_t bytes)
{
	double best = 0;

	for (int i = 0; i < ROUNDS; i++) {
		double from = now_us(), took;

		if ((a && a(y) != CUDA_SUCCESS) || (b && b(y) != CUDA_SUCCESS))
			unknown("it cannot be queued");
		ends(card.stream);
		ends(card.other);
		took = now_us() - from;
		best = i && took > best ? best : took;
	}
	return (double)bytes / best / 1e3;
}

static struct way a_way(void)
{
	struct way y = { .len = link_bytes() };

	need(cuMemAlloc_v2, &y.to, y.len);
	need(cuMemAlloc_v2, &y.from, y.len);
	need(cuMemHostAlloc, &y.in, y.len, 0);
	need(cuMemHostAlloc, &y.out, y.len, 0);
	memset(y.in, 1, y.len);
	return y;
}

void ask_link(uint64_t arg)
{
	struct way y = a_way();

	say("in %.1f GB/s", rate(&y, go_in, NULL, y.len));
	say(", out %.1f", rate(&y, NULL, go_out, y.len));
	say(", both at once %.1f together", rate(&y, go_in, go_out, 2 * y.len));
}

static CUdeviceptr in_place;	/* what kernels read */

static CUresult go_read(struct way *y)
{
	return queue_sum(card.other, in_place, y->len);
}

static CUdeviceptr host_home(size_t len)
{
	CUdeviceptr at = addresses(len);
	CUmemGenericAllocationHandle h;
	CUresult r = handle_new(ON_HOST, len, &h);

	if (r != CUDA_SUCCESS)
		unknown("no host handle: %s", error_name(r));
	put_at(at, len, h);
	return at;
}

void ask_in_place(uint64_t beside)
{
	struct way y = a_way();

	y.len = (y.len + extent() - 1) / extent() * extent();
	in_place = host_home(y.len);
	if (queue_fill(card.other, in_place, y.len, 1) != CUDA_SUCCESS)
		unknown("a kernel cannot be queued");
	ends(card.other);
	if (beside) {
		y.len = link_bytes();
		say("%.1f GB/s together", rate(&y, go_in, go_read, 2 * y.len));
		return;
	}
	say("host home %.1f GB/s", rate(&y, NULL, go_read, y.len));
	y.len = link_bytes();
	need(cuMemHostGetDevicePointer_v2, &in_place, y.in, 0);
	say(", pinned %.1f", rate(&y, NULL, go_read, y.len));
	in_place = y.from;
	say(", device memory %.1f", rate(&y, NULL, go_read, y.len));
}

/* What was read once may be nearer then. */
void ask_again(uint64_t arg)
{
	size_t most = card.emulated ? MB : 32 * MB, whole = (most + extent() - 1) / extent() * extent();

	in_place = host_home(whole);
	if (queue_fill(card.other, in_place, whole, 1) != CUDA_SUCCESS)
		unknown("a kernel cannot be queued");
	ends(card.other);
	for (size_t len = MB / 2; len <= most; len *= 4) {
		struct way y = { .len = len };
		double from;

		rate(&y, NULL, go_read, len);
		from = now_us();
		for (int i = 0; i < 20; i++)
			if (go_read(&y) != CUDA_SUCCESS)
				unknown("a kernel cannot be queued");
		ends(card.other);
		say("%s%.1f MB: %.1f GB/s", len == MB / 2 ? "" : ", ", (double)len / MB,
		    20 * (double)len / (now_us() - from) / 1e3);
	}
}

/* ---- threads ------------------------------------------------------------------------ */

#define MOST_THREADS 8

static CUmemGenericAllocationHandle made[MOST_THREADS][8];
static int each;
static size_t each_bytes;

static void *makes(void *arg)
{
	CUmemGenericAllocationHandle *h = arg;

	for (int i = 0; i < each; i++)
		if (handle_new(ON_HOST, each_bytes, &h[i]) != CUDA_SUCCESS)
			return h;
	return NULL;
}

void ask_threads(uint64_t arg)
{
	each_bytes = card.emulated ? extent() : 32 * MB;
	for (int n = 1; n <= MOST_THREADS; n *= 2) {
		pthread_t t[MOST_THREADS];
		void *failed = NULL, *end;
		double from = now_us(), took;

		each = MOST_THREADS / n;
		for (int i = 0; i < n; i++)
			if (pthread_create(&t[i], NULL, makes, made[i]))
				unknown("no thread");
		for (int i = 0; i < n; i++) {
			pthread_join(t[i], &end);
			failed = failed ? failed : end;
		}
		took = now_us() - from;
		if (failed)
			unknown("cuMemCreate fails");
		for (int i = 0; i < n * each; i++)
			drv.cuMemRelease(made[i / each][i % each]);
		say("%s%d: %.2f GB/s", n == 1 ? "" : ", ", n,
		    (double)(each_bytes * MOST_THREADS) / took / 1e3);
	}
}
