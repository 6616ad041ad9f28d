#!/bin/bash
# SPDX-License-Identifier: MIT
#
# inert.sh - preloaded into programs that have no model, the library is not
# there: same output, same exit status, no thread, no descriptor, no word.
#
# Owns a scratch folder; lock: none. A program that is not installed is not
# asked; fewer than two is a skip.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0 asked=0

fail() {
	echo "FAIL: $*"
	bad=1
}

# The scripts below show what they can see of themselves: threads, and
# descriptors with what they lead to (numbers of pipes change from run to run).
cat >"$dir/self.py" <<'PY'
import os
print(len(os.listdir("/proc/self/task")))
for fd in sorted(os.listdir("/proc/self/fd"), key=int):
    try:
        print(fd, os.readlink("/proc/self/fd/" + fd).split(":")[0])
    except OSError:
        pass
import json, zlib, hashlib, subprocess, threading
blob = bytearray(40 << 20)          # above OFFLOAD_HOST_MIN, and no model
blob[::4096] = b"x" * len(blob[::4096])
print(hashlib.sha256(blob).hexdigest())
t = threading.Thread(target=lambda: print("thread"))
t.start(); t.join()
print(subprocess.run(["/bin/echo", "child"], capture_output=True).stdout)
print(len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))
PY
cat >"$dir/self.js" <<'JS'
const fs = require('fs');
// The loop's own descriptors depend on the kernel, not on the run.
console.log(fs.readdirSync('/proc/self/fd').length);
console.log(fs.readdirSync('/proc/self/task').length);
console.log(require('child_process').execSync('echo child').toString());
console.log(Buffer.alloc(40 << 20, 'x').length);
JS
cat >"$dir/self.sh" <<'SH'
ls /proc/$$/task | wc -l
find /proc/$$/fd -mindepth 1 -printf '%f %l\n'	# no pipe of the shell's own meanwhile
echo "$(echo nested "$(echo deeper)")"
exec 7<"$0"; read -r line <&7; echo "$line"
( exit 7 ); echo $?
exit 5
SH
printf '#include <stdio.h>\nint main(void){return printf("built\\n")-6;}\n' \
	>"$dir/a.c"
head -c 48M /dev/zero >"$dir/blob"	# large, and no tensor container

# compare NAME COMMAND...: stdout, stderr and status with and without.
compare() {
	local name=$1 a b

	shift
	command -v "$1" >/dev/null || { echo "$1 is not installed"; return; }
	asked=$((asked + 1))
	# The same names both times: a program may show where its output goes.
	"$@" >"$dir/o" 2>"$dir/e" </dev/null
	a=$?
	mv "$dir/o" "$dir/o1"
	mv "$dir/e" "$dir/e1"
	env LD_PRELOAD="$lib" "$@" >"$dir/o" 2>"$dir/e" </dev/null
	b=$?
	mv "$dir/o" "$dir/o2"
	mv "$dir/e" "$dir/e2"
	[ $a = $b ] || fail "$name: status $a without, $b with the library"
	cmp -s "$dir/o1" "$dir/o2" ||
		fail "$name: output differs: $(diff "$dir/o1" "$dir/o2" | head -n 5)"
	cmp -s "$dir/e1" "$dir/e2" ||
		fail "$name: stderr differs: $(diff "$dir/e1" "$dir/e2" | head -n 5)"
}

compare bash bash "$dir/self.sh"
compare python3 python3 -S "$dir/self.py"
compare gcc gcc -O2 -o "$dir/a.out" "$dir/a.c"
compare 'what gcc built' "$dir/a.out"
compare node node "$dir/self.js"
compare git git --version
compare 'git diff' git diff --no-index --stat "$dir/a.c" "$dir/self.sh"
compare grep grep -c x "$dir/blob"
compare sort sort "$dir/self.py"
compare cat sh -c "cat '$dir/blob' | cksum"

# Environment of the library that changes nothing must stay silent too.
OFFLOAD_RAM=1G compare 'python3 with a budget' python3 -S "$dir/self.py"
OFFLOAD_PAGER=off compare 'python3, off' python3 -S "$dir/self.py"

[ $asked -ge 2 ] || { echo "too few programs here"; exit 77; }
exit $bad
