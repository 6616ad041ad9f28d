#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh - programs that go on until what is to be shown was seen.
#
#     tests/soak/run.sh long              all of it, in modes move and copy
#     tests/soak/run.sh one NAME MODE     soak, eight or crowd, in one mode
#
# Owns build/soak (files, logs, statistics); empty again when all passed.
#
# soak    anon_stress with three times its budget, until the chunks of its working set
#         were evicted TURNS times each: the most bytes that were ever in regions, and
#         the evictions of the first process alone (its children's are not counted).
# eight   eight programs in one memory cgroup, with one file and one spill folder. All
#         evict; one is killed meanwhile, and the others get its share of the budget;
#         no word is wrong, the spill folder is empty, nothing is killed for memory.
# crowd   the same, each promised its blocks while there was room for all: those that are
#         not paged give way before they starve those that are. They need not all evict.
#
# (1) Statistics decide when it is enough, and no clock; a clock ends what hangs.
# (2) SOAK_TURNS, SOAK_SEED, SOAK_LIMIT (seconds for one run). OFFLOAD_LONG: so many
#     times the turns.
# (3) Without a memory cgroup to be had, eight is skipped.
# Lock: none.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
work=$(realpath -m "$B")/soak
turns=$((${SOAK_TURNS:-100} * ${OFFLOAD_LONG:-1}))
seed=${SOAK_SEED:-$((RANDOM + 1))}
limit=$((${SOAK_LIMIT:-240} * ${OFFLOAD_LONG:-1}))
MEMORY=$((${SOAK_MEMORY:-640} << 20))	# of the group
EACH=${SOAK_EACH:-102}			# MiB of the file, and of blocks, of each of the eight
unset LD_PRELOAD ${!OFFLOAD_*}

say() {
	echo "$*" >&2
	return 1
}

# live PID KEY...: numbers of its statistics now, 0 where it has none.
live() {
	local pid=$1 json key n

	shift
	json=$("$B/offctl" stats --json "$pid" 2>/dev/null)
	for key in "$@"; do
		n=$(grep -o "\"$key\": *[0-9]*" <<<"$json" | head -n 1)
		echo "${n##*[!0-9]}"
	done | sed 's/^$/0/' | tr '\n' ' '
}

environment() {
	echo "TRAP_MODE=$1 OFFLOAD_PAGER=$1 TMPDIR=$work/tmp TRAP_CACHE=$work/cache"
	echo "OFFLOAD_SPILL=$work/spill OFFLOAD_HOST_MIN=64K LD_PRELOAD=$lib"
}

# gone PID: it has ended, or is to be waited for.
gone() {
	[[ ! -e /proc/$1/stat || $(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null) == Z ]]
}

# stop PID...: told to end; and ended, where that hangs (1).
stop() {
	local p left

	kill -TERM "$@" 2>/dev/null
	for p in "$@"; do
		left=240
		while ! gone "$p" && [ $((left--)) -gt 0 ]; do sleep 0.5; done
		gone "$p" || say "no end after SIGTERM" || kill -KILL "$p"
	done
}

soak() {
	local mode=$1 end=$((SECONDS + limit)) pid status evicted=0 managed chunks=1

	# shellcheck disable=SC2046
	env $(environment "$mode") OFFLOAD_RAM=24M STRESS_SOAK=1 STRESS_SEED="$seed" \
		OFFLOAD_STATS="$work/out/soak.$mode.json" "$B/preload/anon_stress" \
		>"$work/out/soak.$mode.log" 2>&1 </dev/null &
	pid=$!
	while [ "$evicted" -lt $((turns * chunks)) ] && [ "$SECONDS" -lt "$end" ] && ! gone $pid; do
		sleep 0.5
		read -r evicted managed <<<"$(live $pid evictions managed_bytes)"
		[ $((managed >> 21)) -le $chunks ] || chunks=$((managed >> 21))
		[ $chunks -gt 24 ] || evicted=0		# it has only begun
	done
	stop $pid
	wait $pid
	status=$?
	grep -q "\"pager\": *\"$mode\"" "$work/out/soak.$mode.json" ||
		{ say "mode $mode is not to be had here"; return 77; }
	evicted=$(grep -o '"evictions": *[0-9]*' "$work/out/soak.$mode.json" | grep -o '[0-9]*$')
	say "seed $seed, $chunks chunks with room for 12, evicted ${evicted:-0} times:" \
	    "$((${evicted:-0} / chunks)) turns"
	[ $status = 0 ] || say "exit status $status: $(tail -n 3 "$work/out/soak.$mode.log")" || return
	[ "$chunks" -ge 36 ] || say "less than three times the budget" || return
	[ "${evicted:-0}" -ge $((turns * chunks)) ] || say "not $turns turns in $limit s"
}

# ---- eight programs; `group_...` runs in the cgroup ------------------------------------

# total KEY PID...: the sum of it.
total() {
	local key=$1 p n sum=0

	shift
	for p in "$@"; do
		read -r n <<<"$(live "$p" "$key")"
		sum=$((sum + n))
	done
	echo $sum
}

# least PID...: the fewest evictions of one of them.
least() {
	local p n few=

	for p in "$@"; do
		read -r n <<<"$(live "$p" evictions)"
		[ -n "$few" ] && [ "$few" -le "$n" ] || few=$n
	done
	echo "$few"
}

# start MODE OPTION...: eight of them, their ids in pids.
start() {
	local mode=$1 i

	shift
	for i in 1 2 3 4 5 6 7 8; do
		# shellcheck disable=SC2046
		env $(environment "$mode") OFFLOAD_STATS="$work/out/eight.$mode.$i.json" "$@" \
			"$B/preload/helper_shared" $i $EACH >"$work/out/eight.$mode.$i.log" 2>&1 &
		pids+=($!)
		# The first makes the file.
		while [ $i = 1 ] && ! ls "$work"/cache/trap-*-8.gguf >/dev/null 2>&1; do sleep 0.2; done
	done
}

group_crowd() {
	local end=$((SECONDS + limit)) pids=() bad=0 sum=0 p

	start "$1"
	while [ $sum -lt $((120 << 20)) ] && [ "$SECONDS" -lt "$end" ]; do
		sleep 0.5
		[ "$(total evictions "${pids[@]}")" -lt 400 ] || sum=$(total ram_bytes "${pids[@]}")
	done
	[ $sum -ge $((120 << 20)) ] || say "all together may hold $((sum >> 20)) MiB" || bad=1
	stop "${pids[@]}"
	for p in "${pids[@]}"; do
		wait "$p" || say "one ended with $?" || bad=1
	done
	say "what was left for regions: $((sum >> 20)) MiB"
	return $bad
}

group_eight() {
	local mode=$1 end=$((SECONDS + limit)) pids=() others before after=0 few=0 bad=0 p

	# Less than its blocks: each has to evict, whoever came first.
	start "$mode" OFFLOAD_RAM=100M
	while [ "$few" -lt 20 ] && [ "$SECONDS" -lt "$end" ]; do
		sleep 0.5
		few=$(least "${pids[@]}")
	done
	[ "$few" -ge 20 ] || say "one of them has $few evictions" || bad=1
	others=("${pids[@]:1}")
	before=$(total ram_bytes "${others[@]}")
	kill -KILL "${pids[0]}"
	wait "${pids[0]}" 2>/dev/null
	# A share is about an eighth: half of one more is more than chance.
	end=$((SECONDS + 60))
	while [ "$after" -lt $((before + before / 14)) ] && [ "$SECONDS" -lt "$end" ]; do
		sleep 0.5
		after=$(total ram_bytes "${others[@]}")
	done
	[ "$after" -ge $((before + before / 14)) ] ||
		say "the others may hold $((after >> 20)) MiB, $((before >> 20)) before" || bad=1
	stop "${others[@]}"
	for p in "${others[@]}"; do
		wait "$p" || say "one ended with $?" || bad=1
	done
	[ -z "$(ls -A "$work/spill")" ] || say "left in the spill folder: $(ls -A "$work/spill")" || bad=1
	few=$(grep -ho '"evictions": *[0-9]*' "$work/out/eight.$mode".[2-8].json | grep -o '[0-9]*$' | sort -n | tr '\n' ' ')
	say "evictions $few; killed one of 8 programs: budgets of the others" \
	    "$((before >> 20)) MiB, then $((after >> 20)) MiB"
	cat "$work/out/eight.$mode".*.log >&2
	return $bad
}

eight() {
	local mode=$1 name=${2:-eight} report=$work/out/eight.$1.report status

	case $(tools/cgroup.sh probe) in
	v1 | v2) ;;
	*) say "no memory cgroup can be made here"; return 77 ;;
	esac
	tools/cgroup.sh run --limit $MEMORY --report "$report" -- "$0" "group_$name" "$mode"
	status=$?
	say "group: $(cat "$report")"
	[ $status = 0 ] || return 1
	[ "$name" = eight ] || return 0
	[ "$(ls "$work/out/eight.$mode".[2-8].json | wc -l)" = 7 ] || say "statistics are missing" || return
	grep -q "\"pager\": *\"$mode\"" "$work/out/eight.$mode.2.json" ||
		{ say "mode $mode is not to be had here"; return 77; }
	grep -Eq '"max_usage":[1-9]' "$report" && grep -q '"oom_kill":0' "$report" ||
		say "something was killed for memory"
}

crowd() {
	eight "$1" crowd
}

# run NAME MODE: counts, and shows what was seen.
run() {
	local log=$work/out/$1.$2.said

	mkdir -p "$work"/{tmp,cache,out,spill}
	"$1" "$2" 2>"$log"
	case $? in
	0)	pass=$((pass + 1))
		echo "ok soak/$1 $2" ;;
	77)	skips=$((skips + 1))
		echo "ok soak/$1 $2 # skip: $(tail -n 1 "$log")" ;;
	*)	fails=$((fails + 1))
		echo "not ok soak/$1 $2"
		echo "    rerun: SOAK_SEED=$seed $0 one $1 $2" ;;
	esac
	sed 's/^/#   /' "$log"
}

pass=0 fails=0 skips=0
case $1 in
group_*) "$1" "$2"; exit ;;
one)	run "$2" "$3" ;;
long)	for name in soak eight; do
		run $name move
		run $name copy
	done
	run crowd move ;;
*)	echo "usage: $0 long | one soak|eight|crowd MODE" >&2; exit 2 ;;
esac
echo "$pass $fails $skips" >"$B/soak.counts"
[ $fails = 0 ] || exit 1
rm -rf "$work"
