/* SPDX-License-Identifier: MIT */
/* test_vmm.c - placed device memory (core/vmm*.c) on a driver of this file's own, each of
 * whose operations fails at its n-th call.
 *
 * Owns the driver: addresses, mappings, handles with a stamp for each granule. Lock: none.
 * (1) Whatever fails, a region that lives reaches its bytes, all of them mapped and
 *     accessible. (2) What was not granted leaves nothing behind; nor does what ended, if
 *     the driver took it back. (3) Budget and host memory are never exceeded. (4) Nothing
 *     is unmapped unless everything was waited for since work could be queued. (5) The same
 *     where a part is in a spill file, and where that takes no more.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "core/vmm_int.h"
#include "core/vmm_use.h"
#include "vmm_test.h"

/* ---- a program --------------------------------------------------------------------- */

struct place { uint64_t at, n; uint32_t number; };

static bool get(struct place *r, uint64_t granules)
{
	int err = vmm_alloc(0, CTX, granules * G, &r->at, &r->number);

	if (err)
		r->number = 0;
	r->n = granules;
	if (!err)
		told[(r->at >> 32) % 4096] = true;
	idle = false;
	for (uint64_t i = 0; r->number && vmm_nth(r->number)->n && i < granules; i++)
		*stamp(r->at + i * G) = r->number * 1000 + (uint32_t)i;
	return !err;
}

static void check(const struct place *r)
{
	for (uint64_t i = 0; r->number && vmm_nth(r->number)->n && i < r->n; i++)
		assert_int_equal(*stamp(r->at + i * G), r->number * 1000 + i);
}

static void put(struct place *r)
{
	if (r->number && !vmm_free(r->number))
		r->number = 0;
	idle = false;
}

static void reset(void)
{
	vmm_lock();
	vmm_child();
	memset(handles, 0, sizeof(handles));
	memset(told, 0, sizeof(told));
	next_address = 0;
	memset(off_stats_now->device[0].v, 0, sizeof(off_stats_now->device[0].v));
	off_stats_now->device[0].v[SD_BUDGET] = BUDGET;
	n_maps = n_reserved = n_pins = taken_badly = 0;
	device_used = host_used = worst_device = worst_host = calls = fail_at = 0;
	idle = leaks = false;
	off_opt.vram = BUDGET;
	off_opt.ram = HOST;
	vmm_ops = &fake;
}

static void end(struct place *r, int n)
{
	bool refused = fail_at != 0;

	for (int i = 0; i < n; i++) {
		check(&r[i]);
		put(&r[i]);
		put(&r[i]);	/* what was refused is not, a second time */
		assert_int_equal(r[i].number, 0);
	}
	assert_int_equal(taken_badly, 0);
	assert_true(leaks || (worst_device <= BUDGET && worst_host <= HOST));
	vmm_handle_flush(0);
	if (refused && leaks)
		return;
	assert_int_equal(n_maps, 0);
	assert_int_equal(n_pins, 0);
	assert_int_equal(n_reserved, vmm_dev[0].window != 0);
	assert_int_equal(device_used + host_used, 0);
	assert_int_equal(vmm_stat(0, SD_RESIDENT), 0);
	assert_int_equal(vmm_stat(0, SD_HOST_HOME), 0);
}

/* More than fits, room made for others, freed in the middle, more again. */
static void program(void)
{
	struct place r[6] = { 0 };

	for (int i = 0; i < 4; i++)
		get(&r[i], 10 + 13 * (uint64_t)i);
	vmm_make_room(0, CTX, 20 * G, true);
	for (int i = 0; i < 4; i++)
		check(&r[i]);
	put(&r[1]);
	get(&r[4], 30);
	vmm_make_room(0, CTX, 5 * G, true);
	get(&r[5], 3);
	end(r, 6);
}

static void every_failure(void **state)
{
	static const int errors[] = { -EIO, -ENOMEM, -EINVAL };
	uint64_t all;

	reset();
	program();
	all = calls;
	assert_true(all > 100);
	assert_true(off_stats_now->device[0].v[SD_MOVED] > 0);
	for (int mode = 0; mode < 3; mode++)
		for (int e = 0; e < 3; e++)
			for (uint64_t n = 1; n <= all; n++) {
				reset();
				no_host = mode == 1;
				no_mix = mode == 2;
				fail_at = n;
				fail_with = errors[e];
				program();
			}
	no_host = no_mix = false;
}

static void admission(void **state)
{
	struct place r[3] = { 0 };

	reset();
	assert_true(get(&r[0], 100));
	assert_int_equal(vmm_alloc(0, CTX, 29 * G, &r[1].at, &r[1].number), -ENOMEM);
	assert_true(get(&r[2], 20));
	end(r, 3);
}

/* Addresses are no numbers that programs have; where a driver gives others, it is known. */
static void apart(void **state)
{
	uint64_t at[14];
	uint32_t number[14];

	reset();
	obeys = true;
	for (uint64_t i = 0; i < 14; i++) {
		uint64_t len = (i + 1) * G;

		assert_int_equal(vmm_alloc(0, CTX, len, &at[i], &number[i]), 0);
		assert_true(vmm_nth(number[i])->apart);
		for (uint64_t b = 0; b < len; b += G) {
			assert_true((at[i] + b) & 1ull << 31);
			assert_in_range((at[i] + b) >> 32, 0x5b3d, 0x6fff);
		}
	}
	obeys = false;
	for (int i = 0; i < 14; i++)
		assert_int_equal(vmm_free(number[i]), 0);
	assert_int_equal(vmm_alloc(0, CTX, G, &at[0], &number[0]), 0);
	assert_false(vmm_nth(number[0])->apart);
	assert_int_equal(vmm_free(number[0]), 0);
}

/* The owner goes: its regions go, others stay. */
static void owners(void **state)
{
	struct place r[2] = { 0 };
	uint64_t at;
	uint32_t number;

	reset();
	assert_true(get(&r[0], 20));
	assert_int_equal(vmm_alloc(0, CTX + 1, 30 * G, &at, &number), 0);
	vmm_drop_owner(CTX + 1);
	assert_null(vmm_nth(number));
	end(r, 1);
}

/* While it is captured, and while somebody is inside, it is only put aside. */
static void put_aside(void **state)
{
	struct place r[2] = { 0 };
	int before;

	reset();
	assert_true(get(&r[0], 20));
	before = n_maps;
	vmm_capture(1);
	put(&r[0]);
	assert_int_equal(n_maps, before);
	vmm_capture(-1);
	assert_true(get(&r[1], 1));
	assert_true(n_maps < before);
	end(r, 2);
}

/* Where kinds change, ranges are cut; nowhere else. */
static void runs(void **state)
{
	struct place r[2] = { 0 };
	const struct vmm_region *v;
	struct device_region d;
	uint64_t sum = 0, n;

	reset();
	assert_true(get(&r[0], 100));
	v = vmm_nth(r[0].number);
	d = (struct device_region){ .base = v->base, .len = v->len, .placed = r[0].number };
	assert_true(device_add(&d));
	while (sum < 100 * G - 50) {
		uint64_t at = v->base + 50 + sum;

		n = vmm_run(at, 100 * G - 50 - sum);
		assert_true(n > 0);
		for (uint64_t a = at; a < at + n; a = (a & ~(G - 1)) + G)
			assert_int_equal(v->ext[(a - v->base) / v->extent].host,
					 v->ext[(at - v->base) / v->extent].host);
		sum += n;
		if (sum < 100 * G - 50)
			assert_int_not_equal(v->ext[(at + n - v->base) / v->extent].host,
					     v->ext[(at - v->base) / v->extent].host);
	}
	assert_int_equal(sum, 100 * G - 50);
	device_drop_range(v->base, v->size);
	end(r, 1);
}

static uint32_t in_device(const struct place *r)
{
	const struct vmm_region *v = vmm_nth(r->number);
	uint32_t n = 0;

	for (uint32_t i = 0; i < v->n; i++)
		n += !v->ext[i].host;
	return n;
}

static void known(const struct place *r, unsigned int mark)
{
	struct device_region d = { .base = r->at, .len = r->n * G, .placed = r->number };

	assert_true(device_add(&d));
	device_mark(r->at, mark);
}

/* What kernels work on takes the place of what is only filled; what is free then and
 * stays free goes to that. A second look finds nothing to do. */
static void settles(void **state)
{
	struct place r[3] = { 0 };
	uint64_t before;

	reset();
	assert_true(get(&r[0], 100));
	known(&r[0], DEVICE_FILLED);
	assert_true(get(&r[1], 20));
	assert_true(in_device(&r[1]) < 5);
	vmm_idle(0);			/* nobody has used it yet */
	assert_int_equal(vmm_stat(0, SD_DRAINS), 0);
	known(&r[1], DEVICE_USED);
	vmm_idle(0);
	vmm_idle(0);
	assert_int_equal(in_device(&r[1]), vmm_nth(r[1].number)->n);
	check(&r[0]);
	check(&r[1]);
	before = calls;
	for (int i = 0; i < 20; i++)
		vmm_idle(0);
	assert_int_equal(calls, before);
	device_drop_range(r[1].at, r[1].n * G);
	put(&r[1]);
	before = in_device(&r[0]);
	for (int i = 0; i < 200; i++)
		vmm_idle(0);
	assert_true(in_device(&r[0]) > before + 5);
	device_drop_range(r[0].at, r[0].n * G);
	end(r, 1);
}

/* As settles: whatever fails while homes change places. Groups of graphs come and go. */
static void settling(void)
{
	struct place r[2] = { 0 };
	struct vmm_group *g;
	uint64_t from;

	for (int i = 0; i < 2; i++)
		if (get(&r[i], i ? 20 : 100))
			known(&r[i], i ? DEVICE_USED : DEVICE_FILLED);
	for (int i = 0; i < 12; i++) {
		from = r[0].at + (uint64_t)(i < 6) * 50 * G;
		g = vmm_group_new(&from, 1);
		vmm_group_used(g);
		vmm_group_end(g);
		vmm_idle(0);
		idle = false;
		check(&r[0]);
		check(&r[1]);
	}
	for (int i = 0; i < 2; i++)
		if (r[i].number)
			device_drop_range(r[i].at, r[i].n * G);
	end(r, 2);
}

static void settling_failures(void **state)
{
	static const int errors[] = { -EIO, -ENOMEM, -EINVAL };
	uint64_t all;

	reset();
	settling();
	all = calls;
	assert_true(off_stats_now->device[0].v[SD_MOVED] > 0);
	for (int e = 0; e < 3; e++)
		for (uint64_t n = 1; n <= all; n++) {
			reset();
			fail_at = n;
			fail_with = errors[e];
			settling();
		}
}

/* ---- spilled homes ------------------------------------------------------------------- */

#define SPILLS	4	/* allocations of 60 granules, of which 128 have homes */

/* A call that touches [at, at + len): what it is answered; write: it stamps it. */
static int touch(const struct place *r, uint64_t first, uint64_t n, bool write)
{
	struct vmm_reach w = { .n = 1, .range = { { r->at + first * G, n * G } } };
	bool in;
	int err = vmm_enter_reach(&w, &in);

	assert_int_equal(in, !err);
	for (uint64_t i = first; !err && i < first + n; i++) {
		if (write)
			*stamp(r->at + i * G) = r->number * 1000 + (uint32_t)i;
		assert_int_equal(*stamp(r->at + i * G), r->number * 1000 + i);
	}
	idle = false;
	vmm_leave(in);
	return err;
}

static void all_right(const struct place *r)
{
	for (int i = 0; i < SPILLS; i++)
		assert_int_equal(touch(&r[i], 0, r[i].n, false), 0);
}

/* Each call of a driver that brings spilled memory home fails once: the call is not made,
 * nothing is lost, and the next one is right. */
static void spill_failures(const struct place *r)
{
	static const int errors[] = { -EIO, -ENOMEM, -EINVAL };
	bool through = false;

	for (uint64_t n = 1; !through; n++) {
		fail_at = calls + n;
		fail_with = errors[n % 3];
		for (int i = 0; i < SPILLS; i++)
			touch(&r[i], 0, r[i].n, n % 2);
		through = calls < fail_at;
		fail_at = 0;
		all_right(r);
	}
}

/* A disk that takes no more: homes stay where they are, and the call fails. */
static void full_disk(const struct place *r)
{
	struct rlimit was, little;
	int failed = 0;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	little = (struct rlimit){ 4096, was.rlim_max };
	for (int i = 0; i < SPILLS; i++) {
		assert_int_equal(touch(&r[i], 0, r[i].n, false), 0);
		for (uint64_t k = 0; k < r[i].n; k++)
			*stamp(r[i].at + k * G) += 7;		/* must be written anew */
		setrlimit(RLIMIT_FSIZE, &little);
		for (int k = 0; k < SPILLS; k++)
			if (k != i)
				failed += vmm_nth(r[k].number)->n_spilled &&
					  touch(&r[k], 0, r[k].n, false) != 0;
		setrlimit(RLIMIT_FSIZE, &was);
		assert_int_equal(vmm_nth(r[i].number)->n_spilled <= vmm_nth(r[i].number)->n, 1);
		{
			struct vmm_reach w = { .n = 1, .range = { { r[i].at, r[i].n * G } } };
			bool in;

			assert_int_equal(vmm_enter_reach(&w, &in), 0);
			for (uint64_t k = 0; k < r[i].n; k++)
				*stamp(r[i].at + k * G) -= 7;
			idle = false;
			vmm_leave(in);
		}
	}
	assert_true(failed > 0);
	all_right(r);
}

/* A kernel without an address among its arguments reaches what a variable of a module
 * points to. */
static void by_variable(const struct place *r)
{
	const struct vmm_reach w = { .kernel = true };
	const uint64_t variable = 0x40000000;
	uint32_t away = 0;
	bool in;

	assert_true(device_add(&(struct device_region){ .base = variable, .len = 8,
							.kind = DEVICE_GLOBAL }));
	for (int i = 0; i < SPILLS; i++) {
		away += !!vmm_nth(r[i].number)->n_spilled;
		vmm_points(variable, &r[i].at, 8, true);
		assert_int_equal(vmm_enter_reach(&w, &in), 0);
		assert_true(in);
		assert_int_equal(vmm_nth(r[i].number)->n_spilled, 0);
		vmm_leave(in);
	}
	assert_true(away > 0);
	vmm_points_moved(0, variable, 8, true);
	device_drop_range(variable, 8);
}

static void spills(void **state)
{
	struct place r[SPILLS] = { 0 };
	uint64_t written, at;
	uint32_t number;
	bool in;

	reset();
	off_opt.device_deep = 1;
	for (int i = 0; i < SPILLS; i++) {
		r[i].n = 60;
		assert_int_equal(vmm_alloc(0, CTX, 60 * G, &r[i].at, &r[i].number), 0);
		told[(r[i].at >> 32) % 4096] = true;
		known(&r[i], DEVICE_FILLED);
		for (uint64_t k = 0; k < 60; k += 7)	/* a load, in pieces */
			assert_int_equal(touch(&r[i], k, 60 - k < 7 ? 60 - k : 7, true), 0);
	}
	assert_true(vmm_stat(0, SD_SPILLED) >= (SPILLS * 60 - 128) * G);
	all_right(r);
	by_variable(r);
	/* What is only read is not written again. */
	all_right(r);
	written = vmm_stat(0, SD_SPILL_OUT);
	assert_true(written <= SPILLS * 60 * G);
	for (int i = 0; i < 5; i++)
		all_right(r);
	assert_int_equal(vmm_stat(0, SD_SPILL_OUT), written);
	/* More than there are homes for at once. */
	assert_int_equal(vmm_enter_reach(&(struct vmm_reach){ .all = true }, &in), -ENOMEM);
	assert_false(in);
	all_right(r);
	spill_failures(r);
	full_disk(r);
	/* More than the file may hold. */
	off_opt.spill_max = 4ull << 20;
	assert_int_equal(vmm_alloc(0, CTX, 65536 * G, &at, &number), -ENOMEM);
	off_opt.spill_max = 0;
	for (int i = 0; i < SPILLS; i++) {
		device_drop_range(r[i].at, r[i].n * G);
		put(&r[i]);
		assert_int_equal(r[i].number, 0);
	}
	assert_int_equal(vmm_stat(0, SD_SPILLED), 0);
	end(r, 0);
	off_opt.device_deep = 0;
}

/* A file that is full, of slots and one block: what goes out takes the slots of another,
 * none of its own; and no more is in the device than its budget, though there is room. */
static void fill_file(void)
{
	const uint64_t e = 4ull << 20;		/* bytes of an extent: two pieces */
	struct place r[2] = { 0 };

	gran = e;
	capacity = 8 * e;
	reset();
	off_opt.device_deep = 1;
	off_opt.vram = off_stats_now->device[0].v[SD_BUDGET] = 4 * e;
	off_opt.ram = e;
	off_opt.spill_max = 4 * e + e / 2;
	for (int i = 0; i < 2; i++) {
		r[i].n = 4;
		assert_int_equal(vmm_alloc(0, CTX, 4 * e, &r[i].at, &r[i].number), 0);
		device_add(&(struct device_region){ .base = r[i].at, .len = 4 * e,
						    .placed = r[i].number });
		device_mark(r[i].at, DEVICE_FILLED);
	}
	assert_int_equal(vmm_stat(0, SD_SPILLED), 3 * e);
	assert_true(device_used <= 4 * e && host_used <= e);
	for (uint32_t n = 0; n < 8; n++)
		for (int i = 0; i < 2; i++) {
			struct vmm_reach w = { .n = 1, .range = { { r[i].at, 4 * e } } };
			bool in;

			assert_int_equal(vmm_enter_reach(&w, &in), 0);
			for (uint32_t k = 0; k < 4; k++) {
				assert_true(!n || *stamp(r[i].at + k * e) == n * 8 + k);
				*stamp(r[i].at + k * e) = (n + 1) * 8 + k;
			}
			vmm_leave(in);
		}
	for (int i = 0; i < 2; i++) {
		device_drop_range(r[i].at, 4 * e);
		put(&r[i]);
	}
	vmm_handle_flush(0);
	assert_int_equal(device_used + host_used + (uint64_t)n_maps, 0);
}

/* In a child, before this process has a file: its threads live as long as the process. */
static void full_file(void **state)
{
	pid_t child = fork();
	int status = 0;

	if (!child) {
		fill_file();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void count_point(uint64_t value, void *arg)
{
	*(uint32_t *)arg += 1;
}

/* Tables of addresses in device memory: what is copied over is forgotten, but by a copy that
 * is only captured. */
static void points(void **state)
{
	const uint64_t a = 0x10000000, b = 0x20000000, table = 0x30000000;
	uint64_t value[2];
	uint32_t n;

	reset();
	atomic_store(&vmm_deep, true);
	for (int i = 0; i < 2; i++) {
		value[i] = (1ull << 40) + (uint64_t)i * G;
		assert_true(device_add(&(struct device_region){ .base = value[i], .len = G,
								.placed = 1 }));
	}
	vmm_points(a, &value[0], 8, true);
	vmm_points(b, &value[1], 8, true);
	for (int i = 0; i < 10; i++) {
		vmm_points_moved(table, i % 2 ? a : b, 8, true);
		n = 0;
		vmm_points_in(table, 8, count_point, &n);
		assert_int_equal(n, 1);
	}
	for (int i = 0; i < 10; i++) {		/* one or the other may be there */
		vmm_points_moved(table, i % 2 ? a : b, 8, false);
		n = 0;
		vmm_points_in(table, 8, count_point, &n);
		assert_int_equal(n, 2);
	}
	vmm_points(table, &value[1], 8, false);
	n = 0;
	vmm_points_in(table, 8, count_point, &n);
	assert_int_equal(n, 2);
	vmm_points_moved(0, table, 8, true);
	n = 0;
	vmm_points_in(table, 8, count_point, &n);
	assert_int_equal(n, 0);
	device_drop_range(value[0], 2 * G);
	reset();
}

static _Atomic bool stop;

static void *queues(void *arg)
{
	while (!stop) {
		bool in = vmm_enter();

		idle = false;
		vmm_leave(in);
	}
	return NULL;
}

/* (4), with threads that never stop queueing. */
static void gate(void **state)
{
	struct place r[2] = { 0 };
	pthread_t t[2];

	reset();
	assert_true(get(&r[0], 60));
	stop = false;
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, queues, NULL);
	for (int i = 0; i < 50; i++) {
		get(&r[1], 10);
		vmm_make_room(0, CTX, G, true);
		put(&r[1]);
	}
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	end(r, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_failure), cmocka_unit_test(admission),
		cmocka_unit_test(apart),
		cmocka_unit_test(owners), cmocka_unit_test(put_aside), cmocka_unit_test(runs),
		cmocka_unit_test(settles), cmocka_unit_test(settling_failures),
		cmocka_unit_test(gate), cmocka_unit_test(points),
		cmocka_unit_test(full_file), cmocka_unit_test(spills),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
