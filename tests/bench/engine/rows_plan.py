# SPDX-License-Identifier: MIT
"""The row of the engine benchmark that compares what offctl plan predicts with
what a run then takes, at several budgets and on a disk made slower.

1. Both know the same: M, and what a token takes with all in memory. A slower disk
   is told to offctl; the one there is, it measures itself.
2. A disk is made slower by the kernel (blkio, cgroup v1), for this program and
   what it starts: the library finds it slow, and is told nothing.
3. What is foretold is where a run settles: the last third of its tokens counts, seven at
   least. What is to be packed is packed on its way out, 20 tokens on a slow disk
   (--tokens 24).
"""

import contextlib
import json
import os
import statistics
import sys

from common import command
from measure import Run
from rows import attempt, compare, limit_for, memory_bars

BLKIO = "/sys/fs/cgroup/blkio"
DISKS = (None, 2.0, 0.8)	# GB/s; None: as it is
WITHIN = 0.20			# of the time measured


def plan(bench, args, ref, report):
    for n in args.n or [1.25, 2.0]:
        for disk in DISKS:
            for pager in args.modes[:1]:
                plan_at(bench, args, ref, report, n, disk, pager)


def plan_at(bench, args, ref, report, n, disk, pager):
    run = Run(ref["model"], limit_for(ref, n), pager)
    with slower(ref["model"], disk) as can:
        if not can:
            print("bench: the disk cannot be made slower here", file=sys.stderr)
            return
        got, result = attempt(bench, run, row="plan", n=n, type=args.type, disk=disk)
    compare(result, got, ref)
    if got:
        last = got["ms"][-max(len(got["ms"]) // 3, 7):]		# (3)
        result["s"] = statistics.median(last) / 1000
        predict(result, ref, disk)
        result["missed"] = memory_bars(result, ref)
        if abs(result["predicted_s"] / result["s"] - 1) > WITHIN:
            result["missed"].append("plan")
    report.add(result)


def predict(result, ref, disk):
    words = ["build/offctl", "plan", "--json",
             "--ram", str(int(ref["n_bytes"] / result["n"])),
             "--compute", str(ref["compute_s"])]
    if disk:
        words += ["--disk", str(disk)]
    said = json.loads(command(*words, ref["model"]))
    predicted = said["predicted"]["likely_seconds"]
    packed = sum(c["packed_bytes"] for c in said["classes"])
    result.update(predicted_s=predicted, planned_packed=packed,
                  note=f"predicted {predicted:.3f}, "
                  f"{predicted / result['s']:.2f} of it; disk "
                  f"{said['rates']['disk_bytes_per_s'] / 1e9:.2f} GB/s; "
                  f"{packed / 1e9:.2f} GB packed")


def packing(bench, args, ref, report):
    """The plan beside packing all that can be and streaming alone, which are what
    the plan makes of a disk that is told to be very slow, or very fast."""
    for n in args.n or [1.25, 1.8]:
        for what, rate in (("plan", None), ("pack", "50M"), ("stream", "100G")):
            for pager in args.modes[:1]:
                env = {"OFFLOAD_DISK": rate} if rate else {}
                run = Run(ref["model"], limit_for(ref, n), pager, env=env)
                got, result = attempt(bench, run, row="packing", n=n,
                                      type=args.type, disk=None, note=what)
                compare(result, got, ref)
                if got:
                    result["missed"] = memory_bars(result, ref)
                report.add(result)


@contextlib.contextmanager
def slower(path, disk):
    """(2). Yields False where that cannot be had."""
    if not disk:
        yield True
        return
    group = f"{BLKIO}/offload-bench-{os.getpid()}"
    dev = os.stat(path).st_dev
    number = f"{os.major(dev)}:{os.minor(dev)}"
    try:
        with open("/proc/self/cgroup") as f:
            was = next(line.split(":", 2)[2].strip() for line in f
                       if "blkio" in line.split(":")[1].split(","))
        os.mkdir(group)
    except (OSError, StopIteration):
        yield False
        return
    try:
        write(f"{group}/blkio.throttle.read_bps_device", f"{number} {int(disk * 1e9)}")
        write(f"{group}/cgroup.procs", str(os.getpid()))
    except OSError:		# a partition, say
        os.rmdir(group)
        yield False
        return
    try:
        yield True
    finally:
        write(f"{BLKIO}{was}/cgroup.procs", str(os.getpid()))
        os.rmdir(group)


def write(path, text):
    with open(path, "w") as f:
        f.write(text)
