/* SPDX-License-Identifier: MIT */
/* anon_threads.c - threads allocate, fill, read, pass on and free at once.
 *
 * Owns its blocks; a mailbox has the only lock. (1) Four threads own blocks of
 * their own and read the same shared ones. (2) A block is freed by another
 * thread than made it. (3) Threads end while others fault, and leave what
 * they made behind.
 */
/* env: OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
#include "anon.h"

#define THREADS	4
#define SHARED	3
#define OWN	4
#define ROUNDS	10

static struct block shared[SHARED];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block mailbox[THREADS];

static size_t length(uint32_t *seed)
{
	static const size_t base[] = { 70 * KIB, 600 * KIB, 2 * MIB, 4 * MIB };

	return base[trap_random(seed) % 4] + trap_random(seed) % (256 * KIB);
}

/* What another thread left is checked and freed here, ours is left. */
static void pass_on(int me, struct block *b)
{
	struct block got;

	pthread_mutex_lock(&lock);
	got = mailbox[(me + 1) % THREADS];
	mailbox[(me + 1) % THREADS] = (struct block){ .p = NULL };
	if (!mailbox[me].p) {
		mailbox[me] = *b;
		*b = (struct block){ .p = NULL };
	}
	pthread_mutex_unlock(&lock);
	if (got.p) {
		block_verify(&got, "made by another thread");
		block_free(&got);
	}
}

static void renew(struct block *b, uint32_t *seed, int me)
{
	if (b->p) {
		block_verify(b, "own block, before free");
		if (trap_random(seed) % 3 == 0)
			pass_on(me, b);
	}
	if (b->p)
		block_free(b);
	*b = block_new(1 + me * 1000 + trap_random(seed) % 1000, length(seed));
}

static void *worker(void *arg)
{
	int me = (int)(uintptr_t)arg;
	uint32_t seed = me + 1;
	struct block own[OWN] = { 0 };

	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < OWN; i++) {
			renew(&own[i], &seed, me);
			block_verify_random(&shared[i % SHARED], 4, seed,
					    "shared, at random");
		}
		for (int i = 0; i < OWN; i++) {
			block_verify(&own[i], "own block");
			if (trap_random(&seed) & 1)
				block_fill(&own[i], own[i].gen + 1);
		}
		block_verify(&shared[(round + me) % SHARED], "shared");
	}
	for (int i = 0; i < OWN; i++)
		block_free(&own[i]);
	return NULL;
}

/* A short life: a block is made, and outlives its thread. */
static void *brief(void *arg)
{
	struct block *b = arg;

	*b = block_new(b->id, 3 * MIB + b->id * 8);
	block_verify_random(&shared[b->id % SHARED], 6, b->id, "brief thread");
	return NULL;
}

static void short_lives(void)
{
	struct block left[8];
	pthread_t th[8];

	for (int i = 0; i < 8; i++) {
		left[i] = (struct block){ .id = 5000 + i };
		check(!pthread_create(&th[i], NULL, brief, &left[i]));
		if (i & 1)
			check(!pthread_join(th[i - 1], NULL));
	}
	for (int i = 1; i < 8; i += 2)
		check(!pthread_join(th[i], NULL));
	for (int i = 0; i < 8; i++) {
		block_verify(&left[i], "its thread is gone");
		block_free(&left[i]);
	}
}

/* Words of one page that several threads write, each its own. */
static _Atomic uint64_t *counters;

static void *count(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg;

	for (size_t i = 0; i < 1000; i++) {
		size_t page = i * 17 % (8 * MIB / PAGE);

		atomic_fetch_add(&counters[page * PAGE / 8 + me], 1);
		atomic_fetch_add(&counters[page * PAGE / 8 + 100], 1);
		if (!(i % 250))
			block_verify(&shared[me % SHARED], "beside counters");
	}
	return NULL;
}

static void one_page_many_writers(void)
{
	pthread_t th[THREADS];
	uint64_t own = 0, all = 0;

	counters = calloc(1, 8 * MIB);
	check(counters);
	for (uintptr_t i = 0; i < THREADS; i++)
		check(!pthread_create(&th[i], NULL, count, (void *)i));
	for (int i = 0; i < THREADS; i++)
		check(!pthread_join(th[i], NULL));
	for (size_t at = 0; at < 8 * MIB / 8; at += PAGE / 8) {
		for (int i = 0; i < THREADS; i++)
			own += counters[at + i];
		all += counters[at + 100];
	}
	check(own == 1000 * THREADS && all == 1000 * THREADS);
	free((void *)counters);
}

int main(void)
{
	pthread_t th[THREADS];

	for (int i = 0; i < SHARED; i++)
		shared[i] = block_new(9000 + i, (14 + i) * MIB + 4096 * i);
	for (uintptr_t i = 0; i < THREADS; i++)
		check(!pthread_create(&th[i], NULL, worker, (void *)i));
	short_lives();
	for (int i = 0; i < THREADS; i++)
		check(!pthread_join(th[i], NULL));
	one_page_many_writers();
	for (int i = 0; i < THREADS; i++)
		if (mailbox[i].p)
			block_verify(&mailbox[i], "left in the mailbox");
	for (int i = 0; i < SHARED; i++)
		block_verify(&shared[i], "shared, in the end");
	return 0;
}
