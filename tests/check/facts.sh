#!/bin/bash
# SPDX-License-Identifier: MIT
#
# facts.sh - the questions to a card, asked of the emulated one: each has an answer, and a
# driver that does otherwise gives another.
#
# Owns a scratch folder; lock: none. The answers themselves are nothing but the emulator's.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
facts=$B/gpu/facts
lib=$(realpath -m "$B")/liboffload.so
[ -x "$facts" ] || { echo "FAIL: $facts is missing"; exit 1; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export TMPDIR=$dir
bad=0

fail() {
	echo "FAIL: $*"
	bad=1
}

# ask NAME=VALUE... FACT...: on the emulated driver; answers in $dir/answers.
ask() {
	env LD_LIBRARY_PATH="$B/emu" EMU_QUIET=1 "${@:1:$#-1}" "$facts" "${@: -1}" \
		>"$dir/answers" 2>"$dir/err"
}

# is FACT PATTERN NAME=VALUE...: the answer to one, under these options.
is() {
	ask "${@:3}" "$1"
	grep -qE "^fact: $1: emulated: $2" "$dir/answers" ||
		fail "${*:3}: $(cat "$dir/answers" "$dir/err")"
}

# Every one, once, without and with the library, as make check-gpu asks them.
export CHECK_GPU_DRIVER=$PWD/$B/emu
CHECK_GPU_PARTS='questions homes hook' EMU_QUIET=1 tests/gpu/run.sh "$dir/results" >"$dir/out" 2>&1 ||
	fail "check-gpu: status $?: $(tail -n 3 "$dir/out")"
"$facts" --list | awk '{ print $1 " 2" }' | sort >"$dir/names"
sed -n 's/^ *fact: \([^:]*\): emulated: ..*/\1/p' "$dir/results" | sort | uniq -c |
	awk '{ print $2 " " $1 }' >"$dir/answered"
cmp -s "$dir/names" "$dir/answered" ||
	fail "not all are answered twice: $(diff "$dir/names" "$dir/answered")"
grep 'not known' "$dir/results" | grep -vE 'fact: (userfaultfd|cudart-calls):' &&
	fail "these can be known"
# Where there is a runtime, all it looks up is seen.
grep -E 'fact: cudart-calls: .* after .?.? look-ups' "$dir/results" &&
	fail "the runtime's look-ups pass by"
grep -q '^## Emulated' "$dir/results" || fail "no card is named"
grep -qE '^ +100000 .* 0$' "$dir/results" || fail "no figures of a launch"
was=$(cksum docs/gpu-results.md 2>&1)
tests/gpu/run.sh >"$dir/out" 2>&1 && fail "an emulated card's results go to docs"
[ "$was" = "$(cksum docs/gpu-results.md 2>&1)" ] || fail "docs/gpu-results.md was written"
unset CHECK_GPU_DRIVER

# A driver that does otherwise.
is mixed-homes right X=
is mixed-homes CUDA_ERROR EMU_FAIL=cuLaunchKernel:8:700
is mixed-homes 'not known: cuMemMap: CUDA_ERROR_INVALID_VALUE' EMU_MIX=0
is host-handles 'host: CUDA_ERROR_.*host-numa: CUDA_ERROR_' EMU_HOST_VMM=0
is views 'not known: cuMemCreate of host memory' EMU_HOST_VMM=0
is host-fault CUDA_ERROR_ILLEGAL_ADDRESS X=
is host-fault right EMU_HOST_ACCESS=1
is param-info 'the 4th of 4 at 24, 8 bytes' X=
is param-info 'no: ' EMU_DRIVER=12020
is unmap-drains 'refused' X=
is unmap-half CUDA_ERROR_INVALID_VALUE X=
is unmap-half CUDA_ERROR_UNKNOWN EMU_FAIL=cuMemUnmap:1:999
is copy-mixed 'in: CUDA_ERROR_UNKNOWN; in, async.* right' EMU_FAIL=cuMemcpyHtoD_v2:1:999
is register-malloc '.*: CUDA_ERROR_NOT_SUPPORTED' EMU_FAIL=cuMemHostRegister_v2:1:801
is register-heap 'with the library: registered, .* right, .* right' LD_PRELOAD="$lib"
is attributes '.*granularity 65536' EMU_GRANULARITY=64K

# No card.
LD_LIBRARY_PATH=$dir "$facts" >"$dir/answers" 2>"$dir/err"
s=$?
if [ -n "$(ldconfig -p 2>/dev/null | grep 'libcuda\.so\.1')" ]; then
	:
elif [ $s != 77 ] || [ -s "$dir/answers" ] || [ "$(grep -c . "$dir/err")" != 1 ]; then
	fail "no card: status $s: $(cat "$dir/answers" "$dir/err")"
fi
if ! tests/gpu/run.sh --present; then
	[ "$(tests/gpu/run.sh)" = "no GPU: nothing run" ] || fail "no GPU: $(tests/gpu/run.sh)"
fi
exit $bad
