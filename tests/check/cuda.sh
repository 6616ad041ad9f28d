#!/bin/bash
# SPDX-License-Identifier: MIT
#
# cuda.sh - the driver's look-ups: every way to a function of the driver leads to the
# library's hook, and nothing else is led anywhere.
#
# Owns a scratch folder; lock: none. Programs of tests/cuda, each with and without the
# library, on a stub of the driver. Where the CUDA toolkit is, its runtime too.

cd "$(dirname "$0")/../.." || exit 1
unset LD_LIBRARY_PATH	# the driver is the stub
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
cuda=$(realpath -m "$B")/cuda
[ "$(uname -m)" = x86_64 ] || { echo "look-ups are hooked on x86-64 only"; exit 77; }
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0

fail() {
	echo "FAIL: $*"
	bad=1
}

# both COMMAND...: it must exit 0 with and without the library.
both() {
	WANT_HOOKS=0 "$@" >"$dir/out" 2>&1 || fail "without: $*: $(tail -n 1 "$dir/out")"
	WANT_HOOKS=1 LD_PRELOAD="$lib $preload" "$@" >"$dir/out" 2>&1 ||
		fail "with: $*: $(tail -n 1 "$dir/out")"
}

preload=
both "$cuda/lookups" "$cuda/stub/libcuda.so.1" "$cuda/moved/libcuda.so.1"
both "$cuda/linked.now" "$cuda/plugin.so"
both "$cuda/linked.lazy" "$cuda/plugin.so"
LD_BIND_NOW=1 both "$cuda/linked.lazy" "$cuda/plugin.so"
both "$cuda/plugged" "$cuda/plugin.so"
both timeout 20 "$cuda/owner" "$cuda/stub/libcuda.so.1"

# Another preloaded library, before and after ours.
for kind in now lazy; do
	for order in "$lib $cuda/wrap.so" "$cuda/wrap.so $lib"; do
		WANT_HOOKS=1 LD_PRELOAD=$order "$cuda/wrapped.$kind" >"$dir/out" 2>&1 ||
			fail "preloaded $order: $(tail -n 1 "$dir/out")"
	done
	WANT_HOOKS=0 LD_PRELOAD=$cuda/wrap.so "$cuda/wrapped.$kind" >"$dir/out" 2>&1 ||
		fail "without: wrapped.$kind: $(tail -n 1 "$dir/out")"
done

# A machine without the driver, as far as a program can see.
"$cuda/plugged" >"$dir/a" 2>&1 || fail "absent: $(cat "$dir/a")"
LD_PRELOAD=$lib "$cuda/plugged" >"$dir/b" 2>&1 || fail "absent, with: $(cat "$dir/b")"
cmp -s "$dir/a" "$dir/b" || fail "absent: $(diff "$dir/a" "$dir/b" | head -n 4)"
cp "$cuda/linked.now" "$dir/alone"
if ! ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'; then
	"$dir/alone" x >"$dir/a" 2>&1
	a=$?
	LD_PRELOAD=$lib "$dir/alone" x >"$dir/b" 2>&1
	b=$?
	[ $a = $b ] && [ $a = 127 ] && cmp -s "$dir/a" "$dir/b" ||
		fail "linked, no driver: status $a without, $b with: $(cat "$dir/b")"
fi

# Each name without a row is told once, where that is asked for, and nothing else is.
OFFLOAD_VERBOSE=1 LD_PRELOAD=$lib WANT_HOOKS=1 "$cuda/lookups" "$cuda/stub/libcuda.so.1" \
	"$cuda/moved/libcuda.so.1" 2>&1 | sed -n 's/.*: \(cu[A-Za-z0-9_]*\) passes by.*/\1/p' \
	>"$dir/told"
[ "$(grep -c '^cuGetExportTable$' "$dir/told")" = 1 ] ||
	fail "cuGetExportTable was told $(grep -c '^cuGetExportTable$' "$dir/told") times"
LD_PRELOAD=$lib WANT_HOOKS=1 "$cuda/lookups" "$cuda/stub/libcuda.so.1" \
	"$cuda/moved/libcuda.so.1" 2>&1 | grep . && fail "it speaks without being asked"

# The runtime of the CUDA toolkit, where it is: all it looks up comes by the hooks, and it
# gets as far as without them (the emulated driver is not one it goes on with).
toolkit=${CUDA_HOME:-/usr/local/cuda}
cat >"$dir/rt.c" <<-'C'
	#include <stdio.h>
	int cudaGetDeviceCount(int *);
	int main(void) { int n = 0, r = cudaGetDeviceCount(&n); return printf("%d\n", r) < 0; }
C
runtime() {
	local log=$dir/$1

	LD_LIBRARY_PATH=$B/emu EMU_LOG=$log.a "$dir/$1" >"$dir/a" 2>&1
	LD_LIBRARY_PATH=$B/emu EMU_LOG=$log.b OFFLOAD_VERBOSE=1 LD_PRELOAD=$lib "$dir/$1" \
		>"$dir/b" 2>"$dir/told"
	cmp -s "$dir/a" "$dir/b" || fail "$1 runtime: $(cat "$dir/a") $(cat "$dir/b")"
	cmp -s "$log.a" "$log.b" || fail "$1 runtime: other calls than without the library"
	grep -q '^cuInit' "$log.b" || fail "$1 runtime: cuInit is not reached"
	grep -q ' cuDeviceGetAttribute passes' "$dir/told" ||
		fail "$1 runtime: its look-ups do not come by"
	grep -E ' (cuInit|cuMemAlloc|cuLaunchKernel|cuMemcpyHtoD) passes' "$dir/told" &&
		fail "$1 runtime: these are not hooked"
}
for kind in shared static; do
	case $kind in
	shared)	set -- -L"$toolkit/lib64" -L"$toolkit/lib" -lcudart -Wl,-rpath,"$toolkit/lib64" ;;
	static)	set -- "$toolkit"/lib*/libcudart_static.a -ldl -lrt -lpthread -lm ;;
	esac
	${CC:-cc} -o "$dir/$kind" "$dir/rt.c" "$@" 2>/dev/null && runtime $kind
done
exit $bad
