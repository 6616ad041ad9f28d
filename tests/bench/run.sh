#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh [BENCH [ARGUMENT...]] - run a benchmark; with no argument, all.
# Results go to the screen as tables and to build/bench/ as JSON lines.
#
#     run.sh engine --type q8_0 --n 1.25 --modes move
#     run.sh engine --help
#     run.sh startup 301
#     run.sh codec 9
set -u
cd "$(dirname "$0")/../.." || exit 1

engine() {
	tools/setup.sh demo || return 1
	mkdir -p build/bench
	${CC:-cc} -std=gnu17 -O2 -D_GNU_SOURCE -pthread -o build/bench/diskbw \
		tests/bench/diskbw.c || return 1
	kind=$(tools/engine/install.sh build/engine) || return 1
	[ "$kind" = node ] || {
		echo "bench: the engine bench needs llama.cpp (node 20)" >&2
		return 77
	}
	exec python3 -B tests/bench/engine/bench.py "$@"
}

startup() {
	mkdir -p build/bench
	${CC:-cc} -std=gnu17 -O2 -Wall -D_GNU_SOURCE -o build/bench/startup \
		tests/bench/startup.c || return 1
	build/bench/startup "$PWD/build/liboffload.so" "$@"
}

codec() {
	mkdir -p build/bench
	${CC:-cc} -std=gnu17 -O2 -Wall -D_GNU_SOURCE -pthread -I. \
		-o build/bench/codec tests/bench/codec.c -Wl,--start-group \
		build/libcore.a build/libpolicy.a build/deps/*.a \
		-Wl,--end-group -lm || return 1
	build/bench/codec "${1:-5}" build/bench/codec.jsonl
}

bench=${1:-all}
[ $# -gt 0 ] && shift
case $bench in
all) startup; codec; engine ;;
codec) codec "$@" ;;
engine) engine "$@" ;;
startup) startup "$@" ;;
*) echo "usage: tests/bench/run.sh [codec|engine|startup [ARGUMENT...]]" >&2; exit 2 ;;
esac
