/* SPDX-License-Identifier: MIT */
/* io_pread.c - reads, and the hints mode's readahead, by a few threads.
 *
 * Owns a ring of jobs and a ring of results, one mutex and one condition of
 * its own (both outside the lock ranks: leaf, never held across a read), and
 * an eventfd that wakes the pager.
 */
#include "core/core_int.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define READERS 8
#define RING 256

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct io_job jobs[RING];
static struct io_done results[RING];
static uint32_t job_head, job_tail, res_head, res_tail;
static int event = -1;

static int perform(const struct io_job *job)
{
	switch (job->kind) {
	case IO_READ:
		return (int)off_sys_pread_all(job->fd, job->buf, job->len, (off_t)job->off);
	case IO_WRITE:
		return (int)off_sys_pwrite_all(job->fd, job->buf, job->len, (off_t)job->off);
	case IO_POPULATE:	/* read when this returns; no longer mapped here */
		if (!off_sys_madvise(job->buf, job->len, MADV_POPULATE_READ)) {
			off_sys_madvise(job->buf, job->len, MADV_DONTNEED);
			return (int)job->len;
		}
		__attribute__((fallthrough));
	case IO_READAHEAD:
		/* Starts the reads; the wait is for all but the last of them. */
		if (off_sys_readahead(job->fd, (off_t)job->off, job->len) < 0)
			return -errno;
		return (int)job->len;
	}
	return -EINVAL;
}

static void *reader(void *unused)
{
	library_thread_enter("offload-reader");
	watch_this("offload-reader");
	pthread_mutex_lock(&lock);
	for (;;) {
		struct io_job job;
		int res;

		while (job_head == job_tail)
			pthread_cond_wait(&more, &lock);
		job = jobs[job_head++ % RING];
		pthread_mutex_unlock(&lock);
		res = perform(&job);
		pthread_mutex_lock(&lock);
		results[res_tail++ % RING] = (struct io_done){ job.chunk, res };
		pthread_mutex_unlock(&lock);
		eventfd_write(event, 1);
		pthread_mutex_lock(&lock);
	}
	return NULL;
}

static int pread_open(uint32_t depth)
{
	int made = 0;

	/* A forked child opens anew, whatever the parent's readers were at. */
	pthread_mutex_init(&lock, NULL);
	pthread_cond_init(&more, NULL);
	job_head = job_tail = res_head = res_tail = 0;
	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (event < 0)
		return -errno;
	for (int i = 0; i < READERS; i++)
		made += !library_thread_start(reader, NULL, 128 << 10);
	return made ? 0 : -EAGAIN;
}

static int pread_submit(const struct io_job *job)
{
	int err = 0;

	pthread_mutex_lock(&lock);
	if (job_tail - job_head == RING)
		err = -EAGAIN;
	else
		jobs[job_tail++ % RING] = *job;
	pthread_cond_signal(&more);
	pthread_mutex_unlock(&lock);
	return err;
}

static int pread_reap(struct io_done *out, int max)
{
	eventfd_t drained;
	int n = 0;

	(void)!eventfd_read(event, &drained);
	pthread_mutex_lock(&lock);
	while (n < max && res_head != res_tail)
		out[n++] = results[res_head++ % RING];
	pthread_mutex_unlock(&lock);
	return n;
}

static int pread_fd(void)
{
	return event;
}

const struct io_ops io_pread_ops = {
	.name = "pread", .open = pread_open, .submit = pread_submit,
	.reap = pread_reap, .fd = pread_fd,
};
