/* SPDX-License-Identifier: MIT */
/* anon.c - the heap's memory: the kernel's until pressure comes, then paged.
 *
 * Lock: none of its own yet.
 */
#include "core/anon.h"
#include "core/core_int.h"

#include <sys/mman.h>

int anon_grow(uintptr_t lo, uintptr_t hi)
{
	return off_sys_mprotect((void *)lo, hi - lo, PROT_READ | PROT_WRITE) ? -errno : 0;
}

void anon_clear(uintptr_t lo, uintptr_t hi)
{
	if (lo < hi && off_sys_madvise((void *)lo, hi - lo, MADV_DONTNEED))
		memset((void *)lo, 0, hi - lo);
}

void anon_admit(size_t bytes)
{
}

bool anon_live(void)
{
	return false;
}
