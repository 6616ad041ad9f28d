#!/bin/bash
# SPDX-License-Identifier: MIT
#
# security.sh - what others can see of a process, and what is left of it.
#
# Owns a scratch folder; lock: none. A program (helper_secret) spills memory with
# a secret in each page: the raw file behind its descriptor is looked at.
# (1) With OFFLOAD_ENCRYPT=1 the secret is not in the file, without it is; a bit that is
#     changed there stops the process with a message (R4).
# (2) The file has no name and is its owner's alone.
# (3) After SIGKILL no file, no cgroup and no shared memory is left, but the table of
#     sharers, which the next process of that table takes away.
# (4) A symbolic link under a name that is to be written is refused, in one line.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
dir=$(mktemp -d "$(realpath "$B")/security.XXXXXX") || exit 1
pid=
trap '[ -z "$pid" ] || kill -9 $pid; rm -rf "$dir"' EXIT
bad=0
mkdir -p "$dir/spill" "$dir/root/dev/shm"
ln -s /proc /sys "$dir/root/"

fail() {
	echo "FAIL: $*"
	bad=1
}

settings="OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=1M OFFLOAD_PAGER=copy
	OFFLOAD_SPILL=$dir/spill OFFLOAD_SYSROOT=$dir/root"

# begin NAME=VALUE...: the program, until it is ready. $pid; $file: the spill file.
begin() {
	rm -f "$dir/in" "$dir/out"
	mkfifo "$dir/in" "$dir/out"
	# shellcheck disable=SC2086
	env $settings "$@" LD_PRELOAD="$lib" "$B/preload/helper_secret" \
		<"$dir/in" >"$dir/out" 2>"$dir/err" &
	pid=$!
	exec 8>"$dir/in" 9<"$dir/out"
	read -r line <&9
	[ "$line" = ready ] || fail "the program did not get ready: $(cat "$dir/err")"
	file=$(find /proc/$pid/task/*/fd -lname "$dir/spill/*" 2>/dev/null | head -n 1)
	[ -n "$file" ] || fail "nothing was spilled: $(cat "$dir/err")"
}

# ends [killed]: its status in $status.
ends() {
	[ -n "$1" ] || echo go >&8
	exec 8>&- 9<&-
	wait $pid 2>/dev/null
	status=$?
	pid=
}

holds_secret() {
	dd if="$file" bs=1M 2>/dev/null | grep -aq 'attack at dawn, says nobody'
}

# One bit in every chunk of the file: whichever comes back first.
flip() {
	python3 - "$file" <<-'PY'
	import os, sys
	fd = os.open(sys.argv[1], os.O_RDWR)
	for at in range(4096 + 77, os.fstat(fd).st_size, 2 << 20):
	    b = os.pread(fd, 1, at)
	    os.pwrite(fd, bytes([b[0] ^ 8]), at)
	os.fsync(fd)
	PY
}

command -v python3 >/dev/null || { echo "no python3"; exit 77; }

# ---- the spill file
for encrypt in 0 1; do
	begin OFFLOAD_ENCRYPT=$encrypt
	[ "$(stat -L -c '%a %h %u' "$file")" = "600 0 $(id -u)" ] ||
		fail "the spill file: $(stat -L -c '%a, %h names, of %u' "$file")"
	[ -z "$(ls -A "$dir/spill")" ] || fail "it has a name: $(ls -A "$dir/spill")"
	case $encrypt in
	0)	holds_secret || fail "the secret is not in the file: nothing is shown by this" ;;
	1)	holds_secret && fail "the secret is in the encrypted file" ;;
	esac
	ends
	[ "$status" = 0 ] || fail "encrypt=$encrypt: status $status: $(cat "$dir/err")"
done
for encrypt in 0 1; do
	begin OFFLOAD_ENCRYPT=$encrypt
	flip
	ends
	[ "$status" = 134 ] || fail "encrypt=$encrypt, bits changed: status $status"
	want="the heap at 0x[0-9a-f]*\.\.0x[0-9a-f]* cannot be had back from the spill file in $dir/spill: what was read is not what was written .*; the program is stopped rather than shown wrong bytes; see what the kernel says of that disk"
	grep -q "$want" "$dir/err" || fail "no message: $(cat "$dir/err")"
	[ $encrypt = 0 ] || grep -q "(encryption's tag)" "$dir/err" || fail "not by its tag"
	[ "$(grep -c '^offload' "$dir/err")" = 1 ] || fail "not one message: $(cat "$dir/err")"
done

# ---- SIGKILL
groups() {
	local at

	at=$(sed -n 's/^[0-9]*:memory:\|^0:://p' /proc/self/cgroup | head -n 1)
	find "/sys/fs/cgroup/memory$at" "/sys/fs/cgroup$at" -mindepth 1 -type d 2>/dev/null | wc -l
}
had=$(groups)
begin OFFLOAD_ENCRYPT=1 OFFLOAD_STATS="$dir/stats.json" OFFLOAD_TRACE="$dir/tape"
kill -9 $pid
ends killed
[ "$status" = 137 ] || fail "SIGKILL: status $status"
[ -z "$(ls -A "$dir/spill")" ] || fail "a file stays: $(ls -A "$dir/spill")"
[ ! -e "$dir/stats.json" ] || fail "statistics of a killed process"
[ "$(stat -c %a "$dir/tape")" = 600 ] || fail "the tape: $(stat -c %a "$dir/tape")"
[ "$(groups)" -le "$had" ] || fail "a cgroup stays"
env $settings OFFLOAD_STATS="$dir/stats.json" LD_PRELOAD="$lib" "$B/preload/helper_secret" \
	<<<go >/dev/null 2>"$dir/err" || fail "after a kill: $(cat "$dir/err")"
[ -z "$(ls -A "$dir/root/dev/shm")" ] || fail "a table stays: $(ls "$dir/root/dev/shm")"
[ "$(stat -c %a "$dir/stats.json")" = 600 ] ||
	fail "the statistics: $(stat -c %a "$dir/stats.json")"

# ---- names that others planted
echo precious >"$dir/kept"
for option in STATS TRACE; do
	ln -sf "$dir/kept" "$dir/link"
	begin OFFLOAD_$option="$dir/link"
	ends
	[ "$status" = 0 ] || fail "$option, a link: status $status"
	[ "$(cat "$dir/kept")" = precious ] || fail "$option: written through a link"
	[ "$(grep -c "OFFLOAD_$option=$dir/link: is a symbolic link" "$dir/err")" = 1 ] &&
		[ "$(grep -c ^offload "$dir/err")" = 1 ] ||
		fail "$option, a link: $(cat "$dir/err")"
done
exit $bad
