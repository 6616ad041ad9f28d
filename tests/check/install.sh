#!/bin/bash
# SPDX-License-Identifier: MIT
#
# install.sh - what `make install` puts where, and that it works from there.
#
# Owns a scratch folder; lock: none.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
dir=$(mktemp -d "$(realpath "$B")/install.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0

fail() {
	echo "FAIL: $*"
	bad=1
}

env -u MAKEFLAGS -u MFLAGS make --no-print-directory B="$B" install DESTDIR="$dir" PREFIX=/opt/off >"$dir/out" 2>&1 ||
	fail "make install: $(tail -n 3 "$dir/out")"
at=$dir/opt/off
for f in lib/liboffload.so bin/offctl share/man/man1/offctl.1 share/man/man7/liboffload.7; do
	[ -s "$at/$f" ] || fail "$f was not installed"
done
others=$(find "$dir" -type f ! -path "$at/lib/liboffload.so" ! -path "$at/bin/offctl" \
	! -path "$at/share/man/*" ! -path "$dir/out")
[ -z "$others" ] || fail "installed, too: $others"
# offctl finds the library that came with it, whatever the folder it is started in.
preload=$(cd / && "$at/bin/offctl" run -- sh -c 'echo "$LD_PRELOAD"') || fail "offctl run: status $?"
[ "$(realpath "$preload")" = "$(realpath "$at/lib/liboffload.so")" ] ||
	fail "offctl run preloads \"$preload\""
exit $bad
