#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh - runs the trap programs with and without the library.
#
#     tests/preload/run.sh quick              every program, variants as (4) says,
#                                             then some programs x torture seeds
#     tests/preload/run.sh long               all variants, OFFLOAD_LONG times 500
#                                             torture runs and the seeds of (1),
#                                             as many as 3 and 5 minutes allow
#     tests/preload/run.sh one PROG VARIANT   one run, output shown
#
# Owns build/trap (files, logs, statistics); empty again when all passed.
# A variant is "plain" (no library), or a pager mode, with ".pread" or
# ".buffered" added for the other ways to read, or ".seed=SEED" for what the
# program does, or "torture=SEED".
#
# (1) A program says in comments of its own what it wants:
#       env: NAME=VALUE...   its environment
#       expect: N            its exit status, 0 if not said
#       needs: regions evictions reads packed cached, or none of them
#                            what the statistics must show, so that a pass
#                            means something; not asked of plain, off, torture
#       later-needs: ...     the same, once the library does it; not asked yet
#       message: ERE         stderr must match, in modes move and copy
#       variants: WORD...    these only, where no other could tell more
#       seeds: QUICK LONG    it does other things with other seeds (STRESS_SEED):
#                            so many are run in modes move and copy each
# (2) 77 is a skip; so is a forced mode that this kernel does not have. Both
#     are counted and shown.
# (3) A run that prints on stdout has failed, whatever it exits with.
# (4) Every program runs in every mode (quick: one anon_ in four in hints, where the heap is
#     the kernel's). The other ways: long has all of them for
#     every program, quick one for each, in turn.
# Lock: none; runs share only files that nobody changes.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
work=$(realpath -m "$B")/trap
jobs=${TRAP_JOBS:-2}
limit=${TRAP_TIMEOUT:-60}
times=${OFFLOAD_LONG:-1}
unset OFFLOAD_LONG	# the library refuses what is no option of its own

modes='plain move copy hints'
ways='off move.pread copy.pread copy.buffered'
variants=${TRAP_VARIANTS:-$modes $ways}
# Seeds 1..20 for these, two seeds for every other program.
storm='loop threads fork unmap_part private_write close_fds'
storm_seconds=${TRAP_STORM_SECONDS:-40}

programs() {
	for f in tests/preload/*.c; do
		f=$(basename "$f" .c)
		case $f in helper_*) ;; *) echo "$f" ;; esac
	done
}

# asked PROG KEY: the value of a "/* KEY: ... */" comment.
asked() {
	sed -n "s|^/\* $2: \(.*\) \*/\$|\1|p" "tests/preload/$1.c"
}

# wanted TIER: "PROG VARIANT" lines of the runs to be made, by variant. Every program
# runs in every mode; of the other ways, quick takes one each, in turn (4).
wanted() {
	local v p only n k=0 turn=($ways)

	declare -A does
	for p in $list; do
		only=$(asked "$p" variants)
		n=$((k++ % ${#turn[@]}))
		if [ -n "$only" ]; then
			does[$p]=" $only "
		elif [ "$1" = quick ] && [ -z "$TRAP_VARIANTS" ]; then
			does[$p]=" $modes ${turn[n]} "
			# There hints leaves all to the kernel, as off does: one in four.
			[[ $p == anon_* && $n != 0 ]] && does[$p]=" ${modes/hints/} ${turn[n]} "
		fi
	done
	for v in $variants; do
		for p in $list; do
			[[ -z ${does[$p]} || ${does[$p]} == *" $v "* ]] && echo "$p $v"
		done
	done
}

# settings PROG VARIANT: the environment of a run, a word each.
settings() {
	local v=$2 mode=${2%%.*}

	echo "TMPDIR=$work/tmp TRAP_CACHE=$work/cache OFFLOAD_SPILL=$work/spill"
	case $v in
	plain)	echo TRAP_MODE=plain; return ;;
	torture=*)
		echo "TRAP_MODE=torture OFFLOAD_TORTURE=${v#*=}"
		case $((${v#*=} % 5)) in
		0|1)	echo OFFLOAD_PAGER=move ;;
		2|3)	echo OFFLOAD_PAGER=copy ;;
		esac ;;
	*)	echo "TRAP_MODE=$mode OFFLOAD_PAGER=$mode OFFLOAD_HOST_MIN=1M"
		asked "$1" env ;;
	esac
	case $v in
	*.pread)	echo OFFLOAD_IO=pread ;;
	*.buffered)	echo OFFLOAD_DIRECT=off ;;
	*.seed=*)	echo "STRESS_SEED=${v##*=}" ;;
	esac
	echo "OFFLOAD_STATS=$work/out/$1.$v.json"
}

# figure FILE KEY: a number of the JSON statistics, 0 when absent.
figure() {
	local n

	n=$(grep -o "\"$2\": *[0-9]*" "$1" 2>/dev/null | head -n 1)
	n=${n##*[!0-9]}
	echo "${n:-0}"
}

# lacks PROG VARIANT: says what the statistics do not show, or nothing.
lacks() {
	local json=$work/out/$1.$2.json need n

	case $2 in plain|off|torture*) return ;; esac
	# There anonymous memory is the kernel's.
	case $1.$2 in anon_*.hints*) return ;; esac
	if [ ! -s "$json" ]; then
		echo "no statistics were written"
		return
	fi
	for need in $(asked "$1" needs); do
		case $need in
		regions)
			n=$(($(figure "$json" converted) +
			     $(figure "$json" regions))) ;;
		evictions) n=$(figure "$json" evictions) ;;
		packed)	[ "${2%%.*}" = hints ] && continue
			n=$(figure "$json" packed_raw_bytes) ;;
		none)	n=$(($(figure "$json" converted) +
			     $(figure "$json" regions) == 0)) ;;
		cached)	n=$(figure "$json" cache_frames) ;;
		reads)	[ "${2%%.*}" = hints ] && continue
			n=$(figure "$json" read_bytes) ;;
		esac
		[ "$n" -gt 0 ] || echo "statistics show no $need"
	done
}

# mode_missing PROG VARIANT: true if the kernel cannot do the forced mode.
mode_missing() {
	local mode=${2%%.*} got

	case $mode in move|copy|hints) ;; *) return 1 ;; esac
	got=$(grep -o '"pager": *"[a-z]*"' "$work/out/$1.$2.json" 2>/dev/null)
	got=${got%\"}
	got=${got##*\"}
	case $got in ''|none|"$mode") return 1 ;; esac
	echo "mode $mode is not to be had here: $got"
}

# judge PROG VARIANT STATUS: prints ok, skip REASON or FAIL REASON.
judge() {
	local out=$work/out/$1.$2 want lack msg why

	want=$(asked "$1" expect)
	msg=$(asked "$1" message)
	if [ "$3" = 77 ]; then
		echo "skip $(tail -n 1 "$out.err")"
	elif why=$(mode_missing "$1" "$2"); then
		echo "skip $why"
	elif [ "$3" = 124 ] || [ "$3" = 137 ]; then
		echo "FAIL no end after $limit s"
	elif [ "$3" != "${want:-0}" ]; then
		echo "FAIL exit status $3, not ${want:-0}: $(tail -n 2 "$out.err" | tr '\n' ' ')"
	elif [ -s "$out.out" ]; then
		echo "FAIL it wrote to stdout: $(head -c 80 "$out.out")"
	elif lack=$(lacks "$1" "$2"); [ -n "$lack" ]; then
		echo "FAIL $lack"
	elif [ -n "$msg" ] && [[ $2 == move* || $2 == copy* ]] &&
	     ! grep -Eq "$msg" "$out.err"; then
		echo "FAIL stderr does not match: $msg"
	else
		echo ok
	fi
}

# execute PROG VARIANT: runs it, output to files; its status.
execute() {
	local out=$work/out/$1.$2 pre=

	[ "$2" = plain ] || pre=LD_PRELOAD=$lib
	# shellcheck disable=SC2046
	timeout -k 5 "$limit" env $(settings "$1" "$2") $pre "$B/preload/$1" \
		>"$out.out" 2>"$out.err" </dev/null
}

# job PROG VARIANT: one run, its verdict to a file (run by xargs).
job() {
	execute "$1" "$2" 2>/dev/null
	judge "$1" "$2" $? >"$work/out/$1.$2.res"
}

# rerun PROG VARIANT: how to see it again, alone.
rerun() {
	local set

	set=$(settings "$1" "$2" | tr '\n' ' ')
	[ "$2" = plain ] || set+="LD_PRELOAD=$lib"
	echo "    rerun: $0 one $1 $2"
	echo "    by hand: mkdir -p $work/{tmp,cache,out,spill}; env $set $B/preload/$1"
	echo "    gdb: gdb -ex 'set exec-wrapper env $set' -ex run $B/preload/$1"
}

# report TITLE VARIANT...: one line per program of $list; counts. What passed is
# only counted where it is many.
report() {
	local p v res why line bad first n title=$1

	shift
	for p in $list; do
		line= bad= first= n=0
		for v in "$@"; do
			[ -s "$work/out/$p.$v.res" ] || continue
			read -r res why <"$work/out/$p.$v.res"
			case $res in
			ok)	[ $# -gt 30 ] || line+=" $v"
				n=$((n + 1)) pass=$((pass + 1)) ;;
			skip)	line+=" ($v)"; skips=$((skips + 1)) ;;
			*)	line+=" $v:FAIL"; fails=$((fails + 1))
				bad+="  $v: $why"$'\n'
				[ -n "$first" ] || first=$v ;;
			esac
		done
		[ $# -le 30 ] || [ "$n" = 0 ] || line+=" $n runs"
		[ -n "$line" ] || continue
		printf '%s %s%s:%s\n' "$([ -z "$bad" ] && echo ok ||
			echo 'not ok')" "$title" "$p" "${line//torture=/}"
		printf '%s' "$bad"
		[ -z "$bad" ] || rerun "$p" "$first"
	done
}

# matrix: "PROG VARIANT" lines from stdin, so many at a time.
matrix() {
	xargs -P "$jobs" -L 1 "$0" job
}

quick_seeds() {
	local p s n=0

	for p in $list; do
		n=$((n + 2))
		if [[ " $storm " == *" $p "* ]]; then
			for s in $(seq 1 20); do echo "$p torture=$s"; done
		else
			echo "$p torture=$((n % 20 + 1))"
			echo "$p torture=$(((n + 9) % 20 + 1))"
		fi
	done
}

# 500 runs for each OFFLOAD_LONG, every program in turn, each its own seed.
long_seeds() {
	local total=$((500 * times)) first=${TRAP_SEED:-1000} i=0

	while [ "$i" -lt "$total" ]; do
		for p in $list; do
			[ "$i" -lt "$total" ] || break
			echo "$p torture=$((first + i))"
			i=$((i + 1))
		done
	done
}

# The seeds that programs ask for, quick or long.
run_seeds() {
	local list=$list p quick long first=${TRAP_SEED:-1} v seconds=100000

	for p in $list; do
		read -r quick long <<<"$(asked "$p" seeds)"
		[ -n "$quick" ] || continue
		[ "$1" = long ] && quick=$((long * times)) seconds=$((300 * times))
		echo "# $p: seeds $first to $((first + quick - 1)) in move and copy"
		v=$(for s in $(seq "$first" $((first + quick - 1))); do
			echo "move.seed=$s" "copy.seed=$s"
		done)
		printf "$p %s\n" $v | paced "$seconds"
		list=$p
		# shellcheck disable=SC2086
		report 'seeds ' $v
	done
}

run_storm() {
	if [ "$1" = quick ]; then
		quick_seeds | shuffle_fixed | paced "$storm_seconds"
	else
		echo "# torture seeds ${TRAP_SEED:-1000} and up," \
		     "$((500 * times)) runs"
		long_seeds | paced $((180 * times))
	fi
}

# The same order every time, programs mixed, so that a deadline cuts fairly.
shuffle_fixed() {
	awk '{ print (NR * 7919) % 10007, $0 }' | sort -n | cut -d' ' -f2-
}

# paced SECONDS: runs stdin's lines until the time is up.
paced() {
	local end=$((SECONDS + $1)) p v left=0

	while read -r p v; do
		if [ "$SECONDS" -ge "$end" ]; then
			left=$((left + 1))
			continue
		fi
		while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
		"$0" job "$p" "$v" &
	done
	wait
	[ "$left" = 0 ] || echo "# $left runs not started: $1 s are over"
}

all_runs() {
	wanted "$1" | matrix
	# shellcheck disable=SC2086
	report '' $variants
	run_seeds "$1"
	run_storm "$1"
	# shellcheck disable=SC2046
	report 'torture ' $(cd "$work/out" && ls | grep -o 'torture=[0-9]*' |
		sort -t= -k2n -u)
}

main() {
	pass=0 skips=0 fails=0
	list=${TRAP_ONLY:-$(programs)}
	rm -rf "$work"
	mkdir -p "$work"/{tmp,cache,out,spill}
	all_runs "$1"
	echo "# traps: $pass passed, $fails failed, $skips skipped"
	echo "$pass $fails $skips" >"$B/preload.counts"
	if [ "$fails" = 0 ]; then
		rm -rf "$work"
	else
		rm -rf "$work/cache" "$work/tmp" "$work/spill"
		echo "# outputs are in $B/trap/out"
	fi
	[ "$fails" = 0 ] && [ "$pass" -gt 0 ]
}

case $1 in
job)	job "$2" "$3" ;;
one)	mkdir -p "$work"/{tmp,cache,out,spill}
	execute "$2" "$3"
	st=$?
	cat "$work/out/$2.$3.err"
	verdict=$(judge "$2" "$3" $st)
	echo "$verdict"
	case $verdict in FAIL*) rerun "$2" "$3"; exit 1 ;; esac ;;
quick|long)
	[ -e "$lib" ] || { echo "run.sh: $lib is missing: run make" >&2; exit 1; }
	# Many of them wait for a disk, or for a delay that torture asked for.
	[ "$1" = quick ] || jobs=${TRAP_JOBS:-3}
	main "$1" ;;
*)	echo "usage: $0 quick | long | one PROG VARIANT" >&2; exit 2 ;;
esac
