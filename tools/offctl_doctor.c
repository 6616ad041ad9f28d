/* SPDX-License-Identifier: MIT */
/* offctl_doctor.c - what this machine allows, what it costs, how to mend it.
 *
 * Owns nothing. Each thing the library needs is tried, not looked up, where
 * trying is harmless. Exit status: 0 the move mode works, 1 a lesser one,
 * 2 none.
 */
#include "offctl.h"

#include <argp.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/budget.h"
#include "core/options.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

struct doctor_args {
	const char *dir, *file;
	bool no_disk;
};

static const struct argp_option opts[] = {
	{ "dir", 'd', "DIR", 0, "where models lie: O_DIRECT and speed are "
	  "tried there with a temporary file of 256 MiB (.)", 0 },
	{ "file", 'f', "FILE", 0, "measure by reading this file instead", 0 },
	{ "no-disk", 'n', NULL, 0, "leave the disk alone", 0 },
	{ 0 }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct doctor_args *a = state->input;

	switch (key) {
	case 'd':
		a->dir = arg;
		return 0;
	case 'f':
		a->file = arg;
		return 0;
	case 'n':
		a->no_disk = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

void tell(enum finding f, const char *what, const char *cost,
	  const char *mend, const char *fmt, ...)
{
	static const char *const marks[] = { "ok  ", "less", "none", "    " };
	va_list ap;

	printf("%s  %-12s ", marks[f], what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	if (cost)
		printf("%*s cost: %s\n", 18, "", cost);
	if (mend)
		printf("%*s mend: %s\n", 18, "", mend);
	fflush(stdout);
}

/* A file of /proc or /sys, under OFFLOAD_SYSROOT. */
static FILE *open_told(const char *path)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s%s", off_opt.sysroot ? off_opt.sysroot : "", path);
	return fopen(full, "re");
}

/* The first line of a small file, without its newline; "" when unreadable. */
static const char *first_line(const char *path, char *buf, size_t len)
{
	FILE *f = open_told(path);

	buf[0] = 0;
	if (f && !fgets(buf, (int)len, f))
		buf[0] = 0;
	if (f)
		fclose(f);
	buf[strcspn(buf, "\n")] = 0;
	return buf;
}

/* ---- userfaultfd --------------------------------------------------------- */

static const char mend_uffd[] =
	"as root: chmod 666 /dev/userfaultfd (Linux 6.1), or sysctl "
	"vm.unprivileged_userfaultfd=1; in a container: --device "
	"/dev/userfaultfd";

static void check_uffd(const struct uffd_found *u)
{
	char sysctl[32];

	first_line("/proc/sys/vm/unprivileged_userfaultfd", sysctl,
		   sizeof(sysctl));
	if (u->mode == UFFD_FULL)
		tell(FOUND_OK, "userfaultfd", NULL, NULL, "whole, by %s (sysctl "
		     "vm.unprivileged_userfaultfd=%s)", u->by_device ?
		     "/dev/userfaultfd" : "system call",
		     *sysctl ? sysctl : "absent");
	else if (u->mode == UFFD_USER_ONLY)
		tell(FOUND_NONE, "userfaultfd", "only the hints mode is left (a system "
		     "call on evicted memory would fail): about half the gain, files only",
		     mend_uffd, "user-mode faults only");
	else
		tell(FOUND_NONE, "userfaultfd", "only the hints mode is left: "
		     "about half the gain, files only", mend_uffd, "refused: %s",
		     strerror(u->err));
}

static void check_move(const struct uffd_found *u)
{
	struct utsname k;

	uname(&k);
	if (u->move)
		tell(FOUND_OK, "MOVE", NULL, NULL, "UFFDIO_MOVE moved 2 MiB");
	else if (u->mode == UFFD_FULL)
		tell(FOUND_LESS, "MOVE", "the copy mode is used: by mremap, at "
		     "nearly the same speed", "Linux 6.8 or later",
		     "no UFFDIO_MOVE (Linux %.40s)", k.release);
	if (u->mode == UFFD_REFUSED)
		return;
	if (!u->remap_event)
		tell(FOUND_LESS, "EVENT_REMAP", "mappings cannot become regions "
		     "late, without a gap", "Linux 4.11 or later", "absent");
	if (!u->move && !u->write_protect)
		tell(FOUND_NONE, "write-protect", "the copy mode is not possible",
		     "Linux 5.7 or later", "absent");
}

/* ---- hints --------------------------------------------------------------- */

static bool populate_works(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	void *p = fd < 0 ? MAP_FAILED :
		  mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	bool works = p != MAP_FAILED && !madvise(p, 4096, MADV_POPULATE_READ);

	if (p != MAP_FAILED)
		munmap(p, 4096);
	if (fd >= 0)
		close(fd);
	return works;
}

/* ---- the rest ------------------------------------------------------------ */

static void check_io_uring(void)
{
	char params[256] = { 0 }, sysctl[32];	/* struct io_uring_params: 120 */
	int fd = (int)syscall(SYS_io_uring_setup, 4, params), err = errno;

	if (fd >= 0) {
		close(fd);
		tell(FOUND_OK, "io_uring", NULL, NULL, "works");
		return;
	}
	first_line("/proc/sys/kernel/io_uring_disabled", sysctl, sizeof(sysctl));
	tell(FOUND_LESS, "io_uring", "files are read by threads with pread: a "
	     "little more CPU", *sysctl && *sysctl != '0' ?
	     "as root: sysctl kernel.io_uring_disabled=0" :
	     "a container's seccomp profile must allow io_uring", "refused: %s",
	     strerror(err));
}

static void check_thp(void)
{
	char mode[64];

	first_line("/sys/kernel/mm/transparent_hugepage/enabled", mode,
		   sizeof(mode));
	if (strstr(mode, "[always]") || strstr(mode, "[madvise]"))
		tell(FOUND_OK, "huge pages", NULL, NULL, "%s", mode);
	else
		tell(FOUND_LESS, "huge pages", "moving a chunk takes about 40 times "
		     "as long, and page tables grow", "as root: echo madvise > "
		     "/sys/kernel/mm/transparent_hugepage/enabled", "%s",
		     *mode ? mode : "not in this kernel");
}

static uint64_t meminfo(const char *key)
{
	FILE *f = open_told("/proc/meminfo");
	unsigned long long kb = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			sscanf(line + strlen(key), ": %llu", &kb);
	if (f)
		fclose(f);
	return kb << 10;
}

static void check_swap(int swappiness)
{
	uint64_t total = meminfo("SwapTotal");
	char size[32];

	stats_bytes_text(total, size, sizeof(size));
	if (!total)
		tell(FOUND_OK, "swap", NULL, NULL, "none");
	else
		tell(swappiness ? FOUND_LESS : FOUND_OK, "swap", "the kernel may "
		     "swap out what the library holds: bytes move twice",
		     "swappiness 0 for the program's cgroup", "%s, swappiness %d",
		     size, swappiness);
}

static void tell_budget(const struct budget_now *now)
{
	uint64_t may = budget_target(now, 0, off_opt.reserve, off_opt.ram);
	char limit[32], usage[32], room[32], avail[32];

	stats_bytes_text(may, room, sizeof(room));
	stats_bytes_text(now->limit, limit, sizeof(limit));
	stats_bytes_text(now->usage, usage, sizeof(usage));
	stats_bytes_text(now->mem_available, avail, sizeof(avail));
	if (now->limit == BUDGET_NONE)
		tell(FOUND_INFO, "memory", NULL, NULL, "no cgroup limit, %s "
		     "available: the library may hold %s", avail, room);
	else
		tell(FOUND_INFO, "memory", NULL, NULL, "cgroup v%d limit %s%s, %s "
		     "used, %s available on the machine: the library may hold %s",
		     now->version, limit, now->depth ? " (of a parent)" : "",
		     usage, avail, room);
	if (now->failcnt)
		tell(FOUND_INFO, "", NULL, NULL, "the limit was hit %llu times",
		     (unsigned long long)now->failcnt);
}

static void check_memory(void)
{
	struct budget b;
	struct budget_now now;

	if (budget_open(&b)) {
		tell(FOUND_LESS, "memory", "OFFLOAD_RAM must be given",
		     "mount /proc", "neither a cgroup nor /proc/meminfo");
		return;
	}
	if (!budget_read(&b, &now))
		tell_budget(&now);
	check_swap(now.swappiness);
	budget_close(&b);
}

static void check_unwind(void)
{
	void *h = dlopen("libunwind-x86_64.so.8", RTLD_LAZY | RTLD_LOCAL);

	if (h) {
		dlclose(h);
		tell(FOUND_OK, "libunwind", NULL, NULL, "found");
	} else {
		tell(FOUND_INFO, "libunwind", "memory is not named by who asked "
		     "for it; nothing else", "apt-get install libunwind8",
		     "not found");
	}
}

/* By the driver: what programs are told where the library is not. */
static void tell_devices(void *driver)
{
	int (*init)(unsigned int) = (int (*)(unsigned int))dlsym(driver, "cuInit");
	int (*many)(int *) = (int (*)(int *))dlsym(driver, "cuDeviceGetCount");
	int (*name)(char *, int, int) = (int (*)(char *, int, int))dlsym(driver, "cuDeviceGetName");
	int (*total)(size_t *, int) = (int (*)(size_t *, int))dlsym(driver, "cuDeviceTotalMem_v2");
	char text[128] = "", size[32];
	int n = 0, err = init && many && name && total ? init(0) : -1;
	size_t bytes;

	if (err || many(&n)) {
		tell(FOUND_INFO, "GPU", NULL, NULL, "driver found, it answers with error %d", err);
		return;
	}
	for (int i = 0; i < n; i++) {
		if (name(text, sizeof(text), i) || total(&bytes, i))
			continue;
		tell(FOUND_INFO, "GPU", NULL, NULL, "device %d: %s, %s", i, text,
		     stats_bytes_text(bytes, size, sizeof(size)));
	}
	if (!n)
		tell(FOUND_INFO, "GPU", NULL, NULL, "driver found, no device");
}

static void check_gpu(void)
{
	bool node = !access("/dev/nvidiactl", R_OK | W_OK) || !access("/dev/dxg", R_OK | W_OK);
	void *h = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);

	if (h && node)
		tell_devices(h);
	else if (h)
		tell(FOUND_INFO, "GPU", NULL, "in a container: --gpus all",
		     "libcuda.so.1 is there, /dev/nvidiactl (WSL2: /dev/dxg) is not");
	else
		tell(FOUND_INFO, "GPU", NULL, NULL, "no driver (libcuda.so.1): "
		     "host memory only");
	if (h)
		dlclose(h);
}

static void check_library(void)
{
	char path[PATH_MAX];

	if (!find_library(path, sizeof(path)))
		tell(FOUND_OK, "library", NULL, NULL, "%s", path);
	else
		tell(FOUND_LESS, "library", "offctl run starts programs without "
		     "it", "set OFFLOAD_LIB to it", "liboffload.so is not beside "
		     "offctl or in ../lib");
}

/* ---- the verdict --------------------------------------------------------- */

static int verdict(const struct uffd_found *u)
{
	if (u->mode == UFFD_FULL && u->move && u->remap_event) {
		puts("\npager mode: move");
		return 0;
	}
	if (u->mode == UFFD_FULL && (u->move || u->write_protect)) {
		printf("\npager mode: %s\n", u->move ? "move" : "copy");
		return 1;
	}
	if (populate_works()) {
		puts("\npager mode: hints");
		return 1;
	}
	tell(FOUND_NONE, "hints", "nothing can be offloaded",
	     "Linux 5.14 or later", "no MADV_POPULATE_READ");
	puts("\npager mode: off");
	return 2;
}

int cmd_doctor(int argc, char **argv)
{
	static const struct argp argp = { opts, parse, NULL,
		"Says, for each thing the library needs, what was found, what "
		"it costs and how to mend it.\vExit status: 0 the move mode is "
		"possible, 1 only a lesser one, 2 none.", NULL, NULL, NULL };
	struct doctor_args a = { .dir = "." };
	struct uffd_found u;

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	options_read(environ);
	check_library();
	probe_uffd(&u);
	check_uffd(&u);
	check_move(&u);
	check_io_uring();
	check_thp();
	check_memory();
	if (!a.no_disk)
		probe_disk(a.dir, a.file);
	check_unwind();
	check_gpu();
	return verdict(&u);
}
