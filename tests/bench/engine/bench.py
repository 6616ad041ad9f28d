# SPDX-License-Identifier: MIT
"""The engine benchmark: llama.cpp on a model larger than its memory.

What is measured, in the words of the speed targets:

    N   bytes one token reads: the tensors, less an embedding table of which
        one row is read
    A   the engine's own anonymous memory: the peak the kernel counted for
        the whole group, without the library, in a run that has all memory
    M   the group's limit - A - 192 MiB; the limit is set so that N = n M

1. Every run is in a memory cgroup of its own with a cold page cache, unless
   its row says otherwise. Bytes are the kernel's (/proc/PID/io), per token.
2. Medians leave out the first two passes: the prompt and the learning pass.
3. The disk is measured before and after the runs of one N, with the engine
   stopped, in random order of as many bytes as are missing; the larger
   counts.
4. Tokens are compared with those of the run that has all memory.
5. Nothing here passes or fails but by --check: figures are for reading.
"""

import argparse
import datetime
import json
import os
import sys

import measure
from measure import MIB, Run, median
from rows import dense, fits, moe, pair, warm

SHAPES = {
    # about 3.4 GB of q8_0, 4.5 GB of bf16 or f16
    "q8_0": (30, 3072, 8192), "q4_0": (56, 3072, 8192),
    "bf16": (21, 3072, 8192), "f16": (21, 3072, 8192),
    "f32": (10, 3072, 8192),
}
MOE_SHAPE = (16, 2048, 4096)
ROWS = {"dense": dense, "pair": pair, "moe": moe, "fits": fits, "warm": warm}


def arguments():
    p = argparse.ArgumentParser(
        prog="tests/bench/run.sh engine",
        description="llama.cpp on a model larger than its memory: page cache "
                    "against liboffload.")
    p.add_argument("--type", default="q8_0", choices=sorted(SHAPES))
    p.add_argument("--n", default="1.05,1.25,2",
                   help="N as multiples of M (default: %(default)s)")
    p.add_argument("--modes", default="move,copy,hints",
                   help="values of OFFLOAD_PAGER (default: %(default)s)")
    p.add_argument("--rows", default="dense,pair,moe,fits,warm",
                   help="of dense, pair, moe, fits, warm (default: all)")
    p.add_argument("--tokens", type=int, default=7,
                   help="passes per run; two are dropped (default: %(default)s)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--model", help="a GGUF file instead of a synthetic one")
    p.add_argument("--no-mmap", action="store_true",
                   help="the engine reads the model into its own memory")
    p.add_argument("--no-baseline", action="store_true",
                   help="leave the page cache runs out")
    p.add_argument("--layers", type=int, help="of the synthetic model")
    p.add_argument("--lib", default="build/liboffload.so")
    p.add_argument("--engine", default="build/engine")
    p.add_argument("--out", default="build/bench",
                   help="where models and results go")
    p.add_argument("--check", action="store_true",
                   help="exit 1 when tokens differ or a bar is missed")
    return p.parse_args()


def model_for(args, kind):
    """Makes the synthetic model unless it is there. Returns its path."""
    if args.model and kind == "dense":
        return args.model
    layers, dim, ff = SHAPES[args.type] if kind == "dense" else MOE_SHAPE
    layers = args.layers or layers
    path = f"{args.out}/{kind}-{args.type}-{layers}.gguf"
    if not os.path.exists(path):
        experts = ["--experts", "8"] if kind == "moe" else []
        measure.command("build/mkmodel", "--type", args.type,
                        "--layers", str(layers), "--dim", str(dim), "--ff",
                        str(ff), "--vocab", "32000", *experts, path)
    return path


HEAD = (f"{'row':<8}{'N/M':>5} {'pager':<7}{'tokens':>7}{'s/tok':>8}"
        f"{'bound':>7}{'x':>6}{'GB/tok':>8}{'bar':>7}{'speed-up':>9}"
        f"{'bar':>6}{'load':>7}{'fails':>7}{'max MB':>8}{'oom':>4}  missed")


def cell(value, width, digits=2):
    if value is None:
        return " " * (width - 1) + "-"
    return f"{value:>{width}.{digits}f}"


def line(r):
    tokens = {True: "same", False: "DIFFER", None: "-"}[r.get("same")]
    gb = {k: r[k] / 1e9 if r.get(k) is not None else None
          for k in ("bytes", "bytes_bar")}
    return (f"{r['row']:<8}{cell(r.get('n'), 5)} {r['pager']:<7}{tokens:>7}"
            f"{cell(r.get('s'), 8, 3)}{cell(r.get('bound_s'), 7, 3)}"
            f"{cell(r.get('over_bound'), 6)}{cell(gb['bytes'], 8, 3)}"
            f"{cell(gb['bytes_bar'], 7, 3)}{cell(r.get('speedup'), 9)}"
            f"{cell(r.get('speedup_bar'), 6)}{cell(r.get('load_s'), 7)}"
            f"{cell(r.get('fails'), 7, 0)}"
            f"{cell((r.get('max_usage') or 0) / 1e6, 8, 0)}"
            f"{cell(r.get('oom_kill'), 4, 0)}  {' '.join(r.get('missed', []))}")


class Report:
    """Prints each result when it is there and keeps it as a JSON line."""

    def __init__(self, path):
        self.path, self.results = path, []

    def add(self, result):
        self.results.append(result)
        print(line(result), flush=True)
        with open(self.path, "a") as f:
            f.write(json.dumps(result) + "\n")

    def bad(self):
        return [r for r in self.results
                if r.get("same") is False or r.get("missed")]


def reference(bench, model):
    """The run that has all memory: tokens, A, and time in RAM."""
    info = bench.info(model)
    run = bench.run(Run(model, limit=info["file_bytes"] + 2048 * MIB))
    ref = {"model": model, "n_bytes": info["pass_bytes"],
           "file_bytes": info["file_bytes"], "own": run["peak_anon"],
           "compute_s": median(run["ms"]) / 1000, "tokens": run["tokens"]}
    print(f"\n{model}: N {ref['n_bytes'] / 1e6:.0f} MB, engine's own memory "
          f"{ref['own'] / 1e6:.0f} MB, in RAM {ref['compute_s']:.3f} s/token")
    print(HEAD)
    return ref


def main():
    args = arguments()
    os.makedirs(args.out, exist_ok=True)
    args.modes = [m for m in args.modes.split(",") if m]
    args.n = [float(n) for n in args.n.split(",")]
    if not os.path.exists(args.lib) and args.modes:
        sys.exit(f"bench: {args.lib} is missing: run make")
    bench = measure.Bench(args)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    report = Report(f"{args.out}/engine-{stamp}.jsonl")
    refs = {}
    for name in args.rows.split(","):
        kind = "moe" if name == "moe" else "dense"
        if kind not in refs:
            refs[kind] = reference(bench, model_for(args, kind))
        ROWS[name](bench, args, refs[kind], report)
    print(f"\nresults: {report.path}")
    return 1 if args.check and report.bad() else 0


if __name__ == "__main__":
    sys.exit(main())
