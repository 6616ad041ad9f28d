/* SPDX-License-Identifier: MIT */
/* lib_inner.c - found by its loader's RUNPATH alone. Owns nothing; lock: none. */
int whose(void);
int linked_inner(void);

int whose(void)
{
	return 2;
}

int linked_inner(void)
{
	return 3;
}
