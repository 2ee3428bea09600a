"""PyTorch on the cases of ops/bench/gpu, by the same names. Needs torch with CUDA.

    ops/bench/gpu/peers.py --beside OURS   the JSON lines of gpu_bench with the peer's time and the ratio in them
    ops/bench/gpu/peers.py --names         what the cases are called; needs nothing
    ops/bench/gpu/peers.py --try           each kind of case once, tiny and on the CPU: whether they run at all; 77 without torch
"""

import json
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

RUNS, WARM_UP = 50, 3
DEVICE = "cuda"


def timed(body, runs=RUNS):
    if DEVICE == "cpu":
        begin = time.perf_counter()
        body()
        return [time.perf_counter() - begin]
    seconds = []
    for run in range(-WARM_UP, runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        body()
        end.record()
        torch.cuda.synchronize()
        if run >= 0:
            seconds.append(begin.elapsed_time(end) * 1e-3)
    return sorted(seconds)


def product(m, n, k):
    x, w = (torch.randn(rows, k, device=DEVICE, dtype=torch.bfloat16) for rows in (m, n))
    return timed(lambda: F.linear(x, w))


def heads_of(samples, length, heads, width, grad=False):
    return [torch.randn(samples, heads, length, width, device=DEVICE, dtype=torch.bfloat16, requires_grad=grad)
            for _ in range(3)]


def attention(*shape):
    q, k, v = heads_of(*shape)
    return timed(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))


def attention_backward(*shape):
    q, k, v = heads_of(*shape, grad=True)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    slope = torch.randn_like(out)
    return timed(lambda: torch.autograd.grad(out, (q, k, v), slope, retain_graph=True))


def decode_attention(sequences, held, heads, kv_heads, width):
    q = torch.randn(sequences, heads, 1, width, device=DEVICE, dtype=torch.bfloat16)
    k, v = (torch.randn(sequences, kv_heads, held, width, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return timed(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))


def linear_cross_entropy(rows, columns, vocabulary):
    hidden, weight = (torch.randn(n, columns, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
                      for n in (rows, vocabulary))
    targets = torch.full((rows,), 11, device=DEVICE)

    def both():
        F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum").backward()

    return timed(both)


def sampling(rows, vocabulary, top_p):
    logits = torch.randn(rows, vocabulary, device=DEVICE) * 5.0

    def draw():
        values, order = torch.softmax(logits, -1).sort(-1, descending=True)
        values[values.cumsum(-1) - values > top_p] = 0.0
        return order.gather(-1, torch.multinomial(values, 1))

    return timed(draw)


def norm(function, rows, width):
    x, *weights = torch.randn(rows, width, device=DEVICE), *weights_of(function, width)
    return timed(lambda: function(x, (width,), *weights))


def norm_backward(function, rows, width):
    x, *weights = torch.randn(rows, width, device=DEVICE, requires_grad=True), *weights_of(function, width, True)
    y = function(x, (width,), *weights)
    slope = torch.randn_like(y)
    return timed(lambda: torch.autograd.grad(y, (x, *weights), slope, retain_graph=True))


def weights_of(function, width, grad=False):
    count = 2 if function is F.layer_norm else 1  # with a bias
    return [torch.ones(width, device=DEVICE, requires_grad=grad) for _ in range(count)]


def layer_class():
    """Not a class of the module: it must load where there is no PyTorch."""

    class Layer(torch.nn.Module):
        """Of GPT-2: layer norms, biases, query, key and value in one, GELU by tanh."""

        def __init__(self, width, heads):
            super().__init__()
            self.heads = heads
            self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(2))
            self.projections, self.output = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
            self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

        def forward(self, x):
            samples, length, width = x.shape
            split = lambda y: y.view(samples, length, self.heads, -1).transpose(1, 2)
            query, key, value = self.projections(self.norms[0](x)).chunk(3, -1)
            attended = F.scaled_dot_product_attention(split(query), split(key), split(value), is_causal=True)
            x = x + self.output(attended.transpose(1, 2).reshape(samples, length, width))
            return x + self.down(F.gelu(self.up(self.norms[1](x)), approximate="tanh"))

    return Layer


class Training:
    """GPT-2, compiled, in bf16 by autocast."""

    LENGTH, VOCABULARY = 1024, 50304

    def __init__(self, layers, width, heads, samples):
        layer = layer_class()
        self.table, self.places = (torch.nn.Embedding(count, width).to(DEVICE) for count in (self.VOCABULARY, self.LENGTH))
        body = torch.nn.Sequential(*(layer(width, heads) for _ in range(layers)), torch.nn.LayerNorm(width)).to(DEVICE)
        self.parameters = [*self.table.parameters(), *self.places.parameters(), *body.parameters()]
        self.adamw = torch.optim.AdamW(self.parameters, fused=True)
        self.body = torch.compile(body)
        self.tokens = torch.randint(0, self.VOCABULARY, (samples, self.LENGTH), device=DEVICE)

    def backward(self):
        with torch.autocast(DEVICE, torch.bfloat16):
            logits = F.linear(self.body(self.table(self.tokens) + self.places.weight), self.table.weight)
            loss = F.cross_entropy(logits.view(-1, self.VOCABULARY).float(), self.tokens.view(-1))
        loss.backward()

    def step(self, micro_batches):
        for _ in range(micro_batches):
            self.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=False)


def optimizer(*shape):
    training = Training(*shape)
    training.backward()
    return timed(training.adamw.step)


def passes(*shape):
    return timed(Training(*shape).backward, 10)


def steps(micro_batches, *shape):
    training = Training(*shape)
    return timed(lambda: training.step(micro_batches), 10)


class Served:
    """The 8B shape in bf16 with keys and values in place: what a serving loop without a framework would run."""

    LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, INNER, VOCABULARY = 32, 4096, 32, 8, 128, 14336, 128256

    def __init__(self, sequences, room):
        def matrix(out, into):
            return torch.randn(out, into, device=DEVICE, dtype=torch.bfloat16) * 0.02
        kv = self.KV_HEADS * self.HEAD
        self.layers = [[matrix(self.WIDTH + 2 * kv, self.WIDTH), matrix(self.WIDTH, self.WIDTH),
                        matrix(2 * self.INNER, self.WIDTH), matrix(self.WIDTH, self.INNER)] for _ in range(self.LAYERS)]
        self.norm = torch.ones(self.WIDTH, device=DEVICE, dtype=torch.bfloat16)
        self.table, self.head = matrix(self.VOCABULARY, self.WIDTH), matrix(self.VOCABULARY, self.WIDTH)
        self.keys, self.values = (torch.zeros(self.LAYERS, sequences, self.KV_HEADS, room, self.HEAD, device=DEVICE,
                                              dtype=torch.bfloat16) for _ in range(2))
        # Graphs are made of what stays where it is: else torch copies all of it into places of its own before each
        # step, or, of what a step writes, makes none.
        for matrices in (*self.layers, (self.norm, self.table, self.head, self.keys, self.values)):
            for each in matrices:
                torch._dynamo.mark_static_address(each)

    def run(self, tokens, held):
        count, length = tokens.shape
        x = self.table[tokens]
        kv = self.KV_HEADS * self.HEAD
        split = lambda y, heads: y.view(count, length, heads, self.HEAD).transpose(1, 2)
        for n, (qkv, out, up, down) in enumerate(self.layers):
            q, k, v = F.linear(F.rms_norm(x, (self.WIDTH,), self.norm), qkv).split([self.WIDTH, kv, kv], -1)
            keys, values = self.keys[n, :count, :, :held + length], self.values[n, :count, :, :held + length]
            keys[:, :, held:], values[:, :, held:] = split(k, self.KV_HEADS), split(v, self.KV_HEADS)
            attended = F.scaled_dot_product_attention(split(q, self.HEADS), keys, values, is_causal=length > 1,
                                                      enable_gqa=True)
            x = x + F.linear(attended.transpose(1, 2).reshape(count, length, self.WIDTH), out)
            gate, other = F.linear(F.rms_norm(x, (self.WIDTH,), self.norm), up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * other, down)
        return F.linear(F.rms_norm(x[:, -1], (self.WIDTH,), self.norm), self.head).float()


def prefill(tokens):
    with torch.inference_mode():
        model = Served(1, tokens)
        prompt = torch.full((1, tokens), 17, device=DEVICE)
        return timed(lambda: model.run(prompt, 0), 10)


def decode(sequences, held):
    with torch.inference_mode():
        model = Served(sequences, held + 1)
        tokens = torch.full((sequences, 1), 17, device=DEVICE)
        torch._dynamo.mark_static_address(tokens)
        seconds = timed(torch.compile(lambda: model.run(tokens, held), mode="reduce-overhead"))
    skipped = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
    if skipped and DEVICE == "cuda":  # a CPU has none
        raise RuntimeError(f"torch made no graph of {skipped} parts: its time is not that of one")
    return seconds


def all_cases():
    """Name -> what it measures: the names of gpu_bench."""
    cases = {}
    for m, n, k in ((8192, 4096, 4096), (8192, 14336, 4096)):
        cases[f"product bf16 {m}x{n}x{k}"] = (product, m, n, k)
    for shape in ((4, 4096, 32, 128), (16, 1024, 12, 64)):
        samples, length, heads, width = shape
        cases[f"attention forward {samples}x{length}, {heads} heads of {width}"] = (attention, *shape)
        cases[f"attention backward {samples}x{length}, {heads} heads of {width}"] = (attention_backward, *shape)
    for sequences, held in ((8, 1024), (1, 8192)):
        cases[f"decode attention, {sequences} sequences at {held}, 8 of 32 heads of 128"] = (
            decode_attention, sequences, held, 32, 8, 128)
    cases["linear and cross-entropy, 8192 rows of 768 by 50304"] = (linear_cross_entropy, 8192, 768, 50304)
    cases["sampling, 32 rows of 128256, top-p 0.9"] = (sampling, 32, 128256, 0.9)
    for name in ("rms norm", "layer norm"):
        function = torch and getattr(F, name.replace(" ", "_"))
        cases[f"{name} forward 16384x4096"] = (norm, function, 16384, 4096)
        cases[f"{name} backward 16384x4096"] = (norm_backward, function, 16384, 4096)
    for name, shape in (("GPT-2 124M", (12, 768, 12, 8)), ("GPT-2 1.5B", (48, 1600, 25, 3))):
        tokens = shape[-1] * 1024
        cases[f"{name} AdamW"] = (optimizer, *shape)
        cases[f"{name} forward and backward, {tokens} tokens"] = (passes, *shape)
        cases[f"{name} step with AdamW, 4 times {tokens} tokens"] = (steps, 4, *shape)
    cases["prefill, 8B shape, 2048 tokens, bf16"] = (prefill, 2048)
    cases["decode, 8B shape, 8 sequences at 1024, bf16, graphs"] = (decode, 8, 1024)
    return cases


def beside(line, cases, peer):
    """The line with the peer's median over ours; as it is where the peer has no such case or cannot run it."""
    ours = json.loads(line)
    measure, *arguments = cases.get(ours["case"], (None,))
    if measure is None:
        return ours
    try:
        seconds = measure(*arguments)
    except (RuntimeError, TypeError) as refused:
        print(f"gpu peers: {ours['case']}: {refused}", file=sys.stderr)
        return ours
    torch.cuda.empty_cache()
    return ours | {"peer": peer, "ratio": round(seconds[len(seconds) // 2] / ours["p50"], 3)}


def try_all():
    """Every function of all_cases, and no others, at a size that a CPU does at once."""
    global DEVICE  # pylint: disable=global-statement
    DEVICE = "cpu"
    Training.LENGTH, Training.VOCABULARY = 16, 64
    Served.LAYERS, Served.WIDTH, Served.HEADS, Served.KV_HEADS = 2, 64, 4, 2
    Served.HEAD, Served.INNER, Served.VOCABULARY = 16, 96, 128
    model = (2, 64, 4, 2)
    sizes = {product: (8, 16, 32), attention: (2, 16, 4, 16), attention_backward: (2, 16, 4, 16),
             decode_attention: (2, 16, 4, 2, 16), linear_cross_entropy: (8, 32, 64), sampling: (4, 64, 0.9),
             optimizer: model, passes: model, steps: (2, *model), prefill: (16,), decode: (2, 16)}
    done = set()
    for measure, *arguments in all_cases().values():
        by_function = measure in (norm, norm_backward)
        kind = (measure, arguments[0]) if by_function else measure
        if kind in done:
            continue
        done.add(kind)
        seconds = measure(arguments[0], 4, 32) if by_function else measure(*sizes[measure])
        assert seconds and all(each > 0.0 for each in seconds)
        print(f"{measure.__name__}: runs", flush=True)


def main():
    cases = all_cases()
    if sys.argv[1:] == ["--names"]:
        print("\n".join(cases))
        return 0
    if sys.argv[1:] == ["--try"]:
        if torch is None:
            print("gpu peers: no PyTorch here: its cases were not tried")
            return 77
        try_all()
        return 0
    if len(sys.argv) != 3 or sys.argv[1] != "--beside":
        print(__doc__, file=sys.stderr)
        return 2
    peer = f"torch {torch.__version__}" if torch is not None and torch.cuda.is_available() else ""
    if not peer:
        print("gpu peers: no PyTorch with a GPU here: the table is ours alone", file=sys.stderr)
    with open(sys.argv[2], encoding="utf-8") as lines:
        for line in lines:
            print(json.dumps(beside(line, cases if peer else {}, peer)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
