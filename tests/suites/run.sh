#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh - what other projects wrote to test themselves, and what their programs do,
# without the library and under OFFLOAD_TORTURE: the same results, or it has failed.
#
#     tests/suites/run.sh quick        one of them, one seed
#     tests/suites/run.sh long         every suite, SUITE_SEEDS seeds each (2)
#     tests/suites/run.sh one NAME     one of them
#
# Owns build/suites (outputs, statistics, spill files); what passed is removed.
#
# (1) A suite counts only where it put the library to work: paged heaps, and more
#     than EVICTIONS_LEAST evictions in all its processes and seeds together.
# (2) Its result is its exit status and the lines of its output that `verdict`
#     keeps: what passed, what failed, what was left out. Times are not.
# (3) A suite that is not installed is skipped, and told.
# (4) The budget is asked for (RAM), so that little memory is much.
# Lock: none.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
here=$PWD/tests/suites
lib=$(realpath -m "$B")/liboffload.so
work=$(realpath -m "$B")/suites
seeds=${SUITE_SEEDS:-3}
first=${SUITE_SEED:-1}
limit=${SUITE_TIMEOUT:-600}
EVICTIONS_LEAST=1000
python=/usr/bin/python3	# Debian's, as its tests are
unset LD_PRELOAD ${!OFFLOAD_*}

# NAME | what must be there | RAM | COMMAND
suites() {
	local numpy

	numpy=$($python -c 'import numpy; print(numpy.__path__[0])' 2>/dev/null)
	cat <<-END
	stress-vm|cmd stress-ng|8M|stress-ng --vm 1 --vm-bytes 96M --vm-method all --verify --vm-ops 8000
	stress-mremap|cmd stress-ng|8M|stress-ng --mremap 1 --mremap-bytes 64M --verify --mremap-ops 40
	sqlite|cmd sqlite3|6M|sh $here/sqlite.sh
	zstd|cmd zstd|12M|sh $here/zstd.sh
	python|module test.test_mmap|14M|$python -m test test_mmap test_zlib test_array test_fork1
	numpy|modules numpy pytest hypothesis|32M|$python -m pytest -q -p no:cacheprovider $numpy/fft/tests $numpy/core/tests/test_memmap.py $numpy/core/tests/test_shape_base.py
	END
}

# Is what a suite needs there? Words as in its row.
there() {
	case $1 in
	cmd) command -v "$2" >/dev/null ;;
	*) shift; for m; do $python -c "import $m" 2>/dev/null || return 1; done ;;
	esac
}

# (2)
verdict() {
	# regrtest says which test goes on after a slow one.
	grep -avE '^[0-9:]+ load avg' "$1" |
		grep -aE 'passed|failed|FAIL|ERROR|^Tests result|^Ran |tests? (OK|failed)|successful run|skipped|^ok$|^(rows|order|index) ' |
		sed -E 's/\[[0-9]+\]//g; s/ (completed )?in [0-9.].*//; s/[[:space:]]+/ /g'
}

# figure FOLDER KEY: the sum of a number in all processes' statistics.
figure() {
	cat "$1"/*.json 2>/dev/null | grep -o "\"$2\": *[0-9]*" |
		awk -F: '{ n += $2 } END { print n + 0 }'
}

# once NAME LABEL COMMAND...: the suite once; its status and verdict are kept.
once() {
	local out=$work/$1.$2

	shift 2
	mkdir -p "$out.dir"
	(cd "$out.dir" && exec timeout -k 5 "$limit" "$@") >"$out.out" 2>&1 </dev/null
	echo "status $?" >"$out.verdict"
	verdict "$out.out" >>"$out.verdict"
	rm -rf "$out.dir"
	grep -qx 'status 0' "$out.verdict"
}

# suite NAME RAM COMMAND...: says what came of it.
suite() {
	local name=$1 ram=$2 evicted=0 regions=0 bad='' s stats

	shift 2
	once "$name" plain "$@" || {
		echo "not ok suites/$name: without the library, too: $work/$name.plain.out"
		return 1
	}
	for s in $(seq "$first" $((first + seeds - 1))); do
		stats=$work/$name.stats$s
		mkdir -p "$stats" "$work/spill"
		once "$name" "seed$s" env LD_PRELOAD="$lib" OFFLOAD_TORTURE="$s" \
			OFFLOAD_RAM="$ram" OFFLOAD_SPILL="$work/spill" \
			OFFLOAD_STATS="$stats/%p.json" "$@"
		diff "$work/$name.plain.verdict" "$work/$name.seed$s.verdict" || bad+=" $s"
		evicted=$((evicted + $(figure "$stats" evictions)))
		regions=$((regions + $(figure "$stats" regions)))
	done
	if [ -n "$bad" ]; then
		echo "not ok suites/$name: other results with seed$bad: $work/$name.seed*.out"
		echo "    rerun: SUITE_SEED=${bad##* } SUITE_SEEDS=1 $0 one $name"
		return 1
	elif [ "$regions" = 0 ] || [ "$evicted" -le $EVICTIONS_LEAST ]; then
		echo "not ok suites/$name: $evicted evictions in $regions regions prove nothing"
		return 1
	fi
	echo "ok suites/$name: $(tail -n +2 "$work/$name.plain.verdict" | grep -c .) results, the last:" \
	     "$(tail -n 1 "$work/$name.plain.verdict"); the same with seeds $first to" \
	     "$((first + seeds - 1)), $evicted evictions, $regions regions"
	rm -rf "$work/$name".*
}

case ${1:-} in
quick)	only=stress-vm seeds=1 ;;
long)	only= ;;
one)	only=$2 ;;
*)	echo "usage: $0 quick | long | one NAME" >&2; exit 2 ;;
esac
[ -e "$lib" ] || { echo "run.sh: $lib is missing: run make" >&2; exit 1; }
mkdir -p "$work"
pass=0 fails=0 skips=0
while IFS='|' read -r name need ram command; do
	[ -z "$only" ] || [ "$only" = "$name" ] || continue
	# shellcheck disable=SC2086
	if ! there $need; then
		echo "ok suites/$name # skip: ${need#* } is not installed"
		skips=$((skips + 1))
	elif suite "$name" "$ram" $command; then
		pass=$((pass + 1))
	else
		fails=$((fails + 1))
	fi
done < <(suites)
echo "$pass $fails $skips" >"$B/suites.counts"
[ $fails = 0 ]
