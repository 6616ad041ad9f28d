/* SPDX-License-Identifier: MIT */
/* anon_stress.c - all that a program may do with its memory, at random.
 *
 * Four threads, each with eight items three times the budget in all: they
 * allocate, write, read, reallocate, remap, give pages back, unmap parts,
 * protect, hand memory to the kernel, pass items on, fork and end. Beside that
 * each has a tensor file mapped. STRESS_SOAK: until SIGTERM.
 *
 * Owns the items. (1) A word tells whose it is: item, generation, place. A page
 * has the generation it was written with last, ZERO if zeros are owed. (2) What
 * is known of the pages lies in .bss, which the library leaves alone. (3) An
 * item belongs to one thread, or to the mailbox, whose lock it is. (4) Children
 * write generations from CHILD on, so that one seen in the parent tells. (5)
 * STRESS_SEED decides everything but who runs when.
 */
/* env: OFFLOAD_RAM=16M OFFLOAD_HOST_MIN=64K */
/* needs: regions evictions */
/* seeds: 12 1000 */
#include "anon.h"

#define THREADS		4
#define ITEMS		8
#define OPS		26
#define PAGES_MOST	1536U		/* of an item */
#define RUN_MOST	256U		/* pages of one action */
#define PIPE_PAGES	16U		/* what a pipe holds */
#define FILE_SIZE	(6 * MIB)

enum { ZERO = 0, CHILD = 0x8000, HOLE = 0xffff };	/* generations */

struct item {
	unsigned char *p;	/* NULL: none */
	size_t len;		/* a multiple of 8; of PAGE if mapped */
	uint64_t base;		/* of p, as its words count */
	uint16_t id;
	bool mapped;		/* else malloc'd */
	bool packs;		/* its words get smaller when packed */
	bool holed;		/* unmapped within */
	uint16_t gen[PAGES_MOST];
};

struct actor {
	int me;
	uint32_t rng;
	uint16_t gen, ids;
	pid_t child;		/* 0: none */
	bool killed;
	int pipe[2];
	struct trap file;
	struct item item[ITEMS];
	unsigned char buf[PIPE_PAGES * PAGE];
};

static uint32_t seed;
static bool soak;
static volatile sig_atomic_t over;
static struct actor actors[THREADS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct item mailbox[THREADS];

static uint32_t below(struct actor *a, uint32_t n)
{
	return trap_random(&a->rng) % n;
}

/* ---- words ------------------------------------------------------------------ */

static size_t pages(const struct item *x)
{
	return (x->len + PAGE - 1) / PAGE;
}

static uint64_t word(const struct item *x, uint16_t gen, uint64_t at)
{
	if (x->packs)	/* the same in all of a page */
		return (uint64_t)x->id << 48 | (uint64_t)gen << 32 | at / PAGE;
	return anon_word(x->id, gen, at);
}

/* The words that page k has in generation gen, at most n bytes of them. */
static void put_words(void *to, const struct item *x, size_t k, uint16_t gen,
		      size_t n)
{
	uint64_t *w = to, at = x->base + k * PAGE;

	for (size_t i = 0; i < n / 8; i++)
		w[i] = word(x, gen, at + i * 8);
}

static size_t page_len(const struct item *x, size_t k)
{
	return x->len - k * PAGE < PAGE ? x->len - k * PAGE : PAGE;
}

static void put_page(struct item *x, size_t k, uint16_t gen)
{
	put_words(x->p + k * PAGE, x, k, gen, page_len(x, k));
	x->gen[k] = gen;
}

static _Noreturn void wrong(const struct item *x, size_t k, const uint64_t *w,
			    uint64_t want, const char *what)
{
	uint64_t was = x->packs ? *w : anon_unword(*w);

	fail("seed %u: %s: item %#x page %zu gen %#x (%s, base %#llx) at %p: "
	     "%016llx, not %016llx: item %#x gen %#x %s %#llx", seed, what,
	     x->id, k, x->gen[k], x->mapped ? "mapped" : "malloc'd",
	     (unsigned long long)x->base, (const void *)w,
	     (unsigned long long)*w, (unsigned long long)want,
	     (unsigned)(was >> 48), (unsigned)(was >> 32 & 0xffff),
	     x->packs ? "page" : "word", (unsigned long long)(was & 0xffffffff));
}

/* mem: page k of it, or a copy. */
static void look_at(const void *mem, const struct item *x, size_t k,
		    const char *what)
{
	const uint64_t *w = mem;
	uint64_t at = x->base + k * PAGE, want = 0;

	if (x->gen[k] == HOLE)
		return;
	for (size_t i = 0; i < page_len(x, k) / 8; i++) {
		if (x->gen[k] != ZERO)
			want = word(x, x->gen[k], at + i * 8);
		if (w[i] != want)
			wrong(x, k, &w[i], want, what);
	}
}

static void look(const struct item *x, size_t k, size_t n, const char *what)
{
	for (; n--; k++)
		look_at(x->p + k * PAGE, x, k, what);
}

static void look_all(const struct item *x, const char *what)
{
	look(x, 0, pages(x), what);
}

/* ---- some pages of an item ----------------------------------------------------- */

struct run { size_t k, n; };

static struct run some(struct actor *a, const struct item *x, uint32_t most)
{
	struct run r = { .k = below(a, (uint32_t)pages(x)) };
	uint32_t left = (uint32_t)(pages(x) - r.k);

	r.n = 1 + below(a, left < most ? left : most);
	return r;
}

static bool has_hole(const struct item *x, struct run r)
{
	for (size_t i = r.k; i < r.k + r.n; i++)
		if (x->gen[i] == HOLE)
			return true;
	return false;
}

static void set_gen(struct item *x, struct run r, uint16_t gen)
{
	for (size_t i = r.k; i < r.k + r.n; i++)
		x->gen[i] = gen;
}

/* Comes round in a soak; children's stay apart. */
static void next_gen(struct actor *a)
{
	a->gen = a->gen >= CHILD ? a->gen + 1 : a->gen % (CHILD - 1) + 1;
}

static void fill(struct actor *a, struct item *x, struct run r)
{
	next_gen(a);
	for (size_t i = r.k; i < r.k + r.n; i++)
		if (x->gen[i] != HOLE)
			put_page(x, i, a->gen);
}

/* ---- coming and going ------------------------------------------------------------ */

static size_t some_len(struct actor *a)
{
	static const size_t most[] = { 200 * KIB, 2 * MIB, 3 * MIB, 4 * MIB };
	size_t n = most[below(a, 4)];

	return (n / 4 + (size_t)below(a, (uint32_t)n)) & ~7UL;
}

static void make_mapped(struct actor *a, struct item *x)
{
	x->mapped = true;
	x->len = (some_len(a) + PAGE) & ~(PAGE - 1);
	x->p = anon_map(x->len);
}

static void make(struct actor *a, struct item *x)
{
	bool zeros = below(a, 3) == 0;

	a->ids = a->ids % 0x1fff + 1;
	*x = (struct item){ .id = (uint16_t)(a->me << 13 | a->ids),
			    .packs = below(a, 4) > 0 };
	if (below(a, 2)) {
		make_mapped(a, x);
	} else {
		x->len = some_len(a);
		x->p = zeros ? calloc(1, x->len) : malloc(x->len);
		check(x->p);
		zeros = true;
		fill(a, x, (struct run){ 0, pages(x) });
	}
	if (zeros && below(a, 2))
		fill(a, x, some(a, x, PAGES_MOST));
	else
		fill(a, x, (struct run){ 0, pages(x) });
}

/* Holes stay holes: nothing else may have come to lie there but what another
 * thread mapped, so each piece is unmapped alone. */
static void unmap(struct item *x)
{
	for (size_t k = 0, n; k < pages(x); k += n) {
		for (n = 1; k + n < pages(x) &&
		     (x->gen[k] == HOLE) == (x->gen[k + n] == HOLE); n++)
			;
		if (x->gen[k] != HOLE)
			check(!munmap(x->p + k * PAGE, n * PAGE));
	}
}

static void drop(struct item *x)
{
	if (!x->p)
		return;
	look_all(x, "in the end");
	if (x->mapped)
		unmap(x);
	else
		free(x->p);
	x->p = NULL;
}

/* ---- actions: each leaves the item known -------------------------------------------- */

static void act_write(struct actor *a, struct item *x)
{
	fill(a, x, some(a, x, RUN_MOST));
}

/* Dirty, and the same bytes as before. */
static void act_rewrite(struct actor *a, struct item *x)
{
	struct run r = some(a, x, RUN_MOST);

	look(x, r.k, r.n, "before it is written again");
	for (size_t i = r.k; i < r.k + r.n; i += 5)
		if (x->gen[i] != HOLE && x->gen[i] != ZERO)
			put_page(x, i, x->gen[i]);
}

static void act_look(struct actor *a, struct item *x)
{
	struct run r = some(a, x, PAGES_MOST);

	look(x, r.k, r.n, "looked at");
}

static void act_resize(struct actor *a, struct item *x)
{
	size_t old = x->len, len = below(a, 6) ? some_len(a) : 8 + below(a, 9000) * 8;
	size_t kept = old < len ? old : len;
	unsigned char *p;

	if (x->mapped)
		return;
	p = realloc(x->p, len);
	check(p);
	x->p = p;
	x->len = kept;
	look_all(x, "after realloc");
	x->len = len;
	if (kept < len)
		fill(a, x, (struct run){ kept / PAGE, pages(x) - kept / PAGE });
}

/* In place or not, to where the kernel likes or to a place of ours. */
static void act_remap(struct actor *a, struct item *x)
{
	size_t len = (some_len(a) + PAGE) & ~(PAGE - 1), old = pages(x);
	int how = (int)below(a, 3);
	void *p;

	if (!x->mapped || x->holed)
		return;
	if (how == 2) {
		p = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		check(p != MAP_FAILED);
		p = mremap(x->p, x->len, len, MREMAP_MAYMOVE | MREMAP_FIXED, p);
	} else {
		p = mremap(x->p, x->len, len, how ? MREMAP_MAYMOVE : 0);
	}
	if (p == MAP_FAILED) {
		check(errno == ENOMEM && !how && len > x->len);
	} else {
		x->p = p;
		x->len = len;
		if (pages(x) > old)
			set_gen(x, (struct run){ old, pages(x) - old }, ZERO);
	}
	look_all(x, "after mremap");
}

static void act_discard(struct actor *a, struct item *x)
{
	struct run r = some(a, x, below(a, 2) ? RUN_MOST : PAGES_MOST);

	if (!x->mapped || has_hole(x, r))
		return;
	check(!madvise(x->p + r.k * PAGE, r.n * PAGE, MADV_DONTNEED));
	set_gen(x, r, ZERO);
	look(x, r.k, r.n < 8 ? r.n : 8, "after MADV_DONTNEED");
}

static void act_cut(struct actor *a, struct item *x)
{
	struct run r = some(a, x, RUN_MOST);

	if (!x->mapped || pages(x) < 4 || r.n == pages(x) || has_hole(x, r))
		return;
	check(!munmap(x->p + r.k * PAGE, r.n * PAGE));
	if (r.k && r.k + r.n < pages(x)) {
		set_gen(x, r, HOLE);
		x->holed = true;
	} else if (r.k) {
		x->len = r.k * PAGE;
	} else {
		x->p += r.n * PAGE;
		x->len -= r.n * PAGE;
		x->base += r.n * PAGE;
		memmove(x->gen, x->gen + r.n, pages(x) * sizeof(x->gen[0]));
	}
	look_all(x, "after munmap of a part");
}

static void act_protect(struct actor *a, struct item *x)
{
	struct run r = some(a, x, RUN_MOST);

	if (!x->mapped || has_hole(x, r))
		return;
	check(!mprotect(x->p + r.k * PAGE, r.n * PAGE, PROT_READ));
	look(x, r.k, r.n, "while it is read-only");
	check(!mprotect(x->p + r.k * PAGE, r.n * PAGE, PROT_READ | PROT_WRITE));
	fill(a, x, r);
}

/* The kernel reads it, then writes it. */
static void act_pipe(struct actor *a, struct item *x)
{
	struct run r = some(a, x, PIPE_PAGES);
	unsigned char *p = x->p + r.k * PAGE;
	size_t n = r.n * PAGE;

	if (has_hole(x, r) || r.k * PAGE + n > x->len)
		return;
	check(write(a->pipe[1], p, n) == (ssize_t)n);
	check(read(a->pipe[0], a->buf, n) == (ssize_t)n);
	for (size_t i = 0; i < r.n; i++)
		look_at(a->buf + i * PAGE, x, r.k + i, "what the kernel read");
	next_gen(a);
	for (size_t i = 0; i < r.n; i++)
		put_words(a->buf + i * PAGE, x, r.k + i, a->gen, PAGE);
	check(write(a->pipe[1], a->buf, n) == (ssize_t)n);
	check(read(a->pipe[0], p, n) == (ssize_t)n);
	set_gen(x, r, a->gen);
	look(x, r.k, r.n, "what the kernel wrote");
}

static void act_drop(struct actor *a, struct item *x)
{
	drop(x);
}

/* Whatever item it was asked for. */
static void act_file(struct actor *a, struct item *x)
{
	uint32_t pages_of_it = FILE_SIZE / PAGE, k = below(a, pages_of_it);
	uint32_t n = 1 + below(a, pages_of_it - k);

	if (!below(a, 8)) {
		trap_unmap(&a->file);
		trap_map(&a->file, PROT_READ, below(a, 2) ? MAP_SHARED : MAP_PRIVATE);
	}
	verify(&a->file, k * PAGE, n * PAGE, "the file");
}

static void (*const acts[])(struct actor *a, struct item *x) = {
	act_write, act_write, act_rewrite, act_look, act_look, act_resize,
	act_resize, act_remap, act_remap, act_discard, act_cut, act_protect,
	act_pipe, act_drop, act_file, act_file,
};

static void act(struct actor *a)
{
	struct item *x = &a->item[below(a, ITEMS)];

	if (x->p)
		acts[below(a, sizeof(acts) / sizeof(acts[0]))](a, x);
	else
		make(a, x);
}

/* ---- with others ------------------------------------------------------------------------ */

static void pass_on(struct actor *a)
{
	struct item *mine = &a->item[below(a, ITEMS)];
	struct item *box = &mailbox[below(a, THREADS)], held = *mine;

	pthread_mutex_lock(&lock);
	*mine = *box;
	*box = held;
	pthread_mutex_unlock(&lock);
	if (mine->p)
		look_all(mine, "got from another thread");
}

static void reap(struct actor *a)
{
	int st;

	if (!a->child)
		return;
	if (!a->killed) {
		trap_wait(a->child, "child");
	} else {
		check(waitpid(a->child, &st, 0) == a->child);
		check(WIFSIGNALED(st) ? WTERMSIG(st) == SIGKILL : !WEXITSTATUS(st));
	}
	a->child = 0;
	a->killed = false;
}

/* No other thread is here: the mailbox too is the child's. Of some children, a
 * child goes on instead. */
static _Noreturn void be_child(struct actor *a)
{
	a->child = 0;
	for (int depth = 0; depth < 2 && !a->child; depth++) {
		close(a->pipe[0]);	/* the parent's too */
		close(a->pipe[1]);
		check(!pipe2(a->pipe, O_CLOEXEC));
		a->gen = (uint16_t)(CHILD + depth * 0x2000);
		for (int i = 0; i < 6; i++)
			act(a);
		if (depth || below(a, 3))
			break;
		a->child = fork();
		check(a->child >= 0);
	}
	for (int i = 0; i < 4; i++)
		act(a);
	for (int i = 0; i < THREADS; i++)
		if (mailbox[i].p && below(a, 2))
			look_all(&mailbox[i], "the mailbox, in a child");
	for (int i = 0; i < ITEMS; i++)
		if (a->item[i].p && below(a, 2))
			look_all(&a->item[i], "in a child");
	reap(a);
	_exit(0);
}

/* The parent goes on, and finds its own words later, not the child's. */
static void make_child(struct actor *a)
{
	bool kill_it = !below(a, 6);

	reap(a);
	pthread_mutex_lock(&lock);
	a->child = fork();
	pthread_mutex_unlock(&lock);
	check(a->child >= 0);
	if (!a->child)
		be_child(a);
	if (kill_it) {
		act(a);
		check(!kill(a->child, SIGKILL));
		a->killed = true;
	}
}

static void *worker(void *arg)
{
	struct actor *a = arg;
	int fork_at = (int)below(a, 2 * OPS);	/* two threads, mostly */

	for (int i = 0; i < ITEMS; i++)
		make(a, &a->item[i]);
	for (int i = 0; soak ? !over : i < OPS; i++) {
		act(a);
		if (!below(a, 12))
			pass_on(a);
		if (soak ? !below(a, 100) : i == fork_at)
			make_child(a);
	}
	reap(a);
	return NULL;
}

static void begin(struct actor *a, int me)
{
	a->me = me;
	a->rng = seed * 2654435761u + (uint32_t)me * 40503u;
	check(!pipe2(a->pipe, O_CLOEXEC));
	trap_shared(&a->file, FILE_SIZE, 7);
	trap_map(&a->file, PROT_READ, MAP_SHARED);
}

static void enough(int sig)
{
	over = 1;
}

static void all_items(void (*f)(struct item *x))
{
	for (int i = 0; i < THREADS; i++) {
		for (int k = 0; k < ITEMS; k++)
			f(&actors[i].item[k]);
		f(&mailbox[i]);
	}
}

int main(void)
{
	const char *s = getenv("STRESS_SEED");
	struct sigaction sa = { .sa_handler = enough, .sa_flags = SA_RESTART };
	pthread_t th[THREADS];

	seed = s ? (uint32_t)strtoul(s, NULL, 10) : 1;
	soak = getenv("STRESS_SOAK");
	check(!soak || !sigaction(SIGTERM, &sa, NULL));
	for (int i = 0; i < THREADS; i++)
		begin(&actors[i], i);
	for (int i = 0; i < THREADS; i++)
		check(!pthread_create(&th[i], NULL, worker, &actors[i]));
	for (int i = 0; i < THREADS; i++)
		check(!pthread_join(th[i], NULL));
	all_items(drop);
	for (int i = 0; i < THREADS; i++)
		trap_done(&actors[i].file);
	return 0;
}
