# SPDX-License-Identifier: MIT
"""What the benchmarks share: running programs, groups, the disk, tables.

1. Nothing outlives this program: whatever ends it ends what it started, by a
   signal that lets a memory cgroup be removed.
2. Medians leave out the first two passes: the one that warms up, and the one
   in which the library learns the order.
"""

import atexit
import contextlib
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

MIB = 1 << 20
DROPPED = 2		# passes
RUN_TIMEOUT = 900
KILLED = (137, -9)	# a run's status
NOISE = 0.05		# more of the processors used by others is told


class Failed(Exception):
    """A run that did not end well. status: as the shell tells it, or None;
    group: what the kernel counted of its group."""

    def __init__(self, text, status=None, group=None):
        super().__init__(text)
        self.status, self.group = status, group or {}


def median(values):
    return statistics.median(values[DROPPED:] or values)


def command(*argv):
    """Runs a program that must succeed. Returns its stdout."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"bench: {argv[0]} failed ({done.returncode})")
    return done.stdout


def call(argv):
    """Runs a program to its end, or ends it. Returns (status, stderr)."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, text=True,
                          stderr=subprocess.PIPE) as child:
        try:
            _, err = child.communicate(timeout=RUN_TIMEOUT)
        except subprocess.TimeoutExpired:
            child.terminate()
            raise Failed(f"no end after {RUN_TIMEOUT} s") from None
        except BaseException:
            child.terminate()
            raise
        return child.returncode, err


def need_group():
    """Nothing can be measured of a group that cannot be made."""
    kind = command("tools/cgroup.sh", "probe").strip()
    if kind not in ("v1", "v2"):
        print("bench: no memory cgroup can be made here", file=sys.stderr)
        sys.exit(77)


def processor():
    """Seconds of processor time since the machine started: all, what the host
    took for itself, what was used; and what our own children used."""
    with open("/proc/stat") as f:
        t = [int(x) / os.sysconf("SC_CLK_TCK") for x in f.readline().split()[1:9]]
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(t), t[7], sum(t[:3] + t[5:7]), own.ru_utime + own.ru_stime


def in_group(argv, limit, report):
    """Runs argv in a memory cgroup of its own. Returns (status, stderr, what
    the kernel counted of the group). "noise": the share of the processors that
    others on the machine, and its host, used meanwhile."""
    before = processor()
    status, err = call(["tools/cgroup.sh", "run", "--limit", str(int(limit)),
                        "--report", report, "--", *argv])
    total, stolen, used, own = (b - a for a, b in zip(before, processor()))
    noise = (stolen + max(used - own, 0)) / max(total, 0.01)
    return status, err, {**load_json(report), "noise": noise}


def tail(result):
    """The end of a table's row: bars missed, and what else is to be known."""
    out = " ".join(result.get("missed", []))
    if result.get("note"):
        out += f" ({result['note']})"
    if result.get("s") and result["noise"] >= NOISE:
        out += f" [{result['noise']:.0%} noise]"
    return out.strip()


def preload(lib, pager, stats, spill=None):
    """The environment, as words for env(1), of a run with the library."""
    if pager == "none":
        return []
    words = [f"LD_PRELOAD={os.path.abspath(lib)}", f"OFFLOAD_PAGER={pager}",
             f"OFFLOAD_STATS={os.path.abspath(stats)}"]
    return words + ([f"OFFLOAD_SPILL={os.path.abspath(spill)}"] if spill else [])


def read_set(missing):
    """Of how many bytes of a file the disk's speed is told."""
    return str(max(int(missing), 256 * MIB))


def disk(path, missing):
    """Bytes per second of random 2 MiB reads of `missing` bytes of a file."""
    return float(command("build/bench/diskbw", path, read_set(missing)))


@contextlib.contextmanager
def reading(path, missing, rate):
    """Meanwhile the same bytes are read over and over, `rate` per second.
    Yields a list that holds the rate reached, afterwards."""
    reached = []
    with subprocess.Popen(["build/bench/diskbw", path, read_set(missing),
                           str(int(rate))], stdout=subprocess.PIPE) as reader:
        try:
            yield reached
        finally:
            reader.terminate()
            reached.append(float(reader.communicate()[0] or 0))


def beside_a_reader(result, alone_s, shared_s, reached, missing):
    """Adds what the reading alone costs this engine on this machine (a virtual disk
    is served by the processors the engine computes on). With all in memory, without
    the library, it takes shared_s beside a plain reader that reached so many bytes
    per second, and alone_s alone: a byte costs it (1 - alone_s / shared_s) / reached
    seconds, and a pass could not take less than alone_s + missing of these. No bar:
    the bound knows no such cost. A reader that fell behind tells nothing."""
    if reached < 0.9 * result_rate(result):
        return
    cost = max(0, 1 - alone_s / shared_s) / reached
    beside = max(alone_s + cost * missing, missing / result["bandwidth"])
    result.update(beside_s=beside, over_beside=result["s"] / beside, byte_cost_s=cost)
    result["note"] = f"{result['over_beside']:.2f}x the engine beside a reader"


def result_rate(result):
    """Bytes per second that the run read, all along a pass."""
    return result.get("bytes", result.get("read", 0)) / result["s"]


@contextlib.contextmanager
def some_file(folder, size):
    """A file of numbers nothing can pack, gone afterwards."""
    path = f"{folder}/disk.bin"
    try:
        with open(path, "wb") as f:
            for _ in range(max(int(size) // (4 * MIB) + 1, 64)):
                f.write(os.urandom(4 * MIB))
            f.flush()
            os.fsync(f.fileno())
        yield path
    finally:
        if os.path.exists(path):
            os.unlink(path)


def disk_of(folder, missing):
    """The same of the file system a folder is on."""
    with some_file(folder, missing) as path:
        return disk(path, missing)


def scratch(out):
    """A folder for one program's outputs, gone when this program ends."""
    path = tempfile.mkdtemp(prefix="run-", dir=out)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return path


def load_json(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


def cell(value, width, digits=2):
    if value is None:
        return " " * (width - 1) + "-"
    return f"{value:>{width}.{digits}f}"


class Report:
    """Prints each result when it is there and keeps it as a JSON line."""

    def __init__(self, path, line):
        self.path, self.line, self.results = path, line, []

    def add(self, result):
        self.results.append(result)
        print(self.line(result), flush=True)
        with open(self.path, "a") as f:
            f.write(json.dumps(result) + "\n")

    def bad(self):
        return [r for r in self.results
                if r.get("same") is False or r.get("missed")]
