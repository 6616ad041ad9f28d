#!/bin/bash
# SPDX-License-Identifier: MIT
#
# image.sh - images made by the CUDA toolkit, where it is: text, those of cards, and
# containers packed in each way say the same of their kernels.
#
# Owns a scratch folder; lock: none.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
nvcc=$(command -v nvcc || ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null)
[ -n "$nvcc" ] || { echo "no CUDA toolkit"; exit 77; }
[ -x "$B/unit/test_image" ] || { echo "FAIL: $B/unit/test_image is missing"; exit 1; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0

fail() {
	echo "FAIL: $*"
	bad=1
}

cat >"$dir/k.cu" <<-'CU'
	struct __align__(16) V { float x[12]; };
	struct P { char c[3]; };
	extern "C" __global__ void mixed(P p, V v, int *q, bool b, short s, P z)
	{
		if (b)
			*q = v.x[threadIdx.x % 12] + p.c[0] + s + z.c[1];
	}
	extern "C" __global__ void last(double *q, unsigned char u) { q[0] = u; }
	extern "C" __global__ void none() {}
	template <class T> __global__ void two(T *a, T b) { *a = b; }
	template __global__ void two<double>(double *, double);
CU
cat >"$dir/want" <<-'W'
	_Z3twoIdEvPT_S0_: 0+8 8+8
	last: 0+8 8+1
	mixed: 0+3 16+48 64+8 72+1 74+2 76+3
	none:
W
# made NAME OPTION...: what nvcc makes says all that is wanted, and nothing else.
made() {
	local out=$dir/$1

	"$nvcc" "${@:2}" -o "$out" "$dir/k.cu" 2>"$dir/err" || { echo "# nvcc does not: ${*:2}"; return; }
	"$B/unit/test_image" "$out" | sort -u | cmp -s - "$dir/want" ||
		fail "${*:2}: $("$B/unit/test_image" "$out" | sort -u | diff - "$dir/want")"
}

export LC_ALL=C
made text --ptx -arch=compute_80
made card --cubin -arch=sm_80
made newer --cubin -arch=sm_90
for mode in none speed size; do
	made "$mode" --fatbin --compress-mode=$mode -gencode arch=compute_80,code=sm_80 \
		-gencode arch=compute_80,code=compute_80
done
exit $bad
