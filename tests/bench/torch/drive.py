#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""drive.py - a stack of layers in torch's own memory, walked pass by pass.

Owns the weights: made once from a seed, in place, in memory torch got from
malloc; no file holds them, so what is evicted must be kept somewhere. Then a
vector goes through all layers, PASSES times, and each layer's slice of a small
tensor (as a KV cache, but rewritten whole) is replaced on the way. What each
pass gave, took and moved is printed as JSON.

1. The same arguments give the same bytes, whatever serves the memory: a
   layer's numbers depend on the seed and its place only, and torch sums each
   product in one order.
2. No two layers hold the same numbers, nor what packs well: each is a
   different stretch of a block of normal numbers, each row scaled by a
   different factor.
3. What is timed is torch's work and nothing of the driver's. Afterwards the
   weights are summed as words, exactly: a single bit would show.
"""

import argparse
import hashlib
import json
import os
import sys

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), *[".."] * 3)
sys.path.insert(0, os.path.join(TOP, "tools/engine"))
from counters import counters, field, since

DIM, FF, WINDOW = 2048, 8192, 64


class Stack:
    def __init__(self, torch, dtype, layers, seed):
        self.torch = torch
        self.rng = torch.Generator().manual_seed(seed)
        # Longer than a matrix by a few rows: where a layer begins in it varies.
        self.block = torch.empty(DIM * FF + 64 * FF).normal_(generator=self.rng)
        self.up, self.down = [], []
        for _ in range(layers):
            self.up.append(self.matrix(dtype, DIM, FF))
            self.down.append(self.matrix(dtype, FF, DIM))
        self.kv = torch.zeros(layers, WINDOW, DIM, dtype=dtype)
        self.block = None

    def matrix(self, dtype, rows, cols):
        """Written once, from front to back, a strip of rows at a time."""
        torch = self.torch
        start = int(torch.randint(64 * FF, (), generator=self.rng))
        these = self.block[start:start + rows * cols].view(rows, cols)
        scale = torch.rand(rows, 1, generator=self.rng).add_(0.5)
        scale *= rows ** -0.5
        w = torch.empty(rows, cols, dtype=dtype)
        step = (1 << 18) // cols	# strips of 1 MiB of fp32
        for r in range(0, rows, step):
            w[r:r + step] = these[r:r + step] * scale[r:r + step]
        return w

    def bytes(self):
        return sum(w.numel() * w.element_size() for w in self.up + self.down)

    def norm(self, x):
        f = x.float()
        return (f * self.torch.rsqrt((f * f).mean() + 1e-5)).to(x.dtype)

    def layer(self, i, x):
        h, kv = self.norm(x), self.kv[i]
        kv.mul_(0.5).add_(h)
        h = h + kv[i % WINDOW]
        u = self.torch.nn.functional.silu(h @ self.up[i])
        return x + u @ self.down[i]

    def forward(self, x):
        for i in range(len(self.up)):
            x = self.layer(i, x)
        return self.norm(x)

    def sum(self):
        """Of all weights, as 64-bit words; wraps, so no order matters."""
        words = self.torch.int64
        total = sum(int(w.view(words).sum()) for w in self.up + self.down)
        return total % 2 ** 64


def digest(torch, x):
    return hashlib.sha256(x.float().numpy().tobytes()).hexdigest()[:16]


def walk(torch, stack, dtype, args):
    """All passes; each one's input is the output of the one before."""
    x = torch.empty(1, DIM).normal_(generator=stack.rng).to(dtype)
    out = {"out": [], "s": [], "read": [], "written": [], "watched": []}
    for i in range(args.passes):
        before = counters()
        x = stack.forward(x)
        for key, value in since(before).items():
            out[key].append(value)
        out["out"].append(digest(torch, x))
        if args.progress:
            print(f"pass {i + 1}: {out['s'][-1]:.3f} s", file=sys.stderr)
    return out


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--type", default="fp32", choices=("fp32", "bf16"))
    p.add_argument("--mb", type=int, default=3200, help="weights, in 10^6 bytes")
    p.add_argument("--passes", type=int, default=9)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--progress", action="store_true")
    return p.parse_args()


def main():
    args = arguments()
    # A thread that waits for a page must not burn the processor meanwhile.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[args.type]
    item = {"fp32": 4, "bf16": 2}[args.type]
    layers = max(1, args.mb * 10 ** 6 // (2 * DIM * FF * item))
    start = counters()
    stack = Stack(torch, dtype, layers, args.seed)
    build = since(start)
    out = walk(torch, stack, dtype, args)
    before = counters()
    total = stack.sum()
    print(json.dumps({
        "engine": "torch", "layers": layers, "weights": stack.bytes(),
        "kv": stack.kv.numel() * stack.kv.element_size(), "build": build, **out,
        "sum": total, "sum_s": since(before)["s"], "all": since(start),
        "anon_kib": field("/proc/self/status", "RssAnon")}))


if __name__ == "__main__":
    main()
