# SPDX-License-Identifier: MIT
"""The malloc benchmark: what preloading adds to small allocations.

Two tables. Pairs: a program that does nothing but allocate, ns per pair,
without the library and with it; then both again with a large block beside, which
the library looks after. Suites: python3, gcc and node doing much small work, from their start to
their end.

1. Runs of each kind take turns, one at a time, in changing order. What is shown
   is the median of each run compared with the one without the library beside it:
   pairs by the difference, suites by the ratio. A virtual machine's processor is
   up to twice as slow while the host uses its other half, for seconds: two
   runs side by side see the same.
2. The interval holds the true one in 95 of 100 cases. A bar is missed when that
   whole interval is above it; "?": the median is.
3. Nothing here passes or fails but by --check.
"""

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import common

LARGE = 64 << 20
# (the library, a large block): what is compared with what
KINDS = {"without": (False, False), "with": (True, False),
         "plain": (False, True), "large": (True, True)}
BESIDE = {"with": "without", "large": "plain"}
BAR_NS = 5.0

PYTHON = """
import json
for _ in range(2):
    objects = [{"id": i, "name": str(i), "list": [i, i + 1], "pair": (i, -i)}
               for i in range(25000)]
    text = json.dumps(objects)
    back = json.loads(text)
    assert len({o["name"] for o in back}) == 25000
    objects.sort(key=lambda o: o["name"])
"""

NODE = """
let n = 0;
for (let round = 0; round < 2; round++) {
    const all = [];
    for (let i = 0; i < 60000; i++)
        all.push({id: i, name: "n" + i, list: [i, i + 1], b: new Uint8Array(32)});
    n += JSON.parse(JSON.stringify(all.slice(0, 30000))).length;
    for (let i = 0; i < 30000; i++)
        n += Buffer.alloc(64 + i % 4096).length & 1;
}
if (n < 60000) process.exit(1);
"""


def c_source(functions):
    """A file that keeps a compiler busy with many small things."""
    out = ["#include <stdio.h>", "#include <stdlib.h>", "#include <string.h>"]
    for i in range(functions):
        out.append(
            f"struct s{i} {{ int a, b; struct s{i} *next; char text[{i % 60 + 4}]; }};\n"
            f"static int f{i}(struct s{i} *p, int n)\n{{\n"
            f"\tint sum = {i};\n\tfor (; p; p = p->next)\n"
            f"\t\tfor (int k = 0; k < n; k++)\n"
            f"\t\t\tsum += (p->a ^ k * {i * 7 + 3}) + (p->text[k % {i % 60 + 4}] > k);\n"
            f"\treturn sum > {i} ? sum : (int)strlen(p->text) + n;\n}}\n"
            f"int g{i}(void *p, int n) {{ return f{i}(p, n) + f{i}(p, n + {i}); }}")
    return "\n".join(out) + "\n"


def suites(scratch):
    """(name, command, more environment)."""
    source = f"{scratch}/busy.c"
    with open(source, "w") as f:
        f.write(c_source(40))
    python = ["/usr/bin/python3", "-c", PYTHON]
    return [("python3", python, {}),
            ("python3 (its objects malloc'd)", python, {"PYTHONMALLOC": "malloc"}),
            ("gcc -O2", ["gcc", "-O2", "-w", "-c", "-o", f"{scratch}/busy.o", source], {}),
            ("node", ["node", "-e", NODE], {})]


def environment(lib, more=()):
    env = {k: v for k, v in os.environ.items()
           if k != "LD_PRELOAD" and not k.startswith("OFFLOAD_")}
    env.update(more)
    if lib:
        env["LD_PRELOAD"] = lib
    return env


def pairs_once(args, case, kind, shift):
    """Nanoseconds."""
    lib, large = KINDS[kind]
    done = subprocess.run(
        [args.pairs, case, str(LARGE * large), str(shift)], text=True,
        stdout=subprocess.PIPE, env=environment(args.lib if lib else None))
    if done.returncode:
        sys.exit(f"bench: {args.pairs} {case} ({kind}) failed ({done.returncode})")
    return float(done.stdout)


def pairs(args, report):
    half = f"{'with':>8}{'added':>7}{'interval':>16}{'ratio':>6}"
    print(f"{'ns per pair':<16}{'without':>9}{half}{'+ large':>9}{half}"
          f"  missed ({BAR_NS:.0f} ns)")
    for case in common.command(args.pairs).split():
        report.add(one_case(args, case))


def one_case(args, case):
    ns = {k: [] for k in KINDS}
    for i in range(args.runs):
        for kind in KINDS if i % 2 else reversed(KINDS):
            ns[kind].append(pairs_once(args, case, kind, 16 * (i % 4)))
    result = {"table": "pairs", "case": case, "missed": []}
    for kind, other in BESIDE.items():
        result[other] = statistics.median(ns[other])
        added = [b - a for a, b in zip(ns[other], ns[kind])]
        judge(result, kind, ns[kind], added, BAR_NS)
    return result


def judge(result, kind, values, compared, bar):
    """Adds the figures of one kind, and whether the bar is missed."""
    middle, (lo, hi) = statistics.median(compared), interval(compared)
    result[kind] = statistics.median(values)
    result[kind + "_than"] = [middle, lo, hi]
    if lo > bar:
        result["missed"].append(kind)
    elif middle > bar:
        result.setdefault("unclear", []).append(kind)


def line(r):
    doubt = [f"{k}?" for k in r.get("unclear", [])]
    tail = "  " + " ".join(r["missed"] + doubt)
    if r["table"] == "suites":
        ratio, lo, hi = r["with_than"]
        return (f"{r['case']:<32}{r['without']:>9.3f}{r['with']:>9.3f}"
                f"{ratio:>8.4f}  {lo:.4f} - {hi:.4f}{tail}")
    out = f"{r['case']:<16}"
    for k, other in BESIDE.items():
        added, lo, hi = r[k + "_than"]
        out += (f"{r[other]:>9.2f}{r[k]:>8.2f}{added:>+7.2f}"
                f"{lo:>+7.1f} .. {hi:>+5.1f}{r[k] / r[other]:>6.2f}")
    return out + tail


def seconds(argv, env):
    start = time.monotonic()
    done = subprocess.run(argv, env=env, stdout=subprocess.DEVNULL)
    took = time.monotonic() - start
    if done.returncode:
        sys.exit(f"bench: {argv[0]} failed ({done.returncode})")
    return took


def interval(values):
    """Of the median: the order statistics of the sign test, 95%."""
    values, n = sorted(values), len(values)
    k = max(int((n - 1.96 * n ** 0.5) / 2), 0)
    return values[k], values[n - 1 - k]


def suite(args, name, argv, more):
    times = {None: [], args.lib: []}
    for i in range(args.runs + 1):
        for lib in (None, args.lib) if i % 2 else (args.lib, None):
            times[lib].append(seconds(argv, environment(lib, more)))
    plain, with_ = (times[k][1:] for k in (None, args.lib))	# the first warms up
    result = {"table": "suites", "case": name, "missed": [],
              "without": statistics.median(plain)}
    judge(result, "with", with_, [b / a for a, b in zip(plain, with_)], 1.0)
    return result


def arguments():
    p = argparse.ArgumentParser(
        prog="tests/bench/run.sh malloc",
        description="What preloading adds to small allocations.")
    p.add_argument("--runs", type=int, default=31,
                   help="of each kind (default: %(default)s)")
    p.add_argument("--tables", default="pairs,suites", help="(default: both)")
    p.add_argument("--lib", default="build/liboffload.so")
    p.add_argument("--pairs", default="build/bench/pairs",
                   help="the program that allocates (default: %(default)s)")
    p.add_argument("--out", default="build/bench", help="where results go")
    p.add_argument("--check", action="store_true",
                   help="exit 1 when a bar is missed")
    return p.parse_args()


def main():
    args = arguments()
    args.lib = os.path.abspath(args.lib)
    if not os.path.exists(args.lib):
        sys.exit(f"bench: {args.lib} is missing: run make")
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    report = common.Report(f"{args.out}/malloc-{stamp}.jsonl", line)
    if "pairs" in args.tables:
        pairs(args, report)
    if "suites" in args.tables:
        print(f"\n{'s, start to end':<32}{'without':>9}{'with':>9}{'ratio':>8}"
              f"  interval         median of {args.runs}")
        for what in suites(common.scratch(args.out)):
            report.add(suite(args, *what))
    print(f"\nresults: {report.path}")
    return 1 if args.check and report.bad() else 0


if __name__ == "__main__":
    sys.exit(main())
