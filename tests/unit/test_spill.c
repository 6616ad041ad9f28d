/* SPDX-License-Identifier: MIT */
/* test_spill.c - the spill file: folders, room, limits (core/spill.h).
 *
 * Owns what spill_test.h does. (1) The file has no name and is nobody else's.
 * (2) A folder that will not do is named once, with the cause and the
 * remedy. (3) What is stored is read back whatever is given and freed around
 * it. (4) No limit is passed, and below it room is found. Lock: none.
 */
#include "spill_test.h"

#include <dirent.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define MIB (1u << 20)

static uint64_t statistic(enum off_stat i)
{
	return stat_get(off_stats_now, i);
}

static int names_in(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

/* The folder the store's file lies in. */
static bool lies_in(uint64_t ref, const char *folder)
{
	char link[64], path[256];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", buffered_of(ref));
	n = readlink(link, path, sizeof(path) - 1);
	CHECK(n > 0);
	path[n] = 0;
	return !strncmp(path, folder, strlen(folder)) &&
	       strchr(path + strlen(folder) + 1, '/') == NULL;
}

/* ---- the file -------------------------------------------------------------------- */

static void private_file(void)
{
	struct stat st;
	uint64_t ref;

	CHECK(spill_alloc(4096, &ref) == -ENODEV);
	CHECK(spill_open() == 0 && spill_open() == 0 && messages == 0);
	ref = must_alloc(4096);
	CHECK(!fstat(buffered_of(ref), &st));
	CHECK(S_ISREG(st.st_mode) && (st.st_mode & 07777) == 0600 && st.st_nlink == 0);
	CHECK(fcntl(buffered_of(ref), F_GETFD) == FD_CLOEXEC);
	CHECK(lies_in(ref, dir) && names_in(dir) == 0);
	if (direct_of(ref) >= 0) {
		CHECK(fcntl(direct_of(ref), F_GETFD) == FD_CLOEXEC);
		CHECK(fcntl(direct_of(ref), F_GETFL) & O_DIRECT);
	}
	store(ref, 4096, 1);
	CHECK(holds(ref, 4096, 1));
}

static void open_direct_off(void)
{
	uint64_t ref;

	off_opt.direct = OPT_DIRECT_OFF;
	CHECK(spill_open() == 0);
	ref = must_alloc(4096);
	CHECK(direct_of(ref) == -1);
	store(ref, 4096, 1);
	CHECK(holds(ref, 4096, 1));
}

/* Root may open anything: the folder is somebody's else for once. */
static void odd_umask(void)
{
	if (!geteuid())
		CHECK(!chown(dir, 65534, 65534) && !setuid(65534));
	umask(0777);
	CHECK(spill_open() == 0);
	must_alloc(4096);
	CHECK(spill_fork_begin() == 0);		/* opens it again */
}

/* A file system without O_TMPFILE: the call is answered for it. */
static void without_tmpfile(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { sizeof(code) / sizeof(code[0]), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
		_exit(SKIPPED);
	CHECK(open(dir, O_TMPFILE | O_RDWR, 0600) < 0 && errno == EOPNOTSUPP);
	private_file();
}

static void folder_goes_away(void)
{
	char gone[80];
	uint64_t ref;

	snprintf(gone, sizeof(gone), "%s/gone", dir);
	CHECK(!mkdir(gone, 0700));
	off_opt.spill = gone;
	CHECK(spill_open() == 0);
	ref = must_alloc(2 * MIB);
	CHECK(!rmdir(gone));
	store(ref, 2 * MIB, 7);
	CHECK(holds(ref, 2 * MIB, 7));
	must_alloc(2 * MIB);
	CHECK(messages == 0);
}

/* ---- folders that will not do ------------------------------------------------------ */

/* Refused once, in a line with all three. */
static void refused(const char *folder, int err, const char *why)
{
	uint64_t ref;

	messages = 0;
	CHECK(spill_open() == err);
	CHECK(messages == 1 && heard(folder) && heard(why) && heard("OFFLOAD_SPILL"));
	CHECK(spill_open() == -ENODEV && spill_alloc(4096, &ref) == -ENODEV);
	CHECK(messages == 1);
}

static void no_directory(void)
{
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	CHECK(fd >= 0);
	off_opt.spill = path;
	refused(path, -ENOTDIR, "not a directory");
	CHECK(!unlink(path));
}

static void missing(void)
{
	char path[80];

	snprintf(path, sizeof(path), "%s/nothing", dir);
	off_opt.spill = path;
	refused(path, -ENOENT, "does not exist");
}

static void not_writable(void)
{
	bool root = !geteuid();

	CHECK(root ? !chown(dir, 0, 0) && !setuid(65534) : !chmod(dir, 0500));
	refused(dir, -EACCES, "not writable");
	CHECK(root || !chmod(dir, 0700));
}

/* A mount namespace of our own; gone with the process. */
static void own_mounts(void)
{
	if (geteuid() || unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		_exit(SKIPPED);
}

static void must_mount(const char *type, const char *on, unsigned long flags,
		       const char *data)
{
	if (mount("test", on, type, flags, data))
		_exit(SKIPPED);
}

static void read_only(void)
{
	own_mounts();
	must_mount("tmpfs", dir, MS_RDONLY, "");
	refused(dir, -EROFS, "read-only");
}

static void full_from_the_start(void)
{
	fake_blocks = 1000000;
	fake_avail = 50000;
	refused(dir, -ENOSPC, "full");
}

static void file_size_limit(void)
{
	struct rlimit none = { 0, 0 };

	signal(SIGXFSZ, SIG_IGN);
	CHECK(!setrlimit(RLIMIT_FSIZE, &none));
	refused(dir, -EFBIG, "ulimit -f");
}

static void memory_asked_for(void)
{
	own_mounts();
	must_mount("tmpfs", dir, 0, "size=64m");
	CHECK(spill_open() == 0);
	CHECK(messages == 1 && heard(dir) && heard("in memory"));
	must_alloc(2 * MIB);
	CHECK(disk_bytes(must_alloc(2 * MIB)) == 0);	/* nothing ahead */
	CHECK(messages == 1);
}

static void unasked(unsigned int type)
{
	off_opt.spill = NULL;
	fake_type = type;
	fake_for = -1;
	CHECK(spill_open() == -ENOTSUP && messages == 1);
	CHECK(heard("/var/tmp is in memory") && heard("/tmp is in memory") &&
	      heard("set OFFLOAD_SPILL"));
}

static void memory_unasked(void)
{
	unasked(TMPFS_MAGIC);
}

static void ramfs_unasked(void)
{
	unasked(RAMFS_MAGIC);
}

static void second_folder(void)
{
	off_opt.spill = NULL;
	fake_type = TMPFS_MAGIC;
	fake_for = 1;
	fake_then = EXT4_SUPER_MAGIC;
	CHECK(spill_open() == 0);
	CHECK(lies_in(must_alloc(4096), "/tmp") && messages == 0);
}

/* An overlay says of itself only that it is one. */
static void overlay_on(const char *at, const char *base)
{
	char up[128], work[128], data[400];

	snprintf(up, sizeof(up), "%s/up", base);
	snprintf(work, sizeof(work), "%s/work", base);
	CHECK(!mkdir(up, 0700) && !mkdir(work, 0700));
	snprintf(data, sizeof(data), "lowerdir=/usr/share,upperdir=%s,workdir=%s", up, work);
	must_mount("overlay", at, 0, data);
}

static void overlay_in_memory(void)
{
	own_mounts();
	must_mount("tmpfs", dir, 0, "size=64m");
	must_mount("tmpfs", "/tmp", 0, "size=64m");
	overlay_on("/var/tmp", dir);
	off_opt.spill = NULL;
	CHECK(spill_open() == -ENOTSUP && messages == 1);
	CHECK(heard("/var/tmp is in memory") && heard("/tmp is in memory"));
}

/* ---- room ------------------------------------------------------------------------ */

static void sizes_refused(void)
{
	static const uint32_t bad[] = { 0, 1, 4095, 4097, 2 * MIB + 4096, UINT32_MAX };
	uint64_t ref = 5;

	CHECK(spill_open() == 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(spill_alloc(bad[i], &ref) == -EINVAL && ref == 5);
	CHECK(spill_fds(SPILL_NONE, &messages, &messages) == -EBADF);
}

static void side_by_side(void)
{
	uint64_t small;

	CHECK(spill_open() == 0);
	for (uint64_t i = 0; i < 5; i++)
		CHECK(spill_offset(must_alloc(2 * MIB)) == i * 2 * MIB);
	small = must_alloc(12288);
	CHECK(spill_offset(small) == 10 * MIB);
	CHECK(spill_offset(must_alloc(1400 << 10)) == 10 * MIB + 12288);
	/* Across a multiple of 2 MiB, but a whole one never. */
	CHECK(spill_offset(must_alloc(1400 << 10)) == 10 * MIB + 12288 + (1400 << 10));
	CHECK(spill_offset(must_alloc(2 * MIB)) == 14 * MIB);
}

static void same_bytes_back(void)
{
	enum { N = 60 };
	struct { uint64_t ref, seed; uint32_t bytes; } slot[N];
	uint64_t total = 0;
	uint32_t n = 0;

	CHECK(spill_open() == 0);
	for (uint64_t i = 1; i < 700; i++) {
		uint32_t k = n ? random_below(n) : 0;

		if (i % 50 == 0)
			spill_poll();
		if (n == N || (n && random_below(3) == 0)) {
			CHECK(holds(slot[k].ref, slot[k].bytes, slot[k].seed));
			spill_free(slot[k].ref, slot[k].bytes);
			total -= slot[k].bytes;
			slot[k] = slot[--n];
			continue;
		}
		slot[n].bytes = random_below(4) ? 4096 * (1 + random_below(512)) : 2 * MIB;
		slot[n].ref = must_alloc(slot[n].bytes);
		slot[n].seed = i << 32;
		store(slot[n].ref, slot[n].bytes, slot[n].seed);
		total += slot[n++].bytes;
		CHECK(spill_bytes() == total && statistic(ST_HOST_SPILLED) == total);
	}
	while (n--) {
		CHECK(holds(slot[n].ref, slot[n].bytes, slot[n].seed));
		spill_free(slot[n].ref, slot[n].bytes);
	}
	CHECK(spill_bytes() == 0 && statistic(ST_HOST_SPILLED) == 0);
}

static void many_small_slots(void)
{
	enum { N = 100000 };
	static uint64_t ref[N];

	CHECK(spill_open() == 0);
	for (uint32_t i = 0; i < N; i++) {
		ref[i] = must_alloc(4096);
		CHECK(spill_offset(ref[i]) == i * 4096ull);
	}
	for (uint32_t i = 0; i < N; i += 2)
		spill_free(ref[i], 4096);
	for (uint32_t i = N; i % 4096; i++)	/* the batch goes on */
		CHECK(spill_offset(must_alloc(4096)) == i * 4096ull);
	for (uint32_t i = 0; i < N / 2; i++)
		CHECK(spill_offset(must_alloc(4096)) == 2 * i * 4096ull);
	CHECK(file_size(ref[1]) <= N * 4096ull + 64 * MIB);
}

/* ---- limits ----------------------------------------------------------------------- */

static void spill_max(void)
{
	uint64_t ref[8], part[4], more;

	off_opt.spill_max = 17 * MIB;
	CHECK(spill_open() == 0);
	CHECK(statistic(ST_BUDGET_SPILL) == 17 * MIB);
	for (int i = 0; i < 8; i++)
		ref[i] = must_alloc(2 * MIB);
	CHECK(messages == 0);
	CHECK(spill_alloc(4096, &more) == -ENOSPC && spill_alloc(2 * MIB, &more) == -ENOSPC);
	CHECK(messages == 1 && heard("OFFLOAD_SPILL_MAX") && heard("17M"));
	CHECK(file_size(ref[0]) <= 17 * MIB);
	spill_free(ref[2], 2 * MIB);
	spill_free(ref[3], 2 * MIB);
	for (uint32_t i = 0; i < 4; i++) {
		part[i] = must_alloc(1 * MIB);
		CHECK(spill_offset(part[i]) == (4 + i) * MIB);
	}
	spill_free(part[1], 1 * MIB);
	spill_free(part[2], 1 * MIB);
	/* No whole 2 MiB block is left, but as much room. */
	CHECK(spill_offset(must_alloc(2 * MIB)) == 5 * MIB);
	CHECK(file_size(ref[0]) <= 17 * MIB && messages == 1);
}

static void spill_max_too_small(void)
{
	uint64_t ref;

	off_opt.spill_max = 2 * MIB - 1;
	CHECK(spill_open() == 0);
	CHECK(spill_alloc(4096, &ref) == -ENOSPC && heard("OFFLOAD_SPILL_MAX"));
}

/* 1000 blocks of 2 MiB; 50 are to stay free. */
static void disk_gets_full(void)
{
	uint64_t ref, more;

	fake_blocks = 512000;
	fake_avail = 512 * 60;
	CHECK(spill_open() == 0);
	ref = must_alloc(2 * MIB);
	for (int i = 1; i < 10; i++)
		must_alloc(2 * MIB);
	fake_avail = 512 * 50;
	CHECK(spill_alloc(2 * MIB, &more) == -ENOSPC);
	CHECK(messages == 1 && heard(dir) && heard("5%") && heard("OFFLOAD_SPILL"));
	asked_room = 0;
	CHECK(spill_alloc(4096, &more) == -ENOSPC && asked_room == 0);
	/* What it has, it can use. */
	spill_free(ref, 2 * MIB);
	CHECK(spill_offset(must_alloc(2 * MIB)) == 0);
	fake_avail = 512 * 51;
	clock_ns += 999999999;
	CHECK(spill_alloc(2 * MIB, &more) == -ENOSPC);
	clock_ns += 1;
	must_alloc(2 * MIB);
	fake_avail = 512 * 50;
	CHECK(spill_alloc(2 * MIB, &more) == -ENOSPC && asked_room == 2);
	CHECK(messages == 1);
}

static void room_asked_in_steps(void)
{
	CHECK(spill_open() == 0);
	asked_room = 0;
	for (int i = 0; i < 64; i++)
		must_alloc(2 * MIB);
	CHECK(asked_room == 2);
}

static void small_disk(void)
{
	uint64_t ref;
	int n = 0;

	own_mounts();
	must_mount("tmpfs", dir, 0, "size=20m");
	CHECK(spill_open() == 0);
	for (; spill_alloc(2 * MIB, &ref) == 0; n++)
		store(ref, 2 * MIB, (uint64_t)n);
	CHECK(n == 9);		/* 19 MiB in whole blocks */
	CHECK(heard(dir) && heard("5%"));
}

static void limit_while_growing(void)
{
	struct rlimit some = { 10 * MIB, 10 * MIB };
	uint64_t ref;
	int n = 0;

	signal(SIGXFSZ, SIG_IGN);
	CHECK(!setrlimit(RLIMIT_FSIZE, &some));
	CHECK(spill_open() == 0);
	for (; n < 6 && spill_alloc(2 * MIB, &ref) == 0; n++)
		;
	if (n == 6)
		_exit(SKIPPED);		/* nothing is reserved here */
	CHECK(n == 5 && messages == 1 && heard("ulimit -f") && heard(dir));
}

/* ---- giving room back --------------------------------------------------------------- */

static void tail_is_cut(void)
{
	uint64_t ref[100];

	CHECK(spill_open() == 0);
	for (int i = 0; i < 100; i++)
		ref[i] = must_alloc(2 * MIB);
	CHECK(file_size(ref[0]) >= 200 * MIB || !disk_bytes(ref[0]));
	for (int i = 1; i < 100; i++)
		spill_free(ref[i], 2 * MIB);
	spill_poll();
	CHECK(file_size(ref[0]) <= 66 * MIB);
	store(ref[0], 2 * MIB, 3);
	CHECK(spill_offset(must_alloc(2 * MIB)) == 2 * MIB);
	spill_free(ref[1], 2 * MIB);
	CHECK(holds(ref[0], 2 * MIB, 3));
	spill_free(ref[0], 2 * MIB);
	spill_poll();
	CHECK(file_size(ref[0]) == 0 && disk_bytes(ref[0]) == 0);
	for (int i = 0; i < 100; i++)
		CHECK(spill_offset(must_alloc(2 * MIB)) == (uint64_t)i * 2 * MIB);
}

/* A little is kept: it will be used again, and punching is work. */
static void few_holes_stay(void)
{
	uint64_t ref[64], before;

	CHECK(spill_open() == 0);
	for (int i = 0; i < 64; i++)
		ref[i] = must_alloc(2 * MIB);
	before = disk_bytes(ref[0]);
	for (int i = 8; i < 40; i++)
		spill_free(ref[i], 2 * MIB);
	spill_poll();
	CHECK(disk_bytes(ref[0]) == before);
}

static void holes_are_punched(void)
{
	uint64_t ref[128], before;

	CHECK(spill_open() == 0);
	for (int i = 0; i < 128; i++)
		ref[i] = must_alloc(2 * MIB);
	store(ref[0], 2 * MIB, 5);
	store(ref[127], 2 * MIB, 6);
	before = disk_bytes(ref[0]);
	if (before < 256 * MIB)
		_exit(SKIPPED);
	for (int i = 1; i < 127; i++)
		spill_free(ref[i], 2 * MIB);
	spill_poll();
	CHECK(disk_bytes(ref[0]) <= before - 120 * MIB);
	CHECK(file_size(ref[0]) == 256 * MIB);
	CHECK(holds(ref[0], 2 * MIB, 5) && holds(ref[127], 2 * MIB, 6));
	/* What was kept is used first, then the holes; the file stays. */
	for (int i = 1; i < 127; i++) {
		ref[i] = must_alloc(2 * MIB);
		CHECK(spill_offset(ref[i]) < 254 * MIB);
	}
	CHECK(disk_bytes(ref[0]) >= 256 * MIB);
	CHECK(holds(ref[0], 2 * MIB, 5) && holds(ref[127], 2 * MIB, 6));
}

/* ---- the write rate ------------------------------------------------------------------- */

static void no_rate(void)
{
	spill_written(1000);
	CHECK(spill_wait_ns(1) == 0 && statistic(ST_IO_WRITTEN) == 1000);
	spill_written(1ull << 50);
	CHECK(spill_wait_ns(1) == 0);
}

static void rate(void)
{
	uint64_t now = 7000000000ull;

	off_opt.spill_rate = 10 * MIB;
	for (int i = 0; i < 5; i++) {		/* a second's worth at once */
		CHECK(spill_wait_ns(now) == 0);
		spill_written(2 * MIB);
	}
	CHECK(spill_wait_ns(now) > 0 && spill_wait_ns(now) < 1000);
	spill_written(2 * MIB);
	CHECK(spill_wait_ns(now) / 1000000 == 200);
	CHECK(spill_wait_ns(now + 100000000) / 1000000 == 100);
	CHECK(spill_wait_ns(now + 200000100) == 0);
	/* No more than that is saved up. */
	now += 60000000000ull;
	CHECK(spill_wait_ns(now) == 0);
	spill_written(20 * MIB);
	CHECK(spill_wait_ns(now) / 1000000 == 1000);
}

static void rate_on_average(void)
{
	uint64_t now = 1, wrote = 0, wait;

	off_opt.spill_rate = 1000;	/* one byte a millisecond */
	while (now < 100000000000ull) {
		wait = spill_wait_ns(now);
		if (!wait) {
			spill_written(4096);
			wrote += 4096;
		}
		now += wait ? (wait < 100000 ? wait : 100000) : 1;
	}
	CHECK(wrote >= 100000 && wrote <= 101000 + 4096);
}

#define CASE(f) static void test_##f(void **state) { isolated(f); }
#define CASES \
	CASE(private_file) CASE(open_direct_off) CASE(odd_umask) \
	CASE(without_tmpfile) CASE(folder_goes_away) CASE(no_directory) \
	CASE(missing) CASE(ramfs_unasked) \
	CASE(not_writable) CASE(read_only) CASE(full_from_the_start) \
	CASE(file_size_limit) CASE(memory_asked_for) CASE(memory_unasked) \
	CASE(second_folder) CASE(overlay_in_memory) CASE(sizes_refused) \
	CASE(side_by_side) CASE(same_bytes_back) CASE(many_small_slots) \
	CASE(spill_max) CASE(spill_max_too_small) CASE(disk_gets_full) \
	CASE(room_asked_in_steps) CASE(small_disk) CASE(limit_while_growing) \
	CASE(tail_is_cut) CASE(few_holes_stay) CASE(holes_are_punched) \
	CASE(no_rate) CASE(rate) CASE(rate_on_average)
CASES
#undef CASE

int main(void)
{
#define CASE(f) cmocka_unit_test(test_##f),
	const struct CMUnitTest tests[] = { CASES };

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
