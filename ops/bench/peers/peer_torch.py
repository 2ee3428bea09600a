#!/usr/bin/env python3
"""PyTorch as a peer of bench_kernels (peer_process.h has the protocol): peer_torch.py THREADS

With one thread times are of that thread, as ours are; with more, of the clock.
"""

import itertools
import math
import sys
import time

import torch
import torch.nn.functional as F

THREADS = int(sys.argv[1])
torch.set_num_threads(THREADS)
CLOCK = time.thread_time if THREADS == 1 else time.perf_counter


def numbers(*shape, requires_grad=False):
    """In [0, 1): some thousands that are random, again and again, as a GB of them would take seconds."""
    count = math.prod(shape)
    some = torch.rand(min(count, 1 << 16))
    return some.repeat(-(-count // max(len(some), 1)))[:count].view(shape).requires_grad_(requires_grad)


def attention(samples, heads, kv_heads, tokens, width, mask):
    samples, heads, kv_heads, tokens, width = map(int, (samples, heads, kv_heads, tokens, width))
    q = numbers(samples, heads, tokens, width, requires_grad=True)
    k, v = (numbers(samples, kv_heads, tokens, width, requires_grad=True) for _ in range(2))
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
    grad = numbers(*out.shape)
    return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)


def attention_decode(dtype):
    def prepare(heads, kv_heads, positions, width):
        heads, kv_heads, positions, width = map(int, (heads, kv_heads, positions, width))
        q = numbers(1, heads, 1, width).to(dtype)
        k, v = (numbers(1, kv_heads, positions, width).to(dtype) for _ in range(2))

        def decode():
            with torch.no_grad():
                F.scaled_dot_product_attention(q, k, v, enable_gqa=heads != kv_heads)
        return decode
    return prepare


def rows(rows, columns):
    return numbers(int(rows), int(columns), requires_grad=True)


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
        grad = numbers(*y.shape)
        return lambda: torch.autograd.grad(y, x, grad, retain_graph=True)
    return forward, backward


CASES = {"attention_forward": attention_forward, "attention_backward": attention_backward,
         "attention_decode": attention_decode(torch.float32), "attention_decode_bf16": attention_decode(torch.bfloat16)}
for name, function in {
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
        "rms_norm": lambda x: F.rms_norm(x, x.shape[1:]),
        "softmax": lambda x: torch.softmax(x, 1),
        "log_softmax": lambda x: torch.log_softmax(x, 1),
}.items():
    CASES[name + "_forward"], CASES[name + "_backward"] = elementwise(function)


def gate(function):
    def forward(*shape):
        g, up = rows(*shape), rows(*shape)

        def run():
            with torch.no_grad():
                function(g) * up
        return run

    def backward(*shape):
        inputs = rows(*shape), rows(*shape)
        y = function(inputs[0]) * inputs[1]
        grad = numbers(*y.shape)
        return lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True)
    return forward, backward


for name, function in {"silu": F.silu, "gelu": lambda x: F.gelu(x, approximate="tanh")}.items():
    CASES[name + "_gate_forward"], CASES[name + "_gate_backward"] = gate(function)


def column_sums(*shape):
    x = rows(*shape).detach()
    return lambda: x.sum(0)


def embedding_forward(tokens, vocabulary, width):
    table = numbers(int(vocabulary), int(width))
    chosen = torch.randint(int(vocabulary), (int(tokens),))
    return lambda: F.embedding(chosen, table)


def embedding_backward(tokens, vocabulary, width):
    table = numbers(int(vocabulary), int(width), requires_grad=True)
    y = F.embedding(torch.randint(int(vocabulary), (int(tokens),)), table)
    grad = numbers(*y.shape)
    return lambda: torch.autograd.grad(y, table, grad, retain_graph=True)


def rotary(head_width, rows_, columns):
    x = rows(rows_, columns).detach().view(int(rows_), -1, int(head_width))
    half = int(head_width) // 2
    cosine, sine = (numbers(int(rows_), 1, half) for _ in range(2))

    def run():
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)
    return run


def without_gradient(function, made=lambda x: x):
    def prepare(*shape):
        x = made(rows(*shape).detach())
        return lambda: function(x)
    return prepare


def add_into(*shape):
    x, y = rows(*shape).detach(), rows(*shape).detach()
    return lambda: y.add_(x)


def bmm(kind, count, m, n, k):
    count, m, n, k = map(int, (count, m, n, k))
    left = numbers(count, k, m).transpose(1, 2) if kind == "tn" else numbers(count, m, k)
    right = numbers(count, n, k).transpose(1, 2) if kind == "nt" else numbers(count, k, n)
    out = torch.empty(count, m, n)
    return lambda: torch.bmm(left, right, out=out)


CASES |= {"embedding_backward": embedding_backward, "rotary": rotary, "add_into": add_into, "bmm": bmm,
          "dropout": without_gradient(lambda x: F.dropout(x, 0.1)),
          "to_bf16": without_gradient(lambda x: x.bfloat16()),
          "from_bf16": without_gradient(lambda x: x.float(), lambda x: x.bfloat16())}
CASES |= {"column_sums": column_sums, "embedding_forward": embedding_forward}


def optimizer(make):
    def prepare(*shape):
        shape = [int(size) for size in shape]
        weight = torch.nn.Parameter(numbers(*shape))
        weight.grad = numbers(*shape)
        return make([weight]).step
    return prepare


CASES["adamw"] = optimizer(lambda p: torch.optim.AdamW(p, fused=True))
CASES["sgd"] = optimizer(lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True))
CASES["adafactor"] = lambda size: optimizer(torch.optim.Adafactor)(int(size) // 768, 768)
if hasattr(torch.optim, "Muon"):
    CASES["muon"] = optimizer(torch.optim.Muon)


def sampling(how):
    """A token of one row of logits: the largest, or drawn by its weight, of all or of the largest 50."""
    def prepare(vocabulary):
        logits = numbers(int(vocabulary)) * 8

        def draw():
            if how == "greedy":
                return torch.argmax(logits)
            values, ids = (logits, None) if how == "temperature" else torch.topk(logits, 50)
            drawn = torch.multinomial(torch.softmax(values / 0.8, 0), 1)
            return drawn if ids is None else ids[drawn]
        return draw
    return prepare


CASES |= {"sampling_" + how: sampling(how) for how in ("greedy", "temperature", "top_k")}


def linear_cross_entropy(tokens, width, vocabulary, mode):
    tokens, width, vocabulary = map(int, (tokens, width, vocabulary))
    hidden = numbers(tokens, width, requires_grad=True)
    weight = numbers(vocabulary, width, requires_grad=True)
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
    x, w, y = numbers(m, k), numbers(n, k), numbers(m, n)
    left, right, out = {"nt": (x, w.T, y), "nn": (y, w, x), "tn": (y.T, x, w)}[kind]

    def run():
        with torch.no_grad():
            torch.mm(left, right, out=out)
    return run


def product_bf16(kind, m, n, k):
    m, n, k = map(int, (m, n, k))
    x, w, y = (numbers(*shape).bfloat16() for shape in ((m, k), (n, k), (m, n)))
    left, right = {"nt": (x, w.T), "nn": (y, w), "tn": (y.T, x)}[kind]

    def run():
        with torch.no_grad():
            torch.mm(left, right)
    return run


CASES["product"], CASES["product_bf16"] = product, product_bf16

SQUARE = torch.rand(256, 256)


def rouse():
    """A core that slept while the other side ran is at a low clock for its next millisecond (peer_process.h)."""
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end:
        torch.mm(SQUARE, SQUARE)


runs = None
for line in sys.stdin:
    word, *rest = line.split()
    if word == "case":
        copies, name, *shape = rest
        runs = itertools.cycle([CASES[name](*shape) for _ in range(int(copies))]) if name in CASES else None
        print("ready" if runs else "unknown", flush=True)
    else:
        run = next(runs)
        rouse()
        begin = CLOCK()
        run()
        print(CLOCK() - begin, flush=True)
