/* SPDX-License-Identifier: MIT */
/* facts_host.c - questions about memory of the host's, and what the driver says of itself.
 *
 * Owns nothing that outlives a question; lock: none.
 */
#include "tests/gpu/facts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_BYTES (64 * MB)

void ask_attributes(uint64_t arg)
{
	static const struct { CUdevice_attribute a; const char *name; } rows[] = {
		{ CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, "vmm" },
		{ CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, "host vmm" },
		{ CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, "host node" },
		{ CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, "pageable access (88)" },
		{ CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, "concurrent managed (89)" },
		{ CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES,
		  "host page tables (100)" },
		{ CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, "copy engines" },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		say("%s %d, ", rows[i].name, attribute(rows[i].a));
	say("granularity %zu", card.granularity);
}

void ask_param_info(uint64_t arg)
{
	size_t off, size;
	CUresult r;

	if (!drv.cuFuncGetParamInfo) {
		say("no: the driver has no cuFuncGetParamInfo");
		return;
	}
	r = drv.cuFuncGetParamInfo(card.spin, 3, &off, &size);
	if (r != CUDA_SUCCESS)
		say("no: %s", error_name(r));
	else
		say("the 4th of 4 at %zu, %zu bytes", off, size);
	r = drv.cuFuncGetParamInfo(card.spin, 4, &off, &size);
	say(", beyond the last: %s", r == CUDA_SUCCESS ? "no error" : error_name(r));
}

/* ---- the kernel faults ----------------------------------------------------------- */

/* A file of words 0, 1, ..., mapped; its name is gone. */
static uint64_t *file_of_words(size_t len, int prot)
{
	const char *dir = getenv("TMPDIR");
	char path[512];
	uint64_t *p;
	int fd;

	snprintf(path, sizeof(path), "%s/facts.XXXXXX", dir ? dir : "/tmp");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0 || unlink(path) || ftruncate(fd, (off_t)len))
		unknown("no file in %s: %s", dir ? dir : "/tmp", strerror(errno));
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		unknown("mmap: %s", strerror(errno));
	for (size_t i = 0; i < len / 8; i++)
		p[i] = i;
	munmap(p, len);
	p = mmap(NULL, len, prot, MAP_PRIVATE, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		unknown("mmap: %s", strerror(errno));
	return p;
}

static uint64_t *words(size_t len)
{
	uint64_t *p = malloc(len);

	if (!p)
		unknown("no memory");
	for (size_t i = 0; i < len / 8; i++)
		p[i] = i;
	return p;
}

void ask_host_fault(uint64_t file)
{
	size_t len = file ? FILE_BYTES : MB, part = card.emulated ? MB : len;
	uint64_t *p = file ? file_of_words(len, PROT_READ) : words(len);

	say_sum((uintptr_t)p, part, sum_should(part, 0));
}

struct filler {
	int fd;
	uint64_t *at;
	size_t page;
	unsigned int faults;
};

/* Each page gets its words when somebody touches it. */
static void *fill_pages(void *arg)
{
	struct filler *f = arg;
	uint64_t *page = malloc(f->page);
	struct uffd_msg m;

	while (page && read(f->fd, &m, sizeof(m)) == sizeof(m)) {
		uint64_t at = m.arg.pagefault.address & ~(f->page - 1);
		struct uffdio_copy c = { .dst = at, .src = (uintptr_t)page, .len = f->page };

		for (size_t i = 0; i < f->page / 8; i++)
			page[i] = (at - (uintptr_t)f->at) / 8 + i;
		__atomic_fetch_add(&f->faults, 1, __ATOMIC_RELAXED);
		ioctl(f->fd, UFFDIO_COPY, &c);
	}
	free(page);
	return NULL;
}

/* Faults of the GPU are the kernel's, which user-mode-only ones leave out. */
static int uffd_open(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0) {
		int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

		fd = dev < 0 ? -1 : ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
		if (dev >= 0)
			close(dev);
	}
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		unknown("userfaultfd: %s", strerror(errno));
	return fd;
}

void ask_uffd(uint64_t arg)
{
	struct filler f = { .fd = uffd_open(), .page = (size_t)sysconf(_SC_PAGESIZE) };
	size_t len = 16 * f.page;
	struct uffdio_register reg = { .range.len = len, .mode = UFFDIO_REGISTER_MODE_MISSING };
	pthread_t t;

	f.at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f.at == MAP_FAILED)
		unknown("mmap: %s", strerror(errno));
	madvise(f.at, len, MADV_NOHUGEPAGE);
	reg.range.start = (uintptr_t)f.at;
	if (ioctl(f.fd, UFFDIO_REGISTER, &reg))
		unknown("userfaultfd registers no range: %s", strerror(errno));
	if (pthread_create(&t, NULL, fill_pages, &f))
		unknown("no thread");
	say("kernel: ");
	say_sum((uintptr_t)f.at, len, sum_should(len, 0));
	say(", %u of %zu pages asked for", __atomic_load_n(&f.faults, __ATOMIC_RELAXED),
	    len / f.page);
}

/* ---- registered memory ----------------------------------------------------------- */

static bool preloaded(void)
{
	const char *s = getenv("LD_PRELOAD");

	return s && strstr(s, "liboffload");
}

void ask_register(uint64_t kind)
{
	size_t len = kind == 0 ? MB : FILE_BYTES, part = card.emulated ? MB : len;
	uint64_t *p = kind < 2 ? words(len) :
		      file_of_words(len, kind == 2 ? PROT_READ : PROT_READ | PROT_WRITE);
	unsigned int flags = CU_MEMHOSTREGISTER_DEVICEMAP |
			     (kind == 2 ? CU_MEMHOSTREGISTER_READ_ONLY : 0);
	CUdeviceptr at;
	CUresult r = drv.cuMemHostRegister_v2(p, len, flags);

	say("%s library: ", preloaded() ? "with the" : "without the");
	if (r != CUDA_SUCCESS) {
		say("%s", error_name(r));
		return;
	}
	r = drv.cuMemHostGetDevicePointer_v2(&at, p, 0);
	if (r != CUDA_SUCCESS) {
		say("registered, no device pointer: %s", error_name(r));
		return;
	}
	say("registered, a kernel reads it ");
	say_sum(at, part, sum_should(part, 0));
	r = drv.cuMemHostUnregister(p);
	if (r != CUDA_SUCCESS)
		say(", not unregistered: %s", error_name(r));
	say(", the processor reads it %s", p[len / 8 - 1] == len / 8 - 1 ? "right" : "wrong");
}

/* ---- the runtime ----------------------------------------------------------------- */

/* A program of its own: it must be in the way of all look-ups. */
void ask_cudart(uint64_t arg)
{
	char path[512], line[512];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 16);
	size_t got = 0;
	ssize_t more;
	int fd[2];
	pid_t pid;

	path[n > 0 ? n : 0] = 0;
	if (!strrchr(path, '/') || pipe(fd))
		unknown("it cannot start a program");
	strcpy(strrchr(path, '/') + 1, "cudart");
	pid = fork();
	if (!pid) {
		dup2(fd[1], 1);
		execl(path, "cudart", NULL);
		_exit(127);
	}
	close(fd[1]);
	while ((more = read(fd[0], line + got, sizeof(line) - 1 - got)) > 0)
		got += (size_t)more;
	line[got] = 0;
	line[strcspn(line, "\n")] = 0;
	waitpid(pid, NULL, 0);
	if (!*line)
		unknown("its program gave no answer");
	say("%s", line);
}
