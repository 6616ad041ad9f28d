/* SPDX-License-Identifier: MIT */
/* largest.c - the largest mapped files and allocation sites, for the statistics.
 *
 * Owns nothing: what it shows lies in the statistics (stats.h), made anew each
 * time. Lock: region_lock, to look at the files.
 */
#include "core/core_int.h"
#include "core/sites.h"

#include <stdio.h>

#define FILES 64	/* told apart; more are not shown */

struct file { uint64_t ino, bytes, blocks; const struct region *r; };

/* Region_lock held: all that is mapped of each file. */
static int sum_files(struct file *f)
{
	const struct region *r;
	int n = 0, k;

	for (int i = 0; (r = region_nth(i)); i++) {
		if (r->state == REGION_FREE || r->state == REGION_DYING || !r->origin)
			continue;
		for (k = 0; k < n && f[k].ino != r->origin->ino; k++)
			;
		if (k == FILES)
			continue;
		if (k == n)
			f[n++] = (struct file){ .ino = r->origin->ino, .r = r };
		f[k].bytes += region_size(r);
		f[k].blocks++;
	}
	return n;
}

/* Of a name that is too long the end: there files of one model differ. */
static void copy_name(char *to, size_t len, const char *from)
{
	size_t n = strlen(from);

	if (n < len)
		memcpy(to, from, n + 1);
	else
		snprintf(to, len, "...%s", from + n - (len - 4));
}

static int largest_files(struct stat_site *list, int n, int max)
{
	struct file f[FILES];
	int files;

	region_lock();
	files = sum_files(f);
	for (int i = 0; i < files; i++) {
		struct stat_site s = { .bytes = f[i].bytes, .blocks = f[i].blocks,
				       .kind = STAT_FILE };

		copy_name(s.name, sizeof(s.name), f[i].r->origin->name);
		n = sites_insert(list, n, max, &s);
	}
	region_unlock();
	return n;
}

void largest_publish(void)
{
	struct off_stats *s = stats_sites_begin();
	int n;

	if (!s)
		return;
	n = largest_files(s->site, 0, STATS_SITES);
	n = sites_largest(s->site, n, STATS_SITES);
	stats_sites_end(s, n);
}
