#!/bin/sh
# SPDX-License-Identifier: MIT
# cgroup.sh - run a command in a memory cgroup of its own.
#
# Owns the group from its making to its removal, and nothing outside it.
#
#     cgroup.sh probe
#         prints v1, v2, systemd or none: how a group can be made here.
#     cgroup.sh run --limit BYTES [--report FILE] [--] COMMAND...
#         runs COMMAND in a fresh group. Its exit status is ours. DEMO_GROUP
#         is the group's folder, DEMO_FAILS its file that counts how often
#         the limit was hit. FILE gets what the kernel counted, as JSON.
#
# 1. Only COMMAND enters the group: this shell and the sampler stay outside.
# 2. The group is removed on any exit; what still runs in it is ended first,
#    and only that.
# 3. Swap is refused to the group: a limit is to be a limit.
set -u

die() {
	echo "cgroup: $*" >&2
	exit 125
}

own_v1() {
	at=$(awk -F: '$2 ~ /(^|,)memory(,|$)/ { print $3 }' /proc/self/cgroup)
	dir=/sys/fs/cgroup/memory$at
	[ -d "$dir" ] || dir=/sys/fs/cgroup/memory	# a cgroup namespace
	[ -f "$dir/memory.limit_in_bytes" ] && echo "${dir%/}"
}

# Folders a v2 group may be made in, the likeliest first. A folder that
# holds processes cannot give its children a controller: its parent may.
parents_v2() {
	at=$(awk -F: '$1 == 0 { print $3 }' /proc/self/cgroup)
	[ -f /sys/fs/cgroup/cgroup.controllers ] || return
	dir=/sys/fs/cgroup${at%/}
	while [ -d "$dir" ]; do
		echo "$dir"
		[ "$dir" = /sys/fs/cgroup ] && return
		dir=${dir%/*}
	done
	echo /sys/fs/cgroup
}

# Sets group, or fails.
make_group() {
	name=offload-demo-$$
	dir=$(own_v1)
	if [ -n "$dir" ] && mkdir "$dir/$name" 2>/dev/null; then
		kind=v1 group=$dir/$name
		return 0
	fi
	for dir in $(parents_v2); do
		grep -qw memory "$dir/cgroup.subtree_control" 2>/dev/null ||
			{ echo +memory >"$dir/cgroup.subtree_control"; } 2>/dev/null ||
			continue
		mkdir "$dir/$name" 2>/dev/null || continue
		if [ -w "$dir/$name/memory.max" ] && can_enter "$dir/$name"; then
			kind=v2 group=$dir/$name
			return 0
		fi
		rmdir "$dir/$name"
	done
	return 1
}

# Moving a process needs write access to the common ancestor too.
can_enter() {
	sh -c 'echo $$ >"$1/cgroup.procs"' sh "$1" 2>/dev/null
}

systemd_scope() {
	command -v systemd-run >/dev/null &&
		systemd-run --user --scope -q -p MemoryMax=64M true 2>/dev/null
}

set_limit() {
	if [ "$kind" = v1 ]; then
		echo 0 >"$group/memory.swappiness" 2>/dev/null
		echo "$1" >"$group/memory.limit_in_bytes"
	else
		echo 0 >"$group/memory.swap.max" 2>/dev/null
		echo "$1" >"$group/memory.max"
	fi || die "cannot set the limit of $group"
}

remove_group() {
	[ -n "${group:-}" ] && [ -d "$group" ] || return
	for i in 1 2 3 4 5 6 7 8 9 10; do
		rmdir "$group" 2>/dev/null && return
		while read -r pid; do
			kill -KILL "$pid" 2>/dev/null
		done <"$group/cgroup.procs"
		sleep 0.2
	done
	echo "cgroup: $group could not be removed" >&2
}

# field FILE KEY: the number after KEY in a "key value" file.
field() {
	awk -v k="$2" '$1 == k { v = $2 } END { print v + 0 }' "$1" 2>/dev/null
}

number() {
	cat "$1" 2>/dev/null || echo 0
}

# Looks for the highest anonymous memory until told to end, then writes it to
# the file $1: the kernel keeps no such maximum. Builtins, but for the sleep.
sample() {
	key=total_rss
	[ "$kind" = v2 ] && key=anon
	most=0
	trap 'echo $most >"$1"; exit 0' TERM
	while [ -d "$group" ]; do
		while read -r k v; do
			[ "$k" = $key ] && [ "$v" -gt $most ] && most=$v
		done <"$group/memory.stat"
		sleep 0.2
	done 2>/dev/null
}

report() {
	if [ "$kind" = v1 ]; then
		max=$(number "$group/memory.max_usage_in_bytes")
		fails=$(number "$group/memory.failcnt")
		killed=$(field "$group/memory.oom_control" oom_kill)
	else
		max=$(number "$group/memory.peak")
		fails=$(field "$group/memory.events" max)
		killed=$(field "$group/memory.events" oom_kill)
	fi
	printf '{"kind":"%s","limit":%s,"max_usage":%s,"fails":%s,' \
		"$kind" "$limit" "${max:-0}" "${fails:-0}"
	printf '"oom_kill":%s,"peak_anon":%s}\n' "${killed:-0}" "$(number "$1")"
}

run_group() {
	peak=$(mktemp) || die "no room for a temporary file"
	trap 'remove_group; rm -f "$peak"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	set_limit "$limit"
	DEMO_GROUP=$group
	DEMO_FAILS=$group/memory.failcnt
	[ "$kind" = v2 ] && DEMO_FAILS=$group/memory.events
	export DEMO_GROUP DEMO_FAILS
	sample "$peak" &
	sampler=$!
	sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@" &
	wait $!
	status=$?
	kill -TERM $sampler
	wait $sampler
	[ -n "$report" ] && report "$peak" >"$report"
	exit $status
}

run() {
	limit='' report=''
	while [ $# -gt 0 ]; do
		case $1 in
		--limit) limit=$2; shift 2 ;;
		--report) report=$2; shift 2 ;;
		--) shift; break ;;
		*) break ;;
		esac
	done
	[ -n "$limit" ] && [ $# -gt 0 ] || die "run --limit BYTES COMMAND..."
	make_group && run_group "$@"
	systemd_scope || die "no memory cgroup can be made here"
	[ -n "$report" ] && echo '{"kind":"systemd"}' >"$report"
	exec systemd-run --user --scope -q -p "MemoryMax=$limit" \
		-p MemorySwapMax=0 -- "$@"
}

probe() {
	if make_group; then
		rmdir "$group"
		echo $kind
	elif systemd_scope; then
		echo systemd
	else
		echo none
	fi
}

case ${1:-} in
run) shift; run "$@" ;;
probe) probe ;;
*) die "usage: cgroup.sh probe | run --limit BYTES [--report FILE] COMMAND..." ;;
esac
