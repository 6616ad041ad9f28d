#!/bin/bash
# SPDX-License-Identifier: MIT
#
# account.sh - what a program does on the driver is counted exactly, and nothing of
# what it gets changes.
#
# Owns a scratch folder; lock: none. Scenarios of tests/cuda/account.c on the emulated
# driver: they say what must have been counted. ACCOUNT_ONLY: some of them.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
account=$(realpath -m "$B")/cuda/account
[ "$(uname -m)" = x86_64 ] || { echo "look-ups are hooked on x86-64 only"; exit 77; }
command -v python3 >/dev/null || { echo "no python3"; exit 77; }
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0
export EMU_GRANULARITY=64K EMU_VRAM=256M

fail() {
	echo "FAIL: $*"
	bad=1
}

# compare SCENARIO JSON PLACED: the figures it wants against those that were counted. What
# is placed by us (1) is resident or not as it comes.
compare() {
	python3 - "$1" "$2" "$dir/with" "$3" <<-'PY'
	import json, sys
	name, path, out, placed = sys.argv[1:]
	devices = json.load(open(path))["devices"]
	bad = 0
	for line in open(out):
	    if not line.startswith("want "):
	        continue
	    _, dev, key, n = line.split()
	    if placed == "1" and key == "resident_bytes":
	        continue
	    got = {d["id"]: d for d in devices}.get(int(dev), {}).get(key)
	    if got != int(n):
	        print(f"FAIL: {name}: device {dev}: {key} is {got}, not {n}")
	        bad = 1
	for d in devices:
	    if not d["name"] or d["vram_bytes"] != 256 << 20 or d["budget_bytes"] > d["vram_bytes"]:
	        print(f"FAIL: {name}: {d['name']!r}: {d['vram_bytes']}")
	        bad = 1
	    if placed == "1":
	        continue
	    for key in ("host_home_bytes", "packed_bytes", "stall_ns", "patched", "drains"):
	        bad |= d[key] != 0
	    bad |= d["prefetch"] != {"issued": 0, "late": 0, "wasted": 0}
	sys.exit(bad)
	PY
}

scenario() {
	local devices=1

	case $1 in two_devices | pushed | pools_elsewhere) devices=2 ;; esac
	export EMU_DEVICES=$devices EMU_FAIL=
	[ "$1" = kept ] && EMU_FAIL=cuMemFree_v2:1:999,cuMemFreeHost:1:999
	"$account" "$1" >"$dir/without" 2>"$dir/err" ||
		fail "$1, without: $(tail -n 1 "$dir/err")"
	OFFLOAD_STATS=$dir/$1.json LD_PRELOAD=$lib "$account" "$1" >"$dir/with" 2>"$dir/err" ||
		fail "$1, with: $(tail -n 1 "$dir/err")"
	[ -s "$dir/err" ] && fail "$1 says: $(tail -n 1 "$dir/err")"
	cmp -s "$dir/without" "$dir/with" ||
		fail "$1: $(diff "$dir/without" "$dir/with" | head -n 5)"
	compare "$1" "$dir/$1.json" 0 || bad=1
	# The same where most of it has a home on the host; and where only whole regions have.
	ways=('OFFLOAD_TORTURE=5 EMU_SPAN=0')
	case $1 in
	kept | told | registered | pushed) return ;;
	slyly) ways+=('OFFLOAD_STAGE=safe EMU_DELAY_US=400' 'OFFLOAD_STAGE=safe OFFLOAD_TORTURE=1') ;;
	places) ways+=(EMU_SPAN=0 EMU_MIX=0 EMU_HOST_VMM=0) ;;
	plain_copies | blocks | batches | contexts) ways+=(EMU_SPAN=0 EMU_HOST_VMM=0) ;;
	esac
	case $1 in
	slyly | added | contexts | unloaded | forked | two_devices | blocks | batches)
		ways+=("OFFLOAD_DEVICE_DEEP=1 OFFLOAD_TORTURE=11 EMU_SPAN=0 OFFLOAD_SPILL=$dir") ;;
	esac
	for set in "${ways[@]}"; do
		# shellcheck disable=SC2086
		env $set OFFLOAD_VRAM=300K PLACED=1 OFFLOAD_STATS="$dir/$1.json" LD_PRELOAD="$lib" \
			"$account" "$1" >"$dir/with" 2>"$dir/err" ||
			fail "$1, placed, $set: $(tail -n 1 "$dir/err")"
		cmp -s "$dir/without" "$dir/with" ||
			fail "$1, placed, $set: $(diff "$dir/without" "$dir/with" | head -n 5)"
		compare "$1, placed, $set" "$dir/$1.json" 1 || bad=1
		[[ $1 != slyly || $set != *DEEP* ]] || grep -q '"spill_in_bytes":[1-9]' "$dir/$1.json" ||
			fail "$1, $set: nothing was spilled"
		[[ $set != OFFLOAD_STAGE=safe\ EMU* ]] || grep -q '"staged_bytes":[1-9]' "$dir/$1.json" ||
			fail "$1, $set: nothing was staged"
		[ "$1" != places ] || grep -q '"host_peak_bytes":[1-9]' "$dir/$1.json" ||
			fail "$1, $set: nothing was placed on the host"
	done
}

for s in ${ACCOUNT_ONLY:-$("$account")}; do scenario "$s"; done

# told NAME=VALUE...: total (by two ways), free, free once another MiB is taken.
told() {
	env "$@" LD_PRELOAD="$lib" "$account" told | sed -n 's/^told //p'
}

export EMU_DEVICES=1
m=$((1 << 20))
for set in OFFLOAD_DEVICE=off OFFLOAD_REPORT=vram; do
	[ "$(told OFFLOAD_VRAM=64M $set)" = "$((64 * m)) $((64 * m)) $((61 * m)) $((60 * m))" ] ||
		fail "OFFLOAD_VRAM=64M $set tells $(told OFFLOAD_VRAM=64M $set)"
done
[ "$(told OFFLOAD_VRAM=2M OFFLOAD_DEVICE=off)" = "$((2 * m)) $((2 * m)) 0 0" ] ||
	fail "OFFLOAD_VRAM=2M tells $(told OFFLOAD_VRAM=2M OFFLOAD_DEVICE=off)"
# The pool: 32M of the host beside it, and what does not fit the device is in them.
[ "$(told OFFLOAD_VRAM=64M OFFLOAD_RAM=32M)" = "$((96 * m)) $((96 * m)) $((93 * m)) $((92 * m))" ] ||
	fail "a pool of 64M and 32M tells $(told OFFLOAD_VRAM=64M OFFLOAD_RAM=32M)"
[ "$(told OFFLOAD_VRAM=2M OFFLOAD_RAM=32M)" = "$((34 * m)) $((34 * m)) $((31 * m)) $((30 * m))" ] ||
	fail "a pool of 2M and 32M tells $(told OFFLOAD_VRAM=2M OFFLOAD_RAM=32M)"
# It is the same whatever the host's memory is used for meanwhile.
OFFLOAD_VRAM=2M TOLD_AGAIN=1 LD_PRELOAD=$lib "$account" told | grep -q '^again 1' ||
	fail "the pool's total changes"
# Handles that are kept for later are nobody's.
got=$(OFFLOAD_VRAM=64M OFFLOAD_RAM=64M LD_PRELOAD=$lib "$account" given_back)
[ "$got" = "given_back $((128 * m)) $((128 * m))" ] || fail "kept handles: $got"
# More than both together can hold is refused as the driver refuses; less is not.
for n in 1 3 6 7 9; do
	got=$(env OFFLOAD_VRAM=2M OFFLOAD_RAM=6M LD_PRELOAD="$lib" "$account" admitted $n | grep '^admitted')
	[ "$got" = "admitted $n $((n > 7 ? 2 : 0))" ] || fail "2M and 6M: $got"
done
plain="$((256 * m)) $((256 * m)) $((253 * m)) $((252 * m))"
for set in 'OFFLOAD_VRAM=64G OFFLOAD_REPORT=vram' OFFLOAD_VRAM= 'OFFLOAD_VRAM=64M OFFLOAD_REPORT=physical'; do
	# shellcheck disable=SC2086
	[ "$(told $set)" = "$plain" ] || fail "$set tells $(told $set), not $plain"
done

# managed NAME=VALUE...: total, free and used by the management library; and again, what
# is reserved among them.
managed() {
	env "$@" LD_PRELOAD="$lib" NVML_LIB="$(realpath "$B")/cuda/nvml/libnvidia-ml.so.1" \
		"$account" told | sed -n 's/^managed //p'
}

export OFFLOAD_DEVICE=off
small="$((64 * m)) $((60 * m)) $((4 * m)); $((64 * m)) $m $((60 * m)) $((3 * m))"
plain="$((256 * m)) $((200 * m)) $((56 * m)); $((256 * m)) $m $((200 * m)) $((55 * m))"
[ "$(managed OFFLOAD_VRAM=64M)" = "$small" ] || fail "managed: $(managed OFFLOAD_VRAM=64M)"
[ "$(managed OFFLOAD_VRAM=)" = "$plain" ] || fail "managed: $(managed OFFLOAD_VRAM=)"
[ "$(managed OFFLOAD_VRAM=64M OFFLOAD_REPORT=physical)" = "$plain" ] ||
	fail "managed, physical: $(managed OFFLOAD_VRAM=64M OFFLOAD_REPORT=physical)"

unset OFFLOAD_DEVICE

# Memory that the library pages, registered with the driver.
got=$(OFFLOAD_RAM=32M OFFLOAD_WINDOW=4M OFFLOAD_HOST_MIN=1M OFFLOAD_PAGER=copy \
	OFFLOAD_STATS=$dir/reg.json \
	LD_PRELOAD=$lib "$account" registered 2>"$dir/err" | grep '^registered')
if ! grep -q '"pager":"copy"' "$dir/reg.json"; then
	echo "mode copy is not to be had here: registered memory is not asked"
elif [ "$got" != 'registered 0 2' ]; then
	fail "registered: $got: $(tail -n 1 "$dir/err")"
fi
[ "$("$account" registered | grep '^registered')" = 'registered 0 0' ] ||
	fail "registered, without"

# The tape: regions, copies and launches with what their arguments reach; as the driver
# tells it, and where it does not (before 12.4) as the image says.
on_tape() {
	[ "$(grep -cE "^device 0 $2\$" "$dir/tape")" = "$1" ] || fail "tape, driver $driver: not" \
		"$1 of $2: $(grep -cE "^device 0 $2\$" "$dir/tape")"
}
for driver in 13000 12020 "12020 MODULE_FILE=$dir/module.ptx"; do
	# shellcheck disable=SC2086
	env EMU_DRIVER=$driver OFFLOAD_TRACE=$dir/tape LD_PRELOAD=$lib "$account" launches \
		>"$dir/out" 2>"$dir/err" || fail "with a tape: $(tail -n 1 "$dir/err")"
	head -n 1 "$dir/tape" | grep -q '^offload-tape 1 ' ||
		fail "tape: $(head -n 1 "$dir/tape")"
	on_tape 1 'region 0 [0-9a-f]+ 4096 plain'
	on_tape 14 'launch 0 bump 0\+0'	# two of them are refused
	on_tape 2 'node bump 0\+0'
	on_tape 2 'launch 0 within 0\+64'
	on_tape 2 'launch 0 nothing'
	on_tape 1 'copy set 4096 0\+0'
	on_tape 1 'copy d2h 4096 0\+0'
done
"$B/offctl" simulate "$dir/tape" >"$dir/out" 2>&1
grep -qi 'line' "$dir/out" && fail "offctl simulate on it: $(cat "$dir/out")"
exit $bad
