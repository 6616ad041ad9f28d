/* SPDX-License-Identifier: MIT */
/* fork_under.c - _Fork: no atfork handler runs, bytes are right all the same.
 *
 * Owns nothing; lock: none. The child may use only what is safe in a signal
 * handler; comparing memory is.
 */
/* env: OFFLOAD_RAM=32M */
/* needs: regions evictions */
#include "trap.h"

int main(void)
{
	struct trap t;

	trap_start(&t);
	verify_passes(&t, 2, "before");
	for (int i = 0; i < 4; i++) {
		pid_t pid = _Fork();

		if (!pid) {
			verify_random(&t, 60, i, "_Fork child, at once");
			verify_all(&t, "_Fork child");
			_exit(0);
		}
		check(pid > 0);
		verify_all(&t, "parent beside a _Fork child");
		trap_wait(pid, "_Fork child");
	}
	verify_passes(&t, 3, "parent after");
	return trap_done(&t);
}
