#!/bin/bash
# SPDX-License-Identifier: MIT
#
# guarantees.sh - every test that a table of docs/guarantees.md names is there, and is
# run: a program of tests/preload (all are), or a script of tests/check that can be.
#
# Owns nothing; lock: none. Names stand in a table's columns headed "test" or
# "test for ...", with commas between; what is no name there is in `words`.

cd "$(dirname "$0")/../.." || exit 1
words=' - --- kernel limit refused '
bad=0 n=0

# The names, a line each; "limit 4" and "refused (as for files)" are no names.
names() {
	awk -F'|' '
	/^\|/ && /^\| *[a-z]+ \|.* test/ {
		split("", at)
		for (i = 2; i < NF; i++) if ($i ~ /^ *test( for .*)? *$/) at[i] = 1
		next
	}
	/^\|/ { for (i in at) print $i; next }
	{ split("", at) }' docs/guarantees.md |
		tr ',' '\n' | sed -E 's/^ +//; s/[ (].*//' | sort -u
}

while read -r name; do
	[ -n "$name" ] && [[ $words != *" $name "* ]] || continue
	n=$((n + 1))
	case $name in
	*/*)	[ -x "tests/$name.sh" ] && continue ;;
	*)	[ -e "tests/preload/$name.c" ] && continue ;;
	esac
	echo "FAIL: no test is called $name"
	bad=1
done < <(names)
# Fewer than there are rows: the tables are no longer read.
[ $n -ge 40 ] || { echo "FAIL: only $n names were found"; bad=1; }
echo "$n tests are named"
exit $bad
