/* SPDX-License-Identifier: MIT */
/* mem.c - the library's own heap: the bundled jemalloc, under other names.
 *
 * Owns the bundled allocator's settings, its fork handlers, and the answers
 * it gets when it asks the process something (off_no_*, core/rename.syms).
 *
 *     not set up --mem_init, or the first mem_alloc--> set up (for good)
 *
 * (1) Nothing of it runs at load: its constructor is cut out of the archive
 *     and it sets itself up at the first call, from any thread.
 * (2) It never reads the program's MALLOC_CONF or /etc/malloc.conf, moves
 *     the program's break, starts a thread, or prints at exit.
 * (3) It keeps no per-thread cache: threads of the program call in rarely,
 *     and a cache per thread would hold memory that nobody counts.
 * Lock: the allocator's own, ranked below every lock of the library. Its
 * fork handlers are called by the fork wrapper, in rank order, instead of
 * by libc, which would not call them for _Fork.
 */
#include "core/mem.h"
#include "core/sys.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>

#define PAGE 4096

/* jemalloc's API, renamed. */
void *off_je_malloc(size_t size);
void *off_je_calloc(size_t n, size_t size);
void *off_je_realloc(void *ptr, size_t size);
void off_je_free(void *ptr);
size_t off_je_malloc_usable_size(const void *ptr);
extern const char *off_je_malloc_conf;

/* Memory once mapped is kept and purged after a second; overcommit and
 * profiling need nothing. */
const char *off_je_malloc_conf =
	"narenas:2,tcache:false,background_thread:false,dss:disabled,"
	"dirty_decay_ms:1000,muzzy_decay_ms:0,thp:default";

static void (*atfork_prepare)(void);
static void (*atfork_parent)(void);
static void (*atfork_child)(void);
static _Atomic int atfork_known;

/* Its set-up failed: it would be tried again, and again without looking (mem_init). */
static _Atomic bool dead;

static bool is_dead(void)
{
	return atomic_load_explicit(&dead, memory_order_relaxed);
}

/* Bytes in blocks. */
static _Atomic size_t in_use;

static void *counted(void *p)
{
	if (p)
		atomic_fetch_add_explicit(&in_use, off_je_malloc_usable_size(p),
					  memory_order_relaxed);
	return p;
}

static void uncounted(void *p)
{
	if (p)
		atomic_fetch_sub_explicit(&in_use, off_je_malloc_usable_size(p),
					  memory_order_relaxed);
}

void *mem_alloc(size_t size)
{
	return is_dead() ? NULL : counted(off_je_malloc(size));
}

void *mem_zalloc(size_t size)
{
	return is_dead() ? NULL : counted(off_je_calloc(1, size));
}

void *mem_realloc(void *ptr, size_t size)
{
	void *p;

	if (is_dead())
		return NULL;
	uncounted(ptr);
	p = off_je_realloc(ptr, size ? size : 1);
	counted(p ? p : ptr);
	return p;
}

void mem_free(void *ptr)
{
	uncounted(ptr);
	off_je_free(ptr);
}

size_t mem_bytes(void)
{
	return atomic_load_explicit(&in_use, memory_order_relaxed);
}

void *reserve_range(size_t len)
{
	void *p = off_sys_mmap(NULL, len, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void *reserve_own(size_t len)
{
	void *p = reserve_range(len);

	if (p)
		off_sys_madvise(p, len, MADV_DONTFORK);
	return p;
}

/* Its set-up tries something on a page it has mapped, and does not look whether
 * it got one (RLIMIT_AS): this one is for that. */
static void *_Atomic spare;

int mem_init(void)
{
	void *p = off_sys_mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	atomic_store(&spare, p);
	p = mem_alloc(1);
	atomic_store(&dead, !p);
	mem_free(p);
	p = atomic_exchange(&spare, NULL);
	if (p)
		off_sys_munmap(p, PAGE);
	return atomic_load(&dead) ? -ENOMEM : 0;
}

void *off_mem_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);

/* mmap, as the bundled allocator sees it. */
void *off_mem_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	void *p = off_sys_mmap(addr, len, prot, flags, fd, off);
	void *last = p == MAP_FAILED && len == PAGE ? atomic_exchange(&spare, NULL) : NULL;

	return last ? last : p;
}

void mem_fork_prepare(void)
{
	if (atomic_load(&atfork_known))
		atfork_prepare();
}

void mem_fork_parent(void)
{
	if (atomic_load(&atfork_known))
		atfork_parent();
}

void mem_fork_child(void)
{
	if (atomic_load(&atfork_known))
		atfork_child();
}

/* ---- what the bundled allocator asks the process -------------------------- */

int off_mem_atfork(void (*prepare)(void), void (*parent)(void),
		   void (*child)(void));
int off_no_pthread_create(pthread_t *t, const pthread_attr_t *a,
			  void *(*fn)(void *), void *arg);
void *off_no_sbrk(intptr_t by);
ssize_t off_no_readlink(const char *path, char *buf, size_t n);
char *off_no_secure_getenv(const char *name);
int off_no_atexit(void (*fn)(void));
void *off_no_dlsym(void *handle, const char *name);
double off_no_exp(double x);
double off_no_log(double x);
double off_no_round(double x);
int off_no__Unwind_Backtrace(void *fn, void *arg);
uintptr_t off_no__Unwind_GetIP(void *ctx);

/* pthread_atfork, as jemalloc sees it; once, from its set-up. */
int off_mem_atfork(void (*prepare)(void), void (*parent)(void),
		   void (*child)(void))
{
	atfork_prepare = prepare;
	atfork_parent = parent;
	atfork_child = child;
	atomic_store(&atfork_known, 1);
	return 0;
}

/* Background threads are off; a request for one is refused. */
int off_no_pthread_create(pthread_t *t, const pthread_attr_t *a,
			  void *(*fn)(void *), void *arg)
{
	return EPERM;
}

/* The break belongs to the program. */
void *off_no_sbrk(intptr_t by)
{
	errno = ENOMEM;
	return (void *)-1;
}

/* /etc/malloc.conf speaks to the program's allocator, not to this one. */
ssize_t off_no_readlink(const char *path, char *buf, size_t n)
{
	errno = ENOENT;
	return -1;
}

/* So does MALLOC_CONF. */
char *off_no_secure_getenv(const char *name)
{
	return NULL;
}

/* Nothing of it prints at exit. */
int off_no_atexit(void (*fn)(void))
{
	return 0;
}

/* It would look for pthread_create, to make threads (2). */
void *off_no_dlsym(void *handle, const char *name)
{
	return NULL;
}

/* Only heap profiling calls the rest, and it cannot be switched on (2). */
double off_no_exp(double x)
{
	abort();
}

double off_no_log(double x)
{
	abort();
}

double off_no_round(double x)
{
	abort();
}

int off_no__Unwind_Backtrace(void *fn, void *arg)
{
	abort();
}

uintptr_t off_no__Unwind_GetIP(void *ctx)
{
	abort();
}
