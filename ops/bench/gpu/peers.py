"""PyTorch on the cases of ops/bench/gpu/cases.cc, in the same form: one JSON object a line. Needs torch with CUDA."""

import json
import sys

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("gpu peers: no PyTorch here", file=sys.stderr)
    sys.exit(77)

RUNS, WARM_UP = 50, 3


def timed(body, runs=RUNS):
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


def report(case, seconds):
    print(json.dumps({"bench": "gpu", "case": case, "unit": "s", "peer": f"torch {torch.__version__}",
                      "min": seconds[0], "p50": seconds[len(seconds) // 2],
                      "p99": seconds[min(len(seconds) - 1, len(seconds) * 99 // 100)], "n": len(seconds),
                      "machine": torch.cuda.get_device_name()}), flush=True)


def product(m, n, k):
    x, w = (torch.randn(rows, k, device="cuda", dtype=torch.bfloat16) for rows in (m, n))
    report(f"product bf16 {m}x{n}x{k}", timed(lambda: F.linear(x, w)))


def attention(samples, length, heads, width):
    q, k, v = (torch.randn(samples, heads, length, width, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    report(f"attention forward {samples}x{length}, {heads} heads of {width}",
           timed(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)))


def norm():
    x = torch.randn(16384, 4096, device="cuda")
    weight = torch.ones(4096, device="cuda")
    report("rms norm 16384x4096", timed(lambda: F.rms_norm(x, (4096,), weight)))


def optimizer():
    weight = torch.nn.Parameter(torch.randn(64 << 20, device="cuda"))
    weight.grad = torch.randn_like(weight)
    adamw = torch.optim.AdamW([weight], fused=True)
    report("adamw, 64 Mi parameters", timed(adamw.step))


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


def training(name, layers, width, heads, samples):
    table = torch.nn.Embedding(50304, width).cuda()
    places = torch.nn.Embedding(1024, width).cuda()
    body = torch.nn.Sequential(*(Layer(width, heads) for _ in range(layers)), torch.nn.LayerNorm(width)).cuda()
    body = torch.compile(body)
    tokens = torch.randint(0, 50304, (samples, 1024), device="cuda")

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            logits = F.linear(body(table(tokens) + places.weight), table.weight)
            loss = F.cross_entropy(logits.view(-1, 50304).float(), tokens.view(-1))
        loss.backward()

    report(f"{name} forward and backward, {samples * 1024} tokens", timed(step, 10))
    adamw = torch.optim.AdamW([*table.parameters(), *places.parameters(), *body.parameters()], fused=True)

    def whole():
        step()
        adamw.step()
        adamw.zero_grad(set_to_none=False)

    report(f"{name} step with AdamW, {samples * 1024} tokens", timed(whole, 10))


class Served:
    """The 8B shape in bf16 with keys and values in place: what a serving loop without a framework would run."""

    LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, INNER, VOCABULARY = 32, 4096, 32, 8, 128, 14336, 128256

    def __init__(self, sequences, room):
        def matrix(out, into):
            return torch.randn(out, into, device="cuda", dtype=torch.bfloat16) * 0.02
        kv = self.KV_HEADS * self.HEAD
        self.layers = [[matrix(self.WIDTH + 2 * kv, self.WIDTH), matrix(self.WIDTH, self.WIDTH),
                        matrix(2 * self.INNER, self.WIDTH), matrix(self.WIDTH, self.INNER)] for _ in range(self.LAYERS)]
        self.norm = torch.ones(self.WIDTH, device="cuda", dtype=torch.bfloat16)
        self.table, self.head = matrix(self.VOCABULARY, self.WIDTH), matrix(self.VOCABULARY, self.WIDTH)
        self.keys, self.values = (torch.zeros(self.LAYERS, sequences, self.KV_HEADS, room, self.HEAD, device="cuda",
                                              dtype=torch.bfloat16) for _ in range(2))

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


def serving():
    with torch.inference_mode():
        model = Served(8, 2048)
        prompt = torch.full((1, 2048), 17, device="cuda")
        report("prefill, 8B shape, 2048 tokens", timed(lambda: model.run(prompt, 0), 10))
        tokens = torch.full((8, 1), 17, device="cuda")
        decode = torch.compile(lambda: model.run(tokens, 1024), mode="reduce-overhead")
        report("decode, 8B shape, 8 sequences at 1024", timed(decode))


def main():
    if not torch.cuda.is_available():
        print("gpu peers: no GPU here", file=sys.stderr)
        return 77
    product(8192, 4096, 4096)
    product(8192, 14336, 4096)
    attention(4, 4096, 32, 128)
    attention(16, 1024, 12, 64)
    norm()
    optimizer()
    training("GPT-2 124M", 12, 768, 12, 16)
    training("GPT-2 1.5B", 48, 1600, 25, 4)
    serving()
    return 0


if __name__ == "__main__":
    sys.exit(main())
