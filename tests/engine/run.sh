#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh - the engine and the random program, without and with the library.
#
#     tests/engine/run.sh quick    on the emulated driver
#     tests/engine/run.sh long     the same, 1000 seeds of the random program
#     tests/engine/run.sh gpu      as quick, on the machine's own driver; one line
#                                  where there is none
#
# Owns build/engine/run (models, outputs). A line per test; how many passed, failed
# and were skipped goes to build/engine.counts.
#
# (1) The engine prints what the processor computes, to the bit, whatever its options.
# (2) The random program compares all memory with its model by itself, and prints a
#     hash that the library may not change.
# (3) The same where OFFLOAD_VRAM holds a part of it, on a card that has little more: what
#     is placed in host memory, moved, and moved for no reason changes no bit.
# (4) The same with more weights than device and host together may hold, where the rest is
#     in a spill file (OFFLOAD_DEVICE_DEEP); without that the run fails. What cannot be
#     bounded fails too, with a line that says so, and never with another answer.
# (5) A fault that is asked for (TEST_BREAK) must be seen, or these tests see nothing.
# Lock: none; the runs of a pair share only files that nobody changes.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
work=$B/engine/run
lib=$(realpath -m "$B")/liboffload.so
times=${OFFLOAD_LONG:-1}
unset OFFLOAD_LONG TEST_BREAK
pass=0 fails=0 skips=0

# A type of weights, and options. Each way to do each thing is somewhere.
rows='f32 --load sync
f16 --api default --alloc one --load async
bf16 --api getproc --alloc async --load pinned --chunk 3000
q8_0 --api getproc-old --alloc managed --ref struct
bf16 --alloc vmm --ref table --launch extra
q8_0 --streams 3 --launch ex --ref table --load pinned
f16 --graph device --streams 2
bf16 --graph params --streams 2 --ref table
q8_0 --graph update --streams 3 --api getproc
bf16 --graph build --streams 3 --ref struct --alloc one
f32 --graph device --batch 1 --alloc vmm'

# Where a part is placed on the host: weights of so many times the budget, on a card with
# 64K more than it; what else the program has is in that.
placed='1.25 OFFLOAD_VRAM=360K f32 --load sync
1.25 OFFLOAD_VRAM=176K f16 --api default --alloc one --load async
2 OFFLOAD_VRAM=220K f32 --graph device --streams 2 --ref struct
2 OFFLOAD_VRAM=110K bf16 --graph params --streams 2 --ref table --load pinned --chunk 3000
2 OFFLOAD_VRAM=110K,EMU_DRIVER=12020 bf16 --streams 2 --ref struct --api getproc
2 OFFLOAD_VRAM=110K,OFFLOAD_TORTURE=1 f16 --streams 3 --launch ex --ref table
8 OFFLOAD_VRAM=56K,EMU_VRAM=256K f32 --streams 3 --launch extra
8 OFFLOAD_VRAM=28K,EMU_VRAM=192K bf16 --graph build --streams 3 --alloc one
8 OFFLOAD_VRAM=56K,EMU_VRAM=512K,OFFLOAD_TORTURE=2 f32 --graph update --streams 2
2 OFFLOAD_VRAM=220K,EMU_VRAM=512K,EMU_HOST_VMM=0 f32 --graph device
2 OFFLOAD_VRAM=220K,EMU_VRAM=512K,EMU_MIX=0 f32 --streams 2
2 OFFLOAD_VRAM=220K,EMU_VRAM=700K,OFFLOAD_DEVICE=uvm f32 --streams 2 --ref struct
4 OFFLOAD_VRAM=110K,EMU_VRAM=700K,OFFLOAD_DEVICE=uvm,OFFLOAD_TORTURE=3 f32 --graph device --alloc one
1.5 OFFLOAD_VRAM=0K,EMU_VRAM=300K f32 --streams 2 --ref table
2 OFFLOAD_VRAM=220K,EMU_FAIL=cuMemMap:30:999 f32 --streams 2
2 OFFLOAD_VRAM=220K,EMU_FAIL=cuMemSetAccess:5:999 f32 --graph device
2 OFFLOAD_VRAM=220K,EMU_FAIL=cuLaunchKernel:20:2 f32 --streams 2
2 OFFLOAD_VRAM=220K,EMU_VRAM=288K,OFFLOAD_STAGE=safe f32 --streams 3 --ref struct --prompt 40 --batch 2
8 OFFLOAD_VRAM=56K,EMU_VRAM=256K,EMU_PART=1,OFFLOAD_STAGE=ahead f32 --streams 1 --alloc one --launch extra --prompt 40 --batch 2
2 OFFLOAD_VRAM=220K,EMU_VRAM=512K,OFFLOAD_STAGE=ahead,OFFLOAD_TORTURE=4 f32 --streams 2 --launch ex --prompt 40 --batch 2
2 OFFLOAD_VRAM=220K,EMU_VRAM=288K,OFFLOAD_STAGE=safe,EMU_LOW=1 f32 --streams 3 --ref struct --prompt 40 --batch 2
2 OFFLOAD_VRAM=110K,EMU_VRAM=256K,OFFLOAD_STAGE=safe bf16 --graph device --streams 2 --prompt 40 --batch 2'

# Graphs whose kernels were shown by launches before: copy nodes of so many bytes at a time.
# A model of 1.4 MB.
copied='1.25 OFFLOAD_VRAM=1150K,OFFLOAD_STAGE=safe --graph device --streams 2
1.25 OFFLOAD_VRAM=1150K,OFFLOAD_STAGE=ahead --graph build --streams 3
2 OFFLOAD_VRAM=720K,OFFLOAD_STAGE=safe --graph params --streams 3 --ref struct
2 OFFLOAD_VRAM=720K,OFFLOAD_STAGE=ahead --graph update
2 OFFLOAD_VRAM=720K,OFFLOAD_STAGE=ahead,EMU_FAIL=cuGraphAddMemcpyNode:45:999 --graph update
2 OFFLOAD_VRAM=720K,OFFLOAD_STAGE=ahead,EMU_DRIVER=12020 --graph device --streams 2 --wait context
2 OFFLOAD_VRAM=720K,OFFLOAD_STAGE=safe,EMU_DRIVER=11080 --graph params --streams 2
8 OFFLOAD_VRAM=190K,OFFLOAD_STAGE=safe --graph update --streams 2 --alloc one
8 OFFLOAD_VRAM=190K,OFFLOAD_STAGE=ahead,EMU_PART=1 --graph device --streams 3
8 OFFLOAD_VRAM=190K,OFFLOAD_STAGE=safe,EMU_DELAY_US=400 --graph build'

# Of the random program (2M of memory), in turn: budgets of 10 to 200 percent.
random_rows='OFFLOAD_VRAM=200K EMU_VRAM=3M EMU_GRANULARITY=4K EMU_SPAN=0
OFFLOAD_VRAM=4M EMU_VRAM=6M OFFLOAD_TORTURE=1 EMU_GRANULARITY=4K EMU_SPAN=0
OFFLOAD_VRAM=200K EMU_VRAM=3M EMU_GRANULARITY=64K OFFLOAD_DEVICE_MIN=4K
OFFLOAD_VRAM=4M EMU_VRAM=6M EMU_GRANULARITY=64K OFFLOAD_TORTURE=5
OFFLOAD_VRAM=1M EMU_VRAM=4M OFFLOAD_TORTURE=2 EMU_GRANULARITY=64K
OFFLOAD_VRAM=500K EMU_VRAM=3M OFFLOAD_DEVICE_MIN=4K EMU_GRANULARITY=64K EMU_MIX=0
OFFLOAD_VRAM=400K EMU_VRAM=3M OFFLOAD_TORTURE=3 EMU_GRANULARITY=4K EMU_SPAN=0
OFFLOAD_VRAM=400K EMU_VRAM=3M OFFLOAD_STAGE=safe OFFLOAD_TORTURE=4 EMU_GRANULARITY=4K EMU_SPAN=0
OFFLOAD_VRAM=2M EMU_VRAM=4M OFFLOAD_DEVICE_MIN=4K EMU_GRANULARITY=4K EMU_HOST_VMM=0
OFFLOAD_VRAM=400K EMU_VRAM=3M OFFLOAD_DEVICE=uvm EMU_GRANULARITY=4K EMU_SPAN=0'

# Where a part is in the spill file, of so many times OFFLOAD_VRAM.
deeper='4 OFFLOAD_VRAM=110K,OFFLOAD_RAM=60K f32 --streams 3 --ref struct
8 OFFLOAD_VRAM=56K,OFFLOAD_RAM=72K f32 --streams 2 --launch ex --load pinned
8 OFFLOAD_VRAM=28K,OFFLOAD_RAM=44K bf16 --streams 3 --api getproc --launch extra --load async
4 OFFLOAD_VRAM=110K,OFFLOAD_RAM=60K f32 --graph device --streams 3
8 OFFLOAD_VRAM=56K,OFFLOAD_RAM=72K f32 --graph params --streams 2 --ref struct
4 OFFLOAD_VRAM=55K,OFFLOAD_RAM=30K bf16 --graph update --streams 3
4 OFFLOAD_VRAM=110K,OFFLOAD_RAM=60K f32 --graph build --streams 2 --api default
4 OFFLOAD_VRAM=110K,OFFLOAD_RAM=60K,OFFLOAD_TORTURE=5 f32 --streams 2 --load async
4 OFFLOAD_VRAM=110K,OFFLOAD_RAM=60K,OFFLOAD_TORTURE=6 f32 --graph update --streams 3
4 OFFLOAD_VRAM=110K,OFFLOAD_RAM=60K,OFFLOAD_ENCRYPT=1 f32 --streams 2
4 OFFLOAD_VRAM=55K,OFFLOAD_RAM=30K,OFFLOAD_ENCRYPT=1 bf16 --streams 2
4 OFFLOAD_VRAM=110K,OFFLOAD_RAM=60K,OFFLOAD_STAGE=safe f32 --streams 2 --ref struct
4 OFFLOAD_VRAM=110K,OFFLOAD_RAM=60K,OFFLOAD_SPILL_MAX=4M,OFFLOAD_SPILL_RATE=8M f32 --streams 2
4 OFFLOAD_VRAM=110K,OFFLOAD_RAM=60K,EMU_REACH=any f32 --streams 3'

# What must fail: it needs more at once than there are homes for, or there is no file.
refused='OFFLOAD_DEVICE_DEEP=0 f32 --streams 2
OFFLOAD_DEVICE_DEEP=1 f32 --ref table
OFFLOAD_DEVICE_DEEP=1 f32 --alloc one
OFFLOAD_DEVICE_DEEP=1 f32 --graph device --ref table
OFFLOAD_DEVICE_DEEP=1,OFFLOAD_SPILL_MAX=1M f32 --streams 2
OFFLOAD_DEVICE_DEEP=1,OFFLOAD_SPILL=/proc f32 --streams 2'

# tell NAME STATUS [WHY]: counts.
tell() {
	case $2 in
	0)	pass=$((pass + 1)); echo "ok engine/$1" ;;
	77)	skips=$((skips + 1)); echo "ok engine/$1 # skip: $3" ;;
	*)	fails=$((fails + 1)); echo "not ok engine/$1 (status $2)"
		[ -z "$3" ] || echo "    $3" ;;
	esac
}

# run OUT COMMAND...: on the driver in use; stderr to OUT.err.
run() {
	local out=$1

	shift
	timeout -k 5 "${limit:-120}" env LD_LIBRARY_PATH="$driver" "$@" >"$out" 2>"$out.err" </dev/null
}

# both OUT COMMAND...: without and with the library, side by side; statuses in s, t. With
# it what is in `set` is set, and t is 1 if it saw no launch: nothing was tested then.
both() {
	local out=$1

	shift
	run "$out.plain" "$@" &
	run "$out.with" OFFLOAD_STATS="$out.json" "${set[@]}" LD_PRELOAD="$lib" "$@"
	t=$?
	if [ "$t" = 0 ] && ! grep -sq '"launches":[1-9]' "$out.json"; then
		echo "tests: the library saw no launch" >>"$out.with.err"
		t=1
	fi
	wait $!
	s=$?
}

models() {
	local type

	"$B/mkmodel" --type f32 --layers 2 --dim 128 --ff 256 --vocab 320 "$work/big.gguf" >/dev/null || exit 1
	for type in f32 f16 bf16 q8_0; do
		"$B/mkmodel" --type $type --layers 2 --dim 64 --ff 128 --vocab 320 \
			"$work/$type.gguf" >/dev/null || exit 1
		"$B/engine/engine" --run cpu "$work/$type.gguf" >"$work/$type.cpu"
	done
}

engine() {
	local type options n=0 s t name

	while read -r type options; do
		n=$((n + 1))
		name="$type $options"
		# shellcheck disable=SC2086
		EMU_SEED=$n both "$work/$n" "$B/engine/engine" $options "$work/$type.gguf"
		if [ "$s$t" != 00 ]; then
			tell "$name" $((s ? s : t)) "$(cat "$work/$n.plain.err" "$work/$n.with.err" | tail -n 1)"
		elif ! cmp -s "$work/$n.plain" "$work/$type.cpu"; then
			tell "$name" 1 "not what the processor computes: $work/$n.plain"
		elif ! cmp -s "$work/$n.plain" "$work/$n.with"; then
			tell "$name" 1 "the library changes it: $work/$n.with"
		else
			tell "$name" 0
		fi
	done <<<"$rows"
}

# answer TYPE OPTION...: what the processor computes; kept, where the prompt is the usual.
answer() {
	local type=$1

	shift
	if [[ $* = *--prompt* ]]; then
		"$B/engine/engine" --run cpu "$@" "$work/$type.gguf"
	else
		cat "$work/$type.cpu"
	fi
}

# homes: the rows of `placed`.
homes() {
	local times set type options n=0 s name

	while read -r times set type options; do
		n=$((n + 1))
		name="$times times the budget: $type $options"
		# shellcheck disable=SC2086
		EMU_SEED=$n run "$work/homes.$n" EMU_LOG="$work/homes.$n.calls" EMU_GRANULARITY=4K EMU_SPAN=0 EMU_VRAM="$(
			sed -n 's/.*OFFLOAD_VRAM=\([0-9]*\)K.*/\1/p' <<<"$set" |
			awk '{ print $1 + 64 "K" }')" ${set//,/ } OFFLOAD_STATS="$work/homes.$n.json" \
			LD_PRELOAD="$lib" "$B/engine/engine" $options "$work/$type.gguf"
		s=$?
		if [ "$s" != 0 ]; then
			tell "$name" $s "$(tail -n 1 "$work/homes.$n.err")"
		elif ! cmp -s "$work/homes.$n" <(answer $type $options); then
			tell "$name" 1 "not what the processor computes: $work/homes.$n"
		elif [[ $set = *LOW* ]] && grep -q '"staged_bytes":[1-9]' "$work/homes.$n.json"; then
			tell "$name" 1 "staged, at addresses that numbers look like"
		elif [[ $set = *STAGE* && $set != *LOW* ]] && ! grep -q '"staged_bytes":[1-9]' "$work/homes.$n.json"; then
			tell "$name" 1 "nothing was staged"
		elif [[ $set = *uvm* ]] && ! grep -q '^cuMemAllocManaged' "$work/homes.$n.calls"; then
			tell "$name" 1 "no memory of it is managed"
		elif ! grep -q '"host_peak_bytes":[1-9]' "$work/homes.$n.json"; then
			tell "$name" 1 "nothing had a home on the host"
		else
			tell "$name" 0
		fi
	done <<<"$placed"
}

# stat NAME FILE: a number of the statistics; 0 where it is not there.
stat() {
	grep -so "\"$1\":[0-9]*" "$2" | grep -o '[0-9]*$' || echo 0
}

# copies: the rows of `copied`.
copies() {
	local times set options n=0 s name

	"$B/engine/engine" --run cpu --prompt 30 --batch 1 "$work/big.gguf" >"$work/copies.cpu"
	while read -r times set options; do
		n=$((n + 1))
		name="copy nodes, $times times the budget: $set $options"
		# shellcheck disable=SC2086
		EMU_SEED=$n run "$work/copies" EMU_GRANULARITY=4K EMU_SPAN=0 EMU_VRAM=2M ${set//,/ } \
			OFFLOAD_STATS="$work/copies.json" LD_PRELOAD="$lib" "$B/engine/engine" \
			--prompt 30 --batch 1 $options "$work/big.gguf"
		s=$?
		if [ "$s" != 0 ]; then
			tell "$name" $s "$(tail -n 1 "$work/copies.err")"
		elif ! cmp -s "$work/copies" "$work/copies.cpu"; then
			tell "$name" 1 "not what the processor computes"
		elif [ "$(stat graph_copies "$work/copies.json")" = 0 ]; then
			tell "$name" 1 "no copy was put into a graph"
		else
			tell "$name" 0
		fi
	done <<<"$copied"
}

# kept COUNT: what programs do with graphs (graphs.c), at so many seeds of the streams' delays;
# homes move for no reason in half of them.
kept() {
	local first=${RANDOM_SEED:-1} s bad=0 why= stage torture moved=0 copies=0 vram bytes

	for ((s = first; s < first + $1; s++)); do
		stage=safe torture= vram=$((s % 6 * 30 + 60))K bytes=16384
		# Small extents, and slots for more than one graph.
		[ $((s % 4)) != 0 ] || vram=600K bytes=131072
		[ $((s / 3 % 2)) = 1 ] || stage=ahead
		[ $((s % 2)) = 1 ] || torture=OFFLOAD_TORTURE=$s
		run "$work/kept.plain" EMU_SEED=$s "$B/engine/graphs" --seed $s --bytes $bytes &&
			# shellcheck disable=SC2086
			run "$work/kept" EMU_SEED=$s EMU_DELAY_US=$((s % 5 * 100)) EMU_GRANULARITY=4K EMU_SPAN=0 \
				EMU_VRAM=2M OFFLOAD_VRAM=$vram OFFLOAD_STAGE=$stage $torture \
				OFFLOAD_STATS="$work/kept.json" LD_PRELOAD="$lib" "$B/engine/graphs" --seed $s --bytes $bytes
		bad=$?
		[ $bad != 0 ] || cmp -s "$work/kept" "$work/kept.plain" || bad=1
		[ $bad = 0 ] || { why="RANDOM_SEED=$s: $stage $torture: $(tail -n 1 "$work/kept.err")"; break; }
		moved=$((moved + $(stat moved_bytes "$work/kept.json")))
		copies=$((copies + $(stat graph_copies "$work/kept.json")))
	done
	[ $bad != 0 ] || [ $copies -gt 0 ] || { bad=1; why="no copy was put into a graph"; }
	[ $bad != 0 ] || [ $moved -gt 0 ] || { bad=1; why="no home moved"; }
	tell "graphs and what is done with them, seeds $first to $((s - 1))" "$bad" "$why"
}

# again STAGE: a context ends, whose memory was freed before and whose graphs were not: in the
# next one as many copies are put into graphs.
again() {
	local n copies=() name="graphs, one context after another, $1"

	for n in 2 3; do
		run "$work/again.plain" EMU_SEED=3 "$B/engine/graphs" --seed 3 --contexts $n &&
			run "$work/again" EMU_SEED=3 EMU_GRANULARITY=4K EMU_SPAN=0 EMU_VRAM=2M OFFLOAD_VRAM=60K \
				OFFLOAD_STAGE="$1" OFFLOAD_STATS="$work/again.json" LD_PRELOAD="$lib" \
				"$B/engine/graphs" --seed 3 --contexts $n && cmp -s "$work/again" "$work/again.plain" ||
			{ tell "$name" 1 "$n contexts: $(tail -n 1 "$work/again.err")"; return; }
		copies+=("$(stat graph_copies "$work/again.json")")
	done
	[ "${copies[1]}" -gt "${copies[0]}" ]
	tell "$name" $? "${copies[*]} copies were put into graphs"
}

# reached KIND GRAPH SET...: bytes that kernels read at the host in a pass of the skewed program:
# of the first passes, and of the last; to f, l.
reached() {
	local kind=$1 graph=$2

	shift 2
	run "$work/skew" EMU_DELAY_US=0 EMU_GRANULARITY=4K EMU_SPAN=0 EMU_VRAM=2M OFFLOAD_VRAM=200K "$@" \
		OFFLOAD_STATS="$work/skew.json" LD_PRELOAD="$lib" "$B/engine/skew" --kind "$kind" --graph "$graph" || return
	read -r f l < <(sed -n 's/.*a pass: \([0-9]*\) bytes at first, \([0-9]*\) at last.*/\1 \2/p' "$work/skew.err")
	cmp -s "$work/skew" "$work/skew.plain"
}

# skew: what is used most comes to the device, and nothing moves where all is used alike.
skew() {
	local f l s m graph

	run "$work/skew.plain" "$B/engine/skew"
	for graph in no update new; do
		reached skew $graph && [ $((l * 2)) -lt "$f" ]
		tell "skew, graph $graph: less than half is read at the host in the end" $? "$f bytes in a pass, then $l"
	done
	reached skew no OFFLOAD_TORTURE=5
	s=$?
	m=$(stat moved_bytes "$work/skew.json")
	[ $s = 0 ] && [ "$m" -gt 400000 ]
	tell "skew: homes at random: the same bits" $? "status $s, $m bytes moved"
	run "$work/skew.plain" "$B/engine/skew" --kind dense
	reached dense no && [ "$l" = "$f" ] && [ "$(stat moved_bytes "$work/skew.json")" = 0 ]
	tell "dense: nothing moves" $? "$f bytes in a pass, then $l"
}

# deep N SET OUT COMMAND...: as run, with a spill file.
deep() {
	local n=$1 set=$2 out=$3

	shift 3
	# shellcheck disable=SC2086
	EMU_SEED=$n run "$out" EMU_GRANULARITY=4K EMU_SPAN=0 EMU_VRAM="$(
		sed -n 's/.*OFFLOAD_VRAM=\([0-9]*\)K.*/\1/p' <<<"$set" | awk '{ print $1 + 96 "K" }')" \
		OFFLOAD_SPILL="$work" OFFLOAD_DEVICE_DEEP=1 ${set//,/ } OFFLOAD_STATS="$out.json" \
		LD_PRELOAD="$lib" "$@"
}

# spilled: the rows of `deeper`, and of `refused`.
spilled() {
	local times set type options n=0 s name

	while read -r times set type options; do
		n=$((n + 1))
		name="spilled, $times times the budget, $set: $type $options"
		# shellcheck disable=SC2086
		deep $n "$set" "$work/deep.$n" "$B/engine/engine" $options "$work/$type.gguf"
		s=$?
		if [ "$s" != 0 ]; then
			tell "$name" $s "$(tail -n 1 "$work/deep.$n.err")"
		elif ! cmp -s "$work/deep.$n" "$work/$type.cpu"; then
			tell "$name" 1 "not what the processor computes: $work/deep.$n"
		elif ! grep -q '"spill_in_bytes":[1-9]' "$work/deep.$n.json"; then
			tell "$name" 1 "nothing came from the spill file"
		elif ! awk -v most="$(sed -n 's/.*OFFLOAD_RAM=\([0-9]*\)K.*/\1/p' <<<"$set")" \
			'match($0, /"host_peak_bytes":[0-9]+/) { exit substr($0, RSTART + 18, RLENGTH - 18) + 0 > most * 1024 }
			END { if (!NR) exit 1 }' "$work/deep.$n.json"; then
			tell "$name" 1 "more was held on the host than OFFLOAD_RAM says"
		elif ! grep -q '"spilled_bytes":0,"spill_in' "$work/deep.$n.json"; then
			tell "$name" 1 "something is left in the spill file"
		else
			tell "$name" 0
		fi
	done <<<"$deeper"
	while read -r set type options; do
		n=$((n + 1))
		name="refused, $set: $type $options"
		# shellcheck disable=SC2086
		deep $n "OFFLOAD_VRAM=110K,OFFLOAD_RAM=60K,$set" "$work/deep.$n" "$B/engine/engine" \
			$options "$work/$type.gguf"
		s=$?
		if [ "$s" != 1 ] || ! grep -q OUT_OF_MEMORY "$work/deep.$n.err"; then
			tell "$name" 1 "status $s: $(tail -n 1 "$work/deep.$n.err")"
		elif [[ $set != *DEEP=0* ]] && [ "$(grep -c '^offload' "$work/deep.$n.err")" != 1 ]; then
			tell "$name" 1 "not one line: $(cat "$work/deep.$n.err")"
		else
			tell "$name" 0
		fi
	done <<<"$refused"
}

# loading: eight times the budget, on a card with 64K more than it: no byte crosses the link that
# does not where all fits, but of what gave way to caches once (a quarter of the budget at most).
loading() {
	local name="loading 8 times the budget" k vram

	for vram in 4M 120K; do
		EMU_SEED=3 run "$work/load.$vram" EMU_GRANULARITY=4K EMU_SPAN=0 EMU_VRAM=$vram \
			"OFFLOAD_VRAM=$([ $vram = 4M ] || echo 56K)" OFFLOAD_STATS="$work/load.$vram.json" \
			LD_PRELOAD="$lib" "$B/engine/engine" --streams 3 --load pinned "$work/f32.gguf" &&
			cmp -s "$work/load.$vram" "$work/f32.cpu" ||
			{ tell "$name" 1 "$(tail -n 1 "$work/load.$vram.err")"; return; }
	done
	for k in h2d_bytes d2h_bytes; do
		[ "$(stat $k "$work/load.4M.json")" = "$(stat $k "$work/load.120K.json")" ]
		tell "$name: no more $k than where all fits" $? "$(stat $k "$work/load.120K.json")"
	done
	[ "$(stat h2d_bytes "$work/load.120K.json")" -gt 400000 ] &&
		[ "$(stat host_peak_bytes "$work/load.120K.json")" -gt 300000 ] &&
		[ "$(stat moved_bytes "$work/load.120K.json")" -le 14336 ]
	tell "$name: what is loaded stays" $? "$(stat moved_bytes "$work/load.120K.json") bytes moved"
}

# packed: weights that pack are read as images from the spill file, and the answer is the same.
packed() {
	local name="spilled, bf16 in extents of many pages: packed" in read

	"$B/mkmodel" --type bf16 --layers 4 --dim 256 --ff 768 --vocab 512 "$work/packs.gguf" >/dev/null
	"$B/engine/engine" --run cpu "$work/packs.gguf" >"$work/packs.cpu"
	deep 1 "OFFLOAD_VRAM=1400K,OFFLOAD_RAM=1M,OFFLOAD_PAGER=off" "$work/deep" "$B/engine/engine" \
		--streams 3 --ref struct "$work/packs.gguf" && cmp -s "$work/deep" "$work/packs.cpu"
	tell "$name" $? "$(tail -n 1 "$work/deep.err")"
	in=$(stat spill_in_bytes "$work/deep.json") read=$(stat spill_read_bytes "$work/deep.json")
	[ "$in" -gt 4000000 ] && [ "$read" -gt 0 ] && [ $((read * 100)) -lt $((in * 85)) ]
	tell "$name: less is read" $? "$read bytes read for $in"
}

# deep_delays COUNT: with a part in the spill file, at so many seeds of the streams' delays.
deep_delays() {
	local first=${RANDOM_SEED:-1} s bad=0 why=
	local -a way=('--streams 3 --ref struct' '--streams 3 --graph device'
		'--streams 2 --launch ex --load pinned' '--streams 3 --graph update')

	for ((s = first; s < first + $1; s++)); do
		# shellcheck disable=SC2086
		EMU_DELAY_US=$((s % 5 * 100)) deep $s "OFFLOAD_VRAM=$((s % 3 * 40 + 60))K,OFFLOAD_RAM=72K" \
			"$work/deep" "$B/engine/engine" ${way[s % 4]} "$work/f32.gguf"
		bad=$?
		[ $bad != 0 ] || cmp -s "$work/deep" "$work/f32.cpu" || bad=1
		[ $bad = 0 ] || { why="RANDOM_SEED=$s: ${way[s % 4]}: $(tail -n 1 "$work/deep.err")"; break; }
	done
	tell "spilled homes, seeds $first to $((s - 1))" "$bad" "$why"
}

# deep_random COUNT: the random program with 4M in many allocations, and homes for 560K (what can
# be touched at once, by a kernel of seed 118, is more than 480K, and would be refused).
deep_random() {
	local first=${RANDOM_SEED:-1} s bad=0 why= some=0 row
	local -a rows=('OFFLOAD_VRAM=260K,OFFLOAD_RAM=300K,EMU_VRAM=3M'
		'OFFLOAD_VRAM=300K,OFFLOAD_RAM=260K,EMU_VRAM=3M,OFFLOAD_TORTURE=7')

	for ((s = first; s < first + $1; s += 5)); do
		row=${rows[s / 5 % 2]}
		limit=300 EMU_DEVICES=1 deep $s "$row,OFFLOAD_PAGER=off" "$work/deep.with" \
			"$B/engine/random" --seed $s --count 5 --ops 120 --modes shown \
			--largest 65536 --budget-bytes 4194304
		bad=$?
		[ $bad = 0 ] || { why="RANDOM_SEED=$s: $row: $(grep -hm1 -E '^(random|emu|tests)' "$work/deep.with.err")"; break; }
		EMU_DEVICES=1 EMU_SEED=$s run "$work/deep.plain" "$B/engine/random" --seed $s --count 5 \
			--ops 120 --modes shown --largest 65536 --budget-bytes 4194304
		cmp -s "$work/deep.plain" "$work/deep.with" || { bad=1 why="RANDOM_SEED=$s: the library changes memory"; break; }
		! grep -q '"spill_in_bytes":[1-9]' "$work/deep.with.json" || some=$((some + 1))
	done
	[ $bad != 0 ] || [ $some != 0 ] || { bad=1 why="nothing came from the spill file"; }
	tell "random, spilled, seeds $first to $((s - 1))" "$bad" "$why"
}

# delays COUNT: launches that are staged, at so many seeds of the streams' delays.
delays() {
	local first=${RANDOM_SEED:-1} s ways bad=0 why= stage
	local -a way=('--streams 3 --ref struct' '--streams 1 --alloc one --launch extra'
		'--streams 2 --launch ex --graph device')

	answer f32 --prompt 30 --batch 2 >"$work/delays.cpu"
	for ((s = first; s < first + $1; s++)); do
		ways=${way[s % 3]}
		stage=safe
		[ $((s % 2)) = 1 ] || stage=ahead
		# shellcheck disable=SC2086
		run "$work/delays" EMU_SEED=$s EMU_DELAY_US=$((s % 5 * 100)) EMU_PART=$((s / 2 % 2)) EMU_GRANULARITY=4K \
			EMU_SPAN=0 EMU_VRAM=700K OFFLOAD_VRAM=$((s % 4 * 80 + 56))K OFFLOAD_STAGE=$stage \
			LD_PRELOAD="$lib" "$B/engine/engine" $ways --prompt 30 --batch 2 "$work/f32.gguf"
		bad=$?
		[ $bad != 0 ] || cmp -s "$work/delays" "$work/delays.cpu" || bad=1
		[ $bad = 0 ] || { why="RANDOM_SEED=$s: $stage $ways: $(tail -n 1 "$work/delays.err")"; break; }
	done
	tell "staged launches, seeds $first to $((s - 1))" "$bad" "$why"
}

# seeds FIRST COUNT DEVICES [NAME=VALUE...]: all of them in one process.
seeds() {
	local out=$work/seeds.$1 set=("${@:4}") s t

	limit=300 EMU_DEVICES=$3 EMU_SEED=$1 both "$out" "$B/engine/random" --seed "$1" \
		--count "$2" --ops 120
	if [ "$s$t" = 00 ] && cmp -s "$out.plain" "$out.with"; then
		rm -f "$out".*
		return 0
	fi
	[ "$s" != 77 ] || { why=$(tail -n 1 "$out.plain.err"); return 77; }
	why="seeds $1 to $(($1 + $2 - 1)), devices $3: $(grep -hm1 -E '^(random|emu|tests)' "$out.plain.err" "$out.with.err" | tail -n 1)"
	[ "$s$t" != 00 ] || why="$why the library changes memory: $out.with"
	return $((s ? s : t ? t : 1))
}

# random COUNT BATCH passed|placed: seeds on one and two devices in turn, while there is time.
random() {
	local first=${RANDOM_SEED:-1} at bad=0 end=$((SECONDS + 270 * times)) devices=1 why= row
	local -a rows=("")

	[ "$3" = passed ] || mapfile -t rows <<<"$random_rows"
	for ((at = first; at < first + $1; at += $2)); do
		if [ "$SECONDS" -ge "$end" ]; then
			echo "# random: seeds from $at on not run: no time left"
			break
		fi
		row=${rows[$(((at - first) / $2 % ${#rows[@]}))]}
		# shellcheck disable=SC2086
		seeds "$at" "$2" "$devices" $row || { bad=$?; why="$row $why"; break; }
		devices=$((3 - devices))
	done
	[ "$bad" = 0 ] || at=$((at + $2))
	tell "random, $3, seeds $first to $((at - 1))" "$bad" "$why"
}

# seen NAME COMMAND...: must not pass with each of five seeds: delays may hide it once.
seen() {
	local name=$1 seed s=0

	shift
	for seed in 1 2 3 4 5; do
		EMU_SEED=$seed run "$work/fault" "$@"
		s=$?
		[ $s = 0 ] || break
	done
	case $s in
	0)	tell "fault: $name" 1 "it passed" ;;
	77)	tell "fault: $name" 77 "$(tail -n 1 "$work/fault.err")" ;;
	*)	tell "fault: $name" 0 ;;
	esac
}

faults() {
	local -x EMU_DELAY_US=1000	# long enough to matter each time

	seen 'no waits between streams' TEST_BREAK=1 "$B/engine/engine" --run both \
		--streams 3 "$work/bf16.gguf"
	seen 'a buffer filled too early' TEST_BREAK=1 "$B/engine/engine" --run both \
		--load pinned --chunk 2000 "$work/bf16.gguf"
	seen 'no waits in the random program' TEST_BREAK=wait "$B/engine/random"
	seen 'a copy left out' TEST_BREAK=copy "$B/engine/random"
}

rm -rf "$work"
mkdir -p "$work"
driver=$(realpath -m "$B")/emu
export EMU_GRANULARITY=64K EMU_DELAY_US=100
case $1 in
gpu)	driver=$LD_LIBRARY_PATH
	run "$work/probe" "$B/engine/random" --ops 1
	[ $? = 77 ] && { echo "# engine: $(tail -n 1 "$work/probe.err")"; exit 0; } ;;
quick | long) ;;
*)	echo "usage: $0 quick | long | gpu" >&2; exit 2 ;;
esac
[ -e "$lib" ] || { echo "run.sh: $lib is missing: run make" >&2; exit 1; }
models
engine
[ "$1" = gpu ] || { homes; copies; again safe; again ahead; skew; loading; spilled; packed; }
if [ "$1" = long ]; then
	# Beside the others, which mostly wait; its counts come by a file.
	(pass=0 fails=0 skips=0
	random $((1000 * times)) 20 passed
	random $((1000 * times)) 20 placed
	echo "$pass $fails $skips" >"$work/random.counts") &
	delays $((200 * times))
	kept $((200 * times))
	deep_delays $((200 * times))
	deep_random $((200 * times))
	wait
	p=0 f=1 s=0
	[ -s "$work/random.counts" ] && read -r p f s <"$work/random.counts"
	pass=$((pass + p)) fails=$((fails + f)) skips=$((skips + s))
else
	random 20 10 passed
	[ "$1" = gpu ] || random 30 3 placed
	[ "$1" = gpu ] || { delays 20; kept 20; }
	[ "$1" = gpu ] || deep_delays 20
	[ "$1" = gpu ] || deep_random 20
fi
[ "$1" = gpu ] || faults	# on a GPU they may pass by luck
echo "# engine: $pass passed, $fails failed, $skips skipped"
echo "$pass $fails $skips" >"$B/engine.counts"
[ "$fails" = 0 ] && [ $((pass + skips)) -gt 0 ]
