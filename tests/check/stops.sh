#!/bin/bash
# SPDX-License-Identifier: MIT
#
# stops.sh - where the library must stop the process (R4): each cause made to happen,
# its message read. docs/stops.md has the same list, which is compared.
#
# Owns nothing but what tests/fault/nth.c does; lock: none. Each message is one line that
# names the region, what was to give the bytes, what failed, and what to do.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
[ -x "$B/fault/nth" ] || { echo "FAIL: $B/fault/nth is missing"; exit 1; }
bad=0 n=0
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT

# stop WORK VARIANT SITE N once|always MESSAGE: an ERE of all of the message.
stop() {
	n=$((n + 1))
	"$B/fault/nth" one "$1" "$2" "$3" "$4" "$5" >"$out" 2>&1
	if grep -q "^mode .* is not to be had here" "$out"; then
		return
	elif grep -q '^LOSS' "$out"; then
		echo "FAIL: $1 $2 $3 $4 $5: $(cat "$out")"
		bad=1
	elif ! grep -q ' 1 stopped by message' "$out"; then
		echo "FAIL: $1 $2 $3 $4 $5 did not stop it: $(cat "$out")"
		bad=1
	elif ! grep -Eq "^offload\[[0-9]+\]: $6$" "$out"; then
		echo "FAIL: $1 $2 $3 $4 $5: no message as '$6': $(cat "$out")"
		bad=1
	fi
	grep -Fq "$SITE_TEXT" docs/stops.md || { echo "FAIL: docs/stops.md lacks: $SITE_TEXT"; bad=1; }
}

heap='the heap at 0x[0-9a-f]+\.\.0x[0-9a-f]+ cannot be had back from'
rather='the program is stopped rather than shown wrong bytes'
disk='see what the kernel says of that disk, or set OFFLOAD_SPILL to another'

SITE_TEXT='its packed copy in memory: it is damaged (checksum)'
stop heap move POOL_FLIP 1 always "$heap its packed copy in memory: it is damaged \(checksum\); $rather; test this machine's memory, or the program with OFFLOAD_PAGER=off for stray writes"
SITE_TEXT='what was read is not what was written (checksum)'
stop heap move SPILL_WRITE_TORN 1 always "$heap the spill file in /[^ ]*: what was read is not what was written \(checksum\); $rather; $disk"
SITE_TEXT="what was read is not what was written (encryption's tag)"
stop heap move.encrypt SPILL_WRITE_FLIP 1 always "$heap the spill file in /[^ ]*: what was read is not what was written \(encryption's tag\); $rather; $disk"
SITE_TEXT='the spill file in FOLDER: Input/output error'
stop heap copy SPILL_READ 1 always "$heap the spill file in /[^ ]*: Input/output error; $rather; $disk"
SITE_TEXT='its descriptor did not come over a fork'
stop heap move SPILL_FDS 20 always "$heap the spill file in /[^ ]*: its descriptor did not come over a fork; $rather; $disk"
SITE_TEXT='it was changed or cannot be read'
stop heap copy ORIGIN_READ 4 always "$heap the file it was read from, file: it was changed or cannot be read; $rather; replace files by rename, not in place, while programs use them"
SITE_TEXT='of FILE cannot be produced'
stop file move FILE_READ 1 always "region 0x[0-9a-f]+: bytes [0-9]+\.\.[0-9]+ of file cannot be produced: Input/output error; $rather; see that the file is whole and its disk well, and replace files by rename"
for thread in pager keeper work; do
	SITE_TEXT="the library's thread offload-$thread was ended"
	site=${thread^^}
	stop heap move "${site/WORK/WORKER}_DIES" 1 once "the library's thread offload-$thread was ended, by a filter .* run with OFFLOAD_PAGER=off"
done
[ "$n" -ge 10 ] || { echo "FAIL: $n causes"; bad=1; }
exit $bad
