/* SPDX-License-Identifier: MIT */
/* simplex.c - a small linear program, solved where it stands.
 *
 *     maximise  goal[0] . x, and of all such x  goal[1] . x
 *     with      row . x <= rhs  in every row,  x >= 0
 *
 * The tableau is a dictionary: its columns are the variables that are 0, its
 * rows those that are not (basic); a pivot exchanges one for one. Every rhs is
 * >= 0 at the start, so x = 0 is a corner to start from, and all the method
 * does is walk to better ones (Dantzig).
 *
 * (X1) Of those that may enter, and of those that must leave, the one with the
 *      lowest number (Bland): no corner is seen twice, so it ends.
 * (X2) Only columns whose entry in goal 0 is 0 may enter for goal 1: no pivot
 *      for the second goal changes the first.
 * Numbers are expected to be near 1; EPS is what counts as 0.
 * Lock: none, the caller's memory.
 */
#include "policy/policy_int.h"

#define EPS 1e-11
#define PIVOTS_MAX 4000		/* against rounding only: (X1) */

void pol_lp_init(struct pol_lp *lp, uint32_t cols)
{
	memset(lp, 0, sizeof(*lp));
	lp->cols = cols;
	for (uint32_t c = 0; c < cols; c++)
		lp->col_var[c] = c;
}

double *pol_lp_row(struct pol_lp *lp, double rhs)
{
	uint32_t r = lp->rows++;

	lp->row_var[r] = lp->cols + r;
	lp->rhs[r] = rhs;
	return lp->row[r];
}

/* The column that enters, or lp->cols: x is best. */
static uint32_t entering(const struct pol_lp *lp)
{
	uint32_t best = lp->cols;

	for (int g = 0; g < 2 && best == lp->cols; g++)
		for (uint32_t c = 0; c < lp->cols; c++) {
			if (lp->goal[g][c] <= EPS ||
			    (g && lp->goal[0][c] < -EPS))	/* (X2) */
				continue;
			if (best == lp->cols || lp->col_var[c] < lp->col_var[best])
				best = c;
		}
	return best;
}

/* The row that bounds column c first, or lp->rows: nothing does. */
static uint32_t leaving(const struct pol_lp *lp, uint32_t c)
{
	uint32_t best = lp->rows;
	double least = 0, at;

	for (uint32_t r = 0; r < lp->rows; r++) {
		if (lp->row[r][c] <= EPS)
			continue;
		at = lp->rhs[r] / lp->row[r][c];
		if (best == lp->rows || at < least ||
		    (at <= least && lp->row_var[r] < lp->row_var[best])) {
			best = r;
			least = at;
		}
	}
	return best;
}

/* other -= its entry in column c times the row that was solved for it. */
static void eliminate(const struct pol_lp *lp, double *other, double *rhs,
		      uint32_t r, uint32_t c)
{
	double f = other[c];

	if (f == 0)
		return;
	for (uint32_t j = 0; j < lp->cols; j++)
		other[j] = j == c ? -f * lp->row[r][c] :
				    other[j] - f * lp->row[r][j];
	if (rhs) {
		*rhs -= f * lp->rhs[r];
		if (*rhs < 0)
			*rhs = 0;	/* rounding: least ratios keep it >= 0 */
	}
}

static void pivot(struct pol_lp *lp, uint32_t r, uint32_t c)
{
	double p = lp->row[r][c];
	uint32_t var = lp->row_var[r];

	for (uint32_t j = 0; j < lp->cols; j++)
		lp->row[r][j] = j == c ? 1 / p : lp->row[r][j] / p;
	lp->rhs[r] /= p;
	for (uint32_t i = 0; i < lp->rows; i++)
		if (i != r)
			eliminate(lp, lp->row[i], &lp->rhs[i], r, c);
	for (int g = 0; g < 2; g++)
		eliminate(lp, lp->goal[g], NULL, r, c);
	lp->row_var[r] = lp->col_var[c];
	lp->col_var[c] = var;
}

void pol_lp_solve(struct pol_lp *lp, double *x)
{
	uint32_t c, r;

	for (int i = 0; i < PIVOTS_MAX; i++) {
		c = entering(lp);
		r = c < lp->cols ? leaving(lp, c) : lp->rows;
		if (r == lp->rows)
			break;
		pivot(lp, r, c);
	}
	memset(x, 0, lp->cols * sizeof(*x));
	for (r = 0; r < lp->rows; r++)
		if (lp->row_var[r] < lp->cols)
			x[lp->row_var[r]] = lp->rhs[r];
}
