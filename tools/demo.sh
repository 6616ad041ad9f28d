#!/bin/sh
# SPDX-License-Identifier: MIT
# demo.sh - show what the library does: llama.cpp, a model larger than the
# memory it may use, once without and once with liboffload.so.
#
#     DEMO_MODEL=path.gguf   use this model instead of a synthetic one
#     DEMO_TOKENS=8          tokens per run, 4 at least
#     DEMO_MB=3400           size of the synthetic model (torch: 2400)
#
# 1. The page cache is dropped before each run: pages that are cached already
#    are charged to whoever read them first, and a limit would mean nothing.
# 2. The limit leaves room for four fifths of what one token reads, beside
#    the engine's own memory (measured) and 192 MiB.
# 3. Exit status 1: a run failed, or the tokens differ.
set -u
cd "$(dirname "$0")/.." || exit 1

B=build
LIB=$PWD/$B/liboffload.so
MIB=1048576
tokens=${DEMO_TOKENS:-8}
out=$B/demo

say() {
	echo "demo: $*" >&2
}

die() {
	say "$*"
	exit 1
}

# json FILE KEY: one number of a JSON file.
json() {
	python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' \
		"$1" "$2"
}

# engine ARGUMENT...: the driver of the engine that is installed.
engine() {
	if [ "$kind" = node ]; then
		node tools/engine/drive.mjs --engine $B/engine "$@"
	else
		/usr/bin/python3 -B tools/engine/drive.py "$@"
	fi
}

progress() {
	[ -t 2 ] && echo --progress
}

# shape LAYERS: mkmodel's arguments. llama.cpp is shown with q8_0; torch has
# no such type, and is slow with types of 16 bits.
shape() {
	type=q8_0
	[ "$kind" = torch ] && type=f32
	echo "--type $type --layers $1 --dim 3072 --ff 8192 --vocab 32000"
}

size_of() {
	$B/mkmodel $(shape "$1") --dry-run | awk '/^bytes/ { print $2 }'
}

# The most layers that stay within DEMO_MB and what the disk has free.
choose_layers() {
	usual=3400
	[ "$kind" = torch ] && usual=2400
	most=$((${DEMO_MB:-$usual} * 1000000))
	free=$(df -Pk $out | awk 'NR == 2 { print $4 }')
	room=$((free * 1024 - 512 * MIB))
	[ $room -lt $most ] && most=$room
	layers=60
	while [ $layers -gt 1 ] && [ "$(size_of $layers)" -gt $most ]; do
		layers=$((layers - 1))
	done
	[ "$(size_of $layers)" -le $most ] || die "$out has too little room"
}

have_model() {
	if [ -n "${DEMO_MODEL:-}" ]; then
		[ -r "$DEMO_MODEL" ] || die "$DEMO_MODEL cannot be read"
		model=$DEMO_MODEL
		return
	fi
	model=$(ls $out/model-$kind-*.gguf 2>/dev/null | head -n 1)
	[ -n "$model" ] && [ -z "${DEMO_MB:-}" ] && return
	rm -f $out/model-*.gguf
	choose_layers
	model=$out/model-$kind-$layers.gguf
	say "making a model of $(($(size_of $layers) / 1000000)) MB"
	$B/mkmodel $(shape $layers) "$model" >&2 || die "no model"
}

# run NAME LIMIT PRELOAD: one cold run; what it did goes to $out/NAME.json.
run() {
	$B/mkmodel --drop "$model" || die "the page cache could not be dropped"
	set -- "$1" "$2" "$3" --tokens "$tokens" $(progress) "$model"
	name=$1 limit=$2 preload=$3
	shift 3
	if [ "$group" != none ]; then
		limited "$@" >"$out/$name.json"
	else
		preloaded "$@" >"$out/$name.json"
	fi || die "the run $name failed (status $?)"
}

# The command is the shell function engine, so the shell goes into the group.
limited() {
	tools/cgroup.sh run --limit "$limit" --report "$out/$name-group.json" -- \
		sh tools/demo.sh --inside "$kind" "$preload" "$@"
}

preloaded() {
	sh tools/demo.sh --inside "$kind" "$preload" "$@"
}

inside() {
	kind=$1 preload=$2
	shift 2
	if [ -n "$preload" ]; then
		export LD_PRELOAD="$preload"
		export OFFLOAD_STATS="${OFFLOAD_STATS:-$PWD/$out/stats.json}"
	fi
	engine "$@"
}

# Sets pass (bytes one token reads), own (the engine's memory) and limit.
measure() {
	engine --info "$model" >$out/info.json || die "the engine cannot read $model"
	pass=$(json $out/info.json pass_bytes)
	say "measuring the engine's own memory"
	engine --tokens 2 "$model" >$out/alone.json || die "the engine failed"
	own=$(($(json $out/alone.json anon_kib) * 1024))
	kept=$((pass / 5 * 4))
	limit=$((kept + own + 192 * MIB))
}

header() {
	echo
	echo "  $(basename "$model"): one token reads $((pass / 1000000)) MB;" \
		"room for $((kept / 1000000)) MB of it"
	if [ "$group" = none ]; then
		echo "  No memory cgroup can be made here: only the library is limited" \
			"(OFFLOAD_RAM);"
		echo "  the run without it has all memory. Compare bytes, not times."
	else
		echo "  memory cgroup ($group) of $((limit / MIB)) MiB, both runs" \
			"with a cold page cache"
	fi
	echo
}

main() {
	[ -x $B/mkmodel ] && [ -e "$LIB" ] || die "run make first"
	tools/setup.sh demo || exit 1
	mkdir -p $out
	kind=$(tools/engine/install.sh $B/engine) || die "no engine"
	group=$(tools/cgroup.sh probe)
	have_model
	measure
	[ "$group" = none ] && export OFFLOAD_RAM=$((kept / MIB))M
	say "run 1 of 2: without the library"
	run without $limit ''
	say "run 2 of 2: with the library"
	run with $limit "$LIB"
	header
	python3 tools/engine/compare.py $out/without.json $out/with.json \
		"$pass" "$kept" "${OFFLOAD_STATS:-$out/stats.json}"
}

if [ "${1:-}" = --inside ]; then
	shift
	inside "$@"
else
	main
fi
