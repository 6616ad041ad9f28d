# SPDX-License-Identifier: MIT
"""The rows of the engine benchmark whose memory is the engine's own: weights
it read() into malloc'd memory (no-mmap), and a long context's keys and values
(kv). What they are compared with is in rows.py.

1. Without the library such memory ends with the process being killed; that is
   the baseline, and no bar is missed by it.
2. A, the engine's memory beside the weights, is that of a run on the mapping:
   M and N are the same for both ways to load.
"""

from common import disk_of, median
from measure import Run
from rows import RESERVE, attempt, compare, dense_bars, limit_for, memory_bars

OVER_MMAP = 1.1		# time per token, over the same mode on the mapping


def modes(args):
    """Those that offload anonymous memory."""
    return [m for m in args.modes if m in ("move", "copy")]


def killed(result):
    """The baseline of such a row: what became of it is the result."""
    if result.get("error"):
        result.update(missed=[], note="killed" if result.get("killed") else "failed")
    return result


def no_mmap(bench, args, ref, report):
    for n in args.n or [1.25]:
        no_mmap_at(bench, args, ref, report, n)


def no_mmap_at(bench, args, ref, report, n):
    """Each mode first on the mapping, then without."""
    limit, missing = limit_for(ref, n), ref["n_bytes"] * (1 - 1 / n)
    disk, done = [bench.disk(ref["model"], missing)], []
    if not args.no_baseline:
        run = Run(ref["model"], limit, driver=("--no-mmap",))
        _, result = attempt(bench, run, row="no-mmap", n=n, type=args.type)
        report.add(killed(result))
    for pager in modes(args):
        for row, driver in (("mmap", ()), ("no-mmap", ("--no-mmap",))):
            run = Run(ref["model"], limit, pager, driver=driver)
            got, result = attempt(bench, run, row=row, n=n, type=args.type)
            compare(result, got, ref)
            done.append((got, result))
    disk.append(bench.disk(ref["model"], missing))
    mapped = None
    for got, result in done:
        if got:
            dense_bars(result, ref, n, None, max(disk))
        if got and result["row"] == "no-mmap":
            no_mmap_bars(result, got, ref, mapped)
        mapped = result.get("s")
        report.add(result)


def no_mmap_bars(result, got, ref, mapped_s):
    """Adds: nothing written, one verification read, the time of mmap."""
    # The page cache of the load fills the group to its limit; and the time is
    # compared with mmap's.
    missed = [m for m in result["missed"] if m not in ("usage", "time")]
    bars = result["bytes_bar"] * len(got["bytes"])
    beside = got["load_bytes"] + sum(got["bytes"]) - bars - ref["file_bytes"]
    result.update(beside_bytes=max(beside, 0))
    if result["wrote"]:
        missed.append("written")
    if beside > ref["file_bytes"]:
        missed.append("verification")
    result["note"] = f"{max(beside, 0) / 1e9:.2f} GB beside"
    if mapped_s:
        result["than_mmap"] = result["s"] / mapped_s
        result["note"] += f", {result['than_mmap']:.2f}x mmap"
        if result["than_mmap"] > OVER_MMAP:
            missed.append("mmap")
    result["missed"] = missed


# Many heads, each with keys and values of its own: 512 KiB per token, so that a
# context of 1 GB is computed in seconds.
KV_SHAPE = ("--layers", "32", "--dim", "256", "--ff", "512", "--vocab", "4096",
            "--heads", "32", "--kv-heads", "32", "--head-dim", "128")
KV_CONTEXT, KV_PROMPT = 2048, 1920
KV_BYTES = 32 * 2 * 32 * 128 * 2 * KV_CONTEXT
KV_DRIVER = ("--context", str(KV_CONTEXT), "--prompt", str(KV_PROMPT),
             "--batch", "256")


def kv(bench, args, ref, report):
    """A context of 1 GB in memory that lacks half of it."""
    limit = ref["own"] + ref["file_bytes"] - KV_BYTES // 2 + RESERVE
    if not args.no_baseline:
        run = Run(ref["model"], limit, driver=KV_DRIVER)
        _, result = attempt(bench, run, row="kv", type=args.type)
        report.add(killed(result))
    disk, done = [disk_of(bench.spill, KV_BYTES // 2)], []
    for pager in modes(args):
        run = Run(ref["model"], limit, pager, driver=KV_DRIVER)
        got, result = attempt(bench, run, row="kv", type=args.type)
        compare(result, got, ref)
        done.append((got, result))
    disk.append(disk_of(bench.spill, KV_BYTES // 2))
    for got, result in done:
        if got:
            kv_bars(result, got, ref, KV_BYTES // 2 / max(disk))
        report.add(result)


def kv_bars(result, got, ref, disk_s):
    bound = max(disk_s, ref["compute_s"])
    result.update(bound_s=bound, over_bound=result["s"] / bound,
                  prompt_s=got["ms"][0] / 1000,
                  write=median(got["written"]))
    result["note"] = (f"{result['write'] / 1e9:.2f} GB written per token, prompt "
                      f"{result['prompt_s']:.0f} s of {ref['prompt_s']:.0f}")
    # A context that was never away shows nothing.
    result["missed"] = ["nothing evicted"] * (not result["bytes"])
    result["missed"] += [m for m in memory_bars(result, ref) if m != "usage"]
