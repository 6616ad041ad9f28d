/* SPDX-License-Identifier: MIT */
/* pager.c - the thread that owns every chunk: faults, reads, policy actions.
 *
 *   ABSENT --fetch--> INFLIGHT --done--> READY --install--> PLAIN
 *     ^                                   |  ^______soften____/ |
 *     +---------------evict---------------+---------evict-------+
 *
 * (1) Chunk state lives in the policy (pol_state_of); whatever happens to a
 *     chunk is told there by pol_moved, once, by this thread.
 * (2) A chunk that somebody waits for is never given up on: the read is
 *     tried again buffered, then the process stops (R4).
 * (3) Nothing here waits but poll; region_lock is held only to look at
 *     extents (R7). The fault path calls no allocator, no stdio (R8).
 * (4) A region is added HELD (its range is not in place yet): faults are
 *     noted, nothing is installed, until CMD_GO.
 * (5) It runs at the program's own priority. A real-time thread is not sent to
 *     the processor that a waiting engine thread left idle: it preempts the
 *     other engine thread where it ran last, both then share one processor,
 *     and passes of 0.31 s take 0.30 to 0.53 s (seen, 2 processors).
 * Lock: none of its own.
 */
#include "core/anon.h"
#include "core/core_int.h"
#include "core/packed.h"
#include "core/packer.h"
#include "core/placement.h"
#include "core/pool.h"
#include "core/spill.h"
#include "core/touch.h"
#include "core/waits.h"
#include "core/work.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Reads in flight. A disk that tells of all of them at once, when the last is done (some
 * virtual ones do), leaves the program waiting for the first; sixteen made a token 7 to 12%
 * slower than eight there. Advice is taken up a few pages at a time: more of it helps. */
#define IO_DEPTH	8
#define IO_DEPTH_HINTS	16
#define BUSY_RETRY_NS	500000000ull

struct pager pg;

static _Atomic uint32_t want_frames;	/* set by the keeper */
static struct waits waits;
static uint64_t stalled;		/* ns of this pass in which a thread waited for reads */
static uint32_t have_frames, have_pool;	/* told to the policy; frames packed in */
static _Atomic uint64_t own_bytes;
static uint64_t busy_since;		/* oldest CH_BUSY, 0 = none */
#define N_EVENTS 1024
static struct uffd_event events[N_EVENTS];	/* read, not looked at yet */
static uint32_t n_events;
static uint64_t pass_read, last_pass, pass_ns;

/* ---- chunks ---------------------------------------------------------------- */

struct region *chunk_region(uint32_t c)
{
	return region_nth(pg.chunk[c].region);
}

uintptr_t chunk_addr(uint32_t c)
{
	const struct region *r = chunk_region(c);

	return chunk_down(r->base) + (uintptr_t)(c - r->first) * CHUNK;
}

uint64_t chunk_off(uint32_t c)
{
	const struct region *r = chunk_region(c);

	/* base and file_off are congruent modulo CHUNK, so both round down. */
	return (r->file_off & ~(CHUNK - 1)) + (uint64_t)(c - r->first) * CHUNK;
}

uint32_t chunk_bytes_in_file(uint32_t c)
{
	uint64_t off = chunk_off(c), size = chunk_region(c)->origin->size;

	return size - off < CHUNK ? (uint32_t)(size - off) : CHUNK;
}

int chunk_pieces(uint32_t c, struct extent *out)
{
	uintptr_t a = chunk_addr(c);
	int n;

	region_lock();
	n = region_pieces(chunk_region(c), a, a + CHUNK, out);
	region_unlock();
	return n;
}

void chunk_mark_dirty(uint32_t c)
{
	pg.chunk[c].flags |= CH_DIRTY;
	pol_pin(pg.pol, c, 1);
}

void chunk_moved(uint32_t c, enum pol_state st)
{
	if (pol_state_of(pg.pol, c) == POL_PLAIN)
		pg.plain--;
	if (st == POL_PLAIN)
		pg.plain++;
	if (st == POL_READY && pg.chunk[c].slot)
		frames_filled(pg.chunk[c].slot - 1);
	pol_moved(pg.pol, c, st);
}

void chunk_lost(uint32_t c, const char *why)
{
	const struct region *r = chunk_region(c);

	if (r->anon)
		off_fatal("the heap at %#lx cannot be put in place: %s; the program is stopped rather than shown wrong bytes; more memory, or OFFLOAD_PAGER=off, may help",
			  (unsigned long)chunk_addr(c), why);
	off_fatal("region %#lx: bytes %llu..%llu of %s cannot be produced: %s; "
		  "the program is stopped rather than shown wrong bytes; see that the file is whole and its disk well, and replace files by rename",
		  (unsigned long)r->base, (unsigned long long)chunk_off(c),
		  (unsigned long long)(chunk_off(c) + chunk_bytes_in_file(c)),
		  r->origin->name, why);
}

/* ---- faults ----------------------------------------------------------------- */

static struct region *find(uintptr_t addr, uint32_t *chunk)
{
	struct region *r;

	region_lock();
	r = region_at(addr);
	if (r && (r->state == REGION_WATCHED || r->state == REGION_UNDOING))
		r = NULL;
	region_unlock();
	if (r)
		*chunk = r->first + (uint32_t)((chunk_down(addr) - chunk_down(r->base)) / CHUNK);
	return r;
}

static void count_fault(uint32_t c, enum pol_state st)
{
	struct chunk *ch = &pg.chunk[c];

	if (st == POL_READY) {
		stat_add(ST_FAULTS_MILESTONE, 1);
		return;
	}
	stat_add(ST_FAULTS_DEMAND, 1);
	if (st == POL_INFLIGHT && !ch->t_fault)
		stat_add(ST_PREFETCH_LATE, 1);
}

/* A fault on a PLAIN chunk: it was installed meanwhile, or (second time) a
 * raw system call dropped its pages behind our back. */
static void plain_fault(uint32_t c, uintptr_t addr)
{
	struct chunk *ch = &pg.chunk[c];

	if (ch->flags & CH_SPURIOUS && !pg.frozen && !pg.ops->evict(c, POL_PLAIN)) {
		chunk_moved(c, POL_ABSENT);
		pol_fault(pg.pol, c, ch->stream);
	}
	ch->flags ^= CH_SPURIOUS;
	uffd_wake(chunk_down(addr), CHUNK);
}

static void chunk_fault(struct region *r, uint32_t c, uintptr_t addr, uint32_t tid)
{
	struct chunk *ch = &pg.chunk[c];
	enum pol_state st = pol_state_of(pg.pol, c);

	ch->stream = tid;
	if (r->state == REGION_HELD) {
		ch->flags |= CH_FAULTED;	/* the heap wakes all who wait */
		return;
	}
	if (r->anon && anon_fault(c, addr))
		return;
	trace_use(c, tid);
	if (st == POL_PLAIN) {
		plain_fault(c, addr);
		return;
	}
	count_fault(c, st);
	if (!ch->t_fault && st != POL_READY)
		ch->t_fault = now_ns();
	pol_fault(pg.pol, c, tid);
}

/* What the kernel does where a mapping is read-only. The thread waits in its
 * fault, runs the handler, and comes back here if that returns. */
static void refuse_write(uintptr_t addr, uint32_t tid)
{
	/* SEGV_ACCERR is the kernel's to send; the address goes through. */
	siginfo_t info = { .si_signo = SIGSEGV, .si_code = SI_QUEUE };

	info.si_addr = (void *)addr;
	syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, SIGSEGV, &info);
}

/* Write-protect fault: on a read-only mapping the program may not write; on
 * others it was protected for a moment, while it was copied out. */
static void write_fault(uintptr_t addr, uint32_t tid)
{
	uint32_t c;
	struct region *r = find(addr, &c);

	if (r && r->anon) {	/* it was being copied out */
		if (pol_state_of(pg.pol, c) == POL_PLAIN)
			uffd_protect(page_down(addr), PAGE, false);
		else
			uffd_wake(page_down(addr), PAGE);
		return;
	}
	if (r && !r->writable) {
		refuse_write(addr, tid);
		return;
	}
	if (r && pol_state_of(pg.pol, c) == POL_PLAIN)
		chunk_mark_dirty(c);
	uffd_protect(page_down(addr), PAGE, false);
}

static void take_event(const struct uffd_event *e)
{
	struct region *r;
	uint32_t c;

	if (e->what == UFFD_WRITE) {
		write_fault(e->addr, e->tid);
		return;
	}
	if (e->what != UFFD_MISSING)
		return;
	r = find(e->addr, &c);
	if (r)
		chunk_fault(r, c, e->addr, e->tid);
	else	/* unmapped meanwhile: whoever waits looks again */
		uffd_wake(page_down(e->addr), PAGE);
}

/* Inside an action: reads what waits, for take_faults to look at later. */
void pager_read_events(void)
{
	uint32_t room = N_EVENTS - n_events;

	n_events += (uint32_t)uffd_read(events + n_events, (int)(room < 32 ? room : 32));
}

/* The mapping is being changed: whoever does that waits for its event to be
 * read, and may need our processor to get there. False after some seconds. */
bool pager_again(int *tries)
{
	struct timespec t = { 0, 50000 };

	pager_read_events();
	if (*tries > 8)
		nanosleep(&t, NULL);
	return ++*tries < 40000;
}

static int take_faults(void)
{
	int n;

	pager_read_events();
	n = (int)n_events;
	for (int i = 0; i < n; i++) {
		struct uffd_event e = events[i];

		take_event(&e);
	}
	/* An action on the way may have read more behind them. */
	n_events -= (uint32_t)n;
	memmove(events, events + n, n_events * sizeof(events[0]));
	return n;
}

/* ---- reads ------------------------------------------------------------------ */

/* signalled: the engine's descriptor is readable and must be emptied, or
 * poll would never wait again. */
static int take_reads(bool signalled)
{
	struct io_done done[IO_DEPTH_HINTS * 2];
	int n = pg.inflight || pg.saving || signalled ? pg.io->reap(done, IO_DEPTH_HINTS * 2) : 0;

	for (int i = 0; i < n; i++)
		if (done[i].chunk & (IO_TAG_WRITE | IO_TAG_VERIFY))
			anon_io_done(done[i].chunk, done[i].res);
		else
			file_read_done(done[i].chunk, done[i].res);
	return n;
}

/* ---- actions ---------------------------------------------------------------- */

static void act_fetch(uint32_t c, bool demand)
{
	bool anon = chunk_region(c)->anon;
	int err = anon ? anon_fetch(c) : packed_fetch(c);

	if (err == -ENOENT && !anon)
		err = pg.ops->fetch(c);

	if (err > 0) {
		chunk_moved(c, POL_INFLIGHT);
		chunk_moved(c, POL_READY);
		return;
	}
	if (err) {
		if (!anon && err != -EAGAIN && err != -ENOMEM && ++pg.chunk[c].tries >= MAX_TRIES)
			chunk_lost(c, strerrordesc_np(-err));
		chunk_moved(c, POL_ABSENT);
		return;
	}
	pg.inflight++;
	chunk_region(c)->inflight++;
	if (!demand)
		stat_add(ST_PREFETCH_ISSUED, 1);
	chunk_moved(c, POL_INFLIGHT);
}

static void act_install(uint32_t c)
{
	struct chunk *ch = &pg.chunk[c];
	int err;

	if (chunk_region(c)->state == REGION_HELD) {
		chunk_moved(c, POL_READY);
		return;
	}
	err = chunk_region(c)->anon ? anon_install(c) : pg.ops->install(c);
	if (err)
		chunk_lost(c, strerrordesc_np(-err));
	stat_add(ST_HOST_INSTALLS, 1);
	if (ch->flags & CH_LOCKED)
		pol_pin(pg.pol, c, 1);
	ch->flags &= (uint16_t)~CH_SPURIOUS;
	if (ch->t_fault) {
		uint64_t more = waits_add(&waits, ch->t_fault, now_ns());

		stat_add(ST_FAULTS_STALL, more);
		stalled += more;
		ch->t_fault = 0;
	}
	chunk_moved(c, POL_PLAIN);
}

void pager_count_read(uint64_t bytes)
{
	pass_read += bytes;
	placement_read(bytes);
}

/* Something is left alone for a while, and then tried again. */
void pager_busy(void)
{
	if (!busy_since)
		busy_since = now_ns();
}

static int soften(uint32_t c)
{
	return chunk_region(c)->anon ? anon_soften(c) : pg.ops->soften(c);
}

static int evict(uint32_t c, enum pol_state from)
{
	return chunk_region(c)->anon ? anon_evict(c, from == POL_PLAIN) :
		pg.ops->evict(c, from);
}

/* Out of the program's sight, frame kept (to = READY) or not (ABSENT). */
static void act_take(uint32_t c, enum pol_state to)
{
	enum pol_state from = pol_state_of(pg.pol, c);
	int err = to == POL_READY ? soften(c) : evict(c, from);

	if (err == -ENOTSUP) {
		to = POL_ABSENT;
		err = evict(c, from);
	}
	if (err == -EUCLEAN) {
		chunk_mark_dirty(c);
	} else if (err) {
		stat_add(ST_HOST_EVICT_FAILED, 1);
		pg.chunk[c].flags |= CH_BUSY;
		pol_pin(pg.pol, c, 1);
		pager_busy();
	} else if (to == POL_ABSENT) {
		stat_add(ST_HOST_EVICTIONS, 1);
	}
	chunk_moved(c, err ? from : to);
}

/* Chunks that the disk is asked for: of those in flight, some are looked at by workers,
 * or come from the pool. */
static uint32_t reads(void)
{
	return pg.inflight - (pg.heap ? pg.heap->inflight : 0) - packed_inflight() -
		touch_inflight() + anon_reading();
}

/* How many more may be asked for. What workers have in hand is bounded, too. */
static uint32_t io_room(void)
{
	return reads() < pg.depth && pg.inflight < 2 * pg.depth ? pg.depth - reads() : 0;
}

static bool act_once(void)
{
	struct pol_action a = pol_next(pg.pol, io_room());

	switch (a.act) {
	case POL_FETCH:
		act_fetch(a.chunk, a.demand);
		return true;
	case POL_INSTALL:
		act_install(a.chunk);
		return true;
	case POL_SOFTEN:
		act_take(a.chunk, POL_READY);
		return true;
	case POL_EVICT:
		act_take(a.chunk, POL_ABSENT);
		return true;
	case POL_NONE:
		break;
	}
	return false;
}

/* Pinned by somebody's I/O, or shared with a fork: tried again now and then. */
static void retry_busy(void)
{
	if (!busy_since || now_ns() - busy_since < BUSY_RETRY_NS)
		return;
	busy_since = 0;
	region_lock();
	for (int i = 0; region_nth(i); i++) {
		const struct region *r = region_nth(i);

		for (uint32_t k = 0; r->state == REGION_LIVE && k < r->n; k++) {
			struct chunk *ch = &pg.chunk[r->first + k];

			if (!(ch->flags & CH_BUSY))
				continue;
			ch->flags &= (uint16_t)~CH_BUSY;
			if (!(ch->flags & (CH_DIRTY | CH_LOCKED)))
				pol_pin(pg.pol, r->first + k, 0);
		}
	}
	region_unlock();
}

static void take_budget(void)
{
	uint32_t want = atomic_load_explicit(&want_frames, memory_order_relaxed);

	uint32_t pool = (uint32_t)(pool_bytes() / CHUNK);

	if (!want || (want == have_frames && pool == have_pool))
		return;
	if (want != have_frames)
		placement_budget(want);
	have_frames = want;
	have_pool = pool;
	pol_set_frames(pg.pol, want > pool + 4 ? want - pool : 4);
}

/* What is in place as well goes from the pool first. */
static void make_room(void)
{
	bool over;

	if (placement_short(&over)) {
		packed_shed(over);
		anon_shed(over);
	}
}

/* Hints mode: a chunk that is not mapped by us was touched. */
void chunk_use(uint32_t c)
{
	enum pol_state st = pol_state_of(pg.pol, c);

	trace_use(c, 0);
	count_fault(c, st);
	pol_fault(pg.pol, c, 0);
}

/* ---- what others see -------------------------------------------------------- */

void pager_count_own(void)
{
	uint64_t own = pool_bytes();
	struct pol_counts pc;

	pol_counts(pg.pol, &pc);
	own += pg.mode == MODE_HINTS ? (uint64_t)pc.used * CHUNK : frames_filled_bytes();
	atomic_store_explicit(&own_bytes, own, memory_order_relaxed);
	stat_max(ST_HOST_PEAK_RAM, own);
	stat_set(ST_BUDGET_OWN_ANON, pg.ops->anon ? own : 0);
}

/* Bytes that are packed and in a frame as well: counted now and then. */
static uint64_t doubles(void)
{
	static uint64_t bytes, counted;
	uint64_t now = now_ns();

	if (!pool_raw_bytes() || now - counted < 100000000)
		return bytes;
	counted = now;
	bytes = 0;
	region_lock();
	for (int i = 0; region_nth(i); i++) {
		const struct region *r = region_nth(i);

		for (uint32_t c = r->first; r->state == REGION_LIVE && c < r->first + r->n; c++)
			if (pol_state_of(pg.pol, c) != POL_ABSENT &&
			    (r->anon ? anon_packed(c) : packed_has(c)))
				bytes += CHUNK;
	}
	region_unlock();
	return bytes;
}

/* What no memory holds, and what is kept to know all this. */
static void publish_rest(const struct pol_counts *pc)
{
	uint64_t managed = stat_get(stats_now(), ST_HOST_MANAGED);
	uint64_t raw = pool_raw_bytes(), twice = doubles();
	uint64_t there = (uint64_t)pc->used * CHUNK + (raw > twice ? raw - twice : 0);
	uint64_t each = sizeof(struct chunk) + anon_chunk_bytes() + pol_size(MAX_CHUNKS) / MAX_CHUNKS;

	stat_set(ST_HOST_ABSENT, managed > there ? managed - there : 0);
	stat_set(ST_HOST_METADATA, mem_bytes() + pc->known * each);
}

static void publish(void)
{
	struct pol_counts pc;

	pol_counts(pg.pol, &pc);
	/* Those on their way out are beside the budget's: trimmed to less, each frame
	 * would be given back as it comes free, and the next be cleared anew. */
	if (pg.ops->anon && have_frames)
		frames_trim(have_frames - (have_pool < have_frames ? have_pool : 0) +
			    (anon_live() ? SAVE_FRAMES : 0) + (have_pool ? PACK_FRAMES : 0));
	pager_count_own();
	stat_set(ST_HOST_PACKED, pool_bytes());
	stat_set(ST_HOST_PACKED_RAW, pool_raw_bytes());
	stat_set(ST_HOST_PLAIN, (uint64_t)pg.plain * CHUNK);
	stat_set(ST_HOST_STAGING, (uint64_t)(pc.used - pg.plain) * CHUNK);
	publish_rest(&pc);
	stat_set(ST_TAPE_PERIOD, pc.period);
	stat_set(ST_TAPE_FALLBACK, (uint64_t)pc.fallback);
	stat_set(ST_PREFETCH_WASTED, pc.wasted);
	if (pc.passes == last_pass)
		return;
	last_pass = pc.passes;
	stat_set(ST_TAPE_PASSES, pc.passes);
	stat_set(ST_TAPE_LAST_READ, pass_read);
	stat_set(ST_TAPE_LAST_BOUND, (uint64_t)pc.bound * CHUNK);
	if (pass_ns) {
		stat_set(ST_TAPE_LAST_NS, now_ns() - pass_ns);
		placement_pass(now_ns() - pass_ns, stalled);
	}
	pass_ns = now_ns();
	stalled = 0;
	pass_read = 0;
}

uint32_t pager_frames_left(void)
{
	uint32_t held = (uint32_t)(frames_bytes() / CHUNK) + have_pool;

	return have_frames > held ? have_frames - held : 0;
}

uint64_t pager_own_bytes(void)
{
	return atomic_load_explicit(&own_bytes, memory_order_relaxed);
}

void pager_frames(uint32_t frames)
{
	atomic_store_explicit(&want_frames, frames, memory_order_relaxed);
	cmd_ring_pager();
}

/* ---- the loop --------------------------------------------------------------- */

static int wait_ms(void)
{
	if (pg.ops->watch)
		return 1;
	if (pg.inflight || pg.saving || pg.dying)
		return 20;	/* a submission may have to be repeated */
	return busy_since ? 100 : 1000;
}

static void torture_pause(void)
{
	struct timespec t = { 0, 0 };

	if (!torture() || torture_random(4))
		return;
	t.tv_nsec = (long)torture_random(300000);
	nanosleep(&t, NULL);
}

/* One turn; returns how much there was to do. */
static int turn(bool io_signalled)
{
	int work = 0;

	if (pg.ops->anon)
		work += take_faults();
	torture_pause();
	work += take_reads(io_signalled);
	pager_commands();		/* takes the ring: so before what it rang for */
	work += work_finish();
	if (pg.dying)
		pager_bury();
	take_budget();
	placement_turn(reads());
	make_room();
	if (pg.ops->watch)
		pg.ops->watch();
	if (!pg.frozen) {
		/* Faults first again after a few actions. */
		for (int i = 0; i < 8 && (anon_room() || pol_waiting(pg.pol)) && act_once(); i++)
			work++;
		retry_busy();
	}
	pg.saving = anon_save_more();
	publish();
	return work;
}

/* Once a second, when there is nothing else to do. */
static void tidy(void)
{
	static uint64_t last, looked;
	uint64_t t = now_ns();

	if (t - looked > 1000000000) {
		looked = t;
		watch_look();
	}
	if (!anon_live() || pg.inflight || pg.saving || pg.frozen || t - last < 1000000000)
		return;
	last = t;
	spill_poll();
	pool_compact(64);
}

static void *pager_main(void *started)
{
	struct pollfd p[4] = {
		{ .fd = cmd_pager_fd(), .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
	};
	int n = 2, fd[2], faults = pg.ops->anon ? uffd_fds(fd) : 0;

	library_thread_enter("offload-pager");
	watch_this("offload-pager");
	/* Here, for the ring belongs to the thread that made it. */
	pg.io = io_open(pg.depth, !pg.ops->anon);
	sem_post(started);
	if (!pg.io) {
		watch_no_more();
		return NULL;
	}
	p[1].fd = pg.io->fd();
	for (int i = 0; i < faults; i++)
		p[n++] = (struct pollfd){ .fd = fd[i], .events = POLLIN };
	for (;;) {
		if (turn(p[1].revents)) {
			p[1].revents = 0;
			continue;
		}
		trace_flush();
		tidy();
		off_sys_poll(p, (nfds_t)n, wait_ms());
	}
	return NULL;
}

/* Child of a fork: the tables are copies of the parent's, of no use here. */
void pager_reset(void)
{
	if (pg.chunk)
		off_sys_munmap(pg.chunk, MAX_CHUNKS * sizeof(struct chunk));
	if (pg.pol)
		off_sys_munmap(pg.pol, pol_size(MAX_CHUNKS));
	memset(&pg, 0, sizeof(pg));
	pager_commands_reset();
	atomic_store(&own_bytes, 0);
	atomic_store(&want_frames, 0);
}

void pager_unlock(void)
{
	pool_unlock();
	off_sys_munlock(pg.chunk, MAX_CHUNKS * sizeof(struct chunk));
	off_sys_munlock(pg.pol, pol_size(MAX_CHUNKS));
}

int pager_start(enum mode mode)
{
	struct pol_conf conf = {
		.max_chunks = MAX_CHUNKS, .frames = 4,
		.window = (uint32_t)(off_opt.window / CHUNK),
		.seed = (uint32_t)off_opt.torture,
	};
	sem_t started;
	void *mem;
	int err;

	memset(&pg, 0, sizeof(pg));
	pg.mode = mode;
	pg.ops = mode == MODE_MOVE ? &mode_move :
		 mode == MODE_COPY ? &mode_copy : &mode_hints;
	pg.depth = pg.ops->anon ? IO_DEPTH : IO_DEPTH_HINTS;
	pg.chunk = reserve_range(MAX_CHUNKS * sizeof(struct chunk));
	mem = reserve_range(pol_size(MAX_CHUNKS));
	if (!pg.chunk || !mem)
		return -ENOMEM;
	if (!conf.window)
		conf.window = 1;
	pg.pol = pol_init(mem, &conf);
	have_frames = have_pool = n_events = 0;
	stalled = waits.n = 0;
	placement_reset();
	last_pass = pass_read = pass_ns = busy_since = 0;
	trace_open();
	sem_init(&started, 0, 0);
	err = library_thread_start(pager_main, &started, 256 << 10);
	if (err)
		return err;
	while (sem_wait(&started))
		;
	if (!pg.io)
		return -ENOSYS;
	stats_names(pg.ops->name, pg.io->name);
	return 0;
}
