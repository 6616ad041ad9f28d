/* SPDX-License-Identifier: MIT */
/* dlsym.c - look-ups by name, which the driver's users make.
 *
 * (1) libc answers by who asks: RTLD_NEXT, RTLD_DEFAULT and the folders a caller may
 *     load from go by the return address. So these are not functions: a few
 *     instructions ask dlsym_answer, and if it has no answer jump to the real one,
 *     which sees the caller's own return address and sets dlerror as ever.
 * (2) One export without a version stands for every version there is of it.
 * (3) An answer is only ever a hook for the very function that libc would have
 *     given, and that function is the driver's: a handle is honoured, what another
 *     object defines under the same name is left alone, and so is what the driver
 *     itself looks up (on some systems it looks up its inner half by these names).
 * (4) Nothing is begun in here: no driver code is run, nothing is allocated, and no
 *     lock is taken but the loader's, of the list of objects. In the child of a fork
 *     even that one only for the driver's names: a thread of the parent may have had it.
 * Lock: none. The two pointers are written once or more with the same value.
 */
#include "interpose/cuda_int.h"
#include "interpose/elf.h"

#include <dlfcn.h>
#include <limits.h>

static void *no_dlsym(void *handle, const char *name)
{
	return NULL;
}

static void *no_dlvsym(void *handle, const char *name, const char *version)
{
	return NULL;
}

/* Named by the assembly below. */
__attribute__((visibility("hidden"))) void *(*real_dlsym)(void *, const char *) = no_dlsym;
__attribute__((visibility("hidden")))
void *(*real_dlvsym)(void *, const char *, const char *) = no_dlvsym;
void *dlsym_answer(void *handle, const char *name, const char *version, const void *caller);
static int initial = INT_MAX;	/* objects that were there from the start */

#if defined(__x86_64__)
/* Three pushes align the stack; the version is the third argument of dlvsym. */
#define STUB(name, version) \
	__asm__(".text\n" \
		".p2align 4\n" \
		".globl " #name "\n" \
		".type " #name ", @function\n" \
		#name ":\n" \
		".cfi_startproc\n" \
		"	endbr64\n" \
		"	push %rdi\n	.cfi_adjust_cfa_offset 8\n" \
		"	push %rsi\n	.cfi_adjust_cfa_offset 8\n" \
		"	push %rdx\n	.cfi_adjust_cfa_offset 8\n" \
		version \
		"	mov 24(%rsp), %rcx\n" \
		"	call dlsym_answer\n" \
		"	pop %rdx\n	.cfi_adjust_cfa_offset -8\n" \
		"	pop %rsi\n	.cfi_adjust_cfa_offset -8\n" \
		"	pop %rdi\n	.cfi_adjust_cfa_offset -8\n" \
		"	test %rax, %rax\n" \
		"	jnz 1f\n" \
		"	jmp *real_" #name "(%rip)\n" \
		"1:	ret\n" \
		".cfi_endproc\n" \
		".size " #name ", .-" #name "\n")
STUB(dlsym, "	xor %edx, %edx\n");
STUB(dlvsym, "");
#endif

static AT_START void find_real(void)
{
	void *sym = elf_next((const void *)find_real, "dlsym", NULL, NULL);
	void *vsym = elf_next((const void *)find_real, "dlvsym", NULL, NULL);

	if (vsym)
		__atomic_store_n(&real_dlvsym, (__typeof__(real_dlvsym))vsym, __ATOMIC_RELAXED);
	if (sym)
		__atomic_store_n(&real_dlsym, (__typeof__(real_dlsym))sym, __ATOMIC_RELEASE);
}

AT_START void *dlsym_next(const char *name)
{
	if (__atomic_load_n(&real_dlsym, __ATOMIC_ACQUIRE) == no_dlsym)
		find_real();
	return real_dlsym(RTLD_NEXT, name);
}

static void *ask(void *handle, const char *name, const char *version)
{
	return version ? real_dlvsym(handle, name, version) : real_dlsym(handle, name);
}

/* What the caller's own objects know of it: a handle of its own map. */
static void *ask_for(const void *caller, const char *name, const char *version)
{
	struct link_map *map = NULL;
	Dl_info info;

	if (!dladdr1(caller, &info, (void **)&map, RTLD_DL_LINKMAP) || !map)
		return NULL;
	return ask(map, name, version);
}

struct who { const void *at; int index; bool driver; };

static int is_caller(const struct elf_object *o, void *arg)
{
	struct who *w = arg;

	w->driver = elf_named(o, DRIVER_NAME) || elf_named(o, NVML_NAME);
	w->index += !elf_holds(o, w->at);
	return elf_holds(o, w->at);
}

static AT_START int count_one(const struct elf_object *o, void *arg)
{
	*(int *)arg += 1;
	return 0;
}

AT_START void dlsym_begin(void)
{
	int n = 0;

	elf_each(count_one, &n);
	initial = n;
}

/* The next one after the caller's: of objects there from the start, in the order they
 * were loaded in; of others, in the order of their own needs. */
static void *resolve_next(const char *name, const char *version, const struct who *who)
{
	const char *library = cuda_library(name);
	bool drivers;
	void *at = elf_next(who->at, name, library, &drivers);

	if (!at && who->index >= initial)
		return ask_for(who->at, name, version);
	if (!drivers || (!ask(RTLD_DEFAULT, name, version) &&
			 !ask_for(who->at, name, version)))
		return NULL;
	return at;
}

/* What libc would answer, as far as that can be the driver's; else NULL. */
static void *resolve(void *handle, const char *name, const char *version,
		     const struct who *who)
{
	void *at;

	if (handle == RTLD_NEXT)
		return resolve_next(name, version, who);
	at = ask(handle, name, version);
	if (!at && handle == RTLD_DEFAULT)
		at = ask_for(who->at, name, version);
	return at;
}

/* NULL: ask the real one. */
__attribute__((visibility("hidden"), used))
void *dlsym_answer(void *handle, const char *name, const char *version, const void *caller)
{
	struct who who = { .at = caller };
	int saved = errno;
	bool ours;
	void *at;

	if (__atomic_load_n(&real_dlsym, __ATOMIC_ACQUIRE) == no_dlsym)
		find_real();
	ours = name && cuda_library(name);
	if (ours || !core_forked())
		cuda_look();
	if (!ours || real_dlsym == no_dlsym)
		return NULL;
	if (!elf_each(is_caller, &who))
		return NULL;
	at = who.driver ? NULL : resolve(handle, name, version, &who);
	if (at)
		at = cuda_hook(name, at);
	errno = saved;
	return at;
}
