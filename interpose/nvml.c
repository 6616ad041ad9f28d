/* SPDX-License-Identifier: MIT */
/* nvml.c - what the management library says of memory, in step with the driver.
 *
 * Its devices are not numbered as the driver's are; they are told apart by their
 * uuid, as text there. Lock: none.
 */
#include "interpose/cuda_int.h"

struct nvml_device;

struct nvml_memory { unsigned long long total, free, used; };

struct nvml_memory2 {
	unsigned int version;
	unsigned long long total, reserved, free, used;
};

#define NVML(symbol, types, records) int symbol types; int hook_##symbol types;
#include "interpose/nvml.def"
#undef NVML

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
	       c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "GPU-8a3c...": 16 bytes in hex, hyphens anywhere. */
static bool read_uuid(const char *text, unsigned char out[16])
{
	int n = 0;

	text += strncmp(text, "GPU-", 4) ? 0 : 4;
	for (; *text && n < 32; text++) {
		int d = digit(*text);

		if (*text == '-')
			continue;
		if (d < 0)
			return false;
		out[n / 2] = (unsigned char)(n % 2 ? out[n / 2] | d : d << 4);
		n++;
	}
	return n == 32;
}

/* The driver's number of it, or -1. */
static int device_of(struct nvml_device *d)
{
	int (*uuid)(struct nvml_device *, char *, unsigned int) =
		(int (*)(struct nvml_device *, char *, unsigned int))nvml_get_uuid;
	unsigned char bytes[16];
	char text[96] = "";

	if (!uuid || uuid(d, text, sizeof(text)) || !read_uuid(text, bytes))
		return -1;
	return device_by_uuid(bytes);
}

/* Bytes gone from the total are nobody's: neither free nor in use. */
static void tell(struct nvml_device *d, unsigned long long *total, unsigned long long *free,
		 unsigned long long *used, unsigned long long reserved)
{
	uint64_t t = *total, f = *free;

	device_told(device_of(d), &f, &t);
	if (t == *total && f == *free)
		return;
	*total = t;
	*free = f;
	*used = t - f > reserved ? t - f - reserved : 0;
}

int hook_nvmlDeviceGetMemoryInfo(struct nvml_device *d, struct nvml_memory *m)
{
	int r = REAL(nvmlDeviceGetMemoryInfo)(d, m);

	if (!r && m)
		tell(d, &m->total, &m->free, &m->used, 0);
	return r;
}

int hook_nvmlDeviceGetMemoryInfo_v2(struct nvml_device *d, struct nvml_memory2 *m)
{
	int r = REAL(nvmlDeviceGetMemoryInfo_v2)(d, m);

	if (!r && m)
		tell(d, &m->total, &m->free, &m->used, m->reserved);
	return r;
}
