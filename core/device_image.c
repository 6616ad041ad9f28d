/* SPDX-License-Identifier: MIT */
/* device_image.c - the parameters of kernels where the driver does not tell them: as the
 * images say that were loaded, by module or library and name.
 *
 * Owns the kernels of each owner, which is the driver's module or library, and which
 * handles are which kernel of whom. lock: that of functions, around a fork too; images are
 * read before it is taken.
 * (1) A pointer to an image says nothing of its length: it is copied by a system call
 *     that fails where there is no memory. What cannot be copied is not known.
 * (2) Images for several cards hold the same kernels: where they do not agree on one, its
 *     parameters are not known.
 * (3) What an owner had ends with it: its handles may come again, as others.
 */
#include "core/device_int.h"
#include "core/image.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define WRAPPER		0x466243b1u	/* a pointer to an image, in a structure */
#define FIRST_ROOM	64u		/* power of two */
#define TEXT_STEP	4096u

struct kernel {
	int n;			/* -1: not known */
	struct device_param *p;
	size_t len;
	char name[];
};

struct owner {
	uintptr_t handle;
	struct kernel **at;	/* by hash of their names; NULL: free */
	uint32_t room, used;
	struct owner *next;
};

struct named {
	uintptr_t handle;
	uintptr_t owner;	/* whose end is its end */
	const struct kernel *k;	/* NULL: it is a module of the owner, a library */
};

static struct owner *owners;
static struct named *named;
static uint32_t named_used, named_room;

/* ---- kernels ------------------------------------------------------------------------------ */

static uint32_t hash_of(const char *name, size_t len)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)name[i]) * 0x100000001b3ull;
	return (uint32_t)(h ^ h >> 32);
}

/* Where it is, or would be. */
static uint32_t slot_of(const struct owner *o, const char *name, size_t len)
{
	uint32_t i = hash_of(name, len) & (o->room - 1);

	while (o->at[i] && (o->at[i]->len != len || memcmp(o->at[i]->name, name, len)))
		i = (i + 1) & (o->room - 1);
	return i;
}

static bool more_room(struct owner *o)
{
	struct owner bigger = *o;

	bigger.room = o->room ? o->room * 2 : FIRST_ROOM;
	bigger.at = mem_zalloc(bigger.room * sizeof(*bigger.at));
	if (!bigger.at)
		return false;
	for (uint32_t i = 0; i < o->room; i++)
		if (o->at[i])
			bigger.at[slot_of(&bigger, o->at[i]->name, o->at[i]->len)] = o->at[i];
	mem_free(o->at);
	*o = bigger;
	return true;
}

static struct kernel *kernel_new(const char *name, size_t len, const struct device_param *p,
				 int n)
{
	size_t size = n > 0 ? (size_t)n * sizeof(*p) : 0;
	struct kernel *k = mem_alloc(sizeof(*k) + len + 1);

	if (!k)
		return NULL;
	*k = (struct kernel){ .n = n, .len = len };
	memcpy(k->name, name, len);
	k->name[len] = 0;
	if (size && (k->p = mem_alloc(size)))
		memcpy(k->p, p, size);
	if (size && !k->p)
		k->n = -1;
	return k;
}

/* image_found: a kernel of the owner that is being made. */
static void add(void *arg, const char *name, size_t len, const struct device_param *p, int n)
{
	struct owner *o = arg;
	struct kernel *k;
	uint32_t i;

	if (o->used * 2 >= o->room && !more_room(o))
		return;
	i = slot_of(o, name, len);
	k = o->at[i];
	if (!k) {
		o->at[i] = kernel_new(name, len, p, n);
		o->used += o->at[i] != NULL;
	} else if (k->n != n || (n > 0 && memcmp(k->p, p, (size_t)n * sizeof(*p)))) {
		k->n = -1;
	}
}

static void owner_free(struct owner *o)
{
	for (uint32_t i = 0; i < o->room; i++) {
		if (o->at[i])
			mem_free(o->at[i]->p);
		mem_free(o->at[i]);
	}
	mem_free(o->at);
	mem_free(o);
}

/* ---- images ----------------------------------------------------------------------------------- */

/* How many of the bytes there were, from the first on. */
static size_t copy(void *to, uintptr_t from, size_t len)
{
	size_t done = 0;

	while (done < len) {
		struct iovec a = { (char *)to + done, len - done };
		struct iovec b = { (void *)(from + done), len - done };
		long n = syscall(SYS_process_vm_readv, getpid(), &a, 1UL, &b, 1UL, 0UL);

		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return done;
}

/* Text, as far as it is there, page by page until it ends. NULL: no memory. */
static uint8_t *take_text(uintptr_t from, size_t *len)
{
	uint8_t *to = NULL;
	size_t n = 0;

	while (n < IMAGE_BYTES) {
		size_t step = TEXT_STEP - (from + n) % TEXT_STEP, got;
		uint8_t *more = mem_realloc(to, n + step);

		if (!more)
			break;
		to = more;
		got = copy(to + n, from + n, step);
		n += strnlen((char *)to + n, got);
		if (got < step || (n + from) % TEXT_STEP)
			break;
	}
	*len = n;
	return to;
}

/* All of it, in memory of ours; NULL: it cannot be had. */
static uint8_t *take(uintptr_t from, size_t *len)
{
	uint8_t head[64], *to = head;
	size_t have = copy(head, from, sizeof(head)), need = 0, want;
	bool text;

	if (have >= 16 && *(const uint32_t *)(const void *)head == WRAPPER) {
		memcpy(&from, head + 8, sizeof(from));
		have = copy(head, from, sizeof(head));
	}
	while (!(*len = image_len(to, have, &need, &text))) {
		if (text && to == head)
			return take_text(from, len);
		if (need <= have || need > IMAGE_BYTES)
			break;
		to = mem_realloc(to == head ? NULL : to, need);
		if (!to || copy(to, from, need) < need)
			break;
		have = need;
	}
	want = *len;
	if (!to || !want || want > IMAGE_BYTES) {
		if (to != head)
			mem_free(to);
		return NULL;
	}
	if (to != head)
		mem_free(to);
	to = mem_alloc(want);
	if (to && copy(to, from, want) == want)
		return to;
	mem_free(to);
	return NULL;
}

void device_image(uintptr_t owner, const void *image)
{
	int saved = errno;
	size_t len = 0;
	uint8_t *bytes = image ? take((uintptr_t)image, &len) : NULL;
	struct owner *o = bytes ? mem_zalloc(sizeof(*o)) : NULL;

	if (o) {
		o->handle = owner;
		image_read(bytes, len, add, o);
		device_fn_lock();
		o->next = owners;
		owners = o;
		device_fn_unlock();
	}
	mem_free(bytes);
	errno = saved;
}

void device_image_file(uintptr_t owner, const char *path)
{
	int saved = errno, fd = off_sys_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t room = 0;
	char *bytes = NULL;
	struct stat st;

	if (fd >= 0 && !off_sys_fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size <= IMAGE_BYTES) {
		room = (size_t)st.st_size;
		bytes = mem_zalloc(room + 1);	/* text ends with a zero */
	}
	if (bytes && off_sys_pread_all(fd, bytes, room, 0) == (ssize_t)room)
		device_image(owner, bytes);
	if (fd >= 0)
		off_sys_close(fd);
	mem_free(bytes);
	errno = saved;
}

/* ---- handles -------------------------------------------------------------------------------- */

static void set(uintptr_t handle, uintptr_t owner, const struct kernel *k)
{
	uint32_t i = 0;

	while (i < named_used && named[i].handle != handle)
		i++;
	if (i == named_room) {
		uint32_t room = named_room ? named_room * 2 : FIRST_ROOM;
		struct named *more = mem_realloc(named, room * sizeof(*more));

		if (!more)
			return;
		named = more;
		named_room = room;
	}
	named_used += i == named_used;
	named[i] = (struct named){ handle, owner, k };
}

/* The library of a module that is one's. */
static uintptr_t library_of(uintptr_t module)
{
	for (uint32_t i = 0; i < named_used; i++)
		if (named[i].handle == module && !named[i].k)
			return named[i].owner;
	return module;
}

void device_image_module(uintptr_t module, uintptr_t library)
{
	int saved = errno;

	device_fn_lock();
	set(module, library, NULL);
	device_fn_unlock();
	errno = saved;
}

void device_image_fn(uintptr_t handle, uintptr_t owner, const char *name)
{
	int saved = errno;
	uint32_t i;

	device_fn_lock();
	owner = library_of(owner);
	for (struct owner *o = owners; o && name; o = o->next) {
		if (o->handle != owner || !o->room)
			continue;
		i = slot_of(o, name, strlen(name));
		if (o->at[i])
			set(handle, owner, o->at[i]);
		break;
	}
	device_fn_unlock();
	errno = saved;
}

void device_image_same(uintptr_t handle, uintptr_t as)
{
	int saved = errno;

	device_fn_lock();
	for (uint32_t i = 0; i < named_used; i++) {
		if (named[i].handle != as || !named[i].k)
			continue;
		set(handle, named[i].owner, named[i].k);
		break;
	}
	device_fn_unlock();
	errno = saved;
}

void device_image_end(uintptr_t owner)
{
	struct owner **at = &owners, *gone = NULL;
	uint32_t kept = 0;

	device_fn_lock();
	for (uint32_t i = 0; i < named_used; i++)
		if (named[i].owner != owner)
			named[kept++] = named[i];
	named_used = kept;
	while (*at && (*at)->handle != owner)
		at = &(*at)->next;
	if (*at) {
		gone = *at;
		*at = gone->next;
	}
	device_fn_unlock();
	if (gone)
		owner_free(gone);
}

int device_image_params(uintptr_t handle, struct device_param *p, int most, char *name,
			size_t room)
{
	int n = -1;

	device_fn_lock();
	for (uint32_t i = 0; i < named_used; i++) {
		const struct kernel *k = named[i].k;

		if (named[i].handle != handle || !k)
			continue;
		if (k->n <= most)
			n = k->n;
		if (n > 0)
			memcpy(p, k->p, (size_t)n * sizeof(*p));
		if (room) {
			size_t len = k->len < room ? k->len : room - 1;

			memcpy(name, k->name, len);
			name[len] = 0;
		}
		break;
	}
	device_fn_unlock();
	return n;
}
