/* SPDX-License-Identifier: MIT */
/* offctl_tape.c - reads a tape.
 *
 * Text, so that a tape can be made by hand and read by people:
 *
 *     offload-tape 1 chunk_bytes=2097152 chunks=1200
 *     # a comment
 *     span FIRST COUNT loop|skew ORDER NAME
 *     CHUNK STREAM
 *     CHUNK*COUNT STREAM          COUNT chunks one after another
 *
 * Owns nothing; a struct tape is the caller's.
 */
#include "offctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_USES (1u << 28)

struct reader {
	const char *path;
	unsigned long line_no;
	struct tape *t;
	size_t cap_uses, cap_spans;
};

static int bad(const struct reader *r, const char *why)
{
	fprintf(stderr, "offctl: %s:%lu: %s\n", r->path, r->line_no, why);
	return -EBADMSG;
}

static int grow(void **mem, size_t *cap, size_t need, size_t size)
{
	size_t to = *cap ? *cap * 2 : 1024;
	void *p;

	if (need <= *cap)
		return 0;
	to = to < need ? need : to;
	p = realloc(*mem, to * size);
	if (!p)
		return -ENOMEM;
	*mem = p;
	*cap = to;
	return 0;
}

static int read_head(struct reader *r, const char *line)
{
	unsigned int bytes, chunks, version;
	int end = 0;

	if (sscanf(line, "offload-tape %u chunk_bytes=%u chunks=%u %n", &version,
		   &bytes, &chunks, &end) != 3 || line[end])
		return bad(r, "not a tape: it begins with \"offload-tape 1 "
			   "chunk_bytes=BYTES chunks=N\"");
	if (version != 1)
		return bad(r, "a tape of another version");
	if (!bytes || !chunks || chunks > 1u << 26)
		return bad(r, "no chunks, or too many");
	r->t->chunk_bytes = bytes;
	r->t->chunks = chunks;
	return 0;
}

static int add_span(struct reader *r, const char *line)
{
	unsigned int first, count, order;
	struct tape *t = r->t;
	char pattern[8];
	int err;

	if (sscanf(line, "span %u %u %7s %u", &first, &count, pattern,
		   &order) != 4 ||
	    (strcmp(pattern, "loop") && strcmp(pattern, "skew")))
		return bad(r, "a span is \"span FIRST COUNT loop|skew ORDER NAME\"");
	if (!count || first >= t->chunks || count > t->chunks - first)
		return bad(r, "a span beyond the last chunk");
	err = grow((void **)&t->spans, &r->cap_spans, t->n_spans + 1,
		   sizeof(*t->spans));
	if (err)
		return err;
	t->spans[t->n_spans++] = (struct pol_span){
		.off = (uint64_t)first * t->chunk_bytes,
		.len = (uint64_t)count * t->chunk_bytes,
		.order = order, .layer = UINT32_MAX,
		.pattern = *pattern == 'l' ? POL_LOOP : POL_SKEW,
	};
	return 0;
}

/* Digits only: scanf would take a sign. */
static bool number(const char **s, uint32_t *out)
{
	uint64_t v = 0;
	const char *p = *s;

	while (*p >= '0' && *p <= '9' && v <= UINT32_MAX)
		v = v * 10 + (uint64_t)(*p++ - '0');
	if (p == *s || v > UINT32_MAX)
		return false;
	*s = p;
	*out = (uint32_t)v;
	return true;
}

static bool parse_use(const char *s, uint32_t *first, uint32_t *count,
		      uint32_t *stream)
{
	*count = 1;
	*stream = 0;
	if (!number(&s, first))
		return false;
	if (*s == '*' && (s++, !number(&s, count)))
		return false;
	s += strspn(s, " \t");
	return number(&s, stream) && !s[strspn(s, " \t\r\n")];
}

static int add_uses(struct reader *r, const char *line)
{
	uint32_t first, count, stream;
	struct tape *t = r->t;
	int err;

	if (!parse_use(line, &first, &count, &stream))
		return bad(r, "a use is \"CHUNK STREAM\" or \"CHUNK*COUNT STREAM\"");
	if (!count || first >= t->chunks || count > t->chunks - first)
		return bad(r, "a use beyond the last chunk");
	if (t->n_uses + count > MAX_USES)
		return bad(r, "too many uses");
	err = grow((void **)&t->uses, &r->cap_uses, t->n_uses + count,
		   sizeof(*t->uses));
	for (uint32_t i = 0; i < count && !err; i++)
		t->uses[t->n_uses++] = (struct pol_use){ first + i, stream };
	return err;
}

static int read_line(struct reader *r, const char *line)
{
	r->line_no++;
	if (r->line_no == 1)
		return read_head(r, line);
	line += strspn(line, " \t");
	if (*line == '#' || *line == '\n' || !*line || !strncmp(line, "device ", 7))
		return 0;	/* what devices do is another matter */
	return strncmp(line, "span ", 5) ? add_uses(r, line) : add_span(r, line);
}

/* A program writes the most chunks there may be, before it knows how many
 * there are; what replays the tape takes memory for each. */
static void trim(struct tape *t)
{
	uint32_t chunks = 0, end;

	for (size_t i = 0; i < t->n_uses; i++)
		if (t->uses[i].chunk >= chunks)
			chunks = t->uses[i].chunk + 1;
	for (size_t i = 0; i < t->n_spans; i++) {
		end = (uint32_t)((t->spans[i].off + t->spans[i].len) /
				 t->chunk_bytes);
		chunks = end > chunks ? end : chunks;
	}
	t->chunks = chunks;
}

int tape_read(const char *path, struct tape *t)
{
	struct reader r = { .path = path, .t = t };
	char *line = NULL;
	size_t cap = 0;
	int err = 0;
	FILE *f;

	memset(t, 0, sizeof(*t));
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (!err && getline(&line, &cap, f) > 0)
		err = read_line(&r, line);
	if (!err && ferror(f))
		err = -EIO;
	if (!err && !r.line_no)
		err = bad(&r, "empty");
	trim(t);
	free(line);
	fclose(f);
	return err;
}

void tape_free(struct tape *t)
{
	free(t->uses);
	free(t->spans);
	memset(t, 0, sizeof(*t));
}
