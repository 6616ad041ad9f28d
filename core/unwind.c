/* SPDX-License-Identifier: MIT */
/* unwind.c - whose request it is: chains of return addresses, and their names.
 *
 *   NONE --sites_start--> LOADING --> READY | ABSENT (regions are unnamed)
 *
 * (1) libunwind is loaded, and names are made, by a thread for which nobody
 *     waits long: both need the loader's lock, which a program thread may hold
 *     while it waits for the keeper.
 * (2) The generic library is used, on this process as on any other, by way of
 *     functions of ours. The local one opens a pipe among the program's
 *     descriptors and writes to it, and calls dl_iterate_phdr, under whose lock
 *     a program may allocate. Ours take no lock (_dl_find_object, glibc 2.35)
 *     and read nothing that is not there.
 * (3) A thread that unwinds counts as one of the library's meanwhile: what
 *     libunwind maps for itself is not the heap's (R8).
 * (4) libunwind keeps what it learned of an address. After a dlclose that may
 *     be wrong, and a site's name with it: nothing else.
 * (5) A chain that was walked is remembered with the places on the stack its
 *     return addresses were at. When the same are there again it is that chain,
 *     for the size of a frame follows from where in the program it is; where it
 *     does not, chance would have to put them there.
 * Locks, both leaves: `lock`, signals blocked, for libunwind's state and the
 * statics of a walk; `loader`, the thread of (1) around the loader's functions:
 * a fork in the middle of them would leave a child that cannot load anything.
 */
#include "core/core_int.h"
#include "core/sites.h"

#include <dlfcn.h>
#include <libunwind.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define STEPS		24	/* of a walk, the library's own frames among them */
#define SETS		32	/* of remembered chains, by place on the stack */
#define WAYS		4
#define WAIT_NS		100000000	/* a request, for libunwind; so many may: */
#define WAITS		10
#define SETTLE_NS	2000000000
#define FORK_WAIT_NS	300000000
#define STACK		(256 << 10)

enum { NONE, LOADING, READY, ABSENT };

static _Atomic uint32_t state;
static _Atomic bool started;
static _Atomic int waits;
static _Atomic uint32_t news, seen;	/* sites found; names were made up to */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t loader = PTHREAD_MUTEX_INITIALIZER;
static bool loader_held;		/* by a fork */

/* Waits while *word is value, for ns at most (0: for ever); may return early. */
static void sleep_on(_Atomic uint32_t *word, uint32_t value, uint64_t ns)
{
	struct timespec t = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, ns ? &t : NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void set_and_wake(_Atomic uint32_t *word, uint32_t value)
{
	atomic_store(word, value);
	wake(word);
}

#if defined(__x86_64__) && defined(DLFO_STRUCT_HAS_EH_DBASE)

/* ---- libunwind's view of this process; lock held ------------------------------ */

#define TEXT_(x)	#x
#define TEXT(x)		TEXT_(x)
#define LIBUNWIND	"libunwind-" TEXT(UNW_TARGET) ".so.8"
#define ROOM		1024	/* later versions' structures are larger */

static struct {
	__typeof__(unw_create_addr_space) *create;
	__typeof__(unw_set_caching_policy) *cache;
	__typeof__(unw_init_remote) *init;
	__typeof__(unw_step) *step;
	__typeof__(unw_get_reg) *get;
	int (*search)(unw_addr_space_t, unw_word_t, unw_dyn_info_t *,
		      unw_proc_info_t *, int, void *);
	__typeof__(_dl_find_object) *find;
} lib;

static unw_addr_space_t space;
static uintptr_t own_lo, own_hi;	/* this library's code */
static ucontext_t regs;			/* where the walk began */
static union { unw_cursor_t c; char room[sizeof(unw_cursor_t) + ROOM]; } cursor;
static struct { uintptr_t lo, hi; } module;	/* whose table is looked at */
static uintptr_t page[4];		/* that are there */
static unsigned int next_page;

static bool page_known(uintptr_t a)
{
	for (size_t i = 0; i < sizeof(page) / sizeof(*page); i++)
		if (page[i] == page_down(a))
			return true;
	return false;
}

/* The eight bytes at a can be read. The kernel reads a signal set before it
 * sees that it is not to be used. */
static bool readable(uintptr_t a)
{
	if (a >= module.lo && a + 8 <= module.hi && a + 8 > a)
		return true;
	if (page_known(a) && page_known(a + 7))
		return true;
	if (!syscall(SYS_rt_sigprocmask, INT_MAX, a, NULL, 8) || errno != EINVAL)
		return false;
	page[next_page++ % 4] = page_down(a);
	if (page_down(a + 7) != page_down(a))
		page[next_page++ % 4] = page_down(a + 7);
	return true;
}

/* Frames of others: no sanitizer knows what lies there. */
__attribute__((no_sanitize("address", "thread", "undefined")))
static int get_word(unw_addr_space_t as, unw_word_t a, unw_word_t *out, int write, void *arg)
{
	if (write || !readable(a))
		return -UNW_EINVAL;
	*out = *(const unw_word_t *)a;
	return 0;
}

static bool word_is(uintptr_t a, uintptr_t value)
{
	unw_word_t w;

	return !get_word(NULL, a, &w, 0, NULL) && w == value;
}

/* The table of the module's functions: .eh_frame_hdr, sorted, of one encoding. */
static int get_info(unw_addr_space_t as, unw_word_t ip, unw_proc_info_t *pi, int full, void *arg)
{
	union { unw_dyn_info_t d; char room[sizeof(unw_dyn_info_t) + ROOM]; } t;
	struct dl_find_object o;
	const unsigned char *hdr;
	uint32_t n;
	int ret;

	if (lib.find((void *)ip, &o) || !(hdr = o.dlfo_eh_frame))
		return -UNW_ENOINFO;
	/* version; offset of .eh_frame; count and table of 4-byte numbers */
	if (hdr[0] != 1 || hdr[2] != 3 || hdr[3] != 0x3b)
		return -UNW_ENOINFO;
	memcpy(&n, hdr + 8, 4);
	module.lo = (uintptr_t)o.dlfo_map_start;
	module.hi = (uintptr_t)o.dlfo_map_end;
	memset(&t, 0, sizeof(t));
	t.d.format = UNW_INFO_FORMAT_REMOTE_TABLE;
	t.d.start_ip = module.lo;
	t.d.end_ip = module.hi;
	t.d.u.rti.segbase = (uintptr_t)hdr;
	t.d.u.rti.table_data = (uintptr_t)hdr + 12;
	t.d.u.rti.table_len = n * 8ul / sizeof(unw_word_t);
	ret = lib.search(as, ip, &t.d, pi, full, arg);
	module.lo = module.hi = 0;
	return ret;
}

static int get_reg(unw_addr_space_t as, unw_regnum_t r, unw_word_t *out, int write, void *arg)
{
	static const int saved[][2] = {	/* what a function keeps for its caller */
		{ UNW_X86_64_RIP, REG_RIP }, { UNW_X86_64_RSP, REG_RSP },
		{ UNW_X86_64_RBP, REG_RBP }, { UNW_X86_64_RBX, REG_RBX },
		{ UNW_X86_64_R12, REG_R12 }, { UNW_X86_64_R13, REG_R13 },
		{ UNW_X86_64_R14, REG_R14 }, { UNW_X86_64_R15, REG_R15 },
	};

	for (size_t i = 0; !write && i < sizeof(saved) / sizeof(*saved); i++)
		if (saved[i][0] == r) {
			*out = (unw_word_t)regs.uc_mcontext.gregs[saved[i][1]];
			return 0;
		}
	return -UNW_EBADREG;
}

static int get_fpreg(unw_addr_space_t as, unw_regnum_t r, unw_fpreg_t *out, int write, void *arg)
{
	return -UNW_EBADREG;
}

static int get_list(unw_addr_space_t as, unw_word_t *out, void *arg)
{
	return -UNW_ENOINFO;
}

static void put_info(unw_addr_space_t as, unw_proc_info_t *pi, void *arg)
{
}

static int no_resume(unw_addr_space_t as, unw_cursor_t *c, void *arg)
{
	return -UNW_EINVAL;
}

static int no_name(unw_addr_space_t as, unw_word_t a, char *buf, size_t len,
		   unw_word_t *off, void *arg)
{
	return -UNW_ENOINFO;
}

/* ---- chains; lock held ------------------------------------------------------- */

struct chain {
	uintptr_t base;			/* a place on the stack; 0: none */
	uint32_t site;
	int n;
	uint32_t off[STEPS];		/* from base: where the address is */
	uintptr_t ret[STEPS];		/* this library's own among them */
};

static struct chain chains[SETS][WAYS];
static unsigned int next_way;

/* Nothing is known to be there but the page of base. */
static void look_anew(uintptr_t base)
{
	memset(page, 0, sizeof(page));
	page[0] = page_down(base);
	next_page = 1;
}

static bool same(const struct chain *c, uintptr_t base)
{
	if (c->base != base)
		return false;
	for (int i = 0; i < c->n; i++)
		if (!word_is(base + c->off[i], c->ret[i]))
			return false;
	return true;
}

static struct chain *set_of(uintptr_t base)
{
	return chains[(base >> 4 ^ base >> 12) % SETS];
}

static const struct chain *recall(uintptr_t base)
{
	const struct chain *c = set_of(base);

	for (int i = 0; i < WAYS; i++)
		if (same(&c[i], base))
			return &c[i];
	return NULL;
}

/* The next frame. Above base it belongs to the chain: false when it cannot be
 * found again where it is (a signal's). */
static bool note(struct chain *c, uintptr_t ip)
{
	unw_word_t sp;
	uintptr_t at;

	if (lib.get(&cursor.c, UNW_REG_SP, &sp))
		return false;
	at = sp - sizeof(ip);
	if (at <= c->base)
		return true;
	if (at - c->base > UINT32_MAX || !word_is(at, ip))
		return false;
	c->off[c->n] = (uint32_t)(at - c->base);
	c->ret[c->n++] = ip;
	return true;
}

/* Those outside this library, innermost first; how many. *c: all from its base
 * on, base made 0 if it is not fit to be recalled. */
__attribute__((noinline))
static int walk(struct chain *c, void *out[SITE_FRAMES])
{
	unw_word_t ip;
	int n = 0;

	c->n = 0;
	if (getcontext(&regs) || lib.init(&cursor.c, space, NULL))
		return 0;
	for (int i = 0; i < STEPS && n < SITE_FRAMES; i++) {
		if (lib.get(&cursor.c, UNW_REG_IP, &ip) || !ip)
			break;
		if (i && c->base && !note(c, ip))
			c->base = 0;
		if (ip < own_lo || ip >= own_hi)
			out[n++] = (void *)ip;
		if (lib.step(&cursor.c) <= 0)
			break;
	}
	return n;
}

__attribute__((noinline))
static uint32_t walk_and_find(bool *fresh)
{
	static void *frame[SITE_FRAMES];
	uintptr_t base = (uintptr_t)__builtin_frame_address(0);
	const struct chain *known;
	struct chain *c;
	int n;

	look_anew(base);
	known = recall(base);
	if (known)
		return known->site;
	c = &set_of(base)[next_way++ % WAYS];
	c->base = base;
	n = walk(c, frame);
	c->site = n ? sites_find(frame, n, fresh) : SITE_UNNAMED;
	if (!n)
		c->base = 0;
	return c->site;
}

/* ---- loading -------------------------------------------------------------------- */

static bool look_up(void *h)
{
	struct dl_find_object own;

	lib.create = dlsym(h, TEXT(UNW_OBJ(create_addr_space)));
	lib.cache = dlsym(h, TEXT(UNW_OBJ(set_caching_policy)));
	lib.init = dlsym(h, TEXT(UNW_OBJ(init_remote)));
	lib.step = dlsym(h, TEXT(UNW_OBJ(step)));
	lib.get = dlsym(h, TEXT(UNW_OBJ(get_reg)));
	lib.search = dlsym(h, TEXT(UNW_OBJ(dwarf_search_unwind_table)));
	lib.find = dlsym(RTLD_DEFAULT, "_dl_find_object");
	if (!lib.create || !lib.cache || !lib.init || !lib.step || !lib.get ||
	    !lib.search || !lib.find || lib.find((void *)look_up, &own))
		return false;
	own_lo = (uintptr_t)own.dlfo_map_start;
	own_hi = (uintptr_t)own.dlfo_map_end;
	return true;
}

/* RTLD_LOCAL: libunwind.so.8 exports the names C++ unwinds exceptions by. */
static bool load(void)
{
	static union { unw_accessors_t a; char room[sizeof(unw_accessors_t) + ROOM]; } ours = {
		.a = {
			.find_proc_info = get_info, .put_unwind_info = put_info,
			.get_dyn_info_list_addr = get_list, .access_mem = get_word,
			.access_reg = get_reg, .access_fpreg = get_fpreg,
			.resume = no_resume, .get_proc_name = no_name,
		},
	};
	void *h = dlopen(LIBUNWIND, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	void *frame[SITE_FRAMES];
	struct chain c = { 0 };

	if (!h || !look_up(h) || !(space = lib.create(&ours.a, 0)) ||
	    lib.cache(space, UNW_CACHE_GLOBAL))
		return false;
	look_anew((uintptr_t)frame);
	return walk(&c, frame) > 0;	/* what is set up once is so now */
}

#else

static uint32_t walk_and_find(bool *fresh)
{
	return SITE_UNNAMED;
}

static bool load(void)
{
	return false;
}

#endif

/* ---- names ---------------------------------------------------------------------- */

/* Returns whether it is worth a name of its own, as sites_allocator sees it. */
static bool describe(void *ret, char *name, size_t len)
{
	uintptr_t a = (uintptr_t)ret;
	const char *file, *slash;
	Dl_info d;

	if (!dladdr((char *)ret - 1, &d) || !d.dli_fname) {
		snprintf(name, len, "%#lx", a);
		return true;
	}
	slash = strrchr(d.dli_fname, '/');
	file = slash ? slash + 1 : d.dli_fname;
	if (d.dli_sname)
		snprintf(name, len, "%.31s %.46s+%#lx", file, d.dli_sname,
			 a - (uintptr_t)d.dli_saddr);
	else
		snprintf(name, len, "%.46s+%#lx", file, a - (uintptr_t)d.dli_fbase);
	return !sites_allocator(file, d.dli_sname);
}

/* The innermost frame that says something, or the innermost. */
static void make_name(uint32_t site, void *const *frame, int n)
{
	char name[SITE_NAME_MAX];
	int i = 0;

	pthread_mutex_lock(&loader);
	while (i < n && !describe(frame[i], name, sizeof(name)))
		i++;
	if (i == n)
		describe(frame[0], name, sizeof(name));
	pthread_mutex_unlock(&loader);
	sites_name(site, name);
}

static void load_once(void)
{
	bool ok;

	pthread_mutex_lock(&loader);
	ok = load();
	pthread_mutex_unlock(&loader);
	if (!ok)
		off_verbose(1, "who asks for memory cannot be told (offctl doctor says why): heap regions are unnamed");
	set_and_wake(&state, ok ? READY : ABSENT);
}

static void *sites_main(void *unused)
{
	library_thread_enter("offload-sites");
	if (atomic_load(&state) == LOADING)
		load_once();
	while (atomic_load(&state) == READY) {
		uint32_t now = atomic_load(&news);
		void *const *frame = NULL;
		int n = 0;

		for (uint32_t i = 0; (i = sites_unnamed(i, &frame, &n)) < SITES; i++)
			make_name(i, frame, n);
		set_and_wake(&seen, now);
		sleep_on(&news, now, 0);
	}
	return NULL;
}

void sites_start(void)
{
	uint32_t was = NONE;

	if (atomic_load(&started) || atomic_exchange(&started, true))
		return;
	atomic_compare_exchange_strong(&state, &was, LOADING);
	if (library_thread_start(sites_main, NULL, STACK) && atomic_load(&state) == LOADING)
		set_and_wake(&state, ABSENT);
}

void sites_settle(void)
{
	uint64_t end = now_ns() + SETTLE_NS, t;
	uint32_t was;

	while ((was = atomic_load(&seen)) != atomic_load(&news) && atomic_load(&started) &&
	       (t = now_ns()) < end)
		sleep_on(&seen, was, end - t);
}

/* ---- a request ------------------------------------------------------------------- */

/* The request that started the library's threads is often the largest: it and
 * those that come meanwhile wait for libunwind. */
static uint32_t settled_state(void)
{
	uint64_t end, t;

	if (atomic_load(&state) != LOADING || atomic_fetch_add(&waits, 1) >= WAITS)
		return atomic_load(&state);
	end = now_ns() + WAIT_NS;
	while (atomic_load(&state) == LOADING && (t = now_ns()) < end)
		sleep_on(&state, LOADING, end - t);
	return atomic_load(&state);
}

uint32_t sites_here(void)
{
	bool fresh = false;
	sigset_t all, old;
	uint32_t s, site;

	if (!keeper_running() || library_thread())
		return SITE_EARLY;
	s = settled_state();
	if (s != READY)
		return s == ABSENT ? SITE_UNNAMED : SITE_EARLY;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pthread_mutex_lock(&lock);
	library_thread_set(true);
	site = walk_and_find(&fresh);
	library_thread_set(false);
	pthread_mutex_unlock(&lock);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (fresh) {
		atomic_fetch_add(&news, 1);
		wake(&news);
	}
	return site;
}

/* ---- forks ----------------------------------------------------------------------- */

/* The thread may itself wait for the loader's lock, which the caller holds: not
 * for long, then. It holds nothing of the loader's in that case. */
void sites_fork_lock(void)
{
	struct timespec end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_nsec += FORK_WAIT_NS;
	if (end.tv_nsec >= 1000000000) {
		end.tv_nsec -= 1000000000;
		end.tv_sec++;
	}
	loader_held = !pthread_mutex_trylock(&loader) ||
		      !pthread_mutex_clocklock(&loader, CLOCK_MONOTONIC, &end);
	pthread_mutex_lock(&lock);
}

void sites_fork_unlock(void)
{
	pthread_mutex_unlock(&lock);
	if (loader_held)
		pthread_mutex_unlock(&loader);
}

void sites_fork_child(void)
{
	uint32_t was = LOADING;

	pthread_mutex_unlock(&lock);
	pthread_mutex_init(&loader, NULL);
	atomic_store(&started, false);
	atomic_compare_exchange_strong(&state, &was, NONE);
}
