#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""drive.py - run a model with torch where llama.cpp cannot be had, and say
what it did: the same JSON as drive.mjs.

It walks a GGUF model's memory as an engine does: the file is mapped, and for
each token every layer's matrices are multiplied with a vector, in order. The
arithmetic is that of a transformer without positions and without a cache of
earlier tokens; the tokens are meaningless, but any wrong byte changes them.

1. The model is mapped read-only and never copied whole: numpy.memmap.
2. bf16, f16 and f32 only: torch has no block types.
3. Between two tokens nothing is done but to read the counters.
"""

import argparse
import json
import mmap
import os
import struct
import sys
import warnings

from counters import counters, field, since

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?",
           10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
ITEM_BYTES = {0: 4, 1: 2, 30: 2}
PROMPT = [1, 300, 271, 314, 275, 309]


class Header:
    """The header of a GGUF file, read in order."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        self.at = 4
        if self.data[:4] != b"GGUF" or self.take("I") != 3:
            sys.exit(f"drive: {path} is not a GGUF file (v3)")
        count, keys = self.take("Q"), self.take("Q")
        self.keys = {}
        for _ in range(keys):
            name = self.text()
            self.keys[name] = self.value(self.take("I"))
        self.tensors = {}
        for _ in range(count):
            name = self.text()
            shape = [self.take("Q") for _ in range(self.take("I"))]
            self.tensors[name] = (shape, self.take("I"), self.take("Q"))
        align = self.keys.get("general.alignment", 32)
        self.start = (self.at + align - 1) // align * align
        self.data.close()

    def take(self, fmt):
        v, = struct.unpack_from("<" + fmt, self.data, self.at)
        self.at += struct.calcsize("<" + fmt)
        return v

    def text(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8", "replace")

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            item, n = self.take("I"), self.take("Q")
            return [self.value(item) for _ in range(n)]
        return self.take(SCALARS[kind])


def tensor_bytes(tensor):
    shape, kind, _ = tensor
    if kind not in ITEM_BYTES:
        sys.exit("drive: torch runs bf16, f16 and f32 models only")
    n = ITEM_BYTES[kind]
    for d in shape:
        n *= d
    return n


def info(path):
    t = Header(path).tensors
    total = sum(tensor_bytes(x) for x in t.values())
    if "output.weight" in t:
        total -= tensor_bytes(t["token_embd.weight"])
    return {"file_bytes": os.path.getsize(path), "pass_bytes": total,
            "experts": 0}


class Model:
    def __init__(self, path):
        import numpy
        import torch
        self.torch = torch
        warnings.filterwarnings("ignore", "The given NumPy array is not writ")
        head = Header(path)
        raw = numpy.memmap(path, dtype=numpy.uint8, mode="r")
        types = {0: (numpy.float32, torch.float32),
                 1: (numpy.float16, torch.float16),
                 30: (numpy.int16, torch.bfloat16)}
        self.w = {}
        for name, tensor in head.tensors.items():
            shape, kind, off = tensor
            at = head.start + off
            there = raw[at:at + tensor_bytes(tensor)].view(types[kind][0])
            self.w[name] = torch.from_numpy(there.reshape(shape[::-1])).view(
                types[kind][1])
        self.layers = head.keys["llama.block_count"]
        self.x = None

    def times(self, name, v):
        """A matrix and a vector. A 16-bit type goes in pieces, so that there
        is never a copy of the whole matrix in 32 bits."""
        w = self.w[name]
        v = v.float()
        if w.dtype == self.torch.float32:
            return w @ v
        return self.torch.cat([p.float() @ v for p in w.split(1024)])

    def norm(self, name, v):
        v = v * self.torch.rsqrt((v * v).mean() + 1e-5)
        return v * self.w[name]

    def layer(self, i, x):
        torch, p = self.torch, f"blk.{i}."
        h = self.norm(p + "attn_norm.weight", x)
        q, k, v = (self.times(p + f"attn_{c}.weight", h) for c in "qkv")
        gate = torch.tanh(q.view(-1, k.numel()) @ k / k.numel() ** 0.5)
        mixed = (gate[:, None] * v[None, :]).reshape(-1)
        x = x + self.times(p + "attn_output.weight", mixed)
        h = self.norm(p + "ffn_norm.weight", x)
        up = self.times(p + "ffn_up.weight", h)
        gate = torch.nn.functional.silu(self.times(p + "ffn_gate.weight", h))
        return x + self.times(p + "ffn_down.weight", gate * up)

    def next(self, token):
        """One pass. A tenth of the last state stands for the context."""
        x = self.w["token_embd.weight"][token].float()
        if self.x is not None:
            x = x + 0.1 * self.x / self.x.norm() * x.norm()
        for i in range(self.layers):
            x = self.layer(i, x)
        self.x = x
        h = self.norm("output_norm.weight", x)
        return int(self.times("output.weight", h).argmax())


def decode(model, count, progress):
    out = {"tokens": [], "ms": [], "bytes": [], "watched": []}
    token = PROMPT[0]
    for i in range(count):
        before = counters()
        token = model.next(token)
        took = since(before)
        out["tokens"].append(token)
        out["bytes"].append(took["read"])
        out["watched"].append(took["watched"])
        out["ms"].append(round(took["s"] * 1000, 3))
        if progress:
            print(f"\r  token {i + 1} of {count}: {out['ms'][-1] / 1000:.2f} s   ",
                  end="", file=sys.stderr, flush=True)
    if progress:
        print(file=sys.stderr)
    return out


def main():
    # A thread that waits for a page must not burn the processor meanwhile.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("--tokens", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--progress", action="store_true")
    p.add_argument("--info", action="store_true")
    args = p.parse_args()
    if args.info:
        print(json.dumps(info(args.model)))
        return
    before = counters()
    model = Model(args.model)
    model.torch.set_num_threads(args.threads)
    load = since(before)
    out = decode(model, args.tokens, args.progress)
    print(json.dumps({
        "engine": "torch", "load_ms": round(load["s"] * 1000),
        "load_bytes": load["read"],
        "anon_kib": field("/proc/self/status", "RssAnon"), **out}))


main()
