#!/bin/bash
# SPDX-License-Identifier: MIT
#
# stats.sh - the statistics of a run: valid JSON, every documented key, and
# figures that fit what the program did.
#
# Owns a scratch folder; lock: none. A program reads a 64 MiB file six times
# with 32 MiB to hold it: figures below are what any right pager must show.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
command -v python3 >/dev/null || { echo "no python3"; exit 77; }
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
dir=$(mktemp -d "$(realpath "$B")/stats.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0

fail() {
	echo "FAIL: $*"
	bad=1
}

# loop NAME=VALUE...: one run.
loop() {
	env TMPDIR="$dir" TRAP_CACHE="$dir" OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=1M \
		"$@" LD_PRELOAD="$lib" "$B/preload/loop"
}

look() {
	python3 - "$1" "$2" <<-'PY'
	import json, sys
	j = json.load(open(sys.argv[1]))
	keys = {
	    "budget": "ram_bytes vram_bytes spill_bytes",
	    "host": "regions spans managed_bytes plain_bytes packed_bytes "
	            "packed_raw_bytes spilled_bytes absent_bytes staging_bytes "
	            "metadata_bytes peak_ram_bytes evictions",
	    "io": "read_bytes written_bytes errors",
	    "faults": "demand milestone stall_ns",
	    "prefetch": "issued late wasted",
	    "tape": "passes period_chunks last_pass_read_bytes "
	            "last_pass_bound_bytes",
	}
	bad = []
	def need(cond, text):
	    if not cond:
	        bad.append(text)
	for group, names in keys.items():
	    for n in names.split():
	        v = j.get(group, {}).get(n)
	        need(type(v) is int and v >= 0, f"{group}.{n} is {v!r}")
	need(j.get("schema") == 1, "schema is not 1")
	need(type(j.get("pid")) is int and j["pid"] > 1, "pid")
	need("loop" in str(j.get("command")), "command does not name the program")
	need(isinstance(j.get("uptime_s"), (int, float)), "uptime_s")
	need(isinstance(j.get("io_engine"), str), "io_engine")
	need(j.get("devices") == [], "devices")
	mode = sys.argv[2]
	if mode == "off":
	    need(j["host"]["evictions"] == 0, "evictions in mode off")
	    need(j["io"]["read_bytes"] == 0, "reads in mode off")
	elif not bad:
	    need(j["pager"] == mode, f"pager is {j['pager']}, not {mode}")
	    need(j["host"]["evictions"] > 0, "no eviction")
	    need(j["budget"]["ram_bytes"] == 32 << 20, "budget.ram_bytes")
	    need(j["io"]["errors"] == 0, "io.errors")
	    need(j["io"]["written_bytes"] == 0, "weights were written (R5)")
	    need(j["host"]["peak_ram_bytes"] <= 48 << 20, "peak_ram_bytes")
	if mode in ("move", "copy") and not bad:
	    need(j["io"]["read_bytes"] >= 96 << 20, "io.read_bytes")
	    need(j["faults"]["demand"] + j["faults"]["milestone"] > 0, "faults")
	for b in bad:
	    print("FAIL:", mode + ":", b)
	sys.exit(bool(bad))
	PY
}

for mode in move copy hints off; do
	loop OFFLOAD_STATS="$dir/$mode.json" OFFLOAD_PAGER=$mode \
		>"$dir/out" 2>"$dir/err" || fail "$mode: status $?: $(cat "$dir/err")"
	[ -s "$dir/out" ] && fail "$mode: it wrote to stdout"
	if [ -s "$dir/$mode.json" ]; then
		if [ "$mode" = move ] && ! grep -q '"pager": *"move"' "$dir/move.json"
		then
			echo "mode move is not to be had here"
			continue
		fi
		look "$dir/$mode.json" $mode || bad=1
	else
		fail "$mode: no statistics"
	fi
done

# While a file is mapped: what is absent, and what the tables for it take. mapped MODE DISK:
# by how fast the disk is said to be, nothing of it is packed, or some, and used as well.
mapped() {
	env OFFLOAD_RAM=32M OFFLOAD_PAGER="$1" OFFLOAD_DISK="$2" LD_PRELOAD="$lib" \
		python3 - "$B/offctl" "$dir/bf16.model" <<-'PY'
	import json, mmap, os, subprocess, sys, time
	f = open(sys.argv[2], "rb")
	m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
	for i in range(4):
	    n = sum(m[at] for at in range(0, len(m), 4096))
	env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
	def host():
	    out = subprocess.run([sys.argv[1], "stats", "--json", str(os.getpid())],
	                         env=env, capture_output=True, text=True).stdout
	    return json.loads(out)["host"]
	h = host()
	if os.environ["OFFLOAD_DISK"] == "100G":
	    least = len(m) - (32 << 20)
	    if h["packed_raw_bytes"] or not least <= h["absent_bytes"] < len(m):
	        sys.exit(f"absent_bytes {h['absent_bytes']}, at least {least} cannot be there")
	else:	# what is packed and was just used is in memory twice, and not twice not absent
	    for at in range(0, len(m), 2 << 20):
	        n += m[at]
	        time.sleep(0.2)
	        h = host()
	        if h["packed_raw_bytes"] and sum(h[k + "_bytes"] for k in (
	                "absent", "packed_raw", "plain", "staging")) > h["managed_bytes"]:
	            break
	    else:
	        sys.exit(f"nothing packed was in place as well: {h}")
	if not 0 < h["metadata_bytes"] < 1 << 20:
	    sys.exit(f"metadata_bytes {h['metadata_bytes']}")
	PY
}

"$B/mkmodel" --layers=8 --dim=512 --ff=2048 --vocab=2000 --type=bf16 "$dir/bf16.model" \
	>/dev/null || fail "no model"
for mode in move copy; do
	grep -q "\"pager\": *\"$mode\"" "$dir/$mode.json" || continue
	for disk in 100G 20M; do
		mapped $mode $disk 2>"$dir/err" || fail "mapped, $mode, $disk: $(cat "$dir/err")"
	done
done

# OFFLOAD_PROGRAMS: in others nothing is done, so there is nothing to tell.
loop OFFLOAD_STATS="$dir/p.json" OFFLOAD_PROGRAMS='loo?' 2>"$dir/err"
grep -q '"evictions":[1-9]' "$dir/p.json" || fail "OFFLOAD_PROGRAMS=loo?: loop is not among them"
rm -f "$dir/p.json"
loop OFFLOAD_STATS="$dir/p.json" OFFLOAD_PROGRAMS=other 2>"$dir/err"
! grep -q '"evictions":[1-9]' "$dir/p.json" 2>/dev/null || fail "OFFLOAD_PROGRAMS=other: loop is"

# A tape of a run can be replayed: what ran, at least, and the optimum is no more.
loop OFFLOAD_TRACE="$dir/tape" OFFLOAD_PAGER=move 2>"$dir/err" || fail "trace: $(cat "$dir/err")"
"$B/offctl" simulate "$dir/tape" >"$dir/out" 2>&1 || fail "simulate: $(cat "$dir/out")"
awk '$1 == "belady" { b = $3 } $1 == "live" { l = $3 }
	END { exit !(b >= 32 && l >= b) }' "$dir/out" || fail "simulate says: $(cat "$dir/out")"

# OFFLOAD_STATS=1: a short summary for people, on stderr alone.
loop OFFLOAD_STATS=1 >"$dir/out" 2>"$dir/err" || fail "summary: status $?"
[ -s "$dir/out" ] && fail "the summary is on stdout"
[ -s "$dir/err" ] || fail "OFFLOAD_STATS=1 says nothing"
[ "$(wc -l <"$dir/err")" -le 20 ] || fail "the summary is longer than 20 lines"
[ -e 1 ] && { fail "OFFLOAD_STATS=1 made a file named 1"; rm -f 1; }

# The table of those who share a limit: made, which the folder's time shows,
# and removed by the last.
mkdir -p "$dir/root/dev/shm"
ln -s /proc /sys "$dir/root/"
touch -d 2000-01-01 "$dir/root/dev/shm"
loop OFFLOAD_SYSROOT="$dir/root" 2>"$dir/err" ||
	fail "with a root: $(cat "$dir/err")"
[ "$(date -r "$dir/root/dev/shm" +%Y)" -gt 2000 ] || fail "no table was made"
rmdir "$dir/root/dev/shm" 2>/dev/null || fail "a table stays: $(ls "$dir/root/dev/shm")"

# A heap that is paged is the library's own from that moment on, no one else's: else its
# budget is what is left beside it, for a moment, and nearly all of it goes.
group=$dir/v1/sys/fs/cgroup/memory
cp -r tests/data/sysroot/v1-container "$dir/v1"
mkdir -p "$dir/v1/dev/shm"
echo $((370 << 20)) >"$group/memory.limit_in_bytes"
echo $((40 << 20)) >"$group/memory.usage_in_bytes"
sed -i 's/ [0-9]*$/ 0/' "$group/memory.stat"
OFFLOAD_SYSROOT=$dir/v1 OFFLOAD_VERBOSE=1 LD_PRELOAD=$lib python3 -c '
import sys
a = bytearray(b"x") * (240 << 20)
with open(sys.argv[1], "w") as f:
    f.write(str(300 << 20))
b = bytearray(b"y") * (100 << 20)
print(a[::4096].count(b"x"), b[::4096].count(b"y"))
' "$group/memory.usage_in_bytes" >"$dir/out" 2>"$dir/err" || fail "paged heap: $(cat "$dir/err")"
if grep -q 'heap: .* paged' "$dir/err"; then
	[ "$(cat "$dir/out")" = "61440 25600" ] || fail "paged heap: $(cat "$dir/out")"
	grep 'is very small' "$dir/err" && fail "its own heap is others' to it"
else
	grep -q 'cannot be paged' "$dir/err" || fail "no heap was paged: $(cat "$dir/err")"
fi

# A model that just fits, mapped, fills the group: what the kernel can drop of it leaves the
# heap as it is. Where others' own memory fills it, or shared memory (mapped, on no list of
# file pages), the heap gives way.
echo $((365 << 20)) >"$group/memory.usage_in_bytes"
for mib in '300 300' '0 0' '300 0'; do
	read -r mapped files <<<"$mib"
	sed -i "s/^total_mapped_file .*/total_mapped_file $((mapped << 20))/
		s/^total_active_file .*/total_active_file $((files << 20))/" "$group/memory.stat"
	OFFLOAD_SYSROOT=$dir/v1 OFFLOAD_VERBOSE=1 LD_PRELOAD=$lib python3 -c '
a = bytearray(b"x") * (60 << 20)
b = bytearray(b"y") * (30 << 20)
print(a[::4096].count(b"x"), b[::4096].count(b"y"))
' >"$dir/out" 2>"$dir/err" || fail "mapped $mib: $(cat "$dir/err")"
	[ "$(cat "$dir/out")" = "15360 7680" ] || fail "mapped $mib: $(cat "$dir/out")"
	was=$(grep -cE 'heap: .* paged|cannot be paged' "$dir/err")
	[ "$was" = $((files == 0)) ] || fail "mapped $mib: $was heaps paged: $(cat "$dir/err")"
done
exit $bad
