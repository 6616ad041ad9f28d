#!/bin/sh
# SPDX-License-Identifier: MIT
# mkmodel.sh - what the model maker promises: same seed, same file, for any
# number of threads; the size it says; weights with the entropy of real ones;
# no partial file when the disk is full; clear messages for bad arguments.
# Exit status: 0, 1, or 77 where it cannot be run.
set -u
cd "$(dirname "$0")/../.." || exit 1
MK=$PWD/${B:-build}/mkmodel
[ -x "$MK" ] || { echo "no $MK"; exit 77; }
dir=$(mktemp -d) || exit 77
trap 'umount "$dir/small" 2>/dev/null; rm -rf "$dir"' EXIT
bad=0

fail() {
	echo "FAIL: $*"
	bad=1
}

# make NAME ARGUMENT...: a small model of 2 layers.
make() {
	name=$1
	shift
	"$MK" --layers 2 --dim 256 --ff 512 --vocab 400 "$@" "$dir/$name" \
		>"$dir/$name.out" 2>"$dir/$name.err"
}

# Reads the header as another program would: every tensor must lie where the
# format says, inside the file, aligned, and not on top of the next.
well_formed() {
	python3 - "$1" "$2" <<-'PY'
	import os, struct, sys
	data = open(sys.argv[1], "rb").read()
	at = 0
	def take(fmt):
	    global at
	    v = struct.unpack_from("<" + fmt, data, at)
	    at += struct.calcsize("<" + fmt)
	    return v[0]
	def text():
	    global at
	    n = take("Q")
	    at += n
	    return data[at - n:at].decode()
	def value(kind):
	    if kind == 8:
	        return text()
	    if kind == 9:
	        item, n = take("I"), take("Q")
	        return [value(item) for _ in range(n)]
	    return take({4: "I", 5: "i", 6: "f", 7: "?"}[kind])
	assert data[:4] == b"GGUF"
	at = 4
	assert take("I") == 3
	tensors, keys = take("Q"), take("Q")
	kv = {}
	for _ in range(keys):
	    name = text()
	    kv[name] = value(take("I"))
	sizes = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 30: (1, 2)}
	spans = []
	for _ in range(tensors):
	    name, dims = text(), take("I")
	    shape = [take("Q") for _ in range(dims)]
	    items, size = sizes[take("I")]
	    n = 1
	    for d in shape:
	        n *= d
	    assert shape[0] % items == 0, name
	    spans.append((take("Q"), n // items * size, name))
	start = (at + 31) // 32 * 32
	end = 0
	for off, size, name in sorted(spans):
	    assert off % 32 == 0 and off >= end and off - end < 32, name
	    end = off + size
	assert 0 <= len(data) - start - end < 32
	assert len(kv["tokenizer.ggml.tokens"]) == kv["llama.vocab_size"]
	assert len(set(kv["tokenizer.ggml.tokens"])) == kv["llama.vocab_size"]
	want = 2 * (10 if sys.argv[2] == "moe" else 9) + 3
	assert tensors == want, (tensors, want)
	PY
}

for type in bf16 f16 f32 q8_0 q4_0; do
	make one --type $type --threads 1 || fail "$type: $(cat "$dir/one.err")"
	make two --type $type --threads 3
	cmp -s "$dir/one" "$dir/two" || fail "$type: threads change the file"
	make three --type $type --seed 2
	cmp -s "$dir/one" "$dir/three" && fail "$type: the seed changes nothing"
	said=$(awk '/^bytes/ { print $2 }' "$dir/one.out")
	[ "$said" = "$(stat -c %s "$dir/one")" ] || fail "$type: size is not $said"
	well_formed "$dir/one" dense || fail "$type: malformed"
	[ -e "$dir/one.tmp" ] && fail "$type: a temporary file is left"
done
make moe --type q8_0 --experts 4 && well_formed "$dir/moe" moe || fail "experts"
make heads --type q8_0 --heads 6 --kv-heads 3 --head-dim 96 &&
	well_formed "$dir/heads" dense || fail "heads"
make odd --type q8_0 --vocab 333 && well_formed "$dir/odd" dense || fail "odd vocab"

make bf --type bf16
awk '/^exponent/ { ok = $3 >= 2.55 && $3 <= 2.75 } END { exit !ok }' \
	"$dir/bf.out" || fail "entropy: $(cat "$dir/bf.out")"

for wrong in "--type q9" "--type f16 --dim 100" "--type f16 --layers 0" \
	"--type f16 --vocab 12" "--type f16 --seed x" "--type f16 --heads 4" \
	"--type f16 --heads 4 --kv-heads 3 --head-dim 64"; do
	make wrong $wrong && fail "accepted: $wrong"
	[ -s "$dir/wrong.err" ] || fail "silent about: $wrong"
	[ -e "$dir/wrong" ] && fail "made a file of: $wrong"
done

mkdir "$dir/small"
if mount -t tmpfs -o size=1m none "$dir/small" 2>/dev/null; then
	"$MK" --type f32 --layers 2 --dim 256 --ff 512 --vocab 400 \
		"$dir/small/x" >/dev/null 2>"$dir/full.err" && fail "full disk accepted"
	[ "$(wc -l <"$dir/full.err")" = 1 ] || fail "full disk: not one message"
	[ -z "$(ls "$dir/small")" ] || fail "a partial file is left"
	umount "$dir/small"
fi
"$MK" --drop "$dir/bf" || fail "drop"
[ $bad = 0 ] && echo "ok: mkmodel"
exit $bad
