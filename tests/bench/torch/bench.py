# SPDX-License-Identifier: MIT
"""The torch benchmark: weights that only malloc'd memory holds.

What is measured, in the words of the speed targets:

    W   bytes of weights; every pass reads them all, once, in order
    A   need: the group's peak anonymous memory in a run that has all of it,
        without the library. What it holds beside the weights is A - W
    M   the group's limit - (A - W) - 192 MiB: room for weights; W - M is missing

1. The limit is a share of A. Every run is in a memory cgroup of its own.
2. Medians leave out the first two passes. Bytes are the kernel's, per pass.
3. The disk, and the run that has all memory, are measured before and after
   each round of the runs of one type; the better figure counts, and of the runs'
   medians too: on a machine that others use, seconds in which all is slower come and go. The disk's are those of a file
   in the spill folder, of as many bytes as are missing.
4. The same: the digest after each pass, and the exact sum of all weights, of
   the run that has all memory.
5. Each byte is written once at most: all of A once, and the KV-like tensor,
   which is replaced in every pass, once per pass.
6. Without the library a limit below A ends the program; that is the baseline,
   and it is said what became of it.
7. Nothing here passes or fails but by --check: figures are for reading.
"""

import argparse
import datetime
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import common
from common import KILLED, MIB, Failed, cell, median

RESERVE = 192 * MIB
OVER_BOUND = 1.3

HEAD = (f"{'type':<5}{'limit':>6} {'pager':<6}{'output':>7}{'s/pass':>8}"
        f"{'bound':>7}{'x':>6}{'GB/pass':>9}{'missing':>8}{'written':>8}"
        f"{'bar':>5}{'w GB/pass':>10}{'build s':>8}{'fails':>6}{'max MB':>7}{'oom':>4}  missed")


def arguments():
    p = argparse.ArgumentParser(
        prog="tests/bench/run.sh torch",
        description="Debian's python3-torch with more malloc'd weights than "
                    "the memory it may use, without and with liboffload.")
    p.add_argument("--types", default="fp32,bf16", help="(default: %(default)s)")
    p.add_argument("--limits", default="0.8,0.5",
                   help="as shares of the need (default: %(default)s)")
    p.add_argument("--modes", default="move,copy",
                   help="values of OFFLOAD_PAGER (default: %(default)s)")
    p.add_argument("--mb", type=int, default=3200,
                   help="weights in 10^6 bytes (default: %(default)s)")
    p.add_argument("--passes", type=int, default=9,
                   help="per run; two are dropped (default: %(default)s)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2,
                   help="of all runs; the better median counts (default: %(default)s)")
    p.add_argument("--no-baseline", action="store_true",
                   help="leave out the run that is expected to be killed")
    p.add_argument("--lib", default="build/liboffload.so")
    p.add_argument("--out", default="build/bench", help="where results go")
    p.add_argument("--spill", help="folder of the spill file, on a disk "
                   "(default: spill/ in --out)")
    p.add_argument("--check", action="store_true",
                   help="exit 1 when an output differs or a bar is missed")
    return p.parse_args()


def line(r):
    same = {True: "same", False: "DIFFER", None: r.get("end", "-")}[r.get("same")]
    gb = {k: r[k] / 1e9 if r.get(k) is not None else None
          for k in ("read", "missing", "write")}
    return (f"{r['type']:<5}{r['share']:>6.0%} {r['pager']:<6}{same:>7}"
            f"{cell(r.get('s'), 8, 3)}{cell(r.get('bound_s'), 7, 3)}"
            f"{cell(r.get('over_bound'), 6)}{cell(gb['read'], 9, 3)}"
            f"{cell(gb['missing'], 8, 3)}{cell(r.get('written'), 8)}"
            f"{cell(r.get('written_bar'), 5)}"
            f"{cell(gb['write'], 10, 3)}{cell(r.get('build_s'), 8, 1)}"
            f"{cell(r.get('fails'), 6, 0)}"
            f"{cell((r.get('max_usage') or 0) / 1e6, 7, 0)}"
            f"{cell(r.get('oom_kill'), 4, 0)}  {common.tail(r)}")


class Bench:
    def __init__(self, args):
        self.args = args
        self.scratch = common.scratch(args.out)

    def run(self, kind, limit, pager="none"):
        """Returns what the driver said, the group's figures and the stats."""
        args, at = self.args, self.scratch
        for name in os.listdir(at):
            os.unlink(f"{at}/{name}")
        argv = ["env", *common.preload(args.lib, pager, f"{at}/stats.json",
                                       args.spill),
                "/usr/bin/python3", "-B", "tests/bench/torch/drive.py",
                "--type", kind, "--mb", str(args.mb),
                "--passes", str(args.passes), "--threads", str(args.threads)]
        status, err, group = common.in_group(
            ["sh", "-c", 'exec "$@" >"$0"', f"{at}/out.json", *argv], limit,
            f"{at}/group.json")
        out = common.load_json(f"{at}/out.json")
        if status or not out.get("out"):
            raise Failed(f"status {status}\n{err[-2000:]}", status, group)
        return {**out, **group, "stats": common.load_json(f"{at}/stats.json"),
                "stderr": err[-2000:]}


def free_run(bench, kind):
    return bench.run(kind, bench.args.mb * 10 ** 6 * 2 + 2048 * MIB)


def reference(bench, kind):
    """The run that has all memory: what each pass gives, A, and time in RAM."""
    run = free_run(bench, kind)
    ref = {"type": kind, "out": run["out"], "sum": run["sum"],
           "weights": run["weights"], "kv": run["kv"], "need": run["peak_anon"],
           "compute_s": median(run["s"]), "build_s": run["build"]["s"]}
    print(f"\n{kind}: weights {ref['weights'] / 1e6:.0f} MB, need "
          f"{ref['need'] / 1e6:.0f} MB, KV {ref['kv'] / 1e6:.0f} MB; with all "
          f"memory {ref['compute_s']:.3f} s/pass, {ref['build_s']:.1f} s to build")
    return ref


def missing_bytes(ref, limit):
    room = limit - (ref["need"] - ref["weights"]) - RESERVE
    return max(ref["weights"] - room, 0)


def attempt(bench, ref, share, pager):
    """One run: what it did, without the bound."""
    limit = int(ref["need"] * share)
    result = {"type": ref["type"], "share": share, "pager": pager,
              "limit": limit, "missing": missing_bytes(ref, limit)}
    try:
        run = bench.run(ref["type"], limit, pager)
    except Failed as e:
        killed = e.status in KILLED
        if pager != "none" or not killed:
            print(f"bench: {ref['type']} {pager}: {e}", file=sys.stderr)
        return {**result, **e.group, "end": "killed" if killed else "failed",
                "error": str(e), "missed": [] if pager == "none" else ["failed"]}
    return {**result, "same": run["out"] == ref["out"] and run["sum"] == ref["sum"],
            "s": median(run["s"]), "read": median(run["read"]),
            "write": median(run["written"]), "fails": median(run["watched"]),
            "written": run["all"]["written"] / ref["weights"],
            "build_s": run["build"]["s"],
            **{k: run[k] for k in ("max_usage", "oom_kill", "peak_anon",
                                   "noise", "stats", "stderr")},
            "each": {k: run[k] for k in ("s", "read", "written", "watched")},
            "build": run["build"], "all": run["all"], "sum_s": run["sum_s"]}


def judge(result, ref, bandwidth, passes):
    """Adds the bounds and the bars missed."""
    bound = max(result["missing"] / bandwidth, ref["compute_s"])
    once = (ref["need"] + ref["kv"] * passes) / ref["weights"]
    result.update(bound_s=bound, over_bound=result["s"] / bound,
                  bandwidth=bandwidth, written_bar=once)
    result["missed"] = (
        ["time"] * (result["over_bound"] > OVER_BOUND) +
        ["written"] * (result["written"] > once) +
        ["oom"] * bool(result["oom_kill"]))


def better(was, now):
    """The faster one; one that failed, or gave something else, is never left out."""
    if was is None:
        return now
    if not (was.get("s") and was.get("same")):
        return was
    return now if not (now.get("s") and now.get("same")) or now["s"] < was["s"] else was


def one_type(bench, args, ref, report):
    limits = [float(x) for x in args.limits.split(",") if x]
    missing = {x: missing_bytes(ref, int(ref["need"] * x)) for x in limits}
    most = max(missing.values())
    disk, memory, best = [common.disk_of(args.spill, most)], [ref["compute_s"]], {}
    for number in range(args.rounds):
        for share in limits:
            plain = not args.no_baseline and not number and share == max(limits)
            for pager in ["none"] * plain + args.modes:
                got = attempt(bench, ref, share, pager)
                tell(got)
                best[share, pager] = better(best.get((share, pager)), got)
        disk.append(common.disk_of(args.spill, most))
        memory.append(median(free_run(bench, ref["type"])["s"]))
    print("disk " + ", ".join(f"{x / 1e9:.2f}" for x in disk) + " GB/s; with all memory " +
          ", ".join(f"{x:.3f}" for x in memory) + " s/pass")
    ref["compute_s"] = min(memory)
    print(HEAD)
    for result in best.values():
        if result.get("s") and result["pager"] != "none":
            judge(result, ref, max(disk), args.passes)
            beside(bench, args, ref, result)
        report.add(result)


def beside(bench, args, ref, result):
    """See common.beside_a_reader; of what was read, written bytes are no part."""
    rate = common.result_rate(result)
    if not rate:
        return
    with common.some_file(args.spill, result["missing"]) as path:
        with common.reading(path, result["missing"], rate) as reached:
            run = free_run(bench, ref["type"])
    common.beside_a_reader(result, ref["compute_s"], median(run["s"]), reached[0],
                           result["missing"])


def tell(r):
    """Progress, before the bound is known."""
    took = f"{r['s']:.3f} s/pass" if r.get("s") else r["end"]
    print(f"bench: {r['type']} {r['share']:.0%} {r['pager']}: {took}",
          file=sys.stderr)


def main():
    args = arguments()
    args.spill = args.spill or f"{args.out}/spill"
    args.modes = [m for m in args.modes.split(",") if m]
    os.makedirs(args.spill, exist_ok=True)
    if not os.path.exists(args.lib) and args.modes:
        sys.exit(f"bench: {args.lib} is missing: run make")
    common.need_group()
    bench = Bench(args)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    report = common.Report(f"{args.out}/torch-{stamp}.jsonl", line)
    for kind in args.types.split(","):
        one_type(bench, args, reference(bench, kind), report)
    print("\nwritten: all bytes written, per byte of weights; bar: the same of "
          "what the program\nwrote itself. x: time over the bound "
          f"(bar: {OVER_BOUND})\n"
          f"results: {report.path}")
    return 1 if args.check and report.bad() else 0


if __name__ == "__main__":
    sys.exit(main())
