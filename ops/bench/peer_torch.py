#!/usr/bin/env python3
"""PyTorch as a peer of bench_kernels (peer_process.h has the protocol): peer_torch.py THREADS

With one thread times are of that thread, as ours are; with more, of the clock.
"""

import sys
import time

import torch
import torch.nn.functional as F

THREADS = int(sys.argv[1])
torch.set_num_threads(THREADS)
CLOCK = time.thread_time if THREADS == 1 else time.perf_counter


def attention(samples, heads, kv_heads, tokens, width, mask):
    samples, heads, kv_heads, tokens, width = map(int, (samples, heads, kv_heads, tokens, width))
    q = torch.rand(samples, heads, tokens, width, requires_grad=True)
    k, v = (torch.rand(samples, kv_heads, tokens, width, requires_grad=True) for _ in range(2))
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=mask == "causal",
                                                  enable_gqa=heads != kv_heads), (q, k, v)


def attention_forward(*shape):
    run, _ = attention(*shape)

    def forward():
        with torch.no_grad():
            run()
    return forward


def attention_backward(*shape):
    run, inputs = attention(*shape)
    out = run()
    grad = torch.rand_like(out)
    return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)


def attention_decode(heads, kv_heads, positions, width):
    heads, kv_heads, positions, width = map(int, (heads, kv_heads, positions, width))
    q = torch.rand(1, heads, 1, width)
    k, v = (torch.rand(1, kv_heads, positions, width) for _ in range(2))

    def decode():
        with torch.no_grad():
            F.scaled_dot_product_attention(q, k, v, enable_gqa=heads != kv_heads)
    return decode


def rows(rows, columns):
    return torch.rand(int(rows), int(columns), requires_grad=True)


def elementwise(function):
    def forward(*shape):
        x = rows(*shape)

        def run():
            with torch.no_grad():
                function(x)
        return run

    def backward(*shape):
        x = rows(*shape)
        y = function(x)
        grad = torch.rand_like(y)
        return lambda: torch.autograd.grad(y, x, grad, retain_graph=True)
    return forward, backward


CASES = {"attention_forward": attention_forward, "attention_backward": attention_backward,
         "attention_decode": attention_decode}
for name, function in {
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
        "rms_norm": lambda x: F.rms_norm(x, x.shape[1:]),
        "softmax": lambda x: torch.softmax(x, 1),
        "log_softmax": lambda x: torch.log_softmax(x, 1),
}.items():
    CASES[name + "_forward"], CASES[name + "_backward"] = elementwise(function)


def gate(rows_, columns):
    g, up = rows(rows_, columns), rows(rows_, columns)
    return lambda: F.silu(g) * up, (g, up)


def silu_gate_forward(*shape):
    run_, _ = gate(*shape)

    def forward():
        with torch.no_grad():
            run_()
    return forward


def silu_gate_backward(*shape):
    run_, inputs = gate(*shape)
    y = run_()
    grad = torch.rand_like(y)
    return lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True)


def column_sums(*shape):
    x = rows(*shape).detach()
    return lambda: x.sum(0)


def embedding_forward(tokens, vocabulary, width):
    table = torch.rand(int(vocabulary), int(width))
    chosen = torch.randint(int(vocabulary), (int(tokens),))
    return lambda: F.embedding(chosen, table)


CASES |= {"silu_gate_forward": silu_gate_forward, "silu_gate_backward": silu_gate_backward,
          "column_sums": column_sums, "embedding_forward": embedding_forward}


def optimizer(make):
    def prepare(size):
        weight = torch.nn.Parameter(torch.rand(int(size)))
        weight.grad = torch.rand(int(size))
        return make([weight]).step
    return prepare


CASES["adamw"] = optimizer(lambda p: torch.optim.AdamW(p, fused=True))
CASES["sgd"] = optimizer(lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True))


def linear_cross_entropy(tokens, width, vocabulary, mode):
    tokens, width, vocabulary = map(int, (tokens, width, vocabulary))
    hidden = torch.rand(tokens, width, requires_grad=True)
    weight = torch.rand(vocabulary, width, requires_grad=True)
    targets = torch.randint(vocabulary, (tokens,))

    def forward():
        with torch.no_grad():
            F.cross_entropy(hidden @ weight.T, targets, reduction="sum")

    def training():
        loss = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
        torch.autograd.grad(loss, (hidden, weight))
    return forward if mode == "forward" else training


CASES["linear_cross_entropy"] = linear_cross_entropy


def product(kind, m, n, k):
    m, n, k = map(int, (m, n, k))
    x, w, y = torch.rand(m, k), torch.rand(n, k), torch.rand(m, n)
    left, right, out = {"nt": (x, w.T, y), "nn": (y, w, x), "tn": (y.T, x, w)}[kind]

    def run():
        with torch.no_grad():
            torch.mm(left, right, out=out)
    return run


def product_bf16(kind, m, n, k):
    m, n, k = map(int, (m, n, k))
    x, w, y = (torch.rand(*shape).bfloat16() for shape in ((m, k), (n, k), (m, n)))
    left, right = {"nt": (x, w.T), "nn": (y, w), "tn": (y.T, x)}[kind]

    def run():
        with torch.no_grad():
            torch.mm(left, right)
    return run


CASES["product"], CASES["product_bf16"] = product, product_bf16

run = None
for line in sys.stdin:
    word, *rest = line.split()
    if word == "case":
        run = CASES[rest[0]](*rest[1:]) if rest[0] in CASES else None
        print("ready" if run else "unknown", flush=True)
    else:
        begin = CLOCK()
        run()
        print(CLOCK() - begin, flush=True)
