/* SPDX-License-Identifier: MIT */
/* lib_nvml.c - a libnvidia-ml.so.1 of one device: FAKE_UUID, 256 MiB, 200 of them free.
 *
 * Owns nothing; lock: none.
 */
#include <stdio.h>
#include <stdlib.h>

#define MIB (1ull << 20)

struct memory { unsigned long long total, free, used; };
struct memory2 { unsigned int version; unsigned long long total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo(void *device, struct memory *m);
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory2 *m);
int nvmlDeviceGetUUID(void *device, char *text, unsigned int len);

int nvmlDeviceGetMemoryInfo(void *device, struct memory *m)
{
	*m = (struct memory){ 256 * MIB, 200 * MIB, 56 * MIB };
	return 0;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory2 *m)
{
	*m = (struct memory2){ m->version, 256 * MIB, MIB, 200 * MIB, 55 * MIB };
	return 0;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned int len)
{
	const char *uuid = getenv("FAKE_UUID");

	return !uuid || snprintf(text, len, "%s", uuid) >= (int)len;
}
