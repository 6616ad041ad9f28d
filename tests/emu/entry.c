/* SPDX-License-Identifier: MIT */
/* entry.c - the exported functions: one row each, and a wrapper made from it.
 *
 * Owns the table of entry points, the counts of calls, the failures to inject and the log.
 *
 * (1) Every call goes: counted, failed if EMU_FAIL says so, refused if it comes too early,
 *     too late or from a host function, the context's sticky error, then the function
 *     (i_SYMBOL) under the emulator's lock.
 * (2) What has no function answers CUDA_ERROR_NOT_SUPPORTED, and says so in the log.
 * (3) A _ptds or _ptsz variant is the function without the suffix, with emu_ptds set.
 * Lock: takes the emulator's.
 */
#include "tests/emu/emu.h"
#include "tests/emu/emu_test.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define CU_FN(symbol, name, version, flags, types) ID_##symbol,
#define CU_NAME(symbol, name, version, flags)	   ID_##symbol,
enum id {
#include "interpose/cuda_fn.def"
#include "interpose/cuda_name.def"
	N_ROWS
};
#undef CU_FN
#undef CU_NAME

#define EARLY	 1u	/* before cuInit */
#define STICKY	 2u	/* answers a sticky error of the context */
#define UNSAFE	 4u	/* not during a capture of this thread or a global one */

struct row {
	const char *symbol, *name;
	unsigned version, stream;
	void *entry;		/* exported */
	void *body;		/* i_SYMBOL or NULL */
	unsigned rules;
	uint64_t calls;
};

static struct row rows[N_ROWS];
static int log_fd = -1;
static bool ended;
static bool forked;		/* a child of who had the driver: it may call nothing */
__thread bool emu_ptds;
static __thread bool in_host_function;

struct failure {
	char function[80];
	unsigned long nth, seen;
	int result;
};
static struct failure failures[16];
static unsigned nfailures;

static CUresult enter(enum id id);
static CUresult leave(enum id id, CUresult r);

/* ---- wrappers ------------------------------------------------------------------ */

#define SECOND(a, b, ...)	b
#define PICK(...)		SECOND(__VA_ARGS__)
#define IS_VOID_cuCtxSynchronize		~, DEFINE_VOID
#define IS_VOID_cuCtxResetPersistingL2Cache	~, DEFINE_VOID

#define COUNT_(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, n, ...) n
#define COUNT(...) COUNT_(__VA_ARGS__, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define P1(t)	    t a1
#define P2(t, ...)  t a2, P1(__VA_ARGS__)
#define P3(t, ...)  t a3, P2(__VA_ARGS__)
#define P4(t, ...)  t a4, P3(__VA_ARGS__)
#define P5(t, ...)  t a5, P4(__VA_ARGS__)
#define P6(t, ...)  t a6, P5(__VA_ARGS__)
#define P7(t, ...)  t a7, P6(__VA_ARGS__)
#define P8(t, ...)  t a8, P7(__VA_ARGS__)
#define P9(t, ...)  t a9, P8(__VA_ARGS__)
#define P10(t, ...) t a10, P9(__VA_ARGS__)
#define P11(t, ...) t a11, P10(__VA_ARGS__)
#define P12(t, ...) t a12, P11(__VA_ARGS__)
#define P13(t, ...) t a13, P12(__VA_ARGS__)
#define P14(t, ...) t a14, P13(__VA_ARGS__)
#define P15(t, ...) t a15, P14(__VA_ARGS__)
#define P16(t, ...) t a16, P15(__VA_ARGS__)
#define A1	    a1
#define A2	    a2, A1
#define A3	    a3, A2
#define A4	    a4, A3
#define A5	    a5, A4
#define A6	    a6, A5
#define A7	    a7, A6
#define A8	    a8, A7
#define A9	    a9, A8
#define A10	    a10, A9
#define A11	    a11, A10
#define A12	    a12, A11
#define A13	    a13, A12
#define A14	    a14, A13
#define A15	    a15, A14
#define A16	    a16, A15
#define GLUE_(a, b) a##b
#define GLUE(a, b)  GLUE_(a, b)

#define BODY(symbol, types, ...)                                                  \
	{                                                                         \
		CUresult(*body) types = (CUresult(*) types)rows[ID_##symbol].body; \
		CUresult r = enter(ID_##symbol);                                  \
		return leave(ID_##symbol, r ? r : body(__VA_ARGS__));             \
	}
#define PARAMETERS(...) (GLUE(P, COUNT(__VA_ARGS__))(__VA_ARGS__))
#define ARGUMENTS(...)	GLUE(A, COUNT(__VA_ARGS__))
#define DEFINE(symbol, types) \
	EXPORT CUresult symbol PARAMETERS types BODY(symbol, types, ARGUMENTS types)
#define DEFINE_VOID(symbol, types) EXPORT CUresult symbol(void) BODY(symbol, types)

#define CU_FN(symbol, name, version, flags, types) \
	PICK(IS_VOID_##symbol, DEFINE, ~)(symbol, types)
#include "interpose/cuda_fn.def"
#undef CU_FN

#define CU_NAME(symbol, name, version, flags)	   \
	CUresult symbol(void);			   \
	EXPORT CUresult symbol(void)		   \
	{					   \
		CUresult r = enter(ID_##symbol);   \
		return leave(ID_##symbol, r);	   \
	}
#include "interpose/cuda_name.def"
#undef CU_NAME

static struct row rows[N_ROWS] = {
#define CU_FN(symbol, name, version, flags, types) \
	{ #symbol, #name, version, flags, (void *)symbol, (void *)i_##symbol, 0, 0 },
#define CU_NAME(symbol, name, version, flags) \
	{ #symbol, #name, version, flags, (void *)symbol, NULL, 0, 0 },
#include "interpose/cuda_fn.def"
#include "interpose/cuda_name.def"
#undef CU_FN
#undef CU_NAME
};

/* ---- what is refused when ---------------------------------------------------------- */

/* Prefixes of symbols. */
static const char *const early[] = {
	"cuInit", "cuGetError", "cuDriverGetVersion", "cuGetProcAddress", "cuGetExportTable",
	NULL,
};
static const char *const unsticky[] = {
	"cuInit", "cuGet", "cuDriverGetVersion", "cuDeviceGet", "cuDeviceTotal", "cuDevicePrimary",
	"cuDeviceCan", "cuCtxCreate", "cuCtxDestroy", "cuCtxDetach", "cuCtxPush", "cuCtxPop",
	"cuCtxSetCurrent", "cuCtxGet", NULL,
};
static const char *const unsafe[] = {
	"cuMemAlloc_v2", "cuMemAllocPitch", "cuMemFree_v2", "cuMemAllocManaged", "cuMemHostAlloc",
	"cuMemAllocHost", "cuMemFreeHost", "cuMemHostRegister", "cuMemHostUnregister",
	"cuCtxSynchronize", "cuEventQuery", "cuModuleLoad", "cuMemMap", "cuMemUnmap",
	"cuMemSetAccess", "cuMemcpyHtoD_v2", "cuMemcpyDtoH_v2", "cuMemcpyDtoD_v2", "cuMemcpy2D_v2",
	"cuMemcpy3D_v2", NULL,
};

static bool begins(const char *s, const char *const *with)
{
	for (; *with; with++)
		if (!strncmp(s, *with, strlen(*with)))
			return true;
	return false;
}

static struct row *by_symbol(const char *symbol, size_t len)
{
	for (unsigned i = 0; i < N_ROWS; i++)
		if (!strncmp(rows[i].symbol, symbol, len) && !rows[i].symbol[len])
			return &rows[i];
	return NULL;
}

static void read_failures(const char *s)
{
	while (s && *s && nfailures < 16) {
		struct failure *f = &failures[nfailures];
		int end = 0;

		if (sscanf(s, "%79[^:]:%lu:%d%n", f->function, &f->nth, &f->result, &end) != 3)
			break;
		nfailures++;
		s += end;
		s += *s == ',';
	}
	if (s && *s) {
		dprintf(2, "emu: EMU_FAIL is not function:nth:result,...: %s\n", s);
		exit(1);
	}
}

static void in_child(void)
{
	forked = emu.inited;
}

static void __attribute__((constructor)) entry_open(void)
{
	const char *log = getenv("EMU_LOG");

	if (log && *log)
		log_fd = !strcmp(log, "stderr") ? 2 :
			 open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	read_failures(getenv("EMU_FAIL"));
	pthread_atfork(NULL, NULL, in_child);
	for (unsigned i = 0; i < N_ROWS; i++) {
		struct row *r = &rows[i];

		r->rules = begins(r->symbol, early) ? EARLY : 0;
		r->rules |= begins(r->symbol, unsticky) ? 0 : STICKY;
		r->rules |= begins(r->symbol, unsafe) ? UNSAFE : 0;
		if (r->stream) {
			const struct row *plain = by_symbol(r->symbol, strlen(r->symbol) - 5);

			r->body = plain ? plain->body : NULL;
		}
	}
}

static void __attribute__((destructor)) entry_close(void)
{
	ended = true;
}

/* ---- the log ----------------------------------------------------------------------- */

void emu_log(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	if (log_fd < 0)
		return;
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n] = '\n';
	if (write(log_fd, line, (size_t)n + 1) < 0)
		log_fd = -1;
}

/* ---- calls --------------------------------------------------------------------------- */

static CUresult injected(const struct row *row)
{
	for (unsigned i = 0; i < nfailures; i++) {
		struct failure *f = &failures[i];

		if (strcmp(f->function, row->symbol) && strcmp(f->function, row->name))
			continue;
		f->seen++;
		if (!f->nth || f->seen == f->nth)
			return (CUresult)f->result;
	}
	return CUDA_SUCCESS;
}

static CUresult refused(const struct row *row)
{
	const struct ctx *c;
	CUresult r;

	if (ended)
		return CUDA_ERROR_DEINITIALIZED;
	if (in_host_function && !(row->rules & EARLY))
		return CUDA_ERROR_NOT_PERMITTED;
	if (!(row->rules & EARLY) && !emu.inited)
		return CUDA_ERROR_NOT_INITIALIZED;
	c = ctx_current();
	if (row->rules & STICKY && c && c->sticky)
		return c->sticky;
	r = injected(row);
	if (r)
		return r;
	if (!row->body)
		return CUDA_ERROR_NOT_SUPPORTED;
	return row->rules & UNSAFE ? capture_unsafe() : CUDA_SUCCESS;
}

/* The lock may have been another thread's when the child came to be. */
static CUresult enter(enum id id)
{
	if (forked)
		return CUDA_ERROR_NOT_INITIALIZED;
	pthread_mutex_lock(&emu.lock);
	rows[id].calls++;
	emu_ptds = rows[id].stream == CU_PTDS;
	return refused(&rows[id]);
}

static CUresult leave(enum id id, CUresult r)
{
	if (forked)
		return r;
	if (!rows[id].body)
		emu_log("%s: not implemented", rows[id].symbol);
	else
		emu_log("%s: %d", rows[id].symbol, r);
	emu_ptds = false;
	pthread_mutex_unlock(&emu.lock);
	return r;
}

void emu_host_function(bool on)
{
	in_host_function = on;
}

/* ---- finding entry points (E15) --------------------------------------------------------- */

static const struct row *best(const char *name, unsigned version, unsigned stream, bool *known)
{
	const struct row *found = NULL;

	for (unsigned i = 0; i < N_ROWS; i++) {
		const struct row *r = &rows[i];

		if (strcmp(r->name, name) || r->stream != stream)
			continue;
		*known = true;
		if (r->version <= version && r->version <= emu_driver() &&
		    (!found || r->version > found->version))
			found = r;
	}
	return found;
}

CUresult i_cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags,
			       CUdriverProcAddressQueryResult *status)
{
	const struct row *r = NULL;
	bool known = false;

	if (!symbol || !pfn || version < 0 ||
	    flags > CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)
		return CUDA_ERROR_INVALID_VALUE;
	if (flags == CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)
		r = best(symbol, (unsigned)version, CU_PTDS, &known);
	if (!r && !known)
		r = best(symbol, (unsigned)version, 0, &known);
	emu_log("get %s %d %llu: %s", symbol, version, (unsigned long long)flags,
		r ? r->symbol : known ? "newer" : "unknown");
	*pfn = r ? r->entry : NULL;
	if (status)
		*status = r	? CU_GET_PROC_ADDRESS_SUCCESS :
			  known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT :
				  CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	return r ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult i_cuGetProcAddress(const char *symbol, void **pfn, int version, cuuint64_t flags)
{
	return i_cuGetProcAddress_v2(symbol, pfn, version, flags, NULL);
}

CUresult i_cuGetExportTable(const void **table, const CUuuid *id)
{
	if (table)
		*table = NULL;
	return CUDA_ERROR_NOT_FOUND;
}

/* ---- for tests ------------------------------------------------------------------------- */

EXPORT uint64_t emu_calls(const char *symbol)
{
	uint64_t n = 0;

	pthread_mutex_lock(&emu.lock);
	for (unsigned i = 0; i < N_ROWS; i++)
		if (!symbol || !strcmp(symbol, rows[i].symbol))
			n += rows[i].calls;
	pthread_mutex_unlock(&emu.lock);
	return n;
}

EXPORT const char *emu_fault(void)
{
	return emu_last_fault();
}

EXPORT const char *emu_symbol(const void *entry)
{
	for (unsigned i = 0; i < N_ROWS; i++)
		if (rows[i].entry == entry)
			return rows[i].symbol;
	return NULL;
}
