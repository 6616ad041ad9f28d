#!/bin/bash
# SPDX-License-Identifier: MIT
#
# secure.sh - a program that runs with more rights than who started it (AT_SECURE):
# the loader does not take the library from the environment, and the library, where
# the system preloads it into everything, does nothing there: no file is written, no
# variable heeded.
#
# Owns a scratch folder, and mappings of its own over /etc in a mount namespace; lock:
# none. Needs root, to make a program that changes its user.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
[ "$(id -u)" = 0 ] || { echo "not root: no program can be made that changes its user"; exit 77; }
dir=$(mktemp -d /var/tmp/offload-secure.XXXXXX) || exit 1
trap 'rm -rf "$dir"' EXIT
chmod 1777 "$dir"
unset LD_PRELOAD ${!OFFLOAD_*}
cp "$lib" "$dir/liboffload.so"
cp "$B/preload/loop" "$dir/loop"
cp "$B/preload/loop" "$dir/loop-as-nobody"
cp "$(command -v cat)" "$dir/cat-as-nobody"
cp "$(command -v id)" "$dir/id-as-nobody"
chown nobody "$dir"/*-as-nobody
chmod 4755 "$dir"/*-as-nobody
[ "$("$dir/id-as-nobody" -un)" = nobody ] || { echo "setuid is not heeded here"; exit 77; }
bad=0

fail() {
	echo "FAIL: $*"
	sed 's/^/    /' "$dir/err" 2>/dev/null | head -n 5
	bad=1
}

asked=(env TMPDIR="$dir" TRAP_CACHE="$dir" OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=1M
	OFFLOAD_STATS="$dir/stats" OFFLOAD_TRACE="$dir/tape" OFFLOAD_VERBOSE=3)

# ---- LD_PRELOAD: the loader's own rule --------------------------------------------
"${asked[@]}" LD_PRELOAD="$dir/liboffload.so" "$dir/cat-as-nobody" /proc/self/maps \
	>"$dir/maps" 2>"$dir/err" || fail "cat with other rights: status $?"
grep -q liboffload "$dir/maps" && fail "the loader preloaded it all the same"
"${asked[@]}" LD_PRELOAD="$dir/liboffload.so" "$dir/loop" 2>"$dir/err" ||
	fail "loop: status $?"
[ -s "$dir/stats" ] && [ -s "$dir/tape" ] || fail "without other rights nothing was written"
rm -f "$dir/stats" "$dir/tape"

# ---- /etc/ld.so.preload: heeded for all programs ------------------------------------
cat >"$dir/all.sh" <<'SH'
cp -a /etc "$1/etc" 2>/dev/null
echo "$1/liboffload.so" >"$1/etc/ld.so.preload"
mount --bind "$1/etc" /etc || exit 77
shift
exec "$@"
SH
everywhere() {
	unshare -m --propagation private sh "$dir/all.sh" "$dir" "$@" \
		>"$dir/out" 2>"$dir/err"
}
everywhere "$dir/cat-as-nobody" /proc/self/maps
if ! grep -q liboffload "$dir/out"; then
	echo "the system's own preload cannot be tried here; the rest is right"
	[ $bad = 0 ] && exit 77
	exit 1
fi
rm -rf "$dir/etc"
everywhere "${asked[@]}" "$dir/loop" || fail "preloaded by the system: status $?"
[ -s "$dir/stats" ] || fail "preloaded by the system nothing was written"
rm -rf "$dir/etc" "$dir/stats" "$dir/tape"
everywhere "${asked[@]}" OFFLOAD_STRICT=1 OFFLOAD_RAMM=1 "$dir/loop-as-nobody" ||
	fail "with other rights: status $?"
# The program before it, env, writes its own when it ends; it does not end.
[ -e "$dir/stats" ] && fail "with other rights statistics were written"
[ -e "$dir/tape" ] && fail "with other rights a tape was written"
grep -v '^$' "$dir/err" | grep -q 'offload\[' && fail "with other rights something was said"
exit $bad
