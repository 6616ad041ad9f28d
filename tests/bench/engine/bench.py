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
4. Tokens, and how sure the engine was of each, are compared with those of
   the run that has all memory.
5. Nothing here passes or fails but by --check: figures are for reading.
"""

import argparse
import datetime
import os
import sys

import measure
from common import MIB, Report, cell, command, median, need_group, tail
from measure import Run
from rows import dense, eight, fits, moe, pair, warm
from rows_anon import KV_DRIVER, KV_SHAPE, kv, no_mmap
from rows_plan import packing, plan

SHAPES = {
    # about 3.4 GB of q8_0, 4.5 GB of bf16 or f16
    "q8_0": (30, 3072, 8192), "q4_0": (56, 3072, 8192),
    "bf16": (21, 3072, 8192), "f16": (21, 3072, 8192),
    "f32": (10, 3072, 8192),
}
MOE_SHAPE = (16, 2048, 4096)
ROWS = {"dense": dense, "pair": pair, "eight": eight, "moe": moe, "fits": fits,
        "warm": warm, "no-mmap": no_mmap, "kv": kv, "plan": plan, "packing": packing}
SELDOM = ("eight", "packing")


def arguments():
    p = argparse.ArgumentParser(
        prog="tests/bench/run.sh engine",
        description="llama.cpp on a model larger than its memory: page cache "
                    "against liboffload.")
    p.add_argument("--type", default="q8_0", choices=sorted(SHAPES))
    p.add_argument("--n", default="", help="N as multiples of M (default: "
                   "dense 1.05,1.25,2; no-mmap 1.25; "
                   "plan 1.25,2; packing 1.25,1.8)")
    p.add_argument("--modes", default="move,copy,hints",
                   help="values of OFFLOAD_PAGER (default: %(default)s)")
    p.add_argument("--rows", default=",".join(r for r in ROWS if r not in SELDOM),
                   help="eight wants a small model (default: %(default)s)")
    p.add_argument("--tokens", type=int, default=9,
                   help="passes per run; two are dropped (default: %(default)s)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--model", help="a GGUF file instead of a synthetic one")
    p.add_argument("--no-mmap", dest="rows", action="store_const",
                   const="no-mmap", help="the same as --rows no-mmap: the "
                   "engine reads the model into its own memory")
    p.add_argument("--no-baseline", action="store_true",
                   help="leave the runs without the library out")
    p.add_argument("--layers", type=int, help="of the synthetic model")
    p.add_argument("--lib", default="build/liboffload.so")
    p.add_argument("--engine", default="build/engine")
    p.add_argument("--out", default="build/bench",
                   help="where models and results go")
    p.add_argument("--check", action="store_true",
                   help="exit 1 when tokens differ or a bar is missed")
    return p.parse_args()


def shape(args, kind):
    """mkmodel's arguments, and the layers, which name the file."""
    if kind == "kv":
        return KV_SHAPE, KV_SHAPE[1]
    layers, dim, ff = SHAPES[args.type] if kind == "dense" else MOE_SHAPE
    layers = str(args.layers or layers)
    words = ["--layers", layers, "--dim", str(dim), "--ff", str(ff),
             "--vocab", "32000"]
    return words + (["--experts", "8"] if kind == "moe" else []), layers


def model_for(args, kind):
    """Makes the synthetic model unless it is there. Returns its path."""
    if args.model and kind == "dense":
        return args.model
    words, layers = shape(args, kind)
    path = f"{args.out}/{kind}-{args.type}-{layers}.gguf"
    if not os.path.exists(path):
        command("build/mkmodel", "--type", args.type, *words, path)
    return path


HEAD = (f"{'row':<8}{'N/M':>5} {'pager':<7}{'tokens':>7}{'s/tok':>8}"
        f"{'bound':>7}{'x':>6}{'GB/tok':>8}{'bar':>7}{'speed-up':>9}"
        f"{'bar':>6}{'load':>7}{'fails':>7}{'max MB':>8}{'oom':>4}{'wr. MB':>8}  missed")


def line(r):
    tokens = {True: "same", False: "DIFFER", None: "-"}[r.get("same")]
    gb = {k: r[k] / 1e9 if r.get(k) is not None else None
          for k in ("bytes", "bytes_bar")}
    wrote = r["wrote"] / 1e6 if r.get("wrote") is not None else None
    return (f"{r['row']:<8}{cell(r.get('n'), 5)} {r['pager']:<7}{tokens:>7}"
            f"{cell(r.get('s'), 8, 3)}{cell(r.get('bound_s'), 7, 3)}"
            f"{cell(r.get('over_bound'), 6)}{cell(gb['bytes'], 8, 3)}"
            f"{cell(gb['bytes_bar'], 7, 3)}{cell(r.get('speedup'), 9)}"
            f"{cell(r.get('speedup_bar'), 6)}{cell(r.get('load_s'), 7)}"
            f"{cell(r.get('fails'), 7, 0)}"
            f"{cell((r.get('max_usage') or 0) / 1e6, 8, 0)}"
            f"{cell(r.get('oom_kill'), 4, 0)}{cell(wrote, 8, 1)}  {tail(r)}")


def reference(bench, model, driver=()):
    """The run that has all memory: tokens, A, and time in RAM."""
    info = bench.info(model)
    run = bench.run(Run(model, limit=info["file_bytes"] + 2048 * MIB,
                        driver=driver))
    ref = {"model": model, "n_bytes": info["pass_bytes"],
           "file_bytes": info["file_bytes"], "own": run["peak_anon"],
           "compute_s": median(run["ms"]) / 1000, "tokens": run["tokens"],
           "sure": run["sure"], "prompt_s": run["ms"][0] / 1000}
    print(f"\n{model}: N {ref['n_bytes'] / 1e6:.0f} MB, engine's own memory "
          f"{ref['own'] / 1e6:.0f} MB, in RAM {ref['compute_s']:.3f} s/token")
    print(HEAD)
    return ref


def main():
    args = arguments()
    os.makedirs(args.out, exist_ok=True)
    args.modes = [m for m in args.modes.split(",") if m]
    args.n = [float(n) for n in args.n.split(",") if n]
    if not os.path.exists(args.lib) and args.modes:
        sys.exit(f"bench: {args.lib} is missing: run make")
    need_group()
    bench = measure.Bench(args)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    report = Report(f"{args.out}/engine-{stamp}.jsonl", line)
    refs = {}
    for name in args.rows.split(","):
        kind = name if name in ("moe", "kv") else "dense"
        if kind not in refs:
            refs[kind] = reference(bench, model_for(args, kind),
                                   KV_DRIVER if kind == "kv" else ())
        ROWS[name](bench, args, refs[kind], report)
    print(f"\nresults: {report.path}")
    return 1 if args.check and report.bad() else 0


if __name__ == "__main__":
    sys.exit(main())
