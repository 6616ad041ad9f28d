/* SPDX-License-Identifier: MIT */
/* header.c - reads the header of a tensor file.
 *
 * By reads: a mapping would fault if the file were shortened just now. The
 * text gets pages of its own, given back at once: a header with a long
 * vocabulary has tens of MiB.
 * Lock: none.
 */
#include "core/header.h"
#include "core/core_int.h"

#define HEADER_MAX	(64ull << 20)
#define HEADER_FIRST	(1ull << 20)

static void drop_text(struct header *h)
{
	if (h->text)
		off_sys_munmap(h->text, h->text_len);
	h->text = NULL;
}

/* The first len bytes of the file. Those it cannot read stay zeros. */
static int take_text(struct header *h, int fd, size_t len)
{
	char *p;

	drop_text(h);
	p = off_sys_mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	h->text = p;
	h->text_len = len;
	return off_sys_pread_all(fd, p, len, 0) < 0 ? -EIO : 0;
}

/* Spans the header lists, or -errno. */
static long count(struct header *h, int fd, uint64_t size)
{
	uint64_t len = size < HEADER_FIRST ? size : HEADER_FIRST;
	long n = -EAGAIN;
	int err;

	while (n == -EAGAIN) {
		err = take_text(h, fd, len);
		if (err)
			return err;
		n = pol_spans(h->text, len, size, NULL, 0, &h->want);
		if (n == -EAGAIN && (h->want <= len || h->want > HEADER_MAX))
			return -EFBIG;
		len = h->want;
	}
	return n;
}

int header_read(int fd, uint64_t size, struct header *h)
{
	long n;

	memset(h, 0, sizeof(*h));
	n = size ? count(h, fd, size) : -EBADMSG;
	if (n > 0) {
		h->spans = mem_alloc((size_t)n * sizeof(*h->spans));
		n = h->spans ? pol_spans(h->text, h->text_len, size, h->spans,
					 (size_t)n, &h->want) : -ENOMEM;
	}
	if (n < 0) {
		header_free(h);
		return (int)n;
	}
	h->n_spans = (size_t)n;
	return 0;
}

void header_free(struct header *h)
{
	drop_text(h);
	mem_free(h->spans);
	h->spans = NULL;
	h->n_spans = 0;
}
