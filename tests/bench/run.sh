#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh [BENCH [ARGUMENT...]] - run a benchmark; with no argument, all (about
# 20 minutes). Tables go to the screen, JSON lines to build/bench/.
#
#     startup [RUNS]   what preloading adds to programs that do not need it
#     malloc           what it adds to small allocations
#     launch [ROUNDS]  what it adds to a launch, by the number of regions
#     codec [PASSES]   what packing gains and costs, beside memcpy
#     torch            python3-torch, more malloc'd weights than memory
#     engine           llama.cpp, a model or a context larger than memory
#
# Each has --help. For example: run.sh engine --type q8_0 --n 1.25 --modes move
set -u
cd "$(dirname "$0")/../.." || exit 1

# compile PROGRAM SOURCE: to build/bench/PROGRAM.
compile() {
	mkdir -p build/bench
	${CC:-cc} -std=gnu17 -O2 -Wall -D_GNU_SOURCE -pthread \
		-o "build/bench/$1" "tests/bench/$2" -lm
}

# Nothing is installed or built for those who only ask what there is.
wants_help() {
	case " $* " in *" -h "* | *" --help "*) return 0 ;; esac
	return 1
}

engine() {
	if ! wants_help "$@"; then
		tools/setup.sh demo || return 1
		compile diskbw diskbw.c || return 1
		kind=$(tools/engine/install.sh build/engine) || return 1
		[ "$kind" = node ] || {
			echo "bench: the engine bench needs llama.cpp (node 20)" >&2
			return 77
		}
	fi
	python3 -B tests/bench/engine/bench.py "$@"
}

torch() {
	if ! wants_help "$@"; then
		tools/setup.sh torch || return 1
		compile diskbw diskbw.c || return 1
	fi
	python3 -B tests/bench/torch/bench.py "$@"
}

malloc() {
	wants_help "$@" || compile pairs malloc/pairs.c || return 1
	python3 -B tests/bench/malloc/bench.py "$@"
}

launch() {
	if wants_help "$@"; then
		echo "usage: tests/bench/run.sh launch [ROUNDS]"
		return 0
	fi
	compile launch launch.c || return 1
	${CC:-cc} -std=gnu17 -O2 -Wall -D_GNU_SOURCE -DDRIVER -fPIC -shared \
		-Wl,-soname,libcuda.so.1 -o build/bench/libcuda.so.1 tests/bench/launch.c || return 1
	LD_PRELOAD=build/liboffload.so build/bench/launch build/bench/libcuda.so.1 "$@"
}

startup() {
	if wants_help "$@"; then
		echo "usage: tests/bench/run.sh startup [RUNS]"
		return 0
	fi
	compile startup startup.c || return 1
	build/bench/startup "$PWD/build/liboffload.so" "$@"
}

codec() {
	if wants_help "$@"; then
		echo "usage: tests/bench/run.sh codec [PASSES]"
		return 0
	fi
	tools/setup.sh bench	# blosc, to compare with: not needed
	mkdir -p build/bench
	${CC:-cc} -std=gnu17 -O2 -Wall -D_GNU_SOURCE -pthread -I. \
		-o build/bench/codec tests/bench/codec.c -Wl,--start-group \
		build/libcore.a build/libpolicy.a build/deps/*.a \
		-Wl,--end-group -lm || return 1
	build/bench/codec "${1:-5}" build/bench/codec.jsonl
}

usage() {
	sed -n '3,13s/^# \{0,1\}//p' tests/bench/run.sh
}

# One that fails, or cannot be run here (77), does not keep the others away.
all() {
	bad=0
	for one in startup malloc launch codec torch engine "engine --type bf16 --rows no-mmap"; do
		echo "== $one"
		$one
		case $? in 0 | 77) ;; *) bad=1 ;; esac
	done
	return $bad
}

bench=${1:-all}
[ $# -gt 0 ] && shift
case $bench in
-h | --help) usage ;;
all | codec | engine | launch | malloc | startup | torch) "$bench" "$@" ;;
*) usage >&2; exit 2 ;;
esac
