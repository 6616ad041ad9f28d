/* SPDX-License-Identifier: MIT */
/* event.c - events: the latest record, an operation of a stream or a point of a capture.
 *
 * Owns events. (1) An event never recorded is complete. (2) One recorded in a capture can
 * only be waited for there (E10). Lock: the emulator's.
 */
#include "tests/emu/emu.h"

static struct event *event_of(CUevent h)
{
	return obj_get(K_EVENT, (uintptr_t)h);
}

void event_put(struct event *e)
{
	if (--e->refs)
		return;
	op_put(e->op);
	free(e->cap);
	free(e);
}

CUresult i_cuEventCreate(CUevent *out, unsigned int flags)
{
	const unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING |
			       CU_EVENT_INTERPROCESS;
	struct event *e;

	if (!out || flags & ~known)
		return CUDA_ERROR_INVALID_VALUE;
	if (!ctx_current())
		return CUDA_ERROR_INVALID_CONTEXT;
	e = calloc(1, sizeof(*e));
	if (!e)
		abort();
	e->ctx = ctx_current();
	e->flags = flags;
	e->refs = 1;
	e->handle = obj_new(K_EVENT, e);
	*out = (CUevent)e->handle;
	return CUDA_SUCCESS;
}

CUresult i_cuEventDestroy_v2(CUevent h)
{
	struct event *e = event_of(h);

	if (!e)
		return CUDA_ERROR_INVALID_HANDLE;
	obj_end(e->handle);
	event_put(e);
	return CUDA_SUCCESS;
}

CUresult i_cuEventRecordWithFlags(CUevent h, CUstream hs, unsigned int flags)
{
	struct work w = { .kind = W_RECORD };
	struct event *e = event_of(h);
	CUresult r;
	struct stream *s = stream_get(hs, &r);
	struct op *op;

	if (!e || !s)
		return s ? CUDA_ERROR_INVALID_HANDLE : r;
	if (flags & ~(unsigned)CU_EVENT_RECORD_EXTERNAL)
		return CUDA_ERROR_INVALID_VALUE;
	if (e->ctx != s->ctx)
		return CUDA_ERROR_INVALID_HANDLE;
	if (s->capture && !flags)
		return capture_record(s, e);
	w.u.event = e;
	if (s->capture)
		e->refs++;
	else
		w.u.event = NULL;
	r = stream_submit_op(s, &w, &op);
	if (r || !op)
		return r;
	e->capture = NULL;
	op_put(e->op);
	e->op = op;
	return CUDA_SUCCESS;
}

CUresult i_cuEventRecord(CUevent h, CUstream hs)
{
	return i_cuEventRecordWithFlags(h, hs, 0);
}

CUresult i_cuStreamWaitEvent(CUstream hs, CUevent h, unsigned int flags)
{
	struct work w = { .kind = W_WAIT };
	struct event *e = event_of(h);
	CUresult r;
	struct stream *s = stream_get(hs, &r);

	if (!e || !s)
		return s ? CUDA_ERROR_INVALID_HANDLE : r;
	if (flags & ~(unsigned)CU_EVENT_WAIT_EXTERNAL)
		return CUDA_ERROR_INVALID_VALUE;
	if (e->capture)
		return capture_wait(s, e);
	if (s->capture && !flags)
		return e->op ? CUDA_ERROR_STREAM_CAPTURE_ISOLATION : CUDA_SUCCESS;
	if (s->capture) {
		w.u.event = e;
		e->refs++;
		return stream_submit(s, &w);
	}
	if (e->op && !e->op->done)
		stream_after(s, e->op);
	return s->ctx->sticky;
}

CUresult i_cuEventQuery(CUevent h)
{
	const struct event *e = event_of(h);

	if (!e)
		return CUDA_ERROR_INVALID_HANDLE;
	if (e->capture)
		return CUDA_ERROR_CAPTURED_EVENT;
	return e->op && !e->op->done ? CUDA_ERROR_NOT_READY : e->ctx->sticky;
}

CUresult i_cuEventSynchronize(CUevent h)
{
	struct event *e = event_of(h);
	struct ctx *c;

	if (!e)
		return CUDA_ERROR_INVALID_HANDLE;
	if (e->capture)
		return CUDA_ERROR_CAPTURED_EVENT;
	c = e->ctx;
	if (e->op)
		op_wait(e->op);
	return c->sticky;
}

CUresult i_cuEventElapsedTime_v2(float *ms, CUevent from, CUevent to)
{
	const struct event *a = event_of(from), *b = event_of(to);

	if (!ms)
		return CUDA_ERROR_INVALID_VALUE;
	if (!a || !b || (a->flags | b->flags) & CU_EVENT_DISABLE_TIMING || !a->op || !b->op)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!a->op->done || !b->op->done)
		return CUDA_ERROR_NOT_READY;
	*ms = (float)((double)(int64_t)(b->op->when - a->op->when) / 1e6);
	return CUDA_SUCCESS;
}

CUresult i_cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
	return i_cuEventElapsedTime_v2(ms, from, to);
}
