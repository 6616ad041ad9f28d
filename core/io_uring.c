/* SPDX-License-Identifier: MIT */
/* io_uring.c - reads through one ring of the pager's own.
 *
 * (1) No registered buffers: pinned pages refuse UFFDIO_MOVE.
 * (2) Completions run when the pager asks (DEFER_TASKRUN) where the kernel
 *     has that, so that they never interrupt a fault being served.
 * Lock: none; pager thread only.
 */
#include "core/core_int.h"

#include <liburing.h>
#include <sys/eventfd.h>

static struct io_uring ring;
static int event = -1;		/* polling the ring itself misses deferred work */

#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

static bool deferred;

static int ring_event(void)
{
	int err;

	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (event < 0)
		return -errno;
	err = io_uring_register_eventfd(&ring, event);
	if (err)
		off_sys_close(event);
	return err;
}

static int ring_open(uint32_t depth)
{
	int err = io_uring_queue_init(depth * 4, &ring,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

	deferred = !err;
	if (err == -EINVAL)
		err = io_uring_queue_init(depth * 4, &ring, 0);
	if (err)
		return err;
	err = ring_event();
	if (err)
		io_uring_queue_exit(&ring);
	return err;
}

static int ring_submit(const struct io_job *job)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe)
		return -EAGAIN;
	if (job->kind == IO_WRITE)
		io_uring_prep_write(sqe, job->fd, job->buf, job->len, job->off);
	else
		io_uring_prep_read(sqe, job->fd, job->buf, job->len, job->off);
	sqe->user_data = job->chunk;
	/* Refused for now (no memory)? It is queued all the same, and goes
	 * out with the next one or from ring_reap: never to be given up. */
	io_uring_submit(&ring);
	return 0;
}

static int ring_reap(struct io_done *out, int max)
{
	struct io_uring_cqe *cqe;
	eventfd_t drained;
	int n = 0;

	(void)!eventfd_read(event, &drained);
	if (io_uring_sq_ready(&ring))
		io_uring_submit(&ring);
	if (deferred && io_uring_cq_ready(&ring) == 0)
		io_uring_get_events(&ring);
	while (n < max && !io_uring_peek_cqe(&ring, &cqe) && cqe) {
		out[n].chunk = (uint32_t)cqe->user_data;
		out[n++].res = cqe->res;
		io_uring_cqe_seen(&ring, cqe);
	}
	return n;
}

static int ring_fd(void)
{
	return event;
}

const struct io_ops io_uring_ops = {
	.name = "io_uring", .open = ring_open, .submit = ring_submit,
	.reap = ring_reap, .fd = ring_fd,
};
