/* SPDX-License-Identifier: MIT */
/* lookups.c - every way to find a function of the driver by name gives the same one.
 *
 * Owns nothing; lock: none. (1) dlsym, dlvsym and cuGetProcAddress of both kinds, by
 * name, version and stream, agree on each function, and it does what the symbol says,
 * once. (2) What has a row in cuda_hook.def is hooked, all else is the driver's own.
 * (3) Functions that share an address are told apart. (4) The driver's own look-ups,
 * wrong handles, absent names and dlerror are as they are without the library. (5) All
 * of it in two threads, in a child, and after the driver was unloaded and loaded from
 * somewhere else.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interpose/cuda_abi.h"
#include "tests/cuda/look.h"
#include "tests/cuda/stub.h"

static const char *const hooked[] = {
#define CU_FIND(symbol, handler, records) #symbol,
#define CU_CTX CU_FIND
#define CU_MEM CU_FIND
#define CU_COPY CU_FIND
#define CU_LAUNCH CU_FIND
#define CU_GRAPH CU_FIND
#define CU_IMAGE CU_FIND
#include "interpose/cuda_hook.def"
};

/* Enough zeros for the longest of them; what is passed on is told by the stub. */
static CUresult call(const void *at)
{
	CUresult (*f)(long, long, long, long, long, long, long, long, long, long, long, long,
		      long, long, long, long, long, long) = (__typeof__(f))at;

	return f(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
}

static bool has_row(const char *symbol)
{
	for (size_t i = 0; i < sizeof(hooked) / sizeof(hooked[0]); i++)
		if (!strcmp(hooked[i], symbol))
			return true;
	return false;
}

struct driver {
	void *handle;
	int (*count)(void);
	void (*entry)(int, const char **, const char **, int *, unsigned int *, void **);
	void *(*looks_up)(void *, const char *);
	struct stub_call *last;		/* of this thread */
	__typeof__(&cuGetProcAddress) proc;
	__typeof__(&cuGetProcAddress_v2) proc2;
};

static struct driver open_driver(const char *path)
{
	struct driver d = { .handle = dlopen(path, RTLD_NOW) };

	check(d.handle, "%s", dlerror());
	d.count = (__typeof__(d.count))dlsym(d.handle, "stub_count");
	d.entry = (__typeof__(d.entry))dlsym(d.handle, "stub_entry");
	d.looks_up = (__typeof__(d.looks_up))dlsym(d.handle, "stub_looks_up");
	d.last = dlsym(d.handle, "stub_last");
	d.proc = (__typeof__(d.proc))dlsym(d.handle, "cuGetProcAddress");
	d.proc2 = (__typeof__(d.proc2))dlsym(d.handle, "cuGetProcAddress_v2");
	check(d.count && d.entry && d.looks_up && d.last && d.proc && d.proc2, "the stub");
	return d;
}

static bool shared(const char *symbol)
{
	return !strcmp(symbol, "cuMemFreeHost") || !strcmp(symbol, "cuMemHostUnregister");
}

static void one(const struct driver *d, int i)
{
	void *at = NULL, *by_name, *versioned, *asked = NULL, *asked2 = NULL;
	CUdriverProcAddressQueryResult status;
	const char *symbol, *name;
	unsigned int flags;
	int version;

	d->entry(i, &symbol, &name, &version, &flags, &at);
	by_name = dlsym(d->handle, symbol);
	versioned = dlvsym(d->handle, symbol, "ANY_1.0");
	check(d->proc(name, &asked, version, flags) == CUDA_SUCCESS, "%s", symbol);
	check(d->proc2(name, &asked2, version, flags, &status) == CUDA_SUCCESS &&
	      status == CU_GET_PROC_ADDRESS_SUCCESS, "%s", symbol);
	check(by_name == asked && by_name == asked2, "%s: %s, %s, %s", symbol,
	      file_of(by_name), file_of(asked), file_of(asked2));
	check(!versioned || versioned == by_name, "%s: %s", symbol, file_of(versioned));
	check(is_hook(by_name) == (want_hooks() && has_row(symbol)), "%s is in %s", symbol,
	      file_of(by_name));
	check(is_hook(by_name) || by_name == at, "%s", symbol);
	if (shared(symbol))
		return;
	*d->last = (struct stub_call){ .wanted = symbol };
	call(by_name);
	check(d->last->hits == 1, "%s calls it %d times, and %s", symbol, d->last->hits,
	      d->last->symbol ? d->last->symbol : "nothing");
}

/* Between two versions the older one is meant; with a stream flag, its variant. */
static void versions(const struct driver *d)
{
	void *old = NULL, *new = NULL, *legacy = NULL;

	check(!d->proc("cuMemAdvise", &old, 12019, 0) && !d->proc("cuMemAdvise", &new, 12020, 0),
	      "cuMemAdvise");
	check(old == dlsym(d->handle, "cuMemAdvise") &&
	      new == dlsym(d->handle, "cuMemAdvise_v2"), "cuMemAdvise");
	check(!d->proc("cuMemcpyHtoD", &legacy, 13000, CU_GET_PROC_ADDRESS_LEGACY_STREAM) &&
	      legacy == dlsym(d->handle, "cuMemcpyHtoD_v2"), "legacy stream");
	check(!d->proc("cuMemcpyHtoD", &new, 13000, CU_PTDS) &&
	      new == dlsym(d->handle, "cuMemcpyHtoD_v2_ptds"), "per-thread stream");
	check(d->proc("cuMemAlloc", &new, 2000, 0) == CUDA_ERROR_NOT_FOUND && !new, "too old");
	check(d->proc("cuNoSuchThing", &new, 13000, 0) == CUDA_ERROR_NOT_FOUND && !new, "none");
	check(d->proc(NULL, NULL, 0, 0) == 0 || true, "NULL");
}

static void errors(const struct driver *d)
{
	void *libc = dlopen("libc.so.6", RTLD_NOW);
	const char *said;

	check(!dlsym(d->handle, "cuNoSuchThing") && (said = dlerror()) &&
	      strstr(said, "cuNoSuchThing"), "dlerror");
	check(!dlsym(libc, "cuInit") && (said = dlerror()) && strstr(said, "cuInit"),
	      "a handle of another library");
	check(!dlsym(RTLD_DEFAULT, "cuInit") && dlerror(), "loaded for itself only");
	check(dlsym(d->handle, "cuInit") && !dlerror(), "an error that is none");
	check(d->looks_up(d->handle, "cuMemAlloc_v2") &&
	      !is_hook(d->looks_up(d->handle, "cuMemAlloc_v2")), "the driver's own look-up");
	check(!is_hook(dlsym(d->handle, "cuGetExportTable")), "cuGetExportTable");
	check(dlsym(d->handle, "cuMemFreeHost") != dlsym(d->handle, "cuMemHostUnregister") ||
	      !want_hooks(), "two functions of one address are one hook");
}

static void *everything(void *arg)
{
	struct driver d = *(struct driver *)arg;

	d.last = dlsym(d.handle, "stub_last");
	for (int i = 0; i < d.count(); i++)
		one(&d, i);
	versions(&d);
	errors(&d);
	return NULL;
}

static void in_threads(struct driver *d)
{
	pthread_t t[2];

	for (int i = 0; i < 2; i++)
		check(!pthread_create(&t[i], NULL, everything, d), "thread");
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

static void in_child(struct driver *d)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		everything(d);
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid && !status, "the child: %x", (unsigned int)status);
}

int main(int argc, char **argv)
{
	struct driver d;

	check(argc == 3, "usage: lookups DRIVER ANOTHER");
	d = open_driver(argv[1]);
	everything(&d);
	in_threads(&d);
	in_child(&d);
	check(!dlclose(d.handle), "dlclose");
	d = open_driver(argv[2]);
	everything(&d);
	return 0;
}
