/* SPDX-License-Identifier: MIT */
/* stream.c - streams: queues of work, each with a thread that runs it (E8).
 *
 *   queued --the one before it ended, what it depends on ended--> running --> done
 *
 * Owns all streams and what is queued.
 * (1) An operation depends on the one queued before it in its stream, on what its stream
 *     was told to wait for, and on the legacy stream's latest, unless its stream is
 *     non-blocking; one of the legacy stream depends on the latest of all blocking ones.
 * (2) It starts after a delay of 0 to 2 x EMU_DELAY_US, drawn from EMU_SEED.
 * (3) After an error of its context nothing runs, but everything ends.
 * Lock: the emulator's; threads run work without it.
 */
#include "tests/emu/emu.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

static struct stream *streams;
static uint64_t ids, seqs, threads;
static __thread uint64_t this_thread;

struct stream *stream_first(void)
{
	return streams;
}

/* ---- operations ------------------------------------------------------------------ */

struct op *op_get(struct op *op)
{
	if (op)
		op->refs++;
	return op;
}

void op_put(struct op *op)
{
	if (!op || --op->refs)
		return;
	for (unsigned i = 0; i < op->ndeps; i++)
		op_put(op->deps[i]);
	free(op->deps);
	work_drop(&op->w);
	free(op);
}

void op_wait(struct op *op)
{
	op_get(op);
	while (!op->done)
		pthread_cond_wait(&emu.change, &emu.lock);
	op_put(op);
}

void op_depend(struct op *op, struct op *on)
{
	if (!on || on->done)
		return;
	op->deps = realloc(op->deps, (op->ndeps + 1) * sizeof(struct op *));
	if (!op->deps)
		abort();
	op->deps[op->ndeps++] = op_get(on);
}

static bool ready(const struct op *op)
{
	for (unsigned i = 0; i < op->ndeps; i++)
		if (!op->deps[i]->done)
			return false;
	return true;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the thread of a stream --------------------------------------------------------- */

static void run(struct op *op)
{
	unsigned delay = emu.opt.delay_us ? (unsigned)(emu_random() % (2 * emu.opt.delay_us)) : 0;
	bool dead = op->w.ctx->sticky != CUDA_SUCCESS;

	pthread_mutex_unlock(&emu.lock);
	if (!dead) {
		if (delay)
			usleep(delay);
		work_run(&op->w, op->seq);
	}
	pthread_mutex_lock(&emu.lock);
}

static void unlink_stream(struct stream *s)
{
	struct stream **at = &streams;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	op_put(s->last);
	free(s);
}

static void *worker(void *arg)
{
	struct stream *s = arg;

	pthread_mutex_lock(&emu.lock);
	while (s->head || !s->stop) {
		struct op *op = s->head;

		if (!op || !ready(op)) {
			pthread_cond_wait(&emu.change, &emu.lock);
			continue;
		}
		run(op);
		op->done = true;
		op->when = now_ns();
		s->head = op->next;
		if (!s->head)
			s->tail = NULL;
		op_put(op);
		pthread_cond_broadcast(&emu.change);
	}
	unlink_stream(s);
	pthread_mutex_unlock(&emu.lock);
	return NULL;
}

static void start(struct stream *s)
{
	sigset_t all, old;
	pthread_t t;

	if (s->started)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&t, NULL, worker, s))
		abort();
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_detach(t);
	s->started = true;
}

/* ---- streams ---------------------------------------------------------------------------- */

struct stream *stream_new(struct ctx *c, unsigned flags, int priority)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		abort();
	s->ctx = c;
	s->flags = flags;
	s->priority = priority;
	s->id = ++ids;
	s->handle = obj_new(K_STREAM, s);
	s->next = streams;
	streams = s;
	return s;
}

void stream_end(struct stream *s)
{
	capture_stream_end(s);
	obj_end(s->handle);
	s->stop = true;
	if (!s->started)
		unlink_stream(s);
	pthread_cond_broadcast(&emu.change);
}

static struct stream *of_thread(struct ctx *c)
{
	struct stream *s;

	if (!this_thread)
		this_thread = ++threads;
	for (s = streams; s; s = s->next)
		if (s->ctx == c && s->thread == this_thread && !s->stop)
			return s;
	s = stream_new(c, 0, 0);
	s->thread = this_thread;
	return s;
}

struct stream *stream_get(CUstream h, CUresult *err)
{
	struct ctx *c = ctx_current();
	struct stream *s;

	*err = CUDA_SUCCESS;
	if ((uintptr_t)h > 2) {
		s = obj_get(K_STREAM, (uintptr_t)h);
		*err = s ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
		return s;
	}
	if (!c) {
		*err = CUDA_ERROR_INVALID_CONTEXT;
		return NULL;
	}
	if (h == CU_STREAM_PER_THREAD || (!h && emu_ptds))
		return of_thread(c);
	return c->legacy;
}

static bool blocking(const struct stream *s)
{
	return !(s->flags & CU_STREAM_NON_BLOCKING);
}

CUresult stream_submit_op(struct stream *s, struct work *w, struct op **out)
{
	struct op *op;
	CUresult r = CUDA_SUCCESS;

	if (out)
		*out = NULL;
	w->ctx = s->ctx;
	if (s->capture)
		return capture_add(s, w);
	if (s->ctx->sticky)
		r = s->ctx->sticky;
	else if (s->legacy)
		r = capture_implicit(s->ctx);
	if (r) {
		work_drop(w);
		return r;
	}
	op = calloc(1, sizeof(*op));
	if (!op)
		abort();
	op->w = *w;
	op->stream = s;
	op->seq = ++seqs;
	op->refs = 1;
	if (s->legacy) {
		for (const struct stream *o = streams; o; o = o->next)
			if (o != s && o->ctx == s->ctx && blocking(o))
				op_depend(op, o->last);
	} else if (blocking(s)) {
		op_depend(op, s->ctx->legacy->last);
	}
	if (s->tail)
		s->tail->next = op;
	else
		s->head = op;
	s->tail = op;
	op_put(s->last);
	s->last = op_get(op);
	if (out)
		*out = op_get(op);
	start(s);
	pthread_cond_broadcast(&emu.change);
	return CUDA_SUCCESS;
}

CUresult stream_submit(struct stream *s, struct work *w)
{
	return stream_submit_op(s, w, NULL);
}

void stream_after(struct stream *s, struct op *on)
{
	struct work w = { .kind = W_WAIT };
	struct op *op;

	if (stream_submit_op(s, &w, &op) == CUDA_SUCCESS && op) {
		op_depend(op, on);
		op_put(op);
	}
}

CUresult stream_wait(struct stream *s)
{
	struct ctx *c = s->ctx;

	if (s->capture)
		return capture_refuse(s);
	if (s->legacy) {
		struct work w = { .kind = W_EMPTY };
		CUresult r = stream_submit(s, &w);

		if (r)
			return r;
	}
	if (s->last)
		op_wait(s->last);
	return c->sticky;
}

CUresult ctx_wait(struct ctx *c)
{
	for (;;) {
		struct stream *s = streams;

		while (s && (s->ctx != c || !s->head))
			s = s->next;
		if (!s)
			return c->sticky;
		op_wait(s->tail);
	}
}

CUresult device_wait(int device)
{
	struct ctx *c;

	for (unsigned at = 0; (c = obj_next(K_CTX, &at));)
		if (c->device == device)
			ctx_wait(c);
	c = ctx_current();
	return c ? c->sticky : CUDA_SUCCESS;
}

const struct op *op_reaching(uint64_t addr, uint64_t size, const struct op *but)
{
	for (const struct stream *s = streams; s; s = s->next)
		for (const struct op *op = s->head; op; op = op->next)
			if (op != but && !op->done && work_reaches(&op->w, addr, size))
				return op;
	return NULL;
}

const struct op *op_racing(uint64_t addr, uint64_t size, uint64_t seq)
{
	for (const struct stream *s = streams; s; s = s->next)
		for (const struct op *op = s->head; op; op = op->next)
			if (op->seq < seq && !op->done && work_reaches(&op->w, addr, size))
				return op;
	return NULL;
}

/* ---- the driver's functions ----------------------------------------------------------------- */

CUresult i_cuStreamCreateWithPriority(CUstream *out, unsigned int flags, int priority)
{
	struct ctx *c = ctx_current();

	if (!out || flags & ~(unsigned)CU_STREAM_NON_BLOCKING)
		return CUDA_ERROR_INVALID_VALUE;
	if (!c)
		return CUDA_ERROR_INVALID_CONTEXT;
	*out = (CUstream)stream_new(c, flags, priority)->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuStreamCreate(CUstream *out, unsigned int flags)
{
	return i_cuStreamCreateWithPriority(out, flags, 0);
}

CUresult i_cuStreamDestroy_v2(CUstream h)
{
	struct stream *s = obj_get(K_STREAM, (uintptr_t)h);

	if (!s || s->legacy || s->thread)
		return CUDA_ERROR_INVALID_HANDLE;
	stream_end(s);
	return CUDA_SUCCESS;
}

CUresult i_cuStreamSynchronize(CUstream h)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);

	return s ? stream_wait(s) : r;
}

CUresult i_cuStreamQuery(CUstream h)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);

	if (!s)
		return r;
	if (s->capture)
		return capture_refuse(s);
	for (const struct stream *o = s->legacy ? streams : NULL; o; o = o->next)
		if (o->ctx == s->ctx && blocking(o) && o->head)
			return CUDA_ERROR_NOT_READY;
	return s->head ? CUDA_ERROR_NOT_READY : s->ctx->sticky;
}

CUresult i_cuStreamGetFlags(CUstream h, unsigned int *flags)
{
	CUresult r;
	const struct stream *s = stream_get(h, &r);

	if (!flags || !s)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	*flags = s->flags;
	return CUDA_SUCCESS;
}

CUresult i_cuStreamGetPriority(CUstream h, int *priority)
{
	CUresult r;
	const struct stream *s = stream_get(h, &r);

	if (!priority || !s)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	*priority = s->priority;
	return CUDA_SUCCESS;
}

CUresult i_cuStreamGetId(CUstream h, unsigned long long *id)
{
	CUresult r;
	const struct stream *s = stream_get(h, &r);

	if (!id || !s)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	*id = s->id;
	return CUDA_SUCCESS;
}

CUresult i_cuStreamGetCtx(CUstream h, CUcontext *out)
{
	CUresult r;
	const struct stream *s = stream_get(h, &r);

	if (!out || !s)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	*out = (CUcontext)s->ctx->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuStreamGetDevice(CUstream h, CUdevice *device)
{
	CUresult r;
	const struct stream *s = stream_get(h, &r);

	if (!device || !s)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	*device = s->ctx->device;
	return CUDA_SUCCESS;
}

static CUlaunchAttributeValue *attribute(struct stream *s, CUstreamAttrID id)
{
	switch (id) {
	case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW: return &s->attr[0];
	case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY: return &s->attr[1];
	default: return NULL;
	}
}

CUresult i_cuStreamGetAttribute(CUstream h, CUstreamAttrID id, CUstreamAttrValue *value)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);

	if (!s || !value || !attribute(s, id))
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	*value = *attribute(s, id);
	return CUDA_SUCCESS;
}

CUresult i_cuStreamSetAttribute(CUstream h, CUstreamAttrID id, const CUstreamAttrValue *value)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);

	if (!s || !value || !attribute(s, id))
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	*attribute(s, id) = *value;
	return CUDA_SUCCESS;
}

CUresult i_cuLaunchHostFunc(CUstream h, CUhostFn fn, void *data)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);
	struct work w = { .kind = W_HOST };

	if (!s || !fn)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	w.u.host.fn = fn;
	w.u.host.data = data;
	return stream_submit(s, &w);
}

CUresult i_cuStreamAddCallback(CUstream h, CUstreamCallback fn, void *data, unsigned int flags)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);
	struct work w = { .kind = W_CALLBACK };

	if (!s || !fn || flags)
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	if (s->capture)
		return capture_refuse(s);
	w.u.host.callback = fn;
	w.u.host.data = data;
	w.u.host.stream = h;
	return stream_submit(s, &w);
}

static CUresult value(CUstream h, CUdeviceptr addr, uint64_t v, unsigned flags, unsigned bytes,
		      enum work_kind kind)
{
	CUresult r;
	struct stream *s = stream_get(h, &r);
	struct work w = { .kind = kind };

	if (!s || addr % bytes || !vm_mapped(addr, bytes))
		return r ? r : CUDA_ERROR_INVALID_VALUE;
	w.u.value.addr = addr;
	w.u.value.value = v;
	w.u.value.bytes = bytes;
	w.u.value.flags = flags;
	return stream_submit(s, &w);
}

CUresult i_cuStreamWriteValue32_v2(CUstream h, CUdeviceptr addr, cuuint32_t v, unsigned int flags)
{
	return value(h, addr, v, flags, 4, W_VALUE);
}

CUresult i_cuStreamWriteValue64_v2(CUstream h, CUdeviceptr addr, cuuint64_t v, unsigned int flags)
{
	return value(h, addr, v, flags, 8, W_VALUE);
}

CUresult i_cuStreamWaitValue32_v2(CUstream h, CUdeviceptr addr, cuuint32_t v, unsigned int flags)
{
	return value(h, addr, v, flags, 4, W_AWAIT);
}

CUresult i_cuStreamWaitValue64_v2(CUstream h, CUdeviceptr addr, cuuint64_t v, unsigned int flags)
{
	return value(h, addr, v, flags, 8, W_AWAIT);
}
