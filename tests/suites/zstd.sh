#!/bin/sh
# SPDX-License-Identifier: MIT
#
# zstd.sh - the zstd program packs the library's and Python's own texts at several
# levels, with threads and a long window; what it unpacks is compared, and what it wrote
# is told by its hash. Owns files in the current folder. Lock: none.

set -e
cat /usr/lib/python3*/*.py /usr/bin/gdb /usr/bin/git 2>/dev/null | head -c 6000000 >in
for how in -1 -3 -6 "-3 --long=24 -T2"; do
	zstd -q -f $how in -o packed
	zstd -q -t --long=24 packed
	zstd -q -f -d --long=24 packed -o out
	cmp in out
	echo "passed $how $(sha256sum <packed)"
done
