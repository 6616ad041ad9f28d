/* SPDX-License-Identifier: MIT */
/* vm.c - device addresses, device memory and who may touch what.
 *
 * Owns the address space, the page table, the memory file and the capacity.
 *
 * (1) Device addresses are a range the host can never touch (E5); the emulator sees the
 *     same bytes in a second range, the alias, mapped from one sparse file.
 * (2) The memory of an allocation lies in the file where its address says, so that
 *     allocating maps nothing; that of handles lies behind, and is mapped over the alias.
 * (3) Two bits of a page per device, reads and writes, are all that is looked at when work
 *     runs (vm_at). They change under the lock, and only where nothing runs (E1).
 * (4) Memory is junk when it is given out (E14).
 * Lock: the emulator's; vm_at: none.
 */
#include "tests/emu/emu.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES		(EMU_VA / EMU_PAGE)
#define FILE_BYTES	(64 * EMU_VA)
#define JUNK		0xa5
#define EMU_BASE	0x5b3d00000000ull	/* if it can be: hints are taken here only */
#define EMU_LOW_BASE	0x400000000ull	/* where drivers begin */
#define RECENT		64

static int file = -1;
static struct range **ranges;		/* in order of addresses */
static unsigned n, room;
static uint64_t cursor;			/* addresses never used: from here (from base) */
static uint64_t phys_end = EMU_VA;	/* of the file */
static uint64_t ids;
static struct {
	uint64_t addr, size;
} recent[RECENT];			/* given back: used again first */
static unsigned nrecent;

static void *sys_map(void *at, uint64_t bytes, int prot, int flags, int fd, uint64_t off)
{
	return (void *)syscall(SYS_mmap, at, bytes, prot, flags, fd, off);
}

void *emu_map(uint64_t bytes)
{
	void *at = sys_map(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

void emu_unmap(void *at, uint64_t bytes)
{
	syscall(SYS_munmap, at, bytes);
}

uint64_t round_up(uint64_t x, uint64_t to)
{
	return (x + to - 1) / to * to;
}

int vm_open(void)
{
	const uint64_t align = 1ull << 30;
	char *at;

	file = (int)syscall(SYS_memfd_create, "emulated device memory", MFD_CLOEXEC);
	if (file < 0 || ftruncate(file, (off_t)FILE_BYTES) < 0)
		return -errno;
	at = sys_map((void *)(emu.opt.low ? EMU_LOW_BASE : EMU_BASE), 2 * EMU_VA + align, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	emu.pages = emu_map(PAGES * sizeof(*emu.pages));
	if (at == MAP_FAILED || !emu.pages)
		return -ENOMEM;
	emu.base = (char *)round_up((uintptr_t)at, align);
	emu.alias = emu.base + EMU_VA;
	cursor = emu.opt.granularity;
	return vm_map((uint64_t)(uintptr_t)emu.base, EMU_VA, 0);
}

bool vm_is_device(uint64_t addr)
{
	return addr - (uint64_t)(uintptr_t)emu.base < EMU_VA;
}

static uint64_t offset(uint64_t addr)
{
	return addr - (uint64_t)(uintptr_t)emu.base;
}

void *vm_alias(uint64_t addr)
{
	return emu.alias + offset(addr);
}

/* ---- access ------------------------------------------------------------------- */

void vm_access(uint64_t addr, uint64_t size, uint16_t bits)
{
	uint64_t from = offset(addr) / EMU_PAGE, to = offset(addr + size - 1) / EMU_PAGE;

	for (uint64_t p = from; p <= to; p++)
		__atomic_store_n(&emu.pages[p], bits, __ATOMIC_RELAXED);
}

static void *host_at(int device, uint64_t addr, uint64_t size, int write)
{
	struct host_range h;

	if (!host_find(addr, &h))
		return device < 0 || emu.opt.host_access ? (void *)(uintptr_t)addr : NULL;
	if (size > h.addr + h.size - addr)
		return NULL;
	if (device >= 0 && write && h.flags & CU_MEMHOSTREGISTER_READ_ONLY &&
	    h.kind == H_REGISTERED)
		return NULL;
	if (h.managed)
		managed_touch(h.managed, device, addr - h.addr, size);
	return (void *)(uintptr_t)addr;
}

void *vm_at(int device, uint64_t addr, uint64_t size, int write)
{
	uint16_t any = write ? 0xaaaa : 0x5555;
	uint16_t need = device < 0 ? any : (uint16_t)((write ? 2u : 1u) << 2 * device);
	uint64_t from, to;

	if (!size)
		size = 1;
	if (!vm_is_device(addr))
		return host_at(device, addr, size, write);
	if (size > EMU_VA - offset(addr))
		return NULL;
	from = offset(addr) / EMU_PAGE;
	to = offset(addr + size - 1) / EMU_PAGE;
	for (uint64_t p = from; p <= to; p++)
		if (!(__atomic_load_n(&emu.pages[p], __ATOMIC_RELAXED) & need))
			return NULL;
	return emu.alias + offset(addr);
}

bool vm_mapped(uint64_t addr, uint64_t size)
{
	const struct range *r = vm_find(addr);

	if (!size)
		return true;
	if (r && r->kind != R_RESERVED)
		return !r->freeing && size <= r->addr + r->size - addr;
	return vm_is_device(addr) && vm_at(-1, addr, size, 0);
}

/* The bits by which a device and those that see its memory reach it. */
static uint16_t bits_of(int device)
{
	uint16_t bits = (uint16_t)(3u << 2 * device);

	for (unsigned d = 0; d < emu.opt.devices; d++)
		if (emu.dev[d].peers[device])
			bits |= (uint16_t)(3u << 2 * d);
	return bits;
}

void vm_show(struct range *r)
{
	vm_access(r->addr, r->size, bits_of(r->device));
	r->live = true;
}

void vm_hide(struct range *r)
{
	vm_access(r->addr, r->size, 0);
	r->live = false;
}

void vm_peers(int device, int of, bool on)
{
	emu.dev[device].peers[of] = on;
	for (unsigned i = 0; i < n; i++)
		if (ranges[i]->kind != R_RESERVED && ranges[i]->device == of && ranges[i]->live)
			vm_access(ranges[i]->addr, ranges[i]->size, bits_of(of));
}

/* ---- memory ------------------------------------------------------------------- */

bool vm_take(int device, uint64_t bytes)
{
	struct device *d = &emu.dev[device];

	if (bytes > emu.opt.vram - d->used)
		return false;
	d->used += bytes;
	if (d->used > d->peak)
		d->peak = d->used;
	return true;
}

void vm_give(int device, uint64_t bytes)
{
	emu.dev[device].used -= bytes;
}

int vm_map(uint64_t addr, uint64_t size, uint64_t phys)
{
	void *at = sys_map(vm_alias(addr), size, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_FIXED | MAP_NORESERVE, file, phys);

	if (at == MAP_FAILED)
		return -errno;
	madvise(at, size, MADV_DONTDUMP);
	return 0;
}

void vm_unmap(uint64_t addr, uint64_t size)
{
	vm_access(addr, size, 0);
	vm_map(addr, size, offset(addr));
}

int vm_host(uint64_t addr, uint64_t size, uint64_t phys, bool on)
{
	void *at = (void *)(uintptr_t)addr;

	if (on)
		at = sys_map(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, phys);
	else
		at = sys_map(at, size, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	return at == MAP_FAILED ? -errno : 0;
}

uint64_t vm_phys_new(uint64_t bytes)
{
	uint64_t at = phys_end;
	char *junk = sys_map(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, at);

	phys_end += bytes;
	if (phys_end > FILE_BYTES || junk == MAP_FAILED)
		abort();
	memset(junk, JUNK, bytes);
	emu_unmap(junk, bytes);
	return at;
}

void vm_phys_end(uint64_t phys, uint64_t bytes)
{
	fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)phys, (off_t)bytes);
}

CUresult vm_back(struct range *r, int device)
{
	if (!vm_take(device, r->size))
		return CUDA_ERROR_OUT_OF_MEMORY;
	r->device = device;
	r->phys = offset(r->addr);
	memset(vm_alias(r->addr), JUNK, r->size);
	return CUDA_SUCCESS;
}

void vm_unback(struct range *r)
{
	vm_hide(r);
	vm_phys_end(r->phys, r->size);
	vm_give(r->device, r->size);
}

/* ---- ranges ------------------------------------------------------------------- */

/* The first range that ends behind the address. */
static unsigned place(uint64_t addr)
{
	unsigned from = 0, to = n;

	while (from < to) {
		unsigned mid = (from + to) / 2;

		if (ranges[mid]->addr + ranges[mid]->size <= addr)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

struct range *vm_find(uint64_t addr)
{
	unsigned i = place(addr);

	return i < n && ranges[i]->addr <= addr ? ranges[i] : NULL;
}

struct range *vm_nth(unsigned i)
{
	return i < n ? ranges[i] : NULL;
}

static bool is_free(uint64_t addr, uint64_t size)
{
	unsigned i;

	if (!vm_is_device(addr) || size > EMU_VA - offset(addr))
		return false;
	i = place(addr);
	return i == n || ranges[i]->addr >= addr + size;
}

static uint64_t find_free(uint64_t size, uint64_t align)
{
	uint64_t at;

	for (unsigned i = nrecent; i-- > 0;) {
		at = recent[i].addr;
		if (recent[i].size != size || at % align || !is_free(at, size))
			continue;
		recent[i] = recent[--nrecent];
		return at;
	}
	at = round_up((uint64_t)(uintptr_t)emu.base + cursor, align);
	if (offset(at) + size < EMU_VA) {
		cursor = offset(at) + size + EMU_PAGE;	/* a page between, never touched */
		return at;
	}
	for (unsigned i = 0; i < n; i++) {
		at = round_up(ranges[i]->addr + ranges[i]->size + EMU_PAGE, align);
		if (is_free(at, size))
			return at;
	}
	return 0;
}

struct range *vm_reserve(uint64_t size, uint64_t align, uint64_t hint, enum range_kind kind)
{
	struct range *r = calloc(1, sizeof(*r));
	unsigned i;

	if (!r || size > EMU_VA / 2) {
		free(r);
		return NULL;
	}
	r->size = size;
	r->addr = hint && hint % align == 0 && is_free(hint, size) ? hint : find_free(size, align);
	if (!r->addr) {
		free(r);
		return NULL;
	}
	r->kind = kind;
	r->id = ++ids;
	if (n == room) {
		room = room ? 2 * room : 256;
		ranges = realloc(ranges, room * sizeof(struct range *));
		if (!ranges)
			abort();
	}
	i = place(r->addr);
	memmove(ranges + i + 1, ranges + i, (n - i) * sizeof(struct range *));
	ranges[i] = r;
	n++;
	return r;
}

void vm_forget(struct range *r)
{
	unsigned i = place(r->addr);

	memmove(ranges + i, ranges + i + 1, (n - i - 1) * sizeof(struct range *));
	n--;
	if (nrecent == RECENT)
		memmove(recent, recent + 1, --nrecent * sizeof(*recent));
	recent[nrecent].addr = r->addr;
	recent[nrecent++].size = r->size;
	free(r);
}
