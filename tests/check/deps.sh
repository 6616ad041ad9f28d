#!/bin/bash
# SPDX-License-Identifier: MIT
#
# deps.sh - the dependency rule: interpose -> core -> policy, never back, and
# never past the one outward header of a folder.
#
# Owns nothing; lock: none. It reads the #include lines, and what libpolicy.a
# leaves undefined: pure C needs nothing but mem* and str*.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
bad=0

# includes FOLDER: "FILE HEADER" for every quoted include.
includes() {
	grep -Hno '^[[:space:]]*#[[:space:]]*include[[:space:]]*"[^"]*"' \
		"$1"/*.[ch] 2>/dev/null | sed 's/:[^"]*"/ /; s/"$//'
}

# in_folder FOLDER FILE HEADER: the header's path from the root.
resolve() {
	if [ -e "$1/$3" ]; then echo "$1/$3"; else echo "$3"; fi
}

# only FOLDER PATTERN: every include of the folder must match the pattern.
only() {
	local file header path

	while read -r file header; do
		path=$(resolve "$1" "$file" "$header")
		if [[ ! $path =~ ^($2)$ ]]; then
			echo "FAIL: $file includes $header"
			bad=1
		fi
	done < <(includes "$1")
}

only policy 'policy/[^/]*'
only core 'core/[^/]*|policy/policy\.h'
only interpose 'interpose/[^/]*|core/core\.h'
only tools 'tools/[^/]*|core/(core|options|stats|budget|header|trial)\.(h|def)|policy/policy\.h'

# No system header in policy/ but those that are pure.
pure='assert|errno|limits|stdbool|stddef|stdint|string'
if grep -Hn '^#[[:space:]]*include[[:space:]]*<' policy/*.[ch] |
   grep -vE "<($pure)\.h>"; then
	echo "FAIL: policy/ includes a header that is not pure"
	bad=1
fi

if [ ! -e "$B/libpolicy.a" ]; then
	echo "FAIL: $B/libpolicy.a is missing"
	exit 1
fi
defined=$(nm "$B/libpolicy.a" 2>/dev/null | awk 'NF == 3 { print $3 }' | sort -u)
wants=$(nm -u "$B/libpolicy.a" 2>/dev/null | awk '$1 == "U" { print $2 }' |
	sort -u | comm -23 - <(echo "$defined") |
	grep -vE '^(mem|str)[a-z]+$|^__(asan|ubsan|tsan|stack_chk)_|^_GLOBAL_OFFSET_TABLE_$')
# assert is a way to stop, not a dependency.
wants=$(grep -v '^__assert_fail$' <<<"$wants")
if [ -n "$wants" ]; then
	echo "FAIL: libpolicy.a needs:" $wants
	bad=1
fi
# Globals that can be written would make two users of a policy one.
# (.data.rel.ro is written by the loader only.)
data=$(objdump -t "$B/libpolicy.a" 2>/dev/null |
	awk '$4 ~ /^(\.data|\.bss|\*COM\*)/ && $4 !~ /^\.data\.rel\.ro/ && $5 ~ /[1-9a-f]/ { print $NF }
	     $3 ~ /^(\.data|\.bss|\*COM\*)/ && $3 !~ /^\.data\.rel\.ro/ && $4 ~ /[1-9a-f]/ { print $NF }')
if [ -n "$data" ]; then
	echo "FAIL: libpolicy.a has globals that can be written:" $data
	bad=1
fi
exit $bad
