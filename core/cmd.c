/* SPDX-License-Identifier: MIT */
/* cmd.c - requests from program threads to the library's threads.
 *
 * A command lies on its caller's stack. Program threads cannot touch the
 * library's descriptors (R4), so they ring the keeper by futex; the keeper
 * passes on what is the pager's, through an eventfd the pager polls.
 *
 *   program --push, futex--> keeper --push, eventfd--> pager --futex--> program
 *
 * Lock: none; each queue is a lock-free list emptied whole by its one reader.
 */
#include "core/core_int.h"

#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Atomic(struct cmd *) keeper_list, pager_list;
static _Atomic uint32_t bell;
static int event = -1;

static void push(_Atomic(struct cmd *) *list, struct cmd *c)
{
	c->next = atomic_load(list);
	while (!atomic_compare_exchange_weak(list, &c->next, c))
		;
}

/* Takes the whole list and turns it round: oldest first. */
static struct cmd *take(_Atomic(struct cmd *) *list)
{
	struct cmd *c = atomic_exchange(list, NULL), *first = NULL;

	while (c) {
		struct cmd *next = c->next;

		c->next = first;
		first = c;
		c = next;
	}
	return first;
}

int cmd_open(void)
{
	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return event < 0 ? -errno : 0;
}

/* Who is to do it may be gone: not even the keeper would then say so, who waits
 * for the pager here. */
static int wait_done(struct cmd *c)
{
	struct timespec t = { 1, 0 };

	while (!atomic_load(&c->done))
		if (syscall(SYS_futex, &c->done, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0) &&
		    errno == ETIMEDOUT)
			watch_look();
	return c->result;
}

int cmd_call(struct cmd *c)
{
	atomic_store(&c->done, 0);
	push(&keeper_list, c);
	atomic_fetch_add(&bell, 1);
	syscall(SYS_futex, &bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	return wait_done(c);
}

int cmd_pager_call(struct cmd *c)
{
	atomic_store(&c->done, 0);
	cmd_to_pager(c);
	return wait_done(c);
}

void cmd_ring_pager(void)
{
	eventfd_write(event, 1);
}

void cmd_to_pager(struct cmd *c)
{
	push(&pager_list, c);
	cmd_ring_pager();
}

void cmd_done(struct cmd *c, int result)
{
	_Atomic uint32_t *done = &c->done;

	c->result = result;
	atomic_store(done, 1);	/* c may be gone from here on */
	syscall(SYS_futex, done, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

struct cmd *cmd_take_keeper(void)
{
	return take(&keeper_list);
}

struct cmd *cmd_take_pager(void)
{
	eventfd_t drained;

	(void)!eventfd_read(event, &drained);
	return take(&pager_list);
}

int cmd_pager_fd(void)
{
	return event;
}

void cmd_wait_keeper(uint64_t ns)
{
	struct timespec t = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
	uint32_t seen = atomic_load(&bell);

	if (!atomic_load(&keeper_list))
		syscall(SYS_futex, &bell, FUTEX_WAIT_PRIVATE, seen, &t, NULL, 0);
}

void cmd_reset(void)
{
	atomic_store(&keeper_list, NULL);
	atomic_store(&pager_list, NULL);
	event = -1;
}
