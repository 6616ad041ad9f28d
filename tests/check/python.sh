#!/bin/bash
# SPDX-License-Identifier: MIT
#
# python.sh - python3 whose memory is paged: multiprocessing in all its ways,
# os.fork, subprocess, shared memory and mmap give the same output as without.
#
# Owns a scratch folder; lock: none. The statistics of the first process must
# show evictions, or nothing was proven. In mode hints such memory is the kernel's.

cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
lib=$(realpath -m "$B")/liboffload.so
command -v python3 >/dev/null || { echo "no python3"; exit 77; }
[ -e "$lib" ] || { echo "FAIL: $lib is missing"; exit 1; }
dir=$(mktemp -d "$(realpath "$B")/python.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
unset LD_PRELOAD ${!OFFLOAD_*}
bad=0 skipped=

fail() {
	echo "FAIL: $*"
	bad=1
}

cat >"$dir/many.py" <<'PY'
import hashlib, mmap, multiprocessing as mp, os, random, subprocess, sys, tempfile
from multiprocessing import shared_memory

MIB = 1 << 20
big = [bytearray(random.Random(i).randbytes(MIB) * 9) for i in range(4)]

def digest(b):
    return hashlib.sha256(b).hexdigest()[:16]

def task(i):                       # finds the parent's where it was forked
    own = bytearray(random.Random(100 + i).randbytes(MIB)) * 9
    own[i] ^= 255
    at = i % 4
    big[at][i] ^= 1
    return digest(own), digest(big[at]) if IS_FORK else ""

def pooled(how):
    with mp.get_context(how).Pool(2, initializer=begin, initargs=(how,)) as p:
        return p.map(task, range(2), chunksize=1)

def begin(how):
    global IS_FORK
    IS_FORK = how == "fork"

def echo(q, r):
    while (b := q.get()) is not None:
        r.put((len(b), digest(b)))

def queues():
    q, r = mp.Queue(), mp.Queue()
    p = mp.Process(target=echo, args=(q, r))
    p.start()
    for b in big:
        q.put(bytes(b[:3 * MIB]))
    got = [r.get() for b in big]
    q.put(None)
    p.join()
    return got, p.exitcode

def forked():
    rd, wr = os.pipe()
    pid = os.fork()
    if not pid:
        big[0][:] = bytes(9 * MIB)
        os.write(wr, (digest(big[0]) + digest(big[1])).encode())
        os._exit(7)
    st = os.waitpid(pid, 0)[1]
    return os.read(rd, 100).decode(), st, digest(big[0])

def shared():
    v = os.statvfs("/dev/shm")     # small in containers: writing is SIGBUS there
    if v.f_bavail * v.f_frsize < 64 * MIB:
        return "no room"
    m = shared_memory.SharedMemory(create=True, size=5 * MIB)
    m.buf[:] = big[1][:5 * MIB]
    p = mp.Process(target=m.buf.__setitem__, args=(3, 77))
    p.start()
    p.join()
    d = digest(m.buf), m.buf[3]
    m.close()
    m.unlink()
    return d

def mapped():
    with tempfile.TemporaryFile() as f:
        f.write(big[2])
        f.flush()
        m = mmap.mmap(f.fileno(), 0)
        m[5:10] = b"hello"
        f.seek(5)
        a = mmap.mmap(-1, 9 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        a[:] = bytes(m)
        return f.read(5), digest(a), a.resize(20 * MIB), digest(a)

def piped():
    p = subprocess.run(["cat"], input=bytes(big[3]), capture_output=True)
    return digest(p.stdout), subprocess.check_output("echo hi", shell=True)

if __name__ == "__main__":
    for how in ("fork", "forkserver", "spawn"):
        print(how, pooled(how))
    for f in (queues, forked, shared, mapped, piped):
        print(f.__name__, f())
    print([digest(b) for b in big])
PY

python3 "$dir/many.py" >"$dir/want" 2>"$dir/err" ||
	{ echo "python3 cannot do this here: $(tail -n 1 "$dir/err")"; exit 77; }

for mode in move copy; do
	rm -f "$dir"/stats.*
	TMPDIR=$dir OFFLOAD_SPILL=$dir OFFLOAD_RAM=32M OFFLOAD_HOST_MIN=64K \
		OFFLOAD_PAGER=$mode OFFLOAD_STATS="$dir/stats.%p" LD_PRELOAD=$lib \
		timeout 120 python3 "$dir/many.py" >"$dir/got" 2>"$dir/err" ||
		fail "$mode: status $?: $(tail -n 3 "$dir/err")"
	cmp -s "$dir/want" "$dir/got" ||
		fail "$mode: output differs: $(diff "$dir/want" "$dir/got" | head -n 6)"
	if ! grep -q "\"pager\":\"$mode\"" "$dir"/stats.*; then
		skipped+=" $mode"
		continue
	fi
	n=$(grep -ho '"evictions":[0-9]*' "$dir"/stats.* | cut -d: -f2 | sort -n | tail -n 1)
	echo "$mode: up to $n evictions in one process"
	[ "${n:-0}" -gt 20 ] || fail "$mode: $n evictions at most"
done
[ $bad = 0 ] || exit 1
[ -z "$skipped" ] || { echo "modes that are not to be had here:$skipped"; exit 77; }
