/* SPDX-License-Identifier: MIT */
/* kernels.c - fuzzes image_read: device images of all kinds. Owns nothing; lock: none.
 *
 * (1) The image is in memory of just its length. (2) What is said of a kernel lies in it,
 * and its parameters follow one another.
 */
#include "core/image.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look(void *arg, const char *name, size_t len, const struct device_param *p, int n)
{
	volatile char last = len ? name[len - 1] : 0;
	uint64_t end = 0;

	(void)last;
	if (n > IMAGE_PARAMS)
		abort();
	for (int i = 0; i < n; i++) {
		if (p[i].offset < end || !p[i].size)
			abort();
		end = (uint64_t)p[i].offset + p[i].size;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	uint8_t *p = malloc(n);
	size_t need;
	bool text;

	if (n && !p)
		return 0;
	memcpy(p, data, n);
	image_len(p, n, &need, &text);
	image_read(p, n, look, NULL);
	free(p);
	return 0;
}
