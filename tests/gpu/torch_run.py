# SPDX-License-Identifier: MIT
"""torch_run.py - PyTorch on the card: eager, CUDA graphs, several GB.

A line "hash NAME VALUE" for each part, which a preloaded library may not change, and one
"time NAME SECONDS", the least of several rounds. Status 77 and a line where there is no
torch that finds a card. Started by run.sh, once without and once with the library.
"""
import hashlib
import sys
import time

try:
    import torch
except ImportError:
    print("no torch")
    sys.exit(77)
if not torch.cuda.is_available():
    print("torch finds no card")
    sys.exit(77)

ROUNDS = 7


def report(name, value, seconds):
    data = value.detach().float().cpu().numpy().tobytes()
    print("hash", name, hashlib.sha256(data).hexdigest()[:16])
    print("time", name, "%.6f" % seconds)


def least(run):
    """The shortest of ROUNDS, of work that is done."""
    best = None
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        took = time.perf_counter() - start
        best = took if best is None or took < best else best
    return best


def model(width, layers):
    torch.manual_seed(1)
    parts = []
    for _ in range(layers):
        parts += [torch.nn.Linear(width, width), torch.nn.GELU(), torch.nn.LayerNorm(width)]
    return torch.nn.Sequential(*parts).half().cuda().eval()


def eager(net, x):
    with torch.no_grad():
        out = net(x)

        def run():
            for _ in range(50):
                net(x)
        report("eager", out, least(run))


def graph(net, x):
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                net(x)
        torch.cuda.current_stream().wait_stream(side)
        g = torch.cuda.CUDAGraph()
        with torch.cuda.graph(g):
            out = net(x)

        def run():
            for _ in range(50):
                g.replay()
        seconds = least(run)
        report("graph", out, seconds)


def several_gb():
    """At most half of what is free: blocks that come, are summed and go."""
    free, _ = torch.cuda.mem_get_info()
    count = min(8, int(free / 2) >> 30)
    if count < 1:
        print("time large not run: too little memory is free")
        return
    blocks = []
    total = torch.zeros(1, dtype=torch.int64, device="cuda")

    def run():
        blocks.clear()
        for i in range(count):
            blocks.append(torch.full((1 << 28,), i + 1, dtype=torch.int32, device="cuda"))
        total.fill_(0)
        for b in blocks:
            total.add_(b.sum())
    seconds = least(run)
    report("large", total, seconds)


def main():
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    net = model(2048, 24)
    x = torch.randn(64, 2048, generator=torch.Generator().manual_seed(2)).half().cuda()
    eager(net, x)
    graph(net, x)
    several_gb()


main()
