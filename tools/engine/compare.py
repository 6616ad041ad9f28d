# SPDX-License-Identifier: MIT
"""compare.py WITHOUT.json WITH.json PASS_BYTES KEPT_BYTES STATS.json

Prints the demo's table from two runs of the engine. PASS_BYTES is what one
token reads of the model, KEPT_BYTES the part of it that the budget is sure to hold.
STATS.json is what the library said at exit: the least that any order of keeping could
have read with the memory it had; without it that is worked out from the other two.
Exit status: 0, or 1 when the tokens differ.

The first two passes are left out of every median: the prompt, and the pass
in which the library learns the order.
"""

import json
import statistics
import sys

DROPPED = 2


def load(path):
    with open(path) as f:
        return json.load(f)


def median(values):
    return statistics.median(values[DROPPED:] or values)


def row(name, without, with_):
    print(f"  {name:<24}{without:>16}{with_:>18}")


def seconds(run):
    return median(run["ms"]) / 1000


def gigabytes(n):
    return f"{n / 1e9:.2f} GB"


def least(path):
    try:
        return load(path)["tape"]["last_pass_bound_bytes"]
    except (OSError, ValueError, KeyError):
        return 0


def table(plain, lib, bound):
    same = plain["tokens"] == lib["tokens"]
    row("", "without", "with liboffload")
    row("tokens", str(len(plain["tokens"])), "the same" if same else "DIFFERENT")
    row("load", f"{plain['load_ms'] / 1000:.1f} s", f"{lib['load_ms'] / 1000:.1f} s")
    row("time per token", f"{seconds(plain):.3f} s", f"{seconds(lib):.3f} s")
    row("read per token", gigabytes(median(plain["bytes"])),
        gigabytes(median(lib["bytes"])))
    row("  the least possible", "", gigabytes(bound))
    row("speed-up", "", f"{seconds(plain) / seconds(lib):.2f}x")
    return same


def main():
    plain, lib = load(sys.argv[1]), load(sys.argv[2])
    same = table(plain, lib, least(sys.argv[5]) or max(int(sys.argv[3]) - int(sys.argv[4]), 0))
    if not same:
        print("  without:", plain["tokens"])
        print("  with:   ", lib["tokens"])
    return 0 if same else 1


sys.exit(main())
