#!/bin/bash
# SPDX-License-Identifier: MIT
#
# abi.sh - interpose/cuda_abi.h against a toolkit's cuda.h, where there is one.
#
# Owns build/test/abi; lock: none. Assertions are made from our headers (values of
# all enumerators, size and offsets of all structures, types and versions of all
# functions) and compiled against the toolkit's. Skipped without a toolkit of 13.0
# or later: older ones lack some of the names.

cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-cc}
out=${B:-build}/test/abi
abi=interpose/cuda_abi.h

inc=
for dir in "${CUDA_HOME:-/usr/local/cuda}/include" /usr/local/cuda-*/include /usr/include; do
	[ -e "$dir/cudaTypedefs.h" ] && inc=$dir && break
done
[ -n "$inc" ] || { echo "no CUDA toolkit"; exit 77; }
version=$(awk '$2 == "CUDA_VERSION" && $1 == "#define" { print $3 }' "$inc/cuda.h")
[ "${version:-0}" -ge 13000 ] || { echo "the toolkit is older than 13.0"; exit 77; }
mkdir -p "$out"

# Structures and their members, "TYPE MEMBER", by name; a union's without its name.
members() {
	awk '/^typedef (struct|union) .*\{$/ { n = 0; depth = 1; next }
	     depth && /\{$/ { depth++; next }
	     depth == 1 && /^\}/ { sub(/;/, "", $2)
			print $2, "-"
			for (i = 0; i < n; i++)
				print $2, field[i]
			depth = 0; next }
	     depth > 1 && /^[[:blank:]]*\}/ { depth--
			if (depth == 1 && NF > 1) { sub(/;/, "", $2); field[n++] = $2 }
			next }
	     depth == 1 && /;$/ { name = $NF
			gsub(/[*;]|\[.*/, "", name)
			if ($0 ~ /\[8 - sizeof/) name = "pad"
			field[n++] = name }' "$abi"
}

{
	echo "#include <stdio.h>"
	echo "#include \"$abi\""
	echo "int main(void) {"
	members | while read -r type member; do
		if [ "$member" = - ]; then
			echo "printf(\"_Static_assert(sizeof($type) == %zu, \\\"$type\\\");\\n\", sizeof($type));"
		else
			echo "printf(\"_Static_assert(offsetof($type, $member) == %zu, \\\"$type.$member\\\");\\n\", offsetof($type, $member));"
		fi
	done
	echo "return 0; }"
} >"$out/ours.c"
"$CC" -std=gnu17 -I. -o "$out/ours" "$out/ours.c" || exit 1

{
	echo "#define __CUDA_API_VERSION_INTERNAL"
	echo "#include <stddef.h>"
	echo "#include <cuda.h>"
	echo "#include <cudaTypedefs.h>"
	"$out/ours"
	grep -oE '\bCUD?A?_[A-Z0-9a-z_]+ = (0x)?[0-9a-f]+' interpose/cuda_enum.h |
		sed -E 's/(.*) = (.*)/_Static_assert((int)\1 == (int)\2, "\1");/'
	sed -nE 's/^#define[[:blank:]]+(CU_[A-Z0-9_]+)[[:blank:]]+([^[:blank:]].*)$/\1 \2/p' "$abi" |
		grep -v CU_PTDS | while read -r name value; do
		echo "_Static_assert((long)($name) == (long)($value), \"$name\");"
	done
	# shellcheck disable=SC2016
	sed -e ':a' -e '/[^)]$/{N;ba' -e '}' interpose/cuda_fn.def | tr '\n' ' ' |
		sed 's/CU_FN(/\n&/g' | sed -nE 's/^CU_FN\((\w+), (\w+), ([0-9]+), (\w+), +(.*)\) *$/\1|\2|\3|\4|\5/p' |
		while IFS='|' read -r symbol name from stream types; do
		suffix=
		[ "$stream" = CU_PTDS ] && suffix=_${symbol##*_}
		echo "CUresult $symbol$types;"
		echo "static CUresult (*p_$symbol)$types __attribute__((unused)) = $symbol;"
		if grep -q "PFN_${name}_v$from$suffix)" "$inc/cudaTypedefs.h"; then
			echo "static PFN_${name}_v$from$suffix t_$symbol __attribute__((unused)) = $symbol;"
		fi
	done
} >"$out/theirs.c"

asserts=$(grep -c _Static_assert "$out/theirs.c")
pointers=$(grep -c ' t_' "$out/theirs.c")
rows=$(grep -c '^CU_FN' interpose/cuda_fn.def)
[ "$asserts" -gt 800 ] && [ "$pointers" -gt $((rows - 12)) ] ||
	{ echo "FAIL: only $asserts values and $pointers functions compared"; exit 1; }
"$CC" -std=gnu17 -I"$inc" -Werror=incompatible-pointer-types -Wno-deprecated-declarations \
	-fsyntax-only "$out/theirs.c" || exit 1
echo "$asserts values, $pointers functions as in $inc"
