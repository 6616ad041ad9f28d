/* SPDX-License-Identifier: MIT */
/* facts.c - what a card and its driver do, asked of them.
 *
 *     facts              every question
 *     facts NAME...      these
 *     facts --list       their names, and what they ask
 *
 * A line for each: "fact: NAME: ANSWER", after one that begins with "card:". Needs libc
 * and the driver. Status 77 and a line where there is no card. On an emulated one each
 * answer says so: it is no fact of a card.
 *
 * Owns card; lock: none.
 */
#include "tests/gpu/facts.h"
#include "tests/gpu/facts_ptx.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MS 20000	/* for one question */
#define EMULATED "Emulated"	/* how the names of such cards begin */

struct card card;

static const struct fact facts[] = {
#define FACT(name, function, arg, what) { name, function, arg, what },
#include "tests/gpu/facts.def"
#undef FACT
};
#define FACTS (sizeof(facts) / sizeof(facts[0]))

static char said[1024];
static uint32_t *flag;		/* of hold: pinned */

/* ---- answers --------------------------------------------------------------------- */

void say(const char *fmt, ...)
{
	size_t n = strlen(said);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(said + n, sizeof(said) - n, fmt, ap);
	va_end(ap);
}

/* Without what the driver does at exit: its context may have failed. */
void done(void)
{
	printf("%s%s\n", card.emulated ? "emulated: " : "", said);
	fflush(stdout);
	_exit(0);
}

void unknown(const char *fmt, ...)
{
	va_list ap;

	strcpy(said, "not known: ");
	va_start(ap, fmt);
	vsnprintf(said + strlen(said), sizeof(said) - strlen(said), fmt, ap);
	va_end(ap);
	done();
}

const char *error_name(CUresult err)
{
	const char *name = NULL;

	if (drv.cuGetErrorName)
		drv.cuGetErrorName(err, &name);
	return name ? name : "an error without a name";
}

double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

int attribute(CUdevice_attribute a)
{
	int v;

	return drv.cuDeviceGetAttribute(&v, a, card.device) == CUDA_SUCCESS ? v : -1;
}

/* ---- kernels --------------------------------------------------------------------- */

static CUresult launch(CUfunction f, CUstream s, size_t items, void **args)
{
	size_t blocks = items / 256 + 1, most = card.emulated ? 4 : 2048;

	return drv.cuLaunchKernel(f, (unsigned int)(blocks > most ? most : blocks), 1, 1,
				  256, 1, 1, 0, s, args, NULL);
}

CUresult queue_sum(CUstream s, CUdeviceptr in, size_t bytes)
{
	uint64_t pairs = bytes / 16;

	return launch(card.sum, s, pairs, (void *[]){ &in, &pairs, &card.out });
}

CUresult queue_fill(CUstream s, CUdeviceptr to, size_t bytes, uint64_t first)
{
	uint64_t words = bytes / 8;

	return launch(card.fill, s, words, (void *[]){ &to, &words, &first });
}

CUresult sum_of(CUdeviceptr in, size_t bytes, uint64_t *sum)
{
	CUresult r = drv.cuMemsetD8_v2(card.out, 0, 8);

	if (r == CUDA_SUCCESS)
		r = drv.cuCtxSynchronize();
	if (r == CUDA_SUCCESS)
		r = queue_sum(card.stream, in, bytes);
	if (r == CUDA_SUCCESS)
		r = drv.cuStreamSynchronize(card.stream);
	return r == CUDA_SUCCESS ? drv.cuMemcpyDtoH_v2(sum, card.out, 8) : r;
}

uint64_t sum_should(size_t bytes, uint64_t first)
{
	uint64_t n = bytes / 8;

	return n * first + n * (n - 1) / 2;
}

void say_sum(CUdeviceptr in, size_t bytes, uint64_t want)
{
	uint64_t sum = 0;
	CUresult r = sum_of(in, bytes, &sum);

	say("%s", r != CUDA_SUCCESS ? error_name(r) : sum == want ? "right" : "wrong bytes");
}

void hold(CUstream s, CUdeviceptr data)
{
	CUdeviceptr at;
	uint64_t turns = card.emulated ? 20000000 : 4000000;

	__atomic_store_n(flag, 0, __ATOMIC_SEQ_CST);
	need(cuMemHostGetDevicePointer_v2, &at, flag, 0);
	need(cuLaunchKernel, card.spin, 1, 1, 1, 1, 1, 1, 0, s,
	     (void *[]){ &at, &turns, &data, &card.out }, NULL);
	usleep(20000);		/* it runs by now */
}

void let_go(void)
{
	__atomic_store_n(flag, 1, __ATOMIC_SEQ_CST);
}

static double gone_at;

static void *let_go_later(void *arg)
{
	usleep(150000);
	gone_at = now_us();
	let_go();
	return arg;
}

bool waited(void (*call)(void *), void *arg, double *us)
{
	pthread_t t;
	double from, to;

	hold(card.other, 0);
	pthread_create(&t, NULL, let_go_later, NULL);
	from = now_us();
	call(arg);
	to = now_us();
	pthread_join(t, NULL);
	*us = to - from;
	if (drv.cuStreamSynchronize(card.other) != CUDA_SUCCESS)
		unknown("the kernel beside it failed");
	return to > gone_at;
}

/* ---- one question ---------------------------------------------------------------- */

static void describe(void)
{
	char name[128] = "";
	size_t bytes = 0;
	int version = 0;

	drv.cuDeviceGetName(name, sizeof(name), card.device);
	drv.cuDriverGetVersion(&version);
	if (drv.cuDeviceTotalMem_v2)
		drv.cuDeviceTotalMem_v2(&bytes, card.device);
	printf("card: %s, %llu MB, compute %d.%d, driver %d.%d\n", name,
	       (unsigned long long)(bytes >> 20),
	       attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
	       attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR), version / 1000,
	       version % 1000 / 10);
	exit(0);
}

static void open_card(void)
{
	char name[128] = "";

	driver_open(API_DLSYM);
	ck(cuDeviceGet(&card.device, 0));
	drv.cuDeviceGetName(name, sizeof(name), card.device);
	card.emulated = !strncmp(name, EMULATED, strlen(EMULATED));
}

static void open_context(void)
{
	CUmemAllocationProp p = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, card.device },
	};
	CUmodule m;

	need(cuDevicePrimaryCtxRetain, &card.ctx, card.device);
	need(cuCtxSetCurrent, card.ctx);
	need(cuModuleLoadData, &m, FACTS_PTX);
	need(cuModuleGetFunction, &card.sum, m, "sum");
	need(cuModuleGetFunction, &card.fill, m, "fill");
	need(cuModuleGetFunction, &card.spin, m, "spin");
	need(cuStreamCreate, &card.stream, CU_STREAM_NON_BLOCKING);
	need(cuStreamCreate, &card.other, CU_STREAM_NON_BLOCKING);
	need(cuMemAlloc_v2, &card.out, 8);
	need(cuMemHostAlloc, (void **)&flag, 4096, CU_MEMHOSTALLOC_PORTABLE |
	     CU_MEMHOSTALLOC_DEVICEMAP);
	if (drv.cuMemGetAllocationGranularity)
		drv.cuMemGetAllocationGranularity(&card.granularity, &p,
						  CU_MEM_ALLOC_GRANULARITY_MINIMUM);
	/* Code is loaded when it first runs, and that may wait for all that runs. */
	let_go();
	need(cuLaunchKernel, card.spin, 1, 1, 1, 1, 1, 1, 0, card.stream,
	     (void *[]){ &flag, &(uint64_t){ 1 }, &(uint64_t){ 0 }, &card.out }, NULL);
	need(cuMemsetD8_v2, card.out, 0, 8);
	if (queue_sum(card.stream, card.out, 0) != CUDA_SUCCESS ||
	    queue_fill(card.stream, card.out, 8, 0) != CUDA_SUCCESS)
		unknown("its kernels cannot be launched");
	need(cuCtxSynchronize);
}

static void one(const char *name)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	open_card();
	if (!strcmp(name, "card"))
		describe();
	for (size_t i = 0; i < FACTS; i++) {
		if (strcmp(facts[i].name, name))
			continue;
		open_context();
		facts[i].ask(facts[i].arg);
		done();
	}
	exit(2);
}

/* ---- all of them ----------------------------------------------------------------- */

/* What it printed, cut to a line; its status as waitpid gives it, -1: out of time. */
static int asked(const char *name, char *line, size_t size)
{
	double end = now_us() + LIMIT_MS * 1e3;
	size_t n = 0;
	ssize_t got = 1;
	int fd[2], status;
	pid_t pid;

	if (pipe(fd))
		exit(1);
	pid = fork();
	if (!pid) {
		dup2(fd[1], 1);
		close(fd[0]);
		close(fd[1]);
		execl("/proc/self/exe", "facts", "--one", name, NULL);
		_exit(127);
	}
	close(fd[1]);
	while (got > 0) {
		struct pollfd p = { .fd = fd[0], .events = POLLIN };
		double left = (end - now_us()) / 1e3;

		if (left <= 0 || poll(&p, 1, (int)left + 1) <= 0)
			break;
		got = read(fd[0], line + n, size - 1 - n);
		n += got > 0 ? (size_t)got : 0;
	}
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	close(fd[0]);
	if (got > 0)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return got > 0 ? -1 : status;
}

static void tell(const struct fact *f)
{
	char line[1200];
	int status = asked(f->name, line, sizeof(line));
	const char *label = card.emulated ? "emulated: " : "";

	if (status == -1)
		snprintf(line, sizeof(line), "%snot known: no answer in %d s", label,
			 LIMIT_MS / 1000);
	else if (!*line && WIFSIGNALED(status))
		snprintf(line, sizeof(line), "%snot known: the process ended by signal %d", label,
			 WTERMSIG(status));
	else if (!*line)
		snprintf(line, sizeof(line), "%snot known: the process ended with status %d",
			 label, WEXITSTATUS(status));
	printf("fact: %s: %s\n", f->name, line);
	fflush(stdout);
}

static bool chosen(const struct fact *f, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], f->name))
			return true;
	return argc < 2;
}

static int known(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		bool found = false;

		for (size_t k = 0; k < FACTS; k++)
			found |= !strcmp(argv[i], facts[k].name);
		if (!found) {
			fprintf(stderr, "facts: no such fact: %s (--list)\n", argv[i]);
			return 2;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	char line[1200];
	int status;

	if (argc == 3 && !strcmp(argv[1], "--one"))
		one(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (size_t i = 0; i < FACTS; i++)
			printf("%-24s %s\n", facts[i].name, facts[i].what);
		return 0;
	}
	if (known(argc, argv))
		return 2;
	status = asked("card", line, sizeof(line));
	if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status))
		return status != -1 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	printf("%s\n", line);
	card.emulated = strstr(line, ": " EMULATED) != NULL;
	for (size_t i = 0; i < FACTS; i++)
		if (chosen(&facts[i], argc, argv))
			tell(&facts[i]);
	return 0;
}
