#!/bin/sh
# SPDX-License-Identifier: MIT
# setup.sh [WHAT...] - install what is missing to build, test and show this
# project: WHAT is any of build, test, long, demo, torch, bench; build and test
# if not said. Silent and quick when nothing is missing.
#
# 1. What is there is found by use, not by package name: a file, a header, a
#    command. A hand-made installation counts.
# 2. Only Debian's packages, only through apt-get, as root or by sudo.
# 3. Where that cannot be done, one list says what to install by hand.
set -u

has_cmd() { command -v "$1" >/dev/null 2>&1; }
has_lib() { [ -e "$(${CC:-cc} -print-file-name="$1" 2>/dev/null)" ]; }
has_inc() {
	printf '#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n%s\n' \
		"#include <setjmp.h>
#include <$1>" | ${CC:-cc} -E -x c - >/dev/null 2>&1
}
has_fuzzer() {
	[ -e "$(clang -print-file-name=libclang_rt.fuzzer-x86_64.a 2>/dev/null)" ]
}
# Debian's modules belong to Debian's python, whatever comes first in PATH.
has_py() { /usr/bin/python3 -c "import $1" 2>/dev/null; }
has_node() { node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null; }
# A shared object that is only looked for when the library runs.
has_so() {
	for d in /usr/lib/*-linux-gnu /lib/*-linux-gnu /usr/lib64 /usr/local/lib; do
		[ -e "$d/$1" ] && return 0
	done
	return 1
}

missing=''
# need PACKAGE TEST...: PACKAGE is missing unless TEST holds.
need() {
	package=$1
	shift
	"$@" || missing="$missing $package"
}

need_build() {
	need build-essential has_cmd "${CC:-cc}"
	need build-essential has_cmd make
	need binutils has_cmd objcopy
	need liburing-dev has_lib liburing.a
	need liblz4-dev has_lib liblz4.a
	need libzstd-dev has_lib libzstd.a
	need libjemalloc-dev has_lib libjemalloc_pic.a
	need libunwind-dev has_inc libunwind.h
	need libunwind8 has_so libunwind-x86_64.so.8
	need libxxhash-dev has_inc xxhash.h
	need libsodium-dev has_lib libsodium.a
	need libsodium-dev has_inc sodium.h
	need libncurses-dev has_inc ncurses.h
}

need_test() {
	need libcmocka-dev has_inc cmocka.h
	need python3 has_cmd python3
	need git has_cmd git
	need gdb has_cmd gdb
	need sqlite3 has_cmd sqlite3
	need liblmdb0 has_so liblmdb.so.0
	need clang has_cmd clang++
}

# Debian 12's own node is too old for the engine: then it is left alone, and
# the demo asks for torch.
offers_node() {
	apt-cache policy nodejs 2>/dev/null |
		awk '/Candidate:/ { v = $2 } END { exit v + 0 < 20 }'
}

need_demo() {
	need python3 has_cmd python3
	has_node || ! offers_node || need nodejs has_node
	! has_node && ! offers_node || need npm has_cmd npm
}

need_torch() {
	need python3 has_cmd python3
	need python3-torch has_py torch
	need python3-numpy has_py numpy
}

# Long tests: fuzzing, and what others test themselves with (tests/suites).
need_long() {
	need clang has_cmd clang
	need libclang-rt-dev has_fuzzer
	need stress-ng has_cmd stress-ng
	need zstd has_cmd zstd
	need "libpython3.$(/usr/bin/python3 -c 'import sys; print(sys.version_info[1])')-testsuite" \
		has_py test.test_mmap
	need python3-numpy has_py numpy
	need python3-pytest has_py pytest
	need python3-hypothesis has_py hypothesis
}

# What the codec bench compares with.
need_bench() {
	need libblosc1 has_so libblosc.so.1
}

by_hand() {
	echo "setup: $1. Please install by hand:" >&2
	for package in $missing; do
		echo "    $package" >&2
	done
	exit 1
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		DEBIAN_FRONTEND=noninteractive "$@"
	else
		sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
	fi
}

install() {
	as_root apt-get install -qq -y --no-install-recommends $missing >/dev/null
}

for what in ${*:-build test}; do
	case $what in
	build | test | long | demo | torch | bench) need_"$what" ;;
	*) echo "usage: setup.sh [build] [test] [long] [demo] [torch] [bench]" >&2; exit 1 ;;
	esac
done
missing=$(echo $missing | tr ' ' '\n' | sort -u | tr '\n' ' ')
[ -n "${missing% }" ] || exit 0

has_cmd apt-get || by_hand "this is not a Debian system (no apt-get)"
[ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null ||
	by_hand "not root, and sudo asks for a password"
echo "setup: installing with apt-get: $missing" >&2
# The package lists may be old or absent: fetch them only if they must be.
install 2>/dev/null ||
	{ as_root apt-get update -qq >/dev/null && install; } ||
	by_hand "apt-get failed (no network?)"
