/* SPDX-License-Identifier: MIT */
/* waits.c - how long at least one of several threads waited.
 *
 * Two that wait at once lose the program no more than one does: the sum would pass
 * for most of its time, or for more than all of it.
 *
 * (1) Waits are told as they end, so that only those at the end can overlap a new one.
 * (2) Spans that are forgotten have been counted: a wait that began before them counts
 *     in full, which is too much only where more than WAITS_MOST came and went meanwhile.
 * Owns nothing. Lock: none; its caller's.
 */
#include "core/waits.h"

#include <string.h>

uint64_t waits_add(struct waits *w, uint64_t from, uint64_t to)
{
	uint64_t known = 0;

	while (w->n && w->span[w->n - 1].to >= from) {
		w->n--;
		known += w->span[w->n].to - w->span[w->n].from;
		if (w->span[w->n].from < from)
			from = w->span[w->n].from;
	}
	if (w->n == WAITS_MOST)
		memmove(&w->span[0], &w->span[1], --w->n * sizeof(w->span[0]));
	w->span[w->n].from = from;
	w->span[w->n++].to = to;
	return to - from - known;
}
