# SPDX-License-Identifier: MIT
"""llm_run.py - a Llama of transformers with random weights, larger than what it may use.

    llm_run.py [--layers N] [--hidden N] [--tokens N] [--prompt N] [--type T] [--attention A]
               [--model llama|qwen2] [--cpu FRACTION]

A line "hash NAME VALUE" and one "tokens NAME ..." for each part (eager, graph), which a
preloaded library may not change; "time NAME SECONDS" is the median of a token, or of the
prompt (prefill); "issue NAME SECONDS" how much of it the processor was busy queueing;
"load SECONDS" what bringing the weights took, "bytes WEIGHTS HELD" what they need and what
PyTorch got for all of it. --cpu: so much of the layers' weights stays with the processor,
by accelerate, to compare with. Status 77 and a line where something is missing.
"""
import argparse
import hashlib
import sys
import time

try:
    import torch
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
except ImportError as e:
    print("not run:", e)
    sys.exit(77)

VOCAB = 32000
WINDOW = 32
KINDS = {"llama": (LlamaConfig, LlamaForCausalLM, LlamaRotaryEmbedding),
         "qwen2": (Qwen2Config, Qwen2ForCausalLM, Qwen2RotaryEmbedding)}


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--layers", type=int, default=16)
    p.add_argument("--hidden", type=int, default=4096)
    p.add_argument("--tokens", type=int, default=24)
    p.add_argument("--prompt", type=int, default=1024)
    p.add_argument("--type", choices=("bfloat16", "float16"), default="bfloat16")
    p.add_argument("--attention", default="sdpa")
    p.add_argument("--model", choices=sorted(KINDS), default="llama")
    p.add_argument("--cpu", type=float, default=0)
    return p.parse_args()


def fill(model):
    """Random values, repeated: drawing billions of them would take the most time."""
    g = torch.Generator().manual_seed(1)
    base = torch.randn((1 << 20) + 3, generator=g) * 0.03
    for i, p in enumerate(model.parameters()):
        if p.dim() < 2:
            p.data.fill_(1)
            continue
        flat = p.data.view(-1)
        shifted = torch.roll(base, 7919 * i).to(p.dtype)
        for at in range(0, flat.numel(), shifted.numel()):
            part = flat[at:at + shifted.numel()]
            part.copy_(shifted[:part.numel()])


def build(a):
    make_config, make_model, make_rotary = KINDS[a.model]
    config = make_config(hidden_size=a.hidden, intermediate_size=a.hidden * 43 // 16,
                         num_hidden_layers=a.layers, num_attention_heads=a.hidden // 128,
                         num_key_value_heads=max(1, a.hidden // 512), vocab_size=VOCAB,
                         max_position_embeddings=8192, attn_implementation=a.attention)
    with torch.device("meta"):
        model = make_model(config)
    model = model.to(getattr(torch, a.type)).to_empty(device="cpu").eval()
    model.model.rotary_emb = make_rotary(config=config)
    fill(model)
    return model


def place(model, a):
    if not a.cpu:
        return model.to("cuda")
    from accelerate import dispatch_model
    there = int(round(a.layers * a.cpu))
    where = {"model.embed_tokens": 0, "model.norm": 0, "model.rotary_emb": 0, "lm_head": 0}
    for i in range(a.layers):
        where["model.layers.%d" % i] = "cpu" if i < there else 0
    return dispatch_model(model, device_map=where, main_device=0)


def median(times):
    late = sorted(times[len(times) // 3:])
    return late[len(late) // 2]


def report(name, tokens, logits, times, issue=None):
    data = logits.detach().float().cpu().numpy().tobytes()
    print("hash", name, hashlib.sha256(data).hexdigest()[:16])
    print("tokens", name, *tokens)
    if issue:
        print("issue", name, "%.5f" % median(issue))
    print("time", name, "%.5f" % median(times), flush=True)


def prefill(model, a):
    ids = (torch.arange(a.prompt, device="cuda") * 29 % VOCAB).unsqueeze(0)
    times, issue = [], []
    for _ in range(12):
        start = time.perf_counter()
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
        issue.append(time.perf_counter() - start)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    report("prefill", [int(logits[:, -1].argmax(-1))], logits[:, -1], times, issue)


def eager(model, a):
    ids = (torch.arange(16, device="cuda") * 37 % VOCAB).unsqueeze(0)
    past, tokens, times, issue = None, [], [], []
    for _ in range(a.tokens):
        start = time.perf_counter()
        out = model(input_ids=ids, past_key_values=past, use_cache=True)
        past = out.past_key_values
        ids = out.logits[:, -1:].argmax(-1)
        issue.append(time.perf_counter() - start)
        tokens.append(int(ids))
        times.append(time.perf_counter() - start)
    report("eager", tokens, out.logits[:, -1], times, issue)


def graph(model, a):
    ids = (torch.arange(WINDOW, device="cuda") * 41 % VOCAB).unsqueeze(0)
    mask = torch.ones(WINDOW, WINDOW, device="cuda", dtype=torch.bool).tril()[None, None]
    at = torch.arange(WINDOW, device="cuda").unsqueeze(0)
    given = ids.clone()

    def run():
        return model(input_ids=given, attention_mask=mask, position_ids=at,
                     use_cache=False).logits
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        logits = run()
    tokens, times = [], []
    for _ in range(a.tokens):
        start = time.perf_counter()
        given.copy_(ids)
        g.replay()
        new = logits[:, -1:].argmax(-1)
        ids = torch.cat([ids[:, 1:], new], 1)
        tokens.append(int(new))
        times.append(time.perf_counter() - start)
    report("graph", tokens, logits[:, -1], times)


def main():
    a = arguments()
    if not torch.cuda.is_available():
        print("not run: torch finds no card")
        sys.exit(77)
    print("with torch %s, transformers %s" % (torch.__version__, transformers.__version__))
    with torch.no_grad():
        start = time.perf_counter()
        model = build(a)
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        print("build %.2f" % (time.perf_counter() - start), flush=True)
        start = time.perf_counter()
        model = place(model, a)
        torch.cuda.synchronize()
        print("load %.2f" % (time.perf_counter() - start), flush=True)
        eager(model, a)
        prefill(model, a)
        if not a.cpu:
            graph(model, a)
    print("bytes", weights, torch.cuda.max_memory_reserved(), flush=True)


main()
