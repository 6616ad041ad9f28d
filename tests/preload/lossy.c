/* SPDX-License-Identifier: MIT */
/* lossy.c - float tensors that are rounded where they are packed: OFFLOAD_LOSSY.
 *
 * Owns a file of five tensors: matrices of the three float types that the pattern
 * names, a vector, and a matrix that it does not name. (1) No number of the first
 * is ever further off than int8 can be, and some of them are off, or nothing was
 * rounded. (2) All else is as it was, to the byte. Lock: none.
 */
/* env: OFFLOAD_RAM=24M OFFLOAD_DISK=1M OFFLOAD_LOSSY=int8:*.weight */
/* needs: regions evictions packed */
/* message: tensors of .* may be rounded to int8 */
#include "trap.h"

#include <math.h>

enum { F32 = 0, F16 = 1, BF16 = 30 };

static const struct tensor {
	const char *name;
	uint32_t type, dims;
	uint64_t n0, n1;
	bool exact;
} tensor[] = {
	{ "blk.0.up.weight", BF16, 2, 4096, 2500, false },
	{ "blk.0.norm.weight", F32, 1, 300032, 1, true },
	{ "blk.1.up.weight", F16, 2, 4096, 1500, false },
	{ "blk.1.other", F32, 2, 1024, 2000, true },
	{ "output.weight", F32, 2, 1000, 2500, false },
};
#define TENSORS (sizeof(tensor) / sizeof(tensor[0]))

static uint64_t offset[TENSORS];	/* in the file */
static unsigned char *was;		/* the file's bytes */

static size_t value_bytes(uint32_t type)
{
	return type == F32 ? 4 : 2;
}

static uint64_t tensor_bytes(const struct tensor *t)
{
	return t->n0 * t->n1 * value_bytes(t->type);
}

/* Between -1 and 1, by position. */
static float number(uint64_t i)
{
	return (float)(int32_t)(trap_word(i, 1) >> 32) * 0x1p-31f;
}

static void put_number(unsigned char *p, uint32_t type, float f)
{
	_Float16 h = (_Float16)f;

	if (type == F16)
		memcpy(p, &h, 2);
	else
		memcpy(p, (unsigned char *)&f + (type == BF16 ? 2 : 0), value_bytes(type));
}

static float number_at(const unsigned char *p, uint32_t type)
{
	float f = 0;
	_Float16 h;

	if (type == F16) {
		memcpy(&h, p, 2);
		return (float)h;
	}
	memcpy((unsigned char *)&f + (type == BF16 ? 2 : 0), p, value_bytes(type));
	return f;
}

/* The whole file, in memory of its own. Returns its length. */
static size_t make(void)
{
	const uint32_t version = 3;
	const uint64_t count = TENSORS, keys = 0;
	unsigned char head[4096] = "GGUF";
	size_t at = 4, size = sizeof(head);
	uint64_t off = 0;

	at = trap_put(head, at, &version, 4);
	at = trap_put(head, at, &count, 8);
	at = trap_put(head, at, &keys, 8);
	for (size_t i = 0; i < TENSORS; i++) {
		const struct tensor *t = &tensor[i];
		const uint64_t len = strlen(t->name);

		at = trap_put(head, at, &len, 8);
		at = trap_put(head, at, t->name, len);
		at = trap_put(head, at, &t->dims, 4);
		at = trap_put(head, at, &t->n0, 8);
		if (t->dims > 1)
			at = trap_put(head, at, &t->n1, 8);
		at = trap_put(head, at, &t->type, 4);
		at = trap_put(head, at, &off, 8);
		offset[i] = off;
		off += (tensor_bytes(t) + 31) & ~31ul;
	}
	at = (at + 31) & ~31ul;
	size = at + off;
	was = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(was != MAP_FAILED);
	memcpy(was, head, at);
	for (size_t i = 0; i < TENSORS; i++) {
		offset[i] += at;
		for (uint64_t k = 0; k < tensor[i].n0 * tensor[i].n1; k++)
			put_number(was + offset[i] + k * value_bytes(tensor[i].type),
				   tensor[i].type, number(k + i * 1000003));
	}
	return size;
}

/* How many numbers are not what they were; none by more than half a step of 1/127
 * and what a bf16 near 1 cannot tell. */
static uint64_t compare(const struct tensor *t, const unsigned char *old,
			const unsigned char *now)
{
	size_t size = value_bytes(t->type);
	uint64_t off = 0;

	for (uint64_t i = 0; i < t->n0 * t->n1; i++) {
		float a = number_at(old + i * size, t->type), b = number_at(now + i * size, t->type);

		if (!(fabsf(a - b) < 0.51f / 127 + 0x1p-8f))
			fail("%s[%llu] is %g, not %g", t->name, (unsigned long long)i, b, a);
		off += a != b;
	}
	return off;
}

/* How many numbers in all. */
static uint64_t look(const unsigned char *map)
{
	uint64_t off = 0;

	check(!memcmp(map, was, offset[0]));
	for (size_t i = 0; i < TENSORS; i++) {
		const unsigned char *old = was + offset[i], *now = map + offset[i];

		if (tensor[i].exact && memcmp(old, now, tensor_bytes(&tensor[i])))
			fail("%s is not what it was", tensor[i].name);
		off += compare(&tensor[i], old, now);
	}
	return off;
}

int main(void)
{
	struct trap t = { .seed = 1 };
	uint64_t rounded = 0;
	int fd;

	t.size = make();
	snprintf(t.path, sizeof(t.path), "%s/lossy.%d.gguf", trap_dir(), (int)getpid());
	fd = open(t.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	check(fd >= 0);
	for (size_t at = 0; at < t.size; at += MIB)
		trap_write_all(fd, was + at, t.size - at < MIB ? t.size - at : MIB, (off_t)at);
	fsync(fd);
	close(fd);
	trap_map(&t, PROT_READ, MAP_SHARED);
	for (int i = 0; i < 8; i++)
		rounded += look(t.map);
	if (trap_paged() && !rounded)
		fail("no number was rounded");
	t.map = NULL;		/* it stays, packed, for the statistics */
	unlink(t.path);
	return trap_done(&t);
}
