#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh - what needs a card: questions to it, and programs on it, each without and with
# the library.
#
#     tests/gpu/run.sh [RESULTS]   RESULTS (docs/gpu-results.md) gets what was seen
#     tests/gpu/run.sh --present   is there a card, by its device files?
#
# Built before (make gpu-bin): neither a compiler nor the toolkit is needed here. One line
# and status 0 where there is no card.
#
# (1) What an emulated card answers never gets to docs/. CHECK_GPU_DRIVER=FOLDER of its
#     libcuda.so.1 tries these lines themselves; RESULTS must then be named, and
#     CHECK_GPU_PARTS may say which of questions, programs, homes, hook, torch, llm are enough.
# (2) The card's settings stay as they are.
# Owns build/gpu/run (outputs); lock: none.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
work=$B/gpu/run
lib=$(realpath -m "$B")/liboffload.so
results=${1:-docs/gpu-results.md}
fails=0
unset OFFLOAD_LONG

# present: is there any card?
present() {
	[ -n "$CHECK_GPU_DRIVER" ] || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ] ||
		compgen -G '/dev/nvidia[0-9]*' >/dev/null
}

# part NAME: a heading, on the screen and in what will be kept.
part() {
	echo "# $1"
	printf '\n### %s\n\n' "$1" >>"$work/seen"
}

# keep STATUS FILE: the lines of a part.
keep() {
	sed 's/^/    /' "$2" >>"$work/seen"
	cat "$2"
	[ "$1" = 0 ] && return
	fails=$((fails + 1))
	echo "    status $1" | tee -a "$work/seen"
}

questions() {
	local preload

	for preload in "" "$lib"; do
		part "facts, ${preload:+with}${preload:-without} the library"
		LD_PRELOAD=$preload timeout -k 5 900 "$B/gpu/facts" >"$work/facts" 2>"$work/facts.err"
		keep $? "$work/facts"
	done
}

programs() {
	part "tests/engine and the random program (20 seeds), without and with the library"
	timeout -k 5 900 tests/engine/run.sh gpu >"$work/engine" 2>&1
	keep $? "$work/engine"
}

# Weights larger than the budget, part of them at home on the host: what the processor
# computes, to the bit. Options of the engine; the sizes of an emulated card are its own.
homes_rows='--alloc one
--alloc each --streams 2
--alloc one --graph device'

homes() {
	local model=$work/model.gguf budget=128M size='--layers 4 --dim 2048 --ff 5632 --vocab 4096'
	local bad=0 row
	local -x EMU_GRANULARITY=64K

	[[ $card != card:\ Emulated* ]] ||
		{ budget=1M size='--layers 2 --dim 256 --ff 512 --vocab 512'; }
	part "tests/engine with homes on the host, OFFLOAD_VRAM=$budget"
	# shellcheck disable=SC2086
	"$B/mkmodel" --type bf16 $size "$model" >/dev/null &&
		timeout -k 5 200 "$B/engine/engine" --run cpu "$model" >"$work/cpu" || bad=1
	: >"$work/homes"
	while read -r row; do
		# shellcheck disable=SC2086
		OFFLOAD_VRAM=$budget OFFLOAD_STATS=$work/homes.json LD_PRELOAD=$lib timeout -k 5 \
			200 "$B/engine/engine" --report on $row "$model" >"$work/homes.out" \
			2>"$work/homes.err" || bad=1
		cmp -s "$work/cpu" "$work/homes.out" || { bad=1; echo "not what is right:"; }
		grep -q '"host_peak_bytes":[1-9]' "$work/homes.json" ||
			{ bad=1; echo "nothing had a home on the host:"; }
		echo "$row: $(tail -n 1 "$work/homes.err")"
	done <<<"$homes_rows" >>"$work/homes"
	rm -f "$model"
	keep $bad "$work/homes"
}

hook() {
	part "what the library adds to a launch (a driver that does nothing, this processor)"
	LD_LIBRARY_PATH=$own_path LD_PRELOAD=$lib timeout -k 5 300 "$B/gpu/launch" \
		"$B/gpu/stub/libcuda.so.1" >"$work/launch" 2>&1
	keep $? "$work/launch"
}

# With the library by how much longer, of the least times.
ratios() {
	awk '$1 == "time" && FNR == NR { a[$2] = $3 }
	     $1 == "time" && FNR != NR && a[$2] > 0 {
		printf "%s: %.4f s without, %.4f s with the library: %+.1f%%\n", $2, a[$2], $3,
		       (($3 / a[$2]) - 1) * 100 }' "$1" "$2"
}

torch() {
	local s t

	part "PyTorch, nothing offloaded: eager, CUDA graphs, several GB"
	timeout -k 5 300 python3 -B tests/gpu/torch_run.py >"$work/torch.plain" 2>"$work/torch.err"
	s=$?
	if [ $s = 77 ] || [ $s = 127 ]; then
		{ echo "not run: $(tail -n 1 "$work/torch.plain")"; } >"$work/torch"
		keep 0 "$work/torch"
		return
	fi
	LD_PRELOAD=$lib timeout -k 5 300 python3 -B tests/gpu/torch_run.py >"$work/torch.with" \
		2>>"$work/torch.err"
	t=$?
	ratios "$work/torch.plain" "$work/torch.with" >"$work/torch"
	if [ "$s$t" != 00 ]; then
		tail -n 3 "$work/torch.err" >>"$work/torch"
	elif ! cmp -s <(grep '^hash' "$work/torch.plain") <(grep '^hash' "$work/torch.with"); then
		echo "the library changes what it computes" >>"$work/torch"
		t=1
	else
		echo "the same output" >>"$work/torch"
	fi
	keep $((s ? s : t)) "$work/torch"
}

# A Llama that needs more than OFFLOAD_VRAM: the same tokens, and how long they take.
llm() {
	local bad=0 percent held device n plain=$work/llm.plain

	part "PyTorch, a Llama of transformers, OFFLOAD_VRAM at so much of its need"
	timeout -k 5 120 python3 -B tests/gpu/llm_run.py >"$plain" 2>"$work/llm.err"
	case $? in
	0)	;;
	77 | 127)	echo "not run: $(tail -n 1 "$plain")" >"$work/llm"; keep 0 "$work/llm"; return ;;
	*)	tail -n 3 "$work/llm.err" >"$work/llm"; keep 1 "$work/llm"; return ;;
	esac
	held=$(awk '$1 == "bytes" { print $3 }' "$plain")
	{ echo "all in the device: $(grep -E '^(time|load|bytes)' "$plain" | tr '\n' ' ')"; } >"$work/llm"
	for device in vmm uvm; do
		for percent in 80 50 20; do
			n=$work/llm.$device.$percent
			OFFLOAD_DEVICE=$device OFFLOAD_VRAM=$((held / 100 * percent)) OFFLOAD_STATS=$n.json \
				LD_PRELOAD=$lib timeout -k 5 180 python3 -B tests/gpu/llm_run.py >"$n" 2>"$n.err" ||
				bad=1
			cmp -s <(grep -E '^(hash|tokens)' "$plain") <(grep -E '^(hash|tokens)' "$n") ||
				{ bad=1; echo "not the same tokens or logits:"; }
			grep -q '"host_peak_bytes":[1-9]' "$n.json" || { bad=1; echo "nothing had a home on the host:"; }
			echo "$device, $percent%: $(grep -E '^(time|load)' "$n" | tr '\n' ' ')" \
				"$(grep -o '"host_home_bytes":[0-9]*' "$n.json")"
		done
	done >>"$work/llm"
	keep $bad "$work/llm"
}

[ "$1" != --present ] || { present; exit; }
present || { echo "no GPU: nothing run"; exit 0; }
for f in "$lib" "$B/gpu/facts" "$B/gpu/launch" "$B/engine/engine"; do
	[ -e "$f" ] || { echo "check-gpu: $f is missing: make gpu-bin" >&2; exit 1; }
done
rm -rf "$work"
mkdir -p "$work"
own_path=$LD_LIBRARY_PATH
[ -z "$CHECK_GPU_DRIVER" ] || export LD_LIBRARY_PATH=$CHECK_GPU_DRIVER
card=$("$B/gpu/facts" attributes 2>"$work/probe.err")
case $?,$card in
77,*)	echo "no GPU: nothing run ($(tail -n 1 "$work/probe.err"))"; exit 0 ;;
0,card:\ Emulated*)
	[ $# = 1 ] || { echo "check-gpu: an emulated card is no result: name a file" >&2; exit 2; } ;;
0,*)	;;
*)	echo "check-gpu: the card does not answer: $(tail -n 1 "$work/probe.err")" >&2; exit 1 ;;
esac
card=$(head -n 1 <<<"$card")
echo "$card"
for p in ${CHECK_GPU_PARTS:-questions programs homes hook torch llm}; do
	$p
done
{
	[ -e "$results" ] || echo "# What was seen on cards, by \`make check-gpu\`"
	printf '\n## %s\n\n%s, Linux %s, `make check-gpu`, %s\n' "${card#card: }" "$(date -u +%F)" \
		"$(uname -r)" "$([ $fails = 0 ] && echo "all passed" || echo "$fails parts failed")"
	cat "$work/seen"
} >>"$results"
echo "# $([ $fails = 0 ] && echo passed || echo "$fails parts failed"): see $results"
[ $fails = 0 ]
