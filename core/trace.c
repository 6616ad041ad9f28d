/* SPDX-License-Identifier: MIT */
/* trace.c - OFFLOAD_TRACE: the tape, as text, for offctl simulate.
 *
 *   offload-tape 1 chunk_bytes=2097152 chunks=N
 *   span FIRST COUNT PATTERN ORDER NAME
 *   CHUNK STREAM
 *
 * Uses are what the pager sees, faults: chunks the program found in place do
 * not appear. Chunk count is the most there may be, for ids are given out as
 * regions come. Lines of devices are appended by others
 * (device_tape.c). Lock: none; pager thread.
 */
#include "core/core_int.h"
#include "core/outfile.h"

#include <fcntl.h>
#include <stdio.h>

static int fd = -1;
static char buf[16384];
static size_t used;

void trace_flush(void)
{
	size_t done = 0;

	while (fd >= 0 && done < used) {
		ssize_t n = off_sys_write(fd, buf + done, used - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			off_log("OFFLOAD_TRACE: cannot write (%s); the tape ends here",
				strerrordesc_np(errno));
			off_sys_close(fd);
			fd = -1;
			break;
		}
		done += (size_t)n;
	}
	used = 0;
}

static void put(const char *line, int n)
{
	if (n <= 0)
		return;
	if (used + (size_t)n > sizeof(buf))
		trace_flush();
	memcpy(buf + used, line, (size_t)n);
	used += (size_t)n;
}

void trace_open(void)
{
	char line[96];

	fd = -1;
	used = 0;
	if (!off_opt.trace)
		return;
	fd = outfile_open(off_opt.trace, false);
	if (fd < 0) {
		off_log("OFFLOAD_TRACE=%s: %s; no tape is written", off_opt.trace,
			outfile_error(fd));
		return;
	}
	fcntl(fd, F_SETFL, O_APPEND);	/* others write to it, too */
	put(line, snprintf(line, sizeof(line), "offload-tape 1 chunk_bytes=%lu chunks=%u\n",
			   CHUNK, MAX_CHUNKS));
	trace_flush();	/* the first line, whoever appends the next */
}

/* One span line per tensor, its name read from the file's header region. */
void trace_region(const struct region *r, const struct pol_span *s, size_t n)
{
	uint64_t off0 = r->file_off & ~(CHUNK - 1), end = off0 + (uint64_t)r->n * CHUNK;
	char line[256];

	if (fd < 0)
		return;
	put(line, snprintf(line, sizeof(line), "# region %s chunks %u+%u\n",
			   r->origin->name, r->first, r->n));
	for (size_t i = 0; i < n; i++) {
		uint64_t first, last;

		if (!s[i].len || s[i].off < off0 || s[i].off + s[i].len > end)
			continue;
		first = (s[i].off - off0) / CHUNK;
		last = (s[i].off + s[i].len - 1 - off0) / CHUNK;
		put(line, snprintf(line, sizeof(line), "span %u %u %s %u t%zu\n",
				   r->first + (uint32_t)first, (uint32_t)(last - first + 1),
				   s[i].pattern == POL_SKEW ? "skew" : "loop", s[i].order, i));
	}
}

void trace_use(uint32_t chunk, uint32_t stream)
{
	char line[32];

	if (fd >= 0)
		put(line, snprintf(line, sizeof(line), "%u %u\n", chunk, stream));
}
