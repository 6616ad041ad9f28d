#!/bin/bash
# SPDX-License-Identifier: MIT
#
# sites.sh - who holds the memory: files by name, heap blocks by the function
# that asked for them, in the JSON and in what offctl prints; in the child of
# a fork; and the same without libunwind, where blocks have no name.
#
# Owns a scratch folder and the programs it starts; lock: none. The sizes are
# those of tests/preload/sites.c. Without libunwind: an empty file of its name
# is found first.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
offctl=$(realpath -m "$B")/offctl
command -v python3 >/dev/null || { echo "no python3"; exit 77; }
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
dir=$(mktemp -d "$(realpath "$B")/sites.XXXXXX") || exit 1
holder=
trap '[ -z "$holder" ] || kill "$holder" 2>/dev/null; rm -rf "$dir"' EXIT
unset LD_PRELOAD ${!OFFLOAD_*}
mkdir "$dir/none"
: >"$dir/none/libunwind-x86_64.so.8"
bad=0

fail() {
	echo "FAIL: $*"
	bad=1
}

# Under a small budget; more variables and the program follow.
run=(env TMPDIR="$dir" TRAP_CACHE="$dir" OFFLOAD_SPILL="$dir"
	OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=1M LD_PRELOAD="$lib")

# look FILE WHAT: what the JSON says of the sites. parent and child: all named
# by function; bare: nothing is, and the bytes are right all the same.
look() {
	python3 - "$1" "$2" <<-'PY'
	import json, sys
	j = json.load(open(sys.argv[1]))
	what, MIB, bad = sys.argv[2], 1 << 20, []
	s = j["sites"]
	def need(cond, text):
	    if not cond:
	        bad.append(text)
	def of(function):
	    mine = [x for x in s if x["name"].startswith("sites " + function + "+")]
	    return tuple(sum(x[k] for x in mine) for k in
	                 ("bytes", "blocks", "requests", "requested_bytes"))
	want = {
	    "site_weights": (48 * MIB, 2, 3, 72 * MIB),
	    "site_cache": (32 * MIB, 2, 1, 40 * MIB),
	    "site_gone": (0, 0, 1, 30 * MIB),
	    "site_left": (0, 0, 20, 40 * MIB),
	    "site_right": (0, 0, 20, 60 * MIB),
	    "site_child": (0, 0, 0, 0),
	}
	if what == "child":
	    want["site_child"] = (7 * MIB, 1, 1, 7 * MIB)
	held = 89 * MIB + (7 * MIB if what == "child" else 0)
	if what == "bare":
	    need({x["name"] for x in s} <= {"early", "unnamed"}, "there are names")
	    need(any(x["name"] == "unnamed" for x in s), "nothing is unnamed")
	else:
	    for f, w in want.items():
	        need(of(f) == w, f"{f} is {of(f)}, not {w}")
	    need(of("site_scratch")[:2] == (9 * MIB, 1), "site_scratch")
	need(all(x["kind"] == "heap" for x in s), "no file was mapped")
	need(sum(x["bytes"] for x in s) == held, "the sum of bytes")
	need(s == sorted(s, key=lambda x: -x["bytes"]), "not the largest first")
	need(j["host"]["evictions"] > 0, "no evictions")
	for b in bad:
	    print("FAIL:", what + ":", b, "in", s)
	sys.exit(bool(bad))
	PY
}

# A file of 48 MiB, mapped twice, by its name.
files() {
	head -c 48M /dev/zero >"$dir/with \"quotes\".bin"
	cat >"$dir/map.py" <<-'PY'
	import mmap, os, sys
	f = open(sys.argv[1], "rb")
	maps = [mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) for i in (1, 2)]
	os._exit(any(m[i] for m in maps for i in range(0, len(m), 4096)))
	PY
	"${run[@]}" OFFLOAD_FILES='*.bin' OFFLOAD_STATS="$dir/file.json" \
		python3 "$dir/map.py" "$dir/with \"quotes\".bin" >"$dir/out" 2>&1 ||
		fail "files: status $?: $(cat "$dir/out")"
	python3 - "$dir" <<-'PY' || fail "files: $(cat "$dir/file.json")"
	import json, sys
	s = [x for x in json.load(open(sys.argv[1] + "/file.json"))["sites"]
	     if x["kind"] == "file"]
	assert [(x["bytes"], x["blocks"]) for x in s] == [(96 << 20, 2)], s
	assert s[0]["name"].endswith('with "quotes".bin'), s
	PY
}

# wait_for TEXT: until offctl shows it of the holder, 30 s at most.
wait_for() {
	local n=0

	until "$offctl" stats --json $holder 2>/dev/null | grep -q "$1"; do
		n=$((n + 1))
		[ $n -lt 300 ] || { fail "offctl stats never shows $1"; return; }
		sleep 0.1
	done
}

# While it runs: the keeper shows them, and offctl to people too.
running() {
	mkfifo "$dir/hold"
	"${run[@]}" SITES_WAIT=libunwind-x86_64 "$B/preload/sites" hold <"$dir/hold" \
		>"$dir/out" 2>&1 &
	holder=$!
	exec 8>"$dir/hold"
	wait_for '"name":"sites site_scratch+[^}]*"bytes":9437184,"blocks":1,'
	wait_for '"name":"sites site_gone+[^}]*"bytes":0,"blocks":0,'
	"$offctl" stats $holder >"$dir/human"
	grep -Eq '48\.00 MiB +2 +heap +sites site_weights\+0x' "$dir/human" ||
		fail "offctl stats: $(cat "$dir/human")"
	exec 8>&-
	wait $holder || fail "holder: status $?: $(cat "$dir/out")"
	holder=
}

for mode in move copy; do
	"${run[@]}" OFFLOAD_PAGER=$mode OFFLOAD_STATS="$dir/$mode.%p" \
		SITES_WAIT=libunwind-x86_64 "$B/preload/sites" \
		>"$dir/out" 2>&1 || fail "$mode: status $?: $(cat "$dir/out")"
	set -- "$dir/$mode".*
	if ! grep -q "\"pager\":\"$mode\"" "$@"; then
		echo "mode $mode is not to be had here"
		continue
	fi
	[ $# = 2 ] || fail "$mode: $# files of statistics, not 2"
	for f; do
		case $(<"$f") in
		*site_child*)	look "$f" child || bad=1 ;;
		*)		look "$f" parent || bad=1 ;;
		esac
	done
	"${run[@]}" OFFLOAD_PAGER=$mode OFFLOAD_STATS="$dir/bare.json" \
		LD_LIBRARY_PATH="$dir/none" "$B/preload/sites" \
		>"$dir/out" 2>&1 || fail "bare $mode: status $?: $(cat "$dir/out")"
	look "$dir/bare.json" bare || bad=1
done
files
running
exit $bad
