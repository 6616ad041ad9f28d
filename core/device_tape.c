/* SPDX-License-Identifier: MIT */
/* device_tape.c - OFFLOAD_TRACE: what devices are asked to do, as text.
 *
 *   device D region ID BASE BYTES KIND     an allocation or mapping begins
 *   device D gone ID                       and ends
 *   device D copy h2d|d2h|d2d|set BYTES ID+OFFSET
 *   device D launch STREAM FUNCTION ID+OFFSET...
 *   device D node FUNCTION ID+OFFSET...       of a graph, made or changed
 *
 * Lines of the tape that trace.c begins; simulations of host memory skip them.
 * (1) They are kept until there are many, or the process ends: the file is opened
 *     for one write then, by whichever thread of the program it is, and appended to.
 * (2) A tape that cannot be written ends, and that is said once.
 * Lock: `lock`, leaf; not held while the file is written (R7).
 */
#include "core/device_int.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>

#define FLUSH_AT (64u << 10)

static const char *const kinds[] = {
	"plain", "stream", "unified", "mapped", "foreign", "pinned", "registered", "global",
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *buf;
static size_t used, room;
static _Atomic bool ended;

bool device_tape_on(void)
{
	return off_opt.trace && keeper_running() &&
	       !atomic_load_explicit(&ended, memory_order_relaxed);
}

void device_tape_line(const char *line, size_t len)
{
	pthread_mutex_lock(&lock);
	if (used + len > room) {
		char *more = mem_realloc(buf, 2 * room + FLUSH_AT);

		if (more) {
			buf = more;
			room = 2 * room + FLUSH_AT;
		}
	}
	if (used + len <= room) {
		memcpy(buf + used, line, len);
		used += len;
	}
	pthread_mutex_unlock(&lock);
}

static void append(const char *at, size_t len)
{
	int fd = off_sys_open(off_opt.trace, O_WRONLY | O_APPEND | O_CLOEXEC);

	while (fd >= 0 && len) {
		ssize_t n = off_sys_write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		at += n;
		len -= (size_t)n;
	}
	if (len && !atomic_exchange(&ended, true))
		off_log("OFFLOAD_TRACE=%s: %s; the tape ends here", off_opt.trace,
			strerrordesc_np(errno));
	if (fd >= 0)
		off_sys_close(fd);
}

void device_tape_flush(bool all)
{
	size_t len = 0;
	char *out = NULL;
	int saved = errno;

	if (!device_tape_on())
		return;
	pthread_mutex_lock(&lock);
	if (used >= (all ? 1 : FLUSH_AT)) {
		out = buf;
		len = used;
		buf = NULL;
		used = room = 0;
	}
	pthread_mutex_unlock(&lock);
	if (out)
		append(out, len);
	mem_free(out);
	errno = saved;
}

void device_tape_region(const struct device_region *r, bool gone)
{
	char line[128];
	int n;

	if (!device_tape_on())
		return;
	n = gone ? snprintf(line, sizeof(line), "device %d gone %u\n", r->dev, r->id) :
	    snprintf(line, sizeof(line), "device %d region %u %llx %llu %s\n", r->dev, r->id,
		     (unsigned long long)r->base, (unsigned long long)r->len, kinds[r->kind]);
	device_tape_line(line, (size_t)n);
}

void device_tape_copy(int dev, const char *what, uint64_t addr, uint64_t bytes)
{
	struct device_region r;
	char line[128];
	int n;

	if (!device_tape_on() || !device_find(addr, &r))
		return;
	n = snprintf(line, sizeof(line), "device %d copy %s %llu %u+%llu\n", dev, what,
		     (unsigned long long)bytes, r.id, (unsigned long long)(addr - r.base));
	device_tape_line(line, (size_t)n);
	device_tape_flush(false);
}

void device_tape_lock(void)
{
	pthread_mutex_lock(&lock);
}

void device_tape_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

/* What waits is the parent's to write. */
void device_tape_child(void)
{
	used = 0;
	pthread_mutex_unlock(&lock);
}
