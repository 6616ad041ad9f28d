/* SPDX-License-Identifier: MIT */
/* keeper.c - the library's first thread: start-up, budget, conversions.
 *
 *   NOT_STARTED --first candidate mapping--> STARTING --> READY | FAILED
 *
 * (1) It leaves the program's descriptor table at once and closes its copy:
 *     the program's close_range cannot reach what is opened here, and no pipe
 *     of the program's is held open by us (R4).
 * (2) All signals are blocked in every library thread.
 * (3) It never waits for the program; the program's threads wait for it.
 * Owns the budget readings and the share table. Lock: region_lock to look.
 */
#include "core/anon.h"
#include "core/core_int.h"
#include "core/header.h"
#include "core/hold.h"
#include "core/lossy.h"
#include "core/packed.h"
#include "core/packer.h"
#include "core/pool.h"
#include "core/sites.h"
#include "core/work.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { NOT_STARTED, STARTING, READY, FAILED };

#define TICK_LIVE_NS	25000000ull
#define TICK_WATCH_NS	100000000ull
#define LEAST_FRAMES	4
#define PUBLISH_NS	200000000ull
#define TORTURE_RAM	(32ull << 20)
#define THRASH_NS	2000000000ull
#define THRASH_FAULTS	20
#define THRASH_BYTES	(64ull << 20)

static _Atomic uint32_t state;
static _Thread_local bool in_library;
static struct budget budget;
static struct budget_share share = { .fd = -1 };
static _Atomic bool leaving;	/* the table of sharers, for good */
static struct budget_now now;
static uint64_t target;			/* bytes, keeper thread */
static uint64_t unshared;		/* the same, OFFLOAD_RAM not looked at */
static uint32_t frames;			/* told to the pager */
static uint64_t grown_at;
static bool said_tiny;
static uint64_t coming;			/* a block of so many bytes is to come */

static uint64_t read_clock(clockid_t which)
{
	struct timespec t;

	clock_gettime(which, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t now_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

uint64_t thread_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

bool library_thread(void)
{
	return in_library;
}

bool library_thread_set(bool on)
{
	bool was = in_library;

	in_library = on;
	return was;
}

void library_thread_enter(const char *name)
{
	in_library = true;
	pthread_setname_np(pthread_self(), name);
}

int library_thread_start(void *(*run)(void *), void *arg, size_t stack)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t t;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, stack);
	err = pthread_create(&t, &attr, run, arg);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}

/* ---- budget ----------------------------------------------------------------- */

static uint64_t cap(uint64_t bytes)
{
	uint64_t asked = off_opt.ram;

	if (torture() && (!asked || asked > TORTURE_RAM))
		asked = TORTURE_RAM;
	return asked && bytes > asked ? asked : bytes;
}

/* Of a heap that is only watched, twice what it is: it grows, and would have to
 * ask again and again. */
static uint64_t wanted(void)
{
	uint64_t bytes;

	region_lock();
	bytes = region_bytes();
	region_unlock();
	if (!anon_live())
		bytes += 2 * (heap_used() + coming);
	return bytes + off_opt.window;
}

static void read_budget(void)
{
	static struct budget_pressure pressure;
	uint64_t own = pager_own_bytes(), mine = 0, kept;
	unsigned int sharers = 1;
	int err = -EAGAIN;

	if (budget_read(&budget, &now)) {	/* no /proc: what was asked for */
		if (!target && off_opt.ram) {
			target = cap(off_opt.ram);
			stat_set(ST_BUDGET_RAM, target);
		}
		return;
	}
	if (share.fd >= 0 && !atomic_load(&leaving))
		err = budget_share_poll(&share, &now, off_opt.reserve, wanted(),
					own, &mine, &sharers);
	if (err == -EAGAIN && share.fd >= 0 && target)
		return;		/* somebody is at the table: next time */
	if (err)
		mine = budget_target(&now, own, off_opt.reserve, 0);
	unshared = mine;
	kept = budget_kept_back(&pressure, &now, now_ns());
	target = cap(mine > 16 * kept ? mine - kept : mine);
	stat_set(ST_BUDGET_RAM, target);
	stat_set(ST_BUDGET_LIMIT, now.limit == BUDGET_NONE ? 0 : now.limit);
	stat_set(ST_BUDGET_OTHERS, budget_others(&now, own));
}

uint64_t keeper_budget(void)
{
	return target;
}

/* Shrinks at once, grows slowly: memory that is free for a moment is often
 * somebody's next allocation; and what one reading says may have been between
 * two things. */
static void tell_frames(void)
{
	static uint32_t last;
	uint32_t now_said = (uint32_t)(target / CHUNK < MAX_CHUNKS ? target / CHUNK : MAX_CHUNKS);
	uint32_t want = last && last < now_said ? last : now_said;
	uint64_t t = now_ns();

	last = now_said;

	/* There the kernel caches what the program touches, whatever we plan. */
	if (pg.mode == MODE_HINTS && want > 4 * HINTS_SLACK)
		want -= HINTS_SLACK;
	if (anon_live() && want > 2 * anon_extra_frames())
		want -= anon_extra_frames();
	if (pg.ops->anon && want > 16 * packer_extra())
		want -= packer_extra();
	if (want < LEAST_FRAMES) {
		want = LEAST_FRAMES;
		if (!said_tiny)
			off_log("the budget of %llu MiB is very small: at least %llu MiB are used, slowly; raise OFFLOAD_RAM or the cgroup's limit",
				(unsigned long long)(target >> 20),
				(unsigned long long)(LEAST_FRAMES * CHUNK >> 20));
		said_tiny = true;
	}
	if (want == frames)
		return;
	if (want > frames && frames && want - frames < 8 && t - grown_at < 1000000000)
		return;
	if (want < frames)
		stat_add(ST_BUDGET_SHRINKS, 1);
	else
		grown_at = t;
	frames = want;
	pager_frames(want);
}

/* ---- conversions -------------------------------------------------------------- */

/* Its pages are in the cache: it costs nothing as it is. A budget the user
 * named holds all the same. */
static bool warm(struct region *r)
{
	uint64_t len = r->end - r->base;
	int64_t cached;

	if (off_opt.ram)
		return false;
	cached = origin_cached(r->origin, r->file_off, len, NULL);
	return cached >= 0 && (uint64_t)cached >= len - len / 20;
}

static bool tight(void)
{
	uint64_t slack = off_opt.reserve;

	if (now.limit != BUDGET_NONE && slack < now.limit / 50)
		slack = now.limit / 50;
	return (now.limit != BUDGET_NONE && now.usage + slack > now.limit) ||
	       (now.mem_available && now.mem_available < slack);
}

/* In the last stretch of time the process waited for so much to be read that the
 * kernel is reading over and over what it had to drop. By bytes, for a fault reads
 * 128 KiB here and 4 MiB there; faults, for what it read() is no matter. What
 * core_map_file populates does not count. */
static bool thrashing(void)
{
	static uint64_t since, faults, blocks;
	uint64_t t = now_ns();
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	if (core_populating() || t - since > THRASH_NS) {
		since = t;
		faults = (uint64_t)ru.ru_majflt;
		blocks = (uint64_t)ru.ru_inblock;
		return false;
	}
	return (uint64_t)ru.ru_majflt - faults >= THRASH_FAULTS &&
	       512 * ((uint64_t)ru.ru_inblock - blocks) >= THRASH_BYTES;
}

/* Some of its pages were there and had to go: the kernel is short. */
static bool losing(struct region *r)
{
	uint64_t evicted = 0, len = r->end - r->base;
	int64_t cached = origin_cached(r->origin, r->file_off, len, &evicted);

	if (cached < 0)
		return true;	/* cannot be told: tight must do */
	if ((uint64_t)cached > r->cached_peak)
		r->cached_peak = (uint64_t)cached;
	return r->cached_peak - (uint64_t)cached > len / 50 || evicted > len / 50;
}

/* The next one, in use until region_put. What is unmapped already waits for
 * the pager to bury it. */
static struct region *next_watched(int *i)
{
	struct region *r = NULL;

	region_lock();
	while (!r && region_nth(*i)) {
		struct region *n = region_nth((*i)++);

		if (n->state == REGION_WATCHED && n->origin && !n->refused && n->n_ext)
			r = n;
	}
	if (r)
		r->users++;
	region_unlock();
	return r;
}

/* All that is watched; of private writable mappings only one that the program
 * has not seen yet (or NULL): later, its written pages would be lost. */
static void convert_all(const struct region *unseen)
{
	struct region *r;
	int i = 0;

	if (target)
		tell_frames();		/* the pager begins with next to none */
	while ((r = next_watched(&i))) {
		if ((r->writable && r != unseen) || convert_region(r))
			r->refused = true;
		region_put(r);
	}
	read_budget();
	tell_frames();
}

/* Others under the limit, most likely as we are, grew into what the heap had been
 * promised, and files are left less than the least: the heap has to give, or what is
 * in it starves all of them. Nothing else would come, where all of it is populated. What
 * the kernel has mapped of files it can drop: a model that just fits starves nobody. */
static bool starved(void)
{
	struct budget_now group = now;

	group.mem_total = 0;	/* not the machine: what others there have, no heap of ours mends */
	return now.limit != BUDGET_NONE && heap_used() > 2ul * LEAST_FRAMES * CHUNK &&
	       budget_target(&group, pager_own_bytes(), off_opt.reserve, 0) + now.droppable <
	       (uint64_t)LEAST_FRAMES * CHUNK;
}

/* What the heap was promised and has not populated yet must fit beside what
 * is needed now; mapped pages of files are not, for the kernel drops them, and
 * if they are missed the files are converted. Bytes of a request to come, or 0. */
static void judge_heap(size_t bytes)
{
	uint64_t limit = starved() ? 1 : cap(UINT64_MAX);
	uint64_t room = unshared + (now.limit == BUDGET_NONE ? 0 : now.droppable);

	if (anon_judge(bytes, room, limit == UINT64_MAX ? 0 : limit)) {
		read_budget();
		tell_frames();
	}
}

static int admit(const struct cmd *c)
{
	sites_start();
	coming = c->lo;
	read_budget();
	judge_heap(c->lo);
	coming = 0;
	return 0;
}

static void watch_tick(void)
{
	struct region *r;
	bool go = false;
	int i = 0;

	if (anon_watched())
		judge_heap(0);
	if (torture())
		go = !torture_random(4);
	else if (!thrashing() || !tight())
		return;
	while (!go && (r = next_watched(&i))) {
		go = losing(r);
		region_put(r);
	}
	if (go)
		convert_all(NULL);
}

static uint64_t said_truncated;		/* inode */

/* The spans the file's header tells of; none is fine. */
static void read_spans(struct region *r)
{
	struct origin *o = r->origin;
	struct header h;
	int err = header_read(o->fd, o->size, &h);

	r->spans = h.spans;
	r->n_spans = h.n_spans;
	h.spans = NULL;
	lossy_mark(r, h.text, h.text_len);
	if (err == -EBADMSG && h.want > o->size && o->ino != said_truncated)
		off_log("%s is truncated: its header promises %llu bytes and it has %llu; fetch it again",
			o->name, (unsigned long long)h.want, (unsigned long long)o->size);
	if (err == -EBADMSG)
		said_truncated = o->ino;
	header_free(&h);
}

/* Bytes of all regions that every pass is sure to read: embedding rows and
 * experts are not. */
static uint64_t sure_bytes(void)
{
	uint64_t sum;

	region_lock();
	sum = region_bytes();
	for (int i = 0; region_nth(i); i++) {
		const struct region *r = region_nth(i);

		if (r->state == REGION_FREE || r->state == REGION_DYING)
			continue;
		for (size_t k = 0; k < r->n_spans; k++)
			if (r->spans[k].pattern == POL_SKEW && r->spans[k].len < sum)
				sum -= r->spans[k].len;
	}
	region_unlock();
	return sum;
}

/* Cannot fit, whatever happens: then a region from the start. What just may
 * fit is watched (a budget the user named is not exceeded in hope). */
static bool too_large(void)
{
	uint64_t all;

	if (!off_opt.ram)
		return sure_bytes() > target + off_opt.reserve;
	region_lock();
	all = region_bytes();
	region_unlock();
	return all > target;
}

/* A new candidate. 0: watched or converted; -errno: the caller forgets it. */
static int map(struct cmd *c)
{
	struct region *r = c->r;
	int err = origin_open(&r->origin, c->tid, c->fd);

	if (err)
		return err;
	read_spans(r);
	read_budget();
	if (torture() ? torture_random(2) : too_large() && !warm(r))
		convert_all(r);
	return r->state == REGION_WATCHED ? 0 : 1;
}

/* A file whose bytes were read into the heap. -EPERM: of no use. */
static int open_origin(struct cmd *c)
{
	int err = origin_open(&c->origin, c->tid, c->fd);

	if (err || hold_take(c->origin) || !c->any)
		return err;
	origin_close(c->origin);
	c->origin = NULL;
	return -EPERM;
}

/* ---- the thread ---------------------------------------------------------------- */

static void commands(void)
{
	struct cmd *c = cmd_take_keeper();

	while (c) {
		struct cmd *next = c->next;

		if (c->op == CMD_MAP)
			cmd_done(c, map(c));
		else if (c->op == CMD_ADMIT)
			cmd_done(c, admit(c));
		else if (c->op == CMD_ORIGIN)
			cmd_done(c, open_origin(c));
		else
			cmd_to_pager(c);
		c = next;
	}
}

static bool kept(int fd, const int *keep, int n)
{
	while (n--)
		if (keep[n] == fd)
			return true;
	return false;
}

/* A descriptor table of our own, empty but for 0, 1, 2 and what the child of
 * a fork takes over. */
static int private_table(void)
{
	const int *keep;
	int n = anon_keep_fds(&keep), most = 4096;

	if (unshare(CLONE_FILES))
		return -errno;
	for (int i = 0; i < n; i++)
		most = keep[i] >= most ? keep[i] + 1 : most;
	if (n || off_sys_close_range(0, ~0U, 0)) {
		off_sys_close_range((unsigned int)most, ~0U, 0);
		for (int fd = 0; fd < most; fd++)
			if (!kept(fd, keep, n))
				off_sys_close(fd);
	}
	for (int i = 0; i < 3; i++)
		off_sys_open("/dev/null", O_RDWR | O_CLOEXEC, 0);
	return 0;
}

static enum mode choose_mode(bool private)
{
	enum mode want = off_opt.pager == OPT_PAGER_COPY ? MODE_COPY :
			 off_opt.pager == OPT_PAGER_HINTS ? MODE_HINTS : MODE_MOVE;
	enum mode got = MODE_HINTS;

	if (want == MODE_HINTS)
		return MODE_HINTS;
	if (private)
		got = uffd_open(want);
	if (got != MODE_HINTS && (frames_open(now.mem_total ? now.mem_total : 64ull << 30) ||
				  exchange_open(got == MODE_MOVE) || frames_register()))
		got = MODE_HINTS;
	if (got == want)
		return got;
	stat_add(ST_HOST_MODE_CHANGES, 1);
	if (off_opt.pager != OPT_PAGER_AUTO || got == MODE_HINTS)
		off_log("the %s pager is not to be had here, %s is used: offctl doctor says why",
			want == MODE_MOVE ? "move" : "copy",
			got == MODE_COPY ? "copy" : "hints");
	return got;
}

/* What packing needs. Now: later the kernel would give what the program has unmapped
 * in the middle of a mapping, and may unmap again. */
static void reserve(void)
{
	work_reserve();
	packer_open();
	if (pool_open((uint64_t)sysconf(_SC_PHYS_PAGES) * PAGE) || !packed_open())
		off_verbose(1, "no room for a packed pool");
}

static int start_up(void)
{
	enum mode mode;
	bool private = !private_table();
	int err;

	stats_start();
	err = mem_init();
	if (!err)
		err = cmd_open();
	if (err)
		return err;
	if (!budget_open(&budget)) {
		budget_read(&budget, &now);
		if (!torture() && budget_share_join(&share, &budget))
			share.fd = -1;
	}
	mode = choose_mode(private);
	direct_mode(mode);
	if (mode != MODE_HINTS)
		reserve();
	err = pager_start(mode);
	if (err)
		return err;
	if (core_forked()) {	/* what is adopted need not go before it is known */
		read_budget();
		if (target)
			tell_frames();
	}
	return anon_adopt();
}

static void set_state(uint32_t s)
{
	atomic_store(&state, s);
	syscall(SYS_futex, &state, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static bool any_live(void)
{
	bool live = false;

	region_lock();
	for (int i = 0; region_nth(i); i++)
		live |= region_nth(i)->state >= REGION_HELD;
	region_unlock();
	return live;
}

/* What is shown but need not be of this moment. */
static void publish(void)
{
	static uint64_t last;
	uint64_t t = now_ns();

	if (t - last < PUBLISH_NS)
		return;
	last = t;
	largest_publish();
	watch_look();
}

static void *keeper_main(void *unused)
{
	bool copying = false;
	int err;

	library_thread_enter("offload-keeper");
	watch_this("offload-keeper");
	err = start_up();
	if (err) {
		off_log("the pager cannot start (%s): this program runs without it",
			strerrordesc_np(-err));
		watch_no_more();
	}
	set_state(err ? FAILED : READY);
	while (!err) {
		bool live = any_live();

		if (!copying)
			cmd_wait_keeper(live || torture() ? TICK_LIVE_NS : TICK_WATCH_NS);
		commands();
		read_budget();
		if (live)
			tell_frames();
		watch_tick();
		if (anon_live())	/* the child of a fork is asked nothing before */
			sites_start();
		copying = hold_tick();
		publish();
	}
	return NULL;
}

int keeper_start(void)
{
	const struct timespec second = { 1, 0 };
	uint32_t was = NOT_STARTED;

	if (atomic_compare_exchange_strong(&state, &was, STARTING)) {
		int err = library_thread_start(keeper_main, NULL, 256 << 10);

		if (err)
			off_log("no thread can be started (%s): this program runs without the library",
				strerrordesc_np(err));
		if (err)
			set_state(FAILED);
	}
	while (atomic_load(&state) == STARTING)
		if (syscall(SYS_futex, &state, FUTEX_WAIT_PRIVATE, STARTING, &second, NULL, 0) &&
		    errno == ETIMEDOUT)
			watch_look();
	return atomic_load(&state) == READY ? 0 : -ENODEV;
}

bool keeper_running(void)
{
	return atomic_load(&state) == READY;
}

AT_START void keeper_leave(void)
{
	atomic_store(&leaving, true);
	if (keeper_running())
		budget_share_leave(&share);
}

/* Child of a fork: no library thread is here; the next mapping starts anew. */
void keeper_reset(void)
{
	atomic_store(&state, NOT_STARTED);
	share.fd = -1;
	atomic_store(&leaving, false);
	frames = 0;
	target = 0;
	said_tiny = false;
}
