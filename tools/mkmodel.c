/* SPDX-License-Identifier: MIT */
/* mkmodel.c - make a synthetic model file (GGUF v3) of any size.
 *
 * Owns the file and the threads that fill it; mkmodel_gguf.h has the shape and
 * the header, mkmodel_items.h the numbers and how each type stores them.
 * The result is Llama-shaped (Mixtral-shaped with --experts), loads in
 * llama.cpp, and its weights have the statistics of published ones: normal,
 * with a log-normal scale per row, one base scale for all tensors.
 *
 *     workers: [claim a block] -> fill -> full --.
 *     main:                   write, in order <--'  -> block free again
 *
 *  1. A row depends on (seed, tensor, row) only: any number of threads
 *     makes the same file.
 *  2. The file is written as OUT.tmp and renamed when whole. Whatever stops
 *     us, OUT.tmp is removed: no partial model is ever seen under OUT.
 *  3. Blocks are claimed and written in file order, so the disk sees one
 *     sequential stream of large writes.
 * Lock: pipe.lock guards the counters of struct pipe; block contents belong
 * to the worker that claimed them until they are marked full.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/mkmodel_gguf.h"

#define BLOCK_BYTES	(8u << 20)
#define MAX_THREADS	16
#define ROW_SD		0.35		/* of the log of a row's scale */
#define MAX_DIM		(1u << 20)	/* a row must fit a block */

static const char *tmp_name;		/* removed on any failure (rule 2) */

static void die(const char *fmt, ...)
{
	va_list ap;

	if (tmp_name)
		unlink(tmp_name);
	fputs("mkmodel: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

/* ---- the pipe of blocks -------------------------------------------------- */

struct block {
	uint8_t *mem;
	size_t bytes;
	int full;
};

struct pipe {
	const struct model *m;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	struct block *ring;		/* slots; block b uses slot b % slots */
	uint64_t slots;
	uint64_t claimed, written;	/* blocks */
	size_t tensor;			/* the next rows to claim */
	uint64_t row;
	uint64_t exps[256];		/* exponents seen, by value */
};

/* What a worker claimed: rows of one tensor, for one block. */
struct job {
	uint64_t block;
	size_t tensor;
	uint64_t row, rows;
};

static uint64_t all_rows(const struct tensor *t)
{
	return t->rows * t->planes;
}

/* Called with the lock held. Returns 0 when nothing is left. */
static int claim(struct pipe *p, struct job *j)
{
	const struct tensor *t;
	uint64_t left;

	if (p->tensor == p->m->n)
		return 0;
	t = &p->m->t[p->tensor];
	left = all_rows(t) - p->row;
	j->block = p->claimed++;
	j->tensor = p->tensor;
	j->row = p->row;
	j->rows = BLOCK_BYTES / row_bytes(t);
	if (j->rows >= left) {
		j->rows = left;
		p->tensor++;
		p->row = 0;
	} else {
		p->row += j->rows;
	}
	return 1;
}

static void make_row(const struct model *m, size_t tensor, uint64_t row,
		     float *x)
{
	const struct tensor *t = &m->t[tensor];
	uint64_t k = mix(mix(m->conf.seed + 1) + tensor * 0x632be59bd9b4e019u);
	double scale;

	k = mix(k + row * 0x9e3779b97f4a7c15u);
	scale = m->base * exp(ROW_SD * normal((uint32_t)(k >> 32)));
	fill_row(x, t->cols, k, t->norm ? 0.05f : (float)scale);
	for (uint64_t i = 0; t->norm && i < t->cols; i++)
		x[i] += 1;
}

static void count_exponents(const struct kind *kind, const uint8_t *p,
			    uint64_t n, uint64_t *exps)
{
	for (uint64_t i = 0; i < n; i++) {
		uint32_t v = 0;

		memcpy(&v, p + i * kind->bytes, kind->bytes);
		exps[(v >> kind->exp_shift) & kind->exp_mask]++;
	}
}

/* Fills a block; its exponents are counted on one row in eight. */
static void make_block(struct pipe *p, const struct job *j, float *x,
		       uint64_t *exps)
{
	const struct tensor *t = &p->m->t[j->tensor];
	struct block *b = &p->ring[j->block % p->slots];
	uint64_t bytes = row_bytes(t);

	for (uint64_t i = 0; i < j->rows; i++) {
		uint8_t *dst = b->mem + i * bytes;

		make_row(p->m, j->tensor, j->row + i, x);
		t->kind->store(dst, x, t->cols);
		if (!t->norm && t->kind->exp_mask && (j->row + i) % 8 == 0)
			count_exponents(t->kind, dst, t->cols, exps);
	}
	b->bytes = bytes * j->rows;
	if (j->row + j->rows == all_rows(t)) {
		size_t pad = align_up(t->bytes) - t->bytes;

		memset(b->mem + b->bytes, 0, pad);
		b->bytes += pad;
	}
}

static void *work(void *arg)
{
	struct pipe *p = arg;
	uint64_t exps[256] = { 0 };
	float *x = malloc(MAX_DIM * sizeof(*x));
	struct job j;

	if (!x)
		die("out of memory");
	pthread_mutex_lock(&p->lock);
	while (claim(p, &j)) {
		while (j.block >= p->written + p->slots)
			pthread_cond_wait(&p->moved, &p->lock);
		pthread_mutex_unlock(&p->lock);
		make_block(p, &j, x, exps);
		pthread_mutex_lock(&p->lock);
		p->ring[j.block % p->slots].full = 1;
		pthread_cond_broadcast(&p->moved);
	}
	for (int i = 0; i < 256; i++)
		p->exps[i] += exps[i];
	pthread_mutex_unlock(&p->lock);
	free(x);
	return NULL;
}

static void write_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t r = write(fd, p, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			die("%s: %s", tmp_name, strerror(errno));
		p += r;
		n -= (size_t)r;
	}
}

static void progress(uint64_t done, uint64_t all, const char *name)
{
	static unsigned shown = 101;
	unsigned pct = (unsigned)(done * 100 / all);

	if (pct == shown || !isatty(2))
		return;
	shown = pct;
	fprintf(stderr, "\r%s: %u%%%s", name, pct, done == all ? "\n" : "");
}

/* The main thread's half: writes each block when its turn comes. */
static void drain(struct pipe *p, int fd, uint64_t bytes)
{
	uint64_t done = 0;

	while (done < bytes) {
		struct block *b = &p->ring[p->written % p->slots];

		pthread_mutex_lock(&p->lock);
		while (!b->full)
			pthread_cond_wait(&p->moved, &p->lock);
		pthread_mutex_unlock(&p->lock);
		write_all(fd, b->mem, b->bytes);
		/* Start it on its way: dirty pages must not pile up. */
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
		done += b->bytes;
		pthread_mutex_lock(&p->lock);
		b->full = 0;
		p->written++;
		pthread_cond_broadcast(&p->moved);
		pthread_mutex_unlock(&p->lock);
		progress(done, bytes, p->m->conf.out);
	}
}

static void pipe_init(struct pipe *p, const struct model *m)
{
	*p = (struct pipe){ .m = m, .slots = 2 * m->conf.threads + 2 };
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->moved, NULL);
	p->ring = calloc(p->slots, sizeof(*p->ring));
	for (uint64_t i = 0; p->ring && i < p->slots; i++) {
		p->ring[i].mem = malloc(BLOCK_BYTES + ALIGN);
		if (!p->ring[i].mem)
			die("out of memory");
	}
	if (!p->ring)
		die("out of memory");
}

static void pipe_run(struct pipe *p, int fd)
{
	pthread_t th[MAX_THREADS];
	uint64_t n = p->m->conf.threads;
	int err;

	for (uint64_t i = 0; i < n; i++) {
		err = pthread_create(&th[i], NULL, work, p);
		if (err)
			die("cannot start a thread: %s", strerror(err));
	}
	drain(p, fd, p->m->data_bytes);
	for (uint64_t i = 0; i < n; i++)
		pthread_join(th[i], NULL);
}

static double entropy(const uint64_t *count)
{
	double all = 0, h = 0;

	for (int i = 0; i < 256; i++)
		all += (double)count[i];
	for (int i = 0; i < 256; i++)
		if (count[i])
			h -= (double)count[i] / all * log2((double)count[i] / all);
	return h;
}

/* ---- the file ------------------------------------------------------------ */

static void on_signal(int sig)
{
	unlink(tmp_name);
	_exit(128 + sig);
}

static int open_tmp(const char *out, uint64_t bytes)
{
	char *name;
	int fd;

	if (asprintf(&name, "%s.tmp", out) < 0)
		die("out of memory");
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		die("%s: %s", name, strerror(errno));
	tmp_name = name;
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
	/* Ask for the room at once: a full disk is told before the work. */
	if (fallocate(fd, 0, 0, (off_t)bytes) && errno != EOPNOTSUPP)
		die("%s: no room for %llu MB: %s", out,
		    (unsigned long long)(bytes / 1000000), strerror(errno));
	return fd;
}

static void make(const struct model *m)
{
	const struct kind *kind = m->conf.kind;
	struct out o = { 0 };
	struct pipe p;
	int fd;

	header(&o, m);
	printf("bytes %llu\n", (unsigned long long)(o.len + m->data_bytes));
	if (m->conf.dry)
		return;
	quantile_init();
	fd = open_tmp(m->conf.out, o.len + m->data_bytes);
	write_all(fd, o.mem, o.len);
	pipe_init(&p, m);
	pipe_run(&p, fd);
	if (close(fd))
		die("%s: %s", tmp_name, strerror(errno));
	if (rename(tmp_name, m->conf.out))
		die("%s: %s", m->conf.out, strerror(errno));
	tmp_name = NULL;
	if (kind->exp_mask)
		printf("exponent entropy %.3f bits\n", entropy(p.exps));
}

/* Bytes of the file in the page cache, whoever they are charged to. */
static uint64_t cached(int fd, uint64_t size)
{
	size_t pages = (size + 4095) / 4096, in = 0;
	void *at = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	unsigned char *vec = malloc(pages);

	if (at == MAP_FAILED || !vec || mincore(at, size, vec))
		die("cannot look at the page cache: %s", strerror(errno));
	for (size_t i = 0; i < pages; i++)
		in += vec[i] & 1;
	munmap(at, size);
	free(vec);
	return in * 4096;
}

/* Dirty pages cannot be dropped: they are written out first. */
static void drop(const char *name)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint64_t left;

	if (fd < 0 || fstat(fd, &st))
		die("%s: %s", name, strerror(errno));
	if (!st.st_size)
		return;
	if (fdatasync(fd) && errno != EROFS)
		die("%s: %s", name, strerror(errno));
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	left = cached(fd, (uint64_t)st.st_size);
	if (left > (uint64_t)st.st_size / 100)
		die("%s: %llu MB stay in the page cache (in use elsewhere?)",
		    name, (unsigned long long)(left / 1000000));
	close(fd);
}

/* ---- arguments ----------------------------------------------------------- */

enum { OPT_TYPE = 256, OPT_LAYERS, OPT_DIM, OPT_FF, OPT_VOCAB, OPT_EXPERTS,
       OPT_USED, OPT_HEADS, OPT_KV_HEADS, OPT_HEAD_DIM, OPT_SEED, OPT_THREADS,
       OPT_DRY, OPT_DROP };

static const struct argp_option options[] = {
	{ "type", OPT_TYPE, "TYPE", 0, "bf16, f16, f32, q8_0 or q4_0", 0 },
	{ "layers", OPT_LAYERS, "N", 0, "transformer blocks", 0 },
	{ "dim", OPT_DIM, "D", 0, "embedding length, a multiple of 64", 0 },
	{ "ff", OPT_FF, "F", 0, "feed-forward length, a multiple of 32", 0 },
	{ "vocab", OPT_VOCAB, "V", 0, "tokens, 320 at least", 0 },
	{ "experts", OPT_EXPERTS, "E", 0, "experts per layer (Mixtral-shaped)", 0 },
	{ "experts-used", OPT_USED, "K", 0, "experts used per token (2)", 0 },
	{ "heads", OPT_HEADS, "H", 0, "attention heads; with the two below", 0 },
	{ "kv-heads", OPT_KV_HEADS, "K", 0, "heads with keys and values of their own", 0 },
	{ "head-dim", OPT_HEAD_DIM, "D", 0, "length of a head, a multiple of 32", 0 },
	{ "seed", OPT_SEED, "S", 0, "same seed, same file (1)", 0 },
	{ "threads", OPT_THREADS, "N", 0, "threads (all processors)", 0 },
	{ "dry-run", OPT_DRY, NULL, 0, "print the size, write nothing", 0 },
	{ "drop", OPT_DROP, "FILE", 0,
	  "drop FILE from the page cache and do nothing else", 0 },
	{ 0 }
};

static uint64_t number(struct argp_state *state, const char *s, uint64_t least,
		       uint64_t most)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(s, &end, 10);
	if (*s < '0' || *s > '9' || *end || errno || v < least || v > most)
		argp_error(state, "'%s' is not a number from %llu to %llu", s,
			   (unsigned long long)least, (unsigned long long)most);
	return v;
}

static const struct kind *type_arg(struct argp_state *state, const char *s)
{
	const struct kind *k = kind_named(s);

	if (!k)
		argp_error(state, "type '%s' is none of bf16 f16 f32 q8_0 q4_0", s);
	return k;
}

static void check(struct argp_state *state, const struct conf *c)
{
	if (c->drop)
		return;
	if (!c->kind || !c->layers || !c->dim || !c->ff || !c->vocab)
		argp_error(state, "--type, --layers, --dim, --ff and --vocab are needed");
	if (!c->out && !c->dry)
		argp_error(state, "no output file");
	if (c->dim % 64 || c->ff % 32)
		argp_error(state, "--dim must be a multiple of 64, --ff of 32");
	if (!c->heads != !c->kv_heads || !c->heads != !c->head_dim)
		argp_error(state, "--heads, --kv-heads and --head-dim go together");
	if (c->heads && (c->heads % c->kv_heads || c->head_dim % 32))
		argp_error(state, "--heads must be a multiple of --kv-heads, --head-dim of 32");
	if (c->experts && c->used > c->experts)
		argp_error(state, "--experts-used is more than --experts");
}

static error_t parse(int k, char *arg, struct argp_state *state)
{
	struct conf *c = state->input;

	switch (k) {
	case OPT_TYPE: c->kind = type_arg(state, arg); break;
	case OPT_LAYERS: c->layers = number(state, arg, 1, 1000); break;
	case OPT_DIM: c->dim = number(state, arg, 64, MAX_DIM); break;
	case OPT_FF: c->ff = number(state, arg, 32, MAX_DIM); break;
	case OPT_VOCAB: c->vocab = number(state, arg, 320, 1 << 24); break;
	case OPT_EXPERTS: c->experts = number(state, arg, 2, 1024); break;
	case OPT_USED: c->used = number(state, arg, 1, 1024); break;
	case OPT_HEADS: c->heads = number(state, arg, 1, 4096); break;
	case OPT_KV_HEADS: c->kv_heads = number(state, arg, 1, 4096); break;
	case OPT_HEAD_DIM: c->head_dim = number(state, arg, 32, 4096); break;
	case OPT_SEED: c->seed = number(state, arg, 0, UINT64_MAX); break;
	case OPT_THREADS: c->threads = number(state, arg, 1, MAX_THREADS); break;
	case OPT_DRY: c->dry = 1; break;
	case OPT_DROP: c->drop = arg; break;
	case ARGP_KEY_ARG:
		if (c->out)
			return ARGP_ERR_UNKNOWN;
		c->out = arg;
		break;
	case ARGP_KEY_END: check(state, c); break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static uint64_t processors(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (uint64_t)n;
}

int main(int argc, char **argv)
{
	static const struct argp argp = { options, parse, "OUT.gguf",
		"Make a synthetic GGUF model with the statistics of a real one.",
		NULL, NULL, NULL };
	struct model m = { .conf = { .seed = 1, .used = 2,
				     .threads = processors() } };

	argp_parse(&argp, argc, argv, 0, NULL, &m.conf);
	if (m.conf.drop) {
		drop(m.conf.drop);
		return 0;
	}
	shape(&m);
	make(&m);
	return 0;
}
