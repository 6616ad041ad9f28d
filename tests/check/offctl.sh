#!/bin/bash
# SPDX-License-Identifier: MIT
#
# offctl.sh - the command line of offctl, and the manual pages against the
# tables they describe.
#
# Owns a scratch folder and the programs it starts; lock: none. A stand-in
# for liboffload.so says that it was loaded; a small program that publishes
# statistics the way the library does stands in for a running engine.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
offctl=$(realpath -m "$B")/offctl
[ -x "$offctl" ] || { echo "FAIL: $offctl is missing"; exit 1; }
CC=${CC:-cc}
command -v "$CC" >/dev/null || { echo "no compiler"; exit 77; }
dir=$(mktemp -d) || exit 1
holder=
trap '[ -z "$holder" ] || kill "$holder" 2>/dev/null; rm -rf "$dir"' EXIT
unset LD_PRELOAD ${!OFFLOAD_*}
bad=0

fail() {
	echo "FAIL: $*"
	bad=1
}

# try STATUS WANT COMMAND...: status, and a piece of what stdout and stderr
# together say; "" for anything, "-" for nothing at all.
try() {
	local status=$1 want=$2 got

	shift 2
	"$@" >"$dir/out" 2>&1 </dev/null
	got=$?
	[ $got -eq "$status" ] || fail "$*: status $got, not $status: $(cat "$dir/out")"
	case $want in
	"")	;;
	-)	[ ! -s "$dir/out" ] || fail "$*: says $(cat "$dir/out")" ;;
	*)	grep -qF -- "$want" "$dir/out" ||
			fail "$*: \"$want\" is not in \"$(cat "$dir/out")\"" ;;
	esac
}

says() {
	grep -qF -- "$1" "$dir/out" || fail "\"$1\" is not in \"$(cat "$dir/out")\""
}

silent_on() {
	! grep -qF -- "$1" "$dir/out" || fail "\"$1\" is in \"$(cat "$dir/out")\""
}

# ---- commands ---------------------------------------------------------------

version=$(sed -n 's/^VERSION *:= *//p' Makefile)
try 0 "offctl $version" "$offctl" --version
try 0 "usage: offctl COMMAND" "$offctl" --help
try 2 "usage: offctl COMMAND" "$offctl"
try 2 "no command frobnicate" "$offctl" frobnicate
for c in run stats top doctor plan simulate; do
	"$offctl" --help | grep -q "^  $c " || fail "--help leaves out $c"
	try 0 "Usage: offctl $c" "$offctl" $c --help
	try 2 "" "$offctl" $c --frobnicate
done
try 1 "needs a terminal" "$offctl" top

# ---- run ----------------------------------------------------------------------

cat >"$dir/lib.c" <<'C'
#include <stdio.h>
#include <stdlib.h>
#define SHOW(v) fprintf(stderr, " " #v "=%s", getenv(#v) ? getenv(#v) : "")
__attribute__((constructor)) static void loaded(void)
{
	fputs("loaded", stderr);
	SHOW(OFFLOAD_RAM);
	SHOW(OFFLOAD_VRAM);
	SHOW(OFFLOAD_SPILL);
	SHOW(LD_PRELOAD);
	fputc('\n', stderr);
}
C
echo 'int main(void) { return 7; }' >"$dir/seven.c"
"$CC" -shared -fPIC -o "$dir/liboffload.so" "$dir/lib.c" &&
"$CC" -o "$dir/seven" "$dir/seven.c" || { echo "the compiler fails"; exit 77; }
export OFFLOAD_LIB=$dir/liboffload.so
run="$offctl run"

try 7 "loaded" $run -- "$dir/seven"
try 7 "OFFLOAD_RAM=2600M" $run --ram 2600M "$dir/seven"
try 7 "OFFLOAD_VRAM=1G OFFLOAD_SPILL=$dir " $run --vram=1G --spill "$dir" "$dir/seven"
try 7 "LD_PRELOAD=$dir/liboffload.so" $run -- "$dir/seven"
OFFLOAD_RAM=3G try 7 "OFFLOAD_RAM=3G" $run -- "$dir/seven"
OFFLOAD_RAM=3G try 7 "OFFLOAD_RAM=4G" $run --ram 4G -- "$dir/seven"
cp "$dir/liboffload.so" "$dir/other.so"
try 7 "$dir/liboffload.so:$dir/other.so" env LD_PRELOAD="$dir/other.so" \
	$run -- "$dir/seven"
try 7 "LD_PRELOAD=$dir/liboffload.so" env LD_PRELOAD="$dir/liboffload.so" \
	$run -- "$dir/seven"
silent_on "$dir/liboffload.so:"

try 5 "" $run -- sh -c 'exit 5'
try 143 "" sh -c "$run -- sh -c 'kill -TERM \$\$'; exit \$?"
try 0 "--ram" $run -- echo --ram
try 0 "-- x" $run echo -- x
try 2 "K, M, G" $run --ram 12Q -- "$dir/seven"
try 2 "no such directory" $run --spill "$dir/none" -- "$dir/seven"
try 2 "which program" $run
try 127 "command not found" $run -- no-such-command-here
try 127 "command not found" $run -- "$dir/no-such-file"
try 126 "Permission denied" $run -- "$dir/seven.c"
try 126 "Permission denied" $run -- "$dir"

# scripts: what counts is their interpreter
printf '#!/bin/sh\nexit 3\n' >"$dir/script"
printf 'exit 4\n' >"$dir/plain"
printf '#!%s/script\n' "$dir" >"$dir/nested"
printf '#! %s/seven\n' "$dir" >"$dir/spaced"
printf '#!%s/none\n' "$dir" >"$dir/orphan"
chmod +x "$dir/script" "$dir/plain" "$dir/nested" "$dir/spaced" "$dir/orphan"
try 3 "loaded" $run -- "$dir/script"
try 4 "loaded" $run -- "$dir/plain"
try 3 "loaded" $run -- "$dir/nested"
try 7 "loaded" $run -- "$dir/spaced"
try 127 "interpreter or loader is missing" $run -- "$dir/orphan"

# programs that cannot be preloaded: told once, then run
not_loaded() {
	try "$1" "$2: runs without the library" $run -- "$3"
	silent_on "loaded OFF"
	[ "$(grep -c "runs without" "$dir/out")" = 1 ] || fail "$3: told twice"
}
if "$CC" -static -o "$dir/static" "$dir/seven.c" 2>/dev/null; then
	not_loaded 7 "is linked statically" "$dir/static"
	printf '#!%s/static\n' "$dir" >"$dir/over"
	chmod +x "$dir/over"
	not_loaded 7 "is linked statically" "$dir/over"
fi
if "$CC" -static-pie -o "$dir/spie" "$dir/seven.c" 2>/dev/null; then
	not_loaded 7 "is linked statically" "$dir/spie"
fi
cp "$dir/seven" "$dir/arch"
printf '\x28' | dd of="$dir/arch" bs=1 seek=18 conv=notrunc 2>/dev/null
not_loaded 126 "another architecture than the library" "$dir/arch"
if grep -qaF '/lib64/ld-linux-x86-64.so.2' "$dir/seven"; then
	sed 's,/lib64/ld-linux-x86-64.so.2,/lib/ld-musl-x86_64.so.1\x00\x00\x00,' \
		"$dir/seven" >"$dir/musl"
	chmod +x "$dir/musl"
	try 127 "uses musl, the library needs glibc" $run -- "$dir/musl"
fi
if [ "$(id -u)" = 0 ] && cp "$dir/seven" "$dir/suid" &&
   chown 65534 "$dir/suid" && chmod 4755 "$dir/suid" &&
   ! findmnt -T "$dir" -no OPTIONS 2>/dev/null | grep -q nosuid; then
	not_loaded 7 "is setuid" "$dir/suid"
	chown 0:65534 "$dir/suid" && chmod 2755 "$dir/suid"
	not_loaded 7 "is setgid" "$dir/suid"
fi
OFFLOAD_LIB=$dir/none try 7 "not named by OFFLOAD_LIB" $run -- "$dir/seven"
mkdir "$dir/a b" && cp "$dir/liboffload.so" "$dir/a b"
OFFLOAD_LIB="$dir/a b/liboffload.so" try 7 "a blank" $run -- "$dir/seven"

# found beside offctl, and in ../lib
unset OFFLOAD_LIB
mkdir -p "$dir/i/bin" "$dir/i/lib" && cp "$offctl" "$dir/i/bin"
try 7 "not beside offctl" "$dir/i/bin/offctl" run -- "$dir/seven"
cp "$dir/liboffload.so" "$dir/i/lib"
try 7 "LD_PRELOAD=$dir/i/lib/liboffload.so" "$dir/i/bin/offctl" run "$dir/seven"
cp "$dir/liboffload.so" "$dir/i/bin"
try 7 "LD_PRELOAD=$dir/i/bin/liboffload.so" "$dir/i/bin/offctl" run "$dir/seven"

# ---- stats --------------------------------------------------------------------

try 1 "no such process" "$offctl" stats 4194304
try 1 "nothing to do in it" "$offctl" stats $$
try 2 "is not one process id" "$offctl" stats x
try 2 "is not one process id" "$offctl" stats 1 2

cat >"$dir/hold.c" <<'C'
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "core/log.h"
#include "core/stats.h"
void off_log(const char *fmt, ...) { puts(fmt); }
static void *own(void *arg)
{
	if (unshare(CLONE_FILES) || stats_start())
		puts("failed");
	stats_names("move", "io_uring");
	stat_set(ST_HOST_REGIONS, 3);
	stat_set(ST_HOST_MANAGED, 5ull << 29);
	stat_add(ST_IO_READ, 123456789);
	stat_add(ST_FAULTS_DEMAND, 42);
	stat_set(ST_BUDGET_RAM, 2ull << 30);
	stat_set(ST_TAPE_PERIOD, 1280);
	off_stats_now->devices = 1;
	strcpy(off_stats_now->device[0].name, "Card");
	off_stats_now->device[0].v[SD_BUDGET] = 2ull << 30;
	off_stats_now->device[0].v[SD_RESIDENT] = 1ull << 30;
	off_stats_now->device[0].v[SD_HOST_HOME] = 3ull << 30;
	stat_set(ST_TAPE_LAST_NS, 400000000);
	stat_set(ST_TAPE_LAST_READ, 800000000);
	puts("ready");
	fflush(stdout);
	pause();
	return arg;
}
int main(void)
{
	pthread_t t;
	pthread_create(&t, NULL, own, NULL);
	pause();
}
C
if "$CC" -D_GNU_SOURCE -I. -pthread -o "$dir/hold" "$dir/hold.c" core/stats.c core/outfile.c \
	core/options.c core/sys.c 2>"$dir/out"; then
	"$dir/hold" "two words" >"$dir/ready" &
	holder=$!
	n=0
	until [ -s "$dir/ready" ] || [ $n -ge 200 ]; do
		sleep 0.05
		n=$((n + 1))
	done
	grep -q ready "$dir/ready" || fail "the stand-in did not start"
	try 0 "\"pid\":$holder," "$offctl" stats --json $holder
	says '"schema":1,'
	says "hold two words\""
	says '"regions":3,'
	says '"read_bytes":123456789,'
	says '"pager":"move","io_engine":"io_uring","devices":[{"name":"Card",'
	grep -q '}\]}$' "$dir/out" || fail "the JSON ends with $(tail -c 40 "$dir/out")"
	try 0 "host.managed_bytes                 2.50 GiB" "$offctl" stats $holder
	says "pager move, io io_uring; 3 regions"
	try 0 "$holder move" "$offctl" stats
	try 0 "\"pid\":$holder," "$offctl" stats --json
	if command -v python3 >/dev/null; then
		"$offctl" stats --json | python3 -c "
import json, sys
a = json.load(sys.stdin)
assert [p for p in a if p['pid'] == $holder and p['host']['regions'] == 3], a
" || fail "stats --json is not an array with the process in it"
	fi
	try 0 "seen       0.400 s in the last pass, 762.93 MiB read" \
		"$offctl" plan --compute 0.1 $holder
	says "disk       2.00 GB/s at least"
	says "memory     2.00 GiB, 40.00 MiB of it"
	says "used each pass        2.50 GiB  1.000"
	try 0 "disk       5.00 GB/s" "$offctl" plan --disk 5 --ram 1G $holder
	says "memory     1.00 GiB"
	if command -v script >/dev/null; then
		(sleep 0.5; echo q) | TERM=xterm script -qec "$offctl top" /dev/null \
			>"$dir/out" 2>&1
		says "2.50 GiB"
		says "offctl top"
		for what in "device 0  Card  in it 1.00 GiB of 2.00 GiB" \
			"at the host 3.00 GiB  spilled " "to it " "moved " "  stall "
		do
			says "$what"
		done
	fi
	kill $holder
	wait $holder 2>/dev/null
	try 1 "no such process" "$offctl" stats $holder
	holder=
else
	fail "the stand-in does not compile: $(cat "$dir/out")"
fi

# ---- doctor --------------------------------------------------------------------

"$offctl" doctor --no-disk >"$dir/out" 2>&1
case $?:$(tail -n 1 "$dir/out") in
"0:pager mode: move" | 1:"pager mode: "* | "2:pager mode: off") ;;
*)	fail "doctor ends with $? and $(tail -n 1 "$dir/out")" ;;
esac
for what in library userfaultfd io_uring "huge pages" memory swap libunwind GPU
do
	grep -q "^....  $what " "$dir/out" || fail "doctor says nothing of $what"
done
silent_on O_DIRECT
"$B/preload/helper_nosys" userfaultfd -- "$offctl" doctor --no-disk >"$dir/out" 2>&1
says "only the hints mode is left"
says "pager mode: hints"
head -c 8M /dev/urandom >"$dir/file"
"$offctl" doctor --file "$dir/file" >"$dir/out" 2>&1
says "O_DIRECT"
OFFLOAD_SYSROOT=$PWD/tests/data/sysroot/v2-nested \
	"$offctl" doctor --no-disk >"$dir/out" 2>&1
says "cgroup v2 limit 3.00 GiB (of a parent), 1.87 GiB used"
says "may hold 1.33 GiB"
cp -r tests/data/sysroot/v2-nested "$dir/sysroot"
printf 'MemTotal: 4000000 kB\nMemAvailable: 4000000 kB\nSwapTotal: 1048576 kB\n' \
	>"$dir/sysroot/proc/meminfo"
mkdir -p "$dir/sysroot/sys/kernel/mm/transparent_hugepage"
echo 'always madvise [never]' >"$dir/sysroot/sys/kernel/mm/transparent_hugepage/enabled"
OFFLOAD_SYSROOT=$dir/sysroot "$offctl" doctor --no-disk >"$dir/out" 2>&1
says "less  huge pages   always madvise [never]"
says "swap         1.00 GiB, swappiness"

# ---- plan ------------------------------------------------------------------------

# safetensors FILE MIB: one tensor of a layer, its data from stdin.
safetensors() {
	local json="{\"model.layers.0.mlp.up_proj.weight\":{\"dtype\":\"F32\","

	json+="\"shape\":[$(($2 << 18))],\"data_offsets\":[0,$(($2 << 20))]}}"
	{
		printf "\\x$(printf %x ${#json})\0\0\0\0\0\0\0%s" "$json"
		head -c "$2M"
	} >"$1"
}
# number KEY: its value in the JSON of the last try.
number() {
	sed -n "s/.*\"$1\":\([0-9.]*\)[,}].*/\1/p" "$dir/out"
}
# below A B
below() {
	awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && b != "" && a < b) }' ||
		fail "$1 is not below $2"
}
plan="$offctl plan"
safetensors "$dir/rand.st" 64 </dev/urandom
yes "a line of text, again and again and again" | safetensors "$dir/text.st" 64

# 48 MiB, a quarter of them on its way: 28 MiB at 1 GB/s are read
try 0 '"seconds":0.029360,' $plan --json --ram 48M --disk 1 --compute 0.001 "$dir/rand.st"
says '"absent_bytes":29360128}'
says '"bottleneck":"disk"'
says '"gib_more_ram_seconds":0.001000'
says '"disk_twice_seconds":0.014680'
# ... which takes a little of the processors, however many they are
try 0 '"seconds":1.0' $plan --json --ram 48M --disk 1 --compute 1 "$dir/rand.st"
says '"bottleneck":"compute"'
try 0 '"plain_bytes":67108864,' $plan --json --ram 64M --disk 1 --compute 1 "$dir/rand.st"
try 0 '"seconds":' $plan --json --ram 48M --disk 0.1 --compute 0.001 "$dir/text.st"
below 2 "$(number ratio)"
below "$(number seconds)" 0.1		# 0.29 if it did not pack
below 1000000 "$(number packed_bytes)"
try 0 "128.00 MiB" $plan --ram 48M --disk 1 "$dir/rand.st" "$dir/text.st"
says "an estimate: memory is read at"
says "bottleneck  "
says "f32 loop  "
try 0 "device     32.00 MiB, the link 10.0 GB/s" $plan --ram 1G --vram 32M \
	--link 10 --disk 1 "$dir/rand.st"
says "with 1 GiB more VRAM"
says "with twice the link"

# 64 MiB: 16 on the device, 48 plain over a link of 0.5 GB/s; computing is beside
try 0 '"link_s":0.100663,' $plan --json --ram 1G --vram 16M --link 0.5 --disk 1 \
	--compute 0.1 "$dir/rand.st"
says '"seconds":0.100663,'
says '"bottleneck":"link"'
says '"device_bytes":16777216,'
says '"gib_more_vram_seconds":0.100000'
says '"link_twice_seconds":0.100000'
# computing takes as long as the link: each waits for the other now and then
below 0.115 "$(number likely_seconds)"
below "$(number likely_seconds)" 0.12

# of bf16, exactly: 1.42; rounded as OFFLOAD_LOSSY says: 1.94, 3.76
"$B/mkmodel" --type bf16 --layers 1 --dim 512 --ff 1024 --vocab 320 "$dir/bf16.gguf" >/dev/null
ratio() {	# LOSSY LEAST MOST
	try 0 '"schema":1' env OFFLOAD_LOSSY="$1" $plan --json --ram 1M --disk 1 \
		--compute 0.01 "$dir/bf16.gguf"
	sed -n 's/.*"bf16 loop"[^}]*"ratio":\([0-9.]*\).*/\1/p' "$dir/out" >"$dir/ratio"
	below "$2" "$(cat "$dir/ratio")"
	below "$(cat "$dir/ratio")" "$3"
}
ratio "" 1.35 1.5
says '"lossy":{"bits":0,"bytes":0}'
ratio int8 1.9 2
says '"lossy":{"bits":8,'
ratio int4 3.5 4
ratio int8:none.such 1.35 1.5
says '"lossy":{"bits":8,"bytes":0}'
try 0 "to int4 where it is packed" env OFFLOAD_LOSSY=int4 $plan --ram 1M --disk 1 \
	--compute 0.01 "$dir/bf16.gguf"
"$offctl" plan --ram 48M "$dir/rand.st" >"$dir/out" 2>&1
case $? in
0)	says "GB/s with the processors idle" ;;
1)	says "give --disk GB/S" ;;
*)	fail "plan: $(cat "$dir/out")" ;;
esac

one() {
	[ "$(wc -l <"$dir/out")" = 1 ] || fail "not one message: $(cat "$dir/out")"
}
head -c 40M "$dir/rand.st" >"$dir/cut.st"
try 1 "is truncated: its header promises" $plan --disk 1 "$dir/cut.st"; one
head -c 60 "$dir/rand.st" >"$dir/cut.st"
try 1 "is truncated" $plan --disk 1 "$dir/cut.st"; one
try 1 "not a model file" $plan --disk 1 "$dir/hold.c"; one
: >"$dir/empty"
try 1 "not a model file" $plan --disk 1 "$dir/empty"; one
try 1 "No such file" $plan --disk 1 "$dir/none"; one
try 1 "not a regular file" $plan --disk 1 "$dir"; one
try 1 "not a regular file" $plan --disk 1 /dev/null; one
printf '\2\0\0\0\0\0\0\0{}' >"$dir/empty"
try 1 "no tensors" $plan --disk 1 "$dir/empty"; one
safetensors "$dir/small.st" 1 </dev/urandom
try 1 "give --disk GB/S" $plan "$dir/small.st"; one
try 1 "no such process" $plan 4194304; one
try 1 "nothing to do in it" $plan $$; one
try 2 "which model file" $plan
try 2 "K, M, G" $plan --ram 12Q "$dir/rand.st"; one
try 2 "number above 0" $plan --disk 0 "$dir/rand.st"; one
try 2 "number above 0" $plan --disk fast "$dir/rand.st"; one
try 2 "number above 0" $plan --compute -1 "$dir/rand.st"; one

# ---- simulate --------------------------------------------------------------------

{
	echo "offload-tape 1 chunk_bytes=2097152 chunks=4000"
	echo "# ten passes over a loop of 100"
	echo "span 0 100 loop 0 blk.0"
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		echo "0*60 1"
		echo "60*40 2"
	done
} >"$dir/loop.tape"
try 0 "1000 uses of 100 chunks (200.00 MiB); memory 80 frames" \
	"$offctl" simulate "$dir/loop.tape"
for p in live lru clock lfu wa-lru heat mru belady; do
	grep -q "^$p " "$dir/out" || fail "simulate leaves out $p"
done
says "lru        0.00%      1000"
belady=$(awk '$1 == "belady" { print $3 }' "$dir/out")
[ "$belady" -ge 280 ] && [ "$belady" -le 289 ] ||
	fail "belady fetched $belady, not 100 + 9 x 20 or 21"
try 0 "memory 50 frames (100.00 MiB)" "$offctl" simulate "$dir/loop.tape" \
	--ram 100M --policy lru
silent_on "belady "
try 0 "memory 7 frames" "$offctl" simulate "$dir/loop.tape" --frames 7
try 2 "there are: live" "$offctl" simulate "$dir/loop.tape" --policy best
try 2 "which tape" "$offctl" simulate
try 2 "number above 0" "$offctl" simulate "$dir/loop.tape" --disk 0
try 1 "No such file" "$offctl" simulate "$dir/none"

# broken TEXT WHY: a tape that must be refused with its line.
broken() {
	printf "$1" >"$dir/bad.tape"
	try 1 "$2" "$offctl" simulate "$dir/bad.tape"
}
head="offload-tape 1 chunk_bytes=4096 chunks=10"
broken "" "empty"
broken "$head\n" "no uses"
broken "hello\n" ":1: not a tape"
broken "offload-tape 2 chunk_bytes=4096 chunks=10\n" "another version"
broken "offload-tape 1 chunk_bytes=0 chunks=10\n" "no chunks"
broken "$head\n10 1\n" ":2: a use beyond"
broken "$head\n5*6 1\n" ":2: a use beyond"
broken "$head\n5*4294967295 1\n" ":2: a use beyond"
broken "$head\n1 1\n-1 1\n" ":3: a use is"
broken "$head\n1\n" ":2: a use is"
broken "$head\n1 1 1\n" ":2: a use is"
broken "$head\nspan 0 11 loop 0 x\n" ":2: a span beyond"
broken "$head\nspan 0 1 ring 0 x\n" ":2: a span is"

# ---- the manual against the tables -------------------------------------------------

# The rows in the page, between its own marks, are what `--help` prints.
"$offctl" run --help | sed -n 's/^  \(OFFLOAD_[A-Z_]*=.*\)/\1/p' >"$dir/help.opts"
sed -n 's/^\.B "\(OFFLOAD_[A-Z_]*=.*\)"$/\1/p' docs/liboffload.7 >"$dir/man.opts"
cmp -s "$dir/help.opts" "$dir/man.opts" ||
	fail "docs/liboffload.7: options differ: $(diff "$dir/help.opts" "$dir/man.opts")"
[ "$(wc -l <"$dir/help.opts")" -ge 19 ] || fail "--help lists too few options"

tr '\n' ' ' <core/stats.def | grep -oE 'ST\([A-Z_]+, [a-z]+, [a-z_]+,' |
	sed 's/ST([A-Z_]*, \([a-z]*\), \([a-z_]*\),/\1.\2/' |
	grep -v '^group\.key$' >"$dir/def.stats"
sed -n 's/^DEV([A-Z0-9_]*, "\([a-z]*\)", \([a-z0-9_]*\),.*/\1:\2/p' core/device.def |
	sed 's/^://; s/:/ : /' >"$dir/rows.dev"
sed -n '/^\.B devices$/,/^\.RE$/s/^\.BR\{0,1\} \([a-z0-9_]*\( : [a-z]*\)\{0,1\}\)$/\1/p' docs/liboffload.7 |
	grep -vxE 'devices|name|id|pager' >"$dir/man.dev"
[ -s "$dir/rows.dev" ] && cmp -s "$dir/rows.dev" "$dir/man.dev" ||
	fail "docs/liboffload.7: devices differ: $(diff "$dir/rows.dev" "$dir/man.dev")"
sed -n 's/^\.B \([a-z]*\.[a-z_]*\)$/\1/p' docs/liboffload.7 >"$dir/man.stats"
cmp -s "$dir/def.stats" "$dir/man.stats" ||
	fail "docs/liboffload.7: statistics differ:" \
		"$(diff "$dir/def.stats" "$dir/man.stats")"
# And it says what they say.
python3 - <<'PY' >"$dir/out" || fail "docs/liboffload.7: $(cat "$dir/out")"
import re, sys
page, bad = open("docs/liboffload.7").read().replace("\\(aq", "'").replace("\\-", "-"), 0
said = {}
for m in re.finditer(r'^\.BR? ([a-z0-9_.]+(?: : [a-z]+)?)\n((?:[^.\n].*\n)+)', page, re.M):
    said.setdefault(m[1].split(" : ")[-1], []).append(" ".join(m[2].split()))
for table in "stats.def", "device.def":
    rows = re.findall(r'^(ST|DEV)\([A-Z0-9_]+, "?([a-z]*)"?, ([a-z0-9_]+), [A-Z]+,((?:\s*"[^"]*")+)\)',
                      open("core/" + table).read(), re.M)
    for kind, group, key, text in rows:
        text = "".join(re.findall(r'"([^"]*)"', text))
        name = f"{group}.{key}" if kind == "ST" else key
        if text[0].upper() + text[1:] + "." not in said.get(name, []):
            print(name, "is not", repr(text), "there, but", said.get(name))
            bad = 1
    if len(rows) < 20:
        sys.exit("too few rows of " + table)
sys.exit(bad)
PY
[ "$(wc -l <"$dir/def.stats")" -ge 29 ] || fail "stats.def has too few rows"

for c in run stats top doctor plan simulate; do
	"$offctl" $c --help | grep -oE -- '--[a-z-]+' | sort -u |
		grep -vxE -- '--(help|usage|version)' >"$dir/flags"
	while read -r flag; do
		sed -n "/^\.SS $c\$/,/^\.S[SH] /p" docs/offctl.1 | sed 's/\\-/-/g' |
			grep -qF -- "$flag" || fail "docs/offctl.1: $c $flag is missing"
	done <"$dir/flags"
done
if command -v man >/dev/null; then
	for page in docs/*.[17]; do
		LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -l "$page" \
			2>"$dir/out" >"$dir/page"
		[ ! -s "$dir/out" ] || fail "$page: $(cat "$dir/out")"
		[ -s "$dir/page" ] || fail "$page: man shows nothing"
	done
fi
exit $bad
