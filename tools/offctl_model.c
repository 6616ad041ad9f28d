/* SPDX-License-Identifier: MIT */
/* offctl_model.c - a model file as classes of tensors, for plan.
 *
 * A class is an element type and a pattern of use. How well it packs is tried
 * on some chunks of it from jittered places, cut as the library cuts them.
 * Owns nothing; a struct model is the caller's.
 */
#include "offctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/header.h"

#define SAMPLES		6	/* chunks of each class and file */
#define EXPERTS_USED	2	/* where nobody says */

enum use { USE_LOOP, USE_ROWS, USE_EXPERTS, USE_N };

static const char *const type_name[] = {
	[POL_DT_OTHER] = "other", [POL_DT_F32] = "f32", [POL_DT_F16] = "f16",
	[POL_DT_BF16] = "bf16", [POL_DT_QUANT] = "quantised",
};
#define TYPES (sizeof(type_name) / sizeof(type_name[0]))
_Static_assert(TYPES * USE_N == MODEL_CLASSES, "one class each");

static const char *const use_name[USE_N] = { "loop", "rows", "experts" };

struct file {
	const char *path;
	int fd;
	uint64_t size;
	struct header h;
	struct pol_span whole;	/* of a container whose header is not read */
	const struct pol_span *spans;
	size_t n_spans;
};

static int refuse(const char *path, const char *why)
{
	fprintf(stderr, "offctl: %s: %s\n", path, why);
	return 1;
}

/* ---- opening --------------------------------------------------------------- */

static bool whole_container(const struct file *f)
{
	unsigned char head[512];
	ssize_t n = pread(f->fd, head, sizeof(head), 0);
	enum pol_container c = n > 0 ?
		pol_container_of(head, (size_t)n, f->path) : POL_FILE_UNKNOWN;

	return c == POL_FILE_ZIP || c == POL_FILE_ONNX;
}

static int read_spans(struct file *f)
{
	int err = header_read(f->fd, f->size, &f->h);

	f->spans = f->h.spans;
	f->n_spans = f->h.n_spans;
	if (err == -EBADMSG && whole_container(f)) {
		f->whole = (struct pol_span){ .len = f->size };
		f->spans = &f->whole;
		f->n_spans = 1;
		return 0;
	}
	if (err == -EBADMSG && f->h.want > f->size) {
		fprintf(stderr, "offctl: %s is truncated: its header promises "
			"%llu bytes and it has %llu; fetch it again\n", f->path,
			(unsigned long long)f->h.want,
			(unsigned long long)f->size);
		return 1;
	}
	if (err == -EBADMSG)
		return refuse(f->path, "not a model file (GGUF, safetensors, "
			      "torch zip, ONNX), or its header is damaged");
	if (err)
		return refuse(f->path, strerror(-err));
	return f->n_spans ? 0 : refuse(f->path, "there are no tensors in it");
}

static int open_file(struct file *f, const char *path)
{
	struct stat st;

	memset(f, 0, sizeof(*f));
	f->path = path;
	f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (f->fd < 0)
		return refuse(path, strerror(errno));
	if (fstat(f->fd, &st))
		return refuse(path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return refuse(path, "not a regular file");
	f->size = (uint64_t)st.st_size;
	return read_spans(f);
}

static void close_file(struct file *f)
{
	header_free(&f->h);
	if (f->fd >= 0)
		close(f->fd);
}

/* ---- classes ----------------------------------------------------------------- */

static enum use use_of(const struct pol_span *s)
{
	if (s->pattern == POL_LOOP)
		return USE_LOOP;
	return s->slab || s->expert != UINT32_MAX ? USE_EXPERTS : USE_ROWS;
}

static unsigned int class_of(const struct pol_span *s)
{
	return s->dtype * USE_N + use_of(s);
}

const char *model_class_name(unsigned int class, char *buf, size_t len)
{
	snprintf(buf, len, "%s %s", type_name[class / USE_N],
		 use_name[class % USE_N]);
	return buf;
}

static void count_span(struct model *m, const struct pol_span *s)
{
	struct model_class *c = &m->class[class_of(s)];
	uint64_t experts = 0;

	c->bytes += s->len;
	c->tensors++;
	if (use_of(s) == USE_EXPERTS)
		experts = s->slab ? s->len / s->slab : s->expert + 1ull;
	if (experts > m->experts && experts < UINT32_MAX)
		m->experts = (uint32_t)experts;
}

void model_uses(struct model *m)
{
	if (!m->experts_used)
		m->experts_used = EXPERTS_USED;
	for (unsigned int i = 0; i < MODEL_CLASSES; i++) {
		struct model_class *c = &m->class[i];

		c->uses = 1;
		/* a token needs one row of each, and so the chunk around it */
		if (i % USE_N == USE_ROWS)
			c->uses = (double)c->tensors * TRIAL_MAX / (double)(c->bytes + 1);
		if (i % USE_N == USE_EXPERTS)
			c->uses = (double)m->experts_used / (m->experts + 1e-9);
		c->uses = c->uses < 1 ? c->uses : 1;
	}
}

/* ---- packing, tried ------------------------------------------------------------ */

struct sampler {
	const struct file *f;
	struct trial *trial;
	void *chunk;
};

/* As what OFFLOAD_LOSSY would have it kept. */
static int kind_of(const struct file *f, const struct pol_span *s)
{
	char name[256];

	if (!f->h.text ||
	    (uint64_t)s->name_off + s->name_len > f->h.text_len)
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)s->name_len,
		 (const char *)f->h.text + s->name_off);
	return trial_kind(s, name);
}

static int try_at(const struct sampler *p, const struct pol_span *s,
		  uint64_t at, struct trial_sum *sum)
{
	uint64_t lo = (s->off + at) / TRIAL_MAX * TRIAL_MAX, hi = lo + TRIAL_MAX;
	int kind = kind_of(p->f, s);
	uint64_t value = trial_size(kind);
	uint64_t end = s->off + s->len;
	ssize_t n;

	lo = lo > s->off ? lo : s->off;
	hi = hi < end ? hi : end;
	lo += (value - (lo - s->off) % value) % value;
	if (lo >= hi)
		return 0;
	n = pread(p->f->fd, p->chunk, hi - lo, (off_t)lo);
	if (n != (ssize_t)(hi - lo))
		return refuse(p->f->path, n < 0 ? strerror(errno) :
			      "it was shortened while it was read");
	trial_chunk(p->trial, p->chunk, hi - lo, kind, sum);
	return 0;
}

/* Byte `at` of the class's bytes, one tensor after another. */
static int try_class(const struct sampler *p, unsigned int class, uint64_t at,
		     struct trial_sum *sum)
{
	for (size_t i = 0; i < p->f->n_spans; i++) {
		const struct pol_span *s = &p->f->spans[i];

		if (class_of(s) != class)
			continue;
		if (at < s->len)
			return try_at(p, s, at, sum);
		at -= s->len;
	}
	return 0;
}

/* Places are a part each and jittered in it: regular ones fall into step. */
static int sample(const struct sampler *p, unsigned int class, uint64_t bytes,
		  struct trial_sum *sum)
{
	uint64_t n = bytes / TRIAL_MAX + 1, part, x = 88172645463325252ull;
	int err = 0;

	n = n < SAMPLES ? n : SAMPLES;
	part = bytes / n;
	for (uint64_t i = 0; i < n && part && !err; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		err = try_class(p, class, i * part + x % part, sum);
	}
	return err;
}

static int add_file(struct model *m, const struct file *f)
{
	struct sampler p = { f, trial_new(), malloc(TRIAL_MAX) };
	struct model was = *m;
	int err = 0;

	for (size_t i = 0; i < f->n_spans; i++)
		count_span(m, &f->spans[i]);
	if (f->h.text && !m->experts_used)
		m->experts_used = pol_experts_used(f->h.text, f->h.text_len);
	if (!p.trial || !p.chunk)
		err = refuse(f->path, strerror(ENOMEM));
	for (unsigned int i = 0; i < MODEL_CLASSES && !err; i++)
		err = sample(&p, i, m->class[i].bytes - was.class[i].bytes,
			     &m->class[i].trial);
	trial_free(p.trial);
	free(p.chunk);
	return err;
}

int model_add(struct model *m, const char *path)
{
	struct file f;
	int err = open_file(&f, path);

	if (!err)
		err = add_file(m, &f);
	close_file(&f);
	return err;
}
