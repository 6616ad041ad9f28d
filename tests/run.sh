#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh - all tests, counted.
#
#     tests/run.sh unit     build/unit/*
#     tests/run.sh emu      build/emu/test_*: the emulated GPU driver keeps its rules
#     tests/run.sh engine   tests/engine: programs on the CUDA driver API
#     tests/run.sh check    unit, emu, tests/check/*.sh, every operation failing at its
#                           first call, engine, the traps (under 10 minutes)
#     tests/run.sh long     the same with sanitizers, ten minutes of fuzzing (each decoder,
#                           all at once), 1 GiB through the codecs, others' suites and
#                           programs under torture (tests/suites), what must go on for
#                           long, or together (tests/soak), four minutes
#                           of operations failing at any call (NTH_SEED), up to
#                           1000 seeds of the random device program and of the stress,
#                           500 of torture: about 40 minutes on two cores.
#                           OFFLOAD_LONG=N: N times as long (3: all the seeds on a slow
#                           machine). FUZZ_SECONDS=N: so long for each fuzzer
#
# Owns build/test (outputs). Exit status 0 only if something passed and
# nothing failed; 77 from a test is a skip, counted and told. B: the build
# folder. Tests neither time anything nor need the network. Lock: none.

cd "$(dirname "$0")/.." || exit 1
export B=${B:-build}
export TSAN_OPTIONS=${TSAN_OPTIONS:-suppressions=$PWD/tests/tsan.supp}
out=$B/test
times=${OFFLOAD_LONG:-1}
unset OFFLOAD_LONG	# the library refuses what is no option of its own
pass=0 fails=0 skips=0

# tell NAME STATUS OUTPUT: counts, and shows what a failure said.
tell() {
	case $2 in
	0)	pass=$((pass + 1))
		echo "ok $1" ;;
	77)	skips=$((skips + 1))
		echo "ok $1 # skip: $(tail -n 1 "$3")" ;;
	*)	fails=$((fails + 1))
		echo "not ok $1 (status $2)"
		tail -n 30 "$3" | sed 's/^/    /'
		echo "    rerun: B=$B ${4:-$1}" ;;
	esac
}

# single NAME LIMIT COMMAND...: one test program, its output kept.
single() {
	local name=$1 limit=$2 log

	shift 2
	log=$out/$(basename "$name").log
	timeout -k 5 "$limit" "$@" >"$log" 2>&1 </dev/null
	tell "$name" $? "$log" "$*"
}

unit() {
	local t

	for t in "$B"/unit/*; do
		[ -x "$t" ] && single "unit/$(basename "$t")" "${limit:-300}" "$t"
	done
}

emu() {
	local t

	for t in "$B"/emu/test_*; do
		[ -x "$t" ] && single "emu/$(basename "$t")" 120 "$t"
	done
}

checks() {
	local t

	for t in tests/check/*.sh; do
		[ -x "$t" ] && single "check/$(basename "$t" .sh)" 300 "$t"
	done
}

# fault quick | long SECONDS: operations that fail, see tests/fault/nth.c. What it has
# counted is shown.
fault() {
	NTH_SEED=${NTH_SEED:-$([ "$1" = quick ] && echo 1)} single fault/nth 3600 "$B/fault/nth" "$@"
	grep '^#' "$out/nth.log"
}

# counted FOLDER WHAT: its own output is a line per program already.
counted() {
	local p=0 f=1 s=0

	rm -f "$B/$1.counts"
	OFFLOAD_LONG=$times "tests/$1/run.sh" "$2" && f=0
	[ -s "$B/$1.counts" ] && read -r p f s <"$B/$1.counts"
	pass=$((pass + p)) fails=$((fails + f)) skips=$((skips + s))
}

# sanitized SANITIZER: the unit programs and the emulated driver's; then core/ linked directly,
# every chunk turned over a hundred times.
sanitized() {
	single "unit, $1" 1800 make --no-print-directory "check-$1"
	SOAK_TURNS=$((100 * times)) single "soak, $1" $((900 * times)) "$B/$1/unit/test_soak"
	grep '^#' "$out/soak, $1.log"
}

# A decoder's fuzzer; what it finds is kept in build/fuzz.
fuzzer() {
	mkdir -p "$B/fuzz/$1" "$B/fuzz/found"
	single "fuzz/$1" $((seconds + 300)) nice -n 19 "$B/clang/fuzz/$1" -fork=1 \
		-max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -max_len=2048 \
		-artifact_prefix="$B/fuzz/found/$1-" "$B/fuzz/$1" "tests/fuzz/corpus/$1"
}

fuzzers() {
	local t calls=() seconds=${FUZZ_SECONDS:-$((600 * times))}

	for t in tests/fuzz/*.c; do calls+=("fuzzer $(basename "$t" .c)"); done
	together "${calls[@]}"
}

# together CALL...: all at once, each in a shell of its own: counts are added up.
together() {
	local call dir p f s

	dir=$(mktemp -d) || exit 1
	for call; do
		(pass=0 fails=0 skips=0
		$call
		echo "$pass $fails $skips" >"$dir/${call// /.}") &
	done
	wait
	for call; do
		p=0 f=1 s=0
		[ -s "$dir/${call// /.}" ] && read -r p f s <"$dir/${call// /.}"
		pass=$((pass + p)) fails=$((fails + f)) skips=$((skips + s))
	done
	rm -rf "$dir"
}

# stage CALL...: and how long it took, so that the tier can be kept to its time.
stage() {
	local since=$SECONDS

	"$@"
	echo "# took $((SECONDS - since)) s: $*"
}

rm -rf "$out"
mkdir -p "$out"
case $1 in
unit)	unit ;;
emu)	emu ;;
engine)	counted engine quick ;;
check)	unit; emu; checks
	# One processor each, or they wait.
	together "fault quick" "counted engine quick"
	counted preload quick ;;
long)	export FX_MIB=$((1024 * times))
	export PTX_SEEDS=$((200000 * times))
	limit=3600 stage unit
	stage emu
	stage checks
	unset FX_MIB PTX_SEEDS
	stage together "sanitized asan" "sanitized tsan"
	stage single "fuzz, built" 1800 make --no-print-directory fuzz
	# These keep one processor busy, or wait: the device programs for delays.
	stage together "fault long $((240 * times))" "counted suites long"
	stage together fuzzers "counted engine long"
	stage counted soak long
	stage counted preload long ;;
*)	echo "usage: $0 unit | emu | engine | check | long" >&2; exit 2 ;;
esac
echo "# $pass passed, $fails failed, $skips skipped"
[ "$fails" = 0 ] && [ "$pass" -gt 0 ]
