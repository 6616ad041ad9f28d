/* SPDX-License-Identifier: MIT */
/* tape.c - the period of a tape.
 *
 * A tape is ordered in the large only: threads overtake each other. So two
 * stretches are compared as sets of nearby uses: for a few short runs of the
 * last half, each use must be found again near the same place d earlier.
 * Lock: none, pure function.
 */
#include "policy/policy_int.h"

#define NEAR 16u		/* uses by which order may differ */
#define PROBES 64u		/* uses compared for a first opinion */

/* True if the use at i was made about d earlier, too. */
static bool found_near(const uint32_t *uses, size_t i, size_t d)
{
	size_t at = i - d, from = at > NEAR ? at - NEAR : 0;
	size_t to = d > NEAR ? at + NEAR : i - 1;

	for (size_t k = from; k <= to; k++)
		if (uses[k] == uses[i])
			return true;
	return false;
}

/* True when all but a few per cent of every step-th use from the last half
 * on was used d earlier, too. */
static bool repeats(const uint32_t *uses, size_t n, size_t d, size_t step)
{
	size_t from = n / 2 > d ? n / 2 : d, seen = 0, off = 0;

	for (size_t i = from; i < n; i += step) {
		seen++;
		off += !found_near(uses, i, d);
		if (off > 2 && off * 16 > (n - from) / step)
			return false;
	}
	return seen && off * 16 <= seen;
}

/* Sets agree for a few d's around the period: the true one has the most
 * uses in exactly the same place. */
static size_t exact(const uint32_t *uses, size_t n, size_t d)
{
	size_t low = d > NEAR ? d - NEAR : 1, best = d, most = 0, same, i, k;

	for (k = low; k <= d + NEAR && k < n; k++) {
		for (same = 0, i = n / 2 > k ? n / 2 : k; i < n; i++)
			same += uses[i] == uses[i - k];
		if (same > most) {
			most = same;
			best = k;
		}
	}
	return best;
}

uint32_t pol_period(const uint32_t *uses, size_t n)
{
	size_t step, d;

	for (d = 1; d <= n / 2; d++) {
		step = (n - n / 2) / PROBES + 1;
		if (!found_near(uses, n - 1, d))
			continue;
		if (repeats(uses, n, d, step) && repeats(uses, n, d, 1))
			return (uint32_t)exact(uses, n, d);
	}
	return 0;
}
