#!/bin/bash
# SPDX-License-Identifier: MIT
#
# debug.sh - a paged program under gdb, attached to, and dumping core: it ends as it
# would without. What a debugger is shown is right or refused (kernel_io.c looks closer).
#
# Owns a scratch folder and the programs it starts; lock: none. In a core, memory that
# was away is missing (as zeros): that is the kernel's, and is said in the docs.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
command -v gdb >/dev/null || { echo "gdb is not installed"; exit 77; }
dir=$(mktemp -d "$(realpath "$B")/debug.XXXXXX") || exit 1
holder=
trap '[ -z "$holder" ] || kill -9 "$holder" 2>/dev/null; rm -rf "$dir"' EXIT
unset LD_PRELOAD ${!OFFLOAD_*}
sites=$(realpath "$B/preload/sites")
loop=$(realpath "$B/preload/loop")
bad=0 skipped=

fail() {
	echo "FAIL: $*"
	tail -n 6 "$dir/out" | sed 's/^/    /'
	bad=1
}

vars="TMPDIR=$dir TRAP_CACHE=$dir OFFLOAD_SPILL=$dir OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=1M"
vars+=" LD_PRELOAD=$lib"

# debug PROGRAM COMMAND...: gdb runs it with the library, and these commands.
debug() {
	local prog=$1 args=() c

	shift
	for c; do args+=(-ex "$c"); done
	timeout -k 5 100 gdb -nx -batch -ex 'set confirm off' \
		-ex "set exec-wrapper env $vars OFFLOAD_PAGER=$mode" \
		"${args[@]}" "$prog" >"$dir/out" 2>&1 </dev/null
}

# hold: the program with blocks of 89 MiB, three times the budget, waits.
hold() {
	rm -f "$dir/hold" "$dir/stats"
	mkfifo "$dir/hold"
	# shellcheck disable=SC2086
	(cd "$dir" && ulimit -c unlimited && exec env $vars OFFLOAD_PAGER=$mode \
		OFFLOAD_STATS="$dir/stats" "$sites" hold <"$dir/hold") >"$dir/said" 2>&1 &
	holder=$!
	exec 8>"$dir/hold"
	for _ in $(seq 200); do
		"$B/offctl" stats --json $holder 2>/dev/null |
			grep -q 'site_weights.*"bytes":50331648' && return
		sleep 0.1
	done
	fail "$mode: the program never held its blocks"
}

# let_go STATUS: it ends, in time.
let_go() {
	local st

	exec 8>&-
	wait $holder 2>/dev/null
	st=$?
	holder=
	[ $st = "$1" ] || fail "$mode: status $st, not $1: $(tail -n 2 "$dir/said")"
}

for mode in move copy; do
	# Stopped in the middle, looked at, and on.
	debug "$loop" 'tbreak trap_done' run \
		'output *(char (*)[4])t->map' 'info threads' continue
	grep -q 'exited normally' "$dir/out" || fail "$mode: a breakpoint, and on"
	grep -Eq 'GGUF|Cannot access' "$dir/out" || fail "$mode: what gdb shows"

	# Attached: everything is stopped, all of it looked at, page by page.
	hold
	timeout -k 5 60 gdb -nx -batch -p $holder -ex 'info threads' \
		-ex 'thread apply all bt 3' -ex detach >"$dir/out" 2>&1 </dev/null ||
		fail "$mode: gdb -p: status $?"
	let_go 0

	# A core, of a program that is killed.
	case $(cat /proc/sys/kernel/core_pattern) in
	core|core.%p)
		rm -f "$dir"/core*
		hold
		kill -ABRT $holder
		let_go $((128 + 6))
		set -- "$dir"/core*
		[ -s "$1" ] || fail "$mode: there is no core"
		timeout 60 gdb -nx -batch -ex 'info threads' -ex bt "$sites" "$1" \
			>"$dir/out" 2>&1 </dev/null
		grep -q 'SIGABRT' "$dir/out" || fail "$mode: gdb cannot read the core"
		rm -f "$dir"/core* ;;
	*)	skipped="cores go elsewhere here: not looked at; the rest is right" ;;
	esac
done
[ $bad = 0 ] || exit 1
[ -z "$skipped" ] || { echo "$skipped"; exit 77; }
