/* SPDX-License-Identifier: MIT */
/* nth.c - fail the n-th: every operation that can fail does, at its 1st, 2nd,
 * 3rd ... call, once and for good, until a run is clean.
 *
 *     nth quick            the first call of every site
 *     nth long SECONDS     all of them, in an order given by NTH_SEED, until the
 *                          time is up; tells how many are left
 *     nth one WORK VARIANT SITE N once|always     one case, its messages shown
 *
 * A case is a process: core/ linked directly, its seams replaced (wrap.c), runs a
 * piece of work under a budget of 16 MiB. Afterwards every word it read was the
 * right one, all it freed is free (slots, descriptors, the library's heap), or it
 * was stopped by a message and SIGABRT where sites.def allows that (R4). Anything
 * else is a loss: a wrong word, another signal, a hang, something left behind.
 *
 * (1) What a clean run holds at its end is what any run may hold.
 * Owns a scratch folder and what the cases say. Lock: none.
 */
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PARALLEL	3
#define MESSAGES	2048

char dir[64], file_path[96];

/* ---- cases -------------------------------------------------------------------------- */

struct fault_case {
	const struct work_row *w;
	const struct variant *v;
	int site;
	uint32_t n;
	bool always;
};

struct slot {
	pid_t pid;
	struct fault *f;
	int said;		/* a file with what it said */
	struct fault_case c;
};

static struct slot slots[PARALLEL];
static uint32_t injected, run, stopped, losses, skipped;
static struct fault clean[WORKS][VARIANTS];		/* by work, variant: what a clean run holds */
static const char *only;		/* NTH_SITE: just this one */

static void start_case(struct slot *s, const struct fault_case *c)
{
	memset(s->f, 0, sizeof(*s->f));
	s->f->site = c->site;
	s->f->n = c->n;
	s->f->always = c->always;
	s->c = *c;
	if (ftruncate(s->said, 0) || lseek(s->said, 0, SEEK_SET))
		exit(2);
	s->pid = fork();
	if (s->pid)
		return;
	setpgid(0, 0);
	dup2(s->said, 2);
	fault = s->f;
	run_case(c->w, c->v);
}

static struct fault *clean_of(const struct fault_case *c)
{
	return &clean[c->w - works][c->v - variants];
}

/* A lesser mode has one descriptor more (a second userfaultfd); where the library
 * gets no table of its own all of them are the program's. */
static const char *held_back(const struct slot *s)
{
	static char text[5000];
	const struct fault *was = clean_of(&s->c), *f = s->f;
	uint32_t more = f->mode != was->mode;

	if (f->left[0])
		snprintf(text, sizeof(text), "%s", f->left);
	else if (f->own_fds && s->c.site != F_UNSHARE)
		snprintf(text, sizeof(text), "%d descriptors of the program's more",
			 (int)f->own_fds);
	else if (was->ended && f->fds > was->fds + more && s->c.site != F_UNSHARE)
		snprintf(text, sizeof(text), "%u descriptors, %u in a clean run: %s; %s", f->fds,
			 was->fds, f->names, was->names);
	else if (was->ended && f->memory > was->memory + 4096)
		snprintf(text, sizeof(text), "%llu bytes of heap, %llu in a clean run",
			 (unsigned long long)f->memory, (unsigned long long)was->memory);
	else
		return NULL;
	return text;
}

static void read_said(const struct slot *s, char *out)
{
	ssize_t n = pread(s->said, out, MESSAGES - 1, 0);

	out[n > 0 ? n : 0] = 0;
}

/* NULL: as it may be. */
static const char *judge(const struct slot *s, int status, const char *said)
{
	enum verdict may = s->c.site == F_N ? RIGHT : s->c.always ?
		site_rows[s->c.site].always : site_rows[s->c.site].once;
	static char text[64];

	if (s->c.w->files && (s->c.site == F_UNPACK || s->c.site == F_POOL_FLIP))
		may = RIGHT;	/* it is read again */
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return s->f->ended ? held_back(s) : "it ended by itself";
	if (WIFEXITED(status)) {
		snprintf(text, sizeof(text), "status %d", WEXITSTATUS(status));
		return text;
	}
	if (WTERMSIG(status) == SIGALRM)
		return "no end";
	/* The child of a fork that failures kept from having the memory. */
	if (s->f->hits && ((WTERMSIG(status) == SIGSEGV && strstr(said, "it gets SIGSEGV there")) ||
			   strstr(said, "of a forked process cannot be served in it") ||
			   strstr(said, "its descriptor did not come over a fork"))) {
		stopped++;
		return NULL;
	}
	if (WTERMSIG(status) != SIGABRT) {
		snprintf(text, sizeof(text), "signal %d", WTERMSIG(status));
		return text;
	}
	stopped++;
	if (!strstr(said, "offload[") || strstr(said, ": not ("))
		return "an assertion";
	return may == STOP ? NULL : "it was stopped";
}

static void end_case(struct slot *s, int status)
{
	char said[MESSAGES];
	const char *bad;
	uint32_t hits = atomic_load(&s->f->hits);

	read_said(s, said);
	bad = judge(s, status, said);
	run++;
	injected += hits;
	if (bad) {
		losses++;
		printf("LOSS %s %s %s %u %s: %s (%u injected)\n", s->c.w->name, s->c.v->name,
		       s->c.site == F_N ? "none" : site_rows[s->c.site].name, s->c.n,
		       s->c.always ? "always" : "once", bad, hits);
		printf("%s", said);
		fflush(stdout);
	}
	s->pid = 0;
}

static void wait_one(void)
{
	int status;
	pid_t pid = wait(&status);

	if (pid > 0)
		kill(-pid, SIGKILL);	/* a child of a case that was ended for having no end */
	for (int i = 0; i < PARALLEL; i++)
		if (slots[i].pid == pid)
			end_case(&slots[i], status);
}

static void wait_all(void)
{
	for (int i = 0; i < PARALLEL; i++)
		while (slots[i].pid)
			wait_one();
}

static void do_case(const struct fault_case *c)
{
	int i = 0;

	for (;;) {
		for (i = 0; i < PARALLEL; i++)
			if (!slots[i].pid) {
				start_case(&slots[i], c);
				return;
			}
		wait_one();
	}
}

/* Where the mode is not to be had the case would be another's. */
static bool baseline(const struct work_row *w, const struct variant *v)
{
	struct fault_case c = { w, v, F_N, 0, false };

	start_case(&slots[0], &c);
	wait_all();
	*clean_of(&c) = *slots[0].f;
	return slots[0].f->ended;
}

/* ---- which n ------------------------------------------------------------------------ */

static uint64_t rng;

static uint32_t random_below(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 33) % n;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool wanted(int site, bool always)
{
	enum verdict may = always ? site_rows[site].always : site_rows[site].once;

	return may != NEVER && (!only || !strcmp(only, site_rows[site].name));
}

/* What once was a loss, and is not at the first call. */
static const struct fault_case seen[] = {
	/* A forked child did not have the file of a packed chunk. */
	{ &works[3], &variants[1], F_UNPACK, 3, true },
	{ &works[3], &variants[1], F_UNPACK, 4, true },
	/* The heap's table could not be had, and was used. */
	{ &works[0], &variants[0], F_RESERVE, 21, false },
	{ &works[0], &variants[0], F_RESERVE, 22, false },
	/* Without room for what is read from files, a chunk was asked for for ever. */
	{ &works[3], &variants[6], F_RESERVE, 33, true },
};

/* The first call, once and for good, in the first work that makes one. */
static void quick(void)
{
	static const struct { int work, variant; } pairs[] = {
		{ 0, 0 }, { 2, 1 }, { 1, 5 }, { 0, 3 },
	};
	uint32_t done[F_N] = { 0 };

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		const struct work_row *w = &works[pairs[i].work];
		const struct variant *v = &variants[pairs[i].variant];

		if (!baseline(w, v))
			continue;
		for (int s = 0; s < F_N; s++) {
			uint32_t calls = atomic_load(&clean[w - works][v - variants].calls[s]);
			struct fault_case c = { w, v, s, 1, false };

			if (!calls || done[s]++)
				continue;
			if (wanted(s, false))
				do_case(&c);
			c.always = true;
			if (wanted(s, true))
				do_case(&c);
		}
		wait_all();
	}
	for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++)
		do_case(&seen[i]);
	wait_all();
	for (int s = 0; s < F_N; s++)
		if (!done[s] && wanted(s, false))
			printf("# %s: never called\n", site_rows[s].name);
}

struct todo { uint8_t w, v; uint8_t site; bool always; uint32_t n; };

#define DENSE 12	/* all n up to here, then ever further apart */

static struct todo *list;
static uint32_t n_list, room_list;

static void add(int w, int v, int site, bool always, uint32_t n)
{
	if (n_list == room_list) {
		room_list = room_list ? 2 * room_list : 4096;
		list = realloc(list, room_list * sizeof(*list));
		if (!list)
			exit(2);
	}
	list[n_list++] = (struct todo){ (uint8_t)w, (uint8_t)v, (uint8_t)site, always, n };
}

static void list_all(int w, int v)
{
	for (int s = 0; s < F_N; s++)
		for (int always = 0; always < 2; always++) {
			uint32_t calls = atomic_load(&clean[w][v].calls[s]);

			if (!calls || !wanted(s, always))
				continue;
			for (uint32_t n = 1; n <= calls; n += n < DENSE ? 1 : n / 4)
				add(w, v, s, always, n);
			add(w, v, s, always, calls + 1);	/* about clean */
		}
}

static void shuffle(void)
{
	for (uint32_t i = n_list; i > 1; i--) {
		uint32_t k = random_below(i);
		struct todo t = list[k];

		list[k] = list[i - 1];
		list[i - 1] = t;
	}
}

static void all(double limit)
{
	double end = seconds() + limit;

	for (int w = 0; w < WORKS; w++)
		for (int v = 0; v < VARIANTS; v++)
			if (baseline(&works[w], &variants[v]))
				list_all(w, v);
	shuffle();
	for (uint32_t i = 0; i < n_list; i++) {
		const struct todo *t = &list[i];

		if (seconds() > end) {
			skipped = n_list - i;
			break;
		}
		do_case(&(struct fault_case){ &works[t->w], &variants[t->v], t->site, t->n,
					      t->always });
	}
	wait_all();
}

static int one(char **argv)
{
	struct fault_case c = { .site = F_N, .n = (uint32_t)atoi(argv[3]),
				.always = !strcmp(argv[4], "always") };
	char said[MESSAGES];

	for (int i = 0; i < WORKS; i++)
		if (!strcmp(works[i].name, argv[0]))
			c.w = &works[i];
	for (int i = 0; i < VARIANTS; i++)
		if (!strcmp(variants[i].name, argv[1]))
			c.v = &variants[i];
	for (int i = 0; i < F_N; i++)
		if (!strcmp(site_rows[i].name, argv[2]))
			c.site = i;
	if (!c.w || !c.v)
		return 2;
	if (!baseline(c.w, c.v))
		return 1;
	start_case(&slots[0], &c);
	wait_all();
	read_said(&slots[0], said);
	printf("%s", said);
	if (c.site != F_N)
		printf("%u calls, %u injected\n", slots[0].f->calls[c.site], slots[0].f->hits);
	return losses != 0;
}

/* ---- the driver ----------------------------------------------------------------------- */

/* A table of sharers of our own: others on this machine have their budgets. */
static const char *const folders[] = { "spill", "root", "root/dev", "root/dev/shm" };

static void make_folders(void)
{
	char path[128], to[128];

	strcpy(dir, "/var/tmp/offload-nth-XXXXXX");
	if (!mkdtemp(dir))
		exit(2);
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, folders[i]);
		if (mkdir(path, 0700))
			exit(2);
	}
	for (const char *const *at = (const char *const []){ "/proc", "/sys", NULL }; *at; at++) {
		snprintf(to, sizeof(to), "%s/root%s", dir, *at);
		if (symlink(*at, to))
			exit(2);
	}
}

/* What a case left there is a loss; the table of sharers stays if the last of
 * them was stopped. */
static void remove_folders(void)
{
	char cmd[400];

	snprintf(cmd, sizeof(cmd), "rm -f %s/file %s/root/proc %s/root/sys %s/root/dev/shm/* %s/spill/[0-9]*",
		 dir, dir, dir, dir, dir);
	if (system(cmd))
		losses++;
	for (size_t i = sizeof(folders) / sizeof(folders[0]) + 1; i--;) {
		char path[128];

		snprintf(path, sizeof(path), "%s/%s", dir, i ? folders[i - 1] : "");
		if (!rmdir(path))
			continue;
		printf("LOSS: something was left in %s\n", path);
		losses++;
	}
}

static void make_files(void)
{
	static uint64_t buf[1 << 14];
	int fd;

	make_folders();
	snprintf(file_path, sizeof(file_path), "%s/file", dir);
	fd = open(file_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	for (uint64_t at = 0; at < FILE_SIZE; at += sizeof(buf)) {
		size_t n = FILE_SIZE - at < sizeof(buf) ? FILE_SIZE - at : sizeof(buf);

		for (size_t i = 0; i < sizeof(buf) / 8; i++)
			buf[i] = file_word(at / 8 + i);
		if (write(fd, buf, n) != (ssize_t)n)
			exit(2);
	}
	fsync(fd);
	close(fd);
	for (int i = 0; i < PARALLEL; i++) {
		slots[i].f = mmap(NULL, sizeof(struct fault), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		slots[i].said = memfd_create("said", MFD_CLOEXEC);
		if (slots[i].f == MAP_FAILED || slots[i].said < 0)
			exit(2);
	}
}

int main(int argc, char **argv)
{
	const char *seed = getenv("NTH_SEED");
	int status = 0;

	only = getenv("NTH_SITE");
	rng = seed && *seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	rng = rng ? rng : 1;
	make_files();
	printf("# seed %llu\n", (unsigned long long)rng);
	rng *= 0x9e3779b97f4a7c15ull;
	if (argc == 7 && !strcmp(argv[1], "one"))
		status = one(argv + 2);
	else if (argc == 3 && !strcmp(argv[1], "long"))
		all(atof(argv[2]));
	else
		quick();
	remove_folders();
	printf("# %u runs, %u failures injected, %u stopped by message, %u losses", run, injected,
	       stopped, losses);
	printf(skipped ? "; %u cases left when the time was up\n" : "\n", skipped);
	return status || losses || !run;
}
