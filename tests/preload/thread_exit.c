/* SPDX-License-Identifier: MIT */
/* thread_exit.c - threads come, fault, and go in every way there is.
 *
 * Owns nothing; lock: none. Return, pthread_exit, cancellation while a fault
 * is being served, detached, and the main thread leaving first.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

static struct trap t;

static void *brief(void *arg)
{
	verify_random(&t, 4, (uint32_t)(uintptr_t)arg, "brief thread");
	if ((uintptr_t)arg & 1)
		pthread_exit(NULL);
	return NULL;
}

static void *endless(void *arg)
{
	int old;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
	for (;;)
		for (volatile unsigned char *p = t.map; p < t.map + t.size;
		     p += PAGE)
			(void)*p;
	return NULL;
}

static void many(bool detached)
{
	pthread_attr_t a;
	pthread_t th[8];

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 64 * KIB);
	if (detached)
		pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	for (uintptr_t round = 0; round < 12; round++) {
		for (uintptr_t i = 0; i < 8; i++)
			check(!pthread_create(&th[i], &a, brief,
					      (void *)(round * 8 + i)));
		for (int i = 0; i < 8 && !detached; i++)
			check(!pthread_join(th[i], NULL));
	}
	pthread_attr_destroy(&a);
}

static void cancelled(void)
{
	pthread_t th;

	for (int i = 0; i < 12; i++) {
		check(!pthread_create(&th, NULL, endless, NULL));
		verify_random(&t, 20, i, "beside a thread to be cancelled");
		check(!pthread_cancel(th));
		check(!pthread_join(th, NULL));
	}
}

static void *last(void *arg)
{
	check(!pthread_join(*(pthread_t *)arg, NULL));
	verify_passes(&t, 2, "after the main thread left");
	exit(trap_done(&t));
}

int main(void)
{
	static pthread_t self;
	pthread_t th;

	self = pthread_self();
	trap_start(&t);
	verify_passes(&t, 2, "before");
	many(false);
	many(true);
	cancelled();
	verify_passes(&t, 2, "after");
	check(!pthread_create(&th, NULL, last, &self));
	pthread_exit(NULL);
}
