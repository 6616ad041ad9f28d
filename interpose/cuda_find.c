/* SPDX-License-Identifier: MIT */
/* cuda_find.c - how calls of the driver come to the hooks.
 *
 *   dlsym, dlvsym      dlsym.c gives the hook for what libc would give
 *   cuGetProcAddress   the hook for the pointer the driver gives: its choice of a
 *                      version and of a stream is the driver's, never ours
 *   linked with -lcuda the slots of such objects are rewritten
 *
 * (1) The library exports no name of the driver's. A program that tests whether cuInit
 *     is there (a weak symbol, RTLD_DEFAULT, dlopen) gets the answer it would get
 *     without us, for no symbol of ours can be found; and one that is linked with the
 *     driver fails to start where there is none, as it did.
 * (2) So what is bound when it is loaded is bound to the driver, and is rebound here:
 *     slots that hold a hooked function's address get its hook, and slots that are
 *     to be bound at their first use, if the first to define the name is the driver.
 *     This is done in our constructor, and later when objects were loaded since:
 *     at the next look-up by name, whoever makes it, and at cuInit. An object that
 *     is linked with the driver, is loaded later and calls it before that (from its
 *     constructor, or by what it registers there) makes those calls past us. Hooked calls
 *     do not look: the loader's lock is taken by it, which the child of a fork may find taken.
 * (3) A hook is given out only after its row has the real function.
 * (4) Nothing of the driver's own is changed, nor what it binds to.
 * (5) No slot that the library cannot place is touched; each name of the driver's that
 *     a program finds and that has no row is told once (OFFLOAD_VERBOSE=1).
 * Lock: none. What is written is the same whoever writes it.
 */
#include "interpose/cuda_int.h"
#include "interpose/elf.h"

#define SEEN 8192u	/* power of two; objects beyond are looked at again */

#define CU_FN(symbol, name, version, flags, types) \
	static const char name_##symbol[] __attribute__((unused)) = #name;
#include "interpose/cuda_fn.def"
#undef CU_FN

#define NVML(symbol, types, records) void hook_##symbol(void);
#include "interpose/nvml.def"
#undef NVML

struct cuda_row cuda_rows[ROWS];	/* filled when a driver is there */
static bool filled;

/* Not by the loader: its pointers would cost every process four pages of relocations. */
static void fill(void)
{
	struct cuda_row *row = cuda_rows;

	if (__atomic_load_n(&filled, __ATOMIC_ACQUIRE))
		return;
#define PUT(symbol_, name_, library_) \
	row->symbol = symbol_, row->name = name_, row->library = library_;
#define CU_FIND(symbol, handler, text) \
	PUT(#symbol, name_##symbol, DRIVER_NAME) row++->hook = (void *)hook_##symbol;
#define CU_CTX CU_FIND
#define CU_MEM CU_FIND
#define CU_COPY CU_FIND
#define CU_LAUNCH CU_FIND
#define CU_GRAPH CU_FIND
#define CU_IMAGE CU_FIND
#include "interpose/cuda_hook.def"
#define NVML(symbol, types, text) \
	PUT(#symbol, #symbol, NVML_NAME) row++->hook = (void *)hook_##symbol;
#include "interpose/nvml.def"
#undef NVML
	__atomic_store_n(&filled, true, __ATOMIC_RELEASE);
}

void *cuda_needs[NEEDS];
void *nvml_get_uuid;
static const char *const need_names[NEEDS] = {
#define N(symbol) #symbol,
	CUDA_NEEDS(N)
#undef N
};

static bool off;			/* not in this program */
static uintptr_t learned[2];		/* bases: driver, management library */
static unsigned long long loads, unloads;
static uintptr_t seen[SEEN];

const char *cuda_library(const char *name)
{
	if (name[0] == 'c' && name[1] == 'u' && name[2] >= 'A' && name[2] <= 'Z')
		return DRIVER_NAME;
	return strncmp(name, "nvml", 4) ? NULL : NVML_NAME;
}

static struct cuda_row *row_of(const char *symbol)
{
	if (!__atomic_load_n(&filled, __ATOMIC_ACQUIRE))
		return NULL;
	for (int i = 0; i < ROWS; i++)
		if (!strcmp(cuda_rows[i].symbol, symbol))
			return &cuda_rows[i];
	return NULL;
}

/* Takes note of where the library's functions are. */
static void learn(const struct elf_object *o, const char *library)
{
	bool driver = !strcmp(library, DRIVER_NAME);

	fill();
	for (int i = 0; i < ROWS; i++)
		if (!strcmp(cuda_rows[i].library, library))
			__atomic_store_n(&cuda_rows[i].real,
					 elf_symbol(o, cuda_rows[i].symbol), __ATOMIC_RELEASE);
	if (!driver)
		__atomic_store_n(&nvml_get_uuid, elf_symbol(o, "nvmlDeviceGetUUID"),
				 __ATOMIC_RELEASE);
	for (int i = 0; driver && i < NEEDS; i++)
		__atomic_store_n(&cuda_needs[i], elf_symbol(o, need_names[i]),
				 __ATOMIC_RELEASE);
}

/* ---- rebinding ------------------------------------------------------------------- */

struct definer { const char *name, *library; bool drivers; };

static int first_definer(const struct elf_object *o, void *arg)
{
	struct definer *d = arg;

	if (!elf_symbol(o, d->name))
		return 0;
	d->drivers = elf_named(o, d->library);
	return 1;
}

static bool would_be_drivers(const struct cuda_row *row)
{
	struct definer d = { row->symbol, row->library, false };

	elf_each(first_definer, &d);
	return d.drivers;
}

/* False: the loader has not bound it yet, it seems. */
static bool rebind_slot(const struct elf_object *o, const ElfW(Rela) *r, bool lazy)
{
	uintptr_t *slot = (uintptr_t *)(o->base + r->r_offset), now;
	const ElfW(Sym) *s = &o->sym[ELF64_R_SYM(r->r_info)];
	const char *name = o->str + s->st_name;
	struct cuda_row *row;
	void *real;

	if (s->st_shndx != SHN_UNDEF || !cuda_library(name) || (uintptr_t)slot % sizeof(*slot))
		return true;
	row = row_of(name);
	real = row ? __atomic_load_n(&row->real, __ATOMIC_ACQUIRE) : NULL;
	now = __atomic_load_n(slot, __ATOMIC_RELAXED);
	if (!row && learned[0] && !strcmp(cuda_library(name), DRIVER_NAME))
		device_unhooked(name);
	if (real && (now == (uintptr_t)real ||
		     (lazy && elf_holds(o, (void *)now) && would_be_drivers(row))))
		elf_store(slot, (uintptr_t)row->hook);
	return !real || (now && now >= o->hi - o->base) || !o->base;
}

#if defined(__x86_64__)
static bool rebind(const struct elf_object *o)
{
	bool bound = true;

	for (size_t i = 0; i < o->n_rela; i++)
		if ((ELF64_R_TYPE(o->rela[i].r_info) == R_X86_64_GLOB_DAT ||
		     ELF64_R_TYPE(o->rela[i].r_info) == R_X86_64_64) && !o->rela[i].r_addend)
			bound &= rebind_slot(o, &o->rela[i], false);
	for (size_t i = 0; i < o->n_plt; i++)
		if (ELF64_R_TYPE(o->plt[i].r_info) == R_X86_64_JUMP_SLOT)
			bound &= rebind_slot(o, &o->plt[i], true);
	return bound;
}
#else
static bool rebind(const struct elf_object *o)
{
	return true;
}
#endif

/* An object that another thread is loading is in the list before it is bound: it is
 * looked at again, so often in all (what stays unbound looks the same). */
#define AGAIN 256

struct look { bool found[2], fresh, again; };

static void unsee(uintptr_t base)
{
	for (uint32_t i = 0; i < SEEN; i++)
		if (__atomic_load_n(&seen[i], __ATOMIC_RELAXED) == (base | 1))
			__atomic_store_n(&seen[i], 0, __ATOMIC_RELAXED);
}

/* True the first time, while nothing was unloaded. */
static bool unseen(uintptr_t base)
{
	uint32_t i = (uint32_t)(base >> 12) * 0x9e3779b1u;

	for (uint32_t k = 0; k < 64; k++, i++) {
		uintptr_t was = 0;

		if (__atomic_compare_exchange_n(&seen[i & (SEEN - 1)], &was, base | 1, false,
						__ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return true;
		if (was == (base | 1))
			return false;
	}
	return true;
}

static int rebind_one(const struct elf_object *o, void *arg)
{
	static int again = AGAIN;
	struct look *l = arg;
	bool fresh = unseen(o->base) || l->fresh;

	if (fresh && o->sym && o->str && !elf_named(o, DRIVER_NAME) &&
	    !elf_named(o, NVML_NAME) && !elf_holds(o, (void *)rebind_one) && !rebind(o) &&
	    __atomic_fetch_sub(&again, 1, __ATOMIC_RELAXED) > 0) {
		unsee(o->base);
		l->again = true;
	}
	return 0;
}

/* ---- looking --------------------------------------------------------------------- */

static AT_START int look_at(const struct elf_object *o, void *arg)
{
	static const char *const library[2] = { DRIVER_NAME, NVML_NAME };
	struct look *l = arg;

	for (int i = 0; i < 2; i++) {
		/* Some systems have an inner half of that name, loaded by the first. */
		if (l->found[i] || !elf_named(o, library[i]))
			continue;
		l->found[i] = true;
		if (__atomic_load_n(&learned[i], __ATOMIC_ACQUIRE) == o->base)
			continue;
		learn(o, library[i]);
		__atomic_store_n(&learned[i], o->base, __ATOMIC_RELEASE);
		l->fresh = true;
	}
	return 0;
}

AT_START void cuda_look(void)
{
	unsigned long long n_loads, n_unloads;
	struct look l = { .fresh = false };

	if (off)
		return;
	elf_changes(&n_loads, &n_unloads);
	if (n_loads == __atomic_load_n(&loads, __ATOMIC_RELAXED) &&
	    n_unloads == __atomic_load_n(&unloads, __ATOMIC_RELAXED))
		return;
	elf_each(look_at, &l);
	if (l.found[0] || l.found[1]) {
		if (n_unloads != __atomic_load_n(&unloads, __ATOMIC_RELAXED)) {
			memset(seen, 0, sizeof(seen));
			l.fresh = true;
		}
		elf_each(rebind_one, &l);
	}
	if (l.again)
		return;
	__atomic_store_n(&loads, n_loads, __ATOMIC_RELAXED);
	__atomic_store_n(&unloads, n_unloads, __ATOMIC_RELAXED);
}

AT_START void cuda_begin(void)
{
	off = !core_on();
	dlsym_begin();
	cuda_look();
}

void *cuda_hook(const char *name, void *at)
{
	struct cuda_row *row = off ? NULL : row_of(name);

	if (row && __atomic_load_n(&row->real, __ATOMIC_ACQUIRE) == at)
		return row->hook;
	if (!row && !off && learned[0] && !strcmp(cuda_library(name), DRIVER_NAME))
		device_unhooked(name);
	return NULL;
}

/* ---- rows of this file -------------------------------------------------------------- */

/* Two functions may share one address: the name decides between them. */
static void route(const char *name, void **found)
{
	for (int i = 0; i < ROWS; i++) {
		struct cuda_row *row = &cuda_rows[i];

		if (__atomic_load_n(&row->real, __ATOMIC_RELAXED) == *found &&
		    (!strcmp(row->name, name) || !strcmp(row->symbol, name))) {
			*found = row->hook;
			return;
		}
	}
	if (*name)
		device_unhooked(name);
}

#define SIG_get_proc (const char *name, void **found, int version, cuuint64_t flags)
#define ARG_get_proc name, found, version, flags
static CUresult on_get_proc(__typeof__(&cuGetProcAddress) real, const char *name, void **found,
			    int version, cuuint64_t flags)
{
	CUresult r = real(name, found, version, flags);

	if (r == CUDA_SUCCESS && name && found && *found)
		route(name, found);
	return r;
}

#define SIG_get_proc2 (const char *name, void **found, int version, cuuint64_t flags, \
		       CUdriverProcAddressQueryResult *status)
#define ARG_get_proc2 name, found, version, flags, status
static CUresult on_get_proc2(__typeof__(&cuGetProcAddress_v2) real, const char *name,
			     void **found, int version, cuuint64_t flags,
			     CUdriverProcAddressQueryResult *status)
{
	CUresult r = real(name, found, version, flags, status);

	if (r == CUDA_SUCCESS && name && found && *found)
		route(name, found);
	return r;
}

#define SIG_init (unsigned int flags)
#define ARG_init flags
static CUresult on_init(__typeof__(&cuInit) real, unsigned int flags)
{
	cuda_look();
	return real(flags);
}

#define CU_FIND HOOK
#include "interpose/cuda_hook.def"
