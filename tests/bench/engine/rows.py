# SPDX-License-Identifier: MIT
"""The rows of the engine benchmark: which runs, and which bars they have.

Each row is a function (bench, args, reference, report). A run that fails is
a result too: it is reported with its message, and as missed.
"""

import sys

import common
from common import KILLED, MIB, Failed, median
from measure import Run

RESERVE = 192 * MIB
# Speed-up over the page cache at N = 1.25 M, q8_0.
MODE_BAR = {"move": 3.0, "copy": 2.5, "hints": 1.8, "off": 0}
FAILS_BAR = 100		# hits of the limit, per pass
OVER_BUDGET = 64 * MIB


def attempt(bench, run, **what):
    """Runs; returns (figures, result) or (None, result) if it failed."""
    result = {**what, "pager": run.pager, "limit": run.limit}
    try:
        got = bench.run(run)
    except Failed as e:
        print(f"bench: {what['row']} {run.pager}: {e}", file=sys.stderr)
        return None, {**result, **e.group, "s": None, "missed": ["failed"],
                      "killed": e.status in KILLED, "error": str(e)}
    print(f"bench: {what['row']} {run.pager}: "
          f"{median(got['ms']) / 1000:.3f} s/token", file=sys.stderr)
    result.update(
        s=median(got["ms"]) / 1000, bytes=median(got["bytes"]),
        load_s=got["load_ms"] / 1000, load_bytes=got["load_bytes"],
        wrote=got["stats"][0].get("io", {}).get("written_bytes"),
        fails=median(got["watched"]), noise=got["noise"],
        **{k: got.get(k) for k in ("max_usage", "oom_kill", "peak_anon")},
        ms=got["ms"], bytes_each=got["bytes"], fails_each=got["watched"],
        written_each=got["written"],
        stats=got["stats"][0], budget=held(got["stats"]), count=run.count,
        stderr=got["stderr"])
    return got, result


def held(every):
    """What all processes of a group were allowed together, and held. At exit a
    budget may have shrunk already: what was held counts too."""
    return sum(max(s.get("budget", {}).get("ram_bytes", 0),
                   s.get("host", {}).get("peak_ram_bytes", 0)) for s in every)


def compare(result, got, ref):
    if got:
        result["same"] = all(e["tokens"] == ref["tokens"] and
                             e["sure"] == ref["sure"] for e in got["all"])


def memory_bars(result, ref):
    """Bars on what the kernel saw of the group."""
    stats = result.get("stats", {})
    budget, own = result["budget"], result["count"] * ref["own"]
    missed = []
    if result["fails"] > FAILS_BAR:
        missed.append("fails")
    if result["oom_kill"]:
        missed.append("oom")
    # A file that is left to the page cache may fill what is free.
    paged = stats.get("host", {}).get("converted") or stats.get("host", {}).get("evictions")
    if budget and paged and result["max_usage"] > budget + own + OVER_BUDGET:
        missed.append("usage")
    return missed


def dense_bars(result, ref, n, plain_s, bandwidth):
    """Adds the bounds of a dense loop and the list of bars missed."""
    N, M = ref["n_bytes"], ref["n_bytes"] / n
    bound = max((N - M) / bandwidth, ref["compute_s"])
    result.update(bound_s=bound, over_bound=result["s"] / bound,
                  bytes_bar=1.05 * (N - M) + 32 * MIB, bandwidth=bandwidth)
    missed = memory_bars(result, ref)
    if result["bytes"] > result["bytes_bar"]:
        missed.append("bytes")
    if result["over_bound"] > 1.15:
        missed.append("time")
    if plain_s:
        bar = 0.8 * min(N / (N - M), plain_s / ref["compute_s"])
        result.update(speedup=plain_s / result["s"], speedup_bar=bar)
        if result["speedup"] < bar:
            missed.append("speed-up")
        if n == 1.25 and result["speedup"] < MODE_BAR[result["pager"]]:
            missed.append(f"{MODE_BAR[result['pager']]}x")
    result["missed"] = missed


def limit_for(ref, n, processes=1):
    return int(ref["n_bytes"] / n + processes * ref["own"] + RESERVE)


def limit_to_fit(ref):
    return ref["file_bytes"] + ref["own"] + 1024 * MIB


def dense(bench, args, ref, report):
    for n in args.n or [1.05, 1.25, 2.0]:
        dense_at(bench, args, ref, report, n)


def dense_at(bench, args, ref, report, n):
    missing = ref["n_bytes"] * (1 - 1 / n)
    disk = [bench.disk(ref["model"], missing)]
    plain_s, done = None, []
    for pager in ["none"] * (not args.no_baseline) + args.modes:
        run = Run(ref["model"], limit_for(ref, n), pager)
        got, result = attempt(bench, run, row="dense", n=n,
                              type=args.type)
        compare(result, got, ref)
        if got and pager == "none":
            plain_s = result["s"]
        done.append((got, result))
    disk.append(bench.disk(ref["model"], missing))
    for got, result in done:
        if got and result["pager"] != "none":
            dense_bars(result, ref, n, plain_s, max(disk))
            beside(bench, ref, missing, result)
        report.add(result)


def beside(bench, ref, missing, result):
    """See common.beside_a_reader."""
    rate = common.result_rate(result)
    if not rate:
        return
    read_through(ref["model"])
    with common.reading(ref["model"], missing, rate) as reached:
        got, _ = attempt(bench, Run(ref["model"], limit_to_fit(ref), cold=False),
                         row="beside", type=result["type"])
    if got:
        common.beside_a_reader(result, ref["compute_s"], median(got["ms"]) / 1000,
                               reached[0], missing)


def simple(bench, args, ref, report, run, plain_s, **what):
    """One run whose only bars are the tokens and the memory."""
    got, result = attempt(bench, run, type=args.type, **what)
    compare(result, got, ref)
    if got and run.pager != "none":
        result["missed"] = memory_bars(result, ref)
        if plain_s:
            result["speedup"] = plain_s / result["s"]
    report.add(result)
    return result["s"] if got else None


def each_pager(bench, args, ref, report, make_run, **what):
    plain_s = None
    for pager in ["none"] * (not args.no_baseline) + args.modes:
        s = simple(bench, args, ref, report, make_run(pager), plain_s, **what)
        if pager == "none":
            plain_s = s


def together(bench, args, ref, report, count, row):
    """Processes at once on one model, in one group, with one spill folder."""
    limit = limit_for(ref, 1.25, count)
    each_pager(bench, args, ref, report,
               lambda pager: Run(ref["model"], limit, pager, count=count),
               row=row, n=1.25)


def pair(bench, args, ref, report):
    together(bench, args, ref, report, 2, "pair")


def eight(bench, args, ref, report):
    """With a small model (--layers 4): there is room for half of it, once, for all of
    them together. Each is told it may hold half of it: else some of them would do with
    the page cache, once the others have made room. What must hold is the memory, the
    tokens, and that each of them evicts: else nothing was shown. The speed is told."""
    limit = limit_for(ref, 2, 8)
    for pager in ["none"] * (not args.no_baseline) + args.modes:
        run = Run(ref["model"], limit, pager, count=8,
                  env={"OFFLOAD_RAM": str(ref["n_bytes"] // 2)})
        got, result = attempt(bench, run, row="eight", n=2, type=args.type)
        compare(result, got, ref)
        if got and pager != "none":
            evicted = [s.get("host", {}).get("evictions", 0) for s in got["stats"]]
            result.update(evictions=evicted, missed=memory_bars(result, ref) +
                          ["evictions"] * (pager != "hints" and min(evicted) == 0),
                          note="evictions " + " ".join(map(str, evicted)))
        report.add(result)


def moe(bench, args, ref, report):
    """Experts: which are read depends on the token, so there is no bound."""
    limit = limit_for(ref, 1.25)
    each_pager(bench, args, ref, report,
               lambda pager: Run(ref["model"], limit, pager),
               row="moe", n=1.25)


def warm(bench, args, ref, report):
    """A model whose pages are cached, but charged to another group."""
    def make_run(pager):
        read_through(ref["model"])
        return Run(ref["model"], limit_for(ref, 1.25), pager, cold=False)
    bench.drop(ref["model"])
    each_pager(bench, args, ref, report, make_run, row="warm", n=1.25)


def read_through(path):
    with open(path, "rb", buffering=0) as f:
        while f.read(4 * MIB):
            pass


def fits(bench, args, ref, report):
    """A model that fits, warm: three runs of each kind, interleaved."""
    limit = limit_to_fit(ref)
    # The library's own choice of mode: that is what a user gets.
    pagers = ["none"] + (args.modes[:1] if args.modes else [])
    runs = {p: [] for p in pagers}
    read_through(ref["model"])
    for _ in range(3):
        for pager in pagers:
            run = Run(ref["model"], limit, pager, cold=False)
            got, result = attempt(bench, run, row="fits", type=args.type)
            compare(result, got, ref)
            runs[pager].append(result)
    summarise(runs, report)


def middle(results, key):
    values = sorted(r[key] for r in results if r.get(key) is not None)
    return values[len(values) // 2] if values else None


def summarise(runs, report):
    plain = runs["none"]
    for pager, results in runs.items():
        best = {**results[0], "s": middle(results, "s"),
                "load_s": middle(results, "load_s"),
                "same": all(r.get("same") for r in results)}
        if pager != "none" and best["s"] and middle(plain, "s"):
            best["speedup"] = middle(plain, "s") / best["s"]
            best["load_ratio"] = best["load_s"] / middle(plain, "load_s")
            best["missed"] = (["time"] * (best["speedup"] < 1 / 1.01) +
                              ["load"] * (best["load_ratio"] > 1.05))
        report.add(best)
