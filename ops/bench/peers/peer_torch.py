#!/usr/bin/env python3
"""PyTorch as a peer of bench_kernels (peer_process.h has the protocol): peer_torch.py THREADS

With one thread times are of that thread, as ours are; with more, of the clock.
"""

import functools
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


def bmm(dtype, kind, count, m, n, k):
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    count, m, n, k = map(int, (count, m, n, k))
    left = numbers(count, k, m).to(dtype).transpose(1, 2) if kind == "tn" else numbers(count, m, k).to(dtype)
    right = numbers(count, n, k).to(dtype).transpose(1, 2) if kind == "nt" else numbers(count, k, n).to(dtype)
    out = torch.empty(count, m, n, dtype=dtype)
    return lambda: torch.bmm(left, right, out=out)


CASES |= {"embedding_backward": embedding_backward, "rotary": rotary, "add_into": add_into, "bmm": bmm,
          "dropout": without_gradient(lambda x: F.dropout(x, 0.1)),
          "dropout_backward": elementwise(lambda x: F.dropout(x, 0.1))[1],
          "sum_of_4": lambda *shape: without_gradient(lambda x: x.sum(0), lambda x: x.view(4, *map(int, shape)))(
              4 * int(shape[0]), shape[1]),
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
CASES["adafactor"] = lambda columns, size: optimizer(torch.optim.Adafactor)(int(size) // int(columns), columns)
if hasattr(torch.optim, "Muon"):
    CASES["muon"] = optimizer(torch.optim.Muon)


for name, function in {"norm": torch.linalg.vector_norm, "zero": torch.Tensor.zero_, "uniform": torch.Tensor.uniform_,
                       "normal": torch.Tensor.normal_}.items():
    CASES[name] = lambda size, function=function: without_gradient(function)(1, size)


def kv_write(dtype):
    """Keys and values of some tokens into rows of a cache."""
    def prepare(tokens, columns):
        chosen = torch.randperm(int(tokens))
        keys, values = rows(tokens, columns).detach(), rows(tokens, columns).detach()
        caches = [torch.empty(keys.shape, dtype=dtype) for _ in range(2)]

        def write():
            for cache, new in zip(caches, (keys, values)):
                cache.index_copy_(0, chosen, new.to(dtype))
        return write
    return prepare


def rotary_angles(tokens, half):
    positions, frequencies = torch.arange(int(tokens)).float(), numbers(int(half))

    def run():
        angles = torch.outer(positions, frequencies)
        return angles.cos(), angles.sin()
    return run


CASES |= {"kv_write_f32": kv_write(torch.float32), "kv_write_bf16": kv_write(torch.bfloat16), "rotary_angles": rotary_angles}


def top_k(logits):
    values, ids = torch.topk(logits, 50)
    return ids.gather(-1, torch.multinomial(torch.softmax(values / 0.8, -1), 1))


def top_p(logits):
    """By the largest weights of which 0.9 are left of all."""
    weights, ids = torch.softmax(logits, -1).sort(descending=True)
    weights[weights.cumsum(-1) - weights > 0.9] = 0
    return ids[torch.multinomial(weights, 1)]


def min_p(logits):
    """By the weights that are at least 0.05 of the largest."""
    weights = torch.softmax(logits, -1)
    return torch.multinomial(weights.where(weights >= 0.05 * weights.max(), 0), 1)


def typical(logits):
    """By the weights nearest to the entropy of which 0.9 are left of all (Meister et al. 2023)."""
    logs = torch.log_softmax(logits, -1)
    weights = logs.exp()
    order = (logs - (weights * logs).sum()).abs().argsort()
    weights = weights[order]
    weights[weights.cumsum(-1) - weights > 0.9] = 0
    return order[torch.multinomial(weights, 1)]


def sampling(draw):
    """A token of one row of logits."""
    def prepare(vocabulary):
        logits = numbers(int(vocabulary)) * 8
        return lambda: draw(logits)
    return prepare


CASES |= {"sampling_" + draw.__name__: sampling(draw) for draw in (top_k, top_p, min_p, typical)}
CASES["sampling_greedy"] = sampling(torch.argmax)
CASES["sampling_temperature"] = sampling(lambda logits: torch.multinomial(torch.softmax(logits / 0.8, 0), 1))


def choose_tokens(count, vocabulary):
    """Of every second row the largest with its log-probability, of the others one of the largest 50."""
    logits = numbers(int(count), int(vocabulary)) * 8
    return lambda: (torch.log_softmax(logits[::2], -1).max(-1), top_k(logits[1::2]))


def penalties(seen, vocabulary):
    """As servers count them: of all tokens that were seen, how often."""
    logits = numbers(int(vocabulary))
    tokens = torch.arange(int(seen)) ** 2 * 7919 % int(vocabulary)
    biased, biases = torch.tensor([3, 5]), torch.tensor([1.0, -1.0])

    def penalise():
        counts = torch.bincount(tokens, minlength=len(logits))
        there = counts > 0
        repeated = torch.where(logits > 0, logits / 1.1, logits * 1.1)
        logits.copy_(torch.where(there, repeated, logits) - 0.5 * counts - 0.25 * there)
        logits.index_add_(0, biased, biases)
    return penalise


CASES |= {"choose_tokens": choose_tokens, "penalties": penalties}


def linear_cross_entropy(tokens, width, vocabulary, mode):
    tokens, width, vocabulary = map(int, (tokens, width, vocabulary))
    # As ours are: logits as a model has them (kernels_losses.cc says why).
    hidden, weight = (((numbers(*shape) - 0.5) * (12 ** 0.5 * deviation)).requires_grad_()
                      for shape, deviation in (((tokens, width), 1.0), ((vocabulary, width), 0.02)))
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


GROUP = 32  # inputs that have a scale and a zero of their own


@functools.cache
def weight_of(kind, n, k):
    """A weight of its format and its scales; cases go through copies of it."""
    if kind == "int8":
        return (numbers(n, k) * 255 - 128).to(torch.int8), numbers(n).bfloat16()
    codes = (numbers(n, k) * 16).to(torch.int32)
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1), numbers(k // GROUP, n, 2).bfloat16()


def product_int8pack(m, n, k):
    x = numbers(int(m), int(k)).bfloat16()
    weight, scales = weight_of("int8", int(n), int(k))
    weight = weight.clone()
    return lambda: torch.ops.aten._weight_int8pack_mm(x, weight, scales)


def product_int4pack(m, n, k):
    x = numbers(int(m), int(k)).bfloat16()
    weight, scales = weight_of("int4", int(n), int(k))
    weight, scales = weight.clone(), scales.clone()
    return lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(x, weight, GROUP, scales)


if hasattr(torch.ops.aten, "_weight_int8pack_mm"):
    CASES["product_int8pack"] = product_int8pack
if hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
    CASES["product_int4pack"] = product_int4pack

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
