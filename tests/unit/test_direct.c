/* SPDX-License-Identifier: MIT */
/* test_direct.c - which reads may hold pages unseen, and that the heap waits for them.
 * Owns a scratch file. Lock: none. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/anon.h"
#include "core/core_int.h"

static const uint32_t local[] = { EXT4_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC };
/* NFS, Ceph; then FUSE, 9p, CIFS, SMB2 */
static const uint32_t far[] = { NFS_SUPER_MAGIC, 0x00c36400 };
static const uint32_t always[] = { 0x65735546, V9FS_MAGIC, 0xff534d42, 0xfe534d42 };

static void test_file_systems(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(local) / 4; i++) {
		assert_true(direct_unseen(local[i], true, false));
		assert_false(direct_unseen(local[i], true, true));
		assert_false(direct_unseen(local[i], false, false));
	}
	for (size_t i = 0; i < sizeof(far) / 4; i++) {
		assert_true(direct_unseen(far[i], true, true));
		assert_true(direct_unseen(far[i], true, false));
		assert_false(direct_unseen(far[i], false, false));
	}
	for (size_t i = 0; i < sizeof(always) / 4; i++)
		assert_true(direct_unseen(always[i], false, true) &&
			    direct_unseen(always[i], false, false));
}

static void test_descriptors(void **state)
{
	const char *dir = getenv("TMPDIR");
	char name[4096];
	int p[2], fd, direct;

	(void)state;
	snprintf(name, sizeof(name), "%s/direct.XXXXXX", dir ? dir : "/var/tmp");
	fd = mkstemp(name);
	assert_true(fd >= 0);
	direct = open(name, O_RDONLY | O_DIRECT);
	unlink(name);
	direct_mode(MODE_COPY);
	assert_false(core_read_direct(fd));
	errno = 7;
	assert_true(direct < 0 || core_read_direct(direct));
	assert_false(core_read_direct(-1));
	assert_int_equal(errno, 7);
	assert_int_equal(pipe2(p, O_DIRECT), 0);	/* packets, not pages */
	assert_false(core_read_direct(p[0]));
	direct_mode(MODE_HINTS);
	assert_false(core_direct_matters);
}

static _Atomic bool ended;

static void *end_later(void *how)
{
	struct timespec t = { 0, 100000000 };

	nanosleep(&t, NULL);
	atomic_store(&ended, true);
	core_read_end(*(enum core_read *)how);
	return NULL;
}

static void test_closing(void **state)
{
	char *block;
	enum core_read how;
	pthread_t th;

	(void)state;
	core_heap_min = 1 << 20;
	block = core_heap_alloc(4 << 20, 16, false);
	assert_non_null(block);
	direct_mode(MODE_COPY);
	assert_int_equal(core_read_begin(&how, sizeof(how)), CORE_READ_PLAIN);
	how = core_read_begin(block, 4096);
	assert_int_equal(how, CORE_READ_COUNTED);
	assert_int_equal(pthread_create(&th, NULL, end_later, &how), 0);
	direct_close();
	assert_true(ended);
	pthread_join(th, NULL);
	assert_int_equal(core_read_begin(block, 4096), CORE_READ_ELSEWHERE);
	direct_open();
	assert_int_equal(core_read_begin(block, 4096), CORE_READ_COUNTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file_systems),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_closing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
