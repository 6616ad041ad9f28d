#!/bin/bash
# SPDX-License-Identifier: MIT
#
# badinput.sh - wrong variables, refusing kernels, hopeless budgets, broken
# files: one clear message where one is due, right bytes, an honest status.
#
# Owns a scratch folder; lock: none. Every case states what stderr must say,
# how many lines of it are the library's, and the exit status.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
dir=$(mktemp -d "$(realpath "$B")/bad.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
nosys=$B/preload/helper_nosys
bad=0

fail() {
	echo "FAIL: $*"
	sed 's/^/    /' "$dir/err" | head -n 8
	bad=1
}

# run NAME=VALUE... COMMAND...: with the library; status in $st. A command is
# a trap program's name or helper_nosys with its arguments.
run() {
	timeout -k 5 60 env TMPDIR="$dir" TRAP_CACHE="$dir" OFFLOAD_HOST_MIN=1M \
		LD_PRELOAD="$lib" "$@" >"$dir/out" 2>"$dir/err" </dev/null
	st=$?
	[ -s "$dir/out" ] && fail "stdout is not empty: $*"
}

# expect NAME STATUS LINES ERE: judges the last run. LINES: how many messages
# of the library are due at most; ERE "": none must match.
expect() {
	local n

	n=$(grep -c 'offload\[' "$dir/err")
	[ "$st" = "$2" ] || fail "$1: status $st, not $2"
	[ "$n" -le "$3" ] || fail "$1: $n messages, $3 are due"
	[ -z "$4" ] || grep -Eqi "$4" "$dir/err" ||
		fail "$1: no message matches: $4"
}

loop=$B/preload/loop

# ---- variables -----------------------------------------------------------------
run OFFLOAD_RAMM=3G "$loop"
expect 'unknown name' 0 1 'OFFLOAD_RAMM.*OFFLOAD_RAM\b'
run OFFLOAD_PAGR=move "$loop"
expect 'unknown name, one letter short' 0 1 'OFFLOAD_PAGR.*OFFLOAD_PAGER'
run OFFLOAD_RAM=lots "$loop"
expect 'not a size' 0 1 'OFFLOAD_RAM=lots.*(bytes|K, M)'
run OFFLOAD_RAM=-5 "$loop"
expect 'negative size' 0 1 'OFFLOAD_RAM=-5'
run OFFLOAD_RAM=99999999999999999999G "$loop"
expect 'size beyond all bounds' 0 1 'OFFLOAD_RAM='
run OFFLOAD_PAGER=fast "$loop"
expect 'not a word of the list' 0 1 'OFFLOAD_PAGER=fast.*move'
run OFFLOAD_IO=aio "$loop"
expect 'not an engine' 0 1 'OFFLOAD_IO=aio.*io_uring'
run OFFLOAD_RAM=x OFFLOAD_PAGER=y "$loop"
expect 'two at once' 0 2 'OFFLOAD_RAM=x'
run OFFLOAD_RAM= OFFLOAD_PAGER= "$loop"
expect 'empty values are unset' 0 0 ''
run OFFLOAD_RAM=2.5G "$loop"
expect 'a fraction' 0 0 ''
run OFFLOAD_STRICT=1 OFFLOAD_RAMM=3G "$loop"
expect 'strict, unknown name' 2 2 'OFFLOAD_RAMM'
run OFFLOAD_STRICT=1 OFFLOAD_RAM=lots "$loop"
expect 'strict, malformed' 2 2 'OFFLOAD_RAM=lots'
run OFFLOAD_STRICT=1 OFFLOAD_RAM=32M "$loop"
expect 'strict, nothing wrong' 0 0 ''

# After a bad variable the library passes through: nothing is a region.
run OFFLOAD_RAM=32M OFFLOAD_RAMM=1 OFFLOAD_STATS="$dir/pass.json" "$loop"
expect 'bad variable passes through' 0 1 'OFFLOAD_RAMM'
if [ -s "$dir/pass.json" ] &&
   ! grep -q '"evictions": *0\b' "$dir/pass.json"; then
	fail "a bad variable did not stop the library"
fi

# ---- statistics that cannot be written ---------------------------------------------
run OFFLOAD_RAM=32M OFFLOAD_STATS="$dir/none/x.json" "$loop"
expect 'statistics in a folder that is not there' 0 1 'none/x\.json'
run OFFLOAD_RAM=32M OFFLOAD_STATS=/dev/full "$loop"
expect 'statistics to a full device' 0 1 '/dev/full'

# ---- kernels that refuse -------------------------------------------------------------
for mode in auto move copy; do
	run OFFLOAD_RAM=32M OFFLOAD_PAGER=$mode OFFLOAD_STATS="$dir/u.json" \
		"$nosys" userfaultfd -- "$loop"
	[ $st = 77 ] && { echo "no seccomp here"; break; }
	expect "no userfaultfd, $mode" 0 1 ''
	[ $mode = auto ] || expect "no userfaultfd, $mode" 0 1 "$mode"
	grep -q '"pager": *"hints"' "$dir/u.json" ||
		fail "no userfaultfd, $mode: the pager is not hints:" \
		     "$(grep -o '"pager":[^,]*' "$dir/u.json")"
done
run OFFLOAD_RAM=32M OFFLOAD_STATS="$dir/m.json" "$nosys" move -- "$loop"
expect 'no UFFDIO_MOVE' 0 1 ''
[ $st != 0 ] || grep -q '"pager": *"copy"' "$dir/m.json" ||
	fail "no UFFDIO_MOVE: the pager is not copy"
for io in auto io_uring; do
	run OFFLOAD_RAM=32M OFFLOAD_IO=$io OFFLOAD_STATS="$dir/i.json" \
		"$nosys" io_uring -- "$loop"
	expect "no io_uring, $io" 0 1 ''
	[ $st != 0 ] || grep -q '"io_engine": *"pread"' "$dir/i.json" ||
		fail "no io_uring, $io: the engine is not pread"
done
run OFFLOAD_RAM=32M "$nosys" userfaultfd io_uring move -- "$loop"
expect 'nothing at all' 0 2 ''
run OFFLOAD_RAM=32M OFFLOAD_DIRECT=off "$loop"
expect 'O_DIRECT off' 0 0 ''
if [ -w /dev/shm ]; then
	run OFFLOAD_RAM=32M "$B/preload/shm_file"
	expect 'no O_DIRECT on this file system' 0 1 ''
	run OFFLOAD_RAM=32M OFFLOAD_DIRECT=on "$B/preload/shm_file"
	expect 'O_DIRECT asked for where there is none' 0 1 ''
fi

# ---- budgets and files ------------------------------------------------------------------
run OFFLOAD_RAM=1 "$B/preload/tiny_budget"
expect 'one byte of budget' 0 1 'budget|OFFLOAD_RAM'
run OFFLOAD_RAM=32M "$B/preload/truncated"
expect 'truncated model' 0 1 'trap\.truncated.*(promises|truncated)'
run OFFLOAD_RAM=32M "$B/preload/touched"
expect 'touched model' 0 1 ''
run OFFLOAD_RAM=32M "$B/preload/changed"
expect 'changed model' 0 0 ''		# the message is the victim's
run OFFLOAD_RAM=32M "$B/preload/shortened"
expect 'shortened model' 0 0 ''
run OFFLOAD_RAM=32M "$B/preload/deleted"
expect 'deleted model' 0 0 ''

# Not a model at all: a large file that only begins like one.
{ printf 'GGUF'; head -c 40M /dev/urandom; } >"$dir/noise.gguf"
if command -v python3 >/dev/null; then
	run OFFLOAD_RAM=8M python3 -S -c "
import mmap, hashlib, sys
f = open('$dir/noise.gguf', 'rb')
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
want = hashlib.sha256(open('$dir/noise.gguf', 'rb').read()).digest()
sys.exit(any(hashlib.sha256(m).digest() != want for i in range(3)))"
	expect 'noise with the right magic' 0 1 ''
fi
exit $bad
